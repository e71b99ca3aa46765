//! The example of a policy finer than a namespace (tools/examples/bpf-policy): a BPF program that chooses
//! by process and cgroup, and rules of the packet filter that choose by port.

use super::settings::Changed;
use super::tcp2smc::{identity, talk};
use super::{any, once};
use crate::kind::{Host, Kind, AF_SMC, IPPROTO_SMC};
use crate::mode::{self, Mode};
use crate::runner::{Ctx, Needs, Pair, Test};
use crate::sys::{self, Child, Sock};
use crate::{check, check_eq, check_errno, rig, Context, Fail, Outcome};
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub const TESTS: [Test; 5] = [
    by_bpf("policy.cgroup", 120, cgroup),
    by_bpf("policy.program", 120, program),
    by_bpf("policy.errors", 60, errors),
    once("policy.ports", 60, ports),
    any("policy.cgroup_refuses_option", 60, cgroup_refuses_option),
];

const fn by_bpf(name: &'static str, limit: u64, body: fn(&Ctx) -> Outcome) -> Test {
    Test {
        name,
        body,
        limit,
        needs: Needs::Btf,
    }
}

const DIR: &str = "/usr/share/smc_rs/bpf-policy";
const PEERNOSMC: u32 = 0x0301_0000;
const TCP: (i32, i32) = (libc::AF_INET, libc::IPPROTO_TCP);
const SMC: (i32, i32) = (libc::AF_INET, IPPROTO_SMC);

/// The policy, loaded until dropped.
struct Policy;

impl Policy {
    fn load() -> Outcome<Policy> {
        Policy::tell("load")?;
        Ok(Policy)
    }

    fn tell(line: &str) -> Outcome<String> {
        rig::run(&format!("{DIR}/smc-policy {line}"))
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if let Err(failure) = Policy::tell("unload") {
            eprintln!("# {failure}");
        }
    }
}

/// Cgroups, gone when dropped; to be named from the outermost inwards.
struct Cgroups(Vec<String>);

impl Cgroups {
    fn new(names: &[&str]) -> Outcome<Cgroups> {
        let mut all = Cgroups(Vec::new());
        for name in names {
            let path = format!("/sys/fs/cgroup/{name}");
            std::fs::create_dir(&path).during(&path)?;
            all.0.push(path);
        }
        Ok(all)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            if let Err(error) = std::fs::remove_dir(path) {
                eprintln!("# {path}: {error}");
            }
        }
    }
}

/// A program that knows of TCP only, in a process of its own.
struct Program<'a> {
    cgroup: &'a str,
    name: &'a str,
}

impl Program<'_> {
    /// Its sockets are `expected`, and so are its connections.
    fn has(&self, ctx: &Ctx, expected: (i32, i32)) -> Outcome {
        let body = || {
            sys::write_file(&format!("{}/cgroup.procs", self.cgroup), "0")?;
            let name = CString::new(self.name).during("name")?;
            // SAFETY: a live string, of which the kernel copies at most 16 bytes.
            sys::cvt(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) })?;
            let pair = ctx.with_kind(Kind::Tcp4).pair()?;
            talk(&pair)?;
            for (host, sock) in [(Host::A, &pair.client), (Host::B, &pair.server)] {
                check_eq!(identity(sock)?, expected, "socket on host {}", host.name());
                if expected == SMC {
                    check_eq!(mode::of(sock)?, Mode::Rdma, "mode on host {}", host.name());
                }
            }
            // IPv6 as well; and what is not TCP is left alone.
            for (family, kind, protocol, becomes) in [
                (libc::AF_INET6, libc::SOCK_STREAM, 0, expected.1),
                (
                    libc::AF_INET,
                    libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
                    libc::IPPROTO_TCP,
                    expected.1,
                ),
                (libc::AF_INET, libc::SOCK_DGRAM, 0, libc::IPPROTO_UDP),
                (libc::AF_INET, libc::SOCK_STREAM, 262, 262),
                (libc::AF_INET, libc::SOCK_STREAM, IPPROTO_SMC, IPPROTO_SMC),
            ] {
                let sock = Sock::raw(family, kind, protocol)?;
                check_eq!(
                    identity(&sock)?,
                    (family, becomes),
                    "socket({family}, {kind:#x}, {protocol})"
                );
            }
            Ok(())
        };
        Child::fork(body)?
            .join("test")
            .during(&format!("{} in {}", self.name, self.cgroup))
    }
}

