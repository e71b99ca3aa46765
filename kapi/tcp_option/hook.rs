// SPDX-License-Identifier: GPL-2.0

//! Sending the option: a netfilter hook for the packets that this host sends.
//!
//! # What C guarantees
//!
//! - A hook runs under RCU; at `NF_INET_LOCAL_OUT` the packet starts with its IP header, whose length
//!   fields are set, and the transport header's offset is set.
//! - `skb->sk` of a client's SYN is its socket; of a SYN-ACK it is the request, which the packet
//!   holds a reference to; of a SYN-ACK that a cookie or Fast Open made it is nothing or the child.
//! - A request holds a reference to its listener. Its saved SYN is written before the first SYN-ACK.
//! - Headroom is reserved for all headers of any kind; `skb_cow_head()` makes more.

use core::{
    mem::ManuallyDrop,
    ptr,
    slice, //
};

use kernel::{
    error::to_result,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
    types::Opaque, //
};

use super::{
    shim::SavedSyn,
    state::{
        self,
        State, //
    },
};
use crate::{
    bindings,
    clc::{
        tcp_header::{
            Checksum,
            Headers,
            GROWTH, //
        },
        tcp_option as option, //
    },
    kapi::netns::{
        self,
        Net,
        PernetData,
        PernetKey, //
    },
};

/// How long the hook stays when the last SMC socket of a namespace is gone, in milliseconds:
/// registration patches the kernel's text, which is not worth while for every socket.
const LINGER_MS: u32 = 5000;

/// After how many retransmitted SYNs the option is left out: some firewalls drop what they do not
/// know.
const SYN_RETRIES: u8 = 2;

/// The hook of a namespace.
#[pin_data]
pub(crate) struct Hook {
    /// IPv4 and IPv6. Must stay in place while it is registered.
    ops: KBox<[Opaque<bindings::nf_hook_ops>; 2]>,
    /// Valid until `pre_exit`.
    net: *mut bindings::net,
    holders: Atomic<i32>,
    #[pin]
    status: Mutex<Status>,
    /// Takes the hook away.
    #[pin]
    removal: Opaque<bindings::delayed_work>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Absent,
    Registered,
    /// The namespace exits.
    Dead,
}

// SAFETY: The raw parts are used under `status`' lock only, or are C's own.
unsafe impl Send for Hook {}
// SAFETY: As above.
unsafe impl Sync for Hook {}

static KEY: PernetKey<Hook> = PernetKey::new();

impl PernetData for Hook {
    fn key() -> &'static PernetKey<Self> {
        &KEY
    }

    fn new(net: &Net) -> Result<Arc<Self>> {
        let ops = |pf| {
            Opaque::new(bindings::nf_hook_ops {
                hook: Some(local_out),
                pf: pf as u8,
                hooknum: bindings::nf_inet_hooks_NF_INET_LOCAL_OUT,
                priority: bindings::NF_IP_PRI_FIRST,
                ..pin_init::zeroed()
            })
        };
        let ops = KBox::new(
            [ops(bindings::NFPROTO_IPV4), ops(bindings::NFPROTO_IPV6)],
            GFP_KERNEL,
        )?;
        let net = net.as_ptr();
        Arc::pin_init(
            pin_init!(Self {
                ops,
                net,
                holders: Atomic::new(0),
                status <- new_mutex!(Status::Absent, "Hook::status"),
                removal <- Opaque::ffi_init(|work| {
                    // SAFETY: `work` is a place for a work item, which stays where it is.
                    unsafe { bindings::init_delayed_work(work, Some(remove_unused)) }
                }),
            }),
            GFP_KERNEL,
        )
    }

    fn pre_exit(&self) {
        let mut status = self.status.lock();
        self.unregister(&mut status);
        *status = Status::Dead;
    }

    fn exit(&self) {
        // From here on a late `HookRef` cannot queue it any more.
        // SAFETY: The work item is initialised; this is process context, and no lock is held.
        unsafe { bindings::disable_delayed_work_sync(self.removal.get()) };
    }
}

impl Hook {
    fn ops(&self) -> *mut bindings::nf_hook_ops {
        // `Opaque` is a transparent wrapper.
        self.ops.as_ptr().cast_mut().cast()
    }

    fn register(&self, status: &mut Status) -> Result {
        match *status {
            Status::Registered => Ok(()),
            Status::Dead => Err(ENODEV),
            Status::Absent => {
                // SAFETY: The namespace has not exited, since the status is not `Dead`. The two
                // hooks stay where they are until they are unregistered.
                to_result(unsafe { bindings::nf_register_net_hooks(self.net, self.ops(), 2) })?;
                *status = Status::Registered;
                Ok(())
            }
        }
    }

    fn unregister(&self, status: &mut Status) {
        if *status == Status::Registered {
            // SAFETY: Registered, and the namespace has not exited.
            unsafe { bindings::nf_unregister_net_hooks(self.net, self.ops(), 2) };
            *status = Status::Absent;
        }
    }
}

