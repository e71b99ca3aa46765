// SPDX-License-Identifier: GPL-2.0

//! Memory for received messages.
//!
//! Most messages are short, some are long. Where the device can scatter a message over two pieces
//! of memory, each slot has room for a short one, and what is longer spills into a piece that all
//! slots share; otherwise each slot has room for a long one. So of long messages only one at a time
//! can be received; a second one that comes before the first was looked at damages it. Whoever
//! speaks the protocol knows that what a peer sends can be anything anyway.

use crate::kapi::prelude::*;
use kernel::sync::{
    atomic::{
        Acquire,
        Atomic,
        Full,
        Relaxed,
        Release, //
    },
    Arc, //
};

use super::{
    message_memory,
    LONG_MESSAGE_LEN,
    MESSAGE_LEN,
    MESSAGE_ROOM, //
};
use crate::ib::verbs::{
    mapping::{
        Direction,
        Mapping, //
    },
    pd::Pd,
    queues::{
        Queues,
        MAX_RECVS, //
    },
    wait::{
        new_wait_queue,
        WaitQueue, //
    }, //
};

/// Bytes of memory that are allocated at once for long slots.
const CHUNK_LEN: usize = 8 * LONG_MESSAGE_LEN;

/// The receive requests of a queue pair.
#[pin_data]
pub(crate) struct RecvRing {
    queues: Arc<Queues>,
    slots: KVec<Mapping>,
    slots_per_chunk: usize,
    slot_len: usize,
    slot_room: usize,
    spill: Option<Mapping>,
    count: u32,
    /// Requests that the device has, or whose message is just looked at.
    posted: Atomic<u32>,
    /// They are not posted again.
    ended: Atomic<bool>,
    #[pin]
    changed: WaitQueue,
}

/// Receive requests that were used, and are not posted again yet: several of them go together.
#[derive(Default)]
pub(crate) struct Used {
    slots: [u32; MAX_RECVS],
    len: usize,
}

impl Used {
    /// Takes all of them out.
    fn take(&mut self) -> Self {
        core::mem::take(self)
    }

    fn push(&mut self, slot: u32) {
        if let Some(place) = self.slots.get_mut(self.len) {
            *place = slot;
            self.len = self.len.saturating_add(1);
        }
    }

    fn as_slice(&self) -> &[u32] {
        self.slots.get(..self.len).unwrap_or(&[])
    }
}

/// A message as it was received: anything at all.
pub(crate) struct Received<'a> {
    head: [u8; MESSAGE_LEN],
    head_len: usize,
    len: usize,
    /// Where the rest is.
    tail: (&'a Mapping, usize),
}

impl RecvRing {
    /// Allocates memory for as many receive requests as the queue pair was granted, at most
    /// `limit`. May sleep.
    pub(crate) fn new(
        pd: &Arc<Pd>,
        queues: &Arc<Queues>,
        limit: u32,
    ) -> Result<impl PinInit<Self>> {
        let capabilities = queues.capabilities();
        let count = capabilities.max_recv_wr.min(limit);
        let total = usize::try_from(count)?;
        let spills = capabilities.max_recv_sge >= 2;
        let (slot_len, slot_room) = if spills {
            (MESSAGE_LEN, MESSAGE_ROOM)
        } else {
            (LONG_MESSAGE_LEN, LONG_MESSAGE_LEN)
        };
        let slots_per_chunk = CHUNK_LEN / slot_room;
        let mut slots = KVec::with_capacity(total.div_ceil(slots_per_chunk), GFP_KERNEL)?;

        if total == 0 {
            return Err(EINVAL);
        }
        let mut left = total;
        while left > 0 {
            let n = left.min(slots_per_chunk);
            slots.push(
                message_memory(pd, n * slot_room, Direction::FromDevice)?,
                GFP_KERNEL,
            )?;
            left -= n;
        }
        let spill = if spills {
            let len = LONG_MESSAGE_LEN - MESSAGE_LEN;
            Some(message_memory(pd, len, Direction::FromDevice)?)
        } else {
            None
        };
        let queues = queues.clone();
        Ok(pin_init!(Self {
            queues,
            slots,
            slots_per_chunk,
            slot_len,
            slot_room,
            spill,
            count,
            posted: Atomic::new(0),
            ended: Atomic::new(false),
            changed <- new_wait_queue!("ib::RecvRing::changed"),
        }))
    }

    /// Posts all receive requests: once, when the queue pair has reached INIT.
    pub(crate) fn post_all(&self) -> Result {
        (0..self.count).try_for_each(|slot| {
            self.posted.fetch_add(1, Relaxed);
            self.post(&[slot])
        })
    }

    /// So many requests that were used are posted again together: few of all, as the peer finds none in their place.
    fn together(&self) -> usize {
        (self.count as usize / 4).clamp(1, MAX_RECVS)
    }

    /// Posts no request again from now on.
    pub(crate) fn end(&self) {
        self.ended.store(true, Release);
    }

