//! SMC_GEN_NETLINK: what the kernel says about itself, link groups, links and devices, and the
//! enterprise IDs that an administrator manages.

use super::link::{fresh, prove_by_queue_pairs};
use super::once;
use super::settings::Changed;
use crate::diag;
use crate::genl::{self, Attrs, Client, Message};
use crate::kind::{Host, Kind};
use crate::mode::{self, Mode};
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, Sock};
use crate::{check, check_eq, check_errno, Context, Fail, Outcome};
use std::collections::{HashMap, HashSet};

pub const TESTS: [Test; 9] = [
    once("genl.host", 60, host),
    once("genl.groups", 60, groups),
    once("genl.resume", 300, resume),
    once("genl.permissions", 60, permissions),
    once("genl.ueids", 120, ueids),
    once("genl.limit", 60, limit),
    once("genl.stats", 60, stats),
    once("genl.stats_of_buffers", 60, stats_of_buffers),
    once("genl.fallbacks", 60, fallbacks),
];

/// Outermost attributes.
const SYS_INFO: u16 = 1;
const LGR_SMCR: u16 = 2;
const LINK_SMCR: u16 = 3;
const DEV_SMCR: u16 = 6;
const STATS: u16 = 7;
const FBACK_STATS: u16 = 8;
/// SMC_NLA_STATS_SRV_HS_ERR_CNT.
const SRV_HS_ERR: u16 = 4;

const DEFAULT_UEID: &str = "SMC-RS.DEFAULT";

fn client(host: Host) -> Outcome<Client> {
    sys::enter(host)?;
    Client::new(genl::SMC_GEN).during("find SMC_GEN_NETLINK")
}

/// Messages of a dump, each with one attribute: what is in that.
fn dump(host: Host, command: u8, outermost: u16) -> Outcome<Vec<Attrs>> {
    let messages = client(host)?.dump(command).during("dump")?;
    messages
        .iter()
        .map(|message| {
            check_eq!(message.command, command, "command of an answer");
            check_eq!(message.attrs.kinds(), [outermost], "outermost attributes");
            Ok(message.attrs.nest(outermost)?)
        })
        .collect()
}

/// Index of a host's network device in its namespace.
pub(super) fn ifindex(host: Host) -> Outcome<u32> {
    sys::enter(host)?;
    let name = std::ffi::CString::new(host.netdev()).during("name of a device")?;
    // SAFETY: `name` ends with a zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    check!(index != 0, "no network device {}", host.netdev());
    Ok(index)
}

/// The host itself, and SMC-D, which there is not.
fn host(_: &Ctx) -> Outcome {
    let info = dump(Host::A, genl::GET_SYS_INFO, SYS_INFO)?;
    check_eq!(info.len(), 1, "answers");
    let info = &info[0];
    check_eq!(info.kinds(), [1, 2, 3, 4, 6], "attributes");
    for (kind, value) in [(1, 2), (2, 1), (3, 0), (6, 1)] {
        check_eq!(info.get(kind)?, [value], "attribute {kind}");
    }
    let name = sys::read_file("/proc/sys/kernel/hostname")?;
    check_eq!(info.text(4)?, format!("{:<32}", name.trim()), "host name");
    for command in [genl::GET_LGR_SMCD, genl::GET_DEV_SMCD] {
        check_eq!(client(Host::A)?.dump(command)?.len(), 0, "SMC-D");
    }
    let seid = client(Host::A)?.dump(genl::DUMP_SEID)?;
    check_eq!(seid.len(), 1, "answers about the system EID");
    check_eq!(seid[0].attrs.kinds(), [0u16; 0], "its attributes");
    for host in Host::BOTH {
        // Both namespaces may use both devices; each has the network device of one of them.
        let devices = dump(host, genl::GET_DEV_SMCR, DEV_SMCR)?;
        let names: Vec<String> = devices
            .iter()
            .map(|device| device.text(10))
            .collect::<Result<_, _>>()?;
        let own = names.iter().position(|name| name == host.rdma_device());
        let own = own.ok_or_else(|| Fail(format!("no {} in {names:?}", host.rdma_device())))?;
        let port = devices[own].nest(8)?;
        check_eq!(port.kinds(), [1, 2, 3, 5, 4, 6], "attributes of a port");
        let ifindex = ifindex(host)?.into();
        check_eq!(
            (port.number(3)?, port.number(4)?, port.number(5)?),
            (ifindex, 1, 1),
            "network device, state and validity"
        );
        check_eq!(
            (port.number(1)?, port.text(2)?),
            (0, String::new()),
            "PNETID"
        );
    }
    Ok(())
}

