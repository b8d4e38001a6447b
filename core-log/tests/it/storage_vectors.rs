//! Goal: the files are those of hypercore 10. Method: its recorded directories open to the state
//! they were in, and the same history written here gives the same bytes.
#![cfg(feature = "files")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::common::{bytes, section, vector};
use ferrocore_log::storage::files::block_file::{BlockFile, OsFile};
use ferrocore_log::storage::files::{CoreFiles, FileCore};
use ferrocore_log::storage::{CoreHeader, Head, StorageError};
use ferrocore_log::{Core, Durability, Manifest};
use ferrocore_primitives::keys::{DiscoveryKey, Key};
use ferrocore_primitives::sign::KeyPair;
use serde_json::Value;
use tempfile::TempDir;

const FILES: [&str; 5] = ["oplog", "tree", "bitfield", "data", "header"];

fn core_files(directory: &Path) -> CoreFiles {
    let file = |name| Box::new(OsFile::new(directory.join(name))) as Box<dyn BlockFile>;
    CoreFiles {
        directory: directory.to_owned(),
        oplog: file("oplog"),
        tree: file("tree"),
        bitfield: file("bitfield"),
        data: file("data"),
        header: file("header"),
    }
}

/// The bytes of a recorded file: its length and the runs that are not zero.
fn unpack(file: &Value) -> Option<Vec<u8>> {
    let length = file["length"].as_u64()?;
    let mut out = vec![0; length as usize];
    for run in file["runs"].as_array().unwrap() {
        let at = run["offset"].as_u64().unwrap() as usize;
        let run = bytes(&run["bytes"]);
        out[at..at + run.len()].copy_from_slice(&run);
    }
    Some(out)
}

fn files_of(stage: &Value) -> BTreeMap<&'static str, Option<Vec<u8>>> {
    let output = &stage["output"];
    let files = output.get("files").unwrap_or(output);
    FILES.map(|name| (name, unpack(&files[name]))).into()
}

fn restore(stage: &Value) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files_of(stage) {
        if let Some(content) = content {
            fs::write(directory.path().join(name), content).unwrap();
        }
    }
    directory
}

fn key_pair() -> KeyPair {
    KeyPair::from_seed(&[1; 32])
}

fn header(kind: &str) -> CoreHeader {
    let public_key = key_pair().public_key();
    let manifest = Manifest::single(public_key);
    let key = match kind {
        "compat" => Key::from(*public_key.as_bytes()),
        _ => manifest.key(),
    };
    CoreHeader {
        key,
        manifest: Some(manifest),
        key_pair: Some(key_pair()),
        user_data: BTreeMap::new(),
        head: Head::empty(),
    }
}

fn open(directory: &Path, core: &DiscoveryKey) -> Result<Option<Core>, StorageError> {
    let opened = FileCore::open(core, core_files(directory), Durability::Buffered)?;
    Ok(opened.map(|opened| Core::open(opened, None, Durability::Buffered).unwrap()))
}

/// What the core holds: blocks, `None` where one was cleared.
fn blocks(core: &Core) -> Vec<Option<String>> {
    let read = |i| core.get_local(i).unwrap();
    let text = |block: bytes::Bytes| String::from_utf8(block.to_vec()).unwrap();
    (0..core.length()).map(|i| read(i).map(text)).collect()
}

const SIX: [&str; 6] = ["a", "bc", "def", "ghij", "k", "lm"];

#[test]
fn every_recorded_stage_opens_to_its_state() {
    let mut seen = 0;
    for stage in section("v10-files") {
        let id = stage["id"].as_str().unwrap();
        let Some((kind, what)) = id.rsplit_once('-') else {
            continue;
        };
        let (expected, fork): (Vec<Option<&str>>, u64) = match what {
            "created" => (vec![], 0),
            "one" => (SIX[..1].iter().copied().map(Some).collect(), 0),
            "unflushed" => (SIX[..3].iter().copied().map(Some).collect(), 0),
            "six" => (SIX.iter().copied().map(Some).collect(), 0),
            "truncated" => (SIX[..3].iter().copied().map(Some).collect(), 1),
            "cleared" => (vec![None, Some("bc"), Some("def"), Some("Z")], 1),
            _ => continue,
        };
        let kind = kind.rsplit_once('-').unwrap().0;
        let directory = restore(&stage);
        let key = header(kind).key;
        for round in ["as recorded", "after our flush"] {
            let core = open(directory.path(), &key.discovery_key()).unwrap();
            let core = core.unwrap();
            assert_eq!(core.key(), key, "{id} {round}");
            assert_eq!(core.fork(), fork, "{id} {round}");
            assert_eq!(core.is_compat(), kind == "compat", "{id} {round}");
            assert!(
                core.is_writable(),
                "{id} {round}: the pair is in the header"
            );
            let expected: Vec<_> = expected.iter().map(|b| b.map(str::to_owned)).collect();
            assert_eq!(blocks(&core), expected, "{id} {round}");
            if what == "cleared" {
                check_state(&core, &stage["output"]["state"]);
            }
            core.flush().unwrap();
        }
        seen += 1;
    }
    assert_eq!(seen, 12, "six stages of two kinds");
}

