// SPDX-License-Identifier: GPL-2.0

//! Work requests and their completions, as values.

use super::{
    mapping::Sge,
    queues::MAX_WRITES, //
};
use crate::bindings;
use kernel::fmt;

/// Identifies a work request: what it is for, and a number that its poster chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WrId {
    /// A SEND. It completes after the RDMA WRITEs posted with it.
    Send {
        /// A slot; 24 bits.
        slot: u32,
        /// How many were posted before it, counted round and round.
        turn: u32,
    },
    /// An RDMA WRITE, by the slot of its SEND. These complete only when they fail.
    Write(u32),
    /// A RECV, by slot.
    Recv(u32),
    /// The registration of a memory region, by sequence number.
    Register(u32),
    /// None of ours.
    Unknown(u64),
}

impl WrId {
    const SEND: u64 = 1;
    const WRITE: u64 = 2;
    const RECV: u64 = 3;
    const REGISTER: u64 = 4;
    const KIND_SHIFT: u32 = 56;
    const SLOT_SHIFT: u32 = 32;
    const SLOT_MASK: u32 = 0xff_ffff;

    pub(super) fn encode(self) -> u64 {
        let (kind, number) = match self {
            Self::Send { slot, turn } => {
                let slot = u64::from(slot & Self::SLOT_MASK) << Self::SLOT_SHIFT;
                return Self::SEND << Self::KIND_SHIFT | slot | u64::from(turn);
            }
            Self::Write(number) => (Self::WRITE, number),
            Self::Recv(number) => (Self::RECV, number),
            Self::Register(number) => (Self::REGISTER, number),
            Self::Unknown(raw) => return raw,
        };
        kind << Self::KIND_SHIFT | u64::from(number)
    }

    pub(super) fn decode(raw: u64) -> Self {
        let number = raw as u32;

        match raw >> Self::KIND_SHIFT {
            Self::SEND => Self::Send {
                slot: (raw >> Self::SLOT_SHIFT) as u32 & Self::SLOT_MASK,
                turn: number,
            },
            Self::WRITE => Self::Write(number),
            Self::RECV => Self::Recv(number),
            Self::REGISTER => Self::Register(number),
            _ => Self::Unknown(raw),
        }
    }
}

/// How a work request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Done.
    Success,
    /// Not tried, because the queue pair had failed before.
    Flushed,
    /// The peer did not answer.
    RetryExceeded,
    /// The peer had no receive request.
    RnrRetryExceeded,
    /// The peer refused the remote key or address.
    RemoteAccess,
    /// Any other failure, by the RDMA core's number.
    Other(u32),
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("done"),
            Self::Flushed => f.write_str("the queue pair had failed before"),
            Self::RetryExceeded => f.write_str("the peer's device does not answer"),
            Self::RnrRetryExceeded => f.write_str("the peer does not take messages"),
            Self::RemoteAccess => f.write_str("the peer's device refused access to its memory"),
            Self::Other(status) => write!(f, "work completion status {status}"),
        }
    }
}

/// A completion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    /// The request.
    pub(crate) id: WrId,
    /// How it ended.
    pub(crate) status: Status,
    /// Number of bytes received, for a successful RECV.
    pub(crate) byte_len: u32,
    /// An RDMA WRITE WITH IMMEDIATE has used the request of a successful RECV, and this came with it.
    pub(crate) immediate: Option<u32>,
}

impl Completion {
    /// Reads what the driver reported.
    pub(super) fn from_raw(wc: &bindings::ib_wc) -> Self {
        // SAFETY: All bytes of the union are initialised, and any value is a valid number.
        let wr_id = unsafe { wc.__bindgen_anon_1.wr_id };
        let immediate = wc.opcode == bindings::ib_wc_opcode_IB_WC_RECV_RDMA_WITH_IMM;

        Self {
            id: WrId::decode(wr_id),
            status: match wc.status {
                bindings::ib_wc_status_IB_WC_SUCCESS => Status::Success,
                bindings::ib_wc_status_IB_WC_WR_FLUSH_ERR => Status::Flushed,
                bindings::ib_wc_status_IB_WC_RETRY_EXC_ERR => Status::RetryExceeded,
                bindings::ib_wc_status_IB_WC_RNR_RETRY_EXC_ERR => Status::RnrRetryExceeded,
                bindings::ib_wc_status_IB_WC_REM_ACCESS_ERR => Status::RemoteAccess,
                other => Status::Other(other),
            },
            byte_len: wc.byte_len,
            // SAFETY: All bytes of the union are initialised, and any value is a valid number.
            immediate: immediate.then(|| u32::from_be(unsafe { wc.ex.imm_data })),
        }
    }

    /// Whether the request succeeded.
    pub(crate) fn is_success(&self) -> bool {
        self.status == Status::Success
    }
}

/// An RDMA WRITE: up to two pieces of local memory, written one after the other to the peer.
#[derive(Clone, Copy)]
pub(crate) struct RdmaWrite<'a> {
    pub(super) first: Sge<'a>,
    pub(super) second: Option<Sge<'a>>,
    pub(super) rkey: u32,
    pub(super) remote_addr: u64,
}

/// RDMA WRITEs that are posted together; those that are not there are left out.
pub(crate) type Writes<'a> = [Option<RdmaWrite<'a>>; MAX_WRITES];

/// None at all.
pub(crate) const NO_WRITES: Writes<'static> = [None; MAX_WRITES];

impl<'a> RdmaWrite<'a> {
    /// Describes a write to `remote_addr` in the peer's memory region `rkey`.
    pub(crate) fn new(
        first: Sge<'a>,
        second: Option<Sge<'a>>,
        rkey: u32,
        remote_addr: u64,
    ) -> Self {
        Self {
            first,
            second,
            rkey,
            remote_addr,
        }
    }

    /// Number of bytes.
    pub(crate) fn len(&self) -> u32 {
        self.first
            .len()
            .saturating_add(self.second.map_or(0, |sge| sge.len()))
    }
}
