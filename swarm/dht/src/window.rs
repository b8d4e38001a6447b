//! How many requests may be sent in a while, so that a burst of queries does not flood a home router.
//! Knows counts and slots of time (`dht-rpc/lib/io.js` 6.27). Does not know requests.
//!
//! Four slots of [`SLOT`] each count what was sent and not answered. The window is full when the present slot or all
//! together have too many; what a slot counted is forgotten when its turn comes again.

use std::time::Duration;

use ferrocore_primitives::time::Time;

/// How long a slot counts.
pub const SLOT: Duration = Duration::from_millis(750);

/// Requests of one slot, unless told otherwise; twice as many in all slots.
pub const WINDOW_MAX: usize = 80;

const SLOTS: usize = 4;

/// The window.
#[derive(Debug)]
pub struct Window {
    sent: [usize; SLOTS],
    at: usize,
    turns_at: Time,
    max: usize,
}

impl Window {
    /// An empty window of `max` requests a slot.
    pub fn new(now: Time, max: usize) -> Self {
        Self {
            sent: [0; SLOTS],
            at: 0,
            turns_at: now + SLOT,
            max,
        }
    }

    /// Whether the next request must wait.
    pub fn is_full(&mut self, now: Time) -> bool {
        self.turn(now);
        self.slot() >= self.max || self.sent.iter().sum::<usize>() >= self.max.saturating_mul(2)
    }

    /// A request was sent.
    pub fn sent(&mut self, now: Time) {
        self.turn(now);
        let count = self.slot() + 1;
        self.set(count);
    }

    /// A request was answered or given up.
    pub fn ended(&mut self, now: Time) {
        self.turn(now);
        let count = self.slot().saturating_sub(1);
        self.set(count);
    }

    /// When there will be room again at the latest, if nothing is answered.
    pub fn turns_at(&self) -> Time {
        self.turns_at
    }

    fn turn(&mut self, now: Time) {
        for _ in 0..SLOTS {
            if now < self.turns_at {
                return;
            }
            self.at = (self.at + 1) % SLOTS;
            self.set(0);
            self.turns_at += SLOT;
        }
        if now >= self.turns_at {
            self.turns_at = now + SLOT;
        }
    }

    fn slot(&self) -> usize {
        self.sent.get(self.at).copied().unwrap_or_default()
    }

    fn set(&mut self, count: usize) {
        if let Some(slot) = self.sent.get_mut(self.at) {
            *slot = count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_fills_and_its_count_is_forgotten_three_slots_later() {
        let mut window = Window::new(Time::ZERO, 3);
        let at = |slots: u32| Time::ZERO + SLOT * slots;
        for _ in 0..3 {
            assert!(!window.is_full(at(0)));
            window.sent(at(0));
        }
        assert!(window.is_full(at(0)));
        for _ in 0..3 {
            assert!(!window.is_full(at(1)));
            window.sent(at(1));
        }
        assert!(window.is_full(at(2)), "six of six in all");
        assert!(window.is_full(at(3)));
        assert!(!window.is_full(at(4)), "the first three are forgotten");
    }

    #[test]
    fn answers_make_room_in_their_slot() {
        let mut window = Window::new(Time::ZERO, 1);
        window.ended(Time::ZERO);
        window.sent(Time::ZERO);
        assert!(window.is_full(Time::ZERO));
        window.ended(Time::ZERO);
        assert!(!window.is_full(Time::ZERO));
    }

    #[test]
    fn a_long_pause_empties_the_window() {
        let mut window = Window::new(Time::ZERO, 1);
        window.sent(Time::ZERO);
        let later = Time::ZERO + Duration::from_secs(3600);
        assert!(!window.is_full(later));
        assert_eq!(window.turns_at(), later + SLOT);
    }
}
