//! Property: a rule includes a mask exactly if it allows every text the mask matches, tried by brute force.
//!
//! Texts have up to six levels, masks and rules up to four, so every length a rule can tell apart occurs. One
//! word occurs in no rule. Random pairs: 200,000, or ten million with `ELBUS_LONG=1`, from `INCLUSION_SEED`.
#![cfg(test)]

use elbus_protocol::mask::Syntax;
use elbus_routing::Rule;
use std::env;
use std::sync::LazyLock;
use std::time::Instant;

const TEXT_WORDS: [&str; 4] = ["a", "b", "fresh", ""];
const MASK_WORDS: [&str; 6] = ["a", "b", ONE, DEEP, "", "fresh"];
const RULE_WORDS: [&str; 5] = ["a", "b", ONE, DEEP, ""];
const TEXT_LEVELS: usize = 6;
const MASK_LEVELS: usize = 4;
const ONE: &str = "+";
const DEEP: &str = "#";

/// Every sequence of 1 to `most` words.
fn sequences<'a>(words: &[&'a str], most: usize) -> Vec<Vec<&'a str>> {
    let mut all: Vec<Vec<&str>> = Vec::new();
    let mut longest = vec![Vec::new()];
    for _ in 0..most {
        longest = longest
            .iter()
            .flat_map(|shorter: &Vec<&str>| words.iter().map(move |word| [&shorter[..], &[*word]].concat()))
            .collect();
        all.extend(longest.iter().cloned());
    }
    all
}

fn matches(mask: &[&str], text: &[&str]) -> bool {
    for (at, level) in mask.iter().enumerate() {
        match text.get(at) {
            None => return false,
            Some(_) if *level == DEEP => return true,
            Some(word) if *level != ONE && level != word => return false,
            Some(_) => {}
        }
    }
    mask.len() == text.len()
}

/// A set of texts, by their index.
#[derive(Clone, Debug, Default)]
struct Texts(Vec<u64>);

impl Texts {
    fn matched_by(mask: &[&str], texts: &[Vec<&str>]) -> Self {
        let mut set = Self::none(texts.len());
        for (index, _) in texts.iter().enumerate().filter(|(_, text)| matches(mask, text)) {
            set.0[index / 64] |= 1 << (index % 64);
        }
        set
    }

    fn none(size: usize) -> Self {
        Self(vec![0; size.div_ceil(64)])
    }

    fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(one, other)| *one |= other);
    }

    fn contains(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 == 1
    }

    fn within(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(one, other)| one & !other == 0)
    }
}

/// Masks with the texts they match.
struct Space {
    texts: Vec<Vec<&'static str>>,
    masks: Vec<Vec<&'static str>>,
    matched: Vec<Texts>,
    /// Indices of the masks that have no word a rule may not have.
    rules: Vec<usize>,
}

static SPACE: LazyLock<Space> = LazyLock::new(Space::new);

impl Space {
    fn new() -> Self {
        let texts = sequences(&TEXT_WORDS, TEXT_LEVELS);
        let masks = sequences(&MASK_WORDS, MASK_LEVELS);
        let matched = masks.iter().map(|mask| Texts::matched_by(mask, &texts)).collect();
        let rules = (0..masks.len())
            .filter(|index| masks[*index].iter().all(|word| RULE_WORDS.contains(word)))
            .collect();
        Self { texts, masks, matched, rules }
    }

    /// The mask as text, in either syntax.
    fn text(words: &[&str], syntax: Syntax) -> String {
        let word = |word: &&str| match (syntax, *word) {
            (Syntax::Peer, ONE) => "?".to_owned(),
            (Syntax::Peer, DEEP) => "*".to_owned(),
            (_, word) => word.to_owned(),
        };
        words.iter().map(word).collect::<Vec<_>>().join(&syntax.separator().to_string())
    }

    fn rule(&self, masks: &[usize], syntax: Syntax) -> Rule {
        let texts: Vec<_> = masks.iter().map(|index| Self::text(&self.masks[*index], syntax)).collect();
        Rule::masks(syntax, texts.iter().map(String::as_str)).unwrap()
    }

    fn allowed(&self, masks: &[usize]) -> Texts {
        let mut allowed = Texts::none(self.texts.len());
        for index in masks {
            allowed.add(&self.matched[*index]);
        }
        allowed
    }
}

