//! The Noise handshake, patterns XX and IK, on Ed25519 keys: `noise-handshake` 4.2.0.
//! Knows who writes what when. Does not know frames, timeouts or what the payloads say.

use std::fmt;

use ferrocore_primitives::sign::{KeyPair, PublicKey};

use crate::HandshakeError;
use crate::curve::shared_secret;
use crate::noise::{HASH_LEN, SecretKey, Symmetric};

/// The longest frame accepted from a peer during the handshake, in bytes. Messages without payloads have
/// at most 96; newer peers may add something small.
pub const HANDSHAKE_FRAME_LEN_MAX: usize = 512;

/// Who speaks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The side that connected; it writes the first message.
    Initiator,
    /// The side that accepted.
    Responder,
}

/// How the two sides learn each other's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Neither side knows the other's key beforehand; both are sent, encrypted. Three messages.
    Xx,
    /// The initiator knows the responder's key beforehand. Two messages.
    Ik,
}

/// A part of a message: a public key to send, or a shared secret to mix in, named by whose keys it joins
/// (initiator's first).
#[derive(Clone, Copy)]
enum Token {
    E,
    S,
    Ee,
    Es,
    Se,
    Ss,
}

impl Pattern {
    fn protocol_name(self) -> &'static str {
        match self {
            Self::Xx => "Noise_XX_Ed25519_ChaChaPoly_BLAKE2b",
            Self::Ik => "Noise_IK_Ed25519_ChaChaPoly_BLAKE2b",
        }
    }

    /// The messages in order; the initiator writes the first, then the sides alternate.
    fn messages(self) -> &'static [&'static [Token]] {
        use Token::{E, Ee, Es, S, Se, Ss};
        match self {
            Self::Xx => &[&[E], &[E, Ee, S, Es], &[S, Se]],
            Self::Ik => &[&[E, Es, S, Ss], &[E, Ee, Se]],
        }
    }
}

/// One side of a handshake in progress.
///
/// [`write`](Self::write) when it [is our turn](Self::is_our_turn), [`read`](Self::read) otherwise, until
/// it [is finished](Self::is_finished); then [`finish`](Self::finish).
///
/// A message that cannot be read ends it. Who cannot tell yet which of several messages is the peer's reads each with
/// a clone of its own.
#[derive(Clone)]
pub struct Handshake {
    role: Role,
    pattern: Pattern,
    symmetric: Symmetric,
    static_pair: KeyPair,
    ephemeral_pair: KeyPair,
    remote_static: Option<PublicKey>,
    remote_ephemeral: Option<PublicKey>,
    progress: Progress,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// This many messages have been written and read.
    Messages(usize),
    Failed,
}

/// What a finished handshake leaves behind.
#[derive(Clone)]
pub struct HandshakeResult {
    /// The key of what we send. Secret.
    pub tx: SecretKey,
    /// The key of what we receive. Secret.
    pub rx: SecretKey,
    /// The handshake hash: the same on both sides, and of this connection only.
    pub hash: [u8; HASH_LEN],
    /// The peer's key, which it has proven to own.
    pub remote_public_key: PublicKey,
    /// Whether we wrote the first message.
    pub is_initiator: bool,
}

impl Handshake {
    /// Starts an XX handshake.
    pub fn xx(role: Role, key_pair: &KeyPair) -> Self {
        Self::new(Pattern::Xx, role, key_pair, None)
    }

    /// Starts an IK handshake with the owner of `remote`.
    pub fn ik_initiator(key_pair: &KeyPair, remote: PublicKey) -> Self {
        Self::new(Pattern::Ik, Role::Initiator, key_pair, Some(remote))
    }

    /// Starts an IK handshake with whoever knows our key.
    pub fn ik_responder(key_pair: &KeyPair) -> Self {
        Self::new(Pattern::Ik, Role::Responder, key_pair, None)
    }

    fn new(pattern: Pattern, role: Role, pair: &KeyPair, remote: Option<PublicKey>) -> Self {
        Self {
            role,
            pattern,
            symmetric: Symmetric::new(pattern.protocol_name()),
            static_pair: pair.clone(),
            ephemeral_pair: KeyPair::generate(),
            remote_static: remote,
            remote_ephemeral: None,
            progress: Progress::Messages(0),
        }
        .with_prologue(&[])
    }

    /// Uses a given ephemeral key pair: for tests. A pair used twice gives away the session keys.
    #[must_use]
    pub fn with_ephemeral(mut self, pair: KeyPair) -> Self {
        self.ephemeral_pair = pair;
        self
    }

