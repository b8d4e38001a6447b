//! One page of a bitfield, in whichever form is smaller: its runs of ones, or all its words.
//!
//! A log that is downloaded or written from the front has one run a page, a sparse one a run for each block
//! that is here; only what is half full of holes takes the page's 4 KiB.

use std::ops::Range;

use super::{PAGE_BITS, PAGE_BYTES};

const WORD_BITS: u64 = 64;
const PAGE_WORDS: usize = PAGE_BYTES / 8;

/// More runs than this are kept as words: they take half as much room.
const RUNS_MAX: usize = 512;

/// The bits of one page.
#[derive(Debug, Clone)]
pub(super) struct Page {
    bits: Bits,
    ones: u64,
}

#[derive(Debug, Clone)]
enum Bits {
    /// In order, none touching the next.
    Runs(Vec<Run>),
    Words(Box<[u64; PAGE_WORDS]>),
}

/// Ones from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u16,
    last: u16,
}

impl Default for Page {
    fn default() -> Self {
        let (bits, ones) = (Bits::Runs(Vec::new()), 0);
        Self { bits, ones }
    }
}

impl Page {
    /// The page with these bytes; what is missing of them is zero.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut words = Box::new([0; PAGE_WORDS]);
        for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
            let mut le = [0; 8];
            le.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            *word = u64::from_le_bytes(le);
        }
        let ones = words.iter().map(|word| u64::from(word.count_ones())).sum();
        let bits = Bits::Words(words);
        let mut page = Self { bits, ones };
        page.shrink();
        page
    }

    pub(super) fn to_bytes(&self) -> [u8; PAGE_BYTES] {
        let mut out = [0; PAGE_BYTES];
        for (chunk, word) in out.chunks_exact_mut(8).zip(self.words().iter()) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// Bytes of memory that it takes beside its own.
    pub(super) fn memory(&self) -> usize {
        match &self.bits {
            Bits::Runs(runs) => runs.capacity() * size_of::<Run>(),
            Bits::Words(_) => PAGE_BYTES,
        }
    }

    /// How many bits are set.
    pub(super) fn ones(&self) -> u64 {
        self.ones
    }

    pub(super) fn get(&self, bit: u64) -> bool {
        match &self.bits {
            Bits::Words(words) => word_at(words, bit) >> (bit % WORD_BITS) & 1 == 1,
            Bits::Runs(runs) => {
                let run = runs.get(runs.partition_point(|run| run.end() <= bit));
                run.is_some_and(|run| run.start() <= bit)
            }
        }
    }

    pub(super) fn fill(&mut self, bits: Range<u64>, value: bool) {
        if bits.is_empty() {
            return;
        }
        match &mut self.bits {
            Bits::Words(words) => {
                for (word, mask) in masks(bits) {
                    let Some(word) = words.get_mut(word) else {
                        break;
                    };
                    let before = u64::from(word.count_ones());
                    *word = if value { *word | mask } else { *word & !mask };
                    self.ones = self.ones - before + u64::from(word.count_ones());
                }
                if self.ones == PAGE_BITS {
                    self.bits = Bits::Runs(vec![Run::of(0..PAGE_BITS)]);
                }
            }
            Bits::Runs(runs) => {
                let (removed, added) = match value {
                    true => join(runs, bits),
                    false => cut(runs, bits),
                };
                self.ones = self.ones - removed + added;
                if runs.len() > RUNS_MAX {
                    self.bits = Bits::Words(self.words());
                }
            }
        }
    }

    pub(super) fn count(&self, bits: Range<u64>) -> u64 {
        match &self.bits {
            Bits::Words(words) => masks(bits)
                .map(|(word, mask)| u64::from((get(words, word) & mask).count_ones()))
                .sum(),
            Bits::Runs(runs) => {
                let from = runs.partition_point(|run| run.end() <= bits.start);
                let within = from_run(runs, from).take_while(|run| run.start() < bits.end);
                within
                    .map(|run| run.end().min(bits.end) - run.start().max(bits.start))
                    .sum()
            }
        }
    }

    /// The last one before `end`.
    pub(super) fn last(&self, end: u64) -> Option<u64> {
        match &self.bits {
            Bits::Words(words) => {
                let hits = masks(0..end).map(|(word, mask)| (word as u64, get(words, word) & mask));
                let (word, bits) = hits.filter(|(_, bits)| *bits != 0).last()?;
                Some(word * WORD_BITS + u64::from(bits.ilog2()))
            }
            Bits::Runs(runs) => {
                let before = runs.partition_point(|run| run.start() < end);
                let run = runs.get(before.checked_sub(1)?)?;
                Some(run.end().min(end) - 1)
            }
        }
    }

    /// The first bit of this value from `from` on.
    pub(super) fn next(&self, from: u64, value: bool) -> Option<u64> {
        match &self.bits {
            Bits::Words(words) => masks(from..PAGE_BITS).find_map(|(word, mask)| {
                let bits = get(words, word) ^ if value { 0 } else { u64::MAX };
                let hits = bits & mask;
                (hits != 0).then(|| word as u64 * WORD_BITS + u64::from(hits.trailing_zeros()))
            }),
            Bits::Runs(runs) => {
                let run = runs.get(runs.partition_point(|run| run.end() <= from));
                let next = match (run, value) {
                    (None, true) => return None,
                    (Some(run), true) => run.start().max(from),
                    (Some(run), false) if run.start() <= from => run.end(),
                    (_, false) => from,
                };
                (next < PAGE_BITS).then_some(next)
            }
        }
    }

    /// The 32 bits from `start` on, a multiple of 32.
    pub(super) fn word32(&self, start: u64) -> u32 {
        match &self.bits {
            Bits::Words(words) => (word_at(words, start) >> (start % WORD_BITS)) as u32,
            Bits::Runs(runs) => {
                let end = start + 32;
                let from = runs.partition_point(|run| run.end() <= start);
                let within = from_run(runs, from).take_while(|run| run.start() < end);
                let ones = within
                    .map(|run| mask(run.start().max(start) - start, run.end().min(end) - start));
                ones.fold(0, |word, mask| word | mask as u32)
            }
        }
    }

    fn words(&self) -> Box<[u64; PAGE_WORDS]> {
        let runs = match &self.bits {
            Bits::Words(words) => return words.clone(),
            Bits::Runs(runs) => runs,
        };
        let mut words = Box::new([0; PAGE_WORDS]);
        for run in runs {
            for (word, mask) in masks(run.start()..run.end()) {
                if let Some(word) = words.get_mut(word) {
                    *word |= mask;
                }
            }
        }
        words
    }

    /// Takes the form of runs if it is the smaller one.
    fn shrink(&mut self) {
        let (mut runs, mut at) = (Vec::new(), 0);
        while let Some(start) = self.next_from(at, true) {
            if runs.len() == RUNS_MAX {
                return;
            }
            at = self.next_from(start, false).unwrap_or(PAGE_BITS);
            runs.push(Run::of(start..at));
        }
        runs.shrink_to_fit();
        self.bits = Bits::Runs(runs);
    }

    fn next_from(&self, from: u64, value: bool) -> Option<u64> {
        (from < PAGE_BITS).then(|| self.next(from, value))?
    }
}

