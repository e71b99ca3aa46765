// SPDX-License-Identifier: GPL-2.0

//! Properties of the CLC layer that hold for all values.

mod common;

use common::*;
use proptest::{
    collection::vec,
    option,
    prelude::*, //
};
use smc_proto::{
    clc::{
        decline::DeclineReason,
        tcp_option,
        wire::*, //
    },
    smc_core::types::*,
};

prop_compose! {
    fn gid()(bytes in any::<[u8; 16]>()) -> Gid { Gid(bytes) }
}

prop_compose! {
    fn eid()(bytes in any::<[u8; 32]>()) -> Eid { Eid(bytes) }
}

prop_compose! {
    fn endpoint()(
        (peer_id, gid, mac) in (any::<[u8; 8]>(), gid(), any::<[u8; 6]>()),
        qpn in 2..Qpn24::MAX,
        rkey in any::<u32>(),
        index in 1..=u8::MAX,
        token in any::<u32>(),
        size in 0..16u8,
        mtu in 1..=5u8,
        // Room for 255 elements of 512 MiB.
        rmb_address in 0..u64::MAX - (1 << 38),
        psn in 0..=Psn24::MAX,
    ) -> RdmaEndpoint {
        RdmaEndpoint {
            peer_id: PeerId(peer_id),
            gid,
            mac: Mac(mac),
            qpn: Qpn24::new(qpn).unwrap(),
            rkey: RKey(rkey),
            rmbe_index: RmbeIndex::new(index).unwrap(),
            alert_token: AlertToken(token),
            rmbe_size: BufSizeCode::new(size).unwrap(),
            qp_mtu: Mtu::from_code(mtu),
            rmb_address,
            psn: Psn24::new(psn).unwrap(),
        }
    }
}

prop_compose! {
    fn first_contact()(
        direct in any::<bool>(),
        nibbles in any::<(u8, u8)>(),
        hostname in any::<[u8; 32]>(),
        limits in any::<(u8, u8)>(),
        features in any::<u16>(),
        vendor in vendor_options(),
    ) -> FirstContact {
        FirstContact {
            direct,
            os: OsType::from_nibble(nibbles.0),
            release: Release::from_nibble(nibbles.1),
            hostname,
            max_conns: limits.0,
            max_links: limits.1,
            features,
            vendor,
        }
    }
}

fn vendor_options() -> impl Strategy<Value = VendorOptions> {
    any::<u32>().prop_map(VendorOptions::from_wire)
}

#[derive(Clone, Debug)]
struct OwnedV2 {
    release: u8,
    gid: Gid,
    limits: (u8, u8),
    features: u16,
    vendor: VendorOptions,
    eids: Vec<Eid>,
}

prop_compose! {
    fn owned_v2()(
        release in any::<u8>(),
        gid in gid(),
        limits in any::<(u8, u8)>(),
        features in any::<u16>(),
        vendor in vendor_options(),
        eids in vec(eid(), 0..=MAX_EIDS),
    ) -> OwnedV2 {
        OwnedV2 { release, gid, limits, features, vendor, eids }
    }
}

type OwnedV1 = (Gid, [u8; 4], u8, Vec<([u8; 16], u8)>);

fn owned_v1() -> impl Strategy<Value = OwnedV1> {
    (
        gid(),
        any::<[u8; 4]>(),
        any::<u8>(),
        vec(any::<([u8; 16], u8)>(), 0..=MAX_IPV6_PREFIXES),
    )
}

