//! Goal: encrypted blocks equal those of the JavaScript, plaintext comes back through every way
//! of reading, and nobody needs the key to keep and pass on. Method: the golden vectors, a model
//! under random operations, and three stores of which the middle one has no key.

use crate::common::{bytes, fixed32, ready, section, vector};
#[cfg(feature = "files")]
use crate::rig::{Contents, Disk, create, open};
use bytes::Bytes;
use ferrocore_log::core::HashedBlocks;
use ferrocore_log::encryption::{BlockCipher, PADDING};
use ferrocore_log::limits::BLOCK_BYTES_MAX;
use ferrocore_log::proof::{NodeRequest, ProofRequest, UpgradeRequest};
use ferrocore_log::storage::memory::Memory;
use ferrocore_log::{
    AppendOptions, CommitOptions, Core, CoreError, CoreOptions, Corestore, DraftOptions,
    Durability, EncryptionKey, StoreError, StoreOptions,
};
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::sign::KeyPair;
use proptest::prelude::*;
use serde_json::Value;

/// A writable core whose blocks are encrypted.
fn encrypted(store: &Corestore, compat: bool) -> Core {
    let options = CoreOptions {
        name: Some("secret".to_owned()),
        encryption: Some(key()),
        compat,
        ..CoreOptions::default()
    };
    store.get_with(options).unwrap()
}

fn key() -> EncryptionKey {
    EncryptionKey::from([0x66; 32])
}

#[test]
fn blocks_are_equal_in_every_mode() {
    let vectors = section("encryption");
    assert_eq!(vectors.len(), 15);
    for mode in ["default", "compat", "block-key"] {
        let keys = vector("encryption", &format!("keys-{mode}"));
        let core = Key::from(fixed32(&keys["input"]["hypercoreKey"]));
        let secret = fixed32(&keys["input"]["encryptionKey"]);
        let key = match mode {
            "block-key" => EncryptionKey::block_key(secret),
            _ => EncryptionKey::from(secret),
        };
        let cipher = BlockCipher::new(&core, &key, mode == "compat");
        // The block key is not shown; that it is the right one its use as one tells.
        let block_key = EncryptionKey::block_key(fixed32(&keys["output"]["blockKey"]));
        let same = BlockCipher::new(&core, &block_key, false);

        let prefix = format!("block-{mode}-");
        let of_mode = |v: &&Value| v["id"].as_str().unwrap().starts_with(&prefix);
        let blocks: Vec<_> = vectors.iter().filter(of_mode).collect();
        assert_eq!(blocks.len(), 4, "{mode}");
        for v in blocks {
            let (index, fork) = (number(&v["input"]["index"]), number(&v["input"]["fork"]));
            let plaintext = bytes(&v["input"]["plaintext"]);
            let stored = bytes(&v["output"]["block"]);
            assert_eq!(cipher.encrypt(index, fork, &plaintext), stored);
            assert_eq!(same.encrypt(index, fork, &plaintext), stored);
            let opened = cipher.decrypt(index, stored.into()).unwrap();
            assert_eq!(opened, plaintext);
        }
    }
}

#[test]
fn a_whole_core_is_equal() {
    let v = vector("end-to-end", "encrypted");
    let (secret, output) = (fixed32(&v["input"]["encryptionKey"]), &v["output"]);
    let options = CoreOptions {
        key_pair: Some(KeyPair::from_seed(&[1; 32])),
        encryption: Some(EncryptionKey::from(secret)),
        ..CoreOptions::default()
    };
    let core = Corestore::memory().get_with(options).unwrap();
    assert_eq!(core.key().as_bytes(), &fixed32(&output["key"]));
    let blocks = ["hello", "", "world"].map(Bytes::from);
    core.append_batch(blocks.to_vec()).unwrap();
    core.truncate(1, None).unwrap();
    let appended = core.append("again").unwrap();

    assert_eq!(appended.length, number(&output["length"]));
    assert_eq!(appended.fork, number(&output["fork"]));
    assert_eq!(appended.byte_length, number(&output["byteLengthPlain"]));
    assert_eq!(core.byte_length(), appended.byte_length);
    assert_eq!(core.tree_hash(), crate::common::hash(&output["treeHash"]));
    for (index, raw) in (0..).zip(output["raw"].as_array().unwrap()) {
        assert_eq!(core.get_raw(index).unwrap().unwrap(), bytes(raw));
    }
    assert_eq!(ready(core.get(1)).unwrap(), "again");
}

