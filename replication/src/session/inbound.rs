//! Frames on their way in: read and decrypted by the session's task, also while those before are worked on
//! [aside](super::aside).
//!
//! Knows bursts: what is there is taken together, for the more blocks are committed at once, the fewer writes
//! they cost. Does not know what frames hold.
//!
//! Memory: one burst is worked on while another is gathered. A long frame, which holds room of the process-wide
//! budget, ends its burst, and nothing is read until it has been worked off: a connection never holds two.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use ferrocore_primitives::time::Time;
use ferrocore_secret_stream::{FrameBudget, Receiver, StreamError};
use tokio::io::AsyncRead;
use tokio::time::Instant;

use crate::buffers::Bounds;
use crate::connection::Arriving;

/// What was read and not given out yet.
pub(super) struct Inbound<R> {
    receiver: Receiver<R>,
    frames: Vec<Bytes>,
    /// Bytes of them.
    len: usize,
    /// How the stream ended behind them.
    end: Option<Result<(), StreamError>>,
    bounds: Bounds,
    /// Whether a burst was given out that filled short buffers.
    was_full: bool,
}

/// Frames that were there one behind the other, in order.
pub(super) struct Burst {
    pub(super) frames: Vec<Bytes>,
    /// Bytes of them.
    pub(super) len: usize,
}

impl<R: AsyncRead + Unpin> Inbound<R> {
    pub(super) fn new(receiver: Receiver<R>, bounds: Bounds) -> Self {
        let mut inbound = Self {
            receiver,
            frames: Vec::new(),
            len: 0,
            end: None,
            bounds,
            was_full: false,
        };
        inbound.set_bounds(bounds);
        inbound
    }

