//! `seed`: keep several cores and drives whole, and serve them.

use ferrocore::Core;
use ferrocore::drive::Drive;
use ferrocore::log::events::Event;

use super::announced::report_announced;
use crate::args::Seed;
use crate::context::Context;
use crate::events::CoreSynced;
use crate::exit::Result;
use crate::names::CoreKind;
use crate::target::Place;

/// What is served.
enum Served {
    Core(Core),
    /// Its index and, once that says where they are, its bytes.
    Drive(Drive),
}

impl Served {
    /// The core that its key is of.
    fn core(&self) -> &Core {
        match self {
            Self::Core(core) => core,
            Self::Drive(drive) => drive.index(),
        }
    }
}

/// Downloads and serves until Ctrl-C. Peers may come and go: nothing times out.
pub(crate) async fn seed(context: &Context, seed: Seed) -> Result<()> {
    let mut served = Vec::new();
    for place in &seed.targets {
        served.push(open(context, place).await?);
    }
    context.discover().await?;
    context.report_ready().await?;
    let cores = served.iter().map(|each| each.core().discovery_key());
    let announcing = report_announced(context, cores);
    let mut following: Vec<_> = served
        .iter()
        .map(|each| Box::pin(keep(context, each)))
        .collect();
    let following = std::future::poll_fn(|cx| {
        let mut polled = following.iter_mut().map(|each| each.as_mut().poll(cx));
        let failed = polled.find(std::task::Poll::is_ready);
        failed.unwrap_or(std::task::Poll::Pending)
    });
    tokio::select! {
        biased;
        failed = following => failed,
        failed = announcing => failed,
        () = context.stop().asked() => Ok(()),
    }
}

/// What a target means. What is not known to be a core, and is none, is found out once its first block is here.
async fn open(context: &Context, place: &Place) -> Result<Served> {
    let key = context.store.names.key(&place.base)?;
    match context.store.names.find_kind(&key) {
        Some(CoreKind::Core) => Ok(Served::Core(context.store.core(place)?)),
        _ => Ok(Served::Drive(context.store.drive(place).await?)),
    }
}

/// Ends only with a failure.
async fn keep(context: &Context, served: &Served) -> Result<()> {
    match served {
        Served::Core(core) => keep_core(context, core).await,
        Served::Drive(drive) => {
            let bytes = async {
                match drive.blobs().await {
                    Ok(blobs) => keep_core(context, blobs.core()).await,
                    // It is no drive, or one whose bytes only others can read.
                    Err(_) => std::future::pending().await,
                }
            };
            tokio::select! {
                failed = keep_core(context, drive.index()) => failed,
                failed = bytes => failed,
            }
        }
    }
}

/// Downloads a core, and what comes to it later; says whenever it is all here.
async fn keep_core(context: &Context, core: &Core) -> Result<()> {
    let events = core.events();
    let download = core.download_all();
    loop {
        download.caught_up().await?;
        let head = (core.fork(), core.length());
        if head.1 > 0 && core.contiguous_length() == head.1 {
            let synced = CoreSynced {
                key: core.key().to_string(),
                length: head.1,
            };
            context.output().report(&synced).await?;
        }
        while (core.fork(), core.length()) == head {
            let _: Event = events.next().await;
        }
    }
}
