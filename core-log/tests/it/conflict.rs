//! Goal: two trees signed for one place are told, proven to third parties, and stop the core for
//! good, and nothing else does.
//! Method: writers with one key in two stores part ways at every length; each is shown the other's
//! tree at every other length, as a writer, a whole reader and a sparse one.
#![cfg(feature = "files")]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::common::ready;
use bytes::Bytes;
use ferrocore_log::audit::Mode;
use ferrocore_log::changeset::VerifyError;
use ferrocore_log::conflict::{Conflict, ConflictError};
use ferrocore_log::core::AcceptError;
use ferrocore_log::events::Event;
use ferrocore_log::proof::{NodeRequest, Proof, ProofRequest, UpgradeRequest};
use ferrocore_log::{Core, CoreError, CoreOptions, Corestore, Manifest, StoreOptions};
use ferrocore_primitives::encoding::{Decode as _, Encode as _};
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::sign::KeyPair;

fn options(compat: bool) -> CoreOptions {
    CoreOptions {
        key_pair: Some(KeyPair::from_seed(&[1; 32])),
        compat,
        ..CoreOptions::default()
    }
}

/// A writer of `length` blocks, of which those from `parting` on are its own.
fn writer(tag: &str, compat: bool, parting: usize, length: usize) -> Core {
    let core = Corestore::memory().get_with(options(compat)).unwrap();
    append(&core, tag, parting, length);
    core
}

fn append(core: &Core, tag: &str, parting: usize, length: usize) {
    for index in 0..length {
        let tag = if index < parting { "shared" } else { tag };
        core.append(format!("{tag} {index}")).unwrap();
    }
}

fn whole(core: &Core, length: u64) -> Proof {
    let request = ProofRequest {
        fork: core.fork(),
        upgrade: Some(UpgradeRequest { start: 0, length }),
        manifest: true,
        ..ProofRequest::default()
    };
    core.prove(&request).unwrap().unwrap()
}

/// A reader that holds what `core` has, or only its newest block.
fn reader_of(core: &Core, is_sparse: bool) -> Core {
    let reader = Corestore::memory().get(&core.key()).unwrap();
    let length = core.length();
    let wanted = if is_sparse {
        length - 1..length
    } else {
        0..length
    };
    for index in wanted {
        let nodes = reader.missing_nodes(2 * index).unwrap();
        let request = ProofRequest {
            block: Some(NodeRequest { index, nodes }),
            upgrade: (reader.length() == 0).then_some(UpgradeRequest { start: 0, length }),
            manifest: true,
            ..ProofRequest::default()
        };
        reader
            .accept(core.prove(&request).unwrap().unwrap())
            .unwrap();
    }
    reader
}

