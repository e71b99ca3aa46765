//! All devices of this process, what they have, and the time.
//!
//! One lock around it: a work request of one device writes into another's memory and rings. Time comes from outside,
//! so that tests have their own.

use crate::fault::Faults;
use crate::irq::Interrupts;
use crate::memory::GuestMemory;
use crate::mr::Regions;
use crate::qp::Qp;
use crate::ring::{Broken, CompletionQueue, EventQueue};
use crate::trace::{Counters, Trace, What};
use crate::wire::{Completion, Event};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::fmt;

pub type Gid = [u8; 16];
pub const GIDS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Iwarp,
    Roce,
}

/// What a device announces, and refuses beyond.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub qps: usize,
    pub cqs: usize,
    pub regions: usize,
    pub handles: usize,
}

impl Limits {
    /// In units of 1,024 queue pairs, as the device announces it: CQs and MRs are twice as many.
    pub const BLOCKS: u32 = 4;

    pub fn all() -> Limits {
        let qps = Self::BLOCKS as usize * 1024;
        Limits {
            qps,
            cqs: 2 * qps,
            regions: 2 * qps,
            handles: 1024,
        }
    }
}

/// What this process was told about all devices.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a sender waits that found no receive, in nanoseconds.
    pub not_ready: u64,
    /// How long it waits for an answer, and how often it tries again.
    pub ack_timeout: u64,
    pub retries: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            not_ready: 320_000,
            ack_timeout: 134_000_000,
            retries: 7,
        }
    }
}

/// Commands: where their rings are.
pub struct CommandQueue {
    pub address: u64,
    pub depth: u32,
    pub ci: u16,
    pub pi: u16,
    pub cq: CompletionQueue,
}

#[derive(Default)]
pub struct Registers {
    pub status: u32,
    /// The configuration words between 0x20 and 0x80, as written.
    pub words: [u32; 24],
}

pub struct Device {
    pub name: String,
    pub mac: [u8; 6],
    pub protocol: Protocol,
    pub limits: Limits,
    pub memory: GuestMemory,
    pub interrupts: Interrupts,
    pub registers: Registers,
    pub commands: Option<CommandQueue>,
    pub async_events: Option<EventQueue>,
    /// By number: 0 is the command queue's, from 1 on those of completions.
    pub event_queues: BTreeMap<u32, EventQueue>,
    pub cqs: HashMap<u32, CompletionQueue>,
    pub qps: HashMap<u32, Qp>,
    pub regions: Regions,
    /// Address handles: the GID that each stands for.
    pub handles: HashMap<u32, Gid>,
    pub gids: [Option<Gid>; GIDS],
    /// Doorbell pages that users of the device have got.
    pub doorbell_pages: [Vec<bool>; 3],
    pub mtu: u32,
    pub counters: Counters,
    pub faults: Faults,
    /// Completions that are held back.
    held: VecDeque<(u64, u32, Completion, bool)>,
    /// The device has died: it answers with ones.
    pub dead: bool,
    complaints: u64,
}

/// A malicious guest shall not fill the disk.
const MOST_COMPLAINTS: u64 = 500;

impl Device {
    pub fn new(name: &str, mac: [u8; 6], protocol: Protocol) -> Device {
        Device {
            name: name.into(),
            mac,
            protocol,
            limits: Limits::all(),
            memory: GuestMemory::default(),
            interrupts: Interrupts::default(),
            registers: Registers::default(),
            commands: None,
            async_events: None,
            event_queues: BTreeMap::new(),
            cqs: HashMap::new(),
            qps: HashMap::new(),
            regions: Regions::default(),
            handles: HashMap::new(),
            gids: [None; GIDS],
            doorbell_pages: Default::default(),
            mtu: 1024,
            counters: Counters::default(),
            faults: Faults::default(),
            held: VecDeque::new(),
            dead: false,
            complaints: 0,
        }
    }

