//! Goal: a peer that takes next to nothing of what stands before a long answer, or lets us wait for room and then takes next to
//! nothing, holds no memory that others want. Method: virtual time; a peer that speaks for itself, over a wire that can be made slow.

use ferrocore_log::proof::{NodeRequest, ProofRequest};
use ferrocore_replication::messages::{Message, Request};
use ferrocore_secret_stream::FRAME_LEN_MAX;
use ferrocore_secret_stream::budget::HELD_TIME_MIN;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::*;

/// Longer than anybody may hold up others who stand still.
const SOON: Duration = Duration::from_secs(15);

/// A peer that has opened a core with a session of ours.
struct Asker {
    /// Its receiving end stays open.
    at: Opened,
    /// From now on it takes a byte each 50 seconds.
    is_slow: Arc<AtomicBool>,
    asked: u64,
}

impl Asker {
    async fn open(store: &Corestore, core: &Core, budgets: &FrameBudgets) -> Self {
        let (ours, theirs, is_slow) = slow_wire();
        Self {
            at: Opened::over((ours, theirs), store, core, budgets).await,
            is_slow,
            asked: 0,
        }
    }

    /// Asks for a block, and so often again.
    async fn ask(&mut self, index: u64, count: usize) {
        let mut scratch = Vec::new();
        for _ in 0..count {
            self.asked += 1;
            let block = Some(NodeRequest { index, nodes: 0 });
            let proof = ProofRequest {
                block,
                ..ProofRequest::default()
            };
            let message = Message::Request(Request {
                id: self.asked,
                proof,
                priority: 0,
            });
            let (mux, channel, kind) = (&mut self.at.mux, self.at.channel, message.kind());
            let sent = message.encode(&mut scratch, |segments| mux.send(channel, kind, segments));
            sent.unwrap();
        }
        while let Some(frame) = self.at.mux.poll_transmit() {
            self.at.sender.send(&[frame.to_bytes()]).await.unwrap();
        }
        self.at.sender.flush().await.unwrap();
    }

    async fn has_lost_its_session(&self) -> bool {
        let ended = timeout(SOON, self.at.session.closed()).await;
        matches!(ended, Ok(Err(SessionError::Stream(error))) if matches!(*error, StreamError::FrameTimeout { .. }))
    }
}

/// A wire on which what the first end sends comes slowly to the second, once that is wanted.
fn slow_wire() -> (DuplexStream, DuplexStream, Arc<AtomicBool>) {
    let (ours, near) = duplex(1 << 16);
    let (far, theirs) = duplex(1 << 16);
    let ((mut near_out, mut near_in), (mut far_out, mut far_in)) =
        (tokio::io::split(near), tokio::io::split(far));
    tokio::spawn(async move { tokio::io::copy(&mut far_out, &mut near_in).await });
    let is_slow = Arc::new(AtomicBool::new(false));
    let slow = Arc::clone(&is_slow);
    tokio::spawn(async move {
        let mut buffer = [0; 1000];
        loop {
            let most = match slow.load(Ordering::SeqCst) {
                true => {
                    sleep(Duration::from_secs(50)).await;
                    1
                }
                false => buffer.len(),
            };
            let taken = timeout(HELD_TIME_MIN, near_out.read(&mut buffer[..most])).await;
            match taken {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(count)) => {
                    if far_in.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
                Err(_) => {} // look again whether it is to be slow
            }
        }
    });
    (ours, theirs, is_slow)
}

#[tokio::test(start_paused = true)]
async fn what_stands_before_a_long_answer_holds_no_room() {
    const LEN: usize = 10 << 20;
    let blocks = [vec![1; 60_000], vec![2; 60_000], vec![3; LEN]].map(Into::into);
    let (here, writer, _there, _reader) = writer_and_reader(&blocks);
    let budgets = FrameBudgets::new(0);
    let mut asker = Asker::open(&here, &writer, &budgets).await;
    asker.is_slow.store(true, Ordering::SeqCst);
    sleep(2 * HELD_TIME_MIN).await;
    for index in 0..3 {
        asker.ask(index, 1).await;
    }
    while budgets.outgoing.held() < LEN {
        yield_now().await;
    }
    let start = Instant::now();
    // It goes on asking, more often than anybody looks at what is held.
    let asks_on = async {
        loop {
            sleep(HELD_TIME_MIN / 3).await;
            asker.ask(0, 1).await;
        }
    };
    let _room = tokio::select! {
        room = budgets.outgoing.room(LEN) => room.unwrap(),
        () = asks_on => unreachable!(),
    };
    assert!(start.elapsed() <= SOON, "{:?}", start.elapsed());
    assert!(asker.has_lost_its_session().await);
}

#[tokio::test(start_paused = true)]
async fn who_waited_for_room_and_does_not_read_holds_none() {
    const MANY: usize = 16_500;
    let blocks = vec![vec![1; 10_000].into(); 5];
    let (here, writer, _there, _reader) = writer_and_reader(&blocks);
    let budgets = FrameBudgets::new(0);
    let taken = budgets.incoming.room(FRAME_LEN_MAX).await.unwrap();
    let mut asker = Asker::open(&here, &writer, &budgets).await;
    asker.is_slow.store(true, Ordering::SeqCst);
    sleep(2 * HELD_TIME_MIN).await;
    asker.ask(0, MANY).await;
    let Opened {
        session: _session,
        sender: mut wire,
        receiver: _receiver,
        ..
    } = asker.at;
    wire.flush().await.unwrap();
    let mut io = wire.into_inner();
    // A frame of the longest kind that has begun.
    io.write_all(&[255, 255, 255, 7, 7, 7]).await.unwrap();
    timeout(SOON, async {
        while !budgets.incoming.is_crowded() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("it waits for room");
    drop(taken);
    let start = Instant::now();
    let _room = budgets.incoming.room(FRAME_LEN_MAX).await.unwrap();
    assert!(start.elapsed() <= 2 * SOON, "{:?}", start.elapsed());
}
