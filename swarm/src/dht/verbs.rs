//! What a client asks of the DHT: find and announce peers, put and get records.
//! Knows `hyperdht/index.js` 6.34. Does not know how queries run.

use std::net::SocketAddrV4;

use ferrocore_dht::hyperdht::announce::{Action, Announce, LookupReply, Peer, Place};
use ferrocore_dht::hyperdht::record::{MutableGet, MutablePut, MutableRecord};
use ferrocore_dht::hyperdht::{
    ANNOUNCE, FIND_PEER, IMMUTABLE_GET, IMMUTABLE_PUT, LOOKUP, MUTABLE_GET, MUTABLE_PUT, UNANNOUNCE,
};
use ferrocore_dht::id::Id;
use ferrocore_dht::message::{Command, ErrorCode};
use ferrocore_dht::rpc::{Outgoing, Plan, Response};
use ferrocore_dht::store::LOOKUP_PEERS;
use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_primitives::sign::{KeyPair, PublicKey};

use super::shared::Asked;
use super::{Dht, DhtError, Finding, Search};

/// The largest value of a record, in bytes: with everything around it, it fits a datagram on every path.
pub const VALUE_LEN_MAX: usize = 1000;

/// Where something was stored.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Stored {
    /// Under what.
    pub target: Id,
    /// The nodes that took it.
    pub nodes: Vec<SocketAddrV4>,
    /// The nodes closest to the target, whether they took it or not: start the next query from them.
    pub closest: Vec<SocketAddrV4>,
}

/// How an announcement is made.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct AnnounceOptions {
    /// Takes older announcements of the key back first: needed where its relays have changed.
    pub clear: bool,
    /// When the topic was last worth looking at, in milliseconds since 1970; 0 for nothing to say.
    pub bump: u64,
    /// Nodes to start from: the closest ones of the last announcement.
    pub nodes: Vec<SocketAddrV4>,
}

impl Dht {
    /// Asks the nodes closest to a target.
    ///
    /// # Errors
    /// [`DhtError::Request`] if the node sleeps or has too many queries under way, [`DhtError::Closed`].
    pub fn query(&self, plan: Plan) -> Result<Search, DhtError> {
        self.shared().query(plan)
    }

