//! Pages of a bitfield that are somewhere else until somebody looks at them.
//!
//! Knows when a page may be forgotten again. Does not know files, nor what is done with pages.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::PAGE_BYTES;
use super::page::Page;
use crate::places::Places;
use crate::storage::StorageError;

/// Most pages that are kept though nobody changed them: those of 8 million blocks, at most 1 MiB.
const UNCHANGED_PAGES_MAX: usize = 256;

/// Where the pages of a bitfield are.
pub trait PageSource: Send + Sync + 'static {
    /// The bytes of page `number`.
    ///
    /// # Errors
    /// [`StorageError`] if it cannot be read.
    fn read_page(&self, number: u64) -> Result<Box<[u8; PAGE_BYTES]>, StorageError>;

    /// The first page from `from` on that may have bits, `None` if none has.
    ///
    /// # Errors
    /// [`StorageError`] if that cannot be told.
    fn next_page(&self, from: u64) -> Result<Option<u64>, StorageError>;

    /// Takes note that bits were taken for clear, as they could not be read: whoever owns them must not
    /// answer from now on as if all was well.
    fn fail(&self, error: StorageError);
}

/// Pages as they were when each was first needed.
///
/// One that is about to change is kept for good before it does (*pinned*): clones which have not seen
/// the change still need it as it was, when its source may have it as it is.
pub(super) struct Unread {
    source: Box<dyn PageSource>,
    kept: Mutex<Kept>,
}

struct Kept {
    pinned: BTreeMap<u64, Arc<Page>>,
    unchanged: Places<Arc<Page>, UNCHANGED_PAGES_MAX>,
}

impl Kept {
    fn get(&self, number: u64) -> Option<&Arc<Page>> {
        let pinned = self.pinned.get(&number);
        pinned.or_else(|| self.unchanged.get(number))
    }
}

impl Unread {
    pub(super) fn new(source: Box<dyn PageSource>) -> Self {
        let kept = Mutex::new(Kept {
            pinned: BTreeMap::new(),
            unchanged: Places::new(),
        });
        Self { source, kept }
    }

    /// Page `number`; `None` if it cannot be read, of which the source is told.
    pub(super) fn page(&self, number: u64) -> Option<Arc<Page>> {
        self.told(self.load(number))
    }

    /// The first page from `from` on and before `end` that may have bits.
    pub(super) fn next(&self, from: u64, end: u64) -> Option<u64> {
        self.told(self.try_next(from, end))?
    }

    /// As [`Unread::next`].
    pub(super) fn try_next(&self, from: u64, end: u64) -> Result<Option<u64>, StorageError> {
        if from >= end {
            return Ok(None);
        }
        if self.lock().get(from).is_some() {
            return Ok(Some(from));
        }
        let next = self.source.next_page(from)?;
        Ok(next.map(|next| next.max(from)).filter(|next| *next < end))
    }

    /// The last page before `before` that may have bits, in a time that grows with the logarithm of how many
    /// have none.
    pub(super) fn prev(&self, before: u64) -> Option<u64> {
        let (mut end, mut step) = (before, 1);
        while end > 0 {
            let start = end.saturating_sub(step);
            if let Some(mut found) = self.next(start, end) {
                while end - found > 1 {
                    let middle = found + (end - found) / 2;
                    match self.next(middle, end) {
                        Some(later) => found = later,
                        None => end = middle,
                    }
                }
                return Some(found);
            }
            (end, step) = (start, step * 2);
        }
        None
    }

    /// Page `number`, which is about to change.
    pub(super) fn pin(&self, number: u64) -> Result<Arc<Page>, StorageError> {
        let page = self.load(number)?;
        let mut kept = self.lock();
        let pinned = kept.pinned.entry(number).or_insert(page);
        Ok(Arc::clone(pinned))
    }

    /// As [`Unread::pin`], and as [`Unread::page`] a page without bits if it cannot be read.
    pub(super) fn pinned_or_blank(&self, number: u64) -> Arc<Page> {
        self.told(self.pin(number)).unwrap_or_default()
    }

    fn load(&self, number: u64) -> Result<Arc<Page>, StorageError> {
        if let Some(page) = self.lock().get(number) {
            return Ok(Arc::clone(page));
        }
        let page = Arc::new(Page::from_bytes(self.source.read_page(number)?.as_slice()));
        let mut kept = self.lock();
        if let Some(pinned) = kept.pinned.get(&number) {
            // It may have been written while it was read.
            return Ok(Arc::clone(pinned));
        }
        kept.unchanged.insert(number, Arc::clone(&page));
        Ok(page)
    }

    fn told<T>(&self, result: Result<T, StorageError>) -> Option<T> {
        result.map_err(|error| self.source.fail(error)).ok()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unread").finish_non_exhaustive()
    }
}
