//! Announcements: who can be found under a topic, and through which relays.
//! Knows the records, what is signed and whether it holds. Does not know storage, or how old a token is.
//!
//! | value | layout |
//! |---|---|
//! | [`Peer`] | public key 32, list of IPv4 relay addresses |
//! | [`LookupReply`] | list of [`Peer`], bump uint (missing from old nodes) |
//! | [`Announce`] | flags uint, then by flag: 1 [`Peer`], 2 refresh 32, 4 signature 64, 8 bump uint |
//! | signed | namespace 32, BLAKE2b-256 of (target, id of the storing node, token, [`Peer`], refresh if there) |
//!
//! Node id and token must be those of one reply; so no copy of an announcement can be stored elsewhere.

use std::net::SocketAddrV4;

use ferrocore_primitives::encoding::{Decode, DecodeError, Encode, Reader, put_uint, uint_len};
use ferrocore_primitives::hash::{Hash, hash};
use ferrocore_primitives::sign::{KeyPair, PublicKey, Signature};

use super::{RecordError, announce_namespace, unannounce_namespace};
use crate::address::{IPV4_LEN, capped_list, ipv4_list, list_len, put_ipv4_list};
use crate::flags::{field, flags};
use crate::id::Id;
use crate::message::Token;

/// The most peers a [`LookupReply`] may hold; JavaScript nodes send at most 20.
pub const LOOKUP_PEERS_MAX: usize = 128;

/// The most relay addresses that a node keeps of an announced [`Peer`]; more are legal, and cut off after the
/// signature was checked.
pub const STORED_RELAYS_MAX: usize = 3;

/// The shortest [`Peer`]: a key and an empty list.
const PEER_LEN_MIN: usize = PublicKey::LEN + 1;

const FLAG_PEER: u64 = 1;
const FLAG_REFRESH: u64 = 2;
const FLAG_SIGNATURE: u64 = 4;
const FLAG_BUMP: u64 = 8;

/// A peer that listens, and the nodes that pass handshakes on to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its key.
    pub public_key: PublicKey,
    /// Nodes to send a handshake to.
    pub relay_addresses: Vec<SocketAddrV4>,
}

/// The peers a node knows under a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LookupReply {
    /// Some of them, at random.
    pub peers: Vec<Peer>,
    /// When the topic was last bumped, in milliseconds since 1970; 0 for never.
    pub bump: u64,
}

/// The value of an announcement or of its removal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announce {
    /// Who announces itself.
    pub peer: Option<Peer>,
    /// Hash of a secret that will renew the record without a signature; alone: that secret.
    pub refresh: Option<[u8; 32]>,
    /// The peer's signature.
    pub signature: Option<Signature>,
    /// The topic's new bump, in milliseconds since 1970; 0 for none. Not signed.
    pub bump: u64,
}

/// What an announcement's signature is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Storing it.
    Announce,
    /// Removing it.
    Unannounce,
}

/// Where an announcement is to be stored: it is signed along, so that it holds nowhere else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Topic, or hash of the peer's key.
    pub target: Id,
    /// The storing node.
    pub node_id: Id,
    /// The token that node gave out.
    pub token: Token,
}

impl Action {
    fn namespace(self) -> Hash {
        match self {
            Self::Announce => announce_namespace(),
            Self::Unannounce => unannounce_namespace(),
        }
    }
}

impl Announce {
    /// An announcement, or its removal, signed for `place`.
    pub fn signed(
        action: Action,
        place: &Place,
        relay_addresses: Vec<SocketAddrV4>,
        refresh: Option<[u8; 32]>,
        keys: &KeyPair,
    ) -> Self {
        let peer = Peer {
            public_key: keys.public_key(),
            relay_addresses,
        };
        let signature = keys.sign(&signable(action, place, &peer, refresh.as_ref()));
        Self {
            peer: Some(peer),
            refresh,
            signature: Some(signature),
            bump: 0,
        }
    }

    /// The announced peer, if it signed this announcement for `action` at `place`.
    ///
    /// # Errors
    /// [`RecordError::NoPeer`], [`RecordError::NoSignature`] or [`RecordError::BadSignature`].
    pub fn verify(&self, action: Action, place: &Place) -> Result<&Peer, RecordError> {
        let peer = self.peer.as_ref().ok_or(RecordError::NoPeer)?;
        let signature = self.signature.ok_or(RecordError::NoSignature)?;
        let signed = signable(action, place, peer, self.refresh.as_ref());
        if peer.public_key.verify(&signed, &signature) {
            Ok(peer)
        } else {
            Err(RecordError::BadSignature)
        }
    }
}

/// The 64 bytes that are signed: for signers that are elsewhere. [`Announce::signed`] does it at once.
pub fn signable(action: Action, place: &Place, peer: &Peer, refresh: Option<&[u8; 32]>) -> Vec<u8> {
    let digest = hash(&[
        place.target.as_bytes(),
        place.node_id.as_bytes(),
        place.token.as_bytes(),
        &peer.to_vec(),
        refresh.map_or(&[], |refresh| refresh.as_slice()),
    ]);
    [*action.namespace().as_bytes(), *digest.as_bytes()].concat()
}

