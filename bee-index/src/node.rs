//! A tree node, as one level of a block describes it.
//!
//! | message | field | tag | type |
//! |---|---|---|---|
//! | Level | keys | `0a` | packed: the blocks that hold the keys, ascending by key |
//! | | children | `12` | packed pairs: block, level within it |
//!
//! As hyperbee 2.27 writes it (`lib/messages.js`): empty packed fields are left out.

use std::ops::Range;
use std::sync::OnceLock;

use crate::block::Entry;
use crate::limits::{CHILDREN_MAX, KEYS_MAX};
use crate::protobuf::{
    Malformed, Packed, field_len, payloads, put_field_head, put_varint, varint_len,
};

/// Where a tree node lies: a level of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Pointer {
    pub(crate) seq: u64,
    pub(crate) offset: u64,
}

/// A tree node. Never changes, but for the entries that are filled in as they are read.
#[derive(Debug)]
pub(crate) struct Node {
    /// Ascending by key.
    pub(crate) keys: Box<[NodeKey]>,
    /// One more than keys, or none in a leaf.
    pub(crate) children: Box<[Pointer]>,
}

/// A key of a node: the block that holds it, and what that says once it was read.
#[derive(Debug, Clone)]
pub(crate) struct NodeKey {
    pub(crate) seq: u64,
    pub(crate) entry: OnceLock<Entry>,
}

/// What an in-order walk over a node meets.
pub(crate) enum Place<'a> {
    /// This key.
    Key(&'a NodeKey),
    /// All that lies under this child.
    Child(Pointer),
}

impl Node {
    pub(crate) fn decode(level: &[u8]) -> Result<Self, Malformed> {
        let (mut keys, mut children) = (Vec::new(), Vec::new());
        for field in payloads(level) {
            match field? {
                (KEYS, payload) => decode_keys(payload, &mut keys)?,
                (CHILDREN, payload) => decode_children(payload, &mut children)?,
                _ => {}
            }
        }
        if !children.is_empty() && keys.is_empty() {
            return Err(Malformed::EmptyNode);
        }
        if !children.is_empty() && children.len() != keys.len() + 1 {
            return Err(Malformed::ChildCount);
        }
        Ok(Self {
            keys: keys.into(),
            children: children.into(),
        })
    }

    /// All blocks that this node points to.
    pub(crate) fn mentioned(&self) -> impl Iterator<Item = u64> {
        let children = self.children.iter().map(|child| child.seq);
        self.keys.iter().map(|key| key.seq).chain(children)
    }

    /// Steps of an in-order walk over this node: even ones are children, odd ones keys.
    pub(crate) fn steps(&self) -> Range<usize> {
        0..2 * self.keys.len() + 1
    }

    pub(crate) fn step_of_child(index: usize) -> usize {
        2 * index
    }

    pub(crate) fn step_of_key(index: usize) -> usize {
        2 * index + 1
    }

    /// What is met at `step`: nothing where a leaf would have a child.
    pub(crate) fn at(&self, step: usize) -> Option<Place<'_>> {
        let index = step / 2;
        if step.is_multiple_of(2) {
            self.children.get(index).copied().map(Place::Child)
        } else {
            self.keys.get(index).map(Place::Key)
        }
    }
}

impl NodeKey {
    /// A key whose block was not read yet.
    pub(crate) fn unread(seq: u64) -> Self {
        Self {
            seq,
            entry: OnceLock::new(),
        }
    }
}

/// Whether the node that `level` describes has the key of block `seq`.
pub(crate) fn level_has_key(level: &[u8], seq: u64) -> Result<bool, Malformed> {
    for field in payloads(level) {
        if let (KEYS, payload) = field?
            && Packed::new(payload).any(|key| key == Ok(seq))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Appends a level as field number `field`.
pub(crate) fn put_level(
    out: &mut Vec<u8>,
    field: u8,
    keys: impl Iterator<Item = u64> + Clone,
    children: impl Iterator<Item = Pointer> + Clone,
) {
    let children = children.flat_map(|child| [child.seq, child.offset]);
    let keys_len = keys.clone().map(varint_len).sum();
    let children_len = children.clone().map(varint_len).sum();
    put_field_head(out, field, packed_len(keys_len) + packed_len(children_len));
    put_packed(out, KEYS, keys_len, keys);
    put_packed(out, CHILDREN, children_len, children);
}

fn decode_keys(payload: &[u8], keys: &mut Vec<NodeKey>) -> Result<(), Malformed> {
    for seq in Packed::new(payload) {
        if keys.len() == KEYS_MAX {
            return Err(Malformed::TooManyKeys);
        }
        keys.push(NodeKey::unread(seq?));
    }
    Ok(())
}

fn decode_children(payload: &[u8], children: &mut Vec<Pointer>) -> Result<(), Malformed> {
    let mut numbers = Packed::new(payload);
    while let Some(seq) = numbers.next() {
        let offset = numbers.next().ok_or(Malformed::ChildCount)?;
        if children.len() == CHILDREN_MAX {
            return Err(Malformed::TooManyKeys);
        }
        children.push(Pointer {
            seq: seq?,
            offset: offset?,
        });
    }
    Ok(())
}

fn packed_len(payload: usize) -> usize {
    if payload == 0 { 0 } else { field_len(payload) }
}

fn put_packed(out: &mut Vec<u8>, field: u64, len: usize, numbers: impl Iterator<Item = u64>) {
    if len > 0 {
        put_field_head(out, field as u8, len);
        numbers.for_each(|number| put_varint(out, number));
    }
}

const KEYS: u64 = 1;
const CHILDREN: u64 = 2;
