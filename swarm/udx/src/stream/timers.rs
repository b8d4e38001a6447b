//! A stream's deadlines and what happens when they pass.
//! Knows when to repeat, to probe and to give up. Does not know packets' bytes.

use std::time::Duration;

use ferrocore_primitives::time::Time;

use super::{CloseReason, Life, Stream};
use crate::congestion::Recovery;
use crate::limits::RTO_MAX;
use crate::packet::Kinds;

/// Deadlines; `None` is not set.
#[derive(Debug)]
pub(super) struct Timers {
    rto: Option<Time>,
    tail_probe: Option<Time>,
    reordering: Option<Time>,
    window_probe: Option<Time>,
    pacing: Option<Time>,
    /// When a stream that nobody holds is destroyed if its peer has not ended it.
    release: Option<Time>,
    /// How often the retransmission timer, or the window's, fired in a row.
    backoff: u32,
    heard_at: Time,
    spoke_at: Time,
    /// When the peer last acked something new, or the oldest unacked packet was first sent.
    progress_at: Time,
}

impl Timers {
    pub(super) fn new(now: Time) -> Self {
        Self {
            rto: None,
            tail_probe: None,
            reordering: None,
            window_probe: None,
            pacing: None,
            release: None,
            backoff: 0,
            heard_at: now,
            spoke_at: now,
            progress_at: now,
        }
    }

    pub(super) fn on_connected(&mut self, now: Time) {
        self.heard_at = now;
        self.spoke_at = now;
        self.progress_at = now;
    }

    pub(super) fn on_heard(&mut self, now: Time) {
        self.heard_at = now;
    }

    pub(super) fn on_spoke(&mut self, now: Time) {
        self.spoke_at = now;
    }

    pub(super) fn set_pacing(&mut self, at: Option<Time>) {
        self.pacing = at;
    }

    pub(super) fn set_reordering(&mut self, at: Option<Time>) {
        self.reordering = at;
    }

    pub(super) fn stop(&mut self) {
        self.rto = None;
        self.tail_probe = None;
        self.reordering = None;
        self.window_probe = None;
        self.pacing = None;
        self.release = None;
    }

    /// Sets the deadline once.
    pub(super) fn set_release(&mut self, at: Time) {
        self.release.get_or_insert(at);
    }
}

