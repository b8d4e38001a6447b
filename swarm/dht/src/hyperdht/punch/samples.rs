//! What several nodes saw of one socket, and what that says of the NAT in front of it.
//! Knows the rules of `hyperdht/lib/nat.js` 6.34. Does not know whom to ask.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::hyperdht::noise::Firewall;

/// How many nodes to ask.
pub const SAMPLES: usize = 4;

/// How many samples are kept of one socket; later ones are ignored.
pub const SAMPLES_MAX: usize = 16;

/// With how many samples the first conclusion is drawn.
const CONCLUDE_FROM: usize = 3;

/// What was seen of one socket.
#[derive(Clone, Debug)]
pub struct Samples {
    is_firewalled: bool,
    /// Whom we have heard.
    nodes: Vec<SocketAddrV4>,
    hosts: Vec<(Ipv4Addr, usize)>,
    /// Most often seen first.
    full: Vec<(SocketAddrV4, usize)>,
    firewall: Firewall,
    is_complete: bool,
    is_frozen: bool,
}

impl Samples {
    /// Nothing yet. Who is known not to be behind a firewall is open whatever is seen.
    pub fn new(is_firewalled: bool) -> Self {
        Self {
            is_firewalled,
            nodes: Vec::new(),
            hosts: Vec::new(),
            full: Vec::new(),
            firewall: match is_firewalled {
                true => Firewall::UNKNOWN,
                false => Firewall::OPEN,
            },
            is_complete: false,
            is_frozen: false,
        }
    }

    /// `node` sees the socket at `seen`. Each node counts once.
    pub fn add(&mut self, seen: SocketAddrV4, node: SocketAddrV4) {
        if self.nodes.len() >= SAMPLES_MAX || self.nodes.contains(&node) {
            return;
        }
        self.nodes.push(node);
        count(&mut self.hosts, *seen.ip());
        count(&mut self.full, seen);
        if !self.is_frozen {
            self.conclude();
        }
    }

    /// Nobody else will answer.
    pub fn complete(&mut self) {
        self.is_complete = true;
    }

    /// Keeps the conclusion as it is from now on: the other side was told.
    pub fn freeze(&mut self) {
        self.is_frozen = true;
    }

    /// Whether waiting for more makes no sense.
    pub fn is_settled(&self) -> bool {
        let is_known = self.firewall == Firewall::CONSISTENT
            || (self.firewall == Firewall::OPEN && !self.nodes.is_empty());
        is_known || self.is_complete || self.nodes.len() >= SAMPLES
    }

    /// The conclusion.
    pub fn firewall(&self) -> Firewall {
        self.firewall
    }

    /// Where the other side may try to reach the socket; nothing without a conclusion, and port 0 if it has to guess.
    pub fn addresses(&self) -> Option<Vec<SocketAddrV4>> {
        let full = || self.full.iter();
        let addresses = match self.firewall {
            Firewall::UNKNOWN => return None,
            Firewall::RANDOM => {
                let hosts = self.hosts.first().into_iter();
                hosts.map(|(host, _)| SocketAddrV4::new(*host, 0)).collect()
            }
            _ => {
                let often = full().filter(|(_, hits)| *hits >= 2).count().max(2);
                full().take(often).map(|(seen, _)| *seen).collect()
            }
        };
        Some(addresses)
    }

    fn conclude(&mut self) {
        if !self.is_firewalled || self.nodes.len() < CONCLUDE_FROM {
            return;
        }
        let hits = |at: usize| self.full.get(at).map_or(0, |(_, hits)| *hits);
        let sampled = self.nodes.len();
        self.firewall = match hits(0) {
            3.. => Firewall::CONSISTENT,
            0 | 1 => Firewall::RANDOM,
            _ if self.hosts.len() == 1 && sampled > 3 => Firewall::RANDOM,
            _ if self.hosts.len() > 1 && hits(1) > 1 => Firewall::CONSISTENT,
            _ if sampled > 4 => Firewall::RANDOM,
            _ => self.firewall,
        };
    }
}

/// Counts `seen` and keeps the most frequent first.
fn count<T: PartialEq>(samples: &mut Vec<(T, usize)>, seen: T) {
    match samples.iter_mut().find(|(known, _)| *known == seen) {
        Some((_, hits)) => *hits += 1,
        None => samples.push((seen, 1)),
    }
    samples.sort_by_key(|(_, hits)| std::cmp::Reverse(*hits));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is concluded from sightings `host:port`, each by another node.
    fn concluded(seen: &[(u8, u16)]) -> Samples {
        let mut samples = Samples::new(true);
        for (node, (host, port)) in seen.iter().enumerate() {
            let seen = SocketAddrV4::new(Ipv4Addr::new(9, 9, 9, *host), *port);
            let node = SocketAddrV4::new(Ipv4Addr::new(8, 8, 8, 8), node as u16);
            samples.add(seen, node);
            samples.add(seen, node);
        }
        samples
    }

    #[test]
    fn nats_are_told_apart_as_in_javascript() {
        for (seen, firewall) in [
            (&[(1, 1), (1, 1)][..], Firewall::UNKNOWN),
            (&[(1, 1), (1, 1), (1, 1)], Firewall::CONSISTENT),
            (&[(1, 1), (1, 2), (1, 3)], Firewall::RANDOM),
            (&[(1, 1), (1, 1), (1, 2)], Firewall::UNKNOWN),
            (&[(1, 1), (1, 1), (1, 2), (1, 2)], Firewall::RANDOM),
            (&[(1, 1), (1, 1), (2, 2), (2, 2)], Firewall::CONSISTENT),
            (&[(1, 1), (1, 1), (2, 2), (2, 3)], Firewall::UNKNOWN),
            (&[(1, 1), (1, 1), (2, 2), (2, 3), (1, 4)], Firewall::RANDOM),
        ] {
            assert_eq!(concluded(seen).firewall(), firewall, "{seen:?}");
        }
    }

    #[test]
    fn addresses_are_those_seen_often_or_one_of_a_random_nat() {
        let ports = |seen: &[(u8, u16)]| {
            let addresses = concluded(seen).addresses();
            addresses.map(|list| list.iter().map(SocketAddrV4::port).collect::<Vec<_>>())
        };
        assert_eq!(ports(&[(1, 1)]), None);
        assert_eq!(ports(&[(1, 1), (1, 2), (1, 3)]), Some(vec![0]), "any");
        assert_eq!(ports(&[(1, 5), (1, 4), (1, 4), (1, 4)]), Some(vec![4, 5]));
    }

    #[test]
    fn a_conclusion_settles_and_a_frozen_one_stays() {
        let mut samples = concluded(&[(1, 1), (1, 1)]);
        assert!(!samples.is_settled());
        samples.freeze();
        for port in 0..100 {
            let node = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
            samples.add(SocketAddrV4::new(Ipv4Addr::new(7, 7, 7, 7), port), node);
        }
        assert_eq!(samples.firewall(), Firewall::UNKNOWN);
        assert_eq!(samples.nodes.len(), SAMPLES_MAX);
        assert!(samples.is_settled());
    }
}
