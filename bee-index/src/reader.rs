//! One version of the tree: finding keys and nodes.
//!
//! Levels name keys by the block that holds them, so each step of a search reads a block. When
//! one is not stored here, all blocks its node mentions are asked for at once, which makes the
//! number of round trips the height of the tree.
//!
//! Blocks are signed by the writer of the core and by nobody else vouched for: every pointer is
//! checked to lead into the version being read, and the way down is bounded.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use ferrocore_log::Core;
use ferrocore_log::core::Download;

use crate::block::{Block, Entry};
use crate::blocks::Blocks;
use crate::error::BeeError;
use crate::limits::{CACHED_ENTRY_BYTES_MAX, DEPTH_MAX};
use crate::node::{Node, NodeKey, Pointer};
use crate::protobuf::Malformed;

/// The tree whose root is level 0 of block `version - 1`.
#[derive(Clone)]
pub(crate) struct Tree {
    blocks: Blocks,
    version: u64,
    fork: u64,
}

/// Where a key is in a node, or which child it would be under.
pub(crate) enum Search<'a> {
    /// The key at this index.
    Found(usize, Cow<'a, Entry>),
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

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn fork(&self) -> u64 {
        self.fork
    }

    /// The same tree some operations later.
    pub(crate) fn grown_to(&self, version: u64) -> Self {
        Self {
            version,
            ..self.clone()
        }
    }

    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Entry>, BeeError> {
        let Some(mut node) = self.root().await? else {
            return Ok(None);
        };
        for depth in 1.. {
            let mut wants = Wants::default();
            let index = match self.search(&node, key, &mut wants).await? {
                Search::Found(_, entry) => return Ok(Some(entry.into_owned())),
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
    pub(crate) async fn root(&self) -> Result<Option<Arc<Node>>, BeeError> {
        if self.version <= 1 {
            return Ok(None);
        }
        let root = Pointer {
            seq: self.version - 1,
            offset: 0,
        };
        match self.node(root, 0).await {
            Err(BeeError::Corrupt { reason, .. }) => Err(self.rootless(root, reason).await),
            node => node.map(Some),
        }
    }

    /// Why there is no root at `root`. Only now the header is worth fetching.
    async fn rootless(&self, root: Pointer, reason: Malformed) -> BeeError {
        if self.core().get(0).await.is_ok()
            && let Err(error) = self.blocks.check_header()
        {
            return error;
        }
        let version = self.version;
        match reason {
            Malformed::NoSuchLevel => BeeError::WithinBatch { version },
            reason => corrupt(root, reason),
        }
    }

    /// The node at `pointer`, `depth` steps below the root.
    pub(crate) async fn node(&self, pointer: Pointer, depth: usize) -> Result<Arc<Node>, BeeError> {
        let node = match self.cached(pointer) {
            Some(node) => node,
            None => self.decode_node(&self.block(pointer.seq).await?, pointer)?,
        };
        self.check(node, pointer, depth)
    }

    /// The child of `parent` at `pointer`, `depth` steps below the root.
    pub(crate) async fn child(
        &self,
        parent: &Node,
        pointer: Pointer,
        depth: usize,
        wants: &mut Wants,
    ) -> Result<Arc<Node>, BeeError> {
        let node = match self.cached(pointer) {
            Some(node) => node,
            None => {
                let block = self.block_of(parent, pointer.seq, wants).await?;
                self.decode_node(&block, pointer)?
            }
        };
        self.check(node, pointer, depth)
    }

    /// Looks for `key` among the keys of `node`.
    pub(crate) async fn search<'a>(
        &self,
        node: &'a Node,
        key: &[u8],
        wants: &mut Wants,
    ) -> Result<Search<'a>, BeeError> {
        let (mut low, mut high) = (0, node.keys.len());
        while low < high {
            let middle = low.midpoint(high);
            let Some(at_middle) = node.keys.get(middle) else {
                break;
            };
            let entry = self.entry(node, at_middle, wants).await?;
            match key.cmp(&entry.key) {
                Ordering::Less => high = middle,
                Ordering::Greater => low = middle + 1,
                Ordering::Equal => return Ok(Search::Found(middle, entry)),
            }
        }
        Ok(Search::Missing(low))
    }

    /// The entry of a key of `node`. If its block has to be waited for, so are the others of the
    /// node.
    pub(crate) async fn entry<'a>(
        &self,
        node: &Node,
        key: &'a NodeKey,
        wants: &mut Wants,
    ) -> Result<Cow<'a, Entry>, BeeError> {
        if let Some(entry) = key.entry.get() {
            return Ok(Cow::Borrowed(entry));
        }
        let block = self.block_of(node, key.seq, wants).await?;
        let len = block.len();
        let entry = block.into_entry(key.seq);
        if len > CACHED_ENTRY_BYTES_MAX {
            return Ok(Cow::Owned(entry));
        }
        self.blocks.cache().charge(len);
        Ok(Cow::Borrowed(key.entry.get_or_init(|| entry)))
    }

    pub(crate) async fn block(&self, seq: u64) -> Result<Block, BeeError> {
        self.blocks.get(self.fork, seq).await
    }

    fn cached(&self, pointer: Pointer) -> Option<Arc<Node>> {
        self.blocks.cache().get(self.fork, pointer)
    }

    fn decode_node(&self, block: &Block, pointer: Pointer) -> Result<Arc<Node>, BeeError> {
        let node = block
            .node(pointer)
            .map_err(|reason| corrupt(pointer, reason))?;
        let node = Arc::new(node);
        self.blocks
            .cache()
            .insert(self.fork, pointer, Arc::clone(&node));
        Ok(node)
    }

    /// Checks what the place of `node` in this tree says about it.
    fn check(
        &self,
        node: Arc<Node>,
        pointer: Pointer,
        depth: usize,
    ) -> Result<Arc<Node>, BeeError> {
        if depth >= DEPTH_MAX {
            return Err(corrupt(pointer, Malformed::TooDeep));
        }
        if node.keys.is_empty() && depth > 0 {
            return Err(corrupt(pointer, Malformed::EmptyNode));
        }
        let outside = |seq: u64| seq == 0 || seq >= self.version;
        if node.mentioned().any(outside) {
            return Err(corrupt(pointer, Malformed::OutsideVersion));
        }
        Ok(node)
    }

    /// A block that `node` mentions. If it has to be waited for, so are the others.
    async fn block_of(&self, node: &Node, seq: u64, wants: &mut Wants) -> Result<Block, BeeError> {
        if let Some(block) = self.blocks.local(self.fork, seq)? {
            return Ok(block);
        }
        if wants.0.is_empty() {
            *wants = self.want(node);
        }
        self.block(seq).await
    }

    fn want(&self, node: &Node) -> Wants {
        let core = self.core();
        let missing = node.mentioned().filter(|&seq| !core.has(seq));
        Wants(missing.map(|seq| core.download(seq..seq + 1)).collect())
    }
}

fn corrupt(pointer: Pointer, reason: Malformed) -> BeeError {
    BeeError::Corrupt {
        seq: pointer.seq,
        reason,
    }
}
