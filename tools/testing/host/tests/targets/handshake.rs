// SPDX-License-Identifier: GPL-2.0

//! Whole CLC handshakes: what the other side says is its fair message, changed, or anything else.

use super::{
    common::{
        client,
        server,
        ueid,
        vector,
        vectors, //
    },
    Script,
};
use smc_proto::{
    clc::{
        decline::DeclineReason,
        handshake::*,
        negotiate::*,
        wire::*, //
    },
    smc_core::types::*,
};

/// The golden vectors.
pub fn messages() -> Vec<Vec<u8>> {
    let mut all: Vec<_> = vectors("").into_iter().map(|(_, bytes)| bytes).collect();
    // Release 0 was defined without limits.
    let mut short = vector("accept-v2-first");
    short[105] &= 0xf0;
    short.truncate(140);
    short.extend([0xe2, 0xd4, 0xc3, 0xd9]);
    short[5..7].copy_from_slice(&144u16.to_be_bytes());
    all.push(short);
    // `clc_parse` reads every kind of message.
    all.extend(super::headers::seeds().into_iter().map(|s| s[2..].to_vec()));
    all.extend(super::llc::messages());
    all
}

/// What the other side sends in place of `fair`: that, in up to eight places something else, cut off, or all different.
fn said(script: &mut Script<'_>, fair: &[u8]) -> Vec<u8> {
    let how = script.u8();
    if how & 0xf0 == 0xf0 {
        return script.long_piece().to_vec();
    }
    let mut bytes = fair.to_vec();
    for _ in 0..how & 7 {
        let at = usize::from(script.u16());
        let byte = script.u8();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
    }
    if how & 8 != 0 {
        bytes.truncate(script.u16().into());
    }
    bytes
}

fn decline_is_sound(decline: Decline, from: PeerId) {
    let mut out = [0; 64];
    let len = decline.emit(&mut out).expect("it fits");
    let read = Decline::parse(&out[..len]).expect("our own is valid");
    assert_eq!(read, decline);
    assert_eq!(read.peer_id, from);
}

