//! `net.smc.tcp2smc`: which sockets become SMC sockets, of whom, when, and what others see of it.

use super::ports::{self, Log, Place, Restore, A, C};
use super::settings::{get, set, set_raw, Changed};
use super::{join, once};
use crate::fault::Fault;
use crate::kind::{Host, Kind, AF_SMC, IPPROTO_SMC};
use crate::mode::{self, Mode};
use crate::proc_net;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, cvt, Child, Sock};
use crate::{check, check_eq, check_errno, diag, rig, Context, Fail, Outcome};
use io_uring::{opcode, squeue, IoUring};
use rand::Rng;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

pub const TESTS: [Test; 14] = [
    once("tcp2smc.what_becomes_what", 120, what_becomes_what),
    once("tcp2smc.goes_by_rdma", 120, goes_by_rdma),
    once("tcp2smc.flags", 60, flags),
    once("tcp2smc.socketpair", 60, socketpair),
    once("tcp2smc.static_program", 60, static_program),
    once("tcp2smc.off_again", 60, off_again),
    once("tcp2smc.on_and_off_under_load", 120, on_and_off_under_load),
    once("tcp2smc.probes_come_and_go", 60, probes_come_and_go),
    once("tcp2smc.no_probe", 60, no_probe),
    once("tcp2smc.kernel_listens_by_nvmet", 60, nvmet),
    once("tcp2smc.kernel_listens_by_siw", 60, siw),
    once("tcp2smc.seccomp", 60, seccomp),
    once("tcp2smc.apparmor", 60, apparmor),
    once("tcp2smc.apparmor_sees_tcp", 60, apparmor_sees_tcp),
];

const IPPROTO_MPTCP: i32 = 262;
const IPPROTO_SCTP: i32 = 132;
const IPPROTO_UDPLITE: i32 = 136;
const SOCK_PACKET: i32 = 10;

/// Family, type, protocol.
type Triple = (i32, i32, i32);

/// What the modes are about.
const TCP: [Triple; 4] = [
    (libc::AF_INET, libc::SOCK_STREAM, 0),
    (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP),
    (libc::AF_INET6, libc::SOCK_STREAM, 0),
    (libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP),
];

