//! When a lost peer is tried again: `hyperswarm/lib/retry-timer.js` and `bulk-timer.js`.
//! Knows four backoffs and the clock it is told. Does not know who deserves which.

use std::time::Duration;

use ferrocore_primitives::time::Time;

use crate::peer_info::Tier;
use crate::rng::Rng;

/// The shortest of each backoff, and what is added at random so that peers that lost each other do not dial in step.
const BACKOFFS: [(Duration, Duration); 4] = [
    (Duration::from_secs(1), Duration::from_millis(500)),
    (Duration::from_secs(5), Duration::from_secs(1)),
    (Duration::from_secs(15), Duration::from_secs(2)),
    (Duration::from_secs(600), Duration::from_secs(120)),
];

/// Added at random to every backoff.
const JITTER: Duration = Duration::from_millis(500);

impl Tier {
    /// About how long it is, without what is added at random.
    pub fn about(self) -> Duration {
        let [short, medium, long, very_long] = BACKOFFS;
        let (about, _) = match self {
            Self::Short => short,
            Self::Medium => medium,
            Self::Long => long,
            Self::VeryLong => very_long,
        };
        about
    }
}

/// A backoff is two periods of this share: whoever comes waits between one and two of them.
const PERIOD_SHARE: f64 = 0.66;

/// Peers that wait to be tried again. A peer waits between 0.66 and 1.33 times its backoff, in a batch with others.
///
/// [`add`](Self::add) peers, [`handle_timeout`](Self::handle_timeout) when
/// [`poll_timeout`](Self::poll_timeout) has passed.
#[derive(Debug, Clone)]
pub struct RetryTimer<K> {
    /// In the order of [`Tier`].
    timers: [BulkTimer<K>; 4],
}

impl<K> RetryTimer<K> {
    /// Nobody waits. The exact backoffs depend on `seed`.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let timers = BACKOFFS.map(|(shortest, spread)| {
            let backoff = shortest + rng.up_to(spread) + rng.up_to(JITTER);
            BulkTimer::new(backoff.mul_f64(PERIOD_SHARE))
        });
        Self { timers }
    }

    /// Lets a peer wait.
    pub fn add(&mut self, tier: Tier, peer: K, now: Time) {
        let [short, medium, long, very_long] = &mut self.timers;
        let timer = match tier {
            Tier::Short => short,
            Tier::Medium => medium,
            Tier::Long => long,
            Tier::VeryLong => very_long,
        };
        timer.add(peer, now);
    }

    /// Those whose wait is over.
    pub fn handle_timeout(&mut self, now: Time) -> Vec<K> {
        let timers = self.timers.iter_mut();
        timers.flat_map(|timer| timer.handle_timeout(now)).collect()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next; `None` while nobody waits.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.iter().filter_map(BulkTimer::poll_timeout).min()
    }
}

/// Two generations of peers that move on at every tick.
#[derive(Debug, Clone)]
struct BulkTimer<K> {
    period: Duration,
    next_tick: Option<Time>,
    young: Vec<K>,
    old: Vec<K>,
}

impl<K> BulkTimer<K> {
    fn new(period: Duration) -> Self {
        Self {
            period,
            next_tick: None,
            young: Vec::new(),
            old: Vec::new(),
        }
    }

    fn add(&mut self, peer: K, now: Time) {
        if self.is_empty() && self.next_tick.is_none_or(|tick| tick <= now) {
            self.next_tick = Some(now + self.period);
        }
        self.young.push(peer);
    }

    fn handle_timeout(&mut self, now: Time) -> Vec<K> {
        let mut due = Vec::new();
        while let Some(tick) = self.poll_timeout().filter(|tick| *tick <= now) {
            due.append(&mut self.old);
            std::mem::swap(&mut self.old, &mut self.young);
            self.next_tick = Some(tick + self.period);
        }
        due
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.next_tick.filter(|_| !self.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: nobody waits less than 0.66 or more than 1.33 of the backoff, jitter included. Method: peers come at random
    /// moments over a long time, the timer is called exactly when it asks.
    #[test]
    fn waits_are_within_two_thirds_and_four_thirds_of_the_backoff() {
        let longest = [2.0, 6.5, 17.5, 720.5];
        let tiers = [Tier::Short, Tier::Medium, Tier::Long, Tier::VeryLong];
        for ((tier, longest), (shortest, _)) in tiers.into_iter().zip(longest).zip(BACKOFFS) {
            for seed in 0..20 {
                let mut timer = RetryTimer::new(seed);
                let mut rng = Rng::new(seed);
                let mut now = Time::ZERO;
                let (mut came, mut gone) = (0, 0);
                while gone < 50 {
                    let arrival = now + rng.up_to(shortest * 2);
                    match timer.poll_timeout().filter(|tick| *tick < arrival) {
                        Some(tick) => now = tick,
                        None => now = arrival,
                    }
                    for (number, since) in timer.handle_timeout(now) {
                        let waited = now.saturating_since(since).as_secs_f64();
                        let allowed = shortest.as_secs_f64() * 0.659..=longest * 1.33;
                        assert!(allowed.contains(&waited), "{tier:?} {waited} {number}");
                        gone += 1;
                    }
                    if now == arrival {
                        timer.add(tier, (came, now), now);
                        came += 1;
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_ticks_while_nobody_waits() {
        let mut timer = RetryTimer::new(0);
        assert_eq!(timer.poll_timeout(), None);
        timer.add(Tier::Short, 1, Time::ZERO);
        let late = Time::ZERO + Duration::from_secs(3600);
        assert_eq!(timer.handle_timeout(late), [1]);
        assert_eq!(timer.poll_timeout(), None);
        timer.add(Tier::Short, 2, late);
        assert!(timer.poll_timeout().unwrap() > late);
    }
}