fn cgroup(ctx: &Ctx) -> Outcome {
    let groups = Cgroups::new(&[
        "smctest",
        "smctest/inner",
        "smctest/inner/most",
        "smctest-other",
    ])?;
    let [outer, inner, most, other] = &groups.0[..] else {
        return Err(Fail("four cgroups".into()));
    };
    let within = |cgroup| Program {
        cgroup,
        name: "some-program",
    };
    let policy = Policy::load()?;
    within(outer).has(ctx, TCP).during("without a rule")?;
    Policy::tell(&format!("cgroup {outer} smc"))?;
    within(outer).has(ctx, SMC)?;
    within(most).has(ctx, SMC)?;
    within(other).has(ctx, TCP)?;
    within("/sys/fs/cgroup").has(ctx, TCP)?;
    // The innermost rule counts.
    Policy::tell(&format!("cgroup {inner} tcp"))?;
    within(outer).has(ctx, SMC)?;
    within(inner).has(ctx, TCP)?;
    within(most).has(ctx, TCP)?;
    Policy::tell(&format!("cgroup {inner} none"))?;
    within(inner).has(ctx, SMC)?;
    // tcp2smc is asked first.
    let changed = Changed::new(&Host::BOTH, "tcp2smc", 2)?;
    within(other).has(ctx, SMC).during("with tcp2smc=2")?;
    drop(changed);
    let changed = Changed::new(&[Host::A], "tcp2smc", 1)?;
    sys::enter(Host::A)?;
    let sock = Sock::raw(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    check_eq!(identity(&sock)?, (AF_SMC, 0), "a socket with tcp2smc=1");
    drop(changed);
    drop(policy);
    within(outer).has(ctx, TCP).during("after unload")
}

fn program(ctx: &Ctx) -> Outcome {
    let groups = Cgroups::new(&["smctest"])?;
    let group = groups.0[0].as_str();
    let named = |name| Program {
        cgroup: "/sys/fs/cgroup",
        name,
    };
    let _policy = Policy::load()?;
    Policy::tell("program redis-server smc")?;
    // As long as names get.
    Policy::tell("program fifteen-letters smc")?;
    named("redis-server").has(ctx, SMC)?;
    named("fifteen-letters").has(ctx, SMC)?;
    named("redis-serve").has(ctx, TCP)?;
    named("redis-server2").has(ctx, TCP)?;
    // A name counts more than a cgroup.
    Policy::tell(&format!("cgroup {group} smc"))?;
    Policy::tell("program sshd tcp")?;
    for (name, expected) in [("sshd", TCP), ("another", SMC), ("redis-server", SMC)] {
        Program {
            cgroup: group,
            name,
        }
        .has(ctx, expected)?;
    }
    let shown = Policy::tell("show")?;
    check!(shown.contains("redis-server"), "the rules: {shown}");
    Policy::tell("program redis-server none")?;
    named("redis-server").has(ctx, TCP)
}

/// bpf(2); what it needs of its attributes, the rest of which is zeroes.
fn bpf(command: i64, attributes: &[u32; 18]) -> std::io::Result<i32> {
    // SAFETY: `attributes` is live, and so is what it refers to.
    sys::cvt(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(attributes),
        )
    } as i32)
}

/// Has the sockets of a cgroup refuse a program's SO_PRIORITY, until the cgroup goes.
fn refuse_priority(cgroup: &str) -> Outcome {
    const BPF_PROG_LOAD: i64 = 5;
    const BPF_PROG_ATTACH: i64 = 8;
    const BPF_PROG_TYPE_CGROUP_SOCKOPT: u32 = 25;
    const BPF_CGROUP_SETSOCKOPT: u32 = 22;
    // Operation, registers (target below), offset, number.
    let one = |op: u8, registers: u8, offset: i16, number: i32| -> [u8; 8] {
        let mut all = [op, registers, 0, 0, 0, 0, 0, 0];
        all[2..4].copy_from_slice(&offset.to_ne_bytes());
        all[4..].copy_from_slice(&number.to_ne_bytes());
        all
    };
    // Level and option are at 24 and 28 of struct bpf_sockopt, which is in register 1.
    let program = [
        one(0x61, 0x12, 24, 0),
        one(0x61, 0x13, 28, 0),
        one(0xb7, 0, 0, 1),
        one(0x55, 2, 2, libc::SOL_SOCKET),
        one(0x55, 3, 1, libc::SO_PRIORITY),
        one(0xb7, 0, 0, 0),
        one(0x95, 0, 0, 0),
    ];
    let license = c"GPL";
    let (start, words) = (program.as_ptr() as u64, license.as_ptr() as u64);
    let mut load = [0u32; 18];
    load[0] = BPF_PROG_TYPE_CGROUP_SOCKOPT;
    load[1] = program.len() as u32;
    (load[2], load[3]) = (start as u32, (start >> 32) as u32);
    (load[4], load[5]) = (words as u32, (words >> 32) as u32);
    load[17] = BPF_CGROUP_SETSOCKOPT;
    let fd = bpf(BPF_PROG_LOAD, &load).during("loading a program of BPF")?;
    // SAFETY: a fresh descriptor that nobody else owns.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let cgroup = std::fs::File::open(cgroup).during(cgroup)?;
    let mut attach = [0u32; 18];
    attach[0] = cgroup.as_raw_fd() as u32;
    attach[1] = program.as_raw_fd() as u32;
    attach[2] = BPF_CGROUP_SETSOCKOPT;
    bpf(BPF_PROG_ATTACH, &attach).during("attaching it to the cgroup")?;
    Ok(())
}

