// SPDX-License-Identifier: GPL-2.0

//! References to network devices.

use core::ptr::NonNull;

use crate::{
    bindings,
    kapi::netns::Net, //
};

/// A counted reference to the network device behind an RDMA port.
///
/// Holding one delays the network device's removal: keep it for the length of a look-up only.
pub(crate) struct NetDevice(NonNull<bindings::net_device>);

// SAFETY: The reference count is atomic, and may be dropped by any task.
unsafe impl Send for NetDevice {}
// SAFETY: Only fields that do not change, or may be read racily, are read through it.
unsafe impl Sync for NetDevice {}

impl NetDevice {
    /// Takes over a reference.
    ///
    /// # Safety
    ///
    /// `ptr` is null, or points to a network device on which the caller owns a reference, which
    /// this call takes.
    pub(super) unsafe fn from_raw(ptr: *mut bindings::net_device) -> Option<Self> {
        NonNull::new(ptr).map(Self)
    }

    /// Index of the device within its network namespace.
    pub(crate) fn ifindex(&self) -> i32 {
        // SAFETY: The reference keeps the device alive. The index changes only when the device
        // moves to another namespace; an aligned `int` is then either old or new.
        unsafe { core::ptr::addr_of!((*self.0.as_ptr()).ifindex).read_volatile() }
    }

    /// Is the device in namespace `net`?
    pub(crate) fn is_in(&self, net: &Net) -> bool {
        // SAFETY: The reference keeps the device alive; the result is only compared.
        unsafe { bindings::dev_net(self.0.as_ptr()) == net.as_ptr() }
    }
}

impl Drop for NetDevice {
    fn drop(&mut self) {
        // SAFETY: By the type's construction it owns one reference.
        unsafe { bindings::dev_put(self.0.as_ptr()) };
    }
}
