//! Two connections joined by a loop over virtual time.
#![allow(dead_code, reason = "every test binary uses a part of it")]

pub(crate) mod gate;
pub(crate) mod lines;
pub(crate) mod script;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use ferrocore_log::{Core, Corestore};
use ferrocore_primitives::time::Time;
use ferrocore_replication::connection::{Connection, Event};
use ferrocore_replication::limits::KEPT_BYTES_ALL_MAX;
use ferrocore_replication::session::PeersMemory;
use ferrocore_replication::{PeerMisbehaved, Stats};

/// The handshake hash of every connection here and in the vectors.
pub(crate) const HANDSHAKE_HASH: [u8; 64] = [0x11; 64];

/// One end of a connection: a store and the protocol on top of it.
pub(crate) struct End {
    pub(crate) store: Corestore,
    pub(crate) connection: Connection,
    is_woken: Arc<AtomicBool>,
    /// Frames on their way here.
    pub(crate) arriving: VecDeque<Bytes>,
    /// Bytes of all frames that came here.
    pub(crate) received_bytes: usize,
}

impl End {
    pub(crate) fn new(is_initiator: bool, store: &Corestore) -> Self {
        let is_woken = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_woken);
        let wake = Arc::new(move || flag.store(true, Ordering::SeqCst));
        let mut connection = Connection::new(is_initiator, HANDSHAKE_HASH, wake);
        // Others run beside this one in one process, and some use up what it has.
        connection.share_answers(&PeersMemory::new(KEPT_BYTES_ALL_MAX));
        Self {
            store: store.clone(),
            connection,
            is_woken,
            arriving: VecDeque::new(),
            received_bytes: 0,
        }
    }

    /// Takes in what there is and returns what is to be sent.
    pub(crate) fn step(&mut self, now: Time) -> Result<Vec<Bytes>, PeerMisbehaved> {
        self.take_in(now)?;
        let mut sent = Vec::new();
        while let Some(frame) = self.connection.poll_transmit()? {
            sent.push(frame.to_bytes());
        }
        Ok(sent)
    }

    /// Takes in what there is.
    pub(crate) fn take_in(&mut self, now: Time) -> Result<(), PeerMisbehaved> {
        if self.is_woken.swap(false, Ordering::SeqCst) {
            self.connection.handle_wake();
        }
        if self.is_due(now) {
            self.connection.handle_timeout(now);
        }
        if self.connection.wants_frame()
            && let Some(frame) = self.arriving.pop_front()
        {
            self.received_bytes += frame.len();
            self.connection.handle_frame(frame);
        }
        self.poll(now)?;
        if self.is_due(now) {
            // What came may have made something late that was not yet. Whatever is done about it is done once.
            self.connection.handle_timeout(now);
            self.poll(now)?;
            assert!(!self.is_due(now), "it waits for a time that is over");
        }
        Ok(())
    }

    /// Whether the time has come that is waited for.
    fn is_due(&self, now: Time) -> bool {
        let timeout = self.connection.next_timeout();
        timeout.is_some_and(|time| time <= now)
    }

    /// Offers a core that is not in the store, where it would not be found.
    pub(crate) fn attach_if_outside(&mut self, core: &Core) {
        if self
            .store
            .get_by_discovery_key(&core.discovery_key())
            .unwrap()
            .is_none()
        {
            self.connection.attach(core);
        }
    }

    fn poll(&mut self, now: Time) -> Result<(), PeerMisbehaved> {
        while let Some(Event::CoreWanted {
            offer,
            discovery_key,
            handshake,
        }) = self.connection.poll_event(now)?
        {
            match self.store.get_by_discovery_key(&discovery_key).unwrap() {
                Some(core) => self.connection.accept(offer, &handshake, &core)?,
                None => self.connection.reject(offer),
            }
        }
        Ok(())
    }

    /// Whether there is nothing left to do before something new happens.
    pub(crate) fn is_idle(&self) -> bool {
        self.arriving.is_empty()
            && self.connection.wants_frame()
            && !self.is_woken.load(Ordering::SeqCst)
    }

    pub(crate) fn stats(&self) -> Stats {
        self.connection.stats()
    }
}

/// Two ends.
pub(crate) struct Pair {
    pub(crate) a: End,
    pub(crate) b: End,
    pub(crate) now: Time,
}

impl Pair {
    pub(crate) fn new(a: &Corestore, b: &Corestore) -> Self {
        Self {
            a: End::new(true, a),
            b: End::new(false, b),
            now: Time::ZERO,
        }
    }

    /// Lets both ends work once. False if neither had anything to do.
    pub(crate) fn step(&mut self) -> bool {
        let to_b = self.a.step(self.now).expect("a is not misused");
        let to_a = self.b.step(self.now).expect("b is not misused");
        let moved = !to_a.is_empty() || !to_b.is_empty();
        self.b.arriving.extend(to_b);
        self.a.arriving.extend(to_a);
        moved || !self.a.is_idle() || !self.b.is_idle()
    }

    /// Lets both ends work until nothing is left to do.
    pub(crate) fn drive(&mut self) {
        let steps = (0..1_000_000).take_while(|_| self.step()).count();
        assert!(steps < 1_000_000, "the ends keep each other busy for ever");
    }

    /// As [`Pair::drive`], and waits for commits that threads make.
    pub(crate) fn drive_all(&mut self) {
        let commits = |end: &End| end.connection.backlog().commits;
        self.drive();
        while commits(&self.a) + commits(&self.b) > 0 {
            thread::yield_now();
            self.drive();
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.drive();
    }
}

/// A core with `blocks` in a store of its own, and a reader of it in another.
pub(crate) fn writer_and_reader(blocks: &[Bytes]) -> (Corestore, Core, Corestore, Core) {
    let (here, there) = (Corestore::memory(), Corestore::memory());
    let writer = here.get_named("test").unwrap();
    writer.append_batch(blocks.to_vec()).unwrap();
    let reader = there.get(&writer.key()).unwrap();
    (here, writer, there, reader)
}

/// `count` different blocks.
pub(crate) fn blocks(count: usize) -> Vec<Bytes> {
    (0..count)
        .map(|index| Bytes::from(format!("block-{index}")))
        .collect()
}

/// Whether both have the same log and every block of it.
pub(crate) fn assert_complete_copy(writer: &Core, reader: &Core) {
    assert_eq!(reader.length(), writer.length());
    assert_eq!(reader.tree_hash(), writer.tree_hash());
    for index in 0..writer.length() {
        assert_eq!(
            reader.get_local(index).unwrap(),
            writer.get_local(index).unwrap(),
            "block {index}"
        );
        assert!(reader.has(index), "block {index}");
    }
}
