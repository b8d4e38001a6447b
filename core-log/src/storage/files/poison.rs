//! Whether an open core must refuse work: memory and disk may differ, or what it answered may be wrong.
//!
//! Knows who was told why. Does not know what failed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ferrocore_primitives::keys::DiscoveryKey;

use crate::storage::{StorageError, lock};

/// Once set it stays until the core is opened again.
#[derive(Default)]
pub(super) struct Poison {
    is_set: AtomicBool,
    /// Why, where nobody was told.
    untold: Mutex<Option<StorageError>>,
}

impl Poison {
    /// Refuses work from now on. The caller tells why.
    pub(super) fn set(&self) {
        self.is_set.store(true, Ordering::Release);
    }

    /// Refuses work from now on, and tells whoever is refused first that `error` is the cause: where it
    /// was met nobody could be told.
    pub(super) fn set_because(&self, error: StorageError) {
        let mut untold = lock(&self.untold);
        if !self.is_set.swap(true, Ordering::AcqRel) {
            *untold = Some(error);
        }
    }

    /// Fails if `core` must refuse work.
    ///
    /// # Errors
    /// The cause if nobody was told of it yet, else [`StorageError::Poisoned`].
    pub(super) fn check(&self, core: &DiscoveryKey) -> Result<(), StorageError> {
        if !self.is_set.load(Ordering::Acquire) {
            return Ok(());
        }
        let cause = lock(&self.untold).take();
        Err(cause.unwrap_or(StorageError::Poisoned { core: *core }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_told_once_and_only_if_nobody_knows_it() {
        let core = DiscoveryKey::from([1; 32]);
        let cause = || StorageError::NotOpen { core };
        let (untold, told) = (Poison::default(), Poison::default());
        assert!(untold.check(&core).is_ok());
        untold.set_because(cause());
        told.set();
        told.set_because(cause());
        let is_cause = matches!(untold.check(&core), Err(StorageError::NotOpen { .. }));
        assert!(is_cause);
        for poison in [untold, told] {
            let refused = poison.check(&core);
            assert!(matches!(refused, Err(StorageError::Poisoned { .. })));
        }
    }
}
