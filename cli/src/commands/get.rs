//! `get`: fetch a drive, or a part of it, into a folder, once or for as long as it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferrocore::Key;
use ferrocore::drive::mirror::{
    ExportCache, ExportOptions, MirrorEvent, MirrorSummary, Prune, export,
};
use ferrocore::drive::{Drive, Selection, Totals};
use ferrocore::log::events::Event;

use super::mirror::{self, Tally};
use super::{check_key, refresh};
use crate::args::Get;
use crate::caches::Cache;
use crate::context::Context;
use crate::events::{Fetched, Progress, Resolved, Synced};
use crate::exit::{Failure, Result};
use crate::progress::with_progress;
use crate::target::{Base, Place};

/// How many of a key's letters name a folder.
const KEY_LETTERS: usize = 8;

pub(crate) async fn get(context: &Context, get: Get) -> Result<()> {
    let version = wanted_version(&get)?;
    let selection = selection(&get)?;
    let drive = context.store.drive(&get.target).await?;
    let dest = context.path(
        &get.dest
            .clone()
            .unwrap_or_else(|| default_dest(&get.target, &drive.key())),
    );
    let mut fetch = Fetch {
        context,
        drive: &drive,
        dest,
        selection,
        is_partial: get.target.path.is_some() || !get.path.is_empty(),
        overwrite: get.overwrite,
        prune: get.prune,
        live: get.live,
        is_following: false,
    };
    if !drive.index().is_writable() {
        context.discover().await?;
    }
    let events = drive.index().events();
    let stop = context.stop();
    let opening = async {
        refresh(context, &drive, version).await?;
        check_key(context, &get.target, &drive).await
    };
    stop.or_interrupted(opening).await?;
    let mut seen = head(&drive);
    let mut fetched = fetch.fetch(version.unwrap_or(seen.1)).await?;
    if !get.live {
        context.output().report(&fetched.event).await?;
        return fetched.tally.check();
    }
    loop {
        let version = fetched.event.version;
        context.output().report(&Synced { version }).await?;
        let newer = async {
            while head(&drive) <= seen {
                let _: Event = events.next().await;
            }
            Ok(())
        };
        if stop.or_interrupted(newer).await.is_err() {
            return fetched.tally.check();
        }
        fetch.is_following = true;
        fetched = loop {
            seen = head(&drive);
            match fetch.fetch(seen.1).await {
                Err(_) if drive.index().fork() != seen.0 => {} // what was read is of the past
                done => break done?,
            }
        };
    }
}

/// The fork and version of a drive: what grows when it changes, whatever its writer does.
fn head(drive: &Drive) -> (u64, u64) {
    (drive.index().fork(), drive.version())
}

fn wanted_version(get: &Get) -> Result<Option<u64>> {
    match (get.target.version, get.at) {
        (Some(link), Some(at)) if link != at => Err(Failure::usage(format!(
            "the link names version {link}, --at another"
        ))),
        (Some(_), _) if get.live => Err(Failure::usage(
            "a version does not change: leave out --live",
        )),
        (link, at) => Ok(link.or(at)),
    }
}

fn selection(get: &Get) -> Result<Selection> {
    let wrong = |error: ferrocore::drive::GlobError| Failure::usage(format!("--path: {error}"));
    match get.target.path.as_deref() {
        Some(_) if !get.path.is_empty() => Err(Failure::usage(
            "give a path in the link or --path, not both",
        )),
        Some("/") | None => Selection::globs(&get.path).map_err(wrong),
        Some(path) => Selection::globs([globset::escape(path)]).map_err(wrong),
    }
}

fn default_dest(target: &Place, key: &Key) -> PathBuf {
    match &target.base {
        Base::Name(name) => name.as_str().into(),
        Base::Key(_) => key
            .to_string()
            .chars()
            .take(KEY_LETTERS)
            .collect::<String>()
            .into(),
    }
}

