//! The peer's questions on one channel that wait for an answer.
//!
//! Knows their order and how to answer one from a core. Does not know when there is room to.

use std::collections::{HashMap, VecDeque};

use ferrocore_log::Core;
use ferrocore_log::core::ProveError;
use ferrocore_log::proof::ProofRequest;

use crate::messages::{BitfieldWords, Data, Message, NoData, Range, Reason, Request, Want};

/// Questions in the order they will be answered.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    /// Requests with a priority above 0.
    urgent: VecDeque<Ticket>,
    /// Everything else.
    queue: VecDeque<Ticket>,
    /// The ticket that counts for each request id; others were cancelled or overwritten.
    live: HashMap<u64, u64>,
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

impl Uploads {
    /// How many wait, cancelled ones included: they are what the peer made us remember.
    pub(crate) fn len(&self) -> usize {
        self.urgent.len() + self.queue.len()
    }

    /// Adds a question. A request replaces an earlier one of the same id.
    pub(crate) fn push(&mut self, question: Question) {
        let number = self.next_ticket;
        self.next_ticket += 1;
        let mut is_urgent = false;
        if let Question::Request(request) = &question {
            self.live.insert(request.id, number);
            is_urgent = request.priority > 0;
        }
        let queue = if is_urgent {
            &mut self.urgent
        } else {
            &mut self.queue
        };
        queue.push_back(Ticket { number, question });
    }

    /// Takes a request back.
    pub(crate) fn cancel(&mut self, id: u64) {
        self.live.remove(&id);
    }

    /// The next question to answer.
    pub(crate) fn pop(&mut self) -> Option<Question> {
        loop {
            let ticket = self.urgent.pop_front().or_else(|| self.queue.pop_front())?;
            let Question::Request(request) = &ticket.question else {
                return Some(ticket.question);
            };
            if self.live.get(&request.id) == Some(&ticket.number) {
                self.live.remove(&request.id);
                return Some(ticket.question);
            }
        }
    }
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) message: Message,
    /// The request made no sense.
    pub(crate) is_invalid: bool,
}

/// Answers a request from what `core` has.
pub(crate) fn answer(core: &Core, request: &Request) -> Answer {
    let none = |reason| Answer {
        message: Message::NoData(NoData {
            request: request.id,
            reason,
        }),
        is_invalid: reason == Reason::InvalidRequest,
    };
    // A block past our end is one that we do not have, not nonsense: the peer may know a longer log.
    let is_past_end = request
        .proof
        .block
        .is_some_and(|block| block.index >= core.length());
    let manifest_only = ProofRequest {
        fork: request.proof.fork,
        manifest: request.proof.manifest,
        ..ProofRequest::default()
    };
    let asked = if is_past_end {
        &manifest_only
    } else {
        &request.proof
    };
    match core.prove(asked) {
        Ok(Some(proof)) => Answer {
            message: Message::Data(Data {
                request: request.id,
                proof,
            }),
            is_invalid: false,
        },
        Ok(None) | Err(ProveError::MissingNode { .. }) => none(Reason::NotAvailable),
        Err(ProveError::Invalid(_)) => none(Reason::InvalidRequest),
        Err(error) => {
            tracing::warn!(core = %core.key(), %error, "cannot read what a peer asked for");
            none(Reason::NotAvailable)
        }
    }
}

/// Answers a want from what `core` has; nothing if it has none of it.
pub(crate) fn tell(core: &Core, want: Want) -> Option<Message> {
    let (length, contiguous) = (core.length(), core.contiguous_length());
    let end = want.start.saturating_add(want.length);
    if end < contiguous || contiguous == length || (want.any && want.start < contiguous) {
        return Some(Message::Range(Range {
            drop: false,
            start: 0,
            length: contiguous,
        }));
    }
    let end = end.min(length);
    if want.any {
        let first = core
            .with_bitfield(|bits| bits.next_set(want.start))
            .filter(|index| *index < end)?;
        return Some(Message::Range(Range {
            drop: false,
            start: first,
            length: 1,
        }));
    }
    let start = want.start - want.start % 32;
    let words = usize::try_from(end.saturating_sub(start).div_ceil(32))
        .ok()
        .filter(|words| *words > 0)?;
    let words = core.with_bitfield(|bits| bits.words(start, words));
    Some(Message::Bitfield(BitfieldWords { start, words }))
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

    fn ids(uploads: &mut Uploads) -> Vec<u64> {
        std::iter::from_fn(|| uploads.pop())
            .map(|question| match question {
                Question::Request(request) => request.id,
                Question::Want(want) => want.start,
            })
            .collect()
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
        assert!(uploads.live.is_empty());
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