/// One connection: what both hosts say about its group, link and device.
fn groups(ctx: &Ctx) -> Outcome {
    let pair = ctx.with_kind(Kind::Smc4).pair()?;
    check!(mode::of(&pair.client)? == Mode::Rdma, "no SMC-R connection");
    // More than the ring with which a send buffer begins.
    for (from, to) in [(&pair.client, &pair.server), (&pair.server, &pair.client)] {
        from.send_all(&[7; 10_000])?;
        to.recv_all(&mut [0; 10_000])?;
    }
    let mut cookies = HashSet::new();
    for (host, sock, role) in [(Host::A, &pair.client, 0), (Host::B, &pair.server, 1)] {
        let seen = diag::of(sock)?.and_then(|entry| Some((entry.link?, entry.conn?)));
        let (link, conn) = seen.ok_or_else(|| Fail("sock_diag knows no connection".into()))?;
        let all = dump(host, genl::GET_LGR_SMCR, LGR_SMCR)?;
        let used: Vec<&Attrs> = all
            .iter()
            .filter(|group| group.number(6).is_ok_and(|conns| conns > 0))
            .collect();
        check_eq!(used.len(), 1, "groups with connections in one namespace");
        let group = used[0];
        check_eq!(
            (group.number(2)?, group.number(3)?, group.number(6)?),
            (role, 1, 1),
            "role, type and connections"
        );
        check_eq!(
            (group.text(4)?, group.number(5)?, group.number(11)?),
            (String::new(), 0, 0),
            "PNETID, VLAN and kind of buffers"
        );
        for other in &all {
            cookies.insert((host.name(), other.number(9)?));
            check_eq!(other.number(2)?, role, "role of a group of this namespace");
        }
        check!(
            group.number(12)? >= conn.sndbuf_size.into()
                && group.number(13)? >= conn.rmbe_size.into(),
            "bytes of buffers: {group:?}"
        );
        check!(
            group.number(12)? % 4096 == 0 && group.number(13)? % 16384 == 0,
            "bytes of buffers: {group:?}"
        );
        // SMC-Rv2, as both hosts have RoCEv2 (or v1 only: see v1.rs).
        if let Ok(common) = group.nest(7) {
            check_eq!(common.kinds(), [0, 1, 2, 4, 3], "common to versions 2");
            check_eq!(
                (common.number(0)?, common.number(1)?, common.number(2)?),
                (2, 1, 2),
                "version, release and operating system"
            );
            let name = sys::read_file("/proc/sys/kernel/hostname")?;
            check_eq!(
                (common.text(3)?, common.text(4)?),
                (
                    format!("{DEFAULT_UEID:<32}"),
                    format!("{:<32}", name.trim())
                ),
                "enterprise ID and peer's name"
            );
            let v2 = group.nest(8)?;
            check_eq!(
                (v2.number(1)?, v2.number(2)?, v2.number(3)?),
                (1, 255, 2),
                "direct, most connections and links"
            );
        }
        // The same group, and its link.
        let messages = client(host)?.dump(genl::GET_LINK_SMCR)?;
        let commands: Vec<u8> = messages.iter().map(|message| message.command).collect();
        check_eq!(
            commands,
            [genl::GET_LGR_SMCR, genl::GET_LINK_SMCR].repeat(all.len()),
            "groups, each with its link"
        );
        let mine = messages.iter().position(|message| {
            let group_of = message.attrs.nest(LGR_SMCR);
            group_of.is_ok_and(|other| other.number(1).ok() == group.number(1).ok())
        });
        let mine = mine.ok_or_else(|| Fail("the group is not among those with links".into()))?;
        let said = messages[mine + 1].attrs.nest(LINK_SMCR)?;
        check_eq!(
            (said.number(1)?, said.text(2)?, said.number(3)?),
            (link.link_id.into(), link.ibname, link.ibport.into()),
            "number, device and port"
        );
        check_eq!(
            (said.text(4)?, said.text(5)?),
            (link.gid, link.peer_gid),
            "GIDs"
        );
        let ifindex = ifindex(host)?.into();
        check_eq!(
            (said.number(6)?, said.number(7)?, said.number(10)?),
            (1, ifindex, 3),
            "connections, network device and state"
        );
        check!(
            said.number(8)? != 0 && said.number(9)? != 0,
            "names of a link: {said:?}"
        );
        let devices = dump(host, genl::GET_DEV_SMCR, DEV_SMCR)?;
        for device in devices {
            let links = if device.text(10)? == host.rdma_device() {
                all.len() as u64
            } else {
                0
            };
            check_eq!(
                (device.number(1)?, device.nest(8)?.number(6)?),
                (links, links),
                "links on a device"
            );
            check_eq!(device.number(2)?, u64::from(links > 0), "critical");
        }
    }
    check_eq!(cookies.len(), 2, "namespaces of groups");
    sys::leave()?;
    let mut elsewhere = Client::new(genl::SMC_GEN)?;
    check_eq!(
        elsewhere.dump(genl::GET_LINK_SMCR)?.len(),
        0,
        "groups of a namespace without SMC"
    );
    Ok(())
}

