// SPDX-License-Identifier: GPL-2.0

//! Counters that each processor has for itself: adding to one is an instruction on memory that no other
//! processor writes, without a lock. Who reads adds them up.
//!
//! # What C guarantees
//!
//! `this_cpu_add()` may be called in any context, and cannot be torn by an interrupt or by moving to
//! another processor in between. Memory from `alloc_percpu()` is zeroed, and there for every processor
//! that there can be.

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    ffi::{
        c_uint,
        c_void, //
    },
    prelude::*,
};

/// `N` counters of 64 bits, which wrap around.
///
/// # Invariants
///
/// `base` is per-CPU memory for `N` of them, which we own.
pub(crate) struct Counters<const N: usize> {
    base: NonNull<c_void>,
}

// SAFETY: The memory is not bound to a thread.
unsafe impl<const N: usize> Send for Counters<N> {}
// SAFETY: `this_cpu_add()` and reading whole words are fine from everywhere at the same time.
unsafe impl<const N: usize> Sync for Counters<N> {}

impl<const N: usize> Counters<N> {
    /// All zero. May sleep.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Process context.
        let base = unsafe { bindings::percpu_counters_alloc(N as c_uint) };
        // INVARIANT: Allocated just now.
        Ok(Self {
            base: NonNull::new(base).ok_or(ENOMEM)?,
        })
    }

    /// Adds `value` to a counter; there must be one of this number. Any context.
    pub(crate) fn add(&self, number: usize, value: u64) {
        debug_assert!(number < N);
        if number < N {
            // SAFETY: By the type invariants there is a counter of this number.
            unsafe { bindings::percpu_counters_add(self.base.as_ptr(), number as c_uint, value) };
        }
    }

    /// Adds one to each of `ones`, and `value` to another counter; there must be all of them. Any context.
    pub(crate) fn add_call(&self, ones: [usize; 2], number: usize, value: u64) {
        let [one, other] = ones;
        debug_assert!(one < N && other < N && number < N);
        if one < N && other < N && number < N {
            // SAFETY: By the type invariants there are counters of these numbers.
            unsafe {
                bindings::percpu_counters_add_call(
                    self.base.as_ptr(),
                    one as c_uint,
                    other as c_uint,
                    number as c_uint,
                    value,
                )
            };
        }
    }

    /// What all processors have added to a counter. Any context.
    pub(crate) fn sum(&self, number: usize) -> u64 {
        if number >= N {
            return 0;
        }
        // SAFETY: As above.
        unsafe { bindings::percpu_counters_sum(self.base.as_ptr(), number as c_uint) }
    }
}

impl<const N: usize> Drop for Counters<N> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants it is ours, and nobody uses it any more.
        unsafe { bindings::percpu_counters_free(self.base.as_ptr()) };
    }
}
