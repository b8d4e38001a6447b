//! One core on one connection: both roles, composed of their parts.

use std::sync::Arc;
use std::task::Waker;

use ferrocore_log::Core;
use ferrocore_log::core::Finding;
use ferrocore_log::events::{Event, Events};
use ferrocore_log::supply::Wake;
use ferrocore_primitives::time::Time;

use crate::alarm::Alarm;
use crate::announcer::Announcer;
use crate::connection::Arriving;
use crate::downloads::Downloads;
use crate::extensions::Extensions;
use crate::kept::KeptMemory;
use crate::limits::{ANNOUNCE_BUFFER_TARGET, INVALID_REQUESTS_MAX, UPLOADS_TOGETHER};
use crate::messages::{Data, Message, NoData, Reason, Request, Sync};
use crate::misbehaviour::PeerMisbehaved;
use crate::peer::Peer;
use crate::pushes::Pushes;
use crate::reminder::Reminder;
use crate::stats::{CoreStats, Stats, Tally};
use crate::uploads::{self, Answer, LongAnswers, Question, Turn, Uploads};
use crate::wire::Wire;
use crate::work::steps;

/// A core that both sides may replicate.
pub(crate) struct CoreChannel {
    core: Core,
    events: Events,
    peer: Peer,
    announcer: Announcer,
    /// Whether there may be something to announce that waits for room in the output.
    is_silent: bool,
    downloads: Downloads,
    uploads: Uploads,
    extensions: Extensions,
    pushes: Pushes,
    reminder: Reminder,
    /// The peer has taken back a request, and asked for no upgrade since: one may have been in it.
    has_cancelled: bool,
    /// Keeps readers waiting until the peer has answered, or for long enough.
    finding: Option<Box<Finding>>,
    /// Whether we offered it, and the peer has neither taken nor rejected it.
    is_unanswered: bool,
    /// Rings when the core has news for us, once both sides have opened the channel.
    alarm: Option<Arc<Alarm>>,
    invalid_requests: u32,
    carried: Tally,
    /// Whether the connection has it among those that are to be settled, ...
    pub(crate) is_touched: bool,
    /// ... and among those that are to answer.
    pub(crate) is_asked: bool,
}

impl CoreChannel {
    pub(crate) fn new(core: Core, kept: &KeptMemory) -> Self {
        Self {
            events: core.events(),
            finding: Some(Box::new(core.finding())),
            is_unanswered: false,
            core,
            peer: Peer::default(),
            announcer: Announcer::default(),
            is_silent: false,
            downloads: Downloads::new(kept.kept()),
            uploads: Uploads::default(),
            extensions: Extensions::default(),
            pushes: Pushes::default(),
            reminder: Reminder::default(),
            has_cancelled: false,
            alarm: None,
            invalid_requests: 0,
            carried: Tally::default(),
            is_touched: false,
            is_asked: false,
        }
    }

    /// The peer opened its half, too. `alarm` rings whenever the core has news.
    pub(crate) fn handle_opened(
        &mut self,
        answers_seeks: bool,
        wire: &mut Wire<'_>,
        alarm: Arc<Alarm>,
    ) {
        self.alarm = Some(Arc::clone(&alarm));
        let waker = Waker::from(Arc::clone(&alarm));
        let wake: Wake = Arc::new(move || alarm.ring());
        self.downloads
            .start(&self.core, &self.peer, answers_seeks, wake, waker);
        self.finding = None;
        self.announcer.introduce(&self.core, &self.peer, wire);
    }

    /// It was offered to the peer.
    pub(crate) fn note_offered(&mut self) {
        self.is_unanswered = true;
    }

    /// The peer has answered, or needs to no more. False if it had.
    pub(crate) fn note_answered(&mut self) -> bool {
        std::mem::take(&mut self.is_unanswered)
    }

    /// Whether readers wait for the peer to answer our offer.
    pub(crate) fn is_finding(&self) -> bool {
        self.finding.is_some()
    }

    /// They have waited for long enough.
    pub(crate) fn stop_finding(&mut self) {
        self.finding = None;
    }

