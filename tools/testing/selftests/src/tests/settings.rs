//! net.smc: defaults, ranges, namespaces, and tcp2smc.

use super::once;
use crate::kind::{Host, Kind, AF_SMC, IPPROTO_SMC};
use crate::mode::{self, Mode};
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, Sock};
use crate::{check, check_eq, check_errno, Context, Fail, Outcome};

pub const TESTS: [Test; 7] = [
    once("settings.defaults", 60, defaults),
    once("settings.ranges", 60, ranges),
    once("settings.per_namespace", 60, per_namespace),
    once("tcp2smc.family", 60, family),
    once("tcp2smc.protocol", 60, protocol),
    once("tcp2smc.off_again", 60, off_again),
    once("tcp2smc.what_is_not_converted", 60, not_converted),
];

fn path(name: &str) -> String {
    format!("/proc/sys/net/smc/{name}")
}

fn get(host: Host, name: &str) -> Outcome<i64> {
    sys::enter(host)?;
    sys::read_file(&path(name))?
        .trim()
        .parse()
        .during(&path(name))
}

pub(super) fn set(host: Host, name: &str, value: i64) -> std::io::Result<()> {
    sys::enter(host)?;
    sys::write_file(&path(name), &value.to_string())
}

/// As [`set`], with the system call's own error.
fn set_raw(host: Host, name: &str, value: i64) -> std::io::Result<std::io::Result<()>> {
    sys::enter(host)?;
    Ok(std::fs::write(path(name), value.to_string()))
}

/// Sets a value on both hosts and puts the old ones back when dropped.
pub(super) struct Changed {
    name: &'static str,
    old: Vec<(Host, i64)>,
}

impl Changed {
    pub(super) fn new(hosts: &[Host], name: &'static str, value: i64) -> Outcome<Changed> {
        let mut changed = Changed {
            name,
            old: Vec::new(),
        };
        for &host in hosts {
            changed.old.push((host, get(host, name)?));
            set(host, name, value).during(&format!("net.smc.{name}={value}"))?;
        }
        Ok(changed)
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        for &(host, value) in &self.old {
            if let Err(error) = set(host, self.name, value) {
                eprintln!("# cannot put net.smc.{} back: {error}", self.name);
            }
        }
    }
}

/// (name, default, least, greatest); None: checked elsewhere, or no limit.
const TABLE: [(&str, Option<i64>, i64, Option<i64>); 12] = [
    ("tcp2smc", Some(0), 0, Some(2)),
    ("wmem", None, 16384, Some(i32::MAX as i64 / 2)),
    ("rmem", None, 16384, Some(i32::MAX as i64 / 2)),
    ("autocorking_size", Some(65536), 0, Some(u32::MAX as i64)),
    ("smcr_buf_type", Some(0), 0, Some(2)),
    ("smcr_testlink_time", Some(30), 0, Some(2_147_483)),
    ("smcr_lgr_free_delay", Some(600), 0, Some(3600)),
    ("smcr_max_links_per_lgr", Some(2), 1, Some(2)),
    ("smcr_max_conns_per_lgr", Some(255), 16, Some(255)),
    ("smcr_max_send_wr", Some(16), 2, Some(2048)),
    ("smcr_max_recv_wr", Some(48), 2, Some(2048)),
    ("limit_smc_hs", Some(0), 0, Some(1)),
];

fn defaults(_: &Ctx) -> Outcome {
    for host in Host::BOTH {
        for (name, default, _, _) in TABLE {
            if let Some(default) = default {
                check_eq!(
                    get(host, name)?,
                    default,
                    "net.smc.{name} on host {}",
                    host.name()
                );
            }
        }
        for (name, of_tcp) in [("wmem", "tcp_wmem"), ("rmem", "tcp_rmem")] {
            let text = sys::read_file(&format!("/proc/sys/net/ipv4/{of_tcp}"))?;
            let middle = text
                .split_whitespace()
                .nth(1)
                .and_then(|word| word.parse::<i64>().ok());
            check_eq!(
                Some(get(host, name)?),
                middle,
                "net.smc.{name} against net.ipv4.{of_tcp}"
            );
        }
    }
    Ok(())
}

