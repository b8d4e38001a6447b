//! What we asked the peer to tell us of: which blocks of a batch it has, or whether it has any of a range.
//!
//! A peer remembers what it was asked, and tells what is new there unasked. So what is of no use any more is
//! taken back, as JavaScript does it (`hypercore/lib/wants.js` 11.37.1, `LocalWants`): a batch when another
//! needs its place, a range when the byte that was sought in it is found.
//!
//! Knows what was asked and when it is taken back. Does not know why it is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use ferrocore_log::bitfield::PAGE_BITS;
use ferrocore_log::supply::SeekId;
use ferrocore_primitives::time::Time;

use crate::limits::{ANY_WANT_TIMEOUT, ANY_WANTS_MAX, INQUIRY_AGAIN_AFTER, WANT_BLOCKS, WANTS_MAX};
use crate::messages::{Message, Want};
use crate::seldom::Seldom;

/// Pages of what is remembered of a peer that one batch is.
const PAGES_OF_BATCH: usize = (WANT_BLOCKS / PAGE_BITS) as usize;

/// What the peer was asked to tell us of. One that was asked nothing takes no memory.
#[derive(Debug, Default)]
pub(super) struct Inquiries(Seldom<Open>);

#[derive(Debug, Default)]
struct Open {
    /// By number.
    batches: BTreeMap<u64, Answer>,
    /// How many of which the answer was forgotten may be asked again by the next [`ask`](Inquiries::ask).
    again: usize,
    /// When more of those that are wanted may be.
    again_at: Option<Time>,
    ranges: Vec<AnyBlock>,
}

/// What became of what the peer says of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It is remembered.
    Known,
    /// There was no memory for all of it.
    Forgotten,
    /// One of us has come to another fork: it was of another history.
    Void,
}

/// A range of which one block, any, is enough: a proof of it shows where the byte is.
#[derive(Debug)]
struct AnyBlock {
    seek: SeekId,
    range: Range<u64>,
    /// Whoever has no block says nothing.
    until: Time,
    /// Whether the peer has said that it has one.
    is_answered: bool,
}

impl Inquiries {
    /// Asks which blocks of these batches the peer has, unless it was asked. Where that are too many, another
    /// batch is taken back for each.
    pub(super) fn ask(&mut self, batches: &BTreeSet<u64>, now: Time) -> Vec<Message> {
        let mut messages = Vec::new();
        for batch in batches {
            let open = self.0.need();
            if !open.may_ask(*batch, now) || !open.make_room(*batch, batches, &mut messages) {
                continue;
            }
            open.batches.insert(*batch, Answer::Known);
            messages.push(Message::Want(whole(*batch)));
        }
        if let Some(open) = self.0.get_mut() {
            open.again = 0;
        }
        messages
    }

    /// What the peer said of `blocks` could not be remembered.
    pub(super) fn forget(&mut self, blocks: &Range<u64>) {
        let touched = blocks.start / WANT_BLOCKS..blocks.end.div_ceil(WANT_BLOCKS);
        let batches = self.0.get_mut().into_iter();
        for (_, answer) in batches.flat_map(|open| open.batches.range_mut(touched.clone())) {
            if *answer == Answer::Known {
                *answer = Answer::Forgotten;
            }
        }
    }

    /// Whether it is time to see if there is room for what was forgotten.
    pub(super) fn is_due_again(&mut self, now: Time) -> bool {
        let open = self.0.get_mut();
        open.is_some_and(|open| open.again_at.take_if(|at| *at <= now).is_some())
    }

    /// Lets the next [`ask`](Self::ask) ask again for what was forgotten, if `pages` can be remembered.
    pub(super) fn allow_again(&mut self, pages: usize) {
        if let Some(open) = self.0.get_mut() {
            open.again = pages.div_ceil(PAGES_OF_BATCH);
        }
    }

    /// Asks whether the peer has any block of `range`, in which a byte is sought. Nothing if it was asked, or
    /// is asked too much.
    pub(super) fn ask_for_any(
        &mut self,
        seek: SeekId,
        range: Range<u64>,
        now: Time,
    ) -> Option<Message> {
        let ranges = &mut self.0.need().ranges;
        if ranges.len() == ANY_WANTS_MAX || ranges.iter().any(|asked| asked.seek == seek) {
            return None;
        }
        let want = any_of(&range);
        ranges.push(AnyBlock {
            seek,
            range,
            until: now + ANY_WANT_TIMEOUT,
            is_answered: false,
        });
        Some(Message::Want(want))
    }

    /// The bytes that may be found now, as the peer has a block near them. Each is named once.
    pub(super) fn answered(&mut self, has_any: impl Fn(Range<u64>) -> bool) -> Vec<SeekId> {
        let ranges = self
            .0
            .get_mut()
            .into_iter()
            .flat_map(|open| &mut open.ranges);
        let news = ranges.filter(|asked| !asked.is_answered && has_any(asked.range.clone()));
        let news = news.map(|asked| {
            asked.is_answered = true;
            asked.seek
        });
        news.collect()
    }