#[test]
fn trees_that_part_conflict_and_those_that_continue_do_not() {
    for compat in [false, true] {
        for (parting, ours, theirs) in [
            (0, 1, 1),
            (2, 5, 3),
            (3, 4, 9),
            (7, 8, 8),
            (4, 4, 9),
            (5, 9, 5),
        ] {
            let core = writer("ours", compat, parting, ours);
            let other = writer("theirs", compat, parting, theirs);
            for length in 1..=theirs as u64 {
                for is_sparse in [false, true] {
                    let reader = reader_of(&core, is_sparse);
                    let conflict = reader.check_conflict(&whole(&other, length)).unwrap();
                    let parts = parting < ours.min(theirs);
                    let is_comparable = length <= ours as u64;
                    let id = format!("{parting} of {ours} and {theirs} at {length}, {is_sparse}");
                    if !parts || !is_comparable {
                        assert!(conflict.is_none() && reader.conflict().is_none(), "{id}");
                    } else if !is_sparse {
                        assert!(conflict.is_some(), "{id}");
                    }
                    if let Some(conflict) = conflict {
                        assert!(conflict.length > parting as u64, "{id}");
                        conflict.verify(&core.key()).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn a_frozen_core_takes_nothing_more_and_serves_what_it_has() {
    let core = writer("ours", false, 2, 5);
    let reader = reader_of(&core, true);
    let other = writer("theirs", false, 2, 6);
    for frozen in [&core, &reader] {
        let events = frozen.events();
        let conflict = frozen.check_conflict(&whole(&other, 5)).unwrap().unwrap();
        let told = Event::Conflict {
            length: conflict.length,
            fork: 0,
        };
        assert_eq!(events.try_next(), Some(told));
        assert_eq!(
            frozen.check_conflict(&whole(&other, 5)).unwrap(),
            Some(conflict)
        );
        assert_eq!(events.try_next(), None, "it is told once");
    }
    assert!(matches!(core.append("x"), Err(CoreError::Conflict { .. })));
    assert!(matches!(
        core.truncate(1, None),
        Err(CoreError::Conflict { .. })
    ));
    let proposal = core.propose(vec![Bytes::from("x")]);
    assert!(matches!(proposal, Err(CoreError::Conflict { .. })));
    // The writer that goes on elsewhere moves no frozen reader, not even to another fork.
    let goes_on = writer("ours", false, 2, 5);
    goes_on.append("more").unwrap();
    let request = ProofRequest {
        upgrade: Some(UpgradeRequest {
            start: 5,
            length: 1,
        }),
        ..ProofRequest::default()
    };
    let upgrade = goes_on.prove(&request).unwrap().unwrap();
    let refused = reader.accept(upgrade).unwrap_err();
    assert!(matches!(refused, AcceptError::Verify(VerifyError::Frozen)));
    goes_on.truncate(3, None).unwrap();
    let reorg = reader.reorg(whole(&goes_on, 3)).unwrap();
    let refused = reader.adopt(reorg).unwrap_err();
    assert!(matches!(refused, AcceptError::Verify(VerifyError::Frozen)));
    assert_eq!((reader.fork(), reader.length()), (0, 5));
    // Blocks of the log that is here are still exchanged.
    let nodes = reader.missing_nodes(0).unwrap();
    let request = ProofRequest {
        block: Some(NodeRequest { index: 0, nodes }),
        ..ProofRequest::default()
    };
    reader
        .accept(core.prove(&request).unwrap().unwrap())
        .unwrap();
    assert_eq!(reader.get_local(0).unwrap().unwrap(), "shared 0");
}

/// Goal: evidence convinces whoever has the key, and cannot be made up or turned.
/// Goal: whoever waits for what can come no more is told when the core freezes, though suppliers are looked for;
/// what is here is read as before.
#[test]
fn nobody_waits_for_more_of_a_frozen_core() {
    let [core, other] = ["ours", "theirs"].map(|tag| writer(tag, false, 2, 5));
    let reader = reader_of(&core, false);
    let _finding = reader.finding();
    let download = reader.download(0..7);
    let context = &mut Context::from_waker(Waker::noop());
    let mut get = pin!(reader.get(5));
    let mut done = pin!(download.done());
    let mut update = pin!(reader.update());
    assert!(get.as_mut().poll(context).is_pending());
    assert!(done.as_mut().poll(context).is_pending());
    assert!(update.as_mut().poll(context).is_pending());
    let conflict = reader.check_conflict(&whole(&other, 5)).unwrap();
    assert!(conflict.is_some());
    let is_told = |result: Poll<Result<(), CoreError>>| {
        assert!(matches!(
            result,
            Poll::Ready(Err(CoreError::Conflict { .. }))
        ));
    };
    is_told(get.as_mut().poll(context).map_ok(drop));
    is_told(done.as_mut().poll(context));
    let grew = update.as_mut().poll(context);
    assert!(matches!(grew, Poll::Ready(Ok(false))));
    assert_eq!(ready(reader.get(4)).unwrap(), "ours 4");
}

#[test]
fn evidence_is_verified_with_the_key_alone() {
    for compat in [false, true] {
        let core = writer("ours", compat, 2, 5);
        let other = writer("theirs", compat, 2, 9);
        let conflict = core.check_conflict(&whole(&other, 4)).unwrap().unwrap();
        let bytes = conflict.to_vec();
        let read = Conflict::from_slice(&bytes).unwrap();
        assert_eq!(&read, &*conflict);
        read.verify(&core.key()).unwrap();
        assert!(read.verify(&Key::from([7; 32])).is_err());
        let mut same = read.clone();
        same.theirs = same.ours.clone();
        assert_eq!(same.verify(&core.key()), Err(ConflictError::Agreement));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            let Ok(mut flipped) = Conflict::from_slice(&flipped) else {
                continue;
            };
            if flipped.verify(&core.key()).is_ok() {
                // A patch that the manifest does not allow means nothing.
                flipped.ours.signature.clone_from(&read.ours.signature);
                flipped.theirs.signature.clone_from(&read.theirs.signature);
                assert_eq!(flipped, read, "byte {at}");
                assert!(!compat);
            }
        }
        for len in 0..bytes.len() {
            assert!(Conflict::from_slice(&bytes[..len]).is_err());
        }
        // It stops whoever is shown it.
        let bystander = Corestore::memory().get(&core.key()).unwrap();
        bystander.freeze(read).unwrap();
        assert!(bystander.conflict().is_some());
        let refused = bystander.accept(whole(&core, 5)).unwrap_err();
        assert!(matches!(refused, AcceptError::Verify(VerifyError::Frozen)));
        let other = Corestore::memory().get_named("another").unwrap();
        assert!(other.freeze((*conflict).clone()).is_err());
        other.append("goes on").unwrap();
    }
}

/// Goal: a core that is signed as before there were namespaces has its conflicts, too, and evidence about it
/// stops no core that is signed otherwise.
#[test]
fn legacy_cores_conflict_as_they_are_signed() {
    let make = |tag: &str, legacy: bool, length| {
        let options = CoreOptions {
            legacy,
            ..options(true)
        };
        let core = Corestore::memory().get_with(options).unwrap();
        append(&core, tag, 2, length);
        core
    };
    let (core, other) = (make("ours", true, 5), make("theirs", true, 9));
    let conflict = core.check_conflict(&whole(&other, 4)).unwrap().unwrap();
    let conflict = Conflict::from_slice(&conflict.to_vec()).unwrap();
    conflict.verify(&core.key()).unwrap();
    assert!(core.append("x").is_err(), "it is frozen");
    let bystander = make("ours", true, 3);
    bystander.freeze(conflict.clone()).unwrap();
    assert!(bystander.conflict().is_some());

    let modern = make("ours", false, 3);
    assert_eq!(modern.key(), core.key());
    assert!(modern.freeze(conflict.clone()).is_err());
    let shown = modern.check_conflict(&whole(&other, 3));
    assert!(matches!(shown, Err(VerifyError::Signature { .. })));
    modern.append("goes on").unwrap();
    // One tree of each kind proves nothing.
    let newer = make("theirs", false, 9);
    let mixed = modern.check_conflict(&whole(&newer, 4)).unwrap().unwrap();
    let mixed = Conflict {
        ours: mixed.ours.clone(),
        ..conflict
    };
    assert!(mixed.verify(&core.key()).is_err());
}

#[test]
fn what_is_not_signed_freezes_nothing() {
    let core = writer("ours", false, 2, 5);
    let other = writer("theirs", false, 2, 5);
    let honest = whole(&other, 5);
    let spoil = |change: &dyn Fn(&mut Proof)| {
        let mut proof = honest.clone();
        change(&mut proof);
        let refused = core.check_conflict(&proof);
        assert!(core.conflict().is_none());
        refused
    };
    let unsigned = spoil(&|proof| proof.upgrade.as_mut().unwrap().signature = None);
    assert!(matches!(unsigned, Err(VerifyError::Signature { .. })));
    let torn = spoil(&|proof| {
        proof.upgrade.as_mut().unwrap().nodes.pop();
    });
    assert!(matches!(torn, Err(VerifyError::UnexpectedNode { .. })));
    let long = spoil(&|proof| {
        let nodes = &mut proof.upgrade.as_mut().unwrap().nodes;
        *nodes = vec![nodes[0]; 1_000];
    });
    assert!(long.is_err());
    let started = spoil(&|proof| proof.upgrade.as_mut().unwrap().start = 1);
    assert!(matches!(started, Ok(None)));
    // Another fork is another history.
    assert!(matches!(spoil(&|proof| proof.fork = 1), Ok(None)));
    other.truncate(3, None).unwrap();
    assert!(matches!(core.check_conflict(&whole(&other, 3)), Ok(None)));
    core.append("goes on").unwrap();
}

/// Goal: what was told once stays told, outside of what JavaScript reads.
#[test]
fn a_core_stays_frozen_when_it_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let store = open();
    let core = store.get_with(options(false)).unwrap();
    append(&core, "ours", 2, 5);
    let other = writer("theirs", false, 2, 5);
    let conflict = core.check_conflict(&whole(&other, 5)).unwrap().unwrap();
    let (key, discovery_key) = (core.key(), core.discovery_key());
    drop((core, store));
    let store = open();
    let core = store.get(&key).unwrap();
    assert_eq!(core.conflict(), Some(conflict));
    assert!(matches!(core.append("x"), Err(CoreError::Conflict { .. })));
    assert_eq!(core.get_local(4).unwrap().unwrap(), "ours 4");
    drop((core, store));

    let path = directory
        .path()
        .join("conflicts")
        .join(discovery_key.to_hex());
    let mut evidence = std::fs::read(&path).unwrap();
    evidence[40] ^= 1;
    std::fs::write(&path, evidence).unwrap();
    let store = open();
    let core = store.get(&key).unwrap();
    assert!(core.is_frozen() && core.conflict().is_none());
    let refused = core.append("damaged evidence is no reason to go on");
    assert!(matches!(refused, Err(CoreError::Conflict { .. })));
    assert!(matches!(
        core.truncate(1, None),
        Err(CoreError::Conflict { .. })
    ));
    assert_eq!(core.get_local(4).unwrap().unwrap(), "ours 4");
    assert_eq!(core.audit(Mode::DryRun, |_| {}).unwrap().bad, 0);
    // Whoever sees it once more has it again.
    let again = core.check_conflict(&whole(&other, 5)).unwrap();
    assert!(again.is_some() && core.conflict() == again);
    drop((core, store));
    let store = open();
    let core = store.get(&key).unwrap();
    assert_eq!(core.conflict(), again);
    drop(core);
    assert_eq!(store.purge(&discovery_key).map(drop).ok(), Some(()));
    assert!(!path.exists());
}

/// Goal: however long the manifest is that the evidence brings along, a core that was stopped opens again.
#[test]
fn evidence_with_a_long_manifest_is_kept_and_read() {
    let manifest = Manifest::builder()
        .signer(KeyPair::from_seed(&[1; 32]).public_key())
        .user_data(vec![7; 2 << 20])
        .build()
        .unwrap();
    let options = || CoreOptions {
        manifest: Some(manifest.clone()),
        ..options(false)
    };
    let directory = tempfile::tempdir().unwrap();
    let open = || Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let store = open();
    let core = store.get_with(options()).unwrap();
    append(&core, "ours", 1, 3);
    let other = Corestore::memory().get_with(options()).unwrap();
    append(&other, "theirs", 1, 3);
    let conflict = core.check_conflict(&whole(&other, 3)).unwrap().unwrap();
    let key = core.key();
    drop((core, store));
    let core = open().get(&key).unwrap();
    assert_eq!(core.conflict(), Some(conflict));
    assert_eq!(core.get_local(2).unwrap().unwrap(), "ours 2");
}

/// Goal: what comes behind a pinned beginning can conflict; the beginning cannot.
#[test]
fn a_pinned_beginning_does_not_hide_a_conflict() {
    let source = writer("ours", false, 2, 2);
    let key_pair = KeyPair::from_seed(&[1; 32]);
    let manifest = Manifest::builder()
        .signer(key_pair.public_key())
        .prologue(ferrocore_log::manifest::Prologue {
            hash: source.tree_hash(),
            length: 2,
        })
        .build()
        .unwrap();
    let make = |tag: &str, blocks: u64| {
        let options = CoreOptions {
            manifest: Some(manifest.clone()),
            ..options(false)
        };
        let core = Corestore::memory().get_with(options).unwrap();
        core.copy_prologue(&source).unwrap();
        assert_eq!((core.length(), core.contiguous_length()), (2, 2));
        for i in 0..blocks {
            core.append(format!("{tag} {i}")).unwrap();
        }
        core
    };
    let (ours, theirs) = (make("ours", 3), make("theirs", 5));
    assert!(
        ours.check_conflict(&whole(&make("ours", 1), 2))
            .unwrap()
            .is_none()
    );
    let conflict = ours.check_conflict(&whole(&theirs, 7)).unwrap().unwrap();
    assert!(conflict.length > 2);
    conflict.verify(&ours.key()).unwrap();
}
