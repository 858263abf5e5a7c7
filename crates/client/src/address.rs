//! Text to the address of a broker. Dialling it is in `connect.rs`.

use crate::ClientError;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(String),
}

/// Endings that make a path of a text without a leading slash, as the reference programs have it.
const PATH_ENDINGS: [&str; 3] = [".sock", ".socket", ".ipc"];

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, ClientError> {
        let invalid = || ClientError::Address(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(invalid()) } else { Ok(Self::Unix(path.into())) };
        }
        if let Some(host) = text.strip_prefix("tcp://") {
            return Self::tcp(host).ok_or_else(invalid);
        }
        if text.starts_with('/') || PATH_ENDINGS.iter().any(|ending| text.ends_with(ending)) {
            return Ok(Self::Unix(text.into()));
        }
        Self::tcp(text).ok_or_else(invalid)
    }

    fn tcp(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| Self::Tcp(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_one_by_one() {
        let unix = |path: &str| Some(Address::Unix(path.into()));
        let tcp = |host: &str| Some(Address::Tcp(host.into()));
        for (text, expected) in [
            ("unix:/run/bus.sock", unix("/run/bus.sock")),
            ("unix:bus", unix("bus")),
            ("/run/bus", unix("/run/bus")),
            ("bus.sock", unix("bus.sock")),
            ("x/bus.socket", unix("x/bus.socket")),
            ("bus.ipc", unix("bus.ipc")),
            ("tcp://localhost:7777", tcp("localhost:7777")),
            ("127.0.0.1:7777", tcp("127.0.0.1:7777")),
            ("[::1]:7777", tcp("[::1]:7777")),
            ("", None),
            ("unix:", None),
            ("tcp://", None),
            ("tcp://localhost", None),
            ("localhost", None),
            (":7777", None),
            ("localhost:70000", None),
            ("localhost:", None),
        ] {
            assert_eq!(Address::parse(text).ok(), expected, "{text}");
        }
    }
}
