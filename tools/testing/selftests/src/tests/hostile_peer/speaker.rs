//! An SMC-Rv2.1 host of our own: CLC over a TCP of packet sockets, LLC, CDC and data over verbs. It lives on host A
//! beside that one's own SMC, with which it shares the RDMA device; its peer is a socket of host B.
//!
//! It knows the protocol from RFC 7609 and the message formats, and shares no code with the module. Each step
//! of a connection is a method, so that a test can leave one out, or say something else in its place.

use crate::kind::Host;
use crate::sys;
use crate::tests::hostile::{next_port, EYE};
use crate::tests::raw::{Listening, RawPeer};
use crate::verbs::{Came, FarEnd, QueuePair};
use crate::{check, check_eq, Context, Fail, Outcome};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Bytes of every LLC and CDC message (RFC 7609, appendices A.3 and A.4).
pub const LEN: usize = 44;
/// First byte of a CDC message.
pub const CDC: u8 = 0xfe;
/// Types of LLC messages of SMC-Rv2.
pub mod llc {
    pub const CONFIRM_LINK: u8 = 0x21;
    pub const ADD_LINK: u8 = 0x22;
    pub const DELETE_LINK: u8 = 0x24;
    pub const REQUEST_ADD_LINK: u8 = 0x25;
    pub const CONFIRM_RKEY: u8 = 0x26;
    pub const TEST_LINK: u8 = 0x27;
    pub const DELETE_RKEY: u8 = 0x29;
    /// Flag of all of them: an answer.
    pub const ANSWER: u8 = 0x80;
    /// DELETE LINK: all links.
    pub const ALL: u8 = 0x40;
    /// CONFIRM LINK: no eye catchers in RMBs.
    pub const NO_EYECATCHER: u8 = 0x03;
}
/// Flags of CDC messages about the data.
pub mod producer {
    pub const BLOCKED: u8 = 0x80;
    pub const URGENT_PENDING: u8 = 0x40;
    pub const URGENT_PRESENT: u8 = 0x20;
    pub const UPDATE_REQUESTED: u8 = 0x10;
    pub const FAILOVER: u8 = 0x08;
}
/// Flags of CDC messages about the connection.
pub mod state {
    pub const DONE_WRITING: u8 = 0x80;
    pub const CLOSED: u8 = 0x40;
    pub const ABORT: u8 = 0x20;
}

const MAC_A: [u8; 6] = [2, 0, 0, 9, 0, 1];
/// Size of our rings: code 0 of the Accept and Confirm.
const RING: usize = 16384;
const TOKEN: u32 = 0x0b5e_0007;
/// Behind what the endpoints of Accept and Confirm have in common, without a first contact.
const SHORT: usize = 104;
/// Valid, and immediates.
const VENDOR_IMMEDIATE: u32 = 0xc000_0000;
const PATIENCE: Duration = Duration::from_secs(20);

/// What our host offers, or agrees to.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub immediates: bool,
    pub links: u8,
}

impl Offer {
    pub const PLAIN: Offer = Offer {
        immediates: false,
        links: 1,
    };
    pub const IMMEDIATES: Offer = Offer {
        immediates: true,
        links: 1,
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// A position in a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    pub wrap: u16,
    pub count: u32,
}

impl Cursor {
    pub const fn at(wrap: u16, count: u32) -> Cursor {
        Cursor { wrap, count }
    }

    fn advance(&mut self, by: usize, ring: usize) {
        let count = self.count as usize + by;
        if count >= ring {
            self.wrap = self.wrap.wrapping_add(1);
        }
        self.count = (count % ring) as u32;
    }
}

/// A CDC message (RFC 7609, appendix A.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cdc {
    pub sequence: u16,
    pub token: u32,
    pub producer: Cursor,
    pub consumer: Cursor,
    pub flags: u8,
    pub state: u8,
}

