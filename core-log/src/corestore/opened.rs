//! The cores of a store that are open, and who waits for more of them.
//!
//! Holds no core open: a core that is dropped everywhere else closes, and its place is cleared
//! when there are many such.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use event_listener::Event;
use ferrocore_primitives::keys::DiscoveryKey;

use crate::core::{Core, WeakCore};
use crate::storage::lock;

/// Fewer places than this are not worth clearing.
const PLACES_MIN: usize = 64;

/// The open cores of a store, in the order they were opened.
#[derive(Default)]
pub(super) struct Registry {
    cores: Mutex<Cores>,
    changed: Event,
}

#[derive(Default)]
struct Cores {
    ages: HashMap<DiscoveryKey, u64>,
    by_age: BTreeMap<u64, WeakCore>,
    next_age: u64,
    /// At so many places those of closed cores are cleared.
    clear_at: usize,
    /// From which age on readers of cores wait for suppliers, and for how many they do so. Each open core of the least of
    /// these ages or later counts one finder.
    waits: BTreeMap<u64, usize>,
    /// Cores that somebody opens, or deletes, this moment.
    busy: HashMap<DiscoveryKey, Arc<Mutex<()>>>,
    closed: bool,
}

impl Registry {
    /// The core if it is open.
    pub(super) fn get(&self, core: &DiscoveryKey) -> Option<Core> {
        lock(&self.cores).get(core)
    }

    /// The core if it is open, else what `open` makes of it. It opens no core twice, and lets
    /// nobody wait who asks for another core.
    pub(super) fn get_or_open<E>(
        &self,
        core: &DiscoveryKey,
        open: impl FnOnce() -> Result<Core, E>,
    ) -> Result<Core, E> {
        if let Some(core) = self.get(core) {
            return Ok(core);
        }
        self.alone_with(core, || {
            if let Some(core) = self.get(core) {
                return Ok(core); // whoever was alone with it before opened it
            }
            let opened = open()?;
            lock(&self.cores).insert(*core, &opened);
            self.changed.notify(usize::MAX);
            Ok(opened)
        })
    }

    /// What `work` makes of a core that nobody has open nor opens meanwhile.
    pub(super) fn unless_open<T>(
        &self,
        core: &DiscoveryKey,
        work: impl FnOnce() -> T,
    ) -> Option<T> {
        self.alone_with(core, || self.get(core).is_none().then(work))
    }

    /// Runs `work` while nobody else is alone with the same core.
    fn alone_with<T>(&self, core: &DiscoveryKey, work: impl FnOnce() -> T) -> T {
        let place = Arc::clone(lock(&self.cores).busy.entry(*core).or_default());
        let result = {
            let _alone = lock(&place);
            work()
        };
        let mut cores = lock(&self.cores);
        // Ours and the map's: nobody waits for it, and nobody can begin to.
        if Arc::strong_count(&place) == 2 {
            cores.busy.remove(core);
        }
        result
    }

    /// From now on readers of cores opened at `age` or later wait for suppliers.
    pub(super) fn add_wait(&self, age: u64) {
        lock(&self.cores).add_wait(age);
    }

    /// What was [added](Self::add_wait) is over.
    pub(super) fn remove_wait(&self, age: u64) {
        lock(&self.cores).remove_wait(age);
    }

    /// What was added for `age` is for `later` from now on.
    pub(super) fn put_off_wait(&self, age: u64, later: u64) {
        let mut cores = lock(&self.cores);
        cores.add_wait(later);
        cores.remove_wait(age);
    }

    /// The age of the next core that is opened.
    pub(super) fn next_age(&self) -> u64 {
        lock(&self.cores).next_age
    }

    /// Waits until a core is open that was opened at `age` or later; for ever once the store is dropped.
    pub(super) async fn opened_since(&self, age: u64) {
        loop {
            let changed = self.changed.listen();
            if lock(&self.cores).next(age).is_some() {
                return;
            }
            changed.await;
        }
    }

