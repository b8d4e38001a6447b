//! Histories of a core, recorded change by change. Some begin with a *wide* core, of several pages of the
//! bitfield, and keep to the edges of these.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;
use ferrocore_log::bitfield::PAGE_BITS;
use ferrocore_log::core::AcceptTicket;
use ferrocore_log::storage::StorageError;
use ferrocore_log::{Core, CoreError, Durability};
use ferrocore_primitives::hash::Hash;

use super::power::{Acknowledged, History};
use super::proofs::{block_proof, follow, upgrade};
use super::rng::Rng;
use super::rot::{open_mended, repair, rot};
use super::{Contents, Disk, create, create_from, header, open};

/// Steps of one history.
const STEPS: usize = 12;

/// How many blocks a wide core begins with: an append or two from its fourth page; or so many that pages of the
/// tree take each other's place in the cache, which has room for those of 131,072 blocks, and again an append or
/// two from the next page of the tree.
pub(crate) const WIDE_LENGTHS: [u64; 2] = [3 * PAGE_BITS - 5, 4 * PAGE_BITS + 59];

/// Of a longer log, only some blocks are [watched].
const WHOLE_LENGTH_MAX: u64 = 4_096;

/// How many blocks on each side of an edge are watched.
const EDGE_BLOCKS: u64 = 8;

/// The files of a wide core of one of the [lengths](WIDE_LENGTHS) that has all its blocks, and is flushed.
pub(crate) fn wide(length: u64) -> Contents {
    static WIDE: [OnceLock<Contents>; WIDE_LENGTHS.len()] =
        [const { OnceLock::new() }; WIDE_LENGTHS.len()];
    let number = WIDE_LENGTHS.iter().position(|known| *known == length);
    let files = WIDE[number.unwrap()].get_or_init(|| {
        let disk = Disk::new(Contents::new());
        let core = create(&disk, Durability::Buffered).unwrap();
        let blocks = (0..length).map(wide_block).collect();
        core.append_batch(blocks).unwrap();
        core.flush().unwrap();
        drop(core);
        disk.contents()
    });
    files.clone()
}

/// One of the lengths.
pub(crate) fn pick_wide(rng: &mut Rng) -> u64 {
    WIDE_LENGTHS[rng.below(WIDE_LENGTHS.len())]
}

pub(crate) fn wide_block(index: u64) -> Bytes {
    Bytes::copy_from_slice(&index.to_le_bytes()[..3])
}

/// The blocks that a snapshot looks at: all of a short log; of a long one those at the edges of pages, and the
/// last. Histories of long cores keep to these.
pub(crate) fn watched(length: u64) -> Vec<u64> {
    if length <= WHOLE_LENGTH_MAX {
        return (0..length).collect();
    }
    let edges = (0..=length / PAGE_BITS).map(|page| page * PAGE_BITS);
    let around = |edge: u64| edge.saturating_sub(EDGE_BLOCKS)..length.min(edge + EDGE_BLOCKS);
    let watched: BTreeSet<u64> = edges.chain([length]).flat_map(around).collect();
    watched.into_iter().collect()
}

/// A block that is watched.
pub(crate) fn pick(length: u64, rng: &mut Rng) -> u64 {
    let watched = watched(length);
    watched[rng.below(watched.len())]
}

/// Everything there is to know about a core.
#[derive(Clone, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) fork: u64,
    pub(crate) length: u64,
    pub(crate) hash: Hash,
    /// Those that are [watched].
    pub(crate) blocks: Vec<Option<Bytes>>,
    /// How many are here, and how many without a gap.
    pub(crate) here: (u64, u64),
    pub(crate) user_data: Option<Vec<u8>>,
}

impl Snapshot {
    pub(crate) fn of(core: &Core) -> Result<Self, CoreError> {
        let blocks = watched(core.length()).into_iter();
        let blocks = blocks.map(|index| core.get_local(index));
        Ok(Self::with(core, blocks.collect::<Result<_, _>>()?))
    }

    /// As [`Snapshot::of`], where a block that is damaged counts for one that is not here.
    pub(crate) fn lossy(core: &Core) -> Self {
        let blocks = watched(core.length()).into_iter();
        let blocks = blocks.map(|index| core.get_local(index).unwrap_or_default());
        Self::with(core, blocks.collect())
    }

