//! Which blocks are here: one bit a block, in pages that exist once a bit is set.
//!
//! Knows bits and runs of bits. Does not know files or the wire, though a page has the layout
//! that both use: little-endian words, bit `i` in byte `i >> 3` under mask `1 << (i & 7)`.

mod page;

use std::collections::BTreeMap;
use std::ops::Range;

use self::page::Page;

/// Bits in one page.
pub const PAGE_BITS: u64 = 32_768;
/// Bytes of one page, on disk and in memory.
pub const PAGE_BYTES: usize = 4096;

/// A sparse bitfield over block indexes.
///
/// Memory is at most 4 KiB for each page of 32,768 blocks that holds a set bit, whatever the indexes; much
/// less for a page whose set bits lie together or are few.
#[derive(Debug, Clone, Default)]
pub struct Bitfield {
    pages: BTreeMap<u64, Page>,
}

impl Bitfield {
    /// An empty bitfield.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the bit of `index` is set.
    pub fn get(&self, index: u64) -> bool {
        self.pages
            .get(&(index / PAGE_BITS))
            .is_some_and(|page| page.get(index % PAGE_BITS))
    }

    /// Sets or clears `range`, in time proportional to the pages it touches.
    pub fn set_range(&mut self, range: Range<u64>, value: bool) {
        let mut start = range.start;
        while start < range.end {
            let number = start / PAGE_BITS;
            let end = range.end.min((number + 1) * PAGE_BITS);
            let within = start % PAGE_BITS..start % PAGE_BITS + (end - start);
            self.set_in_page(number, within, value);
            start = end;
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
        self.set_in_page(number, length % PAGE_BITS..PAGE_BITS, false);
    }

    /// The first set bit at or past `from`.
    pub fn next_set(&self, from: u64) -> Option<u64> {
        let first = from / PAGE_BITS;
        self.pages.range(first..).find_map(|(number, page)| {
            let start = if *number == first {
                from % PAGE_BITS
            } else {
                0
            };
            let bit = page.next(start, true)?;
            Some(number * PAGE_BITS + bit)
        })
    }

    /// The last set bit before `before`.
    pub fn prev_set(&self, before: u64) -> Option<u64> {
        let last = before / PAGE_BITS;
        self.pages.range(..=last).rev().find_map(|(number, page)| {
            let end = if *number == last {
                before % PAGE_BITS
            } else {
                PAGE_BITS
            };
            Some(number * PAGE_BITS + page.last(end)?)
        })
    }

    /// The first clear bit at or past `from`; there always is one.
    pub fn next_unset(&self, from: u64) -> u64 {
        let mut index = from;
        for (number, page) in self.pages.range(from / PAGE_BITS..) {
            if *number != index / PAGE_BITS {
                break;
            }
            if let Some(bit) = page.next(index % PAGE_BITS, false) {
                return number * PAGE_BITS + bit;
            }
            index = (number + 1) * PAGE_BITS;
        }
        index
    }

    /// How many bits of `range` are set.
    pub fn count(&self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let pages = range.start / PAGE_BITS..=(range.end - 1) / PAGE_BITS;
        self.pages
            .range(pages)
            .map(|(number, page)| {
                let base = number * PAGE_BITS;
                let start = range.start.saturating_sub(base);
                let end = (range.end - base).min(PAGE_BITS);
                page.count(start..end)
            })
            .sum()
    }

    /// Takes over a page read from a file; `bytes` past [`PAGE_BYTES`] are ignored.
    pub fn load_page(&mut self, number: u64, bytes: &[u8]) {
        let page = Page::from_bytes(bytes);
        if page.ones() > 0 {
            self.pages.insert(number, page);
        }
    }

    /// The bytes of page `number`, all zero if no bit of it is set.
    pub fn page_bytes(&self, number: u64) -> [u8; PAGE_BYTES] {
        let page = self.pages.get(&number);
        page.map_or([0; PAGE_BYTES], Page::to_bytes)
    }

    /// The bits from `start` (a multiple of 32) as `words` little-endian 32-bit words.
    pub fn words(&self, start: u64, words: usize) -> Vec<u32> {
        (0..words as u64)
            .map(|i| self.word32(start + i * 32))
            .collect()
    }

    fn word32(&self, start: u64) -> u32 {
        let page = self.pages.get(&(start / PAGE_BITS));
        page.map_or(0, |page| page.word32(start % PAGE_BITS))
    }

    fn set_in_page(&mut self, number: u64, within: Range<u64>, value: bool) {
        if value {
            self.pages.entry(number).or_default().fill(within, true);
        } else if let Some(page) = self.pages.get_mut(&number) {
            page.fill(within, false);
            if page.ones() == 0 {
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
