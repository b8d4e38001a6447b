//! The guest's side: sends a command line, lends its streams, ends with the host's exit code.

use std::io;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;

use super::frame::{self, Kind, Request};
use super::socket_path;
use crate::input::CHUNK_BYTES_MAX;
use crate::stop::Stop;

/// Runs a command through whoever holds the store in `dir`, with the streams of this process.
///
/// Returns its exit code, or `None` if nobody listens there.
pub(crate) async fn run_through(
    dir: &Path,
    request: &Request,
    stop: &Stop,
) -> io::Result<Option<u8>> {
    let (mut stdin, mut stdout, mut stderr) =
        (tokio::io::stdin(), tokio::io::stdout(), tokio::io::stderr());
    run(dir, request, &mut stdin, &mut stdout, &mut stderr, stop).await
}

pub(super) async fn run(
    dir: &Path,
    request: &Request,
    stdin: &mut (impl AsyncRead + Unpin),
    stdout: &mut (impl AsyncWrite + Unpin),
    stderr: &mut (impl AsyncWrite + Unpin),
    stop: &Stop,
) -> io::Result<Option<u8>> {
    let (path, _directory) = socket_path(dir)?;
    let Ok(stream) = UnixStream::connect(path).await else {
        return Ok(None);
    };
    let (mut frames, mut sender) = stream.into_split();
    frame::write(&mut sender, Kind::Request, &request.encode()).await?;
    let (pull, pulls) = mpsc::channel(1);
    tokio::select! {
        code = show(&mut frames, stdout, stderr, &pull) => code.map(Some),
        error = lend(&mut sender, stdin, pulls, stop) => Err(error),
    }
}

/// Writes what the host says until it says the exit code.
async fn show(
    frames: &mut (impl AsyncRead + Unpin),
    stdout: &mut (impl AsyncWrite + Unpin),
    stderr: &mut (impl AsyncWrite + Unpin),
    pull: &mpsc::Sender<()>,
) -> io::Result<u8> {
    loop {
        match frame::read(frames).await? {
            Some((Kind::Stdout, bytes)) => write_all(stdout, &bytes).await?,
            Some((Kind::Stderr, bytes)) => write_all(stderr, &bytes).await?,
            Some((Kind::Pull, _)) => {
                // The other side of the channel lives as long as this.
                pull.send(()).await.ok();
            }
            Some((Kind::Exit, code)) => return Ok(code.first().copied().unwrap_or(1)),
            Some(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the holder of the store talks nonsense",
                ));
            }
            None => {
                let message = "the program that held the store has ended; run the command again";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
        }
    }
}

/// Sends stdin as the host pulls it, and Ctrl-C; ends only with an error.
async fn lend(
    sender: &mut OwnedWriteHalf,
    stdin: &mut (impl AsyncRead + Unpin),
    mut pulls: mpsc::Receiver<()>,
    stop: &Stop,
) -> io::Error {
    loop {
        let sent = tokio::select! {
            () = stop.asked() => {
                frame::write(sender, Kind::Stop, &[]).await.ok();
                break;
            }
            chunk = pulled(&mut pulls, stdin) => match chunk {
                Ok(chunk) => frame::write(sender, Kind::Stdin, &chunk).await,
                Err(error) => return error,
            },
        };
        if sent.is_err() {
            break;
        }
    }
    // The host has gone, or is about to end: either way its exit code says more.
    std::future::pending().await
}

/// The next bytes of stdin, once the host pulls them.
async fn pulled(
    pulls: &mut mpsc::Receiver<()>,
    stdin: &mut (impl AsyncRead + Unpin),
) -> io::Result<Bytes> {
    match pulls.recv().await {
        Some(()) => chunk(stdin).await,
        None => std::future::pending().await,
    }
}

async fn chunk(stdin: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    let mut buffer = BytesMut::with_capacity(CHUNK_BYTES_MAX);
    stdin.read_buf(&mut buffer).await?;
    Ok(buffer.freeze())
}

async fn write_all(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}
