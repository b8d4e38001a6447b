//! `share`: keep a drive equal to a folder, and serve it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ferrocore::drive::mirror::{ImportCache, ImportOptions, MirrorEvent, import};
use ferrocore::drive::{Cancel, Drive};
use ferrocore::{Core, EncryptionKey};

use super::announced::report_announced;
use super::link;
use super::mirror::{self, Tally};
use super::watch::Watch;
use crate::args::Share;
use crate::caches::Cache;
use crate::context::Context;
use crate::events::{Progress, Ready, Upload, Version};
use crate::exit::{Failure, Kind, Result};
use crate::names::CoreKind;
use crate::progress::with_bar;
use crate::target::{Name, base_name};

/// Where peers are accepted if `--listen` does not say and nobody could find us otherwise: everywhere, on any port.
const LISTEN: &str = "0.0.0.0:0";

/// How often it is told what peers took.
const UPLOAD_PAUSE: Duration = Duration::from_secs(1);

/// Imports, serves, and follows until Ctrl-C, which is how it is meant to end.
pub(crate) async fn share(context: &Context, share: Share) -> Result<()> {
    let folder = folder(context, &share.dir)?;
    let name = choose_name(context, &share, &folder)?;
    let cores = context.store.node.store().namespace(name.as_str());
    context
        .ready_to_write(&Drive::create_index(&cores)?)
        .await?;
    let drive = context
        .store
        .create_drive(&name, Some(folder.clone()), share.encrypt)
        .await?;
    context.ready_to_write(drive.blobs().await?.core()).await?;
    context.discover().await?;
    let listen = match context.is_found() {
        true => None,
        false => Some(context.listen_anyway(LISTEN).await?),
    };
    // Before the import, which misses what changes behind its back.
    let watch = (!share.once).then(|| Watch::new(&folder, context.store.dir.clone()));

    let mut tally = update(context, &drive, &folder).await?;
    let encryption = context.store.keyring.get(&drive.key())?;
    let mut ready = ready(&drive, encryption, &tally, listen);
    ready.udp = context.udp_address();
    context.output().report(&ready).await?;
    let cores = [drive.index(), drive.blobs().await?.core()].map(Core::discovery_key);
    let following = async {
        match watch {
            Some(watch) => follow(context, &drive, &folder, &watch, &mut tally).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = context.stop().asked() => {}
        failed = report_uploads(context) => failed?,
        failed = report_announced(context, cores) => failed?,
        failed = following => failed?,
    }
    tally.check()
}

/// The folder by the one path that it is remembered under.
fn folder(context: &Context, dir: &Path) -> Result<PathBuf> {
    let path = context.path(dir);
    let cannot = |error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            _ => Kind::Storage,
        };
        Failure::new(kind, format!("cannot share {}: {error}", path.display()))
    };
    let folder = path.canonicalize().map_err(cannot)?;
    if folder.is_dir() {
        return Ok(folder);
    }
    Err(
        Failure::usage(format!("{} is not a folder", path.display()))
            .hint("`fcore put` writes a single file into a drive"),
    )
}

/// The drive that the folder has, or the name of a new one.
fn choose_name(context: &Context, share: &Share, folder: &Path) -> Result<Name> {
    let names = &context.store.names;
    let known = names.of_folder(folder).filter(|_| !share.new);
    let Some(wish) = &share.name else {
        let fresh = || names.free(&Name::like(&base_name(folder)));
        return Ok(known.unwrap_or_else(fresh));
    };
    let Some(named) = names.find(wish) else {
        return match known {
            Some(known) => Err(Failure::usage(format!(
                "{} is shared as `{known}` already",
                folder.display()
            ))
            .hint(format!(
                "leave --name out, or add --new to share it as `{wish}` too"
            ))),
            None => Ok(wish.clone()),
        };
    };
    let moved = named.folder.as_ref().is_some_and(|folder| !folder.exists());
    let same = named.folder.as_deref() == Some(folder);
    if named.kind == CoreKind::Drive && !share.new && (same || moved) {
        return Ok(wish.clone());
    }
    let message = format!("there is another `{wish}` in the store already");
    Err(Failure::usage(message).hint("choose another name"))
}