    /// Takes in one message. What follows from it is done by [`settle`](Self::settle).
    pub(crate) fn handle(
        &mut self,
        message: Message,
        wire: &mut Wire<'_>,
        now: Time,
    ) -> Result<(), PeerMisbehaved> {
        wire.counted.messages_received += 1;
        steps(1);
        match message {
            Message::Sync(sync) => self.handle_sync(sync, wire),
            Message::Request(request) => {
                wire.counted.requests_received += 1;
                self.has_cancelled &= request.proof.upgrade.is_none();
                self.uploads.push(Question::Request(request));
            }
            Message::Cancel(cancel) => {
                self.has_cancelled = true;
                self.uploads.cancel(cancel.request);
            }
            Message::Data(data) => {
                // A late answer to what was taken back is no push, and its author not to blame for it.
                let is_pushed = data.request == 0; // ours begin at 1
                let (waker, kept) = (self.downloads.waker(), self.downloads.kept_beside());
                if !is_pushed || !self.pushes.handle(&self.core, &data.proof, waker, kept)? {
                    let (core, peer, stats) = (&self.core, &mut self.peer, &mut wire.counted);
                    self.downloads.handle_data(core, peer, data, now, stats)?;
                }
            }
            Message::NoData(no_data) => {
                self.downloads
                    .handle_no_data(&self.core, &mut self.peer, no_data, now)?;
            }
            Message::Want(want) => {
                if self.peer.wants.add(want, wire.memory()) {
                    self.uploads.push(Question::Want(want));
                }
            }
            Message::Unwant(want) => self.peer.wants.remove(want),
            Message::Bitfield(bitfield) => {
                let blocks = &self.peer.blocks;
                let forgotten = blocks.handle_bitfield(&bitfield, wire.memory());
                self.downloads.note_forgotten(forgotten);
                self.downloads.note_available(bitfield.start);
            }
            Message::Range(range) => {
                let forgotten = self.peer.blocks.handle_range(range, wire.memory());
                self.downloads.note_forgotten(forgotten);
                if !range.drop {
                    self.downloads.note_available(range.start);
                }
            }
            Message::Extension(extension) => {
                let supplier = self.downloads.supplier();
                self.extensions.handle(&self.core, supplier, extension);
            }
        }
        Ok(())
    }

    /// Whether as much has come as is committed together.
    pub(crate) fn has_lot(&self) -> bool {
        self.downloads.has_lot()
    }

    /// Commits what has come, tells what is new, and asks for more: after a burst of messages, or
    /// when the core has news. `budget` bounds the new requests.
    pub(crate) fn settle(
        &mut self,
        wire: &mut Wire<'_>,
        budget: usize,
        now: Time,
    ) -> Result<(), PeerMisbehaved> {
        steps(1);
        let pushed = self.take_pushed(&mut wire.counted, now);
        let committed = self.downloads.commit(&self.core, &mut self.peer, wire, now);
        if let Some(alarm) = &self.alarm {
            alarm.rearm();
        }
        self.heed_blocks();
        self.announce_or_wait(wire);
        self.announcer
            .sync_if_push_changed(&self.core, &self.peer, wire);
        self.extensions.look(&self.core, self.downloads.supplier());
        self.pushes.look(&self.core, self.downloads.supplier());
        pushed.and(committed)?;
        let core = &self.core;
        if self.downloads.cancel_overtaken(core, wire, now) {
            // Answers may have waited for what came from elsewhere.
            self.downloads.commit(core, &mut self.peer, wire, now)?;
        }
        let peer = &self.peer;
        self.downloads.cancel_unwanted(core, wire);
        self.downloads.schedule(core, peer, wire, budget, now);
        self.downloads.look_how_late(core, peer, now);
        if self.heed_blocks()
            && let Some(alarm) = &self.alarm
        {
            alarm.ring(); // some may have come before
        }
        let (core, peer) = (&self.core, &self.peer);
        self.has_cancelled &= is_shorter(core, peer);
        let is_waiting = self.downloads.waits_for_sync(core, peer)
            || is_left_behind(core, peer)
            || is_misunderstood(core, peer)
            || self.has_cancelled;
        self.reminder.look(is_waiting, now);
        Ok(())
    }

