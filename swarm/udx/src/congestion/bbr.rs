//! BBR version 1: sends at the bottleneck's rate with little more in flight than the path holds.
//! Knows rates, round trips and windows. Does not know packets. Follows libudx `udx_bbr.c`, and thereby Linux,
//! in bytes and nanoseconds where libudx counts packets and milliseconds; and sends more where the path loses a
//! steady share whatever the rate, so that the bottleneck is full behind the loss.

use std::time::Duration;

use ferrocore_primitives::time::Time;

use super::erasure::Erasure;
use super::filter::{Window, Windowed};
use super::rate::Sample;
use crate::span::Span;

/// What the sender is doing about loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// Nothing is missing.
    Open,
    /// Lost packets are being sent again.
    Fast,
    /// The retransmission timer fired.
    Timeout,
}

/// What one ack told.
#[derive(Debug)]
pub(crate) struct Ack {
    pub(crate) now: Time,
    /// Bytes newly acked by it.
    pub(crate) acked: u64,
    /// Bytes it showed to be lost.
    pub(crate) lost: u64,
    /// Bytes in flight after it.
    pub(crate) in_flight: u64,
    pub(crate) rate: Option<Sample>,
    pub(crate) rtt: Option<Duration>,
    pub(crate) recovery: Recovery,
    /// Bytes delivered in all, and when the last of them were.
    pub(crate) delivered: u64,
    pub(crate) delivered_at: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Startup,
    Drain,
    ProbeBandwidth,
    ProbeRtt,
}

/// The model of one path.
#[derive(Debug)]
pub(crate) struct Bbr {
    mode: Mode,
    packet: u64,
    cwnd: u64,
    prior_cwnd: u64,
    pacing_rate: f64,
    pacing_gain: f32,
    cwnd_gain: f32,
    bandwidth: Windowed<LargestBandwidth>,
    min_rtt: Option<Span>,
    min_rtt_at: Time,
    probe_rtt_done_at: Option<Time>,
    probe_rtt_round_done: bool,
    rounds: u32,
    next_round_delivered: u64,
    round_start: bool,
    full_bandwidth: f32,
    full_bandwidth_rounds: u8,
    is_full: bool,
    cycle: u8,
    cycle_at: Time,
    recovery: Recovery,
    idle_restart: bool,
    saw_rtt: bool,
    aggregation: Aggregation,
    erasure: Erasure,
}

/// In bytes a second, over so many rounds.
#[derive(Debug)]
struct LargestBandwidth;

impl Window for LargestBandwidth {
    /// A round; after 2^32 they are counted from zero.
    type At = u32;
    type Value = f32;
    const LEN: u64 = BANDWIDTH_WINDOW_ROUNDS;

    fn age(now: u32, then: u32) -> u64 {
        now.wrapping_sub(then).into()
    }

    fn is_better(value: f32, than: f32) -> bool {
        value >= than
    }
}

impl Bbr {
    /// `packet` is the size of a full packet in bytes; `seed` spreads the phases of streams that start together.
    pub(crate) fn new(now: Time, packet: u64, seed: u64) -> Self {
        let cwnd = INITIAL_PACKETS * packet;
        Self {
            mode: Mode::Startup,
            packet,
            cwnd,
            prior_cwnd: 0,
            pacing_rate: float(cwnd) / INITIAL_RTT.as_secs_f64() * f64::from(HIGH_GAIN),
            pacing_gain: HIGH_GAIN,
            cwnd_gain: HIGH_GAIN,
            bandwidth: Windowed::new(),
            min_rtt: None,
            min_rtt_at: now,
            probe_rtt_done_at: None,
            probe_rtt_round_done: false,
            rounds: 0,
            next_round_delivered: 0,
            round_start: false,
            full_bandwidth: 0.0,
            full_bandwidth_rounds: 0,
            is_full: false,
            // Any phase but the one that drains: there is nothing to drain yet.
            cycle: u8::try_from(seed % 7).map_or(0, |phase| if phase == 0 { 0 } else { phase + 1 }),
            cycle_at: now,
            recovery: Recovery::Open,
            idle_restart: false,
            saw_rtt: false,
            aggregation: Aggregation::new(now),
            erasure: Erasure::new(),
        }
    }

    /// Bytes that may be in flight.
    pub(crate) fn window(&self) -> u64 {
        self.cwnd
    }

    /// Bytes per second to send at.
    pub(crate) fn pacing_rate(&self) -> f64 {
        self.pacing_rate
    }

    /// What the pacing rate makes of a millisecond.
    pub(crate) fn bytes_per_millisecond(&self) -> u64 {
        integer(self.pacing_rate / 1000.0)
    }

