//! What share of its packets a path loses however slowly they are sent: radio, a bad cable, a policer of others.
//! Knows rounds and bytes. Does not know what is done about it.

use super::filter::{Window, Windowed};

/// The smallest share lost in any round of late. The rounds in which a sender drains the bottleneck's queue are among
/// them, so that loss which it causes itself does not count.
#[derive(Debug)]
pub(crate) struct Erasure {
    /// In bytes; what is acked and lost in a round fits.
    acked: u32,
    lost: u32,
    share: Windowed<SmallestShare>,
}

#[derive(Debug)]
struct SmallestShare;

impl Window for SmallestShare {
    /// A round.
    type At = u32;
    type Value = f32;
    const LEN: u64 = WINDOW_ROUNDS;

    fn age(now: u32, then: u32) -> u64 {
        now.wrapping_sub(then).into()
    }

    fn is_better(value: f32, than: f32) -> bool {
        value <= than
    }
}

impl Erasure {
    pub(crate) fn new() -> Self {
        Self {
            acked: 0,
            lost: 0,
            share: Windowed::new(),
        }
    }

    pub(crate) fn on_acked(&mut self, bytes: u64) {
        self.acked = self.acked.saturating_add(clamp(bytes));
    }

    pub(crate) fn on_lost(&mut self, bytes: u64) {
        self.lost = self.lost.saturating_add(clamp(bytes));
    }

    /// A round is over. Too few bytes say little: they are counted with the next round's.
    pub(crate) fn on_round(&mut self, round: u32, packet: u64) {
        let all = u64::from(self.acked) + u64::from(self.lost);
        if all < SAMPLE_PACKETS * packet {
            return;
        }
        #[allow(clippy::cast_precision_loss)] // a share need not be exact
        let share = self.lost as f32 / all as f32;
        self.share.update(round, share);
        (self.acked, self.lost) = (0, 0);
    }

    /// How many bytes have to be sent for one that arrives.
    pub(crate) fn factor(&self) -> f64 {
        1.0 / (1.0 - f64::from(self.share.get().unwrap_or(0.0).min(SHARE_MAX)))
    }
}

fn clamp(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// As long as the bandwidth is remembered, so that one phase that drains is always in it.
const WINDOW_ROUNDS: u64 = 10;
const SAMPLE_PACKETS: u64 = 64;
/// Worse paths are not worth flooding.
const SHARE_MAX: f32 = 0.5;
