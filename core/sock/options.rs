// SPDX-License-Identifier: GPL-2.0

//! Socket options and `ioctl`.
//!
//! Where an option stands depends on what it is about: packets and addresses, the TCP socket; sleeping,
//! signals and limits of the socket itself, this one; the data, the connection. Some need TCP: with one of
//! these set in time, the socket falls back.

use super::{
    Phase,
    SmcSocket, //
};
use crate::kapi::prelude::*;
use crate::kapi::{
    clcsock::{
        ClcSock,
        NameOf, //
    },
    proto_ops::{
        GetOption,
        Ioctl,
        SetOption, //
    },
    sock::Sock,
    tcp_info::{
        ShownState,
        TcpInfo, //
    },
    tcp_option, //
};
use crate::smc_core::conn::{
    Conn,
    Status, //
};
use crate::smc_core::counter;
use kernel::{
    error::Result,
    ffi::{
        c_int,
        c_uint, //
    },
    sync::{
        atomic::Relaxed,
        Arc, //
    },
};

const SOL_SMC: c_int = 286;
const SMC_LIMIT_HS: c_int = 1;
const SOL_SOCKET: c_int = 1;
const SOL_IP: c_int = 0;
const IP_TOS: c_int = 1;
const SOL_IPV6: c_int = 41;
const IPV6_ADDRFORM: c_int = 1;
const AF_INET: c_int = 2;
const AF_INET6: u16 = 10;
const SOL_TCP: c_int = 6;

const SO_KEEPALIVE: c_int = 9;
const SO_OOBINLINE: c_int = 10;
const SO_REUSEPORT: c_int = 15;
const SO_RCVLOWAT: c_int = 18;
const SO_ATTACH_FILTER: c_int = 26;
const SO_DETACH_FILTER: c_int = 27;
const SO_TIMESTAMPING_OLD: c_int = 37;
const SO_LOCK_FILTER: c_int = 44;
const SO_INCOMING_CPU: c_int = 49;
const SO_ATTACH_BPF: c_int = 50;
const SO_ATTACH_REUSEPORT_CBPF: c_int = 51;
const SO_ATTACH_REUSEPORT_EBPF: c_int = 52;
const SO_ZEROCOPY: c_int = 60;
const SO_TIMESTAMPING_NEW: c_int = 65;
const SO_DETACH_REUSEPORT_BPF: c_int = 68;

const TCP_NODELAY: c_int = 1;
const TCP_CORK: c_int = 3;
const TCP_DEFER_ACCEPT: c_int = 9;
const TCP_INFO: c_int = 11;
const TCP_USER_TIMEOUT: c_int = 18;
const TCP_REPAIR: c_int = 19;
const TCP_REPAIR_QUEUE: c_int = 20;
const TCP_QUEUE_SEQ: c_int = 21;
const TCP_REPAIR_OPTIONS: c_int = 22;
const TCP_SAVE_SYN: c_int = 27;
const TCP_REPAIR_WINDOW: c_int = 29;
const TCP_FASTOPEN_CONNECT: c_int = 30;
const TCP_ULP: c_int = 31;
const TCP_ZEROCOPY_RECEIVE: c_int = 35;
const TCP_INQ: c_int = 36;

/// `SOF_TIMESTAMPING_TX_*`: hardware, software, scheduler, acknowledgment, completion.
const TIMESTAMPING_TX: c_int = 1 | 1 << 1 | 1 << 8 | 1 << 9 | 1 << 18;

const SIOCINQ: c_uint = 0x541b;
const SIOCOUTQ: c_uint = 0x5411;
const SIOCOUTQNSD: c_uint = 0x894b;
const SIOCATMARK: c_uint = 0x8905;

/// `setsockopt`.
pub(super) fn set(sk: &Sock<SmcSocket>, option: &SetOption) -> Result {
    match option.level {
        SOL_SOCKET => set_generic(sk, option),
        SOL_SMC => set_own(sk, option),
        SOL_TCP => set_tcp(sk, option),
        SOL_IPV6
            if option.name == IPV6_ADDRFORM
                && is_v6_without_connection(sk)?
                && option.int()? == AF_INET =>
        {
            Err(ENOTCONN)
        }
        _ => {
            option.delegate(&*sk.try_clc()?)?;
            if (option.level, option.name) == (SOL_IP, IP_TOS) {
                // It sets the priority, too.
                sk.follow_priority(&*sk.try_clc()?);
            }
            Ok(())
        }
    }
}

