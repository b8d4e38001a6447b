//! Cuts a log, and looks at it as it was.
//!
//! Usage: cargo run -p ferrocore-log --example truncate_and_snapshot

use ferrocore_log::{CoreError, Corestore};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let core = Corestore::memory().get_named("notes")?;
    for note in ["milk", "bread", "champagne"] {
        core.append(note)?;
    }
    let before = core.snapshot();

    // A cut is signed, under the next fork: readers know that this is no lie about the length.
    core.truncate(2, None)?;
    core.append("water")?;
    println!("the log: {} blocks, fork {}", core.length(), core.fork());

    // A snapshot keeps length and hashes, and the blocks that both histories begin with.
    println!(
        "the snapshot: {} blocks, of which {} are still there",
        before.length(),
        before.compat_length()
    );
    assert_eq!((before.length(), before.compat_length()), (3, 2));
    assert_eq!(before.get_local(1)?, Some("bread".into()));
    match before.get_local(2) {
        Err(CoreError::SnapshotNotAvailable { .. }) => println!("the champagne is gone"),
        other => return Err(format!("read from a history that is gone: {other:?}").into()),
    }

    // A checkout is a snapshot of an earlier length, appends or not.
    let first = core.checkout(1)?;
    core.append("cheese")?;
    assert_eq!((first.length(), core.length()), (1, 4));
    println!("a checkout stays at {} block", first.length());
    Ok(())
}
