//! Proof application: a writer that appends and truncates, a reader that is told of it by honest
//! proofs, changed ones, old ones and mixtures of them.
//!
//! Holds: whatever the reader stores is what the writer appended in that history; it is at no
//! head that the writer did not sign; and nothing it was told keeps it from reading the whole
//! log from an honest peer in the end.

use std::collections::{BTreeMap, HashMap};

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use ferrocore_log::proof::{NodeRequest, Proof, ProofRequest, SeekRequest, UpgradeRequest};
use ferrocore_log::{Core, CoreOptions, Corestore, Manifest};
use ferrocore_primitives::hash::Hash;

use crate::honest::{self, block};
use crate::mutate::mutate;

const STEPS_MAX: usize = 48;
const LENGTH_MAX: u64 = 40;
/// Old proofs that are kept to be told again.
const OLD_MAX: usize = 8;
/// More levels than any tree here has.
const LEVELS_MAX: usize = 8;

/// The input is what happens.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(mut game) = Game::new(&mut input) else {
        return;
    };
    for _ in 0..STEPS_MAX {
        if input.is_empty() || game.step(&mut input).is_err() {
            break;
        }
        game.check();
    }
    game.finish();
}

pub(crate) struct Game {
    pub(crate) writer: Core,
    pub(crate) reader: Core,
    /// What was appended, by fork.
    histories: BTreeMap<u64, Vec<Bytes>>,
    /// Tree hashes by the fork and length that were signed.
    heads: HashMap<(u64, u64), Hash>,
    old: Vec<Proof>,
}

