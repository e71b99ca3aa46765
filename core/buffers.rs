// SPDX-License-Identifier: GPL-2.0

//! The rings of connections: send buffers and RMBs (RFC 7609, section 2.1).
//!
//! A ring that a connection has given back is cleared and kept for the next one, as making and
//! registering memory is the expensive part of a connection.
//!
//! The memory is the link group's; each of its links has a mapping of its own, and for an RMB a key of
//! its own (RFC 7609, section 3.5.5.2). A connection that moves to another link keeps its rings.

use super::{
    link::{
        Link,
        Slot,
        MAX_LINKS, //
    },
    llc::wire::RToken,
    numbered,
    rtoken::MAX_RTOKENS,
    types::{
        BufSizeCode,
        RKey, //
    }, //
};
use crate::kapi::prelude::*;
use crate::{
    clc::decline::DeclineReason,
    ib::{
        verbs::{
            mapping::{
                Direction,
                Draft,
                Mapping,
                RemoteKey, //
            },
            memory::{
                Buffer,
                Layout, //
            }, //
        }, //
    },
    sysctl::BufferKind, //
};
use kernel::{
    new_mutex,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex,
        UniqueArc, //
    }, //
};

/// Largest ring: what users were promised as the effective limit of `wmem` and `rmem`.
const LARGEST: BufSizeCode = match BufSizeCode::new(5) {
    Some(code) => code,
    None => BufSizeCode::MIN,
};

/// What the ring of a send buffer begins with, in bytes: one page, where the processor's are the smallest. Enough for
/// short requests, and little for a connection that has nothing to say.
const FIRST_SEND: u32 = 4096;

/// What a ring is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// Written by the application, read by our device.
    Send,
    /// Remote memory buffer: written by the peer, read by the application.
    Rmb,
}

/// Bytes of the rings of a link group, in use or not.
struct Allocated {
    send: Atomic<u64>,
    rmb: Atomic<u64>,
}

impl Allocated {
    fn of(&self, purpose: Use) -> &Atomic<u64> {
        match purpose {
            Use::Send => &self.send,
            Use::Rmb => &self.rmb,
        }
    }
}

/// Memory of one ring, mapped for the devices of the links.
#[pin_data]
pub(crate) struct Ring {
    purpose: Use,
    /// In bytes.
    len: u32,
    buffer: Arc<Buffer>,
    /// By link. Process context.
    #[pin]
    mappings: Mutex<[Option<Arc<Mapping>>; MAX_LINKS]>,
    _share: Share,
    /// RMB: the peer knows it as one of the link group, or is being told.
    known: Atomic<bool>,
    /// RMB: the peer has said so.
    confirmed: Atomic<bool>,
    /// RMB: the links for which its key was told when they were added, by place.
    told: [Atomic<bool>; MAX_LINKS],
}

impl Ring {
    fn new(
        allocated: &Arc<Allocated>,
        purpose: Use,
        len: u32,
        layout: Layout,
    ) -> Result<Arc<Self>> {
        let buffer = Buffer::new(usize::try_from(len)?, layout)?;
        let share = Share::new(allocated, purpose, len);
        Arc::pin_init(
            pin_init!(Self {
                purpose,
                len,
                buffer,
                mappings <- new_mutex!([const { None }; MAX_LINKS], "Ring::mappings"),
                _share: share,
                known: Atomic::new(false),
                confirmed: Atomic::new(false),
                told: [const { Atomic::new(false) }; MAX_LINKS],
            }),
            GFP_KERNEL,
        )
    }

    /// The memory as the device of `link` sees it. Made if need be; it is to be registered then. Process
    /// context.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` when the link is gone. `EOPNOTSUPP` for an RMB that has a mapping for another link, where one of
    /// both devices writes to a copy: what comes by one would be overwritten by what came by the other.
    pub(crate) fn map(&self, link: &Link) -> Result<Arc<Mapping>> {
        let mut mappings = self.mappings.lock();
        // Under the lock: whoever takes the link down says so before he comes for its mappings.
        if link.is_shut() {
            return Err(ENOTCONN);
        }
        let place = link.slot().index();
        if let Some(mapping) = mappings.get(place).ok_or(EINVAL)? {
            return Ok(mapping.clone());
        }
        let (pd, buffer) = (link.pd(), &self.buffer);
        // A mapping stays as long as the link, so nothing fails after it is made: a device that refuses each new
        // connection would keep memory of all of them.
        let memory = UniqueArc::new_uninit(GFP_KERNEL)?;
        let draft = match (self.purpose, buffer.layout()) {
            // The key for all local memory will do.
            (Use::Send, Layout::Physical) => Draft::new(pd, buffer, Direction::ToDevice)?,
            (Use::Send, Layout::Virtual) => Draft::with_region(pd, buffer, Direction::ToDevice)?,
            (Use::Rmb, _) => Draft::with_region(pd, buffer, Direction::FromDevice)?,
        };
        let mut others = mappings.iter().flatten();
        if self.is_rmb() && others.any(|other| other.needs_sync() || draft.needs_sync()) {
            return Err(EOPNOTSUPP);
        }
        let mapping: Arc<Mapping> = memory.write(draft.finish()).into();
        *mappings.get_mut(place).ok_or(EINVAL)? = Some(mapping.clone());
        Ok(mapping)
    }

