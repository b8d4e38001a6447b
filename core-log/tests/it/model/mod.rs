//! The obvious core: a list of blocks, some of them cleared.

mod draft;
mod view;

use std::collections::BTreeMap;

use bytes::Bytes;
use ferrocore_log::{AppendOptions, Core, CoreError};

use super::rig::rng::Rng;
use super::rig::workload::{pick, watched, wide_block};
use draft::DraftModel;
use view::ViewModel;

pub(crate) struct Model {
    is_encrypted: bool,
    blocks: Vec<Block>,
    fork: u64,
    user_data: BTreeMap<String, Vec<u8>>,
    views: Vec<ViewModel>,
    draft: Option<DraftModel>,
}

#[derive(Debug, Clone)]
pub(crate) struct Block {
    bytes: Bytes,
    /// Under which fork it was encrypted; 0 if it was not. Two blocks that differ in this alone
    /// are stored as different bytes.
    fork: u64,
    is_here: bool,
}

impl Block {
    fn is_stored_as(&self, other: &Self) -> bool {
        (&self.bytes, self.fork) == (&other.bytes, other.fork)
    }
}

/// Whether `log` begins with `start`, to the last stored byte.
fn begins_with(log: &[Block], start: &[Block]) -> bool {
    let mut pairs = log.iter().zip(start);
    log.len() >= start.len() && pairs.all(|(a, b)| a.is_stored_as(b))
}

fn byte_length(blocks: &[Block]) -> u64 {
    blocks.iter().map(|block| block.bytes.len() as u64).sum()
}

impl Model {
    pub(crate) fn new(is_encrypted: bool) -> Self {
        Self {
            is_encrypted,
            blocks: Vec::new(),
            fork: 0,
            user_data: BTreeMap::new(),
            views: Vec::new(),
            draft: None,
        }
    }

    /// The model of a wide core as it begins.
    pub(crate) fn wide(length: u64) -> Self {
        let block = |index| Block {
            bytes: wide_block(index),
            fork: 0,
            is_here: true,
        };
        Self {
            blocks: (0..length).map(block).collect(),
            ..Self::new(false)
        }
    }

    /// What a process finds that opens the files: no view of the one before.
    pub(crate) fn reopened(&self) -> Self {
        Self {
            is_encrypted: self.is_encrypted,
            blocks: self.blocks.clone(),
            fork: self.fork,
            user_data: self.user_data.clone(),
            views: Vec::new(),
            draft: self.draft.as_ref().map(|draft| draft.closed()),
        }
    }

    pub(crate) fn step(&mut self, core: &Core, rng: &mut Rng) {
        match rng.below(20) {
            0..5 => self.append(core, rng),
            5 | 6 => self.truncate(core, rng),
            7 | 8 => self.clear(core, rng),
            9 => self.set_user_data(core, rng),
            10 => core.flush().unwrap(),
            11 => {
                let too_far = core.truncate(core.length() + 1, None);
                assert!(matches!(too_far, Err(CoreError::OutOfBounds { .. })));
            }
            12 => self.compare_and_append(core, rng),
            13 | 14 => self.look(core, rng),
            _ => self.step_draft(core, rng),
        }
    }

    /// Random blocks, as they are appended and as the model keeps them.
    fn new_blocks(&self, rng: &mut Rng) -> (Vec<Bytes>, Vec<Block>) {
        let count = match rng.below(24) {
            0 => 130 + rng.below(20),
            _ => rng.below(6),
        };
        let block = |_| {
            let bytes = match rng.below(24) {
                0 => vec![0; 4_096 + rng.below(4_096)],
                // Now and then the same as another block.
                1 | 2 => vec![1],
                _ => {
                    let len = rng.below(40);
                    rng.bytes(len)
                }
            };
            Bytes::from(bytes)
        };
        let bytes: Vec<Bytes> = (0..count).map(block).collect();
        let fork = if self.is_encrypted { self.fork } else { 0 };
        let block = |bytes: &Bytes| Block {
            bytes: bytes.clone(),
            fork,
            is_here: true,
        };
        let blocks = bytes.iter().map(block).collect();
        (bytes, blocks)
    }

    fn append(&mut self, core: &Core, rng: &mut Rng) {
        let (bytes, blocks) = self.new_blocks(rng);
        core.append_batch(bytes).unwrap();
        self.blocks.extend(blocks);
    }

