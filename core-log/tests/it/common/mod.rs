//! What several test files share: golden vectors and a way to drive a future that is ready.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use ferrocore_log::Corestore;
use ferrocore_log::corestore::CoreInfo;
use ferrocore_log::merkle::Node;
use ferrocore_primitives::hash::Hash;
use serde_json::Value;

const CORE_JSON: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../interop-tests/vectors/core.json"
);

/// The vectors of one section of core.json.
pub(crate) fn section(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(CORE_JSON).expect("the vectors are part of the repository");
    let all: Value = serde_json::from_str(&text).expect("core.json is JSON");
    let vectors = all["vectors"].as_array().expect("a list of vectors");
    let of_section = |v: &&Value| v["section"] == name;
    let found: Vec<_> = vectors.iter().filter(of_section).cloned().collect();
    assert!(!found.is_empty(), "section {name} exists");
    found
}

/// The vector `id` of a section.
pub(crate) fn vector(name: &str, id: &str) -> Value {
    let found = section(name).into_iter().find(|v| v["id"] == id);
    found.unwrap_or_else(|| panic!("vector {name}/{id} exists"))
}

pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("a hex string")).expect("hex")
}

pub(crate) fn fixed32(value: &Value) -> [u8; 32] {
    bytes(value).try_into().expect("32 bytes")
}

pub(crate) fn hash(value: &Value) -> Hash {
    Hash::from(fixed32(value))
}

pub(crate) fn nodes(value: &Value) -> Vec<Node> {
    let items = value.as_array().map_or(&[][..], Vec::as_slice);
    let node = |v: &Value| Node {
        index: v["index"].as_u64().expect("index"),
        size: v["size"].as_u64().expect("size"),
        hash: hash(&v["hash"]),
    };
    items.iter().map(node).collect()
}

/// The value of a future that must be ready at its first poll.
pub(crate) fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the future should have been ready"),
    }
}

/// What is told of the cores of a store without damage.
pub(crate) fn infos(store: &Corestore) -> Vec<CoreInfo> {
    let listed = store.list().unwrap().into_iter();
    listed.map(|core| core.info.unwrap()).collect()
}
