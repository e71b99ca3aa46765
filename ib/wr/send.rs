// SPDX-License-Identifier: GPL-2.0

//! Messages that are being sent.

use crate::kapi::prelude::*;
use kernel::{
    sync::Arc, //
};

use super::{
    message_memory,
    send_slots_of,
    LONG_MESSAGE_LEN,
    MESSAGE_LEN,
    MESSAGE_ROOM, //
};
use crate::{
    ib::verbs::{
        mapping::{
            Direction,
            Mapping, //
        },
        pd::Pd,
        queues::Queues,
        wait::{
            new_wait_queue,
            WaitQueue, //
        },
        wr::RdmaWrite, //
    },
    kapi::lock::{
        new_spinlock_bh,
        SpinLockBh, //
    },
};

/// A fixed number of messages that can be under way, each with a value that says what to do when
/// it has been sent.
///
/// A slot goes from free to reserved ([`Slot`]), to posted, and back to free when its completion is
/// given to [`Self::complete`].
#[pin_data]
pub(crate) struct SendSlots<T> {
    queues: Arc<Queues>,
    messages: Mapping,
    long: Option<Mapping>,
    count: u32,
    #[pin]
    inner: SpinLockBh<Inner<T>>,
    #[pin]
    changed: WaitQueue,
}

struct Inner<T> {
    // Free slots; the one freed last is used first, as its memory is warm. Has room for all.
    free: KVec<u32>,
    // By slot: what was posted, and not completed.
    pending: KVec<Option<Pending<T>>>,
    posted: u32,
    long_used: bool,
    waiters: u32,
    /// Tasks among them that wait for a slot: their turn is before that of [`SendSlots::reserve`].
    turns: u32,
    closed: bool,
}

struct Pending<T> {
    value: T,
    long: bool,
}

/// Why posting failed, with the value back.
pub(crate) struct PostError<T> {
    /// What went wrong.
    pub(crate) error: Error,
    /// The value that was to be kept until the completion.
    pub(crate) value: T,
}

/// A reserved slot; it becomes free again when it is dropped.
pub(crate) struct Slot<'a, T> {
    slots: &'a SendSlots<T>,
    index: u32,
}

impl<T: Send> SendSlots<T> {
    /// Makes as many slots as the queue pair has room for, but at most `limit`. May sleep.
    ///
    /// With `long` there is memory for one message of up to [`LONG_MESSAGE_LEN`] bytes.
    pub(crate) fn new(
        pd: &Arc<Pd>,
        queues: &Arc<Queues>,
        limit: u32,
        long: bool,
    ) -> Result<impl PinInit<Self>> {
        let count = send_slots_of(queues.capabilities()).min(limit);
        let len = usize::try_from(count)?;
        let mut free = KVec::with_capacity(len, GFP_KERNEL)?;
        let mut pending = KVec::with_capacity(len, GFP_KERNEL)?;

        if count == 0 {
            return Err(EINVAL);
        }
        for index in (0..count).rev() {
            free.push(index, GFP_KERNEL)?;
            pending.push(None, GFP_KERNEL)?;
        }
        let messages = message_memory(pd, len * MESSAGE_ROOM, Direction::ToDevice)?;
        let long = if long {
            Some(message_memory(pd, LONG_MESSAGE_LEN, Direction::ToDevice)?)
        } else {
            None
        };
        let queues = queues.clone();
        let inner = Inner {
            free,
            pending,
            posted: 0,
            long_used: false,
            waiters: 0,
            turns: 0,
            closed: false,
        };

        Ok(pin_init!(Self {
            queues,
            messages,
            long,
            count,
            inner <- new_spinlock_bh!(inner, "ib::SendSlots::inner"),
            changed <- new_wait_queue!("ib::SendSlots::changed"),
        }))
    }

    /// The queue pair's data path.
    pub(crate) fn queues(&self) -> &Arc<Queues> {
        &self.queues
    }

