//! One type for both kinds of stream, cut into a half that reads and one that writes. Nothing here waits but
//! for readiness.

use crate::unix;
use bytes::BufMut;
use std::io::{self, IoSlice};
use tokio::net::{TcpStream, tcp};

#[derive(Debug)]
pub(crate) enum ReadHalf {
    Unix(unix::OwnedReadHalf),
    Tcp(tcp::OwnedReadHalf),
}

/// Dropping it shuts down the sending side, which tells the broker that this client leaves.
#[derive(Debug)]
pub(crate) enum WriteHalf {
    Unix(unix::OwnedWriteHalf),
    Tcp(tcp::OwnedWriteHalf),
}

pub(crate) fn split_tcp(stream: TcpStream) -> (ReadHalf, WriteHalf) {
    let (read, write) = stream.into_split();
    (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
}

pub(crate) fn split_unix(stream: unix::UnixStream) -> (ReadHalf, WriteHalf) {
    let (read, write) = stream.into_split();
    (ReadHalf::Unix(read), WriteHalf::Unix(write))
}

impl ReadHalf {
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Unix(half) => half.readable().await,
            Self::Tcp(half) => half.readable().await,
        }
    }

    pub(crate) fn try_read_buf(&self, buffer: &mut impl BufMut) -> io::Result<usize> {
        match self {
            Self::Unix(half) => half.try_read_buf(buffer),
            Self::Tcp(half) => half.try_read_buf(buffer),
        }
    }
}

impl WriteHalf {
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Unix(half) => half.writable().await,
            Self::Tcp(half) => half.writable().await,
        }
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(half) => half.try_write(bytes),
            Self::Tcp(half) => half.try_write(bytes),
        }
    }

    pub(crate) fn try_write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Unix(half) => half.try_write_vectored(parts),
            Self::Tcp(half) => half.try_write_vectored(parts),
        }
    }
}
