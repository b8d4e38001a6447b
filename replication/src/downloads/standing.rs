//! What may be expected of the peer: the length it can bring the core to, the head it says to have.
//!
//! Knows forks and lengths. Does not know blocks.

use std::cmp::Ordering;

use ferrocore_log::Core;
use ferrocore_log::core::RemoteHead;
use ferrocore_primitives::time::Time;

use super::Downloads;
use crate::following::Following;
use crate::peer::Peer;
use crate::promises::Promises;

impl Downloads {
    /// The peer's state or ours changed: says to the core which length it can be brought to. A peer
    /// that has not come to our fork yet can supply nothing, and those who wait should look elsewhere.
    pub(crate) fn judge(&mut self, core: &Core, peer: &Peer) {
        if !peer.is_synced {
            return;
        }
        self.leave_forks((core.fork(), peer.sync.fork));
        self.report_head(core, peer);
        let Some(supplier) = self.supplier.as_ref().filter(|_| self.is_of_use()) else {
            return;
        };
        if self.following.is_possible(core, peer) && peer.sync.uploading {
            return core.supply().resume(supplier.id);
        }
        if peer.sync.fork != core.fork() || !peer.sync.uploading {
            return self.pause();
        }
        core.supply().settle(supplier.id, reachable(core, peer));
    }

    /// Says to the core how long the peer has owed its length, or the longer log that it says to have.
    pub(crate) fn look_how_late(&mut self, core: &Core, peer: &Peer, now: Time) {
        let is_updating = core.supply().is_updating();
        if !is_updating && self.waits.get().is_none() {
            return; // most cores, most of the time
        }
        let is_owing = self.is_owing(core, peer);
        let is_supplier = is_updating && self.supplier.is_some();
        let waits = self.waits.need();
        waits.updates_due = match is_supplier {
            true => core.supply().look_at_updates(now),
            false => None,
        };
        let news = waits.patience.look(is_owing, is_updating, now);
        if let (Some(tardiness), Some(supplier)) = (news, &self.supplier) {
            core.supply().set_tardiness(supplier.id, tardiness);
        }
    }

    /// The peer did what it was waited for.
    pub(super) fn start_patience_over(&mut self) {
        if let Some(waits) = self.waits.get_mut() {
            waits.patience.start_over();
        }
    }

    /// Whether it is the peer that those wait for who wait for a longer log, and not our own device.
    fn is_owing(&self, core: &Core, peer: &Peer) -> bool {
        let is_asked = self.supplier.is_some() && self.is_of_use() && !self.suspicion.is_any();
        if !is_asked || self.is_upgrade_here() || self.following.is_adopting() {
            return false;
        }
        if !peer.is_synced {
            return true;
        }
        let is_on_our_fork = peer.sync.fork == core.fork();
        let is_ahead = is_on_our_fork && reachable(core, peer) > core.length();
        peer.sync.uploading && (is_ahead || self.following.is_possible(core, peer))
    }

    /// Says to the core which head the peer says to have: whoever writes the core must know. What the
    /// peer could not be asked to prove does not count.
    fn report_head(&self, core: &Core, peer: &Peer) {
        let Some(supplier) = self.supplier.as_ref().filter(|_| self.is_of_use()) else {
            return;
        };
        let sync = &peer.sync;
        let is_provable = match sync.fork.cmp(&core.fork()) {
            Ordering::Greater => self.following.is_possible(core, peer),
            Ordering::Equal => {
                let may_upgrade = sync.can_upgrade || sync.remote_length != core.length();
                may_upgrade || sync.length <= core.length()
            }
            Ordering::Less => true,
        };
        if is_provable && sync.uploading {
            let (fork, length) = (sync.fork, sync.length);
            core.supply().hear(supplier.id, RemoteHead { fork, length });
        } else {
            core.supply().doubt(supplier.id);
        }
    }

    /// Drops what was asked for and what came while we or the peer were on another fork. It is
    /// nobody's fault that it has become useless.
    fn leave_forks(&mut self, forks: (u64, u64)) {
        let before = std::mem::replace(&mut self.forks, forks);
        if before == forks {
            return;
        }
        if before.0 != forks.0 {
            // A fork is the author's, whoever brought it.
            self.start_patience_over();
        }
        self.requests.forget();
        self.promises = Promises::default();
        self.arrived.clear();
        self.committing.iter_mut().for_each(|c| c.forget());
        let committing = self.committing.as_ref();
        self.kept.retain(committing.map_or(0, |c| c.kept_bytes()));
        self.inquiries.start_over();
        self.following = Following::default();
        self.suspicion.conclude();
        // What it would not give may have been of the history that it was about to leave.
        self.is_withholding = false;
        self.pause();
    }
}

/// The length to which a peer on our fork may bring the log.
fn reachable(core: &Core, peer: &Peer) -> u64 {
    let length = core.length();
    // Until it acknowledges our length, what it says of upgrades is about an older one.
    let may_upgrade = peer.sync.can_upgrade || peer.sync.remote_length != length;
    match may_upgrade {
        true => peer.sync.length,
        false => length,
    }
}
