// SPDX-License-Identifier: GPL-2.0

//! `send`, `recv` and `poll`.

use super::{
    Phase,
    SmcSocket, //
};
use crate::kapi::prelude::*;
use crate::kapi::{
    proto_ops::{
        Message,
        Poll, //
    },
    sock::Sock, //
};
use kernel::{
    error::Result, //
};

const EPOLLIN: u32 = 0x1;
const EPOLLERR: u32 = 0x8;
const EPOLLRDNORM: u32 = 0x40;

/// `sendmsg`.
pub(super) fn send(sk: &Sock<SmcSocket>, msg: &mut Message) -> Result<usize> {
    loop {
        match sk.phase() {
            Phase::Smc => return sk.conn().ok_or(ENOTCONN)?.send(sk, msg),
            Phase::Connecting => {
                let mut timeo = sk.send_timeout(msg.nonblock());
                sk.wait(&mut timeo, || sk.phase() != Phase::Connecting)?;
            }
            Phase::Closed | Phase::Handshake => return Err(EPIPE),
            // TCP knows what its own states mean for a send.
            Phase::Init | Phase::Listen | Phase::Fallback => {
                return msg.delegate_send(&*sk.try_clc()?)
            }
        }
    }
}

/// `recvmsg`.
pub(super) fn receive(sk: &Sock<SmcSocket>, msg: &mut Message) -> Result<usize> {
    loop {
        match sk.phase() {
            Phase::Smc => return sk.conn().ok_or(ENOTCONN)?.receive(sk, msg),
            Phase::Connecting => {
                let mut timeo = sk.receive_timeout(msg.nonblock());
                sk.wait(&mut timeo, || sk.phase() != Phase::Connecting)?;
            }
            Phase::Closed | Phase::Handshake => return Err(ENOTCONN),
            Phase::Init | Phase::Listen | Phase::Fallback => {
                return msg.delegate_receive(&*sk.try_clc()?)
            }
        }
    }
}

/// `poll`.
pub(super) fn poll(sk: &Sock<SmcSocket>, poll: &mut Poll) -> u32 {
    // Before the phase is looked at: see `fallback::enter`.
    poll.register();
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
        Phase::Smc => sk.conn().map_or(EPOLLERR, |conn| conn.poll(sk)),
        Phase::Init | Phase::Fallback => match sk.clc() {
            Some(clc) => {
                let mask = poll.delegate(&clc);
                // An error of `connect` is kept on this side.
                if sk.has_error() {
                    mask | EPOLLERR
                } else {
                    mask
                }
            }
            None => EPOLLERR,
        },
        Phase::Closed => EPOLLERR,
    }
}
