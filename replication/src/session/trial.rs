//! Whether work that is handed to another thread is done sooner: found out by doing it both ways in turn.
//!
//! Knows how much was worked off in which time. Does not know threads, nor why one way is faster: there may be no
//! processor left over, or nothing to gain because the peer is slower than either.

use std::time::Duration;

use ferrocore_primitives::time::Time;

use crate::limits::{
    ASIDE_GAIN_MIN, TRIAL_PAUSE_MAX, TRIAL_SPAN_BYTES, TRIAL_SPAN_TIME, TRIAL_SPANS,
    TRIAL_SPANS_BEFORE, TRIAL_SPANS_BETWEEN,
};

/// Where work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By the task that reads.
    Here,
    /// By another thread.
    Aside,
}

/// The ways of one session, tried in turn: a few spans each, then the better one for many.
#[derive(Debug)]
pub(super) struct Trial {
    verdict: Way,
    /// Spans of the trial that were worked in, once those that follow the verdict are over.
    spans: u32,
    until_next: u32,
    span: Option<Span>,
    /// What was done in the trial.
    here: Done,
    aside: Done,
}

/// Work that is measured as one.
#[derive(Debug, Clone, Copy)]
struct Span {
    since: Time,
    latest: Time,
    bytes: usize,
}

/// Bytes that were worked off, and the time it took.
#[derive(Debug, Clone, Copy, Default)]
struct Done {
    bytes: usize,
    time: Duration,
}

impl Done {
    fn add(&mut self, span: Span) {
        self.bytes += span.bytes;
        self.time += span.latest.saturating_since(span.since);
    }

    /// Bytes a second.
    fn rate(self) -> f64 {
        self.bytes as f64 / self.time.as_secs_f64()
    }
}

impl Trial {
    /// Nothing is handed over until the first trial: at its beginning a download gathers speed.
    pub(super) fn new() -> Self {
        Self {
            verdict: Way::Here,
            spans: 0,
            until_next: TRIAL_SPANS_BEFORE,
            span: None,
            here: Done::default(),
            aside: Done::default(),
        }
    }

    /// How to work on the next burst.
    pub(super) fn way(&self) -> Way {
        match (self.until_next, self.spans % 2) {
            (1.., _) => self.verdict,
            (0, 0) => Way::Here,
            (0, _) => Way::Aside,
        }
    }

    /// Notes that a burst of `len` bytes, worked on the [`way`](Self::way) it was to be, was done with at `now`.
    pub(super) fn worked(&mut self, len: usize, now: Time) {
        let Some(span) = &mut self.span else {
            return self.begin(now);
        };
        if now.saturating_since(span.latest) > TRIAL_PAUSE_MAX {
            return self.begin(now);
        }
        span.latest = now;
        span.bytes += len;
        let time = now.saturating_since(span.since);
        if span.bytes >= TRIAL_SPAN_BYTES && time >= TRIAL_SPAN_TIME {
            let span = *span;
            self.complete(span);
            self.begin(now);
        }
    }

    fn begin(&mut self, now: Time) {
        self.span = Some(Span {
            since: now,
            latest: now,
            bytes: 0,
        });
    }

    fn complete(&mut self, span: Span) {
        if self.until_next > 0 {
            self.until_next -= 1;
            return;
        }
        match self.way() {
            Way::Here => self.here.add(span),
            Way::Aside => self.aside.add(span),
        }
        self.spans += 1;
        if self.spans == TRIAL_SPANS {
            let verdict = match self.aside.rate() >= ASIDE_GAIN_MIN * self.here.rate() {
                true => Way::Aside,
                false => Way::Here,
            };
            *self = Self {
                verdict,
                until_next: TRIAL_SPANS_BETWEEN,
                ..Self::new()
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: usize = 256 * 1024;

    /// A session whose bursts take so long here, and so long aside.
    struct Session {
        trial: Trial,
        now: Time,
        took: [Duration; 2],
        /// Bursts that were worked on, here and aside.
        bursts: [u32; 2],
    }

    impl Session {
        fn new(here: u64, aside: u64) -> Self {
            Self {
                trial: Trial::new(),
                now: Time::ZERO,
                took: [here, aside].map(Duration::from_micros),
                bursts: [0; 2],
            }
        }

        /// Works until a verdict was reached, and returns it.
        fn verdict(&mut self) -> Way {
            while self.trial.until_next > 0 {
                self.work();
            }
            while self.trial.until_next == 0 {
                self.work();
            }
            self.trial.verdict
        }

        fn work(&mut self) {
            let way = self.trial.way() as usize;
            self.now += self.took[way];
            self.bursts[way] += 1;
            self.trial.worked(BURST, self.now);
        }
    }

    #[test]
    fn what_is_done_sooner_is_done_until_something_else_is() {
        let mut session = Session::new(500, 400);
        assert_eq!(session.trial.way(), Way::Here, "until it is known better");
        for (here, aside, verdict) in [
            (500, 400, Way::Aside),
            (500, 550, Way::Here),
            (500, 500, Way::Here), // it costs wake-ups
            (500, 480, Way::Here),
            (900, 300, Way::Aside),
        ] {
            session.took = [here, aside].map(Duration::from_micros);
            assert_eq!(session.verdict(), verdict, "{here} and {aside} us");
            assert_eq!(session.trial.way(), verdict);
        }
    }

    #[test]
    fn trying_takes_a_small_part_of_the_work() {
        let mut session = Session::new(500, 550);
        for _ in 0..10 {
            session.verdict();
        }
        let [here, aside] = session.bursts;
        assert!(aside > 0 && aside * 15 < here, "{here} and {aside}");
    }

    #[test]
    fn pauses_are_nobodys_time() {
        let mut session = Session::new(500, 400);
        session.verdict();
        while session.trial.until_next > 0 {
            session.work();
        }
        // In every span of the trial that is aside there is one.
        let mut paused = 0;
        while session.trial.until_next == 0 {
            let is_aside = session.trial.way() == Way::Aside;
            if is_aside && paused == session.trial.spans {
                session.now += 2 * TRIAL_PAUSE_MAX;
            }
            paused = session.trial.spans + 1;
            session.work();
        }
        assert_eq!(session.trial.verdict, Way::Aside);
    }
}
