//! A duration in eight bytes: `std`'s takes sixteen, and a stream keeps many.
//! Knows nanoseconds. Does not know what they are between.

use std::num::NonZeroU64;
use std::time::Duration;

/// At most some 584 years, in nanoseconds; kept as one more, so that an `Option` of it is no larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(NonZeroU64);

impl Span {
    pub(crate) const ZERO: Self = Self(NonZeroU64::MIN);

    pub(crate) fn get(self) -> Duration {
        Duration::from_nanos(self.0.get() - 1)
    }
}

impl From<Duration> for Span {
    /// Longer ones become the longest.
    fn from(duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_the_duration_it_was_made_of_and_half_as_large() {
        for duration in [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_secs(1 << 33),
        ] {
            assert_eq!(Span::from(duration).get(), duration);
        }
        assert!(Span::from(Duration::MAX) > Span::from(Duration::from_secs(1 << 34)));
        assert_eq!(size_of::<Option<Span>>(), 8);
    }
}
