//! The peer's questions on one channel that wait for an answer.
//!
//! Knows their order and how to answer one from a core. Does not know when there is room to.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use ferrocore_log::Core;
use ferrocore_log::core::ProveError;
use ferrocore_log::proof::{Proof, ProofRequest};

use ferrocore_mux::limits::FRAME_LEN_MAX;

use crate::limits::SHORT_FRAME_LEN;
use crate::messages::{BitfieldWords, Data, Message, NoData, Reason, Request, Want};
use crate::seldom::Seldom;

/// What is reserved for a proof beside its block, in bytes: a path of 53 nodes, and more.
const ANSWER_OVERHEAD: usize = 16 * 1024;

/// Fewer questions that were taken back are not thrown out before their turn.
const DEAD_MIN: usize = 64;

/// Words of bits that are told at a time: 32 KiB, so that no answer about blocks is a long frame.
const TOLD_WORDS_MAX: usize = 8 * 1024;

const _: () = assert!(4 * TOLD_WORDS_MAX < SHORT_FRAME_LEN);

/// Memory for so many questions is not given back before the last is answered.
const SHRINK_MIN: usize = 64;

/// Whether an answer with a long block may be made. It takes memory from a budget that others share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LongAnswers {
    /// As many as are asked for.
    #[default]
    Unlimited,
    /// None until there is room.
    Limited,
    /// One waits for room of this many bytes. Its channel waits with it, and each that comes to one behind it.
    Waiting(usize),
    /// One of no more than this many bytes, once.
    Granted(usize),
}

impl LongAnswers {
    /// Whether one that is as long as `len` says may be made. Room that was given for one is none for a longer one that
    /// overtakes it.
    pub(crate) fn are_allowed(self, len: impl FnOnce() -> usize) -> bool {
        match self {
            Self::Unlimited => true,
            Self::Granted(room) => len() <= room,
            Self::Limited | Self::Waiting(_) => false,
        }
    }

    /// There is room for the one that waits.
    pub(crate) fn grant(&mut self) {
        if let Self::Waiting(len) = *self {
            *self = Self::Granted(len);
        }
    }

    pub(crate) fn is_waiting(self) -> bool {
        matches!(self, Self::Waiting(_))
    }

    pub(crate) fn is_granted(self) -> bool {
        matches!(self, Self::Granted(_))
    }

    /// The same for another, who may need less.
    pub(crate) fn without_wait(self) -> Self {
        match self {
            Self::Waiting(_) => Self::Limited,
            other => other,
        }
    }

    /// What holds for those who are not the first in line.
    pub(crate) fn of_others(self) -> Self {
        match self {
            Self::Unlimited => Self::Unlimited,
            Self::Limited | Self::Waiting(_) | Self::Granted(_) => Self::Limited,
        }
    }

    /// An answer with a long block was made.
    pub(crate) fn spend(&mut self) {
        if matches!(self, Self::Granted(_)) {
            *self = Self::Limited;
        }
    }
}

/// Questions in the order they will be answered. Once none is left, neither is their memory.
#[derive(Debug, Default)]
pub(crate) struct Uploads(Seldom<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// Requests with a priority above 0.
    urgent: VecDeque<Ticket>,
    /// Everything else.
    queue: VecDeque<Ticket>,
    /// The ticket that counts for each request id; others were cancelled or overwritten.
    live: HashMap<u64, u64>,
    /// How many those are.
    dead: usize,
    next_ticket: u64,
}

#[derive(Debug)]
struct Ticket {
    number: u64,
    question: Question,
}

/// Something to answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// With a proof.
    Request(Request),
    /// With the blocks that are here.
    Want(Want),
}

/// Questions that are answered together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// In order.
    Requests(Vec<Request>),
    Want(Want),
}

impl Uploads {
    /// How many wait, cancelled ones included: they are what the peer made us remember.
    pub(crate) fn len(&self) -> usize {
        self.0.get().map_or(0, Waiting::len)
    }

    /// Bytes of memory that they take.
    pub(crate) fn memory(&self) -> usize {
        self.0.get().map_or(0, Waiting::memory)
    }

    /// Adds a question. A request replaces an earlier one of the same id.
    pub(crate) fn push(&mut self, question: Question) {
        self.0.need().push(question);
    }

    /// Takes a request back.
    pub(crate) fn cancel(&mut self, id: u64) {
        if let Some(waiting) = self.0.get_mut()
            && waiting.live.remove(&id).is_some()
        {
            waiting.bury();
        }
    }

