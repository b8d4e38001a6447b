//! What is found of a store's directory once a history on it has come to an early end.

use std::path::Path;

use tempfile::TempDir;

use super::power::{Loss, Scene};
use super::rng::Rng;
use super::tree::TreeDevice;
use super::watched::{TreeChange, Watched};

/// A copy of a directory.
pub(crate) fn copy(directory: &Path) -> TempDir {
    let target = tempfile::tempdir().unwrap();
    let rng = &mut Rng::new(0);
    TreeDevice::new(directory).write_after(Loss::Nothing, rng, target.path());
    target
}

/// A directory that somebody changes, and what of it is on the device.
pub(crate) struct Aftermath {
    device: TreeDevice,
    known: usize,
}

impl Aftermath {
    /// Of a directory all of which is.
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            device: TreeDevice::new(directory),
            known: 0,
        }
    }

    /// Lets `look` look at what is found once the process was killed after these changes. If it `syncs`, also if the power went then,
    /// and if it went after somebody had looked at what the kill left, of which nothing is on the device that was not before.
    /// `look` says how many changes that made: what it does next is lost with the power.
    pub(crate) fn look(
        &mut self,
        changes: &[TreeChange],
        syncs: bool,
        mut look: impl FnMut(&Watched, &TempDir) -> usize,
    ) {
        for change in &changes[self.known..] {
            self.device.advance(change);
        }
        self.known = changes.len();
        let (killed, disk) = (tempfile::tempdir().unwrap(), Watched::new(None));
        let mut after_kill = self.after(Loss::Nothing, &killed);
        let shown = in_scene("killed", || look(&disk, &killed));
        if !syncs {
            return;
        }
        let cut = tempfile::tempdir().unwrap();
        self.after(Loss::Everything, &cut);
        in_scene("cut", || look(&Watched::new(None), &cut));
        for change in disk.changes().iter().take(shown) {
            after_kill.advance(change);
        }
        let both = tempfile::tempdir().unwrap();
        after_kill.write_after(Loss::Everything, &mut Rng::new(0), both.path());
        in_scene("killed, looked at and cut", || {
            look(&Watched::new(None), &both)
        });
    }

    fn after(&self, loss: Loss, target: &TempDir) -> TreeDevice {
        self.device.left(loss, &mut Rng::new(0), target.path())
    }
}

fn in_scene(what: &str, look: impl FnOnce() -> usize) -> usize {
    let _scene = Scene(what.to_owned());
    look()
}