/// What they are not about. Some of these the kernel refuses.
const OTHERS: [Triple; 26] = [
    (libc::AF_INET, libc::SOCK_DGRAM, 0),
    (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
    (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_TCP),
    (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
    (libc::AF_INET, libc::SOCK_DGRAM, IPPROTO_UDPLITE),
    (libc::AF_INET6, libc::SOCK_DGRAM, 0),
    (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
    (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP),
    (libc::AF_INET, libc::SOCK_RAW, 0),
    (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_TCP),
    (libc::AF_INET, libc::SOCK_STREAM, IPPROTO_MPTCP),
    (libc::AF_INET6, libc::SOCK_STREAM, IPPROTO_MPTCP),
    (libc::AF_INET, libc::SOCK_STREAM, IPPROTO_SCTP),
    (libc::AF_INET6, libc::SOCK_STREAM, IPPROTO_SCTP),
    (libc::AF_INET, libc::SOCK_SEQPACKET, 0),
    (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_UDP),
    (libc::AF_INET, SOCK_PACKET, 0),
    (libc::AF_INET, libc::SOCK_STREAM, IPPROTO_SMC),
    (libc::AF_INET6, libc::SOCK_STREAM, IPPROTO_SMC),
    (AF_SMC, libc::SOCK_STREAM, 0),
    (AF_SMC, libc::SOCK_STREAM, 1),
    (libc::AF_UNIX, libc::SOCK_STREAM, 0),
    (libc::AF_NETLINK, libc::SOCK_RAW, 0),
    (libc::AF_INET, 0, 0),
    (libc::AF_UNSPEC, libc::SOCK_STREAM, 0),
    (1000, libc::SOCK_STREAM, 0),
];

/// What becomes of one of [`TCP`].
fn converted(mode: i64, (family, _, _): Triple) -> (i32, i32) {
    match mode {
        1 if family == libc::AF_INET => (AF_SMC, 0),
        2 => (family, IPPROTO_SMC),
        _ => (family, libc::IPPROTO_TCP),
    }
}

/// What a socket says that it is.
pub(super) fn identity(sock: &Sock) -> io::Result<(i32, i32)> {
    Ok((
        sock.get(libc::SOL_SOCKET, libc::SO_DOMAIN)?,
        sock.get(libc::SOL_SOCKET, libc::SO_PROTOCOL)?,
    ))
}

/// A way to ask the kernel for a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By the C library.
    Library,
    /// By the instruction, as Go's runtime and statically linked programs do.
    Instruction,
    /// By the system calls of 32-bit programs: socket(2), and socketcall(2) as older ones do.
    Compat,
    CompatCall,
    /// By io_uring: at once, in a worker, and in the kernel's thread that polls the ring.
    Uring,
    UringWorker,
    UringThread,
}

const WAYS: [Way; 7] = [
    Way::Library,
    Way::Instruction,
    Way::Compat,
    Way::CompatCall,
    Way::Uring,
    Way::UringWorker,
    Way::UringThread,
];

/// Makes sockets by one way. To be used by the thread that made it only, in the namespace where it was
/// made: io_uring's threads stay in that one.
struct Opener {
    way: Way,
    ring: Option<IoUring>,
}

impl Opener {
    fn new(way: Way) -> Outcome<Opener> {
        let ring = match way {
            Way::Uring | Way::UringWorker => Some(IoUring::new(4)),
            Way::UringThread => Some(IoUring::builder().setup_sqpoll(100).build(4)),
            _ => None,
        };
        let ring = ring.transpose().during("io_uring_setup()")?;
        Ok(Opener { way, ring })
    }

    fn open(&mut self, (family, kind, protocol): Triple) -> io::Result<Sock> {
        let number = match (self.way, &mut self.ring) {
            (Way::Library, _) => return Sock::raw(family, kind, protocol),
            (Way::Instruction, _) => {
                raw_call(libc::SYS_socket, [family, kind, protocol].map(i64::from))
            }
            (Way::Compat, _) => {
                const SOCKET: u32 = 359;
                int80(SOCKET, [family as u32, kind as u32, protocol as u32])
            }
            (Way::CompatCall, _) => {
                const SOCKETCALL: u32 = 102;
                const SOCKET: u32 = 1;
                let low = Low::new([family, kind, protocol])?;
                int80(SOCKETCALL, [SOCKET, low.address(), 0])
            }
            (way, Some(ring)) => {
                let mut entry = opcode::Socket::new(family, kind, protocol).build();
                if way == Way::UringWorker {
                    entry = entry.flags(squeue::Flags::ASYNC);
                }
                // SAFETY: the operation points to nothing.
                unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
                ring.submit_and_wait(1)?;
                let done = ring.completion().next();
                done.map_or(-libc::EIO, |done| done.result())
            }
            (way, None) => return Err(io::Error::other(format!("{way:?} has no ring"))),
        };
        if number < 0 {
            return Err(io::Error::from_raw_os_error(-number));
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(number) }.into())
    }
}

/// A system call without any library.
fn raw_call(number: i64, arguments: [i64; 3]) -> i32 {
    let result: i64;
    // SAFETY: the callers pass integers, nothing that the kernel writes to.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result as i32
}

/// A system call as 32-bit programs make it.
fn int80(number: u32, arguments: [u32; 3]) -> i32 {
    let result: u64;
    // SAFETY: the callers pass integers, and memory that the kernel reads. rbx cannot be named as an
    // operand, and is put back.
    unsafe {
        std::arch::asm!(
            "xchg {first:r}, rbx",
            "int 0x80",
            "xchg {first:r}, rbx",
            first = inout(reg) u64::from(arguments[0]) => _,
            inlateout("rax") u64::from(number) => result,
            in("rcx") u64::from(arguments[1]),
            in("rdx") u64::from(arguments[2]),
            lateout("r8") _,
            lateout("r9") _,
            lateout("r10") _,
            lateout("r11") _,
        );
    }
    result as u32 as i32
}

/// Arguments where a 32-bit program could have them.
struct Low(*mut [i32; 3]);

impl Low {
    fn new(arguments: [i32; 3]) -> io::Result<Low> {
        // SAFETY: a fresh mapping.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let page = page.cast();
        // SAFETY: the mapping is writable, aligned and long enough.
        unsafe { *page = arguments };
        Ok(Low(page))
    }

    fn address(&self) -> u32 {
        self.0 as usize as u32
    }
}

impl Drop for Low {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nobody uses it any more.
        unsafe { libc::munmap(self.0.cast(), 4096) };
    }
}

/// Calls `f` in a thread of its own, on a host.
fn on_host<T: Send + 'static>(
    host: Host,
    f: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    join(std::thread::spawn(move || {
        sys::enter(host)?;
        f()
    }))
}

