//! Sockets of one kind that a script runs on.

use super::op::{End, Op};
use crate::kind::{Host, Kind};
use crate::sys::{self, Sock};
use crate::{Context, Outcome};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

const SIOCATMARK: libc::c_ulong = 0x8905;

/// How long SMC may take to come to the state that TCP came to.
const PATIENCE: Duration = Duration::from_secs(10);

/// Nothing has changed for so long: nothing is under way, if the machine is not busy.
pub const CALM: Duration = Duration::from_micros(300);

/// And even if it is.
pub const LONG_CALM: Duration = Duration::from_millis(50);

/// What a call gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    value: i64,
    errno: i32,
    /// Bytes that were received, or the value of an option.
    bytes: Vec<u8>,
    /// Flags of a received message.
    flags: i32,
    broken_pipes: u32,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value)?;
        if self.errno != 0 {
            write!(f, " {}", io::Error::from_raw_os_error(self.errno))?;
        }
        if !self.bytes.is_empty() {
            let some = &self.bytes[..self.bytes.len().min(12)];
            write!(f, " {some:02x?}")?;
        }
        if self.flags != 0 {
            write!(f, " flags {:#x}", self.flags)?;
        }
        if self.broken_pipes != 0 {
            write!(f, " SIGPIPE")?;
        }
        Ok(())
    }
}

/// What can be seen of a socket without changing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    end: End,
    events: i16,
    readable: i32,
    queued: i32,
    at_mark: i32,
    /// getpeername(2) answers.
    connected: bool,
}

impl State {
    /// Equal, as far as it has a meaning.
    fn is_like(&self, other: &State) -> bool {
        // What was under way to a peer that has reset the connection is lost; TCP goes on showing
        // how much that was.
        let queued = if other.events & libc::POLLHUP != 0 {
            other.queued
        } else {
            self.queued
        };
        State {
            queued,
            ..self.clone()
        } == *other
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}: poll {:#06x}, SIOCINQ {}, SIOCOUTQ {}, SIOCATMARK {}{}",
            self.end,
            self.events,
            self.readable,
            self.queued,
            self.at_mark,
            if self.connected { ", connected" } else { "" }
        )
    }
}

