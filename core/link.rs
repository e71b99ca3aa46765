// SPDX-License-Identifier: GPL-2.0

//! A link: a queue pair between two RDMA ports, with all that belongs to it (RFC 7609, section
//! 2.2).

use super::{
    cdc_demux,
    group::{
        Confirmation,
        LinkFailure,
        LinkGroup, //
    },
    order::{
        Order,
        Seen,
        Watch, //
    },
    path::Path,
    time::Millis,
    types::{
        Gid,
        LinkNumber,
        LinkUserId,
        Mac,
        Mtu,
        Psn24,
        Qpn24, //
    }, //
};
use crate::kapi::prelude::*;
use crate::{
    ib::{
        port::Port,
        verbs::{
            cq::{
                Batch,
                Cq,
                CqHandler,
                Events,
                BATCH, //
            },
            device::Device,
            gid::GidKind,
            mapping::Mapping,
            pd::Pd,
            qp::{
                AnyQp,
                LocalAddress,
                PeerAddress,
                Qp, //
            },
            queues::Queues,
            wr::{
                Completion,
                Status,
                WrId, //
            }, //
        },
        wr::{
            self,
            RecvRing,
            Registrar,
            SendSlots,
            Used, //
        }, //
    },
    kapi::{
        host,
        lock::{
            new_spinlock_bh,
            SpinLockBh, //
        }, //
    },
    rx_tx::{
        cdc::CdcSeq,
        cursor::Cursor,
        turns::Turns, //
    },
    sysctl::Settings, //
};
use kernel::{
    error::Result,
    new_mutex,
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
    }, //
};

/// How long a link may stand still before it is given up, in milliseconds.
const DRAIN_MS: u32 = 2_000;

/// How long the end of a link waits for its last message while nothing moves, in milliseconds.
pub(crate) const FINISH_MS: u32 = 4_000;

/// The same where the peer has ended it, too, and waits for an answer at most.
pub(crate) const FINISH_ANSWER_MS: u32 = 1_000;

/// How long a long LLC message may wait for a slot, in milliseconds: longer than a registration of
/// memory, for which some devices let nothing be sent.
const LLC_MS: u32 = 8_000;

/// Most links in a group: two, and an asymmetric one that is about to go (RFC 7609, section 2.3).
pub(crate) const MAX_LINKS: usize = 3;

/// Place of a link in its group. Another link may have it later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot(u8);

impl Slot {
    /// That of the link that a group begins with.
    pub(crate) const FIRST: Self = Self(0);

    /// All places.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..MAX_LINKS as u8).map(Self)
    }

    /// As an index.
    pub(crate) fn index(self) -> usize {
        self.0.into()
    }
}

/// How far a link is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum LinkState {
    /// Being made, not confirmed.
    Activating = 0,
    /// Connections can use it.
    Active = 1,
    /// It has failed, or is about to end.
    Inactive = 2,
}

/// How far packets may go that leave the network: the recommended default of IP.
const HOPS: u8 = 64;

/// The other end of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FarEnd {
    /// The peer's GID.
    pub(crate) gid: Gid,
    /// The peer's Ethernet address.
    pub(crate) mac: Mac,
    /// That of the gateway that the way there leads through.
    pub(crate) gateway: Option<Mac>,
    /// The peer's queue pair.
    pub(crate) qpn: Qpn24,
}

/// What is to be done when a message has been sent.
#[derive(Clone, Copy)]
pub(crate) enum Pending {
    /// A CDC message with its RDMA WRITEs.
    Cdc(SentMessage),
    /// An LLC message.
    Llc,
    /// A long one.
    LongLlc,
}

/// A CDC message that is under way, or has arrived.
#[derive(Clone, Copy)]
pub(crate) struct SentMessage {
    /// Our alert token of the connection.
    pub(crate) token: u32,
    /// Number of the message.
    pub(crate) seqno: CdcSeq,
    /// Send cursor after the data that went with it.
    pub(crate) sent: Cursor,
}

