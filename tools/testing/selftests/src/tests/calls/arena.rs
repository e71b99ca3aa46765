//! Memory that a thread hands to its calls, with an end behind which there is nothing.

use rand::rngs::SmallRng;
use rand::Rng;
use std::io;

/// For structures, which are written before each call; and for data.
const STRUCTURES: usize = 64 << 10;
const DATA: usize = 512 << 10;
const PAGE: usize = 4096;

/// Addresses at which no memory of a program is.
const NOWHERE: [usize; 8] = [
    0,
    1,
    PAGE,
    1 << 47,
    0x8000_0000_0000_0000,
    0xffff_8880_0000_0000,
    0xffff_ffff_8100_0000,
    usize::MAX - 7,
];

pub struct Arena {
    start: usize,
    /// Taken of the structures.
    taken: usize,
    read_only: usize,
}

fn map(length: usize, protection: i32) -> io::Result<usize> {
    // SAFETY: a new mapping at a place of the kernel's choice; never unmapped.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            protection,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    match start {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        start => Ok(start as usize),
    }
}

impl Arena {
    pub fn new() -> io::Result<Arena> {
        let start = map(STRUCTURES + DATA + PAGE, libc::PROT_NONE)?;
        let writable = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: all but the last page of the mapping above.
        crate::sys::cvt(unsafe {
            libc::mprotect(start as *mut libc::c_void, STRUCTURES + DATA, writable)
        })?;
        Ok(Arena {
            start,
            taken: 0,
            read_only: map(PAGE, libc::PROT_READ)?,
        })
    }

    /// For the next call.
    pub fn begin(&mut self) {
        self.taken = 0;
    }

    /// Puts bytes where the kernel can read and write them.
    pub fn put(&mut self, bytes: &[u8]) -> usize {
        let place = self.start + self.taken;
        assert!(
            self.taken + bytes.len() + 16 <= STRUCTURES,
            "too much for one call"
        );
        self.taken += bytes.len().next_multiple_of(16);
        // SAFETY: within the mapping, of which Rust has no references.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place as *mut u8, bytes.len()) };
        place
    }

    /// What is at a place that `put` has given.
    pub fn get(&self, place: usize, length: usize) -> Vec<u8> {
        assert!(place >= self.start && place + length <= self.start + STRUCTURES + DATA);
        let mut bytes = vec![0; length];
        // SAFETY: within the mapping. Another process cannot write there, and no other thread is given it.
        unsafe { std::ptr::copy_nonoverlapping(place as *const u8, bytes.as_mut_ptr(), length) };
        bytes
    }

    /// A place that is wrong.
    pub fn nowhere(&self, random: &mut SmallRng) -> usize {
        let end = self.start + STRUCTURES + DATA;
        match random.gen_range(0..4) {
            0 => self.read_only + random.gen_range(0..PAGE),
            // Partly there.
            1 => end - random.gen_range(0..64),
            2 => end,
            _ => NOWHERE[random.gen_range(0..NOWHERE.len())],
        }
    }

    /// Where data is, or is to come, and how much: mostly right.
    pub fn buffer(&self, random: &mut SmallRng) -> (usize, usize) {
        let data = self.start + STRUCTURES;
        let length = match random.gen_range(0..12) {
            0 => 0,
            1 => 1,
            2..6 => random.gen_range(1..200),
            6..9 => random.gen_range(1..20_000),
            9 => [4096, 65_535, 65_536, 65_537][random.gen_range(0..4)],
            _ => random.gen_range(1..DATA),
        };
        match random.gen_range(0..20) {
            0 => (self.nowhere(random), length),
            1 => (
                data + random.gen_range(0..DATA),
                [
                    DATA * 2,
                    i32::MAX as usize,
                    u32::MAX as usize,
                    usize::MAX / 2,
                    usize::MAX,
                ][random.gen_range(0..5)],
            ),
            // To the very end.
            2..6 => (data + DATA - length, length),
            _ => (data + random.gen_range(0..=DATA - length), length),
        }
    }
}