    /// Number of slots.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Reserves a slot, if one is free that no task waits for in [`Self::reserve_wait`]. For process
    /// and BH context.
    ///
    /// Data that is sent from completions takes each slot again as soon as it is free. Without turns
    /// a task would never come by one, and control messages have to get through (RFC 7609, section
    /// 4.5.3: a TEST LINK without answer ends the link).
    ///
    /// Where there is none, the next call of [`Self::complete`] makes one free: a completion handler
    /// that has sent for others what they could not can be sure to be called.
    pub(crate) fn reserve(&self) -> Option<Slot<'_, T>> {
        let mut inner = self.inner.lock();

        if inner.closed || inner.free.len() <= usize::try_from(inner.turns).unwrap_or(0) {
            return None;
        }
        let index = inner.free.pop()?;
        Some(Slot { slots: self, index })
    }

    /// Reserves a slot for a task whose turn it is.
    fn reserve_turn(&self) -> Option<Result<Slot<'_, T>>> {
        let mut inner = self.inner.lock();

        if inner.closed {
            return Some(Err(ENOTCONN));
        }
        let index = inner.free.pop()?;
        Some(Ok(Slot { slots: self, index }))
    }

    /// Reserves a slot, and waits for at most `timeout_ms` milliseconds until there is one. For
    /// process context.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` after [`Self::close`], `ETIMEDOUT` when the time is up.
    pub(crate) fn reserve_wait(&self, timeout_ms: u32) -> Result<Slot<'_, T>> {
        self.in_turn(|| self.changed.wait(timeout_ms, || self.reserve_turn()))
            .ok_or(ETIMEDOUT)?
    }

    /// Like [`Self::reserve_wait`], but a signal ends the wait with `ERESTARTSYS`.
    pub(crate) fn reserve_interruptible(&self, timeout_ms: u32) -> Result<Slot<'_, T>> {
        self.in_turn(|| {
            self.changed
                .wait_interruptible(timeout_ms, || self.reserve_turn())
        })?
    }

    /// Counts a task that waits for a slot.
    fn in_turn<R>(&self, wait: impl FnOnce() -> R) -> R {
        self.waiting(|| {
            {
                let mut inner = self.inner.lock();
                inner.turns = inner.turns.saturating_add(1);
            }
            let result = wait();
            let mut inner = self.inner.lock();
            inner.turns = inner.turns.saturating_sub(1);
            result
        })
    }

    /// Counts a waiting task, so that it gets woken.
    fn waiting<R>(&self, wait: impl FnOnce() -> R) -> R {
        {
            let mut inner = self.inner.lock();
            inner.waiters = inner.waiters.saturating_add(1);
        }
        let result = wait();
        let mut inner = self.inner.lock();
        inner.waiters = inner.waiters.saturating_sub(1);
        result
    }

    /// Takes note that the SEND of a slot has completed, well or not, and gives back its value.
    ///
    /// The slot is free when this returns. [`None`] for a slot that was not posted.
    pub(crate) fn complete(&self, index: u32) -> Option<T> {
        let mut inner = self.inner.lock();
        let pending = inner.pending.get_mut(index as usize)?.take()?;

        if pending.long {
            inner.long_used = false;
        }
        inner.posted = inner.posted.saturating_sub(1);
        let wake = inner.release(index);
        drop(inner);
        if wake {
            self.changed.wake_all();
        }
        Some(pending.value)
    }

    /// Number of messages that are under way.
    pub(crate) fn in_flight(&self) -> u32 {
        self.inner.lock().posted
    }

    /// Waits until no message is under way: after the queue pair was set to its error state all of
    /// them complete. Whether that came true in `timeout_ms` milliseconds. For process context.
    pub(crate) fn wait_idle(&self, timeout_ms: u32) -> bool {
        let idle = || (self.in_flight() == 0).then_some(());

        self.waiting(|| self.changed.wait(timeout_ms, idle))
            .is_some()
    }

    /// Gives out no more slots, and ends all waits for one.
    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
        self.changed.wake_all();
    }

    /// Takes the values of messages that never completed, one a call: for the end, when the queue
    /// pair is gone.
    pub(crate) fn abandon(&self) -> Option<T> {
        let index = {
            let inner = self.inner.lock();
            inner.pending.iter().position(|pending| pending.is_some())?
        };

        self.complete(u32::try_from(index).ok()?)
    }
}

