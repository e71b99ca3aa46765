// SPDX-License-Identifier: GPL-2.0

//! What the whole module shares: its devices and link groups, and who it is for its peers.

use super::{
    group::{
        GroupKey,
        LinkGroup, //
    },
    group_table::{
        GroupTable,
        Room, //
    },
    link::Link,
    pnet_table,
    ports::{
        self,
        Ports, //
    },
    time::Millis,
    types::{
        Mac,
        PeerId, //
    }, //
};
use crate::{
    ib::{
        client::{
            self,
            Client,
            Events, //
        },
        port::Port,
        verbs::{
            client::PortEvent,
            device::Device,
            wait::{
                new_wait_queue,
                WaitQueue, //
            }, //
        }, //
    },
    kapi::{
        global::{
            Global,
            GlobalGuard, //
        },
        host,
        netns::Net,
        reboot::{
            GoingDown,
            Notice, //
        },
        ticker::Ticker, //
    },
    queues, //
};
use kernel::{
    error::Result,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc,
        Mutex,
        SetOnce, //
    }, //
};

/// How often timers are looked at, in milliseconds.
const TICK_MS: u32 = 250;

/// How long the system may be kept from going down, in milliseconds.
const FAREWELL_MS: u32 = 15_000;

static REGISTRY: Global<Registry> = Global::new();

/// The devices and link groups of this host.
#[pin_data]
pub(crate) struct Registry {
    instance: u16,
    /// Fixed once there is a port to name: peers know us by it.
    peer_id: SetOnce<PeerId>,
    #[pin]
    devices: Mutex<Devices>,
    #[pin]
    groups: Mutex<Groups>,
    next_group: Atomic<u32>,
    /// Counts the groups that [`Registry::find_or_add`] has made, or failed to.
    made: Atomic<u32>,
    /// Groups that are being wound up.
    ending: Atomic<u32>,
    /// No group begins any more: the module or the system goes.
    closed: Atomic<bool>,
    /// One of those has changed.
    #[pin]
    changed: WaitQueue,
}

struct Groups {
    all: GroupTable,
    /// A group for these is just being made.
    making: KVec<GroupKey>,
}

/// The devices that RDMA knows, iWARP devices among them.
struct Devices {
    known: KVec<Arc<Device>>,
    /// Whether their coming and going is reported in the log.
    announced: bool,
}

/// Keeps the module at work; dropping it ends all link groups and lets all devices go.
pub(crate) struct Running {
    // In the order of the teardown, before which all link groups are ended.
    _notice: Notice<Farewell>,
    _client: Client<DeviceEvents>,
    ports: Ports,
    _ticker: Ticker,
    registry: Arc<Registry>,
    _guard: GlobalGuard<Registry>,
}

/// Starts: when this returns, all devices are known, and iWARP devices have their TCP ports from
/// `rsvd_ports_base` on.
///
/// Nothing is reported in the log until [`Running::announce`], unless it fails.
pub(crate) fn start(rsvd_ports_base: u16) -> Result<Running> {
    let registry = Arc::pin_init(
        pin_init!(Registry {
            instance: u16::from_ne_bytes(host::random()),
            peer_id: SetOnce::new(),
            devices <- new_mutex!(
                Devices { known: KVec::new(), announced: false },
                "Registry::devices"
            ),
            groups <- new_mutex!(
                Groups { all: GroupTable::new(), making: KVec::new() },
                "Registry::groups"
            ),
            next_group: Atomic::new(256),
            made: Atomic::new(0),
            ending: Atomic::new(0),
            closed: Atomic::new(false),
            changed <- new_wait_queue!("Registry::changed"),
        }),
        GFP_KERNEL,
    )?;
    let guard = REGISTRY.publish(registry.clone());
    let ticker = Ticker::start(TICK_MS, tick)?;
    let ports = Ports::start(rsvd_ports_base)?;
    let client = Client::new()?;
    let notice = Notice::new()?;
    let running = Running {
        _notice: notice,
        _client: client,
        ports,
        _ticker: ticker,
        registry,
        _guard: guard,
    };
    running.ports.load_error()?;
    Ok(running)
}

impl Drop for Running {
    fn drop(&mut self) {
        // All at once, not device after device. The last work items that wind up are past the devices' last uses.
        self.registry.end_all();
        queues::control().flush();
    }
}

impl Running {
    /// Reports the devices in the log, and from now on all that come and go: loading has succeeded.
    pub(crate) fn announce(&self) {
        self.ports.announce();
        let mut devices = self.registry.devices.lock();
        devices.announced = true;
        for device in &devices.known {
            client::log_added::<DeviceEvents>(device);
        }
    }
}

