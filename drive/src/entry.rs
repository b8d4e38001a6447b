//! Entries: what the index of a drive says about one path.
//!
//! Knows the JSON form, byte for byte as `hyperdrive` 13 writes it, and what may be wrong with a
//! foreign one. Does not read blobs nor resolve links.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::json::{self, Json};

/// Largest number JavaScript counts exactly.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Most unknown fields of a foreign entry that are carried along.
const OTHER_FIELDS_MAX: usize = 64;

/// A path with what the drive has there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The block of the index that says so.
    pub seq: u64,
    /// The drive path. Foreign drives may hold paths that are not normalised.
    pub path: String,
    /// What is there.
    pub value: EntryValue,
}

/// A file or a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryValue {
    /// Whether the file can be run.
    pub executable: bool,
    /// The text of a symbolic link, as it was given.
    pub linkname: Option<String>,
    /// Where a file's bytes are; links have none.
    pub blob: Option<BlobId>,
    /// Anything the application adds.
    pub metadata: Option<Json>,
    /// Fields that this version does not know; they are written again as they were.
    pub other: Vec<(String, Json)>,
}

/// Where a blob lies in the blobs core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlobId {
    /// Its first block.
    pub block_offset: u64,
    /// Bytes in the core before it.
    pub byte_offset: u64,
    /// How many blocks it has.
    pub block_length: u64,
    /// How many bytes it has.
    pub byte_length: u64,
    /// Whether those blocks hold a list of blocks instead of the bytes themselves.
    pub block_map: bool,
}

/// An entry of the index is not one of a drive.
#[derive(Debug, Error)]
#[error("malformed drive entry: {0}")]
pub struct EntryError(String);

impl EntryError {
    pub(crate) fn path() -> Self {
        Self("its path is not UTF-8".to_owned())
    }
}

impl EntryValue {
    /// A file.
    pub fn file(blob: BlobId, executable: bool) -> Self {
        Self {
            executable,
            blob: Some(blob),
            ..Self::default()
        }
    }

    /// A symbolic link.
    pub fn link(target: impl Into<String>) -> Self {
        Self {
            linkname: Some(target.into()),
            ..Self::default()
        }
    }

    /// The JSON text.
    pub fn to_json(&self) -> Vec<u8> {
        json::to_vec(self).expect("text keys and numbers have a JSON form")
    }

    /// Reads the JSON text.
    ///
    /// # Errors
    /// [`EntryError`] if it is not an object whose known fields have their types.
    pub fn from_json(text: &[u8]) -> Result<Self, EntryError> {
        let value: Self = serde_json::from_slice(text).map_err(|e| EntryError(e.to_string()))?;
        match &value.blob {
            Some(blob) if !blob.is_countable() => {
                Err(EntryError("the blob lies past the last number".to_owned()))
            }
            _ => Ok(value),
        }
    }
}

impl BlobId {
    /// The blocks.
    pub fn blocks(&self) -> std::ops::Range<u64> {
        self.block_offset..self.block_offset.saturating_add(self.block_length)
    }

    /// Whether both ends can be counted exactly.
    fn is_countable(&self) -> bool {
        let ends = |start: u64, length: u64| {
            start
                .checked_add(length)
                .is_some_and(|end| end <= NUMBER_MAX)
        };
        ends(self.block_offset, self.block_length) && ends(self.byte_offset, self.byte_length)
    }
}

impl Serialize for EntryValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("executable", &self.executable)?;
        map.serialize_entry("linkname", &self.linkname)?;
        map.serialize_entry("blob", &self.blob)?;
        map.serialize_entry("metadata", &self.metadata)?;
        for (name, value) in &self.other {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for EntryValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = EntryValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a drive entry")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<EntryValue, A::Error> {
        let mut entry = EntryValue::default();
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "executable" => entry.executable = map.next_value::<Option<bool>>()? == Some(true),
                "linkname" => entry.linkname = map.next_value()?,
                "blob" => entry.blob = map.next_value()?,
                "metadata" => {
                    entry.metadata = Some(map.next_value::<Json>()?).filter(|json| !json.is_null());
                }
                _ if entry.other.len() == OTHER_FIELDS_MAX => {
                    return Err(serde::de::Error::custom("too many unknown fields"));
                }
                _ => entry.other.push((name, map.next_value()?)),
            }
        }
        Ok(entry)
    }
}

