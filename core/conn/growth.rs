// SPDX-License-Identifier: GPL-2.0

//! The send buffer of a connection grows.
//!
//! It begins with a ring of a page, so that a connection which says little, or nothing, holds little memory. The first
//! write for which that is too small gets the ring of the size that `SO_SNDBUF` shows. That size grows, too, as TCP's
//! does (`tcp_sndbuf_expand`), when nothing but its room keeps a writer from writing, unless the application has chosen it.

use super::{
    Conn,
    Data,
    Held,
    Place, //
};
use crate::kapi::prelude::*;
use crate::{
    kapi::sock::Sock,
    rx_tx::{
        cursor,
        sender::Growth, //
    },
    smc_core::{
        buffers::LARGEST_SEND,
        sock::SmcSocket, //
    }, //
};
use kernel::{
    error::Result,
    sync::Arc, //
};

/// What came of an exchange.
enum Outcome {
    Done,
    /// There was memory for a larger ring, but not for all that was asked for.
    Less,
    /// The connection has moved meanwhile.
    Moved,
    /// There was no memory, or the link is down.
    Nothing,
}

fn kept_twice(len: u32) -> i32 {
    i32::try_from(len.saturating_mul(2)).unwrap_or(i32::MAX)
}

impl Conn {
    /// Gives the connection a ring into which `n` more bytes fit, or as many as its send buffer may have. Where there
    /// is no memory for that, the send buffer is from now on what there is. Process context; the caller has
    /// [`Conn::tx`], so that what was written stays as it is.
    pub(super) fn grow(&self, sk: &Sock<SmcSocket>, n: u32) {
        loop {
            let (place, former, growth, limit) = {
                let mut data = self.data.lock();
                let (Some(place), Some(flow)) = (data.place.clone(), data.flow.as_ref()) else {
                    return;
                };
                let Some(growth) = flow.tx.growth(n) else {
                    return;
                };
                let limit = flow.tx.sndbuf_len();
                // Nothing of it is under way, or there would be no growth.
                (place, data.former.take(), growth, limit)
            };
            if let Some(former) = former {
                place.group.pool().put(&former.ring, u32::MAX);
            }
            let less = match self.exchange(&place, &growth, limit) {
                Ok(Outcome::Done) => return,
                Ok(Outcome::Moved) => continue,
                Ok(Outcome::Less) => true,
                Ok(Outcome::Nothing) | Err(_) => false,
            };
            let mut data = self.data.lock();
            let here = |now: &Arc<Place>| Arc::ptr_eq(now, &place);
            // It was the link that was down, and the connection has left it: nothing is known of memory on the other one.
            if !less && !data.place.as_ref().is_some_and(here) {
                continue;
            }
            let Some(flow) = data.flow.as_mut() else {
                return;
            };
            flow.tx.stay();
            // On a link that is down it is no lack of memory.
            if less || !place.link.is_shut() {
                sk.set_send_buffer_size(kept_twice(flow.tx.sndbuf_len()));
            }
            return;
        }
    }

    /// Goes on in a ring of `limit` bytes, if there is memory for it, else in a smaller one.
    fn exchange(&self, place: &Arc<Place>, growth: &Growth, limit: u32) -> Result<Outcome> {
        let pool = place.group.pool();
        let present = place.send_ring();
        let Some((ring, origin)) = pool.take_larger(&place.link, present, limit) else {
            return Ok(Outcome::Nothing);
        };
        let mut written = 0;
        let mut made = || -> Result<_> {
            for span in growth.source.iter() {
                let (from, len) = (span.offset as usize, span.len as usize);
                ring.buffer()
                    .copy_from(written, present.buffer(), from, len)?;
                written += len;
            }
            // For the case that the connection has to move there. One that cannot goes without, or tries again.
            for link in place.group.links().filter(|link| link.is_active()) {
                let _ = ring.map(&link);
            }
            let held = Held::new(ring.clone(), origin, &self.stats)?;
            let rmb = place.rmb_held.clone();
            let new = Place::new(&place.group, &place.link, held, rmb)?;
            Ok((new, cursor::Ring::new(ring.len()).ok_or(EINVAL)?))
        };
        let (new, geometry) = made().inspect_err(|_| pool.put(&ring, u32::MAX))?;
        let (replaced, moved) = {
            let mut guard = self.data.lock();
            let data = &mut *guard;
            let pending = data.in_flight > 0;
            match (data.place.as_mut(), data.flow.as_mut()) {
                (Some(now), Some(flow)) if Arc::ptr_eq(now, place) => {
                    let grown = flow.grow(geometry, growth, pending);
                    let replaced = grown.then(|| core::mem::replace(now, new.clone()));
                    data.former = replaced.as_ref().map(|old| old.send_held.clone());
                    (replaced, false)
                }
                _ => (None, true),
            }
        };
        if replaced.is_none() {
            pool.put(&ring, u32::MAX);
            return Ok(if moved {
                Outcome::Moved
            } else {
                Outcome::Nothing
            });
        }
        Ok(if ring.len() < limit {
            Outcome::Less
        } else {
            Outcome::Done
        })
    }

    /// Somebody has found no room to write, and something has been sent since: as in TCP, the send buffer gets larger
    /// if that is all that keeps data from being sent. Not larger than the peer's RMB, since no more can be under way.
    /// Any context.
    pub(super) fn widen(&self, data: &mut Data) {
        let (Some(flow), Some(sk), true) = (data.flow.as_mut(), data.sk.as_ref(), self.sndbuf.1)
        else {
            return;
        };
        if !flow.tx.is_short_of_room() || sk.has_fixed_send_buffer() {
            return;
        }
        let most = sk.net().tcp_send_buffer_max();
        let most = most.min(LARGEST_SEND).min(flow.tx.peer_rmb_len());
        let next = flow.tx.sndbuf_len().saturating_mul(2);
        if next <= most {
            flow.tx.raise_limit(next);
            sk.set_send_buffer_size(kept_twice(next));
        }
    }
}
