//! Sessions that have more cores to offer than their peer has answered.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use ferrocore_log::{Core, CoreError, Corestore};
use ferrocore_mux::{Event, Mux, OfferId};
use ferrocore_primitives::encoding::Encode;
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_replication::Session;
use ferrocore_replication::capability::capability;
use ferrocore_replication::connection::PROTOCOL;
use ferrocore_replication::limits::{
    HEAD_PATIENCE_ALONE, UNANSWERED_OFFERS_MAX, UNOFFERED_LOOK_INTERVAL, UNPROVEN_OFFERS_MAX,
    UPDATE_TOTAL_ALONE_MAX,
};
use ferrocore_replication::messages::Handshake;
use ferrocore_replication::session::{PeersMemory, SessionOptions};
use ferrocore_secret_stream::{Options, Receiver, Role, SecretStream, Sender};
use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex};
use tokio::time::{Instant, sleep, timeout};

/// Both ends of a stream over a pipe that holds enough for any offers.
async fn streams() -> (SecretStream<DuplexStream>, SecretStream<DuplexStream>) {
    let (ours, theirs) = duplex(4 << 20);
    let keys = (KeyPair::generate(), KeyPair::generate());
    tokio::try_join!(
        SecretStream::handshake(ours, Role::Initiator, &keys.0, Options::default()),
        SecretStream::handshake(theirs, Role::Responder, &keys.1, Options::default()),
    )
    .unwrap()
}

/// Sessions of one test share what no other test takes of.
fn options(memory: &PeersMemory) -> SessionOptions {
    SessionOptions {
        peers_memory: memory.clone(),
        ..SessionOptions::default()
    }
}

/// Readers of cores that nobody has.
fn unknown(store: &Corestore, count: usize) -> Vec<Core> {
    let keys = (0..count as u64).map(|number| {
        let mut key = [5; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        Key::from(key)
    });
    keys.map(|key| store.get(&key).unwrap()).collect()
}

/// A peer that takes what we write and answers nothing, as long as it is kept.
async fn stranger(
    store: &Corestore,
    memory: &PeersMemory,
) -> (Session, SecretStream<DuplexStream>) {
    let (ours, theirs) = streams().await;
    let session = Session::spawn(ours, store.clone(), options(memory));
    (session, theirs)
}

async fn on_connection(session: &Session) -> usize {
    session.report().await.unwrap().cores.len()
}

/// Goal: of two that have one core in common, the reader finds it behind thousands that the other has not, though it offers
/// only some at a time; who reads it waits for that. Method: the writer offers nothing, so that nothing else helps.
#[tokio::test]
async fn a_core_is_found_behind_thousands_that_the_peer_has_not() {
    let (here, there) = (Corestore::memory(), Corestore::memory());
    let _unknown = unknown(&there, 10_000);
    let writer = here.get_named("the last").unwrap();
    writer.append("found").unwrap();
    let reader = there.get(&writer.key()).unwrap();
    let memory = PeersMemory::new(1 << 20);
    let (ours, theirs) = streams().await;
    let begin = std::time::Instant::now();
    let _ours = Session::spawn(ours, here, options(&memory));
    let theirs = Session::spawn(theirs, there, options(&memory));
    let read = timeout(Duration::from_secs(60), reader.get(0)).await;
    assert_eq!(read.expect("it is found").unwrap(), "found");
    println!("found behind 10,000 in {:?}", begin.elapsed());
    assert_eq!(on_connection(&theirs).await, 1, "the others were rejected");
}

/// Goal: to a peer that answers nothing only so many cores are offered, fewer while it has proven nothing, and those it shares
/// that it opens itself are replicated all the same. Method: the peer proves itself by opening one that waits.
#[tokio::test]
async fn who_answers_nothing_is_offered_little() {
    let (here, there) = (Corestore::memory(), Corestore::memory());
    let _unknown = unknown(&there, 4 * UNANSWERED_OFFERS_MAX);
    let memory = PeersMemory::new(1 << 20);
    let (session, _theirs) = stranger(&there, &memory).await;
    assert_eq!(on_connection(&session).await, UNPROVEN_OFFERS_MAX);
    drop((session, _theirs));

    let writer = here.get_named("the last").unwrap();
    writer.append("found").unwrap();
    let reader = there.get(&writer.key()).unwrap();
    let (ours, theirs) = streams().await;
    let session = Session::spawn(ours, there.clone(), options(&memory));
    let mut mux = Mux::new();
    let (key, id) = (reader.key(), reader.discovery_key());
    let capability = capability(false, &key, theirs.handshake_hash());
    let seeks = true;
    let handshake = Handshake { seeks, capability }.to_vec();
    mux.open(PROTOCOL, Some(id.as_bytes()), &handshake).unwrap();
    let open = mux.poll_transmit().unwrap().to_bytes();
    let (mut sender, mut receiver) = theirs.split();
    sender.send(&[&open]).await.unwrap();
    sender.flush().await.unwrap();
    let proven = timeout(Duration::from_secs(60), async {
        while !session.is_proven() {
            receiver.recv().await.unwrap();
        }
    });
    proven.await.expect("it has shown a key");
    assert_eq!(
        on_connection(&session).await,
        UNANSWERED_OFFERS_MAX + 1,
        "and the one that it opened"
    );
}

/// Goal: who waits for a core that was not offered yet waits for no longer than for others, however many strangers come one
/// after the other and answer nothing. Method: each comes before the last is gone.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever_for_what_was_not_offered() {
    let store = Corestore::memory();
    let cores = unknown(&store, UNPROVEN_OFFERS_MAX + 10);
    let memory = PeersMemory::new(1 << 20);
    let mut strangers = vec![stranger(&store, &memory).await];
    let begin = Instant::now();
    let mut update = pin!(cores.last().unwrap().update());
    let updated = loop {
        tokio::select! {
            updated = &mut update => break updated,
            () = sleep(Duration::from_secs(20)) => strangers.push(stranger(&store, &memory).await),
        }
        let longest = UPDATE_TOTAL_ALONE_MAX + UNOFFERED_LOOK_INTERVAL;
        assert!(begin.elapsed() <= longest + Duration::from_secs(20));
    };
    assert!(!updated.unwrap(), "there is no news");
    assert!(
        begin.elapsed() >= Duration::from_secs(20),
        "it was waited for"
    );
}

