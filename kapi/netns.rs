// SPDX-License-Identifier: GPL-2.0

//! Network namespaces, and data of this module that belongs to one.
//!
//! # What C guarantees
//!
//! `register_pernet_subsys()` calls `init` for every namespace there is and for every one that is
//! made later; `pre_exit` and `exit` for every namespace that goes, and for all of them at
//! `unregister_pernet_subsys()`. An RCU grace period passes between `pre_exit` and `exit`. The
//! namespace's slot (`net_generic()`) is zeroed before `init` and freed after `exit`. These calls
//! are serialised per namespace.

use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ptr::{
        self,
        NonNull, //
    },
};

use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        aref::{
            ARef,
            AlwaysRefCounted, //
        },
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        rcu,
        Arc,
        ArcBorrow, //
    },
    types::Opaque, //
};

use crate::bindings;

/// A network namespace (`struct net`).
///
/// # Invariants
///
/// Instances are always ref-counted: while a `&Net` exists, so does an active reference, and the
/// namespace does not exit.
#[repr(transparent)]
pub(crate) struct Net(Opaque<bindings::net>);

// SAFETY: References to a namespace may be dropped from any context.
unsafe impl Send for Net {}
// SAFETY: What `&Net` offers is reading immutable fields and counting references.
unsafe impl Sync for Net {}

// SAFETY: `get_net` and `put_net` count the active references of a namespace.
unsafe impl AlwaysRefCounted for Net {
    fn inc_ref(&self) {
        // SAFETY: By the type invariants the count is not zero.
        unsafe { bindings::get_net(self.as_ptr()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up a reference that it owns.
        unsafe { bindings::put_net(obj.cast().as_ptr()) };
    }
}

impl Net {
    /// A borrowed namespace.
    ///
    /// # Safety
    ///
    /// `net` must be a valid namespace with an active reference for all of `'a`.
    pub(crate) unsafe fn from_raw<'a>(net: *mut bindings::net) -> &'a Self {
        // SAFETY: The caller vouches for the pointer; `Net` is a transparent wrapper.
        unsafe { &*net.cast() }
    }

    /// The first namespace, which is there as long as the machine runs.
    pub(crate) fn first() -> &'static Self {
        // SAFETY: A static of the kernel, which nobody can end.
        unsafe { Self::from_raw(&raw mut bindings::init_net) }
    }

    /// The namespace with a cookie, unless it ends. Any context.
    pub(crate) fn find(cookie: u64) -> Option<ARef<Self>> {
        // SAFETY: The function can be called at any time; it gives null, or a namespace with an active
        // reference.
        let net = NonNull::new(unsafe { bindings::net_by_cookie(cookie) })?;
        // SAFETY: The reference is ours, and `Net` is a transparent wrapper.
        Some(unsafe { ARef::from_raw(net.cast()) })
    }

    /// The C namespace.
    pub(crate) fn as_ptr(&self) -> *mut bindings::net {
        self.0.get()
    }

    /// A number that no other namespace has had or will have since the machine booted.
    pub(crate) fn cookie(&self) -> u64 {
        // SAFETY: The namespace is alive, and the cookie is set before it becomes visible.
        unsafe { (*self.as_ptr()).net_cookie }
    }

    /// The inode number, as in `/proc/PID/ns/net`.
    pub(crate) fn inum(&self) -> u32 {
        // SAFETY: The namespace is alive, and the number is set before it becomes visible.
        unsafe { bindings::net_inum(self.as_ptr()) }
    }

    /// The default sizes of TCP's send and receive buffers here, in bytes
    /// (`net.ipv4.tcp_wmem[1]`, `net.ipv4.tcp_rmem[1]`).
    pub(crate) fn tcp_buffer_defaults(&self) -> (i32, i32) {
        let net = self.as_ptr();
        // SAFETY: The namespace is alive. A system administrator may write at the same time; these
        // are aligned integers, which C writes in one piece.
        unsafe {
            (
                ptr::read_volatile(&raw const (*net).ipv4.sysctl_tcp_wmem[1]),
                ptr::read_volatile(&raw const (*net).ipv4.sysctl_tcp_rmem[1]),
            )
        }
    }

    /// The size up to which TCP's send buffers grow by themselves here, in bytes (`net.ipv4.tcp_wmem[2]`).
    pub(crate) fn tcp_send_buffer_max(&self) -> u32 {
        // SAFETY: As above: an aligned integer of a live namespace.
        let most =
            unsafe { ptr::read_volatile(&raw const (*self.as_ptr()).ipv4.sysctl_tcp_wmem[2]) };
        u32::try_from(most).unwrap_or(0)
    }

    /// How long TCP waits in FIN-WAIT-2 here for a peer whose connection no application holds any
    /// more, in milliseconds (`net.ipv4.tcp_fin_timeout`).
    pub(crate) fn tcp_fin_timeout(&self) -> u32 {
        // SAFETY: As above: an aligned integer of a live namespace.
        let jiffies =
            unsafe { ptr::read_volatile(&raw const (*self.as_ptr()).ipv4.sysctl_tcp_fin_timeout) };
        let a_second = kernel::time::msecs_to_jiffies(1000).max(1);
        let ms = usize::try_from(jiffies).unwrap_or(0) * 1000 / a_second;
        u32::try_from(ms).unwrap_or(u32::MAX)
    }
}

impl PartialEq for Net {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self, other)
    }
}

