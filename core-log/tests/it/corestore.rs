//! Goal: a store finds the same cores again, by every way to ask, and keeps its secrets.

use std::collections::BTreeSet;
use std::task::{Context, Poll, Waker};

use crate::common::{bytes, fixed32, infos, ready, section, vector};
use bytes::Bytes;
use ferrocore_log::corestore::FollowedCores;
use ferrocore_log::manifest::Prologue;
use ferrocore_log::proof::{ProofRequest, UpgradeRequest};
use ferrocore_log::storage::memory::Memory;
use ferrocore_log::{Core, CoreError, CoreOptions, Corestore, Manifest, StoreError, StoreOptions};
use ferrocore_primitives::keys::{DiscoveryKey, Key};
use ferrocore_primitives::sign::KeyPair;

fn store(root_secret: [u8; 32]) -> Corestore {
    let memory = Memory::with_root_secret(root_secret);
    Corestore::with_storage(memory, StoreOptions::default()).unwrap()
}

/// The options of a core of `key_pair`.
fn of(key_pair: KeyPair) -> CoreOptions {
    CoreOptions {
        key_pair: Some(key_pair),
        ..CoreOptions::default()
    }
}

#[test]
fn names_derive_as_in_javascript() {
    let namespaces = [vec![], vec!["alpha"], vec!["alpha", "beta"]];
    let mut seen = 0;
    for vector in section("corestore") {
        let (input, output) = (&vector["input"], &vector["output"]);
        let Some(namespace) = input["namespace"].as_str() else {
            continue;
        };
        let root = store(fixed32(&input["primaryKey"]));
        let path = &namespaces[seen / 3];
        let store = path.iter().fold(root, |store, name| store.namespace(name));
        let name = input["name"].as_str().unwrap();
        let key_pair = store.key_pair(name);
        assert_eq!(key_pair.seed()[..], bytes(&output["seed"]), "{namespace}");
        assert_eq!(key_pair.to_secret()[..], bytes(&output["secretKey"]));
        let public_key = key_pair.public_key();
        assert_eq!(public_key.as_bytes()[..], bytes(&output["publicKey"]));
        let version = input["manifestVersion"].as_u64().unwrap();
        let manifest = match version {
            0 => Manifest::compat(public_key),
            _ => Manifest {
                version,
                ..Manifest::single(public_key)
            },
        };
        let key = manifest.key();
        assert_eq!(key.as_bytes()[..], bytes(&output["key"]));
        let discovery_key = key.discovery_key();
        assert_eq!(discovery_key.as_bytes()[..], bytes(&output["discoveryKey"]));
        if version == 1 {
            assert_eq!(store.get_named(name).unwrap().key(), key);
        }
        seen += 1;
    }
    assert_eq!(seen, 9, "three namespaces, three manifest versions");
}

#[test]
fn a_name_is_the_same_core_as_in_a_live_corestore() {
    let vector = vector("corestore", "get-real");
    let (input, output) = (&vector["input"], &vector["output"]);
    let store = store(fixed32(&input["primaryKey"])).namespace("alpha");
    let core = store.get_named(input["name"].as_str().unwrap()).unwrap();
    let signer = &output["manifest"]["signers"][0];
    let manifest = Manifest::single(fixed32(&signer["publicKey"]).into());
    assert_eq!(core.manifest(), Some(manifest));
    assert_eq!(core.key().as_bytes()[..], bytes(&output["key"]));
    let discovery_key = core.discovery_key();
    assert_eq!(discovery_key.as_bytes()[..], bytes(&output["discoveryKey"]));
}

/// Goal: names and namespaces are the UTF-8 they are given in, neither normalised nor trimmed.
#[test]
fn text_in_names_derives_as_in_javascript() {
    let vectors = section("corestore").into_iter();
    let vectors: Vec<_> = vectors.filter(|v| v["input"]["path"].is_array()).collect();
    assert_eq!(vectors.len(), 8);
    for vector in vectors {
        let (input, output) = (&vector["input"], &vector["output"]);
        let root = store(fixed32(&input["primaryKey"]));
        let path = input["path"].as_array().unwrap().iter();
        let store = path.fold(root, |store, name| store.namespace(name.as_str().unwrap()));
        let name = input["name"].as_str().unwrap();
        let public_key = store.key_pair(name).public_key();
        assert_eq!(public_key.as_bytes()[..], bytes(&output["publicKey"]));
        let key = store.get_named(name).unwrap().key();
        assert_eq!(key.as_bytes()[..], bytes(&output["key"]), "{name:?}");
    }
}

