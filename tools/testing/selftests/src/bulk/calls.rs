//! Thin wrappers of the system calls that only the bulk program makes.

use crate::sys::{cvt, cvt_size, Sock};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A file in memory.
pub fn memory_file(content: &[u8]) -> io::Result<File> {
    // SAFETY: a string that ends with a zero.
    let fd = cvt(unsafe { libc::memfd_create(c"bulk".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: a fresh descriptor that nobody else owns.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.write_all(content)?;
    Ok(file)
}

/// sendfile(2) of a part of a file.
pub fn send_file(sock: &Sock, file: &File, from: usize, length: usize) -> io::Result<usize> {
    let mut from = from as libc::off_t;
    // SAFETY: `from` is live; the descriptors are open.
    cvt_size(unsafe { libc::sendfile(sock.as_raw_fd(), file.as_raw_fd(), &raw mut from, length) })
}

/// A pipe between a socket and this program.
pub struct Pipe {
    reader: File,
    writer: File,
}

impl Pipe {
    pub fn new() -> io::Result<Pipe> {
        let mut ends = [0; 2];
        // SAFETY: `ends` has room for the two descriptors.
        cvt(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
        // SAFETY: two fresh descriptors that nobody else owns.
        let (reader, writer) =
            unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
        Ok(Pipe {
            reader: reader.into(),
            writer: writer.into(),
        })
    }

    /// Splices a part of a file into the pipe, which has to have room for it.
    pub fn fill(&self, file: &File, from: usize, length: usize) -> io::Result<usize> {
        let mut from = from as libc::loff_t;
        // SAFETY: `from` is live; the descriptors are open; a pipe has no offset.
        cvt_size(unsafe {
            libc::splice(
                file.as_raw_fd(),
                &raw mut from,
                self.writer.as_raw_fd(),
                std::ptr::null_mut(),
                length,
                0,
            )
        })
    }

    /// Splices what is in the pipe into a socket.
    pub fn send_to(&self, sock: &Sock, length: usize, flags: u32) -> io::Result<usize> {
        splice(self.reader.as_raw_fd(), sock.as_raw_fd(), length, flags)
    }

    /// Splices from a socket into the pipe.
    pub fn fill_from(&self, sock: &Sock, length: usize, flags: u32) -> io::Result<usize> {
        splice(sock.as_raw_fd(), self.writer.as_raw_fd(), length, flags)
    }

    /// Takes bytes out of the pipe that are certainly there.
    pub fn take(&self, data: &mut [u8]) -> io::Result<()> {
        (&self.reader).read_exact(data)
    }
}

fn splice(from: i32, to: i32, length: usize, flags: u32) -> io::Result<usize> {
    let none = std::ptr::null_mut();
    // SAFETY: sockets and pipes have no offsets; the descriptors are open.
    cvt_size(unsafe { libc::splice(from, none, to, none, length, flags) })
}

/// Memory of its own pages, which can be made to fault again.
pub struct Mapping {
    start: *mut libc::c_void,
    length: usize,
}

// SAFETY: it owns its pages, as a Vec does.
unsafe impl Send for Mapping {}

impl Mapping {
    /// A file's pages, to be read.
    pub fn of_file(file: &File, length: usize) -> io::Result<Mapping> {
        Mapping::new(libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), length)
    }

    /// Pages of zeroes.
    pub fn anonymous(length: usize) -> io::Result<Mapping> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        Mapping::new(access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, length)
    }

    fn new(access: i32, flags: i32, file: i32, length: usize) -> io::Result<Mapping> {
        // SAFETY: a new mapping at a place of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, file, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { start, length })
    }

    /// Drops the pages: the next access faults, and finds the file's bytes or zeroes.
    pub fn forget(&mut self) -> io::Result<()> {
        // SAFETY: the mapping is ours and, by `&mut`, not borrowed; its pages are the file's or zeroes again.
        cvt(unsafe { libc::madvise(self.start, self.length, libc::MADV_DONTNEED) })?;
        Ok(())
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for that length; nobody else changes the pages (a file's are only read from here on).
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.length) }
    }

    /// Of an anonymous mapping only: a file's is not writable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed by nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by mmap in `new`; no borrow outlives self.
        unsafe { libc::munmap(self.start, self.length) };
    }
}