    fn compare_and_append(&mut self, core: &Core, rng: &mut Rng) {
        let (bytes, blocks) = self.new_blocks(rng);
        let length = self.blocks.len() as u64;
        let expected = AppendOptions::at(
            self.fork + u64::from(rng.one_in(4)),
            length + u64::from(rng.one_in(4)),
        );
        let options = AppendOptions {
            max_length: rng.one_in(3).then(|| length + rng.below(4) as u64),
            ..expected
        };
        let is_expected = expected == AppendOptions::at(self.fork, length);
        let fits = options
            .max_length
            .is_none_or(|max| length + blocks.len() as u64 <= max);
        match core.append_with(bytes, options) {
            Ok(_) => {
                assert!(is_expected && fits);
                self.blocks.extend(blocks);
            }
            Err(CoreError::Moved {
                length: found,
                fork,
                ..
            }) => assert!(!is_expected && (found, fork) == (length, self.fork)),
            Err(CoreError::TooLong { length: found, .. }) => {
                assert!(is_expected && !fits && found == length);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn truncate(&mut self, core: &Core, rng: &mut Rng) {
        let length = any_length(&self.blocks, rng);
        core.truncate(length as u64, None).unwrap();
        self.blocks.truncate(length);
        self.fork += 1;
        for view in &mut self.views {
            view.cut_to(length);
        }
        if let Some(draft) = &mut self.draft {
            draft.cut_to(length);
        }
    }

    fn clear(&mut self, core: &Core, rng: &mut Rng) {
        let start = any_length(&self.blocks, rng);
        let end = match rng.one_in(4) {
            // Whole pages, of a wide core.
            true => any_length(&self.blocks, rng).max(start),
            false => start + rng.below(20),
        };
        core.clear(start as u64..end as u64).unwrap();
        let cleared = self.blocks.iter_mut().take(end).skip(start);
        cleared.for_each(|block| block.is_here = false);
    }

    fn set_user_data(&mut self, core: &Core, rng: &mut Rng) {
        let key = rng.below(3).to_string();
        let len = [0, 1, 100, 5_000][rng.below(4)];
        let value = rng.bytes(len);
        core.set_user_data(&key, Some(&value)).unwrap();
        match value.is_empty() {
            true => self.user_data.remove(&key),
            false => self.user_data.insert(key, value),
        };
    }

    /// Takes a snapshot or a checkout in the place of an older one.
    fn look(&mut self, core: &Core, rng: &mut Rng) {
        let length = match rng.below(2) {
            0 => self.blocks.len(),
            _ => any_length(&self.blocks, rng),
        };
        let view = match length == self.blocks.len() {
            true => core.snapshot(),
            false => core.checkout(length as u64).unwrap(),
        };
        self.views
            .push(ViewModel::new(view, &self.blocks[..length]));
        if self.views.len() > 3 {
            self.views.remove(rng.below(3));
        }
    }

    fn step_draft(&mut self, core: &Core, rng: &mut Rng) {
        let (bytes, blocks) = self.new_blocks(rng);
        let mut draft = self.open_draft(core);
        match rng.below(10) {
            0..4 => draft.append(bytes, blocks),
            4..6 => draft.truncate(rng),
            6 => draft.overwrite(&self.blocks, self.fork),
            7 => draft = draft.closed(),
            _ => draft.commit(&mut self.blocks, self.fork, self.is_encrypted, rng),
        }
        self.draft = Some(draft);
    }

    /// The draft, begun or opened again if need be.
    fn open_draft(&mut self, core: &Core) -> DraftModel {
        let draft = self.draft.take();
        let mut draft = draft.unwrap_or_else(|| DraftModel::new(&self.blocks, self.fork));
        draft.open(core, &self.blocks);
        draft
    }

    pub(crate) fn check(&self, core: &Core, rng: &mut Rng) {
        assert_eq!(core.length(), self.blocks.len() as u64);
        assert_eq!(core.fork(), self.fork);
        let missing = self.blocks.iter().position(|block| !block.is_here);
        let contiguous_length = missing.unwrap_or(self.blocks.len()) as u64;
        assert_eq!(core.contiguous_length(), contiguous_length);
        let here = self.blocks.iter().filter(|block| block.is_here).count() as u64;
        assert_eq!(core.count(0..core.length()), here);
        for index in watched(core.length()) {
            let block = &self.blocks[index as usize];
            let expected = block.is_here.then(|| block.bytes.clone());
            assert_eq!(core.get_local(index).unwrap(), expected);
        }
        for key in ["0", "1", "2"] {
            assert_eq!(core.user_data(key).as_ref(), self.user_data.get(key));
        }
        self.check_range(core, rng);
        self.check_seek(core, rng);
        for view in &self.views {
            view.check(&self.blocks, rng);
        }
        if let Some(draft) = &self.draft {
            draft.check(&self.blocks, self.is_encrypted);
        }
    }

    /// Opens the draft, if there is one, and checks it.
    pub(crate) fn check_draft(&mut self, core: &Core, rng: &mut Rng) {
        if self.draft.is_some() {
            self.draft = Some(self.open_draft(core));
            self.check(core, rng);
        }
    }

    fn check_range(&self, core: &Core, rng: &mut Rng) {
        let start = any_length(&self.blocks, rng);
        let end = any_length(&self.blocks, rng).max(start);
        let are_here = self.blocks[start..end].iter().all(|block| block.is_here);
        assert_eq!(core.has_range(start as u64..end as u64), are_here);
    }

    /// Any byte lies in the block in which the sizes before it put it.
    fn check_seek(&self, core: &Core, rng: &mut Rng) {
        assert_eq!(core.byte_length(), byte_length(&self.blocks));
        if let Some((byte, place)) = any_byte(&self.blocks, rng) {
            assert_eq!(core.seek_local(byte).unwrap(), Some(place));
        }
    }
}

/// A length that the log has or had: any of a short one, one at an edge of a page of a long one.
fn any_length(blocks: &[Block], rng: &mut Rng) -> usize {
    match blocks.len() as u64 {
        0 => 0,
        length => pick(length, rng) as usize + rng.below(2),
    }
}

/// A byte that is not the first of its block, of which empty blocks make several, and where it is.
fn any_byte(blocks: &[Block], rng: &mut Rng) -> Option<(u64, (u64, u64))> {
    let index = rng.below(blocks.len().max(1));
    let size = blocks.get(index)?.bytes.len();
    if size < 2 {
        return None;
    }
    let offset = 1 + rng.below(size - 1) as u64;
    let start = byte_length(&blocks[..index]);
    Some((start + offset, (index as u64, offset)))
}