impl<T> Inner<T> {
    /// Frees a slot; whether somebody has to be woken.
    fn release(&mut self, index: u32) -> bool {
        // There is room for all slots, and each is here at most once.
        let _ = self.free.push_within_capacity(index);
        self.waiters > 0
    }
}

impl<T: Send> Slot<'_, T> {
    /// Number of the slot, as in [`WrId::Send`](crate::ib::verbs::wr::WrId::Send).
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Sends `writes` and then `message`, in one chain; keeps `value` until the completion. For
    /// process and BH context.
    ///
    /// # Errors
    ///
    /// As for [`Queues::send`]; nothing completes then, and the slot is free again.
    pub(crate) fn post(
        self,
        message: &[u8; MESSAGE_LEN],
        writes: &[RdmaWrite<'_>],
        value: T,
    ) -> Result<(), PostError<T>> {
        let offset = self.index as usize * MESSAGE_ROOM;
        let slots = self.slots;

        self.post_from(&slots.messages, offset, message, writes, value, false)
    }

    /// Sends a message of any length up to [`LONG_MESSAGE_LEN`]; at most one longer than
    /// [`MESSAGE_LEN`] can be under way.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there is another long message under way, `EMSGSIZE` if it is too long or there is
    /// no memory for long messages, else as for [`Self::post`].
    pub(crate) fn post_long(self, message: &[u8], value: T) -> Result<(), PostError<T>> {
        let slots = self.slots;

        if message.len() <= MESSAGE_ROOM {
            let offset = self.index as usize * MESSAGE_ROOM;
            return self.post_from(&slots.messages, offset, message, &[], value, false);
        }
        let Some(long) = slots.long.as_ref() else {
            return Err(PostError {
                error: EMSGSIZE,
                value,
            });
        };
        if message.len() > LONG_MESSAGE_LEN {
            return Err(PostError {
                error: EMSGSIZE,
                value,
            });
        }
        if core::mem::replace(&mut slots.inner.lock().long_used, true) {
            return Err(PostError {
                error: EBUSY,
                value,
            });
        }
        let result = self.post_from(long, 0, message, &[], value, true);
        if result.is_err() {
            slots.inner.lock().long_used = false;
        }
        result
    }

    fn post_from(
        self,
        memory: &Mapping,
        offset: usize,
        message: &[u8],
        writes: &[RdmaWrite<'_>],
        value: T,
        long: bool,
    ) -> Result<(), PostError<T>> {
        let slots = self.slots;
        let index = self.index;
        let prepared = memory
            .buffer()
            .ok_or(EINVAL)
            .and_then(|buffer| buffer.write(offset, message))
            .and_then(|()| memory.sge(offset, message.len()));
        let sge = match prepared {
            Ok(sge) => sge,
            Err(error) => return Err(PostError { error, value }),
        };
        memory.sync_for_device(offset..offset + message.len());

        // Before posting, as the completion may come at once.
        {
            let mut inner = slots.inner.lock();
            if let Some(pending) = inner.pending.get_mut(index as usize) {
                *pending = Some(Pending { value, long });
            }
            inner.posted = inner.posted.saturating_add(1);
        }
        // From here on the completion frees the slot.
        core::mem::forget(self);
        match slots.queues.send(index, writes, sge) {
            Ok(()) => Ok(()),
            Err(error) => match slots.complete(index) {
                Some(value) => Err(PostError { error, value }),
                // Only if the handler was given a completion that nobody posted.
                None => Ok(()),
            },
        }
    }
}

impl<T> Drop for Slot<'_, T> {
    fn drop(&mut self) {
        let wake = self.slots.inner.lock().release(self.index);

        if wake {
            self.slots.changed.wake_all();
        }
    }
}
