//! What commands report of secrets: which there are, never what they are.

use serde::Serialize;

use crate::output::{Event, count};

/// The root secret of the store.
#[derive(Debug, Serialize)]
pub(crate) struct Root {
    pub(crate) fingerprint: String,
}

impl Event for Root {
    const NAME: &'static str = "root";

    fn words(&self) -> Option<String> {
        Some(format!("root secret {}", self.fingerprint))
    }
}

/// What the store has of a core's secrets.
#[derive(Debug, Serialize)]
pub(crate) struct Secret {
    pub(crate) key: String,
    pub(crate) discovery_key: String,
    pub(crate) name: Option<String>,
    /// Where that which signs comes from: `derived`, `imported`, or nothing signs here.
    pub(crate) signs: Option<&'static str>,
    /// Whether an encryption key is kept.
    pub(crate) encryption: bool,
    /// Whether it must not be written until a peer has proven how long it is.
    pub(crate) guarded: bool,
}

impl Event for Secret {
    const NAME: &'static str = "secret";

    fn words(&self) -> Option<String> {
        let name = self.name.as_deref().unwrap_or("-");
        let signs = self.signs.unwrap_or("-");
        let encryption = if self.encryption { "encrypted" } else { "-" };
        let guarded = if self.guarded { "  guarded" } else { "" };
        Some(format!(
            "{name:20} {signs:8} {encryption:9} {}{guarded}",
            self.key
        ))
    }
}

/// How many secrets there are beside the root secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    pub(crate) cores: u64,
    pub(crate) signing: u64,
    pub(crate) encryption: u64,
}

impl Tally {
    fn words(self) -> String {
        format!(
            "{}, {} and {}",
            count(self.cores, "core"),
            count(self.signing, "secret key"),
            count(self.encryption, "encryption key")
        )
    }
}

/// Secrets were written down.
#[derive(Debug, Serialize)]
pub(crate) struct BackedUp {
    pub(crate) fingerprint: String,
    pub(crate) phrase: bool,
    pub(crate) file: Option<String>,
    /// What is in the file.
    #[serde(flatten)]
    pub(crate) tally: Tally,
    /// Secrets of the store that the phrase does not bring back.
    pub(crate) not_in_phrase: u64,
}

impl Event for BackedUp {
    const NAME: &'static str = "backup";

    fn words(&self) -> Option<String> {
        let mut words = Vec::new();
        if let Some(file) = &self.file {
            words.push(format!(
                "Wrote the root secret, {} to {file}",
                self.tally.words()
            ));
        }
        if self.phrase {
            words.push(format!(
                "Whoever has these 24 words can write every named core of this store ({})",
                self.fingerprint
            ));
        }
        if self.phrase && self.not_in_phrase > 0 {
            words.push(format!(
                "{} of this store cannot be had back from the words: make a --file, too",
                count(self.not_in_phrase, "secret")
            ));
        }
        Some(words.join("\n"))
    }
}

/// Secrets were brought back into a store.
#[derive(Debug, Serialize)]
pub(crate) struct Recovered {
    pub(crate) fingerprint: String,
    #[serde(flatten)]
    pub(crate) tally: Tally,
}

impl Event for Recovered {
    const NAME: &'static str = "recovered";

    fn words(&self) -> Option<String> {
        Some(format!(
            "Recovered root secret {}, {}.\nNothing can be appended until a peer has proven how long a log is; \
             if nobody has more of it, add --offline",
            self.fingerprint,
            self.tally.words()
        ))
    }
}

/// The secrets of a core, or of both of a drive, were written down.
#[derive(Debug, Serialize)]
pub(crate) struct Exported {
    pub(crate) key: String,
    pub(crate) file: Option<String>,
    pub(crate) signing: bool,
    pub(crate) encryption: bool,
}

impl Event for Exported {
    const NAME: &'static str = "exported";

    fn words(&self) -> Option<String> {
        let what = match (self.signing, self.encryption) {
            (true, true) => "can write and decrypt",
            (true, false) => "can write",
            _ => "can decrypt",
        };
        let file = self.file.as_ref().map(|file| format!(" to {file}"));
        Some(format!(
            "Exported what {what} {}{}",
            self.key,
            file.unwrap_or_default()
        ))
    }
}

/// The secrets of a core were taken in.
#[derive(Debug, Serialize)]
pub(crate) struct Imported {
    pub(crate) key: String,
    pub(crate) name: Option<String>,
    pub(crate) signing: bool,
    pub(crate) encryption: bool,
    pub(crate) guarded: bool,
}

impl Event for Imported {
    const NAME: &'static str = "imported";

    fn words(&self) -> Option<String> {
        let name = self.name.as_ref().map(|name| format!(" as `{name}`"));
        let guarded = match self.guarded {
            true => "; nothing can be appended until a peer has proven how long it is",
            false => "",
        };
        Some(format!(
            "Imported {}{}{guarded}",
            self.key,
            name.unwrap_or_default()
        ))
    }
}
