//! `doctor`: checks all that it takes to share and to fetch, and says what to do.
//! Knows which checks the options ask for. Does not know how each is done.

mod machine;
mod network;
mod serving;

use std::path::Path;

use ferrocore::Key;
use ferrocore_swarm::lan::{Include, Networks};

use crate::args::{Doctor, Globals};
use crate::events::Check;
use crate::exit::{Failure, Kind, Result};
use crate::names::Names;
use crate::output::{Output, count};
use crate::store;
use crate::target::Base;

/// The checks of one run.
#[derive(Debug)]
struct Round<'a> {
    globals: &'a Globals,
    output: &'a Output,
    done: u64,
    failed: Vec<&'static str>,
}

/// Checks everything that is not left out, one thing after the other.
///
/// # Errors
/// If anything fails; with code 4 if that is only that nobody serves the target.
pub(crate) async fn doctor(
    globals: &Globals,
    args: Doctor,
    directory: &Path,
    output: &Output,
) -> Result<()> {
    let dir = store::locate(globals, directory)?;
    // Without the store, nobody tells the names but their file.
    let unknown = || {
        Err(Failure::not_found(format!(
            "{} has no names",
            dir.display()
        )))
    };
    let target = args.target.map(|place| match place.base {
        Base::Key(key) => Ok(key),
        name => Names::open(&dir, unknown)?.key(&name),
    });
    let target = target.transpose()?;
    let mut round = Round {
        globals,
        output,
        done: 0,
        failed: Vec::new(),
    };
    round.run(&dir, target).await?;
    round.verdict()
}

impl Round<'_> {
    async fn run(&mut self, dir: &Path, target: Option<Key>) -> Result<()> {
        self.tell(machine::clock()).await?;
        self.tell(machine::disk(dir)).await?;
        if !self.globals.no_lan {
            let networks = Networks::new(Include::default());
            self.tell(machine::interfaces(&networks)).await?;
            if !networks.is_empty() {
                self.tell(machine::multicast(&networks).await).await?;
            }
        }
        if !self.globals.no_dht && !self.globals.lan_only {
            self.tell(machine::udp(self.globals).await).await?;
            self.check_dht().await?;
        }
        if let Some(key) = target {
            self.tell(serving::check(self.globals, &key).await?).await?;
        }
        Ok(())
    }

    async fn tell(&mut self, check: Check) -> Result<()> {
        self.done += 1;
        if !check.ok {
            self.failed.push(check.name);
        }
        self.output.list(&check).await
    }

    fn verdict(self) -> Result<()> {
        let kind = match self.failed.as_slice() {
            [] => return Ok(()),
            [serving::NAME] => Kind::NoPeer,
            _ => Kind::Other,
        };
        let (failed, checks) = (self.failed.join(", "), count(self.done, "check"));
        let message = format!("{} of {checks} failed: {failed}", self.failed.len());
        Err(Failure::new(kind, message).hint("each says above what to do"))
    }
}
