//! Static cores: logs that their key pins, made of blocks or of another core.

use bytes::Bytes;

use super::{CoreOptions, Corestore, StoreError};
use crate::core::{Core, HashedBlocks};
use crate::manifest::{Manifest, Prologue};
use crate::storage::{CREATED_UNDER, GIVEN};

impl Corestore {
    /// Makes the static core of `blocks`: nobody signs it, nobody can change it, and its key says
    /// what is in it. If it is here already, it is opened.
    ///
    /// The blocks are committed as one. Make a longer log with [`Core::append_batch`] and
    /// [`Corestore::staticify`].
    ///
    /// # Errors
    /// [`StoreError::Empty`] without a block; those of [`Core::append_batch`] on sizes;
    /// [`StoreError::Storage`].
    ///
    /// # Examples
    /// ```
    /// use ferrocore_log::Corestore;
    ///
    /// let store = Corestore::memory();
    /// let release = store.create_static(vec!["version".into(), "1.0".into()])?;
    /// assert_eq!(release.length(), 2);
    /// assert!(release.append("1.1").is_err());
    ///
    /// // A log that goes on can be pinned as it is now. It is not changed by that.
    /// let notes = store.get_named("notes")?;
    /// notes.append("version")?;
    /// notes.append("1.0")?;
    /// let pinned = store.staticify(&notes)?;
    /// notes.append("draft")?;
    /// assert_eq!(pinned.length(), 2);
    /// assert_eq!(pinned.key(), release.key()); // the same blocks, so the same core
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_static(&self, blocks: Vec<Bytes>) -> Result<Core, StoreError> {
        let hashed = HashedBlocks::checked(blocks)?;
        let (roots, nodes) = hashed.tree().ok_or(StoreError::Empty)?;
        let core = self.get_pinned(Prologue {
            hash: roots.hash(),
            length: roots.length(),
        })?;
        if core.contiguous_length() < roots.length() {
            core.fill_prologue(hashed.into_blocks(), roots, nodes)?;
        }
        Ok(core)
    }

    /// Makes a static core of all that `source` has now, in this store or another. It has the
    /// blocks as they are stored, encrypted ones with them ([`EncryptionKey::of_core`] reads
    /// those), and the user data of `source`, which is not changed and goes on as it was.
    ///
    /// Blocks are copied a few MiB at a time. If that is cut off, what is there is a sparse core
    /// that says so, and the next call goes on.
    ///
    /// [`EncryptionKey::of_core`]: crate::EncryptionKey::of_core
    ///
    /// # Errors
    /// [`StoreError::Empty`] if `source` has no blocks. As for [`Core::copy_prologue`]; if `source`
    /// lacks a block, nothing is made.
    pub fn staticify(&self, source: &Core) -> Result<Core, StoreError> {
        let length = source.length();
        if length == 0 {
            return Err(StoreError::Empty);
        }
        source.check_whole(length)?;
        let hash = source.tree_head(length)?.hash;
        let core = self.get_pinned(Prologue { hash, length })?;
        core.copy_prologue(source)?;
        for (key, value) in source.all_user_data() {
            let is_name = [CREATED_UNDER, GIVEN]
                .as_flattened()
                .contains(&key.as_str());
            if !is_name && core.user_data(&key).as_ref() != Some(&value) {
                core.set_user_data(&key, Some(&value))?;
            }
        }
        Ok(core)
    }

    fn get_pinned(&self, prologue: Prologue) -> Result<Core, StoreError> {
        let manifest = Manifest::pinned(prologue);
        self.get_with(CoreOptions {
            manifest: Some(manifest),
            ..CoreOptions::default()
        })
    }
}
