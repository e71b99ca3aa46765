// SPDX-License-Identifier: GPL-2.0

//! Connections that wait for `accept`.

use super::{
    SmcSocket,
    SockRef, //
};
use crate::kapi::sock::Sock;
use kernel::{
    alloc::kvec::InsertError,
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

/// A place in the order of connections: the one that TCP accepts next has a higher one.
///
/// Handshakes of one listener run side by side, and may end in another order than they began in. A client
/// whose `connect` has returned is there before one that connects then: `accept` with TCP says so.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn(u64);

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
    /// The next connection's turn.
    turn: Atomic<u64>,
}

struct Stacks {
    /// Those whose turn is latest, in their order.
    incoming: KVec<(Turn, SockRef)>,
    /// Those whose turn is first, against their order.
    outgoing: KVec<(Turn, SockRef)>,
    /// Connections that are not offered yet (`TCP_DEFER_ACCEPT`), in their order.
    held: KVec<(Turn, SockRef)>,
    closed: bool,
}

impl Stacks {
    /// Puts a connection behind those that were accepted by TCP before it.
    fn insert(&mut self, turn: Turn, child: SockRef) -> Result<(), SockRef> {
        let before = |stack: &KVec<(Turn, SockRef)>| stack.iter().rposition(|one| one.0 <= turn);
        if let Some(place) = before(&self.incoming) {
            return insert(&mut self.incoming, place.saturating_add(1), turn, child);
        }
        match self.outgoing.iter().position(|one| one.0 <= turn) {
            None if !self.outgoing.is_empty() => {
                let end = self.outgoing.len();
                insert(&mut self.outgoing, end, turn, child)
            }
            None | Some(0) => insert(&mut self.incoming, 0, turn, child),
            Some(place) => insert(&mut self.outgoing, place, turn, child),
        }
    }
}

/// Adds a connection; gives it back for want of memory.
fn insert(
    stack: &mut KVec<(Turn, SockRef)>,
    place: usize,
    turn: Turn,
    child: SockRef,
) -> Result<(), SockRef> {
    if stack.reserve(1, GFP_KERNEL).is_err() {
        return Err(child);
    }
    match stack.insert_within_capacity(place, (turn, child)) {
        Ok(()) => Ok(()),
        Err(InsertError::IndexOutOfBounds(refused) | InsertError::OutOfCapacity(refused)) => {
            Err(refused.1)
        }
    }
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
            turn: Atomic::new(0),
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

    /// The turn of a connection that is there now.
    pub(super) fn next_turn(&self) -> Turn {
        Turn(self.turn.fetch_add(1u64, Full))
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
    pub(super) fn push(&self, turn: Turn, child: SockRef) -> Result<(), SockRef> {
        let mut stacks = self.stacks.lock();
        if stacks.closed {
            return Err(child);
        }
        stacks.insert(turn, child)?;
        self.len.fetch_add(1u32, Full);
        Ok(())
    }

    /// Keeps a connection that is not to be offered yet, until [`Self::release`]; false when the
    /// listener is closed, or for want of memory.
    pub(super) fn hold(&self, turn: Turn, child: &SockRef) -> bool {
        let mut stacks = self.stacks.lock();
        let before = stacks.held.iter().rposition(|one| one.0 <= turn);
        let place = before.map_or(0, |place| place.saturating_add(1));
        !stacks.closed && insert(&mut stacks.held, place, turn, child.clone()).is_ok()
    }

    /// Gives a connection back that [`Self::hold`] keeps; [`None`] if the listener has given it up.
    pub(super) fn release(&self, child: &Sock<SmcSocket>) -> Option<SockRef> {
        let mut stacks = self.stacks.lock();
        let is_it = |held: &(Turn, SockRef)| core::ptr::eq(&raw const *held.1, child);
        let place = stacks.held.iter().position(is_it)?;
        stacks.held.remove(place).ok().map(|one| one.1)
    }

    /// Gives the connection back that [`Self::hold`] has kept for longest.
    pub(super) fn release_oldest(&self) -> Option<SockRef> {
        self.stacks.lock().held.remove(0).ok().map(|one| one.1)
    }

    /// The oldest connection.
    pub(super) fn pop(&self) -> Option<SockRef> {
        let mut stacks = self.stacks.lock();
        if stacks.outgoing.is_empty() {
            let stacks = &mut *stacks;
            core::mem::swap(&mut stacks.incoming, &mut stacks.outgoing);
            stacks.outgoing.reverse();
        }
        let (_, child) = stacks.outgoing.pop()?;
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
        all.into_iter().flatten().map(|one| one.1)
    }

    /// Takes connections again.
    pub(super) fn open(&self) {
        self.stacks.lock().closed = false;
    }
}
