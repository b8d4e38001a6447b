//! Which of this machine's networks are local, and which addresses lie in them.
//! Knows interfaces by name, kind and subnet. Does not know who is in them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use if_addrs::{IfAddr, Interface};

/// How long a list of interfaces is taken to hold.
const FRESH: Duration = Duration::from_secs(2);

/// How names of tunnels begin, on the systems we know.
const TUNNELS: [&str; 12] = [
    "tun",
    "tap",
    "utun",
    "wg",
    "ppp",
    "ipsec",
    "tailscale",
    "zt",
    "nordlynx",
    "proton",
    "gpd",
    "vpn",
];

/// What else than local networks is included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Include {
    /// This machine itself, for tests without a network.
    pub loopback: bool,
    /// Tunnels and other point-to-point links, whose far end may be anywhere.
    pub tunnels: bool,
}

impl Include {
    /// Whether this interface leads to a local network.
    pub(super) fn admits(self, interface: &Interface) -> bool {
        let name = interface.name.to_ascii_lowercase();
        let is_tunnel = interface.is_p2p || TUNNELS.iter().any(|prefix| name.starts_with(prefix));
        (self.loopback || !interface.is_loopback()) && (self.tunnels || !is_tunnel)
    }
}

/// The local networks of this machine, looked up again every so often.
#[derive(Debug, Clone)]
pub struct Networks {
    include: Include,
    known: Arc<Mutex<Option<Known>>>,
}

/// Subnets, and since when they are known.
type Known = (Instant, Vec<IfAddr>);

impl Networks {
    /// Those that are local, and those that are included.
    pub fn new(include: Include) -> Self {
        Self {
            include,
            known: Arc::default(),
        }
    }

    /// Whether `address` is in a subnet of one of them: nobody on a local network can make us dial anywhere else.
    pub fn contain(&self, address: &SocketAddr) -> bool {
        let address = address.ip().to_canonical();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known
            .as_ref()
            .is_none_or(|(since, _)| since.elapsed() > FRESH)
        {
            *known = Some((Instant::now(), self.subnets()));
        }
        let subnets = known.iter().flat_map(|(_, subnets)| subnets);
        subnets.into_iter().any(|subnet| is_in(subnet, &address))
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.subnets().is_empty()
    }

    /// The addresses that this machine has in them, each with the number of its interface where the system tells.
    pub fn own_addresses(&self) -> Vec<(IpAddr, Option<u32>)> {
        let interfaces = self.interfaces().into_iter();
        interfaces.map(|each| (each.ip(), each.index)).collect()
    }

    pub(super) fn include(&self) -> Include {
        self.include
    }

    fn subnets(&self) -> Vec<IfAddr> {
        let interfaces = self.interfaces().into_iter();
        interfaces.map(|interface| interface.addr).collect()
    }

    fn interfaces(&self) -> Vec<Interface> {
        let mut interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        interfaces.retain(|each| self.include.admits(each));
        interfaces
    }
}

fn is_in(subnet: &IfAddr, address: &IpAddr) -> bool {
    match (subnet, address) {
        (IfAddr::V4(subnet), IpAddr::V4(address)) => {
            let mask = subnet.netmask.to_bits();
            let is_host = !is_edge(mask, *address);
            is_host && subnet.ip.to_bits() & mask == address.to_bits() & mask
        }
        (IfAddr::V6(subnet), IpAddr::V6(address)) => {
            let mask = subnet.netmask.to_bits();
            is_unicast(*address) && subnet.ip.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

/// Whether an address stands for a whole network of so many bits.
fn is_edge(mask: u32, address: Ipv4Addr) -> bool {
    let host_bits = address.to_bits() & !mask;
    let is_network = mask.count_ones() < 31 && (host_bits == 0 || host_bits == !mask);
    is_network || address.is_multicast() || address.is_unspecified()
}

fn is_unicast(address: Ipv6Addr) -> bool {
    !address.is_multicast() && !address.is_unspecified()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use if_addrs::{IfOperStatus, Ifv4Addr};

    use super::*;

    fn interface(name: &str, ip: Ipv4Addr) -> Interface {
        let addr = Ifv4Addr {
            ip,
            netmask: Ipv4Addr::new(255, 255, 255, 0),
            prefixlen: 24,
            broadcast: None,
        };
        Interface {
            name: name.to_owned(),
            addr: IfAddr::V4(addr),
            index: None,
            oper_status: IfOperStatus::Up,
            is_p2p: false,
        }
    }

    #[test]
    fn loopback_and_tunnels_are_left_out_unless_asked_for() {
        let local = Ipv4Addr::new(192, 168, 1, 2);
        let all = Include {
            loopback: true,
            tunnels: true,
        };
        for (name, ip, is_local) in [
            ("eth0", local, true),
            ("wlp3s0", local, true),
            ("en0", local, true),
            ("lo", Ipv4Addr::LOCALHOST, false),
            ("tun0", local, false),
            ("utun4", local, false),
            ("wg0", local, false),
            ("tailscale0", local, false),
        ] {
            let interface = interface(name, ip);
            assert_eq!(Include::default().admits(&interface), is_local, "{name}");
            assert!(all.admits(&interface));
        }
    }

    #[test]
    fn only_neighbours_are_in_a_subnet() {
        let subnet = interface("eth0", Ipv4Addr::new(192, 168, 1, 2)).addr;
        for (address, is_neighbour) in [
            ("192.168.1.77", true),
            ("192.168.1.0", false),
            ("192.168.1.255", false),
            ("192.168.2.1", false),
            ("127.0.0.1", false),
            ("8.8.8.8", false),
            ("224.0.0.251", false),
            ("::1", false),
        ] {
            assert_eq!(
                is_in(&subnet, &address.parse().unwrap()),
                is_neighbour,
                "{address}"
            );
        }
    }
}