/// Both modes, every triple, every way: what is TCP is converted, and nothing else. What the others are
/// is what they were with the mode off, errors included.
fn what_becomes_what(_: &Ctx) -> Outcome {
    let mut others = OTHERS.to_vec();
    for way in WAYS {
        others = on_host(Host::A, move || {
            let mut opener = Opener::new(way)?;
            let mut look = |triple: &Triple| {
                let sock = opener.open(*triple);
                sock.and_then(|sock| identity(&sock))
                    .map_err(|error| error.raw_os_error())
            };
            let before: Vec<_> = others.iter().map(&mut look).collect();
            for mode in [0, 1, 2, 0] {
                set(Host::A, "tcp2smc", mode)?;
                for triple in TCP {
                    check_eq!(
                        look(&triple),
                        Ok(converted(mode, triple)),
                        "socket{triple:?} by {way:?} with tcp2smc={mode}"
                    );
                }
                let others = if mode == 0 { &[] } else { &others[..] };
                for (triple, before) in others.iter().zip(&before) {
                    check_eq!(
                        look(triple),
                        *before,
                        "socket{triple:?} by {way:?} with tcp2smc={mode}, against tcp2smc=0"
                    );
                }
            }
            // By the other ways only what there is: a refusal takes two vain runs of modprobe.
            let both = others.into_iter().zip(&before);
            let there = both.filter(|(_, result)| result.is_ok());
            Ok(there.map(|(triple, _)| triple).collect())
        })?;
        check!(
            others.len() > 15,
            "by {way:?} with tcp2smc=0 there is only {others:?}"
        );
    }
    Ok(())
}

/// A question and its answer.
pub(super) fn talk(pair: &Pair) -> Outcome {
    let mut got = [0; 8];
    pair.client.send_all(b"question")?;
    pair.server.recv_all(&mut got)?;
    check_eq!(&got, b"question", "what the server received");
    pair.server.send_all(b"answered")?;
    pair.client.recv_all(&mut got)?;
    check_eq!(&got, b"answered", "what the client received");
    Ok(())
}

fn all_by_rdma(pair: &Pair) -> Outcome {
    for (host, sock) in [(Host::A, &pair.client), (Host::B, &pair.server)] {
        check_eq!(
            mode::of(sock)?,
            Mode::Rdma,
            "mode of a converted socket on host {}",
            host.name()
        );
    }
    Ok(())
}

/// A socket on either host, asked for by `way` as a program asks for TCP.
fn connected(way: Way, kind: Kind, protocol: i32) -> Outcome<Pair> {
    let (family, _) = kind.arguments();
    let triple = (family, libc::SOCK_STREAM, protocol);
    let listener = on_host(Host::B, move || {
        let sock = Opener::new(way)?.open(triple).during("socket()")?;
        sock.bind(Host::B.address(kind, 0))?;
        sock.listen(1)?;
        Ok(sock)
    })?;
    let address = listener.local()?;
    let client = on_host(Host::A, move || {
        let sock = Opener::new(way)?.open(triple).during("socket()")?;
        sock.connect(address).during("connect()")?;
        Ok(sock)
    })?;
    let server = listener.accept()?;
    Ok(Pair { client, server })
}

/// The connections of such sockets.
fn goes_by_rdma(ctx: &Ctx) -> Outcome {
    for mode in [1, 2] {
        let _changed = Changed::new(&Host::BOTH, "tcp2smc", mode)?;
        for (number, way) in WAYS.into_iter().enumerate() {
            let protocol = [0, libc::IPPROTO_TCP][number % 2];
            let what = format!("by {way:?} with tcp2smc={mode}");
            let pair = connected(way, Kind::Tcp4, protocol).during(&what)?;
            talk(&pair).during(&what)?;
            ctx.prove(Host::A, &pair.client).during(&what)?;
            ctx.prove(Host::B, &pair.server).during(&what)?;
        }
    }
    let _changed = Changed::new(&Host::BOTH, "tcp2smc", 2)?;
    for protocol in [0, libc::IPPROTO_TCP] {
        // By RDMA or not, as IPPROTO_SMC over IPv6 is: Soft-RoCE has no RoCEv1.
        let pair = connected(Way::Library, Kind::Tcp6, protocol)?;
        talk(&pair)?;
        mode::of(&pair.client).during("a converted IPv6 socket")?;
    }
    // A server that listens on `::` has IPv4 clients, too.
    sys::enter(Host::B)?;
    let listener = Sock::raw(libc::AF_INET6, libc::SOCK_STREAM, 0)?;
    listener.bind((std::net::Ipv6Addr::UNSPECIFIED, 0).into())?;
    listener.listen(1)?;
    let port = listener.local()?.port();
    sys::enter(Host::A)?;
    let client = Sock::raw(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    client.connect(Host::B.address(Kind::Tcp4, port))?;
    let server = listener.accept()?;
    let pair = Pair { client, server };
    talk(&pair)?;
    all_by_rdma(&pair).during("a server on ::")
}

fn flags(_: &Ctx) -> Outcome {
    for mode in [1, 2] {
        let _changed = Changed::new(&[Host::A], "tcp2smc", mode)?;
        sys::enter(Host::A)?;
        for flags in [
            0,
            libc::SOCK_NONBLOCK,
            libc::SOCK_CLOEXEC,
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        ] {
            let triple = (libc::AF_INET, libc::SOCK_STREAM | flags, 0);
            let sock = Sock::raw(triple.0, triple.1, triple.2)?;
            check_eq!(
                identity(&sock)?,
                converted(mode, triple),
                "socket{triple:?}"
            );
            check_eq!(
                sock.status_flags()? & libc::O_NONBLOCK != 0,
                flags & libc::SOCK_NONBLOCK != 0,
                "O_NONBLOCK with flags {flags:#x}"
            );
            check_eq!(
                sock.descriptor_flags()? & libc::FD_CLOEXEC != 0,
                flags & libc::SOCK_CLOEXEC != 0,
                "FD_CLOEXEC with flags {flags:#x}"
            );
        }
        check_errno!(
            Sock::raw(libc::AF_INET, libc::SOCK_STREAM | 0x10000, 0),
            libc::EINVAL,
            "socket() with an unknown flag"
        );
    }
    Ok(())
}

fn socketpair(_: &Ctx) -> Outcome {
    let pair = |family: i32| {
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors.
        cvt(unsafe { libc::socketpair(family, libc::SOCK_STREAM, 0, ends.as_mut_ptr()) })?;
        // SAFETY: two fresh descriptors that nobody else owns.
        let ends = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
        Ok::<_, io::Error>(ends.map(Sock::from))
    };
    for mode in [0, 1, 2] {
        let _changed = Changed::new(&[Host::A], "tcp2smc", mode)?;
        sys::enter(Host::A)?;
        for family in [libc::AF_INET, libc::AF_INET6] {
            check_errno!(
                pair(family),
                libc::EOPNOTSUPP,
                "socketpair({family}) with tcp2smc={mode}"
            );
        }
        let [one, two] = pair(libc::AF_UNIX)?;
        one.send_all(b"x")?;
        two.recv_all(&mut [0; 1])?;
    }
    Ok(())
}

/// Whether a program needs a dynamic linker.
fn has_interpreter(path: &str) -> Outcome<bool> {
    const PT_INTERP: u32 = 3;
    let elf = std::fs::read(path).during(path)?;
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = elf.get(at..at + size)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |sum, &byte| (sum << 8) | usize::from(byte)),
        )
    };
    let find = || -> Option<bool> {
        let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        let kinds = (0..count).map(|index| number(table + index * size, 4));
        let kinds: Option<Vec<usize>> = kinds.collect();
        Some(kinds?.contains(&(PT_INTERP as usize)))
    };
    find().ok_or_else(|| Fail(format!("{path} is no 64-bit ELF file")))
}

