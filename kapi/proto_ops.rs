// SPDX-License-Identifier: GPL-2.0

//! The system calls of a socket: `struct proto_ops` for a protocol in Rust.

use super::{
    clcsock::{
        ClcSock,
        NameOf,
        SockAddr, //
    },
    sock::{
        Protocol,
        Sock, //
    }, //
};
use crate::bindings;
use crate::kapi::prelude::*;
use core::ptr;
use kernel::{
    error::{
        to_result,
        Error,
        Result, //
    },
    ffi::{
        c_char,
        c_int,
        c_uint,
        c_ulong,
        c_void, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    sync::aref::ARef, //
};

/// System calls on a socket. All run in process context without locks.
pub(crate) trait SocketOps: Sized + Send + Sync + 'static {
    /// The last file of the socket was closed. Afterwards the socket has no user any more.
    fn release(sk: &Sock<Self>);

    /// `bind(2)`.
    fn bind(sk: &Sock<Self>, addr: SockAddr) -> Result;

    /// `connect(2)`; `flags` are the file's flags.
    fn connect(sk: &Sock<Self>, addr: SockAddr, flags: c_int) -> Result;

    /// `listen(2)`.
    fn listen(sk: &Sock<Self>, backlog: c_int) -> Result;

    /// `accept(2)`: the next connection.
    fn accept(sk: &Sock<Self>, nonblock: bool) -> Result<ARef<Sock<Self>>>;

    /// A connection that [`Self::accept`] returned has got its `struct socket` and file.
    fn accepted(child: &Sock<Self>);

    /// `getsockname(2)` and `getpeername(2)`.
    fn name(sk: &Sock<Self>, of: NameOf) -> Result<SockAddr>;

    /// `poll(2)`: the `EPOLL*` bits that are true now.
    fn poll(sk: &Sock<Self>, poll: &mut Poll) -> u32;

    /// `ioctl(2)`.
    fn ioctl(sk: &Sock<Self>, call: &Ioctl) -> Result<c_int>;

    /// `shutdown(2)`; `how` is `SHUT_RD` 0, `SHUT_WR` 1 or `SHUT_RDWR` 2.
    fn shutdown(sk: &Sock<Self>, how: u32) -> Result;

    /// `setsockopt(2)`.
    fn setsockopt(sk: &Sock<Self>, option: &SetOption) -> Result;

    /// `getsockopt(2)` of a level other than `SOL_SOCKET`.
    fn getsockopt(sk: &Sock<Self>, option: &GetOption) -> Result;

    /// `send(2)` and friends; the number of bytes taken.
    fn sendmsg(sk: &Sock<Self>, msg: &mut Message) -> Result<usize>;

    /// `sendfile(2)` or `splice(2)` is going to read.
    fn splice_begins(sk: &Sock<Self>);

    /// `sendfile(2)` or `splice(2)` has come to an end before all that it had announced with `MSG_MORE`.
    fn splice_eof(sk: &Sock<Self>);

    /// `recv(2)` and friends; the number of bytes given.
    fn recvmsg(sk: &Sock<Self>, msg: &mut Message) -> Result<usize>;
}

/// A `poll` in progress.
pub(crate) struct Poll {
    file: *mut bindings::file,
    wait: *mut bindings::poll_table_struct,
}

impl Poll {
    /// Asks to be woken by the queue of `sk`. To be called before the state is looked at.
    pub(crate) fn register<T: Protocol>(&mut self, sk: &Sock<T>) {
        // SAFETY: The pointers are the arguments of the system call under way, which is on `sk`.
        unsafe { bindings::sk_poll_wait(self.file, sk.as_ptr(), self.wait) };
    }

    /// Lets TCP answer, and asks to be woken by the TCP socket's own queue.
    pub(crate) fn delegate(&mut self, clc: &ClcSock) -> u32 {
        match clc.ops().poll {
            // SAFETY: As above; `clc` is alive.
            Some(poll) => unsafe { poll(self.file, clc.as_ptr(), self.wait) },
            None => 0,
        }
    }
}

/// An `ioctl` call.
pub(crate) struct Ioctl {
    /// The command.
    pub(crate) cmd: c_uint,
    arg: Argument,
}

