//! `list`: what is in the store, be some of it damaged.

use std::collections::HashMap;

use ferrocore::log::corestore::{CoreInfo, ListedCore};
use ferrocore::primitives::keys::DiscoveryKey;
use ferrocore::{Core, Key};

use crate::context::Context;
use crate::events::{Listed, Unreadable};
use crate::exit::{Failure, Kind, Result};
use crate::output::count;

const CORE: &str = "core";
const DRIVE: &str = "drive";
const BLOBS: &str = "blobs";

/// Lists every core: those with a name first, by name. In part only, if some cannot be read.
pub(crate) async fn list(context: &Context) -> Result<()> {
    partly(tell(context).await?)
}

/// Lists them, and says how many cannot be read.
pub(super) async fn tell(context: &Context) -> Result<usize> {
    let (mut cores, mut unreadable) = (Vec::new(), Vec::new());
    for listed in context.store.node.store().list()? {
        let open = |info: CoreInfo| Ok(context.store.node.core(&info.key)?);
        match listed.info.map_err(Failure::from).and_then(open) {
            Ok(core) => cores.push(core),
            Err(failure) => unreadable.push((listed.discovery_key, failure)),
        }
    }
    let kinds = kinds(context, &cores).await;
    let mut listed: Vec<Listed> = cores
        .iter()
        .map(|core| describe(context, core, &kinds))
        .collect();
    listed.sort_by_key(|core| (core.name.is_none(), core.name.clone(), core.kind));
    for core in &listed {
        context.output().list(core).await?;
    }
    if cores.is_empty() && unreadable.is_empty() {
        context.output().say("Nothing is in the store yet").await;
    }
    for (core, failure) in &unreadable {
        context
            .output()
            .list(&describe_unreadable(context, core, failure))
            .await?;
    }
    Ok(unreadable.len())
}

/// The failure that says so if some of the cores of the store cannot be read.
pub(super) fn partly(unreadable: usize) -> Result<()> {
    if unreadable == 0 {
        return Ok(());
    }
    let cores = count(unreadable as u64, "core");
    let failure = Failure::new(
        Kind::Partial,
        format!("{cores} cannot be read; the rest is told"),
    );
    Err(failure.hint("what is damaged can be deleted: fcore purge DISCOVERY-KEY"))
}

/// Tells the cores that can be read from those that cannot.
pub(super) fn sort_out(
    context: &Context,
    listed: Vec<ListedCore>,
) -> (Vec<CoreInfo>, Vec<Unreadable>) {
    let (mut infos, mut unreadable) = (Vec::new(), Vec::new());
    for core in listed {
        match core.info {
            Ok(info) => infos.push(info),
            Err(error) => {
                unreadable.push(describe_unreadable(
                    context,
                    &core.discovery_key,
                    &error.into(),
                ));
            }
        }
    }
    (infos, unreadable)
}

fn describe_unreadable(context: &Context, core: &DiscoveryKey, failure: &Failure) -> Unreadable {
    let mut named = context.store.names.all().into_iter();
    let named = named.find(|(_, named)| named.key.discovery_key() == *core);
    let (name, key) = named
        .map(|(name, named)| (name.to_string(), named.key.to_string()))
        .unzip();
    Unreadable {
        discovery_key: core.to_string(),
        key,
        name,
        // What cannot be looked at either counts for nothing.
        bytes: context
            .store
            .node
            .store()
            .disk_bytes(core)
            .unwrap_or_default(),
        kind: failure.kind.name(),
        message: failure.message.clone(),
    }
}

/// Which cores are the indexes of drives, and which hold the bytes of one.
async fn kinds(context: &Context, cores: &[Core]) -> HashMap<Key, &'static str> {
    let mut kinds = HashMap::new();
    for core in cores.iter().filter(|core| core.has(0)) {
        // What is no drive fails here: its first block says so, and that is on this machine.
        let Ok(drive) = context.store.drive_by_key(&core.key()).await else {
            continue;
        };
        if let Ok(blobs) = drive.blobs().await {
            kinds.insert(core.key(), DRIVE);
            kinds.insert(blobs.core().key(), BLOBS);
        }
    }
    kinds
}

fn describe(context: &Context, core: &Core, kinds: &HashMap<Key, &'static str>) -> Listed {
    let names = &context.store.names;
    let named = names.find_kind(&core.key());
    let by_name = named.map(|kind| match kind {
        crate::names::CoreKind::Core => CORE,
        crate::names::CoreKind::Drive => DRIVE,
    });
    Listed {
        key: core.key().to_string(),
        name: names.name_of(&core.key()).map(String::from),
        kind: by_name
            .or_else(|| kinds.get(&core.key()).copied())
            .unwrap_or(CORE),
        length: core.length(),
        contiguous: core.contiguous_length(),
        bytes: core.byte_length(),
        writable: core.is_writable(),
        peers: core.supply().suppliers(),
    }
}
