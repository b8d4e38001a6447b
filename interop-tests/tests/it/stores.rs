//! Goal: a store of ours and programs that are not ours keep out of each other's way: what one has open the other is
//! refused, and what one leaves behind does the other no harm.
//!
//! Method: Node opens the files of ours while we have them open, and the other way round; the newer Corestore, which
//! keeps its cores in another way, is let loose on a whole store.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ferrocore_interop_tests::fcore::Fcore;
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use ferrocore_log::audit::Mode;
use ferrocore_log::{Core, CoreOptions, Corestore, StorageError, StoreError, StoreOptions};
use ferrocore_primitives::keys::{DiscoveryKey, Key};
use serde_json::json;

fn open(directory: &Path) -> Result<Corestore, StoreError> {
    Corestore::open(directory, StoreOptions::default())
}

fn core_directory(store: &Path, core: &DiscoveryKey) -> PathBuf {
    let name = core.to_hex();
    let cores = store.join("corestore/cores");
    cores.join(&name[..2]).join(&name[2..4]).join(&name)
}

/// Makes a core of two blocks and returns its key.
fn create(store: &Path) -> Key {
    let options = CoreOptions {
        name: Some("log".to_owned()),
        compat: true,
        ..CoreOptions::default()
    };
    let core = open(store).unwrap().get_with(options).unwrap();
    core.append_batch(vec!["one".into(), "two".into()]).unwrap();
    core.key()
}

/// Whether `error` says that somebody else has `file`.
fn is_locked(error: &StoreError, file: &str) -> bool {
    matches!(error, StoreError::Storage(StorageError::Locked { path, holder: None }) if path.ends_with(file))
}

/// Goal: one core of a store is refused to a hypercore 10 that was given its files alone, while we have it open, and to
/// us while that has it.
#[test]
fn a_core_that_one_side_has_open_is_refused_to_the_other() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("s");
    let mut node = Peer::start(Tree::Legacy, Role::Stores, &scratch.path().join("unused"));
    let key = create(&directory);
    let bare = json!({ "directory": core_directory(&directory, &key.discovery_key()) });

    let store = open(&directory).unwrap();
    let core = store.get(&key).unwrap();
    let call = node.begin("openBare", bare.clone());
    let refused = node.try_finish(&call).unwrap_err();
    assert!(refused.to_lowercase().contains("lock"), "{refused}");
    drop(core);

    // The store is still open; the core is not.
    let opened = node.call("openBare", bare.clone());
    assert_eq!(opened["key"], key.to_hex());
    assert_eq!(
        (&opened["length"], &opened["byteLength"]),
        (&json!(2), &json!(6))
    );
    let refused = store.get(&key).unwrap_err();
    assert!(is_locked(&refused, "oplog"), "{refused}");
    node.call("shut", json!({}));
    let core = store.get(&key).unwrap();
    assert_eq!(core.append("three").unwrap().length, 3);
    drop((core, store));
    let opened = node.call("openBare", bare);
    assert_eq!(opened["length"], 3);
}

/// Goal: whoever meets a store that Node has open learns that it may be Node.
#[test]
fn fcore_says_that_node_may_have_the_store() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("s");
    let mut node = Peer::start(Tree::Legacy, Role::Stores, &scratch.path().join("unused"));
    let key = create(&directory).to_hex();
    let open = json!({ "directory": directory.join("corestore"), "key": key });
    node.call("open", open);
    let create = Fcore::new(&directory).run(["core", "create", "other"]);
    assert_eq!(create.code, Some(7), "{}", create.stderr);
    let is_told = create.stderr.contains("another program (Node?)");
    assert!(is_told, "{}", create.stderr);
    node.call("shut", json!({}));
    let create = Fcore::new(&directory).run(["core", "create", "other"]);
    assert_eq!(create.code, Some(0), "{}", create.stderr);
}

/// Goal: Corestore 7 does not open a store of ours that has cores, and changes nothing that was there; we open it
/// beside what that left.
#[test]
fn the_newer_corestore_leaves_our_files_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("s");
    let key = create(&directory);
    for round in 0..2 {
        let before = files(&directory);
        let mut node = Peer::start(Tree::Current, Role::Stores, &scratch.path().join("unused"));
        let call = node.begin(
            "openStore",
            json!({ "directory": directory.join("corestore") }),
        );
        node.try_finish(&call).unwrap_err();
        drop(node);
        let mut left = files(&directory);
        for (path, bytes) in before {
            let is_theirs = is_left_by_node(&path);
            assert!(is_theirs || left.remove(&path) == Some(bytes), "{path:?}");
        }
        assert!(left.keys().all(|path| is_left_by_node(path)), "{left:?}");
        assert!(left.len() > 1, "it left something: {left:?}");

        let store = open(&directory).unwrap();
        assert_eq!(store.list().unwrap().len(), 1);
        let core = store.get(&key).unwrap();
        check(&core, 2 + round);
        core.append("more").unwrap();
        core.flush().unwrap();
        assert!(store.collect_garbage(false).unwrap().is_empty());
        assert!(left.keys().all(|path| directory.join(path).exists()));
    }
}

/// Whether a file of this path in the store is one that Corestore 7 makes.
fn is_left_by_node(path: &Path) -> bool {
    path.starts_with("corestore/db") || path == Path::new("corestore/CORESTORE")
}

fn check(core: &Core, length: u64) {
    assert!(core.is_writable());
    assert_eq!((core.length(), core.contiguous_length()), (length, length));
    assert_eq!(core.audit(Mode::DryRun, |_| {}).unwrap().bad, 0);
}

/// All files below `directory`, by their path in it.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => directories.push(path),
                false => {
                    let bytes = std::fs::read(&path).unwrap();
                    found.insert(path.strip_prefix(directory).unwrap().to_owned(), bytes);
                }
            }
        }
    }
    found
}
