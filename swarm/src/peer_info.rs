//! What is remembered of one peer: `hyperswarm/lib/peer-info.js`.
//! Knows attempts and what they say about the next one. Does not know keys, addresses or timers.

use std::collections::BTreeSet;

use ferrocore_primitives::time::Time;

use crate::Topic;
use crate::limits::{ATTEMPTS_MAX, CONNECTION_LASTING, TOPICS_PER_PEER_MAX};

/// How soon a peer's turn comes: who was just lost before who is new, and both before who keeps failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// It failed more often than is worth another try, unless it is found again.
    VeryLow,
    /// It failed three times.
    Low,
    /// It is new.
    Normal,
    /// It failed twice.
    High,
    /// It was lost, or failed, once.
    VeryHigh,
}

impl Priority {
    /// All, from the last to have its turn to the first.
    pub const ALL: [Self; 5] = [
        Self::VeryLow,
        Self::Low,
        Self::Normal,
        Self::High,
        Self::VeryHigh,
    ];
}

/// After which of the four backoffs a peer is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// About a second.
    Short,
    /// About five seconds.
    Medium,
    /// About fifteen seconds.
    Long,
    /// About ten minutes.
    VeryLong,
}

/// What is remembered of one peer.
///
/// Call [`connected`](Self::connected) and [`disconnected`](Self::disconnected) around every connection *we* dialled, a
/// failed dial being just the latter; then [`retry_tier`](Self::retry_tier) says how long to wait, and after the wait
/// [`update_priority`](Self::update_priority) whether it may be queued.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    topics: BTreeSet<Topic>,
    attempts: u32,
    priority: Priority,
    /// Whether a dial since it was last found has succeeded.
    proven: bool,
    connected_at: Option<Time>,
    disconnected_at: Option<Time>,
    /// Whether the last connection was dialled by us.
    dialled_by_us: bool,
    /// Whether it waits in the queue, which it must not enter twice.
    pub queued: bool,
    /// Whether it waits for a backoff.
    pub waiting: bool,
    /// Whether the caller asked for it by its key.
    pub explicit: bool,
    /// Whether it is kept away, both ways.
    pub banned: bool,
    /// Whether it is tried again when it is lost.
    pub reconnecting: bool,
    /// Whether only a relay can lead to it, as the last dial has shown.
    pub needs_relay: bool,
}

impl Default for PeerInfo {
    fn default() -> Self {
        Self {
            topics: BTreeSet::new(),
            attempts: 0,
            priority: Priority::Normal,
            proven: false,
            connected_at: None,
            disconnected_at: None,
            dialled_by_us: false,
            queued: false,
            waiting: false,
            explicit: false,
            banned: false,
            reconnecting: true,
            needs_relay: false,
        }
    }
}

impl PeerInfo {
    /// Notes that it was found under `topic`; returns whether that is news.
    pub fn add_topic(&mut self, topic: Topic) -> bool {
        self.topics.len() < TOPICS_PER_PEER_MAX && self.topics.insert(topic)
    }

    /// Notes that we have left `topic`.
    pub fn remove_topic(&mut self, topic: &Topic) {
        self.topics.remove(topic);
    }

    /// Notes that a connection we dialled is up.
    pub fn connected(&mut self, now: Time) {
        self.proven = true;
        self.dialled_by_us = true;
        self.connected_at = Some(now);
    }

    /// Notes that it has connected to us.
    pub fn accepted(&mut self) {
        self.dialled_by_us = false;
    }

