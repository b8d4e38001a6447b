//! Changing several cores as one: all of them or none.

use std::sync::Arc;

use bytes::Bytes;
use ferrocore_primitives::keys::Key;

use super::append::{Appended, Grown};
use super::group::Make;
use super::{AppendOptions, Core, CoreError};
use crate::events::Event;
use crate::storage::{self, CoreWrite, Durability, Storage, WriteBatch};

/// What a batch changes of one core.
pub(crate) struct CoreChange {
    pub(crate) core: Core,
    appends: Vec<Make>,
    user_data: Vec<(String, Option<Vec<u8>>)>,
}

impl CoreChange {
    pub(crate) fn new(core: Core) -> Self {
        Self {
            core,
            appends: Vec::new(),
            user_data: Vec::new(),
        }
    }

    pub(crate) fn append(&mut self, core: &Core, blocks: Vec<Bytes>) -> Result<(), CoreError> {
        let (_, make) = core.making(blocks, AppendOptions::default())?;
        self.appends.push(make);
        Ok(())
    }

    pub(crate) fn set_user_data(
        &mut self,
        core: &Core,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<(), CoreError> {
        core.check_not_read_only()?;
        let (key, value) = (key.to_owned(), value.map(<[u8]>::to_vec));
        self.user_data.push((key, value));
        Ok(())
    }
}

/// Commits `changes`, each of another core of `storage`; returns what each log is like then.
pub(crate) fn commit(
    mut changes: Vec<CoreChange>,
    storage: &dyn Storage,
    durability: Durability,
) -> Result<Vec<(Key, Appended)>, CoreError> {
    // All who lock several cores lock them in this order.
    changes.sort_by_key(|change| change.core.discovery_key());
    let cores: Vec<Core> = changes.iter().map(|change| change.core.clone()).collect();
    let _writers: Vec<_> = cores.iter().map(|core| core.inner.lock_writer()).collect();

    let (mut batch, mut prepared) = (WriteBatch::new(), Vec::new());
    for change in changes {
        let core = change.core.discovery_key();
        let (write, flip) = Flip::prepare(change)?;
        batch.insert(core, write);
        prepared.push(flip);
    }
    storage.commit(batch, durability)?;
    let flipped: Vec<_> = prepared.into_iter().map(Flip::flip).collect();
    // What one core tells must not come before the others are there.
    for (core, _, events) in &flipped {
        core.inner.announce(events);
    }
    let appended = flipped.iter();
    let appended = appended.map(|(core, appended, _)| (core.key(), *appended));
    Ok(appended.collect())
}

/// What changes in memory once the batch is committed.
struct Flip {
    core: Core,
    appended: Appended,
    grown: Option<Grown>,
    user_data: Vec<(String, Option<Vec<u8>>)>,
}

impl Flip {
    fn prepare(change: CoreChange) -> Result<(CoreWrite, Self), CoreError> {
        let CoreChange {
            core,
            appends,
            user_data,
        } = change;
        let inner = &core.inner;
        let mut growth = inner.growth();
        for make in appends {
            inner.grow(&mut growth, make)?;
        }
        let appended = growth.appended(core.padding());
        let (mut write, grown) = match growth.is_empty() {
            true => (CoreWrite::default(), None),
            false => {
                let (write, grown) = inner.seal(growth)?;
                (write, Some(grown))
            }
        };
        write.user_data.clone_from(&user_data);
        let flip = Self {
            appended,
            grown,
            user_data,
            core,
        };
        Ok((write, flip))
    }

    fn flip(self) -> (Core, Appended, Vec<Event>) {
        let inner = Arc::clone(&self.core.inner);
        let events = self.grown.map(|grown| inner.flip_growth(grown));
        inner.update(|shared| {
            for (key, value) in self.user_data {
                storage::set_user_data(&mut shared.user_data, key, value);
            }
        });
        let events = events.into_iter().flatten().collect();
        (self.core, self.appended, events)
    }
}
