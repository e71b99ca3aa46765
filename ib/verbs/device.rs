// SPDX-License-Identifier: GPL-2.0

//! RDMA devices, and how long they may be used.
//!
//! The RDMA core lends a device to its clients from their `add` to the end of their `remove`
//! callback. [`Device`] outlives that as a Rust object, but then has no C object behind it any
//! more: whoever wants to use the C device holds a [`DeviceUse`], which is refused once removal has
//! begun, and removal waits until the last one is gone. Every object that lives on the device
//! (protection domain, queue, memory region, mapped memory) holds one.

use core::ptr::NonNull;
use kernel::{
    fmt,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};

use super::{
    gid::{
        GidEntry,
        GidKind, //
    },
    netdev::NetDevice,
    wait::{
        new_wait_queue,
        WaitQueue, //
    },
};
use crate::{
    bindings,
    kapi::{
        lock::{
            new_spinlock_bh,
            SpinLockBh, //
        },
        netns::Net, //
    },
};

/// Name of an RDMA device, for messages and look-ups.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceName {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl DeviceName {
    /// Room for the longest name and its terminating zero (`IB_DEVICE_NAME_MAX`).
    pub(crate) const MAX: usize = 64;

    /// The name, without a terminating zero.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(self.as_bytes()).unwrap_or("?"))
    }
}

/// What a device can do, as far as its users here care.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes {
    /// Most scatter/gather entries of a receive request.
    pub(crate) max_recv_sge: u32,
    /// Most outstanding requests on a queue.
    pub(crate) max_qp_wr: u32,
    /// Soft-RoCE: when it sends again what was not acknowledged, it also executes again the
    /// registrations of memory behind it, which fails and with it the queue pair.
    pub(crate) registers_again: bool,
    /// Packets that arrive while a queue pair is destroyed do harm (Soft-RoCE): it is to be quiet before.
    pub(super) loses_late_packets: bool,
    /// eRDMA: the driver tells of completions in a tasklet and with no lock held, so that they can be handled there.
    /// The RDMA core promises none of that.
    pub(crate) events_in_tasklet: bool,
}

static NEXT_NUMBER: Atomic<u64> = Atomic::new(1);

/// The PCI function of a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PciFunction {
    /// Vendor.
    pub(crate) vendor: u16,
    /// Device.
    pub(crate) device: u16,
    /// Where it is, ended by a zero if it is shorter.
    pub(crate) name: [u8; 16],
}

/// State of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortState {
    /// Whether the port is up.
    pub(crate) active: bool,
    /// Path MTU that the port allows, in the code of the RDMA specification: 1 (256 bytes) to 5
    /// (4096 bytes).
    pub(crate) active_mtu: u8,
    /// Number of entries of the GID table.
    pub(crate) gid_table_len: u32,
}

struct Uses {
    count: u32,
    closed: bool,
}

/// An RDMA device, from the client's `add` callback on. See the module's documentation.
#[pin_data]
pub(crate) struct Device {
    // Valid to dereference while `uses.count > 0`, or until `remove` ends.
    raw: NonNull<bindings::ib_device>,
    /// Numbers only grow.
    number: u64,
    attributes: Attributes,
    port_count: u32,
    comp_vectors: u32,
    iwarp: bool,
    next_vector: Atomic<u32>,
    #[pin]
    name: SpinLockBh<DeviceName>,
    #[pin]
    uses: SpinLockBh<Uses>,
    #[pin]
    idle: WaitQueue,
}

// SAFETY: The C device has no ties to a task; what is read from it does not change after `add`.
unsafe impl Send for Device {}
// SAFETY: Changing state is behind locks, and the RDMA core's functions lock by themselves.
unsafe impl Sync for Device {}

