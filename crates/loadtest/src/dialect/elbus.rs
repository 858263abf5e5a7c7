//! The dialect of this project, of elbus and of BUS/RT. Frames are encoded where they are sent (`outgoing.rs`) and
//! decoded here by `elbus-protocol`; its documentation has the bytes.

use super::Wire;
use crate::connection::Stream;
use crate::failure::{Context, Failure};
use elbus_protocol::handshake::{GREETING, encode_name};
use elbus_protocol::{Decoder, Event, EventHeader, Masks, NOP, OpBody, OpFrame, QoS, result_from_byte};

/// See the module.
pub(crate) struct Elbus;

impl Wire for Elbus {
    const PING: &'static [u8] = &NOP;

    fn login(stream: &Stream, name: &str) -> Result<(), Failure> {
        let field = encode_name(name).ok_or_else(|| Failure::new("the name is too long"))?;
        let greeting = stream.read_exact::<3>().context(|| "greeting")?;
        if greeting != GREETING {
            return Err(Failure::new(format!("greeting {greeting:02x?} is not that of protocol version 1")));
        }
        stream.write_all(&[&GREETING, &*field].concat()).context(|| "login")?;
        for step in ["version", "name"] {
            let [result] = stream.read_exact::<1>().context(|| format!("answer to the {step}"))?;
            result_from_byte(result).context(|| format!("the broker refused the {step}"))?;
        }
        Ok(())
    }

    fn subscribe(masks: &str) -> Vec<u8> {
        let mut frame = Vec::with_capacity(masks.len() + 16);
        let body = OpBody::Subscribe(Masks::new(masks));
        OpFrame { id: 1, qos: QoS::Processed, body }.encode(&mut frame, u32::MAX);
        frame
    }

    #[inline]
    fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<Event<'a>>, Failure> {
        let decoder = Decoder::<EventHeader>::new(u32::MAX);
        match decoder.next_frame(rest).context(|| "received")? {
            Some((header, body)) => Event::parse(header, body).context(|| "received").map(Some),
            None => Ok(None),
        }
    }
}
