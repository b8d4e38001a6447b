//! `core tail`: the last blocks of a log, and those that come.

use bytes::{BufMut as _, Bytes, BytesMut};
use ferrocore::Core;
use ferrocore::log::CoreError;
use ferrocore::log::events::Event;

use super::core::refresh;
use crate::args::CoreTail;
use crate::context::Context;
use crate::exit::Result;

pub(crate) async fn tail(context: &Context, tail: CoreTail) -> Result<()> {
    let core = context.store.core(&tail.core)?;
    if !tail.follow || context.has_network() {
        refresh(context, &core).await?;
    }
    let events = core.events();
    let mut next = core.length().saturating_sub(tail.blocks);
    let _want = core.download(next..u64::MAX);
    while next < core.length() {
        let block = context.step(core.get(next)).await?;
        write(context, &tail, block).await?;
        next += 1;
    }
    if !tail.follow {
        return Ok(());
    }
    tokio::select! {
        biased;
        failed = follow(context, &tail, &core, next, events) => failed,
        () = context.stop().asked() => Ok(()),
    }
}

/// Writes blocks as they come, in order; ends only with a failure.
async fn follow(
    context: &Context,
    tail: &CoreTail,
    core: &Core,
    mut next: u64,
    events: ferrocore::log::events::Events,
) -> Result<()> {
    loop {
        while let Some(block) = core.get_local(next)? {
            write(context, tail, block).await?;
            next += 1;
        }
        if core.conflict().is_some() {
            return Err(CoreError::Conflict { core: core.key() }.into());
        }
        if let Event::Truncate { length, .. } = events.next().await {
            next = next.min(length);
        }
    }
}

async fn write(context: &Context, tail: &CoreTail, block: Bytes) -> Result<()> {
    let mut out = BytesMut::with_capacity(block.len() + 4);
    if tail.frames {
        out.put_u32_le(u32::try_from(block.len()).expect("at most BLOCK_BYTES_MAX"));
    }
    out.extend_from_slice(&block);
    if !tail.frames {
        out.put_u8(b'\n');
    }
    context.output().data(out.freeze()).await
}