    /// Bytes per second that the path was seen to carry of late.
    pub(crate) fn bandwidth(&self) -> f64 {
        self.bandwidth.get().map_or(0.0, f64::from)
    }

    /// The name of the state, for statistics.
    pub(crate) fn mode_name(&self) -> &'static str {
        match self.mode {
            Mode::Startup => "startup",
            Mode::Drain => "drain",
            Mode::ProbeBandwidth => "probe-bandwidth",
            Mode::ProbeRtt => "probe-rtt",
        }
    }

    /// The path's packet size has changed.
    pub(crate) fn set_packet(&mut self, packet: u64) {
        self.packet = packet;
    }

    /// True while the sender should let the path run dry to measure its round trip.
    pub(crate) fn is_probing_rtt(&self) -> bool {
        self.mode == Mode::ProbeRtt
    }

    /// Sending begins again with nothing in flight.
    pub(crate) fn on_restart(&mut self, now: Time, app_limited: bool) {
        if !app_limited {
            return;
        }
        self.idle_restart = true;
        self.aggregation.restart(now);
        match self.mode {
            Mode::ProbeBandwidth => self.set_pacing(None, 1.0),
            Mode::ProbeRtt => self.leave_probe_rtt(now),
            Mode::Startup | Mode::Drain => {}
        }
    }

    /// The retransmission timer fired with `in_flight` bytes still believed to be on their way.
    pub(crate) fn on_timeout(&mut self, in_flight: u64) {
        self.save_cwnd();
        self.recovery = Recovery::Timeout;
        self.full_bandwidth = 0.0;
        self.round_start = true;
        self.cwnd = (in_flight + self.packet).max(MIN_PACKETS * self.packet);
    }

    /// So many bytes turned out to be lost.
    pub(crate) fn on_lost(&mut self, bytes: u64) {
        self.erasure.on_lost(bytes);
    }

    /// Takes in an ack and sets window and pacing rate.
    pub(crate) fn on_ack(&mut self, ack: &Ack, smoothed_rtt: Option<Duration>) {
        self.update_bandwidth(ack);
        self.update_aggregation(ack);
        self.update_cycle(ack);
        self.check_full(ack);
        self.check_drain(ack);
        self.update_min_rtt(ack);
        self.update_gains();
        self.set_pacing(smoothed_rtt, self.pacing_gain);
        self.set_cwnd(ack);
    }

    fn update_bandwidth(&mut self, ack: &Ack) {
        self.round_start = false;
        self.erasure.on_acked(ack.acked);
        let Some(rate) = ack.rate else { return };
        if rate.prior_delivered >= self.next_round_delivered {
            self.next_round_delivered = ack.delivered;
            self.rounds = self.rounds.wrapping_add(1);
            self.round_start = true;
            self.erasure.on_round(self.rounds, self.packet);
        }
        let bandwidth = float(rate.delivered) / rate.interval.as_secs_f64();
        if !rate.app_limited || bandwidth >= self.bandwidth() {
            self.bandwidth.update(self.rounds, single(bandwidth));
        }
    }

    fn update_aggregation(&mut self, ack: &Ack) {
        if ack.rate.is_some() && ack.acked > 0 {
            let bandwidth = self.bandwidth();
            self.aggregation
                .on_ack(ack, self.round_start, bandwidth, self.cwnd);
        }
    }

    fn update_cycle(&mut self, ack: &Ack) {
        if self.mode == Mode::ProbeBandwidth && self.is_next_phase(ack) {
            self.advance_cycle(ack.delivered_at);
        }
    }

    fn is_next_phase(&self, ack: &Ack) -> bool {
        let elapsed = ack.delivered_at.saturating_since(self.cycle_at);
        let is_full_length = elapsed > self.min_rtt.map_or(Duration::MAX, Span::get);
        if self.pacing_gain > 1.0 {
            return is_full_length && (ack.lost > 0 || ack.in_flight >= self.bdp(self.pacing_gain));
        }
        is_full_length || (self.pacing_gain < 1.0 && ack.in_flight <= self.bdp(1.0))
    }

    fn advance_cycle(&mut self, at: Time) {
        self.cycle = (self.cycle + 1) % CYCLE_PHASES;
        self.cycle_at = at;
    }

    /// The path is full when the bandwidth has not grown by a quarter in three rounds.
    fn check_full(&mut self, ack: &Ack) {
        let app_limited = ack.rate.is_none_or(|rate| rate.app_limited);
        if self.is_full || !self.round_start || app_limited {
            return;
        }
        if self.bandwidth() >= f64::from(self.full_bandwidth) * FULL_GROWTH {
            self.full_bandwidth = single(self.bandwidth());
            self.full_bandwidth_rounds = 0;
            return;
        }
        self.full_bandwidth_rounds += 1;
        self.is_full = self.full_bandwidth_rounds >= FULL_ROUNDS;
    }

    fn check_drain(&mut self, ack: &Ack) {
        if self.mode == Mode::Startup && self.is_full {
            self.mode = Mode::Drain;
        }
        if self.mode == Mode::Drain && ack.in_flight <= self.bdp(1.0) {
            self.enter_probe_bandwidth(ack.delivered_at);
        }
    }

    fn enter_probe_bandwidth(&mut self, at: Time) {
        self.mode = Mode::ProbeBandwidth;
        self.cycle_at = at;
    }

    fn update_min_rtt(&mut self, ack: &Ack) {
        let expired = ack.now > self.min_rtt_at + MIN_RTT_WINDOW;
        if let Some(rtt) = ack.rtt
            && (expired || self.min_rtt.is_none_or(|min| rtt <= min.get()))
        {
            self.min_rtt = Some(rtt.max(RTT_FLOOR).into());
            self.min_rtt_at = ack.now;
        }
        if expired && !self.idle_restart && self.mode != Mode::ProbeRtt {
            self.save_cwnd();
            self.mode = Mode::ProbeRtt;
            self.probe_rtt_done_at = None;
        }
        if self.mode == Mode::ProbeRtt {
            self.continue_probe_rtt(ack);
        }
        if ack.rate.is_some() {
            self.idle_restart = false;
        }
    }

    fn continue_probe_rtt(&mut self, ack: &Ack) {
        if self.probe_rtt_done_at.is_some() {
            self.probe_rtt_round_done |= self.round_start;
            if self.probe_rtt_round_done {
                self.leave_probe_rtt(ack.now);
            }
        } else if ack.in_flight <= MIN_PACKETS * self.packet {
            self.probe_rtt_done_at = Some(ack.now + PROBE_RTT_TIME);
            self.probe_rtt_round_done = false;
            self.next_round_delivered = ack.delivered;
        }
    }

    fn leave_probe_rtt(&mut self, now: Time) {
        if self.probe_rtt_done_at.is_none_or(|done| now < done) {
            return;
        }
        self.min_rtt_at = now;
        self.cwnd = self.cwnd.max(self.prior_cwnd);
        if self.is_full {
            self.enter_probe_bandwidth(now);
        } else {
            self.mode = Mode::Startup;
        }
    }

    fn update_gains(&mut self) {
        (self.pacing_gain, self.cwnd_gain) = match self.mode {
            Mode::Startup => (HIGH_GAIN, HIGH_GAIN),
            Mode::Drain => (1.0 / HIGH_GAIN, HIGH_GAIN),
            Mode::ProbeBandwidth => {
                let gain = CYCLE_GAINS
                    .get(usize::from(self.cycle))
                    .copied()
                    .unwrap_or(1.0);
                let factor = single(self.erasure.factor());
                // The phase that drains shows which losses are the sender's own doing.
                let pacing = if gain < 1.0 { gain } else { gain * factor };
                (pacing, CWND_GAIN * factor)
            }
            Mode::ProbeRtt => (1.0, 1.0),
        };
    }

    fn set_pacing(&mut self, smoothed_rtt: Option<Duration>, gain: f32) {
        if let (false, Some(rtt)) = (self.saw_rtt, smoothed_rtt) {
            self.saw_rtt = true;
            let rtt = rtt.max(RTT_FLOOR).as_secs_f64();
            self.pacing_rate = float(self.cwnd) / rtt * f64::from(HIGH_GAIN);
        }
        let rate = self.bandwidth() * f64::from(gain) * PACING_MARGIN;
        if self.is_full || rate > self.pacing_rate {
            self.pacing_rate = rate;
        }
    }

    fn set_cwnd(&mut self, ack: &Ack) {
        if ack.acked > 0 {
            self.recover_or_restore(ack);
            let target = self.bdp(self.cwnd_gain) + self.aggregation_window();
            if self.is_full {
                self.cwnd = (self.cwnd + ack.acked).min(target);
            } else if self.cwnd < target || ack.delivered < INITIAL_PACKETS * self.packet {
                self.cwnd += ack.acked;
            }
            self.cwnd = self.cwnd.max(MIN_PACKETS * self.packet);
        }
        if self.mode == Mode::ProbeRtt {
            self.cwnd = self.cwnd.min(MIN_PACKETS * self.packet);
        }
    }

    /// Takes losses off the window for as long as it takes acks to make good for them. Linux and libudx also let
    /// only one packet leave for each that arrives in the first round of a recovery; where every round loses
    /// something that is always, and the pacer bounds what leaves anyway.
    fn recover_or_restore(&mut self, ack: &Ack) {
        self.cwnd = self.cwnd.saturating_sub(ack.lost).max(self.packet);
        if ack.recovery == Recovery::Fast && self.recovery == Recovery::Open {
            self.save_cwnd();
        } else if ack.recovery == Recovery::Open && self.recovery != Recovery::Open {
            self.cwnd = self.cwnd.max(self.prior_cwnd);
        }
        self.recovery = ack.recovery;
    }

    fn save_cwnd(&mut self) {
        if self.recovery == Recovery::Open && self.mode != Mode::ProbeRtt {
            self.prior_cwnd = self.cwnd;
        } else {
            self.prior_cwnd = self.prior_cwnd.max(self.cwnd);
        }
    }

    /// What the path holds at the bandwidth seen, times `gain`, in bytes.
    fn bdp(&self, gain: f32) -> u64 {
        let Some(min_rtt) = self.min_rtt else {
            return INITIAL_PACKETS * self.packet;
        };
        integer(self.bandwidth() * min_rtt.get().as_secs_f64() * f64::from(gain))
    }

    fn aggregation_window(&self) -> u64 {
        if !self.is_full {
            return 0;
        }
        let max = integer(self.bandwidth() * AGGREGATION_MAX.as_secs_f64());
        self.aggregation.extra().min(max)
    }
}