/// One drive on its way into one folder.
struct Fetch<'a> {
    context: &'a Context,
    drive: &'a Drive,
    dest: PathBuf,
    selection: Selection,
    /// Whether only a part was asked for, which must be there then.
    is_partial: bool,
    overwrite: bool,
    prune: bool,
    live: bool,
    /// Whether everything was here once: then there is no hurry.
    is_following: bool,
}

/// A version that is here.
struct Done {
    event: Fetched,
    tally: Arc<Tally>,
}

impl Fetch<'_> {
    async fn fetch(&self, version: u64) -> Result<Done> {
        let context = self.context;
        let before = context.store.node.stats();
        let drive = self.drive.checkout(version);
        let totals = context.stop().or_interrupted(self.resolve(&drive)).await?;
        let resolved = Resolved {
            key: drive.key().to_string(),
            version,
            files: totals.files + totals.links,
            bytes: totals.bytes,
        };
        context.output().report(&resolved).await?;

        let tally = Arc::new(Tally::default());
        let progress = || Progress {
            have: tally.files(),
            want: resolved.files,
            bytes: tally.moved().min(resolved.bytes),
            total: resolved.bytes,
            peers: context.store.node.connected().len(),
        };
        let exporting = self.export(&drive, &tally);
        let summary = with_progress(context.output(), progress, exporting).await?;
        let after = context.store.node.stats();
        let event = Fetched {
            version,
            files: tally.files(),
            bytes: tally.bytes(),
            blocks_have: totals.blocks.saturating_sub(summary.blocks_fetched),
            blocks_fetched: summary.blocks_fetched,
            bytes_fetched: after.bytes_downloaded - before.bytes_downloaded,
        };
        Ok(Done { event, tally })
    }

    /// Counts what is to be fetched, waiting for the network: at most `--timeout` without
    /// progress until everything was here once.
    async fn resolve(&self, drive: &Drive) -> Result<Totals> {
        let counting = async { Ok(drive.totals(&self.selection).await?) };
        let totals = if self.is_following {
            counting.await?
        } else {
            let progress = || self.context.store.node.stats().blocks_downloaded;
            self.context.while_progress(progress, counting).await?
        };
        if totals.files + totals.links == 0 && self.is_partial {
            let message = format!(
                "nothing in version {} of the drive is at that path",
                drive.version()
            );
            return Err(Failure::not_found(message));
        }
        Ok(totals)
    }

    async fn export(&self, drive: &Drive, tally: &Arc<Tally>) -> Result<MirrorSummary> {
        let context = self.context;
        let mut options = ExportOptions::default();
        options.selection = self.selection.clone();
        options.overwrite = self.overwrite;
        options.prune = match (self.prune, self.live) {
            (true, _) => Prune::All,
            (false, true) => Prune::Written,
            (false, false) => Prune::Nothing,
        };
        let cancel = options.cancel.clone();
        let progress = || {
            let fetched = context.store.node.stats().blocks_downloaded;
            fetched.wrapping_add(tally.activity())
        };
        let abort = async {
            tokio::select! {
                () = context.stop().asked() => Failure::interrupted(),
                failure = context.stalled(progress), if !self.is_following => failure,
            }
        };
        let job = {
            let (drive, dest) = (drive.clone(), self.dest.clone());
            let store = context.store.dir.clone();
            move |observe: &mut dyn FnMut(MirrorEvent<'_>)| {
                let folder = create(&dest);
                let saved = Cache::new(&store, "export", &drive.key(), &folder);
                let mut cache: ExportCache = saved.load();
                let exported = export(&drive, &dest, &mut cache, &options, observe);
                saved.save(&cache);
                exported
            }
        };
        mirror::run(context, tally, cancel, abort, job).await
    }
}

/// Creates the folder, and returns the one path that it is remembered under. What is in the way
/// the export will say.
fn create(dest: &Path) -> PathBuf {
    std::fs::create_dir_all(dest).ok();
    dest.canonicalize().unwrap_or_else(|_| dest.to_owned())
}
