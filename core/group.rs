// SPDX-License-Identifier: GPL-2.0

//! Link groups: all connections between two hosts that share their links (RFC 7609, section 2.2).

mod adding;
mod failover;

use adding::{
    Adding,
    Tail, //
};

use super::{
    buffers::{
        Pool,
        Ring, //
    },
    conn::Conn,
    link::{
        FarEnd,
        Link,
        LinkState,
        Slot,
        FINISH_ANSWER_MS,
        FINISH_MS,
        MAX_LINKS, //
    },
    llc::{
        flow::{
            Actions,
            ConfirmFailure,
            Learned,
            LinkFlow,
            LinkParams,
            LlcEvent,
            Request,
            Role, //
        },
        wire::{
            ends_group,
            is_long_add_link,
            ConfirmRkey,
            DeleteReason,
            DeleteRkey,
            LlcVersion,
            RToken,
            LLC_LEN, //
        }, //
    },
    order::Seen,
    path::Path,
    registry,
    rkeys::{
        Answer,
        Rkeys,
        Settled, //
    },
    rtoken::{
        self,
        RTokenTable,
        Row,
        MAX_RTOKENS, //
    },
    time::Millis,
    types::{
        AlertToken,
        Eid,
        Gid,
        LinkNumber,
        LinkUserId,
        Mac,
        PeerId, //
    }, //
};
use crate::kapi::prelude::*;
use crate::{
    clc::{
        negotiate::{
            FirstContactTerms,
            Limits,
            Mode, //
        },
        wire::{
            OsType,
            VendorOptions, //
        }, //
    },
    diag::trace,
    ib::{
        verbs::{
            client::PortEvent,
            device::Device,
            wait::{
                new_wait_queue,
                WaitQueue, //
            },
            wr::Status, //
        },
        wr::Received, //
    },
    kapi::lock::{
        new_spinlock_bh,
        SpinLockBh, //
    },
    queues,
    rx_tx::immediate::ShortToken,
    sysctl::{
        BufferKind,
        Settings, //
    }, //
};
use kernel::{
    error::Result,
    fmt,
    new_mutex,
    new_work,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        Arc,
        Mutex,
        SetOnce, //
    },
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

/// Number that the server gives to the first link of a group (RFC 7609, section 3.5.1).
const FIRST_LINK: LinkNumber = LinkNumber(1);

/// Most connections in a group, and entries of the table.
const MAX_CONNS: usize = 255;

/// LLC messages that can wait to be looked at. The peer has at most one request and one answer of
/// each kind under way; what goes beyond is dropped.
const INBOX: usize = 16;

/// What tells link groups apart (RFC 7609, section 3.5.1: same peer, same role, same path).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct GroupKey {
    /// Which side we are.
    pub(crate) role: Role,
    /// Version of SMC-R.
    pub(crate) version: LlcVersion,
    /// The peer's instance.
    pub(crate) peer_id: PeerId,
    /// The peer's port.
    pub(crate) peer_gid: Gid,
    /// The peer's port.
    pub(crate) peer_mac: Mac,
    /// Our port.
    pub(crate) local_gid: Gid,
    /// The VLAN: in each of them a port can have the same GID (RoCEv1).
    pub(crate) vlan: Option<u16>,
    /// Cookie of our network namespace.
    pub(crate) net: u64,
}

/// Groups that differ in nothing of this are between the same two hosts, in the same roles.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PeerKey {
    net: u64,
    role: Role,
    version: LlcVersion,
    peer_id: PeerId,
}

impl GroupKey {
    pub(crate) fn peer(&self) -> PeerKey {
        PeerKey {
            net: self.net,
            role: self.role,
            version: self.version,
            peer_id: self.peer_id,
        }
    }
}

/// No reason of DELETE LINK.
const NO_REASON: u32 = 0;

/// How far a group is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
enum Phase {
    /// Its first connection is being made.
    Forming = 0,
    /// In use.
    Active = 1,
    /// Ended, or about to.
    Dead = 2,
}

/// Who says goodbye when a group ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Goodbye {
    /// We are to.
    Due,
    /// We have, over the link of this place, on which the peer has said what it may not.
    Said(Slot),
    /// The peer has, and is answered over the link of this place.
    Answered(Slot),
    /// Nobody can hear it.
    Needless,
}

/// How far a group is, for those who look at it from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GroupState {
    /// Its first connection is being made.
    Forming,
    /// In use.
    Active,
    /// Ended, or about to.
    Dead,
}

/// How much the loss of a port costs a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GroupKind {
    /// All.
    Single,
    /// One link.
    Symmetric,
    /// One link, but all if it is a certain one of the peer's.
    AsymmetricPeer,
    /// One link, but all if it is a certain one of ours.
    AsymmetricLocal,
}

/// What first contact has told about a group and its peer (SMC-Rv2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    /// The enterprise ID that both hosts have.
    pub(crate) eid: Eid,
    /// What the peer runs on.
    pub(crate) os: OsType,
    /// Name of the peer's host, padded with blanks; can be any bytes.
    pub(crate) peer_host: [u8; 32],
    /// The peer is reached without a gateway.
    pub(crate) direct: bool,
}

/// What became of CONFIRM LINK.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Confirmation {
    /// The peer has confirmed.
    Done,
    /// It has not.
    Failed(ConfirmFailure),
    /// The group has ended meanwhile.
    Ended,
}

/// Why the only link of a group is of no use any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LinkFailure {
    /// A message or data could not be sent.
    Send(Status),
    /// A receive request failed.
    Receive(Status),
    /// The device does not take requests.
    Post,
    /// The device has not told of the end of a request.
    Lost,
    /// Nothing was heard of the peer, and it does not answer TEST LINK.
    Silence,
    /// The peer does not answer requests about RMBs, or does not keep up with them.
    Unanswered,
    /// The port is down, or has lost its address.
    Port,
    /// The device goes.
    Removed,
    /// The peer has ended it.
    Ended,
}

impl fmt::Display for LinkFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(status) => {
                f.write_str("sending failed: ")?;
                fmt::Display::fmt(status, f)
            }
            Self::Receive(status) => {
                f.write_str("receiving failed: ")?;
                fmt::Display::fmt(status, f)
            }
            Self::Post => f.write_str("the queue pair takes no more requests"),
            Self::Lost => f.write_str("the RDMA device has lost a completion"),
            Self::Silence => f.write_str("the peer does not answer TEST LINK"),
            Self::Unanswered => {
                f.write_str("the peer does not answer CONFIRM or DELETE RKEY, or too slowly")
            }
            Self::Port => f.write_str("the RDMA port is down or has lost its address"),
            Self::Removed => f.write_str("the RDMA device is removed"),
            Self::Ended => f.write_str("the peer has ended it"),
        }
    }
}

