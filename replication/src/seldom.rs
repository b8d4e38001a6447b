//! State that most of many thousand channels do not need just now: it takes a pointer until they do.
//!
//! Knows when there is something. Does not know what.

/// A value that is its default unless somebody changed it, and takes no memory of its own until then.
#[derive(Debug)]
pub(crate) struct Seldom<T>(Option<Box<T>>);

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Default> Seldom<T> {
    /// The value, if it may differ from its default.
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.as_deref()
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    /// The value, which takes memory from now on.
    pub(crate) fn need(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }

    /// Takes it out, and gives its memory back.
    pub(crate) fn take(&mut self) -> T {
        self.0.take().map(|value| *value).unwrap_or_default()
    }

    /// Gives its memory back: it is its default again.
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }
}
