//! SMC_PNETID: the table, and what it means for the choice of an RDMA port.

use super::link::{echo, fresh};
use super::once;
use crate::diag;
use crate::genl::{self, Attrs, Client};
use crate::kind::{Host, Kind};
use crate::link_groups::{self, lgr};
use crate::mode::{self, Mode};
use crate::rig;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, Sock};
use crate::{check, check_eq, check_errno, Context, Fail, Outcome};

pub const TESTS: [Test; 5] = [
    once("pnet.table", 60, table),
    once("pnet.resume", 60, resume),
    once("pnet.permissions", 60, permissions),
    once("pnet.choice", 120, choice),
    once("pnet.other_device", 120, other_device),
];

const FAMILY: &str = "SMC_PNETID";
const GET: u8 = 1;
const ADD: u8 = 2;
const DEL: u8 = 3;
const FLUSH: u8 = 4;
const NAME: u16 = 1;
const ETHNAME: u16 = 2;
const IBNAME: u16 = 3;
const IBPORT: u16 = 4;

const NOSMCRDEV: u32 = 0x0303_0002;

fn client(host: Host) -> Outcome<Client> {
    sys::enter(host)?;
    Client::new(FAMILY).during("find SMC_PNETID")
}

/// (NAME, ETHNAME, IBNAME, IBPORT).
type Entry = (String, String, String, u64);

fn entry(attrs: &Attrs) -> Outcome<Entry> {
    check_eq!(
        attrs.kinds(),
        [NAME, ETHNAME, IBNAME, IBPORT],
        "attributes of an entry"
    );
    Ok((
        attrs.text(NAME)?,
        attrs.text(ETHNAME)?,
        attrs.text(IBNAME)?,
        attrs.number(IBPORT)?,
    ))
}

fn eth(id: &str, name: &str) -> Entry {
    (id.into(), name.into(), "n/a".into(), 255)
}

fn ib(id: &str, name: &str, port: u64) -> Entry {
    (id.into(), "n/a".into(), name.into(), port)
}

fn list(host: Host) -> Outcome<Vec<Entry>> {
    let messages = client(host)?.dump(GET)?;
    messages.iter().map(|one| entry(&one.attrs)).collect()
}

fn add_eth(host: Host, id: &str, name: &str) -> Outcome {
    let request = [genl::text(NAME, id), genl::text(ETHNAME, name)].concat();
    client(host)?.execute(ADD, &request).during("add")?;
    Ok(())
}

pub(super) fn add_ib(host: Host, id: &str, name: &str, port: u8) -> Outcome {
    let request = [
        genl::text(NAME, id),
        genl::text(IBNAME, name),
        genl::attribute(IBPORT, &[port]),
    ]
    .concat();
    client(host)?.execute(ADD, &request).during("add")?;
    Ok(())
}

fn delete(host: Host, id: &str) -> Outcome {
    client(host)?
        .execute(DEL, &genl::text(NAME, id))
        .during("delete")?;
    Ok(())
}

/// Takes out all entries of both hosts.
pub(super) fn flush_both() -> Outcome {
    for host in Host::BOTH {
        client(host)?.execute(FLUSH, &[])?;
    }
    Ok(())
}

/// No entries now, nor when this is dropped.
struct Empty;

impl Empty {
    fn new() -> Outcome<Empty> {
        for host in Host::BOTH {
            client(host)?.execute(FLUSH, &[])?;
            check_eq!(list(host)?, [], "entries after a flush");
        }
        Ok(Empty)
    }
}

impl Drop for Empty {
    fn drop(&mut self) {
        for host in Host::BOTH {
            let flushed = client(host).and_then(|mut client| {
                client.execute(FLUSH, &[])?;
                Ok(())
            });
            if let Err(fail) = flushed {
                eprintln!("# cannot flush the PNETIDs of {}: {fail}", host.name());
            }
        }
    }
}