    /// Says whether blocks that come from elsewhere matter here: not to a peer that has all of them, unless it is asked for one
    /// that another is asked for, too. True if they do from now on.
    fn heed_blocks(&mut self) -> bool {
        let has_all = self.peer.blocks.has_all(0..self.core.length());
        self.downloads.heed_blocks(&self.core, !has_all)
    }

    /// Goes on with pushed blocks that had to wait.
    fn take_pushed(&mut self, stats: &mut Stats, now: Time) -> Result<(), PeerMisbehaved> {
        while let Some(proof) = self
            .pushes
            .go_on(&self.core, self.downloads.waker(), stats)?
        {
            let (core, peer) = (&self.core, &mut self.peer);
            let data = Data { request: 0, proof };
            self.downloads.handle_data(core, peer, data, now, stats)?;
        }
        Ok(())
    }

    /// Answers questions while there is room in the output.
    pub(crate) fn upload(
        &mut self,
        wire: &mut Wire<'_>,
        long: &mut LongAnswers,
    ) -> Result<(), PeerMisbehaved> {
        while wire.buffered_bytes() < wire.bounds().upload_target && !long.is_waiting() {
            if self.is_silent {
                self.announce(wire);
            }
            // What is refused because of our fork must not look like unwillingness.
            self.move_on(wire);
            match self.uploads.pop(UPLOADS_TOGETHER) {
                None if self
                    .extensions
                    .send_next(&self.core, self.downloads.supplier(), wire) => {}
                None if self.push_next(wire, long) => {}
                None => break,
                Some(Turn::Requests(requests)) => self.answer_all(requests, wire, long)?,
                Some(Turn::Want(want)) => {
                    let rest = self.announcer.tell(&self.core, want, wire);
                    rest.into_iter()
                        .for_each(|rest| self.uploads.put_back_want(rest));
                }
            }
        }
        Ok(())
    }

    fn push_next(&mut self, wire: &mut Wire<'_>, long: &mut LongAnswers) -> bool {
        let (core, peer, to) = (&self.core, &self.peer, self.downloads.supplier());
        self.pushes.send_next(core, peer, to, wire, long)
    }

    /// Gives up requests that are overdue, whatever is `arriving`, and reminds a peer of what it does not seem to know.
    pub(crate) fn handle_timeout(&mut self, wire: &mut Wire<'_>, arriving: Arriving, now: Time) {
        let (core, peer) = (&self.core, &self.peer);
        self.downloads
            .handle_timeout(core, peer, wire, arriving, now);
        if self.reminder.is_due(now) {
            self.announcer.sync(&self.core, &self.peer, wire);
        }
    }

    /// Asks this peer for nothing more, and leaves to others what it has not answered.
    pub(crate) fn end_asking(&mut self) {
        self.downloads.end(&self.core);
    }

    /// Asks this peer for nothing more of this history.
    pub(crate) fn stop_asking(&mut self) {
        self.downloads.turn_away();
    }

