// SPDX-License-Identifier: GPL-2.0

//! Changing what kind of socket a program gets, by a probe on `__sock_create`.
//!
//! # What C guarantees
//!
//! Every way to a new socket for user space (`socket()`, io_uring) passes `__sock_create()`. The
//! probe's handler runs at its first instruction, in the context of the calling task, with
//! preemption off; what it writes to the saved registers is what the function sees.
//! `unregister_kprobe()` waits until no handler runs.

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
    /// What a program gets in `net` that asks for a `kind`; `None` leaves it alone.
    ///
    /// Called for user sockets only. Context: a probe; must not sleep, allocate, lock or print.
    fn replace(net: &Net, kind: SocketKind) -> Option<SocketKind>;
}

struct State {
    holders: usize,
    probe: Option<Probe>,
}

kernel::sync::global_lock! {
    // SAFETY: `Hold::new` initialises it; without a `Hold` nothing uses it.
    unsafe(uninit) static STATE: Mutex<State> = State { holders: 0, probe: None };
}

static STATE_READY: Once = Once::new();

/// Keeps the probe in place. There is one probe however many holders there are, and none without.
pub(crate) struct Hold<P: SocketPolicy>(PhantomData<fn() -> P>);

impl<P: SocketPolicy> Hold<P> {
    /// Places the probe, unless it is in place already. May sleep.
    ///
    /// All holders of the module must name the same policy.
    ///
    /// # Errors
    ///
    /// What `register_kprobe()` says, when the kernel does not let itself be probed there.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: `STATE_READY` lets this run once only, before the first use below.
        STATE_READY.call(|| unsafe { STATE.init() });
        let mut state = STATE.lock();
        if state.probe.is_none() {
            state.probe = Some(Probe::place::<P>()?);
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
            state.probe = None;
        }
    }
}

/// A probe in place.
///
/// # Invariants
///
/// The C probe is registered.
struct Probe(KBox<Opaque<bindings::kprobe>>);

// SAFETY: A probe is not bound to the thread that placed it.
unsafe impl Send for Probe {}

impl Probe {
    #[cfg(CONFIG_X86_64)]
    fn place<P: SocketPolicy>() -> Result<Self> {
        let probe = KBox::new(
            Opaque::new(bindings::kprobe {
                symbol_name: c"__sock_create".as_char_ptr(),
                pre_handler: Some(handler::<P>),
                ..pin_init::zeroed()
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: The probe is zeroed but for a symbol and a handler, and stays on the heap until it
        // is unregistered.
        to_result(unsafe { bindings::register_kprobe(probe.get()) })?;
        // INVARIANT: Registered just now.
        Ok(Self(probe))
    }

    /// The registers that hold the arguments differ from machine to machine.
    #[cfg(not(CONFIG_X86_64))]
    fn place<P: SocketPolicy>() -> Result<Self> {
        Err(EOPNOTSUPP)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // SAFETY: Registered, by the type invariants.
        unsafe { bindings::unregister_kprobe(self.0.get()) };
    }
}

/// `__sock_create(net, family, type, protocol, res, kern)` was called.
///
/// # Safety
///
/// Called by C only, as the handler of a probe at the function's first instruction.
#[cfg(CONFIG_X86_64)]
unsafe extern "C" fn handler<P: SocketPolicy>(
    _probe: *mut bindings::kprobe,
    regs: *mut bindings::pt_regs,
) -> c_int {
    // SAFETY: C passes the registers of the probed task, which are ours meanwhile.
    let regs = unsafe { &mut *regs };
    // The System V calling convention: rdi, rsi, rdx, rcx, r8, r9. Only the lower half of a register
    // that carries an `int` counts.
    let kern = regs.r9 as c_int;
    // SAFETY: Reads the flags of the current task only.
    if kern != 0 || unsafe { bindings::in_kernel_thread() } {
        return 0;
    }
    let net = regs.di as *mut bindings::net;
    if net.is_null() {
        return 0;
    }
    // SAFETY: `__sock_create` is called with a namespace that its caller keeps alive meanwhile.
    let net = unsafe { Net::from_raw(net) };
    let kind = SocketKind {
        family: regs.si as c_int,
        type_: regs.dx as c_int,
        protocol: regs.cx as c_int,
    };
    if let Some(kind) = P::replace(net, kind) {
        regs.si = register(kind.family);
        regs.dx = register(kind.type_);
        regs.cx = register(kind.protocol);
    }
    0
}

/// An `int` as a caller leaves it in a register.
#[cfg(CONFIG_X86_64)]
fn register(value: c_int) -> c_ulong {
    value as c_uint as c_ulong
}
