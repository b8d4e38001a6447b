//! Messages of applications that travel beside a core, on the connections that replicate it.
//!
//! Knows names, bounded queues, and which suppliers carry messages. Does not know wires: a supplier
//! takes what is to be sent ([`Supply::next_extension`](crate::core::Supply::next_extension)) and
//! hands in what came ([`Supply::extension_arrived`](crate::core::Supply::extension_arrived)).
//! Nothing here is verified or stored: what a message means is between its two ends.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use event_listener::Event as Signal;
use thiserror::Error;

use crate::core::Core;
use crate::few::Few;
use crate::limits::{EXTENSION_BYTES_MAX, EXTENSION_NAME_MAX, EXTENSION_QUEUE_MAX};
use crate::supply::SupplierId;

/// A message under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtensionMessage {
    /// Which extension it belongs to.
    pub name: Arc<str>,
    /// Its bytes.
    pub message: Bytes,
}

/// A message could not be sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ExtensionError {
    /// The peer is gone, or has never carried messages; others may be there.
    #[error("the peer is not connected any more")]
    Gone,
    /// The peer does not take what waits for it; try again later.
    #[error("too many messages wait for the peer")]
    Full,
    /// A message holds at most [`EXTENSION_BYTES_MAX`] bytes; send it in parts, or append it.
    #[error("a message of {bytes} bytes is too long; {EXTENSION_BYTES_MAX} fit")]
    TooLong {
        /// The message's length.
        bytes: usize,
    },
    /// A name has 1 to [`EXTENSION_NAME_MAX`] bytes.
    #[error("a name has 1 to {EXTENSION_NAME_MAX} bytes, not {bytes}")]
    Name {
        /// The name's length.
        bytes: usize,
    },
}

/// One end of an extension: sends to the peers of a core and receives from them under one name.
///
/// Until it is dropped it gets a copy of every message under its name. At most
/// [`EXTENSION_QUEUE_MAX`] messages, of [`EXTENSION_BYTES_MAX`] bytes in all, wait for a receiver or for a
/// peer; what comes beyond that is lost, as it would be if the connection had broken.
///
/// Messages are bare bytes. In JavaScript that is `registerExtension(name, { encoding: 'binary' })`; its default
/// encoding puts the length before the bytes, as a compact-encoded uint, and a message that lacks it
/// costs the connection.
///
/// # Examples
/// ```
/// # use ferrocore_log::Corestore;
/// let core = Corestore::memory().get_named("notes")?;
/// let chat = core.extension("chat")?;
/// assert_eq!(chat.broadcast("hello")?, 0); // nobody is connected
/// assert!(chat.try_next().is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Extension {
    core: Core,
    name: Arc<str>,
    inbox: Arc<Inbox>,
}

impl Extension {
    pub(crate) fn new(core: Core, name: &str) -> Result<Self, ExtensionError> {
        if !(1..=EXTENSION_NAME_MAX).contains(&name.len()) {
            return Err(ExtensionError::Name { bytes: name.len() });
        }
        let name: Arc<str> = name.into();
        let inbox = core.extensions().register(&name);
        Ok(Self { core, name, inbox })
    }

    /// The name both ends know it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends `message` to every peer, whether it knows the extension or not; returns to how many.
    /// A peer that does not take what waits for it is left out.
    ///
    /// # Errors
    /// [`ExtensionError::TooLong`].
    pub fn broadcast(&self, message: impl Into<Bytes>) -> Result<usize, ExtensionError> {
        let message = self.envelope(message.into())?;
        let sent = self.core.extensions().broadcast(&message);
        self.core.wake_suppliers();
        Ok(sent)
    }

    /// Sends `message` to one peer: the one that a message came from.
    ///
    /// # Errors
    /// [`ExtensionError::Gone`], [`ExtensionError::Full`], [`ExtensionError::TooLong`].
    pub fn send(&self, peer: SupplierId, message: impl Into<Bytes>) -> Result<(), ExtensionError> {
        let message = self.envelope(message.into())?;
        self.core.extensions().send(peer, message)?;
        self.core.wake_suppliers();
        Ok(())
    }

    /// The next message and who sent it, if one is waiting.
    pub fn try_next(&self) -> Option<(SupplierId, Bytes)> {
        lock(&self.inbox.queue).pop()
    }

