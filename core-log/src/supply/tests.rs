//! Sharing wants among suppliers.

use std::time::Duration;

use proptest::prelude::*;

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

fn claim(
    hub: &SupplyHub,
    id: SupplierId,
    local: &Bitfield,
    length: u64,
    remote: &dyn Availability,
    max: usize,
) -> Vec<Claim> {
    hub.claim(id, local, length, remote, max, true).taken
}

fn indexes(claims: &[Claim]) -> Vec<u64> {
    claims.iter().map(|claim| claim.index).collect()
}

/// Goal: two suppliers share a range without overlap, and a released block is offered again.
#[test]
fn a_range_is_shared_and_released() {
    let (hub, ids) = hub_with_suppliers(2);
    let local = Bitfield::new();
    hub.want_range(0..6, Purpose::Reading);
    let first = claim(&hub, ids[0], &local, 6, &All, 3);
    let second = claim(&hub, ids[1], &local, 6, &All, 10);
    assert_eq!(indexes(&first), [0, 1, 2]);
    assert_eq!(indexes(&second), [3, 4, 5]);
    assert!(claim(&hub, ids[0], &local, 6, &All, 10).is_empty());
    hub.release(ids[1], 4);
    assert_eq!(indexes(&claim(&hub, ids[0], &local, 6, &All, 10)), [4]);
}

#[test]
fn a_detached_supplier_leaves_its_claims_to_others() {
    let (hub, ids) = hub_with_suppliers(2);
    let local = Bitfield::new();
    hub.want_range(0..3, Purpose::Reading);
    claim(&hub, ids[0], &local, 3, &All, 3);
    assert!(claim(&hub, ids[1], &local, 3, &All, 3).is_empty());
    hub.detach(ids[0]);
    assert_eq!(indexes(&claim(&hub, ids[1], &local, 3, &All, 3)), [0, 1, 2]);
}

/// Goal: a paused supplier is woken, but neither waited for nor counted, and its claims are
/// free.
#[test]
fn nobody_waits_for_a_paused_supplier() {
    let (hub, ids) = hub_with_suppliers(2);
    let local = Bitfield::new();
    hub.want_range(0..3, Purpose::Reading);
    claim(&hub, ids[0], &local, 3, &All, 3);
    hub.settle(ids[1], 3);
    hub.pause(ids[0]);
    assert_eq!((hub.suppliers(), hub.settled(3, None)), (1, Settled::Done));
    assert!(claim(&hub, ids[0], &local, 3, &All, 3).is_empty());
    assert_eq!(indexes(&claim(&hub, ids[1], &local, 3, &All, 3)), [0, 1, 2]);
    hub.pause(ids[1]);
    assert!(hub.is_hopeless());
    hub.resume(ids[0]);
    assert_eq!(
        (hub.suppliers(), hub.settled(3, None)),
        (1, Settled::Pending)
    );
    assert!(!hub.is_hopeless());
}

#[test]
fn only_the_claimant_gives_a_claim_back() {
    let (hub, ids) = hub_with_suppliers(2);
    let local = Bitfield::new();
    hub.want_range(0..1, Purpose::Reading);
    claim(&hub, ids[0], &local, 1, &All, 1);
    hub.release(ids[1], 0);
    assert!(claim(&hub, ids[1], &local, 1, &All, 1).is_empty());
    hub.release(ids[0], 0);
    assert_eq!(indexes(&claim(&hub, ids[1], &local, 1, &All, 1)), [0]);
}

/// Goal: after a cut both what had arrived and what was claimed behind it is wanted anew.
#[test]
fn blocks_behind_a_cut_are_wanted_again() {
    let (hub, ids) = hub_with_suppliers(2);
    let mut local = Bitfield::new();
    let want = hub.want_range(2..6, Purpose::Reading);
    local.set_range(0..5, true);
    assert_eq!(hub.missing_from(want, &local), Some(5));
    assert_eq!(indexes(&claim(&hub, ids[0], &local, 6, &All, 9)), [5]);
    local.truncate(3);
    hub.truncated(3);
    assert_eq!(hub.missing_from(want, &local), Some(3));
    assert_eq!(indexes(&claim(&hub, ids[1], &local, 6, &All, 9)), [3, 4, 5]);
}

