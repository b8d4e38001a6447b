//! The log itself: `core create`, `append`, `get`, `seek`, `info`.

use std::io::ErrorKind;
use std::path::Path;

use bytes::{Buf as _, Bytes, BytesMut};
use ferrocore::log::limits::BLOCK_BYTES_MAX;
use ferrocore::log::{CoreError, CoreOptions, Manifest};
use ferrocore::{Core, EncryptionKey, Key};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use super::{audit, is_unknown, link, tail, trim, unknown};
use crate::args::{CoreAppend, CoreCommand, CoreCreate, CoreGet, CoreInfo, CoreSeek};
use crate::context::Context;
use crate::events::{self, Appended, CoreState, Sought};
use crate::exit::{BLOCK_HINT, Failure, Result};
use crate::input::Input;
use crate::names::{CoreKind, Named};

/// A batch of blocks is appended when it has so many bytes.
const BATCH_BYTES: usize = 4 << 20;

pub(crate) async fn run(context: &Context, command: CoreCommand) -> Result<()> {
    match command {
        CoreCommand::Create(create) => self::create(context, create).await,
        CoreCommand::Append(append) => self::append(context, append).await,
        CoreCommand::Get(get) => self::get(context, get).await,
        CoreCommand::Info(info) => self::info(context, info).await,
        CoreCommand::Seek(seek) => self::seek(context, seek).await,
        CoreCommand::Truncate(truncate) => trim::truncate(context, truncate).await,
        CoreCommand::Clear(clear) => trim::clear(context, clear).await,
        CoreCommand::Tail(tail) => tail::tail(context, tail).await,
        CoreCommand::Audit(audit) => audit::audit(context, audit).await,
        CoreCommand::Replicate(_) => unreachable!("it has a module of its own"),
    }
}

async fn create(context: &Context, create: CoreCreate) -> Result<()> {
    let names = &context.store.names;
    if names.find(&create.name).is_some() {
        let message = format!("there is a `{}` in the store already", create.name);
        return Err(Failure::usage(message).hint("choose another name"));
    }
    let core = match create.public_key_is_key {
        true => context.store.node.store().get_with(CoreOptions {
            name: Some(create.name.to_string()),
            compat: true,
            ..CoreOptions::default()
        })?,
        false => context.store.node.create_core(create.name.as_str())?,
    };
    if context.globals.offline {
        core.lift_guard()?;
    }
    let encryption = create.encrypt.then(EncryptionKey::generate);
    let keyring = &context.store.keyring;
    keyring.begin(&core.key(), encryption.as_ref())?;
    let named = Named {
        kind: CoreKind::Core,
        key: core.key(),
        folder: None,
    };
    context.store.name(&create.name, named)?;
    let created = CoreState {
        link: encryption.map(|key| link(core.key(), Some(&key))),
        ..state(context, &core)
    };
    context.output().list(&created).await
}

async fn info(context: &Context, info: CoreInfo) -> Result<()> {
    let core = context.store.core(&info.core)?;
    refresh(context, &core).await?;
    context.output().list(&state(context, &core)).await
}

async fn append(context: &Context, append: CoreAppend) -> Result<()> {
    let core = context.store.core(&append.core)?;
    if !core.is_writable() {
        return Err(CoreError::NotWritable { core: core.key() }.into());
    }
    context.ready_to_write(&core).await?;
    let before = core.length();
    let result = append_input(context, &core, &append).await;
    // Also where it failed half-way: whoever tries again must know what is there.
    if result.is_ok() || core.length() > before {
        let appended = Appended {
            length: core.length(),
            byte_length: core.byte_length(),
            fork: core.fork(),
        };
        context.output().report(&appended).await?;
    }
    result
}

/// Appends the files if all of them look as if they could be, or without any stdin.
async fn append_input(context: &Context, core: &Core, append: &CoreAppend) -> Result<()> {
    let files: Vec<_> = append.files.iter().map(|file| context.path(file)).collect();
    if files.is_empty() {
        let mut input = context.streams.input.lock().await;
        return append_stdin(core, &mut input, Cut::of(append)).await;
    }
    for path in &files {
        check_file(path).await?;
    }
    for path in &files {
        core.append(read_block(path).await?)?;
    }
    Ok(())
}

/// Refuses what cannot be a block, without opening it: a pipe can be opened once.
async fn check_file(path: &Path) -> Result<()> {
    let metadata = tokio::fs::metadata(path).await;
    let metadata = metadata.map_err(|error| cannot_read(path, &error))?;
    if metadata.is_dir() {
        return Err(cannot_read(path, &ErrorKind::IsADirectory.into()));
    }
    match metadata.len() > BLOCK_BYTES_MAX as u64 {
        true => Err(too_large()),
        false => Ok(()),
    }
}

