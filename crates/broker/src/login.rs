//! From an accepted socket to a registered client: greet, read the name, check rights, register.
//!
//! The bytes are those of the protocol's section on connection start; the session begins in `session.rs`.

use crate::Socket;
use crate::broker::Inner;
use crate::connection::{Connection, ConnectionDrain, EndReason};
use crate::listener::Entrance;
use elbus_protocol::client_name::{self, NameError};
use elbus_protocol::limits::NAME_BYTES;
use elbus_protocol::{DecodeError, ErrorCode, RESULT_OK, handshake};
use elbus_routing::{ClientEntry, Origin, Outbox};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// Read at most this much before the login is complete, in bytes: greeting, name, and frames sent along.
const LOGIN_BYTES: usize = 1_024;

/// Logs a client in. Returns it with the bytes it sent behind its name.
pub(crate) async fn login(
    broker: &Arc<Inner>,
    entrance: &Entrance,
    connection: &Arc<Connection>,
    socket: &dyn Socket,
    origin: &Origin,
) -> Result<(Arc<ClientEntry>, Vec<u8>), EndReason> {
    write_all(socket, &handshake::GREETING).await?;
    // What has come is read before anything is waited for: in a flood of connections that is the difference between
    // one that has sent something and one that has not.
    let mut bytes = read_new(socket);
    if !bytes.is_empty() {
        connection.heard(broker.clock.now_ms());
    }
    let greeted = read_until(broker, connection, socket, &mut bytes, handshake::take_greeting).await?;
    if let Err(error) = greeted {
        write_all(socket, &[ErrorCode::NotSupported.byte()]).await?;
        return Err(EndReason::Malformed(error));
    }
    write_all(socket, &[RESULT_OK]).await?;
    let name = read_until(broker, connection, socket, &mut bytes, |bytes| {
        if handshake::name_length(bytes).is_some_and(|length| length > NAME_BYTES) {
            let length = handshake::name_length(bytes).unwrap_or_default();
            return Some((Err(NameError::TooLong(length)), String::new()));
        }
        handshake::take_name(bytes)
            .map(|name| (client_name::check(name).map(drop), String::from_utf8_lossy(name).into_owned()))
    })
    .await?;
    let (code, reason) = match name {
        (Ok(()), name) => match register(broker, entrance, connection, &name, origin) {
            Ok(client) => return Ok((client, bytes)),
            Err(code) => {
                tell_refusal(broker, entrance, origin, &name);
                (code, EndReason::Refused(code))
            }
        },
        (Err(NameError::NotUtf8), _) => {
            return Err(EndReason::Malformed(DecodeError::Name(NameError::NotUtf8)));
        }
        (Err(NameError::Reserved), name) if client_name::check_local(&name).is_ok() => {
            tell_refusal(broker, entrance, origin, &name);
            (ErrorCode::Data, EndReason::ReservedName)
        }
        (Err(error), _) => (ErrorCode::Data, EndReason::Malformed(DecodeError::Name(error))),
    };
    write_all(socket, &[code.byte()]).await?;
    Err(reason)
}

fn tell_refusal(broker: &Inner, entrance: &Entrance, origin: &Origin, name: &str) {
    // Whoever is too late for a broker that closes was denied nothing.
    if !broker.events.are_wanted() || broker.is_closing() {
        return;
    }
    let address = origin.address.map(|address| address.to_string());
    let from = address.as_deref().unwrap_or(&entrance.port);
    broker.events.login_refused(name, from, broker.clock.now_ms());
}

/// Checks the entrance's access map and enters the name. The final `01` of the login is the first byte of the
/// client's queue, so nothing can overtake it.
fn register(
    broker: &Arc<Inner>,
    entrance: &Entrance,
    connection: &Arc<Connection>,
    name: &str,
    origin: &Origin,
) -> Result<Arc<ClientEntry>, ErrorCode> {
    let drain = Box::new(ConnectionDrain(Arc::clone(connection)));
    let outbox = Outbox::new(broker.options.queue, Arc::clone(&broker.budget), &[RESULT_OK], drain);
    let new = |rights| ClientEntry::new(name, origin.clone(), rights, outbox);
    let force = broker.options.force_register;
    let Some(map) = &entrance.aaa else {
        let client = Arc::new(new(None));
        broker.register(&client, force)?;
        return Ok(client);
    };
    // The map is locked until the name is entered: whoever edits it finds the client connected, or its login still
    // to come. An edit between the copy and the entry would be seen by neither.
    let entries = map.lock();
    let rights = entries.get(client_name::primary_part(name)).ok_or(ErrorCode::Access)?;
    if !rights.may_connect(origin) {
        return Err(ErrorCode::Access);
    }
    let client = Arc::new(new(Some(rights.clone())).under(map.clone()));
    let replaced = broker.enter(&client, force)?;
    drop(entries);
    broker.welcome(&client, replaced);
    Ok(client)
}

/// What a stream holds that was just accepted. An end or an error is met again by the next read.
fn read_new(socket: &dyn Socket) -> Vec<u8> {
    let mut buffer = [0; LOGIN_BYTES];
    let count = socket.try_read_now(&mut buffer).unwrap_or_default();
    buffer.get(..count).unwrap_or_default().to_vec()
}

/// Reads until `take` finds what it wants at the front of `bytes`, and cuts that off.
async fn read_until<T>(
    broker: &Inner,
    connection: &Connection,
    socket: &dyn Socket,
    bytes: &mut Vec<u8>,
    mut take: impl FnMut(&mut &[u8]) -> Option<T>,
) -> Result<T, EndReason> {
    loop {
        let mut rest = bytes.as_slice();
        if let Some(taken) = take(&mut rest) {
            let used = bytes.len() - rest.len();
            bytes.drain(..used);
            return Ok(taken);
        }
        bytes.reserve(64);
        let most = (bytes.capacity() - bytes.len()).min(LOGIN_BYTES.saturating_sub(bytes.len()));
        match socket.try_read_into(bytes, most) {
            Ok(0) => return Err(EndReason::Left),
            Ok(_) => connection.heard(broker.clock.now_ms()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|cx| socket.poll_read_ready(cx))
                    .await
                    .map_err(|error| EndReason::Io(error.kind()))?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(EndReason::Io(error.kind())),
        }
    }
}

async fn write_all(socket: &dyn Socket, mut bytes: &[u8]) -> Result<(), EndReason> {
    while !bytes.is_empty() {
        match socket.try_write(&[IoSlice::new(bytes)]) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|cx| socket.poll_write_ready(cx))
                    .await
                    .map_err(|error| EndReason::Io(error.kind()))?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(EndReason::Io(error.kind())),
        }
    }
    Ok(())
}
