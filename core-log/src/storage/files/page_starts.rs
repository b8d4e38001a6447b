//! Where pages of a tree begin: what is remembered of a log's byte offsets.
//!
//! Within one history such an offset never changes, so it stays true whatever is appended.
//!
//! Knows numbers of pages. Does not know nodes.

/// Starts that share a place: as many as a line of the processor's cache holds.
const WAYS: usize = 4;
/// Most places, a power of two: at 64 bytes each, 4 MiB of memory.
const PLACES_MAX: usize = 1 << 16;
/// Places that the first start makes room for.
const PLACES_MIN: usize = 4;

const _: () = assert!(PLACES_MAX.is_power_of_two() && PLACES_MIN.is_power_of_two());

/// Numbers and starts, those learnt last in front; number 0, which needs none, where there is none.
type Place = [(u64, u64); WAYS];

/// The bytes at which pages begin, by the number of the page.
///
/// A table in which each number has one place, so that looking costs one access to memory; it grows until half
/// of it is full, or to its bound. Of more numbers than a place holds those learnt last stay.
pub(super) struct PageStarts {
    places: Vec<Place>,
    count: usize,
}

impl PageStarts {
    pub(super) fn new() -> Self {
        let (places, count) = (Vec::new(), 0);
        Self { places, count }
    }

    /// Where page `number` begins, if that is remembered. The first one begins at 0.
    pub(super) fn get(&self, number: u64) -> Option<u64> {
        if number == 0 {
            return Some(0);
        }
        let place = self.places.get(self.place(number))?;
        let found = place.iter().find(|(found, _)| *found == number);
        found.map(|(_, start)| *start)
    }

    pub(super) fn insert(&mut self, number: u64, start: u64) {
        if number == 0 {
            return;
        }
        if self.places.len() < PLACES_MAX && 2 * self.count >= WAYS * self.places.len() {
            self.grow();
        }
        let place = self.place(number);
        let Some(place) = self.places.get_mut(place) else {
            return;
        };
        let known = place.iter_mut().find(|(found, _)| *found == number);
        if let Some((_, known)) = known {
            *known = start;
            return;
        }
        place.rotate_right(1);
        let [first, ..] = place;
        self.count += usize::from(first.0 == 0);
        *first = (number, start);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    fn grow(&mut self) {
        let len = (2 * self.places.len()).max(PLACES_MIN);
        let before = std::mem::replace(&mut self.places, vec![Place::default(); len]);
        self.count = 0;
        for (number, start) in before.into_iter().flatten() {
            self.insert(number, start); // a number of 0 is left out
        }
    }

    /// Past the end if there is no place yet. By Fibonacci hashing, as Knuth has it: multiples of large powers of
    /// two, through which every search for a start goes, must not share a place.
    fn place(&self, number: u64) -> usize {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let bits = self.places.len().trailing_zeros(); // 64 of an empty table
        let hash = number.wrapping_mul(GOLDEN);
        hash.checked_shr(64 - bits).unwrap_or_default() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered(starts: &PageStarts, numbers: impl Iterator<Item = u64>) -> usize {
        let found = numbers.filter(|number| match starts.get(*number) {
            Some(start) => start == 2 * number,
            None => false,
        });
        found.count()
    }

    /// Goal: of a dense log all is remembered, of one with few blocks here nearly all, within the bound.
    #[test]
    fn nearly_all_are_remembered_and_no_more_than_fit() {
        let mut starts = PageStarts::new();
        assert_eq!((starts.get(0), starts.get(1)), (Some(0), None));
        let dense = (WAYS * PLACES_MAX) as u64 * 3 / 5;
        (0..dense).for_each(|number| starts.insert(number, 2 * number));
        let found = remembered(&starts, 0..dense) as u64;
        assert!(found > dense * 99 / 100, "{found} of {dense}");

        starts.clear();
        assert_eq!(starts.get(dense - 1), None);
        let sparse = || (1..9_000u64).map(|i| (i * 7_919 % 150_000) << (i % 8));
        sparse().for_each(|number| starts.insert(number, 2 * number));
        let found = remembered(&starts, sparse());
        assert!(found > 9_000 * 9 / 10, "{found} of 9,000");
        assert!(WAYS * starts.places.len() <= 4 * 9_000);

        let count = 3 * (WAYS * PLACES_MAX) as u64 + 7;
        (0..count).for_each(|number| starts.insert(number, 2 * number));
        assert_eq!(starts.places.len(), PLACES_MAX);
        assert_eq!(starts.get(count - 1), Some(2 * (count - 1)));
    }
}
