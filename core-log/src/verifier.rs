//! Signatures over trees: what is signed, how a signature is encoded, who must have signed.
//!
//! Knows manifests and signatures. Does not know how a tree was grown or where it is kept.

use bytes::Bytes;
use ferrocore_primitives::encoding::{Decode, DecodeError, Encode, Reader, put_uint, uint_len};
use ferrocore_primitives::hash::Hash;
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::namespace;
use ferrocore_primitives::sign::{KeyPair, PublicKey, Signature};

use crate::manifest::{Manifest, Prologue, SIGNERS_MAX};
use crate::merkle::Node;

/// A tree as it is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeHead {
    /// Which history.
    pub fork: u64,
    /// Blocks.
    pub length: u64,
    /// Hash over the roots.
    pub hash: Hash,
}

/// Checks and makes the signatures of one core.
#[derive(Debug, Clone)]
pub struct Verifier {
    key: Key,
    manifest: Manifest,
    compat: bool,
}

impl Verifier {
    /// The verifier of the core `key`, whose manifest this is.
    ///
    /// `None` if the manifest is not the one the key commits to.
    pub fn new(key: Key, manifest: Manifest) -> Option<Self> {
        let compat = manifest.is_compat_for(&key);
        (compat || manifest.key() == key).then_some(Self {
            key,
            manifest,
            compat,
        })
    }

    /// The verifier of a core that has no manifest beyond its key: the key is the signer's.
    pub fn compat(key: Key) -> Self {
        Self {
            key,
            manifest: Manifest::compat(PublicKey::from(*key.as_bytes())),
            compat: true,
        }
    }

    /// This core's verifier under a manifest that a peer sent, or `None` if it does not belong to
    /// the key.
    ///
    /// A compat core's key says nothing about a manifest but its signer, so nothing else is taken
    /// from one.
    pub fn with_manifest(&self, manifest: &Manifest) -> Option<Self> {
        match manifest.is_compat_for(&self.key) {
            true => Some(Self::compat(self.key)),
            false => Self::new(self.key, manifest.clone()),
        }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether the core's key is its signer's bare public key.
    pub fn is_compat(&self) -> bool {
        self.compat
    }

    /// The pinned beginning, which compat cores do not have.
    pub fn prologue(&self) -> Option<&Prologue> {
        self.manifest.prologue.as_ref().filter(|_| !self.compat)
    }

    /// Whether `signature` makes `head` the core's.
    ///
    /// Signatures assembled from several longer trees (`allowPatch`) are not accepted.
    pub fn verify(&self, head: &TreeHead, signature: Option<&[u8]>) -> bool {
        self.confirm(head, signature).is_some()
    }

    /// What of `signature` it takes to make `head` the core's, if it does: empty for a pinned
    /// beginning. The rest nobody signed, so it is not to be kept and passed on.
    pub(crate) fn confirm(&self, head: &TreeHead, signature: Option<&[u8]>) -> Option<Bytes> {
        if self.is_bare() {
            return self.confirm_bare(head, signature?);
        }
        if self.manifest.version > 0
            && let Some(prologue) = self.prologue()
            && head.length <= prologue.length
        {
            let is_pinned = head.length == prologue.length && head.hash == prologue.hash;
            return is_pinned.then(Bytes::new);
        }
        self.confirm_quorum(head, MultiSignature::from_slice(signature?).ok()?)
    }

    /// The bytes that `signer` signs to make `head` the core's
    /// (`hypercore/lib/caps.js` 11.37.1).
    ///
    /// | field | bytes |
    /// |---|---|
    /// | namespace TREE | 32 |
    /// | context: the core's key, a version 0 signer's namespace, absent when compat | 32 or 0 |
    /// | tree hash | 32 |
    /// | length | 8, little endian |
    /// | fork | 8, little endian |
    pub fn signable(&self, head: &TreeHead, signer: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(112);
        out.extend_from_slice(namespace::tree().as_bytes());
        if !self.compat {
            out.extend_from_slice(self.context(signer).as_bytes());
        }
        out.extend_from_slice(head.hash.as_bytes());
        out.extend_from_slice(&head.length.to_le_bytes());
        out.extend_from_slice(&head.fork.to_le_bytes());
        out
    }

    /// The signer whose secret `key_pair` holds and whose signature alone suffices.
    pub fn sole_signer(&self, key_pair: &KeyPair) -> Option<usize> {
        let public_key = key_pair.public_key();
        let position = |s: &crate::manifest::Signer| s.public_key == public_key;
        self.manifest
            .signers
            .iter()
            .position(position)
            .filter(|_| self.manifest.quorum == 1)
    }

    /// Signs `head` as signer number `signer`, in the encoding the manifest prescribes.
    pub fn sign(&self, head: &TreeHead, signer: usize, key_pair: &KeyPair) -> Bytes {
        let signature = key_pair.sign(&self.signable(head, signer));
        if self.is_bare() {
            return Bytes::copy_from_slice(signature.as_bytes());
        }
        let multi = MultiSignature {
            proofs: vec![PartialSignature {
                signer: signer as u64,
                signature,
                patch: 0,
            }],
            patch_nodes: Vec::new(),
        };
        multi.to_vec().into()
    }

    /// Whether signatures are 64 bare bytes.
    fn is_bare(&self) -> bool {
        let single = self.manifest.signers.len() == 1 && !self.manifest.allow_patch;
        self.compat || (self.manifest.version == 0 && single)
    }

    fn context(&self, signer: usize) -> Hash {
        match self.manifest.signers.get(signer) {
            Some(signer) if self.manifest.version == 0 => signer.namespace,
            _ => Hash::from(*self.key.as_bytes()),
        }
    }

    fn confirm_bare(&self, head: &TreeHead, signature: &[u8]) -> Option<Bytes> {
        let bytes: [u8; 64] = signature.try_into().ok()?;
        self.verify_signer(head, 0, &Signature::from(bytes))
            .then(|| Bytes::copy_from_slice(&bytes))
    }

    /// The first `quorum` signatures count, each by another signer; later ones are not looked at.
    fn confirm_quorum(&self, head: &TreeHead, multi: MultiSignature) -> Option<Bytes> {
        let quorum = usize::try_from(self.manifest.quorum).ok()?;
        let mut proofs = multi.proofs;
        if quorum == 0 || proofs.len() < quorum {
            return None;
        }
        proofs.truncate(quorum);
        let mut used = vec![false; self.manifest.signers.len()];
        for proof in &mut proofs {
            let signer = usize::try_from(proof.signer).ok()?;
            let is_used = std::mem::replace(used.get_mut(signer)?, true);
            let is_patched = proof.patch > 0 && self.manifest.allow_patch;
            if is_used || is_patched || !self.verify_signer(head, signer, &proof.signature) {
                return None;
            }
            proof.patch = 0; // means nothing where none is allowed
        }
        let patch_nodes = Vec::new();
        let confirmed = MultiSignature {
            proofs,
            patch_nodes,
        };
        Some(confirmed.to_vec().into())
    }

    fn verify_signer(&self, head: &TreeHead, signer: usize, signature: &Signature) -> bool {
        self.manifest
            .signers
            .get(signer)
            .is_some_and(|s| s.public_key.verify(&self.signable(head, signer), signature))
    }
}

/// The signatures of a quorum (`hypercore/lib/multisig.js` 11.37.1, manifests of version 1 on).
///
/// | field | encoding |
/// |---|---|
/// | proofs | array of (uint signer, 64 bytes signature, uint patch) |
/// | patch nodes | array of nodes |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultiSignature {
    /// At least a quorum of signatures.
    pub proofs: Vec<PartialSignature>,
    /// Nodes that grow the tree to the longer ones some signers saw.
    pub patch_nodes: Vec<Node>,
}