/// Goal: a late block is tried by one more supplier, after all that nobody is getting, and by another when that one is late, too,
/// or gives it back: by no more than a few, or a few more if somebody waits for it.
#[test]
fn a_late_block_is_contested_by_one_more_at_a_time() {
    let (hub, ids) = hub_with_suppliers(10);
    let local = Bitfield::new();
    let take = |id: usize| indexes(&claim(&hub, ids[id], &local, 3, &All, 9));
    hub.want_range(0..3, Purpose::Reading);
    assert_eq!(indexes(&claim(&hub, ids[0], &local, 3, &All, 1)), [0]);
    hub.late(ids[1], 0); // not its claim
    assert_eq!(indexes(&claim(&hub, ids[1], &local, 3, &All, 1)), [1]);
    hub.late(ids[0], 0);
    let claims = claim(&hub, ids[1], &local, 3, &All, 9);
    assert_eq!(indexes(&claims), [2, 0]);
    assert!(!claims[0].contested && claims[1].contested);
    hub.late(ids[0], 0);
    assert!(take(2).is_empty(), "the rival is at it");
    hub.release(ids[0], 0);
    assert!(take(2).is_empty(), "it still is");
    hub.late(ids[1], 0);
    assert_eq!(take(2), [0]);
    assert!(take(3).is_empty(), "the second rival is at it");
    hub.release(ids[2], 0);
    assert_eq!(take(3), [0], "only one who is late was left");
    hub.late(ids[3], 0);
    assert_eq!(take(0), [0]);
    hub.late(ids[0], 0);
    assert!(take(4).is_empty(), "three are late");
    assert!(hub.lock().late.is_empty(), "nobody looks at it any more");
    hub.release(ids[3], 0);
    assert_eq!(take(3), [0], "one of them gave it back");
    hub.late(ids[3], 0);
    hub.want_block(0);
    for id in [4, 5, 6, 7, 8] {
        assert_eq!(take(id), [0]);
        hub.late(ids[id], 0);
    }
    assert!(take(9).is_empty(), "eight are late");
    assert!(hub.lock().late.is_empty());
    hub.discount(ids[9], 0); // not its claim
    assert!(take(9).is_empty());
    hub.discount(ids[4], 0);
    hub.discount(ids[4], 0);
    assert_eq!(take(9), [0], "one of them does not count");
    hub.late(ids[9], 0);
    assert!(take(2).is_empty(), "eight others are late");
    hub.release(ids[9], 0);
    for id in [1, 3, 4, 5, 6, 7, 8] {
        hub.release(ids[id], 0);
    }
    hub.release(ids[0], 0);
    assert_eq!(take(9), [0]);
}

/// Goal: whom a block was asked of in vain is forgotten with the supplier, with the last who wants it, and when it is here.
#[test]
fn failures_are_forgotten_when_they_say_nothing_any_more() {
    let (hub, ids) = hub_with_suppliers(2);
    let local = Bitfield::new();
    let known = || hub.claimed()[3];
    let want = hub.want_range(0..3, Purpose::Reading);
    assert_eq!(indexes(&claim(&hub, ids[0], &local, 3, &All, 9)), [0, 1, 2]);
    for index in 0..3 {
        hub.fail(ids[1], index); // not its claim
        hub.fail(ids[0], index);
    }
    assert_eq!(known(), 3);
    hub.arrived(std::iter::once(0));
    hub.truncated(2);
    assert_eq!(known(), 1);
    hub.unwant_range(want);
    assert_eq!(known(), 0, "nobody wants it");
    let want = hub.want_range(0..3, Purpose::Reading);
    claim(&hub, ids[0], &local, 3, &All, 9);
    hub.unwant_range(want);
    hub.fail(ids[0], 0);
    assert_eq!(known(), 0, "nobody wanted it any more");
    hub.want_range(0..3, Purpose::Reading);
    claim(&hub, ids[0], &local, 3, &All, 9);
    hub.fail(ids[0], 0);
    assert_eq!(known(), 1);
    hub.detach(ids[0]);
    assert_eq!(hub.claimed(), [0; 4]);
}

