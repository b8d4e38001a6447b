//! The one draft of a core, on the same files in memory.

use std::sync::Arc;

use ferrocore_log::Durability;
use ferrocore_log::storage::files::{CoreFiles, FileCore};
use ferrocore_log::storage::{CoreHeader, DraftStorage, OpenedCore, StorageError};
use ferrocore_primitives::keys::DiscoveryKey;

use super::Disk;

const FILES: [&str; 5] = [
    "draft/oplog",
    "draft/tree",
    "draft/bitfield",
    "draft/data",
    "draft/header",
];

/// A place on `disk` for one draft, whatever its name.
pub(crate) fn of(disk: &Disk, durability: Durability) -> Arc<dyn DraftStorage> {
    Arc::new(DiskDrafts {
        disk: disk.clone(),
        durability,
    })
}

struct DiskDrafts {
    disk: Disk,
    durability: Durability,
}

impl DiskDrafts {
    fn files(&self) -> CoreFiles {
        self.disk.core_files_named(FILES)
    }
}

impl DraftStorage for DiskDrafts {
    fn open(&self, draft: &DiscoveryKey) -> Result<Option<OpenedCore>, StorageError> {
        FileCore::open(draft, self.files(), self.durability)
    }

    fn create(&self, header: CoreHeader) -> Result<OpenedCore, StorageError> {
        FileCore::create(self.files(), header, self.durability)
    }

    fn list(&self) -> Result<Vec<CoreHeader>, StorageError> {
        Ok(Vec::new())
    }

    fn remove(&self, _: &DiscoveryKey) -> Result<bool, StorageError> {
        for name in FILES {
            let file = self.disk.file(name);
            file.set_len(0).unwrap();
        }
        Ok(true)
    }
}