/// Calls `check` with a Proposal of these parts.
fn with_proposal(
    ids: ([u8; 8], [u8; 6]),
    v1: Option<OwnedV1>,
    v2: Option<OwnedV2>,
    version_2: bool,
    check: impl FnOnce(&Proposal<'_>),
) {
    let prefixes: Vec<Ipv6Prefix> = v1
        .iter()
        .flat_map(|v1| &v1.3)
        .map(|&(addr, prefix_len)| Ipv6Prefix { addr, prefix_len })
        .collect();
    let version = if version_2 || v2.is_some() || v1.is_none() {
        Version::V2
    } else {
        Version::V1
    };
    check(&Proposal {
        version,
        peer_id: PeerId(ids.0),
        mac: Mac(ids.1),
        v1: v1.map(|(gid, subnet, prefix_len, _)| V1Offer {
            gid,
            subnets: Subnets {
                ipv4: Ipv4Subnet { subnet, prefix_len },
                ipv6: &prefixes,
            },
        }),
        v2: v2.as_ref().map(|v2| V2Offer {
            release: Release::from_nibble(v2.release),
            gid: v2.gid,
            max_conns: v2.limits.0,
            max_links: v2.limits.1,
            features: v2.features,
            vendor: v2.vendor,
            eids: &v2.eids,
        }),
        ism: IsmOffer::default(),
        v2_missing: false,
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn proposals_survive(
        ids in any::<([u8; 8], [u8; 6])>(),
        v1 in option::of(owned_v1()),
        v2 in option::of(owned_v2()),
        version_2 in any::<bool>(),
    ) {
        with_proposal(ids, v1, v2, version_2, |proposal| {
            let mut out = [0xaa; MAX_MESSAGE_LEN];
            let len = proposal.emit(&mut out).unwrap();
            assert_eq!(len, proposal.buffer_len());
            assert_eq!(Proposal::parse(&out[..len]), Ok(*proposal));
        });
    }

    #[test]
    fn accepts_survive(
        endpoint in endpoint(),
        eid in eid(),
        first_contact in option::of(first_contact()),
        v1 in any::<bool>(),
    ) {
        let body = if v1 {
            AcceptBody::V1 { first_contact: first_contact.is_some() }
        } else {
            AcceptBody::V2 { eid, first_contact }
        };
        let accept = Accept { endpoint, body };
        let mut out = [0xaa; MAX_MESSAGE_LEN];
        let len = accept.emit(&mut out).unwrap();
        prop_assert_eq!(Accept::parse(&out[..len]), Ok(accept));
    }

    #[test]
    fn confirms_survive(
        endpoint in endpoint(),
        eid in eid(),
        first_contact in option::of(first_contact()),
        gids in vec(gid(), 0..=MAX_GIDS),
        v1 in any::<bool>(),
    ) {
        let body = if v1 {
            ConfirmBody::V1 { first_contact: first_contact.is_some() }
        } else {
            let first_contact =
                first_contact.map(|common| ConfirmFirstContact { common, gids: &gids });
            ConfirmBody::V2 { eid, first_contact }
        };
        let confirm = Confirm { endpoint, body };
        let mut out = [0xaa; MAX_MESSAGE_LEN];
        let len = confirm.emit(&mut out).unwrap();
        prop_assert_eq!(Confirm::parse(&out[..len]), Ok(confirm));
    }

    #[test]
    fn declines_survive(
        peer_id in any::<[u8; 8]>(),
        reason in any::<u32>(),
        os in any::<u8>(),
        out_of_sync in any::<bool>(),
        version in 1..=2u8,
    ) {
        let decline = Decline {
            version: Version(version),
            peer_id: PeerId(peer_id),
            reason: DeclineReason(reason),
            os: OsType::from_nibble(os),
            out_of_sync,
        };
        let mut out = [0xaa; 44];
        let len = decline.emit(&mut out).unwrap();
        prop_assert_eq!(Decline::parse(&out[..len]), Ok(decline));
    }

    #[test]
    fn any_bytes_are_read(bytes in vec(any::<u8>(), 0..700)) {
        read_everything(&bytes);
    }

    /// Right at both ends, anything between.
    #[test]
    fn any_body_is_read(
        mut bytes in vec(any::<u8>(), 12..=MAX_MESSAGE_LEN),
        kind in 1..=4u8,
        flags in any::<u8>(),
    ) {
        let len = bytes.len();
        bytes[..4].copy_from_slice(&EYE_CATCHER_SMCR);
        bytes[4] = kind;
        bytes[5..7].copy_from_slice(&(len as u16).to_be_bytes());
        bytes[7] = 0x10 | (flags & 0x2f);
        bytes[len - 4..].copy_from_slice(&EYE_CATCHER_SMCR);
        read_everything(&bytes);
    }

    #[test]
    fn inserted_option_is_found_and_nothing_else_changes(options in vec(any::<u8>(), 0..48)) {
        let Some(plan) = tcp_option::InsertionPlan::new(&options) else {
            return Ok(());
        };
        let mut grown = options.clone();
        grown.resize(options.len() + tcp_option::InsertionPlan::GROWTH, 0xee);
        prop_assert!(plan.apply(&mut grown));
        prop_assert!(grown.len() <= tcp_option::MAX_OPTIONS_LEN);
        prop_assert!(tcp_option::contains_smc(&grown));
        // Bytes of the old list are as they were or have become padding.
        for (old, new) in options.iter().zip(&grown) {
            prop_assert!(old == new || *new == 1);
        }
        prop_assert_eq!(tcp_option::InsertionPlan::new(&grown), None);

        let mark = tcp_option::SynMark::from_random(7);
        let original = grown.clone();
        prop_assert!(mark.mark(&mut grown) && mark.is_marked(&grown));
        prop_assert!(mark.restore(&mut grown));
        prop_assert_eq!(grown, original);
    }

    #[test]
    fn any_options_are_read(a in vec(any::<u8>(), 0..64), b in vec(any::<u8>(), 0..64)) {
        let _ = tcp_option::carries_signature(&a);
        let _ = tcp_option::is_echo(&a, &b);
        let mark = tcp_option::SynMark::from_random(1);
        let mut marked = a.clone();
        if mark.mark(&mut marked) {
            prop_assert!(tcp_option::contains_smc(&a));
        } else {
            prop_assert_eq!(marked, a);
        }
    }
}

/// Each bit of each vector flipped.
#[test]
fn flipped_bits_are_read() {
    for (_, bytes) in vectors("") {
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                read_everything(&bytes);
            }
        }
    }
}