#[test]
fn a_core_is_found_by_every_way_to_ask() {
    let store = Corestore::memory();
    let core = store.get_named("a").unwrap();
    core.append("hello").unwrap();
    let (key, discovery_key) = (core.key(), core.discovery_key());
    for reopened in [false, true] {
        let by_name = store.get_named("a").unwrap();
        assert!(by_name.is_writable());
        assert_eq!(by_name.length(), 1);
        assert_eq!(store.get(&key).unwrap().length(), 1, "reopened {reopened}");
        let by_discovery_key = store.get_by_discovery_key(&discovery_key).unwrap();
        assert_eq!(by_discovery_key.unwrap().key(), key);
        // The handles of this round are dropped here.
    }
    drop(core);
    assert!(
        store.get(&key).unwrap().is_writable(),
        "by its name in the header"
    );
    let unknown = DiscoveryKey::from([9; 32]);
    assert!(store.get_by_discovery_key(&unknown).unwrap().is_none());
    assert_ne!(store.namespace("x").get_named("a").unwrap().key(), key);
}

#[test]
fn open_cores_are_shared() {
    let store = Corestore::memory();
    let one = store.get_named("a").unwrap();
    let other = store.namespace("x").get(&one.key()).unwrap();
    one.append("seen by both").unwrap();
    assert_eq!(other.length(), 1);
}

#[test]
fn a_reader_knows_the_key_only() {
    let store = Corestore::memory();
    let key = Corestore::memory().get_named("theirs").unwrap().key();
    let reader = store.get(&key).unwrap();
    assert_eq!(reader.key(), key);
    assert!(!reader.is_writable() && reader.manifest().is_none());
    assert!(reader.append("no").is_err());
}

#[test]
fn a_name_can_be_given_to_a_core_of_somebody_else() {
    let store = Corestore::memory();
    let key = Corestore::memory().get_named("theirs").unwrap().key();
    let options = CoreOptions {
        key: Some(key),
        name: Some("friend".to_owned()),
        ..CoreOptions::default()
    };
    let named = store.get_with(options).unwrap();
    assert!(!named.is_writable());
    let name = named.user_data("corestore/name");
    assert_eq!(
        name, None,
        "Corestore 6 would sign with the name's key pair"
    );
    drop(named);
    assert_eq!(store.get_named("friend").unwrap().key(), key);
}

#[test]
fn key_pairs_and_manifests_make_cores() {
    let store = Corestore::memory();
    let key_pair = KeyPair::from_seed(&[4; 32]);
    let public_key = key_pair.public_key();
    let core = store.get_with(of(key_pair.clone())).unwrap();
    assert_eq!(core.key(), Manifest::single(public_key).key());
    assert!(core.is_writable() && !core.is_compat());
    let compat = CoreOptions {
        compat: true,
        ..of(key_pair.clone())
    };
    let core = store.get_with(compat).unwrap();
    assert_eq!(core.key().as_bytes(), public_key.as_bytes());
    assert!(core.is_writable() && core.is_compat());
    core.append("signed as hypercore 10 does").unwrap();
    let version_0 = CoreOptions {
        manifest: Some(Manifest::compat(public_key)),
        ..of(key_pair)
    };
    let core = store.get_with(version_0).unwrap();
    assert_eq!(core.key(), Manifest::compat(public_key).key());
    core.append("signed").unwrap();
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let store = Corestore::memory();
    let key_pair = KeyPair::from_seed(&[4; 32]);
    let other = KeyPair::from_seed(&[5; 32]);
    let key = Manifest::single(key_pair.public_key()).key();
    let nothing = store.get_with(CoreOptions::default());
    assert!(matches!(nothing, Err(StoreError::Unspecified)));
    let wrong_pair = CoreOptions {
        manifest: Some(Manifest::single(key_pair.public_key())),
        ..of(other.clone())
    };
    let wrong_pair = store.get_with(wrong_pair);
    assert!(matches!(
        wrong_pair,
        Err(StoreError::KeyPairMismatch { .. })
    ));
    let wrong_key = CoreOptions {
        key: Some(key),
        manifest: Some(Manifest::single(other.public_key())),
        ..CoreOptions::default()
    };
    let wrong_key = store.get_with(wrong_key);
    assert!(matches!(wrong_key, Err(StoreError::KeyMismatch { .. })));
    assert!(store.list().unwrap().is_empty(), "nothing was created");
    let reader = store.get(&key).unwrap();
    let busy = store.get_with(of(key_pair.clone()));
    assert!(matches!(busy, Err(StoreError::OpenReadOnly { .. })));
    drop(reader);
    let core = store.get_with(of(key_pair)).unwrap();
    assert!(core.is_writable(), "the reader learnt its manifest");
}

#[test]
fn the_list_tells_names_and_lengths() {
    let store = Corestore::memory();
    let named = store.namespace("x").get_named("a").unwrap();
    named.append("1").unwrap();
    let reader = store.get(&Key::from([7; 32])).unwrap();
    drop(reader);
    let list = infos(&store);
    assert_eq!(list.len(), 2);
    let info = list.iter().find(|info| info.key == named.key()).unwrap();
    assert_eq!((info.length, info.fork), (1, 0));
    let alias = info.alias.as_ref().unwrap();
    assert_eq!(alias.name, "a");
    assert_ne!(alias.namespace, [0; 32]);
    let info = list.iter().find(|info| info.key != named.key()).unwrap();
    assert_eq!((info.length, &info.alias), (0, &None));
}

