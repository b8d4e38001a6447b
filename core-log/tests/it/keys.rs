//! Goal: the secrets of a store are told, taken out and brought back, and nothing is written that
//! somebody else may have written already.
//! Method: stores on disk, opened again and again.

use std::path::Path;

use ferrocore_log::audit::Mode;
use ferrocore_log::backup::{Backup, CoreBackup};
use ferrocore_log::corestore::SecretOrigin;
use ferrocore_log::root_secret::RestoreError;
use ferrocore_log::{
    Core, CoreError, CoreOptions, Corestore, Durability, Manifest, RootSecret, StorageError,
    StoreError, StoreOptions,
};
use ferrocore_primitives::sign::KeyPair;

fn open(directory: &Path) -> Corestore {
    Corestore::open(directory, StoreOptions::default()).unwrap()
}

fn restore(directory: &Path, root: &RootSecret, replace: bool) -> Result<Corestore, RestoreError> {
    Corestore::restore(directory, StoreOptions::default(), root, replace)
}

#[track_caller]
fn assert_guarded(core: &Core) {
    let refused = core.append("x");
    assert!(
        matches!(refused, Err(CoreError::Unconfirmed { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_phrase_brings_every_name_back_but_none_is_written() {
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(before.path());
    let phrase = store.root_secret().to_phrase();
    let named = store.get_named("ñotes").unwrap().key();
    let nested = store.namespace("photos").get_named("db").unwrap().key();
    let root = RootSecret::from_phrase(&phrase).unwrap();
    assert_eq!(root.fingerprint(), store.root_secret().fingerprint());

    let store = restore(after.path(), &root, false).unwrap();
    assert_eq!(store.get_named("ñotes").unwrap().key(), named);
    let core = store.namespace("photos").get_named("db").unwrap();
    assert_eq!(core.key(), nested);
    assert_guarded(&core);
    drop((core, store));
    let store = open(after.path());
    let core = store.get_named("ñotes").unwrap();
    assert_guarded(&core);
    core.lift_guard().unwrap();
    core.append("first").unwrap();
    drop((core, store));
    // For good, and for that core alone.
    let store = open(after.path());
    let core = store.get(&named).unwrap();
    core.append("second").unwrap();
    assert_guarded(&store.get(&nested).unwrap());
    // What is restored once more is guarded once more.
    drop((core, store));
    let sync = StoreOptions {
        durability: Durability::Sync,
        ..StoreOptions::default()
    };
    let store = Corestore::restore(after.path(), sync, &root, false).unwrap();
    assert_guarded(&store.get(&named).unwrap());
}

#[test]
fn no_root_secret_is_lost_to_another() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let (mine, other) = (store.root_secret().clone(), RootSecret::from([9; 32]));
    drop(store);
    let refused = restore(directory.path(), &other, false).err();
    assert!(
        matches!(&refused, Some(RestoreError::OtherRoot { fingerprint, cores: 0 })
            if *fingerprint == mine.fingerprint()),
        "{refused:?}"
    );
    assert_eq!(*open(directory.path()).root_secret(), mine);
    // An empty store gives way if it may, and its secret is kept.
    drop(restore(directory.path(), &other, true).unwrap());
    let store = open(directory.path());
    assert_eq!(*store.root_secret(), other);
    let kept = format!("keys/root-{}", mine.fingerprint());
    let kept = directory.path().join(kept);
    assert_eq!(std::fs::read(&kept).unwrap(), mine.bytes());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(kept).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    // One with cores does not.
    drop(store.get_named("log").unwrap());
    drop(store);
    let refused = restore(directory.path(), &mine, true).err();
    assert!(matches!(
        refused,
        Some(RestoreError::OtherRoot { cores: 1, .. })
    ));
    assert_eq!(*open(directory.path()).root_secret(), other);
}

/// Goal: a store whose root secret was lost does not get another one, under which nobody could write its cores; it
/// takes the right one, also where a wrong one has taken its place.
/// Goal: any 32 bytes are a root secret, but not that of a store that had another one.
#[test]
fn a_damaged_root_secret_is_told_and_brought_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let root = store.root_secret().clone();
    store.get_named("log").unwrap().append("one").unwrap();
    drop(store);
    let [secret, mark] = ["corestore/primary-key", "root"].map(|name| directory.path().join(name));
    for bit in [0, 100, 255] {
        let mut bytes = std::fs::read(&secret).unwrap();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&secret, &bytes).unwrap();
        for read_only in [true, false] {
            let options = StoreOptions {
                read_only,
                ..StoreOptions::default()
            };
            let refused = Corestore::open(directory.path(), options).err();
            let is_told = matches!(
                refused,
                Some(StoreError::Storage(StorageError::RootSecretLost { .. }))
            );
            assert!(is_told, "{refused:?}");
        }
        let store = restore(directory.path(), &root, false).unwrap();
        assert_eq!(store.get_named("log").unwrap().length(), 1);
    }
    // What is remembered of it may be damaged, too, or be of an earlier program.
    let whole = std::fs::read(&mark).unwrap();
    let mut flipped = whole.clone();
    flipped[3] ^= 1;
    for damaged in [&flipped[..], b"", &[0; 26], &whole[..20]] {
        std::fs::write(&mark, damaged).unwrap();
        assert_eq!(*open(directory.path()).root_secret(), root);
        assert_eq!(std::fs::read(&mark).unwrap(), whole);
    }
    std::fs::remove_file(&mark).unwrap();
    assert_eq!(*open(directory.path()).root_secret(), root);
    assert_eq!(std::fs::read(&mark).unwrap(), whole);
}

/// Goal: nobody gets a new root secret unasked where the old one went, as Corestore 7 takes it into its database.
#[test]
fn a_root_secret_that_was_taken_is_missed_where_no_log_is() {
    let directory = tempfile::tempdir().unwrap();
    let root = open(directory.path()).root_secret().clone();
    std::fs::remove_file(directory.path().join("corestore/primary-key")).unwrap();
    let refused = Corestore::open(directory.path(), StoreOptions::default()).err();
    let is_told = matches!(
        refused,
        Some(StoreError::Storage(StorageError::RootSecretLost { .. }))
    );
    assert!(is_told, "{refused:?}");
    let store = restore(directory.path(), &root, false).unwrap();
    assert_eq!(*store.root_secret(), root);
}

#[test]
fn a_lost_root_secret_is_told_and_brought_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let root = store.root_secret().clone();
    let core = store.get_named("log").unwrap();
    core.append("one").unwrap();
    drop((core, store));
    let path = directory.path().join("corestore/primary-key");
    let damages: [Option<&[u8]>; 4] = [None, Some(b""), Some(&[7; 31]), Some(&[0; 32])];
    for damage in damages {
        match damage {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        for read_only in [true, false] {
            let options = StoreOptions {
                read_only,
                ..StoreOptions::default()
            };
            let refused = Corestore::open(directory.path(), options).err();
            assert!(
                matches!(
                    &refused,
                    Some(StoreError::Storage(StorageError::RootSecretLost { path: at })) if *at == path
                ),
                "{refused:?}"
            );
        }
        let refused = restore(directory.path(), &RootSecret::from([9; 32]), false).err();
        let is_told = matches!(refused, Some(RestoreError::NotOfStore { cores: 1 }));
        assert!(is_told, "{refused:?}");
        let store = restore(directory.path(), &root, false).unwrap();
        let core = store.get_named("log").unwrap();
        assert_eq!(core.length(), 1);
        assert_guarded(&core);
    }
    // A wrong one, of which no core is.
    std::fs::write(&path, [9; 32]).unwrap();
    drop(restore(directory.path(), &root, false).unwrap());
    assert_eq!(*open(directory.path()).root_secret(), root);
    let kept = RootSecret::from([9; 32]).fingerprint();
    assert!(directory.path().join(format!("keys/root-{kept}")).exists());
}

#[test]
fn an_imported_secret_writes_a_core_that_was_read() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [here, there] = directories.each_ref().map(|dir| open(dir.path()));
    for (name, is_known) in [("a", true), ("b", false)] {
        let key = here.get_named(name).unwrap().key();
        let secret = here.core_secret(&key.discovery_key()).unwrap().unwrap();
        assert_eq!(secret.origin, SecretOrigin::Derived);
        let backup = CoreBackup::from(secret);
        let pair = backup.key_pair.unwrap();
        if is_known {
            let reader = there.get(&key).unwrap();
            assert!(!reader.is_writable());
            let refused = there.import_secret(&key, backup.manifest.clone(), &pair);
            assert!(matches!(refused, Err(StoreError::InUse { .. })));
        }
        let other = KeyPair::generate();
        let refused = there.import_secret(&key, backup.manifest.clone(), &other);
        assert!(matches!(refused, Err(StoreError::KeyPairMismatch { .. })));
        assert!(!there.core_secrets().unwrap().iter().any(|s| s.key == key));
        let core = there.import_secret(&key, backup.manifest, &pair).unwrap();
        assert_guarded(&core);
        let secret = there.core_secret(&key.discovery_key()).unwrap().unwrap();
        assert_eq!(
            (secret.origin, secret.is_guarded),
            (SecretOrigin::Imported, true)
        );
        // What is imported guards nothing else.
        there
            .get_named("of its own")
            .unwrap()
            .append("free")
            .unwrap();
    }
    drop(there);
    let there = open(directories[1].path());
    let key = here.get_named("a").unwrap().key();
    let core = there.get(&key).unwrap();
    assert_guarded(&core);
    core.lift_guard().unwrap();
    core.append("goes on").unwrap();
}

/// Goal: a log whose imported secret is damaged is read and audited without it, and the error of who asks for the secret names its
/// file; once it was imported again, the log is written as before.
#[test]
fn a_damaged_secret_keeps_nobody_from_reading() {
    let directory = tempfile::tempdir().unwrap();
    let key_pair = KeyPair::generate();
    let options = CoreOptions {
        key_pair: Some(key_pair.clone()),
        ..CoreOptions::default()
    };
    let core = open(directory.path()).get_with(options).unwrap();
    core.append("signed").unwrap();
    let (key, name) = (core.key(), core.discovery_key().to_hex());
    drop(core);
    let path = directory.path().join("keys").join(name);
    let whole = std::fs::read(&path).unwrap();
    for at in [0, 31, 32, 63] {
        let mut secret = whole.clone();
        secret[at] ^= 1;
        std::fs::write(&path, secret).unwrap();
        let store = open(directory.path());
        let core = store.get(&key).unwrap();
        assert_eq!(core.get_local(0).unwrap().unwrap(), "signed");
        assert_eq!(core.audit(Mode::DryRun, |_| {}).unwrap().bad, 0);
        let refused = core.append("unsigned");
        assert!(matches!(refused, Err(CoreError::NotWritable { .. })));
        drop(core);
        drop(store.danger_get_unverified(&key).unwrap().unwrap());
        let told = store.core_secrets().unwrap_err().to_string();
        assert!(told.contains(path.to_str().unwrap()), "{told}");
        let core = store.import_secret(&key, None, &key_pair).unwrap();
        core.lift_guard().unwrap();
        core.append("goes on").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }
}

#[test]
fn secrets_are_told_with_where_they_come_from() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let named = store.get_named("named").unwrap().key();
    // As a drive's blobs are signed with the pair of its index.
    let pair = store.key_pair("named");
    let beside = Manifest {
        user_data: Some(b"beside".to_vec()),
        version: 2,
        ..Manifest::single(pair.public_key())
    };
    let with = |manifest: Option<Manifest>, key_pair| {
        let options = CoreOptions {
            manifest,
            key_pair: Some(key_pair),
            ..CoreOptions::default()
        };
        store.get_with(options).unwrap().key()
    };
    let beside = with(Some(beside), pair);
    let kept = with(None, KeyPair::generate());
    let foreign = store.get(&[1; 32].into()).unwrap().key();
    let secrets = store.core_secrets().unwrap();
    let origin = |key| {
        let secret = secrets.iter().find(|secret| secret.key == key);
        secret.map(|secret| secret.origin)
    };
    assert_eq!(origin(named), Some(SecretOrigin::Derived));
    assert_eq!(origin(beside), Some(SecretOrigin::Derived));
    assert_eq!(origin(kept), Some(SecretOrigin::Imported));
    assert_eq!(origin(foreign), None);
}

#[test]
fn a_backup_restores_a_whole_store() {
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(before.path());
    let named = store.namespace("n").get_named("log").unwrap().key();
    let options = CoreOptions {
        key_pair: Some(KeyPair::generate()),
        ..CoreOptions::default()
    };
    let imported = store.get_with(options).unwrap().key();
    let secrets = store.core_secrets().unwrap().into_iter();
    let backup = Backup {
        root: Some(store.root_secret().clone()),
        cores: secrets.map(CoreBackup::from).collect(),
    };
    let sealed = backup.seal(b"passphrase");

    let backup = Backup::open(&sealed, b"passphrase").unwrap();
    let store = restore(after.path(), &backup.root.unwrap(), false).unwrap();
    for core in backup.cores {
        let restored = match &core.alias {
            Some(alias) => store.restore_named(&core.key, alias, core.manifest),
            None => store.import_secret(&core.key, core.manifest, &core.key_pair.unwrap()),
        };
        assert_guarded(&restored.unwrap());
    }
    for key in [named, imported] {
        assert!(store.get(&key).unwrap().is_writable());
    }
    let store = open(&after.path().join("another"));
    let alias = store.namespace("n").get_named("log").map(|_| ());
    alias.unwrap();
}
