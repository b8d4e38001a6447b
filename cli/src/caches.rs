//! What is remembered of folders, so that their files need not be read again.
//! Knows files of the store that may be lost at any time. Does not know what is in them.

use std::path::{Path, PathBuf};

use ferrocore::Key;
use ferrocore::primitives::hash;
use serde::Serialize;
use serde::de::DeserializeOwned;

const DIRECTORY: &str = "cache";

/// The place of what is remembered of one folder and one drive.
#[derive(Debug)]
pub(crate) struct Cache {
    path: PathBuf,
}

impl Cache {
    /// The cache of `purpose`, in the store in `store`, for `folder` and the drive `key`.
    pub(crate) fn new(store: &Path, purpose: &str, key: &Key, folder: &Path) -> Self {
        let folder = folder.as_os_str().as_encoded_bytes();
        let name = hash::hash(&[purpose.as_bytes(), key.as_bytes(), folder]);
        let path = store
            .join(DIRECTORY)
            .join(format!("{}.json", name.to_hex()));
        Self { path }
    }

    /// What was saved last, or nothing: a lost cache costs time only.
    pub(crate) fn load<T: DeserializeOwned + Default>(&self) -> T {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Saves `value` if that is possible.
    pub(crate) fn save(&self, value: &impl Serialize) {
        let saved = serde_json::to_vec(value)
            .map_err(std::io::Error::other)
            .and_then(|bytes| replace(&self.path, &bytes));
        if let Err(error) = saved {
            tracing::warn!(path = %self.path.display(), %error, "cannot save a cache");
        }
    }
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_what_is_lost_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::from([1; 32]);
        let cache = |folder: &str| Cache::new(dir.path(), "import", &key, Path::new(folder));
        assert!(cache("/a").load::<Vec<u8>>().is_empty());
        cache("/a").save(&vec![1, 2]);
        assert_eq!(cache("/a").load::<Vec<u8>>(), [1, 2]);
        assert!(cache("/b").load::<Vec<u8>>().is_empty());
        std::fs::write(&cache("/a").path, "damage").unwrap();
        assert!(cache("/a").load::<Vec<u8>>().is_empty());
    }
}