#[test]
fn names_are_listed_by_namespace() {
    let store = Corestore::memory();
    let sub = store.namespace("ä");
    for name in ["b", "ß", ""] {
        store.get_named(name).unwrap();
    }
    let core = sub.get_named("b").unwrap();
    let names = store.names().unwrap();
    let names: Vec<_> = names.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["", "b", "ß"]);
    let names = sub.names().unwrap();
    assert_eq!(names, [("b".to_owned(), core.discovery_key())]);
    assert!(sub.namespace("c").names().unwrap().is_empty());
    let namespaces = store.namespaces().unwrap();
    assert!(namespaces.len() == 2 && namespaces.contains(&[0; 32]));
    assert_eq!(sub.aliases().unwrap().len(), 4);
    drop(core);
    let core = sub.get_named("b").unwrap().discovery_key();
    store.purge(&core).unwrap();
    assert!(sub.names().unwrap().is_empty());
}

#[test]
fn who_watches_hears_what_happens_to_cores() {
    use ferrocore_log::corestore::StoreEvent;
    let store = Corestore::memory();
    let before = store.get_named("before").unwrap();
    let events = store.namespace("x").watch();
    assert_eq!(events.try_next(), None);
    store.get(&before.key()).unwrap();
    let core = store.get_named("new").unwrap().discovery_key();
    assert_eq!(ready(events.next()), Some(StoreEvent::Created(core)));
    assert_eq!(ready(events.next()), Some(StoreEvent::Opened(core)));
    assert_eq!(events.try_next(), None, "what is open is not opened again");
    store.get_named("new").unwrap();
    assert_eq!(events.try_next(), Some(StoreEvent::Opened(core)));
    assert!(store.purge(&before.discovery_key()).is_err());
    store.purge(&core).unwrap();
    assert_eq!(events.try_next(), Some(StoreEvent::Purged(core)));
    let mut next = std::pin::pin!(events.next());
    let mut context = Context::from_waker(Waker::noop());
    assert!(next.as_mut().poll(&mut context).is_pending());
    drop((store, before));
    assert!(matches!(next.poll(&mut context), Poll::Ready(None)));
}

#[test]
fn who_watches_hears_of_every_open_core() {
    let store = Corestore::memory();
    let early = store.get_named("early").unwrap();
    let mut watch = store.watch_opened();
    assert_eq!(ready(watch.next()).unwrap().key(), early.key());
    assert!(watch.try_next().is_none());
    {
        let mut next = std::pin::pin!(watch.next());
        let mut context = Context::from_waker(Waker::noop());
        assert!(next.as_mut().poll(&mut context).is_pending());
        let late = store.namespace("x").get_named("late").unwrap();
        let Poll::Ready(Some(told)) = next.as_mut().poll(&mut context) else {
            panic!("it was woken");
        };
        assert_eq!(told.key(), late.key());
    }
    // More than fit any queue, each closed and opened again: those open are told, once.
    let cores: Vec<_> = (0..3000)
        .map(|i| store.get_named(&i.to_string()).unwrap())
        .collect();
    drop(cores);
    let kept = store.get_named("7").unwrap();
    let told: BTreeSet<_> = std::iter::from_fn(|| watch.try_next())
        .map(|core| core.key())
        .collect();
    assert_eq!(told, BTreeSet::from([kept.key()]));
    drop(store);
    assert!(ready(watch.next()).is_none());
    assert_eq!(kept.length(), 0, "a core outlives its store");
}

#[test]
fn readers_of_all_cores_wait_while_a_store_looks_for_suppliers() {
    let store = Corestore::memory();
    let reader = |byte| store.get(&Key::from([byte; 32])).unwrap();
    let waits = |core: &Core| {
        let mut get = std::pin::pin!(core.get(0));
        get.as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    };
    let early = reader(1);
    assert!(!waits(&early));
    let (first, second) = (store.finding(), store.finding());
    let late = reader(2);
    assert!(waits(&early) && waits(&late));
    drop(first);
    assert!(waits(&early) && waits(&late), "one still looks");
    drop(second);
    assert!(!waits(&early) && !waits(&late));
    assert!(!waits(&reader(3)));
}