/// What late blocks are tried by, kept in the obvious way.
#[derive(Default)]
struct Model {
    /// Who is getting each block, in the order they came, and whether the last is late.
    claims: HashMap<u64, (Vec<usize>, bool)>,
    discounted: BTreeSet<(usize, u64)>,
    failed: BTreeSet<(usize, u64)>,
    waited_for: BTreeSet<u64>,
}

impl Model {
    /// Those that one more may try.
    fn late(&self) -> BTreeSet<u64> {
        let may_try = |index: &u64| {
            let (suppliers, is_late) = &self.claims[index];
            let max = if self.waited_for.contains(index) {
                8
            } else {
                3
            };
            let counts = |id: &&usize| !self.discounted.contains(&(**id, *index));
            *is_late && suppliers.iter().filter(counts).count() < max
        };
        self.claims.keys().copied().filter(may_try).collect()
    }

    /// What a supplier that has all takes on.
    fn claim(&mut self, id: usize, length: u64) -> BTreeSet<u64> {
        let open = (0..length).filter(|index| !self.claims.contains_key(index));
        let open: Vec<u64> = open.collect();
        let late = self.late().into_iter();
        let late: Vec<u64> = late
            .filter(|index| !self.claims[index].0.contains(&id))
            .collect();
        let taken = open.into_iter().chain(late);
        taken
            .inspect(|index| {
                let (suppliers, is_late) = self.claims.entry(*index).or_default();
                suppliers.push(id);
                let has_failed = self.failed.contains(&(id, *index));
                *is_late = has_failed;
                if has_failed {
                    self.discounted.insert((id, *index));
                }
            })
            .collect()
    }

    fn late_by(&mut self, id: usize, index: u64) {
        if let Some((suppliers, is_late)) = self.claims.get_mut(&index) {
            *is_late |= suppliers.last() == Some(&id);
        }
    }

    fn give_back(&mut self, id: usize, index: u64) {
        if let Some((suppliers, is_late)) = self.claims.get_mut(&index) {
            *is_late |= suppliers.last() == Some(&id);
            suppliers.retain(|supplier| *supplier != id);
            self.discounted.remove(&(id, index));
            if suppliers.is_empty() {
                self.claims.remove(&index);
            }
        }
    }
}

