//! Goal: conditions of appends, queries, snapshots, checkouts and lesser handles do what they say.
//! Method: a writer and a reader in memory, proofs passed by hand.

use std::future::Future;
use std::pin::pin;
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use crate::common::ready;
use crate::rig::proofs::{block_proof, follow, upgrade};
use crate::rig::rng::{Rng, rounds};
use crate::rig::{Contents, Disk, create};
use bytes::Bytes;
use ferrocore_log::proof::{NodeRequest, ProofRequest, UpgradeRequest};
use ferrocore_log::storage::memory::Memory;
use ferrocore_log::{
    AppendOptions, Core, CoreError, CoreOptions, Corestore, Durability, EncryptionKey, StoreOptions,
};

fn writer(blocks: u8) -> Core {
    let core = Corestore::memory().get_named("writer").unwrap();
    append(&core, 0..blocks);
    core
}

/// Appends a block for each number, of as many bytes.
fn append(core: &Core, numbers: std::ops::Range<u8>) {
    let blocks = numbers.map(|n| Bytes::from(vec![n; n.into()]));
    core.append_batch(blocks.collect()).unwrap();
}

fn fetch(reader: &Core, source: &Core, index: Option<u64>) {
    let upgrade = UpgradeRequest {
        start: reader.length(),
        length: source.length() - reader.length(),
    };
    let block = index.map(|index| NodeRequest {
        index,
        nodes: reader.missing_nodes(2 * index).unwrap(),
    });
    let request = ProofRequest {
        fork: source.fork(),
        block,
        upgrade: (upgrade.length > 0).then_some(upgrade),
        manifest: true,
        ..ProofRequest::default()
    };
    reader
        .accept(source.prove(&request).unwrap().unwrap())
        .unwrap();
}

fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn an_append_may_ask_for_a_length_a_fork_and_a_bound() {
    let core = writer(2);
    let with = |options| core.append_with(vec!["block".into()], options);
    let seen = AppendOptions::at(core.fork(), core.length());
    assert_eq!(with(seen).unwrap().length, 3);
    let moved = with(seen);
    assert!(matches!(
        moved,
        Err(CoreError::Moved {
            fork: 0,
            length: 3,
            ..
        })
    ));
    core.truncate(2, None).unwrap();
    let moved = with(seen);
    assert!(matches!(
        moved,
        Err(CoreError::Moved {
            fork: 1,
            length: 2,
            ..
        })
    ));
    let bounded = AppendOptions {
        max_length: Some(3),
        ..AppendOptions::default()
    };
    assert_eq!(with(bounded).unwrap().length, 3);
    let too_long = with(bounded);
    assert!(matches!(
        too_long,
        Err(CoreError::TooLong {
            length: 3,
            max: 3,
            ..
        })
    ));
    assert_eq!(core.length(), 3);
}

