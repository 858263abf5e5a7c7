//! The list of what waits for JavaScript (`inbox.rs` of the addon) between threads that push and the one that collects.

use crate::inbox::{Bell as Rings, Inbox, LinkDrain, Note};
use crate::outbox::Bell;
use crate::{Dose, Seen, explore};
use elbus_routing::{Budget, Outbox, Push, QueueLimits};
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use std::collections::VecDeque;
use std::sync::Arc;

struct WakesJavaScript(Arc<Bell>);

impl Rings for WakesJavaScript {
    fn ring(&self) {
        self.0.ring();
    }
}

/// One link, as JavaScript's thread has it.
struct Link {
    inbox: Arc<Inbox>,
    bell: Arc<Bell>,
    outbox: Arc<Outbox>,
    queued: Arc<AtomicBool>,
    ready: VecDeque<u16>,
    notes: VecDeque<Note>,
    frames: usize,
    closed: usize,
}

impl Link {
    fn new(budget: &Arc<Budget>) -> Self {
        let (inbox, bell, queued) = (Arc::<Inbox>::default(), Arc::<Bell>::default(), Arc::default());
        inbox.hang(Box::new(WakesJavaScript(Arc::clone(&bell))));
        let drain = LinkDrain { inbox: Arc::clone(&inbox), link: 7, serial: 1, queued: Arc::clone(&queued) };
        let outbox = Outbox::new(QueueLimits::default(), Arc::clone(budget), &[], Box::new(drain));
        let (ready, notes) = Default::default();
        Self { inbox, bell, outbox: Arc::new(outbox), queued, ready, notes, frames: 0, closed: 0 }
    }

    /// As `boundary.rs` and `link.rs` do it, until there is nothing more; then JavaScript has to be woken.
    fn collect(&mut self) {
        while self.inbox.take(&mut self.ready, &mut self.notes) {
            while let Some(note) = self.notes.pop_front() {
                assert!(matches!(note, Note::Closed { link: 7, serial: 1, .. }));
                self.closed += 1;
            }
            while let Some(link) = self.ready.pop_front() {
                assert_eq!(link, 7);
                self.queued.store(false, Ordering::Release);
                let mut next = self.outbox.take();
                while let Some(batch) = next {
                    self.frames += batch.frames;
                    let (frames, length) = (batch.frames, batch.length);
                    next = self.outbox.complete(batch.into_buffer(), frames, length);
                }
            }
        }
    }

    fn wait(&mut self, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            self.bell.wait();
            self.collect();
        }
    }
}

fn pushes(outbox: &Arc<Outbox>) -> thread::JoinHandle<Push> {
    let outbox = Arc::clone(outbox);
    thread::spawn(move || {
        let pushed = outbox.push(b"x", None, 1);
        outbox.notify();
        pushed
    })
}

#[test]
fn c44_javascript_is_woken_for_the_last_frame() {
    let dose = Dose { interruptions: (3, 5), schedules: (500, 5_000) };
    explore("C44: addon, two threads push, JavaScript sleeps in between", &dose, || {
        let budget = Arc::new(Budget::new(1 << 30));
        let mut link = Link::new(&budget);
        let pushing = [pushes(&link.outbox), pushes(&link.outbox)];
        // It hands something in itself at first and looks afterwards, so nobody need wake it for that.
        link.inbox.promise();
        link.collect();
        link.wait(|link| link.frames == 2);
        assert_eq!(pushing.map(|pushing| pushing.join().unwrap()), [Push::Queued; 2]);
        assert_eq!((link.outbox.frames(), link.outbox.bytes(), budget.used()), (0, 0, 0));
    });
}

#[test]
fn c44_javascript_is_told_once_that_its_client_was_closed() {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (2, 3), schedules: (500, 20_000) };
    explore("C44: addon, a thread pushes, two close, JavaScript collects", &dose, move || {
        let budget = Arc::new(Budget::new(1 << 30));
        let mut link = Link::new(&budget);
        let pushing = pushes(&link.outbox);
        let closing = [(); 2].map(|()| {
            let outbox = Arc::clone(&link.outbox);
            thread::spawn(move || outbox.close())
        });
        link.wait(|link| link.closed > 0);
        let pushed = pushing.join().unwrap();
        for closing in closing {
            closing.join().unwrap();
        }
        link.collect();
        assert_eq!((link.closed, budget.used()), (1, 0));
        assert!(link.frames == 0 || pushed == Push::Queued);
        seen.note(format!("{pushed:?}, {} collected", link.frames));
    });
    all.must_be(&["Closed, 0 collected", "Queued, 0 collected", "Queued, 1 collected"]);
}
