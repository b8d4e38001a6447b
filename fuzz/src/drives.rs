//! Hyperdrive: entries as JSON, paths, and blob ids that lead anywhere in a core.
//!
//! Holds: an entry that was read is written as the same entry; a blob yields no more bytes than
//! its core or its map has, and ends.

use bytes::Bytes;
use ferrocore_drive::{BlobId, Blobs, EntryValue, path};
use ferrocore_log::CoreOptions;
use ferrocore_primitives::encoding::Reader;
use pollster::block_on;

use crate::honest;

/// Most bytes of one blob that are read.
const READ_BYTES_MAX: usize = 1 << 20;

/// The bytes are an entry's JSON, and a path.
pub fn entries(data: &[u8]) {
    if let Ok(entry) = EntryValue::from_json(data) {
        let written = entry.to_json();
        let again = EntryValue::from_json(&written).expect("what is written can be read");
        assert_eq!(again, entry);
        assert_eq!(again.to_json(), written);
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(normal) = path::normalize(text) {
        assert!(normal.starts_with('/'));
        let names: Vec<_> = normal.split('/').skip(1).collect();
        assert!(names.iter().all(|name| !matches!(*name, "" | "." | "..")));
    }
    let (link, target) = text.split_once(':').unwrap_or((text, text));
    let _ = path::normalize_folder(text);
    let _ = path::resolve(link, target);
    let _ = path::is_portable(text);
}

/// Four uints and a flag of a blob id, a range to read, then the blocks of the core: a byte with
/// the length each.
pub fn blob_ids(data: &[u8]) {
    let mut reader = Reader::new(data);
    let Ok((id, range)) = blob_id(&mut reader) else {
        return;
    };
    let (mut blocks, mut rest) = (Vec::new(), reader.rest());
    while let [len, behind @ ..] = rest {
        let (block, behind) = behind.split_at(behind.len().min(usize::from(*len)));
        blocks.push(Bytes::copy_from_slice(block));
        rest = behind;
    }
    let longest = blocks.iter().map(Bytes::len).max().unwrap_or(0);
    let core = honest::core_of(CoreOptions::default());
    core.append_batch(blocks).expect("the core is writable");
    let blobs = Blobs::new(core);
    let _ = block_on(blobs.byte_length(&id));
    let _ = block_on(blobs.has(&id));
    let _ = block_on(blobs.blocks(&id));
    let (start, length) = range;
    let Ok(mut read) = block_on(blobs.read(&id, start..start.saturating_add(length))) else {
        return;
    };
    let mut bytes = 0;
    while bytes < READ_BYTES_MAX
        && let Ok(Some(piece)) = block_on(read.next())
    {
        assert!(piece.len() <= longest, "pieces are blocks");
        bytes += piece.len().max(1);
    }
}

fn blob_id(
    reader: &mut Reader<'_>,
) -> Result<(BlobId, (u64, u64)), ferrocore_primitives::encoding::DecodeError> {
    let id = BlobId {
        block_offset: reader.uint()?,
        block_length: reader.uint()?,
        byte_offset: reader.uint()?,
        byte_length: reader.uint()?,
        block_map: reader.bool()?,
    };
    Ok((id, (reader.uint()?, reader.uint()?)))
}

/// Real entries and blobs to start from, by target.
pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let id = BlobId {
        block_offset: 1,
        block_length: 2,
        byte_offset: 3,
        byte_length: 7,
        block_map: false,
    };
    let blocks = b"\x03abc\x04defg\x03hij";
    let map = b"\x06\x00\x02\x02\x04\x01\x03";
    vec![
        ("drive_entries", EntryValue::file(id, true).to_json()),
        ("drive_entries", EntryValue::link("/a/../b").to_json()),
        (
            "drive_entries",
            br#"{"executable":false,"linkname":null,"blob":{"blockOffset":0,"byteOffset":0,"blockLength":1,"byteLength":9,"blockMap":true},"metadata":{"a":[1e2,"\u00e9"]},"x":1}"#.to_vec(),
        ),
        ("drive_entries", b"file:///a\\b/./c//../d%20".to_vec()),
        ("blob_ids", [&[1, 2, 3, 7, 0, 1, 5][..], blocks].concat()),
        ("blob_ids", [&[0, 1, 0, 7, 1, 1, 5][..], map, blocks].concat()),
        ("blob_ids", [&[0, 0xfe, 255, 255, 255, 255, 0, 9, 0, 0, 9][..], blocks].concat()),
    ]
}
