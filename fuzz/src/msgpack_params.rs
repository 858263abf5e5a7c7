//! The params of the methods of `.broker`, through the RPC of a real broker: MessagePack, and the regular
//! expression in it.
//!
//! The first byte of the input chooses the method, all others are the params.

use crate::cost::{peak_of, within};
use bytes::Bytes;
use elbus_broker::{Broker, LocalClient};
use elbus_protocol::RpcCode;
use elbus_rpc::{CallError, RpcError};
use regex::RegexBuilder;
use serde::Deserialize;
use tokio::runtime::Runtime;

const CALLER: &str = "caller";
/// Names of all sorts, as filters see them.
const NAMES: [&str; 5] = ["client.1", "client.22", "имя", "a%%", "x.y.z"];
/// C22: whatever params ask for.
const MOST_BYTES: usize = 1 << 20;

/// One broker for all inputs of a thread.
struct Bed {
    runtime: Runtime,
    _broker: Broker,
    caller: LocalClient,
    _others: Vec<LocalClient>,
    /// Of all primaries, sorted.
    names: Vec<String>,
}

thread_local! {
    static BED: Bed = Bed::new();
}

#[derive(Deserialize)]
struct List {
    clients: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    name: String,
}

impl Bed {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let broker = Broker::builder().runtime(runtime.handle().clone()).build().expect("a broker");
        broker.init_default_core_rpc().expect("nobody is `.broker`");
        let client = |name: &str| broker.client(name).expect("a free name");
        let caller = client(CALLER);
        let mut others: Vec<_> =
            NAMES.iter().filter(|name| !name.contains("%%")).map(|name| client(name)).collect();
        // Listed with its primary.
        others.push(client("client.1%%0"));
        let mut names = vec![CALLER.to_owned(), ".broker".to_owned()];
        names.extend(NAMES.iter().filter(|name| !name.contains("%%")).map(|name| (*name).to_owned()));
        names.sort_unstable();
        Self { runtime, _broker: broker, caller, _others: others, names }
    }

    fn call(&self, method: &str, params: &[u8]) -> Result<Bytes, RpcError> {
        match self.runtime.block_on(async { self.caller.call(".broker", method, params).await }) {
            Ok(result) => Ok(result),
            Err(CallError::Remote(error)) => Err(error),
            Err(other) => panic!("{method} was not answered: {other}"),
        }
    }
}

pub(crate) fn run(data: &[u8]) {
    let Some((byte, params)) = data.split_first() else { return };
    BED.with(|bed| match byte {
        1..=3 => {
            let method = ["test", "info", "stats"][usize::from(byte - 1)];
            let answer = within(MOST_BYTES, || bed.call(method, params));
            match answer {
                Ok(_) => assert!(params.is_empty(), "{method} takes no params"),
                Err(error) => assert!(error.code == RpcCode::INVALID_PARAMS && !params.is_empty()),
            }
        }
        4 => {
            let answer = within(MOST_BYTES, || bed.call("benchmark.test", params));
            assert_eq!(answer.as_deref(), Ok(params));
        }
        _ => check_list(bed, params),
    });
}

/// What `client.list` came to.
pub struct Answer {
    /// How many clients it lists, or the code of the error.
    pub code: Result<usize, i16>,
    /// Most memory that was held beyond what there was before, in bytes.
    pub peak: usize,
}

/// Calls `client.list` with these params.
///
/// # Panics
/// If there is no answer, or one that cannot be read.
pub fn client_list(params: &[u8]) -> Answer {
    BED.with(|bed| {
        let (answer, peak) = peak_of(|| bed.call("client.list", params));
        let count = |answer: Bytes| rmp_serde::from_slice::<List>(&answer).expect("a list").clients.len();
        Answer { code: answer.map(count).map_err(|error| error.code.0), peak }
    })
}

fn check_list(bed: &Bed, params: &[u8]) {
    let answer = within(MOST_BYTES, || bed.call("client.list", params));
    let listed = match &answer {
        Ok(answer) => Some(rmp_serde::from_slice::<List>(answer).expect("a list")),
        Err(error) => {
            assert_eq!(error.code, RpcCode::PARSE);
            assert!(error.data.len() <= 4_096, "{} bytes that say what is wrong", error.data.len());
            None
        }
    };
    let listed: Option<Vec<String>> =
        listed.map(|list| list.clients.into_iter().map(|row| row.name).collect());
    if let Some(listed) = &listed {
        assert!(listed.is_sorted() && listed.iter().all(|name| bed.names.contains(name)), "{listed:?}");
    }
    let expected = match plain_filter(params) {
        None if params.is_empty() => Some(bed.names.clone()),
        // Something that this file does not read: the broker may take it or refuse it.
        None => return,
        Some((_, false)) => None,
        Some((None, true)) => Some(bed.names.clone()),
        Some((Some(filter), true)) if filter.len() > 256 => None,
        Some((Some(filter), true)) => RegexBuilder::new(filter)
            .size_limit(160 << 10)
            .build()
            .ok()
            .map(|filter| bed.names.iter().filter(|name| filter.is_match(name)).cloned().collect()),
    };
    // A filter has a bound of processor time, too, which this build may reach where another would not.
    let late = answer.is_err_and(|error| error.data.starts_with(b"the filter takes more than"));
    assert!(late || listed == expected, "{listed:?} instead of {expected:?}");
}

/// Reads the one form that callers send, a map with one key: the filter if there is one, and whether that is all.
/// `None` if it is another form.
fn plain_filter(params: &[u8]) -> Option<(Option<&str>, bool)> {
    let rest = match params {
        [0x81, rest @ ..] | [0xDE, 0, 1, rest @ ..] | [0xDF, 0, 0, 0, 1, rest @ ..] => rest,
        _ => return None,
    };
    let (key, rest) = text(rest)?;
    if key != "filter" {
        return None;
    }
    if let [0xC0, rest @ ..] = rest {
        return Some((None, rest.is_empty()));
    }
    let (value, rest) = text(rest)?;
    Some((Some(value), rest.is_empty()))
}

fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = match bytes {
        [head @ 0xA0..=0xBF, rest @ ..] => (usize::from(head & 0x1F), rest),
        [0xD9, l0, rest @ ..] => (usize::from(*l0), rest),
        [0xDA, l1, l0, rest @ ..] => (usize::from(u16::from_be_bytes([*l1, *l0])), rest),
        [0xDB, l3, l2, l1, l0, rest @ ..] => {
            (usize::try_from(u32::from_be_bytes([*l3, *l2, *l1, *l0])).ok()?, rest)
        }
        _ => return None,
    };
    let (text, rest) = rest.split_at_checked(length)?;
    Some((str::from_utf8(text).ok()?, rest))
}
