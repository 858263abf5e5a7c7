//! The queue of one client: those who push, whoever takes, and who closes it; and the budget all queues share.

use crate::{Dose, Seen, explore};
use bytes::Bytes;
use elbus_routing::{Budget, Drain, Outbox, Push, QueueLimits};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Sleeps until it is told. A wake-up that gets lost is a deadlock to loom.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    pub(crate) fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = false;
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

/// Sleeps until `poll` is ready.
pub(crate) fn block_on(mut poll: impl FnMut(&Context<'_>) -> Poll<()>) {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    while poll(&Context::from_waker(&waker)).is_pending() {
        bell.wait();
    }
}

/// As a connection does it: the thread that pushes writes, and goes on with what came meanwhile.
#[derive(Default)]
struct Writer {
    /// What two threads that write at once would wait for.
    wire: Mutex<Vec<u8>>,
    closed: AtomicUsize,
}

impl Writer {
    fn written(&self) -> Vec<u8> {
        self.wire.lock().unwrap().clone()
    }
}

struct WritesAtOnce(Arc<Writer>);

impl Drain for WritesAtOnce {
    fn ready(&self, outbox: &Outbox) {
        let mut next = outbox.take();
        while let Some(batch) = next {
            self.0.wire.lock().unwrap().extend(batch.pieces().flatten());
            let (frames, length) = (batch.frames, batch.length);
            next = outbox.complete(batch.into_buffer(), frames, length);
        }
    }

    fn closed(&self) {
        self.0.closed.fetch_add(1, Ordering::Relaxed);
    }
}

/// As a client in the process does it: told, and taken elsewhere.
struct Rings(Arc<Bell>);

impl Drain for Rings {
    fn ready(&self, _: &Outbox) {
        self.0.ring();
    }

    fn closed(&self) {
        self.0.ring();
    }
}

fn spawn<T: 'static>(
    outbox: &Arc<Outbox>,
    run: impl FnOnce(&Outbox) -> T + 'static,
) -> thread::JoinHandle<T> {
    let outbox = Arc::clone(outbox);
    thread::spawn(move || run(&outbox))
}

fn budget() -> Arc<Budget> {
    Arc::new(Budget::new(1 << 30))
}

fn nothing_is_held(outbox: &Outbox, budget: &Budget) {
    assert_eq!((outbox.frames(), outbox.bytes(), budget.used()), (0, 0, 0));
}

#[test]
fn what_is_pushed_is_written_whoever_writes() {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (3, 4), schedules: (200, 1_000) };
    explore("outbox: three push, each writes what it finds", &dose, move || {
        let (writer, budget) = (Arc::new(Writer::default()), budget());
        let drain = Box::new(WritesAtOnce(Arc::clone(&writer)));
        let outbox = Arc::new(Outbox::new(QueueLimits::default(), Arc::clone(&budget), b"!", drain));
        let push = |frames: [&'static [u8]; 2]| {
            move |outbox: &Outbox| {
                for frame in frames {
                    assert_eq!(outbox.push(frame, None, 1), Push::Queued);
                    outbox.notify();
                }
            }
        };
        let one = spawn(&outbox, push([b"a", b"b"]));
        let two = spawn(&outbox, |outbox| {
            assert_eq!(outbox.push_ack(b"x"), Push::Queued);
            outbox.notify();
        });
        push([b"1", b"2"])(&outbox);
        one.join().unwrap();
        two.join().unwrap();
        // Nobody looks again: what is not written by now never is.
        let written = writer.written();
        for order in [&b"ab"[..], b"12", b"x"] {
            let of_one: Vec<u8> = written.iter().copied().filter(|byte| order.contains(byte)).collect();
            assert_eq!(of_one, order, "in order, once");
        }
        assert_eq!((written.len(), written[0]), (6, b'!'), "the greeting first");
        nothing_is_held(&outbox, &budget);
        assert_eq!(outbox.sent().frames, 5);
        seen.note(if written.ends_with(b"x") { "last" } else { "between" });
    });
    all.must_be(&["between", "last"]);
}

