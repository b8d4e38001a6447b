//! How fast one peer answers on one channel, and how many requests it is to be sent at a time.
//!
//! Knows round trips and rates. Does not know what is asked.
//!
//! The window is what the peer answers within a round trip, twice, and within [`QUEUE_TIME`]: enough that
//! it never idles, and so little that a slow peer does not take on what a fast one would deliver sooner.
//! Both are measured as BBR does it: the shortest round trip there was, and the best rate of late, where a
//! sample is what came between a request and its answer.

use std::time::Duration;

use ferrocore_log::supply::Outlook;
use ferrocore_primitives::time::Time;

use crate::limits::{
    DOUBT_MAX, DOUBT_MIN, LATE_AFTER_MAX, LATE_AFTER_MIN, QUEUE_TIME, RATE_TIME, WINDOW_BYTES,
    WINDOW_MAX, WINDOW_MIN, WINDOW_START,
};

/// The pace of one peer.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// Grown beyond [`WINDOW_START`], or shrunk below it; none was needed yet.
    window: Option<u16>,
    /// Whether more would be in flight if the window were larger.
    is_limited: bool,
    /// How long answers to requests for blocks take: the shortest, and smoothed.
    shortest: Option<Duration>,
    usual: Option<Duration>,
    /// Best rates of the time span before and of this one, in answers a second.
    rates: (f32, f32),
    span_start: Time,
    answers: u64,
    /// How often in a row nothing came of a request, and until when nothing is expected for that.
    misses: u8,
    doubted_until: Time,
}

/// What is known of the pace when a request is sent, to be held against what is when its answer comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    at: Time,
    answers: u64,
}

impl Mark {
    pub(crate) fn at(&self) -> Time {
        self.at
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::unknown()
    }
}

impl Pace {
    /// That of a peer that was never asked for anything.
    pub(crate) const fn unknown() -> Self {
        Self {
            window: None,
            is_limited: false,
            shortest: None,
            usual: None,
            rates: (0.0, 0.0),
            span_start: Time::ZERO,
            answers: 0,
            misses: 0,
            doubted_until: Time::ZERO,
        }
    }

    /// Notes that a request was sent, the last of `in_flight`.
    pub(crate) fn sent(&mut self, in_flight: usize, now: Time) -> Mark {
        self.is_limited = in_flight >= self.window();
        Mark {
            at: now,
            answers: self.answers,
        }
    }

    /// Notes an answer. While the window is what holds us back, it grows by one with each until it is wide
    /// enough: it doubles every round trip.
    pub(crate) fn answered(&mut self, mark: Mark, is_block: bool, now: Time) {
        self.answers += 1;
        if is_block {
            self.learn(mark, now);
        }
        let (window, target) = (self.window(), self.target());
        if self.is_limited && window < target {
            self.set_window(window + 1);
        } else if window > target {
            self.set_window(window - 1);
        }
    }

    /// The peer was too slow: it is asked for less, and how soon it answers is unknown for a while, each time for twice as
    /// long, or until it has answered. It may have fallen silent, and who goes by what it did before waits in vain.
    pub(crate) fn slow_down(&mut self, now: Time) {
        self.set_window(self.window() / 2);
        let doubt = (DOUBT_MIN * (1 << self.misses)).min(DOUBT_MAX);
        self.doubted_until = now + doubt;
        self.misses = (self.misses + 1).min(DOUBLED_MAX);
    }

    /// How many requests may be in flight.
    pub(crate) fn window(&self) -> usize {
        self.window.map_or(WINDOW_START, usize::from)
    }

    /// How many more may be sent for blocks of `mean_block` bytes.
    pub(crate) fn room(&self, in_flight: usize, mean_block: u64) -> usize {
        let by_bytes = usize::try_from(WINDOW_BYTES / mean_block.max(1)).unwrap_or(usize::MAX);
        let window = self.window().min(by_bytes.max(WINDOW_MIN));
        window.saturating_sub(in_flight)
    }