    /// Whether something that came is on its way to the device.
    pub(crate) fn is_committing(&self) -> bool {
        self.downloads.is_committing() || self.pushes.is_storing()
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let deadlines = [
            self.downloads.next_deadline(),
            self.reminder.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Requests of ours in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.downloads.in_flight()
    }

    /// Bytes of memory that questions of the peer take.
    pub(crate) fn question_bytes(&self) -> usize {
        self.uploads.memory()
    }

    /// Questions of the peer's, and messages to it, that wait for room in the output.
    pub(crate) fn questions(&self) -> usize {
        let others = [
            self.extensions.is_waiting(),
            self.pushes.is_waiting(),
            self.is_silent,
        ];
        self.uploads.len() + others.into_iter().filter(|is_waiting| *is_waiting).count()
    }

    /// Whether an answer, or a time, is waited for.
    pub(crate) fn is_busy(&self) -> bool {
        self.next_deadline().is_some()
    }

    /// Whether more would be asked for if there were room for it on the connection.
    pub(crate) fn is_short(&self) -> bool {
        self.downloads.is_short()
    }

    /// Whether it asks for nothing because what was answered already takes too much room on the connection.
    pub(crate) fn is_crowded(&self) -> bool {
        self.downloads.is_crowded()
    }

    /// Notes what was carried in one turn.
    pub(crate) fn count(&mut self, counted: Stats) {
        self.carried.add(counted);
    }

    pub(crate) fn core_stats(&self) -> CoreStats {
        let pace = self.downloads.pace();
        CoreStats {
            key: self.core.key(),
            discovery_key: self.core.discovery_key(),
            stats: self.carried.sum(),
            in_flight: self.downloads.in_flight(),
            window: pace.window(),
            round_trip: pace.round_trip(),
            remote_fork: self.peer.sync.fork,
            remote_length: self.peer.sync.length,
            remote_contiguous: self.peer.blocks.read().contiguous(),
        }
    }

    fn handle_sync(&mut self, sync: Sync, wire: &mut Wire<'_>) {
        if self.peer.is_synced && self.peer.sync.fork != sync.fork {
            self.peer.blocks.forget(); // they were of another history
            self.pushes.start_over();
        }
        self.peer.sync = sync;
        let is_first = !std::mem::replace(&mut self.peer.is_synced, true);
        if is_first {
            show_conflict(&self.core, &self.peer, wire);
        }
        self.downloads.handle_sync(&self.core, &self.peer, is_first);
        if sync.fork == self.core.fork() && sync.length < self.core.length() {
            self.announcer.sync(&self.core, &self.peer, wire);
        }
    }

    /// Tells the peer that we are on another fork, unless it knows.
    fn move_on(&mut self, wire: &mut Wire<'_>) -> bool {
        let is_news = self.announcer.move_on(&self.core, &self.peer, wire);
        if is_news {
            self.tell_again();
        }
        is_news
    }

    /// What the peer once asked about and was told, it will not ask again.
    fn tell_again(&mut self) {
        let (contiguous, length) = (self.core.contiguous_length(), self.core.length());
        for want in self.peer.wants.touching(contiguous..length) {
            self.uploads.push(Question::Want(want));
        }
    }

    /// Tells what happened to the core, unless the peer leaves too much unread: its end is what counts then, however often
    /// it changed.
    fn announce_or_wait(&mut self, wire: &mut Wire<'_>) {
        if wire.buffered_bytes() < ANNOUNCE_BUFFER_TARGET {
            return self.announce(wire);
        }
        self.is_silent = true;
        self.downloads.judge(&self.core, &self.peer);
    }

    /// Tells the peer what happened to the core, its state at most once.
    fn announce(&mut self, wire: &mut Wire<'_>) {
        self.is_silent = false;
        let events: Vec<Event> = std::iter::from_fn(|| self.events.try_next()).collect();
        let has_moved = self.move_on(wire);
        if events.contains(&Event::Lagged) {
            self.announcer.take_back(&self.core, wire);
            self.announcer.introduce(&self.core, &self.peer, wire);
            self.tell_again();
            return self.downloads.judge(&self.core, &self.peer);
        }
        let (core, peer) = (&self.core, &self.peer);
        let changes_state = |event: &Event| {
            matches!(
                event,
                Event::Append { .. } | Event::Truncate { .. } | Event::Manifest
            )
        };
        if events.iter().any(changes_state) {
            if !has_moved {
                self.announcer.sync(core, peer, wire);
            }
            self.downloads.judge(core, peer);
        } else {
            self.announcer.sync_if_upgradable(core, peer, wire);
        }
        for event in events {
            match event {
                Event::Append { length } => self.announcer.have(core, peer, length..length, wire),
                Event::Have(blocks) => self.announcer.have(core, peer, blocks, wire),
                Event::Clear(blocks) => self.announcer.have_not(core, blocks, wire),
                Event::Truncate { .. } => self.pushes.start_over(),
                Event::Conflict { .. } => show_conflict(core, peer, wire),
                _ => {}
            }
        }
    }

    fn answer_all(
        &mut self,
        mut requests: Vec<Request>,
        wire: &mut Wire<'_>,
        long: &mut LongAnswers,
    ) -> Result<(), PeerMisbehaved> {
        steps(requests.len() as u64);
        for request in &mut requests {
            self.pushes.go_on_from(&self.peer, request);
        }
        let first = requests.first();
        let may_be_long = long
            .are_allowed(|| first.map_or(0, |first| uploads::answer_len(&self.core, &first.proof)));
        let together = wire.bounds().upload_together;
        let answers = uploads::answer(&self.core, &requests, together, may_be_long);
        if let ([], Some(first)) = (answers.as_slice(), requests.first()) {
            *long = LongAnswers::Waiting(uploads::answer_len(&self.core, &first.proof));
        }
        if answers.iter().any(|answer| answer.block_len() > together) {
            long.spend();
        }
        let mut requests = requests.into_iter();
        for (answer, request) in answers.into_iter().zip(requests.by_ref()) {
            self.answer(&request, answer, wire)?;
        }
        self.uploads.put_back(requests);
        Ok(())
    }

    /// A peer that asks for a block believes it to be here because we said so: it is told better before it is
    /// refused. A reason would count against us, see [`uploads::answer`].
    fn without_reproach(
        &mut self,
        request: &Request,
        answer: Message,
        wire: &mut Wire<'_>,
    ) -> Message {
        let is_of_today = request.proof.fork == self.core.fork();
        let block = request.proof.block.filter(|_| is_of_today);
        let block = block.map(|block| block.index);
        let told = block.filter(|index| self.announcer.may_have_told(*index));
        match (answer, told) {
            (Message::NoData(no_data), Some(index)) if no_data.reason == Reason::NotAvailable => {
                self.announcer.have_not(&self.core, index..index + 1, wire);
                let reason = Reason::None;
                Message::NoData(NoData { reason, ..no_data })
            }
            (answer, _) => answer,
        }
    }

    fn answer(
        &mut self,
        request: &Request,
        answer: Answer,
        wire: &mut Wire<'_>,
    ) -> Result<(), PeerMisbehaved> {
        let Answer {
            message,
            is_invalid,
        } = answer;
        let message = self.without_reproach(request, message, wire);
        self.invalid_requests += u32::from(is_invalid);
        if self.invalid_requests == INVALID_REQUESTS_MAX {
            return Err(PeerMisbehaved::TooManyInvalidRequests);
        }
        if let Err(error) = wire.try_send(&message) {
            tracing::warn!(core = %self.core.key(), %error, "cannot send a block");
            let reason = Reason::NotAvailable;
            wire.send(&Message::NoData(NoData {
                request: request.id,
                reason,
            }));
            return Ok(());
        }
        if let Message::Data(data) = &message {
            self.pushes.note_sent(&data.proof);
        }
        if let Message::Data(data) = &message
            && let Some(block) = &data.proof.block
        {
            wire.counted.blocks_uploaded += 1;
            wire.counted.bytes_uploaded += block.value.len() as u64;
        }
        Ok(())
    }
}

/// Whether a peer that wants the log has not followed us to our fork, nor we it to its own.
fn is_left_behind(core: &Core, peer: &Peer) -> bool {
    let is_lower = peer.is_synced && peer.sync.fork < core.fork();
    is_lower && peer.sync.downloading && core.length() > 0
}

/// Whether a peer has more of the log than it told, but not all: it asks for the rest once it hears how long its own
/// log is, which it may believe to have told.
fn is_misunderstood(core: &Core, peer: &Peer) -> bool {
    let is_of_our_fork = peer.is_synced && peer.sync.fork == core.fork();
    is_of_our_fork && peer.sync.length < peer.length() && peer.length() < core.length()
}

/// Whether a peer has less of our fork than we do. One that took back a request for a block and an upgrade, as the block came
/// from elsewhere, asks for the upgrade again only when somebody tells it something.
fn is_shorter(core: &Core, peer: &Peer) -> bool {
    let is_of_our_fork = peer.is_synced && peer.sync.fork == core.fork();
    is_of_our_fork && peer.sync.length < core.length()
}

/// Shows both sides of a conflict to a peer that may be on either, as JavaScript shows its own: with the id
/// of no request.
fn show_conflict(core: &Core, peer: &Peer, wire: &mut Wire<'_>) {
    let conflict = core.conflict();
    let conflict = conflict.filter(|conflict| peer.is_synced && conflict.fork == peer.sync.fork);
    for proof in conflict.iter().flat_map(|conflict| conflict.proofs()) {
        wire.send(&Message::Data(Data { request: 0, proof }));
    }
}
