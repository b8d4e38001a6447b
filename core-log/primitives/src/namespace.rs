//! Namespaces: constants that keep hashes and signatures of one use from passing for another.
//! Knows how they derive from a name. Does not know what is hashed or signed under them.

use std::sync::LazyLock;

use crate::hash::{Hash, hash};

/// The namespaces of the core layer, in the order of their numbers.
struct Hypercore {
    tree: Hash,
    replicate_initiator: Hash,
    replicate_responder: Hash,
    manifest: Hash,
    default_namespace: Hash,
    default_encryption: Hash,
}

static HYPERCORE: LazyLock<Hypercore> = LazyLock::new(|| Hypercore {
    tree: nth("hypercore", 0),
    replicate_initiator: nth("hypercore", 1),
    replicate_responder: nth("hypercore", 2),
    manifest: nth("hypercore", 3),
    default_namespace: nth("hypercore", 4),
    default_encryption: nth("hypercore", 5),
});

/// The first `count` namespaces of `name`.
pub fn namespace(name: &str, count: u8) -> Vec<Hash> {
    (0..count).map(|i| nth(name, i)).collect()
}

/// Namespace number `i` of `name`.
pub fn nth(name: &str, i: u8) -> Hash {
    let base = hash(&[name.as_bytes()]);
    hash(&[base.as_bytes(), &[i]])
}

/// What tree signatures are made under.
pub fn tree() -> Hash {
    HYPERCORE.tree
}

/// What the initiator of a connection proves its knowledge of a key under.
pub fn replicate_initiator() -> Hash {
    HYPERCORE.replicate_initiator
}

/// What the responder of a connection proves its knowledge of a key under.
pub fn replicate_responder() -> Hash {
    HYPERCORE.replicate_responder
}

/// What manifests are hashed under.
pub fn manifest() -> Hash {
    HYPERCORE.manifest
}

/// The namespace of a signer who names none.
pub fn default_namespace() -> Hash {
    HYPERCORE.default_namespace
}

/// What block encryption keys derive under.
pub fn default_encryption() -> Hash {
    HYPERCORE.default_encryption
}