/// Adding, finding, removing, and what is refused.
fn table(_: &Ctx) -> Outcome {
    let _empty = Empty::new()?;
    let mut netlink = client(Host::A)?;
    let both = [
        genl::text(NAME, "net1  "),
        genl::text(ETHNAME, "eth7"),
        genl::text(IBNAME, "mlx5_0"),
    ]
    .concat();
    netlink.execute(ADD, &both)?;
    let first = [eth("NET1", "eth7"), ib("NET1", "mlx5_0", 1)];
    check_eq!(list(Host::A)?, first, "one request, two entries");
    check_eq!(list(Host::B)?, [], "entries of the other namespace");
    check_errno!(netlink.execute(ADD, &both), libc::EEXIST, "the same again");
    // One of both is new.
    add_ib(Host::A, "NET2", "mlx5_0", 2)?;
    let half = [
        genl::text(NAME, "NET2"),
        genl::text(ETHNAME, "eth7"),
        genl::text(IBNAME, "mlx5_1"),
    ]
    .concat();
    netlink.execute(ADD, &half)?;
    let all = [
        eth("NET1", "eth7"),
        ib("NET1", "mlx5_0", 1),
        ib("NET2", "mlx5_0", 2),
        ib("NET2", "mlx5_1", 1),
    ];
    check_eq!(list(Host::A)?, all, "entries, the first one first");
    // One name: all of its entries, in one answer.
    let found = netlink.execute(GET, &genl::text(NAME, "net2"))?;
    let found: Vec<Entry> = found
        .iter()
        .map(|one| entry(&one.attrs))
        .collect::<Outcome<_>>()?;
    check_eq!(found, all[2..], "entries of one name");
    // The acknowledgement comes behind the end of that answer.
    netlink.rest().ok();
    let mut netlink = client(Host::A)?;
    let named = |name: &str| genl::text(NAME, name);
    for (command, request, why) in [
        (ADD, genl::text(ETHNAME, "eth8"), "no name"),
        (ADD, named(""), "an empty name"),
        (ADD, named("A-B"), "a dash"),
        (ADD, named("0123456789ABCDEFG"), "17 characters"),
        (
            ADD,
            [named("A"), genl::text(ETHNAME, "")].concat(),
            "no name of a device",
        ),
        (
            ADD,
            [
                named("A"),
                genl::text(IBNAME, "x"),
                genl::attribute(IBPORT, &[0]),
            ]
            .concat(),
            "port 0",
        ),
        (
            ADD,
            [
                named("A"),
                genl::text(IBNAME, "x"),
                genl::attribute(IBPORT, &[3]),
            ]
            .concat(),
            "port 3",
        ),
        (GET, Vec::new(), "a search for nothing"),
        (DEL, Vec::new(), "removing nothing"),
    ] {
        let error = netlink.execute(command, &request).err();
        let error = error.and_then(|error| error.raw_os_error());
        check!(
            matches!(error, Some(libc::EINVAL | libc::ERANGE)),
            "{why}: {error:?}"
        );
    }
    check_errno!(
        netlink.execute(ADD, &named("A")),
        libc::EEXIST,
        "a network without a device"
    );
    check_eq!(list(Host::A)?, all, "entries after what was refused");
    check_errno!(
        netlink.execute(DEL, &named("NET3")),
        libc::ENOENT,
        "removing what is not there"
    );
    delete(Host::A, "net1")?;
    check_eq!(list(Host::A)?, all[2..], "entries that are left");
    netlink.execute(FLUSH, &[])?;
    check_eq!(list(Host::A)?, [], "entries after a flush");
    Ok(())
}

/// A dump of more entries than fit into a part, from which others go.
fn resume(_: &Ctx) -> Outcome {
    const COUNT: usize = 300;
    let _empty = Empty::new()?;
    let id = |number: usize| format!("NET{}", number % 2);
    let mut writer = client(Host::A)?;
    for number in 0..COUNT {
        let request = [
            genl::text(NAME, &id(number)),
            genl::text(ETHNAME, &format!("eth{number}")),
        ]
        .concat();
        writer.execute(ADD, &request)?;
    }
    let expected: Vec<Entry> = (0..COUNT)
        .map(|number| eth(&id(number), &format!("eth{number}")))
        .collect();
    let mut reader = client(Host::A)?;
    let all: Vec<Entry> = reader
        .dump(GET)?
        .iter()
        .map(|one| entry(&one.attrs))
        .collect::<Outcome<_>>()?;
    check_eq!(all, expected, "all entries");
    check!(reader.parts > 3, "all of it in {} parts", reader.parts);
    reader.begin_dump(GET, &[])?;
    let (mut seen, _) = reader.receive()?;
    delete(Host::A, "NET1")?;
    let more = client(Host::A)?;
    drop(more);
    seen.extend(reader.rest()?);
    let seen: Vec<Entry> = seen
        .iter()
        .map(|one| entry(&one.attrs))
        .collect::<Outcome<_>>()?;
    let numbers: Vec<usize> = seen
        .iter()
        .map(|(_, name, _, _)| name[3..].parse().during("number of a device"))
        .collect::<Outcome<_>>()?;
    check!(
        numbers.windows(2).all(|two| two[0] < two[1]),
        "out of order, or twice: {numbers:?}"
    );
    let kept = numbers.iter().filter(|&number| number % 2 == 0).count();
    check_eq!(kept, COUNT / 2, "entries that were there all the time");
    // The kernel fills one part ahead.
    let gone = numbers.len() - kept;
    check!(gone < COUNT / 3, "{gone} entries that are gone");
    Ok(())
}

