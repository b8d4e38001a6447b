//! Who is asked for what, on virtual time: several seeders on lines of different delay and rate.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::common::lines::Lines;
use crate::common::script::{Script, range};
use crate::common::{Pair, assert_complete_copy, blocks, writer_and_reader};
use bytes::Bytes;
use ferrocore_log::core::Progress;
use ferrocore_log::{Core, Corestore};
use ferrocore_primitives::time::Time;
use ferrocore_replication::limits::{
    IN_FLIGHT_MAX, QUEUE_TIME, REQUEST_TIMEOUT, REQUEST_TIMEOUT_TOTAL, WINDOW_MIN,
};
use ferrocore_replication::messages::{Data, Message, Request, Sync};
use ferrocore_secret_stream::budget::FREE_FRAME_LEN;

const MB: u64 = 1_000_000;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A store that has `range` of the writer's blocks.
fn holder_of(here: &Corestore, writer: &Core, range: std::ops::Range<u64>) -> Corestore {
    let store = Corestore::memory();
    let copy = store.get(&writer.key()).unwrap();
    let mut pair = Pair::new(here, &store);
    let _some = copy.download(range);
    pair.b.connection.attach(&copy);
    pair.drive();
    store
}

/// Reads block `index` as an application does, and tells how long that took.
fn read(lines: &mut Lines, reader: &Core, index: u64) -> Duration {
    let mut getting: Pin<Box<dyn Future<Output = _>>> = Box::pin(reader.get(index));
    let mut context = Context::from_waker(Waker::noop());
    lines.run_until(|| match getting.as_mut().poll(&mut context) {
        Poll::Ready(block) => block.is_ok(),
        Poll::Pending => false,
    })
}

fn downloaded(lines: &Lines) -> Vec<u64> {
    let lines = lines.lines.iter();
    lines
        .map(|line| line.reader.stats().blocks_downloaded)
        .collect()
}

/// Goal: a block that somebody waits for comes from the peer that answers soonest, whichever is looked at
/// first. Method: both are known from a download; then single reads.
#[test]
fn a_read_goes_to_the_peer_that_answers_soonest() {
    let (here, _, there, reader) = writer_and_reader(&blocks(1000));
    let mut lines = Lines::new();
    lines.add(&here, &there, &reader, ms(200), 10 * MB);
    lines.add(&here, &there, &reader, ms(5), 10 * MB);
    let known = reader.download(0..500);
    lines.run_until(|| reader.has_range(0..500));
    drop(known);
    lines.run_for(ms(1000));
    let before = downloaded(&lines);
    for index in 600..620 {
        let took = read(&mut lines, &reader, index);
        assert!(took < ms(20), "block {index} took {took:?}");
    }
    let after = downloaded(&lines);
    assert_eq!(after[0], before[0], "the far one was not needed");
    assert_eq!(after[1], before[1] + 20);
}

/// Goal: a near peer that lacks a block holds up nobody.
#[test]
fn a_read_goes_to_the_far_peer_if_only_it_has_the_block() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(1000));
    let half = holder_of(&here, &writer, 0..500);
    let mut lines = Lines::new();
    lines.add(&here, &there, &reader, ms(100), 10 * MB);
    lines.add(&half, &there, &reader, ms(5), 10 * MB);
    let known = reader.download(0..400);
    lines.run_until(|| reader.has_range(0..400));
    drop(known);
    lines.run_for(ms(1000));
    let took = read(&mut lines, &reader, 700);
    assert!(took < ms(215), "{took:?} for a round trip of 200 ms");
}

