//! The methods of `.broker`: `test`, `info`, `stats`, `client.list`, `benchmark.test`. Where an answer is at hand the
//! thread that brings the call answers it (`local_client.rs`).

use crate::broker::{Inner, info, stats};
use crate::system::thread_time;
use bytes::Bytes;
use elbus_protocol::RpcCode;
use elbus_routing::ClientInfo;
use elbus_rpc::{Handlers, Request, RpcError};
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Longest `filter` of `client.list`, in bytes.
const FILTER_BYTES: usize = 256;
/// Most memory a compiled filter may take, in bytes: what `\w{3}` needs with all features of the library.
const FILTER_COMPILED_BYTES: usize = 160 << 10;
/// Processor time one filter may take over all names, looked at between them. The engine is linear in names and filter,
/// but a filter within the bounds above can cost ten milliseconds for one long name, and ten seconds for a thousand.
const FILTER_TIME: Duration = Duration::from_millis(5);
/// Deepest nesting of params that is read. The reader recurses, and its own bound of 1,024 is more than the
/// stack of a worker holds in a build that is not optimised.
const PARAMS_DEPTH: usize = 16;

/// Answer of `test`: `{ok: true}`.
const TEST: &[u8] = b"\x81\xA2ok\xC3";

/// The default methods of the broker's own client.
///
/// Custom handlers may answer their own methods and pass the others on to this: in [`Handlers::call`], and in
/// [`Handlers::ready_answer`] if they are to be as quick as by themselves.
#[derive(Clone)]
pub struct CoreRpc {
    broker: Weak<Inner>,
    /// Answer of `info`.
    info: Result<Bytes, RpcCode>,
}

#[derive(Serialize)]
struct Info<'a> {
    author: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
struct Stats {
    uptime: u64,
    r_frames: u64,
    r_bytes: u64,
    w_frames: u64,
    w_bytes: u64,
}

#[derive(Serialize)]
struct ClientList {
    clients: Vec<Client>,
}

#[derive(Serialize)]
struct Client {
    name: String,
    kind: &'static str,
    source: Option<String>,
    port: Option<String>,
    r_frames: u64,
    r_bytes: u64,
    w_frames: u64,
    w_bytes: u64,
    queue: usize,
    instances: usize,
}

#[derive(Deserialize)]
struct ClientListParams {
    filter: Option<String>,
}

impl From<ClientInfo> for Client {
    fn from(info: ClientInfo) -> Self {
        Self {
            name: info.name,
            kind: info.kind.as_str(),
            source: info.source,
            port: info.port,
            r_frames: info.received.frames,
            r_bytes: info.received.bytes,
            w_frames: info.sent.frames,
            w_bytes: info.sent.bytes,
            queue: info.queue,
            instances: info.instances,
        }
    }
}

impl CoreRpc {
    pub(crate) fn new(broker: &Arc<Inner>) -> Self {
        let info = info();
        let info = encode(&Info { author: info.author, version: info.version });
        Self { broker: Arc::downgrade(broker), info: info.map_err(|error| error.code) }
    }
}

impl Handlers for CoreRpc {
    async fn call(&self, request: Request) -> Result<Bytes, RpcError> {
        let broker = self.broker.upgrade().ok_or(RpcCode::INTERNAL)?;
        match request.method() {
            "stats" => {
                no_params(request.params())?;
                let stats = stats(&broker);
                encode(&Stats {
                    uptime: stats.uptime.as_secs(),
                    r_frames: stats.totals.received.frames,
                    r_bytes: stats.totals.received.bytes,
                    w_frames: stats.totals.sent.frames,
                    w_bytes: stats.totals.sent.bytes,
                })
            }
            "client.list" => client_list(&broker, &request),
            "benchmark.test" => Ok(request.params_bytes()),
            method => match self.ready_answer(method, request.params()) {
                Some(answer) => Ok(Bytes::copy_from_slice(answer?)),
                None => Err(RpcCode::METHOD_NOT_FOUND.into()),
            },
        }
    }

    fn ready_answer<'a>(&'a self, method: &str, params: &'a [u8]) -> Option<Result<&'a [u8], RpcCode>> {
        match method {
            "test" => Some(no_params(params).map(|()| TEST)),
            "info" => Some(no_params(params).and(self.info.as_deref().map_err(|code| *code))),
            "benchmark.test" => Some(Ok(params)),
            // They look at every client.
            "stats" | "client.list" => None,
            _ => Some(Err(RpcCode::METHOD_NOT_FOUND)),
        }
    }
}

const fn no_params(params: &[u8]) -> Result<(), RpcCode> {
    if params.is_empty() { Ok(()) } else { Err(RpcCode::INVALID_PARAMS) }
}

/// Clients the caller may know of: those it may send messages to, by primary name.
fn client_list(broker: &Inner, request: &Request) -> Result<Bytes, RpcError> {
    let filter = parse_filter(request.params())?;
    // One that has left meanwhile has no rights to be asked, and whoever has its name now did not call.
    let caller = broker.router.client(request.sender()).ok_or(RpcCode::INTERNAL)?;
    let rights = caller.rights().clone();
    // Processor time: a busy machine is not the filter's fault.
    let start = thread_time();
    let late = Cell::new(false);
    let clients = broker.router.client_list(|name| {
        if late.get() || rights.as_ref().is_some_and(|rights| !rights.may_message(name)) {
            return false;
        }
        let Some(filter) = &filter else { return true };
        let matches = filter.is_match(name);
        late.set(thread_time().saturating_sub(start) > FILTER_TIME);
        matches
    });
    if late.get() {
        let text = format!("the filter takes more than {} ms", FILTER_TIME.as_millis());
        return Err(RpcError::with_data(RpcCode::PARSE, text));
    }
    encode(&ClientList { clients: clients.into_iter().map(Client::from).collect() })
}

fn parse_filter(params: &[u8]) -> Result<Option<Regex>, RpcError> {
    let refused = |text: String| RpcError::with_data(RpcCode::PARSE, text);
    if params.is_empty() {
        return Ok(None);
    }
    let mut rest = params;
    let mut reader = rmp_serde::Deserializer::new(&mut rest);
    reader.set_max_depth(PARAMS_DEPTH);
    let params = ClientListParams::deserialize(&mut reader).map_err(|error| refused(error.to_string()))?;
    if !rest.is_empty() {
        return Err(refused(format!("{} bytes behind the params", rest.len())));
    }
    let Some(filter) = params.filter else { return Ok(None) };
    if filter.len() > FILTER_BYTES {
        return Err(refused(format!("filter has {} bytes, the limit is {FILTER_BYTES}", filter.len())));
    }
    let filter = RegexBuilder::new(&filter).size_limit(FILTER_COMPILED_BYTES).build();
    filter.map(Some).map_err(|error| refused(error.to_string()))
}

fn encode(value: &impl Serialize) -> Result<Bytes, RpcError> {
    rmp_serde::to_vec_named(value).map(Bytes::from).map_err(|_| RpcCode::INTERNAL.into())
}
