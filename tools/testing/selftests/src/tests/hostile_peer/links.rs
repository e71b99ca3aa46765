//! LLC messages that are wrong (RFC 7609, appendix A.3; SMC-Rv2).

use super::speaker::{llc, llc_message, Offer, Peer, Role, LEN};
use super::{join, one, says, Dialling, Ends, Failures, Meeting, Stage, Statement, VIOLATION};
use crate::runner::Ctx;
use crate::sys;
use crate::{check, check_eq, Context, Outcome};
use rand::Rng;
use std::time::{Duration, Instant};

/// Sends an LLC message with these fields.
fn llc(meeting: &mut Meeting<'_>, kind: u8, flags: u8, fields: &[(usize, &[u8])]) -> Outcome {
    meeting.peer.qp.send(&llc_message(kind, flags, fields))
}

/// Sends a message of ours, changed.
fn changed(
    meeting: &mut Meeting<'_>,
    mut message: [u8; LEN],
    change: impl FnOnce(&mut [u8; LEN]),
) -> Outcome {
    change(&mut message);
    meeting.peer.qp.send(&message)
}

/// CONFIRM RKEY: number of other links, key, address (RFC 7609, appendix A.3.5).
fn confirm_rkey(meeting: &mut Meeting<'_>, flags: u8, others: u8, rkey: u32, at: u64) -> Outcome {
    let fields: [(usize, &[u8]); 7] = [
        (4, &[others]),
        (5, &rkey.to_be_bytes()),
        (9, &at.to_be_bytes()),
        (17, &[1]),
        (18, &[0xff; 12]),
        (30, &[77]),
        (31, &[0xff; 12]),
    ];
    llc(meeting, llc::CONFIRM_RKEY, flags, &fields)
}

/// DELETE RKEY: how many, and the first of them (RFC 7609, appendix A.3.7).
fn delete_rkey(meeting: &mut Meeting<'_>, flags: u8, count: u8, rkey: u32) -> Outcome {
    let fields: [(usize, &[u8]); 3] = [(4, &[count]), (8, &rkey.to_be_bytes()), (12, &[0xee; 32])];
    llc(meeting, llc::DELETE_RKEY, flags, &fields)
}

/// DELETE LINK of a link, for a reason (RFC 7609, appendix A.3.4).
fn delete_link(meeting: &mut Meeting<'_>, flags: u8, link: u8, reason: u32) -> Outcome {
    let fields: [(usize, &[u8]); 2] = [(4, &[link]), (5, &reason.to_be_bytes())];
    llc(meeting, llc::DELETE_LINK, flags, &fields)
}

/// ADD LINK: GID, queue pair, link, MTU (RFC 7609, appendix A.3.2).
fn add_link(
    meeting: &mut Meeting<'_>,
    flags: u8,
    gid: [u8; 16],
    qpn: u32,
    link: u8,
    mtu: u8,
) -> Outcome {
    let message = add_link_message(flags, gid, qpn, link, mtu);
    meeting.peer.qp.send(&message)
}

fn add_link_message(flags: u8, gid: [u8; 16], qpn: u32, link: u8, mtu: u8) -> [u8; LEN] {
    let fields: [(usize, &[u8]); 5] = [
        (4, &[2, 0, 0, 9, 0, 1]),
        (12, &gid),
        (28, &qpn.to_be_bytes()[1..]),
        (31, &[link]),
        (32, &[mtu]),
    ];
    llc_message(llc::ADD_LINK, flags, &fields)
}

const REASON: u32 = 0x0003_0000;
const UNKNOWN_LINK: u32 = 0x0010_0000;
const LOST_PATH: u32 = 0x0001_0000;

fn is_unknown_link(meeting: &mut Meeting<'_>) -> Outcome {
    let answer = meeting.peer.llc(llc::DELETE_LINK, llc::ANSWER)?;
    let reason = u32::from_be_bytes([answer[5], answer[6], answer[7], answer[8]]);
    check_eq!(reason, UNKNOWN_LINK, "reason in the answer");
    Ok(())
}

