//! An emulated eRDMA adapter (tools/testing/erdma-sim/run) in place of Soft-RoCE.

use smc_selftest::rig::run;
use smc_selftest::{sys, Outcome};
use std::path::Path;

/// Whether this machine has one.
pub fn is_there() -> bool {
    const MODEL: &str = "0x107f";
    std::fs::read_dir("/sys/bus/pci/devices").is_ok_and(|devices| {
        devices.flatten().any(|device| {
            let model = std::fs::read_to_string(device.path().join("device"));
            model.is_ok_and(|model| model.trim() == MODEL)
        })
    })
}

/// The driver, and the device by the name that scripts know.
pub fn up(name: &str) -> Outcome {
    const OWN_NAME: &str = "erdma_0";
    run("modprobe erdma")?;
    sys::eventually("the adapter's RDMA device", || {
        Ok(Path::new("/sys/class/infiniband").join(OWN_NAME).exists())
    })?;
    run(&format!("rdma dev set {OWN_NAME} name {name}")).map(drop)
}

/// The device goes with its driver.
pub fn down() -> Outcome {
    run("rmmod erdma").map(drop)
}
