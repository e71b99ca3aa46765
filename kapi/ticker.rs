// SPDX-License-Identifier: GPL-2.0

//! A function that is called again and again.

use crate::bindings;
use kernel::{
    error::Result,
    ffi::c_ulong,
    prelude::*,
    types::Opaque, //
};

#[repr(C)]
struct Inner {
    work: Opaque<bindings::delayed_work>,
    tick: fn(),
    period: c_ulong,
}

/// Calls a function periodically, in process context; never twice at a time. Dropping it waits for
/// a call that runs.
///
/// # Invariants
///
/// `inner.work` is initialised, and is cancelled before `inner` is freed.
pub(crate) struct Ticker {
    inner: KBox<Inner>,
}

// SAFETY: Work items may be used from any thread.
unsafe impl Send for Ticker {}
// SAFETY: There is nothing to do through a shared reference.
unsafe impl Sync for Ticker {}

impl Ticker {
    /// Calls `tick` every `period_ms` milliseconds from now on.
    pub(crate) fn start(period_ms: u32, tick: fn()) -> Result<Self> {
        let inner = KBox::new(
            Inner {
                work: Opaque::uninit(),
                tick,
                period: kernel::time::msecs_to_jiffies(period_ms),
            },
            GFP_KERNEL,
        )?;
        // SAFETY: The box keeps the item at its place until `drop` has cancelled it.
        unsafe {
            bindings::init_delayed_work(inner.work.get(), Some(Self::run));
            bindings::queue_delayed_work(
                bindings::system_percpu_wq,
                inner.work.get(),
                inner.period,
            );
        }
        Ok(Self { inner })
    }

    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        // SAFETY: The work item is at the start of the `delayed_work`, which is at the start of an
        // `Inner` that `drop` frees only after this function has returned.
        let inner = unsafe { &*work.cast::<Inner>() };
        (inner.tick)();
        // SAFETY: As above; `cancel_delayed_work_sync` copes with an item that queues itself.
        unsafe {
            bindings::queue_delayed_work(bindings::system_percpu_wq, inner.work.get(), inner.period)
        };
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        // SAFETY: The item was initialised by `start`.
        unsafe { bindings::cancel_delayed_work_sync(self.inner.work.get()) };
    }
}
