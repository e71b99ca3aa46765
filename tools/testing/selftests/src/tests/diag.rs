//! sock_diag of AF_SMC: every socket in every state, and dumps that others disturb.

use super::raw::{self, RawPeer};
use super::{join, once};
use crate::diag::{self, Cursor, Dump, Entry};
use crate::kind::{Host, Kind};
use crate::mode::{self, Mode};
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, Sock};
use crate::{check, check_eq, check_errno, rig, Context, Fail, Outcome};
use rand::Rng;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

pub const TESTS: [Test; 11] = [
    once("diag.unconnected", 60, unconnected),
    once("diag.connected", 120, connected),
    once("diag.cursors", 60, cursors),
    once("diag.closing", 60, closing),
    once("diag.handshakes", 90, handshakes),
    once("diag.fallbacks", 60, fallbacks),
    once("diag.namespaces", 60, namespaces),
    once("diag.five_thousand", 300, five_thousand),
    once("diag.churn", 300, churn),
    once("diag.module", 120, module),
    once("diag.state", 120, state),
];

const KINDS: [Kind; 4] = [Kind::Smc4, Kind::Smc6, Kind::IpSmc4, Kind::IpSmc6];

/// States of a closing connection (enum smc_state).
const PEERCLOSEWAIT1: u8 = 20;
const PEERCLOSEWAIT2: u8 = 21;
const APPCLOSEWAIT1: u8 = 22;
const APPCLOSEWAIT2: u8 = 23;
/// Bits of `sk_shutdown`.
const RCV: u8 = 1;
const SEND: u8 = 2;

/// What the kernel says about a socket, which it must know.
fn entry(sock: &Sock) -> Outcome<Entry> {
    let entry = diag::of(sock).during("sock_diag")?;
    entry.ok_or_else(|| Fail("sock_diag does not list the socket".into()))
}

/// All SMC sockets of a host, as far as they are known without any extension.
fn all(host: Host) -> Outcome<Vec<Entry>> {
    sys::enter(host)?;
    diag::dump(0).during("dump")
}

/// Sockets that are new, bound, listening and closed.
fn unconnected(_: &Ctx) -> Outcome {
    for kind in KINDS {
        let sock = Sock::new(Host::A, kind, 0)?;
        let new = entry(&sock).during(kind.name())?;
        check_eq!(
            (new.family, new.state, new.mode, new.shutdown),
            (
                kind.arguments().0 as u8,
                diag::SMC_INIT,
                diag::SMC_DIAG_MODE_SMCR,
                0
            ),
            "family, state, mode and shutdown of a new {} socket",
            kind.name()
        );
        check_eq!(
            (new.local.port(), new.peer.port(), new.ifindex, new.uid),
            (0, 0, 0, 0),
            "ports, device and owner"
        );
        check_eq!(new.fallback, diag::Fallback::default(), "fallback");
        check!(
            new.conn.is_none() && new.link.is_none() && new.cookie != 0,
            "a new socket: {new:?}"
        );
        sock.bind(Host::A.address(kind, 0))?;
        check_eq!(
            entry(&sock)?.local,
            sock.local()?,
            "address of a bound socket"
        );
        sock.listen(3)?;
        let listening = entry(&sock)?;
        check_eq!(
            (listening.state, listening.cookie),
            (diag::SMC_LISTEN, new.cookie),
            "state and cookie of a listener"
        );
        check_eq!(listening.local, sock.local()?, "address of a listener");
        check_eq!(listening.peer.port(), 0, "a listener's peer");
        drop(sock);
        check!(
            all(Host::A)?
                .iter()
                .all(|other| other.cookie != new.cookie && other.inode != new.inode),
            "a closed socket is listed"
        );
    }
    // The owner is who has made the socket.
    sys::enter(Host::A)?;
    // SAFETY: no pointers.
    unsafe { libc::setfsuid(1234) };
    let sock = Sock::new(Host::A, Kind::Smc4, 0);
    // SAFETY: as above.
    unsafe { libc::setfsuid(0) };
    check_eq!(entry(&sock?)?.uid, 1234, "owner");
    // smcss sets one bit of NLM_F_DUMP only.
    let root = diag::request((libc::NLM_F_REQUEST | libc::NLM_F_ROOT) as u16, 0);
    Dump::ask(&root)?.rest().during("a request of smcss")?;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut short = diag::request(flags, 0);
    short[0] = 18;
    check_errno!(
        Dump::ask(&short[..18])?.part(),
        libc::EINVAL,
        "a request that is too short"
    );
    Ok(())
}

