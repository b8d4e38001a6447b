//! What others have to say: the DHT, what it sees of us, the relay.

use ferrocore::primitives::sign::KeyPair;
use ferrocore_dht::nat::Seen;
use ferrocore_swarm::connect::Peers;
use ferrocore_swarm::dht::{Dht, NodeStatus};
use tokio::time::Instant;

use super::Round;
use crate::commands::dht::{client, reach};
use crate::events::Check;
use crate::exit::{Failure, Result};
use crate::output::count;

impl Round<'_> {
    /// Joins the DHT, and looks at all that depends on it.
    pub(super) async fn check_dht(&mut self) -> Result<()> {
        let started = Instant::now();
        let node = match client(self.globals).await {
            Ok(node) => node,
            Err(failure) => {
                let hint = "let the firewall pass UDP, or name a node with --bootstrap HOST:PORT; leave it out with --no-dht";
                return self.tell(failed("dht", failure, hint)).await;
            }
        };
        let (status, seconds) = (node.status(), started.elapsed().as_secs_f64());
        let nodes = count(status.nodes as u64, "node");
        let detail = format!("{nodes} known after {seconds:.1} s");
        self.tell(Check::good("dht", detail)).await?;
        self.tell(nat(&status)).await?;
        self.check_relay(&node).await?;
        node.close().await;
        Ok(())
    }

    async fn check_relay(&mut self, node: &Dht) -> Result<()> {
        let Some(relay) = self.globals.relay else {
            return Ok(());
        };
        let peers = Peers::new(node.clone(), KeyPair::generate());
        let check = match reach(self.globals, &peers, relay, None).await {
            Ok(pong) => {
                let address = pong.address.as_deref().unwrap_or("-");
                Check::good("relay", format!("answers at {address}, {}", pong.via))
            }
            Err(failure) => failed(
                "relay",
                failure,
                "see that it runs, and that this is its key",
            ),
        };
        self.tell(check).await
    }
}

/// What stands between us and others.
fn nat(status: &NodeStatus) -> Check {
    let open = status.remote_address.filter(|_| !status.is_firewalled);
    match (open, status.seen) {
        (Some(address), _) => Check::good("nat", format!("open: others reach {address} unasked")),
        (None, Seen::Address(address)) => Check::good(
            "nat",
            format!("consistent: all see {address}, and can punch through to it"),
        ),
        (None, Seen::Host(host)) => {
            let detail = format!("random: each sees another port of {host}");
            let hint = "peers behind such a NAT, too, can only be met at a relay: --relay KEY";
            Check::good("nat", detail).with_hint(hint)
        }
        (None, Seen::Nothing) => {
            Check::good("nat", "unknown: too few nodes have said where they see us")
        }
    }
}

fn failed(name: &'static str, failure: Failure, hint: &str) -> Check {
    Check::bad(name, failure.message, hint)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use super::*;

    #[test]
    fn a_random_nat_is_named_with_the_way_out() {
        let host = Ipv4Addr::new(203, 0, 113, 7);
        let address = SocketAddrV4::new(host, 4000);
        let mut status = NodeStatus::default();
        status.is_firewalled = true;
        let kind = |status: &NodeStatus| {
            let check = nat(status);
            let kind = check.detail.split(':').next().map(str::to_owned);
            (kind.unwrap_or_default(), check.hint.is_some())
        };
        assert_eq!(kind(&status), ("unknown".to_owned(), false));
        status.seen = Seen::Host(host);
        assert_eq!(kind(&status), ("random".to_owned(), true));
        (status.seen, status.remote_address) = (Seen::Address(address), Some(address));
        assert_eq!(kind(&status), ("consistent".to_owned(), false));
        status.is_firewalled = false;
        assert_eq!(kind(&status), ("open".to_owned(), false));
    }
}
