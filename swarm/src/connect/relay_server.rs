//! A blind relay: connections of any peers, of which those that show the same token are joined.
//! Knows sessions and streams. Does not know who belongs together, which [`Pairings`] does, nor what is carried.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferrocore_dht::hyperdht::relay::{
    End, LinkId, Matched, PAIR, PROTOCOL, Pair, Pairings, SessionId, UNPAIR, Unpair,
};
use ferrocore_mux::{ChannelId, Event, Mux, Segment};
use ferrocore_primitives::encoding::{Decode, Encode};
use ferrocore_primitives::sign::PublicKey;
use ferrocore_secret_stream::{Receiver, Sender};
use ferrocore_udx::socket::{StreamHandle, UdxStream};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::blind::TALK_LEN_MAX;
use super::net::Net;
use super::peers::Peers;
use super::roam::follow_end;
use super::stream::{Connection, raw_stream};

/// Connections to a relay at once; more are refused.
pub const SESSIONS_MAX: usize = 4096;

/// Answers that wait for a session to send them.
const ANSWERS_MAX: usize = 64;

/// A blind relay. It forwards packets by their stream id and cannot read them.
#[derive(Debug, Clone)]
pub struct BlindRelay {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    net: Net,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pairings: Pairings,
    sessions: HashMap<SessionId, mpsc::Sender<Pair>>,
    links: HashMap<LinkId, [StreamHandle; 2]>,
    next_session: u64,
    matched: u64,
}

/// What a relay does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RelayStats {
    /// Peers connected to it.
    pub sessions: usize,
    /// Pairs of streams that it joins.
    pub links: usize,
    /// Pairs that it has joined in all.
    pub matched: u64,
}

impl BlindRelay {
    /// A relay that joins streams on the sockets of this node.
    pub fn new(peers: &Peers) -> Self {
        Self {
            shared: Arc::new(Shared {
                net: peers.net().clone(),
                state: Mutex::default(),
            }),
        }
    }

    /// Serves one connection until it ends; what it had joined ends with it.
    pub async fn serve(&self, connection: Connection) {
        let (answers, waiting) = mpsc::channel(ANSWERS_MAX);
        let Some(id) = self.lock().begin(answers) else {
            return;
        };
        let remote = connection.remote_public_key();
        let (sender, mut receiver) = connection.stream.split();
        receiver.set_message_len_max(TALK_LEN_MAX);
        let session = Session {
            relay: self.clone(),
            id,
            remote,
            mux: Mux::new(),
            channel: None,
            sender,
            receiver,
        };
        session.run(waiting).await;
        let ended = self.lock().end(id);
        ended.iter().flatten().for_each(StreamHandle::destroy);
    }

    /// What it does now.
    pub fn stats(&self) -> RelayStats {
        let state = self.lock();
        RelayStats {
            sessions: state.sessions.len(),
            links: state.links.len(),
            matched: state.matched,
        }
    }

    fn handle_pair(&self, id: SessionId, pair: &Pair) {
        let now = self.shared.net.now();
        let mut state = self.lock();
        state.pairings.handle_timeout(now);
        let Some(matched) = state.pairings.handle_pair(now, id, pair) else {
            return;
        };
        if !self.join(&mut state, &matched) {
            state.pairings.handle_link_ended(matched.link);
        }
    }

    /// Two streams, each of which passes everything on to the peer of the other.
    fn join(&self, state: &mut State, matched: &Matched) -> bool {
        let made = matched.ends.map(|_| raw_stream(self.shared.net.udx()));
        let [Ok(first), Ok(second)] = made else {
            return false;
        };
        first.relay_to(&second);
        second.relay_to(&first);
        let handles = [first.handle(), second.handle()];
        for (end, stream) in matched.ends.iter().zip([first, second]) {
            stream.listen(end.stream_id);
            follow_end(self.shared.net.dht(), stream.handle());
            state.answer(end, matched, &stream);
        }
        state.matched += 1;
        state.links.insert(matched.link, handles.clone());
        let (relay, link) = (self.clone(), matched.link);
        tokio::spawn(async move {
            let [first, second] = &handles;
            tokio::select! {
                _ = first.closed() => {}
                _ = second.closed() => {}
            }
            relay.end_link(link);
        });
        true
    }