/// Debian's busybox, which no preloaded library reaches: its httpd and, as the client, its nc.
fn static_program(_: &Ctx) -> Outcome {
    use std::io::{Read, Write};
    check!(
        !has_interpreter("/usr/bin/busybox")?,
        "busybox is linked dynamically: it proves nothing here"
    );
    check!(
        has_interpreter("/usr/bin/bash")?,
        "bash is linked statically"
    );
    for mode in [1, 2] {
        let _changed = Changed::new(&Host::BOTH, "tcp2smc", mode)?;
        let what = format!("tcp2smc={mode}");
        let run = |host: Host, line: &str| {
            let words = format!("netns exec {} busybox {line}", host.name());
            let mut command = Command::new("ip");
            command.args(words.split(' '));
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
        };
        let port = 8080 + mode;
        let mut server = run(Host::B, &format!("httpd -f -p 10.9.0.2:{port} -h /etc"))?;
        sys::enter(Host::B)?;
        sys::eventually("httpd listens", || {
            let all = diag::dump(0)?;
            let mut all = all.iter();
            Ok(all.any(|entry| i64::from(entry.local.port()) == port))
        })?;
        let mut client = run(Host::A, &format!("nc 10.9.0.2 {port}"))?;
        for host in Host::BOTH {
            sys::enter(host)?;
            sys::eventually(&format!("{what}: a connection by RDMA"), || {
                let all = mode::connections()?;
                Ok(all.len() == 1 && all[0].1 == Mode::Rdma)
            })?;
        }
        let mut input = client.stdin.take();
        if let Some(input) = &mut input {
            input.write_all(b"GET /hosts HTTP/1.0\r\n\r\n")?;
        }
        let mut text = String::new();
        if let Some(mut output) = client.stdout.take() {
            output.read_to_string(&mut text)?;
        }
        server.kill()?;
        server.wait()?;
        client.wait()?;
        check!(
            text.contains("200 OK") && text.ends_with(&sys::read_file("/etc/hosts")?),
            "{what}: the client got {text:?}"
        );
    }
    Ok(())
}

fn made(host: Host, (family, kind, protocol): Triple) -> Outcome<(i32, i32)> {
    sys::enter(host)?;
    let sock = Sock::raw(family, kind, protocol).during("socket()")?;
    Ok(identity(&sock)?)
}

