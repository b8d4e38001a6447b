//! Folders for the tests: real and odd files to transfer, and snapshots to compare.
//! Knows the file system. Does not know drives.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What a drive carries of a folder: files with content and executable bit, and links. Empty
/// folders, times, owners and other mode bits are not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    entries: BTreeMap<PathBuf, Entry>,
}

/// One file or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file: size in bytes, BLAKE2b-256 of its content, executable by its owner.
    File {
        /// Size in bytes.
        size: u64,
        /// BLAKE2b-256 of the content, in hex.
        hash: String,
        /// Whether the owner may execute it.
        executable: bool,
    },
    /// A symbolic link.
    Link {
        /// Where it points, as stored.
        target: PathBuf,
    },
}

impl Snapshot {
    /// Reads everything below `dir`.
    pub fn of(dir: &Path) -> Self {
        let mut entries = BTreeMap::new();
        walk(dir, Path::new(""), &mut |relative, metadata| {
            let path = dir.join(relative);
            let entry = if metadata.is_symlink() {
                link_entry(&path)
            } else {
                file_entry(&path, metadata)
            };
            entries.insert(relative.to_owned(), entry);
        });
        Self { entries }
    }

    /// Files and links, by path.
    pub fn entries(&self) -> &BTreeMap<PathBuf, Entry> {
        &self.entries
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        let size = |entry: &Entry| {
            if let Entry::File { size, .. } = entry {
                *size
            } else {
                0
            }
        };
        self.entries.values().map(size).sum()
    }

    /// The same without the paths that `drop` picks, such as names a drive cannot carry.
    pub fn without(mut self, drop: impl Fn(&Path) -> bool) -> Self {
        self.entries.retain(|path, _| !drop(path));
        self
    }

    /// Asserts that `other` has the same files and links, listing the first differences.
    #[track_caller]
    pub fn assert_same(&self, other: &Snapshot) {
        let differences = self.differences(other);
        assert!(
            differences.is_empty(),
            "{} differences, the first:\n{}",
            differences.len(),
            listing(&differences)
        );
    }

    fn differences(&self, other: &Snapshot) -> Vec<String> {
        let mine = self
            .entries
            .iter()
            .filter_map(|(path, entry)| match other.entries.get(path) {
                None => Some(format!("missing: {path:?}")),
                Some(theirs) if theirs != entry => {
                    Some(format!("{path:?}: {entry:?} became {theirs:?}"))
                }
                Some(_) => None,
            });
        let added = other
            .entries
            .keys()
            .filter(|path| !self.entries.contains_key(*path));
        mine.chain(added.map(|path| format!("added: {path:?}")))
            .collect()
    }
}

/// Copies the files of at most `size_max` bytes below `from`, with links and executable bits.
pub fn copy(from: &Path, to: &Path, size_max: u64) {
    walk(from, Path::new(""), &mut |relative, metadata| {
        let target = to.join(relative);
        if metadata.len() > size_max {
            return;
        }
        fs::create_dir_all(target.parent().expect("a joined path has a parent"))
            .expect("the copy is writable");
        if metadata.is_symlink() {
            symlink(
                fs::read_link(from.join(relative)).expect("a link can be read"),
                &target,
            )
            .expect("a new link");
        } else {
            fs::copy(from.join(relative), &target).expect("a file can be copied");
        }
    });
}

/// Writes files whose names are awkward but must travel unharmed: spaces, Unicode in both
/// normal forms, characters that mean something in URLs, shells and globs, newlines, depth;
/// besides an empty file, an executable, and links of every kind.
pub fn write_odd_names(dir: &Path) {
    const NAMES: [&str; 18] = [
        "a file with spaces",
        " leading and trailing ",
        "näive.txt",
        "nai\u{308}ve.txt",
        "日本語/ファイル",
        "😀",
        "100%",
        "%2e%2e%2f",
        "question?mark",
        "hash#tag",
        "star*[a-z]{x}",
        "quote'\"`$(x)",
        "line\nbreak",
        "tab\tand\u{7}bell",
        "-rf",
        ".hidden/.deeper/...",
        "a:b",
        "deep/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/end",
    ];
    for name in NAMES {
        write(dir, name, name.as_bytes());
    }
    write(dir, "empty", b"");
    write(dir, "bin/run", b"#!/bin/sh\n");
    set_executable(&dir.join("bin/run"));
    for (name, target) in [
        ("link", "empty"),
        ("up/link", "../bin/run"),
        ("dangling", "nowhere/ü"),
        ("dir-link", "bin"),
    ] {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("a joined path has a parent"))
            .expect("the folder is writable");
        symlink(target, path).expect("a new link");
    }
}

