//! Both sides' channel numbers, and which of ours belongs to which of theirs.
//!
//! Each side numbers its own channels from 1 and reuses a number once both sides are done with it.
//! A channel is open when both sides opened one of the same [`Name`]; those waiting for their other
//! half are paired first come, first served.
//!
//! Knows the life of a channel. Does not know frames.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::error::{MuxError, PeerMisbehaved};
use crate::limits::{NAME_LEN_MAX, OFFERED_BYTES_MAX, OFFERED_OVERHEAD};
use crate::remotes::Remotes;

/// A channel of one [`Mux`](crate::Mux), from our `open` or `accept` until it is closed.
/// Unlike the number on the wire it does not come back (but after 2^32 uses of its number).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId {
    number: u32,
    generation: u32,
}

impl ChannelId {
    /// Our number of the channel, as frames carry it.
    pub(crate) fn number(self) -> u32 {
        self.number
    }
}

/// A channel that the peer opened and we did not answer yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OfferId {
    number: u32,
    serial: u64,
}

impl OfferId {
    /// The peer's number of the channel.
    pub(crate) fn number(self) -> u32 {
        self.number
    }
}

/// What channels are paired by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub(crate) protocol: String,
    /// Empty stands for none.
    pub(crate) id: Bytes,
}

impl Offer {
    /// The name that the peer knows.
    pub(crate) fn said(&self) -> &Name {
        self.alias.as_ref().unwrap_or(&self.name)
    }

    /// What it counts for, by what it holds.
    fn recount(&self) -> usize {
        let ahead = self.ahead.iter();
        let ahead = ahead.map(|(_, payload)| OFFERED_OVERHEAD + payload.len());
        cost(&self.name, self.alias.as_ref(), &self.handshake) + ahead.sum::<usize>()
    }
}

impl Name {
    pub(crate) fn new(protocol: &str, id: &[u8]) -> Self {
        Self {
            protocol: protocol.to_owned(),
            id: Bytes::copy_from_slice(id),
        }
    }

    /// Bytes that a name takes up.
    fn len(&self) -> usize {
        self.protocol.len() + self.id.len()
    }

    /// The length to complain about, if there is one.
    pub(crate) fn excessive_len(protocol: &str, id: &[u8]) -> Option<usize> {
        let len = protocol.len().max(id.len());
        (len > NAME_LEN_MAX).then_some(len)
    }
}

/// The peer's half of a channel that waits for ours.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) name: Name,
    /// The name by which the peer opened it, if that is an alias.
    pub(crate) alias: Option<Name>,
    pub(crate) handshake: Bytes,
    /// Messages sent ahead of our answer: kind and payload.
    pub(crate) ahead: Vec<(u64, Bytes)>,
    serial: u64,
    cost: usize,
}

/// What became of the peer's `open`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RemoteOpened {
    /// It met a channel of ours.
    Paired(ChannelId),
    /// It waits for us.
    Offered(OfferId),
    /// It met one that we closed meanwhile; the peer knows or will learn that.
    Abandoned,
}

/// What became of the peer's `close`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RemoteClosed {
    /// An open channel is closed.
    Closed(ChannelId),
    /// An offer was taken back: a reject gives the number back to the peer.
    Withdrawn,
    /// We closed it ourselves meanwhile.
    Unknown,
}

/// The tables. Slot `i` of our channels holds number `i + 1`.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    locals: Vec<Local>,
    /// Numbers of free locals; the last freed is used first.
    free: Vec<u32>,
    remotes: Remotes<Remote>,
    waiting: HashMap<Name, Waiting>,
    offers_seen: u64,
    offered_bytes: usize,
}

#[derive(Debug)]
struct Local {
    generation: u32,
    state: LocalState,
}

#[derive(Debug)]
enum LocalState {
    Free,
    /// We opened it; the peer did not answer yet.
    /// Boxed: most locals are open.
    Asking(Box<Name>),
    /// As `Asking`, but closed by us: the number is the peer's until it answers.
    Abandoned(Box<Name>),
    Open {
        remote: u32,
    },
}

#[derive(Debug)]
enum Remote {
    /// Boxed: most remotes are open.
    Offered(Box<Offer>),
    Open(ChannelId),
}

/// Names for which memory is kept when none waits.
const WAITING_KEPT_MAX: usize = 64;

