// SPDX-License-Identifier: GPL-2.0

//! Protection domains, and when memory mapped in them is given back.
//!
//! A work request names memory by address and key. The memory must stay until the request is done,
//! and the device gives no simple way to know that for a request without a completion. So memory
//! that is dropped while a queue pair of its protection domain exists is only put aside, and freed
//! with the last queue pair: a request can never outlive what it names, whatever its poster does.

use core::ptr::NonNull;
use kernel::{
    error::from_err_ptr,
    prelude::*,
    sync::{
        Arc,
        UniqueArc, //
    },
};

use super::{
    device::{
        Device,
        DeviceUse, //
    },
    mapping::Mapped,
    CALLER, //
};
use crate::{
    bindings,
    kapi::lock::{
        new_spinlock_bh,
        SpinLockBh, //
    },
};

/// A protection domain: the set of queue pairs and memory that may be used together.
#[pin_data(PinnedDrop)]
pub(crate) struct Pd {
    raw: NonNull<bindings::ib_pd>,
    #[pin]
    retired: SpinLockBh<Retired>,
    device: DeviceUse,
}

/// Memory that waits for the last queue pair to go.
struct Retired {
    queue_pairs: u32,
    // A list rather than a vector: putting aside must not need memory.
    first: Option<KBox<Mapped>>,
}

// SAFETY: The C object has no ties to a task.
unsafe impl Send for Pd {}
// SAFETY: The C object is only passed to functions of the RDMA core, which lock by themselves.
unsafe impl Sync for Pd {}

impl Pd {
    /// Allocates a protection domain. May sleep.
    pub(crate) fn new(device: &Arc<Device>) -> Result<Arc<Self>> {
        let device = DeviceUse::new(device)?;
        // First, so that nothing can fail once the domain exists.
        let memory = UniqueArc::new_uninit(GFP_KERNEL)?;
        // SAFETY: The use keeps the device alive; the caller's name is a static string.
        let raw = from_err_ptr(unsafe {
            bindings::__ib_alloc_pd(device.as_ptr(), 0, CALLER.as_char_ptr())
        })?;
        // `raw` is not null: the function returns a valid or an error pointer.
        let raw = NonNull::new(raw).ok_or(ENOMEM)?;

        let pd = memory.pin_init_with(pin_init!(Self {
            raw,
            retired <- new_spinlock_bh!(
                Retired { queue_pairs: 0, first: None },
                "ib::Pd::retired"
            ),
            device,
        }))?;
        Ok(pd.into())
    }

    /// The device of the domain.
    pub(crate) fn device(&self) -> &Arc<Device> {
        self.device.device()
    }

    pub(super) fn device_use(&self) -> &DeviceUse {
        &self.device
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::ib_pd {
        self.raw.as_ptr()
    }

    /// The key with which all memory mapped for the device can be named in local requests.
    pub(super) fn local_dma_lkey(&self) -> u32 {
        // SAFETY: The domain is alive, and its key does not change.
        unsafe { (*self.raw.as_ptr()).local_dma_lkey }
    }

    /// Notes a new queue pair.
    pub(super) fn queue_pair_created(&self) -> Result {
        let mut retired = self.retired.lock();

        retired.queue_pairs = retired.queue_pairs.checked_add(1).ok_or(EBUSY)?;
        Ok(())
    }

    /// Notes that a queue pair was destroyed, and frees memory that waited for it. May sleep.
    pub(super) fn queue_pair_destroyed(&self) {
        let mut retired = self.retired.lock();

        retired.queue_pairs = retired.queue_pairs.saturating_sub(1);
        if retired.queue_pairs == 0 {
            let first = retired.first.take();
            drop(retired);
            free_all(first);
        }
    }

    /// Frees mapped memory now (may sleep), or puts it aside (any context) while the domain has
    /// queue pairs.
    pub(super) fn retire(&self, mut mapped: KBox<Mapped>) {
        let mut retired = self.retired.lock();

        if retired.queue_pairs > 0 {
            mapped.next = retired.first.take();
            retired.first = Some(mapped);
        } else {
            drop(retired);
            drop(mapped);
        }
    }
}

fn free_all(mut next: Option<KBox<Mapped>>) {
    // One after the other: dropping the list as a whole would recurse.
    while let Some(mut mapped) = next {
        next = mapped.next.take();
    }
}

#[pinned_drop]
impl PinnedDrop for Pd {
    fn drop(self: Pin<&mut Self>) {
        // All queue pairs and mappings hold an `Arc` of the domain, so none is left.
        //
        // SAFETY: The domain was allocated by `new`, is freed once, and has no users.
        let ret = unsafe { bindings::ib_dealloc_pd_user(self.raw.as_ptr(), core::ptr::null_mut()) };
        if ret != 0 {
            pr_warn!("freeing a protection domain failed: {}\n", ret);
        }
    }
}
