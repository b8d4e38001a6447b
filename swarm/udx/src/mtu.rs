//! How large a datagram the path carries: probing by padding (RFC 8899), upwards from [`MTU_BASE`].
//! Knows sizes. Does not know packets; a probe's padding is the sender's work.

use std::net::SocketAddr;

use crate::limits::{MTU_BASE, MTU_MAX, OVERHEAD_IPV4, OVERHEAD_IPV6};
use crate::packet::HEADER_LEN;

/// The search for one path's MTU. Sizes count IP and UDP headers.
///
/// libudx climbs in steps of 32; here the first probe is as large as a byte of padding allows, and failures
/// halve the interval, which finds 1,500 in two probes.
#[derive(Debug)]
pub(crate) struct Mtu {
    current: u16,
    /// The smallest size known, or assumed, not to pass.
    too_large: u16,
    overhead: u16,
    probe: Option<Probe>,
    failures: u8,
    enabled: bool,
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    size: u16,
    sent: bool,
}

impl Mtu {
    /// Probing begins with the first ack; `enabled` false keeps the base.
    pub(crate) fn new(remote: SocketAddr, enabled: bool) -> Self {
        Self {
            current: MTU_BASE,
            too_large: MTU_MAX + 1,
            overhead: if remote.is_ipv4() {
                OVERHEAD_IPV4
            } else {
                OVERHEAD_IPV6
            },
            probe: None,
            failures: 0,
            enabled,
        }
    }

    /// Bytes of stream data in a full packet.
    pub(crate) fn payload_max(&self) -> usize {
        usize::from(self.current - self.overhead) - HEADER_LEN
    }

    /// The size of a full datagram, without IP and UDP headers.
    pub(crate) fn datagram_max(&self) -> usize {
        usize::from(self.current - self.overhead)
    }

    /// Whether a datagram is of a size that is assumed to pass everywhere.
    pub(crate) fn is_base(&self, datagram: usize) -> bool {
        datagram <= usize::from(MTU_BASE - self.overhead)
    }

    /// The MTU found so far, with IP and UDP headers.
    pub(crate) fn current(&self) -> u16 {
        self.current
    }

    /// How many bytes of padding make a probe of a datagram of `datagram` bytes, if one is wanted.
    pub(crate) fn padding_for(&self, datagram: usize) -> Option<u8> {
        let probe = self.probe.filter(|probe| !probe.sent)?;
        let wanted = usize::from(probe.size - self.overhead);
        let padding = wanted.checked_sub(datagram)?;
        u8::try_from(padding).ok().filter(|&padding| padding > 0)
    }

    pub(crate) fn on_probe_sent(&mut self) {
        if let Some(probe) = &mut self.probe {
            probe.sent = true;
        }
    }

    /// Some packet arrived: the base holds, the search may begin.
    pub(crate) fn on_ack(&mut self) {
        if self.enabled && self.probe.is_none() {
            self.next_probe();
        }
    }

    /// A probe of `size` arrived.
    pub(crate) fn on_probe_acked(&mut self, datagram: usize) {
        let size = self.size_of(datagram);
        if size <= self.current || size >= self.too_large {
            return;
        }
        self.current = size;
        self.failures = 0;
        self.next_probe();
    }

    /// A probe of `size` was lost; the packet goes out again without padding.
    pub(crate) fn on_probe_lost(&mut self, datagram: usize) {
        let size = self.size_of(datagram);
        if self.probe.is_none_or(|probe| probe.size != size) {
            return;
        }
        self.failures += 1;
        if self.failures >= PROBES_PER_SIZE {
            self.failures = 0;
            self.too_large = size;
        }
        self.next_probe();
    }

    /// Nothing gets through: perhaps because it is too large.
    pub(crate) fn on_black_hole(&mut self) {
        if self.current > MTU_BASE {
            self.too_large = self.current;
            self.current = MTU_BASE;
            self.probe = None;
        }
    }

    fn size_of(&self, datagram: usize) -> u16 {
        u16::try_from(datagram).map_or(u16::MAX, |len| len.saturating_add(self.overhead))
    }

    fn next_probe(&mut self) {
        let largest = (self.too_large - 1).min(self.current + u16::from(u8::MAX));
        let size = if self.too_large > MTU_MAX {
            largest // nothing has failed yet: be bold
        } else {
            self.current + (self.too_large - self.current) / 2
        };
        let worthwhile =
            size >= self.current + STEP_MIN || (size > self.current && size == MTU_MAX);
        self.probe = Some(Probe {
            size,
            sent: !worthwhile,
        });
    }
}

const PROBES_PER_SIZE: u8 = 2;
const STEP_MIN: u16 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Drives the search over a path that carries `path` bytes; returns the MTU found and the probes spent.
    fn search(path: u16, remote: &str) -> (u16, usize) {
        let mut mtu = Mtu::new(remote.parse().unwrap(), true);
        let mut probes = 0;
        loop {
            mtu.on_ack();
            let full = mtu.datagram_max();
            let Some(padding) = mtu.padding_for(full) else {
                return (mtu.current(), probes);
            };
            probes += 1;
            assert!(probes < 30, "the search ends");
            mtu.on_probe_sent();
            let datagram = full + usize::from(padding);
            if datagram + usize::from(mtu.overhead) <= usize::from(path) {
                mtu.on_probe_acked(datagram);
            } else {
                mtu.on_probe_lost(datagram);
            }
        }
    }

    #[test]
    fn the_search_finds_each_path() {
        assert_eq!(search(9000, "10.0.0.1:1"), (1500, 2));
        assert_eq!(search(9000, "[::1]:1"), (1500, 2));
        assert_eq!(search(1200, "10.0.0.1:1").0, 1200);
        for path in [1201, 1280, 1350, 1420, 1480, 1499] {
            let (found, probes) = search(path, "10.0.0.1:1");
            assert!(
                found <= path && found + 2 * STEP_MIN > path,
                "{found} of {path}"
            );
            assert!(probes <= 14, "{probes} probes for {path}");
        }
    }

    #[test]
    fn forged_news_of_a_probe_changes_nothing() {
        let mut mtu = Mtu::new("10.0.0.1:1".parse().unwrap(), true);
        mtu.on_probe_acked(60_000);
        mtu.on_probe_lost(3);
        assert_eq!(mtu.current(), MTU_BASE);
    }
}
