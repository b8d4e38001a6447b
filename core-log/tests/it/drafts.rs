//! Goal: a draft is a log that begins as its core does, outlives its handles, and becomes the core's
//! in one append or not at all.
//! Method: stores in memory and on disk, closed and opened between the steps.

use std::sync::Arc;

use crate::common::ready;
use bytes::Bytes;
use ferrocore_log::core::RemoteHead;
use ferrocore_log::events::Event;
use ferrocore_log::manifest::ManifestBuilder;
use ferrocore_log::proof::{ProofRequest, UpgradeRequest};
use ferrocore_log::signable::TreeHead;
use ferrocore_log::storage::memory::Memory;
use ferrocore_log::verifier::Verifier;
use ferrocore_log::{
    CommitOptions, Core, CoreError, CoreOptions, Corestore, DraftOptions, EncryptionKey, Manifest,
    StoreError, StoreOptions,
};
use ferrocore_primitives::sign::KeyPair;

fn writer(blocks: u8) -> Core {
    let core = Corestore::memory().get_named("core").unwrap();
    append(&core, 0..blocks);
    core
}

fn append(core: &Core, numbers: std::ops::Range<u8>) {
    core.append_batch(blocks(numbers)).unwrap();
}

/// A block for each number, of as many bytes.
fn blocks(numbers: std::ops::Range<u8>) -> Vec<Bytes> {
    numbers.map(|n| vec![n; n.into()].into()).collect()
}

fn all(core: &Core) -> Vec<Bytes> {
    let block = |index| core.get_local(index).unwrap().unwrap();
    (0..core.length()).map(block).collect()
}

fn of_draft(draft: &ferrocore_log::Draft) -> Vec<Bytes> {
    let block = |index| draft.get_local(index).unwrap().unwrap();
    (0..draft.length()).map(block).collect()
}

fn commit(draft: &ferrocore_log::Draft) -> Result<u64, CoreError> {
    let appended = draft.commit(CommitOptions::default())?;
    Ok(appended.length)
}

#[test]
fn a_draft_goes_on_where_the_core_ends() {
    let core = writer(4);
    let draft = core.draft("draft").unwrap();
    draft.append_batch(blocks(10..13)).unwrap();
    let appended = draft.append("more").unwrap();
    assert_eq!((appended.length, appended.byte_length), (8, 6 + 33 + 4));
    assert_eq!((draft.base_length(), core.length()), (4, 4));
    append(&core, 4..6);
    let mut expected = blocks(0..4);
    expected.extend(blocks(10..13));
    expected.push("more".into());
    assert_eq!(of_draft(&draft), expected);
    assert_eq!(draft.byte_length().unwrap(), 43);
    let past = draft.get_local(8);
    assert!(matches!(
        past,
        Err(CoreError::OutOfBounds { length: 8, .. })
    ));
    assert!(draft.has(0) && draft.has(7) && !draft.has(8));
    // Its tree is that of a core with these blocks.
    let twin = Corestore::memory().get_named("twin").unwrap();
    for length in 0..=8 {
        assert_eq!(draft.tree_hash_at(length).unwrap(), twin.tree_hash());
        if length < 8 {
            twin.append(expected[length as usize].clone()).unwrap();
        }
    }
}

#[test]
fn a_draft_is_cut_above_and_below_its_base() {
    let core = writer(6);
    let draft = core.draft("draft").unwrap();
    draft.append_batch(blocks(10..14)).unwrap();
    draft.truncate(8).unwrap();
    draft.append("a").unwrap();
    let mut expected = blocks(0..6);
    expected.extend(blocks(10..12));
    expected.push("a".into());
    assert_eq!(of_draft(&draft), expected);
    draft.truncate(3).unwrap();
    assert_eq!((draft.length(), draft.base_length()), (3, 3));
    assert_eq!(draft.byte_length().unwrap(), 3);
    draft.append("b").unwrap();
    expected.truncate(3);
    expected.push("b".into());
    assert_eq!(of_draft(&draft), expected);
    assert_eq!(core.length(), 6);
    let past = draft.truncate(5);
    assert!(matches!(
        past,
        Err(CoreError::OutOfBounds { length: 4, .. })
    ));
    let moved = commit(&draft);
    assert!(matches!(moved, Err(CoreError::Moved { length: 6, .. })));
    core.truncate(3, None).unwrap();
    assert_eq!(commit(&draft).unwrap(), 4);
    assert_eq!(all(&core), expected);
}

