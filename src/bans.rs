//! Keys that are kept away for a time, and what others are close to it for.
//! Knows keys and times. Does not know why.

use std::collections::HashMap;
use std::time::Duration;

use ferrocore_primitives::sign::PublicKey;
use tokio::time::Instant;

use crate::limits::{BAD_PROOFS_MAX, BANS_MAX};

/// At most [`BANS_MAX`] keys, and as many with bad proofs.
#[derive(Debug, Default)]
pub(crate) struct Bans {
    until: HashMap<PublicKey, Instant>,
    /// How many bad proofs came from a key since then.
    bad_proofs: HashMap<PublicKey, (Instant, u32)>,
}

impl Bans {
    /// Keeps a key away until then; of too many, whose time is over first comes back.
    pub(crate) fn ban(&mut self, key: PublicKey, until: Instant) {
        self.until.insert(key, until);
        if self.until.len() > BANS_MAX {
            forget_first(&mut self.until, |until| *until);
        }
    }

    /// Welcomes a key again. Whether it was kept away.
    pub(crate) fn lift(&mut self, key: &PublicKey) -> bool {
        self.bad_proofs.remove(key);
        self.until.remove(key).is_some()
    }

    /// A proof of this key's did not hold. Whether it was one too many.
    pub(crate) fn bad_proof(&mut self, key: PublicKey, now: Instant, memory: Duration) -> bool {
        let (since, count) = self.bad_proofs.entry(key).or_insert((now, 0));
        if now.saturating_duration_since(*since) > memory {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        let is_too_much = *count >= BAD_PROOFS_MAX;
        if is_too_much {
            self.bad_proofs.remove(&key);
        } else if self.bad_proofs.len() > BANS_MAX {
            forget_first(&mut self.bad_proofs, |(since, _)| *since);
        }
        is_too_much
    }

    /// Until when a key is kept away, if it is.
    pub(crate) fn until(&self, key: &PublicKey, now: Instant) -> Option<Instant> {
        self.until.get(key).copied().filter(|until| *until > now)
    }

    /// Who is kept away now, and when that changes next unless somebody else is banned.
    pub(crate) fn all(&mut self, now: Instant) -> (Vec<PublicKey>, Option<Instant>) {
        self.until.retain(|_, until| *until > now);
        let next = self.until.values().min().copied();
        (self.until.keys().copied().collect(), next)
    }
}

fn forget_first<T>(map: &mut HashMap<PublicKey, T>, time: impl Fn(&T) -> Instant) {
    let first = map.iter().min_by_key(|(_, value)| time(value));
    if let Some(first) = first.map(|(key, _)| *key) {
        map.remove(&first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> PublicKey {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        key.into()
    }

    #[test]
    fn bans_end_and_are_bounded() {
        let (mut bans, now) = (Bans::default(), Instant::now());
        let second = Duration::from_secs(1);
        let max = u32::try_from(BANS_MAX).unwrap();
        for number in 0..=max {
            bans.ban(key(number), now + second * (number + 1));
        }
        assert_eq!(bans.until(&key(0), now), None);
        assert_eq!(bans.until(&key(1), now), Some(now + 2 * second));
        assert_eq!(bans.until(&key(1), now + 2 * second), None);
        let (all, next) = bans.all(now + 2 * second);
        assert_eq!((all.len(), next), (BANS_MAX - 1, Some(now + 3 * second)));
        assert!(bans.lift(&key(2)) && !bans.lift(&key(2)));
    }

    #[test]
    fn bad_proofs_add_up_and_are_forgotten() {
        let (mut bans, now) = (Bans::default(), Instant::now());
        let memory = Duration::from_secs(60);
        for _ in 1..BAD_PROOFS_MAX {
            assert!(!bans.bad_proof(key(0), now, memory));
        }
        let later = now + 2 * memory;
        assert!(!bans.bad_proof(key(0), later, memory));
        for _ in 2..BAD_PROOFS_MAX {
            assert!(!bans.bad_proof(key(0), later, memory));
        }
        assert!(bans.bad_proof(key(0), later, memory));
        for number in 0..3 * u32::try_from(BANS_MAX).unwrap() {
            bans.bad_proof(key(number), later, memory);
        }
        assert!(bans.bad_proofs.len() <= BANS_MAX);
    }
}
