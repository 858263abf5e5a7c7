//! What a session needs of a stream: readiness and non-blocking reads and writes through a shared reference,
//! so that whoever routes a frame can also write it.

use socket2::SockRef;
use std::io::{self, IoSlice, Read};
use std::net::Shutdown;
use std::task::{Context, Poll};
use tokio::net::TcpStream;

/// A connected stream. Implemented for tokio's UNIX and TCP streams; anything else that can do this can be
/// handed to [`crate::Broker::attach`].
pub trait Socket: Send + Sync + 'static {
    /// Ready when a read may make progress. One task at a time waits for it.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ready when a write may make progress. One task at a time waits for it.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Reads what is there into `buffer`; 0 is the end of the stream, `WouldBlock` means nothing is there.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Appends at most `most` bytes to `buffer`, within its capacity. As [`Socket::try_read`].
    fn try_read_into(&self, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize>;
    /// As [`Socket::try_read`], without asking a runtime first: it may not have been told yet of bytes that are there, on a
    /// stream that was just accepted, or where somebody looks more often than it does.
    fn try_read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_read(buffer)
    }
    /// Writes some of `pieces`; `WouldBlock` means the peer takes nothing now.
    fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Says that nothing more will be written.
    fn shutdown_write(&self) -> io::Result<()>;
    /// True if closing with unread input would throw away output the peer has not taken (TCP).
    fn lingers(&self) -> bool;
}

macro_rules! socket {
    ($stream:ty, lingers: $lingers:literal) => {
        impl Socket for $stream {
            fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                <$stream>::poll_read_ready(self, cx)
            }

            fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                <$stream>::poll_write_ready(self, cx)
            }

            fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
                <$stream>::try_read(self, buffer)
            }

            fn try_read_into(&self, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
                use bytes::BufMut;
                self.try_read_buf(&mut buffer.limit(most))
            }

            fn try_read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
                (&*SockRef::from(self)).read(buffer)
            }

            fn try_write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
                match pieces {
                    [piece] => <$stream>::try_write(self, piece),
                    pieces => self.try_write_vectored(pieces),
                }
            }

            fn shutdown_write(&self) -> io::Result<()> {
                SockRef::from(self).shutdown(Shutdown::Write)
            }

            fn lingers(&self) -> bool {
                $lingers
            }
        }
    };
}

#[cfg(unix)]
socket!(tokio::net::UnixStream, lingers: false);
socket!(TcpStream, lingers: true);
