//! Histories of a core, recorded change by change.

use std::fmt;

use bytes::Bytes;
use ferrocore_log::proof::{NodeRequest, Proof, ProofRequest, UpgradeRequest};
use ferrocore_log::{Core, CoreError, Durability};
use ferrocore_primitives::hash::Hash;

use super::rng::Rng;
use super::{Change, Contents, Disk, create, create_from, header, open};

/// Steps of one history.
const STEPS: usize = 12;

/// Everything there is to know about a core.
#[derive(Clone, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) fork: u64,
    pub(crate) length: u64,
    pub(crate) hash: Hash,
    pub(crate) blocks: Vec<Option<Bytes>>,
    pub(crate) user_data: Option<Vec<u8>>,
}

impl Snapshot {
    pub(crate) fn of(core: &Core) -> Result<Self, CoreError> {
        let blocks = (0..core.length()).map(|index| core.get_local(index));
        Ok(Self::with(core, blocks.collect::<Result<_, _>>()?))
    }

    /// As [`Snapshot::of`], where a block that is damaged counts for one that is not here.
    pub(crate) fn lossy(core: &Core) -> Self {
        let blocks = (0..core.length()).map(|index| core.get_local(index).unwrap_or_default());
        Self::with(core, blocks.collect())
    }

    fn with(core: &Core, blocks: Vec<Option<Bytes>>) -> Self {
        Self {
            fork: core.fork(),
            length: core.length(),
            hash: core.tree_hash(),
            blocks,
            user_data: core.user_data("key"),
        }
    }

    /// Whether this is `other`, with some of its blocks lost or others not lost.
    pub(crate) fn resembles(&self, other: &Self) -> bool {
        let mut pairs = self.blocks.iter().zip(&other.blocks);
        (self.head(), &self.user_data) == (other.head(), &other.user_data)
            && pairs.all(|(a, b)| a.is_none() || b.is_none() || a == b)
    }

    fn head(&self) -> (u64, u64, Hash) {
        (self.fork, self.length, self.hash)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fork, length, hash) = self.head();
        let user_data = self.user_data.as_ref().map(Vec::len);
        let missing = |(index, block): (usize, &Option<_>)| block.is_none().then_some(index);
        let missing: Vec<_> = self.blocks.iter().enumerate().filter_map(missing).collect();
        write!(
            f,
            "(fork {fork}, length {length}, {hash}, user data {user_data:?}, without {missing:?})"
        )
    }
}

/// A state that was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    /// How many changes there were by then.
    pub(crate) at: usize,
    /// `None` before the core was created.
    pub(crate) state: Option<Snapshot>,
    /// Whether no power cut takes its head back, however little was asked for.
    pub(crate) durable: bool,
}

/// What happened to the files of a core.
pub(crate) struct Recording {
    pub(crate) start: Contents,
    pub(crate) changes: Vec<Change>,
    pub(crate) marks: Vec<Mark>,
    /// Where a reader has its blocks from; a writer has none.
    pub(crate) source: Option<Core>,
    /// Whether it replaces history by another that is longer than what both share.
    pub(crate) is_reorg: bool,
    /// Whether it begins with what a power cut left that nothing was synced for: blocks and nodes
    /// may be missing.
    pub(crate) is_lossy: bool,
}

/// Records what somebody does who has the secret key.
pub(crate) fn record_writer(durability: Durability, rng: &mut Rng) -> Recording {
    let mut recorder = Recorder::new(durability, None, rng);
    (0..STEPS).for_each(|_| recorder.write(rng));
    recorder.finish()
}

/// Records what somebody does who takes blocks from another, in any order.
pub(crate) fn record_reader(durability: Durability, rng: &mut Rng) -> Recording {
    let source = create(&Disk::new(Contents::new()), Durability::Buffered).unwrap();
    let mut recorder = Recorder::new(durability, Some(source), rng);
    (0..STEPS).for_each(|_| recorder.read(rng));
    recorder.finish()
}

struct Recorder {
    disk: Disk,
    core: Option<Core>,
    durability: Durability,
    marks: Vec<Mark>,
    source: Option<Core>,
}

impl Recorder {
    fn new(durability: Durability, source: Option<Core>, rng: &mut Rng) -> Self {
        let disk = Disk::new(Contents::new());
        let mut header = header();
        if source.is_some() && rng.one_in(2) {
            header.manifest = None;
        }
        let mut recorder = Self {
            core: Some(create_from(&disk, header, durability).unwrap()),
            disk,
            durability,
            marks: vec![Mark {
                at: 0,
                state: None,
                durable: false,
            }],
            source,
        };
        recorder.mark(false);
        recorder
    }