/// One namespace has it on, and others not; then it has it off, and keeps the sockets that it has.
fn off_again(ctx: &Ctx) -> Outcome {
    let changed = Changed::new(&[Host::A], "tcp2smc", 1)?;
    check_eq!(
        made(Host::B, TCP[0])?,
        (libc::AF_INET, libc::IPPROTO_TCP),
        "a socket of a namespace that did not ask for it"
    );
    sys::enter(Host::A)?;
    let kept = Sock::raw(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    drop(changed);
    check_eq!(
        made(Host::A, TCP[0])?,
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
    talk(&Pair {
        client: kept,
        server,
    })
}

/// Programs open sockets while the mode changes all the time: each of them is one or the other, and
/// works with any other.
fn on_and_off_under_load(ctx: &Ctx) -> Outcome {
    const THREADS: u64 = 3;
    const CHANGES: usize = 30;
    let over = Arc::new(AtomicBool::new(false));
    let _changed = Changed::new(&Host::BOTH, "tcp2smc", 0)?;
    let mut random = ctx.random(1);
    let changer = std::thread::spawn({
        let over = over.clone();
        move || -> Outcome {
            let mut change = || -> Outcome {
                for number in 0..CHANGES {
                    let host = Host::BOTH[random.gen_range(0..2)];
                    // Whatever the numbers: each mode comes up.
                    let mode = [number as i64 % 3, random.gen_range(0..3)][number % 2];
                    set(host, "tcp2smc", mode)?;
                    std::thread::sleep(Duration::from_millis(random.gen_range(0..50)));
                }
                Ok(())
            };
            let outcome = change();
            over.store(true, Ordering::Relaxed);
            outcome
        }
    });
    let open = |host: Host, random: &mut rand::rngs::SmallRng| -> Outcome<(Sock, (i32, i32))> {
        sys::enter(host)?;
        let triple = TCP[random.gen_range(0..2)];
        let sock = Sock::raw(triple.0, triple.1, triple.2).during("socket()")?;
        let what = identity(&sock)?;
        check!(
            [0, 1, 2]
                .iter()
                .any(|&mode| what == converted(mode, triple)),
            "socket{triple:?} is {what:?}"
        );
        Ok((sock, what))
    };
    let workers: Vec<_> = (0..THREADS)
        .map(|number| {
            let mut random = ctx.random(10 + number);
            let over = over.clone();
            std::thread::spawn(move || -> Outcome<Vec<(i32, i32)>> {
                let mut seen = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let (listener, one) = open(Host::B, &mut random)?;
                    listener.bind(Host::B.address(Kind::Tcp4, 0))?;
                    listener.listen(1)?;
                    let (client, two) = open(Host::A, &mut random)?;
                    let what = format!("client {two:?}, server {one:?}");
                    client.connect(listener.local()?).during(&what)?;
                    let server = listener.accept().during(&what)?;
                    talk(&Pair { client, server }).during(&what)?;
                    seen.extend([one, two]);
                }
                Ok(seen)
            })
        })
        .collect();
    let mut seen = Vec::new();
    let mut outcome = Ok(());
    for worker in workers {
        match join(worker) {
            Ok(mut part) => seen.append(&mut part),
            Err(failure) => outcome = Err(failure),
        }
    }
    join(changer)?;
    outcome?;
    for mode in [0, 1, 2] {
        check!(
            seen.contains(&converted(mode, TCP[0])),
            "no socket of {} was one of tcp2smc={mode}",
            seen.len()
        );
    }
    Ok(())
}

const PROBED: [&str; 4] = [
    "__sys_socket",
    "__sys_socket_file",
    "security_socket_create",
    "security_socket_post_create",
];

/// Which of the functions have a probe.
fn probes() -> io::Result<Vec<&'static str>> {
    let list = sys::read_file("/sys/kernel/debug/kprobes/list")?;
    let there = |name: &&str| list.contains(&format!("  k  {name}+"));
    Ok(PROBED.into_iter().filter(there).collect())
}

