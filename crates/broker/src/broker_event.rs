//! What a broker tells the program that embeds it. How it is told, and how often, is in `events.rs`.

use elbus_protocol::Op;

/// Something that happened in a broker, told to [`crate::BrokerBuilder::on_event`].
///
/// Names have at most 512 bytes, targets at most 256, cut between characters. Control characters in them are then written
/// as `\n` or `\u{1b}`: they come from peers, and a log that shows them as they are can be forged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BrokerEvent {
    /// A client is registered: over a socket or in the process, primary or secondary, `.broker` included.
    Registered {
        /// Full name.
        client: String,
    },
    /// A registered client is gone, for whatever reason. What else is told of it comes before, unless it was
    /// disconnected by somebody else in the middle of an operation.
    Unregistered {
        /// Full name.
        client: String,
    },
    /// An operation was denied by the access map or by a rule of the broker (0x79), or a login was refused: name
    /// not in the map, wrong host, reserved or taken name, secondary of nobody or of somebody else.
    ///
    /// At most one a second for each client and kind of operation. The first is told at once; later ones are told
    /// together when the second is over or the client leaves. Of refused logins 64 names a second have an event of
    /// their own; those of further names share one.
    Denied {
        /// Full name; of a refused login, the name it asked for.
        client: String,
        /// What it tried.
        operation: Operation,
        /// What the first of these operations named: a client, a topic or a mask. Of a login, where it came from:
        /// `ip:port`, or the UNIX listener's address.
        target: String,
        /// How many operations this stands for, at least 1. One with several denied masks counts once.
        count: u64,
    },
    /// A client is too slow: frames for it were refused because its queue, or the memory of all queues together,
    /// was full.
    ///
    /// Told when a stall begins and, if more were refused meanwhile, when it is over (the queue has been below a
    /// sixteenth of its bounds) or the client leaves. Noticed within a quarter of a second; at most one a second
    /// for each client, so that stalls that follow each other closely are told as one.
    Slow {
        /// Full name.
        client: String,
        /// Frames refused in this stall so far, at least 1.
        refused: u64,
    },
    /// Something went wrong that ended a connection, or kept one from being made: the peer broke the protocol, was
    /// silent or too slow, or reached a bound on connections; or a listener could not accept.
    ///
    /// At most 32 a second for the whole broker.
    Fault {
        /// The peer's `ip:port`, `local` for one on this machine's UNIX socket; of a listener its address.
        source: String,
        /// Full name, if the peer had logged in.
        client: Option<String>,
        /// What happened, for people to read.
        reason: String,
        /// How many faults before this one were not told because there were too many.
        omitted: u64,
    },
}

/// A kind of operation that can be denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Logging in.
    Connect,
    /// A message to one client.
    Message,
    /// A publication, to all subscribers or to one.
    Publish,
    /// A subscription.
    Subscribe,
    /// A message to all clients of a mask.
    Broadcast,
    /// An exclusion.
    Exclude,
}

impl Operation {
    /// The name in lower case: `connect`, `message`, `publish`, `subscribe`, `broadcast`, `exclude`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Message => "message",
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Broadcast => "broadcast",
            Self::Exclude => "exclude",
        }
    }

    pub(crate) const fn of(op: Op) -> Self {
        match op {
            Op::Message => Self::Message,
            Op::Subscribe | Op::Unsubscribe => Self::Subscribe,
            Op::Broadcast => Self::Broadcast,
            Op::Exclude | Op::Unexclude => Self::Exclude,
            Op::Publish | Op::PublishFor | Op::Nop => Self::Publish,
        }
    }
}
