//! A question, its answer, and what may become of it instead.
//!
//! Knows bytes: the parts of a proof and their flags. Does not know what a proof proves.

use bytes::Bytes;
use ferrocore_log::Manifest;
use ferrocore_log::merkle::Node;
use ferrocore_log::proof::{
    BlockProof, HashProof, NodeRequest, Proof, ProofRequest, SeekProof, SeekRequest, UpgradeProof,
    UpgradeRequest,
};
use ferrocore_mux::Segment;
use ferrocore_primitives::encoding::{
    Decode, DecodeError, Encode, Reader, put_array, put_optional_buffer, put_uint,
};

use super::{flag, optional_flags, put_uints, when};

/// The parts that requests and answers have, as flags.
mod part {
    pub(super) const BLOCK: u64 = 1;
    pub(super) const HASH: u64 = 2;
    pub(super) const SEEK: u64 = 4;
    pub(super) const UPGRADE: u64 = 8;
    pub(super) const MANIFEST: u64 = 16;
    pub(super) const PRIORITY: u64 = 32;
}

/// A question: any parts of a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the sender. 0 is used for what is asked out of order, and answered all the same.
    pub id: u64,
    /// What is asked.
    pub proof: ProofRequest,
    /// 0 is answered in order, higher ones before others.
    pub priority: u64,
}

impl Request {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let proof = &self.proof;
        let flags = flag(proof.block.is_some(), part::BLOCK)
            | flag(proof.hash.is_some(), part::HASH)
            | flag(proof.seek.is_some(), part::SEEK)
            | flag(proof.upgrade.is_some(), part::UPGRADE)
            | flag(proof.manifest, part::MANIFEST)
            | flag(self.priority != 0, part::PRIORITY);
        put_uints(out, [flags, self.id, proof.fork]);
        for node in [&proof.block, &proof.hash].into_iter().flatten() {
            put_uints(out, [node.index, node.nodes]);
        }
        if let Some(seek) = &proof.seek {
            put_uints(out, [seek.bytes, seek.padding]);
        }
        if let Some(upgrade) = &proof.upgrade {
            put_uints(out, [upgrade.start, upgrade.length]);
        }
        if self.priority != 0 {
            put_uint(out, self.priority);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let flags = reader.uint()?;
        let (id, fork) = (reader.uint()?, reader.uint()?);
        let node = |reader: &mut Reader<'_>| {
            Ok(NodeRequest {
                index: reader.uint()?,
                nodes: reader.uint()?,
            })
        };
        let proof = ProofRequest {
            fork,
            block: when(flags, part::BLOCK, || node(reader))?,
            hash: when(flags, part::HASH, || node(reader))?,
            seek: when(flags, part::SEEK, || {
                Ok(SeekRequest {
                    bytes: reader.uint()?,
                    padding: reader.uint()?,
                })
            })?,
            upgrade: when(flags, part::UPGRADE, || {
                Ok(UpgradeRequest {
                    start: reader.uint()?,
                    length: reader.uint()?,
                })
            })?,
            manifest: flags & part::MANIFEST != 0,
        };
        let priority = when(flags, part::PRIORITY, || reader.uint())?.unwrap_or(0);
        Ok(Self {
            id,
            proof,
            priority,
        })
    }
}

/// Takes a request back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancel {
    /// Its id.
    pub request: u64,
}

/// An answer: a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// Id of the request, or 0.
    pub request: u64,
    /// The answer.
    pub proof: Proof,
}