    /// Forgets a mapping whose registration can neither be used nor be made again. Process context.
    pub(crate) fn forget_spoilt(&self, mapping: &Arc<Mapping>) {
        let mut mappings = self.mappings.lock();
        let own = |place: &&mut Option<Arc<Mapping>>| {
            place.as_ref().is_some_and(|own| Arc::ptr_eq(own, mapping))
        };
        let spoilt = mappings
            .iter_mut()
            .find(own)
            .filter(|_| mapping.is_spoilt())
            .and_then(Option::take);
        drop(mappings);
        drop(spoilt);
    }

    /// The memory as the device of a link sees it, if it was mapped for that. Process context.
    pub(crate) fn mapping(&self, slot: Slot) -> Option<Arc<Mapping>> {
        self.mappings.lock().get(slot.index())?.clone()
    }

    /// Forgets the mapping for a link that is gone. Process context.
    fn unmap(&self, slot: Slot) {
        self.take_told(slot);
        let mapping = self
            .mappings
            .lock()
            .get_mut(slot.index())
            .and_then(Option::take);
        drop(mapping);
    }

    /// Notes that the peer knows this RMB, or does not any more; whether it was known before.
    pub(crate) fn set_known(&self, known: bool) -> bool {
        if !known {
            self.confirmed.store(false, Relaxed);
        }
        self.known.xchg(known, Relaxed)
    }

    /// Whether the peer knows this RMB, or is being told.
    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Relaxed)
    }

    /// The peer knows this RMB on all links, or not on a new one.
    pub(crate) fn set_confirmed(&self, confirmed: bool) {
        self.confirmed.store(confirmed, Relaxed);
    }

    /// Notes that the peer is told the key for a link that is being added.
    pub(crate) fn set_told(&self, slot: Slot) {
        if let Some(told) = self.told.get(slot.index()) {
            told.store(true, Relaxed);
        }
    }

    /// Whether that was so.
    pub(crate) fn take_told(&self, slot: Slot) -> bool {
        let told = self.told.get(slot.index());
        told.is_some_and(|told| told.xchg(false, Relaxed))
    }

    /// Whether it has.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed.load(Relaxed)
    }

    /// How the peer can name this RMB on a link, if it is registered there.
    pub(crate) fn token_on(&self, link: &Link) -> Option<RToken> {
        let key = self.mapping(link.slot())?.remote_key()?;
        Some(token(key))
    }

    /// How the peer will name this RMB on a link that is being made.
    pub(crate) fn map_token(&self, link: &Link) -> Option<RToken> {
        Some(token(self.map(link).ok()?.planned_key()?))
    }

    /// Whether it is an RMB.
    pub(crate) fn is_rmb(&self) -> bool {
        self.purpose == Use::Rmb
    }

    /// Size of an RMB in the protocol's code.
    pub(crate) fn code(&self) -> BufSizeCode {
        BufSizeCode::from_len_ceil(self.len as usize)
    }

    /// Size in bytes.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// The memory.
    pub(crate) fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// The memory, to be kept without the device.
    pub(crate) fn shared_buffer(&self) -> Arc<Buffer> {
        self.buffer.clone()
    }
}

fn token(key: RemoteKey) -> RToken {
    RToken {
        rkey: RKey(key.rkey),
        vaddr: key.addr,
    }
}

/// The bytes of one ring among all.
struct Share {
    allocated: Arc<Allocated>,
    purpose: Use,
    bytes: u64,
}

impl Share {
    fn new(allocated: &Arc<Allocated>, purpose: Use, len: u32) -> Self {
        let share = Self {
            allocated: allocated.clone(),
            purpose,
            bytes: len.into(),
        };
        share.allocated.of(purpose).add(share.bytes, Relaxed);
        share
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.allocated
            .of(self.purpose)
            .fetch_sub(self.bytes, Relaxed);
    }
}

/// Whether send buffers of such memory begin with a small ring: one that needs a memory region is made with the
/// connection, as registering it takes its time.
pub(crate) fn grows(kind: BufferKind) -> bool {
    kind == BufferKind::Physical
}

/// The largest send buffer, in bytes.
pub(crate) const LARGEST_SEND: u32 = LARGEST.bytes();