pub(super) const BOTH: &[Statement] = &[
    says("CONFIRM LINK asked again", Ends::No, |m| {
        let message = m.peer.confirm_link(0);
        m.peer.qp.send(&message)
    }),
    says("CONFIRM LINK answered again", Ends::No, |m| {
        let message = m.peer.confirm_link(llc::ANSWER);
        m.peer.qp.send(&message)
    }),
    says("CONFIRM LINK of another queue pair", Ends::No, |m| {
        let message = m.peer.confirm_link(llc::ANSWER);
        changed(m, message, |bytes| bytes[26..29].fill(0xff))?;
        let message = m.peer.confirm_link(0);
        changed(m, message, |bytes| bytes[26..29].fill(0))
    }),
    says("CONFIRM LINK of another port", Ends::No, |m| {
        let message = m.peer.confirm_link(llc::ANSWER);
        changed(m, message, |bytes| bytes[10..26].fill(0xff))
    }),
    says("CONFIRM LINK of another link", Ends::No, |m| {
        let message = m.peer.confirm_link(llc::ANSWER);
        changed(m, message, |bytes| bytes[29] = 200)
    }),
    says("CONFIRM LINK with eye catchers", Ends::No, |m| {
        let message = m.peer.confirm_link(0);
        changed(m, message, |bytes| bytes[3] = 0)
    }),
    says("TEST LINK answered that was never asked", Ends::No, |m| {
        for _ in 0..50 {
            llc(m, llc::TEST_LINK, llc::ANSWER, &[(4, &[0xaa; 40])])?;
        }
        Ok(())
    }),
    says("TEST LINK a hundred times", Ends::No, |m| {
        for _ in 0..100 {
            llc(m, llc::TEST_LINK, 0, &[(4, &[0xaa; 40])])?;
        }
        m.peer.llc(llc::TEST_LINK, llc::ANSWER)?;
        m.peer.requests.clear();
        // Beyond what can wait messages are dropped, and no longer than those have been looked at.
        m.peer.test_link_again()
    }),
    says("CONFIRM RKEY of a new key", Ends::No, |m| {
        confirm_rkey(m, 0, 0, 0x1234_5678, 0x1000)?;
        let answer = m.peer.llc(llc::CONFIRM_RKEY, llc::ANSWER)?;
        check_eq!(answer[3], llc::ANSWER, "flags of the answer");
        Ok(())
    }),
    says("CONFIRM RKEY at the end of the addresses", Ends::No, |m| {
        confirm_rkey(m, 0, 0, 0xffff_ffff, u64::MAX)
    }),
    says("CONFIRM RKEY of nothing", Ends::No, |m| {
        confirm_rkey(m, 0, 0, 0, 0)
    }),
    says("CONFIRM RKEY for links that are not there", Ends::No, |m| {
        confirm_rkey(m, 0, 2, 0x1234_5678, 0x1000)
    }),
    says("CONFIRM RKEY for 255 other links", Ends::No, |m| {
        confirm_rkey(m, 0, 255, 0x1234_5678, 0x1000)
    }),
    says("CONFIRM RKEY of three hundred keys", Ends::No, |m| {
        for key in 0..300 {
            confirm_rkey(m, 0, 2, key, u64::from(key) << 20)?;
            // One request at a time, or the answers that it does not take are the end of its link.
            m.peer.llc(llc::CONFIRM_RKEY, llc::ANSWER)?;
        }
        Ok(())
    }),
    says("CONFIRM RKEY of a key in use, elsewhere", Ends::No, |m| {
        let (rkey, _, _) = m.peer.ring();
        confirm_rkey(m, 0, 0, rkey, 0)
    }),
    says(
        "CONFIRM RKEY answered that was never asked",
        Ends::No,
        |m| {
            let far = m.peer.far;
            for flags in [0, 0x20, 0x30] {
                confirm_rkey(m, llc::ANSWER | flags, 0, far.rkey, far.address)?;
            }
            Ok(())
        },
    ),
    says("DELETE RKEY of a key in use", Ends::Connection, |m| {
        let (rkey, _, _) = m.peer.ring();
        delete_rkey(m, 0, 1, rkey)
    }),
    says("DELETE RKEY of the other side's own key", Ends::No, |m| {
        let rkey = m.peer.far.rkey;
        delete_rkey(m, 0, 1, rkey)
    }),
    says("DELETE RKEY of keys nobody has", Ends::No, |m| {
        delete_rkey(m, 0, 9, 0x7777_0000)?;
        m.peer.llc(llc::DELETE_RKEY, llc::ANSWER)?;
        Ok(())
    }),
    says("DELETE RKEY of none", Ends::No, |m| delete_rkey(m, 0, 0, 0)),
    says(
        "DELETE RKEY of more than there is room for",
        Ends::No,
        |m| {
            delete_rkey(m, 0, 10, 0x7777_0000)?;
            delete_rkey(m, 0, 255, 0x7777_0000)
        },
    ),
    says("DELETE RKEY answered that was never asked", Ends::No, |m| {
        let rkey = m.peer.far.rkey;
        delete_rkey(m, llc::ANSWER, 1, rkey)?;
        delete_rkey(m, llc::ANSWER | 0x20, 255, rkey)
    }),
    says("DELETE LINK of link 0", Ends::No, |m| {
        delete_link(m, 0, 0, REASON)?;
        is_unknown_link(m)
    }),
    says("DELETE LINK of link 255", Ends::No, |m| {
        delete_link(m, 0x20, 255, REASON)?;
        is_unknown_link(m)
    }),
    says("DELETE LINK answered that was never asked", Ends::No, |m| {
        let link = m.peer.link;
        delete_link(m, llc::ANSWER, link, REASON)
    }),
    says("DELETE LINK of an unknown one answered", Ends::No, |m| {
        delete_link(m, llc::ANSWER, 255, UNKNOWN_LINK)
    }),
    says("DELETE LINK of all answered", Ends::No, |m| {
        delete_link(m, llc::ANSWER | llc::ALL, 0, REASON)
    }),
    says("every message of version 1", Ends::No, |m| {
        for kind in [1, 2, 3, 4, 6, 7, 8, 9] {
            for flags in [0, llc::ANSWER, llc::ALL] {
                llc(m, kind, flags, &[(4, &[1; 40])])?;
            }
        }
        Ok(())
    }),
    says("types that may be ignored", Ends::No, |m| {
        for kind in 0x80..=0xbf {
            llc(m, kind, 0xff, &[(4, &[0xff; 40])])?;
        }
        Ok(())
    }),
    says("length 0", Ends::No, |m| {
        let all = llc_message(llc::DELETE_LINK, llc::ALL, &[(5, &REASON.to_be_bytes())]);
        changed(m, all, |bytes| bytes[1] = 0)
    }),
    says("length 43", Ends::No, |m| {
        let all = llc_message(llc::DELETE_LINK, llc::ALL, &[(5, &REASON.to_be_bytes())]);
        changed(m, all, |bytes| bytes[1] = 43)
    }),
    says("length 65535", Ends::No, |m| {
        let all = llc_message(llc::DELETE_LINK, llc::ALL, &[(5, &REASON.to_be_bytes())]);
        changed(m, all, |bytes| bytes[1..3].fill(0xff))
    }),
    says("every truncation of a DELETE LINK", Ends::No, |m| {
        let all = llc_message(llc::DELETE_LINK, llc::ALL, &[(5, &REASON.to_be_bytes())]);
        for length in 1..LEN {
            m.peer.qp.send(&all[..length])?;
        }
        Ok(())
    }),
    says("TEST LINK of 8192 bytes", Ends::No, |m| {
        let mut all = llc_message(llc::TEST_LINK, 0, &[]).to_vec();
        all.resize(8192, 0xff);
        m.peer.qp.send(&all)?;
        m.peer.llc(llc::TEST_LINK, llc::ANSWER)?;
        Ok(())
    }),
    says("ADD LINK CONTINUATION of version 2", VIOLATION, |m| {
        llc(m, 0x23, 0, &[])
    }),
    says("CONFIRM RKEY CONTINUATION of version 2", VIOLATION, |m| {
        llc(m, 0x28, 0, &[])
    }),
    says("a violation after a violation", VIOLATION, |m| {
        for kind in 0xc0..=0xcf {
            llc(m, kind, 0, &[])?;
        }
        Ok(())
    }),
    says("a violation, and data behind it", VIOLATION, |m| {
        llc(m, 0x2f, 0, &[])?;
        m.peer.send(b"of a group that has ended")
    }),
];