impl Cdc {
    pub fn bytes(&self) -> [u8; LEN] {
        let mut all = [0; LEN];
        all[0] = CDC;
        all[1] = LEN as u8;
        all[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        all[4..8].copy_from_slice(&self.token.to_be_bytes());
        for (at, cursor) in [(8, self.producer), (16, self.consumer)] {
            all[at + 2..at + 4].copy_from_slice(&cursor.wrap.to_be_bytes());
            all[at + 4..at + 8].copy_from_slice(&cursor.count.to_be_bytes());
        }
        all[24] = self.flags;
        all[25] = self.state;
        all
    }

    fn parse(bytes: &[u8]) -> Cdc {
        let cursor = |at: usize| Cursor {
            wrap: u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]),
            count: number(bytes, at + 4),
        };
        Cdc {
            sequence: u16::from_be_bytes([bytes[2], bytes[3]]),
            token: number(bytes, 4),
            producer: cursor(8),
            consumer: cursor(16),
            flags: bytes[24],
            state: bytes[25],
        }
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// An LLC message with its fields at their places; the rest is zero.
pub fn llc_message(kind: u8, flags: u8, fields: &[(usize, &[u8])]) -> [u8; LEN] {
    let mut all = [0; LEN];
    all[0] = kind;
    // The length as Linux sends it.
    all[1] = LEN as u8;
    all[3] = flags;
    for (at, bytes) in fields {
        all[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    all
}

/// The other side's end of a connection, as its CLC message says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Far {
    pub end: FarEnd,
    pub rkey: u32,
    pub token: u32,
    pub ring: usize,
    /// Of the connection's element of the RMB.
    pub address: u64,
}

pub struct Peer {
    pub tcp: RawPeer,
    pub qp: QueuePair,
    pub role: Role,
    pub far: Far,
    pub immediates: bool,
    links: u8,
    identity: [u8; 8],
    eid: [u8; 32],
    /// Our name for the connection.
    token: u32,
    /// Number of the link, which the server gives.
    pub link: u8,
    /// Our last message, all of which the next one follows.
    pub said: Cdc,
    /// The other side's last message.
    pub heard: Cdc,
    /// What we have read of our ring.
    read: Cursor,
    /// LLC messages of the other side that nobody has asked for yet.
    pub requests: Vec<Vec<u8>>,
    /// It goes without a word.
    silent: bool,
}

static IDENTITIES: AtomicU16 = AtomicU16::new(1);

/// Identity of a host that nobody has seen: a link group of its own.
fn identity() -> [u8; 8] {
    let instance = IDENTITIES
        .fetch_add(1, Ordering::Relaxed)
        .wrapping_add((std::process::id() as u16).wrapping_mul(251));
    let mut all = [0; 8];
    all[..2].copy_from_slice(&instance.to_be_bytes());
    all[2..].copy_from_slice(&MAC_A);
    all
}

/// What came of another connection of a link group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    Made,
    /// For this reason.
    Declined(u32),
    /// The server has no such group any more.
    FirstContact,
}

impl Peer {
    fn new(tcp: RawPeer, role: Role, offer: Offer) -> Outcome<Peer> {
        Ok(Peer {
            tcp,
            qp: QueuePair::new(Host::A, RING)?,
            role,
            far: Far::default(),
            immediates: offer.immediates,
            links: offer.links,
            identity: identity(),
            eid: [0; 32],
            token: TOKEN,
            link: 1,
            said: Cdc::default(),
            heard: Cdc::default(),
            read: Cursor::default(),
            requests: Vec::new(),
            silent: false,
        })
    }

    // The handshake as a client.