/// Messages of one connection that have arrived.
pub(crate) struct Sent {
    /// The last one of them.
    pub(crate) last: SentMessage,
    /// How many there are.
    pub(crate) count: u32,
}

impl Sent {
    fn one(last: SentMessage) -> Self {
        Self { last, count: 1 }
    }

    fn add(&mut self, last: SentMessage) {
        self.last = last;
        self.count = self.count.saturating_add(1);
    }
}

/// One link.
///
/// Freed in process context only: nothing in bottom-half context owns a reference.
#[pin_data]
pub(crate) struct Link {
    at: Slot,
    /// Given by the server; 0 at a client that does not know it yet.
    number: Atomic<u32>,
    state: Atomic<u32>,
    /// The peer's end, once it is known.
    far: SetOnce<FarEnd>,
    /// The peer's name for the link, once it has confirmed it.
    peer_user_id: Atomic<u32>,
    failed: Atomic<bool>,
    /// It counts as one of those that keep the group alive.
    counted: Atomic<bool>,
    /// The first failure.
    #[pin]
    failure: SpinLockBh<Option<LinkFailure>>,
    #[pin]
    confirmation: SpinLockBh<Option<Confirmation>>,
    /// Something has come from the peer since the last tick.
    heard: Atomic<bool>,
    /// It is to be tested, whatever the idle time.
    doubtful: Atomic<bool>,
    /// Its port has gone down, or was told to have.
    port_doubtful: Atomic<bool>,
    /// The addresses of its port have changed.
    gid_doubtful: Atomic<bool>,
    /// Its group goes on without it when no handshake is under way on it any more.
    spare: Atomic<bool>,
    /// Its group goes on without it.
    lost: Atomic<bool>,
    shut: Atomic<bool>,
    dropped: Atomic<bool>,
    port: Port,
    gid_index: u8,
    gid: Gid,
    gid_kind: GidKind,
    vlan: Option<u16>,
    mac: Mac,
    mtu: Mtu,
    psn: Psn24,
    qpn: Qpn24,
    queues: Arc<Queues>,
    #[pin]
    qp: Mutex<Option<AnyQp>>,
    #[pin]
    slots: SendSlots<Pending>,
    #[pin]
    ring: RecvRing,
    #[pin]
    registrar: Registrar,
    /// Held while nothing may be sent.
    #[pin]
    quiet: Mutex<()>,
    /// What a long message is sent from, made when it is needed.
    #[pin]
    long: Mutex<Option<Mapping>>,
    /// One is under way.
    long_busy: Atomic<bool>,
    /// The bits of an [`Order`], which only the queue's handler changes.
    received: Atomic<u64>,
    /// The same of what was sent.
    sent: Atomic<u64>,
    #[pin]
    watch: SpinLockBh<Watch>,
    recv_cq: Arc<Cq<Handler>>,
    /// What is sent tells of its end only when somebody waits for that: see [`Link::want`].
    send_cq: Arc<Cq<Handler>>,
    pd: Arc<Pd>,
    /// Connections of the group, or control messages, wait for a slot.
    starved: Atomic<u32>,
    /// The connections among them.
    #[pin]
    turns: SpinLockBh<Turns>,
}

