//! The pinned npm trees: where they are, and how they get there.
//! Knows npm and its lock files. Does not know what the packages do.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use nix::fcntl::{Flock, FlockArg};

use crate::home;

/// One of the two npm trees. They are never mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tree {
    /// hypercore 11, corestore 7, hyperdrive 13.
    Current,
    /// What `drives` 2.9.1 runs on: hypercore 10, corestore 6, hyperdrive 11.
    Legacy,
    /// `ws`, and nothing else.
    WebSocket,
    /// `multicast-dns`, and nothing else.
    Multicast,
}

impl Tree {
    /// Both trees with a Hypercore, for tests that run on each.
    pub const ALL: [Tree; 2] = [Tree::Current, Tree::Legacy];

    /// The folder with `package.json`, installed or not.
    pub fn dir(self) -> PathBuf {
        home().join(match self {
            Tree::Current => "vectors",
            Tree::Legacy => "legacy",
            Tree::WebSocket => "websocket",
            Tree::Multicast => "multicast",
        })
    }

    /// The installed packages; see [`ensure`].
    pub fn node_modules(self) -> PathBuf {
        ensure(self);
        self.dir().join("node_modules")
    }
}

/// Makes sure that `tree` is installed exactly as its lock file says, and returns its folder.
///
/// The first test that needs the tree runs `npm ci`; other tests and processes wait for it.
///
/// # Panics
/// If Node or npm is missing or too old, or the installation fails: the message says what to do.
pub fn ensure(tree: Tree) -> PathBuf {
    static INSTALLED: [OnceLock<()>; 4] = [const { OnceLock::new() }; 4];
    INSTALLED[tree as usize].get_or_init(|| install_once(tree));
    tree.dir()
}

/// Makes a drive out of the folder `source` with the published `drives` command line, in the
/// Corestore `storage/corestore`, and returns the drive's key.
///
/// # Panics
/// If the command line fails.
#[track_caller]
pub fn make_drive_with_drives(source: &Path, storage: &Path) -> String {
    let touched = drives(storage, [OsStr::new("touch")]);
    let key = touched
        .split_whitespace()
        .last()
        .expect("`drives touch` prints the new key")
        .to_owned();
    drives(
        storage,
        [OsStr::new("mirror"), source.as_os_str(), OsStr::new(&key)],
    );
    key
}

#[track_caller]
fn drives<const N: usize>(storage: &Path, arguments: [&OsStr; N]) -> String {
    let script = Tree::Legacy.node_modules().join("drives/bin.js");
    let mut command = Command::new("node");
    command
        .arg(script)
        .args(arguments)
        .arg("--storage")
        .arg(storage);
    let output = command
        .output()
        .expect("Node was found when the tree was installed");
    assert!(
        output.status.success(),
        "{command:?} failed\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The oldest Node the packages run on.
const NODE_MAJOR_MIN: u32 = 20;

const WHAT_TO_INSTALL: &str = "the interop tests talk to real JavaScript peers: install Node 20 or newer \
     with npm (from nodejs.org, or `apt-get install nodejs npm`) and run the tests again";

/// Holds the lock file itself while looking and installing, so that nothing has to be left behind.
fn install_once(tree: Tree) {
    check_node_version();
    let lock_file = tree.dir().join("package-lock.json");
    let wanted = fs::read(&lock_file).expect("the tree has a lock file");
    let stamp = tree.dir().join("node_modules/.ferrocore-installed");
    let file = File::open(&lock_file).expect("the lock file was just read");
    let _held = Flock::lock(file, FlockArg::LockExclusive)
        .unwrap_or_else(|(_, errno)| panic!("cannot lock {}: {errno}", lock_file.display()));
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return;
    }
    eprintln!(
        "installing the npm packages of {} (once)",
        tree.dir().display()
    );
    let output = run("npm", ["ci", "--no-audit", "--no-fund"], tree);
    assert!(
        output.status.success(),
        "`npm ci` failed in {}: it needs the npm registry the first time\n{}",
        tree.dir().display(),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::write(&stamp, &wanted).expect("node_modules is writable after an installation");
}

fn check_node_version() {
    let output = run("node", ["--version"], Tree::Current);
    let version = String::from_utf8_lossy(&output.stdout);
    let major = version
        .trim_start_matches('v')
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    assert!(
        major >= Some(NODE_MAJOR_MIN),
        "found Node {}; {WHAT_TO_INSTALL}",
        version.trim()
    );
}

fn run<const N: usize>(program: &str, arguments: [&str; N], tree: Tree) -> Output {
    let command = Command::new(program)
        .args(arguments.map(OsStr::new))
        .current_dir(tree.dir())
        .output();
    command.unwrap_or_else(|error| match error.kind() {
        ErrorKind::NotFound => panic!("`{program}` is not on the PATH; {WHAT_TO_INSTALL}"),
        _ => panic!("cannot run `{program}`: {error}; {WHAT_TO_INSTALL}"),
    })
}
