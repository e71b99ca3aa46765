// SPDX-License-Identifier: GPL-2.0

//! A link of a group goes, and its connections go on on another one (RFC 7609, section 4.6).

use super::{
    flow_of,
    Goodbye,
    LinkFailure,
    LinkGroup,
    Phase, //
};
use crate::kapi::prelude::*;
use crate::{
    diag::trace,
    ib::verbs::device::Device,
    queues,
    smc_core::{
        conn::Conn,
        link::Link,
        llc::{
            flow::Role,
            wire::{
                DeleteLink,
                DeleteReason,
                RToken, //
            }, //
        }, //
    }, //
};
use kernel::{
    sync::{
        atomic::Acquire,
        Arc, //
    },
    workqueue::WorkItem, //
};

impl WorkItem<2> for LinkGroup {
    type Pointer = Arc<LinkGroup>;

    fn run(this: Arc<LinkGroup>) {
        this.shut_lost_links();
    }
}

impl LinkGroup {
    /// Takes down the links that have failed; without another one the group ends. From its work item.
    pub(super) fn lose_failed_links(self: &Arc<Self>) {
        for link in self
            .links()
            .filter(|link| link.has_failed() && !link.is_lost())
        {
            if link.is_being_made() && self.phase.load(Acquire) == Phase::Active as u32 {
                // Whoever makes it sees that.
                continue;
            }
            match self.other_than(&link) {
                Some(_) => self.lose(&link, Some(DeleteReason::LOST_PATH)),
                None => self.end(DeleteReason::LOST_PATH, false),
            }
        }
    }

    /// A link in use beside `link`.
    fn other_than(&self, link: &Arc<Link>) -> Option<Arc<Link>> {
        self.links()
            .find(|other| !Arc::ptr_eq(other, link) && other.is_active())
    }

    /// Server: a link that shares its port with another one on either side is not needed any more when there
    /// are two that have none in common (RFC 7609, section 2.3).
    pub(super) fn lose_asymmetric(self: &Arc<Self>) {
        if self.key.role != Role::Server {
            return;
        }
        let several = self.links().filter(|link| link.is_active()).count() > 2;
        let spare = several.then(|| self.asymmetric_link()).flatten();
        for link in self.links() {
            let is_spare = spare
                .as_ref()
                .is_some_and(|spare| Arc::ptr_eq(spare, &link));
            link.set_spare(is_spare);
        }
        let Some(spare) = spare else {
            return;
        };
        // Nobody begins a connection there (`takes_connections`), so that those who cannot leave it yet soon can.
        if self.conns().all(|conn| self.can_leave(&conn, &spare)) {
            self.lose(&spare, Some(DeleteReason::NO_ASYMMETRIC_NEEDED));
        }
    }

    /// Whether a connection could go on without `link`: it is past its handshake, and each side knows where the other's RMB is on
    /// another link. Where keys wait for the end of an exchange (RFC 7609, section 3.5.5.3) that comes later.
    fn can_leave(&self, conn: &Conn, link: &Link) -> bool {
        if !conn.is_on(link) {
            return true;
        }
        if conn.peer_token().is_none() {
            return !conn.begins_on(link);
        }
        let mut others = self
            .links()
            .filter(|other| other.is_active() && other.slot() != link.slot());
        others.any(|to| self.token_on(conn, link, &to).is_some()) && conn.is_rmb_confirmed()
    }

    /// Where the RMB of a connection's peer is on the link `to`, as far as it is known; the connection is on `from`.
    fn token_on(&self, conn: &Conn, from: &Link, to: &Link) -> Option<RToken> {
        let token = conn.peer_token()?;
        let (from, to) = (from.slot().index(), to.slot().index());
        self.tokens.lock().other(from, token.rkey, to)
    }

    /// Takes a link down, and tells the peer the reason, if there is one to be told; its connections move when no
    /// completion of it comes any more ([`Self::leave_lost_links`]). Process context, from the group's work item only.
    fn lose(self: &Arc<Self>, link: &Arc<Link>, tell: Option<DeleteReason>) {
        if !link.lose() {
            return;
        }
        // From here on no connection begins on it, and nothing is posted.
        link.deactivate();
        self.count(link, false);
        let failure = link.failure();
        // enum smc_link_state: inactive.
        trace::link_down(&**link, self, 1, || self.traced());
        let (id, number) = (self.id(), link.number().0);
        match (failure, tell) {
            (Some(failure), _) => {
                pr_warn_ratelimited!("link {number} of link group {id} is gone: {failure}\n");
            }
            (None, Some(_)) => {
                pr_info!("link {number} of link group {id} is not needed any more\n")
            }
            (None, None) => pr_info!("link {number} of link group {id} was ended by the peer\n"),
        }
        if let (Some(reason), Some(other)) = (tell, self.other_than(link)) {
            self.say_deleted(&other, link.number(), reason);
        }
        // A device that has died may let that wait for long. Meanwhile the peer is answered on the other link.
        // Not behind handshakes either: until then connections stand still.
        if let Some(queue) = queues::control().queue() {
            // If it is queued already, it will see this link, too.
            let _ = queue.enqueue::<Arc<Self>, 2>(self.clone());
        }
    }

