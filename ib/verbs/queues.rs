// SPDX-License-Identifier: GPL-2.0

//! The data path of a queue pair: posting work requests.

use crate::kapi::prelude::*;
use core::ptr::{
    null_mut,
    NonNull, //
};
use kernel::{
    error::{
        to_result,
        Error, //
    },
    sync::{
        atomic::{
            Acquire,
            Full,
            Release, //
        },
        Arc, //
    },
};

use super::{
    mapping::{
        registration,
        Direction,
        Mapping,
        Sge, //
    },
    wr::{
        RdmaWrite,
        WrId,
        Writes, //
    },
};
use crate::{
    bindings,
    kapi::lock::{
        new_spinlock_bh,
        SpinLockBh, //
    },
};

/// What a queue pair was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Outstanding requests on the send queue.
    pub(crate) max_send_wr: u32,
    /// Outstanding requests on the receive queue.
    pub(crate) max_recv_wr: u32,
    /// Scatter/gather entries of a receive request.
    pub(crate) max_recv_sge: u32,
    /// Bytes that a send request can carry itself, so that the device need not fetch them.
    pub(crate) max_inline: u32,
}

/// What may be posted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Reset,
    /// The state is INIT or RTR.
    Recv,
    /// The state is RTS.
    Both,
    /// The queue pair has failed, or was told to.
    Broken,
}

struct Inner {
    // `None` when the queue pair is gone.
    raw: Option<NonNull<bindings::ib_qp>>,
    phase: Phase,
    /// Counts the SENDs that were posted, round and round: only what completes if all goes well.
    turn: u32,
}

/// The send and receive queue of a queue pair.
///
/// May be held longer than the [`Qp`](super::qp::Qp), and by its completion handler: it keeps
/// nothing alive. Once the queue pair is gone posting fails with `ENOTCONN`.
///
/// Posting takes a [`SpinLockBh`], so that the queue pair does not go away meanwhile.
#[pin_data]
pub(crate) struct Queues {
    number: u32,
    capabilities: Capabilities,
    // Only compared with, never dereferenced.
    pd: *mut bindings::ib_pd,
    #[pin]
    inner: SpinLockBh<Inner>,
}

// SAFETY: The C object has no ties to a task.
unsafe impl Send for Queues {}
// SAFETY: The queue pair is used under the lock only.
unsafe impl Sync for Queues {}

/// Most RDMA WRITEs that are posted with a SEND.
pub(crate) const MAX_WRITES: usize = 2;

/// Most RECVs that are posted at once.
pub(crate) const MAX_RECVS: usize = 8;

