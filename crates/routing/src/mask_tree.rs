//! Many masks in one tree, each with the members that hold it: subscriptions, exclusions, access rules.
//!
//! Linear in levels, never recursive. All nodes stand in one list and all edges in a few tables, keyed by parent and
//! text, so that a million masks cost one node a level and no map per node. Both grow in steps that are short however
//! many there are, because others wait for the lock meanwhile.

use elbus_protocol::mask::{Level, Syntax};
use foldhash::quality::RandomState;
use hashbrown::{HashSet, HashTable};
use std::hash::BuildHasher;

const ROOT: u32 = 0;
/// No node: the root is nobody's child.
const NONE: u32 = ROOT;
/// No member.
const NOBODY: u32 = u32::MAX;
/// More than one member.
const SEVERAL: u32 = u32::MAX - 1;
/// Nodes one look-up visits at the most, about three milliseconds: all ways through 14 levels that are each a text or a
/// wildcard. Texts of more levels come up to it where somebody holds masks of nothing else.
pub(crate) const MOST_VISITED: usize = 32_768;
/// What a node takes at the most beside its text, its edge in a table that has just grown included, in bytes.
const NODE_BYTES: usize = 112;
/// What it takes that one client holds one mask, in bytes: its place in a list of the mask's members, half of one for two,
/// and in the client's own.
const MEMBER_BYTES: usize = 72;
/// Members of one mask for which a list may be larger than they need.
const MANY: usize = 16;
/// How many of the members that a look-up has found last it remembers.
const FOUND: usize = 8;

/// The members of one mask; most masks have one.
#[derive(Debug, Default)]
pub(crate) enum Members {
    #[default]
    None,
    One(u32),
    Many(Box<HashSet<u32, RandomState>>),
}

impl Members {
    fn insert(&mut self, member: u32) -> bool {
        match self {
            Self::None => *self = Self::One(member),
            Self::One(only) if *only == member => return false,
            Self::One(only) => *self = Self::Many(Box::new(HashSet::from_iter([*only, member]))),
            Self::Many(set) => return set.insert(member),
        }
        true
    }

    fn remove(&mut self, member: u32) -> bool {
        match self {
            Self::One(only) if *only == member => *self = Self::None,
            Self::Many(set) => {
                let removed = set.remove(&member);
                // What it takes follows what it holds.
                if set.is_empty() {
                    *self = Self::None;
                } else if let Some(only) = set.iter().next().copied().filter(|_| set.len() == 1) {
                    *self = Self::One(only);
                } else if set.capacity() > MANY && set.len() < set.capacity() / 8 {
                    set.shrink_to(set.len() * 2);
                }
                return removed;
            }
            _ => return false,
        }
        true
    }

    const fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    fn for_each(&self, each: &mut impl FnMut(u32)) {
        match self {
            Self::None => {}
            Self::One(member) => each(*member),
            Self::Many(set) => set.iter().for_each(|member| each(*member)),
        }
    }
}

/// Bytes of a level that need no memory of their own: as many as make a [`Text`] no larger.
const SHORT_BYTES: usize = 22;

/// The text of one level. Most are short; a piece of memory for each would stay behind in the allocator, in the hands of
/// the thread that made it, when another one takes the masks out.
#[derive(Debug)]
enum Text {
    Short(u8, [u8; SHORT_BYTES]),
    Long(Box<[u8]>),
}

impl Text {
    fn new(text: &str) -> Self {
        let mut short = [0; SHORT_BYTES];
        match (short.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(space), Ok(length)) => {
                space.copy_from_slice(text.as_bytes());
                Self::Short(length, short)
            }
            _ => Self::Long(text.as_bytes().into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

#[derive(Debug)]
struct Node {
    parent: u32,
    /// The child behind a one-level wildcard.
    one: u32,
    /// How many children there are behind texts.
    children: u32,
    /// Whose masks end here or below: one member, [`SEVERAL`] or [`NOBODY`]. Several stay several when some leave.
    /// A look-up that has found the only member need not go below: or else one client's masks, a name or a wildcard
    /// on each of 16 levels, would make every publication there visit all 65,536 of them.
    only: u32,
    text: Text,
    /// Who holds the mask that ends here.
    members: Members,
    /// Who holds the mask that goes on here with "all deeper levels".
    deep: Members,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            parent: ROOT,
            one: NONE,
            children: 0,
            only: NOBODY,
            text: Text::Short(0, [0; SHORT_BYTES]),
            members: Members::None,
            deep: Members::None,
        }
    }
}

impl Node {
    const fn is_unused(&self) -> bool {
        self.one == NONE && self.children == 0 && self.members.is_empty() && self.deep.is_empty()
    }
}

/// Where a mask ends: node index, times two, plus one if it ends with "all deeper levels".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place(u32);

impl Place {
    const fn new(node: u32, deep: bool) -> Self {
        Self(node << 1 | deep as u32)
    }

