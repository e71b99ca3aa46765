// SPDX-License-Identifier: GPL-2.0

//! An SMC-R connection: one socket's part of a link group.
//!
//! What happens on the wire is decided by [`Connection`] (cursors and windows) and [`Life`] (its
//! end), which are pure; here they meet the link, the memory and the socket. All of it is behind
//! one spinlock, which completions take in bottom-half context. Nothing is called back under it but
//! wake-ups.

mod first_data;
mod growth;
mod inspect;
mod moving;
mod stall;
mod tcp;
mod tcp_info;
mod transfer;

use first_data::FirstData;
pub(crate) use inspect::Inspection;
use moving::Target;
use stall::Stall;
use tcp::Tcp;

use super::{
    buffers::{
        self,
        Origin,
        Ring,
        Rings, //
    },
    counter::{
        self,
        Buffers, //
    },
    group::{
        index_of,
        LinkFailure,
        LinkGroup, //
    },
    link::{
        FarEnd,
        Link,
        LinkState,
        Pending,
        Sent,
        SentMessage, //
    },
    llc::flow::Role,
    registry,
    sock::{
        SmcSocket,
        SockRef, //
    },
    state::{
        Actions,
        Event,
        Farewell,
        Life, //
    },
    stats::Stats,
    time::Millis,
    types::{
        AlertToken,
        RmbeIndex, //
    }, //
};
use crate::kapi::prelude::*;
use crate::{
    clc::{
        decline::DeclineReason,
        wire::RdmaEndpoint, //
    },
    diag::trace,
    ib::{
        verbs::{
            mapping::Mapping,
            memory::Buffer,
            wr::{
                RdmaWrite,
                Writes,
                NO_WRITES, //
            }, //
        },
        wr::SendSlot, //
    },
    kapi::{
        host,
        lock::{
            new_spinlock_bh,
            SpinLockBh, //
        },
        sock::{
            IoBand,
            Sock, //
        }, //
    },
    rx_tx::{
        cdc::{
            CdcMessage,
            CdcSeq,
            ConnState, //
        },
        conn::{
            ConnParams,
            Connection,
            Effects,
            Violation, //
        },
        cork,
        cursor::{
            Cursor,
            Span,
            Spans, //
        },
        early::Early,
        immediate::Immediate,
        sender::TxPlan, //
    },
    sysctl::Settings, //
};
use kernel::{
    error::{
        Error,
        Result, //
    },
    new_mutex,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};

/// How long the data of a connection without an application may stay where it is, in milliseconds.
/// Each byte that the peer takes begins it anew.
const ORPHAN_MS: u32 = 60_000;

const RCV_SHUTDOWN: u8 = 1;
const SEND_SHUTDOWN: u8 = 2;

/// A connection.
///
/// Dropped in process context only: bottom halves borrow it from its group's table.
#[pin_data]
pub(crate) struct Conn {
    token: u32,
    stats: Arc<Stats>,
    autocorking_size: u32,
    corked: Atomic<bool>,
    nodelay: Atomic<bool>,
    /// `TCP_INQ`.
    tells_inq: Atomic<bool>,
    /// `TCP_USER_TIMEOUT` in milliseconds; 0 is none.
    user_timeout: Atomic<u32>,
    /// Bytes that the send buffer may have from the beginning, and whether it grows.
    sndbuf: (u32, bool),
    /// `SO_OOBINLINE` when the handshake began.
    urgent_inline: bool,
    #[pin]
    data: SpinLockBh<Data>,
    /// Held by whoever copies into the send buffer.
    #[pin]
    tx: Mutex<()>,
    /// Held by whoever copies out of the RMB.
    #[pin]
    rx: Mutex<()>,
}

/// Where a connection is: gone when it is over, or its link group. Made anew when it moves to another
/// link.
struct Place {
    group: Arc<LinkGroup>,
    link: Arc<Link>,
    send_held: Arc<Held>,
    rmb_held: Arc<Held>,
    /// The rings as the device of the link sees them.
    send: Arc<Mapping>,
    rmb: Arc<Mapping>,
}

impl Place {
    fn new(
        group: &Arc<LinkGroup>,
        link: &Arc<Link>,
        send_held: Arc<Held>,
        rmb_held: Arc<Held>,
    ) -> Result<Arc<Self>> {
        let send = send_held.ring.map(link)?;
        let rmb = rmb_held.ring.map(link)?;
        let place = Self {
            group: group.clone(),
            link: link.clone(),
            send_held,
            rmb_held,
            send,
            rmb,
        };
        Ok(Arc::new(place, GFP_KERNEL)?)
    }

    /// Written by the application.
    fn send_ring(&self) -> &Arc<Ring> {
        &self.send_held.ring
    }

    /// Written by the peer.
    fn rmb_ring(&self) -> &Arc<Ring> {
        &self.rmb_held.ring
    }

    /// For the trace: so many bytes were moved.
    fn moved(&self, len: usize) -> trace::Moved {
        trace::Moved {
            net: self.group.key().net,
            len,
            device: trace::Name::new(self.link.port().device.name().as_bytes()),
        }
    }

    /// For the trace: the connection was made, or is over.
    fn trace(&self, made: bool, token: u32) {
        let key = self.group.key();
        trace::connection(
            made,
            token,
            self.group.id(),
            key.net,
            key.role == Role::Server,
        );
    }
}

/// A ring of a connection.
struct Held {
    ring: Arc<Ring>,
    stats: Arc<Stats>,
}

