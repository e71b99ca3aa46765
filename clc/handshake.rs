// SPDX-License-Identifier: GPL-2.0

//! The CLC handshake as a sequence of states (RFC 7609, section 3.5.1).
//!
//! ```text
//! client:  ExpectAccept   --(Accept)-->    HaveAccept    --[Confirm]--> Agreed
//! server:  ExpectProposal --(Proposal)-->  HaveProposal  --[Accept]-->  ExpectConfirm
//!                                                                       --(Confirm)--> Agreed
//!
//!          (received)  [sent]
//! ```
//!
//! Each message that can be expected has its own state, which is consumed by handling the message:
//! a message in a wrong state cannot be handled. There is no I/O in here. The caller receives one
//! whole message (see [`Header::peek`]), hands it to the state, and sends what the next state wrote
//! into its buffer.
//!
//! RFC 7609, section C.1: a Decline is only sent in lieu of a message that the peer expects. So the
//! states in which it is our turn can `decline`, and those that wait for the peer cannot.

#![forbid(unsafe_code)]

use core::fmt;

use crate::clc::{
    decline::DeclineReason,
    negotiate::{
        evaluate_accept,
        evaluate_confirm,
        evaluate_proposal,
        ClientCaps,
        Host,
        ServerCaps,
        ServerChoice,
        Terms, //
    },
    wire::{
        Accept,
        Confirm,
        Decline,
        Header,
        OsType,
        Proposal,
        RdmaEndpoint,
        Version, //
    },
};
use crate::smc_core::{
    error::{
        EmitError,
        Fault,
        MessageKind,
        Violation,
        WireError, //
    },
    types::{
        Gid,
        PeerId, //
    },
};

/// What a received message leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// Go on with this state.
    Proceed(T),
    /// Send this Decline and fall back to TCP, with its reason.
    Decline(Decline),
    /// The peer has declined: fall back to TCP, send nothing.
    PeerDeclined(PeerDeclined),
}

/// A Decline from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerDeclined {
    /// The peer's reason, in the peer's own code.
    pub diagnosis: DeclineReason,
    /// The peer does not have the link group that we wanted to use: ours must be ended
    /// (RFC 7609, section A.2.5).
    pub out_of_sync: bool,
    /// Who declined. Compare with the peer of the link group before ending it.
    pub peer_id: PeerId,
    /// What the peer runs on.
    pub os: OsType,
}

/// The handshake failed and so does the TCP connection: nobody knows what is in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// Not a valid message.
    Wire(WireError),
    /// A valid message that is not allowed here.
    Violation(Violation),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wire(error) => error.fmt(f),
            Self::Violation(violation) => violation.fmt(f),
        }
    }
}

impl From<WireError> for HandshakeError {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl From<Violation> for HandshakeError {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

/// Tells apart the expected message (inner `Ok`) and a Decline (inner `Err`), which can come
/// instead of any other (RFC 7609, section 3.5.1.6.4).
fn check_kind(
    bytes: &[u8],
    expected: MessageKind,
) -> Result<Result<Header, PeerDeclined>, HandshakeError> {
    let head = bytes
        .first_chunk()
        .ok_or(WireError::new(expected, 0, Fault::Truncated))?;
    let header = Header::peek(head)?;
    if header.kind == MessageKind::Decline {
        let decline = Decline::parse(bytes)?;
        return Ok(Err(PeerDeclined {
            diagnosis: decline.reason,
            out_of_sync: decline.out_of_sync,
            peer_id: decline.peer_id,
            os: decline.os,
        }));
    }
    if header.kind == expected {
        return Ok(Ok(header));
    }
    let received = header.kind;
    Err(Violation::UnexpectedMessage { expected, received }.into())
}

/// Client: a Proposal has been written, the Accept is due.
#[derive(Debug)]
#[must_use]
pub struct ExpectAccept<'a> {
    offered: Proposal<'a>,
}

impl<'a> ExpectAccept<'a> {
    /// Writes the Proposal into `out`; returns the state and the length of the message in bytes.
    ///
    /// # Errors
    ///
    /// [`EmitError::Inconsistent`] if there is nothing to offer, others if `out` or a list is not
    /// of the right size.
    pub fn propose(caps: &ClientCaps<'a>, out: &mut [u8]) -> Result<(Self, usize), EmitError> {
        let offered = caps.proposal().ok_or(EmitError::Inconsistent)?;
        let length = offered.emit(out)?;
        Ok((Self { offered }, length))
    }

