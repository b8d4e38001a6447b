//! Goal: whoever asks for the newest length hears it in bounded time, whatever one peer says or leaves unsaid, as long as
//! it is connected; and an honest peer that is slow is waited for within that time.
//! Method: a reader between an honest seeder and a scripted peer, on virtual time in steps of 100 ms.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ferrocore_log::core::CoreError;
use ferrocore_log::{Core, Corestore};
use ferrocore_primitives::time::Time;
use ferrocore_replication::limits::{
    HEAD_PATIENCE, HEAD_PATIENCE_ALONE, UPDATE_TIME_MAX, UPDATE_TOTAL_ALONE_MAX, UPDATE_TOTAL_MAX,
};
use ferrocore_replication::messages::{Data, Message, Sync};

use crate::common::script::{Script, sync_of};
use crate::common::{End, Pair, blocks};

const STEP: Duration = Duration::from_millis(100);
const MAX: u64 = (1 << 53) - 1;

/// Blocks that the seeder has, and the writer.
const OLD: usize = 3;
const LENGTH: usize = 5;

/// What a scripted peer does in each step, with what it was told in the one before.
type Role<'a> = dyn FnMut(&mut Script, Time, &[Message]) + 'a;

/// A reader, a seeder that is not up to date, and a peer that may be anything.
struct Scene {
    writer: Core,
    reader: Core,
    seeder: Option<Pair>,
    peer: Script,
    told: Vec<Message>,
    now: Time,
}

impl Scene {
    /// Both are connected at time 0, and the seeder has said all it has to say.
    fn new(has_seeder: bool) -> Self {
        let [at_writer, here, there] = [(); 3].map(|()| Corestore::memory());
        let writer = at_writer.get_named("test").unwrap();
        writer.append_batch(blocks(OLD)).unwrap();
        let old = here.get(&writer.key()).unwrap();
        let _all = old.download_all();
        let mut copy = Pair::new(&at_writer, &here);
        copy.b.connection.attach(&old);
        copy.drive();
        assert_eq!(old.count(0..OLD as u64), OLD as u64);
        writer.append_batch(blocks(LENGTH)[OLD..].to_vec()).unwrap();
        let reader = there.get(&writer.key()).unwrap();
        let mut peer = Script::open(&there, &reader);
        let told = peer.deliver().unwrap();
        let seeder = has_seeder.then(|| {
            let mut pair = Pair::new(&here, &there);
            pair.b.connection.attach(&reader);
            pair.drive();
            assert_eq!(reader.length(), OLD as u64);
            pair
        });
        Self {
            writer,
            reader,
            seeder,
            peer,
            told,
            now: Time::ZERO,
        }
    }

    /// How long `awaited` takes, and what it comes to.
    fn time<T>(&mut self, role: &mut Role<'_>, awaited: impl Future<Output = T>) -> (Duration, T) {
        let (start, mut awaited) = (self.now, pin!(awaited));
        loop {
            role(&mut self.peer, self.now, &std::mem::take(&mut self.told));
            self.work();
            if let Poll::Ready(done) = awaited
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
            {
                return (self.now.saturating_since(start), done);
            }
            self.work(); // being asked, it may want something
            self.now += STEP;
            let passed = self.now.saturating_since(start);
            assert!(passed < Duration::from_secs(300), "it does not end");
        }
    }

    fn work(&mut self) {
        self.peer.now = self.now;
        self.told.extend(self.peer.deliver().unwrap());
        let timeout = self.peer.victim.connection.next_timeout();
        assert!(timeout.is_none_or(|at| at > self.now), "it spins");
        if let Some(pair) = &mut self.seeder {
            pair.now = self.now;
            pair.drive();
        }
    }

    /// How long the newest length takes to be known, and what it is.
    fn update(&mut self, role: &mut Role<'_>) -> (Duration, u64) {
        let reader = self.reader.clone();
        let (took, updated) = self.time(role, reader.update());
        updated.unwrap();
        (took, reader.length())
    }

