//! What a soak does, phase after phase: made from its seed alone, so that the same seed does the same again.

use super::board::WORKERS;
use crate::kind::Host;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fmt;

/// What may happen in a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// Connections may be ended by what happens; else none may fail.
    pub rough: bool,
    /// Each host has two RDMA devices.
    pub two_links: bool,
}

const CLASSES: [Class; 4] = [
    Class {
        rough: false,
        two_links: false,
    },
    Class {
        rough: true,
        two_links: false,
    },
    Class {
        rough: false,
        two_links: true,
    },
    Class {
        rough: true,
        two_links: true,
    },
];

/// What is lost on the way for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    Roce,
    Tcp,
    All,
}

/// Something that is done to the hosts while connections come, talk and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Both hosts' packets meet netem.
    Network(&'static str),
    /// Packets are lost that come to a host.
    Hole(Host, Lost),
    /// A value of net.smc on both hosts.
    Setting(&'static str, i64),
    /// A network is named on one host, and then on none.
    Named(Host),
    /// A host has another address, and then no more.
    Address(Host),
    /// Two more namespaces with devices come, and go under traffic.
    Namespaces,
    /// A worker is killed, and another one takes its place.
    Killed(usize),
    /// `rmmod`, which is refused.
    Rmmod,
    /// Everything that netlink and debugfs tell is asked for, again and again.
    Dumps,
    /// A port goes down and comes up again; the first one or the second one of a host.
    Port(Host, bool),
    /// An RDMA device is taken out and made again; the first one or the second one of a host.
    Device(Host, bool),
    /// The second network device is unregistered, and its RDMA device with it; both come again.
    NetworkDevice(Host),
    /// A host loses its IPv4 address and gets it again.
    NoAddress(Host),
    /// A call of one of `fault::VERBS` fails: which verb, and which call from now on.
    Verb(usize, u32),
    /// Memory is refused to the module: by which of `fault::ALLOCATORS`, and at which call from now on.
    Memory(usize, u32),
    /// A hostile peer talks to host B meanwhile, at random (`hostile_peer.random`); made from this seed.
    HostilePeer(u64),
}

/// An act, when it comes after the one before, and how long it lasts, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub after: u64,
    pub act: Act,
    pub lasts: u64,
}

pub struct Phase {
    pub seed: u64,
    pub number: u64,
    pub class: Class,
    pub steps: Vec<Step>,
    /// The module is unloaded and loaded afterwards.
    pub reload: bool,
}

const STEPS: usize = 5;

const NETWORKS: [&str; 6] = [
    "loss 1%",
    "duplicate 2%",
    "delay 2ms reorder 75% 50%",
    "corrupt 1%",
    "delay 20ms",
    "delay 5ms 3ms loss 0.5% duplicate 1%",
];

/// What can be set without a new link group having to be made of it.
const SETTINGS: [(&str, i64); 9] = [
    ("wmem", 16_384),
    ("wmem", 1 << 20),
    ("rmem", 16_384),
    ("rmem", 1 << 20),
    ("autocorking_size", 0),
    ("smcr_buf_type", 1),
    ("smcr_buf_type", 2),
    ("tcp2smc", 1),
    ("tcp2smc", 2),
];

/// What can be set where a link group may be made at any time.
const GROUP_SETTINGS: [(&str, i64); 8] = [
    ("smcr_max_send_wr", 2),
    ("smcr_max_recv_wr", 2),
    ("smcr_max_conns_per_lgr", 16),
    ("smcr_lgr_free_delay", 0),
    ("smcr_max_links_per_lgr", 1),
    ("vendor_options", 0),
    ("adaptive", 1),
    ("limit_smc_hs", 1),
];

impl Phase {
    pub fn new(seed: u64, number: u64) -> Phase {
        let mut random = SmallRng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let class = CLASSES[(seed.wrapping_add(number) % CLASSES.len() as u64) as usize];
        let steps = (0..STEPS)
            .map(|_| Step {
                after: random.gen_range(100..1_000),
                act: act(&mut random, class),
                lasts: random.gen_range(300..2_000),
            })
            .collect();
        Phase {
            seed,
            number,
            class,
            steps,
            reload: random.gen_ratio(1, 3),
        }
    }
}

fn act(random: &mut SmallRng, class: Class) -> Act {
    let host = Host::BOTH[random.gen_range(0..2)];
    // What the class is about is as frequent as everything else.
    if random.gen() {
        match (class.rough, class.two_links) {
            (false, false) => {
                if random.gen() {
                    let (name, value) = GROUP_SETTINGS[random.gen_range(0..GROUP_SETTINGS.len())];
                    return Act::Setting(name, value);
                }
            }
            (false, true) => {
                return match random.gen_range(0..4) {
                    0 => Act::Device(host, false),
                    1 => Act::Device(host, true),
                    2 => Act::Port(host, true),
                    _ => Act::NetworkDevice(host),
                };
            }
            (true, two_links) => {
                return match random.gen_range(0..8 + 2 * u32::from(two_links)) {
                    0 => Act::Port(host, false),
                    1 => Act::Device(host, false),
                    2 => Act::NoAddress(host),
                    3 => {
                        let lost = [Lost::Roce, Lost::Tcp, Lost::All][random.gen_range(0..3)];
                        Act::Hole(host, lost)
                    }
                    4 | 5 => Act::Verb(
                        random.gen_range(0..crate::fault::VERBS.len()),
                        random.gen_range(1..40),
                    ),
                    6 | 7 => Act::Memory(
                        random.gen_range(0..crate::fault::ALLOCATORS.len()),
                        random.gen_range(1..40),
                    ),
                    8 => Act::Device(host, true),
                    _ => Act::NetworkDevice(host),
                };
            }
        }
    }
    match random.gen_range(0..13) {
        0..3 => Act::Network(NETWORKS[random.gen_range(0..NETWORKS.len())]),
        3 => Act::Hole(host, [Lost::Roce, Lost::Tcp][random.gen_range(0..2)]),
        4 | 5 => {
            let (name, value) = SETTINGS[random.gen_range(0..SETTINGS.len())];
            Act::Setting(name, value)
        }
        6 if !class.two_links => Act::Named(host),
        6 | 7 => Act::Dumps,
        8 => Act::Killed(random.gen_range(1..WORKERS)),
        9 => [Act::Namespaces, Act::Address(host)][random.gen_range(0..2)],
        // Its links are seen as those of the others.
        10 | 11 if !class.two_links => Act::HostilePeer(random.gen()),
        _ => Act::Rmmod,
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "phase {} of seed {} ({}, {}):",
            self.number,
            self.seed,
            if self.class.rough { "rough" } else { "gentle" },
            if self.class.two_links {
                "two links"
            } else {
                "one link"
            },
        )?;
        for step in &self.steps {
            write!(
                f,
                " {:?} after {} ms for {} ms;",
                step.act, step.after, step.lasts
            )?;
        }
        if self.reload {
            write!(f, " the module is loaded anew;")?;
        }
        Ok(())
    }
}