/// More groups than fit into one part of a dump.
fn resume(ctx: &Ctx) -> Outcome {
    const GROUPS: usize = 10;
    let _few = Changed::new(&Host::BOTH, "smcr_max_conns_per_lgr", 16)?;
    let ctx = ctx.with_kind(Kind::Smc4);
    // The groups that are there take more.
    fresh(&ctx)?;
    let (listener, address) = ctx.listener(64)?;
    let mut pairs: Vec<Pair> = Vec::new();
    let ids = |messages: &[Message]| -> Outcome<Vec<(u8, u64)>> {
        let mut ids = Vec::new();
        for message in messages {
            let id = match message.command {
                genl::GET_LGR_SMCR => message.attrs.nest(LGR_SMCR)?.number(1)?,
                // The number of the group, and that of the link in it; as on the wire.
                _ => {
                    let uid = message.attrs.nest(LINK_SMCR)?.number(8)?;
                    u64::from((uid as u32).swap_bytes() & !0xff)
                }
            };
            ids.push((message.command, id));
        }
        Ok(ids)
    };
    while pairs.len() <= 16 * (GROUPS - 1) {
        pairs.push(ctx.pair_from(&listener, address)?);
    }
    let mut netlink = client(Host::A)?;
    let all = ids(&netlink.dump(genl::GET_LINK_SMCR)?)?;
    check!(all.len() >= 2 * GROUPS, "only {} messages", all.len());
    check!(netlink.parts > 2, "all fits into {} parts", netlink.parts);
    for (two, next) in all.chunks(2).zip(all.chunks(2).skip(1)) {
        check!(two[0].1 < next[0].1, "groups out of order: {all:?}");
    }
    for two in all.chunks(2) {
        check_eq!(
            two,
            [
                (genl::GET_LGR_SMCR, two[0].1),
                (genl::GET_LINK_SMCR, two[0].1)
            ],
            "a group and its link"
        );
    }
    let short = ids(&netlink.dump(genl::GET_LGR_SMCR)?)?;
    let expected: Vec<(u8, u64)> = all.iter().copied().step_by(2).collect();
    check_eq!(short, expected, "groups without their links");
    prove_by_queue_pairs(&ctx)?;
    drop(pairs);
    // Not to be left to rmmod, one after the other.
    fresh(&ctx)
}

/// Everybody may look; only an administrator of the machine may change anything.
fn permissions(_: &Ctx) -> Outcome {
    const CHANGES: [u8; 7] = [
        genl::ADD_UEID,
        genl::REMOVE_UEID,
        genl::FLUSH_UEID,
        genl::ENABLE_SEID,
        genl::DISABLE_SEID,
        genl::ENABLE_HS_LIMITATION,
        genl::DISABLE_HS_LIMITATION,
    ];
    let mut child = sys::Child::fork(|| {
        let mut client = client(Host::A)?;
        // SAFETY: no pointers. A child of the test's own.
        sys::cvt(unsafe { libc::setuid(1234) })?;
        // The rights of a netlink socket are those of who sends and of who has made it.
        sys::enter(Host::A).ok();
        let mut mine = Client::new(genl::SMC_GEN)?;
        for client in [&mut client, &mut mine] {
            for command in CHANGES {
                check_errno!(
                    client.execute(command, &[]),
                    libc::EPERM,
                    "command {command} by a user"
                );
            }
            for command in [
                genl::GET_SYS_INFO,
                genl::GET_LINK_SMCR,
                genl::GET_DEV_SMCR,
                genl::DUMP_UEID,
                genl::DUMP_HS_LIMITATION,
            ] {
                client
                    .dump(command)
                    .during(&format!("dump {command} by a user"))?;
            }
        }
        Ok(())
    })?;
    child.join("a user")?;
    let mut client = client(Host::A)?;
    for command in [genl::ENABLE_SEID, genl::DISABLE_SEID] {
        check_errno!(
            client.execute(command, &[]),
            libc::EOPNOTSUPP,
            "a system EID"
        );
    }
    // What is a dump only is no command, and the other way round.
    for command in [genl::GET_SYS_INFO, genl::DUMP_UEID, 200] {
        check_errno!(
            client.execute(command, &[]),
            libc::EOPNOTSUPP,
            "command {command}"
        );
    }
    for command in [genl::ADD_UEID, genl::FLUSH_UEID, 0] {
        check_errno!(client.dump(command), libc::EOPNOTSUPP, "dump {command}");
    }
    Ok(())
}

