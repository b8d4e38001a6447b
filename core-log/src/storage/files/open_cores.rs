//! Which cores this process has open, so that one that is just being closed by another thread is
//! waited for instead of found locked.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use ferrocore_primitives::keys::DiscoveryKey;

use super::file_core::FileCore;
use crate::storage::lock;

/// How long an earlier handle may take to flush and close: a disk that is busy elsewhere can
/// take seconds for a sync.
const CLOSE_WAIT_MAX: Duration = Duration::from_secs(30);

/// The cores that are open.
#[derive(Default)]
pub(super) struct OpenCores {
    cores: Mutex<HashMap<DiscoveryKey, Weak<FileCore>>>,
    closed: Condvar,
}

/// Keeps a core registered until dropped.
pub(super) struct Registration {
    open_cores: Arc<OpenCores>,
    core: DiscoveryKey,
}

impl OpenCores {
    /// Registers `core`, or `None` if it stays open elsewhere.
    pub(super) fn register(this: &Arc<Self>, core: DiscoveryKey) -> Option<Registration> {
        Self::register_within(this, core, CLOSE_WAIT_MAX)
    }

    fn register_within(
        this: &Arc<Self>,
        core: DiscoveryKey,
        wait_max: Duration,
    ) -> Option<Registration> {
        let cores = lock(&this.cores);
        let wait = this
            .closed
            .wait_timeout_while(cores, wait_max, |cores| cores.contains_key(&core));
        let (mut cores, _) = wait.unwrap_or_else(PoisonError::into_inner);
        if cores.contains_key(&core) {
            return None;
        }
        cores.insert(core, Weak::new());
        Some(Registration {
            open_cores: Arc::clone(this),
            core,
        })
    }

    /// Keeps a way to a core that is registered.
    pub(super) fn attach(&self, core: &Arc<FileCore>) {
        if let Some(place) = lock(&self.cores).get_mut(&core.core()) {
            *place = Arc::downgrade(core);
        }
    }

    /// The core, if it is open.
    pub(super) fn get(&self, core: &DiscoveryKey) -> Option<Arc<FileCore>> {
        lock(&self.cores).get(core)?.upgrade()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock(&self.open_cores.cores).remove(&self.core);
        self.open_cores.closed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_closes_in_time_is_waited_for() {
        let open_cores = Arc::new(OpenCores::default());
        let core = DiscoveryKey::from([1; 32]);
        let held = OpenCores::register_within(&open_cores, core, Duration::ZERO).unwrap();
        assert!(OpenCores::register_within(&open_cores, core, Duration::ZERO).is_none());
        let closing = std::thread::spawn(move || drop(held));
        assert!(OpenCores::register(&open_cores, core).is_some());
        closing.join().unwrap();
    }
}
