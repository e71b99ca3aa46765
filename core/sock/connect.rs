// SPDX-License-Identifier: GPL-2.0

//! The client side: `connect`.

use super::{
    close::{
        shut_down_now,
        Shut, //
    },
    fallback,
    options,
    set_phase,
    Life,
    Phase,
    SmcSocket,
    Woken,
    JOB_HANDSHAKE,
    JOB_SET_UP, //
};
use crate::kapi::prelude::*;
use crate::{
    clc::{
        decline::DeclineReason,
        plain_servers::Sign,
        rendezvous,
        Outcome, //
    },
    kapi::{
        clcsock::{
            ClcSock,
            Ending,
            SockAddr,
            TcpState, //
        },
        sock::{
            IoBand,
            Sock, //
        },
        watch::Watch, //
    },
    smc_core::{
        learning,
        llc::flow::Role,
        plain_servers,
        registry, //
    }, //
};
use kernel::{
    error::{
        Error,
        Result, //
    },
    ffi::c_int,
    sync::Arc, //
};

const O_NONBLOCK: c_int = 0o4000;
const AF_UNSPEC: u16 = 0;

/// `connect(2)`, with the meaning it has for TCP.
pub(super) fn connect(sk: &Sock<SmcSocket>, addr: SockAddr, flags: c_int) -> Result {
    let nonblock = flags & O_NONBLOCK != 0;
    let mut under_way = EINPROGRESS;
    {
        let mut life = sk.life.lock();
        match sk.phase() {
            // What the socket is, or is about to become, is not dissolved, and so nobody waits for it.
            phase if phase != Phase::Init && addr.family() == AF_UNSPEC => return Err(EISCONN),
            Phase::Init => {
                let clc = sk.try_clc()?;
                let copied = sk.copy_options_to(&clc);
                if addr.family() == AF_UNSPEC {
                    return rendezvous::connect(&clc, addr);
                }
                let reason = sk
                    .needs_tcp(&clc)
                    .or_else(|| is_in_vain(sk, &mut life, &addr));
                if let Some(reason) = reason {
                    fallback::enter(sk, &mut life, &clc, Role::Client, reason, 0);
                    drop(life);
                    return clc.connect(addr, flags);
                }
                // An event before the phase changes is not lost: the job is queued below.
                clc.wake_aside()?;
                let watch =
                    Watch::new(clc.clone(), Woken(sk.into())).inspect_err(|_| clc.wake_front())?;
                (life.server, life.plain) = (None, None);
                life.began = registry::now();
                if !clc.is_shut_down() {
                    // Without one of its directions there can be no handshake.
                    life.server = KBox::new(addr, GFP_KERNEL).ok();
                    rendezvous::want(&clc);
                }
                match rendezvous::connect(&clc, addr) {
                    Ok(()) => {}
                    Err(err) if err == EINPROGRESS => {}
                    Err(err) => {
                        rendezvous::forget(&clc);
                        clc.wake_front();
                        if err == ECONNABORTED {
                            // An earlier attempt has failed, and TCP's own error was asked for then:
                            // as TCP, this tells what nobody has been told of yet.
                            sk.take_error()?;
                        }
                        return Err(err);
                    }
                }
                sk.follow_route(&clc, Some(copied));
                set_phase(sk, Phase::Connecting);
                life.unreported = true;
                life.watch = Some(watch);
                // TCP may have been quicker than the watch.
                sk.queue_job(JOB_SET_UP, crate::queues::set_up());
                if nonblock {
                    // Even if it is done meanwhile: with TCP it never is.
                    return Err(EINPROGRESS);
                }
            }
            Phase::Connecting => {
                if !life.unreported {
                    return Err(EISCONN);
                }
                if nonblock {
                    return Err(EALREADY);
                }
                under_way = EALREADY;
            }
            Phase::Fallback | Phase::Smc => {
                if life.unreported {
                    return report(sk, &mut life);
                }
                return Err(EISCONN);
            }
            Phase::Listen | Phase::Handshake | Phase::Closed => return Err(EISCONN),
        }
    }
    let mut timeo = sk.send_timeout(false);
    if let Err(err) = sk.wait(&mut timeo, || sk.phase() != Phase::Connecting) {
        // The connection goes on being made, as TCP's does.
        return Err(if err == EAGAIN { under_way } else { err });
    }
    let mut life = sk.life.lock();
    match sk.phase() {
        Phase::Fallback | Phase::Smc => report(sk, &mut life),
        phase => {
            // TCP, when it has told of a failure, can be connected at once; when the program learns of
            // it in another way, the next `connect` tells it once more.
            if let (Phase::Init, Some(clc)) = (phase, sk.clc()) {
                let _ = clc.disconnect();
            }
            sk.take_error()?;
            Err(ECONNABORTED)
        }
    }
}