fn probes_come_and_go(_: &Ctx) -> Outcome {
    let _restore = Restore::new()?;
    let there = |when: &str| -> Outcome {
        check_eq!(probes()?, PROBED.to_vec(), "probes {when}");
        let patched = sys::read_file("/sys/kernel/tracing/enabled_functions")?;
        for name in PROBED {
            let there = |line: &str| line.starts_with(&format!("{name} "));
            check!(patched.lines().any(there), "{name} is unchanged {when}");
        }
        Ok(())
    };
    let gone = |when: &str| -> Outcome {
        check_eq!(probes()?, Vec::<&str>::new(), "probes {when}");
        // The functions are as they were: whoever does not use it pays nothing.
        let patched = sys::read_file("/sys/kernel/tracing/enabled_functions")?;
        let mut names = patched.lines().filter_map(|line| line.split(' ').next());
        check!(
            !names.any(|name| PROBED.contains(&name)),
            "a function is not as it was {when}:\n{patched}"
        );
        check_eq!(rig::module_users()?, 0, "users of the module {when}");
        Ok(())
    };
    gone("at first")?;
    set(Host::A, "tcp2smc", 1)?;
    there("with A on")?;
    set(Host::B, "tcp2smc", 2)?;
    set(Host::A, "tcp2smc", 2)?;
    there("with A and B on")?;
    set(Host::A, "tcp2smc", 0)?;
    there("with B on")?;
    set(Host::B, "tcp2smc", 0)?;
    gone("with A and B off")?;
    // A namespace that takes its setting with it. It starts with it off, wherever it is made.
    set(Host::A, "tcp2smc", 1)?;
    sys::enter(Host::A)?;
    rig::run("ip netns add C")?;
    set(Host::A, "tcp2smc", 0)?;
    C.enter()?;
    let path = "/proc/sys/net/smc/tcp2smc";
    check_eq!(sys::read_file(path)?, "0\n", "tcp2smc of a new namespace");
    sys::write_file(path, "1")?;
    there("with C on")?;
    Place::First.enter()?;
    rig::run("ip netns del C")?;
    sys::eventually("the probes go with the namespace", || {
        Ok(probes()?.is_empty())
    })?;
    gone("without C")?;
    // The module takes them with it.
    set(Host::A, "tcp2smc", 1)?;
    there("before rmmod")?;
    check_eq!(rig::module_users()?, 0, "users of the module with A on");
    ports::unload()?;
    check_eq!(probes()?, Vec::<&str>::new(), "probes after rmmod");
    A.enter()?;
    let sock = Sock::raw(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    check_eq!(
        identity(&sock)?,
        (libc::AF_INET, libc::IPPROTO_TCP),
        "a socket after rmmod"
    );
    Place::First.enter()?;
    rig::module_load()?;
    gone("after modprobe")?;
    check_eq!(get(Host::A, "tcp2smc")?, 0, "tcp2smc after modprobe");
    Ok(())
}

/// A kernel that does not let itself be probed.
fn no_probe(_: &Ctx) -> Outcome {
    let log = Log::begin()?;
    let fault = Fault::new("register_kprobes", -22, 0, 1)?;
    check_errno!(
        set_raw(Host::A, "tcp2smc", 1)?,
        libc::EINVAL,
        "tcp2smc=1 without probes"
    );
    check_eq!(fault.hits()?, 1, "refused probes");
    drop(fault);
    log.find(&["tcp2smc stays off in netns", "error -22"])?;
    check_eq!(get(Host::A, "tcp2smc")?, 0, "tcp2smc after that");
    check_eq!(probes()?, Vec::<&str>::new(), "probes after that");
    let _changed = Changed::new(&[Host::A], "tcp2smc", 1)?;
    check_eq!(made(Host::A, TCP[0])?, (AF_SMC, 0), "a socket afterwards");
    Ok(())
}

/// Somebody in the kernel listens on this port of the calling thread's namespace, and by TCP.
fn kernel_listens(port: u16, what: &str) -> Outcome {
    sys::eventually(&format!("{what} listens on port {port}"), || {
        let mut all = proc_net::sockets("tcp")?;
        all.extend(proc_net::sockets("tcp6")?);
        Ok(all.iter().any(|socket| socket.listens_on(port)))
    })?;
    let smc = diag::dump(0)?;
    check!(
        smc.iter().all(|entry| entry.local.port() != port),
        "{what} was given an SMC socket"
    );
    Ok(())
}

/// nvmet-tcp asks for its sockets as a program does, in the program that writes its configuration.
fn nvmet(_: &Ctx) -> Outcome {
    const DIR: &str = "/sys/kernel/config/nvmet";
    const PORT: u16 = 4420;
    rig::run("modprobe nvmet-tcp")?;
    let subsystem = format!("{DIR}/subsystems/smctest");
    std::fs::create_dir(&subsystem).during(&subsystem)?;
    let listen = |number: i64, family: &str, address: &str| -> Outcome {
        let port = format!("{DIR}/ports/{number}");
        std::fs::create_dir(&port).during(&port)?;
        let link = format!("{port}/subsystems/smctest");
        let outcome = || -> Outcome {
            for (name, value) in [
                ("addr_trtype", "tcp"),
                ("addr_adrfam", family),
                ("addr_traddr", address),
                ("addr_trsvcid", &PORT.to_string()),
            ] {
                sys::write_file(&format!("{port}/{name}"), value)?;
            }
            std::os::unix::fs::symlink(&subsystem, &link).during(&link)?;
            kernel_listens(PORT, "nvmet-tcp")
        }();
        if Path::new(&link).exists() {
            std::fs::remove_file(&link).during(&link)?;
        }
        std::fs::remove_dir(&port).during(&port)?;
        outcome
    };
    let mut outcome = Ok(());
    for mode in [1, 2] {
        let _changed = Changed::new(&[Host::A], "tcp2smc", mode)?;
        sys::enter(Host::A)?;
        outcome = outcome.and_then(|()| {
            listen(mode, "ipv4", &Host::A.ipv4().to_string())
                .and_then(|()| listen(mode, "ipv6", &Host::A.ipv6().to_string()))
                .during(&format!("tcp2smc={mode}"))
        });
    }
    std::fs::remove_dir(&subsystem).during(&subsystem)?;
    outcome
}

/// So does siw, in the program that listens by the RDMA connection manager.
fn siw(_: &Ctx) -> Outcome {
    const PORT: u16 = 7174;
    let _restore = Restore::new()?;
    ports::siw(Host::A)?;
    for mode in [1, 2] {
        let _changed = Changed::new(&[Host::A], "tcp2smc", mode)?;
        let mut server = Command::new("ip")
            .args(["netns", "exec", "A", "rping", "-s", "-p"])
            .arg(PORT.to_string())
            .spawn()
            .during("rping")?;
        sys::enter(Host::A)?;
        let outcome = kernel_listens(PORT, "siw");
        server.kill()?;
        server.wait()?;
        outcome.during(&format!("tcp2smc={mode}"))?;
    }
    Ok(())
}

/// Makes the calling process refuse socket(2) with `errno` where each argument given is this.
fn refuse_sockets(family: u32, kind: Option<u32>, protocol: Option<u32>, errno: u32) -> Outcome {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // struct seccomp_data: the number, and where the arguments begin.
    const ARGUMENTS: u32 = 16;
    let mut tests = vec![(0, libc::SYS_socket as u32)];
    let arguments = [Some(family), kind, protocol];
    for (index, argument) in (0..).zip(arguments) {
        tests.extend(argument.map(|value| (ARGUMENTS + 8 * index, value)));
    }
    let mut program = Vec::new();
    let mut left = tests.len() as u8 * 2;
    for (place, value) in tests {
        left -= 2;
        program.push(libc::sock_filter {
            code: LOAD,
            jt: 0,
            jf: 0,
            k: place,
        });
        // Behind the refusal, if it is not so.
        program.push(libc::sock_filter {
            code: IF,
            jt: 0,
            jf: left + 1,
            k: value,
        });
    }
    for k in [libc::SECCOMP_RET_ERRNO | errno, libc::SECCOMP_RET_ALLOW] {
        program.push(libc::sock_filter {
            code: RETURN,
            jt: 0,
            jf: 0,
            k,
        });
    }
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: a live program; the kernel copies it.
    cvt(unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    })
    .during("seccomp")?;
    Ok(())
}

