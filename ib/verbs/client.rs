// SPDX-License-Identifier: GPL-2.0

//! Being a client of the RDMA core: which devices there are, and what happens to them.
//!
//! # What C guarantees
//!
//! For each device the RDMA core calls `add` once, and if that succeeds `remove` once, which may
//! sleep for as long as the client still uses the device. `ib_unregister_client()` calls `remove`
//! for all devices, and returns when the last one has ended. All three run in process context, and
//! so do event handlers: `ib_dispatch_event()` defers them to a workqueue.
//! `ib_unregister_event_handler()` waits for a running handler.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Release, //
        },
        Arc, //
    },
    types::Opaque, //
};

use super::{
    device::Device,
    CALLER, //
};
use crate::bindings;

/// What happens to a port, or to all ports of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortEvent {
    /// The port came up.
    Active,
    /// The port went down.
    Error,
    /// The port's GID table changed.
    GidChange,
    /// The device has failed for good; concerns all its ports.
    DeviceFatal,
}

/// What the RDMA core tells. All of it in process context.
pub(crate) trait RawEvents: 'static {
    /// There is a new device. An error means that it is of no use to this client.
    fn added(device: &Arc<Device>) -> Result;

    /// The device is going: when this returns, the client's objects on it are destroyed, or about
    /// to be without further help. New ones cannot be made any more.
    fn removing(device: &Arc<Device>);

    /// The device is gone.
    fn removed(device: &Arc<Device>);

    /// Something happened to a port (0: to all ports). Runs with a lock of the RDMA core held that
    /// [`Self::removing`] waits for; so it must not wait for a device to go.
    fn event(device: &Arc<Device>, port: u32, event: PortEvent);
}

/// What the RDMA core keeps for us with each device.
#[pin_data]
struct DeviceData {
    device: Arc<Device>,
    #[pin]
    handler: Opaque<bindings::ib_event_handler>,
}

/// The client as the RDMA core sees it.
///
/// It has to be a static, because the `add` callback gets nothing else that leads to it.
struct Client {
    registered: Atomic<u32>,
    raw: Opaque<bindings::ib_client>,
}

// SAFETY: `raw` is written only by whoever set `registered`, before it registers it. Afterwards
// only the RDMA core uses it.
unsafe impl Sync for Client {}

static CLIENT: Client = Client {
    registered: Atomic::new(0),
    raw: Opaque::zeroed(),
};

/// Registration as a client of the RDMA core; there can be one at a time.
pub(crate) struct Registration<E: RawEvents>(PhantomData<E>);

impl<E: RawEvents> Registration<E> {
    /// Registers; `E::added` has been called for all present devices when this returns. May sleep.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there is a registration, else what the RDMA core says.
    pub(crate) fn new() -> Result<Self> {
        if CLIENT.registered.cmpxchg(0, 1, Full).is_err() {
            return Err(EBUSY);
        }
        // SAFETY: This thread changed `registered`, so nobody else uses `raw`.
        unsafe {
            *CLIENT.raw.get() = bindings::ib_client {
                name: CALLER.as_char_ptr(),
                add: Some(Self::add),
                remove: Some(Self::remove),
                rename: Some(Self::rename),
                ..Default::default()
            }
        };
        // SAFETY: The client is filled in, and static.
        let result = to_result(unsafe { bindings::ib_register_client(CLIENT.raw.get()) });
        if result.is_err() {
            CLIENT.registered.store(0, Release);
        }
        result.map(|()| Self(PhantomData))
    }

    /// Called for a device that this client does not know.
    ///
    /// # Safety
    ///
    /// For the RDMA core only.
    unsafe extern "C" fn add(raw: *mut bindings::ib_device) -> c_int {
        // SAFETY: The RDMA core gives a valid device.
        match unsafe { Self::try_add(raw) } {
            Ok(()) => 0,
            Err(e) => e.to_errno(),
        }
    }