/// Keeps the hook of a namespace in place. May be dropped in any context.
pub(crate) struct HookRef(Arc<Hook>);

impl HookRef {
    pub(super) fn new(net: &Net) -> Result<Self> {
        let hook = netns::of::<Hook>(net).ok_or(ENODEV)?;
        {
            let mut status = hook.status.lock();
            hook.register(&mut status)?;
            hook.holders.add(1, Relaxed);
        }
        Ok(Self(hook))
    }
}

/// A place for a [`HookRef`] in something that is shared.
///
/// # Invariants
///
/// The pointer is null, or was made by `Arc::into_raw` of a `HookRef`'s hook and owned by us.
pub(crate) struct Slot(Atomic<*mut Hook>);

impl Slot {
    /// An empty place.
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(ptr::null_mut()))
    }

    /// Keeps `hook`, and drops what was kept before.
    pub(super) fn fill(&self, hook: HookRef) {
        let hook = ManuallyDrop::new(hook);
        // SAFETY: The reference is moved out of what is not dropped.
        let raw = Arc::into_raw(unsafe { ptr::read(&hook.0) });
        // INVARIANT: The pointer is ours.
        self.exchange(raw.cast_mut());
    }

    /// Drops what is kept. Any context.
    pub(super) fn clear(&self) {
        self.exchange(ptr::null_mut());
    }

    fn exchange(&self, new: *mut Hook) {
        let old = self.0.xchg(new, Full);
        if !old.is_null() {
            // SAFETY: By the invariants this was an `Arc`, and it is ours alone now.
            drop(HookRef(unsafe { Arc::from_raw(old) }));
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Drop for HookRef {
    fn drop(&mut self) {
        if self.0.holders.fetch_sub(1, Full) == 1 {
            // SAFETY: The work item is initialised. It cannot run after `exit`, before which the
            // namespace owns a reference to the hook. The queue exists always.
            unsafe {
                bindings::queue_delayed_work(
                    bindings::system_dfl_wq,
                    self.0.removal.get(),
                    bindings::msecs_to_jiffies(LINGER_MS),
                )
            };
        }
    }
}

/// Takes the hook away if nobody came since.
///
/// # Safety
///
/// Called by C only, with the work item of a [`Hook`].
unsafe extern "C" fn remove_unused(work: *mut bindings::work_struct) {
    // SAFETY: The item is the first member of the `removal` of a hook, which lives until `exit`
    // has waited for this.
    let hook = unsafe {
        let removal: *mut Opaque<bindings::delayed_work> = work.cast();
        &*kernel::container_of!(removal, Hook, removal)
    };
    let mut status = hook.status.lock();
    if hook.holders.load(Relaxed) == 0 {
        hook.unregister(&mut status);
    }
}

/// A packet leaves this host.
///
/// # Safety
///
/// Called by C only, as a hook at `NF_INET_LOCAL_OUT`.
unsafe extern "C" fn local_out(
    _priv: *mut c_void,
    skb: *mut bindings::sk_buff,
    _state: *const bindings::nf_hook_state,
) -> c_uint {
    // SAFETY: C passes a packet that is ours meanwhile.
    let sk = unsafe { (*skb).sk };
    if sk.is_null() {
        return bindings::NF_ACCEPT;
    }
    // SAFETY: What a packet points to is at least a common part of a socket, and stays.
    let state = u32::from(unsafe { ptr::read_volatile(&raw const (*sk).__sk_common.skc_state) });
    let result = match state {
        // SAFETY: As above; a socket in this state is a full one.
        bindings::TCP_SYN_SENT => unsafe { client_syn(sk, skb) },
        // SAFETY: As above; this state is that of requests only.
        bindings::TCP_NEW_SYN_RECV => unsafe { server_syn_ack(sk.cast(), skb) },
        _ => return bindings::NF_ACCEPT,
    };
    match result {
        Ok(()) => bindings::NF_ACCEPT,
        // Without the memory, a SYN-ACK would say that we do not speak SMC: better let it be lost.
        // TCP sends another one.
        Err(NoMemory) => bindings::NF_DROP,
    }
}

struct NoMemory;

/// What became of a packet.
#[derive(PartialEq, Eq)]
enum Outcome {
    Inserted,
    LeftAlone,
}

/// A client's packet.
///
/// # Safety
///
/// `sk` must be a full socket and `skb` a packet of it at the hook.
unsafe fn client_syn(sk: *mut bindings::sock, skb: *mut bindings::sk_buff) -> Result<(), NoMemory> {
    // SAFETY: `sk` is valid, and the hook runs under RCU.
    if unsafe { state::of_sk(sk) } != State::Wanted {
        return Ok(());
    }
    // SAFETY: Only TCP sockets of ours are in that state. The count may change meanwhile.
    let retransmits = unsafe {
        ptr::read_volatile(
            &raw const (*sk.cast::<bindings::inet_connection_sock>()).icsk_retransmits,
        )
    };
    if retransmits < SYN_RETRIES {
        // SAFETY: The packet is ours meanwhile.
        unsafe { insert(skb)? };
    }
    Ok(())
}

/// A SYN-ACK.
///
/// # Safety
///
/// `req` must be a request and `skb` a packet of it at the hook.
unsafe fn server_syn_ack(
    req: *mut bindings::request_sock,
    skb: *mut bindings::sk_buff,
) -> Result<(), NoMemory> {
    // SAFETY: A request has its listener for life.
    let listener = unsafe { bindings::reqsk_listener(req) };
    let state = if listener.is_null() {
        State::Plain
    } else {
        // SAFETY: As above, the listener is valid; the hook runs under RCU.
        unsafe { state::of_sk(listener) }
    };
    if !matches!(state, State::Wanted | State::Paused) {
        return Ok(());
    }
    // SAFETY: The request is valid. Its child may take the SYN away meanwhile, but then our
    // `syn_recv_sock` lets a grace period pass before it is freed, and the hook runs under RCU.
    let Some(saved) = (unsafe { SavedSyn::new(ptr::read_volatile(&raw const (*req).saved_syn)) })
    else {
        return Ok(());
    };
    // SAFETY: As above.
    let before = unsafe { saved.tcp_header() };
    let Some(options) = before.options() else {
        return Ok(());
    };
    let marked = super::mark().is_marked(options);
    // SAFETY: The request is valid.
    let first = unsafe { (*req).num_retrans == 0 && (*req).num_timeout() == 0 };
    // What one SYN-ACK has said, the next one for the same request repeats.
    let offers = first && state == State::Wanted && option::contains_smc(options);
    let carries = marked || offers;
    if !carries {
        return Ok(());
    }
    // SAFETY: The packet is ours meanwhile.
    if unsafe { insert(skb)? } == Outcome::Inserted && !marked {
        // The SYN-ACK that goes out carries the option: whatever child comes of it is SMC.
        // SAFETY: As above.
        let mut after = unsafe { saved.tcp_header() };
        if after.mark() {
            // SAFETY: As above.
            unsafe { saved.update(&before, &after) };
        }
    }
    Ok(())
}

/// Puts the option into a packet, if that is a SYN with room for it.
///
/// # Safety
///
/// `skb` must be a packet at the hook.
unsafe fn insert(skb: *mut bindings::sk_buff) -> Result<Outcome, NoMemory> {
    // SAFETY: The packet is valid.
    let Some(headers) = (unsafe { parse(skb) }) else {
        return Ok(Outcome::LeftAlone);
    };
    let growth = GROWTH as c_uint;
    // SAFETY: The packet is valid and ours.
    if unsafe { bindings::skb_cow_head(skb, growth) } != 0 {
        return Err(NoMemory);
    }
    // SAFETY: The packet is valid.
    let checksum = if unsafe { bindings::skb_is_partial(skb) } != 0 {
        Checksum::Partial
    } else {
        Checksum::Complete
    };
    let Some(len) = headers.length().checked_add(GROWTH) else {
        return Ok(Outcome::LeftAlone);
    };
    // SAFETY: `skb_cow_head` has made this much room before the packet, and its header is not
    // shared any more. `parse` has seen that the headers are in the linear part.
    let room = unsafe { slice::from_raw_parts_mut((*skb).data.sub(GROWTH), len) };
    if !headers.insert(room, checksum) {
        return Ok(Outcome::LeftAlone);
    }
    // SAFETY: There is this much room before the packet.
    unsafe { bindings::skb_push(skb, growth) };
    // SAFETY: The IP header is where the packet starts.
    unsafe { bindings::skb_set_network_header(skb, 0) };
    // SAFETY: The offset is within the headers, so it is small.
    unsafe { bindings::skb_set_transport_header(skb, headers.transport() as c_int) };
    // SAFETY: The TCP header, where the sum begins, has moved by this much.
    unsafe { bindings::skb_csum_start_back(skb, growth) };
    Ok(Outcome::Inserted)
}

/// Looks at a packet's headers; `None` if the packet is to be left alone.
///
/// # Safety
///
/// `skb` must be a packet at the hook.
unsafe fn parse(skb: *const bindings::sk_buff) -> Option<Headers> {
    // SAFETY: The packet is valid.
    let (len, network, transport, gso) = unsafe {
        (
            bindings::skb_headlen(skb) as usize,
            bindings::skb_network_offset(skb),
            bindings::skb_transport_offset(skb),
            bindings::skb_is_gso(skb),
        )
    };
    // SAFETY: The linear part of a packet has this length, and nobody else writes to it here.
    let bytes = unsafe { slice::from_raw_parts((*skb).data, len) };
    let headers = Headers::parse(bytes)?;
    // A packet that carries another one (a tunnel's) still has the inner one's socket.
    let expected = network == 0 && usize::try_from(transport) == Ok(headers.transport());
    // RFC 9293, section 3.1: SYN is bit 1.
    let syn = bytes.get(headers.transport().checked_add(13)?)? & 2 != 0;
    (expected && syn && gso == 0).then_some(headers)
}
