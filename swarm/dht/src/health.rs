//! Whether the network seems to be there at all.
//! Knows counts of answers and timeouts over the last ticks (`dht-rpc/lib/health.js` 6.27). Does not know whose.

use std::collections::VecDeque;

/// How the network is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// Others answer.
    #[default]
    Online,
    /// More than half of the requests of the last four busy ticks timed out.
    Degraded,
    /// Nobody answered in the last two busy ticks.
    Offline,
}

/// Ticks looked at.
const TICKS: usize = 4;

/// Ticks without an answer until we are offline.
const OFFLINE_TICKS: u32 = 2;

/// A tick with fewer requests than this says nothing.
const BUSY_MIN: u64 = 4;

/// The last ticks.
#[derive(Debug, Default)]
pub struct Health {
    ticks: VecDeque<Tick>,
    offline_ticks: u32,
    network: Network,
}

#[derive(Debug, Clone, Copy)]
struct Tick {
    answers: u64,
    timeouts: u64,
    /// Of a busy tick with answers: whether most requests timed out.
    degraded: Option<bool>,
}

impl Health {
    /// A tick has passed, with these totals since the start. Returns how the network is doing.
    pub fn update(&mut self, answers: u64, timeouts: u64) -> Network {
        let last = self.ticks.back().copied();
        if self.ticks.len() >= TICKS {
            self.ticks.pop_front();
        }
        let (new_answers, new_timeouts) = last.map_or((0, 0), |last| {
            (
                answers.saturating_sub(last.answers),
                timeouts.saturating_sub(last.timeouts),
            )
        });
        let mut tick = Tick {
            answers,
            timeouts,
            degraded: None,
        };
        let is_cold = self.ticks.len() + 1 < TICKS;
        if !is_cold && new_answers + new_timeouts >= BUSY_MIN {
            tick.degraded = (new_answers > 0).then_some(new_timeouts > new_answers);
            self.ticks.push_back(tick);
            self.judge(new_answers == 0);
        } else {
            self.ticks.push_back(tick);
        }
        self.network
    }

    /// How the network was doing at the last tick.
    pub fn network(&self) -> Network {
        self.network
    }

    /// Forgets everything, as after a sleep.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    fn judge(&mut self, is_silent: bool) {
        self.offline_ticks = if is_silent { self.offline_ticks + 1 } else { 0 };
        let all = |degraded| {
            self.ticks.len() == TICKS && self.ticks.iter().all(|t| t.degraded == Some(degraded))
        };
        self.network = match self.network {
            _ if self.offline_ticks >= OFFLINE_TICKS => Network::Offline,
            Network::Offline if is_silent => Network::Offline,
            _ if all(true) => Network::Degraded,
            Network::Degraded if !all(false) => Network::Degraded,
            _ => Network::Online,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds ticks of (answers, timeouts); returns the verdict on the last.
    fn after(health: &mut Health, totals: &mut (u64, u64), ticks: &[(u64, u64)]) -> Network {
        for (answers, timeouts) in ticks {
            totals.0 += answers;
            totals.1 += timeouts;
            health.update(totals.0, totals.1);
        }
        health.network()
    }

    #[test]
    fn two_silent_ticks_are_offline_and_one_answer_is_online() {
        let (mut health, mut totals) = (Health::default(), (0, 0));
        let mut feed = |ticks: &[(u64, u64)]| after(&mut health, &mut totals, ticks);
        assert_eq!(feed(&[(0, 9), (0, 9), (0, 9)]), Network::Online, "cold");
        assert_eq!(feed(&[(0, 9)]), Network::Online);
        assert_eq!(feed(&[(0, 0)]), Network::Online, "idle ticks say nothing");
        assert_eq!(feed(&[(0, 9)]), Network::Offline);
        assert_eq!(feed(&[(9, 0)]), Network::Online);
    }

    #[test]
    fn four_bad_ticks_are_degraded_and_four_good_ones_are_not() {
        let (mut health, mut totals) = (Health::default(), (0, 0));
        let mut feed = |ticks: &[(u64, u64)]| after(&mut health, &mut totals, ticks);
        feed(&[(9, 0); 4]);
        assert_eq!(feed(&[(2, 3); 3]), Network::Online);
        assert_eq!(feed(&[(2, 3)]), Network::Degraded);
        assert_eq!(feed(&[(9, 0); 3]), Network::Degraded);
        assert_eq!(feed(&[(9, 0)]), Network::Online);
    }
}
