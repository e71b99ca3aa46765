// SPDX-License-Identifier: GPL-2.0

//! Fallback: the TCP connection that the handshake used carries on.
//!
//! Fallback is an outcome, not an error, and costs nothing afterwards: the user's file is handed
//! over to the TCP socket, so that later system calls do not come here at all.

use super::{
    set_phase,
    Life,
    Phase,
    SmcSocket,
    SockRef,
    JOB_SET_UP, //
};
use crate::{
    clc::decline::DeclineReason,
    kapi::{
        clcsock::ClcSock,
        sock::Sock,
        watch::{
            WakeHandler,
            Watch, //
        }, //
    }, //
};
use kernel::{
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

/// What a wake-up of the TCP socket means for its SMC socket.
pub(super) enum Woken {
    /// There is something for the socket's work item to do.
    Job(SockRef),
    /// Somebody waits on the SMC socket's own queue since before the fallback: wake him too.
    Forward(SockRef),
}

impl WakeHandler for Woken {
    fn woken(&self, events: u32) {
        match self {
            Self::Job(sk) => sk.queue_job(JOB_SET_UP, crate::queues::handshake()),
            Self::Forward(sk) => sk.wake_poll(if events == 0 { u32::MAX } else { events }),
        }
    }
}

/// Ends the set-up of `sk` in a fallback. The caller holds the life lock.
pub(super) fn enter(
    sk: &Sock<SmcSocket>,
    life: &mut Life,
    clc: &Arc<ClcSock>,
    reason: DeclineReason,
    peer_diagnosis: u32,
) {
    sk.fallback.store(reason.0, Relaxed);
    sk.peer_diagnosis.store(peer_diagnosis, Relaxed);
    sk.copy_options_to(clc);
    sk.copy_low_water_to(clc);
    life.watch = None;
    set_phase(sk, Phase::Fallback);
    sk.hand_over_file(clc);
    // Programs that sleep or poll since before the fallback wait in the SMC socket's queue.
    // Whoever comes later sees the new phase and waits in TCP's. `has_waiters` is a full barrier,
    // as is entering a queue.
    if sk.has_waiters() {
        life.watch = Watch::new(clc.clone(), Woken::Forward(sk.into())).ok();
        sk.wake_all();
    }
}
