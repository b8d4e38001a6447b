//! Encrypts the blocks of a core: a store without the key keeps and proves them all the same.
//!
//! Usage: cargo run -p ferrocore-log --example encryption

use bytes::Bytes;
use ferrocore_log::proof::{NodeRequest, ProofRequest, UpgradeRequest};
use ferrocore_log::{CoreError, CoreOptions, Corestore, EncryptionKey};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let key = EncryptionKey::generate();
    let diary = Corestore::memory().get_with(CoreOptions {
        name: Some("diary".to_owned()),
        encryption: Some(key.clone()),
        ..CoreOptions::default()
    })?;
    diary.append("nobody reads this")?;
    println!("the diary has {} bytes", diary.byte_length());

    // Somebody else keeps it without the key: hashes and signatures are over what is stored.
    let keeper = Corestore::memory().get(&diary.key())?;
    let request = ProofRequest {
        block: Some(NodeRequest { index: 0, nodes: 0 }),
        upgrade: Some(UpgradeRequest {
            start: 0,
            length: 1,
        }),
        manifest: true,
        ..ProofRequest::default()
    };
    keeper.accept(diary.prove(&request)?.ok_or("nothing to prove")?)?;
    let stored = keeper.get_local(0)?.ok_or("it was just taken")?;
    println!("its keeper has {} bytes of noise", stored.len());
    assert!(!stored.windows(4).any(|part| part == b"read"));

    // With the key, the same bytes are read.
    let reader = keeper.with_encryption(&key);
    let block = reader.get_local(0)?;
    assert_eq!(block, Some(Bytes::from("nobody reads this")));
    println!("who has the key reads: {:?}", block.unwrap_or_default());

    // Who has another key is told so.
    let stranger = keeper.with_encryption(&EncryptionKey::generate());
    assert!(matches!(
        stranger.get_local(0),
        Err(CoreError::WrongKey { .. })
    ));
    println!("who has another key does not");
    Ok(())
}
