// SPDX-License-Identifier: GPL-2.0

//! Two link flows talk to each other, and to strangers.

#![forbid(unsafe_code)]

use super::*;
use crate::smc_core::types::{
    Gid,
    LinkUserId,
    Mac,
    Qpn24, //
};

const NO_OTHERS: [Option<(LinkNumber, RToken)>; 2] = [None; 2];
const T0: Millis = Millis(1_000);

fn params(role: Role) -> LinkParams {
    let (own, peer) = match role {
        Role::Client => (2, 3),
        Role::Server => (3, 2),
    };
    LinkParams {
        role,
        version: LlcVersion::V2,
        mac: Mac([own; 6]),
        gid: Gid([own; 16]),
        qpn: Qpn24::from_low_bits(u32::from(own)),
        user_id: LinkUserId(u32::from(own)),
        peer_gid: Gid([peer; 16]),
        peer_qpn: Qpn24::from_low_bits(u32::from(peer)),
        link: LinkNumber(if role == Role::Server { 1 } else { 0 }),
        max_links: 1,
        max_conns: 255,
        test_link_time: 30_000,
    }
}

/// A client and a server with a confirmed link.
fn pair() -> (LinkFlow, LinkFlow) {
    let mut client = LinkFlow::new(params(Role::Client));
    let mut server = LinkFlow::new(params(Role::Server));
    assert!(client.start(T0).is_empty());
    let request = server.start(T0).send.unwrap();
    let actions = client.handle_bytes(&request, T0);
    assert!(matches!(
        actions.event,
        Some(LlcEvent::ConfirmLinkReceived(PeerLink {
            link: LinkNumber(1),
            ..
        }))
    ));
    assert!(!client.is_active());
    let response = client.confirm_link_ready(T0).send.unwrap();
    let actions = server.handle_bytes(&response, T0);
    assert!(matches!(actions.event, Some(LlcEvent::LinkConfirmed(_))));
    assert!(client.is_active() && server.is_active());
    (client, server)
}

fn rtoken(rkey: u32) -> RToken {
    RToken {
        rkey: RKey(rkey),
        vaddr: 0x1000,
    }
}

#[test]
fn first_contact() {
    let (client, server) = pair();
    assert_eq!(client.link(), server.link());
}

#[test]
fn first_contact_with_the_wrong_peer_or_none() {
    for role in [Role::Client, Role::Server] {
        let mut flow = LinkFlow::new(params(role));
        flow.start(T0);
        if role == Role::Server {
            let again = flow.poll_timeout().unwrap();
            assert!(flow.on_timeout(again).send.is_some());
        }
        let at = flow.poll_timeout().unwrap();
        assert!(flow.on_timeout(Millis(at.0 - 1)).is_empty());
        let failed = LlcEvent::ConfirmFailed(ConfirmFailure::Timeout);
        assert_eq!(flow.on_timeout(at).event, Some(failed));
        assert!(flow.on_timeout(at).is_empty());
        assert_eq!(flow.poll_timeout(), None);
    }
    let mut stranger = LinkFlow::new(LinkParams {
        qpn: Qpn24::from_low_bits(99),
        ..params(Role::Server)
    });
    let mut client = LinkFlow::new(params(Role::Client));
    client.start(T0);
    let actions = client.handle_bytes(&stranger.start(T0).send.unwrap(), T0);
    let failed = LlcEvent::ConfirmFailed(ConfirmFailure::WrongPeer);
    assert_eq!(actions.event, Some(failed));
}

#[test]
fn a_confirm_link_that_was_dropped_is_repeated_once() {
    let mut server = LinkFlow::new(params(Role::Server));
    let mut client = LinkFlow::new(params(Role::Client));
    let dropped = server.start(T0).send.unwrap();
    client.start(T0);
    let at = T0.after(CONFIRM_LINK_AGAIN);
    assert_eq!(server.poll_timeout(), Some(at));
    let request = server.on_timeout(at).send.unwrap();
    assert_eq!(request, dropped);
    assert_eq!(server.poll_timeout(), Some(T0.after(CONFIRM_LINK_WAIT)));
    assert!(server.on_timeout(at.after(CONFIRM_LINK_AGAIN)).is_empty());
    let asked = client.handle_bytes(&request, at).event;
    assert!(matches!(asked, Some(LlcEvent::ConfirmLinkReceived(_))));
    // The first one was late only: one answer does.
    let again = Some(LlcEvent::Dropped);
    assert_eq!(client.handle_bytes(&dropped, at).event, again);
    let response = client.confirm_link_ready(at).send.unwrap();
    let confirmed = server.handle_bytes(&response, at).event;
    assert!(matches!(confirmed, Some(LlcEvent::LinkConfirmed(_))));
    assert_eq!(client.handle_bytes(&dropped, at).event, again);
    assert!(client.is_active() && server.is_active());
}

