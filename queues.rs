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

static HANDSHAKE: OwnedQueue = OwnedQueue::new();
static CONTROL: OwnedQueue = OwnedQueue::new();

/// Set-up of connections: its work waits for the network, for seconds at worst.
pub(crate) fn handshake() -> &'static OwnedQueue {
    &HANDSHAKE
}

/// LLC messages and the end of connections and link groups: must never wait behind a handshake.
pub(crate) fn control() -> &'static OwnedQueue {
    &CONTROL
}

/// Stops the queues on drop.
pub(crate) struct Queues {
    _handshake: QueueGuard,
    _control: QueueGuard,
}

/// Starts the queues.
pub(crate) fn start() -> Result<Queues> {
    Ok(Queues {
        _handshake: HANDSHAKE.start(c_str!("smc_handshake"))?,
        _control: CONTROL.start(c_str!("smc_control"))?,
    })
}