#[test]
fn a_store_without_the_key_passes_on_what_it_cannot_read() {
    for compat in [false, true] {
        let (writers, middle, readers) = (
            Corestore::memory(),
            Corestore::memory(),
            Corestore::memory(),
        );
        let written = encrypted(&writers, compat);
        let blocks = ["one", "", "three"].map(Bytes::from);
        written.append_batch(blocks.to_vec()).unwrap();
        assert_eq!(written.is_compat(), compat);

        let blind = middle.get(&written.key()).unwrap();
        copy(&written, &blind);
        // Opened before anything is known of the core: its kind comes with the first proof.
        let options = CoreOptions {
            key: Some(written.key()),
            encryption: Some(key()),
            ..CoreOptions::default()
        };
        let read = readers.get_with(options).unwrap();
        assert_eq!(read.byte_length(), 0);
        copy(&blind, &read);

        assert_eq!(read.byte_length(), 8);
        for (index, block) in (0..).zip(&blocks) {
            let seen = ready(blind.get(index)).unwrap();
            assert_eq!(seen.len(), PADDING + block.len());
            assert!(block.is_empty() || seen[PADDING..] != block[..], "{index}");
            assert_eq!(ready(read.get(index)).unwrap(), block);
        }
        // Nor does a wrong key keep anybody from passing on.
        let wrong = blind.with_encryption(&WRONG.into());
        let last = Corestore::memory().get(&written.key()).unwrap();
        copy(&wrong, &last.with_encryption(&WRONG.into()));
        let last = last.with_encryption(&key());
        assert_eq!(ready(last.get(2)).unwrap(), "three");
    }
}

/// A key that encrypts nothing here.
const WRONG: [u8; 32] = [1; 32];

/// A store of the same cores in every run: so that no run has a wrong key that fits by chance.
fn fixed() -> Corestore {
    let memory = Memory::with_root_secret([3; 32]);
    Corestore::with_storage(memory, StoreOptions::default()).unwrap()
}

#[track_caller]
fn assert_wrong<T: std::fmt::Debug>(read: Result<T, CoreError>) {
    assert!(matches!(read, Err(CoreError::WrongKey { .. })), "{read:?}");
}

/// Goal: a wrong key is told, however the block is read, and under whichever fork it was written; the right one
/// reads on. Method: cores of both kinds with blocks of several forks, the last of them larger than forks are.
#[test]
fn a_wrong_key_is_told_from_the_right_one() {
    for compat in [false, true] {
        let core = encrypted(&Corestore::memory(), compat);
        let forks = [1, 7, 1 << 31, (1 << 53) - 2];
        for (length, fork) in (0..).zip(forks) {
            core.append_batch(vec!["keep".into(), "regret".into()])
                .unwrap();
            core.truncate(length + 1, Some(fork)).unwrap();
        }
        core.append("last").unwrap();
        assert_eq!(core.length(), 5);
        let draft = core.draft("draft").unwrap();
        draft.append("drafted").unwrap();
        for index in 0..4 {
            assert_eq!(core.get_local(index).unwrap().unwrap(), "keep");
        }
        assert_eq!(core.get_local(4).unwrap().unwrap(), "last");
        assert_eq!(core.snapshot().get_local(4).unwrap().unwrap(), "last");
        assert_eq!(draft.get_local(5).unwrap().unwrap(), "drafted");

        // At a fork as large as this more keys fit, so wrong ones are tried on another core.
        let early = encrypted(&fixed(), compat);
        early.append_batch(vec!["one".into(), "".into()]).unwrap();
        let draft = early.draft("draft").unwrap();
        draft.append("drafted").unwrap();
        let of_another = key().of_core(&Key::from([7; 32]), compat);
        for wrong in [WRONG.into(), EncryptionKey::block_key(WRONG), of_another] {
            let wrong = early.with_encryption(&wrong);
            for index in 0..2 {
                assert_wrong(wrong.get_local(index));
                assert_wrong(ready(wrong.get(index)));
                assert_wrong(wrong.snapshot().get_local(index));
            }
            assert_wrong(wrong.draft("draft").unwrap().get_local(2));
            assert_eq!(wrong.get_raw(0).unwrap(), early.get_raw(0).unwrap());
        }
    }
}

