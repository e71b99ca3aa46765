// SPDX-License-Identifier: GPL-2.0

//! What goes into and comes out of the state machine of a link.

#![forbid(unsafe_code)]

use super::wire::{
    AddLink,
    AddLinkContinuation,
    ConfirmRkey,
    DeleteLink,
    DeleteReason,
    DeleteRkey,
    LlcVersion,
    LLC_LEN, //
};
use crate::smc_core::types::{
    Gid,
    LinkNumber,
    LinkUserId,
    Mac,
    Qpn24,
    RKey, //
};

/// Which side of the link group this is (RFC 7609, section 3.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The side that has connected.
    Client,
    /// The side that has accepted: it numbers links and decides about them.
    Server,
}

/// What became of the keys of a new RMB of the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// They are known now.
    Yes,
    /// Links are just being added: the peer is to say them again.
    Later,
    /// There is no room for them: the peer has too many.
    No,
}

/// What the handshake has settled about a link.
#[derive(Clone, Copy, Debug)]
pub struct LinkParams {
    /// Which side we are.
    pub role: Role,
    /// Version of the link group.
    pub version: LlcVersion,
    /// Our port.
    pub mac: Mac,
    /// Our port.
    pub gid: Gid,
    /// Our queue pair.
    pub qpn: Qpn24,
    /// Our name for the link.
    pub user_id: LinkUserId,
    /// The peer's port, from its CLC message.
    pub peer_gid: Gid,
    /// The peer's queue pair, from its CLC message.
    pub peer_qpn: Qpn24,
    /// Number of the link. The client learns it from the server.
    pub link: LinkNumber,
    /// Links that we support.
    pub max_links: u8,
    /// Connections that we support (SMC-Rv2.1), 0 before.
    pub max_conns: u8,
    /// Test the link after so many milliseconds without a message; 0 = never.
    pub test_link_time: u32,
}

/// What a peer has said in CONFIRM LINK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLink {
    /// Number of the link.
    pub link: LinkNumber,
    /// The peer's name for the link.
    pub user_id: LinkUserId,
    /// Links that the peer supports.
    pub max_links: u8,
    /// Connections that the peer supports (SMC-Rv2.1), 0 before.
    pub max_conns: u8,
}

/// Why a link was not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfirmFailure {
    /// Nothing came in time.
    Timeout,
    /// The message is not from the queue pair that the CLC message named.
    WrongPeer,
    /// The peer puts eye catchers into its RMBs, which we do not.
    EyeCatcher,
}

/// What was asked of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// CONFIRM RKEY for this key.
    ConfirmRkey(RKey),
    /// DELETE RKEY for this key.
    DeleteRkey(RKey),
}

/// News for the link group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LlcEvent {
    /// Client: the server has confirmed the link. Make the queue pair able to send and register
    /// the buffers, then call [`super::flow::LinkFlow::confirm_link_ready`]; the deadline is the server's.
    ConfirmLinkReceived(PeerLink),
    /// Server: the client has confirmed the link, which is in use now.
    LinkConfirmed(PeerLink),
    /// The link could not be confirmed: the connection is declined.
    ConfirmFailed(ConfirmFailure),
    /// The peer has a new RMB. Enter it, and call [`super::flow::LinkFlow::answer_confirm_rkey`].
    PeerRkey(ConfirmRkey),
    /// RMBs of the peer are gone. Remove them, and call [`super::flow::LinkFlow::answer_delete_rkey`].
    PeerRkeysDeleted(DeleteRkey),
    /// The peer has taken our request.
    RequestDone(Request),
    /// The peer has refused our request; `retry`: later it may take it.
    RequestRefused {
        /// What was asked.
        request: Request,
        /// Try again when the configuration has settled.
        retry: bool,
    },
    /// The peer has not answered our request.
    RequestTimedOut(Request),
    /// ADD LINK: see [`super::links::LinksFlow::on_add_link`].
    AddLink {
        /// The message.
        msg: AddLink,
        /// It answers a request.
        response: bool,
    },
    /// ADD LINK CONTINUATION: see [`super::links::LinksFlow::on_keys`].
    AddLinkKeys {
        /// The message.
        msg: AddLinkContinuation,
        /// It answers a request.
        response: bool,
    },
    /// Server: the client would like to have another link (SMC-Rv2).
    LinkRequested,
    /// The peer ends a single link, or wants it to end. Answer it with
    /// [`super::flow::LinkFlow::answer_delete_link`], or end the group if it has no other.
    DeleteLink(DeleteLink),
    /// The peer has answered our DELETE LINK about a single link.
    LinkDeleted(DeleteLink),
    /// The link is dead: TEST LINK was not answered.
    LinkDown,
    /// The peer ends the link group: abort its connections, after what is to be sent is sent.
    Terminate {
        /// The peer's reason.
        reason: DeleteReason,
        /// Not because of an error.
        orderly: bool,
    },
    /// The same because the peer has sent what is no LLC message (RFC 7609, appendix A.3: a type that is unknown and may not be
    /// ignored): what is to be sent tells it.
    Violation,
    /// A message that has no meaning now was dropped; for statistics.
    Dropped,
}

/// What is to be done: send first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Actions {
    /// Send this message on the link.
    pub send: Option<[u8; LLC_LEN]>,
    /// Tell this to the link group.
    pub event: Option<LlcEvent>,
}

// More than the 64 bytes that results have elsewhere; this is not the data path.
const _: () = assert!(size_of::<Actions>() <= 128);

impl Actions {
    pub(super) const NONE: Self = Self {
        send: None,
        event: None,
    };

    pub(super) const fn event(event: LlcEvent) -> Self {
        Self {
            send: None,
            event: Some(event),
        }
    }

    pub(super) const fn send(bytes: [u8; LLC_LEN]) -> Self {
        Self {
            send: Some(bytes),
            event: None,
        }
    }

    /// Whether there is nothing to do.
    pub const fn is_empty(&self) -> bool {
        self.send.is_none() && self.event.is_none()
    }
}
