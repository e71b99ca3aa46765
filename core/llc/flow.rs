// SPDX-License-Identifier: GPL-2.0

//! What both sides say to each other on a link, and when (RFC 7609, sections 3.5, 4.5.3 and
//! appendix A.3).
//!
//! A [`LinkFlow`] is the state machine of one link: the link is confirmed, tokens are exchanged, the
//! link is tested, and the group ends. What concerns other links is passed on to the group, which has a
//! [`super::links::LinksFlow`] for it.
//!
//! It is a plain value without I/O: [`LinkFlow::handle`] takes what was received,
//! [`LinkFlow::on_timeout`] is to be called at [`LinkFlow::poll_timeout`] until nothing comes
//! out, and the methods named after messages start something. All return [`Actions`].

#![forbid(unsafe_code)]

pub use super::event::*;
use super::wire::{
    AddLink,
    AddLinkContinuation,
    AddLinkReject,
    ConfirmLink,
    ConfirmRkey,
    DeleteLink,
    DeleteReason,
    DeleteRkey,
    LlcBody,
    LlcMessage,
    LlcVersion,
    RToken,
    LLC_LEN, //
};
use crate::smc_core::error::{
    Fault,
    WireError, //
};
use crate::smc_core::time::Millis;
use crate::smc_core::types::{
    Gid,
    LinkNumber,
    Mac,
    Psn24,
    Qpn24,
    RKey, //
};

/// How long the server waits for the answer to CONFIRM LINK on a new link, in milliseconds.
pub const CONFIRM_LINK_WAIT: u32 = 5_000;
/// When the server says CONFIRM LINK once more, in milliseconds: net/smc drops one that comes between its CLC Confirm and
/// the moment when it begins to wait for it, and would decline after its whole wait.
pub const CONFIRM_LINK_AGAIN: u32 = 500;
/// How long the client waits for CONFIRM LINK. Longer: the server's wait begins later, and it is the
/// server that is to give up first, and say so.
pub const CONFIRM_LINK_CLIENT_WAIT: u32 = 8_000;
/// How long a request may be unanswered, in milliseconds.
pub const RESPONSE_WAIT: u32 = 2_000;

/// A request is outstanding already; wait for it. There is one at a time in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    /// Client: the server's CONFIRM LINK is due.
    AwaitRequest(Millis),
    /// Client: [`LinkFlow::confirm_link_ready`] is due.
    Preparing,
    /// Server: the client's answer is due. Until `again`, nothing was repeated.
    AwaitResponse {
        until: Millis,
        again: Option<Millis>,
    },
    Active,
    Ended,
}

#[derive(Clone, Copy, Debug)]
enum Liveness {
    /// Since when there was no message.
    Idle(Millis),
    /// TEST LINK is out; the time when it has failed.
    Testing(Millis),
}

/// The state machine of a link.
#[derive(Debug)]
pub struct LinkFlow {
    params: LinkParams,
    phase: Phase,
    request: Option<(Request, Millis)>,
    liveness: Liveness,
    tests: u64,
}

impl LinkFlow {
    /// A link whose queue pairs are connected but which nobody has confirmed.
    pub const fn new(params: LinkParams) -> Self {
        Self {
            params,
            phase: Phase::New,
            request: None,
            liveness: Liveness::Idle(Millis(0)),
            tests: 0,
        }
    }

    /// Number of the link.
    pub const fn link(&self) -> LinkNumber {
        self.params.link
    }

    /// Whether the link is confirmed and has not ended.
    pub fn is_active(&self) -> bool {
        self.phase == Phase::Active
    }

    /// First contact: the server asks, the client waits to be asked (RFC 7609, section 3.5.1).
    /// The client calls this as soon as its queue pair can receive.
    pub fn start(&mut self, now: Millis) -> Actions {
        match self.params.role {
            Role::Client => {
                self.phase = Phase::AwaitRequest(now.after(CONFIRM_LINK_CLIENT_WAIT));
                Actions::NONE
            }
            Role::Server => {
                self.phase = Phase::AwaitResponse {
                    until: now.after(CONFIRM_LINK_WAIT),
                    again: Some(now.after(CONFIRM_LINK_AGAIN)),
                };
                Actions::send(self.emit(false, self.confirm_link()))
            }
        }
    }

