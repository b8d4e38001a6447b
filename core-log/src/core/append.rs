//! Appending: hash, sign, commit, flip, tell.

use std::sync::Arc;

use bytes::Bytes;
use ferrocore_primitives::hash::{self, Hash};

use super::{Core, CoreError, Inner};
use crate::events::Event;
use crate::limits::{BATCH_BYTES_MAX, BLOCK_BYTES_MAX, NUMBER_MAX};
use crate::merkle::{Node, Roots};
use crate::storage::{BitWrite, BlockWrite, CoreWrite, Head, HeadWrite};
use crate::verifier::TreeHead;

/// The log right after an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Blocks.
    pub length: u64,
    /// Bytes of all blocks; of their plaintext if the handle encrypts.
    pub byte_length: u64,
    /// Which history.
    pub fork: u64,
}

/// Blocks with their leaf hashes: hashed off the writer's path, on any thread.
#[derive(Debug, Clone)]
pub struct HashedBlocks {
    blocks: Vec<Bytes>,
    hashes: Vec<Hash>,
}

impl HashedBlocks {
    /// Hashes `blocks`, several at a time.
    pub fn hash(blocks: Vec<Bytes>) -> Self {
        let values: Vec<&[u8]> = blocks.iter().map(|block| block.as_ref()).collect();
        let hashes = hash::leaves(&values);
        Self { blocks, hashes }
    }

    /// The blocks.
    pub fn blocks(&self) -> &[Bytes] {
        &self.blocks
    }
}

impl Core {
    /// Appends one block.
    ///
    /// # Errors
    /// As for [`Core::append_batch`].
    pub fn append(&self, block: impl Into<Bytes>) -> Result<Appended, CoreError> {
        self.append_batch(vec![block.into()])
    }

    /// Appends `blocks` as one: all or none of them, under one signature.
    ///
    /// When it returns, the blocks survive what the store's [`Durability`](crate::Durability)
    /// promises. Nobody sees them before.
    ///
    /// # Errors
    /// [`CoreError::NotWritable`], [`CoreError::BlockTooLarge`], [`CoreError::BatchTooLarge`],
    /// [`CoreError::Prologue`], or [`CoreError::Storage`], after which the core must be opened
    /// again.
    pub fn append_batch(&self, blocks: Vec<Bytes>) -> Result<Appended, CoreError> {
        match self.is_encrypted() {
            true => self.append_encrypted(blocks),
            false => self.append_hashed(HashedBlocks::hash(blocks)),
        }
    }

    /// As [`Core::append_batch`], for blocks that are hashed already. A handle that encrypts
    /// has to hash what it stores again.
    ///
    /// # Errors
    /// As for [`Core::append_batch`].
    pub fn append_hashed(&self, hashed: HashedBlocks) -> Result<Appended, CoreError> {
        if self.is_encrypted() {
            return self.append_encrypted(hashed.blocks);
        }
        check_sizes(&hashed.blocks, 0)?;
        self.append_with(|_, _| hashed)
    }

    /// Encrypts once the place of the blocks is certain, which is in the key stream.
    fn append_encrypted(&self, blocks: Vec<Bytes>) -> Result<Appended, CoreError> {
        check_sizes(&blocks, self.padding())?;
        let core = self.key();
        let not_writable = || CoreError::NotWritable { core };
        let cipher = self.cipher().filter(|_| self.is_writable());
        let cipher = cipher.ok_or_else(not_writable)?;
        self.append_with(|start, fork| {
            let encrypt = |(index, block): (u64, &Bytes)| cipher.encrypt(index, fork, block);
            HashedBlocks::hash((start..).zip(&blocks).map(encrypt).collect())
        })
    }

