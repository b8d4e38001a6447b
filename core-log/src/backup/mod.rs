//! Secrets outside their store: as words on paper, or as a file under a passphrase.
//!
//! Knows formats. Does not know stores: [`Corestore`](crate::Corestore) says what there is to back up, and
//! takes back what is recovered.
//!
//! A file (or the same as text) holds, [sealed](Backup::seal):
//!
//! | field | encoding |
//! |---|---|
//! | flags | `uint`: 1 a root secret follows |
//! | root secret | 32 bytes |
//! | cores | `uint` count, then each as a `frame` |
//!
//! and of each core:
//!
//! | field | encoding |
//! |---|---|
//! | key | 32 bytes |
//! | flags | `uint`: 1 manifest, 2 name, 4 secret key, 8 encryption key, 16 that is a block key, 32 label |
//! | manifest | `buffer`, as on the wire |
//! | name | 32 bytes of namespace, `string` |
//! | secret key | 32 bytes of seed |
//! | encryption key | 32 bytes |
//! | label | `string` |
//!
//! `uint`, `buffer`, `string` and `frame` are those of compact-encoding; what follows known fields in a
//! frame is skipped.

mod phrase;
mod sealed;

use ferrocore_primitives::encoding::{
    Decode as _, DecodeError, Encode as _, Reader, put_buffer, put_string, put_uint,
};
use ferrocore_primitives::id;
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::sign::KeyPair;
use thiserror::Error;
use zeroize::Zeroizing;

pub use self::phrase::{PHRASE_WORDS, PhraseError};
use crate::corestore::CoreSecret;
use crate::encryption::EncryptionKey;
use crate::manifest::Manifest;
use crate::root_secret::RootSecret;
use crate::storage::Alias;

/// Most bytes that a backup may have: some 500,000 cores.
pub const BACKUP_BYTES_MAX: usize = 64 << 20;

/// What a text form begins with.
const TEXT_PREFIX: &str = "fcore-keys:";
/// Characters in a line of text.
const TEXT_LINE: usize = 72;

const HAS_ROOT: u64 = 1;
const HAS_MANIFEST: u64 = 1;
const HAS_NAME: u64 = 2;
const HAS_SECRET: u64 = 4;
const HAS_ENCRYPTION: u64 = 8;
const IS_BLOCK_KEY: u64 = 16;
const HAS_LABEL: u64 = 32;

/// The secrets of a store, or of some of its cores.
#[derive(Debug, Default)]
pub struct Backup {
    /// What its named cores derive from.
    pub root: Option<RootSecret>,
    /// Cores with secrets of their own, and named ones that are to be there again.
    pub cores: Vec<CoreBackup>,
}

/// What brings one core back.
#[derive(Debug)]
pub struct CoreBackup {
    /// The core.
    pub key: Key,
    /// Who may sign for it, if that is known.
    pub manifest: Option<Manifest>,
    /// The name it derives from, with the root secret.
    pub alias: Option<Alias>,
    /// What signs for it, if that does not derive.
    pub key_pair: Option<KeyPair>,
    /// What its blocks are encrypted with.
    pub encryption: Option<EncryptionKey>,
    /// What the application calls it.
    pub label: Option<String>,
}

/// Why a backup cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BackupError {
    /// It is something else; look for the right file.
    #[error("this is no backup of keys")]
    NotABackup,
    /// It was made by a later version; use that.
    #[error("the backup has format {version}, which this version does not know")]
    Version {
        /// What it says.
        version: u8,
    },
    /// It does not decrypt: most likely the passphrase is another one.
    #[error("the passphrase is wrong, or the backup was changed")]
    Passphrase,
    /// It is cut or changed; use another copy.
    #[error("the backup is damaged")]
    Damaged,
}

impl Backup {
    /// Encrypts the backup for whoever has `passphrase`.
    ///
    /// Cost: 64 MiB of memory and some tenths of a second, and as much to open it.
    pub fn seal(&self, passphrase: &[u8]) -> Vec<u8> {
        sealed::seal(&self.encode(), passphrase)
    }

    /// As [`Backup::seal`], as text that can be printed and typed.
    pub fn seal_text(&self, passphrase: &[u8]) -> String {
        let encoded = id::encode_z32(&self.seal(passphrase));
        let mut text = TEXT_PREFIX.to_owned();
        for (at, character) in encoded.chars().enumerate() {
            if at % TEXT_LINE == 0 {
                text.push('\n');
            }
            text.push(character);
        }
        text.push('\n');
        text
    }

