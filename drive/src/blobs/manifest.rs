//! The blobs core of a drive, derived from the manifest of its index.
//!
//! | field | value (`hyperdrive/index.js` 13.3.4, `generateContentManifest`) |
//! |---|---|
//! | version, allow patch, quorum | as in the index |
//! | signers | same public keys; namespace = BLAKE2b(`BLOBS`, index key, signer's namespace) |
//! | prologue, linked, user data | none |

use ferrocore_log::Manifest;
use ferrocore_log::manifest::Signer;
use ferrocore_primitives::hash;
use ferrocore_primitives::keys::Key;
use ferrocore_primitives::namespace;

/// The manifest of the blobs core that belongs to the index `db` with key `db_key`.
///
/// `None` for indexes whose key is not a manifest's hash, or of manifest version 0: their blobs
/// core is named in the index's header instead.
pub fn blobs_manifest(db_key: &Key, db: &Manifest) -> Option<Manifest> {
    if db.version == 0 || db.is_compat_for(db_key) {
        return None;
    }
    let blobs = namespace::nth("hyperdrive", 0);
    let signer = |signer: &Signer| Signer {
        namespace: hash::hash(&[
            blobs.as_bytes(),
            db_key.as_bytes(),
            signer.namespace.as_bytes(),
        ]),
        public_key: signer.public_key,
    };
    Some(Manifest {
        version: db.version,
        allow_patch: db.allow_patch,
        quorum: db.quorum,
        signers: db.signers.iter().map(signer).collect(),
        prologue: None,
        linked: None,
        user_data: None,
    })
}
