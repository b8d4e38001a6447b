//! Goal: who lies is kept away, by whatever way it comes, and what was to be downloaded comes from others.
//! Method: a peer of our own making with a capability that is none, and a node whose copy was changed on its disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ferrocore::log::audit::Mode;
use ferrocore::{Core, Node, PeerEvent, limits};
use ferrocore_mux::Mux;
use ferrocore_primitives::encoding::Encode as _;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_replication::connection::PROTOCOL;
use ferrocore_replication::messages::Handshake;
use ferrocore_secret_stream::{Options, Role, SecretStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{listening, open, soon};

/// Goal: a peer that lies is let in no more, whatever it dials and is dialled by, until its time is over, and others notice
/// nothing. Method: a peer of our own making that shows a capability which is none, again and again with one key.
#[tokio::test]
async fn who_lies_is_kept_away_for_a_time() {
    let ban_time = Duration::from_secs(3600);
    let alice = open(Node::builder().listen("127.0.0.1:0").ban_time(ban_time)).await;
    let address = alice.listen_addr().unwrap();
    let written = alice.create_core("notes").unwrap();
    written.append("one").unwrap();
    let mut events = alice.peers();
    let liar = KeyPair::generate();
    lie(
        TcpStream::connect(address).await.unwrap(),
        Role::Initiator,
        &liar,
        &written,
    )
    .await;
    let banned = loop {
        match soon(events.next()).await {
            Some(PeerEvent::Banned { remote_key, time }) => break (remote_key, time),
            Some(PeerEvent::Misbehaved { misbehaved, .. }) => {
                assert_eq!(misbehaved.verdict().name(), "banned");
            }
            _ => {}
        }
    };
    assert_eq!(banned, (liar.public_key(), ban_time));
    while !alice.connected().is_empty() {
        soon(events.next()).await;
    }

    // It comes again, and is dialled, once: neither connection is one.
    let mut events = alice.peers();
    lie(
        TcpStream::connect(address).await.unwrap(),
        Role::Initiator,
        &liar,
        &written,
    )
    .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialing = alice.dial(listener.local_addr().unwrap());
    let (stream, _) = soon(listener.accept()).await.unwrap();
    lie(stream, Role::Responder, &liar, &written).await;
    let again = timeout(2 * limits::REDIAL_MIN, listener.accept());
    assert!(again.await.is_err(), "it is dialled no more");

    // Others notice nothing.
    let bob = open(Node::builder().peer(address)).await;
    let read = bob.core(&written.key()).unwrap();
    assert_eq!(soon(read.get(0)).await.unwrap(), "one");
    let met = |event: Option<PeerEvent>| match event {
        Some(PeerEvent::Connected(peer)) => Some(peer.remote_key),
        _ => None,
    };
    loop {
        if let Some(key) = met(soon(events.next()).await) {
            assert_eq!(key, bob.public_key());
            break;
        }
    }

    // Welcome again, it is dialled again.
    alice.ban(liar.public_key(), Duration::ZERO);
    let (stream, _) = soon(listener.accept()).await.unwrap();
    lie(stream, Role::Responder, &liar, &written).await;
    while met(soon(events.next()).await) != Some(liar.public_key()) {}
    drop(dialing);
}

/// Offers a core with a capability that is none, and waits until the other side has gone.
async fn lie(stream: TcpStream, role: Role, keys: &KeyPair, core: &Core) {
    let stream = SecretStream::handshake(stream, role, keys, Options::default());
    let (mut sender, mut receiver) = soon(stream).await.unwrap().split();
    let mut mux = Mux::new();
    let handshake = Handshake {
        seeks: true,
        capability: [7; 32],
    };
    let id = core.discovery_key();
    mux.open(PROTOCOL, Some(id.as_bytes()), &handshake.to_vec())
        .unwrap();
    let open = mux.poll_transmit().unwrap().to_bytes();
    // Whoever is not let in at all may be gone before it has spoken.
    if sender.send(&[open]).await.is_ok() && sender.flush().await.is_ok() {
        while let Ok(Some(_)) = soon(receiver.recv()).await {}
    }
}

/// Cores that the liar has, each of which it can lie about once on a connection, and the blocks of each.
const CORES: usize = limits::BAD_PROOFS_MAX as usize + 2;
const BLOCKS: u64 = 64;

/// Goal: a peer whose proofs do not hold is connected no second time, and the download ends right beside it. Method: of four
/// nodes over TCP one has all, one the first half, and one all with hashes of the second half changed on its disk, which
/// alone can be asked for that half at first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_four_nodes_the_one_that_cannot_prove_is_kept_away() {
    let (writer, at_writer) = listening().await;
    let written: Vec<Core> = (0..CORES)
        .map(|number| writer.create_core(&number.to_string()).unwrap())
        .collect();
    for core in &written {
        let blocks = (0..BLOCKS).map(|index| vec![index as u8; 100].into());
        core.append_batch(blocks.collect()).unwrap();
    }
    let (honest, at_honest) = listening().await;
    let scratch = tempfile::tempdir().unwrap();
    let liar = || open(Node::builder().dir(scratch.path()));
    let copying = liar().await;
    for (node, blocks) in [(&honest, BLOCKS / 2), (&copying, BLOCKS)] {
        let dialing = node.dial(at_writer);
        for core in &written {
            let copy = node.core(&core.key()).unwrap();
            soon(copy.update()).await.unwrap();
            soon(copy.download(0..blocks).done()).await.unwrap();
        }
        drop(dialing);
    }
    copying.close().await;
    drop(copying);
    for tree in files_called("tree", scratch.path()) {
        let mut nodes = std::fs::read(&tree).unwrap();
        // Pairs of blocks of the second half.
        for node in (BLOCKS as usize + 1..2 * BLOCKS as usize).step_by(4) {
            nodes[node * 40 + 8] ^= 1; // behind the size, which is 8 bytes
        }
        std::fs::write(&tree, nodes).unwrap();
    }

    let (reader, at_reader) = listening().await;
    let mut events = reader.peers();
    let read: Vec<Core> = written
        .iter()
        .map(|core| reader.core(&core.key()).unwrap())
        .collect();
    let downloads: Vec<_> = read.iter().map(Core::download_all).collect();
    let _to_honest = reader.dial(at_honest);
    let liar = liar().await;
    let lying_key = liar.public_key();
    for core in &written {
        assert!(liar.core(&core.key()).unwrap().has_range(0..BLOCKS));
    }
    let mut at_liar = liar.peers();
    let _to_reader = liar.dial(at_reader);
    let mut times = 0;
    loop {
        match soon(events.next()).await {
            Some(PeerEvent::Connected(peer)) if peer.remote_key == lying_key => times += 1,
            Some(PeerEvent::Misbehaved { peer, misbehaved }) => {
                assert_eq!(peer.remote_key, lying_key);
                assert!(["bad_proof", "too_many_strikes"].contains(&misbehaved.kind()));
            }
            Some(PeerEvent::Banned { remote_key, time }) => {
                assert_eq!((remote_key, time), (lying_key, limits::BAN_TIME));
                break;
            }
            _ => {}
        }
    }
    assert_eq!(times, 1);

    // It dials again, and again, while all others get on.
    let mut refused = 0;
    while refused < 2 {
        if let Some(PeerEvent::Disconnected(_) | PeerEvent::Unreachable { .. }) =
            soon(at_liar.next()).await
        {
            refused += 1;
        }
    }
    let _to_writer = reader.dial(at_writer);
    for (download, (core, original)) in downloads.iter().zip(read.iter().zip(&written)) {
        let events = core.events();
        while core.length() < BLOCKS {
            soon(events.next()).await;
        }
        soon(download.caught_up()).await.unwrap();
        assert_eq!(core.tree_hash(), original.tree_hash());
        assert_eq!(core.contiguous_length(), BLOCKS);
        assert_eq!(core.audit(Mode::DryRun, |_| {}).unwrap().bad, 0);
    }
    let come_again = timeout(Duration::ZERO, async {
        while !matches!(events.next().await, Some(PeerEvent::Connected(peer)) if peer.remote_key == lying_key)
        {
        }
    });
    assert!(come_again.await.is_err(), "it was let in once more");
    assert!(
        reader
            .connected()
            .iter()
            .all(|peer| peer.remote_key != lying_key)
    );
}

/// All files of this name below a folder.
fn files_called(name: &str, folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files_called(name, &path)),
            false if path.file_name().is_some_and(|file| file == name) => found.push(path),
            false => {}
        }
    }
    found
}