/// A filter sees what the program asked for.
fn seccomp(ctx: &Ctx) -> Outcome {
    let _changed = Changed::new(&Host::BOTH, "tcp2smc", 1)?;
    let deny_smc = || {
        refuse_sockets(AF_SMC as u32, None, None, libc::EXDEV as u32)?;
        check_errno!(
            Sock::raw(AF_SMC, libc::SOCK_STREAM, 0),
            libc::EXDEV,
            "socket(AF_SMC)"
        );
        let pair = ctx.with_kind(Kind::Tcp4).pair()?;
        talk(&pair)?;
        all_by_rdma(&pair)
    };
    Child::fork(deny_smc)?.join("filtered")?;
    let _changed = Changed::new(&[Host::A], "tcp2smc", 2)?;
    let deny_tcp = || {
        sys::enter(Host::A)?;
        let (family, kind) = (libc::AF_INET, libc::SOCK_STREAM);
        let errno = libc::EXDEV as u32;
        refuse_sockets(family as u32, Some(kind as u32), Some(0), errno)?;
        check_errno!(Sock::raw(family, kind, 0), libc::EXDEV, "socket(AF_INET)");
        let sock = Sock::raw(family, kind, libc::IPPROTO_TCP)?;
        check_eq!(identity(&sock)?, (family, IPPROTO_SMC), "IPPROTO_TCP");
        Ok(())
    };
    Child::fork(deny_tcp)?.join("filtered")
}

/// An AppArmor profile, there until dropped.
struct Profile {
    name: &'static str,
    file: String,
}

impl Profile {
    /// Everything but sockets is allowed, and of those what `rules` say.
    fn new(name: &'static str, rules: &str) -> Outcome<Profile> {
        let file = format!("/tmp/{name}");
        let text = format!(
            "profile {name} flags=(attach_disconnected) {{\n  file, capability, mount, umount, ptrace, signal, unix,\n  \
             network netlink,\n  {rules}\n}}\n"
        );
        sys::write_file(&file, &text)?;
        let profile = Profile { name, file };
        profile.tell('r')?;
        Ok(profile)
    }

    /// Without a feature set of its own a profile is of 2017, and says nothing of sockets.
    fn tell(&self, order: char) -> Outcome {
        const FEATURES: &str = "/sys/kernel/security/apparmor/features";
        let file = &self.file;
        rig::run(&format!(
            "apparmor_parser --policy-features {FEATURES} -{order}TK {file}"
        ))?;
        Ok(())
    }