/// A link group.
#[pin_data]
pub(crate) struct LinkGroup {
    id: u32,
    key: GroupKey,
    limits: Limits,
    /// Known when the first connection is made.
    about: SetOnce<About>,
    /// What rings were made of when the group began.
    buffer_kind: BufferKind,
    #[pin]
    links: Mutex<[Option<Arc<Link>>; MAX_LINKS]>,
    /// Most links that the peer supports, once it has said so.
    peer_max_links: Atomic<u32>,
    /// Links that are in use, or the first one that is to be. Without one the group is of no use.
    alive: Atomic<u32>,
    #[pin]
    pool: Pool,
    /// How long the group lives without connections, in milliseconds.
    free_delay: u32,
    /// Idle time before TEST LINK, in milliseconds; 0 = never.
    test_link_time: u32,
    phase: Atomic<u32>,
    /// It is to be wound up by its work item, for this reason; [`NO_REASON`]: it is not.
    farewell: Atomic<u32>,
    /// Something has happened to the TCP connection of one of the connections.
    tcp_woken: Atomic<bool>,
    /// The peer has ended the group.
    peer_has_ended: Atomic<bool>,
    #[pin]
    changed: WaitQueue,
    #[pin]
    conns: SpinLockBh<Table>,
    #[pin]
    inbox: SpinLockBh<Inbox>,
    #[pin]
    flow: Mutex<Flows>,
    #[pin]
    rkeys: Rkeys,
    /// A link that is being added.
    #[pin]
    adding: SpinLockBh<Adding>,
    /// What an ADD LINK says behind its first 44 bytes.
    #[pin]
    tail: SpinLockBh<Tail>,
    /// Where the peer's RMBs are, on each link.
    #[pin]
    tokens: Mutex<RTokenTable<KVVec<Row>>>,
    #[pin]
    work: Work<LinkGroup>,
    /// Links are added.
    #[pin]
    links_work: Work<LinkGroup, 1>,
    /// Links that are lost are shut.
    #[pin]
    shut_work: Work<LinkGroup, 2>,
}

struct Table {
    entries: KVec<Entry>,
    used: usize,
    /// Entries that are [`Place::Retired`].
    retired: usize,
    /// All entries from here on are free.
    end: usize,
    /// Since when there is no connection.
    idle_since: Millis,
}

impl Table {
    /// The entries among which all are that are not free.
    fn in_use(&self) -> &[Entry] {
        self.entries.get(..self.end).unwrap_or(&self.entries)
    }

    /// The entry that a token names, if it is still that one's.
    fn entry(&self, token: u32) -> Option<&Entry> {
        let entry = self.entries.get(usize::from(index_of(token)))?;
        (entry.generation == token >> 8).then_some(entry)
    }

    /// As [`Self::entry`].
    fn entry_mut(&mut self, token: u32) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(usize::from(index_of(token)))?;
        (entry.generation == token >> 8).then_some(entry)
    }

    /// An entry has become free.
    fn shrink(&mut self) {
        self.end = self
            .in_use()
            .iter()
            .rposition(|entry| !matches!(entry.state, Place::Free))
            .map_or(0, |index| index.saturating_add(1));
    }
}

struct Entry {
    /// Counts the uses of the entry, so that no token comes twice soon.
    generation: u32,
    state: Place,
}

enum Place {
    Free,
    /// Its last connection's peer may still send immediates, which tell too little of a token: not to be used again
    /// before it says goodbye.
    Retired,
    Reserved,
    Taken(Arc<Conn>),
}

/// The state machines of the links.
type Flows = [Option<LinkFlow>; MAX_LINKS];

struct Inbox {
    messages: [(Slot, [u8; LLC_LEN]); INBOX],
    first: usize,
    len: usize,
}

kernel::impl_has_work! {
    impl HasWork<Self> for LinkGroup { self.work }
    impl HasWork<Self, 1> for LinkGroup { self.links_work }
    impl HasWork<Self, 2> for LinkGroup { self.shut_work }
}

impl WorkItem for LinkGroup {
    type Pointer = Arc<LinkGroup>;

    fn run(this: Arc<LinkGroup>) {
        this.serve();
    }
}

/// A token is the entry's number in the low byte and its generation above, and never zero.
fn token_of(index: usize, generation: u32) -> u32 {
    (generation << 8) | (index as u32 & 0xff)
}

/// The number of the entry that a token names.
pub(super) fn index_of(token: u32) -> u8 {
    (token & 0xff) as u8
}

impl LinkGroup {
    /// Begins a group with a link on `path`, ready to be connected. Process context.
    pub(crate) fn begin(
        id: u32,
        key: GroupKey,
        limits: Limits,
        path: &Path,
        settings: &Settings,
    ) -> Result<Arc<Self>> {
        let link = Link::new(Slot::FIRST, FIRST_LINK, path, settings)?;
        let group = Self::new(id, key, limits, settings)?;
        group.enter(&link);
        group.count(&link, true);
        if let Err(err) = link.attach(&group) {
            group.drop_link(&link);
            return Err(err);
        }
        group.trace(trace::Life::Begin);
        Ok(group)
    }

    /// What the trace tells of it.
    fn traced(&self) -> trace::Group {
        let link = self.link();
        trace::Group {
            number: self.id,
            net: self.key.net,
            server: self.key.role == Role::Server,
            device: link.map_or(trace::Name::new(&[]), |link| {
                trace::Name::new(link.port().device.name().as_bytes())
            }),
        }
    }

    fn trace(&self, life: trace::Life) {
        trace::group(life, || self.traced());
    }

    /// Gives up a group that was just begun and that nobody knows.
    pub(crate) fn discard(self: &Arc<Self>) {
        self.end(DeleteReason::LOST_PATH, true);
    }