    /// Handles the message that came.
    ///
    /// # Errors
    ///
    /// The message is invalid or not allowed here.
    pub fn handle(self, bytes: &[u8]) -> Result<Step<HaveAccept>, HandshakeError> {
        let header = match check_kind(bytes, MessageKind::Accept)? {
            Ok(header) => header,
            Err(declined) => return Ok(Step::PeerDeclined(declined)),
        };
        let peer_id = self.offered.peer_id;
        let decline = |reason| Ok(Step::Decline(Decline::new(header.version, peer_id, reason)));
        let accept = match Accept::parse(bytes) {
            Ok(accept) => accept,
            // Well-formed, but of a flavour that was not offered.
            Err(WireError {
                fault: Fault::Ism, ..
            }) => return decline(DeclineReason::MODEUNSUPP),
            Err(error) => return Err(error.into()),
        };
        match evaluate_accept(&self.offered, &accept) {
            Ok(terms) => Ok(Step::Proceed(HaveAccept { terms, peer_id })),
            Err(reason) => decline(reason),
        }
    }
}

/// Client: the server's choice is known; now it is our turn to build our part.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct HaveAccept {
    terms: Terms,
    peer_id: PeerId,
}

impl HaveAccept {
    /// What the two hosts agree on.
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Writes the Confirm into `out`; returns the state and the length of the message in bytes.
    ///
    /// `local` is our part of the connection. At first contact `host` describes this host, and
    /// `gids` lists the GIDs that links of the group could use, that of this link first.
    ///
    /// # Errors
    ///
    /// `out` is too small or `gids` too long.
    pub fn confirm(
        self,
        local: RdmaEndpoint,
        host: Host,
        gids: &[Gid],
        out: &mut [u8],
    ) -> Result<(Agreed, usize), EmitError> {
        let length = self.terms.confirm(local, host, gids).emit(out)?;
        let Self { terms, peer_id } = self;
        Ok((Agreed { terms, peer_id }, length))
    }

    /// The Decline to send instead of a Confirm.
    pub fn decline(self, reason: DeclineReason) -> Decline {
        Decline::new(self.terms.mode.version(), self.peer_id, reason)
    }
}

/// Server: the Proposal is due.
#[derive(Debug, Default)]
#[must_use]
pub struct ExpectProposal;

impl ExpectProposal {
    /// Handles the message that came; `caps` is what this server can use for the connection.
    ///
    /// A [`Fault::EyeCatcher`] as error means that the client does not speak SMC; the caller may go
    /// on over TCP if it has only peeked so far.
    ///
    /// # Errors
    ///
    /// The message is invalid or not allowed here.
    pub fn handle<'a>(
        self,
        bytes: &'a [u8],
        caps: &ServerCaps<'_>,
    ) -> Result<Step<HaveProposal<'a>>, HandshakeError> {
        if let Err(declined) = check_kind(bytes, MessageKind::Proposal)? {
            return Ok(Step::PeerDeclined(declined));
        }
        let proposal = Proposal::parse(bytes)?;
        Ok(HaveProposal::choose(proposal, caps))
    }
}

/// Server: a version is chosen; now it is our turn to build our part.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct HaveProposal<'a> {
    proposal: Proposal<'a>,
    choice: ServerChoice,
    peer_id: PeerId,
}

impl<'a> HaveProposal<'a> {
    fn choose(proposal: Proposal<'a>, caps: &ServerCaps<'_>) -> Step<Self> {
        match evaluate_proposal(&proposal, caps) {
            Ok(choice) => Step::Proceed(Self {
                proposal,
                choice,
                peer_id: caps.peer_id,
            }),
            Err(reason) => Step::Decline(Decline::new(proposal.version, caps.peer_id, reason)),
        }
    }

    /// What the server has chosen.
    pub const fn choice(&self) -> &ServerChoice {
        &self.choice
    }

