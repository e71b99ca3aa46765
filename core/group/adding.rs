// SPDX-License-Identifier: GPL-2.0

//! A group gets another link (RFC 7609, sections 3.5.1.6 and 3.5.5.1): what [`LinksFlow`] decides is done
//! here, in a work item of its own, as making a queue pair and registering all memory takes its time.

use super::{
    flow_of,
    Confirmation,
    LinkGroup, //
};
use crate::kapi::prelude::*;
use crate::{
    kapi::netns::Net,
    queues,
    smc_core::{
        buffers::Ring,
        link::{
            FarEnd,
            Link,
            Slot,
            MAX_LINKS, //
        },
        llc::{
            flow::{
                LinkFlow,
                Role, //
            },
            links::{
                judge_offer,
                Ends,
                LinksFlow,
                News,
                ADD_LINK_WAIT,
                MAKE_WAIT, //
            },
            wire::{
                add_link_keys,
                extend_add_link,
                AddLink,
                AddLinkContinuation,
                AddLinkReject,
                DeleteReason,
                LlcVersion,
                RToken,
                ADD_LINK_MAX,
                LLC_LEN, //
            }, //
        },
        path::{
            self,
            Path, //
        },
        registry,
        time::Millis,
        types::{
            Gid,
            LinkNumber,
            Mac,
            RKey, //
        }, //
    },
    sysctl::Settings,
};
use kernel::{
    error::Result,
    sync::{
        atomic::Relaxed,
        Arc, //
    },
    workqueue::WorkItem, //
};

/// How long the first message on a new link may take, in milliseconds.
const CONFIRM_MS: u32 = 5_000;

/// How long all messages with keys may take (version 1), in milliseconds.
const KEYS_MS: u32 = 30_000;

/// How long to wait before a link is tried again that could not be made, at first and at most.
const RETRY_MS: (u32, u32) = (2_000, 60_000);

/// What is known about a link that is being added.
pub(super) struct Adding {
    pub(super) flow: LinksFlow,
    /// Another link would be good: a port has come, or a link is gone.
    wanted: bool,
    /// Server: the client has more than one port, or has said that it would like another link.
    invited: bool,
    /// What the peer has said in ADD LINK, and on which link: keys in it are those of RMBs there.
    peer: Option<(LinkNumber, AddLink)>,
    /// Keys that the peer is still to tell (version 1).
    keys_left: u8,
    /// When a link that is wanted is tried again, and how long after that.
    retry_at: Millis,
    retry_ms: u32,
    /// When the last exchange was over.
    ended: Millis,
}

impl Adding {
    pub(super) const fn new(role: Role, first: LinkNumber) -> Self {
        Self {
            flow: LinksFlow::new(role, first),
            wanted: false,
            invited: false,
            peer: None,
            keys_left: 0,
            retry_at: Millis(0),
            retry_ms: RETRY_MS.0,
            ended: Millis(0),
        }
    }

    /// Not before a while, which doubles each time.
    fn try_later(&mut self) {
        self.retry_at = registry::now().after(self.retry_ms);
        self.retry_ms = self.retry_ms.saturating_mul(2).min(RETRY_MS.1);
    }
}

/// Bytes of an SMC-Rv2 ADD LINK behind the first 44.
pub(super) struct Tail {
    pub(super) bytes: KVec<u8>,
    pub(super) len: usize,
    /// The link that it came on.
    pub(super) on: Slot,
}

impl Tail {
    /// Has room where `of_v2` says that there will be some.
    pub(super) fn new(of_v2: bool) -> Result<Self> {
        let len = if of_v2 { ADD_LINK_MAX - LLC_LEN } else { 0 };
        Ok(Self {
            bytes: KVec::from_elem(0, len, GFP_KERNEL)?,
            len: 0,
            on: Slot::FIRST,
        })
    }
}

impl WorkItem<1> for LinkGroup {
    type Pointer = Arc<LinkGroup>;