    const fn node(self) -> u32 {
        self.0 >> 1
    }

    const fn is_deep(self) -> bool {
        self.0 & 1 == 1
    }
}

/// Nodes in one piece of memory. Growing by one costs no copy of the others, and it goes with the last of its nodes.
const CHUNK: usize = 1_024;

#[derive(Debug, Default)]
struct Chunk {
    nodes: Vec<Node>,
    /// Places in `nodes` that are not taken.
    free: Vec<u16>,
}

impl Chunk {
    const fn is_full(&self) -> bool {
        self.free.is_empty() && self.nodes.len() == CHUNK
    }
}

/// Nodes by index.
#[derive(Debug, Default)]
struct Nodes {
    chunks: Vec<Chunk>,
    /// Chunks that are not full, each once.
    open: Vec<u32>,
}

impl Nodes {
    fn get(&self, index: u32) -> Option<&Node> {
        self.chunks.get(index as usize / CHUNK)?.nodes.get(index as usize % CHUNK)
    }

    fn get_mut(&mut self, index: u32) -> Option<&mut Node> {
        self.chunks.get_mut(index as usize / CHUNK)?.nodes.get_mut(index as usize % CHUNK)
    }

    /// Returns the index of the new node.
    fn insert(&mut self, node: Node) -> u32 {
        let number = self.open.last().copied().unwrap_or_else(|| {
            let number = u32::try_from(self.chunks.len()).unwrap_or(u32::MAX);
            self.chunks.push(Chunk::default());
            self.open.push(number);
            number
        });
        let Some(chunk) = self.chunks.get_mut(number as usize) else { return NONE };
        let place = chunk.free.pop().map_or(chunk.nodes.len(), usize::from);
        match chunk.nodes.get_mut(place) {
            Some(slot) => *slot = node,
            None => chunk.nodes.push(node),
        }
        if chunk.is_full() {
            self.open.pop();
        }
        u32::try_from(number as usize * CHUNK + place).unwrap_or(NONE)
    }

    fn remove(&mut self, index: u32) {
        let (number, place) = (index as usize / CHUNK, index as usize % CHUNK);
        let Some(chunk) = self.chunks.get_mut(number) else { return };
        if chunk.is_full() {
            self.open.extend(u32::try_from(number));
        }
        if let Some(node) = chunk.nodes.get_mut(place) {
            *node = Node::default();
            chunk.free.extend(u16::try_from(place));
        }
        if chunk.free.len() == chunk.nodes.len() {
            *chunk = Chunk::default();
        }
    }

    /// How many there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.nodes.len() - chunk.free.len()).sum()
    }
}

/// Tables the edges are divided into: one that grows moves this share of them.
const TABLES: usize = 16;

/// The way to a child behind a text. The hash is kept so that a table that grows need not read the nodes.
#[derive(Clone, Copy, Debug)]
struct Edge {
    hash: u32,
    node: u32,
}

impl Edge {
    /// What the table looks at: its upper and its lower bits.
    const fn spread(hash: u32) -> u64 {
        (hash as u64) << 32 | hash as u64
    }
}

/// How a walk goes on from a node.
#[derive(Clone, Copy, Debug)]
enum Step {
    Into,
    Over,
    Stop,
}

/// Masks of one syntax with their members.
#[derive(Debug)]
pub(crate) struct MaskTree {
    syntax: Syntax,
    nodes: Nodes,
    edges: [HashTable<Edge>; TABLES],
    hasher: RandomState,
    /// What nodes and members take.
    bytes: usize,
}

impl MaskTree {
    pub(crate) fn new(syntax: Syntax) -> Self {
        let mut nodes = Nodes::default();
        nodes.insert(Node::default());
        let edges = std::array::from_fn(|_| HashTable::new());
        Self { syntax, nodes, edges, hasher: RandomState::default(), bytes: 0 }
    }

