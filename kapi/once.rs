// SPDX-License-Identifier: GPL-2.0

//! Initialisation on first use.

use kernel::sync::atomic::{
    Acquire,
    Atomic,
    Full,
    Release, //
};

/// Runs a short initialisation the first time that it is needed.
pub(crate) struct Once(Atomic<i32>);

const NEW: i32 = 0;
const RUNNING: i32 = 1;
const DONE: i32 = 2;

impl Once {
    /// Nothing has run.
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(NEW))
    }

    /// Runs `init` unless it has run; when this returns it has. `init` must not sleep.
    pub(crate) fn call(&self, init: impl FnOnce()) {
        if self.0.load(Acquire) == DONE {
            return;
        }
        if self.0.cmpxchg(NEW, RUNNING, Full).is_ok() {
            init();
            self.0.store(DONE, Release);
        }
        while self.0.load(Acquire) != DONE {
            core::hint::spin_loop();
        }
    }
}
