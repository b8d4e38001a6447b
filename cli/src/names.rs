//! The names of drives and cores in a store, and the folders that drives were made from.
//! Knows one small JSON file and its copy. Does not know what the keys open, nor who else tells the names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ferrocore::Key;
use serde::{Deserialize, Serialize};

use crate::exit::{Failure, Kind, Result};
use crate::target::{Base, Name};

const FILE: &str = "names.json";
/// The same again.
const COPY: &str = "names.copy.json";
const FORMAT: u8 = 1;
/// Most bytes of such a file: some 100,000 names. Cores open by key without.
const NAMES_BYTES_MAX: u64 = 32 << 20;

/// All names of one store.
#[derive(Debug)]
pub(crate) struct Names {
    path: PathBuf,
    copy: PathBuf,
    table: Mutex<Table>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) kind: CoreKind,
    pub(crate) key: Key,
    /// The folder that the drive is kept equal to.
    pub(crate) folder: Option<PathBuf>,
}

/// What kind of thing a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CoreKind {
    Core,
    Drive,
}

impl CoreKind {
    /// Its name in files.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Drive => "drive",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Core, Self::Drive]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

type Table = BTreeMap<Name, Named>;

/// The file as it is written.
#[derive(Serialize, Deserialize)]
struct Stored {
    format: u8,
    names: BTreeMap<Name, StoredName>,
}

#[derive(Serialize, Deserialize)]
struct StoredName {
    kind: CoreKind,
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    folder: Option<PathBuf>,
}

impl Names {
    /// Reads the names of the store in `dir`; those that `elsewhere` finds if there is no file of them.
    pub(crate) fn open(
        dir: &Path,
        elsewhere: impl FnOnce() -> Result<Vec<(Name, Named)>>,
    ) -> Result<Self> {
        let [path, copy] = [FILE, COPY].map(|file| dir.join(file));
        let table = match (read(&path)?, read(&copy)?) {
            (None, None) => {
                let names = Self {
                    path,
                    copy,
                    table: Mutex::default(),
                };
                names.fill(elsewhere()?);
                return Ok(names);
            }
            (Some(bytes), _) if decode(&bytes).is_some() => decode(&bytes).unwrap_or_default(),
            (Some(bytes), _) if is_of_another_format(&bytes) => return Err(damaged(&path)),
            (main, Some(copied)) => {
                let table = decode(&copied).ok_or_else(|| damaged(&path))?;
                // Not being able to mend it, as on a medium that is only read, is no failure.
                if main.is_none_or(|main| main != copied) {
                    replace(&path, &copied).ok();
                }
                table
            }
            (Some(_), None) => return Err(damaged(&path)),
        };
        let table = Mutex::new(table);
        Ok(Self { path, copy, table })
    }

    /// What `name` stands for.
    pub(crate) fn find(&self, name: &Name) -> Option<Named> {
        self.lock().get(name).cloned()
    }

    /// Every name, and what it stands for.
    pub(crate) fn all(&self) -> Vec<(Name, Named)> {
        let table = self.lock();
        table
            .iter()
            .map(|(name, named)| (name.clone(), named.clone()))
            .collect()
    }

    /// The key that `base` means.
    pub(crate) fn key(&self, base: &Base) -> Result<Key> {
        match base {
            Base::Key(key) => Ok(*key),
            Base::Name(name) => match self.find(name) {
                Some(named) => Ok(named.key),
                None => Err(
                    Failure::not_found(format!("there is no `{name}` in the store"))
                        .hint("`fcore list` shows what there is"),
                ),
            },
        }
    }

    /// A name of `key`.
    pub(crate) fn name_of(&self, key: &Key) -> Option<Name> {
        let table = self.lock();
        let found = table.iter().find(|(_, named)| named.key == *key);
        found.map(|(name, _)| name.clone())
    }

    /// What kind of thing `key` opens, as far as its name tells.
    pub(crate) fn find_kind(&self, key: &Key) -> Option<CoreKind> {
        let table = self.lock();
        let found = table.values().find(|named| named.key == *key);
        found.map(|named| named.kind)
    }

    /// The drive that is kept equal to `folder`.
    pub(crate) fn of_folder(&self, folder: &Path) -> Option<Name> {
        let table = self.lock();
        let found = table
            .iter()
            .find(|(_, named)| named.folder.as_deref() == Some(folder));
        found.map(|(name, _)| name.clone())
    }

    /// The name `wish`, or the first with a number behind that is free.
    pub(crate) fn free(&self, wish: &Name) -> Name {
        let table = self.lock();
        let mut candidates = std::iter::once(wish.clone()).chain((2..).map(|n| wish.numbered(n)));
        let free = candidates.find(|name| !table.contains_key(name));
        free.expect("there are more numbers than names")
    }

