//! What a power cut leaves of a disk: everything synced, and anything of the rest.

use std::ops::Range;

use super::rng::Rng;
use super::{Change, Contents, What, apply};

/// A state that was acknowledged.
pub(crate) trait Acknowledged {
    /// How many changes there were by then.
    fn at(&self) -> usize;

    /// Whether no power cut takes its head back, however little was asked for.
    fn is_durable(&self) -> bool {
        false
    }
}

/// Which states may be found when `at` changes were made: with `strict` the last one that was acknowledged, else
/// any since the last durable one; and those that were under way.
pub(crate) fn candidates<M: Acknowledged>(marks: &[M], at: usize, strict: bool) -> &[M] {
    let acknowledged = marks.iter().rposition(|mark| mark.at() <= at).unwrap();
    let durable = marks[..=acknowledged].iter().rposition(M::is_durable);
    let first = if strict {
        acknowledged
    } else {
        durable.unwrap_or(0)
    };
    let next = marks.get(acknowledged + 1).map_or(at, M::at);
    let under_way = marks.iter().take_while(|mark| mark.at() <= next).count();
    &marks[first..under_way]
}

/// Makes `changes` to files that are `start`. At each, `moment` is told what a sync has covered by then and how
/// many changes there were, and what may become of the rest: amid a write, and after it.
pub(crate) fn each_moment(
    start: &Contents,
    changes: &[Change],
    seed: u64,
    moment: impl FnMut(&Device, usize, &[Loss]),
) {
    go_by(Device::new(start.clone()), changes, seed, moment);
}

fn go_by(
    mut device: Device,
    changes: &[Change],
    seed: u64,
    mut moment: impl FnMut(&Device, usize, &[Loss]),
) {
    let mut rng = Rng::new(seed);
    moment(&device, 0, &losses(device.pending(), &mut rng));
    for (at, change) in changes.iter().enumerate() {
        device.advance(change);
        if matches!(change.what, What::Write { .. }) {
            // A kill amid the write: nothing that it brings was acknowledged.
            moment(&device, at, &[1, 512, 4096].map(Loss::LastTorn));
        }
        moment(&device, at + 1, &losses(device.pending(), &mut rng));
    }
}

/// What happened to some files, and what was acknowledged of it.
pub(crate) struct History<M> {
    start: Device,
    pub(crate) changes: Vec<Change>,
    pub(crate) marks: Vec<M>,
    /// If a kill left `start`: what a power cut could have left instead of the first mark.
    hidden: Vec<M>,
    /// It still may, until so many changes were made: by then somebody was shown the first mark.
    pub(crate) shown: usize,
}

impl<M: Acknowledged + Clone> History<M> {
    /// One of files that were synced.
    pub(crate) fn new(start: Contents, changes: Vec<Change>, marks: Vec<M>) -> Self {
        Self {
            start: Device::new(start),
            changes,
            marks,
            hidden: Vec::new(),
            shown: 0,
        }
    }

    /// One that goes on from what a crash left, the first mark of which was shown after so many changes.
    pub(crate) fn after(
        crash: Crash<M>,
        shown: usize,
        changes: Vec<Change>,
        marks: Vec<M>,
    ) -> Self {
        Self {
            start: crash.device,
            changes,
            marks,
            hidden: crash.hidden,
            shown,
        }
    }

    /// The files it begins with, as the system has them.
    pub(crate) fn start(&self) -> Contents {
        self.start.contents()
    }

    /// Which states may be found when `at` changes were made, as [`candidates`] says; after a power cut, also what was hidden
    /// from it if nobody was shown more, or, without `strict`, as long as nothing is durable.
    pub(crate) fn candidates(&self, at: usize, loss: Loss, strict: bool) -> Vec<&M> {
        let mut known = self.marks.iter().take_while(|mark| mark.at() <= at);
        let is_settled = match strict {
            _ if loss.is_kill() => true,
            true => at >= self.shown,
            false => known.any(M::is_durable),
        };
        let hidden = self.hidden.iter().filter(|_| !is_settled);
        hidden.chain(candidates(&self.marks, at, strict)).collect()
    }

    /// Makes the changes, as [`each_moment`] does.
    pub(crate) fn each_moment(&self, seed: u64, moment: impl FnMut(&Device, usize, &[Loss])) {
        go_by(self.start.clone(), &self.changes, seed, moment);
    }

    /// The crash of that loss, when `at` changes were made. A power cut would have been as `strict` as this says.
    pub(crate) fn crash(
        &self,
        device: &Device,
        (at, loss): (usize, Loss),
        strict: bool,
        rng: &mut Rng,
    ) -> Crash<M> {
        let hidden = match loss.is_kill() {
            true => self.candidates(at, Loss::Everything, strict),
            false => Vec::new(),
        };
        Crash {
            device: device.left(loss, rng),
            hidden: hidden.into_iter().cloned().collect(),
        }
    }
}

/// What a crash left.
pub(crate) struct Crash<M> {
    device: Device,
    /// After a kill: what a power cut could have left.
    hidden: Vec<M>,
}

impl<M> Crash<M> {
    /// Whether some of what is in `file` is not on the device.
    pub(crate) fn is_unsynced(&self, file: &str) -> bool {
        let mut pending = self.device.pending.iter();
        pending.any(|change| change.file == file)
    }

    /// The files as who comes next finds them.
    pub(crate) fn contents(&self) -> Contents {
        self.device.contents()
    }
}

