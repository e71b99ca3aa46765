//! Does what the plan says, and undoes it.

use super::plan::{Act, Class, Lost, Step};
use super::process::Process;
use crate::diag;
use crate::fault::{Fault, Verb, ALLOCATORS, VERBS};
use crate::genl::{self, Client};
use crate::kind::{Host, Kind};
use crate::mode::{self, Mode};
use crate::rig;
use crate::runner::Ctx;
use crate::sys;
use crate::tests::hostile_peer;
use crate::tests::link::{namespaces_come_and_go, port_up};
use crate::tests::netem::Netem;
use crate::tests::network::{without_address, Rules};
use crate::tests::pnet;
use crate::tests::settings::Changed;
use crate::tests::two_links::{
    add_second, await_all_symmetric, second_device, second_netdev, second_netdev_comes,
    second_netdev_goes, second_port_up,
};
use crate::{check, Context, Fail, Outcome};
use std::time::{Duration, Instant};

/// Link groups of each host that the streams of a gentle phase have made.
pub const GROUPS: usize = 2;
/// Connections that a hostile peer spoils.
const ROUNDS: usize = 6;

/// `hold` waits while it lasts, and fails when a worker has.
pub fn play(
    ctx: &Ctx,
    class: Class,
    netem: &Netem,
    step: &Step,
    hold: &mut dyn FnMut(Duration) -> Outcome,
) -> Outcome {
    let lasts = Duration::from_millis(step.lasts);
    let redundant = class.two_links && !class.rough;
    match step.act {
        Act::Network(what) => {
            netem.set(what)?;
            let held = hold(lasts);
            netem.set("")?;
            held
        }
        Act::Hole(host, lost) => {
            let _rules = Rules::new(host, "input", &[lost.rule()])?;
            // Links and connections of a rough phase may find it too long.
            let more = if class.rough { 3 } else { 1 };
            hold(lasts * more)
        }
        Act::Setting(name, value) => {
            let _changed = Changed::new(&Host::BOTH, name, value)?;
            hold(lasts)
        }
        Act::Named(host) => {
            pnet::add_ib(host, "NET1", host.rdma_device(), 1)?;
            let held = hold(lasts);
            pnet::flush_both()?;
            held
        }
        Act::Address(host) => {
            let (name, dev) = (host.name(), host.netdev());
            let address = format!("10.9.0.{}/24 dev {dev}", 101 + host as usize);
            rig::run(&format!("ip -n {name} addr add {address}"))?;
            let held = hold(lasts);
            rig::run(&format!("ip -n {name} addr del {address}"))?;
            held
        }
        Act::Namespaces => namespaces_come_and_go(&ctx.unasked()),
        // The crew's.
        Act::Killed(_) => hold(lasts),
        Act::Rmmod => {
            check!(
                rig::run(&format!("rmmod {}", rig::MODULE)).is_err(),
                "rmmod succeeded while sockets were open"
            );
            hold(lasts)
        }
        Act::Dumps => {
            let end = Instant::now() + lasts;
            while Instant::now() < end {
                Host::BOTH.into_iter().try_for_each(ask_everything)?;
                hold(Duration::ZERO)?;
            }
            Ok(())
        }
        Act::Port(host, second) => {
            let (name, dev) = (host.name(), device_of(host, second).0);
            let back: fn(Host) -> Outcome = if second { second_port_up } else { port_up };
            let down = || rig::run(&format!("ip -n {name} link set {dev} down")).map(drop);
            without(redundant, down, || hold(lasts), || back(host))
        }
        Act::Device(host, second) => {
            let device = device_of(host, second).1;
            let back: fn(Host) -> Outcome = if second {
                add_second
            } else {
                rig::rdma_device_add
            };
            let gone = || rig::run(&format!("rdma link del {device}")).map(drop);
            without(redundant, gone, || hold(lasts), || back(host))
        }
        Act::NetworkDevice(host) => without(
            redundant,
            || second_netdev_goes(host),
            || hold(lasts),
            || {
                // Its RDMA device goes when nobody has it any more.
                let path = format!("/sys/class/infiniband/{}", second_device(host));
                sys::eventually(&format!("{path} is gone"), || {
                    Ok(!std::path::Path::new(&path).exists())
                })?;
                second_netdev_comes(host)
            },
        ),
        Act::NoAddress(host) => without_address(host, || hold(lasts)),
        Act::Verb(verb, number) => one_call_fails(VERBS[verb], number, lasts, hold),
        Act::Memory(by, number) => one_call_fails(ALLOCATORS[by], number, lasts, hold),
        Act::HostilePeer(seed) => {
            let ctx = Ctx {
                seed,
                ..ctx.with_kind(Kind::Smc4)
            };
            if class.rough {
                settled(&ctx, hold)?;
            }
            let mut peer = Process::start("the hostile peer".into(), || {
                hostile_peer::at_random(&ctx, ROUNDS)
            })?;
            loop {
                hold(Duration::from_millis(20))?;
                if let Some(outcome) = peer.ended()? {
                    return outcome;
                }
            }
        }
    }
}