    /// When one more answer would be here, if enough is known.
    pub(crate) fn outlook(&self, in_flight: usize, mean_block: u64, now: Time) -> Option<Outlook> {
        if now < self.doubted_until {
            return None;
        }
        let queue = Duration::try_from_secs_f32(in_flight as f32 / self.rate()?).ok()?;
        Some(Outlook {
            answer_in: self.shortest? + queue,
            room: self.room(in_flight, mean_block),
        })
    }

    /// After how long an answer is late.
    pub(crate) fn late_after(&self) -> Duration {
        let usual = self.usual.unwrap_or(LATE_AFTER_MAX);
        (2 * usual).clamp(LATE_AFTER_MIN, LATE_AFTER_MAX)
    }

    /// The shortest time from a request to its answer.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.shortest
    }

    fn learn(&mut self, mark: Mark, now: Time) {
        (self.misses, self.doubted_until) = (0, Time::ZERO);
        let took = now.saturating_since(mark.at);
        self.shortest = Some(self.shortest.map_or(took, |shortest| shortest.min(took)));
        self.usual = Some(self.usual.map_or(took, |usual| (7 * usual + took) / 8));
        let sample = (self.answers - mark.answers) as f32 / took.as_secs_f32();
        if now.saturating_since(self.span_start) > RATE_TIME && self.is_limited {
            self.span_start = now;
            self.rates = (self.rates.1, sample);
        }
        self.rates.1 = self.rates.1.max(sample);
    }

    /// In answers a second.
    fn rate(&self) -> Option<f32> {
        let rate = self.rates.0.max(self.rates.1);
        (rate > 0.0).then_some(rate)
    }

    /// How wide the window is to be.
    fn target(&self) -> usize {
        let (Some(rate), Some(shortest)) = (self.rate(), self.shortest) else {
            return WINDOW_MAX;
        };
        let answers = rate * (2 * shortest + QUEUE_TIME).as_secs_f32();
        (answers as usize).clamp(WINDOW_MIN, WINDOW_MAX) // saturates
    }

    fn set_window(&mut self, window: usize) {
        let window = window.clamp(WINDOW_MIN, WINDOW_MAX);
        self.window = u16::try_from(window).ok();
    }
}

/// How often the time of doubt is doubled.
const DOUBLED_MAX: u8 = 6;

