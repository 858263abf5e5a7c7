//! A bound address: accept, admit, hand over to a session.

use crate::broker::Inner;
use crate::unix_listener::{SocketFile, UnixListener};
use crate::{BindAddress, BrokerError, Listener, Socket, session, system};
use elbus_routing::{AaaMap, ClientKind, Origin, PeerIdentity};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

/// How long accepting rests after a failure, such as having no descriptor left: short enough that a login is
/// possible within a second of one being free, long enough to cost nothing.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// Sockets accepted before their sessions get a turn: fewer than may be logging in at once, so that what a peer
/// has sent is read before it can be dropped as one that has sent nothing.
const ACCEPTED_PER_TURN: u32 = 16;

/// What holds for clients that come through one listener.
pub(crate) struct Entrance {
    pub(crate) port: Arc<str>,
    pub(crate) aaa: Option<AaaMap>,
    pub(crate) timeout: Duration,
    pub(crate) frame_bytes: u32,
}

impl Entrance {
    pub(crate) fn new(listener: &Listener) -> Self {
        Self {
            port: listener.address.to_string().into(),
            aaa: listener.aaa.clone(),
            timeout: listener.timeout,
            frame_bytes: listener.frame_bytes,
        }
    }
}

/// A listener at work. Dropping it stops accepting and removes the socket file.
pub(crate) struct ActiveListener {
    task: JoinHandle<()>,
    pub(crate) timeout: Duration,
    _file: Option<SocketFile>,
}

impl Drop for ActiveListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

enum Bound {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Bound {
    async fn accept(&self) -> io::Result<(Arc<dyn Socket>, Origin)> {
        match self {
            Self::Unix(listener) => listener.accept().await,
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                system::prepare_tcp(&stream)?;
                Ok((Arc::new(stream), tcp_origin(address)))
            }
        }
    }
}

fn tcp_origin(address: SocketAddr) -> Origin {
    let identity = PeerIdentity::Remote(address.ip().to_canonical());
    Origin { kind: ClientKind::Tcp, identity, address: Some(address), port: None }
}

/// Binds and starts accepting. Returns the address as bound, with the port that was free.
pub(crate) async fn listen(
    broker: &Arc<Inner>,
    listener: Listener,
) -> Result<(ActiveListener, String), BrokerError> {
    let failed = |source: io::Error| BrokerError::Bind { address: listener.address.to_string(), source };
    let (bound, file, address) = match &listener.address {
        BindAddress::Unix(path) => {
            let (unix, file) = UnixListener::bind(path, listener.mode).await?;
            (Bound::Unix(unix), Some(file), format!("unix:{}", path.display()))
        }
        BindAddress::Tcp(host_port) => {
            let tcp = TcpListener::bind(host_port).await.map_err(failed)?;
            let address = tcp.local_addr().map_err(failed)?;
            (Bound::Tcp(tcp), None, format!("tcp://{address}"))
        }
    };
    let mut entrance = Entrance::new(&listener);
    if listener.address.takes_any_port() {
        // As configured says nothing here.
        entrance.port = address.trim_start_matches("tcp://").into();
    }
    let entrance = Arc::new(entrance);
    let task = tokio::spawn(accept(Arc::downgrade(broker), bound, entrance));
    Ok((ActiveListener { task, timeout: listener.timeout, _file: file }, address))
}

async fn accept(broker: Weak<Inner>, bound: Bound, entrance: Arc<Entrance>) {
    let mut failing = false;
    let mut in_turn = 0;
    loop {
        let accepted = bound.accept().await;
        let Some(broker) = broker.upgrade() else { return };
        match accepted {
            Ok((socket, origin)) => {
                failing = false;
                admit(&broker, &entrance, socket, origin);
                in_turn += 1;
                if in_turn == ACCEPTED_PER_TURN {
                    in_turn = 0;
                    drop(broker);
                    yield_now().await;
                }
            }
            // A peer that is gone already is nobody's failure.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::NotConnected) => {
            }
            Err(error) => {
                if !failing {
                    tell_accept_failure(&broker, &entrance, &error);
                }
                failing = true;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn tell_accept_failure(broker: &Inner, entrance: &Entrance, error: &io::Error) {
    let now_ms = broker.clock.now_ms();
    let told = broker.events.fault(&entrance.port, None, &format_args!("cannot accept: {error}"), now_ms);
    if let Some(omitted) = told {
        tracing::error!(omitted, "{}: cannot accept: {error}", entrance.port);
    }
}

/// Starts a session on a socket, or closes it if a bound is reached.
pub(crate) fn admit(
    broker: &Arc<Inner>,
    entrance: &Arc<Entrance>,
    socket: Arc<dyn Socket>,
    mut origin: Origin,
) {
    origin.port = Some(Arc::clone(&entrance.port));
    let now_ms = broker.clock.now_ms();
    match broker.connections.admit(socket, origin.identity, entrance.timeout, now_ms) {
        Ok(connection) => {
            tokio::spawn(session::run(Arc::clone(broker), Arc::clone(entrance), connection, origin));
        }
        Err(_) if broker.is_closing() => {}
        Err(bound) => {
            let source = session::source_text(&origin);
            let told =
                broker.events.fault(&source, None, &format_args!("connection refused: {bound}"), now_ms);
            if let Some(omitted) = told {
                tracing::warn!(source, omitted, "{}: connection refused: {bound}", entrance.port);
            }
        }
    }
}
