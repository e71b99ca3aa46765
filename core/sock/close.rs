// SPDX-License-Identifier: GPL-2.0

//! The end of a socket: `shutdown` and `close`.

use super::{
    set_phase,
    Life,
    Phase,
    SmcSocket,
    SockRef,
    JOB_HANDSHAKE,
    JOB_SET_UP, //
};
use crate::kapi::prelude::*;
use crate::{
    clc::rendezvous,
    kapi::{
        clcsock::{
            ClcSock,
            TcpState, //
        },
        sock::Sock, //
    },
    smc_core::{
        habits::Visit,
        learning, //
    }, //
};
use kernel::{
    error::Result,
    sync::MutexGuard, //
};

const SHUT_RD: u32 = 0;
const SHUT_WR: u32 = 1;
const SHUT_RDWR: u32 = 2;

/// Directions that are to be shut down.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shut {
    read: bool,
    write: bool,
}

impl Shut {
    fn add(&mut self, how: u32) {
        self.read |= how != SHUT_WR;
        self.write |= how != SHUT_RD;
    }

    /// As `how` of `shutdown(2)`.
    fn how(self) -> Option<u32> {
        match (self.read, self.write) {
            (false, false) => None,
            (true, false) => Some(SHUT_RD),
            (false, true) => Some(SHUT_WR),
            (true, true) => Some(SHUT_RDWR),
        }
    }
}

/// The last file is closed.
pub(super) fn release(sk: &Sock<SmcSocket>) {
    let mut life = sk.life.lock();
    let phase = sk.phase();
    set_phase(sk, Phase::Closed);
    let watch = life.watch.take();
    let visit = life.visit.take();
    drop(life);
    drop(watch);
    // Nobody waits any more, and `clc` may go.
    sk.part_queue();
    let clc = sk.clc.lock().take();
    learn(sk, visit, clc.as_deref());
    // A work item keeps the TCP socket while it runs, but a port is to be free when `close` returns, and the file, which a
    // fallback has lent to TCP, goes with this call. A handshake that goes on takes long, and ends by itself: it finds
    // that the phase is another one. In the other phases it is over, but its item may not have returned yet.
    if phase != Phase::Connecting {
        sk.cancel_job(JOB_SET_UP);
        sk.cancel_job(JOB_HANDSHAKE);
    }
    match phase {
        Phase::Listen => {
            // Before the clients that are given up hear of it: one that comes back at once is not to find
            // a listener that is about to go. TCP would drop its ACK without a word then.
            if let Some(clc) = &clc {
                let _ = clc.shutdown(SHUT_RDWR);
            }
            stop_listening(sk, sk.queue.close());
        }
        Phase::Connecting => {
            // Ends the waits of a handshake that runs now.
            if let Some(clc) = &clc {
                let _ = clc.shutdown(SHUT_RDWR);
            }
        }
        Phase::Fallback => {
            if let Some(clc) = &clc {
                sk.take_file_back(clc);
            }
        }
        Phase::Smc => {
            if let Some(conn) = sk.conn() {
                conn.close(sk, clc.as_ref().and_then(|clc| clc.linger2()));
            }
        }
        _ => {}
    }
    if let Some(clc) = &clc {
        rendezvous::forget(clc);
    }
}

/// A connection is over: what it was like is remembered ([`learning`]).
fn learn(sk: &Sock<SmcSocket>, visit: Option<Visit>, clc: Option<&ClcSock>) {
    let Some(visit) = visit else {
        return;
    };
    let stream = sk.conn().and_then(|conn| conn.stream());
    let bytes = match (stream, clc) {
        (Some(stream), _) => stream.bytes_sent.saturating_add(stream.bytes_received),
        (None, Some(clc)) => clc.carried(),
        (None, None) => 0,
    };
    learning::over(sk.net(), visit, bytes);
}

/// Gives up a connection that nobody has accepted.
pub(super) fn abandon(sk: &Sock<SmcSocket>) {
    let (clc, visit, _parent) = {
        let mut life = sk.life.lock();
        life.watch = None;
        set_phase(sk, Phase::Closed);
        (sk.clc.lock().take(), life.visit.take(), life.parent.take())
    };
    learn(sk, visit, clc.as_deref());
    if let Some(conn) = sk.conn() {
        conn.abort(ECONNABORTED);
    }
    if let Some(clc) = clc {
        clc.abort(ECONNABORTED);
    }
}

/// Gives up connections that wait for `accept`, and wakes those who do.
fn stop_listening(sk: &Sock<SmcSocket>, children: impl Iterator<Item = SockRef>) {
    for child in children {
        abandon(&child);
    }
    sk.wake_all();
}

/// Makes a listener a socket that can be used anew. `end` has TCP listen no more, if it still does.
pub(super) fn end_listening(
    sk: &Sock<SmcSocket>,
    mut life: MutexGuard<'_, Life>,
    clc: &ClcSock,
    end: impl FnOnce() -> Result,
) -> Result {
    set_phase(sk, Phase::Init);
    let watch = life.watch.take();
    clc.wake_front();
    // First, as what is under way still needs what is forgotten then.
    let result = end();
    rendezvous::forget(clc);
    let children = sk.queue.close();
    drop(life);
    drop(watch);
    stop_listening(sk, children);
    result
}

/// `shutdown(2)`.
pub(super) fn shutdown(sk: &Sock<SmcSocket>, how: u32) -> Result {
    let mut life = sk.life.lock();
    match sk.phase() {
        Phase::Smc => {
            // As with TCP, who shuts a connection down knows that it is there: `connect` does not tell it.
            life.unreported = false;
            drop(life);
            match sk.conn() {
                Some(conn) => conn.shutdown(sk, how != SHUT_WR, how != SHUT_RD),
                None => Err(ENOTCONN),
            }
        }
        Phase::Listen if how != SHUT_WR => {
            // As for TCP, the socket can be used again afterwards, and not before.
            let clc = sk.try_clc()?;
            end_listening(sk, life, &clc, || clc.shutdown(how))
        }
        Phase::Closed | Phase::Handshake => Err(ENOTCONN),
        // To TCP the connection is established: so it is done as soon as it is known who carries it. The
        // handshake needs both directions.
        Phase::Connecting if sk.try_clc()?.state() == TcpState::Connected => {
            life.unreported = false;
            life.shut.add(how);
            Ok(())
        }
        _ => {
            // Should the connection being made turn out to be of no use, a new one would not know.
            life.server = None;
            // Under the lock: a handshake that begins sees it.
            sk.try_clc()?.shutdown(how)
        }
    }
}

/// Does what `shutdown(2)` was asked to do during the handshake. The outcome of that is decided, and the
/// phase that tells of it comes afterwards: who sees that sends at once, without the life lock, which
/// the caller holds.
pub(super) fn shut_down_now(sk: &Sock<SmcSocket>, life: &mut Life) {
    let Some(how) = core::mem::take(&mut life.shut).how() else {
        return;
    };
    // An error says that the connection has ended already.
    let _ = match sk.conn() {
        Some(conn) => conn.shutdown(sk, how != SHUT_WR, how != SHUT_RD),
        None => sk.try_clc().and_then(|clc| clc.shutdown(how)),
    };
}
