//! How long those who wait for a longer log have waited for one peer.
//!
//! Who says again and again that it has more, or takes it back and says it anew, is not waited for longer: only what it
//! delivers, and time in which it owes nothing, make up for what it let others wait.
//!
//! Knows waiting. Does not know what is owed, nor who waits.

use std::time::Duration;

use ferrocore_log::supply::Tardiness;
use ferrocore_primitives::time::Time;

use crate::limits::{HEAD_PATIENCE, HEAD_PATIENCE_ALONE};

/// One peer's account.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// How long it was waited for, as of `since`; no longer than [`HEAD_PATIENCE_ALONE`].
    used: Duration,
    since: Time,
    is_owing: bool,
    is_waited_for: bool,
    told: Tardiness,
}

impl Patience {
    /// Notes whether the peer owes something from now on, and whether somebody waits for it. Tells how late it is if that is news.
    pub(crate) fn look(
        &mut self,
        is_owing: bool,
        is_waited_for: bool,
        now: Time,
    ) -> Option<Tardiness> {
        let passed = now.saturating_since(self.since);
        self.used = match (self.is_owing, self.is_waited_for) {
            (true, true) => (self.used + passed).min(HEAD_PATIENCE_ALONE),
            (true, false) => self.used,
            (false, _) => self.used.saturating_sub(passed),
        };
        (self.since, self.is_owing, self.is_waited_for) = (now, is_owing, is_waited_for);
        let tardiness = self.tardiness();
        (std::mem::replace(&mut self.told, tardiness) != tardiness).then_some(tardiness)
    }

    /// The peer did what it was waited for.
    pub(crate) fn start_over(&mut self) {
        self.used = Duration::ZERO;
        self.is_owing = false;
    }

    /// When it will be later than it is, if nothing comes.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let mut limits = [HEAD_PATIENCE, HEAD_PATIENCE_ALONE].into_iter();
        let next = limits.find(|limit| *limit > self.used)?;
        (self.is_owing && self.is_waited_for).then(|| self.since + (next - self.used))
    }

    fn tardiness(&self) -> Tardiness {
        match self.used {
            used if used >= HEAD_PATIENCE_ALONE => Tardiness::Hopeless,
            used if used >= HEAD_PATIENCE => Tardiness::Late,
            _ => Tardiness::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Time {
        Time::ZERO + Duration::from_secs(count)
    }

    #[test]
    fn a_debtor_is_late_then_hopeless_then_no_timer() {
        let mut patience = Patience::default();
        assert_eq!(patience.look(true, true, seconds(10)), None);
        assert_eq!(patience.next_deadline(), Some(seconds(13)));
        assert_eq!(patience.look(true, true, seconds(12)), None);
        assert_eq!(patience.next_deadline(), Some(seconds(13)));
        assert_eq!(
            patience.look(true, true, seconds(13)),
            Some(Tardiness::Late)
        );
        assert_eq!(patience.next_deadline(), Some(seconds(40)));
        assert_eq!(
            patience.look(true, true, seconds(40)),
            Some(Tardiness::Hopeless)
        );
        assert_eq!(patience.next_deadline(), None);
        patience.start_over();
        assert_eq!(
            patience.look(true, true, seconds(50)),
            Some(Tardiness::None)
        );
        assert_eq!(patience.next_deadline(), Some(seconds(53)));
    }

    #[test]
    fn debts_taken_back_and_made_anew_are_the_same_debts() {
        let mut patience = Patience::default();
        patience.look(true, true, seconds(0));
        for second in [1, 2] {
            assert_eq!(patience.look(false, true, seconds(second)), None);
            assert_eq!(patience.look(true, true, seconds(second)), None);
        }
        assert_eq!(patience.look(true, true, seconds(3)), Some(Tardiness::Late));
        // A second without debts is worth one with them.
        assert_eq!(patience.look(false, true, seconds(3)), None);
        assert_eq!(patience.look(true, true, seconds(4)), Some(Tardiness::None));
        assert_eq!(patience.next_deadline(), Some(seconds(5)));
    }
}
