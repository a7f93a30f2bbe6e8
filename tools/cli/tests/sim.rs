//! `wadjet sim` where something is wrong.

use std::process::Command;

/// A membership that keeps the failed: no seed in which somebody crashes goes well.
const KEEPS_THE_FAILED: &str =
    "MBRSHIP(broken=keeps-the-failed):SUSPECT:STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM";

/// Making a world small may take minutes: who does not wait for it, or whose time is over, has the seed.
#[test]
fn a_seed_that_fails_is_told_at_once_and_not_only_in_the_report() {
    let output = Command::new(env!("CARGO_BIN_EXE_wadjet"))
        .args([
            "sim",
            "--scenario",
            "views",
            "--seeds",
            "0..1",
            "--check",
            "once",
            "--stack",
            KEEPS_THE_FAILED,
        ])
        .output()
        .expect("the command runs");
    let progress = String::from_utf8_lossy(&output.stderr);
    let told = progress.find("seed 0 has failed; to see it: wadjet sim --seeds 0..1 --scenario views");
    let made_small = progress.find("making the world of seed 0 smaller");
    assert!(told.is_some() && told < made_small, "{progress}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("SEED 0 FAILED; to see it: "));
    assert_eq!(output.status.code(), Some(1));
}