#[test]
fn eye_catchers_are_refused() {
    let mut server = LinkFlow::new(params(Role::Server));
    let mut client = LinkFlow::new(params(Role::Client));
    client.start(T0);
    let mut request = server.start(T0).send.unwrap();
    request[3] = 0;
    let failed = LlcEvent::ConfirmFailed(ConfirmFailure::EyeCatcher);
    assert_eq!(client.handle_bytes(&request, T0).event, Some(failed));
}

#[test]
fn rkeys_are_confirmed_and_deleted_both_ways() {
    let (mut a, mut b) = pair();
    for _ in 0..2 {
        let request = a
            .confirm_rkey(rtoken(7), NO_OTHERS, T0)
            .unwrap()
            .send
            .unwrap();
        assert_eq!(a.confirm_rkey(rtoken(8), NO_OTHERS, T0), Err(Busy));
        let Some(LlcEvent::PeerRkey(msg)) = b.handle_bytes(&request, T0).event else {
            panic!("no rkey");
        };
        assert_eq!((msg.rtoken, msg.other_links), (rtoken(7), 0));
        let answer = b.answer_confirm_rkey(&msg, Learned::Yes);
        let done = LlcEvent::RequestDone(Request::ConfirmRkey(RKey(7)));
        assert_eq!(a.handle_bytes(&answer, T0).event, Some(done));
        // A second answer is about nothing.
        let dropped = Some(LlcEvent::Dropped);
        assert_eq!(a.handle_bytes(&answer, T0).event, dropped);

        let request = a.delete_rkey(RKey(7), T0).unwrap().send.unwrap();
        let Some(LlcEvent::PeerRkeysDeleted(msg)) = b.handle_bytes(&request, T0).event else {
            panic!("no rkeys");
        };
        assert!(msg.iter().eq([RKey(7)]));
        let answer = b.answer_delete_rkey(&msg, 0x8000);
        let done = LlcEvent::RequestDone(Request::DeleteRkey(RKey(7)));
        assert_eq!(a.handle_bytes(&answer, T0).event, Some(done));
        core::mem::swap(&mut a, &mut b);
    }
}

#[test]
fn refusals_and_silence_are_reported() {
    let (mut a, mut b) = pair();
    let request = a
        .confirm_rkey(rtoken(7), NO_OTHERS, T0)
        .unwrap()
        .send
        .unwrap();
    let Some(LlcEvent::PeerRkey(msg)) = b.handle_bytes(&request, T0).event else {
        panic!("no rkey");
    };
    // RFC 7609, appendix A.3.5: for now, or for good.
    for (learned, retry) in [(Learned::Later, true), (Learned::No, false)] {
        let refused = LlcEvent::RequestRefused {
            request: Request::ConfirmRkey(RKey(7)),
            retry,
        };
        let answer = b.answer_confirm_rkey(&msg, learned);
        assert_eq!(a.handle_bytes(&answer, T0).event, Some(refused));
        a.confirm_rkey(rtoken(7), NO_OTHERS, T0).unwrap();
    }
    let answer = b.answer_confirm_rkey(&msg, Learned::Yes);
    let done = LlcEvent::RequestDone(Request::ConfirmRkey(RKey(7)));
    assert_eq!(a.handle_bytes(&answer, T0).event, Some(done));

    a.confirm_rkey(rtoken(9), NO_OTHERS, T0).unwrap();
    let at = a.poll_timeout().unwrap();
    assert_eq!(at, T0.after(RESPONSE_WAIT));
    let timed_out = LlcEvent::RequestTimedOut(Request::ConfirmRkey(RKey(9)));
    assert_eq!(a.on_timeout(at).event, Some(timed_out));
    assert!(a.confirm_rkey(rtoken(9), NO_OTHERS, at).is_ok());
}

#[test]
fn an_idle_link_is_tested() {
    let (mut a, mut b) = pair();
    let at = a.poll_timeout().unwrap();
    assert_eq!(at, T0.after(30_000));
    a.on_activity(Millis(5_000));
    assert!(a.on_timeout(at).is_empty());
    let at = a.poll_timeout().unwrap();
    let test = a.on_timeout(at).send.unwrap();
    let answer = b.handle_bytes(&test, at).send.unwrap();
    assert_eq!(answer[4..20], test[4..20]);
    assert!(a.handle_bytes(&answer, at.after(10)).is_empty());
    assert_eq!(a.poll_timeout(), Some(at.after(10).after(30_000)));

    let at = a.poll_timeout().unwrap();
    assert!(a.on_timeout(at).send.is_some());
    let at = a.poll_timeout().unwrap();
    assert_eq!(a.on_timeout(at).event, Some(LlcEvent::LinkDown));
    assert_eq!(a.poll_timeout(), None);
}