/// Goal: readers of a core wait from its opening until it was told to all who follow the store, or they were let go, and no longer.
/// Method: each of two followers is told, or lets go, in another order.
#[test]
fn readers_wait_until_their_core_is_told() {
    let store = Corestore::memory();
    let cores = std::cell::RefCell::new(Vec::new());
    let open = |byte| {
        let core = store.get(&Key::from([byte; 32])).unwrap();
        cores.borrow_mut().push(core);
    };
    let waits = || {
        let cores = cores.borrow();
        let waits = cores.iter().map(|core| {
            let mut get = std::pin::pin!(core.get(0));
            let polled = get.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            polled.is_pending()
        });
        waits.collect::<Vec<_>>()
    };
    open(1);
    open(2);
    assert_eq!(waits(), [false; 2]);
    let (mut first, mut second) = (store.follow_opened(), store.follow_opened());
    open(3);
    assert_eq!(waits(), [true; 3]);
    let (core, finding) = first.try_next().unwrap();
    assert_eq!(core.key(), cores.borrow()[0].key());
    assert!(second.try_next().is_some());
    assert_eq!(waits(), [true; 3], "until the guard is dropped");
    drop(finding);
    assert_eq!(waits(), [false, true, true]);
    while first.try_next().is_some() {}
    assert_eq!(waits(), [false, true, true], "the second was told one");
    open(4);
    first.mark();
    open(5);
    first.let_go();
    assert_eq!(waits(), [false, true, true, true, true]);
    second.mark();
    open(6);
    second.let_go();
    assert_eq!(waits(), [false, false, false, false, true, true]);
    let finding = store.finding();
    assert_eq!(waits(), [true; 6]);
    drop(finding);
    let rest = std::iter::from_fn(|| second.try_next().map(|(core, _)| core.key()));
    let rest: Vec<_> = rest.collect();
    assert_eq!(rest.len(), 5, "also those that were let go");
    assert_eq!(waits(), [false, false, false, false, true, true]);
    drop(first);
    assert_eq!(waits(), [false; 6]);
    drop(second);
    open(7);
    assert_eq!(waits(), [false; 7]);
}

/// Goal: who follows a store learns of a core that nobody was told of, and not of those that were let go.
#[test]
fn what_is_untold_is_heard_of() {
    let store = Corestore::memory();
    let mut followed = store.follow_opened();
    let is_heard = |followed: &FollowedCores| {
        let mut untold = std::pin::pin!(followed.untold());
        let mut context = Context::from_waker(Waker::noop());
        untold.as_mut().poll(&mut context).is_ready()
    };
    assert!(!is_heard(&followed));
    let _first = store.get_named("first").unwrap();
    assert!(is_heard(&followed));
    followed.mark();
    followed.let_go();
    assert!(!is_heard(&followed));
    let _second = store.get_named("second").unwrap();
    assert!(is_heard(&followed));
    while followed.try_next().is_some() {}
    assert!(!is_heard(&followed));
}

#[cfg(feature = "files")]
mod files {
    use super::*;
    use ferrocore_log::storage::StorageError;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    fn open(directory: &Path) -> Corestore {
        Corestore::open(directory, StoreOptions::default()).unwrap()
    }

    fn core_directory(store: &Path, core: &DiscoveryKey) -> PathBuf {
        let name = core.to_hex();
        let cores = store.join("corestore/cores");
        cores.join(&name[..2]).join(&name[2..4]).join(&name)
    }

