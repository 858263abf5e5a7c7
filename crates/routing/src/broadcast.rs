//! A peer mask resolved to the clients it reaches, by their full names.

use crate::ClientEntry;
use elbus_protocol::mask::{Level, Syntax};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// The clients `mask` matches, and how many names were looked at: those that share its levels up to the first
/// wildcard.
pub(crate) fn receivers(
    names: &BTreeMap<Arc<str>, Arc<ClientEntry>>,
    mask: &str,
) -> (Vec<Arc<ClientEntry>>, usize) {
    let literal: usize = Syntax::Peer
        .levels(mask)
        .map_while(|level| if let Level::Text(text) = level { Some(text.len() + 1) } else { None })
        .sum();
    if literal > mask.len() {
        return (names.get(mask).map(Arc::clone).into_iter().collect(), 1);
    }
    let prefix = mask.get(..literal).unwrap_or_default();
    let mut looked_at = 0;
    let matching = names
        .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
        .take_while(|(name, _)| name.starts_with(prefix))
        .inspect(|_| looked_at += 1)
        .filter(|(name, _)| Syntax::Peer.matches(mask, name))
        .map(|(_, client)| Arc::clone(client))
        .collect();
    (matching, looked_at)
}
