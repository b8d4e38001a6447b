//! Who has a place at an address where peers are accepted, and who gives it up for another.
//! Knows where connections come from and how long they are here. Does not know what they carry.
//!
//! Whoever fills all places must not keep others out: a host that opens many connections pays with its own.
//!
//! | when | who goes |
//! |---|---|
//! | [`HALF_OPEN_MAX`] have not done their handshake | the longest of those, of the source that has most of them |
//! | [`INBOUND_MAX`] are here | the longest that has shown no core's key, of the source that has most of those |
//! | ... and all have shown one | the last of the source with the most, if that is above [`INBOUND_SHARE`], and another's than the newcomer's |
//! | ... and none has that many | the newcomer |
//!
//! Who goes is cut off, but its socket is closed a moment later. While [`LEAVING_MAX`] are about to be, nobody comes.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use ferrocore_replication::Session;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use crate::limits::{HALF_OPEN_MAX, INBOUND_MAX, INBOUND_SHARE, LEAVING_MAX};

/// The places of one address.
#[derive(Debug, Clone)]
pub(crate) struct Guests {
    table: Arc<Mutex<Table>>,
    sockets: Arc<Semaphore>,
}

/// A place, given up when dropped: after the socket is closed.
#[derive(Debug)]
pub(crate) struct Place {
    table: Arc<Mutex<Table>>,
    number: u64,
    session: Arc<OnceLock<Weak<Session>>>,
    _socket: OwnedSemaphorePermit,
}

#[derive(Debug, Default)]
struct Table {
    /// By arrival.
    guests: BTreeMap<u64, Guest>,
    next: u64,
}

#[derive(Debug)]
struct Guest {
    source: IpAddr,
    /// Known once it is running.
    task: Option<AbortHandle>,
    /// Known once its handshake is done.
    session: Arc<OnceLock<Weak<Session>>>,
}

impl Guests {
    /// Makes room for a connection from this address. None if nobody is to go for it. To be asked for one at a time.
    pub(crate) async fn admit(&self, address: IpAddr) -> Option<Place> {
        let source = source(address);
        lock(&self.table).make_room(source)?;
        let socket = Arc::clone(&self.sockets).acquire_owned().await.ok()?;
        let mut table = lock(&self.table);
        let number = table.next;
        table.next += 1;
        let session = Arc::default();
        let guest = Guest {
            source,
            task: None,
            session: Arc::clone(&session),
        };
        table.guests.insert(number, guest);
        Some(Place {
            table: Arc::clone(&self.table),
            number,
            session,
            _socket: socket,
        })
    }

    /// Says what to abort when the place is given to another.
    pub(crate) fn runs(&self, number: u64, task: AbortHandle) {
        if let Some(guest) = lock(&self.table).guests.get_mut(&number) {
            guest.task = Some(task);
        }
    }
}

impl Default for Guests {
    fn default() -> Self {
        Self {
            table: Arc::default(),
            sockets: Arc::new(Semaphore::new(INBOUND_MAX + LEAVING_MAX)),
        }
    }
}

impl Place {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The handshake is done.
    pub(crate) fn attends(&self, session: &Arc<Session>) {
        self.session.set(Arc::downgrade(session)).ok(); // it is done once
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.table).guests.remove(&self.number);
    }
}

impl Guest {
    fn is_half_open(&self) -> bool {
        self.session.get().is_none()
    }

    fn is_unproven(&self) -> bool {
        let session = self.session.get().and_then(Weak::upgrade);
        session.is_none_or(|session| !session.is_proven())
    }
}

impl Table {
    fn make_room(&mut self, source: IpAddr) -> Option<()> {
        let half_open = self.guests.values().filter(|guest| guest.is_half_open());
        if half_open.count() >= HALF_OPEN_MAX {
            let (_, longest, _) = self.crowd(Guest::is_half_open)?;
            self.remove(longest);
        }
        if self.guests.len() < INBOUND_MAX {
            return Some(());
        }
        if let Some((_, longest, _)) = self.crowd(Guest::is_unproven) {
            self.remove(longest);
            return Some(());
        }
        let (crowd, _, last) = self.crowd(|_| true)?;
        let count = self.guests.values().filter(|guest| guest.source == crowd);
        if crowd == source || count.count() <= INBOUND_SHARE {
            return None;
        }
        self.remove(last);
        Some(())
    }

    /// The source with the most guests of a kind, and the first and last of them.
    fn crowd(&self, is_one: impl Fn(&Guest) -> bool) -> Option<(IpAddr, u64, u64)> {
        let mut sources: HashMap<IpAddr, (usize, u64, u64)> = HashMap::new();
        for (&number, guest) in self.guests.iter().filter(|(_, guest)| is_one(guest)) {
            let (count, _, last) = sources.entry(guest.source).or_insert((0, number, number));
            (*count, *last) = (*count + 1, number);
        }
        // Of sources with as many, that which is here longest.
        let most = sources
            .into_iter()
            .max_by_key(|(_, (count, first, _))| (*count, std::cmp::Reverse(*first)));
        most.map(|(source, (_, first, last))| (source, first, last))
    }

    fn remove(&mut self, number: u64) {
        let Some(guest) = self.guests.remove(&number) else {
            return;
        };
        tracing::debug!(source = %guest.source, "a peer gives way to another");
        // No goodbye: it need not read it, and there may be many.
        if let Some(session) = guest.session.get().and_then(Weak::upgrade) {
            session.abort();
        }
        if let Some(task) = guest.task {
            task.abort();
        }
    }
}

/// What counts as one host: whoever has one IPv6 address has as many as it likes.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address => address,
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn host(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    #[tokio::test]
    async fn a_host_that_fills_all_places_keeps_nobody_else_out() {
        let guests = Guests::default();
        let honest = guests.admit(host(1)).await.unwrap();
        let mut flood = Vec::new();
        for _ in 0..10 * INBOUND_MAX {
            flood.push(guests.admit(host(2)).await.unwrap());
            flood.retain(|place| lock(&guests.table).guests.contains_key(&place.number));
        }
        let late = guests.admit(host(3)).await.unwrap();
        let table = lock(&guests.table);
        assert!(table.guests.len() <= INBOUND_MAX);
        for kept in [&honest, &late, flood.last().unwrap()] {
            assert!(table.guests.contains_key(&kept.number));
        }
        assert!(!table.guests.contains_key(&flood.first().unwrap().number));
        drop(table);
        drop((honest, flood, late));
        assert!(lock(&guests.table).guests.is_empty());
    }

    /// Goal: those who gave way count until their sockets are closed.
    #[test]
    fn nobody_comes_while_too_many_are_leaving() {
        let guests = Guests::default();
        let admit = || {
            let mut admitted = pin!(guests.admit(host(2)));
            let mut context = Context::from_waker(Waker::noop());
            match admitted.as_mut().poll(&mut context) {
                Poll::Ready(place) => place,
                Poll::Pending => None,
            }
        };
        let mut flood: Vec<Place> = std::iter::from_fn(admit).take(2 * INBOUND_MAX).collect();
        assert_eq!(flood.len(), INBOUND_MAX + LEAVING_MAX);
        flood.swap_remove(0);
        assert!(admit().is_some());
    }

    #[test]
    fn addresses_of_one_network_are_one_host() {
        let one = source("2001:db8:0:7::1".parse().unwrap());
        assert_eq!(source("2001:db8:0:7:ffff::2".parse().unwrap()), one);
        assert_ne!(source("2001:db8:0:8::1".parse().unwrap()), one);
        assert_eq!(source("::ffff:10.0.0.1".parse().unwrap()), host(1));
    }
}
