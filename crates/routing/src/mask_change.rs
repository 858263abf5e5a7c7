//! Subscribe, unsubscribe, exclude, unexclude: the operations that may carry thousands of masks.
//!
//! They are carried out in slices. Between slices the tables are free, and a connection that has done its turn
//! lets others have the thread; what is left of its operation waits in its `Sender`.

use crate::router::{Router, authorise};
use crate::subscriptions::Interest;
use crate::sync::Arc;
use crate::{ClientEntry, Sender, TURN_WORK};
use bytes::Bytes;
use elbus_protocol::limits::MASK_BYTES;
use elbus_protocol::mask::Syntax;
use elbus_protocol::{AckFrame, ErrorCode, Masks, Op, OpBody};
use memchr::{memchr, memchr_iter};

/// Levels of masks changed under one hold of the lock, and those of one mask more: about 100 microseconds.
pub(crate) const LEVELS_PER_HOLD: usize = 1_024;
/// What changing one level of a mask costs, in deliveries.
const WORK_PER_LEVEL: usize = 4;

/// An operation that is not done yet.
#[derive(Debug)]
pub(crate) struct Unfinished {
    op: Op,
    /// Joined by NUL.
    masks: Bytes,
    progress: Progress,
    /// The id to acknowledge.
    ack: Option<u32>,
}

#[derive(Debug)]
struct Progress {
    /// Where the next mask begins; past the end once all are done.
    at: usize,
    result: Result<(), ErrorCode>,
}

impl Unfinished {
    pub(crate) fn bytes(&self) -> usize {
        self.masks.len()
    }
}

impl Progress {
    /// A denied mask decides the answer, whatever else was wrong.
    fn refuse(&mut self, code: ErrorCode) {
        if self.result != Err(ErrorCode::Access) {
            self.result = Err(code);
        }
    }
}

/// The first masks of some, about [`LEVELS_PER_HOLD`] levels of them; how many bytes they take with what is between
/// them, and how many levels they have. None for one mask that is longer than any may be, which is looked at no further.
fn slice(rest: &[u8]) -> (Option<Vec<&str>>, usize, usize) {
    let (mut masks, mut length, mut levels) = (Vec::new(), 0, 0);
    while let Some(rest) = rest.get(length..)
        && levels < LEVELS_PER_HOLD
    {
        let end = memchr(0, rest).unwrap_or(rest.len());
        if end > MASK_BYTES {
            return if masks.is_empty() { (None, end + 1, 1) } else { (Some(masks), length, levels) };
        }
        // The whole was checked to be UTF-8 when the frame was read.
        let mask = rest.get(..end).and_then(|mask| str::from_utf8(mask).ok()).unwrap_or_default();
        levels += 1 + memchr_iter(b'/', mask.as_bytes()).count();
        length += end + 1;
        masks.push(mask);
    }
    (Some(masks), length, levels)
}

/// The masks of an operation that changes some.
pub(crate) const fn masks_of<'a>(body: &OpBody<'a>) -> Option<Masks<'a>> {
    match *body {
        OpBody::Subscribe(masks)
        | OpBody::Unsubscribe(masks)
        | OpBody::Exclude(masks)
        | OpBody::Unexclude(masks) => Some(masks),
        _ => None,
    }
}

impl Router {
    /// Changes masks, all of them in one go if `whole`, else until the turn's work is done: then the rest is
    /// left to [`Router::go_on`], and there is no result yet. `shared` is the buffer the masks lie in, if that may be
    /// kept.
    pub(crate) fn change_masks(
        &self,
        sender: &mut Sender,
        op: Op,
        masks: Masks<'_>,
        ack: Option<u32>,
        whole: bool,
        shared: Option<&Bytes>,
    ) -> Option<Result<(), ErrorCode>> {
        if masks.iter().nth(self.limits().subscriptions).is_some() {
            // More than anybody can hold: refused whole, or one frame of NULs would take seconds.
            return Some(Err(ErrorCode::Data));
        }
        let mut progress = Progress { at: 0, result: Ok(()) };
        let bytes = masks.as_str().as_bytes();
        let done = self.change_some(sender, op, bytes, &mut progress, whole);
        if !done {
            // The masks are all of the body, which may have tens of megabytes.
            let shared = shared.filter(|shared| shared.len() == bytes.len());
            let masks = shared.map_or_else(|| Bytes::copy_from_slice(bytes), Bytes::clone);
            sender.unfinished = Some(Unfinished { op, masks, progress, ack });
            return None;
        }
        Some(progress.result)
    }