    /// The whole Proposal.
    pub const fn proposal(&self) -> &Proposal<'a> {
        &self.proposal
    }

    /// Chooses again with other capabilities, for example without the device that turned out to be
    /// unusable.
    pub fn choose_again(self, caps: &ServerCaps<'_>) -> Step<Self> {
        Self::choose(self.proposal, caps)
    }

    /// Writes the Accept into `out`; returns the state and the length of the message in bytes.
    ///
    /// `local` is our part of the connection; `first_contact` is given if we make a new link group.
    ///
    /// # Errors
    ///
    /// `out` is too small.
    pub fn accept(
        self,
        local: RdmaEndpoint,
        first_contact: Option<Host>,
        out: &mut [u8],
    ) -> Result<(ExpectConfirm, usize), EmitError> {
        let length = self.choice.accept(local, first_contact).emit(out)?;
        let expect = ExpectConfirm {
            choice: self.choice,
            first_contact: first_contact.is_some(),
            peer_id: self.peer_id,
        };
        Ok((expect, length))
    }

    /// The Decline to send instead of an Accept.
    pub fn decline(self, reason: DeclineReason) -> Decline {
        Decline::new(self.proposal.version, self.peer_id, reason)
    }
}

/// Server: an Accept has been written, the Confirm is due.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct ExpectConfirm {
    choice: ServerChoice,
    first_contact: bool,
    peer_id: PeerId,
}

/// Server: the Confirm has come, with the GIDs that the client could use for links.
#[derive(Debug, PartialEq, Eq)]
pub struct HaveConfirm<'a> {
    /// The state to go on with.
    pub agreed: Agreed,
    /// GIDs of the client, that of the first link included; empty except at first contact of
    /// version 2.
    pub gids: &'a [Gid],
}

impl ExpectConfirm {
    /// Handles the message that came.
    ///
    /// # Errors
    ///
    /// The message is invalid or not allowed here. A Confirm that does not fit the Accept is a
    /// reason to decline at first contact only; later the client takes itself for connected (RFC
    /// 7609, section C.1).
    pub fn handle(self, bytes: &[u8]) -> Result<Step<HaveConfirm<'_>>, HandshakeError> {
        if let Err(declined) = check_kind(bytes, MessageKind::Confirm)? {
            return Ok(Step::PeerDeclined(declined));
        }
        let confirm = Confirm::parse(bytes)?;
        // RFC 7609, section A.2.1: the identity of an instance of a stack; it does not change on
        // the way.
        if !self.choice.peer_id.agrees_with(&confirm.endpoint.peer_id) {
            return Err(Violation::PeerIdChanged.into());
        }
        let peer_id = self.peer_id;
        match evaluate_confirm(&self.choice, self.first_contact, &confirm) {
            Ok(terms) => Ok(Step::Proceed(HaveConfirm {
                agreed: Agreed { terms, peer_id },
                gids: confirm.gids(),
            })),
            Err(reason) if self.first_contact => {
                let version = self.choice.mode.version();
                Ok(Step::Decline(Decline::new(version, peer_id, reason)))
            }
            Err(_) => Err(Violation::ConfirmMismatch.into()),
        }
    }
}

/// Both: the CLC exchange is complete.
///
/// At first contact the link has yet to be confirmed by LLC messages, and until then either side
/// may still decline (RFC 7609, section C.2).
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Agreed {
    terms: Terms,
    peer_id: PeerId,
}

impl Agreed {
    /// What the two hosts agreed on.
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The Decline to send when the first link of a new group cannot be set up; `None` on other
    /// connections, which can only be broken (RFC 7609, section C.1).
    pub fn decline(&self, reason: DeclineReason) -> Option<Decline> {
        let version = self.terms.mode.version();
        self.terms
            .first_contact
            .map(|_| Decline::new(version, self.peer_id, reason))
    }

    /// Handles a CLC message that came during the LLC exchange: only a Decline can.
    ///
    /// # Errors
    ///
    /// The message is invalid or not a Decline.
    pub fn handle(&self, bytes: &[u8]) -> Result<PeerDeclined, HandshakeError> {
        match check_kind(bytes, MessageKind::Decline)? {
            Err(declined) => Ok(declined),
            Ok(header) => Err(Violation::UnexpectedMessage {
                expected: MessageKind::Decline,
                received: header.kind,
            }
            .into()),
        }
    }
}

/// The Decline of a server that has not read a Proposal, for example for want of memory.
///
/// `version` is 1: no peer has asked for more yet.
pub fn decline_unread(peer_id: PeerId, reason: DeclineReason) -> Decline {
    Decline::new(Version::V1, peer_id, reason)
}
