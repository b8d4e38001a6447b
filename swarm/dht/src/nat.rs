//! Our public address, from what others say they see.
//! Knows how many of them must agree (`nat-sampler` 1.0.1). Does not know who they are, or what is then done.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};

/// The samples kept; older ones are forgotten.
pub const SAMPLES_MAX: usize = 16;

/// What others see of us, the last [`SAMPLES_MAX`] of them.
#[derive(Debug, Clone, Default)]
pub struct NatSampler {
    samples: VecDeque<SocketAddrV4>,
}

/// What enough of them agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Seen {
    /// Nothing.
    #[default]
    Nothing,
    /// The host, but a port for each of them: a NAT that picks ports anew.
    Host(Ipv4Addr),
    /// Host and port.
    Address(SocketAddrV4),
}

impl NatSampler {
    /// Somebody sees us at `address`. Returns how many of those kept say so.
    pub fn add(&mut self, address: SocketAddrV4) -> usize {
        if self.samples.len() >= SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(address);
        self.count(|sample| *sample == address)
    }

    /// What they agree on: all but one of four, two of eight, three of twelve or more.
    pub fn seen(&self) -> Seen {
        let needed = match self.samples.len() {
            0 => return Seen::Nothing,
            len @ 1..4 => len,
            len @ 4..8 => len - 1,
            len @ 8..12 => len - 2,
            len => len - 3,
        };
        // More than half agree or none does, so the order does not matter.
        let agree = |address: &&SocketAddrV4| self.count(|sample| sample == *address) >= needed;
        if let Some(address) = self.samples.iter().find(agree) {
            return Seen::Address(*address);
        }
        let agree = |host: &Ipv4Addr| self.count(|sample| sample.ip() == host) >= needed;
        let mut hosts = self.samples.iter().map(|sample| *sample.ip());
        hosts.find(agree).map_or(Seen::Nothing, Seen::Host)
    }

    /// How many samples are kept.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether nobody has said anything.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The samples, oldest first.
    pub fn samples(&self) -> impl Iterator<Item = SocketAddrV4> + '_ {
        self.samples.iter().copied()
    }

    fn count(&self, is: impl Fn(&SocketAddrV4) -> bool) -> usize {
        self.samples.iter().filter(|sample| is(sample)).count()
    }
}

impl Seen {
    /// The host, if it is known.
    pub fn host(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Nothing => None,
            Self::Host(host) => Some(*host),
            Self::Address(address) => Some(*address.ip()),
        }
    }

    /// Host and port, if everybody sees the same port.
    pub fn address(&self) -> Option<SocketAddrV4> {
        match self {
            Self::Address(address) => Some(*address),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_samples_are_forgotten() {
        let mut sampler = NatSampler::default();
        let old: SocketAddrV4 = "1.1.1.1:1".parse().unwrap();
        let new: SocketAddrV4 = "2.2.2.2:2".parse().unwrap();
        for _ in 0..100 {
            sampler.add(old);
        }
        assert_eq!(sampler.len(), SAMPLES_MAX);
        assert_eq!(sampler.seen(), Seen::Address(old));
        for _ in 0..12 {
            sampler.add(new);
        }
        assert_eq!(sampler.seen(), Seen::Nothing, "12 of 16 are too few");
        assert_eq!(sampler.add(new), 13);
        assert_eq!(sampler.seen(), Seen::Address(new));
    }
}
