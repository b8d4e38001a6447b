//! The secrets of a store: which there are, and how they get in and out of it.
//!
//! Knows which secret signs for which core, and guards cores whose secrets come in. Does not know how
//! secrets are written down ([`crate::backup`]).

use std::collections::HashSet;
#[cfg(feature = "files")]
use std::path::Path;
use std::sync::Arc;

use ferrocore_primitives::keys::{DiscoveryKey, Key};
use ferrocore_primitives::sign::{KeyPair, PublicKey};

#[cfg(feature = "files")]
use super::StoreOptions;
use super::{CoreOptions, Corestore, Inner, StoreError, signs_for};
use crate::core::{Core, Release};
use crate::manifest::Manifest;
#[cfg(feature = "files")]
use crate::root_secret::RestoreError;
use crate::root_secret::RootSecret;
#[cfg(feature = "files")]
use crate::storage::files::Files;
use crate::storage::{Alias, CoreHeader, StorageError};

/// A core that this store can sign for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CoreSecret {
    /// The core.
    pub key: Key,
    /// Its discovery key.
    pub discovery_key: DiscoveryKey,
    /// The name and namespace it was created under.
    pub alias: Option<Alias>,
    /// Who may sign for it, as far as is known.
    pub manifest: Option<Manifest>,
    /// What signs for it.
    pub key_pair: KeyPair,
    /// Where that comes from.
    pub origin: SecretOrigin,
    /// Whether the core must not be written until somebody shows how long it is.
    pub is_guarded: bool,
}

/// Where the secret of a core comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretOrigin {
    /// It derives from the root secret and a name, of this core or of one that belongs to it.
    Derived,
    /// It is kept in a file of its own, and the root secret does not bring it back.
    Imported,
}

impl Corestore {
    /// Opens the store in `directory` with this root secret, creating it if there is none: all named cores
    /// are those of the store that the secret is from, without their blocks.
    ///
    /// None of them can be written until a peer has proven how long it is; see [`Core::is_guarded`].
    ///
    /// # Errors
    /// [`RestoreError::OtherRoot`] if a store is there that has another root secret. That is put aside (into
    /// `keys/root-<fingerprint>`) if `replace` says so and the store has no cores, or if the names of its cores
    /// derive from `root` and none from it. [`RestoreError::NotOfStore`] if a store is there that lost its root
    /// secret, and no name of its cores derives from `root`, unless `replace` is set; [`RestoreError::Storage`].
    #[cfg(feature = "files")]
    pub fn restore(
        directory: impl AsRef<Path>,
        options: StoreOptions,
        root: &RootSecret,
        replace: bool,
    ) -> Result<Self, RestoreError> {
        let directory = directory.as_ref();
        Files::restore(directory, root, replace)?;
        let files = Files::open_with(directory, options.durability, options.open_files_max)?;
        Ok(Self::with_storage(files, options)?)
    }

    /// The secret that all named cores derive from, for a backup.
    pub fn root_secret(&self) -> &RootSecret {
        &self.inner.root_secret
    }

    /// The cores that this store can sign for, in the order of their discovery keys: without those that cannot
    /// be read, which [`Corestore::list`] names.
    ///
    /// # Errors
    /// [`StoreError::Storage`] if nobody can say which cores there are.
    pub fn core_secrets(&self) -> Result<Vec<CoreSecret>, StoreError> {
        let mut cores = self.inner.storage.list()?;
        cores.sort_unstable();
        let headers = cores
            .iter()
            .filter_map(|core| self.inner.storage.peek(core).ok()?);
        let secrets = headers.map(|header| self.inner.secret_of(header).transpose());
        let mut secrets = secrets.flatten().collect::<Result<Vec<_>, _>>()?;
        mark_derived(&mut secrets);
        Ok(secrets)
    }

    /// What this store signs for a core with, if it can.
    ///
    /// # Errors
    /// [`StoreError::Storage`] if the core cannot be read.
    pub fn core_secret(&self, core: &DiscoveryKey) -> Result<Option<CoreSecret>, StoreError> {
        match self.inner.storage.peek(core)? {
            Some(header) => self.inner.secret_of(header),
            None => Ok(None),
        }
    }

