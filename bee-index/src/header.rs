//! Block 0 of a bee: what the core is, and what its owner wants readers to know.
//!
//! | message | field | tag | type |
//! |---|---|---|---|
//! | Header | protocol | `0a` | string, always `hyperbee` |
//! | | metadata | `12` | optional Metadata |
//! | Metadata | contentFeed | `0a` | optional bytes |
//! | | userData | `12` | optional bytes |
//!
//! As hyperbee 2.27 writes it (`lib/messages.js`).

use bytes::Bytes;

use crate::protobuf::{Delimited, field_len, put_field, put_field_head};

/// Block 0 of a bee.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// What the owner of the bee adds. `Some` of an empty [`Metadata`] and `None` differ on the
    /// core: a drive whose blobs key derives from its manifest writes the former.
    pub metadata: Option<Metadata>,
}

/// What the owner of a bee tells its readers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// The key of a core that belongs to this bee; a drive keeps its blobs core here.
    pub content_feed: Option<Bytes>,
    /// Bytes of the application.
    pub user_data: Option<Bytes>,
}

impl Header {
    /// Reads block 0, or `None` if it is not the header of a bee.
    pub fn decode(block: &Bytes) -> Option<Self> {
        let mut is_bee = false;
        let mut header = Self::default();
        for field in Delimited::new(block) {
            match field.ok()? {
                (PROTOCOL, range) => is_bee = block.get(range)? == NAME,
                (METADATA, range) => {
                    header.metadata = Some(Metadata::decode(&block.slice(range))?);
                }
                _ => {}
            }
        }
        is_bee.then_some(header)
    }

    /// The bytes of block 0.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        put_field(&mut out, PROTOCOL as u8, NAME);
        if let Some(metadata) = &self.metadata {
            metadata.encode(&mut out);
        }
        out.into()
    }
}

impl Metadata {
    fn decode(message: &Bytes) -> Option<Self> {
        let mut metadata = Self::default();
        for field in Delimited::new(message) {
            match field.ok()? {
                (CONTENT_FEED, range) => metadata.content_feed = Some(message.slice(range)),
                (USER_DATA, range) => metadata.user_data = Some(message.slice(range)),
                _ => {}
            }
        }
        Some(metadata)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let len = |field: &Option<Bytes>| field.as_ref().map_or(0, |bytes| field_len(bytes.len()));
        put_field_head(
            out,
            METADATA as u8,
            len(&self.content_feed) + len(&self.user_data),
        );
        if let Some(feed) = &self.content_feed {
            put_field(out, CONTENT_FEED as u8, feed);
        }
        if let Some(data) = &self.user_data {
            put_field(out, USER_DATA as u8, data);
        }
    }
}

const NAME: &[u8] = b"hyperbee";
const PROTOCOL: u64 = 1;
const METADATA: u64 = 2;
const CONTENT_FEED: u64 = 1;
const USER_DATA: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// The three kinds of header found on cores encode to their known bytes and back.
    #[test]
    fn headers_round_trip() {
        let with = |metadata| Header { metadata };
        let cases = [
            (with(None), "0a086879706572626565".to_owned()),
            (
                with(Some(Metadata::default())),
                "0a0868797065726265651200".to_owned(),
            ),
            (
                with(Some(Metadata {
                    content_feed: Some(Bytes::from_static(&[0x11; 32])),
                    user_data: Some(Bytes::from_static(b"ud")),
                })),
                format!("0a08687970657262656512260a20{}12027564", "11".repeat(32)),
            ),
        ];
        for (header, expected) in cases {
            let bytes = header.encode();
            assert_eq!(hex::encode(&bytes), expected);
            assert_eq!(Header::decode(&bytes), Some(header));
        }
    }

    #[test]
    fn other_blocks_are_no_headers() {
        for block in ["", "hyperbee", "\x0a\x05other", "\x0a\x08hyperbee\x12\x05"] {
            assert_eq!(Header::decode(&Bytes::from(block)), None, "{block:?}");
        }
    }
}
