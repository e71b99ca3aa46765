// SPDX-License-Identifier: GPL-2.0

//! The server side: `listen` and `accept`.

use super::{
    accept_queue::Turn,
    close::end_listening,
    fallback,
    options,
    set_phase,
    Life,
    Phase,
    SmcSocket,
    SockRef,
    Woken,
    JOB_HANDSHAKE,
    JOB_SET_UP, //
};
use crate::kapi::prelude::*;
use crate::{
    clc::{
        decline::DeclineReason,
        rendezvous,
        Outcome, //
    },
    kapi::{
        clcsock::{
            ClcSock,
            NameOf,
            TcpState, //
        },
        sock::Sock,
        watch::Watch, //
    },
    smc_core::{
        learning,
        llc::flow::Role, //
    }, //
};
use kernel::{
    error::Result,
    ffi::c_int,
    sync::{
        atomic::Relaxed,
        Arc,
        MutexGuard,
        UniqueArc, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// How long a listener waits for memory, before it asks for it again.
const MEMORY_WAIT: Delta = Delta::from_millis(10);

/// `listen(2)`.
pub(super) fn listen(sk: &Sock<SmcSocket>, backlog: c_int) -> Result {
    let mut life = sk.life.lock();
    match sk.phase() {
        Phase::Listen => {
            let clc = sk.try_clc()?;
            if clc.state() != TcpState::Listening {
                // The work item has not seen it yet.
                end_with_tcp(sk, life, &clc);
                return listen(sk, backlog);
            }
            life.backlog = backlog;
            clc.listen(backlog)
        }
        Phase::Init => {
            let clc = sk.try_clc()?;
            sk.copy_options_to(&clc);
            if let Some(reason) = sk.needs_tcp(&clc) {
                clc.listen(backlog)?;
                fallback::enter(sk, &mut life, &clc, Role::Client, reason, 0);
                return Ok(());
            }
            if let Err(err) = rendezvous::prepare_listener(&clc) {
                // As a client whose SYN cannot have the option, it does without SMC.
                pr_debug!("a listener cannot answer to the SMC option: {err:?}\n");
                rendezvous::forget(&clc);
                clc.listen(backlog)?;
                let reason = if err == ENOMEM {
                    DeclineReason::MEM
                } else {
                    DeclineReason::INTERR
                };
                fallback::enter(sk, &mut life, &clc, Role::Client, reason, 0);
                return Ok(());
            }
            let watch = clc
                .wake_aside()
                .and_then(|()| Watch::new(clc.clone(), Woken(sk.into())))
                .and_then(|watch| clc.listen(backlog).map(|()| watch))
                .inspect_err(|_| {
                    rendezvous::forget(&clc);
                    clc.wake_front();
                })?;
            life.backlog = backlog;
            life.watch = Some(watch);
            sk.queue.open();
            (life.crowded, life.unwanted, life.paused) = (false, false, false);
            set_phase(sk, Phase::Listen);
            sk.queue_job(JOB_SET_UP, crate::queues::set_up());
            Ok(())
        }
        _ => Err(EINVAL),
    }
}

/// `accept(2)`.
pub(super) fn accept(sk: &Sock<SmcSocket>, nonblock: bool) -> Result<SockRef> {
    let mut timeo = sk.receive_timeout(nonblock);
    loop {
        if sk.phase() != Phase::Listen {
            return Err(EINVAL);
        }
        if let Some(child) = sk.queue.pop() {
            // There is room for another one now.
            sk.queue_job(JOB_SET_UP, crate::queues::set_up());
            return Ok(child);
        }
        // One connection is for one task; TCP's `accept` waits like this, too.
        let waited = sk.wait_in_turn(&mut timeo, || {
            sk.queue.len() > 0 || sk.phase() != Phase::Listen
        });
        if waited.is_err() {
            // The connection that woke this task, which has got a signal as well, is for another one.
            if sk.queue.len() > 0 {
                sk.wake_readable();
            }
            waited?;
        }
    }
}

/// The work item of a listening socket: takes what TCP has accepted, as far as there is room.
pub(super) fn run(sk: &Sock<SmcSocket>) {
    let Some(clc) = sk.clc() else {
        return;
    };
    let backlog = u32::try_from(sk.life.lock().backlog).unwrap_or(0);
    // TCP allows one connection more than the backlog, too.
    while sk.phase() == Phase::Listen {
        if clc.state() != TcpState::Listening {
            ended_by_others(sk);
            return;
        }
        if sk.queue.load() > backlog {
            // Clients that say nothing keep nobody out: as with TCP, which does not wait for their data
            // then (SYN cookies), the oldest one is offered.
            if !clc.has_pending_accept() {
                return;
            }
            if let Some(child) = sk.queue.release_oldest() {
                let parent = child.life.lock().parent.take();
                drop(parent);
                enqueue(sk, sk.queue.next_turn(), child);
            }
            return;
        }
        match clc.accept() {
            Ok(child) => welcome(sk, child),
            Err(err) if err == EAGAIN => return,
            // The connection died in TCP's queue; look at the next one.
            Err(err) if err == ECONNABORTED || err == EPROTO => {}
            // TCP does not listen any more, which is looked at above.
            Err(err) if err == EINVAL && clc.state() != TcpState::Listening => {}
            // It stays in TCP's queue, and TCP does not tell of it again.
            Err(err) if err == ENOMEM || err == ENFILE || err == ENOBUFS => {
                pr_warn_ratelimited!("no memory for a connection yet, trying again: {err:?}\n");
                fsleep(MEMORY_WAIT);
            }
            Err(err) => {
                pr_warn_ratelimited!("a connection could not be accepted: {err:?}\n");
                return;
            }
        }
    }
}

/// TCP does not listen any more: if that was not asked for here, the listener ends with it.
fn ended_by_others(sk: &Sock<SmcSocket>) {
    let life = sk.life.lock();
    let Some(clc) = sk.clc() else {
        return;
    };
    // `shutdown` may have been quicker, or `listen`.
    if sk.phase() == Phase::Listen && clc.state() != TcpState::Listening {
        end_with_tcp(sk, life, &clc);
    }
}

/// An administrator (`ss -K`) or a BPF program has ended TCP's listener: as with TCP, `accept` fails then, `poll` and `SO_ERROR`
/// say so, and the socket can listen anew.
fn end_with_tcp(sk: &Sock<SmcSocket>, life: MutexGuard<'_, Life>, clc: &ClcSock) {
    // Who ends it tells why at last, with TCP's lock held until then.
    rendezvous::forget(clc);
    if let Err(err) = clc.take_error() {
        sk.report_error(err);
    }
    // There is nothing to do that could fail.
    let _ = end_listening(sk, life, clc, || Ok(()));
}

/// Makes a socket for a connection that TCP has accepted.
fn welcome(sk: &Sock<SmcSocket>, clc: ClcSock) {
    let negotiated = rendezvous::child_negotiated(&clc);
    rendezvous::forget(&clc);
    let room = UniqueArc::new_uninit(GFP_KERNEL);
    let (Ok(room), Ok(child)) = (room, Sock::child_of(sk, sk.clc_family)) else {
        // There is no memory even for a fallback. A reset: without it the client would see a stream that has ended well.
        clc.abort(ECONNABORTED);
        return;
    };
    let clc: Arc<ClcSock> = room.write(clc).into();
    child.follow_route(&clc, None);
    let unwanted = sk.life.lock().unwanted;
    let place = learning::port(sk.net(), || clc.name(NameOf::Own).ok());
    *child.clc.lock() = Some(clc.clone());
    let mut life = child.life.lock();
    life.visit = place.and_then(|place| learning::begin(sk.net(), place));
    if negotiated {
        life.parent = Some(sk.into());
        life.turn = sk.queue.next_turn();
        set_phase(&child, Phase::Handshake);
        drop(life);
        sk.queue.begin();
        regulate(sk);
        child.queue_job(JOB_HANDSHAKE, crate::queues::handshake());
    } else {
        let reason = if unwanted {
            DeclineReason::NOTWORTH
        } else {
            DeclineReason::PEERNOSMC
        };
        fallback::enter(&child, &mut life, &clc, Role::Server, reason, 0);
        drop(life);
        enqueue(sk, sk.queue.next_turn(), child);
    }
    // For the next one: the SYN-ACK of this one has gone out.
    let is_for_tcp = place.is_some_and(|place| learning::is_for_tcp(sk.net(), place));
    if is_for_tcp != unwanted {
        sk.life.lock().unwanted = is_for_tcp;
        regulate(sk);
    }
}

/// The work item of an accepted connection whose client speaks SMC.
pub(super) fn handshake(child: &SockRef) {
    let (turn, parent) = {
        let mut life = child.life.lock();
        (life.turn, life.parent.take())
    };
    let (Some(clc), Some(parent)) = (child.clc(), parent) else {
        return;
    };
    let outcome = if parent.phase() == Phase::Listen {
        crate::clc::server::handshake(child, &clc)
    } else {
        Outcome::Failed(ECONNABORTED)
    };
    let mut life = child.life.lock();
    let alive = match outcome {
        Outcome::Smc(conn) => {
            child.conn.populate(conn.clone());
            options::carry_over(&clc, &conn);
            conn.count_made();
            conn.established(child.clone());
            set_phase(child, Phase::Smc);
            drop(life);
            true
        }
        Outcome::Fallback(reason, diagnosis) => {
            fallback::enter(child, &mut life, &clc, Role::Server, reason, diagnosis);
            drop(life);
            true
        }
        Outcome::Failed(_) | Outcome::NotSmc(_) => {
            set_phase(child, Phase::Closed);
            drop(life);
            false
        }
    };
    drop(clc);
    if !alive {
        super::close::abandon(child);
    } else if !defer(&parent, turn, child) {
        enqueue(&parent, turn, child.clone());
    }
    parent.queue.end();
    regulate(&parent);
    // There may be room for another one now.
    parent.queue_job(JOB_SET_UP, crate::queues::set_up());
}

/// Holds a connection back until its client has sent something, if the listener wants it so
/// (`TCP_DEFER_ACCEPT`); false if not. TCP does it for those that it carries.
fn defer(parent: &SockRef, turn: Turn, child: &SockRef) -> bool {
    let seconds = parent.defer_accept.load(Relaxed);
    let Some(conn) = child.conn().filter(|_| seconds > 0) else {
        return false;
    };
    if !parent.queue.hold(turn, child) {
        return false;
    }
    // Before it is awaited: it may come at once.
    child.life.lock().parent = Some(parent.clone());
    if conn.await_first_data(seconds.saturating_mul(1000)) {
        return true;
    }
    let kept = child.life.lock().parent.take();
    drop(kept);
    // Else the listener, which was closed, has given it up.
    parent.queue.release(child).is_none()
}

/// The work item of an accepted SMC-R connection that was held back.
pub(super) fn offer_deferred(child: &SockRef) {
    let Some(parent) = child.life.lock().parent.take() else {
        return;
    };
    if let Some(child) = parent.queue.release(child) {
        enqueue(&parent, parent.queue.next_turn(), child);
    }
}

/// Lets a listener negotiate SMC only as long as not too many handshakes are under way, and its connections
/// are not known to be too short; new clients get a TCP connection meanwhile (their SYN-ACK has no option).
///
/// Too many: the work queue has a backlog, as when clients of whatever listener say nothing; with
/// `SMC_LIMIT_HS` also when more than half of the listener's backlog is taken by handshakes. The rest is
/// for TCP connections, which are not to wait for them. It goes on at a quarter, and in any case when
/// none of the listener's own is left.
pub(super) fn regulate(sk: &Sock<SmcSocket>) {
    let mut life = sk.life.lock();
    if sk.phase() != Phase::Listen {
        return;
    }
    let pending = sk.queue.pending();
    let backlog = u32::try_from(life.backlog).unwrap_or(0);
    let share = if life.crowded { 4 } else { 2 };
    let bound = backlog / share;
    let congested =
        crate::queues::handshake().is_congested() || sk.limits_handshakes() && pending > bound;
    life.crowded = pending > 0 && congested;
    let pause = life.crowded || life.unwanted;
    if pause != life.paused {
        if let Some(clc) = sk.clc() {
            rendezvous::pause_listener(&clc, pause);
            life.paused = pause;
        }
    }
}

/// Offers a finished connection to `accept`.
fn enqueue(parent: &Sock<SmcSocket>, turn: Turn, child: SockRef) {
    match parent.queue.push(turn, child) {
        Ok(()) => parent.wake_readable(),
        Err(child) => {
            super::close::abandon(&child);
            // Its place is free.
            parent.queue_job(JOB_SET_UP, crate::queues::set_up());
        }
    }
}
