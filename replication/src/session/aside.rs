//! Threads that verify and commit while a session's task reads and decrypts.
//!
//! Knows how many there may be. Does not know what they do.
//!
//! What a session has to work on is done by its own task while that is little: a change of thread would cost more
//! than it saves. A burst of [`ASIDE_BYTES_MIN`] goes to a thread of the runtime's pool for blocking work, if one
//! of the process's places is free: as many as there are processors but for one, which reads.

use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::limits::ASIDE_BYTES_MIN;

/// The right to work aside, until it is dropped.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// One for work on `len` bytes, if there is one and it is worth it.
    pub(super) fn for_bytes(len: usize) -> Option<Self> {
        if len < ASIDE_BYTES_MIN {
            return None;
        }
        let permit = Arc::clone(places()).try_acquire_owned().ok()?;
        Some(Self { _permit: permit })
    }

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

fn places() -> &'static Arc<Semaphore> {
    static PLACES: OnceLock<Arc<Semaphore>> = OnceLock::new();
    PLACES.get_or_init(|| {
        let processors = available_parallelism().map_or(1, |processors| processors.get());
        Arc::new(Semaphore::new(processors - 1))
    })
}
