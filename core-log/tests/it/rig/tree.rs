//! What a power cut leaves of files and directories: the content of what was synced, under the names that were, and anything
//! of the rest.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::What;
use super::file::File;
use super::power::{Loss, kept_parts};
use super::rng::Rng;
use super::watched::TreeChange;

/// Files and directories below one, each by number: the first is the one itself. What has no name any more is kept, for a
/// name may come back.
#[derive(Clone)]
struct Tree(Vec<Node>);

#[derive(Clone)]
enum Node {
    File(File),
    Directory(BTreeMap<String, usize>),
}

/// A change of one file, or of one directory.
#[derive(Clone)]
enum Op {
    Content(usize, What),
    /// What comes under these names, or nothing: at once.
    Names(usize, Vec<(String, Option<usize>)>),
}

/// A directory as its syncs go by.
pub(crate) struct TreeDevice {
    root: PathBuf,
    /// What the syncs have covered.
    synced: Tree,
    /// What a process sees.
    seen: Tree,
    /// What no sync has covered, in order.
    pending: Vec<Op>,
}

impl TreeDevice {
    /// Of what is below `root`, all of it synced.
    pub(crate) fn new(root: &Path) -> Self {
        let mut tree = Tree(vec![Node::Directory(BTreeMap::new())]);
        tree.read(0, root);
        Self {
            root: root.to_owned(),
            synced: tree.clone(),
            seen: tree,
            pending: Vec::new(),
        }
    }

    /// Says whether this changes what a power cut may leave: a sync may have nothing to cover.
    pub(crate) fn advance(&mut self, change: &TreeChange) -> bool {
        let pending = self.pending();
        self.take_in(change);
        self.pending() != pending
    }

    fn take_in(&mut self, change: &TreeChange) {
        match change {
            TreeChange::CreateFile(path) => self.create(path, &Node::File(File::default())),
            TreeChange::CreateDirectory(path) => {
                self.create(path, &Node::Directory(BTreeMap::new()));
            }
            TreeChange::Content(path, What::Sync) => {
                let (_, _, found) = self.find(path);
                let synced = found.unwrap();
                self.cover(|op| matches!(op, Op::Content(file, _) if *file == synced));
            }
            TreeChange::Content(path, what) => {
                let (_, _, found) = self.find(path);
                self.make(Op::Content(found.unwrap(), what.clone()));
            }
            TreeChange::Rename(from, to) => {
                let ((above, from, found), (other, to, _)) = (self.find(from), self.find(to));
                assert_eq!(above, other, "names change within their directory");
                self.make(Op::Names(above, vec![(from, None), (to, found)]));
            }
            TreeChange::Remove(path) => {
                let (above, name, found) = self.find(path);
                assert!(found.is_some());
                self.make(Op::Names(above, vec![(name, None)]));
            }
            TreeChange::SyncDirectory(path) if path.starts_with(&self.root) => {
                let synced = match path == &self.root {
                    true => 0,
                    false => self.find(path).2.unwrap(),
                };
                self.cover(|op| matches!(op, Op::Names(directory, _) if *directory == synced));
            }
            TreeChange::SyncDirectory(_) => {} // above the store
            TreeChange::SyncAll => self.cover(|_| true),
        }
    }

    /// How many changes no sync has covered.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Writes what a crash now leaves into the directory `target`.
    pub(crate) fn write_after(&self, loss: Loss, rng: &mut Rng, target: &Path) {
        self.left(loss, rng, target);
    }

    /// The same, as a directory whose syncs go by. After a kill, what no sync has covered is with the system, and still not on the
    /// device.
    pub(crate) fn left(&self, loss: Loss, rng: &mut Rng, target: &Path) -> Self {
        let survivors = self.survivors(loss, rng);
        let mut seen = self.synced.clone();
        survivors.iter().for_each(|op| seen.apply(op));
        seen.write(0, target);
        let (synced, pending) = match loss.is_kill() {
            true => (self.synced.clone(), survivors),
            false => (seen.clone(), Vec::new()),
        };
        Self {
            root: target.to_owned(),
            synced,
            seen,
            pending,
        }
    }