/// The registry, unless the module is being loaded or unloaded.
pub(crate) fn get() -> Option<Arc<Registry>> {
    REGISTRY.get()
}

/// The time, for the pure state machines.
pub(crate) fn now() -> Millis {
    Millis(host::now_ms())
}

fn tick() {
    let Some(registry) = get() else {
        return;
    };
    let now = now();
    registry.for_each_group(|_| true, |group| group.tick(now));
}

impl Registry {
    /// Who we are for our peers (RFC 7609, section A.2.1): a random number and the Ethernet address
    /// of one of our ports.
    pub(crate) fn peer_id(&self) -> PeerId {
        if let Some(id) = self.peer_id.as_ref() {
            return *id;
        }
        let mac = self
            .devices
            .lock()
            .known
            .iter()
            .filter(|device| !device.is_iwarp())
            .flat_map(|device| Port::all(device))
            .find_map(|port| port.mac());
        let id = PeerId::new(self.instance, Mac(mac.unwrap_or([0; 6])));
        if mac.is_some() {
            self.peer_id.populate(id);
        }
        self.peer_id.as_ref().copied().unwrap_or(id)
    }

    /// Calls `f` for every device.
    pub(crate) fn for_each_device(&self, f: impl FnMut(&Arc<Device>)) {
        self.devices.lock().known.iter().for_each(f);
    }

    /// The first device after the one with number `after`.
    pub(crate) fn device_after(&self, after: u64) -> Option<Arc<Device>> {
        let devices = self.devices.lock();
        let later = devices
            .known
            .iter()
            .filter(|device| device.number() > after);
        later.min_by_key(|device| device.number()).cloned()
    }

    /// The first group of the namespace with cookie `net` after the one with number `after`.
    pub(crate) fn group_after(&self, net: u64, after: u32) -> Option<Arc<LinkGroup>> {
        let groups = self.groups.lock();
        groups.all.next(after, |group| group.key().net == net)
    }

    /// How many links there are, of groups of the namespace with cookie `net`, for which `filter` holds.
    pub(crate) fn count_links(&self, net: u64, filter: impl Fn(&Link) -> bool) -> u32 {
        let groups = self.groups.lock();
        let mut number = 0u32;
        // One chain of it all would have a longer name than the kernel's tools take.
        for group in groups.all.iter().filter(|group| group.key().net == net) {
            let links = group.links().filter(|link| filter(link)).count();
            number = number.saturating_add(links as u32);
        }
        number
    }

    /// Whether there is a group of the namespace with cookie `net` that ends with `device`.
    pub(crate) fn depends_on(&self, net: u64, device: &Arc<Device>) -> bool {
        let groups = self.groups.lock();
        let mut here = groups.all.iter().filter(|group| group.key().net == net);
        here.any(|group| group.uses(device) && group.links().all(|link| link.is_on(device)))
    }

    /// Calls `f`, without a lock held, for every group for which `filter` holds, in the order of
    /// their numbers. Needs no memory.
    pub(crate) fn for_each_group(
        &self,
        filter: impl Fn(&LinkGroup) -> bool,
        mut f: impl FnMut(&Arc<LinkGroup>),
    ) {
        let mut last = 0;
        loop {
            let next = self.groups.lock().all.next(last, &filter);
            let Some(group) = next else {
                return;
            };
            last = group.id();
            f(&group);
        }
    }

    /// Finds a group for `key` that `accept` accepts, or adds what `make` makes (given a number).
    /// The flag is true for a new one. Process context.
    ///
    /// Who asks for a group that is just being made waits for that until `deadline`, and nobody else
    /// does: devices take their time.
    pub(crate) fn find_or_add(
        &self,
        key: &GroupKey,
        deadline: Millis,
        accept: impl Fn(&LinkGroup) -> bool,
        make: impl FnOnce(u32) -> Result<Arc<LinkGroup>>,
    ) -> Result<(Arc<LinkGroup>, bool)> {
        loop {
            let made = {
                let mut groups = self.groups.lock();
                let found = groups
                    .all
                    .find(key, |group| group.is_usable() && accept(group));
                if let Some(group) = found {
                    return Ok((group, false));
                }
                if !groups.making.contains(key) {
                    groups.making.push(*key, GFP_KERNEL)?;
                    break;
                }
                self.made.load(Acquire)
            };
            let left = deadline.0.saturating_sub(now().0);
            self.changed
                .wait(u32::try_from(left).unwrap_or(0), || {
                    (self.made.load(Acquire) != made).then_some(())
                })
                .ok_or(EBUSY)?;
        }
        let group = self.add(make);
        {
            let mut groups = self.groups.lock();
            if let Some(index) = groups.making.iter().position(|other| other == key) {
                let _ = groups.making.remove(index);
            }
            self.made.fetch_add(1u32, Release);
        }
        self.changed.wake_all();
        group.map(|group| (group, true))
    }

