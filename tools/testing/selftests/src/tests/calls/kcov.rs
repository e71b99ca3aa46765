//! Which code of the module a thread's calls reach, where the kernel tells it (CONFIG_KCOV).

use super::board::Board;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

const FILE: &str = "/sys/kernel/debug/kcov";
// linux/kcov.h
const INIT_TRACE: libc::c_ulong = 0x8008_6301;
const ENABLE: libc::c_ulong = 0x6364;
const TRACE_PC: libc::c_ulong = 0;
/// Places that fit, with their count before them.
const ROOM: usize = 16 << 10;
/// More than the module has bytes of code, so that each place is one.
pub const PLACES: usize = 4 << 20;

pub fn is_there() -> bool {
    std::path::Path::new(FILE).exists()
}

/// Of the calling thread, from now on to its end.
pub struct Kcov {
    area: *const AtomicU64,
    _file: File,
}

impl Kcov {
    pub fn start() -> io::Result<Option<Kcov>> {
        if !is_there() {
            return Ok(None);
        }
        let file = File::options().read(true).write(true).open(FILE)?;
        let fd = file.as_raw_fd();
        // SAFETY: a number, and no pointer.
        crate::sys::cvt(unsafe { libc::ioctl(fd, INIT_TRACE, ROOM) })?;
        // SAFETY: a new mapping at a place of the kernel's choice; never unmapped.
        let area = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                ROOM * 8,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd,
                0,
            )
        };
        if area == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a number, and no pointer.
        crate::sys::cvt(unsafe { libc::ioctl(fd, ENABLE, TRACE_PC) })?;
        Ok(Some(Kcov {
            area: area.cast(),
            _file: file,
        }))
    }

    fn cell(&self, number: usize) -> &AtomicU64 {
        assert!(number < ROOM);
        // SAFETY: within the mapping, which stays.
        unsafe { &*self.area.add(number) }
    }

    /// How many places were reached that nobody had reached before; begins anew.
    pub fn new_places(&self, board: &Board) -> u64 {
        let count = (self.cell(0).load(Ordering::Relaxed) as usize).min(ROOM - 1);
        let new = (1..=count)
            .filter(|&number| board.reached(self.cell(number).load(Ordering::Relaxed) as usize))
            .count();
        self.cell(0).store(0, Ordering::Relaxed);
        new as u64
    }
}
