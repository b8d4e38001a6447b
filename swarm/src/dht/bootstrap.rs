//! Bootstrap nodes as they are written: an address, a name, or both.
//! Knows names. Does not know when they are asked.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A node to ask first: `HOST:PORT`, or `IP@HOST:PORT` where the IP is tried before the name is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapNode {
    suggested: Option<Ipv4Addr>,
    name: String,
    port: u16,
}

/// The text is no bootstrap node.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a bootstrap node is HOST:PORT, with an IPv4 address or a name")]
pub struct ParseBootstrapError;

/// How long a name may take to be looked up: a resolver that does not answer can take minutes to say so.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The addresses that these stand for now, as far as they can be found out, in no order; in the time of the slowest.
pub(super) async fn resolve_all(nodes: Vec<BootstrapNode>) -> Vec<SocketAddrV4> {
    let mut lookups = JoinSet::new();
    for node in nodes {
        lookups.spawn(async move { node.resolve().await });
    }
    let found = lookups.join_all().await;
    found.into_iter().flatten().collect()
}

/// The nodes that everybody asks first, which Holepunch runs (`hyperdht/lib/constants.js` 6.34).
pub fn public_bootstrap() -> Vec<BootstrapNode> {
    let node = |[a, b, c, d]: [u8; 4], name: &str| BootstrapNode {
        suggested: Some(Ipv4Addr::new(a, b, c, d)),
        name: name.to_owned(),
        port: 49737,
    };
    vec![
        node([88, 99, 3, 86], "node1.hyperdht.org"),
        node([142, 93, 90, 113], "node2.hyperdht.org"),
        node([138, 68, 147, 8], "node3.hyperdht.org"),
    ]
}

impl BootstrapNode {
    /// The address to try before any name is looked up.
    pub(super) fn known(&self) -> Option<SocketAddrV4> {
        let ip = self.suggested.or_else(|| self.name.parse().ok())?;
        Some(SocketAddrV4::new(ip, self.port))
    }

    /// The address that the name stands for now.
    async fn resolve(&self) -> Option<SocketAddrV4> {
        if let Ok(ip) = self.name.parse() {
            return Some(SocketAddrV4::new(ip, self.port));
        }
        let looking_up = tokio::net::lookup_host((self.name.as_str(), self.port));
        let found = timeout(RESOLVE_TIMEOUT, looking_up).await;
        let mut found = found.ok()?.ok()?;
        found.find_map(|address| match address {
            std::net::SocketAddr::V4(address) => Some(address),
            std::net::SocketAddr::V6(_) => None,
        })
    }
}

impl From<SocketAddrV4> for BootstrapNode {
    fn from(address: SocketAddrV4) -> Self {
        Self {
            suggested: None,
            name: address.ip().to_string(),
            port: address.port(),
        }
    }
}

/// As it is read.
impl fmt::Display for BootstrapNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ip) = self.suggested {
            write!(f, "{ip}@")?;
        }
        write!(f, "{}:{}", self.name, self.port)
    }
}

impl FromStr for BootstrapNode {
    type Err = ParseBootstrapError;

    fn from_str(text: &str) -> Result<Self, ParseBootstrapError> {
        let (host, port) = text.rsplit_once(':').ok_or(ParseBootstrapError)?;
        let port = port.parse().map_err(|_| ParseBootstrapError)?;
        let (suggested, name) = match host.split_once('@') {
            Some((ip, name)) => (Some(ip.parse().map_err(|_| ParseBootstrapError)?), name),
            None => (None, host),
        };
        if name.is_empty() || name.contains([':', '@', ' ']) || port == 0 {
            return Err(ParseBootstrapError);
        }
        Ok(Self {
            suggested,
            name: name.to_owned(),
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_read_as_javascript_writes_them() {
        let known = |text: &str| text.parse::<BootstrapNode>().unwrap().known();
        assert_eq!(known("1.2.3.4:5"), Some("1.2.3.4:5".parse().unwrap()));
        assert_eq!(known("1.2.3.4@a.org:5"), Some("1.2.3.4:5".parse().unwrap()));
        assert_eq!(known("a.org:5"), None);
        assert_eq!(
            "88.99.3.86@node1.hyperdht.org:49737".parse(),
            Ok(public_bootstrap().remove(0))
        );
        for text in ["1.2.3.4:5", "1.2.3.4@a.org:5", "a.org:5"] {
            assert_eq!(text.parse::<BootstrapNode>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "a",
            "a:",
            ":5",
            "a:0",
            "a:70000",
            "x@a:1",
            "::1:5",
            "1.2.3.4@:5",
        ] {
            assert_eq!(
                text.parse::<BootstrapNode>(),
                Err(ParseBootstrapError),
                "{text}"
            );
        }
    }
}
