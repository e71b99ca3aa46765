// SPDX-License-Identifier: GPL-2.0

//! A run of the short fuzzer with each test run.

use std::process::Command;

#[test]
fn random_input_finds_nothing() {
    let output = Command::new(env!("CARGO_BIN_EXE_fuzz_short"))
        .arg("5000")
        .output()
        .expect("fuzz_short runs");
    // The seed is in there.
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
}
