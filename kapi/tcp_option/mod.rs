// SPDX-License-Identifier: GPL-2.0

//! The TCP option of the rendezvous, on a kernel whose TCP does not know it.
//!
//! - A socket's `ops` say what it is to SMC ([`state`]).
//! - A netfilter hook puts the option into the SYNs and SYN-ACKs of such sockets ([`hook`]), and marks
//!   the saved SYN of a request whose SYN-ACK carries it. `clc/tcp_header.rs` does it to the bytes.
//! - A copy of the socket's connection operations sees the SYN-ACK on the client's side, and the
//!   child on the server's ([`shim`]).
//!
//! Nothing points into this module from a socket that went through [`forget`], or that a listener
//! of ours has made and that was not accepted, but for a tag that nobody reads through. That one stays where such a
//! socket is moved to a listener that is not ours (`net.ipv4.tcp_migrate_req`).

mod hook;
mod shim;
mod state;
mod table;

use core::mem::MaybeUninit;

use crate::kapi::prelude::*;
use kernel::{
    error::to_result,
    pr_warn_once,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
};

use super::{
    clcsock::{
        ClcSock,
        NameOf,
        SockAddr, //
    },
    netns::{
        Net,
        Pernet, //
    },
};
use crate::{
    bindings,
    clc::tcp_option::SynMark, //
};

pub(crate) use hook::Slot;

static MARK: Atomic<u32> = Atomic::new(0);

/// The mark for saved SYNs.
fn mark() -> SynMark {
    SynMark::from_random(MARK.load(Relaxed))
}

/// Lets sockets use the option. To be dropped after all sockets of the module are gone; waits until no code
/// of this module runs for a packet.
pub(crate) struct Registration {
    _hooks: Pernet<hook::Hook>,
}

impl Registration {
    /// Prepares all namespaces. May sleep.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there is a registration; `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let mut random = [0; 4];
        // SAFETY: The buffer has this length.
        unsafe { bindings::get_random_bytes(random.as_mut_ptr().cast(), random.len()) };
        MARK.store(u32::from_ne_bytes(random), Relaxed);
        Ok(Self {
            _hooks: Pernet::register()?,
        })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Processing of a packet may have met a listener's connection operations before the listener
        // was closed. The hooks go after this, and wait for themselves.
        // SAFETY: This is process context.
        unsafe { bindings::synchronize_net() };
    }
}

/// Holds the lock of a TCP socket, in process context.
struct SockLock(*mut bindings::sock);

impl SockLock {
    /// Takes the lock. May sleep.
    ///
    /// # Safety
    ///
    /// `socket` must be a valid TCP socket for as long as the lock is held, not locked by the caller.
    unsafe fn new(socket: *mut bindings::socket) -> Self {
        // SAFETY: The caller vouches for the socket.
        let sk = unsafe { (*socket).sk };
        // SAFETY: As above.
        unsafe { bindings::lock_sock_nested(sk, 0) };
        Self(sk)
    }
}

impl Drop for SockLock {
    fn drop(&mut self) {
        // SAFETY: Locked by us, and valid per `new`'s contract.
        unsafe { bindings::release_sock(self.0) };
    }
}

/// Has the option sent in the namespace of `clc`, until [`forget`].
fn hold(clc: &ClcSock) -> Result {
    // SAFETY: The socket is alive, and holds a reference to its namespace.
    let net = unsafe { Net::from_raw(bindings::sock_net(clc.sk())) };
    clc.slot().fill(hook::HookRef::new(net)?);
    Ok(())
}

/// Makes a client's socket ask for SMC in its SYN. To be called before [`connect`]. May sleep.
///
/// # Errors
///
/// `ENODEV` if the namespace exits; `ENOMEM`; `ENOSPC` if the socket is not an ordinary TCP socket
/// any more (an upper-layer protocol has it).
pub(crate) fn want(clc: &ClcSock) -> Result {
    hold(clc)?;
    // SAFETY: The socket is alive, and nobody in this module calls with its lock held.
    let _lock = unsafe { SockLock::new(clc.as_ptr()) };
    // SAFETY: The socket is a locked kernel TCP socket.
    unsafe { state::want(clc.as_ptr()) }
}

