//! The clock of state machines: a number that the caller passes in.
//! Knows arithmetic. Does not know what time it is, which keeps tests virtual and wasm possible.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::{Add, AddAssign};
use std::time::Duration;

/// A moment, in nanoseconds since an origin that the driver chooses.
///
/// Kept as one more than that, so that an `Option<Time>` takes eight bytes too: state machines have many deadlines that
/// are not set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(NonZeroU64);

impl Time {
    /// The origin.
    pub const ZERO: Self = Self(NonZeroU64::MIN);

    /// The moment `nanos` nanoseconds after the origin; the last two that a number can name are one.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// Time passed since `earlier`, zero if that is later than `self`.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    /// Stops at the last representable moment, some 584 years in.
    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl Default for Time {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Time").field(&self.as_nanos()).finish()
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_adds_and_subtracts_without_overflow() {
        let second = Time::ZERO + Duration::from_secs(1);
        assert_eq!(second.as_nanos(), 1_000_000_000);
        assert_eq!(second.saturating_since(Time::ZERO), Duration::from_secs(1));
        assert_eq!(Time::ZERO.saturating_since(second), Duration::ZERO);
        assert_eq!(second + Duration::MAX, Time::from_nanos(u64::MAX));
    }

    #[test]
    fn a_time_is_as_large_as_one_that_may_be_missing() {
        assert_eq!(size_of::<Option<Time>>(), size_of::<Time>());
        assert_eq!(Time::default().as_nanos(), 0);
        assert_eq!(format!("{:?}", Time::from_nanos(7)), "Time(7)");
        assert!(Time::from_nanos(7) > Time::from_nanos(6));
    }
}