    /// Holds that `role` costs those who read no more than its time, and that it is waited for so long.
    fn assert_held_up(mut self, role: &mut Role<'_>, expected: Duration) {
        assert!(expected <= UPDATE_TIME_MAX);
        assert_eq!(self.update(role), (expected, OLD as u64));
        let all = self.reader.download_all();
        let reader = self.reader.clone();
        let (took, caught_up) = self.time(role, all.caught_up());
        caught_up.unwrap();
        assert_eq!(took, Duration::ZERO);
        let (took, got) = self.time(role, reader.get(1));
        assert_eq!(
            (took, got.unwrap()),
            (Duration::ZERO, blocks(OLD)[1].clone())
        );
        let (took, got) = self.time(role, reader.get(OLD as u64));
        assert!(matches!(got, Err(CoreError::OutOfBounds { .. })), "{got:?}");
        assert_eq!(took, Duration::ZERO);
        assert!(
            self.peer.is_open(&self.reader),
            "it did nothing that is wrong"
        );
    }
}

/// The writer, who acknowledges `remote_length`.
fn true_sync(remote_length: u64) -> Message {
    Message::Sync(Sync {
        length: LENGTH as u64,
        remote_length,
        can_upgrade: true,
        uploading: true,
        downloading: true,
        has_manifest: true,
        ..Sync::default()
    })
}

/// Answers what is asked.
fn answer(writer: &Core, peer: &mut Script, told: &[Message]) {
    for message in told {
        if let Message::Request(request) = message
            && let Some(proof) = writer.prove(&request.proof).unwrap()
        {
            let request = request.id;
            peer.say(&Message::Data(Data { request, proof }));
        }
    }
}

fn after(seconds: u64, millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(seconds * 1000 + millis)
}

#[test]
fn a_peer_that_opens_and_says_nothing_is_waited_for_a_while() {
    Scene::new(true).assert_held_up(&mut |_, _, _| {}, HEAD_PATIENCE);
}

#[test]
fn a_peer_that_says_a_length_and_answers_nothing_is_waited_for_a_while() {
    let mut role = |peer: &mut Script, now: Time, _: &[Message]| {
        if now == Time::ZERO {
            peer.say(&Message::Sync(Sync {
                length: MAX,
                remote_length: OLD as u64,
                can_upgrade: true,
                uploading: true,
                ..Sync::default()
            }));
        }
    };
    Scene::new(true).assert_held_up(&mut role, HEAD_PATIENCE);
}

#[test]
fn a_peer_that_never_acknowledges_our_length_is_waited_for_a_while() {
    let mut role = |peer: &mut Script, now: Time, _: &[Message]| {
        if now == Time::ZERO {
            peer.say(&Message::Sync(Sync {
                length: MAX,
                remote_length: 2,
                can_upgrade: false,
                uploading: true,
                ..Sync::default()
            }));
        }
    };
    Scene::new(true).assert_held_up(&mut role, HEAD_PATIENCE);
}

#[test]
fn a_fork_that_is_announced_and_not_proven_is_waited_for_a_while() {
    let mut role = |peer: &mut Script, now: Time, _: &[Message]| {
        // Another one each time, so that it is asked for each.
        let fork = 1 + now.saturating_since(Time::ZERO).as_millis() as u64;
        peer.say(&crate::common::script::sync_on(fork, MAX));
    };
    Scene::new(true).assert_held_up(&mut role, HEAD_PATIENCE);
}

#[test]
fn saying_it_again_and_again_gains_a_peer_nothing() {
    let last = Time::ZERO + (HEAD_PATIENCE - STEP);
    let mut role = |peer: &mut Script, now: Time, _: &[Message]| {
        if now >= last {
            peer.say(&sync_of(0));
            peer.say(&sync_of(MAX));
        }
    };
    let expected = UPDATE_TIME_MAX - STEP;
    Scene::new(true).assert_held_up(&mut role, expected);
}

#[test]
fn a_slow_peer_is_waited_for_and_brings_its_log() {
    let mut scene = Scene::new(true);
    let writer = scene.writer.clone();
    // It speaks shortly before it would not be waited for, and answers as late.
    let mut asked = Vec::new();
    let mut role = |peer: &mut Script, now: Time, told: &[Message]| {
        asked.extend(told.iter().map(|message| (now, message.clone())));
        if now == after(2, 800) {
            peer.say(&true_sync(OLD as u64));
        }
        let due = asked
            .iter()
            .take_while(|(at, _)| *at + Duration::from_millis(2700) <= now);
        let due: Vec<_> = due.map(|(_, message)| message.clone()).collect();
        asked.drain(..due.len());
        answer(&writer, peer, &due);
    };
    let (took, length) = scene.update(&mut role);
    assert_eq!(length, LENGTH as u64);
    assert!(took > HEAD_PATIENCE && took <= UPDATE_TIME_MAX, "{took:?}");
}