/// One append: one event, one signature that readers verify, and nothing in between.
#[test]
fn a_commit_is_one_append() {
    let core = writer(2);
    let draft = core.draft("draft").unwrap();
    draft.append_batch(blocks(10..20)).unwrap();
    let events = core.events();
    let appended = draft.commit(CommitOptions::default()).unwrap();
    assert_eq!((appended.length, appended.byte_length), (12, 1 + 145));
    assert_eq!(events.try_next(), Some(Event::Append { length: 12 }));
    assert_eq!(events.try_next(), Some(Event::Have(2..12)));
    assert_eq!(events.try_next(), None);
    let reader = Corestore::memory().get(&core.key()).unwrap();
    let request = ProofRequest {
        upgrade: Some(UpgradeRequest {
            start: 0,
            length: 12,
        }),
        manifest: true,
        ..ProofRequest::default()
    };
    reader
        .accept(core.prove(&request).unwrap().unwrap())
        .unwrap();
    assert_eq!(reader.tree_hash(), core.tree_hash());
    // The draft stays, and builds on what it brought.
    assert_eq!((draft.length(), draft.base_length()), (12, 12));
    draft.append("next").unwrap();
    assert_eq!(commit(&draft).unwrap(), 13);
    assert_eq!(core.get_local(12).unwrap().unwrap(), "next");
}

#[test]
fn a_part_may_be_committed_first() {
    let core = writer(2);
    let draft = core.draft("draft").unwrap();
    draft.append_batch(blocks(10..16)).unwrap();
    let part = |length| CommitOptions {
        length: Some(length),
        ..CommitOptions::default()
    };
    for length in [2, 5, 6, 8] {
        assert_eq!(draft.commit(part(length)).unwrap().length, length);
        assert_eq!((core.length(), draft.length()), (length, 8));
        assert_eq!(draft.base_length(), length);
        assert_eq!(draft.byte_length().unwrap(), 1 + 75);
        let mut expected = blocks(0..2);
        expected.extend(blocks(10..16));
        assert_eq!(of_draft(&draft), expected);
        expected.truncate(length as usize);
        assert_eq!(all(&core), expected);
    }
    let past = draft.commit(part(9));
    assert!(matches!(past, Err(CoreError::OutOfBounds { .. })));
    let shorter = draft.commit(part(7));
    assert!(matches!(shorter, Err(CoreError::Moved { length: 8, .. })));
}

#[test]
fn of_two_drafts_on_one_base_one_is_committed() {
    let core = writer(3);
    let [one, other] = ["one", "other"].map(|name| {
        let draft = core.draft(name).unwrap();
        draft.append(name.to_owned()).unwrap();
        draft
    });
    assert_eq!(commit(&one).unwrap(), 4);
    let moved = commit(&other);
    assert!(matches!(moved, Err(CoreError::Moved { length: 4, .. })));
    assert_eq!((core.length(), other.length()), (4, 4));
    other.overwrite().unwrap();
    assert_eq!((other.length(), other.base_length()), (4, 4));
    other.append("after all").unwrap();
    assert_eq!(commit(&other).unwrap(), 5);
}

/// What a crash between the append and the draft's own note leaves, and committing it again.
#[test]
fn what_the_core_has_already_is_not_committed_twice() {
    let core = writer(3);
    let draft = core.draft("draft").unwrap();
    draft.append_batch(blocks(10..14)).unwrap();
    append(&core, 10..12);
    assert_eq!(commit(&draft).unwrap(), 7);
    let mut expected = blocks(0..3);
    expected.extend(blocks(10..14));
    assert_eq!(all(&core), expected);
    assert_eq!(commit(&draft).unwrap(), 7);
}