    /// Lets `name` stand for `named`. A folder belongs to one drive: others lose it. Returns it and all names that stand
    /// for something else than before: what is to be remembered elsewhere, too, where an older program may not have done so.
    pub(crate) fn set(&self, name: &Name, named: Named) -> Result<Vec<(Name, Named)>> {
        let mut table = self.lock();
        let mut after = table.clone();
        if named.folder.is_some() {
            let others = after
                .values_mut()
                .filter(|other| other.folder == named.folder);
            others.for_each(|other| other.folder = None);
        }
        after.insert(name.clone(), named);
        let changed = after
            .iter()
            .filter(|(each, named)| *each == name || table.get(each) != Some(named));
        let changed = changed
            .map(|(name, named)| (name.clone(), named.clone()))
            .collect();
        self.replace(&mut table, after)?;
        Ok(changed)
    }

    /// Takes names that were found elsewhere into an empty table. Of two that are called the same, one gets a number.
    fn fill(&self, found: Vec<(Name, Named)>) {
        for (wish, named) in found {
            let name = self.free(&wish);
            self.lock().insert(name, named);
        }
        let mut table = self.lock();
        let filled = table.clone();
        // Not being able to write it, as on a medium that is only read, is no failure: they are found again.
        self.replace(&mut table, filled).ok();
    }

    /// Forgets every name of `key`.
    pub(crate) fn remove(&self, key: &Key) -> Result<()> {
        let mut table = self.lock();
        let mut changed = table.clone();
        changed.retain(|_, named| named.key != *key);
        self.replace(&mut table, changed)
    }

    fn replace(&self, table: &mut Table, changed: Table) -> Result<()> {
        let bytes = encode(&changed)?;
        if bytes.len() as u64 > NAMES_BYTES_MAX {
            return Err(
                Failure::new(Kind::Storage, "there is no room for another name")
                    .hint("purge what is not needed any more"),
            );
        }
        for path in [&self.path, &self.copy] {
            replace(path, &bytes).map_err(|error| {
                Failure::storage(format!("cannot write {}", path.display()), &error)
            })?;
        }
        *table = changed;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let read = |file: File| {
        let mut bytes = Vec::new();
        file.take(NAMES_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match File::open(path).and_then(read) {
        Ok(bytes) if bytes.len() as u64 > NAMES_BYTES_MAX => Err(too_long(path)),
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let message = format!("cannot read {}", path.display());
            Err(Failure::storage(message, &error))
        }
    }
}

/// Whether a newer program wrote it, which no copy of ours may take the place of.
fn is_of_another_format(bytes: &[u8]) -> bool {
    let value = serde_json::from_slice::<serde_json::Value>(bytes).unwrap_or_default();
    let format = value.get("format").and_then(serde_json::Value::as_u64);
    format.is_some_and(|format| format != u64::from(FORMAT))
}

fn too_long(path: &Path) -> Failure {
    let message = format!("{} has more than {NAMES_BYTES_MAX} bytes", path.display());
    Failure::new(Kind::Storage, message)
        .hint("move it away: its copy is taken, or what the cores remember of their names")
}

fn damaged(path: &Path) -> Failure {
    let message = format!("{} is damaged", path.display());
    Failure::new(Kind::Storage, message)
        .hint("move it and its copy away: the cores remember their names")
}

fn decode(bytes: &[u8]) -> Option<Table> {
    let stored: Stored = serde_json::from_slice(bytes).ok()?;
    if stored.format != FORMAT {
        return None;
    }
    let named = |stored: StoredName| {
        Some(Named {
            kind: stored.kind,
            key: stored.key.parse().ok()?,
            folder: stored.folder,
        })
    };
    let names = stored.names.into_iter();
    names
        .map(|(name, stored)| Some((name, named(stored)?)))
        .collect()
}

fn encode(table: &Table) -> Result<Vec<u8>> {
    let stored = |named: &Named| StoredName {
        kind: named.kind,
        key: named.key.to_string(),
        folder: named.folder.clone(),
    };
    let names = table
        .iter()
        .map(|(name, named)| (name.clone(), stored(named)))
        .collect();
    let file = Stored {
        format: FORMAT,
        names,
    };
    serde_json::to_vec_pretty(&file).map_err(|_| {
        Failure::usage("the path of the folder is not UTF-8, so it cannot be remembered")
    })
}

/// Replaces the file at once, so that a crash leaves the old or the new one, and never less; the new one is on the device when this
/// returns. Nobody else may read it.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_directory(directory)
}

/// Puts what a directory says of its files on the device: else a power cut may take a renaming back. A directory that may not be
/// read, or a file system that syncs none, is no reason to call what was renamed a failure.
#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    match File::open(directory).and_then(|directory| directory.sync_all()) {
        Err(error) if matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}

/// Only Unix opens directories as files.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drive(key: u8, folder: Option<&str>) -> Named {
        Named {
            kind: CoreKind::Drive,
            key: Key::from([key; 32]),
            folder: folder.map(PathBuf::from),
        }
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn open(dir: &Path) -> Result<Names> {
        Names::open(dir, || Ok(Vec::new()))
    }

