//! Noticing that something below a folder changes.
//! Knows the system's notifications. Does not know what changed: whoever asks looks for himself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

/// How long nothing must happen before a change is told: programs write files in pieces.
const QUIET: Duration = Duration::from_millis(100);

/// A change is told after so long even if more keeps happening.
const QUIET_MAX: Duration = Duration::from_secs(2);

/// How often a folder is looked at that the system cannot watch.
const POLL: Duration = Duration::from_secs(2);

/// A folder that is being watched.
pub(super) struct Watch {
    changed: Arc<Notify>,
    /// Notifies as long as it lives; without one, the folder is looked at every so often.
    watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Watches `folder` from now on, but for what lies in `exclude`.
    pub(super) fn new(folder: &Path, exclude: PathBuf) -> Self {
        let changed = Arc::new(Notify::new());
        let watcher = start(folder, exclude, Arc::clone(&changed));
        if let Err(error) = &watcher {
            tracing::warn!(folder = %folder.display(), %error, "the system cannot watch the folder");
        }
        let watcher = watcher.ok();
        Self { changed, watcher }
    }

    /// Waits for a change, and then until it seems to be over.
    pub(super) async fn changed(&self) {
        if self.watcher.is_none() {
            return sleep(POLL).await;
        }
        self.changed.notified().await;
        let latest = Instant::now() + QUIET_MAX;
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            let more = timeout_at(quiet, self.changed.notified()).await;
            if more.is_err() || quiet == latest {
                return;
            }
        }
    }

    /// Lets the next wait end in a while even if nothing is noticed: a folder that was just made
    /// is watched a moment after its first files are written.
    pub(super) fn look_again(&self) {
        self.changed.notify_one();
    }
}

fn start(
    folder: &Path,
    exclude: PathBuf,
    changed: Arc<Notify>,
) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Lost notifications are errors: then anything may have changed.
        if event.is_ok_and(|event| !matters(&event, &exclude)) {
            return;
        }
        changed.notify_one();
    })?;
    watcher.watch(folder, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// Reading is no change, or an import would follow itself for ever.
fn matters(event: &notify::Event, exclude: &Path) -> bool {
    let is_change = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    };
    let is_outside = |path: &PathBuf| !path.starts_with(exclude);
    is_change && (event.paths.is_empty() || event.paths.iter().any(is_outside))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn soon(wait: impl Future<Output = ()>) {
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .expect("it comes soon");
    }

    #[tokio::test]
    async fn changes_are_noticed_deep_down_and_reads_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        let watch = Watch::new(folder.path(), PathBuf::from("/nowhere"));
        std::fs::write(deep.join("file"), "x").unwrap();
        soon(watch.changed()).await;
        std::fs::read(deep.join("file")).unwrap();
        std::fs::remove_file(deep.join("file")).unwrap();
        soon(watch.changed()).await;
    }

    #[test]
    fn what_is_excluded_does_not_matter() {
        let event = |path: &str| notify::Event::new(EventKind::Any).add_path(path.into());
        assert!(matters(&event("/a/b"), Path::new("/a/store")));
        assert!(!matters(&event("/a/store/x"), Path::new("/a/store")));
        let read = EventKind::Access(AccessKind::Open(AccessMode::Read));
        assert!(!matters(&notify::Event::new(read), Path::new("/a/store")));
    }
}