    /// What all masks take, in bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// What a mask takes at the most, in bytes: as if it shared no level with any other.
    pub(crate) fn cost(syntax: Syntax, mask: &str) -> usize {
        let level = |level| match level {
            Level::Deep => 0,
            Level::One => NODE_BYTES,
            Level::Text(text) => NODE_BYTES + text.len(),
        };
        MEMBER_BYTES + syntax.levels(mask).map(level).sum::<usize>()
    }

    fn node(&self, index: u32) -> Option<&Node> {
        self.nodes.get(index)
    }

    fn node_mut(&mut self, index: u32) -> Option<&mut Node> {
        self.nodes.get_mut(index)
    }

    /// The hash of an edge and which table it is in.
    fn edge(&self, parent: u32, text: &[u8]) -> (u32, usize) {
        let hash = self.hasher.hash_one((parent, text));
        let [a, b, c, d, table, ..] = hash.to_le_bytes();
        (u32::from_le_bytes([a, b, c, d]), usize::from(table) % TABLES)
    }

    fn child(&self, parent: u32, text: &str) -> u32 {
        let (hash, table) = self.edge(parent, text.as_bytes());
        let same = |edge: &Edge| {
            edge.hash == hash
                && self
                    .node(edge.node)
                    .is_some_and(|node| node.parent == parent && node.text.bytes() == text.as_bytes())
        };
        let edge = self.edges.get(table).and_then(|table| table.find(Edge::spread(hash), same));
        edge.map_or(NONE, |edge| edge.node)
    }

    fn one(&self, parent: u32) -> u32 {
        self.node(parent).map_or(NONE, |node| node.one)
    }

    /// The node behind this level, made if it is missing.
    fn grow(&mut self, parent: u32, text: Option<&str>) -> u32 {
        let found = text.map_or_else(|| self.one(parent), |text| self.child(parent, text));
        if found != NONE {
            return found;
        }
        let node = Node { parent, text: Text::new(text.unwrap_or_default()), ..Node::default() };
        self.bytes += NODE_BYTES + node.text.bytes().len();
        let index = self.nodes.insert(node);
        if let Some(text) = text {
            let (hash, table) = self.edge(parent, text.as_bytes());
            if let Some(table) = self.edges.get_mut(table) {
                let edge = Edge { hash, node: index };
                table.insert_unique(Edge::spread(hash), edge, |edge| Edge::spread(edge.hash));
            }
        }
        if let Some(parent) = self.node_mut(parent) {
            match text {
                Some(_) => parent.children += 1,
                None => parent.one = index,
            }
        }
        index
    }

    /// Where the mask ends, if every level of it is there.
    pub(crate) fn find(&self, mask: &str) -> Option<Place> {
        let mut at = ROOT;
        for level in self.syntax.levels(mask) {
            at = match level {
                Level::Deep => return Some(Place::new(at, true)),
                Level::One => self.one(at),
                Level::Text(text) => self.child(at, text),
            };
            if at == NONE {
                return None;
            }
        }
        Some(Place::new(at, false))
    }

    /// The mask that ends here. One with levels behind "all deeper levels" comes without those.
    pub(crate) fn mask(&self, place: Place) -> String {
        let mut levels = Vec::new();
        if place.is_deep() {
            levels.push(self.syntax.deep());
        }
        let mut at = place.node();
        while at != ROOT {
            let Some(node) = self.node(at) else { break };
            let text = || str::from_utf8(node.text.bytes()).unwrap_or_default();
            levels.push(if self.one(node.parent) == at { self.syntax.one() } else { text() });
            at = node.parent;
        }
        levels.reverse();
        levels.join(self.syntax.separator().encode_utf8(&mut [0; 4]))
    }

    /// Adds a member to a mask; the place, and whether it is new there.
    pub(crate) fn insert(&mut self, mask: &str, member: u32) -> (Place, bool) {
        let mut at = ROOT;
        let mut deep = false;
        for level in self.syntax.levels(mask) {
            match level {
                Level::Deep => deep = true,
                Level::One => at = self.grow(at, None),
                Level::Text(text) => at = self.grow(at, Some(text)),
            }
            if let Some(node) = self.node_mut(at) {
                node.only = if node.only == NOBODY || node.only == member { member } else { SEVERAL };
            }
        }
        let place = Place::new(at, deep);
        let new = self.members_mut(place).is_some_and(|members| members.insert(member));
        self.bytes += if new { MEMBER_BYTES } else { 0 };
        (place, new)
    }

