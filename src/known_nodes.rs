//! The nodes of the DHT that a store remembers: who knows some needs no bootstrap node to be there.
//! Knows the file. Does not know what nodes are asked for.
//!
//! `STORE/dht-nodes`, text:
//!
//! | line | what |
//! |---|---|
//! | 1 | the bootstrap nodes of their network, separated by spaces; `public` for those that everybody asks |
//! | others | the address of a node, `IP:PORT`, those heard last first |
//!
//! Another network's nodes are no use, so the file is taken only where the first line is the same.

use std::io::{self, Read};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, process};

use ferrocore_swarm::dht::{BootstrapNode, Dht};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// The file's name in the store.
const NAME: &str = "dht-nodes";

/// Nodes remembered.
const NODES_MAX: usize = 100;

/// More of the file is not read: lines have 22 bytes at most, but for the first.
const LEN_MAX: u64 = 16 * 1024;

/// When the nodes are noted for the first time, and how often from then on; besides that when the node closes.
const FIRST_SAVE: Duration = Duration::from_secs(20);
const SAVE_INTERVAL: Duration = Duration::from_secs(600);

/// Where nodes are remembered, and of which network.
#[derive(Debug, Clone)]
pub(crate) struct KnownNodes {
    path: PathBuf,
    network: String,
}

impl KnownNodes {
    /// In the store `dir`; of the network of these `bootstrap` nodes, which is the public one if there are none.
    pub(crate) fn new(dir: &Path, bootstrap: &[BootstrapNode]) -> Self {
        let mut names: Vec<_> = bootstrap.iter().map(ToString::to_string).collect();
        names.sort();
        let network = match names.is_empty() {
            true => "public".to_owned(),
            false => names.join(" "),
        };
        Self {
            path: dir.join(NAME),
            network,
        }
    }

    /// Those remembered; none if there is no file that can be read.
    pub(crate) fn load(&self) -> Vec<SocketAddrV4> {
        self.read().unwrap_or_default()
    }

    fn read(&self) -> io::Result<Vec<SocketAddrV4>> {
        let mut text = String::new();
        let file = fs::File::open(&self.path)?;
        file.take(LEN_MAX).read_to_string(&mut text)?;
        Ok(parse(&self.network, &text))
    }

    /// Saves the nodes from time to time, for programs that are ended without a word.
    pub(crate) async fn keep(&self, dht: &Dht) {
        if dht.bootstrapped().await.is_err() {
            return;
        }
        sleep(FIRST_SAVE).await;
        loop {
            self.save(dht).await;
            sleep(SAVE_INTERVAL).await;
        }
    }

    /// Notes the nodes known now, if there are any: a store is none the worse without.
    pub(crate) async fn save(&self, dht: &Dht) {
        let nodes = dht.nodes(NODES_MAX);
        if nodes.is_empty() {
            return;
        }
        let this = self.clone();
        let writing = spawn_blocking(move || this.write(&nodes));
        if let Ok(Err(error)) = writing.await {
            tracing::debug!(%error, path = %self.path.display(), "nodes are not remembered");
        }
    }

    /// By a file that takes the place of the old one. Not synced: after a power cut it may be empty, and then nobody is remembered.
    fn write(&self, nodes: &[SocketAddrV4]) -> io::Result<()> {
        let text = format(&self.network, nodes);
        let new = self.path.with_extension(format!("new-{}", process::id()));
        fs::write(&new, text)?;
        fs::rename(&new, &self.path)
    }
}

/// The nodes in a file, if it is of this network: those before the first line that is none.
pub(crate) fn parse(network: &str, text: &str) -> Vec<SocketAddrV4> {
    let mut lines = text.lines();
    if lines.next() != Some(network) {
        return Vec::new();
    }
    let nodes = lines.map_while(|line| line.parse().ok());
    nodes.take(NODES_MAX).collect()
}

/// What [`parse`] reads.
pub(crate) fn format(network: &str, nodes: &[SocketAddrV4]) -> String {
    let mut text = format!("{network}\n");
    for node in nodes {
        text.push_str(&format!("{node}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_remembered_for_their_network_alone() {
        let dir = tempfile::tempdir().unwrap();
        let nodes: Vec<SocketAddrV4> =
            vec!["1.2.3.4:5".parse().unwrap(), "6.7.8.9:10".parse().unwrap()];
        let ours = KnownNodes::new(dir.path(), &["9.9.9.9:1".parse().unwrap()]);
        assert_eq!(ours.load(), []);
        ours.write(&nodes).unwrap();
        assert_eq!(ours.load(), nodes);
        assert_eq!(KnownNodes::new(dir.path(), &[]).load(), []);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::write(dir.path().join(NAME), b"9.9.9.9:1\n1.2.3.4:5\nrubbish\n").unwrap();
        assert_eq!(ours.load(), nodes[..1]);
        fs::write(dir.path().join(NAME), [0xff; 100_000]).unwrap();
        assert_eq!(ours.load(), []);
    }
}
