//! Reading `network.json`, and arbitrary addresses and ids.
//! Knows how the vectors write values. Does not know which section holds what.

use std::net::{Ipv4Addr, SocketAddrV4};

use ferrocore_dht::id::Id;
use ferrocore_dht::message::Token;
use ferrocore_primitives::encoding::UINT_MAX;
use proptest::prelude::*;
use serde_json::Value;

pub(crate) fn vectors() -> Value {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../interop-tests/vectors/network.json"
    );
    let text = std::fs::read_to_string(file).expect("the vectors are in the repository");
    serde_json::from_str(&text).expect("the vectors are JSON")
}

/// Runs `check` on all of `section`, which must hold `count` vectors.
pub(crate) fn each(section: &Value, count: usize, check: impl Fn(&Value)) {
    let section = section.as_array().expect("the section is a list");
    assert_eq!(section.len(), count, "no vector is missed");
    section.iter().for_each(check);
}

/// `None` for null and for what the generator left out.
pub(crate) fn maybe<T>(value: &Value, read: impl Fn(&Value) -> T) -> Option<T> {
    (!value.is_null()).then(|| read(value))
}

pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("a string")).expect("hexadecimal")
}

pub(crate) fn fixed<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().expect("the right length")
}

pub(crate) fn id(value: &Value) -> Id {
    fixed(value).into()
}

pub(crate) fn address(value: &Value) -> SocketAddrV4 {
    let host = value["host"].as_str().expect("a host").parse();
    let port = value["port"].as_u64().expect("a port").try_into();
    SocketAddrV4::new(host.expect("IPv4"), port.expect("u16"))
}

pub(crate) fn addresses(value: &Value) -> Vec<SocketAddrV4> {
    let list = value.as_array().expect("a list");
    list.iter().map(address).collect()
}

pub(crate) fn any_uint() -> impl Strategy<Value = u64> {
    prop_oneof![0..=0x100_u64, 0..=UINT_MAX]
}

pub(crate) fn any_id() -> impl Strategy<Value = Id> {
    any::<[u8; 32]>().prop_map(Id::from)
}

pub(crate) fn any_token() -> impl Strategy<Value = Token> {
    any::<[u8; 32]>().prop_map(Token::from)
}

pub(crate) fn any_address() -> impl Strategy<Value = SocketAddrV4> {
    any::<([u8; 4], u16)>().prop_map(|(ip, port)| SocketAddrV4::new(Ipv4Addr::from(ip), port))
}

pub(crate) fn any_addresses() -> impl Strategy<Value = Vec<SocketAddrV4>> {
    prop::collection::vec(any_address(), 0..=128)
}

pub(crate) fn any_buffer() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..400)
}
