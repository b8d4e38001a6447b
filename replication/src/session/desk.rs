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
