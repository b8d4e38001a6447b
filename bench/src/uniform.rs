//! A core of any length that takes no room: all its blocks are the same, so all its nodes of one depth have
//! the same hash.
//!
//! Serves proofs like any other core; it cannot be changed.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use ferrocore_log::bitfield::Bitfield;
use ferrocore_log::flat_tree;
use ferrocore_log::manifest::Manifest;
use ferrocore_log::merkle::{Node, Roots};
use ferrocore_log::signable::TreeHead;
use ferrocore_log::storage::{
    Alias, CoreHeader, CoreStorage, CoreWrite, Head, OpenedCore, Storage, WriteBatch,
};
use ferrocore_log::verifier::Verifier;
use ferrocore_log::{Durability, StorageError};
use ferrocore_primitives::hash::{self, Hash};
use ferrocore_primitives::keys::{DiscoveryKey, Key};
use ferrocore_primitives::sign::KeyPair;

/// A store whose one core has `length` times the same block.
pub(crate) struct Uniform {
    header: CoreHeader,
    core: Arc<UniformCore>,
}

struct UniformCore {
    length: u64,
    block: Bytes,
    /// Size and hash of a node, by its depth.
    levels: Vec<(u64, Hash)>,
}

impl Uniform {
    pub(crate) fn new(length: u64, block: Bytes) -> Self {
        let core = UniformCore::new(length, block);
        let key_pair = KeyPair::from_seed(&[7; 32]);
        let manifest = Manifest::single(key_pair.public_key());
        let key = manifest.key();
        let nodes = flat_tree::full_roots(length).filter_map(|index| core.at(index));
        let roots = Roots::new(length, nodes.collect()).expect("each root was asked for");
        let root_hash = roots.hash();
        let verifier = Verifier::new(key, manifest.clone()).expect("the key is the manifest's");
        let signature = verifier.sign(&TreeHead::of(0, &roots), &key_pair);
        let head = Head {
            fork: 0,
            length,
            root_hash,
            signature: signature.expect("the key pair is the only signer"),
        };
        let header = CoreHeader {
            key,
            manifest: Some(manifest),
            key_pair: None,
            user_data: BTreeMap::new(),
            head,
        };
        let core = Arc::new(core);
        Self { header, core }
    }

    pub(crate) fn key(&self) -> Key {
        self.header.key
    }
}

impl UniformCore {
    fn new(length: u64, block: Bytes) -> Self {
        let mut level = (block.len() as u64, hash::leaf(&block));
        let mut levels = vec![level];
        while 1 << levels.len() <= length {
            let (size, hash) = level;
            level = (2 * size, hash::parent(size, &hash, size, &hash));
            levels.push(level);
        }
        Self {
            length,
            block,
            levels,
        }
    }

    fn at(&self, index: u64) -> Option<Node> {
        let (size, hash) = *self.levels.get(flat_tree::depth(index) as usize)?;
        (flat_tree::end_block(index) <= self.length).then_some(Node { index, size, hash })
    }
}

impl CoreStorage for UniformCore {
    fn node(&self, index: u64) -> Result<Option<Node>, StorageError> {
        Ok(self.at(index))
    }

    fn block(&self, _: u64, size: usize) -> Result<Bytes, StorageError> {
        Ok(match size / self.block.len().max(1) {
            0 | 1 => self.block.clone(),
            count => self.block.repeat(count).into(), // several in a row are read at once
        })
    }

    fn commit(&self, _: CoreWrite, _: Durability) -> Result<(), StorageError> {
        Err(unchangeable())
    }

    fn flush(&self, _: Durability) -> Result<(), StorageError> {
        Ok(())
    }
}

impl Storage for Uniform {
    fn root_secret(&self) -> Result<[u8; 32], StorageError> {
        Ok([0; 32])
    }

    fn open(&self, core: &DiscoveryKey) -> Result<Option<OpenedCore>, StorageError> {
        let mut bitfield = Bitfield::new();
        bitfield.set_range(0..self.core.length, true);
        let is_here = self.header.key.discovery_key() == *core;
        Ok(is_here.then(|| OpenedCore {
            drafts: None,
            header: self.header.clone(),
            bitfield,
            conflicts: None,
            storage: Arc::clone(&self.core) as _,
        }))
    }

    fn create(&self, _: CoreHeader) -> Result<OpenedCore, StorageError> {
        Err(unchangeable())
    }

    fn peek(&self, core: &DiscoveryKey) -> Result<Option<CoreHeader>, StorageError> {
        let is_here = self.header.key.discovery_key() == *core;
        Ok(is_here.then(|| self.header.clone()))
    }

    fn list(&self) -> Result<Vec<DiscoveryKey>, StorageError> {
        Ok(vec![self.header.key.discovery_key()])
    }

    fn disk_bytes(&self, _: &DiscoveryKey) -> Result<u64, StorageError> {
        Ok(0)
    }

    fn purge(&self, _: &DiscoveryKey) -> Result<u64, StorageError> {
        Err(unchangeable())
    }

    fn secret(&self, _: &DiscoveryKey) -> Result<Option<KeyPair>, StorageError> {
        Ok(None)
    }

    fn set_secret(&self, _: &DiscoveryKey, _: &KeyPair) -> Result<(), StorageError> {
        Err(unchangeable())
    }

    fn is_guarded(&self, _: &DiscoveryKey) -> Result<bool, StorageError> {
        Ok(false)
    }

    fn set_guarded(&self, _: &DiscoveryKey, _: bool) -> Result<(), StorageError> {
        Err(unchangeable())
    }

    fn commit(&self, _: WriteBatch, _: Durability) -> Result<(), StorageError> {
        Err(unchangeable())
    }

    fn alias(&self, _: &Alias) -> Result<Option<DiscoveryKey>, StorageError> {
        Ok(None)
    }

    fn aliases(&self) -> Result<Vec<(Alias, DiscoveryKey)>, StorageError> {
        Ok(Vec::new())
    }

    fn set_alias(&self, _: Alias, _: &DiscoveryKey) -> Result<(), StorageError> {
        Err(unchangeable())
    }
}

fn unchangeable() -> StorageError {
    StorageError::Io {
        action: "change",
        path: PathBuf::from("a core that is computed"),
        source: io::ErrorKind::Unsupported.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrocore_log::Corestore;

    /// Goal: what is computed is what appending the same block as often makes.
    #[test]
    fn it_is_the_core_that_appending_makes() {
        let block = Bytes::from_static(b"again and again");
        for length in [1, 2, 7, 64, 1000] {
            let uniform = Uniform::new(length, block.clone());
            let key = uniform.key();
            let store = Corestore::with_storage(uniform, Default::default()).unwrap();
            let computed = store.get(&key).unwrap();
            let twin = Corestore::memory().get_named("twin").unwrap();
            twin.append_batch(vec![block.clone(); length as usize])
                .unwrap();
            assert_eq!(computed.tree_hash(), twin.tree_hash());
            assert_eq!(computed.byte_length(), twin.byte_length());
            for index in 0..length {
                assert_eq!(computed.get_local(index).unwrap(), Some(block.clone()));
            }
        }
    }
}
