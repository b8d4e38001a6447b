//! Goal: with `Durability::Sync`, appends that wait together share their syncs, and so do blocks that several
//! peers prove; nobody sees a head before it is durable, and no ticket waits for ever.
//! Method: files in memory whose syncs wait at a gate, where they may also fail.
#![cfg(feature = "files")]

use std::future::Future;
use std::io;
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};

use crate::rig::proofs::{block_proof, upgrade};
use crate::rig::{Contents, Disk, What, create, header, key_pair, open};
use bytes::Bytes;
use ferrocore_log::changeset::VerifyError;
use ferrocore_log::core::{AcceptError, AcceptTicket, AppendTicket, Ticket};
use ferrocore_log::events::Event;
use ferrocore_log::limits::{APPENDS_WAITING_BYTES_MAX, BATCH_BYTES_MAX};
use ferrocore_log::proof::{ProofRequest, UpgradeRequest};
use ferrocore_log::storage::OpenedCore;
use ferrocore_log::storage::files::block_file::BlockFile;
use ferrocore_log::storage::files::{CoreFiles, FileCore};
use ferrocore_log::{
    AppendOptions, Core, CoreError, Corestore, Durability, EncryptionKey, StorageError, StoreError,
    StoreOptions,
};

/// Where syncs wait, or fail.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    is_closed: bool,
    /// Whether syncs fail once so many more have passed.
    fails_after: Option<usize>,
    waiting: usize,
}

impl Gate {
    fn close(&self) {
        self.0.0.lock().unwrap().is_closed = true;
    }

    fn open(&self, fails_after: Option<usize>) {
        let mut state = self.0.0.lock().unwrap();
        (state.is_closed, state.fails_after) = (false, fails_after);
        self.0.1.notify_all();
    }

    /// Waits until a sync does.
    fn await_sync(&self) {
        let state = self.0.0.lock().unwrap();
        let none = |state: &mut GateState| state.waiting == 0;
        drop(self.0.1.wait_while(state, none).unwrap());
    }

