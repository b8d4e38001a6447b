//! What a connection remembers of what its peer said, on all channels.
//!
//! Knows how much that is, and when it is too much. Does not know what was said.

use crate::limits::{
    PEER_MEMORY_MAX, QUESTION_BYTES_MAX, QUESTION_BYTES_OWN, REMOTE_BITS_BYTES_MAX,
    REMOTE_BITS_BYTES_OWN, UPLOADS_MAX,
};
use crate::memory::{Memory, PeersMemory, Share};

/// The sums of one connection.
pub(crate) struct Heard {
    /// Questions of the peer.
    questions: usize,
    /// Bytes of memory that they take.
    question_bytes: usize,
    /// The same, where other connections look.
    question_share: Share,
    /// For what the peer says that it has.
    blocks: Memory,
    peers: PeersMemory,
}

impl Default for Heard {
    /// Of a connection that shares its memory with nobody.
    fn default() -> Self {
        Self::new(&PeersMemory::new(PEER_MEMORY_MAX))
    }
}

impl Heard {
    /// Nothing yet, beside others that share `peers`.
    pub(crate) fn new(peers: &PeersMemory) -> Self {
        // How many bytes questions take is known once they are here: this one bounds nothing.
        let questions = Memory::new(QUESTION_BYTES_OWN, usize::MAX, peers);
        Self {
            questions: 0,
            question_bytes: 0,
            question_share: questions.share(),
            blocks: Memory::new(REMOTE_BITS_BYTES_OWN, REMOTE_BITS_BYTES_MAX, peers),
            peers: peers.clone(),
        }
    }

    /// Shared with other connections.
    pub(crate) fn peers(&self) -> &PeersMemory {
        &self.peers
    }

    /// For what the peer says that it has.
    pub(crate) fn blocks(&self) -> &Memory {
        &self.blocks
    }

    /// Questions of the peer.
    pub(crate) fn questions(&self) -> usize {
        self.questions
    }

    /// Notes that a channel had `before` questions and their bytes, and has `after`.
    pub(crate) fn moved(&mut self, before: (usize, usize), after: (usize, usize)) {
        if before != after {
            self.questions = self.questions - before.0 + after.0;
            self.question_bytes = self.question_bytes - before.1 + after.1;
            self.question_share.hold(self.question_bytes);
        }
    }

    /// Whether no more questions are to be heard, of a peer that we have asked so many. It ends when some were answered:
    /// whoever takes of the others' memory has some to answer.
    ///
    /// When nothing is left of that, only a peer is not heard that asks more than it is asked: of two that do not hear
    /// each other, both would.
    pub(crate) fn is_too_much(&self, asked: usize) -> bool {
        let takes_of_others = self.question_bytes > QUESTION_BYTES_OWN && self.peers.is_used_up();
        let is_greedy = takes_of_others && self.questions > asked;
        let is_many = self.questions >= UPLOADS_MAX || self.question_bytes >= QUESTION_BYTES_MAX;
        is_greedy || is_many
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::IN_FLIGHT_MAX;

    #[test]
    fn who_asks_little_is_heard_however_much_others_ask() {
        let peers = PeersMemory::new(1024);
        let (mut greedy, mut modest) = (Heard::new(&peers), Heard::new(&peers));
        greedy.moved((0, 0), (10, QUESTION_BYTES_OWN + 1023));
        assert!(!greedy.is_too_much(0));
        greedy.moved((0, 0), (1, 1));
        assert!(greedy.is_too_much(0), "nothing is left");
        assert!(greedy.is_too_much(10), "it asks more than it is asked");
        assert!(!greedy.is_too_much(11));
        modest.moved((0, 0), (10, QUESTION_BYTES_OWN));
        assert!(!modest.is_too_much(0));
        modest.moved((0, 0), (1, 1));
        assert!(modest.is_too_much(0));
        drop(greedy);
        assert!(!modest.is_too_much(0), "others gave theirs back");
        modest.moved((11, QUESTION_BYTES_OWN + 1), (0, 0));
        assert_eq!((modest.questions(), peers.held()), (0, 0));
    }

    #[test]
    fn one_connection_has_its_bounds() {
        let mut heard = Heard::default();
        heard.moved((0, 0), (1, QUESTION_BYTES_MAX));
        assert!(heard.is_too_much(IN_FLIGHT_MAX));
        heard.moved((1, QUESTION_BYTES_MAX), (UPLOADS_MAX, 1));
        assert!(heard.is_too_much(IN_FLIGHT_MAX));
        heard.moved((UPLOADS_MAX, 1), (UPLOADS_MAX - 1, 1));
        assert!(!heard.is_too_much(0));
    }
}
