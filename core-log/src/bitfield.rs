//! Which blocks are here: one bit a block, in pages that exist once a bit is set.
//!
//! Knows bits and runs of bits. Does not know files or the wire, though a page has the layout
//! that both use: little-endian words, bit `i` in byte `i >> 3` under mask `1 << (i & 7)`.

mod page;
mod unread;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use self::page::Page;
use self::unread::Unread;
use crate::storage::StorageError;

pub use unread::PageSource;

/// Bits in one page.
pub const PAGE_BITS: u64 = 32_768;
/// Bytes of one page, on disk and in memory.
pub const PAGE_BYTES: usize = 4096;
/// What a page takes in memory beside its bits, in bytes: its place in a tree, a count.
const PAGE_OVERHEAD: usize = 96;
/// Most bytes of memory that a page takes.
pub const PAGE_MEMORY_MAX: usize = PAGE_BYTES + PAGE_OVERHEAD;

/// A sparse bitfield over block indexes.
///
/// Memory is at most 4 KiB for each page of 32,768 blocks that holds a set bit, whatever the indexes; much
/// less for a page whose set bits lie together or are few. Of a [lazy](Self::lazy) one, it is that for the
/// pages that were changed, and a bounded number of others. Pages are shared with clones until they change.
#[derive(Debug, Clone, Default)]
pub struct Bitfield {
    /// Pages that were changed or loaded, also those that became empty if the source has them.
    pages: BTreeMap<u64, Arc<Page>>,
    /// Where the others are.
    unread: Option<Arc<Unread>>,
    /// Pages from here on are not in the source, or were dropped.
    unread_end: u64,
    /// Bits before this are set.
    front: u64,
}

impl Bitfield {
    /// An empty bitfield.
    pub fn new() -> Self {
        Self::default()
    }

    /// A bitfield whose first `pages` pages are in `source`, and are read when somebody looks at them. Of the
    /// first `front` bits it is known that they are set.
    ///
    /// Each page is taken as it is there when it is first needed. Whoever changes it there must have changed
    /// it in this bitfield, or in a clone of it, before.
    pub fn lazy(source: Box<dyn PageSource>, pages: u64, front: u64) -> Self {
        Self {
            pages: BTreeMap::new(),
            unread: Some(Arc::new(Unread::new(source))),
            unread_end: pages,
            front,
        }
    }

    /// Whether the bit of `index` is set.
    pub fn get(&self, index: u64) -> bool {
        if index < self.front {
            return true; // also where nobody has read the page yet
        }
        let page = self.page(index / PAGE_BITS);
        page.is_some_and(|page| page.get(index % PAGE_BITS))
    }

    /// Sets or clears `range`, in time proportional to the pages it touches; to clear, those that have bits.
    pub fn set_range(&mut self, range: Range<u64>, value: bool) {
        if range.is_empty() {
            return;
        }
        let pages = range.start / PAGE_BITS..=(range.end - 1) / PAGE_BITS;
        let mut number = *pages.start();
        while pages.contains(&number) {
            let base = number * PAGE_BITS;
            let within = range.start.saturating_sub(base)..(range.end - base).min(PAGE_BITS);
            self.set_in_page(number, within, value);
            number = match value {
                true => number + 1,
                false => self.next_page(number + 1).unwrap_or(u64::MAX),
            };
        }
        if !value {
            self.lower_front(range.start);
        } else if range.contains(&self.front) {
            self.front = range.end;
        }
    }

    /// Sets one bit.
    pub fn set(&mut self, index: u64) {
        self.set_range(index..index + 1, true);
    }

    /// Clears every bit at and past `length`.
    pub fn truncate(&mut self, length: u64) {
        let number = length / PAGE_BITS;
        self.pages.split_off(&(number + 1));
        self.unread_end = self.unread_end.min(number + 1);
        self.set_in_page(number, length % PAGE_BITS..PAGE_BITS, false);
        self.front = self.front.min(length);
    }

    /// The first set bit at or past `from`.
    pub fn next_set(&self, from: u64) -> Option<u64> {
        let mut start = from % PAGE_BITS;
        let mut number = Some(from / PAGE_BITS);
        while let Some(at) = number {
            let page = self.page(at);
            if let Some(bit) = page.and_then(|page| page.next(start, true)) {
                return Some(at * PAGE_BITS + bit);
            }
            (number, start) = (self.next_page(at + 1), 0);
        }
        None
    }

    /// The last set bit before `before`.
    pub fn prev_set(&self, before: u64) -> Option<u64> {
        let mut end = before % PAGE_BITS;
        let mut number = Some(before / PAGE_BITS);
        while let Some(at) = number {
            let page = self.page(at);
            if let Some(bit) = page.and_then(|page| page.last(end)) {
                return Some(at * PAGE_BITS + bit);
            }
            (number, end) = (self.prev_page(at), PAGE_BITS);
        }
        None
    }