/// What BPF programs of a cgroup say holds for the connections that its listeners accept, too.
fn cgroup_refuses_option(ctx: &Ctx) -> Outcome {
    let groups = Cgroups::new(&["smctest"])?;
    let group = groups.0[0].as_str();
    refuse_priority(group)?;
    let body = || {
        sys::write_file(&format!("{group}/cgroup.procs"), "0")?;
        let (listener, address) = ctx.listener(8)?;
        let Pair { client, server } = ctx.pair_from(&listener, address)?;
        for (what, sock) in [
            ("the listener", &listener),
            ("the client", &client),
            ("the accepted socket", &server),
        ] {
            check_errno!(
                sock.set(libc::SOL_SOCKET, libc::SO_PRIORITY, 3),
                libc::EPERM,
                "SO_PRIORITY of {what}"
            );
            sock.set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)
                .during(&format!("SO_KEEPALIVE of {what}"))?;
        }
        talk(&Pair { client, server })
    };
    Child::fork(body)?.join("test")
}

/// One line that says what is wrong.
fn errors(_: &Ctx) -> Outcome {
    let refused = |line: &str, words: &str| -> Outcome {
        match Policy::tell(line) {
            Ok(_) => Err(Fail(format!("smc-policy {line} succeeded"))),
            Err(failure) => {
                check!(failure.0.contains(words), "smc-policy {line}: {failure}");
                Ok(())
            }
        }
    };
    refused("", "usage")?;
    refused("unload", "not loaded")?;
    refused("program x smc", "not loaded")?;
    let _policy = Policy::load()?;
    refused("load", "loaded already")?;
    refused("cgroup /tmp smc", "no directory of cgroup2")?;
    refused("program x rdma", "none of")?;
    refused("program x none", "no such rule")
}

/// Connections to some ports stay with TCP, where the rules are at the client, and where at the server.
fn ports(ctx: &Ctx) -> Outcome {
    const PORTS: [(u16, bool); 3] = [(22, true), (5432, true), (5433, false)];
    let connect = |port: u16| -> Outcome<Pair> {
        let listener = ctx.socket(Host::B)?;
        listener.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        listener.bind(Host::B.address(Kind::Tcp4, port))?;
        listener.listen(1)?;
        let client = ctx.connect(listener.local()?)?;
        let server = listener.accept()?;
        let pair = Pair { client, server };
        talk(&pair)?;
        Ok(pair)
    };
    for host in Host::BOTH {
        rig::run_on(host, &format!("nft -f {DIR}/tcp-ports.nft"))?;
        for (port, stays) in PORTS {
            let pair = connect(port)?;
            for sock in [&pair.client, &pair.server] {
                let what = format!("port {port}, rules on host {}", host.name());
                if stays {
                    check_eq!(
                        mode::fallback_reason(sock).during(&what)?,
                        PEERNOSMC,
                        "{what}"
                    );
                } else {
                    check_eq!(mode::of(sock)?, Mode::Rdma, "{what}");
                }
            }
        }
        rig::run_on(host, "nft delete table inet smc_policy")?;
    }
    for (port, _) in PORTS {
        let pair = connect(port)?;
        for sock in [&pair.client, &pair.server] {
            check_eq!(mode::of(sock)?, Mode::Rdma, "port {port} without rules");
        }
    }
    Ok(())
}
