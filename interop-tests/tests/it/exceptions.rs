//! What is known to differ between the two, with reasons: `exceptions.json`.
//!
//! A difference that is not listed fails the test, and so does one that is listed and never met.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

pub(crate) struct Exceptions {
    about: &'static str,
    listed: BTreeSet<String>,
    met: BTreeSet<&'static str>,
}

impl Exceptions {
    /// Those listed about this.
    pub(crate) fn read(about: &'static str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("exceptions.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let all: Value = serde_json::from_str(&text).unwrap();
        let listed = all[about].as_array().expect("a list");
        let name = |exception: &Value| {
            assert!(
                exception["reason"]
                    .as_str()
                    .is_some_and(|reason| reason.len() > 20)
            );
            exception["difference"].as_str().expect("a name").to_owned()
        };
        Self {
            about,
            listed: listed.iter().map(name).collect(),
            met: BTreeSet::new(),
        }
    }

    /// Takes note of a difference.
    #[track_caller]
    pub(crate) fn meet(&mut self, difference: &'static str) {
        let Self { about, listed, .. } = self;
        assert!(
            listed.contains(difference),
            "exceptions.json does not list «{difference}» about {about}"
        );
        self.met.insert(difference);
    }

    /// Whether all that is listed was met.
    pub(crate) fn check(self) {
        let gone: Vec<_> = self
            .listed
            .iter()
            .filter(|name| !self.met.contains(name.as_str()))
            .collect();
        assert!(
            gone.is_empty(),
            "no longer differs, so strike it off: {gone:?}"
        );
    }
}