proptest! {
    /// Goal: who may try a late block is what the obvious bookkeeping says, and no more is walked over, whatever suppliers do and
    /// whoever waits.
    #[test]
    fn late_blocks_are_kept_as_the_obvious_way_does(
        steps in proptest::collection::vec((0..14_u8, 0..10_usize, 0..4_u64), 0..200),
    ) {
        const LENGTH: u64 = 4;
        let (hub, ids) = hub_with_suppliers(10);
        let (local, mut model) = (Bitfield::new(), Model::default());
        hub.want_range(0..LENGTH, Purpose::Reading);
        for (what, id, index) in steps {
            match what {
                0 => {
                    hub.release(ids[id], index);
                    model.give_back(id, index);
                }
                1 => {
                    hub.pause(ids[id]);
                    hub.resume(ids[id]);
                    (0..LENGTH).for_each(|index| model.give_back(id, index));
                }
                2 if model.waited_for.insert(index) => hub.want_block(index),
                2 => {
                    model.waited_for.remove(&index);
                    hub.unwant_block(index);
                }
                3 => {
                    hub.arrived(std::iter::once(index));
                    hub.truncated(index); // so that it is missing again
                    model.claims.retain(|claimed, _| *claimed < index);
                    model.discounted.retain(|(_, claimed)| *claimed < index);
                    model.failed.retain(|(_, failed)| *failed < index);
                }
                4..=7 => {
                    let taken = claim(&hub, ids[id], &local, LENGTH, &All, 99);
                    let taken: BTreeSet<u64> = indexes(&taken).into_iter().collect();
                    prop_assert_eq!(taken, model.claim(id, LENGTH));
                }
                8 => {
                    hub.discount(ids[id], index);
                    let claim = model.claims.get(&index);
                    if claim.is_some_and(|(suppliers, _)| suppliers.contains(&id)) {
                        model.discounted.insert((id, index));
                    }
                }
                9 => {
                    hub.fail(ids[id], index);
                    let claim = model.claims.get(&index);
                    if claim.is_some_and(|(suppliers, _)| suppliers.contains(&id)) {
                        model.failed.insert((id, index));
                        model.give_back(id, index);
                    }
                }
                _ => {
                    let last = model.claims.get(&index).and_then(|(suppliers, _)| suppliers.last());
                    let id = last.copied().filter(|_| what > 10).unwrap_or(id);
                    hub.late(ids[id], index);
                    model.late_by(id, index);
                }
            }
            prop_assert_eq!(&hub.lock().late, &model.late());
        }
    }
}

/// Goal: a late block that somebody waits for goes before a range.
#[test]
fn a_late_urgent_block_is_contested_first() {
    let (hub, ids) = hub_with_suppliers(2);
    let local = Bitfield::new();
    hub.want_block(7);
    claim(&hub, ids[0], &local, 9, &All, 9);
    hub.late(ids[0], 7);
    hub.want_range(0..9, Purpose::Reading);
    assert_eq!(indexes(&claim(&hub, ids[1], &local, 9, &All, 2)), [7, 0]);
    hub.detach(ids[0]);
    hub.detach(ids[1]);
    assert!(hub.lock().claims.is_empty() && hub.lock().late.is_empty());
}

#[test]
fn waited_for_blocks_come_first_and_only_below_the_length() {
    let (hub, ids) = hub_with_suppliers(1);
    let local = Bitfield::new();
    hub.want_range(0..10, Purpose::Reading);
    hub.want_block(5);
    hub.want_block(12);
    let claims = claim(&hub, ids[0], &local, 10, &All, 2);
    assert_eq!(indexes(&claims), [5, 0]);
    assert!(claims[0].urgent && !claims[1].urgent);
}

/// Goal: what a supplier gets later is found, though its search had passed it.
#[test]
fn later_availability_is_searched_again() {
    let (hub, ids) = hub_with_suppliers(1);
    let mut local = Bitfield::new();
    local.set(1);
    hub.want_range(0..8, Purpose::Reading);
    let claims = claim(&hub, ids[0], &local, 8, &Only(vec![1, 6]), 8);
    assert_eq!(indexes(&claims), [6]);
    hub.available(ids[0], 2);
    let claims = claim(&hub, ids[0], &local, 8, &Only(vec![1, 2, 6]), 8);
    assert_eq!(indexes(&claims), [2]);
}

#[test]
fn lengths_settle_once_everybody_has_spoken() {
    let (hub, ids) = hub_with_suppliers(2);
    hub.settle(ids[0], 4);
    assert_eq!(hub.settled(4, None), Settled::Pending);
    hub.settle(ids[1], 7);
    assert_eq!(hub.settled(4, None), Settled::Pending);
    assert_eq!(hub.settled(7, None), Settled::Done);
}