/// How many more bytes arrive in one go than the bandwidth explains: acks come in bunches, and the window must
/// bridge the gaps between them.
#[derive(Debug)]
struct Aggregation {
    epoch_at: Time,
    epoch_acked: u64,
    extra: [u32; 2],
    slot: u8,
    rounds: u8,
}

impl Aggregation {
    fn new(now: Time) -> Self {
        Self {
            epoch_at: now,
            epoch_acked: 0,
            extra: [0; 2],
            slot: 0,
            rounds: 0,
        }
    }

    fn restart(&mut self, now: Time) {
        self.epoch_at = now;
        self.epoch_acked = 0;
    }

    fn extra(&self) -> u64 {
        self.extra.into_iter().max().map_or(0, u64::from)
    }

    fn on_ack(&mut self, ack: &Ack, round_start: bool, bandwidth: f64, cwnd: u64) {
        if round_start {
            self.on_round();
        }
        let elapsed = ack.delivered_at.saturating_since(self.epoch_at);
        let mut expected = integer(bandwidth * elapsed.as_secs_f64());
        if self.epoch_acked <= expected {
            self.restart(ack.delivered_at);
            expected = 0;
        }
        self.epoch_acked = self.epoch_acked.saturating_add(ack.acked);
        let extra = self.epoch_acked.saturating_sub(expected).min(cwnd);
        if let Some(slot) = self.extra.get_mut(usize::from(self.slot)) {
            *slot = (*slot).max(u32::try_from(extra).unwrap_or(u32::MAX));
        }
    }

