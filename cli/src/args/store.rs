//! The commands of the store as a whole.

use clap::Args;
use clap_complete::Shell;

use crate::target::Place;

/// Show what is in the store, how complete it is, and who is connected
///
/// Run it while another command holds the store, such as `share`: it tells of its connections, of its topics, and
/// what was tried with peers that are not connected. With --json, a `core` event for each log, a `peer` event for each
/// connection, a `topic` event for each topic and a `dial` event for each of those peers.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore status --watch")]
pub(crate) struct Status {
    /// Again every second, until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
}

/// Show what drives and logs take on the disk
///
/// With --json, a `usage` event for each log, and an `unreadable` event for each that is damaged: exit code 8 then.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore du")]
pub(crate) struct Du {
    /// Only this drive or log
    pub(crate) target: Option<Place>,
}

/// Delete a drive or log from this store for good
///
/// Its secret key and its encryption key go with it, if they are kept here: `fcore key export` it before if you may want to
/// write or read what peers keep. One made later under the same name has the same key, so choose another.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  fcore purge photos")]
pub(crate) struct Purge {
    /// The drive or log; a damaged log also by its discovery key
    pub(crate) target: Place,
}

/// Print a completion script
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  fcore completions bash > ~/.local/share/bash-completion/completions/fcore"
)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}