/// Goal: who is late is waited for while nobody else has shown a log, who is hopeless is not, whatever they say.
#[test]
fn lengths_settle_without_those_who_are_late() {
    let (hub, ids) = hub_with_suppliers(2);
    hub.set_tardiness(ids[0], Tardiness::Late);
    assert_eq!(
        hub.settled(4, None),
        Settled::Pending,
        "the other is silent, too"
    );
    hub.settle(ids[1], 0);
    assert_eq!(hub.settled(0, None), Settled::Pending, "that is no log");
    hub.settle(ids[1], 4);
    assert_eq!(hub.settled(4, None), Settled::Done);
    hub.settle(ids[0], 7);
    assert_eq!(
        hub.settled(4, None),
        Settled::Done,
        "saying more changes nothing"
    );
    hub.detach(ids[1]);
    assert_eq!(hub.settled(4, None), Settled::Pending, "now it is alone");
    hub.set_tardiness(ids[0], Tardiness::Hopeless);
    assert_eq!(hub.settled(4, None), Settled::Done);
    assert!(hub.is_without_log() && !hub.is_hopeless());
    hub.add_finder();
    assert_eq!(hub.settled(4, None), Settled::Pending, "others may come");
    hub.set_tardiness(ids[0], Tardiness::None);
    assert_eq!(hub.settled(7, None), Settled::Done);
}

fn outlook(millis: u64, room: usize) -> Option<Outlook> {
    let answer_in = Duration::from_millis(millis);
    Some(Outlook { answer_in, room })
}

/// Goal: a block that somebody waits for is left to a supplier that answers sooner, as long as it may have
/// it and is fit for more, and never to one that is about as fast.
#[test]
fn a_block_is_left_to_who_answers_sooner() {
    let (hub, ids) = hub_with_suppliers(2);
    let local = Bitfield::new();
    hub.expect(ids[0], outlook(90, 10));
    hub.expect(ids[1], outlook(20, 1));
    hub.want_block(3);
    hub.want_block(4);
    let claims = hub.claim(ids[0], &local, 9, &All, 9, true);
    assert_eq!(indexes(&claims.taken), [4], "the other is fit for one");
    assert_eq!(claims.left_for, Some(Duration::from_millis(70)));
    let claims = hub.claim(ids[0], &local, 9, &All, 9, false);
    assert_eq!(indexes(&claims.taken), [3], "it did not take it in time");

    hub.want_block(5);
    hub.expect(ids[1], outlook(50, 9));
    assert_eq!(indexes(&claim(&hub, ids[0], &local, 9, &All, 9)), [5]);
    hub.want_block(6);
    hub.expect(ids[1], None);
    let unknown = hub.claim(ids[1], &local, 9, &All, 9, true);
    assert_eq!(unknown.left_for, Some(Duration::from_millis(90)));
    assert_eq!(indexes(&claim(&hub, ids[0], &local, 9, &All, 9)), [6]);
    hub.want_block(7);
    hub.expect(ids[0], None);
    assert_eq!(indexes(&claim(&hub, ids[1], &local, 9, &All, 9)), [7]);
}

/// Goal: who lacks a block holds it up for nobody, and who gets it later is considered again.
#[test]
fn a_block_is_not_left_to_who_lacks_it() {
    let (hub, ids) = hub_with_suppliers(2);
    let local = Bitfield::new();
    hub.expect(ids[0], outlook(90, 10));
    hub.expect(ids[1], outlook(20, 10));
    hub.want_block(3);
    assert!(claim(&hub, ids[0], &local, 9, &All, 9).is_empty());
    assert!(claim(&hub, ids[1], &local, 9, &Only(vec![]), 9).is_empty());
    assert_eq!(indexes(&claim(&hub, ids[0], &local, 9, &All, 9)), [3]);
    hub.release(ids[0], 3);
    hub.available(ids[1], 2);
    assert!(claim(&hub, ids[0], &local, 9, &All, 9).is_empty());
    assert_eq!(indexes(&claim(&hub, ids[1], &local, 9, &All, 9)), [3]);
}

