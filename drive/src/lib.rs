//! Hyperdrive: a versioned file system on two Hypercores, wire-compatible with JavaScript's.
//!
//! A [`Drive`] is a bee of names beside a core of bytes. There is no runtime here: drives wait in
//! futures that need none.
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod blobs;
pub mod entry;
pub mod json;
pub mod path;

mod batch;
mod download;
mod drive;
mod error;
mod listing;

pub use batch::Batch;
pub use blobs::{BlobReader, BlobWriter, Blobs};
pub use download::{ACTIVE_RANGES_MAX, GlobError, Selection};
pub use drive::{Drive, LINK_HOPS_MAX};
pub use entry::{BlobId, Entry, EntryValue};
pub use error::DriveError;
pub use json::Json;
pub use listing::{Entries, Folder, FolderItem};
