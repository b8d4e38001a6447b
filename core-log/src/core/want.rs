//! Wanting blocks: what readers ask for, and the door suppliers come through.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ferrocore_primitives::time::Time;

use super::{Core, CoreError, RemoteHead};
use crate::changeset::VerifyError;
use crate::extension::ExtensionMessage;
use crate::proof::Proof;
use crate::supply::{
    Availability, Claim, Claims, Outlook, Purpose, RangeId, SeekClaim, SeekId, SeekOutlook,
    SharedAvailability, SupplierId, Tardiness, Wake,
};

impl Core {
    /// Wants all blocks of `range`, whose end may lie past the log: blocks that come to be
    /// there are wanted too. Dropping the handle takes the want back. They are fetched in order, whichever is
    /// rare (JavaScript's `download({ linear: true })`), behind single blocks that somebody waits for; of several ranges the
    /// next blocks of each come first. To keep a copy, see [`Core::download_for`].
    pub fn download(&self, range: Range<u64>) -> Download {
        self.download_for(range, Purpose::Reading)
    }

    /// Wants every block there is and will be, to keep: the rarest first, behind all that somebody reads.
    pub fn download_all(&self) -> Download {
        self.download_for(0..u64::MAX, Purpose::Keeping)
    }

    /// As [`Core::download`], in the order that suits `purpose`.
    pub fn download_for(&self, range: Range<u64>, purpose: Purpose) -> Download {
        Download {
            id: self.inner.supply.want_range(range.clone(), purpose),
            range,
            core: self.clone(),
        }
    }

    /// Says that suppliers are being looked for, so that readers wait instead of failing with
    /// [`CoreError::NoPeers`], until the guard is dropped.
    pub fn finding(&self) -> Finding {
        self.add_finder();
        Finding { core: self.clone() }
    }

    pub(crate) fn add_finder(&self) {
        self.inner.supply.add_finder();
    }

    pub(crate) fn remove_finder(&self) {
        self.inner.supply.remove_finder();
    }

    /// How many blocks suppliers are getting, for tests.
    pub(crate) fn claimed(&self) -> [usize; 4] {
        self.inner.supply.claimed()
    }

    /// The supplier's side of this core.
    pub fn supply(&self) -> Supply<'_> {
        Supply { core: self }
    }

    /// Asks suppliers where a byte is that lies below tree node `below`, about at block `guess`. False
    /// if none could tell; the tree is as it was then.
    pub(super) async fn find_byte(&self, byte: u64, below: u64, guess: u64) -> bool {
        let supply = &self.inner.supply;
        let want = SeekWant {
            core: self,
            id: supply.want_seek(byte, self.padding() as u64, below, guess),
        };
        loop {
            let progress = supply.listen();
            match supply.seek_outlook(want.id) {
                SeekOutlook::Answered => return true,
                SeekOutlook::Hopeless => return false,
                SeekOutlook::Pending => progress.await,
            }
        }
    }

    pub(super) fn want_block(&self, index: u64) -> BlockWant<'_> {
        self.inner.supply.want_block(index);
        BlockWant { core: self, index }
    }
}

/// A wanted range; dropped, it is wanted no more.
#[derive(Debug)]
pub struct Download {
    core: Core,
    id: RangeId,
    range: Range<u64>,
}

/// How far a download has come, measured against the log as long as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Blocks of the range that the log has.
    pub total: u64,
    /// Those of them that are here.
    pub have: u64,
    /// Whether some peer has every block that is missing: then one is enough to end it.
    pub some_peer_has_all: bool,
}

impl Progress {
    /// Whether everything is here, whoever else has it.
    pub fn is_complete(&self) -> bool {
        self.have == self.total
    }
}

impl Download {
    /// Asks for nothing more until it is [resumed](Self::resume). What was asked for still comes.
    pub fn pause(&self) {
        self.core.inner.supply.set_paused(self.id, true);
    }

    /// Goes on after a pause.
    pub fn resume(&self) {
        self.core.inner.supply.set_paused(self.id, false);
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.core.inner.supply.is_paused(self.id)
    }

    /// How far it has come. The total of a range that ends within the log does not change; one that ends
    /// past it grows with the log.
    pub fn progress(&self) -> Progress {
        let end = self.range.end.min(self.core.length());
        let range = self.range.start.min(end)..end;
        let have = self.core.count(range.clone());
        let missing = self.missing_from().min(end)..end;
        Progress {
            total: range.end - range.start,
            have,
            some_peer_has_all: self.core.inner.supply.some_has_all(&missing),
        }
    }

