// SPDX-License-Identifier: GPL-2.0

//! Sockets whose protocol is implemented in Rust.
//!
//! A [`Sock<T>`] is one allocation: the C `struct sock` first, then the protocol's own data `T`.
//! It lives as long as its C reference count says ([`ARef<Sock<T>>`]), and `T` is dropped when the
//! count reaches zero, and only then.

use crate::{
    bindings,
    kapi::{
        clcsock::{
            ClcSock,
            Route, //
        },
        netns::Net,
        sock_table::Listed, //
    }, //
};
use core::{
    cell::UnsafeCell,
    mem::MaybeUninit,
    ops::Deref,
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    error::{
        Error,
        Result, //
    },
    ffi::{
        c_int,
        c_long,
        c_ulong, //
    },
    prelude::*,
    sync::aref::{
        ARef,
        AlwaysRefCounted, //
    },
    types::Opaque,
};

/// `TASK_INTERRUPTIBLE`.
const TASK_INTERRUPTIBLE: u32 = 1;

/// What `SIGIO` is about (`si_code`).
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum IoBand {
    /// `POLL_IN`: something to read, or the end of it.
    In = 1,
    /// `POLL_OUT`: connected, or room to write again.
    Out = 2,
    /// `POLL_ERR`: the connection has failed.
    Err = 4,
    /// `POLL_HUP`: both directions have ended.
    Hup = 6,
}

/// Number of work items that every socket has.
pub(crate) const JOBS: usize = 3;

/// What a socket protocol implements besides its system calls (see [`super::proto_ops`]).
pub(crate) trait Protocol: super::proto_ops::SocketOps {
    /// The registration tables of this protocol.
    fn tables() -> &'static super::family::Tables<Self>;

    /// Builds the protocol's data for a new socket whose TCP side has address family
    /// `clc_family`.
    fn init(clc_family: c_int) -> impl PinInit<Self, Error>;

    /// Called once for a socket that a user made, after [`Self::init`]. Process context.
    fn created(sk: &Sock<Self>) -> Result;

    /// Runs work item number `job` (process context), which [`Sock::queue_job`] queued.
    fn run_job(sk: ARef<Sock<Self>>, job: usize);
}

/// A socket of protocol `T`.
///
/// # Invariants
///
/// `inet` is a valid C socket of a `proto` that [`super::family::Tables`] registered. While a
/// `&Sock<T>` exists, `data` is initialised and pinned.
#[repr(C)]
pub(crate) struct Sock<T> {
    inet: Opaque<bindings::inet_sock>,
    pinfo: Opaque<bindings::ipv6_pinfo>,
    jobs: [Opaque<bindings::work_struct>; JOBS],
    ready: UnsafeCell<bool>,
    /// The socket's place among all sockets, until release.
    listed: UnsafeCell<Option<Listed<T>>>,
    data: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: A C socket may be used and released from any thread, and so may `T`.
unsafe impl<T: Send + Sync> Send for Sock<T> {}
// SAFETY: As above; the methods below take the locks that the C side asks for.
unsafe impl<T: Send + Sync> Sync for Sock<T> {}

// SAFETY: `sock_hold` and `sock_put` are the reference count of a C socket.
unsafe impl<T> AlwaysRefCounted for Sock<T> {
    fn inc_ref(&self) {
        // SAFETY: A shared reference proves that the count is not zero.
        unsafe { bindings::sock_hold(ptr::from_ref(self).cast_mut().cast()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller owns one count.
        unsafe { bindings::sock_put(obj.as_ptr().cast()) };
    }
}

impl<T> Deref for Sock<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariants `data` is initialised while a reference exists.
        unsafe { (*self.data.get()).assume_init_ref() }
    }
}

/// `add_wait_queue()` or its exclusive form.
type EnterQueue =
    unsafe extern "C" fn(*mut bindings::wait_queue_head, *mut bindings::wait_queue_entry);

impl<T: Protocol> Sock<T> {
    /// Size of the object, for `proto::obj_size`.
    pub(crate) const SIZE: usize = size_of::<Self>();

