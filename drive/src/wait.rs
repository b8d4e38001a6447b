//! Waiting in a plain thread, and stopping it from another.
//!
//! Knows one future and one flag. Is no runtime: nothing is spawned.

use std::future::{self, Future};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use event_listener::Event;

/// Stops what was given a clone of it.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    flag: Arc<Flag>,
    parent: Option<Arc<Flag>>,
}

#[derive(Debug, Default)]
struct Flag {
    is_set: AtomicBool,
    event: Event,
}

/// The wait was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cancelled;

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the flag, for good.
    pub fn cancel(&self) {
        self.flag.is_set.store(true, Ordering::Release);
        self.flag.event.notify(usize::MAX);
    }

    /// Whether the flag is set.
    pub fn is_cancelled(&self) -> bool {
        self.flag.is_set() || self.parent.as_ref().is_some_and(|parent| parent.is_set())
    }

    /// A flag that is set with this one, and can be set alone.
    pub(crate) fn child(&self) -> Self {
        Self {
            flag: Arc::default(),
            parent: Some(Arc::clone(&self.flag)),
        }
    }

    /// Waits for `future` on this thread, until the flag is set.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> Result<T, Cancelled> {
        let mut future = pin!(future);
        let mut cancelled = pin!(self.flag.wait());
        let mut parent_cancelled = pin!(wait(self.parent.as_deref()));
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return Ok(value);
            }
            let cancelled = cancelled.as_mut().poll(&mut context).is_ready();
            if cancelled || parent_cancelled.as_mut().poll(&mut context).is_ready() {
                return Err(Cancelled);
            }
            thread::park();
        }
    }
}

impl Flag {
    fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    async fn wait(&self) {
        loop {
            let listener = self.event.listen();
            if self.is_set() {
                return;
            }
            listener.await;
        }
    }
}

async fn wait(flag: Option<&Flag>) {
    match flag {
        Some(flag) => flag.wait().await,
        None => future::pending().await,
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_its_future_or_its_flag() {
        let cancel = Cancel::new();
        assert_eq!(cancel.block_on(async { 7 }), Ok(7));
        let other = cancel.child();
        let waiter = thread::spawn(move || other.block_on(future::pending::<()>()));
        cancel.cancel();
        assert_eq!(waiter.join().unwrap(), Err(Cancelled));
        assert_eq!(
            cancel.block_on(async { 7 }),
            Ok(7),
            "what is there needs no wait"
        );
    }
}
