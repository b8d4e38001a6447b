//! What we tell a peer about a core without being asked: our state and our blocks.
//!
//! Knows when something is worth a message. Does not know requests.

use std::ops::Range;

use ferrocore_log::Core;

use crate::limits::LAST_BLOCKS;
use crate::messages::{self, Message, Sync, Want};
use crate::peer::Peer;
use crate::uploads::{self, Told};
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
    /// No block from here on was ever said to be here; or it was taken back since.
    blocks_told: u64,
    /// The peer takes all blocks before this one to be here, and may know nothing else of them.
    contiguous_told: u64,
}

impl Announcer {
    /// Tells a peer that just opened the channel everything.
    pub(crate) fn introduce(&mut self, core: &Core, peer: &Peer, wire: &mut Wire<'_>) {
        self.sync(core, peer, wire);
        let (length, contiguous) = (core.length(), core.contiguous_length());
        if contiguous > 0 {
            self.send_have(0..contiguous, wire);
        }
        if contiguous == length {
            self.complete_told = length;
        }
    }

    /// Tells a peer that we have come to another fork, unless it knows. Until it does, it goes on
    /// asking for the old one. True if it was news: then what it asked about is to be told again.
    ///
    /// What it believes to be here is taken back first. A JavaScript peer keeps what it knows of our blocks
    /// over a fork, asks for them all at once, and turns away from us for good after 32 refusals
    /// (`hypercore/lib/replicator.js` 11.37.1, `_onnodata`).
    pub(crate) fn move_on(&mut self, core: &Core, peer: &Peer, wire: &mut Wire<'_>) -> bool {
        let is_news = self.fork_told != Some(core.fork());
        if is_news {
            self.take_back(core, wire);
            self.introduce(core, peer, wire);
        }
        is_news
    }

    /// Takes back whatever was said of blocks that may not be here any more.
    pub(crate) fn take_back(&mut self, core: &Core, wire: &mut Wire<'_>) {
        let from = core.contiguous_length();
        self.have_not(core, from..self.blocks_told, wire);
        self.blocks_told = self.blocks_told.min(from);
    }

    /// Whether the peer may believe a block to be here.
    pub(crate) fn may_have_told(&self, index: u64) -> bool {
        index < self.blocks_told
    }

    /// Tells that `blocks` are here no more.
    pub(crate) fn have_not(&mut self, core: &Core, blocks: Range<u64>, wire: &mut Wire<'_>) {
        self.complete_told = 0;
        if blocks.is_empty() {
            return;
        }
        let behind = blocks.end..self.contiguous_told;
        self.contiguous_told = self.contiguous_told.min(blocks.start);
        send_range(wire, true, blocks);
        // A JavaScript peer takes it that all before the cut is contiguous, and forgets what is behind it.
        for run in here(core, behind) {
            self.send_have(run, wire);
        }
    }

    /// Answers a question about blocks, and returns what of it is still to be answered.
    pub(crate) fn tell(&mut self, core: &Core, want: Want, wire: &mut Wire<'_>) -> Option<Want> {
        match uploads::tell(core, want)? {
            Told::Run(blocks) => {
                self.send_have(blocks, wire);
                None
            }
            Told::Words { words, rest } => {
                let end = words.start + 32 * words.words.len() as u64;
                self.blocks_told = self.blocks_told.max(end);
                wire.send(&Message::Bitfield(words));
                rest
            }
        }
    }

    /// Tells our state, and with it that we know the peer's: it asks for an upgrade only once it
    /// hears its own length from us.
    pub(crate) fn sync(&mut self, core: &Core, peer: &Peer, wire: &mut Wire<'_>) {
        let (fork, length) = core.fork_and_length();
        let is_same_fork = fork == peer.sync.fork;
        self.fork_told = Some(fork);
        self.push_told = core.push_mode().is_allowed();
        // What it has shown beyond our log is none that we could prove.
        let remote_length = peer.length().min(length).max(peer.sync.length);
        self.can_upgrade_told = is_same_fork && can_upgrade_from(core, remote_length);
        wire.send(&Message::Sync(Sync {
            fork,
            length,
            remote_length: if is_same_fork { remote_length } else { 0 },
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
        let is_behind = peer.sync.fork == core.fork() && peer.length() < core.length();
        if is_behind && !self.can_upgrade_told && can_upgrade_from(core, peer.length()) {
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
                self.send_have(0..length, wire);
            }
            return;
        }
        let is_recent = blocks.end + LAST_BLOCKS >= length;
        if (is_recent || peer.wants.overlap(&blocks)) && !peer.blocks.has_all(blocks.clone()) {
            for run in here(core, blocks) {
                self.send_have(run, wire);
            }
        }
    }

    fn send_have(&mut self, blocks: Range<u64>, wire: &mut Wire<'_>) {
        self.blocks_told = self.blocks_told.max(blocks.end);
        if blocks.start == 0 {
            self.contiguous_told = self.contiguous_told.max(blocks.end);
        }
        send_range(wire, false, blocks);
    }
}

/// The runs of `blocks` that are here: the log may have been cut since they came.
fn here(core: &Core, blocks: Range<u64>) -> Vec<Range<u64>> {
    core.with_bitfield(|bits| {
        let (mut runs, mut from) = (Vec::new(), blocks.start);
        while let Some(start) = bits.next_set(from).filter(|start| *start < blocks.end) {
            from = bits.next_unset(start).min(blocks.end);
            runs.push(start..from);
        }
        runs
    })
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
