// SPDX-License-Identifier: GPL-2.0

//! Reliably connected queue pairs, with their state in the type.
//!
//! ```text
//! Qp<Reset> -> Qp<Init> -> Qp<Rtr> -> Qp<Rts>
//!              may receive            may send
//! ```
//!
//! A [`Qp`] is the one owner of its queue pair: dropping it destroys the queue pair. Requests are
//! posted through [`Queues`], which may be shared. A queue pair can fail at any time; that shows in
//! completions, not in the type.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
    sync::Arc, //
};

use super::{
    cq::AnyCq,
    pd::Pd,
    queues::{
        Capabilities,
        Phase,
        Queues, //
    },
    CALLER, //
};
use crate::bindings;

/// State of a new queue pair: nothing can be posted.
pub(crate) struct Reset;
/// State of a queue pair that has a port: receive requests can be posted.
pub(crate) struct Init;
/// State of a queue pair that knows its peer, and receives ("ready to receive").
pub(crate) struct Rtr;
/// State of a queue pair that can also send ("ready to send").
pub(crate) struct Rts;

/// Where the peer is, and what it told about its queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerAddress {
    /// The peer's GID.
    pub(crate) gid: [u8; 16],
    /// The Ethernet address that leads to it: its own, or a router's.
    pub(crate) mac: [u8; 6],
    /// Its queue pair number (24 bits).
    pub(crate) qpn: u32,
    /// The first packet sequence number it sends (24 bits).
    pub(crate) psn: u32,
}

/// The local end of the path to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocalAddress {
    /// Port of the device.
    pub(crate) port: u32,
    /// Index of the GID to use.
    pub(crate) gid_index: u8,
    /// Path MTU, in the code of the RDMA specification (1 to 5): the smaller one of both ends.
    pub(crate) mtu: u8,
    /// Most routers that packets may pass, plus one.
    pub(crate) hop_limit: u8,
}

/// What a queue pair is to be able to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Requests on the send queue, and the number that would do.
    pub(crate) send_wr: (u32, u32),
    /// Requests on the receive queue, and the number that would do.
    pub(crate) recv_wr: (u32, u32),
    /// Scatter/gather entries of a receive request: 1 or 2.
    pub(crate) recv_sge: u32,
    /// Bytes that a send request should carry itself; the driver may grant more, or none.
    pub(crate) inline: u32,
}

/// The C object and all that it needs.
struct Owner {
    raw: NonNull<bindings::ib_qp>,
    queues: Arc<Queues>,
    pd: Arc<Pd>,
    send_cq: Arc<dyn AnyCq>,
    recv_cq: Arc<dyn AnyCq>,
}

// SAFETY: The C object has no ties to a task.
unsafe impl Send for Owner {}
// SAFETY: The C object is only passed to functions of the RDMA core, which lock by themselves.
unsafe impl Sync for Owner {}

/// A reliably connected queue pair in the state `S`. See the module's documentation.
///
/// All methods but [`Self::queues`] and [`Self::number`] sleep, as does dropping it.
pub(crate) struct Qp<S> {
    owner: Owner,
    _state: PhantomData<S>,
}

impl<S> Qp<S> {
    /// The queue pair number (24 bits), which the peer has to know.
    pub(crate) fn number(&self) -> u32 {
        self.owner.queues.number()
    }

    /// The data path.
    pub(crate) fn queues(&self) -> &Arc<Queues> {
        &self.owner.queues
    }

    /// Makes all outstanding requests complete with an error, and refuses new ones.
    pub(crate) fn to_error(&self) -> Result {
        let mut attr = bindings::ib_qp_attr {
            qp_state: bindings::ib_qp_state_IB_QPS_ERR,
            ..Default::default()
        };

        self.owner.queues.set_broken();
        self.owner
            .modify(&mut attr, bindings::ib_qp_attr_mask_IB_QP_STATE)
    }

    fn into_state<T>(self, phase: Phase) -> Qp<T> {
        self.owner.queues.set_phase(phase);
        Qp {
            owner: self.owner,
            _state: PhantomData,
        }
    }
}