    fn run(this: Arc<LinkGroup>) {
        this.add_links();
    }
}

impl LinkGroup {
    /// A port has come that may be good for another link, or a link is gone. Any context.
    pub(crate) fn want_link(self: &Arc<Self>) {
        if self.limits().max_links < 2 || self.peer_max_links.load(Relaxed) < 2 {
            return;
        }
        {
            let mut adding = self.adding.lock();
            adding.wanted = true;
            // Whoever says so, and how often.
            adding.retry_at = adding.retry_at.min(adding.ended.after(RETRY_MS.0));
            adding.retry_ms = RETRY_MS.0;
        }
        self.kick_adding();
    }

    /// Server: the client has more ports than one, so that a link to a second one of them is of use even
    /// from the port that we have.
    pub(crate) fn invited(&self) {
        self.adding.lock().invited = true;
    }

    fn kick_adding(self: &Arc<Self>) {
        if let Some(queue) = queues::handshake().queue() {
            // If it is queued already, it will see everything.
            let _ = queue.enqueue::<Arc<Self>, 1>(self.clone());
        }
    }

    /// From the ticker.
    pub(super) fn check_adding(self: &Arc<Self>, now: Millis) {
        let (late, again) = {
            let mut adding = self.adding.lock();
            let late = adding.flow.on_timeout(now);
            let again = adding.wanted && adding.flow.is_idle() && adding.retry_at.reached(now);
            (late, again)
        };
        if late {
            self.changed.wake_all();
        }
        if again {
            self.kick_adding();
        }
    }

    /// Whether keys must wait until a link is added (RFC 7609, section 3.5.5.3).
    pub(super) fn is_adding(&self) -> bool {
        !self.adding.lock().flow.is_idle()
    }

    /// ADD LINK has come; the answer, if it is for here to give.
    pub(super) fn take_add_link(
        self: &Arc<Self>,
        link: &Link,
        flow: &LinkFlow,
        msg: &AddLink,
        response: bool,
    ) -> Option<[u8; LLC_LEN]> {
        let reject = |reason| Some(flow.add_link(true, msg, Some(reason)));
        let single = self.limits().max_links < 2;
        let numbered = self.links().any(|other| other.number() == msg.link);
        let news = {
            let mut adding = self.adding.lock();
            if self.key.role == Role::Client && (single || numbered) {
                News::Reject(AddLinkReject::NO_ALTERNATE_PATH)
            } else {
                let news = adding.flow.on_add_link(msg, response);
                if let News::Offer(peer) | News::Accepted(peer) = news {
                    adding.peer = Some((link.number(), peer));
                }
                news
            }
        };
        match news {
            News::Offer(_) => self.kick_adding(),
            News::Accepted(_) | News::Rejected => self.changed.wake_all(),
            News::Invited => {
                self.invited();
                self.want_link();
            }
            News::Reject(reason) => return reject(reason),
            News::Keys(_) | News::Dropped => {}
        }
        None
    }

    /// ADD LINK CONTINUATION has come on `link`.
    pub(super) fn take_keys(&self, link: &Link, msg: &AddLinkContinuation, response: bool) {
        let new = self.links().find(|link| link.number() == msg.link);
        let Some(new) = new else {
            return;
        };
        // First, as whoever waits for them goes on at once.
        let here = msg.pairs.iter().take(msg.rtokens_left.into());
        self.learn_others(link, &new, here.copied());
        {
            let mut adding = self.adding.lock();
            if let News::Keys(_) = adding.flow.on_keys(msg, response) {
                adding.keys_left = msg.rtokens_left.saturating_sub(2);
            }
        }
        self.changed.wake_all();
    }