    /// All files below a directory, with what is in them.
    fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => files.extend(contents(&path)),
                false => files.push((path.clone(), fs::read(path).unwrap())),
            }
        }
        files
    }

    #[test]
    fn named_cores_are_writable_again_after_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let key = {
            let store = open(directory.path());
            let core = store.namespace("x").get_named("a").unwrap();
            core.append("one").unwrap();
            core.key()
        };
        fs::write(directory.path().join("corestore/CORESTORE"), "device/…").unwrap();
        fs::create_dir(directory.path().join("corestore/db")).unwrap();
        for round in 1..4 {
            let store = open(directory.path());
            let core = match round {
                1 => store.namespace("x").get_named("a").unwrap(),
                2 => store.get(&key).unwrap(),
                _ => {
                    let core = store.get_by_discovery_key(&key.discovery_key());
                    core.unwrap().unwrap()
                }
            };
            assert_eq!((core.key(), core.length()), (key, round));
            core.append("more").unwrap();
            assert_eq!(store.list().unwrap().len(), 1);
        }
    }

    #[test]
    fn the_index_of_names_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let key = {
            let store = open(directory.path());
            let options = CoreOptions {
                name: Some("a".to_owned()),
                compat: true,
                ..CoreOptions::default()
            };
            let core = store.get_with(options).unwrap();
            core.append("one").unwrap();
            core.key()
        };
        fs::remove_file(directory.path().join("aliases")).unwrap();
        let store = open(directory.path());
        assert_eq!(store.get_named("a").unwrap().key(), key);
    }

    /// Goal: neither the loss nor the damage of the index loses a name, as long as a core or the
    /// copy tells it.
    #[test]
    fn names_survive_what_happens_to_their_index() {
        type Damage = fn(&Path);
        let damages: [Damage; 6] = [
            |store| fs::remove_file(store.join("aliases")).unwrap(),
            |store| fs::remove_file(store.join("aliases.copy")).unwrap(),
            |store| fs::write(store.join("aliases"), [7; 99]).unwrap(),
            |store| fs::write(store.join("aliases"), "").unwrap(),
            |store| {
                fs::write(store.join("aliases"), [7; 99]).unwrap();
                fs::write(store.join("aliases.copy"), "").unwrap();
            },
            |store| {
                fs::remove_file(store.join("aliases")).unwrap();
                fs::remove_file(store.join("aliases.copy")).unwrap();
            },
        ];
        let theirs = Corestore::memory().get_named("theirs").unwrap().key();
        for damage in damages {
            let directory = tempfile::tempdir().unwrap();
            let (ours, compat) = {
                let store = open(directory.path());
                let compat = CoreOptions {
                    name: Some("ü".to_owned()),
                    compat: true,
                    ..CoreOptions::default()
                };
                let compat = store.namespace("x").get_with(compat).unwrap().key();
                let friend = CoreOptions {
                    key: Some(theirs),
                    name: Some("friend".to_owned()),
                    ..CoreOptions::default()
                };
                store.get_with(friend).unwrap();
                (store.get_named("a").unwrap().key(), compat)
            };
            damage(directory.path());
            for _ in 0..2 {
                let store = open(directory.path());
                assert_eq!(store.get_named("a").unwrap().key(), ours);
                assert_eq!(store.namespace("x").get_named("ü").unwrap().key(), compat);
                let names = store.names().unwrap();
                let friend = names.iter().find(|(name, _)| name == "friend");
                assert_eq!(friend.unwrap().1, theirs.discovery_key());
                assert_eq!(store.namespaces().unwrap().len(), 2);
            }
        }
    }

    /// A compat core under a name is what Corestore 6 makes, without any index.
    #[test]
    fn cores_that_corestore_6_added_later_are_found_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let key = {
            let store = open(directory.path());
            let key_pair = store.key_pair("theirs");
            let compat = CoreOptions {
                compat: true,
                ..of(key_pair)
            };
            store.get_with(compat).unwrap().key()
        };
        let store = open(directory.path());
        assert_eq!(store.get_named("theirs").unwrap().key(), key);
        assert_eq!(store.list().unwrap().len(), 1);
    }

    #[test]
    fn secrets_stay_in_private_files() {
        let directory = tempfile::tempdir().unwrap();
        let imported = KeyPair::from_seed(&[0x5e; 32]);
        let (seed, key) = {
            let store = open(directory.path());
            let named = store.get_named("a").unwrap();
            named.append("1").unwrap();
            named.flush().unwrap();
            let core = store.get_with(of(imported.clone())).unwrap();
            core.append("1").unwrap();
            (*store.key_pair("a").seed(), core.key())
        };
        let (mut holders, mut secrets) = (Vec::new(), Vec::new());
        for (path, content) in contents(directory.path()) {
            let holds = |seed: &[u8]| content.windows(32).any(|window| window == seed);
            assert!(!holds(&seed), "{} holds a derived secret", path.display());
            if holds(imported.seed()) {
                holders.push(path.clone());
            }
            if path.ends_with("primary-key") || path.parent().unwrap().ends_with("keys") {
                secrets.push(path);
            }
        }
        assert_eq!(holders.len(), 1);
        assert!(holders[0].parent().unwrap().ends_with("keys"));
        assert_eq!(secrets.len(), 2);
        #[cfg(unix)]
        for path in secrets {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let store = open(directory.path());
        assert!(store.get(&key).unwrap().is_writable(), "its key was kept");
    }

    #[test]
    fn an_open_store_is_locked_and_names_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let error = Corestore::open(directory.path(), StoreOptions::default()).unwrap_err();
        let StoreError::Storage(StorageError::Locked { path, holder }) = error else {
            panic!("{error}");
        };
        assert!(path.ends_with("primary-key"));
        assert_eq!(holder, Some(std::process::id()));
        drop(store);
        open(directory.path());
    }

    #[test]
    fn a_core_that_another_program_has_open_is_locked() {
        let directory = tempfile::tempdir().unwrap();
        let key = {
            let store = open(directory.path());
            store.get_named("a").unwrap().key()
        };
        // Another store reaches the same core through a link: as a bare hypercore 10 would.
        let other = tempfile::tempdir().unwrap();
        let cores = other.path().join("corestore");
        fs::create_dir(&cores).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(
            directory.path().join("corestore/cores"),
            cores.join("cores"),
        )
        .unwrap();
        fs::write(cores.join("primary-key"), [9; 32]).unwrap();
        let (one, two) = (open(directory.path()), open(other.path()));
        let held = one.get(&key).unwrap();
        let error = two.get(&key).unwrap_err();
        let locked = matches!(&error, StoreError::Storage(StorageError::Locked { path, .. }) if path.ends_with("oplog"));
        assert!(locked, "{error}");
        drop(held);
        two.get(&key).unwrap();
    }

    #[test]
    fn threads_that_open_and_drop_never_find_each_other_locked() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(open(directory.path()));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let store = Arc::clone(&store);
                std::thread::spawn(move || {
                    for _ in 0..200 {
                        store.get_named("a").unwrap().append("x").unwrap();
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert_eq!(store.get_named("a").unwrap().length(), 800);
    }

    #[test]
    fn a_directory_that_is_another_core_is_corrupt() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        let core = store.get_named("a").unwrap().discovery_key();
        let wrong = DiscoveryKey::from([3; 32]);
        let to = core_directory(directory.path(), &wrong);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::rename(core_directory(directory.path(), &core), to).unwrap();
        let error = store.get_by_discovery_key(&wrong).unwrap_err();
        let corrupt = matches!(error, StoreError::Storage(StorageError::Corrupt { .. }));
        assert!(corrupt, "{error}");
        let report = format!("{:?}", store.list().unwrap());
        assert!(report.contains("another core"), "{report}");
    }

    /// Goal: where the index of names is lost, and with it the name that was given to a core whose header is damaged, nobody
    /// gets another core by that name; names that are known, or that a core derives from, lead where they did.
    #[test]
    fn no_other_core_takes_the_name_of_a_damaged_one() {
        let directory = tempfile::tempdir().unwrap();
        let given = |name: &str| CoreOptions {
            name: Some(name.to_owned()),
            key: Some([9; 32].into()),
            ..CoreOptions::default()
        };
        let store = open(directory.path());
        let ours = store.get_named("ours").unwrap().key();
        let theirs = store.get_with(given("theirs")).unwrap().discovery_key();
        drop(store);
        let indexes = ["aliases", "aliases.copy"].map(|name| directory.path().join(name));
        let oplog = core_directory(directory.path(), &theirs).join("oplog");
        let whole = fs::read(&oplog).unwrap();
        fs::write(&oplog, [7; 8192]).unwrap();
        for index in &indexes {
            fs::remove_file(index).unwrap();
        }
        for _ in 0..2 {
            let store = open(directory.path());
            assert_eq!(store.get_named("ours").unwrap().key(), ours);
            let refused = store.get_named("theirs").unwrap_err().to_string();
            assert!(refused.contains(&theirs.to_hex()), "{refused}");
            assert_eq!(store.list().unwrap().len(), 2);
        }
        fs::write(&oplog, whole).unwrap();
        let store = open(directory.path());
        assert_eq!(store.get_named("theirs").unwrap().discovery_key(), theirs);
        store.get_named("another").unwrap();
        drop(store);
        // An index in which a line is left that names it tells enough.
        fs::write(&oplog, [7; 8192]).unwrap();
        let lines = fs::read_to_string(&indexes[0]).unwrap();
        for index in &indexes {
            fs::write(index, lines.replacen("generation", "generatio", 1)).unwrap();
        }
        let store = open(directory.path());
        let damaged = store.get_named("theirs").unwrap_err();
        assert!(matches!(
            damaged,
            StoreError::Storage(StorageError::Corrupt { .. })
        ));
        store.get_named("yet another").unwrap();
        store.purge(&theirs).unwrap();
        store.get_named("theirs").unwrap();
    }

    /// Goal: a core that cannot be read is named with what is wrong, and keeps no other out of the list, nor
    /// their secrets.
    #[test]
    fn a_damaged_core_keeps_no_other_out_of_the_list() {
        type Damage = fn(&Path);
        let cut_oplog: Damage = |core| {
            let oplog = fs::read(core.join("oplog")).unwrap();
            fs::write(core.join("oplog"), &oplog[..100]).unwrap();
        };
        let damages: [(Damage, &str); 7] = [
            (|core| fs::write(core.join("oplog"), "").unwrap(), "oplog"),
            (|core| fs::remove_file(core.join("oplog")).unwrap(), "oplog"),
            (cut_oplog, "oplog"),
            (
                |core| fs::write(core.join("oplog"), [7; 8192]).unwrap(),
                "oplog",
            ),
            (|core| fs::write(core.join("tree"), "").unwrap(), "tree"),
            (
                |core| fs::write(core.join("oplog"), [0; 8192]).unwrap(),
                "oplog",
            ),
            (
                |core| {
                    fs::remove_file(core.join("oplog")).unwrap();
                    fs::create_dir(core.join("oplog")).unwrap();
                },
                "oplog",
            ),
        ];
        for (damage, part) in damages {
            let directory = tempfile::tempdir().unwrap();
            let store = open(directory.path());
            let cores = ["a", "b", "c"].map(|name| {
                let core = store.get_named(name).unwrap();
                core.append(name).unwrap();
                core.flush().unwrap();
                core.discovery_key()
            });
            let [_, damaged, _] = cores;
            damage(&core_directory(directory.path(), &damaged));
            drop(store);
            for read_only in [true, false] {
                let options = StoreOptions {
                    read_only,
                    ..StoreOptions::default()
                };
                let store = Corestore::open(directory.path(), options).unwrap();
                let mut listed = store.list().unwrap();
                let names = listed.iter().map(|core| core.discovery_key);
                assert!(names.is_sorted() && listed.len() == 3);
                let at = listed.iter().position(|core| core.discovery_key == damaged);
                let error = listed.remove(at.unwrap()).info.unwrap_err();
                let names_it = match &error {
                    StoreError::Storage(StorageError::Corrupt { core, part: p, .. }) => {
                        *core == damaged && *p == part
                    }
                    StoreError::Storage(StorageError::Io { path, .. }) => path.ends_with(part),
                    _ => false,
                };
                assert!(names_it, "{error}");
                let lengths = listed.iter().map(|core| core.info.as_ref().unwrap().length);
                assert_eq!(lengths.collect::<Vec<_>>(), [1, 1]);
                assert_eq!(store.core_secrets().unwrap().len(), 2);
                assert!(store.contains(&damaged).unwrap());
                let tree = core_directory(directory.path(), &damaged).join("tree");
                let before = fs::read(&tree).unwrap();
                assert!(store.get_named("b").is_err(), "none takes its place");
                assert!(store.get_by_discovery_key(&damaged).is_err());
                assert_eq!(fs::read(&tree).unwrap(), before);
            }
            let store = open(directory.path());
            if core_directory(directory.path(), &damaged)
                .join("oplog")
                .is_dir()
            {
                continue; // no file to lock: whoever made that must remove it
            }
            store.purge(&damaged).unwrap();
            assert!(store.list().unwrap().iter().all(|core| core.info.is_ok()));
        }
    }
}

