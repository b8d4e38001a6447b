//! Answers that are kept: until what they rest on has come, or the device has taken what came before them.
//!
//! Knows what they take in memory, and that it is bounded: on a connection and in a process. Does not know what
//! they wait for.

use bytes::Bytes;
use ferrocore_log::manifest::Manifest;
use ferrocore_log::merkle::Node;
use ferrocore_log::proof::{Proof, UpgradeProof};

use crate::limits::{
    KEPT_BYTES_ASKING, KEPT_BYTES_MAX, KEPT_BYTES_OWN, KEPT_PROOF_BYTES, KEPT_TIMES_LEFT,
    UNSTORED_BYTES_MAX,
};
use crate::memory::{Memory, PeersMemory, Share};

/// What the answers on one connection may take, on all its channels.
#[derive(Debug)]
pub(crate) struct KeptMemory(Memory);

impl Default for KeptMemory {
    /// Of a connection that shares with all of the process.
    fn default() -> Self {
        Self::new(&PeersMemory::process_answers())
    }
}

impl KeptMemory {
    /// Nothing yet, beside others that share `all`.
    pub(crate) fn new(all: &PeersMemory) -> Self {
        let times_left = Some(KEPT_TIMES_LEFT);
        let (own, max) = (KEPT_BYTES_OWN, KEPT_BYTES_MAX);
        Self(Memory::leaving(times_left, own, max, all))
    }

    /// For one more that keeps answers.
    pub(crate) fn kept(&self) -> Kept {
        Kept::new(self.0.share())
    }

    /// Bytes that are kept.
    pub(crate) fn bytes(&self) -> usize {
        self.0.used()
    }
}

/// What one side of a channel keeps. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Kept {
    share: Share,
    /// Bytes of the last answer that there was no room for, or of none.
    refused: usize,
}

impl Kept {
    fn new(share: Share) -> Self {
        Self { share, refused: 0 }
    }

    /// For another side of the same connection.
    pub(crate) fn beside(&self) -> Self {
        Self::new(self.share.memory().share())
    }

    /// Bytes that are kept here.
    pub(crate) fn bytes(&self) -> usize {
        self.share.bytes()
    }

    /// Notes that `proof` is kept, and sees to it that no longer frame is kept with it. Returns its bytes, or nothing
    /// if there is no room for it.
    pub(crate) fn keep(&mut self, proof: &mut Proof) -> Option<usize> {
        let bytes = bytes_of(proof);
        if !self.share.take(bytes) {
            self.refused = bytes;
            return None;
        }
        if let Some(block) = &mut proof.block {
            block.value = Bytes::copy_from_slice(&block.value);
        }
        if let Some(signature) = proof.upgrade.as_mut().and_then(|u| u.signature.as_mut()) {
            *signature = Bytes::copy_from_slice(signature);
        }
        Some(bytes)
    }

    /// Notes that so many bytes more are here, whether there is room for them or not: they are on their way to the
    /// device already.
    pub(crate) fn hold(&mut self, bytes: usize) {
        self.share.hold(self.share.bytes() + bytes);
    }

    /// Gives `bytes` back.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        self.share.give_back(bytes);
    }

    /// Gives back all but `bytes`.
    pub(crate) fn retain(&mut self, bytes: usize) {
        let bytes = self.bytes().saturating_sub(bytes);
        self.share.give_back(bytes);
    }

    /// How often other connections found too little room.
    pub(crate) fn refused_to_others(&self) -> u64 {
        self.share.memory().refused_to_others()
    }

    /// Whether answers to more requests may have to be kept here.
    pub(crate) fn has_room(&self) -> bool {
        (self.bytes() as u64) < UNSTORED_BYTES_MAX && !self.is_crowded()
    }

    /// Whether all channels of the connection together, or all connections, keep too much.
    pub(crate) fn is_crowded(&self) -> bool {
        let used = self.share.memory().used();
        used > KEPT_BYTES_ASKING || (used > KEPT_BYTES_OWN && self.is_tight())
    }

    /// How many requests may be in flight for blocks of `mean_block` bytes. While some are kept, those to come may have to be,
    /// too: no more than there is room for. Whoever keeps next to nothing and finds no room all the same, as others have
    /// used it up, goes on with one at a time: its answer rests on no other, and need not be kept.
    pub(crate) fn in_flight_max(&self, mean_block: u64) -> usize {
        match (self.has_room(), self.is_tight()) {
            (false, _) => 0,
            (true, true) => 1,
            (true, false) if self.bytes() == 0 => usize::MAX,
            (true, false) => {
                let free = self.share.memory().free() as u64;
                let answer = mean_block.saturating_add(KEPT_PROOF_BYTES);
                usize::try_from(free / answer).unwrap_or(usize::MAX).max(1)
            }
        }
    }

    /// Whether there is no room for an answer like the last that found none: asked for again, it would find none again.
    fn is_tight(&self) -> bool {
        self.share.memory().free() < self.refused.max(1)
    }
}

