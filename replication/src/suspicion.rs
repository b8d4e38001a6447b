//! What is thought of a peer whose proof does not hold: it lies, or the core's signer signed two histories.
//!
//! The second shows when the peer can prove its whole log. So it is asked for that, as JavaScript does
//! (`hypercore/lib/replicator.js` 11.37.1, `_checkIfConflict`), before it is given up.

use ferrocore_log::changeset::VerifyError;

use crate::limits::CONFLICT_PROOFS_MAX;

/// One peer's standing on one channel. Errors are boxed: they are large, and seldom there.
#[derive(Debug, Default)]
pub(crate) enum Suspicion {
    /// Nothing was wrong so far.
    #[default]
    None,
    /// It was asked for its whole log, because of this.
    Asked(Box<VerifyError>),
    /// It answered or did not: it is to be given up.
    Over(Box<VerifyError>),
    /// It was given up.
    Settled,
}

impl Suspicion {
    /// Whether nothing is to be asked of the peer.
    pub(crate) fn is_any(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// There will be no more to judge by.
    pub(crate) fn conclude(&mut self) {
        *self = match std::mem::replace(self, Self::Settled) {
            Self::Asked(error) => Self::Over(error),
            other => other,
        };
    }

    /// Why the peer is to be given up, once.
    pub(crate) fn take_verdict(&mut self) -> Option<VerifyError> {
        match std::mem::replace(self, Self::Settled) {
            Self::Over(error) => Some(*error),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// Whether a proof that fails like this may be one of another signed history.
pub(crate) fn may_show_conflict(error: &VerifyError) -> bool {
    matches!(
        error,
        VerifyError::Signature { .. } | VerifyError::Checksum { .. } | VerifyError::Prologue
    )
}

/// Counts the proofs that a peer shows without being asked.
#[derive(Debug, Default)]
pub(crate) struct Shown(u32);

impl Shown {
    /// Whether one more is looked at.
    pub(crate) fn is_one_more(&mut self) -> bool {
        self.0 += 1;
        self.0 <= CONFLICT_PROOFS_MAX
    }
}
