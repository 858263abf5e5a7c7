//! The boundary as JavaScript holds it: opening links, closing them, keeping the process alive.

use crate::boundary::Boundary;
use crate::hot::{Crossing, Holder};
use crate::inbox::{Inbox, LinkDrain};
use crate::link::{End, LocalEnd};
use crate::outcome::{self, code, throw};
use crate::registry;
use crate::socket_codec::SocketCodec;
use elbus_broker::Broker;
use elbus_protocol::mask::Syntax;
use napi::bindgen_prelude::{Object, Unknown};
use napi::{Env, JsValue, Result};
use napi_derive::napi;
use std::cell::RefMut;
use std::rc::Rc;
use std::sync::Arc;

/// This environment's side of the boundary. One for each environment.
#[napi]
pub struct NativeBoundary {
    pub(crate) crossing: Rc<Crossing>,
    holder: Holder,
}

#[napi]
impl NativeBoundary {
    /// Pins the batch and the state array, and puts the raw functions `submit`, `collect`, `receive` and `take` on
    /// `target`. `wake` is called when there is something to collect that no call of `submit` has told.
    #[napi(constructor)]
    pub fn new(
        env: Env,
        batch: Unknown<'_>,
        state: Unknown<'_>,
        wake: Unknown<'_>,
        target: Object<'_>,
    ) -> Result<Self> {
        let arguments = [batch.raw(), state.raw(), wake.raw(), target.raw()];
        let (crossing, holder) = Crossing::open(env.raw(), arguments)
            .ok_or_else(|| throw(code::ARGUMENT, "expected Uint8Array, Uint32Array, function, object"))?;
        Ok(Self { crossing, holder })
    }

    /// Keeps the process alive, or no longer.
    #[napi]
    pub fn hold(&self, hold: bool) {
        self.holder.hold(hold);
    }

    /// A link over a socket that JavaScript owns; it logs in as `name`. `limit` bounds a frame's body, in bytes.
    #[napi]
    pub fn socket(&self, name: String, limit: u32, rpc: bool) -> Result<u16> {
        let codec = SocketCodec::new(&name, limit)
            .ok_or_else(|| throw(code::NAME, "client name is longer than 65535 bytes"))?;
        let mut boundary = self.boundary()?;
        let (link, serial) = reserve(&mut boundary)?;
        boundary.open(link, serial, rpc, End::Socket(codec));
        Ok(link)
    }

    /// A link to a broker of this process, in whatever thread it was started.
    #[napi]
    pub fn attach(&self, broker: u32, name: String, rpc: bool) -> Result<u16> {
        let broker = registry::find(broker)
            .ok_or_else(|| throw(code::ADDRESS, format!("there is no broker {broker} in this process")))?;
        self.join(&broker, &name, rpc)
    }

    /// True if a link has received something that is not collected yet.
    #[napi]
    pub fn is_ready(&self, link: u16) -> Result<bool> {
        Ok(self.boundary()?.is_ready(link))
    }

    /// How long a link may wait for its receivers, in milliseconds.
    #[napi]
    pub fn pause(&self, link: u16) -> Result<f64> {
        Ok(self.boundary()?.link(link).map_or(0.0, |link| link.pause()))
    }

    /// A link has waited for so long. True if it is to wait again.
    #[napi]
    pub fn spend_pause(&self, link: u16) -> Result<bool> {
        Ok(self.boundary()?.spend_pause(link))
    }

    /// Ends a link.
    #[napi]
    pub fn close(&self, link: u16) -> Result<()> {
        self.boundary()?.close(link);
        Ok(())
    }
}

impl NativeBoundary {
    pub(crate) fn inbox(&self) -> Result<Arc<Inbox>> {
        Ok(Arc::clone(&self.boundary()?.inbox))
    }

    /// The broker of this number ends with this environment.
    pub(crate) fn own(&self, broker: u32) -> Result<()> {
        self.boundary()?.own(broker);
        Ok(())
    }

    fn boundary(&self) -> Result<RefMut<'_, Boundary>> {
        self.crossing
            .boundary
            .try_borrow_mut()
            .map_err(|_| throw(code::INTERNAL, "called from within itself"))
    }

    fn join(&self, broker: &Broker, name: &str, rpc: bool) -> Result<u16> {
        let mut boundary = self.boundary()?;
        let (link, serial) = reserve(&mut boundary)?;
        let queued = Arc::default();
        let inbox = Arc::clone(&boundary.inbox);
        let drain = LinkDrain { inbox, link, serial, queued: Arc::clone(&queued) };
        match broker.session(name, Box::new(drain)) {
            Ok(session) => {
                boundary.open(link, serial, rpc, End::Local(Box::new(LocalEnd::new(session, queued))));
                Ok(link)
            }
            Err(error) => {
                boundary.give_back(link);
                Err(outcome::thrown(&error))
            }
        }
    }
}

fn reserve(boundary: &mut Boundary) -> Result<(u16, u32)> {
    boundary.reserve().ok_or_else(|| throw(code::ARGUMENT, "this environment has 65,535 clients already"))
}

/// True if a topic matches a topic mask.
#[napi]
pub fn topic_matches(mask: String, topic: String) -> bool {
    Syntax::Topic.matches(&mask, &topic)
}

/// The version this addon was built as: the one of the package it belongs to.
#[napi]
pub fn addon_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
