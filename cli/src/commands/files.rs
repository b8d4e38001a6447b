//! File verbs on a drive: `ls`, `cat`, `put`, `rm`.

use std::path::Path;

use ferrocore::drive::entry::{self, EntryValue};
use ferrocore::drive::{BlobId, Drive, DriveError, LINK_HOPS_MAX, path};

use super::view;
use crate::args::{Cat, Ls, Put, Rm};
use crate::context::Context;
use crate::events::{Change, Entry, EntryKind, Op, Version};
use crate::exit::{Failure, Kind, Result};
use crate::target::{HalfOpen, Place, base_name};

/// Lists a folder of a drive, or one file.
pub(crate) async fn ls(context: &Context, ls: Ls) -> Result<()> {
    let drive = view(context, &ls.target).await?;
    let folder = ls.target.path.clone().unwrap_or_default();
    let listed = match ls.recursive {
        true => list_below(context, &drive, &folder, ls.long).await?,
        false => list_folder(context, &drive, &folder, ls.long).await?,
    };
    if listed || is_root(&folder)? {
        return Ok(());
    }
    match context.step(drive.entry(&folder)).await? {
        Some(found) => {
            let name = found.path.clone();
            context
                .output()
                .list(&describe(context, &drive, found, name, ls.long).await?)
                .await
        }
        None => Err(absent(&drive, &folder)),
    }
}

async fn list_below(context: &Context, drive: &Drive, folder: &str, long: bool) -> Result<bool> {
    let mut entries = drive.list(folder)?;
    let mut listed = false;
    while let Some(found) = context.step(entries.next()).await? {
        listed = true;
        let name = found.path.clone();
        context
            .output()
            .list(&describe(context, drive, found, name, long).await?)
            .await?;
    }
    Ok(listed)
}

async fn list_folder(context: &Context, drive: &Drive, folder: &str, long: bool) -> Result<bool> {
    let mut items = drive.read_dir(folder)?;
    let parent = path::normalize_folder(folder).map_err(Failure::usage)?;
    let mut listed = false;
    while let Some(item) = context.step(items.next()).await? {
        listed = true;
        let shown = if item.is_folder {
            Entry {
                path: format!("{parent}/{}", item.name),
                kind: EntryKind::Folder,
                size: 0,
                executable: false,
                link: None,
                seq: None,
                metadata: serde_json::Value::Null,
                long,
                name: item.name,
            }
        } else {
            describe(context, drive, item.entry, item.name, long).await?
        };
        context.output().list(&shown).await?;
    }
    Ok(listed)
}

async fn describe(
    context: &Context,
    drive: &Drive,
    found: entry::Entry,
    name: String,
    long: bool,
) -> Result<Entry> {
    let value = found.value;
    let size = match &value.blob {
        Some(blob) => blob_size(context, drive, blob).await?,
        None => 0,
    };
    let metadata = value.metadata.and_then(|json| json.parse().ok());
    Ok(Entry {
        path: found.path,
        kind: if value.linkname.is_some() {
            EntryKind::Link
        } else {
            EntryKind::File
        },
        size,
        executable: value.executable,
        link: value.linkname,
        seq: Some(found.seq),
        metadata: metadata.unwrap_or_default(),
        long,
        name,
    })
}

/// Bytes of a file; only that of a deduplicated one must be looked up.
async fn blob_size(context: &Context, drive: &Drive, blob: &BlobId) -> Result<u64> {
    if !blob.block_map {
        return Ok(blob.byte_length);
    }
    context
        .step(async { drive.blobs().await?.byte_length(blob).await })
        .await
}

/// Writes a file to stdout, or some bytes of it.
pub(crate) async fn cat(context: &Context, cat: Cat) -> Result<()> {
    let drive = view(context, &cat.target).await?;
    let path = file_path(&cat.target)?;
    let blob = follow(context, &drive, path).await?;
    let range = cat
        .range
        .unwrap_or(HalfOpen {
            start: 0,
            end: None,
        })
        .within(u64::MAX);
    let opening = async { drive.blobs().await?.read(&blob, range).await };
    let mut reader = context.step(opening).await?;
    while let Some(bytes) = context.step(reader.next()).await? {
        context.output().data(bytes).await?;
    }
    Ok(())
}

/// The bytes at `path`, or where links there lead. Links are read as a file system does: a
/// relative one starts at the folder that it lies in.
async fn follow(context: &Context, drive: &Drive, path: &str) -> Result<BlobId> {
    let mut at = path.to_owned();
    for _ in 0..LINK_HOPS_MAX {
        let found = context
            .step(drive.entry(&at))
            .await?
            .ok_or_else(|| absent(drive, &at))?;
        match (found.value.blob, found.value.linkname) {
            (Some(blob), _) => return Ok(blob),
            (None, Some(target)) if target.starts_with('/') => at = target,
            (None, Some(target)) => {
                let (folder, _) = found.path.rsplit_once('/').unwrap_or_default();
                at = format!("{folder}/{target}");
            }
            (None, None) => return Err(Failure::not_found(format!("{at} is no file"))),
        }
    }
    Err(DriveError::LinkLoop {
        path: path.to_owned(),
    }
    .into())
}

/// Writes a file into a drive of ours.
pub(crate) async fn put(context: &Context, put: Put) -> Result<()> {
    let drive = writable(context, &put.target).await?;
    let path = put_path(&put)?;
    let before = drive.entry(&path).await?;
    let (blob, executable) = match put.src.to_str() {
        Some("-") => (store_stdin(context, &drive).await?, false),
        _ => store_file(&drive, &context.path(&put.src)).await?,
    };
    drive
        .put_entry(&path, &EntryValue::file(blob, executable))
        .await?;
    let op = if before.is_some() {
        Op::Change
    } else {
        Op::Add
    };
    changed(context, op, &path, blob.byte_length).await?;
    finish(context, &drive).await
}

