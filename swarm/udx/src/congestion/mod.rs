//! How fast and how much to send: delivery-rate samples, BBR, a pacer.
//! Knows bytes and times. Does not know packets or their contents.

mod bbr;
mod erasure;
pub(crate) mod filter;
mod pacer;
mod rate;

pub(crate) use bbr::{Ack, Bbr, Recovery};
pub(crate) use pacer::Pacer;
pub(crate) use rate::{AckedRate, PacketRate, RateMeter};
