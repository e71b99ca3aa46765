// SPDX-License-Identifier: GPL-2.0

//! How a link group comes by another link (RFC 7609, sections 3.5.1.6 and 3.5.5, appendix A.3.2 and
//! A.3.3): which exchange is under way, and what comes next in it.
//!
//! The server offers a link (ADD LINK), the client answers with its end of it, or rejects it. Each side
//! then knows both ends and has told the keys of its RMBs on the new link: in ADD LINK itself with
//! SMC-Rv2, in as many ADD LINK CONTINUATIONs as it takes before. CONFIRM LINK on the new link, which is
//! the business of its own [`super::flow::LinkFlow`], ends it.
//!
//! A [`LinksFlow`] is a plain value without I/O. Making a link takes its time, so whoever makes it tells
//! how far he is: [`LinksFlow::offer`], [`LinksFlow::offered`] at the server, [`LinksFlow::answered`] at
//! the client, [`LinksFlow::keys_sent`], [`LinksFlow::done`].

#![forbid(unsafe_code)]

use super::event::Role;
use super::message::{
    AddLink,
    AddLinkContinuation,
    AddLinkReject, //
};
use crate::smc_core::time::Millis;
use crate::smc_core::types::{
    Gid,
    LinkNumber, //
};

/// How long a side waits for the other's next message, in milliseconds.
pub const ADD_LINK_WAIT: u32 = 2_000;

/// How long a client takes to make its end at most: the server waits for that. In milliseconds.
pub const MAKE_WAIT: u32 = 5_000;

/// Another exchange about links is under way; there is one at a time (RFC 7609, section 3.5.5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// How far an exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// There is none.
    Idle,
    /// Our end is being made.
    Making,
    /// Server: the client's answer is due.
    Offered(Millis),
    /// Both ends are known.
    Known,
    /// The other's next ADD LINK CONTINUATION is due.
    Keys(Millis),
    /// It has come.
    KeysHere,
    /// It came to nothing.
    Failed,
    /// Server: the client does not want it.
    Rejected,
}

/// What a message leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing: it is about nothing, or not the right one.
    Dropped,
    /// Client: make an end for this offer, or reject it and say that it is [`LinksFlow::done`].
    Offer(AddLink),
    /// Client: this offer cannot be taken now.
    Reject(AddLinkReject),
    /// Server: the client would like to have another link.
    Invited,
    /// Server: the client has made its end.
    Accepted(AddLink),
    /// Server: the client does not want it.
    Rejected,
    /// These are keys of the other side.
    Keys(AddLinkContinuation),
}

/// Which exchange about another link is under way.
#[derive(Debug)]
pub struct LinksFlow {
    role: Role,
    stage: Stage,
    /// The link that it is about; at a server the last one that was numbered.
    number: LinkNumber,
}

impl LinksFlow {
    /// None, in a group whose first link has this number.
    pub const fn new(role: Role, first: LinkNumber) -> Self {
        Self {
            role,
            stage: Stage::Idle,
            number: first,
        }
    }

    /// Whether no exchange is under way.
    pub fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// Whether the other side knows, or may know, of an exchange: then keys wait for its end (RFC 7609, section
    /// 3.5.5.3).
    pub fn is_said(&self) -> bool {
        match self.stage {
            Stage::Idle => false,
            // ADD LINK is yet to be sent.
            Stage::Making => self.role == Role::Client,
            _ => true,
        }
    }

    /// Whether both sides wait for nothing but themselves, or it has failed: see [`Self::has_failed`].
    pub fn is_known(&self) -> bool {
        matches!(self.stage, Stage::Known | Stage::KeysHere) || self.has_failed()
    }

    /// Whether the exchange has come to nothing.
    pub fn has_failed(&self) -> bool {
        matches!(self.stage, Stage::Failed | Stage::Rejected)
    }

    /// Whether that is because the client does not want the link: another try is of no use.
    pub fn is_rejected(&self) -> bool {
        self.stage == Stage::Rejected
    }

    /// The number of the link that it is about.
    pub const fn number(&self) -> LinkNumber {
        self.number
    }

    /// Server: begins to make a link, with a number that no link of the group has had for long.
    /// `taken` tells which ones there are.
    ///
    /// # Errors
    ///
    /// [`Busy`].
    pub fn offer(&mut self, taken: impl Fn(LinkNumber) -> bool) -> Result<LinkNumber, Busy> {
        if self.role != Role::Server || !self.is_idle() {
            return Err(Busy);
        }
        let mut number = self.number;
        for _ in 0..=u8::MAX {
            // Zero is no number (RFC 7609, appendix A.3.4).
            number = LinkNumber(number.0.wrapping_add(1).max(1));
            if !taken(number) {
                self.number = number;
                self.stage = Stage::Making;
                return Ok(number);
            }
        }
        Err(Busy)
    }

    /// Server: ADD LINK is on its way.
    pub fn offered(&mut self, now: Millis) {
        if self.stage == Stage::Making {
            self.stage = Stage::Offered(now.after(MAKE_WAIT));
        }
    }