    /// A number for a group: never zero, of no other, and in steps of 256, as in C; users' tools count on that.
    fn next_number(&self) -> u32 {
        loop {
            let number = self.next_group.fetch_add(256u32, Relaxed);
            if number != 0 && !self.groups.lock().all.has(number) {
                return number;
            }
        }
    }

    /// Adds what `make` makes, given a number. Process context.
    pub(crate) fn add(
        &self,
        make: impl FnOnce(u32) -> Result<Arc<LinkGroup>>,
    ) -> Result<Arc<LinkGroup>> {
        let room = Room::new()?;
        let group = make(self.next_number())?;
        self.groups.lock().all.insert(room, group.clone());
        // Either whoever removes the device, or ends all groups, finds the group in the table, or it is seen here.
        let closed = self.closed.load(Acquire);
        if closed || group.links().any(|link| link.port().device.is_gone()) {
            group.discard();
            return Err(ENODEV);
        }
        Ok(group)
    }

    /// Ends all groups, and lets no other begin; returns before they are wound up. Process context.
    fn end_all(&self) {
        self.closed.store(true, Release);
        self.for_each_group(|_| true, LinkGroup::end_orderly);
    }

    /// A group is about to be wound up.
    pub(crate) fn group_ending(&self) {
        self.ending.fetch_add(1u32, Relaxed);
    }

    /// It has been.
    pub(crate) fn group_ended(&self) {
        self.ending.fetch_sub(1u32, Release);
        self.changed.wake_all();
    }

    /// Finds a group for `key`.
    pub(crate) fn find(
        &self,
        key: &GroupKey,
        accept: impl Fn(&LinkGroup) -> bool,
    ) -> Option<Arc<LinkGroup>> {
        let groups = self.groups.lock();
        groups
            .all
            .find(key, |group| group.is_usable() && accept(group))
    }

    /// Forgets a group that has ended.
    pub(crate) fn forget(&self, group: &LinkGroup) {
        self.groups.lock().all.remove(group);
    }
}

/// When the system goes down peers are told, who would have to find out.
struct Farewell;

impl GoingDown for Farewell {
    fn going_down() {
        let Some(registry) = get() else {
            return;
        };
        registry.end_all();
        // Of those whose peer or device is dead each takes seconds, and the system waits.
        let all = registry.changed.wait(FAREWELL_MS, || {
            (registry.ending.load(Acquire) == 0).then_some(())
        });
        if all.is_none() {
            let left = registry.ending.load(Relaxed);
            pr_warn!("the system goes down before {left} link groups have ended\n");
        }
    }
}

/// What happens to devices.
struct DeviceEvents;

impl Events for DeviceEvents {
    fn device_added(device: &Arc<Device>) -> Result {
        let registry = get().ok_or(ENODEV)?;
        if device.is_iwarp() {
            ports::device_added(device)?;
        }
        let mut devices = registry.devices.lock();
        let known = devices.known.push(device.clone(), GFP_KERNEL);
        let announced = devices.announced;
        drop(devices);
        known.inspect_err(|_| {
            if device.is_iwarp() {
                ports::device_removing(device);
            }
        })?;
        if announced {
            client::log_added::<Self>(device);
        }
        registry.for_each_group(|_| true, LinkGroup::want_link);
        Ok(())
    }

    fn device_removing(device: &Arc<Device>) {
        let Some(registry) = get() else {
            return;
        };
        let mut devices = registry.devices.lock();
        devices.known.retain(|other| !Arc::ptr_eq(other, device));
        let announced = devices.announced;
        drop(devices);
        if announced {
            pr_info!("removing ib device {}\n", device.name());
        }
        if device.is_iwarp() {
            ports::device_removing(device);
        }
        registry.for_each_group(
            |group| group.uses(device),
            |group| group.lose_device(device),
        );
    }

    fn network_id(device: &Arc<Device>, port: u32) -> Option<([u8; 16], bool)> {
        let id = pnet_table::of_port(Net::first(), &Port::new(device, port))?;
        Some((id.padded(), true))
    }

    fn port_event(device: &Arc<Device>, port: u32, event: PortEvent) {
        let Some(registry) = get() else {
            return;
        };
        registry.for_each_group(
            |group| group.uses(device),
            |group| group.check_port(device, port, event),
        );
        if matches!(event, PortEvent::Active | PortEvent::GidChange) {
            registry.for_each_group(|_| true, LinkGroup::want_link);
        }
    }
}