/// Numbers of channels that wait for their other half. One of the two queues is always empty.
#[derive(Debug, Default)]
struct Waiting {
    ours: VecDeque<u32>,
    theirs: VecDeque<u32>,
}

impl Channels {
    /// Opens a channel of ours. Returns the offer it answers, if there was one.
    pub(crate) fn open(&mut self, name: Name) -> (ChannelId, Option<Offer>) {
        let waiting = self.waiting.entry(name.clone()).or_default();
        if let Some(remote) = waiting.theirs.pop_front() {
            let offer = self.take_offer(remote);
            self.forget_if_idle(&name);
            return (self.occupy_for(remote), offer);
        }
        let channel = self.occupy(LocalState::Asking(Box::new(name.clone())));
        self.waiting
            .entry(name)
            .or_default()
            .ours
            .push_back(channel.number);
        (channel, None)
    }

    /// Opens our half of an offered channel.
    pub(crate) fn accept(&mut self, offer: OfferId) -> Result<(ChannelId, Offer), MuxError> {
        let taken = self.withdraw(offer)?;
        Ok((self.occupy_for(offer.number), taken))
    }

    /// Removes an offer, to be answered with accept or reject.
    pub(crate) fn withdraw(&mut self, offer: OfferId) -> Result<Offer, MuxError> {
        match self.remotes.get(offer.number) {
            Some(Remote::Offered(found)) if found.serial == offer.serial => {}
            _ => return Err(MuxError::OfferGone),
        }
        let taken = self.take_offer(offer.number).ok_or(MuxError::OfferGone)?;
        self.remove_waiting(&taken.name, |waiting| &mut waiting.theirs, offer.number);
        Ok(taken)
    }

    /// Closes a channel of ours, open or not yet.
    pub(crate) fn close(&mut self, channel: ChannelId) -> Result<(), MuxError> {
        self.check(channel)?;
        let Some(local) = self.local_mut(channel.number) else {
            return Err(MuxError::ChannelClosed);
        };
        match std::mem::replace(&mut local.state, LocalState::Free) {
            LocalState::Asking(name) => local.state = LocalState::Abandoned(name),
            LocalState::Open { remote } => {
                self.remotes.remove(remote);
                self.release(channel.number);
            }
            LocalState::Free | LocalState::Abandoned(_) => {}
        }
        Ok(())
    }

    /// Whether messages may be sent on `channel`.
    pub(crate) fn check(&self, channel: ChannelId) -> Result<(), MuxError> {
        let usable = self.local(channel.number).is_some_and(|local| {
            local.generation == channel.generation
                && matches!(local.state, LocalState::Asking(_) | LocalState::Open { .. })
        });
        if usable {
            Ok(())
        } else {
            Err(MuxError::ChannelClosed)
        }
    }

    /// The peer opened a channel under its `number`, by `name` or an `alias` of it.
    pub(crate) fn remote_open(
        &mut self,
        number: u64,
        name: Name,
        alias: Option<Name>,
        handshake: &[u8],
    ) -> Result<RemoteOpened, PeerMisbehaved> {
        let number = self.remotes.check(number)?;
        let ours = self
            .waiting
            .get_mut(&name)
            .and_then(|waiting| waiting.ours.pop_front());
        let Some(local) = ours else {
            return self
                .offer(number, name, alias, handshake)
                .map(RemoteOpened::Offered);
        };
        self.forget_if_idle(&name);
        let Some(slot) = self.local_mut(local) else {
            return Ok(RemoteOpened::Abandoned);
        };
        if !matches!(slot.state, LocalState::Asking(_)) {
            self.release(local);
            return Ok(RemoteOpened::Abandoned);
        }
        slot.state = LocalState::Open { remote: number };
        let channel = ChannelId {
            number: local,
            generation: slot.generation,
        };
        self.remotes.insert(number, Remote::Open(channel));
        Ok(RemoteOpened::Paired(channel))
    }