pub(super) const TO_SERVER: &[Statement] = &[
    says("ADD LINK asked by a client", Ends::No, |m| {
        let gid = m.peer.qp.gid();
        add_link(m, 0, gid, 0x1234, 2, 5)
    }),
    says("ADD LINK answered that was never asked", Ends::No, |m| {
        let gid = m.peer.qp.gid();
        for link in [0, 1, 2, 255] {
            add_link(m, llc::ANSWER, gid, 0x1234, link, 5)?;
        }
        Ok(())
    }),
    says("ADD LINK with nothing in it", Ends::No, |m| {
        add_link(m, 0, [0; 16], 0, 0, 0)
    }),
    says("REQUEST ADD LINK, where there may be one", Ends::No, |m| {
        for count in [0, 1, 2, 255] {
            llc(
                m,
                llc::REQUEST_ADD_LINK,
                0,
                &[(24, &[count]), (28, &[0xff; 16])],
            )?;
        }
        Ok(())
    }),
    says("REQUEST ADD LINK answered", Ends::No, |m| {
        llc(m, llc::REQUEST_ADD_LINK, llc::ANSWER, &[])
    }),
    says("DELETE LINK of all", Ends::Group(REASON), |m| {
        delete_link(m, llc::ALL, 0, REASON)
    }),
    says(
        "DELETE LINK of all, for no reason there is",
        Ends::Group(0xffff_ffff),
        |m| delete_link(m, llc::ALL, 9, 0xffff_ffff),
    ),
];