fn permissions(_: &Ctx) -> Outcome {
    let mut child = sys::Child::fork(|| {
        let mut client = client(Host::A)?;
        // SAFETY: no pointers. A child of the test's own.
        sys::cvt(unsafe { libc::setuid(1234) })?;
        for command in [ADD, DEL, FLUSH] {
            check_errno!(
                client.execute(command, &[]),
                libc::EPERM,
                "command {command} by a user"
            );
        }
        client.dump(GET).during("a list for a user")?;
        Ok(())
    })?;
    child.join("a user")
}

/// By what a new connection goes.
fn carried(ctx: &Ctx, what: &str, expected: Option<&str>) -> Outcome<Pair> {
    let pair = ctx.pair().during(what)?;
    let mode = mode::of(&pair.client)?;
    match expected {
        None => {
            check!(mode != Mode::Rdma, "{what}: by RDMA");
            check_eq!(
                mode::fallback_reason(&pair.client)?,
                NOSMCRDEV,
                "reason: {what}"
            );
        }
        Some(device) => {
            check!(mode == Mode::Rdma, "{what}: {mode:?}");
            let link = diag::of(&pair.client)?.and_then(|entry| entry.link);
            let link = link.ok_or_else(|| Fail("no link".into()))?;
            check_eq!(link.ibname, device, "device: {what}");
        }
    }
    echo(&pair, b"pnet").during(what)?;
    Ok(pair)
}

/// What GET_DEV_SMCR says about the first port of a device: PNET_USR and PNETID.
fn port_of(host: Host, device: &str) -> Outcome<(u64, String)> {
    sys::enter(host)?;
    for message in Client::new(genl::SMC_GEN)?.dump(genl::GET_DEV_SMCR)? {
        let one = message.attrs.nest(6)?;
        if one.text(10)? == device {
            let port = one.nest(8)?;
            return Ok((port.number(1)?, port.text(2)?));
        }
    }
    Err(Fail(format!("no device {device}")))
}