impl Qp<Reset> {
    /// Creates a queue pair. What it was granted is in [`Queues::capabilities`].
    ///
    /// # Errors
    ///
    /// What the driver says, after it was also asked for less.
    pub(crate) fn new(
        pd: &Arc<Pd>,
        send_cq: Arc<dyn AnyCq>,
        recv_cq: Arc<dyn AnyCq>,
        wanted: &Wanted,
    ) -> Result<Self> {
        let limit = pd.device().attributes().max_qp_wr;
        let mut send_wr = wanted.send_wr.0.min(limit);
        let mut recv_wr = wanted.recv_wr.0.min(limit);
        let mut inline = wanted.inline;

        loop {
            let caps = Capabilities {
                max_send_wr: send_wr,
                max_recv_wr: recv_wr,
                max_recv_sge: wanted.recv_sge,
                max_inline: inline,
            };
            if send_wr < wanted.send_wr.1 || recv_wr < wanted.recv_wr.1 {
                return Err(ENOMEM);
            }
            match Owner::new(pd, &send_cq, &recv_cq, caps) {
                Ok(owner) => {
                    return Ok(Self {
                        owner,
                        _state: PhantomData,
                    })
                }
                // Not all devices can, and there is no way to ask.
                Err(_) if inline > 0 => inline = 0,
                Err(e) if e == ENOMEM => {
                    send_wr /= 2;
                    recv_wr /= 2;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Assigns the queue pair to a port; from now on receive requests can be posted.
    #[expect(
        clippy::wrong_self_convention,
        reason = "what the transition is called"
    )]
    pub(crate) fn to_init(self, port: u32) -> Result<Qp<Init>, (Self, Error)> {
        let mut attr = bindings::ib_qp_attr {
            qp_state: bindings::ib_qp_state_IB_QPS_INIT,
            pkey_index: 0,
            port_num: port,
            qp_access_flags: (bindings::ib_access_flags_IB_ACCESS_LOCAL_WRITE
                | bindings::ib_access_flags_IB_ACCESS_REMOTE_WRITE)
                as c_int,
            ..Default::default()
        };
        let mask = bindings::ib_qp_attr_mask_IB_QP_STATE
            | bindings::ib_qp_attr_mask_IB_QP_PKEY_INDEX
            | bindings::ib_qp_attr_mask_IB_QP_ACCESS_FLAGS
            | bindings::ib_qp_attr_mask_IB_QP_PORT;

        match self.owner.modify(&mut attr, mask) {
            Ok(()) => Ok(self.into_state(Phase::Recv)),
            Err(e) => Err((self, e)),
        }
    }
}

impl Qp<Init> {
    /// Connects the queue pair to the peer's; from now on it receives.
    #[expect(
        clippy::wrong_self_convention,
        reason = "what the transition is called"
    )]
    pub(crate) fn to_rtr(
        self,
        local: &LocalAddress,
        peer: &PeerAddress,
    ) -> Result<Qp<Rtr>, (Self, Error)> {
        const MIN_RNR_TIMER: u8 = 5;

        let mut attr = bindings::ib_qp_attr {
            qp_state: bindings::ib_qp_state_IB_QPS_RTR,
            path_mtu: u32::from(local.mtu.clamp(1, 5)),
            dest_qp_num: peer.qpn & 0xff_ffff,
            rq_psn: peer.psn & 0xff_ffff,
            max_dest_rd_atomic: 1,
            min_rnr_timer: MIN_RNR_TIMER,
            ..Default::default()
        };
        let mask = bindings::ib_qp_attr_mask_IB_QP_STATE
            | bindings::ib_qp_attr_mask_IB_QP_AV
            | bindings::ib_qp_attr_mask_IB_QP_PATH_MTU
            | bindings::ib_qp_attr_mask_IB_QP_DEST_QPN
            | bindings::ib_qp_attr_mask_IB_QP_RQ_PSN
            | bindings::ib_qp_attr_mask_IB_QP_MAX_DEST_RD_ATOMIC
            | bindings::ib_qp_attr_mask_IB_QP_MIN_RNR_TIMER;

        let ah = &mut attr.ah_attr;
        ah.type_ = bindings::rdma_ah_attr_type_RDMA_AH_ATTR_TYPE_ROCE;
        ah.port_num = local.port;
        ah.ah_flags = bindings::ib_ah_flags_IB_AH_GRH as u8;
        ah.grh.dgid.raw = peer.gid;
        ah.grh.sgid_index = local.gid_index;
        ah.grh.hop_limit = local.hop_limit;
        ah.__bindgen_anon_1.roce = bindings::roce_ah_attr { dmac: peer.mac };

        match self.owner.modify(&mut attr, mask) {
            Ok(()) => Ok(self.into_state(Phase::Recv)),
            Err(e) => Err((self, e)),
        }
    }
}