fn ranges(_: &Ctx) -> Outcome {
    let host = Host::A;
    for (name, _, least, greatest) in TABLE {
        let before = get(host, name)?;
        let mut refused = vec![least - 1];
        let mut taken = vec![least];
        if let Some(greatest) = greatest {
            refused.push(greatest + 1);
            taken.push(greatest);
        }
        for value in refused {
            check_errno!(
                set_raw(host, name, value)?,
                libc::EINVAL,
                "net.smc.{name}={value}"
            );
            check_eq!(
                get(host, name)?,
                before,
                "net.smc.{name} after a refused value"
            );
        }
        for value in taken {
            set(host, name, value).during(&format!("net.smc.{name}={value}"))?;
            check_eq!(get(host, name)?, value, "net.smc.{name} after it was set");
        }
        set(host, name, before).during(&format!("net.smc.{name}={before}"))?;
        sys::enter(host)?;
        check!(
            sys::write_file(&path(name), "rubbish").is_err(),
            "net.smc.{name}=rubbish was not refused"
        );
    }
    Ok(())
}

fn per_namespace(_: &Ctx) -> Outcome {
    let before = get(Host::B, "wmem")?;
    let changed = Changed::new(&[Host::A], "wmem", 32768)?;
    check_eq!(get(Host::A, "wmem")?, 32768, "net.smc.wmem on host A");
    check_eq!(get(Host::B, "wmem")?, before, "net.smc.wmem on host B");
    drop(changed);
    Ok(())
}

/// What a socket says that it is.
fn identity(sock: &Sock) -> Outcome<(i32, i32)> {
    Ok((
        sock.get(libc::SOL_SOCKET, libc::SO_DOMAIN)?,
        sock.get(libc::SOL_SOCKET, libc::SO_PROTOCOL)?,
    ))
}

fn made(host: Host, family: i32, kind: i32, protocol: i32) -> Outcome<(i32, i32)> {
    sys::enter(host)?;
    identity(&Sock::raw(family, kind, protocol).during("socket()")?)
}

/// A connection of sockets that ask for TCP, which must go by RDMA all the same.
fn converted_pair(ctx: &Ctx, kind: Kind) -> Outcome<Pair> {
    let packets = mode::rdma_packets()?;
    let pair = ctx.with_kind(kind).pair()?;
    pair.client.send_all(b"question")?;
    let mut got = [0; 8];
    pair.server.recv_all(&mut got)?;
    check_eq!(&got, b"question", "what the server received");
    pair.server.send_all(b"answered")?;
    pair.client.recv_all(&mut got)?;
    check_eq!(&got, b"answered", "what the client received");
    if !ctx.any_mode && !kind.is_v6() {
        for (host, sock) in [(Host::A, &pair.client), (Host::B, &pair.server)] {
            check!(
                mode::of(sock)? == Mode::Rdma,
                "a converted connection fell back unasked on host {}",
                host.name()
            );
        }
        check!(
            mode::rdma_packets()? > packets,
            "a converted connection sent nothing by RDMA"
        );
    }
    Ok(pair)
}

