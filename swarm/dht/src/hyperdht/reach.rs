//! Which addresses are worth a packet from here.
//! Knows address ranges (`bogon` 1.2) and nearness by octets (`hyperdht/lib/holepuncher.js` 6.34). Does not know
//! interfaces or sockets: what is ours comes in.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Whether `ip` belongs to networks of somebody's own: several hosts have it, none of them on the internet.
pub fn is_private(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    let is_carriers = a == 100 && (64..128).contains(&b);
    ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_carriers
}

/// Whether `ip` is no host's at all.
pub fn is_reserved(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_protocols = (a, b, c) == (192, 0, 0);
    let is_benchmarks = a == 198 && (18..20).contains(&b);
    a == 0 || a >= 224 || ip.is_documentation() || is_protocols || is_benchmarks
}

/// Whether nothing on the internet has `ip`.
pub fn is_bogon(ip: Ipv4Addr) -> bool {
    is_private(ip) || is_reserved(ip)
}

/// The address among `theirs` that is most likely on a network of `ours`: the first with three octets in common,
/// else with two, else with one.
pub fn match_address(ours: &[Ipv4Addr], theirs: &[SocketAddrV4]) -> Option<SocketAddrV4> {
    let mut best = None;
    for our in ours {
        for their in theirs {
            let shared = shared_octets(*our, *their.ip());
            if shared >= 3 {
                return Some(*their);
            }
            if shared > best.map_or(0, |(most, _)| most) {
                best = Some((shared, *their));
            }
        }
    }
    best.map(|(_, address)| address)
}

fn shared_octets(a: Ipv4Addr, b: Ipv4Addr) -> usize {
    let pairs = a.octets().into_iter().zip(b.octets());
    pairs.take_while(|(a, b)| a == b).count()
}
