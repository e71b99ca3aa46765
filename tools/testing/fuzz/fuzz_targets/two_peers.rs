// SPDX-License-Identifier: GPL-2.0

#![no_main]

#[path = "../../host/tests/targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (targets::target("two_peers").run)(bytes));
