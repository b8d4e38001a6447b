//! Blind relays: two peers that show the same token are joined by a stream of packets that the relay cannot read.
//! Knows the messages of the Protomux protocol `blind-relay` (`blind-relay` 1.6) and who waits for whom. Does not know
//! streams: joining two is its owner's work.
//!
//! | kind | message | layout |
//! |---|---|---|
//! | 0 | [`Pair`] | flags 1 byte (bit 0: initiator), token 32, stream id uint, sequence number uint |
//! | 1 | [`Unpair`] | flags 1 byte, token 32 |
//!
//! The channel's id is the key of the peer that is relayed; there is no handshake.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use ferrocore_primitives::encoding::{Decode, DecodeError, Encode, Reader, put_uint, uint_len};
use ferrocore_primitives::time::Time;

use crate::message::Token;

/// The protocol's name on the mux.
pub const PROTOCOL: &str = "blind-relay";

/// Number of [`Pair`] messages.
pub const PAIR: u64 = 0;

/// Number of [`Unpair`] messages.
pub const UNPAIR: u64 = 1;

/// How long a client may take to reach the relay and meet the other peer there: `relayTimeout` of
/// `hyperdht/lib/{connect,server}.js` 6.34.
pub const PAIR_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a relay keeps the first of two peers waiting.
pub const WAITING_AGE_MAX: Duration = Duration::from_secs(60);

/// Pairs of one session that wait or are joined; more are ignored.
pub const PAIRS_PER_SESSION_MAX: usize = 64;

/// Pairs of a relay that wait or are joined; more are ignored.
pub const PAIRS_MAX: usize = 8192;

const INITIATOR: u8 = 1;

/// To the relay: this is my end. To the peer: this is the relay's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pair {
    /// Whether it is the end of the peer that chose the relay.
    pub is_initiator: bool,
    /// What both peers show.
    pub token: Token,
    /// The sender's id of its stream.
    pub id: u64,
    /// Its first sequence number.
    pub seq: u64,
}

/// Ends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unpair {
    /// What was shown.
    pub token: Token,
}

impl Encode for Pair {
    fn encoded_len(&self) -> usize {
        1 + Token::LEN + uint_len(self.id) + uint_len(self.seq)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_initiator) * INITIATOR);
        self.token.encode(out);
        put_uint(out, self.id);
        put_uint(out, self.seq);
    }
}

impl Decode for Pair {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            is_initiator: reader.u8()? & INITIATOR != 0,
            token: Token::decode(reader)?,
            id: reader.uint()?,
            seq: reader.uint()?,
        })
    }
}

impl Encode for Unpair {
    fn encoded_len(&self) -> usize {
        1 + Token::LEN
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.push(0);
        self.token.encode(out);
    }
}

impl Decode for Unpair {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.u8()?;
        Ok(Self {
            token: Token::decode(reader)?,
        })
    }
}

/// A connection to the relay, numbered by its owner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

/// Two joined streams.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// One end of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// Whose it is.
    pub session: SessionId,
    /// Its id of its stream.
    pub stream_id: u32,
    /// Whether it is the initiator's.
    pub is_initiator: bool,
}

/// Two ends that found each other: join two fresh streams, and answer each end with a [`Pair`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Matched {
    /// Number of the link.
    pub link: LinkId,
    /// What both have shown.
    pub token: Token,
    /// The ends.
    pub ends: [End; 2],
}

/// Who waits for whom at a relay, and who is joined.
///
/// Tokens are known to nobody but the two peers; of a token that is shown twice for the same end, the first counts.
#[derive(Debug, Default)]
pub struct Pairings {
    waiting: HashMap<[u8; 32], Waiting>,
    links: BTreeMap<LinkId, Link>,
    joined: HashMap<([u8; 32], SessionId), LinkId>,
    of_session: HashMap<SessionId, usize>,
    next_link: u64,
}

#[derive(Debug)]
struct Waiting {
    end: End,
    since: Time,
}

#[derive(Debug)]
struct Link {
    token: [u8; 32],
    sessions: [SessionId; 2],
}

impl Pairings {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A session shows a token. Returns the match if the other end waits already.
    pub fn handle_pair(&mut self, now: Time, session: SessionId, pair: &Pair) -> Option<Matched> {
        let token = *pair.token.as_bytes();
        let end = End {
            session,
            stream_id: u32::try_from(pair.id).ok()?,
            is_initiator: pair.is_initiator,
        };
        let of_session = self.of_session.get(&session).copied().unwrap_or(0);
        if of_session >= PAIRS_PER_SESSION_MAX || self.joined.contains_key(&(token, session)) {
            return None;
        }
        let Some(waiting) = self.waiting.get(&token) else {
            if self.len() < PAIRS_MAX {
                self.waiting.insert(token, Waiting { end, since: now });
                self.count(session);
            }
            return None;
        };
        if waiting.end.is_initiator == end.is_initiator {
            return None;
        }
        let other = waiting.end;
        self.waiting.remove(&token);
        self.count(session);
        Some(self.join(token, [other, end]))
    }

    /// A session takes a token back. Returns the link to end, if there was one.
    pub fn handle_unpair(&mut self, session: SessionId, unpair: &Unpair) -> Option<LinkId> {
        let token = *unpair.token.as_bytes();
        let is_own = |waiting: &Waiting| waiting.end.session == session;
        if self.waiting.get(&token).is_some_and(is_own) {
            self.waiting.remove(&token);
            self.uncount(session);
            return None;
        }
        let link = *self.joined.get(&(token, session))?;
        self.handle_link_ended(link);
        Some(link)
    }

