//! Our requests in flight on one channel: their ids, when they are overdue.
//!
//! Knows bookkeeping. Does not know what is wanted or whether an answer holds, nor how many requests a peer
//! is fit for: that is [`Pace`]'s.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ferrocore_log::proof::Proof;
use ferrocore_log::supply::SeekId;
use ferrocore_primitives::time::Time;

use crate::connection::Arriving;
use crate::limits::{REQUEST_TIMEOUT, REQUEST_TIMEOUT_LONG, REQUEST_TIMEOUT_TOTAL};
use crate::pace::{Mark, Pace};
use crate::promises::Path;
use crate::seldom::Seldom;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A block along this path.
    Block(Path),
    /// Where a byte is, by way of the leaf at this tree index.
    Seek(SeekId, u64),
    /// A longer log.
    Upgrade,
    /// The log of another fork, from its start.
    Fork,
    /// A node of such a log, by tree index.
    Node(u64),
    /// The log of our fork, from its start: whether it is the one that is here, and signed.
    Whole,
}

/// A request in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    pub(crate) fork: u64,
    pub(crate) asked: Asked,
    sent: Mark,
}

impl Pending {
    /// The path of the block, if one was asked for.
    pub(crate) fn path(&self) -> Option<Path> {
        match self.asked {
            Asked::Block(path) => Some(path),
            Asked::Seek(..) | Asked::Upgrade | Asked::Fork | Asked::Node(_) | Asked::Whole => None,
        }
    }

    /// Whether a longer or another log was asked for.
    fn is_for_head(&self) -> bool {
        matches!(
            self.asked,
            Asked::Upgrade | Asked::Fork | Asked::Node(_) | Asked::Whole
        )
    }

    /// Whether `proof` has the parts that were asked for and no others.
    pub(crate) fn is_answered_by(&self, proof: &Proof) -> bool {
        let block = proof.block.as_ref().map(|block| block.index);
        let node = proof.hash.as_ref().map(|hash| hash.index);
        let upgrade = proof.upgrade.as_ref().map(|upgrade| upgrade.start);
        let has_what_was_asked = match self.asked {
            Asked::Block(path) => (block, node, upgrade) == (Some(path.block), None, None),
            Asked::Seek(_, leaf) => (block, node, upgrade) == (None, Some(leaf), None),
            Asked::Upgrade => block.is_none() && node.is_none() && upgrade.is_some(),
            Asked::Fork | Asked::Whole => (block, node, upgrade) == (None, None, Some(0)),
            Asked::Node(index) => (block, node, upgrade) == (None, Some(index), None),
        };
        // The leaf's path may hold all there is to say about the byte.
        let may_seek = matches!(self.asked, Asked::Seek(..));
        self.fork == proof.fork && (may_seek || proof.seek.is_none()) && has_what_was_asked
    }
}

/// The requests in flight. One that never asked for anything takes no memory for them.
#[derive(Debug, Default)]
pub(crate) struct Requests(Seldom<Ledger>);

/// All there is to know once something was asked for.
#[derive(Debug, Default)]
struct Ledger {
    /// By id, which grows and is never used again: a late answer cannot be taken for another's.
    pending: BTreeMap<u64, Pending>,
    last_id: u64,
    /// How many are for a longer or another log: those are asked one at a time.
    heads: usize,
    pace: Pace,
    last_answer: Time,
    /// What came on the connection that is no answer yet.
    arriving: Arriving,
    /// All requests before this one that can be late are.
    late_from: u64,
    /// All requests for blocks before this one have taken longer than [`REQUEST_TIMEOUT_TOTAL`].
    drawn_out_from: u64,
    /// Requests, by id, for what another peer may be asked for, or has been, too.
    contested: BTreeSet<u64>,
}

impl Requests {
    /// How many are in flight.
    pub(crate) fn len(&self) -> usize {
        self.ledger().map_or(0, |ledger| ledger.pending.len())
    }

    /// Whether one of them asks for a longer or another log.
    pub(crate) fn is_upgrading(&self) -> bool {
        self.ledger().is_some_and(|ledger| ledger.heads > 0)
    }

    /// Whether the block of one of them is being got from another peer, too, or may be.
    pub(crate) fn is_contested(&self) -> bool {
        self.ledger()
            .is_some_and(|ledger| !ledger.contested.is_empty())
    }

