// SPDX-License-Identifier: GPL-2.0

//! The state machines of a link group against a peer that says anything at any time: a [`LinkFlow`] for each link, the
//! [`LinksFlow`] of the group and the table of the peer's tokens, put together as `core/group.rs` does it.

use super::{
    common::vector,
    Script, //
};
use smc_proto::smc_core::{
    llc::{
        flow::*,
        links::{
            judge_offer,
            LinksFlow,
            News, //
        },
        wire::*, //
    },
    rtoken::*,
    time::Millis,
    types::*,
};
use std::fs;

const PEER_GID: Gid = Gid([2; 16]);
const PEER_QPN: u32 = 2;

struct Link {
    flow: LinkFlow,
    ended: bool,
    /// Requests of ours that are not answered.
    asked: u32,
    /// What we have said last.
    said: Option<LlcMessage>,
}

struct Group {
    role: Role,
    version: LlcVersion,
    max_links: u8,
    now: Millis,
    links: [Option<Link>; PLACES],
    adding: LinksFlow,
    tokens: RTokenTable<Vec<Row>>,
}

impl Group {
    fn new(
        role: Role,
        version: LlcVersion,
        max_links: u8,
        test_link_time: u32,
        rows: usize,
        first: LinkNumber,
    ) -> Self {
        let mut group = Self {
            role,
            version,
            max_links,
            now: Millis(0),
            links: [const { None }; PLACES],
            adding: LinksFlow::new(role, first),
            tokens: RTokenTable::new(vec![EMPTY; rows]),
        };
        let first = match role {
            Role::Client => LinkNumber(0),
            Role::Server => first,
        };
        group.make_link(0, first, test_link_time);
        group
    }

    fn make_link(&mut self, place: usize, number: LinkNumber, test_link_time: u32) {
        let mut link = Link {
            flow: LinkFlow::new(LinkParams {
                role: self.role,
                version: self.version,
                mac: Mac([1; 6]),
                gid: Gid([1; 16]),
                qpn: Qpn24::from_low_bits(1),
                user_id: LinkUserId(1),
                peer_gid: PEER_GID,
                peer_qpn: Qpn24::from_low_bits(PEER_QPN),
                link: number,
                max_links: self.max_links,
                max_conns: 255,
                test_link_time,
            }),
            ended: false,
            asked: 0,
            said: None,
        };
        let actions = link.flow.start(self.now);
        self.links[place] = Some(link);
        self.act(place, actions);
    }

    fn has(&self, number: LinkNumber) -> bool {
        let mut links = self.links.iter().flatten();
        links.any(|link| link.flow.link() == number)
    }

    fn active(&self) -> usize {
        let links = self.links.iter().flatten();
        links.filter(|link| link.flow.is_active()).count()
    }

    /// What we send is well formed, and of the version of the group.
    fn check(&mut self, place: usize, bytes: &[u8; LLC_LEN]) {
        let message = LlcMessage::parse(bytes).expect("our own is valid");
        assert_eq!(message.version, self.version);
        if let Some(link) = &mut self.links[place] {
            link.said = Some(message);
        }
    }