/// The GID of a host's IPv4 address, or its other one, as text.
fn gid_of(host: Host) -> String {
    format!(
        "0000:0000:0000:0000:0000:ffff:0a09:{:04x}",
        host.ipv4().octets()[3]
    )
}

/// Connections of every kind: identity, and what is said of connection and link.
fn connected(ctx: &Ctx) -> Outcome {
    for kind in KINDS {
        let pair = ctx.with_kind(kind).pair().during(kind.name())?;
        let Pair { client, server } = &pair;
        let ends = [
            (client, Host::A, Host::B, 0u8),
            (server, Host::B, Host::A, 1),
        ];
        for (sock, host, peer, role) in ends {
            let entry = entry(sock).during(kind.name())?;
            check_eq!(
                (entry.family, entry.state, entry.shutdown),
                (kind.arguments().0 as u8, diag::SMC_ACTIVE, 0),
                "family, state and shutdown"
            );
            check_eq!(
                (entry.local, entry.peer),
                (sock.local()?, sock.peer()?),
                "addresses of a {} socket",
                kind.name()
            );
            if mode::of(sock)? != Mode::Rdma {
                // IPv6 over RoCEv2: there is no SMC-Rv2 for it.
                check!(
                    kind.is_v6() && entry.conn.is_none() && entry.link.is_none(),
                    "{entry:?}"
                );
                continue;
            }
            check_eq!(entry.fallback, diag::Fallback::default(), "fallback");
            let conn = entry
                .conn
                .ok_or_else(|| Fail("no connection info".into()))?;
            // The kernel shows twice what there is.
            let size =
                |option| Ok::<_, std::io::Error>(sock.get(libc::SOL_SOCKET, option)? as u32 / 2);
            check_eq!(
                (conn.sndbuf_size, conn.rmbe_size),
                (size(libc::SO_SNDBUF)?, size(libc::SO_RCVBUF)?),
                "sizes of the rings"
            );
            check!(conn.token != 0, "token 0");
            let link = entry.link.ok_or_else(|| Fail("no link info".into()))?;
            check_eq!(
                (link.link_id, link.ibname.as_str(), link.ibport, link.role),
                (1, host.rdma_device(), 1, role),
                "number, device, port and role of the link"
            );
            check_eq!(
                (link.gid.len(), link.peer_gid.len()),
                (39, 39),
                "length of the GIDs"
            );
            if !kind.is_v6() && rig::SoftRoce::here() == rig::SoftRoce::Stock {
                check_eq!(
                    (link.gid, link.peer_gid),
                    (gid_of(host), gid_of(peer)),
                    "GIDs of both sides"
                );
            }
        }
        // What nobody asks for is not said.
        let bare = all(Host::A)?;
        check!(
            bare.iter()
                .all(|entry| entry.conn.is_none() && entry.link.is_none()),
            "extensions that were not asked for"
        );
    }
    Ok(())
}

