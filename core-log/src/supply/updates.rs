//! Those who wait for a newer length, and for how long they have.
//!
//! Knows time as suppliers tell it. Does not know who is waited for: each has a patience of its own, but there may always be
//! one more.

use std::time::Duration;

use ferrocore_primitives::time::Time;

use super::Tardiness;
use crate::limits::{UPDATE_TOTAL_ALONE_MAX, UPDATE_TOTAL_MAX};

/// Names one who waits for a newer length of one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UpdateId(u64);

#[derive(Debug, Default)]
pub(super) struct Updates {
    next_id: u64,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    id: UpdateId,
    /// When a supplier saw it first.
    since: Option<Time>,
    tardiness: Tardiness,
}

impl Updates {
    pub(super) fn add(&mut self) -> UpdateId {
        let id = UpdateId(self.next_id);
        self.next_id += 1;
        self.waiting.push(Waiting {
            id,
            since: None,
            tardiness: Tardiness::None,
        });
        id
    }

    pub(super) fn remove(&mut self, id: UpdateId) {
        self.waiting.retain(|waiting| waiting.id != id);
        if self.waiting.is_empty() {
            self.waiting = Vec::new();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How late all suppliers together are for one of them.
    pub(super) fn tardiness(&self, id: UpdateId) -> Tardiness {
        let waiting = self.waiting.iter().find(|waiting| waiting.id == id);
        waiting.map_or(Tardiness::None, |waiting| waiting.tardiness)
    }

    /// Notes what time it is. Whether that is news to anybody, and when it will be.
    pub(super) fn look(&mut self, now: Time) -> (bool, Option<Time>) {
        let (mut is_news, mut next) = (false, None::<Time>);
        for waiting in &mut self.waiting {
            let since = *waiting.since.get_or_insert(now);
            let (tardiness, limit) = judge(now.saturating_since(since));
            is_news |= std::mem::replace(&mut waiting.tardiness, tardiness) != tardiness;
            let at = limit.map(|limit| since + limit);
            next = [next, at].into_iter().flatten().min();
        }
        (is_news, next)
    }
}

/// What has come of waiting for so long, and after how long more will.
fn judge(waited: Duration) -> (Tardiness, Option<Duration>) {
    match waited {
        waited if waited >= UPDATE_TOTAL_ALONE_MAX => (Tardiness::Hopeless, None),
        waited if waited >= UPDATE_TOTAL_MAX => (Tardiness::Late, Some(UPDATE_TOTAL_ALONE_MAX)),
        _ => (Tardiness::None, Some(UPDATE_TOTAL_MAX)),
    }
}

const _: () = assert!(UPDATE_TOTAL_MAX.as_secs() < UPDATE_TOTAL_ALONE_MAX.as_secs());

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Time {
        Time::ZERO + Duration::from_secs(count)
    }

    /// Goal: each has its own time, from when it began, and there is no timer once it is over.
    #[test]
    fn who_began_later_has_time_for_longer() {
        let (first, alone) = (UPDATE_TOTAL_MAX.as_secs(), UPDATE_TOTAL_ALONE_MAX.as_secs());
        let mut updates = Updates::default();
        let one = updates.add();
        assert_eq!(updates.look(seconds(5)), (false, Some(seconds(5 + first))));
        let other = updates.add();
        assert_eq!(updates.look(seconds(7)), (false, Some(seconds(5 + first))));
        let late = updates.look(seconds(5 + first));
        assert_eq!(late, (true, Some(seconds(7 + first))));
        let of = |updates: &Updates| [one, other].map(|id| updates.tardiness(id));
        assert_eq!(of(&updates), [Tardiness::Late, Tardiness::None]);
        assert_eq!(updates.look(seconds(7 + alone)), (true, None));
        assert_eq!(of(&updates), [Tardiness::Hopeless; 2]);
        assert_eq!(updates.look(seconds(8 + alone)), (false, None));
        updates.remove(one);
        updates.remove(other);
        assert!(updates.is_empty() && updates.look(seconds(999)) == (false, None));
        assert_eq!(updates.tardiness(one), Tardiness::None);
    }
}
