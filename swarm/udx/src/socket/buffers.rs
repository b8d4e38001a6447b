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

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a train of datagrams that the kernel kept together is taken as what it was. Method: one send call with
    /// segments, one receive call; where the kernel has no offload there is nothing to test.
    #[tokio::test]
    async fn a_train_of_datagrams_is_received_as_one_bunch() {
        let from = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let sending = UdpSocketState::new((&from).into()).unwrap();
        let receiving = UdpSocketState::new((&to).into()).unwrap();
        let segments = sending.max_gso_segments().min(receiving.gro_segments());
        if segments < 3 {
            println!("skipped: this kernel neither sends nor receives trains");
            return;
        }
        let train: Vec<u8> = (0..2500u32).map(|at| (at / 1000) as u8).collect();
        let transmit = quinn_udp::Transmit {
            destination: to.local_addr().unwrap(),
            ecn: None,
            contents: &train,
            segment_size: Some(1000),
            src_ip: None,
        };
        from.writable().await.unwrap();
        from.try_io(Interest::WRITABLE, || {
            sending.try_send((&from).into(), &transmit)
        })
        .unwrap();
        to.readable().await.unwrap();
        let mut bunches = Vec::new();
        let take = |bunch: Bunch<'_>| {
            bunches.push((bunch.from, bunch.stride, bunch.bytes.to_vec()));
        };
        receive(&to, &receiving, take).unwrap();
        assert_eq!(bunches, [(from.local_addr().unwrap(), 1000, train)]);
    }
}
