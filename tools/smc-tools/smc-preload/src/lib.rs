// SPDX-License-Identifier: GPL-2.0

//! `libsmc-preload.so`: a library for `LD_PRELOAD` with which the TCP sockets that a program makes
//! become SMC sockets.
//!
//! It lives in programs that know nothing of it. So it has no run-time of Rust's, allocates nothing,
//! takes no lock and starts no thread; `socket()` stays callable from signal handlers and between
//! `fork` and `exec`, and changes `errno` only where the C library's would.

#![cfg_attr(not(test), no_std)]

mod choice;
#[cfg(not(test))]
mod entry;
mod settings;