/// The cursors of both ends tell the same story, as data goes one way.
fn cursors(ctx: &Ctx) -> Outcome {
    const SENT: u32 = 10_000;
    const READ: u32 = 3_000;
    let Pair { client, server } = ctx.pair()?;
    let at = |count| Cursor { wrap: 0, count };
    let conn = |sock: &Sock| -> Outcome<diag::Conn> {
        entry(sock)?
            .conn
            .ok_or_else(|| Fail("no connection info".into()))
    };
    client.send_all(&[7; SENT as usize])?;
    let mut got = [0; READ as usize];
    server.recv_all(&mut got)?;
    sys::eventually("all that was sent has completed", || {
        let conn = conn(&client)?;
        Ok(conn.tx_fin == at(SENT))
    })?;
    // Data may come in more than one message.
    sys::eventually("all that was sent has arrived", || {
        let conn = conn(&server)?;
        Ok(conn.rx_prod == at(SENT))
    })?;
    let (near, far) = (conn(&client)?, conn(&server)?);
    check_eq!(
        (near.tx_prep, near.tx_sent, near.tx_prod),
        (at(SENT), at(SENT), at(SENT)),
        "the sender's cursors"
    );
    check_eq!(far.tx_cons, at(READ), "the reader's cursor");
    check_eq!(
        (near.peer_rmbe_size, far.peer_rmbe_size),
        (far.rmbe_size, near.rmbe_size),
        "sizes as the peer sees them"
    );
    check_eq!(
        (near.rx_prod, near.tx_cons, far.tx_prod, far.tx_prep),
        (at(0), at(0), at(0), at(0)),
        "cursors of the direction without data"
    );
    check_eq!(
        (
            near.tx_prod_flags,
            near.tx_conn_state_flags,
            far.rx_conn_state_flags
        ),
        (0, 0, 0),
        "flags"
    );
    // Once round the ring.
    let rest = far.rmbe_size - READ;
    let thread = std::thread::spawn(move || -> Outcome<Sock> {
        client.send_all(&vec![8; rest as usize])?;
        Ok(client)
    });
    let mut got = vec![0; (SENT - READ + rest) as usize];
    server.recv_all(&mut got)?;
    let client = join(thread)?;
    let far = conn(&server)?;
    let end = Cursor {
        wrap: 1,
        count: SENT - READ,
    };
    check_eq!(
        (far.rx_prod, far.tx_cons),
        (end, end),
        "cursors after a wrap"
    );
    check_eq!(conn(&client)?.tx_prod, end, "the sender's after a wrap");
    Ok(())
}

/// One side shuts down, then the other.
fn closing(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let become_state = |sock: &Sock, state: u8, shutdown: u8| {
        sys::eventually(&format!("state {state}, shutdown {shutdown}"), || {
            let now = diag::of(sock)?.ok_or_else(|| std::io::Error::other("not listed"))?;
            Ok((now.state, now.shutdown) == (state, shutdown))
        })
    };
    client.shutdown(libc::SHUT_WR)?;
    become_state(&client, PEERCLOSEWAIT1, SEND)?;
    become_state(&server, APPCLOSEWAIT1, RCV)?;
    let said = |entry: Entry| {
        entry
            .conn
            .map(|conn| (conn.tx_conn_state_flags, conn.rx_conn_state_flags))
    };
    check_eq!(said(entry(&client)?), Some((0x80, 0)), "D was said");
    check_eq!(said(entry(&server)?), Some((0, 0x80)), "D was heard");
    server.shutdown(libc::SHUT_WR)?;
    become_state(&server, APPCLOSEWAIT2, RCV | SEND)?;
    become_state(&client, PEERCLOSEWAIT2, RCV | SEND)?;
    for sock in [&client, &server] {
        check!(
            mode::of(sock)? == Mode::Rdma,
            "the mode of a closing connection"
        );
    }
    Ok(())
}

