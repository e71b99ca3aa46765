// SPDX-License-Identifier: GPL-2.0

//! What the peer is told about our RMBs after their connections' CLC messages: CONFIRM RKEY for a
//! new one, DELETE RKEY for one that it may not write to any more (RFC 7609, section 3.5.5.2).
//!
//! There is one request at a time, so the others wait here: see [`errands`].

pub(super) use super::errands::Answer;
use super::{
    buffers::Ring,
    errands::{
        self,
        Errand,
        Subject,
        Verdict, //
    },
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
    rtoken::MAX_RTOKENS,
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

struct Queue {
    /// The link on which the first one has been asked.
    asked: Option<Slot>,
    /// The first one is asked, if any.
    errands: KVec<Errand<Arc<Ring>>>,
    closed: bool,
}

impl Queue {
    /// Where the first one is that is meant and has not been asked.
    fn waiting(&self, is_meant: impl Fn(&Errand<Arc<Ring>>) -> bool) -> Option<usize> {
        let asked = usize::from(self.asked.is_some());
        let index = self.errands.iter().skip(asked).position(is_meant)?;
        index.checked_add(asked)
    }
}

/// What a request that is over has come to.
pub(super) enum Settled {
    /// The peer does not use this RMB any more.
    Returned(Arc<Ring>),
    /// The peer knows an RMB.
    Confirmed,
    /// The peer does not know all keys of this RMB, and does not want to.
    Refused(Arc<Ring>),
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
fn request(errand: &Errand<Arc<Ring>>, slot: Slot) -> Option<(Request, RToken)> {
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
    /// for another connection. False if that waits for as many already as a group can have: the peer has let all of them
    /// down, and does not keep up.
    pub(super) fn delete(&self, rmb: Arc<Ring>) -> Result<bool> {
        self.add(Subject::Delete, rmb)?;
        Ok(self.queue.lock().errands.len() < MAX_RTOKENS)
    }

    fn add(&self, subject: Subject, rmb: Arc<Ring>) -> Result {
        let errand = Errand::new(subject, rmb);
        let mut guard = self.queue.lock();
        let queue = &mut *guard;
        if queue.closed {
            return Err(ENOTCONN);
        }
        let rmb = errand.rmb.clone();
        let confirms = queue
            .waiting(|other| other.subject == Subject::Confirm && Arc::ptr_eq(&other.rmb, &rmb));
        match (subject, confirms) {
            (Subject::Confirm, waits) => {
                if waits.is_none() {
                    queue.errands.push(errand, GFP_KERNEL)?;
                }
                // Under the lock: the answer to an earlier one is not taken for this one's.
                rmb.set_confirmed(false);
            }
            (Subject::Delete, confirms) => {
                queue.errands.push(errand, GFP_KERNEL)?;
                // That it is new need not be said any more.
                if let Some(index) = confirms {
                    let _ = queue.errands.remove(index);
                }
            }
        }
        Ok(())
    }

    /// Nobody needs an RMB any more, and nothing is to be said about it.
    pub(super) fn forget(&self, rmb: &Arc<Ring>) {
        let mut guard = self.queue.lock();
        while let Some(index) = guard.waiting(|errand| Arc::ptr_eq(&errand.rmb, rmb)) {
            // The caller has the ring, so this is not its end.
            let _ = guard.errands.remove(index);
        }
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
        let here = |errand: &Errand<Arc<Ring>>| request(errand, slot).is_some();
        let errand = errands::next(&mut queue.errands, here, now)?;
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
                errand.asked();
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
        let first = queue.errands.first()?;
        if request(first, queue.asked?)?.0 != answered {
            return None;
        }
        queue.asked = None;
        let same = |a: &Arc<Ring>, b: &Arc<Ring>| Arc::ptr_eq(a, b);
        let verdict = errands::settle(&mut queue.errands, answer, same, now)?;
        match verdict {
            Verdict::Again => return None,
            Verdict::Unanswered => return Some(Settled::Unanswered),
            Verdict::Over | Verdict::Replaced => {}
        }
        let Errand { subject, rmb, .. } = queue.errands.remove(0).ok()?;
        if (verdict, subject, answer) == (Verdict::Over, Subject::Confirm, Answer::Done) {
            // Under the lock, as in `add`.
            rmb.set_confirmed(true);
        }
        drop(guard);
        if verdict == Verdict::Replaced {
            return None;
        }
        match (subject, answer) {
            // No answer refuses that: see `LinkFlow`.
            (Subject::Delete, _) => Some(Settled::Returned(rmb)),
            (Subject::Confirm, Answer::Done) => Some(Settled::Confirmed),
            (Subject::Confirm, _) => Some(Settled::Refused(rmb)),
        }
    }

    /// The link at `slot` is gone: what was asked on it is to be asked again on another one.
    pub(super) fn restart(&self, slot: Slot) {
        let mut queue = self.queue.lock();
        if queue.asked == Some(slot) {
            queue.asked = None;
        }
    }

    /// An RMB about which something was to be said, and for which no link has a key any more; whether that was that the
    /// peer is not to write to it. After the end of a link, until there is none.
    pub(super) fn take_unreachable(&self) -> Option<(bool, Arc<Ring>)> {
        let mut queue = self.queue.lock();
        let unreachable =
            |errand: &Errand<Arc<Ring>>| Slot::all().all(|slot| request(errand, slot).is_none());
        let index = queue.errands.iter().position(unreachable)?;
        let errand = queue.errands.remove(index).ok()?;
        Some((errand.subject == Subject::Delete, errand.rmb))
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