/// How a connection came by a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// It was an earlier connection's.
    pub(crate) reused: bool,
    /// It is smaller than asked for, for want of memory.
    pub(crate) downgraded: bool,
}

/// The two rings of a connection.
#[derive(Clone)]
pub(crate) struct Rings {
    /// Written by the application.
    pub(crate) send: Arc<Ring>,
    /// Written by the peer.
    pub(crate) rmb: Arc<Ring>,
}

/// The rings of a link group.
#[pin_data]
pub(crate) struct Pool {
    allocated: Arc<Allocated>,
    #[pin]
    all: Mutex<KVec<Entry>>,
    /// Number of the last entry.
    last: Atomic<u64>,
}

struct Entry {
    /// They grow through the list.
    number: u64,
    ring: Arc<Ring>,
    /// No connection uses it now.
    free: bool,
}

/// Whether there are as many RMBs as a link group may have (RFC 7609, section 2.2), and a peer keeps in mind. Those that are
/// out of use until the peer has answered DELETE RKEY are among them: it cannot have us make more by not answering.
fn has_all_rmbs(all: &[Entry]) -> bool {
    let rmbs = all.iter().filter(|entry| entry.ring.purpose == Use::Rmb);
    rmbs.count() >= MAX_RTOKENS
}

impl Pool {
    /// An empty pool.
    pub(crate) fn new() -> Result<impl PinInit<Self>> {
        let allocated = Arc::new(
            Allocated {
                send: Atomic::new(0),
                rmb: Atomic::new(0),
            },
            GFP_KERNEL,
        )?;
        Ok(pin_init!(Self {
            allocated,
            all <- new_mutex!(KVec::new(), "buffers::Pool::all"),
            last: Atomic::new(0),
        }))
    }

    /// Rings that no connection uses now.
    pub(crate) fn kept(&self) -> usize {
        self.all.lock().iter().filter(|entry| entry.free).count()
    }

    /// Bytes of all send buffers and of all RMBs, in use or not.
    pub(crate) fn allocated(&self) -> (u64, u64) {
        let bytes = |purpose| self.allocated.of(purpose).load(Relaxed);
        (bytes(Use::Send), bytes(Use::Rmb))
    }

    /// The rings for a new connection, for which the application wants `send_len` and `rmb_len`
    /// bytes, and how they came, the send buffer first. Where there is no memory for that much there is less.
    /// Also the bytes that the send buffer may have: its ring is a small one if it [`grows`].
    ///
    /// They are mapped for `link`, that of the connection.
    pub(crate) fn take(
        &self,
        link: &Link,
        send_len: usize,
        rmb_len: usize,
        kind: BufferKind,
    ) -> Result<(Rings, [Origin; 2], u32), DeclineReason> {
        let bytes = |len| BufSizeCode::from_len_ceil(len).min(LARGEST).bytes();
        let least = BufSizeCode::MIN.bytes();
        let limit = bytes(send_len);
        let (send, of_send, limit) = if grows(kind) {
            let (send, origin) = self.take_one(link, Use::Send, FIRST_SEND, FIRST_SEND, kind)?;
            (send, origin, limit)
        } else {
            let (send, origin) = self.take_one(link, Use::Send, limit, least, kind)?;
            let len = send.len;
            (send, origin, len)
        };
        match self.take_one(link, Use::Rmb, bytes(rmb_len), least, kind) {
            Ok((rmb, of_rmb)) => Ok((Rings { send, rmb }, [of_send, of_rmb], limit)),
            Err(reason) => {
                self.keep(&send);
                Err(reason)
            }
        }
    }

    /// A ring of `len` bytes for the send buffer of a connection that has `present`, or of less, but more than that.
    /// Process context.
    pub(crate) fn take_larger(
        &self,
        link: &Link,
        present: &Ring,
        len: u32,
    ) -> Option<(Arc<Ring>, Origin)> {
        let least = present.len.saturating_mul(2);
        self.take_one(link, Use::Send, len, least, BufferKind::Physical)
            .ok()
    }

