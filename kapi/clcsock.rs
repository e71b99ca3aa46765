// SPDX-License-Identifier: GPL-2.0

//! The internal kernel TCP socket.
//!
//! Every SMC socket owns one: the TCP connection that the handshake runs over and that carries the
//! data after a fallback.

use super::tcp_option;
use crate::bindings;
use crate::kapi::prelude::*;
use core::{
    mem::MaybeUninit,
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    error::{
        to_result,
        Error,
        Result, //
    },
    ffi::{
        c_int,
        c_long,
        c_void, //
    },
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};

/// `SOCK_STREAM`, whose C definition is an enumerator on most architectures.
pub(super) const SOCK_STREAM: c_int = 1;

/// TCP states of a clcsock that callers distinguish (`include/net/tcp_states.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TcpState {
    /// The three-way handshake is under way.
    Connecting,
    /// Data can flow at least in one direction.
    Connected,
    /// Listening.
    Listening,
    /// Closed, or closing with nothing left to do.
    Closed,
}

/// What a route leads to first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextHop {
    /// The other end.
    Peer,
    /// A gateway with this Ethernet address.
    Gateway([u8; 6]),
    /// A gateway whose address is not known, or there is no route at the moment.
    Unknown,
}

/// Whose name: as C's `getname` has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NameOf {
    /// Own.
    Own = 0,
    /// The peer's, of a connection that is there.
    Peer = 1,
    /// The peer's, also when the connection has ended: what `accept` and `SO_PEERNAME` tell.
    FormerPeer = 2,
}

/// How a TCP connection has ended, as far as the peer goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// The peer sends no more (FIN).
    Finished,
    /// Nothing goes either way any more: reset, timed out, or closed by both.
    Broken,
}

/// What a socket asks of the way that its packets take: `SO_BINDTOIFINDEX` and `SO_MARK`.
#[derive(Clone, Copy)]
pub(crate) struct Route {
    /// Index of the device; 0 for any.
    pub(super) device: c_int,
    /// The mark.
    pub(super) mark: u32,
}

/// Options of TCP that mean something for data that TCP does not carry, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StreamOptions {
    /// `TCP_NODELAY`: small writes go out at once.
    pub(crate) nodelay: bool,
    /// `TCP_CORK`: they wait for more.
    pub(crate) corked: bool,
    /// `TCP_USER_TIMEOUT` in milliseconds; 0 is none.
    pub(crate) user_timeout: u32,
    /// `TCP_INQ`: each read tells how much is left.
    pub(crate) tells_inq: bool,
}

/// A socket address as the user passed it, or as it is handed back.
///
/// # Invariants
///
/// `len <= size_of::<sockaddr_storage>()`, and the first `len` bytes are initialised.
#[derive(Clone, Copy)]
pub(crate) struct SockAddr {
    storage: bindings::__kernel_sockaddr_storage,
    len: usize,
}

// SAFETY: These are plain bytes; the pointer in them is only there for its alignment.
unsafe impl Send for SockAddr {}
// SAFETY: As above.
unsafe impl Sync for SockAddr {}

impl SockAddr {
    /// Copies a socket address of `len` bytes from kernel memory.
    ///
    /// # Safety
    ///
    /// `addr` must be valid for reading `len` bytes.
    pub(crate) unsafe fn from_raw(addr: *const c_void, len: c_int) -> Result<Self> {
        let len = usize::try_from(len).map_err(|_| EINVAL)?;
        if len > size_of::<bindings::__kernel_sockaddr_storage>() || len < size_of::<u16>() {
            return Err(EINVAL);
        }
        // SAFETY: `sockaddr_storage` is plain old data, for which all zeroes is valid.
        let mut storage: bindings::__kernel_sockaddr_storage =
            unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: The caller guarantees `len` readable bytes, and `storage` holds at least `len`.
        unsafe {
            ptr::copy_nonoverlapping(addr.cast::<u8>(), (&raw mut storage).cast::<u8>(), len)
        };
        // INVARIANT: `len` was checked above.
        Ok(Self { storage, len })
    }