impl Link {
    /// Makes a link on the port of `path`, ready to be connected. May sleep.
    pub(crate) fn new(
        at: Slot,
        number: LinkNumber,
        path: &Path,
        settings: &Settings,
    ) -> Result<Arc<Self>> {
        let device = &path.port.device;
        let (sends, recvs) = (settings.max_send_wr(), settings.max_recv_wr());
        let pd = Pd::new(device)?;
        let vector = device.next_comp_vector();
        let recv_cq = Cq::<Handler>::new(device, recvs, vector, Events::Always)?;
        let entries = wr::send_cq_entries(sends);
        let send_cq = Cq::<Handler>::new(device, entries, vector, Events::OnDemand)?;
        let qp = Qp::new(
            &pd,
            send_cq.clone(),
            recv_cq.clone(),
            &wr::wanted(
                (sends, sends.min(16)),
                (recvs, recvs.min(48)),
                device.attributes().max_recv_sge,
            ),
        )?;
        let queues = qp.queues().clone();
        let qpn = Qpn24::from_low_bits(qp.number());
        let ring = RecvRing::new(&pd, &queues, recvs)?;
        let qp = qp.to_init(path.port.number).map_err(|(_, err)| err)?;
        let slots = SendSlots::new(&pd, &queues, sends)?;
        let registrar = Registrar::new(&queues);
        let random = u32::from_ne_bytes(host::random());
        Arc::pin_init(
            pin_init!(Self {
                at,
                number: Atomic::new(number.0.into()),
                state: Atomic::new(LinkState::Activating as u32),
                far: SetOnce::new(),
                peer_user_id: Atomic::new(0),
                failed: Atomic::new(false),
                counted: Atomic::new(false),
                failure <- new_spinlock_bh!(None, "Link::failure"),
                confirmation <- new_spinlock_bh!(None, "Link::confirmation"),
                heard: Atomic::new(false),
                doubtful: Atomic::new(false),
                port_doubtful: Atomic::new(false),
                gid_doubtful: Atomic::new(false),
                spare: Atomic::new(false),
                lost: Atomic::new(false),
                shut: Atomic::new(false),
                dropped: Atomic::new(false),
                port: path.port.clone(),
                gid_index: path.gid.index,
                gid: Gid(path.gid.gid),
                gid_kind: path.gid.kind,
                vlan: path.gid.vlan,
                mac: Mac(path.gid.mac),
                mtu: path.mtu,
                psn: Psn24::from_low_bits(random),
                qpn,
                queues,
                qp <- new_mutex!(Some(AnyQp::Init(qp)), "Link::qp"),
                slots <- slots,
                ring <- ring,
                registrar <- registrar,
                quiet <- new_mutex!((), "Link::quiet"),
                long <- new_mutex!(None, "Link::long"),
                long_busy: Atomic::new(false),
                received: Atomic::new(Order::START.bits()),
                sent: Atomic::new(Order::START.bits()),
                watch <- new_spinlock_bh!(Watch::new(), "Link::watch"),
                recv_cq,
                send_cq,
                pd,
                starved: Atomic::new(0),
                turns <- new_spinlock_bh!(Turns::new(), "Link::turns"),
            }),
            GFP_KERNEL,
        )
    }

    /// Starts to report completions to `group`, and posts the receive requests.
    pub(crate) fn attach(self: &Arc<Self>, group: &Arc<LinkGroup>) -> Result {
        for (cq, receives) in [(&self.send_cq, false), (&self.recv_cq, true)] {
            cq.attach(Handler {
                link: self.clone(),
                group: group.clone(),
                receives,
                used: Used::default(),
            })?;
        }
        self.ring.post_all()
    }

    /// Lets the queue pair receive from the peer's, which sends from `peer_psn` on: INIT to RTR.
    pub(crate) fn connect(&self, far: &FarEnd, peer_psn: Psn24, peer_mtu: Mtu) -> Result {
        self.far.populate(*far);
        let local = LocalAddress {
            port: self.port.number,
            gid_index: self.gid_index,
            // RFC 7609, section A.2.3: the lower one of both sides is used.
            mtu: self.mtu.code().min(peer_mtu.code()),
            hop_limit: if far.gateway.is_some() { HOPS } else { 1 },
        };
        let peer = PeerAddress {
            gid: far.gid.0,
            mac: far.gateway.unwrap_or(far.mac).0,
            qpn: far.qpn.value(),
            psn: peer_psn.value(),
        };
        self.change(|qp| qp.connect(&local, &peer))
    }