impl Stream {
    /// True while something was sent and repeated for some three seconds and nothing was acked: the peer may be gone, or away for a while.
    pub fn is_unanswered(&self) -> bool {
        self.timers.backoff >= UNANSWERED_TIMEOUTS && self.sender.has_unacked()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due, if ever.
    pub fn poll_timeout(&self) -> Option<Time> {
        match self.life {
            Life::Closed(_) => None,
            Life::Lingering(until) => Some(until),
            Life::Unconnected => self.idle_at(),
            Life::Connected => {
                let timers = &self.timers;
                let deadlines = [
                    timers.rto,
                    timers.tail_probe,
                    timers.reordering,
                    timers.window_probe,
                    timers.pacing,
                    timers.release,
                    self.keepalive_at(),
                    self.idle_at(),
                ];
                deadlines.into_iter().flatten().min()
            }
        }
    }

    /// Does what the deadlines that have passed by `now` demand.
    pub fn handle_timeout(&mut self, now: Time) {
        if let Life::Lingering(until) = self.life
            && until <= now
        {
            self.close(None);
        }
        if self.idle_at().is_some_and(|at| at <= now) {
            self.abandon(CloseReason::TimedOut);
        }
        if self.life != Life::Connected {
            return;
        }
        if take_if_due(&mut self.timers.release, now) {
            self.destroy();
            return;
        }
        take_if_due(&mut self.timers.pacing, now);
        if take_if_due(&mut self.timers.reordering, now) {
            self.find_losses(now);
        }
        if take_if_due(&mut self.timers.tail_probe, now) && self.tail.may_send() {
            self.wants.tail_probe = self.sender.has_unacked();
            self.timers.rto = Some(now + self.backed_off_rto());
        }
        if take_if_due(&mut self.timers.rto, now) {
            self.on_retransmission_timeout(now);
        }
        if take_if_due(&mut self.timers.window_probe, now) {
            self.on_window_probe_timeout(now);
        }
        if self.keepalive_at().is_some_and(|at| at <= now) {
            self.wants.heartbeat = true;
            self.timers.spoke_at = now;
        }
    }

    /// Sets the timers of packets in flight after one was sent.
    pub(super) fn arm_after_send(&mut self, now: Time, was_idle: bool) {
        if was_idle {
            self.timers.progress_at = now;
            self.timers.backoff = 0;
        }
        if self.timers.rto.is_none() {
            self.timers.rto = Some(now + self.backed_off_rto());
        }
        self.arm_tail_probe(now);
    }

    /// Sets them anew after the peer acked something, `advanced` if it was the oldest.
    pub(super) fn arm_after_ack(&mut self, now: Time, advanced: bool) {
        self.timers.progress_at = now;
        self.timers.backoff = 0;
        if !self.sender.has_unacked() {
            self.timers.rto = None;
            self.timers.tail_probe = None;
            self.timers.reordering = None;
            return;
        }
        if advanced {
            self.timers.rto = Some(now + self.rtt.rto());
        }
        self.arm_tail_probe(now);
    }

    /// With the peer's window shut and nothing in flight, only a probe can learn that it has opened.
    pub(super) fn arm_window_probe(&mut self, now: Time) {
        let has_data = self.sender.next_new_size(1).is_some();
        let is_shut = self.peer_window == 0 && !self.sender.has_unacked() && has_data;
        if !is_shut {
            if self.timers.window_probe.take().is_some() {
                self.timers.backoff = 0;
            }
        } else if self.timers.window_probe.is_none() {
            self.timers.backoff = 0;
            self.timers.window_probe = Some(now + self.rtt.rto());
        }
    }

    fn arm_tail_probe(&mut self, now: Time) {
        let timeout = self.tail.timeout(&self.rtt, self.sender.unacked_packets());
        let at = now + timeout;
        self.timers.tail_probe = Some(self.timers.rto.map_or(at, |rto| at.min(rto)));
    }

    /// The peer speaks, and has heard nothing of us: what we sent before it was there may have gone nowhere, as at a relay that
    /// did not know yet where it is. Without a sample of the round trip the probe would come a second later.
    pub(super) fn hurry_first_probe(&mut self, now: Time) {
        let is_unheard = self.rtt.smoothed().is_none() && self.sender.has_unacked();
        if is_unheard && self.tail.is_unused() {
            let at = now + FIRST_PROBE;
            let set = self.timers.tail_probe;
            self.timers.tail_probe = Some(set.map_or(at, |set| set.min(at)));
        }
    }

    fn on_retransmission_timeout(&mut self, now: Time) {
        if !self.sender.has_unacked() {
            return;
        }
        if self.has_missed_the_last_ack() {
            self.close(None);
            return;
        }
        if self.is_hopeless(now, self.timers.progress_at) {
            self.wants.destroy = true;
            self.close(Some(CloseReason::TimedOut));
            return;
        }
        self.counters.mishaps.make().timeouts += 1;
        self.timers.backoff += 1;
        if self.timers.backoff == BLACK_HOLE_TIMEOUTS {
            self.mtu.on_black_hole();
        }
        self.recovery = Recovery::Timeout;
        self.recovery_end = self.sender.next();
        self.timers.tail_probe = None;
        self.timers.reordering = None;
        let losses = self.sender.lose_all();
        self.note_losses(&losses);
        self.bbr.on_timeout(self.sender.in_flight());
        self.timers.rto = Some(now + self.backed_off_rto());
    }

    /// Whether it was tried for long enough since `last`, when the peer showed that it lives. Time alone does not tell: a machine
    /// that stood still itself has not tried yet.
    fn is_hopeless(&self, now: Time, last: Time) -> bool {
        let is_late = now >= last + self.settings.give_up_after.get();
        is_late && self.timers.backoff >= UNANSWERED_TIMEOUTS
    }

    /// libudx forgets a stream when both sides have ended, and so does a process that exits: an ack of our END
    /// that got lost is then never repeated.
    fn has_missed_the_last_ack(&self) -> bool {
        self.end_transmits()
            .is_some_and(|times| times >= END_TRANSMITS)
    }

    /// How often END was sent, if it is all that is left of the stream.
    fn end_transmits(&self) -> Option<u32> {
        let transmits = self.sender.bare_end_transmits();
        transmits.filter(|_| self.receiver.is_complete())
    }

    fn on_window_probe_timeout(&mut self, now: Time) {
        if self.is_hopeless(now, self.timers.heard_at) {
            self.wants.destroy = true;
            self.close(Some(CloseReason::TimedOut));
            return;
        }
        self.wants.heartbeat = true;
        self.timers.backoff += 1;
        self.timers.window_probe = Some(now + self.backed_off_rto());
    }

    /// The last packets of everything are repeated at a steady pace: there is nothing to congest, somebody waits for
    /// them, and the peer does not linger long.
    fn backed_off_rto(&self) -> Duration {
        if self.receiver.is_complete() && self.sender.is_ending() {
            return self.rtt.rto();
        }
        let doubled = self.rtt.rto() * (1 << self.timers.backoff.min(BACKOFF_MAX));
        doubled.min(RTO_MAX)
    }

    fn keepalive_at(&self) -> Option<Time> {
        let is_idle = self.life == Life::Connected && !self.sender.has_unacked();
        let interval = self.settings.keepalive.filter(|_| is_idle)?;
        Some(self.timers.spoke_at + interval.get())
    }

    fn idle_at(&self) -> Option<Time> {
        let is_open = matches!(self.life, Life::Connected | Life::Unconnected);
        let timeout = self.settings.idle_timeout.filter(|_| is_open)?;
        Some(self.timers.heard_at + timeout.get())
    }

    /// Whether a packet of these kinds puts keepalive off.
    pub(super) fn note_spoken(&mut self, now: Time, kinds: Kinds) {
        if kinds.has(Kinds::DATA | Kinds::END | Kinds::MESSAGE | Kinds::HEARTBEAT) {
            self.timers.on_spoke(now);
        }
    }
}

/// Time for an ack that is under way. One that takes longer costs a needless packet.
const FIRST_PROBE: Duration = Duration::from_millis(25);

/// Of the retransmission timer. With the smallest timeout, 400 ms, these take 2.8 s.
const UNANSWERED_TIMEOUTS: u32 = 3;
const BACKOFF_MAX: u32 = 5;
const BLACK_HOLE_TIMEOUTS: u32 = 3;
const END_TRANSMITS: u32 = 4;

fn take_if_due(deadline: &mut Option<Time>, now: Time) -> bool {
    let due = deadline.is_some_and(|at| at <= now);
    if due {
        *deadline = None;
    }
    due
}