/// What an `ioctl` call works on.
enum Argument {
    /// The argument of the system call.
    User(c_ulong),
    /// Where the kernel itself wants the `int` that a command gives.
    Kernel(*mut c_int),
}

impl Ioctl {
    /// Writes an `int` to where the argument points.
    pub(crate) fn put_int(&self, value: c_int) -> Result<c_int> {
        match self.arg {
            // SAFETY: `put_user` checks the user's pointer.
            Argument::User(to) => to_result(unsafe {
                bindings::put_user_int(value, to as *mut c_void) //
            })?,
            // SAFETY: The kernel's call passes a valid place.
            Argument::Kernel(to) => unsafe { *to = value },
        }
        Ok(0)
    }

    /// Lets TCP answer.
    pub(crate) fn delegate(&self, clc: &ClcSock) -> Result<c_int> {
        let ret = match self.arg {
            Argument::User(arg) => {
                let ioctl = clc.ops().ioctl.ok_or(ENOIOCTLCMD)?;
                // SAFETY: `clc` is alive, and the argument is the user's.
                unsafe { ioctl(clc.as_ptr(), self.cmd, arg) }
            }
            Argument::Kernel(to) => {
                // SAFETY: A live socket has a protocol.
                let ioctl = unsafe { (*(*clc.sk()).__sk_common.skc_prot).ioctl };
                let ioctl = ioctl.ok_or(ENOIOCTLCMD)?;
                // SAFETY: `clc` is alive, and the kernel's call passes a valid place.
                unsafe { ioctl(clc.sk(), self.cmd as c_int, to) }
            }
        };
        if ret < 0 {
            Err(Error::from_errno(ret))
        } else {
            Ok(ret)
        }
    }
}

/// A `setsockopt` call.
pub(crate) struct SetOption {
    /// `SOL_*` or `IPPROTO_*`.
    pub(crate) level: c_int,
    /// The option.
    pub(crate) name: c_int,
    value: bindings::sockptr_t,
    len: c_int,
}

impl SetOption {
    /// The value as an `int`.
    pub(crate) fn int(&self) -> Result<c_int> {
        let mut value = 0;
        // SAFETY: `value` is a valid place; the helper checks the user's pointer.
        to_result(unsafe { bindings::sockptr_get_int(self.value, self.len, &mut value) })?;
        Ok(value)
    }

    /// Sets an option of `SOL_SOCKET` as the kernel does for all sockets.
    pub(crate) fn set_generic<T: Protocol>(&self, sk: &Sock<T>) -> Result {
        // SAFETY: The system call under way keeps the socket.
        unsafe { self.set_on((*sk.as_ptr()).sk_socket) }
    }

    /// Sets an option of `SOL_SOCKET`.
    ///
    /// # Safety
    ///
    /// `sock` must be a live socket.
    unsafe fn set_on(&self, sock: *mut bindings::socket) -> Result {
        let (level, name, len) = (self.level, self.name, self.len as c_uint);
        // SAFETY: The socket is alive per this function's contract, and the value is the user's.
        to_result(unsafe { bindings::sock_setsockopt(sock, level, name, self.value, len) })
    }

    /// Lets TCP do it.
    pub(crate) fn delegate(&self, clc: &ClcSock) -> Result {
        if self.level == bindings::SOL_SOCKET as c_int {
            // SAFETY: `clc` is alive.
            return unsafe { self.set_on(clc.as_ptr()) };
        }
        let setsockopt = clc.ops().setsockopt.ok_or(EOPNOTSUPP)?;
        // SAFETY: `clc` is alive, and the value is the user's.
        to_result(unsafe {
            setsockopt(
                clc.as_ptr(),
                self.level,
                self.name,
                self.value,
                self.len as c_uint,
            )
        })
    }
}

/// A `getsockopt` call.
pub(crate) struct GetOption {
    /// `SOL_*` or `IPPROTO_*`.
    pub(crate) level: c_int,
    /// The option.
    pub(crate) name: c_int,
    value: *mut c_char,
    len: *mut c_int,
}

impl GetOption {
    /// Answers with an `int`.
    pub(crate) fn put_int(&self, value: c_int) -> Result {
        self.put_bytes(&value.to_ne_bytes())
    }

