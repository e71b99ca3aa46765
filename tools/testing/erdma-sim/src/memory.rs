//! Guest memory: what QEMU hands over by DMA_MAP, mapped into this process.
//!
//! Addresses come from the guest and may be anything. Every access goes through `piece`, which knows only what was
//! mapped; what lies outside is an error of the guest, never an access. The guest writes at the same time, so memory
//! is only ever copied, never borrowed.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

/// An address range that is not (wholly) mapped, or not writable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside {
    pub address: u64,
    pub length: u64,
}

struct Region {
    size: u64,
    writable: bool,
    /// Nothing for ROM, which QEMU announces without a file.
    map: Option<MmapRegion>,
}

#[derive(Default)]
pub struct GuestMemory {
    regions: BTreeMap<u64, Region>,
}

impl GuestMemory {
    /// A range of guest memory that lies in a file at `offset`.
    pub fn map_file(
        &mut self,
        address: u64,
        size: u64,
        offset: u64,
        file: File,
        writable: bool,
    ) -> Result<(), String> {
        let length = usize::try_from(size)
            .map_err(|_| "it is larger than this process can map".to_string())?;
        let map = MmapRegion::from_file(FileOffset::new(file, offset), length)
            .map_err(|e| e.to_string())?;
        self.insert(address, size, Some(map), writable)
    }

    /// A range that exists and that the device can never reach (ROM).
    pub fn map_nothing(&mut self, address: u64, size: u64) -> Result<(), String> {
        self.insert(address, size, None, false)
    }

    /// Memory of this process alone, for the model of a driver in tests.
    #[cfg(test)]
    pub fn map_anonymous(&mut self, address: u64, size: u64) -> Result<(), String> {
        let map = MmapRegion::new(size as usize).map_err(|e| e.to_string())?;
        self.insert(address, size, Some(map), true)
    }

    fn insert(
        &mut self,
        address: u64,
        size: u64,
        map: Option<MmapRegion>,
        writable: bool,
    ) -> Result<(), String> {
        let end = address
            .checked_add(size)
            .ok_or("it goes beyond the end of the address space")?;
        let before = self.regions.range(..end).next_back();
        if size == 0 || before.is_some_and(|(start, region)| start + region.size > address) {
            return Err("it is empty, or overlaps a range that is mapped already".into());
        }
        self.regions.insert(
            address,
            Region {
                size,
                writable,
                map,
            },
        );
        Ok(())
    }

    /// Whether exactly this range was mapped.
    pub fn unmap(&mut self, address: u64, size: u64) -> bool {
        match self.regions.get(&address) {
            Some(region) if region.size == size => self.regions.remove(&address).is_some(),
            _ => false,
        }
    }

    pub fn clear(&mut self) {
        self.regions.clear();
    }

    /// Bytes that the device can reach.
    pub fn reachable(&self) -> u64 {
        self.regions
            .values()
            .filter(|r| r.map.is_some())
            .map(|r| r.size)
            .sum()
    }

