// SPDX-License-Identifier: GPL-2.0

//! All sockets of a protocol, in the order in which they were made, so that they can be listed.
//!
//! Sockets are ordered by namespace and number. Who lists them remembers the number of the last one,
//! and finds the next in logarithmic time, whatever was made or freed in between: no socket comes
//! twice, and none that was there all the time is left out. The lock is held for one step.
//!
//! The table does not own the sockets. A socket takes itself out of it at the latest when its last
//! reference is gone, and is given to nobody from then on.

use super::{
    netns::Net,
    sock::Sock, //
};
use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    new_spinlock,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::{
        aref::ARef,
        Arc,
        SpinLock, //
    }, //
};

/// Where a socket is in the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// Cookie of the namespace, which no other namespace ever has.
    net: u64,
    /// Sockets are counted from 1.
    number: u64,
}

/// A socket in the table.
///
/// # Invariants
///
/// Points to a socket that is set up. Its memory stays as long as it is in the table, also when its
/// reference count is zero.
struct Entry<T>(NonNull<Sock<T>>);

// SAFETY: A reference to the socket may be made and used on any thread.
unsafe impl<T: Send + Sync> Send for Entry<T> {}

struct Sockets<T> {
    by_key: RBTree<Key, Entry<T>>,
    /// Number of the last socket that was made.
    last: u64,
}

/// The sockets of protocol `T`.
#[pin_data]
pub(crate) struct SocketTable<T> {
    #[pin]
    sockets: SpinLock<Sockets<T>>,
}

impl<T> SocketTable<T> {
    /// An empty table.
    pub(super) fn new() -> Result<Arc<Self>> {
        let empty = Sockets {
            by_key: RBTree::new(),
            last: 0,
        };
        Arc::pin_init(
            pin_init!(Self {
                sockets <- new_spinlock!(empty, "SocketTable::sockets"),
            }),
            GFP_KERNEL,
        )
    }

    /// Enters a socket, until the result is dropped. Process context.
    ///
    /// # Safety
    ///
    /// `sk` must be set up, and its memory must stay until the result was dropped.
    pub(super) unsafe fn enter(
        self: &Arc<Self>,
        net: &Net,
        sk: NonNull<Sock<T>>,
    ) -> Result<Listed<T>> {
        let node = RBTreeNodeReservation::new(GFP_KERNEL)?;
        let net = net.cookie();
        let mut sockets = self.sockets.lock();
        let number = sockets.last.wrapping_add(1);
        sockets.last = number;
        let key = Key { net, number };
        // INVARIANT: The caller guarantees it. The key is new, so that nothing is replaced.
        sockets.by_key.insert(node.into_node(key, Entry(sk)));
        drop(sockets);
        Ok(Listed {
            table: self.clone(),
            key,
        })
    }

    /// Number of the last socket that was made, in any namespace.
    pub(super) fn last(&self) -> u64 {
        self.sockets.lock().last
    }

    /// The first socket of `net` with a number in `after + 1 ..= last`, and its number.
    pub(super) fn next(&self, net: &Net, after: u64, last: u64) -> Option<(u64, ARef<Sock<T>>)> {
        let first = Key {
            net: net.cookie(),
            number: after.checked_add(1)?,
        };
        let mut sockets = self.sockets.lock();
        let mut cursor = sockets.by_key.cursor_lower_bound_mut(&first);
        while let Some(here) = cursor {
            let (key, entry) = here.current();
            if key.net != first.net || key.number > last {
                return None;
            }
            // SAFETY: By the invariants of `Entry` the memory is there, as the lock keeps the
            // socket in the table.
            if unsafe { bindings::sock_hold_if_alive(entry.0.as_ptr().cast()) } {
                // SAFETY: The socket is set up, and we own the reference just taken.
                return Some((key.number, unsafe { ARef::from_raw(entry.0) }));
            }
            // Its last reference is gone; it is about to take itself out.
            cursor = here.move_next();
        }
        None
    }
}

/// A socket's place in the table, which dropping it gives up. Process context.
pub(super) struct Listed<T> {
    table: Arc<SocketTable<T>>,
    key: Key,
}

impl<T> Drop for Listed<T> {
    fn drop(&mut self) {
        let node = self.table.sockets.lock().by_key.remove_node(&self.key);
        // The memory is freed without the lock.
        drop(node);
    }
}
