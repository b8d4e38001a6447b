//! What we tell a peer about a core without being asked: our state and our blocks.
//!
//! Knows when something is worth a message. Does not know requests.

use std::ops::Range;

use ferrocore_log::Core;

use crate::limits::LAST_BLOCKS;
use crate::messages::{self, Message, Sync};
use crate::peer::Peer;
use crate::wire::Wire;

/// What one peer was told.
#[derive(Debug, Default)]
pub(crate) struct Announcer {
    /// The contiguous length it was told when that was the whole log.
    complete_told: u64,
    /// Whether it was told that we can prove an upgrade from its length.
    can_upgrade_told: bool,
    /// Whether it was told that we take what we did not ask for.
    push_told: bool,
    /// The fork it was told that we are on.
    fork_told: Option<u64>,
}

impl Announcer {
    /// Tells a peer that just opened the channel everything.
    pub(crate) fn introduce(&mut self, core: &Core, peer: &Peer, wire: &mut Wire<'_>) {
        self.sync(core, peer, wire);
        let (length, contiguous) = (core.length(), core.contiguous_length());
        if contiguous > 0 {
            send_range(wire, false, 0..contiguous);
        }
        if contiguous == length {
            self.complete_told = length;
        }
    }

    /// Tells a peer that we have come to another fork, unless it knows. Until it does, it goes on
    /// asking for the old one.
    pub(crate) fn move_on(&mut self, core: &Core, peer: &Peer, wire: &mut Wire<'_>) {
        if self.fork_told != Some(core.fork()) {
            self.introduce(core, peer, wire);
        }
    }

    /// Tells that `blocks` are here no more.
    pub(crate) fn have_not(&mut self, blocks: Range<u64>, wire: &mut Wire<'_>) {
        self.complete_told = 0;
        if !blocks.is_empty() {
            send_range(wire, true, blocks);
        }
    }

    /// Tells our state, and with it that we know the peer's: it asks for an upgrade only once it
    /// hears its own length from us.
    pub(crate) fn sync(&mut self, core: &Core, peer: &Peer, wire: &mut Wire<'_>) {
        let fork = core.fork();
        let is_same_fork = fork == peer.sync.fork;
        self.fork_told = Some(fork);
        self.push_told = core.push_mode().is_allowed();
        self.can_upgrade_told = is_same_fork && can_upgrade_from(core, peer.sync.length);
        wire.send(&Message::Sync(Sync {
            fork,
            length: core.length(),
            remote_length: if is_same_fork { peer.sync.length } else { 0 },
            can_upgrade: self.can_upgrade_told,
            uploading: true,
            // Always true: we follow every core as it grows, and a peer may close a channel
            // whose other side wants nothing.
            downloading: true,
            has_manifest: core.manifest().is_some() && !core.is_compat(),
            allow_push: self.push_told,
        }));
    }

    /// Tells our state if we have begun, or ceased, to take what we did not ask for.
    pub(crate) fn sync_if_push_changed(&mut self, core: &Core, peer: &Peer, wire: &mut Wire<'_>) {
        if self.fork_told.is_some() && core.push_mode().is_allowed() != self.push_told {
            self.sync(core, peer, wire);
        }
    }

    /// Tells our state if nodes that came meanwhile let us prove what we could not before.
    pub(crate) fn sync_if_upgradable(&mut self, core: &Core, peer: &Peer, wire: &mut Wire<'_>) {
        let is_behind = peer.sync.fork == core.fork() && peer.sync.length < core.length();
        if is_behind && !self.can_upgrade_told && can_upgrade_from(core, peer.sync.length) {
            self.sync(core, peer, wire);
        }
    }

    /// Tells that `blocks` are here now, if the peer cares: all of them once the log is complete,
    /// else those near its end and those that it asked about.
    pub(crate) fn have(
        &mut self,
        core: &Core,
        peer: &Peer,
        blocks: Range<u64>,
        wire: &mut Wire<'_>,
    ) {
        let length = core.length();
        if core.contiguous_length() == length {
            if self.complete_told < length {
                self.complete_told = length;
                send_range(wire, false, 0..length);
            }
            return;
        }
        let is_recent = blocks.end + LAST_BLOCKS >= length;
        if (is_recent || peer.wants.overlap(&blocks)) && !peer.blocks.has_all(blocks.clone()) {
            send_range(wire, false, blocks);
        }
    }
}

fn send_range(wire: &mut Wire<'_>, drop: bool, blocks: Range<u64>) {
    wire.send(&Message::Range(messages::Range {
        drop,
        start: blocks.start,
        length: blocks.end - blocks.start,
    }));
}

/// As [`Core::can_upgrade_from`]; what cannot be read cannot be proven.
fn can_upgrade_from(core: &Core, length: u64) -> bool {
    core.can_upgrade_from(length).unwrap_or(false)
}
