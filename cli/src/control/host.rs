//! The host's side: takes guests in, runs their commands, and sends them home when it ends.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::frame::{self, FRAME_BYTES_MAX, Kind, Request};
use super::{SOCKET, socket_path};
use crate::input::{Input, Pull};
use crate::output::{Sink, Stream};
use crate::stop::{self, Stop, Stopper};

/// Most guests at once; more wait for their turn.
pub(super) const GUESTS_MAX: usize = 32;

/// Most pieces of output that wait for one guest.
const OUTPUT_MAX: usize = 16;

/// How long guests may go on when the host ends.
const GRACE: Duration = Duration::from_secs(2);

/// A guest's command, to be run.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) request: Request,
    pub(crate) input: Input,
    pub(crate) sink: Sink,
    pub(crate) stop: Stop,
}

/// A control socket that is being served.
#[derive(Debug)]
pub(crate) struct Host {
    path: PathBuf,
    accepting: JoinHandle<()>,
    guests: Arc<Semaphore>,
    /// Stops the guests' commands.
    stopper: Stopper,
}

impl Host {
    /// Listens for guests of the store in `dir`, whose lock the caller holds, and answers each with
    /// the exit code of `run`.
    pub(crate) fn start<R, F>(dir: &Path, run: R) -> io::Result<Self>
    where
        R: Fn(Visit) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = u8> + Send + 'static,
    {
        let path = dir.join(SOCKET);
        // Holding the lock, we know that a socket that is there is nobody's.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (short, _directory) = socket_path(dir)?;
        let listener = UnixListener::bind(short)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let owner = std::fs::metadata(&path)?.uid();
        let guests = Arc::new(Semaphore::new(GUESTS_MAX));
        let (stopper, stop) = stop::pair();
        let accepting = tokio::spawn(accept(listener, owner, guests.clone(), stop, run));
        Ok(Self {
            path,
            accepting,
            guests,
            stopper,
        })
    }

    /// Takes no more guests, and lets those that are here end: by themselves, or soon.
    pub(crate) async fn close(self) {
        self.accepting.abort();
        std::fs::remove_file(&self.path).ok();
        let all = u32::try_from(GUESTS_MAX).expect("a small number");
        if tokio::time::timeout(GRACE, self.guests.acquire_many(all))
            .await
            .is_err()
        {
            self.stopper.stop();
            tokio::time::timeout(GRACE, self.guests.acquire_many(all))
                .await
                .ok();
        }
    }
}

async fn accept<R, F>(
    listener: UnixListener,
    owner: u32,
    guests: Arc<Semaphore>,
    stop: Stop,
    run: R,
) where
    R: Fn(Visit) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = u8> + Send + 'static,
{
    while let Ok(place) = guests.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors: others must close some first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // The socket's mode says the same, but not yet when it is bound.
        if stream.peer_cred().is_ok_and(|peer| peer.uid() == owner) {
            let (run, stop) = (run.clone(), stop.clone());
            tokio::spawn(async move {
                // A guest that breaks off is told nothing.
                welcome(stream, stop, run).await.ok();
                drop(place);
            });
        }
    }
}

async fn welcome<R, F>(stream: UnixStream, host_stop: Stop, run: R) -> io::Result<()>
where
    R: Fn(Visit) -> F,
    F: Future<Output = u8>,
{
    let (mut frames, mut sender) = stream.into_split();
    let Some((Kind::Request, bytes)) = frame::read(&mut frames).await? else {
        return Ok(());
    };
    let Some(request) = Request::decode(&bytes) else {
        return Ok(());
    };
    let (stopper, stop) = stop::pair();
    let (pulls, pulled) = mpsc::channel(1);
    let (output, said) = mpsc::channel(OUTPUT_MAX);
    let (chunks, stdin) = mpsc::channel(1);
    let (ask, asked) = mpsc::channel(1);
    let visit = Visit {
        request,
        input: Input::Guest(pulls),
        sink: Sink::Guest(output),
        stop,
    };
    let listening = tokio::spawn(listen(frames, stopper, chunks, host_stop));
    let feeding = tokio::spawn(feed(pulled, ask, stdin));
    let (code, told) = tokio::join!(run(visit), tell(&mut sender, said, asked));
    listening.abort();
    feeding.abort();
    told?;
    frame::write(&mut sender, Kind::Exit, &[code]).await
}

/// Takes what the guest sends until it hangs up, which stops its command, as does the host's end.
async fn listen(
    mut frames: OwnedReadHalf,
    stopper: Stopper,
    chunks: mpsc::Sender<Bytes>,
    host_stop: Stop,
) {
    loop {
        let frame = tokio::select! {
            frame = frame::read(&mut frames) => frame,
            () = host_stop.asked() => return,
        };
        match frame {
            Ok(Some((Kind::Stop, _))) => stopper.stop(),
            Ok(Some((Kind::Stdin, chunk))) if chunks.capacity() > 0 => {
                chunks.send(chunk).await.ok();
            }
            // Gone, or it talks nonsense, such as stdin that nobody asked for.
            _ => return,
        }
    }
}

/// Passes each pull on, and its answer back.
async fn feed(
    mut pulls: mpsc::Receiver<Pull>,
    ask: mpsc::Sender<()>,
    mut stdin: mpsc::Receiver<Bytes>,
) {
    while let Some(pull) = pulls.recv().await {
        if ask.send(()).await.is_err() {
            return;
        }
        let Some(chunk) = stdin.recv().await else {
            return;
        };
        pull.send(chunk).ok();
    }
}

/// Sends output and pulls until the command has ended.
async fn tell(
    sender: &mut OwnedWriteHalf,
    mut said: mpsc::Receiver<(Stream, Bytes)>,
    mut asked: mpsc::Receiver<()>,
) -> io::Result<()> {
    loop {
        tokio::select! {
            output = said.recv() => match output {
                Some((stream, bytes)) => send(sender, stream, &bytes).await?,
                None => return Ok(()),
            },
            Some(()) = asked.recv() => frame::write(sender, Kind::Pull, &[]).await?,
        }
    }
}

async fn send(
    sender: &mut (impl AsyncWrite + Unpin),
    stream: Stream,
    bytes: &[u8],
) -> io::Result<()> {
    let kind = match stream {
        Stream::Stdout => Kind::Stdout,
        Stream::Stderr => Kind::Stderr,
    };
    for chunk in bytes.chunks(FRAME_BYTES_MAX) {
        frame::write(sender, kind, chunk).await?;
    }
    Ok(())
}