    /// Takes in the secret of a core, which is written here from now on: once a peer has proven how long it
    /// is (see [`Core::is_guarded`]). With the `manifest`, if its key is not the signer's own.
    ///
    /// # Errors
    /// [`StoreError::KeyPairMismatch`] if it does not sign for the core; [`StoreError::InUse`] if the core
    /// is open; [`StoreError::Storage`].
    pub fn import_secret(
        &self,
        key: &Key,
        manifest: Option<Manifest>,
        key_pair: &KeyPair,
    ) -> Result<Core, StoreError> {
        let core = key.discovery_key();
        let peeked = self.inner.storage.peek(&core)?;
        let known = peeked.and_then(|header| header.manifest);
        let manifest = manifest.filter(|manifest| manifest.belongs_to(key));
        let manifest = known.or(manifest).or_else(|| {
            let single = Manifest::single(key_pair.public_key());
            single.belongs_to(key).then_some(single)
        });
        let fits = |manifest: &Manifest| signs_for(key_pair.public_key(), key, Some(manifest));
        if !manifest.as_ref().is_some_and(fits) {
            return Err(StoreError::KeyPairMismatch { core: *key });
        }
        let storage = &self.inner.storage;
        // The guard is there before what it guards.
        let taken = self.inner.opened.unless_open(&core, || {
            storage.set_guarded(&core, true)?;
            storage.set_secret(&core, key_pair)
        });
        taken.ok_or(StoreError::InUse { core })??;
        self.get_with(CoreOptions {
            key: Some(*key),
            manifest,
            key_pair: Some(key_pair.clone()),
            ..CoreOptions::default()
        })
    }

    /// Opens a core under the name and namespace that it was created under in the store of the same root
    /// secret.
    ///
    /// # Errors
    /// [`StoreError::KeyMismatch`] if the name derives another core, and those of [`Corestore::get_with`].
    pub fn restore_named(
        &self,
        key: &Key,
        alias: &Alias,
        manifest: Option<Manifest>,
    ) -> Result<Core, StoreError> {
        let store = Self {
            inner: Arc::clone(&self.inner),
            namespace: alias.namespace,
        };
        let pair = store.key_pair(&alias.name);
        let single = Manifest::single(pair.public_key());
        let manifest = manifest.or_else(|| single.belongs_to(key).then(|| single.clone()));
        if !signs_for(pair.public_key(), key, manifest.as_ref()) {
            let (given, derived) = (*key, single.key());
            return Err(StoreError::KeyMismatch { given, derived });
        }
        store.get_with(CoreOptions {
            key: Some(*key),
            name: Some(alias.name.clone()),
            manifest,
            ..CoreOptions::default()
        })
    }
}

/// A core without a name may be signed with the pair of one that has: its secret is no other.
fn mark_derived(secrets: &mut [CoreSecret]) {
    let derived = |secret: &CoreSecret| secret.origin == SecretOrigin::Derived;
    let derived: HashSet<PublicKey> = secrets
        .iter()
        .filter(|secret| derived(secret))
        .map(|secret| secret.key_pair.public_key())
        .collect();
    for secret in secrets {
        if derived.contains(&secret.key_pair.public_key()) {
            secret.origin = SecretOrigin::Derived;
        }
    }
}

impl Inner {
    /// Guards a core that has just been opened to be written, if it must be.
    pub(super) fn guard(&self, core: &Core) -> Result<(), StorageError> {
        let discovery_key = core.discovery_key();
        if !self.storage.is_guarded(&discovery_key)? {
            return Ok(());
        }
        // A core may outlive the store, and must not keep it locked.
        let storage = Arc::downgrade(&self.storage);
        let release: Release = Arc::new(move || match storage.upgrade() {
            Some(storage) => storage.set_guarded(&discovery_key, false),
            None => Ok(()),
        });
        core.guard(release);
        Ok(())
    }

    fn secret_of(&self, header: CoreHeader) -> Result<Option<CoreSecret>, StoreError> {
        let discovery_key = header.key.discovery_key();
        let (key, alias) = (header.key, header.alias());
        let manifest = header.manifest;
        let fits = |pair: &KeyPair| signs_for(pair.public_key(), &key, manifest.as_ref());
        let derived = alias.as_ref().map(|alias| self.derive(alias)).filter(fits);
        let found = match derived {
            Some(pair) => Some((pair, SecretOrigin::Derived)),
            None => {
                let kept = self.storage.secret(&discovery_key)?.or(header.key_pair);
                kept.filter(fits).map(|pair| (pair, SecretOrigin::Imported))
            }
        };
        let Some((key_pair, origin)) = found else {
            return Ok(None);
        };
        let is_guarded = self.storage.is_guarded(&discovery_key)?;
        Ok(Some(CoreSecret {
            key,
            discovery_key,
            alias,
            manifest,
            key_pair,
            origin,
            is_guarded,
        }))
    }
}
