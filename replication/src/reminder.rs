//! When a peer is told our state again although nothing has changed.
//!
//! A JavaScript relay may be able to prove more than it says: it looks again only when blocks come to it from the
//! peer in question, or when that peer tells its state. And a reader there that was refused the proof of a fork, or
//! lost the peer it had asked, asks nobody else before somebody tells of that fork again. And who grows while it looks
//! what it can prove does not tell how long it is if the other's state comes meanwhile, so that it never hears that
//! acknowledged. And who takes back a request for a block and an upgrade, as another peer was quicker with the block, does not
//! look who else could upgrade it (`hypercore/lib/replicator.js` 11.37.1, `_handleData`, `_updateCanUpgradeAndSync`, `_updateFork`,
//! `_cancelRequest`).
//!
//! Knows waiting. Does not know what for.

use std::time::Duration;

use ferrocore_primitives::time::Time;

use crate::limits::{REMINDER_AFTER, REMINDER_AFTER_MAX};

/// One channel's next reminder.
#[derive(Debug, Default)]
pub(crate) struct Reminder {
    /// When, and how long after the one before; none while nothing is waited for.
    /// Boxed: on most of many thousand channels nothing is.
    next: Option<Box<(Time, Duration)>>,
}

impl Reminder {
    /// Notes whether one of both sides waits to hear from the other.
    pub(crate) fn look(&mut self, is_waiting: bool, now: Time) {
        self.next = match &self.next {
            _ if !is_waiting => None,
            None => Some(Box::new((now + REMINDER_AFTER, REMINDER_AFTER))),
            _ => return,
        };
    }

    /// Whether the time has come for one.
    pub(crate) fn is_due(&mut self, now: Time) -> bool {
        let due = self.next.as_mut().filter(|next| next.0 <= now);
        let is_due = due.is_some();
        if let Some(next) = due {
            let after = (2 * next.1).min(REMINDER_AFTER_MAX);
            **next = (now + after, after);
        }
        is_due
    }

    /// When it will.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.next.as_ref().map(|next| next.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Time {
        Time::ZERO + Duration::from_secs(count)
    }

    #[test]
    fn reminders_become_rare_and_start_over_when_all_was_well() {
        let mut reminder = Reminder::default();
        let mut told = Vec::new();
        for second in 0..300 {
            reminder.look(true, seconds(second));
            if reminder.is_due(seconds(second)) {
                told.push(second);
            }
        }
        assert_eq!(told, [1, 3, 7, 15, 31, 63, 123, 183, 243]);
        reminder.look(false, seconds(300));
        assert_eq!(reminder.next_deadline(), None);
        assert!(!reminder.is_due(seconds(400)));
        reminder.look(true, seconds(400));
        assert_eq!(reminder.next_deadline(), Some(seconds(401)));
    }
}
