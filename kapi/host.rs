// SPDX-License-Identifier: GPL-2.0

//! Facts about this host: time, randomness, its name.

use crate::bindings;

/// Milliseconds since the host was started.
pub(crate) fn now_ms() -> u64 {
    // SAFETY: May be called in any context.
    let ns = unsafe { bindings::ktime_get() };
    u64::try_from(ns).unwrap_or(0) / 1_000_000
}

/// Random bytes. Any context.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // SAFETY: `bytes` is writable for `N` bytes.
    unsafe { bindings::get_random_bytes(bytes.as_mut_ptr().cast(), N) };
    bytes
}

/// The host's name, padded with blanks.
pub(crate) fn hostname() -> [u8; 32] {
    let mut name = [0; 33];
    // SAFETY: `name` has room for 32 bytes and the terminating zero.
    unsafe { bindings::host_name(name.as_mut_ptr().cast(), name.len()) };
    let mut padded = [b' '; 32];
    for (to, from) in padded.iter_mut().zip(name) {
        if from == 0 {
            break;
        }
        *to = from;
    }
    padded
}