/// Connections that are not there yet, at either side, and one that nobody has accepted.
fn handshakes(ctx: &Ctx) -> Outcome {
    // TCP's own: nobody has this address.
    let nowhere: SocketAddr = ([10, 9, 0, 77], 7).into();
    let client = Sock::new(Host::A, Kind::Smc4, libc::SOCK_NONBLOCK)?;
    check_errno!(client.connect(nowhere), libc::EINPROGRESS, "connect()");
    let waiting = entry(&client)?;
    check_eq!(
        (waiting.state, waiting.mode, waiting.peer),
        (diag::SMC_INIT, diag::SMC_DIAG_MODE_SMCR, nowhere),
        "a client that waits for a SYN-ACK"
    );
    check_eq!(waiting.local, client.local()?, "its address");

    // SMC's: a client that says nothing.
    raw::prepare()?;
    let (listener, address) = ctx.listener(8)?;
    let silent = RawPeer::connect(42500, address)?;
    check!(silent.peer_offers_smc, "the listener does not offer SMC");
    let from: SocketAddr = (raw::ADDRESS, 42500).into();
    let mut child = None;
    sys::eventually("the child of a silent client is listed", || {
        sys::enter(Host::B)?;
        child = diag::dump(diag::WITH_CONNINFO | diag::WITH_LGRINFO)?
            .into_iter()
            .find(|entry| entry.peer == from);
        Ok(child.is_some())
    })?;
    let child = child.ok_or_else(|| Fail("no child".into()))?;
    check_eq!(
        (child.state, child.inode, child.local),
        (diag::SMC_INIT, 0, address),
        "a child in its handshake"
    );
    check!(
        child.conn.is_none() && child.link.is_none(),
        "it has no connection"
    );
    drop(silent);

    // Established, and not accepted: the kernel has no file for it yet.
    let client = ctx.connect(address)?;
    let own = client.local()?;
    let mut there = None;
    sys::eventually("the connection is established", || {
        sys::enter(Host::B)?;
        there = diag::dump(0)?.into_iter().find(|entry| entry.peer == own);
        Ok(there
            .as_ref()
            .is_some_and(|entry| entry.state == diag::SMC_ACTIVE))
    })?;
    let there = there.ok_or_else(|| Fail("no connection".into()))?;
    check_eq!(there.inode, 0, "inode before accept()");
    let server = listener.accept()?;
    let accepted = entry(&server)?;
    check_eq!(
        (accepted.cookie, accepted.inode),
        (there.cookie, server.inode()?),
        "the same after accept()"
    );
    // A listener that goes takes what nobody has accepted along.
    let other = ctx.connect(address)?;
    let own = other.local()?;
    drop(listener);
    sys::eventually("connections that nobody accepted are gone", || {
        sys::enter(Host::B)?;
        Ok(diag::dump(0)?.iter().all(|entry| entry.peer != own))
    })?;
    Ok(())
}

/// Connections that fell back stay listed as long as the user has them.
fn fallbacks(ctx: &Ctx) -> Outcome {
    for kind in KINDS {
        let ctx = ctx.with_kind(kind);
        let (listener, address) = ctx.listener(8)?;
        let plain = Sock::new(Host::A, kind.plain(), 0)?;
        plain.connect(address)?;
        let server = listener.accept()?;
        check!(diag::of(&plain)?.is_none(), "a TCP socket is listed");
        let mut inodes = HashSet::new();
        for round in 0..2 {
            let entry = entry(&server)?;
            check_eq!(
                (entry.family, entry.state, entry.mode),
                (
                    kind.arguments().0 as u8,
                    diag::SMC_ACTIVE,
                    diag::SMC_DIAG_MODE_FALLBACK_TCP
                ),
                "a {} connection that fell back",
                kind.name()
            );
            check_eq!(
                (entry.local, entry.peer, entry.inode),
                (server.local()?, server.peer()?, server.inode()?),
                "addresses and inode"
            );
            check_eq!(
                (entry.fallback.reason, entry.fallback.peer_diagnosis),
                (0x0301_0000, 0),
                "reason"
            );
            check!(entry.conn.is_none() && entry.link.is_none(), "{entry:?}");
            inodes.insert(entry.inode);
            if round == 0 {
                plain.send_all(b"x")?;
                server.recv_all(&mut [0; 1])?;
            }
        }
        check_eq!(inodes.len(), 1, "inodes of one socket");
        let dup = server.dup()?;
        drop(server);
        entry(&dup).during("as long as one descriptor is open")?;
        drop(dup);
        check!(
            all(Host::B)?
                .iter()
                .all(|entry| !inodes.contains(&entry.inode)),
            "a closed connection is listed"
        );
    }
    Ok(())
}

/// A namespace shows its own sockets only.
fn namespaces(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    pair.client.send_all(b"x")?;
    pair.server.recv_all(&mut [0; 1])?;
    let cookie = entry(&pair.client)?.cookie;
    let listed = |entries: &[Entry]| {
        entries
            .iter()
            .filter(|entry| entry.cookie == cookie)
            .count()
    };
    check_eq!(listed(&all(Host::A)?), 1, "in its own namespace");
    check_eq!(listed(&all(Host::B)?), 0, "in the peer's namespace");
    sys::leave()?;
    check_eq!(diag::dump(0)?.len(), 0, "sockets of the first namespace");
    Ok(())
}

