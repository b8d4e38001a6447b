//! The rows of the table: nodes grouped by how many leading bits they share with us.
//! Knows order and bounds (`kademlia-routing-table` 1.0.6). Does not know which node deserves its place.

use super::{K, Node};
use crate::id::Id;

/// One row for each bit of an id.
const ROWS: usize = Id::LEN * 8;

/// Places that a full row grows by: most tables have few full rows, and a thousand nodes a table each.
const ROW_GROWTH: usize = 4;

const _: () = assert!(K.is_multiple_of(ROW_GROWTH));

/// At most [`K`] nodes a row, sorted by id.
#[derive(Debug)]
pub(super) struct Rows {
    own: Id,
    /// As many as have ever held a node: of those near us most never do.
    rows: Vec<Vec<Node>>,
    count: usize,
}

impl Rows {
    pub(super) fn new(own: Id) -> Self {
        Self {
            own,
            rows: Vec::new(),
            count: 0,
        }
    }

    /// Inserts a node that is not there yet.
    ///
    /// # Errors
    /// Gives the node back if its row is full.
    pub(super) fn insert(&mut self, node: Node) -> Result<(), Node> {
        let index = row_index(&self.own, &node.id);
        if self.rows.len() <= index {
            self.rows.resize_with(index + 1, Vec::new);
        }
        let Some(row) = self.rows.get_mut(index) else {
            return Err(node);
        };
        match row.binary_search_by(|other| other.id.cmp(&node.id)) {
            Err(at) if row.len() < K => {
                if row.len() == row.capacity() {
                    row.reserve_exact(ROW_GROWTH);
                }
                row.insert(at, node);
                self.count += 1;
                Ok(())
            }
            _ => Err(node),
        }
    }

    pub(super) fn remove(&mut self, id: &Id) -> Option<Node> {
        let row = self.rows.get_mut(row_index(&self.own, id))?;
        let at = row.binary_search_by(|node| node.id.cmp(id)).ok()?;
        self.count -= 1;
        Some(row.remove(at))
    }

    pub(super) fn get(&self, id: &Id) -> Option<&Node> {
        self.row(id).iter().find(|node| node.id == *id)
    }

    pub(super) fn get_mut(&mut self, id: &Id) -> Option<&mut Node> {
        let row = self.rows.get_mut(row_index(&self.own, id))?;
        row.iter_mut().find(|node| node.id == *id)
    }

    /// The row where `id` is or would be.
    pub(super) fn row(&self, id: &Id) -> &[Node] {
        let row = self.rows.get(row_index(&self.own, id));
        row.map_or(&[], Vec::as_slice)
    }

    /// All nodes: the row of `target` first, then those farther from us than it, then those nearer to us.
    pub(super) fn from(&self, target: &Id) -> impl Iterator<Item = &Node> + use<'_> {
        let start = row_index(&self.own, target);
        let (far, near) = self
            .rows
            .split_at(start.saturating_add(1).min(self.rows.len()));
        far.iter().rev().chain(near).flatten()
    }

    /// All nodes.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> + use<'_> {
        self.rows.iter().flatten()
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn own(&self) -> Id {
        self.own
    }
}

/// The row of `id`: the number of leading bits it shares with `own`; the last row for `own` itself.
fn row_index(own: &Id, id: &Id) -> usize {
    own.distance(id).shared_bits().min(ROWS - 1)
}