    fn members_mut(&mut self, place: Place) -> Option<&mut Members> {
        let node = self.node_mut(place.node())?;
        Some(if place.is_deep() { &mut node.deep } else { &mut node.members })
    }

    /// Takes a member out of a place, and nodes out that no mask needs any more. Returns whether it was there, and how
    /// many nodes went.
    pub(crate) fn remove(&mut self, place: Place, member: u32) -> (bool, usize) {
        let mut gone = 0;
        let removed = self.members_mut(place).is_some_and(|members| members.remove(member));
        self.bytes -= if removed { MEMBER_BYTES } else { 0 };
        let mut at = place.node();
        while at != ROOT {
            let Some((parent, (hash, table), text)) =
                self.node(at).filter(|node| node.is_unused()).map(|node| {
                    (node.parent, self.edge(node.parent, node.text.bytes()), node.text.bytes().len())
                })
            else {
                break;
            };
            self.bytes -= NODE_BYTES + text;
            if let Some(table) = self.edges.get_mut(table) {
                if let Ok(edge) = table.find_entry(Edge::spread(hash), |edge| edge.node == at) {
                    edge.remove();
                }
                // The memory of a burst of masks goes with them.
                if table.capacity() > CHUNK && table.len() < table.capacity() / 8 {
                    table.shrink_to(table.len() * 2, |edge| Edge::spread(edge.hash));
                }
            }
            if let Some(parent) = self.node_mut(parent) {
                if parent.one == at {
                    parent.one = NONE;
                } else {
                    parent.children -= 1;
                }
            }
            self.nodes.remove(at);
            gone += 1;
            at = parent;
        }
        (removed, gone)
    }

    /// Calls `each` with every member whose mask matches `text`; one that holds several, perhaps several times.
    /// Returns the nodes visited, a measure of the work done: beyond [`MOST_VISITED`] it gives up.
    pub(crate) fn matches(&self, text: &str, mut each: impl FnMut(u32)) -> usize {
        let mut found = [NOBODY; FOUND];
        let mut count = 0;
        self.walk(text, |node, members| {
            if node.only != NOBODY && found.contains(&node.only) {
                return Step::Over;
            }
            members.for_each(&mut |member| {
                if !found.contains(&member) {
                    if let Some(slot) = found.get_mut(count % FOUND) {
                        *slot = member;
                    }
                    count += 1;
                    each(member);
                }
            });
            Step::Into
        })
    }

    /// True if any mask matches `text`.
    pub(crate) fn any_matches(&self, text: &str) -> bool {
        let mut any = false;
        self.walk(text, |_, members| {
            any = !members.is_empty();
            if any { Step::Stop } else { Step::Into }
        });
        any
    }

    /// Visits the nodes on all ways of `text`, each with the members whose masks match there. Returns how many, and ends
    /// behind [`MOST_VISITED`].
    fn walk(&self, text: &str, mut visit: impl FnMut(&Node, &Members) -> Step) -> usize {
        let mut visited = 0;
        // Into the depth, so that a member is found before all the other ways to it are tried. Most texts have one way,
        // which takes no memory.
        let mut way = Some((ROOT, text.split(self.syntax.separator())));
        let mut others = Vec::new();
        while let Some((at, mut parts)) = way.take().or_else(|| others.pop()) {
            visited += 1;
            let Some(node) = self.node(at) else { continue };
            let part = parts.next();
            let step = visit(node, if part.is_some() { &node.deep } else { &node.members });
            if matches!(step, Step::Stop) || visited > MOST_VISITED {
                break;
            }
            let Some(part) = part.filter(|_| matches!(step, Step::Into)) else { continue };
            let child = if node.children > 0 { self.child(at, part) } else { NONE };
            if node.one != NONE && child != NONE {
                others.push((child, parts.clone()));
            }
            let next = if node.one == NONE { child } else { node.one };
            way = (next != NONE).then_some((next, parts));
        }
        visited
    }

