// SPDX-License-Identifier: GPL-2.0

//! smcr: see the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    smcr::smcr::main()
}