/// Goal: compare and append holds among appends that share a commit. Method: threads race to add
/// one each; each round one of them wins, and whoever lost reads the length and tries again.
#[test]
fn of_those_who_append_to_the_same_length_one_does() {
    let options = StoreOptions {
        durability: Durability::Sync,
        ..StoreOptions::default()
    };
    let store = Corestore::with_storage(Memory::new(), options).unwrap();
    let core = store.get_named("ledger").unwrap();
    let won: usize = std::thread::scope(|scope| {
        let core = &core;
        let work = move |number: u8| {
            let (core, mut length, mut won) = (core.clone(), 0, 0);
            while length < 200 {
                let seen = AppendOptions::at(0, length);
                match core.append_with(vec![vec![number].into()], seen) {
                    Ok(appended) => (length, won) = (appended.length, won + 1),
                    Err(CoreError::Moved { length: now, .. }) => length = now,
                    Err(error) => panic!("{error}"),
                }
            }
            won
        };
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || work(n))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!((core.length(), won), (200, 200));
}

#[test]
fn encrypted_appends_keep_to_their_conditions() {
    let core = writer(0).with_encryption(&EncryptionKey::from([7; 32]));
    let seen = AppendOptions::at(0, 0);
    core.append_with(vec!["block".into()], seen).unwrap();
    let moved = core.append_with(vec!["block".into()], seen);
    assert!(matches!(moved, Err(CoreError::Moved { length: 1, .. })));
}

#[test]
fn ranges_of_blocks_are_here_or_not() {
    let core = writer(8);
    core.clear(3..4).unwrap();
    assert!(core.has_range(0..3) && core.has_range(4..8) && core.has_range(5..5));
    assert!(!core.has_range(0..4) && !core.has_range(3..4) && !core.has_range(7..9));
}

/// Every earlier length has the hash it had when it was the last one.
#[test]
fn earlier_lengths_have_the_hashes_they_had() {
    let core = writer(0);
    let mut hashes = vec![core.tree_hash()];
    for number in 0..20 {
        append(&core, number..number + 1);
        hashes.push(core.tree_hash());
    }
    for (hash, length) in hashes.into_iter().zip(0..) {
        assert_eq!(core.tree_hash_at(length).unwrap(), hash);
        assert_eq!(core.checkout(length).unwrap().tree_hash(), hash);
    }
    let past = core.tree_hash_at(21);
    assert!(matches!(past, Err(CoreError::OutOfBounds { .. })));
    assert_eq!(core.head().root_hash, core.tree_hash());
}

#[test]
fn a_reader_learns_an_earlier_hash_with_the_block_before_it() {
    let source = writer(13);
    let reader = Corestore::memory().get(&source.key()).unwrap();
    fetch(&reader, &source, None);
    let missing = reader.tree_hash_at(7);
    assert!(matches!(
        missing,
        Err(CoreError::MissingNodes { index: 6, .. })
    ));
    fetch(&reader, &source, Some(6));
    assert_eq!(
        reader.tree_hash_at(7).unwrap(),
        source.tree_hash_at(7).unwrap()
    );
}

/// Longer than anything here takes: a test that waits as long has failed.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Goal: who seeks in a view while the log is being cut waits as a future does, not on the thread that others share; and is told
/// once the cut is made, or has failed. Method: a device whose syncs wait.
#[cfg(feature = "files")]
#[test]
fn who_seeks_amid_a_cut_holds_up_no_thread() {
    for byte in [2, 20] {
        let disk = Disk::new(Contents::new());
        let core = create(&disk, Durability::Buffered).unwrap();
        append(&core, 0..8);
        core.flush().unwrap();
        let snapshot = core.snapshot();
        disk.hold();
        let cut = thread::spawn(move || core.truncate(4, None).unwrap());
        disk.await_held();
        let (sender, polled) = channel();
        let seeker = thread::spawn(move || {
            let mut sought = pin!(snapshot.seek(byte));
            sender.send(poll(sought.as_mut()).is_pending()).unwrap();
            pollster::block_on(sought)
        });
        let is_pending = polled.recv_timeout(WATCHDOG);
        disk.let_go();
        assert_eq!(is_pending, Ok(true));
        cut.join().unwrap();
        match seeker.join().unwrap() {
            Ok(found) => assert_eq!((byte, found), (2, (2, 1))),
            Err(CoreError::SnapshotNotAvailable { index, .. }) => assert!(byte == 20 && index >= 4),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn byte_ranges_name_their_blocks() {
    let core = writer(6); // sizes 0 to 5
    let span = |range| {
        let span = core.byte_range_local(range).unwrap();
        (span.blocks, span.skip, span.last_end)
    };
    assert_eq!(span(2..8), (2..5, 1, 2));
    assert_eq!(span(6..10), (4..5, 0, 4));
    assert_eq!(span(14..15), (5..6, 4, 5));
    assert_eq!(span(15..15), (6..6, 0, 0));
    assert_eq!(core.byte_length(), 15);
    let past = core.byte_range_local(3..16);
    assert!(matches!(past, Err(CoreError::BytePastEnd { byte: 16, .. })));

    let reader = Corestore::memory().get(&core.key()).unwrap();
    fetch(&reader, &core, None);
    let missing = reader.byte_range_local(2..8);
    assert!(matches!(missing, Err(CoreError::MissingNodes { .. })));
    let _finding = reader.finding();
    let mut sought = pin!(reader.byte_range(2..8));
    let mut indexes = 0..6;
    let span = loop {
        match poll(sought.as_mut()) {
            Poll::Ready(span) => break span,
            Poll::Pending => fetch(&reader, &core, Some(indexes.next().unwrap())),
        }
    };
    assert!(indexes.start > 0, "it had to wait");
    assert_eq!(span.unwrap(), core.byte_range_local(2..8).unwrap());
}

#[test]
fn a_snapshot_stays_while_the_core_grows() {
    let core = writer(5);
    let snapshot = core.snapshot();
    let (hash, byte_length) = (core.tree_hash(), core.byte_length());
    append(&core, 5..40);
    assert_eq!((snapshot.length(), snapshot.fork()), (5, 0));
    assert_eq!(
        (snapshot.tree_hash(), snapshot.byte_length()),
        (hash, byte_length)
    );
    assert_eq!(snapshot.compat_length(), 5);
    for index in 0..5 {
        let block = vec![index as u8; index as usize];
        assert_eq!(snapshot.get_local(index).unwrap().unwrap(), block);
    }
    let past = ready(snapshot.get(5));
    assert!(matches!(
        past,
        Err(CoreError::OutOfBounds { length: 5, .. })
    ));
    assert!(matches!(
        snapshot.seek_local(11),
        Err(CoreError::BytePastEnd { .. })
    ));
    assert_eq!(snapshot.seek_local(3).unwrap(), Some((3, 0)));
}

/// What was cut once stays gone, however the log goes on.
#[test]
fn a_snapshot_shrinks_with_every_cut_below_it() {
    let core = writer(12);
    let (whole, early) = (core.snapshot(), core.checkout(6).unwrap());
    core.truncate(9, None).unwrap();
    append(&core, 20..30);
    assert_eq!((whole.compat_length(), early.compat_length()), (9, 6));
    core.truncate(4, None).unwrap();
    append(&core, 30..34);
    core.truncate(7, None).unwrap();
    assert_eq!((whole.compat_length(), early.compat_length()), (4, 4));
    for snapshot in [whole, early] {
        assert_eq!(snapshot.get_local(3).unwrap().unwrap(), vec![3; 3]);
        assert!(snapshot.has(3) && !snapshot.has(4));
        let gone = ready(snapshot.get(5));
        assert!(
            matches!(
                gone,
                Err(CoreError::SnapshotNotAvailable {
                    index: 5,
                    compat_length: 4,
                    ..
                })
            ),
            "{gone:?}"
        );
        assert_eq!(snapshot.seek_local(5).unwrap(), Some((3, 2)));
        let gone = snapshot.seek_local(6);
        assert!(matches!(gone, Err(CoreError::SnapshotNotAvailable { .. })));
    }
}

#[test]
fn a_reader_s_snapshot_shrinks_when_the_writer_forks() {
    let source = writer(6);
    let reader = Corestore::memory().get(&source.key()).unwrap();
    fetch(&reader, &source, Some(1));
    let snapshot = reader.snapshot();
    source.truncate(3, None).unwrap();
    append(&source, 40..45);
    let request = ProofRequest {
        fork: 1,
        upgrade: Some(UpgradeRequest {
            start: 0,
            length: source.length(),
        }),
        ..ProofRequest::default()
    };
    let mut reorg = reader
        .reorg(source.prove(&request).unwrap().unwrap())
        .unwrap();
    while let Some(request) = reorg.wants() {
        let proof = source.prove(&request).unwrap().unwrap();
        reader.narrow(&mut reorg, &proof).unwrap();
    }
    reader.adopt(reorg).unwrap();
    assert_eq!((reader.fork(), snapshot.fork()), (1, 0));
    assert!(snapshot.compat_length() <= 3, "{snapshot:?}");
    assert_eq!(snapshot.get_local(1).unwrap().unwrap(), vec![1]);
    let gone = ready(snapshot.get(4));
    assert!(matches!(gone, Err(CoreError::SnapshotNotAvailable { .. })));
}

/// Goal: a reader that holds few blocks and follows the writer from history to history, looking for what both have or not, can
/// seek in each view that it ever had, as far as that was not cut: the roots of the rest are here, since they were compared.
/// Method: random histories; each place that is found is what the sizes of the blocks say that were there then.
#[test]
fn views_of_a_sparse_reader_are_sought_in_whatever_it_followed() {
    let (mut found, mut gone) = (0, 0);
    rounds(300, |seed| {
        let mut rng = Rng::new(seed);
        let source = writer(0);
        let reader = Corestore::memory().get(&source.key()).unwrap();
        let mut sizes: Vec<u64> = Vec::new();
        let mut views = Vec::new();
        for _ in 0..20 {
            if rng.one_in(3) {
                let length = rng.below(sizes.len() + 1);
                source.truncate(length as u64, None).unwrap();
                sizes.truncate(length);
            }
            let new = (0..=rng.below(20)).map(|_| 1 + rng.below(9) as u64);
            let new: Vec<u64> = new.collect();
            let blocks = new.iter().map(|size| rng.bytes(*size as usize).into());
            source.append_batch(blocks.collect()).unwrap();
            sizes.extend(new);
            if reader.fork() == source.fork() {
                upgrade(&reader, &source);
            } else {
                let levels = [0, 1, 3, usize::MAX][rng.below(4)];
                follow(&reader, &source, levels).unwrap();
            }
            views.push((reader.snapshot(), sizes.clone()));
            for _ in 0..rng.below(3) {
                let index = rng.below(sizes.len()) as u64;
                if !reader.has(index) {
                    let proof = block_proof(&reader, &source, index);
                    reader.accept(proof).unwrap();
                }
            }
            for (view, sizes) in &views {
                let byte = rng.below(sizes.iter().sum::<u64>() as usize) as u64;
                match view.seek_local(byte) {
                    Ok(Some((index, offset))) => {
                        let before: u64 = sizes[..index as usize].iter().sum();
                        assert_eq!(before + offset, byte);
                        let size = sizes[index as usize];
                        assert!(
                            offset < size,
                            "{byte} is byte {offset} of {size} of {index}"
                        );
                        assert!(index < view.compat_length(), "{index}, {view:?}");
                        found += 1;
                    }
                    Ok(None) => {}
                    Err(CoreError::SnapshotNotAvailable { compat_length, .. }) => {
                        let before: u64 = sizes[..compat_length as usize].iter().sum();
                        assert!(byte >= before, "{byte} is before {before}");
                        gone += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        1
    });
    assert!(found > 1_000 && gone > 1_000, "{found}, {gone}");
}

#[test]
fn a_snapshot_waits_for_blocks_that_are_elsewhere() {
    let source = writer(9);
    let reader = Corestore::memory().get(&source.key()).unwrap();
    fetch(&reader, &source, None);
    let snapshot = reader.snapshot();
    let nobody = ready(snapshot.get(4));
    assert!(matches!(nobody, Err(CoreError::NoPeers { index: 4, .. })));
    let _finding = reader.finding();
    let mut waiting = pin!(snapshot.get(4));
    assert!(poll(waiting.as_mut()).is_pending());
    append(&source, 9..30);
    fetch(&reader, &source, Some(4));
    let Poll::Ready(block) = poll(waiting.as_mut()) else {
        panic!("the block is here");
    };
    assert_eq!(block.unwrap(), vec![4; 4]);
}

#[test]
fn views_of_an_encrypted_core_decrypt() {
    let options = CoreOptions {
        name: Some("secret".to_owned()),
        encryption: Some(EncryptionKey::from([9; 32])),
        ..CoreOptions::default()
    };
    let core = Corestore::memory().get_with(options).unwrap();
    append(&core, 0..8);
    for view in [core.checkout(5).unwrap(), {
        let snapshot = core.checkout(5).unwrap();
        append(&core, 8..12);
        snapshot
    }] {
        assert_eq!(view.byte_length(), 10);
        assert_eq!(view.get_local(4).unwrap().unwrap(), vec![4; 4]);
        assert_ne!(view.get_raw(4).unwrap().unwrap(), vec![4; 4]);
        assert_eq!(view.seek_local(4).unwrap(), Some((3, 1)));
        let span = view.byte_range_local(1..7).unwrap();
        assert_eq!((span.blocks, span.skip, span.last_end), (2..5, 0, 1));
    }
}

#[test]
fn a_read_only_handle_reads() {
    let core = writer(3);
    let reader = core.read_only();
    assert!(core.is_writable() && !reader.is_writable() && reader.is_read_only());
    assert_eq!(reader.get_local(2).unwrap().unwrap(), vec![2; 2]);
    let refused = [
        reader.append("no").err(),
        reader.append_batch(Vec::new()).err(),
        reader.truncate(1, None).err(),
        reader.clear(0..1).err(),
        reader.set_user_data("key", Some(b"no")).err(),
        reader.with_encryption(&[1; 32].into()).append("no").err(),
        reader.try_exclusive().err(),
    ];
    for error in refused {
        assert!(matches!(error, Some(CoreError::ReadOnly { .. })));
    }
    // It is still ours: there is nobody to ask for news.
    let _finding = reader.finding();
    assert!(!ready(reader.update()).unwrap());
    core.append("more").unwrap();
    assert_eq!(reader.length(), 4);
    let weak = reader.downgrade();
    assert!(weak.upgrade().unwrap().is_read_only());
}

#[test]
fn exclusive_handles_take_turns() {
    let core = writer(0);
    let first = ready(core.exclusive()).unwrap();
    assert!(core.try_exclusive().unwrap().is_none());
    let mut second = pin!(core.exclusive());
    assert!(poll(second.as_mut()).is_pending());
    first.append("first").unwrap();
    drop(first);
    let Poll::Ready(second) = poll(second.as_mut()) else {
        panic!("the first is gone");
    };
    second.unwrap().append("second").unwrap();
    assert!(core.try_exclusive().unwrap().is_some());
    let reader = Corestore::memory().get(&core.key()).unwrap();
    assert!(matches!(
        reader.try_exclusive(),
        Err(CoreError::NotWritable { .. })
    ));
}

/// Goal: any handle keeps a core open, and it closes with the last.
#[test]
fn a_core_closes_with_its_last_handle() {
    let store = Corestore::memory();
    let core = store.get_named("core").unwrap();
    core.append("block").unwrap();
    let discovery_key = core.discovery_key();
    let (snapshot, reader) = (core.snapshot(), core.read_only());
    let exclusive = core.try_exclusive().unwrap().unwrap();
    drop(core);
    drop(reader);
    assert!(store.purge(&discovery_key).is_err());
    drop(exclusive);
    assert!(store.purge(&discovery_key).is_err());
    assert_eq!(snapshot.get_local(0).unwrap().unwrap(), "block");
    drop(snapshot);
    store.purge(&discovery_key).unwrap();
}
