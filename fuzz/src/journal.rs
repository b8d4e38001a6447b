//! The journal of a store: it is the input, the cores that it names are honest ones.
//!
//! Holds: a batch comes back from its encoding; what is no batch changes no core; a store either
//! refuses the journal or needs it once only, and no core panics then, whatever was done to it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ferrocore_log::merkle::{Node, Roots};
use ferrocore_log::storage::files::{FileCore, Journal};
use ferrocore_log::storage::{
    BitWrite, BlockWrite, CoreHeader, CoreWrite, Head, HeadWrite, OpenedCore, StorageError,
};
use ferrocore_log::{Core, Durability, Manifest, fuzzing};
use ferrocore_primitives::encoding::put_u64;
use ferrocore_primitives::hash;
use ferrocore_primitives::keys::DiscoveryKey;
use ferrocore_primitives::sign::KeyPair;

use crate::honest::block;
use crate::memory::{Contents, Disk};

const FILE: &str = "journal";
/// Bytes in front of the payload.
const FRAME_BYTES: usize = 44;
/// Blocks of each core before the batch.
const LENGTH: u64 = 3;
/// More blocks than this are not looked at one by one.
const LOOKED_AT_MAX: u64 = 20;

/// If the first byte is 0 the rest is the file, else its payload, whose frame is made here.
pub fn run(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let bytes = match mode {
        0 => rest.to_vec(),
        _ => framed(rest),
    };
    let batch = fuzzing::journal(&bytes);
    if let Some(again) = &batch {
        assert_eq!(fuzzing::journal(again).as_ref(), Some(again));
    }
    let disks = honest_files().clone().map(Disk::new);
    recover(&disks, bytes);
    for (disk, before) in disks.iter().zip(honest_files()) {
        assert!(batch.is_some() || disk.contents() == *before);
    }
    for (which, disk) in disks.iter().enumerate() {
        exercise(which, disk);
    }
}

/// Does what opening the store does.
fn recover(disks: &[Disk; 2], bytes: Vec<u8>) {
    let disk = Disk::new(Contents::from([(FILE, bytes)]));
    let journal = Journal::new(disk.file(FILE), FILE.into());
    let open = |core: &DiscoveryKey, is_damaged| {
        let which = (0..disks.len()).find(|which| discovery_key(*which) == *core);
        let Some(which) = which else { return Ok(None) };
        let files = disks[which].core_files();
        let opened = match is_damaged {
            false => FileCore::open_shared(core, files, Durability::Buffered)?,
            true => FileCore::open_unverified_shared(core, files, Durability::Buffered)?,
        };
        Ok(opened.map(|(_, core)| core))
    };
    if journal.recover(open).is_ok() {
        let again = journal.recover(|_, _| unreachable!("the journal is empty"));
        again.expect("memory does not fail");
    }
}

fn exercise(which: usize, disk: &Disk) {
    let Ok(opened) = open(which, disk) else {
        return;
    };
    let opened = opened.expect("a core does not vanish");
    let Ok(core) = Core::open(opened, Some(key_pair(which)), Durability::Buffered) else {
        return;
    };
    for index in (0..core.length().min(LOOKED_AT_MAX)).chain(core.length().checked_sub(1)) {
        let _ = core.get_local(index);
    }
    let _ = core.contiguous_length();
    let _ = core.append("goes on");
    let _ = core.truncate(core.length() / 2, None);
    let _ = core.flush();
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut out = b"FCJ1".to_vec();
    put_u64(&mut out, payload.len() as u64);
    out.extend_from_slice(hash::hash(&[payload]).as_bytes());
    out.extend_from_slice(payload);
    out
}

fn key_pair(which: usize) -> KeyPair {
    KeyPair::from_seed(&[which as u8; 32])
}

fn discovery_key(which: usize) -> DiscoveryKey {
    Manifest::single(key_pair(which).public_key())
        .key()
        .discovery_key()
}

fn open(which: usize, disk: &Disk) -> Result<Option<OpenedCore>, StorageError> {
    FileCore::open(
        &discovery_key(which),
        disk.core_files(),
        Durability::Buffered,
    )
}