    /// Does what the flow at `place` says.
    fn act(&mut self, place: usize, actions: Actions) {
        if let Some(bytes) = &actions.send {
            assert!(
                self.links[place].as_ref().is_some_and(|link| !link.ended),
                "speaks after its end"
            );
            self.check(place, bytes);
        }
        let Some(event) = actions.event else {
            return;
        };
        let Some(link) = self.links[place].as_mut() else {
            unreachable!("it has acted");
        };
        if event == LlcEvent::Dropped {
            return;
        }
        assert!(!link.ended, "{event:?} after the end");
        let answer = match event {
            LlcEvent::ConfirmLinkReceived(_) => {
                assert_eq!(self.role, Role::Client);
                assert!(!link.flow.is_active());
                None
            }
            LlcEvent::LinkConfirmed(_) => {
                assert_eq!(self.role, Role::Server);
                assert!(link.flow.is_active());
                None
            }
            LlcEvent::ConfirmFailed(_)
            | LlcEvent::LinkDown
            | LlcEvent::Terminate { .. }
            | LlcEvent::Violation => {
                link.ended = true;
                link.asked = 0;
                assert!(!link.flow.is_active());
                assert_eq!(link.flow.poll_timeout(), None);
                self.adding.give_up(link.flow.link());
                None
            }
            LlcEvent::RequestDone(_)
            | LlcEvent::RequestRefused { .. }
            | LlcEvent::RequestTimedOut(_) => {
                assert_eq!(link.asked, 1, "{event:?} of what was not asked");
                link.asked = 0;
                None
            }
            LlcEvent::PeerRkey(request) => {
                let said = self.adding.is_said();
                let taken = !said && self.enter(place, request.rtoken);
                let others = request.others.iter().take(request.other_links.into());
                for (number, token) in others {
                    let mut links = self.links.iter();
                    let other =
                        links.position(|l| l.as_ref().is_some_and(|l| l.flow.link() == *number));
                    if let (true, Some(other)) = (taken, other) {
                        self.tokens
                            .add_other(place, request.rtoken.rkey, other, *token);
                    }
                }
                let learned = if taken { Learned::Yes } else { Learned::Later };
                self.flow(place)
                    .map(|flow| flow.answer_confirm_rkey(&request, learned))
            }
            LlcEvent::PeerRkeysDeleted(request) => {
                let mut missing = 0u16;
                for (n, rkey) in request.iter().enumerate() {
                    assert!(n < 9);
                    if self.tokens.remove(place, rkey).is_none() {
                        missing |= 0x8000 >> n;
                    }
                    assert_eq!(self.tokens.other(place, rkey, place), None);
                }
                self.flow(place)
                    .map(|flow| flow.answer_delete_rkey(&request, missing))
            }
            LlcEvent::AddLink { msg, response } => self.add_link(place, &msg, response),
            LlcEvent::AddLinkKeys { msg, response } => {
                self.keys(place, &msg, response);
                None
            }
            LlcEvent::LinkRequested => {
                assert_eq!(self.role, Role::Server);
                None
            }
            LlcEvent::DeleteLink(request) => {
                self.delete_link(place, &request);
                None
            }
            LlcEvent::LinkDeleted(_) => None,
            LlcEvent::Dropped => None,
        };
        if let Some(bytes) = answer {
            self.check(place, &bytes);
        }
    }

    /// Another address for a known key is another RMB: what was known of the one before is gone.
    fn enter(&mut self, place: usize, token: RToken) -> bool {
        let before = self.tokens.other(place, token.rkey, place);
        let entered = self.tokens.add(place, token).is_ok();
        if before.is_some_and(|before| before != token) {
            for other in (0..PLACES).filter(|other| *other != place) {
                assert_eq!(self.tokens.other(place, token.rkey, other), None);
            }
        }
        entered
    }

    fn flow(&mut self, place: usize) -> Option<&mut LinkFlow> {
        self.links[place].as_mut().map(|link| &mut link.flow)
    }

    fn add_link(&mut self, place: usize, msg: &AddLink, response: bool) -> Option<[u8; LLC_LEN]> {
        let news = if self.role == Role::Client && (self.max_links < 2 || self.has(msg.link)) {
            News::Reject(AddLinkReject::NO_ALTERNATE_PATH)
        } else {
            self.adding.on_add_link(msg, response)
        };
        match news {
            News::Offer(peer) => {
                assert!(self.role == Role::Client && !response);
                assert!(peer.qpn.value() != 0 && peer.link.0 != 0 && peer.mtu.is_some());
                assert_eq!(self.adding.number(), peer.link);
                None
            }
            News::Accepted(peer) => {
                assert!(self.role == Role::Server && response);
                assert!(peer.qpn.value() != 0 && peer.rejected.is_none() && peer.mtu.is_some());
                assert!(self.adding.is_known() && !self.adding.has_failed());
                None
            }
            News::Rejected => {
                assert!(self.adding.has_failed());
                None
            }
            News::Reject(reason) => {
                assert_eq!(self.role, Role::Client);
                self.flow(place)
                    .map(|flow| flow.add_link(true, msg, Some(reason)))
            }
            News::Invited => {
                assert_eq!(self.role, Role::Server);
                None
            }
            News::Keys(_) => unreachable!("no keys have come"),
            News::Dropped => None,
        }
    }

