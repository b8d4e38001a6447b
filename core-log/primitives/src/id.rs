//! How keys are written for people: z-base-32, hexadecimal and links.
//! Knows their syntax. Does not know aliases, nor what a path names.
//!
//! A link is `hyper://KEY[+VERSION][/path][#ENCRYPTION-KEY]`; `pear://` and no scheme at all are
//! understood too. Keys are 52 characters of z-base-32 or 64 of hexadecimal; the path is percent-encoded.

use std::fmt;
use std::str::FromStr;

use crate::encoding::UINT_MAX;
use crate::keys::Key;

const Z32_ALPHABET: &[u8; 32] = b"ybndrfg8ejkmcpqxot1uwisza345h769";
/// The value of each ASCII character in z-base-32, [`Z32_NONE`] where it has none.
const Z32_VALUES: [u8; 128] = z32_values();
const Z32_NONE: u8 = 0xff;

const KEY_Z32_LEN: usize = 52;
const KEY_HEX_LEN: usize = 64;

const SCHEME: &str = "hyper://";
const SCHEMES: [&str; 2] = [SCHEME, "pear://"];

/// Why a text is no key or link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// A key has neither of the two lengths.
    #[error("a key has 52 characters of z-base-32 or 64 of hexadecimal, not {0}")]
    Length(usize),
    /// A character that z-base-32 (always lower case) or hexadecimal does not have.
    #[error("a key cannot contain {0:?}")]
    Character(char),
    /// The link starts with a scheme other than `hyper://` and `pear://`.
    #[error("a link starts with hyper:// or pear://")]
    Scheme,
    /// What follows `+` is no number up to 2^53 - 1.
    #[error("the version behind + must be a number up to 2^53 - 1")]
    Version,
    /// A `%` in the path is not followed by two hexadecimal digits.
    #[error(
        "a % in the path must be followed by two hexadecimal digits; write %25 for a percent sign"
    )]
    PercentEncoding,
    /// The decoded path is not UTF-8.
    #[error("the path is not utf-8")]
    PathNotUtf8,
    /// What follows `#` is no key.
    #[error("the part behind # must be an encryption key, written like a key")]
    EncryptionKey,
}

/// A drive or core, a version of it, a path in it.
///
/// Parsed from and printed as a link. Printing is canonical, so equal links print equally; it includes
/// the encryption key, while `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Link {
    /// The core's key.
    pub key: Key,
    /// The version asked for; the newest if there is none.
    pub version: Option<u64>,
    /// The path, percent-decoded. It starts with a slash and may be nothing else.
    pub path: Option<String>,
    /// What the blocks are encrypted with. Secret.
    pub encryption_key: Option<[u8; 32]>,
}

impl From<Key> for Link {
    fn from(key: Key) -> Self {
        Self {
            key,
            version: None,
            path: None,
            encryption_key: None,
        }
    }
}

impl FromStr for Link {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (text, encryption_key) = split_before(strip_scheme(text)?, '#');
        let (text, path) = split_before(text, '/');
        let (key, version) = split_before(text, '+');
        Ok(Self {
            key: parse_bare_key(key)?,
            version: version.map(parse_version).transpose()?,
            path: path.map(parse_path).transpose()?,
            encryption_key: encryption_key.map(parse_encryption_key).transpose()?,
        })
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.key)?;
        if let Some(version) = self.version {
            write!(f, "+{version}")?;
        }
        if let Some(path) = &self.path {
            write_percent_encoded(path, f)?;
        }
        if let Some(key) = &self.encryption_key {
            write!(f, "#{}", encode_z32(key))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("key", &self.key)
            .field("version", &self.version)
            .field("path", &self.path)
            .field("encrypted", &self.encryption_key.is_some())
            .finish()
    }
}

/// Parses a key, alone or in a link whose other parts are ignored.
///
/// # Errors
/// [`IdError`] if the text is no key, or a malformed link.
pub fn parse_key(text: &str) -> Result<Key, IdError> {
    match text.contains("://") {
        true => text.parse().map(|link: Link| link.key),
        false => parse_bare_key(text),
    }
}

/// Encodes `bytes` as z-base-32, five bits a character, without padding.
pub fn encode_z32(bytes: &[u8]) -> String {
    let bits = bytes.len() * 8;
    (0..bits)
        .step_by(5)
        .map(|bit| char::from(z32_char(five_bits(bytes, bit))))
        .collect()
}

