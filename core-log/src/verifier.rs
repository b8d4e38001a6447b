//! Whether a signature makes a tree a core's, and how one is made.
//!
//! Knows manifests, who must have signed, and what of a signature is worth keeping. Does not know
//! how a tree was grown or where it is kept.

use std::cell::Cell;
use std::collections::HashMap;

use bytes::Bytes;
use ferrocore_primitives::encoding::{Decode as _, Encode as _};
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::sign::{PublicKey, Signature};

use crate::manifest::{Manifest, Prologue};
use crate::merkle::{Node, Roots};
use crate::multisig::{self, MultiSignature, PartialSignature, SignedLength};
use crate::signable::{Signable, TreeHead};
use crate::signer::{self, Secret, Signer, SignerError};

/// Checks and makes the signatures of one core.
#[derive(Debug, Clone)]
pub struct Verifier {
    key: Key,
    manifest: Manifest,
    scheme: Scheme,
}

/// What a signature consists of, and what it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// 64 bytes by the key itself.
    Compat,
    /// As `Compat`, over what was signed before there were namespaces.
    Legacy,
    /// 64 bytes by the only signer of a manifest of version 0.
    Single,
    /// A quorum's, as encoded for manifests of version 0.
    QuorumV0,
    /// A quorum's, be it of one.
    Quorum,
}

impl Verifier {
    /// The verifier of the core `key`, whose manifest this is.
    ///
    /// `None` if the manifest is not the one the key commits to.
    pub fn new(key: Key, manifest: Manifest) -> Option<Self> {
        let is_compat = manifest.is_compat_for(&key);
        let is_single = manifest.signers.len() == 1 && !manifest.allow_patch;
        let scheme = match manifest.version {
            _ if is_compat => Scheme::Compat,
            _ if manifest.key() != key => return None,
            0 if is_single => Scheme::Single,
            0 => Scheme::QuorumV0,
            _ => Scheme::Quorum,
        };
        Some(Self {
            key,
            manifest,
            scheme,
        })
    }

    /// The verifier of a core that has no manifest beyond its key: the key is the signer's.
    pub fn compat(key: Key) -> Self {
        Self {
            key,
            manifest: Manifest::compat(PublicKey::from(*key.as_bytes())),
            scheme: Scheme::Compat,
        }
    }

    /// As [`Verifier::compat`], for a core from before there were namespaces
    /// ([`Signable::Legacy`]).
    pub fn legacy(key: Key) -> Self {
        Self {
            scheme: Scheme::Legacy,
            ..Self::compat(key)
        }
    }

