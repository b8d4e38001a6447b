//! Giving up blocks: `core truncate`, `core clear`.

use ferrocore::log::CoreError;

use crate::args::{CoreClear, CoreTruncate};
use crate::confirm::confirm;
use crate::context::Context;
use crate::events::{Freed, Truncated};
use crate::exit::{Failure, Result};

/// Cuts a log of ours short.
pub(crate) async fn truncate(context: &Context, truncate: CoreTruncate) -> Result<()> {
    let core = context.store.core(&truncate.core)?;
    if !core.is_writable() {
        return Err(CoreError::NotWritable { core: core.key() }.into());
    }
    if !context.globals.dry_run {
        context.ready_to_write(&core).await?;
    }
    let (before, length) = (core.length(), truncate.length);
    if length > before {
        let message = format!("core {} has {before} blocks only", core.key());
        return Err(Failure::not_found(message).hint("a log is cut to a length that it has"));
    }
    let next = core.next_fork(truncate.fork)?;
    if context.globals.dry_run {
        let truncated = Truncated {
            length,
            fork: next,
            dry_run: true,
        };
        return context.output().report(&truncated).await;
    }
    let what = format!(
        "Delete blocks {length}..{before} of {} for good, here and at every reader",
        truncate.core.base
    );
    confirm(context, &what).await?;
    let fork = core.truncate(length, truncate.fork)?.fork;
    let truncated = Truncated {
        length,
        fork,
        dry_run: false,
    };
    context.output().report(&truncated).await
}

/// Gives the space of blocks back.
pub(crate) async fn clear(context: &Context, clear: CoreClear) -> Result<()> {
    let core = context.store.core(&clear.core)?;
    let store = context.store.node.store();
    let range = clear.range.within(core.length());
    let blocks = core.count(range.clone());
    if context.globals.dry_run {
        // How much of them shares its space with others, the file system alone knows.
        let freed = Freed {
            damaged: 0,
            encryption: 0,
            bytes: None,
            blocks,
            dry_run: true,
        };
        return context.output().report(&freed).await;
    }
    if core.is_writable() && blocks > 0 {
        let what = format!(
            "Delete blocks {range:?} of {} here, where they were written; only peers may still have them",
            clear.core.base
        );
        confirm(context, &what).await?;
    }
    core.flush()?;
    let before = store.disk_bytes(&core.discovery_key())?;
    core.clear(range)?;
    core.flush()?;
    let after = store.disk_bytes(&core.discovery_key())?;
    let freed = Freed {
        damaged: 0,
        encryption: 0,
        bytes: Some(before.saturating_sub(after)),
        blocks,
        dry_run: false,
    };
    context.output().report(&freed).await
}
