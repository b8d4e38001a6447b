//! The moments at which somebody who waits on one channel has waited long enough.
//!
//! Knows times. Does not know what is waited for: see [`Patience`] for a longer log, and `asking` for blocks.

use ferrocore_primitives::time::Time;

use crate::patience::Patience;

/// Most of many thousand channels have none.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// With the peer, for the log that it owes.
    pub(super) patience: Patience,
    /// When to say what time it is to those who wait for a longer log, whoever owes it.
    pub(super) updates_due: Option<Time>,
    /// Until then, blocks that somebody waits for are left to faster peers.
    pub(super) left_until: Option<Time>,
    /// While answers wait for others.
    pub(super) parked: Option<Parked>,
}

/// Answers wait for others, and take room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parked {
    /// When to see whether somebody else wants it.
    pub(super) look_at: Time,
    /// How often somebody else had found too little when they came.
    pub(super) refused: u64,
}

impl Waits {
    /// The next of them.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let of_patience = self.patience.next_deadline();
        let parked = self.parked.map(|parked| parked.look_at);
        let deadlines = [of_patience, self.updates_due, self.left_until, parked];
        deadlines.into_iter().flatten().min()
    }
}
