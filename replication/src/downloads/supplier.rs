//! The peer as one of its core's suppliers.
//!
//! Knows what is given back, and to whom. Does not know requests.

use ferrocore_log::Core;
use ferrocore_log::proof::Proof;
use ferrocore_log::supply::{SeekId, SupplierId, Wake};

use super::Downloads;
use crate::requests::{Asked, Pending};

/// Membership in a core's supply. Dropped, its claims are free for others.
#[derive(Debug)]
pub(super) struct Supplier {
    pub(super) core: Core,
    pub(super) id: SupplierId,
}

impl Drop for Supplier {
    fn drop(&mut self) {
        self.core.supply().detach(self.id);
    }
}

impl Supplier {
    pub(super) fn attach(core: &Core, answers_seeks: bool, wake: Wake) -> Self {
        let id = core.supply().attach(wake);
        if answers_seeks {
            core.supply().answer_seeks(id);
        }
        core.supply().carry_extensions(id);
        core.supply().carry_pushes(id);
        Self {
            core: core.clone(),
            id,
        }
    }
}

impl Downloads {
    pub(super) fn doubt(&self) {
        if let Some(supplier) = &self.supplier {
            supplier.core.supply().doubt(supplier.id);
        }
    }

    /// The peer has shown its signed tree.
    pub(super) fn show_head(&self, core: &Core, proof: &Proof) {
        let Some(supplier) = &self.supplier else {
            return;
        };
        if let Err(error) = core.supply().show_head(supplier.id, proof) {
            tracing::debug!(core = %core.key(), %error, "a peer does not prove what it has");
        }
    }

    pub(super) fn pause(&self) {
        if let Some(supplier) = &self.supplier {
            supplier.core.supply().pause(supplier.id);
        }
    }

    pub(super) fn release(&self, core: &Core, block: u64) {
        if let Some(supplier) = &self.supplier {
            core.supply().release(supplier.id, block);
        }
    }

    pub(super) fn refuse_seek(&self, core: &Core, seek: SeekId) {
        if let Some(supplier) = &self.supplier {
            core.supply().refuse_seek(supplier.id, seek);
        }
    }

    pub(super) fn release_all<'a>(
        &self,
        core: &Core,
        requests: impl IntoIterator<Item = &'a Pending>,
    ) {
        for pending in requests {
            match pending.asked {
                Asked::Block(path) => self.release(core, path.block),
                Asked::Seek(seek, _) => self.refuse_seek(core, seek),
                Asked::Upgrade | Asked::Fork | Asked::Node(_) | Asked::Whole => {}
            }
        }
    }
}
