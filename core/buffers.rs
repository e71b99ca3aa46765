// SPDX-License-Identifier: GPL-2.0

//! The rings of connections: send buffers and RMBs (RFC 7609, section 2.1).
//!
//! A ring that a connection has given back is cleared and kept for the next one, as making and
//! registering memory is the expensive part of a connection.

use super::types::BufSizeCode;
use crate::{
    clc::decline::DeclineReason,
    ib::{
        verbs::{
            mapping::{
                Direction,
                Mapping, //
            },
            memory::{
                Buffer,
                Layout, //
            },
            pd::Pd, //
        }, //
    },
    sysctl::BufferKind, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};

/// Largest ring: what users were promised as the effective limit of `wmem` and `rmem`.
const LARGEST: BufSizeCode = match BufSizeCode::new(5) {
    Some(code) => code,
    None => BufSizeCode::MIN,
};

/// What a ring is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// Written by the application, read by our device.
    Send,
    /// Remote memory buffer: written by the peer, read by the application.
    Rmb,
}

/// Bytes of the rings of a link, in use or not.
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

/// Memory of one ring, mapped for the device of a link.
pub(crate) struct Ring {
    purpose: Use,
    code: BufSizeCode,
    buffer: Arc<Buffer>,
    mapping: Mapping,
    allocated: Arc<Allocated>,
    /// RMB: the peer knows it as one of the link group.
    known: Atomic<bool>,
}

impl Ring {
    fn new(pool: &Pool, purpose: Use, code: BufSizeCode, layout: Layout) -> Result<Self> {
        let pd = &pool.pd;
        let buffer = Buffer::new(usize::try_from(code.bytes())?, layout)?;
        let mapping = match (purpose, layout) {
            // The key for all local memory will do.
            (Use::Send, Layout::Physical) => Mapping::new(pd, &buffer, Direction::ToDevice)?,
            (Use::Send, Layout::Virtual) => Mapping::with_region(pd, &buffer, Direction::ToDevice)?,
            (Use::Rmb, _) => Mapping::with_region(pd, &buffer, Direction::FromDevice)?,
        };
        let allocated = pool.allocated.clone();
        allocated.of(purpose).add(code.bytes().into(), Relaxed);
        Ok(Self {
            purpose,
            code,
            buffer,
            mapping,
            allocated,
            known: Atomic::new(false),
        })
    }

    /// Notes that the peer knows this RMB, or does not any more; whether it was known before.
    pub(crate) fn set_known(&self, known: bool) -> bool {
        self.known.xchg(known, Relaxed)
    }

    /// Size in the protocol's code.
    pub(crate) fn code(&self) -> BufSizeCode {
        self.code
    }

    /// Size in bytes.
    pub(crate) fn len(&self) -> u32 {
        self.code.bytes()
    }

    /// The memory.
    pub(crate) fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// The memory, to be kept without the device.
    pub(crate) fn shared_buffer(&self) -> Arc<Buffer> {
        self.buffer.clone()
    }

    /// The memory as the device sees it.
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let bytes: u64 = self.code.bytes().into();
        self.allocated.of(self.purpose).fetch_sub(bytes, Relaxed);
    }
}

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

/// Rings of a link that no connection uses now.
#[pin_data]
pub(crate) struct Pool {
    pd: Arc<Pd>,
    allocated: Arc<Allocated>,
    #[pin]
    free: Mutex<KVec<Arc<Ring>>>,
}

impl Pool {
    /// An empty pool.
    pub(crate) fn new(pd: &Arc<Pd>) -> Result<impl PinInit<Self>> {
        let pd = pd.clone();
        let allocated = Arc::new(
            Allocated {
                send: Atomic::new(0),
                rmb: Atomic::new(0),
            },
            GFP_KERNEL,
        )?;
        Ok(pin_init!(Self {
            pd,
            allocated,
            free <- new_mutex!(KVec::new(), "buffers::Pool::free"),
        }))
    }

    /// Rings that no connection uses now.
    pub(crate) fn kept(&self) -> usize {
        self.free.lock().len()
    }

    /// Bytes of all send buffers and of all RMBs of the link, in use or not.
    pub(crate) fn allocated(&self) -> (u64, u64) {
        let bytes = |purpose| self.allocated.of(purpose).load(Relaxed);
        (bytes(Use::Send), bytes(Use::Rmb))
    }

    /// The rings for a new connection, for which the application wants `send_len` and `rmb_len`
    /// bytes, and how they came, the send buffer first. Where there is no memory for that much there is less.
    pub(crate) fn take(
        &self,
        send_len: usize,
        rmb_len: usize,
        kind: BufferKind,
    ) -> Result<(Rings, [Origin; 2]), DeclineReason> {
        let (send, of_send) = self.take_one(Use::Send, send_len, kind)?;
        match self.take_one(Use::Rmb, rmb_len, kind) {
            Ok((rmb, of_rmb)) => Ok((Rings { send, rmb }, [of_send, of_rmb])),
            Err(reason) => {
                self.keep(send);
                Err(reason)
            }
        }
    }

    fn take_one(
        &self,
        purpose: Use,
        len: usize,
        kind: BufferKind,
    ) -> Result<(Arc<Ring>, Origin), DeclineReason> {
        let asked = BufSizeCode::from_len_ceil(len).min(LARGEST);
        let mut code = Some(asked);
        while let Some(wanted) = code {
            let origin = |reused| Origin {
                reused,
                downgraded: wanted != asked,
            };
            if let Some(ring) = self.find(purpose, wanted) {
                return Ok((ring, origin(true)));
            }
            let layouts: &[Layout] = match kind {
                BufferKind::Physical => &[Layout::Physical],
                BufferKind::Virtual => &[Layout::Virtual],
                BufferKind::Mixed => &[Layout::Physical, Layout::Virtual],
            };
            for layout in layouts {
                let ring = Ring::new(self, purpose, wanted, *layout);
                if let Ok(Ok(ring)) = ring.map(|ring| Arc::new(ring, GFP_KERNEL)) {
                    return Ok((ring, origin(false)));
                }
            }
            code = wanted.smaller();
        }
        Err(DeclineReason::MEM)
    }

    fn find(&self, purpose: Use, code: BufSizeCode) -> Option<Arc<Ring>> {
        let mut free = self.free.lock();
        let index = free
            .iter()
            .position(|ring| ring.purpose == purpose && ring.code == code)?;
        free.remove(index).ok()
    }

    /// Gives a ring of a connection back. Nobody, neither peer nor device, may still use it.
    pub(crate) fn put(&self, ring: Arc<Ring>) {
        // What went through one connection is none of the next one's business.
        ring.buffer.clear();
        if ring.purpose == Use::Rmb {
            ring.mapping.sync_for_device(0..ring.buffer.len());
        }
        self.keep(ring);
    }

    fn keep(&self, ring: Arc<Ring>) {
        // Without memory for the list the ring is freed.
        let _ = self.free.lock().push(ring, GFP_KERNEL);
    }

    /// Frees everything that is not in use.
    pub(crate) fn clear(&self) {
        let rings = core::mem::take(&mut *self.free.lock());
        drop(rings);
    }
}
