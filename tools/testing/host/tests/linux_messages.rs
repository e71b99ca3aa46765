// SPDX-License-Identifier: GPL-2.0

//! LLC and CDC messages that Linux 6.12 has sent to itself, captured by `make test-interop` and taken
//! out of the capture by `tools/testing/decode`: read, and written again byte by byte.

mod common;

use common::vector;
use smc_proto::{
    rx_tx::{
        cdc::*,
        cursor::Cursor, //
    },
    smc_core::{
        llc::wire::*,
        types::*, //
    },
};
use std::fs;

const DIR: &str = "linux/";

/// The hosts of the capture.
const A: u8 = 1;
const B: u8 = 2;

fn mac(host: u8) -> Mac {
    Mac([0x52, 0x54, 0, 9, 0, host])
}

fn gid(host: u8) -> Gid {
    let mut gid = [0; 16];
    gid[10..].copy_from_slice(&[0xff, 0xff, 10, 9, 0, host]);
    Gid(gid)
}

fn link(number: u8) -> LinkNumber {
    LinkNumber(number)
}

fn llc(response: bool, body: LlcBody) -> LlcMessage {
    LlcMessage {
        version: LlcVersion::V2,
        response,
        body,
    }
}

fn confirm_link(response: bool, host: u8) -> LlcMessage {
    let body = ConfirmLink {
        mac: mac(host),
        gid: gid(host),
        qpn: Qpn24::new(17).expect("24 bits"),
        link: link(1),
        user_id: LinkUserId(0x101),
        max_links: 2,
        max_conns: 255,
        no_eyecatcher: true,
    };
    llc(response, LlcBody::ConfirmLink(body))
}

fn add_link(rejected: Option<AddLinkReject>, response: bool) -> LlcMessage {
    let body = AddLink {
        mac: mac(B),
        gid: gid(B),
        qpn: Qpn24::new(18).expect("24 bits"),
        link: link(2),
        mtu: Some(Mtu::Mtu2048),
        psn: Psn24::new(0xed_1f8a).expect("24 bits"),
        rejected,
    };
    llc(response, LlcBody::AddLink(body))
}

fn confirm_rkey(response: bool) -> LlcMessage {
    let none = (LinkNumber(0), RToken::default());
    let body = ConfirmRkey {
        other_links: 0,
        rtoken: RToken {
            rkey: RKey(0x33d),
            vaddr: 0xff46_c14d_3cc6_0000,
        },
        others: [none; 2],
        negative: false,
        retry: false,
    };
    llc(response, LlcBody::ConfirmRkey(body))
}

fn test_link(response: bool) -> LlcMessage {
    let user_data = [0; 16];
    llc(response, LlcBody::TestLink { user_data })
}

#[test]
fn llc_messages() {
    let end = DeleteLink {
        link: link(0),
        all: true,
        orderly: false,
        reason: DeleteReason::OPERATOR,
    };
    let gone = DeleteRkey::one(RKey(0x3d7));
    let answer = DeleteRkey {
        rkeys: [RKey(0); 9],
        ..gone
    };
    let all = [
        ("confirm-link-request", confirm_link(false, B)),
        ("confirm-link-response", confirm_link(true, A)),
        ("add-link-request", add_link(None, false)),
        // Linux says no by sending the offer back.
        (
            "add-link-response",
            add_link(Some(AddLinkReject::NONE), true),
        ),
        ("confirm-rkey-request", confirm_rkey(false)),
        ("confirm-rkey-response", confirm_rkey(true)),
        ("delete-link-request", llc(false, LlcBody::DeleteLink(end))),
        ("delete-rkey-request", llc(false, LlcBody::DeleteRkey(gone))),
        (
            "delete-rkey-response",
            llc(true, LlcBody::DeleteRkey(answer)),
        ),
        ("test-link-request", test_link(false)),
        ("test-link-response", test_link(true)),
    ];
    for (name, expected) in &all {
        let bytes = vector(&format!("{DIR}llc-{name}-v2"));
        assert_eq!(LlcMessage::parse(&bytes), Ok(*expected), "{name}");
        // An offer has keys behind its 44 bytes, which are not of this message type.
        if bytes.len() == 44 {
            assert_eq!(expected.emit()[..], bytes[..], "{name}");
        }
    }
    assert_eq!(all.len(), files("llc-"), "each file has its line");
}

/// What follows the 44 bytes of an offer, and that we say it in the same way.
#[test]
fn keys_of_an_offered_link() {
    let bytes = vector(&format!("{DIR}llc-add-link-request-v2"));
    let new = RToken {
        rkey: RKey(0x5eb),
        vaddr: 0xff46_c14d_3cc6_0000,
    };
    let keys = [(RKey(0x33d), new)];
    let (head, tail) = bytes.split_first_chunk::<44>().expect("44 bytes");
    assert!(is_long_add_link(head));
    assert!(add_link_keys(tail).eq(keys));
    let mut out = [0; ADD_LINK_MAX];
    let said = extend_add_link(
        &mut out,
        &add_link(None, false).emit(),
        gid(B),
        keys.into_iter(),
    );
    assert_eq!(said, Some(&bytes[..]));
}

fn files(prefix: &str) -> usize {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/linux");
    fs::read_dir(dir)
        .expect("directory of vectors")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .count()
}

#[test]
fn cdc_messages() {
    let cursor = |wrap, count| Cursor { wrap, count };
    let message = |seqno, token, prod, cons, prod_flags, conn_state| CdcMessage {
        seqno: CdcSeq(seqno),
        token: AlertToken(token),
        prod,
        cons,
        prod_flags,
        conn_state,
    };
    let zero = cursor(0, 0);
    let quiet = ProducerFlags(0);
    let open = ConnState(0);
    let done = ConnState::DONE_WRITING;
    let all = [
        ("00-00", message(1, 1, cursor(0, 1000), zero, quiet, open)),
        (
            "00-20",
            message(1, 0x18, zero, zero, quiet, ConnState::ABORT),
        ),
        (
            "00-40",
            message(
                2,
                1,
                cursor(0, 1000),
                cursor(0, 1000),
                quiet,
                ConnState::CLOSED,
            ),
        ),
        (
            "00-80",
            message(0x94, 5, cursor(0x20, 0), cursor(0x20, 0), quiet, done),
        ),
        (
            "00-c0",
            message(
                0x94,
                5,
                cursor(0x20, 0),
                cursor(0x20, 0),
                quiet,
                done.union(ConnState::CLOSED),
            ),
        ),
        (
            "60-00",
            message(
                2,
                0x1f,
                cursor(0, 5),
                zero,
                ProducerFlags(ProducerFlags::URGENT_PENDING.0 | ProducerFlags::URGENT_PRESENT.0),
                open,
            ),
        ),
        (
            "80-00",
            message(
                13,
                4,
                cursor(2, 0xb02e),
                cursor(1, 0xb02e),
                ProducerFlags::WRITE_BLOCKED,
                open,
            ),
        ),
    ];
    for (name, expected) in &all {
        let bytes = vector(&format!("{DIR}cdc-{name}"));
        assert_eq!(CdcMessage::parse(&bytes), Ok(*expected), "{name}");
        assert_eq!(expected.emit()[..], bytes[..], "{name}");
    }
    assert_eq!(all.len(), files("cdc-"), "each file has its line");
}
