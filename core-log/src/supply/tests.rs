//! Sharing wants among suppliers.

use super::*;

struct Only(Vec<u64>);

impl Availability for Only {
    fn next_available(&self, range: Range<u64>) -> Option<u64> {
        self.0.iter().copied().find(|index| range.contains(index))
    }
}

fn hub_with_suppliers(count: usize) -> (SupplyHub, Vec<SupplierId>) {
    let hub = SupplyHub::default();
    let ids = (0..count).map(|_| hub.attach(Arc::new(|| {}))).collect();
    (hub, ids)
}

fn indexes(claims: &[Claim]) -> Vec<u64> {
    claims.iter().map(|claim| claim.index).collect()
}

/// Goal: two suppliers share a range without overlap, and a released block is offered again.
#[test]
fn a_range_is_shared_and_released() {
    let (hub, ids) = hub_with_suppliers(2);
    let local = Bitfield::new();
    hub.want_range(0..6);
    let first = hub.claim(ids[0], &local, 6, &All, 3);
    let second = hub.claim(ids[1], &local, 6, &All, 10);
    assert_eq!(indexes(&first), [0, 1, 2]);
    assert_eq!(indexes(&second), [3, 4, 5]);
    assert!(hub.claim(ids[0], &local, 6, &All, 10).is_empty());
    hub.release(ids[1], 4);
    assert_eq!(indexes(&hub.claim(ids[0], &local, 6, &All, 10)), [4]);
}

#[test]
fn a_detached_supplier_leaves_its_claims_to_others() {
    let (hub, ids) = hub_with_suppliers(2);
    let local = Bitfield::new();
    hub.want_range(0..3);
    hub.claim(ids[0], &local, 3, &All, 3);
    assert!(hub.claim(ids[1], &local, 3, &All, 3).is_empty());
    hub.detach(ids[0]);
    assert_eq!(indexes(&hub.claim(ids[1], &local, 3, &All, 3)), [0, 1, 2]);
}

/// Goal: a paused supplier is woken, but neither waited for nor counted, and its claims are
/// free.
#[test]
fn nobody_waits_for_a_paused_supplier() {
    let (hub, ids) = hub_with_suppliers(2);
    let local = Bitfield::new();
    hub.want_range(0..3);
    hub.claim(ids[0], &local, 3, &All, 3);
    hub.settle(ids[1], 3);
    hub.pause(ids[0]);
    assert_eq!((hub.suppliers(), hub.settled(3)), (1, Settled::Done));
    assert!(hub.claim(ids[0], &local, 3, &All, 3).is_empty());
    assert_eq!(indexes(&hub.claim(ids[1], &local, 3, &All, 3)), [0, 1, 2]);
    hub.pause(ids[1]);
    assert!(hub.is_hopeless());
    hub.resume(ids[0]);
    assert_eq!((hub.suppliers(), hub.settled(3)), (1, Settled::Pending));
    assert!(!hub.is_hopeless());
}

#[test]
fn only_the_claimant_gives_a_claim_back() {
    let (hub, ids) = hub_with_suppliers(2);
    let local = Bitfield::new();
    hub.want_range(0..1);
    hub.claim(ids[0], &local, 1, &All, 1);
    hub.release(ids[1], 0);
    assert!(hub.claim(ids[1], &local, 1, &All, 1).is_empty());
    hub.release(ids[0], 0);
    assert_eq!(indexes(&hub.claim(ids[1], &local, 1, &All, 1)), [0]);
}

/// Goal: after a cut both what had arrived and what was claimed behind it is wanted anew.
#[test]
fn blocks_behind_a_cut_are_wanted_again() {
    let (hub, ids) = hub_with_suppliers(2);
    let mut local = Bitfield::new();
    let want = hub.want_range(2..6);
    local.set_range(0..5, true);
    assert_eq!(hub.missing_from(want, &local), Some(5));
    assert_eq!(indexes(&hub.claim(ids[0], &local, 6, &All, 9)), [5]);
    local.truncate(3);
    hub.truncated(3);
    assert_eq!(hub.missing_from(want, &local), Some(3));
    assert_eq!(indexes(&hub.claim(ids[1], &local, 6, &All, 9)), [3, 4, 5]);
}

/// Goal: a late block is tried by one more supplier, after all that nobody is getting; it is
/// free only once both have given it back.
#[test]
fn a_late_block_is_contested_once() {
    let (hub, ids) = hub_with_suppliers(3);
    let local = Bitfield::new();
    hub.want_range(0..3);
    assert_eq!(indexes(&hub.claim(ids[0], &local, 3, &All, 1)), [0]);
    hub.late(ids[1], 0); // not its claim
    assert_eq!(indexes(&hub.claim(ids[1], &local, 3, &All, 1)), [1]);
    hub.late(ids[0], 0);
    let claims = hub.claim(ids[1], &local, 3, &All, 9);
    assert_eq!(indexes(&claims), [2, 0]);
    assert!(!claims[0].contested && claims[1].contested);
    hub.late(ids[0], 0);
    assert!(hub.claim(ids[2], &local, 3, &All, 9).is_empty());
    hub.release(ids[0], 0);
    assert!(
        hub.claim(ids[2], &local, 3, &All, 9).is_empty(),
        "the rival is at it"
    );
    hub.release(ids[1], 0);
    assert_eq!(indexes(&hub.claim(ids[2], &local, 3, &All, 9)), [0]);
}

/// Goal: a late block that somebody waits for goes before a range.
#[test]
fn a_late_urgent_block_is_contested_first() {
    let (hub, ids) = hub_with_suppliers(2);
    let local = Bitfield::new();
    hub.want_block(7);
    hub.claim(ids[0], &local, 9, &All, 9);
    hub.late(ids[0], 7);
    hub.want_range(0..9);
    assert_eq!(indexes(&hub.claim(ids[1], &local, 9, &All, 2)), [7, 0]);
    hub.detach(ids[0]);
    hub.detach(ids[1]);
    assert!(hub.lock().claims.is_empty() && hub.lock().late.is_empty());
}

#[test]
fn waited_for_blocks_come_first_and_only_below_the_length() {
    let (hub, ids) = hub_with_suppliers(1);
    let local = Bitfield::new();
    hub.want_range(0..10);
    hub.want_block(5);
    hub.want_block(12);
    let claims = hub.claim(ids[0], &local, 10, &All, 2);
    assert_eq!(indexes(&claims), [5, 0]);
    assert!(claims[0].urgent && !claims[1].urgent);
}

/// Goal: what a supplier gets later is found, though its search had passed it.
#[test]
fn later_availability_is_searched_again() {
    let (hub, ids) = hub_with_suppliers(1);
    let mut local = Bitfield::new();
    local.set(1);
    hub.want_range(0..8);
    let claims = hub.claim(ids[0], &local, 8, &Only(vec![1, 6]), 8);
    assert_eq!(indexes(&claims), [6]);
    hub.available(ids[0], 2);
    let claims = hub.claim(ids[0], &local, 8, &Only(vec![1, 2, 6]), 8);
    assert_eq!(indexes(&claims), [2]);
}

#[test]
fn lengths_settle_once_everybody_has_spoken() {
    let (hub, ids) = hub_with_suppliers(2);
    hub.settle(ids[0], 4);
    assert_eq!(hub.settled(4), Settled::Pending);
    hub.settle(ids[1], 7);
    assert_eq!(hub.settled(4), Settled::Pending);
    assert_eq!(hub.settled(7), Settled::Done);
}
