//! The obvious core: a list of blocks, some of them cleared; and what may be done to it.

use std::collections::BTreeMap;

use ferrocore_log::flat_tree;

use ferrocore_interop_tests::rng::Rng;

/// Which core it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The key is the public key.
    Compat,
    /// With a manifest of version 0, as Corestore 6 makes them when told.
    V0,
    /// With a manifest of version 1.
    V1,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Compat, Self::V0, Self::V1];
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Append(Vec<Vec<u8>>),
    Truncate(u64),
    Clear(u64, u64),
    UserData(&'static str, Vec<u8>),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    /// `None` once cleared.
    pub(crate) blocks: Vec<Option<Vec<u8>>>,
    sizes: Vec<usize>,
    pub(crate) fork: u64,
    pub(crate) user_data: BTreeMap<&'static str, Vec<u8>>,
}

/// A way in which the files of two histories differ, as `exceptions.json` names it.
pub(crate) type Difference = &'static str;

impl Model {
    /// Chooses a step and takes it.
    pub(crate) fn step(&mut self, rng: &mut Rng) -> Step {
        let length = self.blocks.len();
        match rng.index(10) {
            0..5 => self.append(rng),
            5 | 6 if length > 0 => {
                let to = match rng.one_in(2) {
                    true => length - 1 - rng.index(length.min(4)),
                    false => rng.index(length),
                };
                self.truncate(to)
            }
            7 | 8 if length > 0 => {
                let start = rng.index(length);
                let end = length.min(start + 1 + rng.index(9));
                if self.sizes[start..end].iter().all(|size| *size == 0) {
                    return self.append(rng); // what Node makes of it: see `calls` in exceptions.json
                }
                self.clear(start, end)
            }
            9 => {
                let key = *rng.pick(&["a", "b", "c"]);
                let len = *rng.pick(&[0, 1, 100, 5_000]);
                let value = rng.bytes(len);
                match value.is_empty() {
                    true => self.user_data.remove(key),
                    false => self.user_data.insert(key, value.clone()),
                };
                Step::UserData(key, value)
            }
            _ => self.append(rng),
        }
    }

    fn append(&mut self, rng: &mut Rng) -> Step {
        let count = match rng.index(20) {
            0 => 100 + rng.index(60),
            _ => 1 + rng.index(6),
        };
        let block = |rng: &mut Rng| {
            let len = match rng.index(16) {
                0 => 4_000 + rng.index(9_000),
                1 => 0,
                _ => rng.index(60),
            };
            rng.bytes(len)
        };
        let blocks: Vec<_> = (0..count).map(|_| block(rng)).collect();
        self.append_blocks(blocks)
    }

    pub(crate) fn append_blocks(&mut self, blocks: Vec<Vec<u8>>) -> Step {
        self.sizes.extend(blocks.iter().map(Vec::len));
        self.blocks.extend(blocks.iter().cloned().map(Some));
        Step::Append(blocks)
    }

    pub(crate) fn truncate(&mut self, length: usize) -> Step {
        self.blocks.truncate(length);
        self.sizes.truncate(length);
        self.fork += 1;
        Step::Truncate(length as u64)
    }

    pub(crate) fn clear(&mut self, start: usize, end: usize) -> Step {
        self.blocks[start..end].fill(None);
        Step::Clear(start as u64, end as u64)
    }

    pub(crate) fn length(&self) -> u64 {
        self.blocks.len() as u64
    }

    pub(crate) fn byte_length(&self) -> usize {
        self.sizes.iter().sum()
    }

    pub(crate) fn contiguous_length(&self) -> u64 {
        let missing = self.blocks.iter().position(Option::is_none);
        missing.unwrap_or(self.blocks.len()) as u64
    }

    /// How `ours` and `theirs`, the bytes of `file` after a flush, differ.
    pub(crate) fn differences(&self, file: &str, ours: &[u8], theirs: &[u8]) -> Vec<Difference> {
        let mut found = Vec::new();
        if ours == theirs {
            return found;
        }
        match file {
            "oplog" => found.push("oplog"),
            "header" => found.push("header"),
            "data" => self.differences_of_data(ours, theirs, &mut found),
            "tree" => self.differences_of_tree(ours, theirs, &mut found),
            _ => {
                assert_eq!(without_zeros(ours), without_zeros(theirs), "{file} differs");
                found.push(match ours.len() < theirs.len() {
                    true => "bitfield: theirs ends with zeros",
                    false => "bitfield: ours ends with zeros",
                });
            }
        }
        found
    }

    /// Nodes of the log are the same; of what was cut off we keep nothing.
    fn differences_of_tree(&self, ours: &[u8], theirs: &[u8], found: &mut Vec<Difference>) {
        const NODE_BYTES: usize = 40;
        let node = |tree: &[u8], index: usize| {
            let bytes = tree.iter().copied().skip(NODE_BYTES * index);
            let mut node: Vec<u8> = bytes.take(NODE_BYTES).collect();
            node.resize(NODE_BYTES, 0);
            node
        };
        let is_blank = |node: &[u8]| node.iter().all(|byte| *byte == 0);
        let nodes = ours.len().max(theirs.len()).div_ceil(NODE_BYTES);
        for index in 0..nodes {
            let (ours, theirs) = (node(ours, index), node(theirs, index));
            if flat_tree::end_block(index as u64) <= self.length() {
                assert_eq!(ours, theirs, "tree index {index}");
            } else {
                assert!(is_blank(&ours), "tree index {index} is past the end");
                if !is_blank(&theirs) {
                    found.push("tree: theirs keeps nodes past the end");
                }
            }
        }
        if without_zeros(ours) == without_zeros(theirs) {
            found.push(match ours.len() < theirs.len() {
                true => "tree: theirs ends with zeros",
                false => "tree: ours ends with zeros",
            });
        }
    }

    /// Blocks that are here have the same bytes; of what was cut off we keep nothing.
    fn differences_of_data(&self, ours: &[u8], theirs: &[u8], found: &mut Vec<Difference>) {
        let mut start = 0;
        for (block, size) in self.blocks.iter().zip(&self.sizes) {
            let here = |file: &[u8]| file.get(start..start + size).map(<[u8]>::to_vec);
            match block {
                Some(block) => {
                    assert_eq!(here(ours).as_ref(), Some(block));
                    assert_eq!(here(theirs).as_ref(), Some(block));
                }
                // Cleared blocks read as zeros, if the file goes so far.
                None => {
                    let (ours, theirs) = (here(ours), here(theirs));
                    let hole = |file: &Option<Vec<u8>>| {
                        without_zeros(file.as_deref().unwrap_or_default()).to_vec()
                    };
                    if hole(&ours) != hole(&theirs) {
                        found.push(match hole(&ours).is_empty() {
                            true => "data: theirs keeps cleared blocks",
                            false => "data: ours keeps cleared blocks",
                        });
                    }
                }
            }
            start += size;
        }
        assert_eq!(ours.len(), theirs.len().min(start), "where data ends");
        if theirs.len() > start {
            found.push("data: theirs keeps what was cut off");
        }
    }
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    &bytes[..end]
}
