// SPDX-License-Identifier: GPL-2.0

//! `send`, `recv` and `poll`.

use super::{
    fallback,
    Phase,
    SmcSocket, //
};
use crate::kapi::prelude::*;
use crate::{
    clc::decline::DeclineReason,
    kapi::{
        proto_ops::{
            Message,
            Poll, //
        },
        sock::Sock, //
    },
    smc_core::llc::flow::Role, //
};
use kernel::{
    error::Result, //
};

const MSG_OOB: u32 = 0x1;
const MSG_ERRQUEUE: u32 = 0x2000;
const MSG_ZEROCOPY: u32 = 0x400_0000;
const MSG_FASTOPEN: u32 = 0x2000_0000;

const EPOLLIN: u32 = 0x1;
const EPOLLERR: u32 = 0x8;
const EPOLLRDNORM: u32 = 0x40;

/// `sendmsg`.
pub(super) fn send(sk: &Sock<SmcSocket>, msg: &mut Message) -> Result<usize> {
    loop {
        match sk.phase() {
            Phase::Smc => return send_by_smc(sk, msg),
            Phase::Connecting => {
                let mut timeo = sk.send_timeout(msg.nonblock());
                sk.wait(&mut timeo, || sk.phase() != Phase::Connecting)?;
            }
            Phase::Closed | Phase::Handshake => return Err(EPIPE),
            // Data in the SYN is TCP's only.
            Phase::Init if msg.flags & MSG_FASTOPEN != 0 => {
                let mut life = sk.life.lock();
                if sk.phase() == Phase::Init {
                    let clc = sk.try_clc()?;
                    fallback::enter(
                        sk,
                        &mut life,
                        &clc,
                        Role::Client,
                        DeclineReason::OPTUNSUPP,
                        0,
                    );
                }
            }
            // TCP knows what its own states mean for a send. It must not sleep, since another thread may
            // be connecting (`ClcSock::wake_aside`).
            phase @ (Phase::Init | Phase::Listen) => {
                // That of a `connect` which nobody has been told of.
                sk.take_error()?;
                match msg.delegate_send_now(&*sk.try_clc()?) {
                    Err(err) if err == EAGAIN && has_left(sk, phase) => {}
                    sent => return sent,
                }
            }
            Phase::Fallback => return msg.delegate_send(&*sk.try_clc()?),
        }
    }
}

/// Is the phase another one, now that nobody is about to change it?
fn has_left(sk: &Sock<SmcSocket>, phase: Phase) -> bool {
    let _life = sk.life.lock();
    sk.phase() != phase
}

fn send_by_smc(sk: &Sock<SmcSocket>, msg: &mut Message) -> Result<usize> {
    let conn = sk.conn().ok_or(ENOTCONN)?;
    if msg.flags & MSG_FASTOPEN != 0 {
        return Err(EISCONN);
    }
    msg.check_control(sk)?;
    let zerocopy = msg.flags & MSG_ZEROCOPY != 0 && sk.zerocopy() && !msg.has_own_notification();
    let notifier = if zerocopy && msg.len > 0 {
        Some(sk.try_clc()?)
    } else {
        None
    };
    conn.send(sk, msg, notifier.as_deref())
}

/// `recvmsg`.
pub(super) fn receive(sk: &Sock<SmcSocket>, msg: &mut Message) -> Result<usize> {
    loop {
        match sk.phase() {
            Phase::Smc | Phase::Connecting if msg.flags & MSG_ERRQUEUE != 0 => {
                return msg.delegate_receive(&*sk.try_clc()?)
            }
            // As in TCP, there is none, and nobody waits for one.
            Phase::Connecting if msg.flags & MSG_OOB != 0 => return Err(EINVAL),
            Phase::Smc => return receive_by_smc(sk, msg),
            Phase::Connecting => {
                let mut timeo = sk.receive_timeout(msg.nonblock());
                sk.wait(&mut timeo, || sk.phase() != Phase::Connecting)?;
            }
            Phase::Closed | Phase::Handshake => return Err(ENOTCONN),
            // As in `send`.
            phase @ (Phase::Init | Phase::Listen) => {
                if msg.flags & MSG_ERRQUEUE == 0 {
                    sk.take_error()?;
                }
                match msg.delegate_receive_now(&*sk.try_clc()?) {
                    Err(err) if err == EAGAIN && has_left(sk, phase) => {}
                    got => return got,
                }
            }
            Phase::Fallback => return msg.delegate_receive(&*sk.try_clc()?),
        }
    }
}

fn receive_by_smc(sk: &Sock<SmcSocket>, msg: &mut Message) -> Result<usize> {
    let conn = sk.conn().ok_or(ENOTCONN)?;
    let got = conn.receive(sk, msg)?;
    if msg.flags & MSG_OOB == 0 {
        if sk.wants_time() {
            conn.report_time(sk, msg);
        }
        let asked = conn.tells_inq();
        if asked || msg.wants_inq() {
            msg.report_inq(conn.left_to_read(), asked);
        }
    }
    Ok(got)
}

/// `poll`.
pub(super) fn poll(sk: &Sock<SmcSocket>, poll: &mut Poll) -> u32 {
    // Before the phase is looked at. Once: some who ask wait in one queue at most, and in this phase it
    // is the same one.
    let by_tcp = match sk.phase() {
        Phase::Init | Phase::Fallback => sk.clc().map(|clc| poll.delegate(&clc)),
        _ => None,
    };
    if by_tcp.is_none() {
        poll.register(sk);
    }
    match sk.phase() {
        Phase::Listen => {
            if sk.queue.len() > 0 {
                EPOLLIN | EPOLLRDNORM
            } else {
                0
            }
        }
        Phase::Connecting | Phase::Handshake => {
            if sk.has_error() {
                EPOLLERR
            } else {
                0
            }
        }
        Phase::Smc => {
            let mask = sk.conn().map_or(EPOLLERR, |conn| conn.poll(sk));
            let queued = sk.zerocopy() && sk.clc().is_some_and(|clc| clc.has_queued_errors());
            if queued {
                mask | EPOLLERR
            } else {
                mask
            }
        }
        Phase::Init | Phase::Fallback => {
            let mask = by_tcp
                .or_else(|| sk.clc().map(|clc| clc.events()))
                .unwrap_or(EPOLLERR);
            // An error of `connect` is kept on this side.
            if sk.has_error() {
                mask | EPOLLERR
            } else {
                mask
            }
        }
        Phase::Closed => EPOLLERR,
    }
}
