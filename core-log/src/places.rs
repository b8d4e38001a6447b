//! A bounded number of items by their numbers: what caches are made of.
//!
//! Knows numbers. Does not know what it keeps, nor why.

/// Items by number, at most so many: each has one place, which it takes from whatever is there.
pub(crate) struct Places<T, const MAX: usize> {
    items: Vec<Option<(u64, Box<T>)>>,
}

impl<T, const MAX: usize> Places<T, MAX> {
    pub(crate) fn new() -> Self {
        let items = Vec::new();
        Self { items }
    }

    pub(crate) fn get(&self, number: u64) -> Option<&T> {
        let (found, item) = self.items.get(Self::place(number))?.as_ref()?;
        (*found == number).then_some(item)
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let (found, item) = self.items.get_mut(Self::place(number))?.as_mut()?;
        (*found == number).then_some(item)
    }

    pub(crate) fn get_or_insert(&mut self, number: u64, make: impl FnOnce() -> T) -> &mut T {
        let slot = self.slot(number);
        slot.take_if(|(found, _)| *found != number);
        &mut slot.get_or_insert_with(|| (number, Box::new(make()))).1
    }

    /// Returns what was there, under whatever number.
    pub(crate) fn insert(&mut self, number: u64, item: T) -> Option<T> {
        let replaced = self.slot(number).replace((number, Box::new(item)));
        replaced.map(|(_, item)| *item)
    }

    /// All items, in no particular order.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter().flatten().map(|(_, item)| &**item)
    }

    fn slot(&mut self, number: u64) -> &mut Option<(u64, Box<T>)> {
        let place = Self::place(number);
        if place >= self.items.len() {
            self.items.resize_with(place + 1, || None);
        }
        #[expect(clippy::indexing_slicing, reason = "it was just made long enough")]
        &mut self.items[place]
    }

    pub(crate) fn remove(&mut self, number: u64) {
        let place = Self::place(number);
        if let Some(slot) = self.items.get_mut(place) {
            slot.take_if(|(found, _)| *found == number);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.items.clear();
    }

    fn place(number: u64) -> usize {
        ((number ^ number >> 56) % MAX as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_stay_within_their_bound() {
        let mut places = Places::<u64, 10>::new();
        for number in 0..25 {
            places.insert(number, number);
        }
        assert_eq!(places.items.len(), 10);
        let kept: Vec<_> = (0..30).filter_map(|number| places.get(number)).collect();
        assert!(kept.into_iter().copied().eq(15..25));
    }
}
