//! Names by number, so that a name crosses the boundary as text once and not with each message.
//!
//! Each direction has a table of its own with a fixed number of places. The side that sends chooses the place and
//! announces it with a record in front of the first one that uses it; the oldest name gives way to a new one.

use crate::record::{ArenaWriter, Full, InHead, kind};
use hashbrown::HashMap;
use std::sync::Arc;

/// Places of a table. JavaScript's table has as many.
pub(crate) const PLACES: u16 = 16_384;
/// Places of names too long to be kept, announced each time: one for each field of a record.
const PASSING: u16 = 2;
/// Longest name that is kept, in bytes, which bounds a table to 4 MiB.
const KEPT_BYTES: usize = 256;

/// Numbers for the names Rust sends.
#[derive(Debug)]
pub(crate) struct NamesToJs {
    numbers: HashMap<Arc<str>, u16, foldhash::fast::RandomState>,
    names: Vec<Arc<str>>,
    next: u16,
    /// The last names of both fields: most records repeat them.
    last: [(Arc<str>, u16); PASSING as usize],
    /// How often a place was given to another name: what was remembered before does not stand any more.
    evictions: u64,
}

/// The names of the last frame a link received with a sender alone, and of the last one with a topic, as they lie in
/// its body. Each link has its own: two that answer each other hear of one sender each.
#[derive(Debug, Default)]
pub(crate) struct Heads([Head; 2]);

/// The names in front of a frame's payload with their NULs, which were checked, and their numbers at that time. Without
/// bytes it is none.
#[derive(Debug, Default)]
struct Head {
    bytes: Vec<u8>,
    evictions: u64,
    numbers: (u16, u16),
}

/// Which of the remembered heads a frame has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadKind {
    Sender,
    SenderAndTopic,
}

impl NamesToJs {
    pub(crate) fn new() -> Self {
        let none = || (Arc::from(""), u16::MAX);
        Self { numbers: HashMap::default(), names: Vec::new(), next: 0, last: [none(), none()], evictions: 0 }
    }

    /// The number of a name, announced in front of it if it is new. `field` is 0 or 1: which name of the record.
    #[inline]
    pub(crate) fn number(
        &mut self,
        field: usize,
        name: &str,
        writer: &mut ArenaWriter<'_>,
    ) -> Result<u16, Full> {
        if let Some((last, number)) = self.last.get(field)
            && **last == *name
            && *number != u16::MAX
        {
            return Ok(*number);
        }
        self.look_up(field, name, writer)
    }

    /// As [`NamesToJs::number`] of bytes that may be no UTF-8; `None` if they are not.
    #[inline]
    pub(crate) fn number_of_bytes(
        &mut self,
        field: usize,
        name: &[u8],
        writer: &mut ArenaWriter<'_>,
    ) -> Result<Option<u16>, Full> {
        if let Some((last, number)) = self.last.get(field)
            && last.as_bytes() == name
            && *number != u16::MAX
        {
            return Ok(Some(*number));
        }
        str::from_utf8(name).ok().map(|name| self.look_up(field, name, writer)).transpose()
    }

    /// The numbers of both names of a record.
    #[inline]
    pub(crate) fn pair(
        &mut self,
        first: &str,
        second: &str,
        writer: &mut ArenaWriter<'_>,
    ) -> Result<(u16, u16), Full> {
        let mut number = self.number(0, first, writer)?;
        let other = self.number(1, second, writer)?;
        if other == number && first != second {
            // A new second name took the oldest place, which was the first's: that gets the next one.
            number = self.number(0, first, writer)?;
        }
        Ok((number, other))
    }