    fn keys(&mut self, place: usize, msg: &AddLinkContinuation, response: bool) {
        let mut links = self.links.iter();
        let new = links.position(|l| l.as_ref().is_some_and(|l| l.flow.link() == msg.link));
        if let Some(new) = new {
            for (rkey, token) in msg.pairs.iter().take(msg.rtokens_left.into()) {
                self.tokens.add_other(place, *rkey, new, *token);
            }
        }
        if let News::Keys(_) = self.adding.on_keys(msg, response) {
            assert!(self.adding.keys_here() && self.adding.number() == msg.link);
        }
    }

    fn delete_link(&mut self, place: usize, request: &DeleteLink) {
        let mut links = self.links.iter();
        let gone = links.position(|l| l.as_ref().is_some_and(|l| l.flow.link() == request.link));
        let mut via = place;
        if let Some(gone) = gone {
            if self.adding.give_up(request.link) {
                assert!(self.adding.has_failed());
            } else if self.active() > 1 {
                self.lose(gone);
                let mut links = self.links.iter();
                via = links
                    .position(|l| l.as_ref().is_some_and(|l| l.flow.is_active()))
                    .unwrap_or(place);
            } else if let Some(link) = self.links[place].as_mut() {
                // Without its only link the group ends.
                let bytes = match self.role {
                    Role::Server => {
                        link.ended = true;
                        link.asked = 0;
                        link.flow.terminate(request.reason, request.orderly)
                    }
                    Role::Client => link.flow.answer_delete_link(request, true),
                };
                self.check(place, &bytes);
                return;
            }
        }
        let answer = self.flow(via);
        if let Some(bytes) = answer.map(|flow| flow.answer_delete_link(request, gone.is_some())) {
            self.check(via, &bytes);
        }
    }

    fn lose(&mut self, place: usize) {
        self.links[place] = None;
        self.tokens.forget_link(place);
    }

    /// Time has passed: timers do not spin, and none is forgotten.
    fn tick(&mut self) {
        for place in 0..PLACES {
            for round in 0.. {
                let now = self.now;
                let Some(flow) = self.flow(place) else {
                    break;
                };
                let actions = flow.on_timeout(now);
                if actions.is_empty() {
                    break;
                }
                assert!(round < 4, "spinning");
                self.act(place, actions);
            }
            let now = self.now;
            let next = self.flow(place).and_then(|flow| flow.poll_timeout());
            assert!(next.is_none_or(|at| !at.reached(now)), "a timer is late");
        }
        let late = self.adding.on_timeout(self.now);
        assert!(!late || self.adding.has_failed());
        let next = self.adding.poll_timeout();
        assert!(next.is_none_or(|at| !at.reached(self.now)));
    }

    /// What the fair peer would say to what we have said last.
    fn answer_to(&self, place: usize) -> Option<LlcMessage> {
        let said = self.links[place].as_ref()?.said?;
        let body = match said.body {
            LlcBody::ConfirmLink(confirm) => LlcBody::ConfirmLink(of_peer(confirm.link)),
            LlcBody::AddLink(add) => LlcBody::AddLink(AddLink {
                gid: PEER_GID,
                qpn: Qpn24::from_low_bits(PEER_QPN),
                ..add
            }),
            other => other,
        };
        Some(LlcMessage {
            response: true,
            body,
            ..said
        })
    }
}

