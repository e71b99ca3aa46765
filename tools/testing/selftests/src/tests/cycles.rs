//! What comes and goes, again and again: the module, and namespaces. Nothing of it may stay in memory. A few rounds in
//! `make test`; `--rounds N` for more.

use super::link::{fresh, namespaces_come_and_go, unload_with_traffic, works_again};
use super::once;
use crate::runner::{Ctx, Test};
use crate::sys;
use crate::{check, Context, Outcome};
use std::collections::BTreeMap;

pub const TESTS: [Test; 2] = [
    once("cycles.unload_and_load", 300, unload_and_load),
    once("cycles.namespaces", 300, namespaces),
];

/// Rounds where none are asked for.
const FEW: usize = 2;
/// The first rounds make what stays for good: caches of the kernel, and of this machine's tools.
const WARM_UP: usize = 3;

/// The module is unloaded and loaded, with traffic before and after.
fn unload_and_load(ctx: &Ctx) -> Outcome {
    in_rounds(ctx, || unload_with_traffic(ctx, 10))
}

/// Two namespaces with devices come, and go under traffic.
fn namespaces(ctx: &Ctx) -> Outcome {
    in_rounds(ctx, || namespaces_come_and_go(ctx))
}

fn in_rounds(ctx: &Ctx, round: impl Fn() -> Outcome) -> Outcome {
    let rounds = ctx.rounds.unwrap_or(FEW);
    let measured = || -> Outcome<Memory> {
        fresh(ctx)?;
        Memory::now()
    };
    for number in 0..WARM_UP {
        round().during(&format!("round {number} to warm up"))?;
    }
    let before = measured()?;
    for number in 0..rounds {
        round().during(&format!("round {number}"))?;
        if number % 50 == 49 {
            println!("# {} rounds", number + 1);
        }
    }
    let after = measured()?;
    works_again(ctx)?;
    after.compare(&before, rounds)
}

/// What the kernel has allocated.
struct Memory {
    /// Of each slab cache, by its name: objects, and the length of one.
    caches: BTreeMap<String, (i64, i64)>,
    /// Of processors' own memory, of vmalloc(), of slabs that cannot be given back, and what no other line of
    /// /proc/meminfo tells of, pages of buffers among them; in kB.
    kinds: [(&'static str, i64); 4],
}

impl Memory {
    fn now() -> Outcome<Memory> {
        // What can be given back is; twice, as what is given back in between lets go of more.
        for _ in 0..2 {
            sys::write_file("/proc/sys/vm/drop_caches", "3")?;
            // Objects that wait for RCU.
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        let mut caches = BTreeMap::new();
        for entry in std::fs::read_dir("/sys/kernel/slab")? {
            let entry = entry?;
            // Other names of the same cache are links.
            if entry.file_type()?.is_symlink() {
                continue;
            }
            let at = |name: &str| entry.path().join(name).to_string_lossy().into_owned();
            // Processors keep objects that are free, and count as used. A cache may go meanwhile.
            if sys::write_file(&at("shrink"), "1").is_err() {
                continue;
            }
            let number = |name: &str| -> Outcome<i64> {
                let text = sys::read_file(&at(name))?;
                let word = text.split_whitespace().next().unwrap_or_default();
                word.parse().during(&at(name))
            };
            // Names of files and the like, which are kept as long as nobody needs the memory.
            if number("reclaim_account")? != 0 {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            caches.insert(name, (number("objects")?, number("object_size")?));
        }
        let text = sys::read_file("/proc/meminfo")?;
        let line = |name: &str| -> i64 {
            text.lines()
                .filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
                .next()
                .unwrap_or(0)
        };
        let told = [
            "MemFree",
            "Buffers",
            "Cached",
            "SwapCached",
            "AnonPages",
            "Slab",
            "KernelStack",
            "PageTables",
            "Percpu",
            "VmallocUsed",
        ];
        let told: i64 = told.into_iter().map(line).sum();
        Ok(Memory {
            caches,
            kinds: [
                ("Percpu", line("Percpu")),
                ("VmallocUsed", line("VmallocUsed")),
                ("SUnreclaim", line("SUnreclaim")),
                ("other pages", line("MemTotal") - told),
            ],
        })
    }

    /// Fails if so much is there more that something may have stayed in each round.
    fn compare(&self, before: &Memory, rounds: usize) -> Outcome {
        let rounds = rounds as i64;
        let mut grown: Vec<_> = self
            .caches
            .iter()
            .map(|(name, &(objects, size))| {
                let (were, _) = before.caches.get(name).copied().unwrap_or_default();
                (objects - were, size, name)
            })
            .filter(|&(more, ..)| more > 0)
            .collect();
        grown.sort_by_key(|&(more, size, _)| -more * size);
        println!("# after {rounds} rounds there is more (negative: less) of, in kB:");
        for ((name, now), (_, was)) in self.kinds.iter().zip(before.kinds) {
            println!("#   {name}: {}", now - was);
        }
        for (more, size, name) in grown.iter().take(8) {
            println!("#   {name}: {more} objects of {size} bytes");
        }
        for (more, size, name) in grown {
            check!(
                more < rounds.max(SOME),
                "{name}: {more} objects of {size} bytes more after {rounds} rounds"
            );
        }
        for ((name, now), (_, was)) in self.kinds.iter().zip(before.kinds) {
            check!(
                now - was < MUCH.max(4 * rounds),
                "{name}: {} kB more after {rounds} rounds",
                now - was
            );
        }
        Ok(())
    }
}

/// So many objects of a cache come and go by themselves.
const SOME: i64 = 400;
/// So many kB do.
const MUCH: i64 = 4096;
