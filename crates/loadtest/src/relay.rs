//! `relay`: the floor under every broker. It takes connections in pairs, reads from the first and writes the same
//! bytes to the second, 64 KiB at a time, and knows nothing of frames. What is sent through it is the flood of
//! `flood.rs` in raw mode.

use crate::connection::Address;
use crate::failure::{Context, Failure};
use crate::report::say;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;

/// Bytes of one read, and of the write that follows.
const PIECE_BYTES: usize = 64 << 10;
/// What it says once it listens.
pub(crate) const LISTENING: &str = "listening";

/// Serves pairs of connections, one pair after the other, until it is killed.
pub(crate) fn run(listen: &Address) -> Result<(), Failure> {
    match listen {
        Address::Unix(path) => {
            // A file left by an earlier process would be in the way; if it cannot go, binding says why.
            let _ = fs::remove_file(path);
            let listener = UnixListener::bind(path).context(|| listen)?;
            serve(|| Ok(listener.accept()?.0))
        }
        Address::Tcp(address) => {
            let listener = TcpListener::bind(address).context(|| listen)?;
            serve(|| accept_tcp(&listener))
        }
    }
}

fn accept_tcp(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn serve<S: Read + Write>(accept: impl Fn() -> io::Result<S>) -> Result<(), Failure> {
    say(LISTENING)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let mut from = accept().context(|| "accept")?;
        let mut to = accept().context(|| "accept")?;
        // The end of either connection ends the pair and nothing else.
        let _ = copy(&mut from, &mut to, &mut piece);
    }
}

/// Copies until the end of `from`.
fn copy(from: &mut impl Read, to: &mut impl Write, piece: &mut [u8]) -> io::Result<()> {
    loop {
        let read = from.read(piece)?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(piece.get(..read).unwrap_or_default())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_as_they_were() {
        let bytes = (0..=u8::MAX).cycle().take(200_001).collect::<Vec<_>>();
        let mut copied = Vec::new();
        copy(&mut bytes.as_slice(), &mut copied, &mut [0; 4096]).unwrap();
        assert_eq!(copied, bytes);
    }
}
