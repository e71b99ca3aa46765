//! When a connection does not go by SMC-R, and what link groups do at their limits.

use super::scripts::{expect_end, there_and_back};
use super::{enter, socket, Door, NoDevice, NoModule, Script, Side, Stack};
use smc_selftest::kind::Kind;
use smc_selftest::mode;
use smc_selftest::rig::SoftRoce;
use smc_selftest::sys::{self, Epoll, Sock};
use smc_selftest::{check, check_eq, Context, Outcome};

pub const SCRIPTS: &[Script] = &[
    Script::new("fallback.client_is_tcp", |side| plain(side, side.is_client)),
    Script::new("fallback.server_is_tcp", |side| {
        plain(side, !side.is_client)
    }),
    Script::new("fallback.client_without_device", |side| {
        without_device(side, side.is_client)
    }),
    Script::new("fallback.server_without_device", |side| {
        without_device(side, !side.is_client)
    }),
    Script::new("fallback.client_without_module", |side| {
        without_module(side, side.is_client)
    }),
    Script::new("fallback.server_without_module", |side| {
        without_module(side, !side.is_client)
    }),
    Script::new("group.limit_of_client", |side| limit(side, side.is_client)),
    Script::new("group.limit_of_server", |side| limit(side, !side.is_client)),
    Script::new("group.many_at_once", many_at_once),
    Script::new("nonblocking_connect", nonblocking_connect),
    Script::new("ipproto_smc", ipproto_smc),
    Script::new("ipv6", |side| over_ipv6(side, Kind::Smc6)),
    Script::new("ipv6.ipproto_smc", |side| over_ipv6(side, Kind::IpSmc6)),
];

/// One side's program speaks TCP: the other one's falls back, and nobody notices.
fn plain(side: &Side, this: bool) -> Outcome {
    let kind = if this { Kind::Tcp4 } else { Kind::Smc4 };
    let door = side.door(kind)?;
    let sock = enter(&door, kind)?;
    if !this {
        prove_fallback(&sock)?;
    }
    there_and_back(side, &sock, 0, 100_000)?;
    side.meet("done")?;
    Ok(())
}

fn prove_fallback(sock: &Sock) -> Outcome {
    mode::fallback_reason(sock).during("a connection that has to fall back")?;
    Ok(())
}

/// One side has no RDMA device: both speak SMC, and fall back.
fn without_device(side: &Side, this: bool) -> Outcome {
    let gone = if this { Some(NoDevice::new()?) } else { None };
    side.meet("the device is gone")?;
    let door = side.door(Kind::Smc4)?;
    let sock = enter(&door, Kind::Smc4)?;
    prove_fallback(&sock)?;
    there_and_back(side, &sock, 0, 100_000)?;
    side.meet("done")?;
    drop(gone);
    // C uses a dead group for new connections, until it knows.
    no_groups(side)?;
    side.meet("the device is back")?;
    there_and_back(side, &side.connection()?, 0, 1000)
}

/// The implementation is removed under a link group that lives; then one side is plain TCP; then it comes back.
fn without_module(side: &Side, this: bool) -> Outcome {
    there_and_back(side, &side.connection()?, 0, 1000)?;
    side.await_connections(0)?;
    side.meet("closed")?;
    let gone = if this {
        Some(NoModule::new(side.own)?)
    } else {
        None
    };
    if !this {
        no_groups(side)?;
    }
    side.meet("unloaded")?;
    let kind = if this { Kind::Tcp4 } else { Kind::Smc4 };
    let door = side.door(kind)?;
    let sock = enter(&door, kind)?;
    if !this {
        prove_fallback(&sock)?;
    }
    there_and_back(side, &sock, 0, 1000)?;
    drop(sock);
    side.meet("done")?;
    drop(gone);
    side.meet("loaded")?;
    there_and_back(side, &side.connection()?, 0, 1000)
}

/// One side allows 16 connections in a link group: the 17th has another one. SMC-Rv1 does not negotiate this: there it is the
/// server that decides, and C knows no limit but 255.
fn limit(side: &Side, this: bool) -> Outcome {
    const SETTING: &str = "/proc/sys/net/smc/smcr_max_conns_per_lgr";
    // What was agreed before holds for a group that is there.
    fresh(side)?;
    let before = sys::read_file(SETTING)?;
    if this {
        sys::write_file(SETTING, "16")?;
    }
    side.meet("set")?;
    let outcome = (|| {
        let door = side.door(Kind::Smc4)?;
        let socks = side.in_turn(&door, 18)?;
        for (offset, sock) in socks.iter().enumerate() {
            there_and_back(side, sock, offset, 100)?;
        }
        let mut groups: Vec<u64> = side.groups()?.iter().map(|&(_, conns)| conns).collect();
        groups.sort_unstable();
        let limits = if this { side.own } else { side.peer };
        let holds =
            SoftRoce::here() != SoftRoce::V1 || (limits == Stack::Rust && this != side.is_client);
        let expected: &[u64] = if holds { &[2, 16] } else { &[18] };
        check_eq!(groups, expected, "connections of the link groups");
        Ok(socks)
    })();
    sys::write_file(SETTING, before.trim())?;
    // Open until the other machine has counted them.
    let _socks = outcome?;
    side.meet("counted")?;
    Ok(())
}

