//! What may be expected of the peer: the length it can bring the core to, the head it says to have.
//!
//! Knows forks and lengths. Does not know blocks.

use std::cmp::Ordering;

use ferrocore_log::Core;
use ferrocore_log::core::RemoteHead;

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
        let length = core.length();
        // Until it acknowledges our length, what it says of upgrades is about an older one.
        let may_upgrade = peer.sync.can_upgrade || peer.sync.remote_length != length;
        let reachable = if may_upgrade {
            peer.sync.length
        } else {
            length
        };
        core.supply().settle(supplier.id, reachable);
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
        if std::mem::replace(&mut self.forks, forks) == forks {
            return;
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
