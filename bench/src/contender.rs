//! Who is measured, and how each is started.
//! Knows processes and processors. Does not know the jobs.

use std::path::Path;
use std::process::Command;

use ferrocore_interop_tests::node::{self, Tree};
use ferrocore_interop_tests::peer::Peer;

/// One side of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    /// hypercore 11 on one processor, which spares its threads the way between two.
    Node11Pinned,
    /// hypercore 11, left to the system.
    Node11,
    /// hypercore 10, left to the system.
    Node10,
    /// This project; last in every table.
    Ferrocore,
}

impl Contender {
    pub(crate) const ALL: [Self; 4] = [
        Self::Node11Pinned,
        Self::Node11,
        Self::Node10,
        Self::Ferrocore,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Node11Pinned => "Node 11, one core",
            Self::Node11 => "Node 11",
            Self::Node10 => "Node 10",
            Self::Ferrocore => "ferrocore",
        }
    }

    /// Starts its process: `script`, of `peers/`, is the JavaScript twin of [`crate::worker`].
    pub(crate) fn start(self, script: &str) -> Peer {
        let mut command = match self {
            Self::Ferrocore => worker(),
            Self::Node11Pinned => {
                let mut command = Command::new("taskset");
                command.args(["--cpu-list", "0", "node"]);
                with_script(command, script, Tree::Current)
            }
            Self::Node11 => with_script(Command::new("node"), script, Tree::Current),
            Self::Node10 => with_script(Command::new("node"), script, Tree::Legacy),
        };
        Peer::run(self.name(), &mut command)
    }
}

fn worker() -> Command {
    let this = std::env::current_exe().expect("the system tells a program its path");
    let mut command = Command::new(this);
    command.arg("work");
    command
}

fn with_script(mut command: Command, script: &str, tree: Tree) -> Command {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    command.arg(scripts.join(script)).arg(node::ensure(tree));
    command
}
