// SPDX-License-Identifier: GPL-2.0

//! The golden vectors of CLC messages, read and written.

mod common;

use common::*;
use smc_proto::{
    clc::{
        decline::DeclineReason,
        wire::*, //
    },
    smc_core::{
        error::{
            Fault,
            MessageKind, //
        },
        types::{
            Eid,
            Gid,
            PeerId, //
        },
    },
};

fn emitted(
    emit: impl Fn(&mut [u8]) -> Result<usize, smc_proto::smc_core::error::EmitError>,
) -> Vec<u8> {
    let mut out = vec![0xaa; MAX_MESSAGE_LEN];
    let len = emit(&mut out).expect("room for any message");
    assert!(emit(&mut vec![0; len - 1]).is_err());
    assert_eq!(emit(&mut vec![0; len]), Ok(len));
    out.truncate(len);
    out
}

fn check_proposal(name: &str, expected: Proposal<'_>) {
    let bytes = vector(name);
    assert_eq!(Proposal::parse(&bytes), Ok(expected), "{name}");
    assert_eq!(emitted(|out| expected.emit(out)), bytes, "{name}");
}

fn check_accept(name: &str, expected: Accept) {
    let bytes = vector(name);
    assert_eq!(Accept::parse(&bytes), Ok(expected), "{name}");
    assert_eq!(emitted(|out| expected.emit(out)), bytes, "{name}");
}

fn check_confirm(name: &str, expected: Confirm<'_>) {
    let bytes = vector(name);
    assert_eq!(Confirm::parse(&bytes), Ok(expected), "{name}");
    assert_eq!(emitted(|out| expected.emit(out)), bytes, "{name}");
}

fn v1_proposal() -> Proposal<'static> {
    Proposal {
        version: Version::V1,
        peer_id: client::PEER_ID,
        mac: client::MAC,
        v1: Some(client::v1_offer()),
        v2: None,
        ism: IsmOffer::default(),
        v2_missing: false,
    }
}

fn eids<const N: usize>(names: [&str; N]) -> [Eid; N] {
    names.map(|name| ueid(name).to_eid())
}

#[test]
fn proposals_of_version_1() {
    check_proposal("proposal-v1-ipv4", v1_proposal());

    let mut prefixes = [Ipv6Prefix::default(); 2];
    prefixes[0].addr[..6].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8, 0, 1]);
    prefixes[0].prefix_len = 64;
    prefixes[1].addr[0] = 0xfd;
    prefixes[1].prefix_len = 8;
    let mut proposal = v1_proposal();
    proposal.v1 = Some(V1Offer {
        gid: client::GID_V1,
        subnets: Subnets {
            ipv4: Ipv4Subnet::default(),
            ipv6: &prefixes,
        },
    });
    check_proposal("proposal-v1-ipv6", proposal);

    // We never send an area for future growth in version 1, but read over it.
    let bytes = vector("proposal-v1-growth");
    assert_eq!(Proposal::parse(&bytes), Ok(v1_proposal()));
}