impl Held {
    /// Counts the ring, as long as the connection has it.
    fn new(ring: Arc<Ring>, origin: Origin, stats: &Arc<Stats>) -> Result<Arc<Self>> {
        let held = Self {
            ring,
            stats: stats.clone(),
        };
        let (buffers, len) = (held.buffers(), held.ring.len());
        stats.count(buffers.sizes.of(len as usize));
        stats.add(buffers.usage, len.into());
        stats.count(if origin.reused {
            buffers.reused
        } else {
            buffers.allocated
        });
        if origin.downgraded {
            stats.count(buffers.downgraded);
        }
        Ok(Arc::new(held, GFP_KERNEL)?)
    }

    /// How it is counted.
    fn buffers(&self) -> Buffers {
        if self.ring.is_rmb() {
            counter::RX_BUFFERS
        } else {
            counter::TX_BUFFERS
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.stats.sub(self.buffers().usage, self.ring.len().into());
    }
}

struct Data {
    place: Option<Arc<Place>>,
    /// The ring of the send buffer that was exchanged for that of the place: see [`Sender::needs_former`].
    former: Option<Arc<Held>>,
    /// What had come when the link went, and was not read yet: the memory of the RMB, which is no device's any more.
    rest: Option<Arc<Buffer>>,
    /// Known once the peer's part is.
    flow: Option<Connection>,
    /// Known with it.
    target: Option<Target>,
    /// To be sent before anything else on a new link.
    validation: Option<CdcMessage>,
    /// When a message that is missing after a failover of the peer's means that data is lost.
    late: Option<Millis>,
    /// What came before the peer's part was known.
    early: Early,
    /// Something was copied into the send buffer that was not taken over.
    spilled: bool,
    lack: Lack,
    life: Life,
    tcp: Tcp,
    stall: Stall,
    first_data: FirstData,
    /// When data was last posted, and came, in coarse milliseconds.
    last_sent: u64,
    last_received: u64,
    /// The same by the time of day, in nanoseconds, if somebody has asked for it (`SO_TIMESTAMP`).
    received_at: Option<i64>,
    sk: Option<SockRef>,
    eof: bool,
    error: Option<Error>,
    /// CDC messages made and not completed well.
    in_flight: u32,
    /// Something could not be sent for want of a slot.
    hungry: bool,
    /// How long a connection without an application waits for its peer to close, in milliseconds.
    fin_wait: u32,
    /// When [`Event::Timeout`] is due.
    deadline: Option<Millis>,
    /// The peer may have been told where it can write.
    told: bool,
    /// The peer has said that it does not use our RMB any more.
    peer_left: bool,
    /// Nobody uses the connection any more.
    over: bool,
    /// The link group has ended: nothing can be sent.
    down: bool,
}

impl Data {
    fn is_on(&self, link: &Link) -> bool {
        let place = self.place.as_ref();
        place.is_some_and(|place| core::ptr::eq(&*place.link, link))
    }
}

/// What `ioctl` shows.
#[derive(Default)]
pub(crate) struct Status {
    /// Bytes that can be read.
    pub(crate) readable: i32,
    /// Bytes that the peer has not got yet.
    pub(crate) queued: i32,
    /// Bytes that were not sent yet.
    pub(crate) unsent: i32,
    /// The next byte to be read is the urgent one.
    pub(crate) at_mark: bool,
}

impl Conn {
    /// Makes a connection in `group` on `link` for `sk`, with rings of (about) the sizes of its buffers.
    pub(crate) fn new(
        group: &Arc<LinkGroup>,
        link: &Arc<Link>,
        settings: &Settings,
        sk: &Sock<SmcSocket>,
    ) -> Result<Arc<Self>, DeclineReason> {
        let (sndbuf, rcvbuf) = sk.buffer_sizes();
        // The kernel keeps twice what was asked for.
        let half = |size: i32| usize::try_from(size / 2).unwrap_or(0);
        let token = group.reserve_token().ok_or_else(|| {
            if group.is_usable() {
                DeclineReason::INTERR
            } else {
                DeclineReason::NOACTLINK
            }
        })?;
        let take = || {
            let stats = Stats::of(sk.net()).ok_or(DeclineReason::INTERR)?;
            let pool = group.pool();
            let kind = settings.buffer_kind();
            let (rings, origins, limit) = pool.take(link, half(sndbuf), half(rcvbuf), kind)?;
            let sndbuf = (limit, buffers::grows(kind));
            Self::assemble(
                group,
                link,
                settings,
                &stats,
                sk.urgent_inline(),
                (token, sndbuf),
                (rings.clone(), origins),
            )
            .and_then(|conn| group.install(token, conn.clone()).map(|()| conn))
            .inspect_err(|_| pool.put_back(&rings))
            .map_err(|err| match err {
                ENOMEM => DeclineReason::MEM,
                _ => DeclineReason::NOACTLINK,
            })
        };
        let conn = take().inspect_err(|_| group.release_token(token))?;
        // Either whoever takes the link down finds the connection, or it is seen here.
        if !group.takes_connections(link) {
            group.release_token(token);
            conn.give_back();
            return Err(DeclineReason::NOACTLINK);
        }
        Ok(conn)
    }