/// Waits until there is no link group of this role; a dead one ends by TEST LINK.
pub fn no_groups(side: &Side) -> Outcome {
    sys::eventually("no link group", || {
        let groups = side.groups()?;
        Ok(groups.is_empty())
    })?;
    Ok(())
}

/// Ends all link groups.
pub fn fresh(side: &Side) -> Outcome {
    side.await_connections(0)?;
    side.meet("no connections")?;
    if side.is_client {
        drop(NoDevice::new()?);
    }
    no_groups(side)?;
    side.meet("no groups")?;
    Ok(())
}

/// Connections that are made by several threads at once share one link group.
fn many_at_once(side: &Side) -> Outcome {
    const THREADS: usize = 6;
    const EACH: usize = 5;
    fresh(side)?;
    let door = side.door(Kind::Smc4)?;
    let socks = std::thread::scope(|scope| {
        let threads = if side.is_client { THREADS } else { 1 };
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                let (door, kind) = (&door, Kind::Smc4);
                let count = THREADS * EACH / threads;
                scope.spawn(move || {
                    (0..count)
                        .map(|_| enter(door, kind))
                        .collect::<Outcome<Vec<Sock>>>()
                })
            })
            .collect();
        let mut all = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(socks) => all.extend(socks?),
                Err(_) => check!(false, "a thread panicked"),
            }
        }
        Ok(all)
    })?;
    for sock in &socks {
        side.prove(sock)?;
    }
    // Which one is which tells the first byte, not the order of their arrival.
    if side.is_client {
        for (number, sock) in socks.iter().enumerate() {
            sock.send_all(&[number as u8])?;
        }
        for (number, sock) in socks.iter().enumerate() {
            let mut answer = [0; 1000];
            sock.recv_all(&mut answer)?;
            check!(
                answer.iter().all(|&byte| byte == number as u8),
                "answer to {number}"
            );
        }
    } else {
        for sock in &socks {
            let mut number = [0; 1];
            sock.recv_all(&mut number)?;
            sock.send_all(&[number[0]; 1000])?;
        }
    }
    check_eq!(
        side.groups()?.len(),
        1,
        "link groups of {} connections",
        socks.len()
    );
    side.meet("counted")?;
    drop(socks);
    side.await_connections(0)?;
    Ok(())
}

fn nonblocking_connect(side: &Side) -> Outcome {
    let door = side.door(Kind::Smc4)?;
    let sock = match &door {
        Door::Inside(_) => side.through(&door)?,
        Door::Outside(address) => {
            let sock = socket(Kind::Smc4)?;
            sock.set_nonblocking(true)?;
            let epoll = Epoll::new()?;
            epoll.add(&sock, libc::EPOLLOUT | libc::EPOLLET, 7)?;
            let started = sock.connect(*address).map_err(|error| error.raw_os_error());
            check_eq!(started, Err(Some(libc::EINPROGRESS)), "connect()");
            // The set may tell of the socket as it was before.
            sock.await_events(libc::POLLOUT)?;
            check!(!epoll.wait(sys::PATIENCE)?.is_empty(), "epoll says nothing");
            check_eq!(sock.error()?, 0, "SO_ERROR");
            sock.set_nonblocking(false)?;
            side.prove(&sock)?;
            sock
        }
    };
    there_and_back(side, &sock, 0, 70_000)
}

fn ipproto_smc(side: &Side) -> Outcome {
    let door = side.door(Kind::IpSmc4)?;
    let sock = enter(&door, Kind::IpSmc4)?;
    side.prove(&sock)?;
    there_and_back(side, &sock, 0, 100_000)
}

/// SMC-Rv1 takes IPv6, SMC-Rv2 does not: without a RoCEv1 GID both fall back.
fn over_ipv6(side: &Side, kind: Kind) -> Outcome {
    let door = side.door(kind)?;
    let sock = enter(&door, kind)?;
    match SoftRoce::here() {
        SoftRoce::V1 => side.prove(&sock)?,
        _ => prove_fallback(&sock)?,
    }
    there_and_back(side, &sock, 0, 200_000)?;
    sock.shutdown(libc::SHUT_WR).during("shutdown(SHUT_WR)")?;
    expect_end(&sock)
}
