//! Secrets on their way in: `key recover`, `key import`.

use std::path::Path;

use ferrocore::Key;
use ferrocore::drive::Drive;
use ferrocore::log::backup::{Backup, BackupError, CoreBackup};
use ferrocore::log::{Corestore, RootSecret, StoreOptions};

use super::tally;
use crate::args::{Globals, KeyImport, KeyRecover};
use crate::context::Context;
use crate::events::{Imported, Recovered};
use crate::exit::{Failure, Kind, Result};
use crate::names::{CoreKind, Named};
use crate::passphrase::{Passphrase, phrase};
use crate::store::create_private;
use crate::target::Name;

/// Most bytes of a file that may be a backup.
const FILE_BYTES_MAX: u64 = 128 << 20;

/// Gives the store in `dir`, which need not exist, its root secret back; returns what else there is to
/// bring back.
pub(crate) fn restore(
    globals: &Globals,
    dir: &Path,
    recover: &KeyRecover,
    directory: &Path,
    passphrase: Option<&Passphrase>,
) -> Result<Backup> {
    let backup = match &recover.file {
        Some(file) => open_file(&directory.join(file), passphrase)?,
        None => Backup {
            root: Some(RootSecret::from_phrase(&phrase()?).map_err(Failure::usage)?),
            ..Backup::default()
        },
    };
    let Some(root) = &backup.root else {
        return Err(Failure::usage("this backup has no root secret")
            .hint("`fcore key import` takes in the keys of single cores"));
    };
    create_private(dir)?;
    let options = StoreOptions {
        durability: globals.durability.into(),
        ..StoreOptions::default()
    };
    // Opened anew for what follows, as any other store.
    drop(Corestore::restore(dir, options, root, globals.yes)?);
    Ok(backup)
}

/// Brings back what hangs on the root secret, which is there already.
pub(crate) async fn recover(context: &Context, recover: KeyRecover, backup: Backup) -> Result<()> {
    let (store, names) = (context.store.node.store(), &context.store.names);
    let mut tally = tally(&backup.cores);
    for core in backup.cores {
        if let (Some(alias), None) = (&core.alias, &core.key_pair) {
            store.restore_named(&core.key, alias, core.manifest.clone())?;
        }
        take(context, core, None)?;
    }
    for name in &recover.core {
        let key = store.get_named(name.as_str())?.key();
        remember(context, name, CoreKind::Core, key)?;
    }
    for name in &recover.drive {
        let key = Drive::create_index(&store.namespace(name.as_str()))?.key();
        remember(context, name, CoreKind::Drive, key)?;
    }
    tally.cores = tally.cores.max(names.all().len() as u64);
    let recovered = Recovered {
        fingerprint: store.root_secret().fingerprint().to_string(),
        tally,
    };
    context.output().report(&recovered).await
}

/// Takes in the secrets of single cores.
pub(super) async fn import(context: &Context, import: KeyImport) -> Result<()> {
    let passphrase = context.streams.passphrase.as_ref();
    let backup = match &import.file {
        Some(file) if file.as_os_str() != "-" => open_file(&context.path(file), passphrase)?,
        _ => open(&stdin(context).await?, passphrase)?,
    };
    if backup.root.is_some() {
        return Err(Failure::usage("this is the backup of a whole store")
            .hint("`fcore key recover` brings it back into a store of its own"));
    }
    for (index, core) in backup.cores.into_iter().enumerate() {
        // Of a drive the index comes first, and has the name.
        let wish = import.name.as_ref().filter(|_| index == 0);
        let imported = take(context, core, wish)?;
        context.output().report(&imported).await?;
    }
    Ok(())
}

/// Takes in what `core` tells, under the name `wish` or the one it had.
fn take(context: &Context, core: CoreBackup, wish: Option<&Name>) -> Result<Imported> {
    let store = context.store.node.store();
    let (key, discovery_key) = (core.key, core.key.discovery_key());
    let (signing, encryption) = (core.key_pair.is_some(), core.encryption.is_some());
    // What signs here already needs neither another secret nor a guard.
    if let Some(key_pair) = &core.key_pair
        && store.core_secret(&discovery_key)?.is_none()
    {
        store.import_secret(&key, core.manifest, key_pair)?;
    }
    if let Some(encryption) = &core.encryption {
        context.store.keyring.put(&key, encryption)?;
    }
    let (kind, label) = core
        .label
        .as_deref()
        .map_or((CoreKind::Core, None), unlabel);
    if let Some(name) = wish.cloned().or(label) {
        remember(context, &name, kind, key)?;
    }
    let secret = store.core_secret(&discovery_key)?;
    Ok(Imported {
        key: key.to_string(),
        name: context.store.names.name_of(&key).map(String::from),
        signing,
        encryption,
        guarded: secret.is_some_and(|secret| secret.is_guarded),
    })
}

/// The kind and the name of a label.
fn unlabel(label: &str) -> (CoreKind, Option<Name>) {
    let (kind, name) = label.split_once(':').unwrap_or(("", label));
    let kind = CoreKind::parse(kind).unwrap_or(CoreKind::Core);
    (kind, name.parse().ok())
}

/// Lets `name`, or one like it that is free, stand for the core.
fn remember(context: &Context, name: &Name, kind: CoreKind, key: Key) -> Result<()> {
    let names = &context.store.names;
    if names.find(name).is_some_and(|named| named.key == key) {
        return Ok(());
    }
    let named = Named {
        kind,
        key,
        folder: None,
    };
    context.store.name(&names.free(name), named)
}

fn open_file(path: &Path, passphrase: Option<&Passphrase>) -> Result<Backup> {
    let failed = |error| Failure::storage(format!("cannot read {}", path.display()), &error);
    let is_missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let length = match std::fs::metadata(path) {
        Err(error) if is_missing(&error) => {
            return Err(Failure::not_found(format!(
                "there is no {}",
                path.display()
            )));
        }
        metadata => metadata.map_err(failed)?.len(),
    };
    if length > FILE_BYTES_MAX {
        return Err(BackupError::NotABackup.into());
    }
    open(&std::fs::read(path).map_err(failed)?, passphrase)
}

fn open(bytes: &[u8], passphrase: Option<&Passphrase>) -> Result<Backup> {
    let none = || Failure::usage("a backup in a file needs a passphrase");
    Ok(Backup::open(bytes, passphrase.ok_or_else(none)?.bytes())?)
}

/// All of stdin, encrypted as it is.
async fn stdin(context: &Context) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| Failure::storage("cannot read stdin", &error);
    let (mut input, mut bytes) = (context.streams.input.lock().await, Vec::new());
    while let Some(chunk) = input.chunk().await.map_err(failed)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(Failure::new(Kind::Usage, BackupError::NotABackup));
        }
    }
    Ok(bytes)
}