/// CONFIRM LINK as the right peer sends it.
fn of_peer(link: LinkNumber) -> ConfirmLink {
    ConfirmLink {
        mac: Mac([2; 6]),
        gid: PEER_GID,
        qpn: Qpn24::from_low_bits(PEER_QPN),
        link,
        user_id: LinkUserId(2),
        max_links: 2,
        max_conns: 255,
        no_eyecatcher: true,
    }
}

fn token(script: &mut Script<'_>) -> RToken {
    // Few, so that they meet.
    let rkey = u32::from(script.u8() & 0x0f);
    RToken {
        rkey: RKey(rkey),
        vaddr: u64::from(script.u8() & 3) << 12,
    }
}

/// A message whose fields are often right.
fn message(script: &mut Script<'_>, version: LlcVersion) -> LlcMessage {
    let kind = script.u8();
    let flags = script.u8();
    let bit = |n: u8| flags & (1 << n) != 0;
    let link = LinkNumber(script.u8() & 7);
    let body = match kind % 9 {
        0 => {
            let fair = of_peer(link);
            LlcBody::ConfirmLink(ConfirmLink {
                qpn: Qpn24::from_low_bits(PEER_QPN + u32::from(bit(1))),
                no_eyecatcher: !bit(2),
                ..fair
            })
        }
        1 => LlcBody::AddLink(AddLink {
            mac: Mac([2; 6]),
            gid: if bit(1) { Gid([3; 16]) } else { PEER_GID },
            qpn: Qpn24::from_low_bits(if bit(2) { 0 } else { 7 }),
            link,
            mtu: (!bit(3)).then_some(Mtu::Mtu1024),
            psn: Psn24::from_low_bits(5),
            rejected: bit(4).then_some(AddLinkReject(script.u8() & 3)),
        }),
        2 => LlcBody::AddLinkContinuation(AddLinkContinuation {
            link,
            rtokens_left: script.u8() % 5,
            pairs: [0; 2].map(|_| (token(script).rkey, token(script))),
        }),
        3 => LlcBody::DeleteLink(DeleteLink {
            link,
            all: bit(1),
            orderly: bit(2),
            reason: DeleteReason(script.u32()),
        }),
        4 => LlcBody::RequestAddLink {
            gid_count: script.u8(),
            gid: PEER_GID,
        },
        5 | 6 => {
            let confirm = ConfirmRkey {
                other_links: script.u8() % 4,
                rtoken: token(script),
                others: [0; 2].map(|_| (LinkNumber(script.u8() & 7), token(script))),
                negative: bit(1),
                retry: bit(2),
            };
            if kind % 9 == 5 {
                LlcBody::ConfirmRkey(confirm)
            } else {
                LlcBody::ConfirmRkeyContinuation(confirm)
            }
        }
        7 => LlcBody::TestLink {
            user_data: [script.u8(); 16],
        },
        _ => LlcBody::DeleteRkey(DeleteRkey {
            count: script.u8() % 11,
            error: 0,
            rkeys: [0; 9].map(|_| token(script).rkey),
            negative: bit(1),
        }),
    };
    LlcMessage {
        version: if bit(7) { LlcVersion::V1 } else { version },
        response: bit(0),
        body,
    }
}

pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let what = script.u8();
    let role = if what & 1 != 0 {
        Role::Client
    } else {
        Role::Server
    };
    let version = if what & 2 != 0 {
        LlcVersion::V2
    } else {
        LlcVersion::V1
    };
    let test_link_time = [0, 1_000, 30_000, u32::MAX][usize::from((what >> 3) & 3)];
    // A full table is as good with few rows, and quicker.
    let rows = if what & 0x20 != 0 { MAX_RTOKENS } else { 20 };
    // The next number is none soon.
    let first = LinkNumber(if what & 0x40 != 0 { 254 } else { 1 });
    let max_links = if what & 4 != 0 { 1 } else { 2 };
    let mut group = Group::new(role, version, max_links, test_link_time, rows, first);

    for _ in 0..300 {
        if script.is_empty() {
            break;
        }
        let op = script.u8();
        let place = usize::from(op >> 6) % PLACES;
        let now = group.now;
        match op & 0x0f {
            // Any bytes.
            0 => {
                let bytes = script.piece();
                if let Some(flow) = group.flow(place) {
                    let actions = flow.handle_bytes(bytes, now);
                    group.act(place, actions);
                }
            }
            1..=3 => {
                let message = message(&mut script, version);
                let bytes = message.emit();
                // What is no message of that version is not read as another one.
                let read = LlcMessage::parse(&bytes);
                assert!(read.is_err() || read == Ok(message) || is_cut(&message));
                if let Some(flow) = group.flow(place) {
                    let actions = flow.handle_bytes(&bytes, now);
                    group.act(place, actions);
                }
            }
            4 => {
                if let Some(answer) = group.answer_to(place) {
                    if let Some(flow) = group.flow(place) {
                        let actions = flow.handle(&answer, now);
                        group.act(place, actions);
                    }
                }
            }
            5 => {
                group.now = now.after(script.u16().into());
                group.tick();
            }
            // Our own business.
            6 => {
                let (rtoken, delete) = (token(&mut script), script.flag());
                let others = [None, Some((LinkNumber(2), rtoken))];
                let Some(link) = group.links[place].as_mut() else {
                    continue;
                };
                let asked = if delete {
                    link.flow.delete_rkey(rtoken.rkey, now)
                } else {
                    link.flow.confirm_rkey(rtoken, others, now)
                };
                let free = link.asked == 0 && link.flow.is_active();
                assert_eq!(asked.is_ok(), free);
                if let Ok(actions) = asked {
                    link.asked = 1;
                    group.act(place, actions);
                }
            }
            7 => {
                if let Some(flow) = group.flow(place) {
                    let actions = flow.confirm_link_ready(now);
                    assert!(actions.is_empty() || flow.is_active());
                    group.act(place, actions);
                }
            }
            8 => {
                if let Some(flow) = group.flow(place) {
                    let actions = flow.probe(now);
                    group.act(place, actions);
                }
            }
            9 => {
                if let Some(flow) = group.flow(place) {
                    flow.on_activity(now);
                }
            }
            // The exchange about a link, as the work item goes on with it.
            10 => work(&mut group, &mut script, place, test_link_time),
            11 => {
                // The long ADD LINK of SMC-Rv2.
                let tail = script.piece();
                let other = script.below(PLACES);
                let mut count = 0;
                for (rkey, token) in add_link_keys(tail) {
                    group.tokens.add_other(place, rkey, other, token);
                    count += 1;
                }
                assert!(count <= MAX_ADD_LINK_KEYS && count * 16 <= tail.len());
            }
            12 => {
                let Some(link) = group.links[place].as_mut() else {
                    continue;
                };
                if !link.ended {
                    link.ended = true;
                    link.asked = 0;
                    let bytes = link.flow.terminate(DeleteReason::OPERATOR, script.flag());
                    group.check(place, &bytes);
                }
            }
            13 => group.lose(place),
            14 => {
                if !group.enter(place, token(&mut script)) {
                    assert_eq!(group.tokens.len(), rows);
                }
            }
            _ => {
                // Many tokens.
                let first = script.u32();
                for n in 0..=u32::from(script.u8()) {
                    let rkey = RKey(first.wrapping_add(n));
                    let entered = group.tokens.add(place, RToken { rkey, vaddr: 1 });
                    assert!(entered.is_ok() || group.tokens.len() == rows);
                }
            }
        }
        assert!(group.tokens.len() <= rows);
        assert!(!group.adding.is_idle() || !group.adding.is_said());
    }
    // What is known on one link is known by that on the other, or by nothing.
    for (a, b) in (0..PLACES).flat_map(|a| (0..PLACES).map(move |b| (a, b))) {
        for key in (0..16).map(RKey) {
            if let Some(found) = group.tokens.other(a, key, b) {
                let back = group.tokens.other(b, found.rkey, a);
                assert_eq!(back.map(|token| token.rkey), Some(key));
            }
        }
    }
    // However it stands: it ends by itself when nobody says anything more.
    for _ in 0..8 {
        group.now = group.now.after(40_000);
        group.tick();
    }
    for link in group.links.iter().flatten() {
        assert_eq!(link.asked, 0, "a request that waits for ever");
        if test_link_time == 1_000 || test_link_time == 30_000 {
            assert!(
                !link.flow.is_active(),
                "nobody is there, and the link is up"
            );
        }
    }
    assert_eq!(group.adding.poll_timeout(), None);
}