/// The IDs of a host; those it had before when this is dropped.
pub(super) struct Ids(Vec<(Host, Vec<String>)>);

impl Ids {
    /// Those of one host.
    pub(super) fn of(host: Host) -> Outcome<Ids> {
        Ok(Ids(vec![(host, list(host)?)]))
    }
}

fn list(host: Host) -> Outcome<Vec<String>> {
    let messages = client(host)?.dump(genl::DUMP_UEID)?;
    let ids = messages.iter().map(|message| {
        check_eq!(message.attrs.kinds(), [1], "attributes of an ID");
        let text = message.attrs.text(1)?;
        check_eq!(text.len(), 32, "length of an ID");
        Ok(text.trim_end().to_string())
    });
    ids.collect()
}

fn padded(id: &str) -> Vec<u8> {
    genl::text(1, &format!("{id:<32}"))
}

impl Drop for Ids {
    fn drop(&mut self) {
        for (host, ids) in &self.0 {
            let restore = || -> Outcome {
                let mut client = client(*host)?;
                client.execute(genl::FLUSH_UEID, &[])?;
                for id in ids {
                    client.execute(genl::ADD_UEID, &padded(id))?;
                }
                Ok(())
            };
            if let Err(fail) = restore() {
                eprintln!("# cannot put the IDs of {} back: {fail}", host.name());
            }
        }
    }
}

/// The IDs of a namespace, and what they mean for its next connections.
fn ueids(ctx: &Ctx) -> Outcome {
    let ctx = ctx.unasked().with_kind(Kind::Smc4);
    let before = [Host::A, Host::B].map(|host| Ok::<_, Fail>((host, list(host)?)));
    let mut ids = Ids(Vec::new());
    for of_host in before {
        ids.0.push(of_host?);
    }
    check_eq!(ids.0[0].1, [DEFAULT_UEID], "IDs that nobody has set");
    let carried = |what: &str, rdma: bool| -> Outcome<Sock> {
        let pair = ctx.pair()?;
        check!(
            [&pair.client, &pair.server]
                .into_iter()
                .all(|sock| mode::of(sock).is_ok_and(|mode| (mode == Mode::Rdma) == rdma)),
            "{what}: {:?} and {:?}",
            mode::of(&pair.client)?,
            mode::of(&pair.server)?
        );
        Ok(pair.client)
    };
    let mut a = client(Host::A)?;
    let mut b = client(Host::B)?;
    for (wrong, why) in [
        (genl::attribute(1, b"SHORT\0"), "a short ID"),
        (padded("lower"), "small letters"),
        (padded(".A"), "a dot first"),
        (padded(""), "no ID"),
        (padded("A B"), "a blank inside"),
        (Vec::new(), "no attribute"),
        (
            genl::attribute(1, format!("{:<32}", "NOZERO").as_bytes()),
            "no zero",
        ),
    ] {
        check_errno!(a.execute(genl::ADD_UEID, &wrong), libc::EINVAL, "add {why}");
    }
    check!(
        a.execute(genl::ADD_UEID, &genl::text(1, &"A".repeat(33)))
            .is_err(),
        "a long ID was taken"
    );
    check_errno!(
        a.execute(genl::REMOVE_UEID, &padded("NOT.THERE")),
        libc::ENOENT,
        "remove an unknown ID"
    );
    carried("by default", true)?;
    // The first one takes the place of the default: nothing in common with the other host.
    a.execute(genl::ADD_UEID, &padded("FIRST"))?;
    check_eq!(list(Host::A)?, ["FIRST"], "IDs");
    check_eq!(list(Host::B)?, [DEFAULT_UEID], "IDs of the other namespace");
    let client = carried("without a common ID", false)?;
    let fallback = mode::fallback(&client)?;
    check_eq!(fallback.reason, 0x0500_0000, "reason of the client");
    check_eq!(fallback.peer_diagnosis, 0x0303_0008, "the server's reason");
    b.execute(genl::ADD_UEID, &padded("SECOND"))?;
    b.execute(genl::ADD_UEID, &padded("FIRST"))?;
    carried("with a common ID", true)?;
    for id in ["C", "D", "E"] {
        a.execute(genl::ADD_UEID, &padded(id))?;
    }
    check_errno!(
        a.execute(genl::ADD_UEID, &padded("F")),
        libc::ERANGE,
        "a fifth ID"
    );
    check_errno!(
        b.execute(genl::ADD_UEID, &padded("FIRST")),
        libc::EEXIST,
        "the same ID again"
    );
    a.execute(genl::REMOVE_UEID, &padded("FIRST"))?;
    check_eq!(list(Host::A)?, ["C", "D", "E"], "IDs without the first");
    carried("after it was removed", false)?;
    a.execute(genl::FLUSH_UEID, &[])?;
    check_eq!(list(Host::A)?, [""; 0], "IDs after a flush");
    let client = carried("without any ID", false)?;
    check_eq!(
        mode::fallback(&client)?.reason,
        0x0303_0002,
        "reason of a client without an ID"
    );
    Ok(())
}