    /// The streams of a link are over.
    pub fn handle_link_ended(&mut self, link: LinkId) {
        let Some(Link { token, sessions }) = self.links.remove(&link) else {
            return;
        };
        for session in sessions {
            self.joined.remove(&(token, session));
            self.uncount(session);
        }
    }

    /// A session is over. Returns its links, which end with it.
    pub fn handle_session_ended(&mut self, session: SessionId) -> Vec<LinkId> {
        self.waiting
            .retain(|_, waiting| waiting.end.session != session);
        let is_of = |link: &Link| link.sessions.contains(&session);
        let links = self.links.iter().filter(|(_, link)| is_of(link));
        let links: Vec<_> = links.map(|(id, _)| *id).collect();
        for link in &links {
            self.handle_link_ended(*link);
        }
        self.of_session.remove(&session);
        links
    }

    /// Forgets those who waited too long.
    pub fn handle_timeout(&mut self, now: Time) {
        let is_late = |waiting: &Waiting| now.saturating_since(waiting.since) >= WAITING_AGE_MAX;
        let late = self.waiting.iter().filter(|(_, waiting)| is_late(waiting));
        let late: Vec<_> = late.map(|(token, w)| (*token, w.end.session)).collect();
        for (token, session) in late {
            self.waiting.remove(&token);
            self.uncount(session);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Time> {
        let since = self.waiting.values().map(|waiting| waiting.since);
        since.min().map(|since| since + WAITING_AGE_MAX)
    }

    /// Pairs that wait and links.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.links.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sessions that have shown a token.
    pub fn sessions(&self) -> HashSet<SessionId> {
        self.of_session.keys().copied().collect()
    }

    fn join(&mut self, token: [u8; 32], ends: [End; 2]) -> Matched {
        let link = LinkId(self.next_link);
        self.next_link += 1;
        let sessions = ends.map(|end| end.session);
        for session in sessions {
            self.joined.insert((token, session), link);
        }
        self.links.insert(link, Link { token, sessions });
        Matched {
            link,
            token: token.into(),
            ends,
        }
    }

    fn count(&mut self, session: SessionId) {
        *self.of_session.entry(session).or_default() += 1;
    }

    fn uncount(&mut self, session: SessionId) {
        if let Some(count) = self.of_session.get_mut(&session) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of_session.remove(&session);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);

    fn pair(token: u8, is_initiator: bool, id: u64) -> Pair {
        Pair {
            is_initiator,
            token: [token; 32].into(),
            id,
            seq: 0,
        }
    }

    #[test]
    fn two_ends_of_one_token_are_joined() {
        let mut relay = Pairings::new();
        assert_eq!(relay.handle_pair(Time::ZERO, A, &pair(1, true, 7)), None);
        assert_eq!(
            relay.handle_pair(Time::ZERO, B, &pair(1, true, 8)),
            None,
            "the same end"
        );
        assert_eq!(relay.handle_pair(Time::ZERO, B, &pair(2, false, 8)), None);
        let matched = relay
            .handle_pair(Time::ZERO, B, &pair(1, false, 9))
            .unwrap();
        assert_eq!(matched.ends.map(|end| end.session), [A, B]);
        assert_eq!(matched.ends.map(|end| end.stream_id), [7, 9]);
        assert_eq!(matched.ends.map(|end| end.is_initiator), [true, false]);
        let unpair = Unpair {
            token: [1; 32].into(),
        };
        assert_eq!(
            relay.handle_unpair(SessionId(3), &unpair),
            None,
            "a stranger"
        );
        assert_eq!(relay.handle_unpair(A, &unpair), Some(matched.link));
        assert_eq!(relay.len(), 1, "token 2 waits");
    }

    #[test]
    fn the_end_of_a_session_ends_what_it_had() {
        let mut relay = Pairings::new();
        relay.handle_pair(Time::ZERO, A, &pair(1, true, 7));
        let matched = relay
            .handle_pair(Time::ZERO, B, &pair(1, false, 9))
            .unwrap();
        relay.handle_pair(Time::ZERO, A, &pair(3, true, 7));
        assert_eq!(relay.handle_session_ended(A), [matched.link]);
        assert!(relay.is_empty() && relay.sessions().is_empty());
    }

    #[test]
    fn who_waits_too_long_is_forgotten() {
        let mut relay = Pairings::new();
        relay.handle_pair(Time::ZERO, A, &pair(1, true, 7));
        let late = relay.poll_timeout().unwrap();
        assert_eq!(late, Time::ZERO + WAITING_AGE_MAX);
        relay.handle_timeout(late);
        assert_eq!(relay.poll_timeout(), None);
        assert_eq!(relay.handle_pair(late, B, &pair(1, false, 9)), None);
    }

    #[test]
    fn floods_fill_a_session_and_then_the_relay() {
        let mut relay = Pairings::new();
        let token = |session: u64, i: usize| {
            let mut token = [0; 32];
            token[..8].copy_from_slice(&session.to_le_bytes());
            token[8..16].copy_from_slice(&i.to_le_bytes());
            Pair {
                token: token.into(),
                ..pair(0, true, 1)
            }
        };
        for session in 0..200 {
            for i in 0..PAIRS_PER_SESSION_MAX + 5 {
                relay.handle_pair(Time::ZERO, SessionId(session), &token(session, i));
            }
            let filled = (session as usize + 1) * PAIRS_PER_SESSION_MAX;
            assert_eq!(relay.len(), filled.min(PAIRS_MAX));
        }
    }
}
