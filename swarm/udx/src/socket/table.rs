//! All streams of an endpoint by id, whichever socket carries them.
//! Knows ids. Does not know packets.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ferrocore_primitives::time::Time;
use thiserror::Error;
use tokio::time::Instant;

use super::handle::{Cell, UdxStream};
use super::udp::{Inbox, UdxSocket};
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
    /// In the order of binding. The first that lives keeps the time of streams that no socket carries yet.
    sockets: Mutex<Vec<Weak<Inbox>>>,
    started: Instant,
}

impl Udx {
    /// An endpoint without sockets or streams.
    pub fn new() -> Self {
        Self {
            table: Arc::new(Table {
                streams: Mutex::default(),
                sockets: Mutex::default(),
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
        self.table.keep_time_of(&cell);
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

    /// Makes a bound socket known. The first keeps the time of streams that no socket carries.
    pub(super) fn add_socket(&self, inbox: &Arc<Inbox>) {
        let is_first = {
            let mut sockets = self.sockets();
            sockets.push(Arc::downgrade(inbox));
            sockets.len() == 1
        };
        if is_first {
            self.adopt_strays();
        }
    }

    /// Forgets a socket, and lets the next one keep the time if it was the first.
    pub(super) fn remove_socket(&self, inbox: &Arc<Inbox>) {
        let is_it = |known: &Weak<Inbox>| known.as_ptr() == Arc::as_ptr(inbox);
        let was_first = {
            let mut sockets = self.sockets();
            let was_first = sockets.first().is_some_and(is_it);
            sockets.retain(|known| !is_it(known));
            was_first
        };
        if was_first {
            self.adopt_strays();
        }
    }

    fn adopt_strays(&self) {
        let strays = self.all();
        let strays = strays.iter().filter(|cell| cell.lock().socket.is_none());
        strays.for_each(|cell| self.keep_time_of(cell));
    }

    /// Has some socket's driver look at a stream that belongs to none: it may be waiting with a deadline.
    pub(super) fn keep_time_of(&self, cell: &Arc<Cell>) {
        let first = self.sockets().iter().find_map(Weak::upgrade);
        if let Some(inbox) = first {
            cell.submit_to(&inbox);
        }
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

    fn sockets(&self) -> MutexGuard<'_, Vec<Weak<Inbox>>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<Cell>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