#[test]
fn an_empty_value_is_no_user_data_now_and_later() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let store = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
        let core = store.get_named("core").unwrap();
        assert_eq!(core.user_data("key"), None);
        core.set_user_data("key", Some(b"value")).unwrap();
        core.set_user_data("key", Some(b"")).unwrap();
        assert_eq!(core.user_data("key"), None);
    }
}

#[test]
fn a_pinned_beginning_is_appended_as_a_whole_or_not_at_all() {
    let key_pair = KeyPair::from_seed(&[7; 32]);
    let model = Corestore::memory().get_named("model").unwrap();
    model.append_batch(vec!["a".into(), "b".into()]).unwrap();
    let prologue = Prologue {
        hash: model.tree_hash(),
        length: 2,
    };
    let manifest = Manifest {
        prologue: Some(prologue),
        ..Manifest::single(key_pair.public_key())
    };
    let options = CoreOptions {
        key_pair: Some(key_pair),
        manifest: Some(manifest),
        ..CoreOptions::default()
    };
    let core = Corestore::memory().get_with(options).unwrap();
    for wrong in [vec!["a"], vec!["a", "c"], vec!["a", "b", "c"]] {
        let wrong = wrong.into_iter().map(Bytes::from).collect();
        let refused = core.append_batch(wrong);
        assert!(matches!(refused, Err(CoreError::Prologue { .. })));
    }
    core.append_batch(vec!["a".into(), "b".into()]).unwrap();
    core.append("c").unwrap();
    assert!(matches!(
        core.truncate(1, None),
        Err(CoreError::Prologue { .. })
    ));
    let reader = Corestore::memory().get(&core.key()).unwrap();
    let request = ProofRequest {
        upgrade: Some(UpgradeRequest {
            start: 0,
            length: 3,
        }),
        manifest: true,
        ..ProofRequest::default()
    };
    reader
        .accept(core.prove(&request).unwrap().unwrap())
        .unwrap();
    assert_eq!(reader.tree_hash(), core.tree_hash());
}