impl Run {
    fn of(bits: Range<u64>) -> Self {
        debug_assert!(
            bits.start < bits.end && bits.end <= PAGE_BITS,
            "bits of a page"
        );
        let (first, last) = (bits.start as u16, (bits.end - 1) as u16);
        Self { first, last }
    }

    fn start(self) -> u64 {
        u64::from(self.first)
    }

    fn end(self) -> u64 {
        u64::from(self.last) + 1
    }
}

/// Adds `bits`, and returns how many bits the runs had that went into the new one, and how many it has.
fn join(runs: &mut Vec<Run>, bits: Range<u64>) -> (u64, u64) {
    let from = runs.partition_point(|run| run.end() < bits.start);
    let to = runs.partition_point(|run| run.start() <= bits.end);
    let touched = runs.get(from..to).unwrap_or_default();
    let removed = touched.iter().map(|run| run.end() - run.start()).sum();
    let start = touched
        .first()
        .map_or(bits.start, |run| run.start().min(bits.start));
    let end = touched
        .last()
        .map_or(bits.end, |run| run.end().max(bits.end));
    runs.splice(from..to, [Run::of(start..end)]);
    (removed, end - start)
}

/// Takes `bits` away, and returns how many bits the runs had that it touched, and how many they have.
fn cut(runs: &mut Vec<Run>, bits: Range<u64>) -> (u64, u64) {
    let from = runs.partition_point(|run| run.end() <= bits.start);
    // As far at least: bits that end where they begin take nothing away.
    let to = from.max(runs.partition_point(|run| run.start() < bits.end));
    let touched = runs.get(from..to).unwrap_or_default();
    let removed = touched.iter().map(|run| run.end() - run.start()).sum();
    let left = touched.first().map(|run| run.start()..bits.start);
    let right = touched.last().map(|run| bits.end..run.end());
    let rests = [left, right].into_iter().flatten();
    let rests: Vec<_> = rests.filter(|rest| !rest.is_empty()).collect();
    let left_over = rests.iter().map(|rest| rest.end - rest.start).sum();
    runs.splice(from..to, rests.into_iter().map(Run::of));
    (removed, left_over)
}

