//! What a command works on, as it is written on the command line.
//! Knows the notation of targets, versions and ranges. Does not know which names exist.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ferrocore::{EncryptionKey, IdError, Key, Link};

/// A drive, a core or a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A drive or core, by key or by name.
    Remote(Place),
    /// A folder of this machine.
    Folder(PathBuf),
}

/// A drive or core, a version of it, a path in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which drive or core.
    pub(crate) base: Base,
    /// The version asked for; the newest if there is none.
    pub(crate) version: Option<u64>,
    /// The path, starting with a slash.
    pub(crate) path: Option<String>,
    /// The encryption key of the link.
    pub(crate) encryption: Option<EncryptionKey>,
}

/// How a drive or core is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Base {
    /// By its key.
    Key(Key),
    /// By a name that the store knows.
    Name(Name),
}

/// A name in the store: letters, digits and marks that mean nothing in a target or a file name.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Name(String);

/// Letters and digits from which on a text is read as a key. A key has 52 or 64.
const KEY_CHARS_MIN: usize = 48;

/// Why a text is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("`{text}` is no link: {source}")]
    Link { text: String, source: IdError },
    #[error(
        "`{0}` cannot be reached: only keys, hyper:// and pear:// links, names and folders can"
    )]
    Scheme(String),
    #[error("the version behind + in `{0}` must be a number")]
    Version(String),
    #[error(
        "`{0}` cannot be a name: names have no slash, colon, plus, hash or control character, and do not start with a dot or dash"
    )]
    Name(String),
    #[error("`{0}` is a folder; name a drive, by its key or its name in the store")]
    Folder(String),
    #[error("`{0}` is no range; write A..B, A.., ..B or A")]
    Range(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text.contains("://") {
            return parse_link(text).map(Self::Remote);
        }
        match text.split_once(":/") {
            Some((head, path)) => parse_head(head, Some(format!("/{path}"))).map(Self::Remote),
            None if starts_with_key(text) => parse_link(text).map(Self::Remote),
            None if text == "." || text.contains('/') => Ok(Self::Folder(text.into())),
            None => parse_head(text, None).map(Self::Remote),
        }
    }
}

impl FromStr for Place {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text.parse()? {
            Target::Remote(place) => Ok(place),
            Target::Folder(_) => Err(TargetError::Folder(text.to_owned())),
        }
    }
}

impl Name {
    /// A name like `text`, with what a name cannot contain replaced.
    pub(crate) fn like(text: &str) -> Self {
        let fits = |c: char| if is_name_char(c) { c } else { '-' };
        let name: String = text
            .trim_start_matches(['.', '-'])
            .chars()
            .map(fits)
            .collect();
        Self::from_str(&name).unwrap_or_else(|_| Self("drive".to_owned()))
    }