/// Goal: what crashes leave behind goes, as many bytes as the file system says, and nothing else;
/// drafts count for their core and go with it.
#[cfg(all(unix, feature = "files"))]
#[test]
fn garbage_is_told_and_removed() {
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, SystemTime};
    fn put(path: &Path, age: Duration) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = fs::File::create(path).unwrap();
        std::io::Write::write_all(&mut &file, &[7; 20_000]).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }
    let (now, old) = (Duration::ZERO, Duration::from_secs(2 * 60 * 60));
    let directory = tempfile::tempdir().unwrap();
    let at = |path: &str| directory.path().join(path);
    let store = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let core = store.get_named("kept").unwrap();
    core.append("x").unwrap();
    let gone = store.get_named("gone").unwrap().discovery_key();
    store.purge(&gone).unwrap();
    let dkey = core.discovery_key().to_hex();
    let own = store.disk_bytes(&core.discovery_key()).unwrap();
    put(&at(&format!("drafts/{dkey}/first/data")), old);
    let with_drafts = store.disk_bytes(&core.discovery_key()).unwrap();
    assert!(with_drafts >= own + 20_000);

    let name = "ab".repeat(32);
    let garbage = [
        at(&format!("corestore/cores/ab/ab/{name}.purged")),
        at(&format!("drafts/{name}")),
        at(&format!("drafts/{}.purged", "cd".repeat(32))),
        at(&format!("drafts/{dkey}/{}.purged", "ef".repeat(32))),
        at("aliases.new"),
        at("keys/xy.new"),
        at(".tmpAbCdEf"),
    ];
    garbage[..4]
        .iter()
        .for_each(|path| put(&path.join("x/data"), now));
    garbage[4..].iter().for_each(|path| put(path, old));
    fs::create_dir_all(at(&format!("corestore/cores/cd/ef/cdef{}", "0".repeat(60)))).unwrap();
    let kept = [
        "corestore/CORESTORE",
        "corestore/db/1.sst",
        "other",
        "names.new",
    ];
    let kept = [
        &kept[..],
        &["corestore/cores/README", "corestore/cores/ff/x"],
    ]
    .concat();
    kept.iter().for_each(|path| put(&at(path), now));

    let before = allocated(directory.path());
    let told = store.collect_garbage(true).unwrap();
    assert_eq!(allocated(directory.path()), before);
    let removed = store.collect_garbage(false).unwrap();
    assert_eq!(told, removed);
    let bytes: u64 = removed.iter().map(|found| found.bytes).sum();
    assert_eq!(allocated(directory.path()), before - bytes);
    assert!(bytes > 6 * 20_000);
    for path in &garbage {
        assert!(!path.exists() && removed.iter().any(|found| found.path == *path));
    }
    // A core of the store may lie in `ab` or `cd`.
    assert!(!at("corestore/cores/ab/ab").exists() && !at("corestore/cores/cd/ef").exists());
    assert!(kept.iter().all(|path| at(path).exists()));
    assert!(store.collect_garbage(false).unwrap().is_empty());
    assert_eq!(ready(core.get(0)).unwrap(), "x");
    let core_key = core.discovery_key();
    drop(core);
    store
        .get_by_discovery_key(&core_key)
        .unwrap()
        .unwrap()
        .flush()
        .unwrap();
    let all = store.disk_bytes(&core_key).unwrap();
    let before = allocated(directory.path());
    assert_eq!(store.purge(&core_key).unwrap(), all);
    assert!(allocated(directory.path()) <= before - all);
    assert!(!at(&format!("drafts/{dkey}")).exists());
}