/// Notes that the program is told that it is connected, which it is once.
///
/// # Errors
///
/// As TCP: that of a connection that has ended since it was made; `ECONNABORTED` if `SO_ERROR` has told of that.
fn report(sk: &Sock<SmcSocket>, life: &mut Life) -> Result {
    life.unreported = false;
    sk.set_connected(true);
    match (sk.phase(), sk.clc()) {
        (Phase::Fallback, Some(clc)) => {
            // It is the TCP socket that is asked from now on.
            if clc.ending() != Some(Ending::Broken) {
                clc.set_connected();
                return Ok(());
            }
            let told = clc.take_error();
            let _ = clc.disconnect();
            told?;
        }
        _ => {
            if !sk.conn().is_some_and(|conn| conn.is_disconnected()) {
                return Ok(());
            }
            sk.take_error()?;
        }
    }
    Err(ECONNABORTED)
}

/// Why the server is not to be asked for SMC: that is known before.
fn is_in_vain(sk: &Sock<SmcSocket>, life: &mut Life, server: &SockAddr) -> Option<DeclineReason> {
    let net = sk.net();
    life.place = learning::server(net, server);
    if plain_servers::is_known(net, server) {
        return Some(DeclineReason::NOCLCKNOWN);
    }
    if life
        .place
        .is_some_and(|place| learning::is_for_tcp(net, place))
    {
        // If it cannot be made it looks like a short one, which changes nothing: there is no credit to take.
        life.visit = life.place.and_then(|place| learning::begin(net, place));
        return Some(DeclineReason::NOTWORTH);
    }
    None
}

/// The work item of a socket that is connecting: runs when TCP has something to say. Never waits for the
/// network.
pub(super) fn run(sk: &Sock<SmcSocket>) {
    let Some(clc) = sk.clc() else {
        return;
    };
    // Later wake-ups of TCP are the handshake's own business. From here on `shutdown` leaves both
    // directions open for it.
    let (state, watch, plain, shut) = {
        let mut life = sk.life.lock();
        // Under the lock: who connects anew holds it, and the state is not to be that of the old connection.
        let state = clc.state();
        if matches!(state, TcpState::Connecting | TcpState::Listening) {
            return;
        }
        (state, life.watch.take(), life.plain, clc.is_shut_down())
    };
    if watch.is_none() {
        // An earlier run has seen it.
        return;
    }
    drop(watch);
    let outcome = match state {
        TcpState::Connected if rendezvous::confirmed(&clc) && !shut => {
            sk.queue_job(JOB_HANDSHAKE, crate::queues::handshake());
            return;
        }
        TcpState::Connected => Outcome::Fallback(plain.unwrap_or(DeclineReason::PEERNOSMC), 0),
        _ => Outcome::Failed(clc.take_error().err().unwrap_or(ECONNABORTED)),
    };
    settle(sk, &clc, outcome);
}

/// The work item that negotiates with a server that has said that it speaks SMC.
pub(super) fn handshake(sk: &Sock<SmcSocket>) {
    let Some(clc) = sk.clc() else {
        return;
    };
    let outcome = crate::clc::client::handshake(sk, &clc);
    settle(sk, &clc, outcome);
}

