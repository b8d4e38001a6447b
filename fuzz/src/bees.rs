//! Hyperbee: blocks that no bee's writer would make, signed all the same.
//!
//! Holds: every operation comes to an end; a range yields no more entries than there are blocks,
//! in order.

use bytes::Bytes;
use ferrocore_bee::{Bee, BeeError, Header, HistoryOptions, Options, RangeOptions};
use ferrocore_log::CoreOptions;
use pollster::block_on;

use crate::honest;

/// Most blocks that are looked at.
const BLOCKS_MAX: usize = 64;

/// Blocks: a byte with the length, then the block. A header goes before them unless the first
/// byte of the input is odd.
pub fn run(data: &[u8]) {
    let Some((first, mut rest)) = data.split_first() else {
        return;
    };
    let mut blocks = Vec::new();
    if first % 2 == 0 {
        blocks.push(Header::default().encode());
    }
    while let [len, behind @ ..] = rest {
        let (block, behind) = behind.split_at(behind.len().min(usize::from(*len)));
        blocks.push(Bytes::copy_from_slice(block));
        rest = behind;
        if blocks.len() == BLOCKS_MAX {
            break;
        }
    }
    if let Some(header) = blocks.first().and_then(Header::decode) {
        assert_eq!(Header::decode(&header.encode()), Some(header));
    }
    let core = honest::core_of(CoreOptions::default());
    core.append_batch(blocks).expect("the core is writable");
    exercise(&Bee::new(core, Options::default()));
}

fn exercise(bee: &Bee) {
    for version in [bee.version() / 2, bee.version()] {
        let then = bee.checkout(version);
        for reverse in [false, true] {
            let options = || RangeOptions {
                reverse,
                ..RangeOptions::default()
            };
            let _ = read_all(&then, options());
            let _ = read_all(
                &then,
                RangeOptions {
                    gte: Some(Bytes::from("k")),
                    lt: Some(Bytes::from("m")),
                    ..options()
                },
            );
        }
        for key in ["", "k", "k03"] {
            let _ = block_on(then.get(key));
        }
    }
    let mut history = bee.history(HistoryOptions::default());
    let mut changes = 0;
    while let Ok(Some(_)) = block_on(history.next()) {
        changes += 1;
        assert!(changes <= bee.core().length(), "a change has a block");
    }
    for key in ["", "k", "\u{1}"] {
        let _ = block_on(bee.del(key));
        // A damaged block beside the way may still be met by either.
        if let (Ok(true), Ok(found)) = (block_on(bee.put(key, "v")), block_on(bee.get(key))) {
            assert_eq!(found.and_then(|entry| entry.value), Some("v".into()));
        }
    }
}

fn read_all(bee: &Bee, options: RangeOptions) -> Result<u64, BeeError> {
    let reverse = options.reverse;
    let mut range = bee.range(options);
    let (mut entries, mut last) = (0, None);
    while let Some(entry) = block_on(range.next())? {
        entries += 1;
        assert!(entries < bee.core().length().max(1), "an entry has a block");
        if let Some(last) = last.replace(entry.key.clone()) {
            assert!(if reverse {
                entry.key < last
            } else {
                last < entry.key
            });
        }
    }
    Ok(entries)
}

/// Blocks of a real bee, in several arrangements.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let core = honest::core_of(CoreOptions::default());
    let bee = Bee::new(core, Options::default());
    let mut batch = bee.batch();
    for key in 0..20 {
        block_on(batch.put(format!("k{key:02}"), "v")).expect("the core is writable");
    }
    block_on(batch.flush()).expect("the core is writable");
    block_on(bee.del("k03")).expect("the core is writable");
    let blocks: Vec<_> = (0..bee.core().length())
        .filter_map(|seq| bee.core().get_local(seq).ok()?)
        .collect();
    let join = |first: u8, blocks: &[Bytes]| {
        let mut seed = vec![first];
        for block in blocks {
            let block = &block[..block.len().min(255)];
            seed.push(block.len() as u8);
            seed.extend_from_slice(block);
        }
        seed
    };
    vec![
        join(1, &blocks),
        join(0, &blocks[1..4]),
        join(0, &blocks[20..]),
    ]
}
