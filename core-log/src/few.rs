//! A map with few entries, as there are suppliers of a core: it takes what they need and no more, since most
//! of many thousand cores have one.

/// A sorted list of keys and values.
#[derive(Debug)]
pub(crate) struct Few<K, V> {
    entries: Vec<(K, V)>,
}

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
        }
    }
}

impl<K: Ord + Copy, V> Few<K, V> {
    /// As in other maps.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        match self.place(key) {
            Ok(at) => {
                if let Some((_, old)) = self.entries.get_mut(at) {
                    *old = value;
                }
            }
            Err(at) => self.insert_at(at, key, value),
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.place(*key).ok()?;
        let (_, value) = self.entries.remove(at);
        if self.entries.is_empty() {
            self.entries = Vec::new();
        }
        Some(value)
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let at = self.place(*key).ok()?;
        self.entries.get(at).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.place(*key).ok()?;
        self.entries.get_mut(at).map(|(_, value)| value)
    }

    /// The value of `key`, made by `value` if there is none.
    pub(crate) fn get_or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        let at = match self.place(key) {
            Ok(at) => at,
            Err(at) => {
                self.insert_at(at, key, value());
                at
            }
        };
        let entry = self.entries.get_mut(at);
        let (_, value) = entry.expect("it was found or put there");
        value
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    fn place(&self, key: K) -> Result<usize, usize> {
        self.entries.binary_search_by(|(known, _)| known.cmp(&key))
    }

    fn insert_at(&mut self, at: usize, key: K, value: V) {
        if self.entries.len() == self.entries.capacity() {
            // One for the first, which a vector would take four for.
            self.entries.reserve_exact(self.entries.len().max(1));
        }
        self.entries.insert(at, (key, value));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map(course in prop::collection::vec((0..3, 0..12_u64, any::<u8>()), 0..60)) {
            let (mut few, mut map) = (Few::default(), BTreeMap::new());
            for (what, key, value) in course {
                match what {
                    0 => {
                        few.insert(key, value);
                        map.insert(key, value);
                    }
                    1 => prop_assert_eq!(few.remove(&key), map.remove(&key)),
                    _ => {
                        let found = *few.get_or_insert_with(key, || value);
                        prop_assert_eq!(found, *map.entry(key).or_insert(value));
                    }
                }
                prop_assert_eq!(few.get(&key), map.get(&key));
                prop_assert!(few.iter().eq(map.iter()));
                prop_assert!(few.values().eq(map.values()));
            }
        }
    }

    #[test]
    fn one_entry_takes_room_for_one() {
        let mut few = Few::default();
        few.insert(1, [0_u8; 100]);
        assert_eq!(few.entries.capacity(), 1);
        few.remove(&1);
        assert_eq!(few.entries.capacity(), 0);
    }
}