/// No link can be added where one is all that was agreed to.
fn is_rejected(meeting: &mut Meeting<'_>) -> Outcome {
    let answer = meeting.peer.llc(llc::ADD_LINK, llc::ANSWER)?;
    check!(
        answer[3] & 0x40 != 0,
        "the offer is not rejected: {answer:02x?}"
    );
    Ok(())
}

pub(super) const TO_CLIENT: &[Statement] = &[
    says("ADD LINK where one is the most", Ends::No, |m| {
        let gid = m.peer.qp.gid();
        add_link(m, 0, gid, 0x1234, 2, 5)?;
        is_rejected(m)
    }),
    says("ADD LINK of the link there is", Ends::No, |m| {
        let gid = m.peer.qp.gid();
        add_link(m, 0, gid, 0x1234, 1, 5)?;
        is_rejected(m)
    }),
    says("ADD LINK of link 0", Ends::No, |m| {
        let gid = m.peer.qp.gid();
        add_link(m, 0, gid, 0x1234, 0, 5)?;
        is_rejected(m)
    }),
    says("ADD LINK of queue pair 0", Ends::No, |m| {
        let gid = m.peer.qp.gid();
        add_link(m, 0, gid, 0, 2, 5)?;
        is_rejected(m)
    }),
    says("ADD LINK of a port nobody has", Ends::No, |m| {
        add_link(m, 0, [0xff; 16], 0x1234, 2, 5)?;
        is_rejected(m)
    }),
    says("ADD LINK with an MTU there is not", Ends::No, |m| {
        let gid = m.peer.qp.gid();
        add_link(m, 0, gid, 0x1234, 2, 0)?;
        is_rejected(m)?;
        add_link(m, 0, gid, 0x1234, 2, 15)?;
        is_rejected(m)
    }),
    says("ADD LINK answered by a server", Ends::No, |m| {
        let gid = m.peer.qp.gid();
        add_link(m, llc::ANSWER, gid, 0x1234, 2, 5)?;
        add_link(m, llc::ANSWER | 0x40, gid, 0x1234, 2, 5)
    }),
    says("ADD LINK of more keys than it has", Ends::No, |m| {
        let gid = m.peer.qp.gid();
        let mut all = add_link_message(0, gid, 0x1234, 2, 5).to_vec();
        all.resize(72, 0xff);
        m.peer.qp.send(&all)?;
        is_rejected(m)
    }),
    says("ADD LINK of 8192 bytes", Ends::No, |m| {
        let gid = m.peer.qp.gid();
        let mut all = add_link_message(0, gid, 0x1234, 2, 5).to_vec();
        all.resize(8192, 0xff);
        m.peer.qp.send(&all)?;
        is_rejected(m)
    }),
    says("ADD LINK twenty times", Ends::No, |m| {
        let gid = m.peer.qp.gid();
        for link in 2..22 {
            add_link(m, 0, gid, 0x1234, link, 5)?;
        }
        is_rejected(m)
    }),
    says("REQUEST ADD LINK to a client", Ends::No, |m| {
        llc(m, llc::REQUEST_ADD_LINK, 0, &[(24, &[1])])
    }),
    // A client says nothing more (RFC 7609, appendix A.3.4).
    says("DELETE LINK of all", Ends::Link, |m| {
        delete_link(m, llc::ALL, 0, REASON)
    }),
    says("DELETE LINK of the only link", Ends::Link, |m| {
        let link = m.peer.link;
        delete_link(m, 0, link, REASON)
    }),
];

