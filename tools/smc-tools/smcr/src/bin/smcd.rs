// SPDX-License-Identifier: GPL-2.0

//! smcd: see the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    smcr::smcd::main()
}
