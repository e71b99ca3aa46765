//! The descriptors of a program, which all its threads use, and close.

use rand::rngs::SmallRng;
use rand::Rng;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Socket,
    /// A socket that listens.
    Listener,
    Unix,
    PipeOut,
    PipeIn,
    Epoll,
    File,
}

/// Beyond, something has to be closed first.
const ROOM: usize = 60;
/// A number that no descriptor has.
const NONE: RawFd = 9_999;

#[derive(Default)]
pub struct Table {
    all: Mutex<Vec<(RawFd, What)>>,
    /// Ports on which somebody has listened.
    ports: Mutex<Vec<u16>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    /// What a call has returned, if it is a descriptor.
    pub fn add(&self, fd: i64, what: What) {
        let Ok(fd) = RawFd::try_from(fd) else { return };
        if fd < 3 {
            return;
        }
        let mut all = lock(&self.all);
        all.retain(|(other, _)| *other != fd);
        all.push((fd, what));
        if all.len() > ROOM {
            let (oldest, _) = all.remove(0);
            drop(all);
            // SAFETY: no pointers; the number is one of the program's own.
            unsafe { libc::syscall(libc::SYS_close, oldest) };
        }
    }

    pub fn add_port(&self, port: u16) {
        lock(&self.ports).push(port);
    }

    pub fn port(&self, random: &mut SmallRng) -> u16 {
        let ports = lock(&self.ports);
        if ports.is_empty() || random.gen_bool(0.1) {
            return [0, 1, 22, 33_805, 65_535][random.gen_range(0..5)];
        }
        ports[random.gen_range(0..ports.len())]
    }

    /// One of a kind, if there is one; mostly.
    pub fn pick(&self, random: &mut SmallRng, what: What) -> RawFd {
        if random.gen_bool(0.02) {
            return [-1, NONE, i32::MIN, i32::MAX][random.gen_range(0..4)];
        }
        let all = lock(&self.all);
        if random.gen_bool(0.03) && !all.is_empty() {
            return all[random.gen_range(0..all.len())].0;
        }
        let of_kind: Vec<RawFd> = all
            .iter()
            .filter(|(_, other)| *other == what)
            .map(|&(fd, _)| fd)
            .collect();
        match of_kind.len() {
            0 => NONE,
            // The newest are those about which the next calls are, most of the time.
            count if random.gen_bool(0.4) => of_kind[count - 1 - random.gen_range(0..count.min(3))],
            count => of_kind[random.gen_range(0..count)],
        }
    }

    /// Any.
    pub fn any(&self, random: &mut SmallRng) -> RawFd {
        let all = lock(&self.all);
        match all.len() {
            0 => NONE,
            count => all[random.gen_range(0..count)].0,
        }
    }

    /// One that is to be closed; what is copied onto it may be something else.
    pub fn take(&self, random: &mut SmallRng) -> (RawFd, What) {
        let mut all = lock(&self.all);
        match all.len() {
            0 => (NONE, What::Socket),
            count => all.swap_remove(random.gen_range(0..count)),
        }
    }

    pub fn what(&self, fd: RawFd) -> What {
        let all = lock(&self.all);
        let found = all.iter().find(|(other, _)| *other == fd);
        found.map_or(What::Socket, |&(_, what)| what)
    }
}