    /// Waits until every block of the range is here. A range that ends past the log waits for
    /// the log to reach its end.
    ///
    /// # Errors
    /// [`CoreError::NoPeers`] when nobody is left to ask; [`CoreError::Conflict`] if the log is frozen and does
    /// not reach that far.
    pub async fn done(&self) -> Result<(), CoreError> {
        self.reach(self.range.end).await
    }

    /// Waits until every block of the range is here that the log has at that moment.
    ///
    /// # Errors
    /// As for [`Download::done`].
    pub async fn caught_up(&self) -> Result<(), CoreError> {
        self.core.update().await?;
        self.reach(self.range.end.min(self.core.length())).await
    }

    async fn reach(&self, end: u64) -> Result<(), CoreError> {
        let inner = &*self.core.inner;
        loop {
            let progress = inner.supply.listen();
            let missing = self.missing_from();
            if missing >= end {
                return Ok(());
            }
            if missing >= self.core.length() {
                inner.check_not_frozen()?;
            }
            if inner.supply.is_hopeless() {
                return Err(CoreError::NoPeers {
                    core: inner.key,
                    index: missing,
                });
            }
            progress.await;
        }
    }

    fn missing_from(&self) -> u64 {
        let inner = &*self.core.inner;
        let missing = inner.supply.missing_from(self.id, &inner.bits());
        missing.unwrap_or(self.range.end)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.core.inner.supply.unwant_range(self.id);
    }
}

/// A guard under which readers wait for suppliers to be found.
#[derive(Debug)]
pub struct Finding {
    core: Core,
}

impl Drop for Finding {
    fn drop(&mut self) {
        self.core.remove_finder();
    }
}

pub(super) struct BlockWant<'a> {
    core: &'a Core,
    index: u64,
}

impl Drop for BlockWant<'_> {
    fn drop(&mut self) {
        self.core.inner.supply.unwant_block(self.index);
    }
}

struct SeekWant<'a> {
    core: &'a Core,
    id: SeekId,
}

impl Drop for SeekWant<'_> {
    fn drop(&mut self) {
        self.core.inner.supply.unwant_seek(self.id);
    }
}

/// What a supplier does with a core, besides [`Core::accept`].
#[derive(Debug, Clone, Copy)]
pub struct Supply<'a> {
    core: &'a Core,
}