/// The next frames of a peer until it has been offered `count` cores more; returns those offers.
async fn offers(
    mux: &mut Mux,
    receiver: &mut Receiver<ReadHalf<DuplexStream>>,
    count: usize,
) -> Vec<(OfferId, Bytes)> {
    let mut offers = Vec::new();
    while offers.len() < count {
        mux.handle_frame(receiver.recv().await.unwrap().expect("it goes on"));
        while let Some(event) = mux.poll_event().unwrap() {
            if let Event::RemoteOpen { offer, id, .. } = event {
                offers.push((offer, id.expect("that of a core")));
            }
        }
    }
    offers
}

/// Goal: who reads a core that was opened when there was no place for its offer waits until it has its turn and the peer has
/// answered, and if it never has, for as long as others. Method: a stranger who answers nothing at first; the store was looked at
/// for so long that nobody waits for what was open when it came.
#[tokio::test(start_paused = true)]
async fn who_reads_a_core_opened_later_waits_for_its_turn() {
    let store = Corestore::memory();
    let early = unknown(&store, UNPROVEN_OFFERS_MAX + 1);
    let late = |number| store.get(&Key::from([number; 32])).unwrap();
    let memory = PeersMemory::new(1 << 20);
    let (_session, theirs) = stranger(&store, &memory).await;
    let (mut sender, mut receiver) = theirs.split();
    let mut mux = Mux::new();
    let first = offers(&mut mux, &mut receiver, UNPROVEN_OFFERS_MAX).await;
    sleep(2 * HEAD_PATIENCE_ALONE).await;
    let read = timeout(Duration::ZERO, early.last().unwrap().get(0)).await;
    assert!(matches!(read, Ok(Err(CoreError::NoPeers { .. }))));

    // It never has its turn.
    let begin = Instant::now();
    let unread = late(6);
    let read = timeout(4 * HEAD_PATIENCE_ALONE, unread.get(0)).await;
    let read = read.expect("not for ever");
    assert!(matches!(read, Err(CoreError::NoPeers { .. })), "{read:?}");
    let waited = begin.elapsed();
    let expected = HEAD_PATIENCE_ALONE..HEAD_PATIENCE_ALONE + UNOFFERED_LOOK_INTERVAL;
    assert!(expected.contains(&waited), "{waited:?}");

    // It has: three of those that came before it were answered.
    let read_late = late(7);
    let mut get = pin!(read_late.get(0));
    let waits = timeout(HEAD_PATIENCE_ALONE / 2, get.as_mut()).await;
    assert!(waits.is_err(), "{waits:?}");
    let begin = Instant::now();
    first[..3].iter().for_each(|(offer, _)| mux.reject(*offer));
    send(&mut mux, &mut sender).await;
    let next = offers(&mut mux, &mut receiver, 3).await;
    let (offer, id) = next.last().unwrap();
    assert_eq!(id[..], read_late.discovery_key().as_bytes()[..]);
    let waits = timeout(UNOFFERED_LOOK_INTERVAL, get.as_mut()).await;
    assert!(waits.is_err(), "the peer has not answered: {waits:?}");
    mux.reject(*offer);
    send(&mut mux, &mut sender).await;
    let read = get.await;
    assert!(matches!(read, Err(CoreError::NoPeers { .. })), "{read:?}");
    assert!(begin.elapsed() < HEAD_PATIENCE_ALONE / 2, "by the answer");
}

/// Writes what `mux` has to say.
async fn send(mux: &mut Mux, sender: &mut Sender<WriteHalf<DuplexStream>>) {
    while let Some(frame) = mux.poll_transmit() {
        sender.send(frame.segments()).await.unwrap();
    }
    sender.flush().await.unwrap();
}