/// Raises the limit of open files.
fn many_files(count: u64) -> Outcome {
    let limit = libc::rlimit {
        rlim_cur: count,
        rlim_max: count,
    };
    // SAFETY: `limit` is live.
    sys::cvt(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(())
}

/// Each cookie once, or the one that comes twice.
fn distinct(entries: &[Entry]) -> Outcome<HashSet<u64>> {
    let mut seen = HashSet::new();
    for entry in entries {
        check!(seen.insert(entry.cookie), "a socket comes twice: {entry:?}");
    }
    Ok(seen)
}

/// Processor time of the calling thread in microseconds: for the report only.
fn thread_time() -> Outcome<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is live.
    sys::cvt(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) })?;
    Ok(time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000)
}

/// A dump of thousands of sockets, from which others go while it is read.
fn five_thousand(_: &Ctx) -> Outcome {
    const COUNT: usize = 5000;
    many_files(COUNT as u64 + 200)?;
    let before = all(Host::A)?.len();
    let mut socks = HashMap::new();
    let mut report = Vec::new();
    while socks.len() < COUNT {
        let sock = Sock::new(Host::A, KINDS[socks.len() % KINDS.len()], 0)?;
        socks.insert(sock.inode()?, sock);
        if [1250, 2500, COUNT].contains(&socks.len()) {
            let mut entries = Vec::new();
            let mut least = u64::MAX;
            for _ in 0..3 {
                let begin = thread_time()?;
                entries = diag::dump(0)?;
                least = least.min(thread_time()? - begin);
            }
            report.push(format!("{} in {least} us", socks.len()));
            check_eq!(entries.len(), socks.len() + before, "sockets in the dump");
            distinct(&entries)?;
            let inodes: HashSet<u64> = entries.iter().map(|entry| entry.inode).collect();
            check!(
                socks.keys().all(|inode| inodes.contains(inode)),
                "a socket is missing"
            );
        }
    }
    println!(
        "# diag.five_thousand: dumps (processor time): {}",
        report.join(", ")
    );

    // After the first part: half of what was listed goes, half of what is to come, and the one
    // that the dump stopped at; and new ones come.
    let mut dump = Dump::start(0)?;
    let mut seen = dump.part()?.ok_or_else(|| Fail("no first part".into()))?;
    check!(seen.len() < COUNT / 4, "{} sockets in one part", seen.len());
    let last = seen.last().map(|entry| entry.inode);
    let listed: HashSet<u64> = seen.iter().map(|entry| entry.inode).collect();
    let doomed: Vec<u64> = socks
        .keys()
        .copied()
        .enumerate()
        .filter(|&(number, inode)| number % 2 == 0 || Some(inode) == last)
        .map(|(_, inode)| inode)
        .collect();
    let gone: HashSet<u64> = doomed.iter().copied().collect();
    for inode in &doomed {
        socks.remove(inode);
    }
    let new: Vec<Sock> = (0..100)
        .map(|_| Sock::new(Host::A, Kind::Smc4, 0))
        .collect::<Result<_, _>>()?;
    let newest = new
        .iter()
        .map(Sock::inode)
        .collect::<Result<HashSet<u64>, _>>()?;
    seen.append(&mut dump.rest()?);
    distinct(&seen)?;
    let inodes: HashSet<u64> = seen.iter().map(|entry| entry.inode).collect();
    check!(
        socks.keys().all(|inode| inodes.contains(inode)),
        "a socket that was there all the time is missing"
    );
    // The kernel fills one part ahead; beyond that nothing that is gone may come.
    let late = seen
        .iter()
        .filter(|entry| gone.contains(&entry.inode) && !listed.contains(&entry.inode));
    check!(
        late.count() < COUNT / 4,
        "sockets are listed that were closed before"
    );
    check!(
        seen.iter().all(|entry| !newest.contains(&entry.inode)),
        "a dump lists sockets that were made after it had begun"
    );
    check!(dump.parts > 4, "{} parts only", dump.parts);
    drop(socks);
    drop(new);
    check_eq!(all(Host::A)?.len(), before, "sockets that are left");
    Ok(())
}

