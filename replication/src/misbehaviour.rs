//! What a peer can do wrong, and what is done about it.

use ferrocore_log::changeset::VerifyError;
use ferrocore_primitives::encoding::DecodeError;

/// The peer broke the protocol.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// Its frames are not Protomux.
    #[error(transparent)]
    Mux(#[from] ferrocore_mux::PeerMisbehaved),
    /// A message cannot be decoded.
    #[error("peer sent a malformed message of kind {kind}: {source}")]
    Malformed {
        /// The message's number on the channel.
        kind: u64,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A channel's opening bytes cannot be decoded.
    #[error("peer sent a malformed channel handshake: {0}")]
    MalformedHandshake(#[source] DecodeError),
    /// It does not know the key of the core it asks for.
    #[error("peer could not show that it knows the core's key")]
    BadCapability,
    /// [`INVALID_REQUESTS_MAX`](crate::limits::INVALID_REQUESTS_MAX) requests made no sense.
    #[error("peer sent too many requests that make no sense")]
    TooManyInvalidRequests,
    /// A proof does not hold.
    #[error("peer sent a proof that does not hold: {0}")]
    BadProof(#[source] VerifyError),
    /// [`DENIALS_MAX`](crate::limits::DENIALS_MAX) blocks were announced and not given.
    #[error("peer withholds blocks that it announced")]
    TooManyDenials,
    /// [`STRIKES_MAX`](crate::limits::STRIKES_MAX) channels were closed for bad proofs.
    #[error("peer sent bad proofs on too many channels")]
    TooManyStrikes,
}

/// What becomes of a peer that misbehaved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Ask it for nothing more on this channel until one side moves to another fork, but keep answering.
    StopAsking,
    /// Close the channel; other cores may be fine.
    CloseChannel,
    /// Close the connection.
    CloseConnection,
    /// Close the connection, and keep the peer's key away for a time, if there is somebody who can: it has lied, and can
    /// prove nothing to the contrary by connecting again.
    Ban,
}

impl Verdict {
    /// A name for logs and programs, in snake case. Names stay as they are.
    pub fn name(self) -> &'static str {
        match self {
            Self::StopAsking => "asked_no_more",
            Self::CloseChannel => "channel_closed",
            Self::CloseConnection => "disconnected",
            Self::Ban => "banned",
        }
    }
}

impl PeerMisbehaved {
    /// A name for logs and programs, in snake case. Names stay as they are; later versions may add some.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Mux(_) => "mux",
            Self::Malformed { .. } => "malformed",
            Self::MalformedHandshake(_) => "malformed_handshake",
            Self::BadCapability => "bad_capability",
            Self::TooManyInvalidRequests => "too_many_invalid_requests",
            Self::BadProof(_) => "bad_proof",
            Self::TooManyDenials => "too_many_denials",
            Self::TooManyStrikes => "too_many_strikes",
        }
    }

    /// What is done about it.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::TooManyDenials => Verdict::StopAsking,
            Self::BadProof(_) => Verdict::CloseChannel,
            Self::Mux(_)
            | Self::Malformed { .. }
            | Self::MalformedHandshake(_)
            | Self::TooManyInvalidRequests => Verdict::CloseConnection,
            Self::BadCapability | Self::TooManyStrikes => Verdict::Ban,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_for_programs() {
        // Programs compare these strings: a changed one breaks them.
        let named = [
            (PeerMisbehaved::BadCapability, "bad_capability", "banned"),
            (
                PeerMisbehaved::BadProof(VerifyError::Manifest),
                "bad_proof",
                "channel_closed",
            ),
            (
                PeerMisbehaved::TooManyInvalidRequests,
                "too_many_invalid_requests",
                "disconnected",
            ),
            (
                PeerMisbehaved::TooManyDenials,
                "too_many_denials",
                "asked_no_more",
            ),
        ];
        for (misbehaved, kind, verdict) in named {
            assert_eq!(misbehaved.kind(), kind);
            assert_eq!(misbehaved.verdict().name(), verdict);
        }
    }
}