    #[test]
    fn names_are_found_again_by_name_key_and_folder() {
        let dir = tempfile::tempdir().unwrap();
        let names = open(dir.path()).unwrap();
        names.set(&name("a"), drive(1, Some("/a"))).unwrap();
        names.set(&name("b"), drive(2, None)).unwrap();

        let again = open(dir.path()).unwrap();
        assert_eq!(again.find(&name("a")), Some(drive(1, Some("/a"))));
        assert_eq!(again.name_of(&Key::from([2; 32])), Some(name("b")));
        assert_eq!(again.of_folder(Path::new("/a")), Some(name("a")));
        assert_eq!(again.key(&Base::Name(name("b"))), Ok(Key::from([2; 32])));
        assert_eq!(
            again.key(&Base::Name(name("c"))).unwrap_err().kind,
            Kind::NotFound
        );
    }

    #[test]
    fn a_folder_belongs_to_the_drive_that_took_it_last() {
        let dir = tempfile::tempdir().unwrap();
        let names = open(dir.path()).unwrap();
        names.set(&name("a"), drive(1, Some("/a"))).unwrap();
        let second = names.free(&name("a"));
        assert_eq!(second, name("a-2"));
        let taken = drive(2, Some("/a"));
        let told = names.set(&second, taken.clone()).unwrap();
        let last = (second.clone(), taken.clone());
        assert_eq!(told, [(name("a"), drive(1, None)), last.clone()]);
        assert_eq!(names.set(&second, taken).unwrap(), [last]);
        assert_eq!(names.of_folder(Path::new("/a")), Some(second));
        assert_eq!(names.find(&name("a")), Some(drive(1, None)));
    }

    #[test]
    fn a_file_of_names_has_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let names = open(dir.path()).unwrap();
        names.set(&name("a"), drive(1, None)).unwrap();
        let path = dir.path().join(FILE);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(NAMES_BYTES_MAX + 1).unwrap();
        assert_eq!(open(dir.path()).unwrap_err().kind, Kind::Storage);
        std::fs::rename(&path, dir.path().join("away")).unwrap();
        let names = open(dir.path()).unwrap();
        assert_eq!(names.find(&name("a")), Some(drive(1, None)));
    }

    #[test]
    fn what_becomes_of_one_file_costs_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join(FILE), dir.path().join(COPY));
        let names = open(dir.path()).unwrap();
        names.set(&name("a"), drive(1, Some("/a"))).unwrap();
        names.set(&name("b"), drive(2, None)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for file in [&path, &copy] {
            for damage in [None, Some(&whole[..0]), Some(&whole[..whole.len() - 9])] {
                match damage {
                    None => std::fs::remove_file(file).unwrap(),
                    Some(bytes) => std::fs::write(file, bytes).unwrap(),
                }
                let names = open(dir.path()).unwrap();
                assert_eq!(names.find(&name("a")), Some(drive(1, Some("/a"))));
                assert_eq!(names.find(&name("b")), Some(drive(2, None)));
                assert_eq!(std::fs::read(&path).unwrap(), whole);
                std::fs::write(&copy, &whole).unwrap();
            }
        }
        std::fs::write(&path, "{").unwrap();
        std::fs::write(&copy, "").unwrap();
        assert!(open(dir.path()).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"{");
        std::fs::write(&path, r#"{"format":2,"names":{}}"#).unwrap();
        std::fs::write(&copy, &whole).unwrap();
        assert!(open(dir.path()).is_err(), "a newer program's");
    }

    #[test]
    fn a_damaged_file_is_named_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let newer = r#"{"format":2,"names":{}}"#;
        for damage in ["", "{", newer] {
            std::fs::write(&path, damage).unwrap();
            let failure = open(dir.path()).unwrap_err();
            assert_eq!(failure.kind, Kind::Storage);
            assert!(failure.message.contains(FILE));
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), newer);
    }

    /// Goal: whatever is in the file, it is refused or means the same once it is written again. Method: a real
    /// file, changed in a few places, 3,000 times; the fuzz targets cannot reach into a program.
    #[test]
    fn any_bytes_are_names_or_refused() {
        let table = [("a", Some("/a b")), ("\u{e9}", None)];
        let table = table.map(|(text, folder)| (name(text), drive(7, folder)));
        let whole = encode(&table.into_iter().collect()).unwrap();
        let (mut state, mut taken, mut refused) = (1_u32, 0, 0);
        let mut below = |end: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % end
        };
        for round in 0..3_000 {
            let mut bytes = whole.clone();
            for _ in 0..=below(3) {
                let at = below(bytes.len());
                match below(4) {
                    0 => bytes[at] = below(256) as u8,
                    1 => drop(bytes.remove(at)),
                    2 => bytes.insert(at, b"{}[]\",:0"[below(8)]),
                    _ => bytes[at] ^= 1 << below(8),
                }
            }
            let is_newer = is_of_another_format(&bytes);
            let Some(table) = decode(&bytes) else {
                refused += 1;
                continue;
            };
            taken += 1;
            assert!(!is_newer, "round {round}");
            let again = encode(&table).unwrap();
            assert_eq!(decode(&again), Some(table), "round {round}");
        }
        assert!(taken > 100 && refused > 100, "{taken} {refused}");
    }
}