/// Dumps while threads open and close sockets of all sorts.
fn churn(ctx: &Ctx) -> Outcome {
    const THREADS: u64 = 4;
    const STEADY: usize = 300;
    let dumps = (200 / ctx.divisor).max(20);
    many_files(4096)?;
    let steady: Vec<Sock> = (0..STEADY)
        .map(|number| Sock::new(Host::B, KINDS[number % KINDS.len()], 0))
        .collect::<Result<_, _>>()?;
    let mut cookies = HashSet::new();
    for entry in all(Host::B)? {
        cookies.insert(entry.cookie);
    }
    check!(
        cookies.len() >= STEADY,
        "{} of {STEADY} sockets",
        cookies.len()
    );
    let over = Arc::new(AtomicBool::new(false));
    let made = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let mut random = ctx.random(900 + number);
            let (over, made) = (Arc::clone(&over), Arc::clone(&made));
            std::thread::spawn(move || -> Outcome {
                let mut open: Vec<Sock> = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    if open.len() > 60 || (!open.is_empty() && random.gen_bool(0.45)) {
                        open.swap_remove(random.gen_range(0..open.len()));
                    } else if random.gen_bool(0.2) {
                        // A connection over loopback, where both ends fall back.
                        let kind = KINDS[random.gen_range(0..KINDS.len())];
                        let mut address = Host::B.address(kind, 0);
                        address.set_ip(if kind.is_v6() {
                            std::net::Ipv6Addr::LOCALHOST.into()
                        } else {
                            std::net::Ipv4Addr::LOCALHOST.into()
                        });
                        let listener = Sock::new(Host::B, kind, 0)?;
                        listener.bind(address)?;
                        listener.listen(4)?;
                        let client = Sock::new(Host::B, kind, 0)?;
                        client.connect(listener.local()?)?;
                        open.push(listener.accept()?);
                        open.push(client);
                        made.fetch_add(3, Ordering::Relaxed);
                    } else {
                        let kind = KINDS[random.gen_range(0..KINDS.len())];
                        open.push(Sock::new(Host::B, kind, 0)?);
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(())
            })
        })
        .collect();
    let outcome = (|| {
        let mut round = 0;
        // Until there were enough dumps and enough to disturb them.
        while round < dumps || made.load(Ordering::Relaxed) < 10 * STEADY {
            let extensions = diag::WITH_CONNINFO | diag::WITH_LGRINFO;
            sys::enter(Host::B)?;
            let seen = distinct(&diag::dump(extensions)?)?;
            let lost = cookies.difference(&seen).count();
            check!(
                lost == 0,
                "{lost} sockets that were there all the time are missing in dump {round}"
            );
            round += 1;
        }
        println!(
            "# diag.churn: {round} dumps, {} sockets made meanwhile",
            made.load(Ordering::Relaxed)
        );
        Ok(())
    })();
    over.store(true, Ordering::Relaxed);
    for thread in threads {
        join(thread)?;
    }
    outcome?;
    drop(steady);
    sys::eventually("all sockets are gone", || {
        sys::enter(Host::B)?;
        Ok(diag::dump(0)?
            .iter()
            .all(|entry| !cookies.contains(&entry.cookie)))
    })?;
    Ok(())
}