/// Decodes z-base-32. Bits of the last character that make no whole byte are ignored.
///
/// # Errors
/// [`IdError::Character`] on a character outside the alphabet, such as an upper-case one.
pub fn decode_z32(text: &str) -> Result<Vec<u8>, IdError> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut window, mut bits) = (0u16, 0);
    for character in text.chars() {
        window = window << 5 | u16::from(z32_value(character)?);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            let [_, byte] = (window >> bits).to_be_bytes();
            bytes.push(byte);
        }
    }
    Ok(bytes)
}

fn strip_scheme(text: &str) -> Result<&str, IdError> {
    let stripped = SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme));
    match stripped {
        Some(rest) => Ok(rest),
        None if text.contains("://") => Err(IdError::Scheme),
        None => Ok(text),
    }
}

/// Splits in front of the first `separator`; the second part starts with it.
fn split_before(text: &str, separator: char) -> (&str, Option<&str>) {
    match text
        .find(separator)
        .and_then(|at| text.split_at_checked(at))
    {
        Some((head, tail)) => (head, Some(tail)),
        None => (text, None),
    }
}

fn parse_bare_key(text: &str) -> Result<Key, IdError> {
    let bytes = match text.chars().count() {
        KEY_Z32_LEN => decode_z32(text)?,
        KEY_HEX_LEN => decode_hex(text)?,
        other => return Err(IdError::Length(other)),
    };
    Key::try_from(bytes.as_slice()).map_err(|_| IdError::Length(text.len()))
}

/// Parses `+DIGITS`.
fn parse_version(text: &str) -> Result<u64, IdError> {
    let digits = text.trim_start_matches('+');
    let signs = text.len() - digits.len();
    match digits.parse() {
        Ok(version) if signs == 1 && version <= UINT_MAX => Ok(version),
        _ => Err(IdError::Version),
    }
}

/// Parses `#KEY`.
fn parse_encryption_key(text: &str) -> Result<[u8; 32], IdError> {
    text.strip_prefix('#')
        .and_then(|key| parse_bare_key(key).ok())
        .map(<[u8; 32]>::from)
        .ok_or(IdError::EncryptionKey)
}

fn parse_path(text: &str) -> Result<String, IdError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        if *byte != b'%' {
            bytes.push(*byte);
            rest = tail;
            continue;
        }
        let [high, low, tail @ ..] = tail else {
            return Err(IdError::PercentEncoding);
        };
        bytes.push(hex_byte(*high, *low).ok_or(IdError::PercentEncoding)?);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| IdError::PathNotUtf8)
}

/// Writes `path` so that it survives shells, chat programs and our own parser: everything but letters,
/// digits and a few harmless marks is escaped.
fn write_percent_encoded(path: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    path.bytes().try_for_each(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => write!(f, "{}", char::from(byte)),
        b'/' | b'-' | b'.' | b'_' | b'~' | b'+' | b'@' | b',' => write!(f, "{}", char::from(byte)),
        _ => write!(f, "%{byte:02X}"),
    })
}

fn decode_hex(text: &str) -> Result<Vec<u8>, IdError> {
    if let Some(wrong) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(IdError::Character(wrong));
    }
    let (pairs, _) = text.as_bytes().as_chunks();
    Ok(pairs
        .iter()
        .filter_map(|[high, low]| hex_byte(*high, *low))
        .collect())
}

fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    Some(digit(high)? << 4 | digit(low)?)
}

/// The five bits of `bytes` from bit `start` on, most significant first; zeros follow the end.
fn five_bits(bytes: &[u8], start: usize) -> u8 {
    let byte = |i: usize| bytes.get(i).copied().unwrap_or(0);
    let window = u16::from_be_bytes([byte(start / 8), byte(start / 8 + 1)]);
    let [five, _] = (window << (start % 8)).to_be_bytes();
    five >> 3
}

#[allow(clippy::indexing_slicing, reason = "the index is below 32")]
fn z32_char(value: u8) -> u8 {
    Z32_ALPHABET[usize::from(value & 31)]
}

fn z32_value(character: char) -> Result<u8, IdError> {
    match Z32_VALUES.get(character as usize) {
        Some(value) if *value != Z32_NONE => Ok(*value),
        _ => Err(IdError::Character(character)),
    }
}