    /// True if everything `mask` can match is matched by some mask of the tree (their union, exactly).
    ///
    /// A wildcard level of `mask` stands for a text no mask of the tree spells out: what covers that, covers
    /// every text. So a wildcard can be covered only by a wildcard, and one walk decides.
    pub(crate) fn includes(&self, mask: &str) -> bool {
        let mut level = vec![ROOT];
        for wanted in self.syntax.levels(mask) {
            if level.iter().any(|at| self.node(*at).is_some_and(|node| !node.deep.is_empty())) {
                return true;
            }
            if wanted == Level::Deep {
                return self.includes_all_below(level);
            }
            let mut next = Vec::new();
            for at in level {
                next.push(self.one(at));
                if let Level::Text(text) = wanted {
                    next.push(self.child(at, text));
                }
            }
            next.retain(|at| *at != NONE);
            level = next;
        }
        level.iter().any(|at| self.node(*at).is_some_and(|node| !node.members.is_empty()))
    }

    /// True if texts of every length below these nodes are matched, whatever their levels say.
    fn includes_all_below(&self, mut level: Vec<u32>) -> bool {
        loop {
            if level.iter().any(|at| self.node(*at).is_some_and(|node| !node.deep.is_empty())) {
                return true;
            }
            level = level.iter().map(|at| self.one(*at)).filter(|at| *at != NONE).collect();
            // Texts exactly one level longer need a mask that ends here.
            if !level.iter().any(|at| self.node(*at).is_some_and(|node| !node.members.is_empty())) {
                return false;
            }
        }
    }

    /// Nodes in use, the root not counted.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.nodes.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every mask of so many levels that are each a name or a wildcard.
    fn lattice(levels: u32) -> impl Iterator<Item = String> {
        (0..1_u32 << levels).map(move |bits| {
            let level = |level: u32| if (bits >> level) & 1 == 1 { "+" } else { "a" };
            (0..levels).map(level).collect::<Vec<_>>().join("/")
        })
    }

    #[test]
    fn what_a_list_of_members_takes_follows_what_it_holds() {
        let mut tree = MaskTree::new(Syntax::Topic);
        let places: Vec<_> = (0..1_000).map(|member| tree.insert("a", member).0).collect();
        for (member, place) in places.iter().enumerate().skip(20) {
            assert!(tree.remove(*place, u32::try_from(member).unwrap()).0);
        }
        let place = places[0];
        match tree.members_mut(place) {
            Some(Members::Many(set)) => {
                assert!(set.len() == 20 && set.capacity() < 8 * 20, "{}", set.capacity());
            }
            other => panic!("{other:?}"),
        }
        for member in 1..20 {
            assert!(tree.remove(place, member).0);
        }
        assert!(matches!(tree.members_mut(place), Some(Members::One(0))));
        assert!(!tree.remove(place, 7).0 && tree.remove(place, 0).0);
        assert_eq!(tree.bytes(), 0);
    }

    #[test]
    fn texts_of_any_length_are_kept_as_they_are() {
        assert_eq!(size_of::<Text>(), 24);
        let mut tree = MaskTree::new(Syntax::Topic);
        let lengths = [2, 3, SHORT_BYTES - 1, SHORT_BYTES, SHORT_BYTES + 1, 255, 256, 300, 4_000];
        let texts = lengths.map(|length| format!("\u{e4}{}", "x".repeat(length - 2)));
        let places: Vec<_> = texts.iter().map(|text| tree.insert(text, 1)).collect();
        for (text, (place, new)) in texts.iter().zip(places) {
            assert!(new && tree.find(text) == Some(place), "{} bytes", text.len());
            assert_eq!(tree.mask(place), *text);
            assert!(tree.remove(place, 1).0);
        }
        assert_eq!(tree.bytes(), 0);
    }