    /// Connects to a server and offers; its Accept has come, and the queue pair is connected.
    pub fn dial(offer: Offer, server: SocketAddr) -> Outcome<Peer> {
        let tcp = RawPeer::connect(next_port(), server)?;
        check!(tcp.peer_offers_smc, "the server's SYN-ACK offers no SMC");
        let mut peer = Peer::new(tcp, Role::Client, offer)?;
        let proposal = peer.proposal();
        peer.tcp.send(&proposal)?;
        let accept = peer.clc(2)?;
        check_eq!(accept.len(), 160, "length of the Accept of a first contact");
        peer.take_far(&accept)?;
        peer.immediates = peer.immediates && number(&accept, 144) == VENDOR_IMMEDIATE;
        peer.links = accept[141];
        peer.eid.copy_from_slice(&accept[64..96]);
        peer.qp.connect(&peer.far.end)?;
        Ok(peer)
    }

    fn proposal(&self) -> Vec<u8> {
        let mut all = EYE.to_vec();
        all.extend_from_slice(&[1, 0, 156, 0x22]);
        all.extend_from_slice(&self.identity);
        all.extend_from_slice(&[0; 16]);
        all.extend_from_slice(&MAC_A);
        all.extend_from_slice(&40u16.to_be_bytes());
        all.extend_from_slice(&[0; 10]);
        all.extend_from_slice(&28u16.to_be_bytes());
        if self.immediates {
            all.extend_from_slice(b"RSM\0");
            all.extend_from_slice(&VENDOR_IMMEDIATE.to_be_bytes());
        } else {
            all.extend_from_slice(&[0; 8]);
        }
        all.extend_from_slice(&[0; 20]);
        all.extend_from_slice(&[1, 0, 0, 0x10, 0, 0, 0, 0]);
        all.extend_from_slice(&self.qp.gid());
        all.extend_from_slice(&[255, self.links, 0, 0]);
        all.extend_from_slice(&[0; 12]);
        let mut eid = [b' '; 32];
        eid[..14].copy_from_slice(b"SMC-RS.DEFAULT");
        all.extend_from_slice(&eid);
        all.extend_from_slice(&EYE);
        all
    }

    /// The Confirm.
    pub fn confirm(&mut self) -> Outcome {
        let message = self.confirm_message();
        self.tcp.send(&message)
    }

    pub fn confirm_message(&self) -> Vec<u8> {
        let mut all = self.endpoint_message(3, 180);
        all.extend_from_slice(&[1, 0, 0, 0]);
        all.extend_from_slice(&self.qp.gid());
        all.extend_from_slice(&EYE);
        all
    }

    /// What Accept and Confirm of a first contact have in common.
    fn endpoint_message(&self, kind: u8, length: u16) -> Vec<u8> {
        let (rkey, address) = self.qp.ring_key();
        let mut all = EYE.to_vec();
        all.push(kind);
        all.extend_from_slice(&length.to_be_bytes());
        all.push(0x28);
        all.extend_from_slice(&self.identity);
        all.extend_from_slice(&self.qp.gid());
        all.extend_from_slice(&MAC_A);
        all.extend_from_slice(&self.qp.qpn().to_be_bytes()[1..]);
        all.extend_from_slice(&rkey.to_be_bytes());
        all.push(1);
        all.extend_from_slice(&self.token.to_be_bytes());
        // The smallest ring; MTU 4096.
        all.extend_from_slice(&[0x05, 0]);
        all.extend_from_slice(&address.to_be_bytes());
        all.push(0);
        all.extend_from_slice(&self.qp.psn.to_be_bytes()[1..]);
        all.extend_from_slice(&self.eid);
        all.extend_from_slice(&[0; 8]);
        all.extend_from_slice(&[0x80, 0x21, 0, 0]);
        let mut name = [b' '; 32];
        name[..7].copy_from_slice(b"hostile");
        all.extend_from_slice(&name);
        all.extend_from_slice(&[255, self.links, 0, 0]);
        let vendor = if self.immediates { VENDOR_IMMEDIATE } else { 0 };
        all.extend_from_slice(&vendor.to_be_bytes());
        all.extend_from_slice(&[0; 8]);
        all
    }

    /// CONFIRM LINK of the server, and our answer.
    pub fn confirm_link_as_client(&mut self) -> Outcome {
        let asked = self.llc(llc::CONFIRM_LINK, 0)?;
        self.link = asked[29];
        let answer = self.confirm_link(llc::ANSWER);
        self.qp.send(&answer)
    }

