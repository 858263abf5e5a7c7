//! What other threads hand to JavaScript's: which clients have something to take, and short notes.
//!
//! The gate is the only thing shared. JavaScript is woken through one thread-safe function, and only if nobody has
//! promised to come: the flag `awake` says that JavaScript will look here before it waits.

use elbus_routing::sync::atomic::{AtomicBool, Ordering};
use elbus_routing::sync::{Arc, Mutex, MutexGuard, PoisonError};
use elbus_routing::{Drain, Outbox};
use std::cell::RefCell;
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

/// What the thread that JavaScript runs on makes ready itself, while it wakes the receivers of a batch: it looks at it
/// next, so it needs no lock and no bell.
struct Here {
    /// The address of its inbox; 0 for none.
    inbox: usize,
    ready: Vec<u16>,
}

thread_local! {
    static HERE: RefCell<Here> = const { RefCell::new(Here { inbox: 0, ready: Vec::new() }) };
}

/// Ends [`Inbox::here`], even by a panic: what was made ready by then is not lost.
struct HereEnds<'a>(&'a Inbox);

impl Drop for HereEnds<'_> {
    fn drop(&mut self) {
        let left = HERE.try_with(|here| {
            let mut here = here.borrow_mut();
            here.inbox = 0;
            std::mem::take(&mut here.ready)
        });
        left.into_iter().flatten().for_each(|link| self.0.ready(link));
    }
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

    /// Runs `wake` on JavaScript's thread: clients of this environment that it makes ready are added to `ready`.
    pub(crate) fn here(&self, ready: &mut VecDeque<u16>, wake: impl FnOnce()) {
        let ends = HereEnds(self);
        let _ = HERE.try_with(|here| here.borrow_mut().inbox = std::ptr::from_ref(self).addr());
        wake();
        let _ = HERE.try_with(|here| ready.extend(here.borrow_mut().ready.drain(..)));
        drop(ends);
    }

    /// Notes that a link is ready if this thread is just waking its receivers; false if it is not.
    fn is_here(&self, link: u16) -> bool {
        let noted = HERE.try_with(|here| {
            let mut here = here.borrow_mut();
            let is_ours = here.inbox == std::ptr::from_ref(self).addr();
            if is_ours {
                here.ready.push(link);
            }
            is_ours
        });
        noted.unwrap_or(false)
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

impl LinkDrain {
    /// Its queue has something: puts it on the list if it is not there.
    fn note(&self) {
        if !self.queued.swap(true, Ordering::AcqRel) && !self.inbox.is_here(self.link) {
            self.inbox.ready(self.link);
        }
    }
}

impl Drain for LinkDrain {
    fn ready(&self, _: &Outbox) {
        self.note();
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

#[cfg(all(test, not(elbus_loom)))]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn drain(inbox: &Arc<Inbox>, link: u16) -> LinkDrain {
        LinkDrain { inbox: Arc::clone(inbox), link, serial: 0, queued: Arc::default() }
    }

    fn taken(inbox: &Inbox) -> Vec<u16> {
        let mut ready = VecDeque::new();
        inbox.take(&mut ready, &mut VecDeque::new());
        ready.into()
    }

    #[test]
    fn what_a_thread_makes_ready_itself_is_its_own_and_the_rest_is_noted() {
        let (own, other): (Arc<Inbox>, Arc<Inbox>) = Default::default();
        let mut ready = VecDeque::new();
        own.here(&mut ready, || {
            drain(&own, 1).note();
            drain(&other, 2).note();
            std::thread::scope(|scope| scope.spawn(|| drain(&own, 3).note()).join()).unwrap();
        });
        drain(&own, 4).note();
        assert_eq!(Vec::from(ready), [1]);
        assert_eq!((taken(&own), taken(&other)), (vec![3, 4], vec![2]));
    }

    #[test]
    fn a_panic_loses_no_link() {
        let inbox: Arc<Inbox> = Arc::default();
        let mut ready = VecDeque::new();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            inbox.here(&mut ready, || {
                drain(&inbox, 1).note();
                panic!("on purpose");
            });
        }));
        assert!(panicked.is_err() && ready.is_empty());
        drain(&inbox, 2).note();
        assert_eq!(taken(&inbox), [1, 2]);
    }
}
