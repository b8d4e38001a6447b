//! A peer of ours: a node that listens, its copies of the logs, of which it may write one, and whom it dials.
//! Knows ferrocore. Does not know what happens to it, nor in which process it is.

use std::path::Path;

use ferrocore::log::audit::{Mode, Step};
use ferrocore::log::core::Download;
use ferrocore::{Core, Dialing, Node};
use serde_json::{Value, json};

use super::Head;

pub(super) struct Ours {
    node: Node,
    cores: Vec<(Core, Download)>,
    dialing: Vec<Dialing>,
}

impl Ours {
    /// With the store in `dir`, and no log open.
    pub(super) async fn start(dir: &Path) -> Self {
        let builder = Node::builder().dir(dir).listen("127.0.0.1:0");
        Self {
            node: builder.open().await.unwrap(),
            cores: Vec::new(),
            dialing: Vec::new(),
        }
    }

    /// Opens the next log: the one with this key, or the store's own of this name; keeps all of it.
    pub(super) fn open(&mut self, key: Option<&str>, name: Option<&str>) -> &Core {
        let core = match (key, name) {
            (Some(key), _) => self.node.core(&key.parse().unwrap()),
            (None, name) => self.node.create_core(name.expect("a key or a name")),
        };
        let core = core.unwrap();
        let all = core.download_all();
        self.cores.push((core, all));
        self.core(self.cores.len() - 1)
    }

    pub(super) fn port(&self) -> u16 {
        self.node.listen_addr().expect("it listens").port()
    }

    pub(super) fn core(&self, slot: usize) -> &Core {
        &self.cores[slot].0
    }

    /// All bytes of block `index` of these are `fill + index`.
    pub(super) fn append(&self, slot: usize, count: u64, size: usize, fill: u64) -> Head {
        let block = |index| vec![(fill + index) as u8; size].into();
        let core = self.core(slot);
        core.append_batch((0..count).map(block).collect()).unwrap();
        head_of(core)
    }

    pub(super) fn truncate(&self, slot: usize, length: u64) -> Head {
        self.core(slot).truncate(length, None).unwrap();
        head_of(self.core(slot))
    }

    pub(super) fn dial(&mut self, port: u16) {
        let dialing = self.node.dial(format!("127.0.0.1:{port}"));
        self.dialing.push(dialing);
    }

    pub(super) fn disconnect(&mut self) {
        self.dialing.clear();
    }

    /// Leaves the store to the next.
    pub(super) async fn stop(self) {
        drop(self.dialing);
        self.node.close().await;
    }

    /// What this peer thinks of a log and of those it replicates it with: why it does not get on.
    pub(super) async fn explain(&self, slot: usize) -> String {
        let core = self.core(slot);
        let key = core.key();
        let reports = self.node.peer_reports().await;
        let channels = reports.iter().map(|report| {
            let cores = report.session.cores.iter();
            let core = cores.filter(|core| core.key == key).collect::<Vec<_>>();
            format!("  {:?}: {core:?}", report.peer)
        });
        let channels = channels.collect::<Vec<_>>().join("\n");
        format!(
            "{:?}, {} without a gap\n{channels}",
            head_of(core),
            core.contiguous_length()
        )
    }
}

/// Waits until `core` is what `head` says, with every block; then looks at what is stored: each block must be the leaf it is
/// said to be, and all nodes lead to the roots that are signed.
pub(super) async fn agree(core: &Core, head: &Head) -> Result<(), String> {
    let events = core.events();
    while head_of(core) != *head || core.contiguous_length() != head.length {
        events.next().await;
    }
    let mut damages = Vec::new();
    let audited = core.audit(Mode::DryRun, |step| {
        if let Step::Found { damage, .. } = step {
            damages.push(format!("{damage:?}"));
        }
    });
    match audited {
        Ok(report) if damages.is_empty() && report.blocks == head.length => Ok(()),
        audited => Err(format!("{head:?} is stored with {damages:?}: {audited:?}")),
    }
}

pub(super) fn head_of(core: &Core) -> Head {
    let head = core.head();
    Head {
        fork: head.fork,
        length: head.length,
        tree_hash: hash_of(head.length, &head.root_hash),
    }
}

/// The hash over the first `length` blocks.
pub(super) fn hash_at(core: &Core, length: u64) -> Value {
    match length {
        0 => Value::Null,
        length => hash_of(length, &core.tree_head(length).unwrap().hash),
    }
}

/// As Node tells it.
fn hash_of(length: u64, hash: &ferrocore::primitives::hash::Hash) -> Value {
    let digits = hash.as_bytes().iter();
    let hash: String = digits.map(|byte| format!("{byte:02x}")).collect();
    match length {
        0 => Value::Null,
        _ => json!(hash),
    }
}
