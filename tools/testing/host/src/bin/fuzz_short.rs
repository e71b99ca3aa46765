// SPDX-License-Identifier: GPL-2.0

//! A short run of random input through every parser, on the stable compiler.
//!
//! `fuzz_short [ITERATIONS [SEED]]`: prints its seed, and with the same seed does the same again.
//! Input starts from the golden vectors and from samples of the other formats; it is changed in
//! ways that keep much of its structure, so that the inner checks are reached, too. A panic is a
//! finding.

use std::{
    env,
    process::ExitCode,
    time::{
        SystemTime,
        UNIX_EPOCH, //
    },
};

#[path = "../../tests/common/mod.rs"]
mod common;

const DEFAULT_ITERATIONS: u64 = 200_000;

/// SplitMix64: small, seeded, and good enough to choose mutations.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, 0 if there is none.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        // Values at the edges are more interesting than others.
        const EDGES: [u8; 12] = [0, 1, 2, 3, 5, 6, 8, 9, 16, 127, 128, 255];
        match self.below(2) {
            0 => EDGES[self.below(EDGES.len())],
            _ => self.next() as u8,
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = common::vectors("").into_iter().map(|(_, b)| b).collect();
    // One CDC message and each LLC type of both versions, 44 bytes with zeroes in the rest.
    for kind in [
        0xfe, 1, 2, 3, 4, 6, 7, 8, 9, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x29,
    ] {
        let mut message = vec![0; 44];
        (message[0], message[1]) = (kind, 44);
        seeds.push(message);
    }
    // TCP options of a SYN: as Linux has them, with the option, and ended early.
    let syn = [
        2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
    ];
    seeds.push(syn.to_vec());
    seeds.push([&syn[..], &[1, 1, 254, 6, 0xe2, 0xd4, 0xc3, 0xd9]].concat());
    seeds.push(vec![2, 4, 5, 0xb4, 0, 0, 0, 0]);
    seeds
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
    let at = random.below(bytes.len());
    match random.below(8) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 | 2 if !bytes.is_empty() => bytes[at] = random.byte(),
        3 => bytes.truncate(at),
        4 => {
            let count = random.below(20);
            for _ in 0..count {
                bytes.insert(at, random.byte());
            }
        }
        5 if !bytes.is_empty() => {
            let end = at + random.below(bytes.len() - at);
            bytes.drain(at..end);
        }
        6 if !others.is_empty() => {
            // The tail of another input.
            let other = &others[random.below(others.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[at.min(other.len())..]);
        }
        _ => {
            // A multi-byte field.
            for byte in bytes.iter_mut().skip(at).take(4) {
                *byte = random.byte();
            }
        }
    }
}

/// Makes length field and eye catchers of a CLC message right again.
fn repair(bytes: &mut [u8]) {
    let len = bytes.len();
    if len >= 12 {
        bytes[..4].copy_from_slice(&[0xe2, 0xd4, 0xc3, 0xd9]);
        bytes[len - 4..].copy_from_slice(&[0xe2, 0xd4, 0xc3, 0xd9]);
        bytes[5..7].copy_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
    }
}

fn main() -> ExitCode {
    let mut args = env::args().skip(1).map(|arg| arg.parse::<u64>());
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64)
    };
    let (Ok(iterations), Ok(seed)) = (
        args.next().unwrap_or(Ok(DEFAULT_ITERATIONS)),
        args.next().unwrap_or_else(|| Ok(now())),
    ) else {
        eprintln!("usage: fuzz_short [ITERATIONS [SEED]]");
        return ExitCode::FAILURE;
    };
    // Printed first: a panic ends the run.
    println!("fuzz_short: {iterations} iterations, seed {seed}");

    let seeds = seeds();
    let mut random = Random(seed);
    for _ in 0..iterations {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(4) {
            mutate(&mut random, &mut bytes, &seeds);
        }
        if random.below(4) != 0 {
            repair(&mut bytes);
        }
        common::read_everything(&bytes);
    }
    println!("fuzz_short: done");
    ExitCode::SUCCESS
}