    fn assemble(
        group: &Arc<LinkGroup>,
        link: &Arc<Link>,
        settings: &Settings,
        stats: &Arc<Stats>,
        urgent_inline: bool,
        (token, sndbuf): (u32, (u32, bool)),
        (rings, [of_send, of_rmb]): (Rings, [Origin; 2]),
    ) -> Result<Arc<Self>> {
        let send = Held::new(rings.send, of_send, stats)?;
        let rmb = Held::new(rings.rmb, of_rmb, stats)?;
        let data = Data {
            place: Some(Place::new(group, link, send, rmb)?),
            former: None,
            rest: None,
            flow: None,
            target: None,
            validation: None,
            late: None,
            early: Early::default(),
            spilled: false,
            lack: Lack::default(),
            life: Life::new(),
            tcp: Tcp::default(),
            stall: Stall::default(),
            first_data: FirstData::default(),
            last_sent: host::coarse_ms(),
            last_received: host::coarse_ms(),
            received_at: None,
            sk: None,
            eof: false,
            error: None,
            in_flight: 0,
            hungry: false,
            fin_wait: ORPHAN_MS,
            deadline: None,
            told: false,
            peer_left: false,
            over: false,
            down: false,
        };
        Arc::pin_init(
            pin_init!(Self {
                token,
                stats: stats.clone(),
                autocorking_size: settings.autocorking_size(),
                corked: Atomic::new(false),
                nodelay: Atomic::new(false),
                tells_inq: Atomic::new(false),
                user_timeout: Atomic::new(0),
                sndbuf,
                urgent_inline,
                data <- new_spinlock_bh!(data, "Conn::data"),
                tx <- new_mutex!((), "Conn::tx"),
                rx <- new_mutex!((), "Conn::rx"),
            }),
            GFP_KERNEL,
        )
    }

    /// Where it is counted.
    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Counts it as one that was made.
    pub(crate) fn count_made(&self) {
        if let Some(place) = self.place() {
            let key = place.group.key();
            self.stats.count_made(key.role, key.version);
            place.trace(true, self.token);
        }
    }

    /// Our alert token: the peer names the connection by it.
    pub(crate) fn token(&self) -> u32 {
        self.token
    }

    /// Its place in the table of its group.
    fn index(&self) -> u8 {
        index_of(self.token)
    }