    /// Lets the queue pair send: RTR to RTS. What waits for that in `group`, this link's, is sent. Process context.
    pub(crate) fn start(&self, group: &LinkGroup) -> Result {
        self.change(|qp| qp.start(self.psn.value()))?;
        self.slots.open();
        // No completion comes that would do so.
        let sent = self.send_waiting();
        group.feed(self);
        sent
    }

    fn change(&self, step: impl FnOnce(AnyQp) -> Result<AnyQp, (AnyQp, Error)>) -> Result {
        let mut place = self.qp.lock();
        let qp = place.take().ok_or(ENOTCONN)?;
        match step(qp) {
            Ok(qp) => {
                *place = Some(qp);
                Ok(())
            }
            Err((qp, err)) => {
                *place = Some(qp);
                Err(err)
            }
        }
    }

    /// Registers the memory of a ring of `group`, this link's, with the device. Process context; the
    /// link can send.
    pub(crate) fn register(&self, group: &LinkGroup, mapping: &Mapping) -> Result {
        if mapping.is_registered() {
            return Ok(());
        }
        let _need = self.send_cq.need();
        if !self.port.device.attributes().registers_again {
            return self.registrar.register(mapping);
        }
        let result = {
            let _one = self.quiet.lock();
            self.slots.pause(DRAIN_MS).and_then(|pause| {
                let result = self.registrar.register(mapping);
                drop(pause);
                result
            })
        };
        // No completion may come that would do so for those who found no slot meanwhile.
        let sent = self.send_waiting();
        group.feed(self);
        result.and(sent)
    }

    /// Ends the link: nothing is sent or received afterwards, and no handler runs. Process context.
    ///
    /// A device that has died lets it wait, for 15 s and more.
    ///
    /// The mappings for it are to be dropped then, with [`super::buffers::Pool::unmap`].
    pub(crate) fn shut(&self) {
        self.state.store(LinkState::Inactive as u32, Release);
        self.slots.close();
        self.registrar.close();
        self.ring.end();
        // Locked until the queue pair is gone: whoever comes second waits for that.
        let mut place = self.qp.lock();
        if let Some(qp) = place.take() {
            // What the device has acknowledged to the peer counts, also if its interrupt got lost: the peer does not
            // send it again elsewhere. At once, as the next step may take long.
            self.catch_up();
            let _ = qp.to_error();
            self.catch_up();
            let _need = self.send_cq.need();
            self.slots.drop_waiting();
            self.slots.wait_idle(|| DRAIN_MS);
            if qp.receives() {
                // What the device has acknowledged to the peer does not come again on another link.
                self.ring.wait_idle(DRAIN_MS);
            }
            drop(qp);
        }
        drop(place);
        drop(self.recv_cq.detach());
        drop(self.send_cq.detach());
        let long = self.long.lock().take();
        drop(long);
        while self.slots.abandon().is_some() {}
        self.shut.store(true, Release);
    }

    /// Takes no more messages, and waits until all that was posted is sent, or nothing has moved for `patience`, in
    /// milliseconds, which may become shorter meanwhile. Process context.
    pub(crate) fn finish(&self, patience: impl Fn() -> u32) {
        let _need = self.send_cq.need();
        self.slots.close();
        self.slots.wait_idle(patience);
    }

    /// Sends an LLC message, as soon as there is a slot; waits for none, so that a link that stands still holds up
    /// nothing but itself. Any context.
    pub(crate) fn send_llc(&self, message: &[u8; wr::MESSAGE_LEN]) -> Result {
        self.slots.send(message, Pending::Llc)?;
        self.send_waiting()
    }

    /// Sends the LLC messages that wait for a slot, as far as there are slots. Any context.
    fn send_waiting(&self) -> Result {
        if self.slots.send_waiting()? {
            // Again after saying so: the last slot may have become free in between.
            self.set_starved();
            self.slots.send_waiting()?;
        }
        Ok(())
    }