#[test]
fn drafts_outlive_their_handles_and_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let names = ["", "../../x", "Entwürfe/日本\0", &"long".repeat(2_000), "a"];
    {
        let store = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
        let core = store.get_named("core").unwrap();
        append(&core, 0..5);
        for (name, number) in names.iter().zip(20..) {
            let draft = core.draft(name).unwrap();
            assert_eq!(draft.name(), *name);
            draft.append_batch(blocks(number..number + 3)).unwrap();
            draft.truncate(7).unwrap();
        }
        append(&core, 5..8);
    }
    let store = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let core = store.get_named("core").unwrap();
    let mut sorted = names;
    sorted.sort_unstable();
    assert_eq!(core.drafts().unwrap(), sorted);
    for (name, number) in names.iter().zip(20..) {
        let draft = core.draft(name).unwrap();
        let mut expected = blocks(0..5);
        expected.extend(blocks(number..number + 2));
        assert_eq!(of_draft(&draft), expected);
    }
    assert_eq!(store.list().unwrap().len(), 1, "drafts are no cores");
    let outside = directory
        .path()
        .join("drafts")
        .join(core.discovery_key().to_hex());
    assert_eq!(std::fs::read_dir(outside).unwrap().count(), names.len());

    let draft = core.draft("a").unwrap();
    let again = core.draft("a").unwrap();
    again.append("seen by both").unwrap();
    assert_eq!(draft.get_local(7).unwrap().unwrap(), "seen by both");
    let cut = DraftOptions {
        checkout: Some(6),
        ..DraftOptions::default()
    };
    assert_eq!(core.draft_with("a", cut).unwrap().length(), 6);
    let anew = DraftOptions {
        overwrite: true,
        ..DraftOptions::default()
    };
    assert_eq!(core.draft_with("a", anew).unwrap().length(), 8);
}

#[test]
fn drafts_count_and_go_with_their_core() {
    let directory = tempfile::tempdir().unwrap();
    let store = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let core = store.get_named("core").unwrap();
    core.append("block").unwrap();
    let discovery_key = core.discovery_key();
    core.flush().unwrap();
    let before = store.disk_bytes(&discovery_key).unwrap();
    let draft = core.draft("large").unwrap();
    draft.append(vec![1; 100_000]).unwrap();
    let with_draft = store.disk_bytes(&discovery_key).unwrap();
    assert!(with_draft >= before + 100_000, "{before} {with_draft}");

    let in_use = core.delete_draft("large");
    assert!(matches!(in_use, Err(CoreError::DraftInUse { .. })));
    core.draft("small").unwrap().delete().unwrap();
    assert!(!core.delete_draft("small").unwrap());
    assert_eq!(core.drafts().unwrap(), ["large"]);
    drop(core);
    let held = store.purge(&discovery_key);
    assert!(matches!(held, Err(StoreError::InUse { .. })), "{held:?}");
    drop(draft);
    assert!(store.purge(&discovery_key).unwrap() >= 100_000);
    let drafts = directory.path().join("drafts");
    assert_eq!(std::fs::read_dir(drafts).unwrap().count(), 0);
    let core = store.get_named("core").unwrap();
    assert!(core.drafts().unwrap().is_empty());
}

/// Goal: a draft of a history that is no more tells what is gone, keeps its own blocks, and never
/// becomes the core's; whether it was open when the core was cut or not.
#[test]
fn a_core_cut_below_a_draft_takes_its_beginning_away() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let store = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
        let core = store.get_named("core").unwrap();
        (store, core)
    };
    let check = |draft: &ferrocore_log::Draft, left: u64| {
        for index in 0..5 {
            match draft.get_local(index) {
                Ok(block) if index < left => assert_eq!(block.unwrap().len(), index as usize),
                Err(CoreError::SnapshotNotAvailable { .. }) if index >= left => {}
                other => panic!("block {index}: {other:?}"),
            }
        }
        assert_eq!(draft.get_local(5).unwrap().unwrap(), "own");
        assert!(matches!(commit(draft), Err(CoreError::Moved { .. })));
        let gone = draft.truncate(4);
        assert!(matches!(gone, Err(CoreError::SnapshotNotAvailable { .. })));
    };
    {
        let (_store, core) = open();
        append(&core, 0..5);
        let draft = core.draft("draft").unwrap();
        draft.append("own").unwrap();
        core.truncate(3, None).unwrap();
        append(&core, 30..35);
        check(&draft, 3);
        let gone = ready(draft.get(3));
        assert!(matches!(gone, Err(CoreError::SnapshotNotAvailable { .. })));
    }
    let (_store, core) = open();
    let draft = core.draft("draft").unwrap();
    check(&draft, 0);
    draft.overwrite().unwrap();
    assert_eq!(of_draft(&draft), all(&core));
}

