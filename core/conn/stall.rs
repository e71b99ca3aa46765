// SPDX-License-Identifier: GPL-2.0

//! `TCP_USER_TIMEOUT`: data that stays where it is for too long ends the connection.

use super::{
    Conn,
    Data, //
};
use crate::kapi::prelude::*;
use crate::{
    rx_tx::cursor::Cursor,
    smc_core::{
        state::Event,
        time::Millis, //
    }, //
};
use kernel::sync::atomic::Relaxed;

/// Since when nothing has moved.
#[derive(Default)]
pub(super) struct Stall {
    /// What had been acknowledged by the peer's adapter and by its application, and when that was
    /// first seen; [`None`] while there is nothing to send.
    since: Option<(Cursor, Cursor, Millis)>,
}

impl Conn {
    /// Gives the connection up if its data has waited for longer than `TCP_USER_TIMEOUT`: for the
    /// peer's adapter, or for room in the peer's memory, as with TCP. From the ticker.
    pub(super) fn check_stall(&self, data: &mut Data, now: Millis) {
        let limit = self.user_timeout.load(Relaxed);
        let Some(flow) = data
            .flow
            .as_ref()
            .filter(|flow| limit > 0 && flow.tx.used() > 0)
        else {
            data.stall.since = None;
            return;
        };
        let tx = flow.view().tx;
        match data.stall.since {
            Some((fin, cons, since)) if (fin, cons) == (tx.fin, tx.peer_cons) => {
                if since.after(limit).reached(now) {
                    data.stall.since = None;
                    self.event(data, Event::LocalAbort, ETIMEDOUT);
                }
            }
            _ => data.stall.since = Some((tx.fin, tx.peer_cons, now)),
        }
    }
}