    /// A slot of the link; if there is none the connection gets one in its turn.
    fn slot_or_turn<'a>(
        &self,
        link: &'a Link,
        hungry: &mut bool,
        seqno: CdcSeq,
        sent: Cursor,
    ) -> Option<SendSlot<'a, Pending>> {
        let pending = Pending::Cdc(SentMessage {
            token: self.token,
            seqno,
            sent,
        });
        link.slots().reserve(pending).or_else(|| {
            // Again after saying so: the last slot may have become free in between.
            *hungry = true;
            link.wait_for_slot(self.index());
            link.slots().reserve(pending)
        })
    }

    fn place(&self) -> Option<Arc<Place>> {
        self.data.lock().place.clone()
    }

    /// Our part of the connection, for the peer; [`None`] when the link is gone.
    pub(crate) fn endpoint(&self, registry: &registry::Registry) -> Option<RdmaEndpoint> {
        let place = self.place()?;
        let link = &place.link;
        // The peer would look for it in vain.
        if link.state() == LinkState::Inactive {
            return None;
        }
        let key = place.rmb.planned_key()?;
        self.data.lock().told = true;
        Some(RdmaEndpoint {
            peer_id: registry.peer_id(),
            gid: link.gid(),
            mac: link.mac(),
            qpn: link.qpn(),
            rkey: super::types::RKey(key.rkey),
            rmbe_index: RmbeIndex::FIRST,
            alert_token: AlertToken(self.token),
            rmbe_size: place.rmb_ring().code(),
            qp_mtu: Some(link.mtu()),
            rmb_address: key.addr,
            psn: link.psn(),
        })
    }

    /// Registers the memory that needs it. The link can send. Process context.
    pub(crate) fn register(&self) -> Result {
        let place = self.place().ok_or(ENOTCONN)?;
        let group = &place.group;
        let rings = [place.rmb_ring(), place.send_ring()];
        for ring in rings {
            group
                .register_on(&place.link, ring)
                .inspect_err(|_| place.link.doubt())?;
        }
        // For the case that the connection has to move there. One that cannot goes without.
        let others = group
            .links()
            .filter(|link| link.is_active() && link.slot() != place.link.slot());
        for link in others {
            for ring in rings {
                if group.register_on(&link, ring).is_err() {
                    link.doubt();
                }
            }
        }
        Ok(())
    }

    /// Has the peer told of our RMB, if it does not know it yet (RFC 7609, section 3.5.5.2.1). Not at
    /// first contact, whose CLC messages do that. Process context.
    pub(crate) fn confirm_rmb(&self) -> Result {
        let place = self.place().ok_or(ENOTCONN)?;
        let rmb = place.rmb_ring();
        if !rmb.set_known(true) {
            place.group.confirm_rmb(rmb)?;
        }
        place.group.await_confirmed(rmb);
        Ok(())
    }

    /// Whether the peer knows the keys of our RMB on all links.
    pub(super) fn is_rmb_confirmed(&self) -> bool {
        self.place()
            .is_none_or(|place| place.rmb_ring().is_confirmed())
    }

    /// The first contact of the link group has told the peer of our RMB.
    pub(crate) fn rmb_confirmed(&self) {
        if let Some(place) = self.place() {
            place.rmb_ring().set_known(true);
            place.rmb_ring().set_confirmed(true);
        }
    }

    /// The peer does not know the link: it is to be tested.
    pub(crate) fn doubt_link(&self) {
        if let Some(place) = self.place() {
            place.link.doubt();
        }
    }

    /// Enters the peer's part: from now on messages are understood.
    pub(crate) fn meet(&self, peer: &RdmaEndpoint) -> Result {
        let element = u64::from(peer.rmbe_index.elements_before());
        let offset = element
            .checked_mul(u64::from(peer.rmbe_size.bytes()))
            .ok_or(EINVAL)?;
        let target = Self::target_of(peer.rkey, peer.rmb_address, offset)?;
        let place = self.place().ok_or(ENOTCONN)?;
        // Either side may have moved it meanwhile; a key is one of a link.
        let elsewhere = |far: &FarEnd| (far.gid, far.qpn) != (peer.gid, peer.qpn);
        if place.link.far().is_some_and(elsewhere) {
            return Err(ENOTCONN);
        }
        // First, as it moves with that from here on.
        let _ = place.group.learn(&place.link, target.token);
        let mut data = self.data.lock();
        let on_link = |now: &Arc<Place>| Arc::ptr_eq(&now.link, &place.link);
        if !data.place.as_ref().is_some_and(on_link) {
            return Err(ENOTCONN);
        }
        data.target = Some(target);
        let mut flow = Connection::new(&ConnParams {
            sndbuf_len: place.send_ring().len(),
            rmb_len: place.rmb_ring().len(),
            peer_rmb_len: peer.rmbe_size.bytes(),
            peer_token: peer.alert_token,
            immediates: place.group.uses_immediates(),
        })
        .ok_or(EINVAL)?;
        flow.tx.raise_limit(self.sndbuf.0);
        // What comes before the handshake is over may be urgent.
        flow.rx.set_oob_inline(self.urgent_inline);
        data.flow = Some(flow);
        let early = core::mem::take(&mut data.early);
        for (link, message) in early.messages() {
            self.take_cdc(&mut data, link, message);
        }
        if let Some(flow) = data.flow.as_mut() {
            flow.recall(&early);
        }
        Ok(())
    }

    /// The handshake is complete; `sk` is the socket from now on. Process context.
    pub(crate) fn established(&self, sk: SockRef) {
        let mut data = self.data.lock();
        let actions = data.life.handle(Event::Established);
        if let Some(place) = data.place.as_ref() {
            sk.set_buffer_sizes(
                i32::try_from(self.sndbuf.0.saturating_mul(2)).unwrap_or(i32::MAX),
                i32::try_from(place.rmb_ring().len().saturating_mul(2)).unwrap_or(i32::MAX),
            );
        }
        if data.eof {
            sk.add_shutdown(RCV_SHUTDOWN);
        }
        if let Some(err) = data.error {
            sk.add_shutdown(RCV_SHUTDOWN | SEND_SHUTDOWN);
            sk.report_error(err);
        }
        if let Some(flow) = data.flow.as_mut() {
            flow.rx.set_oob_inline(sk.urgent_inline());
            if flow.rx.readable() > 0 && sk.wants_time() {
                data.received_at = Some(host::time_of_day_ns());
            }
        }
        data.sk = Some(sk);
        self.apply(&mut data, actions, ECONNRESET);
    }

    // From the link, in bottom-half context.

    /// A CDC message for this connection has come over `link`.
    pub(super) fn handle_cdc(&self, link: &Link, message: &CdcMessage) {
        let mut data = self.data.lock();
        if data.flow.is_some() {
            self.take_cdc(&mut data, link.slot().index(), message);
        } else {
            data.early.note(link.slot().index(), message);
        }
    }

    /// An immediate for this connection has come over `link`, with a write of `len` bytes. Never early: a peer that sends them
    /// has heard from us.
    pub(super) fn handle_immediate(&self, link: &Link, immediate: Immediate, len: u32) {
        let mut data = self.data.lock();
        let Some(flow) = data.flow.as_ref() else {
            return;
        };
        let link = link.slot().index();
        match flow.expand(link, immediate, len) {
            Ok(Some(message)) => self.take_cdc(&mut data, link, &message),
            Ok(None) => {}
            Err(violation) => self.refuse_message(&mut data, violation),
        }
    }

    /// The peer says what cannot be (RFC 7609, section 4.8.2).
    fn refuse_message(&self, data: &mut Data, violation: Violation) {
        let flow = data.flow.as_ref();
        if flow.is_some_and(|flow| flow.state().contains(ConnState::ABORT)) {
            // Said and done before.
            return;
        }
        pr_warn_ratelimited!("connection {:#x} aborted: {violation:?}\n", self.token);
        self.event(data, Event::LocalAbort, ECONNRESET);
    }

    fn take_cdc(&self, data: &mut Data, link: usize, message: &CdcMessage) {
        data.tcp.note_message();
        let reads_no_more = reads_no_more(data);
        let Some(flow) = data.flow.as_mut() else {
            return;
        };
        flow.hear(link, message);
        let aborted = flow
            .state()
            .union(message.conn_state)
            .contains(ConnState::ABORT);
        if reads_no_more && !aborted && flow.brings_data(message) {
            // As TCP answers by a reset what comes for nobody (RFC 9293, section 3.6.1).
            self.event(data, Event::LocalAbort, ECONNRESET);
            // After an abort, too, what the peer says of the connection counts; not where the end of its group has closed it.
            let flow = data.flow.as_ref();
            if !flow.is_some_and(|flow| flow.state().contains(ConnState::ABORT)) {
                return;
            }
        }
        let Some(flow) = data.flow.as_mut() else {
            return;
        };
        let effects = match flow.handle_cdc(message) {
            Ok(effects) => effects,
            Err(violation) => {
                self.refuse_message(data, violation);
                return;
            }
        };
        if let (Some(offset), Some(place)) = (effects.urgent_offset, data.place.as_ref()) {
            let offset = offset as usize;
            place.rmb.sync_for_cpu(offset..offset.saturating_add(1));
            if let Some(byte) = place.rmb_ring().buffer().read_byte(offset) {
                flow.rx.set_urgent_byte(byte);
            }
        }
        let unsent = flow.tx.unsent() > 0;
        if effects.push_tx || effects.send_update {
            self.push(data);
        }
        if effects.freed {
            self.tell_of_room(data);
            self.check_drained(data);
        }
        self.take_peer_state(data, &effects, unsent);
        let Some(sk) = data.sk.as_ref() else {
            return;
        };
        if effects.received > 0 {
            data.last_received = host::coarse_ms();
            if sk.wants_time() {
                data.received_at = Some(host::time_of_day_ns());
            }
        }
        if effects.readable {
            sk.wake_readable();
            Self::note_first_data(&mut data.first_data, sk);
        }
        if effects.sigurg {
            sk.signal_urgent();
        }
        if effects.urgent_confirmed {
            if core::mem::take(&mut data.lack.sleeper) {
                // It may be that what it waits for.
                sk.wake_for_room();
            }
            self.tell_of_room(data);
        }
    }

    /// What the peer says of the connection; `unsent` if there was data for it.
    fn take_peer_state(&self, data: &mut Data, effects: &Effects, unsent: bool) {
        if effects.peer_abort {
            data.peer_left = true;
            self.event(data, Event::PeerAbort, reset_error(data));
        } else if effects.peer_closed {
            data.peer_left = true;
            // TCP would have been told of the end of the stream, and be reset by what it sends then.
            self.event(data, Event::PeerClosed { unsent }, EPIPE);
        } else if effects.peer_done {
            self.event(data, Event::PeerDoneWriting, ECONNRESET);
        }
    }

    /// CDC messages of ours, and the data with them, are with the peer.
    pub(super) fn handle_sent(&self, sent: &Sent) {
        let mut guard = self.data.lock();
        let data = &mut *guard;
        data.in_flight = data.in_flight.saturating_sub(sent.count);
        let Some(flow) = data.flow.as_mut() else {
            return;
        };
        let completed = flow.on_send_complete(sent.last.seqno, sent.last.sent);
        if completed.freed > 0 && data.life.is_draining() && data.deadline.is_some() {
            data.deadline = Some(registry::now().after(ORPHAN_MS));
        }
        let starved = data
            .place
            .as_ref()
            .is_some_and(|place| place.link.is_starved());
        let idle = flow.tx.unsent() == 0 && !flow.cdc_due() && data.validation.is_none();
        if idle {
            self.want_completions(data);
        } else if !starved {
            self.push(data);
        } else {
            // Others wait for a slot: this connection takes its turn with them, when the handler is
            // done with this batch of completions.
            data.hungry = true;
            if let Some(place) = data.place.as_ref() {
                place.link.wait_for_slot(self.index());
            }
        }
        self.check_drained(data);
        if data.over && data.in_flight == 0 {
            self.kick(data);
        }
        if completed.freed > 0 {
            self.tell_of_room(data);
        }
    }

    /// Wakes whoever found no room, as TCP does: when there is enough, and nobody else, since each wake-up is an event for
    /// edge-triggered epoll. A sender that was woken for less would send it in pieces as small.
    fn tell_of_room(&self, data: &mut Data) {
        if !data.lack.sleeper && !data.lack.poller {
            return;
        }
        self.widen(data);
        // What is under way completes: there will be enough, unless the peer does not read.
        if data.flow.as_ref().is_some_and(|flow| flow.tx.is_writable()) {
            data.lack = Lack::default();
            if let Some(sk) = data.sk.as_ref() {
                sk.wake_for_room();
            }
        }
    }

    /// Whether it uses `link`. Any context.
    pub(super) fn is_on(&self, link: &Link) -> bool {
        self.data.lock().is_on(link)
    }

    /// Whether its handshake is under way on `link`: the peer's end is not known, and it cannot move.
    pub(super) fn begins_on(&self, link: &Link) -> bool {
        let data = self.data.lock();
        data.is_on(link) && data.flow.is_none() && !data.over
    }

    /// There is a free slot of `link`; whether it was not enough.
    pub(super) fn feed(&self, link: &Link) -> bool {
        let mut data = self.data.lock();
        if !data.is_on(link) {
            return false;
        }
        if core::mem::take(&mut data.hungry) {
            self.push(&mut data);
        }
        data.hungry
    }

    /// Time has passed.
    pub(super) fn tick(&self, now: Millis) {
        let mut data = self.data.lock();
        // RFC 7609, section 4.5.2: what is held back for more (`MSG_MORE`, `TCP_CORK`) is sent in the
        // end, whether or not more comes.
        if data.sk.is_some() || data.over {
            self.push(&mut data);
        }
        if data.deadline.is_some_and(|at| at.reached(now)) {
            data.deadline = None;
            self.event(&mut data, Event::Timeout, ETIMEDOUT);
        }
        self.check_failover(&mut data, now);
        self.check_first_data(&mut data, now);
        self.check_stall(&mut data, now);
        if let Some(err) = Self::lost_peer(&mut data, now) {
            // The link may be no better, and new connections are not to use it then.
            if let Some(place) = data.place.as_ref() {
                place.link.doubt();
            }
            self.event(&mut data, Event::LocalAbort, err);
            // There is nobody to answer.
            self.event(&mut data, Event::Timeout, err);
        }
    }

    // Sending.

    /// Posts whatever can be posted: the message that has to be first on a new link, and one with all else.
    fn push(&self, data: &mut Data) {
        if data.validation.is_none() || self.push_validation(data) {
            self.push_one(data);
        }
        self.want_completions(data);
    }

    /// Has the device tell when something has been sent, if that is waited for.
    fn want_completions(&self, data: &Data) {
        let (Some(flow), Some(place), true) =
            (data.flow.as_ref(), data.place.as_ref(), data.in_flight > 0)
        else {
            return;
        };
        if flow.tx.has_unsent()
            || data.lack.sleeper
            || data.lack.poller
            || data.over
            || data.life.is_draining()
        {
            place.link.want();
        }
    }

    /// Looks at what has been sent, if something is under way. Process context.
    fn reap(&self) {
        let link = {
            let data = self.data.lock();
            match data.place.as_ref() {
                Some(place) if data.in_flight > 0 => place.link.clone(),
                _ => return,
            }
        };
        link.reap();
    }

    /// Posts one message with all the data that can be sent, if there is something to post, and a slot. More
    /// would not help: nothing is due behind it before the peer has said something.
    fn push_one(&self, data: &mut Data) {
        let (Some(flow), Some(place), false) = (data.flow.as_mut(), data.place.as_ref(), data.down)
        else {
            return;
        };
        let link = &place.link;
        let plan = flow.plan(u32::MAX);
        if plan.is_none() && flow.tx.unsent() > 0 && flow.tx.window() == 0 {
            self.stats.count(counter::TX_BUFFERS.peer_full);
        }
        if plan.is_none() && !flow.cdc_due() {
            return;
        }
        let sent = plan
            .as_ref()
            .map_or_else(|| flow.tx.sent(), |plan| plan.sent);
        let seqno = flow.last_sent().next();
        let Some(slot) = self.slot_or_turn(link, &mut data.hungry, seqno, sent) else {
            return;
        };
        let mut writes = NO_WRITES;
        let message = match &plan {
            Some(plan) => {
                let Some(target) = data.target.as_ref() else {
                    return;
                };
                if !describe(plan, place, target, &mut writes) {
                    return;
                }
                data.last_sent = host::coarse_ms();
                flow.commit_tx(plan)
            }
            None => flow.make_cdc(),
        };
        let short = flow.shorten(&message, plan.as_ref());
        let posted = match short {
            Some(immediate) if plan.is_some() => slot.post_immediate(&writes, immediate.0),
            _ => slot.post(&message.emit(), &writes),
        };
        data.in_flight = data.in_flight.saturating_add(1);
        if posted.is_err() {
            // It never completes.
            place.group.link_failed(link, LinkFailure::Post);
        }
    }

    /// Posts the message that has to be the first on a new link; false if there is no slot.
    fn push_validation(&self, data: &mut Data) -> bool {
        let (Some(flow), Some(place), false) = (data.flow.as_ref(), data.place.as_ref(), data.down)
        else {
            return false;
        };
        let link = &place.link;
        let Some(message) = data.validation else {
            return false;
        };
        let sent = flow.tx.fin();
        let Some(slot) = self.slot_or_turn(link, &mut data.hungry, message.seqno, sent) else {
            return false;
        };
        let posted = slot.post(&message.emit(), &NO_WRITES);
        // If it could not be posted the link is of no use, and another one begins with another one.
        data.validation = None;
        data.in_flight = data.in_flight.saturating_add(1);
        // What could not be posted never completes.
        posted
            .inspect_err(|_| place.group.link_failed(link, LinkFailure::Post))
            .is_ok()
    }

    /// Data was added to the send buffer: send it, unless more is to come soon.
    fn push_corked(&self, data: &mut Data, more: bool) {
        let Some(flow) = data.flow.as_mut() else {
            return;
        };
        // What the peer has taken has arrived, looked at or not.
        let in_flight = match data.in_flight {
            0 => 0,
            _ if flow.tx.unconfirmed() == 0 => 0,
            in_flight => in_flight,
        };
        let corked = more || self.corked.load(Relaxed);
        if in_flight == 0 && !corked {
            // As would be said below.
            self.push(data);
            return;
        }
        let view = cork::CorkView {
            in_flight,
            unsent: flow.tx.unsent(),
            writable: flow.tx.is_writable(),
            sndbuf_len: flow.tx.sndbuf_len(),
            autocorking_size: self.autocorking_size,
            corked,
            nodelay: self.nodelay.load(Relaxed),
            urgent: flow.tx.urgent_busy(),
        };
        if cork::hold(&view) {
            self.want_completions(data);
        } else {
            self.push(data);
        }
    }

    /// Calls `f`, unless the link group is gone.
    fn with_link<R>(&self, f: impl FnOnce(&mut Data) -> R) -> Option<R> {
        let mut data = self.data.lock();
        data.place.is_some().then(|| f(&mut data))
    }

    // Its life.

    fn event(&self, data: &mut Data, event: Event, err: Error) {
        let actions = data.life.handle(event);
        self.apply(data, actions, err);
    }

    fn apply(&self, data: &mut Data, actions: Actions, err: Error) {
        if let Some(flow) = data.flow.as_mut() {
            if actions.discard_unsent {
                flow.tx.discard_unsent();
            }
            match actions.send {
                Some(Farewell::DoneWriting) => flow.announce(ConnState::DONE_WRITING),
                Some(Farewell::Closed) => flow.announce(ConnState::CLOSED),
                Some(Farewell::Abort) => flow.announce(ConnState::ABORT),
                None => {}
            }
        }
        if actions.send.is_some() {
            self.push(data);
        }
        // A peer that has said that it writes no more may say that it has closed, too: no news to readers.
        let eof = actions.eof && !data.eof;
        if eof {
            data.eof = true;
            if let Some(sk) = data.sk.as_ref() {
                sk.add_shutdown(RCV_SHUTDOWN);
            }
        }
        if actions.reset {
            data.error = Some(err);
            if let Some(sk) = data.sk.as_ref() {
                sk.add_shutdown(RCV_SHUTDOWN | SEND_SHUTDOWN);
                sk.report_error(err);
            }
        }
        if actions.arm_timer {
            let wait = if data.life.is_draining() {
                ORPHAN_MS
            } else {
                data.fin_wait
            };
            data.deadline = Some(registry::now().after(wait));
        }
        if actions.free {
            data.over = true;
            self.kick(data);
        }
        if let Some(sk) = data.sk.as_ref() {
            sk.set_state(data.life.state().abi());
            let shown = Actions {
                eof,
                release_peer_ref: false,
                free: false,
                ..actions
            };
            if shown != Actions::default() {
                sk.wake_all();
            } else if actions != Actions::default() {
                // No event, but perhaps what somebody waits for: a writer, or `close` that lingers.
                sk.wake_sleepers();
            }
            if eof {
                const BOTH: u8 = RCV_SHUTDOWN | SEND_SHUTDOWN;
                let ended = sk.shutdown_mask() & BOTH == BOTH;
                sk.signal_io(if ended { IoBand::Hup } else { IoBand::In });
            }
            if eof || actions.reset {
                Self::note_first_data(&mut data.first_data, sk);
            }
        }
        if actions.wait_drained {
            self.check_drained(data);
        }
        if let (Some(Farewell::Abort), Some(flow)) = (actions.send, data.flow.as_mut()) {
            // Nothing may come any more that would have it looked at.
            let held = flow.take_held_state();
            self.take_peer_state(data, &held, false);
        }
        self.want_completions(data);
    }

    fn check_drained(&self, data: &mut Data) {
        let drained = data.flow.as_ref().is_none_or(|flow| flow.tx.is_drained());
        if data.life.is_draining() && drained {
            self.event(data, Event::Drained, ECONNRESET);
        }
    }

    fn kick(&self, data: &Data) {
        if let Some(place) = data.place.as_ref() {
            place.group.kick();
        }
    }

    /// Nobody uses the connection, nothing of it is under way, and its farewell has left: it can be taken out of
    /// its group. A peer that never hears the farewell keeps its end for ever (RFC 7609, section 4.8.1).
    pub(super) fn is_over(&self) -> bool {
        let data = self.data.lock();
        let owes = data.flow.as_ref().is_some_and(|flow| flow.owes_state());
        data.over && data.in_flight == 0 && !owes
    }

    /// Whether the peer may go on to send immediates to our token: it has heard from us, and has not said goodbye.
    pub(super) fn peer_may_send(&self) -> bool {
        let data = self.data.lock();
        let said = |flow: &Connection| flow.traffic().messages_sent > 0;
        !data.peer_left && data.flow.as_ref().is_some_and(said)
    }

    /// Gives the memory back, after [`Self::is_over`]. Process context.
    pub(super) fn give_back(&self) {
        let (place, former, tcp, unused, written) = {
            let mut data = self.data.lock();
            let unused = data.peer_left || !data.told;
            let written = match data.flow.as_ref() {
                Some(flow) if !data.spilled => flow.written(),
                _ => (u32::MAX, u32::MAX),
            };
            let (place, former) = (data.place.take(), data.former.take());
            (place, former, data.tcp.take(), unused, written)
        };
        if let Some(place) = place {
            place.trace(false, self.token);
            let (rmb, pool) = (place.rmb_ring(), place.group.pool());
            pool.put(place.send_ring(), written.0);
            if let Some(former) = former {
                pool.put(&former.ring, u32::MAX);
            }
            if unused {
                pool.put(rmb, written.1);
            } else {
                // A peer that has not said goodbye may still write.
                place.group.delete_rmb(rmb.clone());
            }
        }
        drop(tcp);
    }

    /// The link group has ended. Any context.
    pub(super) fn group_down(&self) {
        let mut data = self.data.lock();
        data.down = true;
        self.event(&mut data, Event::LinkGroupDown, ECONNABORTED);
    }

    /// The link is gone, and there is no other one: let go of everything on its device. What has come can still be
    /// read, as with TCP. The rings that the connection had. Process context.
    pub(super) fn leave(&self) -> [Option<Arc<Ring>>; 3] {
        let own = self.place().and_then(|place| {
            let rmb = place.rmb_ring();
            // The queue pair is gone, so that nothing is written any more.
            place.rmb.sync_for_cpu(0..rmb.buffer().len());
            let mut data = self.data.lock();
            let flow = data.flow.as_ref();
            if data.sk.is_some() && flow.is_some_and(|flow| flow.rx.readable() > 0) {
                data.rest = Some(rmb.shared_buffer());
            }
            // A send may have exchanged it.
            Some((data.place.take()?, data.former.take()))
        });
        // A handshake may have put it there since.
        self.reset_tcp();
        let Some((own, former)) = own else {
            return [const { None }; 3];
        };
        own.trace(false, self.token);
        [
            Some(own.send_ring().clone()),
            Some(own.rmb_ring().clone()),
            former.map(|former| former.ring.clone()),
        ]
    }

    /// The user is gone. Data goes on being sent, as TCP would; `SO_LINGER` makes the caller wait
    /// for it, or throws it away.
    ///
    /// `linger2` is `TCP_LINGER2` in milliseconds, if it is set.
    pub(crate) fn close(&self, sk: &Sock<SmcSocket>, linger2: Option<u32>) {
        // Data that has arrived needs no draining.
        self.reap();
        // As TCP in FIN-WAIT-2.
        self.data.lock().fin_wait = linger2.unwrap_or_else(|| sk.net().tcp_fin_timeout());
        let linger = sk.linger();
        let down = self
            .with_link(|data| {
                let unread = data
                    .flow
                    .as_ref()
                    .is_some_and(|flow| flow.rx.readable() > 0);
                // What is held back for more is sent now: there will be no more.
                self.push(data);
                // As for TCP, there is nothing to abort once both directions have ended.
                if linger == Some(0) && !data.life.is_disconnected() {
                    self.event(data, Event::LocalAbort, ECONNRESET);
                }
                self.event(data, Event::AppClose { unread }, ECONNRESET);
            })
            .is_none();
        if down {
            let mut data = self.data.lock();
            self.event(&mut data, Event::AppClose { unread: false }, ECONNRESET);
        }
        if let Some(mut timeo) = linger.filter(|time| *time > 0) {
            let _ = sk.wait(&mut timeo, || !self.data.lock().life.is_draining());
        }
        self.forget_socket();
    }

    /// There is no application any more. Process context.
    fn forget_socket(&self) {
        let own = {
            let mut data = self.data.lock();
            (data.sk.take(), data.rest.take())
        };
        drop(own);
    }

    /// Gives up a connection whose handshake has succeeded, but which nobody wants any more: for the
    /// peer it is established, so that it must be told. Process context.
    pub(crate) fn refuse(&self) {
        // No socket is there yet, so that there is nothing to do for it.
        let _ = self.data.lock().life.handle(Event::Established);
        self.abort(ECONNABORTED);
    }

    /// Gives up a connection that no application has, or will have. Process context.
    pub(crate) fn abort(&self, err: Error) {
        let aborted = self.with_link(|data| {
            self.event(data, Event::LocalAbort, err);
            self.event(data, Event::AppClose { unread: false }, err);
        });
        if aborted.is_none() {
            let mut data = self.data.lock();
            self.event(&mut data, Event::AppClose { unread: false }, err);
        }
        self.forget_socket();
    }

    /// `shutdown(2)` of the given directions.
    pub(crate) fn shutdown(&self, sk: &Sock<SmcSocket>, read: bool, write: bool) -> Result {
        let connected = !self.is_disconnected();
        self.reap();
        self.with_link(|data| {
            if write {
                sk.add_shutdown(SEND_SHUTDOWN);
                self.push(data);
                self.event(data, Event::AppShutdownWrite, ECONNRESET);
            }
            if read {
                sk.add_shutdown(RCV_SHUTDOWN);
            }
        })
        .ok_or(ENOTCONN)?;
        sk.wake_all();
        if connected {
            Ok(())
        } else {
            Err(ENOTCONN)
        }
    }

    /// Have both directions ended, so that there is no connection any more as far as TCP goes?
    pub(crate) fn is_disconnected(&self) -> bool {
        self.data.lock().life.is_disconnected()
    }

    /// `TCP_INQ`.
    pub(crate) fn set_tells_inq(&self, on: bool) {
        self.tells_inq.store(on, Relaxed);
    }

    /// `TCP_USER_TIMEOUT` in milliseconds; 0 is none.
    pub(crate) fn set_user_timeout(&self, ms: u32) {
        self.user_timeout.store(ms, Relaxed);
    }

    /// `TCP_NODELAY`.
    pub(crate) fn set_nodelay(&self, on: bool) {
        self.nodelay.store(on, Relaxed);
        if on {
            self.with_link(|data| self.push(data));
        }
    }

    /// Sends what is held back for more.
    pub(crate) fn flush(&self) {
        self.with_link(|data| self.push(data));
    }

    /// `TCP_CORK`.
    pub(crate) fn set_corked(&self, on: bool) {
        self.corked.store(on, Relaxed);
        if !on {
            self.with_link(|data| self.push(data));
        }
    }
}