/// The limit of handshakes is the setting of the namespace.
fn limit(_: &Ctx) -> Outcome {
    let _back = Changed::new(&[Host::A], "limit_smc_hs", 0)?;
    let said = || -> Outcome<u64> {
        let messages = client(Host::A)?.dump(genl::DUMP_HS_LIMITATION)?;
        check_eq!(messages.len(), 1, "answers");
        check_eq!(messages[0].attrs.kinds(), [1], "attributes");
        Ok(messages[0].attrs.number(1)?)
    };
    check_eq!(said()?, 0, "off");
    for (command, value) in [
        (genl::ENABLE_HS_LIMITATION, 1),
        (genl::DISABLE_HS_LIMITATION, 0),
    ] {
        client(Host::A)?.execute(command, &[])?;
        check_eq!(said()?, value, "the limit");
        check_eq!(
            super::settings::get(Host::A, "limit_smc_hs")?,
            value as i64,
            "net.smc.limit_smc_hs"
        );
        check_eq!(
            super::settings::get(Host::B, "limit_smc_hs")?,
            0,
            "that of the other namespace"
        );
    }
    Ok(())
}

/// SMC_NLA_STATS_SMCR_TECH.
mod tech {
    pub const TX_RMB_SIZE: u16 = 1;
    pub const RX_RMB_SIZE: u16 = 2;
    pub const TXPLOAD_SIZE: u16 = 3;
    pub const RXPLOAD_SIZE: u16 = 4;
    pub const TX_RMB_STATS: u16 = 5;
    pub const RX_RMB_STATS: u16 = 6;
    pub const SPLICE: u16 = 12;
    pub const CORK: u16 = 13;
    pub const NDLY: u16 = 14;
    pub const URG: u16 = 15;
    pub const RX_BYTES: u16 = 16;
    pub const TX_BYTES: u16 = 17;
    pub const RX_CNT: u16 = 18;
    pub const TX_CNT: u16 = 19;
    pub const RX_RMB_USAGE: u16 = 20;
    pub const TX_RMB_USAGE: u16 = 21;
}

/// SMC_NLA_STATS_RMB_*.
const SIZE_SM_PEER: u16 = 1;
const SIZE_SM: u16 = 2;
const FULL_PEER: u16 = 3;
const FULL: u16 = 4;
const REUSE: u16 = 5;
const ALLOC: u16 = 6;

/// The counters of a host.
struct Counters(Attrs);

impl Counters {
    fn of(host: Host) -> Outcome<Counters> {
        let all = dump(host, genl::GET_STATS, STATS)?;
        check_eq!(all.len(), 1, "answers");
        check_eq!(all[0].kinds(), [1, 2, 3, 4], "parts of the statistics");
        let every: Vec<u16> = (1..=21).collect();
        for technology in [1, 2] {
            check_eq!(all[0].nest(technology)?.kinds(), every, "counters");
        }
        let smcd = all[0].nest(1)?;
        check_eq!(smcd.number(tech::TX_CNT)?, 0, "calls by SMC-D");
        Ok(Counters(all[0].nest(2)?))
    }

    fn get(&self, kind: u16) -> Outcome<u64> {
        Ok(self.0.number(kind)?)
    }

    fn within(&self, kind: u16, place: u16) -> Outcome<u64> {
        Ok(self.0.nest(kind)?.number(place)?)
    }

