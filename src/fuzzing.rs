//! Decoders that nobody else is to call, for the fuzz targets. No part of the interface: it may change at any time.

use std::net::SocketAddrV4;

use crate::known_nodes;

/// The nodes of the DHT in the file of a store, if they are of this network.
pub fn known_nodes(network: &str, text: &str) -> Vec<SocketAddrV4> {
    known_nodes::parse(network, text)
}

/// The file that names these nodes.
pub fn known_nodes_text(network: &str, nodes: &[SocketAddrV4]) -> String {
    known_nodes::format(network, nodes)
}
