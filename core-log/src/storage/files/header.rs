//! The header of a core: what its oplog slots hold, or the file `header` when it is too long.
//!
//! | field | encoding |
//! |---|---|
//! | version | uint 1 |
//! | flags | uint: 1 external, 2 manifest, 4 key pair |
//! | external | uint start, uint length of the header in the file `header`; ours: `fc02` and the CRC-32 of its bytes there; nothing else follows |
//! | key | 32 bytes |
//! | manifest | wire form, if flagged |
//! | key pair | buffer public key, buffer secret key (64 bytes or none), if flagged |
//! | user data | array of (string key, buffer value) |
//! | tree | uint fork, uint length, buffer root hash, buffer signature |
//! | hints | array of reorgs (uint from, uint to, uint ancestors), uint contiguous length |
//! | ours | `fc01` where the contiguous length is exact, and a page of the bitfield or more |
//!
//! Version 0 has strings naming three algorithms where the key and manifest are, and its key
//! pair, whose public key is the core's key, behind the tree. As in `hypercore/lib/messages.js`
//! 10.38.2. Its contiguous length may be too large after a clear that was replayed, so we believe only
//! what we wrote; it ignores our mark and drops it when it writes a header. Below a page a look at the
//! bitfield tells as soon, and the bytes are those that JavaScript writes.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use ferrocore_primitives::encoding::{
    ARRAY_LEN_MAX, Decode, DecodeError, Encode, Reader, put_buffer, put_string, put_uint,
};
use ferrocore_primitives::hash::Hash;
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::sign::{KeyPair, PublicKey};
use zeroize::Zeroizing;

use crate::bitfield::PAGE_BITS;
use crate::limits::NUMBER_MAX;
use crate::manifest::Manifest;
use crate::storage::{CoreHeader, Head};

/// The newest version that is understood, and the one that is written.
pub(super) const VERSION: u64 = 1;

/// Most bytes of what every header has but the signature: key, key pair, head, numbers.
const FIXED_BYTES_MAX: usize = 512;
/// Room that is kept for the signature, which many signers make long.
const SIGNATURE_ROOM_BYTES: usize = 1 << 20;
/// Most bytes that the lengths of one key and one value take.
const LENGTHS_BYTES_MAX: usize = 18;

const FLAG_EXTERNAL: u64 = 1;
const FLAG_MANIFEST: u64 = 2;
const FLAG_KEY_PAIR: u64 = 4;

/// Behind a contiguous length that can be relied on: that many blocks were here, and in the file
/// `bitfield`, when the header was written.
const EXACT: [u8; 2] = [0xfc, 0x01];

/// Before the checksum of a header that lies elsewhere. hypercore 10 reads no further than the place.
const CHECKED: [u8; 2] = [0xfc, 0x02];

/// A header as it is stored.
#[derive(Debug)]
pub(super) struct StoredHeader {
    pub(super) header: CoreHeader,
    /// So many blocks from the first were here, if the header can be believed.
    pub(super) contiguous_length: Option<u64>,
}

/// What a slot holds.
#[derive(Debug)]
pub(super) enum Slot {
    /// The header itself.
    Inline(Box<StoredHeader>),
    /// It is in the file `header`.
    External(External),
}

/// A header that is too long for a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct External {
    /// Where in the file `header` it is.
    pub(super) at: Range<u64>,
    /// The CRC-32 of its bytes, if we wrote it.
    checksum: Option<u32>,
}

impl External {
    /// `payload`, written to the file from `start` on.
    pub(super) fn of(payload: &[u8], start: u64) -> Self {
        Self {
            at: start..start + payload.len() as u64,
            checksum: Some(crc32fast::hash(payload)),
        }
    }

    /// Whether these bytes are what was written, as far as it is known.
    pub(super) fn is(&self, payload: &[u8]) -> bool {
        let checksum = self.checksum;
        checksum.is_none_or(|checksum| crc32fast::hash(payload) == checksum)
    }