/// Who was told that there is no room to send, since there last was some.
#[derive(Default)]
struct Lack {
    /// A sender that sleeps.
    sleeper: bool,
    /// One that has been given `EAGAIN`, or has polled: waits until `poll` says so.
    poller: bool,
}

/// Has the application closed, or shut down both directions, while the peer may still write?
fn reads_no_more(data: &Data) -> bool {
    const BOTH: u8 = RCV_SHUTDOWN | SEND_SHUTDOWN;

    let shut = || match data.sk.as_ref() {
        Some(sk) => sk.shutdown_mask() & BOTH == BOTH,
        None => false,
    };
    !data.eof && (data.life.is_orphan() || shut())
}

/// The error of a connection that the peer has reset: TCP's depends on whether its stream had ended.
fn reset_error(data: &Data) -> Error {
    if data.eof {
        EPIPE
    } else {
        ECONNRESET
    }
}

/// Describes the RDMA WRITEs of a plan; false if the plan does not fit the memory, which cannot be.
fn describe<'a>(plan: &TxPlan, place: &'a Place, target: &Target, writes: &mut Writes<'a>) -> bool {
    let mapping = &place.send;
    let Some(address) = target.address() else {
        return false;
    };
    for (write, place) in plan.writes.iter().zip(writes) {
        if write.is_empty() {
            continue;
        }
        let piece = |span: Span| {
            let (offset, len) = (span.offset as usize, span.len as usize);
            let sge = mapping.sge(offset, len);
            mapping.sync_for_device(offset..offset.saturating_add(len));
            sge
        };
        // The first one is empty only if both are.
        let Spans { first, second } = write.source;
        let Ok(first) = piece(first) else {
            return false;
        };
        let second = match second.len {
            0 => None,
            _ => match piece(second) {
                Ok(second) => Some(second),
                Err(_) => return false,
            },
        };
        let Some(remote) = address.checked_add(u64::from(write.remote_offset)) else {
            return false;
        };
        *place = Some(RdmaWrite::new(first, second, target.token.rkey.0, remote));
    }
    true
}