    /// Answers with as much of `bytes` as the user has room for.
    pub(crate) fn put_bytes(&self, bytes: &[u8]) -> Result {
        let size = c_int::try_from(bytes.len()).map_err(|_| EINVAL)?;
        // SAFETY: `bytes` is readable for `size` bytes; the helper checks the user's pointers.
        to_result(unsafe {
            bindings::put_user_option(
                bytes.as_ptr().cast(),
                size,
                self.value.cast(),
                self.len.cast(),
            )
        })
    }

    /// Lets TCP answer.
    pub(crate) fn delegate(&self, clc: &ClcSock) -> Result {
        let getsockopt = clc.ops().getsockopt.ok_or(EOPNOTSUPP)?;
        // SAFETY: `clc` is alive, and the pointers are the user's.
        to_result(unsafe { getsockopt(clc.as_ptr(), self.level, self.name, self.value, self.len) })
    }
}

/// A message to be sent, or to be filled.
pub(crate) struct Message {
    raw: *mut bindings::msghdr,
    /// Bytes to send, or room for bytes.
    pub(crate) len: usize,
    /// `MSG_*`.
    pub(crate) flags: u32,
}

impl Message {
    /// Has the caller asked not to wait?
    pub(crate) fn nonblock(&self) -> bool {
        self.flags & bindings::MSG_DONTWAIT != 0
    }

    /// The data of a message to be sent.
    pub(crate) fn source(&mut self) -> &mut IovIterSource<'_> {
        // SAFETY: `sendmsg` passes a source iterator that is ours for the call. Both bindings
        // describe the same C type.
        unsafe { IovIterSource::from_raw((&raw mut (*self.raw).msg_iter).cast()) }
    }

    /// The room of a message to be filled.
    pub(crate) fn dest(&mut self) -> &mut IovIterDest<'_> {
        // SAFETY: `recvmsg` passes a destination iterator that is ours for the call. Both bindings
        // describe the same C type.
        unsafe { IovIterDest::from_raw((&raw mut (*self.raw).msg_iter).cast()) }
    }

    /// Adds `MSG_*` bits to what the receiver is told.
    pub(crate) fn report(&mut self, flags: u32) {
        // SAFETY: The header is ours for the call.
        unsafe { (*self.raw).msg_flags |= flags };
    }

    /// Looks at the control messages of a message to be sent as TCP does, which understands some and
    /// refuses others.
    pub(crate) fn check_control<T: Protocol>(&self, sk: &Sock<T>) -> Result {
        // SAFETY: The header is ours for the call.
        if unsafe { (*self.raw).msg_controllen } == 0 {
            return Ok(());
        }
        // SAFETY: All zeroes is a valid cookie; what they set concerns packets of TCP.
        let mut cookie: bindings::sockcm_cookie =
            unsafe { core::mem::MaybeUninit::zeroed().assume_init() };
        // SAFETY: The socket and the header are valid for the call.
        to_result(unsafe { bindings::sock_cmsg_send(sk.as_ptr(), self.raw, &mut cookie) })?;
        if cookie.dmabuf_id != 0 {
            return Err(EINVAL);
        }
        if cookie.tsflags != 0 {
            // A time stamp of its sending, which nobody would ever give.
            return Err(EOPNOTSUPP);
        }
        Ok(())
    }

    /// Does the caller, who is in the kernel, follow the use of the memory himself?
    pub(crate) fn has_own_notification(&self) -> bool {
        // SAFETY: The header is ours for the call.
        unsafe { !(*self.raw).msg_ubuf.is_null() }
    }

    /// Does the caller, who is in the kernel, want to know how much is left to read?
    pub(crate) fn wants_inq(&self) -> bool {
        // SAFETY: The header is ours for the call.
        unsafe { (*self.raw).msg_get_inq() }
    }

    /// Tells how many bytes are left to read: the kernel, and if `control` the program (`TCP_INQ`).
    pub(crate) fn report_inq(&mut self, inq: c_int, control: bool) {
        // SAFETY: The header is ours for the call, and `inq` is valid for its size.
        unsafe {
            (*self.raw).msg_inq = inq;
            if control {
                bindings::put_cmsg(
                    self.raw,
                    bindings::SOL_TCP as c_int,
                    bindings::TCP_CM_INQ as c_int,
                    size_of::<c_int>() as c_int,
                    ptr::from_ref(&inq).cast_mut().cast(),
                );
            }
        }
    }

    /// Tells when the data has come, in nanoseconds since 1970, in the ways that `sk` was asked for.
    pub(crate) fn report_time<T: Protocol>(&mut self, sk: &Sock<T>, when: i64) {
        // SAFETY: The header and the socket are valid for the call.
        unsafe { bindings::put_timestamp(self.raw, sk.as_ptr(), when) };
    }

    /// A connected stream names no sender.
    pub(crate) fn clear_name(&mut self) {
        // SAFETY: The header is ours for the call.
        unsafe { (*self.raw).msg_namelen = 0 };
    }

    /// Lets TCP send the message.
    pub(crate) fn delegate_send(&mut self, clc: &ClcSock) -> Result<usize> {
        let sendmsg = clc.ops().sendmsg.ok_or(EOPNOTSUPP)?;
        // SAFETY: `clc` is alive, and the header is ours for the call.
        let n = unsafe { sendmsg(clc.as_ptr(), self.raw, self.len) };
        usize::try_from(n).map_err(|_| Error::from_errno(n))
    }

    /// Lets TCP send the message as far as it can without waiting.
    pub(crate) fn delegate_send_now(&mut self, clc: &ClcSock) -> Result<usize> {
        // SAFETY: The header is ours for the call.
        let flags = unsafe { (*self.raw).msg_flags };
        // SAFETY: As above.
        unsafe { (*self.raw).msg_flags = flags | bindings::MSG_DONTWAIT };
        let sent = self.delegate_send(clc);
        // SAFETY: As above.
        unsafe { (*self.raw).msg_flags = flags };
        sent
    }

    /// Lets TCP fill the message.
    pub(crate) fn delegate_receive(&mut self, clc: &ClcSock) -> Result<usize> {
        self.ask_for_data(clc, self.flags)
    }

    /// Lets TCP fill the message as far as it can without waiting.
    pub(crate) fn delegate_receive_now(&mut self, clc: &ClcSock) -> Result<usize> {
        self.ask_for_data(clc, self.flags | bindings::MSG_DONTWAIT)
    }

    fn ask_for_data(&mut self, clc: &ClcSock, flags: u32) -> Result<usize> {
        let recvmsg = clc.ops().recvmsg.ok_or(EOPNOTSUPP)?;
        // SAFETY: `clc` is alive, and the header is ours for the call.
        let n = unsafe { recvmsg(clc.as_ptr(), self.raw, self.len, flags as c_int) };
        usize::try_from(n).map_err(|_| Error::from_errno(n))
    }
}