    /// The payload of a slot that tells of it.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_uint(&mut out, VERSION);
        put_uint(&mut out, FLAG_EXTERNAL);
        put_uint(&mut out, self.at.start);
        put_uint(&mut out, self.at.end - self.at.start);
        if let Some(checksum) = self.checksum {
            out.extend_from_slice(&CHECKED);
            out.extend_from_slice(&checksum.to_le_bytes());
        }
        out
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (start, length) = (reader.uint()?, reader.uint()?);
        let end = start.checked_add(length).filter(|end| *end <= NUMBER_MAX);
        let end = end.ok_or(DecodeError::Invalid("an external header past any file"))?;
        let is_checked = reader.fixed().is_ok_and(|mark: [u8; 2]| mark == CHECKED);
        let checksum = match is_checked {
            true => Some(u32::from_le_bytes(reader.fixed()?)),
            false => None,
        };
        let at = start..end;
        Ok(Self { at, checksum })
    }
}

/// The version a slot's payload claims to have.
pub(super) fn version(payload: &[u8]) -> Result<u64, DecodeError> {
    Reader::new(payload).uint()
}

impl Decode for Slot {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.uint()? {
            0 => decode_v0(reader).map(|header| {
                let contiguous_length = None;
                Self::Inline(Box::new(StoredHeader {
                    header,
                    contiguous_length,
                }))
            }),
            VERSION => decode_v1(reader),
            _ => Err(DecodeError::Invalid("unknown header version")),
        }
    }
}

fn decode_v1(reader: &mut Reader<'_>) -> Result<Slot, DecodeError> {
    let flags = reader.uint()?;
    if flags & FLAG_EXTERNAL != 0 {
        return External::decode(reader).map(Slot::External);
    }
    let key = Key::decode(reader)?;
    let manifest = match flags & FLAG_MANIFEST {
        0 => None,
        _ => Some(Manifest::decode(reader)?),
    };
    let key_pair = match flags & FLAG_KEY_PAIR {
        0 => None,
        _ => read_key_pair(reader)?.1,
    };
    let user_data = read_user_data(reader)?;
    let head = read_head(reader)?;
    let header = CoreHeader {
        key,
        manifest,
        key_pair,
        user_data,
        head,
    };
    let contiguous_length = read_contiguous_length(reader).ok().flatten();
    Ok(Slot::Inline(Box::new(StoredHeader {
        header,
        contiguous_length,
    })))
}

/// The contiguous length, if it is marked as exact.
fn read_contiguous_length(reader: &mut Reader<'_>) -> Result<Option<u64>, DecodeError> {
    let reorg = |reader: &mut Reader<'_>| {
        let _from_to_ancestors = [reader.uint()?, reader.uint()?, reader.uint()?];
        Ok(())
    };
    reader.array(3, reorg)?;
    let contiguous_length = reader.uint()?;
    Ok((reader.fixed()? == EXACT).then_some(contiguous_length))
}

fn decode_v0(reader: &mut Reader<'_>) -> Result<CoreHeader, DecodeError> {
    for _algorithm in ["tree", "bitfield", "signer"] {
        reader.string()?;
    }
    let user_data = read_user_data(reader)?;
    let head = read_head(reader)?;
    let (public_key, key_pair) = read_key_pair(reader)?;
    Ok(CoreHeader {
        key: Key::from(*public_key.as_bytes()),
        manifest: Some(Manifest::compat(public_key)),
        key_pair,
        user_data,
        head,
    })
}

/// The public key, and the pair if the secret key is there too.
fn read_key_pair(reader: &mut Reader<'_>) -> Result<(PublicKey, Option<KeyPair>), DecodeError> {
    let not_a_pair = DecodeError::Invalid("not an ed25519 key pair");
    let public_key = PublicKey::try_from(reader.buffer()?).map_err(|_| not_a_pair.clone())?;
    let Some(secret) = reader.optional_buffer()? else {
        return Ok((public_key, None));
    };
    let secret: &[u8; 64] = secret.try_into().map_err(|_| not_a_pair.clone())?;
    let key_pair = KeyPair::from_secret(secret).map_err(|_| not_a_pair.clone())?;
    if key_pair.public_key() != public_key {
        return Err(not_a_pair);
    }
    Ok((public_key, Some(key_pair)))
}