    /// Decrypts a backup, in either form.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn open(sealed: &[u8], passphrase: &[u8]) -> Result<Self, BackupError> {
        if sealed.len() > BACKUP_BYTES_MAX {
            return Err(BackupError::NotABackup);
        }
        let binary;
        let sealed = match is_text(sealed) {
            false => sealed,
            true => {
                binary = from_text(sealed).ok_or(BackupError::Damaged)?;
                &binary
            }
        };
        let content = sealed::open(sealed, passphrase)?;
        Self::decode(&content).map_err(|_| BackupError::Damaged)
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let cores: Vec<_> = self.cores.iter().map(CoreBackup::encode).collect();
        let len: usize = cores.iter().map(|core| core.len() + 9).sum();
        // As large as it will be: what grows leaves copies behind.
        let mut out = Zeroizing::new(Vec::with_capacity(len + 64));
        put_uint(&mut out, if self.root.is_some() { HAS_ROOT } else { 0 });
        if let Some(root) = &self.root {
            out.extend_from_slice(root.bytes());
        }
        put_uint(&mut out, cores.len() as u64);
        for core in &cores {
            put_buffer(&mut out, core);
        }
        out
    }

    fn decode(content: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(content);
        let root = match reader.uint()? & HAS_ROOT {
            0 => None,
            _ => Some(RootSecret::from(Zeroizing::new(reader.fixed32()?))),
        };
        let count = reader.uint()?;
        let mut cores = Vec::new();
        for _ in 0..count {
            cores.push(CoreBackup::decode(&mut reader.frame()?)?);
        }
        Ok(Self { root, cores })
    }
}

impl CoreBackup {
    /// A core by its key alone, to which secrets can be added.
    pub fn new(key: Key) -> Self {
        Self {
            key,
            manifest: None,
            alias: None,
            key_pair: None,
            encryption: None,
            label: None,
        }
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let (alias, label) = (&self.alias, &self.label);
        let manifest = self.manifest.as_ref().map(|manifest| manifest.to_vec());
        let flag = |is_there: bool, flag: u64| if is_there { flag } else { 0 };
        let is_block_key = self
            .encryption
            .as_ref()
            .is_some_and(|key| key.is_block_key());
        let flags = flag(manifest.is_some(), HAS_MANIFEST)
            | flag(alias.is_some(), HAS_NAME)
            | flag(self.key_pair.is_some(), HAS_SECRET)
            | flag(self.encryption.is_some(), HAS_ENCRYPTION)
            | flag(is_block_key, IS_BLOCK_KEY)
            | flag(label.is_some(), HAS_LABEL);
        let texts = alias.iter().map(|alias| &alias.name).chain(label);
        let len: usize = texts.map(String::len).sum();
        let len = len + manifest.as_ref().map_or(0, Vec::len) + 256;
        let mut out = Zeroizing::new(Vec::with_capacity(len));
        out.extend_from_slice(self.key.as_bytes());
        put_uint(&mut out, flags);
        if let Some(manifest) = &manifest {
            put_buffer(&mut out, manifest);
        }
        if let Some(alias) = alias {
            out.extend_from_slice(&alias.namespace);
            put_string(&mut out, &alias.name);
        }
        if let Some(key_pair) = &self.key_pair {
            out.extend_from_slice(key_pair.seed());
        }
        if let Some(key) = &self.encryption {
            out.extend_from_slice(key.secret());
        }
        if let Some(label) = label {
            put_string(&mut out, label);
        }
        out
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut core = Self::new(Key::from(reader.fixed32()?));
        let flags = reader.uint()?;
        let has = |flag: u64| flags & flag != 0;
        if has(HAS_MANIFEST) {
            core.manifest = Some(Manifest::from_slice(reader.buffer()?)?);
        }
        if has(HAS_NAME) {
            core.alias = Some(Alias {
                namespace: reader.fixed32()?,
                name: reader.string()?.to_owned(),
            });
        }
        if has(HAS_SECRET) {
            let seed = Zeroizing::new(reader.fixed32()?);
            core.key_pair = Some(KeyPair::from_seed(&seed));
        }
        if has(HAS_ENCRYPTION) {
            let secret = Zeroizing::new(reader.fixed32()?);
            core.encryption = Some(match has(IS_BLOCK_KEY) {
                true => EncryptionKey::block_key(*secret),
                false => EncryptionKey::from(*secret),
            });
        }
        if has(HAS_LABEL) {
            core.label = Some(reader.string()?.to_owned());
        }
        Ok(core)
    }
}

