//! One right of one client: everything, nothing, or what some masks match.

use crate::mask_tree::MaskTree;
use elbus_protocol::limits::{MASK_BYTES, MASK_LEVELS};
use elbus_protocol::mask::Syntax;
use thiserror::Error;

/// A mask that cannot be a rule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("mask {0:?} exceeds {MASK_BYTES} bytes or {MASK_LEVELS} levels, or holds a NUL")]
pub struct MaskError(pub String);

/// What one client may name in one kind of operation.
#[derive(Debug)]
pub struct Rule {
    /// `None` allows everything.
    allowed: Option<MaskTree>,
}

impl Rule {
    /// Allows everything.
    pub const fn any() -> Self {
        Self { allowed: None }
    }

    /// Allows what at least one of `masks` matches; no mask at all allows nothing.
    ///
    /// # Errors
    /// [`MaskError`] for a mask beyond the limits of the protocol crate.
    pub fn masks<'a>(syntax: Syntax, masks: impl IntoIterator<Item = &'a str>) -> Result<Self, MaskError> {
        let mut tree = MaskTree::new(syntax);
        for mask in masks {
            if !syntax.within_limits(mask) || mask.contains('\0') {
                return Err(MaskError(mask.chars().take(64).collect()));
            }
            tree.insert(mask, 0);
        }
        Ok(Self { allowed: Some(tree) })
    }

    /// True if this name or topic is allowed.
    pub fn allows(&self, text: &str) -> bool {
        self.allowed.as_ref().is_none_or(|tree| tree.any_matches(text))
    }

    /// True if everything `mask` can match is allowed.
    pub fn includes(&self, mask: &str) -> bool {
        self.allowed.as_ref().is_none_or(|tree| tree.includes(mask))
    }
}
