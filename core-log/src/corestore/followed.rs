//! The open cores of a store, for somebody who looks for suppliers of each: until it is told, its readers wait.
//!
//! Knows which were told. Does not know time: how long readers wait of what is not told is for the caller to say.

use std::sync::Arc;

use super::opened::{OpenedCores, Registry};
use crate::core::{Core, Finding};

/// The open cores of a store, told one by one as by [`OpenedCores`]. Readers of a core wait from the moment it is open until it is
/// told, as under [`Core::finding`], and on, while the guard that comes with it is kept.
///
/// Who cannot take all that there are [lets those go](Self::let_go) who wait for the others.
pub struct FollowedCores {
    opened: OpenedCores,
    /// Readers of cores opened at this age or later wait. Never less than the age of the next that is told.
    waits_from: u64,
    /// Cores opened before this age were there when it was marked.
    marked: u64,
}

impl FollowedCores {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        registry.add_wait(0);
        Self {
            opened: OpenedCores::new(registry),
            waits_from: 0,
            marked: 0,
        }
    }

    /// The next open core, if there is one now, and what keeps its readers waiting.
    pub fn try_next(&mut self) -> Option<(Core, Finding)> {
        let core = self.opened.try_next()?;
        Some(self.tell(core))
    }

    /// The next open core, waiting for it, and what keeps its readers waiting; `None` once the store is dropped.
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<(Core, Finding)> {
        let core = self.opened.next().await?;
        Some(self.tell(core))
    }

    /// Waits until there is a core that was neither told nor [let go](Self::let_go), and tells nothing; for ever once the
    /// store is dropped.
    pub async fn untold(&self) {
        self.opened.registry.opened_since(self.waits_from).await;
    }

    /// Notes which cores are open now.
    pub fn mark(&mut self) {
        self.marked = self.opened.registry.next_age();
    }

    /// Lets readers of those that were open when it was [marked](Self::mark) wait no longer. They are told all the same, in
    /// their turn.
    pub fn let_go(&mut self) {
        self.put_off(self.marked);
    }

    fn tell(&mut self, core: Core) -> (Core, Finding) {
        let finding = core.finding();
        self.put_off(self.opened.age);
        (core, finding)
    }

    fn put_off(&mut self, age: u64) {
        if age > self.waits_from {
            self.opened.registry.put_off_wait(self.waits_from, age);
            self.waits_from = age;
        }
    }
}

impl Drop for FollowedCores {
    fn drop(&mut self) {
        self.opened.registry.remove_wait(self.waits_from);
    }
}

impl std::fmt::Debug for FollowedCores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FollowedCores")
            .field("age", &self.opened.age)
            .field("waits_from", &self.waits_from)
            .finish_non_exhaustive()
    }
}