#[test]
fn an_owner_that_sleeps_is_woken_for_the_last_frame() {
    let dose = Dose { interruptions: (4, 5), schedules: (200, 1_000) };
    explore("outbox: two push, the owner sleeps in between", &dose, || {
        let (bell, budget) = (Arc::new(Bell::default()), budget());
        let drain = Box::new(Rings(Arc::clone(&bell)));
        let outbox = Arc::new(Outbox::new(QueueLimits::default(), Arc::clone(&budget), b"", drain));
        let push = |outbox: &Outbox| {
            assert_eq!(outbox.push(b"x", None, 1), Push::Queued);
            outbox.notify();
        };
        let pushing = [spawn(&outbox, push), spawn(&outbox, push)];
        let mut got = 0;
        while got < 2 {
            bell.wait();
            let mut next = outbox.take();
            while let Some(batch) = next {
                got += batch.frames;
                // Released one by one, behind the batch, as whoever takes frames in the process does.
                let frames = batch.frames;
                next = outbox.complete(Vec::new(), 0, 0);
                (0..frames).for_each(|_| outbox.release(1, 1));
            }
        }
        for pushing in pushing {
            pushing.join().unwrap();
        }
        assert!(outbox.is_idle());
        nothing_is_held(&outbox, &budget);
    });
}

#[test]
fn c44_closing_between_push_and_take_refunds_all_and_tells_once() {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (4, 6), schedules: (500, 3_000) };
    explore("C44: outbox, push × take × close × close", &dose, move || {
        let (writer, budget) = (Arc::new(Writer::default()), budget());
        let drain = Box::new(WritesAtOnce(Arc::clone(&writer)));
        let outbox = Arc::new(Outbox::new(QueueLimits::default(), Arc::clone(&budget), b"", drain));
        let payload = Bytes::from(vec![b'p'; 2 * Budget::STEP]);
        let pushing = {
            let payload = payload.clone();
            spawn(&outbox, move |outbox| {
                [(); 2].map(|()| {
                    let pushed = outbox.push(b"h", Some(&payload), 1);
                    outbox.notify();
                    pushed
                })
            })
        };
        let closing = spawn(&outbox, Outbox::close);
        outbox.close();
        closing.join().unwrap();
        assert_eq!(outbox.push(b"late", None, 1), Push::Closed);
        let pushed = pushing.join().unwrap();
        assert!(matches!(pushed, [Push::Queued, Push::Queued | Push::Closed] | [Push::Closed, Push::Closed]));
        let queued = pushed.iter().filter(|pushed| **pushed == Push::Queued).count();
        let frame = 1 + payload.len();
        let written = writer.written().len();
        assert!(written % frame == 0 && written / frame <= queued, "whole frames, of those that were queued");
        assert_eq!(writer.closed.load(Ordering::Relaxed), 1, "told once");
        assert_eq!(budget.used(), 0, "refunded once");
        assert!(outbox.take().is_none() && payload.is_unique(), "nothing is kept");
        seen.note(format!("{queued} queued, {} written", written / frame));
    });
    all.must_be(&[
        "0 queued, 0 written",
        "1 queued, 0 written",
        "1 queued, 1 written",
        "2 queued, 1 written",
        "2 queued, 2 written",
    ]);
}

#[test]
fn c34_a_waiting_sender_is_woken_although_another_gave_up() {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (2, 4), schedules: (500, 5_000) };
    explore("C34: outbox, two senders wait, one is dropped, the queue drains or closes", &dose, move || {
        let (bell, budget) = (Arc::new(Bell::default()), budget());
        let limits = QueueLimits { frames: 16, bytes: 1 << 20 };
        let outbox = Arc::new(Outbox::new(limits, Arc::clone(&budget), b"", Box::new(Rings(bell))));
        let pushed = [(); 3].map(|()| outbox.push(b"x", None, 1));
        assert_eq!(pushed, [Push::Queued, Push::Queued, Push::QueuedPause]);
        let gives_up = spawn(&outbox, |outbox| {
            let bell = Arc::new(Bell::default());
            let waker = Waker::from(Arc::clone(&bell));
            let polled = outbox.poll_relief(&Context::from_waker(&waker));
            outbox.spend_pause();
            polled.is_pending()
        });
        let waits = spawn(&outbox, |outbox| {
            block_on(|cx| outbox.poll_relief(cx));
            assert!(outbox.is_low());
        });
        let drained = spawn(&outbox, |outbox| block_on(|cx| outbox.poll_drained(cx)));
        let batch = outbox.take().unwrap();
        outbox.release(2, 2);
        outbox.complete(batch.into_buffer(), 1, 1);
        let gave_up = gives_up.join().unwrap();
        waits.join().unwrap();
        drained.join().unwrap();
        nothing_is_held(&outbox, &budget);
        seen.note(if gave_up { "gave up" } else { "need not wait" });
    });
    all.must_be(&["gave up", "need not wait"]);
}

