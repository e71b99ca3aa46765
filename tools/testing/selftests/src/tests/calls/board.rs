//! What all processes of a run count.

use super::call::CALLS;
use super::kcov::PLACES;
use super::WORKERS;
use crate::{sys, Fail, Outcome};
use std::sync::atomic::{AtomicU64, AtomicU8, Ordering};

pub struct Board {
    /// 1: workers finish the program they are at, and end.
    pub stop: AtomicU64,
    pub stop_streams: AtomicU64,
    pub programs: AtomicU64,
    /// Connections of programs in their beginning.
    pub connections: AtomicU64,
    pub by_rdma: AtomicU64,
    /// Signals that were sent into calls that did not come back by themselves.
    pub signals: AtomicU64,
    /// Bytes of the connections beside.
    pub compared: AtomicU64,
    made: [AtomicU64; CALLS.len()],
    good: [AtomicU64; CALLS.len()],
    /// Of each worker: places that its programs were the first to reach.
    pub places_found: [AtomicU64; WORKERS as usize],
    places: [AtomicU8; PLACES],
}

impl Board {
    /// In memory that forked processes share; for good.
    pub fn new() -> Outcome<&'static Board> {
        // SAFETY: it is made of atomic numbers alone.
        unsafe { sys::shared() }.map_err(Fail::from)
    }

    pub fn count(&self, call: usize, good: bool) {
        self.made[call].fetch_add(1, Ordering::Relaxed);
        self.good[call].fetch_add(u64::from(good), Ordering::Relaxed);
    }

    /// Whether a place was reached for the first time.
    pub fn reached(&self, place: usize) -> bool {
        let cell = &self.places[place % PLACES];
        cell.load(Ordering::Relaxed) == 0 && cell.swap(1, Ordering::Relaxed) == 0
    }

    pub fn succeeded(&self, name: &str) -> u64 {
        let call = CALLS.iter().position(|call| call.name == name);
        call.map_or(0, |call| self.good[call].load(Ordering::Relaxed))
    }

    /// One line for who waits.
    pub fn line(&self) -> String {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let sum = |counters: &[AtomicU64]| counters.iter().map(of).sum::<u64>();
        let mut text = format!(
            "{} programs with {} connections ({} by RDMA); {} calls, {} succeeded, {} signals; {} kB compared beside",
            of(&self.programs),
            of(&self.connections),
            of(&self.by_rdma),
            sum(&self.made),
            sum(&self.good),
            of(&self.signals),
            of(&self.compared) >> 10
        );
        let places = sum(&self.places_found);
        if places > 0 {
            text += &format!("; {places} places of the module reached");
        }
        text
    }

    /// Of each call: how often it was made, and has succeeded.
    pub fn table(&self) -> String {
        let cells = CALLS.iter().enumerate().map(|(number, call)| {
            let of = |counters: &[AtomicU64]| counters[number].load(Ordering::Relaxed);
            format!("{} {}/{}", call.name, of(&self.good), of(&self.made))
        });
        cells.collect::<Vec<_>>().join(", ")
    }
}
