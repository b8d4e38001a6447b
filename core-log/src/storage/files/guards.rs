//! Which cores must not be written yet, since a longer history of them may be elsewhere: `guards` and `guards.copy`, which
//! are the same but for the moment between two writes.
//!
//! Each line is on the device, in `guards` first, before what it allows or forbids. One that a crash cut is no line: of the
//! two that forbid, the secret had not come yet. So `guards` is as its copy, or one line longer. Where one of them is damaged,
//! emptied, cut or gone, the other one counts, and the first is made anew. Where neither can be relied on, or they
//! contradict each other, every core is guarded, which each peer that has a core, or its owner's word, ends for that core.
//!
//! Knows the two files. Does not know what lines mean ([`lines`]).

mod lines;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrocore_primitives::keys::DiscoveryKey;

use self::lines::{Content, Lines, Said, line_of, line_of_all};
use super::file_system::{FileAccess, FileSystem};
use super::io_error;
use super::whole::{self, GUARDS_BYTES_MAX};
use crate::storage::StorageError;

/// What to do about guards that are too long to be read, or would be.
const TOO_LONG: &str = "restore it from a backup; without it nothing keeps a core from being written that was \
    longer elsewhere";

/// The guards in memory and on disk.
pub(super) struct Guards {
    files: Arc<dyn FileSystem>,
    /// The file and its copy.
    paths: [PathBuf; 2],
    /// Those of both files; what a crash left behind them goes with the next one. `None` before the first.
    lines: Option<Lines>,
    said: Said,
}

/// What the files need before anything is added.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Repair {
    None,
    /// These are the lines of one of them, which the other lacks: should a crash come between, one continues the other.
    Copy(Vec<u8>),
    /// They are to be made of what is in memory.
    Anew,
}

/// What holds of what both files say.
enum Choice {
    /// There are none.
    Nothing,
    /// These lines, with their bytes.
    Sealed(Vec<u8>, Lines, Said),
    /// There was no copy in those days.
    Old(Said),
    /// That cannot be told.
    Damaged,
}

/// One of the files.
struct Found {
    bytes: Vec<u8>,
    content: Content,
}

impl Guards {
    /// Reads the guards at `path` and makes both files whole and equal; without a file nothing is guarded.
    ///
    /// # Errors
    /// [`StorageError::UnknownFormat`] if a later program wrote them, [`StorageError::FileTooLong`],
    /// [`StorageError::Io`].
    pub(super) fn load(files: Arc<dyn FileSystem>, path: PathBuf) -> Result<Self, StorageError> {
        let (mut guards, repair) = Self::read(files, path)?;
        match repair {
            Repair::None => {}
            Repair::Copy(whole) => guards.replace(&whole)?,
            Repair::Anew => guards.rewrite(guards.said.clone())?,
        }
        Ok(guards)
    }

    /// As [`Guards::load`], but changes nothing, and says what the files need.
    ///
    /// # Errors
    /// As for [`Guards::load`].
    pub(super) fn read(
        files: Arc<dyn FileSystem>,
        path: PathBuf,
    ) -> Result<(Self, Repair), StorageError> {
        let copy = path.with_extension("copy");
        let found = (Found::read(&*files, &path)?, Found::read(&*files, &copy)?);
        let are_equal = match &found {
            (Some(main), Some(copy)) => main.bytes == copy.bytes,
            _ => false,
        };
        let (lines, said, repair) = match choose(found) {
            Choice::Nothing => (None, Said::default(), Repair::None),
            Choice::Sealed(_, lines, said) if are_equal => (Some(lines), said, Repair::None),
            Choice::Sealed(whole, lines, said) => (Some(lines), said, Repair::Copy(whole)),
            Choice::Old(said) => (None, said, Repair::Anew),
            Choice::Damaged => {
                tracing::warn!(
                    path = %path.display(),
                    "the guards are damaged: no core may be written until a peer has proven how long it is"
                );
                (None, Said::restored(), Repair::Anew)
            }
        };
        let paths = [path, copy];
        let guards = Self {
            files,
            paths,
            lines,
            said,
        };
        Ok((guards, repair))
    }

    pub(super) fn is_guarded(&self, core: &DiscoveryKey) -> bool {
        self.said.is_guarded(core)
    }

