//! One received frame as its user sees it. Queues of them are in `stream.rs`.

use bytes::Bytes;
use elbus_protocol::client_name::primary_part;
use elbus_protocol::{EventFrame, EventKind};
use std::fmt;

/// A message, broadcast or publication.
///
/// It shares the memory it was received in with its neighbours, so that nothing is copied: one kept for long
/// keeps a whole read chunk (64 KiB on a socket). Copy the payload to keep it.
#[derive(Clone)]
pub struct Delivery {
    layout: Layout,
    body: Bytes,
}

/// What a frame's fields are and where they lie in its body.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    kind: EventKind,
    realtime: bool,
    sender_bytes: usize,
    payload_bytes: usize,
}

impl Layout {
    pub(crate) const fn of(frame: &EventFrame<'_>) -> Self {
        Self {
            kind: frame.kind,
            realtime: frame.realtime,
            sender_bytes: frame.sender.len(),
            payload_bytes: frame.payload.len(),
        }
    }
}

impl Delivery {
    /// `body` is what the frame of this layout was parsed from.
    pub(crate) const fn new(layout: Layout, body: Bytes) -> Self {
        Self { layout, body }
    }

    fn payload_start(&self) -> usize {
        self.body.len().saturating_sub(self.layout.payload_bytes)
    }

    /// Message, broadcast or publication.
    pub const fn kind(&self) -> EventKind {
        self.layout.kind
    }

    /// True if the sender asked for realtime.
    pub const fn realtime(&self) -> bool {
        self.layout.realtime
    }

    /// Full name of the sender; where an answer belongs.
    pub fn sender(&self) -> &str {
        text(self.body.get(..self.layout.sender_bytes))
    }

    /// The sender's name without the suffix of a secondary.
    pub fn primary_sender(&self) -> &str {
        primary_part(self.sender())
    }

    /// The topic, of publications only.
    pub fn topic(&self) -> Option<&str> {
        let range = self.layout.sender_bytes.saturating_add(1)..self.payload_start().saturating_sub(1);
        (self.layout.kind == EventKind::Publish).then(|| text(self.body.get(range)))
    }

    /// The user's bytes.
    pub fn payload(&self) -> &[u8] {
        self.body.get(self.payload_start()..).unwrap_or_default()
    }

    /// The user's bytes without a copy; see [`Delivery`] for what they keep alive.
    pub fn payload_bytes(&self) -> Bytes {
        self.body.slice_ref(self.payload())
    }
}

/// Fields were checked to be UTF-8 when the frame was parsed.
fn text(bytes: Option<&[u8]>) -> &str {
    bytes.and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default()
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("kind", &self.kind())
            .field("sender", &self.sender())
            .field("topic", &self.topic())
            .field("realtime", &self.realtime())
            .field("payload_bytes", &self.payload().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_protocol::{Event, EventHeader, Header, encode_event_head};

    #[test]
    fn fields_are_views_of_the_body() {
        for (kind, topic, sender, payload) in [
            (EventKind::Publish, Some("a/b"), "s%%1", &b"pay\0load"[..]),
            (EventKind::Publish, Some(""), "s", b""),
            (EventKind::Message, None, "s", b""),
            (EventKind::Broadcast, None, "", b"\0"),
        ] {
            let mut bytes = Vec::new();
            assert!(encode_event_head(&mut bytes, kind, true, sender, topic, payload.len()));
            bytes.extend_from_slice(payload);
            let header = EventHeader::read(&bytes).unwrap();
            let body = Bytes::from(bytes).slice(6..);
            let Event::Frame(frame) = Event::parse(header, &body).unwrap() else { panic!("not a delivery") };
            let delivery = Delivery::new(Layout::of(&frame), body.clone());
            assert_eq!(delivery.sender(), sender);
            assert_eq!(delivery.primary_sender(), sender.trim_end_matches("%%1"));
            assert_eq!(delivery.topic(), topic);
            assert_eq!(delivery.payload(), payload);
            assert_eq!(delivery.payload_bytes(), payload);
            assert!(delivery.realtime());
        }
    }
}