    /// Sends a long LLC message; one at a time. Process context.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the last one is still under way, else as [`Self::send_llc`].
    pub(crate) fn send_long_llc(&self, message: &[u8]) -> Result {
        let mut place = self.long.lock();
        let _need = self.send_cq.need();
        self.reap();
        if self.long_busy.load(Acquire) {
            return Err(EBUSY);
        }
        if place.is_none() {
            *place = Some(wr::long_message_memory(&self.pd)?);
        }
        let memory = (*place).as_ref().ok_or(ENOMEM)?;
        let slot = self.slots.reserve_wait(LLC_MS, Pending::LongLlc)?;
        self.long_busy.store(true, Release);
        slot.post_long(memory, message)
            .inspect_err(|_| self.long_busy.store(false, Release))
    }

    /// Notes that the connection at that place of the group's table found no free slot: its turn is when there is one.
    pub(crate) fn wait_for_slot(&self, index: u8) {
        self.turns.lock().wait(index);
        self.set_starved();
    }

    /// The connection whose turn it is, by its place in the group's table: it waits no more.
    pub(super) fn next_turn(&self) -> Option<u8> {
        self.turns.lock().take()
    }

    /// That was not enough for it: it is the next one, too.
    pub(super) fn same_turn(&self, index: u8) {
        self.turns.lock().again(index);
    }

    /// Notes that somebody found no free slot.
    fn set_starved(&self) {
        self.starved.store(1, Release);
        self.want();
    }

    /// Somebody waits until something that was posted has been sent. Any context.
    ///
    /// Else nobody is told: what has been sent is looked at when something is received, by who sends next, and from
    /// time to time.
    pub(crate) fn want(&self) {
        self.send_cq.want();
    }

    /// Whether the device tells of the next that has been sent, as somebody waits for it. Any context.
    pub(crate) fn is_wanted(&self) -> bool {
        self.send_cq.is_wanted()
    }

    /// Looks at what has been sent. Process and BH context, with no lock of a connection held.
    pub(crate) fn reap(&self) {
        self.send_cq.reap();
    }

    /// A request of a queue has completed; false if it is not the turn of `turn`, or no completion of this queue counts
    /// any more.
    fn note_turn(order: &Atomic<u64>, turn: u32, last: u32) -> bool {
        // A queue has one handler at a time.
        let next = Order::from_bits(order.load(Relaxed)).after(turn, last);
        order.store(next.bits(), Relaxed);
        !next.is_lost()
    }

    /// Looks whether what was posted to be sent completes in time; to be called now and then. Process context.
    pub(crate) fn watch(&self, now: Millis) -> Seen {
        let Some(next) = Order::from_bits(self.sent.load(Relaxed)).next() else {
            return Seen::Lost;
        };
        let posted = self.queues.next_turn();
        self.watch.lock().look(posted, next, now)
    }

    /// Looks at all that has completed. Process context.
    fn catch_up(&self) {
        self.send_cq.catch_up();
        self.recv_cq.catch_up();
    }

    /// Whether a connection waits for a slot. Any context.
    pub(crate) fn is_starved(&self) -> bool {
        self.starved.load(Relaxed) != 0
    }

    /// Free slots for messages.
    pub(crate) fn slots(&self) -> &SendSlots<Pending> {
        &self.slots
    }

    /// Its place in the group.
    pub(crate) fn slot(&self) -> Slot {
        self.at
    }

    /// Its number in the group, for the peer; 0 where that is not known yet.
    pub(crate) fn number(&self) -> LinkNumber {
        LinkNumber(self.number.load(Relaxed) as u8)
    }

    /// How far it is.
    pub(crate) fn state(&self) -> LinkState {
        match self.state.load(Acquire) {
            _ if self.failed.load(Relaxed) => LinkState::Inactive,
            state if state == LinkState::Activating as u32 => LinkState::Activating,
            state if state == LinkState::Active as u32 => LinkState::Active,
            _ => LinkState::Inactive,
        }
    }

