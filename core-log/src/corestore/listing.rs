//! What is in a store: its cores and their names.

use ferrocore_primitives::keys::{DiscoveryKey, Key};

use super::{Corestore, Inner, StoreError};
use crate::core::Core;
use crate::storage::{Alias, CREATED_UNDER};

/// A core of the store, be it damaged.
#[derive(Debug)]
#[non_exhaustive]
pub struct ListedCore {
    /// Its discovery key, by which it can be [purged](Corestore::purge).
    pub discovery_key: DiscoveryKey,
    /// What it tells of itself, or why it cannot be read; that names the core and the part of it.
    pub info: Result<CoreInfo, StoreError>,
}

/// What is known of a core in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoreInfo {
    /// Its key.
    pub key: Key,
    /// Its discovery key.
    pub discovery_key: DiscoveryKey,
    /// The name and namespace it was created under.
    pub alias: Option<Alias>,
    /// Blocks in the log.
    pub length: u64,
    /// Which history it is at.
    pub fork: u64,
}

impl Corestore {
    /// All cores of the store, whatever their namespace, in the order of their discovery keys. One that is
    /// damaged keeps none of the others out.
    ///
    /// # Errors
    /// [`StoreError::Storage`] if nobody can say which cores there are.
    pub fn list(&self) -> Result<Vec<ListedCore>, StoreError> {
        let mut cores = self.inner.storage.list()?;
        cores.sort_unstable();
        let listed = |discovery_key| {
            let info = self.inner.info(&discovery_key).transpose()?;
            Some(ListedCore {
                discovery_key,
                info,
            })
        };
        Ok(cores.into_iter().filter_map(listed).collect())
    }

    /// Whether a core is in the store, be it too damaged to be opened.
    ///
    /// # Errors
    /// [`StoreError::Storage`] if the store cannot be listed.
    pub fn contains(&self, core: &DiscoveryKey) -> Result<bool, StoreError> {
        Ok(self.inner.storage.list()?.contains(core))
    }

    /// Every name and the core last kept under it, by namespace and name.
    ///
    /// # Errors
    /// [`StoreError::Storage`] if the index of names cannot be read.
    pub fn aliases(&self) -> Result<Vec<(Alias, DiscoveryKey)>, StoreError> {
        let mut aliases = self.inner.storage.aliases()?;
        aliases.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(aliases)
    }

    /// The names of this namespace and the cores last kept under them, by name.
    ///
    /// # Errors
    /// [`StoreError::Storage`] if the index of names cannot be read.
    pub fn names(&self) -> Result<Vec<(String, DiscoveryKey)>, StoreError> {
        let here = |(alias, core): (Alias, _)| {
            (alias.namespace == self.namespace).then_some((alias.name, core))
        };
        Ok(self.aliases()?.into_iter().filter_map(here).collect())
    }

    /// The namespaces that have names, each a hash over its parent's and what it was called; all
    /// zero for the root. What they were called is not kept.
    ///
    /// # Errors
    /// [`StoreError::Storage`] if the index of names cannot be read.
    pub fn namespaces(&self) -> Result<Vec<[u8; 32]>, StoreError> {
        let aliases = self.aliases()?.into_iter();
        let mut namespaces: Vec<_> = aliases.map(|(alias, _)| alias.namespace).collect();
        namespaces.dedup();
        Ok(namespaces)
    }
}

impl Inner {
    fn info(&self, core: &DiscoveryKey) -> Result<Option<CoreInfo>, StoreError> {
        // What is on disk may lag behind a core that is being written.
        if let Some(core) = self.opened.get(core) {
            return Ok(Some(CoreInfo::of(&core)));
        }
        Ok(self.storage.peek(core)?.map(|header| CoreInfo {
            alias: header.alias(),
            key: header.key,
            discovery_key: *core,
            length: header.head.length,
            fork: header.head.fork,
        }))
    }
}

impl CoreInfo {
    /// What an open core knows of itself.
    fn of(core: &Core) -> Self {
        let head = core.head();
        Self {
            key: core.key(),
            discovery_key: core.discovery_key(),
            alias: Alias::from_user_data(CREATED_UNDER, |key| core.user_data(key)),
            length: head.length,
            fork: head.fork,
        }
    }
}
