// SPDX-License-Identifier: GPL-2.0

//! A CDC message in the immediate of an RDMA WRITE: a vendor option (`clc::wire::VendorOptions::IMMEDIATE`).
//!
//! An RDMA WRITE WITH IMMEDIATE uses a receive request of the peer's, as a SEND does, and hands over 32 bits and the number of
//! bytes that it wrote. That is enough for most CDC messages (RFC 7609, appendix A.4), as they differ little from the one
//! before:
//!
//! ```text
//!    31                    18   17      16    15                   0
//!   +------------------------+-------+-------+----------------------+
//!   |   alert token, low 14  | wraps |   B   |  consumed: 16 bits   |
//!   +------------------------+-------+-------+----------------------+
//! ```
//!
//! The message that it stands for is the last one that was sent over this link for this connection, with the next number, the
//! producer cursor moved on by what was written, the consumer cursor by *consumed*, and the flag B of here. *Wraps* says
//! that an RDMA WRITE up to the end of the RMB element went before; this one then begins at its start. What
//! an immediate cannot say goes as a message of its own: other flags, a change of the flags about the connection, a
//! consumer cursor that has moved further, failover validation. So does the first message over each link, and every one until
//! something has come from the peer: before that it need not know how long our buffers are.
//!
//! So each immediate stands for exactly one message, and what the RFC says of messages and their numbers holds for
//! immediates: order, what is old, failover (section 4.6).
//!
//! The 14 bits of the token are no more than a check beyond the 8 that tell the connections of a group apart: whoever
//! gives out tokens sees to it that none comes again whose peer may still send.

#![forbid(unsafe_code)]

use super::cdc::{
    CdcMessage,
    ProducerFlags, //
};
use super::conn::Violation;
use super::cursor::Ring;
use crate::smc_core::types::AlertToken;

/// Most links that a connection has been on at a time: two, and an asymmetric one (RFC 7609, section 2.3).
pub(super) const LINKS: usize = 3;

const TOKEN_SHIFT: u32 = 18;
const WRAPS: u32 = 1 << 17;
const BLOCKED: u32 = 1 << 16;
const CONSUMED: u32 = 0xffff;

/// What an immediate tells of an alert token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortToken(u16);

impl ShortToken {
    const MASK: u32 = u32::MAX >> TOKEN_SHIFT;

    /// That of `token`.
    pub const fn of(token: AlertToken) -> Self {
        Self((token.0 & Self::MASK) as u16)
    }

    /// The low byte, which is different for each connection of a group.
    pub const fn index(self) -> u8 {
        self.0 as u8
    }
}

/// What was written with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrote {
    /// Bytes in all.
    pub len: u32,
    /// In two writes: up to the end of the RMB element, and from its start.
    pub wraps: bool,
}

impl Wrote {
    /// No data.
    pub const NOTHING: Self = Self {
        len: 0,
        wraps: false,
    };
}

/// The immediate: 32 bits, in network byte order on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Immediate(pub u32);

impl Immediate {
    /// Which connection it is for.
    pub const fn token(self) -> ShortToken {
        ShortToken((self.0 >> TOKEN_SHIFT) as u16)
    }

    /// What stands for `next`, if anything does, when the peer has `last`. `own` is the sender's RMB element, `peer` the
    /// one that is written to.
    fn of(
        last: &CdcMessage,
        next: &CdcMessage,
        wrote: Wrote,
        own: Ring,
        peer: Ring,
    ) -> Option<Self> {
        let produced = peer.diff(last.prod, next.prod)?;
        let consumed = own.diff(last.cons, next.cons)?;
        let blocked = next.prod_flags == ProducerFlags::WRITE_BLOCKED;
        let says_more = (!blocked && next.prod_flags != ProducerFlags::default())
            || next.conn_state != last.conn_state;
        if says_more
            || consumed > CONSUMED
            // Not so when the peer was seen to have what was to go again.
            || produced != wrote.len
            || next.seqno != last.seqno.next()
        {
            return None;
        }
        let token = u32::from(ShortToken::of(next.token).0) << TOKEN_SHIFT;
        let wraps = if wrote.wraps { WRAPS } else { 0 };
        let blocked = if blocked { BLOCKED } else { 0 };
        Some(Self(token | wraps | blocked | consumed))
    }

