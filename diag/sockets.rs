// SPDX-License-Identifier: GPL-2.0

//! `sock_diag` of `AF_SMC`: all SMC sockets of a namespace.

use super::abi::{
    self,
    ConnInfo,
    Extensions,
    Fallback,
    LgrInfo,
    SockId, //
};
use crate::{
    kapi::{
        clcsock::Addresses,
        netlink::{
            Dump,
            Message, //
        },
        prelude::*,
        sock::Sock,
        sock_diag::{
            Diag,
            Identity,
            Registration, //
        }, //
    },
    rx_tx::conn::View,
    smc_core::{
        conn::Inspection,
        llc::flow::Role,
        sock::{
            Phase,
            SmcSocket,
            AF_SMC, //
        }, //
    }, //
};
use kernel::error::Result;
use zerocopy::IntoBytes;

impl Diag for SmcSocket {
    const FAMILY: u8 = AF_SMC as u8;
    const REQUEST: usize = abi::REQUEST_LEN;

    fn describe(sk: &Sock<Self>, dump: &mut Dump<'_>) -> Result {
        // A socket that is still being made, or is being closed, has no TCP socket.
        let Some(addresses) = sk.addresses() else {
            return Ok(());
        };
        let wanted = Extensions::of(dump.request());
        let identity = Identity::of(sk, dump);
        let fallback = sk.phase() == Phase::Fallback;
        let body = abi::Message {
            family: sk.family() as u8,
            state: identity.state,
            mode: if fallback {
                abi::MODE_FALLBACK_TCP
            } else {
                abi::MODE_SMCR
            },
            shutdown: 0,
            id: sock_id(&addresses, &identity),
            uid: identity.uid,
            inode: identity.inode,
        };
        let (reason, peer_diagnosis) = sk.fallback_reasons();
        let mut message = dump.message(abi::MESSAGE, body.as_bytes())?;
        message.attribute(abi::SHUTDOWN, &[sk.shutdown_mask()])?;
        let reasons = Fallback {
            reason: reason.0,
            peer_diagnosis,
        };
        message.attribute(abi::FALLBACK, reasons.as_bytes())?;
        if let Some(conn) = sk.inspect() {
            describe_connection(&conn, wanted, &mut message)?;
        }
        message.finish();
        Ok(())
    }
}

/// Addresses and ports are those of the TCP connection.
fn sock_id(own: &Addresses, identity: &Identity) -> SockId {
    SockId {
        sport: own.port.to_be_bytes(),
        dport: own.peer_port.to_be_bytes(),
        src: own.addr,
        dst: own.peer_addr,
        ifindex: own.ifindex,
        cookie: identity.cookie,
    }
}

/// Adds the attributes about an SMC-R connection that are wanted.
fn describe_connection(conn: &Inspection, wanted: Extensions, message: &mut Message<'_>) -> Result {
    if wanted.want(abi::CONNINFO) {
        message.attribute(abi::CONNINFO, conn_info(conn).as_bytes())?;
    }
    if let Some(link) = conn.link.as_ref().filter(|_| wanted.want(abi::LGRINFO)) {
        let info = LgrInfo::new(
            link.number.0,
            link.device.as_bytes(),
            // Port numbers of RDMA devices have 8 bits on the wire, too.
            link.port as u8,
            &link.gid,
            &link.peer_gid,
            link.role == Role::Server,
        );
        message.attribute(abi::LGRINFO, info.as_bytes())?;
    }
    Ok(())
}

fn conn_info(conn: &Inspection) -> ConnInfo {
    let sizes = ConnInfo {
        token: conn.token,
        sndbuf_size: conn.sndbuf_len,
        rmbe_size: conn.rmb_len,
        ..ConnInfo::default()
    };
    let Some(View { tx, rx, flags }) = &conn.flow else {
        return sizes;
    };
    ConnInfo {
        peer_rmbe_size: tx.peer_rmb_len,
        rx_prod: rx.prod.into(),
        rx_cons: tx.peer_cons.into(),
        tx_prod: tx.prod.into(),
        tx_cons: rx.cons.into(),
        rx_prod_flags: flags.received.0,
        rx_conn_state_flags: flags.peer_state.0,
        tx_prod_flags: flags.sent.0,
        tx_conn_state_flags: flags.state.0,
        tx_prep: tx.prep.into(),
        tx_sent: tx.sent.into(),
        tx_fin: tx.fin.into(),
        ..sizes
    }
}

/// Answers `sock_diag` for `AF_SMC`, until the result is dropped.
///
/// `None`, with a line in the log, if it cannot be: everything else works all the same.
pub(crate) fn register() -> Option<Registration<SmcSocket>> {
    Registration::new()
        .inspect_err(|err| pr_warn!("no sock_diag of AF_SMC: {err:?}\n"))
        .ok()
}
