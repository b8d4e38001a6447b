//! Hyperbee: an ordered key-value map on a Hypercore, read sparsely and written byte for byte as
//! hyperbee 2.27 does.
//!
//! A [`Bee`] is a B-tree whose nodes are in the blocks of a [`Core`](ferrocore_log::Core). Each
//! operation appends one block: the key, the value, and the tree nodes on the way to it.
//!
//! ```
//! # pollster::block_on(async {
//! use ferrocore_bee::{Bee, Options, RangeOptions};
//! use ferrocore_log::Corestore;
//!
//! let bee = Bee::new(Corestore::memory().get_named("map")?, Options::default());
//! bee.put("a", "1").await?;
//! let before = bee.snapshot();
//! bee.put("b", "2").await?;
//!
//! let mut range = bee.range(RangeOptions::default());
//! while let Some(entry) = range.next().await? {
//!     println!("{:?} = {:?}", entry.key, entry.value);
//! }
//! assert!(before.get("b").await?.is_none());
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing))]

mod arena;
mod batch;
mod bee;
mod block;
mod blocks;
mod cache;
mod error;
mod header;
mod history;
pub mod limits;
mod node;
mod protobuf;
mod range;
mod reader;
mod typed;
mod writer;

pub use crate::batch::Batch;
pub use crate::bee::{Bee, Options};
pub use crate::block::Entry;
pub use crate::error::BeeError;
pub use crate::header::{Header, Metadata};
pub use crate::history::{Change, History, HistoryOptions};
pub use crate::protobuf::Malformed;
pub use crate::range::{Range, RangeOptions};
pub use crate::typed::{TypedBee, TypedRange};