impl Queues {
    /// # Safety
    ///
    /// `raw` stays valid until [`Self::close`].
    pub(super) unsafe fn new(
        raw: NonNull<bindings::ib_qp>,
        capabilities: Capabilities,
    ) -> Result<Arc<Self>> {
        // SAFETY: The queue pair is valid by this function's contract; these do not change.
        let (number, pd) = unsafe { (raw.as_ref().qp_num, raw.as_ref().pd) };

        Arc::pin_init(
            pin_init!(Self {
                number,
                capabilities,
                pd,
                inner <- new_spinlock_bh!(
                    Inner { raw: Some(raw), phase: Phase::Reset, turn: 0 },
                    "ib::Queues::inner"
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// The queue pair number (24 bits).
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// What the queue pair was granted.
    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Whether sends can be posted now.
    pub(crate) fn can_send(&self) -> bool {
        let inner = self.inner.lock();

        inner.raw.is_some() && inner.phase == Phase::Both
    }

    /// The turn that the next SEND gets; see [`WrId::Send`].
    pub(crate) fn next_turn(&self) -> u32 {
        self.inner.lock().turn
    }

    /// Refuses further sends: for a handler that saw a completion fail.
    pub(crate) fn set_broken(&self) {
        self.inner.lock().phase = Phase::Broken;
    }

    /// Follows the queue pair's state, unless it has failed.
    pub(super) fn set_phase(&self, phase: Phase) {
        let mut inner = self.inner.lock();

        if inner.phase != Phase::Broken {
            inner.phase = phase;
        }
    }

    /// Refuses everything from now on: the queue pair is about to go.
    pub(super) fn close(&self) {
        self.inner.lock().raw = None;
    }

    fn check_sge(&self, sge: &Sge<'_>) -> Result {
        // Memory of another domain might be freed while this queue pair still uses it.
        if sge.pd != self.pd {
            return Err(EINVAL);
        }
        Ok(())
    }

    /// Posts `writes` and then a SEND of `message`, as one chain.
    ///
    /// Only the SEND completes, as [`WrId::Send`] with `slot`, if all goes well. Data that fits
    /// into the request is copied now; other memory is read by the device until the completion.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` if the queue pair is not in a state to send, `EINVAL` for memory of another
    /// domain, else what the driver says: no more can be sent then.
    pub(crate) fn send(&self, slot: u32, writes: &Writes<'_>, message: Sge<'_>) -> Result {
        let mut sges = [[bindings::ib_sge::default(); 2]; MAX_WRITES];
        let mut wrs = [bindings::ib_rdma_wr::default(); MAX_WRITES];
        let mut message_sge = message.raw;
        let mut send = bindings::ib_send_wr {
            sg_list: &mut message_sge,
            num_sge: 1,
            opcode: bindings::ib_wr_opcode_IB_WR_SEND,
            send_flags: (bindings::ib_send_flags_IB_SEND_SIGNALED
                | bindings::ib_send_flags_IB_SEND_SOLICITED) as c_int,
            ..Default::default()
        };

        self.check_sge(&message)?;
        if self.inline(&mut message_sge, &message, message.len()) {
            send.send_flags |= bindings::ib_send_flags_IB_SEND_INLINE as c_int;
        }

        // Linked from the end.
        let last: *mut bindings::ib_send_wr = &mut send;
        let mut next = last;
        let parts = writes.iter().zip(wrs.iter_mut().zip(sges.iter_mut()));
        for (write, (wr, sges)) in parts.rev() {
            let Some(write) = write else {
                continue;
            };
            self.fill_write(slot, write, wr, sges)?;
            wr.wr.next = next;
            next = &mut wr.wr;
        }
        self.post_send(next, Some((last, slot)))
    }

    /// Posts `writes`, at least one, as one chain; the last one has `immediate`, and uses a receive request
    /// of the peer's.
    ///
    /// Only that one completes, as [`WrId::Send`] with `slot`, if all goes well.
    ///
    /// # Errors
    ///
    /// As for [`Self::send`]; also `EINVAL` for no write.
    pub(crate) fn write_immediate(&self, slot: u32, writes: &Writes<'_>, immediate: u32) -> Result {
        match writes {
            [Some(first), Some(second)] => self.write_chain(slot, [first, second], immediate),
            [Some(only), None] | [None, Some(only)] => self.write_chain(slot, [only], immediate),
            [None, None] => Err(EINVAL),
        }
    }

    /// As [`Self::write_immediate`]; most often there is one, and the request for a second one need not be cleared.
    fn write_chain<const N: usize>(
        &self,
        slot: u32,
        writes: [&RdmaWrite<'_>; N],
        immediate: u32,
    ) -> Result {
        let mut sges = [[bindings::ib_sge::default(); 2]; N];
        let mut wrs = [bindings::ib_rdma_wr::default(); N];
        let mut next: *mut bindings::ib_send_wr = null_mut();
        let mut last = next;

        // Linked from the end.
        let parts = writes.iter().zip(wrs.iter_mut().zip(sges.iter_mut()));
        for (write, (wr, sges)) in parts.rev() {
            self.fill_write(slot, write, wr, sges)?;
            if next.is_null() {
                wr.wr.opcode = bindings::ib_wr_opcode_IB_WR_RDMA_WRITE_WITH_IMM;
                wr.wr.ex.imm_data = immediate.to_be();
                wr.wr.send_flags |= (bindings::ib_send_flags_IB_SEND_SIGNALED
                    | bindings::ib_send_flags_IB_SEND_SOLICITED)
                    as c_int;
            }
            wr.wr.next = next;
            next = &mut wr.wr;
            if last.is_null() {
                last = next;
            }
        }
        self.post_send(next, Some((last, slot)))
    }

    /// Whether data of `len` bytes goes into the request; then its address is the processor's.
    fn inline(&self, raw: &mut bindings::ib_sge, sge: &Sge<'_>, len: u32) -> bool {
        let inline = len > 0 && len <= self.capabilities.max_inline;

        if inline {
            raw.addr = sge.cpu.as_ptr() as u64;
        }
        inline
    }

    fn fill_write(
        &self,
        slot: u32,
        write: &RdmaWrite<'_>,
        wr: &mut bindings::ib_rdma_wr,
        sges: &mut [bindings::ib_sge; 2],
    ) -> Result {
        let len = write.len();
        let pieces = [Some(&write.first), write.second.as_ref()];

        wr.wr.sg_list = sges.as_mut_ptr();
        wr.wr.opcode = bindings::ib_wr_opcode_IB_WR_RDMA_WRITE;
        wr.wr.__bindgen_anon_1.wr_id = WrId::Write(slot).encode();
        wr.rkey = write.rkey;
        wr.remote_addr = write.remote_addr;
        for (piece, raw) in pieces.into_iter().flatten().zip(sges) {
            self.check_sge(piece)?;
            *raw = piece.raw;
            if self.inline(raw, piece, len) {
                wr.wr.send_flags = bindings::ib_send_flags_IB_SEND_INLINE as c_int;
            }
            wr.wr.num_sge += 1;
        }
        Ok(())
    }

    /// Posts a chain whose memory stays valid for the length of the call. `last`, if given, is the request in it that completes as
    /// the slot's, whose turn is known only here.
    fn post_send(
        &self,
        first: *mut bindings::ib_send_wr,
        last: Option<(*mut bindings::ib_send_wr, u32)>,
    ) -> Result {
        let mut inner = self.inner.lock();
        let mut bad = core::ptr::null();

        if inner.phase != Phase::Both {
            return Err(ENOTCONN);
        }
        let raw = inner.raw.ok_or(ENOTCONN)?;
        if let Some((last, slot)) = last {
            let turn = inner.turn;
            // SAFETY: The callers in this module give a request of the chain, which is theirs alone.
            unsafe { (*last).__bindgen_anon_1.wr_id = WrId::Send { slot, turn }.encode() };
        }
        // SAFETY: The queue pair is there, as `close` takes the lock first. The callers in this
        // module build well-formed chains; the driver copies them. The memory they name belongs to
        // the queue pair's domain, and so stays until it is gone.
        let ret = unsafe { bindings::ib_post_send(raw.as_ptr(), first, &mut bad) };
        if ret == 0 && last.is_some() {
            inner.turn = inner.turn.wrapping_add(1);
        } else if ret != 0 && (last.is_some() || !core::ptr::eq(bad, first)) {
            // The next message would tell the peer of data that this one was to write.
            inner.phase = Phase::Broken;
        }
        to_result(ret)
    }

    /// Posts RECVs, up to [`MAX_RECVS`], as one chain in their order: each of a slot into its memory (one or two pieces), and completes as
    /// [`WrId::Recv`] of that.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` if the queue pair is gone or has not been initialised, `EINVAL` for memory of
    /// another domain, else what the driver says; and how many were not posted.
    pub(crate) fn recv<'a>(
        &self,
        requests: impl DoubleEndedIterator<Item = Result<(u32, [Option<Sge<'a>>; 2])>>
            + ExactSizeIterator,
    ) -> Result<(), (Error, usize)> {
        let mut sges = [[bindings::ib_sge::default(); 2]; MAX_RECVS];
        let mut wrs = [bindings::ib_recv_wr::default(); MAX_RECVS];
        let mut next: *mut bindings::ib_recv_wr = null_mut();
        let mut bad = core::ptr::null();
        let count = requests.len();

        if count > MAX_RECVS {
            return Err((EINVAL, count));
        }
        // Linked from the end.
        for ((wr, sges), request) in wrs.iter_mut().zip(&mut sges).zip(requests.rev()) {
            let (slot, memory) = request.map_err(|err| (err, count))?;
            for (raw, sge) in sges.iter_mut().zip(memory.iter().flatten()) {
                self.check_sge(sge).map_err(|err| (err, count))?;
                *raw = sge.raw;
                wr.num_sge += 1;
            }
            wr.sg_list = sges.as_mut_ptr();
            wr.__bindgen_anon_1.wr_id = WrId::Recv(slot).encode();
            wr.next = next;
            next = wr;
        }
        if next.is_null() {
            return Ok(());
        }

        let inner = self.inner.lock();
        if inner.phase == Phase::Reset {
            return Err((ENOTCONN, count));
        }
        let raw = inner.raw.ok_or((ENOTCONN, count))?;
        // SAFETY: The queue pair is there, as `close` takes the lock first. The chain is
        // well-formed, and the driver copies it. The memory belongs to the queue pair's domain, and
        // so stays until it is gone.
        let ret = unsafe { bindings::ib_post_recv(raw.as_ptr(), next, &mut bad) };
        to_result(ret).map_err(|err| {
            // The first one that was not posted is the last one of so many that were linked.
            let first = wrs.iter().position(|wr| core::ptr::eq(wr, bad));
            (err, first.map_or(count, |index| index.saturating_add(1)))
        })
    }

    /// Posts the registration of a mapping's memory region, which completes as
    /// [`WrId::Register`] of `sequence`. The peer may then write what is mapped
    /// [`Direction::FromDevice`].
    ///
    /// # Errors
    ///
    /// `EALREADY` if that was done before, `EINVAL` if there is no region or it belongs to another
    /// domain, else as for [`Self::send`].
    pub(in crate::ib) fn register(&self, sequence: u32, mapping: &Mapping) -> Result {
        let (mr, state) = mapping.region().ok_or(EINVAL)?;
        // SAFETY: The region lives as long as the mapping; keys do not change.
        let key = unsafe { mr.as_ref() }.rkey;
        let access = match mapping.direction() {
            Direction::ToDevice => bindings::ib_access_flags_IB_ACCESS_LOCAL_WRITE,
            Direction::FromDevice => {
                bindings::ib_access_flags_IB_ACCESS_LOCAL_WRITE
                    | bindings::ib_access_flags_IB_ACCESS_REMOTE_WRITE
            }
        };
        let mut wr = bindings::ib_reg_wr {
            wr: bindings::ib_send_wr {
                opcode: bindings::ib_wr_opcode_IB_WR_REG_MR,
                send_flags: bindings::ib_send_flags_IB_SEND_SIGNALED as c_int,
                sg_list: null_mut(),
                ..Default::default()
            },
            mr: mr.as_ptr(),
            key,
            access: access as c_int,
        };

        if !core::ptr::eq(mapping.pd().as_ptr(), self.pd) {
            return Err(EINVAL);
        }
        wr.wr.__bindgen_anon_1.wr_id = WrId::Register(sequence).encode();
        if state
            .cmpxchg(registration::NONE, registration::POSTED, Full)
            .is_err()
        {
            return Err(EALREADY);
        }
        let result = self.post_send(&mut wr.wr, None);
        if result.is_err() && state.load(Acquire) == registration::POSTED {
            state.store(registration::NONE, Release);
        }
        result
    }
}