    /// Shuts the links that are lost. Process context, from a work item of its own.
    fn shut_lost_links(self: &Arc<Self>) {
        for link in self.links().filter(|link| link.is_lost()) {
            link.shut();
        }
        self.kick();
    }

    /// No completion of a lost link comes any more: what has not completed goes again, on another one. Process context,
    /// from the group's work item only.
    pub(super) fn leave_lost_links(self: &Arc<Self>) {
        for link in self.links().filter(|link| link.is_lost() && link.is_shut()) {
            self.rkeys.restart(link.slot());
            for conn in self.conns() {
                if conn.is_on(&link) {
                    self.move_conn(&conn, &link);
                }
            }
            self.drop_link(&link);
            while let Some((deleted, rmb)) = self.rkeys.take_unreachable() {
                rmb.set_known(false);
                if deleted {
                    self.pool().put(&rmb, rmb.len());
                }
            }
            if self.key.role == Role::Server {
                // The client may have another port, even if we have none.
                self.invited();
            }
            // A port that came before had no place.
            self.want_link();
            self.kick();
        }
    }

    /// Moves a connection away from a link that is down.
    fn move_conn(self: &Arc<Self>, conn: &Arc<Conn>, from: &Link) {
        let targets = self.links().filter(|link| link.is_active());
        for target in targets {
            let token = self.token_on(conn, from, &target);
            // The key of the peer's RMB there is needed.
            if token.is_some() && conn.move_to(self, &target, token).is_ok() {
                return;
            }
        }
        pr_warn_ratelimited!(
            "connection {:#x} of link group {} cannot go on: its handshake is under way, or the peer has told no key \
             for another link\n",
            conn.token(),
            self.id()
        );
        // To say that it is over no key is needed.
        let mut targets = self.links().filter(|link| link.is_active());
        if targets.any(|target| conn.move_to(self, &target, None).is_ok()) {
            return;
        }
        // A peer that knows the connection, though we do not know the peer's end of it, has moved it, and writes.
        conn.strand(self);
        self.release_token(conn.token());
    }

    /// The peer wants a single link to end, or has ended it; said on `link`.
    pub(super) fn take_delete_link(self: &Arc<Self>, link: &Arc<Link>, request: &DeleteLink) {
        // Whoever makes it takes it down, also where it is about to be made only.
        let given_up = self.adding.lock().flow.give_up(request.link);
        if given_up {
            self.changed.wake_all();
        }
        let gone = self.links().find(|link| link.number() == request.link);
        let mut via = Some(link.clone());
        if let Some(gone) = &gone {
            if given_up {
                gone.fail(LinkFailure::Ended);
                self.changed.wake_all();
            } else if self.other_than(gone).is_some() {
                self.lose(gone, None);
                via = self.links().find(|link| link.is_active());
            } else {
                // Without its only link the group ends.
                let answer = {
                    let mut flows = self.flow.lock();
                    flow_of(&mut flows, link).map(|flow| match self.key.role {
                        Role::Server => flow.terminate(request.reason, request.orderly),
                        Role::Client => flow.answer_delete_link(request, true),
                    })
                };
                if let Some(answer) = answer {
                    let _ = link.send_llc(&answer);
                }
                let goodbye = Goodbye::Answered(link.slot());
                self.end_as(request.reason, request.orderly, goodbye);
                return;
            }
        }
        let Some(via) = via else {
            return;
        };
        let answer = {
            let mut flows = self.flow.lock();
            flow_of(&mut flows, &via).map(|flow| flow.answer_delete_link(request, gone.is_some()))
        };
        if let Some(answer) = answer {
            self.say(&via, &answer);
        }
    }

    /// A device goes: its links do, and the group with the last of them. Process context.
    pub(crate) fn lose_device(self: &Arc<Self>, device: &Arc<Device>) {
        let others = self
            .links()
            .any(|link| link.is_active() && !link.is_on(device));
        if !others {
            self.end_orderly();
            return;
        }
        for link in self.links().filter(|link| link.is_on(device)) {
            self.link_failed(&link, LinkFailure::Removed);
        }
    }
}