    /// Offset of the IPv6 part, for `proto::ipv6_pinfo_offset`.
    pub(crate) const PINFO_OFFSET: usize = core::mem::offset_of!(Self, pinfo);

    /// Borrows a socket from its C pointer.
    ///
    /// # Safety
    ///
    /// `sk` must be a socket that [`Self::set_up`] has succeeded on, and stay referenced for `'a`.
    pub(crate) unsafe fn from_raw<'a>(sk: *mut bindings::sock) -> &'a Self {
        // SAFETY: The C socket is the first field, and the caller vouches for the rest.
        unsafe { &*sk.cast::<Self>() }
    }

    /// The C socket.
    pub(crate) fn as_ptr(&self) -> *mut bindings::sock {
        ptr::from_ref(self).cast_mut().cast()
    }

    /// Initialises the Rust part of a socket that `sk_alloc` made and `sock_init_data` set up.
    ///
    /// # Safety
    ///
    /// `sk` must be an object of a `proto` in `T::tables()`, zeroed by `sk_alloc`, that nobody
    /// else uses yet; to be called once.
    pub(crate) unsafe fn set_up(sk: *mut bindings::sock, clc_family: c_int) -> Result {
        let this = sk.cast::<Self>();
        // SAFETY: The object is exclusively ours; every field below is inside it.
        unsafe {
            (*sk).sk_destruct = Some(Self::destruct);
            // A connection that nobody has accepted yet has no `struct socket`.
            let sock = (*sk).sk_socket;
            if !sock.is_null() {
                bindings::take_socket_options(sock);
            }
            Self::init_job::<0>(this);
            Self::init_job::<1>(this);
            Self::init_job::<2>(this);
            let data = (*this).data.get().cast::<T>();
            super::version::init_at(T::init(clc_family), data)?;
            (*this).listed.get().write(None);
            *(*this).ready.get() = true;
            bindings::sock_prot_inuse_add(bindings::sock_net(sk), (*sk).__sk_common.skc_prot, 1);
            let table = T::tables().sockets().ok_or(ENODEV)?;
            // From here on others find the socket. Nobody else looks at `listed`.
            let net = Net::from_raw(bindings::sock_net(sk));
            *(*this).listed.get() = Some(table.enter(net, NonNull::new_unchecked(this))?);
        }
        Ok(())
    }

    /// # Safety
    ///
    /// `this` must be exclusively owned.
    unsafe fn init_job<const I: usize>(this: *mut Self) {
        // SAFETY: `this` is valid per this function's contract.
        let job = unsafe {
            (&raw mut (*this).jobs)
                .cast::<Opaque<bindings::work_struct>>()
                .add(I)
        };
        // SAFETY: The work item is inside the object, and `run::<I>` is the handler for its place.
        unsafe { bindings::init_work(job.cast(), Some(Self::run::<I>)) };
    }

    unsafe extern "C" fn run<const I: usize>(work: *mut bindings::work_struct) {
        // SAFETY: Work item `I` is embedded in a `Sock<T>` at this offset.
        let this = unsafe {
            work.cast::<u8>().sub(
                core::mem::offset_of!(Self, jobs) + I * size_of::<Opaque<bindings::work_struct>>(),
            )
        }
        .cast::<Self>();
        // SAFETY: `queue_job` took a reference for the queued item; it is ours now.
        let sk = unsafe { ARef::from_raw(NonNull::new_unchecked(this)) };
        T::run_job(sk, I);
    }

    /// Queues work item `job`. Nothing happens if it is queued already. Any context.
    pub(crate) fn queue_job(&self, job: usize, queue: &super::workqueue::OwnedQueue) {
        let Some(work) = self.jobs.get(job) else {
            return;
        };
        // The queued item holds a reference, which `run` takes over.
        self.inc_ref();
        // SAFETY: The work item was initialised by `set_up` and lives as long as the reference
        // just taken.
        if !unsafe { queue.queue_raw(work.get()) } {
            // SAFETY: Already queued; this gives back the reference just taken.
            unsafe { Self::dec_ref(NonNull::from(self)) };
        }
    }