/// The operations table of protocol `T` for address family `family`.
pub(super) fn table<T: Protocol>(
    family: c_int,
    owner: *mut bindings::module,
) -> bindings::proto_ops {
    bindings::proto_ops {
        family,
        owner,
        release: Some(release::<T>),
        bind: Some(bind::<T>),
        connect: Some(connect::<T>),
        socketpair: Some(bindings::sock_no_socketpair),
        accept: Some(accept::<T>),
        getname: Some(getname::<T>),
        poll: Some(poll::<T>),
        ioctl: Some(ioctl::<T>),
        listen: Some(listen::<T>),
        shutdown: Some(shutdown::<T>),
        setsockopt: Some(setsockopt::<T>),
        getsockopt: Some(getsockopt::<T>),
        sendmsg: Some(sendmsg::<T>),
        recvmsg: Some(recvmsg::<T>),
        mmap: Some(bindings::sock_no_mmap),
        set_peek_off: Some(bindings::sk_set_peek_off),
        gettstamp: Some(bindings::sock_gettstamp),
        splice_read: Some(splice_read::<T>),
        splice_eof: Some(splice_eof::<T>),
        ..Default::default()
    }
}

/// The Rust socket behind a `struct socket`.
///
/// # Safety
///
/// `sock` must be a socket of protocol `T` that a system call is under way on.
unsafe fn sk_of<'a, T: Protocol>(sock: *mut bindings::socket) -> &'a Sock<T> {
    // SAFETY: A system call keeps the socket and its `sk`; our `create` set the `sk` up.
    unsafe { Sock::from_raw((*sock).sk) }
}

