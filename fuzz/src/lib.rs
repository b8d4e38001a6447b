//! Fuzz targets: functions that take any bytes and panic if something holds that must not.
//!
//! The bodies are plain functions, so they run twice: under libFuzzer (`fuzz/cargo-fuzz`, which
//! needs a nightly compiler or `RUSTC_BOOTSTRAP=1`), which searches for inputs, and in CI
//! (`tests/corpus.rs`), which repeats those that were found and mutates them.
//!
//! Each target says in its module what must hold beyond not panicking.
#![allow(
    clippy::missing_panics_doc,
    reason = "a panic is how a target says that it found something"
)]

pub mod bees;
pub mod connect;
pub mod core_files;
pub mod corpus;
pub mod dht;
pub mod discovery;
pub mod drives;
mod honest;
pub mod journal;
pub mod links;
mod memory;
pub mod messages;
mod mutate;
pub mod mux_frames;
pub mod mux_pairs;
pub mod primitives;
pub mod proofs;
pub mod seeds;
pub mod session;
pub mod session_pairs;
pub mod signatures;
pub mod store_files;
pub mod streams;
pub mod udx;
pub mod udx_pairs;
pub mod web_socket;

/// A target: its name, as in `fuzz/corpus` and `fuzz/cargo-fuzz`, and its body.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// The path of its body in this crate.
    pub body: &'static str,
    /// Runs it once.
    pub run: fn(&[u8]),
}

macro_rules! target {
    ($name:literal, $body:path) => {
        Target {
            name: $name,
            body: stringify!($body),
            run: $body,
        }
    };
}

/// Every target.
pub const TARGETS: &[Target] = &[
    target!("primitives", primitives::run),
    target!("links", links::run),
    target!("manifests", signatures::manifests),
    target!("signatures", signatures::signatures),
    target!("patches", signatures::patches),
    target!("messages", messages::run),
    target!("remote_proofs", messages::remote_proofs),
    target!("oplog", core_files::oplog),
    target!("tree_file", core_files::tree),
    target!("bitfield_file", core_files::bitfield),
    target!("header_file", core_files::header),
    target!("store_journal", journal::run),
    target!("aliases", store_files::aliases),
    target!("guards", store_files::guards),
    target!("conflicts", store_files::conflicts),
    target!("draft_bases", store_files::draft_bases),
    target!("backups", store_files::backups),
    target!("mux_frames", mux_frames::run),
    target!("mux_pairs", mux_pairs::run),
    target!("handshakes", streams::handshakes),
    target!("streams", streams::streams),
    target!("bee_blocks", bees::run),
    target!("drive_entries", drives::entries),
    target!("blob_ids", drives::blob_ids),
    target!("sessions", session::run),
    target!("session_pairs", session_pairs::run),
    target!("proofs", proofs::run),
    target!("udx_packets", udx::packets),
    target!("udx_streams", udx::streams),
    target!("udx_pairs", udx_pairs::run),
    target!("dht_routes", connect::routes),
    target!("dht_rounds", connect::rounds),
    target!("blind_relays", connect::relays),
    target!("dht_messages", dht::messages),
    target!("noise_payloads", dht::noise_payloads),
    target!("dht_nodes", dht::nodes),
    target!("web_socket", web_socket::run),
    target!("lan_announcements", discovery::announcements),
    target!("known_nodes", discovery::known_nodes),
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Goal: libFuzzer runs every target and no other, each with its own body. It has a workspace of its own, which is
    /// not built here; so its files must be what follows from the table.
    #[test]
    fn each_target_is_one_of_libfuzzers() {
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("cargo-fuzz");
        let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap();
        for Target { name, body, .. } in TARGETS {
            let path = format!("fuzz_targets/{name}.rs");
            let source = fs::read_to_string(package.join(&path)).unwrap();
            let call = format!("ferrocore_fuzz::{body}(data)");
            let expected =
                format!("#![no_main]\n\nlibfuzzer_sys::fuzz_target!(|data: &[u8]| {call});\n");
            assert_eq!(source, expected, "{path}");
            let binary = format!("[[bin]]\nname = \"{name}\"\npath = \"{path}\"\n");
            assert!(manifest.contains(&binary), "{name} is in Cargo.toml");
        }
        let files = fs::read_dir(package.join("fuzz_targets")).unwrap();
        let binaries = manifest.matches("[[bin]]");
        assert_eq!(
            (files.count(), binaries.count()),
            (TARGETS.len(), TARGETS.len())
        );
    }
}
