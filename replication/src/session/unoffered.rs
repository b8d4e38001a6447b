//! The cores of a store that a session is to offer, and how long readers wait for those that it has no place for.
//!
//! Knows turns and time. Does not know when there is a place, nor what is offered.

use ferrocore_log::core::Finding;
use ferrocore_log::corestore::FollowedCores;
use ferrocore_log::{Core, Corestore};
use ferrocore_primitives::time::Time;
use tokio::time::{Instant, sleep_until};

use crate::limits::{HEAD_PATIENCE_ALONE, UNOFFERED_LOOK_INTERVAL};

/// Those that were not offered yet. It keeps its place among the cores of the store, and takes no memory for them.
pub(super) struct Unoffered {
    cores: FollowedCores,
    /// The readers who wait, once it was noted since when.
    waiting: Option<Waiting>,
}

/// Readers of cores that were open at one time.
struct Waiting {
    /// How long they wait.
    until: Instant,
    /// When to tell them the time.
    look: Instant,
}

/// What there is to do.
pub(super) enum Turn {
    /// To offer a core. The guard keeps its readers waiting until that is done.
    Offer(Core, Finding),
    /// To [look](Unoffered::look) at those who wait.
    Look,
}

impl Unoffered {
    /// All cores of `store`, open now or later. Their readers wait from now on.
    pub(super) fn new(store: &Corestore) -> Self {
        Self {
            cores: store.follow_opened(),
            waiting: None,
        }
    }

    /// The next to be offered, for which there is a place.
    pub(super) fn try_next(&mut self) -> Option<(Core, Finding)> {
        let next = self.cores.try_next();
        if next.is_none() {
            self.waiting = None;
        }
        next
    }

    /// Waits until there is something to do. A core is only offered if `has_place`. Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self, has_place: bool) -> Turn {
        if has_place {
            return match self.cores.next().await {
                Some((core, finding)) => Turn::Offer(core, finding),
                None => std::future::pending().await,
            };
        }
        let look = match &self.waiting {
            Some(waiting) => waiting.look,
            None => {
                self.cores.untold().await;
                self.wait()
            }
        };
        sleep_until(look).await;
        Turn::Look
    }

    /// Lets readers of what is open now wait for a time; returns when to look at them first.
    fn wait(&mut self) -> Instant {
        self.cores.mark();
        let now = Instant::now();
        self.waiting = Some(Waiting {
            until: now + HEAD_PATIENCE_ALONE,
            look: now,
        });
        now
    }

    /// Lets those go on who have waited for long enough, and tells the others the time: `Core::update` ends for them, too. `now`
    /// is the same moment as sessions call it.
    pub(super) fn look(&mut self, store: &Corestore, now: Time) {
        let Some(waiting) = &mut self.waiting else {
            return;
        };
        if waiting.until <= Instant::now() {
            self.waiting = None;
            self.cores.let_go();
            return;
        }
        waiting.look = waiting.until.min(Instant::now() + UNOFFERED_LOOK_INTERVAL);
        let mut cores = store.watch_opened();
        while let Some(core) = cores.try_next() {
            core.supply().look_at_updates(now);
        }
    }
}
