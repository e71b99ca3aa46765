//! Kernel functions that fail when smc_rs calls them (tools/testing/faults).

use crate::rig::{self, SoftRoce};
use crate::sys;
use crate::{Context, Outcome};
use std::borrow::Borrow;

const HITS: &str = "/sys/module/smc_fault/parameters/hits";

/// So many calls go through that none fails.
const ALL: u32 = i32::MAX as u32;

/// What smc_rs asks the RDMA core, the driver or the kernel for.
#[derive(Clone, Copy)]
pub struct Verb {
    pub name: &'static str,
    /// What it returns when it fails.
    result: i64,
    by: By,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Core,
    Driver,
    /// The driver; and it hands back what it has not taken.
    DriverPosts,
    /// The kernel; and it frees by the same function.
    Realloc,
}

impl Verb {
    const fn new(name: &'static str, result: i64, by: By) -> Verb {
        Verb { name, result, by }
    }
}

/// The verbs that may fail on a device that works, in the order of their first use.
pub const VERBS: [Verb; 11] = [
    Verb::new("ib_query_port", -5, By::Core),
    Verb::new("rdma_get_gid_attr", -2, By::Core),
    Verb::new("__ib_alloc_pd", -12, By::Core),
    Verb::new("__ib_create_cq", -12, By::Core),
    Verb::new("ib_create_qp_kernel", -12, By::Core),
    Verb::new("ib_modify_qp", -22, By::Core),
    Verb::new("ib_alloc_mr", -12, By::Core),
    Verb::new("ib_map_mr_sg", -22, By::Core),
    Verb::new("rxe_req_notify_cq", -12, By::Driver),
    Verb::new("rxe_post_recv", -12, By::DriverPosts),
    POST_SEND,
];

/// The one by which everything is sent.
pub const POST_SEND: Verb = Verb::new("rxe_post_send", -12, By::DriverPosts);

/// How smc_rs gets memory, in all the ways that may fail.
pub const ALLOCATORS: [Verb; 8] = [
    Verb::new("rust_helper_krealloc_node_align", 0, By::Realloc),
    Verb::new("rust_helper_kvrealloc_node_align", 0, By::Realloc),
    Verb::new("__kmalloc_cache_noprof", 0, By::Core),
    Verb::new("__vmalloc_noprof", 0, By::Core),
    Verb::new("rust_helper_alloc_pages", 0, By::Core),
    Verb::new("sg_alloc_table", -12, By::Core),
    Verb::new("sk_alloc", 0, By::Core),
    Verb::new("__alloc_skb", 0, By::Core),
];

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

    /// All calls fail that come from a function of this name, whosever.
    pub fn of_caller(function: &str, result: i64, caller: &str) -> Outcome<Fault> {
        Fault::load(&format!(
            "function={function} result={result} caller={caller}+"
        ))
    }

    /// Soft-RoCE does not take requests to register memory.
    pub fn of_registration(skip: u32, count: u32) -> Outcome<Fault> {
        let function = of_soft_roce(POST_SEND.name);
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

    /// These functions of Soft-RoCE begin so many milliseconds late.
    pub fn late(functions: &[&str], by: u32) -> Outcome<Fault> {
        let functions: Vec<_> = functions.iter().map(|name| of_soft_roce(name)).collect();
        Fault::late_in_kernel(&functions, by)
    }

    /// The same of the kernel's.
    pub fn late_in_kernel<S: Borrow<str>>(functions: &[S], by: u32) -> Outcome<Fault> {
        Fault::load(&format!("late={} late_by={by}", functions.join(",")))
    }

    /// One call of a verb, which is told later ([`Fault::arm`]), fails.
    pub fn of_verb(verb: Verb) -> Outcome<Fault> {
        let function = match verb.by {
            By::Core | By::Realloc => verb.name.into(),
            By::Driver | By::DriverPosts => of_soft_roce(verb.name),
        };
        let kind = match verb.by {
            By::Core | By::Driver => "",
            By::DriverPosts => "posts=Y",
            By::Realloc => "reallocs=Y",
        };
        Fault::load(&format!(
            "function={function} result={} skip={ALL} count=1 {kind}",
            verb.result
        ))
    }

    /// Of the calls from now on the one of this number fails, from 1; of none if that is `None`.
    pub fn arm(&self, number: Option<u32>) -> Outcome {
        let set = |name: &str, value: i64| {
            sys::write_file(
                &format!("/sys/module/smc_fault/parameters/{name}"),
                &value.to_string(),
            )
        };
        set("skip", ALL.into())?;
        if let Some(number) = number {
            // Calls go on meanwhile, and are not counted before all is set.
            set("calls", i32::MIN.into())?;
            set("hits", 0)?;
            set("skip", i64::from(number) - 1)?;
            set("calls", 0)?;
        }
        Ok(())
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
