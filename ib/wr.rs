// SPDX-License-Identifier: GPL-2.0

//! The work requests of a queue pair that are under way.
//!
//! - [`SendSlots`]: messages, each with the RDMA WRITEs that belong to it, and what is to be done
//!   when they have been sent.
//! - [`RecvRing`]: memory for received messages.
//! - [`Registrar`]: registration of memory regions.
//!
//! A completion handler gives each completion to the one that its [`WrId`] is for. None of these
//! owns the queue pair, so the handler may own them.

mod recv;
mod register;
mod send;

pub(crate) use self::{
    recv::{
        Received,
        RecvRing,
        Used, //
    },
    register::Registrar,
    send::{
        SendSlots,
        Slot as SendSlot, //
    }, //
};

use super::verbs::{
    mapping::{
        Direction,
        Draft,
        Mapping, //
    },
    memory::{
        Buffer,
        Layout, //
    },
    pd::Pd,
    qp::Wanted,
    queues::{
        Capabilities,
        MAX_WRITES, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Size of a short message.
pub(crate) const MESSAGE_LEN: usize = 44;

/// Size of the longest message.
pub(crate) const LONG_MESSAGE_LEN: usize = 8192;

/// Room for a short message in memory that a device reads or writes.
const MESSAGE_ROOM: usize = 64;

/// Requests on the send queue for each slot: the RDMA WRITEs and the SEND.
const REQUESTS_PER_SLOT: u32 = MAX_WRITES as u32 + 1;

/// Requests on the send queue for all else: a registration.
const SPARE_REQUESTS: u32 = 2;

/// What to ask a queue pair for.
///
/// `send_slots` and `recv_slots` are numbers of slots, and the numbers that would do. `recv_sge` is
/// what the device allows (1 or 2).
pub(crate) fn wanted(send_slots: (u32, u32), recv_slots: (u32, u32), recv_sge: u32) -> Wanted {
    let requests = |slots: u32| {
        slots
            .saturating_mul(REQUESTS_PER_SLOT)
            .saturating_add(SPARE_REQUESTS)
    };

    Wanted {
        send_wr: (requests(send_slots.0), requests(send_slots.1)),
        recv_wr: recv_slots,
        recv_sge: recv_sge.clamp(1, 2),
        inline: MESSAGE_LEN as u32,
    }
}

/// Entries of the completion queue for what the queue pair that [`wanted`] asks for sends.
pub(crate) fn send_cq_entries(send_slots: u32) -> u32 {
    wanted((send_slots, 0), (0, 0), 1).send_wr.0
}

/// Number of send slots that a queue pair has room for.
fn send_slots_of(capabilities: &Capabilities) -> u32 {
    capabilities.max_send_wr.saturating_sub(SPARE_REQUESTS) / REQUESTS_PER_SLOT
}

/// Allocates memory to send a long message from, see [`SendSlots`]. May sleep.
pub(crate) fn long_message_memory(pd: &Arc<Pd>) -> Result<Mapping> {
    message_memory(pd, LONG_MESSAGE_LEN, Direction::ToDevice)
}

/// Allocates and maps memory that is contiguous for the device.
fn message_memory(pd: &Arc<Pd>, len: usize, direction: Direction) -> Result<Mapping> {
    let buffer = Buffer::new(len, Layout::Physical)?;

    Ok(Draft::new(pd, &buffer, direction)?.finish())
}
