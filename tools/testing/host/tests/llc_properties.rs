// SPDX-License-Identifier: GPL-2.0

//! Properties of the LLC layer that hold for all values.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

use proptest::{
    collection::vec,
    prelude::*, //
};
use smc_proto::smc_core::{
    llc::{
        flow::*,
        wire::*, //
    },
    rtoken::*,
    time::Millis,
    types::*,
};

prop_compose! {
    /// Bytes that are nearly an LLC message: a known type, and a length that fits.
    fn nearly_llc()(
        mut bytes in vec(any::<u8>(), 0..60),
        kind in prop_oneof![
            8 => prop::sample::select(vec![1u8, 2, 3, 4, 6, 7, 8, 9]),
            8 => prop::sample::select(vec![0x21u8, 0x22, 0x24, 0x25, 0x26, 0x27, 0x29]),
            1 => any::<u8>(),
        ],
        flags in prop::sample::select(vec![0u8, 0x80, 0x03, 0x83, 0x40, 0xc0, 0xff]),
    ) -> Vec<u8> {
        if bytes.len() >= 4 {
            bytes[..4].copy_from_slice(&[kind, 44, 0, flags]);
        }
        bytes
    }
}

fn flow(role: Role, version: LlcVersion, test_link_time: u32) -> LinkFlow {
    LinkFlow::new(LinkParams {
        role,
        version,
        mac: Mac([1; 6]),
        gid: Gid([1; 16]),
        qpn: Qpn24::from_low_bits(1),
        user_id: LinkUserId(1),
        peer_gid: Gid([2; 16]),
        peer_qpn: Qpn24::from_low_bits(2),
        link: LinkNumber(1),
        max_links: 1,
        max_conns: 16,
        test_link_time,
    })
}

/// CONFIRM LINK as the right peer sends it.
fn peer_confirms(version: LlcVersion, response: bool) -> [u8; LLC_LEN] {
    LlcMessage {
        version,
        response,
        body: LlcBody::ConfirmLink(ConfirmLink {
            mac: Mac([2; 6]),
            gid: Gid([2; 16]),
            qpn: Qpn24::from_low_bits(2),
            link: LinkNumber(1),
            user_id: LinkUserId(2),
            max_links: 1,
            max_conns: 16,
            no_eyecatcher: true,
        }),
    }
    .emit()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn what_is_understood_can_be_said_again(bytes in nearly_llc()) {
        if let Ok(message) = LlcMessage::parse(&bytes) {
            prop_assert_eq!(LlcMessage::parse(&message.emit()), Ok(message));
        }
    }

    /// Whatever the peer says, and whenever: no panic, what we send is well formed, timers do not
    /// spin, and after its end a link is silent.
    #[test]
    fn a_hostile_peer_is_survived(
        client in any::<bool>(),
        v2 in any::<bool>(),
        confirmed in any::<bool>(),
        test_link_time in prop_oneof![Just(0u32), 1..100_000u32, Just(u32::MAX)],
        script in vec((nearly_llc(), 0..5_000u64, any::<bool>()), 0..50),
    ) {
        let role = if client { Role::Client } else { Role::Server };
        let version = if v2 { LlcVersion::V2 } else { LlcVersion::V1 };
        let mut flow = flow(role, version, test_link_time);
        let mut now = Millis(0);
        let mut ended = false;
        flow.start(now);
        if confirmed {
            flow.handle_bytes(&peer_confirms(version, !client), now);
            flow.confirm_link_ready(now);
            prop_assert!(flow.is_active());
        }
        for (bytes, pause, ask) in script {
            now = Millis(now.0 + pause);
            let mut all = vec![flow.handle_bytes(&bytes, now)];
            if ask {
                let rtoken = RToken { rkey: RKey(1), vaddr: 1 };
                all.extend(flow.confirm_rkey(rtoken, [None; 2], now));
            }
            for _ in 0..5 {
                all.push(flow.on_timeout(now));
            }
            prop_assert!(all.last().is_some_and(Actions::is_empty), "spinning");
            if let Some(at) = flow.poll_timeout() {
                prop_assert!(!at.reached(now));
            }
            for actions in all {
                if let Some(bytes) = actions.send {
                    prop_assert!(!ended, "speaks after its end");
                    let message = LlcMessage::parse(&bytes).unwrap();
                    prop_assert_eq!(message.version, version);
                }
                match actions.event {
                    Some(
                        LlcEvent::Terminate { .. }
                        | LlcEvent::Violation
                        | LlcEvent::LinkDown
                        | LlcEvent::ConfirmFailed(_),
                    ) => {
                        prop_assert!(!ended);
                        ended = true;
                        prop_assert!(!flow.is_active());
                    }
                    Some(LlcEvent::PeerRkey(msg)) => {
                        LlcMessage::parse(&flow.answer_confirm_rkey(&msg, Learned::Later)).unwrap();
                    }
                    Some(LlcEvent::PeerRkeysDeleted(msg)) => {
                        LlcMessage::parse(&flow.answer_delete_rkey(&msg, 0xa000)).unwrap();
                    }
                    _ => {}
                }
            }
        }
    }

    /// The table of tokens does what a map does, for each link.
    #[test]
    fn rtokens_are_a_map(
        script in vec((any::<bool>(), 0..400u32, 0..2u64, 0..PLACES), 0..1000),
    ) {
        let mut table = RTokenTable::new(vec![EMPTY; MAX_RTOKENS]);
        let mut model = std::collections::HashMap::new();
        for (add, key, vaddr, place) in script {
            let rkey = RKey(key);
            let token = RToken { rkey, vaddr };
            if add {
                let full = model.len() == MAX_RTOKENS && !model.contains_key(&(place, key));
                prop_assert_eq!(table.add(place, token), if full { Err(Full) } else { Ok(()) });
                if !full {
                    model.insert((place, key), token);
                }
            } else {
                let known = model.remove(&(place, key)).is_some();
                prop_assert_eq!(table.remove(place, rkey).is_some(), known);
            }
            prop_assert_eq!(table.len(), model.len());
            let found = table.other(place, rkey, place);
            prop_assert_eq!(found, model.get(&(place, key)).copied());
        }
    }

    /// Whatever is entered: what is known on one link is known by that on the other, or by nothing.
    #[test]
    fn rtokens_of_links_belong_together(
        script in vec((0..PLACES, 0..8u32, 0..PLACES, 0..8u32, 0..4u8), 0..200),
    ) {
        let mut table = RTokenTable::new(vec![EMPTY; 10]);
        for (place, key, other, other_key, what) in script {
            let token = |key| RToken { rkey: RKey(key), vaddr: u64::from(key) };
            match what {
                0 | 1 => {
                    let _ = table.add(place, token(key));
                    table.add_other(place, RKey(key), other, token(other_key));
                }
                2 => {
                    table.remove(place, RKey(key));
                }
                _ => table.forget_link(place),
            }
            for (a, b) in (0..PLACES).flat_map(|a| (0..PLACES).map(move |b| (a, b))) {
                for key in 0..8 {
                    if let Some(found) = table.other(a, RKey(key), b) {
                        prop_assert_eq!(table.other(b, found.rkey, a), Some(token(key)));
                    }
                }
            }
        }
    }
}
