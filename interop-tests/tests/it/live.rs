//! `fcore` and live peers, each in a process of its own, over TCP on this machine.
//!
//! Method throughout: the folder at one end equals the folder at the other, judged from outside;
//! the middle of a transfer is a byte count at a [`Tap`](ferrocore_interop_tests::tap::Tap), never a pause.
#![cfg(unix)]

mod bad_input;
mod cores;
mod encrypted;
mod fcore_reads;
mod live_changes;
mod node_reads;
mod odd_folders;
mod resume;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ferrocore_interop_tests::fcore::{Fcore, Run};
use ferrocore_interop_tests::folder;
use ferrocore_interop_tests::node::Tree;
use ferrocore_interop_tests::peer::{Peer, Role};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The folders of one test, gone at its end.
struct Stage {
    scratch: TempDir,
}

impl Stage {
    fn new() -> Self {
        Self {
            scratch: tempfile::tempdir().expect("the temporary folder is writable"),
        }
    }

    /// A path of this name, not made yet.
    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// `fcore` with a store of this name.
    fn fcore(&self, name: &str) -> Fcore {
        Fcore::new(self.path(name))
    }

    /// A Node drive with a store of this name, opened by key or as the store's own.
    fn node_drive(&self, tree: Tree, name: &str, key: Option<&str>) -> (Peer, Value) {
        let mut peer = Peer::start(tree, Role::Drive, &self.path(name));
        let opened = peer.call("open", json!({ "key": key }));
        (peer, opened)
    }

    /// Several thousand real files: both npm trees without their largest files, and odd names.
    fn real_files(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        for tree in Tree::ALL {
            folder::copy(
                &tree.node_modules(),
                &dir.join(format!("{tree:?}")),
                REAL_FILE_BYTES_MAX,
            );
        }
        folder::write_odd_names(&dir.join("odd"));
        dir
    }

    /// A dozen files of every kind.
    fn few_files(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        folder::write_odd_names(&dir);
        folder::write_random(&dir.join("several blocks"), 300_000, 11);
        dir
    }
}

/// A running `fcore share`, and where and what it serves.
struct Shared {
    run: Run,
    port: u16,
    key: String,
    version: u64,
}

impl Shared {
    /// Shares `dir` from the store of `fcore`, reachable once this returns.
    #[track_caller]
    fn start(fcore: &Fcore, dir: &Path) -> Self {
        Self::start_at(fcore, dir, 0)
    }

    /// The same on this port.
    #[track_caller]
    fn start_at(fcore: &Fcore, dir: &Path, port: u16) -> Self {
        let mut run = fcore.start([
            &os("share"),
            dir.as_os_str(),
            &os("--listen"),
            &os(format!("127.0.0.1:{port}")),
        ]);
        let (port, ready) = run.wait_ready();
        Self {
            run,
            port,
            key: text(&ready["key"]),
            version: number(&ready["version"]),
        }
    }
}

/// The arguments of `fcore get KEY DEST` from the peer on this port, with more behind.
fn get(key: &str, dest: &Path, port: u16, more: &[&str]) -> Vec<OsString> {
    let mut arguments = vec![
        os("get"),
        os(key),
        dest.into(),
        os("--peer"),
        format!("127.0.0.1:{port}").into(),
    ];
    arguments.extend(more.iter().map(os));
    arguments
}

fn os(text: impl AsRef<str>) -> OsString {
    text.as_ref().into()
}

#[track_caller]
fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not text: {value}"))
        .to_owned()
}

#[track_caller]
fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("not a count: {value}"))
}

/// Leaves out the native libraries, which are most of the bytes of the npm trees.
const REAL_FILE_BYTES_MAX: u64 = 256 * 1024;
