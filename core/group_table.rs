// SPDX-License-Identifier: GPL-2.0

//! The link groups of this host, found by their number and by their peer: a server may have thousands of
//! peers, and each of its handshakes looks for a group.

use super::group::{
    GroupKey,
    LinkGroup,
    PeerKey, //
};
use kernel::{
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::Arc, //
};

/// The groups, each of which has a number of its own.
pub(super) struct GroupTable {
    by_number: RBTree<u32, Arc<LinkGroup>>,
    by_peer: RBTree<(PeerKey, u32), Arc<LinkGroup>>,
}

/// Room for one more group.
pub(super) struct Room {
    by_number: RBTreeNodeReservation<u32, Arc<LinkGroup>>,
    by_peer: RBTreeNodeReservation<(PeerKey, u32), Arc<LinkGroup>>,
}

impl Room {
    /// Asks for the memory. Process context.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            by_number: RBTreeNodeReservation::new(GFP_KERNEL)?,
            by_peer: RBTreeNodeReservation::new(GFP_KERNEL)?,
        })
    }
}

impl GroupTable {
    pub(super) fn new() -> Self {
        Self {
            by_number: RBTree::new(),
            by_peer: RBTree::new(),
        }
    }

    /// Whether a group has this number.
    pub(super) fn has(&self, number: u32) -> bool {
        self.by_number.get(&number).is_some()
    }

    pub(super) fn insert(&mut self, room: Room, group: Arc<LinkGroup>) {
        let number = group.id();
        let key = (group.key().peer(), number);
        self.by_peer
            .insert(room.by_peer.into_node(key, group.clone()));
        self.by_number
            .insert(room.by_number.into_node(number, group));
    }

    /// Takes a group out that may not be in it.
    pub(super) fn remove(&mut self, group: &LinkGroup) {
        let number = group.id();
        if self
            .by_number
            .get(&number)
            .is_some_and(|other| core::ptr::eq(&**other, group))
        {
            self.by_number.remove(&number);
            self.by_peer.remove(&(group.key().peer(), number));
        }
    }

    /// All groups, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<LinkGroup>> {
        self.by_number.values()
    }

    /// The first group after the one with number `after` for which `filter` holds.
    pub(super) fn next(
        &self,
        mut after: u32,
        filter: impl Fn(&LinkGroup) -> bool,
    ) -> Option<Arc<LinkGroup>> {
        loop {
            let cursor = self.by_number.cursor_lower_bound(&after.checked_add(1)?)?;
            let (number, group) = cursor.current();
            if filter(group) {
                return Some(group.clone());
            }
            after = *number;
        }
    }

    /// The first group with the peer of `key`, in its role, for which `accept` holds.
    pub(super) fn find(
        &self,
        key: &GroupKey,
        accept: impl Fn(&LinkGroup) -> bool,
    ) -> Option<Arc<LinkGroup>> {
        let peer = key.peer();
        let mut from = 0u32;
        loop {
            let cursor = self.by_peer.cursor_lower_bound(&(peer, from))?;
            let ((of, number), group) = cursor.current();
            if *of != peer {
                return None;
            }
            if accept(group) {
                return Some(group.clone());
            }
            from = number.checked_add(1)?;
        }
    }
}
