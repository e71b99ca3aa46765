// SPDX-License-Identifier: GPL-2.0

//! SMC sockets: what a program sees.
//!
//! A socket starts as a TCP socket that may become more. `connect` and `listen` set the TCP
//! connection up with the TCP option of RFC 7609, section 3.1.1; then either the handshake ends in
//! an SMC-R connection ([`Phase::Smc`]), or the TCP connection carries on ([`Phase::Fallback`]).
//! Which of the two is decided once and never changes again.

mod accept_queue;
mod close;
mod connect;
mod fallback;
mod listen;
mod options;
mod transfer;

use self::{
    accept_queue::{
        AcceptQueue,
        Turn, //
    },
    close::Shut, //
};
use crate::kapi::prelude::*;
use crate::{
    clc::{
        decline::DeclineReason,
        plain_servers::Sign, //
    },
    kapi::{
        clcsock::{
            Addresses,
            ClcSock,
            NameOf,
            SockAddr, //
        },
        family::{
            Names,
            Registration,
            Tables, //
        },
        proto_ops::{
            GetOption,
            Ioctl,
            Message,
            Poll,
            SetOption,
            SocketOps, //
        },
        sock::{
            Protocol,
            Sock, //
        },
        watch::{
            WakeHandler,
            Watch, //
        }, //
    },
    smc_core::{
        conn::{
            Conn,
            Inspection, //
        },
        counter,
        habits::{
            Place,
            Visit, //
        },
        time::Millis, //
    },
    sysctl::Settings, //
};
use kernel::{
    error::{
        Error,
        Result, //
    },
    ffi::c_int,
    new_mutex,
    new_spinlock,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Arc,
        Mutex,
        SetOnce,
        SpinLock, //
    }, //
};

/// `AF_SMC`, which `SOCK_STREAM` sockets may name directly.
pub(crate) const AF_SMC: c_int = 43;
/// `IPPROTO_SMC`: SMC under `AF_INET` and `AF_INET6`.
const IPPROTO_SMC: u16 = 256;

/// A reference to an SMC socket.
pub(crate) type SockRef = ARef<Sock<SmcSocket>>;

/// Where a socket is in its life. Shown to readers without a lock; changed under
/// [`SmcSocket::life`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Phase {
    /// Neither connected nor listening.
    Init = 0,
    /// `connect` was called; TCP or the SMC handshake is under way.
    Connecting = 1,
    /// Listening.
    Listen = 2,
    /// Server side: accepted by TCP, the SMC handshake is under way.
    Handshake = 3,
    /// Carried by TCP for good.
    Fallback = 4,
    /// Carried by SMC-R.
    Smc = 5,
    /// The user is gone.
    Closed = 6,
}

impl Phase {
    fn from_u32(value: u32) -> Self {
        match value {
            0 => Self::Init,
            1 => Self::Connecting,
            2 => Self::Listen,
            3 => Self::Handshake,
            4 => Self::Fallback,
            5 => Self::Smc,
            _ => Self::Closed,
        }
    }

    /// The state byte of `sock_diag` (`SMC_*` of the C implementation's ABI).
    fn diag_state(self) -> u8 {
        match self {
            Self::Init | Self::Connecting | Self::Handshake => 2,
            Self::Listen => 10,
            Self::Fallback | Self::Smc => 1,
            Self::Closed => 7,
        }
    }
}

/// The protocol data of an SMC socket.
#[pin_data]
pub(crate) struct SmcSocket {
    /// Address family of the TCP socket.
    clc_family: c_int,
    phase: Atomic<u32>,
    /// Why the socket fell back; zero if it did not.
    fallback: Atomic<u32>,
    /// The peer's own reason, when it declined.
    peer_diagnosis: Atomic<u32>,
    /// The TCP socket, until release.
    #[pin]
    clc: SpinLock<Option<Arc<ClcSock>>>,
    /// Serialises changes of the phase.
    #[pin]
    life: Mutex<Life>,
    /// The SMC-R connection, once there is one.
    conn: SetOnce<Arc<Conn>>,
    /// Whether a listener negotiates SMC only as long as not too many handshakes are under way
    /// (`SMC_LIMIT_HS`).
    limits_handshakes: Atomic<bool>,
    /// The program has asked for something that only TCP has, before the socket was connected.
    needs_tcp: Atomic<bool>,
    /// `TCP_FASTOPEN_CONNECT`, which can be taken back.
    wants_fast_open: Atomic<bool>,
    /// `TCP_DEFER_ACCEPT` of a listener, in seconds; 0 is off.
    defer_accept: Atomic<u32>,
    /// Connections that wait for `accept`.
    #[pin]
    queue: AcceptQueue,
}

/// There is something for the work item of a socket to do: its TCP socket has woken.
struct Woken(SockRef);

impl WakeHandler for Woken {
    fn woken(&self, _events: u32) {
        self.0.queue_job(JOB_SET_UP, crate::queues::set_up());
    }
}