    fn new(id: u32, key: GroupKey, limits: Limits, settings: &Settings) -> Result<Arc<Self>> {
        let pool = Pool::new()?;
        let limits = match key.version {
            // Not negotiated: each side says in CONFIRM LINK what it supports.
            LlcVersion::V1 => Limits {
                max_links: settings.max_links(),
                ..limits
            },
            LlcVersion::V2 => limits,
        };
        let several = limits.max_links > 1;
        let tail = Tail::new(several && key.version == LlcVersion::V2)?;
        let rows = if several { MAX_RTOKENS } else { 0 };
        let tokens = RTokenTable::new(KVVec::from_elem(rtoken::EMPTY, rows, GFP_KERNEL)?);
        let mut entries = KVec::with_capacity(MAX_CONNS, GFP_KERNEL)?;
        for _ in 0..MAX_CONNS {
            entries.push(
                Entry {
                    generation: 0,
                    state: Place::Free,
                },
                GFP_KERNEL,
            )?;
        }
        // The client gives the server the chance to end the group first.
        let grace = match key.role {
            Role::Server => 0,
            Role::Client => 10,
        };
        let seconds = settings.lgr_free_delay_seconds().saturating_add(grace);
        Arc::pin_init(
            pin_init!(Self {
                id,
                key,
                limits,
                about: SetOnce::new(),
                buffer_kind: settings.buffer_kind(),
                links <- new_mutex!([const { None }; MAX_LINKS], "LinkGroup::links"),
                peer_max_links: Atomic::new(u32::from(u8::MAX)),
                alive: Atomic::new(0),
                pool <- pool,
                free_delay: seconds.saturating_mul(1000),
                test_link_time: settings.testlink_seconds().saturating_mul(1000),
                phase: Atomic::new(Phase::Forming as u32),
                farewell: Atomic::new(NO_REASON),
                tcp_woken: Atomic::new(false),
                peer_has_ended: Atomic::new(false),
                changed <- new_wait_queue!("LinkGroup::changed"),
                conns <- new_spinlock_bh!(
                    Table {
                        entries,
                        used: 0,
                        retired: 0,
                        end: 0,
                        idle_since: registry::now(),
                    },
                    "LinkGroup::conns"
                ),
                inbox <- new_spinlock_bh!(
                    Inbox { messages: [(Slot::FIRST, [0; LLC_LEN]); INBOX], first: 0, len: 0 },
                    "LinkGroup::inbox"
                ),
                flow <- new_mutex!([const { None }; MAX_LINKS], "LinkGroup::flow"),
                rkeys <- Rkeys::new(),
                adding <- new_spinlock_bh!(Adding::new(key.role, FIRST_LINK), "LinkGroup::adding"),
                tail <- new_spinlock_bh!(tail, "LinkGroup::tail"),
                tokens <- new_mutex!(tokens, "LinkGroup::tokens"),
                work <- new_work!("LinkGroup::work"),
                links_work <- new_work!("LinkGroup::links_work"),
                shut_work <- new_work!("LinkGroup::shut_work"),
            }),
            GFP_KERNEL,
        )
    }

    /// What it is for.
    pub(crate) fn key(&self) -> &GroupKey {
        &self.key
    }

    /// Number of the group on this host.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Its links, also those that are just being made or ended. Process context, as all that looks at them.
    pub(crate) fn links(&self) -> impl Iterator<Item = Arc<Link>> {
        self.links.lock().clone().into_iter().flatten()
    }

    /// The link at a place.
    pub(crate) fn link_at(&self, slot: Slot) -> Option<Arc<Link>> {
        self.links.lock().get(slot.index())?.clone()
    }