    /// What to answer next: one want, or requests that follow each other, at most `max`.
    pub(crate) fn pop(&mut self, max: usize) -> Option<Turn> {
        let waiting = self.0.get_mut()?;
        let turn = waiting.pop(max);
        if waiting.len() == 0 {
            self.0.clear();
        }
        turn
    }

    /// Puts requests back that were popped last, in their order.
    pub(crate) fn put_back(&mut self, requests: impl DoubleEndedIterator<Item = Request>) {
        for request in requests.rev() {
            self.0.need().put_back(request);
        }
    }

    /// Puts the rest of a want back that was popped last.
    pub(crate) fn put_back_want(&mut self, want: Want) {
        self.0.need().put_back_want(want);
    }
}

impl Waiting {
    fn memory(&self) -> usize {
        let tickets = self.urgent.capacity() + self.queue.capacity();
        // A hash map keeps an eighth of its places free, and a byte for each.
        let places = self.live.capacity() * 8 / 7 * (size_of::<(u64, u64)>() + 1);
        size_of::<Self>() + tickets * size_of::<Ticket>() + places
    }

    fn len(&self) -> usize {
        self.urgent.len() + self.queue.len()
    }

    fn push(&mut self, question: Question) {
        let number = self.next_ticket;
        self.next_ticket += 1;
        let mut is_urgent = false;
        if let Question::Request(request) = &question {
            if self.live.insert(request.id, number).is_some() {
                self.bury();
            }
            is_urgent = request.priority > 0;
        }
        let queue = if is_urgent {
            &mut self.urgent
        } else {
            &mut self.queue
        };
        if queue.capacity() == 0 {
            queue.reserve_exact(1); // there are channels by the thousand on which one is asked
        }
        queue.push_back(Ticket { number, question });
    }

    /// A ticket does not count any more. They are thrown out when there are many.
    fn bury(&mut self) {
        self.dead += 1;
        if self.dead < DEAD_MIN || 8 * self.dead < self.len() {
            return;
        }
        let live = &self.live;
        let counts = |ticket: &Ticket| match &ticket.question {
            Question::Request(request) => live.get(&request.id) == Some(&ticket.number),
            Question::Want(_) => true,
        };
        self.urgent.retain(counts);
        self.queue.retain(counts);
        self.dead = 0;
        self.shrink();
    }

    /// Gives memory back of which most is free.
    fn shrink(&mut self) {
        for queue in [&mut self.urgent, &mut self.queue] {
            if queue.capacity() > SHRINK_MIN && 4 * queue.len() < queue.capacity() {
                queue.shrink_to(2 * queue.len());
            }
        }
        if self.live.capacity() > SHRINK_MIN && 4 * self.live.len() < self.live.capacity() {
            self.live.shrink_to(2 * self.live.len());
        }
    }

    fn pop(&mut self, max: usize) -> Option<Turn> {
        let turn = self.pop_front(max);
        self.shrink();
        turn
    }

    fn pop_front(&mut self, max: usize) -> Option<Turn> {
        let mut requests = Vec::new();
        while requests.len() < max {
            match self.front() {
                Some(Question::Request(_)) => {}
                Some(Question::Want(_)) if requests.is_empty() => {}
                _ => break,
            }
            let ticket = self.urgent.pop_front().or_else(|| self.queue.pop_front())?;
            match ticket.question {
                Question::Want(want) => return Some(Turn::Want(want)),
                Question::Request(request)
                    if self.live.get(&request.id) == Some(&ticket.number) =>
                {
                    self.live.remove(&request.id);
                    requests.push(request);
                }
                Question::Request(_) => self.dead -= 1, // taken back
            }
        }
        (!requests.is_empty()).then_some(Turn::Requests(requests))
    }

    fn put_back(&mut self, request: Request) {
        let number = self.next_ticket;
        self.next_ticket += 1;
        self.dead += usize::from(self.live.insert(request.id, number).is_some());
        let queue = match request.priority {
            0 => &mut self.queue,
            _ => &mut self.urgent,
        };
        let question = Question::Request(request);
        queue.push_front(Ticket { number, question });
    }

    fn put_back_want(&mut self, want: Want) {
        let number = self.next_ticket;
        self.next_ticket += 1;
        let question = Question::Want(want);
        self.queue.push_front(Ticket { number, question });
    }

