//! Secrets on their way out: `key backup`, `key export`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ferrocore::Key;
use ferrocore::log::backup::{Backup, CoreBackup};
use ferrocore::log::corestore::SecretOrigin;
use zeroize::Zeroizing;

use super::{Known, known, tally};
use crate::args::{KeyBackup, KeyExport};
use crate::commands::list::partly;
use crate::commands::space::keys;
use crate::context::Context;
use crate::events::{BackedUp, Exported};
use crate::exit::{Failure, Kind, Result};
use crate::names::Named;
use crate::passphrase::Passphrase;
use crate::target::Name;

/// Writes the root secret as words, or all secrets to a file, or both.
pub(super) async fn backup(context: &Context, backup: KeyBackup) -> Result<()> {
    let store = context.store.node.store();
    let root = store.root_secret();
    let known = known(context)?;
    let whole = everything(context, &known)?;
    let phrase = backup.phrase || backup.file.is_none();
    if let Some(file) = &backup.file {
        write_file(
            &context.path(file),
            &whole.seal(passphrase(context)?.bytes()),
        )?;
    }
    if phrase {
        let words = root.to_phrase();
        let line = Zeroizing::new(format!("{}\n", *words));
        context
            .output()
            .data(Bytes::copy_from_slice(line.as_bytes()))
            .await?;
    }
    let backed_up = BackedUp {
        fingerprint: root.fingerprint().to_string(),
        phrase,
        file: backup.file.as_ref().map(|file| file.display().to_string()),
        tally: tally(&whole.cores),
        not_in_phrase: not_derived(context, &known.keys)?,
    };
    context.output().report(&backed_up).await?;
    for core in &known.unreadable {
        context.output().report(core).await?;
    }
    partly(known.unreadable.len())
}

/// Writes the secrets of one core, or of both of a drive.
pub(super) async fn export(context: &Context, export: KeyExport) -> Result<()> {
    if export.core.path.is_some() || export.core.version.is_some() {
        return Err(Failure::usage("only whole drives and cores have keys"));
    }
    let mut exported = Backup::default();
    for key in keys(context, &export.core).await? {
        let secret = context
            .store
            .node
            .store()
            .core_secret(&key.discovery_key())?;
        let core = CoreBackup {
            // A name derives this core here, and another one elsewhere.
            alias: None,
            encryption: context.store.keyring.get(&key)?,
            label: context
                .store
                .names
                .name_of(&key)
                .and_then(|name| Some(label(&name, &context.store.names.find(&name)?))),
            ..secret.map_or_else(|| CoreBackup::new(key), CoreBackup::from)
        };
        exported.cores.push(core);
    }
    let tally = tally(&exported.cores);
    if tally.signing + tally.encryption == 0 {
        let message = format!("there is no secret of {} here", export.core.base);
        return Err(Failure::new(Kind::NotPermitted, message)
            .hint("`fcore key ls` shows the cores that there are secrets of"));
    }
    let passphrase = passphrase(context)?;
    match &export.file {
        Some(file) => write_file(&context.path(file), &exported.seal(passphrase.bytes()))?,
        None => {
            let text = exported.seal_text(passphrase.bytes());
            context.output().data(text.into()).await?;
        }
    }
    let exported = Exported {
        key: context.store.names.key(&export.core.base)?.to_string(),
        file: export.file.map(|file: PathBuf| file.display().to_string()),
        signing: tally.signing > 0,
        encryption: tally.encryption > 0,
    };
    context.output().report(&exported).await
}

/// The root secret, and every core that has a name or a secret of its own. The latter is left out where the core
/// cannot be read.
fn everything(context: &Context, known: &Known) -> Result<Backup> {
    let (store, names) = (context.store.node.store(), &context.store.names);
    let mut cores = Vec::new();
    for key in known.keys.iter().copied() {
        let secret = match known.is_readable(&key) {
            true => store.core_secret(&key.discovery_key())?,
            false => None,
        };
        let mut core = secret.map_or_else(|| CoreBackup::new(key), CoreBackup::from);
        if core.alias.is_some() {
            core.key_pair = None; // the root secret and the name bring it back
        }
        core.encryption = context.store.keyring.get(&key)?;
        cores.push(core);
    }
    for (name, named) in names.all() {
        let label = Some(label(&name, &named));
        let of_core = |core: &&mut CoreBackup| core.key == named.key && core.label.is_none();
        match cores.iter_mut().find(of_core) {
            Some(core) => core.label = label,
            None => cores.push(CoreBackup {
                label,
                ..CoreBackup::new(named.key)
            }),
        }
    }
    cores.retain(|core| {
        let has_secret = core.key_pair.is_some() || core.encryption.is_some();
        has_secret || core.alias.is_some() || core.label.is_some()
    });
    Ok(Backup {
        root: Some(store.root_secret().clone()),
        cores,
    })
}

/// How many secrets the root secret does not bring back.
fn not_derived(context: &Context, cores: &[Key]) -> Result<u64> {
    let secrets = context.store.node.store().core_secrets()?;
    let imported = secrets
        .iter()
        .filter(|secret| secret.origin == SecretOrigin::Imported);
    let mut count = imported.count() as u64;
    for key in cores {
        count += u64::from(context.store.keyring.get(key)?.is_some());
    }
    Ok(count)
}

/// What a backup remembers of a name: the kind and the name.
fn label(name: &Name, named: &Named) -> String {
    format!("{}:{}", named.kind.as_str(), name.as_str())
}

fn passphrase(context: &Context) -> Result<&Passphrase> {
    let asked = context.streams.passphrase.as_ref();
    asked.ok_or_else(|| Failure::usage("a backup in a file needs a passphrase"))
}

/// Writes a new file that only we can read; on the device when this returns.
fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let write = || {
        let mut file = options.open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| {
        let failure = Failure::storage(format!("cannot write {}", path.display()), &error);
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                failure.hint("choose another file: none is replaced")
            }
            _ => failure,
        }
    })
}