/// Whether this is a socket of IPv6 (`IPV6_ADDRFORM` makes another one of it) whose connection is not there yet or has ended,
/// while the one of TCP below is there.
fn is_v6_without_connection(sk: &Sock<SmcSocket>) -> Result<bool> {
    let ended = |conn: &Arc<Conn>| conn.shown_state() != ShownState::Established;
    let lacks = match sk.phase() {
        Phase::Connecting => true,
        Phase::Smc => sk.conn().is_none_or(ended),
        _ => false,
    };
    Ok(lacks && sk.try_clc()?.name(NameOf::Own)?.family() == AF_INET6)
}

/// Sets an option that TCP has and SMC-R has not: before the socket is connected, that makes it a TCP
/// socket.
///
/// # Errors
///
/// `EOPNOTSUPP` afterwards.
fn set_for_tcp(sk: &Sock<SmcSocket>, option: &SetOption) -> Result {
    if sk.phase() != Phase::Init {
        return Err(EOPNOTSUPP);
    }
    option.delegate(&*sk.try_clc()?)?;
    sk.needs_tcp.store(true, Relaxed);
    Ok(())
}

/// An option was set here. Where the socket has a TCP socket that goes on with it, that gets it, too; else
/// `listen` and `connect` do it.
fn pass_on(sk: &Sock<SmcSocket>, option: &SetOption) -> Result {
    if sk.phase() == Phase::Smc {
        return Ok(());
    }
    // A fallback that copies options just now has done so then.
    let life = sk.life.lock();
    match sk.phase() {
        Phase::Listen => {
            sk.copy_options_to(&*sk.try_clc()?);
            Ok(())
        }
        Phase::Fallback => {
            // It reads the program's memory, which can take long.
            drop(life);
            option.delegate(&*sk.try_clc()?)
        }
        _ => Ok(()),
    }
}

/// `setsockopt` of `SOL_SOCKET`.
fn set_generic(sk: &Sock<SmcSocket>, option: &SetOption) -> Result {
    match option.name {
        // The kernel has it for the families of IP only.
        SO_REUSEPORT => {
            let clc = sk.try_clc()?;
            option.delegate(&clc)?;
            sk.follow_reuseport(&clc);
        }
        // It is the TCP socket that is one of those that share a port, and that has filters.
        SO_ATTACH_REUSEPORT_CBPF
        | SO_ATTACH_REUSEPORT_EBPF
        | SO_DETACH_REUSEPORT_BPF
        | SO_DETACH_FILTER => {
            option.delegate(&*sk.try_clc()?)?;
        }
        // Both: what is asked for is told by this one; but it is TCP that steers by it, and notices that
        // the peer is gone, as long as nothing is sent.
        SO_KEEPALIVE | SO_INCOMING_CPU | SO_LOCK_FILTER => {
            option.set_generic(sk)?;
            option.delegate(&*sk.try_clc()?)?;
        }
        SO_RCVLOWAT => {
            option.set_generic(sk)?;
            pass_on(sk, option)?;
            // What is there may be enough now.
            if sk.conn().is_some_and(|conn| conn.status().readable > 0) {
                sk.wake_readable();
            }
        }
        SO_OOBINLINE => {
            option.set_generic(sk)?;
            pass_on(sk, option)?;
            if let Some(conn) = sk.conn() {
                conn.follow_inline(sk);
            }
        }
        SO_ZEROCOPY => {
            option.delegate(&*sk.try_clc()?)?;
            sk.set_zerocopy(option.int()? != 0);
            pass_on(sk, option)?;
        }
        // A filter sees packets.
        SO_ATTACH_FILTER | SO_ATTACH_BPF => set_for_tcp(sk, option)?,
        // When a packet has left, only TCP can tell.
        SO_TIMESTAMPING_OLD | SO_TIMESTAMPING_NEW if option.int()? & TIMESTAMPING_TX != 0 => {
            set_for_tcp(sk, option)?;
            option.set_generic(sk)?;
        }
        _ => {
            option.set_generic(sk)?;
            pass_on(sk, option)?;
        }
    }
    Ok(())
}