/// Goal: what is appended can be read with the key that reads what was there before, whichever way it comes; a key
/// that does not is told, and nothing is appended. Method: each way, through a handle with another key, on a core
/// that was just opened and on one that knows its key already.
#[test]
fn nothing_is_appended_with_a_wrong_key() {
    for (compat, durability) in [
        (false, Durability::Buffered),
        (true, Durability::Buffered),
        (false, Durability::Sync),
    ] {
        let memory = Memory::with_root_secret([3; 32]);
        let store = Corestore::with_storage(memory, durability.into()).unwrap();
        let core = encrypted(&store, compat);
        core.append_batch(vec!["one".into(), "".into()]).unwrap();
        drop(core);
        for knows_its_key in [false, true] {
            for way in 0..WAYS {
                let core = encrypted(&store, compat); // opened again: nobody has it any more
                let length = core.length();
                if knows_its_key {
                    core.append_batch(Vec::new()).unwrap();
                }
                let wrong = core.with_encryption(&WRONG.into());
                assert_wrong(append(&store, &wrong, way));
                assert_eq!(core.length(), length, "way {way}");
                assert_eq!(append(&store, &core, way).unwrap(), length + 1, "way {way}");
                assert_wrong(append(&store, &wrong, way));
                for index in 0..core.length() {
                    core.get_local(index).unwrap().unwrap();
                }
            }
        }
    }
}

const WAYS: usize = 8;

/// Appends a block in the way of this number; returns how long the log is then.
fn append(store: &Corestore, core: &Core, way: usize) -> Result<u64, CoreError> {
    let block = || Bytes::from("more");
    match way {
        0 => Ok(core.append(block())?.length),
        1 => Ok(core
            .append_hashed(HashedBlocks::hash(vec![block()]))?
            .length),
        2 => Ok(core.append_async(block()).wait()?.length),
        3 => {
            let at = AppendOptions::at(core.fork(), core.length());
            Ok(core.append_with(vec![block()], at)?.length)
        }
        4 => {
            let mut sink = core.sink();
            sink.push(block())?;
            sink.flush()?;
            Ok(core.length())
        }
        5 => {
            let mut batch = store.batch();
            batch.append(core, block()).unwrap();
            match batch.commit() {
                Err(StoreError::Core(error)) => Err(error),
                committed => Ok(committed.unwrap()[0].1.length),
            }
        }
        6 => {
            let anew = DraftOptions {
                overwrite: true,
                ..DraftOptions::default()
            };
            let draft = core.draft_with("draft", anew)?;
            draft.append(block())?;
            Ok(draft.commit(CommitOptions::default())?.length)
        }
        _ => {
            core.propose(vec![block()])?;
            Ok(core.append(block())?.length)
        }
    }
}

