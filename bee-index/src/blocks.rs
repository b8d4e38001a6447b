//! The blocks of a bee's core, and the cache of the nodes in them.
//! Knows the core and its fork; does not know trees.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use ferrocore_log::Core;

use crate::block::Block;
use crate::cache::Cache;
use crate::error::BeeError;
use crate::header::Header;

/// A handle shared by a bee, its clones and its checkouts.
#[derive(Clone)]
pub(crate) struct Blocks {
    core: Core,
    cache: Arc<Mutex<Cache>>,
    /// Set once the header has been seen.
    is_bee: Arc<OnceLock<()>>,
}

impl Blocks {
    pub(crate) fn new(core: Core) -> Self {
        Self {
            core,
            cache: Arc::default(),
            is_bee: Arc::default(),
        }
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// Refuses a core whose block 0 is stored here and is not the header of a bee. Encrypted with
    /// another key, blocks are noise, some of which may look like a bee's.
    pub(crate) fn check_header(&self) -> Result<(), BeeError> {
        if self.is_bee.get().is_some() {
            return Ok(());
        }
        if let Some(block) = self.core.get_local(0)? {
            Header::decode(&block).ok_or(BeeError::NotABee)?;
            self.is_bee.get_or_init(|| ());
        }
        Ok(())
    }

    /// The block if it is stored here.
    pub(crate) fn local(&self, fork: u64, seq: u64) -> Result<Option<Block>, BeeError> {
        match self.core.get_local(seq)? {
            Some(bytes) => self.decode(fork, seq, bytes).map(Some),
            None => Ok(None),
        }
    }

    /// The block, waiting for a supplier if it is not stored here.
    pub(crate) async fn get(&self, fork: u64, seq: u64) -> Result<Block, BeeError> {
        match self.core.get(seq).await {
            Ok(bytes) => self.decode(fork, seq, bytes),
            Err(_) if self.core.fork() != fork => Err(BeeError::Truncated),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn cache(&self) -> MutexGuard<'_, Cache> {
        // A cache is whole at every step, so a panic elsewhere does not taint it.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decode(&self, fork: u64, seq: u64, bytes: Bytes) -> Result<Block, BeeError> {
        if self.core.fork() != fork {
            return Err(BeeError::Truncated);
        }
        Block::decode(bytes).map_err(|reason| BeeError::Corrupt { seq, reason })
    }
}