    /// Takes back ranges whose byte is found or sought no more, and those that were not answered in time.
    /// Returns the bytes of these, too: the peer cannot tell.
    pub(super) fn close(
        &mut self,
        is_sought: impl Fn(SeekId) -> bool,
        now: Time,
    ) -> (Vec<Message>, Vec<SeekId>) {
        let Some(open) = self.0.get_mut().filter(|open| !open.ranges.is_empty()) else {
            return Default::default();
        };
        let is_over = |asked: &mut AnyBlock| asked.until <= now || !is_sought(asked.seek);
        let over: Vec<_> = open.ranges.extract_if(.., is_over).collect();
        let unwants = over
            .iter()
            .map(|asked| Message::Unwant(any_of(&asked.range)));
        let unanswered = over.iter().filter(|asked| !asked.is_answered);
        (
            unwants.collect(),
            unanswered.map(|asked| asked.seek).collect(),
        )
    }

    /// The peer or we came to another fork: what it said is void, and so is what it was asked.
    pub(super) fn start_over(&mut self) {
        if let Some(open) = self.0.get_mut() {
            let answers = open.batches.values_mut();
            answers.for_each(|answer| *answer = Answer::Void);
            open.again_at = None;
            open.ranges
                .iter_mut()
                .for_each(|asked| asked.until = Time::ZERO);
        }
    }

    /// When the next range is taken back, or it may be asked again for what was forgotten.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let open = self.0.get()?;
        let ranges = open.ranges.iter().map(|asked| asked.until);
        ranges.chain(open.again_at).min()
    }
}

impl Open {
    /// Whether the peer may be asked of a wanted batch. What was forgotten waits until there is room.
    fn may_ask(&mut self, batch: u64, now: Time) -> bool {
        match self.batches.get(&batch) {
            Some(Answer::Known) => false,
            Some(Answer::Forgotten) if self.again == 0 => {
                self.again_at.get_or_insert(now + INQUIRY_AGAIN_AFTER);
                false
            }
            Some(Answer::Forgotten) => {
                self.again -= 1;
                true
            }
            Some(Answer::Void) | None => true,
        }
    }

    /// Takes back what was asked of `batch` about another history, or a batch that is not among those `wanted` to
    /// have room for it. False if there is none.
    fn make_room(
        &mut self,
        batch: u64,
        wanted: &BTreeSet<u64>,
        messages: &mut Vec<Message>,
    ) -> bool {
        let is_full = self.batches.len() == WANTS_MAX;
        let least = match self.batches.contains_key(&batch) {
            true => batch,
            false if !is_full => return true,
            false => match self.batches.keys().find(|known| !wanted.contains(known)) {
                Some(free) => *free,
                None => return false,
            },
        };
        self.batches.remove(&least);
        messages.push(Message::Unwant(whole(least)));
        true
    }
}

fn whole(batch: u64) -> Want {
    Want {
        start: batch * WANT_BLOCKS,
        length: WANT_BLOCKS,
        any: false,
    }
}

fn any_of(range: &Range<u64>) -> Want {
    Want {
        start: range.start,
        length: range.end - range.start,
        any: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(batches: Range<u64>) -> BTreeSet<u64> {
        batches.collect()
    }

    #[test]
    fn a_batch_is_asked_once_until_its_place_is_needed() {
        let mut inquiries = Inquiries::default();
        let max = WANTS_MAX as u64;
        let mut ask = |batches| inquiries.ask(&set(batches), Time::ZERO);
        assert_eq!(ask(0..max).len(), WANTS_MAX);
        assert_eq!(ask(0..max), []);
        let next = ask(1..max + 1);
        assert_eq!(next, [Message::Unwant(whole(0)), Message::Want(whole(max))]);
        assert_eq!(ask(1..max + 2), [], "all of them are of use");
        let again = ask(0..1);
        assert_eq!(again, [Message::Unwant(whole(1)), Message::Want(whole(0))]);
    }

    #[test]
    fn on_another_fork_a_batch_is_asked_anew_and_counts_once() {
        let mut inquiries = Inquiries::default();
        let ask = |inquiries: &mut Inquiries| inquiries.ask(&set(3..4), Time::ZERO);
        assert_eq!(ask(&mut inquiries), [Message::Want(whole(3))]);
        inquiries.start_over();
        let anew = [Message::Unwant(whole(3)), Message::Want(whole(3))];
        assert_eq!(ask(&mut inquiries), anew);
        assert_eq!(ask(&mut inquiries), []);
    }

    /// Goal: what was forgotten is asked again while it is wanted, no sooner and no more than there is room for.
    #[test]
    fn what_was_forgotten_is_asked_again_as_far_as_there_is_room() {
        let mut inquiries = Inquiries::default();
        let (mut now, wanted) = (Time::ZERO, set(0..4));
        assert_eq!(inquiries.ask(&wanted, now).len(), 4);
        inquiries.forget(&(WANT_BLOCKS - 1..3 * WANT_BLOCKS));
        assert_eq!(inquiries.next_deadline(), None, "until it is wanted");
        assert_eq!(inquiries.ask(&wanted, now), []);
        for pages in [0, 1, PAGES_OF_BATCH + 1] {
            assert!(!inquiries.is_due_again(now));
            now = inquiries.next_deadline().unwrap();
            assert!(inquiries.is_due_again(now));
            inquiries.allow_again(pages);
            let wants = |asked: &Message| matches!(asked, Message::Want(_));
            let again = inquiries.ask(&wanted, now).into_iter().filter(wants);
            let batches = pages.div_ceil(PAGES_OF_BATCH);
            let expected = (0..batches as u64).map(|batch| Message::Want(whole(batch)));
            assert!(again.eq(expected), "{pages} pages");
            inquiries.forget(&(0..u64::MAX));
            assert_eq!(inquiries.ask(&wanted, now), []);
        }
    }
}
