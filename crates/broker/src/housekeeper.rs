//! Everything that is due by time, for all connections: login deadlines, pings, silence, stalls; and events that
//! were held back.
//!
//! One task walks the list a few times a second. A timer per connection or per frame would cost memory and
//! wake-ups; this costs one short walk.

use crate::broker::Inner;
use crate::connection::EndReason;
use crate::reclaim::Reclaim;
use elbus_protocol::PING;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Shortest time between two walks. Deadlines are kept to about a sixteenth of the shortest timeout.
const SHORTEST_PERIOD: Duration = Duration::from_millis(10);
/// Longest time between two walks.
const LONGEST_PERIOD: Duration = Duration::from_millis(250);

/// Walks that may be missed before the time they would have taken is not counted any more.
const MISSED_WALKS: u32 = 4;

/// What the allocator is asked for now and then, in bytes: too much for any of the pools it keeps.
const ASKED_BYTES: usize = 1 << 20;

/// Milliseconds since the broker started, advanced by the housekeeper: reading it costs one load, so the hot
/// path may. Tests that pause tokio's time pause it too.
///
/// It stands still while the process does (stopped, suspended, without a processor): what clients sent meanwhile is
/// not read yet, and they are not to be taken for silent.
#[derive(Debug)]
pub(crate) struct Clock {
    now_ms: AtomicU64,
}

impl Clock {
    pub(crate) const fn new() -> Self {
        // Zero means "never" where times are kept.
        Self { now_ms: AtomicU64::new(1) }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn set(&self, since_start: Duration) {
        self.now_ms
            .store(u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }
}

/// Walks until the broker is gone.
pub(crate) async fn run(broker: Weak<Inner>) {
    let mut last = Instant::now();
    let mut counted = Duration::ZERO;
    let mut reclaim = Reclaim::default();
    loop {
        let Some(period) = broker.upgrade().map(|broker| period(broker.shortest_timeout())) else { return };
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        // A new listener may bring a shorter timeout: look again after a few walks.
        for _ in 0..4 {
            ticks.tick().await;
            let Some(broker) = broker.upgrade() else { return };
            let now = Instant::now();
            counted += now.duration_since(last).min(period * MISSED_WALKS);
            last = now;
            broker.clock.set(counted);
            walk(&broker);
            broker.events.walk(&broker.router, broker.clock.now_ms());
            if broker.options.asks_allocator {
                ask_allocator();
                reclaim.walk(&broker.runtime, now);
            }
        }
    }
}

/// Asks for memory and gives it back, untouched: an idle broker would keep what a flood took for good. Where there is none
/// to be had there is nothing to give back.
fn ask_allocator() {
    let mut asked = Vec::<u8>::new();
    let _ = asked.try_reserve_exact(ASKED_BYTES);
    drop(black_box(asked));
}

fn period(shortest_timeout: Duration) -> Duration {
    (shortest_timeout / 16).clamp(SHORTEST_PERIOD, LONGEST_PERIOD)
}

fn walk(broker: &Arc<Inner>) {
    let now_ms = broker.clock.now_ms();
    let stall_ms = u64::try_from(broker.options.stall_timeout.as_millis()).unwrap_or(u64::MAX);
    for connection in broker.connections.all() {
        if let Some(reason) = connection.overdue(now_ms) {
            connection.end(reason);
            continue;
        }
        let Some(client) = connection.client() else { continue };
        if connection.is_stalled(client.outbox(), now_ms, stall_ms) {
            connection.end(EndReason::Stalled);
        } else if connection.ping_is_due(now_ms) {
            client.outbox().trim();
            client.outbox().push_ping(&PING);
        }
    }
}