impl Eq for Net {}

/// Data that every network namespace has one of while a [`Pernet`] is registered.
pub(crate) trait PernetData: Send + Sync + Sized + 'static {
    /// The key of this type's slot: a static, made for this type.
    fn key() -> &'static PernetKey<Self>;

    /// Makes the data of a namespace that begins. May sleep.
    ///
    /// Must not keep a reference to `net`: the namespace could never go. (One that already waits
    /// for its end may be passed, too; what this makes is then dropped soon.)
    ///
    /// # Errors
    ///
    /// An error makes the creation of the namespace (or the registration) fail.
    fn new(net: &Net) -> Result<Arc<Self>>;

    /// The namespace goes: [`of`] does not find the data any more. Must not block for long.
    ///
    /// Lookups that are under way may still use it.
    fn pre_exit(&self) {}

    /// The namespace goes: all borrowed lookups ([`with`]) are over. May sleep.
    ///
    /// The data itself is dropped after this, once the last [`Arc`] is gone.
    fn exit(&self) {}
}

/// The key of a [`PernetData`] type's slot in every namespace.
pub(crate) struct PernetKey<T> {
    /// Whether a [`Pernet`] owns the key.
    taken: Atomic<bool>,
    /// The number that C assigned. Written by C during registration only.
    assigned: UnsafeCell<c_uint>,
    /// The same for lookups: zero unless all namespaces have a slot.
    public: Atomic<u32>,
    data: PhantomData<fn() -> T>,
}

// SAFETY: `assigned` is only used by the `Pernet` that took the key; the rest is atomic.
unsafe impl<T> Sync for PernetKey<T> {}

impl<T> PernetKey<T> {
    /// A key that is not registered.
    pub(crate) const fn new() -> Self {
        Self {
            taken: Atomic::new(false),
            assigned: UnsafeCell::new(0),
            public: Atomic::new(0),
            data: PhantomData,
        }
    }
}

/// What C keeps per namespace for us.
///
/// # Invariants
///
/// `owned` is null or an `Arc<T>` turned into a pointer, which the slot owns. `live` is null or
/// equal to `owned`; it is null a grace period before `owned` goes.
#[repr(C)]
struct Slot<T> {
    live: Atomic<*mut T>,
    owned: UnsafeCell<*mut T>,
}

/// Keeps a `T` in every network namespace; dropping it takes them all down.
///
/// # Invariants
///
/// `ops` is registered, and the key is taken by us.
pub(crate) struct Pernet<T: PernetData> {
    ops: KBox<Opaque<bindings::pernet_operations>>,
    data: PhantomData<fn() -> T>,
}

// SAFETY: Registration and its end are not bound to a thread.
unsafe impl<T: PernetData> Send for Pernet<T> {}
// SAFETY: A shared `Pernet` offers nothing.
unsafe impl<T: PernetData> Sync for Pernet<T> {}

impl<T: PernetData> Pernet<T> {
    /// Makes a `T` in every namespace, now and in future. May sleep.
    ///
    /// # Errors
    ///
    /// `EBUSY` if one is registered already; `ENOMEM`; the first error of [`PernetData::new`].
    pub(crate) fn register() -> Result<Self> {
        let key = T::key();
        if key.taken.cmpxchg(false, true, Full).is_err() {
            return Err(EBUSY);
        }
        match Self::register_taken(key) {
            Ok(pernet) => Ok(pernet),
            Err(error) => {
                key.taken.store(false, Release);
                Err(error)
            }
        }
    }