/// Each type that is no message: a violation, all for its own (RFC 7609, appendix A.3).
pub(super) fn types(ctx: &Ctx) -> Outcome {
    let stage = Stage::new(ctx)?;
    let mut random = ctx.random(96);
    let is_none = |kind: u8| {
        !matches!(kind, 0x01..=0x04 | 0x06..=0x09 | 0x80..=0xbf | 0xfe)
            && !matches!(kind, 0x21 | 0x22 | 0x24..=0x27 | 0x29)
    };
    let step = if ctx.divisor > 1 { 16 } else { 1 };
    for kind in (0..=255u8).filter(|kind| is_none(*kind)) {
        if random.gen_range(0..step) != 0 {
            continue;
        }
        let role = if kind % 2 == 0 {
            Role::Client
        } else {
            Role::Server
        };
        let mut meeting = stage.meet(role, Offer::PLAIN)?;
        llc(&mut meeting, kind, 0, &[(4, &[kind; 40])])?;
        meeting
            .judge(VIOLATION)
            .during(&format!("type {kind:#04x} as a {role:?}"))?;
    }
    stage.go_on()
}

const TWO: Offer = Offer {
    immediates: false,
    links: 2,
};

/// Where two links may be: offers that lead nowhere, and answers to none.
pub(super) fn second_link(ctx: &Ctx) -> Outcome {
    const TO_CLIENT: [Statement; 3] = [
        says("an offer that leads nowhere", Ends::No, |m| {
            let gid = m.peer.qp.gid();
            add_link(m, 0, gid, 0x00ff_0000, 2, 5)?;
            m.echo(b"while a link is being added")?;
            let answer = m.peer.llc(llc::ADD_LINK, llc::ANSWER)?;
            check_eq!(answer[31], 2, "the link in the answer");
            Ok(())
        }),
        says("the offer twice", Ends::No, |m| {
            let gid = m.peer.qp.gid();
            add_link(m, 0, gid, 0x00ff_0000, 2, 5)?;
            add_link(m, 0, gid, 0x00ff_0000, 2, 5)?;
            add_link(m, 0, gid, 0x00ff_0001, 3, 5)?;
            m.echo(b"while a link is being added")
        }),
        says("an offer, and the link deleted at once", Ends::No, |m| {
            let gid = m.peer.qp.gid();
            add_link(m, 0, gid, 0x00ff_0000, 2, 5)?;
            delete_link(m, 0, 2, REASON)?;
            confirm_rkey(m, 0, 2, 0x1234_5678, 0x1000)
        }),
    ];
    const TO_SERVER: [Statement; 3] = [
        says("a request, and a rejection", Ends::No, |m| {
            llc(m, llc::REQUEST_ADD_LINK, 0, &[(24, &[1])])?;
            let gid = m.peer.qp.gid();
            for link in 1..4 {
                add_link(m, llc::ANSWER | 0x40, gid, 0x1234, link, 5)?;
            }
            Ok(())
        }),
        says(
            "a request, and acceptances that lead nowhere",
            Ends::No,
            |m| {
                llc(m, llc::REQUEST_ADD_LINK, 0, &[(24, &[1])])?;
                let gid = m.peer.qp.gid();
                for link in [2, 2, 3, 1, 255] {
                    add_link(m, llc::ANSWER, gid, 0x00ff_0000, link, 5)?;
                }
                m.echo(b"while a link is being added")
            },
        ),
        says("thirty requests", Ends::No, |m| {
            for _ in 0..30 {
                llc(m, llc::REQUEST_ADD_LINK, 0, &[(24, &[1])])?;
            }
            m.echo(b"while links are asked for")
        }),
    ];
    let stage = Stage::new(ctx)?;
    let mut failures = Failures::default();
    for (role, statements) in [(Role::Server, TO_CLIENT), (Role::Client, TO_SERVER)] {
        for statement in &statements {
            let what = format!("'{}' as a {role:?}", statement.what);
            failures.note(one(&stage, role, TWO, statement), &what);
        }
    }
    failures.outcome()
}

