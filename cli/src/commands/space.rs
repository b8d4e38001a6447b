//! Space on the disk: `du`, `purge`, `gc`.

use ferrocore::log::{CoreError, StorageError, StoreError};
use ferrocore::primitives::keys::DiscoveryKey;
use ferrocore::{Core, Key, NodeError};

use super::list::{partly, sort_out};
use crate::args::{Du, Purge};
use crate::confirm::confirm;
use crate::context::Context;
use crate::events::{Collected, Freed, Usage};
use crate::exit::{Failure, Kind, Result};
use crate::names::CoreKind;
use crate::output::human_bytes;
use crate::target::Place;

/// Lists what each core takes. In part only, if some cannot be read.
pub(crate) async fn du(context: &Context, du: Du) -> Result<()> {
    let store = context.store.node.store();
    let mut listed = store.list()?;
    if let Some(target) = &du.target {
        let keys = keys(context, target).await?.into_iter();
        let wanted: Vec<_> = keys.map(|key| key.discovery_key()).collect();
        listed.retain(|core| wanted.contains(&core.discovery_key));
    }
    if listed.is_empty() {
        context.output().say("Nothing of it is in the store").await;
    }
    let (infos, unreadable) = sort_out(context, listed);
    for info in infos {
        let name = context.store.names.name_of(&info.key);
        let usage = Usage {
            key: info.key.to_string(),
            name: name.map(String::from),
            length: info.length,
            bytes: store.disk_bytes(&info.discovery_key)?,
        };
        context.output().list(&usage).await?;
    }
    for core in &unreadable {
        context.output().list(core).await?;
    }
    partly(unreadable.len())
}

/// Deletes a core, or both cores of a drive.
pub(crate) async fn purge(context: &Context, purge: Purge) -> Result<()> {
    if purge.target.path.is_some() || purge.target.version.is_some() {
        return Err(Failure::usage("only whole drives and cores can be purged"));
    }
    let key = context.store.names.key(&purge.target.base)?;
    if context.store.is_drive_open(&key).await {
        let message = format!("drive {} is in use", purge.target.base);
        return Err(
            Failure::new(Kind::Storage, message).hint("stop the fcore that holds the store")
        );
    }
    let keys = keys(context, &purge.target).await?;
    context.store.close_drive(&key).await;
    let store = context.store.node.store();
    // By its discovery key, too: what is damaged may have no other name any more.
    let by_discovery_key = DiscoveryKey::from(*key.as_bytes());
    let mut doomed: Vec<_> = keys.iter().map(Key::discovery_key).collect();
    doomed.push(by_discovery_key);
    let mut is_here = Vec::new();
    for core in doomed {
        if store.contains(&core)? {
            is_here.push(core);
        }
    }
    let doomed = is_here;
    if doomed.is_empty() {
        let message = format!("nothing of {} is here", purge.target.base);
        return Err(Failure::not_found(message));
    }
    let found = survey(context, &doomed).await?;
    if context.globals.dry_run {
        return context.output().report(&found).await;
    }
    let bytes = human_bytes(found.bytes.unwrap_or_default());
    let key_too = match found.encryption {
        0 => "",
        _ => ", and the only key here that decrypts it",
    };
    let what = format!("Delete {} for good, {bytes}{key_too}", purge.target.base);
    confirm(context, &what).await?;
    let mut bytes = 0;
    for core in &doomed {
        bytes += store.purge(core)?;
        context.store.keyring.remove(core)?;
    }
    let named = context.store.names.all().into_iter();
    let named = named.map(|(_, named)| named.key);
    let gone = named.filter(|key| doomed.contains(&key.discovery_key()));
    for key in keys.into_iter().chain(gone) {
        context.store.names.remove(&key)?;
    }
    let freed = Freed {
        bytes: Some(bytes),
        dry_run: false,
        ..found
    };
    context.output().report(&freed).await
}

/// What purging `cores` would free. Says which of them are damaged, so that nobody can tell what is in them.
async fn survey(context: &Context, cores: &[DiscoveryKey]) -> Result<Freed> {
    let store = context.store.node.store();
    let (mut bytes, mut blocks, mut damaged, mut encryption) = (0, 0, 0, 0);
    for core in cores {
        bytes += store.disk_bytes(core)?;
        encryption += usize::from(context.store.keyring.contains(core));
        match store.get_by_discovery_key(core) {
            Ok(core) => blocks += core.as_ref().map_or(0, held),
            Err(error) if is_in_use(&error) => return Err(error.into()),
            Err(error) => {
                let text = format!("A core is damaged, its blocks are not counted: {error}");
                context.output().say(&text).await;
                damaged += 1;
            }
        }
    }
    Ok(Freed {
        bytes: Some(bytes),
        blocks,
        damaged,
        encryption,
        dry_run: true,
    })
}

/// Frees what crashes left behind.
pub(crate) async fn gc(context: &Context) -> Result<()> {
    let dry_run = context.globals.dry_run;
    let garbage = context.store.node.store().collect_garbage(dry_run)?;
    for found in &garbage {
        let done = if dry_run { "Would remove" } else { "Removed" };
        let (path, bytes) = (found.path.display(), human_bytes(found.bytes));
        context
            .output()
            .say(&format!("{done} {path}, {bytes}"))
            .await;
    }
    let collected = Collected {
        bytes: garbage.iter().map(|found| found.bytes).sum(),
        blocks: 0,
        leftovers: garbage.len(),
        dry_run,
    };
    context.output().report(&collected).await
}

fn held(core: &Core) -> u64 {
    core.count(0..core.length())
}

/// The cores that `target` consists of: of a drive the index first.
pub(super) async fn keys(context: &Context, target: &Place) -> Result<Vec<Key>> {
    let key = context.store.names.key(&target.base)?;
    let mut keys = vec![key];
    let kind = context.store.names.find_kind(&key);
    let store = &context.store.node;
    if !store.store().contains(&key.discovery_key())? || kind == Some(CoreKind::Core) {
        return Ok(keys);
    }
    match store.core(&key) {
        // What is no drive, or whose first block is not here, is one core.
        Ok(index) => {
            if index.has(0)
                && let Ok(blobs) = context.store.blobs_key(&key).await
            {
                keys.push(blobs);
            }
        }
        Err(NodeError::Store(error)) if is_in_use(&error) => return Err(error.into()),
        Err(_) if kind == Some(CoreKind::Drive) => {
            let text = "The drive's index is damaged: nothing tells which core has its files. \
                `fcore du` lists it when this one is gone";
            context.output().say(text).await;
        }
        Err(_) => {}
    }
    Ok(keys)
}

/// Whether a core cannot be opened for a reason that will pass, and is whole for all that is known.
fn is_in_use(error: &StoreError) -> bool {
    let storage = match error {
        StoreError::InUse { .. } => return true,
        StoreError::Storage(error) | StoreError::Core(CoreError::Storage(error)) => error,
        _ => return false,
    };
    matches!(storage, StorageError::Locked { .. })
}