    pub fn confirm_link(&self, flags: u8) -> [u8; LEN] {
        llc_message(
            llc::CONFIRM_LINK,
            flags | llc::NO_EYECATCHER,
            &[
                (4, &MAC_A),
                (10, &self.qp.gid()),
                (26, &self.qp.qpn().to_be_bytes()[1..]),
                (29, &[self.link]),
                (30, &0x0000_6601u32.to_be_bytes()),
                (34, &[self.links, 255]),
            ],
        )
    }

    /// A whole first contact as a client.
    pub fn client(offer: Offer, server: SocketAddr) -> Outcome<Peer> {
        let mut peer = Peer::dial(offer, server)?;
        peer.confirm()?;
        peer.confirm_link_as_client()?;
        Ok(peer)
    }

    // The handshake as a server.

    /// Waits for a client: its Proposal has come, and our Accept is sent.
    pub fn accept(offer: Offer, listening: Listening) -> Outcome<Peer> {
        let mut peer = Peer::new(listening.accept()?, Role::Server, offer)?;
        let proposal = peer.clc(1)?;
        check_eq!(proposal.len(), 156, "length of the Proposal");
        peer.immediates = peer.immediates && number(&proposal, 56) == VENDOR_IMMEDIATE;
        peer.eid.copy_from_slice(&proposal[120..152]);
        let accept = peer.accept_message();
        peer.tcp.send(&accept)?;
        Ok(peer)
    }

    pub fn accept_message(&self) -> Vec<u8> {
        let mut all = self.endpoint_message(2, 160);
        all.extend_from_slice(&EYE);
        all
    }

    /// The client's Confirm, after which the queue pair is connected.
    pub fn take_confirm(&mut self) -> Outcome {
        let confirm = self.clc(3)?;
        check!(
            confirm.len() >= 164,
            "the Confirm of a first contact has {} bytes",
            confirm.len()
        );
        self.take_far(&confirm)?;
        self.qp.connect(&self.far.end)
    }

    /// CONFIRM LINK, and the client's answer.
    pub fn confirm_link_as_server(&mut self) -> Outcome {
        let request = self.confirm_link(0);
        self.qp.send(&request)?;
        self.llc(llc::CONFIRM_LINK, llc::ANSWER)?;
        Ok(())
    }

    /// A whole first contact as a server.
    pub fn server(offer: Offer, listening: Listening) -> Outcome<Peer> {
        let mut peer = Peer::accept(offer, listening)?;
        peer.take_confirm()?;
        peer.confirm_link_as_server()?;
        Ok(peer)
    }

    // Both.

    /// The next CLC message, which has to be of this type.
    fn clc(&mut self, kind: u8) -> Outcome<Vec<u8>> {
        let message = self.tcp.receive(PATIENCE)?;
        check!(
            message.len() >= 12 && message[..4] == EYE && message[4] == kind,
            "CLC message {kind} was due, and this came: {message:02x?}"
        );
        Ok(message)
    }

    fn take_far(&mut self, message: &[u8]) -> Outcome {
        let short =
            |at: usize| u32::from_be_bytes([0, message[at], message[at + 1], message[at + 2]]);
        let ring = 16384usize << (message[50] >> 4);
        let base = u64::from_be_bytes(
            message[52..60]
                .try_into()
                .map_err(|_| Fail("a short message".into()))?,
        );
        let mut gid = [0; 16];
        gid.copy_from_slice(&message[16..32]);
        self.far = Far {
            end: FarEnd {
                gid,
                qpn: short(38),
                psn: short(61),
                mtu: message[50] & 15,
            },
            rkey: number(message, 41),
            token: number(message, 46),
            ring,
            address: base + (u64::from(message[45]) - 1) * ring as u64,
        };
        self.said.token = self.far.token;
        Ok(())
    }

