//! A bee read from a peer: only the blocks that are needed travel, and those of one node together.
//! The peer is a loop here: it answers all that is wanted, then the reader goes on; each time
//! around is one round trip.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ferrocore_bee::{Bee, Options, RangeOptions};
use ferrocore_log::proof::{NodeRequest, ProofRequest, UpgradeRequest};
use ferrocore_log::supply::{All, SupplierId};
use ferrocore_log::{Core, Corestore};
use pollster::block_on;

const ENTRIES: u64 = 10_000;

#[test]
fn a_get_fetches_a_path_in_few_round_trips() {
    let mut peer = Peer::new();
    let entry = peer
        .answer(pin!(peer_bee(&peer).get("k7321")))
        .unwrap()
        .unwrap();
    assert_eq!(entry.value.as_deref(), Some(&b"v7321"[..]));
    // The tree is six nodes high: at most two trips for each, and 19 blocks.
    assert!(peer.round_trips <= 12, "{} round trips", peer.round_trips);
    assert!(peer.blocks <= 6 * 19, "{} blocks", peer.blocks);
}

#[test]
fn a_range_fetches_what_it_passes() {
    let mut peer = Peer::new();
    let bee = peer_bee(&peer);
    let gte = Some("k50".into());
    let mut range = bee.range(RangeOptions {
        gte,
        limit: Some(100),
        ..RangeOptions::default()
    });
    let mut keys = Vec::new();
    while let Some(entry) = peer.answer(pin!(range.next())).unwrap() {
        keys.push(entry.key);
    }
    let expected: Vec<_> = (5000..5100).map(|key| format!("k{key}")).collect();
    assert_eq!(keys, expected);
    assert!(peer.round_trips <= 60, "{} round trips", peer.round_trips);
    assert!(peer.blocks <= 400, "{} blocks", peer.blocks);
}

/// Dropping the future of `next` anywhere loses no entry.
#[test]
fn a_range_goes_on_after_a_dropped_future() {
    let mut peer = Peer::new();
    let bee = peer_bee(&peer);
    let mut range = bee.range(RangeOptions {
        limit: Some(50),
        ..RangeOptions::default()
    });
    let mut keys = Vec::new();
    loop {
        let polled = pin!(range.next()).poll(&mut Context::from_waker(Waker::noop()));
        match polled {
            Poll::Ready(Ok(Some(entry))) => keys.push(entry.key),
            Poll::Ready(Ok(None)) => break,
            Poll::Ready(Err(error)) => panic!("{error}"),
            // The future is gone and took its wants along: fetch what the next one will want.
            Poll::Pending => peer.deliver_while(pin!(range.next())),
        }
    }
    let expected: Vec<_> = (0..50).map(|key| format!("k{key:04}")).collect();
    assert_eq!(keys, expected);
}

/// A reader, and a peer that has everything.
struct Peer {
    source: Core,
    reader: Core,
    id: SupplierId,
    round_trips: usize,
    blocks: usize,
}

impl Peer {
    fn new() -> Self {
        let source = source();
        let reader = Corestore::memory().get(&source.key()).unwrap();
        let upgrade = UpgradeRequest {
            start: 0,
            length: source.length(),
        };
        let request = ProofRequest {
            upgrade: Some(upgrade),
            manifest: true,
            ..ProofRequest::default()
        };
        reader
            .accept(source.prove(&request).unwrap().unwrap())
            .unwrap();
        let id = reader.supply().attach(Arc::new(|| {}));
        reader.supply().settle(id, source.length());
        Self {
            source,
            reader,
            id,
            round_trips: 0,
            blocks: 0,
        }
    }

    fn answer<T>(&mut self, mut future: std::pin::Pin<&mut impl Future<Output = T>>) -> T {
        let context = &mut Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return output;
            }
            self.deliver();
        }
    }

    fn deliver_while<T>(&mut self, future: std::pin::Pin<&mut impl Future<Output = T>>) {
        let polled = future.poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        self.deliver();
    }

    fn deliver(&mut self) {
        let claims = self.reader.supply().claim(self.id, &All, usize::MAX);
        assert!(
            !claims.is_empty(),
            "the reader waits without wanting anything"
        );
        for claim in &claims {
            let nodes = self.reader.missing_nodes(2 * claim.index).unwrap();
            let block = Some(NodeRequest {
                index: claim.index,
                nodes,
            });
            let request = ProofRequest {
                block,
                ..ProofRequest::default()
            };
            let proof = self.source.prove(&request).unwrap().unwrap();
            self.reader.accept(proof).unwrap();
        }
        self.round_trips += 1;
        self.blocks += claims.len();
    }
}

fn peer_bee(peer: &Peer) -> Bee {
    Bee::new(peer.reader.clone(), Options::default())
}

/// Ten thousand entries, put in a scattered order, a hundred at a time.
fn source() -> Core {
    let bee = Bee::new(
        Corestore::memory().get_named("bee").unwrap(),
        Options::default(),
    );
    for start in (0..ENTRIES).step_by(100) {
        let mut batch = bee.batch();
        for key in (start..start + 100).map(|i| i * 7919 % ENTRIES) {
            block_on(batch.put(format!("k{key:04}"), format!("v{key:04}"))).unwrap();
        }
        block_on(batch.flush()).unwrap();
    }
    bee.core().clone()
}