/// The core is cut, but not below the draft, while nobody looks.
#[test]
fn a_core_cut_behind_a_draft_s_base_changes_nothing_for_it() {
    let core = writer(4);
    core.draft("draft").unwrap().append("own").unwrap();
    append(&core, 4..9);
    core.truncate(4, None).unwrap();
    let draft = core.draft("draft").unwrap();
    assert_eq!(commit(&draft).unwrap(), 5);
    assert_eq!(core.get_local(4).unwrap().unwrap(), "own");
}

#[test]
fn encrypted_drafts_become_the_blocks_that_an_append_would_make() {
    let open = || {
        let store = Corestore::with_storage(
            ferrocore_log::storage::memory::Memory::with_root_secret([5; 32]),
            StoreOptions::default(),
        );
        let options = CoreOptions {
            name: Some("secret".to_owned()),
            encryption: Some(EncryptionKey::from([9; 32])),
            ..CoreOptions::default()
        };
        let core = store.unwrap().get_with(options).unwrap();
        append(&core, 0..6);
        core.truncate(4, None).unwrap();
        core
    };
    let (core, twin) = (open(), open());
    let draft = core.draft("draft").unwrap();
    draft.append_batch(blocks(10..14)).unwrap();
    append(&twin, 10..14);
    assert_eq!(draft.tree_hash().unwrap(), twin.tree_hash());
    assert_eq!(draft.byte_length().unwrap(), twin.byte_length());
    assert_eq!(of_draft(&draft), all(&twin));
    commit(&draft).unwrap();
    assert_eq!(core.tree_hash(), twin.tree_hash());
    assert_eq!(all(&core), all(&twin));

    // Under another fork a key stream would be used twice.
    draft.append("secret").unwrap();
    append(&core, 30..31);
    core.truncate(8, None).unwrap();
    assert!(matches!(commit(&draft), Err(CoreError::Moved { .. })));
    draft.overwrite().unwrap();
    draft.append("secret").unwrap();
    commit(&draft).unwrap();
    assert_eq!(core.get_local(8).unwrap().unwrap(), "secret");
}

/// Whoever has the blocks may draft; who may sign makes it the core's, here or elsewhere.
#[test]
fn a_commit_needs_a_signature_and_a_draft_none() {
    let key_pair = KeyPair::from_seed(&[3; 32]);
    let manifest = Manifest::single(key_pair.public_key());
    let core = Corestore::memory().get(&manifest.key()).unwrap();
    let unknown = core.draft("draft").unwrap();
    unknown.append("a").unwrap();
    assert!(matches!(
        commit(&unknown),
        Err(CoreError::NotWritable { .. })
    ));

    let options = CoreOptions {
        manifest: Some(manifest.clone()),
        ..CoreOptions::default()
    };
    let core = Corestore::memory().get_with(options).unwrap();
    let draft = core.draft("draft").unwrap();
    draft.append_batch(blocks(0..3)).unwrap();
    assert!(!core.is_writable());
    assert!(matches!(commit(&draft), Err(CoreError::NotWritable { .. })));
    let with = |signature: Bytes| CommitOptions {
        length: Some(2),
        signature: Some(signature),
        ..CommitOptions::default()
    };
    let head = TreeHead {
        fork: core.fork(),
        length: 2,
        hash: draft.tree_hash_at(2).unwrap(),
    };
    let verifier = Verifier::new(manifest.key(), manifest).unwrap();
    let forged = verifier.sign(&TreeHead { fork: 1, ..head }, &key_pair);
    let forged = forged.unwrap();
    let refused = draft.commit(with(forged));
    assert!(matches!(refused, Err(CoreError::Signature { .. })));
    assert_eq!((core.length(), draft.base_length()), (0, 0));
    let signature = verifier.sign(&head, &key_pair).unwrap();
    assert_eq!(draft.commit(with(signature)).unwrap().length, 2);
    let stranger = CommitOptions {
        key_pair: Some(KeyPair::from_seed(&[4; 32])),
        ..CommitOptions::default()
    };
    let refused = draft.commit(stranger);
    assert!(matches!(refused, Err(CoreError::NotWritable { .. })));
    let signed = CommitOptions {
        key_pair: Some(key_pair),
        ..CommitOptions::default()
    };
    assert_eq!(draft.commit(signed).unwrap().length, 3);
    assert_eq!(all(&core), blocks(0..3));
}

