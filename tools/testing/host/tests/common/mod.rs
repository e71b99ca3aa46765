// SPDX-License-Identifier: GPL-2.0

//! Golden vectors and sample values, shared by the tests and the fuzzer.

// Each test program uses its own part of this.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::{
    fs,
    path::PathBuf, //
};

use smc_proto::{
    clc::{
        handshake::*,
        negotiate::*,
        tcp_option,
        wire::*, //
    },
    rx_tx::cdc::CdcMessage,
    smc_core::{
        llc::message::LlcMessage,
        types::*, //
    },
};

fn vectors_dir() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors"))
}

/// The bytes of one vector.
pub fn vector(name: &str) -> Vec<u8> {
    let path = vectors_dir().join(name).with_extension("hex");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .flat_map(|line| line.split('#').next().unwrap_or("").split_whitespace())
        .map(|byte| u8::from_str_radix(byte, 16).expect("two hex digits"))
        .collect()
}

/// All vectors whose name starts with `prefix`, in the order of their names.
pub fn vectors(prefix: &str) -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<String> = fs::read_dir(vectors_dir())
        .expect("directory of vectors")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_suffix(".hex")?.to_owned()))
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no vectors {prefix}*");
    names
        .into_iter()
        .map(|name| {
            let bytes = vector(&name);
            (name, bytes)
        })
        .collect()
}

pub fn ueid(name: &str) -> Ueid {
    Ueid::from_name(name.as_bytes()).expect("valid UEID")
}

pub fn padded(text: &str) -> [u8; 32] {
    let mut bytes = [b' '; 32];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    bytes
}

/// Values of the vectors' client.
pub mod client {
    use super::*;

    pub const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    pub const PEER_ID: PeerId = PeerId::new(0x1234, MAC);
    pub const GID_V1: Gid = Gid([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 1]);
    pub const GID_V2: Gid = Gid::from_ipv4([10, 0, 0, 1]);

    pub fn endpoint(gid: Gid) -> RdmaEndpoint {
        RdmaEndpoint {
            peer_id: PEER_ID,
            gid,
            mac: MAC,
            qpn: Qpn24::from_low_bits(9),
            rkey: RKey(0xdead_beef),
            rmbe_index: RmbeIndex::FIRST,
            alert_token: AlertToken(0x0102_0304),
            rmbe_size: BufSizeCode::from_nibble(5),
            qp_mtu: Some(Mtu::Mtu4096),
            rmb_address: 0x8000_0000,
            psn: Psn24::from_low_bits(1),
        }
    }

    pub fn host() -> Host {
        Host {
            direct: true,
            hostname: padded("client.example"),
        }
    }

    pub fn v1_offer() -> V1Offer<'static> {
        V1Offer {
            gid: GID_V1,
            subnets: Subnets {
                ipv4: Ipv4Subnet {
                    subnet: [10, 0, 0, 0],
                    prefix_len: 24,
                },
                ipv6: &[],
            },
        }
    }

    pub fn caps(ueids: &[Ueid]) -> ClientCaps<'_> {
        ClientCaps {
            peer_id: PEER_ID,
            mac: MAC,
            v1: Some(v1_offer()),
            v2: Some(GID_V2),
            ueids,
            max_conns: 255,
            max_links: 2,
            vendor: VendorOptions::NONE,
        }
    }
}

/// Values of the vectors' server.
pub mod server {
    use super::*;

    pub const MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
    pub const PEER_ID: PeerId = PeerId::new(0x5678, MAC);
    pub const GID_V1: Gid = Gid([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 2]);
    pub const GID_V2: Gid = Gid::from_ipv4([10, 0, 0, 2]);

    pub fn endpoint(gid: Gid) -> RdmaEndpoint {
        RdmaEndpoint {
            peer_id: PEER_ID,
            gid,
            mac: MAC,
            qpn: Qpn24::from_low_bits(0x41),
            rkey: RKey(0x1234),
            rmbe_index: RmbeIndex::FIRST,
            alert_token: AlertToken(0x0a0b_0c0d),
            rmbe_size: BufSizeCode::from_nibble(2),
            qp_mtu: Some(Mtu::Mtu1024),
            rmb_address: 0x7f00_1234_0000,
            psn: Psn24::from_low_bits(0xab_cdef),
        }
    }

