//! The ways to read, each of which checks what it got.

use super::calls::{Mapping, Pipe};
use super::plan::{Input, Side};
use crate::pattern::Pattern;
use crate::sys::Sock;
use crate::Fail;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::io;

/// What memory looks like that MSG_TRUNC must leave alone.
const UNTOUCHED: u8 = 0xa5;

/// One direction at its reading end.
pub struct Reader {
    way: Input,
    pattern: Pattern,
    buffer: Vec<u8>,
    mapping: Mapping,
    pipe: Pipe,
    random: SmallRng,
    largest: usize,
    /// MSG_WAITALL gave less than asked for: nothing may follow.
    short: bool,
    /// Bytes that have come.
    pub done: usize,
    /// Bytes after which it reads no further.
    pub stops: Option<usize>,
}

impl Reader {
    pub fn new(side: &Side, pattern: Pattern, seed: u64) -> io::Result<Reader> {
        Ok(Reader {
            way: side.input,
            pattern,
            buffer: vec![0; side.largest],
            mapping: Mapping::anonymous(side.largest)?,
            pipe: Pipe::new()?,
            random: SmallRng::seed_from_u64(seed),
            largest: side.largest,
            short: false,
            done: 0,
            stops: side.stops,
        })
    }

    /// Whether it is to read no further.
    pub fn has_stopped(&self) -> bool {
        self.stops == Some(self.done)
    }

    /// Reads a part; 0 is the end of the stream. Not to be called when it has stopped.
    pub fn step(&mut self, sock: &Sock, blocking: bool) -> io::Result<usize> {
        let most = self.stops.map_or(self.largest, |stops| {
            self.largest.min(stops.saturating_sub(self.done))
        });
        let size = self.random.gen_range(1..=most);
        let got = match self.way {
            Input::Read => {
                let got = sock.read(&mut self.buffer[..size])?;
                self.check(got)?
            }
            Input::Recv => {
                let dont_wait = blocking && self.random.gen_ratio(1, 4);
                let flags = if dont_wait { libc::MSG_DONTWAIT } else { 0 };
                let got = sock.recv(&mut self.buffer[..size], flags)?;
                self.check(got)?
            }
            Input::Readv => {
                let mut parts = Vec::new();
                let mut rest = &mut self.buffer[..size];
                while !rest.is_empty() && parts.len() < 8 {
                    let (part, behind) = rest.split_at_mut(self.random.gen_range(0..=rest.len()));
                    parts.push(part);
                    rest = behind;
                }
                parts.push(rest);
                let got = sock.readv(&mut parts)?;
                self.check(got)?
            }
            Input::Mapped => {
                self.mapping.forget()?;
                let got = sock.read(&mut self.mapping.bytes_mut()[..size])?;
                self.verify(&self.mapping.bytes()[..got])?;
                got
            }
            Input::Peek => self.peek(sock, size)?,
            Input::WaitAll => {
                let got = sock.recv(&mut self.buffer[..size], libc::MSG_WAITALL)?;
                if self.short && got > 0 {
                    return Err(io::Error::other(format!(
                        "{got} bytes came after MSG_WAITALL had given less than asked for, at {}",
                        self.done
                    )));
                }
                self.short = blocking && got < size;
                self.check(got)?
            }
            Input::Trunc => self.truncate(sock, size)?,
            Input::Splice => {
                let flags = libc::SPLICE_F_MOVE;
                let wait = if blocking { 0 } else { libc::SPLICE_F_NONBLOCK };
                let got = self.pipe.fill_from(sock, size, flags | wait)?;
                self.pipe.take(&mut self.buffer[..got])?;
                self.check(got)?
            }
        };
        self.done += got;
        Ok(got)
    }

    /// Looks at a part, and takes at most as much.
    fn peek(&mut self, sock: &Sock, size: usize) -> io::Result<usize> {
        let seen = sock.recv(&mut self.buffer[..size], libc::MSG_PEEK)?;
        self.check(seen)?;
        if seen == 0 {
            return Ok(0);
        }
        let wanted = self.random.gen_range(1..=seen);
        let got = sock.recv(&mut self.buffer[..wanted], 0)?;
        if got != wanted {
            return Err(io::Error::other(format!(
                "{got} of {wanted} bytes came, although MSG_PEEK had seen {seen}"
            )));
        }
        self.check(got)
    }

    /// Throws a part away, or reads it.
    fn truncate(&mut self, sock: &Sock, size: usize) -> io::Result<usize> {
        if self.random.gen() {
            let got = sock.recv(&mut self.buffer[..size], 0)?;
            return self.check(got);
        }
        self.buffer[..size].fill(UNTOUCHED);
        let got = sock.recv(&mut self.buffer[..size], libc::MSG_TRUNC)?;
        if self.buffer[..size].iter().any(|&byte| byte != UNTOUCHED) {
            return Err(io::Error::other(
                "MSG_TRUNC has written to the buffer of a stream socket",
            ));
        }
        Ok(got)
    }

    /// Checks the beginning of the buffer.
    fn check(&self, length: usize) -> io::Result<usize> {
        self.verify(&self.buffer[..length])?;
        Ok(length)
    }

    fn verify(&self, data: &[u8]) -> io::Result<()> {
        self.pattern
            .verify(self.done, data)
            .map_err(|Fail(words)| io::Error::other(words))
    }
}