    /// Binds the handshake to `prologue`, which the other side must know too. Call it before the first
    /// message; without it the prologue is empty.
    #[must_use]
    pub fn with_prologue(mut self, prologue: &[u8]) -> Self {
        self.symmetric = Symmetric::new(self.pattern.protocol_name());
        self.symmetric.mix_hash(prologue);
        if self.pattern == Pattern::Ik {
            let responder = match self.role {
                Role::Initiator => self.remote_static,
                Role::Responder => Some(self.static_pair.public_key()),
            };
            let responder = responder.expect("`ik_initiator` takes the responder's key");
            self.symmetric.mix_hash(responder.as_bytes());
        }
        self
    }

    /// Writes the next message, with `payload` at its end.
    ///
    /// # Errors
    /// [`HandshakeError::UnusableKey`] if a key that the peer sent before turns out unusable only now;
    /// [`HandshakeError::OutOfTurn`]. The handshake has failed then.
    pub fn write(&mut self, payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let (tokens, next) = self.begin(true)?;
        let mut out = Vec::new();
        for token in tokens {
            self.write_token(*token, &mut out)?;
        }
        self.symmetric.encrypt(payload, &mut out);
        self.progress = next;
        Ok(out)
    }

    /// Reads the peer's next message and returns the payload at its end.
    ///
    /// # Errors
    /// [`HandshakeError`] if the message is not what it should be. The handshake has failed then.
    pub fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, HandshakeError> {
        let (tokens, next) = self.begin(false)?;
        let mut rest = message;
        for token in tokens {
            self.read_token(*token, &mut rest)?;
        }
        let payload = self.symmetric.decrypt(rest)?;
        self.progress = next;
        Ok(payload)
    }

    /// The keys.
    ///
    /// # Errors
    /// [`HandshakeError::OutOfTurn`] if the handshake is not finished.
    pub fn finish(self) -> Result<HandshakeResult, HandshakeError> {
        if !self.is_finished() {
            return Err(HandshakeError::OutOfTurn);
        }
        let (initiators, responders, hash) = self.symmetric.split();
        let (tx, rx) = match self.role {
            Role::Initiator => (initiators, responders),
            Role::Responder => (responders, initiators),
        };
        Ok(HandshakeResult {
            tx,
            rx,
            hash,
            remote_public_key: self.remote_static.ok_or(HandshakeError::OutOfTurn)?,
            is_initiator: self.role == Role::Initiator,
        })
    }

    /// The peer's key as far as it is known: from the start, or from the message that carried it. Proven to be the
    /// peer's when the handshake is finished.
    pub fn remote_public_key(&self) -> Option<PublicKey> {
        self.remote_static
    }

    /// Whether the next message is ours to write.
    pub fn is_our_turn(&self) -> bool {
        let initiator = self.role == Role::Initiator;
        matches!(self.progress, Progress::Messages(done) if done.is_multiple_of(2) == initiator)
            && !self.is_finished()
    }

    /// Whether all messages have been written and read.
    pub fn is_finished(&self) -> bool {
        self.progress == Progress::Messages(self.pattern.messages().len())
    }

    /// The tokens of the next message and the progress once it is done. Until that is set, the handshake
    /// counts as failed: an error in between has left it in no usable state.
    fn begin(&mut self, write: bool) -> Result<(&'static [Token], Progress), HandshakeError> {
        let our_turn = self.is_our_turn();
        let progress = std::mem::replace(&mut self.progress, Progress::Failed);
        match progress {
            Progress::Messages(done) if our_turn == write => self
                .pattern
                .messages()
                .get(done)
                .map(|tokens| (*tokens, Progress::Messages(done + 1))),
            _ => None,
        }
        .ok_or(HandshakeError::OutOfTurn)
    }

    fn write_token(&mut self, token: Token, out: &mut Vec<u8>) -> Result<(), HandshakeError> {
        match token {
            Token::E => {
                let key = self.ephemeral_pair.public_key();
                self.symmetric.mix_hash(key.as_bytes());
                out.extend_from_slice(key.as_bytes());
                Ok(())
            }
            Token::S => {
                let key = self.static_pair.public_key();
                self.symmetric.encrypt(key.as_bytes(), out);
                Ok(())
            }
            secret => self.mix_secret(secret),
        }
    }

    fn read_token(&mut self, token: Token, rest: &mut &[u8]) -> Result<(), HandshakeError> {
        match token {
            Token::E => {
                let key = take(rest, PublicKey::LEN)?;
                self.symmetric.mix_hash(key);
                self.remote_ephemeral = Some(parse_key(key)?);
                Ok(())
            }
            Token::S => {
                let key = take(rest, PublicKey::LEN + self.symmetric.overhead())?;
                let key = self.symmetric.decrypt(key)?;
                self.remote_static = Some(parse_key(&key)?);
                Ok(())
            }
            secret => self.mix_secret(secret),
        }
    }