fn family(ctx: &Ctx) -> Outcome {
    let changed = Changed::new(&Host::BOTH, "tcp2smc", 1)?;
    for protocol in [0, libc::IPPROTO_TCP] {
        check_eq!(
            made(Host::A, libc::AF_INET, libc::SOCK_STREAM, protocol)?,
            (AF_SMC, 0),
            "socket(AF_INET, SOCK_STREAM, {protocol})"
        );
    }
    check_eq!(
        made(Host::A, libc::AF_INET6, libc::SOCK_STREAM, 0)?,
        (libc::AF_INET6, libc::IPPROTO_TCP),
        "socket(AF_INET6, SOCK_STREAM, 0), which mode 1 leaves alone"
    );
    let flags = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    sys::enter(Host::A)?;
    let sock = Sock::raw(libc::AF_INET, flags, 0)?;
    check_eq!(identity(&sock)?, (AF_SMC, 0), "socket() with flags");
    check!(
        sock.status_flags()? & libc::O_NONBLOCK != 0,
        "SOCK_NONBLOCK was lost"
    );
    check!(
        sock.descriptor_flags()? & libc::FD_CLOEXEC != 0,
        "SOCK_CLOEXEC was lost"
    );
    converted_pair(ctx, Kind::Tcp4)?;
    drop(changed);
    Ok(())
}

fn protocol(ctx: &Ctx) -> Outcome {
    let changed = Changed::new(&Host::BOTH, "tcp2smc", 2)?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        for protocol in [0, libc::IPPROTO_TCP] {
            check_eq!(
                made(Host::A, family, libc::SOCK_STREAM, protocol)?,
                (family, IPPROTO_SMC),
                "socket({family}, SOCK_STREAM, {protocol})"
            );
        }
    }
    converted_pair(ctx, Kind::Tcp4)?;
    converted_pair(ctx, Kind::Tcp6)?;
    drop(changed);
    Ok(())
}

fn off_again(ctx: &Ctx) -> Outcome {
    let changed = Changed::new(&[Host::A], "tcp2smc", 1)?;
    check_eq!(
        made(Host::B, libc::AF_INET, libc::SOCK_STREAM, 0)?,
        (libc::AF_INET, libc::IPPROTO_TCP),
        "a socket of a namespace that did not ask for it"
    );
    sys::enter(Host::A)?;
    let kept = Sock::raw(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    drop(changed);
    check_eq!(
        made(Host::A, libc::AF_INET, libc::SOCK_STREAM, 0)?,
        (libc::AF_INET, libc::IPPROTO_TCP),
        "a socket after tcp2smc=0"
    );
    check_eq!(
        identity(&kept)?,
        (AF_SMC, 0),
        "a socket from before tcp2smc=0"
    );
    // The peer is a plain TCP socket: a fallback, and one that works.
    let plain = ctx.with_kind(Kind::Tcp4);
    let (listener, address) = plain.listener(8)?;
    kept.connect(address)?;
    let server = listener.accept()?;
    kept.send_all(b"x")?;
    server.recv_all(&mut [0; 1])?;
    Ok(())
}

fn not_converted(_: &Ctx) -> Outcome {
    const IPPROTO_MPTCP: i32 = 262;
    let changed = Changed::new(&Host::BOTH, "tcp2smc", 2)?;
    for (family, kind, protocol, expected) in [
        (
            libc::AF_INET,
            libc::SOCK_DGRAM,
            0,
            (libc::AF_INET, libc::IPPROTO_UDP),
        ),
        (
            libc::AF_INET6,
            libc::SOCK_DGRAM,
            0,
            (libc::AF_INET6, libc::IPPROTO_UDP),
        ),
        (
            libc::AF_INET,
            libc::SOCK_STREAM,
            IPPROTO_MPTCP,
            (libc::AF_INET, IPPROTO_MPTCP),
        ),
        (
            libc::AF_INET,
            libc::SOCK_RAW,
            libc::IPPROTO_ICMP,
            (libc::AF_INET, libc::IPPROTO_ICMP),
        ),
        (libc::AF_UNIX, libc::SOCK_STREAM, 0, (libc::AF_UNIX, 0)),
    ] {
        check_eq!(
            made(Host::A, family, kind, protocol)?,
            expected,
            "socket({family}, {kind}, {protocol})"
        );
    }
    drop(changed);
    // Sockets of the kernel itself: rxe opens its UDP tunnel, nothing else changes.
    sys::leave().map_err(Fail::from)
}