    /// Takes work item `job` out of its queue, and waits for it if it runs. Process context; not
    /// from the work item itself.
    pub(crate) fn cancel_job(&self, job: usize) {
        let Some(work) = self.jobs.get(job) else {
            return;
        };
        // SAFETY: The work item was initialised by `set_up`.
        if unsafe { bindings::cancel_work_sync(work.get()) } {
            // SAFETY: The item was queued, and its reference is now nobody else's. The caller has
            // another one.
            unsafe { Self::dec_ref(NonNull::from(self)) };
        }
    }

    /// Takes the socket out of the table of all sockets.
    ///
    /// # Safety
    ///
    /// For the release of the socket only, which happens once.
    pub(super) unsafe fn unlist(&self) {
        // SAFETY: `listed` is used by `set_up`, before the socket is shared, by its release, of which
        // this is the only one, and by `destruct`, after the last reference is gone.
        drop(unsafe { (*self.listed.get()).take() });
    }

    unsafe extern "C" fn destruct(sk: *mut bindings::sock) {
        let this = sk.cast::<Self>();
        // SAFETY: The reference count has reached zero, so this is the only user. The C destructor
        // wants to see a closed, dead socket.
        unsafe {
            if *(*this).ready.get() {
                *(*this).ready.get() = false;
                // First of all: nobody is to find a socket that is being taken apart.
                drop((*(*this).listed.get()).take());
                bindings::sock_prot_inuse_add(
                    bindings::sock_net(sk),
                    (*sk).__sk_common.skc_prot,
                    -1,
                );
                (*(*this).data.get()).assume_init_drop();
            }
            (*sk).__sk_common.skc_state = bindings::TCP_CLOSE as u8;
            bindings::sock_set_dead(sk);
            if c_int::from((*sk).__sk_common.skc_family) == bindings::AF_INET6 as c_int {
                bindings::inet6_sock_destruct(sk);
            } else {
                bindings::inet_sock_destruct(sk);
            }
        }
    }

    /// Makes a socket like `parent` that has no user yet: a connection that `accept` will return.
    pub(crate) fn child_of(parent: &Self, clc_family: c_int) -> Result<ARef<Self>> {
        let psk = parent.as_ptr();
        // SAFETY: `psk` is alive; a socket has a namespace and a `proto` for its whole life.
        let sk = unsafe {
            bindings::sk_alloc(
                bindings::sock_net(psk),
                c_int::from((*psk).__sk_common.skc_family),
                bindings::GFP_KERNEL,
                (*psk).__sk_common.skc_prot,
                0,
            )
        };
        if sk.is_null() {
            return Err(ENOMEM);
        }
        // SAFETY: `sk` is new and ours; it is an object of a registered `proto` of `T`.
        let set_up = unsafe {
            bindings::sock_init_data(ptr::null_mut(), sk);
            (*sk).sk_protocol = (*psk).sk_protocol;
            (*sk).sk_type = (*psk).sk_type;
            bindings::inet6_set_pinfo(sk, (&raw mut (*sk.cast::<Self>()).pinfo).cast());
            (*sk).sk_sndbuf = (*psk).sk_sndbuf;
            (*sk).sk_rcvbuf = (*psk).sk_rcvbuf;
            (*sk).sk_rcvlowat = (*psk).sk_rcvlowat;
            (*sk).sk_peek_off = (*psk).sk_peek_off;
            Self::set_up(sk, clc_family).map(|()| {
                bindings::copy_sock_options(psk, sk);
                // A thread of the kernel accepts it, for whom the listener belongs to.
                (*sk).sk_uid = (*psk).sk_uid;
                bindings::copy_sock_cgroup(psk, sk);
                bindings::security_sk_clone(psk, sk);
                // The one thing that a connection does not have from its listener (`sk_clone`).
                (*sk).sk_priority = 0;
            })
        };
        // SAFETY: `sk_alloc` gave us one reference.
        let child = unsafe { NonNull::new_unchecked(sk.cast::<Self>()) };
        if let Err(err) = set_up {
            // SAFETY: `set_up` failed, so nobody else knows the socket; this frees it.
            unsafe { bindings::sk_free(sk) };
            return Err(err);
        }
        // SAFETY: As above; `set_up` succeeded, so the type invariants hold.
        Ok(unsafe { ARef::from_raw(child) })
    }

