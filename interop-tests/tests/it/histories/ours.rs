//! Our side of a history.

use std::path::Path;

use bytes::Bytes;
use ferrocore_log::{Core, CoreOptions, Corestore, Manifest, StoreOptions};
use ferrocore_primitives::keys::Key;

use crate::histories::model::{Kind, Model, Step};

/// The core's name.
pub(crate) const NAME: &str = "l\u{f6}g";

pub(crate) struct Ours {
    core: Core,
    _store: Corestore,
}

impl Ours {
    pub(crate) fn open(directory: &Path, kind: Kind, key: Option<&str>) -> Self {
        let store = Corestore::open(directory, StoreOptions::default()).unwrap();
        let core = match key {
            Some(key) => store.get(&key.parse::<Key>().unwrap()),
            None => store.get_with(options(&store, kind)),
        };
        Self {
            core: core.unwrap(),
            _store: store,
        }
    }

    pub(crate) fn key(&self) -> String {
        self.core.key().to_hex()
    }

    pub(crate) fn run(&self, step: &Step) {
        match step {
            Step::Append(blocks) => {
                let blocks = blocks.iter().cloned().map(Bytes::from).collect();
                self.core.append_batch(blocks).map(drop)
            }
            Step::Truncate(length) => self.core.truncate(*length, None).map(drop),
            Step::Clear(start, end) => self.core.clear(*start..*end),
            Step::UserData(key, value) => self.core.set_user_data(key, Some(value)),
        }
        .unwrap_or_else(|error| panic!("{step:?}: {error}"));
    }

    pub(crate) fn check(&self, model: &Model) {
        let core = &self.core;
        assert!(core.is_writable());
        assert_eq!(core.length(), model.length());
        assert_eq!(core.fork(), model.fork);
        assert_eq!(core.byte_length(), model.byte_length() as u64);
        assert_eq!(core.contiguous_length(), model.contiguous_length());
        for (block, index) in model.blocks.iter().zip(0..) {
            let found = core.get_local(index).unwrap();
            assert_eq!(found.as_deref(), block.as_deref(), "block {index}");
        }
        for key in ["a", "b", "c"] {
            assert_eq!(core.user_data(key).as_ref(), model.user_data.get(key));
        }
    }
}

fn options(store: &Corestore, kind: Kind) -> CoreOptions {
    let named = CoreOptions {
        name: Some(NAME.to_owned()),
        ..CoreOptions::default()
    };
    match kind {
        Kind::Compat => CoreOptions {
            compat: true,
            ..named
        },
        Kind::V0 => CoreOptions {
            manifest: Some(Manifest {
                version: 0,
                ..Manifest::single(store.key_pair(NAME).public_key())
            }),
            ..named
        },
        Kind::V1 => named,
    }
}
