//! Thin wrappers of the system calls that the tests are about.
//!
//! `std::net` hides what is to be tested (flags, short counts, errors) and knows no AF_SMC.

use crate::kind::{Host, Kind};
use std::io;
use std::mem::{size_of, zeroed, ManuallyDrop};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

pub fn cvt(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

pub fn cvt_size(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Moves the calling thread into a host's network namespace. Sockets stay where they were made.
pub fn enter(host: Host) -> io::Result<()> {
    enter_named(host.name())
}

/// Moves the calling thread into a namespace that `ip netns` made.
pub fn enter_named(name: &str) -> io::Result<()> {
    enter_path(&format!("/run/netns/{name}"))
}

/// Moves the calling thread back into the machine's first network namespace.
pub fn leave() -> io::Result<()> {
    enter_path("/proc/1/ns/net")
}

fn enter_path(path: &str) -> io::Result<()> {
    let file = std::fs::File::open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    // SAFETY: setns takes a descriptor, which is open here.
    cvt(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) })?;
    Ok(())
}

#[derive(Debug)]
pub struct Sock {
    fd: OwnedFd,
}

/// Memory full of zeroes that forked processes share; for good.
///
/// # Safety
///
/// All zeroes must be a valid `T`, and all of `T` atomics: other processes change it.
pub unsafe fn shared<T>() -> io::Result<&'static T> {
    // SAFETY: a new mapping at a place of the kernel's choice.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size_of::<T>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: mapped for its length at the beginning of a page, full of zeroes, and never unmapped; the rest is the caller's promise.
    Ok(unsafe { &*start.cast::<T>() })
}

impl From<OwnedFd> for Sock {
    fn from(fd: OwnedFd) -> Sock {
        Sock { fd }
    }
}

impl From<Sock> for OwnedFd {
    fn from(sock: Sock) -> OwnedFd {
        sock.fd
    }
}

