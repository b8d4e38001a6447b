//! The lines of a file of guards, and what they say.
//!
//! | line | meaning |
//! |---|---|
//! | `guards 1` | the first: the version of all that follow |
//! | `restored` | the root secret was brought back: every core is guarded, whatever was said before |
//! | `guarded <discovery key>` | the core's secret was imported |
//! | `confirmed <discovery key>` | somebody has proven how long the core is, or was not to be asked |
//!
//! Later lines count more. Each ends with a blank and the CRC-32 (IEEE), as 8 digits, of all that is before that blank from
//! the file's beginning on, so that no line can be changed, moved or dropped from among others. Files that were written
//! until 2026-11-22 have neither the first line nor checksums.
//!
//! Knows text. Does not know files, nor what was lost at the end of one.

use std::collections::HashMap;

use ferrocore_primitives::keys::DiscoveryKey;

use super::super::place::parse_hex;

const FIRST: &str = "guards 1";
const RESTORED: &str = "restored";
const GUARDED: &str = "guarded";
const CONFIRMED: &str = "confirmed";

/// What is said of cores.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) is_restored: bool,
    /// Cores that are, or are not, guarded, whatever holds for the others.
    pub(super) cores: HashMap<DiscoveryKey, bool>,
}

/// What a file holds.
#[derive(Debug)]
pub(super) enum Content {
    /// Whole lines with checksums, and perhaps a part of one more.
    Sealed(Lines, Said),
    /// Lines of a file that has no checksums.
    Old(Said),
    /// Something else than was written, or less.
    Damaged,
    /// A line as it was written, which is none of ours.
    Later(String),
}

/// Whole lines with checksums.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    /// Over all of them.
    checksum: crc32fast::Hasher,
    pub(super) len: u64,
}

impl Said {
    /// All cores are guarded.
    pub(super) fn restored() -> Self {
        Self {
            is_restored: true,
            cores: HashMap::new(),
        }
    }

    pub(super) fn is_guarded(&self, core: &DiscoveryKey) -> bool {
        self.cores.get(core).copied().unwrap_or(self.is_restored)
    }

    /// Takes in one line; `None` if it is none of ours.
    pub(super) fn apply(&mut self, line: &str) -> Option<()> {
        if line == RESTORED {
            *self = Self::restored();
            return Some(());
        }
        let (word, core) = line.split_once(' ')?;
        let is_guarded = match word {
            GUARDED => true,
            CONFIRMED => false,
            _ => return None,
        };
        self.cores.insert(parse_hex(core)?.into(), is_guarded);
        Some(())
    }

    /// The lines that say this, and their text.
    pub(super) fn to_lines(&self) -> (Lines, String) {
        let (mut lines, mut text) = (Lines::new(), String::new());
        lines.push(FIRST, &mut text);
        if self.is_restored {
            lines.push(RESTORED, &mut text);
        }
        for (core, is_guarded) in &self.cores {
            lines.push(&line_of(core, *is_guarded), &mut text);
        }
        (lines, text)
    }
}

impl Lines {
    fn new() -> Self {
        let (checksum, len) = (crc32fast::Hasher::new(), 0);
        Self { checksum, len }
    }

    /// Adds a line, with its checksum, to these and to their `text`.
    pub(super) fn push(&mut self, line: &str, text: &mut String) {
        self.checksum.update(line.as_bytes());
        let end = format!(" {:08x}\n", self.checksum.clone().finalize());
        self.checksum.update(end.as_bytes());
        self.len += (line.len() + end.len()) as u64;
        text.push_str(line);
        text.push_str(&end);
    }

    /// Takes in `line` with its end if its checksum is right, and returns what is before that.
    fn take<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        let (content, _) = line.trim_end_matches('\n').rsplit_once(' ')?;
        let (mut after, mut text) = (self.clone(), String::new());
        after.push(content, &mut text);
        (text == line).then(|| *self = after)?;
        Some(content)
    }
}

/// The line for a core.
pub(super) fn line_of(core: &DiscoveryKey, is_guarded: bool) -> String {
    let word = if is_guarded { GUARDED } else { CONFIRMED };
    format!("{word} {core}")
}

/// The line for all cores.
pub(super) fn line_of_all() -> &'static str {
    RESTORED
}

/// What a file with these bytes holds.
pub(super) fn parse(bytes: &[u8]) -> Content {
    let Ok(text) = std::str::from_utf8(whole_lines(bytes)) else {
        return Content::Damaged;
    };
    let (mut lines, mut said) = (Lines::new(), Said::default());
    let mut rest = text.split_inclusive('\n');
    match rest.next() {
        None => return Content::Damaged, // no file begins empty
        Some(first) => match lines.take(first) {
            Some(FIRST) => {}
            Some(other) => return Content::Later(other.to_owned()),
            None => return parse_old(text),
        },
    }
    for line in rest {
        let Some(content) = lines.take(line) else {
            return Content::Damaged;
        };
        if said.apply(content).is_none() {
            return Content::Later(content.to_owned());
        }
    }
    match said == Said::default() {
        true => Content::Damaged, // a file is made for something to say
        false => Content::Sealed(lines, said),
    }
}

fn parse_old(text: &str) -> Content {
    let mut said = Said::default();
    match text.lines().try_for_each(|line| said.apply(line)) {
        Some(()) => Content::Old(said),
        None => Content::Damaged,
    }
}

/// Without the line that a crash cut.
pub(super) fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte == b'\n');
    end.and_then(|end| bytes.get(..=end)).unwrap_or_default()
}
