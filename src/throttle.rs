//! Limits on how fast a node sends and receives.
//! Knows token buckets and byte streams. Does not know what the bytes are.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ferrocore_secret_stream::{FrameBudget, FrameBudgets};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// At most this share of a second may be spent in one burst.
const BURST: Duration = Duration::from_millis(100);

/// The least that is worth moving at a time, so that a slow limit does not mean single bytes.
const GRAIN_BYTES: u64 = 1024;

/// How long after the first possible moment a stream asks again, at most: the shorter, the more often it was refused since it
/// last moved anything, so that of several who wait the one goes first that has waited longest. What that loses, bursts make good.
const COURTESY: Duration = Duration::from_millis(25);

/// A number of bytes a second, shared by all streams that hold it.
#[derive(Debug)]
pub(crate) struct Bucket {
    bytes_per_second: u64,
    /// When everything granted so far would have been moved at the rate allowed.
    paid_until: Mutex<Instant>,
}

impl Bucket {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            paid_until: Mutex::new(Instant::now()),
        }
    }

    /// How many bytes may be moved now, or when to ask again.
    fn grant(&self, now: Instant) -> Result<usize, Instant> {
        let paid_until = *self
            .paid_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if paid_until > now + BURST {
            return Err(paid_until - BURST);
        }
        let bytes = (self.bytes_per_second / 10).max(GRAIN_BYTES);
        Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// Takes the time that `bytes` cost.
    fn pay(&self, bytes: usize, now: Instant) {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut paid_until = self
            .paid_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *paid_until = (*paid_until).max(now) + cost;
    }
}

/// The limits of one node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits {
    pub(crate) up: Option<Arc<Bucket>>,
    pub(crate) down: Option<Arc<Bucket>>,
}

impl Limits {
    pub(crate) fn is_none(&self) -> bool {
        self.up.is_none() && self.down.is_none()
    }

    /// What they take of the time that long frames have is nobody's fault.
    pub(crate) fn excuse(&self, budgets: &mut FrameBudgets) {
        let excuse = |budget: &mut FrameBudget, limit: &Option<Arc<Bucket>>| {
            if let Some(bucket) = limit {
                *budget = budget.clone().at_pace(bucket.bytes_per_second);
            }
        };
        excuse(&mut budgets.outgoing, &self.up);
        excuse(&mut budgets.incoming, &self.down);
        excuse(&mut budgets.unproven, &self.down);
    }
}

/// A stream that keeps to limits.
#[derive(Debug)]
pub(crate) struct Throttled<T> {
    io: T,
    read: Gate,
    write: Gate,
}

/// One direction of a stream.
#[derive(Debug)]
struct Gate {
    bucket: Option<Arc<Bucket>>,
    pause: Option<Pin<Box<Sleep>>>,
    /// How often it was refused since it last moved anything.
    refusals: u32,
}

impl<T> Throttled<T> {
    pub(crate) fn new(io: T, limits: Limits) -> Self {
        Self {
            io,
            read: Gate::new(limits.down),
            write: Gate::new(limits.up),
        }
    }
}

impl Gate {
    fn new(bucket: Option<Arc<Bucket>>) -> Self {
        Self {
            bucket,
            pause: None,
            refusals: 0,
        }
    }