    /// Reads within `bounds` from now on.
    pub(super) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        self.receiver
            .set_buffers(bounds.read_len, bounds.free_frame_len);
    }

    /// Whether, since the last call, more came at a time than short buffers hold.
    pub(super) fn was_full(&mut self) -> bool {
        std::mem::take(&mut self.was_full)
    }

    /// Refuses frames of more than `len` bytes from now on.
    pub(super) fn set_message_len_max(&mut self, len: usize) {
        self.receiver.set_message_len_max(len);
    }

    /// Takes room for long frames from `budget` from now on.
    pub(super) fn set_frame_budget(&mut self, budget: FrameBudget) {
        self.receiver.set_frame_budget(budget);
    }

    /// The next frames, at least one, and all that are there up to a burst; `None` when the peer has ended the
    /// stream. The burst before must have been worked off. May be cancelled without losing anything.
    pub(super) async fn next(&mut self) -> Result<Option<Burst>, StreamError> {
        if self.frames.is_empty() && self.end.is_none() {
            self.read().await;
        }
        while self.has_room() {
            tokio::select! {
                biased;
                () = self.read() => {}
                () = std::future::ready(()) => break,
            }
        }
        match self.frames.is_empty() {
            true => self.end.take().unwrap_or(Ok(())).map(|()| None),
            false => Ok(Some(self.take())),
        }
    }

    /// Gathers what comes while the burst before is worked on, at most another. Ends only with an error: that
    /// of a long frame which has been worked on for too long. May be cancelled.
    pub(super) async fn read_ahead(&mut self) -> StreamError {
        loop {
            match self.has_room() {
                true => self.read().await,
                false => return self.hold().await,
            }
        }
    }

    /// Gives back all that is held for what came and will not be read: whoever closes takes its time.
    pub(super) fn abandon(&mut self) {
        self.frames = Vec::new();
        self.receiver.abandon();
    }

    /// As [`Receiver::hold`], while nothing is read.
    pub(super) async fn hold(&mut self) -> StreamError {
        match self.receiver.hold().await {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    /// When something came last of a frame that was not whole then, by the clock that began at `epoch`.
    pub(super) fn arriving(&self, epoch: Instant) -> Arriving {
        let arrivals = self.receiver.arrivals();
        let time = |at: Option<Instant>| {
            at.map_or(Time::ZERO, |at| {
                Time::ZERO + at.saturating_duration_since(epoch)
            })
        };
        Arriving {
            any: time(arrivals.any),
            long: time(arrivals.long),
        }
    }

    /// As [`Receiver::long_bytes`].
    pub(super) fn long_bytes(&self) -> Arc<AtomicU64> {
        self.receiver.long_bytes()
    }

    /// Whether one more frame may be read before those that were are given out. The next call of `recv` gives
    /// a long frame's room back.
    fn has_room(&self) -> bool {
        self.len < self.bounds.burst && self.end.is_none() && !self.receiver.is_holding()
    }

    async fn read(&mut self) {
        match self.receiver.recv().await {
            Ok(Some(frame)) => {
                self.len += frame.len();
                self.frames.push(frame);
            }
            Ok(None) => self.end = Some(Ok(())),
            Err(error) => self.end = Some(Err(error)),
        }
    }

    fn take(&mut self) -> Burst {
        self.was_full |= self.len >= Bounds::SHORT.burst;
        Burst {
            frames: std::mem::take(&mut self.frames),
            len: std::mem::take(&mut self.len),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BURST_BYTES_MAX;
    use ferrocore_primitives::sign::KeyPair;
    use ferrocore_secret_stream::budget::FREE_FRAME_LEN;
    use ferrocore_secret_stream::{FrameBudget, Options, Role, SecretStream, Sender};
    use std::time::Duration;
    use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex};
    use tokio::time::timeout;

    async fn pair(
        budget: &FrameBudget,
    ) -> (
        Sender<WriteHalf<DuplexStream>>,
        Inbound<ReadHalf<DuplexStream>>,
    ) {
        let (ours, theirs) = duplex(4 << 20);
        let (our_keys, their_keys) = (KeyPair::generate(), KeyPair::generate());
        let (ours, theirs) = tokio::try_join!(
            SecretStream::handshake(ours, Role::Initiator, &our_keys, Options::default()),
            SecretStream::handshake(theirs, Role::Responder, &their_keys, Options::default()),
        )
        .unwrap();
        let (_, mut receiver) = theirs.split();
        receiver.set_frame_budget(budget.clone());
        (ours.split().0, Inbound::new(receiver, Bounds::LONG))
    }

    async fn read_ahead_for_a_second(inbound: &mut Inbound<ReadHalf<DuplexStream>>) {
        let gathered = timeout(Duration::from_secs(1), inbound.read_ahead()).await;
        assert!(gathered.is_err(), "it waits for the work to be done");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_frame_ends_its_burst_and_nothing_is_read_before_it_is_worked_off() {
        let budget = FrameBudget::new(0);
        let (mut sender, mut inbound) = pair(&budget).await;
        let long = vec![1; 2 * FREE_FRAME_LEN];
        for message in [&[0][..], &long, &[2], &long, &[4]] {
            sender.send(&[message]).await.unwrap();
        }
        sender.flush().await.unwrap();
        for lens in [vec![1, long.len()], vec![1, long.len()]] {
            read_ahead_for_a_second(&mut inbound).await;
            let held = budget.held();
            assert!((long.len()..2 * long.len()).contains(&held), "one of them");
            let burst = inbound.next().await.unwrap().unwrap();
            let frames: Vec<_> = burst.frames.iter().map(Bytes::len).collect();
            assert_eq!(frames, lens);
            assert_eq!(burst.len, lens.iter().sum::<usize>());
            // While it is worked on.
            read_ahead_for_a_second(&mut inbound).await;
            assert!(inbound.frames.is_empty() && budget.held() == held);
            // As `next` does, once it is worked off.
            inbound.read().await;
        }
        drop(sender);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_a_burst_is_gathered_and_the_end_comes_behind_it() {
        let budget = FrameBudget::new(0);
        let (mut sender, mut inbound) = pair(&budget).await;
        let message = vec![1; FREE_FRAME_LEN / 2];
        let count = 3 * BURST_BYTES_MAX / message.len();
        for _ in 0..count {
            sender.send(&[&message]).await.unwrap();
        }
        sender.close().await.unwrap();
        let mut received = 0;
        loop {
            read_ahead_for_a_second(&mut inbound).await;
            let Some(burst) = inbound.next().await.unwrap() else {
                break;
            };
            assert!((1..BURST_BYTES_MAX + message.len()).contains(&burst.len));
            received += burst.frames.len();
        }
        assert_eq!((received, budget.held()), (count, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_frame_that_is_worked_on_for_too_long_is_said() {
        let budget = FrameBudget::new(0);
        let (mut sender, mut inbound) = pair(&budget).await;
        let long = vec![1; 2 * FREE_FRAME_LEN];
        sender.send(&[&long]).await.unwrap();
        sender.flush().await.unwrap();
        inbound.next().await.unwrap().unwrap();
        let error = inbound.read_ahead().await;
        assert!(matches!(error, StreamError::FrameTimeout { .. }), "{error}");
    }
}