/// One signer's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialSignature {
    /// Place in the manifest.
    pub signer: u64,
    /// Over the signable of this signer's tree.
    pub signature: Signature,
    /// Blocks by which this signer's tree was longer.
    pub patch: u64,
}

impl Encode for MultiSignature {
    fn encoded_len(&self) -> usize {
        let proofs: usize = self.proofs.iter().map(Encode::encoded_len).sum();
        let nodes: usize = self.patch_nodes.iter().map(Encode::encoded_len).sum();
        uint_len(self.proofs.len() as u64)
            + proofs
            + uint_len(self.patch_nodes.len() as u64)
            + nodes
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, self.proofs.len() as u64);
        self.proofs.iter().for_each(|proof| proof.encode(out));
        put_uint(out, self.patch_nodes.len() as u64);
        self.patch_nodes.iter().for_each(|node| node.encode(out));
    }
}

impl Decode for MultiSignature {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let proofs = reader.array(66, PartialSignature::decode)?;
        if proofs.len() > SIGNERS_MAX {
            return Err(DecodeError::Invalid("too many signatures"));
        }
        let patch_nodes = reader.array(Node::ENCODED_LEN_MIN, Node::decode)?;
        Ok(Self {
            proofs,
            patch_nodes,
        })
    }
}

impl Encode for PartialSignature {
    fn encoded_len(&self) -> usize {
        uint_len(self.signer) + 64 + uint_len(self.patch)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, self.signer);
        out.extend_from_slice(self.signature.as_bytes());
        put_uint(out, self.patch);
    }
}

impl Decode for PartialSignature {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            signer: reader.uint()?,
            signature: Signature::from(reader.fixed64()?),
            patch: reader.uint()?,
        })
    }
}
