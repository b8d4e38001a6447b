//! What an append asks of the log it finds. Knows conditions; does not append.

use ferrocore_primitives::keys::Key;

use super::CoreError;

/// Conditions of an append, looked at while nobody else can write. By default there are none.
///
/// # Examples
/// Compare and append: of two writers who read the same log, one appends and the other is told.
/// ```
/// use ferrocore_log::{AppendOptions, CoreError, Corestore};
///
/// let core = Corestore::memory().get_named("ledger")?;
/// let seen = AppendOptions::at(core.fork(), core.length());
/// core.append_with(vec!["mine".into()], seen)?;
/// let late = core.append_with(vec!["too late".into()], seen);
/// assert!(matches!(late, Err(CoreError::Moved { length: 1, .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AppendOptions {
    /// Append nothing if the log would have more blocks than this. (JavaScript's `maxLength`
    /// appends nothing either, but only the length it returns says so.)
    pub max_length: Option<u64>,
    /// Append only behind this block.
    pub expected_length: Option<u64>,
    /// Append only to this history.
    pub expected_fork: Option<u64>,
}

impl AppendOptions {
    /// Append only to a log of fork `fork` that has `length` blocks.
    pub fn at(fork: u64, length: u64) -> Self {
        Self {
            expected_length: Some(length),
            expected_fork: Some(fork),
            ..Self::default()
        }
    }

    /// Whether `count` blocks may be appended to `core`, which is at this fork and length.
    pub(super) fn check(
        &self,
        core: Key,
        (fork, length): (u64, u64),
        count: u64,
    ) -> Result<(), CoreError> {
        let is_expected = self
            .expected_length
            .is_none_or(|expected| expected == length)
            && self.expected_fork.is_none_or(|expected| expected == fork);
        if !is_expected {
            return Err(CoreError::Moved { core, fork, length });
        }
        match self.max_length {
            Some(max) if length.saturating_add(count) > max => {
                Err(CoreError::TooLong { core, length, max })
            }
            _ => Ok(()),
        }
    }
}
