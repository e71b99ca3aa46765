// SPDX-License-Identifier: GPL-2.0

//! Whole handshakes between a client and a server that exist in memory only.

mod common;

use common::*;
use smc_proto::{
    clc::{
        decline::DeclineReason,
        handshake::*,
        negotiate::*,
        wire::*, //
    },
    smc_core::{
        error::{
            MessageKind,
            Violation, //
        },
        types::{
            Mtu,
            PeerId,
            Ueid, //
        },
    },
};

/// How a handshake ended: what each side thinks.
#[derive(Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "lives for one assertion")]
enum End {
    Agreed {
        client: Terms,
        server: Terms,
    },
    /// The server sent a Decline, which the client understood.
    ServerDeclined(DeclineReason),
    ClientDeclined(DeclineReason),
}

struct Buffers {
    client: Vec<u8>,
    server: Vec<u8>,
}

impl Buffers {
    fn new() -> Self {
        Self {
            client: vec![0xaa; MAX_MESSAGE_LEN],
            server: vec![0xbb; MAX_MESSAGE_LEN],
        }
    }
}

fn decline_bytes(decline: Decline) -> Vec<u8> {
    let mut out = vec![0; 44];
    let len = decline.emit(&mut out).unwrap();
    out.truncate(len);
    out
}

fn gid_of(
    mode: Mode,
    v1: smc_proto::smc_core::types::Gid,
    v2: smc_proto::smc_core::types::Gid,
) -> smc_proto::smc_core::types::Gid {
    match mode {
        Mode::V1 => v1,
        Mode::V2 { .. } => v2,
    }
}

