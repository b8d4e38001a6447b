//! Handles that may do less than the core, or that are the only ones of their kind.
//!
//! Every [`Core`] is a handle: the core closes when the last one, and the last
//! [`Snapshot`](super::Snapshot) of it, is dropped.

use std::ops::Deref;

use async_lock::MutexGuardArc;

use super::{Core, CoreError};

/// A writable handle of which a core has one at a time; see [`Core::exclusive`].
#[derive(Debug)]
pub struct Exclusive {
    core: Core,
    _guard: MutexGuardArc<()>,
}

impl Deref for Exclusive {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl Core {
    /// A handle on the same core that reads and downloads, but refuses to append, truncate, clear
    /// and set user data.
    #[must_use]
    pub fn read_only(&self) -> Self {
        Self {
            is_read_only: true,
            ..self.clone()
        }
    }

    /// Whether this handle is for reading only, whoever may sign.
    pub fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Waits until there is no other exclusive handle on the core, and makes one.
    ///
    /// It keeps writers apart that all ask for it, as in JavaScript; who writes through a plain
    /// handle is not kept from it. For that compare and append
    /// ([`AppendOptions::at`](super::AppendOptions::at)).
    ///
    /// # Errors
    /// [`CoreError::NotWritable`] or [`CoreError::ReadOnly`]: readers exclude nobody.
    pub async fn exclusive(&self) -> Result<Exclusive, CoreError> {
        self.check_writable()?;
        let guard = self.inner.exclusive.lock_arc().await;
        Ok(self.with_guard(guard))
    }

    /// As [`Core::exclusive`], but `None` instead of waiting.
    ///
    /// # Errors
    /// As for [`Core::exclusive`].
    pub fn try_exclusive(&self) -> Result<Option<Exclusive>, CoreError> {
        self.check_writable()?;
        let guard = self.inner.exclusive.try_lock_arc();
        Ok(guard.map(|guard| self.with_guard(guard)))
    }

    fn with_guard(&self, guard: MutexGuardArc<()>) -> Exclusive {
        Exclusive {
            core: self.clone(),
            _guard: guard,
        }
    }

    fn check_writable(&self) -> Result<(), CoreError> {
        self.check_not_read_only()?;
        match self.is_writable() {
            true => Ok(()),
            false => Err(CoreError::NotWritable { core: self.key() }),
        }
    }

    pub(super) fn check_not_read_only(&self) -> Result<(), CoreError> {
        match self.is_read_only {
            true => Err(CoreError::ReadOnly { core: self.key() }),
            false => Ok(()),
        }
    }
}