/// Where `put` puts the file: a path that names a folder takes the file's name.
fn put_path(put: &Put) -> Result<String> {
    let path = put.target.path.as_deref().unwrap_or("/");
    if !path.ends_with('/') {
        return normalize(path);
    }
    if put.src.as_os_str() == "-" {
        return Err(Failure::usage(
            "stdin has no name; say where it goes, as in NAME:/path",
        ));
    }
    normalize(&format!("{path}{}", base_name(&put.src)))
}

fn normalize(path: &str) -> Result<String> {
    path::normalize(path).map_err(|error| Failure::usage(format!("{path:?}: {error}")))
}

async fn store_stdin(context: &Context, drive: &Drive) -> Result<BlobId> {
    let mut input = context.streams.input.lock().await;
    let mut writer = drive.blobs().await?.writer().await;
    let failed = |error: std::io::Error| Failure::storage("cannot read stdin", &error);
    while let Some(chunk) = input.chunk().await.map_err(failed)? {
        writer.write(&chunk)?;
    }
    Ok(writer.finish()?)
}

async fn store_file(drive: &Drive, path: &Path) -> Result<(BlobId, bool)> {
    use tokio::io::AsyncReadExt as _;
    let failed = |error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            _ => Kind::Storage,
        };
        Failure::new(kind, format!("cannot read {}: {error}", path.display()))
    };
    let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
    let executable = is_executable(&file.metadata().await.map_err(failed)?);
    let mut writer = drive.blobs().await?.writer().await;
    let mut chunk = vec![0; READ_BYTES];
    loop {
        match file.read(&mut chunk).await.map_err(failed)? {
            0 => return Ok((writer.finish()?, executable)),
            count => writer.write(chunk.get(..count).unwrap_or(&chunk))?,
        }
    }
}

/// How much of a file is read at a time.
const READ_BYTES: usize = 1 << 20;

#[cfg(unix)]
fn is_executable(metadata: &std::fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o100 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &std::fs::Metadata) -> bool {
    false
}

/// Removes a file from a drive of ours, or a folder.
pub(crate) async fn rm(context: &Context, rm: Rm) -> Result<()> {
    let drive = writable(context, &rm.target).await?;
    let path = if rm.recursive {
        rm.target.path.as_deref().unwrap_or("/")
    } else {
        file_path(&rm.target)?
    };
    let mut doomed = Vec::new();
    if !is_root(path)? {
        doomed.extend(drive.entry(path).await?);
    }
    if rm.recursive {
        let mut below = drive.list(path)?;
        while let Some(found) = below.next().await? {
            doomed.push(found);
        }
    }
    if doomed.is_empty() {
        let failure = absent(&drive, path);
        return Err(if rm.recursive {
            failure
        } else {
            failure.hint("a folder is removed with -R")
        });
    }
    let mut batch = drive.batch().await?;
    for found in &doomed {
        batch.del(&found.path).await?;
    }
    batch.flush().await?;
    for found in &doomed {
        let bytes = found.value.blob.map_or(0, |blob| blob.byte_length);
        changed(context, Op::Remove, &found.path, bytes).await?;
    }
    finish(context, &drive).await
}

/// The drive of `place`, if it can be written here.
async fn writable(context: &Context, place: &Place) -> Result<Drive> {
    if place.version.is_some() {
        return Err(Failure::usage("a version of a drive cannot be changed"));
    }
    let index = context.store.names.key(&place.base)?;
    context
        .ready_to_write(&context.store.node.core(&index)?)
        .await?;
    let drive = context.store.drive(place).await?;
    if drive.is_writable() {
        context.ready_to_write(drive.blobs().await?.core()).await?;
    } else {
        let message = format!("drive {} is not writable here", place.base);
        return Err(Failure::new(Kind::NotPermitted, message).hint("change it where it was made"));
    }
    let name = context.store.names.name_of(&drive.key());
    let named = name.and_then(|name| context.store.names.find(&name));
    if let Some(folder) = named.and_then(|named| named.folder) {
        let folder = folder.display();
        let text =
            format!("Note: the drive follows {folder}; `fcore share` makes it equal to that again");
        context.output().say(&text).await;
    }
    Ok(drive)
}

async fn changed(context: &Context, op: Op, path: &str, bytes: u64) -> Result<()> {
    let change = Change {
        op,
        path: path.to_owned(),
        bytes,
    };
    context.output().report(&change).await
}

async fn finish(context: &Context, drive: &Drive) -> Result<()> {
    let version = Version {
        key: drive.key().to_string(),
        seq: drive.version(),
    };
    context.output().report(&version).await
}

fn file_path(place: &Place) -> Result<&str> {
    let missing = || {
        Failure::usage(format!(
            "say which file of `{}`, as in {}:/path",
            place.base, place.base
        ))
    };
    place
        .path
        .as_deref()
        .filter(|path| *path != "/")
        .ok_or_else(missing)
}

fn is_root(folder: &str) -> Result<bool> {
    let normalized = path::normalize_folder(folder).map_err(Failure::usage)?;
    Ok(normalized.is_empty())
}

fn absent(drive: &Drive, path: &str) -> Failure {
    Failure::not_found(format!(
        "{path} is not in drive {}, version {}",
        drive.key(),
        drive.version()
    ))
}