impl Qp<Rtr> {
    /// Allows to send, beginning with packet sequence number `psn` (24 bits).
    #[expect(
        clippy::wrong_self_convention,
        reason = "what the transition is called"
    )]
    pub(crate) fn to_rts(self, psn: u32) -> Result<Qp<Rts>, (Self, Error)> {
        // About 134 ms.
        const TIMEOUT: u8 = 15;
        const RETRY_COUNT: u8 = 7;
        // Seven stands for ever.
        const RNR_RETRY: u8 = 7;

        let mut attr = bindings::ib_qp_attr {
            qp_state: bindings::ib_qp_state_IB_QPS_RTS,
            timeout: TIMEOUT,
            retry_cnt: RETRY_COUNT,
            rnr_retry: RNR_RETRY,
            sq_psn: psn & 0xff_ffff,
            max_rd_atomic: 1,
            ..Default::default()
        };
        let mask = bindings::ib_qp_attr_mask_IB_QP_STATE
            | bindings::ib_qp_attr_mask_IB_QP_TIMEOUT
            | bindings::ib_qp_attr_mask_IB_QP_RETRY_CNT
            | bindings::ib_qp_attr_mask_IB_QP_RNR_RETRY
            | bindings::ib_qp_attr_mask_IB_QP_SQ_PSN
            | bindings::ib_qp_attr_mask_IB_QP_MAX_QP_RD_ATOMIC;

        match self.owner.modify(&mut attr, mask) {
            Ok(()) => Ok(self.into_state(Phase::Both)),
            Err(e) => Err((self, e)),
        }
    }
}

impl Owner {
    fn new(
        pd: &Arc<Pd>,
        send_cq: &Arc<dyn AnyCq>,
        recv_cq: &Arc<dyn AnyCq>,
        mut caps: Capabilities,
    ) -> Result<Self> {
        let mut attr = bindings::ib_qp_init_attr {
            send_cq: send_cq.raw(),
            recv_cq: recv_cq.raw(),
            sq_sig_type: bindings::ib_sig_type_IB_SIGNAL_REQ_WR,
            qp_type: bindings::ib_qp_type_IB_QPT_RC,
            ..Default::default()
        };
        attr.cap.max_send_wr = caps.max_send_wr;
        attr.cap.max_recv_wr = caps.max_recv_wr;
        attr.cap.max_send_sge = 2;
        attr.cap.max_recv_sge = caps.max_recv_sge;
        attr.cap.max_inline_data = caps.max_inline;

        pd.queue_pair_created()?;
        // SAFETY: Domain and completion queues are alive, and will be as long as the queue pair.
        let raw = from_err_ptr(unsafe {
            bindings::ib_create_qp_kernel(pd.as_ptr(), &mut attr, CALLER.as_char_ptr())
        })
        .and_then(|raw| NonNull::new(raw).ok_or(ENOMEM));
        let raw = match raw {
            Ok(raw) => raw,
            Err(e) => {
                pd.queue_pair_destroyed();
                return Err(e);
            }
        };

        // The driver may have granted more, which is taken where it is of use.
        caps.max_inline = attr.cap.max_inline_data;
        // SAFETY: The queue pair is valid until `drop`, which first calls `close`.
        let queues = match unsafe { Queues::new(raw, caps) } {
            Ok(queues) => queues,
            Err(e) => {
                destroy(raw, pd, [send_cq, recv_cq]);
                return Err(e);
            }
        };
        Ok(Self {
            raw,
            queues,
            pd: pd.clone(),
            send_cq: send_cq.clone(),
            recv_cq: recv_cq.clone(),
        })
    }

