// SPDX-License-Identifier: GPL-2.0

//! Memory as a device sees it: DMA mappings and memory regions.

use core::{
    marker::PhantomData,
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Arc, //
    },
    types::Opaque, //
};

use super::{
    memory::{
        Buffer,
        Layout, //
    },
    pd::Pd, //
};
use crate::bindings;

/// Who writes mapped memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The processor writes, the device reads.
    ToDevice,
    /// The device writes, the processor reads.
    FromDevice,
}

impl Direction {
    fn raw(self) -> bindings::dma_data_direction {
        match self {
            Self::ToDevice => bindings::dma_data_direction_DMA_TO_DEVICE,
            Self::FromDevice => bindings::dma_data_direction_DMA_FROM_DEVICE,
        }
    }
}

/// How a peer names memory of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RemoteKey {
    /// The key of the memory region.
    pub(crate) rkey: u32,
    /// The address of its first byte, as the peer has to give it.
    pub(crate) addr: u64,
}

/// Registration of a memory region with its device (see `REG_MR` in [`super::qp`]).
pub(super) mod registration {
    pub(in super::super) const NONE: u32 = 0;
    pub(in super::super) const POSTED: u32 = 1;
    pub(in super::super) const DONE: u32 = 2;
}

/// The C objects behind a [`Mapping`]; dropped by [`Pd::retire`], or with a [`Draft`], while the domain exists.
pub(super) struct Mapped {
    buffer: Arc<Buffer>,
    device: *mut bindings::ib_device,
    table: KBox<Opaque<bindings::sg_table>>,
    direction: Direction,
    mr: Option<NonNull<bindings::ib_mr>>,
    registration: Atomic<u32>,
    segments: u32,
    dma_start: u64,
    needs_sync: bool,
    pub(super) next: Option<KBox<Mapped>>,
}

// SAFETY: The C objects have no ties to a task.
unsafe impl Send for Mapped {}
// SAFETY: Shared access only reads, and syncs caches, which any task may do at any time.
unsafe impl Sync for Mapped {}

/// A [`Buffer`] mapped for the device of a protection domain, maybe with a memory region.
///
/// When it is dropped, mapping, region and the reference to the memory stay until the last queue
/// pair of the domain is gone. Drop it in process context, unless such a queue pair exists.
pub(crate) struct Mapping {
    // Always `Some` until it is dropped.
    mapped: Option<KBox<Mapped>>,
    pd: Arc<Pd>,
}

/// A mapping in the making: no request can name it, so if it is dropped all of it is undone at once. Process context.
pub(crate) struct Draft {
    // Goes before the domain, which keeps the device alive.
    mapped: KBox<Mapped>,
    pd: Arc<Pd>,
}

impl Draft {
    /// Maps all of `buffer`. May sleep.
    ///
    /// # Errors
    ///
    /// `EIO` if the device cannot map the memory, else what the allocation of the parts gave.
    pub(crate) fn new(pd: &Arc<Pd>, buffer: &Arc<Buffer>, direction: Direction) -> Result<Self> {
        let device = pd.device_use().as_ptr();
        let table = scatter_table(buffer)?;
        // SAFETY: `scatter_table` initialised the table.
        let (sgl, entries) = unsafe { ((*table.get()).sgl, (*table.get()).orig_nents) };

        // From here on, dropping `mapped` undoes what was done.
        let mut mapped = KBox::new(
            Mapped {
                buffer: buffer.clone(),
                device,
                table,
                direction,
                mr: None,
                registration: Atomic::new(registration::NONE),
                segments: 0,
                dma_start: 0,
                needs_sync: false,
                next: None,
            },
            GFP_KERNEL,
        )?;
        // SAFETY: The domain keeps the device alive, and the list has so many entries.
        let segments = unsafe {
            bindings::ib_dma_map_sg(device, sgl, i32::try_from(entries)?, direction.raw())
        };
        mapped.segments = u32::try_from(segments).map_err(|_| EIO)?;
        if mapped.segments == 0 {
            return Err(EIO);
        }
        // SAFETY: The list was just mapped, and has at least one segment.
        mapped.dma_start = unsafe { bindings::sg_dma_address(sgl) };
        mapped.needs_sync = mapped.segment_needs_sync();
        Ok(Self {
            mapped,
            pd: pd.clone(),
        })
    }

    /// Maps `buffer` and allocates a memory region for it, which is to be registered before use
    /// (see `ib::wr::Registrar`). May sleep.
    pub(crate) fn with_region(
        pd: &Arc<Pd>,
        buffer: &Arc<Buffer>,
        direction: Direction,
    ) -> Result<Self> {
        let mut draft = Self::new(pd, buffer, direction)?;
        let mapped = &mut draft.mapped;
        let pages = u32::try_from(buffer.len() / PAGE_SIZE)?;
        let segments = i32::try_from(mapped.segments)?;

        // SAFETY: The domain is alive.
        let mr = from_err_ptr(unsafe {
            bindings::ib_alloc_mr(pd.as_ptr(), bindings::ib_mr_type_IB_MR_TYPE_MEM_REG, pages)
        })?;
        mapped.mr = NonNull::new(mr);
        // SAFETY: The region is new; the list was mapped for its device with so many segments.
        let n = unsafe {
            bindings::ib_map_mr_sg(
                mr,
                (*mapped.table.get()).sgl,
                segments,
                core::ptr::null_mut(),
                PAGE_SIZE as u32,
            )
        };
        if n != segments {
            to_result(n)?;
            return Err(EINVAL);
        }
        Ok(draft)
    }