    /// Enters keys of the peer's RMBs on a new link, each beside that on one that there is.
    fn learn_others(&self, link: &Link, new: &Link, keys: impl Iterator<Item = (RKey, RToken)>) {
        let (from, to) = (link.slot().index(), new.slot().index());
        let mut tokens = self.tokens.lock();
        for (rkey, token) in keys {
            tokens.add_other(from, rkey, to, token);
        }
    }

    /// The work item: the exchange that is due.
    fn add_links(self: &Arc<Self>) {
        if !self.is_usable() {
            return;
        }
        let (offer, wanted) = {
            let adding = self.adding.lock();
            let offer = adding.peer.filter(|_| self.key.role == Role::Client);
            let due = adding.flow.is_idle() && adding.retry_at.reached(registry::now());
            (offer, adding.wanted && due)
        };
        match (self.key.role, offer) {
            (Role::Client, Some((via, offer))) => {
                let result = self.take_offer(via, &offer);
                self.added(result.is_ok());
            }
            (Role::Client, None) if wanted => self.ask_for_link(),
            (Role::Server, _) if wanted => {
                // First: a port that comes while there is none yet wants it again.
                self.adding.lock().wanted = false;
                if let Some(result) = self.offer_link() {
                    self.adding.lock().wanted = true;
                    self.added(result.is_ok());
                }
            }
            _ => {}
        }
    }

    /// The exchange is over.
    fn added(self: &Arc<Self>, well: bool) {
        let now = registry::now();
        {
            let mut adding = self.adding.lock();
            adding.flow.done();
            adding.peer = None;
            adding.ended = now;
            if well {
                // Perhaps there is an even better one by now.
                adding.wanted |= self.key.role == Role::Server;
                adding.retry_ms = RETRY_MS.0;
            }
            // One that goes well takes its time, too.
            if well {
                adding.retry_at = now.after(adding.retry_ms);
            } else {
                adding.try_later();
            }
        }
        // What was to be said about RMBs has waited for this.
        self.kick();
    }

    /// A place for another link. An asymmetric one does not count: it goes when there is a better one.
    fn room_for_link(&self) -> Option<Slot> {
        let spare = usize::from(self.asymmetric_link().is_some());
        if self.links().count() >= usize::from(self.limits().max_links) + spare {
            return None;
        }
        Slot::all().find(|slot| self.link_at(*slot).is_none())
    }

    /// Another port than those of the links; for the client one that reaches `near`.
    fn other_port(&self, net: &Net, link: &Link, near: &Gid, strict: bool) -> Option<Path> {
        let registry = registry::get()?;
        path::alternative(&registry, net, link, near, strict, |port| {
            self.links()
                .any(|link| link.is_on(&port.device) && link.port().number == port.number)
        })
    }

    /// Server: offers a link; [`None`] if there is no port for it.
    fn offer_link(self: &Arc<Self>) -> Option<Result> {
        let slot = self.room_for_link()?;
        let link = self.links().find(|link| link.is_active())?;
        let far = *link.far()?;
        if link.is_routed() {
            return None;
        }
        let net = Net::find(self.key.net)?;
        let settings = Settings::of(&net).ok()?;
        let other = self.other_port(&net, &link, &far.gid, false);
        // RFC 7609, section 3.5.1.6: from the same port, if the client has another one.
        let asymmetric = other.is_none();
        let path = other.or_else(|| {
            let invited = self.adding.lock().invited;
            invited.then(|| self.shared_end(&link).path())?
        })?;
        drop(net);
        let number = {
            let mut taken = [LinkNumber(0); MAX_LINKS];
            for (place, link) in taken.iter_mut().zip(self.links()) {
                *place = link.number();
            }
            let mut adding = self.adding.lock();
            let number = adding.flow.offer(|number| taken.contains(&number)).ok()?;
            if asymmetric {
                adding.invited = false;
            }
            number
        };
        let result = self.make(slot, number, &path, &settings, |new| {
            self.offer_made(&link, new)
        });
        if asymmetric && result.is_err() {
            // It is tried again, unless that is the client's word.
            let mut adding = self.adding.lock();
            adding.invited |= !adding.flow.is_rejected();
        }
        Some(result)
    }

