// SPDX-License-Identifier: GPL-2.0

//! Every parser and handshake state on the same bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../host/tests/common/mod.rs"]
mod common;

fuzz_target!(|bytes: &[u8]| common::read_everything(bytes));
