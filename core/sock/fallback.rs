// SPDX-License-Identifier: GPL-2.0

//! Fallback: the TCP connection that the handshake used carries on.
//!
//! Fallback is an outcome, not an error, and costs nothing afterwards: the user's file is handed
//! over to the TCP socket, so that later system calls do not come here at all.

use super::{
    close::shut_down_now,
    set_phase,
    Life,
    Phase,
    SmcSocket, //
};
use crate::{
    clc::decline::DeclineReason,
    diag::trace,
    kapi::{
        clcsock::ClcSock,
        sock::Sock, //
    },
    smc_core::{
        llc::flow::Role,
        stats::Stats, //
    }, //
};
use kernel::{
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

/// Ends the set-up of `sk`, on the side `role`, in a fallback. The caller holds the life lock, and wakes those who wait for the
/// outcome.
///
/// Whoever polls or sleeps since before waits in the TCP socket's queue already ([`Sock::share_queue`]),
/// which TCP wakes from here on.
pub(super) fn enter(
    sk: &Sock<SmcSocket>,
    life: &mut Life,
    clc: &Arc<ClcSock>,
    role: Role,
    reason: DeclineReason,
    peer_diagnosis: u32,
) {
    if let Some(stats) = Stats::of(sk.net()) {
        stats.count_fallback(role, reason);
    }
    trace::switch_to_fallback(sk, &**clc, sk.net().cookie(), reason.0);
    sk.fallback.store(reason.0, Relaxed);
    sk.peer_diagnosis.store(peer_diagnosis, Relaxed);
    sk.copy_options_to(clc);
    sk.copy_low_water_to(clc);
    life.watch = None;
    clc.set_of_user();
    clc.wake_front();
    shut_down_now(sk, life);
    set_phase(sk, Phase::Fallback);
    sk.hand_over_file(clc);
}