    /// Mixes in the secret between one key pair of ours and one key of the peer's.
    fn mix_secret(&mut self, token: Token) -> Result<(), HandshakeError> {
        let initiator = self.role == Role::Initiator;
        let (ours_is_static, theirs_is_static) = match token {
            Token::Es => (!initiator, initiator),
            Token::Se => (initiator, !initiator),
            Token::Ss => (true, true),
            Token::Ee | Token::E | Token::S => (false, false),
        };
        let ours = match ours_is_static {
            true => &self.static_pair,
            false => &self.ephemeral_pair,
        };
        let theirs = match theirs_is_static {
            true => self.remote_static,
            false => self.remote_ephemeral,
        };
        // The patterns send every key before they use it.
        let theirs = theirs.ok_or(HandshakeError::OutOfTurn)?;
        let secret = shared_secret(ours, &theirs)?;
        self.symmetric.mix_key(&*secret);
        Ok(())
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("pattern", &self.pattern)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for HandshakeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeResult")
            .field("remote_public_key", &self.remote_public_key)
            .field("is_initiator", &self.is_initiator)
            .finish_non_exhaustive()
    }
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Result<&'a [u8], HandshakeError> {
    let (head, tail) = rest.split_at_checked(n).ok_or(HandshakeError::Truncated)?;
    *rest = tail;
    Ok(head)
}

fn parse_key(bytes: &[u8]) -> Result<PublicKey, HandshakeError> {
    PublicKey::try_from(bytes).map_err(|_| HandshakeError::Truncated)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both sides of each pattern, before the first message.
    fn pairs() -> [(Handshake, Handshake); 2] {
        let (a, b) = (KeyPair::generate(), KeyPair::generate());
        [
            (
                Handshake::xx(Role::Initiator, &a),
                Handshake::xx(Role::Responder, &b),
            ),
            (
                Handshake::ik_initiator(&a, b.public_key()),
                Handshake::ik_responder(&b),
            ),
        ]
    }

    #[test]
    fn payloads_arrive_and_both_sides_agree() {
        for (mut a, mut b) in pairs() {
            while !a.is_finished() {
                let (writer, reader) = match a.is_our_turn() {
                    true => (&mut a, &mut b),
                    false => (&mut b, &mut a),
                };
                let message = writer.write(b"payload").unwrap();
                assert_eq!(reader.read(&message).unwrap(), b"payload");
            }
            let (a_key, b_key) = (a.static_pair.public_key(), b.static_pair.public_key());
            let (a, b) = (a.finish().unwrap(), b.finish().unwrap());
            assert_eq!((&a.tx, &a.rx, a.hash), (&b.rx, &b.tx, b.hash));
            assert_eq!((a.remote_public_key, b.remote_public_key), (b_key, a_key));
        }
    }

    #[test]
    fn a_different_prologue_is_noticed() {
        for (a, mut b) in pairs() {
            let mut a = a.with_prologue(b"another protocol");
            let mut result = Ok(Vec::new());
            while result.is_ok() {
                let (writer, reader) = match a.is_our_turn() {
                    true => (&mut a, &mut b),
                    false => (&mut b, &mut a),
                };
                result = reader.read(&writer.write(&[]).unwrap());
            }
            assert_eq!(result, Err(HandshakeError::Forged));
        }
    }

    #[test]
    fn no_truncated_or_changed_message_is_accepted() {
        // The second message of XX has everything: a bare key, an encrypted one, an empty payload.
        let second = |pair: &KeyPair| {
            let mut a = Handshake::xx(Role::Initiator, pair);
            let mut b = Handshake::xx(Role::Responder, pair);
            b.read(&a.write(&[]).unwrap()).unwrap();
            (a, b.write(&[]).unwrap())
        };
        let pair = KeyPair::generate();
        let len = second(&pair).1.len();
        assert_eq!(len, 96);
        for at in 0..len {
            let (mut a, message) = second(&pair);
            assert!(a.read(&message[..at]).is_err());
            let (mut a, mut message) = second(&pair);
            message[at] ^= 1;
            assert!(a.read(&message).is_err());
            assert_eq!(
                a.read(&message),
                Err(HandshakeError::OutOfTurn),
                "it has failed"
            );
        }
    }

    #[test]
    fn steps_out_of_turn_are_refused() {
        let pair = KeyPair::generate();
        let mut a = Handshake::xx(Role::Initiator, &pair);
        assert_eq!(a.read(&[0; 32]), Err(HandshakeError::OutOfTurn));
        let mut b = Handshake::xx(Role::Responder, &pair);
        assert_eq!(b.write(&[]), Err(HandshakeError::OutOfTurn));
        assert!(Handshake::xx(Role::Initiator, &pair).finish().is_err());
    }
}