/// Goal: a key is tried on what is appended with it, too, before anybody has committed that.
#[test]
fn a_batch_has_one_key_for_a_core() {
    let store = fixed();
    let core = encrypted(&store, false);
    let wrong = core.with_encryption(&WRONG.into());
    let mut batch = store.batch();
    batch.append(&core, "first").unwrap();
    batch.append(&wrong, "second").unwrap();
    let Err(StoreError::Core(error)) = batch.commit() else {
        panic!("committed");
    };
    assert_wrong::<()>(Err(error));
    assert_eq!(core.length(), 0);

    let draft = core.draft("draft").unwrap();
    draft.append("first").unwrap();
    draft.append("second").unwrap();
    assert_wrong(wrong.draft("draft").unwrap().append("third"));
    draft.truncate(0).unwrap();
    wrong.draft("draft").unwrap().append("first").unwrap();
    assert_wrong(draft.append("second"));
}

/// Goal: which key fits says what is in the log now. Method: a log that was emptied, one that has no block here, and
/// one that was never encrypted.
#[test]
fn a_key_fits_what_is_here() {
    let core = encrypted(&fixed(), false);
    let other = core.with_encryption(&WRONG.into());
    core.append_batch(vec!["one".into(), "two".into()]).unwrap();
    core.append("three").unwrap();
    core.truncate(0, None).unwrap();
    other.append("begun anew").unwrap();
    assert_wrong(core.append("again"));
    core.clear(0..1).unwrap();
    core.append("nothing is here that tells").unwrap();
    assert_wrong(other.append("again"));

    let plain = fixed().get_named("plain").unwrap();
    plain.append("short").unwrap();
    let error = plain.with_encryption(&key()).append("hidden");
    assert!(matches!(
        error,
        Err(CoreError::NotEncrypted { index: 0, .. })
    ));
    plain.append("as long as a blinded fork").unwrap();
    assert_wrong(plain.with_encryption(&key()).append("hidden"));
}

/// Goal: a damaged block says nothing about keys; a log that has no other block takes none that could be wrong.
#[cfg(feature = "files")]
#[test]
fn a_key_is_tried_on_a_block_that_is_whole() {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    let core = core.with_encryption(&key());
    core.append_batch(vec!["one".into(), "two".into()]).unwrap();
    core.flush().unwrap();
    let damaged = |places: &[usize]| {
        let mut files = disk.contents();
        let data = files.get_mut("data").unwrap();
        data.edit(|data| places.iter().for_each(|at| data[*at] ^= 1));
        open(&Disk::new(files), Durability::Buffered)
            .unwrap()
            .unwrap()
    };
    let last = damaged(&[PADDING + 3]);
    assert_wrong(last.with_encryption(&WRONG.into()).append("three"));
    last.with_encryption(&key()).append("three").unwrap();
    let both = damaged(&[0, PADDING + 3]);
    for key in [key(), WRONG.into()] {
        let error = both.with_encryption(&key).append("three");
        assert!(matches!(
            error,
            Err(CoreError::CorruptBlock { index: 1, .. })
        ));
    }
}

/// Goal: a copy of a pinned beginning, which is at fork 0 itself, is read with its source's key, whatever
/// fork its blocks were written under.
#[test]
fn static_copies_know_their_key() {
    for fork in [None, Some(3), Some(1 << 40)] {
        let store = fixed();
        let source = encrypted(&store, false);
        source.append("regret").unwrap();
        if let Some(fork) = fork {
            source.truncate(0, Some(fork)).unwrap();
            source.append("kept").unwrap();
        }
        let copy = store.staticify(&source).unwrap();
        assert_eq!(copy.fork(), 0);
        let block_key = key().of_core(&source.key(), false);
        let read = copy.with_encryption(&block_key).get_local(0);
        assert_eq!(read.unwrap(), source.get_local(0).unwrap());
        // The source's key itself is not what its blocks are encrypted with.
        for wrong in [key(), WRONG.into(), EncryptionKey::block_key(WRONG)] {
            assert_wrong(copy.with_encryption(&wrong).get_local(0));
        }
    }
}

