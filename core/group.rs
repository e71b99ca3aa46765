// SPDX-License-Identifier: GPL-2.0

//! Link groups: all connections between two hosts that share their links (RFC 7609, section 2.2).

use super::{
    buffers::Ring,
    conn::Conn,
    link::{
        Link,
        FINISH_ANSWER_MS,
        FINISH_MS, //
    },
    llc::{
        flow::{
            Actions,
            ConfirmFailure,
            LinkFlow,
            LinkParams,
            LlcEvent,
            Request,
            Role, //
        },
        wire::{
            DeleteReason,
            LlcVersion,
            LLC_LEN, //
        }, //
    },
    path::Path,
    registry,
    rkeys::{
        Answer,
        Rkeys,
        Settled, //
    },
    time::Millis,
    types::{
        Eid,
        Gid,
        LinkNumber,
        LinkUserId,
        Mac,
        PeerId,
        Qpn24, //
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
        wire::OsType, //
    },
    diag::trace,
    ib::verbs::{
        client::PortEvent,
        device::Device,
        wait::{
            new_wait_queue,
            WaitQueue, //
        },
        wr::Status, //
    },
    kapi::lock::{
        new_spinlock_bh,
        SpinLockBh, //
    },
    queues,
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
    /// Cookie of our network namespace.
    pub(crate) net: u64,
}

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
    /// Nothing was heard of the peer, and it does not answer TEST LINK.
    Silence,
    /// The peer does not answer requests about RMBs.
    Unanswered,
    /// The port is down, or has lost its address.
    Port,
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
            Self::Silence => f.write_str("the peer does not answer TEST LINK"),
            Self::Unanswered => f.write_str("the peer does not answer CONFIRM or DELETE RKEY"),
            Self::Port => f.write_str("the RDMA port is down or has lost its address"),
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
    /// The peer's name for the link, once it has confirmed it.
    peer_user_id: Atomic<u32>,
    /// Peer's queue pair of the first link: how a client finds the group the server has chosen.
    peer_qpn: Atomic<u32>,
    link: Arc<Link>,
    /// How long the group lives without connections, in milliseconds.
    free_delay: u32,
    /// Idle time before TEST LINK, in milliseconds; 0 = never.
    test_link_time: u32,
    phase: Atomic<u32>,
    failed: Atomic<bool>,
    /// The first failure of the link.
    #[pin]
    failure: SpinLockBh<Option<LinkFailure>>,
    /// Something has come from the peer since the last tick.
    heard: Atomic<bool>,
    /// Something has happened to the TCP connection of one of the connections.
    tcp_woken: Atomic<bool>,
    /// The link is to be tested, whatever the idle time.
    doubtful: Atomic<bool>,
    #[pin]
    confirmation: SpinLockBh<Option<Confirmation>>,
    #[pin]
    changed: WaitQueue,
    #[pin]
    conns: SpinLockBh<Table>,
    #[pin]
    inbox: SpinLockBh<Inbox>,
    #[pin]
    flow: Mutex<Option<LinkFlow>>,
    #[pin]
    rkeys: Rkeys,
    #[pin]
    work: Work<LinkGroup>,
}

struct Table {
    entries: KVec<Entry>,
    used: usize,
    /// The entry that gets the next free slot.
    next_fed: usize,
    /// Since when there is no connection.
    idle_since: Millis,
}

struct Entry {
    /// Counts the uses of the entry, so that no token comes twice soon.
    generation: u32,
    state: Place,
}

enum Place {
    Free,
    Reserved,
    Taken(Arc<Conn>),
}

struct Inbox {
    messages: [[u8; LLC_LEN]; INBOX],
    first: usize,
    len: usize,
}