    /// Calls `f` in a process that is confined by it.
    fn confine(&self, f: impl FnOnce() -> Outcome) -> Outcome {
        let body = || {
            let order = format!("changeprofile {}", self.name);
            sys::write_file("/proc/thread-self/attr/current", &order)?;
            f()
        };
        Child::fork(body)?.join(&format!("process in the profile {}", self.name))
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        if let Err(failure) = self.tell('R') {
            eprintln!("# {failure}");
        }
    }
}

/// A profile for TCP is enough in mode 2; in mode 1 the sockets are of another family, to AppArmor, too.
fn apparmor(ctx: &Ctx) -> Outcome {
    let tcp = Profile::new(
        "smctest-tcp",
        "network inet stream,\n  network inet6 stream,",
    )?;
    let both = Profile::new(
        "smctest-both",
        "network inet stream,\n  network smc stream,",
    )?;
    let stream = |kind: Kind| Sock::new(Host::A, kind, 0);
    let by_rdma = || {
        let pair = ctx.with_kind(Kind::Tcp4).pair()?;
        talk(&pair)?;
        all_by_rdma(&pair)
    };
    tcp.confine(|| {
        stream(Kind::Tcp4).during("socket(AF_INET)")?;
        check_errno!(stream(Kind::Smc4), libc::EACCES, "socket(AF_SMC)");
        sys::enter(Host::A)?;
        check_errno!(
            Sock::raw(libc::AF_INET, libc::SOCK_DGRAM, 0),
            libc::EACCES,
            "a UDP socket"
        );
        Ok(())
    })?;
    let changed = Changed::new(&Host::BOTH, "tcp2smc", 2)?;
    tcp.confine(by_rdma)?;
    tcp.confine(|| {
        let pair = ctx.with_kind(Kind::Tcp6).pair()?;
        mode::of(&pair.client)?;
        talk(&pair)
    })?;
    both.confine(|| {
        check_errno!(stream(Kind::Tcp6), libc::EACCES, "socket(AF_INET6)");
        by_rdma()
    })?;
    drop(changed);
    let _changed = Changed::new(&Host::BOTH, "tcp2smc", 1)?;
    tcp.confine(|| {
        check_errno!(stream(Kind::Tcp4), libc::EACCES, "socket(AF_INET)");
        stream(Kind::Tcp6).during("socket(AF_INET6)")?;
        Ok(())
    })?;
    both.confine(by_rdma)
}

/// What a security module is told of a socket, as AppArmor reports what it refuses.
fn apparmor_sees_tcp(_: &Ctx) -> Outcome {
    const LIMIT: &str = "/proc/sys/kernel/printk_ratelimit";
    let profile = Profile::new("smctest-none", "network inet dgram,")?;
    let smc = (libc::AF_INET, libc::SOCK_STREAM, IPPROTO_SMC);
    let cases = [
        (0, TCP[0], "inet", 0),
        (0, smc, "inet", IPPROTO_SMC),
        (1, TCP[0], "smc", 0),
        (1, TCP[2], "inet6", 0),
        (2, TCP[0], "inet", libc::IPPROTO_TCP),
        (2, TCP[1], "inet", libc::IPPROTO_TCP),
        (2, TCP[3], "inet6", libc::IPPROTO_TCP),
        (2, smc, "inet", libc::IPPROTO_TCP),
    ];
    let limit = sys::read_file(LIMIT)?;
    sys::write_file(LIMIT, "0")?;
    let log = Log::begin()?;
    let ask = || -> Outcome {
        for (mode, triple, _, _) in cases {
            let _changed = Changed::new(&[Host::A], "tcp2smc", mode)?;
            profile.confine(|| {
                sys::enter(Host::A)?;
                check_errno!(
                    Sock::raw(triple.0, triple.1, triple.2),
                    libc::EACCES,
                    "socket{triple:?} with tcp2smc={mode}"
                );
                Ok(())
            })?;
        }
        Ok(())
    };
    let outcome = ask();
    let lines = log.lines();
    sys::write_file(LIMIT, &limit)?;
    outcome?;
    let lines = lines?;
    let refused: Vec<&String> = lines
        .iter()
        .filter(|line| line.contains("apparmor=\"DENIED\" operation=\"create\""))
        .collect();
    check_eq!(refused.len(), cases.len(), "refusals in the log");
    for ((mode, triple, family, protocol), line) in cases.into_iter().zip(refused) {
        check!(
            line.contains(&format!(
                "family=\"{family}\" sock_type=\"stream\" protocol={protocol} "
            )),
            "AppArmor saw something else of socket{triple:?} with tcp2smc={mode}: {line}"
        );
    }
    Ok(())
}
