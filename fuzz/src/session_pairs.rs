//! Replication: a writer, a relay and a reader, all honest, that do anything, and frames and time that take any course.
//!
//! Each two of them are connected, so that the reader has two suppliers, of which one may know and have less. The first byte
//! of the input says whether the reader waits for its device.
//!
//! Holds: no end is ever blamed; both copies have a history that the writer had; what is in flight is no more than was asked;
//! who has done what there is to do waits for no moment that is over; once all frames have arrived every request is
//! answered, before any time goes by that would make it late; and at rest no request is in flight, no question waits,
//! nothing is left to be written, no time is waited for, no block is being got, every wanted one has come, and whoever
//! sought a byte has its block, the right one.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arbitrary::Unstructured;
use bytes::Bytes;
use ferrocore_log::core::Download;
use ferrocore_log::fuzzing::claimed;
use ferrocore_log::push::PushMode;
use ferrocore_log::storage::memory::Memory;
use ferrocore_log::{Core, CoreError, Corestore, Durability};
use ferrocore_primitives::time::Time;
use ferrocore_replication::Connection;
use ferrocore_replication::connection::Event;

const STEPS_MAX: usize = 64;
/// Turns of all ends until they must be at rest.
const TURNS_MAX: usize = 20_000;
/// How long a device that holds nothing but memory may take.
const DEVICE_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the cores are.
const WRITER: usize = 0;
const RELAY: usize = 1;
const READER: usize = 2;

/// Who is connected to whom: the first has more.
const LINKS: [(usize, usize); 3] = [(WRITER, READER), (RELAY, READER), (WRITER, RELAY)];

/// The input is what all do, and what is delivered when.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let durability = match input.ratio(1, 4) {
        Ok(true) => Durability::Sync,
        _ => Durability::Buffered,
    };
    let mut play = Play::new(durability);
    for _ in 0..STEPS_MAX {
        if input.is_empty() || play.step(&mut input).is_err() {
            break;
        }
        play.check();
    }
    play.finish();
}

struct Play {
    links: [[End; 2]; 3],
    cores: [Core; 3],
    wanted: VecDeque<Download>,
    read: VecDeque<Read>,
    sought: Vec<(u64, Seek)>,
    now: Time,
}

/// Somebody who waits for a block.
type Read = Pin<Box<dyn Future<Output = Result<Bytes, CoreError>>>>;

/// Somebody who waits for the block of a byte.
type Seek = Pin<Box<dyn Future<Output = Result<(u64, u64), CoreError>>>>;

struct End {
    store: Corestore,
    connection: Connection,
    alarm: Arc<Alarm>,
    /// Frames on their way here.
    arriving: VecDeque<Bytes>,
}

/// Whether there is news for an end. It may come from the thread of a device.
#[derive(Default)]
struct Alarm {
    is_rung: Mutex<bool>,
    rang: Condvar,
}

impl Alarm {
    fn ring(&self) {
        *self.is_rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.rang.notify_all();
    }

