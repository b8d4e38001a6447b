//! Measures appends a second of 100-byte blocks with `Durability::Sync`: by several threads on one
//! core, and by as many on cores of their own.
//!
//! Usage: cargo run --release -p ferrocore-log --example durable_appends [DIRECTORY]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ferrocore_log::{Core, Corestore, Durability, StoreOptions};

const RUN: Duration = Duration::from_secs(3);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let base = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, Into::into);
    let directory = base.join(format!("durable-appends-{}", std::process::id()));
    let durability = Durability::Sync;
    let store = Corestore::open(&directory, StoreOptions::from(durability))?;
    for appenders in [1, 8, 64] {
        let shared = store.get_named(&format!("shared by {appenders}"))?;
        let one = run(&vec![shared; appenders]);
        let own: Result<Vec<Core>, _> = (0..appenders)
            .map(|n| store.get_named(&format!("{n} of {appenders}")))
            .collect();
        let each = run(&own?);
        println!("{appenders:>3} appenders: {one:>8.0}/s on one core, {each:>8.0}/s on one each");
    }
    drop(store);
    Ok(std::fs::remove_dir_all(directory)?)
}

/// Appends a second, all together.
fn run(cores: &[Core]) -> f64 {
    let (start, done) = (Instant::now(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for core in cores {
            scope.spawn(|| {
                while start.elapsed() < RUN {
                    core.append(vec![7; 100]).expect("the disk works");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    done.into_inner() as f64 / start.elapsed().as_secs_f64()
}
