//! Every way in which a call to the files may fail, and what is found afterwards.

use std::ops::Range;

use bytes::Bytes;
use ferrocore_log::{Durability, StorageError};

use super::power::{Device, Loss};
use super::rng::Rng;
use super::{Contents, Disk, Fault, FaultKind};

pub(crate) const KINDS: [FaultKind; 4] = [
    FaultKind::Broken,
    FaultKind::Full,
    FaultKind::Short,
    FaultKind::ShortRead,
];

/// Each of `calls` failing in each way, once and from then on.
pub(crate) fn faults(calls: Range<usize>) -> impl Iterator<Item = Fault> {
    calls.flat_map(|call| {
        let kinds = KINDS
            .into_iter()
            .flat_map(|kind| [(kind, false), (kind, true)]);
        kinds.map(move |(kind, lasts)| Fault { call, lasts, kind })
    })
}

/// What a restart of the process finds of files that began as `start`, and in Sync mode one of the machine.
pub(crate) fn left_by(disk: &Disk, start: &Contents, durability: Durability) -> Vec<Contents> {
    let mut found = vec![disk.contents()];
    if durability == Durability::Sync {
        let mut device = Device::new(start.clone());
        let changes = disk.changes();
        changes.iter().for_each(|change| device.advance(change));
        found.push(device.after(Loss::Everything, &mut Rng::new(0)));
    }
    found
}

/// Some short blocks, none like its neighbour.
pub(crate) fn blocks(count: usize) -> Vec<Bytes> {
    let block = |i: usize| Bytes::from(vec![i as u8; 1 + i % 7]);
    (0..count).map(block).collect()
}

/// Whether the operating system refused, as it was told to.
pub(crate) fn is_io(error: &StorageError) -> bool {
    matches!(error, StorageError::Io { .. })
}