/// Random numbers that are the same in every run (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ mixed >> 31) % limit as u64).unwrap()
    }
}

#[test]
fn c23_one_rule_against_every_mask() {
    let space = &*SPACE;
    let (mut pairs, mut included) = (0, 0);
    for rule in &space.rules {
        let built = space.rule(&[*rule], Syntax::Topic);
        let allowed = &space.matched[*rule];
        // Empty levels and the fresh word are left to the random pairs.
        let plain = |index: &&usize| space.masks[**index].iter().all(|word| !word.is_empty());
        for mask in space.rules.iter().filter(plain) {
            let text = Space::text(&space.masks[*mask], Syntax::Topic);
            let expected = space.matched[*mask].within(allowed);
            assert_eq!(built.includes(&text), expected, "{:?} over {text:?}", space.masks[*rule]);
            pairs += 1;
            included += usize::from(expected);
        }
    }
    assert_eq!(pairs, (5 + 25 + 125 + 625) * (4 + 16 + 64 + 256));
    assert!(included > 1_000, "{included}");
    println!(
        "C23: all {pairs} pairs of a rule and a mask up to four levels as the model says, {included} included"
    );
}

#[test]
fn c23_random_rules_against_random_masks() {
    let pairs = if env::var_os("ELBUS_LONG").is_some() { 10_000_000 } else { 200_000 };
    let seed = env::var("INCLUSION_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut random = Random(seed);
    let start = Instant::now();
    let space = &*SPACE;
    let (mut done, mut included, mut by_union) = (0, 0, 0);
    while done < pairs {
        let syntax = if random.below(2) == 0 { Syntax::Topic } else { Syntax::Peer };
        // Wide masks more often, or hardly any mask would be covered.
        let wide = random.below(4) > 0;
        let mut pick = |from: &[usize]| loop {
            let index = from[random.below(from.len())];
            // What starts with the deep wildcard includes everything: rarely.
            let everything = space.masks[index][0] == DEEP && random.below(16) > 0;
            let wildcards = space.masks[index].iter().filter(|word| [ONE, DEEP].contains(word)).count();
            if !everything && (!wide || 2 * wildcards >= space.masks[index].len()) {
                return index;
            }
        };
        let rules: Vec<_> = (0..6).map(|_| pick(&space.rules)).collect();
        let rules = &rules[..random.below(7)];
        let rule = space.rule(rules, syntax);
        let allowed = space.allowed(rules);
        for _ in 0..8 {
            let mask = random.below(space.masks.len());
            let text = Space::text(&space.masks[mask], syntax);
            let expected = space.matched[mask].within(&allowed);
            assert_eq!(rule.includes(&text), expected, "{syntax:?} {text:?} within {rule:?}");
            done += 1;
            included += u64::from(expected);
            let alone = |rule: &usize| space.matched[mask].within(&space.matched[*rule]);
            by_union += u64::from(expected && !rules.iter().any(alone));
        }
        let index = random.below(space.texts.len());
        let text = Space::text(&space.texts[index], syntax);
        assert_eq!(rule.allows(&text), allowed.contains(index), "{syntax:?} {text:?} by {rule:?}");
    }
    assert!(done >= pairs && included > pairs / 20 && included < done / 2, "{included} of {done}");
    assert!(by_union > pairs / 5_000, "only {by_union} masks needed several rules together");
    println!(
        "C23: {done} random pairs as the model says, seed {seed}: {included} included, {by_union} by several rules \
         together, in {:?}",
        start.elapsed()
    );
}

#[test]
fn c23_brute_force_knows_the_table_of_the_protocol() {
    for (mask, text, expected) in [
        (&["a", DEEP][..], &["a"][..], false),
        (&["a", DEEP], &["a", ""], true),
        (&["a", DEEP, "b"], &["a", "x", "y"], true),
        (&[ONE], &[""], true),
        (&[ONE, "b"], &["b"], false),
        (&[DEEP], &[""], true),
    ] {
        assert_eq!(matches(mask, text), expected, "{mask:?} {text:?}");
        let [mask, text] = [mask, text].map(|words| Space::text(words, Syntax::Topic));
        assert_eq!(Syntax::Topic.matches(&mask, &text), expected);
    }
}