    /// The first clear bit at or past `from`; there always is one.
    pub fn next_unset(&self, from: u64) -> u64 {
        let mut index = from.max(self.front);
        while let Some(page) = self.page(index / PAGE_BITS) {
            let base = index - index % PAGE_BITS;
            match page.next(index % PAGE_BITS, false) {
                Some(bit) => return base + bit,
                None => index = base + PAGE_BITS,
            }
        }
        index
    }

    /// The first clear bit, found faster the next time.
    pub(crate) fn advance_front(&mut self) -> u64 {
        self.front = self.next_unset(0);
        self.front
    }

    /// Forgets that the bits from `from` on are known to be set.
    pub(crate) fn lower_front(&mut self, from: u64) {
        self.front = self.front.min(from);
    }

    /// How many bits of `range` are set.
    pub fn count(&self, range: Range<u64>) -> u64 {
        let (mut count, mut number) = (0, self.next_page(range.start / PAGE_BITS));
        while let Some(at) = number.filter(|number| number * PAGE_BITS < range.end) {
            let base = at * PAGE_BITS;
            let start = range.start.saturating_sub(base);
            let end = (range.end - base).min(PAGE_BITS);
            let page = self.page(at).filter(|_| start < end);
            count += page.map_or(0, |page| page.count(start..end));
            number = self.next_page(at + 1);
        }
        count
    }

    /// Takes over a page read from a file; `bytes` past [`PAGE_BYTES`] are ignored.
    pub fn load_page(&mut self, number: u64, bytes: &[u8]) {
        let page = Page::from_bytes(bytes);
        if page.ones() > 0 {
            self.pages.insert(number, Arc::new(page));
        }
    }

    /// Bytes of memory that page `number` takes, about: 0 if it is not in memory, at most [`PAGE_MEMORY_MAX`].
    pub fn page_memory(&self, number: u64) -> usize {
        let page = self.pages.get(&number);
        page.map_or(0, |page| PAGE_OVERHEAD + page.memory())
    }

    /// The bytes of page `number`, all zero if no bit of it is set.
    pub fn page_bytes(&self, number: u64) -> [u8; PAGE_BYTES] {
        let page = self.page(number);
        page.map_or([0; PAGE_BYTES], |page| page.to_bytes())
    }

    /// The bits from `start` (a multiple of 32) as `words` little-endian 32-bit words.
    pub fn words(&self, start: u64, words: usize) -> Vec<u32> {
        let (mut number, mut page) = (start / PAGE_BITS, self.page(start / PAGE_BITS));
        let starts = (0..words as u64).map(|word| start + word * 32);
        let word = starts.map(|start| {
            if start / PAGE_BITS != number {
                number = start / PAGE_BITS;
                page = self.page(number);
            }
            let page = page.as_ref();
            page.map_or(0, |page| page.word32(start % PAGE_BITS))
        });
        word.collect()
    }

    /// Reads the pages that hold `range`, so that changing it cannot fail.
    ///
    /// # Errors
    /// [`StorageError`] if one cannot be read.
    pub(crate) fn load(&mut self, range: Range<u64>) -> Result<(), StorageError> {
        let Some(unread) = self.unread.clone().filter(|_| !range.is_empty()) else {
            return Ok(());
        };
        let end = ((range.end - 1) / PAGE_BITS + 1).min(self.unread_end);
        let mut number = range.start / PAGE_BITS;
        while let Some(at) = unread.try_next(number, end)? {
            if let Entry::Vacant(slot) = self.pages.entry(at) {
                slot.insert(unread.pin(at)?);
            }
            number = at + 1;
        }
        Ok(())
    }

    fn page(&self, number: u64) -> Option<Arc<Page>> {
        let page = self.pages.get(&number).cloned();
        page.or_else(|| self.source_of(number)?.page(number))
    }

    /// The first page from `from` on that may have bits.
    fn next_page(&self, from: u64) -> Option<u64> {
        let here = self.pages.range(from..).next().map(|(number, _)| *number);
        let unread = self.source_of(from);
        let there = unread.and_then(|unread| unread.next(from, self.unread_end));
        here.into_iter().chain(there).min()
    }

    /// The last page before `before` that may have bits.
    fn prev_page(&self, before: u64) -> Option<u64> {
        let here = self.pages.range(..before).next_back();
        let unread = self.unread.as_ref();
        let there = unread.and_then(|unread| unread.prev(before.min(self.unread_end)));
        here.map(|(number, _)| *number).max(there)
    }

    /// What may have page `number` if it is not here.
    fn source_of(&self, number: u64) -> Option<&Unread> {
        self.unread.as_deref().filter(|_| number < self.unread_end)
    }

