//! Reading: from storage when the block is here, through suppliers when it is not.

use std::sync::Arc;

use bytes::Bytes;
use ferrocore_primitives::hash::{self, Hash};

use super::{Core, CoreError, Inner, Stored};
use crate::bitfield::Bitfield;
use crate::limits::BLOCK_BYTES_MAX;
use crate::merkle::Roots;
use crate::storage::BlockPlace;
use crate::supply::{Settled, UpdateId};

impl Core {
    /// Block `index` if it is here. It is hashed again: a flipped byte is an error, never data.
    ///
    /// # Errors
    /// [`CoreError::CorruptBlock`] or [`CoreError::Storage`]; [`CoreError::WrongKey`] or [`CoreError::NotEncrypted`] if this
    /// handle decrypts and the block cannot be.
    pub fn get_local(&self, index: u64) -> Result<Option<Bytes>, CoreError> {
        let stored = self.get_raw(index)?;
        stored
            .map(|stored| self.open_block(index, stored))
            .transpose()
    }

    /// As [`Core::get_local`], but never decrypted: the block as it is hashed and proven.
    ///
    /// # Errors
    /// [`CoreError::CorruptBlock`] or [`CoreError::Storage`].
    pub fn get_raw(&self, index: u64) -> Result<Option<Bytes>, CoreError> {
        let inner = &*self.inner;
        let (roots, bits) = inner.roots_and_bits();
        if !bits.get(index) {
            inner.storage.check()?;
            return Ok(None);
        }
        drop(bits); // whoever changes them would have to copy them
        match inner.read_block(&roots, index) {
            // Whoever truncates or clears meanwhile takes away what we read, and may bring it again.
            Err(_) => inner.read_undisturbed(index),
            result => result.map(Some),
        }
    }

    /// As [`Core::get_raw`] for several blocks, which costs less: they are hashed several at a time.
    ///
    /// Answers for a beginning of `indexes`: it ends before the block with which they would come to more than
    /// `bytes_max` bytes, but not before the first.
    pub fn get_raw_all(
        &self,
        indexes: &[u64],
        bytes_max: usize,
    ) -> Vec<Result<Option<Bytes>, CoreError>> {
        self.get_raw_beginning(indexes, bytes_max, usize::MAX)
    }

    /// As [`Core::get_local`] for several blocks, of a beginning of `indexes` as [`Core::get_raw_all`] says.
    pub fn get_local_all(
        &self,
        indexes: &[u64],
        bytes_max: usize,
    ) -> Vec<Result<Option<Bytes>, CoreError>> {
        let stored = self.get_raw_all(indexes, bytes_max).into_iter();
        let open = |(index, stored): (&u64, Result<Option<Bytes>, CoreError>)| {
            let opened = stored?.map(|stored| self.open_block(*index, stored));
            opened.transpose()
        };
        indexes.iter().zip(stored).map(open).collect()
    }

    /// Length of block `index` as it is stored, in bytes, without reading it. `None` if it is not known here.
    pub fn raw_len(&self, index: u64) -> Option<u64> {
        let roots = Arc::clone(&self.inner.read().roots);
        let place = self.inner.storage.locate(&roots, index).ok().flatten();
        place.map(|place| place.leaf.size)
    }

    /// As [`Core::get_raw_all`], but nothing if the first block is longer than `first_max`.
    pub(crate) fn get_raw_beginning(
        &self,
        indexes: &[u64],
        bytes_max: usize,
        first_max: usize,
    ) -> Vec<Result<Option<Bytes>, CoreError>> {
        let reads = self.inner.read_unhashed(indexes, bytes_max, first_max);
        let blocks = reads.iter().filter_map(|read| match read {
            Read::Block(block, _) => Some(block.as_ref()),
            Read::Absent | Read::Failed => None,
        });
        let mut hashes = hash::leaves(&blocks.collect::<Vec<_>>()).into_iter();
        let answers = indexes.iter().zip(reads).map(|(index, read)| match read {
            Read::Absent => Ok(None),
            Read::Block(block, leaf) if hashes.next() == Some(leaf) => Ok(Some(block)),
            // Alone it finds out why, and whether that is so still.
            Read::Block(..) | Read::Failed => self.get_raw(*index),
        });
        answers.collect()
    }