    /// Appends what `make` makes for the block index and the fork they will have.
    fn append_with(
        &self,
        make: impl FnOnce(u64, u64) -> HashedBlocks,
    ) -> Result<Appended, CoreError> {
        let inner = &*self.inner;
        let _writer = inner.lock_writer();
        let (fork, mut roots) = {
            let shared = inner.read();
            (shared.fork, Roots::clone(&shared.roots))
        };
        let (start, byte_offset) = (roots.length(), roots.byte_length());
        let hashed = make(start, fork);
        let nodes = inner.grow(&mut roots, &hashed)?;
        inner.check_prologue(start, &roots)?;
        let signature = inner.sign(fork, &roots)?;
        let appended = Appended {
            length: roots.length(),
            byte_length: self.byte_length_of(&roots),
            fork,
        };
        if hashed.blocks.is_empty() {
            return Ok(appended);
        }
        let head = Head {
            fork,
            length: appended.length,
            root_hash: roots.hash(),
            signature: signature.clone(),
        };
        let write = appending(start, byte_offset, hashed.blocks, nodes, head);
        inner.storage.commit(write, inner.durability)?;
        inner.update(|shared| {
            shared.roots = Arc::new(roots);
            shared.signature = signature;
            shared.mark(start..appended.length);
        });
        let length = appended.length;
        inner.announce(&[Event::Append { length }, Event::Have(start..length)]);
        Ok(appended)
    }
}

impl Inner {
    /// Adds the blocks' leaves to `roots` and returns every node that comes into being.
    fn grow(&self, roots: &mut Roots, hashed: &HashedBlocks) -> Result<Vec<Node>, CoreError> {
        let mut nodes = Vec::with_capacity(2 * hashed.blocks.len());
        for (block, hash) in hashed.blocks.iter().zip(&hashed.hashes) {
            let leaf = Node {
                index: 2 * roots.length(),
                size: block.len() as u64,
                hash: *hash,
            };
            nodes.push(leaf);
            let fits = leaf.index < NUMBER_MAX - 1;
            fits.then(|| roots.push(leaf, |parent| nodes.push(parent)))
                .flatten()
                .ok_or(CoreError::Full { core: self.key })?;
        }
        Ok(nodes)
    }

    /// Whether a log that ended at `start` may have these roots: what the manifest pins must
    /// come first and as a whole, or no reader would take any of it.
    fn check_prologue(&self, start: u64, roots: &Roots) -> Result<(), CoreError> {
        let shared = self.read();
        let prologue = shared.verifier.as_ref().and_then(|v| v.prologue());
        let fits = prologue.is_none_or(|pinned| {
            let is_pinned = roots.length() == pinned.length && roots.hash() == pinned.hash;
            start >= pinned.length || is_pinned
        });
        match fits {
            true => Ok(()),
            false => Err(CoreError::Prologue { core: self.key }),
        }
    }

    pub(super) fn sign(&self, fork: u64, roots: &Roots) -> Result<Bytes, CoreError> {
        let (signer, verifier) = {
            let shared = self.read();
            (self.signer(&shared), shared.verifier.clone())
        };
        let (Some((key_pair, signer)), Some(verifier)) = (signer, verifier) else {
            return Err(CoreError::NotWritable { core: self.key });
        };
        let head = TreeHead {
            fork,
            length: roots.length(),
            hash: roots.hash(),
        };
        Ok(verifier.sign(&head, signer, key_pair))
    }
}

/// The change that appends `blocks` behind block `start`.
fn appending(
    start: u64,
    byte_offset: u64,
    blocks: Vec<Bytes>,
    nodes: Vec<Node>,
    head: Head,
) -> CoreWrite {
    let bits = BitWrite {
        range: start..head.length,
        value: true,
    };
    let blocks = BlockWrite {
        byte_offset,
        blocks,
    };
    CoreWrite {
        blocks: vec![blocks],
        nodes,
        bits: vec![bits],
        head: Some(HeadWrite {
            head,
            ancestors: start,
        }),
        ..CoreWrite::default()
    }
}

/// Checks the blocks, of which each is stored with `padding` more bytes.
fn check_sizes(blocks: &[Bytes], padding: usize) -> Result<(), CoreError> {
    let max = BLOCK_BYTES_MAX - padding;
    if let Some(block) = blocks.iter().find(|block| block.len() > max) {
        let size = block.len();
        return Err(CoreError::BlockTooLarge { size, max });
    }
    let bytes = blocks.iter().map(Bytes::len).sum();
    if bytes > BATCH_BYTES_MAX {
        return Err(CoreError::BatchTooLarge {
            bytes,
            max: BATCH_BYTES_MAX,
        });
    }
    Ok(())
}
