//! Goal: peers behind NATs meet and are told how, or why not. Method: three rows of `scripts/nat-test`, in which Node is the DHT and
//! the blind relay; where network namespaces are not permitted, the test says so and passes.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;

use ferrocore_interop_tests::fcore::Fcore;

/// One that is punched, one that takes a relay, and one where `status` says why neither helps.
const ROWS: [&str; 3] = [
    "fcore get <- fcore share, plain -> plain, among Node's",
    "fcore get <- fcore share, random -> random, with a relay, among Node's",
    "fcore get <- fcore share, random -> random, with a relay that is not there, among Node's",
];

#[test]
fn what_is_shared_behind_a_nat_is_fetched_behind_another() {
    let fcore = Fcore::new("unused").command([""; 0]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/nat-test");
    let mut run = Command::new("timeout");
    run.arg("240").arg(script).args(ROWS);
    let run = run.env("FCORE", fcore.get_program()).output().unwrap();
    let [said, errors] = [run.stdout, run.stderr].map(|text| String::from_utf8(text).unwrap());
    if said.starts_with("nat-test skipped") {
        return eprint!("{said}");
    }
    let ok: Vec<_> = said
        .lines()
        .filter_map(|line| line.strip_prefix("ok"))
        .collect();
    let is_ok = |row: &str| ok.iter().any(|line| line.trim_start().starts_with(row));
    let all = run.status.success() && ROWS.into_iter().all(is_ok);
    assert!(all, "{said}{errors}");
}