    /// The next message and who sent it, waiting for it.
    pub async fn next(&self) -> (SupplierId, Bytes) {
        loop {
            let arrived = self.inbox.arrived.listen();
            if let Some(message) = self.try_next() {
                return message;
            }
            arrived.await;
        }
    }

    fn envelope(&self, message: Bytes) -> Result<ExtensionMessage, ExtensionError> {
        let bytes = message.len();
        if bytes > EXTENSION_BYTES_MAX {
            return Err(ExtensionError::TooLong { bytes });
        }
        let name = Arc::clone(&self.name);
        Ok(ExtensionMessage { name, message })
    }
}

impl fmt::Debug for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extension")
            .field("core", &self.core.key())
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The extensions of one core, and what waits to be sent to each supplier that carries messages.
#[derive(Debug, Default)]
pub(crate) struct ExtensionHub {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    inboxes: HashMap<Arc<str>, Vec<Weak<Inbox>>>,
    /// None stands for an empty queue: most of many thousand cores have nothing to send.
    outboxes: Few<SupplierId, Option<Box<Queue<ExtensionMessage>>>>,
}

#[derive(Debug, Default)]
struct Inbox {
    queue: Mutex<Queue<(SupplierId, Bytes)>>,
    arrived: Signal,
}

impl ExtensionHub {
    /// From now on messages may be left for `supplier`.
    pub(crate) fn add_carrier(&self, supplier: SupplierId) {
        self.lock().outboxes.get_or_insert_with(supplier, || None);
    }

    pub(crate) fn remove_carrier(&self, supplier: SupplierId) {
        self.lock().outboxes.remove(&supplier);
    }

    /// What is to be sent to `supplier` next.
    pub(crate) fn next_for(&self, supplier: SupplierId) -> Option<ExtensionMessage> {
        let mut state = self.lock();
        let outbox = state.outboxes.get_mut(&supplier)?;
        let message = outbox.as_mut()?.pop();
        outbox.take_if(|outbox| outbox.messages.is_empty());
        message
    }

    pub(crate) fn is_waiting_for(&self, supplier: SupplierId) -> bool {
        let state = self.lock();
        state.outboxes.get(&supplier).is_some_and(Option::is_some)
    }

    /// Hands a message that came from `supplier` to whoever registered its name.
    pub(crate) fn arrived(&self, supplier: SupplierId, name: &str, message: &Bytes) {
        let mut state = self.lock();
        let Some(inboxes) = state.inboxes.get_mut(name) else {
            return;
        };
        // What it came in may be longer by any amount, and is not weighed.
        let mut own = None;
        inboxes.retain(|inbox| {
            inbox.upgrade().is_some_and(|inbox| {
                let mut queue = lock(&inbox.queue);
                if queue.has_room(message.len()) {
                    let own = own.get_or_insert_with(|| Bytes::copy_from_slice(message));
                    queue.push((supplier, own.clone()));
                }
                drop(queue);
                inbox.arrived.notify(usize::MAX);
                true
            })
        });
        if inboxes.is_empty() {
            state.inboxes.remove(name);
        }
    }

    fn register(&self, name: &Arc<str>) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::default());
        let mut state = self.lock();
        let inboxes = state.inboxes.entry(Arc::clone(name)).or_default();
        inboxes.retain(|inbox| inbox.strong_count() > 0);
        inboxes.push(Arc::downgrade(&inbox));
        inbox
    }

    fn broadcast(&self, message: &ExtensionMessage) -> usize {
        let mut state = self.lock();
        let outboxes = state.outboxes.values_mut();
        outboxes
            .filter_map(|outbox| {
                let outbox = outbox.get_or_insert_default();
                outbox.push(message.clone()).then_some(())
            })
            .count()
    }

    fn send(&self, supplier: SupplierId, message: ExtensionMessage) -> Result<(), ExtensionError> {
        let mut state = self.lock();
        let outbox = state
            .outboxes
            .get_mut(&supplier)
            .ok_or(ExtensionError::Gone)?;
        outbox
            .get_or_insert_default()
            .push(message)
            .then_some(())
            .ok_or(ExtensionError::Full)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Messages in order, bounded in number and in bytes.
#[derive(Debug)]
struct Queue<T> {
    messages: VecDeque<T>,
    bytes: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            messages: VecDeque::new(),
            bytes: 0,
        }
    }
}