    /// Whether the device writes to, or reads from, a copy of the memory.
    pub(crate) fn needs_sync(&self) -> bool {
        self.mapped.needs_sync
    }

    /// From here on requests can name it.
    pub(crate) fn finish(self) -> Mapping {
        Mapping {
            mapped: Some(self.mapped),
            pd: self.pd,
        }
    }
}

impl Mapping {
    fn mapped(&self) -> Result<&Mapped> {
        self.mapped.as_deref().ok_or(EINVAL)
    }

    /// The memory.
    pub(crate) fn buffer(&self) -> Option<&Arc<Buffer>> {
        self.mapped.as_deref().map(|mapped| &mapped.buffer)
    }

    /// The protection domain.
    pub(crate) fn pd(&self) -> &Arc<Pd> {
        &self.pd
    }

    /// How the peer names this memory; [`None`] before the region is registered.
    pub(crate) fn remote_key(&self) -> Option<RemoteKey> {
        let mapped = self.mapped.as_deref()?;
        let mr = mapped.mr?;

        if mapped.registration.load(Acquire) != registration::DONE {
            return None;
        }
        // SAFETY: The region lives as long as `mapped`, and keys and address do not change after
        // registration.
        let mr = unsafe { mr.as_ref() };
        Some(RemoteKey {
            rkey: mr.rkey,
            addr: mr.iova,
        })
    }

    /// How the peer will name this memory once the region is registered: the key of a region is
    /// known before, so that it can be told to a peer that does not use it yet.
    pub(crate) fn planned_key(&self) -> Option<RemoteKey> {
        let mr = self.mapped.as_deref()?.mr?;

        // SAFETY: The region lives as long as `mapped`; its key and address were set when it was
        // made and mapped, and do not change.
        let mr = unsafe { mr.as_ref() };
        Some(RemoteKey {
            rkey: mr.rkey,
            addr: mr.iova,
        })
    }

    /// Whether the device writes to, or reads from, a copy of the memory.
    pub(crate) fn needs_sync(&self) -> bool {
        self.mapped
            .as_deref()
            .is_some_and(|mapped| mapped.needs_sync)
    }

    /// Whether registration was asked for, and has not succeeded. Once nobody waits for that any more, the mapping is
    /// of no use: it is asked for only once.
    pub(crate) fn is_spoilt(&self) -> bool {
        self.region()
            .is_some_and(|(_, state)| state.load(Acquire) == registration::POSTED)
    }

    /// Whether a region is registered.
    pub(crate) fn is_registered(&self) -> bool {
        self.remote_key().is_some()
    }

    /// Names `len` bytes at `offset` for a work request.
    ///
    /// # Errors
    ///
    /// `EINVAL` if they are not within the buffer, or not contiguous for the device.
    pub(crate) fn sge(&self, offset: usize, len: usize) -> Result<Sge<'_>> {
        let mapped = self.mapped()?;
        let cpu = mapped.buffer.range(offset, len).ok_or(EINVAL)?;
        let (start, lkey) = match self.remote_key() {
            // SAFETY: The key was given, so there is a region, which lives as long as `mapped`.
            Some(key) => (key.addr, unsafe { mapped.mr.ok_or(EINVAL)?.as_ref() }.lkey),
            // The key for all memory needs addresses as the device sees them.
            None if mapped.segments == 1 => (mapped.dma_start, self.pd.local_dma_lkey()),
            None => return Err(EINVAL),
        };

        Ok(Sge {
            raw: bindings::ib_sge {
                addr: start.checked_add(offset as u64).ok_or(EINVAL)?,
                length: u32::try_from(len)?,
                lkey,
            },
            cpu,
            pd: self.pd.as_ptr(),
            _mapping: PhantomData,
        })
    }

    /// Makes what the device wrote into `range` visible to the processor. For any context.
    pub(crate) fn sync_for_cpu(&self, range: Range<usize>) {
        if let Some(mapped) = self.mapped.as_deref().filter(|mapped| mapped.needs_sync) {
            mapped.sync(range, bindings::ib_dma_sync_single_for_cpu);
        }
    }

    /// Makes what the processor wrote into `range` visible to the device. For any context.
    pub(crate) fn sync_for_device(&self, range: Range<usize>) {
        if let Some(mapped) = self.mapped.as_deref().filter(|mapped| mapped.needs_sync) {
            mapped.sync(range, bindings::ib_dma_sync_single_for_device);
        }
    }

    /// Who writes the memory.
    pub(crate) fn direction(&self) -> Direction {
        self.mapped
            .as_deref()
            .map_or(Direction::ToDevice, |mapped| mapped.direction)
    }

    /// The region and the state of its registration, for the request that registers it.
    pub(super) fn region(&self) -> Option<(NonNull<bindings::ib_mr>, &Atomic<u32>)> {
        let mapped = self.mapped.as_deref()?;

        Some((mapped.mr?, &mapped.registration))
    }

    /// Notes that the device has completed the registration.
    pub(in crate::ib) fn registered(&self) {
        if let Some((_, state)) = self.region() {
            if state.load(Acquire) == registration::POSTED {
                state.store(registration::DONE, Release);
            }
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Some(mapped) = self.mapped.take() {
            self.pd.retire(mapped);
        }
    }
}