fn errno(result: Result) -> c_int {
    match result {
        Ok(()) => 0,
        Err(err) => err.to_errno(),
    }
}

fn count(result: Result<usize>) -> c_int {
    match result {
        // The kernel limits a single transfer to less than `INT_MAX` bytes.
        Ok(n) => c_int::try_from(n).unwrap_or(c_int::MAX),
        Err(err) => err.to_errno(),
    }
}

unsafe extern "C" fn release<T: Protocol>(sock: *mut bindings::socket) -> c_int {
    // SAFETY: The kernel releases a socket once; a socket without `sk` was never completed.
    unsafe {
        let sk = (*sock).sk;
        if sk.is_null() {
            return 0;
        }
        T::release(Sock::<T>::from_raw(sk));
        Sock::<T>::from_raw(sk).unlist();
        bindings::sock_orphan(sk);
        (*sock).sk = ptr::null_mut();
        bindings::sock_put(sk);
    }
    0
}

unsafe extern "C" fn bind<T: Protocol>(
    sock: *mut bindings::socket,
    addr: *mut bindings::sockaddr_unsized,
    len: c_int,
) -> c_int {
    // SAFETY: The kernel passes an address of `len` bytes that it copied from the user.
    errno(unsafe {
        SockAddr::from_raw(addr.cast(), len).and_then(|addr| T::bind(sk_of(sock), addr))
    })
}

unsafe extern "C" fn connect<T: Protocol>(
    sock: *mut bindings::socket,
    addr: *mut bindings::sockaddr_unsized,
    len: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: As in `bind`.
    errno(unsafe {
        SockAddr::from_raw(addr.cast(), len).and_then(|addr| T::connect(sk_of(sock), addr, flags))
    })
}

unsafe extern "C" fn listen<T: Protocol>(sock: *mut bindings::socket, backlog: c_int) -> c_int {
    // SAFETY: The kernel passes a socket of ours.
    errno(T::listen(unsafe { sk_of(sock) }, backlog))
}

unsafe extern "C" fn accept<T: Protocol>(
    sock: *mut bindings::socket,
    newsock: *mut bindings::socket,
    arg: *mut bindings::proto_accept_arg,
) -> c_int {
    // SAFETY: The kernel passes a socket of ours, a new one without `sk`, and its arguments.
    unsafe {
        let nonblock = (*arg).flags & bindings::O_NONBLOCK as c_int != 0;
        match T::accept(sk_of(sock), nonblock) {
            Ok(child) => {
                let child = ARef::into_raw(child).as_ptr();
                // The reference goes to the new socket; `release` gives it back.
                bindings::sock_graft(child.cast(), newsock);
                bindings::take_socket_options(newsock);
                (*newsock).state = bindings::socket_state_SS_CONNECTED;
                T::accepted(&*child);
                0
            }
            Err(err) => err.to_errno(),
        }
    }
}

unsafe extern "C" fn getname<T: Protocol>(
    sock: *mut bindings::socket,
    addr: *mut bindings::sockaddr,
    peer: c_int,
) -> c_int {
    // SAFETY: The kernel passes room for a whole `sockaddr_storage`.
    unsafe {
        let of = match peer {
            0 => NameOf::Own,
            1 => NameOf::Peer,
            _ => NameOf::FormerPeer,
        };
        match T::name(sk_of(sock), of) {
            Ok(name) => name.write_to(addr.cast()) as c_int,
            Err(err) => err.to_errno(),
        }
    }
}

unsafe extern "C" fn poll<T: Protocol>(
    file: *mut bindings::file,
    sock: *mut bindings::socket,
    wait: *mut bindings::poll_table_struct,
) -> bindings::__poll_t {
    // SAFETY: The kernel passes a socket of ours, and the arguments of the poll under way.
    T::poll(unsafe { sk_of(sock) }, &mut Poll { file, wait })
}

unsafe extern "C" fn ioctl<T: Protocol>(
    sock: *mut bindings::socket,
    cmd: c_uint,
    arg: c_ulong,
) -> c_int {
    // SAFETY: The kernel passes a socket of ours.
    let sk = unsafe { sk_of(sock) };
    let arg = Argument::User(arg);
    match T::ioctl(sk, &Ioctl { cmd, arg }) {
        Ok(ret) => ret,
        Err(err) => err.to_errno(),
    }
}