kernel::impl_has_work! {
    impl HasWork<Self> for LinkGroup { self.work }
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

impl LinkGroup {
    /// Begins a group with a link on `path`, ready to be connected. Process context.
    pub(crate) fn begin(
        id: u32,
        key: GroupKey,
        limits: Limits,
        path: &Path,
        settings: &Settings,
    ) -> Result<Arc<Self>> {
        let link = Link::new(path, settings)?;
        let group = Self::new(id, key, limits, link, settings)?;
        group
            .link
            .attach(&group)
            .inspect_err(|_| group.link.shut())?;
        group.trace(trace::Life::Begin);
        Ok(group)
    }

    /// What the trace tells of it.
    fn traced(&self) -> trace::Group {
        trace::Group {
            number: self.id,
            net: self.key.net,
            server: self.key.role == Role::Server,
            device: trace::Name::new(self.link.port().device.name().as_bytes()),
        }
    }

    fn trace(&self, life: trace::Life) {
        trace::group(life, || self.traced());
    }

    /// Gives up a group that was just begun and that nobody knows.
    pub(crate) fn discard(self: &Arc<Self>) {
        self.end(DeleteReason::LOST_PATH, true, false);
    }

    fn new(
        id: u32,
        key: GroupKey,
        limits: Limits,
        link: Arc<Link>,
        settings: &Settings,
    ) -> Result<Arc<Self>> {
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
                peer_user_id: Atomic::new(0),
                peer_qpn: Atomic::new(0),
                link,
                free_delay: seconds.saturating_mul(1000),
                test_link_time: settings.testlink_seconds().saturating_mul(1000),
                phase: Atomic::new(Phase::Forming as u32),
                failed: Atomic::new(false),
                failure <- new_spinlock_bh!(None, "LinkGroup::failure"),
                heard: Atomic::new(false),
                tcp_woken: Atomic::new(false),
                doubtful: Atomic::new(false),
                confirmation <- new_spinlock_bh!(None, "LinkGroup::confirmation"),
                changed <- new_wait_queue!("LinkGroup::changed"),
                conns <- new_spinlock_bh!(
                    Table { entries, used: 0, next_fed: 0, idle_since: registry::now() },
                    "LinkGroup::conns"
                ),
                inbox <- new_spinlock_bh!(
                    Inbox { messages: [[0; LLC_LEN]; INBOX], first: 0, len: 0 },
                    "LinkGroup::inbox"
                ),
                flow <- new_mutex!(None, "LinkGroup::flow"),
                rkeys <- Rkeys::new(),
                work <- new_work!("LinkGroup::work"),
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

    /// Number of the link in the group.
    pub(crate) fn link_number(&self) -> LinkNumber {
        FIRST_LINK
    }

    /// The link.
    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Is the group neither ended nor about to?
    pub(crate) fn is_usable(&self) -> bool {
        self.phase.load(Acquire) != Phase::Dead as u32 && !self.failed.load(Relaxed)
    }

    /// Is a link of the group on `device`?
    pub(crate) fn uses(&self, device: &Arc<Device>) -> bool {
        Arc::ptr_eq(&self.link.port().device, device)
    }

    /// Does the first link lead to this queue pair of the peer's?
    pub(crate) fn leads_to(&self, qpn: Qpn24) -> bool {
        self.peer_qpn.load(Relaxed) == qpn.value()
    }

    /// Its limits.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
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

    /// Our name for the link.
    pub(crate) fn link_user_id(&self) -> LinkUserId {
        LinkUserId(self.id | u32::from(self.link_number().0))
    }

    /// The peer's name for the link; 0 before it has confirmed it.
    pub(crate) fn peer_link_user_id(&self) -> LinkUserId {
        LinkUserId(self.peer_user_id.load(Relaxed))
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

    /// Is there room for another connection?
    pub(crate) fn has_room(&self) -> bool {
        self.conns.lock().used < usize::from(self.limits.max_conns)
    }

    // First contact.

    /// Begins the exchange of CONFIRM LINK; see [`LinkFlow::start`]. Process context.
    pub(crate) fn begin_confirm(&self, peer_gid: Gid, peer_qpn: Qpn24) -> Result {
        self.peer_qpn.store(peer_qpn.value(), Relaxed);
        let link = &self.link;
        let params = LinkParams {
            role: self.key.role,
            version: self.key.version,
            mac: link.mac(),
            gid: link.gid(),
            qpn: link.qpn(),
            user_id: self.link_user_id(),
            peer_gid,
            peer_qpn,
            link: FIRST_LINK,
            max_links: self.limits.max_links,
            max_conns: self.limits.max_conns,
            test_link_time: self.test_link_time,
        };
        let mut place = self.flow.lock();
        let flow = place.insert(LinkFlow::new(params));
        let actions = flow.start(registry::now());
        self.send(&actions)
    }

    /// Waits until the peer's CONFIRM LINK, or its answer to ours, has come; [`None`] when the time
    /// is up. Process context.
    pub(crate) fn wait_confirmed(&self, timeout_ms: u32) -> Option<Confirmation> {
        self.changed.wait(timeout_ms, || {
            if !self.is_usable() {
                return Some(Confirmation::Ended);
            }
            *self.confirmation.lock()
        })
    }

    /// Client: answers the server's CONFIRM LINK.
    pub(crate) fn answer_confirm(&self) -> Result {
        let mut place = self.flow.lock();
        let flow = (*place).as_mut().ok_or(ENOTCONN)?;
        let actions = flow.confirm_link_ready(registry::now());
        self.send(&actions)
    }

    /// The first connection is made: others may use the group.
    pub(crate) fn activate(&self) {
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

    /// Reserves an alert token for a new connection.
    pub(crate) fn reserve_token(&self) -> Option<u32> {
        let mut table = self.conns.lock();
        // The server chooses the group and keeps to its limit. Connections that it has seen the end
        // of may still be ending here, so that the client must be able to take some more.
        let most = match self.key.role {
            Role::Server => usize::from(self.limits.max_conns),
            Role::Client => MAX_CONNS,
        };
        if !self.is_usable() || table.used >= most {
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
        Some(token)
    }

    /// Enters a connection under the token reserved for it; fails when the group has ended.
    pub(crate) fn install(&self, token: u32, conn: Arc<Conn>) -> Result {
        let mut table = self.conns.lock();
        if !self.is_usable() {
            return Err(ENOTCONN);
        }
        let entry = table
            .entries
            .get_mut((token & 0xff) as usize)
            .ok_or(EINVAL)?;
        entry.state = Place::Taken(conn);
        Ok(())
    }

    /// Gives back a token, with or without a connection. Process context.
    pub(crate) fn release_token(&self, token: u32) {
        let conn = {
            let mut table = self.conns.lock();
            let table = &mut *table;
            let Some(entry) = table.entries.get_mut((token & 0xff) as usize) else {
                return;
            };
            if entry.generation != token >> 8 || matches!(entry.state, Place::Free) {
                return;
            }
            table.used = table.used.saturating_sub(1);
            if table.used == 0 {
                table.idle_since = registry::now();
            }
            core::mem::replace(&mut entry.state, Place::Free)
        };
        drop(conn);
    }

    /// Calls `f` with the connection that a token names, if there is one. Any context.
    pub(crate) fn with_conn<R>(&self, token: u32, f: impl FnOnce(&Arc<Conn>) -> R) -> Option<R> {
        let table = self.conns.lock();
        match table.entries.get((token & 0xff) as usize)? {
            Entry {
                generation,
                state: Place::Taken(conn),
            } if *generation == token >> 8 => Some(f(conn)),
            _ => None,
        }
    }

    /// Lets connections that wait for a slot of `link` send, in turn: the first is the one that was
    /// left without last time. Any context.
    pub(super) fn feed(&self, link: &Link) {
        let mut table = self.conns.lock();
        let start = table.next_fed;
        let (before, from) = table.entries.split_at(start.min(table.entries.len()));
        let order = Iterator::chain(from.iter(), before);
        let unfed = order
            .enumerate()
            .find_map(|(turn, entry)| match &entry.state {
                Place::Taken(conn) if conn.feed(link) => Some(turn),
                _ => None,
            });
        if let Some(turn) = unfed {
            let len = table.entries.len().max(1);
            table.next_fed = start.wrapping_add(turn).checked_rem(len).unwrap_or(0);
        }
    }

    /// Calls `f` for every connection. Any context.
    pub(crate) fn for_each_conn(&self, mut f: impl FnMut(&Arc<Conn>)) {
        let table = self.conns.lock();
        for entry in table.entries.iter() {
            if let Place::Taken(conn) = &entry.state {
                f(conn);
            }
        }
    }

    /// The connections, one after the other, without a lock between them. Process context.
    pub(crate) fn conns(&self) -> impl Iterator<Item = Arc<Conn>> + '_ {
        (0..MAX_CONNS).filter_map(|index| match &self.conns.lock().entries.get(index)?.state {
            Place::Taken(conn) => Some(conn.clone()),
            _ => None,
        })
    }

    // Messages.

    /// Takes an LLC message from the link. Bottom-half context.
    pub(super) fn queue_llc(self: &Arc<Self>, head: &[u8], len: usize) {
        // RFC 7609, section A.3: LLC messages have 44 bytes. Longer ones of SMC-Rv2 concern links
        // that this host does not offer.
        let Some(message) = head.first_chunk::<LLC_LEN>().filter(|_| len >= LLC_LEN) else {
            return;
        };
        {
            let mut inbox = self.inbox.lock();
            let place = (inbox.first + inbox.len) % INBOX;
            if inbox.len >= INBOX {
                return;
            }
            if let Some(slot) = inbox.messages.get_mut(place) {
                *slot = *message;
            }
            inbox.len += 1;
        }
        self.kick();
    }

    /// Notes that the peer lives: something has come from it. Bottom-half context.
    pub(super) fn note_activity(&self) {
        // Most of the time it is set already; leave the cache line alone then.
        if !self.heard.load(Relaxed) {
            self.heard.store(true, Relaxed);
        }
    }

    fn next_llc(&self) -> Option<[u8; LLC_LEN]> {
        let mut inbox = self.inbox.lock();
        if inbox.len == 0 {
            return None;
        }
        let message = *inbox.messages.get(inbox.first)?;
        inbox.first = (inbox.first + 1) % INBOX;
        inbox.len -= 1;
        Some(message)
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

    /// Something went wrong that should not if peer and link are well: asks the peer soon. Any context.
    pub(super) fn doubt(&self) {
        self.doubtful.store(true, Relaxed);
    }

    /// The link has failed. Any context.
    pub(super) fn link_failed(self: &Arc<Self>, failure: LinkFailure) {
        self.failure.lock().get_or_insert(failure);
        if !self.failed.xchg(true, Full) {
            self.changed.wake_all();
            self.kick();
        }
    }

    /// The work item: LLC messages, connections that have ended, and the end of the group.
    fn serve(self: &Arc<Self>) {
        while let Some(message) = self.next_llc() {
            self.take(|flow| flow.handle_bytes(&message, registry::now()));
        }
        if self.tcp_woken.xchg(false, Full) {
            let now = registry::now();
            self.for_each_conn(|conn| conn.look_at_tcp(now));
        }
        self.reap();
        self.ask_rkeys(registry::now());
        if self.failed.load(Acquire) {
            self.end(DeleteReason::LOST_PATH, false, false);
        }
    }

    /// Looks at everything that depends on the time. Process context.
    pub(crate) fn tick(self: &Arc<Self>, now: Millis) {
        let heard = self.heard.xchg(false, Relaxed);
        let due = {
            let mut place = self.flow.lock();
            (*place).as_mut().is_some_and(|flow| {
                if heard {
                    flow.on_activity(now);
                }
                flow.poll_timeout().is_some_and(|at| at.reached(now))
            })
        };
        if due {
            self.take(|flow| flow.on_timeout(now));
        }
        self.for_each_conn(|conn| conn.tick(&self.link, now));
        if self.doubtful.xchg(false, Relaxed) {
            self.take(|flow| flow.probe(now));
        }
        self.reap();
        self.ask_rkeys(now);
        let idle = {
            let table = self.conns.lock();
            table.used == 0 && table.idle_since.after(self.free_delay).reached(now)
        };
        if idle
            && self.phase.load(Acquire) == Phase::Active as u32
            && self.mark_dead(|table| table.used == 0)
        {
            self.wind_up(DeleteReason::PROGRAM, true, true);
        }
    }

    /// Lets the state machine of the link act, and does what it says.
    fn take(self: &Arc<Self>, step: impl FnOnce(&mut LinkFlow) -> Actions) {
        let mut place = self.flow.lock();
        let Some(flow) = (*place).as_mut() else {
            return;
        };
        let actions = step(flow);
        let sent = self.send(&actions);
        let answer = match actions.event {
            // The keys of RMBs come with the CLC messages of their connections, so that there is
            // nothing to enter for a single link.
            Some(LlcEvent::PeerRkey(request)) => Some(flow.answer_confirm_rkey(&request, true)),
            Some(LlcEvent::PeerRkeysDeleted(request)) => Some(flow.answer_delete_rkey(&request, 0)),
            _ => None,
        };
        drop(place);
        let answered = answer.map_or(Ok(()), |message| self.link.send_llc(&message));
        if sent.is_err() || answered.is_err() {
            self.link_failed(LinkFailure::Post);
        }
        match actions.event {
            Some(LlcEvent::ConfirmLinkReceived(peer) | LlcEvent::LinkConfirmed(peer)) => {
                self.peer_user_id.store(peer.user_id.0, Relaxed);
                self.set_confirmation(Confirmation::Done);
            }
            Some(LlcEvent::ConfirmFailed(failure)) => {
                self.set_confirmation(Confirmation::Failed(failure));
            }
            Some(LlcEvent::RequestDone(request)) => self.rkey_answered(request, Answer::Done),
            Some(LlcEvent::RequestRefused { request, retry }) => {
                self.rkey_answered(request, Answer::Failed { retry });
            }
            Some(LlcEvent::RequestTimedOut(request)) => {
                self.rkey_answered(request, Answer::Missing);
            }
            Some(LlcEvent::LinkDown) => self.link_failed(LinkFailure::Silence),
            Some(LlcEvent::Terminate { reason, orderly }) => self.end(reason, orderly, false),
            _ => {}
        }
    }

    /// The peer is to be told of a new RMB (RFC 7609, section 3.5.5.2.1). Process context.
    ///
    /// With a single link the connection need not wait for the answer: its CLC messages have named
    /// the key for that link.
    pub(super) fn confirm_rmb(self: &Arc<Self>, rmb: &Arc<Ring>) -> Result {
        self.rkeys.confirm(rmb)?;
        self.kick();
        Ok(())
    }

    /// The peer may still write to an RMB that is not needed any more: has it told not to (RFC 7609,
    /// section 3.5.5.2.2). Process context.
    pub(super) fn delete_rmb(self: &Arc<Self>, rmb: Arc<Ring>) {
        // Without memory for the request the RMB stays out of use as long as the link is there.
        if self.rkeys.delete(rmb).is_ok() {
            self.kick();
        }
    }

    fn rkey_answered(self: &Arc<Self>, request: Request, answer: Answer) {
        match self.rkeys.answered(request, answer, registry::now()) {
            Some(Settled::Returned(rmb)) => {
                rmb.set_known(false);
                self.link.pool().put(rmb);
            }
            // A peer that lives and does not answer keeps our memory for ever.
            Some(Settled::Unanswered) => self.link_failed(LinkFailure::Unanswered),
            None => {}
        }
        self.kick();
    }

    /// Makes the next request about RMBs.
    fn ask_rkeys(self: &Arc<Self>, now: Millis) {
        let sent = {
            let mut place = self.flow.lock();
            let actions = (*place).as_mut().and_then(|flow| self.rkeys.ask(flow, now));
            actions.map_or(Ok(()), |actions| self.send(&actions))
        };
        if sent.is_err() {
            self.link_failed(LinkFailure::Post);
        }
    }

    fn set_confirmation(&self, confirmation: Confirmation) {
        *self.confirmation.lock() = Some(confirmation);
        self.changed.wake_all();
    }

    fn send(&self, actions: &Actions) -> Result {
        match &actions.send {
            Some(message) => self.link.send_llc(message),
            None => Ok(()),
        }
    }

    /// Frees connections that are over. Process context.
    fn reap(&self) {
        for conn in self.conns() {
            if conn.is_over() {
                self.release_token(conn.token());
                conn.give_back(&self.link);
            }
        }
    }

    // The end.

    /// Ends the group because its device or the module goes. Process context.
    pub(crate) fn end_orderly(self: &Arc<Self>) {
        self.end(DeleteReason::OPERATOR, true, true);
    }

    /// A port has changed. Process context.
    pub(crate) fn check_port(self: &Arc<Self>, port: u32, event: PortEvent) {
        let own = self.link.port();
        if port != 0 && port != own.number {
            return;
        }
        let lost = match event {
            PortEvent::DeviceFatal => true,
            PortEvent::Error => !own.is_active(),
            // Our address went away.
            _ => !self.link.has_gid(),
        };
        if lost {
            self.link_failed(LinkFailure::Port);
        }
    }

    /// Ends the group and all its connections. Does nothing the second time. Process context, also
    /// from the group's own work item.
    pub(crate) fn end(self: &Arc<Self>, reason: DeleteReason, orderly: bool, tell_peer: bool) {
        if self.mark_dead(|_| true) {
            self.wind_up(reason, orderly, tell_peer);
        }
    }

    /// Lets nobody use the group any more, if `condition` holds; false if it does not, or if that was
    /// done before.
    fn mark_dead(&self, condition: impl FnOnce(&Table) -> bool) -> bool {
        // Under the lock, so that nobody installs a connection afterwards.
        let table = self.conns.lock();
        condition(&table) && self.phase.xchg(Phase::Dead as u32, Full) != Phase::Dead as u32
    }

    /// All of [`Self::end`] but the decision.
    fn wind_up(self: &Arc<Self>, reason: DeleteReason, orderly: bool, tell_peer: bool) {
        self.failed.store(true, Release);
        self.changed.wake_all();
        if let Some(registry) = registry::get() {
            registry.forget(self);
        }
        // First, so that nothing more is sent: the queue may hold seconds of data already.
        self.for_each_conn(|conn| conn.group_down());
        if tell_peer && self.link.can_send() {
            // RFC 7609, section 4.6: tell the peer that all links go.
            let message = {
                let mut place = self.flow.lock();
                (*place)
                    .as_mut()
                    .map(|flow| flow.terminate(reason, orderly))
            };
            if let Some(message) = message {
                let _ = self.link.send_llc(&message);
            }
        }
        // That message may not get through.
        self.conns().for_each(|conn| conn.reset_tcp());
        let failure = *self.failure.lock();
        if failure.is_some() || !orderly {
            // enum smc_link_state: inactive.
            trace::link_down(&*self.link, &**self, 1, || self.traced());
        }
        self.trace(trace::Life::End(reason.0));
        if failure.is_none() {
            // What has just been said, here or in answer to the peer, is to get through. A peer that has ended the
            // group may be gone before it can acknowledge that.
            self.link.finish(if tell_peer {
                FINISH_MS
            } else {
                FINISH_ANSWER_MS
            });
        }
        if !orderly {
            let (id, peer) = (self.id, self.key.peer_gid);
            match failure {
                Some(failure) => {
                    pr_warn_ratelimited!("link group {id} to {peer:?} ended: {failure}\n");
                }
                None => pr_warn_ratelimited!(
                    "link group {id} to {peer:?} ended by the peer: reason {:#010x}\n",
                    reason.0
                ),
            }
        }
        self.link.shut();
        self.rkeys.close();
        // Nothing completes any more, so nothing waits for it.
        for conn in self.conns() {
            self.release_token(conn.token());
            conn.forget_rings();
        }
    }
}
