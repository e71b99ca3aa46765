// SPDX-License-Identifier: GPL-2.0

//! What the fuzzers have found to be different, on the stable compiler: the whole corpus, and changes of it that are the same
//! in each run. `fuzz_short` has others each time.

use std::panic::{
    catch_unwind,
    AssertUnwindSafe, //
};

mod targets;

use targets::{
    mutate::Random,
    target,
    Target, //
};

/// Mutations of each target in a run.
const MUTATIONS: usize = 20_000;
/// Fewer for a target whose inputs are long scripts.
const MUTATIONS_OF_SCRIPTS: usize = 5_000;

fn feed(target: &Target, bytes: &[u8], what: &str) {
    let run = AssertUnwindSafe(|| (target.run)(bytes));
    assert!(
        catch_unwind(run).is_ok(),
        "{}: {what}: {bytes:02x?}",
        target.name
    );
}

fn replay(name: &str, mutations: usize) {
    let target = target(name);
    let corpus = target.corpus();
    assert!(corpus.len() >= 10, "{name}: a corpus of {}", corpus.len());
    for (path, bytes) in &corpus {
        feed(target, bytes, path);
    }
    let mut inputs: Vec<_> = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    for seed in (target.seeds)() {
        feed(target, &seed, "seed");
        inputs.push(seed);
    }
    let mut random = Random(0x7609);
    for number in 0..mutations {
        let bytes = random.mutation(&inputs);
        feed(target, &bytes, &format!("mutation {number}"));
    }
}

#[test]
fn clc_parse() {
    replay("clc_parse", MUTATIONS);
}

#[test]
fn clc_handshake() {
    replay("clc_handshake", MUTATIONS);
}

#[test]
fn tcp_option() {
    replay("tcp_option", MUTATIONS);
}

#[test]
fn llc() {
    replay("llc", MUTATIONS_OF_SCRIPTS);
}

#[test]
fn cdc() {
    replay("cdc", MUTATIONS);
}

#[test]
fn netlink() {
    replay("netlink", MUTATIONS);
}

#[test]
fn two_peers() {
    replay("two_peers", MUTATIONS_OF_SCRIPTS);
}
