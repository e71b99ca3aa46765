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
    link::Link,
    llc::wire::RToken,
    registry,
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
    /// # Errors
    ///
    /// The link is no better, or there is no memory.
    pub(in crate::smc_core) fn move_to(
        &self,
        group: &Arc<LinkGroup>,
        link: &Arc<Link>,
        token: RToken,
    ) -> Result {
        let Some(old) = self.place() else {
            return Ok(());
        };
        // What the peer writes goes on to come to the same memory.
        group.register_on(link, &old.rings().send)?;
        let new = Place::new(group, link, old.held.clone())?;
        let replaced = {
            let mut data = self.data.lock();
            if data.place.is_none() {
                return Ok(());
            }
            let replaced = data.place.replace(new);
            data.in_flight = 0;
            if let Some(target) = data.target.as_mut() {
                target.token = token;
            }
            let moved = data.flow.as_mut().map(|flow| flow.fail_over());
            if let Some(moved) = moved {
                data.validation = Some(moved.validation);
                self.push(&mut data);
                if moved.freed > 0 {
                    Self::tell_of_room(&mut data);
                }
                self.check_drained(&mut data);
            }
            if data.over {
                self.kick(&data);
            }
            replaced
        };
        drop(replaced);
        Ok(())
    }

    /// There is no link that the connection could go on on. Process context.
    pub(in crate::smc_core) fn strand(&self) {
        let mut data = self.data.lock();
        data.in_flight = 0;
        data.down = true;
        self.event(&mut data, Event::LinkGroupDown, ECONNABORTED);
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
