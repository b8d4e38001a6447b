//! Goal: what needs no store works without one.

use crate::common::Bench;

#[test]
fn the_demonstration_ends_with_equal_folders_and_leaves_nothing() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("tmp")).unwrap();
    let mut command = bench.command("s", &["demo", "--json"]);
    let output = command.env("TMPDIR", bench.path("tmp")).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let done: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&done["event"], &done["equal"]),
        (&"done".into(), &true.into())
    );
    assert!(done["files"].as_u64() > Some(100) && done["seconds"].as_f64() > Some(0.0));
    assert_eq!(std::fs::read_dir(bench.path("tmp")).unwrap().count(), 0);
}

#[test]
fn version_and_completions_need_no_store() {
    let bench = Bench::new();
    let version = bench.run("s", &["version"]).expect(0).text();
    assert_eq!(version, concat!("fcore ", env!("CARGO_PKG_VERSION"), "\n"));
    let program = bench
        .run("s", &["version", "--json"])
        .expect(0)
        .event("program");
    assert_eq!(program["version"], env!("CARGO_PKG_VERSION"));
    for shell in ["bash", "zsh", "fish"] {
        let script = bench.run("s", &["completions", shell]).expect(0).text();
        assert!(script.contains("replicate"), "{shell}");
    }
    assert!(!bench.path("s").exists());
}

#[test]
fn the_first_use_says_where_the_store_is() {
    let bench = Bench::new();
    let first = bench.run("s", &["list"]).expect(0);
    assert!(first.stderr.contains(bench.path("s").to_str().unwrap()));
    let second = bench.run("s", &["list"]).expect(0);
    assert!(!second.stderr.contains(bench.path("s").to_str().unwrap()));
}
