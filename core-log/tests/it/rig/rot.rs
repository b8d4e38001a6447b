//! Bytes that change while nobody looks, and the audit that mends what they were.

use ferrocore_log::audit::{Mode, Step};
use ferrocore_log::{Core, flat_tree};

use super::Disk;
use super::rng::Rng;

const NODE_BYTES: u64 = 40;

/// Flips a bit of a block of a log of `length` blocks, or of a node that is no root: those are looked at whenever the
/// core is opened. Nobody must have it open.
pub(crate) fn rot(disk: &Disk, length: u64, rng: &mut Rng) {
    let (name, offset) = match pick_node(length, rng) {
        Some(node) if !rng.one_in(3) => ("tree", node * NODE_BYTES + rng.below(40) as u64),
        _ => ("data", rng.below(disk.len_of("data") as usize + 1) as u64),
    };
    if offset >= disk.len_of(name) {
        return;
    }
    let (file, mut byte) = (disk.file(name), [0]);
    file.read(offset, &mut byte).unwrap();
    byte[0] ^= 1 << rng.below(8);
    file.write(offset, &byte).unwrap();
    file.sync().unwrap();
}

fn pick_node(length: u64, rng: &mut Rng) -> Option<u64> {
    let index = rng.below((2 * length).max(1) as usize) as u64;
    let is_root = flat_tree::full_roots(length).any(|root| root == index);
    (!is_root && flat_tree::end_block(index) <= length).then_some(index)
}

/// Lets an audit mend what it finds, after which it must find nothing bad. `mended` is told after each of its turns.
pub(crate) fn repair(core: &Core, mut mended: impl FnMut()) {
    core.audit(Mode::Repair, |step| {
        if matches!(step, Step::Progress { .. }) {
            mended();
        }
    })
    .unwrap();
    let mut found = Vec::new();
    let left = core.audit(Mode::DryRun, |step| {
        if let Step::Found { damage, .. } = step {
            found.push(damage.clone());
        }
    });
    assert_eq!(left.unwrap().bad, 0, "{found:?} is left");
}
