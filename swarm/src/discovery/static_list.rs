//! Peers that were named beforehand, as members of every topic.
//! Knows its list. Does not know whether anybody in it is there.

use std::sync::{Mutex, PoisonError};

use super::{Discovery, DiscoveryError, Finder, Interest};
use crate::Topic;
use crate::target::Target;
use crate::transport::BoxFuture;

/// Peers that were named beforehand, as members of every topic.
#[derive(Debug, Default)]
pub struct StaticList {
    targets: Mutex<Vec<Target>>,
}

impl StaticList {
    /// Starts with these.
    pub fn new(targets: impl IntoIterator<Item = Target>) -> Self {
        Self {
            targets: Mutex::new(targets.into_iter().collect()),
        }
    }

    /// Adds one, which the next lookups find.
    pub fn add(&self, target: Target) {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.push(target);
    }
}

impl Discovery for StaticList {
    fn name(&self) -> &'static str {
        "list"
    }

    fn refresh<'a>(
        &'a self,
        interest: Interest,
        finder: Finder,
    ) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let targets = targets.clone();
        Box::pin(async move {
            for target in targets.into_iter().filter(|_| interest.client) {
                finder.found(target).await;
            }
            Ok(())
        })
    }

    fn leave<'a>(&'a self, _: Topic) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}
