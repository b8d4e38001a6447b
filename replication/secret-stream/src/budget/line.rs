//! Those who wait for room in a part of a budget.
//!
//! Knows how many there are, were of late, and since when. Does not know what they are given.

use tokio::time::Instant;

use super::Part;
use super::tempo::HURRIED;

/// Those who wait for room.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Line {
    /// Units that are waited for.
    pub(super) units: usize,
    /// The most of them, but for those that were waited for by who went away, until as many were got: else those who come last
    /// would wait for longer, the fewer are left.
    pub(super) most: usize,
    /// How many were got since.
    got: usize,
    /// Since when there has been somebody, but for pauses in which nobody could have hurried.
    pub(super) since: Option<Instant>,
    /// When the last one left.
    left: Option<Instant>,
}

impl Line {
    fn join(&mut self, units: usize, now: Instant) {
        if self.units == 0 && self.left.is_none_or(|left| left + HURRIED.still < now) {
            self.since = Some(now);
        }
        self.units += units;
        if self.units >= self.most {
            (self.most, self.got) = (self.units, 0);
        }
    }

    fn leave(&mut self, units: usize, has_room: bool, now: Instant) {
        self.units -= units;
        match has_room {
            true => self.got += units,
            false => self.most = self.most.saturating_sub(units).max(self.units),
        }
        if self.got >= self.most {
            (self.most, self.got) = (self.units, 0);
        }
        if self.units == 0 {
            self.left = Some(now);
        }
    }
}

/// Counts one who waits, also if it goes away.
pub(super) struct Waiting<'a> {
    part: &'a Part,
    units: usize,
    has_room: bool,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(part: &'a Part, units: usize) -> Self {
        part.line().join(units, Instant::now());
        Self {
            part,
            units,
            has_room: false,
        }
    }

    /// It has its room.
    pub(super) fn end(mut self) {
        self.has_room = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut line = self.part.line();
        line.leave(self.units, self.has_room, Instant::now());
    }
}