/// What becomes of the socket.
fn settle(sk: &Sock<SmcSocket>, clc: &Arc<ClcSock>, outcome: Outcome) {
    rendezvous::forget(clc);
    let mut life = sk.life.lock();
    if sk.phase() != Phase::Connecting {
        // The user closed the socket meanwhile.
        drop(life);
        outcome.dispose();
        return;
    }
    let outcome = match outcome {
        Outcome::NotSmc(err) => match connect_plainly(sk, &mut life, clc) {
            Ok(()) => {
                let ended = err == ECONNRESET || err == EPIPE;
                life.sign = if ended { Sign::Ended } else { Sign::Stranger };
                return;
            }
            Err(other) => Outcome::Failed(other.unwrap_or(err)),
        },
        outcome => outcome,
    };
    let server = life.server.take();
    if let (Outcome::Smc(_) | Outcome::Fallback(..), Some(place)) = (&outcome, life.place.take()) {
        life.visit = learning::begin(sk.net(), place);
    }
    match outcome {
        Outcome::Smc(conn) => {
            sk.copy_options_to(clc);
            life.watch = None;
            sk.conn.populate(conn.clone());
            if let Some(server) = server {
                plain_servers::clear(sk.net(), &server);
            }
            // Before anybody sees the phase and sends.
            options::carry_over(clc, &conn);
            conn.count_made();
            conn.established(sk.into());
            shut_down_now(sk, &mut life);
            set_phase(sk, Phase::Smc);
        }
        Outcome::Fallback(reason, diagnosis) => {
            if let (DeclineReason::PEERDECL, Some(server)) = (reason, &server) {
                // That was SMC, too.
                plain_servers::clear(sk.net(), server);
            }
            if let (DeclineReason::NOCLC, Some(server)) = (reason, server) {
                // It is there, and it is the option that it cannot stand.
                plain_servers::remember(sk.net(), &server, life.sign, life.began);
            }
            fallback::enter(sk, &mut life, clc, Role::Client, reason, diagnosis);
        }
        Outcome::Failed(err) | Outcome::NotSmc(err) => {
            life.watch = None;
            life.unreported = false;
            life.shut = Shut::default();
            if clc.state() != TcpState::Closed {
                // Half a handshake is in the stream of TCP: nobody is to get at that.
                clc.abort(err);
            }
            clc.discard();
            // `err` is what the program is told, whatever else TCP has to say: once.
            let _ = clc.take_error();
            clc.wake_front();
            // In this order: who polls in between is not to see a socket that seems connected.
            sk.report_error(err);
            set_phase(sk, Phase::Init);
        }
    }
    sk.wake_all();
    match sk.phase() {
        Phase::Smc => sk.signal_io(IoBand::Out),
        // The file is TCP's now, and so are those who asked for signals.
        Phase::Fallback => clc.signal_io(IoBand::Out),
        _ => {}
    }
}

/// Begins the connection anew, without the option: it was not the server that sent it, or not to say
/// that it speaks SMC. Nothing of the user's was sent, and nobody has been told of a connection.
///
/// # Errors
///
/// What TCP says of the new connection; [`None`] if there can be none.
fn connect_plainly(
    sk: &Sock<SmcSocket>,
    life: &mut Life,
    clc: &Arc<ClcSock>,
) -> Result<(), Option<Error>> {
    let Some(server) = life.server.as_deref() else {
        return Err(None);
    };
    let watch = Watch::new(clc.clone(), Woken(sk.into()))?;
    match rendezvous::reconnect(clc, *server) {
        Ok(()) => {}
        Err(err) if err == EINPROGRESS => {}
        Err(err) => return Err(Some(err)),
    }
    life.plain = Some(DeclineReason::NOCLC);
    life.watch = Some(watch);
    // TCP may have been quicker than the watch.
    sk.queue_job(JOB_SET_UP, crate::queues::set_up());
    Ok(())
}