    /// Client: the server tells the keys of its RMBs first, for `millis` at most: its CONFIRM LINK is due so much later.
    pub fn wait_longer(&mut self, millis: u32) {
        if let Phase::AwaitRequest(at) = &mut self.phase {
            *at = at.after(millis);
        }
    }

    /// Client: the link is ready. Answers the server; the link is in use from now on.
    pub fn confirm_link_ready(&mut self, now: Millis) -> Actions {
        if self.phase != Phase::Preparing {
            return Actions::NONE;
        }
        self.activate(now);
        Actions::send(self.emit(true, self.confirm_link()))
    }

    /// Tells the peer of a new RMB, and of its keys on other links (RFC 7609, section 3.5.5.2.1).
    pub fn confirm_rkey(
        &mut self,
        rtoken: RToken,
        others: [Option<(LinkNumber, RToken)>; 2],
        now: Millis,
    ) -> Result<Actions, Busy> {
        let mut list = [(LinkNumber(0), RToken::default()); 2];
        for (place, other) in list.iter_mut().zip(others.into_iter().flatten()) {
            *place = other;
        }
        let body = LlcBody::ConfirmRkey(ConfirmRkey {
            other_links: others.iter().flatten().count() as u8,
            rtoken,
            others: list,
            negative: false,
            retry: false,
        });
        self.ask(Request::ConfirmRkey(rtoken.rkey), body, now)
    }

    /// Tells the peer that an RMB is gone.
    pub fn delete_rkey(&mut self, rkey: RKey, now: Millis) -> Result<Actions, Busy> {
        let body = LlcBody::DeleteRkey(DeleteRkey::one(rkey));
        self.ask(Request::DeleteRkey(rkey), body, now)
    }

    /// Answers [`LlcEvent::PeerRkey`].
    ///
    /// The peer asks again later where that is of use (RFC 7609, section 3.5.5.3.1).
    pub fn answer_confirm_rkey(&self, request: &ConfirmRkey, learned: Learned) -> [u8; LLC_LEN] {
        // RFC 7609, appendix A.3.5: echo with the response flag set.
        let body = LlcBody::ConfirmRkey(ConfirmRkey {
            negative: learned != Learned::Yes,
            retry: learned == Learned::Later,
            ..*request
        });
        self.emit(true, body)
    }

    /// Answers [`LlcEvent::PeerRkeysDeleted`]. `missing` has a bit for every key that was not
    /// found, the first key in the highest bit.
    pub fn answer_delete_rkey(&self, request: &DeleteRkey, missing: u16) -> [u8; LLC_LEN] {
        let error = match self.params.version {
            // RFC 7609, appendix A.3.7: the mask has a bit for each of eight keys.
            LlcVersion::V1 => (missing >> 8) as u8,
            // SMC-Rv2: their number, at most 16.
            LlcVersion::V2 => missing.count_ones() as u8,
        };
        let body = LlcBody::DeleteRkey(DeleteRkey {
            error,
            negative: missing != 0,
            ..*request
        });
        self.emit(true, body)
    }

    /// ADD LINK, or the answer to it; `reject` why it is rejected.
    pub fn add_link(
        &self,
        response: bool,
        msg: &AddLink,
        reject: Option<AddLinkReject>,
    ) -> [u8; LLC_LEN] {
        let body = LlcBody::AddLink(AddLink {
            rejected: reject,
            ..*msg
        });
        self.emit(response, body)
    }

    /// ADD LINK CONTINUATION (version 1).
    pub fn add_link_keys(&self, msg: &AddLinkContinuation) -> [u8; LLC_LEN] {
        let response = self.params.role == Role::Client;
        self.emit(response, LlcBody::AddLinkContinuation(*msg))
    }

