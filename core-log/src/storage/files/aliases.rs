//! The index of names, twice: `aliases` and `aliases.copy` are the same but for the moment between
//! two writes. Each line is closed by a checksum.
//!
//! | line | what |
//! |---|---|
//! | first | `generation N CRC`: N counts how often the file was written anew |
//! | others | `DISCOVERY-KEY NAMESPACE NAME CRC`, all hexadecimal, later ones before earlier ones |
//!
//! CRC is the CRC-32 (IEEE) of the line before it, without the blank, as 8 digits. The headers of
//! cores tell the names they were created under, so those survive the loss of both files; names
//! that were given to cores of others are here only, which is why there are two.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrocore_primitives::keys::DiscoveryKey;

use super::file_system::{FileAccess, FileSystem};
use super::io_error;
use super::place::parse_hex;
use super::whole::{self, ALIASES_BYTES_MAX};
use crate::storage::{Alias, Durability, StorageError};

type Names = Vec<(Alias, DiscoveryKey)>;

/// The names that the cores of a store tell.
pub(super) struct Told {
    pub(super) names: Names,
    /// Those that could not be asked: the system did not let us read them, or they are damaged.
    pub(super) unread: Vec<Unread>,
}

/// A core that could not be asked for its name.
pub(super) struct Unread {
    pub(super) core: DiscoveryKey,
    pub(super) path: PathBuf,
}

/// What to do about an index that is too long to be read.
const TOO_LONG: &str = "move it away: its copy is taken, or what the cores tell of their names";
/// What to do about one that would be.
const FULL: &str = "purge cores that have names";

/// The names in memory and on disk.
pub(super) struct Aliases {
    files: Arc<dyn FileSystem>,
    /// The index and its copy.
    paths: [PathBuf; 2],
    generation: u64,
    /// A core that could not be asked for its name, of which none is known. It is asked again when the store is opened next.
    unread: Option<PathBuf>,
    cores: HashMap<Alias, DiscoveryKey>,
}

/// One of the files, as far as it can be read.
struct Found {
    bytes: Vec<u8>,
    generation: Option<u64>,
    names: Names,
    /// Whether every line is as it was written.
    is_whole: bool,
}

impl Aliases {
    /// Reads the index at `path` and makes both files whole and equal. If neither can be relied
    /// on, `headers` tells the names that cores themselves know; what can be read goes before.
    pub(super) fn load(
        files: Arc<dyn FileSystem>,
        path: PathBuf,
        headers: impl FnOnce() -> Result<Told, StorageError>,
    ) -> Result<Self, StorageError> {
        let (mut aliases, needs_repair) = Self::read(files, path, headers)?;
        if needs_repair {
            aliases.rewrite()?;
        }
        Ok(aliases)
    }

    /// As [`Aliases::load`], but changes nothing, and says whether the files need it.
    pub(super) fn read(
        files: Arc<dyn FileSystem>,
        path: PathBuf,
        headers: impl FnOnce() -> Result<Told, StorageError>,
    ) -> Result<(Self, bool), StorageError> {
        let copy = path.with_extension("copy");
        let found = [Found::read(&*files, &path)?, Found::read(&*files, &copy)?];
        let are_equal = match &found {
            [Some(one), Some(two)] => one.bytes == two.bytes,
            _ => false,
        };
        let age = |found: &&Found| (found.generation, found.names.len());
        let whole = found.iter().flatten().filter(|found| found.is_whole);
        let newest = whole.max_by_key(age);
        let generation = found.iter().flatten().filter_map(|found| found.generation);
        let generation = generation.max().unwrap_or(0);
        let (cores, unread, needs_repair) = match newest {
            Some(found) => (found.names.iter().cloned().collect(), None, !are_equal),
            None => {
                let told = headers()?;
                let mut cores: HashMap<_, _> = told.names.into_iter().collect();
                let [main, copy] = found;
                let rest = [copy, main].into_iter().flatten();
                cores.extend(rest.flat_map(|found| found.names));
                let is_named = |unread: &Unread| cores.values().any(|core| *core == unread.core);
                let unread = told.unread.into_iter().find(|unread| !is_named(unread));
                (cores, unread.map(|unread| unread.path), true)
            }
        };
        let aliases = Self {
            files,
            paths: [path, copy],
            generation,
            unread,
            cores,
        };
        Ok((aliases, needs_repair))
    }