    fn on_round(&mut self) {
        self.rounds += 1;
        if self.rounds >= AGGREGATION_ROUNDS {
            self.rounds = 0;
            self.slot = 1 - self.slot;
            if let Some(slot) = self.extra.get_mut(usize::from(self.slot)) {
                *slot = 0;
            }
        }
    }
}

const HIGH_GAIN: f32 = 2.885_39; // 2 / ln 2
const CWND_GAIN: f32 = 2.0;
const CYCLE_PHASES: u8 = 8;
const CYCLE_GAINS: [f32; CYCLE_PHASES as usize] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
const PACING_MARGIN: f64 = 0.99;
const BANDWIDTH_WINDOW_ROUNDS: u64 = 10;
const FULL_GROWTH: f64 = 1.25;
const FULL_ROUNDS: u8 = 3;
const INITIAL_PACKETS: u64 = 10;
const INITIAL_RTT: Duration = Duration::from_millis(1);
const MIN_PACKETS: u64 = 4;
const MIN_RTT_WINDOW: Duration = Duration::from_secs(10);
const PROBE_RTT_TIME: Duration = Duration::from_millis(200);
const AGGREGATION_ROUNDS: u8 = 5;
const AGGREGATION_MAX: Duration = Duration::from_millis(100);
/// Shorter round trips are taken for this one.
const RTT_FLOOR: Duration = Duration::from_micros(20);

/// Seven digits are more than an estimate has.
#[allow(clippy::cast_possible_truncation)]
fn single(number: f64) -> f32 {
    number as f32
}

/// Byte counts stay far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

/// Rounds down; the cast saturates.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn integer(bytes: f64) -> u64 {
    bytes as u64
}