    /// The message that it stands for, behind `last`, when the write that it came with had `len` bytes. `own` is the RMB
    /// element that was written to, `peer` that of the sender. Cursors are inside their rings, if those of `last` are;
    /// whether they can be is for the connection to say, as with every message.
    ///
    /// # Errors
    ///
    /// It goes beyond a ring.
    pub fn expand(
        self,
        last: &CdcMessage,
        len: u32,
        own: Ring,
        peer: Ring,
    ) -> Result<CdcMessage, Violation> {
        let room = own.len().saturating_sub(last.prod.count);
        let produced = match self.0 & WRAPS != 0 {
            true if len > 0 => room.checked_add(len).filter(|&n| n <= own.len()),
            true => None,
            false => Some(len).filter(|&n| n <= room),
        };
        let produced = produced.ok_or(Violation::ProducerCursor)?;
        let consumed = self.0 & CONSUMED;
        if consumed > peer.len() {
            return Err(Violation::ConsumerCursor);
        }
        Ok(CdcMessage {
            seqno: last.seqno.next(),
            prod: own.add(last.prod, produced),
            cons: peer.add(last.cons, consumed),
            prod_flags: ProducerFlags::default()
                .with(ProducerFlags::WRITE_BLOCKED, self.0 & BLOCKED != 0),
            ..*last
        })
    }
}

/// What both sides of a connection remember of the messages that immediates follow.
#[derive(Debug)]
pub(super) struct Shorthand {
    /// The last one that was sent over the link that we use.
    said: Option<CdcMessage>,
    /// The last one that came, by the place of the link in its group: completions of two links come in any order.
    heard: [Option<CdcMessage>; LINKS],
    /// The peer has sent something.
    met: bool,
}

impl Shorthand {
    pub(super) const fn new() -> Self {
        Self {
            said: None,
            heard: [None; LINKS],
            met: false,
        }
    }

    /// See [`super::conn::Connection::shorten`].
    pub(super) fn shorten(
        &mut self,
        msg: &CdcMessage,
        wrote: Wrote,
        own: Ring,
        peer: Ring,
    ) -> Option<Immediate> {
        let last = self.said.replace(*msg)?;
        if !self.met {
            return None;
        }
        Immediate::of(&last, msg, wrote, own, peer)
    }

    /// What is sent next goes over another link.
    pub(super) fn fail_over(&mut self) {
        self.said = None;
    }

    /// See [`super::conn::Connection::hear`].
    pub(super) fn hear(&mut self, link: usize, msg: &CdcMessage) {
        self.met = true;
        if let Some(heard) = self.heard.get_mut(link) {
            // With that a peer begins on a link; another one may have had that place before.
            *heard = (!msg.is_validation()).then_some(*msg);
        }
    }

