//! Replication: two honest ends that do anything, and frames and time that take any course.
//!
//! Holds: neither end is ever blamed; the reader has a history that the writer had; what is in flight is no more than
//! was asked; and at rest no request is in flight, no question waits, nothing is left to be written, no time is
//! waited for, every wanted block has come, and whoever sought a byte has its block.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use arbitrary::Unstructured;
use bytes::Bytes;
use ferrocore_log::core::Download;
use ferrocore_log::push::PushMode;
use ferrocore_log::{Core, CoreError, Corestore};
use ferrocore_primitives::time::Time;
use ferrocore_replication::Connection;
use ferrocore_replication::connection::Event;

const STEPS_MAX: usize = 64;
/// Turns until both ends must be at rest.
const TURNS_MAX: usize = 20_000;

/// The input is what both do, and what is delivered when.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut play = Play::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() || play.step(&mut input).is_err() {
            break;
        }
        play.check();
    }
    play.finish();
}

struct Play {
    ends: [End; 2],
    writer: Core,
    reader: Core,
    wanted: VecDeque<Download>,
    sought: Vec<Seek>,
    now: Time,
}

/// Somebody who waits for the block of a byte.
type Seek = Pin<Box<dyn Future<Output = Result<(u64, u64), CoreError>>>>;

struct End {
    store: Corestore,
    connection: Connection,
    is_woken: Arc<AtomicBool>,
    /// Frames on their way here.
    arriving: VecDeque<Bytes>,
}

impl End {
    fn new(is_initiator: bool, store: Corestore) -> Self {
        let is_woken = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_woken);
        let wake = Arc::new(move || flag.store(true, Ordering::SeqCst));
        Self {
            store,
            connection: Connection::new(is_initiator, [0x11; 64], wake),
            is_woken,
            arriving: VecDeque::new(),
        }
    }

    /// Works, with at most `frames` that have arrived, and returns what is to be sent.
    fn turn(&mut self, frames: usize, now: Time) -> Vec<Bytes> {
        if self.is_woken.swap(false, Ordering::SeqCst) {
            self.connection.handle_wake();
        }
        if self.connection.next_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
        }
        for _ in 0..frames {
            if self.connection.wants_frame()
                && let Some(frame) = self.arriving.pop_front()
            {
                self.connection.handle_frame(frame);
            }
            self.poll(now);
        }
        self.poll(now);
        let mut sent = Vec::new();
        while let Some(frame) = self
            .connection
            .poll_transmit()
            .expect("the other is honest")
        {
            sent.push(frame.to_bytes());
        }
        sent
    }

    fn poll(&mut self, now: Time) {
        loop {
            let event = self
                .connection
                .poll_event(now)
                .expect("the other is honest");
            let Some(Event::CoreWanted {
                offer,
                discovery_key,
                handshake,
            }) = event
            else {
                break;
            };
            match self
                .store
                .get_by_discovery_key(&discovery_key)
                .expect("in memory")
            {
                Some(core) => {
                    let accepted = self.connection.accept(offer, &handshake, &core);
                    accepted.expect("the other knows the key");
                }
                None => self.connection.reject(offer),
            }
        }
        let misbehaved = self.connection.poll_misbehaviour();
        assert!(misbehaved.is_none(), "the other is honest: {misbehaved:?}");
    }

    fn is_idle(&self) -> bool {
        let is_woken = self.is_woken.load(Ordering::SeqCst);
        self.arriving.is_empty() && self.connection.wants_frame() && !is_woken
    }
}

impl Play {
    fn new() -> Self {
        let (here, there) = (Corestore::memory(), Corestore::memory());
        let writer = here.get_named("fuzz").expect("in memory");
        let reader = there.get(&writer.key()).expect("in memory");
        let mut ends = [End::new(true, here), End::new(false, there)];
        ends[1].connection.attach(&reader);
        Self {
            ends,
            writer,
            reader,
            wanted: VecDeque::new(),
            sought: Vec::new(),
            now: Time::ZERO,
        }
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        match input.int_in_range(0..=12)? {
            0 | 1 => self.append(input.int_in_range(1..=9)?),
            2 => self.truncate(input.arbitrary()?),
            3 => {
                let start = input.int_in_range(0..=40u64)?;
                let end = start + input.int_in_range(1..=20u64)?;
                self.wanted.push_back(self.reader.download(start..end));
            }
            4 => drop(self.wanted.pop_front()),
            5 => self.clear(input.int_in_range(0..=40u64)?),
            6 => {
                let modes = [PushMode::Refuse, PushMode::Allow];
                self.reader.set_push_mode(*input.choose(&modes)?);
            }
            7 => drop(self.writer.push(input.int_in_range(0..=40u64)?)),
            8 => self.pass(Duration::from_millis(input.int_in_range(0..=5_000)?)),
            9 => self.reattach(),
            10 => self.seek(input.int_in_range(0..=100)?),
            _ => self.turn(usize::from(input.ratio(1, 2)?), input.int_in_range(0..=3)?),
        }
        Ok(())
    }

