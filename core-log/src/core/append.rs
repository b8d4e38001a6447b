//! Appending: hash, sign, commit, flip, tell.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ferrocore_primitives::hash::{self, Hash};

use super::group::{AppendTicket, Done, Make, Request, Size, Waiter};
use super::ticket::Completer;
use super::{AppendOptions, Core, CoreError, Inner};
use crate::events::Event;
use crate::limits::{APPENDS_WAITING_BYTES_MAX, BATCH_BYTES_MAX, BLOCK_BYTES_MAX, NUMBER_MAX};
use crate::merkle::{Node, Roots};
use crate::signable::TreeHead;
use crate::signer::Secret;
use crate::storage::{BitWrite, BlockWrite, CoreWrite, Durability, Head, HeadWrite};
use crate::verifier::Verifier;

/// From so many blocks on their parents are hashed several at a time.
const LANES_MIN: usize = 256;

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

    /// As [`HashedBlocks::hash`], of blocks that one append may carry.
    ///
    /// # Errors
    /// [`CoreError::BlockTooLarge`], [`CoreError::BatchTooLarge`].
    pub(crate) fn checked(blocks: Vec<Bytes>) -> Result<Self, CoreError> {
        check_sizes(&blocks, 0)?;
        Ok(Self::hash(blocks))
    }

    /// The blocks.
    pub fn blocks(&self) -> &[Bytes] {
        &self.blocks
    }

    pub(crate) fn into_blocks(self) -> Vec<Bytes> {
        self.blocks
    }

    /// The leaves, if the first block is number `first`.
    pub(crate) fn leaves(&self, first: u64) -> impl Iterator<Item = Node> {
        let blocks = self.blocks.iter().zip(&self.hashes);
        (first..).zip(blocks).map(|(index, (block, hash))| Node {
            index: 2 * index,
            size: block.len() as u64,
            hash: *hash,
        })
    }

    /// The tree of a log of these blocks, with all its nodes; `None` without a block.
    pub(crate) fn tree(&self) -> Option<(Roots, Vec<Node>)> {
        let (mut roots, mut nodes) = (Roots::default(), Vec::new());
        for leaf in self.leaves(0) {
            nodes.push(leaf);
            roots.push(leaf, |parent| nodes.push(parent))?;
        }
        (!nodes.is_empty()).then_some((roots, nodes))
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
    /// When it returns, the blocks survive what the store's [`Durability`]
    /// promises. Nobody sees them before. With [`Durability::Sync`] appends from several threads
    /// share a commit, and so its wait for the device; each is still in the log as a whole.
    ///
    /// # Errors
    /// [`CoreError::NotWritable`], [`CoreError::ReadOnly`], [`CoreError::BlockTooLarge`],
    /// [`CoreError::BatchTooLarge`], [`CoreError::Prologue`]; [`CoreError::WrongKey`] or
    /// [`CoreError::NotEncrypted`] if this handle encrypts, and with another key than the last block that is here;
    /// [`CoreError::Conflict`] if the core is frozen, [`CoreError::Full`], [`CoreError::Signer`];
    /// [`CoreError::Unconfirmed`] or
    /// [`CoreError::Behind`] while there may be more of the log elsewhere; or
    /// [`CoreError::Storage`], after which the core must be opened again.
    pub fn append_batch(&self, blocks: Vec<Bytes>) -> Result<Appended, CoreError> {
        self.append_with(blocks, AppendOptions::default())
    }

    /// As [`Core::append_batch`], if the log is what `options` ask for at the moment of the append.
    ///
    /// # Errors
    /// As for [`Core::append_batch`]; [`CoreError::Moved`] and [`CoreError::TooLong`] by `options`.
    pub fn append_with(
        &self,
        blocks: Vec<Bytes>,
        options: AppendOptions,
    ) -> Result<Appended, CoreError> {
        if self.is_encrypted() {
            return self.append_encrypted(blocks, options);
        }
        let size = check_sizes(&blocks, 0)?;
        let hashed = HashedBlocks::hash(blocks);
        self.append_made(size, self.if_fits(options, hashed))
    }

    /// As [`Core::append_batch`], for blocks that are hashed already. A handle that encrypts
    /// has to hash what it stores again.
    ///
    /// # Errors
    /// As for [`Core::append_batch`].
    pub fn append_hashed(&self, hashed: HashedBlocks) -> Result<Appended, CoreError> {
        if self.is_encrypted() {
            return self.append_encrypted(hashed.blocks, AppendOptions::default());
        }
        let size = check_sizes(&hashed.blocks, 0)?;
        self.append_made(size, |_, _| Ok(hashed))
    }

    /// Appends one block without waiting for the device.
    ///
    /// As for [`Core::append_batch_async`].
    pub fn append_async(&self, block: impl Into<Bytes>) -> AppendTicket {
        self.append_batch_async(vec![block.into()])
    }

    /// Appends `blocks` as one, without waiting for the device: the ticket is ready once they are
    /// in the log, and as durable as the store promises. Until then nobody sees them.
    ///
    /// With [`Durability::Sync`] this only queues them: the appends that wait together share a
    /// commit, made by a thread of the store. With [`Durability::Buffered`] the append is done
    /// when this returns.
    ///
    /// # Errors
    /// The ticket's, as for [`Core::append_batch`], and [`CoreError::TooManyAppends`].
    pub fn append_batch_async(&self, blocks: Vec<Bytes>) -> AppendTicket {
        self.append_async_with(blocks, AppendOptions::default())
    }

    /// As [`Core::append_batch_async`], if the log is what `options` ask for when its turn comes: behind the
    /// appends that wait already.
    ///
    /// # Errors
    /// The ticket's, as for [`Core::append_with`], and [`CoreError::TooManyAppends`].
    pub fn append_async_with(&self, blocks: Vec<Bytes>, options: AppendOptions) -> AppendTicket {
        if self.inner.durability == Durability::Buffered {
            return AppendTicket::ready(self.append_with(blocks, options));
        }
        self.queue_up(blocks, options)
            .unwrap_or_else(|error| AppendTicket::ready(Err(error)))
    }

    fn queue_up(
        &self,
        blocks: Vec<Bytes>,
        options: AppendOptions,
    ) -> Result<AppendTicket, CoreError> {
        self.check_not_read_only()?;
        let size = check_sizes(&blocks, self.padding())?;
        let max = APPENDS_WAITING_BYTES_MAX;
        let room = self.inner.queue.reserve(size.cost());
        let room = room.ok_or(CoreError::TooManyAppends { max })?;
        let (size, make) = self.making(blocks, options)?;
        let (request, ticket) = self.waiter(size, make);
        self.inner.commit_later(request, Some(room));
        Ok(ticket)
    }

    /// What stores `blocks` once their place is certain, and how much they are then.
    pub(super) fn making(
        &self,
        blocks: Vec<Bytes>,
        options: AppendOptions,
    ) -> Result<(Size, Make), CoreError> {
        self.check_not_read_only()?;
        let size = check_sizes(&blocks, self.padding())?;
        if self.is_encrypted() {
            let make = self.encrypting(blocks, options)?;
            return Ok((size, Box::new(make)));
        }
        let hashed = HashedBlocks::hash(blocks);
        Ok((size, Box::new(self.if_fits(options, hashed))))
    }

    fn append_encrypted(
        &self,
        blocks: Vec<Bytes>,
        options: AppendOptions,
    ) -> Result<Appended, CoreError> {
        self.check_not_read_only()?;
        let size = check_sizes(&blocks, self.padding())?;
        self.append_made(size, self.encrypting(blocks, options)?)
    }

    /// Gives `hashed` to a log that is what `options` ask for.
    fn if_fits(
        &self,
        options: AppendOptions,
        hashed: HashedBlocks,
    ) -> impl FnOnce(&Inner, &Growth) -> Result<HashedBlocks, CoreError> + Send + use<> {
        move |inner, growth| {
            options.check(inner.key, growth.end(), hashed.blocks.len() as u64)?;
            Ok(hashed)
        }
    }

    /// Encrypts once the place of the blocks is certain, which is in the key stream, and the blocks before them.
    fn encrypting(
        &self,
        blocks: Vec<Bytes>,
        options: AppendOptions,
    ) -> Result<
        impl FnOnce(&Inner, &Growth) -> Result<HashedBlocks, CoreError> + Send + use<>,
        CoreError,
    > {
        let core = self.key();
        let not_writable = || CoreError::NotWritable { core };
        let cipher = self.cipher().filter(|_| self.is_writable());
        let cipher = cipher.ok_or_else(not_writable)?.clone();
        Ok(move |inner: &Inner, growth: &Growth| {
            options.check(inner.key, growth.end(), blocks.len() as u64)?;
            inner.encrypt_next(&cipher, &blocks, growth)
        })
    }

    /// Appends what `make` makes for where the log ends then.
    fn append_made(
        &self,
        size: Size,
        make: impl FnOnce(&Inner, &Growth) -> Result<HashedBlocks, CoreError> + Send + 'static,
    ) -> Result<Appended, CoreError> {
        self.check_not_read_only()?;
        match self.inner.durability {
            Durability::Buffered => self.inner.append_alone(self.padding(), make),
            Durability::Sync => self.append_together(size, Box::new(make)),
        }
    }

    /// Commits with those who append at the same time.
    fn append_together(&self, size: Size, make: Make) -> Result<Appended, CoreError> {
        let (request, ticket) = self.waiter(size, make);
        self.inner.commit_now(request);
        ticket.wait()
    }

    fn waiter(&self, size: Size, make: Make) -> (Waiter, AppendTicket) {
        let (completer, ticket) = Completer::new(self.discovery_key());
        let request = Request {
            make,
            size,
            padding: self.padding(),
            completer,
        };
        (Waiter::Append(request), ticket)
    }
}