    /// If a body begins with the same names as the last one of this kind: their numbers, and the payload behind them.
    /// It saves finding, checking and comparing each.
    #[inline]
    pub(crate) fn same_head<'a>(
        &self,
        heads: &Heads,
        kind: HeadKind,
        body: &'a [u8],
    ) -> Option<((u16, u16), &'a [u8])> {
        let [sender, both] = &heads.0;
        let head = if kind == HeadKind::Sender { sender } else { both };
        if head.bytes.is_empty() || head.evictions != self.evictions {
            return None;
        }
        Some((head.numbers, body.strip_prefix(&head.bytes[..])?))
    }

    /// Remembers the names in front of the payload of a body that was read, with the numbers they have.
    pub(crate) fn remember_head(&self, heads: &mut Heads, kind: HeadKind, names: &[u8], numbers: (u16, u16)) {
        let [sender, both] = &mut heads.0;
        let head = if kind == HeadKind::Sender { sender } else { both };
        head.bytes.clear();
        // Names that are announced each time have no number to remember; nor has the place of a topic that is not there.
        if numbers.0 >= PASSING && (kind == HeadKind::Sender || numbers.1 >= PASSING) {
            head.bytes.extend_from_slice(names);
            (head.numbers, head.evictions) = (numbers, self.evictions);
        }
    }

    fn look_up(&mut self, field: usize, name: &str, writer: &mut ArenaWriter<'_>) -> Result<u16, Full> {
        if name.len() > KEPT_BYTES {
            let number = u16::try_from(field).unwrap_or_default().min(PASSING.saturating_sub(1));
            announce(number, name, writer)?;
            return Ok(number);
        }
        let (kept, number) = match self.numbers.get_key_value(name) {
            Some((kept, number)) => (Arc::clone(kept), *number),
            None => self.add(name, writer)?,
        };
        if let Some(last) = self.last.get_mut(field) {
            *last = (kept, number);
        }
        Ok(number)
    }

    fn add(&mut self, name: &str, writer: &mut ArenaWriter<'_>) -> Result<(Arc<str>, u16), Full> {
        let number = PASSING.saturating_add(self.next);
        announce(number, name, writer)?;
        let name: Arc<str> = Arc::from(name);
        let place = usize::from(self.next);
        if let Some(oldest) = self.names.get_mut(place) {
            let oldest = std::mem::replace(oldest, Arc::clone(&name));
            self.numbers.remove(&oldest);
            self.evictions = self.evictions.wrapping_add(1);
            for last in &mut self.last {
                if last.1 == number {
                    last.1 = u16::MAX;
                }
            }
        } else {
            self.names.push(Arc::clone(&name));
        }
        self.numbers.insert(Arc::clone(&name), number);
        self.next = self.next.saturating_add(1);
        if self.next >= PLACES.saturating_sub(PASSING) {
            self.next = 0;
        }
        Ok((name, number))
    }
}

fn announce(number: u16, name: &str, writer: &mut ArenaWriter<'_>) -> Result<(), Full> {
    writer.put(InHead { kind: kind::NAME, first: number, ..InHead::default() }, name.as_bytes())
}

/// The names JavaScript sent, by number.
#[derive(Debug, Default)]
pub(crate) struct NamesFromJs {
    names: Vec<Box<str>>,
}

impl NamesFromJs {
    /// Sets a name; false if the number is out of range or the bytes are not UTF-8.
    pub(crate) fn set(&mut self, number: u16, bytes: &[u8]) -> bool {
        let Ok(name) = str::from_utf8(bytes) else { return false };
        let place = usize::from(number);
        if number >= PLACES {
            return false;
        }
        if place >= self.names.len() {
            self.names.resize_with(place.saturating_add(1), Box::default);
        }
        let Some(slot) = self.names.get_mut(place) else { return false };
        *slot = name.into();
        true
    }

