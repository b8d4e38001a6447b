//! Making and opening a core: from its files to a [`FileCore`] that has recovered them.
//!
//! Knows what a kill or a power cut may have left, and what has to be on the device before anybody sees it. Does not know commits.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};

use ferrocore_primitives::keys::DiscoveryKey;

use super::super::bitfield::BitfieldFile;
use super::super::data::Data;
use super::super::oplog::Oplog;
use super::super::overlay::Overlay;
use super::super::poison::Poison;
use super::super::recovery::RootCheck;
use super::super::snapshot;
use super::super::tree::Tree;
use super::super::writer::Writer;
use super::{CoreFiles, FileCore, Parts};
use crate::bitfield::Bitfield;
use crate::storage::{CoreHeader, CoreStorage, Durability, OpenedCore, StorageError};

impl FileCore {
    /// Creates a core in `files`. They hold none; what else is in them is dropped.
    ///
    /// # Errors
    /// [`StorageError::Io`] if they cannot be written, [`StorageError::HeaderTooLarge`].
    pub fn create(
        files: CoreFiles,
        header: CoreHeader,
        durability: Durability,
    ) -> Result<OpenedCore, StorageError> {
        let (opened, _) = Self::create_shared(files, header, durability)?;
        Ok(opened)
    }

    /// As [`FileCore::create`], with a handle on the core for [`Journal`](super::super::Journal).
    ///
    /// # Errors
    /// As for [`FileCore::create`].
    pub fn create_shared(
        files: CoreFiles,
        header: CoreHeader,
        durability: Durability,
    ) -> Result<(OpenedCore, Arc<Self>), StorageError> {
        let core = header.key.discovery_key();
        let parts = Parts::new(&core, files);
        parts.clear()?;
        let mut writer = Writer {
            oplog: Oplog::empty(parts.oplog),
            bitfield: BitfieldFile::empty(parts.bitfield),
            header_file: parts.header,
            header,
            external: None,
            is_vouched: true,
            unflushed: false,
            durability,
        };
        let user_data = writer.header.user_data.iter();
        let user_data = user_data.map(|(key, value)| (key, value.len()));
        writer.check_header_of(&core, writer.header.manifest.as_ref(), user_data)?;
        writer.write_header(durability)?;
        if durability == Durability::Sync {
            writer.oplog.sync()?;
        }
        let overlay = Overlay::default();
        Ok(Self::open_parts(
            core,
            parts.data,
            parts.tree,
            overlay,
            writer,
            Arc::default(),
        ))
    }

    /// Opens the core in `files`, recovering it first; `None` if there is none yet.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] if the files cannot be `core`, [`StorageError::UnknownFormat`],
    /// [`StorageError::Io`].
    pub fn open(
        core: &DiscoveryKey,
        files: CoreFiles,
        durability: Durability,
    ) -> Result<Option<OpenedCore>, StorageError> {
        let opened = Self::open_shared(core, files, durability)?;
        Ok(opened.map(|(opened, _)| opened))
    }

    /// As [`FileCore::open`], whatever the roots are. Nothing is flushed before it is [told](CoreStorage::set_roots)
    /// what they should be.
    ///
    /// # Errors
    /// As for [`FileCore::open`].
    pub fn open_unverified(
        core: &DiscoveryKey,
        files: CoreFiles,
        durability: Durability,
    ) -> Result<Option<OpenedCore>, StorageError> {
        let opened = Self::open_unverified_shared(core, files, durability)?;
        Ok(opened.map(|(opened, _)| opened))
    }

    /// As [`FileCore::open_unverified`], with a handle on the core for [`Journal`](super::super::Journal).
    ///
    /// # Errors
    /// As for [`FileCore::open`].
    pub fn open_unverified_shared(
        core: &DiscoveryKey,
        files: CoreFiles,
        durability: Durability,
    ) -> Result<Option<(OpenedCore, Arc<Self>)>, StorageError> {
        Self::open_checked(core, files, durability, RootCheck::None)
    }

    /// As [`FileCore::open`], with a handle on the core for [`Journal`](super::super::Journal).
    ///
    /// # Errors
    /// As for [`FileCore::open`].
    pub fn open_shared(
        core: &DiscoveryKey,
        files: CoreFiles,
        durability: Durability,
    ) -> Result<Option<(OpenedCore, Arc<Self>)>, StorageError> {
        Self::open_checked(core, files, durability, RootCheck::Whole)
    }