    fn finish(mut self) -> Recording {
        drop(self.core.take());
        Recording {
            start: Contents::new(),
            changes: self.disk.changes(),
            marks: self.marks,
            source: self.source,
            is_reorg: false,
            is_lossy: false,
        }
    }

    fn core(&self) -> &Core {
        self.core.as_ref().unwrap()
    }

    fn mark(&mut self, durable: bool) {
        let state = Some(Snapshot::of(self.core()).unwrap());
        let at = self.disk.now();
        // What changes nothing syncs nothing.
        let durable = durable && self.marks.last().is_some_and(|last| last.at < at);
        self.marks.push(Mark { at, state, durable });
    }

    fn write(&mut self, rng: &mut Rng) {
        let durable = match rng.below(16) {
            0..4 => self.append(1, rng),
            4..7 => self.append(2 + rng.below(6), rng),
            7..10 => self.truncate(rng),
            10 if rng.one_in(2) => self.append(130, rng),
            10 => self.append_zeros(),
            _ => self.change_anything(rng),
        };
        self.mark(durable);
    }

    fn read(&mut self, rng: &mut Rng) {
        let durable = match rng.below(16) {
            0..3 => self.upgrade(1 + rng.below(9), rng),
            3 => self.upgrade(130, rng),
            4..11 => self.fetch(1 + rng.below(5), rng),
            _ => self.change_anything(rng),
        };
        self.mark(durable);
    }

    /// What readers and writers do alike.
    fn change_anything(&mut self, rng: &mut Rng) -> bool {
        match rng.below(4) {
            0 => self.clear(rng),
            1 => {
                let len = [0, 10, 3_000, 5_000][rng.below(4)];
                let value = rng.bytes(len);
                self.core().set_user_data("key", Some(&value)).unwrap();
                false
            }
            2 => {
                self.core().flush().unwrap();
                true
            }
            _ => {
                drop(self.core.take());
                self.core = open(&self.disk, self.durability).unwrap();
                false
            }
        }
    }

    fn append(&self, count: usize, rng: &mut Rng) -> bool {
        self.core().append_batch(blocks(count, rng)).unwrap();
        false
    }

    fn append_zeros(&self) -> bool {
        self.core().append(vec![0; 5_000]).unwrap();
        false
    }

    fn truncate(&self, rng: &mut Rng) -> bool {
        let length = rng.below(self.core().length() as usize + 1) as u64;
        let cuts = length < self.core().length();
        self.core().truncate(length, None).unwrap();
        cuts
    }

    fn clear(&self, rng: &mut Rng) -> bool {
        let length = self.core().length();
        let start = rng.below(length as usize + 1) as u64;
        let end = length.min(start + rng.below(9) as u64);
        self.core().clear(start..end).unwrap();
        false
    }

    fn upgrade(&self, count: usize, rng: &mut Rng) -> bool {
        let source = self.source.as_ref().unwrap();
        source.append_batch(blocks(count, rng)).unwrap();
        upgrade(self.core(), source);
        false
    }

    /// Takes several blocks in one commit.
    fn fetch(&self, count: usize, rng: &mut Rng) -> bool {
        let (core, source) = (self.core(), self.source.as_ref().unwrap());
        let length = core.length() as usize;
        let wanted = (0..count).filter(|_| length > 0);
        let proofs = wanted.map(|_| block_proof(core, source, rng.below(length) as u64));
        let proofs = proofs.collect();
        let mut changeset = core.changeset();
        for result in core.verify_into(&mut changeset, proofs) {
            result.unwrap();
        }
        core.commit(changeset).unwrap();
        false
    }
}

fn blocks(count: usize, rng: &mut Rng) -> Vec<Bytes> {
    let block = |_| {
        let len = rng.below(40);
        Bytes::from(rng.bytes(len))
    };
    (0..count).map(block).collect()
}

/// Brings `reader` to the length of `source`.
pub(crate) fn upgrade(reader: &Core, source: &Core) {
    if reader.length() < source.length() {
        let request = ProofRequest {
            upgrade: Some(UpgradeRequest {
                start: reader.length(),
                length: source.length() - reader.length(),
            }),
            manifest: true,
            fork: source.fork(),
            ..ProofRequest::default()
        };
        reader
            .accept(source.prove(&request).unwrap().unwrap())
            .unwrap();
    }
}

/// The proof of block `index` that `reader` lacks.
pub(crate) fn block_proof(reader: &Core, source: &Core, index: u64) -> Proof {
    let nodes = reader.missing_nodes(2 * index).unwrap();
    let request = ProofRequest {
        block: Some(NodeRequest { index, nodes }),
        fork: source.fork(),
        ..ProofRequest::default()
    };
    source.prove(&request).unwrap().unwrap()
}
