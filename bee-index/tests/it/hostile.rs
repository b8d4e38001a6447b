//! Blocks that no bee's writer would make, signed all the same: every operation must come to an
//! end, with an error or an answer, and never panic.

use bytes::Bytes;
use ferrocore_bee::{
    Bee, BeeError, Change, Header, HistoryOptions, Malformed, Options, RangeOptions,
};
use ferrocore_log::{Core, CoreError, Corestore, EncryptionKey};
use pollster::block_on;
use proptest::collection::vec;
use proptest::prelude::*;

/// Keys by block, and children by block and level.
type Level = (Vec<u8>, Vec<(u8, u8)>);

proptest! {
    /// Trees whose pointers lead anywhere nearby: back, forth, in circles, to the header.
    #[test]
    fn arbitrary_pointers_end(
        blocks in vec((vec(level(), 0..4), any::<[u8; 1]>()), 1..12),
    ) {
        let blocks = blocks.iter().map(|(levels, key)| block(levels, key)).collect();
        exercise(&bee_of(blocks));
    }

    /// Real blocks with some bytes changed.
    #[test]
    fn damaged_blocks_end(changes in vec(any::<(prop::sample::Index, prop::sample::Index, u8)>(), 1..20)) {
        let mut blocks = real_blocks();
        for (block, byte, value) in changes {
            let block = block.get_mut(&mut blocks);
            *byte.get_mut(block) = value;
        }
        exercise(&bee_of(blocks));
    }
}

#[test]
fn a_node_that_is_its_own_child_is_too_deep() {
    let bee = bee_of(vec![block(&[(vec![1], vec![(1, 0), (1, 0)])], b"k")]);
    for key in ["a", "z"] {
        assert_eq!(
            reason(block_on(bee.get(key)).unwrap_err()),
            Malformed::TooDeep
        );
        assert_eq!(
            reason(block_on(bee.put(key, "v")).unwrap_err()),
            Malformed::TooDeep
        );
    }
    assert_eq!(
        reason(block_on(bee.del("k")).unwrap_err()),
        Malformed::TooDeep
    );
    let mut range = bee.range(RangeOptions::default());
    assert_eq!(
        reason(block_on(range.next()).unwrap_err()),
        Malformed::TooDeep
    );
}

/// Both children of each node are the node before, so 60 blocks describe 2^60 entries.
#[test]
fn a_subtree_met_twice_is_out_of_order() {
    let mut blocks = vec![block(&[(vec![1], vec![])], b"k1")];
    for seq in 2..60 {
        let children = vec![(seq - 1, 0), (seq - 1, 0)];
        blocks.push(block(
            &[(vec![seq], children)],
            format!("k{seq}").as_bytes(),
        ));
    }
    let bee = bee_of(blocks);
    for reverse in [false, true] {
        let options = RangeOptions {
            reverse,
            ..RangeOptions::default()
        };
        assert_eq!(
            reason(read_all(&bee, options).unwrap_err()),
            Malformed::KeyOrder
        );
    }
}

/// A tree of many nodes and no keys would take as long without ever giving an entry.
#[test]
fn nodes_without_keys_are_refused() {
    let inner = block(&[(vec![1], vec![(1, 1), (1, 1)]), (vec![], vec![])], b"k");
    let error = read_all(&bee_of(vec![inner]), RangeOptions::default()).unwrap_err();
    assert_eq!(reason(error), Malformed::EmptyNode);
}

#[test]
fn pointers_out_of_the_version_are_refused() {
    for outside in [0, 2, 3] {
        let bee = bee_of(vec![
            block(&[(vec![outside], vec![])], b"k"),
            block(&[], b"x"),
        ]);
        let error = block_on(bee.checkout(2).get("k")).unwrap_err();
        assert_eq!(reason(error), Malformed::OutsideVersion);
    }
}

#[test]
fn a_version_without_a_tree_is_named() {
    let bee = bee_of(vec![block(&[], b"k"), block(&[(vec![2], vec![])], b"x")]);
    let error = block_on(bee.checkout(2).get("k")).unwrap_err();
    assert!(
        matches!(error, BeeError::WithinBatch { version: 2 }),
        "{error}"
    );
    assert!(block_on(bee.get("x")).unwrap().is_some());
}

#[test]
fn other_cores_are_no_bees() {
    let core = Corestore::memory().get_named("other").unwrap();
    core.append_batch(vec![Bytes::from("some"), Bytes::from("blocks")])
        .unwrap();
    let bee = Bee::new(core, Options::default());
    assert!(!block_on(Bee::is_bee(bee.core())).unwrap());
    assert!(matches!(block_on(bee.header()), Err(BeeError::NotABee)));
    assert!(matches!(
        block_on(bee.put("k", "v")),
        Err(BeeError::NotABee)
    ));
    assert!(matches!(block_on(bee.get("k")), Err(BeeError::NotABee)));
    assert_eq!(bee.core().length(), 2);
}

