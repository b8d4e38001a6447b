//! What frames are worked on with: the connection, and the store that answers its questions.
//!
//! Knows no streams and no tasks, so that it can work on any thread.

use std::sync::Arc;

use bytes::Bytes;
use ferrocore_log::Corestore;
use ferrocore_primitives::time::Time;
use tokio::sync::{mpsc, watch};

use super::SessionError;
use crate::connection::{Connection, Event};
use crate::misbehaviour::PeerMisbehaved;

/// The protocol's side of a session.
pub(super) struct Desk {
    pub(super) connection: Connection,
    pub(super) store: Corestore,
    misbehaved: mpsc::Sender<Arc<PeerMisbehaved>>,
    /// The session has not let its cores go while there is one.
    _end: Arc<End>,
}

/// Where a session says how it ended.
pub(super) type End = watch::Sender<Option<Result<(), SessionError>>>;

impl Desk {
    pub(super) fn new(
        connection: Connection,
        store: Corestore,
        misbehaved: mpsc::Sender<Arc<PeerMisbehaved>>,
        end: Arc<End>,
    ) -> Self {
        Self {
            connection,
            store,
            misbehaved,
            _end: end,
        }
    }

    /// Takes frames in, commits what they bring and answers what they ask.
    pub(super) fn work_on(&mut self, frames: Vec<Bytes>, now: Time) -> Result<(), PeerMisbehaved> {
        for frame in frames {
            self.connection.handle_frame(frame);
        }
        self.poll_events(now)
    }

    /// Answers what the connection asks, and tells what the peer did wrong, also before what costs the connection.
    pub(super) fn poll_events(&mut self, now: Time) -> Result<(), PeerMisbehaved> {
        let answered = self.answer_events(now);
        while let Some(misbehaved) = self.connection.poll_misbehaviour() {
            // If nobody takes them, they were logged at least.
            let _ = self.misbehaved.try_send(Arc::new(misbehaved));
        }
        answered
    }

    fn answer_events(&mut self, now: Time) -> Result<(), PeerMisbehaved> {
        while let Some(Event::CoreWanted {
            offer,
            discovery_key,
            handshake,
        }) = self.connection.poll_event(now)?
        {
            match self.store.get_by_discovery_key(&discovery_key) {
                Ok(Some(core)) => self.connection.accept(offer, &handshake, &core)?,
                Ok(None) => self.connection.reject(offer),
                Err(error) => {
                    tracing::warn!(core = %discovery_key, %error, "cannot open a core that a peer wants");
                    self.connection.reject(offer);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ferrocore_log::proof::{BlockProof, Proof};
    use ferrocore_log::push::PushMode;
    use ferrocore_mux::Mux;
    use ferrocore_primitives::encoding::Encode;

    use super::*;
    use crate::capability::capability;
    use crate::connection::PROTOCOL;
    use crate::limits::BAD_PUSHES_MAX;
    use crate::messages::{Data, Handshake, Message};

    /// Goal: what a peer did wrong is told before what cost it the connection, though both came in one burst. Method: pushes
    /// that do not hold, which cost the channel, and garbage behind them.
    #[test]
    fn all_that_was_wrong_is_told_before_the_end() {
        let store = Corestore::memory();
        let core = store.get_named("test").unwrap();
        core.append("true").unwrap();
        core.set_push_mode(PushMode::Allow);
        let (misbehaved, mut told) = mpsc::channel(4);
        let hash = [0x11; 64];
        let connection = Connection::new(false, hash, Arc::new(|| {}));
        let (end, _) = watch::channel(None);
        let mut desk = Desk::new(connection, store, misbehaved, Arc::new(end));

        let mut peer = Mux::new();
        let capability = capability(true, &core.key(), &hash);
        let seeks = true;
        let handshake = Handshake { seeks, capability }.to_vec();
        let id = core.discovery_key();
        let channel = peer.open(PROTOCOL, Some(id.as_bytes()), &handshake);
        let channel = channel.unwrap();
        let block = BlockProof {
            index: 0,
            value: Bytes::from_static(b"false"),
            nodes: Vec::new(),
        };
        let proof = Proof {
            block: Some(block),
            ..Proof::default()
        };
        let pushed = Message::Data(Data { request: 0, proof });
        for _ in 0..BAD_PUSHES_MAX {
            let sent = pushed.encode(&mut Vec::new(), |segments| {
                peer.send(channel, pushed.kind(), segments)
            });
            sent.unwrap();
        }
        let said = std::iter::from_fn(|| peer.poll_transmit()).map(|frame| frame.to_bytes());
        let garbage = Bytes::from(vec![0xff; 40]);
        let burst: Vec<Bytes> = said.chain([garbage]).collect();

        let ended = desk.work_on(burst, Time::ZERO);
        assert!(matches!(&ended, Err(PeerMisbehaved::Mux(_))), "{ended:?}");
        let before = told.try_recv().expect("it is told");
        assert!(matches!(*before, PeerMisbehaved::BadProof(_)), "{before:?}");
        assert!(told.try_recv().is_err(), "and what ended it is no news");
        assert!(!desk.connection.has(&id), "the channel is closed");
    }
}
