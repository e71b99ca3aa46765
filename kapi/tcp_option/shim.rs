// SPDX-License-Identifier: GPL-2.0

//! Listening in on a TCP socket's connection set-up, through its table of connection operations
//! (`icsk_af_ops`).
//!
//! # What C guarantees
//!
//! - `sk_rx_dst_set` is called with the SYN-ACK when a client's connection is established
//!   (`tcp_finish_connect()`), under the socket lock.
//! - `syn_recv_sock` makes the child of a request; what it returns is locked and not yet in the
//!   accept queue. It inherits the listener's table, except for IPv4 on an IPv6 listener.
//! - The saved SYN moves from the request to its child within `syn_recv_sock`, and only if the child
//!   owns the request.
//! - The tables are constants of the kernel proper.

use core::{
    ptr,
    slice, //
};

use kernel::prelude::*;

use super::{
    state,
    table::Copies, //
};
use crate::{
    bindings,
    clc::tcp_option as option, //
};

type AfOps = bindings::inet_connection_sock_af_ops;

static SHIMS: Copies<AfOps, 1> = Copies::new();

/// The value of `tcp_sock::save_syn` that says that we, not the user, want the SYN to be saved; C
/// takes any value but 0 and 2 for 1.
pub(super) const SAVE_SYN_OURS: u8 = 3;