    fn front(&self) -> Option<&Question> {
        let ticket = self.urgent.front().or_else(|| self.queue.front());
        ticket.map(|ticket| &ticket.question)
    }
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) message: Message,
    /// The request made no sense.
    pub(crate) is_invalid: bool,
}

impl Answer {
    /// Length of the block in it, in bytes.
    pub(crate) fn block_len(&self) -> usize {
        match &self.message {
            Message::Data(data) => data
                .proof
                .block
                .as_ref()
                .map_or(0, |block| block.value.len()),
            _ => 0,
        }
    }
}

/// Answers requests from what `core` has: the first, and more as long as their blocks come to no more than
/// `bytes_max` bytes. None if the first one's block alone is longer and `may_be_long` is not given.
pub(crate) fn answer(
    core: &Core,
    requests: &[Request],
    bytes_max: usize,
    may_be_long: bool,
) -> Vec<Answer> {
    let length = core.length();
    let asked: Vec<_> = requests
        .iter()
        .map(|request| within(&request.proof, length))
        .collect();
    let proofs = match may_be_long {
        true => core.prove_all(&asked, bytes_max),
        false => core.prove_short(&asked, bytes_max),
    };
    let answers = requests.iter().zip(proofs);
    let answers = answers.map(|(request, proof)| answer_with(core, request, proof));
    answers.collect()
}

/// About how long the message that answers `request` with a block will be, in bytes.
pub(crate) fn answer_len(core: &Core, request: &ProofRequest) -> usize {
    let block = request.block;
    let block_len = block.and_then(|block| core.raw_len(block.index));
    let block_len = block_len.and_then(|len| usize::try_from(len).ok());
    let block_len = block_len.unwrap_or(FRAME_LEN_MAX).min(FRAME_LEN_MAX);
    (block_len + ANSWER_OVERHEAD).min(FRAME_LEN_MAX)
}

/// A block past our end is one that we do not have, not nonsense: the peer may know a longer log.
fn within(asked: &ProofRequest, length: u64) -> ProofRequest {
    let is_past_end = asked.block.is_some_and(|block| block.index >= length);
    match is_past_end {
        true => ProofRequest {
            fork: asked.fork,
            manifest: asked.manifest,
            ..ProofRequest::default()
        },
        false => asked.clone(),
    }
}

fn answer_with(core: &Core, request: &Request, proof: Result<Option<Proof>, ProveError>) -> Answer {
    let none = |reason| Answer {
        message: Message::NoData(NoData {
            request: request.id,
            reason,
        }),
        is_invalid: reason == Reason::InvalidRequest,
    };
    match proof {
        Ok(Some(proof)) => Answer {
            message: Message::Data(Data {
                request: request.id,
                proof,
            }),
            is_invalid: false,
        },
        // Of a history that we have left, as the peer will hear or has heard. A reason would count against us:
        // a JavaScript peer turns away for good after 32 of them (`hypercore/lib/replicator.js` 11.37.1,
        // `_onnodata`), and has up to 48 requests in flight.
        Ok(None) if request.proof.fork < core.fork() => none(Reason::None),
        Ok(None) | Err(ProveError::MissingNode { .. }) => none(Reason::NotAvailable),
        Err(ProveError::Invalid(_)) => none(Reason::InvalidRequest),
        Err(error) => {
            tracing::warn!(core = %core.key(), %error, "cannot read what a peer asked for");
            none(Reason::NotAvailable)
        }
    }
}

/// The answer to a want.
#[derive(Debug)]
pub(crate) enum Told {
    /// These are here.
    Run(Range<u64>),
    /// Of these, those whose bits are set are here, and no others.
    Words {
        words: BitfieldWords,
        /// What of the question is not answered by that.
        rest: Option<Want>,
    },
}

