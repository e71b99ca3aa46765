//! An emulated eRDMA adapter (tools/testing/erdma-sim/run) in place of Soft-RoCE.

use smc_selftest::rig::run;
use smc_selftest::{check, sys, Outcome};
use std::path::{Path, PathBuf};

/// The PCI functions of this machine's adapters, in their order.
fn functions() -> Vec<String> {
    const MODEL: &str = "0x107f";
    let mut all: Vec<String> = std::fs::read_dir("/sys/bus/pci/devices")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|function| {
            let model = std::fs::read_to_string(function.path().join("device"));
            model.is_ok_and(|model| model.trim() == MODEL)
        })
        .map(|function| function.file_name().to_string_lossy().into_owned())
        .collect();
    all.sort_unstable();
    all
}

/// Whether this machine has one.
pub fn is_there() -> bool {
    !functions().is_empty()
}

/// The driver, and the device by the name that scripts know. Other adapters go: C would add links over them.
pub fn up(name: &str) -> Outcome {
    let all = functions();
    run("modprobe erdma")?;
    sys::eventually("the adapters' RDMA devices", || {
        Ok((0..all.len()).all(|number| device(number).exists()))
    })?;
    for other in all.iter().skip(1) {
        sys::write_file("/sys/bus/pci/drivers/erdma/unbind", other)?;
    }
    check!(device(0).exists(), "erdma_0 is not the first of {all:?}");
    run(&format!("rdma dev set erdma_0 name {name}")).map(drop)
}

fn device(number: usize) -> PathBuf {
    Path::new("/sys/class/infiniband").join(format!("erdma_{number}"))
}

/// The device goes with its driver.
pub fn down() -> Outcome {
    run("rmmod erdma").map(drop)
}