    /// The link whose port another one can share: in a group with an asymmetric link that one, whose place the
    /// other then takes.
    fn shared_end(&self, link: &Arc<Link>) -> Arc<Link> {
        self.asymmetric_link().unwrap_or_else(|| link.clone())
    }

    /// Makes a link, and has it used; takes it down again if that comes to nothing.
    fn make(
        self: &Arc<Self>,
        slot: Slot,
        number: LinkNumber,
        path: &Path,
        settings: &Settings,
        exchange: impl FnOnce(&Arc<Link>) -> Result,
    ) -> Result {
        let new = Link::new(slot, number, path, settings)?;
        self.enter(&new);
        // Either whoever removes the device finds the link in the group, or it is seen here. So with a peer that ends it.
        let given_up = {
            let mut adding = self.adding.lock();
            // None are taken before the link is offered or answered.
            adding.keys_left = 0;
            adding.flow.has_failed()
        };
        let result = if path.port.device.is_gone() || !self.is_usable() || given_up {
            Err(ENODEV)
        } else {
            new.attach(self).and_then(|()| exchange(&new))
        };
        if result.is_ok() {
            self.link_added(&new);
        } else {
            // No connection is on it: see `takes_connections`.
            self.drop_link(&new);
            self.changed.wake_all();
        }
        result
    }

    /// The link is confirmed: it is in use now.
    fn link_added(self: &Arc<Self>, new: &Arc<Link>) {
        self.count(new, true);
        new.activate();
        self.changed.wake_all();
        self.trace(crate::diag::trace::Life::LinkUp);
        // A failure before that was none of the group's.
        if new.has_failed() {
            self.count(new, false);
            self.kick();
            return;
        }
        // Rings that were made meanwhile.
        for ring in self.pool().rings() {
            let told = ring.take_told(new.slot());
            if self.register_on(new, &ring).is_err() || !ring.is_rmb() {
                continue;
            }
            // The peer finds it by another key only if it knew that one when it was told: else CONFIRM RKEY is still to come.
            if !told {
                ring.set_confirmed(false);
                if ring.is_known() {
                    // Else it is not known any more.
                    let _ = self.confirm_rmb(&ring);
                }
            }
        }
    }

    /// Maps and registers a ring for a link that can send.
    pub(in crate::smc_core) fn register_on(&self, link: &Link, ring: &Ring) -> Result {
        let mapping = ring.map(link)?;
        match mapping.planned_key() {
            Some(_) => link
                .register(self, &mapping)
                .inspect_err(|_| ring.forget_spoilt(&mapping)),
            None => Ok(()),
        }
    }

    fn register_all(&self, link: &Link) -> Result {
        self.pool()
            .rings()
            .try_for_each(|ring| self.register_on(link, &ring))
    }