/// Goal: a near peer that has fallen silent holds up a read only until the far one would have answered.
#[test]
fn a_read_does_not_wait_long_for_a_near_peer_that_takes_no_part() {
    let (here, _, there, reader) = writer_and_reader(&blocks(1000));
    let mut lines = Lines::new();
    lines.add(&here, &there, &reader, ms(100), 10 * MB);
    lines.add(&here, &there, &reader, ms(5), 10 * MB);
    let known = reader.download(0..400);
    lines.run_until(|| reader.has_range(0..400));
    drop(known);
    lines.run_for(ms(1000));
    // Its connection is not served any more, so it does not even claim what is left to it.
    let silent = lines.lines.pop().unwrap();
    let took = read(&mut lines, &reader, 700);
    assert!(took < ms(450), "{took:?} for a round trip of 200 ms");
    drop(silent);
}

/// Goal: a near peer that takes what is asked of it and answers nothing any more holds up few reads, and once it answers again
/// it is read from as before. Method: a read every half a second for more than half a minute.
#[test]
fn a_near_peer_that_fell_mute_holds_up_few_reads() {
    let (here, _, there, reader) = writer_and_reader(&blocks(1000));
    let mut lines = Lines::new();
    lines.add(&here, &there, &reader, ms(100), 10 * MB);
    lines.add(&here, &there, &reader, ms(5), 10 * MB);
    let known = reader.download(0..400);
    lines.run_until(|| reader.has_range(0..400));
    drop(known);
    lines.run_for(ms(1000));
    lines.lines[1].is_mute = true;
    let mut held_up = 0;
    for index in 400..460 {
        let took = read(&mut lines, &reader, index);
        assert!(took < ms(1000), "block {index} took {took:?}");
        held_up += usize::from(took > ms(250));
        lines.run_for(ms(500));
    }
    assert!(held_up <= 7, "{held_up} reads waited for it");
    lines.lines[1].is_mute = false;
    lines.run_for(ms(60_000));
    let far = lines.lines[0].reader.stats().blocks_downloaded;
    let took: Vec<Duration> = (600..610)
        .map(|index| read(&mut lines, &reader, index))
        .collect();
    assert!(took[2..].iter().all(|took| *took < ms(20)), "{took:?}");
    assert!(lines.lines[0].reader.stats().blocks_downloaded <= far + 2);
}

/// Goal: two near peers that answer nothing do not keep a reader from a far one that has the block: when one and then the other
/// is late, it is asked. Method: all three are known from a download.
#[test]
fn two_that_hold_a_block_back_do_not_hold_up_a_read_for_long() {
    let (here, _, there, reader) = writer_and_reader(&blocks(1000));
    let mut lines = Lines::new();
    for delay in [ms(100), ms(5), ms(5)] {
        lines.add(&here, &there, &reader, delay, 10 * MB);
    }
    let known = reader.download(0..400);
    lines.run_until(|| reader.has_range(0..400));
    drop(known);
    lines.run_for(ms(1000));
    lines.lines[1].is_mute = true;
    lines.lines[2].is_mute = true;
    let took = read(&mut lines, &reader, 700);
    assert!(took < ms(7000), "{took:?}");
}

/// Goal: peers that have bytes of long answers come, and never a whole one, do not keep a download from who has its blocks for
/// longer than any other claim lasts. Method: as many of them as may be getting a block at a time, and then an honest one.
#[test]
fn answers_that_never_end_keep_nobody_from_trying() {
    let long = vec![Bytes::from(vec![7; 2 * FREE_FRAME_LEN]); 2];
    let (here, _, there, reader) = writer_and_reader(&long);
    let mut lines = Lines::new();
    for _ in 0..3 {
        lines.add(&here, &there, &reader, ms(5), 10 * MB);
    }
    lines.run_until(|| reader.length() == 2);
    for line in &mut lines.lines {
        line.is_mute = true;
        line.trickles = true;
    }
    let _all = reader.download_all();
    lines.run_for(REQUEST_TIMEOUT_TOTAL - ms(10_000));
    assert_eq!(reader.contiguous_length(), 0);
    lines.add(&here, &there, &reader, ms(5), 10 * MB);
    let took = lines.run_until(|| reader.contiguous_length() == 2);
    assert!(took > ms(1000), "they all count at first: {took:?}");
    assert!(took < ms(90_000), "{took:?}");
    let refused = lines
        .lines
        .iter()
        .map(|line| line.reader.stats().requests_timed_out);
    assert_eq!(refused.sum::<u64>(), 0, "none of them was given up");
}

