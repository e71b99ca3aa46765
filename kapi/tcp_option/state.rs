// SPDX-License-Identifier: GPL-2.0

//! What a TCP socket is to SMC, kept in its `ops` pointer.
//!
//! Only this module has the kernel TCP sockets that it makes, so that what their `ops` point to is
//! its own business, as long as the operations are the same. Two copies of the original table say
//! what the socket is: there is nothing to allocate, to look up or to free.
//!
//! # What C guarantees
//!
//! `struct socket` is freed an RCU grace period after `sock_release()`. `sk->sk_socket` becomes null
//! before that. `kernel_accept()` gives a child the listener's `ops`.

use core::ptr;

use kernel::prelude::*;

use super::table::Copies;
use crate::bindings;

/// What a socket is to SMC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// An ordinary TCP socket.
    Plain,
    /// The option goes into its SYN, or into the SYN-ACKs for SYNs that carry it.
    Wanted,
    /// The peer's SYN-ACK carried the option, too.
    Confirmed,
    /// A listener whose SYN-ACKs leave the option out for the time being.
    Paused,
}

static COPIES: Copies<bindings::proto_ops, 3> = Copies::new();
const WANTED: usize = 0;
const CONFIRMED: usize = 1;
const PAUSED: usize = 2;

/// Reads a socket's operations.
///
/// # Safety
///
/// `socket` must be valid.
unsafe fn ops_of(socket: *const bindings::socket) -> *const bindings::proto_ops {
    // SAFETY: Per this function's contract; the pointer may change meanwhile, in one piece.
    unsafe { ptr::read_volatile(&raw const (*socket).ops) }
}

/// Changes a socket's operations.
///
/// # Safety
///
/// `socket` must be valid and its `sk` locked; `ops` must be its original operations or a copy.
unsafe fn set_ops(socket: *mut bindings::socket, ops: *const bindings::proto_ops) {
    // SAFETY: Per this function's contract; the pointer is read without the lock.
    unsafe { ptr::write_volatile(&raw mut (*socket).ops, ops) }
}

/// What a socket is. Any context.
///
/// # Safety
///
/// `socket` must be valid.
pub(super) unsafe fn of(socket: *const bindings::socket) -> State {
    // SAFETY: The caller vouches for the socket.
    match COPIES.find(unsafe { ops_of(socket) }) {
        None => State::Plain,
        Some((WANTED, _)) => State::Wanted,
        Some((PAUSED, _)) => State::Paused,
        Some(_) => State::Confirmed,
    }
}

/// What the socket of `sk` is. Any context.
///
/// # Safety
///
/// `sk` must be a valid full socket. The caller must hold the RCU read lock or the socket's.
pub(super) unsafe fn of_sk(sk: *const bindings::sock) -> State {
    // SAFETY: The caller vouches for `sk`; the pointer may become null meanwhile.
    let socket = unsafe { ptr::read_volatile(&raw const (*sk).sk_socket) };
    if socket.is_null() {
        return State::Plain;
    }
    // SAFETY: A `struct socket` that was found through its `sk` is not freed before a grace period
    // is over, nor released without the lock.
    unsafe { of(socket) }
}

/// Makes the socket [`State::Wanted`]. May sleep.
///
/// # Errors
///
/// `ENOSPC` if its operations are not TCP's.
///
/// # Safety
///
/// `socket` must be a valid kernel TCP socket, its `sk` locked in process context.
pub(super) unsafe fn want(socket: *mut bindings::socket) -> Result {
    // SAFETY: The caller vouches for the socket. The operations of kernel TCP sockets are constants
    // of the kernel.
    let ops = unsafe { COPIES.variant_or_make(ops_of(socket), WANTED, |_, _| ())? };
    // SAFETY: The copy is one of the socket's own operations.
    unsafe { set_ops(socket, ops) };
    Ok(())
}

/// Makes a [`State::Wanted`] socket [`State::Confirmed`]. Any context.
///
/// # Safety
///
/// `sk` must be a valid TCP socket that the caller has locked.
pub(super) unsafe fn confirm(sk: *mut bindings::sock) {
    // SAFETY: The caller vouches for `sk`; only the lock's owner takes its socket away.
    let socket = unsafe { (*sk).sk_socket };
    // SAFETY: The socket of a locked `sk` is valid.
    if socket.is_null() || unsafe { of(socket) } != State::Wanted {
        return;
    }
    // SAFETY: As above.
    if let Some(ops) = COPIES.variant(unsafe { ops_of(socket) }, CONFIRMED) {
        // SAFETY: The copy is one of the socket's own operations.
        unsafe { set_ops(socket, ops) };
    }
}

/// Makes a listener [`State::Paused`], or [`State::Wanted`] again; leaves other sockets alone. Any
/// context.
///
/// # Safety
///
/// `socket` must be valid and its `sk` locked.
pub(super) unsafe fn pause(socket: *mut bindings::socket, pause: bool) {
    let (from, variant) = if pause {
        (State::Wanted, PAUSED)
    } else {
        (State::Paused, WANTED)
    };
    // SAFETY: The caller vouches for the socket.
    if unsafe { of(socket) } != from {
        return;
    }
    // SAFETY: As above.
    if let Some(ops) = COPIES.variant(unsafe { ops_of(socket) }, variant) {
        // SAFETY: The copy is one of the socket's own operations.
        unsafe { set_ops(socket, ops) };
    }
}

/// Makes the socket [`State::Plain`]. Any context.
///
/// # Safety
///
/// `socket` must be valid and its `sk` locked.
pub(super) unsafe fn clear(socket: *mut bindings::socket) {
    // SAFETY: The caller vouches for the socket.
    if let Some((_, original)) = COPIES.find(unsafe { ops_of(socket) }) {
        // SAFETY: The copy was made of these.
        unsafe { set_ops(socket, original) };
    }
}
