//! What all processes of a soak see.

use crate::{sys, Fail, Outcome};
use std::sync::atomic::{AtomicU64, Ordering};

/// Processes that make connections.
pub const WORKERS: usize = 6;

/// Counts; and what each worker does, as far as others have to know.
pub struct Board {
    /// 1: workers finish what they are at, and end.
    pub stop: AtomicU64,
    /// Processes that have made their connections.
    pub ready: AtomicU64,
    pub phases: AtomicU64,
    pub acts: AtomicU64,
    pub connections: AtomicU64,
    pub by_rdma: AtomicU64,
    pub broken: AtomicU64,
    pub bodies: AtomicU64,
    pub bytes: AtomicU64,
    /// Of each worker the number of what it does, which [`super::worker::Job`] tells in words.
    pub jobs: [AtomicU64; WORKERS],
    /// Of each worker: counts on whenever anything was seen to move.
    pub beats: [AtomicU64; WORKERS],
}

impl Board {
    /// In memory that forked processes share; for good.
    pub fn new() -> Outcome<&'static Board> {
        // SAFETY: it is made of atomic numbers alone.
        unsafe { sys::shared() }.map_err(Fail::from)
    }

    pub fn count(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) != 0
    }

    /// Changes as long as anything goes on.
    pub fn pulse(&self) -> u64 {
        let all = self.beats.iter().chain([&self.acts, &self.bytes]);
        all.map(|counter| counter.load(Ordering::Relaxed))
            .fold(0, u64::wrapping_add)
    }

    /// One line for who waits.
    pub fn line(&self) -> String {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "{} phases, {} disturbances; {} connections ({} by RDMA, {} ended by a disturbance), {} kB compared; {} selftests",
            of(&self.phases),
            of(&self.acts),
            of(&self.connections),
            of(&self.by_rdma),
            of(&self.broken),
            of(&self.bytes) >> 10,
            of(&self.bodies)
        )
    }
}
