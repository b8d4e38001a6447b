//! Making manifests that keep the rules of JavaScript's `createManifest`.

use ferrocore_primitives::keys::Key;
use ferrocore_primitives::namespace;
use ferrocore_primitives::sign::PublicKey;
use thiserror::Error;

use super::{MANIFEST_VERSION_MAX, Manifest, Prologue, SIGNERS_MAX, Signer};

/// The first version that has linked cores and user data.
const EXTENDED_VERSION: u64 = 2;

/// A manifest in the making; [`Manifest::builder`] begins one.
///
/// | what is not given | is (`hypercore/lib/verifier.js` 11.37.1, `createManifest`) |
/// |---|---|
/// | version | 2 with linked cores or user data, else 1 |
/// | quorum | more than half of the signers; 0 without any |
/// | namespace of a signer | the default one |
#[derive(Debug, Clone, Default)]
pub struct ManifestBuilder {
    version: Option<u64>,
    allow_patch: bool,
    quorum: Option<u64>,
    signers: Vec<Signer>,
    prologue: Option<Prologue>,
    linked: Vec<Key>,
    user_data: Option<Vec<u8>>,
}

/// What was asked for is no manifest; the text says what to change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Nobody understands this version.
    #[error("manifests of version {0} are not known")]
    Version(u64),
    /// No signature could ever hold.
    #[error("a quorum of {quorum} is more than the {signers} signers there are")]
    Quorum {
        /// Asked for.
        quorum: u64,
        /// Given.
        signers: usize,
    },
    /// There are more signers than [`SIGNERS_MAX`].
    #[error("{0} signers are too many")]
    Signers(usize),
    /// This version has no place for it; leave the version out.
    #[error("manifests of version {version} have no {field}")]
    Field {
        /// Asked for.
        version: u64,
        /// What they lack.
        field: &'static str,
    },
    /// Neither signers nor a pinned beginning: the core would stay empty.
    #[error("without a signer or a pinned beginning a core stays empty")]
    Nobody,
}

impl ManifestBuilder {
    /// Adds a signer in the default namespace.
    pub fn signer(self, public_key: PublicKey) -> Self {
        self.signer_in(Signer {
            namespace: namespace::default_namespace(),
            public_key,
        })
    }

    /// Adds a signer with its namespace.
    pub fn signer_in(mut self, signer: Signer) -> Self {
        self.signers.push(signer);
        self
    }

    /// How many signers must agree.
    pub fn quorum(mut self, quorum: u64) -> Self {
        self.quorum = Some(quorum);
        self
    }

    /// Lets a quorum be assembled from signatures over trees of different lengths.
    pub fn allow_patch(mut self) -> Self {
        self.allow_patch = true;
        self
    }

    /// Pins the beginning. Without signers that is all there ever is: a static core.
    pub fn prologue(mut self, prologue: Prologue) -> Self {
        self.prologue = Some(prologue);
        self
    }

    /// Names a core that belongs to this one.
    pub fn link(mut self, core: Key) -> Self {
        self.linked.push(core);
        self
    }

    /// Free bytes of the application.
    pub fn user_data(mut self, user_data: impl Into<Vec<u8>>) -> Self {
        self.user_data = Some(user_data.into());
        self
    }

