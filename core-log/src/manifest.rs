//! Manifests: who may sign a core, and how its key follows from that.
//!
//! Knows the wire encoding and the key derivation. Does not know trees, storage or how a
//! signature is checked (`verifier`).

mod builder;

use ferrocore_primitives::encoding::{Decode, DecodeError, Encode, Reader, put_buffer, put_uint};
use ferrocore_primitives::hash::{self, Hash};
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::namespace;
use ferrocore_primitives::sign::PublicKey;

pub use self::builder::{ManifestBuilder, ManifestError};

/// The newest manifest version that is understood.
pub const MANIFEST_VERSION_MAX: u64 = 3;

/// Most signers a manifest may name. JavaScript sets no bound; a core with more is refused.
pub const SIGNERS_MAX: usize = 1024;

const FLAG_ALLOW_PATCH: u64 = 1;
const FLAG_PROLOGUE: u64 = 2;
const FLAG_LINKED: u64 = 4;
const FLAG_USER_DATA: u64 = 8;

const V0_STATIC: u64 = 0;
const V0_SINGLE: u64 = 1;
const V0_MULTI: u64 = 2;

const BLAKE2B: u64 = 0;
const ED25519: u64 = 0;

/// What a core's key commits to: its signers, their quorum, and a pinned beginning.
///
/// Wire form, version 1 and later (`hypercore/lib/messages.js` 11.37.1):
///
/// | field | encoding |
/// |---|---|
/// | version | uint |
/// | flags | uint: 1 allow patch, 2 prologue, 4 linked, 8 user data |
/// | hash | uint: 0, BLAKE2b |
/// | quorum | uint |
/// | signers | array of (uint 0, namespace 32, public key 32) |
/// | prologue | hash 32, uint length, if flagged |
/// | linked | array of keys, if flagged |
/// | user data | buffer, if flagged |
///
/// Version 0 has three shorter forms (static, single signer, many signers).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Format version, 0 to [`MANIFEST_VERSION_MAX`].
    pub version: u64,
    /// Whether a quorum may be assembled from signatures over longer trees.
    pub allow_patch: bool,
    /// How many signers must agree; 0 for a static core.
    pub quorum: u64,
    /// The signers, at most [`SIGNERS_MAX`].
    pub signers: Vec<Signer>,
    /// A beginning that is pinned by its hash.
    pub prologue: Option<Prologue>,
    /// Keys of cores that belong to this one (version 2 and later).
    pub linked: Option<Vec<Key>>,
    /// Free bytes of the application (version 2 and later).
    pub user_data: Option<Vec<u8>>,
}

/// One party that may sign, with the namespace its signatures are bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signer {
    /// Separates the uses of one key pair.
    pub namespace: Hash,
    /// Verifies the signer's signatures.
    pub public_key: PublicKey,
}

/// The pinned beginning of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prologue {
    /// Tree hash at `length`.
    pub hash: Hash,
    /// Blocks pinned.
    pub length: u64,
}

impl Manifest {
    /// Begins a manifest of any kind.
    ///
    /// # Examples
    /// ```
    /// use ferrocore_log::Manifest;
    /// use ferrocore_primitives::sign::KeyPair;
    ///
    /// let [anna, ben, cleo] = [1, 2, 3].map(|seed| KeyPair::from_seed(&[seed; 32]).public_key());
    /// let manifest = Manifest::builder().signer(anna).signer(ben).signer(cleo).build()?;
    /// assert_eq!(manifest.quorum, 2);
    /// # Ok::<(), ferrocore_log::manifest::ManifestError>(())
    /// ```
    pub fn builder() -> ManifestBuilder {
        ManifestBuilder::default()
    }

    /// The manifest of an ordinary core: version 1, one signer, the default namespace.
    pub fn single(public_key: PublicKey) -> Self {
        Self::of_signer(1, public_key)
    }

    /// The manifest a compat core is treated as having: its key is the signer's public key.
    pub fn compat(public_key: PublicKey) -> Self {
        Self::of_signer(0, public_key)
    }

    /// The manifest of a static core: version 1, pinned, without signers.
    pub fn pinned(prologue: Prologue) -> Self {
        Self {
            version: 1,
            allow_patch: false,
            quorum: 0,
            signers: Vec::new(),
            prologue: Some(prologue),
            linked: None,
            user_data: None,
        }
    }

    fn of_signer(version: u64, public_key: PublicKey) -> Self {
        let signer = Signer {
            namespace: namespace::default_namespace(),
            public_key,
        };
        Self {
            version,
            allow_patch: false,
            quorum: 1,
            signers: vec![signer],
            prologue: None,
            linked: None,
            user_data: None,
        }
    }

    /// The key of a core with this manifest: the hash of its wire encoding.
    pub fn key(&self) -> Key {
        let encoded = self.to_vec();
        let hash = hash::hash(&[namespace::manifest().as_bytes(), &encoded]);
        Key::from(*hash.as_bytes())
    }

    /// Whether `key` is the bare public key of this manifest's only signer.
    pub fn is_compat_for(&self, key: &Key) -> bool {
        match self.signers.as_slice() {
            [signer] => signer.public_key.as_bytes() == key.as_bytes(),
            _ => false,
        }
    }

    /// Whether this manifest belongs to `key`, as its hash or as a compat core's signer.
    pub fn belongs_to(&self, key: &Key) -> bool {
        self.is_compat_for(key) || self.key() == *key
    }

