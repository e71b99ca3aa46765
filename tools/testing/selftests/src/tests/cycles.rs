//! What comes and goes, again and again: the module, and namespaces. Nothing of it may stay in memory. A few rounds in
//! `make test`; `--rounds N` for more.

use super::link::{fresh, namespaces_come_and_go, unload_with_traffic, works_again};
use super::once;
use crate::rig;
use crate::runner::{Ctx, Test};
use crate::sys;
use crate::{check, Context, Outcome};
use std::collections::BTreeMap;

pub const TESTS: [Test; 2] = [
    once("cycles.unload_and_load", 300, unload_and_load),
    once("cycles.namespaces", 300, namespaces),
];

/// Rounds where none are asked for.
const FEW: usize = 4;
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
    let some = |many: usize, what: &str| -> Outcome<Memory> {
        for number in 0..many {
            round().during(&format!("round {number} {what}"))?;
            if number % 50 == 49 {
                println!("# {} rounds {what}", number + 1);
            }
        }
        fresh(ctx)?;
        Memory::now()
    };
    let first = some(WARM_UP, "to warm up")?;
    let middle = some(rounds / 2, "of the first half")?;
    let last = some(rounds - rounds / 2, "of the second half")?;
    works_again(ctx)?;
    Memory::compare([&first, &middle, &last], rounds)
}

/// What the kernel has allocated.
pub(super) struct Memory {
    /// Of each slab cache, by its name: objects, and the length of one.
    caches: BTreeMap<String, (i64, i64)>,
    /// Of processors' own memory, of vmalloc(), of slabs that cannot be given back, and what no other line of
    /// /proc/meminfo tells of, pages of buffers among them; in kB.
    kinds: [(&'static str, i64); 4],
}

impl Memory {
    pub(super) fn now() -> Outcome<Memory> {
        // vmalloc() keeps what describes memory that was given back, as stacks of tasks, until there is much of it, as it flushes
        // the TLBs of all processors then. It does so for who changes what memory is for, as whoever loads a module.
        rig::run("modprobe smc_idle")?;
        rig::run("rmmod smc_idle")?;
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
            // What a debugging kernel keeps about objects that are counted themselves.
            if name.starts_with("kmemleak_") || name == "debug_objects_cache" {
                continue;
            }
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

    /// Fails if there is more after the first half of the rounds, and as much again after the second: what stays
    /// behind in a round does so in each of them. What the kernel keeps for itself (inodes of files that somebody
    /// looked at, pages of processors' own lists) comes once.
    pub(super) fn compare([first, middle, last]: [&Memory; 3], rounds: usize) -> Outcome {
        let half = (rounds / 2) as i64;
        let steady = |was: i64, then: i64, now: i64| (then - was).min(now - then);
        let objects = |memory: &Memory, name: &String| {
            memory.caches.get(name).map_or(0, |&(objects, _)| objects)
        };
        let mut grown: Vec<_> = last
            .caches
            .iter()
            .map(|(name, &(now, size))| {
                let (was, then) = (objects(first, name), objects(middle, name));
                (steady(was, then, now), then - was, now - then, size, name)
            })
            .filter(|&(more, ..)| more > 0)
            .collect();
        grown.sort_by_key(|&(more, _, _, size, _)| -more * size);
        let kinds = || {
            let of_then = middle.kinds.iter().zip(first.kinds);
            let of_now = last.kinds.iter().zip(middle.kinds);
            of_then
                .zip(of_now)
                .map(|(((name, then), (_, was)), ((_, now), _))| (*name, was, *then, *now))
        };
        println!("# after each half of {rounds} rounds there is more (negative: less) of, in kB:");
        for (name, was, then, now) in kinds() {
            println!("#   {name}: {}, {}", then - was, now - then);
        }
        for (_, one, other, size, name) in grown.iter().take(8) {
            println!("#   {name}: {one}, {other} objects of {size} bytes");
        }
        for (more, one, other, size, name) in grown {
            check!(
                more < half.max(SOME),
                "{name}: {one} objects of {size} bytes more after half of {rounds} rounds, {other} more after the rest"
            );
        }
        for (name, was, then, now) in kinds() {
            check!(
                steady(was, then, now) < MUCH.max(4 * half),
                "{name}: {} kB more after half of {rounds} rounds, {} more after the rest",
                then - was,
                now - then
            );
        }
        Ok(())
    }
}

/// So many objects of a cache come and go by themselves in half of the rounds.
const SOME: i64 = 200;
/// So many kB do.
const MUCH: i64 = 4096;
