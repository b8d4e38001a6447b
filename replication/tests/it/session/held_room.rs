//! Goal: a peer that takes next to nothing of what stands before a long answer, or lets us wait for room and then takes next to
//! nothing, holds no memory that others want. Method: virtual time; a peer that speaks for itself, over a wire that can be made slow.

use ferrocore_log::proof::{NodeRequest, ProofRequest};
use ferrocore_replication::messages::{Message, Request};
use ferrocore_secret_stream::FRAME_LEN_MAX;
use ferrocore_secret_stream::budget::{FRAME_BUDGET, STILL_TIME_MIN, WAIT_TARGET};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, advance, sleep, sleep_until};

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
            let taken = timeout(STILL_TIME_MIN, near_out.read(&mut buffer[..most])).await;
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

/// A wire on which what the first end sends comes to the second at so many bytes a second.
fn paced_wire(rate: usize) -> (DuplexStream, DuplexStream) {
    let (ours, near) = duplex(1 << 14);
    let (far, theirs) = duplex(1 << 14);
    let ((mut near_out, mut near_in), (mut far_out, mut far_in)) =
        (tokio::io::split(near), tokio::io::split(far));
    tokio::spawn(async move { tokio::io::copy(&mut far_out, &mut near_in).await });
    tokio::spawn(async move {
        let mut buffer = vec![0; rate / 5];
        let mut next = Instant::now();
        while let Ok(count @ 1..) = near_out.read(&mut buffer).await {
            if far_in.write_all(&buffer[..count]).await.is_err() {
                return;
            }
            next = next.max(Instant::now()) + Duration::from_secs_f64(count as f64 / rate as f64);
            sleep_until(next).await;
        }
    });
    (ours, theirs)
}

/// A writer and a reader over such a wire, each with memory of its own.
async fn paced(
    rate: usize,
    [here, there]: [&Corestore; 2],
    [ours_budgets, their_budgets]: [&FrameBudgets; 2],
) -> (Session, Session) {
    let (ours, theirs) = paced_wire(rate);
    let (ours, theirs) = tokio::join!(
        secret(ours, Role::Initiator),
        secret(theirs, Role::Responder)
    );
    let ours = Session::spawn(ours, here.clone(), options_with(ours_budgets));
    let theirs = Session::spawn(theirs, there.clone(), options_with(their_budgets));
    (ours, theirs)
}

