// SPDX-License-Identifier: GPL-2.0

//! Netlink dumps: an answer of many messages, given in parts as the asker reads them.
//!
//! # What C guarantees
//!
//! A callback of a dump runs in process context, one at a time for a dump, with a buffer of its own.
//! `netlink_callback` and the request (`cb->skb`, `cb->nlh`) stay until the dump is over. A dump that
//! was begun pins the module until it is over.

use crate::bindings;
use crate::kapi::prelude::*;
use core::{
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    },
};
use kernel::{
    error::{
        to_result,
        Result, //
    },
    ffi::c_int,
};

/// Length of `struct nlmsghdr`, which `NLMSG_ALIGN` leaves as it is.
const HEADER: usize = size_of::<bindings::nlmsghdr>();

/// One part of a dump.
///
/// # Invariants
///
/// `skb` is the buffer for this part, and `cb` the dump it belongs to; both are the callback's own for
/// `'a`.
pub(crate) struct Dump<'a> {
    skb: NonNull<bindings::sk_buff>,
    cb: NonNull<bindings::netlink_callback>,
    _call: PhantomData<&'a mut ()>,
}

impl Dump<'_> {
    /// The part of a dump that a callback is to fill.
    ///
    /// # Safety
    ///
    /// The arguments are those of a running dump callback, which `'a` does not outlive.
    pub(super) unsafe fn from_raw(
        skb: NonNull<bindings::sk_buff>,
        cb: NonNull<bindings::netlink_callback>,
    ) -> Self {
        // INVARIANT: By this function's contract.
        Self {
            skb,
            cb,
            _call: PhantomData,
        }
    }

    /// What was asked: the request behind its netlink header.
    pub(crate) fn request(&self) -> &[u8] {
        // SAFETY: By the type invariants the dump is alive, and with it its request, which the netlink
        // core has checked to be `nlmsg_len` bytes long, header included. Nobody changes it.
        unsafe {
            let nlh = (*self.cb.as_ptr()).nlh;
            let len = ((*nlh).nlmsg_len as usize).saturating_sub(HEADER);
            core::slice::from_raw_parts(nlh.cast::<u8>().add(HEADER), len)
        }
    }

    /// The request's buffer: who has asked.
    pub(super) fn asker(&self) -> *mut bindings::sk_buff {
        // SAFETY: By the type invariants the dump is alive.
        unsafe { (*self.cb.as_ptr()).skb }
    }

    /// Begins a message with `body`.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if it does not fit into this part.
    pub(crate) fn message(&mut self, kind: u16, body: &[u8]) -> Result<Message<'_>> {
        let len = c_int::try_from(body.len())?;
        // SAFETY: By the type invariants both are ours.
        let header = unsafe {
            bindings::nlmsg_put_answer(
                self.skb.as_ptr(),
                self.cb.as_ptr(),
                c_int::from(kind),
                len,
                bindings::NLM_F_MULTI as c_int,
            )
        };
        let header = NonNull::new(header).ok_or(EMSGSIZE)?;
        // SAFETY: `nlmsg_put_answer` has made room for `len` bytes behind the header.
        unsafe {
            let to = header.as_ptr().cast::<u8>().add(HEADER);
            ptr::copy_nonoverlapping(body.as_ptr(), to, body.len());
        }
        // INVARIANT: The message was just begun in our buffer.
        Ok(Message {
            skb: self.skb,
            header,
            _dump: PhantomData,
        })
    }
}

/// A message under construction; dropping it takes it back.
///
/// # Invariants
///
/// `header` is the last message in `skb`, which is ours for `'a`.
pub(crate) struct Message<'a> {
    skb: NonNull<bindings::sk_buff>,
    header: NonNull<bindings::nlmsghdr>,
    _dump: PhantomData<&'a mut ()>,
}

impl Message<'_> {
    /// Adds an attribute.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` if it does not fit.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> Result {
        let len = c_int::try_from(value.len())?;
        // SAFETY: The buffer is ours by the type invariants; `value` is `len` bytes long.
        to_result(unsafe {
            bindings::nla_put(
                self.skb.as_ptr(),
                c_int::from(kind),
                len,
                value.as_ptr().cast(),
            )
        })
    }

    /// Completes the message.
    pub(crate) fn finish(self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::nlmsg_end(self.skb.as_ptr(), self.header.as_ptr()) };
        core::mem::forget(self);
    }
}

impl Drop for Message<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants.
        unsafe { bindings::nlmsg_cancel(self.skb.as_ptr(), self.header.as_ptr()) };
    }
}
