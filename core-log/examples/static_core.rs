//! Makes a core that nobody can change: its key is the hash of what it holds.
//!
//! Usage: cargo run -p ferrocore-log --example static_core

use bytes::Bytes;
use ferrocore_log::{CoreError, Corestore};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Corestore::memory();
    let pages: Vec<Bytes> = ["one", "two", "three"].map(Bytes::from).to_vec();
    let book = store.create_static(pages.clone())?;
    println!("a static core of {} blocks: {}", book.length(), book.key());
    match book.append("four") {
        Err(CoreError::NotWritable { .. }) => println!("nobody appends to it"),
        other => return Err(format!("a static core grew: {other:?}").into()),
    }

    // The same blocks have the same key, wherever they are.
    let again = Corestore::memory().create_static(pages.clone())?;
    assert_eq!(again.key(), book.key());

    // A log can be pinned as it is, and goes on itself.
    let draft = store.get_named("draft")?;
    draft.append_batch(pages)?;
    let edition = store.staticify(&draft)?;
    assert_eq!(edition.key(), book.key());
    draft.append("four")?;
    println!(
        "the draft has {} blocks by now, its edition {}",
        draft.length(),
        edition.length()
    );
    Ok(())
}
