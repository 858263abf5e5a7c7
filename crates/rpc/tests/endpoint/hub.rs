//! A broker in a mutex: routes messages by name, sends publications to everybody, remembers all it was given.
//! Delivery happens on the sender's stack.

use bytes::Bytes;
use elbus_protocol::{
    ErrorCode, Event, EventHeader, EventKind, Header, OpBody, QoS, RpcFrame, encode_event_head,
};
use elbus_rpc::{Ack, Endpoint, EndpointOptions, Link, SubmitError, WeakEndpoint};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Weak};

pub(crate) struct Hub {
    state: Mutex<State>,
    me: Weak<Hub>,
}

#[derive(Default)]
struct State {
    endpoints: HashMap<String, WeakEndpoint<HubLink>>,
    /// Names that are registered but only collect what they get: peers of another make.
    raw: HashMap<String, Vec<Bytes>>,
    /// Every operation but publications: sender, operation with its field, grade.
    ops: Vec<(String, String, QoS)>,
    /// What the next submit of anybody ends with.
    fail_next: Option<SubmitError>,
    /// Acknowledgements are never given.
    silent: bool,
    unanswered: Vec<tokio::sync::oneshot::Sender<Result<(), ErrorCode>>>,
}

pub(crate) struct HubLink {
    name: String,
    hub: Arc<Hub>,
    open: AtomicBool,
    pub(crate) delivered: AtomicUsize,
    pub(crate) delivered_bytes: AtomicUsize,
    pub(crate) released: AtomicUsize,
    pub(crate) released_bytes: AtomicUsize,
}

impl Hub {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new_cyclic(|me| Self { state: Mutex::default(), me: Weak::clone(me) })
    }

    pub(crate) fn client(&self, name: &str) -> Endpoint<HubLink> {
        self.client_with(name, EndpointOptions::default())
    }

    pub(crate) fn client_with(&self, name: &str, options: EndpointOptions) -> Endpoint<HubLink> {
        let link = Arc::new(HubLink {
            name: name.to_owned(),
            hub: self.me.upgrade().unwrap(),
            open: AtomicBool::new(true),
            delivered: AtomicUsize::new(0),
            delivered_bytes: AtomicUsize::new(0),
            released: AtomicUsize::new(0),
            released_bytes: AtomicUsize::new(0),
        });
        let endpoint = Endpoint::new(link, options);
        self.state.lock().unwrap().endpoints.insert(name.to_owned(), endpoint.downgrade());
        endpoint
    }

    /// Registers a name that only collects.
    pub(crate) fn raw(&self, name: &str) {
        self.state.lock().unwrap().raw.insert(name.to_owned(), Vec::new());
    }

    /// What a collecting name got since the last look.
    pub(crate) fn taken(&self, name: &str) -> Vec<Bytes> {
        std::mem::take(self.state.lock().unwrap().raw.get_mut(name).unwrap())
    }

    pub(crate) fn ops(&self) -> Vec<(String, String, QoS)> {
        std::mem::take(&mut self.state.lock().unwrap().ops)
    }

    pub(crate) fn fail_next(&self, error: SubmitError) {
        self.state.lock().unwrap().fail_next = Some(error);
    }

    pub(crate) fn never_acknowledge(&self) {
        self.state.lock().unwrap().silent = true;
    }

    /// Delivers a message as the broker would, from a name that need not exist.
    pub(crate) fn inject(&self, sender: &str, target: &str, payload: &[u8]) {
        self.event(EventKind::Message, sender, target, None, payload, false);
    }

    pub(crate) fn inject_rpc(&self, sender: &str, target: &str, frame: RpcFrame<'_>) {
        self.inject(sender, target, &frame.encode());
    }

    pub(crate) fn event(
        &self,
        kind: EventKind,
        sender: &str,
        target: &str,
        topic: Option<&str>,
        payload: &[u8],
        realtime: bool,
    ) -> bool {
        let endpoint = {
            let mut state = self.state.lock().unwrap();
            if let Some(inbox) = state.raw.get_mut(target) {
                inbox.push(Bytes::copy_from_slice(payload));
                return true;
            }
            state.endpoints.get(target).and_then(WeakEndpoint::upgrade)
        };
        let Some(endpoint) = endpoint.filter(Endpoint::is_open) else { return false };
        let mut bytes = Vec::new();
        assert!(encode_event_head(&mut bytes, kind, realtime, sender, topic, payload.len()));
        bytes.extend_from_slice(payload);
        let header = EventHeader::read(&bytes).unwrap();
        let link = endpoint.link();
        link.delivered.fetch_add(1, SeqCst);
        link.delivered_bytes.fetch_add(bytes.len(), SeqCst);
        let body = Bytes::from(bytes).slice(6..);
        assert!(matches!(Event::parse(header, &body), Ok(Event::Frame(_))));
        endpoint.deliver(header, body).unwrap();
        true
    }

    fn route(&self, sender: &str, op: &OpBody<'_>, qos: QoS) -> Result<(), ErrorCode> {
        match *op {
            OpBody::Message { target, payload } => {
                let found = self.event(EventKind::Message, sender, target, None, payload, qos.realtime());
                found.then_some(()).ok_or(ErrorCode::NotRegistered)
            }
            OpBody::Publish { topic, payload } => {
                let names = self.state.lock().unwrap().endpoints.keys().cloned().collect::<Vec<_>>();
                for name in names {
                    self.event(EventKind::Publish, sender, &name, Some(topic), payload, qos.realtime());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Link for HubLink {
    fn name(&self) -> &str {
        &self.name
    }

    fn submit(&self, op: &OpBody<'_>, qos: QoS, payload: &Bytes) -> Result<Ack, SubmitError> {
        assert_eq!(op.payload(), payload);
        if !self.is_open() {
            return Err(SubmitError::Closed);
        }
        let silent = {
            let mut state = self.hub.state.lock().unwrap();
            if let Some(error) = state.fail_next.take() {
                return Err(error);
            }
            let field = match *op {
                OpBody::Message { target, .. } => format!("message {target}"),
                OpBody::Subscribe(masks) => format!("subscribe {}", masks.as_str()),
                OpBody::Unsubscribe(masks) => format!("unsubscribe {}", masks.as_str()),
                OpBody::Exclude(masks) => format!("exclude {}", masks.as_str()),
                OpBody::PublishFor { topic, receiver, .. } => format!("publish {topic} for {receiver}"),
                _ => String::new(),
            };
            state.ops.push((self.name.clone(), field, qos));
            state.silent
        };
        let result = self.hub.route(&self.name, op, qos);
        if silent {
            let (answer, receiver) = tokio::sync::oneshot::channel();
            self.hub.state.lock().unwrap().unanswered.push(answer);
            let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
            return Ok(Ack::waiting(receiver, deadline));
        }
        Ok(Ack::done(if qos.acknowledged() { result } else { Ok(()) }))
    }

    fn release(&self, frames: usize, bytes: usize) {
        self.released.fetch_add(frames, SeqCst);
        self.released_bytes.fetch_add(bytes, SeqCst);
    }

    fn is_open(&self) -> bool {
        self.open.load(SeqCst)
    }

    fn close(&self) {
        self.open.store(false, SeqCst);
    }
}

impl HubLink {
    /// Frames and bytes delivered and not given back.
    pub(crate) fn held(&self) -> (usize, usize) {
        let held = |all: &AtomicUsize, back: &AtomicUsize| {
            all.load(SeqCst).checked_sub(back.load(SeqCst)).expect("released more than was delivered")
        };
        (held(&self.delivered, &self.released), held(&self.delivered_bytes, &self.released_bytes))
    }
}
