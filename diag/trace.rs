// SPDX-License-Identifier: GPL-2.0

//! Trace events (`/sys/kernel/tracing/events/smc`), defined in `smc_events.h`.
//!
//! An event that nobody has enabled is a jump over nothing: what it would tell is not even made.
//!
//! # What C guarantees
//!
//! A tracepoint may be hit in any context. Its static key is patched into the code while the module is
//! loaded. It copies what it is given before it returns; pointers are told, not followed, but for the name of
//! the device.

use kernel::{
    bindings::tracepoint,
    ffi::{
        c_char,
        c_int,
        c_void, //
    },
};

/// Name of a device, ended by a zero.
pub(crate) struct Name([u8; Self::MAX]);

impl Name {
    const MAX: usize = 64;

    /// Copies a name; what is too long is cut off.
    pub(crate) fn new(name: &[u8]) -> Self {
        let mut bytes = [0; Self::MAX];
        for (to, from) in bytes.iter_mut().take(Self::MAX - 1).zip(name) {
            *to = *from;
        }
        // INVARIANT (of the use below): The last byte is zero.
        Self(bytes)
    }

    fn as_ptr(&self) -> *const c_char {
        self.0.as_ptr().cast()
    }
}

/// Declares tracepoints: as `kernel::declare_trace!`, which looks in the kernel's own bindings only.
macro_rules! events {
    ($($name:ident($($argument:ident : $type:ty),*);)*) => {
        mod c {
            use super::*;

            // As in `smc_events.h`.
            #[allow(improper_ctypes, reason = "one of the kernel's types has no fields here")]
            extern "C" {
                $(
                    kernel::macros::paste! {
                        pub(super) static [< __tracepoint_ $name >]: tracepoint;
                        pub(super) fn [< rust_do_trace_ $name >]($($argument: $type),*);
                    }
                )*
            }
        }

        $(
            fn $name(arguments: impl FnOnce(&dyn Fn($($type),*))) {
                kernel::macros::paste! {
                    // SAFETY: A tracepoint of ours, made by `CREATE_TRACE_POINTS`.
                    let enabled = unsafe {
                        kernel::jump_label::static_branch_unlikely!(
                            c::[< __tracepoint_ $name >],
                            tracepoint,
                            key
                        )
                    };
                    if enabled {
                        arguments(&|$($argument),*| {
                            // SAFETY: Any values may be told; the name, if there is one, ends with a
                            // zero and stays for the call.
                            unsafe { c::[< rust_do_trace_ $name >]($($argument),*) }
                        });
                    }
                }
            }
        )*
    };
}

events! {
    smc_switch_to_fallback(sk: *const c_void, clcsk: *const c_void, net: u64, reason: c_int);
    smc_tx_sendmsg(smc: *const c_void, net: u64, len: usize, dev: *const c_char);
    smc_rx_recvmsg(smc: *const c_void, net: u64, len: usize, dev: *const c_char);
    smcr_link_down(
        lnk: *const c_void, lgr: *const c_void, net: u64, state: c_int, dev: *const c_char,
        location: *const c_void
    );
    smc_rs_lgr_begin(lgr: u32, net: u64, server: bool, dev: *const c_char, reason: u32);
    smc_rs_link_up(lgr: u32, net: u64, server: bool, dev: *const c_char, reason: u32);
    smc_rs_lgr_end(lgr: u32, net: u64, server: bool, dev: *const c_char, reason: u32);
    smc_rs_conn_made(token: u32, lgr: u32, net: u64, server: bool);
    smc_rs_conn_over(token: u32, lgr: u32, net: u64, server: bool);
}

/// A socket has fallen back; its address and that of the TCP socket only name them.
pub(crate) fn switch_to_fallback<A, B>(sk: &A, clcsk: &B, net: u64, reason: u32) {
    smc_switch_to_fallback(|tell| {
        let (sk, clcsk) = (core::ptr::from_ref(sk), core::ptr::from_ref(clcsk));
        tell(sk.cast(), clcsk.cast(), net, reason as c_int);
    });
}

/// Data was taken from a program, or given to it.
pub(crate) struct Moved {
    /// Cookie of the network namespace.
    pub(crate) net: u64,
    /// Bytes.
    pub(crate) len: usize,
    /// The RDMA device.
    pub(crate) device: Name,
}

/// Data of a program was put into the send buffer.
pub(crate) fn tx_sendmsg<A>(sk: &A, moved: impl FnOnce() -> Moved) {
    smc_tx_sendmsg(|tell| {
        let Moved { net, len, device } = moved();
        tell(core::ptr::from_ref(sk).cast(), net, len, device.as_ptr());
    });
}

/// Data was given to a program out of the RMB.
pub(crate) fn rx_recvmsg<A>(sk: &A, moved: impl FnOnce() -> Moved) {
    smc_rx_recvmsg(|tell| {
        let Moved { net, len, device } = moved();
        tell(core::ptr::from_ref(sk).cast(), net, len, device.as_ptr());
    });
}

/// A link group.
pub(crate) struct Group {
    /// Its number.
    pub(crate) number: u32,
    /// Cookie of the network namespace.
    pub(crate) net: u64,
    /// We are the server.
    pub(crate) server: bool,
    /// The RDMA device.
    pub(crate) device: Name,
}

/// A link has failed, or was ended by the peer. `state` is an `enum smc_link_state`.
pub(crate) fn link_down<L, G>(link: &L, group: &G, state: u32, about: impl FnOnce() -> Group) {
    smcr_link_down(|tell| {
        let about = about();
        let location: fn(&L, &G, u32, fn() -> Group) = link_down::<L, G>;
        tell(
            core::ptr::from_ref(link).cast(),
            core::ptr::from_ref(group).cast(),
            about.net,
            state as c_int,
            about.device.as_ptr(),
            location as *const c_void,
        );
    });
}

/// What happens to a link group.
#[derive(Clone, Copy)]
pub(crate) enum Life {
    /// It begins: its first connection is being made.
    Begin,
    /// Its link is confirmed.
    LinkUp,
    /// It ends, for a reason of DELETE LINK.
    End(u32),
}

/// A link group begins, has its link, or ends.
pub(crate) fn group(life: Life, about: impl FnOnce() -> Group) {
    let tell_of = |tell: &dyn Fn(u32, u64, bool, *const c_char, u32), reason: u32| {
        let about = about();
        let name = about.device.as_ptr();
        tell(about.number, about.net, about.server, name, reason);
    };
    match life {
        Life::Begin => smc_rs_lgr_begin(|tell| tell_of(tell, 0)),
        Life::LinkUp => smc_rs_link_up(|tell| tell_of(tell, 0)),
        Life::End(reason) => smc_rs_lgr_end(|tell| tell_of(tell, reason)),
    }
}

/// A connection was made (`made`), or is over, in a link group of this number.
pub(crate) fn connection(made: bool, token: u32, lgr: u32, net: u64, server: bool) {
    if made {
        smc_rs_conn_made(|tell| tell(token, lgr, net, server));
    } else {
        smc_rs_conn_over(|tell| tell(token, lgr, net, server));
    }
}