    /// Block `index`, from a supplier if it is not here. A local block is there at the first
    /// poll. Dropping the future takes the want back.
    ///
    /// # Errors
    /// [`CoreError::OutOfBounds`] if the log, as far as all suppliers know it, ends before;
    /// [`CoreError::Conflict`] if it ends before and is frozen, so that it will not get there;
    /// [`CoreError::NoPeers`] if there is nobody to ask and nobody is being looked for. How
    /// long to wait for a slow peer is the caller's to say.
    pub async fn get(&self, index: u64) -> Result<Bytes, CoreError> {
        if let Some(block) = self.get_local(index)? {
            return Ok(block);
        }
        if index >= self.length() {
            self.reach(index).await?;
        }
        let _want = self.want_block(index);
        loop {
            let progress = self.inner.supply.listen();
            if let Some(block) = self.get_local(index)? {
                return Ok(block);
            }
            self.check_bounds(index)?; // the log may have been cut
            if self.inner.supply.is_hopeless() {
                return Err(CoreError::NoPeers {
                    core: self.key(),
                    index,
                });
            }
            progress.await;
        }
    }

    /// Waits until the log has block `index` or all suppliers have said that theirs does not.
    async fn reach(&self, index: u64) -> Result<(), CoreError> {
        let is_overdue = self.look_for_more().await?.is_overdue;
        let is_without_log = is_overdue || self.inner.supply.is_without_log();
        if self.length() == 0 && !self.inner.is_written_here() && is_without_log {
            let core = self.key();
            return Err(CoreError::NoPeers { core, index });
        }
        let is_there = self.check_bounds(index);
        is_there.or_else(|past_end| self.inner.check_not_frozen().and(Err(past_end)))
    }

    fn check_bounds(&self, index: u64) -> Result<(), CoreError> {
        let (core, length) = (self.key(), self.length());
        match index < length {
            true => Ok(()),
            false => Err(CoreError::OutOfBounds {
                core,
                index,
                length,
            }),
        }
    }

    /// Waits until every supplier has said its length and no newer log is on its way; returns
    /// whether the log grew or came to another fork meanwhile. A supplier that owes one of both for
    /// [too long](crate::supply::Tardiness) is not waited for, nor are all of them together for longer than
    /// [`UPDATE_TOTAL_MAX`](crate::limits::UPDATE_TOTAL_MAX): who has to know which it was calls
    /// [`look_for_more`](Self::look_for_more). Returns at once when there are no
    /// suppliers and none are being looked for, and for a core that is written here, unless it is
    /// guarded: nobody else makes it longer. Nor does anybody one that is frozen
    /// ([`conflict`](Self::conflict)).
    ///
    /// # Errors
    /// None today; the signature leaves room for suppliers that fail.
    pub async fn update(&self) -> Result<bool, CoreError> {
        Ok(self.look_for_more().await?.has_grown)
    }

    /// As [`update`](Self::update), and tells why it ended.
    ///
    /// # Errors
    /// As for [`update`](Self::update).
    pub async fn look_for_more(&self) -> Result<Updated, CoreError> {
        let before = (self.fork(), self.length());
        if self.inner.is_written_here() && !self.is_guarded() {
            return Ok(Updated::default());
        }
        let mut updating: Option<Updating<'_>> = None;
        loop {
            let progress = self.inner.supply.listen();
            let length = self.length();
            let is_frozen = self.inner.check_not_frozen().is_err();
            let update = updating.as_ref().map(|updating| updating.id);
            let settled = match is_frozen {
                true => Settled::Done,
                false => self.inner.supply.settled(length, update),
            };
            if settled != Settled::Pending {
                return Ok(Updated {
                    has_grown: (self.fork(), length) > before,
                    is_overdue: settled == Settled::Overdue,
                });
            }
            updating.get_or_insert_with(|| Updating::new(self));
            progress.await;
        }
    }

    /// The block that holds byte `byte` and the offset in it, or `None` if the tree nodes on
    /// the way are not here.
    ///
    /// # Errors
    /// [`CoreError::BytePastEnd`] or [`CoreError::Storage`].
    pub fn seek_local(&self, byte: u64) -> Result<Option<(u64, u64)>, CoreError> {
        self.uncut(|snapshot| snapshot.seek_local(byte))
    }