/// Goal: no way of signing a draft leads around what keeps a writer from a second history.
/// Method: a core whose secret was brought back, and one that a peer says to have more of; each draft is
/// committed in every way, and once more when nothing stands against it.
#[test]
fn a_writer_that_may_lack_its_own_blocks_commits_no_draft() {
    let restored = Memory::restored([7; 32]);
    let restored = Corestore::with_storage(restored, StoreOptions::default()).unwrap();
    let key_pair = |store: &Corestore, core: &Core| {
        let secret = store.core_secret(&core.key().discovery_key()).unwrap();
        secret.unwrap().key_pair
    };
    for (store, is_behind) in [(restored, false), (Corestore::memory(), true)] {
        let core = store.get_named("log").unwrap();
        let draft = core.draft("draft").unwrap();
        draft.append_batch(blocks(0..3)).unwrap();
        let peer = is_behind.then(|| core.supply().attach(Arc::new(|| {})));
        if let Some(peer) = peer {
            core.supply().hear(peer, RemoteHead { fork: 0, length: 5 });
        }
        let pair = key_pair(&store, &core);
        let proposal = draft.propose(None).unwrap();
        let signature = proposal.assemble(&[proposal.sign(&pair).unwrap()]);
        let signed = CommitOptions {
            signature: Some(signature),
            ..CommitOptions::default()
        };
        let paired = CommitOptions {
            key_pair: Some(pair),
            ..CommitOptions::default()
        };
        for options in [CommitOptions::default(), paired, signed.clone()] {
            let refused = draft.commit(options);
            let is_told = match &refused {
                Err(CoreError::Unconfirmed { .. }) => !is_behind,
                Err(CoreError::Behind { .. }) => is_behind,
                _ => false,
            };
            assert!(is_told, "{refused:?}");
            assert_eq!((core.length(), draft.base_length()), (0, 0));
        }
        core.lift_guard().unwrap();
        peer.into_iter().for_each(|peer| core.supply().doubt(peer));
        assert_eq!(draft.commit(signed).unwrap().length, 3);
    }
}

/// Two of three signers agree on a part of a draft.
#[test]
fn a_quorum_signs_a_draft() {
    let signers: Vec<KeyPair> = (0..3).map(|n| KeyPair::from_seed(&[n; 32])).collect();
    let add = |builder: ManifestBuilder, signer: &KeyPair| builder.signer(signer.public_key());
    let manifest = signers.iter().fold(Manifest::builder(), add).build();
    let options = CoreOptions {
        manifest: Some(manifest.unwrap()),
        ..CoreOptions::default()
    };
    let core = Corestore::memory().get_with(options).unwrap();
    let draft = core.draft("draft").unwrap();
    draft.append_batch(blocks(0..3)).unwrap();
    let proposal = draft.propose(Some(2)).unwrap();
    assert_eq!(proposal.head().hash, draft.tree_hash_at(2).unwrap());
    let part = |n: usize| proposal.sign(&signers[n]).unwrap();
    let commit = |parts: &[_]| {
        draft.commit(CommitOptions {
            length: Some(2),
            signature: Some(proposal.assemble(parts)),
            ..CommitOptions::default()
        })
    };
    let refused = commit(&[part(1)]);
    assert!(matches!(refused, Err(CoreError::Signature { .. })));
    assert_eq!(commit(&[part(0), part(2)]).unwrap().length, 2);
    assert_eq!((core.length(), draft.length()), (2, 3));
}

