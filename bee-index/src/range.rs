//! Entries in key order, in either direction, between two keys.
//!
//! A walk keeps the way from the root to where it is. It ends whatever the blocks say: every node
//! below the root has a key (the reader sees to that) and the keys of a walk must ascend, so no
//! block is handed out twice.

use std::ops::{self, Bound};
use std::sync::Arc;

use bytes::Bytes;

use crate::bee::Bee;
use crate::block::Entry;
use crate::error::BeeError;
use crate::node::{Node, Place};
use crate::protobuf::Malformed;
use crate::reader::{Search, Tree, Wants};

/// Which entries to read. The default is all of them, ascending.
#[derive(Debug, Clone, Default)]
pub struct RangeOptions {
    /// Only keys greater than this; wins over `gte`.
    pub gt: Option<Bytes>,
    /// Only keys greater than or equal to this.
    pub gte: Option<Bytes>,
    /// Only keys less than this; wins over `lte`.
    pub lt: Option<Bytes>,
    /// Only keys less than or equal to this.
    pub lte: Option<Bytes>,
    /// Descend.
    pub reverse: bool,
    /// Stop after so many entries.
    pub limit: Option<usize>,
}

/// A walk over the entries of a bee. Made by [`Bee::range`].
pub struct Range {
    bee: Bee,
    near: Bound<Bytes>,
    far: Bound<Bytes>,
    reverse: bool,
    remaining: usize,
    walk: Option<Walk>,
}

impl Range {
    pub(crate) fn new(bee: Bee, options: RangeOptions) -> Self {
        let lower = bound(options.gt, options.gte);
        let upper = bound(options.lt, options.lte);
        let (near, far) = if options.reverse {
            (upper, lower)
        } else {
            (lower, upper)
        };
        Self {
            bee,
            near,
            far,
            reverse: options.reverse,
            remaining: options.limit.unwrap_or(usize::MAX),
            walk: None,
        }
    }

    /// The next entry, or `None` after the last. The version walked over is that of the bee at
    /// the first call; later changes do not show. Dropping the future loses no entry.
    ///
    /// # Errors
    /// As for [`Bee::get`].
    pub async fn next(&mut self) -> Result<Option<Entry>, BeeError> {
        if self.remaining == 0 {
            return Ok(None);
        }
        let walk = match self.walk.take() {
            Some(walk) => walk,
            None => Walk::start(self.bee.tree().await?, &self.near, self.reverse).await?,
        };
        let entry = self.walk.insert(walk).next().await?;
        let entry = entry.filter(|entry| self.is_before_end(&entry.key));
        self.remaining = if entry.is_some() {
            self.remaining - 1
        } else {
            0
        };
        Ok(entry)
    }

    fn is_before_end(&self, key: &Bytes) -> bool {
        match (&self.far, self.reverse) {
            (Bound::Unbounded, _) => true,
            (Bound::Included(end), false) => key <= end,
            (Bound::Excluded(end), false) => key < end,
            (Bound::Included(end), true) => key >= end,
            (Bound::Excluded(end), true) => key > end,
        }
    }
}

fn bound(exclusive: Option<Bytes>, inclusive: Option<Bytes>) -> Bound<Bytes> {
    match (exclusive, inclusive) {
        (Some(key), _) => Bound::Excluded(key),
        (None, Some(key)) => Bound::Included(key),
        (None, None) => Bound::Unbounded,
    }
}

/// The way from the root to the place of the walk.
struct Walk {
    tree: Tree,
    reverse: bool,
    stack: Vec<Frame>,
    last_key: Option<Bytes>,
}

impl Walk {
    /// A walk that begins at `near`.
    async fn start(tree: Tree, near: &Bound<Bytes>, reverse: bool) -> Result<Self, BeeError> {
        let mut stack = Vec::new();
        let mut next = tree.root().await?;
        while let Some(node) = next {
            let mut frame = Frame::new(node);
            let depth = stack.len() + 1;
            next = frame.skip_to(near, reverse, &tree, depth).await?;
            stack.push(frame);
        }
        Ok(Self {
            tree,
            reverse,
            stack,
            last_key: None,
        })
    }

    async fn next(&mut self) -> Result<Option<Entry>, BeeError> {
        loop {
            let depth = self.stack.len();
            let Some(frame) = self.stack.last_mut() else {
                return Ok(None);
            };
            // A step counts as taken once its block is here, so a dropped future loses nothing.
            let mut rest = frame.steps.clone();
            let step = if self.reverse {
                rest.next_back()
            } else {
                rest.next()
            };
            let Some(step) = step else {
                self.stack.pop();
                continue;
            };
            match frame.node.at(step) {
                Some(Place::Key(key)) => {
                    let wants = &mut frame.wants;
                    let entry = self.tree.entry(&frame.node, key, wants).await?.into_owned();
                    frame.steps = rest;
                    return self.pass(entry).map(Some);
                }
                Some(Place::Child(child)) => {
                    let wants = &mut frame.wants;
                    let child = self.tree.child(&frame.node, child, depth, wants).await?;
                    frame.steps = rest;
                    self.stack.push(Frame::new(child));
                }
                None => frame.steps = rest,
            }
        }
    }

    /// Lets `entry` out if it lies beyond the one before.
    fn pass(&mut self, entry: Entry) -> Result<Entry, BeeError> {
        let advances = match &self.last_key {
            None => true,
            Some(last) if self.reverse => entry.key < *last,
            Some(last) => entry.key > *last,
        };
        if !advances {
            return Err(BeeError::Corrupt {
                seq: entry.seq,
                reason: Malformed::KeyOrder,
            });
        }
        self.last_key = Some(entry.key.clone());
        Ok(entry)
    }
}

/// A node of that way, its steps not yet taken, and what was asked for ahead of them.
struct Frame {
    node: Arc<Node>,
    steps: ops::Range<usize>,
    wants: Wants,
}

impl Frame {
    fn new(node: Arc<Node>) -> Self {
        Self {
            steps: node.steps(),
            node,
            wants: Wants::default(),
        }
    }

    /// Skips the steps before `near`. If it lies below a child, that child is also skipped here
    /// and returned, to be entered in the same way.
    async fn skip_to(
        &mut self,
        near: &Bound<Bytes>,
        reverse: bool,
        tree: &Tree,
        depth: usize,
    ) -> Result<Option<Arc<Node>>, BeeError> {
        let (key, inclusive) = match near {
            Bound::Unbounded => return Ok(None),
            Bound::Included(key) => (key, true),
            Bound::Excluded(key) => (key, false),
        };
        match tree.search(&self.node, key, &mut self.wants).await? {
            Search::Found(index, _) => {
                self.skip_before(Node::step_of_key(index), inclusive, reverse);
                Ok(None)
            }
            Search::Missing(index) => {
                self.skip_before(Node::step_of_child(index), false, reverse);
                match self.node.children.get(index) {
                    Some(&child) => {
                        let child = tree
                            .child(&self.node, child, depth, &mut self.wants)
                            .await?;
                        Ok(Some(child))
                    }
                    None => Ok(None),
                }
            }
        }
    }

    fn skip_before(&mut self, step: usize, inclusive: bool, reverse: bool) {
        if reverse {
            self.steps.end = step + usize::from(inclusive);
        } else {
            self.steps.start = step + usize::from(!inclusive);
        }
    }
}
