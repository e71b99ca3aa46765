// SPDX-License-Identifier: GPL-2.0

//! Changing what kind of socket a program gets, by probes on the functions behind `socket()`.
//!
//! # What C guarantees
//!
//! Every way to a new socket for user space passes `__sys_socket()` (`socket()`, `socketcall()`) or
//! `__sys_socket_file()` (io_uring), which the kernel does not call for itself; `__sock_create()`, one
//! step further, it calls for sockets of its own, too (siw, nvmet-tcp and others with `kern` = 0).
//! What `security_socket_create()` and `security_socket_post_create()` are told is what security
//! modules see; the socket is made by what `__sock_create()` has.
//!
//! A compiler may put copies of functions into their callers, where no probe sees them. In Debian's
//! kernels it has not done so with these, as the selftests show (`tcp2smc.what_becomes_what`).
//!
//! The probe's handler runs at a function's first instruction, in the context of the calling task, with
//! preemption off; what it writes to the saved registers is what the function sees.
//! `unregister_kprobes()` waits until no handler runs.

use core::marker::PhantomData;

use crate::kapi::prelude::*;
use kernel::{
    error::to_result,
    types::Opaque, //
};

use super::{
    netns::Net,
    once::Once, //
};
use crate::bindings;

/// The triple that names a kind of socket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketKind {
    /// The address family (`AF_*`).
    pub(crate) family: i32,
    /// The type (`SOCK_*`), without flags.
    pub(crate) type_: i32,
    /// The protocol (`IPPROTO_*`), 0 for the family's default.
    pub(crate) protocol: i32,
}

/// Decides which sockets become others.
pub(crate) trait SocketPolicy: 'static {
    /// What a program gets in `net` that asks for a `kind`; `None` leaves it alone. The type stays.
    ///
    /// Called for user sockets only. Context: a probe; must not sleep, allocate, lock or print.
    fn replace(net: &Net, kind: SocketKind) -> Option<SocketKind>;

    /// What security modules are told that a user socket of this `kind` is; `None`: the truth.
    ///
    /// Context: as [`Self::replace`].
    fn appearance(kind: SocketKind) -> Option<SocketKind>;
}

struct State {
    holders: usize,
    probes: Option<Probes>,
}

kernel::sync::global_lock! {
    // SAFETY: `Hold::new` initialises it; without a `Hold` nothing uses it.
    unsafe(uninit) static STATE: Mutex<State> = State { holders: 0, probes: None };
}

static STATE_READY: Once = Once::new();

/// Keeps the probes in place. They are there once however many holders there are, and not without.
pub(crate) struct Hold<P: SocketPolicy>(PhantomData<fn() -> P>);

impl<P: SocketPolicy> Hold<P> {
    /// Places the probes, unless they are in place already. May sleep.
    ///
    /// All holders of the module must name the same policy.
    ///
    /// # Errors
    ///
    /// What `register_kprobes()` says, when the kernel does not let itself be probed there.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: `STATE_READY` lets this run once only, before the first use below.
        STATE_READY.call(|| unsafe { STATE.init() });
        let mut state = STATE.lock();
        if state.probes.is_none() {
            state.probes = Some(Probes::place::<P>()?);
        }
        state.holders = state.holders.saturating_add(1);
        Ok(Self(PhantomData))
    }
}

impl<P: SocketPolicy> Drop for Hold<P> {
    fn drop(&mut self) {
        let mut state = STATE.lock();
        state.holders = state.holders.saturating_sub(1);
        if state.holders == 0 {
            state.probes = None;
        }
    }
}

/// Number of the places in [`Probes::place`].
const PLACES: usize = 4;

/// The probes in place.
///
/// # Invariants
///
/// The C probes are registered.
struct Probes(KBox<[Opaque<bindings::kprobe>; PLACES]>);

// SAFETY: Probes are not bound to the thread that placed them.
unsafe impl Send for Probes {}

