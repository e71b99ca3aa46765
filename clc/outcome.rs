// SPDX-License-Identifier: GPL-2.0

//! How a handshake ends.

use super::{
    decline::DeclineReason,
    io,
    wire::Decline, //
};
use crate::kapi::prelude::*;
use crate::{
    kapi::{
        clcsock::ClcSock,
        netns::Net, //
    },
    smc_core::{
        conn::Conn,
        counter::Counter,
        stats::Stats, //
    }, //
};
use kernel::{
    error::Error,
    sync::Arc, //
};

/// The result of a handshake. A fallback is an outcome, not an error.
pub(crate) enum Outcome {
    /// The connection is carried by SMC-R.
    Smc(Arc<Conn>),
    /// The connection is carried by TCP; our reason, and the peer's diagnosis if it declined.
    Fallback(DeclineReason, u32),
    /// The server does not speak SMC after all, and what it makes of our Proposal is not known: this
    /// connection is of no use, but a new one without the option is. The error is that of this one.
    NotSmc(Error),
    /// The connection has failed: nobody knows what is in the stream.
    Failed(Error),
}

impl Outcome {
    /// The handshake on `clc` has made `conn`.
    pub(super) fn made(conn: Arc<Conn>, clc: &Arc<ClcSock>) -> Self {
        match conn.keep_tcp(clc) {
            Ok(()) => Self::Smc(conn),
            Err(err) => {
                conn.refuse();
                Self::Failed(err)
            }
        }
    }

    /// This side declines, and tells the peer.
    ///
    /// Who cannot be told has not fallen back: it waits, or is gone, and has begun anew without SMC. What is left here of
    /// its connection is nothing for a program, to which it would look like a stream that has ended well: TCP has
    /// told of its end already, here.
    pub(super) fn declined(clc: &ClcSock, decline: &Decline, reason: DeclineReason) -> Self {
        let told = match io::has_spoken(clc) {
            // Between a message and its answer nobody has anything to say: it would be read as the program's.
            Ok(true) => return Self::NotSmc(EPROTO),
            Ok(false) => None,
            // Not the end yet, perhaps: ICMP can say this of a connection that lives.
            Err(err) => Some(err),
        };
        match io::decline(clc, decline) {
            Ok(()) => Self::Fallback(reason, 0),
            Err(err) => Self::Failed(told.unwrap_or(err)),
        }
    }

    /// Counts a handshake that has come to nothing.
    pub(super) fn counted(self, net: &Net, failed: Counter) -> Self {
        if let (Self::NotSmc(_) | Self::Failed(_), Some(stats)) = (&self, Stats::of(net)) {
            stats.count(failed);
        }
        self
    }

    /// Nobody is interested any more.
    pub(crate) fn dispose(self) {
        if let Self::Smc(conn) = self {
            conn.refuse();
        }
    }
}
