// SPDX-License-Identifier: GPL-2.0

//! Memory that devices, and through them peers, read and write.
//!
//! A peer may change such memory at any time, so there is never a Rust reference to its bytes: all
//! access copies, through C functions. What was read twice may differ.

use core::ptr::NonNull;
use kernel::{
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};

use crate::bindings;

/// How the pages of a [`Buffer`] lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Physically contiguous: one scatter/gather entry, no translation in the device, but large
    /// sizes may not be available.
    Physical,
    /// Virtually contiguous: needs a memory region to look contiguous to the device.
    Virtual,
}

/// Zeroed memory of whole pages.
///
/// Freed when the last [`Arc`] is dropped, which for memory that a device can reach is the business
/// of [`Mapping`](super::mapping::Mapping).
pub(crate) struct Buffer {
    base: NonNull<u8>,
    len: usize,
    backing: Backing,
}

enum Backing {
    Pages {
        page: NonNull<kernel::bindings::page>,
        order: u32,
    },
    Vmalloc,
}

// SAFETY: The memory belongs to the object and has no ties to a task.
unsafe impl Send for Buffer {}
// SAFETY: The bytes are only accessed by copies through raw pointers, never by references, and
// every user has to expect that they change at any time.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Allocates `len` bytes, rounded up to whole pages (to a power of two of them for
    /// [`Layout::Physical`]). May sleep, but does not try hard: fails early with `ENOMEM`, so that
    /// the caller can ask for less.
    pub(crate) fn new(len: usize, layout: Layout) -> Result<Arc<Self>> {
        if len == 0 {
            return Err(EINVAL);
        }
        let buffer = match layout {
            Layout::Physical => Self::pages(len)?,
            Layout::Virtual => Self::vmalloc(len)?,
        };
        Ok(Arc::new(buffer, GFP_KERNEL)?)
    }

    fn pages(len: usize) -> Result<Self> {
        let pages = len
            .div_ceil(PAGE_SIZE)
            .checked_next_power_of_two()
            .ok_or(EINVAL)?;
        let order = pages.trailing_zeros();

        if order > kernel::bindings::MAX_PAGE_ORDER {
            return Err(ENOMEM);
        }
        // SAFETY: Any flags and any order up to the maximum are allowed; called in process context.
        let page = unsafe { kernel::bindings::alloc_pages(bindings::GFP_BUFFER, order) };
        let page = NonNull::new(page).ok_or(ENOMEM)?;
        // SAFETY: The page is valid, and as GFP_BUFFER does not allow high memory, has an address.
        let base = unsafe { bindings::page_address(page.as_ptr().cast()) };

        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(ENOMEM)?,
            len: pages.checked_mul(PAGE_SIZE).ok_or(EINVAL)?,
            backing: Backing::Pages { page, order },
        })
    }

    fn vmalloc(len: usize) -> Result<Self> {
        let len = len.checked_next_multiple_of(PAGE_SIZE).ok_or(EINVAL)?;
        // SAFETY: Any size is allowed; called in process context.
        let base = unsafe { bindings::vmalloc_buffer(len) };

        Ok(Self {
            base: NonNull::new(base.cast()).ok_or(ENOMEM)?,
            len,
            backing: Backing::Vmalloc,
        })
    }

    /// Size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How the memory was allocated.
    pub(crate) fn layout(&self) -> Layout {
        match self.backing {
            Backing::Pages { .. } => Layout::Physical,
            Backing::Vmalloc => Layout::Virtual,
        }
    }

    /// Whether `len` bytes from `offset` lie within the buffer.
    fn contains(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// Address of `len` bytes from `offset`, if they lie within the buffer.
    pub(super) fn range(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        if !self.contains(offset, len) {
            return None;
        }
        // SAFETY: The range lies within the allocation, as just checked.
        Some(unsafe { self.base.add(offset) })
    }

    /// The page at `offset`, which is a multiple of the page size below the buffer's length.
    pub(super) fn page_at(&self, offset: usize) -> Option<*mut bindings::page> {
        let addr = self.range(offset, PAGE_SIZE)?;

        Some(match self.backing {
            // SAFETY: The page `offset / PAGE_SIZE` is part of the allocation, whose page
            // structures lie in an array.
            Backing::Pages { page, .. } => unsafe { page.add(offset / PAGE_SIZE) }.as_ptr().cast(),
            Backing::Vmalloc => {
                // SAFETY: `addr` lies in memory of vmalloc, all of which has pages.
                unsafe { kernel::bindings::vmalloc_to_page(addr.as_ptr().cast()) }.cast()
            }
        })
    }

    /// Sets the first `len` bytes to zero, or all of them if there are less.
    pub(crate) fn clear(&self, len: usize) {
        let len = len.min(self.len);
        // SAFETY: The memory is valid for writes of `self.len` bytes. Nobody has references to it; a device that
        // writes at the same time leaves an undefined mixture of bytes, which users expect.
        unsafe { bindings::buffer_clear(self.base.as_ptr().cast(), len) };
    }

    /// Copies bytes from the buffer; `EINVAL` if it is not that large.
    pub(crate) fn read(&self, offset: usize, to: &mut [u8]) -> Result {
        let from = self.range(offset, to.len()).ok_or(EINVAL)?;

        // SAFETY: `from` is valid for reads of that length, `to` for writes, and they do not
        // overlap as nobody has references into the buffer.
        unsafe { bindings::buffer_copy(to.as_mut_ptr().cast(), from.as_ptr().cast(), to.len()) };
        Ok(())
    }

    /// Copies bytes into the buffer; `EINVAL` if it is not that large.
    pub(crate) fn write(&self, offset: usize, from: &[u8]) -> Result {
        let to = self.range(offset, from.len()).ok_or(EINVAL)?;

        // SAFETY: `to` is valid for writes of that length, `from` for reads, and they do not
        // overlap as nobody has references into the buffer.
        unsafe { bindings::buffer_copy(to.as_ptr().cast(), from.as_ptr().cast(), from.len()) };
        Ok(())
    }

    /// Copies `len` bytes at `at` of another buffer to `offset`; `EINVAL` if one of both is not that large.
    pub(crate) fn copy_from(&self, offset: usize, from: &Self, at: usize, len: usize) -> Result {
        let to = self.range(offset, len).ok_or(EINVAL)?;
        let from = from.range(at, len).ok_or(EINVAL)?;

        // SAFETY: Both are valid for `len` bytes. Nobody has references into them; a device that writes at the same
        // time leaves an undefined mixture of bytes, which users expect. C copies upwards, so that a buffer copied
        // into itself is a mixture, too.
        unsafe { bindings::buffer_copy(to.as_ptr().cast(), from.as_ptr().cast(), len) };
        Ok(())
    }

    /// Reads one byte.
    pub(crate) fn read_byte(&self, offset: usize) -> Option<u8> {
        let mut byte = [0];

        self.read(offset, &mut byte).ok()?;
        Some(byte[0])
    }

    /// Copies up to `len` bytes from `from` to `offset`; the number of bytes copied, which is
    /// smaller when `from` ends or faults. `EINVAL` if the buffer is not that large.
    ///
    /// For process context, as user memory may have to be paged in.
    pub(crate) fn copy_from_iter(
        &self,
        offset: usize,
        len: usize,
        from: &mut IovIterSource<'_>,
    ) -> Result<usize> {
        let to = self.range(offset, len).ok_or(EINVAL)?;

        // SAFETY: `to` is valid for writes of `len` bytes, and `from` is a valid source.
        Ok(unsafe { kernel::bindings::_copy_from_iter(to.as_ptr().cast(), len, from.as_raw()) })
    }

    /// Copies up to `len` bytes at `offset` into `to`; the number of bytes copied, which is smaller
    /// when `to` ends or faults. `EINVAL` if the buffer is not that large.
    ///
    /// For process context, as user memory may have to be paged in.
    pub(crate) fn copy_to_iter(
        &self,
        offset: usize,
        len: usize,
        to: &mut IovIterDest<'_>,
    ) -> Result<usize> {
        let from = self.range(offset, len).ok_or(EINVAL)?;

        // SAFETY: `from` is valid for reads of `len` bytes, and `to` is a valid destination.
        Ok(unsafe { kernel::bindings::_copy_to_iter(from.as_ptr().cast(), len, to.as_raw()) })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        match self.backing {
            // SAFETY: The pages were allocated with this order, and there is no use left.
            Backing::Pages { page, order } => unsafe {
                kernel::bindings::__free_pages(page.as_ptr(), order)
            },
            // SAFETY: The memory is vmalloc's, and there is no use left.
            Backing::Vmalloc => unsafe { bindings::vfree(self.base.as_ptr().cast()) },
        }
    }
}