/// What only the thread that changes the phase touches.
struct Life {
    /// Entry in the queue that the TCP socket wakes until the outcome is known.
    watch: Option<Watch<Woken>>,
    /// The outcome of a `connect` was not reported to the user yet.
    unreported: bool,
    /// Where a `connect` that is under way leads, as long as it may have to be done again.
    server: Option<KBox<SockAddr>>,
    /// Why the SYN has no TCP option, if that is on purpose.
    plain: Option<DeclineReason>,
    /// What the server did at the first attempt, when it is done again for [`DeclineReason::NOCLC`].
    sign: Sign,
    /// When the connect that is under way began.
    began: Millis,
    /// The listener that this connection was accepted by.
    parent: Option<SockRef>,
    /// Where connections like this one are known, if they are looked at.
    place: Option<Place>,
    /// This one, while it is there.
    visit: Option<Visit>,
    /// Its place among those that this listener has accepted.
    turn: Turn,
    /// `backlog` of `listen`.
    backlog: c_int,
    /// A listener with too many handshakes under way.
    crowded: bool,
    /// A listener whose connections are too short for SMC, as far as is known.
    unwanted: bool,
    /// A listener that does not negotiate SMC for the time being, for one of these reasons.
    paused: bool,
    /// Directions that the user has shut down during the handshake.
    shut: Shut,
}

static TABLES: Tables<SmcSocket> = Tables::new();

impl Protocol for SmcSocket {
    fn tables() -> &'static Tables<Self> {
        &TABLES
    }

    fn init(clc_family: c_int) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            clc_family,
            phase: Atomic::new(Phase::Init as u32),
            fallback: Atomic::new(0),
            peer_diagnosis: Atomic::new(0),
            clc <- new_spinlock!(None, "SmcSocket::clc"),
            life <- new_mutex!(
                Life {
                    watch: None,
                    unreported: false,
                    server: None,
                    plain: None,
                    sign: Sign::Stranger,
                    began: Millis(0),
                    parent: None,
                    place: None,
                    visit: None,
                    turn: Turn::default(),
                    backlog: 0,
                    crowded: false,
                    unwanted: false,
                    paused: false,
                    shut: Shut::default(),
                },
                "SmcSocket::life"
            ),
            conn: SetOnce::new(),
            limits_handshakes: Atomic::new(false),
            needs_tcp: Atomic::new(false),
            wants_fast_open: Atomic::new(false),
            defer_accept: Atomic::new(0),
            queue <- AcceptQueue::new(),
        }? Error)
    }

    fn created(sk: &Sock<Self>) -> Result {
        let clc = Arc::new(sk.create_clcsock(sk.clc_family)?, GFP_KERNEL)?;
        // An accepted socket gets its file when it is known whether it falls back. This one may be
        // polled by then.
        sk.share_queue(&clc);
        *sk.clc.lock() = Some(clc);
        sk.set_state(Phase::Init.diag_state());
        if let Ok(settings) = Settings::of(sk.net()) {
            sk.limit_handshakes(settings.limits_handshakes());
            // The kernel keeps twice what is asked for.
            let twice = |size: i32| size.saturating_mul(2);
            sk.set_buffer_sizes(twice(settings.wmem()), twice(settings.rmem()));
        }
        Ok(())
    }

    fn run_job(sk: SockRef, job: usize) {
        match (job, sk.phase()) {
            (JOB_SET_UP, Phase::Connecting) => connect::run(&sk),
            (JOB_SET_UP, Phase::Listen) => listen::run(&sk),
            (JOB_SET_UP, Phase::Smc) => listen::offer_deferred(&sk),
            (JOB_HANDSHAKE, Phase::Connecting) => connect::handshake(&sk),
            (JOB_HANDSHAKE, Phase::Handshake) => listen::handshake(&sk),
            _ => {}
        }
    }
}

/// The work item for what TCP tells: what it does depends on the phase. It never waits for the network.
/// Each work item is for one queue only, as it could run twice at once on two.
const JOB_SET_UP: usize = 0;

/// The work item for the handshake, which waits for the peer.
const JOB_HANDSHAKE: usize = 1;

impl SmcSocket {
    /// Where the socket is in its life.
    pub(crate) fn phase(&self) -> Phase {
        Phase::from_u32(self.phase.load(Acquire))
    }

    /// The TCP socket, unless the user is gone.
    fn clc(&self) -> Option<Arc<ClcSock>> {
        self.clc.lock().clone()
    }

    /// The TCP socket, or `EBADF` when the socket is being released.
    fn try_clc(&self) -> Result<Arc<ClcSock>> {
        self.clc().ok_or(EBADF)
    }

    /// The SMC-R connection.
    fn conn(&self) -> Option<&Arc<Conn>> {
        self.conn.as_ref()
    }

    /// Has the program asked for something that only TCP has?
    fn needs_tcp(&self, clc: &ClcSock) -> Option<DeclineReason> {
        if clc.has_ipsec_policy() {
            return Some(DeclineReason::IPSEC);
        }
        let asked = self.needs_tcp.load(Relaxed) || self.wants_fast_open.load(Relaxed);
        asked.then_some(DeclineReason::OPTUNSUPP)
    }

