//! What the doctor reports.

use serde::Serialize;

use crate::output::Event;

/// One thing was checked.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) ok: bool,
    /// What was found.
    pub(crate) detail: String,
    /// What to do, if there is anything.
    pub(crate) hint: Option<String>,
}

impl Check {
    pub(crate) fn good(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            ok: true,
            detail: detail.into(),
            hint: None,
        }
    }

    pub(crate) fn bad(name: &'static str, detail: impl Into<String>, hint: &str) -> Self {
        let check = Self {
            ok: false,
            ..Self::good(name, detail)
        };
        check.with_hint(hint)
    }

    pub(crate) fn with_hint(self, hint: &str) -> Self {
        Self {
            hint: Some(hint.to_owned()),
            ..self
        }
    }
}

impl Event for Check {
    const NAME: &'static str = "check";

    fn words(&self) -> Option<String> {
        let verdict = if self.ok { "ok" } else { "FAILED" };
        let hint = self
            .hint
            .as_ref()
            .map(|hint| format!("\n        -> {hint}"));
        Some(format!(
            "{verdict:7} {}: {}{}",
            self.name,
            self.detail,
            hint.unwrap_or_default()
        ))
    }
}