    /// The core of this name.
    ///
    /// # Errors
    /// [`StorageError::Io`] if that may be one which could not be asked: it must not be taken for a name that nobody has.
    pub(super) fn get(&self, alias: &Alias) -> Result<Option<DiscoveryKey>, StorageError> {
        match (self.cores.get(alias), &self.unread) {
            (None, Some(unread)) => {
                let reason = "its name is not known, which may be the one that is looked for: audit it, restore it, or purge it";
                Err(io_error("read", unread)(io::Error::other(reason)))
            }
            (found, _) => Ok(found.copied()),
        }
    }

    /// All names that are known, in no particular order.
    pub(super) fn all(&self) -> Names {
        let names = self.cores.iter();
        names.map(|(alias, core)| (alias.clone(), *core)).collect()
    }

    /// Keeps `core` under `alias`; with [`Durability::Sync`] on the device.
    pub(super) fn set(
        &mut self,
        alias: Alias,
        core: DiscoveryKey,
        durability: Durability,
    ) -> Result<(), StorageError> {
        if self.cores.get(&alias) == Some(&core) {
            return Ok(());
        }
        let line = name_line(&alias, &core);
        self.make_room(line.len() as u64)?;
        for path in &self.paths {
            let appended = append(&*self.files, path, &line, durability);
            appended.map_err(io_error("write", path))?;
        }
        self.cores.insert(alias, core);
        Ok(())
    }

    /// Refuses a line of so many bytes that would make the files longer than they are read. Lines that later ones
    /// took the place of are dropped first.
    fn make_room(&mut self, bytes: u64) -> Result<(), StorageError> {
        let [path, _] = self.paths.clone();
        let file = self.files.file(&path, FileAccess::Read);
        let len = file.len().map_err(io_error("look at", &path))?;
        if len + bytes <= ALIASES_BYTES_MAX {
            return Ok(());
        }
        let len = self.rewrite()?;
        whole::check(&path, len + bytes, ALIASES_BYTES_MAX, FULL)
    }

    /// Keeps `core` under `alias` in memory only.
    pub(super) fn set_in_memory(&mut self, alias: Alias, core: DiscoveryKey) {
        self.cores.insert(alias, core);
    }

    /// Forgets every name of `core`.
    pub(super) fn remove(&mut self, core: &DiscoveryKey) -> Result<(), StorageError> {
        if !self.cores.values().any(|named| named == core) {
            return Ok(());
        }
        let others = self.cores.iter().filter(|(_, named)| *named != core);
        let others = others.map(|(alias, named)| (alias.clone(), *named));
        let others = others.collect();
        let before = std::mem::replace(&mut self.cores, others);
        let written = self.rewrite().map(drop);
        if written.is_err() {
            self.cores = before; // so that it can be asked for again
        }
        written
    }

    /// Writes both files anew, each in one step, which a power cut does not halve; returns how long they are.
    fn rewrite(&mut self) -> Result<u64, StorageError> {
        self.generation += 1;
        let first = self.unread.is_none().then_some(self.generation);
        let text = whole_text(first, self.cores.iter());
        for path in &self.paths {
            let replaced = whole::replace(&*self.files, path, text.as_bytes());
            replaced.map_err(io_error("write", path))?;
        }
        Ok(text.len() as u64)
    }
}

impl Found {
    /// The file at `path`, if there is one.
    fn read(files: &dyn FileSystem, path: &Path) -> Result<Option<Self>, StorageError> {
        let bytes = whole::read(files, path, ALIASES_BYTES_MAX, TOO_LONG)?;
        Ok(bytes.map(Self::parse))
    }

    fn parse(bytes: Vec<u8>) -> Self {
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let mut lines = lines.map(parse_closed);
        let first = lines.next().flatten();
        let generation = first.and_then(|line| line.strip_prefix("generation ")?.parse().ok());
        let parsed: Vec<_> = lines.map(|line| parse_name(line?)).collect();
        Self {
            generation,
            is_whole: generation.is_some() && parsed.iter().all(Option::is_some),
            names: parsed.into_iter().flatten().collect(),
            bytes,
        }
    }
}

/// The names in an index, and whether every line is as it was written.
pub(super) fn parse(bytes: &[u8]) -> (Names, bool) {
    let found = Found::parse(bytes.to_vec());
    (found.names, found.is_whole)
}