    /// The keys of all RMBs on `link`, and on `new`.
    fn all_keys<'a>(
        &'a self,
        link: &'a Link,
        new: &'a Link,
    ) -> impl Iterator<Item = (RKey, RToken)> + 'a {
        self.pool()
            .rings()
            .filter(|ring| ring.is_rmb())
            .filter_map(|ring| {
                let (old, there) = (ring.token_on(link)?, ring.map_token(new)?);
                // As it comes out here: whoever takes it says it.
                ring.set_told(new.slot());
                Some((old.rkey, there))
            })
    }

    /// How many keys there are for [`Self::all_keys`].
    fn count_keys(&self, link: &Link) -> usize {
        self.pool()
            .rings()
            .filter(|ring| ring.is_rmb() && ring.token_on(link).is_some())
            .count()
    }

    /// Our end of `new`, as ADD LINK says it on `link`.
    fn send_add_link(&self, link: &Link, new: &Link, target: Gid) -> Result {
        let response = self.key.role == Role::Client;
        let msg = AddLink {
            mac: new.mac(),
            gid: new.gid(),
            qpn: new.qpn(),
            link: new.number(),
            mtu: Some(new.mtu()),
            psn: new.psn(),
            rejected: None,
        };
        let head = {
            let mut flows = self.flow.lock();
            let flow = flow_of(&mut flows, link).ok_or(ENOTCONN)?;
            flow.add_link(response, &msg, None)
        };
        match self.key.version {
            LlcVersion::V1 => link.send_llc(&head),
            LlcVersion::V2 => {
                let mut room = KVec::from_elem(0u8, ADD_LINK_MAX, GFP_KERNEL)?;
                let keys = self.all_keys(link, new);
                let message = extend_add_link(&mut room, &head, target, keys).ok_or(EMSGSIZE)?;
                link.send_long_llc(message)
            }
        }
    }

    /// Waits until both ends of `new` are known, which is offered on `link`; the peer's.
    fn await_peer(&self, link: &Link, new: &Link, timeout_ms: u32) -> Result<AddLink> {
        let ready = self.changed.wait(timeout_ms, || {
            if !self.is_usable() || new.has_failed() {
                return Some(false);
            }
            let adding = self.adding.lock();
            adding.flow.is_known().then(|| !adding.flow.has_failed())
        });
        if ready != Some(true) {
            return Err(ETIMEDOUT);
        }
        match self.adding.lock().peer {
            Some((via, peer)) if via == link.number() => Ok(peer),
            _ => Err(EINVAL),
        }
    }

    /// What the peer has told of its keys in ADD LINK (SMC-Rv2).
    fn learn_tail(&self, link: &Link, new: &Link) -> Result {
        if self.key.version == LlcVersion::V1 {
            return Ok(());
        }
        let mut copy = KVec::from_elem(0u8, ADD_LINK_MAX - LLC_LEN, GFP_KERNEL)?;
        let len = {
            let tail = self.tail.lock();
            if tail.on != link.slot() {
                return Err(EINVAL);
            }
            let len = tail.len.min(copy.len());
            for (to, from) in copy.iter_mut().zip(tail.bytes.iter().take(len)) {
                *to = *from;
            }
            len
        };
        self.learn_others(link, new, add_link_keys(copy.get(..len).unwrap_or(&[])));
        Ok(())
    }

    /// Connects the queue pair, and registers all memory for it.
    fn ready(&self, new: &Link, peer: &AddLink) -> Result<FarEnd> {
        let far = FarEnd {
            gid: peer.gid,
            mac: peer.mac,
            gateway: None,
            qpn: peer.qpn,
        };
        let mtu = peer.mtu.ok_or(EINVAL)?;
        new.connect(&far, peer.psn, mtu)?;
        new.start(self)?;
        self.register_all(new)?;
        Ok(far)
    }

    /// Server: the link is made.
    fn offer_made(self: &Arc<Self>, link: &Arc<Link>, new: &Arc<Link>) -> Result {
        // Before the answer can be here.
        self.adding.lock().flow.offered(registry::now());
        self.send_add_link(link, new, Gid::ZERO)?;
        let result = self
            .await_peer(link, new, MAKE_WAIT + ADD_LINK_WAIT)
            .and_then(|peer| {
                self.learn_tail(link, new)?;
                let far = self.ready(new, &peer)?;
                self.exchange_keys(link, new)?;
                self.begin_confirm(new, &far)?;
                match self.wait_confirmed(new, CONFIRM_MS) {
                    Some(Confirmation::Done) => Ok(()),
                    _ => Err(ETIMEDOUT),
                }
            });
        // One that it has rejected it does not know.
        if result.is_err() && !self.adding.lock().flow.is_rejected() {
            // RFC 7609, section 3.5.1.6.2. Also where its answer is late: it holds its end until it hears of that.
            self.say_deleted(link, new.number(), DeleteReason::LOST_PATH);
        }
        result
    }

    /// Client: takes or rejects what the server offers on the link with the number `via`.
    fn take_offer(self: &Arc<Self>, via: LinkNumber, offer: &AddLink) -> Result {
        // The server is sure of the first link a moment earlier, and its offer can be quicker than we are.
        self.wait_formed(ADD_LINK_WAIT);
        let mut links = self.links().filter(|link| link.is_active());
        let Some(link) = links.find(|link| link.number() == via) else {
            // Gone meanwhile. The server is not to wait for an answer, whichever link it comes on.
            let other = self.links().find(|link| link.is_active());
            if let Some(other) = other {
                self.reject(&other, offer, AddLinkReject::NO_ALTERNATE_PATH)?;
            }
            return Err(ENOTCONN);
        };
        let (slot, path, settings) = match self.find_end(&link, offer) {
            Ok(end) => end,
            // For want of another port: nothing that time would mend.
            Err(reason) => return self.reject(&link, offer, reason),
        };
        let mut answered = false;
        let made = self.make(slot, offer.link, &path, &settings, |new| {
            self.take_made(&link, new, offer, &mut answered)
        });
        if made.is_err() && !answered {
            self.reject(&link, offer, AddLinkReject::NO_ALTERNATE_PATH)?;
        }
        made
    }

    fn reject(&self, link: &Link, offer: &AddLink, reason: AddLinkReject) -> Result {
        let answer = {
            let mut flows = self.flow.lock();
            let flow = flow_of(&mut flows, link).ok_or(ENOTCONN)?;
            flow.add_link(true, offer, Some(reason))
        };
        link.send_llc(&answer)
    }

    /// Client: where our end of the offered link can be.
    fn find_end(
        &self,
        link: &Arc<Link>,
        offer: &AddLink,
    ) -> Result<(Slot, Path, Arc<Settings>), AddLinkReject> {
        const NO: AddLinkReject = AddLinkReject::NO_ALTERNATE_PATH;
        let slot = self.room_for_link().ok_or(NO)?;
        if link.is_routed() {
            return Err(NO);
        }
        let net = Net::find(self.key.net).ok_or(NO)?;
        let settings = Settings::of(&net).map_err(|_| NO)?;
        let known = self.shared_end(link).far().ok_or(NO)?.gid;
        let other = self.other_port(&net, link, &offer.gid, true);
        let path = match judge_offer(known, offer.gid, other.is_some())? {
            Ends::Other => other,
            Ends::Same => self.shared_end(link).path(),
        };
        Ok((slot, path.ok_or(NO)?, settings))
    }

    /// Client: our end is made.
    fn take_made(
        self: &Arc<Self>,
        link: &Arc<Link>,
        new: &Arc<Link>,
        offer: &AddLink,
        answered: &mut bool,
    ) -> Result {
        let far = self.ready(new, offer)?;
        // The server's CONFIRM LINK may be quicker than we are, but all keys come before it.
        let keys_ms = match self.key.version {
            LlcVersion::V1 => KEYS_MS,
            LlcVersion::V2 => 0,
        };
        self.begin_confirm_after(new, &far, keys_ms)?;
        self.learn_tail(link, new)?;
        // Before the server's next word can be here, which may be its first keys.
        self.adding.lock().flow.answered();
        *answered = true;
        self.send_add_link(link, new, Gid::ZERO)?;
        let result = self.exchange_keys(link, new).and_then(|()| {
            match self.wait_confirmed(new, CONFIRM_MS + ADD_LINK_WAIT) {
                Some(Confirmation::Done) => self.answer_confirm(new),
                _ => Err(ETIMEDOUT),
            }
        });
        if result.is_err() {
            self.say_deleted(link, new.number(), DeleteReason::LOST_PATH);
        }
        result
    }

    /// Tells the keys of our RMBs two by two, and learns those of the peer (version 1).
    fn exchange_keys(&self, link: &Link, new: &Link) -> Result {
        if self.key.version == LlcVersion::V2 {
            return Ok(());
        }
        let server = self.key.role == Role::Server;
        let mut keys = self.all_keys(link, new);
        let mut left = self.count_keys(link).min(u8::MAX.into()) as u8;
        // As many as both can have. In all no longer than a device may be kept that is removed meanwhile.
        let deadline = registry::now().after(KEYS_MS);
        for _ in 0..=u8::MAX / 2 {
            if !server {
                self.await_keys(new, deadline)?;
            }
            let none = (RKey(0), RToken::default());
            let mut pairs = [none; 2];
            for place in pairs.iter_mut().take(left.into()) {
                *place = keys.next().unwrap_or(none);
            }
            let msg = AddLinkContinuation {
                link: new.number(),
                rtokens_left: left,
                pairs,
            };
            let bytes = {
                let mut flows = self.flow.lock();
                let flow = flow_of(&mut flows, link).ok_or(ENOTCONN)?;
                flow.add_link_keys(&msg)
            };
            // Before the answer can be here.
            self.adding.lock().flow.keys_sent();
            link.send_llc(&bytes)?;
            left = left.saturating_sub(2);
            if server {
                self.await_keys(new, deadline)?;
            }
            let keys_left = self.adding.lock().keys_left;
            if left == 0 && keys_left == 0 {
                return Ok(());
            }
        }
        Err(EMSGSIZE)
    }

    /// Waits for the peer's next ADD LINK CONTINUATION.
    fn await_keys(&self, new: &Link, deadline: Millis) -> Result {
        let here = {
            let mut adding = self.adding.lock();
            let here = adding.flow.keys_here();
            if !here {
                adding.flow.await_keys(registry::now());
            }
            here
        };
        let come = || {
            let adding = self.adding.lock();
            let over = deadline.reached(registry::now()) || new.has_failed();
            if over || adding.flow.has_failed() || !self.is_usable() {
                return Some(false);
            }
            adding.flow.keys_here().then_some(true)
        };
        match here {
            true if !deadline.reached(registry::now()) => Ok(()),
            true => Err(ETIMEDOUT),
            false => match self.changed.wait(ADD_LINK_WAIT + 1_000, come) {
                Some(true) => Ok(()),
                _ => Err(ETIMEDOUT),
            },
        }
    }

    /// Tells the peer that a link is gone.
    pub(super) fn say_deleted(&self, link: &Link, number: LinkNumber, reason: DeleteReason) {
        let message = {
            let mut flows = self.flow.lock();
            flow_of(&mut flows, link).map(|flow| flow.delete_link(number, reason))
        };
        if let Some(message) = message {
            let _ = link.send_llc(&message);
        }
    }

    /// Client: tells the server that there is another port. Nothing answers this but an offer, and a server that is still
    /// busy with another link drops it (net/smc): so it is said again, ever more seldom, while there are port and place.
    fn ask_for_link(self: &Arc<Self>) {
        self.adding.lock().wanted = false;
        let link = self.links().find(|link| link.is_active());
        let (Some(link), Some(_), Some(net)) =
            (link, self.room_for_link(), Net::find(self.key.net))
        else {
            return;
        };
        let Some(far) = link.far() else {
            return;
        };
        let Some(path) = self.other_port(&net, &link, &far.gid, false) else {
            return;
        };
        drop(net);
        let message = {
            let mut flows = self.flow.lock();
            flow_of(&mut flows, &link)
                .map(|flow| flow.request_link(Gid(path.gid.gid), Mac(path.gid.mac)))
        };
        if let Some(message) = message {
            let _ = link.send_llc(&message);
        }
        let mut adding = self.adding.lock();
        adding.wanted = true;
        adding.try_later();
    }
}