    /// Nine counters.
    fn sizes(&self, kind: u16) -> Outcome<[u64; 9]> {
        let nest = self.0.nest(kind)?;
        let mut sizes = [0; 9];
        for (size, number) in sizes.iter_mut().zip(1..) {
            *size = nest.number(number)?;
        }
        Ok(sizes)
    }

    /// What has come to a counter since.
    fn since(&self, before: &Counters, kind: u16) -> Outcome<u64> {
        Ok(self.get(kind)?.wrapping_sub(before.get(kind)?))
    }

    fn sizes_since(&self, before: &Counters, kind: u16) -> Outcome<[u64; 9]> {
        let mut sizes = self.sizes(kind)?;
        for (size, old) in sizes.iter_mut().zip(before.sizes(kind)?) {
            *size -= old;
        }
        Ok(sizes)
    }

    fn within_since(&self, before: &Counters, kind: u16, place: u16) -> Outcome<u64> {
        Ok(self.within(kind, place)? - before.within(kind, place)?)
    }
}

/// System calls, counted one by one.
fn stats(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    let (a, b) = (Counters::of(Host::A)?, Counters::of(Host::B)?);
    let Pair { client, server } = ctx.pair()?;
    let made = |now: &Counters, before: &Counters, kinds: [u16; 2]| -> Outcome<u64> {
        Ok(now.since(before, kinds[0])? + now.since(before, kinds[1])?)
    };
    let (a1, b1) = (Counters::of(Host::A)?, Counters::of(Host::B)?);
    for (now, before, client, server) in [(&a1, &a, 1, 0), (&b1, &b, 0, 1)] {
        check_eq!(
            made(now, before, [7, 8])?,
            client,
            "connections as a client"
        );
        check_eq!(made(now, before, [9, 10])?, server, "as a server");
    }
    // Three calls to send, of three sizes, and one that fails.
    for size in [1, 8192, 8193] {
        client.send_all(&vec![5; size])?;
    }
    let total = 1 + 8192 + 8193;
    let mut got = vec![0; total];
    sys::eventually("all of it is there", || {
        Ok(server.readable_bytes()? == total)
    })?;
    check_eq!(server.recv(&mut got[..1], 0)?, 1, "recv()");
    check_eq!(server.recv(&mut got, 0)?, total - 1, "recv()");
    check_errno!(
        server.recv(&mut got, libc::MSG_DONTWAIT),
        libc::EAGAIN,
        "recv() of nothing"
    );
    let (a2, b2) = (Counters::of(Host::A)?, Counters::of(Host::B)?);
    check_eq!(
        (
            a2.since(&a1, tech::TX_CNT)?,
            a2.since(&a1, tech::TX_BYTES)?,
            a2.sizes_since(&a1, tech::TXPLOAD_SIZE)?
        ),
        (3, total as u64, [2, 1, 0, 0, 0, 0, 0, 0, 0]),
        "calls, bytes and sizes sent"
    );
    check_eq!(
        (
            b2.since(&b1, tech::RX_CNT)?,
            b2.since(&b1, tech::RX_BYTES)?,
            b2.sizes_since(&b1, tech::RXPLOAD_SIZE)?
        ),
        (3, total as u64, [1, 0, 1, 0, 0, 0, 0, 0, 0]),
        "calls, bytes and sizes received"
    );
    check_eq!(
        (b2.since(&b1, tech::TX_CNT)?, a2.since(&a1, tech::RX_CNT)?),
        (0, 0),
        "calls of the other direction"
    );
    // Options, urgent data and splice.
    for (option, value) in [
        (libc::TCP_NODELAY, 1),
        (libc::TCP_NODELAY, 0),
        (libc::TCP_CORK, 1),
        (libc::TCP_CORK, 0),
    ] {
        client.set(libc::IPPROTO_TCP, option, value)?;
    }
    client.send(b"u", libc::MSG_OOB)?;
    sys::eventually("the urgent byte is there", || {
        Ok(server
            .recv(&mut [0; 1], libc::MSG_OOB | libc::MSG_PEEK)
            .is_ok())
    })?;
    let looks = Counters::of(Host::B)?.since(&b2, tech::URG)?;
    check!(looks >= 1, "{looks} looks at the urgent byte");
    server.recv(&mut [0; 1], libc::MSG_OOB)?;
    client.send_all(b"splice")?;
    server.await_events(libc::POLLIN)?;
    let (_out, into) = sys::pipe()?;
    // SAFETY: no offsets; both descriptors are open.
    let moved = unsafe {
        libc::splice(
            std::os::fd::AsRawFd::as_raw_fd(&server),
            std::ptr::null_mut(),
            std::os::fd::AsRawFd::as_raw_fd(&into),
            std::ptr::null_mut(),
            6,
            0,
        )
    };
    check_eq!(sys::cvt_size(moved)?, 6, "splice()");
    let (a3, b3) = (Counters::of(Host::A)?, Counters::of(Host::B)?);
    check_eq!(
        (
            a3.since(&a2, tech::NDLY)?,
            a3.since(&a2, tech::CORK)?,
            a3.since(&a2, tech::URG)?,
            a3.since(&a2, tech::SPLICE)?
        ),
        (1, 1, 1, 0),
        "options and urgent data of the client"
    );
    check_eq!(
        (b3.since(&b2, tech::URG)?, b3.since(&b2, tech::SPLICE)?),
        (looks + 1, 1),
        "urgent data and splices of the server"
    );
    // One look has found the byte.
    check_eq!(b3.since(&b2, tech::RX_BYTES)?, 1 + 1 + 6, "bytes");
    sys::leave()?;
    let nobody = Client::new(genl::SMC_GEN)?.dump(genl::GET_STATS)?;
    let nobody = Counters(nobody[0].attrs.nest(STATS)?.nest(2)?);
    check_eq!(
        (nobody.get(tech::TX_CNT)?, nobody.get(tech::RX_BYTES)?),
        (0, 0),
        "counters of a namespace without connections"
    );
    Ok(())
}