/// A new index of these names.
pub(super) fn text_of(names: &[(Alias, DiscoveryKey)]) -> Vec<u8> {
    whole_text(Some(1), names.iter().map(|(alias, core)| (alias, core))).into_bytes()
}

/// The index of these names. Without a generation it is none that is whole, so that names which are missing are looked for.
fn whole_text<'a>(
    generation: Option<u64>,
    names: impl Iterator<Item = (&'a Alias, &'a DiscoveryKey)>,
) -> String {
    let first = match generation {
        Some(generation) => closed_line(format!("generation {generation}")),
        None => "incomplete\n".to_owned(),
    };
    let lines = names.map(|(alias, core)| name_line(alias, core));
    std::iter::once(first).chain(lines).collect()
}

fn append(
    files: &dyn FileSystem,
    path: &Path,
    line: &str,
    durability: Durability,
) -> io::Result<()> {
    let file = files.file(path, FileAccess::Write);
    file.write(file.len()?, line.as_bytes())?;
    match durability {
        Durability::Sync => file.sync(),
        Durability::Buffered => Ok(()),
    }
}

fn name_line(alias: &Alias, core: &DiscoveryKey) -> String {
    let mut line = format!("{core} ");
    for byte in alias.namespace {
        let _ = write!(line, "{byte:02x}");
    }
    line.push(' ');
    for byte in alias.name.bytes() {
        let _ = write!(line, "{byte:02x}");
    }
    closed_line(line)
}

/// The line with its checksum and its end.
fn closed_line(line: String) -> String {
    let checksum = crc32fast::hash(line.as_bytes());
    format!("{line} {checksum:08x}\n")
}

/// What stands before the checksum of a line, if that is right.
fn parse_closed(line: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (content, checksum) = line.rsplit_once(' ')?;
    let expected = format!("{:08x}", crc32fast::hash(content.as_bytes()));
    (checksum == expected).then_some(content)
}

fn parse_name(line: &str) -> Option<(Alias, DiscoveryKey)> {
    let mut words = line.split(' ');
    let core = DiscoveryKey::from(parse_hex(words.next()?)?);
    let namespace = parse_hex(words.next()?)?;
    let name = String::from_utf8(parse_bytes(words.next()?)?).ok()?;
    let alias = Alias { namespace, name };
    words.next().is_none().then_some((alias, core))
}