impl Device {
    /// Wraps the device given to the client's `add` callback.
    ///
    /// # Safety
    ///
    /// `raw` is the argument of a running `add` callback; the client's `remove` callback for it
    /// calls [`Self::close`] and [`Self::wait_unused`].
    pub(super) unsafe fn new(raw: NonNull<bindings::ib_device>) -> Result<Arc<Self>> {
        // SAFETY: By this function's contract the device is alive, and registered, so that these
        // fields do not change any more.
        let device = unsafe { raw.as_ref() };
        let attrs = &device.attrs;
        // SAFETY: The device is alive.
        let is_rxe = unsafe { bindings::ib_device_is_rxe(raw.as_ptr()) };
        let attributes = Attributes {
            max_recv_sge: limit(attrs.max_recv_sge),
            max_qp_wr: limit(attrs.max_qp_wr),
            registers_again: is_rxe,
            loses_late_packets: is_rxe,
            // SAFETY: The device is alive.
            events_in_tasklet: unsafe { bindings::ib_device_is_erdma(raw.as_ptr()) },
        };
        // SAFETY: The device is alive, and all devices have a port 1.
        let iwarp = unsafe { bindings::rdma_protocol_iwarp(raw.as_ptr(), 1) };

        Arc::pin_init(
            pin_init!(Self {
                raw,
                number: NEXT_NUMBER.fetch_add(1, Relaxed),
                attributes,
                port_count: device.phys_port_cnt,
                comp_vectors: u32::try_from(device.num_comp_vectors).unwrap_or(1).max(1),
                iwarp,
                next_vector: Atomic::new(0),
                name <- new_spinlock_bh!(read_name(device), "ib::Device::name"),
                uses <- new_spinlock_bh!(
                    Uses { count: 0, closed: false },
                    "ib::Device::uses"
                ),
                idle <- new_wait_queue!("ib::Device::idle"),
            }),
            GFP_KERNEL,
        )
    }

    /// The device's name. It can be changed by the administrator.
    pub(crate) fn name(&self) -> DeviceName {
        *self.name.lock()
    }

    /// Number of the device among all that there have been: later ones have greater numbers.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The PCI function that the device is on, if it is on one.
    pub(crate) fn pci_function(self: &Arc<Self>) -> Option<PciFunction> {
        let device = DeviceUse::new(self).ok()?;
        // SAFETY: The use keeps the device alive, and a device its parents. The name ends with a zero.
        unsafe {
            let pci = NonNull::new(bindings::ib_device_pci(device.as_ptr()))?.as_ptr();
            let mut name = [0; 16];
            let bytes = CStr::from_char_ptr(bindings::pci_name(pci)).to_bytes();
            for (to, from) in name.iter_mut().zip(bytes) {
                *to = *from;
            }
            Some(PciFunction {
                vendor: bindings::pci_vendor(pci),
                device: bindings::pci_device(pci),
                name,
            })
        }
    }

    /// What the device can do.
    pub(crate) fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// Number of ports; they are numbered from 1.
    pub(crate) fn port_count(&self) -> u32 {
        self.port_count
    }

    /// Whether the device speaks iWARP rather than InfiniBand's transport.
    pub(crate) fn is_iwarp(&self) -> bool {
        self.iwarp
    }

    /// The next completion vector, round robin.
    pub(crate) fn next_comp_vector(&self) -> u32 {
        // `comp_vectors` is at least 1.
        self.next_vector
            .fetch_add(1, Relaxed)
            .checked_rem(self.comp_vectors)
            .unwrap_or(0)
    }

    /// Whether the device has been removed, or is about to be.
    pub(crate) fn is_gone(&self) -> bool {
        self.uses.lock().closed
    }

    /// Whether a network namespace may use the device.
    pub(crate) fn accessible_from(self: &Arc<Self>, net: &Net) -> bool {
        // SAFETY: The use keeps the device alive, the reference the namespace.
        DeviceUse::new(self).is_ok_and(|device| unsafe {
            bindings::rdma_dev_access_netns(device.as_ptr(), net.as_ptr())
        })
    }

    /// State of a port, or [`None`] if there is no such port or the device is gone. May sleep.
    pub(crate) fn port_state(self: &Arc<Self>, port: u32) -> Option<PortState> {
        let device = DeviceUse::new(self).ok()?;
        let mut attr = bindings::ib_port_attr::default();

        // SAFETY: The use keeps the device alive; the function checks the port number.
        let ret = unsafe { bindings::ib_query_port(device.as_ptr(), port, &mut attr) };
        if ret != 0 {
            return None;
        }
        Some(PortState {
            active: attr.state == bindings::ib_port_state_IB_PORT_ACTIVE,
            active_mtu: u8::try_from(attr.active_mtu).unwrap_or(1),
            gid_table_len: u32::try_from(attr.gid_tbl_len).unwrap_or(0),
        })
    }

