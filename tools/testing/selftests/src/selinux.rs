//! What SELinux is asked about SMC sockets, shown by a policy of our own.
//!
//! Only one of AppArmor and SELinux can be on, and Debian boots with AppArmor, so this is a boot of its own
//! (tools/testing/qemu/suites). The policy knows sockets of TCP, of SMC and of raw IP, and nothing else;
//! what it does not know is allowed.

use crate::kind::{Host, Kind};
use crate::ktap::Step;
use crate::mode::{self, Mode};
use crate::rig::{self, SoftRoce};
use crate::sys::{self, cvt_size, Child, Sock};
use crate::tests::ports::{unload, Log};
use crate::{check, check_eq, check_errno, Context, Outcome};
use std::os::fd::AsRawFd;

/// In this order.
pub const STEPS: [Step; 6] = [
    ("selinux.policy", policy),
    ("selinux.own_class", own_class),
    ("selinux.converted_is_tcp", converted_is_tcp),
    ("selinux.converted_to_af_smc", converted_to_af_smc),
    ("selinux.labels", labels),
    ("selinux.unload", unload),
];

const FILES: &str = "/sys/fs/selinux";

/// Sockets of each class for `all_t`, in which everything starts, and those of TCP only for `tcp_t`.
fn text() -> String {
    // Their numbers are their places (security/selinux/include/initial_sid_to_string.h).
    let sids =
        "kernel security unlabeled fs file file_labels init any_socket port netif netmsg node \
                igmp_packet icmp_socket tcp_socket sysctl_modprobe sysctl sysctl_fs sysctl_kernel \
                sysctl_net sysctl_net_unix sysctl_vm sysctl_dev kmod policy scmp_packet devnull";
    let socket =
        "ioctl read write create getattr setattr lock relabelfrom relabelto append map bind \
                  connect listen accept getopt setopt shutdown recvfrom sendto name_bind";
    let mut text = format!(
        "(handleunknown allow)(mls false)(policycap extended_socket_class)
         (class process (transition dyntransition))
         (class tcp_socket ({socket} node_bind name_connect))
         (class smc_socket ({socket}))
         (class rawip_socket ({socket} node_bind))
         (classorder (process tcp_socket smc_socket rawip_socket))
         (sensitivity s0)(sensitivityorder (s0))
         (user u)(role r)(userrole u r)(userlevel u (s0))(userrange u ((s0)(s0)))
         (type all_t)(type tcp_t)(roletype r all_t)(roletype r tcp_t)
         (typeattribute domain)(typeattributeset domain (all_t tcp_t))
         (allow all_t domain (process (all)))
         (allow all_t domain (smc_socket (all)))
         (allow all_t domain (rawip_socket (all)))
         (allow domain domain (tcp_socket (all)))
         (sidorder ({sids}))\n"
    );
    for sid in sids.split_whitespace() {
        text += &format!("(sid {sid})(sidcontext {sid} (u r all_t ((s0)(s0))))\n");
    }
    text
}

/// Loads the policy, and makes it hold.
fn policy() -> Outcome {
    rig::run(&format!("mount -t selinuxfs none {FILES}"))?;
    sys::write_file("/tmp/policy.cil", &text())?;
    rig::run("secilc -o /tmp/policy -f /tmp/contexts /tmp/policy.cil")?;
    // In one piece.
    let policy = std::fs::read("/tmp/policy")?;
    std::fs::write(format!("{FILES}/load"), policy).during("loading the policy")?;
    sys::write_file(&format!("{FILES}/enforce"), "1")?;
    rig::hosts_up(SoftRoce::Stock)?;
    rig::module_load()
}

/// Calls `f` in a process that may have sockets of TCP only.
fn confine(f: impl FnOnce() -> Outcome) -> Outcome {
    let body = || {
        sys::write_file("/proc/thread-self/attr/current", "u:r:tcp_t")?;
        f()
    };
    Child::fork(body)?.join("confined")
}

fn set_tcp2smc(mode: &str) -> Outcome {
    for host in Host::BOTH {
        sys::enter(host)?;
        sys::write_file("/proc/sys/net/smc/tcp2smc", mode)?;
    }
    Ok(sys::leave()?)
}

