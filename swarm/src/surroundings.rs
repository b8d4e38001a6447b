//! This machine's addresses, and when they change.
//! Knows interfaces. Does not know what follows from a change.
//!
//! They are looked at again and again, as `udx-native` does it: `if-watch` would hear of a change at once, but by a
//! dozen crates for netlink and its like, and hears nothing where a sandbox closes that.

use std::collections::BTreeSet;
use std::net::IpAddr;

use tokio::time::sleep;

use crate::limits::{ADDRESSES_LOOK, ADDRESSES_SETTLE};

/// The addresses of this machine but for loopback's, each with its interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Addresses(BTreeSet<(String, IpAddr)>);

impl Addresses {
    /// Those of now; nothing, if the system does not say.
    pub(crate) fn now() -> Self {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default().into_iter();
        let others = interfaces.filter(|interface| !interface.is_loopback());
        Self(others.map(|each| (each.name.clone(), each.ip())).collect())
    }

    /// Whether this machine has that address. It always has loopback's.
    pub(crate) fn contain(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_loopback() || self.0.iter().any(|(_, own)| *own == ip)
    }

    /// Returns once they differ from these and have settled; these are then the new ones.
    pub(crate) async fn changed(&mut self) {
        loop {
            sleep(ADDRESSES_LOOK).await;
            if Self::now() == *self {
                continue;
            }
            // A machine that moves loses an address, and gets another one a moment later.
            sleep(ADDRESSES_SETTLE).await;
            *self = Self::now();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn only_addresses_of_this_machine_are_contained() {
        let own = IpAddr::from([192, 168, 1, 2]);
        let addresses = Addresses([("eth0".to_owned(), own)].into());
        assert!(addresses.contain(own));
        assert!(addresses.contain(Ipv4Addr::new(192, 168, 1, 2).to_ipv6_mapped().into()));
        assert!(addresses.contain(Ipv4Addr::LOCALHOST.into()));
        assert!(!addresses.contain([192, 168, 1, 3].into()));
    }

    #[tokio::test(start_paused = true)]
    async fn another_address_is_noticed() {
        let mut before = Addresses([("eth9".to_owned(), [203, 0, 113, 9].into())].into());
        before.changed().await;
        assert_eq!(before, Addresses::now());
    }
}