fn run(client_caps: &ClientCaps<'_>, server_caps: &ServerCaps<'_>, first_contact: bool) -> End {
    let mut buf = Buffers::new();
    let (expect_accept, len) = ExpectAccept::propose(client_caps, &mut buf.client).unwrap();

    let have_proposal = match ExpectProposal
        .handle(&buf.client[..len], server_caps)
        .unwrap()
    {
        Step::Proceed(next) => next,
        Step::Decline(decline) => {
            let reason = decline.reason;
            match expect_accept.handle(&decline_bytes(decline)).unwrap() {
                Step::PeerDeclined(declined) => {
                    assert_eq!(declined.diagnosis, reason);
                    assert_eq!(declined.peer_id, server_caps.peer_id);
                    return End::ServerDeclined(reason);
                }
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(have_proposal.choice().peer_id, client_caps.peer_id);
    assert_eq!(have_proposal.choice().peer_mac, client_caps.mac);
    let mode = have_proposal.choice().mode;
    let server_gid = gid_of(mode, server::GID_V1, server::GID_V2);
    let host = first_contact.then(server::host);
    let (expect_confirm, len) = have_proposal
        .accept(server::endpoint(server_gid), host, &mut buf.server)
        .unwrap();

    let have_accept = match expect_accept.handle(&buf.server[..len]).unwrap() {
        Step::Proceed(next) => next,
        Step::Decline(decline) => {
            let reason = decline.reason;
            match expect_confirm.handle(&decline_bytes(decline)).unwrap() {
                Step::PeerDeclined(_) => return End::ClientDeclined(reason),
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other:?}"),
    };
    let gid = gid_of(mode, client::GID_V1, client::GID_V2);
    let gids = [gid];
    let (client_agreed, len) = have_accept
        .confirm(
            client::endpoint(gid),
            client::host(),
            &gids,
            &mut buf.client,
        )
        .unwrap();

    match expect_confirm.handle(&buf.client[..len]).unwrap() {
        Step::Proceed(have_confirm) => {
            let listed = first_contact && matches!(mode, Mode::V2 { .. });
            assert_eq!(have_confirm.gids, if listed { &gids[..] } else { &[] });
            // Only a new link group can still be declined.
            for agreed in [&client_agreed, &have_confirm.agreed] {
                let decline = agreed.decline(DeclineReason::TIMEOUT_CL);
                assert_eq!(decline.is_some(), first_contact);
            }
            End::Agreed {
                client: *client_agreed.terms(),
                server: *have_confirm.agreed.terms(),
            }
        }
        other => panic!("{other:?}"),
    }
}

fn assert_agreed(end: End, mode: Mode, limits: Option<Limits>) {
    let End::Agreed { client, server } = end else {
        panic!("{end:?}");
    };
    for terms in [client, server] {
        assert_eq!(terms.mode, mode);
        assert_eq!(terms.first_contact.map(|first| first.limits), limits);
    }
    let (client_gid, server_gid) = match mode {
        Mode::V1 => (client::GID_V1, server::GID_V1),
        Mode::V2 { .. } => (client::GID_V2, server::GID_V2),
    };
    assert_eq!(client.peer, server::endpoint(server_gid));
    assert_eq!(server.peer, client::endpoint(client_gid));
    if let (Some(of_server), Some(of_client)) = (client.first_contact, server.first_contact) {
        assert_eq!(of_server.peer_mtu, Mtu::Mtu1024);
        assert_eq!(of_client.peer_mtu, Mtu::Mtu4096);
        assert!(of_server.direct && of_client.direct);
        if mode.version() == Version::V2 {
            assert_eq!(of_server.peer_hostname, padded("server.example"));
            assert_eq!(of_client.peer_hostname, padded("client.example"));
            assert_eq!(of_client.peer_os, OsType::LINUX);
        }
    }
}

const R1: Limits = Limits {
    release: Release::R1,
    max_conns: 255,
    max_links: 2,
    vendor: VendorOptions::NONE,
};

fn v2(ueid: Ueid) -> Mode {
    Mode::V2 { eid: ueid.to_eid() }
}

#[test]
fn version_2_is_preferred() {
    let ueids = [ueid("SMC-RS.DEFAULT")];
    let (client, server) = (client::caps(&ueids), server::caps(&ueids));
    assert_agreed(run(&client, &server, true), v2(ueids[0]), Some(R1));
    assert_agreed(run(&client, &server, false), v2(ueids[0]), None);
}

#[test]
fn version_1_is_second() {
    let ueids = [ueid("A")];
    let none = [];
    let (client, server) = (client::caps(&ueids), server::caps(&ueids));
    let v1_client = ClientCaps { v2: None, ..client };
    let without_ueid = client::caps(&none);
    let other_ueid = [ueid("B")];
    let v1_server = ServerCaps {
        v2_device: false,
        ..server
    };
    for first_contact in [true, false] {
        let limits = first_contact.then_some(Limits::DEFAULT);
        for (client, server) in [
            (&v1_client, &server),
            (&without_ueid, &server),
            (&client, &v1_server),
            (&client, &server::caps(&other_ueid)),
        ] {
            assert_agreed(run(client, server, first_contact), Mode::V1, limits);
        }
    }
}

#[test]
fn first_common_ueid_of_the_client() {
    let of_client = [ueid("X"), ueid("B"), ueid("A")];
    let of_server = [ueid("A"), ueid("B")];
    let (client, server) = (client::caps(&of_client), server::caps(&of_server));
    assert_agreed(run(&client, &server, true), v2(ueid("B")), Some(R1));
}

#[test]
fn vendor_options_of_both() {
    let ueids = [ueid("A")];
    let (all, none) = (VendorOptions::from_wire(u32::MAX), VendorOptions::NONE);
    let some = VendorOptions::IMMEDIATE;
    for (of_client, of_server, agreed) in [
        (some, some, some),
        (all, some, some),
        (some, all, some),
        (some, none, none),
        (none, some, none),
        (none, none, none),
    ] {
        let client = ClientCaps {
            vendor: of_client,
            ..client::caps(&ueids)
        };
        let server = ServerCaps {
            vendor: of_server,
            ..server::caps(&ueids)
        };
        let limits = Limits {
            vendor: agreed,
            ..R1
        };
        assert_agreed(run(&client, &server, true), v2(ueids[0]), Some(limits));
        assert_agreed(run(&client, &server, false), v2(ueids[0]), None);
    }
}

/// A server that claims what was not offered, and a client that does not repeat what was agreed.
#[test]
fn vendor_options_that_were_not_agreed() {
    let ueids = [ueid("A")];
    let some = VendorOptions::IMMEDIATE;
    let offering = ClientCaps {
        vendor: some,
        ..client::caps(&ueids)
    };
    let plain = client::caps(&ueids);
    let server = ServerCaps {
        vendor: some,
        ..server::caps(&ueids)
    };
    let accepted = |caps: &ClientCaps<'_>, answer: &mut Vec<u8>| {
        let mut bytes = vec![0; MAX_MESSAGE_LEN];
        let (_, len) = ExpectAccept::propose(caps, &mut bytes).unwrap();
        let Step::Proceed(have) = ExpectProposal.handle(&bytes[..len], &server).unwrap() else {
            panic!("declined");
        };
        let endpoint = server::endpoint(server::GID_V2);
        let (expect, len) = have.accept(endpoint, Some(server::host()), answer).unwrap();
        (expect, len)
    };
    let confirmed = |caps: &ClientCaps<'_>, answer: &[u8]| {
        let mut bytes = vec![0; MAX_MESSAGE_LEN];
        let (expect, _) = ExpectAccept::propose(caps, &mut bytes).unwrap();
        let Step::Proceed(have) = expect.handle(answer).unwrap() else {
            panic!("declined");
        };
        let agreed = have.terms().first_contact.unwrap().limits.vendor;
        let endpoint = client::endpoint(client::GID_V2);
        let gids = [client::GID_V2];
        let (_, len) = have
            .confirm(endpoint, client::host(), &gids, &mut bytes)
            .unwrap();
        bytes.truncate(len);
        (agreed, bytes)
    };
    let mut answer = vec![0; MAX_MESSAGE_LEN];
    let (expect, len) = accepted(&offering, &mut answer);
    // To the client that has offered nothing this says nothing, which the server then hears.
    let (agreed, confirm) = confirmed(&plain, &answer[..len]);
    assert_eq!(agreed, VendorOptions::NONE);
    match expect.handle(&confirm).unwrap() {
        Step::Decline(decline) => assert_eq!(decline.reason, DeclineReason::RELEASEERR),
        other => panic!("{other:?}"),
    }
    let (expect, len) = accepted(&offering, &mut answer);
    let (agreed, confirm) = confirmed(&offering, &answer[..len]);
    assert_eq!(agreed, some);
    assert!(matches!(expect.handle(&confirm), Ok(Step::Proceed(_))));
}

#[test]
fn lower_limits_of_both() {
    let ueids = [ueid("A")];
    let client = ClientCaps {
        max_conns: 100,
        max_links: 2,
        ..client::caps(&ueids)
    };
    let server = ServerCaps {
        max_conns: 200,
        max_links: 1,
        ..server::caps(&ueids)
    };
    let limits = Limits {
        release: Release::R1,
        max_conns: 100,
        max_links: 1,
        vendor: VendorOptions::NONE,
    };
    assert_agreed(run(&client, &server, true), v2(ueids[0]), Some(limits));
}

#[test]
fn server_declines() {
    let ueids = [ueid("A")];
    let others = [ueid("B")];
    let elsewhere = LocalNetworks::V4(&[Ipv4Address {
        addr: [10, 0, 1, 2],
        prefix_len: 24,
    }]);
    let client = client::caps(&ueids);
    let server = server::caps(&ueids);
    let only_v1 = ClientCaps { v2: None, ..client };
    let only_v2 = ClientCaps { v1: None, ..client };
    let deviceless = ServerCaps {
        v1_device: false,
        v2_device: false,
        ..server
    };
    for (client, server, reason) in [
        (only_v2, server::caps(&others), DeclineReason::NOUEID),
        (only_v2, server::caps(&[]), DeclineReason::NOUEID),
        (only_v2, deviceless, DeclineReason::NOSMCRDEV),
        (only_v1, deviceless, DeclineReason::NOSMCRDEV),
        (client, deviceless, DeclineReason::NOSMCRDEV),
        (
            only_v1,
            ServerCaps {
                networks: elsewhere,
                ..server
            },
            DeclineReason::DIFFPREFIX,
        ),
        // The reason of version 2 comes first.
        (
            client,
            ServerCaps {
                networks: elsewhere,
                ..server::caps(&others)
            },
            DeclineReason::NOUEID,
        ),
        // Limits that do not fit are no reason for version 1.
        (
            ClientCaps {
                max_conns: 15,
                ..client
            },
            server,
            DeclineReason::MAXCONNERR,
        ),
        (
            ClientCaps {
                max_links: 0,
                ..client
            },
            server,
            DeclineReason::MAXLINKERR,
        ),
    ] {
        assert_eq!(
            run(&client, &server, true),
            End::ServerDeclined(reason),
            "{reason}"
        );
    }
}

#[test]
fn server_chooses_again() {
    let ueids = [ueid("A")];
    let caps = server::caps(&ueids);
    let bytes = vector("proposal-v2-v1");
    let Ok(Step::Proceed(state)) = ExpectProposal.handle(&bytes, &caps) else {
        panic!();
    };
    assert_eq!(state.choice().mode, v2(ueids[0]));
    assert_eq!(state.choice().peer_gid, client::GID_V2);
    let caps = ServerCaps {
        v2_device: false,
        ..caps
    };
    let Step::Proceed(state) = state.choose_again(&caps) else {
        panic!();
    };
    assert_eq!(state.choice().mode, Mode::V1);
    assert_eq!(state.choice().peer_gid, client::GID_V1);
    let caps = ServerCaps {
        v1_device: false,
        ..caps
    };
    let Step::Decline(decline) = state.choose_again(&caps) else {
        panic!();
    };
    assert_eq!(decline.reason, DeclineReason::NOSMCRDEV);
    assert_eq!(decline.version, Version::V2);
}

/// What the server answers to a Proposal of which one byte has been changed.
fn answer(name: &str, change: &[(usize, u8)]) -> Result<Mode, DeclineReason> {
    let mut bytes = vector(name);
    for &(offset, value) in change {
        bytes[offset] = value;
    }
    let ueids = [ueid("A"), ueid("SMC-RS.DEFAULT")];
    match ExpectProposal.handle(&bytes, &server::caps(&ueids)) {
        Ok(Step::Proceed(state)) => Ok(state.choice().mode),
        Ok(Step::Decline(decline)) => Err(decline.reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn flavours_and_versions() {
    assert_eq!(answer("proposal-both", &[]), Ok(v2(ueid("A"))));
    // SMC-D only: version 2, version 1, both.
    assert_eq!(answer("proposal-both", &[(7, 0x2f - 0b1000)]), Ok(Mode::V1));
    assert_eq!(
        answer("proposal-both", &[(7, 0x25)]),
        Err(DeclineReason::NOISM2SUPP)
    );
    assert_eq!(
        answer("proposal-v1-ipv4", &[(7, 0x11)]),
        Err(DeclineReason::NOSMCDDEV)
    );
    // Nothing at all.
    assert_eq!(
        answer("proposal-v1-ipv4", &[(7, 0x29)]),
        Err(DeclineReason::NOSMCDDEV)
    );
    // Version 2 announced without its area: version 1 is still there.
    assert_eq!(answer("proposal-v1-ipv4", &[(7, 0x20)]), Ok(Mode::V1));
    assert_eq!(
        answer("proposal-v1-ipv4", &[(7, 0x21)]),
        Err(DeclineReason::NOV2EXT)
    );
    // A later version or release is answered with ours.
    assert_eq!(
        answer("proposal-v2", &[(7, 0x32)]),
        Ok(v2(ueid("SMC-RS.DEFAULT")))
    );
    assert_eq!(
        answer("proposal-v2", &[(83, 0xf0)]),
        Ok(v2(ueid("SMC-RS.DEFAULT")))
    );
}

/// What the client makes of an Accept, having offered both versions.
fn judge(name: &str, change: &[(usize, u8)]) -> Result<Terms, DeclineReason> {
    judge_offered(name, change, &client::caps(&[ueid("SMC-RS.DEFAULT")]))
}

fn judge_offered(
    name: &str,
    change: &[(usize, u8)],
    caps: &ClientCaps<'_>,
) -> Result<Terms, DeclineReason> {
    let mut bytes = vector(name);
    for &(offset, value) in change {
        bytes[offset] = value;
    }
    let mut out = [0; MAX_MESSAGE_LEN];
    let (state, _) = ExpectAccept::propose(caps, &mut out).unwrap();
    match state.handle(&bytes).unwrap() {
        Step::Proceed(state) => Ok(*state.terms()),
        Step::Decline(decline) => {
            assert_eq!(decline.version.0, bytes[7] >> 4);
            assert_eq!(decline.peer_id, client::PEER_ID);
            Err(decline.reason)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn client_checks_the_accept() {
    assert!(judge("accept-v1", &[]).is_ok());
    assert!(judge("accept-v2", &[]).is_ok());
    assert!(judge("accept-v2-first", &[]).is_ok());

    let ueids = [ueid("SMC-RS.DEFAULT")];
    let caps = client::caps(&ueids);
    let only_v1 = ClientCaps { v2: None, ..caps };
    let only_v2 = ClientCaps { v1: None, ..caps };
    let unsupported = Err(DeclineReason::MODEUNSUPP);
    assert_eq!(judge_offered("accept-v2", &[], &only_v1), unsupported);
    assert_eq!(judge_offered("accept-v1", &[], &only_v2), unsupported);
    // SMC-D chosen.
    assert_eq!(judge("accept-v1", &[(7, 0x11)]), unsupported);

    for (offset, value, reason) in [
        (64, b'X', DeclineReason::NOUEID),
        (105, 0x22, DeclineReason::RELEASEERR),
        (140, 15, DeclineReason::MAXCONNERR),
        (140, 0, DeclineReason::MAXCONNERR),
        (141, 0, DeclineReason::MAXLINKERR),
        (141, 3, DeclineReason::MAXLINKERR),
    ] {
        let change = [(offset, value)];
        assert_eq!(judge("accept-v2-first", &change), Err(reason));
    }
    // More than was offered.
    let modest = ClientCaps {
        max_conns: 100,
        max_links: 1,
        ..caps
    };
    for (change, reason) in [
        ([(140, 101), (141, 1)], DeclineReason::MAXCONNERR),
        ([(140, 100), (141, 2)], DeclineReason::MAXLINKERR),
    ] {
        let result = judge_offered("accept-v2-first", &change, &modest);
        assert_eq!(result, Err(reason));
    }
    // Release 0 has no limits.
    let terms = judge("accept-v2-first", &[(105, 0x20), (140, 0), (141, 0)]).unwrap();
    assert_eq!(terms.first_contact.unwrap().limits, Limits::DEFAULT);
}

/// A server that has accepted `proposal` and expects the Confirm.
fn expect_confirm(proposal: &str, first_contact: bool) -> ExpectConfirm {
    let bytes = vector(proposal);
    let ueids = [ueid("SMC-RS.DEFAULT")];
    let Ok(Step::Proceed(state)) = ExpectProposal.handle(&bytes, &server::caps(&ueids)) else {
        panic!();
    };
    let endpoint = server::endpoint(server::GID_V2);
    let host = first_contact.then(server::host);
    let (state, _) = state.accept(endpoint, host, &mut [0; 160]).unwrap();
    state
}

#[test]
fn server_checks_the_confirm() {
    let judge = |name, change: &[(usize, u8)]| {
        let mut bytes = vector(name);
        for &(offset, value) in change {
            bytes[offset] = value;
        }
        match expect_confirm("proposal-v2", true).handle(&bytes).unwrap() {
            Step::Proceed(state) => Ok(state.gids.to_vec()),
            Step::Decline(decline) => Err(decline.reason),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(judge("confirm-v2-first-1", &[]), Ok(vec![client::GID_V2]));
    for (offset, value, reason) in [
        (64, b'X', DeclineReason::NOUEID),
        (105, 0x20, DeclineReason::RELEASEERR),
        (140, 254, DeclineReason::MAXCONNERR),
        (141, 1, DeclineReason::MAXLINKERR),
    ] {
        let change = [(offset, value)];
        assert_eq!(judge("confirm-v2-first-1", &change), Err(reason));
    }
    assert_eq!(judge("confirm-v2", &[]), Err(DeclineReason::RELEASEERR));
    assert_eq!(judge("confirm-v1", &[]), Err(DeclineReason::VERSMISMAT));
}

#[test]
fn too_late_to_decline() {
    let violation = |proposal, name| {
        let bytes = vector(name);
        expect_confirm(proposal, false).handle(&bytes).map(drop)
    };
    let mismatch = Err(HandshakeError::Violation(Violation::ConfirmMismatch));
    for name in ["confirm-v2-first-1", "confirm-v1"] {
        assert_eq!(violation("proposal-v2", name), mismatch);
    }
    assert_eq!(violation("proposal-v2", "confirm-v2"), Ok(()));
    // The flag that RFC 7609 does not have does not count.
    assert_eq!(violation("proposal-v1-ipv4", "confirm-v1-linux"), Ok(()));
    assert_eq!(violation("proposal-v1-ipv4", "confirm-v1"), Ok(()));
}

#[test]
fn first_contact_of_version_1_needs_an_mtu() {
    let mut bytes = vector("confirm-v1");
    bytes[50] &= 0xf0;
    let state = expect_confirm("proposal-v1-ipv4", true);
    assert!(matches!(state.handle(&bytes), Ok(Step::Decline(_))));
}

#[test]
fn identity_must_not_change() {
    let mut bytes = vector("confirm-v2-first-1");
    bytes[8] ^= 1;
    assert_eq!(
        expect_confirm("proposal-v2", true).handle(&bytes).map(drop),
        Err(HandshakeError::Violation(Violation::PeerIdChanged))
    );
}

/// Linux tells its identity in the Confirm only, if it offers nothing but version 2.
#[test]
fn identity_of_linux_comes_late() {
    let confirm = vector("linux-confirm-v2-first");
    let state = expect_confirm("linux-proposal-v2", true);
    assert!(matches!(state.handle(&confirm), Ok(Step::Proceed(_))));
}

#[test]
fn unexpected_messages() {
    let ueids = [ueid("SMC-RS.DEFAULT")];
    let unexpected = |expected, received| {
        Err(HandshakeError::Violation(Violation::UnexpectedMessage {
            expected,
            received,
        }))
    };
    let (proposal, accept, confirm) = (
        vector("proposal-v2"),
        vector("accept-v2"),
        vector("confirm-v2"),
    );
    assert_eq!(
        ExpectProposal
            .handle(&accept, &server::caps(&ueids))
            .map(drop),
        unexpected(MessageKind::Proposal, MessageKind::Accept)
    );
    let propose = || {
        ExpectAccept::propose(&client::caps(&ueids), &mut [0; 652])
            .unwrap()
            .0
    };
    assert_eq!(
        propose().handle(&proposal).map(drop),
        unexpected(MessageKind::Accept, MessageKind::Proposal)
    );
    assert_eq!(
        propose().handle(&confirm).map(drop),
        unexpected(MessageKind::Accept, MessageKind::Confirm)
    );
    assert_eq!(
        expect_confirm("proposal-v2", true)
            .handle(&accept)
            .map(drop),
        unexpected(MessageKind::Confirm, MessageKind::Accept)
    );
}

#[test]
fn decline_instead_of_any_message() {
    let ueids = [ueid("SMC-RS.DEFAULT")];
    let decline = decline_bytes(Decline::new(
        Version::V1,
        PeerId([7; 8]),
        DeclineReason::SYNCERR,
    ));
    let declined = PeerDeclined {
        diagnosis: DeclineReason::SYNCERR,
        out_of_sync: true,
        peer_id: PeerId([7; 8]),
        os: OsType::LINUX,
    };
    let caps = server::caps(&ueids);
    assert!(matches!(
        ExpectProposal.handle(&decline, &caps),
        Ok(Step::PeerDeclined(d)) if d == declined
    ));
    let (state, _) = ExpectAccept::propose(&client::caps(&ueids), &mut [0; 652]).unwrap();
    assert_eq!(state.handle(&decline), Ok(Step::PeerDeclined(declined)));
    assert!(matches!(
        expect_confirm("proposal-v2", true).handle(&decline),
        Ok(Step::PeerDeclined(d)) if d == declined
    ));
    // During the LLC exchange nothing else can come.
    let (state, _) = ExpectAccept::propose(&client::caps(&ueids), &mut [0; 652]).unwrap();
    let Ok(Step::Proceed(state)) = state.handle(&vector("accept-v2-first")) else {
        panic!();
    };
    let endpoint = client::endpoint(client::GID_V2);
    let (agreed, _) = state
        .confirm(endpoint, client::host(), &[], &mut [0; 200])
        .unwrap();
    assert_eq!(agreed.handle(&decline), Ok(declined));
    assert!(agreed.handle(&vector("accept-v2")).is_err());
    assert!(agreed.handle(b"GET / HTTP/1.1\r\n").is_err());
}

#[test]
fn nothing_to_offer() {
    let caps = ClientCaps {
        v1: None,
        ..client::caps(&[])
    };
    assert_eq!(caps.proposal(), None);
    assert!(ExpectAccept::propose(&caps, &mut [0; 652]).is_err());
}

#[test]
fn same_lan() {
    let v4 = |subnet, prefix_len| Subnets {
        ipv4: Ipv4Subnet { subnet, prefix_len },
        ipv6: &[],
    };
    let local = |addr, prefix_len| [Ipv4Address { addr, prefix_len }];
    for (client, server, same) in [
        (v4([10, 0, 0, 0], 24), local([10, 0, 0, 7], 24), true),
        // Host bits of the client's subnet do not count.
        (v4([10, 0, 0, 9], 24), local([10, 0, 0, 7], 24), true),
        (v4([10, 0, 0, 0], 24), local([10, 0, 1, 7], 24), false),
        (v4([10, 0, 0, 0], 24), local([10, 0, 0, 7], 16), false),
        (v4([10, 0, 0, 7], 32), local([10, 0, 0, 7], 32), true),
        (v4([0; 4], 0), local([0; 4], 0), false),
        (v4([10, 0, 0, 0], 33), local([10, 0, 0, 0], 33), false),
        (v4([10, 0, 0, 0], 255), local([10, 0, 0, 0], 255), false),
    ] {
        assert_eq!(
            on_same_lan(&client, LocalNetworks::V4(&server)),
            same,
            "{client:?} {server:?}"
        );
    }
    // Several addresses on the interface.
    let two = [local([192, 168, 0, 1], 24)[0], local([10, 0, 0, 1], 8)[0]];
    assert!(on_same_lan(&v4([10, 0, 0, 0], 8), LocalNetworks::V4(&two)));
    assert!(!on_same_lan(&v4([10, 0, 0, 0], 8), LocalNetworks::V4(&[])));

    let mut addr = [0; 16];
    addr[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    addr[15] = 1;
    let prefixes = |prefix_len| {
        [
            Ipv6Prefix::of([0xfd; 16], 8),
            Ipv6Prefix { addr, prefix_len },
        ]
    };
    let mut other = addr;
    other[15] = 2;
    let at = |addr| {
        [Ipv6Address {
            addr,
            prefix_len: 64,
        }]
    };
    for (prefix_len, same) in [
        (0, false),
        (32, true),
        (126, true),
        (127, false),
        (129, false),
    ] {
        let client = Subnets {
            ipv4: Ipv4Subnet::default(),
            ipv6: &prefixes(prefix_len),
        };
        // ::1 and ::2 differ in bits 126 and 127.
        let expected = same && prefix_len <= 126;
        assert_eq!(
            on_same_lan(&client, LocalNetworks::V6(&at(other))),
            expected,
            "{prefix_len}"
        );
    }
    // Of the other family nothing matches.
    let client = v4([10, 0, 0, 0], 24);
    assert!(!on_same_lan(&client, LocalNetworks::V6(&at(addr))));
    // Every link has fe80::/64: that says nothing.
    let mut link_local = addr;
    link_local[..4].copy_from_slice(&[0xfe, 0x80, 0, 0]);
    let client = Subnets {
        ipv4: Ipv4Subnet::default(),
        ipv6: &[Ipv6Prefix::of(link_local, 64)],
    };
    assert!(!on_same_lan(&client, LocalNetworks::V6(&at(link_local))));
}

#[test]
fn offered_networks() {
    let v4 = |addr, prefix_len| Ipv4Address { addr, prefix_len };
    let addresses = [
        v4([192, 168, 0, 1], 24),
        v4([10, 0, 0, 1], 8),
        v4([10, 9, 0, 1], 24),
        v4([172, 16, 0, 1], 0),
        v4([172, 16, 0, 1], 77),
    ];
    for (own, expected) in [
        ([192, 168, 0, 1], Some(([192, 168, 0, 0], 24))),
        // The smallest network that it is in.
        ([10, 9, 0, 1], Some(([10, 9, 0, 0], 24))),
        ([10, 0, 0, 1], Some(([10, 0, 0, 0], 8))),
        // An address of another interface, in a network of this one.
        ([10, 9, 0, 77], Some(([10, 9, 0, 0], 24))),
        ([172, 16, 0, 1], None),
    ] {
        let offer = offered_subnet(own, &addresses);
        assert_eq!(
            offer.map(|it| (it.subnet, it.prefix_len)),
            expected,
            "{own:?}"
        );
        // The server next door finds itself in it.
        if let Some(ipv4) = offer {
            let client = Subnets { ipv4, ipv6: &[] };
            assert!(on_same_lan(&client, LocalNetworks::V4(&addresses)));
        }
    }
    assert_eq!(offered_subnet([10, 0, 0, 1], &[]), None);

    let v6 = |net: u8, host: u8, prefix_len| {
        let mut addr = [0; 16];
        addr[..3].copy_from_slice(&[0xfd, 0x09, net]);
        addr[15] = host;
        Ipv6Address { addr, prefix_len }
    };
    let mut link_local = v6(0, 1, 64);
    link_local.addr[..3].copy_from_slice(&[0xfe, 0x80, 0]);
    let mut out = [Ipv6Prefix::default(); MAX_IPV6_PREFIXES];
    let few = [
        link_local,
        v6(0, 1, 64),
        v6(0, 2, 64),
        v6(1, 1, 0),
        v6(2, 1, 64),
    ];
    let offer = offered_prefixes(&few, &mut out).to_vec();
    assert_eq!(
        offer,
        [
            Ipv6Prefix::of(few[1].addr, 64),
            Ipv6Prefix::of(few[4].addr, 64)
        ]
    );
    assert!(offered_prefixes(&[link_local], &mut out).is_empty());
    // No more than go into a Proposal.
    let many: Vec<_> = (0..20).map(|net| v6(net, 1, 64)).collect();
    assert_eq!(offered_prefixes(&many, &mut out).len(), MAX_IPV6_PREFIXES);
}

#[test]
fn offers_are_masked() {
    let subnet = Ipv4Subnet::of(Ipv4Address {
        addr: [10, 1, 2, 3],
        prefix_len: 20,
    });
    assert_eq!((subnet.subnet, subnet.prefix_len), ([10, 1, 0, 0], 20));
    for prefix_len in 0..=255 {
        // No panic, and never a bit more than the prefix.
        let prefix = Ipv6Prefix::of([0xff; 16], prefix_len);
        let ones = u128::from_be_bytes(prefix.addr).count_ones();
        assert_eq!(ones, u32::from(prefix_len).min(128));
    }
}
