// SPDX-License-Identifier: GPL-2.0

//! TCP options of a SYN and of the SYN-ACK to it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smc_proto::clc::tcp_option;

#[path = "../../host/tests/common/mod.rs"]
mod common;

fuzz_target!(|options: (&[u8], &[u8])| {
    let (syn, syn_ack) = options;
    common::read_options(syn);
    common::read_options(syn_ack);
    let _ = tcp_option::is_echo(syn, syn_ack);
});