    /// The namespace of the socket.
    pub(crate) fn net(&self) -> &Net {
        // SAFETY: A socket keeps its namespace for its whole life.
        unsafe { Net::from_raw(bindings::sock_net(self.as_ptr())) }
    }

    /// `AF_SMC`, `AF_INET` or `AF_INET6`.
    pub(crate) fn family(&self) -> c_int {
        // SAFETY: The family of a socket never changes.
        c_int::from(unsafe { (*self.as_ptr()).__sk_common.skc_family })
    }

    /// Makes the TCP socket that belongs to this socket.
    pub(crate) fn create_clcsock(&self, family: c_int) -> Result<ClcSock> {
        // SAFETY: The socket keeps its namespace alive.
        unsafe { ClcSock::create(bindings::sock_net(self.as_ptr()), family) }
    }

    /// Carries the `SOL_SOCKET` options set here over to `clc`; the route that it has by that, for [`Self::follow_route`].
    pub(crate) fn copy_options_to(&self, clc: &ClcSock) -> Route {
        // SAFETY: Both sockets are alive.
        unsafe { bindings::copy_sock_options(self.as_ptr(), clc.sk()) };
        clc.route()
    }

    /// Carries `SO_RCVLOWAT` and `SO_PEEK_OFF` over to `clc`, which is the user's from now on. May sleep.
    pub(crate) fn copy_low_water_to(&self, clc: &ClcSock) {
        // SAFETY: Both sockets are alive.
        unsafe { bindings::copy_rcvlowat(self.as_ptr(), clc.as_ptr()) };
    }

    /// Takes `SO_REUSEPORT` over from `clc`.
    pub(crate) fn follow_reuseport(&self, clc: &ClcSock) {
        // SAFETY: Both sockets are alive.
        unsafe { bindings::follow_reuseport(self.as_ptr(), clc.sk()) };
    }

    /// Takes over what TCP has made of the device and the mark of `clc`: by an address of IPv6 with a scope, by what BPF programs
    /// say, or as of an accepted connection by its SYN. [`Self::copy_options_to`] would take that away.
    ///
    /// `copied` is what they were before: what TCP has left alone is not taken over, nor what somebody has
    /// set here meanwhile. `None` for a socket that nobody else has.
    pub(crate) fn follow_route(&self, clc: &ClcSock, copied: Option<Route>) {
        let (to, now) = (self.as_ptr(), clc.route());
        // SAFETY: The socket is alive; single words.
        unsafe {
            let (device, mark) = (
                &raw mut (*to).__sk_common.skc_bound_dev_if,
                &raw mut (*to).sk_mark,
            );
            follow(device, now.device, copied.map(|old| old.device));
            follow(mark, now.mark, copied.map(|old| old.mark));
        }
    }

    /// Takes the priority over from `clc`.
    pub(crate) fn follow_priority(&self, clc: &ClcSock) {
        // SAFETY: Both sockets are alive; a single word.
        unsafe {
            let now = ptr::read_volatile(&raw const (*clc.sk()).sk_priority);
            follow(&raw mut (*self.as_ptr()).sk_priority, now, None);
        }
    }

    /// Has this socket wake the queue of `clc` instead of its own: so who polls or sleeps need not know
    /// which of the two it is that will have something to tell. Nobody may wait meanwhile.
    ///
    /// The caller keeps `clc` until [`Self::part_queue`].
    pub(crate) fn share_queue(&self, clc: &ClcSock) {
        // SAFETY: Both sockets are alive, and the caller keeps `clc`.
        unsafe { bindings::sk_set_queue(self.as_ptr(), clc.front()) };
    }

    /// Undoes [`Self::share_queue`]. Nobody may wait meanwhile.
    pub(crate) fn part_queue(&self) {
        // SAFETY: The socket is alive. Its `struct socket`, if it has one, is there until its release,
        // which takes the queue away.
        unsafe {
            let sock = (*self.as_ptr()).sk_socket;
            if !sock.is_null() {
                bindings::sk_set_queue(self.as_ptr(), &raw mut (*sock).wq);
            }
        }
    }

