//! Masks: parsing, matching, and the inclusion that access rules are made of.
//!
//! The input is text, in lines: the first byte chooses the syntax, the first line is a mask, the second a topic or
//! a name, all others the masks of a rule.

use crate::cost::{measured, within};
use elbus_protocol::limits::{MASK_BYTES, MASK_LEVELS};
use elbus_protocol::mask::{Level, Syntax};
use elbus_routing::Rule;

/// A word that no mask of the input has: a line cannot hold its end.
const FRESH: &str = "\n";

pub(crate) fn run(data: &[u8]) {
    let Some((byte, rest)) = data.split_first() else { return };
    let Ok(text) = str::from_utf8(rest) else { return };
    let syntax = if byte & 1 == 0 { Syntax::Topic } else { Syntax::Peer };
    let mut lines = text.split('\n');
    let (mask, text) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let rules: Vec<&str> = lines.collect();

    one(syntax, mask, text);
    let within_limits = |rule: &&str| naive_limits(syntax, rule) && !rule.contains('\0');
    let built = measured(|| Rule::masks(syntax, rules.iter().copied()));
    assert_eq!(built.is_ok(), rules.iter().all(within_limits));
    let Ok(rule) = built else { return };
    let allowed = |text: &str| rules.iter().any(|rule| matches(syntax, rule, text));
    let allows = |text: &str| {
        let verdict = measured(|| rule.allows(text));
        assert_eq!(verdict, allowed(text), "{text:?} by {rules:?}");
        verdict
    };
    allows(text);
    allows(mask);
    let includes = measured(|| rule.includes(mask));
    if includes && matches(syntax, mask, text) {
        assert!(
            allowed(text),
            "{mask:?} is included in {rules:?} and matches {text:?}, which is not allowed"
        );
    }
    if syntax.is_literal(text) {
        assert_eq!(measured(|| rule.includes(text)), allowed(text), "{text:?} in {rules:?}");
    }
    if syntax.within_limits(mask) {
        assert_eq!(includes, model(syntax, mask, &rules), "{mask:?} in {rules:?}");
    }
}

fn one(syntax: Syntax, mask: &str, text: &str) {
    let separator = syntax.separator();
    let expected = matches(syntax, mask, text);
    assert_eq!(within(0, || syntax.matches(mask, text)), expected, "{mask:?} {text:?}");
    let levels: Vec<Level<'_>> = syntax.levels(mask).collect();
    let deep = levels.iter().position(|level| *level == Level::Deep);
    assert!(deep.is_none_or(|at| at + 1 == levels.len()), "whatever follows it is ignored");
    assert!(deep.is_some() || levels.len() == mask.split(separator).count());
    let literal = levels.iter().all(|level| matches!(level, Level::Text(_)));
    assert_eq!(syntax.is_literal(mask), literal);
    assert!(!literal || expected == (mask == text));
    assert!(syntax.matches(mask, mask), "wildcards match themselves");
    assert_eq!(within(0, || syntax.within_limits(mask)), naive_limits(syntax, mask));
}

fn naive_limits(syntax: Syntax, mask: &str) -> bool {
    mask.len() <= MASK_BYTES && mask.split(syntax.separator()).count() <= MASK_LEVELS
}

/// Matching, written down as naively as can be.
pub(crate) fn matches(syntax: Syntax, mask: &str, text: &str) -> bool {
    let (one, deep) = wildcards(syntax);
    let mut mask = mask.split(syntax.separator());
    let mut text = text.split(syntax.separator());
    loop {
        match (mask.next(), text.next()) {
            (None, None) => return true,
            (Some(level), Some(_)) if level == deep => return true,
            (Some(level), Some(part)) if level == one || level == part => {}
            _ => return false,
        }
    }
}

fn wildcards(syntax: Syntax) -> (&'static str, &'static str) {
    match syntax {
        Syntax::Topic => ("+", "#"),
        Syntax::Peer => ("?", "*"),
    }
}

/// Inclusion by trial: every text that a mask matches and that has the fresh word for its wildcards, up to a length
/// at which rules cannot tell texts apart any more. (That such texts stand for all others is what the property
/// tests of `elbus-routing` show with every text there is.)
fn model(syntax: Syntax, mask: &str, rules: &[&str]) -> bool {
    let separator = syntax.separator();
    let (one, deep) = wildcards(syntax);
    let mut words: Vec<&str> = Vec::new();
    let mut is_deep = false;
    for level in mask.split(separator) {
        is_deep = level == deep;
        words.push(if is_deep || level == one { FRESH } else { level });
        if is_deep {
            break;
        }
    }
    // Not the cubic work of a hundred rules with a hundred levels.
    let longest = rules.iter().map(|rule| rule.split(separator).count()).max().unwrap_or_default();
    let more = if is_deep { (longest + 1).saturating_sub(words.len()) } else { 0 };
    (0..=more).all(|more| {
        let text: Vec<&str> = words.iter().copied().chain(std::iter::repeat_n(FRESH, more)).collect();
        let text = text.join(&separator.to_string());
        rules.iter().any(|rule| matches(syntax, rule, &text))
    })
}