    /// Client: asks the server for another link, from a port with this GID (RFC 7609, section
    /// 3.5.5.1.2; SMC-Rv2 has a message of its own for it).
    pub fn request_link(&self, gid: Gid, mac: Mac) -> [u8; LLC_LEN] {
        let body = match self.params.version {
            LlcVersion::V1 => LlcBody::AddLink(AddLink {
                mac,
                gid,
                qpn: Qpn24::from_low_bits(0),
                link: LinkNumber(0),
                mtu: None,
                psn: Psn24::from_low_bits(0),
                rejected: None,
            }),
            LlcVersion::V2 => LlcBody::RequestAddLink { gid_count: 1, gid },
        };
        self.emit(false, body)
    }

    /// Tells the peer that a single link ends: from the client a wish, from the server an order.
    pub fn delete_link(&self, link: LinkNumber, reason: DeleteReason) -> [u8; LLC_LEN] {
        self.emit(
            false,
            LlcBody::DeleteLink(DeleteLink {
                link,
                all: false,
                orderly: true,
                reason,
            }),
        )
    }

    /// Answers [`LlcEvent::DeleteLink`]. A server does so by the order that the client has asked for,
    /// unless there is no such link.
    pub fn answer_delete_link(&self, request: &DeleteLink, known: bool) -> [u8; LLC_LEN] {
        let body = LlcBody::DeleteLink(DeleteLink {
            reason: if known {
                request.reason
            } else {
                DeleteReason::UNKNOWN_LINK
            },
            ..*request
        });
        self.emit(!known || self.params.role == Role::Client, body)
    }

    /// Ends the link group from our side: the message that says so (RFC 7609, appendix A.3.4,
    /// A flag).
    pub fn terminate(&mut self, reason: DeleteReason, orderly: bool) -> [u8; LLC_LEN] {
        self.phase = Phase::Ended;
        self.request = None;
        self.delete_all(reason, orderly)
    }

    /// There is reason to doubt that the peer is still there: asks at once, whatever the idle time.
    pub fn probe(&mut self, now: Millis) -> Actions {
        match self.liveness {
            Liveness::Idle(_) if self.phase == Phase::Active => self.test_link(now),
            _ => Actions::NONE,
        }
    }

    /// A message of any kind has arrived on the link: it lives.
    pub fn on_activity(&mut self, now: Millis) {
        self.liveness = Liveness::Idle(now);
    }

