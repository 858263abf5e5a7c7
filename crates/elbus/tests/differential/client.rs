//! One connection: what was sent to it, byte for byte, pings and announcements aside.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long anything may take.
const WAIT: Duration = Duration::from_secs(20);
const FENCE: u32 = 0xFEFE_FEFE;

/// What a broker sent.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Ack { id: u32, code: u8 },
    Event { kind: u8, realtime: u8, body: Vec<u8> },
    Closed,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ack { id, code } => write!(f, "ack {id}: {code:02x}"),
            Self::Event { kind, realtime, body } => {
                let shown = &body[..body.len().min(80)];
                write!(f, "{kind:02x}/{realtime} {} bytes {:?}", body.len(), String::from_utf8_lossy(shown))
            }
            Self::Closed => f.write_str("closed"),
        }
    }
}

pub(crate) struct Client {
    stream: UnixStream,
    pub(crate) is_open: bool,
}

impl Client {
    /// Connects and logs in. Returns the answer; `None` if there was none.
    pub(crate) fn log_in(path: &Path, name: &[u8]) -> (Self, Option<u8>) {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.set_write_timeout(Some(WAIT)).unwrap();
        let mut client = Self { stream, is_open: true };
        let length = u16::try_from(name.len()).unwrap().to_le_bytes();
        client.send(&[&[0xEB, 1, 0], &length[..], name].concat());
        let mut head = [0; 4];
        client.stream.read_exact(&mut head).unwrap();
        assert_eq!(head, [0xEB, 1, 0, 1]);
        let mut answer = [0];
        let answer = client.stream.read_exact(&mut answer).is_ok().then_some(answer[0]);
        client.is_open = answer == Some(1);
        (client, answer)
    }

    /// Writes; that the other side has closed is found by reading.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    fn record(&mut self) -> Record {
        loop {
            let mut header = [0; 6];
            match self.stream.read_exact(&mut header) {
                Ok(()) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) =>
                {
                    self.is_open = false;
                    return Record::Closed;
                }
                Err(error) => panic!("nothing within {WAIT:?}: {error}"),
            }
            let [kind, a, b, c, d, last] = header;
            let number = u32::from_le_bytes([a, b, c, d]);
            if kind == 0xFE {
                return Record::Ack { id: number, code: last };
            }
            let mut body = vec![0; usize::try_from(number).unwrap()];
            self.stream.read_exact(&mut body).unwrap();
            // Announcements come when their task is run, and hold the time.
            let announced = kind == 1 && body.starts_with(b".broker\0.broker/");
            if kind != 0 && !announced {
                return Record::Event { kind, realtime: last, body };
            }
        }
    }

    /// What has been queued for this client until now: up to the answer to an operation that does nothing.
    pub(crate) fn until_fence(&mut self) -> Vec<Record> {
        if !self.is_open {
            return Vec::new();
        }
        let mask = b"no/such/mask";
        let length = u32::try_from(mask.len()).unwrap().to_le_bytes();
        self.send(&[&FENCE.to_le_bytes()[..], &[0x43], &length, mask].concat());
        let mut records = Vec::new();
        loop {
            match self.record() {
                Record::Ack { id: FENCE, code } => {
                    assert_eq!(code, 1);
                    return records;
                }
                Record::Closed => {
                    records.push(Record::Closed);
                    return records;
                }
                record => records.push(record),
            }
        }
    }

    /// What comes before and with an answer of `.broker`, which comes from a task of its own.
    pub(crate) fn until_reply(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        loop {
            let record = self.record();
            let is_reply =
                matches!(&record, Record::Event { kind: 0x12, body, .. } if body.starts_with(b".broker\0"));
            let ends = is_reply || record == Record::Closed;
            records.push(record);
            if ends {
                return records;
            }
        }
    }

    /// Everything up to the end.
    pub(crate) fn until_end(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        while self.is_open {
            records.push(self.record());
        }
        records
    }

    pub(crate) fn hang_up(&mut self) {
        // It may be gone already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}
