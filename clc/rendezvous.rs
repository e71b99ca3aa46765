// SPDX-License-Identifier: GPL-2.0

//! The rendezvous: finding out whether the peer speaks SMC, while TCP makes the connection
//! (RFC 7609, section 4.3.1).

use crate::kapi::prelude::*;

use crate::kapi::{
    clcsock::{
        ClcSock,
        SockAddr, //
    },
    tcp_option, //
};

/// A way to say "I speak SMC" in a SYN or SYN-ACK, and to see whether the peer says it.
///
/// All functions may sleep, unless they say otherwise.
pub(crate) trait Rendezvous {
    /// Makes a client's socket ask for SMC when it connects.
    ///
    /// # Errors
    ///
    /// `ENOMEM` and the like: the socket stays a TCP socket.
    fn want(clc: &ClcSock) -> Result;

    /// Starts to connect, without waiting.
    ///
    /// # Errors
    ///
    /// `EINPROGRESS` is the normal answer; otherwise what TCP says.
    fn connect(clc: &ClcSock, addr: SockAddr) -> Result;

    /// Makes the connection anew without asking for SMC, and without waiting: the same socket, with its
    /// options and its address.
    ///
    /// # Errors
    ///
    /// As [`Self::connect`].
    fn reconnect(clc: &ClcSock, addr: SockAddr) -> Result;

    /// Whether the server has said that it speaks SMC. May sleep. To be asked once the connection is
    /// established, before [`Self::forget`].
    fn confirmed(clc: &ClcSock) -> bool;

    /// Makes a server's socket answer clients that speak SMC. To be called before it listens.
    ///
    /// # Errors
    ///
    /// `ENOMEM` and the like.
    fn prepare_listener(clc: &ClcSock) -> Result;

    /// Makes a prepared listener answer new clients as if it did not speak SMC (`true`), or as
    /// before. Connections whose SYN-ACK has gone out are not concerned.
    fn pause_listener(clc: &ClcSock, pause: bool);

    /// Whether a connection that a prepared listener has accepted is to become SMC: both sides have
    /// said that they speak it. Answers `true` once only.
    fn child_negotiated(clc: &ClcSock) -> bool;

    /// Ends the rendezvous: the socket is an ordinary TCP socket. To be called as soon as the answer
    /// is known, and before the socket is handed to somebody else.
    fn forget(clc: &ClcSock);
}

/// The TCP option of RFC 7609, section A.1, put into the packets on their way out.
pub(crate) struct TcpOption;

impl Rendezvous for TcpOption {
    fn want(clc: &ClcSock) -> Result {
        tcp_option::want(clc)
    }

    fn connect(clc: &ClcSock, addr: SockAddr) -> Result {
        tcp_option::connect(clc, addr)
    }

    fn reconnect(clc: &ClcSock, addr: SockAddr) -> Result {
        tcp_option::reconnect(clc, addr)
    }

    fn confirmed(clc: &ClcSock) -> bool {
        tcp_option::confirmed(clc)
    }

    fn prepare_listener(clc: &ClcSock) -> Result {
        tcp_option::prepare_listener(clc)
    }

    fn pause_listener(clc: &ClcSock, pause: bool) {
        tcp_option::pause_listener(clc, pause);
    }

    fn child_negotiated(clc: &ClcSock) -> bool {
        tcp_option::child_negotiated(clc)
    }

    fn forget(clc: &ClcSock) {
        tcp_option::forget(clc);
    }
}

/// The way that is used.
type Chosen = TcpOption;

/// Makes a client's socket ask for SMC when it connects. If it cannot, it stays a TCP socket, which
/// [`confirmed`] will tell.
pub(crate) fn want(clc: &ClcSock) {
    // Without one of its directions there can be no handshake.
    if clc.is_shut_down() {
        return;
    }
    if let Err(error) = Chosen::want(clc) {
        pr_debug!("a socket cannot ask for SMC: error {}\n", error.to_errno());
    }
}

/// See [`Rendezvous::connect`].
pub(crate) fn connect(clc: &ClcSock, addr: SockAddr) -> Result {
    Chosen::connect(clc, addr)
}

/// See [`Rendezvous::reconnect`].
pub(crate) fn reconnect(clc: &ClcSock, addr: SockAddr) -> Result {
    Chosen::reconnect(clc, addr)
}

/// See [`Rendezvous::confirmed`].
pub(crate) fn confirmed(clc: &ClcSock) -> bool {
    Chosen::confirmed(clc)
}

/// See [`Rendezvous::prepare_listener`].
pub(crate) fn prepare_listener(clc: &ClcSock) -> Result {
    // Without one of their directions its connections cannot shake hands.
    if clc.is_shut_down() {
        return Ok(());
    }
    Chosen::prepare_listener(clc)
}

/// See [`Rendezvous::pause_listener`].
pub(crate) fn pause_listener(clc: &ClcSock, pause: bool) {
    Chosen::pause_listener(clc, pause);
}

/// See [`Rendezvous::child_negotiated`].
pub(crate) fn child_negotiated(clc: &ClcSock) -> bool {
    Chosen::child_negotiated(clc)
}

/// See [`Rendezvous::forget`].
pub(crate) fn forget(clc: &ClcSock) {
    Chosen::forget(clc);
}