    fn is_rung(&self) -> bool {
        *self.is_rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> bool {
        std::mem::take(&mut *self.is_rung.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wait(&self) {
        let is_rung = self.is_rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .rang
            .wait_timeout_while(is_rung, DEVICE_TIMEOUT, |is_rung| !*is_rung);
        let timeout = waited.unwrap_or_else(PoisonError::into_inner).1;
        assert!(!timeout.timed_out(), "whoever waits for a device is told");
    }
}

impl End {
    fn new(is_initiator: bool, store: &Corestore) -> Self {
        let alarm = Arc::new(Alarm::default());
        let bell = Arc::clone(&alarm);
        let wake = Arc::new(move || bell.ring());
        Self {
            store: store.clone(),
            connection: Connection::new(is_initiator, [0x11; 64], wake),
            alarm,
            arriving: VecDeque::new(),
        }
    }

    /// Works, with at most `frames` that have arrived, and returns what is to be sent.
    fn turn(&mut self, frames: usize, now: Time) -> Vec<Bytes> {
        if self.alarm.take() {
            self.connection.handle_wake();
        }
        if self.is_due(now) {
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
        if self.is_due(now) {
            // What came may have made something late.
            self.connection.handle_timeout(now);
            self.poll(now);
            assert!(!self.is_due(now), "it waits for a moment that is over");
        }
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

    fn is_due(&self, now: Time) -> bool {
        self.connection.next_timeout().is_some_and(|at| at <= now)
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
        self.arriving.is_empty() && self.connection.wants_frame() && !self.alarm.is_rung()
    }
}

impl Play {
    fn new(durability: Durability) -> Self {
        let durable = Corestore::with_storage(Memory::new(), durability.into());
        let stores = [
            Corestore::memory(),
            Corestore::memory(),
            durable.expect("in memory"),
        ];
        let [here, at_relay, there] = &stores;
        let writer = here.get_named("fuzz").expect("in memory");
        let copy = |store: &Corestore| store.get(&writer.key()).expect("in memory");
        let cores = [writer.clone(), copy(at_relay), copy(there)];
        let links = LINKS.map(|(more, less)| {
            let mut ends = [
                End::new(true, &stores[more]),
                End::new(false, &stores[less]),
            ];
            ends[1].connection.attach(&cores[less]);
            ends
        });
        Self {
            links,
            cores,
            wanted: VecDeque::new(),
            read: VecDeque::new(),
            sought: Vec::new(),
            now: Time::ZERO,
        }
    }

    fn writer(&self) -> &Core {
        &self.cores[WRITER]
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        match input.int_in_range(0..=19)? {
            0 | 1 => self.append(input.int_in_range(1..=9)?),
            2 => self.truncate(input.arbitrary()?),
            3 | 4 => {
                let copy = input.int_in_range(RELAY..=READER)?;
                let start = input.int_in_range(0..=40u64)?;
                let end = start + input.int_in_range(1..=20u64)?;
                self.wanted.push_back(self.cores[copy].download(start..end));
            }
            5 => drop(self.wanted.pop_front()),
            6 => {
                let copy = input.int_in_range(RELAY..=READER)?;
                self.clear(copy, input.int_in_range(0..=40u64)?);
            }
            7 => {
                let modes = [PushMode::Refuse, PushMode::Allow];
                self.cores[READER].set_push_mode(*input.choose(&modes)?);
            }
            8 => drop(self.writer().push(input.int_in_range(0..=40u64)?)),
            9 => self.pass(Duration::from_millis(input.int_in_range(0..=5_000)?)),
            10 => self.reattach(input.choose_index(LINKS.len())?),
            11 => self.seek(input.int_in_range(0..=100)?),
            12 => {
                if let Some(wanted) = self.wanted.back() {
                    match input.arbitrary()? {
                        true => wanted.pause(),
                        false => wanted.resume(),
                    }
                }
            }
            13 => self.read(input.int_in_range(0..=40)?),
            14 => drop(self.read.pop_front()),
            _ => {
                let link = input.choose_index(LINKS.len())?;
                let side = usize::from(input.ratio(1, 2)?);
                self.turn(link, side, input.int_in_range(0..=3)?);
            }
        }
        Ok(())
    }

    /// Block `index` is the same in every history: its number.
    fn append(&mut self, count: u64) {
        let first = self.writer().length();
        let blocks = (first..first + count).map(|index| Bytes::from(index.to_string()));
        let appended = self.writer().append_batch(blocks.collect());
        appended.expect("in memory");
    }

    fn truncate(&mut self, at: u8) {
        let length = self.writer().length();
        if length > 0 {
            let kept = u64::from(at) % length;
            self.writer().truncate(kept, None).expect("in memory");
        }
    }

    fn clear(&mut self, copy: usize, start: u64) {
        let core = &self.cores[copy];
        let end = (start + 5).min(core.length());
        if start < end {
            core.clear(start..end).expect("in memory");
        }
    }

    /// Who has less closes the channel and opens it again.
    fn reattach(&mut self, link: usize) {
        let core = &self.cores[LINKS[link].1];
        let connection = &mut self.links[link][1].connection;
        connection.detach(&core.discovery_key());
        connection.attach(core);
    }

    fn read(&mut self, index: u64) {
        let reader = self.cores[READER].clone();
        self.read
            .push_back(Box::pin(async move { reader.get(index).await }));
        self.poll_readers();
    }

    fn seek(&mut self, byte: u64) {
        let reader = self.cores[READER].clone();
        let seek: Seek = Box::pin(async move { reader.seek(byte).await });
        self.sought.push((byte, seek));
        self.poll_readers();
    }

    /// Those who have their block, or found their byte, are gone, and so are those who looked past the end or in a history
    /// that is left.
    fn poll_readers(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        self.read
            .retain_mut(|read| read.as_mut().poll(&mut context).is_pending());
        self.sought.retain_mut(|(byte, seek)| {
            let found = seek.as_mut().poll(&mut context);
            if let Poll::Ready(Ok((block, offset))) = found {
                assert_eq!(bytes_before(block) + offset, *byte, "it is in this block");
                assert!(offset < bytes_before(block + 1) - bytes_before(block));
            }
            found.is_pending()
        });
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn turn(&mut self, link: usize, side: usize, frames: usize) {
        let ends = &mut self.links[link];
        let sent = ends[side].turn(frames, self.now);
        ends[1 - side].arriving.extend(sent);
        self.poll_readers();
    }

    fn check(&self) {
        let [writer, copies @ ..] = &self.cores;
        for copy in copies {
            assert!(copy.fork() <= writer.fork());
            if copy.fork() == writer.fork() {
                assert!(copy.length() <= writer.length());
            }
            assert!(copy.conflict().is_none());
            let [claims, late, abandoned, _] = claimed(copy);
            assert!(late <= claims && abandoned <= claims, "what is being got");
        }
        for end in self.links.as_flattened() {
            let in_flight = end.connection.backlog().requests;
            let of_cores = end.connection.core_stats();
            let of_cores: usize = of_cores.iter().map(|core| core.in_flight).sum();
            assert_eq!(in_flight, of_cores, "one ledger");
            assert!(in_flight as u64 <= end.connection.stats().requests_sent);
        }
    }

    /// Lets all arrive, wants all, and looks whether it came and nothing was left behind.
    fn finish(&mut self) {
        let _all = [RELAY, READER].map(|copy| self.cores[copy].download_all());
        self.append(1); // says where the writer is
        self.come_to_rest();
        self.check();
        let [writer, copies @ ..] = &self.cores;
        for copy in copies {
            assert_eq!(copy.fork(), writer.fork());
            assert_eq!(copy.tree_hash(), writer.tree_hash());
            let length = writer.length();
            assert_eq!(copy.count(0..length), length, "no want is lost");
            for index in [0, length - 1] {
                let read = |core: &Core| core.get_local(index).expect("in memory");
                assert_eq!(read(copy), read(writer));
            }
            assert_eq!(claimed(copy), [0; 4], "nobody is getting anything");
        }
        for end in self.links.as_flattened() {
            let backlog = end.connection.backlog();
            assert_eq!(backlog, Default::default(), "queues return to zero");
            assert_eq!(end.connection.next_timeout(), None, "nothing is waited for");
        }
        assert!(self.sought.is_empty(), "whoever sought a byte has found it");
    }

    /// Requests that were given up because their answer did not come in time.
    fn timed_out(&self) -> u64 {
        let ends = self.links.as_flattened().iter();
        ends.map(|end| end.connection.stats().requests_timed_out)
            .sum()
    }

    fn come_to_rest(&mut self) {
        let mut late = None;
        for _ in 0..TURNS_MAX {
            for link in 0..LINKS.len() {
                self.turn(link, 0, 1);
                self.turn(link, 1, 1);
            }
            let ends = self.links.as_flattened();
            if !ends.iter().all(End::is_idle) {
                continue;
            }
            if let Some(end) = ends.iter().find(|end| end.connection.backlog().commits > 0) {
                end.alarm.wait();
                continue;
            }
            for end in ends {
                let backlog = end.connection.backlog();
                let unanswered = backlog.requests + backlog.questions + backlog.kept_bytes;
                assert_eq!(
                    unanswered, 0,
                    "all is answered before time goes by: {backlog:?}"
                );
            }
            let timed_out = self.timed_out();
            assert_eq!(*late.get_or_insert(timed_out), timed_out, "none is late");
            // Something may wait for its time.
            let timeouts = ends.iter().filter_map(|end| end.connection.next_timeout());
            match timeouts.min() {
                Some(next) => self.now = next.max(self.now),
                None => return,
            }
        }
        panic!("the ends keep each other busy for ever");
    }
}

/// Bytes of all blocks before this one.
fn bytes_before(block: u64) -> u64 {
    (0..block).map(|index| index.to_string().len() as u64).sum()
}

/// Scripts in which something happens.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let script = |steps: &[u8]| [steps, &[255; 32], steps].concat();
    (0..20)
        .map(|what| {
            script(&[
                what, 0, 7, 3, 1, 5, 9, 15, 0, 1, 3, what, 2, 1, 17, 1, 0, 2, what, 9,
            ])
        })
        .collect()
}
