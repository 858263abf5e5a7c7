//! Masks and rights as the protocol says, written as simply as possible and apart from the broker's own.

use elbus_routing::ClientAaa;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::LazyLock;

pub(crate) const TOPICS: [&str; 7] = ["t/a", "t/b", "t/a/x", "u/a", "u", "x", ".broker/x"];
pub(crate) const MASKS: [&str; 9] =
    ["t/a", "t/+", "t/#", "u/#", "#", "+/a", "x", ".broker/info", ".broker/#"];
pub(crate) const PEER_MASKS: [&str; 7] = ["g0.*", "g1.?", "*", "g0.c0", "?.c1", "g2.*", "?"];

/// `symbols`: what stands between levels, for one level, for all that follow.
fn matches(mask: &str, text: &str, [separator, one, rest]: [char; 3]) -> bool {
    let mut levels = text.split(separator);
    for part in mask.split(separator) {
        let level = levels.next();
        let mut chars = part.chars();
        let symbol = chars.next().filter(|_| chars.next().is_none());
        if symbol == Some(rest) {
            return level.is_some();
        }
        if level.is_none_or(|level| symbol != Some(one) && level != part) {
            return false;
        }
    }
    levels.next().is_none()
}

pub(crate) fn topic_matches(mask: &str, topic: &str) -> bool {
    matches(mask, topic, ['/', '+', '#'])
}

pub(crate) fn peer_matches(mask: &str, name: &str) -> bool {
    matches(mask, name, ['.', '?', '*'])
}

/// Every text of up to three levels over the words in use and one that no rule has.
fn universe(separator: &str, words: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for first in words {
        all.push((*first).to_owned());
        for second in words {
            all.push([*first, second].join(separator));
            all.extend(words.iter().map(|third| [*first, second, third].join(separator)));
        }
    }
    all
}

static TOPIC_UNIVERSE: LazyLock<Vec<String>> =
    LazyLock::new(|| universe("/", &["t", "u", "a", "b", "x", ".broker", "info", "other"]));
static NAME_UNIVERSE: LazyLock<Vec<String>> =
    LazyLock::new(|| universe(".", &["g0", "g1", "g2", "c0", "c1", "c2", "other"]));

/// What one operation may name: everything, or what lies within these masks.
type Rule = Option<&'static [&'static str]>;

/// One entry of an access map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    publish: Rule,
    subscribe: Rule,
    p2p: Rule,
    broadcast: Rule,
    exclude: Rule,
}

/// What is asked of the rights.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish<'a> {
    Publish(&'a str),
    Subscribe(&'static str),
    Message(&'a str),
    Broadcast(&'static str),
    Exclude(&'static str),
    /// Taking back, which is never denied.
    Nothing,
}

const ANY: Rights = Rights { publish: None, subscribe: None, p2p: None, broadcast: None, exclude: None };

pub(crate) const VARIANTS: [Rights; 9] = [
    ANY,
    Rights { publish: Some(&[]), ..ANY },
    Rights { publish: Some(&["t/#", "x"]), broadcast: Some(&["g0.?"]), ..ANY },
    Rights { subscribe: Some(&[]), p2p: Some(&["g0.*", ".broker"]), ..ANY },
    Rights { subscribe: Some(&["t/#"]), exclude: Some(&[]), ..ANY },
    Rights { subscribe: Some(&["t/+", "u/#"]), p2p: Some(&[]), ..ANY },
    Rights { broadcast: Some(&[]), exclude: Some(&["t/a"]), ..ANY },
    Rights { p2p: Some(&["?.c0", "g2.*"]), publish: Some(&["u/#", "t/a"]), ..ANY },
    Rights { broadcast: Some(&["g0.*", "g1.*"]), publish: Some(&["#"]), subscribe: Some(&["#"]), ..ANY },
];

fn topic_in(rule: Rule, topic: &str) -> bool {
    rule.is_none_or(|masks| masks.iter().any(|mask| topic_matches(mask, topic)))
}

fn name_in(rule: Rule, name: &str) -> bool {
    rule.is_none_or(|masks| masks.iter().any(|mask| peer_matches(mask, name)))
}

thread_local! {
    /// Answers of [`lies_within`], which asks a lot.
    static KNOWN: RefCell<HashMap<(Rule, &'static str), bool>> = RefCell::default();
}

/// Everything `mask` matches is allowed by `rule`, as far as the universe goes.
fn lies_within(
    rule: Rule,
    mask: &'static str,
    universe: &[String],
    matches: fn(&str, &str) -> bool,
    allowed: fn(Rule, &str) -> bool,
) -> bool {
    let ask = || universe.iter().filter(|text| matches(mask, text)).all(|text| allowed(rule, text));
    rule.is_none() || KNOWN.with_borrow_mut(|known| *known.entry((rule, mask)).or_insert_with(ask))
}

impl Rights {
    /// Everything is allowed where there is no map.
    pub(crate) const fn any() -> Self {
        ANY
    }

    pub(crate) fn allows(&self, wish: Wish<'_>) -> bool {
        let topics = |rule, mask| lies_within(rule, mask, &TOPIC_UNIVERSE, topic_matches, topic_in);
        match wish {
            Wish::Publish(topic) => !topic.starts_with(".broker/") && topic_in(self.publish, topic),
            Wish::Subscribe(mask) => topics(self.subscribe, mask),
            Wish::Exclude(mask) => topics(self.exclude, mask),
            Wish::Message(name) => name_in(self.p2p, name),
            Wish::Broadcast(mask) => lies_within(self.broadcast, mask, &NAME_UNIVERSE, peer_matches, name_in),
            Wish::Nothing => true,
        }
    }

    /// The same for the broker.
    pub(crate) fn entry(&self) -> ClientAaa {
        let mut entry = ClientAaa::new();
        if let Some(masks) = self.publish {
            entry = entry.deny_publish().publish(masks.iter().copied()).unwrap();
        }
        if let Some(masks) = self.subscribe {
            entry = entry.deny_subscribe().subscribe(masks.iter().copied()).unwrap();
        }
        if let Some(masks) = self.p2p {
            entry = entry.deny_p2p().p2p(masks.iter().copied()).unwrap();
        }
        if let Some(masks) = self.broadcast {
            entry = entry.deny_broadcast().broadcast(masks.iter().copied()).unwrap();
        }
        if let Some(masks) = self.exclude {
            entry = entry.deny_exclude().exclude(masks.iter().copied()).unwrap();
        }
        entry
    }
}