#[test]
fn c34_who_waits_for_a_receiver_that_is_closed_goes_on() {
    let dose = Dose { interruptions: (4, 6), schedules: (50, 100) };
    explore("C34: outbox, senders wait for a queue that is closed", &dose, || {
        let (bell, budget) = (Arc::new(Bell::default()), budget());
        let limits = QueueLimits { frames: 16, bytes: 1 << 20 };
        let outbox =
            Arc::new(Outbox::new(limits, Arc::clone(&budget), b"", Box::new(Rings(Arc::clone(&bell)))));
        assert!([(); 3].map(|()| outbox.push(b"x", None, 1)).contains(&Push::QueuedPause));
        let relieved = spawn(&outbox, |outbox| block_on(|cx| outbox.poll_relief(cx)));
        let drained = spawn(&outbox, |outbox| block_on(|cx| outbox.poll_drained(cx)));
        outbox.close();
        relieved.join().unwrap();
        drained.join().unwrap();
        bell.wait();
        assert_eq!(budget.used(), 0);
    });
}

#[test]
fn the_budget_is_never_exceeded_and_ends_at_zero() {
    let seen = Seen::default();
    let all = seen.clone();
    let dose = Dose { interruptions: (4, 6), schedules: (200, 1_000) };
    explore("budget: three queues, room for two", &dose, move || {
        let budget = Arc::new(Budget::new(4 * Budget::STEP));
        let queues = [(); 3].map(|()| {
            let drain = Box::new(WritesAtOnce(Arc::default()));
            Arc::new(Outbox::new(QueueLimits::default(), Arc::clone(&budget), b"", drain))
        });
        let limited = Arc::clone(&budget);
        // More than the first step, which is everybody's.
        let push = move |outbox: &Outbox| {
            let pushed = outbox.push(&[0; Budget::STEP + 1], None, 1);
            assert!(limited.used() <= 4 * Budget::STEP, "never exceeded");
            pushed
        };
        let one = spawn(&queues[0], push.clone());
        let pushes = push.clone();
        let two = spawn(&queues[1], move |outbox| {
            let pushed = pushes(outbox);
            outbox.close();
            pushed
        });
        let three = push(&queues[2]);
        let pushed = [one.join().unwrap(), two.join().unwrap(), three];
        let charged = queues.iter().filter(|queue| queue.bytes() > 0 && !queue.is_closed()).count();
        assert_eq!(budget.used(), charged * 2 * Budget::STEP);
        let full = pushed.iter().filter(|pushed| **pushed == Push::Full).count();
        assert!(full <= 1, "two of them always fit: {pushed:?}");
        seen.note(format!("{full} refused"));
        queues[0].notify();
        queues[2].close();
        assert_eq!(budget.used(), 0);
    });
    all.must_be(&["0 refused", "1 refused"]);
}

/// A frame that is too large for the budget is refused to its sender alone.
#[test]
fn what_is_refused_takes_no_room_from_others() {
    let dose = Dose { interruptions: (4, 8), schedules: (3, 3) };
    explore("budget: one too large, one that fits", &dose, || {
        let budget = Arc::new(Budget::new(2 * Budget::STEP));
        let large = {
            let budget = Arc::clone(&budget);
            thread::spawn(move || budget.try_charge(3 * Budget::STEP))
        };
        let fits = budget.try_charge(Budget::STEP);
        assert_eq!((large.join().unwrap(), fits), (false, true));
        assert_eq!(budget.used(), Budget::STEP);
    });
}
