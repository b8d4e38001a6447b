//! What strangers can make a node do, and the memory it spends on them.
//! Knows the bounds and counts requests against them. Does not know what requests ask for.
//!
//! A source is a host; on the loopback interface, where a whole network may share one, an address. Who fakes sources
//! meets the bound on all of them.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ferrocore_primitives::time::Time;

use crate::address::is_local;

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

/// How often the counts of requests are lowered. Whoever was refused repeats after a second, so a source that overdoes it
/// is slowed down rather than shut out.
pub const PERIOD: Duration = Duration::from_secs(1);

/// Requests of one source that are looked at, above what its counts are lowered by.
pub const SOURCE_REQUESTS_MAX: u32 = 400;

/// By how much the count of a source is lowered in each [`PERIOD`].
pub const SOURCE_REQUESTS_EACH: u32 = 100;

/// How many times as much is looked at of sources on local networks and on this machine: routers let no stranger pretend to be
/// one of those.
pub const LOCAL_FACTOR: u32 = 10;

/// Requests that are looked at, above what their count is lowered by.
pub const ALL_REQUESTS_MAX: u32 = 16_000;

/// By how much that count is lowered in each [`PERIOD`].
pub const ALL_REQUESTS_EACH: u32 = 4_000;

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

    /// Counts a request of `from`. False if it is one too many and to be dropped; it does not count then.
    pub fn allows(&mut self, now: Time, from: SocketAddrV4) -> bool {
        if now >= self.ends_at {
            self.lower(now);
        }
        let is_allowed = self.all < ALL_REQUESTS_MAX && self.count(from);
        self.all += u32::from(is_allowed);
        is_allowed
    }

    fn count(&mut self, from: SocketAddrV4) -> bool {
        let (source, factor) = (source(from), factor(*from.ip()));
        let is_full = self.sources.len() >= SOURCES_MAX;
        if is_full && !self.sources.contains_key(&source) {
            return true;
        }
        let count = self.sources.entry(source).or_default();
        let is_allowed = *count < SOURCE_REQUESTS_MAX * factor;
        *count += u32::from(is_allowed);
        is_allowed
    }

    fn lower(&mut self, now: Time) {
        let late = now.saturating_since(self.ends_at).as_nanos() / PERIOD.as_nanos();
        let periods = u32::try_from(late).unwrap_or(u32::MAX).saturating_add(1);
        self.ends_at = now + PERIOD;
        let lowered = |count: u32, each: u32| count.saturating_sub(each.saturating_mul(periods));
        self.all = lowered(self.all, ALL_REQUESTS_EACH);
        self.sources.retain(|source, count| {
            *count = lowered(*count, SOURCE_REQUESTS_EACH * factor(*source.ip()));
            *count > 0
        });
        if self.sources.capacity() > SOURCES_KEPT.max(4 * self.sources.len()) {
            self.sources.shrink_to_fit(); // a node is seldom asked by as many again
        }
    }
}

/// Places for sources that are kept.
const SOURCES_KEPT: usize = 64;

fn factor(ip: Ipv4Addr) -> u32 {
    if is_local(ip) { LOCAL_FACTOR } else { 1 }
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
        let each = SOURCE_REQUESTS_EACH as usize;
        assert_eq!(allowed(&mut rates, Time::ZERO + PERIOD, flood()), each);
        assert_eq!(allowed(&mut rates, Time::ZERO + PERIOD * 9, flood()), max);
        let local = (1..=1000).map(|port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
        assert_eq!(allowed(&mut rates, Time::ZERO, local), 1000);
    }

    /// Goal: nobody is shut out for as long as a request is repeated (three times, a second apart). Method: a source that asks
    /// ten times as often as it may gets its share of every second.
    #[test]
    fn who_asks_too_often_is_slowed_down_but_not_shut_out() {
        let mut rates = Rates::new(Time::ZERO);
        let from = "192.0.2.1:1".parse().unwrap();
        let mut answered = [0; 20];
        for millis in 0..20_000 {
            let now = Time::ZERO + Duration::from_millis(millis);
            answered[millis as usize / 1000] += u32::from(rates.allows(now, from));
        }
        assert_eq!(answered[0], SOURCE_REQUESTS_MAX);
        assert!(
            answered[1..]
                .iter()
                .all(|&count| count == SOURCE_REQUESTS_EACH),
            "{answered:?}"
        );
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