    /// Whether a listener negotiates SMC only as long as not too many handshakes are under way.
    fn limits_handshakes(&self) -> bool {
        self.limits_handshakes.load(Relaxed)
    }

    /// Switches that on or off.
    fn limit_handshakes(&self, limit: bool) {
        self.limits_handshakes.store(limit, Relaxed);
    }

    /// A connection that is held back until its client has sent something has something to read. Any
    /// context.
    pub(crate) fn first_data(sk: &Sock<Self>) {
        sk.queue_job(JOB_SET_UP, crate::queues::set_up());
    }

    /// Why the socket fell back, and why the peer declined; zero if they did not.
    pub(crate) fn fallback_reasons(&self) -> (DeclineReason, u32) {
        (
            DeclineReason(self.fallback.load(Relaxed)),
            self.peer_diagnosis.load(Relaxed),
        )
    }

    /// Addresses and ports of the TCP socket, unless it is gone.
    pub(crate) fn addresses(&self) -> Option<Addresses> {
        // Not cloned: dropping the last reference would close the TCP socket, here.
        self.clc.lock().as_ref().map(|clc| clc.addresses())
    }

    /// The SMC-R connection as it is now, if there is one. Process context.
    pub(crate) fn inspect(&self) -> Option<Inspection> {
        self.conn().map(|conn| conn.inspect())
    }
}

/// Changes the phase; the caller holds [`SmcSocket::life`].
fn set_phase(sk: &Sock<SmcSocket>, phase: Phase) {
    sk.phase.store(phase as u32, Release);
    // A connection tells its state itself.
    if phase != Phase::Smc {
        sk.set_state(phase.diag_state());
    }
}

impl SocketOps for SmcSocket {
    fn release(sk: &Sock<Self>) {
        close::release(sk);
    }

    fn bind(sk: &Sock<Self>, addr: SockAddr) -> Result {
        let _life = sk.life.lock();
        if sk.phase() != Phase::Init {
            return Err(EINVAL);
        }
        let clc = sk.try_clc()?;
        let copied = sk.copy_options_to(&clc);
        clc.bind(addr)?;
        sk.follow_route(&clc, Some(copied));
        Ok(())
    }

    fn connect(sk: &Sock<Self>, addr: SockAddr, flags: c_int) -> Result {
        connect::connect(sk, addr, flags)
    }

    fn listen(sk: &Sock<Self>, backlog: c_int) -> Result {
        listen::listen(sk, backlog)
    }

    fn accept(sk: &Sock<Self>, nonblock: bool) -> Result<SockRef> {
        listen::accept(sk, nonblock)
    }

    fn accepted(child: &Sock<Self>) {
        if child.phase() == Phase::Fallback {
            if let Some(clc) = child.clc() {
                child.hand_over_file(&clc);
            }
        }
    }

    fn name(sk: &Sock<Self>, of: NameOf) -> Result<SockAddr> {
        let ended = || match sk.phase() {
            Phase::Connecting => true,
            Phase::Smc => sk.conn().is_some_and(|conn| conn.is_disconnected()),
            _ => false,
        };
        if of == NameOf::Peer && ended() {
            return Err(ENOTCONN);
        }
        sk.try_clc()?.name(of)
    }

    fn poll(sk: &Sock<Self>, poll: &mut Poll) -> u32 {
        transfer::poll(sk, poll)
    }

    fn ioctl(sk: &Sock<Self>, call: &Ioctl) -> Result<c_int> {
        options::ioctl(sk, call)
    }

    fn shutdown(sk: &Sock<Self>, how: u32) -> Result {
        close::shutdown(sk, how)
    }

    fn setsockopt(sk: &Sock<Self>, option: &SetOption) -> Result {
        options::set(sk, option)
    }

    fn getsockopt(sk: &Sock<Self>, option: &GetOption) -> Result {
        options::get(sk, option)
    }

    fn sendmsg(sk: &Sock<Self>, msg: &mut Message) -> Result<usize> {
        transfer::send(sk, msg)
    }

    fn splice_begins(sk: &Sock<Self>) {
        if let Some(conn) = sk.conn() {
            conn.stats().count(counter::SPLICES);
        }
    }

    fn splice_eof(sk: &Sock<Self>) {
        if let Some(conn) = sk.conn() {
            conn.flush();
        }
    }

    fn recvmsg(sk: &Sock<Self>, msg: &mut Message) -> Result<usize> {
        transfer::receive(sk, msg)
    }
}

/// Registers `AF_SMC`, and `IPPROTO_SMC` under `AF_INET` and `AF_INET6`.
pub(crate) fn register() -> Result<Registration<SmcSocket>> {
    TABLES.register(&Names {
        family: AF_SMC,
        protocol: IPPROTO_SMC,
        protos: ["SMC", "SMC6", "INET_SMC", "INET6_SMC"],
    })
}