    fn end_link(&self, link: LinkId) {
        let mut state = self.lock();
        state.pairings.handle_link_ended(link);
        let handles = state.links.remove(&link);
        drop(state);
        handles.iter().flatten().for_each(StreamHandle::destroy);
    }

    fn handle_unpair(&self, id: SessionId, unpair: &Unpair) {
        let link = self.lock().pairings.handle_unpair(id, unpair);
        if let Some(link) = link {
            self.end_link(link);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let state = &self.shared.state;
        state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn begin(&mut self, answers: mpsc::Sender<Pair>) -> Option<SessionId> {
        if self.sessions.len() >= SESSIONS_MAX {
            return None;
        }
        let id = SessionId(self.next_session);
        self.next_session += 1;
        self.sessions.insert(id, answers);
        Some(id)
    }

    fn end(&mut self, id: SessionId) -> Vec<[StreamHandle; 2]> {
        self.sessions.remove(&id);
        let links = self.pairings.handle_session_ended(id);
        let ended = links.iter().filter_map(|link| self.links.remove(link));
        ended.collect()
    }

    fn answer(&self, end: &End, matched: &Matched, stream: &UdxStream) {
        let answer = Pair {
            is_initiator: end.is_initiator,
            token: matched.token,
            id: stream.local_id().into(),
            seq: 0,
        };
        if let Some(answers) = self.sessions.get(&end.session) {
            let _ = answers.try_send(answer);
        }
    }
}

/// One peer's connection to the relay.
struct Session {
    relay: BlindRelay,
    id: SessionId,
    remote: PublicKey,
    mux: Mux,
    channel: Option<ChannelId>,
    sender: Sender<WriteHalf<UdxStream>>,
    receiver: Receiver<ReadHalf<UdxStream>>,
}

impl Session {
    async fn run(mut self, mut answers: mpsc::Receiver<Pair>) {
        loop {
            while let Some(frame) = self.mux.poll_transmit() {
                if self.sender.send(frame.segments()).await.is_err() {
                    return;
                }
            }
            if self.sender.flush().await.is_err() {
                return;
            }
            tokio::select! {
                received = self.receiver.recv() => {
                    let Ok(Some(frame)) = received else {
                        return;
                    };
                    self.mux.handle_frame(frame);
                    if !self.handle_events() {
                        return;
                    }
                }
                Some(answer) = answers.recv() => {
                    if let Some(channel) = self.channel {
                        let _ = self.mux.send(channel, PAIR, &[Segment::Copy(&answer.to_vec())]);
                    }
                }
                Err(_) = self.sender.keep_alive() => return,
            }
        }
    }

    /// False if the peer breaks the protocol.
    fn handle_events(&mut self) -> bool {
        loop {
            match self.mux.poll_event() {
                Ok(Some(event)) => self.handle(event),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::RemoteOpen {
                offer,
                protocol,
                id,
                ..
            } => {
                let is_own = id.as_deref() == Some(self.remote.as_bytes().as_slice());
                if protocol == PROTOCOL && is_own && self.channel.is_none() {
                    self.channel = self.mux.accept(offer, &[]).ok();
                } else {
                    self.mux.reject(offer);
                }
            }
            Event::Message {
                kind: PAIR,
                payload,
                ..
            } => {
                if let Ok(pair) = Pair::from_slice(&payload) {
                    self.relay.handle_pair(self.id, &pair);
                }
            }
            Event::Message {
                kind: UNPAIR,
                payload,
                ..
            } => {
                if let Ok(unpair) = Unpair::from_slice(&payload) {
                    self.relay.handle_unpair(self.id, &unpair);
                }
            }
            Event::Closed { .. } => self.channel = None,
            _ => {}
        }
    }
}