/// The port with the address 10.9.0.`last`.
const fn port(last: u8) -> [u8; 16] {
    let [a, b, c] = [10, 9, 0];
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, last]
}

/// What an ADD LINK offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    gid: [u8; 16],
    qpn: u32,
    number: u8,
    mtu: u8,
}

/// To a client with one port from another port than that of the first link: 10.9.0.50, which host B finds at host A's MAC.
const RIGHT: Link = Link {
    gid: port(50),
    qpn: 0x00ff_0000,
    number: 2,
    mtu: 5,
};

const REJECTED: u8 = 0x40;

impl Link {
    /// Offers it; the answer.
    fn offer(&self, m: &mut Meeting<'_>) -> Outcome<Vec<u8>> {
        add_link(m, 0, self.gid, self.qpn, self.number, self.mtu)?;
        m.peer.llc(llc::ADD_LINK, llc::ANSWER)
    }
}

/// The offer is rejected, and with the one field right that it has wrong it is taken.
fn rejected(m: &mut Meeting<'_>, wrong: Link) -> Outcome {
    let answer = wrong.offer(m)?;
    check!(
        answer[3] & REJECTED != 0,
        "it is not rejected: {answer:02x?}"
    );
    // RFC 7609, appendix A.3.2. The reason is not in it: SMC-Rv2 has the length in its place.
    let [_, qpn @ ..] = wrong.qpn.to_be_bytes();
    check_eq!(
        (&answer[12..28], &answer[28..31], answer[31]),
        (wrong.gid.as_slice(), qpn.as_slice(), wrong.number),
        "port, queue pair and link in the rejection"
    );
    m.echo(b"after a rejection")?;
    taken(m)
}

/// Nothing shows at once that the offer leads nowhere: it is taken, and the link given up when nobody confirms it. The next
/// offer is as good as ever.
fn given_up(m: &mut Meeting<'_>, nowhere: Link) -> Outcome {
    let answer = nowhere.offer(m)?;
    check!(answer[3] & REJECTED == 0, "it is rejected: {answer:02x?}");
    m.echo(b"while nobody confirms")?;
    let deleted = m.peer.llc(llc::DELETE_LINK, 0)?;
    let reason = u32::from_be_bytes([deleted[5], deleted[6], deleted[7], deleted[8]]);
    check_eq!(
        (deleted[3] & llc::ALL, deleted[4], reason),
        (0, nowhere.number, LOST_PATH),
        "flag, link and reason of the DELETE LINK"
    );
    taken(m)
}

