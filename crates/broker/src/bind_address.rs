//! Text to UNIX path or TCP address.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use thiserror::Error;

/// Where a listener binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindAddress {
    /// A UNIX socket.
    Unix(PathBuf),
    /// `host:port`; port 0 takes a free one.
    Tcp(String),
}

/// Text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BindAddressError {
    /// FIFO inputs of the reference servers are not offered.
    #[error("fifo inputs are not supported: {0}")]
    Fifo(String),
    /// Neither a path nor `host:port`.
    #[error("{0:?} is neither a socket path (absolute, or ending in .sock, .socket or .ipc) nor host:port")]
    Neither(String),
}

impl BindAddress {
    /// True if the system is to choose the port.
    pub(crate) fn takes_any_port(&self) -> bool {
        matches!(self, Self::Tcp(host_port) if host_port.rsplit_once(':').is_some_and(|(_, port)| port.parse() == Ok(0_u16)))
    }
}

impl FromStr for BindAddress {
    type Err = BindAddressError;

    /// Reads `unix:PATH`, `tcp://HOST:PORT`, or what the reference servers take: a path that starts with `/` or
    /// ends in `.sock`, `.socket` or `.ipc`, else `HOST:PORT`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("fifo:") {
            return Err(BindAddressError::Fifo(text.to_owned()));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            let valid = !path.is_empty() && !path.contains('\0');
            return if valid {
                Ok(Self::Unix(path.into()))
            } else {
                Err(BindAddressError::Neither(text.to_owned()))
            };
        }
        let is_path =
            text.starts_with('/') || [".sock", ".socket", ".ipc"].iter().any(|ending| text.ends_with(ending));
        if is_path && !text.contains('\0') {
            return Ok(Self::Unix(text.into()));
        }
        let host_port = text.strip_prefix("tcp://").unwrap_or(text);
        match host_port.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(host_port.to_owned()))
            }
            _ => Err(BindAddressError::Neither(text.to_owned())),
        }
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_apart() {
        for (text, expected) in [
            ("/run/bus", Some(BindAddress::Unix("/run/bus".into()))),
            ("bus.sock", Some(BindAddress::Unix("bus.sock".into()))),
            ("x.ipc", Some(BindAddress::Unix("x.ipc".into()))),
            ("unix:rel/bus", Some(BindAddress::Unix("rel/bus".into()))),
            ("unix:///run/bus", Some(BindAddress::Unix("/run/bus".into()))),
            ("127.0.0.1:7777", Some(BindAddress::Tcp("127.0.0.1:7777".into()))),
            ("tcp://[::1]:0", Some(BindAddress::Tcp("[::1]:0".into()))),
            ("localhost:1", Some(BindAddress::Tcp("localhost:1".into()))),
            ("fifo:/x", None),
            ("unix:", None),
            ("nonsense", None),
            (":80", None),
            ("host:port", None),
            ("host:70000", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<BindAddress>().ok(), expected, "{text}");
        }
    }
}