/// Goal: peers that take what is asked of them and answer nothing do not keep it among themselves, be it a download or a read.
/// Method: as many as may be getting a block at a time, and then an honest one.
#[test]
fn who_answers_nothing_keeps_nobody_from_trying() {
    for (is_read, mute) in [(false, 3), (true, 8)] {
        let (here, _, there, reader) = writer_and_reader(&blocks(10));
        let mut lines = Lines::new();
        for _ in 0..mute {
            lines.add(&here, &there, &reader, ms(5), 10 * MB);
        }
        lines.run_until(|| reader.length() == 10);
        lines.lines.iter_mut().for_each(|line| line.is_mute = true);
        let _all = (!is_read).then(|| reader.download_all());
        let mut read: Pin<Box<dyn Future<Output = _>>> = Box::pin(reader.get(7));
        if is_read {
            assert!(
                read.as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_pending()
            );
        }
        lines.run_for(4 * REQUEST_TIMEOUT);
        lines.add(&here, &there, &reader, ms(5), 10 * MB);
        let took = lines.run_until(|| match is_read {
            true => reader.has(7),
            false => reader.contiguous_length() == 10,
        });
        assert!(took < REQUEST_TIMEOUT, "{took:?} for a read: {is_read}");
    }
}

/// Goal: who leaves a read to a nearer peer, and then cannot be asked any more, does not wait for a moment that is over.
#[test]
fn who_has_left_a_read_to_another_and_has_nothing_any_more_is_at_rest() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(1000));
    let near = holder_of(&here, &writer, 0..1000);
    let mut lines = Lines::new();
    lines.add(&here, &there, &reader, ms(100), 10 * MB);
    lines.add(&near, &there, &reader, ms(5), 10 * MB);
    let known = reader.download(0..400);
    lines.run_until(|| reader.has_range(0..400));
    drop(known);
    lines.run_for(ms(1000));
    let silent = lines.lines.pop().unwrap();
    writer.truncate(0, None).unwrap();
    lines.run_for(ms(95));
    let mut read: Pin<Box<dyn Future<Output = _>>> = Box::pin(reader.get(700));
    let mut context = Context::from_waker(Waker::noop());
    assert!(read.as_mut().poll(&mut context).is_pending());
    lines.run_for(ms(2000)); // asserts that time passes
    assert!(read.as_mut().poll(&mut context).is_pending());
    drop(silent);
}

/// Goal: peers share a download as they are fast, so that it takes as long as all of them together need,
/// and what a slow one holds is little. Method: three rates, one of them over a long line.
#[test]
fn peers_share_a_download_by_their_rates() {
    const COUNT: usize = 3000;
    let many = vec![Bytes::from(vec![7; 10_000]); COUNT];
    let (here, writer, there, reader) = writer_and_reader(&many);
    let mut lines = Lines::new();
    lines.add(&here, &there, &reader, ms(5), MB);
    lines.add(&here, &there, &reader, ms(80), 2 * MB);
    lines.add(&here, &there, &reader, ms(20), 4 * MB);
    let _all = reader.download_all();
    let took = lines.run_until(|| reader.contiguous_length() == COUNT as u64);
    assert_complete_copy(&writer, &reader);
    let ideal = Duration::from_secs_f64(COUNT as f64 * 10_000.0 / (7.0 * MB as f64));
    assert!(took < ideal.mul_f64(1.25), "{took:?}, at best {ideal:?}");
    for (line, rate) in lines.lines.iter().zip([1.0, 2.0, 4.0]) {
        let share = line.reader.stats().blocks_downloaded as f64 / COUNT as f64;
        assert!((share - rate / 7.0).abs() < 0.08, "{share} of {rate}/7");
    }
    let window = lines.lines[0].reader.connection.core_stats()[0].window;
    let queue = 100.0 * QUEUE_TIME.as_secs_f64();
    assert!(
        window as f64 <= (2.5 * queue).max(WINDOW_MIN as f64),
        "{window}"
    );
}