    /// Notes that a connection we dialled is over, or that a dial failed. One that lasted makes the next count as the first.
    pub fn disconnected(&mut self, now: Time) {
        self.disconnected_at = Some(now);
        if let Some(since) = self.connected_at.take()
            && now.saturating_since(since) >= CONNECTION_LASTING
        {
            self.attempts = 0;
        }
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Lets the next dial count as the first: a relay that was not used before may help.
    pub fn forgive(&mut self) {
        self.attempts = 0;
    }

    /// Notes that a lookup has found it. One that kept failing, or that used to dial us, has a new start.
    pub fn found(&mut self) {
        if self.priority < Priority::Normal || !self.dialled_by_us {
            self.proven = false;
            self.dialled_by_us = false;
            self.attempts = 0;
        }
    }

    /// Fixes its priority and says whether it may be queued now.
    pub fn update_priority(&mut self) -> bool {
        if self.explicit && self.attempts > ATTEMPTS_MAX {
            self.attempts = ATTEMPTS_MAX;
        }
        if self.banned || self.queued || self.attempts > ATTEMPTS_MAX {
            return false;
        }
        self.priority = self.priority_of_attempts();
        true
    }

    /// After how long it is to be tried again; `None` for not at all.
    pub fn retry_tier(&self) -> Option<Tier> {
        if self.banned || !self.reconnecting {
            return None;
        }
        match (self.attempts, self.proven) {
            (0, _) | (1, true) => Some(Tier::Short),
            (1, false) | (2, true) => Some(Tier::Medium),
            (2, false) | (3, _) => Some(Tier::Long),
            _ => self.explicit.then_some(Tier::VeryLong),
        }
    }

    /// Whether nothing is lost by forgetting it.
    pub fn is_forgettable(&self) -> bool {
        !(self.banned || self.queued || self.explicit || self.waiting)
    }

    /// Its priority, as of the last [`update_priority`](Self::update_priority).
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// How many dials have ended since one lasted.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether a dial since it was last found has succeeded.
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// When the last connection we dialled ended.
    pub fn disconnected_at(&self) -> Option<Time> {
        self.disconnected_at
    }

    /// The topics it was found under, as far as we are still in them.
    pub fn topics(&self) -> &BTreeSet<Topic> {
        &self.topics
    }

    // JavaScript also knows peers that were "tried" and lowers those without proof; nothing ever sets that mark.
    fn priority_of_attempts(&self) -> Priority {
        match self.attempts {
            0 => Priority::Normal,
            1 => Priority::VeryHigh,
            2 => Priority::High,
            3 => Priority::Low,
            _ => Priority::VeryLow,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Time = Time::ZERO;

    /// Goal: the table of `hyperswarm`'s `_selectRetryTimer` and `_getPriority`. Method: fail so often, with and without a
    /// connection first.
    #[test]
    fn attempts_decide_tier_and_priority() {
        let table = [
            (0, Some(Tier::Short), Some(Tier::Short), Priority::Normal),
            (1, Some(Tier::Medium), Some(Tier::Short), Priority::VeryHigh),
            (2, Some(Tier::Long), Some(Tier::Medium), Priority::High),
            (3, Some(Tier::Long), Some(Tier::Long), Priority::Low),
            (4, None, None, Priority::Low),
        ];
        for (attempts, unproven_tier, proven_tier, priority) in table {
            for (is_proven, tier) in [(false, unproven_tier), (true, proven_tier)] {
                let mut peer = PeerInfo::default();
                if is_proven {
                    peer.connected(NOW);
                }
                for _ in 0..attempts {
                    peer.disconnected(NOW);
                    peer.update_priority();
                }
                assert_eq!(peer.retry_tier(), tier, "{attempts} {is_proven}");
                assert_eq!(peer.priority(), priority, "{attempts} {is_proven}");
                assert_eq!(peer.update_priority(), attempts <= 3);
            }
        }
    }

    #[test]
    fn a_connection_that_lasted_starts_anew() {
        for (lasted, attempts) in [(14_999, 3), (15_000, 1)] {
            let mut peer = PeerInfo::default();
            peer.disconnected(NOW);
            peer.disconnected(NOW);
            peer.connected(NOW);
            peer.disconnected(NOW + Duration::from_millis(lasted));
            assert_eq!(peer.attempts(), attempts, "{lasted} ms");
        }
    }

    #[test]
    fn who_is_asked_for_by_key_is_never_given_up() {
        let mut peer = PeerInfo {
            explicit: true,
            ..PeerInfo::default()
        };
        for _ in 0..4 {
            peer.disconnected(NOW);
        }
        assert_eq!(peer.retry_tier(), Some(Tier::VeryLong));
        assert!(peer.update_priority());
        assert_eq!((peer.attempts(), peer.priority()), (3, Priority::Low));
        assert!(!peer.is_forgettable());
    }

    #[test]
    fn who_is_banned_or_not_wanted_back_is_left_alone() {
        let mut peer = PeerInfo {
            banned: true,
            ..PeerInfo::default()
        };
        assert!(!peer.update_priority());
        assert_eq!(peer.retry_tier(), None);
        peer.banned = false;
        peer.reconnecting = false;
        assert_eq!(peer.retry_tier(), None);
        assert!(peer.update_priority(), "it may still be found");
    }

    #[test]
    fn being_found_again_helps_who_failed_and_who_used_to_call() {
        let mut failed = PeerInfo::default();
        for _ in 0..4 {
            failed.disconnected(NOW);
        }
        assert!(!failed.update_priority());
        failed.found();
        assert!(failed.update_priority());

        let mut lost = PeerInfo::default();
        lost.connected(NOW);
        lost.disconnected(NOW);
        lost.update_priority();
        lost.found();
        assert_eq!(lost.attempts(), 1, "a peer of good priority goes on");
        lost.accepted();
        lost.found();
        assert_eq!(lost.attempts(), 0);
    }

    #[test]
    fn topics_are_bounded() {
        let mut peer = PeerInfo::default();
        for number in 0..=TOPICS_PER_PEER_MAX {
            let is_new = peer.add_topic(Topic::from_name(&number.to_string()));
            assert_eq!(is_new, number < TOPICS_PER_PEER_MAX);
        }
        assert!(!peer.add_topic(Topic::from_name("0")));
        peer.remove_topic(&Topic::from_name("0"));
        assert!(peer.add_topic(Topic::from_name("0")));
    }
}
