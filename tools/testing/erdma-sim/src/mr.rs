//! Memory regions: keys, rights, protection domains, and the way from an address to guest memory.

use crate::memory::GuestMemory;
use std::collections::HashMap;

/// The key that stands for all memory, for local access only; the device announces it.
pub const LOCAL_DMA_KEY: u32 = 0xffff_ff00;

/// What a region allows, as the driver writes it.
pub mod right {
    pub const REMOTE_ATOMIC: u8 = 1;
    pub const LOCAL_READ: u8 = 2;
    pub const LOCAL_WRITE: u8 = 4;
    pub const REMOTE_READ: u8 = 8;
    pub const REMOTE_WRITE: u8 = 16;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Normal,
    /// Registered by work requests.
    Fast,
    /// All memory, by its own addresses.
    Dma,
}

/// Where a region's page addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Inline([u64; 4]),
    /// An array, or with 2 and 3 levels a page of addresses of such arrays' pages.
    Memory {
        address: u64,
        level: u8,
        page_shift: u32,
    },
}

#[derive(Clone, Debug)]
pub struct Region {
    pub kind: Kind,
    pub pd: u32,
    pub key: u8,
    pub valid: bool,
    pub rights: u8,
    pub start: u64,
    pub length: u64,
    pub page_shift: u32,
    pub table: Table,
    /// Entries in the table.
    pub count: u64,
    /// Of a fast region: the table that was given with it, and how many entries fit.
    pub own: (Table, u64),
}

/// Why an access was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Stag,
    Address,
    Right,
    Pd,
    Wrap,
}

/// Parts of guest memory, in order.
pub type Pieces = Vec<(u64, u64)>;

#[derive(Default)]
pub struct Regions {
    by_index: HashMap<u32, Region>,
}

impl Regions {
    pub fn len(&self) -> usize {
        self.by_index.len()
    }

    pub fn clear(&mut self) {
        self.by_index.clear();
    }

    /// Whether the index was free.
    pub fn insert(&mut self, index: u32, region: Region) -> bool {
        match self.by_index.entry(index) {
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(region);
                true
            }
            std::collections::hash_map::Entry::Occupied(_) => false,
        }
    }

    pub fn remove(&mut self, index: u32) -> bool {
        self.by_index.remove(&index).is_some()
    }

    pub fn by_index_mut(&mut self, index: u32) -> Option<&mut Region> {
        self.by_index.get_mut(&index)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Region)> {
        self.by_index.iter().map(|(index, region)| (*index, region))
    }

    fn valid(&self, stag: u32, pd: u32) -> Result<&Region, Refused> {
        let region = self.by_index.get(&(stag >> 8)).ok_or(Refused::Stag)?;
        if !region.valid || region.key != stag as u8 {
            return Err(Refused::Stag);
        }
        if region.pd != pd {
            return Err(Refused::Pd);
        }
        Ok(region)
    }

    /// The memory behind a range of a region, if whoever is in this protection domain may use it so.
    pub fn resolve(
        &self,
        memory: &GuestMemory,
        stag: u32,
        pd: u32,
        address: u64,
        length: u64,
        need: u8,
    ) -> Result<Pieces, Refused> {
        if length == 0 {
            return Ok(Pieces::new());
        }
        let end = address.checked_add(length).ok_or(Refused::Wrap)?;
        let write = need & !(right::LOCAL_READ | right::REMOTE_READ) != 0;
        let pieces = if stag == LOCAL_DMA_KEY {
            if need & !(right::LOCAL_READ | right::LOCAL_WRITE) != 0 {
                return Err(Refused::Stag);
            }
            vec![(address, length)]
        } else {
            let region = self.valid(stag, pd)?;
            if region.rights & need != need {
                return Err(Refused::Right);
            }
            if region.kind == Kind::Dma {
                vec![(address, length)]
            } else {
                if address < region.start || end - region.start > region.length {
                    return Err(Refused::Address);
                }
                region.pieces(memory, address, length)?
            }
        };
        for (at, count) in &pieces {
            memory
                .check(*at, *count, write)
                .map_err(|_| Refused::Address)?;
        }
        Ok(pieces)
    }

    /// A fast region is registered by a work request.
    pub fn register(
        &mut self,
        stag: u32,
        pd: u32,
        change: impl FnOnce(&mut Region) -> Option<()>,
    ) -> Result<(), Refused> {
        let region = self.by_index.get_mut(&(stag >> 8)).ok_or(Refused::Stag)?;
        if region.kind != Kind::Fast || region.valid {
            return Err(Refused::Stag);
        }
        if region.pd != pd {
            return Err(Refused::Pd);
        }
        change(region).ok_or(Refused::Address)?;
        region.key = stag as u8;
        region.valid = true;
        Ok(())
    }

    /// A fast region is taken back, by its owner or by the other side.
    pub fn invalidate(&mut self, stag: u32, pd: u32) -> Result<(), Refused> {
        self.valid(stag, pd)?;
        let region = self.by_index.get_mut(&(stag >> 8)).ok_or(Refused::Stag)?;
        if region.kind != Kind::Fast {
            return Err(Refused::Stag);
        }
        region.valid = false;
        Ok(())
    }
}

