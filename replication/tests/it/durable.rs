//! Goal: what comes from a peer reaches the device before anybody sees it, and no poll waits for that.
//! Method: a reader with `Durability::Sync` on files whose syncs note their thread and wait at a gate, at one
//! end of a pair on virtual time.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, ThreadId};

use crate::common::{Pair, assert_complete_copy, blocks, writer_and_reader};
use ferrocore_log::events::Event;
use ferrocore_log::push::PushMode;
use ferrocore_log::storage::files::block_file::BlockFile;
use ferrocore_log::storage::files::{CoreFiles, FileCore};
use ferrocore_log::storage::{CoreHeader, Head};
use ferrocore_log::{Core, Durability};
use ferrocore_primitives::keys::Key;

#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<Syncs>, Condvar)>);

#[derive(Default)]
struct Syncs {
    is_closed: bool,
    waiting: usize,
    by: Vec<ThreadId>,
    fail: bool,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Syncs> {
        self.0.0.lock().unwrap()
    }

    fn close(&self) {
        self.lock().is_closed = true;
    }

    fn open(&self) {
        self.lock().is_closed = false;
        self.0.1.notify_all();
    }

    fn await_sync(&self) {
        let none = |syncs: &mut Syncs| syncs.waiting == 0;
        drop(self.0.1.wait_while(self.lock(), none).unwrap());
    }

    fn pass(&self) -> io::Result<()> {
        let mut syncs = self.lock();
        syncs.by.push(thread::current().id());
        syncs.waiting += 1;
        self.0.1.notify_all();
        let mut syncs = self.0.1.wait_while(syncs, |s| s.is_closed).unwrap();
        syncs.waiting -= 1;
        match syncs.fail {
            true => Err(io::Error::other("input/output error")),
            false => Ok(()),
        }
    }
}

/// A file in memory.
struct Gated {
    bytes: Mutex<Vec<u8>>,
    gate: Gate,
}