    /// Connections may use it from now on, unless it has ended meanwhile.
    pub(crate) fn activate(&self) {
        let (from, to) = (LinkState::Activating as u32, LinkState::Active as u32);
        let _ = self.state.cmpxchg(from, to, Full);
    }

    /// Connections may not use it any more.
    pub(crate) fn deactivate(&self) {
        self.state.store(LinkState::Inactive as u32, Release);
        self.slots.close();
    }

    /// Whether it has never been in use.
    pub(crate) fn is_being_made(&self) -> bool {
        self.state.load(Acquire) == LinkState::Activating as u32
    }

    /// Whether connections can use it.
    pub(crate) fn is_active(&self) -> bool {
        self.state() == LinkState::Active
    }

    /// Notes the first failure; true if it is that. What comes after the end of a link is none.
    pub(crate) fn fail(&self, failure: LinkFailure) -> bool {
        if self.state.load(Acquire) == LinkState::Inactive as u32 {
            return false;
        }
        self.failure.lock().get_or_insert(failure);
        !self.failed.xchg(true, Full)
    }

    /// Counts it among those that keep the group alive, or not any more; whether that is news.
    pub(super) fn count(&self, on: bool) -> bool {
        self.counted.xchg(on, Full) != on
    }

    /// Why it failed, if it did.
    pub(crate) fn failure(&self) -> Option<LinkFailure> {
        *self.failure.lock()
    }

