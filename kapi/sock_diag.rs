// SPDX-License-Identifier: GPL-2.0

//! `sock_diag`: tells user space of all sockets of a protocol (`NETLINK_SOCK_DIAG`).
//!
//! # What C guarantees
//!
//! The handler of a family is called in process context with a reference to its owner module. It may
//! still be looked up, under RCU, while it is being unregistered.

use super::{
    netlink::Dump,
    netns::Net,
    sock::{
        Protocol,
        Sock, //
    },
    version, //
};
use crate::bindings;
use crate::kapi::prelude::*;
use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    error::{
        to_result,
        Result, //
    },
    ffi::{
        c_int,
        c_long, //
    },
    types::Opaque,
};

/// A protocol whose sockets are listed.
pub(crate) trait Diag: Protocol {
    /// Address family under which user space asks for them.
    const FAMILY: u8;

    /// Bytes of a request, behind its netlink header, that [`Self::describe`] needs.
    const REQUEST: usize;

    /// Adds a message about `sk` to the answer, or none if it is to be left out. Process context, no locks held.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if it does not fit: the socket comes first in the next part.
    fn describe(sk: &Sock<Self>, dump: &mut Dump<'_>) -> Result;
}

/// What `sock_diag` shows of every socket.
pub(crate) struct Identity {
    /// Identifies the socket for as long as the machine runs.
    pub(crate) cookie: [u32; 2],
    /// Inode number of the user's socket; 0 if it has none.
    pub(crate) inode: u64,
    /// Its owner, as a user ID in the asker's user namespace.
    pub(crate) uid: u32,
    /// The state byte ([`Sock::set_state`]).
    pub(crate) state: u8,
}

impl Identity {
    /// The identity of `sk`, for who has asked for `dump`.
    pub(crate) fn of<T: Protocol>(sk: &Sock<T>, dump: &Dump<'_>) -> Self {
        let mut cookie = [0; 2];
        // SAFETY: The socket is alive, and so is the request; the state is a single byte that changes
        // concurrently.
        unsafe {
            bindings::sock_diag_save_cookie(sk.as_ptr(), cookie.as_mut_ptr());
            Self {
                cookie,
                inode: bindings::sock_i_ino(sk.as_ptr()),
                uid: bindings::sk_uid_for(sk.as_ptr(), dump.asker()),
                state: ptr::read_volatile(&raw const (*sk.as_ptr()).__sk_common.skc_state),
            }
        }
    }
}

/// Makes `T` known to `sock_diag`, until it is dropped.
///
/// # Invariants
///
/// `handler` is registered.
pub(crate) struct Registration<T> {
    handler: KBox<Opaque<bindings::sock_diag_handler>>,
    _protocol: PhantomData<fn(T)>,
}

// SAFETY: Registration and its end are not bound to a thread.
unsafe impl<T> Send for Registration<T> {}
// SAFETY: A shared `Registration` offers nothing.
unsafe impl<T> Sync for Registration<T> {}

impl<T: Diag> Registration<T> {
    /// Registers. Process context.
    ///
    /// # Errors
    ///
    /// `EBUSY` if somebody else answers for the family; `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let handler = KBox::new(
            Opaque::new(bindings::sock_diag_handler {
                owner: version::this_module(),
                family: T::FAMILY,
                dump: Some(asked::<T>),
                get_info: None,
                destroy: None,
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: The handler is on the heap, where it stays until a grace period after it was
        // unregistered.
        to_result(unsafe { bindings::sock_diag_register(handler.get()) })?;
        // INVARIANT: Registered just now.
        Ok(Self {
            handler,
            _protocol: PhantomData,
        })
    }
}

impl<T> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: Registered, by the type invariants. Who has found the handler under RCU is done
        // with it after the grace period, or has a reference to the module, which is then not unloaded.
        unsafe {
            bindings::sock_diag_unregister(self.handler.get());
            bindings::synchronize_rcu();
        }
    }
}

/// Words of `netlink_callback::args` that a dump uses.
const AFTER: usize = 0;
const LAST: usize = 1;

/// `sock_diag_handler::dump`: a request has come.
///
/// # Safety
///
/// Called by C only.
unsafe extern "C" fn asked<T: Diag>(
    skb: *mut bindings::sk_buff,
    nlh: *mut bindings::nlmsghdr,
) -> c_int {
    // SAFETY: C passes a request that is alive throughout.
    let (flags, len) = unsafe { ((*nlh).nlmsg_flags, (*nlh).nlmsg_len) };
    if (len as usize) < size_of::<bindings::nlmsghdr>() + T::REQUEST {
        return EINVAL.to_errno();
    }
    // Any bit of the two is taken for a dump: smcss sends `NLM_F_ROOT` only. There is no other
    // request.
    if u32::from(flags) & bindings::NLM_F_DUMP == 0 {
        return 0;
    }
    let mut control = bindings::netlink_dump_control {
        start: Some(begin::<T>),
        dump: Some(go_on::<T>),
        module: version::this_module(),
        min_dump_alloc: bindings::DIAG_DUMP_SIZE,
        ..Default::default()
    };
    // SAFETY: The request is alive; its namespace has the kernel's netlink socket, through which it
    // has come. C copies what it needs of `control`.
    unsafe {
        let net = bindings::sock_net((*skb).sk);
        bindings::__netlink_dump_start((*net).diag_nlsk, skb, nlh, &mut control)
    }
}

/// `netlink_dump_control::start`.
///
/// # Safety
///
/// Called by C only.
unsafe extern "C" fn begin<T: Diag>(cb: *mut bindings::netlink_callback) -> c_int {
    // Sockets made from now on are left out: a dump ends, however many are made meanwhile.
    let last = T::tables().sockets().map_or(0, |sockets| sockets.last());
    // SAFETY: C passes the callback of a new dump, whose words are ours.
    unsafe {
        let args = &mut (*cb).__bindgen_anon_1.args;
        args[AFTER] = 0;
        args[LAST] = last as c_long;
    }
    0
}

/// `netlink_dump_control::dump`: fills one part. Returns its length; 0 ends the dump.
///
/// # Safety
///
/// Called by C only.
unsafe extern "C" fn go_on<T: Diag>(
    skb: *mut bindings::sk_buff,
    cb: *mut bindings::netlink_callback,
) -> c_int {
    let (Some(skb), Some(cb), Some(sockets)) =
        (NonNull::new(skb), NonNull::new(cb), T::tables().sockets())
    else {
        return 0;
    };
    // SAFETY: C passes the buffer of this part, which the asker's socket owns: that keeps its
    // namespace.
    let net = unsafe { Net::from_raw(bindings::sock_net((*skb.as_ptr()).sk)) };
    // SAFETY: The words of the callback are ours.
    let args = unsafe { (*cb.as_ptr()).__bindgen_anon_1.args };
    let (mut after, last) = (args[AFTER] as u64, args[LAST] as u64);
    // SAFETY: These are the arguments of this callback.
    let mut dump = unsafe { Dump::from_raw(skb, cb) };
    let mut failed = 0;
    while let Some((number, sk)) = sockets.next(net, after, last) {
        if let Err(err) = T::describe(&sk, &mut dump) {
            failed = err.to_errno();
            break;
        }
        after = number;
    }
    // SAFETY: As above.
    unsafe { (*cb.as_ptr()).__bindgen_anon_1.args[AFTER] = after as c_long };
    // SAFETY: The buffer is ours.
    match unsafe { (*skb.as_ptr()).len } {
        0 => failed,
        len => len as c_int,
    }
}