#[test]
fn a_doubtful_link_is_tested_at_once() {
    let (mut a, mut b) = pair();
    // Nobody tests an idle link.
    a.params.test_link_time = 0;
    assert_eq!(a.poll_timeout(), None);
    let test = a.probe(T0).send.unwrap();
    assert!(a.probe(T0).is_empty(), "once is enough");
    let answer = b.handle_bytes(&test, T0).send.unwrap();
    a.handle_bytes(&answer, T0);
    assert_eq!(a.poll_timeout(), None);

    a.probe(T0);
    let at = a.poll_timeout().unwrap();
    assert_eq!(a.on_timeout(at).event, Some(LlcEvent::LinkDown));
    assert!(a.probe(at).is_empty());
    assert!(LinkFlow::new(params(Role::Client)).probe(T0).is_empty());
}

#[test]
fn groups_end_from_either_side() {
    let reason = DeleteReason::PROGRAM;
    let orderly = true;
    let end = Some(LlcEvent::Terminate { reason, orderly });

    let (mut client, mut server) = pair();
    let actions = client.handle_bytes(&server.terminate(reason, orderly), T0);
    assert_eq!((actions.send, actions.event), (None, end));

    let (mut client, mut server) = pair();
    let actions = server.handle_bytes(&client.terminate(reason, orderly), T0);
    assert_eq!(actions.event, end);
    let msg = LlcMessage::parse(&actions.send.unwrap()).unwrap();
    assert!(!msg.response && matches!(msg.body, LlcBody::DeleteLink(d) if d.all));
    // The client has ended: it does not care any more.
    assert!(client.handle_bytes(&actions.send.unwrap(), T0).is_empty());
    assert!(!server.is_active());
}

#[test]
fn keys_on_other_links_are_told() {
    let (mut a, mut b) = pair();
    let other = (LinkNumber(2), rtoken(70));
    let request = a.confirm_rkey(rtoken(7), [None, Some(other)], T0).unwrap();
    let actions = b.handle_bytes(&request.send.unwrap(), T0);
    let Some(LlcEvent::PeerRkey(msg)) = actions.event else {
        panic!("no rkey");
    };
    assert_eq!((msg.rtoken, msg.other_links), (rtoken(7), 1));
    assert_eq!(msg.others[0], other);
}

#[test]
fn single_links_are_deleted_by_number() {
    let (mut client, mut server) = pair();
    let reason = DeleteReason::LOST_PATH;
    // The client's wish is the server's order, which the client answers.
    let wish = client.delete_link(LinkNumber(2), reason);
    let Some(LlcEvent::DeleteLink(msg)) = server.handle_bytes(&wish, T0).event else {
        panic!("no wish");
    };
    assert_eq!((msg.link, msg.all), (LinkNumber(2), false));
    let order = server.answer_delete_link(&msg, true);
    let Some(LlcEvent::DeleteLink(msg)) = client.handle_bytes(&order, T0).event else {
        panic!("no order");
    };
    let answer = client.answer_delete_link(&msg, true);
    let done = server.handle_bytes(&answer, T0).event;
    assert_eq!(done, Some(LlcEvent::LinkDeleted(msg)));
    // A link that is not there.
    let answer = client.answer_delete_link(&msg, false);
    let Some(LlcEvent::LinkDeleted(msg)) = server.handle_bytes(&answer, T0).event else {
        panic!("no answer");
    };
    assert_eq!(msg.reason, DeleteReason::UNKNOWN_LINK);
    assert!(client.is_active() && server.is_active());
}