    /// Client: the answer to ADD LINK is on its way.
    pub fn answered(&mut self) {
        if self.stage == Stage::Making {
            self.stage = Stage::Known;
        }
    }

    /// ADD LINK CONTINUATION is due from the other side.
    pub fn await_keys(&mut self, now: Millis) {
        if matches!(self.stage, Stage::Known | Stage::KeysHere) {
            self.stage = Stage::Keys(now.after(ADD_LINK_WAIT));
        }
    }

    /// The exchange is over, well or not.
    pub fn done(&mut self) {
        self.stage = Stage::Idle;
    }

    /// The peer ends the link with this number, or our end is lost; whether the exchange was about it.
    pub fn give_up(&mut self, number: LinkNumber) -> bool {
        let about_it = !self.is_idle() && self.number == number;
        if about_it {
            self.stage = Stage::Failed;
        }
        about_it
    }

    /// When [`Self::on_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Millis> {
        match self.stage {
            Stage::Offered(at) | Stage::Keys(at) => Some(at),
            _ => None,
        }
    }

    /// Time has passed; whether the exchange has come to nothing by that.
    pub fn on_timeout(&mut self, now: Millis) -> bool {
        let late = self.poll_timeout().is_some_and(|at| at.reached(now));
        if late {
            self.stage = Stage::Failed;
        }
        late
    }

    /// ADD LINK has come.
    pub fn on_add_link(&mut self, msg: &AddLink, response: bool) -> News {
        match (self.role, response, self.stage) {
            // RFC 7609, section 3.5.5.1.2: a client that has another port says so by ADD LINK.
            (Role::Server, false, _) => News::Invited,
            (Role::Server, true, Stage::Offered(_)) if msg.link == self.number => {
                if msg.rejected.is_some() || msg.mtu.is_none() || msg.qpn.value() == 0 {
                    self.stage = Stage::Rejected;
                    News::Rejected
                } else {
                    self.stage = Stage::Known;
                    News::Accepted(*msg)
                }
            }
            (Role::Client, false, Stage::Idle) if msg.mtu.is_none() => {
                News::Reject(AddLinkReject::INVALID_MTU)
            }
            (Role::Client, false, Stage::Idle) if msg.qpn.value() != 0 && msg.link.0 != 0 => {
                self.stage = Stage::Making;
                self.number = msg.link;
                News::Offer(*msg)
            }
            (Role::Client, false, _) => News::Reject(AddLinkReject::NO_ALTERNATE_PATH),
            _ => News::Dropped,
        }
    }

    /// ADD LINK CONTINUATION has come (version 1).
    pub fn on_keys(&mut self, msg: &AddLinkContinuation, response: bool) -> News {
        // The server asks, the client responds (RFC 7609, appendix A.3.3).
        let expected = matches!(self.stage, Stage::Keys(_) | Stage::Known);
        if !expected || msg.link != self.number || response != (self.role == Role::Server) {
            return News::Dropped;
        }
        self.stage = Stage::KeysHere;
        News::Keys(*msg)
    }

    /// Whether the other's keys that were waited for are here.
    pub fn keys_here(&self) -> bool {
        self.stage == Stage::KeysHere
    }

    /// Ours are on their way: the other's next ones may come.
    pub fn keys_sent(&mut self) {
        if self.stage == Stage::KeysHere {
            self.stage = Stage::Known;
        }
    }
}

/// Which of its ports a client takes for the server's offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Another one than that of the link that there is: the links are symmetric, or the server has one
    /// port only.
    Other,
    /// The same: the client has one port only.
    Same,
}