/// Makes the drive equal to the folder.
async fn update(context: &Context, drive: &Drive, folder: &Path) -> Result<Arc<Tally>> {
    let tally = Arc::new(Tally::default());
    let mut options = ImportOptions::default();
    options.exclude = vec![context.store.dir.clone()];
    let cancel: Cancel = options.cancel.clone();
    let abort = async {
        context.stop().asked().await;
        Failure::interrupted()
    };
    let job = {
        let (drive, folder) = (drive.clone(), folder.to_owned());
        let store = context.store.dir.clone();
        move |observe: &mut dyn FnMut(MirrorEvent<'_>)| {
            let saved = Cache::new(&store, "import", &drive.key(), &folder);
            let mut cache: ImportCache = saved.load();
            let imported = import(&drive, &folder, &mut cache, &options, observe);
            saved.save(&cache);
            imported
        }
    };
    let progress = || Progress {
        have: tally.files(),
        want: 0,
        bytes: tally.moved(),
        total: 0,
        peers: context.store.node.connected().len(),
    };
    let importing = mirror::run(context, &tally, cancel, abort, job);
    with_bar(context.output(), progress, importing).await?;
    Ok(tally)
}

/// Imports again after each change; ends only with a failure.
async fn follow(
    context: &Context,
    drive: &Drive,
    folder: &Path,
    watch: &Watch,
    tally: &mut Arc<Tally>,
) -> Result<()> {
    loop {
        watch.changed().await;
        let before = drive.version();
        *tally = update(context, drive, folder).await?;
        if drive.version() > before {
            watch.look_again();
            let version = Version {
                key: drive.key().to_string(),
                seq: drive.version(),
            };
            context.output().report(&version).await?;
        }
    }
}

fn ready(
    drive: &Drive,
    encryption: Option<EncryptionKey>,
    tally: &Tally,
    listen: Option<SocketAddr>,
) -> Ready {
    let link = link(drive.key(), encryption.as_ref());
    let command = match listen.map(reachable) {
        Some(address) => format!("fcore get {link} --peer {address}"),
        None => format!("fcore get {link}"),
    };
    Ready {
        key: drive.key().to_string(),
        discovery_key: drive.index().discovery_key().to_string(),
        version: drive.version(),
        files: tally.files(),
        bytes: tally.bytes(),
        listen,
        udp: None,
        command,
        link,
    }
}

/// The address under which other machines may reach us, if we listen on all of them.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if ip.is_unspecified() => outward_ip().unwrap_or(ip),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The address that packets to the outside would come from. Nothing is sent.
fn outward_ip() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((DOCUMENTATION_IP, 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// An address that is routed like any other and belongs to nobody (RFC 5737).
const DOCUMENTATION_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Tells what peers took, whenever they took more; ends only with a failure.
async fn report_uploads(context: &Context) -> Result<()> {
    let mut told = Upload {
        blocks: 0,
        bytes: 0,
    };
    loop {
        tokio::time::sleep(UPLOAD_PAUSE).await;
        let stats = context.store.node.stats();
        let now = Upload {
            blocks: stats.blocks_uploaded,
            bytes: stats.bytes_uploaded,
        };
        if now != told {
            context.output().report(&now).await?;
            told = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_side_is_told_an_address_that_leads_here() {
        let exact: SocketAddr = "10.1.2.3:4000".parse().unwrap();
        assert_eq!(reachable(exact), exact);
        let anywhere: SocketAddr = "0.0.0.0:4000".parse().unwrap();
        assert_eq!(reachable(anywhere).port(), 4000);
    }
}