/// Buffers: who gets which, when they are full, and what is left of it.
fn stats_of_buffers(ctx: &Ctx) -> Outcome {
    let ctx = ctx.with_kind(Kind::Smc4);
    let _small = Changed::new(&Host::BOTH, "wmem", 16384)?;
    let _rmem = Changed::new(&Host::BOTH, "rmem", 16384)?;
    // What others have left behind drains first.
    sys::eventually("nobody has a buffer", || {
        for host in Host::BOTH {
            let now = Counters::of(host)?;
            for usage in [tech::TX_RMB_USAGE, tech::RX_RMB_USAGE] {
                if now.0.number(usage)? != 0 {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    })?;
    let (a, b) = (Counters::of(Host::A)?, Counters::of(Host::B)?);
    let Pair { client, server } = ctx.pair()?;
    let (a1, b1) = (Counters::of(Host::A)?, Counters::of(Host::B)?);
    for (now, before) in [(&a1, &a), (&b1, &b)] {
        // A send buffer begins small.
        for (usage, size, stats, bytes, sizes) in [
            (
                tech::TX_RMB_USAGE,
                tech::TX_RMB_SIZE,
                tech::TX_RMB_STATS,
                4096,
                [1, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
            (
                tech::RX_RMB_USAGE,
                tech::RX_RMB_SIZE,
                tech::RX_RMB_STATS,
                16384,
                [0, 1, 0, 0, 0, 0, 0, 0, 0],
            ),
        ] {
            check_eq!(now.get(usage)?, bytes, "bytes in use");
            check_eq!(now.sizes_since(before, size)?, sizes, "buffers by size");
            check_eq!(
                now.within_since(before, stats, REUSE)? + now.within_since(before, stats, ALLOC)?,
                1,
                "buffers, new or used"
            );
        }
    }
    // More than there is room for anywhere: 16 KiB of the peer's, then 16 KiB of ours.
    client.set_nonblocking(true)?;
    let mut sent = 0;
    sys::eventually("both buffers are full", || {
        match client.send(&[3; 40_000], 0) {
            Ok(n) => sent += n,
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(error) => return Err(error),
        }
        Ok(sent == 32768)
    })?;
    check_errno!(client.send(&[3; 1], 0), libc::EAGAIN, "send() without room");
    let a2 = Counters::of(Host::A)?;
    check_eq!(
        a2.sizes_since(&a1, tech::TX_RMB_SIZE)?,
        [0, 1, 0, 0, 0, 0, 0, 0, 0],
        "buffers by size, with data"
    );
    for place in [SIZE_SM_PEER, SIZE_SM, FULL_PEER, FULL] {
        check!(
            a2.within_since(&a1, tech::TX_RMB_STATS, place)? > 0,
            "counter {place} of a sender without room"
        );
    }
    let mut got = vec![0; 40_000];
    server.recv(&mut got, 0)?;
    let b2 = Counters::of(Host::B)?;
    for place in [SIZE_SM, FULL] {
        check!(
            b2.within_since(&b1, tech::RX_RMB_STATS, place)? > 0,
            "counter {place} of a reader whose buffer was full"
        );
    }
    drop(client);
    drop(server);
    sys::eventually("the buffers are given back", || {
        for host in Host::BOTH {
            let now = Counters::of(host)?;
            if now.0.number(tech::TX_RMB_USAGE)? + now.0.number(tech::RX_RMB_USAGE)? != 0 {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    let a3 = Counters::of(Host::A)?;
    let _again = ctx.pair()?;
    let a4 = Counters::of(Host::A)?;
    check_eq!(
        a4.within_since(&a3, tech::TX_RMB_STATS, REUSE)?,
        1,
        "a buffer that was used before"
    );
    Ok(())
}

/// Fallbacks of a host: for each (server, reason) how many, and the totals.
type Fallbacks = (HashMap<(bool, u64), u64>, u64, u64);

fn fallbacks_of(host: Host) -> Outcome<Fallbacks> {
    let mut all = HashMap::new();
    let (mut server, mut client) = (0, 0);
    for (number, message) in dump(host, genl::GET_FBACK_STATS, FBACK_STATS)?
        .iter()
        .enumerate()
    {
        let expected: &[u16] = if number == 0 {
            &[1, 2, 3, 4, 5]
        } else {
            &[1, 4, 5]
        };
        check_eq!(message.kinds(), expected, "attributes of message {number}");
        if number == 0 {
            (server, client) = (message.number(2)?, message.number(3)?);
        }
        let key = (message.number(1)? == 1, message.number(4)?);
        check!(
            all.insert(key, message.number(5)?).is_none(),
            "{key:?} comes twice"
        );
    }
    Ok((all, server, client))
}

/// Handshakes of a host's servers that have not led to SMC-R: fallbacks and failures.
pub(super) fn handshakes_in_vain(host: Host) -> Outcome<u64> {
    let (_, server, _) = fallbacks_of(host)?;
    let all = dump(host, genl::GET_STATS, STATS)?;
    let answer = all.first().ok_or(Fail("no statistics".into()))?;
    Ok(server + answer.number(SRV_HS_ERR)?)
}

/// Does something that makes one connection fall back on a host: it is counted there, on its side, once.
pub(super) fn counted<T>(
    (host, server, reason): (Host, bool, u32),
    act: impl FnOnce() -> Outcome<T>,
) -> Outcome<T> {
    let (before, ..) = fallbacks_of(host)?;
    let result = act()?;
    let (mut more, ..) = fallbacks_of(host)?;
    more.retain(|key, count| {
        *count -= before.get(key).copied().unwrap_or(0);
        *count > 0
    });
    check!(
        more.get(&(server, reason.into())) == Some(&1),
        "host {} was to count one fallback for {reason:#x}, as a {}, and counts by (as a server, reason): {more:#x?}",
        host.name(),
        if server { "server" } else { "client" }
    );
    Ok(result)
}

/// Fallbacks are counted by side and reason.
fn fallbacks(ctx: &Ctx) -> Outcome {
    const PEERNOSMC: u64 = 0x0301_0000;
    const OPTUNSUPP: u64 = 0x0306_0000;
    let ctx = ctx.unasked().with_kind(Kind::Smc4);
    let before = [fallbacks_of(Host::A)?, fallbacks_of(Host::B)?];
    let (listener, address) = ctx.listener(4)?;
    // Two plain clients, a plain server, and data in a SYN.
    for _ in 0..2 {
        let plain = Sock::new(Host::A, Kind::Tcp4, 0)?;
        plain.connect(address)?;
        listener.accept()?;
    }
    let (_plain, address) = ctx.plain_listener()?;
    ctx.connect(address)?;
    let fast = ctx.socket(Host::A)?;
    fast.set(libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)?;
    fast.connect(address)?;
    let now = [fallbacks_of(Host::A)?, fallbacks_of(Host::B)?];
    let more = |host: usize, server: bool, reason: u64| {
        let count = |all: &Fallbacks| all.0.get(&(server, reason)).copied().unwrap_or(0);
        count(&now[host]) - count(&before[host])
    };
    check_eq!(more(0, false, PEERNOSMC), 1, "a client without a server");
    check_eq!(more(0, false, OPTUNSUPP), 1, "a client that is quick");
    check_eq!(more(1, true, PEERNOSMC), 2, "clients without SMC");
    check_eq!(
        (now[0].1 - before[0].1, now[0].2 - before[0].2),
        (0, 2),
        "all of host A, as server and client"
    );
    check_eq!(
        (now[1].1 - before[1].1, now[1].2 - before[1].2),
        (2, 0),
        "all of host B"
    );
    Ok(())
}
