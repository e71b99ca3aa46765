// SPDX-License-Identifier: GPL-2.0

//! What has come for a connection before the peer's part was known: the client may send as soon as it has sent its Confirm,
//! and RDMA is quicker than TCP.

#![forbid(unsafe_code)]

use super::cdc::{
    CdcMessage,
    ProducerFlags, //
};
use super::immediate::LINKS;

/// Messages are cumulative, and the last one says it all; but what comes later over a link follows the last one of
/// that link (`super::immediate`).
#[derive(Debug, Default)]
pub struct Early {
    /// The last one over each link.
    last: [Option<CdcMessage>; LINKS],
    /// That the peer has moved the connection, and to which link.
    validation: Option<(usize, CdcMessage)>,
    /// The last one over an earlier link that had the place of that.
    former: Option<CdcMessage>,
}

impl Early {
    /// A message has come over the link at place `link`.
    pub fn note(&mut self, link: usize, msg: &CdcMessage) {
        let Some(last) = self.last.get_mut(link) else {
            return;
        };
        if msg.is_validation() {
            self.former = match (self.former, last.take()) {
                (Some(former), Some(last)) => Some(behind(&former, &last)),
                (former, last) => last.or(former),
            };
            self.validation = Some((link, *msg));
        } else {
            *last = Some(last.map_or(*msg, |last| behind(&last, msg)));
        }
    }

    /// All that is to be given to [`super::conn::Connection::hear`] and [`super::conn::Connection::handle_cdc`], in this order: first
    /// what brings something, as the validation message only asks whether nothing is missing. Then
    /// [`super::conn::Connection::recall`].
    pub fn messages(&self) -> impl Iterator<Item = (usize, &CdcMessage)> {
        let place = self.validation.map_or(0, |(link, _)| link);
        let former = self.former.iter().map(move |msg| (place, msg));
        let validation = self.validation.iter().map(|(link, msg)| (*link, msg));
        former.chain(self.last()).chain(validation)
    }

    /// The last message over each link.
    pub(super) fn last(&self) -> impl Iterator<Item = (usize, &CdcMessage)> {
        let links = self.last.iter().enumerate();
        links.filter_map(|(link, msg)| Some((link, msg.as_ref()?)))
    }
}

/// What `msg` says behind `last`, which nobody has seen: urgent data is said once, and nothing is written behind it before
/// it is confirmed.
pub(super) fn behind(last: &CdcMessage, msg: &CdcMessage) -> CdcMessage {
    let urgent = ProducerFlags::URGENT_PRESENT;
    let still = last.prod_flags.contains(urgent) && last.prod == msg.prod;
    CdcMessage {
        prod_flags: msg.prod_flags.with(urgent, still),
        ..*msg
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_early))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::super::conn::{
        test_conn as conn,
        Connection, //
    };
    use super::*;

    /// Writes `n` bytes, and makes the message for them.
    fn write(conn: &mut Connection, n: u32) -> CdcMessage {
        conn.tx.commit(n);
        let plan = conn.plan(u32::MAX).unwrap();
        let msg = conn.commit_tx(&plan);
        assert_eq!(conn.shorten(&msg, Some(&plan)), None);
        msg
    }

    /// What the peer's part brings; then both talk, and an immediate follows over `link`.
    fn meet(early: &Early, a: &mut Connection, link: usize) -> u32 {
        let mut b = conn();
        let mut received = 0;
        for (link, msg) in early.messages() {
            b.hear(link, msg);
            received += b.handle_cdc(msg).unwrap().received;
        }
        b.recall(early);
        assert!(!b.lacks_message());
        a.hear(link, &b.make_cdc());
        a.tx.commit(3);
        let plan = a.plan(u32::MAX).unwrap();
        let msg = a.commit_tx(&plan);
        let immediate = a.shorten(&msg, Some(&plan)).unwrap();
        assert_eq!(b.expand(link, immediate, 3), Ok(Some(msg)));
        assert_eq!(b.handle_cdc(&msg).map(|effects| effects.received), Ok(3));
        received
    }

    #[test]
    fn immediates_follow_what_came_early() {
        let mut a = conn();
        let mut early = Early::default();
        early.note(0, &write(&mut a, 10));
        early.note(0, &write(&mut a, 5));
        early.note(usize::MAX, &CdcMessage::default());
        assert_eq!(meet(&early, &mut a, 0), 15);
    }

    #[test]
    fn what_is_urgent_stays_so() {
        let mut a = conn();
        let mut early = Early::default();
        a.tx.commit_urgent(1);
        let plan = a.plan(u32::MAX).unwrap();
        early.note(0, &a.commit_tx(&plan));
        // That it sends no more, say.
        early.note(0, &a.make_cdc());
        let mut b = conn();
        let mut messages = early.messages();
        let (_, msg) = messages.next().unwrap();
        assert!(messages.next().is_none());
        let effects = b.handle_cdc(msg).unwrap();
        assert_eq!((effects.received, effects.urgent_offset), (1, Some(0)));
    }

    #[test]
    fn the_peer_may_have_moved() {
        for (link, late) in [(1, false), (1, true), (0, false)] {
            let mut a = conn();
            let mut early = Early::default();
            let first = write(&mut a, 10);
            a.on_send_complete(first.seqno, a.tx.sent());
            if !late {
                early.note(0, &first);
            }
            let moved = a.fail_over();
            early.note(link, &moved.validation);
            early.note(link, &write(&mut a, 5));
            if late {
                early.note(0, &first);
            }
            assert_eq!(meet(&early, &mut a, link), 15, "{link} {late}");
        }
    }
}