    /// Guards every core from now on.
    pub(super) fn guard_all(&mut self) -> Result<(), StorageError> {
        self.add(line_of_all())
    }

    pub(super) fn set(&mut self, core: &DiscoveryKey, guarded: bool) -> Result<(), StorageError> {
        if self.is_guarded(core) == guarded {
            return Ok(());
        }
        self.add(&line_of(core, guarded))
    }

    fn add(&mut self, line: &str) -> Result<(), StorageError> {
        let Some(lines) = &self.lines else {
            let mut said = self.said.clone();
            said.apply(line);
            return self.rewrite(said);
        };
        let (mut after, mut text) = (lines.clone(), String::new());
        after.push(line, &mut text);
        let [path, _] = &self.paths;
        whole::check(path, after.len, GUARDS_BYTES_MAX, TOO_LONG)?;
        for path in &self.paths {
            let appended = append(&*self.files, path, lines.len, &text);
            appended.map_err(io_error("write", path))?;
        }
        self.lines = Some(after);
        self.said.apply(line);
        Ok(())
    }

    /// Writes both files anew, so that each is there whole at any moment. What could not be written does not hold here either,
    /// so that it can be asked for again.
    fn rewrite(&mut self, said: Said) -> Result<(), StorageError> {
        let (lines, text) = said.to_lines();
        let [path, _] = &self.paths;
        whole::check(path, lines.len, GUARDS_BYTES_MAX, TOO_LONG)?;
        self.replace(text.as_bytes())?;
        (self.lines, self.said) = (Some(lines), said);
        Ok(())
    }

    fn replace(&self, whole: &[u8]) -> Result<(), StorageError> {
        let replace = |path| whole::replace(&*self.files, path, whole);
        let mut paths = self.paths.iter();
        paths.try_for_each(|path| replace(path).map_err(io_error("write", path)))
    }
}

impl Found {
    fn read(files: &dyn FileSystem, path: &Path) -> Result<Option<Self>, StorageError> {
        let Some(bytes) = whole::read(files, path, GUARDS_BYTES_MAX, TOO_LONG)? else {
            return Ok(None);
        };
        match lines::parse(&bytes) {
            Content::Later(line) => Err(StorageError::UnknownFormat {
                path: path.to_owned(),
                reason: format!("`{line}` is no guard"),
            }),
            content => Ok(Some(Self { bytes, content })),
        }
    }

    /// Whether these are the lines of `other` and perhaps more.
    fn continues(&self, other: &Self) -> bool {
        lines::whole_lines(&self.bytes).starts_with(lines::whole_lines(&other.bytes))
    }

    /// What holds if it is this one that is relied on.
    fn choice(mut self) -> Choice {
        match self.content {
            Content::Sealed(lines, said) => {
                self.bytes.truncate(lines::whole_lines(&self.bytes).len());
                Choice::Sealed(self.bytes, lines, said)
            }
            Content::Old(said) => Choice::Old(said),
            Content::Damaged | Content::Later(_) => Choice::Damaged,
        }
    }
}

fn choose(found: (Option<Found>, Option<Found>)) -> Choice {
    let (main, copy) = match found {
        (None, None) => return Choice::Nothing,
        // The first file was written, and its copy not yet, or one of them is lost.
        (Some(one), None) | (None, Some(one)) => return one.choice(),
        (Some(main), Some(copy)) => (main, copy),
    };
    match (&main.content, &copy.content) {
        (Content::Sealed(..), Content::Sealed(..)) if main.continues(&copy) => main.choice(),
        (Content::Sealed(..), Content::Sealed(..)) if copy.continues(&main) => copy.choice(),
        (Content::Sealed(..), Content::Damaged) => main.choice(),
        (Content::Damaged, Content::Sealed(..)) => copy.choice(),
        // One of them is of another time.
        _ => Choice::Damaged,
    }
}

/// Writes behind the first `len` bytes; on the device when this returns.
fn append(files: &dyn FileSystem, path: &Path, len: u64, text: &str) -> io::Result<()> {
    let file = files.file(path, FileAccess::Write);
    file.set_len(len)?;
    file.write(len, text.as_bytes())?;
    file.sync()
}

