//! Space on the disk: `du`, `purge`, `gc`.

use ferrocore::{Core, Key};

use crate::args::{Du, Purge};
use crate::confirm::confirm;
use crate::context::Context;
use crate::events::{Collected, Freed, Usage};
use crate::exit::{Failure, Kind, Result};
use crate::names::CoreKind;
use crate::output::human_bytes;
use crate::target::Place;

/// Lists what each core takes.
pub(crate) async fn du(context: &Context, du: Du) -> Result<()> {
    let store = context.store.node.store();
    let wanted = match &du.target {
        Some(target) => Some(keys(context, target).await?),
        None => None,
    };
    for info in store.list()? {
        if wanted
            .as_ref()
            .is_some_and(|keys| !keys.contains(&info.key))
        {
            continue;
        }
        let name = context.store.names.name_of(&info.key);
        let usage = Usage {
            key: info.key.to_string(),
            name: name.map(String::from),
            length: info.length,
            bytes: store.disk_bytes(&info.discovery_key)?,
        };
        context.output().list(&usage).await?;
    }
    Ok(())
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
    let infos = store.list()?;
    let doomed = || infos.iter().filter(|info| keys.contains(&info.key));
    let mut bytes = 0;
    for info in doomed() {
        bytes += store.disk_bytes(&info.discovery_key)?;
    }
    if doomed().next().is_none() {
        let message = format!("nothing of {} is here", purge.target.base);
        return Err(Failure::not_found(message));
    }
    let what = format!(
        "Delete {} for good, {}",
        purge.target.base,
        human_bytes(bytes)
    );
    let mut blocks = 0;
    for info in doomed() {
        blocks += held(&context.store.node.core(&info.key)?);
    }
    if context.globals.dry_run {
        let freed = Freed {
            bytes: Some(bytes),
            blocks,
            dry_run: true,
        };
        return context.output().report(&freed).await;
    }
    confirm(context, &what).await?;
    let mut bytes = 0;
    for info in doomed() {
        bytes += store.purge(&info.discovery_key)?;
    }
    for key in &keys {
        context.store.names.remove(key)?;
    }
    let freed = Freed {
        bytes: Some(bytes),
        blocks,
        dry_run: false,
    };
    context.output().report(&freed).await
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
    let infos = context.store.node.store().list()?;
    let is_here = infos.iter().any(|info| info.key == key);
    if !is_here || context.store.names.find_kind(&key) == Some(CoreKind::Core) {
        return Ok(keys);
    }
    // What is no drive, or whose first block is not here, is one core.
    if context.store.node.core(&key)?.has(0)
        && let Ok(drive) = context.store.drive_by_key(&key).await
        && let Ok(blobs) = drive.blobs().await
    {
        keys.push(blobs.core().key());
    }
    Ok(keys)
}