#[test]
fn proposals_of_version_2() {
    let offered = eids(["SMC-RS.DEFAULT"]);
    let v2 = V2Offer {
        release: Release::R1,
        gid: client::GID_V2,
        max_conns: 255,
        max_links: 2,
        features: 0,
        vendor: VendorOptions::NONE,
        eids: &offered,
    };
    let only_v2 = Proposal {
        version: Version::V2,
        v1: None,
        v2: Some(v2),
        ..v1_proposal()
    };
    check_proposal("proposal-v2", only_v2);

    let vendor = VendorOptions::IMMEDIATE;
    let with_vendor = Proposal {
        v2: Some(V2Offer { vendor, ..v2 }),
        ..only_v2
    };
    check_proposal("proposal-v2-vendor", with_vendor);
    // Options of another vendor, or none that are valid, say nothing to us.
    let bytes = vector("proposal-v2-vendor");
    for (at, bit) in [(52, 1), (53, 1), (54, 0x80), (56, 0x80)] {
        let mut other = bytes.clone();
        other[at] ^= bit;
        assert_eq!(Proposal::parse(&other), Ok(only_v2));
    }

    let two = eids(["A", "B.C-D"]);
    let both = Proposal {
        version: Version::V2,
        v2: Some(V2Offer {
            max_conns: 128,
            max_links: 1,
            eids: &two,
            ..v2
        }),
        ..v1_proposal()
    };
    check_proposal("proposal-v2-v1", both);

    // SMC-D is never sent.
    let bytes = vector("proposal-both");
    let all = Proposal {
        version: Version::V2,
        v2: Some(V2Offer {
            eids: &two[..1],
            ..v2
        }),
        ism: IsmOffer { v1: true, v2: true },
        ..v1_proposal()
    };
    assert_eq!(Proposal::parse(&bytes), Ok(all));
}

fn first_contact(hostname: &str) -> FirstContact {
    FirstContact {
        direct: true,
        os: OsType::LINUX,
        release: Release::R1,
        hostname: padded(hostname),
        max_conns: 255,
        max_links: 2,
        features: 0,
        vendor: VendorOptions::NONE,
    }
}

#[test]
fn accepts() {
    let [eid] = eids(["SMC-RS.DEFAULT"]);
    check_accept(
        "accept-v1",
        Accept {
            endpoint: server::endpoint(server::GID_V1),
            body: AcceptBody::V1 {
                first_contact: true,
            },
        },
    );
    let endpoint = server::endpoint(server::GID_V2);
    for (name, first_contact) in [
        ("accept-v2", None),
        ("accept-v2-first", Some(first_contact("server.example"))),
    ] {
        let body = AcceptBody::V2 { eid, first_contact };
        check_accept(name, Accept { endpoint, body });
    }
    assert_eq!(vector("accept-v2-first").len(), 160);
    let first_contact = Some(FirstContact {
        vendor: VendorOptions::IMMEDIATE,
        ..first_contact("server.example")
    });
    let body = AcceptBody::V2 { eid, first_contact };
    check_accept("accept-v2-first-vendor", Accept { endpoint, body });
}

#[test]
fn accept_of_release_0_without_limits() {
    let mut bytes = vector("accept-v2-first");
    bytes[105] = 0x20;
    // Without the 16 bytes of release 1.
    bytes.drain(140..156);
    bytes[6] = 144;
    let accept = Accept::parse(&bytes).unwrap();
    let AcceptBody::V2 {
        first_contact: Some(first_contact),
        ..
    } = accept.body
    else {
        panic!("{accept:?}");
    };
    assert_eq!(first_contact.release, Release::R0);
    assert_eq!((first_contact.max_conns, first_contact.max_links), (0, 0));
    bytes[105] = 0x21;
    assert!(Accept::parse(&bytes).is_err(), "release 1 needs them");
}

#[test]
fn confirms() {
    let [eid] = eids(["SMC-RS.DEFAULT"]);
    let endpoint = client::endpoint(client::GID_V1);
    for (name, first_contact) in [("confirm-v1", false), ("confirm-v1-linux", true)] {
        let body = ConfirmBody::V1 { first_contact };
        check_confirm(name, Confirm { endpoint, body });
    }
    let endpoint = client::endpoint(client::GID_V2);
    let gids = [
        client::GID_V2,
        smc_proto::smc_core::types::Gid::from_ipv4([10, 0, 1, 2]),
    ];
    let common = first_contact("client.example");
    let indirect = FirstContact {
        direct: false,
        max_conns: 16,
        max_links: 1,
        ..common
    };
    for (name, len, first_contact) in [
        ("confirm-v2", 108, None),
        ("confirm-v2-first-1", 180, Some((common, &gids[..1]))),
        ("confirm-v2-first-2", 196, Some((indirect, &gids[..]))),
    ] {
        let first_contact =
            first_contact.map(|(common, gids)| ConfirmFirstContact { common, gids });
        let body = ConfirmBody::V2 { eid, first_contact };
        check_confirm(name, Confirm { endpoint, body });
        assert_eq!(vector(name).len(), len);
    }
}

