// SPDX-License-Identifier: GPL-2.0

//! The kernel log, for what a peer could make happen again and again.

use crate::bindings;

/// Whether one more line is welcome: 10 in 5 seconds for the whole module. Any context.
pub(crate) fn allowed() -> bool {
    // SAFETY: May be called in any context.
    unsafe { bindings::log_allowed() }
}

/// As `pr_warn!`, but no more often than [`allowed`].
macro_rules! pr_warn_ratelimited {
    ($($args:tt)*) => {
        if $crate::kapi::log::allowed() {
            ::kernel::pr_warn!($($args)*);
        }
    };
}
pub(crate) use pr_warn_ratelimited;
