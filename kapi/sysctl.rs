// SPDX-License-Identifier: GPL-2.0

//! Tables of integers under `/proc/sys` that belong to a network namespace.
//!
//! # What C guarantees
//!
//! `register_net_sysctl_sz()` keeps pointers to the path and the table, not copies.
//! `unregister_net_sysctl_table()` waits until no handler of the table runs. A handler runs in
//! process context and may sleep.

use core::ptr::NonNull;

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};

use super::netns::Net;
use crate::bindings;

/// What a value may be.
#[derive(Clone, Copy)]
pub(crate) enum Range {
    /// A signed integer within bounds, both included.
    Int {
        /// The least value.
        min: i32,
        /// The greatest value.
        max: i32,
    },
    /// Any unsigned integer of 32 bits; the cell holds its bits.
    Unsigned,
}

/// One file of a table, for values that an `S` holds.
pub(crate) struct Entry<S: 'static> {
    /// The file's name.
    pub(crate) name: &'static CStr,
    /// What may be written; anything else is refused with `EINVAL`.
    pub(crate) range: Range,
    /// Where the value is.
    pub(crate) cell: fn(&S) -> &Atomic<i32>,
    /// Puts a new, valid value into effect and stores it; where this is absent, it is just stored.
    /// May sleep and may be called by several threads at once. An error fails the write.
    pub(crate) commit: Option<fn(&S, i32) -> Result>,
}

/// What the handler of one file needs; `ctl_table::data` points here.
struct Context<S: 'static> {
    /// Points into the table's `storage`.
    storage: *const S,
    entry: &'static Entry<S>,
}

/// A registered table. Dropping it takes the files away and waits for their users; may sleep.
///
/// # Invariants
///
/// `header` is the registration of `rows`, whose `data` point to `contexts`, whose `storage` points
/// to `storage`; neither vector is changed any more.
pub(crate) struct Table<S: Send + Sync + 'static> {
    header: NonNull<bindings::ctl_table_header>,
    _rows: KVec<bindings::ctl_table>,
    _contexts: KVec<Context<S>>,
    _storage: Arc<S>,
}

// SAFETY: The raw pointers point to what the table itself owns, and `S` may be shared.
unsafe impl<S: Send + Sync + 'static> Send for Table<S> {}
// SAFETY: As above; a shared table offers nothing.
unsafe impl<S: Send + Sync + 'static> Sync for Table<S> {}

impl<S: Send + Sync + 'static> Table<S> {
    /// Shows `entries` in the directory `path` of `net`, for the values in `storage`. May sleep.
    ///
    /// The table must be dropped before the namespace is gone (in [`exit`] at the latest).
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also when a file of this name exists.
    ///
    /// [`exit`]: super::netns::PernetData::exit
    pub(crate) fn register(
        net: &Net,
        path: &'static CStr,
        entries: &'static [Entry<S>],
        storage: Arc<S>,
    ) -> Result<Self> {
        let mut contexts = KVec::with_capacity(entries.len(), GFP_KERNEL)?;
        let mut rows = KVec::with_capacity(entries.len(), GFP_KERNEL)?;
        for entry in entries {
            contexts.push(
                Context {
                    storage: Arc::as_ptr(&storage),
                    entry,
                },
                GFP_KERNEL,
            )?;
        }
        for context in contexts.iter_mut() {
            let context: *mut Context<S> = context;
            rows.push(
                bindings::ctl_table {
                    // SAFETY: The context is initialised.
                    procname: unsafe { (*context).entry.name }.as_char_ptr(),
                    data: context.cast(),
                    maxlen: size_of::<c_int>() as c_int,
                    mode: 0o644,
                    proc_handler: Some(handler::<S>),
                    ..pin_init::zeroed()
                },
                GFP_KERNEL,
            )?;
        }
        // SAFETY: The namespace is alive; `path` is static; the rows and what they point to stay
        // where they are, on the heap, until `drop` has unregistered the table.
        let header = unsafe {
            bindings::register_net_sysctl_sz(
                net.as_ptr(),
                path.as_char_ptr(),
                rows.as_mut_ptr(),
                rows.len(),
            )
        };
        // INVARIANT: Registered just now.
        Ok(Self {
            header: NonNull::new(header).ok_or(ENOMEM)?,
            _rows: rows,
            _contexts: contexts,
            _storage: storage,
        })
    }
}

impl<S: Send + Sync + 'static> Drop for Table<S> {
    fn drop(&mut self) {
        // SAFETY: Registered, by the type invariants; the fields go after this.
        unsafe { bindings::unregister_net_sysctl_table(self.header.as_ptr()) };
    }
}

/// Reads or writes one value.
///
/// # Safety
///
/// Called by C only, with a row of a [`Table<S>`].
unsafe extern "C" fn handler<S: Send + Sync + 'static>(
    row: *const bindings::ctl_table,
    dir: c_int,
    buffer: *mut c_void,
    lenp: *mut usize,
    ppos: *mut bindings::loff_t,
) -> c_int {
    // SAFETY: `data` is the row's context by the invariants of `Table`, which C keeps from being
    // dropped while a handler runs.
    let context = unsafe { &*(*row).data.cast::<Context<S>>() };
    // SAFETY: As above, the table owns a reference to the storage.
    let storage = unsafe { &*context.storage };
    let entry = context.entry;
    let cell = (entry.cell)(storage);

    let mut value: c_int = cell.load(Relaxed);
    let (mut min, mut max) = match entry.range {
        Range::Int { min, max } => (min, max),
        Range::Unsigned => (0, 0),
    };
    // SAFETY: The row is valid while its handler runs.
    let mut local = unsafe { *row };
    local.data = (&raw mut value).cast();
    local.extra1 = (&raw mut min).cast();
    local.extra2 = (&raw mut max).cast();
    let error = match entry.range {
        // SAFETY: `local` describes a local integer and its bounds; the rest is what C passed.
        Range::Int { .. } => unsafe {
            bindings::proc_dointvec_minmax(&local, dir, buffer, lenp, ppos)
        },
        // SAFETY: `local` describes a local integer; the rest is what C passed.
        Range::Unsigned => unsafe { bindings::proc_douintvec(&local, dir, buffer, lenp, ppos) },
    };
    if error != 0 || dir == 0 {
        return error;
    }
    match entry.commit {
        Some(commit) => match commit(storage, value) {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        },
        None => {
            cell.store(value, Relaxed);
            0
        }
    }
}

const _: () = assert!(size_of::<c_int>() == size_of::<i32>() && size_of::<c_uint>() == 4);
