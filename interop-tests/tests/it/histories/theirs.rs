//! Node's side of a history.

use std::path::Path;

use ferrocore_interop_tests::peer::Peer;
use serde_json::{Value, json};

use crate::exceptions::Exceptions;
use crate::histories::model::{Kind, Model, Step};
use crate::histories::ours::NAME;

/// Blocks that are compared, more than histories have but those of several pages.
const CHECKED_MAX: usize = 4_000;

pub(crate) struct Theirs<'a> {
    node: &'a mut Peer,
    info: Value,
}

impl<'a> Theirs<'a> {
    pub(crate) fn open(
        node: &'a mut Peer,
        directory: &Path,
        kind: Kind,
        key: Option<&str>,
    ) -> Self {
        let mut options = match kind {
            Kind::Compat => json!({ "compat": true }),
            Kind::V0 => json!({ "compat": false, "manifestVersion": 0 }),
            Kind::V1 => json!({ "compat": false, "manifestVersion": 1 }),
        };
        options["directory"] = json!(directory.join("corestore"));
        match key {
            Some(key) => options["key"] = json!(key),
            None => options["name"] = json!(NAME),
        }
        let info = node.call("open", options);
        Self { node, info }
    }

    pub(crate) fn key(&self) -> String {
        self.info["key"].as_str().expect("a key").to_owned()
    }

    pub(crate) fn run(&mut self, steps: &[Step]) {
        if let Err(message) = self.try_run(steps) {
            panic!("{steps:?}: {message}");
        }
    }

    pub(crate) fn try_run(&mut self, steps: &[Step]) -> Result<(), String> {
        let steps: Vec<Value> = steps.iter().map(json_of).collect();
        let call = self.node.begin("run", json!({ "steps": steps }));
        self.info = self.node.try_finish(&call)?;
        Ok(())
    }

    pub(crate) fn check(&mut self, model: &Model, exceptions: &mut Exceptions) {
        let info = &self.info;
        assert_eq!(info["writable"], true);
        assert_eq!(info["length"], model.length());
        assert_eq!(info["fork"], model.fork);
        assert_eq!(info["byteLength"], model.byte_length());
        if info["contiguousLength"].as_u64() > Some(model.contiguous_length()) {
            exceptions.meet("contiguous length: theirs is too high after reopening");
        } else {
            assert_eq!(info["contiguousLength"], model.contiguous_length());
        }
        let user_data = model.user_data.iter();
        let user_data: Value = user_data
            .map(|(k, v)| ((*k).to_owned(), base64(v)))
            .collect();
        assert_eq!(info["userData"], user_data);
        // Of a long log its end: each block takes Node some 0.2 ms.
        let from = model.blocks.len().saturating_sub(CHECKED_MAX);
        let found = self.node.call("blocks", json!({ "from": from }));
        let expected = model.blocks[from..]
            .iter()
            .map(|block| block.as_deref().map(base64));
        let expected: Vec<_> = expected.collect();
        assert_eq!(found["blocks"], json!(expected));
    }

    pub(crate) fn close(self, flush: bool) {
        if flush {
            self.node.call("flush", json!({}));
        }
        self.node.call("shut", json!({}));
    }
}

fn json_of(step: &Step) -> Value {
    match step {
        Step::Append(blocks) => {
            let blocks: Vec<_> = blocks.iter().map(|block| base64(block)).collect();
            json!({ "append": blocks })
        }
        Step::Truncate(length) => json!({ "truncate": length }),
        Step::Clear(start, end) => json!({ "clear": [start, end] }),
        Step::UserData(key, value) => json!({ "userData": [key, base64(value)] }),
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0, |group, at| {
            group << 8 | u32::from(chunk.get(at).copied().unwrap_or(0))
        });
        for at in 0..4 {
            let digit = DIGITS[(group >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}