impl AsRawFd for Sock {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

pub fn to_raw(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all zeroes is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let length = match address {
        SocketAddr::V4(v4) => {
            // SAFETY: sockaddr_storage is larger than and aligned for every sockaddr.
            let raw = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in>() };
            raw.sin_family = libc::AF_INET as u16;
            raw.sin_port = v4.port().to_be();
            raw.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            // SAFETY: as above.
            let raw = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in6>() };
            raw.sin6_family = libc::AF_INET6 as u16;
            raw.sin6_port = v6.port().to_be();
            raw.sin6_addr.s6_addr = v6.ip().octets();
            raw.sin6_scope_id = v6.scope_id();
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

pub fn from_raw(storage: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which sockaddr it is.
            let raw = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Ok(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let raw = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            Ok(SocketAddrV6::new(ip, port, 0, raw.sin6_scope_id).into())
        }
        family => Err(io::Error::other(format!(
            "an address of family {family} came back"
        ))),
    }
}

/// `setsockopt` of a plain integer or C struct.
pub fn set_option<T: Copy>(
    socket: &impl AsRawFd,
    level: i32,
    option: i32,
    value: T,
) -> io::Result<()> {
    // SAFETY: `value` is valid for its size; callers pass plain integers and C structs.
    cvt(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

impl Sock {
    /// socket(2) on a host; `flags` are SOCK_NONBLOCK and SOCK_CLOEXEC.
    pub fn new(host: Host, kind: Kind, flags: i32) -> io::Result<Sock> {
        enter(host)?;
        let (family, protocol) = kind.arguments();
        Sock::raw(family, libc::SOCK_STREAM | flags, protocol)
    }

    pub fn raw(family: i32, kind: i32, protocol: i32) -> io::Result<Sock> {
        // SAFETY: no pointers.
        let fd = cvt(unsafe { libc::socket(family, kind, protocol) })?;
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Sock { fd })
    }

    pub fn bind(&self, address: SocketAddr) -> io::Result<()> {
        let (raw, length) = to_raw(address);
        // SAFETY: `raw` is valid for `length` bytes.
        cvt(unsafe { libc::bind(self.as_raw_fd(), (&raw const raw).cast(), length) })?;
        Ok(())
    }

    pub fn listen(&self, backlog: i32) -> io::Result<()> {
        // SAFETY: no pointers.
        cvt(unsafe { libc::listen(self.as_raw_fd(), backlog) })?;
        Ok(())
    }

    pub fn connect(&self, address: SocketAddr) -> io::Result<()> {
        let (raw, length) = to_raw(address);
        // SAFETY: `raw` is valid for `length` bytes.
        cvt(unsafe { libc::connect(self.as_raw_fd(), (&raw const raw).cast(), length) })?;
        Ok(())
    }

    /// connect(2) to nowhere (AF_UNSPEC), which dissolves a connection of TCP.
    pub fn disconnect(&self) -> io::Result<()> {
        // SAFETY: all zeroes is a valid sockaddr, whose family is AF_UNSPEC.
        let nowhere: libc::sockaddr = unsafe { zeroed() };
        let length = size_of::<libc::sockaddr>() as libc::socklen_t;
        // SAFETY: `nowhere` is valid for `length` bytes.
        cvt(unsafe { libc::connect(self.as_raw_fd(), &raw const nowhere, length) })?;
        Ok(())
    }

    pub fn accept(&self) -> io::Result<Sock> {
        self.accept4(0)
    }

    pub fn accept4(&self, flags: i32) -> io::Result<Sock> {
        Ok(self.accept_from(flags)?.0)
    }

    /// The server's end of a client that is connected; `None` if its server has let it go instead. A client that has nothing
    /// to say hears of that only when it asks.
    pub fn accept_of(&self, client: &Sock) -> io::Result<Option<Sock>> {
        let begin = Instant::now();
        let mut asks = false;
        loop {
            if self.poll(libc::POLLIN, Duration::from_millis(200))? != 0 {
                return self.accept4(libc::SOCK_CLOEXEC).map(Some);
            }
            if client.poll(libc::POLLIN, Duration::ZERO)? != 0 {
                return Ok(None);
            }
            if !asks && begin.elapsed() > Duration::from_secs(4) {
                client.keep_alive()?;
                asks = true;
            }
            if begin.elapsed() > PATIENCE {
                return Err(io::Error::other("connect() is done, and accept() never"));
            }
        }
    }

    /// TCP's own questions whether the other end is there, after some seconds of silence.
    pub fn keep_alive(&self) -> io::Result<()> {
        for (option, value) in [
            (libc::TCP_KEEPIDLE, 4),
            (libc::TCP_KEEPINTVL, 2),
            (libc::TCP_KEEPCNT, 8),
        ] {
            self.set(libc::IPPROTO_TCP, option, value)?;
        }
        self.set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)
    }

    pub fn accept_from(&self, flags: i32) -> io::Result<(Sock, SocketAddr)> {
        // SAFETY: all zeroes is a valid sockaddr_storage.
        let mut raw: libc::sockaddr_storage = unsafe { zeroed() };
        let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        // SAFETY: `raw` is valid for `length` bytes.
        let fd = cvt(unsafe {
            libc::accept4(
                self.as_raw_fd(),
                (&raw mut raw).cast(),
                &raw mut length,
                flags,
            )
        })?;
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok((Sock { fd }, from_raw(&raw)?))
    }

    pub fn send(&self, data: &[u8], flags: i32) -> io::Result<usize> {
        // SAFETY: `data` is valid for its length.
        cvt_size(unsafe { libc::send(self.as_raw_fd(), data.as_ptr().cast(), data.len(), flags) })
    }

    pub fn recv(&self, data: &mut [u8], flags: i32) -> io::Result<usize> {
        // SAFETY: `data` is valid for its length.
        cvt_size(unsafe {
            libc::recv(
                self.as_raw_fd(),
                data.as_mut_ptr().cast(),
                data.len(),
                flags,
            )
        })
    }

    pub fn write(&self, data: &[u8]) -> io::Result<usize> {
        // SAFETY: `data` is valid for its length.
        cvt_size(unsafe { libc::write(self.as_raw_fd(), data.as_ptr().cast(), data.len()) })
    }

    pub fn read(&self, data: &mut [u8]) -> io::Result<usize> {
        // SAFETY: `data` is valid for its length.
        cvt_size(unsafe { libc::read(self.as_raw_fd(), data.as_mut_ptr().cast(), data.len()) })
    }

    pub fn writev(&self, parts: &[&[u8]]) -> io::Result<usize> {
        let vectors: Vec<libc::iovec> = parts
            .iter()
            .map(|part| libc::iovec {
                iov_base: part.as_ptr().cast_mut().cast(),
                iov_len: part.len(),
            })
            .collect();
        // SAFETY: every vector is a live slice; writev only reads them.
        cvt_size(unsafe { libc::writev(self.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32) })
    }

    pub fn readv(&self, parts: &mut [&mut [u8]]) -> io::Result<usize> {
        let vectors: Vec<libc::iovec> = parts
            .iter_mut()
            .map(|part| libc::iovec {
                iov_base: part.as_mut_ptr().cast(),
                iov_len: part.len(),
            })
            .collect();
        // SAFETY: every vector is a live mutable slice.
        cvt_size(unsafe { libc::readv(self.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32) })
    }

    /// Sends everything, on a blocking socket.
    pub fn send_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let sent = self.send(data, libc::MSG_NOSIGNAL)?;
            data = &data[sent..];
        }
        Ok(())
    }

    /// Receives exactly as much as fits, on a blocking socket.
    pub fn recv_all(&self, data: &mut [u8]) -> io::Result<()> {
        let mut have = 0;
        while have < data.len() {
            match self.recv(&mut data[have..], 0)? {
                0 => {
                    return Err(io::Error::other(format!(
                        "end of stream after {have} of {} bytes",
                        data.len()
                    )))
                }
                got => have += got,
            }
        }
        Ok(())
    }

    /// Receives until the end of the stream, on a blocking socket.
    pub fn recv_to_end(&self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut part = vec![0; 65536];
        loop {
            match self.recv(&mut part, 0)? {
                0 => return Ok(all),
                got => all.extend_from_slice(&part[..got]),
            }
        }
    }

    pub fn shutdown(&self, how: i32) -> io::Result<()> {
        // SAFETY: no pointers.
        cvt(unsafe { libc::shutdown(self.as_raw_fd(), how) })?;
        Ok(())
    }

    pub fn local(&self) -> io::Result<SocketAddr> {
        self.name(libc::getsockname)
    }

    pub fn peer(&self) -> io::Result<SocketAddr> {
        self.name(libc::getpeername)
    }

    fn name(
        &self,
        call: unsafe extern "C" fn(i32, *mut libc::sockaddr, *mut libc::socklen_t) -> i32,
    ) -> io::Result<SocketAddr> {
        // SAFETY: all zeroes is a valid sockaddr_storage.
        let mut raw: libc::sockaddr_storage = unsafe { zeroed() };
        let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        // SAFETY: `raw` is valid for `length` bytes.
        cvt(unsafe { call(self.as_raw_fd(), (&raw mut raw).cast(), &raw mut length) })?;
        from_raw(&raw)
    }

    pub fn set<T: Copy>(&self, level: i32, option: i32, value: T) -> io::Result<()> {
        set_option(self, level, option, value)
    }

    pub fn get(&self, level: i32, option: i32) -> io::Result<i32> {
        let mut value = 0i32;
        let mut length = size_of::<i32>() as libc::socklen_t;
        // SAFETY: `value` is valid for `length` bytes.
        cvt(unsafe {
            libc::getsockopt(
                self.as_raw_fd(),
                level,
                option,
                (&raw mut value).cast(),
                &raw mut length,
            )
        })?;
        Ok(value)
    }

    /// The pending error (SO_ERROR), which reading clears.
    pub fn error(&self) -> io::Result<i32> {
        self.get(libc::SOL_SOCKET, libc::SO_ERROR)
    }

    pub fn set_linger(&self, seconds: Option<i32>) -> io::Result<()> {
        let linger = libc::linger {
            l_onoff: i32::from(seconds.is_some()),
            l_linger: seconds.unwrap_or(0),
        };
        self.set(libc::SOL_SOCKET, libc::SO_LINGER, linger)
    }

    /// How long calls may wait: SO_RCVTIMEO or SO_SNDTIMEO.
    pub fn set_timeout(&self, option: i32, limit: Duration) -> io::Result<()> {
        let time = libc::timeval {
            tv_sec: limit.as_secs() as i64,
            tv_usec: limit.subsec_micros().into(),
        };
        self.set(libc::SOL_SOCKET, option, time)
    }

    /// Both of them, so that no call hangs.
    pub fn set_timeouts(&self, limit: Duration) -> io::Result<()> {
        self.set_timeout(libc::SO_RCVTIMEO, limit)?;
        self.set_timeout(libc::SO_SNDTIMEO, limit)
    }

    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        // SAFETY: no pointers.
        let flags = cvt(unsafe { libc::fcntl(self.as_raw_fd(), libc::F_GETFL) })?;
        let flags = if on {
            flags | libc::O_NONBLOCK
        } else {
            flags & !libc::O_NONBLOCK
        };
        // SAFETY: no pointers.
        cvt(unsafe { libc::fcntl(self.as_raw_fd(), libc::F_SETFL, flags) })?;
        Ok(())
    }

    pub fn status_flags(&self) -> io::Result<i32> {
        // SAFETY: no pointers.
        cvt(unsafe { libc::fcntl(self.as_raw_fd(), libc::F_GETFL) })
    }

    pub fn descriptor_flags(&self) -> io::Result<i32> {
        // SAFETY: no pointers.
        cvt(unsafe { libc::fcntl(self.as_raw_fd(), libc::F_GETFD) })
    }

    /// How many bytes can be read at once (FIONREAD).
    pub fn readable_bytes(&self) -> io::Result<usize> {
        let mut count = 0i32;
        // SAFETY: FIONREAD writes an int.
        cvt(unsafe { libc::ioctl(self.as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
        Ok(count as usize)
    }

    /// SIOCOUTQNSD: bytes that were written and not sent yet.
    pub fn unsent_bytes(&self) -> io::Result<usize> {
        self.outgoing(0x894b)
    }

    /// SIOCOUTQ: bytes that were written and that the peer has not acknowledged; of TCP also its FIN.
    pub fn unacknowledged_bytes(&self) -> io::Result<usize> {
        self.outgoing(libc::TIOCOUTQ)
    }

    fn outgoing(&self, request: libc::c_ulong) -> io::Result<usize> {
        let mut count: libc::c_int = 0;
        // SAFETY: the call writes an int.
        cvt(unsafe { libc::ioctl(self.as_raw_fd(), request, &mut count) })?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// The inode number, by which sock_diag knows the socket.
    pub fn inode(&self) -> io::Result<u64> {
        // SAFETY: all zeroes is a valid stat.
        let mut stat: libc::stat = unsafe { zeroed() };
        // SAFETY: `stat` is a live stat.
        cvt(unsafe { libc::fstat(self.as_raw_fd(), &raw mut stat) })?;
        Ok(stat.st_ino)
    }

    /// The same descriptor once more, which this one does not close: to be in a call on it when the
    /// other one is closed.
    pub fn alias(&self) -> ManuallyDrop<Sock> {
        // SAFETY: the descriptor is open here, and is not closed by what never drops.
        let fd = unsafe { OwnedFd::from_raw_fd(self.as_raw_fd()) };
        ManuallyDrop::new(Sock { fd })
    }

    pub fn dup(&self) -> io::Result<Sock> {
        Ok(Sock {
            fd: self.fd.try_clone()?,
        })
    }

    /// Waits for events; the returned ones are 0 after the time.
    pub fn poll(&self, events: i16, limit: Duration) -> io::Result<i16> {
        let mut entry = libc::pollfd {
            fd: self.as_raw_fd(),
            events,
            revents: 0,
        };
        // SAFETY: one live pollfd.
        cvt(unsafe { libc::poll(&raw mut entry, 1, limit.as_millis() as i32) })?;
        Ok(entry.revents)
    }

    /// Waits until all of `events` are reported together; fails after a generous time.
    pub fn await_events(&self, events: i16) -> io::Result<i16> {
        let end = Instant::now() + PATIENCE;
        loop {
            let got = self.poll(events, Duration::from_millis(200))?;
            if got & events == events {
                return Ok(got);
            }
            if Instant::now() > end {
                return Err(io::Error::other(format!(
                    "poll reports {got:#x}, never {events:#x}"
                )));
            }
            // Some of the events may be level-triggered already: do not spin.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// How long anything may take that is to happen "soon". The machine is emulated and its host may
/// be busy: this only ends a hang, it measures nothing.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until what `look` sees does not change any more and every entry's flag is set.
pub fn settled<T: PartialEq>(
    what: &str,
    mut look: impl FnMut() -> io::Result<Vec<(T, bool)>>,
) -> io::Result<Vec<(T, bool)>> {
    let mut last = Vec::new();
    eventually(what, || {
        let now = look()?;
        let settled = now == last && now.iter().all(|(_, set)| *set);
        last = now;
        Ok(settled)
    })?;
    Ok(last)
}

/// Polls a condition until it holds; fails after [`PATIENCE`].
pub fn eventually(what: &str, mut condition: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    within(what, PATIENCE, &mut condition)
}

pub fn within(
    what: &str,
    limit: Duration,
    condition: &mut dyn FnMut() -> io::Result<bool>,
) -> io::Result<()> {
    let end = Instant::now() + limit;
    loop {
        if condition()? {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(io::Error::other(format!(
                "still not after {} s: {what}",
                limit.as_secs()
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub struct Epoll {
    fd: OwnedFd,
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: no pointers.
        let fd = cvt(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Epoll { fd })
    }

    pub fn add(&self, sock: &impl AsRawFd, events: i32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, sock, events, token)
    }

    pub fn modify(&self, sock: &impl AsRawFd, events: i32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, sock, events, token)
    }

    pub fn remove(&self, sock: &impl AsRawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, sock, 0, 0)
    }

    fn control(
        &self,
        operation: i32,
        sock: &impl AsRawFd,
        events: i32,
        token: u64,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: token,
        };
        // SAFETY: `event` is live.
        cvt(unsafe {
            libc::epoll_ctl(
                self.fd.as_raw_fd(),
                operation,
                sock.as_raw_fd(),
                &raw mut event,
            )
        })?;
        Ok(())
    }

    /// (token, events) of what is ready within the time.
    pub fn wait(&self, limit: Duration) -> io::Result<Vec<(u64, i32)>> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
        // SAFETY: `events` is live and as long as said.
        let count = cvt(unsafe {
            libc::epoll_wait(
                self.fd.as_raw_fd(),
                events.as_mut_ptr(),
                events.len() as i32,
                limit.as_millis() as i32,
            )
        })?;
        Ok(events[..count as usize]
            .iter()
            .map(|event| (event.u64, event.events as i32))
            .collect())
    }
}

/// A forked process; killed and reaped when dropped.
pub struct Child {
    pub pid: i32,
    reaped: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Exit(i32),
    Signal(i32),
}

impl Child {
    /// Runs a body in a forked process, whose exit code is 0 if the body succeeded.
    ///
    /// Only to be called while the process has one thread.
    pub fn fork(body: impl FnOnce() -> crate::Outcome) -> io::Result<Child> {
        // SAFETY: the process has one thread, so the child may use everything.
        let pid = cvt(unsafe { libc::fork() })?;
        if pid == 0 {
            let code = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
                Ok(Ok(())) => 0,
                Ok(Err(failure)) => {
                    eprintln!("# in process {}: {failure}", std::process::id());
                    1
                }
                Err(_) => 101,
            };
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(code) };
        }
        Ok(Child { pid, reaped: false })
    }

    pub fn kill(&self, signal: i32) -> io::Result<()> {
        // SAFETY: no pointers; the pid is our own child, not reaped yet.
        cvt(unsafe { libc::kill(self.pid, signal) })?;
        Ok(())
    }

    pub fn try_wait(&mut self) -> io::Result<Option<Ended>> {
        let mut status = 0;
        // SAFETY: `status` is live.
        let pid = cvt(unsafe { libc::waitpid(self.pid, &raw mut status, libc::WNOHANG) })?;
        if pid == 0 {
            return Ok(None);
        }
        self.reaped = true;
        Ok(Some(if libc::WIFSIGNALED(status) {
            Ended::Signal(libc::WTERMSIG(status))
        } else {
            Ended::Exit(libc::WEXITSTATUS(status))
        }))
    }

    pub fn wait(&mut self) -> io::Result<Ended> {
        loop {
            let mut status = 0;
            // SAFETY: `status` is live.
            match cvt(unsafe { libc::waitpid(self.pid, &raw mut status, 0) }) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    self.reaped = true;
                    return Ok(if libc::WIFSIGNALED(status) {
                        Ended::Signal(libc::WTERMSIG(status))
                    } else {
                        Ended::Exit(libc::WEXITSTATUS(status))
                    });
                }
            }
        }
    }

    /// Waits and fails unless the process ended well.
    pub fn join(&mut self, who: &str) -> crate::Outcome {
        match self.wait()? {
            Ended::Exit(0) => Ok(()),
            ended => Err(crate::Fail(format!("the {who} process failed ({ended:?})"))),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            // Nothing useful can be done with errors here.
            let _ = self.kill(libc::SIGKILL);
            let _ = self.wait();
        }
    }
}

pub fn write_file(path: &str, text: &str) -> io::Result<()> {
    std::fs::write(path, text)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

pub fn read_file(path: &str) -> io::Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

/// A pipe: where to read, and where to write.
pub fn pipe() -> io::Result<(std::fs::File, std::fs::File)> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    cvt(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: two fresh descriptors that nobody else owns.
    Ok(unsafe {
        (
            std::fs::File::from_raw_fd(ends[0]),
            std::fs::File::from_raw_fd(ends[1]),
        )
    })
}
