//! The kinds of load and their settings, with the defaults of each kind. What the command line says about
//! them is in `args.rs`; what they do is in `flood.rs`, `exchange.rs`, `rate.rs`, `subscriptions.rs`, `idle.rs`.

use crate::numbers::count;
use crate::sequence::Stamp;
use clap::ValueEnum;
use elbus_protocol::QoS;
use serde::Serialize;
use std::time::Duration;

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scenario {
    /// Messages as fast as they are taken; sender i to receiver i mod M
    Message,
    /// Publications as fast as they are taken; every receiver gets each
    Publish,
    /// Broadcasts as fast as they are taken; every receiver gets each
    Broadcast,
    /// Acknowledged messages, W in flight per sender
    Acked,
    /// Message to an echoing client and back, W in flight per sender
    RoundTrip,
    /// Messages at a fixed rate; latency from the intended time of sending
    Rate,
    /// Calls of `.broker`, W in flight per sender
    Broker,
    /// Publications without and with masks held by other clients
    Subscriptions,
    /// Memory and CPU of clients that do nothing
    Idle,
    /// `message` with 100 B and 64 KiB, beside a process that only moves the same bytes (`compare` only)
    Relay,
}

/// How receivers of publications subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SubscribeBy {
    /// Every topic by its text
    Exact,
    /// All topics by one mask
    Wildcard,
}

/// The method of `.broker` that is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Method {
    /// `test`, without params
    Test,
    /// `benchmark.test`, which gives back the payload
    Benchmark,
}

/// Everything that decides what a load does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Settings {
    pub(crate) scenario: Scenario,
    pub(crate) senders: usize,
    pub(crate) receivers: usize,
    /// Bytes of each payload.
    pub(crate) payload: usize,
    /// Publications go to this many topics in turn.
    pub(crate) topics: usize,
    pub(crate) subscribe_by: SubscribeBy,
    /// Wildcard masks held by clients that take no part and match nothing published.
    pub(crate) subscriptions: usize,
    /// Clients that share those masks.
    pub(crate) holders: usize,
    /// Idle clients of `idle`.
    pub(crate) clients: usize,
    /// Quality of service bits, 0 to 3.
    pub(crate) qos: u8,
    /// Operations, round trips or calls a sender has under way.
    pub(crate) in_flight: u32,
    /// Frames per second of `rate`, all senders together.
    pub(crate) rate: f64,
    pub(crate) method: Method,
    /// Seconds of load before the measured phase.
    pub(crate) warm_up: f64,
    /// Seconds of the measured phase.
    pub(crate) duration: f64,
    /// Ends the measured phase after this many deliveries or answers instead.
    pub(crate) messages: Option<u64>,
    /// Most frames on their way to one receiver: flooding senders stop there.
    pub(crate) window: u64,
    /// Threads that receive, and as many that send.
    pub(crate) threads: usize,
    /// Seconds between the pings of a client that says nothing else.
    pub(crate) ping_every: f64,
    /// First part of every client name and topic.
    pub(crate) prefix: String,
    /// No login and no event frames: the far side is `relay`.
    pub(crate) raw: bool,
}

impl Settings {
    /// Most frames under way to one receiver unless said otherwise: half of the peers' queue of 8192 frames.
    const WINDOW_FRAMES: u64 = 4096;
    /// Most bytes under way to one receiver unless said otherwise.
    const WINDOW_BYTES: u64 = 4 << 20;

    /// The settings of `scenario` where nothing else is said.
    pub(crate) fn of(scenario: Scenario) -> Self {
        let payload = 100;
        Self {
            scenario,
            senders: 1,
            receivers: 1,
            payload,
            topics: 1,
            subscribe_by: SubscribeBy::Exact,
            subscriptions: if scenario == Scenario::Subscriptions { 100_000 } else { 0 },
            holders: 100,
            clients: 1000,
            qos: u8::from(matches!(scenario, Scenario::Acked | Scenario::Broker)),
            in_flight: if scenario == Scenario::Broker { 64 } else { 1 },
            rate: 10_000.0,
            method: Method::Test,
            warm_up: 0.5,
            // Idle brokers ping once or twice in their timeout of 5 s; a shorter look may miss all of it.
            duration: if scenario == Scenario::Idle { 5.0 } else { 2.0 },
            messages: None,
            window: Self::default_window(payload),
            threads: std::thread::available_parallelism().map_or(1, Into::into),
            ping_every: 1.0,
            prefix: "load".to_owned(),
            raw: false,
        }
    }

    /// The window for a payload: 4096 frames or 4 MiB, whichever is less.
    pub(crate) fn default_window(payload: usize) -> u64 {
        Self::WINDOW_FRAMES.min(Self::WINDOW_BYTES / count(payload).max(1)).max(1)
    }