    fn open_checked(
        core: &DiscoveryKey,
        files: CoreFiles,
        durability: Durability,
        check: RootCheck,
    ) -> Result<Option<(OpenedCore, Arc<Self>)>, StorageError> {
        let parts = Parts::new(core, files);
        let Some(state) = parts.read(core, check)? else {
            return Ok(None);
        };
        let length = state.header.head.length;
        let poison = Arc::default();
        let truncated = state.overlay.cut().is_some();
        // Whoever had it open before may have been killed before all was on the device, or have closed it without a sync of the
        // blocks, as one who does not ask for any, or of anything, as JavaScript. What a truncate gave up is overwritten from here
        // on: were that to outlive its entry, the old head would lack its blocks.
        let must_sync = durability == Durability::Sync || truncated;
        if must_sync {
            parts.sync()?;
        }
        let bitfield = parts.bitfield;
        let mut writer = Writer {
            bitfield: BitfieldFile::load(bitfield, length, &state.bits, state.front, &poison)?,
            is_vouched: !state.upgraded,
            unflushed: check == RootCheck::Whole && !state.layout.is_flushed(),
            oplog: Oplog::new(parts.oplog, state.layout),
            header_file: parts.header,
            header: state.header,
            external: state.external,
            durability,
        };
        if must_sync {
            writer.oplog.sync()?; // it is by now: its entries are settled
        }
        writer.oplog.cut_tail()?;
        if state.lost_slot {
            writer.oplog.clear_lost_slot()?;
        }
        if !truncated {
            parts.tree.cut(length)?;
        }
        let (data, tree) = (parts.data, parts.tree);
        let opened = Self::open_parts(*core, data, tree, state.overlay, writer, poison);
        if truncated {
            let core = &*opened.1;
            if check == RootCheck::Whole && core.is_vouched(&mut core.writer()) {
                core.free_behind(&state.roots)?;
                core.flush(durability)?;
            }
        }
        Ok(Some(opened))
    }

    /// Opens the core in the files that `files` opens, to be read only: nothing is changed, and
    /// somebody else may have it open and change it. It stays as it was last committed; once
    /// that is not there any more, reading it fails. `None` if there is no core yet.
    ///
    /// # Errors
    /// As for [`FileCore::open`], and [`StorageError::Unsettled`].
    pub fn open_read_only(
        core: &DiscoveryKey,
        files: impl Fn() -> Result<Option<CoreFiles>, StorageError>,
    ) -> Result<Option<OpenedCore>, StorageError> {
        snapshot::open(core, files, RootCheck::Whole)
    }

    /// As [`FileCore::open_read_only`], whatever the roots are.
    ///
    /// # Errors
    /// As for [`FileCore::open_read_only`].
    pub fn open_read_only_unverified(
        core: &DiscoveryKey,
        files: impl Fn() -> Result<Option<CoreFiles>, StorageError>,
    ) -> Result<Option<OpenedCore>, StorageError> {
        snapshot::open(core, files, RootCheck::None)
    }

    /// What is in the files that `files` opens, without changing them.
    ///
    /// # Errors
    /// As for [`FileCore::open_read_only`].
    pub fn peek(
        core: &DiscoveryKey,
        files: impl Fn() -> Result<Option<CoreFiles>, StorageError>,
    ) -> Result<Option<CoreHeader>, StorageError> {
        snapshot::peek(core, files)
    }

    fn open_parts(
        core: DiscoveryKey,
        data: Data,
        tree: Tree,
        overlay: Overlay,
        writer: Writer,
        poison: Arc<Poison>,
    ) -> (OpenedCore, Arc<Self>) {
        let header = writer.header.clone();
        let bitfield: Bitfield = writer.bitfield.bits().clone();
        let overlaid = !overlay.is_empty();
        let storage = Arc::new(Self {
            core,
            data,
            tree,
            overlay: RwLock::new(overlay),
            overlaid: AtomicBool::new(overlaid),
            writer: Mutex::new(writer),
            poison,
        });
        let opened = OpenedCore {
            header,
            bitfield,
            storage: Arc::clone(&storage) as _,
            drafts: None,
            conflicts: None,
        };
        (opened, storage)
    }
}
