// SPDX-License-Identifier: GPL-2.0

//! The TCP ports of iWARP devices.
//!
//! Alibaba's elastic RDMA device sets a queue pair up with TCP port numbers of its own: 16 of them
//! ("eRDMA out-of-band connections"). They are reserved in every namespace that can reach an iWARP
//! device, and in no other, so that no TCP connection ever has the same addresses and ports.
//!
//! - Loading the module fails when a port is taken: see [`Ports::load_error`], which is asked after the
//!   RDMA core has told of all devices, because it ignores what its clients answer.
//! - A device that comes later is known all the same, and a namespace in which a port is taken then
//!   goes without the reservation: one line in the log says so. It is tried again whenever an iWARP
//!   device comes or goes.
//! - `rdma system set netns` cannot change who reaches a device while there is a namespace beside
//!   the first one (`rdma_compatdev_set()` in the RDMA core), and a device that moves to another
//!   namespace is removed and added again (`rdma_dev_change_netns()`). So nothing else has to be
//!   watched.

use crate::{
    ib::verbs::device::Device,
    kapi::{
        netns::Net,
        ports::{
            Demand,
            Keeper,
            Statics,
            PORT_COUNT, //
        },
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// The iWARP devices.
pub(crate) struct IwarpDevices {
    devices: KVec<Iwarp>,
    /// The module is being loaded.
    loading: bool,
    /// What went wrong meanwhile.
    load_error: Option<Error>,
}

struct Iwarp {
    device: Arc<Device>,
    /// The log says that the device carries no data.
    explained: bool,
}

static STATICS: Statics<IwarpDevices> = Statics::new();

impl Demand for IwarpDevices {
    fn statics() -> &'static Statics<Self> {
        &STATICS
    }

    fn wants(&self, net: &Net) -> bool {
        self.devices
            .iter()
            .any(|iwarp| iwarp.device.accessible_from(net))
    }
}

/// The reservations of the module; dropping it gives all ports back.
pub(crate) struct Ports(Keeper<IwarpDevices>);

impl Ports {
    /// Starts, with the ports from `base` on. May sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are no such ports (the log says so); `ENOMEM`.
    pub(crate) fn start(base: u16) -> Result<Self> {
        let none = IwarpDevices {
            devices: KVec::new(),
            loading: true,
            load_error: None,
        };
        let keeper = Keeper::start(base, none).inspect_err(|error| {
            if *error == EINVAL {
                pr_err!(
                    "not loaded: rsvd_ports_base={base} leaves no room for {PORT_COUNT} TCP ports; \
                     it must be 1 to {}\n",
                    u16::MAX - (PORT_COUNT - 1)
                );
            }
        })?;
        Ok(Self(keeper))
    }

    /// Why loading must fail, if it must.
    pub(crate) fn load_error(&self) -> Result {
        let all = self.0.reservations();
        all.with(|demand| demand.load_error.map_or(Ok(()), Err))
    }

    /// Loading has succeeded: from now on everything is reported, and nothing is fatal.
    pub(crate) fn announce(&self) {
        let all = self.0.reservations();
        all.with(|demand| demand.loading = false);
        all.announce();
    }
}

/// There is a new iWARP device. May sleep.
///
/// # Errors
///
/// `ENOMEM`, and while the module is being loaded also what keeps ports from being reserved.
pub(crate) fn device_added(device: &Arc<Device>) -> Result {
    let all = Keeper::<IwarpDevices>::find().ok_or(ENODEV)?;
    let result = all.change(|demand| {
        let iwarp = Iwarp {
            device: device.clone(),
            explained: false,
        };
        Ok(demand.devices.push(iwarp, GFP_KERNEL)?)
    });
    let error = match &result {
        Ok(None) => return Ok(()),
        Ok(Some(clash)) => clash.error(),
        Err(error) => *error,
    };
    let loading = all.with(|demand| {
        if demand.loading {
            demand.load_error.get_or_insert(error);
        }
        demand.loading
    });
    if let Ok(Some(clash)) = result {
        let name = device.name();
        if !loading {
            pr_warn!("{clash}: ib device {name} cannot be used there\n");
            return Ok(());
        }
        pr_err!(
            "not loaded: {clash}, but ib device {name} needs it for eRDMA OOB; free the port, or \
             choose others with rsvd_ports_base=\n"
        );
        // The device will not be told of again.
        device_removing(device);
    }
    Err(error)
}

/// An iWARP device goes. May sleep.
pub(crate) fn device_removing(device: &Arc<Device>) {
    let Some(all) = Keeper::<IwarpDevices>::find() else {
        return;
    };
    let result = all.change(|demand| {
        demand
            .devices
            .retain(|iwarp| !Arc::ptr_eq(&iwarp.device, device));
        Ok(())
    });
    // Other devices may still wait for ports of some namespace.
    if let Ok(Some(clash)) = result {
        pr_debug!("still: {clash}\n");
    }
}

/// Says, once for each device, that a connection which would leave by it stays with TCP.
pub(crate) fn explain_fallback(device: &Arc<Device>) {
    let Some(all) = Keeper::<IwarpDevices>::find() else {
        return;
    };
    let first = all.with(|demand| {
        demand
            .devices
            .iter_mut()
            .find(|iwarp| Arc::ptr_eq(&iwarp.device, device))
            .is_some_and(|iwarp| !core::mem::replace(&mut iwarp.explained, true))
    });
    if first {
        pr_info!(
            "ib device {} is an iWARP device, which carries no data yet: its connections fall back \
             to TCP\n",
            device.name()
        );
    }
}
