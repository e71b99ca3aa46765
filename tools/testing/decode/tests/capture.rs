// SPDX-License-Identifier: GPL-2.0

//! The beginning of what two Linux 6.12 say to each other, captured by `make test-interop`.

use std::process::Command;

const CAPTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/linux-6.12.pcap");

/// What is told of each packet, without times, addresses and fields.
fn told(options: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_smc-decode"))
        .args(options)
        .arg(CAPTURE)
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("its text");
    assert!(!text.contains("wrong"), "{text}");
    let words = |line: &str| -> String {
        let (_, rest) = line.split_once(" > ").expect("addresses");
        let mut words = rest.split_whitespace().skip(1);
        let first = words.next().unwrap_or_default();
        let mut told = match first {
            // QP NUMBER:
            "QP" => words.nth(1).unwrap_or_default().to_owned(),
            _ => first.to_owned(),
        };
        let body = match (told.as_str(), line.split_once("body: ")) {
            ("LLC", Some((_, body))) => body.split(['(', ' ']).next(),
            _ => words.next(),
        };
        told.push(' ');
        told.push_str(body.unwrap_or_default());
        told
    };
    text.lines().map(words).collect()
}

#[test]
fn first_contact() {
    let told = told(&[]);
    let expected = [
        "TCP SYN",
        "TCP SYN-ACK",
        "CLC Proposal",
        "CLC Accept",
        "CLC Confirm",
        "LLC ConfirmLink",
        "LLC ConfirmLink",
        "LLC AddLink",
        "LLC AddLink",
    ];
    assert_eq!(told[..expected.len()], expected);
}

#[test]
fn data() {
    let quiet = told(&[]).len();
    let all = told(&["--data"]);
    let count = |what: &str| all.iter().filter(|told| *told == what).count();
    let (writes, cursors) = (count("RDMA WRITE"), count("CDC CdcMessage"));
    assert!(writes > 0 && cursors >= writes, "{all:?}");
    assert_eq!(all.len(), quiet + writes + cursors);
}

#[test]
fn no_capture() {
    let output = Command::new(env!("CARGO_BIN_EXE_smc-decode"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("the program runs");
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("is no pcap file"), "{error}");
}
