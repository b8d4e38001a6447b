//! A file in memory whose copies share what none of them changed: a long core is copied at every cut.

use std::ops::Range;
use std::sync::Arc;

const PAGE_BYTES: usize = 4096;

/// Bytes that may be zero without taking any memory.
#[derive(Clone, Default)]
pub(crate) struct File {
    pages: Vec<Option<Arc<[u8; PAGE_BYTES]>>>,
    len: usize,
}

impl File {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads what there is of `buffer.len()` bytes, and says how many.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let rest = (self.len as u64).saturating_sub(offset);
        let count = buffer.len().min(rest as usize);
        let mut done = 0;
        while done < count {
            let (page, within) = place(offset as usize + done);
            let part = (PAGE_BYTES - within).min(count - done);
            let target = &mut buffer[done..done + part];
            match &self.pages[page] {
                Some(bytes) => target.copy_from_slice(&bytes[within..within + part]),
                None => target.fill(0),
            }
            done += part;
        }
        count
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.resize(self.len.max(offset + bytes.len()));
        let mut done = 0;
        while done < bytes.len() {
            let (page, within) = place(offset + done);
            let part = (PAGE_BYTES - within).min(bytes.len() - done);
            let page = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            let target = &mut Arc::make_mut(page)[within..within + part];
            target.copy_from_slice(&bytes[done..done + part]);
            done += part;
        }
    }

    /// Cuts the file off, or adds zeros.
    pub(crate) fn resize(&mut self, len: usize) {
        self.punch(len..self.len);
        self.pages.resize(len.div_ceil(PAGE_BYTES), None);
        self.len = len;
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.resize(len.min(self.len));
    }

    /// Makes bytes zero.
    pub(crate) fn punch(&mut self, range: Range<usize>) {
        let (mut at, end) = (range.start, range.end.min(self.len));
        while at < end {
            let (page, within) = place(at);
            let part = (PAGE_BYTES - within).min(end - at);
            if part == PAGE_BYTES {
                self.pages[page] = None;
            } else if let Some(bytes) = &mut self.pages[page] {
                Arc::make_mut(bytes)[within..within + part].fill(0);
            }
            at += part;
        }
    }

    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes);
        bytes
    }

    /// Changes the file in ways that files know nothing of.
    pub(crate) fn edit<T>(&mut self, edit: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut bytes = self.to_vec();
        let result = edit(&mut bytes);
        *self = bytes.into();
        result
    }
}

fn place(at: usize) -> (usize, usize) {
    (at / PAGE_BYTES, at % PAGE_BYTES)
}

impl From<Vec<u8>> for File {
    fn from(bytes: Vec<u8>) -> Self {
        let mut file = Self::default();
        file.write(0, &bytes);
        file
    }
}

impl PartialEq for File {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.to_vec() == other.to_vec()
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}