    pub fn host() -> Host {
        Host {
            direct: true,
            hostname: padded("server.example"),
        }
    }

    pub fn caps(ueids: &[Ueid]) -> ServerCaps<'_> {
        ServerCaps {
            peer_id: PEER_ID,
            v1_device: true,
            v2_device: true,
            networks: LocalNetworks::V4(&[Ipv4Address {
                addr: [10, 0, 0, 2],
                prefix_len: 24,
            }]),
            ueids,
            max_conns: 255,
            max_links: 2,
            vendor: VendorOptions::NONE,
        }
    }
}

/// Runs everything that reads bytes of a peer, each on these same bytes.
///
/// # Panics
///
/// If any of it panics, or if what has been read is not the same after it was written.
pub fn read_everything(bytes: &[u8]) {
    let ueids = [ueid("A"), ueid("SMC-RS.DEFAULT")];
    let _ = bytes.first_chunk().map(Header::peek);
    let _ = starts_like_clc(bytes);
    let _ = Accept::parse(bytes);
    let _ = Confirm::parse(bytes);
    let _ = Decline::parse(bytes);

    let mut out = [0; MAX_MESSAGE_LEN];
    if let Ok(proposal) = Proposal::parse(bytes) {
        // What has been read can be written, but for what is never sent.
        let sendable = Proposal {
            ism: IsmOffer::default(),
            v2_missing: false,
            ..proposal
        };
        if let Ok(len) = sendable.emit(&mut out) {
            assert_eq!(Proposal::parse(&out[..len]), Ok(sendable));
        } else {
            assert!(sendable.version == Version::V1 && proposal.ism.v1);
        }
    }
    let caps = server::caps(&ueids);
    if let Ok(Step::Proceed(state)) = ExpectProposal.handle(bytes, &caps) {
        let endpoint = server::endpoint(server::GID_V2);
        let host = Some(server::host());
        assert!(state.accept(endpoint, host, &mut out).is_ok());
    }
    let (state, _) = ExpectAccept::propose(&client::caps(&ueids), &mut out).unwrap();
    if let Ok(Step::Proceed(state)) = state.handle(bytes) {
        assert!(state.terms().peer.rmbe_address().is_some());
        let endpoint = client::endpoint(client::GID_V2);
        let (agreed, _) = state
            .confirm(endpoint, client::host(), &[client::GID_V2], &mut out)
            .unwrap();
        let _ = agreed.handle(bytes);
    }
    read_messages_of_link(bytes);
    read_options(bytes);
}

fn read_messages_of_link(bytes: &[u8]) {
    if let Ok(message) = CdcMessage::parse(bytes) {
        assert_eq!(CdcMessage::parse(&message.emit()), Ok(message));
    }
    if let Ok(message) = LlcMessage::parse(bytes) {
        assert_eq!(LlcMessage::parse(&message.emit()), Ok(message));
    }
}

/// The part of [`read_everything`] that reads TCP options.
pub fn read_options(bytes: &[u8]) {
    let has_smc = tcp_option::contains_smc(bytes);
    let _ = tcp_option::carries_signature(bytes);
    let _ = tcp_option::is_echo(bytes, bytes);

    let mark = tcp_option::SynMark::from_random(0x5a5a_1234);
    let mut marked = bytes.to_vec();
    assert_eq!(mark.mark(&mut marked), has_smc);
    assert!(!has_smc || mark.is_marked(&marked));

    if let Some(plan) = tcp_option::InsertionPlan::new(bytes) {
        let mut grown = bytes.to_vec();
        grown.resize(bytes.len() + tcp_option::InsertionPlan::GROWTH, 0);
        assert!(plan.apply(&mut grown) && tcp_option::contains_smc(&grown));
        assert!(grown.len() <= tcp_option::MAX_OPTIONS_LEN);
    }
}
