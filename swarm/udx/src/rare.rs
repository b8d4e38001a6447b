//! State that most streams never need, such as that of lost packets: a pointer until it is asked for.
//! Knows when memory is taken and given back. Does not know what it holds.

/// A `T` that is made when it is first changed, and gone again once it is cleared.
#[derive(Debug)]
pub(crate) struct Rare<T>(Option<Box<T>>);

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Default> Rare<T> {
    /// What there is.
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.as_deref()
    }

    /// What there is, to be changed.
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    /// What there is from now on.
    pub(crate) fn make(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }

    /// Gives the memory back.
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }
}