    fn survivors(&self, loss: Loss, rng: &mut Rng) -> Vec<Op> {
        let is_resize = |op: &Op| matches!(op, Op::Content(_, What::SetLen(_)));
        let those = |keep: &mut dyn FnMut(&Op) -> bool| {
            let kept = self.pending.iter().filter(|op| keep(op));
            kept.cloned().collect()
        };
        match loss {
            Loss::Everything => Vec::new(),
            Loss::Nothing => self.pending.clone(),
            Loss::Behind(count) => self.pending.iter().take(count).cloned().collect(),
            Loss::Random => those(&mut |_| rng.one_in(2)),
            Loss::Resizes => those(&mut |op| !is_resize(op)),
            Loss::AllButResizes => those(&mut |op| is_resize(op)),
            Loss::Torn(unit) => self.torn(rng.below(self.pending.len().max(1)), unit, rng),
            Loss::LastTorn(unit) => self.torn(self.pending.len().saturating_sub(1), unit, rng),
        }
    }

    /// All changes, of which the `torn`-th, if it is a write, is in parts.
    fn torn(&self, torn: usize, unit: usize, rng: &mut Rng) -> Vec<Op> {
        let mut ops = Vec::new();
        for (number, op) in self.pending.iter().enumerate() {
            match op {
                Op::Content(file, What::Write { offset, bytes }) if number == torn => {
                    let kept = kept_parts(*offset, bytes.len(), unit, rng);
                    ops.extend(kept.into_iter().map(|part| {
                        let offset = offset + part.start as u64;
                        let bytes = bytes[part].into();
                        Op::Content(*file, What::Write { offset, bytes })
                    }));
                }
                _ => ops.push(op.clone()),
            }
        }
        ops
    }

    fn create(&mut self, path: &Path, node: &Node) {
        let (above, name, found) = self.find(path);
        assert!(found.is_none(), "{path:?} is there");
        let number = self.seen.0.len();
        self.seen.0.push(node.clone());
        self.synced.0.push(node.clone());
        self.make(Op::Names(above, vec![(name, Some(number))]));
    }

    fn make(&mut self, op: Op) {
        self.seen.apply(&op);
        self.pending.push(op);
    }

    fn cover(&mut self, is_covered: impl Fn(&Op) -> bool) {
        let covered = self.pending.extract_if(.., |op| is_covered(op));
        covered.for_each(|op| self.synced.apply(&op));
    }

    /// The directory that a path is in, its name there, and what is there.
    fn find(&self, path: &Path) -> (usize, String, Option<usize>) {
        let below = path.strip_prefix(&self.root).unwrap();
        let mut names: Vec<_> = below.iter().map(|name| name.to_str().unwrap()).collect();
        let last = names.pop().unwrap();
        let above = names
            .iter()
            .fold(0, |above, name| self.seen.names(above)[*name]);
        let found = self.seen.names(above).get(last).copied();
        (above, last.to_owned(), found)
    }
}

impl Tree {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Content(number, what) => {
                let Node::File(file) = &mut self.0[*number] else {
                    panic!("a directory has no bytes")
                };
                match what {
                    What::Write { offset, bytes } => file.write(*offset as usize, bytes),
                    What::SetLen(len) => file.resize(*len as usize),
                    What::Punch(range) => file.punch(range.start as usize..range.end as usize),
                    What::Rot { offset, byte } => file.write(*offset as usize, &[*byte]),
                    What::Sync => {}
                }
            }
            Op::Names(number, names) => {
                let Node::Directory(entries) = &mut self.0[*number] else {
                    panic!("a file holds no names")
                };
                for (name, what) in names {
                    match what {
                        Some(what) => entries.insert(name.clone(), *what),
                        None => entries.remove(name),
                    };
                }
            }
        }
    }

    fn names(&self, number: usize) -> &BTreeMap<String, usize> {
        match &self.0[number] {
            Node::Directory(names) => names,
            Node::File(_) => panic!("a file holds no names"),
        }
    }

    /// Takes in what is in a directory.
    fn read(&mut self, number: usize, directory: &Path) {
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(directory).unwrap() {
            let (path, found) = (entry.as_ref().unwrap().path(), self.0.len());
            if path.is_dir() {
                self.0.push(Node::Directory(BTreeMap::new()));
                self.read(found, &path);
            } else {
                self.0.push(Node::File(fs::read(&path).unwrap().into()));
            }
            names.insert(entry.unwrap().file_name().into_string().unwrap(), found);
        }
        self.0[number] = Node::Directory(names);
    }

    fn write(&self, number: usize, path: &Path) {
        match &self.0[number] {
            Node::File(file) => fs::write(path, file.to_vec()).unwrap(),
            Node::Directory(names) => {
                fs::create_dir_all(path).unwrap();
                for (name, number) in names {
                    self.write(*number, &path.join(name));
                }
            }
        }
    }
}
