// SPDX-License-Identifier: GPL-2.0

//! A connection goes on on another link of its group (RFC 7609, section 4.6).

use super::{
    Conn,
    Data,
    Place, //
};
use crate::kapi::prelude::*;
use crate::smc_core::{
    group::LinkGroup,
    link::{
        Link,
        Slot, //
    },
    llc::wire::RToken,
    registry,
    rtoken::Row,
    state::Event,
    time::Millis,
    types::RKey, //
};
use kernel::{
    error::Result,
    sync::Arc, //
};

/// How long the last message of a link that is gone may take, of which the peer says that we have got it,
/// in milliseconds.
const LATE_MS: u32 = 2_000;

/// Where the peer's RMB is, on the link of the connection.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) token: RToken,
    /// Of our element in it.
    pub(super) offset: u64,
}

impl Target {
    /// Address of our element.
    pub(super) fn address(&self) -> Option<u64> {
        self.token.vaddr.checked_add(self.offset)
    }
}

impl Conn {
    /// The peer's RMB on the link of the connection; [`None`] before the peer is known.
    pub(in crate::smc_core) fn peer_token(&self) -> Option<RToken> {
        self.data.lock().target.map(|target| target.token)
    }

    /// Moves the connection to `link`, where the peer's RMB is `token`, from one that is shut: nothing
    /// completes there any more. Process context.
    ///
    /// Without a token it can send no data there, but tell the peer that it is over.
    ///
    /// # Errors
    ///
    /// The peer is not known yet, the link is no better, or there is no memory.
    pub(in crate::smc_core) fn move_to(
        &self,
        group: &Arc<LinkGroup>,
        link: &Arc<Link>,
        token: Option<RToken>,
    ) -> Result {
        let replaced = loop {
            let Some(old) = self.place() else {
                return Ok(());
            };
            if token.is_some() {
                // What the peer writes goes on to come to the same memory.
                group.register_on(link, old.send_ring())?;
            }
            let new = Place::new(group, link, old.send_held.clone(), old.rmb_held.clone())?;
            let mut guard = self.data.lock();
            let data = &mut *guard;
            let (Some(flow), Some(target), Some(place)) = (
                data.flow.as_mut(),
                data.target.as_mut(),
                data.place.as_mut(),
            ) else {
                return Err(ENOTCONN);
            };
            // The send buffer has got another ring meanwhile.
            if !Arc::ptr_eq(place, &old) {
                continue;
            }
            let replaced = core::mem::replace(place, new);
            data.in_flight = 0;
            let moved = flow.fail_over();
            data.validation = Some(moved.validation);
            // On a link that was down it could not grow.
            flow.tx.raise_limit(self.sndbuf.0);
            match token {
                Some(token) => {
                    target.token = token;
                    self.push(data);
                }
                None => {
                    // For the peer it may be established.
                    let _ = data.life.handle(Event::Established);
                    self.event(data, Event::LocalAbort, ECONNABORTED);
                    // It may have been over.
                    self.push(data);
                }
            }
            self.tell_of_room(data);
            self.check_drained(data);
            if data.over {
                self.kick(data);
            }
            break replaced;
        };
        drop(replaced);
        Ok(())
    }

    /// There is no link that the connection could go on on, and nothing to tell the peer by but the end of the TCP
    /// connection. Its link is shut, so that the device has done with its rings; but the peer may still write to the RMB, on
    /// another one. Process context.
    pub(in crate::smc_core) fn strand(&self, group: &Arc<LinkGroup>) {
        self.event(&mut self.data.lock(), Event::LinkGroupDown, ECONNABORTED);
        let [Some(send), Some(rmb), _] = self.leave() else {
            return;
        };
        if self.data.lock().flow.is_some() {
            // A program may be about to write to the one and to read from the other.
            group.set_aside(&rmb);
            return;
        }
        // Whoever shakes hands finds no place any more. So a peer cannot have us make more and more of them, by handshakes
        // that it never ends and links that it does.
        group.pool().put(&send, u32::MAX);
        group.delete_rmb(rmb);
    }

    /// The peer takes an RMB back, which has the key `rkey` on the link at `slot`, and `others` on all that it is known
    /// for (RFC 7609, section 3.5.5.2.2). A connection that would go on to write there is over: the peer has ended
    /// it, or never had it.
    pub(in crate::smc_core) fn lose_target(&self, slot: Slot, rkey: RKey, others: &Row) {
        let mut data = self.data.lock();
        let (Some(place), Some(target), false) = (&data.place, &data.target, data.peer_left) else {
            return;
        };
        let here = place.link.slot();
        let gone = if here == slot {
            Some(rkey)
        } else {
            let token = others.get(here.index()).copied().flatten();
            token.map(|token| token.rkey)
        };
        if gone == Some(target.token.rkey) {
            self.event(&mut data, Event::LocalAbort, ECONNRESET);
        }
    }

    /// From the ticker: a message of the old link that does not come, and that the peer has seen
    /// acknowledged, means that data is lost.
    pub(super) fn check_failover(&self, data: &mut Data, now: Millis) {
        let lacks = data.flow.as_ref().is_some_and(|flow| flow.lacks_message());
        match data.late {
            _ if !lacks => data.late = None,
            None => data.late = Some(registry::now().after(LATE_MS)),
            Some(at) if at.reached(now) => {
                data.late = None;
                pr_warn_ratelimited!(
                    "connection {:#x} aborted: data lost in failover\n",
                    self.token
                );
                self.event(data, Event::LocalAbort, ECONNRESET);
            }
            Some(_) => {}
        }
    }

    /// The peer's part names its RMB by this key and address.
    pub(super) fn target_of(rkey: RKey, vaddr: u64, offset: u64) -> Result<Target> {
        let target = Target {
            token: RToken { rkey, vaddr },
            offset,
        };
        target.address().ok_or(EINVAL)?;
        Ok(target)
    }
}