#[allow(clippy::indexing_slicing, reason = "evaluated at compile time")]
const fn z32_values() -> [u8; 128] {
    let mut values = [Z32_NONE; 128];
    let mut value = 0;
    while value < 32 {
        values[Z32_ALPHABET[value as usize] as usize] = value;
        value += 1;
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const Z32: &str = "tkrq8zmwb8a3m9k15csu3q17qmfgqnp9dskbrg9uq1rydpyxp7qy";

    fn link(text: &str) -> Result<Link, IdError> {
        text.parse()
    }

    #[test]
    fn keys_are_found_in_all_their_forms() {
        let key = parse_key(Z32).unwrap();
        let hex = key.to_hex();
        assert_eq!(parse_key(&hex), Ok(key));
        assert_eq!(parse_key(&hex.to_uppercase()), Ok(key));
        assert_eq!(parse_key(&format!("pear://{Z32}/some/app")), Ok(key));
        assert_eq!(parse_key(&format!("hyper://{hex}+7/file")), Ok(key));
        assert_eq!(key.to_string(), Z32);
    }

    #[test]
    fn bits_behind_the_key_are_ignored() {
        // The last character carries one bit of the key; `b` sets a lower one.
        let key = parse_key(Z32).unwrap();
        let other = format!("{}b", &Z32[..51]);
        assert_eq!(parse_key(&other), Ok(key));
    }

    #[test]
    fn malformed_keys_are_named() {
        assert_eq!(parse_key(""), Err(IdError::Length(0)));
        assert_eq!(parse_key(&Z32[1..]), Err(IdError::Length(51)));
        assert_eq!(parse_key(&Z32.to_uppercase()), Err(IdError::Character('T')));
        assert_eq!(parse_key(&"g".repeat(64)), Err(IdError::Character('g')));
        assert_eq!(parse_key(&"é".repeat(52)), Err(IdError::Character('é')));
        assert_eq!(parse_key(&format!("http://{Z32}")), Err(IdError::Scheme));
    }

    #[test]
    fn a_link_has_up_to_four_parts() {
        let secret = encode_z32(&[9; 32]);
        let full = link(&format!("hyper://{Z32}+12/a%20b/%C3%A9#{secret}")).unwrap();
        assert_eq!(full.version, Some(12));
        assert_eq!(full.path.as_deref(), Some("/a b/é"));
        assert_eq!(full.encryption_key, Some([9; 32]));
        assert_eq!(link(Z32).unwrap(), Link::from(full.key));
        let root = link(&format!("pear://{Z32}/")).unwrap();
        assert_eq!(root.path.as_deref(), Some("/"));
        assert_eq!(root.to_string(), format!("hyper://{Z32}/"));
    }

    #[test]
    fn malformed_links_are_named() {
        let error = |rest: &str| link(&format!("hyper://{Z32}{rest}")).unwrap_err();
        assert_eq!(error("+"), IdError::Version);
        assert_eq!(error("++1"), IdError::Version);
        assert_eq!(error("+-1"), IdError::Version);
        assert_eq!(error("+9007199254740992"), IdError::Version);
        assert_eq!(error("/%"), IdError::PercentEncoding);
        assert_eq!(error("/%2"), IdError::PercentEncoding);
        assert_eq!(error("/%+1"), IdError::PercentEncoding);
        assert_eq!(error("/%ff"), IdError::PathNotUtf8);
        assert_eq!(error("#"), IdError::EncryptionKey);
        assert_eq!(error("?x"), IdError::Length(54));
        assert_eq!(link("hyper://"), Err(IdError::Length(0)));
    }

    #[test]
    fn the_encryption_key_is_not_in_debug_output() {
        let mut link = Link::from(Key::from([1; 32]));
        link.encryption_key = Some([2; 32]);
        assert!(!format!("{link:?}").contains(&encode_z32(&[2; 32])));
    }

    proptest! {
        #[test]
        fn z32_round_trips(bytes: Vec<u8>) {
            prop_assert_eq!(decode_z32(&encode_z32(&bytes)), Ok(bytes));
        }

        #[test]
        fn links_round_trip(
            key: [u8; 32],
            version in prop::option::of(0..=UINT_MAX),
            path in prop::option::of("\\PC*"),
            encryption_key: Option<[u8; 32]>,
        ) {
            let path = path.map(|path| format!("/{path}"));
            let link = Link { key: Key::from(key), version, path, encryption_key };
            prop_assert_eq!(link.to_string().parse(), Ok(link));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC*", suffix in "[+/#%a-z0-9]*") {
            let _ = text.parse::<Link>();
            let _ = format!("hyper://{Z32}{suffix}").parse::<Link>();
        }
    }
}
