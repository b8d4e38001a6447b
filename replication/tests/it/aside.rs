//! Goal: a session has much work done on another thread and little work on its own, and lets go of everything
//! whenever it ends. Method: sessions on a runtime of one thread; whoever waits for a core's events is woken on the
//! thread that committed, and notes it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crate::common::{assert_complete_copy, blocks, writer_and_reader};
use bytes::Bytes;
use ferrocore_log::{Core, Corestore};
use ferrocore_primitives::sign::KeyPair;
use ferrocore_replication::Session;
use ferrocore_replication::session::{Helpers, SessionOptions};
use ferrocore_secret_stream::{Options, Role, SecretStream};
use tokio::io::duplex;
use tokio::time::timeout;

/// What a pipe holds: enough for several frames at a time.
const PIPE: usize = 1 << 20;

async fn sessions(here: &Corestore, there: &Corestore) -> (Session, Session) {
    let (ours, theirs) = duplex(PIPE);
    let (our_keys, their_keys) = (KeyPair::generate(), KeyPair::generate());
    let (ours, theirs) = tokio::try_join!(
        SecretStream::handshake(ours, Role::Initiator, &our_keys, Options::default()),
        SecretStream::handshake(theirs, Role::Responder, &their_keys, Options::default()),
    )
    .unwrap();
    let options = SessionOptions {
        helpers: Helpers::new(1),
        ..SessionOptions::default()
    };
    (
        Session::spawn(ours, here.clone(), options.clone()),
        Session::spawn(theirs, there.clone(), options),
    )
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), future)
        .await
        .expect("within a minute")
}

/// Notes who wakes.
struct Noted {
    waker: Waker,
    by: Arc<Mutex<Vec<ThreadId>>>,
}

impl Wake for Noted {
    fn wake(self: Arc<Self>) {
        self.by.lock().unwrap().push(thread::current().id());
        self.waker.wake_by_ref();
    }
}

/// Notes the threads that change `core` until `is_done`.
async fn changed_by(core: &Core, is_done: impl Fn() -> bool) -> Vec<ThreadId> {
    let by = Arc::new(Mutex::new(Vec::new()));
    let events = core.events();
    while !is_done() {
        let mut next = pin!(events.next());
        let event = poll_fn(|context| {
            let (waker, by) = (context.waker().clone(), Arc::clone(&by));
            let noted = Waker::from(Arc::new(Noted { waker, by }));
            next.as_mut().poll(&mut Context::from_waker(&noted))
        });
        within(event).await;
    }
    std::mem::take(&mut by.lock().unwrap())
}

fn bulk() -> Vec<Bytes> {
    vec![vec![7; 65_536].into(); 200]
}

#[tokio::test]
async fn much_is_committed_aside_and_little_here() {
    let here = thread::current().id();
    let (ours, writer, theirs, reader) = writer_and_reader(&bulk());
    let all = reader.download_all();
    let _sessions = sessions(&ours, &theirs).await;
    let is_here = || reader.length() > 0 && reader.contiguous_length() == reader.length();
    let by = changed_by(&reader, is_here).await;
    within(all.caught_up()).await.unwrap();
    assert_complete_copy(&writer, &reader);
    assert!(by.iter().any(|thread| *thread != here));

    for length in 201..220 {
        writer.append("little").unwrap();
        let by = changed_by(&reader, || reader.contiguous_length() == length).await;
        assert!(by.iter().all(|thread| *thread == here));
    }
}

#[tokio::test]
async fn an_aborted_session_has_let_go_of_its_cores() {
    // However far it has come, and whatever is being worked on aside.
    for blocks_here in [0, 1, 5, 50, 120] {
        let (ours, _, theirs, reader) = writer_and_reader(&bulk());
        let _all = reader.download_all();
        let (_ours, downloading) = sessions(&ours, &theirs).await;
        changed_by(&reader, || reader.contiguous_length() >= blocks_here).await;
        downloading.abort();
        within(downloading.closed()).await.unwrap();
        assert_eq!(reader.supply().suppliers(), 0, "after {blocks_here}");
        let held = reader.contiguous_length();
        for index in 0..held {
            assert!(reader.get_local(index).unwrap().is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_bulks_against_each_other_are_whole() {
    // More sessions than there are places aside: the others work here.
    let (ours, writer, theirs, reader) = writer_and_reader(&bulk());
    let back_writer = theirs.get_named("back").unwrap();
    back_writer.append_batch(blocks(20_000)).unwrap();
    let back_reader = ours.get(&back_writer.key()).unwrap();
    let downloads = (reader.download_all(), back_reader.download_all());
    let (ours, theirs) = sessions(&ours, &theirs).await;
    within(downloads.0.caught_up()).await.unwrap();
    within(downloads.1.caught_up()).await.unwrap();
    assert_complete_copy(&writer, &reader);
    assert_complete_copy(&back_writer, &back_reader);
    // What was read ahead when the other end went away counts as well.
    ours.close();
    within(ours.closed()).await.unwrap();
    within(theirs.closed()).await.unwrap();
}