    /// Waits until something may be moved, and says how much at most.
    fn poll_grant(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let Some(bucket) = &self.bucket else {
            return Poll::Ready(usize::MAX);
        };
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match bucket.grant(Instant::now()) {
                Ok(bytes) => return Poll::Ready(bytes),
                Err(later) => {
                    self.refusals = self.refusals.saturating_add(1);
                    let courtesy = COURTESY / self.refusals;
                    self.pause = Some(Box::pin(sleep_until(later + courtesy)));
                }
            }
        }
    }

    fn pay(&mut self, bytes: usize) {
        if let Some(bucket) = &self.bucket {
            bucket.pay(bytes, Instant::now());
            self.refusals = 0;
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Throttled<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let granted = ready!(this.read.poll_grant(cx)).min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(granted));
        ready!(Pin::new(&mut this.io).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        buffer.advance(count);
        this.read.pay(count);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Throttled<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let granted = ready!(this.write.poll_grant(cx)).min(bytes.len());
        let (part, _) = bytes.split_at(granted);
        let count = ready!(Pin::new(&mut this.io).poll_write(cx, part))?;
        this.write.pay(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Goal: both directions keep to the rate, whatever is offered. Method: virtual time.
    #[tokio::test(start_paused = true)]
    async fn a_stream_is_as_fast_as_its_limit() {
        for (up, down) in [(Some(10_000), None), (None, Some(10_000))] {
            let limits = Limits {
                up: up.map(|rate| Arc::new(Bucket::new(rate))),
                down: down.map(|rate| Arc::new(Bucket::new(rate))),
            };
            let (near, mut far) = tokio::io::duplex(1 << 20);
            let mut near = Throttled::new(near, limits);
            let start = Instant::now();
            if up.is_some() {
                near.write_all(&[7; 50_000]).await.unwrap();
                far.read_exact(&mut vec![0; 50_000]).await.unwrap();
            } else {
                far.write_all(&[7; 50_000]).await.unwrap();
                near.read_exact(&mut vec![0; 50_000]).await.unwrap();
            }
            let seconds = start.elapsed().as_secs_f64();
            assert!((4.5..=5.0).contains(&seconds), "{seconds}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn streams_share_their_limit() {
        let bucket = Arc::new(Bucket::new(10_000));
        let start = Instant::now();
        let send = || async {
            let limits = Limits {
                up: Some(bucket.clone()),
                down: None,
            };
            let (near, _far) = tokio::io::duplex(1 << 20);
            Throttled::new(near, limits)
                .write_all(&[7; 20_000])
                .await
                .unwrap();
        };
        tokio::join!(send(), send());
        let seconds = start.elapsed().as_secs_f64();
        assert!((3.5..=4.0).contains(&seconds), "{seconds}");
    }

    /// Goal: who always has more to send leaves others their part: two such have like shares, and one that says little now and
    /// then is not held up. Method: virtual time; all are streams of one limit.
    #[tokio::test(start_paused = true)]
    async fn no_stream_has_more_of_the_limit_than_another() {
        const RATE: u64 = 100_000;
        let bucket = Arc::new(Bucket::new(RATE));
        let limited = || {
            let (near, far) = tokio::io::duplex(1 << 24);
            let up = Some(bucket.clone());
            (Throttled::new(near, Limits { up, down: None }), far)
        };
        let sent = [(); 2].map(|()| std::cell::Cell::new(0_u64));
        let greedy = |sent| {
            let (mut near, far) = limited();
            async move {
                let _far = far;
                let sent: &std::cell::Cell<u64> = sent;
                loop {
                    let count = near.write(&[7; 1 << 16]).await.unwrap();
                    sent.set(sent.get() + count as u64);
                }
            }
        };
        let (mut near, mut far) = limited();
        let longest = std::cell::Cell::new(Duration::ZERO);
        let modest = async {
            loop {
                let start = Instant::now();
                near.write_all(&[1; 500]).await.unwrap();
                far.read_exact(&mut [0; 500]).await.unwrap();
                longest.set(longest.get().max(start.elapsed()));
                tokio::time::sleep(Duration::from_millis(730)).await;
            }
        };
        let (one, other): (_, _) = (greedy(&sent[0]), greedy(&sent[1]));
        let time = tokio::time::sleep(Duration::from_secs(60));
        tokio::select! {
            () = time => {}
            () = one => {}
            () = other => {}
            () = modest => {}
        }
        let [one, other] = sent.map(|sent| sent.get());
        assert!(
            one + other <= 61 * RATE && one + other >= 55 * RATE,
            "{one} and {other}"
        );
        let difference = one.abs_diff(other) as f64 / (one + other) as f64;
        assert!(difference < 0.1, "{one} and {other}");
        assert!(
            longest.get() <= Duration::from_millis(500),
            "{:?}",
            longest.get()
        );
    }
}