/// What a message weighs in a queue, in bytes.
trait Weight {
    fn weight(&self) -> usize;
}

impl Weight for ExtensionMessage {
    fn weight(&self) -> usize {
        self.message.len()
    }
}

impl Weight for (SupplierId, Bytes) {
    fn weight(&self) -> usize {
        self.1.len()
    }
}

impl<T: Weight> Queue<T> {
    /// Whether there is room for a message of `weight`.
    fn has_room(&self, weight: usize) -> bool {
        let bytes = self.bytes + weight;
        self.messages.len() < EXTENSION_QUEUE_MAX && bytes <= EXTENSION_BYTES_MAX
    }

    /// Adds a message, or says that there is no room.
    fn push(&mut self, message: T) -> bool {
        let fits = self.has_room(message.weight());
        if fits {
            self.bytes += message.weight();
            self.messages.push_back(message);
        }
        fits
    }

    fn pop(&mut self) -> Option<T> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.weight();
        Some(message)
    }
}

// A panic under a lock of this module leaves whole queues behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Corestore;

    fn core() -> Core {
        Corestore::memory().get_named("test").unwrap()
    }

    #[test]
    fn messages_reach_those_who_carry_them_and_those_who_asked() {
        let core = core();
        let chat = core.extension("chat").unwrap();
        let supply = core.supply();
        let plain = supply.attach(Arc::new(|| {}));
        let peer = supply.attach(Arc::new(|| {}));
        supply.carry_extensions(peer);
        assert_eq!(chat.broadcast("hello").unwrap(), 1);
        assert_eq!(chat.send(plain, "you"), Err(ExtensionError::Gone));
        assert_eq!(supply.next_extension(peer).unwrap().message, "hello");
        supply.extension_arrived(peer, "other", &Bytes::from("nobody listens"));
        supply.extension_arrived(peer, "chat", &Bytes::from("hello yourself"));
        assert_eq!(chat.try_next(), Some((peer, Bytes::from("hello yourself"))));
        assert_eq!(chat.try_next(), None);
        supply.detach(peer);
        assert_eq!(chat.send(peer, "you"), Err(ExtensionError::Gone));
    }

    #[test]
    fn queues_are_bounded_in_number_and_in_bytes() {
        let core = core();
        let chat = core.extension("chat").unwrap();
        let supply = core.supply();
        let peer = supply.attach(Arc::new(|| {}));
        supply.carry_extensions(peer);
        for _ in 0..EXTENSION_QUEUE_MAX {
            chat.send(peer, "").unwrap();
        }
        assert_eq!(chat.send(peer, ""), Err(ExtensionError::Full));
        while supply.next_extension(peer).is_some() {}
        let all = Bytes::from(vec![0; EXTENSION_BYTES_MAX]);
        chat.send(peer, all.clone()).unwrap();
        assert_eq!(chat.send(peer, "x"), Err(ExtensionError::Full));
        for _ in 0..3 {
            supply.extension_arrived(peer, "chat", &all);
        }
        assert!(chat.try_next().is_some() && chat.try_next().is_none());
        let bytes = EXTENSION_BYTES_MAX + 1;
        let longer = chat.broadcast(vec![0; bytes]);
        assert_eq!(longer, Err(ExtensionError::TooLong { bytes }));
    }

    #[test]
    fn a_message_that_waits_keeps_nothing_else_that_came_with_it() {
        let core = core();
        let ends = [(); 2].map(|()| core.extension("chat").unwrap());
        let peer = core.supply().attach(Arc::new(|| {}));
        let frame = Bytes::from(vec![7; 1000]);
        core.supply()
            .extension_arrived(peer, "chat", &frame.slice(..1));
        assert!(frame.is_unique());
        let came = ends.map(|end| end.try_next().unwrap().1);
        assert_eq!(came, [&[7_u8][..]; 2]);
    }

    #[test]
    fn a_dropped_end_is_forgotten() {
        let core = core();
        drop(core.extension("chat").unwrap());
        let peer = core.supply().attach(Arc::new(|| {}));
        core.supply().extension_arrived(peer, "chat", &Bytes::new());
        assert!(core.extensions().lock().inboxes.is_empty());
        assert_eq!(
            core.extension("").unwrap_err(),
            ExtensionError::Name { bytes: 0 }
        );
    }
}