thread_local! {
    static BROKEN_PIPES: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

extern "C" fn broken_pipe(_signal: i32) {
    // SIGPIPE goes to the thread that sends.
    BROKEN_PIPES.with(|count| count.set(count.get() + 1));
}

/// Counts SIGPIPE instead of dying of it. Once per process.
pub fn catch_broken_pipes() {
    // SAFETY: the handler touches a thread-local cell without destructor only.
    unsafe {
        libc::signal(
            libc::SIGPIPE,
            broken_pipe as *const () as libc::sighandler_t,
        )
    };
}

pub struct World {
    kind: Kind,
    socks: [Option<Sock>; 3],
    /// Bytes sent by client and server, so that no byte is like the one before it.
    sent: [usize; 3],
    listener: Option<SocketAddr>,
    client: Option<SocketAddr>,
}

impl World {
    pub fn new(kind: Kind) -> World {
        World {
            kind,
            socks: [None, None, None],
            sent: [0; 3],
            listener: None,
            client: None,
        }
    }

    /// The socket of an end; client and listener are made when they are first needed.
    fn sock(&mut self, end: End) -> Outcome<Option<&Sock>> {
        let host = match end {
            End::Client => Host::A,
            _ => Host::B,
        };
        let place = &mut self.socks[end as usize];
        if place.is_none() && end != End::Server {
            *place = Some(Sock::new(host, self.kind, libc::SOCK_CLOEXEC).during("socket()")?);
        }
        Ok(place.as_ref())
    }

    /// Makes one call.
    pub fn run(&mut self, op: &Op) -> Outcome<Seen> {
        BROKEN_PIPES.with(|count| count.set(0));
        let mut seen = self.call(op)?;
        seen.broken_pipes = BROKEN_PIPES.with(|count| count.get());
        Ok(seen)
    }

    fn call(&mut self, op: &Op) -> Outcome<Seen> {
        let kind = self.kind;
        let to = self.listener.unwrap_or(Host::B.address(kind, 9));
        let none = Seen {
            value: 0,
            errno: 0,
            bytes: Vec::new(),
            flags: 0,
            broken_pipes: 0,
        };
        let done = |result: io::Result<()>| seen(result.map(|()| 0));
        let end = match op {
            Op::Bind(end)
            | Op::Listen(end, _)
            | Op::Connect(end)
            | Op::AcceptNothing(end, _)
            | Op::Send { end, .. }
            | Op::Receive { end, .. }
            | Op::SendFile(end, _)
            | Op::Splice(end, _)
            | Op::Shutdown(end, _)
            | Op::SetOption { end, .. }
            | Op::GetOption { end, .. }
            | Op::ReceiveWaiting { end, .. }
            | Op::Poll(end, _)
            | Op::Dup(end)
            | Op::Ioctl(end, _)
            | Op::Name { end, .. }
            | Op::Close(end) => *end,
            Op::Accept(_) => End::Listener,
        };
        let offset = self.sent[end as usize];
        let Some(sock) = self.sock(end)? else {
            return Ok(none);
        };
        let fd = sock.as_raw_fd();
        Ok(match op {
            Op::Bind(End::Client) => done(sock.bind(Host::A.address(kind, 0))),
            Op::Bind(_) => done(sock.bind(Host::B.address(kind, 0))),
            Op::Listen(_, backlog) => {
                let result = sock.listen(*backlog);
                let address = sock.local().ok();
                if end == End::Listener && result.is_ok() {
                    self.listener = address;
                }
                done(result)
            }
            Op::Connect(_) => {
                let result = sock.connect(to);
                if end == End::Client {
                    self.client = self.socks[0].as_ref().and_then(|sock| sock.local().ok());
                }
                done(result)
            }
            Op::Accept(flags) => {
                sock.await_events(libc::POLLIN).during("accept()")?;
                let accepted = sock.accept4(*flags);
                match accepted {
                    Ok(server) => {
                        let mut seen = none;
                        seen.flags = server.status_flags()?;
                        seen.value = server.descriptor_flags()?.into();
                        self.socks[End::Server as usize] = Some(server);
                        seen
                    }
                    Err(error) => seen(Err(error)),
                }
            }
            Op::AcceptNothing(_, flags) => {
                sock.set_nonblocking(true)?;
                let result = sock.accept4(*flags).map(drop);
                self.socks[end as usize]
                    .as_ref()
                    .map_or(Ok(()), |sock| sock.set_nonblocking(false))?;
                done(result)
            }
            Op::Send { parts, flags, .. } => {
                let total: usize = parts.iter().sum();
                let data = pattern(offset, total);
                // Urgent data waits until the peer's word comes back that it has read the last one.
                let end_of_patience = Instant::now() + PATIENCE;
                let result = loop {
                    let result = send(fd, &data, parts, flags | libc::MSG_DONTWAIT);
                    let busy =
                        matches!(&result, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
                    if !busy || flags & libc::MSG_OOB == 0 || Instant::now() > end_of_patience {
                        break result;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                };
                self.sent[end as usize] += *result.as_ref().unwrap_or(&0);
                seen(result.map(|count| count as i64))
            }
            Op::Receive { parts, flags, .. } => receive(fd, parts, flags | libc::MSG_DONTWAIT),
            Op::ReceiveWaiting { len, flags, .. } => {
                sock.set_nonblocking(false)?;
                sock.set_timeout(libc::SO_RCVTIMEO, Duration::from_millis(15))?;
                receive(fd, &[*len], *flags)
            }
            Op::Poll(_, events) => seen(sock.poll(*events, Duration::ZERO).map(i64::from)),
            Op::Dup(_) => {
                let second = sock.dup()?;
                self.socks[end as usize] = Some(second);
                none
            }
            Op::SendFile(_, len) => {
                let file = memory_file(&pattern(offset, *len))?;
                sock.set_nonblocking(true)?;
                // SAFETY: no pointers but a null one.
                let result = sys::cvt_size(unsafe {
                    libc::sendfile(fd, file.as_raw_fd(), std::ptr::null_mut(), *len)
                });
                sock.set_nonblocking(false)?;
                self.sent[end as usize] += *result.as_ref().unwrap_or(&0);
                seen(result.map(|count| count as i64))
            }
            Op::Splice(_, len) => {
                sock.set_nonblocking(true)?;
                let seen = splice(fd, *len)?;
                sock.set_nonblocking(false)?;
                seen
            }
            Op::Shutdown(_, how) => done(sock.shutdown(*how)),
            Op::SetOption {
                level, name, value, ..
            } => {
                // SAFETY: `value` is valid for its length.
                let result = sys::cvt(unsafe {
                    libc::setsockopt(
                        fd,
                        *level,
                        *name,
                        value.as_ptr().cast(),
                        value.len() as libc::socklen_t,
                    )
                });
                seen(result.map(i64::from))
            }
            Op::GetOption {
                level, name, room, ..
            } => {
                let mut value = vec![0; *room];
                let mut len = *room as libc::socklen_t;
                // SAFETY: `value` is valid for `len` bytes.
                let result = sys::cvt(unsafe {
                    libc::getsockopt(fd, *level, *name, value.as_mut_ptr().cast(), &raw mut len)
                });
                let mut seen = seen(result.map(|_| i64::from(len)));
                value.truncate(len as usize);
                seen.bytes = value;
                seen
            }
            Op::Ioctl(_, command) => {
                let mut value = 0i32;
                // SAFETY: all commands used here write one int.
                let result = sys::cvt(unsafe { libc::ioctl(fd, *command, &raw mut value) });
                let mut seen = seen(result.map(i64::from));
                seen.bytes = value.to_ne_bytes().to_vec();
                seen
            }
            Op::Name { peer, .. } => {
                let name = if *peer { sock.peer() } else { sock.local() };
                match name {
                    // The ports differ, but it must be the same side's.
                    Ok(name) => {
                        let mut seen = none;
                        let ends = [self.listener, self.client];
                        seen.value = ends
                            .iter()
                            .position(|end| end.is_some_and(|end| end == name))
                            .map_or(-1, |place| place as i64);
                        seen.bytes = name.ip().to_string().into_bytes();
                        seen.flags = i32::from(name.port() != 0);
                        seen
                    }
                    Err(error) => seen(Err(error)),
                }
            }
            Op::Close(_) => {
                self.socks[end as usize] = None;
                none
            }
        })
    }

    fn states(&self) -> Outcome<Vec<State>> {
        let mut states = Vec::new();
        for (end, sock) in End::ALL.into_iter().zip(&self.socks) {
            let Some(sock) = sock else {
                continue;
            };
            let fd = sock.as_raw_fd();
            let ask = |command| {
                let mut value = 0i32;
                // SAFETY: all commands used here write one int.
                match unsafe { libc::ioctl(fd, command, &raw mut value) } {
                    0 => value,
                    // SAFETY: the thread's own errno.
                    _ => -unsafe { *libc::__errno_location() },
                }
            };
            states.push(State {
                end,
                events: sock.poll(0x3fff, Duration::ZERO)?,
                readable: ask(libc::FIONREAD),
                queued: ask(libc::TIOCOUTQ),
                at_mark: ask(SIOCATMARK),
                connected: sock.peer().is_ok(),
            });
        }
        Ok(states)
    }

    /// The states once nothing is under way any more.
    pub fn settle(&self, calm: Duration) -> Outcome<Vec<State>> {
        let end = Instant::now() + Duration::from_secs(1);
        let mut before = self.states()?;
        loop {
            std::thread::sleep(calm);
            let now = self.states()?;
            // After a reset TCP shows for ever how much was under way; but it has no peer then.
            let under_way = now.iter().any(|state| state.queued > 0 && state.connected);
            if (now == before && !under_way) || Instant::now() > end {
                return Ok(now);
            }
            before = now;
        }
    }

    /// Waits for these states; what they are instead in the end.
    pub fn await_states(&self, wanted: &[State]) -> Outcome<Option<Vec<State>>> {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = self.states()?;
            let alike = |(now, wanted): (&State, &State)| now.is_like(wanted);
            if now.len() == wanted.len() && now.iter().zip(wanted).all(alike) {
                return Ok(None);
            }
            if Instant::now() > end {
                return Ok(Some(now));
            }
            std::thread::sleep(Duration::from_micros(300));
        }
    }
}

fn seen(result: io::Result<i64>) -> Seen {
    let (value, errno) = match result {
        Ok(value) => (value, 0),
        Err(error) => (-1, error.raw_os_error().unwrap_or(0)),
    };
    Seen {
        value,
        errno,
        bytes: Vec::new(),
        flags: 0,
        broken_pipes: 0,
    }
}

fn pattern(offset: usize, len: usize) -> Vec<u8> {
    (offset..offset + len)
        .map(|place| (place.wrapping_mul(167) ^ (place >> 8)) as u8)
        .collect()
}

fn vectors(data: &mut [u8], parts: &[usize]) -> Vec<libc::iovec> {
    let mut rest = data;
    parts
        .iter()
        .map(|&len| {
            let (part, after) = std::mem::take(&mut rest).split_at_mut(len);
            rest = after;
            libc::iovec {
                iov_base: part.as_mut_ptr().cast(),
                iov_len: len,
            }
        })
        .collect()
}

fn header(vectors: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: all zeroes is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = vectors.len();
    header
}

fn send(fd: i32, data: &[u8], parts: &[usize], flags: i32) -> io::Result<usize> {
    let mut data = data.to_vec();
    let mut vectors = vectors(&mut data, parts);
    let header = header(&mut vectors);
    // SAFETY: the header describes `data`.
    sys::cvt_size(unsafe { libc::sendmsg(fd, &raw const header, flags) })
}

fn receive(fd: i32, parts: &[usize], flags: i32) -> Seen {
    let mut data = vec![0; parts.iter().sum()];
    let mut vectors = vectors(&mut data, parts);
    let mut header = header(&mut vectors);
    // SAFETY: the header describes `data`.
    let result = sys::cvt_size(unsafe { libc::recvmsg(fd, &raw mut header, flags) });
    let count = *result.as_ref().unwrap_or(&0);
    let mut seen = seen(result.map(|count| count as i64));
    if seen.errno == 0 {
        seen.flags = header.msg_flags;
    }
    // What MSG_TRUNC throws away is not written.
    data.truncate(count);
    seen.bytes = data;
    seen
}

fn memory_file(data: &[u8]) -> io::Result<std::fs::File> {
    use std::io::{Seek, Write};
    // SAFETY: a constant C string.
    let fd = sys::cvt(unsafe { libc::memfd_create(c"script".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: a fresh descriptor that nobody else owns.
    let mut file = unsafe { std::fs::File::from_raw_fd(fd) };
    file.write_all(data)?;
    file.rewind()?;
    Ok(file)
}

fn splice(fd: i32, len: usize) -> Outcome<Seen> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    sys::cvt(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: fresh descriptors that nobody else owns.
    let (from, to) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    // SAFETY: no pointers but null ones.
    let result = sys::cvt_size(unsafe {
        libc::splice(
            fd,
            std::ptr::null_mut(),
            to.as_raw_fd(),
            std::ptr::null_mut(),
            len,
            libc::SPLICE_F_NONBLOCK,
        )
    });
    drop(to);
    let mut seen = seen(result.map(|count| count as i64));
    if seen.value > 0 {
        std::io::Read::read_to_end(&mut std::fs::File::from(from), &mut seen.bytes)?;
    }
    Ok(seen)
}