#[test]
fn a_bee_is_read_with_its_encryption_key_only() {
    let core = Corestore::memory().get_named("secret").unwrap();
    let key = EncryptionKey::from([1; 32]);
    let bee = Bee::new(core.with_encryption(&key), Options::default());
    block_on(bee.put("k", "v")).unwrap();
    assert!(block_on(bee.get("k")).unwrap().is_some());
    let wrong = core.with_encryption(&EncryptionKey::from([2; 32]));
    assert_refused(core, |error| matches!(error, BeeError::NotABee));
    assert_refused(wrong, |error| {
        matches!(error, BeeError::Core(CoreError::WrongKey { .. }))
    });
}

/// Neither reads nor writes of a bee in `core` do anything but fail in this way.
fn assert_refused(core: Core, is_it: impl Fn(BeeError) -> bool) {
    let bee = Bee::new(core, Options::default());
    assert!(is_it(block_on(bee.get("k")).unwrap_err()));
    assert!(is_it(read_all(&bee, RangeOptions::default()).unwrap_err()));
    assert!(is_it(block_on(bee.put("k", "w")).unwrap_err()));
}

/// Does everything there is to do. Each call may fail, none may go on for ever.
fn exercise(bee: &Bee) {
    for version in 0..=bee.version() {
        let then = bee.checkout(version);
        for reverse in [false, true] {
            let _ = read_all(
                &then,
                RangeOptions {
                    reverse,
                    ..RangeOptions::default()
                },
            );
            let gte = Some(Bytes::from("k"));
            let _ = read_all(
                &then,
                RangeOptions {
                    gte,
                    reverse,
                    ..RangeOptions::default()
                },
            );
        }
        for key in ["", "k", "k03"] {
            let _ = block_on(then.get(key));
        }
    }
    let mut history = bee.history(HistoryOptions::default());
    while let Ok(Some(Change::Put(_) | Change::Del { .. })) = block_on(history.next()) {}
    for key in ["", "k", "k03", "\u{1}"] {
        let _ = block_on(bee.del(key));
        let _ = block_on(bee.put(key, "v"));
    }
}

/// Reads to the end or the first error; no more entries than blocks can come.
fn read_all(bee: &Bee, options: RangeOptions) -> Result<u64, BeeError> {
    let mut range = bee.range(options);
    let mut entries = 0;
    while block_on(range.next())?.is_some() {
        entries += 1;
        assert!(entries < bee.core().length());
    }
    Ok(entries)
}

fn bee_of(blocks: Vec<impl Into<Bytes>>) -> Bee {
    let core = Corestore::memory().get_named("bee").unwrap();
    core.append(Header::default().encode()).unwrap();
    core.append_batch(blocks.into_iter().map(Into::into).collect())
        .unwrap();
    Bee::new(core, Options::default())
}

/// The blocks of a bee three levels high, without its header.
fn real_blocks() -> Vec<Vec<u8>> {
    let core = Corestore::memory().get_named("real").unwrap();
    let bee = Bee::new(core, Options::default());
    let mut batch = bee.batch();
    for key in 0..60 {
        block_on(batch.put(format!("k{key:02}"), "v")).unwrap();
    }
    block_on(batch.flush()).unwrap();
    block_on(bee.del("k30")).unwrap();
    block_on(bee.put("k61", "v")).unwrap();
    let core = bee.core();
    (1..core.length())
        .map(|seq| core.get_local(seq).unwrap().unwrap().to_vec())
        .collect()
}

fn reason(error: BeeError) -> Malformed {
    match error {
        BeeError::Corrupt { reason, .. } => reason,
        other => panic!("not a corrupt block: {other}"),
    }
}

fn level() -> impl Strategy<Value = Level> {
    let inner =
        (1..4usize).prop_flat_map(|keys| (vec(0..14u8, keys), vec((0..14u8, 0..4u8), keys + 1)));
    let leaf = vec(0..14u8, 0..9).prop_map(|keys| (keys, vec![]));
    let any = (vec(any::<u8>(), 0..12), vec(any::<(u8, u8)>(), 0..12));
    prop_oneof![4 => inner, 4 => leaf, 1 => any]
}

/// A block with these levels. All numbers are single bytes here.
fn block(levels: &[Level], key: &[u8]) -> Vec<u8> {
    let index = levels.iter().flat_map(|(keys, children)| {
        let keys: Vec<u8> = keys.iter().map(|seq| seq & 0x7f).collect();
        let children: Vec<u8> = children
            .iter()
            .flat_map(|(seq, at)| [seq & 0x7f, at & 0x7f])
            .collect();
        field(1, &[field(1, &keys), field(2, &children)].concat())
    });
    [field(1, &index.collect::<Vec<u8>>()), field(2, key)].concat()
}

fn field(number: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let len = payload.len();
    if len >= 0x80 {
        out.push(len as u8 | 0x80);
        out.push((len >> 7) as u8);
    } else {
        out.push(len as u8);
    }
    out.extend_from_slice(payload);
    out
}
