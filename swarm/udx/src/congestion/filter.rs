//! The extreme of a sliding window in constant space: Kathleen Nichols' three best samples, as in Linux `win_minmax`.
//! Knows samples and their times. Does not know what they measure.

/// The smallest or the largest sample of the last `window` units of time.
#[derive(Debug, Clone)]
pub(crate) struct Windowed<V> {
    window: u64,
    better: fn(&V, &V) -> bool,
    best: Option<[(u64, V); 3]>,
}

impl<V: PartialOrd + Copy> Windowed<V> {
    pub(crate) fn max(window: u64) -> Self {
        Self::new(window, |a, b| a >= b)
    }

    pub(crate) fn min(window: u64) -> Self {
        Self::new(window, |a, b| a <= b)
    }

    pub(crate) fn get(&self) -> Option<V> {
        self.best.map(|[(_, value), ..]| value)
    }

    /// Takes in `value`, seen at `now`; times do not run backwards.
    pub(crate) fn update(&mut self, now: u64, value: V) {
        let sample = (now, value);
        let Some([first, second, third]) = self.best else {
            self.best = Some([sample; 3]);
            return;
        };
        let is_better = |than: (u64, V)| (self.better)(&value, &than.1);
        let best = if is_better(first) || now.saturating_sub(third.0) > self.window {
            [sample; 3]
        } else if is_better(second) {
            [first, sample, sample]
        } else if is_better(third) {
            [first, second, sample]
        } else {
            [first, second, third]
        };
        self.best = Some(self.aged(best, sample));
    }

    fn new(window: u64, better: fn(&V, &V) -> bool) -> Self {
        Self {
            window,
            better,
            best: None,
        }
    }

    /// Drops what is too old, and renews the later places in time so that they cover the window.
    fn aged(&self, best: [(u64, V); 3], sample: (u64, V)) -> [(u64, V); 3] {
        let [first, second, third] = best;
        let age = sample.0.saturating_sub(first.0);
        if age > self.window {
            let [first, second, third] = [second, third, sample];
            if sample.0.saturating_sub(first.0) > self.window {
                return [second, third, sample];
            }
            return [first, second, third];
        }
        if second.0 == first.0 && age > self.window / 4 {
            return [first, sample, sample];
        }
        if third.0 == second.0 && age > self.window / 2 {
            return [first, second, sample];
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_estimate_is_a_sample_of_the_window_and_the_latest_best_stays(
            steps in proptest::collection::vec((0u64..5, 0u64..100), 1..200)
        ) {
            let mut filter = Windowed::max(20);
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
        let mut filter = Windowed::min(10);
        filter.update(0, 5);
        filter.update(3, 9);
        filter.update(8, 7);
        assert_eq!(filter.get(), Some(5));
        filter.update(12, 8);
        assert_eq!(filter.get(), Some(7));
    }
}
