//! What a node stores for others: announcements and records, and for whom it relays.
//! Knows what is accepted, kept and forgotten (`hyperdht/lib/persistent.js` 6.34). Does not know datagrams or routing.
//!
//! | kept | at most, in each of two generations | for |
//! |---|---|---|
//! | announcements, their bumps and refreshes | 65,536 | 20 minutes |
//! | servers that this node relays for | 32,768 | 20 minutes |
//! | mutable and immutable records | 32,768, and 32 MiB | 48 hours |
//!
//! A write that is malformed or not signed is not answered: whoever sends such needs no help. Nor is one of a value that could not
//! be sent back in one packet ([`VALUE_LEN_MAX`]).

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_primitives::hash::hash;
use ferrocore_primitives::sign::PublicKey;
use ferrocore_primitives::time::Time;

use crate::hyperdht::announce::{Action, Announce, LookupReply, Peer, Place, STORED_RELAYS_MAX};
use crate::hyperdht::record::{MutableGet, MutablePut, MutableRecord};
use crate::hyperdht::router::{Forward, Forwards};
use crate::hyperdht::{
    ANNOUNCE, FIND_PEER, IMMUTABLE_GET, IMMUTABLE_PUT, LOOKUP, MUTABLE_GET, MUTABLE_PUT,
    SEQ_REUSED, SEQ_TOO_LOW, UNANNOUNCE,
};
use crate::id::Id;
use crate::random::Random;
use crate::rpc::{Answer, Incoming};

mod generations;
mod records;
use generations::{Bounds, Generations, Weigh};
use records::Records;

/// Announcements kept in a generation, over all topics.
pub const RECORDS_MAX: usize = 65_536;

/// Peers that a lookup is answered with.
pub const LOOKUP_PEERS: usize = 20;

/// Servers of this node itself that it names to others.
pub const OWN_MAX: usize = 1024;

/// Longest value of a record that is kept, in bytes. With a signature, number, id, token and twenty closer nodes its answer stays
/// below the 1,472 bytes of a packet that no network cuts: a short question from a forged address can bring no two. JavaScript
/// nodes have no such bound, but take no more than 2,048 bytes in.
pub const VALUE_LEN_MAX: usize = 1_100;

/// How long an announcement lives, on average.
const RECORD_AGE: Duration = Duration::from_secs(20 * 60);

/// How long mutable and immutable records live, on average.
const VALUE_AGE: Duration = Duration::from_secs(48 * 60 * 60);

/// Values of what belongs to an announcement: no longer than a key with [`STORED_RELAYS_MAX`] addresses.
const SMALL_LEN_MAX: usize = 64;

const SMALL: Bounds = Bounds {
    entries: RECORDS_MAX,
    bytes: RECORDS_MAX * SMALL_LEN_MAX,
    age: RECORD_AGE,
};

const LARGE: Bounds = Bounds {
    entries: RECORDS_MAX / 2,
    bytes: 32 * 1024 * 1024,
    age: VALUE_AGE,
};

/// How far a bump may be in the future, in milliseconds.
const BUMP_DRIFT_MS: u64 = 60_000;

/// What this node stores.
#[derive(Debug)]
pub struct Store {
    records: Records,
    bumps: Generations<Id, u64>,
    refreshes: Generations<[u8; 32], Refresh>,
    mutables: Generations<Id, Vec<u8>>,
    immutables: Generations<Id, Vec<u8>>,
    forwards: Forwards,
    /// The servers of this node.
    own: HashMap<Id, Vec<u8>>,
    random: Random,
}

/// What is known besides a request.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Now.
    pub now: Time,
    /// Now, in milliseconds since 1970.
    pub unix_ms: u64,
    /// This node's id: announcements are signed for it.
    pub node_id: Id,
}

/// An announcement that can be renewed without a signature.
#[derive(Debug, Clone)]
struct Refresh {
    target: Id,
    peer: Peer,
}

impl Weigh for Refresh {
    fn weight(&self) -> usize {
        self.peer.encoded_len()
    }
}