#[test]
fn a_peer_counts_again_once_it_speaks() {
    let mut scene = Scene::new(true);
    let writer = scene.writer.clone();
    assert_eq!(scene.update(&mut |_, _, _| {}), (HEAD_PATIENCE, OLD as u64));
    // Now it is waited for again, two seconds until it answers.
    scene.peer.say(&true_sync(OLD as u64));
    scene.work();
    let until = scene.now + Duration::from_secs(2);
    let mut asked = Vec::new();
    let mut role = |peer: &mut Script, now: Time, told: &[Message]| {
        asked.extend_from_slice(told);
        if now >= until {
            answer(&writer, peer, &std::mem::take(&mut asked));
        }
    };
    let (took, length) = scene.update(&mut role);
    assert_eq!((took, length), (Duration::from_secs(2), LENGTH as u64));
    // What it said and gave is forgotten as a debt.
    writer.append(blocks(LENGTH + 1)[LENGTH].clone()).unwrap();
    scene.peer.say(&Message::Sync(Sync {
        length: LENGTH as u64 + 1,
        remote_length: LENGTH as u64,
        can_upgrade: true,
        uploading: true,
        ..Sync::default()
    }));
    scene.work();
    assert_eq!(scene.update(&mut |_, _, _| {}).0, HEAD_PATIENCE);
}

#[test]
fn the_only_peer_is_waited_for_longer_and_not_for_ever() {
    let mut mute = Scene::new(false);
    assert_eq!(mute.update(&mut |_, _, _| {}), (HEAD_PATIENCE_ALONE, 0));
    let reader = mute.reader.clone();
    let (took, got) = mute.time(&mut |_, _, _| {}, reader.get(0));
    assert!(matches!(got, Err(CoreError::NoPeers { .. })), "{got:?}");
    assert_eq!(took, Duration::ZERO);
    let mut liar = Scene::new(false);
    liar.peer.say(&sync_of(MAX));
    assert_eq!(liar.update(&mut |_, _, _| {}), (HEAD_PATIENCE_ALONE, 0));
}

/// Peers to whom we offer the core and who never answer, each of which takes the place of the one before after `patience`.
/// How long an update takes, and what it comes to.
fn update_before_half_open(reader: &Core, store: &Corestore, patience: Duration) -> Duration {
    let (mut now, mut came) = (Time::ZERO, Time::ZERO);
    let offer = |now| {
        let mut end = End::new(false, store);
        end.connection.attach(reader);
        assert!(!end.step(now).unwrap().is_empty(), "it was offered");
        end
    };
    let mut end = offer(now);
    now += STEP;
    let (start, mut update) = (now, pin!(reader.update()));
    while update
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
        .is_pending()
    {
        now += STEP;
        let passed = now.saturating_since(start);
        assert!(passed < Duration::from_secs(300), "it does not end");
        if now.saturating_since(came) >= patience {
            came = now;
            let successor = offer(now);
            end = successor;
        }
        end.step(now).unwrap();
    }
    end.step(now + Duration::from_secs(60)).unwrap();
    assert_eq!(end.connection.next_timeout(), None);
    now.saturating_since(start)
}

/// Goal: a peer to whom we offer the core and who answers nothing is waited for as long as one that opens it and says nothing.
#[test]
fn a_peer_that_never_answers_our_offer_is_not_waited_for_for_ever() {
    let (here, there) = (Corestore::memory(), Corestore::memory());
    let writer = here.get_named("test").unwrap();
    writer.append_batch(blocks(OLD)).unwrap();
    let reader = there.get(&writer.key()).unwrap();
    let took = update_before_half_open(&reader, &there, Duration::MAX);
    assert_eq!(took, HEAD_PATIENCE_ALONE - STEP);
    let mut end = End::new(false, &there);
    end.connection.attach(&reader);
    let offer = end.step(Time::ZERO).unwrap();
    let late = Time::ZERO + HEAD_PATIENCE_ALONE;
    end.step(late).unwrap();
    let mut read = pin!(reader.get(0));
    let context = &mut Context::from_waker(Waker::noop());
    let got = read.as_mut().poll(context);
    assert!(matches!(got, Poll::Ready(Err(CoreError::NoPeers { .. }))));
    // Who answers after all is asked.
    let mut pair = Pair::new(&here, &there);
    (pair.b, pair.now) = (end, late);
    pair.a.arriving.extend(offer);
    pair.drive();
    assert_eq!(reader.length(), OLD as u64);
}