    /// Whether it has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Acquire)
    }

    /// Notes whether it is going to be given up: no connection begins on it then.
    pub(crate) fn set_spare(&self, spare: bool) {
        self.spare.store(spare, Release);
    }

    /// Whether it is going to be given up.
    pub(crate) fn is_spare(&self) -> bool {
        self.spare.load(Acquire)
    }

    /// Notes that its group goes on without it; true if that is news.
    pub(crate) fn lose(&self) -> bool {
        !self.lost.xchg(true, Full)
    }

    /// Whether its group goes on without it.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Acquire)
    }

    /// Something has come from the peer.
    pub(crate) fn note_activity(&self) {
        // Most of the time it is set already; leave the cache line alone then.
        if !self.heard.load(Relaxed) {
            self.heard.store(true, Relaxed);
        }
    }

    /// Whether something has come from the peer since the last call.
    pub(crate) fn take_heard(&self) -> bool {
        self.heard.xchg(false, Relaxed)
    }

    /// The port may be down. Any context.
    pub(crate) fn doubt_port(&self) {
        self.port_doubtful.store(true, Relaxed);
    }

    /// The address may be gone from the port. Any context.
    pub(crate) fn doubt_gid(&self) {
        self.gid_doubtful.store(true, Relaxed);
    }

    /// Whether such a doubt is right. The device is asked, which takes locks of its own and of the network: process
    /// context, and not where the RDMA core tells of an event, as it holds a lock then that comes after those.
    pub(crate) fn has_lost_port(&self) -> bool {
        let down = self.port_doubtful.xchg(false, Full) && !self.port.is_active();
        let gone = self.gid_doubtful.xchg(false, Full) && !self.has_gid();
        down || gone
    }

    /// Something went wrong that should not if peer and link are well: it is to be tested soon. Any context.
    pub(crate) fn doubt(&self) {
        self.doubtful.store(true, Relaxed);
    }

    /// Whether it is to be tested.
    pub(crate) fn take_doubt(&self) -> bool {
        self.doubtful.xchg(false, Relaxed)
    }

    /// What became of CONFIRM LINK.
    pub(crate) fn confirmation(&self) -> Option<Confirmation> {
        *self.confirmation.lock()
    }

    /// Notes what became of CONFIRM LINK.
    pub(crate) fn set_confirmation(&self, confirmation: Confirmation) {
        *self.confirmation.lock() = Some(confirmation);
    }

    /// The peer's number and name for it, which CONFIRM LINK has told.
    pub(crate) fn confirmed(&self, number: LinkNumber, user_id: LinkUserId) {
        self.number.store(number.0.into(), Relaxed);
        self.peer_user_id.store(user_id.0, Relaxed);
    }

    /// The peer's name for it; 0 before it has confirmed it.
    pub(crate) fn peer_user_id(&self) -> LinkUserId {
        LinkUserId(self.peer_user_id.load(Relaxed))
    }

    /// The peer's end, once it is known.
    pub(crate) fn far(&self) -> Option<&FarEnd> {
        self.far.as_ref()
    }

    /// Notes that the group lets go of it; true the first time.
    pub(super) fn begin_drop(&self) -> bool {
        !self.dropped.xchg(true, Full)
    }

    /// Whether [`Self::shut`] is done.
    pub(crate) fn is_shut(&self) -> bool {
        self.shut.load(Acquire)
    }

    /// The protection domain.
    pub(crate) fn pd(&self) -> &Arc<Pd> {
        &self.pd
    }

    /// The port it is on.
    pub(crate) fn port(&self) -> &Port {
        &self.port
    }

    /// Whether it is on `device`.
    pub(crate) fn is_on(&self, device: &Arc<Device>) -> bool {
        Arc::ptr_eq(&self.port.device, device)
    }

    /// Whether it is on the same port as `other`.
    pub(crate) fn shares_port(&self, other: &Self) -> bool {
        self.is_on(&other.port.device) && self.port.number == other.port.number
    }

    /// Whether it leads to the same port of the peer's as `other`.
    pub(crate) fn shares_far_port(&self, other: &Self) -> bool {
        match (self.far(), other.far()) {
            (Some(own), Some(others)) => (own.gid, own.mac) == (others.gid, others.mac),
            _ => false,
        }
    }

    /// Our GID.
    pub(crate) fn gid(&self) -> Gid {
        self.gid
    }

    /// Whether our GID is still in the port's table. May sleep.
    pub(crate) fn has_gid(&self) -> bool {
        self.port.lookup_gid(self.gid_kind, &self.gid.0).is_some()
    }

    /// What kind of GID it has.
    pub(crate) fn gid_kind(&self) -> GidKind {
        self.gid_kind
    }

    /// The path that it takes, for another link there. May sleep.
    pub(crate) fn path(&self) -> Option<Path> {
        Some(Path {
            port: self.port.clone(),
            gid: self.port.lookup_gid(self.gid_kind, &self.gid.0)?,
            mtu: self.mtu,
            gateway: self.far().and_then(|far| far.gateway),
        })
    }

    /// The VLAN that it is in.
    pub(crate) fn vlan(&self) -> Option<u16> {
        self.vlan
    }

    /// Whether it leads through a gateway, as far as its other end is known.
    pub(crate) fn is_routed(&self) -> bool {
        self.far().is_some_and(|far| far.gateway.is_some())
    }

    /// Our Ethernet address.
    pub(crate) fn mac(&self) -> Mac {
        self.mac
    }

    /// Our MTU.
    pub(crate) fn mtu(&self) -> Mtu {
        self.mtu
    }

    /// Our queue pair.
    pub(crate) fn qpn(&self) -> Qpn24 {
        self.qpn
    }

    /// First packet sequence number that we send.
    pub(crate) fn psn(&self) -> Psn24 {
        self.psn
    }

    /// Can data be sent?
    pub(crate) fn can_send(&self) -> bool {
        self.queues.can_send()
    }
}

/// Takes the completions of a link. Owned by a completion queue until [`Link::shut`].
pub(crate) struct Handler {
    link: Arc<Link>,
    group: Arc<LinkGroup>,
    receives: bool,
    used: Used,
}