/// Whether all cores are guarded, and those of which something else is said, in a single file.
pub(super) fn parse(bytes: &[u8]) -> Option<(bool, Vec<(DiscoveryKey, bool)>)> {
    match lines::parse(bytes) {
        Content::Sealed(_, said) | Content::Old(said) => {
            Some((said.is_restored, said.cores.into_iter().collect()))
        }
        Content::Damaged | Content::Later(_) => None,
    }
}

/// The file that says so.
pub(super) fn text_of(is_restored: bool, cores: &[(DiscoveryKey, bool)]) -> String {
    let cores = cores.iter().copied().collect();
    Said { is_restored, cores }.to_lines().1
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::file_system::OsFileSystem;
    use super::*;

    fn core(number: u8) -> DiscoveryKey {
        DiscoveryKey::from([number; 32])
    }

    fn load(path: PathBuf) -> Result<Guards, StorageError> {
        Guards::load(Arc::new(OsFileSystem), path)
    }

    fn place() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guards");
        let copy = directory.path().join("guards.copy");
        (directory, path, copy)
    }

    /// All cores are guarded but the first, and the third was imported.
    fn written(path: &Path) -> Vec<u8> {
        let mut guards = load(path.to_owned()).unwrap();
        guards.guard_all().unwrap();
        guards.set(&core(1), false).unwrap();
        guards.set(&core(3), false).unwrap();
        guards.set(&core(3), true).unwrap();
        fs::read(path).unwrap()
    }

    fn is_as_written(path: &Path) -> bool {
        let guards = load(path.to_owned()).unwrap();
        let copy = path.with_extension("copy");
        assert_eq!(fs::read(path).unwrap(), fs::read(copy).unwrap());
        assert!(guards.is_guarded(&core(2)) && guards.is_guarded(&core(3)));
        !guards.is_guarded(&core(1))
    }

    #[test]
    fn guards_outlive_the_process() {
        let (_directory, path, _) = place();
        let open = || load(path.clone()).unwrap();
        assert!(!open().is_guarded(&core(1)));
        assert!(!path.exists(), "nothing to say");
        open().set(&core(1), true).unwrap();
        assert!(open().is_guarded(&core(1)) && !open().is_guarded(&core(2)));
        open().set(&core(1), false).unwrap();
        assert!(!open().is_guarded(&core(1)));
        open().guard_all().unwrap();
        assert!(open().is_guarded(&core(1)) && open().is_guarded(&core(2)));
        open().set(&core(2), false).unwrap();
        assert!(open().is_guarded(&core(1)) && !open().is_guarded(&core(2)));
    }

    /// Goal: wherever a crash cuts a line of either file, it opens, and no core is written that was guarded by a
    /// whole line and not confirmed by another.
    #[test]
    fn a_cut_line_confirms_nothing() {
        let (_directory, path, copy) = place();
        let mut guards = load(path.clone()).unwrap();
        guards.guard_all().unwrap();
        let before = fs::read(&path).unwrap();
        guards.set(&core(1), false).unwrap();
        let after = fs::read(&path).unwrap();
        for len in before.len()..after.len() {
            for copied in [before.len(), len] {
                fs::write(&path, &after[..len]).unwrap();
                fs::write(&copy, &after[..copied]).unwrap();
                let mut guards = load(path.clone()).unwrap();
                assert!(guards.is_guarded(&core(1)), "cut at {len}");
                guards.set(&core(2), false).unwrap();
                let guards = load(path.clone()).unwrap();
                assert!(guards.is_guarded(&core(1)) && !guards.is_guarded(&core(2)));
            }
        }
        // Between the two files.
        fs::write(&path, &after).unwrap();
        fs::write(&copy, &before).unwrap();
        assert!(!load(path).unwrap().is_guarded(&core(1)));
        assert_eq!(fs::read(copy).unwrap(), after);
    }

    /// Goal: whatever becomes of one of the files, it is made anew of the other.
    #[test]
    fn of_two_files_one_may_be_damaged() {
        let (_directory, path, copy) = place();
        let whole = written(&path);
        for damaged in [&path, &copy] {
            for at in (0..whole.len()).step_by(11).chain([120, whole.len() - 1]) {
                let mut bytes = whole.clone();
                bytes[at] ^= 1;
                fs::write(damaged, &bytes).unwrap();
                assert!(is_as_written(&path), "byte {at} of {damaged:?}");
                fs::write(damaged, &whole[..at]).unwrap();
                assert!(is_as_written(&path), "{damaged:?} cut at {at}");
            }
            fs::remove_file(damaged).unwrap();
            assert!(is_as_written(&path), "without {damaged:?}");
            assert_eq!(fs::read(damaged).unwrap(), whole);
        }
    }

    /// Goal: where both are damaged every core is guarded, until somebody says otherwise of it.
    #[test]
    fn without_a_whole_file_every_core_is_guarded() {
        let (_directory, path, copy) = place();
        let whole = written(&path);
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        };
        let damages = [
            Vec::new(),
            flipped(3),
            flipped(whole.len() / 2),
            b"guarded x\n".to_vec(),
        ];
        for (one, other) in damages
            .iter()
            .flat_map(|one| damages.iter().map(move |other| (one, other)))
        {
            fs::write(&path, one).unwrap();
            fs::write(&copy, other).unwrap();
            let (guards, repair) = Guards::read(Arc::new(OsFileSystem), path.clone()).unwrap();
            assert!(guards.is_guarded(&core(1)) && repair == Repair::Anew);
            assert_eq!(&fs::read(&path).unwrap(), one, "reading changes nothing");
            let mut guards = load(path.clone()).unwrap();
            guards.set(&core(1), false).unwrap();
            assert!(is_as_written(&path));
        }
        fs::write(&path, "").unwrap();
        fs::remove_file(&copy).unwrap();
        assert!(load(path).unwrap().is_guarded(&core(1)));
    }

    #[test]
    fn files_that_contradict_each_other_guard_every_core() {
        let (_directory, path, copy) = place();
        let mut guards = load(path.clone()).unwrap();
        guards.set(&core(1), true).unwrap();
        guards.set(&core(1), false).unwrap();
        let foreign = text_of(false, &[(core(2), true)]);
        fs::write(&copy, foreign).unwrap();
        assert!(load(path).unwrap().is_guarded(&core(1)));
    }

    #[test]
    fn files_without_checksums_are_read_and_written_anew() {
        let (_directory, path, _) = place();
        let old = format!("guarded {}\nrestored\nconfirmed {}\nconf", core(4), core(1));
        fs::write(&path, old).unwrap();
        assert!(is_as_written(&path));
        assert!(fs::read(&path).unwrap().starts_with(b"guards 1 "));
        assert!(is_as_written(&path), "once more");
    }

    #[test]
    fn guards_have_a_bound() {
        let (_directory, path, _) = place();
        let mut guards = load(path.clone()).unwrap();
        guards.set(&core(2), true).unwrap();
        let before = fs::read(&path).unwrap();
        guards.lines.as_mut().unwrap().len = GUARDS_BYTES_MAX - 10;
        let full = guards.set(&core(1), true).unwrap_err();
        assert!(matches!(full, StorageError::FileTooLong { .. }), "{full}");
        assert!(!guards.is_guarded(&core(1)) && fs::read(&path).unwrap() == before);
        fs::File::create(&path)
            .unwrap()
            .set_len(GUARDS_BYTES_MAX + 1)
            .unwrap();
        let error = load(path).err().unwrap();
        assert!(matches!(error, StorageError::FileTooLong { .. }), "{error}");
    }

    /// Goal: what a later program wrote is not taken for damage, which would write it anew.
    #[test]
    fn a_line_of_a_later_version_is_refused() {
        let (_directory, path, _) = place();
        let checksum = crc32fast::hash(b"guards 2");
        fs::write(&path, format!("guards 2 {checksum:08x}\n")).unwrap();
        let error = load(path.clone()).err().unwrap();
        assert!(
            matches!(error, StorageError::UnknownFormat { .. }),
            "{error}"
        );
        fs::remove_file(&path).unwrap();
        written(&path);
        let mut guards = load(path.clone()).unwrap();
        guards.add("frozen x").unwrap();
        let error = load(path).err().unwrap();
        assert!(
            matches!(error, StorageError::UnknownFormat { .. }),
            "{error}"
        );
    }
}