/// Makes a socket an ordinary TCP socket again, whatever it was; nothing of it points into the
/// module then. May sleep.
///
/// To be called when the rendezvous is over, and before somebody else gets the socket. Dropping the
/// socket does it, too.
pub(crate) fn forget(clc: &ClcSock) {
    {
        // SAFETY: The socket is alive, and nobody in this module calls with its lock held.
        let lock = unsafe { SockLock::new(clc.as_ptr()) };
        // SAFETY: The socket is locked.
        unsafe { state::clear(clc.as_ptr()) };
        // SAFETY: As above.
        unsafe { shim::remove(lock.0) };
        // SAFETY: As above.
        unsafe { shim::take_negotiated(lock.0) };
        let tp: *mut bindings::tcp_sock = lock.0.cast();
        // SAFETY: As above.
        unsafe {
            if (*tp).save_syn() == shim::SAVE_SYN_OURS {
                (*tp).set_save_syn(0);
            }
        }
    }
    clc.slot().clear();
}

/// Whether the server has answered that it speaks SMC. May sleep (for the lock); meaningful once the
/// client's connection is established, and until [`forget`].
pub(crate) fn confirmed(clc: &ClcSock) -> bool {
    // TCP says that it is established a moment before its SYN-ACK has been looked at, both under the lock.
    // SAFETY: The socket is alive, and no caller holds its lock.
    let _lock = unsafe { SockLock::new(clc.as_ptr()) };
    // SAFETY: As above.
    unsafe { state::of(clc.as_ptr()) == state::State::Confirmed }
}

/// Starts to connect, without waiting, and listens for the server's answer if [`want`] was called.
/// May sleep (for the lock and for memory).
///
/// # Errors
///
/// `EINPROGRESS` is the normal answer; otherwise what TCP says.
pub(crate) fn connect(clc: &ClcSock, addr: SockAddr) -> Result {
    // SAFETY: All zeroes is a valid address.
    let mut copy: bindings::__kernel_sockaddr_storage =
        unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: This is room for a whole address.
    let len = unsafe { addr.write_to((&raw mut copy).cast()) };
    let socket = clc.as_ptr();
    // SAFETY: The socket is alive, and nobody in this module calls with its lock held.
    let lock = unsafe { SockLock::new(socket) };
    // From an earlier attempt.
    // SAFETY: The socket is locked.
    unsafe { shim::remove(lock.0) };
    // `TCP_FASTOPEN_CONNECT` would put the SYN off until the user sends something, which an SMC socket
    // does after the rendezvous.
    // SAFETY: The socket is locked.
    unsafe { (*lock.0.cast::<bindings::tcp_sock>()).set_fastopen_connect(0) };
    // SAFETY: As above; the address is a copy of this length.
    let result = to_result(unsafe {
        bindings::__inet_stream_connect(
            socket,
            (&raw mut copy).cast(),
            len as c_int,
            bindings::O_NONBLOCK as c_int,
            0,
        )
    });
    // The answer waits in the socket's backlog as long as we have the lock. Not earlier, since TCP
    // may exchange the operations when it connects (IPv4 over an IPv6 socket).
    // SAFETY: The socket is alive and locked.
    let asking = unsafe {
        u32::from((*lock.0).__sk_common.skc_state) == bindings::TCP_SYN_SENT
            && state::of(socket) == state::State::Wanted
    };
    if asking {
        // SAFETY: The socket is locked; it goes through `forget` before the module goes.
        if let Err(error) = unsafe { shim::install(lock.0) } {
            // The SYN has gone out, but nobody would see the answer. A server that speaks SMC gives
            // up waiting for our first message and carries on as TCP.
            pr_warn_once!(
                "cannot see the answer to the SMC option: error {}\n",
                error.to_errno(),
            );
            // SAFETY: The socket is locked.
            unsafe { state::clear(socket) };
        }
    }
    result
}

/// Ends a client's connection, by a reset if need be, or what has become of a failed one: the socket
/// can be connected as if it were new. Its options stay. May sleep.
///
/// # Errors
///
/// What TCP says.
pub(crate) fn disconnect(clc: &ClcSock) -> Result {
    // The family of all zeroes is `AF_UNSPEC`, which is what disconnects.
    // SAFETY: All zeroes is a valid address.
    let mut address: bindings::__kernel_sockaddr_storage =
        unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: The socket is alive, and nobody in this module calls with its lock held.
    let lock = unsafe { SockLock::new(clc.as_ptr()) };
    // SAFETY: The socket is locked; the address is valid for its length.
    let result = to_result(unsafe {
        bindings::__inet_stream_connect(
            clc.as_ptr(),
            (&raw mut address).cast(),
            size_of_val(&address) as c_int,
            bindings::O_NONBLOCK as c_int,
            0,
        )
    });
    // The reset is our own doing.
    // SAFETY: The socket is alive.
    unsafe { bindings::sock_error(lock.0) };
    result
}