/// Asking while the module comes and goes.
fn module(_: &Ctx) -> Outcome {
    const NAME: &str = "net-pf-16-proto-4-type-43";
    // Whatever happens, the tests that follow want the module.
    struct Reload;
    impl Drop for Reload {
        fn drop(&mut self) {
            if let Err(fail) = rig::module_load() {
                eprintln!("# {fail}");
            }
        }
    }
    let unload = || {
        sys::eventually("rmmod succeeds", || {
            Ok(rig::run(&format!("rmmod {}", rig::MODULE)).is_ok())
        })
    };
    let _reload = Reload;
    // A dump that was begun and not read to its end keeps the module.
    many_files(2000)?;
    let socks: Vec<Sock> = (0..1000)
        .map(|_| Sock::new(Host::A, Kind::Smc4, 0))
        .collect::<Result<_, _>>()?;
    let mut dump = Dump::start(0)?;
    dump.part()?;
    drop(socks);
    sys::eventually("only the dump uses the module", || {
        sys::enter(Host::A)?;
        Ok(rig::smc_sockets()? == 0 && rig::module_users().unwrap_or(0) == 1)
    })?;
    check!(
        rig::run(&format!("rmmod {}", rig::MODULE)).is_err(),
        "rmmod succeeded in the middle of a dump"
    );
    // What is left of it: the part that the kernel had filled ahead.
    check!(dump.rest()?.len() < 1000, "closed sockets are listed");
    unload()?;
    // The kernel asks for a handler's module only when the family is there already.
    sys::enter(Host::A)?;
    check_errno!(diag::dump(0), libc::ENOENT, "a dump without the module");
    check!(!rig::module_loaded(), "asking has loaded the module");
    rig::run(&format!("modprobe {NAME}"))?;
    check!(
        rig::module_loaded(),
        "modprobe {NAME} does not load the module"
    );
    let over = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || -> Outcome {
                sys::enter(Host::A)?;
                let mut answers = 0;
                while !over.load(Ordering::Relaxed) {
                    match diag::dump(0) {
                        Ok(entries) => {
                            check!(entries.is_empty(), "sockets of nobody: {entries:?}");
                            answers += 1;
                        }
                        Err(error) => check_errno!(
                            Err::<(), _>(error),
                            libc::ENOENT,
                            "a dump while the module goes"
                        ),
                    }
                }
                check!(answers > 0, "no dump succeeded");
                Ok(())
            })
        })
        .collect();
    let outcome = (0..5).try_for_each(|_| -> Outcome {
        unload()?;
        rig::module_load()?;
        Ok(())
    });
    over.store(true, Ordering::Relaxed);
    for thread in threads {
        join(thread)?;
    }
    outcome
}

/// The state of link groups in debugfs, which is there only if asked for.
fn state(ctx: &Ctx) -> Outcome {
    const DEBUGFS: &str = "/sys/kernel/debug";
    // Whatever happens, the tests that follow want the module as it was.
    struct Reload;
    impl Drop for Reload {
        fn drop(&mut self) {
            let again = sys::eventually("rmmod succeeds", || {
                Ok(rig::run(&format!("rmmod {}", rig::MODULE)).is_ok())
            });
            let loaded = rig::module_load();
            if let (Err(error), _) | (_, Err(error)) =
                (again.map_err(|error| Fail(error.to_string())), loaded)
            {
                eprintln!("# {error}");
            }
        }
    }
    let ctx = ctx.with_kind(Kind::Smc4);
    sys::leave()?;
    if !std::path::Path::new(&format!("{DEBUGFS}/tracing")).exists() {
        rig::run(&format!("mount -t debugfs nodev {DEBUGFS}"))?;
    }
    let file = format!("{DEBUGFS}/smc_rs/state");
    check!(
        !std::path::Path::new(&file).exists(),
        "{file} is there unasked"
    );
    sys::eventually("rmmod succeeds", || {
        Ok(rig::run(&format!("rmmod {}", rig::MODULE)).is_ok())
    })?;
    let _reload = Reload;
    rig::run(&format!("modprobe {} debugfs=1", rig::MODULE))?;
    check_eq!(sys::read_file(&file)?, "", "the state without a link group");
    let pair = ctx.pair()?;
    let state = sys::read_file(&file)?;
    let lines = |start: &str| {
        state
            .lines()
            .filter(|line| line.trim().starts_with(start))
            .count()
    };
    check_eq!(
        (lines("group "), lines("link "), lines("connection ")),
        (2, 2, 2),
        "groups, links and connections of both hosts: {state}"
    );
    for sock in [&pair.client, &pair.server] {
        let conn = entry(sock)?
            .conn
            .ok_or_else(|| Fail("no connection info".into()))?;
        let line = format!(
            "connection {:#010x} send buffer {} rmb {} ",
            conn.token, conn.sndbuf_size, conn.rmbe_size
        );
        check!(state.contains(&line), "no '{line}' in: {state}");
    }
    for host in Host::BOTH {
        let line = format!(" {}/1 gid ", host.rdma_device());
        check!(state.contains(&line), "no '{line}' in: {state}");
    }
    drop(pair);
    Ok(())
}
