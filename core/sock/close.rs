// SPDX-License-Identifier: GPL-2.0

//! The end of a socket: `shutdown` and `close`.

use super::{
    set_phase,
    Phase,
    SmcSocket,
    JOB_SET_UP, //
};
use crate::kapi::prelude::*;
use crate::{
    clc::rendezvous,
    kapi::sock::Sock, //
};
use kernel::{
    error::Result, //
};

const SHUT_RD: u32 = 0;
const SHUT_WR: u32 = 1;
const SHUT_RDWR: u32 = 2;

/// The last file is closed.
pub(super) fn release(sk: &Sock<SmcSocket>) {
    let mut life = sk.life.lock();
    let phase = sk.phase();
    set_phase(sk, Phase::Closed);
    let watch = life.watch.take();
    drop(life);
    drop(watch);
    let clc = sk.clc.lock().take();
    // The work item keeps the TCP socket while it runs, but a port is to be free when `close`
    // returns. Only a handshake takes long; it ends by itself.
    if phase != Phase::Connecting {
        sk.cancel_job(JOB_SET_UP);
    }
    match phase {
        Phase::Listen => stop_listening(sk),
        Phase::Connecting => {
            // Ends the waits of a handshake that runs now.
            if let Some(clc) = &clc {
                let _ = clc.shutdown(SHUT_RDWR);
            }
        }
        Phase::Fallback => sk.take_file_back(),
        Phase::Smc => {
            if let Some(conn) = sk.conn() {
                conn.close(sk);
            }
        }
        _ => {}
    }
    if let Some(clc) = &clc {
        rendezvous::forget(clc);
    }
}

/// Gives up a connection that nobody has accepted.
pub(super) fn abandon(sk: &Sock<SmcSocket>) {
    let clc = {
        let mut life = sk.life.lock();
        life.watch = None;
        set_phase(sk, Phase::Closed);
        sk.clc.lock().take()
    };
    if let Some(conn) = sk.conn() {
        conn.abort(ECONNABORTED);
    }
    if let Some(clc) = clc {
        clc.abort(ECONNABORTED);
    }
}

/// Gives up all connections that wait for `accept`.
fn stop_listening(sk: &Sock<SmcSocket>) {
    sk.queue.set_closed(true);
    while let Some(child) = sk.queue.pop() {
        abandon(&child);
    }
    sk.wake_all();
}

/// `shutdown(2)`.
pub(super) fn shutdown(sk: &Sock<SmcSocket>, how: u32) -> Result {
    let mut life = sk.life.lock();
    match sk.phase() {
        Phase::Smc => {
            drop(life);
            match sk.conn() {
                Some(conn) => conn.shutdown(sk, how != SHUT_WR, how != SHUT_RD),
                None => Err(ENOTCONN),
            }
        }
        Phase::Listen if how != SHUT_WR => {
            // As for TCP, the socket can be used again afterwards.
            set_phase(sk, Phase::Init);
            let watch = life.watch.take();
            drop(life);
            drop(watch);
            let clc = sk.try_clc()?;
            rendezvous::forget(&clc);
            let result = clc.shutdown(how);
            stop_listening(sk);
            result
        }
        Phase::Closed | Phase::Handshake => Err(ENOTCONN),
        _ => {
            drop(life);
            sk.try_clc()?.shutdown(how)
        }
    }
}