/// `proto::ioctl`: the same for the kernel itself, which asks for io_uring.
///
/// # Safety
///
/// `sk` must be a live socket of protocol `T` that is set up, and `to` valid for writing.
pub(super) unsafe extern "C" fn kernel_ioctl<T: Protocol>(
    sk: *mut bindings::sock,
    cmd: c_int,
    to: *mut c_int,
) -> c_int {
    // SAFETY: Per this function's contract.
    let sk = unsafe { Sock::<T>::from_raw(sk) };
    let call = Ioctl {
        cmd: cmd as c_uint,
        arg: Argument::Kernel(to),
    };
    match T::ioctl(sk, &call) {
        Ok(ret) => ret,
        Err(err) => err.to_errno(),
    }
}

/// Reads into pages of its own, as the kernel does for who has no `splice_read`.
unsafe extern "C" fn splice_read<T: Protocol>(
    sock: *mut bindings::socket,
    ppos: *mut bindings::loff_t,
    pipe: *mut bindings::pipe_inode_info,
    len: usize,
    flags: c_uint,
) -> isize {
    // SAFETY: The kernel passes a socket of ours, which has a file then.
    let (sk, file) = unsafe { (sk_of::<T>(sock), (*sock).file) };
    T::splice_begins(sk);
    // As with TCP, `SO_PEEK_OFF` does not follow what is spliced.
    let offset = sk.peek_offset();
    // SAFETY: These are the arguments of the call under way.
    let spliced = unsafe { bindings::copy_splice_read(file, ppos, pipe, len, flags) };
    sk.restore_peek_offset(offset);
    spliced
}

unsafe extern "C" fn splice_eof<T: Protocol>(sock: *mut bindings::socket) {
    // SAFETY: The kernel passes a socket of ours.
    T::splice_eof(unsafe { sk_of(sock) });
}

unsafe extern "C" fn shutdown<T: Protocol>(sock: *mut bindings::socket, how: c_int) -> c_int {
    // `SHUT_RD`, `SHUT_WR` and `SHUT_RDWR` are 0, 1 and 2.
    match u32::try_from(how) {
        // SAFETY: The kernel passes a socket of ours.
        Ok(how @ 0..=2) => errno(T::shutdown(unsafe { sk_of(sock) }, how)),
        _ => EINVAL.to_errno(),
    }
}

unsafe extern "C" fn setsockopt<T: Protocol>(
    sock: *mut bindings::socket,
    level: c_int,
    name: c_int,
    value: bindings::sockptr_t,
    len: c_uint,
) -> c_int {
    let option = SetOption {
        level,
        name,
        value,
        len: len as c_int,
    };
    // SAFETY: The kernel passes a socket of ours.
    errno(T::setsockopt(unsafe { sk_of(sock) }, &option))
}

unsafe extern "C" fn getsockopt<T: Protocol>(
    sock: *mut bindings::socket,
    level: c_int,
    name: c_int,
    value: *mut c_char,
    len: *mut c_int,
) -> c_int {
    let option = GetOption {
        level,
        name,
        value,
        len,
    };
    // SAFETY: The kernel passes a socket of ours.
    errno(T::getsockopt(unsafe { sk_of(sock) }, &option))
}

unsafe extern "C" fn sendmsg<T: Protocol>(
    sock: *mut bindings::socket,
    msg: *mut bindings::msghdr,
    len: usize,
) -> c_int {
    // SAFETY: The kernel passes a socket of ours and a header that is ours for the call.
    unsafe {
        let mut message = Message {
            raw: msg,
            len,
            flags: (*msg).msg_flags,
        };
        count(T::sendmsg(sk_of(sock), &mut message))
    }
}

unsafe extern "C" fn recvmsg<T: Protocol>(
    sock: *mut bindings::socket,
    msg: *mut bindings::msghdr,
    len: usize,
    flags: c_int,
) -> c_int {
    // SAFETY: The kernel passes a socket of ours and a header that is ours for the call.
    unsafe {
        let mut message = Message {
            raw: msg,
            len,
            flags: flags as u32,
        };
        count(T::recvmsg(sk_of(sock), &mut message))
    }
}