    fn pass(&self) -> io::Result<()> {
        let mut state = self.0.0.lock().unwrap();
        state.waiting += 1;
        self.0.1.notify_all();
        let mut state = self.0.1.wait_while(state, |s| s.is_closed).unwrap();
        state.waiting -= 1;
        match &mut state.fails_after {
            Some(0) => return Err(io::Error::other("input/output error")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }
}

struct Gated {
    file: Box<dyn BlockFile>,
    gate: Gate,
}

impl BlockFile for Gated {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(offset, buffer)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write(offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.gate.pass()?;
        self.file.sync()
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.file.punch(range)
    }
}

/// A core on files with a gate, in Sync mode.
fn gated() -> (Core, Disk, Gate) {
    let (storage, disk, gate) = gated_storage();
    let core = Core::open(storage, Some(key_pair()), Durability::Sync).unwrap();
    (core, disk, gate)
}

/// A reader of `source`, as long as it is, on such files.
fn gated_reader(source: &Core) -> (Core, Disk, Gate) {
    let (storage, disk, gate) = gated_storage();
    let core = Core::open(storage, None, Durability::Sync).unwrap();
    upgrade(&core, source);
    (core, disk, gate)
}

fn gated_storage() -> (OpenedCore, Disk, Gate) {
    let (disk, gate) = (Disk::new(Contents::new()), Gate::default());
    let gated = |file| -> Box<dyn BlockFile> {
        let gate = gate.clone();
        Box::new(Gated { file, gate })
    };
    let files = disk.core_files();
    let files = CoreFiles {
        oplog: gated(files.oplog),
        tree: gated(files.tree),
        bitfield: gated(files.bitfield),
        data: gated(files.data),
        header: gated(files.header),
        ..files
    };
    let opened = FileCore::create(files, header(), Durability::Sync).unwrap();
    (opened, disk, gate)
}

/// A writer with 40 blocks.
fn source() -> Core {
    let source = create(&Disk::new(Contents::new()), Durability::Buffered).unwrap();
    let blocks = (0..40).map(|i| Bytes::from(format!("block {i}")));
    source.append_batch(blocks.collect()).unwrap();
    source
}

/// Verifies the proofs of `blocks` and queues them.
fn accept_async(core: &Core, source: &Core, blocks: Range<u64>) -> AcceptTicket {
    let mut changeset = core.changeset();
    let proofs = blocks.map(|index| block_proof(core, source, index));
    for verified in core.verify_into(&mut changeset, proofs.collect()) {
        verified.unwrap();
    }
    core.commit_async(changeset)
}

fn syncs(disk: &Disk) -> usize {
    let changes = disk.changes().into_iter();
    changes.filter(|c| matches!(c.what, What::Sync)).count()
}

fn is_pending<T, E>(ticket: &mut Ticket<T, E>) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    matches!(pin!(ticket).poll(&mut context), Poll::Pending)
}

#[test]
fn nobody_sees_a_head_before_it_is_durable() {
    let (core, disk, gate) = gated();
    core.append("first").unwrap();
    let events = core.events();
    gate.close();
    let mut ticket = core.append_async("second");
    gate.await_sync();
    let waiting: Vec<_> = (2..12).map(|i| core.append_async(format!("{i}"))).collect();
    assert!(is_pending(&mut ticket));
    assert_eq!((core.length(), core.contiguous_length()), (1, 1));
    assert!(!core.has(1) && core.get_local(1).unwrap().is_none());
    assert_eq!(events.try_next(), None);
    let request = ProofRequest {
        upgrade: Some(UpgradeRequest {
            start: 1,
            length: 1,
        }),
        ..ProofRequest::default()
    };
    assert!(core.prove(&request).is_err(), "there is nothing to prove");

    let before = syncs(&disk);
    gate.open(None);
    assert_eq!(ticket.wait().unwrap().length, 2);
    for (ticket, length) in waiting.into_iter().zip(3..) {
        assert_eq!(ticket.wait().unwrap().length, length);
        assert!(core.length() >= length);
    }
    assert_eq!(syncs(&disk) - before, 4, "data and oplog of two commits");
    let appended = std::iter::from_fn(|| events.try_next())
        .filter(|event| matches!(event, Event::Append { .. }))
        .count();
    assert_eq!(appended, 2);
    for index in 2..12 {
        let block = core.get_local(index).unwrap().unwrap();
        assert_eq!(block, format!("{index}"));
    }
    let again = open(&Disk::new(disk.contents()), Durability::Sync).unwrap();
    assert_eq!(again.unwrap().length(), 12);
}

/// Goal: blocks of several peers, some of them the same, are one commit, and nobody sees them before.
#[test]
fn what_peers_prove_shares_a_commit() {
    let source = source();
    let (core, disk, gate) = gated_reader(&source);
    let events = core.events();
    gate.close();
    let mut first = accept_async(&core, &source, 0..3);
    gate.await_sync();
    let peers: Vec<_> = (0..8)
        .map(|peer| accept_async(&core, &source, 2 * peer..2 * peer + 4))
        .collect();
    assert!(is_pending(&mut first));
    assert!((0..40).all(|index| !core.has(index)));
    assert_eq!(events.try_next(), None);

    let before = syncs(&disk);
    gate.open(None);
    assert_eq!(first.wait().unwrap().blocks, [0, 1, 2]);
    let mut next = 3;
    for ticket in peers {
        let blocks = ticket.wait().unwrap().blocks;
        let expected: Vec<u64> = (next..next + blocks.len() as u64).collect();
        assert_eq!(blocks, expected, "each block is told once");
        next += blocks.len() as u64;
    }
    assert_eq!(next, 18);
    assert_eq!(syncs(&disk) - before, 4, "data and oplog of two commits");
    let again = open(&Disk::new(disk.contents()), Durability::Sync).unwrap();
    for core in [core, again.unwrap()] {
        for index in 0..40 {
            let block = (index < 18).then(|| source.get_local(index).unwrap().unwrap());
            assert_eq!(core.get_local(index).unwrap(), block);
        }
    }
}

/// Goal: of longer logs that wait the first is taken, blocks of the shorter one all the same, and a move to
/// another history leaves what waits behind it stale.
#[test]
fn proofs_that_wait_are_judged_when_their_turn_comes() {
    let source = source();
    let (core, _disk, gate) = gated_reader(&source);
    gate.close();
    let leads = accept_async(&core, &source, 39..40);
    gate.await_sync();
    source.append("one more").unwrap();
    let request = ProofRequest {
        upgrade: Some(UpgradeRequest {
            start: 40,
            length: 1,
        }),
        ..ProofRequest::default()
    };
    let longer = source.prove(&request).unwrap().unwrap();
    let upgrades = [(); 2].map(|()| core.accept_async(longer.clone()));
    let blocks = accept_async(&core, &source, 0..2);
    source.truncate(20, None).unwrap();
    let whole = ProofRequest {
        fork: 1,
        upgrade: Some(UpgradeRequest {
            start: 0,
            length: 20,
        }),
        ..ProofRequest::default()
    };
    let reorg = core.reorg(source.prove(&whole).unwrap().unwrap()).unwrap();
    let mut adopted = core.adopt_async(reorg);
    let late = core.accept_async(longer);
    assert!(is_pending(&mut adopted));
    gate.open(None);
    leads.wait().unwrap();
    let [first, second] = upgrades.map(Ticket::wait);
    assert_eq!(first.unwrap().length, Some(41));
    let is_stale = |result: Result<_, AcceptError>| {
        matches!(result, Err(AcceptError::Verify(VerifyError::Stale)))
    };
    assert!(is_stale(second.map(drop)));
    assert_eq!(blocks.wait().unwrap().blocks, [0, 1]);
    adopted.wait().unwrap();
    assert!(is_stale(late.wait().map(drop)));
    assert_eq!((core.fork(), core.length()), (1, 20));
    assert_eq!(core.count(0..40), 0, "what was shared was not looked for");
}

#[test]
fn a_failed_sync_fails_all_proofs_that_wait() {
    let source = source();
    let (core, _disk, gate) = gated_reader(&source);
    gate.close();
    let mut tickets = vec![accept_async(&core, &source, 0..1)];
    gate.await_sync();
    tickets.extend((1..4).map(|i| accept_async(&core, &source, i..i + 1)));
    // Data and oplog of the first commit.
    gate.open(Some(2));
    let mut results = tickets.into_iter().map(Ticket::wait);
    assert_eq!(results.next().unwrap().unwrap().blocks, [0]);
    for result in results {
        let error = result.unwrap_err();
        assert!(matches!(error, AcceptError::Storage(_)), "{error}");
    }
    assert_eq!(core.count(0..40), 1, "nobody sees what may be lost");
    let refused = core.get_local(0);
    assert!(matches!(refused, Err(CoreError::Storage(_))));
}

#[test]
fn a_failed_sync_fails_all_who_wait_and_the_core() {
    let (core, _disk, gate) = gated();
    core.append("first").unwrap();
    gate.close();
    let mut tickets = vec![core.append_async("second")];
    gate.await_sync();
    tickets.extend((0..5).map(|_| core.append_async("more")));
    gate.open(Some(0));
    for ticket in tickets {
        let error = ticket.wait().unwrap_err();
        assert!(matches!(error, CoreError::Storage(_)), "{error}");
    }
    assert_eq!(core.length(), 1, "nobody sees what may be lost");
    gate.open(None);
    let is_poisoned = |result| {
        let poisoned = StorageError::Poisoned {
            core: core.discovery_key(),
        };
        matches!(result, Err(CoreError::Storage(error)) if error.to_string() == poisoned.to_string())
    };
    assert!(is_poisoned(core.append("refused").map(drop)));
    assert!(is_poisoned(core.append_async("refused").wait().map(drop)));
    assert!(is_poisoned(core.flush()));
}

/// Goal: what a failed commit tells is told to everybody who was in it.
#[test]
fn all_of_one_commit_are_told_the_reason() {
    let (core, _disk, gate) = gated();
    core.append("synced what was new").unwrap();
    gate.close();
    let first = core.append_async("first");
    gate.await_sync();
    let second: Vec<_> = (0..5).map(|_| core.append_async("more")).collect();
    // Data and oplog of the first commit.
    gate.open(Some(2));
    first.wait().unwrap();
    for ticket in second {
        let error = ticket.wait().unwrap_err();
        let is_io = matches!(&error, CoreError::Storage(StorageError::Io { .. }));
        assert!(
            is_io && error.to_string().contains("input/output"),
            "{error}"
        );
    }
    assert_eq!(core.length(), 2);
}

#[test]
fn blocks_are_where_their_append_says() {
    let directory = tempfile::tempdir().unwrap();
    let durability = Durability::Sync;
    let options = StoreOptions::from(durability);
    let store = Corestore::open(directory.path(), options).unwrap();
    let core = store.get_named("shared").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let core = &core;
            scope.spawn(move || {
                for i in 0..20 {
                    let blocks = [0, 1].map(|part| format!("{thread} {i} {part}"));
                    let appended = core.append_batch(blocks.clone().map(Bytes::from).to_vec());
                    let end = appended.unwrap().length;
                    for (index, block) in (end - 2..end).zip(blocks) {
                        assert_eq!(core.get_local(index).unwrap().unwrap(), block);
                    }
                }
            });
        }
    });
    assert_eq!(core.length(), 8 * 20 * 2);
}

