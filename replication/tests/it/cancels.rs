//! Goal: what nobody waits for any more is taken back from whoever was asked for it, who then does not send it; and an answer
//! that was on its way harms nobody. Method: readers that leave, before a scripted peer, and before honest ones.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use ferrocore_log::{Core, CoreError};
use ferrocore_replication::limits::LATE_AFTER_MAX;
use ferrocore_replication::messages::{Cancel, Data, Message, NoData, Reason, Request};

use crate::common::script::{Script, before_reader, range, sync_of};
use crate::common::{Pair, blocks, writer_and_reader};

const LENGTH: u64 = 100;

type Get<'a> = Pin<Box<dyn Future<Output = Result<Bytes, CoreError>> + 'a>>;

/// A reader that knows of [`LENGTH`] blocks, all of which the script says to have.
fn scene() -> (Core, Core, Script) {
    let (writer, reader, mut script) = before_reader(&blocks(LENGTH as usize));
    script.say(&sync_of(LENGTH));
    script.say(&range(false, 0, LENGTH));
    script.deliver().unwrap();
    (writer, reader, script)
}

/// Somebody who waits for a block.
fn get(reader: &Core, index: u64) -> Get<'_> {
    let mut get: Get<'_> = Box::pin(reader.get(index));
    assert!(poll(&mut get).is_pending());
    get
}

