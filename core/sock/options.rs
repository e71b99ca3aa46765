// SPDX-License-Identifier: GPL-2.0

//! Socket options and `ioctl`.

use super::{
    Phase,
    SmcSocket, //
};
use crate::kapi::prelude::*;
use crate::kapi::{
    clcsock::ClcSock,
    proto_ops::{
        GetOption,
        Ioctl,
        SetOption, //
    },
    sock::Sock,
    tcp_option, //
};
use crate::smc_core::conn::{
    Conn,
    Status, //
};
use kernel::{
    error::Result,
    ffi::{
        c_int,
        c_uint, //
    },
};

const SOL_SMC: c_int = 286;
const SMC_LIMIT_HS: c_int = 1;
const SOL_SOCKET: c_int = 1;
const SOL_IP: c_int = 0;
const IP_TOS: c_int = 1;
const SOL_TCP: c_int = 6;
const SO_OOBINLINE: c_int = 10;
const SO_REUSEPORT: c_int = 15;
const SO_RCVLOWAT: c_int = 18;
const TCP_NODELAY: c_int = 1;
const TCP_CORK: c_int = 3;
const TCP_SAVE_SYN: c_int = 27;
const TCP_ULP: c_int = 31;

const SIOCINQ: c_uint = 0x541b;
const SIOCOUTQ: c_uint = 0x5411;
const SIOCOUTQNSD: c_uint = 0x894b;
const SIOCATMARK: c_uint = 0x8905;

/// `setsockopt`.
pub(super) fn set(sk: &Sock<SmcSocket>, option: &SetOption) -> Result {
    if option.level == SOL_SOCKET {
        return match option.name {
            // The kernel has it for the families of IP only.
            SO_REUSEPORT => {
                let clc = sk.try_clc()?;
                option.delegate(&clc)?;
                sk.follow_reuseport(&clc);
                Ok(())
            }
            SO_RCVLOWAT => {
                option.set_generic(sk)?;
                // What is there may be enough now.
                if sk.conn().is_some_and(|conn| conn.status().readable > 0) {
                    sk.wake_readable();
                }
                Ok(())
            }
            SO_OOBINLINE => {
                option.set_generic(sk)?;
                if let Some(conn) = sk.conn() {
                    conn.follow_inline(sk);
                }
                Ok(())
            }
            _ => option.set_generic(sk),
        };
    }
    if option.level == SOL_SMC {
        return set_own(sk, option);
    }
    if option.level == SOL_TCP && option.name == TCP_ULP {
        return Err(EOPNOTSUPP);
    }
    option.delegate(&*sk.try_clc()?)?;
    if (option.level, option.name) == (SOL_IP, IP_TOS) {
        // It sets the priority, too.
        sk.follow_priority(&*sk.try_clc()?);
    }
    if option.level == SOL_TCP {
        if option.name == TCP_SAVE_SYN && sk.phase() == Phase::Listen {
            tcp_option::keep_saving_syn(&*sk.try_clc()?);
        }
        if let Some(conn) = sk.conn() {
            match option.name {
                TCP_NODELAY => conn.set_nodelay(option.int()? != 0),
                TCP_CORK => conn.set_corked(option.int()? != 0),
                _ => {}
            }
        }
    }
    Ok(())
}

/// What was set before there was an SMC-R connection holds for that, too; a connection that was
/// accepted has it from its listener, as with TCP.
pub(super) fn carry_over(clc: &ClcSock, conn: &Conn) {
    let nagle = clc.nagle();
    conn.set_nodelay(nagle.nodelay);
    conn.set_corked(nagle.corked);
}

/// `getsockopt` of a level other than `SOL_SOCKET`.
pub(super) fn get(sk: &Sock<SmcSocket>, option: &GetOption) -> Result {
    if option.level == SOL_SMC {
        return get_own(sk, option);
    }
    let clc = sk.try_clc()?;
    if (option.level, option.name) == (SOL_TCP, TCP_SAVE_SYN) && tcp_option::saves_syn_unasked(&clc)
    {
        return option.put_int(0);
    }
    option.delegate(&clc)
}

/// `setsockopt` of `SOL_SMC`.
fn set_own(sk: &Sock<SmcSocket>, option: &SetOption) -> Result {
    if option.name != SMC_LIMIT_HS {
        return Err(EOPNOTSUPP);
    }
    sk.limit_handshakes(option.int()? != 0);
    super::listen::regulate(sk);
    Ok(())
}

/// `getsockopt` of `SOL_SMC`.
fn get_own(sk: &Sock<SmcSocket>, option: &GetOption) -> Result {
    if option.name != SMC_LIMIT_HS {
        return Err(EOPNOTSUPP);
    }
    option.put_int(sk.limits_handshakes().into())
}

/// `ioctl`.
pub(super) fn ioctl(sk: &Sock<SmcSocket>, call: &Ioctl) -> Result<c_int> {
    let status = match sk.phase() {
        Phase::Smc => sk.conn().ok_or(ENOTCONN)?.status(),
        // The messages of the handshake are none of the program's.
        Phase::Connecting => Status::default(),
        _ => return call.delegate(&*sk.try_clc()?),
    };
    match call.cmd {
        SIOCINQ => call.put_int(status.readable),
        SIOCOUTQ => call.put_int(status.queued),
        SIOCOUTQNSD => call.put_int(status.unsent),
        SIOCATMARK => call.put_int(c_int::from(status.at_mark)),
        // Addresses, routes and devices.
        _ => call.delegate(&*sk.try_clc()?),
    }
}
