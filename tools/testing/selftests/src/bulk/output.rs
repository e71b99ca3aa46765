//! The ways to write.

use super::calls::{memory_file, send_file, Mapping, Pipe};
use super::plan::{Output, Side};
use crate::pattern::Pattern;
use crate::sys::Sock;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fs::File;
use std::io;

/// One direction at its writing end.
pub struct Writer {
    way: Output,
    pattern: Pattern,
    /// The pattern's table.
    file: File,
    mapping: Mapping,
    pipe: Pipe,
    in_pipe: usize,
    random: SmallRng,
    largest: usize,
    pub total: usize,
    /// Bytes that the socket has taken.
    pub done: usize,
}

impl Writer {
    pub fn new(side: &Side, pattern: Pattern, seed: u64) -> io::Result<Writer> {
        let file = memory_file(pattern.table())?;
        Ok(Writer {
            way: side.output,
            mapping: Mapping::of_file(&file, pattern.table().len())?,
            file,
            pattern,
            pipe: Pipe::new()?,
            in_pipe: 0,
            random: SmallRng::seed_from_u64(seed),
            largest: side.largest,
            total: side.total,
            done: 0,
        })
    }

    pub fn is_done(&self) -> bool {
        self.done == self.total
    }

    /// One call, at least; not to be called when everything is written. The bytes that the socket took.
    pub fn step(&mut self, sock: &Sock, blocking: bool) -> io::Result<usize> {
        let left = self.total - self.done;
        let size = self.random.gen_range(1..=self.largest.min(left));
        let last = size == left;
        let place = Pattern::place(self.done);
        // A promise of more that never comes would only cost time.
        let more = !last && self.random.gen_ratio(1, 4);
        let took = match self.way {
            Output::Write => sock.write(self.pattern.at(self.done, size)),
            Output::Send => {
                let mut flags = libc::MSG_NOSIGNAL;
                if more {
                    flags |= libc::MSG_MORE;
                }
                if blocking && self.random.gen_ratio(1, 4) {
                    flags |= libc::MSG_DONTWAIT;
                }
                sock.send(self.pattern.at(self.done, size), flags)
            }
            Output::Writev => {
                let data = self.pattern.at(self.done, size);
                let mut parts = Vec::new();
                let mut rest = data;
                while !rest.is_empty() && parts.len() < 8 {
                    // Empty ones, too.
                    let (part, behind) = rest.split_at(self.random.gen_range(0..=rest.len()));
                    parts.push(part);
                    rest = behind;
                }
                parts.push(rest);
                sock.writev(&parts)
            }
            Output::Mapped => {
                if self.random.gen_ratio(1, 4) {
                    self.mapping.forget()?;
                }
                sock.write(&self.mapping.bytes()[place..place + size])
            }
            Output::Sendfile => send_file(sock, &self.file, place, size),
            Output::Splice => {
                if self.in_pipe == 0 {
                    self.in_pipe = self.pipe.fill(&self.file, place, size)?;
                }
                let mut flags = libc::SPLICE_F_MOVE;
                if more {
                    flags |= libc::SPLICE_F_MORE;
                }
                if !blocking {
                    flags |= libc::SPLICE_F_NONBLOCK;
                }
                let took = self.pipe.send_to(sock, self.in_pipe, flags)?;
                self.in_pipe -= took;
                Ok(took)
            }
        }?;
        if took == 0 || took > size.max(self.in_pipe + took) {
            return Err(io::Error::other(format!(
                "{:?} of {size} bytes gave {took}",
                self.way
            )));
        }
        self.done += took;
        Ok(took)
    }
}
