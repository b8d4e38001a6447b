//! The index of names: lines of `<discovery key> <namespace> <name>`, all hexadecimal, later
//! lines before earlier ones. It says nothing that the cores' headers do not, except for cores
//! whose header is not ours to change, so a damaged line is skipped.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;

use ferrocore_primitives::keys::DiscoveryKey;

use super::io_error;
use super::place::parse_hex;
use super::positional::sync_directory;
use crate::storage::{Alias, Durability, StorageError};

/// The names in memory and on disk.
pub(super) struct Aliases {
    path: PathBuf,
    cores: HashMap<Alias, DiscoveryKey>,
}

impl Aliases {
    /// Reads the index at `path`, if there is one, and makes it fit to be written.
    pub(super) fn load(path: PathBuf) -> Result<Option<Self>, StorageError> {
        let Some((aliases, is_whole)) = Self::read(path)? else {
            return Ok(None);
        };
        if !is_whole {
            aliases.rewrite()?; // a crash cut the last line: the next one needs a line of its own
        }
        Ok(Some(aliases))
    }

    /// Reads the index at `path`, if there is one, and says whether its last line is whole.
    pub(super) fn read(path: PathBuf) -> Result<Option<(Self, bool)>, StorageError> {
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        let cores = text.lines().filter_map(parse_line).collect();
        let is_whole = text.is_empty() || text.ends_with('\n');
        Ok(Some((Self { path, cores }, is_whole)))
    }

    /// Names that are never written.
    pub(super) fn in_memory(found: Vec<(Alias, DiscoveryKey)>) -> Self {
        Self {
            path: PathBuf::new(),
            cores: found.into_iter().collect(),
        }
    }

    /// Keeps `core` under `alias` in memory only.
    pub(super) fn set_in_memory(&mut self, alias: Alias, core: DiscoveryKey) {
        self.cores.insert(alias, core);
    }

    /// Starts an index at `path` with what the cores themselves tell.
    pub(super) fn create(
        path: PathBuf,
        found: Vec<(Alias, DiscoveryKey)>,
    ) -> Result<Self, StorageError> {
        let cores = found.into_iter().collect();
        let aliases = Self { path, cores };
        aliases.rewrite()?;
        Ok(aliases)
    }

    pub(super) fn get(&self, alias: &Alias) -> Option<DiscoveryKey> {
        self.cores.get(alias).copied()
    }

    /// Keeps `core` under `alias`; with [`Durability::Sync`] on the device.
    pub(super) fn set(
        &mut self,
        alias: Alias,
        core: DiscoveryKey,
        durability: Durability,
    ) -> Result<(), StorageError> {
        if self.get(&alias) == Some(core) {
            return Ok(());
        }
        let append = || {
            let mut file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(&self.path)?;
            file.write_all(line(&alias, &core).as_bytes())?;
            match durability {
                Durability::Sync => file.sync_data(),
                Durability::Buffered => Ok(()),
            }
        };
        append().map_err(io_error("write", &self.path))?;
        self.cores.insert(alias, core);
        Ok(())
    }

    /// Forgets every name of `core`.
    pub(super) fn remove(&mut self, core: &DiscoveryKey) -> Result<(), StorageError> {
        let before = self.cores.len();
        self.cores.retain(|_, named| named != core);
        match self.cores.len() == before {
            true => Ok(()),
            false => self.rewrite(),
        }
    }

    /// Replaces the file in one step, which a power cut does not halve.
    fn rewrite(&self) -> Result<(), StorageError> {
        let text: String = self
            .cores
            .iter()
            .map(|(alias, core)| line(alias, core))
            .collect();
        let new = self.path.with_extension("new");
        let write = || {
            let mut file = fs::File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &self.path)?;
            self.path.parent().map_or(Ok(()), sync_directory)
        };
        write().map_err(io_error("write", &self.path))
    }
}

fn line(alias: &Alias, core: &DiscoveryKey) -> String {
    let mut line = format!("{core} ");
    for byte in alias.namespace {
        let _ = write!(line, "{byte:02x}");
    }
    line.push(' ');
    for byte in alias.name.bytes() {
        let _ = write!(line, "{byte:02x}");
    }
    line.push('\n');
    line
}

fn parse_line(line: &str) -> Option<(Alias, DiscoveryKey)> {
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
    use super::*;

    fn alias(name: &str) -> Alias {
        let namespace = [7; 32];
        let name = name.to_owned();
        Alias { namespace, name }
    }

    #[test]
    fn names_survive_and_the_last_one_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("aliases");
        assert!(Aliases::load(path.clone()).unwrap().is_none());
        let first = DiscoveryKey::from([1; 32]);
        let second = DiscoveryKey::from([2; 32]);
        let mut aliases = Aliases::create(path.clone(), vec![(alias("a\nb ü"), first)]).unwrap();
        let (buffered, sync) = (Durability::Buffered, Durability::Sync);
        aliases.set(alias(""), first, buffered).unwrap();
        aliases.set(alias(""), second, sync).unwrap();
        let aliases = Aliases::load(path).unwrap().unwrap();
        assert_eq!(aliases.get(&alias("a\nb ü")), Some(first));
        assert_eq!(aliases.get(&alias("")), Some(second));
        assert_eq!(aliases.get(&alias("b")), None);

        let mut aliases = aliases;
        aliases.remove(&first).unwrap();
        let aliases = Aliases::load(aliases.path).unwrap().unwrap();
        assert_eq!(aliases.get(&alias("a\nb ü")), None);
        assert_eq!(aliases.get(&alias("")), Some(second));
    }

    /// Goal: wherever a crash cuts the file, whole lines stay and later ones can follow.
    #[test]
    fn a_cut_line_costs_itself_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("aliases");
        let core = DiscoveryKey::from([1; 32]);
        let whole = line(&alias("one"), &core) + &line(&alias("two"), &core);
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut aliases = Aliases::load(path.clone()).unwrap().unwrap();
            aliases
                .set(alias("three"), core, Durability::Buffered)
                .unwrap();
            let aliases = Aliases::load(path.clone()).unwrap().unwrap();
            assert_eq!(aliases.get(&alias("three")), Some(core));
            let first_is_whole = cut + 1 >= line(&alias("one"), &core).len();
            assert_eq!(aliases.get(&alias("one")).is_some(), first_is_whole);
        }
    }

    #[test]
    fn a_damaged_line_costs_itself_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("aliases");
        let core = DiscoveryKey::from([1; 32]);
        let one = line(&alias("one"), &core).into_bytes();
        let two = line(&alias("two"), &core).into_bytes();
        for at in 0..one.len() - 1 {
            let mut damaged = one.clone();
            damaged[at] = 0xff;
            fs::write(&path, [damaged, two.clone()].concat()).unwrap();
            let aliases = Aliases::load(path.clone()).unwrap().unwrap();
            assert_eq!(aliases.get(&alias("one")), None);
            assert_eq!(aliases.get(&alias("two")), Some(core));
        }
    }
}
