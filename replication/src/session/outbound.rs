//! Frames on their way out: the memory that long ones wait for, and the task that writes them.
//!
//! Knows when to flush and what a frame holds. Does not know what frames say.

use std::convert::Infallible;
use std::pin::Pin;

use ferrocore_mux::Frame;
use ferrocore_secret_stream::{FrameBudget, FrameRoom, Sender, StreamError};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{timeout, timeout_at};

use crate::limits::{CLOSE_TIMEOUT, UPLOAD_TOGETHER_BYTES};

/// A frame on its way to the writing task, and the memory it holds.
pub(super) struct Outbound {
    pub(super) frame: Frame,
    pub(super) room: Option<FrameRoom>,
}

/// Memory for the next long answer.
pub(super) enum UploadRoom {
    None,
    Waiting(Pin<Box<dyn Future<Output = Result<FrameRoom, StreamError>> + Send>>),
    Granted(FrameRoom),
}

impl UploadRoom {
    pub(super) fn wait_for(&mut self, budget: &FrameBudget, len: usize) {
        if !matches!(self, Self::Waiting(_)) {
            let budget = budget.clone();
            *self = Self::Waiting(Box::pin(async move { budget.room(len).await }));
        }
    }

    /// Waits for the memory that was asked for; for ever if none was.
    pub(super) async fn granted(&mut self) -> Result<FrameRoom, StreamError> {
        let Self::Waiting(waiting) = self else {
            return std::future::pending().await;
        };
        let room = waiting.await;
        *self = Self::None;
        room
    }

    /// What `frame` holds while it is written.
    pub(super) fn take_for(&mut self, frame: &Frame) -> Option<FrameRoom> {
        if frame.len() <= UPLOAD_TOGETHER_BYTES {
            return None;
        }
        match std::mem::replace(self, Self::None) {
            Self::Granted(room) => Some(room),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// Writes frames as they come, flushes when none is waiting, and keeps the stream alive.
pub(super) async fn write<W: AsyncWrite + Unpin>(
    mut sender: Sender<W>,
    mut frames: mpsc::Receiver<Outbound>,
) -> Result<(), StreamError> {
    loop {
        let frame = match frames.try_recv() {
            Ok(frame) => Some(frame),
            Err(_) => {
                sender.flush().await?;
                tokio::select! {
                    frame = frames.recv() => frame,
                    ended = sender.keep_alive() => {
                        let never: Infallible = ended?;
                        match never {}
                    }
                }
            }
        };
        match frame {
            Some(Outbound { frame, room }) => {
                sender.send(frame.segments()).await?;
                drop(frame);
                if let Some(room) = room {
                    flush_within(&mut sender, &room).await?;
                }
            }
            None => return sender.close().await,
        }
    }
}

/// Writes a long frame in the time that it may hold memory for.
async fn flush_within<W: AsyncWrite + Unpin>(
    sender: &mut Sender<W>,
    room: &FrameRoom,
) -> Result<(), StreamError> {
    loop {
        match timeout_at(room.next_check(), sender.flush()).await {
            Ok(flushed) => return flushed,
            Err(_) => room.check()?,
        }
    }
}

/// Waits for the writing task to write what it has, but not for ever.
pub(super) async fn finish(
    mut writer: JoinHandle<Result<(), StreamError>>,
) -> Result<(), StreamError> {
    match timeout(CLOSE_TIMEOUT, &mut writer).await {
        Ok(Ok(written)) => written,
        Ok(Err(_)) => Ok(()), // the runtime is shutting down
        Err(_) => {
            writer.abort();
            Ok(())
        }
    }
}
