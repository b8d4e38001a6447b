//! Goal: a download from three seeders of which one lies ends right, without the liar, and sooner than from one.
//! Method: sans-IO ends on virtual time over links of 5 MB/s each; the liar's link changes a byte of every block.

use std::collections::VecDeque;
use std::time::Duration;

use crate::common::{Pair, assert_complete_copy, writer_and_reader};
use bytes::Bytes;
use ferrocore_log::{Core, Corestore};
use ferrocore_primitives::time::Time;
use ferrocore_replication::PeerMisbehaved;

/// What a link carries towards the reader, in bytes a second.
const RATE: u64 = 5_000_000;

/// How long a byte is under way.
const LATENCY: Duration = Duration::from_millis(10);

/// Bytes of a block, and how many there are.
const BLOCK: usize = 64 * 1024;
const BLOCKS: u32 = 512;

/// A seeder, and the reader's end of the connection to it.
struct Link {
    pair: Pair,
    is_lying: bool,
    /// Frames on their way to the reader and to the seeder, with the time of their arrival.
    to_reader: VecDeque<(Time, Bytes)>,
    to_seeder: VecDeque<(Time, Bytes)>,
    /// When the last byte of what was sent to the reader arrives.
    busy_until: Time,
    refused: Option<PeerMisbehaved>,
}

impl Link {
    fn new(here: &Corestore, there: &Corestore, reader: &Core, is_lying: bool) -> Self {
        let mut pair = Pair::new(here, there);
        pair.b.connection.attach(reader);
        Self {
            pair,
            is_lying,
            to_reader: VecDeque::new(),
            to_seeder: VecDeque::new(),
            busy_until: Time::ZERO,
            refused: None,
        }
    }

    /// Lets both ends work at `now`. False if there was nothing to do.
    fn step(&mut self, now: Time) -> bool {
        let mut has_arrived = false;
        for (under_way, end) in [
            (&mut self.to_reader, &mut self.pair.b),
            (&mut self.to_seeder, &mut self.pair.a),
        ] {
            let arrived = under_way.partition_point(|(at, _)| *at <= now);
            has_arrived |= arrived > 0;
            end.arriving
                .extend(under_way.drain(..arrived).map(|(_, frame)| frame));
        }
        let from_seeder = self.pair.a.step(now).expect("the seeder is not misused");
        let from_reader = self.pair.b.step(now).expect("no lie costs the connection");
        let is_busy = has_arrived || !from_seeder.is_empty() || !from_reader.is_empty();
        for frame in from_seeder {
            let frame = if self.is_lying { lie(&frame) } else { frame };
            let took = Duration::from_nanos(frame.len() as u64 * 1_000_000_000 / RATE);
            self.busy_until = self.busy_until.max(now) + took;
            self.to_reader.push_back((self.busy_until + LATENCY, frame));
        }
        let sent = from_reader.into_iter().map(|frame| (now + LATENCY, frame));
        self.to_seeder.extend(sent);
        self.refused = self
            .refused
            .take()
            .or_else(|| self.pair.b.connection.poll_misbehaviour());
        is_busy || !self.pair.a.arriving.is_empty() || !self.pair.b.arriving.is_empty()
    }

    /// When something is to be done next.
    fn next(&self) -> Option<Time> {
        let arrivals = [self.to_reader.front(), self.to_seeder.front()];
        let timeouts = [
            self.pair.a.connection.next_timeout(),
            self.pair.b.connection.next_timeout(),
        ];
        let arrivals = arrivals.into_iter().flatten().map(|(at, _)| *at);
        arrivals.chain(timeouts.into_iter().flatten()).min()
    }
}

/// The frame, with one byte of the block in it changed.
fn lie(frame: &Bytes) -> Bytes {
    if frame.len() < BLOCK {
        return frame.clone();
    }
    let mut changed = frame.to_vec();
    changed[BLOCK / 2] ^= 1;
    changed.into()
}

/// How long a download from these seeders takes, and what became of each.
fn download_from(is_lying: &[bool]) -> (Duration, Vec<Link>) {
    let blocks: Vec<Bytes> = (0..BLOCKS)
        .map(|n| n.to_le_bytes().repeat(BLOCK / 4).into())
        .collect();
    let (here, writer, there, reader) = writer_and_reader(&blocks);
    let _all = reader.download_all();
    let links = is_lying
        .iter()
        .map(|is_lying| Link::new(&here, &there, &reader, *is_lying));
    let mut links: Vec<Link> = links.collect();
    let mut now = Time::ZERO;
    while reader.count(0..u64::from(BLOCKS)) < u64::from(BLOCKS) {
        let busy = links
            .iter_mut()
            .filter_map(|link| link.step(now).then_some(()))
            .count();
        if busy == 0 {
            let next = links.iter().filter_map(Link::next).min();
            now = next
                .expect("somebody has the rest")
                .max(now + Duration::from_micros(1));
        }
        assert!(
            now < Time::ZERO + Duration::from_secs(60),
            "it takes for ever"
        );
    }
    assert_complete_copy(&writer, &reader);
    (now.saturating_since(Time::ZERO), links)
}

#[test]
fn of_three_seeders_one_lies() {
    let (one, _) = download_from(&[false]);
    let (three, links) = download_from(&[false, true, false]);
    println!("{one:?} from one, {three:?} from three of which one lies");
    assert!(
        three < one * 7 / 10,
        "{three:?} from three, {one:?} from one"
    );
    for link in &links {
        let stats = link.pair.b.stats();
        match link.is_lying {
            false => {
                assert!(link.refused.is_none());
                assert!(stats.blocks_downloaded > u64::from(BLOCKS) / 3);
            }
            true => {
                assert!(matches!(link.refused, Some(PeerMisbehaved::BadProof(_))));
                assert_eq!(stats.blocks_downloaded, 0);
                assert!(
                    !link
                        .pair
                        .b
                        .connection
                        .has(&link.pair.a.store.get_named("test").unwrap().discovery_key())
                );
            }
        }
    }
}
