//! What a command reads from stdin, here or in the process that asked.
//! Knows how to pull chunks. Reads nothing that no command has asked for.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{mpsc, oneshot};

/// Most bytes that are read at once.
pub(crate) const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// A request for the next chunk; the answer is empty at the end.
pub(crate) type Pull = oneshot::Sender<Bytes>;

/// The input of one command.
#[derive(Debug)]
pub(crate) enum Input {
    /// The stdin of this process.
    Process(tokio::io::Stdin),
    /// The stdin of the process that asked, through the control socket.
    Guest(mpsc::Sender<Pull>),
}

impl Input {
    pub(crate) fn process() -> Self {
        Self::Process(tokio::io::stdin())
    }

    /// The next bytes, at most [`CHUNK_BYTES_MAX`], or `None` at the end.
    pub(crate) async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        let chunk = match self {
            Self::Process(stdin) => {
                let mut buffer = BytesMut::with_capacity(CHUNK_BYTES_MAX);
                stdin.read_buf(&mut buffer).await?;
                buffer.freeze()
            }
            Self::Guest(pulls) => {
                let (pull, chunk) = oneshot::channel();
                pulls.send(pull).await.map_err(|_| guest_gone())?;
                chunk.await.map_err(|_| guest_gone())?
            }
        };
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}

fn guest_gone() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the asking process has gone")
}