const _: () = assert!(WINDOW_MAX <= u16::MAX as usize);
const _: () = assert!(DOUBT_MIN.as_secs() << DOUBLED_MAX >= DOUBT_MAX.as_secs());

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// A peer that answers after `delay`, and no more than `rate` requests a second.
    struct Simulated {
        delay: Duration,
        each: Duration,
        free_at: Time,
        in_flight: VecDeque<(Time, Mark)>,
    }

    impl Simulated {
        fn new(delay_ms: u64, rate: u32) -> Self {
            Self {
                delay: Duration::from_millis(delay_ms),
                each: Duration::from_secs(1) / rate,
                free_at: Time::ZERO,
                in_flight: VecDeque::new(),
            }
        }

        /// Keeps the window full until `end`; returns how many answers came.
        fn run(&mut self, pace: &mut Pace, mut now: Time, end: Time) -> usize {
            let mut answers = 0;
            while now < end {
                while pace.room(self.in_flight.len(), 1) > 0 {
                    let mark = pace.sent(self.in_flight.len() + 1, now);
                    self.free_at = self.free_at.max(now + self.delay) + self.each;
                    self.in_flight.push_back((self.free_at, mark));
                }
                let (at, mark) = self.in_flight.pop_front().unwrap();
                now = at;
                pace.answered(mark, true, now);
                answers += 1;
            }
            answers
        }
    }

    fn seconds(count: u64) -> Time {
        Time::ZERO + Duration::from_secs(count)
    }

    /// Goal: the window finds what keeps a peer busy, be it near or far, fast or slow, and not much more.
    #[test]
    fn the_window_is_what_a_peer_answers_in_its_round_trip() {
        for (delay_ms, rate) in [(1, 100), (20, 1_000), (200, 2_000), (1, 20_000), (100, 50)] {
            let (mut pace, mut peer) = (Pace::default(), Simulated::new(delay_ms, rate));
            peer.run(&mut pace, Time::ZERO, seconds(10));
            let answers = peer.run(&mut pace, seconds(10), seconds(20));
            let busy = answers as f64 / (10.0 * f64::from(rate));
            assert!(busy > 0.9, "{delay_ms} ms, {rate}/s: {busy} busy");
            let needed = f64::from(rate) * (delay_ms as f64 / 1000.0);
            let queue = f64::from(rate) * QUEUE_TIME.as_secs_f64();
            let most = (2.5 * needed + 1.5 * queue).max(WINDOW_MIN as f64);
            let window = pace.window() as f64;
            assert!(window <= most, "{delay_ms} ms, {rate}/s: {window} > {most}");
        }
    }

    #[test]
    fn a_far_peer_with_a_queue_is_expected_later() {
        let (mut near, mut far) = (Pace::default(), Pace::default());
        Simulated::new(5, 1_000).run(&mut near, Time::ZERO, seconds(2));
        Simulated::new(80, 1_000).run(&mut far, Time::ZERO, seconds(2));
        let answer_in = |pace: &Pace, queue| pace.outlook(queue, 1, seconds(2)).unwrap().answer_in;
        assert!(answer_in(&near, 0) < answer_in(&far, 0));
        assert!(answer_in(&near, 200) > answer_in(&far, 0));
        assert_eq!(Pace::default().outlook(0, 1, seconds(2)), None);
    }

    #[test]
    fn who_lets_requests_go_unanswered_is_doubted_for_longer_each_time() {
        let (mut pace, mut peer) = (Pace::default(), Simulated::new(5, 1_000));
        peer.run(&mut pace, Time::ZERO, seconds(2));
        let mut now = seconds(2);
        let is_expected = |pace: &Pace, now| pace.outlook(0, 1, now).is_some();
        let mut doubts = Vec::new();
        for _ in 0..8 {
            assert!(is_expected(&pace, now));
            pace.slow_down(now);
            let doubted =
                (1..).find(|second| is_expected(&pace, now + Duration::from_secs(*second)));
            doubts.push(doubted.unwrap());
            now += Duration::from_secs(doubted.unwrap());
        }
        assert_eq!(doubts, [1, 2, 4, 8, 16, 32, 60, 60]);
        pace.slow_down(now);
        let mark = pace.sent(1, now);
        pace.answered(mark, false, now);
        assert!(!is_expected(&pace, now), "that was no block");
        pace.answered(mark, true, now + Duration::from_millis(5));
        assert!(is_expected(&pace, now));
        pace.slow_down(now);
        assert!(is_expected(&pace, now + DOUBT_MIN));
    }

    #[test]
    fn the_window_doubles_every_round_trip_and_is_bounded() {
        let mut pace = Pace::default();
        let mut windows = Vec::new();
        for _ in 0..10 {
            let marks: Vec<Mark> = (0..pace.window())
                .map(|sent| pace.sent(sent + 1, Time::ZERO))
                .collect();
            windows.push(marks.len());
            // Answers in no time at all tell no rate.
            marks
                .into_iter()
                .for_each(|mark| pace.answered(mark, true, Time::ZERO));
        }
        let start = WINDOW_START;
        assert_eq!(windows[..3], [start, 2 * start, 4 * start]);
        assert_eq!(windows[9], WINDOW_MAX);
    }

    #[test]
    fn the_window_stays_while_there_is_little_to_ask() {
        let mut pace = Pace::default();
        for _ in 0..WINDOW_START {
            let mark = pace.sent(1, Time::ZERO);
            pace.answered(mark, true, Time::ZERO);
        }
        assert_eq!(pace.window(), WINDOW_START);
    }

    #[test]
    fn large_blocks_are_asked_for_a_few_at_a_time() {
        let pace = Pace::default();
        assert_eq!(pace.room(0, WINDOW_BYTES), WINDOW_MIN);
        assert_eq!(pace.room(0, 1), WINDOW_START);
    }
}