    pub(crate) fn qos(&self) -> QoS {
        QoS::from_flags(self.qos << 6)
    }

    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.duration)
    }

    pub(crate) fn ping_every(&self) -> Duration {
        Duration::from_secs_f64(self.ping_every)
    }

    /// Name of sender `index`.
    pub(crate) fn sender(&self, index: usize) -> String {
        format!("{}.s.{index}", self.prefix)
    }

    /// Name of receiver `index`; the broadcast mask is [`Settings::all_receivers`].
    pub(crate) fn receiver(&self, index: usize) -> String {
        format!("{}.r.{index}", self.prefix)
    }

    /// The mask of all receivers.
    pub(crate) fn all_receivers(&self) -> String {
        format!("{}.r.?", self.prefix)
    }

    /// Topic `index`.
    pub(crate) fn topic(&self, index: usize) -> String {
        format!("{}/t/{index}", self.prefix)
    }

    /// What receivers of publications subscribe to, as the body of one operation.
    pub(crate) fn receiver_masks(&self) -> String {
        match self.subscribe_by {
            SubscribeBy::Wildcard => format!("{}/t/+", self.prefix),
            SubscribeBy::Exact => {
                (0..self.topics).map(|index| self.topic(index)).collect::<Vec<_>>().join("\0")
            }
        }
    }

    /// Mask `index` of those held by others, of three forms. None matches a topic of [`Settings::topic`], yet
    /// all share levels with them, so that matching has to look at them.
    pub(crate) fn held_mask(&self, index: usize) -> String {
        let prefix = &self.prefix;
        match index % 3 {
            0 => format!("{prefix}/+/h{index}"),
            1 => format!("{prefix}/h{index}/#"),
            _ => format!("+/t/h{index}/+"),
        }
    }

    /// Least payload this load can count with.
    pub(crate) const fn least_payload(&self) -> usize {
        match self.scenario {
            Scenario::Rate => Stamp::TIMED_BYTES,
            Scenario::Broker | Scenario::Idle => 0,
            _ => Stamp::BYTES,
        }
    }

    /// One line for the head of a table.
    pub(crate) fn title(&self) -> String {
        let name = self.scenario.to_possible_value().map_or_else(String::new, |it| it.get_name().to_owned());
        let pair = format!("{} {}→{}, {} B", name, self.senders, self.receivers, self.payload);
        let first = match self.scenario {
            Scenario::Idle => format!("{name}, {} clients", self.clients),
            Scenario::Broker => {
                let method = if self.method == Method::Test { "test" } else { "benchmark.test" };
                format!("{name} {method}, {} callers, {} in flight", self.senders, self.in_flight)
            }
            Scenario::Acked | Scenario::RoundTrip => format!("{pair}, {} in flight", self.in_flight),
            Scenario::Rate => format!("{pair}, {} per second", self.rate),
            _ => pair,
        };
        let mut parts = vec![first];
        if self.subscriptions > 0 {
            parts.push(format!("{} masks held by others", self.subscriptions));
        }
        if matches!(self.scenario, Scenario::Publish | Scenario::Subscriptions) {
            let by = if self.subscribe_by == SubscribeBy::Exact { "exact" } else { "wildcard" };
            parts.push(format!("{} topics, {by}", self.topics));
        }
        if self.qos().realtime() {
            parts.push("realtime".to_owned());
        }
        if self.qos().acknowledged() && !matches!(self.scenario, Scenario::Acked) {
            parts.push("acknowledged".to_owned());
        }
        parts.join(", ")
    }
}

/// The loads behind the goals S1 to S9, in that order.
pub(crate) fn suite() -> Vec<Settings> {
    let of = Settings::of;
    let large = 64 << 10;
    vec![
        of(Scenario::Message),
        of(Scenario::Publish),
        Settings { receivers: 8, ..of(Scenario::Publish) },
        of(Scenario::Relay),
        Settings { payload: large, window: Settings::default_window(large), ..of(Scenario::Relay) },
        of(Scenario::RoundTrip),
        Settings { qos: 2, ..of(Scenario::RoundTrip) },
        of(Scenario::Acked),
        Settings { in_flight: 64, ..of(Scenario::Acked) },
        of(Scenario::Subscriptions),
        of(Scenario::Broker),
        of(Scenario::Idle),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_protocol::mask::Syntax;

    #[test]
    fn the_window_is_bounded_in_frames_and_bytes() {
        for (payload, window) in
            [(16, 4096), (100, 4096), (1024, 4096), (65_536, 64), (1 << 20, 4), (1 << 24, 1)]
        {
            assert_eq!(Settings::default_window(payload), window, "{payload}");
        }
    }

    #[test]
    fn held_masks_are_within_limits() {
        let settings = Settings::of(Scenario::Subscriptions);
        for index in 0..10 {
            assert!(Syntax::Topic.within_limits(&settings.held_mask(index)));
            assert_ne!(settings.held_mask(index), settings.held_mask(index + 3));
        }
    }
}
