//! What a peer wants to be told about.
//!
//! Knows ranges, and what they take. Does not know what there is to tell.

use std::ops::Range;

use crate::limits::{REMOTE_WANTS_MAX, WANT_BLOCKS};
use crate::memory::{Memory, Share};
use crate::messages::Want;
use crate::seldom::Seldom;

/// The ranges that a peer wants to be told about.
#[derive(Debug, Default)]
pub(crate) struct RemoteWants(Seldom<Wanted>);

#[derive(Debug, Default)]
struct Wanted {
    wants: Vec<Want>,
    /// What is taken for them, from the first on.
    share: Option<Share>,
    /// Too many ranges: it is told everything.
    all: bool,
}

/// What a want takes, in bytes: a vector that grows may have twice the places it needs.
const WANT_MEMORY: usize = 2 * size_of::<Want>();

impl RemoteWants {
    /// Whether news about `blocks` are wanted.
    pub(crate) fn overlap(&self, blocks: &Range<u64>) -> bool {
        let wanted = self.0.get();
        wanted.is_some_and(|wanted| {
            wanted.all || wanted.wants.iter().any(|want| is_touching(want, blocks))
        })
    }

    /// What was asked about `blocks`; if that is too much to remember, all of them.
    pub(crate) fn touching(&self, blocks: Range<u64>) -> Vec<Want> {
        let Some(wanted) = self.0.get().filter(|_| !blocks.is_empty()) else {
            return Vec::new();
        };
        if wanted.all {
            let batches = blocks.start / WANT_BLOCKS..blocks.end.div_ceil(WANT_BLOCKS);
            let batch = |batch| Want {
                start: batch * WANT_BLOCKS,
                length: WANT_BLOCKS,
                any: false,
            };
            return batches.take(REMOTE_WANTS_MAX).map(batch).collect();
        }
        let wants = wanted.wants.iter();
        wants
            .filter(|want| is_touching(want, &blocks))
            .copied()
            .collect()
    }

    /// Notes a want. False if it is to be ignored: a range of any length may be asked for any one of its blocks,
    /// but not for all of them (`hypercore/lib/wants.js` 11.37.1, `RemoteWants.add`).
    pub(crate) fn add(&mut self, want: Want, memory: &Memory) -> bool {
        if want.length > WANT_BLOCKS && !want.any {
            return false;
        }
        let wanted = self.0.need();
        let share = wanted.share.get_or_insert_with(|| memory.share());
        if wanted.wants.contains(&want) {
            return true;
        }
        if wanted.wants.len() == REMOTE_WANTS_MAX || !share.take(WANT_MEMORY) {
            wanted.all = true;
        } else {
            wanted.wants.push(want);
        }
        true
    }

    /// Forgets a want.
    pub(crate) fn remove(&mut self, want: Want) {
        let Some(wanted) = self.0.get_mut() else {
            return;
        };
        let before = wanted.wants.len();
        wanted.wants.retain(|known| *known != want);
        let gone = before - wanted.wants.len();
        wanted.wants.shrink_to(2 * wanted.wants.len());
        if let Some(share) = &mut wanted.share {
            share.give_back(gone * WANT_MEMORY);
        }
    }
}

fn is_touching(want: &Want, blocks: &Range<u64>) -> bool {
    want.start < blocks.end && blocks.start < want.start.saturating_add(want.length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::PeersMemory;

    #[test]
    fn wants_are_bounded() {
        let want = |start, length| Want {
            start,
            length,
            any: false,
        };
        let memory = Memory::new(0, 1 << 30, &PeersMemory::new(1 << 30)); // more than this needs
        let mut wants = RemoteWants::default();
        assert!(!wants.add(want(0, WANT_BLOCKS + 1), &memory));
        for start in 0..REMOTE_WANTS_MAX as u64 {
            assert!(wants.add(want(start * 32, 32), &memory));
        }
        assert!(!wants.overlap(&(1 << 40..1 << 41)));
        assert!(wants.add(want(1 << 30, 32), &memory));
        assert!(wants.overlap(&(1 << 40..1 << 41)), "it wants everything");
    }

    #[test]
    fn wants_on_many_channels_have_one_budget() {
        let memory = Memory::new(0, 100 * WANT_MEMORY, &PeersMemory::new(1 << 30));
        let want = |start| Want {
            start,
            length: 32,
            any: start % 64 == 0,
        };
        let mut channels: Vec<RemoteWants> = Vec::new();
        channels.resize_with(10, RemoteWants::default);
        for wants in &mut channels {
            (0..60).for_each(|number| assert!(wants.add(want(number * 32), &memory)));
        }
        let remembered = |wants: &RemoteWants| wants.0.get().map_or(0, |known| known.wants.len());
        assert_eq!(channels.iter().map(remembered).sum::<usize>(), 100);
        assert!(!channels[0].overlap(&(1 << 40..1 << 41)));
        assert!(channels[1].overlap(&(1 << 40..1 << 41)), "it is told all");
        // What is taken back makes room for others.
        (0..60).for_each(|number| channels[0].remove(want(number * 32)));
        assert_eq!(remembered(&channels[0]), 0);
        let mut late = RemoteWants::default();
        (0..60).for_each(|number| assert!(late.add(want(number * 32), &memory)));
        assert_eq!(remembered(&late), 60);
        assert!(!late.overlap(&(1 << 40..1 << 41)));
    }
}