#[test]
fn no_row_of_peers_that_never_answer_our_offer_holds_up_an_update_for_ever() {
    let (here, there) = (Corestore::memory(), Corestore::memory());
    let reader = there.get(&here.get_named("test").unwrap().key()).unwrap();
    for seconds in [1, 20, 29] {
        let patience = Duration::from_secs(seconds);
        let took = update_before_half_open(&reader, &there, patience);
        assert!(took <= UPDATE_TOTAL_ALONE_MAX + patience, "{took:?}");
    }
}

/// A row of peers that open the core and say nothing, each of which comes shortly before the one before is waited for no
/// longer, and takes its place.
fn successors(
    reader: &Core,
    patience: Duration,
) -> impl FnMut(&mut Script, Time, &[Message]) + use<> {
    let (store, reader) = (Corestore::memory(), reader.clone());
    let mut last = None;
    let mut came = Time::ZERO;
    move |_: &mut Script, now: Time, _: &[Message]| {
        let is_next = last.is_none() || now.saturating_since(came) >= patience - STEP;
        if is_next {
            let mut peer = Script::open(&store, &reader);
            peer.victim.connection.attach(&reader);
            (last, came) = (Some(peer), now);
        }
        let peer = last.as_mut().expect("it has come");
        peer.now = now;
        peer.deliver().unwrap();
    }
}

#[test]
fn however_many_come_one_after_the_other_they_hold_up_nobody_for_ever() {
    let mut scene = Scene::new(true);
    let mut role = successors(&scene.reader, HEAD_PATIENCE);
    let reader = scene.reader.clone();
    let (took, updated) = scene.time(&mut role, reader.look_for_more());
    let updated = updated.unwrap();
    assert_eq!(took, UPDATE_TOTAL_MAX);
    assert!(updated.is_overdue && !updated.has_grown);
    // Who asks again waits anew, for as long.
    let (took, has_grown) = scene.time(&mut role, reader.update());
    assert_eq!((took, has_grown.unwrap()), (UPDATE_TOTAL_MAX, false));
    let (took, got) = scene.time(&mut role, reader.get(1));
    assert_eq!(got.unwrap(), blocks(OLD)[1]);
    assert!(took <= STEP, "blocks come from who has them: {took:?}");
    let (took, got) = scene.time(&mut role, reader.get(OLD as u64));
    assert!(matches!(got, Err(CoreError::OutOfBounds { .. })), "{got:?}");
    assert_eq!(took, UPDATE_TOTAL_MAX);
    drop(role);
    // Once they are gone, nobody is waited for, and no time either.
    let (took, updated) = scene.time(&mut |_, _, _| {}, reader.look_for_more());
    assert!(took <= HEAD_PATIENCE && !updated.unwrap().is_overdue);
    assert_eq!(scene.seeder.unwrap().b.connection.next_timeout(), None);
}

#[test]
fn however_many_come_alone_they_are_no_log() {
    let mut scene = Scene::new(false);
    let mut role = successors(&scene.reader, HEAD_PATIENCE_ALONE);
    let reader = scene.reader.clone();
    let (took, got) = scene.time(&mut role, reader.get(0));
    assert!(matches!(got, Err(CoreError::NoPeers { .. })), "{got:?}");
    assert_eq!(took, UPDATE_TOTAL_ALONE_MAX);
}

/// Goal: the bound leaves an honest peer its time that comes while others are waited for, and is slow.
#[test]
fn who_comes_late_and_slowly_among_them_is_waited_for() {
    let mut scene = Scene::new(true);
    let writer = scene.writer.clone();
    let mut others = successors(&scene.reader, HEAD_PATIENCE);
    let mut asked = Vec::new();
    let begin = after(5, 0);
    let mut role = |peer: &mut Script, now: Time, told: &[Message]| {
        others(peer, now, &[]);
        asked.extend(told.iter().map(|message| (now, message.clone())));
        if now == begin {
            peer.say(&true_sync(OLD as u64));
        }
        let due = |at: Time| at.max(begin) + Duration::from_millis(2900) <= now;
        let due = asked.iter().take_while(|(at, _)| due(*at)).count();
        let due: Vec<_> = asked.drain(..due).map(|(_, message)| message).collect();
        answer(&writer, peer, &due);
    };
    let (took, length) = scene.update(&mut role);
    assert_eq!(length, LENGTH as u64);
    assert!(took <= UPDATE_TOTAL_MAX, "{took:?}");
}