/// Judges the server's offer of a link from its port `offered`, by a client whose link leads to the
/// server's port `known`, and that has `another` port, or not (RFC 7609, section 3.5.1.6.1).
///
/// # Errors
///
/// The reason for a rejection: two links between the same ports are of no use.
pub fn judge_offer(known: Gid, offered: Gid, another: bool) -> Result<Ends, AddLinkReject> {
    match (another, known == offered) {
        (true, _) => Ok(Ends::Other),
        (false, false) => Ok(Ends::Same),
        (false, true) => Err(AddLinkReject::NO_ALTERNATE_PATH),
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_llc_links))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;
    use crate::smc_core::types::{
        Mac,
        Mtu,
        Psn24,
        Qpn24,
        RKey, //
    };

    const T0: Millis = Millis(1_000);

    fn end(link: LinkNumber, qpn: u32) -> AddLink {
        AddLink {
            mac: Mac([1; 6]),
            gid: Gid([1; 16]),
            qpn: Qpn24::from_low_bits(qpn),
            link,
            mtu: Some(Mtu::Mtu1024),
            psn: Psn24::from_low_bits(3),
            rejected: None,
        }
    }

    fn keys(link: LinkNumber, left: u8) -> AddLinkContinuation {
        AddLinkContinuation {
            link,
            rtokens_left: left,
            pairs: [(RKey(1), Default::default()); 2],
        }
    }

    fn pair() -> (LinksFlow, LinksFlow) {
        let first = LinkNumber(1);
        (
            LinksFlow::new(Role::Client, first),
            LinksFlow::new(Role::Server, first),
        )
    }

    #[test]
    fn a_link_is_added() {
        let (mut client, mut server) = pair();
        let number = server.offer(|number| number.0 < 3).unwrap();
        assert_eq!((number, server.number()), (LinkNumber(3), LinkNumber(3)));
        assert!(!server.is_idle() && !server.is_said());
        assert_eq!(server.offer(|_| false), Err(Busy));
        server.offered(T0);
        let offer = end(number, 8);
        assert_eq!(client.on_add_link(&offer, false), News::Offer(offer));
        assert!(server.is_said() && client.is_said());
        assert!(!client.is_known());
        client.answered();
        let answer = end(number, 9);
        assert_eq!(server.on_add_link(&answer, true), News::Accepted(answer));
        assert!(client.is_known() && server.is_known());
        assert_eq!(server.on_add_link(&answer, true), News::Dropped);
        client.done();
        server.done();
        assert!(client.is_idle() && server.is_idle());
        assert_eq!(server.poll_timeout(), None);
    }

    #[test]
    fn keys_are_exchanged_in_turn() {
        let (mut client, mut server) = pair();
        let number = server.offer(|_| false).unwrap();
        server.offered(T0);
        client.on_add_link(&end(number, 8), false);
        client.answered();
        server.on_add_link(&end(number, 9), true);
        for left in [3, 1, 0] {
            let msg = keys(number, left);
            server.await_keys(T0);
            // Not from oneself, nor about another link.
            assert_eq!(client.on_keys(&msg, true), News::Dropped);
            assert_eq!(
                client.on_keys(&keys(LinkNumber(9), 0), false),
                News::Dropped
            );
            assert_eq!(client.on_keys(&msg, false), News::Keys(msg));
            assert!(client.keys_here());
            assert_eq!(client.on_keys(&msg, false), News::Dropped);
            client.keys_sent();
            assert_eq!(server.on_keys(&msg, true), News::Keys(msg));
            assert!(server.keys_here());
        }
    }

    #[test]
    fn silence_and_rejection_end_it() {
        let (_, mut server) = pair();
        let number = server.offer(|_| false).unwrap();
        server.offered(T0);
        let at = server.poll_timeout().unwrap();
        assert!(!server.on_timeout(Millis(at.0 - 1)) && server.on_timeout(at));
        // Not its word: it may be made later.
        assert!(server.has_failed() && !server.is_rejected() && !server.on_timeout(at));
        assert_eq!(server.on_add_link(&end(number, 9), true), News::Dropped);
        server.done();
        for bad in [
            AddLink {
                rejected: Some(AddLinkReject::NO_ALTERNATE_PATH),
                ..end(LinkNumber(3), 9)
            },
            AddLink {
                mtu: None,
                ..end(LinkNumber(4), 9)
            },
            end(LinkNumber(5), 0),
        ] {
            assert_eq!(server.offer(|_| false), Ok(bad.link));
            server.offered(T0);
            assert_eq!(server.on_add_link(&bad, true), News::Rejected);
            assert!(server.has_failed() && server.is_known() && server.is_rejected());
            server.done();
            assert!(!server.is_rejected());
        }
    }

    #[test]
    fn a_client_takes_one_offer_at_a_time() {
        let (mut client, _) = pair();
        let offer = end(LinkNumber(2), 8);
        let rejected = News::Reject(AddLinkReject::NO_ALTERNATE_PATH);
        assert_eq!(client.on_add_link(&end(LinkNumber(2), 0), false), rejected);
        assert_eq!(client.on_add_link(&end(LinkNumber(0), 8), false), rejected);
        let bad = AddLink { mtu: None, ..offer };
        let invalid = News::Reject(AddLinkReject::INVALID_MTU);
        assert_eq!(client.on_add_link(&bad, false), invalid);
        assert_eq!(client.on_add_link(&offer, false), News::Offer(offer));
        assert_eq!(client.on_add_link(&offer, false), rejected);
        // The server has given it up.
        assert!(!client.give_up(LinkNumber(1)) && client.give_up(LinkNumber(2)));
        assert!(client.has_failed() && client.is_known());
        client.done();
        assert!(!client.give_up(LinkNumber(2)));
    }

    #[test]
    fn a_server_can_be_invited_and_wraps_its_numbers() {
        let (_, mut server) = pair();
        assert_eq!(
            server.on_add_link(&end(LinkNumber(0), 0), false),
            News::Invited
        );
        server.number = LinkNumber(255);
        assert_eq!(server.offer(|number| number.0 == 1), Ok(LinkNumber(2)));
        server.done();
        assert_eq!(server.offer(|_| true), Err(Busy));
    }

    #[test]
    fn ports_of_an_offer() {
        let (a, b) = (Gid([1; 16]), Gid([2; 16]));
        assert_eq!(judge_offer(a, b, true), Ok(Ends::Other));
        assert_eq!(judge_offer(a, a, true), Ok(Ends::Other));
        assert_eq!(judge_offer(a, b, false), Ok(Ends::Same));
        let reason = AddLinkReject::NO_ALTERNATE_PATH;
        assert_eq!(judge_offer(a, a, false), Err(reason));
    }
}