    /// Hands the user's file over to `clc`: later system calls go to TCP directly. Nothing happens
    /// for a socket without a file.
    ///
    /// The caller keeps `clc` alive until [`Self::take_file_back`] or the release of the file.
    pub(crate) fn hand_over_file(&self, clc: &ClcSock) {
        let sk = self.as_ptr();
        // SAFETY: Both sockets are alive. The socket lock orders this against `sock_fasync`.
        unsafe {
            bindings::lock_sock_nested(sk, 0);
            bindings::hand_over_file(sk, clc.as_ptr());
            bindings::release_sock(sk);
        }
    }

    /// Undoes [`Self::hand_over_file`] before the file goes away: `clc` may be there still when it has. May sleep.
    pub(crate) fn take_file_back(&self, clc: &ClcSock) {
        // SAFETY: Both sockets are alive; called from `release`, when no system call is under way.
        unsafe { bindings::take_file_back(self.as_ptr(), clc.as_ptr()) };
    }

    /// Sets the state byte that `sock_diag` and `/proc` show.
    pub(crate) fn set_state(&self, state: u8) {
        // SAFETY: A single byte, read concurrently by others with `READ_ONCE`.
        unsafe { ptr::write_volatile(&raw mut (*self.as_ptr()).__sk_common.skc_state, state) };
    }

    /// Sets the state of the user's `struct socket` (`SS_*`), if there is one.
    pub(crate) fn set_connected(&self, connected: bool) {
        let state = if connected {
            bindings::socket_state_SS_CONNECTED
        } else {
            bindings::socket_state_SS_UNCONNECTED
        };
        // SAFETY: The socket is alive; the callback lock keeps `sk_socket` from going away.
        unsafe { bindings::set_socket_state(self.as_ptr(), state as c_int) };
    }

    /// Time that a send may wait, in jiffies.
    pub(crate) fn send_timeout(&self, nonblock: bool) -> c_long {
        if nonblock {
            return 0;
        }
        // SAFETY: A single word that `setsockopt` may change concurrently.
        unsafe { ptr::read_volatile(&raw const (*self.as_ptr()).sk_sndtimeo) }
    }

    /// Time that a receive or accept may wait, in jiffies.
    pub(crate) fn receive_timeout(&self, nonblock: bool) -> c_long {
        if nonblock {
            return 0;
        }
        // SAFETY: A single word that `setsockopt` may change concurrently.
        unsafe { ptr::read_volatile(&raw const (*self.as_ptr()).sk_rcvtimeo) }
    }

    /// `SO_SNDBUF` and `SO_RCVBUF` as the kernel keeps them (twice what the user asked for).
    pub(crate) fn buffer_sizes(&self) -> (c_int, c_int) {
        let sk = self.as_ptr();
        // SAFETY: Single words that `setsockopt` may change concurrently.
        unsafe {
            (
                ptr::read_volatile(&raw const (*sk).sk_sndbuf),
                ptr::read_volatile(&raw const (*sk).sk_rcvbuf),
            )
        }
    }

    /// Sets both sizes (see [`Self::buffer_sizes`]).
    pub(crate) fn set_buffer_sizes(&self, sndbuf: c_int, rcvbuf: c_int) {
        let sk = self.as_ptr();
        // SAFETY: As above.
        unsafe {
            ptr::write_volatile(&raw mut (*sk).sk_sndbuf, sndbuf);
            ptr::write_volatile(&raw mut (*sk).sk_rcvbuf, rcvbuf);
        }
    }

    /// Sets the size of the send buffer alone. Any context.
    pub(crate) fn set_send_buffer_size(&self, sndbuf: c_int) {
        // SAFETY: As above.
        unsafe { ptr::write_volatile(&raw mut (*self.as_ptr()).sk_sndbuf, sndbuf) };
    }