    /// What a guest did wrong, or what this emulator cannot do: one line.
    pub fn complain(&mut self, text: &str) {
        self.complaints += 1;
        self.counters.complaints += 1;
        if self.complaints <= MOST_COMPLAINTS {
            log::warn!("{}: {text}", self.name);
        }
        if self.complaints == MOST_COMPLAINTS {
            log::warn!(
                "{}: no more of these lines; the counter 'complaints' goes on",
                self.name
            );
        }
    }

    /// A doorbell is recorded in memory before it rings, so that a device that has missed some knows the last one. This
    /// one misses none: the record may be ahead of the doorbell, by others that are under way, and not behind. `bits` of
    /// both are the index.
    pub fn check_record(&mut self, what: fmt::Arguments<'_>, record: u64, value: u64, bits: u32) {
        if record == 0 {
            return;
        }
        match self.memory.read_u64(record) {
            Err(_) => self.complain(&format!(
                "{what}: the doorbell's record at {record:#x} is not in memory"
            )),
            Ok(recorded) => {
                let ahead = recorded.wrapping_sub(value) & ((1 << bits) - 1);
                if ahead >> (bits - 1) != 0 {
                    self.complain(&format!(
                        "{what}: doorbell {value:#x}, of which the record at {record:#x} does not know: it says {recorded:#x}"
                    ));
                }
            }
        }
    }

    /// As after power-on: registers and objects go, memory and faults stay.
    pub fn reset(&mut self) {
        self.registers = Registers::default();
        self.commands = None;
        self.async_events = None;
        self.event_queues.clear();
        self.cqs.clear();
        self.qps.clear();
        self.regions.clear();
        self.handles.clear();
        self.gids = [None; GIDS];
        self.doorbell_pages = Default::default();
        self.held.clear();
        self.interrupts.forget();
    }

    fn broken(&mut self, what: &str, error: Broken) {
        self.complain(&format!(
            "{what}: the ring is not in memory ({:#x})",
            error.0.address
        ));
    }

    /// An event for whoever waits for the completions of a queue.
    pub fn completion_event(&mut self, eqn: u32, cqn: u32, pi: u32) {
        let Some(queue) = self.event_queues.get_mut(&eqn) else {
            return self.complain(&format!(
                "CQ {cqn} has EQ {eqn}, which does not exist: its event is lost"
            ));
        };
        let mut entry = [0; 16];
        entry[..8].copy_from_slice(
            &(u64::from(pi & 0xff_ffff) << 32 | u64::from(cqn & 0xf_ffff)).to_le_bytes(),
        );
        let vector = queue.vector;
        self.counters.events += 1;
        match queue.post(&self.memory, entry) {
            Ok(true) => self.interrupts.raise(vector),
            Ok(false) => {}
            Err(error) => self.broken("event queue", error),
        }
    }

    pub fn async_event(&mut self, kind: Event, number: u32) {
        let Some(queue) = &mut self.async_events else {
            return;
        };
        let mut entry = [0; 16];
        entry[..4].copy_from_slice(&((kind as u32) << 16).to_le_bytes());
        entry[4..8].copy_from_slice(&number.to_le_bytes());
        let vector = queue.vector;
        self.counters.async_events += 1;
        match queue.post(&self.memory, entry) {
            Ok(true) => self.interrupts.raise(vector),
            Ok(false) => {}
            Err(error) => self.broken("asynchronous event queue", error),
        }
    }

    pub fn event_doorbell(&mut self, eqn: u32, value: u64) {
        let Some(queue) = self.event_queues.get_mut(&eqn) else {
            return self.complain(&format!("doorbell of EQ {eqn}, which does not exist"));
        };
        let vector = queue.vector;
        match queue.doorbell(&self.memory, value) {
            Ok(true) => self.interrupts.raise(vector),
            Ok(false) => {}
            Err(error) => self.broken("event queue", error),
        }
    }

    pub fn async_doorbell(&mut self, value: u64) {
        let Some(queue) = &mut self.async_events else {
            return;
        };
        let vector = queue.vector;
        match queue.doorbell(&self.memory, value) {
            Ok(true) => self.interrupts.raise(vector),
            Ok(false) => {}
            Err(error) => self.broken("asynchronous event queue", error),
        }
    }

