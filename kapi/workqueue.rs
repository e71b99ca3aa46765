// SPDX-License-Identifier: GPL-2.0

//! Work queues that this module owns.
//!
//! The `kernel` crate knows the system's queues only, and cannot flush them. A module whose work
//! functions live in its own text must be sure that none of them runs when the text goes away:
//! dropping the [`QueueGuard`] of an [`OwnedQueue`] waits for all of its work.

use crate::bindings;
use core::ptr;
use kernel::{
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Full,
        Release, //
    },
    workqueue::Queue, //
};

/// A work queue of this module, which lives in a `static`.
///
/// # Invariants
///
/// `raw` is null, or the address of a work queue that was started and not destroyed yet.
pub(crate) struct OwnedQueue {
    raw: Atomic<usize>,
}

impl OwnedQueue {
    /// A queue that was not started yet.
    pub(crate) const fn new() -> Self {
        // INVARIANT: Null.
        Self {
            raw: Atomic::new(0),
        }
    }

    /// Starts the queue; its items may run on any processor and may sleep. The module keeps the
    /// guard until everything that queues work is gone.
    pub(crate) fn start(&'static self, name: &'static CStr) -> Result<QueueGuard> {
        // SAFETY: `name` is a C string that lives forever.
        let raw = unsafe { bindings::alloc_workqueue(name.as_ptr().cast(), bindings::WQ_UNBOUND) };
        if raw.is_null() {
            return Err(ENOMEM);
        }
        // INVARIANT: The queue was just made, and only the guard destroys it.
        self.raw.store(raw.addr(), Release);
        Ok(QueueGuard { queue: self })
    }

    fn as_ptr(&self) -> *mut bindings::workqueue_struct {
        ptr::with_exposed_provenance_mut(self.raw.load(Acquire))
    }

    /// Queues a raw work item; `false` if it is queued already, or the queue is stopped. Any
    /// context.
    ///
    /// # Safety
    ///
    /// `work` must be initialised and stay valid until it has run.
    pub(super) unsafe fn queue_raw(&self, work: *mut bindings::work_struct) -> bool {
        let raw = self.as_ptr();
        // SAFETY: The queue is alive by the type invariants; the caller vouches for `work`.
        !raw.is_null() && unsafe { bindings::queue_work(raw, work) }
    }

    /// The queue as the `kernel` crate knows it, unless it is stopped.
    pub(crate) fn queue(&self) -> Option<&Queue> {
        let raw = self.as_ptr();
        if raw.is_null() {
            return None;
        }
        // SAFETY: The queue is alive by the type invariants. Both bindings describe one C type.
        Some(unsafe { Queue::from_raw(raw.cast()) })
    }

    /// Whether items wait for others to end. Only a hint. Any context.
    pub(crate) fn is_congested(&self) -> bool {
        let raw = self.as_ptr();
        // SAFETY: The queue is alive by the type invariants.
        !raw.is_null() && unsafe { bindings::workqueue_congested(raw) }
    }

    /// Waits until everything that was queued so far has run.
    pub(crate) fn flush(&self) {
        let raw = self.as_ptr();
        if !raw.is_null() {
            // SAFETY: The queue is alive by the type invariants.
            unsafe { bindings::__flush_workqueue(raw) };
        }
    }
}

/// Stops its queue on drop, after waiting for the queue's work.
pub(crate) struct QueueGuard {
    queue: &'static OwnedQueue,
}

impl Drop for QueueGuard {
    fn drop(&mut self) {
        self.queue.flush();
        let raw = self.queue.raw.xchg(0, Full);
        // SAFETY: This guard is the only one to destroy the queue; this waits for its work.
        unsafe { bindings::destroy_workqueue(ptr::with_exposed_provenance_mut(raw)) };
    }
}