    /// As [`Core::seek_local`], asking suppliers for what is missing of the tree; or, if none can
    /// tell, fetching blocks until their paths show where the byte is.
    ///
    /// # Errors
    /// As for [`Core::seek_local`] and [`Core::get`].
    pub async fn seek(&self, byte: u64) -> Result<(u64, u64), CoreError> {
        loop {
            match self.snapshot().seek(byte).await {
                Err(CoreError::SnapshotNotAvailable { .. }) => {} // cut meanwhile
                result => return result,
            }
        }
    }
}

/// Blocks that lie one behind the other are read together while they come to no more bytes than this. They
/// share their memory then; longer ones are better off alone.
const RUN_BYTES_MAX: u64 = 64 * 1024;

/// Somebody waits for a newer length, while this lives.
/// What came of [looking for more](Core::look_for_more) of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Updated {
    /// Whether the log grew or came to another fork meanwhile.
    pub has_grown: bool,
    /// Whether there still was somebody who may have had more when there was no more time to wait. Whoever must have the
    /// newest length may look again; that one supplier after the other says to have more and does not show it tells of an
    /// attack, or of a line on which nothing comes through.
    pub is_overdue: bool,
}

struct Updating<'a> {
    core: &'a Core,
    id: UpdateId,
}

impl<'a> Updating<'a> {
    fn new(core: &'a Core) -> Self {
        let id = core.inner.supply.add_update();
        Self { core, id }
    }
}

impl Drop for Updating<'_> {
    fn drop(&mut self) {
        self.core.inner.supply.remove_update(self.id);
    }
}

/// What became of looking for one block of several.
enum Found {
    /// It is not here.
    Absent,
    /// The tree does not say where it is.
    Lost,
    At(BlockPlace),
}

impl Found {
    fn place(&self) -> Option<&BlockPlace> {
        match self {
            Self::At(place) => Some(place),
            Self::Absent | Self::Lost => None,
        }
    }

    fn without_place(&self) -> Read {
        match self {
            Self::Absent => Read::Absent,
            Self::Lost | Self::At(_) => Read::Failed,
        }
    }
}

/// How many of the first ones are to be read together, at least one.
fn run_len(found: &[Found]) -> usize {
    let places = found.iter().map_while(Found::place);
    let (mut end, mut size) = (None, 0u64);
    let is_next = |place: &&BlockPlace| {
        let adjoins = end.is_none_or(|end| end == place.byte_offset);
        size = size.saturating_add(place.leaf.size);
        let fits = end.is_none() || size <= RUN_BYTES_MAX;
        end = place.byte_offset.checked_add(place.leaf.size);
        adjoins && fits && end.is_some()
    };
    places.take_while(is_next).count().max(1)
}

/// What became of reading one block of several.
enum Read {
    /// It is not here.
    Absent,
    /// Its bytes, and the hash that they must have.
    Block(Bytes, Hash),
    Failed,
}

impl Inner {
    /// The roots and the bits of one moment.
    pub(super) fn roots_and_bits(&self) -> (Arc<Roots>, Arc<Bitfield>) {
        let shared = self.read();
        (Arc::clone(&shared.roots), Arc::clone(&shared.bitfield))
    }

    /// Reads block `index` while nobody changes the core: waits for whoever does.
    fn read_undisturbed(&self, index: u64) -> Result<Option<Bytes>, CoreError> {
        let _writer = self.lock_writer();
        let (roots, bits) = self.roots_and_bits();
        if !bits.get(index) {
            self.storage.check()?;
            return Ok(None);
        }
        self.read_block_here(&roots, index)
    }

    /// Reads block `index`, which nobody changes here, of a log with these roots; `None` if somebody else who
    /// may change what is stored has cleared it.
    pub(super) fn read_block_here(
        &self,
        roots: &Roots,
        index: u64,
    ) -> Result<Option<Bytes>, CoreError> {
        let error = match self.read_block(roots, index) {
            Ok(block) => return Ok(Some(block)),
            Err(error) => error,
        };
        match self.storage.still_has(index)? {
            Some(false) => Ok(None),
            // It may have been brought again since.
            Some(true) => self.read_block(roots, index).map(Some),
            None => Err(error),
        }
    }