/// Answers a want from what `core` has; nothing if it has none of it.
pub(crate) fn tell(core: &Core, want: Want) -> Option<Told> {
    let (length, contiguous) = (core.length(), core.contiguous_length());
    let end = want.start.saturating_add(want.length);
    if end < contiguous || contiguous == length || (want.any && want.start < contiguous) {
        return Some(Told::Run(0..contiguous));
    }
    let end = end.min(length);
    if want.any {
        let first = core
            .with_bitfield(|bits| bits.next_set(want.start))
            .filter(|index| *index < end)?;
        return Some(Told::Run(first..first + 1));
    }
    let start = want.start - want.start % 32;
    let asked = end.saturating_sub(start).div_ceil(32);
    let words = usize::try_from(asked).map_or(TOLD_WORDS_MAX, |words| words.min(TOLD_WORDS_MAX));
    if words == 0 {
        return None;
    }
    let told_to = start + 32 * words as u64;
    let rest = (told_to < end).then(|| Want {
        start: told_to,
        length: end - told_to,
        any: false,
    });
    let words = core.with_bitfield(|bits| bits.words(start, words));
    Some(Told::Words {
        words: BitfieldWords { start, words },
        rest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u64, priority: u64) -> Question {
        Question::Request(Request {
            id,
            proof: ProofRequest::default(),
            priority,
        })
    }

    fn ids_of(turn: Turn) -> Vec<u64> {
        match turn {
            Turn::Requests(requests) => requests.iter().map(|request| request.id).collect(),
            Turn::Want(want) => vec![want.start],
        }
    }

    fn ids(uploads: &mut Uploads) -> Vec<u64> {
        let turns = std::iter::from_fn(|| uploads.pop(1));
        turns.flat_map(ids_of).collect()
    }

    /// Goal: requests are answered together without overtaking, and what found no room goes first
    /// the next time.
    #[test]
    fn requests_are_popped_together_and_put_back_in_order() {
        let mut uploads = Uploads::default();
        (1..=4).for_each(|id| uploads.push(request(id, 0)));
        uploads.push(Question::Want(Want {
            start: 77,
            length: 32,
            any: false,
        }));
        uploads.push(request(5, 0));
        uploads.push(request(6, 1));
        uploads.cancel(2);
        let Some(Turn::Requests(requests)) = uploads.pop(3) else {
            panic!("requests come first");
        };
        assert_eq!(ids_of(Turn::Requests(requests.clone())), [6, 1, 3]);
        uploads.put_back(requests.into_iter().skip(1));
        uploads.cancel(3);
        assert_eq!(uploads.pop(9).map(ids_of), Some(vec![1, 4]));
        assert_eq!(uploads.pop(9).map(ids_of), Some(vec![77]));
        assert_eq!(uploads.pop(9).map(ids_of), Some(vec![5]));
        assert_eq!(uploads.pop(9), None);
        assert!(uploads.0.get().is_none());
    }

    #[test]
    fn urgent_requests_go_first_and_cancelled_ones_not_at_all() {
        let mut uploads = Uploads::default();
        uploads.push(request(1, 0));
        uploads.push(Question::Want(Want {
            start: 77,
            length: 32,
            any: false,
        }));
        uploads.push(request(2, 0));
        uploads.push(request(3, 1));
        uploads.cancel(2);
        assert_eq!(uploads.len(), 4, "what was cancelled still takes memory");
        assert_eq!(ids(&mut uploads), [3, 1, 77]);
        assert_eq!(uploads.len(), 0);
        assert!(uploads.0.get().is_none());
    }

    /// Goal: what is taken back, and what was answered, does not take memory for long.
    #[test]
    fn memory_follows_what_waits() {
        let mut uploads = Uploads::default();
        let one = {
            uploads.push(request(0, 0));
            uploads.memory()
        };
        (1..10_000).for_each(|id| uploads.push(request(id, id % 2)));
        let all = uploads.memory();
        (0..5_000).for_each(|id| uploads.cancel(id));
        assert!(uploads.len() < 6_000, "{} wait", uploads.len());
        (8_000..9_000).for_each(|id| uploads.push(request(id, 0)));
        assert!(uploads.len() < 6_000, "{} wait", uploads.len());
        let mut answered = Vec::new();
        let mut least = all;
        while uploads.len() > 0 {
            assert!(uploads.memory() <= one + 6 * (all / 10_000) * uploads.len().max(SHRINK_MIN));
            least = least.min(uploads.memory());
            answered.extend(uploads.pop(16).map(ids_of).into_iter().flatten());
        }
        assert!(least < all / 20, "{least} of {all}");
        answered.sort_unstable();
        assert!(answered.into_iter().eq(5_000..10_000));
        assert!(uploads.0.get().is_none());
    }

    #[test]
    fn an_id_used_again_replaces_the_older_request() {
        let mut uploads = Uploads::default();
        uploads.push(request(1, 0));
        uploads.push(request(2, 0));
        uploads.push(request(1, 0));
        assert_eq!(ids(&mut uploads), [2, 1]);
        uploads.cancel(1);
        uploads.push(request(1, 0));
        assert_eq!(ids(&mut uploads), [1]);
    }
}