fn poll<T>(future: &mut Pin<Box<dyn Future<Output = T> + '_>>) -> Poll<T> {
    future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

fn requests(told: &[Message]) -> Vec<Request> {
    let requests = told.iter().filter_map(|message| match message {
        Message::Request(request) => Some(request.clone()),
        _ => None,
    });
    requests.collect()
}

fn cancels(told: &[Message]) -> Vec<u64> {
    let cancels = told.iter().filter_map(|message| match message {
        Message::Cancel(Cancel { request }) => Some(*request),
        _ => None,
    });
    cancels.collect()
}

fn answer(script: &mut Script, writer: &Core, request: &Request) {
    let proof = writer.prove(&request.proof).unwrap().unwrap();
    let request = request.id;
    script.say(&Message::Data(Data { request, proof }));
}

fn in_flight(script: &Script) -> usize {
    script.victim.connection.backlog().requests
}

#[test]
fn a_get_that_is_dropped_is_taken_back() {
    let (writer, reader, mut script) = scene();
    let getting = get(&reader, 40);
    let asked = requests(&script.deliver().unwrap());
    assert_eq!((asked.len(), in_flight(&script)), (1, 1));
    drop(getting);
    assert_eq!(cancels(&script.deliver().unwrap()), [asked[0].id]);
    assert_eq!(in_flight(&script), 0);
    assert_eq!(script.victim.stats().requests_cancelled, 1);
    assert_eq!(script.victim.connection.next_timeout(), None);

    // Its answer was on its way: nothing comes of it, for nobody.
    answer(&mut script, &writer, &asked[0]);
    script.say(&Message::NoData(NoData {
        request: asked[0].id,
        reason: Reason::NotAvailable,
    }));
    assert_eq!(script.deliver().unwrap(), []);
    assert!(!reader.has(40) && script.is_open(&reader));
    assert!(script.victim.connection.poll_misbehaviour().is_none());
    assert_eq!(script.victim.stats().proofs_refused, 0);

    // And who wants the block after all gets it from the same peer.
    let mut getting = get(&reader, 40);
    let again = requests(&script.deliver().unwrap());
    assert_eq!(again.len(), 1);
    assert_ne!(
        again[0].id, asked[0].id,
        "a late answer is no answer to this"
    );
    answer(&mut script, &writer, &again[0]);
    assert!(cancels(&script.deliver().unwrap()).is_empty());
    assert!(matches!(poll(&mut getting), Poll::Ready(Ok(block)) if block == blocks(41)[40]));
}

/// Goal: a peer that would not give a block and says later that it has it is asked for it again.
#[test]
fn what_was_refused_and_is_announced_anew_is_asked_for_again() {
    let (writer, reader, mut script) = scene();
    let mut getting = get(&reader, 40);
    let asked = requests(&script.deliver().unwrap());
    script.say(&Message::NoData(NoData {
        request: asked[0].id,
        reason: Reason::NotAvailable,
    }));
    assert!(requests(&script.deliver().unwrap()).is_empty());
    script.say(&range(false, 39, 1));
    assert!(requests(&script.deliver().unwrap()).is_empty());
    script.say(&range(false, 40, 1));
    let again = requests(&script.deliver().unwrap());
    assert_eq!(again.len(), 1);
    answer(&mut script, &writer, &again[0]);
    script.deliver().unwrap();
    assert!(matches!(poll(&mut getting), Poll::Ready(Ok(_))));
}

#[test]
fn what_somebody_still_waits_for_is_not_taken_back() {
    let (_, reader, mut script) = scene();
    let (one, other) = (get(&reader, 40), get(&reader, 40));
    assert_eq!(requests(&script.deliver().unwrap()).len(), 1);
    drop(one);
    assert_eq!(script.deliver().unwrap(), []);
    let range = reader.download(40..41);
    drop(other);
    assert_eq!(script.deliver().unwrap(), []);
    range.pause();
    assert_eq!(
        script.deliver().unwrap(),
        [],
        "what was asked for still comes"
    );
    drop(range);
    assert_eq!(cancels(&script.deliver().unwrap()).len(), 1);
}

#[test]
fn who_is_back_before_anybody_looked_has_not_left() {
    let (_, reader, mut script) = scene();
    let getting = get(&reader, 40);
    script.deliver().unwrap();
    drop(getting);
    let _again = get(&reader, 40);
    assert_eq!(script.deliver().unwrap(), []);
    assert_eq!(in_flight(&script), 1);
}

#[test]
fn what_others_rest_on_is_not_taken_back_before_them() {
    let (writer, reader, mut script) = scene();
    let first = get(&reader, 0);
    let told = requests(&script.deliver().unwrap());
    let mut second = get(&reader, 1);
    let rests = requests(&script.deliver().unwrap());
    assert_eq!(
        rests[0].proof.block.unwrap().nodes,
        0,
        "its leaf comes with the other"
    );
    drop(first);
    assert_eq!(script.deliver().unwrap(), []);
    // It came too early, and waits for the other.
    answer(&mut script, &writer, &rests[0]);
    assert_eq!(script.deliver().unwrap(), []);
    answer(&mut script, &writer, &told[0]);
    script.deliver().unwrap();
    assert!(matches!(poll(&mut second), Poll::Ready(Ok(_))));
    assert_eq!(script.victim.stats().proofs_refused, 0);

    // Where those who rest on it leave, too, it goes with them.
    let (third, fourth) = (get(&reader, 64), get(&reader, 65));
    let asked = requests(&script.deliver().unwrap());
    assert_eq!(asked.len(), 2);
    drop(third);
    assert_eq!(script.deliver().unwrap(), []);
    drop(fourth);
    let mut taken_back = cancels(&script.deliver().unwrap());
    taken_back.sort_unstable();
    assert_eq!(taken_back, [asked[0].id, asked[1].id]);
    assert_eq!(in_flight(&script), 0);
}

/// Goal: the other side of it. Method: a writer that has room for few answers when the download is dropped.
#[test]
fn a_download_that_is_dropped_is_taken_back_and_not_sent() {
    let many: Vec<Bytes> = (0..64)
        .map(|index| Bytes::from(vec![index; 200_000]))
        .collect();
    let (here, writer, there, reader) = writer_and_reader(&many);
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    pair.drive();
    let all = reader.download(0..64);
    let asked = pair.b.step(pair.now).unwrap();
    let sent = pair.b.stats().requests_sent;
    assert!(sent > 8, "{sent} requests are not enough to see anything");
    // All are asked for, and the writer reads that before it writes anything.
    pair.a.arriving.extend(asked);
    pair.a.take_in(pair.now).unwrap();
    drop(all);
    pair.drive();
    let cancelled = pair.b.stats().requests_cancelled;
    assert!(cancelled > 0);
    assert_eq!(pair.a.connection.backlog(), Default::default());
    assert_eq!(pair.b.connection.backlog(), Default::default());
    let here = reader.count(0..64);
    assert_eq!(
        here + cancelled,
        sent - 1,
        "all but the upgrade are accounted for"
    );
    assert!(
        pair.a.stats().blocks_uploaded < sent,
        "it sends less than it was asked for"
    );
    // What was not taken back in time came for nothing, and nobody minds.
    let again = reader.download(0..64);
    pair.drive();
    assert_eq!(reader.count(0..64), 64);
    assert_eq!(reader.tree_hash(), writer.tree_hash());
    assert_eq!(pair.b.stats().proofs_refused, 0);
    assert!(pair.b.connection.poll_misbehaviour().is_none());
    drop(again);
    pair.drive();
    assert_eq!(
        pair.b.stats().requests_cancelled,
        cancelled,
        "there is nothing to take back"
    );
}

/// Goal: where two were asked because one was late, both are told.
#[test]
fn who_was_asked_as_well_is_told_as_well() {
    let (here, _, there, reader) = writer_and_reader(&blocks(LENGTH as usize));
    let [mut one, mut two] = [Pair::new(&here, &there), Pair::new(&here, &there)];
    for pair in [&mut one, &mut two] {
        pair.b.connection.attach(&reader);
        pair.drive();
    }
    let getting = get(&reader, 40);
    one.b.step(one.now).unwrap(); // what it says is lost
    two.b.step(two.now).unwrap();
    let asked = |pair: &Pair| pair.b.connection.backlog().requests;
    assert_eq!(asked(&one) + asked(&two), 1);
    for pair in [&mut one, &mut two] {
        pair.now += LATE_AFTER_MAX + Duration::from_millis(1);
        pair.b.step(pair.now).unwrap();
    }
    one.b.step(one.now).unwrap();
    assert_eq!((asked(&one), asked(&two)), (1, 1));
    drop(getting);
    for pair in [&mut one, &mut two] {
        pair.b.step(pair.now).unwrap();
        assert_eq!(asked(pair), 0);
        assert_eq!(pair.b.stats().requests_cancelled, 1);
    }
}

/// Goal: somebody who asks and leaves without end costs the peer no more than a question at a time.
#[test]
fn asking_and_leaving_again_and_again_leaves_nothing_behind() {
    let (here, _, there, reader) = writer_and_reader(&blocks(LENGTH as usize));
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    pair.drive();
    for round in 0..1_000 {
        let asked = {
            let getting = pin!(reader.get(round % LENGTH));
            assert!(
                getting
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_pending()
            );
            pair.b.step(pair.now).unwrap()
        };
        let taken_back = pair.b.step(pair.now).unwrap();
        pair.a.arriving.extend(asked.into_iter().chain(taken_back));
    }
    while !pair.a.arriving.is_empty() {
        pair.a.take_in(pair.now).unwrap();
        assert!(pair.a.connection.backlog().questions <= 1_000);
    }
    pair.drive();
    assert_eq!(pair.a.connection.backlog(), Default::default());
    assert_eq!(pair.b.stats().requests_cancelled, 1_000);
    assert_eq!(
        pair.a.stats().blocks_uploaded,
        0,
        "nothing was left to be sent"
    );
}