fn read_user_data(reader: &mut Reader<'_>) -> Result<BTreeMap<String, Vec<u8>>, DecodeError> {
    let pair = |reader: &mut Reader<'_>| {
        let key = reader.string()?.to_owned();
        Ok((key, reader.buffer()?.to_vec()))
    };
    Ok(reader.array(2, pair)?.into_iter().collect())
}

fn read_head(reader: &mut Reader<'_>) -> Result<Head, DecodeError> {
    let (fork, length) = (reader.uint()?, reader.uint()?);
    let root_hash = match reader.buffer()? {
        [] if length == 0 => Head::empty().root_hash,
        bytes => Hash::try_from(bytes).map_err(|_| DecodeError::Invalid("root hash length"))?,
    };
    Ok(Head {
        fork,
        length,
        root_hash,
        signature: Bytes::copy_from_slice(reader.buffer()?),
    })
}

/// The payload of `header` with the hint that the first `contiguous_length` blocks are here.
pub(super) fn encode(header: &CoreHeader, contiguous_length: u64) -> Zeroizing<Vec<u8>> {
    // A key pair may be inside: the buffer must not move while it grows, nor outlive its use.
    let user_data: usize = header
        .user_data
        .iter()
        .map(|(k, v)| k.len() + v.len() + LENGTHS_BYTES_MAX)
        .sum();
    let manifest = header.manifest.as_ref().map_or(0, Encode::encoded_len);
    let mut out = Zeroizing::new(Vec::with_capacity(
        FIXED_BYTES_MAX + header.head.signature.len() + manifest + user_data,
    ));
    put_uint(&mut out, VERSION);
    put_uint(&mut out, flags(header));
    out.extend_from_slice(header.key.as_bytes());
    if let Some(manifest) = &header.manifest {
        manifest.encode(&mut out);
    }
    if let Some(key_pair) = &header.key_pair {
        put_buffer(&mut out, key_pair.public_key().as_bytes());
        put_buffer(&mut out, key_pair.to_secret().as_slice());
    }
    put_uint(&mut out, header.user_data.len() as u64);
    for (key, value) in &header.user_data {
        put_string(&mut out, key);
        put_buffer(&mut out, value);
    }
    put_head(&mut out, &header.head);
    put_uint(&mut out, 0); // no reorg hints: nothing reads them
    put_uint(&mut out, contiguous_length);
    if contiguous_length >= PAGE_BITS {
        out.extend_from_slice(&EXACT);
    }
    out
}

/// Most bytes that a header of these parts may take; `None` if it could not be read back.
pub(super) fn bytes_max<'a>(
    manifest: Option<&Manifest>,
    user_data: impl Iterator<Item = (&'a String, usize)>,
) -> Option<u64> {
    let manifest = manifest.map_or(0, Encode::encoded_len);
    let (mut bytes, mut values) = (FIXED_BYTES_MAX + SIGNATURE_ROOM_BYTES + manifest, 0);
    for (key, value) in user_data {
        bytes += key.len() + value + LENGTHS_BYTES_MAX;
        values += 1;
    }
    (values <= ARRAY_LEN_MAX).then_some(bytes as u64)
}

fn flags(header: &CoreHeader) -> u64 {
    let manifest = header.manifest.as_ref().map_or(0, |_| FLAG_MANIFEST);
    manifest | header.key_pair.as_ref().map_or(0, |_| FLAG_KEY_PAIR)
}