/// A log as it grows, before anybody knows.
#[derive(Debug, Clone)]
pub(super) struct Growth {
    pub(super) fork: u64,
    /// Length and byte length before.
    pub(super) start: u64,
    byte_offset: u64,
    pub(super) roots: Roots,
    nodes: Vec<Node>,
    blocks: Vec<Bytes>,
}

/// What changes in memory once a growth is committed.
pub(super) struct Grown {
    roots: Roots,
    signature: Bytes,
    fresh: Range<u64>,
}

impl Growth {
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The fork, and the index of the next block.
    pub(super) fn end(&self) -> (u64, u64) {
        (self.fork, self.roots.length())
    }

    /// The last block, if it was added here.
    pub(super) fn last_block(&self) -> Option<(u64, &Bytes)> {
        let block = self.blocks.last()?;
        Some((self.roots.length() - 1, block))
    }

    /// The log as it would be now, of whose blocks so many bytes each are not the caller's.
    pub(super) fn appended(&self, padding: usize) -> Appended {
        let length = self.roots.length();
        let padding = (padding as u64).saturating_mul(length);
        Appended {
            length,
            byte_length: self.roots.byte_length().saturating_sub(padding),
            fork: self.fork,
        }
    }
}

impl Inner {
    fn append_alone(
        &self,
        padding: usize,
        make: impl FnOnce(&Self, &Growth) -> Result<HashedBlocks, CoreError>,
    ) -> Result<Appended, CoreError> {
        let _writer = self.lock_writer();
        let mut growth = self.growth();
        self.grow(&mut growth, make)?;
        let appended = growth.appended(padding);
        self.commit_growth(growth)?;
        Ok(appended)
    }