    #[test]
    fn c13_a_lattice_of_one_member_is_left_as_soon_as_it_is_found() {
        let mut tree = MaskTree::new(Syntax::Topic);
        for (mask, member) in [("#", 1), ("a/#", 2), ("a/a/+/#", 3)] {
            tree.insert(mask, member);
        }
        let masks = lattice(16).inspect(|mask| _ = tree.insert(mask, 7)).count();
        assert_eq!(masks, 65_536);
        let topic = ["a"; 16].join("/");
        let mut found = Vec::new();
        let visited = tree.matches(&topic, |member| found.push(member));
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3, 7]);
        println!("C13: {masks} masks of one client that all match: {visited} nodes visited");
        assert!(visited < 64, "{visited}");
        assert_eq!(tree.matches(&["b"; 16].join("/"), |_| {}), 17, "nodes on the way alone");
    }

    #[test]
    fn c13_what_several_hold_is_looked_at_as_a_whole() {
        // Each of more members than a look-up remembers holds a part of the lattice; nobody is left out.
        for members in [2, FOUND, FOUND + 1, 50] {
            let mut tree = MaskTree::new(Syntax::Topic);
            for (number, mask) in lattice(14).enumerate() {
                tree.insert(&mask, u32::try_from(number % members).unwrap());
            }
            let mut found = Vec::new();
            let visited = tree.matches(&["a"; 14].join("/"), |member| found.push(member));
            found.sort_unstable();
            found.dedup();
            assert_eq!(found.len(), members);
            assert!(visited < MOST_VISITED, "{visited}");
        }
    }

    #[test]
    fn c13_a_look_up_that_would_not_end_is_given_up() {
        let mut tree = MaskTree::new(Syntax::Topic);
        // Never found, so never left alone: each way ends in a text that the topic has not.
        let masks = lattice(16).inspect(|mask| _ = tree.insert(&format!("{mask}/z"), 7)).count();
        let topic = ["a"; 16].join("/");
        assert_eq!(masks, 65_536);
        assert_eq!(tree.matches(&format!("{topic}/y"), |_| {}), MOST_VISITED + 1);
        assert!(tree.matches(&["a"; 14].join("/"), |_| {}) < MOST_VISITED, "topics of 14 levels are safe");
    }

    #[test]
    fn a_member_that_took_its_masks_back_hides_nobody() {
        let mut tree = MaskTree::new(Syntax::Topic);
        let (place, _) = tree.insert("a/b", 1);
        tree.insert("a/+", 2);
        tree.remove(place, 1);
        tree.insert("a/b", 3);
        tree.insert("+/b", 2);
        let mut found = Vec::new();
        tree.matches("a/b", |member| found.push(member));
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, [2, 3]);
    }

    #[test]
    fn a_mask_is_told_from_its_place() {
        for (syntax, masks) in [
            (
                Syntax::Topic,
                ["", "a", "+", "#", "a/b", "a/+/b", "+/+", "a/#", "/", "//a", "+/x/#", "?", "a.*"],
            ),
            (
                Syntax::Peer,
                ["", "a", "?", "*", "a.b", "a.?.b", "?.?", "a.*", ".", "..a", "?.x.*", "+", "a/#"],
            ),
        ] {
            let mut tree = MaskTree::new(syntax);
            let places = masks.map(|mask| tree.insert(mask, 1).0);
            for (mask, place) in masks.iter().zip(places) {
                assert_eq!(tree.mask(place), *mask);
            }
        }
        let mut tree = MaskTree::new(Syntax::Topic);
        let (place, _) = tree.insert("a/#/b", 1);
        assert_eq!(tree.mask(place), "a/#");
    }

    fn tree(masks: &[&str]) -> MaskTree {
        let mut tree = MaskTree::new(Syntax::Topic);
        for (member, mask) in masks.iter().enumerate() {
            tree.insert(mask, u32::try_from(member).unwrap());
        }
        tree
    }

    fn hits(tree: &MaskTree, topic: &str) -> Vec<u32> {
        let mut hits = Vec::new();
        tree.matches(topic, |member| hits.push(member));
        hits.sort_unstable();
        hits
    }

    #[test]
    fn the_tree_matches_as_each_mask_does() {
        let masks = ["a/b", "a/+", "+", "#", "a/#", "+/#", "a/#/c", "/a", "", "a//b", "+/b/+"];
        let tree = tree(&masks);
        for topic in ["a/b", "a", "", "a/", "/a", "a//b", "a/b/c", ".broker/info", "a/+"] {
            let expected =
                (0..).zip(masks).filter(|(_, mask)| Syntax::Topic.matches(mask, topic)).map(|(i, _)| i);
            assert_eq!(hits(&tree, topic), expected.collect::<Vec<u32>>(), "{topic}");
        }
    }

    #[test]
    fn removal_leaves_nothing_behind() {
        let mut tree = MaskTree::new(Syntax::Topic);
        let masks = ["a/b/c", "a/+/c", "a/#", "#", "a", "x/y/z/+/#", ""];
        for member in [1, 2, 3] {
            for mask in masks {
                assert!(tree.insert(mask, member).1);
                assert!(!tree.insert(mask, member).1, "twice counts once");
            }
        }
        for member in [2, 1, 3] {
            for mask in masks {
                let place = tree.find(mask).unwrap();
                assert!(tree.remove(place, member).0);
                assert!(!tree.find(mask).is_some_and(|place| tree.remove(place, member).0));
            }
        }
        assert_eq!((tree.len(), tree.edges.iter().map(HashTable::len).sum()), (0, 0));
    }

    #[test]
    fn memory_of_a_burst_goes_with_it() {
        let mut tree = MaskTree::new(Syntax::Topic);
        tree.insert("stays", 1);
        let room = |tree: &MaskTree| {
            let nodes: usize = tree.nodes.chunks.iter().map(|chunk| chunk.nodes.capacity()).sum();
            nodes + tree.edges.iter().map(HashTable::capacity).sum::<usize>()
        };
        let mut most = 0;
        for round in 0..3 {
            let places: Vec<_> =
                (0..50_000).map(|number| tree.insert(&format!("{round}/{number}"), 2).0).collect();
            most = most.max(room(&tree));
            assert!(places.iter().all(|place| tree.remove(*place, 2).0));
            assert_eq!(tree.len(), 1);
        }
        assert!(most > 100_000 && room(&tree) < 25_000, "{most}, then {}", room(&tree));
        let mut found = 0;
        tree.matches("stays", |_| found += 1);
        assert_eq!(found, 1);
    }

    #[test]
    fn the_last_node_leaves_the_masks_of_the_root() {
        let mut tree = tree(&["#", "#", "a/b"]);
        for (mask, member, left) in [("a/b", 2, &[0, 1][..]), ("#", 0, &[1]), ("#", 1, &[])] {
            let place = tree.find(mask).unwrap();
            assert!(tree.remove(place, member).0);
            assert_eq!(hits(&tree, "a/b"), left, "without {mask}");
        }
    }

    #[test]
    fn work_is_counted_in_nodes_on_the_way_of_the_topic() {
        let mut tree = MaskTree::new(Syntax::Topic);
        for member in 0..10_000 {
            tree.insert(&format!("other/{member}/x"), member);
        }
        let deep = vec!["a"; 128].join("/");
        tree.insert(&deep, 1);
        assert_eq!(tree.len(), 1 + 20_000 + 128);
        // One node a level, whatever stands beside it, and none below what no mask names.
        assert_eq!(tree.matches(&deep, |_| {}), 129);
        assert_eq!(tree.matches(&"z/".repeat(1_000), |_| {}), 1);
        assert_eq!(tree.matches("other/77/x", |_| {}), 4);
    }

    #[test]
    fn inclusion_is_exact_over_the_union() {
        for (rules, mask, expected) in [
            (&["news/#"][..], "news/#", true),
            (&["news/#"], "news/+", true),
            (&["news/#"], "news/a/b", true),
            (&["news/#"], "news", false),
            (&["news/+"], "news/#", false),
            (&["news/+"], "news/a", true),
            (&["news/a"], "news/+", false),
            (&["+", "+/#"], "#", true),
            (&["+/#"], "#", false),
            (&["+", "+/+", "+/+/#"], "#", true),
            (&["+", "+/+/#"], "#", false),
            (&["a/+", "a/+/+", "a/+/+/#"], "a/#", true),
            (&["a/b", "+/c"], "a/+", false),
            (&["#"], "", true),
            (&[], "a", false),
            (&["a/#/z"], "a/q", true),
        ] {
            assert_eq!(tree(rules).includes(mask), expected, "{rules:?} over {mask}");
        }
    }

    #[test]
    fn deep_masks_cost_no_recursion() {
        let mask = "a/".repeat(200_000);
        let mut tree = MaskTree::new(Syntax::Topic);
        let (place, _) = tree.insert(&mask, 7);
        assert_eq!(tree.find(&mask), Some(place));
        assert_eq!(tree.matches(&mask, |_| {}), MOST_VISITED + 1, "deeper than any topic that is let in");
        assert!(tree.includes(&mask));
        tree.remove(place, 7);
        assert_eq!(tree.len(), 0);
    }
}