/// Whether what is written of it is less than what is in it.
fn is_cut(message: &LlcMessage) -> bool {
    match message.body {
        LlcBody::AddLink(add) => message.version == LlcVersion::V2 && add.rejected.is_some(),
        LlcBody::DeleteRkey(_) => true,
        _ => false,
    }
}

fn work(group: &mut Group, script: &mut Script<'_>, place: usize, test_link_time: u32) {
    let now = group.now;
    match script.u8() % 9 {
        0 => {
            let numbers = group
                .links
                .each_ref()
                .map(|link| link.as_ref().map(|link| link.flow.link()));
            let idle = group.adding.is_idle();
            let offered = group.adding.offer(|number| numbers.contains(&Some(number)));
            assert_eq!(offered.is_ok(), idle && group.role == Role::Server);
            if let Ok(number) = offered {
                assert!(number.0 != 0 && !numbers.contains(&Some(number)));
            }
        }
        1 => group.adding.offered(now),
        2 => group.adding.answered(),
        3 => group.adding.await_keys(now),
        4 => {
            let here = group.adding.keys_here();
            group.adding.keys_sent();
            assert!(!here || group.adding.is_known());
        }
        5 => {
            group.adding.done();
            assert!(group.adding.is_idle());
        }
        // Our end of the new link.
        6 => {
            let number = group.adding.number();
            if !group.adding.is_idle() && group.links[place].is_none() && !group.has(number) {
                group.make_link(place, number, test_link_time);
            }
        }
        7 => {
            let number = group.adding.number();
            if let Some(flow) = group.flow(place) {
                let msg = AddLink {
                    mac: Mac([1; 6]),
                    gid: Gid([1; 16]),
                    qpn: Qpn24::from_low_bits(9),
                    link: number,
                    mtu: Some(Mtu::Mtu1024),
                    psn: Psn24::from_low_bits(1),
                    rejected: None,
                };
                let bytes = flow.add_link(script.flag(), &msg, None);
                // As SMC-Rv2 sends it, with keys: they are read as they were written.
                let keys = (0..u32::from(script.u8())).map(|n| {
                    let new = RToken {
                        rkey: RKey(n + 1),
                        vaddr: n.into(),
                    };
                    (RKey(n), new)
                });
                let mut room = vec![0; ADD_LINK_MAX];
                if is_long_add_link(&bytes) {
                    let long = extend_add_link(&mut room, &bytes, PEER_GID, keys.clone());
                    let tail = &long.expect("there is room")[LLC_LEN..];
                    assert!(add_link_keys(tail).eq(keys));
                }
                group.check(place, &bytes);
            }
        }
        _ => {
            let (another, offered) = (script.flag(), script.flag());
            let offered = if offered { Gid([3; 16]) } else { PEER_GID };
            let judged = judge_offer(PEER_GID, offered, another);
            assert_eq!(judged.is_ok(), another || offered != PEER_GID);
            let keys = AddLinkContinuation {
                link: group.adding.number(),
                rtokens_left: 2,
                pairs: [(RKey(1), token(script)); 2],
            };
            if let Some(flow) = group.flow(place) {
                let bytes = flow.request_link(Gid([1; 16]), Mac([1; 6]));
                let delete = flow.delete_link(flow.link(), DeleteReason::LOST_PATH);
                let keys = flow.add_link_keys(&keys);
                group.check(place, &bytes);
                group.check(place, &delete);
                // There is no such message in SMC-Rv2, and nobody makes it there.
                if group.version == LlcVersion::V1 {
                    group.check(place, &keys);
                }
            }
        }
    }
}