    /// This core's verifier under a manifest that a peer sent, or `None` if it does not belong to
    /// the key.
    ///
    /// A compat core's key says nothing about a manifest but its signer, so nothing else is taken
    /// from one.
    pub fn with_manifest(&self, manifest: &Manifest) -> Option<Self> {
        match manifest.is_compat_for(&self.key) {
            true if self.scheme == Scheme::Legacy => Some(self.clone()),
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
        matches!(self.scheme, Scheme::Compat | Scheme::Legacy)
    }

    /// The pinned beginning, which compat cores do not have.
    pub fn prologue(&self) -> Option<&Prologue> {
        self.manifest
            .prologue
            .as_ref()
            .filter(|_| !self.is_compat())
    }

    /// Whether `signature` makes the tree with these roots the core's.
    ///
    /// Cost: a quorum of signatures, and as many times some 100 hashes where signers saw longer
    /// trees.
    pub fn verify(&self, fork: u64, roots: &Roots, signature: Option<&[u8]>) -> bool {
        self.confirm(fork, roots, signature).is_some()
    }

    /// What of `signature` it takes to make the tree the core's, if it does: empty for a pinned
    /// beginning. The rest nobody signed, so it is not to be kept and passed on.
    pub(crate) fn confirm(
        &self,
        fork: u64,
        roots: &Roots,
        signature: Option<&[u8]>,
    ) -> Option<Bytes> {
        let head = TreeHead::of(fork, roots);
        if let Some(prologue) = self.pinned()
            && head.length <= prologue.length
        {
            let is_pinned = head.length == prologue.length && head.hash == prologue.hash;
            // A signer may cut the log back to its beginning. JavaScript takes that from anybody,
            // who could so take away the rest of the log.
            let needs_signature = fork > 0 && self.manifest.quorum > 0;
            if !is_pinned || !needs_signature {
                return is_pinned.then(Bytes::new);
            }
        }
        match self.scheme {
            Scheme::Compat | Scheme::Legacy | Scheme::Single => {
                self.confirm_bare(&head, signature?)
            }
            Scheme::QuorumV0 => {
                self.confirm_quorum(&head, roots, MultiSignature::decode_v0(signature?).ok()?)
            }
            Scheme::Quorum => {
                self.confirm_quorum(&head, roots, MultiSignature::from_slice(signature?).ok()?)
            }
        }
    }

    /// The bytes that `signer` signs to make `head` the core's.
    pub fn signable(&self, head: &TreeHead, signer: usize) -> Vec<u8> {
        self.signable_of(signer).bytes(head)
    }

    /// The place in the manifest of the signer with this public key.
    pub fn signer(&self, public_key: &PublicKey) -> Option<usize> {
        let mut signers = self.manifest.signers.iter();
        signers.position(|signer| signer.public_key == *public_key)
    }

    /// The signer with this public key, if its signature alone suffices.
    pub fn sole_signer(&self, public_key: &PublicKey) -> Option<usize> {
        let suffices = self.manifest.quorum == 1;
        self.signer(public_key).filter(|_| suffices)
    }

    /// One signer's part in making `head` the core's.
    ///
    /// # Errors
    /// [`SignerError::Unknown`] if it may not sign, and what it refuses with.
    pub fn sign_part(
        &self,
        head: &TreeHead,
        signer: &dyn Signer,
    ) -> Result<SignedLength, SignerError> {
        let public_key = signer.public_key();
        let place = self.signer(&public_key);
        let place = place.ok_or(SignerError::Unknown(public_key))?;
        Ok(SignedLength {
            signer: place as u64,
            length: head.length,
            signature: signer::checked(signer, &self.signable(head, place))?,
        })
    }

    /// Whether `part` is its signer's over a tree with these roots. Tells whose part it is that
    /// spoils a signature.
    pub fn verify_part(&self, fork: u64, roots: &Roots, part: &SignedLength) -> bool {
        let head = TreeHead::of(fork, roots);
        let signer = usize::try_from(part.signer).ok();
        part.length == head.length
            && signer.is_some_and(|signer| self.verify_signer(&head, signer, &part.signature))
    }

    /// The signature over `length` blocks that `parts` make, each over so many or more; `node`
    /// answers with nodes of the longest tree signed. It is in the encoding of the manifest, and
    /// not verified.
    ///
    /// # Errors
    /// Whatever `node` answers for a node it cannot give.
    pub fn assemble<E>(
        &self,
        length: u64,
        parts: &[SignedLength],
        node: impl FnMut(u64) -> Result<Node, E>,
    ) -> Result<Bytes, E> {
        if self.is_bare() {
            let part = parts.iter().find(|part| part.length == length);
            let signature = part.map(|part| Bytes::copy_from_slice(part.signature.as_bytes()));
            return Ok(signature.unwrap_or_default());
        }
        let multi = MultiSignature::assemble(length, parts, node)?;
        Ok(self.encode(&multi, length).unwrap_or_default())
    }

    /// Signs `head`, in the encoding the manifest prescribes, for a core that one signer suffices
    /// for.
    ///
    /// # Errors
    /// [`SignerError::Unknown`] if this signer may not sign alone, and what it refuses with.
    pub fn sign(&self, head: &TreeHead, signer: &dyn Signer) -> Result<Bytes, SignerError> {
        let public_key = signer.public_key();
        let place = self.sole_signer(&public_key);
        let place = place.ok_or(SignerError::Unknown(public_key))?;
        let signature = signer::checked(signer, &self.signable(head, place))?;
        Ok(self.encode_one(head, place, signature))
    }

    /// As [`Verifier::sign`], as signer number `signer`.
    pub(crate) fn sign_as(
        &self,
        head: &TreeHead,
        signer: usize,
        secret: &Secret,
    ) -> Result<Bytes, SignerError> {
        let signature = secret.sign(&self.signable(head, signer))?;
        Ok(self.encode_one(head, signer, signature))
    }

    /// The signature of one signer, encoded.
    fn encode_one(&self, head: &TreeHead, signer: usize, signature: Signature) -> Bytes {
        if self.is_bare() {
            return Bytes::copy_from_slice(signature.as_bytes());
        }
        let proof = PartialSignature {
            signer: signer as u64,
            signature,
            patch: 0,
        };
        let multi = MultiSignature {
            proofs: vec![proof],
            patch_nodes: Vec::new(),
        };
        self.encode(&multi, head.length).unwrap_or_default()
    }

    /// Whether signatures are 64 bare bytes.
    fn is_bare(&self) -> bool {
        !matches!(self.scheme, Scheme::QuorumV0 | Scheme::Quorum)
    }

    /// The beginning that is the core's without a signature.
    fn pinned(&self) -> Option<&Prologue> {
        self.prologue().filter(|_| self.scheme == Scheme::Quorum)
    }

    fn signable_of(&self, signer: usize) -> Signable {
        match (self.scheme, self.manifest.signers.get(signer)) {
            (Scheme::Compat, _) => Signable::Compat,
            (Scheme::Legacy, _) => Signable::Legacy,
            (Scheme::Single | Scheme::QuorumV0, Some(signer)) => {
                Signable::Namespace(signer.namespace)
            }
            _ => Signable::Core(self.key),
        }
    }

    fn encode(&self, multi: &MultiSignature, length: u64) -> Option<Bytes> {
        let encoded = match self.scheme {
            Scheme::QuorumV0 => multi.encode_v0(length)?,
            _ => multi.to_vec(),
        };
        Some(encoded.into())
    }

    fn confirm_bare(&self, head: &TreeHead, signature: &[u8]) -> Option<Bytes> {
        let bytes: [u8; 64] = signature.try_into().ok()?;
        self.verify_signer(head, 0, &Signature::from(bytes))
            .then(|| Bytes::copy_from_slice(&bytes))
    }

    /// The first `quorum` signatures count, each by another signer; later ones are not looked at.
    fn confirm_quorum(
        &self,
        head: &TreeHead,
        roots: &Roots,
        mut multi: MultiSignature,
    ) -> Option<Bytes> {
        let quorum = usize::try_from(self.manifest.quorum).ok()?;
        if quorum == 0 || multi.proofs.len() < quorum {
            return None;
        }
        multi.proofs.truncate(quorum);
        if !self.manifest.allow_patch {
            // They mean nothing then.
            multi.proofs.iter_mut().for_each(|proof| proof.patch = 0);
        }
        let nodes = multi.patch_nodes.iter().map(|node| (node.index, *node));
        let nodes: HashMap<u64, Node> = nodes.collect();
        let mut used = vec![false; self.manifest.signers.len()];
        for proof in &multi.proofs {
            let signer = usize::try_from(proof.signer).ok()?;
            if std::mem::replace(used.get_mut(signer)?, true) {
                return None;
            }
            let signed = match proof.patch {
                0 => *head,
                patch => TreeHead::of(head.fork, &multisig::grow(roots, patch, &nodes)?),
            };
            if !self.verify_signer(&signed, signer, &proof.signature) {
                return None;
            }
        }
        multi.drop_unused_nodes(head.length);
        self.encode(&multi, head.length)
    }

    fn verify_signer(&self, head: &TreeHead, signer: usize, signature: &Signature) -> bool {
        CHECKED.set(CHECKED.get() + 1);
        let public_key = self.manifest.signers.get(signer).map(|s| s.public_key);
        public_key.is_some_and(|key| key.verify(&self.signable(head, signer), signature))
    }
}

thread_local! {
    static CHECKED: Cell<u64> = const { Cell::new(0) };
}

/// How many signatures this thread has checked.
pub(crate) fn signatures_checked() -> u64 {
    CHECKED.get()
}
