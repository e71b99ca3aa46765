// SPDX-License-Identifier: GPL-2.0

//! Messages that are being sent.

use crate::kapi::prelude::*;
use kernel::sync::{
    atomic::{
        Atomic,
        Relaxed, //
    },
    Arc, //
};

use super::{
    message_memory,
    send_slots_of,
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
        wr::{
            Writes,
            NO_WRITES, //
        }, //
    },
    kapi::lock::{
        new_spinlock_bh,
        SpinLockBh, //
    },
};

/// Short messages that can wait for a slot.
const WAITING: usize = 16;

/// A fixed number of messages that can be under way, each with a value that says what to do when
/// it has been sent.
///
/// A slot goes from free to reserved ([`Slot`]), with its value, to posted, and back to free when its completion is
/// given to [`Self::complete`].
#[pin_data]
pub(crate) struct SendSlots<T> {
    queues: Arc<Queues>,
    messages: Mapping,
    /// See [`SendSlots::take_scarce`].
    scarce: Atomic<bool>,
    #[pin]
    inner: SpinLockBh<Inner<T>>,
    #[pin]
    changed: WaitQueue,
}

struct Inner<T> {
    // Free slots; the one freed last is used first, as its memory is warm. Has room for all.
    free: KVec<u32>,
    // By slot: what was posted, or is about to be, and not completed.
    pending: KVec<Option<T>>,
    posted: u32,
    /// Counts completions, and wraps.
    completed: u32,
    /// Short messages that wait for a slot: their turn is before that of [`SendSlots::reserve`].
    waiting: KVec<([u8; MESSAGE_LEN], T)>,
    waiters: u32,
    /// Tasks among them that wait for a slot: their turn is before that of [`SendSlots::reserve`].
    turns: u32,
    closed: bool,
    /// The queue pair cannot send yet.
    held: bool,
    /// Somebody wants the send queue to be empty.
    paused: bool,
}

/// A reserved slot; it becomes free again, and its value is dropped, when it is dropped.
pub(crate) struct Slot<'a, T> {
    slots: &'a SendSlots<T>,
    index: u32,
}

impl<T: Send + Copy> SendSlots<T> {
    /// Makes as many slots as the queue pair has room for, but at most `limit`; gives out none before [`Self::open`]. May sleep.
    pub(crate) fn new(
        pd: &Arc<Pd>,
        queues: &Arc<Queues>,
        limit: u32,
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
        let queues = queues.clone();
        let inner = Inner {
            free,
            pending,
            posted: 0,
            completed: 0,
            waiting: KVec::with_capacity(WAITING, GFP_KERNEL)?,
            waiters: 0,
            turns: 0,
            closed: false,
            held: true,
            paused: false,
        };

        Ok(pin_init!(Self {
            queues,
            messages,
            scarce: Atomic::new(false),
            inner <- new_spinlock_bh!(inner, "ib::SendSlots::inner"),
            changed <- new_wait_queue!("ib::SendSlots::changed"),
        }))
    }

    /// How many slots are in use, and how many there are.
    pub(crate) fn usage(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        let all = inner.pending.len();
        (all.saturating_sub(inner.free.len()), all)
    }

    /// Reserves a slot, whose value is kept until the completion, if one is free that no task waits for in
    /// [`Self::reserve_wait`]. For process and BH context.
    ///
    /// Data that is sent from completions takes each slot again as soon as it is free. Without turns
    /// a task would never come by one, and control messages have to get through (RFC 7609, section
    /// 4.5.3: a TEST LINK without answer ends the link).
    ///
    /// Where there is none, the next call of [`Self::complete`] makes one free, or the end of a
    /// [`Pause`], or [`Self::open`] does: who sends for others what they could not can be sure to be called then.
    pub(crate) fn reserve(&self, value: T) -> Option<Slot<'_, T>> {
        let mut inner = self.inner.lock();