#[test]
fn links_are_offered_and_asked_for() {
    for version in [LlcVersion::V1, LlcVersion::V2] {
        let (mut client, mut server) = pair();
        client.params.version = version;
        server.params.version = version;
        let msg = AddLink {
            mac: Mac([9; 6]),
            gid: Gid([9; 16]),
            qpn: Qpn24::from_low_bits(9),
            link: LinkNumber(2),
            mtu: None,
            psn: Psn24::from_low_bits(1),
            rejected: None,
        };
        let offer = server.add_link(false, &msg, None);
        let offered = LlcEvent::AddLink {
            msg,
            response: false,
        };
        assert_eq!(client.handle_bytes(&offer, T0).event, Some(offered));
        let reject = Some(AddLinkReject::NO_ALTERNATE_PATH);
        let answer = client.add_link(true, &msg, reject);
        let v1 = version == LlcVersion::V1;
        assert_eq!((answer[2], answer[3]), (u8::from(v1), 0xc0));
        let Some(LlcEvent::AddLink { msg, response }) = server.handle_bytes(&answer, T0).event
        else {
            panic!("no answer");
        };
        assert!(response && msg.rejected.is_some());
        let wish = client.request_link(msg.gid, msg.mac);
        match server.handle_bytes(&wish, T0).event {
            Some(LlcEvent::AddLink { response, .. }) => assert!(v1 && !response),
            event => assert_eq!((event, v1), (Some(LlcEvent::LinkRequested), false)),
        }
        let keys = AddLinkContinuation {
            link: LinkNumber(2),
            rtokens_left: 1,
            pairs: [(RKey(1), rtoken(2)); 2],
        };
        let bytes = client.add_link_keys(&keys);
        if v1 {
            let event = LlcEvent::AddLinkKeys {
                msg: keys,
                response: true,
            };
            assert_eq!(server.handle_bytes(&bytes, T0).event, Some(event));
        }
    }
}

#[test]
fn unknown_types_end_the_group() {
    let (mut client, _) = pair();
    let mut bytes = [0u8; LLC_LEN];
    (bytes[0], bytes[1]) = (0x3f, 44);
    let actions = client.handle_bytes(&bytes, T0);
    assert_eq!(actions.event, Some(LlcEvent::Violation));
    let LlcBody::DeleteLink(said) = LlcMessage::parse(&actions.send.unwrap()).unwrap().body else {
        panic!("it says something else");
    };
    assert_eq!(said.reason, DeleteReason::PROTOCOL_VIOLATION);
    assert!(client.handle_bytes(&bytes, T0).is_empty());
}

#[test]
fn nothing_but_confirm_link_before_the_link_is_confirmed() {
    let (mut a, _) = pair();
    let request = a
        .confirm_rkey(rtoken(7), NO_OTHERS, T0)
        .unwrap()
        .send
        .unwrap();
    let mut client = LinkFlow::new(params(Role::Client));
    client.start(T0);
    let dropped = Some(LlcEvent::Dropped);
    assert_eq!(client.handle_bytes(&request, T0).event, dropped);
    assert_eq!(client.confirm_rkey(rtoken(1), NO_OTHERS, T0), Err(Busy));
    assert!(client.confirm_link_ready(T0).is_empty());
}

#[test]
fn messages_of_the_other_version_are_dropped() {
    let (mut client, mut server) = pair();
    let mut request = server
        .confirm_rkey(rtoken(7), NO_OTHERS, T0)
        .unwrap()
        .send
        .unwrap();
    request[0] &= 0x0f;
    let dropped = Some(LlcEvent::Dropped);
    assert_eq!(client.handle_bytes(&request, T0).event, dropped);
}

#[test]
fn the_number_of_an_added_link_is_known() {
    for (number, other) in [(2, false), (3, true)] {
        let params = |role, link| LinkParams {
            link: LinkNumber(link),
            ..params(role)
        };
        let mut client = LinkFlow::new(params(Role::Client, 2));
        let mut server = LinkFlow::new(params(Role::Server, number));
        assert!(client.start(T0).is_empty());
        let request = server.start(T0).send.unwrap();
        let event = client.handle_bytes(&request, T0).event;
        let wrong = Some(LlcEvent::ConfirmFailed(ConfirmFailure::WrongPeer));
        assert_eq!(event == wrong, other, "{event:?}");
    }
}

#[test]
fn keys_that_come_first_have_their_time() {
    let mut client = LinkFlow::new(params(Role::Client));
    client.start(T0);
    client.wait_longer(30_000);
    // As many keys as both can have, told slowly.
    let late = T0.after(CONFIRM_LINK_CLIENT_WAIT + 20_000);
    assert!(client.on_timeout(late).is_empty());
    let mut server = LinkFlow::new(params(Role::Server));
    let request = server.start(late).send.unwrap();
    let event = client.handle_bytes(&request, late).event;
    assert!(matches!(event, Some(LlcEvent::ConfirmLinkReceived(_))));
    // It is not for a server, which asks, nor does it wake what is over.
    let at = server.poll_timeout();
    server.wait_longer(30_000);
    assert_eq!(server.poll_timeout(), at);
    client.confirm_link_ready(late);
    client.wait_longer(30_000);
    assert!(client.is_active());
}