    /// Reads block `index` of a log with these roots, and hashes it.
    pub(super) fn read_block(&self, roots: &Roots, index: u64) -> Result<Bytes, CoreError> {
        let place = self.storage.locate(roots, index)?;
        let place = place.ok_or_else(|| self.corrupt(index))?;
        match self.read_place(roots, index, &place) {
            // The storage may remember where the block was before a repair of the tree.
            Err(error) => match BlockPlace::find(roots, &Stored(&*self.storage), index)? {
                Some(found) if found != place => self.read_place(roots, index, &found),
                _ => Err(error),
            },
            read => read,
        }
    }

    /// Reads blocks that are yet to be hashed, as far as `bytes_max` allows, or `first_max` if it is the
    /// first.
    fn read_unhashed(&self, indexes: &[u64], bytes_max: usize, first_max: usize) -> Vec<Read> {
        let (roots, bits) = self.roots_and_bits();
        let is_here: Vec<_> = indexes.iter().map(|index| bits.get(*index)).collect();
        drop(bits);
        let mut rest = bytes_max as u64;
        let mut found = Vec::with_capacity(indexes.len());
        for (index, is_here) in indexes.iter().zip(is_here) {
            if !is_here {
                found.push(Found::Absent);
                continue;
            }
            let place = self.storage.locate(&roots, *index).ok().flatten();
            let size = place.map_or(0, |place| place.leaf.size);
            let max = if found.is_empty() {
                first_max as u64
            } else {
                rest
            };
            if size > max {
                break;
            }
            rest = rest.saturating_sub(size);
            found.push(place.map_or(Found::Lost, Found::At));
        }
        self.read_found(&roots, &found)
    }

    /// Reads blocks, those that lie one behind the other together.
    fn read_found(&self, roots: &Roots, found: &[Found]) -> Vec<Read> {
        let mut reads = Vec::with_capacity(found.len());
        let mut rest = found;
        while let Some(first) = rest.first() {
            let Found::At(first) = first else {
                reads.push(first.without_place());
                rest = rest.split_at(1).1;
                continue;
            };
            let (run, behind) = rest.split_at(run_len(rest));
            self.read_run(roots, first, run, &mut reads);
            rest = behind;
        }
        reads
    }

    /// Reads blocks that begin at `first` and lie one behind the other.
    fn read_run(&self, roots: &Roots, first: &BlockPlace, run: &[Found], reads: &mut Vec<Read>) {
        let places = run.iter().filter_map(Found::place);
        let size = places.clone().map(|place| place.leaf.size).sum();
        let read = self.read_unchecked(roots, first.leaf.index / 2, first.byte_offset, size);
        let mut bytes = read.ok().filter(|bytes| bytes.len() as u64 == size);
        reads.extend(places.map(|place| {
            // It fits: the sum does.
            let block = bytes
                .as_mut()
                .map(|bytes| bytes.split_to(place.leaf.size as usize));
            block.map_or(Read::Failed, |block| Read::Block(block, place.leaf.hash))
        }));
    }

    fn read_place(
        &self,
        roots: &Roots,
        index: u64,
        place: &BlockPlace,
    ) -> Result<Bytes, CoreError> {
        let (offset, size) = (place.byte_offset, place.leaf.size);
        let block = self.read_unchecked(roots, index, offset, size)?;
        match hash::leaf(&block) == place.leaf.hash {
            true => Ok(block),
            false => Err(self.corrupt(index)),
        }
    }

    /// `size` bytes from `byte_offset` on, where block `index` begins, whatever they are.
    fn read_unchecked(
        &self,
        roots: &Roots,
        index: u64,
        byte_offset: u64,
        size: u64,
    ) -> Result<Bytes, CoreError> {
        let within = byte_offset
            .checked_add(size)
            .is_some_and(|end| end <= roots.byte_length());
        let size = usize::try_from(size).map_err(|_| self.corrupt(index))?;
        if !within || size > BLOCK_BYTES_MAX {
            return Err(self.corrupt(index));
        }
        Ok(self.storage.block(byte_offset, size)?)
    }

    fn corrupt(&self, index: u64) -> CoreError {
        let core = self.key;
        CoreError::CorruptBlock { core, index }
    }
}