type SyncFn =
    unsafe extern "C" fn(*mut bindings::ib_device, u64, usize, bindings::dma_data_direction);

impl Mapped {
    fn segment_needs_sync(&self) -> bool {
        self.segments().any(|(addr, _)| {
            // SAFETY: The address was mapped for the device, which is alive.
            unsafe { bindings::ib_dma_need_sync(self.device, addr) }
        })
    }

    /// Addresses and lengths of the segments, as the device sees them.
    fn segments(&self) -> impl Iterator<Item = (u64, usize)> + '_ {
        // SAFETY: The table was initialised by `scatter_table`.
        let mut sg = unsafe { (*self.table.get()).sgl };

        (0..self.segments).map(move |_| {
            // SAFETY: `sg` is one of the first `segments` entries, all of which are mapped.
            let segment = unsafe {
                (
                    bindings::sg_dma_address(sg),
                    bindings::sg_dma_len(sg) as usize,
                )
            };
            // SAFETY: `sg` is a valid entry; the result is used only if there is another one.
            sg = unsafe { bindings::sg_next(sg) };
            segment
        })
    }

    fn sync(&self, range: Range<usize>, sync: SyncFn) {
        let mut start = 0usize;

        for (addr, len) in self.segments() {
            let end = start.saturating_add(len);
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                let addr = addr.wrapping_add((from - start) as u64);
                // SAFETY: The range is part of a segment mapped for the device, which is alive.
                unsafe { sync(self.device, addr, to - from, self.direction.raw()) };
            }
            start = end;
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let table = self.table.get();

        if let Some(mr) = self.mr {
            // SAFETY: The region was allocated in `with_region` and is freed once. No queue pair is
            // left that could have a request for it under way (see `Pd::retire`), or no request has ever named it (a
            // `Draft`). The domain is alive in both cases.
            let ret = unsafe { bindings::ib_dereg_mr_user(mr.as_ptr(), core::ptr::null_mut()) };
            if ret != 0 {
                pr_warn!("freeing a memory region failed: {}\n", ret);
            }
        }
        if self.segments > 0 {
            // SAFETY: The list was mapped for this device and direction, with its original number
            // of entries, and the protection domain still keeps the device alive.
            unsafe {
                bindings::ib_dma_unmap_sg(
                    self.device,
                    (*table).sgl,
                    (*table).orig_nents as i32,
                    self.direction.raw(),
                )
            };
        }
        // SAFETY: The table was allocated by `scatter_table`, and is freed once.
        unsafe { bindings::sg_free_table(table) };
    }
}

/// Makes a table of the pages of `buffer`.
fn scatter_table(buffer: &Buffer) -> Result<KBox<Opaque<bindings::sg_table>>> {
    let table = KBox::new(Opaque::<bindings::sg_table>::uninit(), GFP_KERNEL)?;
    let step = match buffer.layout() {
        Layout::Physical => buffer.len(),
        Layout::Virtual => PAGE_SIZE,
    };
    let entries = buffer.len().checked_div(step).ok_or(EINVAL)?;

    // SAFETY: The table is valid for writes.
    to_result(unsafe {
        bindings::sg_alloc_table(table.get(), u32::try_from(entries)?, bindings::GFP_KERNEL)
    })?;
    // SAFETY: The table was just initialised.
    let mut sg = unsafe { (*table.get()).sgl };
    for i in 0..entries {
        let page = i
            .checked_mul(step)
            .and_then(|offset| buffer.page_at(offset));
        let (Some(page), Ok(len)) = (page, u32::try_from(step)) else {
            // SAFETY: The table was allocated above, and is not used any more.
            unsafe { bindings::sg_free_table(table.get()) };
            return Err(EINVAL);
        };
        // SAFETY: `sg` is entry `i` of the table's list; the page is `step` bytes long, or the
        // first of a contiguous run of that length.
        unsafe { bindings::sg_set_page(sg, page, len, 0) };
        // SAFETY: `sg` is a valid entry; the result is used only if there is another one.
        sg = unsafe { bindings::sg_next(sg) };
    }
    Ok(table)
}

/// Memory named in a work request: a piece of a [`Mapping`].
#[derive(Clone, Copy)]
pub(crate) struct Sge<'a> {
    pub(super) raw: bindings::ib_sge,
    pub(super) cpu: NonNull<u8>,
    pub(super) pd: *mut bindings::ib_pd,
    _mapping: PhantomData<&'a Mapping>,
}

impl Sge<'_> {
    /// Number of bytes.
    pub(crate) fn len(&self) -> u32 {
        self.raw.length
    }
}
