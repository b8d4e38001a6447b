//! A DHT of processes on a host of a network, for `fcore` on its other hosts.
#![cfg(target_os = "linux")]

use std::path::Path;

use ferrocore_interop_tests::fcore::{Fcore, Run};
use ferrocore_interop_tests::network::Network;

/// Runs on host 0 of a network.
pub(crate) struct OwnDht {
    /// An address of the first node.
    pub(crate) bootstrap: String,
    _nodes: Vec<Run>,
}

impl OwnDht {
    /// Starts as many nodes as it takes to know one's NAT.
    pub(crate) fn start(network: &Network, store: &Path) -> Self {
        let first = network.address(0).to_string();
        let run_node = |arguments: &[&str]| {
            let place = ["--host", &first];
            let arguments = arguments.iter().chain(&place);
            let node = Fcore::new(store).in_dht_on(network, 0);
            let mut node = node.start(arguments);
            node.wait_event("ready");
            node
        };
        let bootstrap = format!("{first}:4000");
        let mut nodes = vec![run_node(&["dht", "bootstrap", "--port", "4000"])];
        for _ in 0..5 {
            let node = ["dht", "node", "--port", "0", "--bootstrap", &bootstrap];
            nodes.push(run_node(&node));
        }
        Self {
            bootstrap,
            _nodes: nodes,
        }
    }

    /// Starts `fcore` on a host, where it finds peers by the DHT alone.
    pub(crate) fn run(&self, network: &Network, host: u8, store: &Path, command: &[&str]) -> Run {
        let place = ["--no-lan", "--bootstrap", &self.bootstrap];
        let fcore = Fcore::new(store).in_dht_on(network, host);
        fcore.start(command.iter().chain(&place))
    }
}
