//! Goal: an append costs two writes, wherever the core is between two flushes: its bytes, and the entry that commits it.
//! Method: a core on files in memory that remember every change.
#![cfg(feature = "files")]

use crate::rig::{Change, Contents, Disk, What, create, open};
use bytes::Bytes;
use ferrocore_log::Durability;

/// The files that were changed, and whether by a write.
fn changed(changes: &[Change]) -> Vec<(&'static str, bool)> {
    let is_write = |change: &Change| matches!(change.what, What::Write { .. });
    changes.iter().map(|c| (c.file, is_write(c))).collect()
}

#[test]
fn an_append_is_two_writes() {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Buffered).unwrap();
    for number in 0..200_u64 {
        if number % 50 == 49 {
            core.flush().unwrap();
        }
        let before = disk.now();
        match number % 3 {
            0 => drop(core.append(vec![7; number as usize + 1]).unwrap()),
            _ => {
                let blocks = (0..number % 7 + 1).map(|_| Bytes::from_static(b"one of several"));
                core.append_batch(blocks.collect()).unwrap();
            }
        }
        let changes = disk.changes().split_off(before);
        let expected = [("data", true), ("oplog", true)];
        assert_eq!(changed(&changes), expected, "append {number}");
    }
}

/// Goal: whoever opens a core in synced mode syncs each file once, the oplog last, whatever its last user left; in buffered mode
/// nothing, nor does the first append, but for the header that it stands on.
#[test]
fn an_opening_syncs_what_others_may_have_left() {
    let disk = Disk::new(Contents::new());
    let core = create(&disk, Durability::Sync).unwrap();
    core.append("one").unwrap();
    let killed = disk.contents();
    drop(core);
    for files in [killed, disk.contents()] {
        let disk = Disk::new(files.clone());
        let _core = open(&disk, Durability::Sync).unwrap().unwrap();
        let mut synced = changed(&disk.changes());
        assert_eq!(synced.pop(), Some(("oplog", false)));
        synced.sort_unstable();
        let others = ["bitfield", "data", "header", "tree"];
        assert_eq!(synced, others.map(|file| (file, false)));

        let disk = Disk::new(files);
        let core = open(&disk, Durability::Buffered).unwrap().unwrap();
        assert_eq!(changed(&disk.changes()), []);
        core.append("another").unwrap();
        core.append("one more").unwrap();
        let writes = [("data", true), ("oplog", true)];
        let expected = [writes[0], ("oplog", false), writes[1], writes[0], writes[1]];
        assert_eq!(changed(&disk.changes()), expected);
    }
}
