// SPDX-License-Identifier: GPL-2.0

//! Waiting, in process context, for what a completion handler brings about.
//!
//! The kernel crate's `CondVar` waits either without a time limit or interruptibly; the waits here
//! need a limit and must not end early because the process has a signal pending.
//!
//! # What C guarantees
//!
//! `prepare_to_wait_event()` queues the entry before the caller looks at the condition, and
//! `__wake_up()` takes the queue's lock, so a wake-up between the look and `schedule_timeout()` is
//! not lost. `finish_wait()` takes the entry off the queue before its memory goes.

use core::{
    marker::PhantomPinned,
    pin::Pin, //
};
use kernel::{
    bindings,
    prelude::*,
    sync::LockClassKey,
    time::msecs_to_jiffies,
    types::Opaque, //
};

/// Creates a [`WaitQueue`] initialiser with a newly-created lock class.
macro_rules! new_wait_queue {
    ($name:literal) => {
        $crate::ib::verbs::wait::WaitQueue::new(
            ::kernel::optional_name!($name),
            ::kernel::static_lock_class!(),
        )
    };
}
pub(crate) use new_wait_queue;

/// A queue of tasks that wait for some condition to become true.
#[pin_data]
pub(crate) struct WaitQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
    // The queue's list head points to itself.
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: A wait queue has no ties to the task that made it.
unsafe impl Send for WaitQueue {}
// SAFETY: All access goes through C functions that take the queue's own lock.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// Makes an empty queue.
    pub(crate) fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            head <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes, and `name` and `key` live for ever.
                unsafe {
                    bindings::__init_waitqueue_head(slot, name.as_char_ptr(), key.as_ptr())
                }
            }),
            _pin: PhantomPinned,
        })
    }

    /// Waits until `condition` gives a value, at most `timeout_ms` milliseconds; [`None`] when the
    /// time is up.
    ///
    /// For process context. `condition` runs while the task is already marked as sleeping: it may
    /// take spinlocks, but must not sleep. Whoever makes it true calls [`Self::wake_all`] afterwards.
    pub(crate) fn wait<R>(
        &self,
        timeout_ms: u32,
        mut condition: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        let entry = Opaque::<bindings::wait_queue_entry>::uninit();
        let mut left = msecs_to_jiffies(timeout_ms)
            .try_into()
            .unwrap_or(isize::MAX);

        // SAFETY: `entry` is valid for writes. It does not move before `finish_wait()`.
        unsafe { bindings::init_wait_entry(entry.get(), 0) };

        let result = loop {
            // SAFETY: `head` was initialised by `new`, `entry` just above.
            unsafe {
                bindings::prepare_to_wait_event(
                    self.head.get(),
                    entry.get(),
                    bindings::TASK_UNINTERRUPTIBLE as c_int,
                )
            };
            if let Some(value) = condition() {
                break Some(value);
            }
            if left == 0 {
                break None;
            }
            // SAFETY: Called in process context; any timeout is allowed.
            left = unsafe { bindings::schedule_timeout(left) };
        };

        // SAFETY: `head` and `entry` are initialised, and this task queued the entry.
        unsafe { bindings::finish_wait(self.head.get(), entry.get()) };
        result
    }

    /// Wakes all waiting tasks, which then look at their conditions again. For any context.
    pub(crate) fn wake_all(&self) {
        // SAFETY: `head` was initialised by `new`.
        unsafe {
            bindings::__wake_up(
                self.head.get(),
                bindings::TASK_NORMAL,
                0,
                core::ptr::null_mut(),
            )
        };
    }
}