    /// Goes on with an operation that was left for the next turn, and acknowledges it once it is done. As
    /// [`Router::handle`], false if the client leaves too many acknowledgements unread.
    pub fn go_on(&self, sender: &mut Sender) -> bool {
        let Some(mut unfinished) = sender.unfinished.take() else { return true };
        let Unfinished { op, masks, progress, ack } = &mut unfinished;
        if !self.change_some(sender, *op, masks, progress, false) {
            sender.unfinished = Some(unfinished);
            return true;
        }
        let result = progress.result;
        ack.is_none_or(|id| sender.acknowledge(AckFrame { id, result }))
    }

    /// True once all are done.
    fn change_some(
        &self,
        sender: &mut Sender,
        op: Op,
        masks: &[u8],
        progress: &mut Progress,
        whole: bool,
    ) -> bool {
        while let Some(rest) = masks.get(progress.at..) {
            if !whole && sender.work >= TURN_WORK {
                return false;
            }
            let (slice, length, levels) = slice(rest);
            sender.work += levels * WORK_PER_LEVEL;
            progress.at += length;
            let slice = slice.unwrap_or_else(|| {
                progress.refuse(ErrorCode::Data);
                Vec::new()
            });
            let limit_reached = match op {
                Op::Subscribe => self.add_masks(sender, op, Interest::Subscription, &slice, progress),
                Op::Exclude => self.add_masks(sender, op, Interest::Exclusion, &slice, progress),
                Op::Unsubscribe => self.remove_masks(sender, Interest::Subscription, &slice, progress),
                _ => self.remove_masks(sender, Interest::Exclusion, &slice, progress),
            };
            if limit_reached {
                break;
            }
        }
        true
    }

    /// Adds masks; those that are allowed are taken even if others are not. True if the client may hold no more.
    fn add_masks(
        &self,
        sender: &mut Sender,
        op: Op,
        interest: Interest,
        masks: &[&str],
        progress: &mut Progress,
    ) -> bool {
        let client = Arc::clone(&sender.client);
        let limits = self.mask_limits();
        let (refused, all_taken) = loop {
            let epoch = client.rights_epoch();
            let (allowed, refused) = sort_out(&client, op, masks);
            let all_taken = self.change(|tables| {
                // Rights that were replaced meanwhile are asked again: nobody would take the mask out afterwards.
                (client.rights_epoch() == epoch).then(|| {
                    allowed.iter().all(|mask| tables.subscriptions.add(interest, &client, mask, limits))
                })
            });
            if let Some(all_taken) = all_taken {
                break (refused, all_taken);
            }
        };
        if let Some((code, mask)) = refused {
            if code == ErrorCode::Access && progress.result != Err(code) {
                sender.deny(op, mask);
            }
            progress.refuse(code);
        }
        if !all_taken {
            progress.result = progress.result.and(Err(ErrorCode::Data));
        }
        !all_taken
    }

    /// Takes masks out; those beyond the limits are refused, the others taken out all the same. Never at a limit.
    fn remove_masks(
        &self,
        sender: &Sender,
        interest: Interest,
        masks: &[&str],
        progress: &mut Progress,
    ) -> bool {
        self.change(|tables| {
            for mask in masks {
                if Syntax::Topic.within_limits(mask) {
                    tables.subscriptions.remove(interest, &sender.client, mask);
                } else {
                    progress.result = Err(ErrorCode::Data);
                }
            }
        });
        false
    }
}

/// The masks a client may have, and why not all of them. A denied mask decides, whatever else was wrong.
fn sort_out<'a>(
    client: &ClientEntry,
    op: Op,
    masks: &[&'a str],
) -> (Vec<&'a str>, Option<(ErrorCode, &'a str)>) {
    let mut allowed = Vec::with_capacity(masks.len());
    let mut refused = None;
    for mask in masks {
        match authorise(client, op, mask) {
            Ok(()) => allowed.push(*mask),
            Err(_) if matches!(refused, Some((ErrorCode::Access, _))) => {}
            Err(code) => refused = Some((code, *mask)),
        }
    }
    (allowed, refused)
}
