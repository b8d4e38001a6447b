//! More cores than a connection takes.

use ferrocore_log::{Core, Corestore};
use ferrocore_primitives::keys::Key;
use ferrocore_replication::limits::{CHANNELS_MAX, OFFERED_MAX, UNPROVEN_OFFERS_MAX};

use crate::common::Pair;

/// Goal: two that have more cores open than fit on a connection keep it, in common or not, and replicate some that they have.
/// Method: one offers as many as it may, of which the other has none; then both offer the same; then each others, of
/// which the other side has all.
#[test]
fn more_cores_than_fit_do_not_cost_the_connection() {
    let (here, there) = (Corestore::memory(), Corestore::memory());
    let open = |store: &Corestore, ours: u8, number: usize| {
        let mut key = [ours; 32];
        key[..8].copy_from_slice(&(number as u64).to_le_bytes());
        store.get(&Key::from(key)).unwrap()
    };
    let mut pair = Pair::new(&here, &there);
    let surplus = 100;
    // Unknown to the other side: it rejects them, and they are off the connection again.
    for number in 0..OFFERED_MAX + surplus {
        pair.a.connection.attach(&open(&here, 1, number));
    }
    assert_eq!(pair.a.connection.core_stats().len(), UNPROVEN_OFFERS_MAX);
    pair.drive();
    assert!(pair.a.connection.core_stats().is_empty());
    // Both offer the same ones.
    for number in 0..OFFERED_MAX + surplus {
        pair.a.connection.attach(&open(&here, 2, number));
        pair.b.connection.attach(&open(&there, 2, number));
    }
    pair.drive();
    for end in [&pair.a, &pair.b] {
        assert_eq!(end.connection.core_stats().len(), OFFERED_MAX);
    }
    // Each offers what the other has, but does not offer: more than fit, so that some are refused.
    let mut pair = Pair::new(&here, &there);
    for number in 0..OFFERED_MAX {
        open(&there, 4, number);
        open(&here, 3, number);
        pair.a.connection.attach(&open(&here, 4, number));
        pair.b.connection.attach(&open(&there, 3, number));
    }
    pair.drive();
    for end in [&pair.a, &pair.b] {
        let channels = end.connection.core_stats().len();
        assert!(
            (CHANNELS_MAX - OFFERED_MAX..=CHANNELS_MAX).contains(&channels),
            "{channels}"
        );
    }
}

/// Goal: what found no place is offered once there is one, whoever made it, and what was taken back meanwhile is not.
#[test]
fn cores_that_found_no_place_are_offered_later() {
    let (here, there) = (Corestore::memory(), Corestore::memory());
    let keys: Vec<Key> = (0..OFFERED_MAX as u64 + 6)
        .map(|number| {
            let mut key = [5; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            Key::from(key)
        })
        .collect();
    let cores: Vec<Core> = keys.iter().map(|key| here.get(key).unwrap()).collect();
    let _there: Vec<Core> = keys.iter().map(|key| there.get(key).unwrap()).collect();
    let mut pair = Pair::new(&here, &there);
    cores.iter().for_each(|core| pair.a.connection.attach(core));
    pair.drive();
    let on = |pair: &Pair, at: usize| {
        let id = cores[at].discovery_key();
        [&pair.a, &pair.b].map(|end| end.connection.has(&id))
    };
    assert!(on(&pair, 0) == [true; 2] && on(&pair, OFFERED_MAX) == [false; 2]);
    // The second of those that wait is taken back. Each side closes channels, and it is enough that it works once.
    pair.a
        .connection
        .detach(&cores[OFFERED_MAX + 1].discovery_key());
    pair.a.connection.detach(&cores[3].discovery_key());
    pair.drive();
    assert_eq!(on(&pair, OFFERED_MAX), [true; 2]);
    for core in &cores[4..8] {
        pair.b.connection.detach(&core.discovery_key());
    }
    pair.drive();
    let waited = (OFFERED_MAX..cores.len()).map(|at| on(&pair, at) == [true; 2]);
    assert_eq!(
        waited.collect::<Vec<_>>(),
        [true, false, true, true, true, true]
    );
    for end in [&pair.a, &pair.b] {
        assert_eq!(end.connection.core_stats().len(), OFFERED_MAX);
    }
}