    /// Takes the next of what comes over the link into account; None after the time.
    pub fn hear(&mut self, limit: Duration) -> Outcome<Option<Came>> {
        let came = self.qp.receive(limit)?;
        match &came {
            Some(Came::Message(message)) if message.first() == Some(&CDC) => {
                check_eq!(message.len(), LEN, "length of a CDC message");
                let cdc = Cdc::parse(message);
                // What comes late for a connection before this one is none of our business.
                if cdc.token != self.token {
                    return Ok(came);
                }
                self.heard = cdc;
            }
            Some(Came::Message(message)) => {
                // TEST LINK is answered by every host that lives.
                if message[0] == llc::TEST_LINK && message[3] & llc::ANSWER == 0 {
                    let mut answer = message.clone();
                    answer[3] |= llc::ANSWER;
                    self.qp.send(&answer)?;
                }
                self.requests.push(message.clone());
            }
            Some(Came::Immediate(immediate, length)) => {
                check!(self.immediates, "an immediate nobody has agreed to");
                check_eq!(
                    immediate >> 18,
                    self.token & 0x3fff,
                    "token of an immediate"
                );
                let mut moved = *length;
                if immediate & (1 << 17) != 0 {
                    moved += RING - self.heard.producer.count as usize;
                }
                self.heard.producer.advance(moved, RING);
                self.heard
                    .consumer
                    .advance((immediate & 0xffff) as usize, self.far.ring);
                self.heard.sequence = self.heard.sequence.wrapping_add(1);
            }
            None => {}
        }
        Ok(came)
    }

    /// Does what an LLC message asks for.
    pub fn agree(&mut self, mut request: Vec<u8>) -> Outcome {
        request[3] |= llc::ANSWER;
        self.qp.send(&request)
    }

    /// Hears all that has come, and answers it, as a peer does that is there and has no more to say.
    pub fn idle(&mut self) -> Outcome {
        while self.hear(Duration::ZERO)?.is_some() {}
        for request in std::mem::take(&mut self.requests) {
            let about_rkeys = matches!(request[0], llc::CONFIRM_RKEY | llc::DELETE_RKEY);
            if about_rkeys && request[3] & llc::ANSWER == 0 {
                self.agree(request)?;
            }
        }
        Ok(())
    }

    /// Waits for an LLC message of a type, a request or an answer.
    pub fn llc(&mut self, kind: u8, answer: u8) -> Outcome<Vec<u8>> {
        self.llc_within(PATIENCE, kind, answer)?.ok_or_else(|| {
            Fail(format!(
                "LLC message {kind:#x} (flag {answer:#x}) never came"
            ))
        })
    }

    /// The same, if it comes in time.
    fn llc_within(&mut self, limit: Duration, kind: u8, answer: u8) -> Outcome<Option<Vec<u8>>> {
        let end = Instant::now() + limit;
        loop {
            let place = self
                .requests
                .iter()
                .position(|message| message[0] == kind && message[3] & llc::ANSWER == answer);
            if let Some(place) = place {
                return Ok(Some(self.requests.remove(place)));
            }
            if Instant::now() > end {
                return Ok(None);
            }
            self.hear(Duration::from_millis(100))?;
        }
    }

    /// The CDC message that follows our last one.
    pub fn next(&self) -> Cdc {
        Cdc {
            sequence: self.said.sequence.wrapping_add(1),
            ..self.said
        }
    }

    /// Says it, as an honest peer would.
    pub fn say(&mut self, cdc: Cdc) -> Outcome {
        self.said = cdc;
        self.qp.send(&cdc.bytes())
    }

    /// Writes data behind what was written, and moves our cursor, without a word.
    pub fn put(&mut self, mut data: &[u8]) -> Outcome {
        while !data.is_empty() {
            let at = self.said.producer.count as usize;
            let part = data.len().min(self.far.ring - at);
            self.qp
                .write(&data[..part], self.far.address + at as u64, self.far.rkey)?;
            self.said.producer.advance(part, self.far.ring);
            data = &data[part..];
        }
        Ok(())
    }