    /// Tells those who wait that no more cores will be opened.
    pub(super) fn close(&self) {
        lock(&self.cores).closed = true;
        self.changed.notify(usize::MAX);
    }
}

impl Cores {
    fn get(&self, core: &DiscoveryKey) -> Option<Core> {
        self.by_age.get(self.ages.get(core)?)?.upgrade()
    }

    fn insert(&mut self, key: DiscoveryKey, core: &Core) {
        if self.ages.len() >= self.clear_at {
            self.by_age.retain(|_, core| core.upgrade().is_some());
            self.ages.retain(|_, age| self.by_age.contains_key(age));
            self.clear_at = PLACES_MIN.max(2 * self.ages.len());
        }
        let age = self.next_age;
        self.next_age += 1;
        self.by_age.insert(age, core.downgrade());
        if let Some(old) = self.ages.insert(key, age) {
            self.by_age.remove(&old);
        }
        if age >= self.waits_from() {
            core.add_finder();
        }
    }

    fn add_wait(&mut self, age: u64) {
        let before = self.waits_from();
        *self.waits.entry(age).or_default() += 1;
        self.open(age, before).for_each(|core| core.add_finder());
    }

    fn remove_wait(&mut self, age: u64) {
        if let Entry::Occupied(mut waits) = self.waits.entry(age) {
            *waits.get_mut() -= 1;
            if *waits.get() == 0 {
                waits.remove();
            }
        }
        let after = self.waits_from();
        self.open(age, after).for_each(|core| core.remove_finder());
    }

    /// The least age from which on readers wait.
    fn waits_from(&self) -> u64 {
        self.waits.keys().next().copied().unwrap_or(u64::MAX)
    }

    /// The open cores of age `from` or later, and before `to`.
    fn open(&self, from: u64, to: u64) -> impl Iterator<Item = Core> {
        let cores = self.by_age.range(from.min(to)..to);
        cores.filter_map(|(_, core)| core.upgrade())
    }

    /// The first core opened at `age` or later that is still open, and its age.
    fn next(&self, age: u64) -> Option<(u64, Core)> {
        let mut later = self.by_age.range(age..);
        later.find_map(|(age, core)| Some((*age, core.upgrade()?)))
    }
}

/// A guard under which readers of every core of a store, open now or later, wait for suppliers to
/// be found. Made by [`Corestore::finding`](super::Corestore::finding).
#[must_use = "dropping it ends the search"]
pub struct StoreFinding {
    registry: Arc<Registry>,
}

impl StoreFinding {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        registry.add_wait(0);
        Self { registry }
    }
}

impl Drop for StoreFinding {
    fn drop(&mut self) {
        self.registry.remove_wait(0);
    }
}

impl std::fmt::Debug for StoreFinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreFinding").finish_non_exhaustive()
    }
}

/// The open cores of a store: those open when it was made, then each as it is opened.
///
/// There is no queue to overflow: it keeps its place in the list of open cores, and a core that
/// closes before it is told is not told.
pub struct OpenedCores {
    pub(super) registry: Arc<Registry>,
    /// The age of the next core to tell.
    pub(super) age: u64,
}

impl OpenedCores {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self { registry, age: 0 }
    }

    /// The next open core, if there is one now.
    pub fn try_next(&mut self) -> Option<Core> {
        let (age, core) = lock(&self.registry.cores).next(self.age)?;
        self.age = age + 1;
        Some(core)
    }

    /// The next open core, waiting for it; `None` once the store is dropped.
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Core> {
        loop {
            let changed = self.registry.changed.listen();
            if let Some(core) = self.try_next() {
                return Some(core);
            }
            if lock(&self.registry.cores).closed {
                return None;
            }
            changed.await;
        }
    }
}

impl std::fmt::Debug for OpenedCores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenedCores")
            .field("age", &self.age)
            .finish_non_exhaustive()
    }
}
