//! The clock of the bench: one tick is one instruction of the machine, user's or kernel's.
//!
//! That is so under QEMU's `-icount shift=0`, where virtual time goes by one nanosecond with each
//! instruction, and the time stamp counter shows it.

use smc_selftest::{check, Outcome};
use std::arch::{asm, x86_64::_rdtsc};

pub fn now() -> u64 {
    // SAFETY: reads a counter.
    unsafe { _rdtsc() }
}

/// Instructions that `call` takes, with the two of the clock itself.
pub fn count<T>(call: impl FnOnce() -> T) -> (T, u64) {
    let begin = now();
    let result = call();
    (result, now() - begin)
}

/// Fails unless the clock counts instructions: of a loop whose number is known.
pub fn check() -> Outcome {
    const ROUNDS: u64 = 1_000_000;
    let least = (0..5)
        .map(|_| {
            let ((), took) = count(|| {
                let mut left = ROUNDS;
                // SAFETY: counts a register down.
                unsafe { asm!("2:", "dec {0}", "jnz 2b", inout(reg) left) };
                let _ = left;
            });
            took
        })
        .min()
        .unwrap_or_default();
    // Two instructions a round; and the timer comes in between.
    check!(
        (2 * ROUNDS..2 * ROUNDS + ROUNDS / 10).contains(&least),
        "{} instructions took {least} ticks: this machine has no instruction clock (boot with rig.icount)",
        2 * ROUNDS
    );
    Ok(())
}
