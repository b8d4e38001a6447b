//! Goal: a folder survives the way into a drive and out again, and nothing a drive says makes an
//! export write outside its folder. Method: real folders, compared with what they should be.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use ferrocore_bee::{Bee, Options};
use ferrocore_drive::mirror::{
    ExportCache, ExportError, ExportOptions, ImportCache, ImportError, ImportOptions, MirrorEvent,
    MirrorSummary, Op, Prune, SkipReason, export, import,
};
use ferrocore_drive::{BlobId, Drive, EntryValue, Selection};
use ferrocore_log::Corestore;
use pollster::block_on;
use proptest::prelude::*;
use tempfile::TempDir;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    File { bytes: Vec<u8>, executable: bool },
    Link(String),
}

type Tree = BTreeMap<String, Node>;

fn file(bytes: impl Into<Vec<u8>>) -> Node {
    Node::File {
        bytes: bytes.into(),
        executable: false,
    }
}

fn script(bytes: &str) -> Node {
    Node::File {
        bytes: bytes.into(),
        executable: true,
    }
}

fn tree<const N: usize>(nodes: [(&str, Node); N]) -> Tree {
    nodes.map(|(path, node)| (path.to_owned(), node)).into()
}

fn write_tree(root: &Path, tree: &Tree) {
    for (path, node) in tree {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match node {
            Node::Link(target) => symlink(target, path).unwrap(),
            Node::File { bytes, executable } => {
                fs::write(&path, bytes).unwrap();
                let mode = if *executable { 0o755 } else { 0o644 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
    }
}

fn read_tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let node = if metadata.is_dir() {
                folders.push(path);
                continue;
            } else if metadata.is_symlink() {
                Node::Link(
                    fs::read_link(&path)
                        .unwrap()
                        .into_os_string()
                        .into_string()
                        .unwrap(),
                )
            } else {
                Node::File {
                    bytes: fs::read(&path).unwrap(),
                    executable: metadata.mode() & 0o100 != 0,
                }
            };
            let below = path.strip_prefix(root).unwrap().to_str().unwrap();
            tree.insert(below.to_owned(), node);
        }
    }
    tree
}

/// A drive with a folder on each side, and what was told last.
struct Rig {
    drive: Drive,
    outer: TempDir,
    imported: ImportCache,
    exported: ExportCache,
    done: Vec<(Op, String)>,
    skipped: BTreeMap<String, SkipReason>,
}

impl Rig {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("source")).unwrap();
        Self {
            drive: block_on(Drive::create(&Corestore::memory())).unwrap(),
            outer,
            imported: ImportCache::default(),
            exported: ExportCache::default(),
            done: Vec::new(),
            skipped: BTreeMap::new(),
        }
    }

    fn with(tree: &Tree) -> Self {
        let rig = Self::new();
        write_tree(&rig.source(), tree);
        rig
    }

    fn source(&self) -> std::path::PathBuf {
        self.outer.path().join("source")
    }

    fn dest(&self) -> std::path::PathBuf {
        self.outer.path().join("dest")
    }

    fn import(&mut self) -> MirrorSummary {
        self.import_with(&ImportOptions::default()).unwrap()
    }

    fn import_with(&mut self, options: &ImportOptions) -> Result<MirrorSummary, ImportError> {
        let source = self.source();
        let (mut done, mut skipped) = (Vec::new(), BTreeMap::new());
        let observe = &mut |event: MirrorEvent<'_>| record(event, &mut done, &mut skipped);
        let result = import(&self.drive, &source, &mut self.imported, options, observe);
        (self.done, self.skipped) = (done, skipped);
        result
    }

    fn export(&mut self) -> MirrorSummary {
        self.export_with(|_| ()).unwrap()
    }

    fn export_with(
        &mut self,
        set: impl FnOnce(&mut ExportOptions),
    ) -> Result<MirrorSummary, ExportError> {
        let dest = self.dest();
        let mut options = ExportOptions::default();
        set(&mut options);
        let (mut done, mut skipped) = (Vec::new(), BTreeMap::new());
        let observe = &mut |event: MirrorEvent<'_>| record(event, &mut done, &mut skipped);
        let result = export(&self.drive, &dest, &mut self.exported, &options, observe);
        done.sort_by(|a, b| a.1.cmp(&b.1));
        (self.done, self.skipped) = (done, skipped);
        result
    }

    fn told(&self) -> Vec<(Op, &str)> {
        self.done
            .iter()
            .map(|(op, path)| (*op, path.as_str()))
            .collect()
    }
}