    /// The peer rejected our channel. Returns it, unless we closed it meanwhile.
    pub(crate) fn remote_reject(
        &mut self,
        number: u64,
    ) -> Result<Option<ChannelId>, PeerMisbehaved> {
        let wrong = PeerMisbehaved::RejectedWrongChannel { channel: number };
        let local = u32::try_from(number).map_err(|_| wrong.clone())?;
        let slot = self.local(local).ok_or(wrong.clone())?;
        let channel = ChannelId {
            number: local,
            generation: slot.generation,
        };
        let (name, rejected) = match &slot.state {
            LocalState::Asking(name) => (name.clone(), Some(channel)),
            LocalState::Abandoned(name) => (name.clone(), None),
            LocalState::Free | LocalState::Open { .. } => return Err(wrong),
        };
        self.remove_waiting(&name, |waiting| &mut waiting.ours, local);
        self.release(local);
        Ok(rejected)
    }

    /// The peer closed the channel it calls `number`.
    pub(crate) fn remote_close(&mut self, number: u64) -> RemoteClosed {
        let Ok(number) = u32::try_from(number) else {
            return RemoteClosed::Unknown;
        };
        match self.remotes.get(number) {
            Some(Remote::Open(channel)) => {
                let channel = *channel;
                self.remotes.remove(number);
                self.release(channel.number);
                RemoteClosed::Closed(channel)
            }
            Some(Remote::Offered(offer)) => {
                let id = OfferId {
                    number,
                    serial: offer.serial,
                };
                match self.withdraw(id) {
                    Ok(_) => RemoteClosed::Withdrawn,
                    Err(_) => RemoteClosed::Unknown,
                }
            }
            None => RemoteClosed::Unknown,
        }
    }