    /// Whether the application has chosen the size of the send buffer (`SO_SNDBUF`). Any context.
    pub(crate) fn has_fixed_send_buffer(&self) -> bool {
        // SAFETY: The socket is alive, and the bits are one word.
        let locks = unsafe { bindings::sk_userlocks(self.as_ptr()) };
        u32::from(locks) & bindings::SOCK_SNDBUF_LOCK != 0
    }

    /// `SO_RCVLOWAT`.
    pub(crate) fn receive_low_water(&self) -> usize {
        // SAFETY: A single word that `setsockopt` may change concurrently.
        let low = unsafe { ptr::read_volatile(&raw const (*self.as_ptr()).sk_rcvlowat) };
        usize::try_from(low).unwrap_or(1).max(1)
    }

    /// `SO_PEEK_OFF`: where the next look begins; [`None`] if it is off.
    pub(crate) fn peek_offset(&self) -> Option<usize> {
        // SAFETY: A single word that `setsockopt` may change concurrently.
        let offset = unsafe { ptr::read_volatile(&raw const (*self.as_ptr()).sk_peek_off) };
        usize::try_from(offset).ok()
    }

    /// Undoes what [`Self::move_peek_offset`] has done meanwhile.
    pub(crate) fn restore_peek_offset(&self, offset: Option<usize>) {
        if let Some(offset) = offset.and_then(|offset| c_int::try_from(offset).ok()) {
            // SAFETY: As there.
            unsafe { ptr::write_volatile(&raw mut (*self.as_ptr()).sk_peek_off, offset) };
        }
    }

    /// A look (`forward`) or a read has gone over `len` bytes.
    pub(crate) fn move_peek_offset(&self, forward: bool, len: usize) {
        if let Some(offset) = self.peek_offset() {
            let next = if forward {
                offset.saturating_add(len)
            } else {
                offset.saturating_sub(len)
            };
            let next = c_int::try_from(next).unwrap_or(c_int::MAX);
            // SAFETY: As above; readers are serialised, and a program that sets it meanwhile gets
            // either value, as with TCP.
            unsafe { ptr::write_volatile(&raw mut (*self.as_ptr()).sk_peek_off, next) };
        }
    }

    /// Linger time in jiffies, if `SO_LINGER` is on.
    ///
    /// As with TCP, a process that ends does not wait.
    pub(crate) fn linger(&self) -> Option<c_long> {
        let sk = self.as_ptr();
        if self.flags() & (1 << bindings::sock_flags_SOCK_LINGER) == 0 {
            return None;
        }
        // SAFETY: A single word that `setsockopt` may change concurrently.
        let time = unsafe { ptr::read_volatile(&raw const (*sk).sk_lingertime) as c_long };
        // SAFETY: This asks for the state of the running task only.
        (time == 0 || !unsafe { bindings::current_is_exiting() }).then_some(time)
    }

    /// The flags of `SOL_SOCKET` options.
    fn flags(&self) -> c_ulong {
        // SAFETY: A single word that `setsockopt` may change concurrently.
        unsafe {
            ptr::read_volatile(&raw const (*self.as_ptr()).__sk_common.__bindgen_anon_5.skc_flags)
        }
    }

    /// Is `SO_OOBINLINE` on?
    pub(crate) fn urgent_inline(&self) -> bool {
        self.flags() & (1 << bindings::sock_flags_SOCK_URGINLINE) != 0
    }

    /// Is `SO_ZEROCOPY` on?
    pub(crate) fn zerocopy(&self) -> bool {
        self.flags() & (1 << bindings::sock_flags_SOCK_ZEROCOPY) != 0
    }

    /// `SO_ZEROCOPY`, which the kernel has for its own protocols only. May sleep.
    pub(crate) fn set_zerocopy(&self, on: bool) {
        let flag = bindings::sock_flags_SOCK_ZEROCOPY as c_int;
        // SAFETY: The socket is alive; the helper takes its lock.
        unsafe { bindings::change_flag(self.as_ptr(), flag, on) };
    }

    /// Are readers to be told when data has come (`SO_TIMESTAMP` and its kin)? Any context.
    pub(crate) fn wants_time(&self) -> bool {
        const WANTED: c_ulong = 1 << bindings::sock_flags_SOCK_RCVTSTAMP
            | 1 << bindings::sock_flags_SOCK_TIMESTAMPING_RX_SOFTWARE;
        self.flags() & WANTED != 0
    }