async fn read_block(path: &Path) -> Result<Bytes> {
    let failed = |error| cannot_read(path, &error);
    let mut block = Vec::new();
    // A pipe does not say how long it is.
    let mut file = File::open(path)
        .await
        .map_err(failed)?
        .take(BLOCK_BYTES_MAX as u64 + 1);
    file.read_to_end(&mut block).await.map_err(failed)?;
    check_size(block.into())
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    let message = format!("cannot read {}", path.display());
    match error.kind() {
        ErrorKind::NotFound => Failure::not_found(format!("{message}: {error}")),
        _ => Failure::storage(message, error),
    }
}

/// How stdin is cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Whole,
    Lines,
    Frames,
}

impl Cut {
    fn of(append: &CoreAppend) -> Self {
        match (append.lines, append.frames) {
            (true, _) => Self::Lines,
            (_, true) => Self::Frames,
            _ => Self::Whole,
        }
    }

    /// Takes the next block off the front, if it is there whole.
    fn next_block(self, buffer: &mut BytesMut) -> Result<Option<Bytes>> {
        match self {
            Self::Whole => Ok(None),
            Self::Lines => {
                let end = buffer.iter().position(|byte| *byte == b'\n');
                Ok(end.map(|end| {
                    let line = buffer.split_to(end).freeze();
                    buffer.advance(1);
                    line
                }))
            }
            Self::Frames => {
                let Some(header) = buffer.first_chunk::<FRAME_HEADER_LEN>() else {
                    return Ok(None);
                };
                let len = usize::try_from(u32::from_le_bytes(*header)).unwrap_or(usize::MAX);
                if len > BLOCK_BYTES_MAX {
                    return Err(too_large());
                }
                if buffer.len() < FRAME_HEADER_LEN + len {
                    return Ok(None);
                }
                buffer.advance(FRAME_HEADER_LEN);
                Ok(Some(buffer.split_to(len).freeze()))
            }
        }
    }

    /// The last block, of what is left at the end.
    fn last_block(self, buffer: BytesMut) -> Result<Option<Bytes>> {
        match self {
            Self::Whole => Ok(Some(buffer.freeze())),
            _ if buffer.is_empty() => Ok(None),
            Self::Lines => Ok(Some(buffer.freeze())),
            Self::Frames => Err(Failure::usage("stdin ends in the middle of a frame")
                .hint("a frame is its length in four bytes, little endian, and so many bytes")),
        }
    }
}

const FRAME_HEADER_LEN: usize = 4;

/// Appends blocks as they come, those of one read together.
async fn append_stdin(core: &Core, input: &mut Input, cut: Cut) -> Result<()> {
    let failed = |error: std::io::Error| Failure::storage("cannot read stdin", &error);
    let mut buffer = BytesMut::new();
    while let Some(chunk) = input.chunk().await.map_err(failed)? {
        buffer.extend_from_slice(&chunk);
        let (mut blocks, mut bytes) = (Vec::new(), 0);
        while let Some(block) = cut.next_block(&mut buffer)? {
            bytes += block.len();
            blocks.push(block);
            if bytes >= BATCH_BYTES {
                core.append_batch(std::mem::take(&mut blocks))?;
                bytes = 0;
            }
        }
        core.append_batch(blocks)?;
        if buffer.len() > BLOCK_BYTES_MAX + FRAME_HEADER_LEN {
            return Err(too_large());
        }
    }
    if let Some(block) = cut.last_block(buffer)? {
        core.append(check_size(block)?)?;
    }
    Ok(())
}

fn check_size(block: Bytes) -> Result<Bytes> {
    if block.len() > BLOCK_BYTES_MAX {
        Err(too_large())
    } else {
        Ok(block)
    }
}

fn too_large() -> Failure {
    Failure::usage(format!("a block may have at most {BLOCK_BYTES_MAX} bytes")).hint(BLOCK_HINT)
}

async fn get(context: &Context, get: CoreGet) -> Result<()> {
    let core = context.store.core(&get.core)?;
    let last = get.range.end.map(|end| end.saturating_sub(1));
    if last.is_none_or(|last| last >= core.length()) {
        refresh(context, &core).await?;
    }
    let end = get.range.end.unwrap_or(core.length());
    if end > core.length() && core.is_frozen() {
        return Err(CoreError::Conflict { core: core.key() }.into());
    }
    if end > core.length() || get.range.start > end {
        let message = format!("core {} ends at block {}", core.key(), core.length());
        return Err(Failure::not_found(message)
            .hint("the first block is 0; `fcore core info` tells how many there are"));
    }
    // Wanted all at once, so that they come while the first ones are written.
    let _want = core.download(get.range.start..end);
    for index in get.range.start..end {
        let block = context.step(core.get(index)).await?;
        if get.frames {
            let len = u32::try_from(block.len()).expect("at most BLOCK_BYTES_MAX");
            context
                .output()
                .data(Bytes::copy_from_slice(&len.to_le_bytes()))
                .await?;
        }
        context.output().data(block).await?;
    }
    Ok(())
}

async fn seek(context: &Context, seek: CoreSeek) -> Result<()> {
    let core = context.store.core(&seek.core)?;
    if seek.byte >= core.byte_length() {
        refresh(context, &core).await?;
    }
    let (index, offset) = context.step(core.seek(seek.byte)).await?;
    context.output().list(&Sought { index, offset }).await
}

