//! `list`: what is in the store.

use std::collections::HashMap;

use ferrocore::{Core, Key};

use crate::context::Context;
use crate::events::Listed;
use crate::exit::Result;

const CORE: &str = "core";
const DRIVE: &str = "drive";
const BLOBS: &str = "blobs";

/// Lists every core: those with a name first, by name.
pub(crate) async fn list(context: &Context) -> Result<()> {
    let store = &context.store;
    let infos = store.node.store().list()?;
    let cores = infos.iter().map(|info| store.node.core(&info.key));
    let cores: Vec<Core> = cores.collect::<Result<_, _>>()?;
    let kinds = kinds(context, &cores).await;
    let mut listed: Vec<Listed> = cores
        .iter()
        .map(|core| describe(context, core, &kinds))
        .collect();
    listed.sort_by_key(|core| (core.name.is_none(), core.name.clone(), core.kind));
    for core in &listed {
        context.output().list(core).await?;
    }
    Ok(())
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
