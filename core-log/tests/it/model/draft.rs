//! A draft: blocks of the core as it was, and blocks of its own.

use bytes::Bytes;
use ferrocore_log::merkle::{Node, Roots};
use ferrocore_log::{CommitOptions, Core, CoreError, Draft};

use super::{Block, any_length, begins_with, byte_length};
use crate::rig::rng::Rng;
use crate::rig::workload::watched;

pub(super) struct DraftModel {
    handle: Option<Draft>,
    blocks: Vec<Block>,
    /// How many of them are the core's.
    base: usize,
    /// How many of these the core still has.
    left: usize,
    /// Whether the core was found to be another when the draft was opened.
    is_gone: bool,
    /// The core's fork when the draft left it.
    fork: u64,
}

impl DraftModel {
    /// One that is begun now.
    pub(super) fn new(core: &[Block], fork: u64) -> Self {
        Self {
            handle: None,
            blocks: core.to_vec(),
            base: core.len(),
            left: core.len(),
            is_gone: false,
            fork,
        }
    }

    /// What is on the disk of it.
    pub(super) fn closed(&self) -> Self {
        let blocks = self.blocks.clone();
        Self {
            handle: None,
            blocks,
            ..*self
        }
    }

    pub(super) fn open(&mut self, core: &Core, blocks: &[Block]) {
        if self.handle.is_none() {
            self.handle = Some(core.draft("draft").unwrap());
            self.is_gone = !begins_with(blocks, &self.blocks[..self.base]);
            self.left = if self.is_gone { 0 } else { self.base };
        }
    }

    fn handle(&self) -> &Draft {
        self.handle.as_ref().expect("it was opened")
    }

    pub(super) fn cut_to(&mut self, length: usize) {
        self.left = self.left.min(length);
    }

    pub(super) fn append(&mut self, bytes: Vec<Bytes>, blocks: Vec<Block>) {
        self.handle().append_batch(bytes).unwrap();
        self.blocks.extend(blocks);
    }

    pub(super) fn truncate(&mut self, rng: &mut Rng) {
        let length = any_length(&self.blocks, rng);
        let result = self.handle().truncate(length as u64);
        let is_possible = length >= self.base || !self.is_gone && length <= self.left;
        if !is_possible {
            assert!(matches!(
                result,
                Err(CoreError::SnapshotNotAvailable { .. })
            ));
            return;
        }
        result.unwrap();
        self.blocks.truncate(length);
        if length < self.base {
            (self.base, self.left) = (length, length);
        }
    }

    pub(super) fn overwrite(&mut self, core: &[Block], fork: u64) {
        self.handle().overwrite().unwrap();
        let handle = self.handle.take();
        *self = Self {
            handle,
            ..Self::new(core, fork)
        };
    }

    /// Commits all or a part, which succeeds if the core goes on as the draft does.
    pub(super) fn commit(
        &mut self,
        core: &mut Vec<Block>,
        fork: u64,
        is_encrypted: bool,
        rng: &mut Rng,
    ) {
        let length = match rng.below(2) {
            0 => self.blocks.len(),
            _ => any_length(&self.blocks, rng),
        };
        let options = CommitOptions {
            length: Some(length as u64),
            ..CommitOptions::default()
        };
        let result = self.handle().commit(options);
        let is_expected = !self.is_gone
            && (self.base..=length).contains(&core.len())
            && begins_with(&self.blocks, core)
            && (!is_encrypted || fork == self.fork);
        if !is_expected {
            assert!(matches!(result, Err(CoreError::Moved { .. })), "{result:?}");
            return;
        }
        let appended = result.unwrap();
        core.extend_from_slice(&self.blocks[core.len()..length]);
        assert_eq!(appended.length, length as u64);
        assert_eq!(appended.byte_length, byte_length(core));
        (self.base, self.left, self.fork) = (length, length, fork);
    }

    pub(super) fn check(&self, core: &[Block], is_encrypted: bool) {
        let Some(draft) = &self.handle else { return };
        assert_eq!(draft.length(), self.blocks.len() as u64);
        assert_eq!(draft.base_length(), self.base as u64);
        assert_eq!(draft.byte_length().unwrap(), byte_length(&self.blocks));
        for index in watched(self.blocks.len() as u64) {
            let found = draft.get_local(index);
            let index = index as usize;
            let block = &self.blocks[index];
            let bytes = || block.bytes.clone();
            match index {
                _ if index >= self.base => assert_eq!(found.unwrap(), Some(bytes())),
                _ if index >= self.left => {
                    assert!(matches!(found, Err(CoreError::SnapshotNotAvailable { .. })));
                }
                _ => assert_eq!(found.unwrap(), core[index].is_here.then(bytes)),
            }
        }
        if !is_encrypted && !self.is_gone {
            let mut roots = Roots::default();
            for (block, index) in self.blocks.iter().zip(0..) {
                roots.push(Node::leaf(index, &block.bytes), |_| {}).unwrap();
            }
            assert_eq!(draft.tree_hash().unwrap(), roots.hash());
        }
    }
}
