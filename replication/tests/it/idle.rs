//! Sessions that have nothing to do.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::common::blocks;
use ferrocore_log::{Core, Corestore};
use ferrocore_primitives::sign::KeyPair;
use ferrocore_replication::Session;
use ferrocore_replication::session::SessionOptions;
use ferrocore_secret_stream::{Options, Role, SecretStream};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::time::sleep;

const CORES: u64 = 1000;

/// A pipe that counts how often anybody looks at it: a session that is woken does.
struct Watched {
    io: DuplexStream,
    looks: Arc<AtomicU64>,
}

impl Watched {
    fn look(&mut self) -> Pin<&mut DuplexStream> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.io)
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.look().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.look().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.look().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.look().poll_shutdown(cx)
    }
}

async fn session(io: DuplexStream, role: Role, store: &Corestore) -> (Session, Arc<AtomicU64>) {
    let looks = Arc::<AtomicU64>::default();
    let watched = Watched {
        io,
        looks: Arc::clone(&looks),
    };
    // Keepalives are the stream's, and come however many cores there are.
    let options = Options {
        keep_alive: None,
        ..Options::default()
    };
    let key_pair = KeyPair::generate();
    let stream = SecretStream::handshake(watched, role, &key_pair, options).await;
    let stream = stream.unwrap();
    let session = Session::spawn(stream, store.clone(), SessionOptions::default());
    (session, looks)
}

/// Goal: a session with a thousand idle cores, each of which somebody follows, is not woken once in 10 s, at neither end; news
/// of one comes through all the same. Method: virtual time; who is woken looks at its stream.
#[tokio::test(start_paused = true)]
async fn idle_cores_wake_no_session() {
    let (here, there) = (Corestore::memory(), Corestore::memory());
    let writers: Vec<Core> = (0..CORES)
        .map(|number| {
            let writer = here.get_named(&format!("core {number}")).unwrap();
            writer.append_batch(blocks(2)).unwrap();
            writer
        })
        .collect();
    let open = |writer: &Core| there.get(&writer.key()).unwrap();
    let readers: Vec<Core> = writers.iter().map(open).collect();
    let following: Vec<_> = readers.iter().map(Core::download_all).collect();
    let (near, far) = duplex(1 << 16);
    let ((_ours, our_looks), (_theirs, their_looks)) = tokio::join!(
        session(near, Role::Initiator, &here),
        session(far, Role::Responder, &there)
    );
    for all in &following {
        all.caught_up().await.unwrap();
    }
    let looks = || [&our_looks, &their_looks].map(|looks| looks.load(Ordering::Relaxed));
    sleep(Duration::from_secs(60)).await; // whatever is put off is done
    let before = looks();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(looks(), before, "nobody was woken");

    let events = readers[777].events();
    writers[777].append("news").unwrap();
    while readers[777].length() == 2 {
        events.next().await;
    }
    let after = looks();
    assert!(after[0] > before[0] && after[1] > before[1], "{after:?}");
}
