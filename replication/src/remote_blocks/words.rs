//! The words of a message, 32 blocks each.
//!
//! Knows bits and pages. Does not know whose they are.

use std::iter;
use std::ops::Range;

use ferrocore_log::bitfield::PAGE_BITS;

/// The parts of `words`, which begin at block `start`, that lie in one page each, and where they begin.
pub(super) fn by_page(start: u64, words: &[u32]) -> Vec<(u64, &[u32])> {
    let (mut pages, mut start, mut rest) = (Vec::new(), start, words);
    while !rest.is_empty() {
        let left_of_page = (PAGE_BITS - start % PAGE_BITS) / 32;
        let (words, behind) = rest.split_at(rest.len().min(left_of_page as usize));
        pages.push((start, words));
        start += left_of_page * 32;
        rest = behind;
    }
    pages
}

/// The runs of ones in `words`, in order. A run may come in parts.
pub(super) fn runs(words: &[u32]) -> impl Iterator<Item = Range<u64>> {
    let in_word = |(index, word): (usize, &u32)| {
        let (first, mut rest) = (index as u64 * 32, *word);
        iter::from_fn(move || {
            let start = (rest != 0).then(|| rest.trailing_zeros())?;
            let end = start + (rest >> start).trailing_ones();
            rest &= u32::MAX.checked_shl(end).unwrap_or(0);
            Some(first + u64::from(start)..first + u64::from(end))
        })
    };
    words.iter().enumerate().flat_map(in_word)
}
