// SPDX-License-Identifier: GPL-2.0

//! The work queues of the module.

use crate::kapi::workqueue::{
    OwnedQueue,
    QueueGuard, //
};
use kernel::{
    c_str,
    prelude::*, //
};

static SET_UP: OwnedQueue = OwnedQueue::new();
static HANDSHAKE: OwnedQueue = OwnedQueue::new();
static CONTROL: OwnedQueue = OwnedQueue::new();

/// What TCP tells of sockets that are being connected, or listen: must never wait behind a handshake.
pub(crate) fn set_up() -> &'static OwnedQueue {
    &SET_UP
}

/// Handshakes: their work waits for the network, for seconds at worst.
pub(crate) fn handshake() -> &'static OwnedQueue {
    &HANDSHAKE
}

/// LLC messages and the end of connections, links and link groups: must never wait behind a handshake.
pub(crate) fn control() -> &'static OwnedQueue {
    &CONTROL
}

/// Stops the queues on drop.
pub(crate) struct Queues {
    _set_up: QueueGuard,
    _handshake: QueueGuard,
    _control: QueueGuard,
}

/// Starts the queues.
pub(crate) fn start() -> Result<Queues> {
    Ok(Queues {
        _set_up: SET_UP.start(c_str!("smc_set_up"))?,
        _handshake: HANDSHAKE.start(c_str!("smc_handshake"))?,
        _control: CONTROL.start(c_str!("smc_control"))?,
    })
}