    /// Appends what all of `group` bring in one commit. One that does not fit the log fails alone.
    pub(super) fn append_group(&self, group: Vec<Request>, done: &mut Done) {
        let _writer = self.lock_writer();
        let mut growth = self.growth();
        let mut append = |request: Request| {
            let grown = self.grow(&mut growth, request.make);
            let appended = grown.map(|()| growth.appended(request.padding));
            (request.completer, appended)
        };
        let over: Vec<_> = group.into_iter().map(&mut append).collect();
        let failure = self.commit_growth(growth).err();
        for (completer, result) in over {
            let result = match &failure {
                Some(error) => result.and_then(|_| Err(error.again(self.key))),
                None => result,
            };
            done.push(completer, result);
        }
    }

    /// The log as it is. The writer lock must be held until the growth is committed.
    pub(super) fn growth(&self) -> Growth {
        let shared = self.read();
        Growth {
            fork: shared.fork,
            start: shared.roots.length(),
            byte_offset: shared.roots.byte_length(),
            roots: Roots::clone(&shared.roots),
            nodes: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// Adds the blocks that `make` makes for where `growth` ends; if they do not fit, it
    /// is as it was.
    pub(super) fn grow(
        &self,
        growth: &mut Growth,
        make: impl FnOnce(&Self, &Growth) -> Result<HashedBlocks, CoreError>,
    ) -> Result<(), CoreError> {
        let start = growth.roots.length();
        let hashed = make(self, growth)?;
        let mut roots = growth.roots.clone();
        let nodes = self.add_leaves(&mut roots, &hashed)?;
        self.check_prologue(start, &roots)?;
        growth.roots = roots;
        growth.nodes.extend(nodes);
        growth.blocks.extend(hashed.blocks);
        Ok(())
    }

    fn commit_growth(&self, growth: Growth) -> Result<(), CoreError> {
        match growth.is_empty() {
            // Whoever signs is not asked to sign again what is signed.
            true => self.check_may_sign(),
            false => self.commit_sealed(self.seal(growth)?),
        }
    }

    /// Signs the grown log: what to commit, and what changes in memory then.
    pub(super) fn seal(&self, growth: Growth) -> Result<(CoreWrite, Grown), CoreError> {
        let signature = self.sign(growth.fork, &growth.roots)?;
        Ok(sealed(growth, signature))
    }

    /// Commits `growth` under a signature that holds for it, and tells everybody. It must stand
    /// on the log as it is, under the writer lock.
    pub(super) fn commit_signed(&self, growth: Growth, signature: Bytes) -> Result<(), CoreError> {
        self.check_not_frozen()?;
        if growth.is_empty() {
            return Ok(());
        }
        self.commit_sealed(sealed(growth, signature))
    }

    fn commit_sealed(&self, (write, grown): (CoreWrite, Grown)) -> Result<(), CoreError> {
        self.storage.commit(write, self.durability)?;
        let events = self.flip_growth(grown);
        self.announce(&events);
        Ok(())
    }

    /// Makes a committed growth known to readers; returns what to tell others.
    pub(super) fn flip_growth(&self, grown: Grown) -> [Event; 2] {
        let (fresh, length) = (grown.fresh, grown.roots.length());
        self.update(|shared| {
            shared.roots = Arc::new(grown.roots);
            shared.signature = grown.signature;
            shared.mark(fresh.clone());
        });
        [Event::Append { length }, Event::Have(fresh)]
    }

    /// Adds the blocks' leaves to `roots` and returns every node that comes into being.
    ///
    /// Those of few blocks in the order that JavaScript journals them, those of many, which are written to
    /// their place at once, in order of their indexes.
    fn add_leaves(&self, roots: &mut Roots, hashed: &HashedBlocks) -> Result<Vec<Node>, CoreError> {
        let full = || CoreError::Full { core: self.key };
        let (start, count) = (roots.length(), hashed.blocks.len());
        if start + count as u64 > NUMBER_MAX / 2 {
            return Err(full());
        }
        let leaves = (start..).zip(hashed.blocks.iter().zip(&hashed.hashes));
        let leaves = leaves.map(|(index, (block, hash))| Node {
            index: 2 * index,
            size: block.len() as u64,
            hash: *hash,
        });
        if count >= LANES_MIN {
            return roots.extend(leaves.collect()).ok_or_else(full);
        }
        let mut nodes = Vec::with_capacity(2 * count);
        for leaf in leaves {
            nodes.push(leaf);
            let pushed = roots.push(leaf, |parent| nodes.push(parent));
            pushed.ok_or_else(full)?;
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

    /// Whether a log may be signed that is to take the place of the current one.
    fn check_may_sign(&self) -> Result<(), CoreError> {
        self.signing().map(drop)
    }

    /// What signs, if anything may be signed now.
    fn signing(&self) -> Result<(&Secret, usize, Verifier), CoreError> {
        self.check_not_frozen()?;
        let (signer, verifier) = {
            let shared = self.read();
            (self.signer(&shared), shared.verifier.clone())
        };
        let (Some((secret, signer)), Some(verifier)) = (signer, verifier) else {
            return Err(CoreError::NotWritable { core: self.key });
        };
        self.check_guard()?;
        Ok((secret, signer, verifier))
    }

    /// Signs a log that is to take the place of the current one.
    pub(super) fn sign(&self, fork: u64, roots: &Roots) -> Result<Bytes, CoreError> {
        let (secret, signer, verifier) = self.signing()?;
        let signed = verifier.sign_as(&TreeHead::of(fork, roots), signer, secret);
        signed.map_err(|source| CoreError::Signer {
            core: self.key,
            source,
        })
    }
}

/// What to commit of a log that has grown, and what changes in memory then.
pub(super) fn sealed(growth: Growth, signature: Bytes) -> (CoreWrite, Grown) {
    let head = Head {
        fork: growth.fork,
        length: growth.roots.length(),
        root_hash: growth.roots.hash(),
        signature: signature.clone(),
    };
    let grown = Grown {
        fresh: growth.start..head.length,
        roots: growth.roots,
        signature,
    };
    let (start, offset) = (growth.start, growth.byte_offset);
    let write = appending(start, offset, growth.blocks, growth.nodes, head);
    (write, grown)
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

/// Checks the blocks, of which each is stored with `padding` more bytes; returns how much they are then.
pub(super) fn check_sizes(blocks: &[Bytes], padding: usize) -> Result<Size, CoreError> {
    let max = BLOCK_BYTES_MAX - padding;
    if let Some(block) = blocks.iter().find(|block| block.len() > max) {
        let size = block.len();
        return Err(CoreError::BlockTooLarge { size, max });
    }
    let bytes = blocks.iter().map(|block| block.len() + padding).sum();
    if bytes > BATCH_BYTES_MAX {
        return Err(CoreError::BatchTooLarge {
            bytes,
            max: BATCH_BYTES_MAX,
        });
    }
    let blocks = blocks.len();
    Ok(Size { blocks, bytes })
}