    /// The longest part of the range that lies in one mapping, from its beginning.
    fn piece(&self, address: u64, length: u64, write: bool) -> Result<VolatileSlice<'_>, Outside> {
        let outside = Outside { address, length };
        let (start, region) = self.regions.range(..=address).next_back().ok_or(outside)?;
        let offset = address - start;
        if offset >= region.size || (write && !region.writable) {
            return Err(outside);
        }
        let map = region.map.as_ref().ok_or(outside)?;
        let count = length.min(region.size - offset);
        map.get_slice(offset as usize, count as usize)
            .map_err(|_| outside)
    }

    /// Whether the whole range can be read (and written).
    pub fn check(&self, mut address: u64, mut length: u64, write: bool) -> Result<(), Outside> {
        while length > 0 {
            let count = self.piece(address, length, write)?.len() as u64;
            length -= count;
            address = address.wrapping_add(count);
        }
        Ok(())
    }

    pub fn read(&self, mut address: u64, mut into: &mut [u8]) -> Result<(), Outside> {
        while !into.is_empty() {
            let count = self.piece(address, into.len() as u64, false)?.copy_to(into);
            into = &mut into[count..];
            address = address.wrapping_add(count as u64);
        }
        Ok(())
    }

    /// All of it or nothing.
    pub fn write(&self, mut address: u64, mut from: &[u8]) -> Result<(), Outside> {
        self.check(address, from.len() as u64, true)?;
        while !from.is_empty() {
            let piece = self.piece(address, from.len() as u64, true)?;
            let count = piece.len();
            piece.copy_from(&from[..count]);
            from = &from[count..];
            address = address.wrapping_add(count as u64);
        }
        Ok(())
    }

    pub fn read_u64(&self, address: u64) -> Result<u64, Outside> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// An entry of a ring: the guest may see its first four bytes, which hold the owner bit, only after the rest.
    pub fn publish(&self, address: u64, entry: &[u8]) -> Result<(), Outside> {
        let outside = Outside {
            address,
            length: entry.len() as u64,
        };
        let first: [u8; 4] = entry
            .get(..4)
            .and_then(|b| b.try_into().ok())
            .ok_or(outside)?;
        self.check(address, entry.len() as u64, true)?;
        self.write(address.wrapping_add(4), &entry[4..])?;
        let owner = self.piece(address, 4, true)?;
        if owner.len() < 4
            || owner
                .store(u32::from_ne_bytes(first), 0, Ordering::Release)
                .is_err()
        {
            // A ring that is not aligned: no driver of a real device has one.
            self.write(address, &first)?;
        }
        Ok(())
    }

    /// Replaces eight bytes by what `change` makes of them, in one step; what was there before.
    pub fn atomic(
        &self,
        address: u64,
        change: impl Fn(u64) -> Option<u64>,
    ) -> Result<u64, Outside> {
        let outside = Outside { address, length: 8 };
        let piece = self.piece(address, 8, true)?;
        let cell = piece.get_atomic_ref::<AtomicU64>(0).map_err(|_| outside)?;
        let result = cell.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
            change(u64::from_le(old)).map(u64::to_le)
        });
        Ok(u64::from_le(result.unwrap_or_else(|old| old)))
    }

    /// From one machine's memory to another's (or its own).
    pub fn copy(
        from: &GuestMemory,
        mut source: u64,
        to: &GuestMemory,
        mut sink: u64,
        mut length: u64,
    ) -> Result<(), Outside> {
        while length > 0 {
            let read = from.piece(source, length, false)?;
            let write = to.piece(sink, read.len() as u64, true)?;
            let count = write.len();
            let read = read.subslice(0, count).map_err(|_| Outside {
                address: source,
                length,
            })?;
            read.copy_to_volatile_slice(write);
            length -= count as u64;
            source = source.wrapping_add(count as u64);
            sink = sink.wrapping_add(count as u64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Two ranges that touch, and one that stands alone; a ROM between.
    fn memory() -> GuestMemory {
        let mut memory = GuestMemory::default();
        memory.map_anonymous(0, 0x3000).unwrap();
        memory.map_anonymous(0x3000, 0x2000).unwrap();
        memory.map_nothing(0x5000, 0x1000).unwrap();
        memory.map_anonymous(0x8000, 0x1000).unwrap();
        memory
    }

    #[test]
    fn an_access_may_cross_mappings() {
        let memory = memory();
        let bytes: Vec<u8> = (0..0x40).collect();
        memory.write(0x2fe0, &bytes).unwrap();
        let mut back = vec![0; 0x40];
        memory.read(0x2fe0, &mut back).unwrap();
        assert_eq!(back, bytes);
        assert_eq!(
            memory.read_u64(0x2ffc).unwrap().to_le_bytes(),
            bytes[0x1c..0x24]
        );
    }

    #[test]
    fn what_is_not_mapped_is_an_error_and_writes_nothing() {
        let memory = memory();
        for (address, length) in [
            (0x4ff0, 0x20),
            (0x5000, 1),
            (0x6000, 8),
            (0x8ff8, 16),
            (u64::MAX, 2),
            (u64::MAX - 3, 8),
        ] {
            let bytes = vec![0xee; length];
            assert!(memory.write(address, &bytes).is_err(), "{address:#x}");
            assert!(
                memory.publish(address, &[0xee; 32]).is_err(),
                "{address:#x}"
            );
            assert!(
                memory.read(address, &mut vec![0; length]).is_err(),
                "{address:#x}"
            );
        }
        let mut tail = [0; 0x10];
        memory.read(0x4ff0, &mut tail).unwrap();
        assert_eq!(tail, [0; 0x10], "a write that does not fit leaves nothing");
    }

    #[test]
    fn overlaps_and_partial_unmaps_are_refused() {
        let mut memory = memory();
        assert!(memory.map_anonymous(0x2000, 0x1000).is_err());
        assert!(memory.map_anonymous(0x7000, 0x1001).is_err());
        assert!(memory.map_nothing(u64::MAX, 2).is_err());
        assert!(!memory.unmap(0x3000, 0x1000));
        assert!(memory.unmap(0x3000, 0x2000));
        assert!(memory.read_u64(0x3000).is_err());
    }

    #[test]
    fn an_atomic_operation_returns_what_was_there() {
        let memory = memory();
        memory.write(0x100, &5u64.to_le_bytes()).unwrap();
        assert_eq!(memory.atomic(0x100, |v| Some(v + 3)), Ok(5));
        assert_eq!(memory.atomic(0x100, |v| (v == 5).then_some(1)), Ok(8));
        assert_eq!(memory.read_u64(0x100), Ok(8));
        assert!(memory.atomic(0x101, Some).is_err(), "not aligned");
        assert!(memory.atomic(0x2ffc, Some).is_err(), "across two mappings");
    }

    proptest! {
        /// Whatever the ranges, a copy writes its sink and nothing else.
        #[test]
        fn copies_reach_only_their_sink(source in 0u64..0x9800, sink in 0u64..0x9800, length in 0u64..0x2800) {
            let from = memory();
            let to = memory();
            for at in (0..0x5000).step_by(8).chain((0x8000..0x9000).step_by(8)) {
                from.write(at, &(at | 0x0101_0101_0101_0101).to_le_bytes()).unwrap();
            }
            let fits = from.check(source, length, false).is_ok() && to.check(sink, length, true).is_ok();
            let done = GuestMemory::copy(&from, source, &to, sink, length);
            prop_assert_eq!(done.is_ok(), fits);
            for at in (0..0x5000).chain(0x8000..0x9000) {
                let mut byte = [0];
                to.read(at, &mut byte).unwrap();
                if at >= sink && at < sink + length {
                    if fits {
                        let mut wanted = [0];
                        from.read(source + (at - sink), &mut wanted).unwrap();
                        prop_assert_eq!(byte, wanted);
                    }
                } else {
                    prop_assert_eq!(byte, [0], "{:#x}", at);
                }
            }
        }
    }
}