    /// Finds the nodes closest to a target.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn find_node(&self, target: Id) -> Result<Search, DhtError> {
        self.query(Plan::new(target, Command::FIND_NODE))
    }

    /// Finds the peers of a topic.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn lookup(&self, topic: Id) -> Result<Finding<LookupReply>, DhtError> {
        self.lookup_from(topic, Vec::new())
    }

    /// Finds the peers of a topic, asking those nodes first: the closest ones of an earlier query.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn lookup_from(
        &self,
        topic: Id,
        nodes: Vec<SocketAddrV4>,
    ) -> Result<Finding<LookupReply>, DhtError> {
        let plan = Plan {
            nodes,
            ..Plan::new(topic, LOOKUP)
        };
        Ok(self.query(plan)?.reading(value))
    }

    /// Finds a listening peer by its key.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn find_peer(&self, key: &PublicKey) -> Result<Finding<Peer>, DhtError> {
        let plan = Plan::new(Id::of_public_key(key), FIND_PEER);
        Ok(self.query(plan)?.reading(value))
    }

    /// Announces the peer of `keys` under a topic, at the nodes closest to it. `relays` are nodes that pass handshakes
    /// on to it, at most three.
    ///
    /// # Errors
    /// [`DhtError::NobodyAnswered`] if no node took it; else as [`query`](Self::query).
    pub async fn announce(
        &self,
        topic: Id,
        keys: &KeyPair,
        relays: Vec<SocketAddrV4>,
    ) -> Result<Stored, DhtError> {
        let options = AnnounceOptions::default();
        self.announce_with(topic, keys, relays, options).await
    }

    /// [`announce`](Self::announce) with options.
    ///
    /// # Errors
    /// As [`announce`](Self::announce).
    pub async fn announce_with(
        &self,
        topic: Id,
        keys: &KeyPair,
        relays: Vec<SocketAddrV4>,
        options: AnnounceOptions,
    ) -> Result<Stored, DhtError> {
        let closest = if options.clear {
            self.take_back(topic, keys, options.nodes).await?
        } else {
            let lookup = self.lookup_from(topic, options.nodes)?;
            lookup.finish().await?.closest
        };
        let write = |response: &Response| {
            let mut announce = signed(Action::Announce, topic, keys, relays.clone(), response)?;
            announce.bump = options.bump;
            Some(Outgoing::write(
                response,
                ANNOUNCE,
                topic,
                announce.to_vec(),
            ))
        };
        self.commit(topic, &closest, write).await
    }

    /// Takes the announcements of a key under a topic back, at every node that names it. Returns the closest nodes.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn unannounce(
        &self,
        topic: Id,
        keys: &KeyPair,
    ) -> Result<Vec<SocketAddrV4>, DhtError> {
        let closest = self.take_back(topic, keys, Vec::new()).await?;
        Ok(closest.iter().map(|response| response.from).collect())
    }

    /// Stores a value under its hash.
    ///
    /// # Errors
    /// [`DhtError::TooLarge`], [`DhtError::NobodyAnswered`]; else as [`query`](Self::query).
    pub async fn immutable_put(&self, value: Vec<u8>) -> Result<Stored, DhtError> {
        check_len(&value)?;
        let target = Id::of_value(&value);
        let search = self.query(Plan::new(target, IMMUTABLE_GET))?;
        let closest = search.finish().await?.closest;
        let write = |response: &Response| {
            Some(Outgoing::write(
                response,
                IMMUTABLE_PUT,
                target,
                value.clone(),
            ))
        };
        self.commit(target, &closest, write).await
    }

    /// The value of that hash, from the first node that has it.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn immutable_get(&self, target: Id) -> Result<Option<Vec<u8>>, DhtError> {
        let mut search = self.query(Plan::new(target, IMMUTABLE_GET))?;
        while let Some(response) = search.next().await {
            let is_it = |value: &Vec<u8>| Id::of_value(value) == target;
            if let Some(value) = response.value.filter(is_it) {
                return Ok(Some(value));
            }
        }
        search.finish().await.map(|_| None)
    }

    /// Stores a value under a key, as its number `seq`: nodes keep the highest.
    ///
    /// # Errors
    /// [`DhtError::Refused`] if all nodes have a newer one, or another of this number; [`DhtError::TooLarge`],
    /// [`DhtError::NobodyAnswered`]; else as [`query`](Self::query).
    pub async fn mutable_put(
        &self,
        keys: &KeyPair,
        seq: u64,
        value: Vec<u8>,
    ) -> Result<Stored, DhtError> {
        check_len(&value)?;
        let target = Id::of_public_key(&keys.public_key());
        let put = MutablePut {
            public_key: keys.public_key(),
            record: MutableRecord::signed(seq, value, keys),
        };
        let closest = self.query(mutable_plan(target, 0))?.finish().await?.closest;
        let write = |response: &Response| {
            Some(Outgoing::write(response, MUTABLE_PUT, target, put.to_vec()))
        };
        self.commit(target, &closest, write).await
    }

    /// The latest value of a key, of all that the nodes closest to it have, if it is at least number `seq_min`.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn mutable_get(
        &self,
        key: &PublicKey,
        seq_min: u64,
    ) -> Result<Option<MutableRecord>, DhtError> {
        let mut search = self.query(mutable_plan(Id::of_public_key(key), seq_min))?;
        let mut latest: Option<MutableRecord> = None;
        while let Some(response) = search.next().await {
            let Some(record) = value::<MutableRecord>(&response) else {
                continue;
            };
            let newest = latest
                .as_ref()
                .map_or(seq_min, |known| known.seq.saturating_add(1));
            if record.seq >= newest && record.verify(key).is_ok() {
                latest = Some(record);
            }
        }
        search.finish().await.map(|_| latest)
    }

    /// Looks a topic up, and takes our announcement back wherever it is named, or may be.
    async fn take_back(
        &self,
        topic: Id,
        keys: &KeyPair,
        nodes: Vec<SocketAddrV4>,
    ) -> Result<Vec<Response>, DhtError> {
        let key = keys.public_key();
        self.rpc(|node, _| node.store_mut().forget(&topic, &key));
        let mut lookup = self.lookup_from(topic, nodes)?;
        let mut under_way = Vec::new();
        while let Some((response, found)) = lookup.next().await {
            let is_named = found.peers.iter().any(|peer| peer.public_key == key);
            if !is_named && found.peers.len() < LOOKUP_PEERS {
                continue;
            }
            if let Some(value) = signed(Action::Unannounce, topic, keys, Vec::new(), &response) {
                let outgoing = Outgoing::write(&response, UNANNOUNCE, topic, value.to_vec());
                under_way.extend(self.shared().request(outgoing).ok());
            }
        }
        let closest = lookup.finish().await?.closest;
        for asked in under_way {
            // A node that does not answer forgets by itself.
            let _ = asked.await;
        }
        Ok(closest)
    }

    /// Writes to each of the closest nodes at once, and says which of them took it.
    async fn commit(
        &self,
        target: Id,
        closest: &[Response],
        write: impl Fn(&Response) -> Option<Outgoing>,
    ) -> Result<Stored, DhtError> {
        let under_way: Vec<Asked> = closest
            .iter()
            .filter_map(|response| self.shared().request(write(response)?).ok())
            .collect();
        let mut stored = Stored {
            target,
            nodes: Vec::new(),
            closest: closest.iter().map(|response| response.from).collect(),
        };
        let mut failure = DhtError::NobodyAnswered;
        for asked in under_way {
            match asked.await {
                Ok(response) if response.error == ErrorCode::NONE => {
                    stored.nodes.push(response.from)
                }
                Ok(response) => failure = DhtError::Refused(response.error),
                Err(_) => {}
            }
        }
        if stored.nodes.is_empty() {
            return Err(failure);
        }
        Ok(stored)
    }
}

fn mutable_plan(target: Id, seq_min: u64) -> Plan {
    Plan {
        value: Some(MutableGet { seq_min }.to_vec()),
        ..Plan::new(target, MUTABLE_GET)
    }
}

/// An announcement for the node that sent `response`; none if it shows no id or token.
fn signed(
    action: Action,
    topic: Id,
    keys: &KeyPair,
    relays: Vec<SocketAddrV4>,
    response: &Response,
) -> Option<Announce> {
    let place = Place {
        target: topic,
        node_id: response.id?,
        token: response.token?,
    };
    Some(Announce::signed(action, &place, relays, None, keys))
}

fn value<T: Decode>(response: &Response) -> Option<T> {
    T::from_slice(response.value.as_deref()?).ok()
}

fn check_len(value: &[u8]) -> Result<(), DhtError> {
    if value.len() > VALUE_LEN_MAX {
        return Err(DhtError::TooLarge(value.len()));
    }
    Ok(())
}