    /// Records `err` for `SO_ERROR` and tells whoever waits. Any context.
    pub(crate) fn report_error(&self, err: Error) {
        let sk = self.as_ptr();
        // SAFETY: The socket is alive; `sk_err` is a single word.
        unsafe {
            ptr::write_volatile(&raw mut (*sk).sk_err, -err.to_errno());
        }
        self.wake_poll(bindings::EPOLLERR);
        self.signal_io(IoBand::Err);
    }

    /// Is an error pending?
    pub(crate) fn has_error(&self) -> bool {
        // SAFETY: A single word that changes concurrently.
        unsafe { ptr::read_volatile(&raw const (*self.as_ptr()).sk_err) != 0 }
    }

    /// Takes the pending error.
    pub(crate) fn take_error(&self) -> Result {
        // As `sock_error` begins, without calling it each time.
        if !self.has_error() {
            return Ok(());
        }
        // SAFETY: The socket is alive.
        kernel::error::to_result(unsafe { bindings::sock_error(self.as_ptr()) })
    }

    /// What a failed send returns: a pending error comes first, and `EPIPE` raises `SIGPIPE` unless
    /// `flags` (`MSG_*`) say otherwise. Process context.
    pub(crate) fn stream_error(&self, flags: u32, err: Error) -> Error {
        // SAFETY: The socket is alive; this is a system call on it.
        let err =
            unsafe { bindings::sk_stream_error(self.as_ptr(), flags as c_int, err.to_errno()) };
        Error::from_errno(err)
    }

    /// Marks directions as shut down (`RCV_SHUTDOWN` 1, `SEND_SHUTDOWN` 2). Any context.
    pub(crate) fn add_shutdown(&self, mask: u8) {
        let sk = self.as_ptr();
        // SAFETY: The socket is alive; the helper's update is atomic.
        unsafe { bindings::sk_add_shutdown(sk, mask) };
    }

    /// Directions that are shut down.
    pub(crate) fn shutdown_mask(&self) -> u8 {
        // SAFETY: A single byte that changes concurrently.
        unsafe { ptr::read_volatile(&raw const (*self.as_ptr()).sk_shutdown) }
    }

    /// Tells readers. Any context.
    pub(crate) fn wake_readable(&self) {
        // SAFETY: The socket is alive.
        unsafe { bindings::sk_wake_readable(self.as_ptr()) };
        self.signal_io(IoBand::In);
    }

    /// Tells everybody who waits for the socket. Any context.
    pub(crate) fn wake_all(&self) {
        // SAFETY: The socket is alive.
        unsafe { bindings::sk_wake(self.as_ptr(), 0, 0) };
    }

    /// Wakes those who sleep in a call on the socket, and nobody who polls it. Any context.
    pub(crate) fn wake_sleepers(&self) {
        // An event that no socket has, and nobody asks for.
        self.wake_poll(bindings::EPOLLMSG);
    }

    /// Sends `SIGURG` to the owner of the socket and wakes those who poll for urgent data.
    pub(crate) fn signal_urgent(&self) {
        // SAFETY: The socket is alive.
        unsafe { bindings::sk_signal_urgent(self.as_ptr()) };
        self.wake_poll(bindings::EPOLLPRI);
    }

    /// Sends `SIGIO` to whoever asked for it with `O_ASYNC`. Any context.
    pub(crate) fn signal_io(&self, band: IoBand) {
        // SAFETY: The socket is alive.
        unsafe { bindings::sk_signal_io(self.as_ptr(), band as c_int) };
    }

    /// Tells pollers, sleepers and owners that there is room. Any context.
    pub(crate) fn wake_for_room(&self) {
        self.wake_poll(bindings::EPOLLOUT | bindings::EPOLLWRNORM | bindings::EPOLLWRBAND);
        self.signal_io(IoBand::Out);
    }