/// `setsockopt` of `SOL_TCP`.
fn set_tcp(sk: &Sock<SmcSocket>, option: &SetOption) -> Result {
    match option.name {
        TCP_ULP => return Err(EOPNOTSUPP),
        // Data in the SYN: the handshake would have to come before it.
        TCP_FASTOPEN_CONNECT if sk.phase() == Phase::Init => {
            option.delegate(&*sk.try_clc()?)?;
            sk.wants_fast_open.store(option.int()? != 0, Relaxed);
            return Ok(());
        }
        TCP_REPAIR | TCP_REPAIR_QUEUE | TCP_QUEUE_SEQ | TCP_REPAIR_OPTIONS | TCP_REPAIR_WINDOW => {
            return set_for_tcp(sk, option);
        }
        _ => option.delegate(&*sk.try_clc()?)?,
    }
    match option.name {
        TCP_SAVE_SYN if sk.phase() == Phase::Listen => {
            tcp_option::keep_saving_syn(&*sk.try_clc()?);
        }
        TCP_DEFER_ACCEPT => {
            let seconds = u32::try_from(option.int()?).unwrap_or(0);
            sk.defer_accept.store(seconds, Relaxed);
        }
        TCP_NODELAY | TCP_CORK | TCP_USER_TIMEOUT | TCP_INQ => {
            if let Some(conn) = sk.conn() {
                match (option.name, option.int()? != 0) {
                    (TCP_NODELAY, true) => conn.stats().count(counter::NODELAYS),
                    (TCP_CORK, false) => conn.stats().count(counter::CORKS),
                    _ => {}
                }
                carry_over(&*sk.try_clc()?, conn);
            }
        }
        _ => {}
    }
    Ok(())
}

/// What TCP was told about the data holds for an SMC-R connection, too; one that was accepted has it from
/// its listener, as with TCP.
pub(super) fn carry_over(clc: &ClcSock, conn: &Conn) {
    let options = clc.stream_options();
    conn.set_nodelay(options.nodelay);
    conn.set_corked(options.corked);
    conn.set_user_timeout(options.user_timeout);
    conn.set_tells_inq(options.tells_inq);
}

/// `getsockopt` of a level other than `SOL_SOCKET`.
pub(super) fn get(sk: &Sock<SmcSocket>, option: &GetOption) -> Result {
    if option.level == SOL_SMC {
        return get_own(sk, option);
    }
    let clc = sk.try_clc()?;
    if (option.level, option.name) == (SOL_IPV6, IPV6_ADDRFORM) && is_v6_without_connection(sk)? {
        return Err(ENOTCONN);
    }
    if option.level == SOL_TCP {
        match option.name {
            TCP_INFO => return info(sk, &clc).put(option),
            TCP_SAVE_SYN if tcp_option::saves_syn_unasked(&clc) => return option.put_int(0),
            // There are no pages of TCP's.
            TCP_ZEROCOPY_RECEIVE if sk.phase() == Phase::Smc => return Err(EOPNOTSUPP),
            _ => {}
        }
    }
    option.delegate(&clc)
}

/// `TCP_INFO`: TCP's own about the path, and ours about the data.
fn info(sk: &Sock<SmcSocket>, clc: &ClcSock) -> TcpInfo {
    let mut info = TcpInfo::of(clc);
    match sk.phase() {
        Phase::Connecting => info.set_state(ShownState::SynSent),
        Phase::Listen => info.set_queue(sk.queue.len()),
        Phase::Smc => {
            if let Some(conn) = sk.conn() {
                match conn.stream() {
                    Some(stream) => info.set_stream(&stream),
                    None => info.set_state(conn.shown_state()),
                }
            }
        }
        _ => {}
    }
    info
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
