//! Dialling a broker and logging in. What runs from then on is in `io_tasks.rs`.

use crate::address::Address;
use crate::socket::{ReadHalf, WriteHalf};
use crate::{Client, ClientError, Options, SocketLink, io_tasks, socket, unix};
use elbus_protocol::client_name::{self, NameError, SECONDARY_MARK};
use elbus_protocol::handshake::{GREETING, encode_name, take_greeting};
use elbus_protocol::{ErrorCode, result_from_byte};
use elbus_rpc::{Endpoint, Link};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Numbers tried for the name of a secondary before the broker's "taken" is given to the caller.
const SECONDARY_TRIES: u32 = 16;

/// Connects to a broker and logs in.
///
/// `address` is a UNIX socket (`unix:/path`, `/path`, or anything that ends in `.sock`, `.socket` or `.ipc`) or
/// TCP (`tcp://host:port`, `host:port`, `[::1]:port`). Needs a tokio runtime with I/O and time; two tasks on it
/// serve the connection until it ends.
///
/// # Errors
/// As [`ClientError`]; the whole of it takes [`Options::timeout`] at the most.
///
/// # Cancel safety
/// Dropping it abandons the attempt and frees the name.
pub async fn connect(address: &str, options: Options) -> Result<Client, ClientError> {
    connect_shared(address, options, Arc::new(AtomicU32::new(0))).await
}

/// Opens a further connection of a client, `<primary>%%<number>`, to the same broker with the same options.
///
/// It is a client of its own, with its own queues and subscriptions; the broker ends it with its primary.
///
/// # Errors
/// As [`connect`].
pub async fn secondary(client: &Client) -> Result<Client, ClientError> {
    let link = client.link();
    let primary = client_name::primary_part(link.name());
    let mut tries = SECONDARY_TRIES;
    loop {
        let number = link.next_secondary.fetch_add(1, Relaxed);
        let mut options = link.options.clone();
        options.name = format!("{primary}{SECONDARY_MARK}{number}");
        match connect_shared(&link.address, options, Arc::clone(&link.next_secondary)).await {
            // Any connection may have taken the name of a secondary; the next number does as well.
            Err(ClientError::Refused { code: ErrorCode::Busy, .. }) if tries > 1 => {
                tries = tries.saturating_sub(1);
            }
            result => return result,
        }
    }
}

async fn connect_shared(
    address: &str,
    options: Options,
    next_secondary: Arc<AtomicU32>,
) -> Result<Client, ClientError> {
    let parsed = Address::parse(address)?;
    let name = name_field(&options.name)?;
    let limit = options.timeout;
    let login = dial(&parsed, address, &name, &options.name);
    let (read, write) = timeout(limit, login).await.map_err(|_| ClientError::Timeout(limit))??;
    let frame_limit = options.frame_limit(matches!(parsed, Address::Tcp(_)));
    let write = Arc::new(write);
    let endpoint_options = options.endpoint.clone();
    let link = SocketLink::new(options, address.to_owned(), next_secondary, frame_limit, Arc::clone(&write));
    let link = Arc::new(link);
    let endpoint = Endpoint::new(Arc::clone(&link), endpoint_options);
    io_tasks::spawn(&link, &endpoint, read, write, frame_limit);
    Ok(endpoint)
}

/// The name as it goes over the wire. A NUL would cut it for receivers, so it is not left to the broker, of
/// which the reference ones accept it.
fn name_field(name: &str) -> Result<Vec<u8>, ClientError> {
    if name.contains('\0') {
        return Err(NameError::Control.into());
    }
    encode_name(name).ok_or_else(|| NameError::TooLong(name.len()).into())
}

async fn dial(
    address: &Address,
    text: &str,
    field: &[u8],
    name: &str,
) -> Result<(ReadHalf, WriteHalf), ClientError> {
    let failed = |source| ClientError::Connect { address: text.to_owned(), source };
    match address {
        Address::Tcp(host) => {
            let mut stream = TcpStream::connect(host.as_str()).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            login(&mut stream, field, name).await?;
            Ok(socket::split_tcp(stream))
        }
        Address::Unix(path) => {
            let mut stream = unix::connect(path).await.map_err(failed)?;
            login(&mut stream, field, name).await?;
            Ok(socket::split_unix(stream))
        }
    }
}

/// Steps 1 to 5 of the connection start; reads not one byte more.
async fn login(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    field: &[u8],
    name: &str,
) -> Result<(), ClientError> {
    // All of it at once, without waiting for the answer to each step: in a flood of connections the broker drops those
    // first that are slow to say who they are.
    stream.write_all(&[&GREETING[..], field].concat()).await.map_err(broken)?;
    let mut greeting = GREETING;
    stream.read_exact(&mut greeting).await.map_err(broken)?;
    if let Some(Err(error)) = take_greeting(&mut greeting.as_slice()) {
        return Err(error.into());
    }
    for _ in ["greeting", "name"] {
        let answer = stream.read_u8().await.map_err(broken)?;
        result_from_byte(answer).map_err(|code| ClientError::Refused { name: name.to_owned(), code })?;
    }
    Ok(())
}

/// A broker that does not want this client ends the connection, which shows as any of these.
fn broken(error: io::Error) -> ClientError {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => ClientError::Eof,
        _ => ClientError::Io(error),
    }
}