    /// Sends data: as much as there is room for in the other side's ring.
    pub fn send(&mut self, data: &[u8]) -> Outcome {
        self.put(data)?;
        self.say(self.next())
    }

    /// Receives exactly as much, and tells the other side that there is room again.
    pub fn receive(&mut self, length: usize) -> Outcome<Vec<u8>> {
        let mut all = Vec::new();
        let end = Instant::now() + sys::PATIENCE;
        while all.len() < length {
            check!(
                Instant::now() < end,
                "{} of {length} bytes came; last {:?}",
                all.len(),
                self.heard
            );
            let ready = self.unread().min(length - all.len());
            if ready == 0 {
                self.hear(Duration::from_millis(100))?;
                continue;
            }
            let at = self.read.count as usize;
            let part = ready.min(RING - at);
            all.extend(self.qp.ring_read(at, part));
            self.read.advance(part, RING);
        }
        self.said.consumer = self.read;
        self.say(self.next())?;
        Ok(all)
    }

    fn unread(&self) -> usize {
        let (from, to) = (self.read, self.heard.producer);
        (to.count as usize + if to.wrap == from.wrap { 0 } else { RING }) - from.count as usize
    }

    /// Closes as an honest peer does, and waits for the other side to have closed.
    pub fn close(&mut self) -> Outcome {
        self.said.state |= state::DONE_WRITING | state::CLOSED;
        self.say(self.next())
    }

    /// Is gone from one moment to the next, as a host that has lost its power.
    pub fn vanish(mut self) {
        self.silent = true;
    }

    /// Waits until the other side has said one of these flags about the connection.
    pub fn await_state(&mut self, flags: u8) -> Outcome {
        let end = Instant::now() + PATIENCE;
        while self.heard.state & flags == 0 {
            check!(
                Instant::now() < end,
                "flags {flags:#x} never came; last {:?}",
                self.heard
            );
            self.hear(Duration::from_millis(100))?;
        }
        Ok(())
    }

    /// Key, address and length of our ring: what the other side writes to.
    pub fn ring(&self) -> (u32, u64, usize) {
        let (rkey, address) = self.qp.ring_key();
        (rkey, address, RING)
    }

    /// TEST LINK, which a link that lives answers with the same words.
    pub fn test_link(&mut self) -> Outcome {
        let words = b"are you there?";
        let request = llc_message(llc::TEST_LINK, 0, &[(4, words)]);
        self.qp.send(&request)?;
        let answer = self
            .llc(llc::TEST_LINK, llc::ANSWER)
            .during("the answer to TEST LINK")?;
        check_eq!(&answer[4..18], words, "what TEST LINK is answered with");
        Ok(())
    }

    /// TEST LINK, again and again: a link that was asked too much for a while does not answer each.
    pub fn test_link_again(&mut self) -> Outcome {
        for number in 0..20u8 {
            let words = [b'!', number];
            self.qp
                .send(&llc_message(llc::TEST_LINK, 0, &[(4, &words)]))?;
            let limit = Duration::from_secs(2);
            // Answers to what was asked before may be on their way.
            while let Some(answer) = self.llc_within(limit, llc::TEST_LINK, llc::ANSWER)? {
                if answer[4..6] == words {
                    return Ok(());
                }
            }
        }
        Err(Fail("none of 20 more TEST LINK was answered".into()))
    }

    // Another connection of the same link group, in place of the one there was.

    /// Names of a new connection. Our ring is the same again: nobody writes to it any more.
    fn begin_again(&mut self, tcp: RawPeer) {
        self.tcp = tcp;
        self.token = self.token.wrapping_add(0x101);
        self.said = Cdc::default();
        self.heard = Cdc::default();
        self.read = Cursor::default();
    }