    /// The format version.
    pub fn version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }

    /// The manifest.
    ///
    /// # Errors
    /// [`ManifestError`] if it could not be encoded, or no core could ever be signed under it.
    pub fn build(self) -> Result<Manifest, ManifestError> {
        let version = self.version.unwrap_or_else(|| self.least_version());
        if version > MANIFEST_VERSION_MAX {
            return Err(ManifestError::Version(version));
        }
        if let Some(field) = self.field_unknown_to(version) {
            return Err(ManifestError::Field { version, field });
        }
        let signers = self.signers.len();
        if signers > SIGNERS_MAX {
            return Err(ManifestError::Signers(signers));
        }
        if signers == 0 && self.prologue.is_none() {
            return Err(ManifestError::Nobody);
        }
        let majority = if signers == 0 {
            0
        } else {
            signers as u64 / 2 + 1
        };
        let quorum = self.quorum.unwrap_or(majority);
        if quorum > signers as u64 {
            return Err(ManifestError::Quorum { quorum, signers });
        }
        Ok(Manifest {
            version,
            allow_patch: self.allow_patch,
            quorum,
            signers: self.signers,
            prologue: self.prologue,
            linked: (!self.linked.is_empty()).then_some(self.linked),
            user_data: self.user_data,
        })
    }

    fn least_version(&self) -> u64 {
        let is_extended = !self.linked.is_empty() || self.user_data.is_some();
        if is_extended { EXTENDED_VERSION } else { 1 }
    }

    /// What was asked for that manifests of this version have no place for.
    fn field_unknown_to(&self, version: u64) -> Option<&'static str> {
        let unknown = [
            // Its static cores can be named, but never verified.
            ("prologue", version == 0 && self.prologue.is_some()),
            (
                "linked cores",
                version < EXTENDED_VERSION && !self.linked.is_empty(),
            ),
            (
                "user data",
                version < EXTENDED_VERSION && self.user_data.is_some(),
            ),
        ];
        unknown
            .into_iter()
            .find_map(|(field, is_so)| is_so.then_some(field))
    }
}

#[cfg(test)]
mod tests {
    use ferrocore_primitives::encoding::{Decode as _, Encode as _};
    use ferrocore_primitives::hash::Hash;

    use super::*;

    fn public_key(byte: u8) -> PublicKey {
        PublicKey::from([byte; 32])
    }

    fn three() -> ManifestBuilder {
        let signers = [1, 2, 3].map(public_key);
        signers
            .into_iter()
            .fold(Manifest::builder(), ManifestBuilder::signer)
    }

    #[test]
    fn what_is_left_out_is_what_javascript_takes() {
        let one = Manifest::builder().signer(public_key(1)).build();
        assert_eq!(one.unwrap(), Manifest::single(public_key(1)));
        let manifest = three().build().unwrap();
        assert_eq!((manifest.version, manifest.quorum), (1, 2));
        let linked = three().link(Key::from([7; 32])).build().unwrap();
        assert_eq!((linked.version, linked.linked.unwrap().len()), (2, 1));
        assert_eq!(three().user_data("x").build().unwrap().version, 2);
        assert_eq!(three().version(0).build().unwrap().version, 0);
    }

    #[test]
    fn whatever_is_built_is_read_back() {
        let hash = Hash::from([9; 32]);
        let prologue = Prologue { hash, length: 300 };
        let all = three().allow_patch().quorum(3).link(Key::from([7; 32]));
        let all = all.user_data("app").prologue(prologue).version(3);
        let built = [
            all,
            three().version(0).allow_patch(),
            Manifest::builder().prologue(prologue),
        ];
        for built in built.map(|builder| builder.build().unwrap()) {
            assert_eq!(Manifest::from_slice(&built.to_vec()).unwrap(), built);
        }
    }

    #[test]
    fn what_could_never_be_signed_or_encoded_is_refused() {
        let (quorum, signers) = (4, 3);
        let error = |builder: ManifestBuilder| builder.build().unwrap_err();
        assert_eq!(
            error(three().quorum(4)),
            ManifestError::Quorum { quorum, signers }
        );
        assert_eq!(error(three().version(4)), ManifestError::Version(4));
        assert_eq!(error(Manifest::builder()), ManifestError::Nobody);
        let hash = Hash::from([9; 32]);
        let pinned = three().version(0).prologue(Prologue { hash, length: 1 });
        for (builder, version, field) in [
            (
                three().version(1).link(Key::from([7; 32])),
                1,
                "linked cores",
            ),
            (three().version(1).user_data(""), 1, "user data"),
            (pinned, 0, "prologue"),
        ] {
            assert_eq!(error(builder), ManifestError::Field { version, field });
        }
        let crowd = (0..=SIGNERS_MAX).fold(Manifest::builder(), |builder, _| {
            builder.signer(public_key(1))
        });
        assert_eq!(error(crowd), ManifestError::Signers(SIGNERS_MAX + 1));
    }
}