fn parse_bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    let pairs = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::super::file_system::OsFileSystem;
    use super::*;
    use std::fs;

    fn alias(name: &str) -> Alias {
        let namespace = [7; 32];
        let name = name.to_owned();
        Alias { namespace, name }
    }

    fn core(byte: u8) -> DiscoveryKey {
        DiscoveryKey::from([byte; 32])
    }

    fn load(path: &Path) -> Aliases {
        Aliases::load(Arc::new(OsFileSystem), path.to_owned(), || {
            panic!("the index is whole")
        })
        .unwrap()
    }

    /// An index with two names that cores know and one that they do not.
    fn index(path: &Path) -> Aliases {
        let mut aliases =
            Aliases::load(Arc::new(OsFileSystem), path.to_owned(), || Ok(told())).unwrap();
        aliases
            .set(alias("ours"), core(3), Durability::Buffered)
            .unwrap();
        aliases
            .set(alias("theirs"), core(9), Durability::Sync)
            .unwrap();
        aliases
    }

    fn told() -> Told {
        Told {
            names: vec![(alias("a\nb ü"), core(1)), (alias(""), core(2))],
            unread: Vec::new(),
        }
    }

    fn assert_all(aliases: &Aliases) {
        let found =
            ["a\nb ü", "", "ours", "theirs", "b"].map(|name| aliases.get(&alias(name)).unwrap());
        let expected = [
            Some(core(1)),
            Some(core(2)),
            Some(core(3)),
            Some(core(9)),
            None,
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn names_survive_and_the_last_one_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("aliases");
        assert_all(&index(&path));
        let mut aliases = load(&path);
        assert_all(&aliases);
        aliases
            .set(alias(""), core(4), Durability::Buffered)
            .unwrap();
        let mut aliases = load(&path);
        assert_eq!(aliases.get(&alias("")).unwrap(), Some(core(4)));
        aliases.remove(&core(4)).unwrap();
        let aliases = load(&path);
        assert_eq!(
            (aliases.get(&alias("")).unwrap(), aliases.all().len()),
            (None, 3)
        );
    }

    /// Goal: whatever becomes of one file, the other has all names, and both are whole again.
    #[test]
    fn damage_of_one_file_costs_nothing() {
        type Damage = fn(&Path);
        let damages: [Damage; 6] = [
            |path| fs::remove_file(path).unwrap(),
            |path| fs::write(path, "").unwrap(),
            |path| fs::write(path, [0xff; 300]).unwrap(),
            |path| {
                let bytes = fs::read(path).unwrap();
                fs::write(path, &bytes[..bytes.len() - 30]).unwrap();
            },
            |path| {
                let lines = fs::read_to_string(path).unwrap();
                let last = lines.trim_end().rfind('\n').unwrap();
                fs::write(path, &lines[..=last]).unwrap();
            },
            |path| {
                let text = fs::read_to_string(path).unwrap();
                fs::write(path, text.replace('9', "8")).unwrap();
            },
        ];
        for damage in damages {
            for name in ["aliases", "aliases.copy"] {
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("aliases");
                index(&path);
                damage(&directory.path().join(name));
                let mut aliases = load(&path);
                assert_all(&aliases);
                aliases
                    .set(alias("b"), core(5), Durability::Buffered)
                    .unwrap();
                let [main, copy] = &aliases.paths;
                assert_eq!(fs::read(main).unwrap(), fs::read(copy).unwrap());
                assert_eq!(load(&path).get(&alias("b")).unwrap(), Some(core(5)));
            }
        }
    }

    /// Goal: wherever bytes of both files are flipped, or both are cut, what cores know is found
    /// and no name leads to another core.
    #[test]
    fn damage_of_both_files_costs_no_more_than_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("aliases");
        let aliases = index(&path);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for cut in [false, true] {
                let mut damaged = whole.clone();
                match cut {
                    true => damaged.truncate(at),
                    false => damaged[at] ^= 1,
                }
                aliases
                    .paths
                    .iter()
                    .for_each(|path| fs::write(path, &damaged).unwrap());
                let names = || Ok(told());
                let (loaded, needs_repair) =
                    Aliases::read(Arc::new(OsFileSystem), path.clone(), names).unwrap();
                assert!(needs_repair || cut);
                for (name, core) in [("theirs", core(9)), ("ours", core(3))] {
                    let found = loaded.get(&alias(name)).unwrap();
                    assert!(found.is_none_or(|found| found == core), "{at}");
                }
                if !cut {
                    assert_eq!(loaded.get(&alias("a\nb ü")).unwrap(), Some(core(1)));
                    assert_eq!(loaded.get(&alias("")).unwrap(), Some(core(2)));
                    let both = ["ours", "theirs"].map(|name| loaded.get(&alias(name)).unwrap());
                    let joins = whole[at] == b'\n';
                    assert!(joins || both.iter().any(Option::is_some), "{at}");
                }
            }
        }
        let repaired = Aliases::load(Arc::new(OsFileSystem), path.clone(), || Ok(told())).unwrap();
        assert_eq!(load(&path).all().len(), repaired.all().len());
    }

    /// Goal: an index that nobody of ours wrote is not read, however long it is, and the way back is told. One
    /// that grew by names that were given again and again is written anew.
    #[test]
    fn an_index_has_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("aliases");
        let mut aliases = index(&path);
        for name in ["aliases", "aliases.copy"] {
            let path = directory.path().join(name);
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(ALIASES_BYTES_MAX + 1).unwrap();
        }
        let read = Aliases::read(Arc::new(OsFileSystem), path.clone(), || {
            panic!("nothing is lost yet")
        });
        let error = read.err().unwrap();
        assert!(matches!(error, StorageError::FileTooLong { .. }), "{error}");
        aliases
            .set(alias("b"), core(5), Durability::Buffered)
            .unwrap();
        let aliases = load(&path);
        assert_eq!(aliases.get(&alias("b")).unwrap(), Some(core(5)));
        assert!(fs::metadata(&path).unwrap().len() < 2000);
    }

    /// Goal: a purge that was cut off between the files does not bring the name back by halves:
    /// the newer file counts.
    #[test]
    fn the_newer_file_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("aliases");
        let mut aliases = index(&path);
        let old = fs::read(&path).unwrap();
        aliases.remove(&core(9)).unwrap();
        for stale in aliases.paths.clone() {
            fs::write(stale, &old).unwrap();
            assert_eq!(load(&path).get(&alias("theirs")).unwrap(), None);
        }
    }
}
