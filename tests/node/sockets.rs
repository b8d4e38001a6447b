//! Goal: an address where peers are accepted holds no more sockets than it says, also of peers that do not read.
//! Method: the sockets of the listening node are counted as the kernel lists them, by their port.

use std::net::SocketAddr;
use std::time::Duration;

use ferrocore::{PeerEvent, PeerEvents, limits};
use ferrocore_primitives::sign::KeyPair;
use ferrocore_secret_stream::{Options, Role, SecretStream};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{CROWDED, listening, soon};

/// A socket that somebody of ours has open.
struct Socket {
    /// The other end's.
    port: u16,
    /// Bytes that the other end has not taken.
    unsent: usize,
}

/// Those of the node that listens here, with the one it listens on.
fn sockets(address: SocketAddr) -> Vec<Socket> {
    let port_of = |field: &str| {
        let (_, port) = field.rsplit_once(':').unwrap();
        u16::from_str_radix(port, 16).unwrap()
    };
    let listed = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let sockets = listed.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (unsent, _) = fields[4].split_once(':').unwrap();
        // What nobody has open, or not yet, has no inode.
        let is_one = port_of(fields[1]) == address.port() && fields[9] != "0";
        is_one.then(|| Socket {
            port: port_of(fields[2]),
            unsent: usize::from_str_radix(unsent, 16).unwrap(),
        })
    });
    sockets.collect()
}

/// More than a narrow end has room for.
const NARROW: usize = 16 * 1024;

/// Where nothing moved for so long, little will.
const QUIET: Duration = Duration::from_millis(500);

/// Connects with little room for what is not read.
async fn connect_narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.set_send_buffer_size(4096).unwrap();
    soon(socket.connect(address)).await.unwrap()
}

/// Becomes a guest, from a port.
async fn attend(stream: TcpStream, events: &mut PeerEvents) -> (u16, SecretStream<TcpStream>) {
    let port = stream.local_addr().unwrap().port();
    let keys = KeyPair::generate();
    let shaken = SecretStream::handshake(stream, Role::Initiator, &keys, Options::default());
    let stream = soon(shaken).await.unwrap();
    while !matches!(soon(events.next()).await, Some(PeerEvent::Connected(_))) {}
    (port, stream)
}

/// Goal: who gives its place to another gives its socket back at once, however much it was still to be told. Method: strangers
/// that have so much refused that it fills all buffers and read none of it, and then as many more as there are places.
#[tokio::test]
async fn who_gives_way_keeps_no_socket() {
    const GREEDY: usize = 2;
    let _alone = CROWDED.lock().await;
    let (alice, address) = listening().await;
    let mut events = alice.peers();
    let mut greedy = Vec::new();
    // Opens of a number that is none. Each is answered.
    let mut opens = vec![0, 0, 0];
    opens.extend([4, 1, 0, 0, 0].repeat(10_000));
    for _ in 0..GREEDY {
        let stream = connect_narrow(address).await;
        let (port, stream) = attend(stream, &mut events).await;
        let (mut sender, receiver) = stream.split();
        // Whatever the machine does meanwhile: until more waits for it than it has room for, and nothing moves any more.
        let mut before = None;
        loop {
            let is_taken = timeout(QUIET, sender.flush()).await.is_ok();
            let now = sockets(address)
                .into_iter()
                .find(|socket| socket.port == port);
            let unsent = now.expect("it is open").unsent;
            if is_taken {
                sender.send(&[&opens]).await.unwrap();
            } else if unsent > NARROW && before == Some(unsent) {
                break;
            }
            before = Some(unsent);
        }
        greedy.push((port, sender, receiver));
    }

    let mut others = Vec::new();
    let listening = 1;
    for _ in 0..limits::INBOUND_MAX {
        let stream = TcpStream::connect(address).await.unwrap();
        others.push(attend(stream, &mut events).await);
        let open = sockets(address).len();
        let most = limits::INBOUND_MAX + limits::LEAVING_MAX;
        assert!(open <= most + listening, "{open} sockets are open");
    }
    // They were the first to come, and so are the first to go.
    let is_greedy = |socket: &Socket| greedy.iter().any(|(port, ..)| socket.port == *port);
    let gone = async {
        while sockets(address).iter().any(is_greedy) {
            tokio::task::yield_now().await;
        }
    };
    soon(gone).await;
    assert!(sockets(address).len() <= limits::INBOUND_MAX + listening);
}
