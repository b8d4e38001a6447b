//! Which stream is due when, on one socket.
//! Knows deadlines. Does not know what they are for.

use std::collections::{BTreeSet, HashMap};

use ferrocore_primitives::time::Time;

/// At most one deadline a stream. One that moves into the future stays where it is and is looked at again when it
/// comes, which spares most of the work: a stream's deadlines move with every ack. That of a stream which has become
/// idle goes, so that thousands of idle streams wake nobody for nothing.
#[derive(Debug, Default)]
pub(super) struct TimerQueue {
    order: BTreeSet<(Time, u32)>,
    by_stream: HashMap<u32, Time>,
}

impl TimerQueue {
    pub(super) fn schedule(&mut self, stream: u32, at: Option<Time>) {
        let Some(at) = at else {
            return self.forget(stream);
        };
        if let Some(&earlier) = self.by_stream.get(&stream) {
            if earlier <= at {
                return;
            }
            self.order.remove(&(earlier, stream));
        }
        self.by_stream.insert(stream, at);
        self.order.insert((at, stream));
    }

    fn forget(&mut self, stream: u32) {
        if let Some(at) = self.by_stream.remove(&stream) {
            self.order.remove(&(at, stream));
        }
    }

    pub(super) fn earliest(&self) -> Option<Time> {
        self.order.first().map(|&(at, _)| at)
    }

    /// The next stream whose deadline has passed by `now`.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<u32> {
        let &(at, stream) = self.order.first().filter(|&&(at, _)| at <= now)?;
        self.order.remove(&(at, stream));
        self.by_stream.remove(&stream);
        Some(stream)
    }
}