impl Store {
    /// An empty store. `seed` decides which peers of a large topic are named.
    pub fn new(now: Time, seed: [u8; 32]) -> Self {
        Self {
            records: Records::new(now, RECORDS_MAX, RECORD_AGE),
            bumps: Generations::new(now, SMALL),
            refreshes: Generations::new(now, SMALL),
            mutables: Generations::new(now, LARGE),
            immutables: Generations::new(now, LARGE),
            forwards: Forwards::new(now),
            own: HashMap::new(),
            random: Random::new(seed),
        }
    }

    /// What to answer to a command of the store; `None` is silence, as for other commands.
    pub fn handle(&mut self, moment: &Moment, incoming: &Incoming) -> Option<Answer> {
        let target = incoming.target?;
        match incoming.command {
            FIND_PEER => Some(Answer::value(self.find_peer(moment.now, &target))),
            LOOKUP => Some(Answer::value(self.lookup(moment.now, &target))),
            ANNOUNCE => self.announce(moment, target, incoming),
            UNANNOUNCE => self.unannounce(moment, target, incoming),
            MUTABLE_PUT => self.put_mutable(moment.now, target, incoming),
            MUTABLE_GET => self.mutable(moment.now, target, incoming),
            IMMUTABLE_PUT => self.put_immutable(moment.now, target, incoming),
            IMMUTABLE_GET => {
                let value = self.immutables.get(moment.now, &target);
                Some(Answer::value(value.cloned()))
            }
            _ => None,
        }
    }

    /// The server of `target` that announced itself here, for which this node relays.
    pub fn forward(&mut self, now: Time, target: &Id) -> Option<&Forward> {
        self.forwards.get(now, target)
    }

    /// Names a server of this node to others who ask. False if there are [`OWN_MAX`] already.
    pub fn serve(&mut self, key: PublicKey) -> bool {
        let target = Id::of_public_key(&key);
        let peer = Peer {
            public_key: key,
            relay_addresses: Vec::new(),
        };
        let has_room = self.own.len() < OWN_MAX || self.own.contains_key(&target);
        if has_room {
            self.own.insert(target, peer.to_vec());
        }
        has_room
    }

    /// No longer names a server of this node.
    pub fn unserve(&mut self, key: &PublicKey) {
        self.own.remove(&Id::of_public_key(key));
    }

    /// Whether that is the key of a server of this node.
    pub fn serves(&self, target: &Id) -> bool {
        self.own.contains_key(target)
    }

    /// Forgets an announcement, as its peer asks.
    pub fn forget(&mut self, target: &Id, key: &PublicKey) {
        if Id::of_public_key(key) == *target {
            self.forwards.remove(target);
        }
        self.records.remove(target, key);
    }

    /// Announcements stored.
    pub fn records(&self) -> usize {
        self.records.len()
    }

    /// Mutable and immutable records stored.
    pub fn values(&self) -> usize {
        self.mutables.len() + self.immutables.len()
    }

    fn find_peer(&mut self, now: Time, target: &Id) -> Option<Vec<u8>> {
        let own = self.own.get(target).cloned();
        own.or_else(|| Some(self.forwards.get(now, target)?.record.clone()))
    }

    fn lookup(&mut self, now: Time, target: &Id) -> Option<Vec<u8>> {
        let mut records = self
            .records
            .some(now, target, LOOKUP_PEERS, &mut self.random);
        if records.len() < LOOKUP_PEERS {
            records.extend(self.find_peer(now, target));
        }
        if records.is_empty() {
            return None;
        }
        let peers = records
            .iter()
            .filter_map(|peer| Peer::from_slice(peer).ok());
        let reply = LookupReply {
            peers: peers.collect(),
            bump: self.bumps.get(now, target).copied().unwrap_or_default(),
        };
        Some(reply.to_vec())
    }

    fn announce(&mut self, moment: &Moment, target: Id, incoming: &Incoming) -> Option<Answer> {
        let place = place(moment, target, incoming)?;
        let announce = Announce::from_slice(incoming.value.as_deref()?).ok()?;
        if announce.peer.is_none() {
            return self.refresh(moment.now, announce.refresh?, incoming.from);
        }
        let mut peer = announce.verify(Action::Announce, &place).ok()?.clone();
        peer.relay_addresses.truncate(STORED_RELAYS_MAX);
        if Id::of_public_key(&peer.public_key) != target {
            self.bump(moment, target, announce.bump);
        }
        if let Some(refresh) = announce.refresh {
            let entry = Refresh {
                target,
                peer: peer.clone(),
            };
            self.refreshes.insert(moment.now, refresh, entry);
        }
        self.keep(moment.now, target, &peer, incoming.from);
        Some(Answer::bare(None))
    }

