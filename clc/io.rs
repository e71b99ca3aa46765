// SPDX-License-Identifier: GPL-2.0

//! CLC messages on the TCP connection.

use super::wire::{
    Decline,
    Header,
    MAX_MESSAGE_LEN, //
};
use crate::kapi::prelude::*;
use crate::{
    kapi::clcsock::ClcSock,
    smc_core::error::Fault, //
};
use kernel::{
    error::{
        Error,
        Result, //
    },
    pr_warn_once, //
};

const MSG_PEEK: u32 = 0x2;
const MSG_DONTWAIT: u32 = 0x40;
const MSG_WAITALL: u32 = 0x100;
const HEADER_LEN: usize = 8;

/// How long each message may take: CLC_WAIT_TIME of other implementations, which wait as long.
pub(super) const WAIT_MS: u32 = 6_000;

/// Room for any message.
pub(super) type Message = [u8; MAX_MESSAGE_LEN];

/// Why no message was received.
pub(super) enum Failure {
    /// What comes is not CLC; nothing was taken from the stream.
    NotClc,
    /// Nothing has come in time.
    Silence,
    /// The peer sends no more, and has said nothing.
    Finished,
    /// What comes is damaged.
    Damaged,
    /// The rest of a message does not come.
    Cut(Error),
    /// The connection is broken.
    Io(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotClc | Failure::Damaged => EPROTO,
            Failure::Silence => ETIMEDOUT,
            Failure::Finished => ECONNRESET,
            // The wait for the peer is what timed out.
            Failure::Cut(err) if err == EAGAIN => ETIMEDOUT,
            Failure::Cut(err) | Failure::Io(err) => err,
        }
    }
}

/// Receives a message, waiting at most `wait_ms` milliseconds at a time.
pub(super) fn receive<'a>(
    clc: &ClcSock,
    wait_ms: u32,
    room: &'a mut Message,
) -> Result<&'a [u8], Failure> {
    clc.set_timeouts(kernel::time::msecs_to_jiffies(wait_ms) as _);
    let mut head = [0; HEADER_LEN];
    let n = clc.recv(&mut head, MSG_PEEK | MSG_WAITALL).map_err(|err| {
        if err == EAGAIN {
            Failure::Silence
        } else {
            Failure::Io(err)
        }
    })?;
    if n == 0 {
        return Err(Failure::Finished);
    }
    if n < HEADER_LEN {
        return Err(Failure::NotClc);
    }
    let header = Header::peek(&head).map_err(|error| match error.fault {
        Fault::EyeCatcher => Failure::NotClc,
        _ => {
            pr_warn_once!("a peer sent a bad SMC message: {error:?}\n");
            Failure::Damaged
        }
    })?;
    let message = room
        .get_mut(..usize::from(header.length))
        .ok_or(Failure::Cut(EMSGSIZE))?;
    let n = clc.recv(message, MSG_WAITALL).map_err(Failure::Cut)?;
    if n < message.len() {
        return Err(Failure::Cut(ECONNRESET));
    }
    Ok(message)
}

/// Sends a Decline.
pub(super) fn decline(clc: &ClcSock, decline: &Decline) -> Result {
    let mut room = [0; MAX_MESSAGE_LEN];
    let len = decline.emit(&mut room).map_err(|_| EINVAL)?;
    send(clc, room.get(..len).unwrap_or(&[]))
}

/// Sends a message.
pub(super) fn send(clc: &ClcSock, message: &[u8]) -> Result {
    clc.set_timeouts(kernel::time::msecs_to_jiffies(WAIT_MS) as _);
    clc.send(message).map_err(|err| match err {
        err if err == EAGAIN => ETIMEDOUT,
        // What TCP says of a reset behind the peer's FIN; of a call that sends nothing nobody expects it.
        err if err == EPIPE => ECONNRESET,
        err => err,
    })
}

/// What [`ClcSock::recv`] of one byte would say now.
fn look(clc: &ClcSock) -> Result<usize> {
    clc.recv(&mut [0], MSG_PEEK | MSG_DONTWAIT)
}

/// Whether something waits to be received.
///
/// # Errors
///
/// TCP's own, which it tells once.
pub(super) fn has_spoken(clc: &ClcSock) -> Result<bool> {
    match look(clc) {
        Err(err) if err == EAGAIN => Ok(false),
        said => said.map(|n| n > 0),
    }
}

/// Whether something can be received, or nothing ever will.
pub(super) fn has_input(clc: &ClcSock) -> bool {
    look(clc) != Err(EAGAIN)
}