/// Both cores before the batch.
fn honest_files() -> &'static [Contents; 2] {
    static FILES: OnceLock<[Contents; 2]> = OnceLock::new();
    FILES.get_or_init(|| {
        [0, 1].map(|which| {
            let manifest = Manifest::single(key_pair(which).public_key());
            let header = CoreHeader {
                key: manifest.key(),
                manifest: Some(manifest),
                key_pair: None,
                user_data: BTreeMap::from([("kept".to_owned(), vec![1])]),
                head: Head::empty(),
            };
            let disk = Disk::default();
            let opened = FileCore::create(disk.core_files(), header, Durability::Buffered);
            let opened = opened.expect("memory has room for a core");
            let core = Core::open(opened, Some(key_pair(which)), Durability::Buffered);
            let core = core.expect("it is new");
            core.append_batch((0..LENGTH).map(|index| block(0, index)).collect())
                .expect("memory");
            core.flush().expect("memory");
            drop(core);
            disk.contents()
        })
    })
}

/// The head that `change` leads to.
fn head_after(which: usize, change: impl FnOnce(&Core)) -> Head {
    let disk = Disk::new(honest_files()[which].clone());
    let opened = open(which, &disk).expect("memory").expect("it is there");
    let core = Core::open(opened, Some(key_pair(which)), Durability::Buffered).expect("honest");
    change(&core);
    core.flush().expect("memory");
    drop(core);
    let opened = open(which, &disk).expect("memory").expect("it is there");
    opened.header.head
}

/// The first core gets a block, the second one is cut and gets another.
fn batch() -> [CoreWrite; 2] {
    let [goes_on, other] = ["goes on", "other"].map(Bytes::from);
    let appended = CoreWrite {
        nodes: nodes_of(LENGTH, &goes_on),
        bits: vec![set(LENGTH)],
        head: Some(HeadWrite {
            head: head_after(0, |core| {
                core.append(goes_on).expect("memory");
            }),
            ancestors: LENGTH,
        }),
        user_data: vec![("set".to_owned(), Some(vec![5])), ("kept".to_owned(), None)],
        ..CoreWrite::default()
    };
    let replaced = CoreWrite {
        blocks: vec![BlockWrite {
            byte_offset: block(0, 0).len() as u64,
            blocks: vec![other.clone()],
        }],
        nodes: nodes_of(1, &other),
        bits: vec![unset(1..LENGTH), set(1)],
        head: Some(HeadWrite {
            head: head_after(1, |core| {
                core.truncate(1, None).expect("memory");
                core.append(other).expect("memory");
            }),
            ancestors: 1,
        }),
        ..CoreWrite::default()
    };
    [appended, replaced]
}

/// The nodes that come with block `index` behind honest ones.
fn nodes_of(index: u64, last: &[u8]) -> Vec<Node> {
    let mut roots = Roots::default();
    let mut nodes = Vec::new();
    for before in 0..index {
        let leaf = Node::leaf(before, &block(0, before));
        roots.push(leaf, |_| {}).expect("they are few");
    }
    let leaf = Node::leaf(index, last);
    roots
        .push(leaf, |node| nodes.push(node))
        .expect("they are few");
    nodes.push(leaf);
    nodes
}

fn unset(range: Range<u64>) -> BitWrite {
    BitWrite {
        range,
        value: false,
    }
}

fn set(index: u64) -> BitWrite {
    BitWrite {
        range: index..index + 1,
        value: true,
    }
}

/// Payloads as real batches leave them: once a batch is made, its journal lacks the frame only.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let disk = Disk::default();
    let journal = Journal::new(disk.file(FILE), FILE.into());
    let disks = honest_files().clone().map(Disk::new);
    let open = |which: usize| {
        let files = disks[which].core_files();
        let opened = FileCore::open_shared(&discovery_key(which), files, Durability::Buffered);
        let (_, core): (_, Arc<_>) = opened.expect("memory").expect("it is there");
        core
    };
    let mut changes: Vec<_> = (0..2).map(open).zip(batch()).collect();
    if discovery_key(1) < discovery_key(0) {
        changes.swap(0, 1);
    }
    journal
        .commit(changes, Durability::Buffered)
        .expect("memory");
    let payload = disk.contents()[FILE][FRAME_BYTES..].to_vec();
    let file = framed(&payload);
    assert!(fuzzing::journal(&file).is_some(), "it is a batch");
    vec![[&[1], &payload[..]].concat(), [&[0], &file[..]].concat()]
}