/// What Linux 6.12 sends (`make test-interop`).
#[test]
fn messages_of_linux() {
    // Without an offer of version 1 it tells neither its identity, nor where the subnets would be.
    let bytes = vector("linux-proposal-v2");
    let proposal = Proposal::parse(&bytes).unwrap();
    let offer = proposal.v2.unwrap();
    assert_eq!(proposal.peer_id, PeerId::NOT_TOLD);
    assert_eq!(proposal.v1, None);
    assert_eq!(offer.gid, Gid::from_ipv4([10, 9, 0, 1]));
    assert_eq!(offer.eids, eids(["SMC-RS.DEFAULT"]));
    assert_eq!(
        (offer.release, offer.max_conns, offer.max_links),
        (Release::R1, 255, 2)
    );

    let bytes = vector("linux-accept-v2-first");
    let accept = Accept::parse(&bytes).unwrap();
    assert_eq!(accept.endpoint.gid, Gid::from_ipv4([10, 9, 0, 2]));
    assert_eq!(emitted(|out| accept.emit(out)), bytes);

    let bytes = vector("linux-confirm-v2-first");
    let confirm = Confirm::parse(&bytes).unwrap();
    assert_eq!(confirm.gids(), [Gid::from_ipv4([10, 9, 0, 1])]);
    assert_eq!(emitted(|out| confirm.emit(out)), bytes);
}

#[test]
fn declines() {
    for (name, decline) in [
        (
            "decline-v1",
            Decline::new(Version::V1, client::PEER_ID, DeclineReason::SYNCERR),
        ),
        (
            "decline-v2",
            Decline::new(Version::V2, client::PEER_ID, DeclineReason::NOUEID),
        ),
    ] {
        let bytes = vector(name);
        assert_eq!(Decline::parse(&bytes), Ok(decline), "{name}");
        assert_eq!(emitted(|out| decline.emit(out)), bytes, "{name}");
    }
}

/// Parses as whatever the header says.
fn parse_any(bytes: &[u8]) -> Result<(), smc_proto::smc_core::error::WireError> {
    match Header::peek(bytes.first_chunk().unwrap_or(&[0; 8]))?.kind {
        MessageKind::Proposal => Proposal::parse(bytes).map(drop),
        MessageKind::Accept => Accept::parse(bytes).map(drop),
        MessageKind::Confirm => Confirm::parse(bytes).map(drop),
        _ => Decline::parse(bytes).map(drop),
    }
}