impl Encode for Peer {
    fn encoded_len(&self) -> usize {
        PublicKey::LEN + list_len(self.relay_addresses.len(), IPV4_LEN)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.public_key.encode(out);
        put_ipv4_list(out, &self.relay_addresses);
    }
}

impl Decode for Peer {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            public_key: PublicKey::decode(reader)?,
            relay_addresses: ipv4_list(reader)?,
        })
    }
}

impl Encode for LookupReply {
    fn encoded_len(&self) -> usize {
        uint_len(self.peers.len() as u64)
            + self.peers.iter().map(Peer::encoded_len).sum::<usize>()
            + uint_len(self.bump)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, self.peers.len() as u64);
        self.peers.iter().for_each(|peer| peer.encode(out));
        put_uint(out, self.bump);
    }
}

impl Decode for LookupReply {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let peers = capped_list(reader, LOOKUP_PEERS_MAX, PEER_LEN_MIN, Peer::decode)?;
        let bump = if reader.is_empty() { 0 } else { reader.uint()? };
        Ok(Self { peers, bump })
    }
}

impl Encode for Announce {
    fn encoded_len(&self) -> usize {
        1 + self.peer.as_ref().map_or(0, Peer::encoded_len)
            + self.refresh.map_or(0, |refresh| refresh.len())
            + self.signature.map_or(0, |_| Signature::LEN)
            + if self.bump == 0 {
                0
            } else {
                uint_len(self.bump)
            }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let present = [
            (FLAG_PEER, self.peer.is_some()),
            (FLAG_REFRESH, self.refresh.is_some()),
            (FLAG_SIGNATURE, self.signature.is_some()),
            (FLAG_BUMP, self.bump != 0),
        ];
        put_uint(out, flags(&present));
        self.peer.iter().for_each(|peer| peer.encode(out));
        self.refresh.iter().for_each(|refresh| out.extend(refresh));
        self.signature
            .iter()
            .for_each(|signature| signature.encode(out));
        if self.bump != 0 {
            put_uint(out, self.bump);
        }
    }
}

impl Decode for Announce {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = reader.uint()?;
        Ok(Self {
            peer: field(reader, flags, FLAG_PEER, Peer::decode)?,
            refresh: field(reader, flags, FLAG_REFRESH, Reader::fixed32)?,
            signature: field(reader, flags, FLAG_SIGNATURE, Signature::decode)?,
            bump: field(reader, flags, FLAG_BUMP, Reader::uint)?.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            target: [1; 32].into(),
            node_id: [2; 32].into(),
            token: [3; 32].into(),
        }
    }

    /// Changes one signed thing after another: each must break the signature.
    #[test]
    fn a_signature_holds_for_one_place_one_action_and_one_record() {
        let keys = KeyPair::from_seed(&[7; 32]);
        let relays = vec!["1.2.3.4:5".parse().unwrap()];
        let good = Announce::signed(Action::Announce, &place(), relays, Some([4; 32]), &keys);
        assert_eq!(
            good.verify(Action::Announce, &place()),
            Ok(good.peer.as_ref().unwrap())
        );

        let bad = Err(RecordError::BadSignature);
        assert_eq!(good.verify(Action::Unannounce, &place()), bad);
        let other = [9; 32];
        for elsewhere in [
            Place {
                target: other.into(),
                ..place()
            },
            Place {
                node_id: other.into(),
                ..place()
            },
            Place {
                token: other.into(),
                ..place()
            },
        ] {
            assert_eq!(good.verify(Action::Announce, &elsewhere), bad);
        }
        let mut changed = [good.clone(), good.clone(), good.clone()];
        changed[0].refresh = None;
        changed[1].peer.as_mut().unwrap().relay_addresses.clear();
        changed[2].peer.as_mut().unwrap().public_key = KeyPair::from_seed(&[8; 32]).public_key();
        for record in changed {
            assert_eq!(record.verify(Action::Announce, &place()), bad);
        }

        let bumped = Announce {
            bump: 5,
            ..good.clone()
        };
        assert!(
            bumped.verify(Action::Announce, &place()).is_ok(),
            "not signed"
        );
        let unsigned = Announce {
            signature: None,
            ..good.clone()
        };
        assert_eq!(
            unsigned.verify(Action::Announce, &place()),
            Err(RecordError::NoSignature)
        );
        let nobody = Announce { peer: None, ..good };
        assert_eq!(
            nobody.verify(Action::Announce, &place()),
            Err(RecordError::NoPeer)
        );
    }

    #[test]
    fn replies_of_old_nodes_have_no_bump() {
        assert_eq!(
            LookupReply::from_slice(&[0]),
            Ok(LookupReply {
                peers: Vec::new(),
                bump: 0
            })
        );
    }

    #[test]
    fn the_peers_of_a_reply_are_capped() {
        let mut bytes = vec![u8::try_from(LOOKUP_PEERS_MAX).unwrap()];
        bytes.resize(1 + LOOKUP_PEERS_MAX * PEER_LEN_MIN, 0);
        assert_eq!(
            LookupReply::from_slice(&bytes).unwrap().peers.len(),
            LOOKUP_PEERS_MAX
        );
        bytes[0] += 1;
        bytes.resize(bytes.len() + PEER_LEN_MIN, 0);
        assert!(matches!(
            LookupReply::from_slice(&bytes),
            Err(DecodeError::Invalid(_))
        ));
    }
}