/// The right offer is taken.
fn taken(m: &mut Meeting<'_>) -> Outcome {
    let end = Instant::now() + sys::PATIENCE;
    let taken = loop {
        let answer = RIGHT.offer(m)?;
        if answer[3] & REJECTED == 0 {
            break answer;
        }
        // What went before is said to be over before it is.
        check!(
            Instant::now() < end,
            "the right offer is rejected: {answer:02x?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    };
    let own = port(2);
    check_eq!(
        (&taken[12..28], taken[31]),
        (own.as_slice(), RIGHT.number),
        "port and link in the answer to the right offer"
    );
    check!(
        taken[28..31] != [0; 3] && (1..=5).contains(&(taken[32] & 15)),
        "no queue pair or MTU in the answer to the right offer: {taken:02x?}"
    );
    m.echo(b"while a link is being added")
}

/// Where a client may have two links: each field of an offer wrong, all others right.
pub(super) fn offers(ctx: &Ctx) -> Outcome {
    const WRONG: [Statement; 9] = [
        says("a queue pair nobody has", Ends::No, |m| given_up(m, RIGHT)),
        says("link 0", Ends::No, |m| {
            rejected(m, Link { number: 0, ..RIGHT })
        }),
        says("the link there is", Ends::No, |m| {
            rejected(m, Link { number: 1, ..RIGHT })
        }),
        says("queue pair 0", Ends::No, |m| {
            rejected(m, Link { qpn: 0, ..RIGHT })
        }),
        says("MTU 0", Ends::No, |m| rejected(m, Link { mtu: 0, ..RIGHT })),
        says("MTU 6", Ends::No, |m| rejected(m, Link { mtu: 6, ..RIGHT })),
        says("MTU 15", Ends::No, |m| {
            rejected(m, Link { mtu: 15, ..RIGHT })
        }),
        says("a port nobody has", Ends::No, |m| {
            given_up(
                m,
                Link {
                    gid: [0xff; 16],
                    ..RIGHT
                },
            )
        }),
        // RFC 7609, section 3.5.1.6.1: two links between the same ports are of no use.
        says("the port of the first link", Ends::No, |m| {
            rejected(
                m,
                Link {
                    gid: port(1),
                    ..RIGHT
                },
            )
        }),
    ];
    let stage = Stage::new(ctx)?;
    let mut failures = Failures::default();
    for statement in &WRONG {
        failures.note(one(&stage, Role::Server, TWO, statement), statement.what);
    }
    failures.outcome()
}

/// Fields of CONFIRM LINK that change nothing at first contact, and whether more links than the first are left.
const CONFIRMED: [(&str, usize, &[u8], bool); 9] = [
    ("as it should be", 34, &[2], true),
    ("MAC 0", 4, &[0; 6], true),
    ("MAC of all", 4, &[0xff; 6], true),
    ("user 0", 30, &[0; 4], true),
    ("user 0xffffffff", 30, &[0xff; 4], true),
    ("no links", 34, &[0], false),
    ("1 link", 34, &[1], false),
    ("255 links", 34, &[255], true),
    ("no connections", 35, &[0], true),
];

/// What CONFIRM LINK says about its sender, beside its end of the link, is no reason to refuse it; but who says that it can
/// have one link is offered no other.
pub(super) fn confirmed(ctx: &Ctx) -> Outcome {
    let stage = Stage::new(ctx)?;
    let mut failures = Failures::default();
    for role in [Role::Client, Role::Server] {
        for (what, at, bytes, more) in CONFIRMED {
            let outcome =
                confirmed_with(&stage, role, (at, bytes), more).and_then(|()| stage.go_on());
            failures.note(outcome, &format!("'{what}' as a {role:?}"));
        }
    }
    failures.outcome()
}

fn confirmed_with(stage: &Stage, role: Role, (at, bytes): (usize, &[u8]), more: bool) -> Outcome {
    let change = |mut message: [u8; LEN]| {
        message[at..at + bytes.len()].copy_from_slice(bytes);
        message
    };
    let (peer, sock) = match role {
        Role::Client => {
            let mut peer = Peer::dial(TWO, stage.address)?;
            peer.confirm()?;
            peer.link = peer.llc(llc::CONFIRM_LINK, 0)?[29];
            let answer = change(peer.confirm_link(llc::ANSWER));
            peer.qp.send(&answer)?;
            let sock = stage.accepted(&peer)?;
            (peer, sock)
        }
        Role::Server => {
            let dialling = Dialling::new(stage.kind)?;
            let mut peer = Peer::accept(TWO, dialling.listening)?;
            peer.take_confirm()?;
            let request = change(peer.confirm_link(0));
            peer.qp.send(&request)?;
            peer.llc(llc::CONFIRM_LINK, llc::ANSWER)?;
            let sock = join(dialling.thread)?.during("connect() to the peer")?;
            (peer, sock)
        }
    };
    let mut m = Meeting { stage, peer, sock };
    m.echo(b"the link is confirmed")?;
    if role == Role::Server {
        return Ok(());
    }
    llc(&mut m, llc::REQUEST_ADD_LINK, 0, &[(24, &[1])])?;
    if more {
        let offer = m.peer.llc(llc::ADD_LINK, 0)?;
        check!(
            offer[31] > 1 && offer[28..31] != [0; 3],
            "what is offered is no other link: {offer:02x?}"
        );
    } else {
        // Where an offer is due it is here much sooner.
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            m.peer.hear(Duration::from_millis(100))?;
        }
        check!(
            !m.peer.requests.iter().any(|said| said[0] == llc::ADD_LINK),
            "another link is offered"
        );
    }
    m.echo(b"and goes on")
}
