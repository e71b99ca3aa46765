//! RDMA devices that only their own network namespace can reach (`rdma system set netns exclusive`).
//!
//! The RDMA core changes over to that only while the first namespace is the only one, so this is no
//! test among the others but a boot of its own (tools/testing/qemu/suites).

use crate::ktap::Step;
use crate::rig;
use crate::sys;
use crate::tests::ports::{check_free, check_taken, unload, Log, A, B, BASE, COUNT, FIRST};
use crate::{check, Context, Outcome};

/// In this order.
pub const STEPS: [Step; 5] = [
    ("exclusive.mode", mode),
    ("exclusive.ports_of_own_namespace", ports_of_own_namespace),
    (
        "exclusive.others_may_have_the_ports",
        others_may_have_the_ports,
    ),
    ("exclusive.taken_port", taken_port),
    ("exclusive.device_goes", device_goes),
];

fn mode() -> Outcome {
    for module in ["dummy", "ib_core", "ib_uverbs", "siw"] {
        rig::run(&format!("modprobe {module}"))?;
    }
    rig::run("rdma system set netns exclusive")?;
    let shown = rig::run("rdma system show")?;
    check!(shown.contains("netns exclusive"), "rdma system: {shown}");
    rig::run("ip netns add A")?;
    rig::run("ip netns add B")?;
    Ok(())
}

/// siw's devices belong to the first namespace.
fn ports_of_own_namespace() -> Outcome {
    rig::module_load()?;
    check_free(&[FIRST, A, B], BASE, "without an iWARP device")?;
    let log = Log::begin()?;
    rig::run("ip link add x0 type dummy")?;
    rig::run("ip link set x0 up")?;
    rig::run("rdma link add siwX type siw netdev x0")?;
    log.find(&["adding ib device siwX"])?;
    check_taken(&[FIRST], BASE, "with siwX")?;
    check_free(&[A, B], BASE, "which siwX does not reach")?;
    rig::run("ip netns add C")?;
    check_free(&[crate::tests::ports::C], BASE, "in a new namespace")?;
    rig::run("ip netns del C")?;
    Ok(())
}

fn others_may_have_the_ports() -> Outcome {
    unload()?;
    check_free(&[FIRST, A, B], BASE, "after rmmod")?;
    let holder = A.bind(BASE + 7)?.during("bind() in A")?;
    rig::module_load().during("with a port taken where no device can be reached")?;
    check_taken(&[FIRST], BASE, "after loading")?;
    drop(holder);
    Ok(())
}

fn taken_port() -> Outcome {
    unload()?;
    let holder = FIRST.bind(BASE + COUNT - 1)?.during("bind()")?;
    let log = Log::begin()?;
    check!(
        rig::module_load().is_err(),
        "the module was loaded although a port is taken"
    );
    log.find(&[&(BASE + COUNT - 1).to_string(), "not loaded"])?;
    drop(holder);
    rig::module_load()?;
    check_taken(&[FIRST], BASE, "after the second modprobe")
}

fn device_goes() -> Outcome {
    rig::run("rdma link del siwX")?;
    sys::eventually("the ports are free", || {
        Ok(check_free(&[FIRST, A, B], BASE, "without siwX").is_ok())
    })?;
    unload()
}