/// Goal: a copy takes first what only one peer has, so that the others are of use to the end.
#[test]
fn a_copy_begins_with_the_rarest_blocks() {
    const COUNT: u64 = 2000;
    let many = vec![Bytes::from(vec![7; 5_000]); COUNT as usize];
    let (here, writer, there, reader) = writer_and_reader(&many);
    let half = holder_of(&here, &writer, 0..COUNT / 2);
    let mut lines = Lines::new();
    lines.add(&here, &there, &reader, ms(10), MB);
    lines.add(&half, &there, &reader, ms(10), MB);
    let _all = reader.download_all();
    let mut first_half = 0;
    let took = lines.run_until(|| {
        if reader.count(COUNT / 2..COUNT) < COUNT / 4 {
            first_half = reader.count(0..COUNT / 2);
        }
        reader.contiguous_length() == COUNT
    });
    assert_complete_copy(&writer, &reader);
    assert!(
        first_half <= COUNT / 3,
        "{first_half} while the rest was rare"
    );
    let ideal = Duration::from_secs_f64(COUNT as f64 * 5_000.0 / (2.0 * MB as f64));
    assert!(took < ideal.mul_f64(1.25), "{took:?}, at best {ideal:?}");
}

/// Goal: what is read comes in order though only one peer has its end, and two who read at different places go on side by side.
/// Method: a peer with all of it and one with the first half.
#[test]
fn readers_get_their_next_blocks_whatever_is_rare() {
    const COUNT: u64 = 2000;
    const HALF: u64 = COUNT / 2;
    let many = vec![Bytes::from(vec![7; 5_000]); COUNT as usize];
    let (here, writer, there, reader) = writer_and_reader(&many);
    let half = holder_of(&here, &writer, 0..HALF);
    let mut lines = Lines::new();
    lines.add(&here, &there, &reader, ms(10), MB);
    lines.add(&half, &there, &reader, ms(10), MB);
    let _one = reader.download(0..COUNT);
    lines.run_until(|| reader.contiguous_length() >= HALF / 2);
    assert_eq!(reader.count(HALF..COUNT), 0, "it is not needed yet");

    let late = reader.download(HALF..COUNT);
    let before = reader.contiguous_length();
    lines.run_until(|| reader.count(HALF..COUNT) >= 100);
    assert!(reader.has(HALF) && reader.contiguous_length() > before);
    assert!(
        reader.contiguous_length() < HALF,
        "neither waits for the other"
    );
    drop(late);
    lines.run_until(|| reader.contiguous_length() == COUNT);
    assert_complete_copy(&writer, &reader);
}

/// Goal: one busy core does not starve 49 others on its connection.
#[test]
fn a_busy_core_leaves_room_for_others() {
    let (here, _, there, busy) = writer_and_reader(&vec![Bytes::from(vec![1; 1000]); 30_000]);
    let mut lines = Lines::new();
    lines.add(&here, &there, &busy, ms(10), 10 * MB);
    let _all = busy.download_all();
    lines.run_until(|| busy.count(0..30_000) > 10_000);
    let mut others = Vec::new();
    for number in 0..49 {
        let writer = here.get_named(&format!("core {number}")).unwrap();
        writer.append_batch(blocks(20)).unwrap();
        let reader = there.get(&writer.key()).unwrap();
        let download = reader.download_all();
        lines.lines[0].reader.connection.attach(&reader);
        others.push((reader, download));
    }
    let here = |(core, _): &(Core, _)| core.contiguous_length() == 20;
    let took = lines.run_until(|| others.iter().all(here));
    assert!(took < ms(500), "{took:?}");
    assert!(busy.count(0..30_000) < 20_000, "it was still busy");
}

