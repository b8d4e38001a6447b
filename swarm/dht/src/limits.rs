//! What strangers can make a node do, and the memory it spends on them.
//! Knows the bounds and counts requests against them. Does not know what requests ask for.
//!
//! A source is a host; on the loopback interface, where a whole network may share one, an address. Who fakes sources
//! meets the bound on all of them.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use ferrocore_primitives::time::Time;

/// Requests of ours that wait for an answer or for room in the window. More are refused.
pub const REQUESTS_MAX: usize = 8192;

/// Queries of ours that run at a time. More are refused.
pub const QUERIES_MAX: usize = 512;

/// Answers to delayed pings that wait for their time. Further ones are ignored.
pub const DELAYED_PINGS_MAX: usize = 256;

/// The longest delay of a ping that is answered.
pub const PING_DELAY_MAX: Duration = Duration::from_secs(10);

/// Requests for the application that wait to be looked at. Further ones are dropped.
pub const INCOMING_MAX: usize = 1024;

/// How long requests are counted before the count starts anew.
pub const PERIOD: Duration = Duration::from_secs(4);

/// Requests of one source that are looked at in a [`PERIOD`]: 100 a second.
pub const SOURCE_REQUESTS_MAX: u32 = 400;

/// Requests that are looked at in a [`PERIOD`]: 4,000 a second.
pub const ALL_REQUESTS_MAX: u32 = 16_000;

/// Sources counted one by one; those beyond count among all.
pub const SOURCES_MAX: usize = 8192;

/// Counts requests.
#[derive(Debug)]
pub struct Rates {
    sources: HashMap<SocketAddrV4, u32>,
    all: u32,
    ends_at: Time,
}

impl Rates {
    /// No requests yet.
    pub fn new(now: Time) -> Self {
        Self {
            sources: HashMap::new(),
            all: 0,
            ends_at: now + PERIOD,
        }
    }

    /// Counts a request of `from`. False if it is one too many and to be dropped.
    pub fn allows(&mut self, now: Time, from: SocketAddrV4) -> bool {
        if now >= self.ends_at {
            self.sources = HashMap::new(); // with its memory: a node is seldom asked by as many again
            self.all = 0;
            self.ends_at = now + PERIOD;
        }
        self.all = self.all.saturating_add(1);
        self.all <= ALL_REQUESTS_MAX && self.count(source(from)) <= SOURCE_REQUESTS_MAX
    }

    fn count(&mut self, source: SocketAddrV4) -> u32 {
        let is_full = self.sources.len() >= SOURCES_MAX;
        if is_full && !self.sources.contains_key(&source) {
            return 0;
        }
        let count = self.sources.entry(source).or_default();
        *count = count.saturating_add(1);
        *count
    }
}

fn source(from: SocketAddrV4) -> SocketAddrV4 {
    if from.ip().is_loopback() {
        from
    } else {
        SocketAddrV4::new(*from.ip(), 0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn allowed(rates: &mut Rates, now: Time, from: impl Iterator<Item = SocketAddrV4>) -> usize {
        from.filter(|from| rates.allows(now, *from)).count()
    }

    #[test]
    fn a_host_gets_its_share_whatever_its_ports() {
        let mut rates = Rates::new(Time::ZERO);
        let flood = || (1..=1000).map(|port| SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), port));
        let max = SOURCE_REQUESTS_MAX as usize;
        assert_eq!(allowed(&mut rates, Time::ZERO, flood()), max);
        assert!(rates.allows(Time::ZERO, "192.0.2.2:1".parse().unwrap()));
        assert_eq!(allowed(&mut rates, Time::ZERO + PERIOD, flood()), max);
        let local = (1..=1000).map(|port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
        assert_eq!(allowed(&mut rates, Time::ZERO, local), 1000);
    }

    #[test]
    fn faked_sources_share_one_bound_and_little_memory() {
        let mut rates = Rates::new(Time::ZERO);
        let flood = (0..50_000).map(|n: u32| SocketAddrV4::new(Ipv4Addr::from(0x5000_0000 + n), 1));
        let max = ALL_REQUESTS_MAX as usize;
        assert_eq!(allowed(&mut rates, Time::ZERO, flood), max);
        assert_eq!(rates.sources.len(), SOURCES_MAX);
    }
}
