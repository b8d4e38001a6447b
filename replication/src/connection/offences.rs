//! What the peer did wrong without losing the connection.
//!
//! Knows how often is too often. Does not know what follows for a channel.

use std::collections::VecDeque;

use crate::limits::{MISBEHAVIOURS_MAX, STRIKES_MAX};
use crate::misbehaviour::{PeerMisbehaved, Verdict};

/// Those so far.
#[derive(Debug, Default)]
pub(super) struct Offences {
    /// Those that cost a channel.
    strikes: u32,
    /// Until somebody asks.
    waiting: VecDeque<PeerMisbehaved>,
}

impl Offences {
    /// Notes one more.
    ///
    /// # Errors
    /// [`PeerMisbehaved::TooManyStrikes`] if it is one too many.
    pub(super) fn note(&mut self, misbehaved: PeerMisbehaved) -> Result<(), PeerMisbehaved> {
        self.strikes += u32::from(misbehaved.verdict() == Verdict::CloseChannel);
        if self.waiting.len() < MISBEHAVIOURS_MAX {
            self.waiting.push_back(misbehaved);
        }
        match self.strikes {
            STRIKES_MAX => Err(PeerMisbehaved::TooManyStrikes),
            _ => Ok(()),
        }
    }

    /// The first that nobody asked for.
    pub(super) fn next(&mut self) -> Option<PeerMisbehaved> {
        self.waiting.pop_front()
    }
}
