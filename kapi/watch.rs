// SPDX-License-Identifier: GPL-2.0

//! Watching the wait queue of a TCP socket.
//!
//! TCP tells everything that happens to a socket through its wait queue. A [`Watch`] puts an entry
//! of ours into it, so that no callback of the TCP socket needs to be replaced (and none can be
//! inherited by its children, or be left pointing into a module that is gone).

use super::clcsock::ClcSock;
use crate::bindings;
use core::ptr;
use kernel::{
    ffi::{
        c_int,
        c_uint,
        c_void, //
    },
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// What to do when the watched socket wakes its waiters.
pub(crate) trait WakeHandler: Send + Sync + 'static {
    /// `events` are `EPOLL*` bits, or zero where TCP does not say.
    ///
    /// Called with the wait queue's lock held and interrupts off: may only queue work and wake
    /// others, and must not touch the watched socket's queue.
    fn woken(&self, events: u32);
}

#[repr(C)]
struct Entry<H> {
    raw: Opaque<bindings::wait_queue_entry>,
    handler: H,
}

/// A wait-queue entry in a TCP socket; dropping it removes the entry.
///
/// # Invariants
///
/// The entry is in `queue`, one of the queues of `clc`, which `clc` keeps alive, from construction until
/// drop.
pub(crate) struct Watch<H: WakeHandler> {
    clc: Arc<ClcSock>,
    queue: *mut bindings::wait_queue_head,
    entry: KBox<Entry<H>>,
}

// SAFETY: The entry is only touched under the lock of the wait queue.
unsafe impl<H: WakeHandler> Send for Watch<H> {}
// SAFETY: As above.
unsafe impl<H: WakeHandler> Sync for Watch<H> {}

impl<H: WakeHandler> Watch<H> {
    /// Starts to watch `clc`, by the queue that it wakes now. An event that happened before is not
    /// reported: look at the socket after this returned.
    pub(crate) fn new(clc: Arc<ClcSock>, handler: H) -> Result<Self> {
        let entry = KBox::new(
            Entry {
                raw: Opaque::new(bindings::wait_queue_entry {
                    flags: 0,
                    private: ptr::null_mut(),
                    func: Some(Self::wake),
                    entry: bindings::list_head {
                        next: ptr::null_mut(),
                        prev: ptr::null_mut(),
                    },
                }),
                handler,
            },
            GFP_KERNEL,
        )?;
        let queue = clc.queue();
        // SAFETY: The box keeps the entry at its place until `drop` removes it; the queue is kept by
        // `clc`.
        unsafe { bindings::add_wait_queue(queue, entry.raw.get()) };
        // INVARIANT: It was added just now.
        Ok(Self { clc, queue, entry })
    }

    /// The socket that is watched.
    pub(crate) fn clc(&self) -> &ClcSock {
        &self.clc
    }

    unsafe extern "C" fn wake(
        entry: *mut bindings::wait_queue_entry,
        _mode: c_uint,
        _flags: c_int,
        key: *mut c_void,
    ) -> c_int {
        // SAFETY: The entry is the first field of an `Entry<H>` that lives while it is queued, and
        // the caller holds the queue's lock, so that `drop` cannot remove it now.
        let entry = unsafe { &*entry.cast::<Entry<H>>() };
        entry.handler.woken(key.addr() as u32);
        // Not an exclusive waiter: let the others be woken too.
        0
    }
}

impl<H: WakeHandler> Drop for Watch<H> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the entry is in this queue. Taking the queue's lock waits
        // for a handler that runs now.
        unsafe { bindings::remove_wait_queue(self.queue, self.entry.raw.get()) };
    }
}