    fn with(core: &Core, blocks: Vec<Option<Bytes>>) -> Self {
        Self {
            fork: core.fork(),
            length: core.length(),
            hash: core.tree_hash(),
            blocks,
            here: (core.count(0..core.length()), core.contiguous_length()),
            user_data: core.user_data("key"),
        }
    }

    /// The blocks it looked at, with their indexes.
    pub(crate) fn looked_at(&self) -> impl Iterator<Item = (u64, &Option<Bytes>)> {
        watched(self.length).into_iter().zip(&self.blocks)
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
        let missing = |(index, block): (u64, &Option<_>)| block.is_none().then_some(index);
        let missing: Vec<_> = self.looked_at().filter_map(missing).collect();
        let here = self.here;
        write!(
            f,
            "(fork {fork}, length {length}, {hash}, user data {user_data:?}, {here:?} here, without {missing:?})"
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

impl Acknowledged for Mark {
    fn at(&self) -> usize {
        self.at
    }

    fn is_durable(&self) -> bool {
        self.durable
    }
}

/// What happened to the files of a core.
pub(crate) struct Recording {
    pub(crate) history: History<Mark>,
    /// Where a reader has its blocks from; a writer has none.
    pub(crate) source: Option<Core>,
    /// Whether it replaces history by another that is longer than what both share.
    pub(crate) is_reorg: bool,
    /// Whether it begins with what a power cut left that nothing was synced for: blocks and nodes
    /// may be missing.
    pub(crate) is_lossy: bool,
    /// Whether bytes of it change that nobody wrote.
    pub(crate) is_rotting: bool,
}

impl Recording {
    /// Whether the core is a wide one at any time.
    pub(crate) fn is_wide(&self) -> bool {
        let states = self
            .history
            .marks
            .iter()
            .filter_map(|mark| mark.state.as_ref());
        states
            .map(|state| state.length)
            .any(|length| length > WHOLE_LENGTH_MAX)
    }
}

/// One history in so many is of a wide core.
const ONE_IN_WIDE: usize = 4;

/// Records what somebody does who has the secret key.
pub(crate) fn record_writer(durability: Durability, rng: &mut Rng) -> Recording {
    let mut recorder = match rng.one_in(ONE_IN_WIDE) {
        true => Recorder::wide(durability, pick_wide(rng)),
        false => Recorder::new(durability, None, rng),
    };
    (0..STEPS).for_each(|_| recorder.write(rng));
    recorder.finish()
}

/// Records what somebody does who takes blocks from another, in any order.
pub(crate) fn record_reader(durability: Durability, rng: &mut Rng) -> Recording {
    let is_wide = rng.one_in(ONE_IN_WIDE);
    let source = match is_wide {
        true => open(&Disk::new(wide(pick_wide(rng))), Durability::Buffered)
            .unwrap()
            .unwrap(),
        false => create(&Disk::new(Contents::new()), Durability::Buffered).unwrap(),
    };
    let mut recorder = Recorder::new(durability, Some(source), rng);
    recorder.is_reorg = rng.one_in(2);
    if is_wide {
        upgrade(recorder.core(), recorder.source.as_ref().unwrap());
        recorder.mark(false);
    }
    (0..STEPS).for_each(|_| recorder.read(rng));
    recorder.finish()
}

/// Records what a writer does whose files lose a bit now and then, which an audit mends.
pub(crate) fn record_rotting_writer(durability: Durability, rng: &mut Rng) -> Recording {
    Recorder::new(durability, None, rng).rotting(rng, Recorder::write)
}

/// Records what a reader does whose files do.
pub(crate) fn record_rotting_reader(durability: Durability, rng: &mut Rng) -> Recording {
    let source = create(&Disk::new(Contents::new()), Durability::Buffered).unwrap();
    let mut recorder = Recorder::new(durability, Some(source), rng);
    recorder.is_reorg = rng.one_in(2);
    recorder.rotting(rng, Recorder::read)
}

struct Recorder {
    start: Contents,
    disk: Disk,
    core: Option<Core>,
    durability: Durability,
    marks: Vec<Mark>,
    source: Option<Core>,
    /// Whether the source comes to leave its history.
    is_reorg: bool,
    is_rotting: bool,
}

impl Recorder {
    fn new(durability: Durability, source: Option<Core>, rng: &mut Rng) -> Self {
        let disk = Disk::new(Contents::new());
        let mut header = header();
        if source.is_some() && rng.one_in(2) {
            header.manifest = None;
        }
        let mut recorder = Self {
            start: Contents::new(),
            core: Some(create_from(&disk, header, durability).unwrap()),
            disk,
            durability,
            marks: vec![Mark {
                at: 0,
                state: None,
                durable: false,
            }],
            source,
            is_reorg: false,
            is_rotting: false,
        };
        recorder.mark(false);
        recorder
    }

    /// Of a writer of a wide core.
    fn wide(durability: Durability, length: u64) -> Self {
        let (start, disk) = (wide(length), Disk::new(wide(length)));
        let core = open(&disk, durability).unwrap();
        let mut recorder = Self {
            start,
            disk,
            core,
            durability,
            marks: Vec::new(),
            source: None,
            is_reorg: false,
            is_rotting: false,
        };
        recorder.mark(false);
        // It was there before it was opened.
        recorder.marks[0].at = 0;
        recorder.marks[0].durable = true;
        recorder
    }

    fn rotting(mut self, rng: &mut Rng, step: fn(&mut Self, &mut Rng)) -> Recording {
        self.is_rotting = true;
        for _ in 0..STEPS {
            match rng.one_in(4) {
                true => self.rot(rng),
                false => step(&mut self, rng),
            }
        }
        self.finish()
    }

    fn finish(mut self) -> Recording {
        drop(self.core.take());
        Recording {
            history: History::new(self.start, self.disk.changes(), self.marks),
            source: self.source,
            is_reorg: self.is_reorg,
            is_lossy: false,
            is_rotting: self.is_rotting,
        }
    }

    fn core(&self) -> &Core {
        self.core.as_ref().unwrap()
    }

    fn mark(&mut self, durable: bool) {
        let state = Some(self.state());
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
        let durable = match rng.below(18) {
            0..3 => self.upgrade(1 + rng.below(9), rng),
            3 => self.upgrade(130, rng),
            4..8 => self.fetch(1 + rng.below(5), rng),
            8 => self.fetch(150, rng),
            9..11 => self.fetch_together(rng),
            11..13 if self.is_reorg => self.follow(rng),
            _ => self.change_anything(rng),
        };
        self.mark(durable);
    }

    /// A bit changes while nobody has the core open, and an audit mends what it can.
    fn rot(&mut self, rng: &mut Rng) {
        self.core().flush().unwrap();
        self.mark(true);
        let length = self.core().length();
        drop(self.core.take());
        rot(&self.disk, length, rng);
        let (disk, marks) = (&self.disk, &mut self.marks);
        let mut mark = |core: &Core| {
            marks.push(Mark {
                at: disk.now(),
                state: Some(Snapshot::lossy(core)),
                durable: false,
            });
        };
        let core = open_mended(disk, self.durability, &mut mark).unwrap();
        let core = core.unwrap();
        mark(&core);
        repair(&core, mark);
        self.core = Some(core);
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
        let length = any_length(self.core(), rng);
        let cuts = length < self.core().length();
        self.expect(self.core().truncate(length, None).map(drop)) && cuts
    }

    /// Whether it was done. Where a repair took nodes away, they may be missing for it.
    fn expect(&self, result: Result<(), CoreError>) -> bool {
        match result {
            Err(error) if self.is_rotting && lacks_nodes(&error) => false,
            result => result.is_ok() || panic!("{result:?}"),
        }
    }

    fn clear(&self, rng: &mut Rng) -> bool {
        let length = self.core().length();
        let start = any_length(self.core(), rng);
        let end = match rng.one_in(4) {
            // Whole pages.
            true => any_length(self.core(), rng).max(start),
            false => length.min(start + rng.below(9) as u64),
        };
        self.expect(self.core().clear(start..end));
        false
    }

    /// The source leaves its history, or two, and the reader follows, perhaps without looking for all that both have.
    fn follow(&self, rng: &mut Rng) -> bool {
        let source = self.source.as_ref().unwrap();
        for _ in 0..=rng.below(2) {
            source.truncate(any_length(source, rng), None).unwrap();
            let count = 1 + rng.below(9);
            source.append_batch(blocks(count, rng)).unwrap();
        }
        if source.fork() == self.core().fork() {
            return self.upgrade(1, rng); // there was nothing to cut
        }
        let levels = if rng.one_in(4) {
            rng.below(4)
        } else {
            usize::MAX
        };
        follow(self.core(), source, levels).unwrap()
    }

    fn upgrade(&self, count: usize, rng: &mut Rng) -> bool {
        let source = self.source.as_ref().unwrap();
        source.append_batch(blocks(count, rng)).unwrap();
        upgrade(self.core(), source);
        false
    }

    /// Takes several blocks in one commit.
    fn fetch(&self, count: usize, rng: &mut Rng) -> bool {
        if self.core().length() > 0 {
            self.take(&self.pick(count, rng)).wait().unwrap();
        }
        false
    }

    /// Takes blocks of several peers at once: those of the first are committed alone, and those of the others,
    /// which come while this waits for the device, together.
    fn fetch_together(&mut self, rng: &mut Rng) -> bool {
        let before = self.state();
        let first = self.pick(3, rng);
        let is_new = first.iter().any(|index| !self.core().has(*index));
        if self.durability == Durability::Buffered || !is_new {
            return self.fetch(3, rng);
        }
        self.disk.hold();
        let leads = self.take(&first);
        self.disk.await_held();
        let others: Vec<_> = (0..3).map(|_| self.take(&self.pick(4, rng))).collect();
        assert_eq!(self.state(), before, "nobody sees what may be lost");
        self.disk.let_go();
        leads.wait().unwrap();
        let late = others
            .into_iter()
            .flat_map(|ticket| ticket.wait().unwrap().blocks);
        let late: BTreeSet<u64> = late.collect();
        let mut between = self.state();
        for (index, block) in watched(between.length).into_iter().zip(&mut between.blocks) {
            *block = block.take().filter(|_| !late.contains(&index));
        }
        let (here, contiguous) = between.here;
        let first = late.first().copied().unwrap_or(contiguous);
        between.here = (here - late.len() as u64, contiguous.min(first));
        self.marks.push(Mark {
            at: self.disk.now(),
            state: Some(between),
            durable: false,
        });
        false
    }

    fn state(&self) -> Snapshot {
        match self.is_rotting {
            true => Snapshot::lossy(self.core()),
            false => Snapshot::of(self.core()).unwrap(),
        }
    }

    /// Some blocks, apart or in a row, or none of an empty log.
    fn pick(&self, count: usize, rng: &mut Rng) -> Vec<u64> {
        let length = self.core().length();
        let count = if length == 0 { 0 } else { count };
        if count > 0 && rng.one_in(2) {
            let first = pick(length, rng);
            return (first..length.min(first + count as u64)).collect();
        }
        (0..count).map(|_| pick(length, rng)).collect()
    }

    /// Takes the proofs of `blocks` and commits them as one.
    fn take(&self, blocks: &[u64]) -> AcceptTicket {
        let (core, source) = (self.core(), self.source.as_ref().unwrap());
        let proofs = blocks.iter().map(|index| block_proof(core, source, *index));
        let mut changeset = core.changeset();
        for result in core.verify_into(&mut changeset, proofs.collect()) {
            result.unwrap();
        }
        core.commit_async(changeset)
    }
}

/// Whether something was refused because nodes are not there, or are no nodes.
pub(crate) fn lacks_nodes(error: &CoreError) -> bool {
    let is_corrupt = matches!(error, CoreError::Storage(StorageError::Corrupt { .. }));
    is_corrupt || matches!(error, CoreError::MissingNodes { .. })
}

/// A length that the core has or had, at an edge of what is watched or between.
fn any_length(core: &Core, rng: &mut Rng) -> u64 {
    match core.length() {
        0 => 0,
        length => pick(length, rng) + u64::from(rng.one_in(4)),
    }
}

fn blocks(count: usize, rng: &mut Rng) -> Vec<Bytes> {
    let block = |_| {
        let len = rng.below(40);
        Bytes::from(rng.bytes(len))
    };
    (0..count).map(block).collect()
}