/// What becomes of the changes that no sync has covered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Loss {
    /// They are lost.
    Everything,
    /// They survive: what a kill of the process leaves.
    Nothing,
    /// The first so many survive.
    Behind(usize),
    /// Each may survive or not.
    Random,
    /// One write survives in parts of so many bytes.
    Torn(usize),
    /// They survive, but the last, a write, in parts of so many bytes: a kill amid it.
    LastTorn(usize),
    /// What changes a file's length is lost.
    Resizes,
    /// Only what changes a file's length survives.
    AllButResizes,
}

impl Loss {
    /// Whether it is what a kill of the process leaves.
    pub(crate) fn is_kill(self) -> bool {
        matches!(self, Self::Nothing | Self::LastTorn(_))
    }
}

/// More prefixes than this are not all tried at each cut.
const PREFIXES_MAX: usize = 16;

/// What may become of so many changes that no sync has covered.
pub(crate) fn losses(pending: usize, rng: &mut Rng) -> Vec<Loss> {
    let mut losses = vec![Loss::Nothing];
    if pending > 0 {
        losses.extend([Loss::Everything, Loss::Random, Loss::Random]);
        losses.extend([1, 512, 4096].map(Loss::Torn));
        losses.extend([Loss::Resizes, Loss::AllButResizes]);
    }
    if pending <= PREFIXES_MAX {
        losses.extend((1..pending).map(Loss::Behind));
    } else {
        // Most of the shorter ones were there at earlier changes.
        losses.extend((pending - PREFIXES_MAX / 2..pending).map(Loss::Behind));
        let shorter = |_| Loss::Behind(1 + rng.below(pending - 1));
        losses.extend((0..PREFIXES_MAX / 2).map(shorter));
    }
    losses
}

/// Says where a cut was that panics.
pub(crate) struct Scene(pub(crate) String);

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

/// A disk as its syncs go by.
#[derive(Clone)]
pub(crate) struct Device {
    /// What the syncs have covered.
    synced: Contents,
    /// What they have not, in order.
    pending: Vec<Change>,
}

impl Device {
    pub(crate) fn new(start: Contents) -> Self {
        Self {
            synced: start,
            pending: Vec::new(),
        }
    }

    pub(crate) fn advance(&mut self, change: &Change) {
        if !matches!(change.what, What::Sync) {
            self.pending.push(change.clone());
        }
        // What rots does so on the device: what is pending there has come to it.
        if !matches!(change.what, What::Sync | What::Rot { .. }) {
            return;
        }
        let covered = self
            .pending
            .extract_if(.., |pending| pending.file == change.file);
        covered.for_each(|change| apply(&mut self.synced, &change));
    }

    /// How many changes no sync has covered.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The same after a crash now. After a kill, what no sync has covered is with the system, and still not on the device.
    pub(crate) fn left(&self, loss: Loss, rng: &mut Rng) -> Self {
        let (synced, pending) = (self.synced.clone(), self.survivors(loss, rng));
        let left = Self { synced, pending };
        match loss.is_kill() {
            true => left,
            false => Self::new(left.contents()),
        }
    }

    /// The files as the system has them.
    pub(crate) fn contents(&self) -> Contents {
        let mut files = self.synced.clone();
        let pending = self.pending.iter();
        pending.for_each(|change| apply(&mut files, change));
        files
    }

    /// The files after a crash now.
    pub(crate) fn after(&self, loss: Loss, rng: &mut Rng) -> Contents {
        self.left(loss, rng).contents()
    }

    fn survivors(&self, loss: Loss, rng: &mut Rng) -> Vec<Change> {
        let is_resize = |change: &Change| matches!(change.what, What::SetLen(_));
        let those = |keep: &mut dyn FnMut(&Change) -> bool| {
            let kept = self.pending.iter().filter(|change| keep(change));
            kept.cloned().collect()
        };
        match loss {
            Loss::Everything => Vec::new(),
            Loss::Nothing => self.pending.clone(),
            Loss::Behind(count) => self.pending.iter().take(count).cloned().collect(),
            Loss::Random => those(&mut |_| rng.one_in(2)),
            Loss::Resizes => those(&mut |change| !is_resize(change)),
            Loss::AllButResizes => those(&mut is_resize.clone()),
            Loss::Torn(unit) if self.pending.is_empty() => self.torn(0, unit, rng),
            Loss::Torn(unit) => self.torn(rng.below(self.pending.len()), unit, rng),
            Loss::LastTorn(unit) => self.torn(self.pending.len().saturating_sub(1), unit, rng),
        }
    }

    /// All changes, of which the `torn`-th, if it is a write, is in parts.
    fn torn(&self, torn: usize, unit: usize, rng: &mut Rng) -> Vec<Change> {
        let mut changes = Vec::new();
        for (number, change) in self.pending.iter().enumerate() {
            match &change.what {
                What::Write { offset, bytes } if number == torn => {
                    let kept = kept_parts(*offset, bytes.len(), unit, rng);
                    changes.extend(kept.into_iter().map(|part| Change {
                        file: change.file,
                        what: What::Write {
                            offset: offset + part.start as u64,
                            bytes: bytes[part].into(),
                        },
                    }));
                }
                _ => changes.push(change.clone()),
            }
        }
        changes
    }
}

/// Some of the parts, of `unit` bytes in the file, of a write. Bytes are kept up to one of them.
pub(crate) fn kept_parts(offset: u64, len: usize, unit: usize, rng: &mut Rng) -> Vec<Range<usize>> {
    if unit == 1 {
        return std::iter::once(0..rng.below(len + 1)).collect();
    }
    let mut parts = Vec::new();
    let mut start = 0;
    while start < len {
        let within = (offset as usize + start) % unit;
        let end = len.min(start + unit - within);
        parts.push(start..end);
        start = end;
    }
    parts.retain(|_| rng.one_in(2));
    parts
}
