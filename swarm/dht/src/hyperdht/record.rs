//! Records of anything: mutable ones, signed and numbered, and immutable ones, kept under their hash.
//! Knows what is signed and where a record belongs. Does not know which of two records a node keeps.
//!
//! | value | layout |
//! |---|---|
//! | [`MutableGet`] | the lowest sequence number wanted, uint |
//! | [`MutableRecord`] | sequence number uint, value buffer, signature 64 |
//! | [`MutablePut`] | public key 32, then as [`MutableRecord`] |
//! | signed | namespace 32, BLAKE2b-256 of (sequence number uint, value buffer) |
//!
//! An immutable record is its bare value; [`Id::of_value`] says where it belongs.

use ferrocore_primitives::encoding::{
    Decode, DecodeError, Encode, Reader, buffer_len, put_buffer, put_uint, uint_len,
};
use ferrocore_primitives::hash::hash;
use ferrocore_primitives::sign::{KeyPair, PublicKey, Signature};

use super::{RecordError, mutable_put_namespace};
use crate::id::Id;

/// Asks for a mutable record. JavaScript nodes drop the request without this value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MutableGet {
    /// Older records are not sent.
    pub seq_min: u64,
}

/// A mutable record without its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MutableRecord {
    /// Its number: the highest wins.
    pub seq: u64,
    /// What it says. Must fit in a datagram with the rest: about 1,000 bytes travel everywhere.
    pub value: Vec<u8>,
    /// The key's signature over both.
    pub signature: Signature,
}

/// A mutable record on its way to a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MutablePut {
    /// Whose record it is.
    pub public_key: PublicKey,
    /// The record.
    pub record: MutableRecord,
}

impl MutableRecord {
    /// Record number `seq`, signed.
    pub fn signed(seq: u64, value: Vec<u8>, keys: &KeyPair) -> Self {
        let signature = keys.sign(&signable(seq, &value));
        Self {
            seq,
            value,
            signature,
        }
    }

    /// Checks that `key` signed this record.
    ///
    /// # Errors
    /// [`RecordError::BadSignature`] if it did not.
    pub fn verify(&self, key: &PublicKey) -> Result<(), RecordError> {
        key.verify(&signable(self.seq, &self.value), &self.signature)
            .then_some(())
            .ok_or(RecordError::BadSignature)
    }
}

impl MutablePut {
    /// Checks that the record belongs under `target` and is signed.
    ///
    /// # Errors
    /// [`RecordError::WrongTarget`] or [`RecordError::BadSignature`].
    pub fn verify(&self, target: &Id) -> Result<(), RecordError> {
        if Id::of_public_key(&self.public_key) != *target {
            return Err(RecordError::WrongTarget);
        }
        self.record.verify(&self.public_key)
    }
}

/// The 64 bytes that are signed: for signers that are elsewhere. [`MutableRecord::signed`] does it at once.
pub fn signable(seq: u64, value: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(uint_len(seq) + buffer_len(value.len()));
    put_uint(&mut record, seq);
    put_buffer(&mut record, value);
    let digest = hash(&[&record]);
    [*mutable_put_namespace().as_bytes(), *digest.as_bytes()].concat()
}

impl Encode for MutableGet {
    fn encoded_len(&self) -> usize {
        uint_len(self.seq_min)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, self.seq_min);
    }
}

impl Decode for MutableGet {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let seq_min = reader.uint()?;
        Ok(Self { seq_min })
    }
}

impl Encode for MutableRecord {
    fn encoded_len(&self) -> usize {
        uint_len(self.seq) + buffer_len(self.value.len()) + Signature::LEN
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_uint(out, self.seq);
        put_buffer(out, &self.value);
        self.signature.encode(out);
    }
}

impl Decode for MutableRecord {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            seq: reader.uint()?,
            value: reader.buffer()?.to_vec(),
            signature: Signature::decode(reader)?,
        })
    }
}

impl Encode for MutablePut {
    fn encoded_len(&self) -> usize {
        PublicKey::LEN + self.record.encoded_len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.public_key.encode(out);
        self.record.encode(out);
    }
}

impl Decode for MutablePut {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            public_key: PublicKey::decode(reader)?,
            record: MutableRecord::decode(reader)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_holds_for_its_key_number_value_and_target() {
        let keys = KeyPair::from_seed(&[7; 32]);
        let good = MutablePut {
            public_key: keys.public_key(),
            record: MutableRecord::signed(4, b"value".to_vec(), &keys),
        };
        let target = Id::of_public_key(&keys.public_key());
        assert_eq!(good.verify(&target), Ok(()));
        assert_eq!(good.verify(&[0; 32].into()), Err(RecordError::WrongTarget));

        let mut changed = [good.clone(), good.clone()];
        changed[0].record.seq += 1;
        changed[1].record.value.push(0);
        for put in changed {
            assert_eq!(put.verify(&target), Err(RecordError::BadSignature));
        }
        let other = KeyPair::from_seed(&[8; 32]).public_key();
        assert_eq!(good.record.verify(&other), Err(RecordError::BadSignature));
    }
}
