//! Threads that verify and commit while a session's task reads and decrypts.
//!
//! Knows how many there may be. Does not know what they do.
//!
//! What a session has to work on is done by its own task while that is little: a change of thread would cost more
//! than it saves. A burst of [`ASIDE_BYTES_MIN`] goes to a thread of the runtime's pool for blocking work, if one
//! of the places is free and, with those of the process, while that is faster: see [`Trial`](super::trial::Trial).

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::limits::ASIDE_BYTES_MIN;

/// Places for work that is done aside, which sessions share. Clones are the same places.
#[derive(Clone)]
pub struct Helpers {
    places: Arc<Semaphore>,
    /// Whether sessions have to find out first that it is faster.
    on_trial: bool,
}

impl Helpers {
    /// Those of this process: as many as the machine has processors but for one, which reads. Each session tries now
    /// and then whether it gets on faster with one, and does its work in its task while it does not: where no
    /// processor is left over, the changes of thread cost more than they save.
    pub fn process() -> Self {
        static PROCESS: OnceLock<Helpers> = OnceLock::new();
        let but_one = || {
            let processors = available_parallelism().map_or(1, |processors| processors.get());
            Self {
                on_trial: true,
                ..Self::new(processors - 1)
            }
        };
        PROCESS.get_or_init(but_one).clone()
    }

    /// Some of their own, used whenever one is free. Without any, each session does its work in its task.
    pub fn new(count: usize) -> Self {
        let count = count.min(Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(count)),
            on_trial: false,
        }
    }

    /// Whether sessions have to find out first that it is faster.
    pub(super) fn are_on_trial(&self) -> bool {
        self.on_trial
    }

    /// A place for work on `len` bytes, if one is free and it is worth it.
    pub(super) fn place_for(&self, len: usize) -> Option<Place> {
        if len < ASIDE_BYTES_MIN {
            return None;
        }
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Place { _permit: permit })
    }
}

impl fmt::Debug for Helpers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Helpers")
            .field("free", &self.places.available_permits())
            .finish_non_exhaustive()
    }
}

/// The right to work aside, until it is dropped.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Does `work` on another thread. It goes on to its end if nobody waits for it any more.
    pub(super) fn spawn<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        spawn_blocking(move || {
            let done = work();
            drop(self);
            done
        })
    }
}
