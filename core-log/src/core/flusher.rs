//! The threads that commit for the cores of a store when no caller does.
//!
//! Knows whose turn it is. Does not know what is committed: a core's queue does.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread;

use super::Inner;
use crate::storage::lock;

/// Most threads that commit for the cores of one store.
const FLUSHERS_MAX: usize = 8;

/// Threads that are started when there is work and end when there is none.
#[derive(Default)]
pub(crate) struct Flusher(Mutex<Work>);

#[derive(Default)]
struct Work {
    cores: VecDeque<Arc<Inner>>,
    threads: usize,
}

impl Flusher {
    /// Leaves the lead of `core` to a thread, or, where there are no threads, keeps it here.
    pub(super) fn hand_over(this: &Arc<Self>, core: Arc<Inner>) {
        {
            let mut work = lock(&this.0);
            work.cores.push_back(core);
            if work.threads == FLUSHERS_MAX {
                return;
            }
            work.threads += 1;
        }
        let flusher = Arc::clone(this);
        let thread = thread::Builder::new().name("ferrocore-flusher".to_owned());
        if thread.spawn(move || flusher.run()).is_err() {
            this.run();
        }
    }

    /// Works until there is nothing left to do.
    fn run(&self) {
        while let Some(core) = self.next() {
            // A panic fails those who waited for this core, not those of the next.
            let _ = catch_unwind(AssertUnwindSafe(|| self.commit_for(core)));
        }
    }

    fn next(&self) -> Option<Arc<Inner>> {
        let mut work = lock(&self.0);
        let core = work.cores.pop_front();
        if core.is_none() {
            work.threads -= 1;
        }
        core
    }

    fn commit_for(&self, core: Arc<Inner>) {
        let (done, more) = core.lead();
        match more {
            // Behind the others: none is kept waiting by a core that is always busy.
            true => lock(&self.0).cores.push_back(core),
            // Before the tickets: who waited may close the core, and open it again.
            false => drop(core),
        }
        done.tell();
    }
}
