//! One version of the tree: finding keys and nodes.
//!
//! Levels name keys by the block that holds them, so each step of a search reads a block. When
//! one is not stored here, all blocks its node mentions are asked for at once, which makes the
//! number of round trips the height of the tree.
//!
//! Blocks are signed by the writer of the core and by nobody else vouched for: every pointer is
//! checked to lead into the version being read, and the way down is bounded.

use ferrocore_log::Core;
use ferrocore_log::core::Download;

use crate::block::{Block, Entry, Node, Pointer};
use crate::blocks::Blocks;
use crate::error::BeeError;
use crate::limits::DEPTH_MAX;
use crate::protobuf::Malformed;

/// The tree whose root is level 0 of block `version - 1`.
#[derive(Clone)]
pub(crate) struct Tree {
    blocks: Blocks,
    version: u64,
    fork: u64,
}

/// Where a key is in a node, or which child it would be under.
pub(crate) enum Search {
    /// The key at this index, in this block.
    Found(usize, Block),
    /// Not in this node: the index of the child to look at, and of the key to insert before.
    Missing(usize),
}

/// The blocks of a node that were asked for ahead of their use. Dropping it withdraws them.
#[derive(Default)]
pub(crate) struct Wants(Vec<Download>);

impl Tree {
    pub(crate) fn new(blocks: Blocks, version: u64) -> Self {
        let fork = blocks.core().fork();
        Self {
            blocks,
            version,
            fork,
        }
    }

    pub(crate) fn core(&self) -> &Core {
        self.blocks.core()
    }

    pub(crate) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn fork(&self) -> u64 {
        self.fork
    }

    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Entry>, BeeError> {
        let Some(mut node) = self.root().await? else {
            return Ok(None);
        };
        for depth in 1.. {
            let mut wants = Wants::default();
            let index = match self.search(&node, key, &mut wants).await? {
                Search::Found(index, block) => {
                    return Ok(node.keys.get(index).map(|&seq| block.into_entry(seq)));
                }
                Search::Missing(index) => index,
            };
            let Some(&child) = node.children.get(index) else {
                break;
            };
            node = self.child(&node, child, depth, &mut wants).await?;
        }
        Ok(None)
    }

    /// The root, or `None` if this version is before the first operation.
    pub(crate) async fn root(&self) -> Result<Option<Node>, BeeError> {
        if self.version <= 1 {
            return Ok(None);
        }
        let root = Pointer {
            seq: self.version - 1,
            offset: 0,
        };
        match self.node(root, 0).await {
            Err(BeeError::Corrupt {
                reason: Malformed::NoSuchLevel,
                ..
            }) => Err(BeeError::WithinBatch {
                version: self.version,
            }),
            node => node.map(Some),
        }
    }

    /// The node at `pointer`, `depth` steps below the root.
    pub(crate) async fn node(&self, pointer: Pointer, depth: usize) -> Result<Node, BeeError> {
        let block = self.block(pointer.seq).await?;
        self.node_of(&block, pointer, depth)
    }

    /// The child of `parent` at `pointer`, `depth` steps below the root.
    pub(crate) async fn child(
        &self,
        parent: &Node,
        pointer: Pointer,
        depth: usize,
        wants: &mut Wants,
    ) -> Result<Node, BeeError> {
        let block = self.block_of(parent, pointer.seq, wants).await?;
        self.node_of(&block, pointer, depth)
    }

    /// Looks for `key` among the keys of `node`.
    pub(crate) async fn search(
        &self,
        node: &Node,
        key: &[u8],
        wants: &mut Wants,
    ) -> Result<Search, BeeError> {
        let (mut low, mut high) = (0, node.keys.len());
        while low < high {
            let middle = low.midpoint(high);
            let Some(&seq) = node.keys.get(middle) else {
                break;
            };
            let block = self.block_of(node, seq, wants).await?;
            match key.cmp(block.key()) {
                std::cmp::Ordering::Less => high = middle,
                std::cmp::Ordering::Greater => low = middle + 1,
                std::cmp::Ordering::Equal => return Ok(Search::Found(middle, block)),
            }
        }
        Ok(Search::Missing(low))
    }

    /// A block that `node` mentions. If it has to be waited for, so are the others.
    pub(crate) async fn block_of(
        &self,
        node: &Node,
        seq: u64,
        wants: &mut Wants,
    ) -> Result<Block, BeeError> {
        if let Some(block) = self.blocks.local(self.fork, seq)? {
            return Ok(block);
        }
        if wants.0.is_empty() {
            *wants = self.want(node);
        }
        self.block(seq).await
    }

    pub(crate) async fn block(&self, seq: u64) -> Result<Block, BeeError> {
        self.blocks.get(self.fork, seq).await
    }

    /// Decodes a node and checks all that its place in the tree says about it.
    fn node_of(&self, block: &Block, pointer: Pointer, depth: usize) -> Result<Node, BeeError> {
        let corrupt = |reason| BeeError::Corrupt {
            seq: pointer.seq,
            reason,
        };
        if depth >= DEPTH_MAX {
            return Err(corrupt(Malformed::TooDeep));
        }
        let node = block.node(pointer).map_err(corrupt)?;
        if node.keys.is_empty() && depth > 0 {
            return Err(corrupt(Malformed::EmptyNode));
        }
        let outside = |seq: u64| seq == 0 || seq >= self.version;
        if mentioned(&node).any(outside) {
            return Err(corrupt(Malformed::OutsideVersion));
        }
        Ok(node)
    }

    fn want(&self, node: &Node) -> Wants {
        let core = self.core();
        let missing = mentioned(node).filter(|&seq| !core.has(seq));
        Wants(missing.map(|seq| core.download(seq..seq + 1)).collect())
    }
}

/// All blocks that `node` points to.
fn mentioned(node: &Node) -> impl Iterator<Item = u64> {
    let children = node.children.iter().map(|child| child.seq);
    node.keys.iter().copied().chain(children)
}
