// SPDX-License-Identifier: GPL-2.0

//! State of the module that callbacks without a context have to find.

use core::{
    marker::PhantomData,
    ptr, //
};
use kernel::sync::{
    atomic::{
        Acquire,
        Atomic,
        Full, //
    },
    rcu,
    Arc, //
};

use crate::bindings;

/// A place in a `static` for a shared value that exists while its [`GlobalGuard`] does.
///
/// # Invariants
///
/// `raw` is null, or comes from [`Arc::into_raw`] and is not given back before an RCU grace period
/// after it was taken out.
pub(crate) struct Global<T: Send + Sync + 'static> {
    raw: Atomic<usize>,
    _value: PhantomData<fn() -> Arc<T>>,
}

impl<T: Send + Sync + 'static> Global<T> {
    /// An empty place.
    pub(crate) const fn new() -> Self {
        // INVARIANT: Null.
        Self {
            raw: Atomic::new(0),
            _value: PhantomData,
        }
    }

    /// Publishes `value` until the guard is dropped. There must be no other guard.
    pub(crate) fn publish(&'static self, value: Arc<T>) -> GlobalGuard<T> {
        let raw = Arc::into_raw(value);
        // INVARIANT: `raw` comes from `Arc::into_raw`.
        self.raw.xchg(raw.expose_provenance(), Full);
        GlobalGuard { global: self }
    }

    /// The value, if there is one. Any context.
    pub(crate) fn get(&self) -> Option<Arc<T>> {
        let _rcu = rcu::read_lock();
        let raw = self.raw.load(Acquire);
        if raw == 0 {
            return None;
        }
        // SAFETY: By the type invariants `raw` comes from `Arc::into_raw`, and the reference is not
        // given back while this RCU read-side critical section lasts.
        let borrowed =
            unsafe { kernel::sync::ArcBorrow::<T>::from_raw(ptr::with_exposed_provenance(raw)) };
        Some(borrowed.into())
    }
}

/// Withdraws a [`Global`]'s value on drop.
pub(crate) struct GlobalGuard<T: Send + Sync + 'static> {
    global: &'static Global<T>,
}

impl<T: Send + Sync + 'static> Drop for GlobalGuard<T> {
    fn drop(&mut self) {
        let raw = self.global.raw.xchg(0, Full);
        if raw == 0 {
            return;
        }
        // SAFETY: Process context; afterwards nobody reads the old value any more.
        unsafe { bindings::synchronize_rcu() };
        // SAFETY: By the type invariants this is a reference from `Arc::into_raw`.
        drop(unsafe { Arc::<T>::from_raw(ptr::with_exposed_provenance(raw)) });
    }
}