impl Probes {
    #[cfg(CONFIG_X86_64)]
    fn place<P: SocketPolicy>() -> Result<Self> {
        let probe = |symbol: &'static CStr, handler: Handler| {
            Opaque::new(bindings::kprobe {
                symbol_name: symbol.as_char_ptr(),
                pre_handler: Some(handler),
                ..pin_init::zeroed()
            })
        };
        // What security modules see comes first: no socket is to be changed without that.
        let probes = KBox::new(
            [
                probe(c"security_socket_create", before_create::<P>),
                probe(c"security_socket_post_create", after_create::<P>),
                probe(c"__sys_socket", socket_asked_for::<P>),
                probe(c"__sys_socket_file", socket_asked_for::<P>),
            ],
            GFP_KERNEL,
        )?;
        let mut all = probes.each_ref().map(Opaque::get);
        // SAFETY: The probes are zeroed but for a symbol and a handler, and stay on the heap until they
        // are unregistered. The array of pointers is only read. Where one fails, C takes back the others.
        to_result(unsafe { bindings::register_kprobes(all.as_mut_ptr(), PLACES as c_int) })?;
        // INVARIANT: Registered just now.
        Ok(Self(probes))
    }

    /// The registers that hold the arguments differ from machine to machine.
    #[cfg(not(CONFIG_X86_64))]
    fn place<P: SocketPolicy>() -> Result<Self> {
        Err(EOPNOTSUPP)
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        let mut all = self.0.each_ref().map(Opaque::get);
        // SAFETY: Registered, by the type invariants. The array of pointers is only read.
        unsafe { bindings::unregister_kprobes(all.as_mut_ptr(), PLACES as c_int) };
    }
}

type Handler = unsafe extern "C" fn(*mut bindings::kprobe, *mut bindings::pt_regs) -> c_int;

// The System V calling convention: rdi, rsi, rdx, rcx, r8, r9. Only the lower half of a register that
// carries an `int` counts.

/// `__sys_socket(family, type, protocol)`, or `__sys_socket_file()` with the same, was called.
///
/// # Safety
///
/// Called by C only, as the handler of a probe at the function's first instruction.
#[cfg(CONFIG_X86_64)]
unsafe extern "C" fn socket_asked_for<P: SocketPolicy>(
    _probe: *mut bindings::kprobe,
    regs: *mut bindings::pt_regs,
) -> c_int {
    // SAFETY: C passes the registers of the probed task, which are ours meanwhile.
    let regs = unsafe { &mut *regs };
    // SAFETY: Reads the current task only.
    let net = unsafe { bindings::current_net() };
    if net.is_null() {
        return 0;
    }
    // SAFETY: The task keeps its namespace alive, and does nothing else meanwhile.
    let net = unsafe { Net::from_raw(net) };
    let kind = SocketKind {
        family: regs.di as c_int,
        type_: regs.si as c_int & bindings::SOCK_TYPE_MASK as c_int,
        protocol: regs.dx as c_int,
    };
    if let Some(kind) = P::replace(net, kind) {
        regs.di = register(kind.family);
        regs.dx = register(kind.protocol);
    }
    0
}

/// `security_socket_create(family, type, protocol, kern)` was called.
///
/// # Safety
///
/// Called by C only, as the handler of a probe at the function's first instruction.
#[cfg(CONFIG_X86_64)]
unsafe extern "C" fn before_create<P: SocketPolicy>(
    _probe: *mut bindings::kprobe,
    regs: *mut bindings::pt_regs,
) -> c_int {
    // SAFETY: C passes the registers of the probed task, which are ours meanwhile.
    let regs = unsafe { &mut *regs };
    disguise::<P>(&mut regs.di, regs.si, &mut regs.dx, regs.cx);
    0
}

/// `security_socket_post_create(sock, family, type, protocol, kern)` was called.
///
/// # Safety
///
/// Called by C only, as the handler of a probe at the function's first instruction.
#[cfg(CONFIG_X86_64)]
unsafe extern "C" fn after_create<P: SocketPolicy>(
    _probe: *mut bindings::kprobe,
    regs: *mut bindings::pt_regs,
) -> c_int {
    // SAFETY: C passes the registers of the probed task, which are ours meanwhile.
    let regs = unsafe { &mut *regs };
    disguise::<P>(&mut regs.si, regs.dx, &mut regs.cx, regs.r8);
    0
}

#[cfg(CONFIG_X86_64)]
fn disguise<P: SocketPolicy>(
    family: &mut c_ulong,
    type_: c_ulong,
    protocol: &mut c_ulong,
    kern: c_ulong,
) {
    if kern as c_int != 0 {
        return;
    }
    let kind = SocketKind {
        family: *family as c_int,
        type_: type_ as c_int,
        protocol: *protocol as c_int,
    };
    if let Some(kind) = P::appearance(kind) {
        *family = register(kind.family);
        *protocol = register(kind.protocol);
    }
}

/// An `int` as a caller leaves it in a register.
#[cfg(CONFIG_X86_64)]
fn register(value: c_int) -> c_ulong {
    value as c_uint as c_ulong
}