impl Game {
    pub(crate) fn new(input: &mut Unstructured<'_>) -> Result<Self> {
        let manifest = Manifest::single(honest::key_pair().public_key());
        let options = match input.int_in_range(0..=3)? {
            0 => CoreOptions {
                compat: true,
                ..CoreOptions::default()
            },
            1 => CoreOptions {
                manifest: Some(Manifest {
                    version: 0,
                    ..manifest
                }),
                ..CoreOptions::default()
            },
            _ => CoreOptions::default(),
        };
        let writer = honest::core_of(options);
        let reader = Corestore::memory().get(&writer.key());
        let mut game = Self {
            writer,
            reader: reader.expect("memory has room for a core"),
            histories: BTreeMap::from([(0, Vec::new())]),
            heads: HashMap::new(),
            old: Vec::new(),
        };
        game.sign();
        game.append(input.int_in_range(1..=12)?);
        Ok(game)
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=15)? {
            0 => self.append(input.int_in_range(1..=5)?),
            1 => self.truncate(input)?,
            2 => self.clear(input)?,
            3 | 4 => self.follow(input)?,
            5 => self.tell_several(input)?,
            6 => self.tell_again(input)?,
            7 => self.catch_up(),
            _ => self.tell(input)?,
        }
        Ok(())
    }

    /// Remembers the head the writer is at.
    fn sign(&mut self) {
        let head = (self.writer.fork(), self.writer.length());
        let before = self.heads.insert(head, self.writer.tree_hash());
        assert!(before.is_none_or(|hash| hash == self.writer.tree_hash()));
    }

    pub(crate) fn append(&mut self, count: u64) {
        let (fork, length) = (self.writer.fork(), self.writer.length());
        let end = LENGTH_MAX.min(length + count);
        let blocks: Vec<_> = (length..end).map(|index| block(fork, index)).collect();
        self.histories
            .entry(fork)
            .or_default()
            .extend(blocks.iter().cloned());
        self.writer
            .append_batch(blocks)
            .expect("the writer is writable");
        self.sign();
    }

    fn truncate(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let length = input.int_in_range(0..=self.writer.length())?;
        let blocks = self.histories[&self.writer.fork()][..length as usize].to_vec();
        self.writer
            .truncate(length, None)
            .expect("the writer is writable");
        self.histories.insert(self.writer.fork(), blocks);
        self.sign();
        Ok(())
    }

    fn clear(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let start = input.int_in_range(0..=LENGTH_MAX)?;
        let count = input.int_in_range(0..=9)?;
        let _ = self.reader.clear(start..start + count);
        Ok(())
    }

    /// Asks for anything, and passes the answer on as it is or changed.
    fn tell(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let request = self.request(input)?;
        let Ok(Some(proof)) = self.writer.prove(&request) else {
            return Ok(());
        };
        let changed = self.changed(input, &proof)?;
        self.keep(input, proof)?;
        let _ = self.reader.accept(changed);
        Ok(())
    }

    /// Several answers at once, committed together or at a moment when the reader has moved on.
    fn tell_several(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let mut proofs = Vec::new();
        for _ in 0..input.int_in_range(1..=4)? {
            let request = self.request(input)?;
            if let Ok(Some(proof)) = self.writer.prove(&request) {
                proofs.push(self.changed(input, &proof)?);
            }
        }
        let mut changeset = self.reader.changeset();
        let _ = self.reader.verify_into(&mut changeset, proofs);
        if input.ratio(1, 3)? {
            self.catch_up();
        }
        let _ = self.reader.commit(changeset);
        Ok(())
    }

    /// An answer of another time.
    fn tell_again(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        if self.old.is_empty() {
            return Ok(());
        }
        let proof = input.choose(&self.old)?.clone();
        let proof = self.changed(input, &proof)?;
        let _ = self.reader.accept(proof);
        Ok(())
    }

    /// The way to a higher fork, any part of it changed.
    fn follow(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let Some(proof) = self.fork_proof() else {
            return Ok(());
        };
        let changed = self.changed(input, &proof)?;
        self.keep(input, proof)?;
        let Ok(mut reorg) = self.reader.reorg(changed) else {
            return Ok(());
        };
        for _ in 0..input.int_in_range(0..=LEVELS_MAX)? {
            let Some(request) = reorg.wants() else { break };
            let Ok(Some(proof)) = self.writer.prove(&request) else {
                break;
            };
            let changed = self.changed(input, &proof)?;
            let _ = self.reader.narrow(&mut reorg, &changed);
        }
        let _ = self.reader.adopt(reorg);
        Ok(())
    }

    fn fork_proof(&self) -> Option<Proof> {
        let request = ProofRequest {
            fork: self.writer.fork(),
            upgrade: Some(UpgradeRequest {
                start: 0,
                length: self.writer.length(),
            }),
            manifest: true,
            ..ProofRequest::default()
        };
        self.writer.prove(&request).ok()?
    }

    fn request(&self, input: &mut Unstructured<'_>) -> Result<ProofRequest> {
        let parts: u8 = input.arbitrary()?;
        let length = self.writer.length();
        let node = |input: &mut Unstructured<'_>, end: u64, scale: u64| -> Result<NodeRequest> {
            let index = input.int_in_range(0..=end)?;
            let missing = self.reader.missing_nodes(scale * index).unwrap_or(0);
            let nodes = match input.ratio(1, 4)? {
                true => input.int_in_range(0..=6)?,
                false => missing,
            };
            Ok(NodeRequest { index, nodes })
        };
        let mut request = ProofRequest {
            fork: self.writer.fork(),
            manifest: parts & 16 != 0,
            ..ProofRequest::default()
        };
        if parts & 3 == 1 {
            request.block = Some(node(input, length, 2)?);
        } else if parts & 3 == 2 {
            request.hash = Some(node(input, 2 * length, 1)?);
        }
        if parts & 4 != 0 {
            request.seek = Some(SeekRequest {
                bytes: input.int_in_range(0..=self.writer.byte_length() + 1)?,
                padding: if parts & 32 == 0 { 0 } else { 8 },
            });
        }
        if parts & 8 != 0 {
            let start = match parts & 64 {
                0 => self.reader.length(),
                _ => input.int_in_range(0..=length)?,
            };
            let end = match parts & 128 {
                0 => length,
                _ => input.int_in_range(0..=length)?,
            };
            request.upgrade = Some(UpgradeRequest {
                start,
                length: end.saturating_sub(start),
            });
        }
        Ok(request)
    }

    /// `proof`, or one that differs from it in up to three ways.
    pub(crate) fn changed(&self, input: &mut Unstructured<'_>, proof: &Proof) -> Result<Proof> {
        let mut changed = proof.clone();
        for _ in 0..input.int_in_range(0..=3)? {
            let other = match self.old.is_empty() {
                true => None,
                false => Some(input.choose(&self.old)?),
            };
            mutate(input, &mut changed, other)?;
        }
        Ok(changed)
    }

    fn keep(&mut self, input: &mut Unstructured<'_>, proof: Proof) -> Result<()> {
        match self.old.len() < OLD_MAX {
            true => self.old.push(proof),
            false => self.old[input.choose_index(OLD_MAX)?] = proof,
        }
        Ok(())
    }

    /// Whatever the reader holds is the writer's.
    pub(crate) fn check(&self) {
        let (fork, length) = (self.reader.fork(), self.reader.length());
        let signed =
            length == 0 || self.heads.get(&(fork, length)) == Some(&self.reader.tree_hash());
        assert!(signed, "fork {fork} had no signed length {length}");
        let history = &self.histories[&fork];
        for index in 0..=2 * LENGTH_MAX {
            let found = self.reader.get_local(index.min(length.saturating_sub(1)));
            if index < length {
                let found = found.expect("what is stored was verified");
                if let Some(found) = found {
                    assert_eq!(
                        found, history[index as usize],
                        "block {index} of fork {fork}"
                    );
                }
            } else {
                assert!(!self.reader.has(index), "there is no block {index}");
            }
        }
    }

    /// Brings the reader to the writer's head, honestly.
    pub(crate) fn catch_up(&mut self) {
        let length = self.writer.length();
        if length == 0 {
            return; // nothing proves an empty log
        }
        if self.writer.fork() > self.reader.fork() {
            let proof = self.fork_proof().expect("the writer has it all");
            let mut reorg = self.reader.reorg(proof).expect("the proof is honest");
            for _ in 0..LEVELS_MAX {
                let Some(request) = reorg.wants() else { break };
                let proof = self.writer.prove(&request).expect("the writer has it all");
                let proof = proof.expect("the writer has it all");
                self.reader
                    .narrow(&mut reorg, &proof)
                    .expect("the proof is honest");
            }
            assert_eq!(reorg.wants(), None, "it takes a step for each level");
            self.reader.adopt(reorg).expect("nothing came between");
        } else if length > self.reader.length() {
            let start = self.reader.length();
            let request = ProofRequest {
                fork: self.writer.fork(),
                upgrade: Some(UpgradeRequest {
                    start,
                    length: length - start,
                }),
                manifest: true,
                ..ProofRequest::default()
            };
            let proof = self.writer.prove(&request).expect("the writer has it all");
            let proof = proof.expect("the writer has it all");
            self.reader.accept(proof).expect("the proof is honest");
        }
        self.sign();
    }

    /// Whatever was told before, an honest peer's answers are taken.
    pub(crate) fn finish(&mut self) {
        self.check();
        self.catch_up();
        if self.writer.length() == 0 {
            return;
        }
        assert_eq!(self.reader.length(), self.writer.length());
        for index in 0..self.writer.length() {
            let nodes = self.reader.missing_nodes(2 * index);
            let request = ProofRequest {
                fork: self.writer.fork(),
                block: Some(NodeRequest {
                    index,
                    nodes: nodes.expect("memory does not fail"),
                }),
                ..ProofRequest::default()
            };
            let proof = self.writer.prove(&request).expect("the writer has it all");
            let proof = proof.expect("the writer has it all");
            self.reader.accept(proof).expect("the proof is honest");
            assert!(self.reader.has(index));
        }
        assert_eq!(self.reader.contiguous_length(), self.writer.length());
        self.check();
    }
}