        if inner.closed || !inner.gives() || inner.free.len() <= inner.claims() {
            return None;
        }
        let index = inner.take(value)?;
        let left = inner.free.len();
        if left == 0 || left == inner.pending.len() / 4 {
            self.scarce.store(true, Relaxed);
        }
        Some(Slot { slots: self, index })
    }

    /// Whether slots have become few, or the last one was taken, since this was asked last: it is time to look at what
    /// has been sent, before somebody has to wait for it.
    pub(crate) fn take_scarce(&self) -> bool {
        let scarce = self.scarce.load(Relaxed);
        if scarce {
            self.scarce.store(false, Relaxed);
        }
        scarce
    }

    /// Sends a short message, as soon as there is a slot; what waits for one is sent by [`Self::send_waiting`]. For
    /// process and BH context.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` after [`Self::close`], `EBUSY` if too many wait already.
    pub(crate) fn send(&self, message: &[u8; MESSAGE_LEN], value: T) -> Result {
        {
            let mut inner = self.inner.lock();
            if inner.closed {
                return Err(ENOTCONN);
            }
            inner
                .waiting
                .push_within_capacity((*message, value))
                .map_err(|_| EBUSY)?;
        }
        Ok(())
    }

    /// The queue pair can send.
    pub(crate) fn open(&self) {
        self.inner.lock().held = false;
        self.changed.wake_all();
    }

    /// Posts messages that wait for a slot, as long as there are slots; whether some are left. To be called after
    /// [`Self::send`], [`Self::open`], after completions, and after a [`Pause`]. For process and BH context.
    ///
    /// # Errors
    ///
    /// As for [`Queues::send`]: the message is lost, and the queue pair of no use.
    pub(crate) fn send_waiting(&self) -> Result<bool> {
        loop {
            let mut inner = self.inner.lock();
            if inner.waiting.is_empty() {
                return Ok(false);
            }
            if !inner.gives() || inner.free.is_empty() {
                return Ok(true);
            }
            let (message, value) = inner.waiting.remove(0).map_err(|_| EINVAL)?;
            let index = inner.take(value).ok_or(EINVAL)?;
            drop(inner);
            let slot = Slot { slots: self, index };
            slot.post(&message, &NO_WRITES)?;
        }
    }

    /// Reserves a slot for a task whose turn it is.
    fn reserve_turn(&self, value: T) -> Option<Result<Slot<'_, T>>> {
        let mut inner = self.inner.lock();

        if inner.closed {
            return Some(Err(ENOTCONN));
        }
        if !inner.gives() {
            return None;
        }
        let index = inner.take(value)?;
        Some(Ok(Slot { slots: self, index }))
    }

    /// Reserves a slot, and waits for at most `timeout_ms` milliseconds until there is one. For
    /// process context.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` after [`Self::close`], `ETIMEDOUT` when the time is up.
    pub(crate) fn reserve_wait(&self, timeout_ms: u32, value: T) -> Result<Slot<'_, T>> {
        self.in_turn(|| self.changed.wait(timeout_ms, || self.reserve_turn(value)))
            .ok_or(ETIMEDOUT)?
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
            drop(inner);
            // Who wants a pause waits for that.
            self.changed.wake_all();
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

    /// Takes note that the SENDs of slots have completed, well or not, and gives back their values in that order; `values` has
    /// room for all.
    ///
    /// The slots are free when this returns. [`None`] for a slot that was not posted.
    pub(crate) fn complete(&self, slots: impl Iterator<Item = u32>, values: &mut [Option<T>]) {
        let mut inner = self.inner.lock();
        let mut wake = false;

        for (index, value) in slots.zip(values) {
            *value = inner.give_back(index);
            if value.is_some() {
                inner.completed = inner.completed.wrapping_add(1);
                wake |= inner.waiters > 0;
            }
        }
        drop(inner);
        if wake {
            self.changed.wake_all();
        }
    }

    /// As [`Self::complete`] of one slot.
    fn complete_one(&self, index: u32) -> Option<T> {
        let mut value = [None];
        self.complete(core::iter::once(index), &mut value);
        let [value] = value;
        value
    }

    /// Throws away what waits for a slot: it will find none.
    pub(crate) fn drop_waiting(&self) {
        self.inner.lock().waiting.clear();
    }

    /// Whether a slot is not free.
    pub(crate) fn is_busy(&self) -> bool {
        let inner = self.inner.lock();
        inner.free.len() < inner.pending.len()
    }

    /// Whether no message is under way, or waits for a slot.
    fn is_idle(&self) -> bool {
        let inner = self.inner.lock();
        inner.posted == 0 && inner.waiting.is_empty()
    }

    /// Waits until no message is under way, or waits for a slot: after the queue pair was set to its error state all of
    /// them complete. It gives up when nothing has completed for `patience`, in milliseconds, which is asked for
    /// every second that nothing does. For process context.
    pub(crate) fn wait_idle(&self, patience: impl Fn() -> u32) {
        const LOOK_MS: u32 = 1_000;
        let idle = || self.is_idle().then_some(());

        self.waiting(|| {
            let mut before = self.inner.lock().completed;
            let mut stood = 0u32;
            while self.changed.wait(LOOK_MS, idle).is_none() {
                let completed = self.inner.lock().completed;
                stood = if completed == before {
                    stood.saturating_add(LOOK_MS)
                } else {
                    0
                };
                if stood >= patience() {
                    return;
                }
                before = completed;
            }
        });
    }

    /// Gives out no slots until the pause is dropped, and waits for at most `timeout_ms` milliseconds
    /// until all that was posted is sent. One at a time. For process context.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` after [`Self::close`], `ETIMEDOUT` when the time is up.
    pub(crate) fn pause(&self, timeout_ms: u32) -> Result<Pause<'_, T>> {
        let mut pause = None;

        self.waiting(|| {
            self.changed.wait(timeout_ms, || {
                let mut inner = self.inner.lock();
                if inner.closed {
                    return Some(Err(ENOTCONN));
                }
                if pause.is_none() {
                    // Control messages first: one registration after the other would leave them none.
                    if inner.claims() > 0 {
                        return None;
                    }
                    inner.paused = true;
                    pause = Some(Pause { slots: self });
                }
                (inner.free.len() == inner.pending.len()).then_some(Ok(()))
            })
        })
        .ok_or(ETIMEDOUT)??;
        pause.ok_or(EINVAL)
    }

    /// Gives out no more slots, and ends all waits for one. What [`Self::send`] has taken is still sent.
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

        self.complete_one(u32::try_from(index).ok()?)
    }
}

