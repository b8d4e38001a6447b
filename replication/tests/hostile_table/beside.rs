//! An honest peer beside the scripted one, connected to the same store all the time.
//!
//! Where we write the log, it reads that; else another core of our store, so that the log has the scripted peer's word
//! alone until the row is over.

use bytes::Bytes;
use ferrocore_log::core::Download;
use ferrocore_log::fuzzing::signatures_checked;
use ferrocore_log::{Core, Corestore};
use ferrocore_primitives::time::Time;
use ferrocore_replication::fuzzing::steps_done;

use crate::common::{Pair, blocks};
use crate::counted::Reads;
use crate::stage::LENGTH;

/// Both honest ends, and what is read.
pub(crate) struct Beside {
    pair: Pair,
    reader: Core,
    /// Who goes on writing, if that is not the log.
    writer: Option<Core>,
    /// What was wanted.
    wanted: Vec<Download>,
    next: u64,
    /// How often our storage is read.
    all_reads: Reads,
    /// How many of them were for it.
    pub(crate) reads: usize,
    /// Signatures that were checked for it.
    pub(crate) signatures: u64,
    /// Steps of work that were done for it.
    pub(crate) steps: u64,
    /// Bytes that stayed allocated for it.
    pub(crate) bytes: isize,
    /// Whether each block came when it was wanted.
    pub(crate) is_served: bool,
}

impl Beside {
    /// It reads the log of ours that is written in `store`.
    pub(crate) fn of_log(store: &Corestore, log: &Core, reads: &Reads) -> Self {
        let there = Corestore::memory();
        let reader = there.get(&log.key()).unwrap();
        let mut pair = Pair::new(store, &there);
        pair.a.attach_if_outside(log);
        pair.b.connection.attach(&reader);
        Self::new(pair, reader, None, reads)
    }

    /// We read a core of its into `store`.
    pub(crate) fn of_another(store: &Corestore, reads: &Reads) -> Self {
        let here = Corestore::memory();
        let writer = here.get_named("beside").unwrap();
        writer.append_batch(blocks(1)).unwrap();
        let reader = store.get(&writer.key()).unwrap();
        let mut pair = Pair::new(&here, store);
        pair.b.connection.attach(&reader);
        Self::new(pair, reader, Some(writer), reads)
    }

    fn new(pair: Pair, reader: Core, writer: Option<Core>, reads: &Reads) -> Self {
        let mut beside = Self {
            pair,
            reader,
            writer,
            wanted: Vec::with_capacity(1024),
            next: 0,
            all_reads: reads.clone(),
            reads: 0,
            signatures: 0,
            steps: 0,
            bytes: 0,
            is_served: true,
        };
        beside.go_on(Time::ZERO);
        assert!(beside.is_served, "before anything has happened");
        beside
    }

    /// One more block is wanted, and there at once, as nobody else stands in the way.
    pub(crate) fn go_on(&mut self, now: Time) {
        let before = crate::ALLOCATOR.allocated();
        let reads = self.all_reads.count();
        let (signatures, steps) = (signatures_checked(), steps_done());
        let index = match &self.writer {
            Some(writer) => {
                writer.append(Bytes::from_static(b"goes on")).unwrap();
                writer.length() - 1
            }
            None => self.next % LENGTH,
        };
        self.next += 1;
        self.wanted.push(self.reader.download(index..index + 1));
        self.pair.now = now;
        self.pair.drive();
        self.is_served &= self.reader.has(index);
        self.reads += self.all_reads.count() - reads;
        self.signatures += signatures_checked() - signatures;
        self.steps += steps_done() - steps;
        let [before, after] = [before, crate::ALLOCATOR.allocated()]
            .map(|bytes| isize::try_from(bytes).expect("it fits in memory"));
        self.bytes += after - before;
    }
}
