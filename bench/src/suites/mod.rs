//! What is measured: each suite fills a table, round by round.

pub(crate) mod dht;
pub(crate) mod drive;
pub(crate) mod log;
pub(crate) mod replicate;
pub(crate) mod scale;
pub(crate) mod udx;

use std::hint::black_box;
use std::path::PathBuf;

use crate::contender::Contender;
use crate::table::Row;

/// How much is measured, and where.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) rounds: u32,
    /// Rows whose id contains this.
    pub(crate) row: String,
    /// Without the others.
    pub(crate) alone: bool,
    /// An empty folder.
    pub(crate) scratch: PathBuf,
}

impl Run {
    /// The rows that were asked for.
    pub(crate) fn pick(&self, rows: &'static [Row]) -> Vec<&'static Row> {
        let rows = rows.iter();
        rows.filter(|row| row.id.contains(&self.row)).collect()
    }

    /// Those of `contenders` that take part.
    pub(crate) fn contenders(&self, contenders: &[Contender]) -> Vec<Contender> {
        let takes_part = |who: &Contender| !self.alone || *who == Contender::Ferrocore;
        contenders.iter().copied().filter(takes_part).collect()
    }
}

/// Has the machine's memory ready for `bytes` of new files: takes as much, writes to it, gives it back.
///
/// A virtual machine gives memory that it does not use back to its host, and who needs it next waits for each
/// page: the first gigabyte of a file took 2.9 s here, the next, in the same pages, 0.23 s. Whom that meets
/// would be luck.
pub(crate) fn warm(bytes: usize) {
    drop(black_box(vec![1_u8; bytes]));
}

/// `items` in the order of round `round`: each is the first in its turn, so that none always finds the
/// machine as the same one left it.
pub(crate) fn in_turn<T: Copy>(items: &[T], round: u32) -> Vec<T> {
    let mut items = items.to_vec();
    let first = round as usize % items.len().max(1);
    items.rotate_left(first);
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_to_be_first() {
        let orders: Vec<_> = (0..4).map(|round| in_turn(&[1, 2, 3], round)).collect();
        assert_eq!(orders, [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]]);
        assert!(in_turn::<u8>(&[], 3).is_empty());
    }
}