    fn modify(&self, attr: &mut bindings::ib_qp_attr, mask: bindings::ib_qp_attr_mask) -> Result {
        // SAFETY: The queue pair is valid as long as `self`. What `mask` names is filled in.
        to_result(unsafe { bindings::ib_modify_qp(self.raw.as_ptr(), attr, mask as c_int) })
    }
}

/// Destroys a queue pair that nobody posts to any more. If the driver refuses that, all that the queue pair uses stays for
/// ever, and with it the use of the device: who removes that or the module waits, and is told so ([`Device::wait_unused`]).
///
/// [`Device::wait_unused`]: super::device::Device::wait_unused
fn destroy(raw: NonNull<bindings::ib_qp>, pd: &Arc<Pd>, cqs: [&Arc<dyn AnyCq>; 2]) {
    // SAFETY: Called once per queue pair, by its owner.
    let ret = unsafe { bindings::ib_destroy_qp_user(raw.as_ptr(), core::ptr::null_mut()) };

    if ret != 0 {
        // It may still access memory, which stays put aside in the domain, and tell the completion queues.
        core::mem::forget(pd.clone());
        for cq in cqs {
            core::mem::forget(cq.clone());
        }
        pr_err!(
            "ib device {} has not destroyed a queue pair (error {ret}): its memory is lost, and neither the device nor smc_rs can be \
             removed; reboot to get rid of them\n",
            pd.device().name()
        );
    } else {
        pd.queue_pair_destroyed();
    }
}

impl Owner {
    /// Lets no packet be on its way to the queue pair. Soft-RoCE destroys it for good, but not while packets arrive: it
    /// warns, or waits for 50 s.
    fn quieten(&self) {
        // In this state packets are dropped.
        if self.reset().is_ok() {
            // One that was let in before may be on its way to the queue pair's task still, without a reference once that
            // has taken it (`rxe_resp_queue_pkt`). Packets are received under RCU.
            // SAFETY: This is process context, as destroying sleeps, too.
            unsafe { bindings::synchronize_net() };
            // Or the task was disabled for the reset when it came (`rxe_qp_reset`), and nobody has called it since.
            let _ = self.reset();
        }
    }

    fn reset(&self) -> Result {
        let mut attr = bindings::ib_qp_attr {
            qp_state: bindings::ib_qp_state_IB_QPS_RESET,
            ..Default::default()
        };
        self.modify(&mut attr, bindings::ib_qp_attr_mask_IB_QP_STATE)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.queues.close();
        if self.pd.device().attributes().loses_late_packets {
            self.quieten();
        }
        destroy(self.raw, &self.pd, [&self.send_cq, &self.recv_cq]);
    }
}

/// A queue pair in any of its states, for a holder that lives through all of them.
pub(crate) enum AnyQp {
    /// Can receive once it is connected.
    Init(Qp<Init>),
    /// Receives.
    Rtr(Qp<Rtr>),
    /// Receives and sends.
    Rts(Qp<Rts>),
}

impl AnyQp {
    /// See [`Qp::to_error`].
    pub(crate) fn to_error(&self) -> Result {
        match self {
            Self::Init(qp) => qp.to_error(),
            Self::Rtr(qp) => qp.to_error(),
            Self::Rts(qp) => qp.to_error(),
        }
    }

    /// Whether messages may have come.
    pub(crate) fn receives(&self) -> bool {
        !matches!(self, Self::Init(_))
    }

    /// [`Qp::<Init>::to_rtr`]; on failure (`EINVAL` in another state) it stays as it was.
    pub(crate) fn connect(
        self,
        local: &LocalAddress,
        peer: &PeerAddress,
    ) -> Result<Self, (Self, Error)> {
        match self {
            Self::Init(qp) => qp
                .to_rtr(local, peer)
                .map(Self::Rtr)
                .map_err(|(qp, e)| (Self::Init(qp), e)),
            other => Err((other, EINVAL)),
        }
    }

    /// [`Qp::<Rtr>::to_rts`]; on failure (`EINVAL` in another state) it stays as it was.
    pub(crate) fn start(self, psn: u32) -> Result<Self, (Self, Error)> {
        match self {
            Self::Rtr(qp) => qp
                .to_rts(psn)
                .map(Self::Rts)
                .map_err(|(qp, e)| (Self::Rtr(qp), e)),
            other => Err((other, EINVAL)),
        }
    }
}