    /// Wakes those who poll or sleep for `events`. Any context.
    pub(crate) fn wake_poll(&self, events: u32) {
        // SAFETY: The socket is alive.
        unsafe { bindings::sk_wake(self.as_ptr(), 1, events) };
    }

    /// Waits in the socket's queue until `ready` says so, a signal arrives, or `*timeo` jiffies
    /// are over (`EAGAIN`); `*timeo` is what is left. Process context, no locks held.
    pub(crate) fn wait(&self, timeo: &mut c_long, ready: impl FnMut() -> bool) -> Result {
        self.wait_as(timeo, ready, bindings::add_wait_queue)
    }

    /// As [`Self::wait`] for one who has looked just now, and looks again whatever has woken him: `ready` is asked once, and it is no
    /// error if what was waited for did not come.
    pub(crate) fn wait_once(&self, timeo: &mut c_long, ready: impl FnOnce() -> bool) -> Result {
        let mut ready = Some(ready);
        let mut woken = false;
        self.wait_in(
            timeo,
            || core::mem::replace(&mut woken, true) || ready.take().is_some_and(|ready| ready()),
            bindings::add_wait_queue,
        )
    }

    /// As [`Self::wait`], but of those who wait this way an event wakes only one: whoever fails here
    /// must see to it that another one is woken, if there is still something to do.
    pub(crate) fn wait_in_turn(&self, timeo: &mut c_long, ready: impl FnMut() -> bool) -> Result {
        self.wait_as(timeo, ready, bindings::add_wait_queue_exclusive)
    }

    fn wait_as(
        &self,
        timeo: &mut c_long,
        mut ready: impl FnMut() -> bool,
        enter: EnterQueue,
    ) -> Result {
        if ready() {
            return Ok(());
        }
        self.wait_in(timeo, ready, enter)
    }

    /// Waits in the queue, without a look before.
    fn wait_in(
        &self,
        timeo: &mut c_long,
        mut ready: impl FnMut() -> bool,
        enter: EnterQueue,
    ) -> Result {
        if *timeo == 0 {
            return Err(EAGAIN);
        }
        // SAFETY: The caller is in a system call on this socket, which keeps its queue alive.
        let Some(queue) = NonNull::new(unsafe { bindings::sk_wait_queue(self.as_ptr()) }) else {
            return Err(EINVAL);
        };
        let mut entry = bindings::wait_queue_entry {
            flags: 0,
            private: kernel::current!().as_ptr().cast(),
            func: Some(bindings::woken_wake_function),
            entry: bindings::list_head {
                next: ptr::null_mut(),
                prev: ptr::null_mut(),
            },
        };
        // SAFETY: The entry is removed again below, before it goes out of scope.
        unsafe { enter(queue.as_ptr(), &mut entry) };
        // Pairs with the barrier of `skwq_has_sleeper()`: either who makes the condition true sees the
        // entry, or this task sees that the condition is true.
        // SAFETY: A barrier may be anywhere.
        unsafe { bindings::full_barrier() };
        let result = loop {
            if ready() {
                break Ok(());
            }
            if *timeo == 0 {
                break Err(EAGAIN);
            }
            if kernel::current!().signal_pending() {
                // SAFETY: A pure function.
                break Err(Error::from_errno(unsafe {
                    bindings::sock_intr_errno(*timeo)
                }));
            }
            // SAFETY: The entry is queued; this is process context without locks.
            *timeo = unsafe { bindings::wait_woken(&mut entry, TASK_INTERRUPTIBLE, *timeo) };
        };
        // SAFETY: It was added above.
        unsafe { bindings::remove_wait_queue(queue.as_ptr(), &mut entry) };
        result
    }
}

/// Sets `*own` to what it is below now: if there is an `old`, only where that has changed below and not here.
///
/// # Safety
///
/// It can be accessed, and whoever else does so does it by whole words.
unsafe fn follow<W: Copy + PartialEq>(own: *mut W, now: W, old: Option<W>) {
    // SAFETY: By the caller.
    unsafe {
        if old.is_none_or(|old| now != old && ptr::read_volatile(own) == old) {
            ptr::write_volatile(own, now);
        }
    }
}