#[test]
fn a_frozen_core_takes_no_draft() {
    let [core, twin] = ["one history", "another"].map(|block| {
        let memory = ferrocore_log::storage::memory::Memory::with_root_secret([5; 32]);
        let store = Corestore::with_storage(memory, StoreOptions::default()).unwrap();
        let core = store.get_named("core").unwrap();
        core.append(block).unwrap();
        core
    });
    let draft = core.draft("draft").unwrap();
    draft.append("next").unwrap();
    let request = ProofRequest {
        upgrade: Some(UpgradeRequest {
            start: 0,
            length: 1,
        }),
        ..ProofRequest::default()
    };
    let proof = twin.prove(&request).unwrap().unwrap();
    assert!(core.check_conflict(&proof).unwrap().is_some());
    let frozen = [commit(&draft).err(), draft.propose(None).err()];
    for error in frozen {
        assert!(matches!(error, Some(CoreError::Conflict { .. })));
    }
    assert_eq!((core.length(), draft.length()), (1, 2));
}

#[test]
fn read_only_handles_have_no_drafts() {
    let core = writer(1).read_only();
    assert!(matches!(core.draft("x"), Err(CoreError::ReadOnly { .. })));
    assert!(matches!(
        core.delete_draft("x"),
        Err(CoreError::ReadOnly { .. })
    ));
}

/// Goal: bytes are where a list of the draft's blocks says, in the core's part and behind it, committed in
/// part and encrypted or not.
#[test]
fn bytes_of_a_draft_are_found() {
    for key in [None, Some(EncryptionKey::from([7; 32]))] {
        let core = match &key {
            None => writer(4),
            Some(key) => {
                let core = Corestore::memory().get_named("core").unwrap();
                let core = core.with_encryption(key);
                append(&core, 0..4);
                core
            }
        };
        let draft = core.draft("draft").unwrap();
        draft.append_batch(blocks(3..9)).unwrap();
        for committed in [None, Some(7)] {
            if let Some(length) = committed {
                let options = CommitOptions {
                    length: Some(length),
                    ..CommitOptions::default()
                };
                draft.commit(options).unwrap();
                assert_eq!((draft.base_length(), draft.length()), (7, 10));
            }
            check_bytes(&draft);
        }
        draft.truncate(2).unwrap();
        draft.append("x").unwrap();
        check_bytes(&draft);
    }
}

fn check_bytes(draft: &ferrocore_log::Draft) {
    let sizes: Vec<u64> = of_draft(draft).iter().map(|b| b.len() as u64).collect();
    let expected = (0..).zip(&sizes);
    let expected: Vec<(u64, u64)> = expected
        .flat_map(|(index, size)| (0..*size).map(move |offset| (index, offset)))
        .chain([(sizes.len() as u64, 0)])
        .collect();
    let total = sizes.iter().sum::<u64>();
    assert_eq!(draft.byte_length().unwrap(), total);
    for (byte, at) in (0..).zip(&expected) {
        // A byte at 0 is in the first block, however short that is.
        let at = if byte == 0 { (0, 0) } else { *at };
        assert_eq!(draft.seek_local(byte).unwrap(), Some(at), "byte {byte}");
        assert_eq!(ready(draft.seek(byte)).unwrap(), at);
    }
    let past = draft.seek_local(total + 1);
    assert!(matches!(past, Err(CoreError::BytePastEnd { .. })));
    for (start, end) in [(1, total), (1, 2), (5, 12), (3, 3)] {
        let (start, end) = (start.min(total), end.min(total));
        let span = draft.byte_range_local(start..end).unwrap();
        assert_eq!(ready(draft.byte_range(start..end)).unwrap(), span);
        let first = expected[start as usize];
        assert_eq!((span.blocks.start, span.skip), first);
        if end > start {
            let last = expected[end as usize - 1];
            assert_eq!((span.blocks.end, span.last_end), (last.0 + 1, last.1 + 1));
        }
    }
}
