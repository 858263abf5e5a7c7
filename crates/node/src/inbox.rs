//! What other threads hand to JavaScript's: which clients have something to take, and short notes.
//!
//! The gate is the only thing shared. JavaScript is woken through one thread-safe function, and only if nobody has
//! promised to come: the flag `awake` says that JavaScript will look here before it waits.

use elbus_routing::sync::atomic::{AtomicBool, Ordering};
use elbus_routing::sync::{Arc, Mutex, MutexGuard, PoisonError};
use elbus_routing::{Drain, Outbox};
use std::collections::VecDeque;
use std::task::Wake;

/// Something to tell JavaScript that is no frame.
#[derive(Debug)]
pub(crate) enum Note {
    /// The broker's answer to an operation of a link.
    Ack { link: u16, op: u32, code: u8 },
    /// A message nobody asked an acknowledgement for was refused.
    Refused { link: u16, code: u8 },
    /// A receiver that was nearly full is low again, or a link may be told so.
    Relief { link: u16, serial: u32 },
    /// The link has ended.
    Closed { link: u16, serial: u32, reason: String },
    /// The answer to a ticket: a code of `outcome.rs`, and a text.
    Done { ticket: u32, code: i32, text: String },
    /// An event of a broker, as JSON.
    Event { broker: u32, json: String },
}

/// Wakes JavaScript from any thread. Implemented over a thread-safe function in `hot.rs`.
pub(crate) trait Bell: Send {
    fn ring(&self);
}

#[derive(Default)]
struct Gate {
    bell: Option<Box<dyn Bell>>,
    ready: Vec<u16>,
    notes: Vec<Note>,
}

/// The list of what waits for JavaScript. The lock is held for a push or an exchange, and while the bell rings.
#[derive(Default)]
pub(crate) struct Inbox {
    gate: Mutex<Gate>,
    /// JavaScript has promised to collect, or was woken to. It is read and taken back under the lock. A promise is made
    /// without it: whoever misses it rings once too often.
    awake: AtomicBool,
}

impl Inbox {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hang(&self, bell: Box<dyn Bell>) {
        self.gate().bell = Some(bell);
    }

    /// The environment ends: nobody may ring any more. Called under no other lock.
    pub(crate) fn take_bell(&self) {
        let bell = self.gate().bell.take();
        drop(bell);
    }

    pub(crate) fn note(&self, note: Note) {
        let mut gate = self.gate();
        gate.notes.push(note);
        self.wake(&gate);
    }

    fn ready(&self, link: u16) {
        let mut gate = self.gate();
        gate.ready.push(link);
        self.wake(&gate);
    }

    fn wake(&self, gate: &Gate) {
        if !self.awake.swap(true, Ordering::Relaxed)
            && let Some(bell) = &gate.bell
        {
            bell.ring();
        }
    }

    /// JavaScript is about to hand something in and will look here afterwards: nobody need wake it.
    pub(crate) fn promise(&self) {
        self.awake.store(true, Ordering::Relaxed);
    }

    /// Moves what there is to the given lists. False if there was nothing: then JavaScript has to be woken for more.
    pub(crate) fn take(&self, ready: &mut VecDeque<u16>, notes: &mut VecDeque<Note>) -> bool {
        let mut gate = self.gate();
        ready.extend(gate.ready.drain(..));
        notes.extend(gate.notes.drain(..));
        let any = !ready.is_empty() || !notes.is_empty();
        self.awake.store(any, Ordering::Relaxed);
        any
    }
}

/// The [`Drain`] of a client whose queue JavaScript empties.
pub(crate) struct LinkDrain {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) link: u16,
    pub(crate) serial: u32,
    /// It is on the list, or is just being emptied.
    pub(crate) queued: Arc<AtomicBool>,
}

impl Drain for LinkDrain {
    fn ready(&self, _: &Outbox) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.inbox.ready(self.link);
        }
    }

    fn closed(&self) {
        let reason = "disconnected by the broker".to_owned();
        self.inbox.note(Note::Closed { link: self.link, serial: self.serial, reason });
    }
}

/// Tells JavaScript that a receiver its client waits for may be low.
pub(crate) struct ReliefWaker {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) link: u16,
    pub(crate) serial: u32,
}

impl Wake for ReliefWaker {
    fn wake(self: Arc<Self>) {
        self.inbox.note(Note::Relief { link: self.link, serial: self.serial });
    }
}