    /// Forgets all of them: their answers mean nothing any more.
    pub(crate) fn forget(&mut self) {
        self.take_all();
    }

    /// Takes out all of them, as [`forget`](Self::forget) does.
    pub(crate) fn take_all(&mut self) -> Vec<Pending> {
        let Some(ledger) = self.0.get_mut() else {
            return Vec::new();
        };
        ledger.contested.clear();
        ledger.heads = 0;
        std::mem::take(&mut ledger.pending).into_values().collect()
    }

    /// How fast the peer answers.
    pub(crate) fn pace(&self) -> &Pace {
        static UNKNOWN: Pace = Pace::unknown();
        self.ledger().map_or(&UNKNOWN, |ledger| &ledger.pace)
    }

    /// How many more may be sent for blocks of `mean_block` bytes.
    pub(crate) fn room(&self, mean_block: u64) -> usize {
        self.pace().room(self.len(), mean_block)
    }

    /// Notes a request and returns its id.
    pub(crate) fn insert(&mut self, fork: u64, asked: Asked, now: Time) -> u64 {
        self.0.need().insert(fork, asked, now)
    }

    /// Takes out the request that an answer is to.
    pub(crate) fn answered(&mut self, id: u64, now: Time) -> Option<Pending> {
        self.0.get_mut()?.answered(id, now)
    }

    /// The requests for blocks that have become late, contested ones among them: from now on all are.
    pub(crate) fn late(&mut self, now: Time) -> Vec<Path> {
        let ledger = self.0.get_mut();
        ledger.map_or_else(Vec::new, |ledger| ledger.late(now))
    }

    /// The requests for blocks that have come to take longer than anything does but long blocks on slow lines.
    pub(crate) fn drawn_out(&mut self, now: Time) -> Vec<Path> {
        let ledger = self.0.get_mut();
        ledger.map_or_else(Vec::new, |ledger| ledger.drawn_out(now))
    }

    /// Says that the block of a request is being got from another peer, too.
    pub(crate) fn contest(&mut self, id: u64) {
        if let Some(ledger) = self.0.get_mut() {
            ledger.contest(id);
        }
    }

    /// Takes out the contested requests whose blocks `is_here`. The window shrinks: a peer that is
    /// overtaken is asked for less, and not expected to be soon.
    pub(crate) fn overtaken(
        &mut self,
        is_here: impl Fn(u64) -> bool,
        now: Time,
    ) -> Vec<(u64, Pending)> {
        let ledger = self.0.get_mut();
        ledger.map_or_else(Vec::new, |ledger| ledger.overtaken(is_here, now))
    }

    /// Takes out the requests for `blocks`, which are in order, but for those on whose answers others rest, and those that
    /// `is_awaited` by answers that are here.
    pub(crate) fn unwanted(
        &mut self,
        blocks: &[u64],
        is_awaited: impl Fn(Path) -> bool,
    ) -> Vec<(u64, Pending)> {
        let ledger = self.0.get_mut();
        ledger.map_or_else(Vec::new, |ledger| ledger.unwanted(blocks, is_awaited))
    }

    /// Takes out the requests that are overdue, with their ids, and halves the window if any is. None is for as long as what is
    /// `arriving` may be its answer, or stand before it.
    pub(crate) fn overdue(&mut self, arriving: Arriving, now: Time) -> Vec<(u64, Pending)> {
        let Some(ledger) = self.0.get_mut() else {
            return Vec::new();
        };
        ledger.arriving = arriving;
        ledger.overdue(now)
    }

    /// When the next request will be overdue or late, at the earliest: ids are in order of sending.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.ledger()?.next_deadline()
    }

    fn ledger(&self) -> Option<&Ledger> {
        self.0.get()
    }
}

