//! Kernel functions that fail when smc_rs calls them (tools/testing/faults).

use crate::rig::{self, SoftRoce};
use crate::sys;
use crate::{Context, Outcome};

const HITS: &str = "/sys/module/smc_fault/parameters/hits";

/// Name of a function of the Soft-RoCE in use: the other one may be loaded, too.
fn of_soft_roce(function: &str) -> String {
    format!("{}:{function}", SoftRoce::here().module())
}

/// A function fails for smc_rs until this is dropped.
pub struct Fault(());

impl Fault {
    /// `result` is what the function returns; the first `skip` calls go through, then `count` fail.
    pub fn new(function: &str, result: i64, skip: u32, count: u32) -> Outcome<Fault> {
        Fault::load(&format!(
            "function={function} result={result} skip={skip} count={count}"
        ))
    }

    /// Soft-RoCE does not take requests to register memory.
    pub fn of_registration(skip: u32, count: u32) -> Outcome<Fault> {
        let function = of_soft_roce("rxe_post_send");
        Fault::load(&format!(
            "function={function} result=-12 skip={skip} count={count} registrations=Y"
        ))
    }

    /// Soft-RoCE loses the data of RDMA WRITEs of this length, and says that it has written it.
    pub fn of_rdma_write(length: usize) -> Outcome<Fault> {
        let function = of_soft_roce("rxe_mr_copy");
        Fault::load(&format!(
            "function={function} caller=[{} argument=3 value={length} result=0",
            SoftRoce::here().module()
        ))
    }

    fn load(parameters: &str) -> Outcome<Fault> {
        // From a test that was ended.
        if std::path::Path::new(HITS).exists() {
            rig::run("rmmod smc_fault")?;
        }
        rig::run(&format!("modprobe smc_fault {parameters}"))?;
        Ok(Fault(()))
    }

    /// Calls that have failed so far.
    pub fn hits(&self) -> Outcome<u32> {
        sys::read_file(HITS)?.trim().parse().during(HITS)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        if let Err(failure) = rig::run("rmmod smc_fault") {
            eprintln!("# {failure}");
        }
    }
}
