//! Goal: blocks that are read and hashed together are the ones that each alone would be, whatever range is read and
//! whatever is wrong with one of them.

use bytes::Bytes;
use ferrocore_drive::blobs::BLOCK_BYTES;
use ferrocore_drive::{BlobReader, Blobs, DriveError};
use ferrocore_log::{CoreError, CoreOptions, Corestore, EncryptionKey};
use pollster::block_on;

/// Of ten blocks, the last one short.
fn bytes() -> Bytes {
    let byte = |at: usize| (at / 251) as u8 ^ (at % 251) as u8;
    (0..10 * BLOCK_BYTES - 1_000).map(byte).collect()
}

fn blobs(encryption: Option<EncryptionKey>) -> Blobs {
    let options = CoreOptions {
        name: Some("blobs".to_owned()),
        encryption,
        ..CoreOptions::default()
    };
    Blobs::new(Corestore::memory().get_with(options).unwrap())
}

/// What `reader` gives, and what ends it.
fn read(mut reader: BlobReader) -> (Vec<u8>, Option<DriveError>) {
    let mut bytes = Vec::new();
    loop {
        match block_on(reader.next()) {
            Ok(Some(more)) => bytes.extend_from_slice(&more),
            Ok(None) => return (bytes, None),
            Err(error) => return (bytes, Some(error)),
        }
    }
}

#[test]
fn every_range_is_read() {
    for encryption in [None, Some(EncryptionKey::from([7; 32]))] {
        let blobs = blobs(encryption);
        block_on(blobs.put("something before")).unwrap();
        let bytes = bytes();
        let id = block_on(blobs.put(bytes.clone())).unwrap();
        let edges = [
            0,
            1,
            BLOCK_BYTES,
            4 * BLOCK_BYTES + 1,
            9 * BLOCK_BYTES,
            bytes.len(),
        ];
        for (first, start) in edges.into_iter().enumerate() {
            for end in edges.into_iter().skip(first) {
                let range = start as u64..end as u64;
                let (read, error) = read(block_on(blobs.read(&id, range.clone())).unwrap());
                assert!(error.is_none(), "{range:?}: {error:?}");
                assert!(read == bytes[start..end], "{range:?}");
            }
        }
    }
}

#[test]
fn nothing_is_put_with_another_key() {
    let blobs = blobs(Some(EncryptionKey::from([7; 32])));
    block_on(blobs.put(bytes())).unwrap();
    let length = blobs.core().length();
    let wrong = blobs.core().with_encryption(&EncryptionKey::from([8; 32]));
    let refused = block_on(Blobs::new(wrong).put("more"));
    assert!(
        matches!(refused, Err(DriveError::Core(CoreError::WrongKey { .. }))),
        "{refused:?}"
    );
    assert_eq!(blobs.core().length(), length);
}

#[test]
fn what_lies_before_a_missing_block_is_read() {
    let bytes = bytes();
    for missing in 0..10 {
        let blobs = blobs(None);
        let id = block_on(blobs.put(bytes.clone())).unwrap();
        blobs.core().clear(missing..missing + 1).unwrap();
        let (read, error) = read(block_on(blobs.read(&id, ..)).unwrap());
        assert!(read == bytes[..missing as usize * BLOCK_BYTES], "{missing}");
        let is_it = |index| index == missing;
        assert!(
            matches!(error, Some(DriveError::Core(CoreError::NoPeers { index, .. })) if is_it(index)),
            "{missing}"
        );
    }
}