    /// A message came on the channel the peer calls `number`. Returns the channel and the message
    /// if it is open; keeps the message if it is on offer; drops it if it is closed.
    pub(crate) fn remote_message(
        &mut self,
        number: u64,
        kind: u64,
        payload: Bytes,
    ) -> Result<Option<(ChannelId, Bytes)>, PeerMisbehaved> {
        let number = u32::try_from(number).ok();
        match number.and_then(|number| self.remotes.get_mut(number)) {
            Some(Remote::Open(channel)) => Ok(Some((*channel, payload))),
            Some(Remote::Offered(offer)) => {
                let cost = OFFERED_OVERHEAD + payload.len();
                reserve(&mut self.offered_bytes, cost)?;
                offer.cost += cost;
                // Copied, so that what is kept costs what it is counted for, not its whole frame.
                offer.ahead.push((kind, Bytes::copy_from_slice(&payload)));
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// What all offers together count for.
    pub(crate) fn offered_bytes(&self) -> usize {
        self.offered_bytes
    }

    /// How many offers there are, and what they count for by what they hold.
    pub(crate) fn recount_offered(&self) -> (usize, usize) {
        let offers = self.remotes.iter().filter_map(|remote| match remote {
            Remote::Offered(offer) => Some(offer.recount()),
            Remote::Open(_) => None,
        });
        offers.fold((0, 0), |(count, sum), cost| (count + 1, sum + cost))
    }

    fn offer(
        &mut self,
        number: u32,
        name: Name,
        alias: Option<Name>,
        handshake: &[u8],
    ) -> Result<OfferId, PeerMisbehaved> {
        let cost = cost(&name, alias.as_ref(), handshake);
        reserve(&mut self.offered_bytes, cost)?;
        self.offers_seen += 1;
        let serial = self.offers_seen;
        self.waiting
            .entry(name.clone())
            .or_default()
            .theirs
            .push_back(number);
        let handshake = Bytes::copy_from_slice(handshake);
        self.remotes.insert(
            number,
            Remote::Offered(Box::new(Offer {
                name,
                alias,
                handshake,
                ahead: Vec::new(),
                serial,
                cost,
            })),
        );
        Ok(OfferId { number, serial })
    }

    fn take_offer(&mut self, number: u32) -> Option<Offer> {
        match self.remotes.remove(number)? {
            Remote::Offered(offer) => {
                self.offered_bytes -= offer.cost;
                Some(*offer)
            }
            open => {
                self.remotes.insert(number, open);
                None
            }
        }
    }

    fn occupy_for(&mut self, remote: u32) -> ChannelId {
        let channel = self.occupy(LocalState::Open { remote });
        self.remotes.insert(remote, Remote::Open(channel));
        channel
    }

    fn occupy(&mut self, state: LocalState) -> ChannelId {
        let reused = self.free.pop().and_then(|number| {
            let local = self.local_mut(number)?;
            Some((number, local))
        });
        if let Some((number, local)) = reused {
            local.state = state;
            return ChannelId {
                number,
                generation: local.generation,
            };
        }
        self.locals.push(Local {
            generation: 0,
            state,
        });
        ChannelId {
            number: u32::try_from(self.locals.len()).expect("memory ends before 2^32 channels"),
            generation: 0,
        }
    }

    fn release(&mut self, number: u32) {
        if let Some(local) = self.local_mut(number) {
            local.state = LocalState::Free;
            local.generation = local.generation.wrapping_add(1);
            self.free.push(number);
        }
    }

    fn local(&self, number: u32) -> Option<&Local> {
        self.locals.get((number as usize).checked_sub(1)?)
    }

    fn local_mut(&mut self, number: u32) -> Option<&mut Local> {
        self.locals.get_mut((number as usize).checked_sub(1)?)
    }

    fn remove_waiting(
        &mut self,
        name: &Name,
        queue: fn(&mut Waiting) -> &mut VecDeque<u32>,
        number: u32,
    ) {
        if let Some(waiting) = self.waiting.get_mut(name) {
            queue(waiting).retain(|waiting| *waiting != number);
        }
        self.forget_if_idle(name);
    }

    fn forget_if_idle(&mut self, name: &Name) {
        if self
            .waiting
            .get(name)
            .is_some_and(|waiting| waiting.ours.is_empty() && waiting.theirs.is_empty())
        {
            self.waiting.remove(name);
        }
        if self.waiting.is_empty() && self.waiting.capacity() > WAITING_KEPT_MAX {
            self.waiting = HashMap::new(); // thousands were opened at once, and all found their half
        }
    }
}

/// What an offer counts for before anything is sent ahead on it. Its name is kept in the table of those that wait, too.
fn cost(name: &Name, alias: Option<&Name>, handshake: &[u8]) -> usize {
    let names = 2 * name.len() + alias.map_or(0, Name::len);
    OFFERED_OVERHEAD + names + handshake.len()
}

fn reserve(used: &mut usize, cost: usize) -> Result<(), PeerMisbehaved> {
    if cost > OFFERED_BYTES_MAX - *used {
        return Err(PeerMisbehaved::TooMuchAhead);
    }
    *used += cost;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Name {
        Name::new("p", b"")
    }

    #[test]
    fn the_number_freed_last_is_reused_first() {
        let mut channels = Channels::default();
        let opened: Vec<_> = (1..=3u64)
            .map(|number| {
                let channel = channels.open(name()).0;
                channels.remote_open(number, name(), None, b"").unwrap();
                channel
            })
            .collect();
        channels.close(opened[0]).unwrap();
        channels.close(opened[2]).unwrap();
        let again = channels.open(name()).0;
        assert_eq!(again.number(), 3);
        assert_ne!(again, opened[2], "an id does not come back");
        assert_eq!(channels.check(opened[2]), Err(MuxError::ChannelClosed));
        assert_eq!(channels.open(name()).0.number(), 1);
        assert_eq!(channels.open(name()).0.number(), 4);
    }

    #[test]
    fn a_number_closed_before_the_answer_stays_taken_until_it_comes() {
        for answer in ["open", "reject"] {
            let mut channels = Channels::default();
            let first = channels.open(name()).0;
            channels.close(first).unwrap();
            assert_eq!(channels.open(Name::new("other", b"")).0.number(), 2);
            if answer == "open" {
                assert_eq!(
                    channels.remote_open(1, name(), None, b""),
                    Ok(RemoteOpened::Abandoned)
                );
            } else {
                assert_eq!(channels.remote_reject(1), Ok(None));
            }
            assert_eq!(channels.open(name()).0.number(), 1);
        }
    }

    #[test]
    fn the_waiting_table_forgets_what_nobody_waits_for() {
        let mut channels = Channels::default();
        let OfferId { .. } = match channels.remote_open(1, name(), None, b"").unwrap() {
            RemoteOpened::Offered(offer) => channels.withdraw(offer).map(|_| offer).unwrap(),
            other => panic!("{other:?}"),
        };
        let _ = channels.open(name());
        channels.remote_open(1, name(), None, b"").unwrap();
        assert!(channels.waiting.is_empty());
        assert_eq!(channels.offered_bytes, 0);
    }
}