    fn register_taken(key: &'static PernetKey<T>) -> Result<Self> {
        let ops = KBox::new(
            Opaque::new(bindings::pernet_operations {
                init: Some(init::<T>),
                pre_exit: Some(pre_exit::<T>),
                exit: Some(exit::<T>),
                id: key.assigned.get(),
                size: size_of::<Slot<T>>(),
                ..pin_init::zeroed()
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: The table is on the heap, where it stays until it is unregistered; its functions
        // match the slot's type; `assigned` is a static.
        to_result(unsafe { bindings::register_pernet_subsys(ops.get()) })?;
        // SAFETY: Only C writes the number, and it has.
        let id = unsafe { *key.assigned.get() };
        key.public.store(id, Release);
        // INVARIANT: Registered just now.
        Ok(Self {
            ops,
            data: PhantomData,
        })
    }
}

impl<T: PernetData> Drop for Pernet<T> {
    fn drop(&mut self) {
        let key = T::key();
        // Lookups that have seen the number are over when C's grace period ends, which is before it
        // frees the slots.
        key.public.store(0, Release);
        // SAFETY: Registered, by the type invariants.
        unsafe { bindings::unregister_pernet_subsys(self.ops.get()) };
        key.taken.store(false, Release);
    }
}

/// The namespace's `T`; `None` when it has none (no [`Pernet`] is registered, or it exits).
///
/// Any context.
pub(crate) fn of<T: PernetData>(net: &Net) -> Option<Arc<T>> {
    let _guard = rcu::read_lock();
    borrow::<T>(net).map(Arc::from)
}

/// Calls `f` with the namespace's `T`, in an RCU read-side critical section: `f` must not sleep.
///
/// Any context, and cheaper than [`of`].
pub(crate) fn with<T: PernetData, R>(net: &Net, f: impl FnOnce(&T) -> R) -> Option<R> {
    let _guard = rcu::read_lock();
    borrow::<T>(net).map(|data| f(&data))
}

/// Looks the data up. The caller holds the RCU read lock while it uses the result.
fn borrow<T: PernetData>(net: &Net) -> Option<ArcBorrow<'_, T>> {
    let id = T::key().public.load(Acquire);
    if id == 0 {
        return None;
    }
    // SAFETY: The namespace is alive and has a slot of this number, since the number is public.
    let slot: *const Slot<T> = unsafe { bindings::net_generic(net.as_ptr(), id) }.cast();
    if slot.is_null() {
        return None;
    }
    // SAFETY: C frees the slot a grace period after the number is withdrawn.
    let live = unsafe { (*slot).live.load(Acquire) };
    if live.is_null() {
        return None;
    }
    // SAFETY: By the slot's invariants this comes from an `Arc`, and the slot's own reference goes
    // a grace period after `live` becomes null.
    Some(unsafe { ArcBorrow::from_raw(live) })
}

/// The slot of a namespace, for the callbacks that own it.
///
/// # Safety
///
/// Must be called from a callback of the registered `T`, for its namespace.
unsafe fn slot<'a, T: PernetData>(net: *mut bindings::net) -> &'a Slot<T> {
    // SAFETY: C assigned the number before it called back, and allocated the slot, zeroed: null
    // pointers, which fulfil its invariants.
    unsafe { &*bindings::net_generic(net, *T::key().assigned.get()).cast() }
}

/// A namespace begins.
///
/// # Safety
///
/// Called by C only.
unsafe extern "C" fn init<T: PernetData>(net: *mut bindings::net) -> c_int {
    // SAFETY: C calls with a namespace that is alive throughout.
    let data = match T::new(unsafe { Net::from_raw(net) }) {
        Ok(data) => Arc::into_raw(data).cast_mut(),
        Err(error) => return error.to_errno(),
    };
    // SAFETY: This is the callback of a registered `T`.
    let slot = unsafe { slot::<T>(net) };
    // SAFETY: Only these callbacks use `owned`, one at a time for a namespace.
    unsafe { *slot.owned.get() = data };
    // INVARIANT: Both are the same pointer.
    slot.live.store(data, Release);
    0
}

/// A namespace is about to go.
///
/// # Safety
///
/// Called by C only.
unsafe extern "C" fn pre_exit<T: PernetData>(net: *mut bindings::net) {
    // SAFETY: This is the callback of a registered `T`.
    let slot = unsafe { slot::<T>(net) };
    slot.live.store(ptr::null_mut(), Relaxed);
    // SAFETY: Only these callbacks use `owned`, one at a time for a namespace.
    let data = unsafe { *slot.owned.get() };
    if !data.is_null() {
        // SAFETY: The slot owns the `Arc` until `exit`.
        unsafe { ArcBorrow::from_raw(data) }.pre_exit();
    }
}

/// A namespace goes.
///
/// # Safety
///
/// Called by C only.
unsafe extern "C" fn exit<T: PernetData>(net: *mut bindings::net) {
    // SAFETY: This is the callback of a registered `T`.
    let slot = unsafe { slot::<T>(net) };
    // SAFETY: Only these callbacks use `owned`, one at a time for a namespace.
    let data = unsafe { ptr::replace(slot.owned.get(), ptr::null_mut()) };
    if !data.is_null() {
        // SAFETY: The slot owned it, and lookups are over: `live` became null in `pre_exit`, a
        // grace period ago.
        let data = unsafe { Arc::from_raw(data) };
        data.exit();
    }
}