    /// A ring of `asked` bytes; where there is no memory for it, a half of that, and so on, but not less than `least`.
    fn take_one(
        &self,
        link: &Link,
        purpose: Use,
        asked: u32,
        least: u32,
        kind: BufferKind,
    ) -> Result<(Arc<Ring>, Origin), DeclineReason> {
        let layouts: &[Layout] = match kind {
            BufferKind::Physical => &[Layout::Physical],
            BufferKind::Virtual => &[Layout::Virtual],
            BufferKind::Mixed => &[Layout::Physical, Layout::Virtual],
        };
        let mut wanted = asked;
        while wanted >= least {
            let origin = |reused| Origin {
                reused,
                downgraded: wanted != asked,
            };
            if let Some(ring) = self.find(purpose, wanted) {
                if ring.map(link).is_ok() {
                    return Ok((ring, origin(true)));
                }
                self.keep(&ring);
            }
            for layout in layouts {
                if purpose == Use::Rmb && self.is_full() {
                    break;
                }
                let ring = Ring::new(&self.allocated, purpose, wanted, *layout);
                let Ok(ring) = ring.and_then(|ring| self.add(ring)) else {
                    continue;
                };
                if ring.map(link).is_ok() {
                    return Ok((ring, origin(false)));
                }
                self.forget(&ring);
            }
            wanted /= 2;
        }
        if purpose == Use::Rmb && self.is_full() {
            // What there is no other for may be larger.
            if let Some(ring) = self.find_larger(asked) {
                if ring.map(link).is_ok() {
                    let origin = Origin {
                        reused: true,
                        downgraded: false,
                    };
                    return Ok((ring, origin));
                }
                self.keep(&ring);
            }
        }
        Err(DeclineReason::MEM)
    }

    /// See [`has_all_rmbs`].
    fn is_full(&self) -> bool {
        has_all_rmbs(&self.all.lock())
    }

    fn find(&self, purpose: Use, len: u32) -> Option<Arc<Ring>> {
        let mut all = self.all.lock();
        let entry = all
            .iter_mut()
            .find(|entry| entry.free && entry.ring.purpose == purpose && entry.ring.len == len)?;
        entry.free = false;
        Some(entry.ring.clone())
    }

    /// The smallest free RMB of more than `len` bytes.
    fn find_larger(&self, len: u32) -> Option<Arc<Ring>> {
        let mut all = self.all.lock();
        let fits = |entry: &&mut Entry| {
            entry.free && entry.ring.purpose == Use::Rmb && entry.ring.len > len
        };
        let least = |entry: &&mut Entry| entry.ring.len;
        let entry = all.iter_mut().filter(fits).min_by_key(least)?;
        entry.free = false;
        Some(entry.ring.clone())
    }

    fn add(&self, ring: Arc<Ring>) -> Result<Arc<Ring>> {
        let mut all = self.all.lock();
        if ring.purpose == Use::Rmb && has_all_rmbs(&all) {
            return Err(ENOSPC);
        }
        let entry = Entry {
            number: self.last.fetch_add(1u64, Relaxed).saturating_add(1),
            ring: ring.clone(),
            free: false,
        };
        all.push(entry, GFP_KERNEL)?;
        drop(all);
        Ok(ring)
    }

    /// Gives a ring of a connection back. Nobody, neither peer nor device, may still use it; so many bytes from
    /// its beginning may have been written.
    pub(crate) fn put(&self, ring: &Arc<Ring>, written: u32) {
        let written = (written as usize).min(ring.buffer.len());
        // What went through one connection is none of the next one's business. The rest is zero already.
        ring.buffer.clear(written);
        if ring.purpose == Use::Rmb {
            for mapping in ring.mappings.lock().iter().flatten() {
                mapping.sync_for_device(0..written);
            }
        }
        self.keep(ring);
    }

    /// Gives both rings back, which nobody has used, and which so are as they came.
    pub(crate) fn put_back(&self, rings: &Rings) {
        self.keep(&rings.send);
        self.keep(&rings.rmb);
    }

    fn keep(&self, ring: &Arc<Ring>) {
        for entry in self.all.lock().iter_mut() {
            if Arc::ptr_eq(&entry.ring, ring) {
                entry.free = true;
            }
        }
    }

    /// Frees a ring that cannot be used.
    fn forget(&self, ring: &Arc<Ring>) {
        let mut all = self.all.lock();
        let index = all.iter().position(|entry| Arc::ptr_eq(&entry.ring, ring));
        let entry = index.and_then(|index| all.remove(index).ok());
        drop(all);
        drop(entry);
    }

    /// All rings, without a lock between them: those that come meanwhile too, and whichever goes. Process context.
    pub(crate) fn rings(&self) -> impl Iterator<Item = Arc<Ring>> + '_ {
        let mut last = 0;
        core::iter::from_fn(move || {
            let all = self.all.lock();
            let entry = numbered::after(&all, |entry| entry.number, last)?;
            last = entry.number;
            Some(entry.ring.clone())
        })
    }

    /// Forgets the mappings for a link after [`Link::shut`]. Process context.
    pub(crate) fn unmap(&self, slot: Slot) {
        // Without the lock: a device that is about to die takes its time for each.
        for ring in self.rings() {
            ring.unmap(slot);
        }
    }

    /// Frees everything that is not in use.
    pub(crate) fn clear(&self) {
        let rings = core::mem::take(&mut *self.all.lock());
        drop(rings);
    }
}