/// What a proof takes in memory.
pub(crate) fn bytes_of(proof: &Proof) -> usize {
    let Proof {
        fork: _,
        block,
        hash,
        seek,
        upgrade,
        manifest,
    } = proof;
    let parts = [
        block.as_ref().map(|b| b.value.len() + nodes(&b.nodes)),
        hash.as_ref().map(|h| nodes(&h.nodes)),
        seek.as_ref().map(|s| nodes(&s.nodes)),
        upgrade.as_ref().map(upgrade_bytes),
        manifest.as_ref().map(manifest_bytes),
    ];
    size_of::<Proof>() + parts.into_iter().flatten().sum::<usize>()
}

fn nodes(nodes: &[Node]) -> usize {
    size_of_val(nodes)
}

fn upgrade_bytes(upgrade: &UpgradeProof) -> usize {
    let signature = upgrade.signature.as_ref().map_or(0, Bytes::len);
    nodes(&upgrade.nodes) + nodes(&upgrade.additional) + signature
}

fn manifest_bytes(manifest: &Manifest) -> usize {
    let linked = manifest.linked.as_deref().map_or(0, size_of_val);
    let user_data = manifest.user_data.as_ref().map_or(0, Vec::len);
    size_of_val(manifest.signers.as_slice()) + linked + user_data
}

#[cfg(test)]
mod tests {
    use ferrocore_log::proof::BlockProof;

    use super::*;

    fn proof_of(len: usize) -> Proof {
        let value = Bytes::from(vec![7; 2 * len]).slice(len..);
        Proof {
            block: Some(BlockProof {
                index: 0,
                value,
                nodes: Vec::new(),
            }),
            ..Proof::default()
        }
    }

    #[test]
    fn no_frame_is_kept_with_an_answer() {
        let memory = KeptMemory::new(&PeersMemory::new(0));
        let mut kept = memory.kept();
        let mut proof = proof_of(1000);
        let bytes = kept.keep(&mut proof).unwrap();
        assert!((1000..2000).contains(&bytes));
        assert!(proof.block.unwrap().value.is_unique());
        assert_eq!((kept.bytes(), memory.bytes()), (bytes, bytes));
        kept.give_back(bytes);
        assert_eq!(memory.bytes(), 0);
    }

    #[test]
    fn who_keeps_too_much_asks_for_nothing() {
        let all = PeersMemory::new(KEPT_BYTES_MAX);
        let (memory, other) = (KeptMemory::new(&all), KeptMemory::new(&all));
        let (mut one, mut two) = (memory.kept(), memory.kept());
        one.hold(UNSTORED_BYTES_MAX as usize);
        assert!(!one.has_room() && !one.is_crowded() && two.has_room());
        one.hold(KEPT_BYTES_ASKING);
        assert!(two.is_crowded() && !two.has_room());
        assert!(other.kept().has_room());
        one.hold(KEPT_BYTES_MAX);
        let mut third = other.kept();
        assert!(third.has_room() && third.keep(&mut proof_of(1000)).is_some());
        assert!(third.keep(&mut proof_of(KEPT_BYTES_OWN)).is_none());
        third.hold(KEPT_BYTES_OWN);
        assert!(third.is_crowded(), "others have used up what is shared");
        two.hold(1);
        drop((one, two));
        assert!(!third.is_crowded() && memory.bytes() == 0);
    }

    /// Goal: what found no room is not asked for again before there is some, however little others have left; and one
    /// that keeps nothing gets on all the same.
    #[test]
    fn what_found_no_room_waits_until_there_is_some() {
        let all = PeersMemory::new(100_000);
        let (others, memory) = (KeptMemory::new(&all), KeptMemory::new(&all));
        let (mut others, mut kept) = (others.kept(), memory.kept());
        others.hold(KEPT_BYTES_OWN + 99_000);
        assert_eq!(kept.in_flight_max(100), usize::MAX);
        assert!(kept.keep(&mut proof_of(KEPT_BYTES_OWN + 1000)).is_none());
        assert!(
            kept.has_room() && kept.in_flight_max(100) == 1,
            "one at a time"
        );
        kept.hold(KEPT_BYTES_OWN + 1);
        assert!(all.held() < 100_000, "something is left");
        assert!(!kept.has_room() && kept.in_flight_max(100) == 0);
        others.retain(KEPT_BYTES_OWN);
        let free = 3 * 99_999 / 4;
        assert!(kept.has_room());
        assert_eq!(
            kept.in_flight_max(100),
            free / (100 + 1024),
            "while it keeps some"
        );
        kept.retain(0);
        assert_eq!(kept.in_flight_max(100), usize::MAX);
    }
}