impl Region {
    /// The address of a page; `page` is below `count`.
    fn page(&self, memory: &GuestMemory, page: u64) -> Result<u64, Refused> {
        match self.table {
            Table::Inline(pages) => pages.get(page as usize).copied().ok_or(Refused::Address),
            Table::Memory {
                mut address,
                level,
                page_shift,
            } => {
                // Entries of a table page, each 8 bytes.
                let fan = page_shift.saturating_sub(3);
                for above in (1..level).rev() {
                    let index = page >> (fan * u32::from(above));
                    let slot = if above == level - 1 {
                        index
                    } else {
                        index & ((1 << fan) - 1)
                    };
                    address = memory
                        .read_u64(address.wrapping_add(slot.wrapping_mul(8)))
                        .map_err(|_| Refused::Address)?;
                }
                let slot = if level > 1 {
                    page & ((1 << fan) - 1)
                } else {
                    page
                };
                memory
                    .read_u64(address.wrapping_add(slot.wrapping_mul(8)))
                    .map_err(|_| Refused::Address)
            }
        }
    }

    fn pieces(&self, memory: &GuestMemory, address: u64, length: u64) -> Result<Pieces, Refused> {
        let size = 1u64 << self.page_shift;
        // The first page holds `start`, at the same place as the page has it.
        let mut at = address - (self.start & !(size - 1));
        let mut left = length;
        let mut pieces: Pieces =
            Vec::with_capacity((length >> self.page_shift).min(4096) as usize + 2);
        while left > 0 {
            let page = at >> self.page_shift;
            if page >= self.count {
                return Err(Refused::Address);
            }
            let within = at & (size - 1);
            let count = left.min(size - within);
            let from = self.page(memory, page)?.wrapping_add(within);
            match pieces.last_mut() {
                Some((last, so_far)) if last.wrapping_add(*so_far) == from => *so_far += count,
                _ => pieces.push((from, count)),
            }
            at += count;
            left -= count;
        }
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: u8 = 31;

    fn memory() -> GuestMemory {
        let mut memory = GuestMemory::default();
        memory.map_anonymous(0, 0x40_0000).unwrap();
        memory
    }

    fn region(kind: Kind, table: Table, count: u64) -> Region {
        Region {
            kind,
            pd: 7,
            key: 0x11,
            valid: true,
            rights: ALL,
            start: 0x1234,
            length: 0x5000,
            page_shift: 12,
            table,
            count,
            own: (table, count),
        }
    }

    fn regions(region: Region) -> Regions {
        let mut regions = Regions::default();
        assert!(regions.insert(5, region));
        regions
    }

    const STAG: u32 = 5 << 8 | 0x11;

    #[test]
    fn pages_are_found_inline_and_joined_where_they_touch() {
        let memory = memory();
        let mut inner = region(
            Kind::Normal,
            Table::Inline([0x8000, 0x9000, 0x3000, 0x4000]),
            4,
        );
        inner.length = 0x3000;
        let regions = regions(inner);
        assert_eq!(
            regions.resolve(&memory, STAG, 7, 0x1234, 0x3000, right::REMOTE_WRITE),
            Ok(vec![(0x8234, 0x1dcc), (0x3000, 0x1234)])
        );
        assert_eq!(
            regions.resolve(&memory, STAG, 7, 0x4233, 1, right::LOCAL_READ),
            Ok(vec![(0x4233, 1)])
        );
    }

    #[test]
    fn refusals_have_their_reasons() {
        let memory = memory();
        let mut inner = region(
            Kind::Normal,
            Table::Inline([0x8000, 0x9000, 0x3000, 0x4000]),
            4,
        );
        inner.length = 0x2000;
        inner.rights = right::LOCAL_READ | right::REMOTE_WRITE;
        let mut regions = regions(inner);
        let ask = |stag, pd, address, length, need| {
            regions
                .resolve(&memory, stag, pd, address, length, need)
                .err()
        };
        assert_eq!(ask(STAG, 7, 0x1234, 0x2000, right::REMOTE_WRITE), None);
        assert_eq!(
            ask(STAG, 7, 0x1234, 0x2001, right::REMOTE_WRITE),
            Some(Refused::Address)
        );
        assert_eq!(
            ask(STAG, 7, 0x1233, 1, right::REMOTE_WRITE),
            Some(Refused::Address)
        );
        assert_eq!(
            ask(STAG, 7, u64::MAX, 2, right::REMOTE_WRITE),
            Some(Refused::Wrap)
        );
        assert_eq!(
            ask(STAG, 7, 0x1234, 1, right::REMOTE_READ),
            Some(Refused::Right)
        );
        assert_eq!(
            ask(STAG, 8, 0x1234, 1, right::REMOTE_WRITE),
            Some(Refused::Pd)
        );
        assert_eq!(
            ask(STAG + 1, 7, 0x1234, 1, right::REMOTE_WRITE),
            Some(Refused::Stag)
        );
        assert_eq!(
            ask(6 << 8, 7, 0x1234, 1, right::REMOTE_WRITE),
            Some(Refused::Stag)
        );
        assert_eq!(
            ask(6 << 8, 7, 0x1234, 0, right::REMOTE_WRITE),
            None,
            "nothing is asked of no bytes"
        );
        assert_eq!(
            regions.invalidate(STAG, 7),
            Err(Refused::Stag),
            "not a fast one"
        );
    }

    #[test]
    fn the_local_key_is_local() {
        let memory = memory();
        let regions = Regions::default();
        assert_eq!(
            regions.resolve(&memory, LOCAL_DMA_KEY, 1, 0x100, 0x100, right::LOCAL_WRITE),
            Ok(vec![(0x100, 0x100)])
        );
        assert_eq!(
            regions.resolve(&memory, LOCAL_DMA_KEY, 1, 0x100, 0x100, right::REMOTE_WRITE),
            Err(Refused::Stag)
        );
        assert_eq!(
            regions.resolve(&memory, LOCAL_DMA_KEY, 1, 0x40_0000, 1, right::LOCAL_READ),
            Err(Refused::Address)
        );
    }

    #[test]
    fn a_fast_region_lives_from_registration_to_invalidation() {
        let memory = memory();
        let mut inner = region(Kind::Fast, Table::Inline([0x8000, 0, 0, 0]), 1);
        inner.valid = false;
        let mut regions = regions(inner);
        let stag = 5 << 8 | 0x42;
        let ask = |regions: &Regions| {
            regions
                .resolve(&memory, stag, 7, 0x1000, 1, right::REMOTE_WRITE)
                .err()
        };
        let fill = |region: &mut Region| {
            (region.start, region.length) = (0x1000, 0x1000);
            Some(())
        };
        assert_eq!(ask(&regions), Some(Refused::Stag));
        assert_eq!(regions.register(stag, 8, fill), Err(Refused::Pd));
        assert_eq!(regions.register(stag, 7, fill), Ok(()));
        assert_eq!(ask(&regions), None);
        assert_eq!(
            regions.register(stag, 7, fill),
            Err(Refused::Stag),
            "it is registered"
        );
        assert_eq!(
            regions.invalidate(5 << 8, 7),
            Err(Refused::Stag),
            "another key"
        );
        assert_eq!(regions.invalidate(stag, 7), Ok(()));
        assert_eq!(ask(&regions), Some(Refused::Stag));
    }

    proptest! {
        /// Tables of one, two and three levels say the same. Small table pages (64 bytes: 8 entries) stand for large ones.
        #[test]
        fn every_level_finds_the_same_page(level in 1u8..=3, page in 0u64..512) {
            let memory = memory();
            let shift = 6;
            let entries = 8u64;
            // Level 1 lies at 0x10000, contiguous; above it, pages of addresses of the pages below.
            for n in 0..512u64 {
                memory.write(0x1_0000 + n * 8, &(0x100_0000 + n * 0x1000).to_le_bytes()).unwrap();
            }
            for n in 0..64u64 {
                memory.write(0x2_0000 + n * 8, &(0x1_0000 + n * entries * 8).to_le_bytes()).unwrap();
            }
            for n in 0..8u64 {
                memory.write(0x3_0000 + n * 8, &(0x2_0000 + n * entries * 8).to_le_bytes()).unwrap();
            }
            let address = [0x1_0000, 0x2_0000, 0x3_0000][usize::from(level) - 1];
            let table = Table::Memory { address, level, page_shift: shift };
            let region = region(Kind::Normal, table, 512);
            prop_assert_eq!(region.page(&memory, page), Ok(0x100_0000 + page * 0x1000));
        }
    }
}
