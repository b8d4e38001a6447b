//! Delivery rate: how many bytes reached the peer between two moments, measured per ack
//! (draft-cheng-iccrg-delivery-rate-estimation; libudx `udx_rate.c`).

use std::time::Duration;

use ferrocore_primitives::time::Time;

/// Counts deliveries of one stream.
#[derive(Debug, Default)]
pub(crate) struct RateMeter {
    delivered: u64,
    delivered_at: Time,
    first_sent_at: Time,
    /// The sender had nothing to send until this many bytes are delivered; zero if it had.
    app_limited_until: u64,
}

/// What a packet remembers of the moment it was sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PacketRate {
    delivered: u64,
    delivered_at: Time,
    first_sent_at: Time,
    app_limited: bool,
}

/// The sample being gathered over the packets of one ack.
#[derive(Debug, Default)]
pub(crate) struct AckedRate {
    newest: Option<(Time, u64, PacketRate)>,
    bytes: u64,
}

/// Bytes delivered in an interval.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(super) delivered: u64,
    pub(super) interval: Duration,
    /// Deliveries counted when the newest packet acked was sent.
    pub(super) prior_delivered: u64,
    pub(super) app_limited: bool,
}

impl RateMeter {
    /// A packet leaves; `idle` if nothing else is on its way.
    pub(crate) fn on_sent(&mut self, now: Time, idle: bool) -> PacketRate {
        if idle {
            self.first_sent_at = now;
            self.delivered_at = now;
        }
        PacketRate {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            app_limited: self.app_limited_until != 0,
        }
    }

    /// A packet arrived for the first time.
    pub(crate) fn on_packet_acked(
        &mut self,
        acked: &mut AckedRate,
        (sent_at, seq): (Time, u64),
        bytes: u64,
        packet: PacketRate,
    ) {
        self.delivered += bytes;
        acked.bytes += bytes;
        if acked
            .newest
            .is_none_or(|(at, newest, _)| (at, newest) < (sent_at, seq))
        {
            acked.newest = Some((sent_at, seq, packet));
        }
    }

    /// Closes the sample of one ack. None if it acked nothing new, or too fast to be a rate.
    pub(crate) fn finish(
        &mut self,
        now: Time,
        acked: &AckedRate,
        rtt_min: Option<Duration>,
    ) -> Option<Sample> {
        let (sent_at, _, packet) = acked.newest?;
        if self.delivered > self.app_limited_until {
            self.app_limited_until = 0;
        }
        self.delivered_at = now;
        self.first_sent_at = sent_at;
        let sending = sent_at.saturating_since(packet.first_sent_at);
        let acking = now.saturating_since(packet.delivered_at);
        let interval = sending.max(acking);
        let plausible = !interval.is_zero() && rtt_min.is_none_or(|min| interval >= min);
        plausible.then(|| Sample {
            delivered: self.delivered - packet.delivered,
            interval,
            prior_delivered: packet.delivered,
            app_limited: packet.app_limited,
        })
    }

    /// There is nothing more to send although more could be: samples until then say little.
    pub(crate) fn on_app_limited(&mut self, in_flight: u64) {
        self.app_limited_until = (self.delivered + in_flight).max(1);
    }

    pub(crate) fn is_app_limited(&self) -> bool {
        self.app_limited_until != 0
    }

    /// Bytes delivered so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    pub(crate) fn delivered_at(&self) -> Time {
        self.delivered_at
    }
}

impl AckedRate {
    /// Bytes this ack delivered.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}
