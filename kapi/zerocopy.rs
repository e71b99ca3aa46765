// SPDX-License-Identifier: GPL-2.0

//! `MSG_ZEROCOPY`: telling a program when it may use its memory again.
//!
//! What is sent is copied, so that it may at once; the program hears that, and that it was a copy, by
//! TCP's own means: in the error queue of the TCP socket, where TCP's format and numbers come from.
//!
//! # What C guarantees
//!
//! `msg_zerocopy_realloc` gives a notification with one reference, which holds the socket. The last
//! reference puts it into the socket's error queue; `msg_zerocopy_put_abort` takes it back, with its
//! number.

use super::clcsock::ClcSock;
use crate::{
    bindings,
    kapi::prelude::*, //
};
use core::ptr::{
    self,
    NonNull, //
};
use kernel::error::Result;

/// A send with `MSG_ZEROCOPY` that is under way. Dropping it takes it back: nothing was sent.
///
/// # Invariants
///
/// `raw` is a notification of TCP's kind, of which this object owns the only reference.
pub(crate) struct Notification {
    raw: NonNull<bindings::ubuf_info>,
}

impl Notification {
    /// Begins the send of `len` bytes, which is not 0. Process context; may sleep.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` as TCP: more is under way than `net.core.optmem_max` allows, or no memory.
    pub(crate) fn begin(clc: &ClcSock, len: usize) -> Result<Self> {
        // SAFETY: The `sk` of a clcsock is alive; this is a system call of the sender.
        let raw = unsafe { bindings::msg_zerocopy_realloc(clc.sk(), len, ptr::null_mut(), false) };
        // INVARIANT: The reference that C gave is ours.
        Ok(Self {
            raw: NonNull::new(raw).ok_or(ENOBUFS)?,
        })
    }

    /// The data was copied: tells the program.
    pub(crate) fn copied(self) {
        let raw = self.raw.as_ptr();
        core::mem::forget(self);
        // SAFETY: By the type invariants `raw` is valid, and has C's own operations. This passes on our
        // reference; no success means a copy.
        unsafe {
            if let Some(complete) = (*(*raw).ops).complete {
                complete(ptr::null_mut(), raw, false);
            }
        }
    }
}

impl Drop for Notification {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference is ours; nothing else has seen it.
        unsafe { bindings::msg_zerocopy_put_abort(self.raw.as_ptr(), true) };
    }
}