/// Asks peers for the newest length of a core of others.
pub(super) async fn refresh(context: &Context, core: &Core) -> Result<()> {
    let is_ours = core.is_writable() && !core.is_guarded();
    if !is_ours && core.length() == 0 {
        context.discover().await?;
    }
    if !is_ours && context.has_network() {
        context.step(core.update()).await?;
    }
    if is_unknown(core) {
        return Err(unknown("core", &core.key()));
    }
    Ok(())
}

pub(crate) fn state(context: &Context, core: &Core) -> CoreState {
    let is_compat = core.is_compat();
    CoreState {
        key: core.key().to_string(),
        discovery_key: core.discovery_key().to_string(),
        name: context.store.names.name_of(&core.key()).map(String::from),
        length: core.length(),
        fork: core.fork(),
        byte_length: core.byte_length(),
        contiguous_length: core.contiguous_length(),
        tree_hash: core.tree_hash().to_hex(),
        writable: core.is_writable(),
        guarded: core.is_guarded(),
        conflict: core.is_frozen(),
        manifest: core
            .manifest()
            .map(|manifest| describe(&manifest, is_compat)),
        link: None,
    }
}

fn describe(manifest: &Manifest, compat: bool) -> events::Manifest {
    let signers = manifest.signers.iter().map(|signer| events::Signer {
        public_key: ferrocore::primitives::id::encode_z32(signer.public_key.as_bytes()),
        namespace: signer.namespace.to_hex(),
    });
    events::Manifest {
        version: manifest.version,
        compat,
        allow_patch: manifest.allow_patch,
        quorum: manifest.quorum,
        signers: signers.collect(),
        prologue: manifest.prologue.map(|prologue| events::Prologue {
            hash: prologue.hash.to_hex(),
            length: prologue.length,
        }),
        linked: manifest
            .linked
            .as_ref()
            .map(|keys| keys.iter().map(Key::to_string).collect()),
        user_data: manifest.user_data.as_deref().map(hex),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use ferrocore::log::manifest::Prologue;
    use ferrocore::primitives::hash::Hash;

    use super::*;
    use crate::exit::Kind;

    fn cut(cut: Cut, input: &[u8]) -> Result<Vec<Vec<u8>>> {
        let (mut buffer, mut blocks) = (BytesMut::from(input), Vec::new());
        while let Some(block) = cut.next_block(&mut buffer)? {
            blocks.push(block.to_vec());
        }
        blocks.extend(cut.last_block(buffer)?.map(|block| block.to_vec()));
        Ok(blocks)
    }

    #[test]
    fn lines_lose_their_ends() {
        assert_eq!(
            cut(Cut::Lines, b"a\n\nbc").unwrap(),
            [&b"a"[..], b"", b"bc"]
        );
        assert_eq!(cut(Cut::Lines, b"a\n").unwrap(), [b"a"]);
        assert!(cut(Cut::Lines, b"").unwrap().is_empty());
    }

    #[test]
    fn frames_are_bounded_and_whole() {
        assert_eq!(
            cut(Cut::Frames, b"\x01\0\0\0a\0\0\0\0").unwrap(),
            [&b"a"[..], b""]
        );
        assert_eq!(
            cut(Cut::Frames, b"\x02\0\0\0a").unwrap_err().kind,
            Kind::Usage
        );
        assert_eq!(
            cut(Cut::Frames, b"\xff\xff\xff\xff").unwrap_err().kind,
            Kind::Usage
        );
    }

    #[test]
    fn a_whole_stdin_is_one_block_even_if_empty() {
        assert_eq!(cut(Cut::Whole, b"").unwrap(), [b""]);
        assert_eq!(cut(Cut::Whole, b"a\nb").unwrap(), [b"a\nb"]);
    }

    /// Goal: all that a manifest says is told, not only who signs.
    #[test]
    fn a_manifest_is_told_whole() {
        let other = Key::from([3; 32]);
        let manifest = Manifest {
            version: 2,
            allow_patch: false,
            quorum: 0,
            signers: Vec::new(),
            prologue: Some(Prologue {
                hash: Hash::from([0xab; 32]),
                length: 7,
            }),
            linked: Some(vec![other]),
            user_data: Some(vec![1, 0xff]),
        };
        let told = serde_json::to_value(describe(&manifest, false)).unwrap();
        assert_eq!(told["version"], 2);
        assert_eq!(told["prologue"]["length"], 7);
        assert_eq!(told["prologue"]["hash"], "ab".repeat(32));
        assert_eq!(told["linked"][0], other.to_string());
        assert_eq!(told["user_data"], "01ff");
        let plain = Manifest {
            prologue: None,
            linked: None,
            user_data: None,
            ..manifest
        };
        let told = serde_json::to_value(describe(&plain, false)).unwrap();
        for field in ["prologue", "linked", "user_data"] {
            assert!(told.get(field).unwrap().is_null(), "{field}");
        }
    }
}