    /// The completion reaches its queue.
    fn deliver(&mut self, cqn: u32, completion: &Completion, solicited: bool) {
        let Some(queue) = self.cqs.get_mut(&cqn) else {
            return self.complain(&format!(
                "a completion of QP {} for CQ {cqn}, which does not exist",
                completion.qpn
            ));
        };
        self.counters.completions += 1;
        if completion.syndrome != 0 {
            self.counters.error_completions += 1;
        }
        let due = queue.post(&self.memory, completion, solicited);
        let (eqn, pi) = (queue.eqn, queue.pi);
        match due {
            Ok(true) => self.completion_event(eqn, cqn, pi),
            Ok(false) => {}
            Err(error) => self.broken("completion queue", error),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A send queue goes on: device, number.
    Send(usize, u32),
    /// Completions that were held back.
    Held(usize),
}

pub struct World {
    pub devices: Vec<Device>,
    pub settings: Settings,
    /// Nanoseconds since the start.
    pub now: u64,
    pub trace: Trace,
    timers: BinaryHeap<Reverse<(u64, u64, Timer)>>,
    next_timer: u64,
    /// Numbers that name iWARP pairs to each other.
    pub next_cookie: u32,
}

impl World {
    pub fn new(devices: Vec<Device>, settings: Settings) -> World {
        World {
            devices,
            settings,
            now: 0,
            trace: Trace::default(),
            timers: BinaryHeap::new(),
            next_timer: 0,
            next_cookie: 1,
        }
    }

    pub fn note(&mut self, device: usize, what: What) {
        self.trace.push(self.now, device, what);
    }

    pub fn schedule(&mut self, due: u64, timer: Timer) {
        self.next_timer += 1;
        self.timers.push(Reverse((due, self.next_timer, timer)));
    }

    /// When the next timer is due.
    pub fn next_due(&self) -> Option<u64> {
        self.timers.peek().map(|Reverse((due, _, _))| *due)
    }

    /// Runs what is due, and nothing that becomes due by it at the same time: others want the lock, too.
    pub fn run_timers(&mut self) {
        let last = self.next_timer;
        let mut later = Vec::new();
        while let Some(Reverse((due, number, timer))) = self.timers.peek().copied() {
            if due > self.now {
                break;
            }
            self.timers.pop();
            if number > last {
                later.push(Reverse((due, number, timer)));
                continue;
            }
            match timer {
                Timer::Send(device, qpn) => self.send_timer(device, qpn),
                Timer::Held(device) => self.release_held(device),
            }
        }
        self.timers.extend(later);
    }

    /// A completion, through the faults that meet it.
    pub fn complete(&mut self, device: usize, cqn: u32, completion: Completion, solicited: bool) {
        self.note(
            device,
            What::Completion {
                cqn,
                qpn: completion.qpn,
                op: completion.opcode,
                syndrome: completion.syndrome,
            },
        );
        let now = self.now;
        let d = &mut self.devices[device];
        if d.faults.drops(&completion) {
            d.counters.dropped_completions += 1;
            return;
        }
        if d.faults.completion_delay > 0 || !d.held.is_empty() {
            let due = now + d.faults.completion_delay;
            d.held.push_back((due, cqn, completion, solicited));
            return self.schedule(due, Timer::Held(device));
        }
        d.deliver(cqn, &completion, solicited);
    }

    fn release_held(&mut self, device: usize) {
        let d = &mut self.devices[device];
        while d.held.front().is_some_and(|(due, ..)| *due <= self.now) {
            if let Some((_, cqn, completion, solicited)) = d.held.pop_front() {
                d.deliver(cqn, &completion, solicited);
            }
        }
    }

    /// The device that answers to a GID.
    pub fn device_of(&self, gid: &Gid) -> Option<usize> {
        self.devices.iter().position(|d| {
            d.protocol == Protocol::Roce && d.reachable() && d.gids.contains(&Some(*gid))
        })
    }
}

impl Device {
    /// Whether anything goes in or out.
    pub fn reachable(&self) -> bool {
        !self.dead && !self.faults.port_down
    }
}