/// Goal: what somebody reads comes before what is kept, and what was paused not at all.
#[test]
fn reading_goes_before_keeping_and_a_paused_range_waits() {
    let (hub, ids) = hub_with_suppliers(1);
    let local = Bitfield::new();
    hub.want_range(0..4, Purpose::Keeping);
    let read = hub.want_range(6..9, Purpose::Reading);
    assert_eq!(indexes(&claim(&hub, ids[0], &local, 9, &All, 2)), [6, 7]);
    hub.set_paused(read, true);
    assert_eq!(indexes(&claim(&hub, ids[0], &local, 9, &All, 2)), [0, 1]);
    hub.set_paused(read, false);
    assert_eq!(indexes(&claim(&hub, ids[0], &local, 9, &All, 2)), [8, 2]);
}

/// Goal: of readers at different places each has its next blocks first, and rarity is nothing to them. Method: two readers, of
/// which the first could take everything, and a block near its end that nobody else has.
#[test]
fn readers_at_different_places_are_served_side_by_side_and_in_order() {
    let (hub, ids) = hub_with_suppliers(2);
    let local = Bitfield::new();
    hub.share(ids[1], Arc::new(Only((0..90).collect())));
    hub.want_range(0..100, Purpose::Reading);
    hub.want_range(50..60, Purpose::Reading);
    let first = indexes(&claim(&hub, ids[0], &local, 100, &All, 6));
    assert_eq!(first, [0, 1, 2, 50, 51, 52]);
    // What one leaves of its share goes to the other.
    let rest = indexes(&claim(&hub, ids[0], &local, 100, &All, 40));
    let expected = (3..23).chain(53..60).chain(23..36).collect::<Vec<u64>>();
    assert_eq!(rest, expected);
}

/// Goal: a full copy begins with the blocks that the fewest have; where all have all, it goes in order.
#[test]
fn the_rarest_blocks_are_kept_first() {
    let (hub, ids) = hub_with_suppliers(3);
    let local = Bitfield::new();
    hub.share(ids[1], Arc::new(Only((0..90).collect())));
    hub.share(ids[2], Arc::new(Only((0..50).chain(95..100).collect())));
    hub.want_range(0..100, Purpose::Keeping);
    let first = indexes(&claim(&hub, ids[0], &local, 100, &All, 12));
    assert_eq!(first, [90, 91, 92, 93, 94, 50, 51, 52, 53, 54, 55, 56]);
    let rest = indexes(&claim(&hub, ids[0], &local, 100, &All, 1000));
    assert_eq!(rest.len(), 88, "and nothing is forgotten");

    let (hub, ids) = hub_with_suppliers(2);
    hub.share(ids[1], Arc::new(All));
    hub.want_range(0..100, Purpose::Keeping);
    assert_eq!(
        indexes(&claim(&hub, ids[0], &local, 100, &All, 3)),
        [0, 1, 2]
    );
}

/// Goal: in a range too long to look at as a whole, rare blocks still come early, and each block is
/// claimed once.
#[test]
fn a_long_range_is_sampled_for_rare_blocks() {
    const LENGTH: u64 = 100_000;
    let (hub, ids) = hub_with_suppliers(2);
    let local = Bitfield::new();
    // The other lacks the second half.
    hub.share(ids[1], Arc::new(Only((0..100).collect())));
    hub.want_range(0..LENGTH, Purpose::Keeping);
    let mut seen = BTreeSet::new();
    let first = indexes(&claim(&hub, ids[0], &local, LENGTH, &All, 256));
    assert!(first.iter().all(|index| *index >= 100), "{first:?}");
    seen.extend(first);
    loop {
        let more = indexes(&claim(&hub, ids[0], &local, LENGTH, &All, 4096));
        if more.is_empty() {
            break;
        }
        assert!(more.iter().all(|index| seen.insert(*index)));
    }
    assert_eq!(seen.len() as u64, LENGTH);
}

