//! One reader and several seeders on lines of a given delay and rate, on virtual time.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use ferrocore_log::{Core, Corestore};
use ferrocore_primitives::time::Time;
use ferrocore_replication::connection::Arriving;

use super::End;

/// A seeder, and the line to it.
pub(crate) struct Line {
    pub(crate) seeder: End,
    /// The reader's end of the connection.
    pub(crate) reader: End,
    /// Whether nothing comes from the seeder any more.
    pub(crate) is_mute: bool,
    /// Whether the reader sees bytes of long frames come all the same, none of them whole.
    pub(crate) trickles: bool,
    delay: Duration,
    /// What goes to the reader, in bytes a second.
    rate: u64,
    free_at: Time,
    to_seeder: VecDeque<(Time, Bytes)>,
    to_reader: VecDeque<(Time, Bytes)>,
}

/// All lines of a reader.
pub(crate) struct Lines {
    pub(crate) lines: Vec<Line>,
    pub(crate) now: Time,
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self {
            lines: Vec::new(),
            now: Time::ZERO,
        }
    }

    /// Adds a line from `there`, on which `core` is offered, to a seeder with the cores of `here`.
    pub(crate) fn add(
        &mut self,
        here: &Corestore,
        there: &Corestore,
        core: &Core,
        delay: Duration,
        rate: u64,
    ) {
        let mut line = Line {
            seeder: End::new(true, here),
            reader: End::new(false, there),
            is_mute: false,
            trickles: false,
            delay,
            rate,
            free_at: self.now,
            to_seeder: VecDeque::new(),
            to_reader: VecDeque::new(),
        };
        line.reader.connection.attach(core);
        self.lines.push(line);
    }

    /// Lets time pass until `is_done`, which is asked after each event. Returns how long it took.
    pub(crate) fn run_until(&mut self, mut is_done: impl FnMut() -> bool) -> Duration {
        let start = self.now;
        for _ in 0..2_000_000 {
            self.work();
            if is_done() {
                return self.now.saturating_since(start);
            }
            if self.lines.iter().any(|line| !line.is_idle()) {
                continue; // being asked, it wants something
            }
            let next = self.lines.iter().filter_map(Line::next_event).min();
            let next = next.expect("something will happen, or it was in vain");
            assert!(next > self.now, "time passes");
            self.now = next;
        }
        panic!("it does not end");
    }

    /// Lets `time` pass.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.work();
            let next = self.lines.iter().filter_map(Line::next_event).min();
            match next.filter(|next| *next <= end) {
                Some(next) => {
                    assert!(next > self.now, "time passes");
                    self.now = next;
                }
                None => break,
            }
        }
        self.now = end;
    }

    /// Does all that can be done now.
    fn work(&mut self) {
        let mut has_moved = true;
        while std::mem::take(&mut has_moved) {
            for line in &mut self.lines {
                has_moved |= line.work(self.now);
            }
        }
    }
}

impl Line {
    fn work(&mut self, now: Time) -> bool {
        arrive(&mut self.to_seeder, &mut self.seeder.arriving, now);
        arrive(&mut self.to_reader, &mut self.reader.arriving, now);
        if self.trickles {
            let (any, long) = (now, now);
            self.reader.connection.note_arriving(Arriving { any, long });
        }
        let asked = self.reader.step(now).expect("the reader is not misused");
        let answered = self.seeder.step(now).expect("the seeder is not misused");
        let has_moved = !asked.is_empty() || !answered.is_empty();
        let at = now + self.delay;
        self.to_seeder
            .extend(asked.into_iter().map(|frame| (at, frame)));
        for frame in answered.into_iter().filter(|_| !self.is_mute) {
            let takes = Duration::from_secs_f64(frame.len() as f64 / self.rate as f64);
            self.free_at = self.free_at.max(now) + takes;
            self.to_reader.push_back((self.free_at + self.delay, frame));
        }
        has_moved || !self.is_idle()
    }

    fn is_idle(&self) -> bool {
        self.reader.is_idle() && self.seeder.is_idle()
    }

    fn next_event(&self) -> Option<Time> {
        let frames = [self.to_seeder.front(), self.to_reader.front()];
        let frames = frames.into_iter().flatten().map(|(at, _)| *at);
        let ends = [&self.seeder, &self.reader];
        let timeouts = ends
            .into_iter()
            .filter_map(|end| end.connection.next_timeout());
        frames.chain(timeouts).min()
    }
}

fn arrive(line: &mut VecDeque<(Time, Bytes)>, arriving: &mut VecDeque<Bytes>, now: Time) {
    let count = line.iter().take_while(|(at, _)| *at <= now).count();
    arriving.extend(line.drain(..count).map(|(_, frame)| frame));
}