impl Ledger {
    fn insert(&mut self, fork: u64, asked: Asked, now: Time) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        let pending = Pending {
            fork,
            asked,
            sent: self.pace.sent(self.pending.len() + 1, now),
        };
        self.heads += usize::from(pending.is_for_head());
        self.pending.insert(id, pending);
        id
    }

    fn answered(&mut self, id: u64, now: Time) -> Option<Pending> {
        let pending = self.remove(id)?;
        self.last_answer = now;
        self.pace
            .answered(pending.sent, pending.path().is_some(), now);
        Some(pending)
    }

    fn late(&mut self, now: Time) -> Vec<Path> {
        let after = self.pace.late_after();
        let mut late = Vec::new();
        for (id, pending) in self.pending.range(self.late_from..) {
            let Some(path) = pending.path() else {
                continue;
            };
            if pending.sent.at() + after > now {
                break;
            }
            self.late_from = *id + 1;
            self.contested.insert(*id);
            late.push(path);
        }
        late
    }

    fn drawn_out(&mut self, now: Time) -> Vec<Path> {
        let from = self.drawn_out_from;
        let is_drawn_out = |pending: &Pending| pending.sent.at() + REQUEST_TIMEOUT_TOTAL <= now;
        let drawn_out = self.pending.range(from..);
        let drawn_out = drawn_out.take_while(|(_, pending)| is_drawn_out(pending));
        let mut paths = Vec::new();
        for (id, pending) in drawn_out {
            self.drawn_out_from = *id + 1;
            paths.extend(pending.path());
        }
        paths
    }

    fn contest(&mut self, id: u64) {
        if self.pending.contains_key(&id) {
            self.contested.insert(id);
        }
    }

    fn overtaken(&mut self, is_here: impl Fn(u64) -> bool, now: Time) -> Vec<(u64, Pending)> {
        let is_overtaken = |id: &&u64| {
            let path = self.pending.get(id).and_then(Pending::path);
            path.is_some_and(|path| is_here(path.block))
        };
        let ids: Vec<u64> = self
            .contested
            .iter()
            .filter(is_overtaken)
            .copied()
            .collect();
        if !ids.is_empty() {
            self.pace.slow_down(now);
        }
        ids.into_iter()
            .filter_map(|id| Some((id, self.remove(id)?)))
            .collect()
    }

    fn unwanted(
        &mut self,
        blocks: &[u64],
        is_awaited: impl Fn(Path) -> bool,
    ) -> Vec<(u64, Pending)> {
        let is_unwanted = |path: Path| blocks.binary_search(&path.block).is_ok();
        let paths = || {
            self.pending
                .iter()
                .filter_map(|(id, p)| Some((*id, p.path()?)))
        };
        let (unwanted, wanted): (Vec<_>, Vec<_>) =
            paths().partition(|(_, path)| is_unwanted(*path));
        let anchors = wanted.iter().filter_map(|(_, path)| path.promised_anchor);
        let mut needed: HashSet<u64> = anchors.collect();
        let mut ids = Vec::new();
        // An answer rests on one that was asked for before it.
        for (id, path) in unwanted.into_iter().rev() {
            match is_awaited(path) || path.nodes().any(|node| needed.contains(&node)) {
                true => needed.extend(path.promised_anchor),
                false => ids.push(id),
            }
        }
        ids.into_iter()
            .filter_map(|id| Some((id, self.remove(id)?)))
            .collect()
    }

    fn overdue(&mut self, now: Time) -> Vec<(u64, Pending)> {
        let is_overdue = |pending: &Pending| self.deadline(pending) <= now;
        let ids: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, p)| is_overdue(p))
            .map(|(id, _)| *id)
            .collect();
        if !ids.is_empty() {
            self.pace.slow_down(now);
        }
        ids.into_iter()
            .filter_map(|id| Some((id, self.remove(id)?)))
            .collect()
    }

    fn next_deadline(&self) -> Option<Time> {
        let overdue = self.pending.values().next().map(|p| self.deadline(p));
        let mut punctual = self.pending.range(self.late_from..).map(|(_, p)| p);
        let late = punctual.find(|pending| pending.path().is_some());
        let late = late.map(|pending| pending.sent.at() + self.pace.late_after());
        overdue.into_iter().chain(late).min()
    }

    fn deadline(&self, pending: &Pending) -> Time {
        let sent = pending.sent.at();
        let quiet_since = sent.max(self.last_answer).max(self.arriving.any);
        let total = sent + REQUEST_TIMEOUT_TOTAL;
        let total = match pending.path() {
            // Others are asked for it meanwhile.
            Some(_) => {
                let long = self.arriving.long + REQUEST_TIMEOUT;
                long.min(sent + REQUEST_TIMEOUT_LONG).max(total)
            }
            None => total,
        };
        (quiet_since + REQUEST_TIMEOUT).min(total)
    }

    fn remove(&mut self, id: u64) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        self.contested.remove(&id);
        self.heads -= usize::from(pending.is_for_head());
        Some(pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// No frame took longer than a read.
    const NOTHING: Arriving = Arriving {
        any: Time::ZERO,
        long: Time::ZERO,
    };

    fn seconds(count: u64) -> Time {
        Time::ZERO + Duration::from_secs(count)
    }

    #[test]
    fn a_request_is_overdue_when_the_peer_falls_silent() {
        let mut requests = Requests::default();
        let ids: Vec<u64> = (0..2)
            .map(|_| requests.insert(0, Asked::Upgrade, Time::ZERO))
            .collect();
        assert!(requests.answered(ids[1], seconds(20)).is_some());
        assert!(
            requests.overdue(NOTHING, seconds(40)).is_empty(),
            "it answered at 20"
        );
        assert_eq!(requests.next_deadline(), Some(seconds(50)));
        let overdue = requests.overdue(NOTHING, seconds(50));
        assert_eq!(overdue.len(), 1);
        assert_eq!(overdue[0].0, ids[0]);
        assert!(requests.answered(ids[0], seconds(51)).is_none(), "too late");
    }

    #[test]
    fn a_request_that_others_pass_by_is_overdue_in_the_end() {
        let mut requests = Requests::default();
        requests.insert(0, Asked::Upgrade, Time::ZERO);
        for second in 0..REQUEST_TIMEOUT_TOTAL.as_secs() {
            let id = requests.insert(0, Asked::Upgrade, seconds(second));
            requests.answered(id, seconds(second));
            assert!(requests.overdue(NOTHING, seconds(second)).is_empty());
        }
        assert_eq!(
            requests
                .overdue(NOTHING, Time::ZERO + REQUEST_TIMEOUT_TOTAL)
                .len(),
            1
        );
    }

    #[test]
    fn a_request_is_drawn_out_once() {
        let mut requests = Requests::default();
        let block = |block| {
            Asked::Block(Path {
                block,
                levels: 0,
                promised_anchor: None,
            })
        };
        requests.insert(0, block(7), Time::ZERO);
        requests.insert(0, Asked::Upgrade, seconds(1));
        requests.insert(0, block(8), seconds(2));
        let drawn_out = |requests: &mut Requests, after: u64| {
            let paths =
                requests.drawn_out(Time::ZERO + REQUEST_TIMEOUT_TOTAL + Duration::from_secs(after));
            paths.iter().map(|path| path.block).collect::<Vec<_>>()
        };
        assert!(
            requests
                .drawn_out(seconds(REQUEST_TIMEOUT_TOTAL.as_secs() - 1))
                .is_empty()
        );
        assert_eq!(drawn_out(&mut requests, 0), [7]);
        assert!(drawn_out(&mut requests, 1).is_empty());
        assert_eq!(drawn_out(&mut requests, 2), [8]);
        assert!(drawn_out(&mut requests, 3).is_empty());
    }

    /// Goal: nobody who sends without a pause is taken for silent, nor waited for without end. Method: a request that is never
    /// answered, while short frames, or long ones, arrive until a moment.
    #[test]
    fn what_is_arriving_puts_off_the_end_of_a_request() {
        let total = REQUEST_TIMEOUT_TOTAL.as_secs();
        let long_total = REQUEST_TIMEOUT_LONG.as_secs();
        let block = Asked::Block(Path {
            block: 0,
            levels: 0,
            promised_anchor: None,
        });
        let cases = [
            (block, false, 20, 50),
            (block, false, total - 1, total),
            (block, true, 20, 50),
            (block, true, total - 1, total + 29),
            (block, true, 2 * total, 2 * total + 30),
            (block, true, 2 * long_total, long_total),
            (Asked::Upgrade, true, 20, 50),
            (Asked::Upgrade, true, 2 * total, total),
        ];
        for (asked, is_long, until, ends) in cases {
            let mut requests = Requests::default();
            requests.insert(0, asked, Time::ZERO);
            let mut at = 0;
            let ended = loop {
                let any = seconds(at.min(until));
                let long = if is_long { any } else { Time::ZERO };
                if !requests
                    .overdue(Arriving { any, long }, seconds(at))
                    .is_empty()
                {
                    break at;
                }
                requests.late(seconds(at));
                let next = requests.next_deadline().unwrap();
                at = next.saturating_since(Time::ZERO).as_secs();
            };
            assert_eq!(ended, ends, "{asked:?}, long: {is_long}, until {until}");
        }
    }
}