/// The classes of the sockets that were refused since, in order.
fn refused(log: &Log) -> Outcome<Vec<String>> {
    let lines = log.lines()?;
    let class = |line: &String| {
        let (_, rest) = line.split_once("avc:  denied  { create }")?;
        let (_, class) = rest.split_once("tclass=")?;
        class.split_whitespace().next().map(str::to_owned)
    };
    Ok(lines.iter().filter_map(class).collect())
}

/// A connection between the hosts by sockets of a kind: listener, client, server.
fn connected(kind: Kind) -> Outcome<[Sock; 3]> {
    let listener = Sock::new(Host::B, kind, 0)?;
    listener.bind(Host::B.address(kind, 0))?;
    listener.listen(1)?;
    let client = Sock::new(Host::A, kind, 0)?;
    client.connect(listener.local()?)?;
    let server = listener.accept()?;
    for (from, to) in [(&client, &server), (&server, &client)] {
        from.send_all(b"words")?;
        let mut got = [0; 5];
        to.recv_all(&mut got)?;
        check_eq!(&got, b"words", "what came");
    }
    Ok([listener, client, server])
}

fn by_rdma(kind: Kind) -> Outcome {
    let [_, client, server] = connected(kind)?;
    for sock in [client, server] {
        check!(mode::of(&sock)? == Mode::Rdma, "a connection goes by TCP");
    }
    Ok(())
}

/// Without `tcp2smc` sockets of SMC are of a class of their own, or have no class that tells.
fn own_class() -> Outcome {
    by_rdma(Kind::Smc4)?;
    by_rdma(Kind::IpSmc4)?;
    let log = Log::begin()?;
    confine(|| {
        connected(Kind::Tcp4)?;
        for kind in [Kind::Smc4, Kind::Smc6, Kind::IpSmc4, Kind::IpSmc6] {
            check_errno!(
                Sock::new(Host::A, kind, 0),
                libc::EACCES,
                "socket() of kind {}",
                kind.name()
            );
        }
        Ok(())
    })?;
    check_eq!(
        refused(&log)?,
        ["smc_socket", "smc_socket", "rawip_socket", "rawip_socket"],
        "classes that were refused"
    );
    Ok(())
}

/// A policy for TCP is enough in mode 2.
fn converted_is_tcp() -> Outcome {
    let log = Log::begin()?;
    set_tcp2smc("2")?;
    confine(|| {
        by_rdma(Kind::Tcp4)?;
        connected(Kind::Tcp6)?;
        by_rdma(Kind::IpSmc4)
    })?;
    check_eq!(
        refused(&log)?,
        Vec::<String>::new(),
        "classes that were refused"
    );
    Ok(())
}

/// In mode 1 the sockets are of another family, to SELinux, too.
fn converted_to_af_smc() -> Outcome {
    let log = Log::begin()?;
    set_tcp2smc("1")?;
    by_rdma(Kind::Tcp4)?;
    confine(|| {
        check_errno!(
            Sock::new(Host::A, Kind::Tcp4, 0),
            libc::EACCES,
            "socket(AF_INET)"
        );
        connected(Kind::Tcp6)?;
        Ok(())
    })?;
    check_eq!(refused(&log)?, ["smc_socket"], "classes that were refused");
    Ok(())
}

/// Sockets have the label of the process that made them, accepted ones that of their listener, as with TCP.
fn labels() -> Outcome {
    set_tcp2smc("2")?;
    confine(|| {
        for kind in [Kind::Tcp4, Kind::Tcp6] {
            for (sock, what) in connected(kind)?
                .iter()
                .zip(["listener", "client", "server"])
            {
                check_eq!(label(sock)?, "u:r:tcp_t", "label of the {what}");
            }
        }
        Ok(())
    })?;
    set_tcp2smc("0")?;
    for (sock, what) in connected(Kind::Smc4)?
        .iter()
        .zip(["listener", "client", "server"])
    {
        check_eq!(label(sock)?, "u:r:all_t", "label of the {what}");
    }
    Ok(())
}

fn label(sock: &Sock) -> Outcome<String> {
    let mut text = vec![0u8; 200];
    // SAFETY: a C string, and memory that is valid for its length.
    let len = cvt_size(unsafe {
        libc::fgetxattr(
            sock.as_raw_fd(),
            c"security.selinux".as_ptr(),
            text.as_mut_ptr().cast(),
            text.len(),
        )
    })
    .during("fgetxattr()")?;
    text.truncate(len);
    let text = String::from_utf8(text).during("the label")?;
    Ok(text.trim_end_matches('\0').to_owned())
}