    /// The network device behind a port. May sleep.
    pub(crate) fn netdev(self: &Arc<Self>, port: u32) -> Option<NetDevice> {
        let device = DeviceUse::new(self).ok()?;

        // SAFETY: The use keeps the device alive; the function checks the port number.
        let netdev = unsafe { bindings::ib_device_get_netdev(device.as_ptr(), port) };
        // SAFETY: The function returns null or a device with a reference for the caller.
        unsafe { NetDevice::from_raw(netdev) }
    }

    /// Whether a port can have GIDs of a kind.
    pub(crate) fn supports(self: &Arc<Self>, port: u32, kind: GidKind) -> bool {
        let Ok(device) = DeviceUse::new(self) else {
            return false;
        };
        if port == 0 || port > self.port_count {
            return false;
        }
        // SAFETY: The use keeps the device alive, and the port exists: the data of ports is indexed
        // by their numbers, from 1 to `port_count`.
        unsafe {
            match kind {
                GidKind::RoceV1 => bindings::rdma_protocol_roce_eth_encap(device.as_ptr(), port),
                GidKind::RoceV2 => bindings::rdma_protocol_roce_udp_encap(device.as_ptr(), port),
                GidKind::Other => true,
            }
        }
    }

    /// Calls `f` for the valid entries of a port's GID table, in order, until it returns a value.
    ///
    /// May sleep; `f` runs without locks held.
    pub(crate) fn find_map_gid<R>(
        self: &Arc<Self>,
        port: u32,
        mut f: impl FnMut(&GidEntry) -> Option<R>,
    ) -> Option<R> {
        let state = self.port_state(port)?;
        let device = DeviceUse::new(self).ok()?;

        (0..state.gid_table_len).find_map(|index| f(&GidEntry::read(&device, port, index)?))
    }

    /// Refuses new uses from now on.
    pub(super) fn close(&self) {
        self.uses.lock().closed = true;
    }

    /// Waits until the last use is gone. [`Self::close`] comes first.
    pub(super) fn wait_unused(&self) {
        const WARN_AFTER_MS: u32 = 10_000;

        while self
            .idle
            .wait(WARN_AFTER_MS, || {
                (self.uses.lock().count == 0).then_some(())
            })
            .is_none()
        {
            pr_warn!("ib device {} is still in use\n", self.name());
        }
    }

    /// Reads the name again, which was changed.
    pub(super) fn renamed(self: &Arc<Self>) {
        if let Ok(device) = DeviceUse::new(self) {
            // SAFETY: The use keeps the device alive. Only `name` is read, which the caller, the
            // `rename` callback, was told not to change at this time.
            let name = read_name(unsafe { &*device.as_ptr() });
            *self.name.lock() = name;
        }
    }
}

/// A limit of the device; kernels before 7.3 have it signed.
fn limit(value: impl TryInto<u32>) -> u32 {
    value.try_into().unwrap_or(0)
}

fn read_name(device: &bindings::ib_device) -> DeviceName {
    let mut bytes = [0; DeviceName::MAX];
    let mut len = 0;

    for (to, from) in bytes.iter_mut().zip(device.name) {
        if from == 0 {
            break;
        }
        *to = from;
        len += 1;
    }
    DeviceName { bytes, len }
}

/// Proof that the C device is there, and will be until this value is dropped.
pub(super) struct DeviceUse(Arc<Device>);

impl DeviceUse {
    /// Starts to use the device; fails with `ENODEV` once its removal has begun. For any context
    /// but hard interrupts.
    pub(super) fn new(device: &Arc<Device>) -> Result<Self> {
        let mut uses = device.uses.lock();

        if uses.closed {
            return Err(ENODEV);
        }
        uses.count = uses.count.checked_add(1).ok_or(EBUSY)?;
        drop(uses);
        Ok(Self(device.clone()))
    }

    /// The C device, valid while `self` is.
    pub(super) fn as_ptr(&self) -> *mut bindings::ib_device {
        self.0.raw.as_ptr()
    }

    /// The device.
    pub(super) fn device(&self) -> &Arc<Device> {
        &self.0
    }
}

impl Drop for DeviceUse {
    fn drop(&mut self) {
        let mut uses = self.0.uses.lock();

        uses.count = uses.count.saturating_sub(1);
        let wake = uses.closed && uses.count == 0;
        drop(uses);
        if wake {
            self.0.idle.wake_all();
        }
    }
}