#[tokio::test(start_paused = true)]
async fn what_stands_before_a_long_answer_holds_no_room() {
    const LEN: usize = 10 << 20;
    let blocks = [vec![1; 60_000], vec![2; 60_000], vec![3; LEN]].map(Into::into);
    let (here, writer, _there, _reader) = writer_and_reader(&blocks);
    let budgets = FrameBudgets::new(0);
    let mut asker = Asker::open(&here, &writer, &budgets).await;
    asker.is_slow.store(true, Ordering::SeqCst);
    sleep(2 * STILL_TIME_MIN).await;
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
            sleep(STILL_TIME_MIN / 3).await;
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
    sleep(2 * STILL_TIME_MIN).await;
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

/// Goal: nobody is kept from room by peers that were cut for holding it, and take their time to go. Method: sixty that each have
/// begun a frame of 16 MiB, and take a byte of what we have to say now and then.
#[tokio::test(start_paused = true)]
async fn who_is_cut_gives_its_room_back_at_once() {
    let (here, writer, _there, _reader) = writer_and_reader(&vec![vec![1; 10_000].into(); 5]);
    let budgets = FrameBudgets::new(0);
    let mut stalled = Vec::new();
    for _ in 0..60 {
        let mut asker = Asker::open(&here, &writer, &budgets).await;
        asker.is_slow.store(true, Ordering::SeqCst);
        asker.ask(0, 30).await;
        let Opened {
            session,
            sender,
            receiver,
            ..
        } = asker.at;
        let mut io = sender.into_inner();
        io.write_all(&[255, 255, 255, 7, 7, 7]).await.unwrap();
        stalled.push((session, io, receiver));
    }
    sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    let _room = budgets.incoming.room(FRAME_LEN_MAX).await.unwrap();
    assert!(start.elapsed() <= WAIT_TARGET, "{:?}", start.elapsed());
}

/// Goal: the same of what they are to be sent, however much else they say meanwhile. Method: sixty that ask for a long block, take
/// next to nothing of it, and for a short one again and again.
#[tokio::test(start_paused = true)]
async fn who_takes_nothing_gives_its_room_back_at_once() {
    let blocks = [vec![1; 15 << 20].into(), vec![2; 100].into()];
    let (here, writer, _there, _reader) = writer_and_reader(&blocks);
    let budgets = FrameBudgets::new(0);
    let mut stalled = Vec::new();
    for _ in 0..60 {
        let mut asker = Asker::open(&here, &writer, &budgets).await;
        asker.is_slow.store(true, Ordering::SeqCst);
        asker.ask(0, 1).await;
        stalled.push(tokio::spawn(async move {
            loop {
                asker.ask(1, 1).await;
                sleep(STILL_TIME_MIN / 3).await;
            }
        }));
    }
    sleep(Duration::from_millis(200)).await;
    assert!(budgets.outgoing.is_crowded());
    let start = Instant::now();
    let _room = budgets.outgoing.room(FRAME_LEN_MAX).await.unwrap();
    assert!(start.elapsed() <= 2 * WAIT_TARGET, "{:?}", start.elapsed());
    stalled.iter().for_each(JoinHandle::abort);
}

/// Goal: readers of long blocks wait for one another and are all served, where each that is cut would come again, and nobody get
/// any. Method: twelve over lines on which a block takes most of a minute, two of which have room at a time.
#[tokio::test(start_paused = true)]
async fn a_crowd_of_readers_is_served_one_after_the_other() {
    const LEN: usize = 10 << 20;
    let (here, writer, _there, _reader) = writer_and_reader(&[vec![3; LEN].into()]);
    let budgets = FrameBudgets::new(FRAME_BUDGET);
    let mut reading = Vec::new();
    for _ in 0..12 {
        let own = FrameBudgets::new(0);
        let there = Corestore::memory();
        let reader = there.get(&writer.key()).unwrap();
        let (ours, theirs) = paced(240_000, [&here, &there], [&budgets, &own]).await;
        reading.push(tokio::spawn(async move {
            let all = reader.download_all();
            tokio::select! {
                ended = ours.closed() => panic!("{ended:?}"),
                caught_up = all.caught_up() => caught_up.unwrap(),
            }
            assert!(reader.has(0));
            drop(theirs);
        }));
    }
    for reading in reading {
        timeout(Duration::from_secs(600), reading)
            .await
            .expect("in time")
            .unwrap();
    }
}

/// Goal: what comes slowly comes once, however slowly that is, and however long it has to wait for memory here in between. Method:
/// blocks that take seven minutes each; blocks of which one is held up for a while after five minutes.
#[tokio::test(start_paused = true)]
async fn what_comes_slowly_is_asked_for_once() {
    let a_while = Some(Duration::from_secs(50));
    let cases = [(5_000, 2 << 20, 3, None), (100_000, 10 << 20, 5, a_while)];
    for (rate, len, blocks, held_up) in cases {
        let blocks: Vec<_> = (0..blocks).map(|fill| vec![fill; len].into()).collect();
        let (here, _writer, there, reader) = writer_and_reader(&blocks);
        let all = reader.download_all();
        let (ours, theirs) = (FrameBudgets::new(0), FrameBudgets::new(0));
        let (_ours, session) = paced(rate, [&here, &there], [&ours, &theirs]).await;
        if let Some(time) = held_up {
            let incoming = theirs.incoming.clone();
            tokio::spawn(async move {
                sleep(Duration::from_secs(310)).await;
                let room = incoming.room(FRAME_LEN_MAX).await.unwrap();
                sleep(time).await;
                drop(room);
            });
        }
        let seconds = (blocks.len() * len / rate) as u64;
        let in_time = timeout(
            Duration::from_secs(seconds + seconds / 10 + 60),
            all.caught_up(),
        );
        in_time.await.expect("in time").unwrap();
        let stats = session.stats();
        assert_eq!((stats.requests_timed_out, stats.answers_ignored), (0, 0));
    }
}

/// Goal: time in which our own machine stood still is held against no peer. Method: while one takes a long answer somebody else
/// waits for its room, and the clock jumps.
#[tokio::test(start_paused = true)]
async fn a_machine_that_stood_still_blames_nobody() {
    const LEN: usize = 10 << 20;
    let (here, _writer, there, reader) = writer_and_reader(&[vec![3; LEN].into()]);
    let all = reader.download_all();
    let (budgets, own) = (FrameBudgets::new(0), FrameBudgets::new(0));
    let (ours, _theirs) = paced(1_000_000, [&here, &there], [&budgets, &own]).await;
    while budgets.outgoing.held() < LEN {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_secs(3)).await;
    let outgoing = budgets.outgoing.clone();
    let _waits = tokio::spawn(async move { outgoing.room(FRAME_LEN_MAX).await });
    yield_now().await;
    advance(Duration::from_secs(30)).await;
    tokio::select! {
        ended = ours.closed() => panic!("{ended:?}"),
        caught_up = all.caught_up() => caught_up.unwrap(),
    }
}

/// Goal: a long answer that waits for room holds up no other core of its connection, and those that wait on several come one after
/// the other. Method: all room is taken while long blocks of two cores are wanted, and short ones of a third.
#[tokio::test(start_paused = true)]
async fn what_waits_for_room_holds_up_no_other_core() {
    let (here, there) = (Corestore::memory(), Corestore::memory());
    let write = |name: &str, lens: &[usize]| {
        let writer = here.get_named(name).unwrap();
        let blocks = lens.iter().map(|len| vec![7; *len].into());
        writer.append_batch(blocks.collect()).unwrap();
        there.get(&writer.key()).unwrap()
    };
    let long = [
        write("one", &[300_000, 10 << 20, 2 << 20]),
        write("two", &[10 << 20, 300_000]),
    ];
    let short = write("three", &[100; 50]);
    let (budgets, own) = (FrameBudgets::new(0), FrameBudgets::new(FRAME_BUDGET));
    let taken = budgets.outgoing.room(FRAME_LEN_MAX).await.unwrap();
    let (_ours, session) = paced(10_000_000, [&here, &there], [&budgets, &own]).await;
    let wanted = long.each_ref().map(|core| core.download_all());
    timeout(SOON, async {
        while !budgets.outgoing.is_crowded() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("a long answer waits");
    let whole = short.download_all();
    timeout(SOON, whole.caught_up())
        .await
        .expect("in time")
        .unwrap();
    assert_eq!(short.contiguous_length(), 50);
    assert!(long.iter().all(|core| core.contiguous_length() == 0));
    drop(taken);
    for all in wanted {
        timeout(SOON, all.caught_up())
            .await
            .expect("in time")
            .unwrap();
    }
    assert_eq!(session.stats().requests_timed_out, 0);
    assert!(
        long.iter()
            .all(|core| core.contiguous_length() == core.length())
    );
}