    /// An empty address.
    pub(crate) fn zeroed() -> Self {
        Self {
            // SAFETY: `sockaddr_storage` is plain old data, for which all zeroes is valid.
            storage: unsafe { MaybeUninit::zeroed().assume_init() },
            // INVARIANT: Zero is small enough.
            len: 0,
        }
    }

    /// The address family (`AF_*`).
    pub(crate) fn family(&self) -> u16 {
        // SAFETY: Every `sockaddr` starts with its family, and `storage` is fully initialised.
        unsafe { *(&raw const self.storage).cast::<u16>() }
    }

    /// The whole storage as bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `storage` is plain old data without uninitialised bytes.
        unsafe {
            core::slice::from_raw_parts(
                (&raw const self.storage).cast::<u8>(),
                size_of::<bindings::__kernel_sockaddr_storage>(),
            )
        }
    }

    /// The IPv4 address in it: `AF_INET`, or a v4-mapped `AF_INET6` address.
    pub(crate) fn ipv4(&self) -> Option<[u8; 4]> {
        let bytes = self.bytes();
        match i32::from(self.family()) {
            // `struct sockaddr_in`: family, port, address.
            2 => bytes.get(4..8)?.try_into().ok(),
            // `struct sockaddr_in6`: family, port, flowinfo, address.
            10 => {
                let (prefix, v4) = bytes.get(8..24)?.split_at_checked(12)?;
                if prefix == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff] {
                    v4.try_into().ok()
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    fn as_mut_ptr(&mut self) -> *mut bindings::sockaddr_unsized {
        (&raw mut self.storage).cast()
    }

    /// Writes the address to `out` and returns its length.
    ///
    /// # Safety
    ///
    /// `out` must be valid for writing a whole `sockaddr_storage`.
    pub(crate) unsafe fn write_to(&self, out: *mut c_void) -> usize {
        // SAFETY: The caller guarantees room for the whole storage; `len` is at most that.
        unsafe {
            ptr::copy_nonoverlapping((&raw const self.storage).cast::<u8>(), out.cast(), self.len)
        };
        self.len
    }
}

/// Addresses and ports of a TCP socket, as `sock_diag` shows them.
pub(crate) struct Addresses {
    /// Own port.
    pub(crate) port: u16,
    /// The peer's port; 0 without a peer.
    pub(crate) peer_port: u16,
    /// Own address; one of IPv4 takes the first four bytes.
    pub(crate) addr: [u8; 16],
    /// The peer's address.
    pub(crate) peer_addr: [u8; 16],
    /// Index of the device that the socket is bound to; 0 if it is not.
    pub(crate) ifindex: u32,
}

/// An internal kernel TCP socket; dropping it releases the socket.
///
/// Must be dropped in process context.
///
/// # Invariants
///
/// `raw` is a socket that this object owns, with a TCP `sk`, until drop. `aside` is null, or a queue that
/// is freed with this object. The `sk` wakes that one or the one of `raw`.
pub(crate) struct ClcSock {
    raw: NonNull<bindings::socket>,
    slot: tcp_option::Slot,
    aside: Atomic<*mut bindings::socket_wq>,
    /// The user's file leads to it, so that it ends as a TCP socket does.
    of_user: Atomic<bool>,
}

// SAFETY: A `struct socket` may be used and released from any thread.
unsafe impl Send for ClcSock {}
// SAFETY: All operations below take the socket's own lock, or are single loads and stores.
unsafe impl Sync for ClcSock {}

impl ClcSock {
    /// Makes an unconnected TCP socket of address family `family` in the namespace of `sk`.
    ///
    /// # Safety
    ///
    /// `net` must be a live namespace.
    pub(crate) unsafe fn create(net: *mut bindings::net, family: c_int) -> Result<Self> {
        let mut raw: *mut bindings::socket = ptr::null_mut();
        // SAFETY: `net` is alive per this function's contract; `raw` is a valid place for the
        // result.
        to_result(unsafe {
            bindings::sock_create_kern(
                net,
                family,
                SOCK_STREAM,
                bindings::IPPROTO_TCP as c_int,
                &mut raw,
            )
        })?;
        let raw = NonNull::new(raw).ok_or(ENOMEM)?;
        // SAFETY: A socket that was just made has a `sk`. TCP timers may outlive the SMC socket,
        // so the TCP socket needs a reference to its namespace of its own.
        unsafe { bindings::sk_net_refcnt_upgrade((*raw.as_ptr()).sk) };
        // SAFETY: `sock_create_kern` gave us ownership.
        Ok(unsafe { Self::own(raw) })
    }

    /// Takes a socket over.
    ///
    /// # Safety
    ///
    /// `raw` must be a socket with a TCP `sk` that the caller owns.
    unsafe fn own(raw: NonNull<bindings::socket>) -> Self {
        // INVARIANT: Per this function's contract; a `sk` wakes the queue of its socket at first.
        Self {
            raw,
            slot: tcp_option::Slot::new(),
            aside: Atomic::new(ptr::null_mut()),
            of_user: Atomic::new(false),
        }
    }

    /// The raw socket, for code in `kapi/`.
    pub(crate) fn as_ptr(&self) -> *mut bindings::socket {
        self.raw.as_ptr()
    }

    /// The raw `struct sock` of the TCP connection.
    pub(crate) fn sk(&self) -> *mut bindings::sock {
        // SAFETY: By the type invariants the socket is alive and has a `sk`.
        unsafe { (*self.as_ptr()).sk }
    }

    /// What keeps the rendezvous going.
    pub(super) fn slot(&self) -> &tcp_option::Slot {
        &self.slot
    }

    pub(crate) fn ops(&self) -> &bindings::proto_ops {
        // SAFETY: The `ops` pointer of a live socket points to an operations table that lives as
        // long as the module that owns it, which the socket pins. It may be exchanged
        // concurrently, hence the volatile load.
        unsafe { &*ptr::read_volatile(&raw const (*self.as_ptr()).ops) }
    }

    /// Binds to `addr`.
    pub(crate) fn bind(&self, mut addr: SockAddr) -> Result {
        // SAFETY: `addr` is a valid address of the given length.
        to_result(unsafe {
            bindings::kernel_bind(self.as_ptr(), addr.as_mut_ptr(), addr.len as c_int)
        })
    }

    /// The queue of the socket itself, where those wait who ask it through a file.
    pub(super) fn front(&self) -> *mut bindings::socket_wq {
        // SAFETY: The socket is alive; this only takes the address of its embedded queue.
        unsafe { &raw mut (*self.as_ptr()).wq }
    }

    /// Has the socket wake a queue aside from now on, where [`super::watch::Watch`]es are, instead of its
    /// own, where users of an SMC socket wait ([`super::sock::Sock::share_queue`]) whom its events do not
    /// concern. May sleep.
    ///
    /// Nobody may sleep in a call of this socket meanwhile, who would leave the wrong queue. Not to be
    /// called at the same time as [`Self::wake_front`].
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn wake_aside(&self) -> Result {
        let mut aside = self.aside.load(Relaxed);
        if aside.is_null() {
            // SAFETY: This is process context.
            aside = unsafe { bindings::new_queue() };
            if aside.is_null() {
                return Err(ENOMEM);
            }
            // INVARIANT: `drop` frees it.
            self.aside.store(aside, Relaxed);
        }
        // SAFETY: The queue is there until drop, which closes the `sk` first.
        unsafe { bindings::sk_set_queue(self.sk(), aside) };
        Ok(())
    }

    /// Has the socket wake its own queue again, with the same conditions as [`Self::wake_aside`]. The
    /// caller tells those who wait there of what has happened until now.
    pub(crate) fn wake_front(&self) {
        // SAFETY: The queue is part of the socket.
        unsafe { bindings::sk_set_queue(self.sk(), self.front()) };
    }

    /// From now on it is the user's, after a fallback: `SO_LINGER` makes who closes it wait.
    pub(crate) fn set_of_user(&self) {
        self.of_user.store(true, Relaxed);
    }

    /// Has the program set an IPsec policy of the socket's own?
    pub(crate) fn has_ipsec_policy(&self) -> bool {
        // SAFETY: The `sk` is valid.
        unsafe { bindings::sk_has_policy(self.sk()) }
    }

    /// The queue that the socket wakes.
    pub(super) fn queue(&self) -> *mut bindings::wait_queue_head {
        // SAFETY: By the type invariants it is there as long as this object.
        unsafe { &raw mut (*bindings::sk_queue(self.sk())).wait }
    }

    /// Notes that the user was told that the connection is established: `connect` would tell it
    /// again otherwise.
    pub(crate) fn set_connected(&self) {
        // SAFETY: The socket is alive; its lock covers the state.
        unsafe {
            bindings::lock_sock_nested(self.sk(), 0);
            if (*self.as_ptr()).state == bindings::socket_state_SS_CONNECTING {
                (*self.as_ptr()).state = bindings::socket_state_SS_CONNECTED;
            }
            bindings::release_sock(self.sk());
        }
    }

    /// Makes the socket one that can be connected, whatever has become of its connection. May sleep.
    pub(crate) fn disconnect(&self) -> Result {
        tcp_option::disconnect(self)
    }

    /// Starts to listen, or changes the backlog.
    pub(crate) fn listen(&self, backlog: c_int) -> Result {
        // SAFETY: The socket is alive by the type invariants.
        to_result(unsafe { bindings::kernel_listen(self.as_ptr(), backlog) })
    }

    /// Takes a connection from the queue of a listening socket; `EAGAIN` when there is none.
    pub(crate) fn accept(&self) -> Result<Self> {
        let mut raw: *mut bindings::socket = ptr::null_mut();
        // SAFETY: The socket is alive; `raw` is a valid place for the result.
        to_result(unsafe {
            bindings::kernel_accept(self.as_ptr(), &mut raw, bindings::SOCK_NONBLOCK as c_int)
        })?;
        let raw = NonNull::new(raw).ok_or(ENOMEM)?;
        // A thread of the kernel accepts it, for whom the listener belongs to.
        // SAFETY: Both sockets have a `sk`; the new one is nobody else's yet.
        unsafe { (*(*raw.as_ptr()).sk).sk_uid = (*self.sk()).sk_uid };
        // SAFETY: `kernel_accept` gave us ownership of a connected socket.
        Ok(unsafe { Self::own(raw) })
    }

    /// The `EPOLL*` bits that are true now; nobody is woken later.
    pub(crate) fn events(&self) -> u32 {
        match self.ops().poll {
            // SAFETY: The socket is alive. TCP uses the file for a poll table only, of which there is none.
            Some(poll) => unsafe { poll(ptr::null_mut(), self.as_ptr(), ptr::null_mut()) },
            None => 0,
        }
    }

    /// Does a connection wait for [`Self::accept`]?
    pub(crate) fn has_pending_accept(&self) -> bool {
        self.events() & bindings::EPOLLIN != 0
    }

    /// Own address, or the peer's.
    pub(crate) fn name(&self, of: NameOf) -> Result<SockAddr> {
        let mut addr = SockAddr::zeroed();
        let getname = self.ops().getname.ok_or(EOPNOTSUPP)?;
        // SAFETY: `addr` has room for any socket address; the socket is alive.
        let len = unsafe { getname(self.as_ptr(), addr.as_mut_ptr().cast(), of as c_int) };
        // INVARIANT: `getname` never returns more than the storage holds; clamped all the same.
        addr.len = usize::try_from(len)
            .map_err(|_| Error::from_errno(len))?
            .min(size_of::<bindings::__kernel_sockaddr_storage>());
        Ok(addr)
    }

    /// By which device it sends, and with which mark. Any context.
    pub(super) fn route(&self) -> Route {
        let sk = self.sk();
        // SAFETY: The `sk` is valid; plain words that may change concurrently.
        unsafe {
            Route {
                device: ptr::read_volatile(&raw const (*sk).__sk_common.skc_bound_dev_if),
                mark: ptr::read_volatile(&raw const (*sk).sk_mark),
            }
        }
    }

    /// Own addresses and the peer's. Any context; while the connection is being made, some may be
    /// known and others not yet.
    pub(crate) fn addresses(&self) -> Addresses {
        let mut all = Addresses {
            port: 0,
            peer_port: 0,
            addr: [0; 16],
            peer_addr: [0; 16],
            ifindex: 0,
        };
        // SAFETY: The `sk` is valid, and the family says which addresses it has. They are plain words
        // that `connect` and `bind` may change concurrently.
        unsafe {
            let common = &raw const (*self.sk()).__sk_common;
            let ports = ptr::read_volatile(&raw const (*common).__bindgen_anon_3.__bindgen_anon_1);
            all.port = ports.skc_num;
            all.peer_port = u16::from_be(ports.skc_dport);
            all.ifindex = ptr::read_volatile(&raw const (*common).skc_bound_dev_if) as u32;
            if c_int::from((*common).skc_family) == bindings::AF_INET6 as c_int {
                all.addr = ptr::read_volatile((&raw const (*common).skc_v6_rcv_saddr).cast());
                all.peer_addr = ptr::read_volatile((&raw const (*common).skc_v6_daddr).cast());
            } else {
                let pair =
                    ptr::read_volatile(&raw const (*common).__bindgen_anon_1.__bindgen_anon_1);
                let put = |to: &mut [u8; 16], word: u32| {
                    for (to, from) in to.iter_mut().zip(word.to_ne_bytes()) {
                        *to = from;
                    }
                };
                put(&mut all.addr, pair.skc_rcv_saddr);
                put(&mut all.peer_addr, pair.skc_daddr);
            }
        }
        all
    }

    /// Shuts down one or both directions (`SHUT_RD`, `SHUT_WR`, `SHUT_RDWR`).
    pub(crate) fn shutdown(&self, how: u32) -> Result {
        // SAFETY: The socket is alive by the type invariants.
        to_result(unsafe { bindings::kernel_sock_shutdown(self.as_ptr(), how) })
    }

    /// Resets the TCP connection; `err` is what the socket reports.
    pub(crate) fn abort(&self, err: Error) {
        // SAFETY: The `sk` of a live socket is valid; `tcp_abort` takes its lock.
        unsafe { bindings::tcp_abort(self.sk(), -err.to_errno()) };
    }

    /// Sends `SIGIO` to whoever asked for it with `O_ASYNC`, when the file is this socket's.
    pub(crate) fn signal_io(&self, band: super::sock::IoBand) {
        // SAFETY: The `sk` of a live socket is valid.
        unsafe { bindings::sk_signal_io(self.sk(), band as c_int) };
    }

    /// One of `TCP_*`.
    fn raw_state(&self) -> u32 {
        // SAFETY: The `sk` is valid; its state is a single byte that changes concurrently.
        let state = unsafe { ptr::read_volatile(&raw const (*self.sk()).__sk_common.skc_state) };
        u32::from(state)
    }

    /// State of the TCP connection.
    pub(crate) fn state(&self) -> TcpState {
        match self.raw_state() {
            bindings::TCP_SYN_SENT | bindings::TCP_SYN_RECV => TcpState::Connecting,
            bindings::TCP_LISTEN => TcpState::Listening,
            bindings::TCP_CLOSE | bindings::TCP_CLOSING | bindings::TCP_LAST_ACK => {
                TcpState::Closed
            }
            _ => TcpState::Connected,
        }
    }

    /// Whether a direction was shut down, which a socket can be before it is connected.
    pub(crate) fn is_shut_down(&self) -> bool {
        // SAFETY: The `sk` is valid; a single byte that changes concurrently.
        unsafe { ptr::read_volatile(&raw const (*self.sk()).sk_shutdown) != 0 }
    }

    /// Whether the connection has ended. Any context.
    pub(crate) fn ending(&self) -> Option<Ending> {
        // From the state alone: an error can be pending on a connection that lives, and this side may
        // have shut a direction down.
        match self.raw_state() {
            bindings::TCP_CLOSE => Some(Ending::Broken),
            bindings::TCP_CLOSE_WAIT | bindings::TCP_CLOSING | bindings::TCP_LAST_ACK => {
                Some(Ending::Finished)
            }
            _ => None,
        }
    }

    /// Takes the pending error, as `SO_ERROR` does.
    pub(crate) fn take_error(&self) -> Result {
        // SAFETY: The `sk` is valid; `sk_err` is exchanged as `sock_error` does.
        let err = unsafe { bindings::sock_error(self.sk()) };
        to_result(err)
    }

    /// Limits each wait in [`Self::recv`] and [`Self::send`], in jiffies.
    pub(crate) fn set_timeouts(&self, jiffies: c_long) {
        let sk = self.sk();
        // SAFETY: The `sk` is valid; the kernel writes these fields without a lock too.
        unsafe {
            ptr::write_volatile(&raw mut (*sk).sk_rcvtimeo, jiffies);
            ptr::write_volatile(&raw mut (*sk).sk_sndtimeo, jiffies);
        }
    }

    /// Receives up to `buf.len()` bytes; `flags` are `MSG_*`.
    pub(crate) fn recv(&self, buf: &mut [u8], flags: u32) -> Result<usize> {
        // SAFETY: All-zeroes is a valid `msghdr`.
        let mut msg: bindings::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        let mut vec = bindings::kvec {
            iov_base: buf.as_mut_ptr().cast(),
            iov_len: buf.len(),
        };
        // SAFETY: `vec` describes `buf`, which is writable for its whole length.
        let n = unsafe {
            bindings::kernel_recvmsg(
                self.as_ptr(),
                &mut msg,
                &mut vec,
                1,
                buf.len(),
                flags as c_int,
            )
        };
        usize::try_from(n).map_err(|_| Error::from_errno(n))
    }

    /// Throws away what has been received on a connection that has ended.
    pub(crate) fn discard(&self) {
        let mut rest = [0; 256];
        // No more comes: this ends with the receive queue.
        while self
            .recv(&mut rest, bindings::MSG_DONTWAIT)
            .is_ok_and(|n| n > 0)
        {}
    }

    /// Sends all of `buf`.
    pub(crate) fn send(&self, buf: &[u8]) -> Result {
        let mut rest = buf;
        while !rest.is_empty() {
            // SAFETY: All-zeroes is a valid `msghdr`.
            let mut msg: bindings::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
            msg.msg_flags = bindings::MSG_NOSIGNAL;
            let mut vec = bindings::kvec {
                iov_base: rest.as_ptr().cast_mut().cast(),
                iov_len: rest.len(),
            };
            // SAFETY: `vec` describes `rest`, which sending only reads.
            let n = unsafe {
                bindings::kernel_sendmsg(self.as_ptr(), &mut msg, &mut vec, 1, rest.len())
            };
            let n = usize::try_from(n).map_err(|_| Error::from_errno(n))?;
            if n == 0 {
                return Err(EPIPE);
            }
            rest = rest.get(n..).unwrap_or(&[]);
        }
        Ok(())
    }

    /// What TCP was told about the data.
    pub(crate) fn stream_options(&self) -> StreamOptions {
        let tp: *const bindings::tcp_sock = self.sk().cast();
        let icsk: *const bindings::inet_connection_sock = self.sk().cast();
        // SAFETY: By the type invariants `sk` is a TCP socket; single bytes and words, which
        // `setsockopt` may change concurrently.
        let (nagle, tells_inq, user_timeout) = unsafe {
            (
                u32::from((*tp).nonagle()),
                (*tp).recvmsg_inq() != 0,
                ptr::read_volatile(&raw const (*icsk).icsk_user_timeout),
            )
        };
        StreamOptions {
            nodelay: nagle & bindings::TCP_NAGLE_OFF != 0,
            corked: nagle & bindings::TCP_NAGLE_CORK != 0,
            user_timeout,
            tells_inq,
        }
    }

    /// Bytes that TCP has carried, both ways.
    pub(crate) fn carried(&self) -> u64 {
        let tp: *const bindings::tcp_sock = self.sk().cast();
        // SAFETY: By the type invariants `sk` is a TCP socket; words that change concurrently.
        let (sent, received) = unsafe {
            (
                ptr::read_volatile(&raw const (*tp).bytes_sent),
                ptr::read_volatile(&raw const (*tp).bytes_received),
            )
        };
        sent.saturating_add(received)
    }

    /// `TCP_LINGER2`, in milliseconds: how long a closed connection waits for the peer's end.
    /// [`None`] if the namespace's setting holds.
    pub(crate) fn linger2(&self) -> Option<u32> {
        let tp: *const bindings::tcp_sock = self.sk().cast();
        // SAFETY: By the type invariants `sk` is a TCP socket; a single word.
        let jiffies = unsafe { ptr::read_volatile(&raw const (*tp).linger2) };
        if jiffies == 0 {
            return None;
        }
        // C keeps -1 for "do not wait".
        let jiffies = u64::try_from(jiffies).unwrap_or(0);
        let ms = jiffies.saturating_mul(1000) / u64::from(bindings::HZ);
        Some(u32::try_from(ms).unwrap_or(u32::MAX))
    }

    /// Is something in the error queue?
    pub(crate) fn has_queued_errors(&self) -> bool {
        // SAFETY: The `sk` is valid; a single word that changes concurrently.
        unsafe { ptr::read_volatile(&raw const (*self.sk()).sk_error_queue.qlen) != 0 }
    }

    /// `connect(2)` of the user's, by TCP alone; `flags` are the file's.
    pub(crate) fn connect(&self, mut addr: SockAddr, flags: c_int) -> Result {
        let connect = self.ops().connect.ok_or(EOPNOTSUPP)?;
        // SAFETY: The socket is alive, and `addr` is a valid address of the given length.
        to_result(unsafe { connect(self.as_ptr(), addr.as_mut_ptr(), addr.len as c_int, flags) })
    }

    /// Interface index of the route's device, if the connection has a route.
    pub(crate) fn egress_ifindex(&self) -> Option<i32> {
        // SAFETY: The `sk` is valid; the helper takes the references it needs.
        let index = unsafe { bindings::clcsk_egress_ifindex(self.sk()) };
        (index > 0).then_some(index)
    }

    /// What the route of a connection over IPv4 leads to first.
    pub(crate) fn next_hop(&self) -> NextHop {
        let mut mac = [0; 6];
        // SAFETY: The `sk` is valid; the helper takes the references it needs, and writes no more than an Ethernet
        // address: the route's device has one, as what RDMA goes by.
        match unsafe { bindings::clcsk_gateway(self.sk(), mac.as_mut_ptr()) } {
            0 => NextHop::Peer,
            1 => NextHop::Gateway(mac),
            _ => NextHop::Unknown,
        }
    }
}

impl Drop for ClcSock {
    fn drop(&mut self) {
        // Nothing of the socket may point into this module afterwards.
        tcp_option::forget(self);
        let sock = self.as_ptr();
        // SAFETY: We own the socket by the type invariants. A fallback lent it the user's file;
        // `sock_release` would then leave freeing to that file, which is not ours to rely on. Under
        // the socket's lock, as urgent data that comes in looks at the file.
        unsafe {
            bindings::lock_sock_nested(self.sk(), 0);
            (*sock).file = ptr::null_mut();
            if !self.of_user.load(Relaxed) {
                // Nobody waits here for the end of a connection that did not carry the user's data: this may
                // be one of the module's own threads.
                bindings::sk_linger_no_longer(self.sk());
            }
            bindings::release_sock(self.sk());
            bindings::sock_release(sock);
        }
        let aside = self.aside.load(Relaxed);
        if !aside.is_null() {
            // SAFETY: By the type invariants it is ours. The `sk`, if it lives on, wakes nobody any more.
            unsafe { bindings::free_queue(aside) };
        }
    }
}