impl Serialize for BlobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("blockOffset", &self.block_offset)?;
        map.serialize_entry("byteOffset", &self.byte_offset)?;
        map.serialize_entry("blockLength", &self.block_length)?;
        map.serialize_entry("byteLength", &self.byte_length)?;
        if self.block_map {
            map.serialize_entry("blockMap", &true)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for BlobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Fields {
            block_offset: u64,
            byte_offset: u64,
            block_length: u64,
            byte_length: u64,
            #[serde(default)]
            block_map: bool,
        }
        let fields = Fields::deserialize(deserializer)?;
        Ok(Self {
            block_offset: fields.block_offset,
            byte_offset: fields.byte_offset,
            block_length: fields.block_length,
            byte_length: fields.byte_length,
            block_map: fields.block_map,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<EntryValue, EntryError> {
        EntryValue::from_json(text.as_bytes())
    }

    #[test]
    fn unknown_fields_and_metadata_survive_a_copy() {
        let text = r#"{"executable":false,"linkname":null,"blob":null,"metadata":{"z":1,"a":[1e3]},"owner":{"b":2,"a":1}}"#;
        assert_eq!(parse(text).unwrap().to_json(), text.as_bytes());
    }

    #[test]
    fn text_is_escaped_as_javascript_does() {
        let value = EntryValue::link("\u{8}\t\n\u{c}\r\"\\/\u{1f}\u{7f}\u{2028}ü");
        let json = String::from_utf8(value.to_json()).unwrap();
        assert!(json.contains("\"\\b\\t\\n\\f\\r\\\"\\\\/\\u001f\u{7f}\u{2028}ü\""));
    }

    #[test]
    fn malformed_entries_are_errors() {
        for text in [
            "",
            "null",
            "[]",
            "7",
            r#"{"executable":1}"#,
            r#"{"linkname":5}"#,
            r#"{"linkname":"\ud800"}"#,
            r#"{"blob":{}}"#,
            r#"{"blob":{"blockOffset":-1,"byteOffset":0,"blockLength":0,"byteLength":0}}"#,
            r#"{"blob":{"blockOffset":9007199254740991,"byteOffset":0,"blockLength":1,"byteLength":0}}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let deep = format!("{{\"metadata\":{}", "[".repeat(1 << 20));
        assert!(parse(&deep).is_err());
    }

    #[test]
    fn missing_fields_are_empty() {
        assert_eq!(parse("{}").unwrap(), EntryValue::default());
    }

    fn blob_id() -> impl Strategy<Value = BlobId> {
        let number = 0..NUMBER_MAX / 2;
        (
            number.clone(),
            number.clone(),
            number.clone(),
            number,
            any::<bool>(),
        )
            .prop_map(
                |(block_offset, byte_offset, block_length, byte_length, block_map)| BlobId {
                    block_offset,
                    byte_offset,
                    block_length,
                    byte_length,
                    block_map,
                },
            )
    }

    proptest! {
        #[test]
        fn survives_a_round_trip(
            executable: bool,
            linkname in option::of(any::<String>()),
            blob in option::of(blob_id()),
            metadata in option::of(any::<String>()),
        ) {
            let metadata = metadata.map(|text| Json::new(&text).unwrap());
            let value = EntryValue { executable, linkname, blob, metadata, other: Vec::new() };
            prop_assert_eq!(EntryValue::from_json(&value.to_json()).unwrap(), value);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = EntryValue::from_json(&bytes);
        }
    }
}
