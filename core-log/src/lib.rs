//! Hypercore: a signed, append-only Merkle log whose blocks are verified one by one.
//!
//! A [`Core`] is local storage, a verifier and a list of wants. Whatever can satisfy a want is a
//! supplier ([`supply`]): it hands in a [`proof::Proof`], the core verifies it against its signed
//! roots, and only then does anything reach storage. A [`Corestore`] keeps many cores.
//!
//! The crate is synchronous but for waiting: [`Core::get`] of a block that is not here is a
//! future that needs no runtime.
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod audit;
#[cfg(feature = "backup")]
pub mod backup;
pub mod bitfield;
pub mod changeset;
pub mod codec;
pub mod conflict;
pub mod core;
pub mod corestore;
mod descent;
pub mod encryption;
pub mod events;
pub mod extension;
mod few;
pub mod flat_tree;
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
pub mod manifest;
pub mod merkle;
pub mod multisig;
mod places;
pub mod proof;
pub mod push;
pub mod reorg;
pub mod root_secret;
pub mod seek;
pub mod signable;
pub mod signer;
pub mod storage;
pub mod supply;
pub mod verifier;

pub use crate::core::{
    AppendOptions, Appended, CommitOptions, Core, CoreError, Draft, DraftOptions, Snapshot,
};
pub use crate::corestore::{CoreOptions, Corestore, StoreError, StoreOptions};
pub use crate::encryption::EncryptionKey;
pub use crate::extension::Extension;
pub use crate::manifest::Manifest;
pub use crate::root_secret::RootSecret;
pub use crate::storage::{Durability, StorageError};
