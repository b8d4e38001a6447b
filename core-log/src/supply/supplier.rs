//! Who can deliver, and what is known of it.

use std::ops::Range;
use std::sync::Arc;

use super::outlook::Outlook;
use super::ranges::Others;
use super::{SupplierId, Wake};
use crate::few::Few;

/// What a supplier can deliver.
pub trait Availability {
    /// The first block in `range` that it can deliver.
    fn next_available(&self, range: Range<u64>) -> Option<u64>;

    /// Whether it can deliver all of `range`.
    fn has_all(&self, mut range: Range<u64>) -> bool {
        range.all(|index| self.next_available(index..index + 1).is_some())
    }
}

/// What a supplier has, for others to look at.
pub type SharedAvailability = Arc<dyn Availability + Send + Sync>;

/// Everything can be delivered: a contiguous peer, a complete static store.
#[derive(Debug, Clone, Copy)]
pub struct All;

impl Availability for All {
    fn next_available(&self, range: Range<u64>) -> Option<u64> {
        (!range.is_empty()).then_some(range.start)
    }

    fn has_all(&self, _: Range<u64>) -> bool {
        true
    }
}

pub(super) struct Supplier {
    pub(super) wake: Wake,
    pub(super) standing: Standing,
    pub(super) tardiness: Tardiness,
    /// Whether it is woken for blocks that have come while others are missing.
    pub(super) heeds_blocks: bool,
    pub(super) outlook: Option<Outlook>,
    pub(super) has: Option<SharedAvailability>,
}

/// What may be expected of a supplier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has not said how long its log is.
    Silent,
    /// It can bring the log to this length.
    Reaches(u64),
    /// It can deliver nothing for now, so nobody waits for it.
    Paused,
}

/// How long a supplier has owed its length, or the log that it says to have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tardiness {
    /// Not long: [`Core::update`](crate::Core::update) waits for it.
    #[default]
    None,
    /// So long that it is waited for only while nobody else has shown a log.
    Late,
    /// So long that it is not waited for.
    Hopeless,
}

impl Supplier {
    pub(super) fn is_active(&self) -> bool {
        self.standing != Standing::Paused
    }

    /// Whether it may yet bring the log to more than `length`, or say that it cannot.
    pub(super) fn owes(&self, length: u64) -> bool {
        self.is_active() && self.remote_length().is_none_or(|l| l > length)
    }

    /// Whether anybody waits for what it owes.
    pub(super) fn is_counted_on(&self) -> bool {
        self.is_active() && self.tardiness != Tardiness::Hopeless
    }

    /// The length it has said to have, once it has said one.
    pub(super) fn remote_length(&self) -> Option<u64> {
        match self.standing {
            Standing::Reaches(length) => Some(length),
            Standing::Silent | Standing::Paused => None,
        }
    }
}

/// All suppliers but one that may deliver something and have said what.
pub(super) struct OtherSuppliers<'a> {
    pub(super) suppliers: &'a Few<SupplierId, Supplier>,
    pub(super) id: SupplierId,
}

impl OtherSuppliers<'_> {
    fn iter(&self) -> impl Iterator<Item = &SharedAvailability> {
        let others = self
            .suppliers
            .iter()
            .filter(|(id, s)| **id != self.id && s.is_active());
        others.filter_map(|(_, supplier)| supplier.has.as_ref())
    }
}

impl Others for OtherSuppliers<'_> {
    fn copies(&self, index: u64) -> usize {
        self.iter()
            .filter(|has| has.has_all(index..index + 1))
            .count()
    }

    fn all_have(&self, range: Range<u64>) -> bool {
        self.iter().all(|has| has.has_all(range.clone()))
    }
}
