// SPDX-License-Identifier: GPL-2.0

//! What the peer is told about our RMBs after their connections' CLC messages: CONFIRM RKEY for a
//! new one, DELETE RKEY for one that it may not write to any more (RFC 7609, section 3.5.5.2).
//!
//! There is one request at a time, so the others wait here, in their order.

use super::{
    buffers::Ring,
    link::{
        Link,
        Slot, //
    },
    llc::{
        flow::{
            Actions,
            Busy,
            LinkFlow,
            Request, //
        },
        wire::RToken, //
    },
    time::Millis,
    types::RKey, //
};
use crate::kapi::prelude::*;
use kernel::{
    error::Result,
    new_mutex,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// How often a request is made that the peer does not answer.
const TRIES: u8 = 3;

/// How often a request is made that the peer cannot follow yet: it takes its time to add a link.
const PATIENCE: u8 = 40;

/// How long to wait before asking again, in milliseconds.
const PAUSE: u32 = 500;

/// What is to be said about an RMB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Subject {
    /// It is new.
    Confirm,
    /// It is gone for the peer.
    Delete,
}

struct Errand {
    subject: Subject,
    rmb: Arc<Ring>,
    tries: u8,
    not_before: Millis,
}

struct Queue {
    /// The link on which the first one has been asked.
    asked: Option<Slot>,
    errands: KVec<Errand>,
    closed: bool,
}

/// How the peer has answered a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// It has done it.
    Done,
    /// It has not said anything.
    Missing,
    /// It has not done it. `retry`: it may do so later.
    Failed {
        /// Whether asking again is of use.
        retry: bool,
    },
}

/// What a request that is over has come to.
pub(super) enum Settled {
    /// The peer does not use this RMB any more.
    Returned(Arc<Ring>),
    /// The peer knows this RMB.
    Confirmed(Arc<Ring>),
    /// The peer may go on to use this RMB.
    Kept(Arc<Ring>),
    /// It was asked again and again, and has never answered.
    Unanswered,
}

/// The requests about RMBs that a link group has to make. Process context only.
#[pin_data]
pub(super) struct Rkeys {
    #[pin]
    queue: Mutex<Queue>,
}

/// What to ask on the link at `slot`: RMBs are known by their keys there.
fn request(errand: &Errand, slot: Slot) -> Option<(Request, RToken)> {
    let key = errand.rmb.mapping(slot)?.remote_key()?;
    let rkey = RKey(key.rkey);
    let request = match errand.subject {
        Subject::Confirm => Request::ConfirmRkey(rkey),
        Subject::Delete => Request::DeleteRkey(rkey),
    };
    Some((
        request,
        RToken {
            rkey,
            vaddr: key.addr,
        },
    ))
}

impl Rkeys {
    /// Nothing to ask.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            queue <- new_mutex!(
                Queue { asked: None, errands: KVec::new(), closed: false },
                "Rkeys::queue"
            ),
        })
    }

    /// The peer is to be told of a new RMB.
    pub(super) fn confirm(&self, rmb: &Arc<Ring>) -> Result {
        self.add(Subject::Confirm, rmb.clone())
    }

    /// The peer is to be told that it has no access to an RMB any more; afterwards it can be used
    /// for another connection.
    pub(super) fn delete(&self, rmb: Arc<Ring>) -> Result {
        self.add(Subject::Delete, rmb)
    }

    fn add(&self, subject: Subject, rmb: Arc<Ring>) -> Result {
        let errand = Errand {
            subject,
            rmb,
            tries: 0,
            not_before: Millis(0),
        };
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(ENOTCONN);
        }
        queue.errands.push(errand, GFP_KERNEL)?;
        Ok(())
    }

    /// Makes the next request for which `link` will do, if there is one and none is under way: what to send.
    ///
    /// It is made on `link`; keys on `others` are told, too.
    pub(super) fn ask(
        &self,
        link: &Link,
        others: &[Option<Arc<Link>>; 2],
        flow: &mut LinkFlow,
        now: Millis,
    ) -> Option<Actions> {
        let slot = link.slot();
        let mut queue = self.queue.lock();
        if queue.asked.is_some() {
            return None;
        }
        // One that is not registered for this link is for another one, and keeps nobody waiting.
        let here = |errand: &Errand| request(errand, slot).is_some();
        let index = queue.errands.iter().position(here)?;
        queue.errands.get_mut(..=index)?.rotate_right(1);
        let errand = queue.errands.first_mut()?;
        if !errand.not_before.reached(now) {
            return None;
        }
        let asked = match request(errand, slot)? {
            (Request::ConfirmRkey(_), token) => {
                let other = |link: &Option<Arc<Link>>| {
                    let link = link.as_deref()?;
                    Some((link.number(), errand.rmb.token_on(link)?))
                };
                let [first, second] = others;
                flow.confirm_rkey(token, [other(first), other(second)], now)
            }
            (Request::DeleteRkey(rkey), _) => flow.delete_rkey(rkey, now),
        };
        match asked {
            Ok(actions) => {
                errand.tries = errand.tries.saturating_add(1);
                queue.asked = Some(slot);
                Some(actions)
            }
            // The link is not confirmed yet, or has ended.
            Err(Busy) => None,
        }
    }

    /// The peer has answered, or not in time.
    pub(super) fn answered(
        &self,
        answered: Request,
        answer: Answer,
        now: Millis,
    ) -> Option<Settled> {
        let mut guard = self.queue.lock();
        let queue = &mut *guard;
        let first = queue.errands.first_mut()?;
        if request(first, queue.asked?)?.0 != answered {
            return None;
        }
        let again = match answer {
            Answer::Failed { retry: true } => first.tries < PATIENCE,
            Answer::Missing => first.tries < TRIES,
            _ => false,
        };
        first.not_before = now.after(PAUSE);
        queue.asked = None;
        if again {
            return None;
        }
        if answer == Answer::Missing {
            // The link is given up; perhaps there is another one to ask on.
            first.tries = 0;
            return Some(Settled::Unanswered);
        }
        let Errand { subject, rmb, .. } = queue.errands.remove(0).ok()?;
        drop(guard);
        match (subject, answer) {
            (Subject::Delete, Answer::Done) => Some(Settled::Returned(rmb)),
            (Subject::Delete, _) => Some(Settled::Kept(rmb)),
            (Subject::Confirm, Answer::Done) => Some(Settled::Confirmed(rmb)),
            // With a single link it does not matter what the peer makes of CONFIRM RKEY: the CLC messages
            // have told it all.
            _ => None,
        }
    }

    /// The link at `slot` is gone: what was asked on it is to be asked again on another one.
    pub(super) fn restart(&self, slot: Slot) {
        let mut queue = self.queue.lock();
        if queue.asked == Some(slot) {
            queue.asked = None;
        }
    }

    /// An RMB that the peer was to be told not to write to, and for which no link has a key any more. After the end of a
    /// link, until there is none.
    pub(super) fn take_unreachable(&self) -> Option<Arc<Ring>> {
        let mut queue = self.queue.lock();
        let unreachable = |errand: &Errand| {
            errand.subject == Subject::Delete
                && Slot::all().all(|slot| errand.rmb.mapping(slot).is_none())
        };
        let index = queue.errands.iter().position(unreachable)?;
        Some(queue.errands.remove(index).ok()?.rmb)
    }

    /// The link is gone, and so is everything that was to be said on it.
    pub(super) fn close(&self) {
        let errands = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            core::mem::take(&mut queue.errands)
        };
        drop(errands);
    }
}
