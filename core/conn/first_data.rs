// SPDX-License-Identifier: GPL-2.0

//! `TCP_DEFER_ACCEPT`: a connection is offered to `accept` once its client has sent something.

use super::{
    Conn,
    Data, //
};
use crate::{
    kapi::sock::Sock,
    smc_core::{
        registry,
        sock::SmcSocket,
        time::Millis, //
    }, //
};

/// Whether a listener waits for the first data of the connection.
#[derive(Clone, Copy, Default)]
pub(super) enum FirstData {
    /// Nobody waits.
    #[default]
    NotAwaited,
    /// Until it comes, or this time has come.
    Awaited(Millis),
}

impl Conn {
    /// Has [`SmcSocket::first_data`] called once there is something to read, or the end of it, or after
    /// `wait` milliseconds. False if that is so already. Process context, once.
    pub(crate) fn await_first_data(&self, wait: u32) -> bool {
        let mut data = self.data.lock();
        let there = data.eof
            || data.error.is_some()
            || data.flow.as_ref().is_none_or(|flow| flow.rx.readable() > 0);
        if !there {
            data.first_data = FirstData::Awaited(registry::now().after(wait));
        }
        !there
    }

    /// There is something for the application. Any context.
    pub(super) fn note_first_data(first_data: &mut FirstData, sk: &Sock<SmcSocket>) {
        if let FirstData::Awaited(_) = core::mem::take(first_data) {
            SmcSocket::first_data(sk);
        }
    }

    /// From the ticker.
    pub(super) fn check_first_data(&self, data: &mut Data, now: Millis) {
        if let (FirstData::Awaited(until), Some(sk)) = (data.first_data, data.sk.as_ref()) {
            if until.reached(now) {
                Self::note_first_data(&mut data.first_data, sk);
            }
        }
    }
}
