//! What can be checked without anybody else: the clock, the disk, sockets of this machine.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use ferrocore_swarm::lan::Networks;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use crate::args::Globals;
use crate::events::Check;
use crate::output::human_bytes;

/// How long a datagram to ourselves may take.
const ECHO_PATIENCE: Duration = Duration::from_secs(2);

/// What is written to see whether that works.
const PROBE: &[u8] = b"fcore doctor";

/// Where mDNS is spoken.
const MDNS_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const MDNS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
const MDNS_PORT: u16 = 5353;

/// Bytes of a message of mDNS that asks nothing.
const MDNS_HEADER_LEN: usize = 12;

/// No clock that is right shows less: 2026-01-01, in seconds since 1970.
const CLOCK_MIN: u64 = 1_767_225_600;

/// Nor more: 2100-01-01.
const CLOCK_MAX: u64 = 4_102_444_800;

/// Less free space than this is soon used up, in bytes.
const FREE_MIN: u64 = 256 << 20;

/// Whether the clock can be right; nobody is asked for the time.
pub(super) fn clock() -> Check {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = now.map_or(0, |since| since.as_secs());
    match seconds {
        CLOCK_MIN..=CLOCK_MAX => Check::good("clock", "shows a time that can be"),
        _ => Check::bad(
            "clock",
            format!("shows {seconds} seconds since 1970, which cannot be"),
            "set it: announcements and records carry the time",
        ),
    }
}

/// Whether the store can be written, and has room.
pub(super) fn disk(dir: &Path) -> Check {
    let there = dir.ancestors().find(|each| each.is_dir());
    let there = there.unwrap_or(Path::new("."));
    let place = there.display();
    if let Err(error) = write(there) {
        let hint = "make it writable, or name another place with --store DIR";
        return Check::bad("disk", format!("cannot write in {place}: {error}"), hint);
    }
    match free(there) {
        Some(free) if free < FREE_MIN => Check::bad(
            "disk",
            format!("only {} free at {place}", human_bytes(free)),
            "free some, or name another place with --store DIR",
        ),
        Some(free) => Check::good("disk", format!("{} free at {place}", human_bytes(free))),
        None => Check::good("disk", format!("{place} can be written")),
    }
}

fn write(dir: &Path) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(dir)?;
    file.write_all(PROBE)?;
    file.sync_all()
}

/// Bytes that we may still write.
#[cfg(unix)]
fn free(dir: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(dir).ok()?;
    #[allow(
        clippy::useless_conversion,
        reason = "these are 32 bits wide on some systems"
    )]
    let (blocks, size) = (
        u64::from(stat.blocks_available()),
        u64::from(stat.fragment_size()),
    );
    Some(blocks.saturating_mul(size))
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}

/// Whether a UDP socket can be opened where the options say, and takes datagrams.
pub(super) async fn udp(globals: &Globals) -> Check {
    let host = globals.host.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let place = SocketAddr::from((host, globals.port.unwrap_or(0)));
    let at_home = match host.is_unspecified() {
        true => Ipv4Addr::LOCALHOST,
        false => host,
    };
    let echoed = async { echo(UdpSocket::bind(place).await?, at_home.into()).await };
    match echoed.await {
        Ok(()) => Check::good("udp", format!("a socket on {host} sends and receives")),
        Err(error) => Check::bad(
            "udp",
            format!("no datagram passes at {place}: {error}"),
            "choose another --host or --port, and let the firewall pass UDP",
        ),
    }
}

/// Whether this machine is in a local network.
pub(super) fn interfaces(networks: &Networks) -> Check {
    match networks.is_empty() {
        false => Check::good("lan", "this machine is in a local network"),
        true => Check::bad(
            "lan",
            "this machine is in no local network",
            "connect it to one, or leave it out with --no-lan",
        ),
    }
}

/// Whether multicast comes back to this machine by an interface of these networks: one is enough to be found in. It leaves
/// the machine not: what a network does with it, only another machine can tell.
pub(super) async fn multicast(networks: &Networks) -> Check {
    let mut trying = JoinSet::new();
    for (address, index) in networks.own_addresses() {
        trying.spawn(async move { (address, comes_back(address, index).await) });
    }
    let (mut works, mut fails) = (Vec::new(), Vec::new());
    for (address, tried) in trying.join_all().await {
        match tried {
            Ok(()) => works.push(address.to_string()),
            Err(error) => fails.push(format!("{address}: {error}")),
        }
    }
    works.sort();
    fails.sort();
    let (here, not) = (works.join(", "), fails.join("; "));
    match (works.as_slice(), fails.as_slice()) {
        ([], _) => Check::bad(
            "mdns",
            format!("multicast does not work at {not}"),
            "let the firewall pass UDP to 224.0.0.251, port 5353; or leave it out with --no-lan",
        ),
        (_, []) => {
            let detail = format!("multicast works at {here}, as far as this machine can tell");
            Check::good("mdns", detail)
        }
        _ => Check::good(
            "mdns",
            format!("multicast works at {here}, but not at {not}"),
        ),
    }
}

/// Has a datagram go to where mDNS is spoken, and come back, by the interface with this address and number: a machine
/// without a default route has no other way to such an address. Nothing leaves the machine.
async fn comes_back(address: IpAddr, index: Option<u32>) -> io::Result<()> {
    let (socket, group) = match address {
        IpAddr::V4(address) => {
            let socket = mdns_socket(Ipv4Addr::UNSPECIFIED.into())?;
            socket.join_multicast_v4(MDNS_V4, address)?;
            SockRef::from(&socket).set_multicast_if_v4(&address)?;
            socket.set_multicast_loop_v4(true)?;
            socket.set_multicast_ttl_v4(0)?;
            (socket, MDNS_V4.into())
        }
        IpAddr::V6(_) => {
            let index = index.unwrap_or(0);
            let socket = mdns_socket(Ipv6Addr::UNSPECIFIED.into())?;
            socket.join_multicast_v6(&MDNS_V6, index)?;
            SockRef::from(&socket).set_multicast_if_v6(index)?;
            socket.set_multicast_loop_v6(true)?;
            SockRef::from(&socket).set_multicast_hops_v6(0)?;
            (socket, MDNS_V6.into())
        }
    };
    echo(socket, group).await
}

/// A socket that shares the port of mDNS with whoever else speaks that on this machine.
fn mdns_socket(place: IpAddr) -> io::Result<UdpSocket> {
    let place = SocketAddr::new(place, MDNS_PORT);
    let socket = Socket::new(Domain::for_address(place), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    if place.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&place.into())?;
    UdpSocket::from_std(socket.into())
}

/// Sends a datagram from a socket to its own port at `host`, and waits for it. To mDNS it is a message that asks nothing.
async fn echo(socket: UdpSocket, host: IpAddr) -> io::Result<()> {
    let mut message = [0; MDNS_HEADER_LEN];
    let [high, low, ..] = &mut message; // its id
    [*high, *low] = (std::process::id() as u16).to_be_bytes();
    let to = SocketAddr::new(host, socket.local_addr()?.port());
    socket.send_to(&message, to).await?;
    let mut buffer = [0; MDNS_HEADER_LEN + 1];
    let heard = async {
        // What others say there is longer, or has another id.
        while socket.recv_from(&mut buffer).await?.0 != message.len()
            || !buffer.starts_with(&message)
        {}
        Ok(())
    };
    let heard = tokio::time::timeout(ECHO_PATIENCE, heard).await;
    heard.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
