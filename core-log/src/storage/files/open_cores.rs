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
    cores: Mutex<Cores>,
    changed: Condvar,
}

type Cores = HashMap<DiscoveryKey, Held>;

/// A core that is open, is being opened or is closing.
#[derive(Default)]
struct Held {
    core: Weak<FileCore>,
    /// Whether it was opened whatever its roots are: then somebody audits it, who may take hours.
    is_audited: bool,
}

impl Held {
    /// Whether it may be free soon. Others ask for a core that is open only as it closes.
    fn is_worth_waiting_for(&self) -> bool {
        !self.is_audited || self.core.strong_count() == 0
    }
}

/// Keeps a core registered until dropped.
pub(super) struct Registration {
    open_cores: Arc<OpenCores>,
    core: DiscoveryKey,
}

impl OpenCores {
    /// Registers `core`, or `None` if it stays open elsewhere, as for an audit.
    pub(super) fn register(this: &Arc<Self>, core: DiscoveryKey) -> Option<Registration> {
        Self::register_within(this, core, CLOSE_WAIT_MAX)
    }

    fn register_within(
        this: &Arc<Self>,
        core: DiscoveryKey,
        wait_max: Duration,
    ) -> Option<Registration> {
        let is_to_wait = |cores: &mut Cores| {
            let place = cores.get(&core);
            place.is_some_and(Held::is_worth_waiting_for)
        };
        let cores = lock(&this.cores);
        let wait = this.changed.wait_timeout_while(cores, wait_max, is_to_wait);
        let (mut cores, _) = wait.unwrap_or_else(PoisonError::into_inner);
        if cores.contains_key(&core) {
            return None;
        }
        cores.insert(core, Held::default());
        Some(Registration {
            open_cores: Arc::clone(this),
            core,
        })
    }

    /// Keeps a way to a core that is registered.
    pub(super) fn attach(&self, core: &Arc<FileCore>) {
        self.keep(core, false);
    }

    /// As [`OpenCores::attach`], for one that nobody gets or waits for until it is dropped.
    pub(super) fn attach_audited(&self, core: &Arc<FileCore>) {
        self.keep(core, true);
        self.changed.notify_all();
    }

    fn keep(&self, core: &Arc<FileCore>, is_audited: bool) {
        if let Some(place) = lock(&self.cores).get_mut(&core.core()) {
            let core = Arc::downgrade(core);
            *place = Held { core, is_audited };
        }
    }

    /// The core, if it is open to all.
    pub(super) fn get(&self, core: &DiscoveryKey) -> Option<Arc<FileCore>> {
        let cores = lock(&self.cores);
        let place = cores.get(core).filter(|place| !place.is_audited)?;
        place.core.upgrade()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock(&self.open_cores.cores).remove(&self.core);
        self.open_cores.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ferrocore_primitives::keys::Key;

    use super::*;
    use crate::storage::files::block_file::OsFile;
    use crate::storage::files::place::core_files;
    use crate::storage::{CoreHeader, Durability, Head};

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

    /// Goal: nobody waits for a core as long as an audit holds it, but for one that it has let go of and that is closing.
    #[test]
    fn a_core_that_is_audited_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| Box::new(OsFile::new(directory.path().join(name))) as _;
        let files = core_files(directory.path().to_owned(), file);
        let header = CoreHeader {
            key: Key::from([1; 32]),
            manifest: None,
            key_pair: None,
            user_data: BTreeMap::new(),
            head: Head::empty(),
        };
        let created = FileCore::create_shared(files, header, Durability::Buffered);
        let (opened, shared) = created.unwrap();
        let (open_cores, core) = (Arc::new(OpenCores::default()), shared.core());
        let held = OpenCores::register_within(&open_cores, core, Duration::ZERO).unwrap();
        let is_waited_for = || lock(&open_cores.cores)[&core].is_worth_waiting_for();
        assert!(is_waited_for(), "it is being opened");
        open_cores.attach(&shared);
        assert!(is_waited_for() && open_cores.get(&core).is_some());
        open_cores.attach_audited(&shared);
        assert!(!is_waited_for() && open_cores.get(&core).is_none());
        assert!(OpenCores::register(&open_cores, core).is_none());
        drop((opened, shared));
        assert!(is_waited_for(), "it is closing");
        drop(held);
        assert!(OpenCores::register(&open_cores, core).is_some());
    }
}