    /// The same name with a number behind.
    pub(crate) fn numbered(&self, number: u64) -> Self {
        Self(format!("{}-{number}", self.0))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let starts_well = !text.is_empty() && !text.starts_with(['.', '-']);
        if starts_well && text.chars().all(is_name_char) && !starts_with_key(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(TargetError::Name(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => key.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// A half-open range as written: `A..B`, where either end may be missing, or the one number `A`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HalfOpen {
    pub(crate) start: u64,
    /// No end means to the end of whatever is cut.
    pub(crate) end: Option<u64>,
}

impl HalfOpen {
    /// The part of `0..len` that it means.
    pub(crate) fn within(self, len: u64) -> Range<u64> {
        let end = self.end.unwrap_or(len).min(len);
        self.start.min(end)..end
    }
}

impl FromStr for HalfOpen {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let wrong = || TargetError::Range(text.to_owned());
        let number = |digits: &str| digits.parse::<u64>().map_err(|_| wrong());
        let Some((start, end)) = text.split_once("..") else {
            let start = number(text)?;
            let end = start.checked_add(1).ok_or_else(wrong)?;
            return Ok(Self {
                start,
                end: Some(end),
            });
        };
        let start = if start.is_empty() { 0 } else { number(start)? };
        let end = if end.is_empty() {
            None
        } else {
            Some(number(end)?)
        };
        match end {
            Some(end) if end < start => Err(wrong()),
            _ => Ok(Self { start, end }),
        }
    }
}

/// The last name of a path, for a drive named after a folder.
pub(crate) fn base_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

fn parse_link(text: &str) -> Result<Place, TargetError> {
    let known = ["hyper://", "pear://"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    if text.contains("://") && !known {
        return Err(TargetError::Scheme(text.to_owned()));
    }
    let link: Link = text.parse().map_err(|source| TargetError::Link {
        text: text.to_owned(),
        source,
    })?;
    Ok(Place {
        base: Base::Key(link.key),
        version: link.version,
        path: link.path,
        encryption: link.encryption_key.map(EncryptionKey::from),
    })
}

/// Parses `KEY[+VERSION]` or `NAME[+VERSION]`.
fn parse_head(head: &str, path: Option<String>) -> Result<Place, TargetError> {
    if starts_with_key(head) {
        return parse_link(head).map(|place| Place { path, ..place });
    }
    let (name, version) = match head.split_once('+') {
        Some((name, digits)) => (name, Some(parse_version(head, digits)?)),
        None => (head, None),
    };
    Ok(Place {
        base: Base::Name(name.parse()?),
        version,
        path,
        encryption: None,
    })
}

fn parse_version(text: &str, digits: &str) -> Result<u64, TargetError> {
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let version = digits.parse().ok().filter(|_| is_number);
    version.ok_or_else(|| TargetError::Version(text.to_owned()))
}

/// Whether `text` begins with something as long as a key, alone or before what may follow a key.
/// Whether `text` starts with a key, or with what can only be a mistyped one: then it is told
/// as a malformed link, not looked up as a name.
fn starts_with_key(text: &str) -> bool {
    let head = text.split(['+', '/', '#']).next().unwrap_or_default();
    head.len() >= KEY_CHARS_MIN && head.chars().all(|c| c.is_ascii_alphanumeric())
}

fn is_name_char(c: char) -> bool {
    !c.is_control() && !matches!(c, '/' | '\\' | ':' | '+' | '#')
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "tkrq8zmwb8a3m9k15csu3q17qmfgqnp9dskbrg9uq1rydpyxp7qy";

    fn place(text: &str) -> Place {
        text.parse().unwrap()
    }

    fn named(name: &str, version: Option<u64>, path: Option<&str>) -> Place {
        Place {
            base: Base::Name(name.parse().unwrap()),
            version,
            path: path.map(str::to_owned),
            encryption: None,
        }
    }

    #[test]
    fn keys_and_links_are_places() {
        let bare = place(KEY);
        assert_eq!(bare.base, Base::Key(KEY.parse().unwrap()));
        assert_eq!((bare.version, bare.path.clone()), (None, None));
        assert_eq!(place(&format!("hyper://{KEY}")), bare);
        let full = place(&format!("pear://{KEY}+7/a%20b"));
        assert_eq!(
            (full.version, full.path.as_deref()),
            (Some(7), Some("/a b"))
        );
        assert_eq!(place(&format!("{KEY}+7:/a b")), full);
        assert_eq!(place(&format!("{KEY}+7/a%20b")), full);
        let secret = place(&format!("hyper://{KEY}/a#{KEY}"));
        let key: Key = KEY.parse().unwrap();
        assert_eq!(
            secret.encryption,
            Some(EncryptionKey::from(*key.as_bytes()))
        );
    }

    #[test]
    fn names_take_a_version_and_a_path() {
        assert_eq!(place("photos"), named("photos", None, None));
        assert_eq!(place("photos+3"), named("photos", Some(3), None));
        assert_eq!(
            place("my photos+3:/a/b%"),
            named("my photos", Some(3), Some("/a/b%"))
        );
        assert_eq!(place("photos:/"), named("photos", None, Some("/")));
    }

    #[test]
    fn what_has_a_slash_is_a_folder() {
        for text in [".", "./photos", "/tmp/x", "photos/"] {
            assert_eq!(text.parse(), Ok(Target::Folder(text.into())));
            assert_eq!(
                text.parse::<Place>(),
                Err(TargetError::Folder(text.to_owned()))
            );
        }
    }

    #[test]
    fn malformed_targets_are_named() {
        let error = |text: &str| text.parse::<Target>().unwrap_err();
        assert!(matches!(error("hyper://abc"), TargetError::Link { .. }));
        assert!(matches!(
            error(&format!("{KEY}+x")),
            TargetError::Link { .. }
        ));
        assert!(matches!(
            error("https://example.com"),
            TargetError::Scheme(_)
        ));
        assert!(matches!(error("photos+"), TargetError::Version(_)));
        assert!(matches!(error("photos++1"), TargetError::Version(_)));
        assert!(matches!(error(""), TargetError::Name(_)));
        assert!(matches!(error("a:b"), TargetError::Name(_)));
        assert!(matches!(error("-x"), TargetError::Name(_)));
    }

    #[test]
    fn a_name_is_made_of_any_folder_name() {
        assert_eq!(Name::like("my photos").as_str(), "my photos");
        assert_eq!(Name::like(".config").as_str(), "config");
        assert_eq!(Name::like("a:b+c").as_str(), "a-b-c");
        assert_eq!(Name::like("").as_str(), "drive");
        assert_eq!(Name::like(KEY).as_str(), "drive");
        assert_eq!(Name::like("x").numbered(2).as_str(), "x-2");
    }

    #[test]
    fn ranges_are_half_open() {
        let range = |text: &str| text.parse::<HalfOpen>().map(|range| range.within(10));
        assert_eq!(range("2..5"), Ok(2..5));
        assert_eq!(range("2.."), Ok(2..10));
        assert_eq!(range("..5"), Ok(0..5));
        assert_eq!(range(".."), Ok(0..10));
        assert_eq!(range("4"), Ok(4..5));
        assert_eq!(range("12..15"), Ok(10..10));
        for text in ["", "5..2", "a..b", "-1..2", "1...2", "18446744073709551615"] {
            assert!(range(text).is_err(), "{text}");
        }
    }
}