/// Brings everything that `from` has to `to`, as replication does.
fn copy(from: &Core, to: &Core) {
    for index in 0..from.length() {
        let request = ProofRequest {
            block: Some(NodeRequest {
                index,
                nodes: to.missing_nodes(2 * index).unwrap(),
            }),
            upgrade: (to.length() == 0).then_some(UpgradeRequest {
                start: 0,
                length: from.length(),
            }),
            manifest: to.manifest().is_none(),
            ..ProofRequest::default()
        };
        to.accept(from.prove(&request).unwrap().unwrap()).unwrap();
    }
}

#[test]
fn padding_counts_towards_the_largest_block() {
    let core = encrypted(&Corestore::memory(), false);
    let error = core.append(vec![0; BLOCK_BYTES_MAX - PADDING + 1]);
    assert!(matches!(error, Err(CoreError::BlockTooLarge { .. })));
    core.append(vec![0; BLOCK_BYTES_MAX - PADDING]).unwrap();
    assert_eq!(core.byte_length(), (BLOCK_BYTES_MAX - PADDING) as u64);
}

#[test]
fn blocks_that_were_never_encrypted_are_an_error() {
    let plain = fixed().get_named("plain").unwrap();
    plain.append("short").unwrap();
    let error = plain.with_encryption(&key()).get_local(0);
    assert!(matches!(
        error,
        Err(CoreError::NotEncrypted { index: 0, .. })
    ));
    plain.append("as long as a blinded fork").unwrap();
    assert_wrong(plain.with_encryption(&key()).get_local(1));
}

#[test]
fn a_reader_cannot_append() {
    let key_of_others = Key::from([7; 32]);
    let core = Corestore::memory().get(&key_of_others).unwrap();
    let error = core.with_encryption(&key()).append("hello");
    assert!(matches!(error, Err(CoreError::NotWritable { .. })));
}

#[derive(Debug, Clone)]
enum Op {
    Append(Vec<Vec<u8>>),
    Truncate(prop::sample::Index),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let block = prop::collection::vec(any::<u8>(), 0..80);
    let op = prop_oneof![
        3 => prop::collection::vec(block, 1..5).prop_map(Op::Append),
        1 => any::<prop::sample::Index>().prop_map(Op::Truncate),
    ];
    prop::collection::vec(op, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Goal: with the key, an encrypted core is like any other. Method: a plain one beside it.
    #[test]
    fn an_encrypted_core_is_like_a_plain_one(ops in ops(), compat: bool) {
        let core = encrypted(&Corestore::memory(), compat);
        let plain = Corestore::memory().get_named("plain").unwrap();
        for op in ops {
            let (ours, theirs) = match op {
                Op::Append(blocks) => {
                    let blocks: Vec<_> = blocks.into_iter().map(Bytes::from).collect();
                    (core.append_batch(blocks.clone()), plain.append_batch(blocks))
                }
                Op::Truncate(at) => {
                    let length = at.index(plain.length() as usize + 1) as u64;
                    (core.truncate(length, None), plain.truncate(length, None))
                }
            };
            assert_eq!(ours.unwrap(), theirs.unwrap());
            assert_same(&core, &plain);
        }
    }
}

/// Compares lengths, blocks, and the place of every byte.
fn assert_same(core: &Core, plain: &Core) {
    assert_eq!(core.length(), plain.length());
    assert_eq!(core.byte_length(), plain.byte_length());
    for index in 0..plain.length() {
        let (block, expected) = (core.get_local(index), plain.get_local(index));
        assert_eq!(block.unwrap(), expected.unwrap());
    }
    for byte in 0..=plain.byte_length() {
        let (place, expected) = (core.seek_local(byte), plain.seek_local(byte));
        assert_eq!(place.unwrap(), expected.unwrap());
    }
    let past = core.seek_local(plain.byte_length() + 1);
    assert!(matches!(past, Err(CoreError::BytePastEnd { .. })));
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}