/// One message of each type of both versions, with zeroes in the rest, and those of Linux.
pub fn messages() -> Vec<Vec<u8>> {
    let kinds = [
        0xfe, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x29, 0x80, 0x8a,
    ];
    let mut all: Vec<Vec<u8>> = Vec::new();
    for kind in kinds {
        for flags in [0, 0xff] {
            let mut message = vec![0; 44];
            (message[0], message[1], message[3]) = (kind, 44, flags);
            all.push(message);
        }
    }
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/linux");
    let files = fs::read_dir(dir).expect("vectors of Linux");
    let mut names: Vec<_> = files
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    for name in names {
        let name = name.trim_end_matches(".hex");
        all.push(vector(&format!("linux/{name}")));
    }
    all
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for what in [0x28, 0x09, 0x0a, 0x0b, 0x0e, 0x0f, 0x02, 0x03] {
        // The first link is confirmed: a server is answered; a client is asked, and ready.
        let confirmed: &[u8] = if what & 1 == 0 {
            &[what, 4]
        } else {
            &[what, 1, 0, 0, 1, 7]
        };
        let with = |rest: &[u8]| [confirmed, rest].concat();
        for message in messages() {
            let piece = [&[0, message.len() as u8], &message[..]].concat();
            all.push([&[what], &piece[..]].concat());
            all.push(with(&piece));
        }
        // Keys of both sides; TEST LINK, answered and not.
        all.push(with(&[
            6, 3, 0, 0, 4, 6, 3, 0, 1, 4, 6, 4, 1, 0, 5, 0x10, 0,
        ]));
        all.push(with(&[
            1, 5, 0, 0, 2, 1, 1, 2, 5, 2, 3, 6, 3, 1, 8, 0, 0, 2, 1,
        ]));
        all.push(with(&[5, 4, 0, 4, 5, 4, 0, 5, 0x20, 0, 8, 5, 0xff, 0xff]));
        // Another link.
        let added: &[u8] = if what & 1 == 0 {
            &[10, 0, 10, 6, 0x4a, 6, 10, 1, 10, 7, 0, 3, 4, 0x44, 10, 3]
        } else {
            &[1, 1, 0, 2, 0x4a, 6, 10, 2, 10, 3, 0x41, 0, 0, 2, 0x47]
        };
        let keys = [1, 2, !what & 1, 2, 2, 1, 1, 2, 1, 3, 1, 4, 1, 10, 4, 10, 5];
        all.push(with(&[added, &keys].concat()));
        all.push(with(&[
            10, 8, 0, 1, 1, 1, 10, 8, 0, 0, 1, 1, 10, 8, 1, 0, 1, 1,
        ]));
        // ... refused, late, deleted.
        all.push(with(&[
            1, 1, 0x0c, 2, 1, 1, 0x14, 2, 10, 0, 10, 1, 1, 1, 0x11, 2, 1,
        ]));
        all.push(with(&[10, 0, 10, 1, 5, 0x20, 0, 10, 5]));
        all.push([&[what | 0x40], &[10, 0, 10, 5].repeat(3)[..]].concat());
        // A key with another address, when it is known on another link.
        let pair = [0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
        let known = [&[14, 1, 1, 11, 44][..], &[0; 28], &pair, &[1, 14, 1, 2]];
        all.push(with(&known.concat()));
        all.push(with(
            &[added, &[1, 3, 0, 2, 0, 1, 0, 0, 0x41, 3, 1, 2]].concat(),
        ));
        all.push(with(&[1, 3, 0, 1, 0, 1, 0, 0]));
        all.push(with(&[1, 3, 6, 0, 0, 1, 0, 0]));
        all.push(with(&[15, 0, 0, 0, 0, 255, 14, 1, 1, 11, 60]));
    }
    all
}