const V4: Ipv4Address = Ipv4Address {
    addr: [10, 0, 0, 2],
    prefix_len: 24,
};
const PREFIX: [u8; 16] = [0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let (what, limits, vendor) = (script.u8(), script.u8(), script.u8());
    let bit = |n: u8| what & (1 << n) != 0;
    let ueids = [ueid("A"), ueid("SMC-RS.DEFAULT"), ueid("B")];
    let (ours, theirs) = (&ueids[..2], &ueids[usize::from((vendor >> 6) & 1)..]);
    let vendor_options = |on: bool| {
        if on {
            VendorOptions::IMMEDIATE
        } else {
            VendorOptions::NONE
        }
    };
    let prefix = Ipv6Prefix::of(PREFIX, 64);
    let prefixes = [prefix; 8];
    let max_conns = [255, 16, 17, 100][usize::from(limits & 3)];
    let max_links = [2, 1, 2, 2][usize::from((limits >> 2) & 3)];

    let mut v1 = client::v1_offer();
    v1.subnets.ipv6 = &prefixes[..usize::from(limits >> 4) % 9];
    let client_caps = ClientCaps {
        v1: bit(0).then_some(v1),
        v2: bit(1).then_some(client::GID_V2),
        vendor: vendor_options(vendor & 1 != 0),
        max_conns,
        max_links,
        ..client::caps(ours)
    };
    let v6 = [Ipv6Address {
        addr: PREFIX,
        prefix_len: 64,
    }];
    let server_caps = ServerCaps {
        v1_device: bit(2),
        v2_device: bit(3),
        networks: if bit(4) {
            LocalNetworks::V6(&v6)
        } else {
            LocalNetworks::V4(&[V4])
        },
        vendor: vendor_options(vendor & 2 != 0),
        max_conns: if vendor & 4 != 0 { 16 } else { 255 },
        max_links: if vendor & 8 != 0 { 1 } else { 2 },
        ..server::caps(theirs)
    };
    let first_contact = bit(5);

    let mut proposal = [0; MAX_MESSAGE_LEN];
    let Ok((expect_accept, len)) = ExpectAccept::propose(&client_caps, &mut proposal) else {
        assert!(!bit(0) && (!bit(1) || ours.is_empty()), "there is an offer");
        return;
    };
    assert_eq!(
        Proposal::parse(&proposal[..len]).map(|p| p.buffer_len() >= len),
        Ok(true)
    );

    // The server.
    let heard = said(&mut script, &proposal[..len]);
    let mut accept = [0; MAX_MESSAGE_LEN];
    let mut expect_confirm = None;
    let mut len = 0;
    match ExpectProposal.handle(&heard, &server_caps) {
        Ok(Step::Proceed(mut have)) => {
            let second = script.u8() & 15;
            if second == 2 {
                return decline_is_sound(have.decline(DeclineReason::NOSMCRDEV), server::PEER_ID);
            }
            if second == 1 {
                // A device turns out to be unusable.
                let fewer = ServerCaps {
                    v2_device: false,
                    ..server_caps
                };
                match have.choose_again(&fewer) {
                    Step::Proceed(again) => have = again,
                    Step::Decline(decline) => {
                        return decline_is_sound(decline, server::PEER_ID);
                    }
                    Step::PeerDeclined(_) => unreachable!("nothing has come"),
                }
            }
            let choice = have.choice();
            assert!(match choice.mode {
                Mode::V1 => server_caps.v1_device,
                Mode::V2 { .. } => server_caps.v2_device,
            });
            let gid = match choice.mode {
                Mode::V1 => server::GID_V1,
                Mode::V2 { .. } => server::GID_V2,
            };
            let host = first_contact.then(server::host);
            let (expect, n) = have
                .accept(server::endpoint(gid), host, &mut accept)
                .expect("it fits");
            assert!(Accept::parse(&accept[..n]).is_ok(), "our own is valid");
            (expect_confirm, len) = (Some(expect), n);
        }
        Ok(Step::Decline(decline)) => {
            decline_is_sound(decline, server::PEER_ID);
            len = decline.emit(&mut accept).expect("it fits");
        }
        Ok(Step::PeerDeclined(_)) => {}
        Err(error) => {
            let _ = error.to_string();
        }
    }

    // The client.
    let heard = said(&mut script, &accept[..len]);
    let mut confirm = [0; MAX_MESSAGE_LEN];
    let mut len = 0;
    match expect_accept.handle(&heard) {
        Ok(Step::Proceed(have)) => {
            let terms = have.terms();
            assert!(match terms.mode {
                Mode::V1 => client_caps.v1.is_some(),
                Mode::V2 { .. } => client_caps.v2.is_some(),
            });
            if let Some(first) = &terms.first_contact {
                let limits = &first.limits;
                assert!((1..=DEFAULT_MAX_LINKS).contains(&limits.max_links));
                assert!(limits.max_conns >= MIN_MAX_CONNS);
                assert!(client_caps.vendor.contains(limits.vendor));
            }
            assert!(terms.peer.rmbe_address().is_some());
            let gid = match terms.mode {
                Mode::V1 => client::GID_V1,
                Mode::V2 { .. } => client::GID_V2,
            };
            let gids = [gid, client::GID_V1, client::GID_V2];
            let gids = &gids[..1 + script.below(3)];
            let (agreed, n) = have
                .confirm(client::endpoint(gid), client::host(), gids, &mut confirm)
                .expect("it fits");
            assert!(Confirm::parse(&confirm[..n]).is_ok(), "our own is valid");
            len = n;
            if let Some(decline) = agreed.decline(DeclineReason::TIMEOUT_CL) {
                decline_is_sound(decline, client::PEER_ID);
            }
            if let Ok(declined) = agreed.handle(script.piece()) {
                let _ = declined.diagnosis.text();
            }
        }
        Ok(Step::Decline(decline)) => {
            decline_is_sound(decline, client::PEER_ID);
            len = decline.emit(&mut confirm).expect("it fits");
        }
        Ok(Step::PeerDeclined(_)) => {}
        Err(error) => {
            let _ = error.to_string();
        }
    }

    // The server again.
    let Some(expect) = expect_confirm else {
        return;
    };
    let heard = said(&mut script, &confirm[..len]);
    match expect.handle(&heard) {
        Ok(Step::Proceed(have)) => {
            assert!(have.gids.len() <= 8 && (first_contact || have.gids.is_empty()));
            let terms = have.agreed.terms();
            assert_eq!(terms.first_contact.is_some(), first_contact);
            if let Some(first) = &terms.first_contact {
                assert!(server_caps.vendor.contains(first.limits.vendor));
            }
        }
        Ok(Step::Decline(decline)) => {
            assert!(first_contact, "nobody listens to it any more");
            decline_is_sound(decline, server::PEER_ID);
        }
        Ok(Step::PeerDeclined(_)) => {}
        Err(error) => {
            let _ = error.to_string();
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    // Fair handshakes of all kinds.
    for what in [0x3f, 0x0f, 0x25, 0x2a, 0x05, 0x0a, 0x21, 0x22, 0x3d] {
        all.push(vec![what, 0x10, 3]);
        all.push(vec![what, 0x55, 0x4f]);
    }
    // A Decline in place of the server's word about the link, and something else.
    for name in ["decline-v1", "decline-v2", "accept-v2"] {
        let bytes = vector(name);
        let fair = [0x2f, 0, 3, 0, 0, 0, 0, bytes.len() as u8];
        all.push([&fair[..], &bytes].concat());
    }
    // A device turns out to be unusable; our side declines.
    all.push(vec![0x2f, 0, 3, 0, 1]);
    all.push(vec![0x2f, 0, 3, 0, 2]);
    // A message of somebody else's for each of ours.
    for (_, bytes) in vectors("") {
        let [high, low] = (bytes.len() as u16).to_be_bytes();
        let piece = [&[0xff, high, low], &bytes[..]].concat();
        all.push([&[0x2f, 0, 3][..], &piece].concat());
        all.push([&[0x2f, 0, 3, 0, 0], &piece[..]].concat());
        all.push([&[0x2f, 0, 3, 0, 0, 0, 0, 0], &piece[..]].concat());
        all.push([&[0x0f, 0, 3, 0, 0, 0, 0, 0], &piece[..]].concat());
        all.push([&[0x25, 0, 3, 0, 0], &piece[..]].concat());
        all.push([&[0x25, 0, 3, 0, 0, 0, 0, 0], &piece[..]].concat());
    }
    all
}