/// Goal: a core that is purged is gone from disk and from the index of names, but not while
/// somebody holds it, and what it took is what the file system says.
#[cfg(all(unix, feature = "files"))]
#[test]
fn a_purged_core_frees_what_it_took() {
    let directory = tempfile::tempdir().unwrap();
    let store = Corestore::open(directory.path(), StoreOptions::default()).unwrap();
    let kept = store.get_named("kept").unwrap();
    let core = store.get_named("doomed").unwrap();
    core.append(vec![7; 1 << 20]).unwrap();
    core.flush().unwrap();
    let (discovery_key, name) = (core.discovery_key(), core.discovery_key().to_hex());
    let path = format!("corestore/cores/{}/{}/{name}", &name[..2], &name[2..4]);
    let path = directory.path().join(path);
    let bytes = store.disk_bytes(&discovery_key).unwrap();
    assert!(bytes >= 1 << 20);
    assert_eq!(bytes, allocated(&path));

    let refused = store.purge(&discovery_key).unwrap_err();
    assert!(matches!(refused, StoreError::InUse { core } if core == discovery_key));
    drop(core);
    let before = allocated(directory.path());
    assert_eq!(store.purge(&discovery_key).unwrap(), bytes);
    assert!(allocated(directory.path()) <= before - bytes);
    assert!(!path.exists());
    assert!(
        store
            .get_by_discovery_key(&discovery_key)
            .unwrap()
            .is_none()
    );
    assert_eq!(store.list().unwrap().len(), 1);
    assert_eq!(store.purge(&discovery_key).unwrap(), 0, "it is gone");
    assert_eq!(store.get_named("doomed").unwrap().length(), 0);
    assert!(store.purge(&kept.discovery_key()).is_err());
}

/// What the file system says that all below a path takes.
#[cfg(all(unix, feature = "files"))]
fn allocated(path: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).unwrap();
    let below = metadata.is_dir().then(|| std::fs::read_dir(path).unwrap());
    let below = below.into_iter().flatten();
    let below: u64 = below.map(|entry| allocated(&entry.unwrap().path())).sum();
    512 * metadata.blocks() + below
}
