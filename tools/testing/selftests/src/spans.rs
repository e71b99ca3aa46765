//! Spans of a run whose instructions the plug-in `tools/testing/bench/places.c` counts by place, and what is printed to
//! read its counts by: see `smc-bench report-places`.

use crate::{sys, Outcome};
use std::arch::asm;

/// Modules whose functions are of interest; others are the kernel's rest.
const MODULES: &[&str] = &[
    "smc",
    "smc_rs",
    "rdma_rxe",
    "erdma",
    "ib_core",
    "veth",
    "virtio_net",
    "ib_uverbs",
    "udp_tunnel",
    "ip6_udp_tunnel",
];

/// Counting begins: a mark, an instruction that does nothing else.
pub fn begin() {
    // SAFETY: `nopl` with an address that is not accessed.
    unsafe { asm!(".byte 0x0f, 0x1f, 0x80, 0x01, 0x63, 0x6d, 0x73") };
}

/// Counting ends.
pub fn end() {
    // SAFETY: as above.
    unsafe { asm!(".byte 0x0f, 0x1f, 0x80, 0x02, 0x63, 0x6d, 0x73") };
}

/// Counts what `act` takes.
pub fn between(act: impl FnOnce() -> Outcome) -> Outcome {
    begin();
    let result = act();
    end();
    result
}

/// Says what the span before was, and of how many.
pub fn tell(name: &str, count: f64) {
    println!("span\t{name}\t{count}");
}

/// Says where the functions of the modules are that are loaded now.
pub fn tell_symbols() -> Outcome {
    for line in sys::read_file("/proc/kallsyms")?.lines() {
        if let Some((symbol, module)) = line.rsplit_once('\t') {
            let module = module.trim_matches(['[', ']']);
            if MODULES.contains(&module) {
                println!("symbol\t{symbol}\t{module}");
            }
        }
    }
    Ok(())
}