    fn append(&mut self, count: u64) {
        let first = self.writer.length();
        let blocks = (first..first + count).map(|index| Bytes::from(index.to_string()));
        self.writer
            .append_batch(blocks.collect())
            .expect("in memory");
    }

    fn truncate(&mut self, at: u8) {
        let length = self.writer.length();
        // Nothing proves a log without blocks, so at least one stays.
        if length > 1 {
            let kept = 1 + u64::from(at) % (length - 1);
            self.writer.truncate(kept, None).expect("in memory");
        }
    }

    fn clear(&mut self, start: u64) {
        let end = (start + 5).min(self.reader.length());
        if start < end {
            self.reader.clear(start..end).expect("in memory");
        }
    }

    /// The reader closes the channel and opens it again.
    fn reattach(&mut self) {
        let connection = &mut self.ends[1].connection;
        connection.detach(&self.reader.discovery_key());
        connection.attach(&self.reader);
    }

    fn seek(&mut self, byte: u64) {
        let reader = self.reader.clone();
        self.sought
            .push(Box::pin(async move { reader.seek(byte).await }));
        self.poll_seeks();
    }

    /// Those who found their byte are gone, and so are those who sought past the end or in a history that is left.
    fn poll_seeks(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        self.sought
            .retain_mut(|seek| seek.as_mut().poll(&mut context).is_pending());
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn turn(&mut self, side: usize, frames: usize) {
        let sent = self.ends[side].turn(frames, self.now);
        self.ends[1 - side].arriving.extend(sent);
        self.poll_seeks();
    }

    fn check(&self) {
        assert!(self.reader.fork() <= self.writer.fork());
        if self.reader.fork() == self.writer.fork() {
            assert!(self.reader.length() <= self.writer.length());
        }
        assert!(self.reader.conflict().is_none());
        for end in &self.ends {
            let in_flight = end.connection.backlog().requests;
            let of_cores = end.connection.core_stats();
            let of_cores: usize = of_cores.iter().map(|core| core.in_flight).sum();
            assert_eq!(in_flight, of_cores, "one ledger");
            assert!(in_flight as u64 <= end.connection.stats().requests_sent);
        }
    }

    /// Lets all arrive, wants all, and looks whether it came and nothing was left behind.
    fn finish(&mut self) {
        let _all = self.reader.download_all();
        self.append(1); // says where the writer is
        self.come_to_rest();
        self.check();
        assert_eq!(self.reader.fork(), self.writer.fork());
        assert_eq!(self.reader.tree_hash(), self.writer.tree_hash());
        let length = self.writer.length();
        assert_eq!(self.reader.count(0..length), length, "no want is lost");
        for index in [0, length - 1] {
            let read = |core: &Core| core.get_local(index).expect("in memory");
            assert_eq!(read(&self.reader), read(&self.writer));
        }
        for end in &self.ends {
            let backlog = end.connection.backlog();
            assert_eq!(backlog, Default::default(), "queues return to zero");
            assert_eq!(end.connection.next_timeout(), None, "nothing is waited for");
        }
        assert!(self.sought.is_empty(), "whoever sought a byte has found it");
    }

    fn come_to_rest(&mut self) {
        for _ in 0..TURNS_MAX {
            self.turn(0, 1);
            self.turn(1, 1);
            if !self.ends.iter().all(End::is_idle) {
                continue;
            }
            let backlog = self.ends.iter().map(|end| end.connection.backlog());
            if backlog.clone().all(|backlog| backlog.requests == 0) {
                return;
            }
            // Something waits for its time.
            let next = self
                .ends
                .iter()
                .filter_map(|end| end.connection.next_timeout())
                .min();
            self.now = next
                .expect("what is in flight has a deadline")
                .max(self.now);
        }
        panic!("the ends keep each other busy for ever");
    }
}

/// Scripts in which something happens.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let script = |steps: &[u8]| [steps, &[255; 32], steps].concat();
    (0..13)
        .map(|what| script(&[0, 7, 3, 5, 9, 10, 1, 3, what, 2, 4, 11, 0, 2, what, 9]))
        .collect()
}
