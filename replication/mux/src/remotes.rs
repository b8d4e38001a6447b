//! The peer's channels by the numbers that it gave them.
//!
//! Knows which numbers it may use next. Numbers that are free take next to nothing: a peer may use up all of them and
//! have every channel rejected. Does not know what its channels are for.

use crate::error::PeerMisbehaved;
use crate::limits::REMOTE_CHANNELS_MAX;

/// So many numbers in a row take memory together.
const CHUNK: usize = 64;

/// What the numbers in use stand for.
#[derive(Debug)]
pub(crate) struct Remotes<T> {
    chunks: Vec<Option<Box<Chunk<T>>>>,
    /// The greatest number that was used.
    seen: u32,
}

#[derive(Debug)]
struct Chunk<T> {
    slots: [Option<T>; CHUNK],
    used: usize,
}

impl<T> Default for Remotes<T> {
    fn default() -> Self {
        Self {
            chunks: Vec::new(),
            seen: 0,
        }
    }
}

impl<T> Remotes<T> {
    /// Notes that the peer uses a `number`: a free one, or the one past the greatest.
    ///
    /// # Errors
    /// [`PeerMisbehaved::OpenedWrongChannel`] if it is another; [`PeerMisbehaved::TooManyChannels`].
    pub(crate) fn check(&mut self, number: u64) -> Result<u32, PeerMisbehaved> {
        let wrong = PeerMisbehaved::OpenedWrongChannel { channel: number };
        let Ok(number) = u32::try_from(number) else {
            return Err(wrong);
        };
        if number == 0 || number > self.seen + 1 || self.get(number).is_some() {
            return Err(wrong);
        }
        if number as usize > REMOTE_CHANNELS_MAX {
            return Err(PeerMisbehaved::TooManyChannels);
        }
        self.seen = self.seen.max(number);
        Ok(number)
    }

    /// What a number in use stands for.
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        let (chunk, slot) = place(number)?;
        self.chunks.get(chunk)?.as_ref()?.slots.get(slot)?.as_ref()
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let (chunk, slot) = place(number)?;
        let chunk = self.chunks.get_mut(chunk)?.as_mut()?;
        chunk.slots.get_mut(slot)?.as_mut()
    }

    /// What all numbers in use stand for.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let chunks = self.chunks.iter().flatten();
        chunks.flat_map(|chunk| chunk.slots.iter().flatten())
    }

    /// Puts a number in use that was [checked](Self::check), or changes what it stands for.
    pub(crate) fn insert(&mut self, number: u32, remote: T) {
        let Some((chunk, slot)) = place(number) else {
            return;
        };
        if self.chunks.len() <= chunk {
            self.chunks.resize_with(chunk + 1, || None);
        }
        let chunk = self.chunks.get_mut(chunk);
        let chunk = chunk.map(|chunk| chunk.get_or_insert_with(Box::default));
        if let Some(chunk) = chunk
            && let Some(slot) = chunk.slots.get_mut(slot)
        {
            chunk.used += usize::from(slot.replace(remote).is_none());
        }
    }

    /// Frees a number.
    pub(crate) fn remove(&mut self, number: u32) -> Option<T> {
        let (chunk, slot) = place(number)?;
        let place = self.chunks.get_mut(chunk)?;
        let chunk = place.as_mut()?;
        let removed = chunk.slots.get_mut(slot)?.take()?;
        chunk.used -= 1;
        if chunk.used == 0 {
            *place = None;
        }
        Some(removed)
    }
}

impl<T> Default for Chunk<T> {
    fn default() -> Self {
        Self {
            slots: [const { None }; CHUNK],
            used: 0,
        }
    }
}

/// Where a number stands; 0 stands nowhere.
fn place(number: u32) -> Option<(usize, usize)> {
    let slot = (number as usize).checked_sub(1)?;
    Some((slot / CHUNK, slot % CHUNK))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a peer that uses up all numbers, one after the other or all at once, leaves nothing behind but its last one.
    #[test]
    fn numbers_that_are_free_take_nothing() {
        let mut remotes = Remotes::default();
        let all = 1..=REMOTE_CHANNELS_MAX as u32;
        for number in all.clone() {
            assert_eq!(remotes.check(number.into()), Ok(number));
            remotes.insert(number, number);
            let wrong = PeerMisbehaved::OpenedWrongChannel {
                channel: number.into(),
            };
            assert_eq!(remotes.check(number.into()), Err(wrong), "it is in use");
            assert_eq!(remotes.remove(number), Some(number));
            assert!(remotes.chunks.iter().all(Option::is_none));
        }
        let next = REMOTE_CHANNELS_MAX as u64 + 1;
        assert_eq!(remotes.check(next), Err(PeerMisbehaved::TooManyChannels));
        all.clone()
            .for_each(|number| remotes.insert(number, number));
        for number in all.clone() {
            assert_eq!(remotes.get(number), Some(&number));
            assert_eq!(remotes.get_mut(number), Some(&mut number.clone()));
        }
        for number in all {
            assert_eq!(remotes.remove(number), Some(number));
        }
        assert!(remotes.chunks.iter().all(Option::is_none));
        assert!(remotes.remove(1).is_none() && remotes.get(0).is_none());
        assert_eq!(remotes.check(7), Ok(7), "and it is free again");
    }
}
