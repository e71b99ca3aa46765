// SPDX-License-Identifier: GPL-2.0

//! Facts about this host: time, randomness, its name.

use crate::bindings;

/// Milliseconds since the host was started.
pub(crate) fn now_ms() -> u64 {
    // SAFETY: May be called in any context.
    let ns = unsafe { bindings::ktime_get() };
    u64::try_from(ns).unwrap_or(0) / 1_000_000
}

/// Milliseconds since some time, at the resolution of the timer tick: next to nothing to ask for.
pub(crate) fn coarse_ms() -> u64 {
    // SAFETY: A single word that the kernel changes concurrently.
    let jiffies = unsafe { core::ptr::read_volatile(&raw const bindings::jiffies) };
    (jiffies as u64).wrapping_mul(1000) / u64::from(bindings::HZ)
}

/// The time of day, in nanoseconds since 1970. Any context.
pub(crate) fn time_of_day_ns() -> i64 {
    // SAFETY: May be called in any context.
    unsafe { bindings::ktime_get_with_offset(bindings::tk_offsets_TK_OFFS_REAL) }
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