/// Goal: whoever is getting a block hears once nobody wants it, and not while anybody does.
#[test]
fn a_block_that_nobody_wants_any_more_is_told_to_who_is_getting_it() {
    let (hub, ids) = hub_with_suppliers(3);
    let local = Bitfield::new();
    let range = hub.want_range(2..6, Purpose::Reading);
    hub.want_block(4);
    hub.want_block(7);
    assert_eq!(
        indexes(&claim(&hub, ids[0], &local, 9, &All, 4)),
        [4, 7, 2, 3]
    );
    hub.late(ids[0], 3);
    assert_eq!(indexes(&claim(&hub, ids[1], &local, 9, &All, 2)), [5, 3]);
    hub.unwant_block(7);
    assert_eq!(hub.unwanted(ids[0]), [7]);
    hub.want_block(7);
    assert!(hub.unwanted(ids[0]).is_empty(), "it is wanted again");
    hub.unwant_range(range);
    assert_eq!(hub.unwanted(ids[0]), [2, 3], "one is read all the same");
    assert_eq!(hub.unwanted(ids[1]), [3, 5]);
    assert!(hub.unwanted(ids[2]).is_empty());
    hub.release(ids[0], 3);
    assert_eq!(hub.unwanted(ids[1]), [3, 5], "each gives its own back");
    hub.release(ids[1], 3);
    hub.arrived([2, 5].into_iter());
    assert!(hub.unwanted(ids[0]).is_empty() && hub.unwanted(ids[1]).is_empty());
    hub.unwant_block(4);
    hub.truncated(4);
    assert!(hub.lock().abandoned.is_empty());
}

/// Goal: a paused range is wanted; and one without end costs no more than what is being got.
#[test]
fn a_range_without_end_is_given_up_at_once() {
    let (hub, ids) = hub_with_suppliers(1);
    let local = Bitfield::new();
    let all = hub.want_range(0..u64::MAX, Purpose::Keeping);
    claim(&hub, ids[0], &local, 9, &All, 2);
    hub.set_paused(all, true);
    assert!(hub.unwanted(ids[0]).is_empty());
    hub.unwant_range(all);
    assert_eq!(hub.unwanted(ids[0]).len(), 2);
    hub.detach(ids[0]);
    assert!(hub.lock().abandoned.is_empty());
}

/// Goal: what many suppliers have claimed of a range is not walked over by each of them.
#[test]
fn each_block_is_looked_at_a_few_times_however_many_suppliers_there_are() {
    const LENGTH: u64 = 64 * 100;
    #[derive(Default)]
    struct Looks(std::cell::Cell<u64>);
    impl Availability for Looks {
        fn next_available(&self, range: Range<u64>) -> Option<u64> {
            self.0.set(self.0.get() + 1);
            All.next_available(range)
        }
    }
    let (hub, ids) = hub_with_suppliers(64);
    let (local, looks) = (Bitfield::new(), Looks::default());
    hub.want_range(0..LENGTH, Purpose::Reading);
    let mut claimed = BTreeSet::new();
    for id in ids.iter().cycle() {
        let claims = claim(&hub, *id, &local, LENGTH, &looks, 10);
        if claims.is_empty() {
            break;
        }
        claimed.extend(indexes(&claims));
    }
    assert_eq!(claimed.len() as u64, LENGTH);
    assert!(looks.0.get() < 2 * LENGTH, "{} looks", looks.0.get());
    // What is given back is found by whoever looks next, and nothing else is.
    let [first, second, ..] = ids[..] else {
        panic!("there are many");
    };
    hub.release(first, 3);
    looks.0.set(0);
    assert_eq!(
        indexes(&claim(&hub, second, &local, LENGTH, &looks, 1)),
        [3]
    );
    assert_eq!(looks.0.get(), 1);
    hub.release(second, 3);
    assert_eq!(indexes(&claim(&hub, first, &local, LENGTH, &looks, 1)), [3]);
}
