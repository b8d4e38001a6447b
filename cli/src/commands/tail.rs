//! `core tail`: the last blocks of a log, and those that come.

use bytes::{BufMut as _, Bytes, BytesMut};
use ferrocore::Core;
use ferrocore::log::{CoreError, Snapshot};

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
    let mut place = Place::before_the_last(tail.blocks, &core);
    let _want = core.download(place.next..u64::MAX);
    while place.next < place.view.length().min(core.length()) {
        let block = context.step(core.get(place.next)).await?;
        write(context, &tail, block).await?;
        place.next += 1;
    }
    if !tail.follow {
        return Ok(());
    }
    tokio::select! {
        biased;
        failed = follow(context, &tail, place, events) => failed,
        () = context.stop().asked() => Ok(()),
    }
}

/// How far a log is written out.
struct Place {
    /// The log as it was when it was last looked at. It knows how short the log is cut, whatever
    /// events are missed.
    view: Snapshot,
    /// At most the view's length.
    next: u64,
}

impl Place {
    fn before_the_last(blocks: u64, core: &Core) -> Self {
        let view = core.snapshot();
        let next = view.length().saturating_sub(blocks);
        Self { view, next }
    }

    /// Looks at the log anew: what took the place of blocks that were written comes next.
    fn look(&mut self) {
        // Taken before the old one is asked: no cut falls between them.
        let view = self.view.core().snapshot();
        self.next = self.next.min(self.view.compat_length());
        self.view = view;
        // A cut that just happened is known to both; the next look goes back further.
        self.next = self.next.min(self.view.length());
    }

    /// The next block, if it is here.
    fn block(&self) -> Result<Option<Bytes>> {
        if self.next >= self.view.length() {
            return Ok(None);
        }
        match self.view.get_local(self.next) {
            Err(CoreError::SnapshotNotAvailable { .. }) => Ok(None), // it was just cut
            block => Ok(block?),
        }
    }
}

/// Writes blocks as they come, in order; ends only with a failure.
async fn follow(
    context: &Context,
    tail: &CoreTail,
    mut place: Place,
    events: ferrocore::log::events::Events,
) -> Result<()> {
    let core = place.view.core().clone();
    loop {
        place.look();
        while let Some(block) = place.block()? {
            write(context, tail, block).await?;
            place.next += 1;
        }
        if core.is_frozen() {
            return Err(CoreError::Conflict { core: core.key() }.into());
        }
        events.next().await;
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

#[cfg(test)]
mod tests {
    use ferrocore::Corestore;

    use super::*;

    fn read(place: &mut Place) -> Vec<Bytes> {
        place.look();
        let mut blocks = Vec::new();
        while let Some(block) = place.block().unwrap() {
            blocks.push(block);
            place.next += 1;
        }
        blocks
    }

    /// Goal: what takes the place of blocks that were written is written, even where no event tells
    /// of the cut, as when too many happened at once.
    #[test]
    fn a_cut_is_followed_without_its_event() {
        let core = Corestore::memory().get_named("log").unwrap();
        core.append_batch(["a", "b", "c"].map(Bytes::from).to_vec())
            .unwrap();
        let mut place = Place::before_the_last(2, &core);
        assert_eq!(read(&mut place), ["b", "c"]);
        core.truncate(1, None).unwrap();
        core.append_batch(["B", "C", "D"].map(Bytes::from).to_vec())
            .unwrap();
        core.truncate(3, None).unwrap();
        core.append("d").unwrap();
        assert_eq!(read(&mut place), ["B", "C", "d"]);
        core.truncate(0, None).unwrap();
        assert!(read(&mut place).is_empty());
        core.append("0").unwrap();
        assert_eq!(read(&mut place), ["0"]);
    }
}
