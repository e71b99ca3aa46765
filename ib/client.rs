// SPDX-License-Identifier: GPL-2.0

//! The RDMA devices of this machine.

use core::marker::PhantomData;
use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::verbs::{
    client::{
        PortEvent,
        RawEvents,
        Registration, //
    },
    device::Device, //
};

/// What a user of RDMA devices wants to be told. All of it in process context.
///
/// There are no values of implementing types, as the RDMA core gives its callbacks nothing to find
/// one with: state is in statics.
pub(crate) trait Events: 'static {
    /// There is a new device. An error means that it is not to be used; then nothing more is told
    /// about it.
    fn device_added(device: &Arc<Device>) -> Result;

    /// The device goes. Objects on it cannot be made any more; those that exist still work as well
    /// as the device does. Returns when all of them have been dropped, or will be without anything
    /// that happens after this call; the device then waits for them.
    fn device_removing(device: &Arc<Device>);

    /// Something happened to a port; port 0 stands for all ports. Must not wait for a device to go.
    fn port_event(device: &Arc<Device>, port: u32, event: PortEvent);

    /// The network identifier of a port, if it has one, and whether the administrator gave it: for
    /// the log only.
    fn network_id(_device: &Arc<Device>, _port: u32) -> Option<([u8; 16], bool)> {
        None
    }
}

/// Keeps the user informed of RDMA devices until it is dropped.
///
/// Dropping it removes all devices from the user's view, and so ends with no object left on any.
pub(crate) struct Client<E: Events> {
    _registration: Registration<Adapter<E>>,
}

impl<E: Events> Client<E> {
    /// Starts: when this returns, the user has been told of all present devices.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            _registration: Registration::new()?,
        })
    }
}

struct Adapter<E>(PhantomData<E>);

impl<E: Events> RawEvents for Adapter<E> {
    fn added(device: &Arc<Device>) -> Result {
        E::device_added(device)
    }

    fn removing(device: &Arc<Device>) {
        E::device_removing(device);
    }

    fn removed(_device: &Arc<Device>) {}

    fn event(device: &Arc<Device>, port: u32, event: PortEvent) {
        E::port_event(device, port, event);
    }
}

/// Reports a new device in the log. Process context.
pub(crate) fn log_added<E: Events>(device: &Arc<Device>) {
    pr_info!(
        "adding ib device {} with port count {}\n",
        device.name(),
        device.port_count()
    );
    for port in 1..=device.port_count() {
        log_port(device, port, E::network_id(device, port));
    }
}

fn log_port(device: &Arc<Device>, port: u32, id: Option<([u8; 16], bool)>) {
    let Some((id, user_defined)) = id else {
        pr_info!(
            "   ib device {} port {} has no pnetid\n",
            device.name(),
            port
        );
        return;
    };
    let len = id.iter().position(|&byte| byte == 0).unwrap_or(id.len());
    let id = id
        .get(..len)
        .and_then(|id| core::str::from_utf8(id).ok())
        .unwrap_or("?");

    pr_info!(
        "   ib device {} port {} has pnetid {}{}\n",
        device.name(),
        port,
        id,
        if user_defined { " (user defined)" } else { "" }
    );
}