fn check_state(core: &Core, state: &Value) {
    assert_eq!(core.length(), state["length"].as_u64().unwrap());
    assert_eq!(core.byte_length(), state["byteLength"].as_u64().unwrap());
    let contiguous_length = state["contiguousLength"].as_u64().unwrap();
    assert_eq!(core.contiguous_length(), contiguous_length);
    assert_eq!(core.tree_hash().as_bytes()[..], bytes(&state["treeHash"]));
}

/// The oplog is compared too until the truncate, whose hint for JavaScript is not written here. From then on JavaScript's `data`
/// keeps what was cut off.
#[test]
fn the_same_history_gives_the_same_bytes() {
    for kind in ["compat", "manifest-v1"] {
        let directory = tempfile::tempdir().unwrap();
        let compare_cut = |stage: &str, names: &[&str], data_bytes: usize| {
            let mut expected = files_of(&vector("v10-files", &format!("{kind}-{stage}")));
            let data = expected.get_mut("data").and_then(Option::as_mut);
            data.into_iter().for_each(|data| data.truncate(data_bytes));
            for name in names {
                let found = fs::read(directory.path().join(name)).ok();
                assert_same(&found, &expected[name], &format!("{kind} {stage} {name}"));
            }
        };
        let compare = |stage, names: &[&str]| compare_cut(stage, names, usize::MAX);
        let files = core_files(directory.path());
        let opened = FileCore::create(files, header(kind), Durability::Buffered).unwrap();
        let core = Core::open(opened, None, Durability::Buffered).unwrap();
        compare("0-created", &FILES);
        core.append("a").unwrap();
        core.flush().unwrap();
        compare("1-one", &FILES);
        let pair = ["bc", "def"].map(Into::into).to_vec();
        core.append_batch(pair).unwrap();
        compare("2-unflushed", &FILES);
        for block in ["ghij", "k", "lm"] {
            core.append(block).unwrap();
        }
        core.flush().unwrap();
        compare("3-six", &FILES);
        core.append("n").unwrap();
        core.truncate(3, None).unwrap();
        let names = ["tree", "bitfield", "data"];
        compare_cut("4-truncated", &names, 6);
        core.append("Z").unwrap();
        core.clear(0..1).unwrap();
        compare_cut("5-cleared", &names, 7);
    }
}

fn assert_same(found: &Option<Vec<u8>>, expected: &Option<Vec<u8>>, what: &str) {
    let len = |file: &Option<Vec<u8>>| file.as_ref().map(Vec::len);
    assert_eq!(len(found), len(expected), "{what}");
    let bytes = found.iter().flatten().zip(expected.iter().flatten());
    let difference = bytes.enumerate().find(|(_, (a, b))| a != b);
    assert_eq!(difference, None, "{what}");
}

#[test]
fn a_long_header_is_found_in_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let stage = vector("v10-files", "big-header");
    for name in ["oplog", "header"] {
        fs::write(directory.path().join(name), bytes(&stage["output"][name])).unwrap();
    }
    // The vector leaves the other files out: this is what an append of "a" makes them.
    let one = files_of(&vector("v10-files", "compat-1-one"));
    for name in ["tree", "bitfield", "data"] {
        fs::write(directory.path().join(name), one[name].as_ref().unwrap()).unwrap();
    }
    let payload = bytes(&stage["output"]["header"]);
    let key = Key::try_from(&payload[2..34]).unwrap();
    let core = open(directory.path(), &key.discovery_key());
    let core = core.unwrap().unwrap();
    assert_eq!(core.user_data("big"), Some(vec![0x42; 5000]));
    assert_eq!(blocks(&core), [Some("a".to_owned())]);
}

/// Goal: a header that outgrows its slot, changes there and shrinks again is found every time.
/// (That none overwrites the one in force is for the crash test.)
#[test]
fn headers_grow_and_shrink() {
    let directory = tempfile::tempdir().unwrap();
    let discovery_key = header("manifest-v1").key.discovery_key();
    let files = core_files(directory.path());
    let opened = FileCore::create(files, header("manifest-v1"), Durability::Buffered).unwrap();
    drop(opened);
    for (round, size) in [10, 5_000, 9_000, 3_000, 20_000, 0, 6_000, 1]
        .into_iter()
        .enumerate()
    {
        let core = open(directory.path(), &discovery_key).unwrap().unwrap();
        let value = vec![round as u8; size];
        core.set_user_data("big", Some(&value)).unwrap();
        core.flush().unwrap();
        drop(core);
        let core = open(directory.path(), &discovery_key).unwrap().unwrap();
        assert_eq!(core.user_data("big"), Some(value).filter(|_| size > 0));
    }
    let core = open(directory.path(), &discovery_key).unwrap().unwrap();
    let too_large = vec![0; 17 << 20];
    let error = core.set_user_data("big", Some(&too_large)).unwrap_err();
    assert!(error.to_string().contains("does not fit"), "{error}");
    core.append("still usable").unwrap();
}

