//! Proofs that travel alone, as in a push notification: they name their core and bring all it takes to check
//! them.
//!
//! Knows their bytes: the discovery key (32), then a [`Data`] message that answers request 0. Matches
//! `hypercore/lib/fully-remote-proof.js` 11.37.1. Does not know how they travel.

use bytes::Bytes;
use ferrocore_log::core::{AcceptError, ProveError};
use ferrocore_log::proof::{NodeRequest, Proof, ProofRequest, UpgradeRequest};
use ferrocore_log::{Core, Corestore, StoreError};
use ferrocore_mux::Segment;
use ferrocore_primitives::encoding::{DecodeError, Reader};
use ferrocore_primitives::keys::{DiscoveryKey, Key};

use crate::messages::Data;

/// The signed head of a core and perhaps one of its blocks, provable to whoever knows the core's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullyRemoteProof {
    /// Names the core.
    pub discovery_key: DiscoveryKey,
    /// An upgrade from nothing, with the manifest.
    pub proof: Proof,
}

/// Why a proof that travelled alone was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FullyRemoteError {
    /// Look for the core by the proof's discovery key.
    #[error("the proof is of another core")]
    OtherCore,
    /// It does not hold.
    #[error(transparent)]
    Refused(#[from] AcceptError),
    /// No core to check it against could be made.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FullyRemoteProof {
    /// The proof of the head of `core` and of block `block`. `None` if the core is empty or the block is not
    /// here.
    ///
    /// # Errors
    /// [`ProveError`] if the block lies past the log or storage fails.
    pub fn of(core: &Core, block: Option<u64>) -> Result<Option<Self>, ProveError> {
        let length = core.length();
        if length == 0 {
            return Ok(None);
        }
        let request = ProofRequest {
            fork: core.fork(),
            block: block.map(|index| NodeRequest { index, nodes: 0 }),
            upgrade: Some(UpgradeRequest { start: 0, length }),
            manifest: true,
            ..ProofRequest::default()
        };
        let proof = core.prove(&request)?;
        // What is not here is answered by the manifest alone.
        let proof = proof.filter(|proof| proof.upgrade.is_some());
        Ok(proof.map(|proof| Self {
            discovery_key: core.discovery_key(),
            proof,
        }))
    }

    /// Decodes a proof. The value of its block is a slice of `bytes`, not a copy.
    ///
    /// # Errors
    /// [`DecodeError`] if it is malformed or does not start from nothing.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let reader = &mut Reader::new(bytes);
        let discovery_key = DiscoveryKey::from(reader.fixed32()?);
        let proof = Data::decode(reader, bytes)?.proof;
        match &proof.upgrade {
            Some(upgrade) if upgrade.start == 0 => Ok(Self {
                discovery_key,
                proof,
            }),
            _ => Err(DecodeError::Invalid(
                "the proof does not start from nothing",
            )),
        }
    }

    /// Encodes the proof.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut scratch = self.discovery_key.as_bytes().to_vec();
        let data = Data {
            request: 0,
            proof: self.proof.clone(),
        };
        data.encode(&mut scratch, |segments| {
            let bytes = segments.iter().map(|segment| match segment {
                Segment::Copy(bytes) => *bytes,
                Segment::Share(bytes) => bytes,
            });
            bytes.collect::<Vec<_>>().concat()
        })
    }

    /// Checks the proof with nothing but the core's key and returns the length that is signed, in blocks.
    /// Nothing is stored; a reader that is still empty can [accept](Core::accept) the proof.
    ///
    /// # Errors
    /// [`FullyRemoteError`] if it is of another core or does not hold.
    pub fn verify(&self, key: &Key) -> Result<u64, FullyRemoteError> {
        if key.discovery_key() != self.discovery_key {
            return Err(FullyRemoteError::OtherCore);
        }
        let empty = Corestore::memory().get(key)?;
        empty.accept(self.proof.clone())?;
        Ok(empty.length())
    }
}