impl From<CoreSecret> for CoreBackup {
    /// All that it takes to write the core elsewhere, where no root secret derives it.
    fn from(secret: CoreSecret) -> Self {
        Self {
            manifest: secret.manifest,
            alias: secret.alias,
            key_pair: Some(secret.key_pair),
            ..Self::new(secret.key)
        }
    }
}

fn is_text(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(TEXT_PREFIX.as_bytes())
}

fn from_text(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let lines = text.trim_start().strip_prefix(TEXT_PREFIX)?;
    let encoded: String = lines.split_whitespace().collect();
    id::decode_z32(&encoded).ok()
}

/// See [`crate::fuzzing`].
pub(crate) mod fuzzing {
    use super::sealed::Head;
    use super::{Backup, from_text, is_text};

    /// What is behind the seal, decoded and encoded again.
    pub fn backup(content: &[u8]) -> Option<Vec<u8>> {
        let decoded = Backup::decode(content).ok()?;
        Some(decoded.encode().to_vec())
    }

    /// The sealed bytes that a text form stands for.
    pub fn backup_text(text: &[u8]) -> Option<Vec<u8>> {
        is_text(text).then(|| from_text(text))?
    }

    /// What stands before the seal, decoded and encoded again.
    pub fn seal_head(sealed: &[u8]) -> Option<Vec<u8>> {
        Some(Head::decode(sealed).ok()?.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> Backup {
        let pair = KeyPair::from_seed(&[1; 32]);
        let manifest = Manifest::single(pair.public_key());
        let whole = CoreBackup {
            key: manifest.key(),
            manifest: Some(manifest),
            alias: Some(Alias {
                namespace: [2; 32],
                name: "ñame".to_owned(),
            }),
            key_pair: Some(pair),
            encryption: Some(EncryptionKey::block_key([3; 32])),
            label: Some("drive:photos".to_owned()),
        };
        Backup {
            root: Some(RootSecret::from([4; 32])),
            cores: vec![whole, CoreBackup::new(Key::from([5; 32]))],
        }
    }

    #[track_caller]
    fn assert_same(found: &Backup, expected: &Backup) {
        assert_eq!(found.encode(), expected.encode());
        assert_eq!(found.root, expected.root);
        for (found, expected) in found.cores.iter().zip(&expected.cores) {
            assert_eq!(found.key, expected.key);
            assert_eq!(found.alias, expected.alias);
            assert_eq!(found.encryption, expected.encryption);
            assert_eq!(found.label, expected.label);
            let seed = |core: &CoreBackup| core.key_pair.as_ref().map(|pair| *pair.seed());
            assert_eq!(seed(found), seed(expected));
        }
    }

    #[test]
    fn a_backup_comes_back_in_either_form() {
        let backup = backup();
        let text = backup.seal_text(b"passphrase");
        let sealed = from_text(text.as_bytes()).unwrap();
        assert_same(&Backup::open(&sealed, b"passphrase").unwrap(), &backup);
        assert!(text.lines().all(|line| line.len() <= TEXT_LINE));
        let typed = format!("  {}", text.replace('\n', "\r\n "));
        assert_same(
            &Backup::open(typed.as_bytes(), b"passphrase").unwrap(),
            &backup,
        );
        let wrong = Backup::open(text.as_bytes(), b"").unwrap_err();
        assert_eq!(wrong, BackupError::Passphrase);
        for garbage in [
            &b""[..],
            b"fcore",
            b"fcore-keys:",
            b"fcore-keys:\nLV!",
            &[0xff; 99],
        ] {
            assert!(Backup::open(garbage, b"").is_err());
        }
    }

    #[test]
    fn what_later_versions_add_is_skipped_and_what_is_cut_is_refused() {
        let backup = backup();
        let encoded = backup.encode();
        let mut longer = encoded.to_vec();
        longer.extend_from_slice(b"later");
        assert_same(&Backup::decode(&longer).unwrap(), &backup);
        for len in 0..encoded.len() {
            assert!(Backup::decode(&encoded[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let printed = format!("{:?}", backup());
        for secret in [[1; 32], [3; 32], [4; 32]] {
            assert!(!printed.contains(&format!("{secret:?}")), "{printed}");
            assert!(!printed.contains(&hex::encode(secret)), "{printed}");
        }
    }
}
