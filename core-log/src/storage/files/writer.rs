//! What only the one who commits needs: the open oplog and bitfield, and the header to come.
//!
//! Knows whether a header can be written, and where it goes. Does not know nodes, blocks, nor in which order
//! the files are written.

use std::collections::BTreeMap;
use std::ops::Range;

use ferrocore_primitives::keys::DiscoveryKey;

use super::bitfield::BitfieldFile;
use super::header::{self, External};
use super::oplog::{Oplog, SLOT_BYTES};
use super::part::Part;
use super::record::FRAME_BYTES;
use super::recovery::HEADER_BYTES_MAX;
use crate::manifest::Manifest;
use crate::storage::{CoreHeader, CoreWrite, Durability, StorageError};

/// Largest user data of one core, keys and values together, in bytes.
const USER_DATA_BYTES_MAX: usize = 16 << 20;
const _: () = assert!((USER_DATA_BYTES_MAX as u64) < HEADER_BYTES_MAX / 2);

/// What only the one who commits needs.
pub(super) struct Writer {
    pub(super) oplog: Oplog,
    pub(super) bitfield: BitfieldFile,
    pub(super) header_file: Part,
    pub(super) header: CoreHeader,
    pub(super) external: Option<Range<u64>>,
    /// Whether the root hash in `header` is known to be one that was signed, or that a header named. An entry leaves it out, and
    /// what it was made of instead may be damaged.
    pub(super) is_vouched: bool,
    /// Whether `header` or the entries hold what the other files do not.
    pub(super) unflushed: bool,
    /// That of the last commit, for the flush when the core is dropped.
    pub(super) durability: Durability,
}

impl Writer {
    pub(super) fn truncates(&self, write: &CoreWrite) -> bool {
        let length = self.header.head.length;
        write
            .head
            .as_ref()
            .is_some_and(|head| head.ancestors < length)
    }

    /// Refuses a change whose header could not be written later.
    pub(super) fn check_header(
        &self,
        core: &DiscoveryKey,
        write: &CoreWrite,
    ) -> Result<(), StorageError> {
        if write.user_data.is_empty() && write.manifest.is_none() {
            return Ok(());
        }
        let manifest = write.manifest.as_ref().or(self.header.manifest.as_ref());
        let changed = write.user_data.iter();
        let changed = changed.map(|(key, value)| (key, value.as_ref().map_or(0, Vec::len)));
        // The change alone, which an entry holds; then all that is there once it is made.
        self.check_header_of(core, manifest, changed.clone())?;
        let kept = self.header.user_data.iter();
        let mut after: BTreeMap<_, _> = kept.map(|(key, value)| (key, value.len())).collect();
        after.extend(changed);
        after.retain(|_, len| *len > 0);
        self.check_header_of(core, manifest, after.iter().map(|(key, len)| (*key, *len)))
    }

    /// Refuses a header that could be written, but not read.
    pub(super) fn check_header_of<'a>(
        &self,
        core: &DiscoveryKey,
        manifest: Option<&Manifest>,
        user_data: impl Iterator<Item = (&'a String, usize)> + Clone,
    ) -> Result<(), StorageError> {
        let too_large = |reason| {
            let core = *core;
            Err(StorageError::HeaderTooLarge { core, reason })
        };
        let user_bytes: usize = user_data
            .clone()
            .map(|(key, value)| key.len() + value)
            .sum();
        if user_bytes > USER_DATA_BYTES_MAX {
            return too_large(format!(
                "more than {USER_DATA_BYTES_MAX} bytes of user data"
            ));
        }
        match header::bytes_max(manifest, user_data) {
            Some(bytes) if bytes <= HEADER_BYTES_MAX => Ok(()),
            Some(bytes) => too_large(format!(
                "manifest and user data take {bytes} bytes, which is more than {HEADER_BYTES_MAX}"
            )),
            None => too_large("too many values of user data".to_owned()),
        }
    }

    /// Writes the header and with it drops all entries.
    pub(super) fn write_header(&mut self, durability: Durability) -> Result<(), StorageError> {
        let sync = durability == Durability::Sync;
        let contiguous_length = self.bitfield.contiguous_length();
        let payload = header::encode(&self.header, contiguous_length);
        if FRAME_BYTES + payload.len() <= SLOT_BYTES {
            self.oplog.write_header(&payload, sync)?;
            self.external = None;
            return Ok(());
        }
        let external = External::of(&payload, self.place_external(payload.len() as u64));
        self.header_file.write(external.at.start, &payload)?;
        if sync {
            self.header_file.sync()?;
        }
        self.oplog.write_header(&external.encode(), sync)?;
        self.external = Some(external.at);
        Ok(())
    }

    /// Where a long header goes without touching the current one: before it or behind it, from
    /// a page's start.
    fn place_external(&self, len: u64) -> u64 {
        match &self.external {
            Some(current) if len > current.start => current.end.next_multiple_of(SLOT_BYTES as u64),
            _ => 0,
        }
    }
}
