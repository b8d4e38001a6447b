//! How soon suppliers will answer: to whom a patient one leaves what somebody waits for.

use std::time::Duration;

use super::{State, SupplierId};

/// How soon a supplier will answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// When the answer to one more request would be here, from now on.
    pub answer_in: Duration,
    /// How many more requests it is fit to be sent.
    pub room: usize,
}

/// A faster supplier, the time gained by it, and how many requests it is fit for.
pub(super) type Rival = (SupplierId, Duration, usize);

impl State {
    /// Suppliers that will answer in less than half the time, the fastest first, with the time that is
    /// gained and how many requests they are fit for. Whoever is not known yet lets all go first that are.
    pub(super) fn faster_than(&self, id: SupplierId) -> Vec<Rival> {
        let own = self.suppliers.get(&id).and_then(|s| s.outlook);
        let gain = |other: Outlook| match own {
            None => Some(other.answer_in),
            Some(own) if 2 * other.answer_in < own.answer_in => {
                Some(own.answer_in - other.answer_in)
            }
            Some(_) => None,
        };
        let others = self.suppliers.iter();
        let others = others.filter(|(other, s)| **other != id && s.is_active());
        let mut faster: Vec<(Duration, Rival)> = others
            .filter_map(|(other, s)| {
                let outlook = s.outlook?;
                Some((outlook.answer_in, (*other, gain(outlook)?, outlook.room)))
            })
            .collect();
        faster.sort_unstable_by_key(|(answer_in, _)| *answer_in);
        faster.into_iter().map(|(_, rival)| rival).collect()
    }
}
