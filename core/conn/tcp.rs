// SPDX-License-Identifier: GPL-2.0

//! The TCP connection beside an SMC-R connection.
//!
//! It carries nothing, but lives as long as the SMC-R connection does (RFC 7609, section 4.1), so that
//! its end says that the peer is gone, also where no message of the peer's could (section 4.8.3): its
//! device was taken away, or it has restarted. And where we have nothing else left to tell the peer by,
//! it is what we tell it by.

use super::{
    Conn,
    Data, //
};
use crate::kapi::prelude::*;
use crate::{
    kapi::{
        clcsock::{
            ClcSock,
            Ending, //
        },
        watch::{
            WakeHandler,
            Watch, //
        }, //
    },
    smc_core::{
        group::LinkGroup,
        registry,
        time::Millis, //
    }, //
};
use kernel::{
    error::{
        Error,
        Result, //
    },
    sync::Arc, //
};

/// How long the peer's last message may come after the end of its TCP connection, in milliseconds.
/// They take different ways, and it is the message that says how the connection ends.
const LAST_WORDS_MS: u32 = 5_000;

/// Has the link group look at the TCP connections of its connections.
pub(super) struct Woken(Arc<LinkGroup>);

impl WakeHandler for Woken {
    fn woken(&self, _events: u32) {
        self.0.tcp_woken();
    }
}

/// The TCP connection, and how it ends.
#[derive(Default)]
pub(super) struct Tcp {
    watch: Option<Watch<Woken>>,
    ending: Option<Ending>,
    /// When to draw the conclusion.
    deadline: Option<Millis>,
}

impl Tcp {
    /// Something has come from the peer: it is still there.
    pub(super) fn note_message(&mut self) {
        if let Some(deadline) = self.deadline.as_mut() {
            *deadline = registry::now().after(LAST_WORDS_MS);
        }
    }

    /// What is left of it, to be dropped in process context without locks.
    pub(super) fn take(&mut self) -> Self {
        core::mem::take(self)
    }
}

impl Conn {
    /// Keeps `clc` until the end of the connection, and watches it. Process context.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn keep_tcp(&self, clc: &Arc<ClcSock>) -> Result {
        let Some(place) = self.place() else {
            // It has ended already, and its socket will be told.
            return Ok(());
        };
        let mut watch = Some(Watch::new(clc.clone(), Woken(place.group.clone()))?);
        {
            let mut data = self.data.lock();
            if data.place.is_some() {
                data.tcp.watch = watch.take();
            }
        }
        // TCP may have been quicker than the watch.
        place.group.tcp_woken();
        Ok(())
    }

    /// Looks whether the TCP connection has ended. Any context.
    pub(in crate::smc_core) fn look_at_tcp(&self, now: Millis) {
        let mut data = self.data.lock();
        let tcp = &mut data.tcp;
        let ending = tcp.watch.as_ref().and_then(|watch| watch.clc().ending());
        // A reset after the end of the stream is news.
        if ending.is_some() && ending != tcp.ending {
            tcp.ending = ending;
            tcp.deadline = Some(now.after(LAST_WORDS_MS));
        }
    }

    /// The link group has ended. Resets the TCP connection, unless the peer has said goodbye: it may
    /// have no other way to hear that this side is gone. Process context.
    pub(in crate::smc_core) fn reset_tcp(&self) {
        let (tcp, peer_left) = {
            let mut data = self.data.lock();
            (data.tcp.take(), data.peer_left)
        };
        if let Some(watch) = tcp.watch.filter(|_| !peer_left) {
            watch.clc().abort(ECONNABORTED);
        }
    }

    /// The error to give the connection up with: TCP's has ended, and nothing was heard of the peer
    /// since.
    pub(super) fn lost_peer(data: &mut Data, now: Millis) -> Option<Error> {
        data.tcp.deadline.take_if(|at| at.reached(now))?;
        // A peer that has said that it writes no more may end its direction of TCP, too.
        if data.peer_left || (data.tcp.ending == Some(Ending::Finished) && data.eof) {
            return None;
        }
        let told = data.tcp.watch.as_ref()?.clc().take_error().err();
        // `EPIPE` is a reset behind a FIN; but it is the end of SMC-R's stream that counts, not of TCP's.
        let told = told.filter(|&err| err != EPIPE);
        Some(told.unwrap_or_else(|| super::reset_error(data)))
    }
}