fn record(
    event: MirrorEvent<'_>,
    done: &mut Vec<(Op, String)>,
    skipped: &mut BTreeMap<String, SkipReason>,
) {
    match event {
        MirrorEvent::Done { op, path, .. } => done.push((op, path.to_owned())),
        MirrorEvent::Skipped { path, reason } => {
            skipped.insert(path.to_string_lossy().into_owned(), reason.clone());
        }
        _ => {}
    }
}

fn odd_tree() -> Tree {
    tree([
        ("empty", file("")),
        ("a space/new\nline", file("x")),
        ("#?%20&\u{1f600}", file("emoji")),
        ("e\u{301}", file("NFD")),
        ("\u{e9}", file("NFC")),
        (".hidden/..dots", file("dots")),
        ("bin/run.sh", script("#!/bin/sh\n")),
        ("a.txt", file("before a/")),
        ("a/b/c/d/e", file("deep")),
        ("a0", file("after a/")),
        ("big", file(vec![7; 3_000_000])),
        ("exact", file(vec![1; 65536])),
        ("more", file(vec![2; 65537])),
        ("links/relative", Node::Link("../a.txt".to_owned())),
        ("links/absolute", Node::Link("/etc/hostname".to_owned())),
        ("links/dangling", Node::Link("no where".to_owned())),
        ("links/folder", Node::Link("../a".to_owned())),
        ("x:y", file("colon")),
    ])
}

#[test]
fn a_folder_survives_the_way_in_and_out() {
    let expected = odd_tree();
    let mut rig = Rig::with(&expected);
    let imported = rig.import();
    assert_eq!(
        (imported.added, imported.skipped),
        (expected.len() as u64, 0)
    );
    assert!(
        rig.done.is_sorted_by_key(|(_, path)| path),
        "told in path order"
    );
    let exported = rig.export();
    assert_eq!(
        (exported.added, exported.skipped),
        (expected.len() as u64, 0)
    );
    assert_eq!(exported.bytes_added, imported.bytes_added);
    assert_eq!(read_tree(&rig.dest()), expected);
}

/// Goal: the same folder makes the same drive, whatever the threads do.
#[test]
fn imports_are_deterministic() {
    let hashes = [1, 8].map(|workers| {
        let mut rig = Rig::with(&odd_tree());
        let mut options = ImportOptions::default();
        options.workers = workers;
        rig.import_with(&options).unwrap();
        let blobs = block_on(rig.drive.blobs()).unwrap().core().tree_hash();
        let entries = rig.drive.version();
        (blobs, entries)
    });
    assert_eq!(hashes[0], hashes[1]);
}

#[test]
fn a_sparse_file_stays_sparse() {
    let mut rig = Rig::new();
    let size = 40 << 20;
    let source = fs::File::create(rig.source().join("sparse")).unwrap();
    source.set_len(size).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&source, b"data", 20 << 20).unwrap();
    rig.import();
    rig.export();
    let dest = fs::metadata(rig.dest().join("sparse")).unwrap();
    assert_eq!(dest.len(), size);
    assert!(dest.blocks() * 512 <= 1 << 20, "{} blocks", dest.blocks());
    let same = fs::read(rig.source().join("sparse")).unwrap();
    assert!(fs::read(rig.dest().join("sparse")).unwrap() == same);
}