/// Goal: where many cores want more than a connection may have in flight, each gets its turn.
#[test]
fn cores_that_fill_a_connection_share_it() {
    let (here, there) = (Corestore::memory(), Corestore::memory());
    let mut lines = Lines::new();
    let mut cores = Vec::new();
    for number in 0..12 {
        let writer = here.get_named(&format!("core {number}")).unwrap();
        writer.append_batch(blocks(4000)).unwrap();
        let reader = there.get(&writer.key()).unwrap();
        let download = reader.download_all();
        match lines.lines.first_mut() {
            None => lines.add(&here, &there, &reader, ms(400), 100 * MB),
            Some(line) => line.reader.connection.attach(&reader),
        }
        cores.push((writer, reader, download));
    }
    let done = |(_, reader, _): &(Core, Core, _)| reader.contiguous_length() == 4000;
    let mut most = 0;
    while !cores.iter().all(done) {
        lines.run_for(ms(100));
        assert!(lines.now < Time::ZERO + Duration::from_secs(60));
        let stats = lines.lines[0].reader.connection.core_stats();
        let in_flight: usize = stats.iter().map(|core| core.in_flight).sum();
        assert!(in_flight <= IN_FLIGHT_MAX, "{in_flight}");
        most = most.max(in_flight);
    }
    assert!(most > IN_FLIGHT_MAX / 2, "they were to fill it: {most}");
    for (writer, reader, _) in &cores {
        assert_complete_copy(writer, reader);
    }
}

/// Goal: of cores that fill a connection, each has its part of what that carries, also those that come when it is full.
/// Method: two have all requests in flight when two more come; once those have had time to grow, what comes for each is counted.
#[test]
fn who_comes_late_to_a_full_connection_has_its_share() {
    const BLOCKS: u64 = 40_000;
    let (here, there) = (Corestore::memory(), Corestore::memory());
    let readers: Vec<_> = (0..4)
        .map(|number| {
            let writer = here.get_named(&format!("core {number}")).unwrap();
            writer.append_batch(blocks(BLOCKS as usize)).unwrap();
            there.get(&writer.key()).unwrap()
        })
        .collect();
    let _all: Vec<_> = readers.iter().map(Core::download_all).collect();
    let mut lines = Lines::new();
    lines.add(&here, &there, &readers[0], ms(400), 100 * MB);
    lines.lines[0].reader.connection.attach(&readers[1]);
    let in_flight = |lines: &Lines| {
        let stats = lines.lines[0].reader.connection.core_stats();
        readers
            .iter()
            .map(|reader| {
                let of_reader = stats.iter().find(|core| core.key == reader.key());
                of_reader.map_or(0, |core| core.in_flight)
            })
            .collect::<Vec<_>>()
    };
    while in_flight(&lines).iter().sum::<usize>() < IN_FLIGHT_MAX {
        lines.run_for(ms(100));
        assert!(
            lines.now < Time::ZERO + Duration::from_secs(30),
            "it is not full"
        );
    }
    readers[2..]
        .iter()
        .for_each(|reader| lines.lines[0].reader.connection.attach(reader));
    while in_flight(&lines)
        .iter()
        .any(|own| own.abs_diff(IN_FLIGHT_MAX / 4) > IN_FLIGHT_MAX / 20)
    {
        lines.run_for(ms(100));
        assert!(
            lines.now < Time::ZERO + Duration::from_secs(60),
            "{:?}",
            in_flight(&lines)
        );
    }
    let counts = || readers.iter().map(|reader| reader.count(0..BLOCKS));
    let before: Vec<_> = counts().collect();
    lines.run_for(ms(2000));
    let came: Vec<_> = counts()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect();
    assert!(counts().all(|count| count < BLOCKS), "they still want more");
    let part = came.iter().sum::<u64>() / 4;
    let is_about_part = |came: &u64| came.abs_diff(part) <= part / 10;
    assert!(came.iter().all(is_about_part), "{came:?}");
}

