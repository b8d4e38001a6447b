//! Bytes under a passphrase.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 10 | `fcore-keys` |
//! | 10 | 1 | version, 1 |
//! | 11 | 4 | memory of Argon2id in KiB, little endian, as the next two |
//! | 15 | 4 | its passes |
//! | 19 | 4 | its lanes |
//! | 23 | 16 | its salt |
//! | 39 | 24 | the nonce |
//! | 63 | rest | XChaCha20-Poly1305 of the content, with the tag behind it and all before as associated data |
//!
//! The key is the 32 bytes of Argon2id (version 0x13) of the passphrase. Knows ciphers. Does not know what
//! it seals.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use ferrocore_primitives::encoding::{Reader, put_u32};
use ferrocore_primitives::random;
use zeroize::Zeroizing;

use super::BackupError;

const MAGIC: &[u8] = b"fcore-keys";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 63;

/// What a new backup costs whoever tries passphrases: the second recommendation of RFC 9106, for where
/// memory is scarce. A file says its own, so that it can be raised.
const COST: Cost = Cost {
    memory_kib: 64 * 1024,
    passes: 3,
    lanes: 4,
};

/// Most memory that a file may make us take, in KiB: a gibibyte.
const MEMORY_KIB_MAX: u32 = 1 << 20;
/// Most passes that a file may make us run.
const PASSES_MAX: u32 = 64;
/// Most lanes that a file may name.
const LANES_MAX: u32 = 64;

/// How hard it is to try a passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// What stands before the cipher text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    cost: Cost,
    salt: [u8; 16],
    nonce: [u8; 24],
}

impl Head {
    fn new(cost: Cost) -> Self {
        Self {
            cost,
            salt: random::bytes(),
            nonce: random::bytes(),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        let Cost {
            memory_kib,
            passes,
            lanes,
        } = self.cost;
        for number in [memory_kib, passes, lanes] {
            put_u32(&mut out, number);
        }
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.nonce);
        out
    }

    /// Reads no further than the head, and works no harder than that takes.
    pub(super) fn decode(sealed: &[u8]) -> Result<Self, BackupError> {
        let damaged = |_| BackupError::Damaged;
        let mut reader = Reader::new(sealed.strip_prefix(MAGIC).ok_or(BackupError::NotABackup)?);
        match reader.u8().map_err(damaged)? {
            VERSION => {}
            version => return Err(BackupError::Version { version }),
        }
        let cost = Cost {
            memory_kib: reader.u32().map_err(damaged)?,
            passes: reader.u32().map_err(damaged)?,
            lanes: reader.u32().map_err(damaged)?,
        };
        if !cost.is_bounded() {
            return Err(BackupError::Damaged);
        }
        Ok(Self {
            cost,
            salt: reader.fixed().map_err(damaged)?,
            nonce: reader.fixed().map_err(damaged)?,
        })
    }

    fn cipher(&self, passphrase: &[u8]) -> Option<XChaCha20Poly1305> {
        self.cost.cipher(passphrase, &self.salt)
    }
}

/// Encrypts `content` for whoever has the passphrase.
pub(super) fn seal(content: &[u8], passphrase: &[u8]) -> Vec<u8> {
    seal_at(COST, content, passphrase)
}

fn seal_at(cost: Cost, content: &[u8], passphrase: &[u8]) -> Vec<u8> {
    let head = Head::new(cost);
    let mut sealed = head.encode();
    let cipher = head.cipher(passphrase);
    let cipher = cipher.expect("our own cost is within bounds");
    let payload = Payload {
        msg: content,
        aad: &sealed,
    };
    let body = cipher.encrypt(&XNonce::from(head.nonce), payload);
    sealed.extend(body.expect("a backup is shorter than 256 GiB"));
    sealed
}

/// Decrypts what [`seal`] made.
pub(super) fn open(sealed: &[u8], passphrase: &[u8]) -> Result<Zeroizing<Vec<u8>>, BackupError> {
    let head = Head::decode(sealed)?;
    let (aad, msg) = sealed.split_at(HEADER_BYTES);
    let cipher = head.cipher(passphrase).ok_or(BackupError::Damaged)?;
    let content = cipher.decrypt(&XNonce::from(head.nonce), Payload { msg, aad });
    content
        .map(Zeroizing::new)
        .map_err(|_| BackupError::Passphrase)
}

impl Cost {
    fn is_bounded(self) -> bool {
        self.memory_kib <= MEMORY_KIB_MAX && self.passes <= PASSES_MAX && self.lanes <= LANES_MAX
    }

    /// The cipher that a passphrase gives; `None` if it would cost too much, or makes no sense.
    fn cipher(self, passphrase: &[u8], salt: &[u8]) -> Option<XChaCha20Poly1305> {
        if !self.is_bounded() {
            return None;
        }
        let mut key = Zeroizing::new([0; 32]);
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(key.len())).ok()?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2
            .hash_password_into(passphrase, salt, key.as_mut_slice())
            .ok()?;
        Some(XChaCha20Poly1305::new(key.as_slice().try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };

    #[test]
    fn only_the_passphrase_opens_it() {
        let sealed = seal(b"content", b"passphrase");
        assert_eq!(*open(&sealed, b"passphrase").unwrap(), b"content");
        let sealed = seal_at(CHEAP, b"content", b"passphrase");
        assert_eq!(*open(&sealed, b"passphrase").unwrap(), b"content");
        assert_eq!(open(&sealed, b"Passphrase"), Err(BackupError::Passphrase));
        let again = seal_at(CHEAP, b"content", b"passphrase");
        assert_ne!(again, sealed, "salt and nonce are new");
        assert!(!sealed.windows(7).any(|window| window == b"content"));
    }

    /// Goal: no changed or missing byte goes unseen, nor makes us work or allocate without bound.
    #[test]
    fn damage_is_found() {
        let sealed = seal_at(CHEAP, b"content", b"passphrase");
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                assert!(open(&changed, b"passphrase").is_err(), "byte {at}");
            }
        }
        for len in 0..sealed.len() {
            assert!(open(&sealed[..len], b"passphrase").is_err(), "cut to {len}");
        }
    }

    #[test]
    fn costs_are_bounded() {
        let cipher = |memory_kib, passes, lanes| {
            let cost = Cost {
                memory_kib,
                passes,
                lanes,
            };
            cost.cipher(b"", &[0; 16]).is_some()
        };
        assert!(cipher(8, 1, 1));
        assert!(!cipher(0, 0, 0));
        assert!(!cipher(MEMORY_KIB_MAX + 1, 1, 1));
        assert!(!cipher(8, PASSES_MAX + 1, 1));
        assert!(!cipher(1024, 1, LANES_MAX + 1));
        assert!(!cipher(7, 1, 1));
    }
}