    /// Connects once more to a server.
    pub fn dial_again(&mut self, server: SocketAddr) -> Outcome {
        match self.try_again(server)? {
            Again::Made => Ok(()),
            other => Err(Fail(format!("another connection: {other:?}"))),
        }
    }

    /// The same, whatever comes of it.
    pub fn try_again(&mut self, server: SocketAddr) -> Outcome<Again> {
        self.try_again_saying(server, |_| Ok(()))
    }

    /// The same, with some words before the Confirm.
    pub fn try_again_saying(
        &mut self,
        server: SocketAddr,
        says: impl FnOnce(&mut Peer) -> Outcome,
    ) -> Outcome<Again> {
        let tcp = RawPeer::connect(next_port(), server)?;
        self.begin_again(tcp);
        let proposal = self.proposal();
        self.tcp.send(&proposal)?;
        let answer = self.tcp.receive(PATIENCE)?;
        check!(
            answer.len() >= 28 && answer[..4] == EYE,
            "an Accept or a Decline was due, and this came: {answer:02x?}"
        );
        match (answer[4], answer.len()) {
            (2, 108) => {
                self.take_far(&answer)?;
                says(self)?;
                let confirm = self.short_message(3);
                self.tcp.send(&confirm)?;
                Ok(Again::Made)
            }
            (2, 160) => Ok(Again::FirstContact),
            (4, _) => Ok(Again::Declined(number(&answer, 16))),
            other => Err(Fail(format!("type and length of the answer: {other:?}"))),
        }
    }

    /// Somebody else, from another address, says in our name that we do not have the link group any more.
    pub fn is_slandered(&self, server: SocketAddr) -> Outcome {
        let mut tcp = RawPeer::connect(next_port(), server)?;
        tcp.send(&self.proposal())?;
        let accept = tcp.receive(PATIENCE)?;
        check!(
            accept.len() == 108 && accept[4] == 2,
            "an Accept of a later contact was due: {accept:02x?}"
        );
        let mut decline = EYE.to_vec();
        // Version 2, out of sync.
        decline.extend_from_slice(&[4, 0, 28, 0x28]);
        decline.extend_from_slice(&self.identity);
        decline.extend_from_slice(&[4, 0, 0, 0, 0, 0, 0, 0]);
        decline.extend_from_slice(&EYE);
        tcp.send(&decline)
    }

    /// Waits for a client once more.
    pub fn accept_again(&mut self, listening: Listening) -> Outcome {
        self.begin_again(listening.accept()?);
        self.clc(1)?;
        let accept = self.short_message(2);
        self.tcp.send(&accept)?;
        let confirm = self.clc(3)?;
        check_eq!(
            confirm.len(),
            108,
            "length of the Confirm of a later contact"
        );
        self.take_far(&confirm)
    }

    fn short_message(&self, kind: u8) -> Vec<u8> {
        let mut all = self.endpoint_message(kind, SHORT as u16 + 4);
        all.truncate(SHORT);
        // Without the flag of a first contact.
        all[7] = 0x20;
        all.extend_from_slice(&EYE);
        all
    }
}

impl Drop for Peer {
    /// An honest peer says that it goes, and waits for the answer that a server gives.
    fn drop(&mut self) {
        if self.silent {
            return;
        }
        let goodbye = llc_message(llc::DELETE_LINK, llc::ALL | 0x20, &[(5, &[0, 3, 0, 0])]);
        if self.qp.send(&goodbye).is_err() {
            return;
        }
        let end = Instant::now() + Duration::from_millis(600);
        self.requests.clear();
        while self.role == Role::Client
            && !self
                .requests
                .iter()
                .any(|message| message[0] == llc::DELETE_LINK)
            && Instant::now() < end
            && self.hear(Duration::from_millis(20)).is_ok()
        {}
        // That it has arrived; errors change nothing.
        let _ = self.qp.settle(Duration::from_millis(600));
    }
}

/// A listening raw peer.
pub fn listen() -> Outcome<Listening> {
    RawPeer::listen(next_port()).during("a port of the raw peer")
}
