// SPDX-License-Identifier: GPL-2.0

//! Connections that wait for `accept`.

use super::{
    SmcSocket,
    SockRef, //
};
use crate::kapi::sock::Sock;
use kernel::{
    error::Result,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Mutex, //
    }, //
};

/// A queue of established connections, and the number of handshakes that may add to it.
#[pin_data]
pub(super) struct AcceptQueue {
    /// Two stacks make a queue: `incoming` is turned over when `outgoing` is empty.
    #[pin]
    stacks: Mutex<Stacks>,
    /// Length of the queue, readable without the lock.
    len: Atomic<u32>,
    /// Handshakes under way.
    pending: Atomic<u32>,
}

struct Stacks {
    incoming: KVec<SockRef>,
    outgoing: KVec<SockRef>,
    /// Connections that are not offered yet (`TCP_DEFER_ACCEPT`).
    held: KVec<SockRef>,
    closed: bool,
}

impl AcceptQueue {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            stacks <- new_mutex!(
                Stacks {
                    incoming: KVec::new(),
                    outgoing: KVec::new(),
                    held: KVec::new(),
                    closed: false,
                },
                "AcceptQueue::stacks"
            ),
            len: Atomic::new(0),
            pending: Atomic::new(0),
        })
    }

    /// Connections that `accept` can take now.
    pub(super) fn len(&self) -> u32 {
        self.len.load(Relaxed)
    }

    /// Connections that are in the queue or on their way to it: what the backlog limits.
    pub(super) fn load(&self) -> u32 {
        let held = u32::try_from(self.stacks.lock().held.len()).unwrap_or(u32::MAX);
        self.len()
            .saturating_add(self.pending.load(Relaxed))
            .saturating_add(held)
    }

    /// Handshakes under way.
    pub(super) fn pending(&self) -> u32 {
        self.pending.load(Relaxed)
    }

    /// A handshake begins.
    pub(super) fn begin(&self) {
        self.pending.fetch_add(1u32, Full);
    }

    /// A handshake is over.
    pub(super) fn end(&self) {
        self.pending.fetch_sub(1u32, Full);
    }

    /// Adds a connection; gives it back when the listener is closed.
    pub(super) fn push(&self, child: SockRef) -> Result<(), SockRef> {
        let mut stacks = self.stacks.lock();
        if stacks.closed || stacks.incoming.reserve(1, GFP_KERNEL).is_err() {
            return Err(child);
        }
        let _ = stacks.incoming.push(child, GFP_KERNEL);
        self.len.fetch_add(1u32, Full);
        Ok(())
    }

    /// Keeps a connection that is not to be offered yet, until [`Self::release`]; false when the
    /// listener is closed, or for want of memory.
    pub(super) fn hold(&self, child: &SockRef) -> bool {
        let mut stacks = self.stacks.lock();
        !stacks.closed && stacks.held.push(child.clone(), GFP_KERNEL).is_ok()
    }

    /// Gives a connection back that [`Self::hold`] keeps; [`None`] if the listener has given it up.
    pub(super) fn release(&self, child: &Sock<SmcSocket>) -> Option<SockRef> {
        let mut stacks = self.stacks.lock();
        let is_it = |held: &SockRef| core::ptr::eq(&raw const **held, child);
        let place = stacks.held.iter().position(is_it)?;
        stacks.held.remove(place).ok()
    }

    /// Gives the connection back that [`Self::hold`] has kept for longest.
    pub(super) fn release_oldest(&self) -> Option<SockRef> {
        self.stacks.lock().held.remove(0).ok()
    }

    /// The oldest connection.
    pub(super) fn pop(&self) -> Option<SockRef> {
        let mut stacks = self.stacks.lock();
        if stacks.outgoing.is_empty() {
            let stacks = &mut *stacks;
            core::mem::swap(&mut stacks.incoming, &mut stacks.outgoing);
            stacks.outgoing.reverse();
        }
        let child = stacks.outgoing.pop()?;
        self.len.fetch_sub(1u32, Full);
        Some(child)
    }

    /// Refuses connections from now on, and gives back those that are there.
    pub(super) fn close(&self) -> impl Iterator<Item = SockRef> {
        let mut stacks = self.stacks.lock();
        stacks.closed = true;
        let all = [
            core::mem::take(&mut stacks.incoming),
            core::mem::take(&mut stacks.outgoing),
            core::mem::take(&mut stacks.held),
        ];
        self.len.store(0, Relaxed);
        all.into_iter().flatten()
    }

    /// Takes connections again.
    pub(super) fn open(&self) {
        self.stacks.lock().closed = false;
    }
}
