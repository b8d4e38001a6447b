//! Bytes that change while nobody looks, and the audit that mends what they were.

use ferrocore_log::audit::{Mode, Step};
use ferrocore_log::storage::StorageError;
use ferrocore_log::{Core, Durability, flat_tree};

use super::rng::Rng;
use super::{Disk, is_about_roots, open, open_unverified};

const NODE_BYTES: u64 = 40;

/// Flips a bit of a block of a log of `length` blocks, or of a node. Nobody must have it open.
///
/// A root is one of which enough is left below: where nothing proves it, there is nothing to repair.
pub(crate) fn rot(disk: &Disk, length: u64, rng: &mut Rng) {
    let (name, offset) = match pick_node(disk, length, rng) {
        Some(node) if !rng.one_in(3) => ("tree", node * NODE_BYTES + rng.below(40) as u64),
        _ => ("data", rng.below(disk.len_of("data") as usize + 1) as u64),
    };
    if offset >= disk.len_of(name) {
        return;
    }
    let (file, mut byte) = (disk.file(name), [0]);
    file.read(offset, &mut byte).unwrap();
    disk.rot(name, offset, byte[0] ^ 1 << rng.below(8));
}

fn pick_node(disk: &Disk, length: u64, rng: &mut Rng) -> Option<u64> {
    let index = rng.below((2 * length).max(1) as usize) as u64;
    let mut roots = flat_tree::full_roots(length);
    let is_root = roots.any(|root| root == index);
    let is_mended = !is_root || has_children(disk, index);
    (is_mended && flat_tree::end_block(index) <= length).then_some(index)
}

/// Whether the nodes that a node is made of are in the file.
fn has_children(disk: &Disk, index: u64) -> bool {
    let is_here = |child: u64| {
        let mut bytes = [0; NODE_BYTES as usize];
        let count = disk.file("tree").read(child * NODE_BYTES, &mut bytes);
        count.unwrap() == bytes.len() && bytes.iter().any(|byte| *byte != 0)
    };
    flat_tree::children(index).is_some_and(|(left, right)| is_here(left) && is_here(right))
}

/// Opens a core that may have a rotten root, which an audit mends then.
pub(crate) fn open_mended(
    disk: &Disk,
    durability: Durability,
    mended: impl FnMut(&Core),
) -> Result<Option<Core>, StorageError> {
    match open(disk, durability) {
        Err(error) if is_about_roots(&error) => {
            let core = open_unverified(disk, durability);
            repair(&core, mended);
            drop(core);
            open(disk, durability)
        }
        result => result,
    }
}

/// Lets an audit mend what it finds, after which it must find nothing bad. `mended` is told after each of its turns.
pub(crate) fn repair(core: &Core, mut mended: impl FnMut(&Core)) {
    core.audit(Mode::Repair, |step| {
        if matches!(step, Step::Progress { .. }) {
            mended(core);
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