    fn flags(&self) -> u64 {
        let mut flags = 0;
        if self.allow_patch {
            flags |= FLAG_ALLOW_PATCH;
        }
        if self.prologue.is_some() {
            flags |= FLAG_PROLOGUE;
        }
        if self.linked.is_some() {
            flags |= FLAG_LINKED;
        }
        if self.user_data.is_some() {
            flags |= FLAG_USER_DATA;
        }
        flags
    }

    fn v0_kind(&self) -> u64 {
        if self.prologue.is_some() && self.signers.is_empty() {
            V0_STATIC
        } else if self.quorum == 1 && self.signers.len() == 1 && !self.allow_patch {
            V0_SINGLE
        } else {
            V0_MULTI
        }
    }

    fn encode_v0(&self, out: &mut Vec<u8>) {
        let kind = self.v0_kind();
        put_uint(out, BLAKE2B);
        put_uint(out, kind);
        match kind {
            V0_STATIC => {
                let hash = self.prologue.map_or(Hash::from([0; 32]), |p| p.hash);
                out.extend_from_slice(hash.as_bytes());
            }
            V0_SINGLE => self.signers.iter().for_each(|s| s.encode(out)),
            _ => {
                put_uint(out, self.flags() & FLAG_ALLOW_PATCH);
                put_uint(out, self.quorum);
                put_signers(out, &self.signers);
            }
        }
    }

    fn decode_v0(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        expect_blake2b(reader)?;
        let mut manifest = Self {
            version: 0,
            allow_patch: false,
            quorum: 0,
            signers: Vec::new(),
            prologue: None,
            linked: None,
            user_data: None,
        };
        match reader.uint()? {
            V0_STATIC => {
                let hash = Hash::from(reader.fixed32()?);
                manifest.prologue = Some(Prologue { hash, length: 0 });
            }
            V0_SINGLE => {
                manifest.quorum = 1;
                manifest.signers = vec![Signer::decode(reader)?];
            }
            V0_MULTI => {
                manifest.allow_patch = reader.uint()? & FLAG_ALLOW_PATCH != 0;
                manifest.quorum = reader.uint()?;
                manifest.signers = read_signers(reader)?;
            }
            _ => return Err(DecodeError::Invalid("unknown manifest type")),
        }
        Ok(manifest)
    }
}

impl Encode for Manifest {
    fn encoded_len(&self) -> usize {
        // Manifests are small and encoded rarely: measuring is encoding.
        let mut out = Vec::new();
        self.encode(&mut out);
        out.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, self.version);
        if self.version == 0 {
            return self.encode_v0(out);
        }
        put_uint(out, self.flags());
        put_uint(out, BLAKE2B);
        put_uint(out, self.quorum);
        put_signers(out, &self.signers);
        if let Some(prologue) = &self.prologue {
            out.extend_from_slice(prologue.hash.as_bytes());
            put_uint(out, prologue.length);
        }
        if let Some(linked) = &self.linked {
            put_uint(out, linked.len() as u64);
            linked
                .iter()
                .for_each(|key| out.extend_from_slice(key.as_bytes()));
        }
        if let Some(user_data) = &self.user_data {
            put_buffer(out, user_data);
        }
    }
}

impl Decode for Manifest {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = reader.uint()?;
        if version == 0 {
            return Self::decode_v0(reader);
        }
        if version > MANIFEST_VERSION_MAX {
            return Err(DecodeError::Invalid("unknown manifest version"));
        }
        let flags = reader.uint()?;
        expect_blake2b(reader)?;
        let quorum = reader.uint()?;
        let signers = read_signers(reader)?;
        let prologue = match flags & FLAG_PROLOGUE {
            0 => None,
            _ => Some(Prologue {
                hash: Hash::from(reader.fixed32()?),
                length: reader.uint()?,
            }),
        };
        let linked = match flags & FLAG_LINKED {
            0 => None,
            _ => Some(reader.array(32, |r| r.fixed32().map(Key::from))?),
        };
        let user_data = match flags & FLAG_USER_DATA {
            0 => None,
            _ => Some(reader.buffer()?.to_vec()),
        };
        Ok(Self {
            version,
            allow_patch: flags & FLAG_ALLOW_PATCH != 0,
            quorum,
            signers,
            prologue,
            linked,
            user_data,
        })
    }
}

impl Encode for Signer {
    fn encoded_len(&self) -> usize {
        65
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, ED25519);
        out.extend_from_slice(self.namespace.as_bytes());
        out.extend_from_slice(self.public_key.as_bytes());
    }
}

impl Decode for Signer {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.uint()? != ED25519 {
            return Err(DecodeError::Invalid("unknown signature type"));
        }
        Ok(Self {
            namespace: Hash::from(reader.fixed32()?),
            public_key: PublicKey::from(reader.fixed32()?),
        })
    }
}

fn expect_blake2b(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    match reader.uint()? {
        BLAKE2B => Ok(()),
        _ => Err(DecodeError::Invalid("unknown hash type")),
    }
}

fn put_signers(out: &mut Vec<u8>, signers: &[Signer]) {
    put_uint(out, signers.len() as u64);
    signers.iter().for_each(|signer| signer.encode(out));
}

fn read_signers(reader: &mut Reader<'_>) -> Result<Vec<Signer>, DecodeError> {
    let signers = reader.array(65, Signer::decode)?;
    if signers.len() > SIGNERS_MAX {
        return Err(DecodeError::Invalid("too many signers in the manifest"));
    }
    Ok(signers)
}