/// Waits until what disturbances before have done to links has come out: they are asked whether they are alive, and a host
/// that has lost one on its own tells its peer so with the next connection, which falls back.
pub fn settled(ctx: &Ctx, hold: &mut dyn FnMut(Duration) -> Outcome) -> Outcome {
    hold(Duration::from_secs(8))?;
    let ctx = ctx.unasked();
    let end = Instant::now() + sys::PATIENCE;
    loop {
        let pairs = [ctx.pair()?, ctx.pair_the_other_way()?];
        let ends = pairs.iter().flat_map(|pair| [&pair.client, &pair.server]);
        if ends
            .map(mode::of)
            .all(|mode| matches!(mode, Ok(Mode::Rdma)))
        {
            return Ok(());
        }
        check!(
            Instant::now() < end,
            "connections go by TCP, long after the last disturbance"
        );
        hold(Duration::from_millis(500))?;
    }
}

/// The call of this number from now on.
fn one_call_fails(
    verb: Verb,
    number: u32,
    lasts: Duration,
    hold: &mut dyn FnMut(Duration) -> Outcome,
) -> Outcome {
    let fault = Fault::of_verb(verb)?;
    fault.arm(Some(number))?;
    hold(lasts)
}

/// A host's network device, and the RDMA device on it.
fn device_of(host: Host, second: bool) -> (&'static str, &'static str) {
    if second {
        (second_netdev(host), second_device(host))
    } else {
        (host.netdev(), host.rdma_device())
    }
}

/// What links go by is taken away, and brought back. Where no connection may fail, none is taken before every group has
/// two links again.
fn without(
    redundant: bool,
    take: impl FnOnce() -> Outcome,
    hold: impl FnOnce() -> Outcome,
    bring_back: impl FnOnce() -> Outcome,
) -> Outcome {
    let whole = || {
        if redundant {
            await_all_symmetric(GROUPS)
        } else {
            Ok(())
        }
    };
    whole()?;
    take()?;
    let held = hold();
    bring_back()?;
    held?;
    whole()
}

fn ask_everything(host: Host) -> Outcome {
    sys::enter(host)?;
    diag::dump(diag::WITH_CONNINFO | diag::WITH_LGRINFO).during("sock_diag")?;
    let mut client = Client::new(genl::SMC_GEN)?;
    for command in [
        genl::GET_SYS_INFO,
        genl::GET_LGR_SMCR,
        genl::GET_LINK_SMCR,
        genl::GET_DEV_SMCR,
        genl::GET_STATS,
        genl::GET_FBACK_STATS,
        genl::DUMP_UEID,
    ] {
        client
            .dump(command)
            .during(&format!("SMC_GEN_NETLINK command {command}"))?;
    }
    state().map(drop)
}

/// What debugfs tells.
pub fn state() -> Outcome<String> {
    sys::read_file("/sys/kernel/debug/smc_rs/state").map_err(Fail::from)
}

impl Lost {
    /// The rule of the packet filter.
    fn rule(self) -> &'static str {
        match self {
            Lost::Roce => "udp dport 4791 drop",
            Lost::Tcp => "meta l4proto tcp drop",
            Lost::All => "meta l4proto { tcp, udp } drop",
        }
    }
}
