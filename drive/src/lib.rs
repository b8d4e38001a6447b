//! Hyperdrive: a versioned file system on two Hypercores, wire-compatible with JavaScript's.
//!
//! A [`Drive`] is a bee of names beside a core of bytes. [`mirror::import`] makes it equal to a
//! local folder, [`mirror::export`] makes a local folder equal to it; the latter never writes
//! outside that folder, whatever the drive says.
//!
//! There is no runtime here: drives wait in futures that need none, import and export block the
//! thread they are called on.
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

pub mod blobs;
pub mod entry;
pub mod json;
pub mod mirror;
pub mod path;

mod batch;
mod download;
mod drive;
mod error;
mod listing;
mod wait;

pub use batch::Batch;
pub use blobs::{BlobReader, BlobWriter, Blobs};
pub use download::{ACTIVE_RANGES_MAX, GlobError, Selection, Totals};
pub use drive::{Drive, DriveOptions, LINK_HOPS_MAX};
pub use entry::{BlobId, Entry, EntryValue};
pub use error::DriveError;
pub use json::Json;
pub use listing::{Entries, Folder, FolderItem};
pub use wait::Cancel;
