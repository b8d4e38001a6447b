//! What a node is to be like, and its start.
//! Knows options. Does not know what runs afterwards.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use ferrocore_dht::node::may_ask;
use ferrocore_dht::rpc::Config;
use ferrocore_udx::socket::Udx;

use super::Dht;
use super::bootstrap::{BootstrapNode, public_bootstrap};
use super::shared::{Owner, Shared};
use super::sockets::{Place, Sockets};
use super::task;

/// The port that nodes of the HyperDHT have unless told otherwise.
pub const PORT_DEFAULT: u16 = 49737;

/// Options of a node. Defaults are right for a program on a laptop.
#[derive(Debug, Clone)]
#[must_use = "nothing runs before `bind`"]
pub struct Builder {
    place: Place,
    bootstrap: Vec<BootstrapNode>,
    config: Config,
    udx: Option<Udx>,
}

impl Default for Builder {
    fn default() -> Self {
        let mut config = Config::default();
        config.may_ask = may_ask;
        Self {
            place: Place {
                host: Ipv4Addr::UNSPECIFIED,
                port: PORT_DEFAULT,
                any_port: true,
            },
            bootstrap: public_bootstrap(),
            config,
            udx: None,
        }
    }
}

impl Builder {
    /// The address to bind to; all of the machine's by default.
    pub fn host(mut self, host: Ipv4Addr) -> Self {
        self.place.host = host;
        self
    }

    /// The port others reach this node at; 0 for any. 49737 by default, or where that is taken one of the four above it, or any:
    /// see [`any_port`](Self::any_port).
    pub fn port(mut self, port: u16) -> Self {
        self.place.port = port;
        self
    }

    /// Whether another port will do if that one is taken; yes by default.
    pub fn any_port(mut self, any: bool) -> Self {
        self.place.any_port = any;
        self
    }

    /// The nodes to ask first, instead of those of the public network.
    pub fn bootstrap(mut self, nodes: impl IntoIterator<Item = BootstrapNode>) -> Self {
        self.bootstrap = nodes.into_iter().collect();
        self
    }

    /// Nodes known from earlier ([`Dht::nodes`]).
    pub fn nodes(mut self, nodes: Vec<SocketAddrV4>) -> Self {
        self.config.nodes = nodes;
        self
    }

    /// Whether the node is a mere client for ever, or one of the network as soon as it knows its address. By default it
    /// starts as a client and stays once others have been able to reach it for 20 minutes.
    pub fn ephemeral(mut self, ephemeral: bool) -> Self {
        self.config.ephemeral = Some(ephemeral);
        self
    }

    /// Whether a firewall may be in the way; yes by default. If not, nobody is asked to try.
    pub fn firewalled(mut self, firewalled: bool) -> Self {
        self.config.firewalled = firewalled;
        self
    }

    /// A node that others are given as bootstrap, reachable at `host` and the port it is bound to. It stays, and is the
    /// first of its network unless bootstrap nodes are given after this.
    pub fn bootstrapper(mut self, host: Ipv4Addr) -> Self {
        self.bootstrap = Vec::new();
        self.config.ephemeral = Some(false);
        self.config.firewalled = false;
        // The port is known once the socket is bound.
        self.config.address = Some(SocketAddrV4::new(host, 0));
        self
    }

    /// Everything else about the node. Its bootstrap nodes are replaced by those of this builder.
    pub fn config(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Shares the endpoint of streams with others.
    pub fn udx(mut self, udx: Udx) -> Self {
        self.udx = Some(udx);
        self
    }

    /// Binds the sockets and starts the node, on the runtime this is called in.
    ///
    /// # Errors
    /// What the operating system says; with [`any_port(false)`](Self::any_port) the port may be in use.
    ///
    /// # Panics
    /// Outside of a tokio runtime with IO and time enabled.
    pub fn bind(mut self) -> io::Result<Dht> {
        let udx = self.udx.take().unwrap_or_default();
        let sockets = Sockets::bind(&udx, self.place, None)?;
        if let Some(address) = &mut self.config.address {
            address.set_port(sockets.server_port());
        }
        self.config.bootstrap = self
            .bootstrap
            .iter()
            .filter_map(BootstrapNode::known)
            .collect();
        let shared = Arc::new(Shared::new(udx, self.place, sockets, self.config));
        tokio::spawn(task::run(Arc::clone(&shared), self.bootstrap));
        Ok(Dht {
            owner: Arc::new(Owner { shared }),
        })
    }
}
