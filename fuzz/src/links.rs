//! Keys and links as text.
//!
//! Holds: a link prints in a form that parses to the same link and prints equally.

use ferrocore_primitives::id::{Link, decode_z32, encode_z32, parse_key};
use ferrocore_primitives::keys::Key;

/// The bytes are the text.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(link) = text.parse::<Link>() {
        let printed = link.to_string();
        assert_eq!(printed.parse::<Link>().as_ref(), Ok(&link));
        assert_eq!(parse_key(&printed), Ok(link.key));
        if let Some(secret) = link.encryption_key {
            let hidden = Link {
                encryption_key: Some(secret),
                ..Link::from(Key::from([0; 32]))
            };
            let shown = format!("{hidden:?}");
            assert!(
                !shown.contains(&encode_z32(&secret)),
                "secrets are not shown"
            );
        }
    }
    if let Ok(key) = parse_key(text) {
        assert_eq!(parse_key(&key.to_string()), Ok(key));
        assert_eq!(parse_key(&key.to_hex()), Ok(key));
    }
    if let Ok(bytes) = decode_z32(text) {
        assert!(bytes.len() * 8 <= text.len() * 5);
        assert_eq!(decode_z32(&encode_z32(&bytes)).as_ref(), Ok(&bytes));
    }
}