/// A word of a page; zeros behind it.
fn get(words: &[u64; PAGE_WORDS], word: usize) -> u64 {
    words.get(word).copied().unwrap_or_default()
}

/// The word that `bit` is in.
fn word_at(words: &[u64; PAGE_WORDS], bit: u64) -> u64 {
    get(words, (bit / WORD_BITS) as usize)
}

/// The runs from number `from` on.
fn from_run(runs: &[Run], from: usize) -> impl Iterator<Item = &Run> {
    runs.iter().skip(from)
}

/// The words that `bits` of one page touch, each with the mask of its bits.
fn masks(bits: Range<u64>) -> impl Iterator<Item = (usize, u64)> {
    debug_assert!(bits.end <= PAGE_BITS, "bits lie in one page");
    let words = bits.start / WORD_BITS..bits.end.div_ceil(WORD_BITS);
    words.map(move |word| {
        let base = word * WORD_BITS;
        let low = bits.start.saturating_sub(base);
        let high = (bits.end - base).min(WORD_BITS);
        (word as usize, mask(low, high))
    })
}

/// Ones in `low..high` of a word, `low < high <= 64`.
fn mask(low: u64, high: u64) -> u64 {
    (u64::MAX >> (WORD_BITS - (high - low))) << low
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn changes() -> impl Strategy<Value = Vec<(u64, u64, bool)>> {
        let change = (0..PAGE_BITS, 1..900u64, any::<bool>());
        proptest::collection::vec(change, 1..40)
    }

    fn is_runs(page: &Page) -> bool {
        matches!(page.bits, Bits::Runs(_))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Goal: both forms answer alike, whatever was changed before in which of them.
        #[test]
        fn both_forms_agree(changes in changes(), from in 0..PAGE_BITS, length in 1..5000u64) {
            let (mut runs, mut words) = (Page::default(), Page::default());
            words.bits = Bits::Words(words.words());
            for (start, length, value) in changes {
                let range = start..(start + length).min(PAGE_BITS);
                runs.fill(range.clone(), value);
                words.fill(range, value);
            }
            prop_assert!(is_runs(&runs) && !is_runs(&words));
            let range = from..(from + length).min(PAGE_BITS);
            prop_assert_eq!(runs.ones(), words.ones());
            prop_assert_eq!(runs.to_bytes(), words.to_bytes());
            prop_assert_eq!(runs.get(from), words.get(from));
            prop_assert_eq!(runs.count(range.clone()), words.count(range));
            prop_assert_eq!(runs.last(from), words.last(from));
            prop_assert_eq!(runs.next(from, true), words.next(from, true));
            prop_assert_eq!(runs.next(from, false), words.next(from, false));
            let word = from / 32 * 32;
            prop_assert_eq!(runs.word32(word), words.word32(word));
            let read = Page::from_bytes(&words.to_bytes());
            prop_assert!(is_runs(&read));
            prop_assert_eq!((read.ones(), read.to_bytes()), (runs.ones(), runs.to_bytes()));
        }
    }

    /// Goal: a page has the form that takes less, coming and going.
    #[test]
    fn the_form_follows_the_bits() {
        let mut page = Page::default();
        for bit in (0..PAGE_BITS).step_by(2) {
            page.fill(bit..bit + 1, true);
            assert_eq!(is_runs(&page), bit / 2 < RUNS_MAX as u64);
        }
        assert!(!is_runs(&Page::from_bytes(&page.to_bytes())));
        page.fill(0..PAGE_BITS, true);
        assert!(is_runs(&page), "a full page is one run");
        assert_eq!((page.ones(), page.next(0, false)), (PAGE_BITS, None));
        page.fill(5..6, false);
        assert_eq!((page.ones(), page.next(0, false)), (PAGE_BITS - 1, Some(5)));
    }
}
