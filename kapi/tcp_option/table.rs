// SPDX-License-Identifier: GPL-2.0

//! Changed copies of the kernel's constant tables.

use core::{
    cell::UnsafeCell,
    mem::MaybeUninit,
    ptr, //
};

use kernel::{
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Relaxed,
        Release, //
    },
};

use super::super::once::Once;

kernel::sync::global_lock! {
    // SAFETY: `fill_lock` initialises it before it hands it out.
    unsafe(uninit) static FILL: Mutex<()> = ();
}

static FILL_READY: Once = Once::new();

/// The lock under which copies are made. May sleep.
fn fill_lock() -> kernel::sync::lock::GlobalGuard<FILL> {
    // SAFETY: `FILL_READY` lets this run once only, before the lock is used.
    FILL_READY.call(|| unsafe { FILL.init() });
    FILL.lock()
}

/// How many different originals there can be. TCP has two tables of socket operations and three of
/// connection operations; upper-layer protocols bring more, which our sockets do not use.
const CAPACITY: usize = 6;

/// Copies of constant tables of type `T`, `N` variants of each original.
///
/// The copies are part of the module; nothing may point to one when the module goes.
pub(super) struct Copies<T, const N: usize>([Entry<T, N>; CAPACITY]);

/// # Invariants
///
/// When `original` is not null, it points to a table that is never freed, and the copies are
/// initialised and not written any more.
struct Entry<T, const N: usize> {
    original: Atomic<*mut T>,
    copies: UnsafeCell<[MaybeUninit<T>; N]>,
}

// SAFETY: The copies are written under a lock before `original` publishes them, and are constant
// after that; tables of function pointers may be used from any thread.
unsafe impl<T, const N: usize> Sync for Entry<T, N> {}

impl<T: Copy, const N: usize> Entry<T, N> {
    const fn new() -> Self {
        Self {
            original: Atomic::new(ptr::null_mut()),
            copies: UnsafeCell::new([const { MaybeUninit::uninit() }; N]),
        }
    }

    fn copy(&self, variant: usize) -> Option<*const T> {
        (variant < N).then(|| {
            self.copies
                .get()
                .cast::<T>()
                .wrapping_add(variant)
                .cast_const()
        })
    }

    fn variant_of(&self, table: *const T) -> Option<usize> {
        (0..N).find(|variant| self.copy(*variant) == Some(table))
    }
}

impl<T: Copy, const N: usize> Copies<T, N> {
    /// No copies.
    pub(super) const fn new() -> Self {
        Self([const { Entry::new() }; CAPACITY])
    }

    /// Which variant `table` is, and of which original. Any context.
    pub(super) fn find(&self, table: *const T) -> Option<(usize, *const T)> {
        self.0.iter().find_map(|entry| {
            let original = entry.original.load(Acquire);
            if original.is_null() {
                return None;
            }
            Some((entry.variant_of(table)?, original.cast_const()))
        })
    }

    /// The given variant of the original that `table` is, or is a copy of; `None` if there is none
    /// yet. Any context.
    pub(super) fn variant(&self, table: *const T, variant: usize) -> Option<*const T> {
        self.0.iter().find_map(|entry| {
            let original = entry.original.load(Acquire).cast_const();
            let known = !original.is_null()
                && (ptr::eq(original, table) || entry.variant_of(table).is_some());
            if known {
                entry.copy(variant)
            } else {
                None
            }
        })
    }

    /// As [`Self::variant`], but makes the copies if need be; `change` adjusts each. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there are too many originals.
    ///
    /// # Safety
    ///
    /// `table` must be a copy that is in here, or point to a valid table that is never freed.
    pub(super) unsafe fn variant_or_make(
        &self,
        table: *const T,
        variant: usize,
        change: impl Fn(usize, &mut T),
    ) -> Result<*const T> {
        if let Some(copy) = self.variant(table, variant) {
            return Ok(copy);
        }
        let _guard = fill_lock();
        // Somebody may have been faster.
        if let Some(copy) = self.variant(table, variant) {
            return Ok(copy);
        }
        let entry = self
            .0
            .iter()
            .find(|entry| entry.original.load(Relaxed).is_null())
            .ok_or(ENOSPC)?;
        // SAFETY: The entry is not published, and we hold the lock for filling.
        let copies = unsafe { &mut *entry.copies.get() };
        for (variant, copy) in copies.iter_mut().enumerate() {
            // SAFETY: The caller vouches for the table: it is not one of our copies, or it would
            // have been found.
            let copy = copy.write(unsafe { *table });
            change(variant, copy);
        }
        // INVARIANT: The copies are complete, and the caller says that the table stays.
        entry.original.store(table.cast_mut(), Release);
        entry.copy(variant).ok_or(EINVAL)
    }
}
