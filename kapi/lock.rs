// SPDX-License-Identifier: GPL-2.0

//! A spinlock that keeps bottom halves off while it is held.
//!
//! Completions run in bottom-half (BH) context. Data that they share with process context must be
//! protected by a lock that a bottom half on the same processor cannot interrupt: the kernel crate
//! has no such lock, so this is the missing [`Backend`].
//!
//! # What C guarantees
//!
//! `spin_lock_bh()` may be called from process and BH context (not from hard interrupts, nor with
//! interrupts disabled), and nests: the last `spin_unlock_bh()` runs what became pending.

use kernel::{
    ffi::c_char,
    sync::lock::{
        Backend,
        Lock, //
    },
};

use crate::bindings;

/// Creates a [`SpinLockBh`] initialiser with the given name and a newly-created lock class.
macro_rules! new_spinlock_bh {
    ($inner:expr $(, $name:literal)? $(,)?) => {
        $crate::kapi::lock::SpinLockBh::new(
            $inner, ::kernel::optional_name!($($name)?), ::kernel::static_lock_class!())
    };
}
pub(crate) use new_spinlock_bh;

/// A spinlock that disables bottom halves on the local processor while it is held.
///
/// May be taken in process and in BH context. What runs under it must not sleep.
pub(crate) type SpinLockBh<T> = Lock<T, SpinLockBhBackend>;

/// The kernel's `spinlock_t`, taken by `spin_lock_bh()`.
pub(crate) struct SpinLockBhBackend;

// SAFETY: The kernel's `spinlock_t` ensures mutual exclusion between `lock` and `unlock`. `relock`
// is the default implementation, which calls `lock`.
unsafe impl Backend for SpinLockBhBackend {
    type State = kernel::bindings::spinlock_t;
    type GuardState = ();

    #[inline]
    unsafe fn init(
        ptr: *mut Self::State,
        name: *const c_char,
        key: *mut kernel::bindings::lock_class_key,
    ) {
        // SAFETY: By this function's contract `ptr` is valid for writes, and `name` and `key` stay
        // valid for ever.
        unsafe { kernel::bindings::__spin_lock_init(ptr, name, key) }
    }

    #[inline]
    unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
        // SAFETY: By this function's contract `ptr` points to an initialised lock. Both bindings
        // describe the same C type.
        unsafe { bindings::spin_lock_bh(ptr.cast()) }
    }

    #[inline]
    unsafe fn unlock(ptr: *mut Self::State, _guard_state: &Self::GuardState) {
        // SAFETY: By this function's contract the caller holds the lock at `ptr`.
        unsafe { bindings::spin_unlock_bh(ptr.cast()) }
    }

    #[inline]
    unsafe fn try_lock(ptr: *mut Self::State) -> Option<Self::GuardState> {
        // SAFETY: By this function's contract `ptr` points to an initialised lock.
        let locked = unsafe { bindings::spin_trylock_bh(ptr.cast()) };

        (locked != 0).then_some(())
    }

    #[inline]
    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // Each lock asks: without lockdep C's function is empty, but it is called.
        if cfg!(CONFIG_LOCKDEP) {
            // SAFETY: By this function's contract `ptr` points to an initialised lock.
            unsafe { kernel::bindings::spin_assert_is_held(ptr) }
        }
    }
}