/// Writes files whose names Hyperdrive's path rules would change or join: a backslash is a
/// separator there, and a leading `c:` is cut off. Returns their paths.
pub fn write_mangled_names(dir: &Path) -> Vec<PathBuf> {
    let names = [
        "back\\slash",
        "..\\up",
        "c:/in a drive",
        "file:/in a scheme",
    ];
    for name in names {
        write(dir, name, name.as_bytes());
    }
    names.map(PathBuf::from).to_vec()
}

/// Writes two files whose names are not UTF-8 and would collide if made so lossily. Returns their paths.
pub fn write_non_utf8_names(dir: &Path) -> Vec<PathBuf> {
    let names =
        [&b"latin-\xe9"[..], &b"latin-\xe8"[..]].map(|name| PathBuf::from(OsStr::from_bytes(name)));
    for name in &names {
        fs::write(dir.join(name), name.as_os_str().as_bytes()).expect("the folder is writable");
    }
    names.to_vec()
}

/// Writes a file of `size` bytes that occupies almost no disk: zeros, and a mark at each end.
pub fn write_sparse(path: &Path, size: u64) {
    use std::os::unix::fs::FileExt;
    let file = File::create(path).expect("the folder is writable");
    file.set_len(size)
        .expect("the file system has sparse files");
    file.write_at(b"first", 0).expect("the file is writable");
    file.write_at(b"last", size - 4)
        .expect("the file is writable");
}

/// Writes `size` bytes that do not repeat and do not compress, the same for the same `seed`.
pub fn write_random(path: &Path, size: usize, seed: u64) {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..size.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(size);
    fs::write(path, bytes).expect("the folder is writable");
}

/// Writes a file below `dir`, with its folders.
pub fn write(dir: &Path, name: &str, content: &[u8]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("a joined path has a parent"))
        .expect("the folder is writable");
    fs::write(path, content).expect("the folder is writable");
}

/// Sets the executable bits.
pub fn set_executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our own file");
}

fn walk(root: &Path, relative: &Path, visit: &mut impl FnMut(&Path, &fs::Metadata)) {
    let folder = root.join(relative);
    let entries = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("cannot list {}: {error}", folder.display()));
    for entry in entries {
        let entry = entry.expect("the folder stays while it is listed");
        let relative = relative.join(entry.file_name());
        let metadata = entry.metadata().expect("the file stays while it is listed");
        if metadata.is_dir() {
            walk(root, &relative, visit);
        } else {
            visit(&relative, &metadata);
        }
    }
}

fn link_entry(path: &Path) -> Entry {
    Entry::Link {
        target: fs::read_link(path).expect("a link can be read"),
    }
}

fn file_entry(path: &Path, metadata: &fs::Metadata) -> Entry {
    let hash =
        hash_file(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    Entry::File {
        size: metadata.len(),
        hash,
        executable: metadata.permissions().mode() & 0o100 != 0,
    }
}

fn hash_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut state = blake2b_simd::Params::new().hash_length(32).to_state();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(state.finalize().to_hex().to_string()),
            read => state.update(&buffer[..read]),
        };
    }
}

/// How many differences a failure message lists.
const LISTED_MAX: usize = 20;

fn listing(differences: &[String]) -> String {
    differences
        .iter()
        .take(LISTED_MAX)
        .fold(String::new(), |mut text, difference| {
            let _ = writeln!(text, "  {difference}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_content_executable_bit_target_and_names() {
        // Goal: the comparison all transfer tests rest on can fail. Method: one difference of each kind.
        let scratch = tempfile::tempdir().unwrap();
        let (left, right) = (scratch.path().join("left"), scratch.path().join("right"));
        for dir in [&left, &right] {
            write(dir, "same", b"same");
            write(dir, "content", b"left");
            write(dir, "mode", b"");
        }
        Snapshot::of(&left).assert_same(&Snapshot::of(&right));

        write(&right, "content", b"lift");
        set_executable(&right.join("mode"));
        symlink("same", left.join("link")).unwrap();
        symlink("mode", right.join("link")).unwrap();
        write(&left, "gone", b"");
        write(&right, "new/new", b"");
        let differences = Snapshot::of(&left).differences(&Snapshot::of(&right));
        let named = |name: &str| {
            differences
                .iter()
                .any(|line| line.contains(&format!("\"{name}\"")))
        };
        assert!(
            ["content", "mode", "link", "gone", "new/new"]
                .into_iter()
                .all(named),
            "{differences:?}"
        );
        assert_eq!(differences.len(), 5);
    }

    #[test]
    fn a_copy_leaves_out_large_files_only() {
        let scratch = tempfile::tempdir().unwrap();
        let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
        write_odd_names(&from);
        write_random(&from.join("large"), 1001, 7);
        copy(&from, &to, 1000);
        let expected = Snapshot::of(&from).without(|path| path == Path::new("large"));
        expected.assert_same(&Snapshot::of(&to));
        assert!(expected.entries().len() > 20);
    }
}
