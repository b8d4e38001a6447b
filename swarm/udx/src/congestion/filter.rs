//! The extreme of a sliding window in constant space: Kathleen Nichols' three best samples, as in Linux `win_minmax`.
//! Knows samples and their times. Does not know what they measure.

use std::fmt::Debug;

/// What is looked for, and for how long.
pub(crate) trait Window {
    /// When a sample was taken.
    type At: Copy + PartialEq + Debug;
    type Value: Copy + Debug;
    /// In the unit of [`age`](Self::age).
    const LEN: u64;

    /// How long before `now` something at `then` was.
    fn age(now: Self::At, then: Self::At) -> u64;

    /// True if a sample of `value` makes an earlier one of `than` superfluous.
    fn is_better(value: Self::Value, than: Self::Value) -> bool;
}

/// A sample and when it was taken.
type Sample<W> = (<W as Window>::At, <W as Window>::Value);

/// The best sample of the last [`Window::LEN`] units of time, and the best of those after it.
#[derive(Debug)]
pub(crate) struct Windowed<W: Window> {
    best: Option<[Sample<W>; 3]>,
}

impl<W: Window> Windowed<W> {
    pub(crate) fn new() -> Self {
        Self { best: None }
    }

    pub(crate) fn get(&self) -> Option<W::Value> {
        self.best.map(|[(_, value), ..]| value)
    }

    /// Takes in `value`, seen at `now`; times do not run backwards.
    pub(crate) fn update(&mut self, now: W::At, value: W::Value) {
        let sample = (now, value);
        let Some([first, second, third]) = self.best else {
            self.best = Some([sample; 3]);
            return;
        };
        let is_better = |than: Sample<W>| W::is_better(value, than.1);
        let best = if is_better(first) || W::age(now, third.0) > W::LEN {
            [sample; 3]
        } else if is_better(second) {
            [first, sample, sample]
        } else if is_better(third) {
            [first, second, sample]
        } else {
            [first, second, third]
        };
        self.best = Some(Self::aged(best, sample));
    }

    /// Drops what is too old, and renews the later places in time so that they cover the window.
    fn aged(best: [Sample<W>; 3], sample: Sample<W>) -> [Sample<W>; 3] {
        let [first, second, third] = best;
        let age = W::age(sample.0, first.0);
        if age > W::LEN {
            let [first, second, third] = [second, third, sample];
            if W::age(sample.0, first.0) > W::LEN {
                return [second, third, sample];
            }
            return [first, second, third];
        }
        if second.0 == first.0 && age > W::LEN / 4 {
            return [first, sample, sample];
        }
        if third.0 == second.0 && age > W::LEN / 2 {
            return [first, second, sample];
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug)]
    struct LargestOf20;

    impl Window for LargestOf20 {
        type At = u64;
        type Value = u64;
        const LEN: u64 = 20;

        fn age(now: u64, then: u64) -> u64 {
            now - then
        }

        fn is_better(value: u64, than: u64) -> bool {
            value >= than
        }
    }

    #[derive(Debug)]
    struct SmallestOf10;

    impl Window for SmallestOf10 {
        type At = u64;
        type Value = u64;
        const LEN: u64 = 10;

        fn age(now: u64, then: u64) -> u64 {
            now - then
        }

        fn is_better(value: u64, than: u64) -> bool {
            value <= than
        }
    }

    proptest! {
        #[test]
        fn the_estimate_is_a_sample_of_the_window_and_the_latest_best_stays(
            steps in proptest::collection::vec((0u64..5, 0u64..100), 1..200)
        ) {
            let mut filter = Windowed::<LargestOf20>::new();
            let (mut now, mut seen) = (0, Vec::new());
            for (step, value) in steps {
                now += step;
                seen.push((now, value));
                filter.update(now, value);
                let best = filter.get().unwrap();
                prop_assert!(best >= value, "the newest sample is in the window");
                prop_assert!(
                    seen.iter().any(|&(at, value)| value == best && now - at <= 20),
                    "{best} is older than the window"
                );
            }
        }
    }

    #[test]
    fn the_smallest_is_forgotten_with_its_window() {
        let mut filter = Windowed::<SmallestOf10>::new();
        filter.update(0, 5);
        filter.update(3, 9);
        filter.update(8, 7);
        assert_eq!(filter.get(), Some(5));
        filter.update(12, 8);
        assert_eq!(filter.get(), Some(7));
    }
}