    /// Takes what was received and is not a CDC message.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Millis) -> Actions {
        match LlcMessage::parse(bytes) {
            Ok(msg) => self.handle(&msg, now),
            // RFC 7609, appendix A.3: a type that must be known and is not is a protocol error.
            Err(WireError {
                fault: Fault::Type, ..
            }) => self.violation(),
            Err(_) => Actions::event(LlcEvent::Dropped),
        }
    }

    /// Takes a message of the peer.
    pub fn handle(&mut self, msg: &LlcMessage, now: Millis) -> Actions {
        const DROPPED: Actions = Actions::event(LlcEvent::Dropped);

        if self.phase == Phase::Ended {
            return Actions::NONE;
        }
        self.on_activity(now);
        // The handshake has settled one version for the group. Types that may be ignored have
        // none.
        if msg.version != self.params.version {
            return DROPPED;
        }
        match (msg.body, msg.response) {
            (LlcBody::ConfirmLink(peer), response) => self.on_confirm_link(&peer, response, now),
            // RFC 7609, appendix A.3.8: echo at once.
            (LlcBody::TestLink { .. }, false) => Actions::send(self.emit(true, msg.body)),
            // That it came is what matters.
            (LlcBody::TestLink { .. }, true) => Actions::NONE,
            (LlcBody::DeleteLink(delete), false) if delete.all => self.on_delete_all(&delete),
            // Before the link is confirmed nothing else has a meaning.
            _ if self.phase != Phase::Active => DROPPED,
            (LlcBody::ConfirmRkey(rkey), false) => Actions::event(LlcEvent::PeerRkey(rkey)),
            (LlcBody::ConfirmRkey(rkey), true) => {
                let request = Request::ConfirmRkey(rkey.rtoken.rkey);
                self.on_answer(request, rkey.negative, rkey.retry)
            }
            (LlcBody::DeleteRkey(rkeys), false) => {
                Actions::event(LlcEvent::PeerRkeysDeleted(rkeys))
            }
            (LlcBody::DeleteRkey(rkeys), true) => match rkeys.iter().next() {
                // RFC 7609, appendix A.3.7: no recovery action for a negative response.
                Some(rkey) => self.on_answer(Request::DeleteRkey(rkey), false, false),
                None => DROPPED,
            },
            (LlcBody::AddLink(msg), response) => {
                Actions::event(LlcEvent::AddLink { msg, response })
            }
            (LlcBody::AddLinkContinuation(msg), response) => {
                Actions::event(LlcEvent::AddLinkKeys { msg, response })
            }
            (LlcBody::RequestAddLink { .. }, false) if self.params.role == Role::Server => {
                Actions::event(LlcEvent::LinkRequested)
            }
            (LlcBody::RequestAddLink { .. }, _) => DROPPED,
            (LlcBody::DeleteLink(msg), false) => Actions::event(LlcEvent::DeleteLink(msg)),
            (LlcBody::DeleteLink(msg), true) => Actions::event(LlcEvent::LinkDeleted(msg)),
            // RFC 7609, appendix A.3.6: only groups of more than three links need it.
            (LlcBody::ConfirmRkeyContinuation(_), _) => DROPPED,
            (LlcBody::Optional(_), _) => DROPPED,
        }
    }

    /// When [`Self::on_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Millis> {
        let confirm = match self.phase {
            Phase::AwaitRequest(at) => Some(at),
            Phase::AwaitResponse { until, again } => again.or(Some(until)),
            _ => None,
        };
        let answer = self.request.map(|(_, at)| at);
        [confirm, answer, self.test_at()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Time has passed. Call it again until the actions are empty.
    pub fn on_timeout(&mut self, now: Millis) -> Actions {
        match self.phase {
            Phase::AwaitRequest(until) | Phase::AwaitResponse { until, .. }
                if until.reached(now) =>
            {
                return self.confirm_failed(ConfirmFailure::Timeout);
            }
            Phase::AwaitResponse {
                until,
                again: Some(at),
            } if at.reached(now) => {
                self.phase = Phase::AwaitResponse { until, again: None };
                return Actions::send(self.emit(false, self.confirm_link()));
            }
            _ => {}
        }
        if let Some((request, at)) = self.request {
            if at.reached(now) {
                self.request = None;
                return Actions::event(LlcEvent::RequestTimedOut(request));
            }
        }
        if !self.test_at().is_some_and(|at| at.reached(now)) {
            return Actions::NONE;
        }
        match self.liveness {
            Liveness::Idle(_) => self.test_link(now),
            Liveness::Testing(_) => {
                self.phase = Phase::Ended;
                self.request = None;
                Actions::event(LlcEvent::LinkDown)
            }
        }
    }

    /// When the link is to be tested, or the test has failed (RFC 7609, section 4.5.3).
    fn test_at(&self) -> Option<Millis> {
        if self.phase != Phase::Active {
            return None;
        }
        match self.liveness {
            Liveness::Testing(at) => Some(at),
            Liveness::Idle(_) if self.params.test_link_time == 0 => None,
            Liveness::Idle(since) => Some(since.after(self.params.test_link_time)),
        }
    }

    fn test_link(&mut self, now: Millis) -> Actions {
        self.liveness = Liveness::Testing(now.after(RESPONSE_WAIT));
        self.tests = self.tests.wrapping_add(1);
        let user_data = (u128::from(self.tests) << 64).to_be_bytes();
        Actions::send(self.emit(false, LlcBody::TestLink { user_data }))
    }

    fn activate(&mut self, now: Millis) {
        self.phase = Phase::Active;
        self.on_activity(now);
    }

    fn confirm_failed(&mut self, failure: ConfirmFailure) -> Actions {
        self.phase = Phase::Ended;
        Actions::event(LlcEvent::ConfirmFailed(failure))
    }

    /// RFC 7609, appendix A.3.4, reason code "LLC protocol violation".
    fn violation(&mut self) -> Actions {
        if self.phase == Phase::Ended {
            return Actions::NONE;
        }
        Actions {
            send: Some(self.terminate(DeleteReason::PROTOCOL_VIOLATION, false)),
            event: Some(LlcEvent::Violation),
        }
    }

    /// RFC 7609, appendix A.3.1: "Each peer echoes its RoCE information back to the other."
    fn on_confirm_link(&mut self, msg: &ConfirmLink, response: bool, now: Millis) -> Actions {
        let expected = match self.phase {
            Phase::AwaitRequest(_) => !response,
            Phase::AwaitResponse { .. } => response,
            _ => false,
        };
        if !expected {
            return Actions::event(LlcEvent::Dropped);
        }
        // The client learns the number of the first link here, those of others from ADD LINK.
        let numbered = self.params.link.0 == 0 || msg.link == self.params.link;
        if msg.gid != self.params.peer_gid || msg.qpn != self.params.peer_qpn || !numbered {
            return self.confirm_failed(ConfirmFailure::WrongPeer);
        }
        if !msg.no_eyecatcher {
            return self.confirm_failed(ConfirmFailure::EyeCatcher);
        }
        self.params.link = msg.link;
        let peer = PeerLink {
            link: msg.link,
            user_id: msg.user_id,
            max_links: msg.max_links,
            max_conns: msg.max_conns,
        };
        match self.params.role {
            Role::Client => {
                self.phase = Phase::Preparing;
                Actions::event(LlcEvent::ConfirmLinkReceived(peer))
            }
            Role::Server => {
                self.activate(now);
                Actions::event(LlcEvent::LinkConfirmed(peer))
            }
        }
    }

    /// RFC 7609, appendix A.3.4, A flag.
    fn on_delete_all(&mut self, msg: &DeleteLink) -> Actions {
        self.phase = Phase::Ended;
        self.request = None;
        Actions {
            // "When the DELETE LINK is sent from the client, it only serves as a notification, and the
            // client expects the server to respond by sending a DELETE LINK request."
            send: match self.params.role {
                Role::Server => Some(self.delete_all(msg.reason, msg.orderly)),
                Role::Client => None,
            },
            event: Some(LlcEvent::Terminate {
                reason: msg.reason,
                orderly: msg.orderly,
            }),
        }
    }

    fn on_answer(&mut self, answered: Request, negative: bool, retry: bool) -> Actions {
        match self.request {
            Some((request, _)) if request == answered => {
                self.request = None;
                Actions::event(if negative {
                    LlcEvent::RequestRefused { request, retry }
                } else {
                    LlcEvent::RequestDone(request)
                })
            }
            // Too late, or never asked.
            _ => Actions::event(LlcEvent::Dropped),
        }
    }

    fn ask(&mut self, request: Request, body: LlcBody, now: Millis) -> Result<Actions, Busy> {
        if self.request.is_some() || self.phase != Phase::Active {
            return Err(Busy);
        }
        self.request = Some((request, now.after(RESPONSE_WAIT)));
        Ok(Actions::send(self.emit(false, body)))
    }

    fn confirm_link(&self) -> LlcBody {
        let own = &self.params;
        LlcBody::ConfirmLink(ConfirmLink {
            mac: own.mac,
            gid: own.gid,
            qpn: own.qpn,
            link: own.link,
            user_id: own.user_id,
            max_links: own.max_links,
            // SMC-Rv2.1; reserved in RFC 7609, appendix A.3.1.
            max_conns: match own.version {
                LlcVersion::V1 => 0,
                LlcVersion::V2 => own.max_conns,
            },
            no_eyecatcher: true,
        })
    }

    fn delete_all(&self, reason: DeleteReason, orderly: bool) -> [u8; LLC_LEN] {
        let body = LlcBody::DeleteLink(DeleteLink {
            // RFC 7609, appendix A.3.4: 0 if the A flag is set.
            link: LinkNumber(0),
            all: true,
            orderly,
            reason,
        });
        self.emit(false, body)
    }

    fn emit(&self, response: bool, body: LlcBody) -> [u8; LLC_LEN] {
        LlcMessage {
            version: self.params.version,
            response,
            body,
        }
        .emit()
    }
}

#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests;
