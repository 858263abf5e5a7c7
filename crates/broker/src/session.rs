//! Life of one connection: login, reading and writing side by side, and the end.

use crate::Socket;
use crate::broker::Inner;
use crate::connection::{Connection, EndReason};
use crate::frame_reader::FrameReader;
use crate::listener::Entrance;
use crate::login::login;
use elbus_routing::{ClientEntry, Origin};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long a closing TCP connection waits for the peer to have taken everything.
const LINGER: Duration = Duration::from_secs(1);

/// Where a peer is, as logs and events name it.
pub(crate) fn source_text(origin: &Origin) -> String {
    origin.address.map_or_else(|| "local".to_owned(), |address| address.to_string())
}

/// What has to be undone when a session ends, however it ends: a panic of its task included.
struct Ending {
    broker: Arc<Inner>,
    connection: Arc<Connection>,
    client: Option<Arc<ClientEntry>>,
    origin: Origin,
    reason: EndReason,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let lost = self.client.as_ref().map_or(0, |client| client.outbox().frames());
        let name = self.client.as_ref().map(|client| client.name());
        let (source, reason) = (source_text(&self.origin), &self.reason);
        let (events, now_ms) = (&self.broker.events, self.broker.clock.now_ms());
        let noteworthy = match reason {
            EndReason::Left | EndReason::Io(_) | EndReason::Disconnected | EndReason::Shutdown => None,
            // Told as a denial.
            EndReason::Refused(_) | EndReason::ReservedName => events.log_refused_login(now_ms),
            _ => events.fault(&source, name, reason, now_ms),
        };
        // The name last: it is the longest, and lines may be cut.
        let name = name.unwrap_or_default();
        if let Some(omitted) = noteworthy {
            tracing::warn!(source, lost, omitted, client = name, "session ended: {reason}");
        } else {
            tracing::debug!(source, lost, client = name, "session ended: {reason}");
        }
        if let Some(client) = &self.client {
            self.broker.leave(client);
        }
        self.connection.drop_socket();
        self.broker.connections.remove(self.connection.id);
    }
}

/// Runs one accepted socket until it ends.
pub(crate) async fn run(
    broker: Arc<Inner>,
    entrance: Arc<Entrance>,
    connection: Arc<Connection>,
    origin: Origin,
) {
    let Some(socket) = connection.socket() else { return };
    let reason = EndReason::Panicked;
    let mut ending = Ending { broker: Arc::clone(&broker), connection, client: None, origin, reason };
    let connection = Arc::clone(&ending.connection);
    let logged_in = tokio::select! {
        biased;
        reason = connection.ended() => Err(reason),
        result = login(&broker, &entrance, &connection, socket.as_ref(), &ending.origin) => result,
    };
    let (client, first) = match logged_in {
        Ok(logged_in) => logged_in,
        Err(reason) => {
            ending.reason = reason;
            return;
        }
    };
    ending.client = Some(Arc::clone(&client));
    connection.set_client(&client);
    broker.connections.logged_in(connection.id);
    client.outbox().notify();
    ending.reason = serve(&broker, &entrance, &connection, socket.as_ref(), &client, &first).await;
    drop(first);
    match ending.reason {
        EndReason::Shutdown => drain(&broker, &connection, socket.as_ref(), &client).await,
        // What a leaving client still has queued gets one chance.
        EndReason::Left => client.outbox().notify(),
        _ => {}
    }
}

async fn serve(
    broker: &Inner,
    entrance: &Entrance,
    connection: &Connection,
    socket: &dyn Socket,
    client: &Arc<ClientEntry>,
    first: &[u8],
) -> EndReason {
    let mut reader =
        match FrameReader::new(broker, connection, socket, Arc::clone(client), entrance.frame_bytes, first) {
            Ok(reader) => reader,
            Err(reason) => return reason,
        };
    tokio::select! {
        biased;
        reason = connection.ended() => reason,
        reason = connection.write_blocked(client.outbox()) => reason,
        reason = reader.run() => reason,
    }
}

/// Shutdown: reads no more, writes what was acknowledged, and waits until the peer has it.
async fn drain(broker: &Inner, connection: &Connection, socket: &dyn Socket, client: &Arc<ClientEntry>) {
    let outbox = client.outbox();
    outbox.notify();
    // Others may still be routing what came before they were told: closing at once what looks drained would lose it.
    while !outbox.close_if_drained() {
        tokio::select! {
            biased;
            () = poll_fn(|cx| outbox.poll_drained(cx)) => {}
            _ = connection.write_blocked(outbox) => break,
            () = sleep(broker.drain_left()) => break,
        }
    }
    if !socket.lingers() || socket.shutdown_write().is_err() {
        return;
    }
    // Closing with unread input would reset the connection and take the peer's unread output with it.
    let mut discarded = Vec::with_capacity(4096);
    let until_end = async {
        while poll_fn(|cx| socket.poll_read_ready(cx)).await.is_ok() {
            discarded.clear();
            match socket.try_read_into(&mut discarded, 4096) {
                Ok(0) => break,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => break,
                _ => tokio::task::consume_budget().await,
            }
        }
    };
    let _ = timeout(LINGER.min(broker.drain_left()), until_end).await;
}