impl<T> Inner<T> {
    /// Whether slots are given out at the moment.
    fn gives(&self) -> bool {
        !self.held && !self.paused
    }

    /// How many slots are others' before [`SendSlots::reserve`] gives one.
    fn claims(&self) -> usize {
        let turns = usize::try_from(self.turns).unwrap_or(0);
        self.waiting.len().saturating_add(turns)
    }

    /// Takes a free slot.
    fn take(&mut self, value: T) -> Option<u32> {
        let index = self.free.pop()?;
        // Before it is posted, as the completion may come at once.
        *self.pending.get_mut(index as usize)? = Some(value);
        self.posted = self.posted.saturating_add(1);
        Some(index)
    }

    /// Frees a slot that was taken, and gives back its value.
    fn give_back(&mut self, index: u32) -> Option<T> {
        let value = self.pending.get_mut(index as usize)?.take()?;
        self.posted = self.posted.saturating_sub(1);
        // There is room for all slots, and each is here at most once.
        let _ = self.free.push_within_capacity(index);
        Some(value)
    }
}

impl<T: Send + Copy> Slot<'_, T> {
    /// Sends `writes` and then `message`, in one chain. For process and BH context.
    ///
    /// # Errors
    ///
    /// As for [`Queues::send`]; nothing completes then, and the slot is free again.
    pub(crate) fn post(self, message: &[u8; MESSAGE_LEN], writes: &Writes<'_>) -> Result {
        let memory = &self.slots.messages;
        let offset = self.index as usize * MESSAGE_ROOM;
        self.post_from(memory, offset, message, writes)
    }

    /// Sends `writes`, the last of them with `immediate`. For process and BH context.
    ///
    /// # Errors
    ///
    /// As for [`Self::post`], and `EINVAL` without a write.
    pub(crate) fn post_immediate(self, writes: &Writes<'_>, immediate: u32) -> Result {
        self.post_as(|queues, index| queues.write_immediate(index, writes, immediate))
    }

    /// Sends a long message out of `memory`, which is used by nothing else until the completion; see
    /// [`super::long_message_memory`]. Otherwise as [`Self::post`].
    pub(crate) fn post_long(self, memory: &Mapping, message: &[u8]) -> Result {
        self.post_from(memory, 0, message, &NO_WRITES)
    }

    fn post_from(
        self,
        memory: &Mapping,
        offset: usize,
        message: &[u8],
        writes: &Writes<'_>,
    ) -> Result {
        memory.buffer().ok_or(EINVAL)?.write(offset, message)?;
        let sge = memory.sge(offset, message.len())?;
        memory.sync_for_device(offset..offset + message.len());
        self.post_as(|queues, index| queues.send(index, writes, sge))
    }

    /// Posts something that completes as the slot's.
    fn post_as(self, post: impl FnOnce(&Queues, u32) -> Result) -> Result {
        let slots = self.slots;
        let index = self.index;

        // From here on the completion frees the slot.
        core::mem::forget(self);
        post(&slots.queues, index).inspect_err(|_| {
            slots.complete_one(index);
        })
    }
}

/// Nothing is being sent; see [`SendSlots::pause`].
pub(crate) struct Pause<'a, T> {
    slots: &'a SendSlots<T>,
}

impl<T> Drop for Pause<'_, T> {
    fn drop(&mut self) {
        self.slots.inner.lock().paused = false;
        self.slots.changed.wake_all();
    }
}

impl<T> Drop for Slot<'_, T> {
    fn drop(&mut self) {
        let mut inner = self.slots.inner.lock();
        let value = inner.give_back(self.index);
        let wake = inner.waiters > 0;

        drop(inner);
        drop(value);
        if wake {
            self.slots.changed.wake_all();
        }
    }
}
