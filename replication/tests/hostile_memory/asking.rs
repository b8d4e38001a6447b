//! Scenes in which who knows a key asks, or takes back, what costs more than it seems to.

use std::time::Duration;

use ferrocore_log::flat_tree;
use ferrocore_log::manifest::Manifest;
use ferrocore_log::merkle::{Node, Roots};
use ferrocore_log::proof::{Proof, UpgradeProof};
use ferrocore_log::signable::TreeHead;
use ferrocore_log::verifier::Verifier;
use ferrocore_log::{Core, Corestore};
use ferrocore_primitives::hash;
use ferrocore_primitives::sign::KeyPair;
use ferrocore_replication::limits::WANT_BLOCKS;
use ferrocore_replication::messages::{Cancel, Message, Request, Want};
use ferrocore_secret_stream::{FRAME_LEN_MAX, MESSAGE_LEN_MAX};

use crate::common::script::{block, request};
use crate::{Attacker, Budgets};

/// Blocks of a log, in bytes: one that uses up the room for answers up to a megabyte with seven others, one that waits for room
/// among those, and one that is as long as a hundred of that.
const BLOCKS: [usize; 3] = [1000 * 1024, 100 * 1024, 12 << 20];

/// So many use up that room.
const FILLERS: usize = 8;

/// A log of which what is asked is longer than what was asked before it.
pub(crate) fn uneven(store: &Corestore) -> Core {
    let core = store.get_named("uneven").unwrap();
    for len in BLOCKS {
        core.append(vec![7; len]).unwrap();
    }
    core
}

/// Those who use up the room for answers up to a megabyte, as long as they are there.
pub(crate) async fn fillers(store: &Corestore, uneven: &Core, budgets: &Budgets) -> Vec<Attacker> {
    let mut fillers = Vec::new();
    for _ in 0..FILLERS {
        let mut filler = Attacker::connect(store, budgets).await;
        let channel = filler.prove(uneven).await;
        assert!(filler.say(channel, [request(1, block(0))]).await);
        fillers.push(filler);
    }
    pass().await;
    let short = BLOCKS[1];
    assert!(budgets.frames.held() > FILLERS * BLOCKS[0]);
    assert!(
        budgets.frames.held() + short > 8 << 20,
        "no other finds room"
    );
    fillers
}

/// A log of as many blocks as one question is about, of which we know the length and have nothing.
pub(crate) fn empty_copy(store: &Corestore) -> Core {
    let key_pair = KeyPair::from_seed(&[7; 32]);
    let manifest = Manifest::single(key_pair.public_key());
    let key = manifest.key();
    let nodes: Vec<Node> = flat_tree::full_roots(WANT_BLOCKS)
        .map(|index| Node {
            index,
            size: WANT_BLOCKS,
            hash: hash::leaf(b"whatever is below it"),
        })
        .collect();
    let roots = Roots::new(WANT_BLOCKS, nodes.clone()).unwrap();
    let verifier = Verifier::new(key, manifest.clone()).unwrap();
    let signature = verifier.sign(&TreeHead::of(0, &roots), &key_pair).unwrap();
    let upgrade = UpgradeProof {
        start: 0,
        length: WANT_BLOCKS,
        nodes,
        additional: Vec::new(),
        signature: Some(signature),
    };
    let core = store.get(&key).unwrap();
    let proof = Proof {
        upgrade: Some(upgrade),
        manifest: Some(manifest),
        ..Proof::default()
    };
    core.accept(proof).unwrap();
    assert_eq!((core.length(), core.contiguous_length()), (WANT_BLOCKS, 0));
    core
}

impl Attacker {
    /// Asks for a block that waits for room, and then for a longer one that overtakes it.
    pub(crate) async fn overtake(&mut self, uneven: &Core) {
        let channel = self.prove(uneven).await;
        assert!(self.say(channel, [request(1, block(1))]).await);
        pass().await;
        let urgent = Message::Request(Request {
            id: 2,
            proof: block(2),
            priority: 1,
        });
        assert!(self.say(channel, [urgent]).await);
        pass().await;
    }

    /// Asks what is here of a log, and does not read it.
    pub(crate) async fn want_all(&mut self, core: &Core) {
        let channel = self.prove(core).await;
        let want = Message::Want(Want {
            start: 0,
            length: WANT_BLOCKS,
            any: false,
        });
        assert!(self.say(channel, [want]).await);
        pass().await;
    }

    /// Says as much as a frame holds on two channels in turn, and returns how many bytes of it were its own.
    pub(crate) async fn alternate(&mut self, cores: [&Core; 2]) -> usize {
        for core in cores {
            self.prove_unheard(core).await;
        }
        let cancel = Message::Cancel(Cancel { request: 7 });
        let kind = u8::try_from(cancel.kind()).unwrap();
        // Length, kind, id; no more of this channel; the next one.
        let turn = [2, kind, 7, 0, 2, 2, kind, 7, 0, 1];
        let turns = turn.repeat(400);
        let pieces = (MESSAGE_LEN_MAX - 64) / turns.len();
        let head: &[u8] = &[0, 0, 1];
        let mut batch = vec![head];
        batch.resize(1 + pieces, &turns);
        self.sender.send(&batch).await.unwrap();
        self.sender.flush().await.unwrap();
        while self.session.stats().messages_received < (pieces * 800) as u64 {
            pass().await;
        }
        FRAME_LEN_MAX
    }
}

/// Until nobody has anything to do.
async fn pass() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}
