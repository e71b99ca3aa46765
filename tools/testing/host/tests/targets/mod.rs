// SPDX-License-Identifier: GPL-2.0

//! What the fuzzers feed, one function for each target: bytes go in, and whatever must hold is asserted.
//!
//! The same functions run in three places: under libFuzzer (`tools/testing/fuzz`), which looks for new paths; with every
//! file of the corpus and with mutations of them in each test run (`tests/corpus.rs`); and with as many
//! random ones as one likes (`fuzz_short`). The last two need nothing but the stable compiler.

// Each program uses its own part of this.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::{
    fs,
    path::PathBuf, //
};

#[path = "../common/mod.rs"]
pub mod common;
#[path = "../simulation/mod.rs"]
pub mod simulation;

pub mod cdc;
pub mod handshake;
pub mod headers;
pub mod llc;
pub mod mutate;
pub mod netlink;
pub mod two_peers;

/// A target.
pub struct Target {
    /// Of the binary in `tools/testing/fuzz`, and of the directory of its corpus.
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Inputs to begin with: messages that others have sent, and how a script of the target gets far.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 7] = [
    Target {
        name: "clc_parse",
        run: common::read_everything,
        seeds: handshake::messages,
    },
    Target {
        name: "clc_handshake",
        run: handshake::run,
        seeds: handshake::seeds,
    },
    Target {
        name: "tcp_option",
        run: headers::run,
        seeds: headers::seeds,
    },
    Target {
        name: "llc",
        run: llc::run,
        seeds: llc::seeds,
    },
    Target {
        name: "cdc",
        run: cdc::run,
        seeds: cdc::seeds,
    },
    Target {
        name: "netlink",
        run: netlink::run,
        seeds: netlink::seeds,
    },
    Target {
        name: "two_peers",
        run: two_peers::run,
        seeds: two_peers::seeds,
    },
];

/// The target of that name.
pub fn target(name: &str) -> &'static Target {
    TARGETS
        .iter()
        .find(|target| target.name == name)
        .unwrap_or_else(|| panic!("there is no target {name}"))
}

impl Target {
    /// The files of the corpus that is part of the source, in the order of their names.
    pub fn corpus(&self) -> Vec<(String, Vec<u8>)> {
        let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus"));
        let dir = dir.join(self.name);
        let mut files: Vec<_> = fs::read_dir(&dir)
            .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
            .map(|entry| entry.expect("a file").path())
            .collect();
        files.sort();
        files
            .into_iter()
            .map(|path| {
                let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                (path.display().to_string(), bytes)
            })
            .collect()
    }
}

/// Reads decisions out of the input of a fuzzer, in its order, and zeroes behind its end. So a byte that is changed changes
/// one decision, and a seed can be written by hand, with whole messages in it; that is all that it is to do.
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether all was read.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to `n` bytes.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A run of bytes with its length, one byte, in front.
    pub fn piece(&mut self) -> &'a [u8] {
        let n = self.u8();
        self.take(n.into())
    }

    /// The same with a length of two bytes.
    pub fn long_piece(&mut self) -> &'a [u8] {
        let n = self.u16();
        self.take(n.into())
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let taken = self.take(N);
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }

    pub fn u8(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    pub fn flag(&mut self) -> bool {
        self.u8() & 1 != 0
    }

    /// A number below `limit`, which is at most 256.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::from(self.u8()) % limit
    }

    /// A number from 1 to `limit`.
    pub fn size(&mut self, limit: u32) -> u32 {
        match limit {
            0..=256 => u32::from(self.u8()) % limit.max(1) + 1,
            _ => self.u32() % limit + 1,
        }
    }
}