    /// The last message that came over the link at that place.
    pub(super) fn last(&self, link: usize) -> Option<&CdcMessage> {
        self.heard.get(link)?.as_ref()
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_immediate))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::super::cdc::{
        CdcSeq,
        ConnState, //
    };
    use super::super::cursor::Cursor;
    use super::*;

    const OWN: u32 = 100;
    const PEER: u32 = 1 << 20;

    fn rings() -> (Ring, Ring) {
        (Ring::new(OWN).unwrap(), Ring::new(PEER).unwrap())
    }

    fn at(wrap: u16, count: u32) -> Cursor {
        Cursor { wrap, count }
    }

    /// What B has said to A last; A's RMB element is `OWN`, B's is `PEER`.
    fn last() -> CdcMessage {
        CdcMessage {
            seqno: CdcSeq(0xffff),
            token: AlertToken(0x0001_2345),
            prod: at(3, 90),
            cons: at(7, 1000),
            prod_flags: ProducerFlags::WRITE_BLOCKED,
            conn_state: ConnState::DONE_WRITING,
        }
    }

    fn next(prod: Cursor, cons: Cursor) -> CdcMessage {
        CdcMessage {
            seqno: CdcSeq(0),
            prod,
            cons,
            prod_flags: ProducerFlags::default(),
            ..last()
        }
    }

    fn shorten(msg: &CdcMessage, wrote: Wrote) -> Option<Immediate> {
        let (own, peer) = rings();
        Immediate::of(&last(), msg, wrote, peer, own)
    }

    fn expand(immediate: u32, len: u32) -> Result<CdcMessage, Violation> {
        let (own, peer) = rings();
        Immediate(immediate).expand(&last(), len, own, peer)
    }

    #[test]
    fn layout() {
        // Low 14 bits of the token: 0x2345.
        let wraps = next(at(4, 5), at(7, 1000 + 0x1234));
        let wrote = |len, wraps| Wrote { len, wraps };
        assert_eq!(
            shorten(&wraps, wrote(15, true)),
            Some(Immediate(0x8d16_1234))
        );
        assert_eq!(expand(0x8d16_1234, 5), Ok(wraps));
        assert_eq!(Immediate(0x8d16_1234).token(), ShortToken(0x2345));
        assert_eq!(Immediate(0x8d16_1234).token().index(), 0x45);

        let blocked = CdcMessage {
            prod_flags: ProducerFlags::WRITE_BLOCKED,
            ..next(at(3, 99), at(7, 1000))
        };
        assert_eq!(
            shorten(&blocked, wrote(9, false)),
            Some(Immediate(0x8d15_0000))
        );
        assert_eq!(expand(0x8d15_0000, 9), Ok(blocked));

        // To the end is no wrap: no second write.
        let end = next(at(4, 0), at(7, 1000));
        assert_eq!(
            shorten(&end, wrote(10, false)),
            Some(Immediate(0x8d14_0000))
        );
        assert_eq!(expand(0x8d14_0000, 10), Ok(end));
    }

    #[test]
    fn what_does_not_fit_goes_as_a_message() {
        let plain = next(at(3, 90), at(7, 1000 + CONSUMED));
        assert!(shorten(&plain, Wrote::NOTHING).is_some());
        let state = ConnState::DONE_WRITING.union(ConnState::CLOSED);
        for other in [
            next(at(3, 90), at(7, 1001 + CONSUMED)),
            next(at(3, 90), at(7, 999)),
            next(at(3, 91), at(7, 1000)),
            next(at(3, 89), at(7, 1000)),
            CdcMessage {
                conn_state: state,
                ..plain
            },
            CdcMessage {
                seqno: CdcSeq(1),
                ..plain
            },
            CdcMessage {
                prod_flags: ProducerFlags::URGENT_PENDING,
                ..plain
            },
            CdcMessage {
                prod_flags: ProducerFlags(0x90),
                ..plain
            },
        ] {
            assert_eq!(shorten(&other, Wrote::NOTHING), None, "{other:?}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        // Beyond the end without a wrap, around all of the ring and more, a wrap without data.
        for (immediate, len) in [
            (0, 11),
            (0, u32::MAX),
            (WRAPS, 91),
            (WRAPS, u32::MAX),
            (WRAPS, 0),
        ] {
            assert_eq!(expand(immediate, len), Err(Violation::ProducerCursor));
        }
        assert!(expand(WRAPS, 90).is_ok());
        let tiny = Ring::new(0xfffe).unwrap();
        let far = Immediate(CONSUMED).expand(&last(), 0, tiny, tiny);
        assert_eq!(far, Err(Violation::ConsumerCursor));
    }

    #[test]
    fn an_immediate_follows_a_message_of_its_link() {
        let (own, peer) = rings();
        let plain = next(at(3, 90), at(7, 1000));
        let mut short = Shorthand::new();
        let say = |short: &mut Shorthand, msg: &CdcMessage| {
            short.shorten(msg, Wrote::NOTHING, peer, own).is_some()
        };
        // Nothing has been said, then nothing has come.
        assert!(!say(&mut short, &last()) && !say(&mut short, &plain));
        assert_eq!(short.last(1), None);
        short.hear(1, &last());
        assert_eq!((short.last(0), short.last(1)), (None, Some(&last())));
        assert_eq!(short.last(usize::MAX), None);
        assert!(say(
            &mut short,
            &CdcMessage {
                seqno: CdcSeq(1),
                ..plain
            }
        ));
        short.fail_over();
        assert!(!say(
            &mut short,
            &CdcMessage {
                seqno: CdcSeq(2),
                ..plain
            }
        ));
        // Another link has that place.
        short.hear(
            1,
            &CdcMessage {
                prod_flags: ProducerFlags::FAILOVER_VALIDATION,
                ..last()
            },
        );
        assert_eq!(short.last(1), None);
        assert!(say(
            &mut short,
            &CdcMessage {
                seqno: CdcSeq(3),
                ..plain
            }
        ));
    }
}