    fn set_in_page(&mut self, number: u64, within: Range<u64>, value: bool) {
        let is_in_source = self.source_of(number).is_some();
        if !self.pages.contains_key(&number)
            && let Some(unread) = self.source_of(number)
        {
            let page = unread.pinned_or_blank(number);
            self.pages.insert(number, page);
        }
        if value {
            Arc::make_mut(self.pages.entry(number).or_default()).fill(within, true);
        } else if let Some(page) = self.pages.get_mut(&number) {
            let page = Arc::make_mut(page);
            page.fill(within, false);
            if page.ones() == 0 && !is_in_source {
                self.pages.remove(&number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const SPAN: u64 = 3 * PAGE_BITS;

    fn operations() -> impl Strategy<Value = Vec<(u64, u64, bool)>> {
        let operation = (0..SPAN, 0..SPAN / 2, any::<bool>());
        proptest::collection::vec(operation, 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Goal: every question has the answer a plain set of indexes gives.
        #[test]
        fn equals_a_set(operations in operations(), from in 0..SPAN, cut in 0..SPAN) {
            let mut bits = Bitfield::new();
            let mut set = BTreeSet::new();
            for (start, length, value) in operations {
                bits.set_range(start..start + length, value);
                for index in start..start + length {
                    if value { set.insert(index); } else { set.remove(&index); }
                }
            }
            prop_assert_eq!(bits.next_set(from), set.range(from..).next().copied());
            prop_assert_eq!(bits.prev_set(from), set.range(..from).next_back().copied());
            let unset = (from..).find(|index| !set.contains(index));
            prop_assert_eq!(Some(bits.next_unset(from)), unset);
            prop_assert_eq!(bits.count(from..SPAN), set.range(from..SPAN).count() as u64);
            let aligned = from / 32 * 32;
            let word = bits.words(aligned, 1)[0];
            for bit in 0..32 {
                prop_assert_eq!(word >> bit & 1 == 1, set.contains(&(aligned + bit)));
            }
            bits.truncate(cut);
            prop_assert_eq!(bits.next_set(cut), None);
            prop_assert_eq!(bits.count(0..SPAN), set.range(..cut).count() as u64);
        }
    }

    /// One page that its owner writes.
    struct Written(Arc<std::sync::Mutex<[u8; PAGE_BYTES]>>);

    impl PageSource for Written {
        fn read_page(&self, number: u64) -> Result<Box<[u8; PAGE_BYTES]>, StorageError> {
            let page = *self.0.lock().unwrap();
            Ok(Box::new(if number == 0 {
                page
            } else {
                [0xff; PAGE_BYTES]
            }))
        }

        fn next_page(&self, from: u64) -> Result<Option<u64>, StorageError> {
            Ok(Some(from))
        }

        fn fail(&self, error: StorageError) {
            panic!("{error}");
        }
    }

    /// Goal: who has not seen a change has the page as it was when its source has it as it is, however many
    /// others were read since.
    #[test]
    fn a_page_stays_what_it_was_for_who_has_not_seen_its_change() {
        let page = Arc::new(std::sync::Mutex::new([0xff; PAGE_BYTES]));
        let mut owner = Bitfield::lazy(Box::new(Written(Arc::clone(&page))), 2_000, 0);
        let other = owner.clone();
        owner.load(0..1).unwrap();
        owner.set_range(5..9, false);
        assert!((1..2_000).all(|number| other.get(number * PAGE_BITS)));
        *page.lock().unwrap() = owner.page_bytes(0);
        assert!(!owner.get(5) && other.get(5));
        assert_eq!(
            (owner.next_unset(0), other.next_unset(0)),
            (5, 2_000 * PAGE_BITS)
        );
    }

    /// Pages in memory, of which some cannot be read.
    #[derive(Default)]
    struct Source {
        pages: BTreeMap<u64, [u8; PAGE_BYTES]>,
        broken: Option<u64>,
        reads: Arc<AtomicUsize>,
        failed: Arc<AtomicUsize>,
    }

    impl Source {
        fn full(pages: u64) -> Self {
            let pages = (0..pages).map(|number| (number, [0xff; PAGE_BYTES]));
            Self {
                pages: pages.collect(),
                ..Self::default()
            }
        }
    }

    impl PageSource for Source {
        fn read_page(&self, number: u64) -> Result<Box<[u8; PAGE_BYTES]>, StorageError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            if self.broken == Some(number) {
                let core = ferrocore_primitives::keys::DiscoveryKey::from([0; 32]);
                return Err(StorageError::Poisoned { core });
            }
            let page = self.pages.get(&number).copied();
            Ok(Box::new(page.unwrap_or([0; PAGE_BYTES])))
        }

        fn next_page(&self, from: u64) -> Result<Option<u64>, StorageError> {
            Ok(self.pages.range(from..).next().map(|(number, _)| *number))
        }

        fn fail(&self, _: StorageError) {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The bits of `from`, all in a source.
    fn lazy(from: &Bitfield) -> Bitfield {
        let mut source = Source::default();
        let mut number = from.next_page(0);
        while let Some(at) = number {
            source.pages.insert(at, from.page_bytes(at));
            number = from.next_page(at + 1);
        }
        let end = source.pages.last_key_value().map_or(0, |(at, _)| at + 1);
        Bitfield::lazy(Box::new(source), end, from.next_unset(0))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Goal: whether pages are here or read when they are needed, all answers are the same, before and
        /// after changes; and a clone does not see them.
        #[test]
        fn unread_pages_answer_alike(
            before in operations(), after in operations(), from in 0..SPAN, cut in 0..SPAN,
        ) {
            let mut eager = Bitfield::new();
            for (start, length, value) in before {
                eager.set_range(start..start + length, value);
            }
            let (clone, mut lazy) = (lazy(&eager), lazy(&eager));
            let kept = lazy.clone();
            let same = |lazy: &Bitfield, eager: &Bitfield| -> Result<(), TestCaseError> {
                prop_assert_eq!(lazy.get(from), eager.get(from));
                prop_assert_eq!(lazy.next_set(from), eager.next_set(from));
                prop_assert_eq!(lazy.prev_set(from), eager.prev_set(from));
                prop_assert_eq!(lazy.next_unset(from), eager.next_unset(from));
                prop_assert_eq!(lazy.next_unset(0), eager.next_unset(0));
                prop_assert_eq!(lazy.count(from / 2..from), eager.count(from / 2..from));
                prop_assert_eq!(lazy.words(from / 32 * 32, 2000), eager.words(from / 32 * 32, 2000));
                Ok(())
            };
            same(&clone, &eager)?;
            let unchanged = eager.clone();
            for (start, length, value) in after {
                for bits in [&mut lazy, &mut eager] {
                    bits.set_range(start..start + length, value);
                }
            }
            same(&lazy, &eager)?;
            same(&kept, &unchanged)?;
            lazy.truncate(cut);
            eager.truncate(cut);
            same(&lazy, &eager)?;
            prop_assert_eq!(lazy.advance_front(), eager.advance_front());
        }
    }

    #[test]
    fn only_pages_that_are_looked_at_are_read_and_once() {
        let source = Source::full(40);
        let reads = Arc::clone(&source.reads);
        let mut bits = Bitfield::lazy(Box::new(source), 40, 39 * PAGE_BITS);
        assert_eq!(bits.next_unset(0), 40 * PAGE_BITS);
        assert!(bits.get(7 * PAGE_BITS) && bits.get(8 * PAGE_BITS - 1));
        bits.set(40 * PAGE_BITS);
        assert_eq!(bits.next_unset(0), 40 * PAGE_BITS + 1);
        assert_eq!(
            reads.load(Ordering::Relaxed),
            1,
            "before the last it is known"
        );
        assert!(bits.get(39 * PAGE_BITS + 7));
        assert_eq!(reads.load(Ordering::Relaxed), 1);
        assert_eq!(bits.count(0..u64::MAX), 40 * PAGE_BITS + 1);
        assert_eq!(reads.load(Ordering::Relaxed), 40);
    }

    /// Goal: a page that cannot be read has no bits, and its owner knows why.
    #[test]
    fn a_page_that_cannot_be_read_is_told() {
        let mut source = Source::full(3);
        source.broken = Some(1);
        let failed = Arc::clone(&source.failed);
        let mut bits = Bitfield::lazy(Box::new(source), 3, 0);
        assert!(bits.get(0));
        assert_eq!(failed.load(Ordering::Relaxed), 0);
        assert!(!bits.get(PAGE_BITS));
        assert_eq!(failed.load(Ordering::Relaxed), 1);
        assert!(bits.load(0..PAGE_BITS).is_ok());
        assert!(bits.load(0..PAGE_BITS + 1).is_err());
    }

    #[test]
    fn pages_survive_their_bytes() {
        let mut bits = Bitfield::new();
        bits.set_range(PAGE_BITS + 3..PAGE_BITS + 70, true);
        let mut copy = Bitfield::new();
        copy.load_page(1, &bits.page_bytes(1));
        assert_eq!(copy.next_set(0), Some(PAGE_BITS + 3));
        assert_eq!(copy.next_unset(PAGE_BITS + 3), PAGE_BITS + 70);
        assert_eq!(bits.page_bytes(1)[0], 0b1111_1000);
    }

    #[test]
    fn an_emptied_page_is_freed() {
        let mut bits = Bitfield::new();
        bits.set(1 << 40);
        bits.set_range(0..1 << 20, false);
        bits.set_range(1 << 40..(1 << 40) + 1, false);
        assert!(bits.pages.is_empty());
    }
}