fn put_head(out: &mut Vec<u8>, head: &Head) {
    put_uint(out, head.fork);
    put_uint(out, head.length);
    match head.length {
        0 => put_buffer(out, &[]),
        _ => put_buffer(out, head.root_hash.as_bytes()),
    }
    put_buffer(out, &head.signature);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrocore_primitives::encoding::put_array;
    use proptest::prelude::*;

    fn inline(payload: &[u8]) -> CoreHeader {
        match Slot::from_slice(payload).unwrap() {
            Slot::Inline(stored) => stored.header,
            Slot::External(external) => panic!("{external:?}"),
        }
    }

    #[test]
    fn a_header_comes_back_with_all_it_holds() {
        let key_pair = KeyPair::from_seed(&[1; 32]);
        let manifest = Manifest::single(key_pair.public_key());
        let header = CoreHeader {
            key: manifest.key(),
            manifest: Some(manifest),
            key_pair: Some(key_pair),
            user_data: BTreeMap::from([("a".to_owned(), vec![1, 2]), (String::new(), vec![])]),
            head: Head {
                fork: 2,
                length: 300,
                root_hash: Hash::from([7; 32]),
                signature: Bytes::from_static(&[9; 68]),
            },
        };
        let back = inline(&encode(&header, 5));
        assert_eq!(back.key, header.key);
        assert_eq!(back.manifest, header.manifest);
        assert_eq!(back.user_data, header.user_data);
        assert_eq!(back.head, header.head);
        assert_eq!(back.key_pair.unwrap().seed(), &[1; 32]);
    }

    /// Goal: a contiguous length is believed only where we wrote it.
    #[test]
    fn a_contiguous_length_without_our_mark_is_not_believed() {
        let manifest = Manifest::single(KeyPair::from_seed(&[1; 32]).public_key());
        let header = CoreHeader {
            key: manifest.key(),
            manifest: Some(manifest),
            key_pair: None,
            user_data: BTreeMap::new(),
            head: Head::empty(),
        };
        let told = |payload: &[u8]| match Slot::from_slice(payload).unwrap() {
            Slot::Inline(stored) => stored.contiguous_length,
            Slot::External(external) => panic!("{external:?}"),
        };
        assert_eq!(told(&encode(&header, PAGE_BITS - 1)), None);
        for length in [PAGE_BITS, 1 << 40] {
            let ours = encode(&header, length);
            assert_eq!(told(&ours), Some(length));
            assert_eq!(told(&ours[..ours.len() - EXACT.len()]), None);
            assert_eq!(told(&ours[..ours.len() - 1]), None);
        }
    }

    #[test]
    fn an_external_header_is_named_by_its_place() {
        let ours = External::of(b"a header", 4096);
        assert_eq!(ours.at, 4096..4104);
        let slot = Slot::from_slice(&ours.encode()).unwrap();
        assert!(matches!(slot, Slot::External(external) if external == ours));
        assert!(ours.is(b"a header") && !ours.is(b"a headex"));
    }

    /// Goal: what hypercore 10 wrote has no checksum, and is read.
    #[test]
    fn an_external_header_of_javascript_is_taken_as_it_is() {
        let payload = &External::of(b"a header", 4096).encode()[..6];
        assert_eq!(payload, [1, 1, 0xfd, 0, 0x10, 8]);
        let Slot::External(external) = Slot::from_slice(payload).unwrap() else {
            panic!("it is elsewhere");
        };
        assert_eq!(external.at, 4096..4104);
        assert!(external.is(b"any bytes"));
    }

    #[test]
    fn a_place_past_any_file_is_refused() {
        for place in [
            (u64::MAX, 1),
            (1, u64::MAX),
            (NUMBER_MAX, 1),
            (u64::MAX, u64::MAX),
        ] {
            let mut payload = vec![VERSION as u8, FLAG_EXTERNAL as u8];
            for number in [place.0, place.1] {
                payload.push(0xff);
                payload.extend(number.to_le_bytes());
            }
            assert!(Slot::from_slice(&payload).is_err(), "{place:?}");
        }
    }

    #[test]
    fn version_0_is_a_compat_core() {
        let key_pair = KeyPair::from_seed(&[3; 32]);
        let mut payload = vec![0];
        for algorithm in ["blake2b", "raw", "ed25519"] {
            put_string(&mut payload, algorithm);
        }
        put_array(&mut payload, &[("k", b"v")], |out, (key, value)| {
            put_string(out, key);
            put_buffer(out, *value);
        });
        put_head(&mut payload, &Head::empty());
        put_buffer(&mut payload, key_pair.public_key().as_bytes());
        put_buffer(&mut payload, key_pair.to_secret().as_slice());
        let header = inline(&payload);
        assert_eq!(header.key.as_bytes(), key_pair.public_key().as_bytes());
        assert!(header.manifest.unwrap().is_compat_for(&header.key));
        assert_eq!(header.user_data["k"], b"v");
        assert_eq!(header.key_pair.unwrap().seed(), key_pair.seed());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Slot::from_slice(&bytes);
        }
    }
}
