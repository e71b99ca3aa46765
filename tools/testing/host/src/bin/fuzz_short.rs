// SPDX-License-Identifier: GPL-2.0

//! A short run of random input through every target of the fuzzers, on the stable compiler.
//!
//! `fuzz_short [ITERATIONS [SEED [TARGET]]]`: prints its seed, and with the same seed does the same again. Input is the
//! corpus and what the targets begin with, and changes of these. A panic is a finding; the last line of `fuzz_short: ` names the target.
//!
//! `fuzz_short --seeds DIRECTORY`: writes what the targets begin with into a directory for each, for libFuzzer.

use std::{
    env,
    error::Error,
    fs,
    path::Path,
    time::{
        SystemTime,
        UNIX_EPOCH, //
    },
};

#[path = "../../tests/targets/mod.rs"]
mod targets;

use targets::{
    mutate::Random,
    TARGETS, //
};

const DEFAULT_ITERATIONS: usize = 50_000;

fn write_seeds(directory: &Path) -> Result<(), Box<dyn Error>> {
    for target in &TARGETS {
        let directory = directory.join(target.name);
        fs::create_dir_all(&directory)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(directory.join(format!("seed-{number:03}")), seed)?;
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["--seeds", directory] = args[..] {
        return write_seeds(Path::new(directory));
    }
    let usage = "usage: fuzz_short [ITERATIONS [SEED [TARGET]]], or --seeds DIRECTORY";
    if args.len() > 3 {
        return Err(usage.into());
    }
    let iterations = match args.first() {
        Some(text) => text.parse().map_err(|_| usage)?,
        None => DEFAULT_ITERATIONS,
    };
    let seed = match args.get(1) {
        Some(text) => text.parse().map_err(|_| usage)?,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64,
    };
    let only = args.get(2).map(|name| targets::target(name).name);
    for target in &TARGETS {
        if only.is_some_and(|only| only != target.name) {
            continue;
        }
        // Printed first: a panic ends the run.
        println!(
            "fuzz_short: {}: {iterations} iterations, seed {seed}",
            target.name
        );
        let corpus = target.corpus().into_iter().map(|(_, bytes)| bytes);
        let inputs: Vec<_> = corpus.chain((target.seeds)()).collect();
        for input in &inputs {
            (target.run)(input);
        }
        let mut random = Random(seed);
        for _ in 0..iterations {
            (target.run)(&random.mutation(&inputs));
        }
    }
    println!("fuzz_short: done");
    Ok(())
}
