//! All streams of an endpoint by id, whichever socket carries them.
//! Knows ids. Does not know packets.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ferrocore_primitives::time::Time;
use thiserror::Error;
use tokio::time::Instant;

use super::handle::{Cell, UdxStream};
use super::udp::UdxSocket;
use crate::limits::STREAMS_MAX;
use crate::stream::{Config, Stream};

/// An endpoint: any number of sockets that share any number of streams, so that a stream can move between them.
#[derive(Debug, Clone)]
pub struct Udx {
    table: Arc<Table>,
}

/// Why no stream was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CreateError {
    /// Choose another id.
    #[error("stream id {0} is in use")]
    IdInUse(u32),
    /// Close streams first.
    #[error("the endpoint holds {STREAMS_MAX} streams already")]
    TooMany,
}

/// The streams, and the clock they live by.
#[derive(Debug)]
pub(super) struct Table {
    streams: Mutex<HashMap<u32, Arc<Cell>>>,
    started: Instant,
}

impl Udx {
    /// An endpoint without sockets or streams.
    pub fn new() -> Self {
        Self {
            table: Arc::new(Table {
                streams: Mutex::default(),
                started: Instant::now(),
            }),
        }
    }

    /// Opens a UDP socket and starts the task that drives it, on the runtime this is called in. An IPv6 socket
    /// carries IPv4 too.
    ///
    /// # Errors
    /// What the operating system says; the address may be in use.
    ///
    /// # Panics
    /// Outside of a tokio runtime with IO and time enabled.
    pub fn bind(&self, address: SocketAddr) -> io::Result<UdxSocket> {
        UdxSocket::bind(Arc::clone(&self.table), address)
    }

    /// Makes a stream that peers address as `local_id`. It takes in what arrives for it and says nothing until it
    /// is [connected](super::StreamHandle::connect) or [listens](super::StreamHandle::listen). Choose ids at
    /// random: whoever guesses one can disturb the stream.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn create_stream(&self, local_id: u32, config: Config) -> Result<UdxStream, CreateError> {
        let stream = Stream::new(self.table.now(), local_id, config);
        let cell = Arc::new(Cell::new(stream));
        self.table.insert(local_id, &cell)?;
        Ok(UdxStream::new(Arc::clone(&self.table), cell))
    }

    /// Streams that exist, those included that linger after their end.
    pub fn stream_count(&self) -> usize {
        self.table.lock().len()
    }
}

impl Default for Udx {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    pub(super) fn now(&self) -> Time {
        Time::ZERO + self.started.elapsed()
    }

    /// The instant of `time` on the runtime's clock.
    pub(super) fn instant(&self, time: Time) -> Instant {
        self.started + time.saturating_since(Time::ZERO)
    }

    pub(super) fn get(&self, id: u32) -> Option<Arc<Cell>> {
        self.lock().get(&id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Cell>> {
        self.lock().values().cloned().collect()
    }

    /// Forgets `cell`, unless its id is another stream's by now.
    pub(super) fn remove(&self, id: u32, cell: &Arc<Cell>) {
        if let Entry::Occupied(entry) = self.lock().entry(id)
            && Arc::ptr_eq(entry.get(), cell)
        {
            entry.remove();
        }
    }

    /// A stream that is over for its owner but lingers gives its id up.
    fn insert(&self, id: u32, cell: &Arc<Cell>) -> Result<(), CreateError> {
        let mut streams = self.lock();
        if streams.len() >= STREAMS_MAX {
            return Err(CreateError::TooMany);
        }
        match streams.entry(id) {
            Entry::Occupied(mut entry) if entry.get().is_closed() => {
                entry.insert(Arc::clone(cell));
            }
            Entry::Occupied(_) => return Err(CreateError::IdInUse(id)),
            Entry::Vacant(entry) => {
                entry.insert(Arc::clone(cell));
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<Cell>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