/// Goal: whoever waited for a ticket can close the store and open it again at once.
#[test]
fn a_ticket_is_ready_when_the_flusher_is_done_with_the_core() {
    let directory = tempfile::tempdir().unwrap();
    let durability = Durability::Sync;
    for round in 0..30 {
        let options = StoreOptions::from(durability);
        let store = Corestore::open(directory.path(), options).unwrap();
        let core = store.get_named("again").unwrap();
        assert_eq!(core.length(), round);
        let ticket = core.append_async("once more");
        drop((core, store));
        ticket.wait().unwrap();
    }
}

#[test]
fn encrypted_blocks_queue_up_too() {
    let (core, _disk, gate) = gated();
    let core = core.with_encryption(&EncryptionKey::generate());
    gate.close();
    let first = core.append_async("first");
    gate.await_sync();
    let second = core.append_async("second");
    gate.open(None);
    assert_eq!(first.wait().unwrap().byte_length, 5);
    let appended = second.wait().unwrap();
    assert_eq!((appended.length, appended.byte_length), (2, 11));
    assert_eq!(core.get_local(1).unwrap().unwrap(), "second");
}

#[test]
fn more_than_may_wait_is_refused() {
    let (core, _disk, gate) = gated();
    gate.close();
    let first = core.append_async("first");
    gate.await_sync();
    let block = Bytes::from(vec![0; 8 << 20]);
    let append = |count| core.append_batch_async(vec![block.clone(); count]);
    let is_refused = |ticket: AppendTicket| {
        let mut context = Context::from_waker(Waker::noop());
        let told = pin!(ticket).poll(&mut context);
        matches!(told, Poll::Ready(Err(CoreError::TooManyAppends { .. })))
    };
    // Each takes up a little more than its bytes.
    let fit = APPENDS_WAITING_BYTES_MAX / block.len() - 1;
    let mut tickets = vec![append(fit / 2), append(1)];
    assert!(
        is_refused(append(fit / 2 + 1)),
        "together they are too much"
    );
    tickets.push(append(fit - fit / 2 - 1));
    assert!(is_refused(append(1)));
    let empty = vec![Bytes::new(); block.len() / 32];
    assert!(is_refused(core.append_batch_async(empty)));
    tickets.push(core.append_async("a small one"));
    assert!(tickets.iter_mut().all(is_pending));
    gate.open(None);
    first.wait().unwrap();
    // They are more than the files in memory take, but all are told, and have given up their room.
    let told = tickets.into_iter().map(Ticket::wait);
    assert_eq!(told.filter(Result::is_err).count(), 4);
    let error = append(1).wait().unwrap_err();
    assert!(matches!(error, CoreError::Storage(_)), "{error}");
}

