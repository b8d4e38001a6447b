//! Memory that datagrams are received into, one set a thread: a thousand idle sockets share it.
//! Knows the operating system's batches. Does not know packets.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;

use quinn_udp::{RecvMeta, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Datagrams, or bunches of them, in one receive call.
const BATCH: usize = quinn_udp::BATCH_SIZE;

/// Largest bunch that receive offload makes.
const BUFFER_LEN: usize = 65_536;

thread_local! {
    static RECEIVE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Datagrams of one sender, `stride` bytes each but the last.
pub(super) struct Bunch<'a> {
    pub(super) from: SocketAddr,
    pub(super) stride: usize,
    pub(super) bytes: &'a mut [u8],
}

/// Receives once without waiting, and hands every bunch to `handle`. Returns how many there were.
pub(super) fn receive(
    io: &UdpSocket,
    state: &UdpSocketState,
    mut handle: impl FnMut(Bunch<'_>),
) -> io::Result<usize> {
    RECEIVE.with_borrow_mut(|memory| {
        if memory.is_empty() {
            // Fresh from the system, zeros cost nothing until something is received into them.
            *memory = vec![0; BATCH * BUFFER_LEN];
        }
        let mut meta = [RecvMeta::default(); BATCH];
        let count = {
            let mut chunks = memory.chunks_exact_mut(BUFFER_LEN);
            let mut slices: [IoSliceMut<'_>; BATCH] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            io.try_io(Interest::READABLE, || {
                state.recv(io.into(), &mut slices, &mut meta)
            })?
        };
        for (meta, buffer) in meta
            .iter()
            .zip(memory.chunks_exact_mut(BUFFER_LEN))
            .take(count)
        {
            if let Some(bytes) = buffer.get_mut(..meta.len) {
                handle(Bunch {
                    from: canonical(meta.addr),
                    stride: meta.stride.max(1),
                    bytes,
                });
            }
        }
        Ok(count)
    })
}

/// An IPv4 address that an IPv6 socket shows in IPv6's clothes, without them.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
