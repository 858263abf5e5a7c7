//! A peer mask resolved to the clients it reaches, by their full names.

use crate::ClientEntry;
use crate::sync::Arc;
use elbus_protocol::mask::{Level, Syntax};
use std::collections::BTreeMap;
use std::ops::Bound;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_entry::tests::unix;

    fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeMap<Arc<str>, Arc<ClientEntry>> {
        names.into_iter().map(|name| (Arc::from(name), unix(name))).collect()
    }

    #[test]
    fn receivers_are_those_the_mask_matches() {
        let all = [
            "a", "a.b", "a.b.c", "a.", "ab", ".broker", "g.b.c", "g", "g.a", "h.b.c", "a.b%%0", "\u{e9}.b",
            "a..c",
        ];
        let clients = names(all);
        let masks = [
            "a", "a.b", "a.?", "a.*", "*", "?", "?.*", "g.*.zz", "?.b.*", "?.b.?", "a.", "a..c", "a.?.c", "",
            "g.b.c*", "nobody", "nobody.*", ".*", ".broker", "\u{e9}.?", "*.a", "a.b.?.*",
        ];
        let mut copies = 0;
        for mask in masks {
            let (receivers, _) = receivers(&clients, mask);
            let found: Vec<_> = receivers.iter().map(|client| client.name()).collect();
            let mut expected: Vec<_> =
                all.into_iter().filter(|name| Syntax::Peer.matches(mask, name)).collect();
            expected.sort_unstable();
            copies += found.len();
            assert_eq!(found, expected, "{mask}");
        }
        assert!(copies > 3 * all.len());
    }

    #[test]
    fn only_names_with_the_literal_start_are_looked_at() {
        let deep = vec!["p"; 16].join(".");
        let others: Vec<_> = (0..1_000).map(|other| format!("q.{other}")).collect();
        let clients = names(others.iter().map(String::as_str).chain([&*deep, "p", "r.x", "r.y.z"]));
        for (mask, found, work) in [
            (&*deep, 1, 1),
            ("q.7", 1, 1),
            ("p.*", 1, 1),
            ("r.?", 1, 2),
            ("r.*", 2, 2),
            ("q.7.*", 0, 0),
            ("q.*", 1_000, 1_000),
            (&vec!["?"; 16].join("."), 1, 1_004),
            (&vec!["?"; 128].join("."), 0, 1_004),
        ] {
            let (receivers, looked_at) = receivers(&clients, mask);
            assert_eq!((receivers.len(), looked_at), (found, work), "{mask}");
        }
    }
}
