//! A cable between network namespaces that damages the datagrams on it.
//! Knows Ethernet frames, and where in them a datagram begins. Does not know what is in it.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::lossy::{Counts, Damage, Exit, Forwarder, Parcel};
use crate::network::Network;

/// A host's cable, through this process. Datagrams over IPv4 are damaged in both directions, without a checksum; all else passes
/// as it is, so TCP does not, where the network card would have made its checksums. Dropped, the cable is cut.
pub struct Wire {
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Wire {
    /// Takes the cable of a host. What happens follows from `seed`, and from when what comes.
    ///
    /// # Errors
    /// What the system said: then the test is to be skipped, with that message.
    pub fn start(network: &Network, host: u8, damage: Damage, seed: u64) -> Result<Self, String> {
        let (namespace, ends) = network.open_cable(host)?;
        let [one, two] = sockets(&namespace, ends)?.map(Arc::new);
        let (counts, stop) = (Arc::<Counts>::default(), Arc::<AtomicBool>::default());
        let (sender, parcels) = mpsc::channel();
        let mut threads: Vec<_> = [(0, &one, &two), (1, &two, &one)]
            .map(|(side, from, to)| {
                let (from, to) = (Arc::clone(from), Arc::clone(to));
                let (sender, stop) = (sender.clone(), Arc::clone(&stop));
                thread::spawn(move || receive(side, &from, &to, &sender, &stop))
            })
            .into();
        let exits =
            [one, two].map(|socket| Box::new(move |frame: &[u8]| put(&socket, frame)) as Exit);
        let forwarder = Forwarder::new(exits, HEADER_LEN, Arc::clone(&counts), damage, seed);
        threads.push(thread::spawn(move || forwarder.run(&parcels)));
        Ok(Self {
            counts,
            stop,
            threads,
        })
    }

    /// Datagrams handed over so far, doubled ones twice.
    pub fn passed(&self) -> u64 {
        self.counts.passed.load(Ordering::Relaxed)
    }

    /// Datagrams changed so far.
    pub fn changed(&self) -> u64 {
        self.counts.changed.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A socket for all frames on each of two devices of a namespace, which a thread has to enter for that.
fn sockets(namespace: &str, devices: [String; 2]) -> Result<[OwnedFd; 2], String> {
    let namespace = format!("/run/netns/{namespace}");
    let opening = thread::spawn(move || {
        let namespace = File::open(&namespace).map_err(|_| Errno::ENOENT)?;
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let [one, two] = devices;
        Ok([open(&one)?, open(&two)?])
    });
    let opened = opening.join().expect("it does not panic");
    opened.map_err(|error: Errno| format!("frames cannot be read: {error}"))
}

fn open(device: &str) -> nix::Result<OwnedFd> {
    let mut addresses = getifaddrs()?.filter(|each| each.interface_name == device);
    let address = addresses.find_map(|each| each.address?.as_link_addr().copied());
    let address: LinkAddr = address.ok_or(Errno::ENODEV)?;
    let (flags, all) = (SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll);
    let opened = socket(AddressFamily::Packet, SockType::Raw, flags, all)?;
    bind(opened.as_raw_fd(), &address)?;
    setsockopt(&opened, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    let patience = TimeVal::milliseconds(50); // until it is seen that the wire was dropped
    setsockopt(&opened, sockopt::ReceiveTimeout, &patience)?;
    Ok(opened)
}

const RECEIVE_BUFFER: usize = 4 << 20;

/// Of a datagram: Ethernet, IP without options, UDP.
const HEADER_LEN: usize = 14 + 20 + 8;

fn receive(side: usize, from: &OwnedFd, to: &OwnedFd, sender: &Sender<Parcel>, stop: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        let Ok((len, source)) = recvfrom::<LinkAddr>(from.as_raw_fd(), &mut buffer) else {
            continue; // nothing yet
        };
        if source.is_some_and(|source| source.pkttype() == OUTGOING) {
            continue; // our own
        }
        let mut data = buffer[..len].to_vec();
        if !is_datagram(&data) {
            put(to, &data);
            continue;
        }
        data[CHECKSUM].fill(0); // none
        if sender.send(Parcel { side, data }).is_err() {
            return;
        }
    }
}

/// `PACKET_OUTGOING` of packet(7).
const OUTGOING: u8 = 4;

/// Where UDP keeps its checksum.
const CHECKSUM: std::ops::Range<usize> = 40..42;

/// Whether a frame is a whole datagram over IPv4, in a header without options.
fn is_datagram(frame: &[u8]) -> bool {
    let is_whole = || frame[20] & 0x3f == 0 && frame[21] == 0;
    frame.len() >= HEADER_LEN
        && frame[12..14] == [0x08, 0x00]
        && frame[14] == 0x45
        && frame[23] == 17
        && is_whole()
}

fn put(socket: &OwnedFd, frame: &[u8]) -> bool {
    send(socket.as_raw_fd(), frame, MsgFlags::empty()).is_ok()
}
