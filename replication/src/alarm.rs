//! How the cores of a connection say that they have news for it.
//!
//! Knows which channels are to be looked at. Does not know what is new.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ferrocore_log::supply::Wake;
use ferrocore_mux::ChannelId;

/// The channels of one connection that have rung, and who is told of it.
pub(crate) struct Bell {
    rung: Mutex<Vec<ChannelId>>,
    wake: Wake,
}

impl Bell {
    /// `wake` is called, from any thread, when a channel rings.
    pub(crate) fn new(wake: Wake) -> Arc<Self> {
        let rung = Mutex::default();
        Arc::new(Self { rung, wake })
    }

    fn ring(&self, channel: ChannelId) {
        let rung = self.rung.lock();
        rung.unwrap_or_else(PoisonError::into_inner).push(channel);
        (self.wake)();
    }

    /// The channels that have rung since.
    pub(crate) fn take(&self) -> Vec<ChannelId> {
        std::mem::take(&mut self.rung.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One channel's alarm. However often its core has news, it rings once until it is armed again.
pub(crate) struct Alarm {
    bell: Arc<Bell>,
    channel: ChannelId,
    is_ringing: AtomicBool,
}

impl Alarm {
    pub(crate) fn new(bell: &Arc<Bell>, channel: ChannelId) -> Arc<Self> {
        Arc::new(Self {
            bell: Arc::clone(bell),
            channel,
            is_ringing: AtomicBool::new(false),
        })
    }

    /// The core has news.
    pub(crate) fn ring(&self) {
        if !self.is_ringing.swap(true, Ordering::AcqRel) {
            self.bell.ring(self.channel);
        }
    }

    /// The channel is being looked at: what comes from now on is news again.
    pub(crate) fn rearm(&self) {
        self.is_ringing.store(false, Ordering::Release);
    }
}

/// As a waker it rings every time: a channel may be armed after it has looked at what it waits for.
impl std::task::Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.bell.ring(self.channel);
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm")
            .field("channel", &self.channel)
            .field("is_ringing", &self.is_ringing)
            .finish_non_exhaustive()
    }
}