    /// Renews an announcement for whoever knows what its refresh is the hash of.
    fn refresh(&mut self, now: Time, secret: [u8; 32], from: SocketAddrV4) -> Option<Answer> {
        let old = <[u8; 32]>::from(hash(&[&secret]));
        let entry = self.refreshes.get(now, &old)?.clone();
        self.keep(now, entry.target, &entry.peer, from);
        self.refreshes.remove(&old);
        self.refreshes.insert(now, secret, entry);
        Some(Answer::bare(None))
    }

    /// A peer under its own key is a server, and from now on this node relays for it.
    fn keep(&mut self, now: Time, target: Id, peer: &Peer, relay: SocketAddrV4) {
        let record = peer.to_vec();
        if Id::of_public_key(&peer.public_key) == target {
            self.forwards.insert(now, target, Forward { relay, record });
            self.records.remove(&target, &peer.public_key);
        } else {
            self.records.add(now, target, peer.public_key, record);
        }
    }

    fn bump(&mut self, moment: &Moment, target: Id, bump: u64) {
        let known = self.bumps.get(moment.now, &target).copied();
        let latest = moment.unix_ms.saturating_add(BUMP_DRIFT_MS);
        if bump > known.unwrap_or_default() && bump <= latest {
            self.bumps.insert(moment.now, target, bump);
        }
    }

    fn unannounce(&mut self, moment: &Moment, target: Id, incoming: &Incoming) -> Option<Answer> {
        let place = place(moment, target, incoming)?;
        let announce = Announce::from_slice(incoming.value.as_deref()?).ok()?;
        let peer = announce.verify(Action::Unannounce, &place).ok()?;
        self.forget(&target, &peer.public_key);
        Some(Answer::bare(None))
    }

    fn put_mutable(&mut self, now: Time, target: Id, incoming: &Incoming) -> Option<Answer> {
        incoming.token?;
        let put = MutablePut::from_slice(incoming.value.as_deref()?).ok()?;
        let len = put.record.value.len();
        if !(1..=VALUE_LEN_MAX).contains(&len) || put.verify(&target).is_err() {
            return None;
        }
        let stored = self.mutables.get(now, &target);
        let stored = stored.and_then(|stored| MutableRecord::from_slice(stored).ok());
        if let Some(stored) = stored {
            if stored.seq == put.record.seq && stored.value != put.record.value {
                return Some(Answer::error(SEQ_REUSED));
            }
            if stored.seq > put.record.seq {
                return Some(Answer::error(SEQ_TOO_LOW));
            }
        }
        self.mutables.insert(now, target, put.record.to_vec());
        Some(Answer::value(None))
    }

    fn mutable(&mut self, now: Time, target: Id, incoming: &Incoming) -> Option<Answer> {
        let get = MutableGet::from_slice(incoming.value.as_deref()?).ok()?;
        let is_wanted = |stored: &&Vec<u8>| {
            MutableRecord::from_slice(stored).is_ok_and(|record| record.seq >= get.seq_min)
        };
        let stored = self.mutables.get(now, &target).filter(is_wanted);
        Some(Answer::value(stored.cloned()))
    }

    fn put_immutable(&mut self, now: Time, target: Id, incoming: &Incoming) -> Option<Answer> {
        incoming.token?;
        let value = incoming.value.as_ref()?;
        if !(1..=VALUE_LEN_MAX).contains(&value.len()) || Id::of_value(value) != target {
            return None;
        }
        self.immutables.insert(now, target, value.clone());
        Some(Answer::value(None))
    }
}

/// What an announcement must be signed for; nothing without a token.
fn place(moment: &Moment, target: Id, incoming: &Incoming) -> Option<Place> {
    Some(Place {
        target,
        node_id: moment.node_id,
        token: incoming.token?,
    })
}