impl Supply<'_> {
    /// Becomes a supplier. `wake` is called when there may be something to claim or announce;
    /// it must not block nor call back into the core.
    pub fn attach(&self, wake: Wake) -> SupplierId {
        self.core.inner.supply.attach(wake)
    }

    /// Leaves; what was claimed may be claimed by others.
    pub fn detach(&self, id: SupplierId) {
        self.core.inner.extensions.remove_carrier(id);
        self.core.inner.pushes.remove_carrier(id);
        self.core.inner.supply.detach(id);
        self.core.inner.forget(id);
    }

    /// Says that the supplier carries messages of extensions. It is woken when there is one to send.
    pub fn carry_extensions(&self, id: SupplierId) {
        self.core.inner.extensions.add_carrier(id);
    }

    /// Says that the supplier takes blocks to be sent unasked. It is woken when there is one.
    pub fn carry_pushes(&self, id: SupplierId) {
        self.core.inner.pushes.add_carrier(id);
    }

    /// Takes the next block to send to the supplier unasked.
    pub fn next_push(&self, id: SupplierId) -> Option<u64> {
        self.core.inner.pushes.next_for(id)
    }

    /// Gives back what was taken last, because there is no room for it yet.
    pub fn put_back_push(&self, id: SupplierId, index: u64) {
        self.core.inner.pushes.put_back(id, index);
    }

    /// Whether there is a block to send to the supplier unasked.
    pub fn has_push(&self, id: SupplierId) -> bool {
        self.core.inner.pushes.is_waiting_for(id)
    }

    /// Takes the next message to send to the supplier.
    pub fn next_extension(&self, id: SupplierId) -> Option<ExtensionMessage> {
        self.core.inner.extensions.next_for(id)
    }

    /// Whether there is a message to send to the supplier.
    pub fn has_extension(&self, id: SupplierId) -> bool {
        self.core.inner.extensions.is_waiting_for(id)
    }

    /// Hands in a message that came from the supplier. One that nobody registered for is dropped.
    pub fn extension_arrived(&self, id: SupplierId, name: &str, message: &Bytes) {
        self.core.inner.extensions.arrived(id, name, message);
    }

    /// Takes on up to `max` wanted blocks below the core's length that are not here, that
    /// nobody else has claimed, and that `remote` has.
    pub fn claim(&self, id: SupplierId, remote: &dyn Availability, max: usize) -> Vec<Claim> {
        self.claim_as(id, remote, max, false).taken
    }

    /// As [`claim`](Self::claim), but leaves single blocks that somebody waits for to suppliers that are
    /// [expected](Self::expect) to answer in less than half the time.
    pub fn claim_patiently(&self, id: SupplierId, remote: &dyn Availability, max: usize) -> Claims {
        self.claim_as(id, remote, max, true)
    }

    fn claim_as(
        &self,
        id: SupplierId,
        remote: &dyn Availability,
        max: usize,
        is_patient: bool,
    ) -> Claims {
        let inner = &*self.core.inner;
        let (bits, length) = {
            let shared = inner.read();
            (Arc::clone(&shared.bitfield), shared.roots.length())
        };
        inner
            .supply
            .claim(id, &bits, length, remote, max, is_patient)
    }

    /// Says whether the supplier is woken for blocks that have come while others are missing, as it is at first. Whoever has
    /// all of them itself, and waits for none of them, has nothing to do then: of many suppliers each would be woken for what
    /// any of them brings.
    pub fn heed_blocks(&self, id: SupplierId, heeds: bool) {
        self.core.inner.supply.heed_blocks(id, heeds);
    }

    /// Says how soon the supplier will answer, if that is known.
    pub fn expect(&self, id: SupplierId, outlook: Option<Outlook>) {
        self.core.inner.supply.expect(id, outlook);
    }

    /// Lets others look at what the supplier has: copies take the rarest blocks first, and progress tells
    /// whether one peer has all. It is asked while claims are made, so it must not call back into the core.
    pub fn share(&self, id: SupplierId, has: SharedAvailability) {
        self.core.inner.supply.share(id, has);
    }

    /// Says that the supplier can be asked where a byte is.
    pub fn answer_seeks(&self, id: SupplierId) {
        self.core.inner.supply.answer_seeks(id);
    }

    /// Takes on to find a byte. The proof of it is handed in like any other, and then
    /// [`seek_answered`](Self::seek_answered) is called.
    pub fn claim_seek(&self, id: SupplierId) -> Option<SeekClaim> {
        self.core.inner.supply.claim_seek(id)
    }

    /// Says that the tree nodes around a byte have been committed.
    pub fn seek_answered(&self, seek: SeekId) {
        self.core.inner.supply.seek_answered(seek);
    }

    /// Gives back a byte that the supplier cannot find.
    pub fn refuse_seek(&self, id: SupplierId, seek: SeekId) {
        self.core.inner.supply.refuse_seek(id, seek);
    }

    /// Gives back a byte that the supplier may be able to find, but does not know yet: others may claim it, and
    /// it may itself after [`reconsider_seek`](Self::reconsider_seek). Whoever seeks waits for that, so
    /// it is [refused](Self::refuse_seek) if nothing comes of it.
    pub fn postpone_seek(&self, id: SupplierId, seek: SeekId) {
        self.core.inner.supply.postpone_seek(id, seek);
    }

    /// Says that the supplier may claim a byte again that it had postponed.
    pub fn reconsider_seek(&self, id: SupplierId, seek: SeekId) {
        self.core.inner.supply.reconsider_seek(id, seek);
    }

    /// Whether a byte is still sought.
    pub fn is_sought(&self, seek: SeekId) -> bool {
        self.core.inner.supply.is_sought(seek)
    }

    /// The claimed blocks, in order, that nobody wants any more: whoever waited for them is gone. The supplier is woken
    /// when there is one. It may [release](Self::release) them, or deliver them nevertheless.
    pub fn unwanted(&self, id: SupplierId) -> Vec<u64> {
        self.core.inner.supply.unwanted(id)
    }

    /// Gives back a claimed block that will not be delivered.
    pub fn release(&self, id: SupplierId, index: u64) {
        self.core.inner.supply.release(id, index);
    }

    /// Gives back a claimed block that was waited for in vain. If the supplier claims it again that keeps nobody else from it.
    pub fn fail(&self, id: SupplierId, index: u64) {
        self.core.inner.supply.fail(id, index);
    }

    /// Says that a claimed block takes long. Another supplier that has nothing better to do may
    /// claim it too; look now and then whether it has come from there.
    pub fn late(&self, id: SupplierId, index: u64) {
        self.core.inner.supply.late(id, index);
    }

    /// Says that a claimed block takes so long that the claim is to keep nobody else from trying, however many others are late.
    pub fn discount(&self, id: SupplierId, index: u64) {
        self.core.inner.supply.discount(id, index);
    }

    /// Says that more can be delivered at or past block `from` than when it was last claimed.
    pub fn available(&self, id: SupplierId, from: u64) {
        self.core.inner.supply.available(id, from);
    }

    /// Says how long the supplier's log is (of this fork); lets [`Core::update`] end.
    pub fn settle(&self, id: SupplierId, remote_length: u64) {
        self.core.inner.supply.settle(id, remote_length);
    }

    /// Whether somebody waits in [`Core::update`]: suppliers are woken when that begins.
    pub fn is_updating(&self) -> bool {
        self.core.inner.supply.is_updating()
    }

    /// Says what time it is while somebody [waits](Self::is_updating) in [`Core::update`], and returns when to say so again, at
    /// the latest: no update takes longer than [`UPDATE_TOTAL_ALONE_MAX`](crate::limits::UPDATE_TOTAL_ALONE_MAX), however
    /// many suppliers come and go meanwhile. All suppliers of a core go by the same clock.
    pub fn look_at_updates(&self, now: Time) -> Option<Time> {
        self.core.inner.supply.look_at_updates(now)
    }

    /// Says how long the supplier has owed its length, or what it says to have; until something else is said.
    /// Bounds how long [`Core::update`] waits for it.
    pub fn set_tardiness(&self, id: SupplierId, tardiness: Tardiness) {
        self.core.inner.supply.set_tardiness(id, tardiness);
    }

    /// Says which head the supplier says to have, whenever it does. What is more than ours must be
    /// something that it will be asked to prove: a core that is written here is not appended to until it
    /// is proven, [doubted](Self::doubt), or too many such claims came to nothing.
    pub fn hear(&self, id: SupplierId, head: RemoteHead) {
        self.core.inner.hear(id, head);
    }

    /// Says that the supplier cannot, or would not, prove the head that it says to have.
    pub fn doubt(&self, id: SupplierId) {
        self.core.inner.doubt(id);
    }

    /// How many blocks the supplier is to be asked to prove from the start, if the core is guarded and
    /// the supplier says to have no more than we do: what it answers is to be
    /// [shown](Self::show_head). Told once for each head that it says to have.
    pub fn unproven_head(&self, id: SupplierId) -> Option<u64> {
        self.core.inner.unproven_head(id)
    }

    /// Hands in the proof of an upgrade from nothing. If its signed tree is the beginning of ours, or all of it, and as
    /// long as the supplier says to be, its head is proven, and a guarded core may be written; returns whether it is.
    /// Nothing is stored.
    ///
    /// # Errors
    /// [`VerifyError`] if it holds no signed tree; [`VerifyError::Storage`] if ours could not be read.
    pub fn show_head(&self, id: SupplierId, proof: &Proof) -> Result<bool, VerifyError> {
        self.core.inner.show_head(id, proof)
    }

    /// Says that the supplier can deliver nothing for now. It is woken as before, but what it
    /// claimed is free and nobody waits for it until it [resumes](Self::resume) or
    /// [settles](Self::settle).
    pub fn pause(&self, id: SupplierId) {
        self.core.inner.supply.pause(id);
    }

    /// Says that the supplier will come to say how long its log is.
    pub fn resume(&self, id: SupplierId) {
        self.core.inner.supply.resume(id);
    }

    /// Whether anything is wanted.
    pub fn is_wanting(&self) -> bool {
        self.core.inner.supply.is_wanting()
    }

    /// How many suppliers are attached and not paused.
    pub fn suppliers(&self) -> usize {
        self.core.inner.supply.suppliers()
    }

    /// The greatest length any supplier has said to have.
    pub fn remote_length(&self) -> Option<u64> {
        self.core.inner.supply.remote_length()
    }
}