/// Goal: what is stored counts, so that no batch is more than one may be, and what it waits with is not either.
#[test]
fn padding_is_a_part_of_a_batch() {
    let (core, _disk, _gate) = gated();
    let core = core.with_encryption(&EncryptionKey::generate());
    let block = Bytes::from(vec![0; 8 << 20]);
    let blocks = vec![block; BATCH_BYTES_MAX / (8 << 20)];
    let error = core.append_batch_async(blocks.clone()).wait().unwrap_err();
    assert!(matches!(error, CoreError::BatchTooLarge { .. }), "{error}");
    let store = Corestore::memory();
    let core = store.get_named("encrypted").unwrap();
    let core = core.with_encryption(&EncryptionKey::generate());
    let error = store.batch().append_batch(&core, blocks).unwrap_err();
    let StoreError::Core(error) = error else {
        panic!("{error}")
    };
    assert!(matches!(error, CoreError::BatchTooLarge { .. }), "{error}");
}

#[test]
fn nothing_waits_in_buffered_mode() {
    let core = Corestore::memory().get_named("plain").unwrap();
    let mut ticket = core.append_async("first");
    assert!(!is_pending(&mut ticket));
    assert_eq!(core.length(), 1);
    let reader = Corestore::memory().get(&core.key()).unwrap();
    let refused = reader.append_async("refused").wait();
    assert!(matches!(refused, Err(CoreError::NotWritable { .. })));
}

/// Goal: what a queued append asks of the log is looked at when its turn comes.
#[test]
fn queued_appends_keep_to_their_conditions() {
    for encrypted in [false, true] {
        let (core, _disk, gate) = gated();
        let core = match encrypted {
            true => core.with_encryption(&EncryptionKey::generate()),
            false => core,
        };
        gate.close();
        let append = |block: &'static str, options| {
            core.append_async_with(vec![Bytes::from(block)], options)
        };
        let behind = |length| AppendOptions::at(0, length);
        let leads = append("first", behind(0));
        let second = append("second", behind(1));
        let late = append("late", behind(1));
        let third = append("third", behind(2));
        let too_long = append(
            "too long",
            AppendOptions {
                max_length: Some(3),
                ..AppendOptions::default()
            },
        );
        gate.open(None);
        assert_eq!(leads.wait().unwrap().length, 1);
        assert_eq!(second.wait().unwrap().length, 2);
        assert!(matches!(
            late.wait(),
            Err(CoreError::Moved { length: 2, .. })
        ));
        assert_eq!(third.wait().unwrap().length, 3);
        assert!(matches!(too_long.wait(), Err(CoreError::TooLong { .. })));
        assert_eq!(core.get_local(2).unwrap().unwrap(), "third");
    }
}