    /// A link to send control messages on: one that is in use, or else the first that there is.
    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        let active = self.links().find(|link| link.is_active());
        active.or_else(|| self.links().next())
    }

    /// The link that a group begins with, before it has another.
    pub(crate) fn first_link(&self) -> Result<Arc<Link>> {
        self.link_at(Slot::FIRST).ok_or(ENOTCONN)
    }

    /// Server: the link for a new connection, that with the fewest; while the group is being formed, its
    /// first one.
    pub(crate) fn choose_link(&self) -> Option<Arc<Link>> {
        let active = || {
            self.links()
                .filter(|link| link.is_active() && !link.is_spare())
        };
        let several = active().nth(1).is_some();
        let least = active().min_by_key(|link| several.then(|| self.connections_on(link)));
        least.or_else(|| self.links().find(|link| self.takes_connections(link)))
    }

    /// Whether a connection can be put on a link: one that is in use, or with which the group begins. Who makes a
    /// later one takes it down again if that fails, and no connection is to be on it then.
    pub(crate) fn takes_connections(&self, link: &Link) -> bool {
        match link.state() {
            LinkState::Active => !link.is_spare(),
            LinkState::Activating => self.state() == GroupState::Forming,
            LinkState::Inactive => false,
        }
    }

    /// The peer may not have the group any more: all links are to be tested.
    pub(crate) fn doubt_links(&self) {
        for link in self.links() {
            link.doubt();
        }
    }

    /// Has it a link between the two ports of `key`?
    pub(crate) fn is_between(&self, key: &GroupKey) -> bool {
        self.key == *key
            || self.links().any(|link| {
                link.is_active()
                    && (link.gid(), link.vlan()) == (key.local_gid, key.vlan)
                    && link.far().is_some_and(|far| {
                        // A Proposal of version 2 only need not tell the MAC.
                        let same_mac =
                            self.key.version == LlcVersion::V2 || far.mac == key.peer_mac;
                        far.gid == key.peer_gid && same_mac
                    })
            })
    }

    /// The peer has named an RMB of its own for a link. False without room in the table: a connection to it cannot move.
    pub(super) fn learn(&self, link: &Link, token: RToken) -> bool {
        let mut tokens = self.tokens.lock();
        // Whoever takes the link down says so before he forgets what was known on it. A group that can have one link only
        // has no table.
        link.is_shut()
            || self.limits.max_links < 2
            || tokens.add(link.slot().index(), token).is_ok()
    }

    /// The peer takes back RMBs, which may have been told only by the CLC messages of their connections.
    fn forget_rkeys(&self, link: &Link, request: &DeleteRkey) {
        let slot = link.slot();
        for rkey in request.iter() {
            let row = self.tokens.lock().remove(slot.index(), rkey);
            let others = row.unwrap_or(rtoken::EMPTY);
            self.for_each_conn(|conn| conn.lose_target(slot, rkey, &others));
        }
    }

    /// The peer has a new RMB (RFC 7609, section 3.5.5.2.1).
    fn learn_rkey(&self, link: &Link, request: &ConfirmRkey) -> Learned {
        if self.adding.lock().flow.is_said() {
            return Learned::Later;
        }
        if !self.learn(link, request.rtoken) {
            return Learned::No;
        }
        let others = request.others.iter().take(request.other_links.into());
        for (number, token) in others {
            if let Some(other) = self.links().find(|link| link.number() == *number) {
                let (from, to) = (link.slot().index(), other.slot().index());
                let mut tokens = self.tokens.lock();
                tokens.add_other(from, request.rtoken.rkey, to, *token);
            }
        }
        Learned::Yes
    }

    /// Client: waits until a link is in use that the server has chosen: it is sure of a new one a moment earlier.
    /// False if it is not. Process context.
    pub(crate) fn await_link(&self, link: &Link) -> bool {
        const WAIT_MS: u32 = 2_000;

        let settled = || match link.state() {
            LinkState::Active => Some(true),
            LinkState::Activating => None,
            LinkState::Inactive => Some(false),
        };
        self.changed.wait(WAIT_MS, settled).unwrap_or(false)
    }

    /// Client: the link that the server has chosen, by its end of it.
    pub(crate) fn link_to(&self, far: &FarEnd) -> Option<Arc<Link>> {
        let leads_there = |link: &Arc<Link>| {
            link.far()
                .is_some_and(|end| (end.gid, end.qpn) == (far.gid, far.qpn))
        };
        // A lost one may have had the same number.
        self.links()
            .filter(|link| !link.is_lost())
            .find(leads_there)
    }

    /// Enters a link.
    fn enter(&self, link: &Arc<Link>) {
        if let Some(place) = self.links.lock().get_mut(link.slot().index()) {
            *place = Some(link.clone());
        }
    }

    /// Counts a link among those that are in use, or not any more.
    fn count(&self, link: &Link, on: bool) {
        if !link.count(on) {
            return;
        }
        if on {
            self.alive.fetch_add(1, Full);
        } else {
            self.alive.fetch_sub(1, Full);
        }
    }

    /// Takes down a link that no connection uses any more, or will. Process context.
    fn drop_link(&self, link: &Arc<Link>) {
        self.count(link, false);
        link.shut();
        // Once: its place can be another one's afterwards. Whoever made it and the end of the group may meet.
        if !link.begin_drop() {
            return;
        }
        self.pool.unmap(link.slot());
        let index = link.slot().index();
        self.tokens.lock().forget_link(index);
        if let Some(flow) = self.flow.lock().get_mut(index) {
            *flow = None;
        }
        let mut links = self.links.lock();
        let place = links.get_mut(index).and_then(Option::take);
        drop(links);
        drop(place);
    }

    /// Is the group neither ended nor about to?
    pub(crate) fn is_usable(&self) -> bool {
        self.phase.load(Acquire) != Phase::Dead as u32 && self.alive.load(Relaxed) > 0
    }

    /// Is a link of the group on `device`?
    pub(crate) fn uses(&self, device: &Arc<Device>) -> bool {
        self.links().any(|link| link.is_on(device))
    }

    /// Its rings.
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Its limits.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether both sides understand CDC messages in immediates.
    pub(super) fn uses_immediates(&self) -> bool {
        self.limits.vendor.contains(VendorOptions::IMMEDIATE)
    }

    /// Notes what first contact has told.
    pub(crate) fn set_about(&self, mode: &Mode, terms: &FirstContactTerms) {
        if let Mode::V2 { eid } = mode {
            self.about.populate(About {
                eid: *eid,
                os: terms.peer_os,
                peer_host: terms.peer_hostname,
                direct: terms.direct,
            });
        }
    }

    /// What first contact has told, with version 2.
    pub(crate) fn about(&self) -> Option<&About> {
        self.about.as_ref()
    }

    /// What rings were made of when the group began.
    pub(crate) fn buffer_kind(&self) -> BufferKind {
        self.buffer_kind
    }

    /// Our name for a link.
    pub(crate) fn link_user_id(&self, link: &Link) -> LinkUserId {
        LinkUserId(self.id | u32::from(link.number().0))
    }

    /// How far it is.
    pub(crate) fn state(&self) -> GroupState {
        match self.phase.load(Acquire) {
            phase if phase == Phase::Forming as u32 => GroupState::Forming,
            phase if phase == Phase::Active as u32 => GroupState::Active,
            _ => GroupState::Dead,
        }
    }

    /// Its connections, those among them that are just being made or ended.
    pub(crate) fn connections(&self) -> u32 {
        self.conns.lock().used as u32
    }

    /// Its connections on a link, but for those that are just being made or ended.
    pub(crate) fn connections_on(&self, link: &Link) -> u32 {
        let mut count = 0;
        self.for_each_conn(|conn| count += u32::from(conn.is_on(link)));
        count
    }

    /// How much the loss of a port costs it.
    pub(crate) fn kind(&self) -> GroupKind {
        if self.links().filter(|link| link.is_active()).count() < 2 {
            return GroupKind::Single;
        }
        match self.asymmetric_link() {
            None => GroupKind::Symmetric,
            Some(link) if self.shares(&link, Link::shares_port) => GroupKind::AsymmetricLocal,
            Some(_) => GroupKind::AsymmetricPeer,
        }
    }

    /// Does a link in use have something in common with another one in use?
    fn shares(&self, link: &Arc<Link>, what: impl Fn(&Link, &Link) -> bool) -> bool {
        self.links()
            .any(|other| other.is_active() && !Arc::ptr_eq(&other, link) && what(link, &other))
    }

    /// The link that is there for want of a better one: it shares a port with another one, here or at the
    /// peer. Of three it is the one that does on both sides, else the later one.
    fn asymmetric_link(&self) -> Option<Arc<Link>> {
        let degree = |link: &Arc<Link>| {
            let here = self.shares(link, Link::shares_port);
            let there = self.shares(link, Link::shares_far_port);
            (u8::from(here) + u8::from(there), link.number().0)
        };
        let active = self.links().filter(|link| link.is_active());
        let last = active.max_by_key(degree)?;
        (degree(&last).0 > 0).then_some(last)
    }

    /// Is there room for another connection?
    pub(crate) fn has_room(&self) -> bool {
        let table = self.conns.lock();
        table.used.saturating_add(table.retired) < usize::from(self.limits.max_conns)
    }

    // First contact.

    /// Begins the exchange of CONFIRM LINK on a link; see [`LinkFlow::start`]. Process context.
    pub(crate) fn begin_confirm(&self, link: &Link, far: &FarEnd) -> Result {
        self.begin_confirm_after(link, far, 0)
    }

    /// The same; a client's server may have to tell so many milliseconds long of its RMBs first.
    fn begin_confirm_after(&self, link: &Link, far: &FarEnd, keys_ms: u32) -> Result {
        let params = LinkParams {
            role: self.key.role,
            version: self.key.version,
            mac: link.mac(),
            gid: link.gid(),
            qpn: link.qpn(),
            user_id: self.link_user_id(link),
            peer_gid: far.gid,
            peer_qpn: far.qpn,
            link: match (self.key.role, self.state()) {
                (Role::Client, GroupState::Forming) => LinkNumber(0),
                _ => link.number(),
            },
            max_links: self.limits.max_links,
            max_conns: self.limits.max_conns,
            test_link_time: self.test_link_time,
        };
        let actions = {
            let mut flows = self.flow.lock();
            let place = flows.get_mut(link.slot().index()).ok_or(EINVAL)?;
            let flow = place.insert(LinkFlow::new(params));
            let actions = flow.start(registry::now());
            flow.wait_longer(keys_ms);
            actions
        };
        Self::send(link, &actions)
    }

    /// Waits until the peer's CONFIRM LINK, or its answer to ours, has come; [`None`] when the time
    /// is up. Process context.
    pub(crate) fn wait_confirmed(&self, link: &Link, timeout_ms: u32) -> Option<Confirmation> {
        self.changed.wait(timeout_ms, || {
            if !self.is_usable() || link.has_failed() {
                return Some(Confirmation::Ended);
            }
            link.confirmation()
        })
    }

    /// Client: answers the server's CONFIRM LINK.
    pub(crate) fn answer_confirm(&self, link: &Link) -> Result {
        let actions = {
            let mut flows = self.flow.lock();
            let flow = flow_of(&mut flows, link).ok_or(ENOTCONN)?;
            flow.confirm_link_ready(registry::now())
        };
        Self::send(link, &actions)
    }

    /// The first connection is made: others may use the group.
    pub(crate) fn activate(&self) {
        if let Ok(link) = self.first_link() {
            link.activate();
        }
        let _ = self
            .phase
            .cmpxchg(Phase::Forming as u32, Phase::Active as u32, Full);
        self.trace(trace::Life::LinkUp);
        self.changed.wake_all();
    }

    /// Waits until the first connection is made; false if it failed. Process context.
    pub(crate) fn wait_formed(&self, timeout_ms: u32) -> bool {
        self.changed
            .wait(timeout_ms, || match self.phase.load(Acquire) {
                phase if phase == Phase::Active as u32 => Some(true),
                phase if phase == Phase::Forming as u32 => None,
                _ => Some(false),
            })
            .unwrap_or(false)
    }

    // Connections.

    /// Reserves an alert token for a new connection. Process context.
    pub(crate) fn reserve_token(&self) -> Option<u32> {
        self.try_reserve_token().or_else(|| {
            // Where connections come and go quickly, most may be over, and wait for the work item.
            self.reap();
            self.try_reserve_token()
        })
    }

    fn try_reserve_token(&self) -> Option<u32> {
        let mut table = self.conns.lock();
        // The server chooses the group and keeps to its limit. Connections that it has seen the end
        // of may still be ending here, so that the client must be able to take some more.
        let most = match self.key.role {
            Role::Server => usize::from(self.limits.max_conns),
            Role::Client => MAX_CONNS,
        };
        if !self.is_usable() || table.used.saturating_add(table.retired) >= most {
            return None;
        }
        let (index, entry) = table
            .entries
            .iter_mut()
            .enumerate()
            .find(|(_, entry)| matches!(entry.state, Place::Free))?;
        // 24 bits, and never zero.
        entry.generation = entry.generation.wrapping_add(1) & 0x00ff_ffff;
        if entry.generation == 0 {
            entry.generation = 1;
        }
        entry.state = Place::Reserved;
        let token = token_of(index, entry.generation);
        table.used = table.used.saturating_add(1);
        table.end = table.end.max(index.saturating_add(1));
        Some(token)
    }

    /// Enters a connection under the token reserved for it; fails when the group has ended.
    pub(crate) fn install(&self, token: u32, conn: Arc<Conn>) -> Result {
        let mut table = self.conns.lock();
        if !self.is_usable() {
            return Err(ENOTCONN);
        }
        let index = usize::from(index_of(token));
        let entry = table.entries.get_mut(index).ok_or(EINVAL)?;
        entry.state = Place::Taken(conn);
        Ok(())
    }

    /// Gives back a token, with or without a connection. Process context.
    pub(crate) fn release_token(&self, token: u32) {
        let conn = {
            let mut table = self.conns.lock();
            let Some(entry) = table.entry_mut(token) else {
                return;
            };
            if matches!(entry.state, Place::Free | Place::Retired) {
                return;
            }
            let retire = self.uses_immediates()
                && matches!(&entry.state, Place::Taken(conn) if conn.peer_may_send());
            let rest = if retire { Place::Retired } else { Place::Free };
            let conn = core::mem::replace(&mut entry.state, rest);
            table.used = table.used.saturating_sub(1);
            if table.used == 0 {
                table.idle_since = registry::now();
            }
            table.retired = table.retired.saturating_add(retire.into());
            table.shrink();
            conn
        };
        drop(conn);
    }

    /// The peer has said goodbye to a connection that is gone here: it sends nothing more to that token. Any context.
    pub(super) fn peer_has_left(&self, token: u32) {
        let mut table = self.conns.lock();
        match table.entry_mut(token) {
            Some(entry) if matches!(entry.state, Place::Retired) => entry.state = Place::Free,
            _ => return,
        }
        table.retired = table.retired.saturating_sub(1);
        table.shrink();
    }

    /// Calls `f` with the connection that a token names, if there is one. Any context.
    pub(crate) fn with_conn<R>(&self, token: u32, f: impl FnOnce(&Arc<Conn>) -> R) -> Option<R> {
        let table = self.conns.lock();
        match &table.entry(token)?.state {
            Place::Taken(conn) => Some(f(conn)),
            _ => None,
        }
    }

    /// As [`Self::with_conn`], for what an immediate tells of a token.
    pub(super) fn with_short_token<R>(
        &self,
        token: ShortToken,
        f: impl FnOnce(&Arc<Conn>) -> R,
    ) -> Option<R> {
        let table = self.conns.lock();
        let index = usize::from(token.index());
        match table.entries.get(index)? {
            Entry {
                generation,
                state: Place::Taken(conn),
            } if token == ShortToken::of(AlertToken(token_of(index, *generation))) => Some(f(conn)),
            _ => None,
        }
    }

    /// Lets connections that wait for a slot of `link` send, in turn: the first is the one that was
    /// left without last time. Any context.
    pub(super) fn feed(&self, link: &Link) {
        let table = self.conns.lock();
        while let Some(index) = link.next_turn() {
            let entry = table.entries.get(usize::from(index));
            if let Some(Place::Taken(conn)) = entry.map(|entry| &entry.state) {
                if conn.feed(link) {
                    link.same_turn(index);
                    break;
                }
            }
        }
    }

    /// Calls `f` for every connection. Any context.
    pub(crate) fn for_each_conn(&self, mut f: impl FnMut(&Arc<Conn>)) {
        let table = self.conns.lock();
        for entry in table.in_use() {
            if let Place::Taken(conn) = &entry.state {
                f(conn);
            }
        }
    }

    /// The connections, one after the other, without a lock between them. Process context.
    pub(crate) fn conns(&self) -> impl Iterator<Item = Arc<Conn>> + '_ {
        let mut index = 0usize;
        core::iter::from_fn(move || {
            let table = self.conns.lock();
            loop {
                let entry = table.in_use().get(index)?;
                index = index.saturating_add(1);
                if let Place::Taken(conn) = &entry.state {
                    return Some(conn.clone());
                }
            }
        })
    }

    // Messages.

    /// Takes an LLC message from the link. Bottom-half context.
    pub(super) fn queue_llc(self: &Arc<Self>, link: &Link, received: &Received<'_>) {
        // RFC 7609, section A.3: LLC messages have 44 bytes.
        let Some(message) = received.head().first_chunk::<LLC_LEN>() else {
            return;
        };
        // Of those of SMC-Rv2 that have more it is ADD LINK that matters, and there is one at a time.
        if is_long_add_link(message) {
            let mut tail = self.tail.lock();
            let tail = &mut *tail;
            tail.len = received.read_tail(&mut tail.bytes);
            tail.on = link.slot();
        }
        {
            let mut inbox = self.inbox.lock();
            let place = (inbox.first + inbox.len) % INBOX;
            if inbox.len >= INBOX {
                return;
            }
            if let Some(slot) = inbox.messages.get_mut(place) {
                *slot = (link.slot(), *message);
            }
            inbox.len += 1;
        }
        self.kick();
    }

    fn next_llc(&self) -> Option<(Slot, [u8; LLC_LEN])> {
        let mut inbox = self.inbox.lock();
        if inbox.len == 0 {
            return None;
        }
        let message = *inbox.messages.get(inbox.first)?;
        inbox.first = (inbox.first + 1) % INBOX;
        inbox.len -= 1;
        Some(message)
    }

    /// Whether the peer has said that the group ends, or answered us that it does: as both may end it at once, the last
    /// message of one of them may find nobody.
    fn knows_of_end(&self) -> bool {
        let inbox = self.inbox.lock();
        let messages = inbox.messages.iter().cycle().skip(inbox.first);
        let mut waiting = messages.take(inbox.len);
        self.peer_has_ended.load(Relaxed) || waiting.any(|(_, message)| ends_group(message))
    }

    /// Has [`Self::serve`] run soon. Any context.
    pub(crate) fn kick(self: &Arc<Self>) {
        if let Some(queue) = queues::control().queue() {
            // If it is queued already, it will see everything.
            let _ = queue.enqueue::<Arc<Self>, 0>(self.clone());
        }
    }

    /// Something has happened to the TCP connection of a connection. Any context.
    pub(super) fn tcp_woken(self: &Arc<Self>) {
        self.tcp_woken.store(true, Release);
        self.kick();
    }

    /// A link has failed. Any context.
    pub(super) fn link_failed(self: &Arc<Self>, link: &Link, failure: LinkFailure) {
        if link.fail(failure) {
            self.count(link, false);
            self.changed.wake_all();
            self.kick();
        }
    }

    /// The work item: LLC messages, connections that have ended, and the end of links and of the group.
    fn serve(self: &Arc<Self>) {
        // A peer that sends without end keeps nothing else from being done.
        for left in (0..INBOX).rev() {
            let Some((slot, message)) = self.next_llc() else {
                break;
            };
            if let Some(link) = self.link_at(slot) {
                self.take(&link, |flow| flow.handle_bytes(&message, registry::now()));
            }
            if left == 0 {
                self.kick();
            }
        }
        for link in self.links().filter(|link| link.has_lost_port()) {
            self.link_failed(&link, LinkFailure::Port);
        }
        // It is not worth while to move its connections any more.
        match self.farewell.xchg(NO_REASON, Full) {
            NO_REASON => {}
            reason => return self.wind_up(DeleteReason(reason), true, Goodbye::Due),
        }
        if self.tcp_woken.xchg(false, Full) {
            let now = registry::now();
            self.for_each_conn(|conn| conn.look_at_tcp(now));
        }
        self.leave_lost_links();
        self.lose_failed_links();
        self.lose_asymmetric();
        self.reap();
        self.ask_rkeys(registry::now());
    }

    /// Looks at everything that depends on the time. Process context.
    pub(crate) fn tick(self: &Arc<Self>, now: Millis) {
        for link in self.links() {
            link.reap();
            let heard = link.take_heard();
            let due = {
                let mut flows = self.flow.lock();
                flow_of(&mut flows, &link).is_some_and(|flow| {
                    if heard {
                        flow.on_activity(now);
                    }
                    flow.poll_timeout().is_some_and(|at| at.reached(now))
                })
            };
            if due {
                self.take(&link, |flow| flow.on_timeout(now));
            }
        }
        self.for_each_conn(|conn| conn.tick(now));
        self.check_adding(now);
        for link in self.links().filter(|link| link.is_active()) {
            match link.watch(now) {
                Seen::Well => {}
                Seen::Late => link.doubt(),
                Seen::Lost => self.link_failed(&link, LinkFailure::Lost),
            }
        }
        for link in self.links() {
            if link.take_doubt() {
                self.take(&link, |flow| flow.probe(now));
            }
        }
        if self.links().any(|link| link.is_spare()) {
            // The handshakes on it may be over.
            self.kick();
        }
        self.reap();
        self.ask_rkeys(now);
        let idle = {
            let table = self.conns.lock();
            table.used == 0 && table.idle_since.after(self.free_delay).reached(now)
        };
        if idle && self.phase.load(Acquire) == Phase::Active as u32 {
            self.end_soon(DeleteReason::PROGRAM, |table| table.used == 0);
        }
    }

    /// Lets the state machine of a link act, and does what it says.
    fn take(self: &Arc<Self>, link: &Arc<Link>, step: impl FnOnce(&mut LinkFlow) -> Actions) {
        let mut flows = self.flow.lock();
        let Some(flow) = flow_of(&mut flows, link) else {
            return;
        };
        let actions = step(flow);
        let answer = match actions.event {
            Some(LlcEvent::PeerRkey(request)) => {
                let learned = self.learn_rkey(link, &request);
                Some(flow.answer_confirm_rkey(&request, learned))
            }
            // Which of them was not known does not matter to the peer.
            Some(LlcEvent::PeerRkeysDeleted(request)) => {
                self.forget_rkeys(link, &request);
                Some(flow.answer_delete_rkey(&request, 0))
            }
            Some(LlcEvent::AddLink { msg, response }) => {
                self.take_add_link(link, flow, &msg, response)
            }
            _ => None,
        };
        drop(flows);
        let mut said = true;
        for message in [&actions.send, &answer].into_iter().flatten() {
            said &= self.say(link, message);
        }
        match actions.event {
            Some(LlcEvent::ConfirmLinkReceived(peer) | LlcEvent::LinkConfirmed(peer)) => {
                link.confirmed(peer.link, peer.user_id);
                self.peer_max_links.store(peer.max_links.into(), Relaxed);
                self.set_confirmation(link, Confirmation::Done);
            }
            Some(LlcEvent::ConfirmFailed(failure)) => {
                self.set_confirmation(link, Confirmation::Failed(failure));
            }
            Some(LlcEvent::RequestDone(request)) => self.rkey_answered(link, request, Answer::Done),
            Some(LlcEvent::RequestRefused { request, retry }) => {
                self.rkey_answered(link, request, Answer::Failed { retry });
            }
            Some(LlcEvent::RequestTimedOut(request)) => {
                self.rkey_answered(link, request, Answer::Missing);
            }
            Some(LlcEvent::LinkDown) => self.link_failed(link, LinkFailure::Silence),
            Some(LlcEvent::Terminate { reason, orderly }) => {
                self.peer_has_ended.store(true, Relaxed);
                self.end_as(reason, orderly, Goodbye::Answered(link.slot()));
            }
            Some(LlcEvent::Violation) => {
                let goodbye = if said {
                    Goodbye::Said(link.slot())
                } else {
                    Goodbye::Due
                };
                self.end_as(DeleteReason::PROTOCOL_VIOLATION, false, goodbye);
            }
            Some(LlcEvent::DeleteLink(request)) => self.take_delete_link(link, &request),
            Some(LlcEvent::AddLinkKeys { msg, response }) => self.take_keys(link, &msg, response),
            Some(LlcEvent::LinkRequested) => {
                self.invited();
                self.want_link();
            }
            _ => {}
        }
    }

    /// The peer is to be told of a new RMB (RFC 7609, section 3.5.5.2.1). Process context.
    ///
    /// With a single link the connection need not wait for the answer: its CLC messages name the key for
    /// that link. With several the peer must know all keys, to be able to move the connection.
    ///
    /// # Errors
    ///
    /// No memory to remember it by, or the group has ended: the RMB does not count as known any more.
    pub(super) fn confirm_rmb(self: &Arc<Self>, rmb: &Arc<Ring>) -> Result {
        self.rkeys.confirm(rmb).inspect_err(|_| {
            // Nothing remembers it: the next connection that uses it has it said. Who waits for the answer is not to.
            rmb.set_known(false);
            self.changed.wake_all();
        })?;
        self.kick();
        Ok(())
    }

    /// Waits until the peer knows all keys of an RMB, if it may need them; for so long that a handshake does
    /// not fail by it. Process context.
    pub(super) fn await_confirmed(&self, rmb: &Ring) {
        const WAIT_MS: u32 = 2_000;

        if self.links().filter(|link| link.is_active()).count() > 1 {
            self.changed.wait(WAIT_MS, || {
                (rmb.is_confirmed() || !rmb.is_known() || !self.is_usable()).then_some(())
            });
        }
    }

    /// The peer may still write to an RMB that is not needed any more: has it told not to (RFC 7609,
    /// section 3.5.5.2.2). Process context.
    pub(super) fn delete_rmb(self: &Arc<Self>, rmb: Arc<Ring>) {
        match self.rkeys.delete(rmb.clone()) {
            Ok(true) => self.kick(),
            Ok(false) => {
                for link in self.links().filter(|link| link.is_active()) {
                    self.link_failed(&link, LinkFailure::Unanswered);
                }
            }
            // There is no memory for the request.
            Err(_) => self.set_aside(&rmb),
        }
    }

    /// An RMB to which the peer may still write is not used again. It stays one of those that a group can have, so that
    /// there is an end of them. Process context.
    pub(super) fn set_aside(&self, rmb: &Arc<Ring>) {
        self.rkeys.forget(rmb);
        // Nothing is to be said about it, should a link come.
        rmb.set_known(false);
    }

    fn rkey_answered(self: &Arc<Self>, link: &Link, request: Request, answer: Answer) {
        match self.rkeys.answered(request, answer, registry::now()) {
            Some(Settled::Returned(rmb)) => {
                rmb.set_known(false);
                self.pool.put(&rmb, rmb.len());
            }
            Some(Settled::Confirmed) => self.changed.wake_all(),
            Some(Settled::Refused(rmb)) => {
                // With a single link that does not matter: the CLC messages have told it all. The next connection that
                // uses it has it said again.
                rmb.set_known(false);
                self.changed.wake_all();
            }
            // A peer that lives and does not answer keeps our memory for ever.
            Some(Settled::Unanswered) => self.link_failed(link, LinkFailure::Unanswered),
            None => {}
        }
        self.kick();
    }

    /// Makes the next request about RMBs.
    fn ask_rkeys(self: &Arc<Self>, now: Millis) {
        if self.is_adding() {
            return;
        }
        for link in self.links().filter(|link| link.is_active()) {
            let mut others = self
                .links()
                .filter(|other| other.is_active() && other.slot() != link.slot());
            let others = [others.next(), others.next()];
            let actions = {
                let mut flows = self.flow.lock();
                flow_of(&mut flows, &link)
                    .and_then(|flow| self.rkeys.ask(&link, &others, flow, now))
            };
            let Some(actions) = actions else {
                continue;
            };
            if let Some(message) = &actions.send {
                self.say(&link, message);
            }
            return;
        }
    }

    fn set_confirmation(&self, link: &Link, confirmation: Confirmation) {
        link.set_confirmation(confirmation);
        self.changed.wake_all();
    }

    /// Says something on a link, which is given up if that cannot be: whether it is on its way.
    fn say(self: &Arc<Self>, link: &Arc<Link>, message: &[u8; LLC_LEN]) -> bool {
        let sent = link.send_llc(message);
        match sent {
            // The peer has asked for more than can wait, and asks again for what it misses; so do we.
            Ok(()) | Err(EBUSY) => {}
            Err(_) => self.link_failed(link, LinkFailure::Post),
        }
        sent.is_ok()
    }

    fn send(link: &Link, actions: &Actions) -> Result {
        match &actions.send {
            Some(message) => link.send_llc(message),
            None => Ok(()),
        }
    }

    /// Frees connections that are over. Process context.
    fn reap(&self) {
        let next = || {
            let table = self.conns.lock();
            let mut entries = table.in_use().iter();
            entries.find_map(|entry| match &entry.state {
                Place::Taken(conn) if conn.is_over() => Some(conn.clone()),
                _ => None,
            })
        };
        while let Some(conn) = next() {
            self.release_token(conn.token());
            conn.give_back();
        }
    }

    // The end.

    /// Ends the group because its device, the module or the system goes; see [`Self::end_soon`].
    pub(crate) fn end_orderly(self: &Arc<Self>) {
        self.end_soon(DeleteReason::OPERATOR, |_| true);
    }

    /// Ends the group as [`Self::end`] does if `condition` holds, but from its work item: that waits for a peer or a device
    /// which may be dead, and no other group is to wait for it. From here on nobody uses the group. Process context.
    fn end_soon(self: &Arc<Self>, reason: DeleteReason, condition: impl FnOnce(&Table) -> bool) {
        if self.mark_dead(condition) {
            self.changed.wake_all();
            self.farewell.store(reason.0, Release);
            self.kick();
        }
    }

    /// A port of `device` has changed. Process context, under a lock of the RDMA core.
    pub(crate) fn check_port(self: &Arc<Self>, device: &Arc<Device>, port: u32, event: PortEvent) {
        for link in self.links().filter(|link| link.is_on(device)) {
            let own = link.port();
            if port != 0 && port != own.number {
                continue;
            }
            match event {
                PortEvent::Active => continue,
                PortEvent::DeviceFatal => self.link_failed(&link, LinkFailure::Port),
                PortEvent::Error => link.doubt_port(),
                PortEvent::GidChange => link.doubt_gid(),
            }
            // The device is asked there: see `Link::has_lost_port`.
            self.kick();
        }
    }

    /// Ends the group and all its connections, where the peer cannot be told. Does nothing the second time. Process
    /// context, also from the group's own work item.
    pub(crate) fn end(self: &Arc<Self>, reason: DeleteReason, orderly: bool) {
        self.end_as(reason, orderly, Goodbye::Needless);
    }

    fn end_as(self: &Arc<Self>, reason: DeleteReason, orderly: bool, goodbye: Goodbye) {
        if self.mark_dead(|_| true) {
            self.wind_up(reason, orderly, goodbye);
        }
    }

    /// Lets nobody use the group any more, if `condition` holds; false if it does not, or if that was
    /// done before.
    fn mark_dead(&self, condition: impl FnOnce(&Table) -> bool) -> bool {
        let registry = registry::get();
        // Under the lock, so that nobody installs a connection afterwards, and who finds it dead finds it counted.
        let table = self.conns.lock();
        let marked =
            condition(&table) && self.phase.xchg(Phase::Dead as u32, Full) != Phase::Dead as u32;
        if let (true, Some(registry)) = (marked, &registry) {
            registry.group_ending();
        }
        drop(table);
        marked
    }

    /// All of [`Self::end`] but the decision. Once, after [`Self::mark_dead`].
    fn wind_up(self: &Arc<Self>, reason: DeleteReason, orderly: bool, goodbye: Goodbye) {
        self.changed.wake_all();
        if let Some(registry) = registry::get() {
            registry.forget(self);
        }
        // First, so that nothing more is sent: the queue may hold seconds of data already.
        self.for_each_conn(|conn| conn.group_down());
        let failure = self.links().find_map(|link| link.failure());
        let way = self
            .links()
            .filter(|link| link.state() != LinkState::Inactive && link.can_send())
            .find(|link| match goodbye {
                Goodbye::Said(slot) | Goodbye::Answered(slot) => link.slot() == slot,
                Goodbye::Due | Goodbye::Needless => true,
            });
        if let (Goodbye::Due, Some(link)) = (goodbye, &way) {
            // RFC 7609, section 4.6: tell the peer that all links go.
            let message = {
                let mut flows = self.flow.lock();
                flow_of(&mut flows, link).map(|flow| flow.terminate(reason, orderly))
            };
            if let Some(message) = message {
                let _ = link.send_llc(&message);
            }
        }
        // That message may not get through.
        self.conns().for_each(|conn| conn.reset_tcp());
        if failure.is_some() || !orderly {
            if let Some(link) = self.link() {
                // enum smc_link_state: inactive.
                trace::link_down(&*link, &**self, 1, || self.traced());
            }
        }
        self.trace(trace::Life::End(reason.0));
        if let Some(link) = way {
            // What has just been said, here or in answer to the peer, is to get through. A peer that has ended the
            // group may be gone before it can acknowledge that.
            link.finish(|| match goodbye {
                Goodbye::Due | Goodbye::Said(_) if !self.knows_of_end() => FINISH_MS,
                _ => FINISH_ANSWER_MS,
            });
        }
        if !orderly {
            let (id, peer) = (self.id, self.key.peer_gid);
            match (failure, goodbye) {
                (Some(failure), _) => {
                    pr_warn_ratelimited!("link group {id} to {peer:?} ended: {failure}\n");
                }
                (None, Goodbye::Said(_)) => pr_warn_ratelimited!(
                    "link group {id} to {peer:?} ended: the peer has sent what is no LLC message\n"
                ),
                (None, _) => pr_warn_ratelimited!(
                    "link group {id} to {peer:?} ended by the peer: reason {:#010x}\n",
                    reason.0
                ),
            }
        }
        for link in self.links() {
            self.drop_link(&link);
        }
        self.rkeys.close();
        // Nothing completes any more, so nothing waits for it.
        for conn in self.conns() {
            self.release_token(conn.token());
            let _ = conn.leave();
        }
        self.pool.clear();
        if let Some(registry) = registry::get() {
            registry.group_ended();
        }
    }
}

fn flow_of<'a>(flows: &'a mut Flows, link: &Link) -> Option<&'a mut LinkFlow> {
    flows.get_mut(link.slot().index())?.as_mut()
}