    pub(crate) fn get(&self, number: u16) -> &str {
        self.names.get(usize::from(number)).map_or("", |name| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{Record, records};

    /// Numbers names one after the other and returns what was announced.
    fn announced(table: &mut NamesToJs, names: &[&str]) -> Vec<(u16, String)> {
        let mut arena = vec![0; 1 << 20];
        let mut writer = ArenaWriter::new(&mut arena, 0);
        for name in names {
            table.number(0, name, &mut writer).unwrap();
        }
        let end = writer.position();
        let text = |record: &Record| String::from_utf8(record.payload.clone()).unwrap();
        records(&arena[..end]).iter().map(|record| (record.head.first, text(record))).collect()
    }

    #[test]
    fn a_name_is_announced_once() {
        let mut table = NamesToJs::new();
        let told = announced(&mut table, &["a", "b", "a", "b", "b", "a"]);
        assert_eq!(told, [(2, "a".to_owned()), (3, "b".to_owned())]);
        assert!(announced(&mut table, &["b", "a"]).is_empty());
    }

    #[test]
    fn a_long_name_is_announced_each_time() {
        let long = "x".repeat(KEPT_BYTES + 1);
        let mut table = NamesToJs::new();
        let told = announced(&mut table, &[&long, &long]);
        assert_eq!(told.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 0]);
        assert!(table.numbers.is_empty());
    }

    #[test]
    fn the_oldest_gives_way_and_numbers_always_mean_what_was_announced_last() {
        let mut table = NamesToJs::new();
        let mut known = vec![String::new(); usize::from(PLACES)];
        let mut arena = vec![0; 1 << 10];
        // Walks over more names than there are places, coming back to some of them.
        for step in 0..3 * usize::from(PLACES) {
            let name = format!("n{}", if step % 7 == 0 { step / 7 } else { step });
            let mut writer = ArenaWriter::new(&mut arena, 0);
            let number = table.number(step % 2, &name, &mut writer).unwrap();
            let end = writer.position();
            for record in records(&arena[..end]) {
                known[usize::from(record.head.first)] = String::from_utf8(record.payload).unwrap();
            }
            assert_eq!(known[usize::from(number)], name, "step {step}");
        }
        assert_eq!(table.numbers.len(), usize::from(PLACES - PASSING));
    }

    #[test]
    fn both_names_of_a_record_keep_their_numbers() {
        let mut table = NamesToJs::new();
        let mut known = vec![String::new(); usize::from(PLACES)];
        let mut arena = vec![0; 1 << 10];
        // The first name is the oldest each time the places are used up.
        for step in 0..3 * usize::from(PLACES) {
            let second = format!("n{step}");
            let mut writer = ArenaWriter::new(&mut arena, 0);
            let (first, other) = table.pair("first", &second, &mut writer).unwrap();
            let end = writer.position();
            for record in records(&arena[..end]) {
                known[usize::from(record.head.first)] = String::from_utf8(record.payload).unwrap();
            }
            assert_eq!((&*known[usize::from(first)], &known[usize::from(other)]), ("first", &second));
        }
    }

    #[test]
    fn a_head_is_known_byte_for_byte_and_as_long_as_its_numbers_stand() {
        let (mut table, mut heads) = (NamesToJs::new(), Heads::default());
        let mut arena = vec![0; 1 << 20];
        let mut writer = ArenaWriter::new(&mut arena, 0);
        let numbers = table.pair("s", "t", &mut writer).unwrap();
        assert_eq!(table.same_head(&heads, HeadKind::SenderAndTopic, b"s\0t\0"), None);
        table.remember_head(&mut heads, HeadKind::SenderAndTopic, b"s\0t\0", numbers);
        table.remember_head(&mut heads, HeadKind::Sender, b"s\0", (numbers.0, 0));
        let known = |body| table.same_head(&heads, HeadKind::SenderAndTopic, body);
        assert_eq!(known(b"s\0t\0payload"), Some((numbers, &b"payload"[..])));
        assert_eq!(known(b"s\0t\0"), Some((numbers, &b""[..])));
        for other in [&b"s\0t"[..], b"s\0tt\0payload", b"ss\0t\0", b"\0s\0t\0", b""] {
            assert_eq!(known(other), None);
        }
        assert_eq!(table.same_head(&heads, HeadKind::Sender, b"s\0t\0"), Some(((numbers.0, 0), &b"t\0"[..])));
        for step in 0..usize::from(PLACES - PASSING) - 1 {
            table.number(1, &format!("n{step}"), &mut writer).unwrap();
        }
        assert_eq!(
            table.same_head(&heads, HeadKind::Sender, b"s\0"),
            None,
            "its place was the first to be taken"
        );
        assert_eq!(table.same_head(&heads, HeadKind::SenderAndTopic, b"s\0t\0"), None);
    }

    #[test]
    fn a_head_with_a_long_name_is_not_remembered() {
        let (mut table, mut heads) = (NamesToJs::new(), Heads::default());
        let mut arena = vec![0; 1 << 12];
        let mut writer = ArenaWriter::new(&mut arena, 0);
        let long = "x".repeat(KEPT_BYTES + 1);
        for (first, second, known) in [("s", &*long, false), (&*long, "t", false), ("s", "t", true)] {
            let numbers = table.pair(first, second, &mut writer).unwrap();
            let names = format!("{first}\0{second}\0");
            table.remember_head(&mut heads, HeadKind::SenderAndTopic, names.as_bytes(), numbers);
            assert_eq!(table.same_head(&heads, HeadKind::SenderAndTopic, names.as_bytes()).is_some(), known);
        }
    }

    #[test]
    fn a_name_that_found_no_room_is_announced_later() {
        let mut table = NamesToJs::new();
        let mut arena = vec![0; 8];
        assert!(table.number(0, "a", &mut ArenaWriter::new(&mut arena, 0)).is_err());
        assert_eq!(announced(&mut table, &["a"]), [(2, "a".to_owned())]);
    }

    #[test]
    fn names_from_javascript_are_checked() {
        let mut names = NamesFromJs::default();
        assert!(names.set(7, "é".as_bytes()));
        assert!(!names.set(8, b"\xff"));
        assert!(!names.set(PLACES, b"x"));
        assert_eq!((names.get(7), names.get(8), names.get(u16::MAX)), ("é", "", ""));
        assert!(names.set(7, b"b"));
        assert_eq!(names.get(7), "b");
    }
}