/// Goal: a paused download asks for nothing, says how far it is, and goes on where it was.
#[test]
fn a_download_can_be_paused_and_tells_how_far_it_is() {
    let (here, writer, there, reader) = writer_and_reader(&blocks(600));
    let half = holder_of(&here, &writer, 0..300);
    let mut lines = Lines::new();
    lines.add(&half, &there, &reader, ms(10), MB);
    let all = reader.download(0..600);
    lines.run_until(|| reader.count(0..600) == 300);
    lines.run_for(ms(100));
    let progress = |some_peer_has_all, have| Progress {
        total: 600,
        have,
        some_peer_has_all,
    };
    assert_eq!(all.progress(), progress(false, 300), "nobody has the rest");

    all.pause();
    lines.add(&here, &there, &reader, ms(10), MB);
    lines.run_for(ms(1000));
    assert_eq!(all.progress(), progress(true, 300), "it is there to be had");
    assert!(all.is_paused() && !all.progress().is_complete());
    // A longer log changes nothing about a range that ends in it.
    writer.append("more").unwrap();
    all.resume();
    lines.run_until(|| reader.count(0..600) == 600);
    assert_eq!(all.progress(), progress(true, 600));
    assert!(all.progress().is_complete());
}

/// Goal: a read that was left to a nearer peer is asked of the other at once when the nearer one says that it sends nothing any
/// more. Method: two scripted peers, known from a download, of which the far one is looked at first.
#[test]
fn a_read_is_not_left_to_who_takes_uploading_back() {
    let (_, writer, there, reader) = writer_and_reader(&blocks(100));
    let mut peers = [(); 2].map(|()| Script::open(&there, &reader));
    let delays = [ms(200), ms(5)];
    let mut waiting: [Vec<(Time, Request)>; 2] = Default::default();
    for peer in &mut peers {
        peer.say(&sync_of(100, true));
        peer.say(&range(false, 0, 100));
    }
    let wanted = reader.download(0..40);
    let mut now = Time::ZERO;
    for _ in 0..100 {
        for ((peer, waiting), delay) in peers.iter_mut().zip(&mut waiting).zip(delays) {
            peer.now = now;
            let (due, later) = waiting.drain(..).partition(|(at, _)| *at <= now);
            *waiting = later;
            let due: Vec<_> = due;
            for (_, request) in due {
                let proof = writer.prove(&request.proof).unwrap().unwrap();
                let request = request.id;
                peer.say(&Message::Data(Data { request, proof }));
            }
            let asked = requests(&peer.deliver().unwrap());
            waiting.extend(asked.into_iter().map(|request| (now + delay, request)));
        }
        now += ms(5);
    }
    assert_eq!(reader.count(0..100), 40);
    drop(wanted);
    let [far, near] = &mut peers;
    (far.now, near.now) = (now, now);
    assert!(far.deliver().unwrap().is_empty() && near.deliver().unwrap().is_empty());

    let mut read: Pin<Box<dyn Future<Output = _>>> = Box::pin(reader.get(70));
    let mut context = Context::from_waker(Waker::noop());
    assert!(read.as_mut().poll(&mut context).is_pending());
    assert!(
        requests(&far.deliver().unwrap()).is_empty(),
        "it is left to the near one"
    );
    assert!(
        far.victim.connection.next_timeout().is_some(),
        "for a while"
    );
    near.say(&sync_of(100, false));
    assert!(requests(&near.deliver().unwrap()).is_empty());
    let asked = requests(&far.deliver().unwrap());
    assert_eq!(asked.len(), 1, "no time has passed");
    assert_eq!(asked[0].proof.block.unwrap().index, 70);
}

fn sync_of(length: u64, uploading: bool) -> Message {
    Message::Sync(Sync {
        length,
        can_upgrade: true,
        uploading,
        downloading: true,
        has_manifest: true,
        ..Sync::default()
    })
}

fn requests(told: &[Message]) -> Vec<Request> {
    let requests = told.iter().filter_map(|message| match message {
        Message::Request(request) => Some(request.clone()),
        _ => None,
    });
    requests.collect()
}
