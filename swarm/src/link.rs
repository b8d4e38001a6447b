//! The byte stream below a connection: counted, closed from outside, and missed when it is gone.
//! Knows bytes and wakers. Does not know keys, or why it is closed.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A byte stream of any transport.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A byte stream of any transport, without its type.
pub type BoxIo = Box<dyn Io>;

/// What remains with the swarm of a connection that was given out.
#[derive(Default)]
pub(crate) struct Control {
    is_closed: AtomicBool,
    received: AtomicU64,
    sent: AtomicU64,
    /// Who waits for bytes, and who for space.
    wakers: Mutex<[Option<Waker>; 2]>,
}

/// What a connection has carried, in bytes as they are on the wire of its transport.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// Bytes read.
    pub received: u64,
    /// Bytes written.
    pub sent: u64,
}

const READING: usize = 0;
const WRITING: usize = 1;

impl Control {
    /// Fails every read and write from now on.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        for waker in wakers.iter_mut().filter_map(Option::take) {
            waker.wake();
        }
    }

    pub(crate) fn carried(&self) -> Carried {
        Carried {
            received: self.received.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
        }
    }

    /// Fails if it was closed, and wakes the caller if it will be.
    fn check(&self, direction: usize, cx: &Context<'_>) -> io::Result<()> {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = wakers.get_mut(direction)
            && !slot
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *slot = Some(cx.waker().clone());
        }
        match self.is_closed.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }
}

/// A byte stream that its swarm can close, and that tells it when it is dropped.
pub struct Link {
    io: BoxIo,
    control: Arc<Control>,
    on_drop: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Link {
    pub(crate) fn new(
        io: BoxIo,
        control: Arc<Control>,
        on_drop: impl FnOnce() + Send + Sync + 'static,
    ) -> Self {
        Self {
            io,
            control,
            on_drop: Some(Box::new(on_drop)),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(tell) = self.on_drop.take() {
            tell();
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.control.check(READING, cx)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        let count = buffer.filled().len().saturating_sub(before) as u64;
        self.control.received.fetch_add(count, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.control.check(WRITING, cx)?;
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.control
                .sent
                .fetch_add(*count as u64, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.control.check(WRITING, cx)?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.control.check(WRITING, cx)?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let carried = self.control.carried();
        f.debug_struct("Link")
            .field("carried", &carried)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_link_counts_ends_when_told_and_tells_its_end() {
        let (near, mut far) = tokio::io::duplex(64);
        let control = Arc::new(Control::default());
        let drops = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&drops);
        let mut link = Link::new(Box::new(near), Arc::clone(&control), move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        link.write_all(b"hello").await.unwrap();
        far.write_all(b"hi").await.unwrap();
        link.read_exact(&mut [0; 2]).await.unwrap();
        let carried = Carried {
            received: 2,
            sent: 5,
        };
        assert_eq!(control.carried(), carried);

        // A read that waits ends, too.
        let mut buffer = [0; 1];
        let reading = link.read(&mut buffer);
        let closing = async { control.close() };
        let (read, ()) = tokio::join!(reading, closing);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert!(link.write(b"more").await.is_err());
        assert_eq!(drops.load(Ordering::SeqCst), 0);
        drop(link);
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    }
}
