//! Goal: whatever is done to a core in whatever order, it is what a plain list of blocks would be.
//! Method: random operations on a core and on a list, compared after each, over kills and
//! closes; `FERROCORE_SEQUENCES` says how many.
#![cfg(feature = "files")]

mod rig;

use std::collections::BTreeMap;

use bytes::Bytes;
use ferrocore_log::{Core, CoreError, Durability};
use rig::rng::{Rng, from_env, rounds};
use rig::{Contents, Disk, create, open};

const SEQUENCES: usize = 2_000;
const STEPS: usize = 16;

#[test]
fn a_core_is_a_list_of_blocks() {
    rounds(from_env("FERROCORE_SEQUENCES", SEQUENCES), |seed| {
        let mut rng = Rng::new(seed);
        let durability = match rng.below(2) {
            0 => Durability::Buffered,
            _ => Durability::Sync,
        };
        let disk = Disk::new(Contents::new());
        let mut core = create(&disk, durability).unwrap();
        let mut model = Model::default();
        for _ in 0..STEPS {
            model.step(&core, &mut rng);
            model.check(&core, &mut rng);
            if rng.one_in(3) {
                let killed = Disk::new(disk.contents());
                model.check(&open(&killed, durability).unwrap().unwrap(), &mut rng);
            }
            if rng.one_in(5) {
                drop(core);
                core = open(&disk, durability).unwrap().unwrap();
                model.check(&core, &mut rng);
            }
        }
        1
    });
}

/// The obvious core: a list of blocks, some of them cleared.
#[derive(Default)]
struct Model {
    blocks: Vec<Block>,
    fork: u64,
    user_data: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone)]
struct Block {
    bytes: Bytes,
    is_here: bool,
}

impl Model {
    fn step(&mut self, core: &Core, rng: &mut Rng) {
        match rng.below(12) {
            0..5 => self.append(core, rng),
            5 | 6 => self.truncate(core, rng),
            7 | 8 => self.clear(core, rng),
            9 => self.set_user_data(core, rng),
            10 => core.flush().unwrap(),
            _ => {
                let too_far = core.truncate(core.length() + 1, None);
                assert!(matches!(too_far, Err(CoreError::OutOfBounds { .. })));
            }
        }
    }

    fn append(&mut self, core: &Core, rng: &mut Rng) {
        let count = match rng.below(24) {
            0 => 130 + rng.below(20),
            _ => rng.below(6),
        };
        let block = |_| {
            let bytes = match rng.below(24) {
                0 => vec![0; 4_096 + rng.below(4_096)],
                _ => {
                    let len = rng.below(40);
                    rng.bytes(len)
                }
            };
            Bytes::from(bytes)
        };
        let blocks: Vec<Bytes> = (0..count).map(block).collect();
        core.append_batch(blocks.clone()).unwrap();
        self.blocks.extend(blocks.into_iter().map(|bytes| Block {
            bytes,
            is_here: true,
        }));
    }

    fn truncate(&mut self, core: &Core, rng: &mut Rng) {
        let length = rng.below(self.blocks.len() + 1);
        core.truncate(length as u64, None).unwrap();
        self.blocks.truncate(length);
        self.fork += 1;
    }

    fn clear(&mut self, core: &Core, rng: &mut Rng) {
        let start = rng.below(self.blocks.len() + 1);
        let end = start + rng.below(20);
        core.clear(start as u64..end as u64).unwrap();
        let cleared = self.blocks.iter_mut().take(end).skip(start);
        cleared.for_each(|block| block.is_here = false);
    }

    fn set_user_data(&mut self, core: &Core, rng: &mut Rng) {
        let key = rng.below(3).to_string();
        let len = [0, 1, 100, 5_000][rng.below(4)];
        let value = rng.bytes(len);
        core.set_user_data(&key, Some(&value)).unwrap();
        match value.is_empty() {
            true => self.user_data.remove(&key),
            false => self.user_data.insert(key, value),
        };
    }

    fn check(&self, core: &Core, rng: &mut Rng) {
        assert_eq!(core.length(), self.blocks.len() as u64);
        assert_eq!(core.fork(), self.fork);
        let missing = self.blocks.iter().position(|block| !block.is_here);
        let contiguous_length = missing.unwrap_or(self.blocks.len()) as u64;
        assert_eq!(core.contiguous_length(), contiguous_length);
        for (block, index) in self.blocks.iter().zip(0..) {
            let expected = block.is_here.then(|| block.bytes.clone());
            assert_eq!(core.get_local(index).unwrap(), expected);
        }
        for key in ["0", "1", "2"] {
            assert_eq!(core.user_data(key).as_ref(), self.user_data.get(key));
        }
        self.check_seek(core, rng);
    }

    /// Any byte lies in the block in which the sizes before it put it.
    fn check_seek(&self, core: &Core, rng: &mut Rng) {
        let sizes = self.blocks.iter().map(|block| block.bytes.len());
        let byte_length: usize = sizes.clone().sum();
        assert_eq!(core.byte_length(), byte_length as u64);
        if byte_length == 0 {
            return;
        }
        let byte = rng.below(byte_length);
        let (mut start, mut expected) = (0, 0);
        for (size, index) in sizes.zip(0..) {
            if byte < start + size {
                expected = index;
                break;
            }
            start += size;
        }
        let found = core.seek_local(byte as u64).unwrap();
        if byte > start {
            assert_eq!(found, Some((expected, (byte - start) as u64)));
        }
    }
}
