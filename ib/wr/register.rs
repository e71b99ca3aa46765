// SPDX-License-Identifier: GPL-2.0

//! Registration of memory regions.

use crate::kapi::prelude::*;
use kernel::sync::{
    new_mutex,
    Arc,
    Mutex, //
};

use crate::{
    ib::verbs::{
        mapping::Mapping,
        queues::Queues,
        wait::{
            new_wait_queue,
            WaitQueue, //
        },
        wr::Status, //
    },
    kapi::lock::{
        new_spinlock_bh,
        SpinLockBh, //
    },
};

/// How long a registration may take.
const TIMEOUT_MS: u32 = 5_000;

/// Registers memory regions through a queue pair, one at a time.
#[pin_data]
pub(crate) struct Registrar {
    queues: Arc<Queues>,
    // Held for the length of a registration; the number of the last one.
    #[pin]
    turn: Mutex<u32>,
    #[pin]
    outcome: SpinLockBh<Outcome>,
    #[pin]
    changed: WaitQueue,
}

struct Outcome {
    sequence: u32,
    status: Option<Status>,
    closed: bool,
}

impl Registrar {
    /// Makes a registrar for a queue pair.
    pub(crate) fn new(queues: &Arc<Queues>) -> impl PinInit<Self> {
        let queues = queues.clone();

        pin_init!(Self {
            queues,
            turn <- new_mutex!(0, "ib::Registrar::turn"),
            outcome <- new_spinlock_bh!(
                Outcome { sequence: 0, status: None, closed: false },
                "ib::Registrar::outcome"
            ),
            changed <- new_wait_queue!("ib::Registrar::changed"),
        })
    }

    /// Registers the memory region of `mapping`, which was made by
    /// `Draft::with_region`; does nothing if that was done before. For process context, with
    /// the queue pair in RTS.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` or `EIO` when it fails; the region is of no use then. `ENOTCONN` if the queue
    /// pair cannot send.
    pub(crate) fn register(&self, mapping: &Mapping) -> Result {
        if mapping.is_registered() {
            return Ok(());
        }
        let mut turn = self.turn.lock();
        let sequence = turn.wrapping_add(1);

        *turn = sequence;
        {
            let mut outcome = self.outcome.lock();
            outcome.sequence = sequence;
            outcome.status = None;
        }
        match self.queues.register(sequence, mapping) {
            // While this task waited for its turn.
            Err(e) if e == EALREADY && mapping.is_registered() => return Ok(()),
            other => other?,
        }

        let status = self.changed.wait(TIMEOUT_MS, || {
            let outcome = self.outcome.lock();
            match outcome.status {
                None if outcome.closed => Some(Status::Flushed),
                status => status,
            }
        });
        match status {
            Some(Status::Success) => {
                mapping.registered();
                Ok(())
            }
            Some(_) => Err(EIO),
            None => Err(ETIMEDOUT),
        }
    }

    /// Takes note of a completion.
    pub(crate) fn complete(&self, sequence: u32, status: Status) {
        {
            let mut outcome = self.outcome.lock();
            // One that comes after its time limit is none of those waited for.
            if outcome.sequence != sequence {
                return;
            }
            outcome.status = Some(status);
        }
        self.changed.wake_all();
    }

    /// Ends the wait of a registration under way, and of all later ones: the link goes down.
    pub(crate) fn close(&self) {
        self.outcome.lock().closed = true;
        self.changed.wake_all();
    }
}