/// PNETIDs of both kinds, in the client's namespace, for devices that are there, and come later.
fn choice(ctx: &Ctx) -> Outcome {
    let _empty = Empty::new()?;
    let ctx = ctx.with_kind(Kind::Smc4).unasked();
    let (vnet, device) = (Host::A.netdev(), Host::A.rdma_device());
    carried(&ctx, "without PNETIDs", Some(device))?;
    add_eth(Host::A, "NET1", vnet)?;
    carried(&ctx, "a network without an RDMA port", None)?;
    add_ib(Host::A, "NET2", device, 1)?;
    carried(&ctx, "an RDMA port of another network", None)?;
    check_eq!(
        port_of(Host::A, device)?,
        (1, "NET2".to_string()),
        "network of a port"
    );
    check_eq!(
        port_of(Host::B, device)?,
        (0, String::new()),
        "the same for the other namespace"
    );
    delete(Host::A, "NET2")?;
    add_ib(Host::A, "NET1", device, 2)?;
    carried(&ctx, "a port that is not there", None)?;
    add_ib(Host::A, "NET1", device, 1)?;
    let pair = carried(&ctx, "the same network", Some(device))?;
    sys::enter(Host::A)?;
    let names = link_groups::each(|group| group.text(lgr::PNETID))?;
    check!(
        !names.is_empty() && names.iter().all(|name| name == "NET1"),
        "networks of link groups: {names:?}"
    );
    drop(pair);
    // Devices that come later, under names that are known already.
    delete(Host::A, "NET1")?;
    add_eth(Host::A, "LATE", "late0")?;
    add_ib(Host::A, "LATE", "rxeLate", 1)?;
    carried(&ctx, "names of nobody", Some(device))?;
    rig::run(&format!("ip -n A link set {vnet} name late0"))?;
    let renamed = carried(&ctx, "a network device that has come", None);
    let bound = rig::run_on(Host::A, &format!("rdma dev set {device} name rxeLate"))
        .and_then(|_| carried(&ctx, "both have come", Some("rxeLate")).map(drop));
    rig::run_on(Host::A, &format!("rdma dev set rxeLate name {device}"))?;
    rig::run(&format!("ip -n A link set late0 name {vnet}"))?;
    renamed?;
    bound?;
    carried(&ctx, "as before", Some(device))?;
    // Those of the first namespace hold for RDMA ports of all.
    add_eth(Host::A, "NET9", vnet)?;
    carried(&ctx, "no port yet", None)?;
    sys::leave()?;
    let mut first = Client::new(FAMILY)?;
    let request = [genl::text(NAME, "NET9"), genl::text(IBNAME, device)].concat();
    first.execute(ADD, &request)?;
    let everywhere = carried(&ctx, "a port of the first namespace", Some(device));
    first.execute(FLUSH, &[])?;
    everywhere?;
    carried(&ctx, "which has none any more", None).map(drop)
}

/// Another RDMA device than that of the network device that the route leaves by.
fn other_device(ctx: &Ctx) -> Outcome {
    // A second pair in the same network: TCP takes the first one, as its routes are better.
    // Its neighbours are known, as whoever does not say the device (ping) would look for them on the first.
    const SETUP: [&str; 9] = [
        "ip link add v2A address 02:00:00:09:01:01 mtu 9000 netns A type veth peer name v2B address 02:00:00:09:01:02 mtu 9000 netns B",
        "ip -n A link set v2A up",
        "ip -n B link set v2B up",
        "ip -n A addr add 10.9.0.11/24 dev v2A noprefixroute",
        "ip -n B addr add 10.9.0.12/24 dev v2B noprefixroute",
        "ip -n A route add 10.9.0.0/24 dev v2A src 10.9.0.11 metric 500",
        "ip -n B route add 10.9.0.0/24 dev v2B src 10.9.0.12 metric 500",
        "ip -n A neigh add 10.9.0.12 lladdr 02:00:00:09:01:02 dev v2A nud permanent",
        "ip -n B neigh add 10.9.0.11 lladdr 02:00:00:09:01:01 dev v2B nud permanent",
    ];
    let _empty = Empty::new()?;
    let ctx = ctx.with_kind(Kind::Smc4).unasked();
    struct Down;
    impl Drop for Down {
        fn drop(&mut self) {
            if let Err(fail) = rig::run("ip -n A link del v2A") {
                eprintln!("# {fail}");
            }
        }
    }
    let _down = Down;
    for line in SETUP {
        rig::run(line)?;
    }
    for (host, device, netdev) in [(Host::A, "rxe2A", "v2A"), (Host::B, "rxe2B", "v2B")] {
        let kind = rig::SoftRoce::here().link_type();
        rig::run_on(
            host,
            &format!("rdma link add {device} type {kind} netdev {netdev}"),
        )?;
        add_eth(host, "NET2", host.netdev())?;
        add_ib(host, "NET2", device, 1)?;
    }
    let pair = carried(&ctx, "the other device", Some("rxe2A"))?;
    let link = diag::of(&pair.server)?.and_then(|entry| entry.link);
    check_eq!(
        link.map(|link| link.ibname),
        Some("rxe2B".to_string()),
        "device of the server"
    );
    // More than a ring: it goes on working.
    let bytes = vec![9; 300_000];
    let client: Sock = pair.client;
    let sender = std::thread::spawn(move || -> Outcome {
        client.send_all(&bytes)?;
        Ok(())
    });
    let mut got = vec![0; 300_000];
    pair.server.recv_all(&mut got)?;
    super::join(sender)?;
    check!(got.iter().all(|&byte| byte == 9), "wrong bytes");
    drop(pair.server);
    drop(_down);
    fresh(&ctx)
}