impl Data {
    /// Appends the message to `out` and hands all of it to `send` in segments.
    pub(crate) fn encode<T>(&self, out: &mut Vec<u8>, send: impl FnOnce(&[Segment<'_>]) -> T) -> T {
        let proof = &self.proof;
        let flags = flag(proof.block.is_some(), part::BLOCK)
            | flag(proof.hash.is_some(), part::HASH)
            | flag(proof.seek.is_some(), part::SEEK)
            | flag(proof.upgrade.is_some(), part::UPGRADE)
            | flag(proof.manifest.is_some(), part::MANIFEST);
        put_uints(out, [flags, self.request, proof.fork]);
        let Some(block) = &proof.block else {
            encode_parts_behind_block(proof, out);
            return send(&[Segment::Copy(out)]);
        };
        put_uints(out, [block.index, block.value.len() as u64]);
        let value_at = out.len();
        put_nodes(out, &block.nodes);
        encode_parts_behind_block(proof, out);
        let (head, tail) = out.split_at(value_at);
        send(&[
            Segment::Copy(head),
            Segment::Share(block.value.clone()),
            Segment::Copy(tail),
        ])
    }

    /// Decodes a message that `reader` finds in `payload`.
    pub(crate) fn decode(reader: &mut Reader<'_>, payload: &Bytes) -> Result<Self, DecodeError> {
        let flags = reader.uint()?;
        let (request, fork) = (reader.uint()?, reader.uint()?);
        let proof = Proof {
            fork,
            block: when(flags, part::BLOCK, || {
                Ok(BlockProof {
                    index: reader.uint()?,
                    value: payload.slice_ref(reader.buffer()?),
                    nodes: nodes(reader)?,
                })
            })?,
            hash: when(flags, part::HASH, || {
                Ok(HashProof {
                    index: reader.uint()?,
                    nodes: nodes(reader)?,
                })
            })?,
            seek: when(flags, part::SEEK, || {
                Ok(SeekProof {
                    bytes: reader.uint()?,
                    nodes: nodes(reader)?,
                })
            })?,
            upgrade: when(flags, part::UPGRADE, || decode_upgrade(reader))?,
            manifest: when(flags, part::MANIFEST, || Manifest::decode(reader))?,
        };
        Ok(Self { request, proof })
    }
}

fn encode_parts_behind_block(proof: &Proof, out: &mut Vec<u8>) {
    if let Some(hash) = &proof.hash {
        put_uint(out, hash.index);
        put_nodes(out, &hash.nodes);
    }
    if let Some(seek) = &proof.seek {
        put_uint(out, seek.bytes);
        put_nodes(out, &seek.nodes);
    }
    if let Some(upgrade) = &proof.upgrade {
        put_uints(out, [upgrade.start, upgrade.length]);
        put_nodes(out, &upgrade.nodes);
        put_nodes(out, &upgrade.additional);
        put_optional_buffer(out, upgrade.signature.as_deref());
    }
    if let Some(manifest) = &proof.manifest {
        manifest.encode(out);
    }
}

fn decode_upgrade(reader: &mut Reader<'_>) -> Result<UpgradeProof, DecodeError> {
    Ok(UpgradeProof {
        start: reader.uint()?,
        length: reader.uint()?,
        nodes: nodes(reader)?,
        additional: nodes(reader)?,
        // Copied: a signature is kept long after the frame it came in.
        signature: reader.optional_buffer()?.map(Bytes::copy_from_slice),
    })
}

/// Says that a request will not be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoData {
    /// Its id.
    pub request: u64,
    /// Why.
    pub reason: Reason,
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reason {
    /// Not said; version 10 never says.
    #[default]
    None,
    /// The block is not here, or the fork is another.
    NotAvailable,
    /// The request makes no sense.
    InvalidRequest,
    /// Of a later version.
    Other(u64),
}

impl From<u64> for Reason {
    fn from(number: u64) -> Self {
        match number {
            0 => Self::None,
            1 => Self::NotAvailable,
            2 => Self::InvalidRequest,
            other => Self::Other(other),
        }
    }
}

impl From<Reason> for u64 {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::None => 0,
            Reason::NotAvailable => 1,
            Reason::InvalidRequest => 2,
            Reason::Other(other) => other,
        }
    }
}

impl NoData {
    const REASON: u64 = 1;

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let reason = u64::from(self.reason);
        put_uints(out, [self.request, flag(reason != 0, Self::REASON)]);
        if reason != 0 {
            put_uint(out, reason);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let request = reader.uint()?;
        let flags = optional_flags(reader)?;
        let reason = when(flags, Self::REASON, || reader.uint())?.unwrap_or(0);
        Ok(Self {
            request,
            reason: reason.into(),
        })
    }
}

fn put_nodes(out: &mut Vec<u8>, nodes: &[Node]) {
    put_array(out, nodes, |out, node| node.encode(out));
}

fn nodes(reader: &mut Reader<'_>) -> Result<Vec<Node>, DecodeError> {
    reader.array(Node::ENCODED_LEN_MIN, Node::decode)
}