/// Makes a client's connection anew, without the option and without waiting; the old one ends by a
/// reset. The socket's options stay, and so do its own address and port, unless somebody else has got
/// them meanwhile. May sleep.
///
/// # Errors
///
/// As [`connect`].
pub(crate) fn reconnect(clc: &ClcSock, addr: SockAddr) -> Result {
    forget(clc);
    let own = clc.name(NameOf::Own);
    // SAFETY: The socket is alive; nobody else changes what the user has fixed, who waits.
    let fixed = unsafe { bindings::sk_userlocks(clc.sk()) };
    disconnect(clc)?;
    // TCP has let go of what the user has not fixed.
    if let (Ok(own), 0) = (own, clc.addresses().port) {
        let _ = clc.bind(own);
    }
    let result = connect(clc, addr);
    // SAFETY: The socket is alive, and nobody in this module calls with its lock held.
    let lock = unsafe { SockLock::new(clc.as_ptr()) };
    // SAFETY: The socket is locked.
    unsafe { bindings::set_sk_userlocks(lock.0, fixed) };
    let failed = result.is_err_and(|err| err != EINPROGRESS);
    if failed && u32::from(fixed) & bindings::SOCK_BINDPORT_LOCK == 0 {
        // TCP has kept what was fixed then. With a port it could not be bound anew.
        // SAFETY: As above.
        unsafe { bindings::sk_put_port(lock.0) };
        drop(lock);
        // This lets go of the address.
        let _ = disconnect(clc);
    }
    result
}

/// Makes a server's socket answer SYNs that carry the option. To be called before it listens. May
/// sleep.
///
/// Sets `TCP_SAVE_SYN`, to 3 unless the user has set it; TCP takes that for 1.
///
/// # Errors
///
/// As [`want`].
pub(crate) fn prepare_listener(clc: &ClcSock) -> Result {
    hold(clc)?;
    let socket = clc.as_ptr();
    // SAFETY: The socket is alive, and nobody in this module calls with its lock held.
    let lock = unsafe { SockLock::new(socket) };
    // SAFETY: The socket is locked; it goes through `forget` before the module goes.
    unsafe { shim::install(lock.0)? };
    // SAFETY: The socket is a locked kernel TCP socket.
    if let Err(error) = unsafe { state::want(socket) } {
        // SAFETY: As above.
        unsafe { shim::remove(lock.0) };
        return Err(error);
    }
    save_syn(&lock);
    Ok(())
}

/// Has the SYNs of a listener's connections saved, unless that is so.
fn save_syn(lock: &SockLock) {
    let tp: *mut bindings::tcp_sock = lock.0.cast();
    // SAFETY: The socket is a locked TCP socket.
    unsafe {
        if (*tp).save_syn() == 0 {
            (*tp).set_save_syn(shim::SAVE_SYN_OURS);
        }
    }
}

/// After the user has set `TCP_SAVE_SYN` of a prepared listener: we need it still. May sleep.
pub(crate) fn keep_saving_syn(clc: &ClcSock) {
    // SAFETY: The socket is alive, and nobody in this module calls with its lock held.
    let lock = unsafe { SockLock::new(clc.as_ptr()) };
    save_syn(&lock);
}

/// Whether SYNs are saved for us, and not for the user. May sleep.
pub(crate) fn saves_syn_unasked(clc: &ClcSock) -> bool {
    // SAFETY: The socket is alive, and nobody in this module calls with its lock held.
    let lock = unsafe { SockLock::new(clc.as_ptr()) };
    let tp: *const bindings::tcp_sock = lock.0.cast();
    // SAFETY: The socket is a locked TCP socket.
    unsafe { (*tp).save_syn() == shim::SAVE_SYN_OURS }
}

/// Makes a prepared listener leave the option out of the SYN-ACKs for new connections (`true`), or
/// answer again. Does nothing to other sockets. May sleep.
pub(crate) fn pause_listener(clc: &ClcSock, pause: bool) {
    let socket = clc.as_ptr();
    // SAFETY: The socket is alive, and nobody in this module calls with its lock held.
    let _lock = unsafe { SockLock::new(socket) };
    // SAFETY: The socket is locked.
    unsafe { state::pause(socket, pause) };
}

/// Whether a connection that a prepared listener has accepted is to become SMC: the SYN and our
/// SYN-ACK carried the option. The socket is an ordinary TCP socket afterwards. May sleep.
///
/// Answers `true` once only.
pub(crate) fn child_negotiated(clc: &ClcSock) -> bool {
    // SAFETY: The socket is alive, and nobody in this module calls with its lock held.
    let lock = unsafe { SockLock::new(clc.as_ptr()) };
    // SAFETY: The socket is locked.
    unsafe { state::clear(clc.as_ptr()) };
    // SAFETY: As above.
    unsafe { shim::take_negotiated(lock.0) }
}
