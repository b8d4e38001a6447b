//! Which core is meant, by whatever is given of it.
//!
//! Knows how key, manifest, key pair and name follow from each other. Does not open anything.

use ferrocore_primitives::keys::Key;
use ferrocore_primitives::sign::{KeyPair, PublicKey};

use super::{CoreOptions, Corestore, StoreError};
use crate::manifest::Manifest;
use crate::signer::Secret;
use crate::storage::{Alias, CREATED_UNDER, CoreHeader, Head};

impl Corestore {
    /// Finds out which core `options` mean.
    pub(super) fn resolve(&self, options: CoreOptions) -> Result<Wanted, StoreError> {
        let alias = options.name.map(|name| self.alias(&name));
        let derived = alias.as_ref().map(|alias| self.inner.derive(alias));
        let elsewhere = options.signer.map(Secret::elsewhere);
        let key_pair = options.key_pair.as_ref().or(derived.as_ref());
        let public_key = key_pair.map(KeyPair::public_key);
        let public_key = elsewhere.as_ref().map(Secret::public_key).or(public_key);
        let sole = public_key.map(Manifest::single);
        let sole = sole.filter(|manifest| options.key.is_none_or(|key| manifest.belongs_to(&key)));
        let manifest = options.manifest.or(sole);
        let key = match (options.key, &manifest) {
            (Some(given), Some(manifest)) if !manifest.belongs_to(&given) => {
                let derived = manifest.key();
                return Err(StoreError::KeyMismatch { given, derived });
            }
            (Some(given), _) => given,
            (None, Some(manifest)) if options.compat || options.legacy => compat_key(manifest),
            (None, Some(manifest)) => manifest.key(),
            (None, None) => return Err(StoreError::Unspecified),
        };
        Ok(Wanted {
            key,
            manifest,
            key_pair: options.key_pair,
            elsewhere,
            derived,
            alias,
            is_legacy: options.legacy,
        })
    }
}

/// A core that is to be opened or created.
pub(super) struct Wanted {
    pub(super) key: Key,
    pub(super) manifest: Option<Manifest>,
    /// The key pair that was given.
    key_pair: Option<KeyPair>,
    /// What signs in its place.
    elsewhere: Option<Secret>,
    /// The key pair of the name.
    derived: Option<KeyPair>,
    pub(super) alias: Option<Alias>,
    /// Whether it is signed as before there were namespaces.
    pub(super) is_legacy: bool,
}

impl Wanted {
    /// The header of the core if it must be created.
    pub(super) fn header(&self) -> Result<CoreHeader, StoreError> {
        if self
            .secret()
            .is_some_and(|given| !self.fits(given.public_key()))
        {
            return Err(StoreError::KeyPairMismatch { core: self.key });
        }
        Ok(CoreHeader {
            key: self.key,
            manifest: self.manifest.clone(),
            // What derives from the root secret is not written anywhere else.
            key_pair: self.key_pair.clone().filter(|_| !self.is_derived()),
            user_data: self.user_data().collect(),
            head: Head::empty(),
        })
    }

    /// What was given to sign with.
    pub(super) fn secret(&self) -> Option<Secret> {
        let here = || self.key_pair.clone().map(Secret::Here);
        self.elsewhere.clone().or_else(here)
    }

    fn fits(&self, public_key: PublicKey) -> bool {
        signs_for(public_key, &self.key, self.manifest.as_ref())
    }

    /// Whether the key pair of the name signs for the core.
    pub(super) fn is_derived(&self) -> bool {
        self.derived
            .as_ref()
            .is_some_and(|derived| self.fits(derived.public_key()))
    }

    /// The user data by which Corestore 6 recognises a named core. It takes the name's key pair
    /// to be the core's, so other cores do not get it.
    pub(super) fn user_data(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
        let alias = self.alias.iter().filter(|_| self.is_derived());
        let pairs = alias.flat_map(|alias| alias.user_data(CREATED_UNDER));
        pairs.map(|(key, value)| (key.to_owned(), value))
    }
}

/// Whether `public_key` is among those that sign for the core.
pub(crate) fn signs_for(public_key: PublicKey, key: &Key, manifest: Option<&Manifest>) -> bool {
    match manifest {
        None => public_key.as_bytes() == key.as_bytes(),
        Some(manifest) => manifest
            .signers
            .iter()
            .any(|signer| signer.public_key == public_key),
    }
}

/// The key of a compat core with this manifest; with several signers it cannot be one.
fn compat_key(manifest: &Manifest) -> Key {
    match manifest.signers.as_slice() {
        [signer] => Key::from(*signer.public_key.as_bytes()),
        _ => manifest.key(),
    }
}