/// Goal: a manifest as long as can be read back is kept, a longer one refused before anything is
/// written.
#[test]
fn a_manifest_is_as_long_as_can_be_read_back() {
    for (bytes, fits) in [(50 << 20, true), (65 << 20, false)] {
        let directory = tempfile::tempdir().unwrap();
        let manifest = Manifest {
            version: 2,
            user_data: Some(vec![7; bytes]),
            ..Manifest::single(key_pair().public_key())
        };
        let key = manifest.key();
        let long = CoreHeader {
            key,
            manifest: Some(manifest),
            ..header("manifest-v1")
        };
        let created = FileCore::create(core_files(directory.path()), long, Durability::Buffered);
        let Ok(created) = created else {
            assert!(!fits);
            assert!(!directory.path().join("oplog").exists());
            continue;
        };
        assert!(fits);
        drop(created);
        let core = open(directory.path(), &key.discovery_key())
            .unwrap()
            .unwrap();
        core.set_user_data("key", Some(&vec![1; 10 << 20])).unwrap();
        let error = core.set_user_data("other", Some(&vec![1; 5 << 20]));
        assert!(error.unwrap_err().to_string().contains("does not fit"));
        core.flush().unwrap();
        drop(core);
        let core = open(directory.path(), &key.discovery_key())
            .unwrap()
            .unwrap();
        assert_eq!(core.manifest().unwrap().user_data.unwrap().len(), bytes);
        assert_eq!(core.user_data("key").unwrap().len(), 10 << 20);
    }
}

/// Goal: with both headers in the file `header`, the newer one counts; damage of where it is, or
/// of what is there, is told, and never the older one taken for it.
#[test]
fn a_damaged_long_header_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let core = header("manifest-v1").key.discovery_key();
    let files = core_files(directory.path());
    drop(FileCore::create(files, header("manifest-v1"), Durability::Buffered).unwrap());
    for size in [6_000, 7_000, 8_000] {
        let core = open(directory.path(), &core).unwrap().unwrap();
        core.set_user_data("big", Some(&vec![size as u8; size]))
            .unwrap();
        core.flush().unwrap();
    }
    let (oplog, long) = (
        directory.path().join("oplog"),
        directory.path().join("header"),
    );
    let (oplog_bytes, long_bytes) = (fs::read(&oplog).unwrap(), fs::read(&long).unwrap());
    for slot in [0, 4096] {
        assert_eq!(
            oplog_bytes[slot + 8..slot + 10],
            [1, 1],
            "both are external"
        );
    }
    let seen = || open(directory.path(), &core).map(|core| core.unwrap().user_data("big"));
    let newest = Some(vec![8_000_usize as u8; 8_000]);
    assert_eq!(seen().unwrap(), newest);

    let reset = || {
        fs::write(&oplog, &oplog_bytes).unwrap();
        fs::write(&long, &long_bytes).unwrap();
    };
    for cut in [0, 1, 4096, long_bytes.len() - 1] {
        fs::write(&long, &long_bytes[..cut]).unwrap();
        match seen() {
            Ok(found) => assert_eq!(found, newest),
            Err(error) => assert!(matches!(
                error,
                StorageError::Corrupt { part: "header", .. }
            )),
        }
    }
    fs::remove_file(&long).unwrap();
    assert!(matches!(
        seen(),
        Err(StorageError::Corrupt { part: "header", .. })
    ));
    reset();
    // Wrong places under right checksums, in both slots.
    for (start, length) in [
        (0u64, 0u64),
        (1, 8_000),
        (0, 1 << 62),
        (u64::MAX, 2),
        (1 << 50, 9),
    ] {
        let mut bytes = oplog_bytes.clone();
        for slot in [0, 4096] {
            let mut payload = vec![1, 1];
            for number in [start, length] {
                payload.push(0xff);
                payload.extend(number.to_le_bytes());
            }
            let info = (payload.len() as u32) << 2 | u32::from(bytes[slot + 4] & 1);
            let checked = [&info.to_le_bytes()[..], &payload].concat();
            let checksum = crc32fast::hash(&checked).to_le_bytes();
            let record = [&checksum[..], &checked].concat();
            bytes[slot..slot + record.len()].copy_from_slice(&record);
        }
        fs::write(&oplog, &bytes).unwrap();
        let error = seen().unwrap_err();
        assert!(
            matches!(error, StorageError::Corrupt { .. }),
            "{start} {length}: {error}"
        );
    }
}
