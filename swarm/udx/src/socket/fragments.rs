//! Whether datagrams of a socket may be cut on their way.
//! Knows the options of Linux, which are a socket's, not a datagram's. Does not know when fragments are wanted.
//!
//! Without them a datagram that does not fit is dropped, by which the search for the MTU learns what passes.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod options {
    use rustix::net::sockopt::{
        Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
    };
    use tokio::net::UdpSocket;

    /// An option that is refused leaves the socket as it is: the datagram goes whole, or not at all.
    pub(in super::super) fn allow(socket: &UdpSocket, is_ipv6: bool) {
        set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DONT).ok();
        if is_ipv6 {
            set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DONT).ok();
        }
    }

    /// As `quinn-udp` has set it.
    pub(in super::super) fn forbid(socket: &UdpSocket, is_ipv6: bool) {
        set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::PROBE).ok();
        if is_ipv6 {
            set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::PROBE).ok();
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod options {
    use tokio::net::UdpSocket;

    pub(in super::super) fn allow(_: &UdpSocket, _: bool) {}
    pub(in super::super) fn forbid(_: &UdpSocket, _: bool) {}
}

pub(super) use options::{allow, forbid};
