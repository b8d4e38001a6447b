//! The secrets of the store: `key ls`, `backup`, `recover`, `export`, `import`.

mod give;
mod take;

use std::collections::{BTreeMap, HashMap};

use ferrocore::Key;
use ferrocore::log::backup::CoreBackup;
use ferrocore::log::corestore::{CoreSecret, SecretOrigin};

use super::list::{partly, sort_out};
use crate::args::KeyCommand;
use crate::context::Context;
use crate::events::{Root, Secret, SecretTally, Unreadable};
use crate::exit::Result;

pub(crate) use take::{recover, restore};

pub(crate) async fn run(context: &Context, command: KeyCommand) -> Result<()> {
    match command {
        KeyCommand::Ls => ls(context).await,
        KeyCommand::Backup(backup) => give::backup(context, backup).await,
        KeyCommand::Export(export) => give::export(context, export).await,
        KeyCommand::Import(import) => take::import(context, import).await,
        KeyCommand::Recover(_) => unreachable!("it runs before the store is opened"),
    }
}

/// Lists the root secret, then every core that there is a secret of.
async fn ls(context: &Context) -> Result<()> {
    let (store, names) = (context.store.node.store(), &context.store.names);
    let fingerprint = store.root_secret().fingerprint().to_string();
    context.output().list(&Root { fingerprint }).await?;
    let secrets = store.core_secrets()?.into_iter();
    let secrets: HashMap<Key, CoreSecret> = secrets.map(|secret| (secret.key, secret)).collect();
    let known = known(context)?;
    for key in known.keys {
        let secret = secrets.get(&key);
        let encryption = context.store.keyring.get(&key)?.is_some();
        if secret.is_none() && !encryption {
            continue;
        }
        let signs = secret.map(|secret| match secret.origin {
            SecretOrigin::Derived => "derived",
            _ => "imported",
        });
        let listed = Secret {
            key: key.to_string(),
            discovery_key: key.discovery_key().to_string(),
            name: names.name_of(&key).map(String::from),
            signs,
            encryption,
            guarded: secret.is_some_and(|secret| secret.is_guarded),
        };
        context.output().list(&listed).await?;
    }
    for core in &known.unreadable {
        context.output().list(core).await?;
    }
    partly(known.unreadable.len())
}

/// The cores that are here or have a name.
struct Known {
    /// Each once; also those with a name that cannot be read.
    keys: Vec<Key>,
    unreadable: Vec<Unreadable>,
}

impl Known {
    fn is_readable(&self, core: &Key) -> bool {
        let core = core.discovery_key().to_string();
        let mut unreadable = self.unreadable.iter();
        !unreadable.any(|other| other.discovery_key == core)
    }
}

fn known(context: &Context) -> Result<Known> {
    let (infos, unreadable) = sort_out(context, context.store.node.store().list()?);
    let named = context.store.names.all().into_iter();
    let named = named.map(|(_, named)| named.key);
    let keys = infos.iter().map(|info| info.key).chain(named);
    let keys: BTreeMap<[u8; 32], Key> = keys.map(|key| (*key.as_bytes(), key)).collect();
    Ok(Known {
        keys: keys.into_values().collect(),
        unreadable,
    })
}

fn tally<'a>(cores: impl IntoIterator<Item = &'a CoreBackup>) -> SecretTally {
    let mut tally = SecretTally::default();
    for core in cores {
        tally.cores += 1;
        tally.signing += u64::from(core.key_pair.is_some());
        tally.encryption += u64::from(core.encryption.is_some());
    }
    tally
}
