//! The turn of each channel: to commit, tell and ask after something happened on it, and to answer while there is room.
//!
//! Knows the connection's sums and bounds. Does not know what a channel does with its turn.

use ferrocore_mux::ChannelId;
use ferrocore_primitives::time::Time;

use super::Connection;
use crate::channel::CoreChannel;
use crate::limits::{CROWDED_LOOKS_MAX, OFFER_LEN_MAX, UNPROVEN_OUTPUT_MAX};
use crate::misbehaviour::{PeerMisbehaved, Verdict};
use crate::wire::Wire;

impl Connection {
    /// Commits, tells and asks on every channel that something happened on.
    pub(super) fn settle(&mut self, now: Time) -> Result<(), PeerMisbehaved> {
        self.note_offers(now);
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for id in touched {
            self.settle_channel(id, now)?;
        }
        let mut crowded = 0;
        for _ in 0..self.shares.short() {
            let Some(id) = self.shares.next_short() else {
                break;
            };
            self.settle_channel(id, now)?;
            // What it waits for is room that all channels share: the next find as little.
            let channel = self.channels.get(&id);
            crowded += usize::from(channel.is_some_and(|channel| channel.is_crowded()));
            if crowded == CROWDED_LOOKS_MAX {
                break;
            }
        }
        Ok(())
    }

    /// Sees to it that a channel has its turn.
    pub(super) fn touch(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(&id)
            && !std::mem::replace(&mut channel.is_touched, true)
        {
            self.touched.push(id);
        }
    }

    fn settle_channel(&mut self, id: ChannelId, now: Time) -> Result<(), PeerMisbehaved> {
        let Some(channel) = self.channels.get_mut(&id) else {
            return Ok(());
        };
        channel.is_touched = false;
        let budget = self.shares.budget(channel.in_flight());
        let settled = self.with(id, |channel, wire| channel.settle(wire, budget, now));
        if self
            .channels
            .get(&id)
            .is_some_and(|channel| channel.is_short())
        {
            self.shares.fall_short(id);
        }
        self.judge(id, settled.unwrap_or(Ok(())))
    }

    /// Answers the peer's questions, one channel after the other, while there is room.
    pub(super) fn upload(&mut self) -> Result<(), PeerMisbehaved> {
        let target = self.bounds.upload_target;
        while self.mux.buffered_bytes() < target {
            let Some(id) = self.asked.pop_front() else {
                break;
            };
            if let Some(channel) = self.channels.get_mut(&id) {
                channel.is_asked = false;
            }
            let is_first = self.long_line.front() == Some(&id);
            let is_alone = self.long_line.is_empty() && !self.long_answers.is_waiting();
            let may = match is_first || is_alone {
                true => self.long_answers,
                false => self.long_answers.of_others(),
            };
            let mut long = may;
            let uploaded = self.with(id, |channel, wire| channel.upload(wire, &mut long));
            if is_first || is_alone {
                self.long_answers = long;
            }
            // Who had room has had its turn.
            let is_done = is_first && (may.is_granted() || !long.is_waiting());
            if is_done {
                self.long_line.pop_front();
            }
            if long.is_waiting() {
                self.stand_aside(id);
                if is_done || !is_first {
                    self.long_line.push_back(id);
                }
            }
            if is_done {
                if self.long_line.front() != Some(&id) {
                    self.long_answers = self.long_answers.without_wait();
                }
                self.let_first_in_line_answer();
            }
            self.judge(id, uploaded.unwrap_or(Ok(())))?;
        }
        Ok(())
    }

    /// A channel that has come to a long answer waits for its turn to have room, and with it what it is asked behind that; the others
    /// are answered meanwhile.
    fn stand_aside(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.is_asked = true; // for what waits
        }
        if self.asked.back() == Some(&id) {
            self.asked.pop_back(); // where it had just come
        }
    }

    /// Whoever is first in line, as long as it waits for no room, makes its answer, or begins to wait.
    pub(super) fn let_first_in_line_answer(&mut self) {
        let Some(first) = self.long_line.front() else {
            return;
        };
        if !self.long_answers.is_waiting() && self.asked.front() != Some(first) {
            self.asked.push_front(*first);
        }
    }

    /// Runs `work` on a channel and keeps the connection's sums up to date.
    pub(super) fn with<T>(
        &mut self,
        id: ChannelId,
        work: impl FnOnce(&mut CoreChannel, &mut Wire<'_>) -> T,
    ) -> Option<T> {
        let channel = self.channels.get_mut(&id)?;
        let (in_flight, questions) = (channel.in_flight(), channel.questions());
        let was_committing = channel.is_committing();
        let question_bytes = channel.question_bytes();
        let memory = self.heard.blocks();
        let mut wire = Wire::new(&mut self.mux, id, &mut self.scratch, memory, self.bounds);
        let done = work(channel, &mut wire);
        let counted = wire.counted;
        channel.count(counted);
        self.stats += counted;
        self.shares
            .moved(id, in_flight, channel.in_flight(), channel.is_busy());
        let heard = (channel.questions(), channel.question_bytes());
        self.heard.moved((questions, question_bytes), heard);
        self.commits -= usize::from(was_committing);
        self.commits += usize::from(channel.is_committing());
        if channel.questions() > 0 && !std::mem::replace(&mut channel.is_asked, true) {
            self.asked.push_back(id);
        }
        Some(done)
    }

    /// Acts on a peer's misbehaviour on one channel.
    pub(super) fn judge(
        &mut self,
        id: ChannelId,
        result: Result<(), PeerMisbehaved>,
    ) -> Result<(), PeerMisbehaved> {
        let Err(misbehaved) = result else {
            return Ok(());
        };
        tracing::warn!(%misbehaved, "a peer misbehaved");
        match misbehaved.verdict() {
            Verdict::CloseConnection | Verdict::Ban => return Err(misbehaved),
            Verdict::CloseChannel => {
                self.mux.close(id);
                self.remove(id);
            }
            Verdict::StopAsking => {
                self.with(id, |channel, _| channel.stop_asking());
            }
        }
        self.offences.note(misbehaved)
    }

    /// Whether the peer left so much unread that nothing more is taken from it.
    pub(super) fn is_clogged(&self) -> bool {
        let output_max = match self.is_proven {
            true => self.bounds.output_max,
            false => UNPROVEN_OUTPUT_MAX,
        };
        // What we offered of our own accord is not the peer's doing, and long answers have room of their own.
        let output_max = output_max + self.channels.len() * OFFER_LEN_MAX;
        let output = self.mux.buffered_bytes() - self.mux.buffered_long_bytes();
        output >= output_max || self.heard.is_too_much(self.shares.in_flight())
    }
}
