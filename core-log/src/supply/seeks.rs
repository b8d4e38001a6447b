//! Bytes whose block is sought: who is asked, and who could not tell.
//!
//! A reader that lacks the tree nodes around a byte asks a supplier for just those, instead of fetching
//! blocks until their paths show where the byte is.

use std::collections::{BTreeMap, HashSet};

use super::SupplierId;
use crate::few::Few;

/// Names one sought byte of one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeekId(pub(super) u64);

/// A byte whose block a supplier has taken on to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeekClaim {
    /// Names it.
    pub id: SeekId,
    /// The byte, from the start of the log, padding not counted.
    pub byte: u64,
    /// Bytes of each block that do not count.
    pub padding: u64,
    /// The tree node that the asker holds and the byte lies below.
    pub below: u64,
    /// The block that holds the byte if all blocks are of one size.
    pub guess: u64,
}

/// What may be expected of a seek.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SeekOutlook {
    /// Somebody is asked or will be.
    Pending,
    /// There is more in the tree than before.
    Answered,
    /// Nobody is left to ask.
    Hopeless,
}

/// The sought bytes of one core.
#[derive(Debug, Default)]
pub(super) struct SeekWants {
    wants: BTreeMap<SeekId, Want>,
    /// Those who can be asked.
    suppliers: Few<SupplierId, ()>,
}

#[derive(Debug)]
struct Want {
    claim: SeekClaim,
    claimant: Option<SupplierId>,
    refused_by: HashSet<SupplierId>,
    /// Those who are finding out whether they can be asked.
    unsure: HashSet<SupplierId>,
    is_answered: bool,
}

impl SeekWants {
    pub(super) fn add_supplier(&mut self, id: SupplierId) {
        self.suppliers.insert(id, ());
    }

    pub(super) fn insert(&mut self, claim: SeekClaim) {
        let want = Want {
            claim,
            claimant: None,
            refused_by: HashSet::new(),
            unsure: HashSet::new(),
            is_answered: false,
        };
        self.wants.insert(claim.id, want);
    }

    pub(super) fn remove(&mut self, id: SeekId) {
        self.wants.remove(&id);
    }

    /// The first byte that nobody is looking for, if `supplier` may be asked for it.
    pub(super) fn claim(&mut self, supplier: SupplierId) -> Option<SeekClaim> {
        let mut open = self
            .wants
            .values_mut()
            .filter(|want| want.claimant.is_none());
        let want = open.find(|want| !want.is_answered && want.is_open_to(supplier))?;
        want.claimant = Some(supplier);
        Some(want.claim)
    }

    pub(super) fn refuse(&mut self, supplier: SupplierId, id: SeekId) {
        if let Some(want) = self.wants.get_mut(&id) {
            want.unsure.remove(&supplier);
            want.refused_by.insert(supplier);
            want.release(supplier);
        }
    }

    /// `supplier` does not know whether it can tell: until it does, others may be asked.
    pub(super) fn postpone(&mut self, supplier: SupplierId, id: SeekId) {
        if let Some(want) = self.wants.get_mut(&id) {
            want.unsure.insert(supplier);
            want.release(supplier);
        }
    }

    /// `supplier` may be asked after all.
    pub(super) fn reconsider(&mut self, supplier: SupplierId, id: SeekId) {
        if let Some(want) = self.wants.get_mut(&id) {
            want.unsure.remove(&supplier);
        }
    }

    /// Whether somebody still waits for an answer.
    pub(super) fn is_open(&self, id: SeekId) -> bool {
        self.wants.get(&id).is_some_and(|want| !want.is_answered)
    }

    pub(super) fn answer(&mut self, id: SeekId) {
        if let Some(want) = self.wants.get_mut(&id) {
            want.is_answered = true;
        }
    }

    pub(super) fn answer_all(&mut self) {
        self.wants
            .values_mut()
            .for_each(|want| want.is_answered = true);
    }

    /// What `supplier` is looking for, others may look for.
    pub(super) fn free_claims(&mut self, supplier: SupplierId) {
        self.wants
            .values_mut()
            .for_each(|want| want.release(supplier));
    }

    /// `supplier` is gone.
    pub(super) fn forget(&mut self, supplier: SupplierId) {
        self.suppliers.remove(&supplier);
        for want in self.wants.values_mut() {
            want.refused_by.remove(&supplier);
            want.unsure.remove(&supplier);
        }
    }

    pub(super) fn outlook(
        &self,
        id: SeekId,
        is_active: impl Fn(SupplierId) -> bool,
    ) -> SeekOutlook {
        let Some(want) = self.wants.get(&id).filter(|want| !want.is_answered) else {
            return SeekOutlook::Answered;
        };
        let may_answer = |id: &SupplierId| is_active(*id) && !want.refused_by.contains(id);
        if want.claimant.is_some() || self.suppliers.iter().any(|(id, ())| may_answer(id)) {
            SeekOutlook::Pending
        } else {
            SeekOutlook::Hopeless
        }
    }
}

impl Want {
    fn is_open_to(&self, supplier: SupplierId) -> bool {
        !self.refused_by.contains(&supplier) && !self.unsure.contains(&supplier)
    }

    fn release(&mut self, supplier: SupplierId) {
        if self.claimant == Some(supplier) {
            self.claimant = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTE: SeekClaim = SeekClaim {
        id: SeekId(9),
        byte: 100,
        padding: 0,
        below: 7,
        guess: 2,
    };

    #[test]
    fn suppliers_are_asked_one_after_the_other() {
        let [one, two] = [SupplierId(1), SupplierId(2)];
        let mut seeks = SeekWants::default();
        seeks.add_supplier(one);
        seeks.add_supplier(two);
        seeks.insert(BYTE);
        assert_eq!(seeks.claim(one), Some(BYTE));
        assert_eq!(seeks.claim(two), None);
        seeks.refuse(one, BYTE.id);
        assert_eq!(seeks.outlook(BYTE.id, |_| true), SeekOutlook::Pending);
        assert_eq!(seeks.claim(one), None, "it could not tell");
        assert_eq!(seeks.claim(two), Some(BYTE));
        seeks.free_claims(two);
        assert_eq!(
            seeks.outlook(BYTE.id, |id| id == one),
            SeekOutlook::Hopeless
        );
        assert_eq!(seeks.claim(two), Some(BYTE));
        seeks.answer(BYTE.id);
        assert_eq!(seeks.outlook(BYTE.id, |_| true), SeekOutlook::Answered);
    }

    #[test]
    fn who_is_not_sure_is_waited_for_and_others_are_asked_meanwhile() {
        let [one, two] = [SupplierId(1), SupplierId(2)];
        let mut seeks = SeekWants::default();
        seeks.add_supplier(one);
        seeks.insert(BYTE);
        assert_eq!(seeks.claim(one), Some(BYTE));
        seeks.postpone(one, BYTE.id);
        assert_eq!(seeks.claim(one), None);
        assert_eq!(seeks.outlook(BYTE.id, |_| true), SeekOutlook::Pending);
        assert_eq!(seeks.claim(two), Some(BYTE), "it need not wait");
        seeks.free_claims(two);
        seeks.reconsider(one, BYTE.id);
        assert_eq!(seeks.claim(one), Some(BYTE));
        seeks.postpone(one, BYTE.id);
        seeks.refuse(one, BYTE.id);
        assert_eq!(seeks.outlook(BYTE.id, |_| true), SeekOutlook::Hopeless);
        assert!(seeks.is_open(BYTE.id));
        seeks.answer(BYTE.id);
        assert!(!seeks.is_open(BYTE.id));
    }
}