    /// Waits, after [`Self::end`], until all messages that the device has received were looked at: once the queue
    /// pair was set to its error state all requests complete. It gives up when none has for `patience_ms`
    /// milliseconds. For process context.
    pub(crate) fn wait_idle(&self, patience_ms: u32) {
        let mut before = self.posted.load(Acquire);
        let idle = || (self.posted.load(Acquire) == 0).then_some(());

        while self.changed.wait(patience_ms, idle).is_none() {
            let left = self.posted.load(Acquire);
            if left == before {
                return;
            }
            before = left;
        }
    }

    /// The last slot: they are posted, and so complete, from the first to the last, round and round.
    pub(crate) fn last_slot(&self) -> u32 {
        self.count.saturating_sub(1)
    }

    /// A request has completed of no use: those in `used` are not posted any more, either. For process and BH context.
    pub(crate) fn failed(&self, used: &mut Used) {
        self.spent(used.take().len.saturating_add(1));
    }

    /// So many requests are not posted again.
    fn spent(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(0);
        let left = self.posted.fetch_sub(count, Full).wrapping_sub(count);

        if left == 0 {
            self.changed.wake_all();
        }
    }

    /// Memory of a slot and its place therein.
    fn place(&self, slot: usize) -> Option<(&Mapping, usize)> {
        let chunk = self.slots.get(slot.checked_div(self.slots_per_chunk)?)?;

        Some((
            chunk,
            slot.checked_rem(self.slots_per_chunk)? * self.slot_room,
        ))
    }

    /// Posts the requests of `slots`, [`MAX_RECVS`] at most.
    fn post(&self, slots: &[u32]) -> Result {
        let second = match &self.spill {
            Some(spill) => spill.sge(0, LONG_MESSAGE_LEN - MESSAGE_LEN).map(Some),
            None => Ok(None),
        };
        let requests = slots.iter().map(|slot| {
            let (memory, offset) = self.place(*slot as usize).ok_or(EINVAL)?;
            let first = memory.sge(offset, self.slot_len)?;
            memory.sync_for_device(offset..offset + self.slot_len);
            Ok((*slot, [Some(first), second?]))
        });
        self.queues.recv(requests).map_err(|(err, left)| {
            self.spent(left);
            err
        })
    }

    /// Gives `handle` the message of a successful completion, and posts the request again, when there are enough of them in
    /// `used`, which is the ring's. Unless that has an end. For process and BH context.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such slot, else why some could not be posted: then the queue pair is
    /// of no use any more. `handle` was called nevertheless.
    pub(crate) fn receive<R>(
        &self,
        slot: u32,
        byte_len: u32,
        used: &mut Used,
        handle: impl FnOnce(&Received<'_>) -> R,
    ) -> Result<R> {
        let (memory, offset) = self.place(slot as usize).ok_or(EINVAL)?;
        let len = (byte_len as usize).min(LONG_MESSAGE_LEN);
        let mut head = [0; MESSAGE_LEN];
        let head_len = len.min(MESSAGE_LEN);

        memory.sync_for_cpu(offset..offset + len.min(self.slot_len));
        if let Some(spill) = self.spill.as_ref().filter(|_| len > MESSAGE_LEN) {
            spill.sync_for_cpu(0..len - MESSAGE_LEN);
        }
        if let (Some(buffer), Some(head)) = (memory.buffer(), head.get_mut(..head_len)) {
            buffer.read(offset, head)?;
        }
        let result = handle(&Received {
            head,
            head_len,
            len,
            tail: match self.spill.as_ref() {
                Some(spill) => (spill, 0),
                None => (memory, offset + MESSAGE_LEN),
            },
        });

        self.again(slot, used)?;
        Ok(result)
    }

    /// Posts a request again, unless that has an end, whose completion says that it was used without a message: by an RDMA WRITE
    /// WITH IMMEDIATE. Otherwise as [`Self::receive`].
    pub(crate) fn again(&self, slot: u32, used: &mut Used) -> Result {
        used.push(slot);
        // Completions go on coming after the end, as there are more requests than are kept here.
        if self.ended.load(Acquire) {
            self.spent(used.take().len);
            return Ok(());
        }
        if used.len < self.together() {
            return Ok(());
        }
        self.post(used.take().as_slice())
    }
}

impl Received<'_> {
    /// Copies what follows the first [`MESSAGE_LEN`] bytes, as far as there is room; how much that is.
    pub(crate) fn read_tail(&self, out: &mut [u8]) -> usize {
        let (memory, offset) = self.tail;
        let len = self.len.saturating_sub(MESSAGE_LEN).min(out.len());
        let read = match (memory.buffer(), out.get_mut(..len)) {
            (Some(buffer), Some(out)) => buffer.read(offset, out),
            _ => return 0,
        };
        read.map_or(0, |()| len)
    }

    /// The message, or the first [`MESSAGE_LEN`] bytes of it.
    pub(crate) fn head(&self) -> &[u8] {
        self.head.get(..self.head_len).unwrap_or(&[])
    }
}