impl BlockFile for Gated {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.bytes.lock().unwrap();
        let from = bytes.get(offset as usize..).unwrap_or_default();
        let count = from.len().min(buffer.len());
        buffer[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn write(&self, offset: u64, written: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes.lock().unwrap();
        let end = offset as usize + written.len();
        let len = bytes.len().max(end);
        bytes.resize(len, 0);
        bytes[offset as usize..end].copy_from_slice(written);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.gate.pass()
    }

    fn punch(&self, _: Range<u64>) -> io::Result<()> {
        Ok(())
    }
}

/// An empty reader of `key`, with `Durability::Sync`.
fn reader(key: &Key) -> (Core, Gate) {
    let gate = Gate::default();
    let file = || -> Box<dyn BlockFile> {
        Box::new(Gated {
            bytes: Mutex::default(),
            gate: gate.clone(),
        })
    };
    let files = CoreFiles {
        directory: PathBuf::from("memory"),
        oplog: file(),
        tree: file(),
        bitfield: file(),
        data: file(),
        header: file(),
    };
    let header = CoreHeader {
        key: *key,
        manifest: None,
        key_pair: None,
        user_data: Default::default(),
        head: Head::empty(),
    };
    let opened = FileCore::create(files, header, Durability::Sync).unwrap();
    (Core::open(opened, None, Durability::Sync).unwrap(), gate)
}

/// A writer with `count` blocks, a durable reader, and the two connected.
fn connected(count: usize, mode: PushMode) -> (Core, Core, Gate, Pair) {
    let (here, writer, there, _) = writer_and_reader(&blocks(count));
    let (reader, gate) = reader(&writer.key());
    reader.set_push_mode(mode);
    gate.lock().by.clear();
    let mut pair = Pair::new(&here, &there);
    pair.b.connection.attach(&reader);
    (writer, reader, gate, pair)
}

/// Drives the pair until nothing is on its way to the device.
fn drive_all(pair: &mut Pair) {
    loop {
        pair.drive();
        if pair.b.connection.backlog().commits == 0 {
            return;
        }
        thread::yield_now();
    }
}

fn assert_synced_elsewhere(gate: &Gate) {
    let syncs = std::mem::take(&mut gate.lock().by);
    assert!(!syncs.is_empty());
    assert!(!syncs.contains(&thread::current().id()), "a poll waited");
}

#[test]
fn nobody_sees_what_came_before_it_is_durable() {
    let (writer, reader, gate, mut pair) = connected(300, PushMode::Refuse);
    let events = reader.events();
    gate.close();
    pair.drive();
    gate.await_sync();
    pair.drive();
    assert_eq!(pair.b.connection.backlog().commits, 1);
    assert_eq!((reader.length(), events.try_next()), (0, None));
    let told = |pair: &Pair| pair.a.connection.core_stats()[0].remote_length;
    assert_eq!(told(&pair), 0, "not even the peer");
    gate.open();
    drive_all(&mut pair);
    assert_eq!((reader.length(), told(&pair)), (300, 300));

    let _all = reader.download_all();
    gate.close();
    pair.drive();
    gate.await_sync();
    pair.drive();
    assert_eq!(reader.contiguous_length(), 0);
    assert!(reader.get_local(0).unwrap().is_none());
    gate.open();
    drive_all(&mut pair);
    assert_complete_copy(&writer, &reader);
    let blocks = std::iter::from_fn(|| events.try_next())
        .filter(|event| matches!(event, Event::Have(_)))
        .count();
    assert!(blocks > 0);
    assert_eq!(pair.b.stats().blocks_downloaded, 300);
    assert_synced_elsewhere(&gate);
}

#[test]
fn a_log_that_goes_on_is_followed() {
    let (writer, reader, gate, mut pair) = connected(10, PushMode::Refuse);
    let _all = reader.download_all();
    for _ in 0..20 {
        writer.append_batch(blocks(37)).unwrap();
        pair.step();
    }
    drive_all(&mut pair);
    assert_complete_copy(&writer, &reader);
    assert_eq!(pair.b.stats().proofs_refused, 0);
    assert_eq!(pair.b.stats().blocks_downloaded, 750);
    assert_synced_elsewhere(&gate);
}

#[test]
fn a_fork_is_followed() {
    let (writer, reader, gate, mut pair) = connected(100, PushMode::Refuse);
    let _all = reader.download_all();
    drive_all(&mut pair);
    gate.close();
    writer.truncate(41, None).unwrap();
    writer.append_batch(blocks(30)).unwrap();
    pair.drive();
    gate.await_sync();
    pair.drive();
    assert_eq!((reader.fork(), reader.length()), (0, 100));
    assert_eq!(pair.b.connection.backlog().commits, 1);
    gate.open();
    drive_all(&mut pair);
    assert_eq!(reader.fork(), 1);
    assert_complete_copy(&writer, &reader);
    assert_synced_elsewhere(&gate);
}

#[test]
fn what_is_pushed_is_stored_in_order() {
    let (writer, reader, gate, mut pair) = connected(0, PushMode::Only);
    pair.drive();
    gate.close();
    for block in blocks(20) {
        let length = writer.append(block).unwrap().length;
        writer.push(length - 1);
        pair.drive();
    }
    gate.await_sync();
    assert_eq!(reader.length(), 0);
    gate.open();
    drive_all(&mut pair);
    assert_complete_copy(&writer, &reader);
    assert_eq!(pair.b.stats().requests_sent, 0);
    assert_synced_elsewhere(&gate);
}

#[test]
fn a_device_that_fails_ends_the_download() {
    let (_writer, reader, gate, mut pair) = connected(50, PushMode::Refuse);
    let _all = reader.download_all();
    gate.lock().fail = true;
    drive_all(&mut pair);
    assert_eq!(reader.length(), 0, "nobody sees what may be lost");
    assert_eq!(reader.supply().suppliers(), 0, "nothing more is asked for");
}