/// What a child's `sk_user_data` points to when it was negotiated. Only the address counts; it is
/// aligned, so that the flags in the pointer's lowest bits are clear, and nothing ever reads through
/// it.
#[repr(align(64))]
struct Tag(#[allow(dead_code, reason = "makes the tag's address unique")] [u8; 64]);

static NEGOTIATED: Tag = Tag([0; 64]);

fn tag() -> *mut c_void {
    (&raw const NEGOTIATED).cast_mut().cast()
}

/// The TCP part of a socket.
fn icsk(sk: *mut bindings::sock) -> *mut bindings::inet_connection_sock {
    sk.cast()
}

/// Reads a socket's table.
///
/// # Safety
///
/// `sk` must be a valid TCP socket.
unsafe fn table_of(sk: *const bindings::sock) -> *const AfOps {
    // SAFETY: Per this function's contract; the pointer may change meanwhile, in one piece.
    unsafe { ptr::read_volatile(&raw const (*icsk(sk.cast_mut())).icsk_af_ops) }
}

/// Changes a socket's table.
///
/// # Safety
///
/// `sk` must be a valid TCP socket that the caller has locked, and `table` a table of its family.
unsafe fn set_table(sk: *mut bindings::sock, table: *const AfOps) {
    // SAFETY: Per this function's contract; C reads without the lock here and there.
    unsafe { ptr::write_volatile(&raw mut (*icsk(sk)).icsk_af_ops, table) }
}

/// Puts the shim into place, unless it is there. May sleep.
///
/// # Errors
///
/// `ENOSPC` if the socket's table is the copy of too many (an upper-layer protocol's).
///
/// # Safety
///
/// `sk` must be a valid TCP socket that the caller has locked in process context. It must not
/// outlive the module before [`remove`] was called or the SYN-ACK has come.
pub(super) unsafe fn install(sk: *mut bindings::sock) -> Result {
    // SAFETY: The caller vouches for the socket.
    let table = unsafe { table_of(sk) };
    // SAFETY: TCP's tables are constants of the kernel.
    let shim = unsafe {
        SHIMS.variant_or_make(table, 0, |_, shim| {
            shim.sk_rx_dst_set = Some(sk_rx_dst_set);
            shim.syn_recv_sock = Some(syn_recv_sock);
        })?
    };
    // SAFETY: The caller has locked the socket; the shim is made of its own table.
    unsafe { set_table(sk, shim) };
    Ok(())
}

/// Takes the shim away, if it is there; returns the original table then. Any context.
///
/// # Safety
///
/// `sk` must be a valid TCP socket that the caller has locked.
pub(super) unsafe fn remove<'a>(sk: *mut bindings::sock) -> Option<&'a AfOps> {
    // SAFETY: The caller vouches for the socket.
    let (_, original) = SHIMS.find(unsafe { table_of(sk) })?;
    // SAFETY: The caller has locked the socket; the shim was made of this table.
    unsafe { set_table(sk, original) };
    // SAFETY: TCP's tables are constants of the kernel.
    Some(unsafe { &*original })
}

/// Whether a child was negotiated; forgets it.
///
/// # Safety
///
/// `sk` must be a valid TCP socket that the caller has locked.
pub(super) unsafe fn take_negotiated(sk: *mut bindings::sock) -> bool {
    // SAFETY: The caller vouches for the socket, and its lock covers this field until the socket is
    // in somebody else's hands.
    let place = unsafe { &raw mut (*sk).sk_user_data };
    // SAFETY: As above.
    let negotiated = unsafe { ptr::read_volatile(place) } == tag();
    if negotiated {
        // SAFETY: As above.
        unsafe { ptr::write_volatile(place, ptr::null_mut()) };
    }
    negotiated
}

/// The connection is established.
///
/// # Safety
///
/// Called by C only, with a locked socket that has the shim.
unsafe extern "C" fn sk_rx_dst_set(sk: *mut bindings::sock, skb: *const bindings::sk_buff) {
    // SAFETY: C calls with the locked socket.
    let Some(original) = (unsafe { remove(sk) }) else {
        return;
    };
    if let Some(sk_rx_dst_set) = original.sk_rx_dst_set {
        // SAFETY: The call is passed on to the socket's own function.
        unsafe { sk_rx_dst_set(sk, skb) };
    }
    // SAFETY: C passes a TCP segment with its headers in place, and the locked socket it belongs to.
    if unsafe { accepts(sk, skb) } {
        // SAFETY: The socket is locked.
        unsafe { state::confirm(sk) };
    }
}

/// Whether a segment is a SYN-ACK that says that the server speaks SMC.
///
/// # Safety
///
/// `skb` must be a TCP segment for `sk`, whose options TCP has parsed.
unsafe fn accepts(sk: *const bindings::sock, skb: *const bindings::sk_buff) -> bool {
    if skb.is_null() {
        return false;
    }
    // SAFETY: The packet is valid.
    let (offset, len) = unsafe {
        (
            bindings::skb_transport_offset(skb),
            bindings::skb_headlen(skb) as usize,
        )
    };
    let Ok(offset) = usize::try_from(offset) else {
        return false;
    };
    // SAFETY: The linear part of a packet has this length, and nobody writes to it here.
    let bytes = unsafe { slice::from_raw_parts((*skb).data, len) };
    let Some((flags, options)) = bytes.get(offset..).and_then(tcp_options) else {
        return false;
    };
    // RFC 9293, section 3.1: ACK is bit 4, SYN bit 1.
    let syn_ack = flags & 0x12 == 0x12;
    // A server or middlebox that sends back what it does not know sends our timestamps back, too:
    // then the repeated one is zero, as in our SYN. An honest one repeats our clock (RFC 7323,
    // section 3.2).
    // SAFETY: The socket is valid and locked; its `rx_opt` are the segment's options.
    let echo = unsafe {
        let rx_opt = &raw const (*sk.cast::<bindings::tcp_sock>()).rx_opt;
        (*rx_opt).saw_tstamp() != 0 && (*rx_opt).rcv_tsecr == 0
    };
    syn_ack && !echo && option::contains_smc(options)
}

/// The flags and options of a TCP header.
fn tcp_options(header: &[u8]) -> Option<(u8, &[u8])> {
    let len = usize::from(*header.get(12)? >> 4).checked_mul(4)?;
    Some((*header.get(13)?, header.get(20..len)?))
}

/// A request is complete: makes its child.
///
/// # Safety
///
/// Called by C only, with a listener that has, or a moment ago had, the shim.
unsafe extern "C" fn syn_recv_sock(
    sk: *const bindings::sock,
    skb: *mut bindings::sk_buff,
    req: *mut bindings::request_sock,
    dst: *mut bindings::dst_entry,
    req_unhash: *mut bindings::request_sock,
    own_req: *mut bool,
    opt_child_init: Option<unsafe extern "C" fn(*mut bindings::sock, *const bindings::sock)>,
) -> *mut bindings::sock {
    // SAFETY: The listener is valid. It is not locked, so the shim may be gone by now.
    let table = unsafe { table_of(sk) };
    let original = SHIMS.find(table).map_or(table, |(_, original)| original);
    // SAFETY: TCP's tables are constants of the kernel.
    let Some(function) = (unsafe { (*original).syn_recv_sock }) else {
        return ptr::null_mut();
    };
    // SAFETY: The call is passed on to the socket's own function.
    let child = unsafe { function(sk, skb, req, dst, req_unhash, own_req, opt_child_init) };
    if !child.is_null() {
        // SAFETY: The child is valid, locked, and known to nobody else.
        unsafe { remove(child) };
        // SAFETY: C passes a place for the answer, which the call above has filled.
        if unsafe { *own_req } {
            // SAFETY: As above, and the child has taken over what the request had saved.
            unsafe { settle(child) };
        }
    }
    child
}

/// Decides whether a child is negotiated, and cleans its saved SYN up.
///
/// # Safety
///
/// `child` must be a valid, locked TCP socket that is known to nobody else.
unsafe fn settle(child: *mut bindings::sock) {
    let tp: *mut bindings::tcp_sock = child.cast();
    // SAFETY: The child is valid and locked.
    let Some(saved) = (unsafe { SavedSyn::new((*tp).saved_syn) }) else {
        return;
    };
    // SAFETY: The child keeps its saved SYN until it is exchanged below.
    let mut header = unsafe { saved.tcp_header() };
    let marked = header
        .options()
        .is_some_and(|options| super::mark().is_marked(options));
    if marked {
        // SAFETY: The child is valid and locked. A listener's own pointer is not inherited, if it is
        // flagged as SMC sockets flag theirs; anything else is not ours to keep.
        unsafe { ptr::write_volatile(&raw mut (*child).sk_user_data, tag()) };
        header.restore();
    }
    // SAFETY: The child is valid and locked.
    let wanted_by_user = unsafe { (*tp).save_syn() } != SAVE_SYN_OURS;
    let copy = if wanted_by_user {
        // SAFETY: As above.
        unsafe { saved.duplicate(&header) }
    } else {
        ptr::null_mut()
    };
    // The request's retransmitted SYN-ACK may be on its way through the hook on another processor,
    // reading the SYN: so it must live for a grace period, which the child would not care for.
    // SAFETY: The child is valid and locked; it owns the SYN and now owns the copy.
    unsafe { (*tp).saved_syn = copy };
    // SAFETY: Nobody but readers under RCU has a pointer to the SYN now.
    unsafe { saved.free_later() };
}

/// The IP and TCP headers of a SYN, as TCP has saved them.
///
/// # Invariants
///
/// The pointer is valid; the lengths say how much follows them, and are sane.
#[derive(Clone, Copy)]
pub(super) struct SavedSyn {
    raw: *mut bindings::saved_syn,
    /// Where the TCP header starts in `data`.
    tcp_at: usize,
    /// Length of the TCP header.
    tcp_len: usize,
}

/// A TCP header has at most 15 words (RFC 9293, section 3.1).
const MAX_TCP_HEADER: usize = 60;
const TCP_FIXED: usize = 20;

/// A copy of a saved TCP header.
pub(super) struct TcpHeader {
    bytes: [u8; MAX_TCP_HEADER],
    len: usize,
}

impl TcpHeader {
    /// The options.
    pub(super) fn options(&self) -> Option<&[u8]> {
        self.bytes.get(TCP_FIXED..self.len)
    }

    /// Marks the header; returns whether it could.
    pub(super) fn mark(&mut self) -> bool {
        self.bytes
            .get_mut(TCP_FIXED..self.len)
            .is_some_and(|options| super::mark().mark(options))
    }

    fn restore(&mut self) {
        if let Some(options) = self.bytes.get_mut(TCP_FIXED..self.len) {
            super::mark().restore(options);
        }
    }
}

impl SavedSyn {
    /// Looks at a saved SYN; `None` for null, or if its lengths make no sense.
    ///
    /// # Safety
    ///
    /// `raw` must be null or a SYN that TCP has saved and that is not freed while this is in use.
    pub(super) unsafe fn new(raw: *mut bindings::saved_syn) -> Option<Self> {
        if raw.is_null() {
            return None;
        }
        // SAFETY: The caller vouches for the SYN; its lengths do not change.
        let (mac, net, tcp) =
            unsafe { ((*raw).mac_hdrlen, (*raw).network_hdrlen, (*raw).tcp_hdrlen) };
        let tcp_at = usize::try_from(mac.checked_add(net)?).ok()?;
        let tcp_len = usize::try_from(tcp).ok()?;
        let sane = (TCP_FIXED..=MAX_TCP_HEADER).contains(&tcp_len) && tcp_at >= 20;
        sane.then_some(Self {
            raw,
            tcp_at,
            tcp_len,
        })
    }

    /// Address of the saved TCP header.
    fn tcp(&self) -> *mut u8 {
        // SAFETY: By the invariants this many bytes follow the lengths.
        unsafe { (&raw mut (*self.raw).data).cast::<u8>().add(self.tcp_at) }
    }

    /// A copy of the TCP header.
    ///
    /// # Safety
    ///
    /// The SYN must still be there.
    pub(super) unsafe fn tcp_header(&self) -> TcpHeader {
        let mut header = TcpHeader {
            bytes: [0; MAX_TCP_HEADER],
            len: self.tcp_len,
        };
        for (at, byte) in header.bytes.iter_mut().take(self.tcp_len).enumerate() {
            // SAFETY: By the invariants the header has this length. A byte that is being marked on
            // another processor is read before or after that.
            *byte = unsafe { ptr::read_volatile(self.tcp().add(at)) };
        }
        header
    }

    /// Writes back what differs from `before` in `after`, both made by [`Self::tcp_header`].
    ///
    /// # Safety
    ///
    /// The SYN must still be there.
    pub(super) unsafe fn update(&self, before: &TcpHeader, after: &TcpHeader) {
        let bytes = before.bytes.iter().zip(&after.bytes).take(self.tcp_len);
        for (at, (old, new)) in bytes.enumerate() {
            if old != new {
                // SAFETY: By the invariants the header has this length.
                unsafe { ptr::write_volatile(self.tcp().add(at), *new) };
            }
        }
    }

    /// A new saved SYN with another TCP header; null without memory.
    ///
    /// # Safety
    ///
    /// The SYN must still be there.
    unsafe fn duplicate(&self, header: &TcpHeader) -> *mut bindings::saved_syn {
        let Some(len) = size_of::<bindings::saved_syn>()
            .checked_add(self.tcp_at)
            .and_then(|len| len.checked_add(self.tcp_len))
        else {
            return ptr::null_mut();
        };
        let mut copy = KVec::<u8>::new();
        // SAFETY: By the invariants the SYN has this length.
        let bytes = unsafe { slice::from_raw_parts(self.raw.cast::<u8>(), len) };
        if copy.extend_from_slice(bytes, GFP_ATOMIC).is_err() {
            return ptr::null_mut();
        }
        // TCP frees it by `kfree`, which suits what `KVec` allocates.
        let (copy, _, _) = copy.into_raw_parts();
        let copy = Self {
            raw: copy.cast(),
            ..*self
        };
        // SAFETY: The copy was made just now.
        let before = unsafe { copy.tcp_header() };
        // SAFETY: As above.
        unsafe { copy.update(&before, header) };
        copy.raw
    }

    /// Frees the SYN when a grace period has passed. Any context.
    ///
    /// # Safety
    ///
    /// The caller must own the SYN; nobody may find it any more.
    unsafe fn free_later(self) {
        // The list head goes where the IP (or link layer) header is: readers look at the lengths
        // before it and at the TCP header behind it only.
        const HEAD: usize = 16;
        const _: () = assert!(size_of::<bindings::saved_syn>() + 20 >= HEAD + 16);
        // SAFETY: By the invariants at least 20 bytes of other headers follow the lengths, so 16
        // bytes from this offset on are not part of the TCP header; the offset is aligned for
        // pointers. The caller owns the SYN, which `kmalloc` made.
        unsafe { bindings::kfree_rcu_at(self.raw.cast(), HEAD) };
    }
}