    /// # Safety
    ///
    /// `raw` is the argument of a running `add` callback.
    unsafe fn try_add(raw: *mut bindings::ib_device) -> Result {
        let ptr = NonNull::new(raw).ok_or(EINVAL)?;
        // SAFETY: By this function's contract; `remove` (or the error path below) does the rest.
        let device = unsafe { Device::new(ptr)? };
        let owner = device.clone();
        let data = KBox::pin_init(
            pin_init!(DeviceData {
                device: owner,
                handler <- Opaque::ffi_init(|slot| {
                    // SAFETY: `slot` is valid for writes, and the device is valid.
                    unsafe {
                        bindings::init_ib_event_handler(slot, raw, Some(Self::event_handler))
                    }
                }),
            }),
            GFP_KERNEL,
        )?;

        if let Err(e) = E::added(&device) {
            device.close();
            device.wait_unused();
            return Err(e);
        }
        // SAFETY: `data` is only freed, by `remove`, after the handler was unregistered. It is
        // moved as a pointer only.
        let data = KBox::into_raw(unsafe { Pin::into_inner_unchecked(data) });
        // SAFETY: Device and client are valid, and `add` has not returned yet.
        unsafe { bindings::ib_set_client_data(raw, CLIENT.raw.get(), data.cast()) };
        // SAFETY: The handler was initialised above.
        unsafe { bindings::ib_register_event_handler((*data).handler.get()) };
        Ok(())
    }

    /// Called when a device goes that [`Self::add`] accepted.
    ///
    /// # Safety
    ///
    /// For the RDMA core only, with what `add` set.
    unsafe extern "C" fn remove(_raw: *mut bindings::ib_device, data: *mut c_void) {
        if data.is_null() {
            return;
        }
        // SAFETY: `data` is what `try_add` set, and `remove` is called once.
        let data = unsafe { KBox::from_raw(data.cast::<DeviceData>()) };
        let device = data.device.clone();

        // SAFETY: The handler was registered by `try_add`. When this returns it does not run.
        unsafe { bindings::ib_unregister_event_handler(data.handler.get()) };
        device.close();
        E::removing(&device);
        device.wait_unused();
        E::removed(&device);
    }

    /// Called when a device got a new name.
    ///
    /// # Safety
    ///
    /// For the RDMA core only, with what `add` set.
    unsafe extern "C" fn rename(_raw: *mut bindings::ib_device, data: *mut c_void) {
        // SAFETY: `data` is null, or what `try_add` set; it lives until `remove`, which the RDMA
        // core does not call at the same time.
        if let Some(data) = unsafe { data.cast::<DeviceData>().as_ref() } {
            data.device.renamed();
        }
    }

    /// Called when something happens to a device.
    ///
    /// # Safety
    ///
    /// For the RDMA core only, with a handler that `add` registered.
    unsafe extern "C" fn event_handler(
        handler: *mut bindings::ib_event_handler,
        event: *mut bindings::ib_event,
    ) {
        // SAFETY: The handler is a field of a `DeviceData`, which lives until the handler is
        // unregistered.
        let data =
            unsafe { &*kernel::container_of!(Opaque::cast_from(handler), DeviceData, handler) };
        // SAFETY: The RDMA core gives a valid event.
        let event = unsafe { &*event };
        let kind = match event.event {
            bindings::ib_event_type_IB_EVENT_PORT_ACTIVE => PortEvent::Active,
            bindings::ib_event_type_IB_EVENT_PORT_ERR => PortEvent::Error,
            bindings::ib_event_type_IB_EVENT_GID_CHANGE => PortEvent::GidChange,
            bindings::ib_event_type_IB_EVENT_DEVICE_FATAL => PortEvent::DeviceFatal,
            _ => return,
        };
        let port = match kind {
            PortEvent::DeviceFatal => 0,
            // SAFETY: For these events the union holds a port number.
            _ => unsafe { event.element.port_num },
        };

        E::event(&data.device, port, kind);
    }
}

impl<E: RawEvents> Drop for Registration<E> {
    fn drop(&mut self) {
        // SAFETY: The client is registered as long as `self`.
        unsafe { bindings::ib_unregister_client(CLIENT.raw.get()) };
        CLIENT.registered.store(0, Release);
    }
}