impl Handler {
    /// Takes note of what has been sent. Slots are free first, and messages of one connection that come one after the other are
    /// told to it as one.
    fn sent(&self, batch: &Batch<'_>) {
        let link = &self.link;
        let sends = || {
            batch.iter().filter_map(|completion| match completion.id {
                WrId::Send { slot, turn } => Some((slot, turn, completion.status)),
                _ => None,
            })
        };
        let mut values = [const { None }; BATCH];
        link.slots
            .complete(sends().map(|(slot, ..)| slot), &mut values);
        let mut sent: Option<Sent> = None;
        for ((_, turn, status), value) in sends().zip(values) {
            if !Link::note_turn(&link.sent, turn, u32::MAX) {
                self.group.link_failed(link, LinkFailure::Lost);
            }
            // As it has been sent, so has what was posted before, whether or not the device has said so.
            let success = status == Status::Success;
            if !success {
                self.group.link_failed(link, LinkFailure::Send(status));
            }
            match value {
                // One that failed stays under way until its connection moves, or leaves its group: its farewell may be in it.
                Some(Pending::Cdc(message)) if success => match sent.as_mut() {
                    Some(sent) if sent.last.token == message.token => sent.add(message),
                    _ => {
                        if let Some(sent) = sent.replace(Sent::one(message)) {
                            cdc_demux::sent(&self.group, &sent);
                        }
                    }
                },
                Some(Pending::LongLlc) => link.long_busy.store(false, Release),
                Some(Pending::Cdc(_) | Pending::Llc) | None => {}
            }
        }
        if let Some(sent) = sent {
            cdc_demux::sent(&self.group, &sent);
        }
    }

    fn completion(&mut self, completion: &Completion) {
        let link = &self.link;
        let used = &mut self.used;
        match completion.id {
            WrId::Recv(slot) if !Link::note_turn(&link.received, slot, link.ring.last_slot()) => {
                // What was not reported belongs before this, and the peer takes both for received. It hears of the loss by
                // the end of the group, or when it asks on another link (RFC 7609, section 4.6.1).
                link.ring.failed(used);
                self.group.link_failed(link, LinkFailure::Lost);
            }
            WrId::Recv(slot) if completion.is_success() => {
                let received = match completion.immediate {
                    Some(immediate) => {
                        cdc_demux::immediate(&self.group, link, immediate, completion.byte_len);
                        link.ring.again(slot, used)
                    }
                    None => link
                        .ring
                        .receive(slot, completion.byte_len, used, |message| {
                            cdc_demux::received(&self.group, link, message)
                        }),
                };
                if received.is_err() {
                    self.group.link_failed(link, LinkFailure::Post);
                }
            }
            WrId::Register(sequence) => link.registrar.complete(sequence, completion.status),
            // RDMA WRITEs complete only when they fail; so do receive requests that fail.
            WrId::Write(_) => self
                .group
                .link_failed(link, LinkFailure::Send(completion.status)),
            WrId::Recv(_) => {
                // First, as the reason why a link fails is there, and no event of its own tells of it.
                link.reap();
                link.ring.failed(used);
                self.group
                    .link_failed(link, LinkFailure::Receive(completion.status));
            }
            // Taken note of together.
            WrId::Send { .. } | WrId::Unknown(_) => {}
        }
    }
}

impl CqHandler for Handler {
    fn completions(&mut self, batch: &Batch<'_>) {
        if !self.receives {
            self.sent(batch);
        }
        for completion in batch.iter() {
            self.completion(&completion);
        }
        // Whoever has set it since a slot became free finds that one.
        if self.link.is_starved() && self.link.starved.xchg(0, Full) != 0 {
            if self.link.send_waiting().is_err() {
                self.group.link_failed(&self.link, LinkFailure::Post);
            }
            self.group.feed(&self.link);
        }
    }

    fn begin(&self) {
        // What nobody waits for is left for later, when there is more of it.
        let link = &self.link;
        if self.receives && (link.is_wanted() || link.slots.take_scarce()) {
            link.reap();
        }
    }

    fn is_busy(&self) -> bool {
        self.link.slots.is_busy()
    }
}