#[test]
fn changes_are_imported_and_nothing_else() {
    let mut rig = Rig::with(&tree([
        ("changed", file("old")),
        ("gone/file", file("x")),
        ("link", Node::Link("a".to_owned())),
        ("same", file("same")),
        ("tool", file("tool")),
        ("touched", file(vec![3; 2_000_000])),
    ]));
    rig.import();
    let blobs = block_on(rig.drive.blobs()).unwrap().core().clone();
    let before = blobs.length();

    fs::write(rig.source().join("changed"), "new").unwrap();
    fs::remove_dir_all(rig.source().join("gone")).unwrap();
    fs::remove_file(rig.source().join("link")).unwrap();
    symlink("b", rig.source().join("link")).unwrap();
    fs::write(rig.source().join("new"), "new").unwrap();
    let tool = rig.source().join("tool");
    fs::set_permissions(tool, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(rig.source().join("touched"), vec![3; 2_000_000]).unwrap();
    let summary = rig.import();
    let told = [
        (Op::Change, "/changed"),
        (Op::Remove, "/gone/file"),
        (Op::Change, "/link"),
        (Op::Add, "/new"),
        (Op::Equal, "/same"),
        (Op::Change, "/tool"),
        (Op::Equal, "/touched"),
    ];
    assert_eq!(rig.told(), told);
    assert_eq!((summary.added, summary.changed, summary.removed), (1, 3, 1));
    assert_eq!(
        blobs.length(),
        before + 2,
        "equal content is not appended again"
    );
    rig.export();
    assert_eq!(read_tree(&rig.dest()), read_tree(&rig.source()));
}

/// Goal: what did not change is not read. Files that were written a moment ago are read once
/// more, for their times would not tell a change in the same tick: import until they settle.
#[test]
fn unchanged_files_are_not_read_again() {
    let mut rig = Rig::with(&odd_tree());
    rig.import();
    let version = rig.drive.version();
    let settled = (0..100_000).any(|_| rig.import().files_read == 0);
    assert!(settled);
    assert_eq!(rig.drive.version(), version);
    let cache = serde_json::to_string(&rig.imported).unwrap();
    rig.imported = serde_json::from_str(&cache).unwrap();
    assert_eq!(rig.import().files_read, 0, "also from a stored cache");

    rig.imported = ImportCache::default();
    let summary = rig.import();
    assert_eq!(
        summary.equal,
        odd_tree().len() as u64,
        "a lost cache costs time only"
    );
    assert_eq!(rig.drive.version(), version);

    // The drive was changed elsewhere: the cache does not know its content.
    block_on(rig.drive.put("/a0", "after A/")).unwrap();
    rig.import();
    assert_eq!(block_on(rig.drive.read("/a0", ..)).unwrap(), "after a/");
}

/// Goal: a file that changes while it is read is never taken for steady. Method: a thread that
/// touches it without pause; some import must notice, and give up on it after a few tries.
#[test]
fn a_file_that_changes_while_it_is_read_is_reported() {
    let mut rig = Rig::with(&tree([
        ("busy", file(vec![1; 8 << 20])),
        ("calm", file("calm")),
    ]));
    let busy = fs::File::open(rig.source().join("busy")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let noticed = std::thread::scope(|scope| {
        scope.spawn(|| {
            let times = (1..).map(|n| std::time::UNIX_EPOCH + std::time::Duration::from_nanos(n));
            for time in times.take_while(|_| !stop.load(std::sync::atomic::Ordering::Acquire)) {
                busy.set_modified(time).unwrap();
            }
        });
        let noticed = (0..1000).any(|_| {
            rig.import();
            rig.skipped.get("busy") == Some(&SkipReason::Changing)
        });
        stop.store(true, std::sync::atomic::Ordering::Release);
        noticed
    });
    assert!(noticed);
    assert_eq!(block_on(rig.drive.read("/calm", ..)).unwrap(), "calm");
    rig.import();
    assert_eq!(
        block_on(rig.drive.read("/busy", ..)).unwrap().len(),
        8 << 20
    );
}

#[test]
fn names_that_drives_cannot_have_are_skipped() {
    use std::os::unix::ffi::OsStrExt;
    let mut rig = Rig::with(&tree([
        (r"back\slash", file("1")),
        ("c:/file", file("2")),
        ("c/file", file("3")),
        ("back/slash", file("4")),
    ]));
    let not_utf8 = std::ffi::OsStr::from_bytes(b"caf\xe9");
    fs::write(rig.source().join(not_utf8), "5").unwrap();
    symlink(not_utf8, rig.source().join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(rig.source().join("socket")).unwrap();
    let summary = rig.import();
    assert_eq!(rig.told(), [(Op::Add, "/back/slash"), (Op::Add, "/c/file")]);
    let expected = [
        (r"back\slash", SkipReason::NotPortable),
        ("c:/file", SkipReason::NotPortable),
        ("caf\u{fffd}", SkipReason::NotUtf8),
        ("link", SkipReason::LinkNotUtf8),
        ("socket", SkipReason::Special),
    ];
    assert_eq!(
        rig.skipped,
        expected.map(|(path, why)| (path.to_owned(), why)).into()
    );
    assert_eq!(summary.skipped, 5);
    assert_eq!(block_on(rig.drive.read("/back/slash", ..)).unwrap(), "4");
}

#[test]
fn what_cannot_be_entered_keeps_what_the_drive_has_there() {
    let mut rig = Rig::new();
    let deep = vec!["d"; 300].join("/");
    fs::create_dir_all(rig.source().join(&deep)).unwrap();
    block_on(rig.drive.put(&format!("{deep}/kept"), "x")).unwrap();
    block_on(rig.drive.put("d!stale", "x")).unwrap();
    rig.import();
    assert_eq!(rig.told(), [(Op::Remove, "/d!stale")]);
    assert_eq!(
        rig.skipped.values().collect::<Vec<_>>(),
        [&SkipReason::TooDeep]
    );
    assert!(
        block_on(rig.drive.entry(&format!("{deep}/kept")))
            .unwrap()
            .is_some()
    );
}

#[test]
fn the_store_inside_the_folder_is_left_out() {
    let mut rig = Rig::with(&tree([
        ("store/primary-key", file("secret")),
        ("a", file("a")),
    ]));
    let mut options = ImportOptions::default();
    options.exclude = vec![rig.source().join("store")];
    rig.import_with(&options).unwrap();
    assert_eq!(rig.told(), [(Op::Add, "/a")]);
}

#[test]
fn a_source_that_is_no_folder_is_an_error() {
    let mut rig = Rig::new();
    fs::remove_dir(rig.source()).unwrap();
    let missing = rig.import_with(&ImportOptions::default());
    assert!(matches!(missing, Err(ImportError::Source { .. })));
}

/// Goal: nothing a drive says leads out of the folder. Method: raw entries as a hostile writer
/// would put them, a folder beside the destination that must not change.
#[test]
fn hostile_drives_write_nothing_outside() {
    let mut rig = Rig::new();
    let outside = tree([("secret", file("untouched"))]);
    write_tree(&rig.outer.path().join("outside"), &outside);
    fs::create_dir(rig.dest()).unwrap();
    symlink("../outside", rig.dest().join("planted")).unwrap();

    let blob = block_on(async { rig.drive.blobs().await.unwrap().put("evil").await.unwrap() });
    let evil = EntryValue::file(blob, false).to_json();
    let bee = Bee::new(rig.drive.index().clone(), Options::default());
    let long = format!("/{}", "n".repeat(300));
    let names = [
        "../escaped",
        "/../escaped",
        "/a/../../escaped",
        "//etc/x",
        "relative",
        "/./x",
        "/x/",
        r"/..\escaped",
        "/nul\0name",
        "/planted/secret",
        "/ln/secret",
        "/abs/secret",
        &long,
        "/",
        "",
        "/file/below",
        "/.ferrocore-part/0",
    ];
    let key = |name: &str| [b"files\0", name.as_bytes()].concat();
    let past_end = BlobId {
        block_offset: 1 << 40,
        byte_length: 1,
        block_length: 1 << 40,
        ..BlobId::default()
    };
    let too_long = BlobId {
        byte_length: 1 << 40,
        ..blob
    };
    let bad_map = BlobId {
        block_map: true,
        ..blob
    };
    block_on(async {
        for name in names {
            bee.put(key(name), &evil).await.unwrap();
        }
        for (name, target) in [("/ln", "../outside"), ("/abs", "/"), ("/self", "self")] {
            bee.put(key(name), EntryValue::link(target).to_json())
                .await
                .unwrap();
        }
        for (name, blob) in [("/end", past_end), ("/long", too_long), ("/map", bad_map)] {
            bee.put(key(name), EntryValue::file(blob, true).to_json())
                .await
                .unwrap();
        }
        bee.put(key("/json"), "{").await.unwrap();
        bee.put(key("/neither"), "{}").await.unwrap();
        bee.put([b"files\0/".as_slice(), &[0xff]].concat(), &evil)
            .await
            .unwrap();
        bee.put(key("/file"), &evil).await.unwrap();
        bee.put(key("/good"), &evil).await.unwrap();
    });
    for overwrite in [false, true] {
        let summary = rig
            .export_with(|options| options.overwrite = overwrite)
            .unwrap();
        let expected = tree([
            ("abs", Node::Link("/".to_owned())),
            ("file", file("evil")),
            ("good", file("evil")),
            ("ln", Node::Link("../outside".to_owned())),
            ("planted", Node::Link("../outside".to_owned())),
            ("self", Node::Link("self".to_owned())),
        ]);
        assert_eq!(read_tree(&rig.dest()), expected);
        assert_eq!(read_tree(&rig.outer.path().join("outside")), outside);
        let beside: Vec<_> = fs::read_dir(rig.outer.path()).unwrap().collect();
        assert_eq!(beside.len(), 3, "{beside:?}");
        assert_eq!(summary.skipped, names.len() as u64 + 6, "{:?}", rig.skipped);
        assert_eq!(rig.skipped["planted/secret"], SkipReason::ThroughLink);
        assert_eq!(rig.skipped["ln/secret"], SkipReason::Occupied);
        assert_eq!(rig.skipped["file/below"], SkipReason::Occupied);
    }
    let through = Selection::globs(["/ln/secret"]).unwrap();
    rig.export_with(|options| options.selection = through)
        .unwrap();
    assert_eq!(rig.skipped["ln/secret"], SkipReason::ThroughLink);
    assert_eq!(read_tree(&rig.outer.path().join("outside")), outside);
}

#[test]
fn local_files_that_we_did_not_write_are_kept() {
    let mut rig = Rig::with(&tree([
        ("same", file("same")),
        ("other", file("drive")),
        ("shorter", file("drive")),
        ("folder", file("drive")),
        ("link", Node::Link("drive".to_owned())),
        ("new", file("drive")),
    ]));
    rig.import();
    let local = tree([
        ("same", script("same")),
        ("other", file("local")),
        ("shorter", file("l")),
        ("folder/file", file("local")),
        ("link", Node::Link("local".to_owned())),
        ("mine", file("mine")),
    ]);
    write_tree(&rig.dest(), &local);
    let summary = rig.export();
    let kept = [
        ("folder", SkipReason::Occupied),
        ("link", SkipReason::Kept),
        ("other", SkipReason::Kept),
        ("shorter", SkipReason::Kept),
    ];
    assert_eq!(
        rig.skipped,
        kept.map(|(path, why)| (path.to_owned(), why)).into()
    );
    assert_eq!(
        (summary.added, summary.changed),
        (1, 1),
        "new, and same's executable bit"
    );
    let mut expected = local;
    expected.extend(tree([("new", file("drive")), ("same", file("same"))]));
    assert_eq!(read_tree(&rig.dest()), expected);

    rig.export_with(|options| options.overwrite = true).unwrap();
    expected.extend(tree([
        ("other", file("drive")),
        ("shorter", file("drive")),
        ("link", Node::Link("drive".to_owned())),
    ]));
    assert_eq!(read_tree(&rig.dest()), expected);
}

#[test]
fn what_we_wrote_follows_the_drive_until_somebody_changes_it() {
    let mut rig = Rig::with(&tree([
        ("a", file("1")),
        ("b", file("1")),
        ("c", file("1")),
    ]));
    rig.import();
    rig.export();
    let cache = serde_json::to_string(&rig.exported).unwrap();
    rig.exported = serde_json::from_str(&cache).unwrap();
    assert_eq!(rig.export().files_read, 0, "what we wrote is not read");

    fs::write(rig.dest().join("b"), "local change").unwrap();
    for name in ["a", "b"] {
        fs::write(rig.source().join(name), "22").unwrap();
    }
    fs::remove_file(rig.source().join("c")).unwrap();
    rig.import();
    rig.export();
    assert_eq!(rig.told(), [(Op::Change, "/a")]);
    let expected = tree([
        ("a", file("22")),
        ("b", file("local change")),
        ("c", file("1")),
    ]);
    assert_eq!(read_tree(&rig.dest()), expected);
}

#[test]
fn a_truncated_drive_whose_ids_come_again_is_written_again() {
    let mut rig = Rig::new();
    let blobs = block_on(rig.drive.blobs()).unwrap().core().clone();
    block_on(rig.drive.put("/a", "old")).unwrap();
    rig.export();
    let before = block_on(rig.drive.entry("/a")).unwrap().unwrap();
    rig.drive.index().truncate(1, None).unwrap();
    blobs.truncate(0, None).unwrap();
    block_on(rig.drive.put("/a", "new")).unwrap();
    let after = block_on(rig.drive.entry("/a")).unwrap().unwrap();
    assert_eq!(after.value.blob, before.value.blob);
    rig.export();
    assert_eq!(rig.told(), [(Op::Change, "/a")]);
    assert_eq!(fs::read(rig.dest().join("a")).unwrap(), b"new");
}

#[test]
fn prune_deletes_what_it_is_told_to() {
    let mut rig = Rig::with(&tree([
        ("a", file("1")),
        ("x/y/z", file("1")),
        ("x/w", file("1")),
    ]));
    rig.import();
    rig.export();
    fs::remove_dir_all(rig.source().join("x")).unwrap();
    rig.import();
    write_tree(&rig.dest(), &tree([("mine/too", file("m"))]));
    fs::write(rig.dest().join("x/w"), "changed here").unwrap();

    rig.export_with(|options| options.prune = Prune::Written)
        .unwrap();
    let left = tree([
        ("a", file("1")),
        ("mine/too", file("m")),
        ("x/w", file("changed here")),
    ]);
    assert_eq!(read_tree(&rig.dest()), left);
    assert!(
        !rig.dest().join("x/y").exists(),
        "folders that become empty go"
    );

    let only = |options: &mut ExportOptions| {
        options.prune = Prune::All;
        options.selection = Selection::globs(["x"]).unwrap();
    };
    rig.export_with(only).unwrap();
    assert_eq!(
        read_tree(&rig.dest()),
        tree([("a", file("1")), ("mine/too", file("m"))])
    );
    rig.export_with(|options| options.prune = Prune::All)
        .unwrap();
    assert_eq!(read_tree(&rig.dest()), tree([("a", file("1"))]));
}

#[test]
fn a_selection_exports_only_what_it_picks() {
    let mut rig = Rig::with(&odd_tree());
    rig.import();
    let picked = Selection::globs(["a/**", "*.txt", "bin"]).unwrap();
    rig.export_with(|options| options.selection = picked)
        .unwrap();
    let paths: Vec<String> = read_tree(&rig.dest()).into_keys().collect();
    assert_eq!(paths, ["a.txt", "a/b/c/d/e", "bin/run.sh"]);
}

#[test]
fn a_destination_that_is_a_file_is_an_error() {
    let mut rig = Rig::with(&tree([("a", file("1"))]));
    rig.import();
    fs::write(rig.dest(), "in the way").unwrap();
    let refused = rig.export_with(|_| ());
    assert!(
        matches!(refused, Err(ExportError::NotAFolder { .. })),
        "{refused:?}"
    );
    fs::remove_file(rig.dest()).unwrap();
    rig.export();
}

#[test]
fn a_cancelled_export_is_finished_by_the_next() {
    // More than can be under way when the first of them is told.
    let all: Tree = (0..3_000).map(|i| (format!("{i:04}"), file("x"))).collect();
    let mut rig = Rig::with(&all);
    rig.import();
    let options = ExportOptions::default();
    let cancel = options.cancel.clone();
    let stop = &mut |_: MirrorEvent<'_>| cancel.cancel();
    let dest = rig.dest();
    let stopped = export(&rig.drive, &dest, &mut rig.exported, &options, stop);
    assert!(
        matches!(stopped, Err(ExportError::Cancelled)),
        "{stopped:?}"
    );
    // As after a kill: what was being written is still there.
    fs::create_dir_all(dest.join(".ferrocore-part")).unwrap();
    fs::write(dest.join(".ferrocore-part/0"), "half").unwrap();
    rig.exported = ExportCache::default();
    rig.export();
    assert_eq!(read_tree(&dest), all);
}

#[test]
fn a_cancelled_import_keeps_what_it_did() {
    let mut rig = Rig::with(&odd_tree());
    let options = ImportOptions::default();
    options.cancel.cancel();
    let stopped = rig.import_with(&options);
    assert!(
        matches!(stopped, Err(ImportError::Cancelled)),
        "{stopped:?}"
    );
    rig.import();
    rig.export();
    assert_eq!(read_tree(&rig.dest()), odd_tree());
}

/// Goal: an import that is stopped within a file leaves no part of it under its name.
#[test]
fn a_file_is_imported_whole_or_not() {
    let rig = Rig::with(&tree([("large", file(vec![1; 24 << 20]))]));
    let options = ImportOptions::default();
    let stop = &mut |event: MirrorEvent<'_>| {
        if matches!(event, MirrorEvent::Progress { .. }) {
            options.cancel.cancel();
        }
    };
    let cache = &mut ImportCache::default();
    let stopped = import(&rig.drive, &rig.source(), cache, &options, stop);
    assert!(
        matches!(stopped, Err(ImportError::Cancelled)),
        "{stopped:?}"
    );
    assert_eq!(block_on(rig.drive.entry("/large")).unwrap(), None);
}

#[test]
fn a_reader_without_peers_fails_and_does_not_hang() {
    let mut rig = Rig::new();
    let key = rig.drive.key();
    rig.drive = block_on(Drive::open(&Corestore::memory(), &key)).unwrap();
    let alone = rig.export_with(|_| ());
    assert!(matches!(alone, Err(ExportError::Drive(_))), "{alone:?}");
}

fn node() -> impl Strategy<Value = Node> {
    prop_oneof![
        4 => (proptest::collection::vec(0..3u8, 0..200), any::<bool>())
            .prop_map(|(bytes, executable)| Node::File { bytes, executable }),
        1 => "[a-c./]{1,5}".prop_map(Node::Link),
    ]
}

/// Trees over few names, so that files and folders get into each other's place.
fn small_tree() -> impl Strategy<Value = Tree> {
    let path =
        proptest::collection::vec("[ab.-]{0,1}[ab0]", 1..4).prop_map(|names| names.join("/"));
    proptest::collection::btree_map(path, node(), 0..12).prop_map(|mut tree| {
        let paths: Vec<String> = tree.keys().cloned().collect();
        for path in &paths {
            let folder = format!("{path}/");
            if paths.iter().any(|other| other.starts_with(&folder)) {
                tree.remove(path);
            }
        }
        tree
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Goal: whatever a folder becomes, the drive and the other folder become it too.
    #[test]
    fn folders_follow_each_other(trees in proptest::collection::vec(small_tree(), 1..4)) {
        let mut rig = Rig::new();
        for tree in trees {
            fs::remove_dir_all(rig.source()).unwrap();
            fs::create_dir(rig.source()).unwrap();
            write_tree(&rig.source(), &tree);
            let summary = rig.import();
            prop_assert_eq!(summary.skipped, 0);
            rig.export_with(|options| options.prune = Prune::Written).unwrap();
            prop_assert!(rig.skipped.is_empty(), "{:?}", rig.skipped);
            prop_assert_eq!(read_tree(&rig.dest()), tree);
        }
    }
}
