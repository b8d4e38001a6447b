//! Goal: whatever is done to a core in whatever order, it is what a plain list of blocks would be,
//! and so are the views of it and the draft on it.
//! Method: random operations on a core and on a list, compared after each, over kills and
//! closes; `FERROCORE_SEQUENCES` says how many.
#![cfg(feature = "files")]

use crate::model::Model;
use crate::rig::rng::{Rng, from_env, rounds};
use crate::rig::workload::{pick_wide, wide};
use crate::rig::{Contents, Disk, create, open};
use ferrocore_log::{Core, Durability, EncryptionKey};

const SEQUENCES: usize = 2_000;
const STEPS: usize = 16;

/// One history in so many is of a core of several pages of the bitfield, which takes longer to check.
const ONE_IN_WIDE: usize = 40;

#[test]
fn a_core_is_a_list_of_blocks() {
    rounds(from_env("FERROCORE_SEQUENCES", SEQUENCES), |seed| {
        let mut rng = Rng::new(seed);
        let durability = match rng.below(2) {
            0 => Durability::Buffered,
            _ => Durability::Sync,
        };
        let key = rng.one_in(3).then(|| EncryptionKey::from([5; 32]));
        let handle = |core: Core| match &key {
            Some(key) => core.with_encryption(key),
            None => core,
        };
        let is_wide = key.is_none() && rng.one_in(ONE_IN_WIDE);
        let wide_length = is_wide.then(|| pick_wide(&mut rng));
        let (disk, mut model) = match wide_length {
            Some(length) => (Disk::new(wide(length)), Model::wide(length)),
            None => (Disk::new(Contents::new()), Model::new(key.is_some())),
        };
        let core = match is_wide {
            true => open(&disk, durability).unwrap().unwrap(),
            false => create(&disk, durability).unwrap(),
        };
        let mut core = handle(core);
        for _ in 0..STEPS {
            model.step(&core, &mut rng);
            model.check(&core, &mut rng);
            if rng.one_in(3) {
                let killed = Disk::new(disk.contents());
                let killed = handle(open(&killed, durability).unwrap().unwrap());
                let mut model = model.reopened();
                model.check(&killed, &mut rng);
                model.check_draft(&killed, &mut rng);
            }
            if rng.one_in(5) {
                model = model.reopened();
                drop(core);
                core = handle(open(&disk, durability).unwrap().unwrap());
                model.check(&core, &mut rng);
            }
        }
        1
    });
}