#[test]
fn no_truncated_or_extended_message_parses() {
    for (name, bytes) in vectors("") {
        assert_eq!(parse_any(&bytes), Ok(()), "{name}");
        for len in 0..bytes.len() {
            assert!(parse_any(&bytes[..len]).is_err(), "{name} cut to {len}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(parse_any(&longer).is_err(), "{name} with a byte more");
        // The same with a length field that agrees and a trailer.
        for len in (12..bytes.len()).chain(bytes.len() + 1..bytes.len() + 60) {
            let mut other = bytes.clone();
            other.resize(len, 0);
            other[len - 4..].copy_from_slice(&EYE_CATCHER_SMCR);
            other[5..7].copy_from_slice(&(len as u16).to_be_bytes());
            // The short form of a Decline is harmless in version 2.
            if !(name == "decline-v2" && len == 28) {
                assert!(parse_any(&other).is_err(), "{name} made {len} bytes long");
            }
        }
    }
}

#[test]
fn eye_catchers_and_headers() {
    for (name, mut bytes) in vectors("") {
        let len = bytes.len();
        let fault = |bytes: &[u8]| parse_any(bytes).map_err(|error| error.fault);

        for eye in [EYE_CATCHER_SMCD, EYE_CATCHER_SMCR] {
            bytes[..4].copy_from_slice(&eye);
            assert_eq!(parse_any(&bytes), Ok(()), "{name}");
        }
        bytes[0] ^= 1;
        assert_eq!(fault(&bytes), Err(Fault::EyeCatcher));
        bytes[0] ^= 1;
        bytes[len - 1] ^= 1;
        assert_eq!(fault(&bytes), Err(Fault::Trailer));
        bytes[len - 1] ^= 1;
        bytes[7] &= 0x0f;
        assert_eq!(fault(&bytes), Err(Fault::Version));
        bytes[7] |= 0x10;
        for unknown in [0, 5, 0xfe] {
            bytes[4] = unknown;
            assert_eq!(fault(&bytes), Err(Fault::Type));
        }
    }
    assert!(starts_like_clc(&[]) && starts_like_clc(&[0xe2, 0xd4]));
    assert!(starts_like_clc(&EYE_CATCHER_SMCD) && !starts_like_clc(b"GET /"));
}

#[test]
fn lengths_are_bounded_by_type() {
    let peek = |kind: u8, length: u16| {
        let [hi, lo] = length.to_be_bytes();
        let [a, b, c, d] = EYE_CATCHER_SMCR;
        Header::peek(&[a, b, c, d, kind, hi, lo, 0x10]).map(|header| usize::from(header.length))
    };
    for (kind, min, max) in [(1, 52, 652), (2, 48, 160), (3, 48, 292), (4, 28, 44)] {
        for length in 0..=u16::MAX {
            let legal = (min..=max).contains(&length);
            assert_eq!(peek(kind, length).is_ok(), legal, "{kind} {length}");
            assert!(peek(kind, length).unwrap_or(0) <= MAX_MESSAGE_LEN);
        }
    }
}

/// One byte of a vector changed, and what that must lead to.
#[test]
fn fields_out_of_range() {
    use Fault::*;
    for (name, offset, value, fault) in [
        ("proposal-v1-ipv4", 7, 0x12, Field("flavours")),
        ("proposal-v1-ipv4", 39, 41, Offset),
        ("proposal-v1-ipv4", 39, 1, Length),
        ("proposal-v1-ipv4", 47, 1, Length),
        ("proposal-v1-ipv4", 47, 9, Count),
        ("proposal-v1-ipv6", 47, 1, Length),
        ("proposal-v2", 51, 0x1b, Offset),
        ("proposal-v2", 51, 0xff, Offset),
        // A v2 area that is not pointed to is too many bytes.
        ("proposal-v2", 51, 0, Length),
        ("proposal-v2", 80, 0, Length),
        ("proposal-v2", 80, 2, Length),
        ("proposal-v2", 80, 9, Count),
        ("proposal-v2", 81, 9, Count),
        ("proposal-both", 95, 0x41, Offset),
        ("proposal-both", 95, 0, Offset),
        ("proposal-both", 89, 0, Length),
        ("accept-v1", 7, 0x38, Version),
        ("accept-v1", 7, 0x19, Ism),
        ("accept-v1", 7, 0x1a, Field("flavour")),
        ("accept-v1", 7, 0x1b, Field("flavour")),
        ("accept-v1", 7, 0x28, Length),
        ("accept-v2", 7, 0x28, Length),
        ("accept-v2-first", 7, 0x20, Length),
        ("accept-v2-first", 7, 0x10, Length),
        // Number 0 and 1, see below for the high one.
        ("accept-v1", 40, 0, Field("queue pair number")),
        ("accept-v1", 40, 1, Field("queue pair number")),
        ("accept-v1", 45, 0, Field("RMB element index")),
        ("accept-v1", 50, 0x20, Field("MTU")),
        ("accept-v1", 50, 0x26, Field("MTU")),
        ("accept-v2-first", 50, 0x2f, Field("MTU")),
        ("confirm-v2-first-1", 50, 0x50, Field("MTU")),
        ("confirm-v2-first-1", 156, 2, Length),
        ("confirm-v2-first-1", 156, 0, Length),
        ("confirm-v2-first-1", 156, 9, Count),
        ("confirm-v2-first-1", 156, 255, Count),
    ] {
        let mut bytes = vector(name);
        bytes[offset] = value;
        let result = parse_any(&bytes).map_err(|error| error.fault);
        assert_eq!(result, Err(fault), "{name} with {value:#x} at {offset}");
    }
}

#[test]
fn buffer_addresses_do_not_wrap() {
    let mut bytes = vector("accept-v1");
    // 64 KiB below the end of the address space; the element is as large.
    bytes[52..60].copy_from_slice(&(u64::MAX - 0xffff).to_be_bytes());
    assert_eq!(
        parse_any(&bytes).map_err(|error| error.fault),
        Err(Fault::Field("RMB address"))
    );
    bytes[52..60].copy_from_slice(&(u64::MAX - 0x1_ffff).to_be_bytes());
    assert_eq!(parse_any(&bytes), Ok(()));
    bytes[45] = 2;
    assert!(parse_any(&bytes).is_err());
    bytes[45] = 255;
    bytes[52..60].fill(0);
    let endpoint = Accept::parse(&bytes).unwrap().endpoint;
    assert_eq!(endpoint.rmbe_address(), Some(254 * 65536));
}

#[test]
fn reserved_mtu_is_for_later_contacts() {
    for name in ["accept-v2", "confirm-v2", "confirm-v1"] {
        let mut bytes = vector(name);
        bytes[50] &= 0xf0;
        assert_eq!(parse_any(&bytes), Ok(()), "{name}");
    }
}

#[test]
fn missing_v2_area_is_told() {
    let mut bytes = vector("proposal-v2-v1");
    bytes.drain(88..192);
    bytes[5..7].copy_from_slice(&92u16.to_be_bytes());
    bytes[50..52].fill(0);
    let proposal = Proposal::parse(&bytes).unwrap();
    assert!(proposal.v2_missing && proposal.v2.is_none() && proposal.v1.is_some());

    // Likewise without the growth area, where the offset would be.
    let mut bytes = vector("proposal-v1-ipv4");
    bytes[7] = 0x20;
    assert!(Proposal::parse(&bytes).unwrap().v2_missing);
}

#[test]
fn impossible_messages_are_not_written() {
    use smc_proto::smc_core::error::EmitError;
    let out = &mut [0; MAX_MESSAGE_LEN];
    let [eid] = eids(["A"]);
    let v2 = |eids| V2Offer {
        release: Release::R1,
        gid: client::GID_V2,
        max_conns: 255,
        max_links: 2,
        features: 0,
        vendor: VendorOptions::NONE,
        eids,
    };
    let nine_eids = [eid; 9];
    let nine_prefixes = [Ipv6Prefix::default(); 9];
    for (version, v1, v2, expected) in [
        (Version::V1, None, None, EmitError::Inconsistent),
        (
            Version::V1,
            Some(client::v1_offer()),
            Some(v2(&nine_eids[..1])),
            EmitError::Inconsistent,
        ),
        (Version::V2, None, Some(v2(&nine_eids)), EmitError::TooMany),
        (
            Version::V2,
            Some(V1Offer {
                gid: client::GID_V1,
                subnets: Subnets {
                    ipv4: Ipv4Subnet::default(),
                    ipv6: &nine_prefixes,
                },
            }),
            None,
            EmitError::TooMany,
        ),
    ] {
        let proposal = Proposal {
            version,
            v1,
            v2,
            ..v1_proposal()
        };
        assert_eq!(proposal.emit(out), Err(expected));
    }
}
