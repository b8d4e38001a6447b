//! Running imports and exports beside everything else: they block a thread, and report from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ferrocore::drive::Cancel;
use ferrocore::drive::mirror::{ExportError, ImportError, MirrorEvent, Op};
use tokio::sync::mpsc;

use crate::context::Context;
use crate::events::{self, Change, Skipped};
use crate::exit::{Failure, Kind, Result};

/// Most reports that wait to be written; the import or export waits when there are more.
const REPORTS_MAX: usize = 256;

/// What an import or export has dealt with so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Files and links that are in place.
    files: AtomicU64,
    /// Bytes of those.
    bytes: AtomicU64,
    /// Bytes that were read, written or equal, also of files that are not done yet.
    moved: AtomicU64,
    skipped: AtomicU64,
}

impl Tally {
    pub(super) fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Grows with everything that happens.
    pub(super) fn activity(&self) -> u64 {
        self.moved()
            .wrapping_add(self.files())
            .wrapping_add(self.skipped())
    }

    /// The failure that says so if anything was skipped.
    pub(super) fn check(&self) -> Result<()> {
        match self.skipped() {
            0 => Ok(()),
            skipped => {
                let paths = crate::output::count(skipped, "path");
                Err(Failure::new(
                    Kind::Partial,
                    format!("{paths} skipped; the rest is done"),
                ))
            }
        }
    }

    fn count(&self, event: &MirrorEvent<'_>) {
        let add = |counter: &AtomicU64, value| counter.fetch_add(value, Ordering::Relaxed);
        match event {
            MirrorEvent::Done { op: Op::Remove, .. } => {}
            MirrorEvent::Done { op, bytes, .. } => {
                add(&self.files, 1);
                add(&self.bytes, *bytes);
                if *op == Op::Equal {
                    add(&self.moved, *bytes);
                }
            }
            MirrorEvent::Skipped { .. } => {
                add(&self.skipped, 1);
            }
            MirrorEvent::Progress { bytes } => {
                add(&self.moved, *bytes);
            }
            _ => {}
        }
    }
}

/// A report on its way from the thread.
enum Told {
    Change(Change),
    Skipped(Skipped),
}

/// Runs `job` on a thread of its own, and reports what it tells; what is equal only with `-v`.
///
/// When `abort` ends first, the job is cancelled through `cancel`, and its failure is that of
/// `abort`.
pub(super) async fn run<T, E>(
    context: &Context,
    tally: &Arc<Tally>,
    cancel: Cancel,
    abort: impl Future<Output = Failure>,
    job: impl FnOnce(&mut dyn FnMut(MirrorEvent<'_>)) -> Result<T, E> + Send + 'static,
) -> Result<T>
where
    T: Send + 'static,
    E: Into<Failure> + Send + 'static,
{
    // A command that is dropped takes the job along.
    let _cancel_at_end = CancelOnDrop(cancel.clone());
    let (sender, mut reports) = mpsc::channel(REPORTS_MAX);
    let counted = Arc::clone(tally);
    let tells_equal = context.globals.verbose > 0;
    let job = tokio::task::spawn_blocking(move || {
        job(&mut |event| {
            counted.count(&event);
            if let Some(told) = told(event, tells_equal) {
                // Nobody listens any more: the job is being cancelled.
                sender.blocking_send(told).ok();
            }
        })
    });
    let reporting = async {
        while let Some(told) = reports.recv().await {
            match told {
                Told::Change(change) => context.output().report(&change).await?,
                Told::Skipped(skipped) => context.output().report(&skipped).await?,
            }
        }
        Ok(())
    };
    let reported = tokio::select! {
        biased;
        reported = reporting => reported,
        failure = abort => Err(failure),
    };
    if reported.is_err() {
        cancel.cancel();
        reports.close();
    }
    let done = job.await.expect("imports and exports do not panic");
    reported.and(done.map_err(Into::into))
}

struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// What to report of an event.
fn told(event: MirrorEvent<'_>, tells_equal: bool) -> Option<Told> {
    match event {
        MirrorEvent::Done { op, path, bytes } => {
            let op = match op {
                Op::Add => events::Op::Add,
                Op::Change => events::Op::Change,
                Op::Remove => events::Op::Remove,
                Op::Equal if !tells_equal => return None,
                Op::Equal => events::Op::Equal,
            };
            let path = path.to_owned();
            Some(Told::Change(Change { op, path, bytes }))
        }
        MirrorEvent::Skipped { path, reason } => Some(Told::Skipped(Skipped {
            path: path.to_string_lossy().into_owned(),
            reason: reason.to_string(),
        })),
        _ => None,
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Source { .. } => Self::new(Kind::Storage, error),
            ImportError::Drive(error) => error.into(),
            ImportError::Cancelled => Self::interrupted(),
            other => Self::new(Kind::Other, other),
        }
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        let failure = Self::new(Kind::Storage, &error);
        match error {
            ExportError::NotAFolder { .. } => failure.hint("name another folder"),
            ExportError::Full { .. } => failure.hint("make space and run the same command again"),
            ExportError::NotWritable { .. } => failure.hint("check the permissions"),
            ExportError::Drive(error) => error.into(),
            ExportError::Cancelled => Self::interrupted(),
            _ => failure,
        }
    }
}
