// SPDX-License-Identifier: GPL-2.0

//! The PNETIDs of a network namespace. Names are compared when a connection is made, so that devices may
//! come later, go, and come again.

use super::{
    namespace::Namespace,
    pnet::{
        Attachment,
        Name,
        PnetId, //
    }, //
};
use crate::{
    ib::port::Port,
    kapi::netns::{
        self,
        Net, //
    }, //
};
use kernel::prelude::*;

/// That a device is attached to a network.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    /// Numbers only grow, from 1.
    pub(crate) number: u64,
    /// The network.
    pub(crate) id: PnetId,
    /// The device.
    pub(crate) at: Attachment,
}

/// All entries of a namespace, in the order of their numbers.
pub(crate) struct Table {
    list: KVec<Entry>,
    next: u64,
}

impl Table {
    /// No entries.
    pub(super) const fn new() -> Self {
        Self {
            list: KVec::new(),
            next: 1,
        }
    }

    /// Adds an entry; false if the device has one.
    pub(crate) fn add(&mut self, id: PnetId, at: Attachment) -> Result<bool> {
        if self.of(&at).is_some() {
            return Ok(false);
        }
        let number = self.next;
        self.list.push(Entry { number, id, at }, GFP_KERNEL)?;
        self.next += 1;
        Ok(true)
    }

    /// Takes out all entries for which `doomed` holds; whether there were any.
    pub(crate) fn remove(&mut self, doomed: impl Fn(&Entry) -> bool) -> bool {
        let before = self.list.len();
        self.list.retain(|entry| !doomed(entry));
        self.list.len() != before
    }

    /// The entries behind the one with number `after`.
    pub(crate) fn after(&self, after: u64) -> impl Iterator<Item = &Entry> {
        self.list.iter().filter(move |entry| entry.number > after)
    }

    fn of(&self, at: &Attachment) -> Option<PnetId> {
        let found = self.list.iter().find(|entry| entry.at == *at);
        found.map(|entry| entry.id)
    }
}

/// Calls `f` with the entries of `net`. Process context; may sleep.
///
/// # Errors
///
/// `ENODEV` while the namespace ends.
pub(crate) fn with<R>(net: &Net, f: impl FnOnce(&mut Table) -> R) -> Result<R> {
    let namespace = netns::of::<Namespace>(net).ok_or(ENODEV)?;
    let result = f(&mut namespace.pnet().lock());
    Ok(result)
}

/// The network that a network device of `net` is attached to. Process context; may sleep.
pub(super) fn of_netdev(net: &Net, name: &[u8]) -> Option<PnetId> {
    let at = Attachment::Ethernet(Name::new(name)?);
    with(net, |table| table.of(&at)).ok()?
}

/// The network that an RDMA port is attached to, as the administrator of `net` has said, or else that of the
/// first namespace. Process context; may sleep.
pub(crate) fn of_port(net: &Net, port: &Port) -> Option<PnetId> {
    let name = Name::new(port.device.name().as_bytes())?;
    let at = Attachment::Rdma(name, u8::try_from(port.number).ok()?);
    let here = with(net, |table| table.of(&at)).ok()?;
    here.or_else(|| with(Net::first(), |table| table.of(&at)).ok()?)
}
