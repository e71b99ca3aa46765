//! Rings in guest memory: event queues, completion queues, and the buffers of all queues.
//!
//! An entry that the device writes carries an owner bit, which changes its sense with each turn of the ring: it is set
//! in the first one. Who waits for events is told by a doorbell with the consumer's index and an "arm" bit; armed
//! with entries unseen it raises the event at once, or it would never come.

use crate::memory::{GuestMemory, Outside};
use crate::wire::{bits, Completion};
use std::collections::VecDeque;

/// Where a queue lies: one range, or pages named by up to four addresses or by a table of them in guest memory.
#[derive(Clone, Debug)]
pub struct Buffer {
    page_shift: u32,
    /// Where in the first page it begins.
    offset: u64,
    pages: Pages,
    count: u64,
}

#[derive(Clone, Debug)]
enum Pages {
    Inline([u64; 4]),
    Table(u64),
}

impl Buffer {
    pub fn inline(page_shift: u32, offset: u64, pages: [u64; 4], count: u64) -> Buffer {
        Buffer {
            page_shift,
            offset,
            pages: Pages::Inline(pages),
            count: count.min(4),
        }
    }

    pub fn table(page_shift: u32, offset: u64, table: u64, count: u64) -> Buffer {
        Buffer {
            page_shift,
            offset,
            pages: Pages::Table(table),
            count,
        }
    }

    /// A range that is contiguous.
    pub fn plain(address: u64) -> Buffer {
        Buffer::inline(62, 0, [address, 0, 0, 0], 1)
    }

    /// The address at an offset into the queue, and how many bytes follow it in the page.
    fn locate(&self, memory: &GuestMemory, at: u64) -> Result<(u64, u64), Outside> {
        let outside = Outside {
            address: at,
            length: 0,
        };
        let at = at.checked_add(self.offset).ok_or(outside)?;
        let (page, within) = (at >> self.page_shift, at & ((1 << self.page_shift) - 1));
        if page >= self.count {
            return Err(outside);
        }
        let base = match &self.pages {
            Pages::Inline(pages) => pages[page as usize],
            Pages::Table(table) => memory.read_u64(table.wrapping_add(page * 8))?,
        };
        Ok((base.wrapping_add(within), (1 << self.page_shift) - within))
    }

    pub fn read(
        &self,
        memory: &GuestMemory,
        mut at: u64,
        mut into: &mut [u8],
    ) -> Result<(), Outside> {
        while !into.is_empty() {
            let (address, room) = self.locate(memory, at)?;
            let count = room.min(into.len() as u64) as usize;
            let (now, later) = into.split_at_mut(count);
            memory.read(address, now)?;
            into = later;
            at += count as u64;
        }
        Ok(())
    }

    /// An entry that the device owns until its first four bytes are there.
    fn publish(&self, memory: &GuestMemory, at: u64, entry: &[u8]) -> Result<(), Outside> {
        let (address, room) = self.locate(memory, at)?;
        if room < entry.len() as u64 {
            return Err(Outside {
                address,
                length: entry.len() as u64,
            });
        }
        memory.publish(address, entry)
    }
}

/// The number of entries that a logarithm stands for, if it can be a queue's.
pub fn depth_of(log2: u32, most: u32) -> Option<u32> {
    (log2 <= most).then(|| 1 << log2)
}

/// An entry could not be written: the ring is not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken(pub Outside);

/// Events for the driver, 16 bytes each.
pub struct EventQueue {
    buffer: Buffer,
    pub depth: u32,
    pub vector: usize,
    pub pi: u32,
    /// 16 bits, as the doorbell has it.
    pub ci: u32,
    pub armed: bool,
    /// What did not fit.
    backlog: VecDeque<[u8; 16]>,
    pub dropped: u64,
}

/// No driver lets so many events wait.
const BACKLOG: usize = 1 << 16;

impl EventQueue {
    /// Armed from the start: a driver rings an EQ's doorbell only after its first interrupt.
    pub fn new(address: u64, depth: u32, vector: usize) -> EventQueue {
        EventQueue {
            buffer: Buffer::plain(address),
            depth,
            vector,
            pi: 0,
            ci: 0,
            armed: true,
            backlog: VecDeque::new(),
            dropped: 0,
        }
    }

    fn used(&self) -> u32 {
        self.pi.wrapping_sub(self.ci) & 0xffff
    }

    fn write(&mut self, memory: &GuestMemory, mut entry: [u8; 16]) -> Result<(), Broken> {
        let owner = self.pi & self.depth == 0;
        entry[3] = entry[3] & 0x7f | u8::from(owner) << 7;
        let at = u64::from(self.pi & (self.depth - 1)) * 16;
        self.buffer.publish(memory, at, &entry).map_err(Broken)?;
        self.pi = self.pi.wrapping_add(1);
        Ok(())
    }

    /// Whether the interrupt is to be raised.
    #[must_use]
    fn fire(&mut self) -> bool {
        std::mem::take(&mut self.armed)
    }

    /// The first dword holds bits 0..=31 of the entry without the owner; whether an interrupt is due.
    pub fn post(&mut self, memory: &GuestMemory, entry: [u8; 16]) -> Result<bool, Broken> {
        if self.used() >= self.depth || !self.backlog.is_empty() {
            if self.backlog.len() >= BACKLOG {
                self.dropped += 1;
            } else {
                self.backlog.push_back(entry);
            }
            return Ok(false);
        }
        self.write(memory, entry)?;
        Ok(self.fire())
    }

    pub fn doorbell(&mut self, memory: &GuestMemory, value: u64) -> Result<bool, Broken> {
        self.ci = value as u32 & 0xffff;
        while self.used() < self.depth {
            let Some(entry) = self.backlog.pop_front() else {
                break;
            };
            self.write(memory, entry)?;
        }
        self.armed |= bits(value, 31, 31) == 1;
        Ok(self.used() != 0 && self.fire())
    }
}

/// What a completion queue's driver waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Armed {
    No,
    Any,
    Solicited,
}

pub struct CompletionQueue {
    buffer: Buffer,
    pub depth: u32,
    /// 0 is the command queue's.
    pub eqn: u32,
    pub pi: u32,
    /// 24 bits, as last told by an arming: a driver that only polls does not tell it, so it cannot show an overrun.
    pub ci: u32,
    pub armed: Armed,
    /// The index after the last solicited completion.
    solicited: Option<u32>,
    /// No more completions (a fault).
    pub failed: bool,
    pub events: u64,
    /// As of a [`crate::qp::WorkQueue`].
    pub record: u64,
}

impl CompletionQueue {
    pub fn new(buffer: Buffer, depth: u32, eqn: u32) -> CompletionQueue {
        CompletionQueue {
            buffer,
            depth,
            eqn,
            pi: 0,
            ci: 0,
            armed: Armed::No,
            solicited: None,
            failed: false,
            events: 0,
            record: 0,
        }
    }

    /// Whether an event is due.
    pub fn post(
        &mut self,
        memory: &GuestMemory,
        entry: &Completion,
        solicited: bool,
    ) -> Result<bool, Broken> {
        if self.failed {
            return Ok(false);
        }
        let bytes = entry.encode(self.pi & self.depth == 0);
        self.post_bytes(memory, &bytes, solicited || entry.syndrome != 0)
    }

    /// The same with an entry that is complete.
    pub fn post_bytes(
        &mut self,
        memory: &GuestMemory,
        bytes: &[u8; 32],
        solicited: bool,
    ) -> Result<bool, Broken> {
        let at = u64::from(self.pi & (self.depth - 1)) * 32;
        self.buffer.publish(memory, at, bytes).map_err(Broken)?;
        self.pi = self.pi.wrapping_add(1);
        if solicited {
            self.solicited = Some(self.pi);
        }
        Ok(match self.armed {
            Armed::Any => self.fire(),
            Armed::Solicited if solicited => self.fire(),
            _ => false,
        })
    }

    /// The owner bit of the next entry.
    pub fn owner(&self) -> bool {
        self.pi & self.depth == 0
    }

    fn fire(&mut self) -> bool {
        self.armed = Armed::No;
        self.events += 1;
        true
    }

    /// Whether an event is due at once, for what is there already.
    pub fn doorbell(&mut self, value: u64) -> bool {
        self.ci = bits(value, 23, 0) as u32;
        if bits(value, 31, 31) == 0 {
            return false;
        }
        self.armed = if bits(value, 30, 30) == 1 {
            Armed::Solicited
        } else {
            Armed::Any
        };
        let unseen = |until: u32| until.wrapping_sub(self.ci) & 0xff_ffff;
        let due = match self.armed {
            Armed::Any => unseen(self.pi) != 0,
            // Solicited ones that the driver has seen do not count.
            _ => self
                .solicited
                .is_some_and(|at| (1..=unseen(self.pi)).contains(&unseen(at))),
        };
        due && self.fire()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Op, Queue, Syndrome};

    fn memory() -> GuestMemory {
        let mut memory = GuestMemory::default();
        memory.map_anonymous(0, 0x10000).unwrap();
        memory
    }

    fn owner_of_event(memory: &GuestMemory, at: u64) -> bool {
        bits(memory.read_u64(at).unwrap(), 31, 31) == 1
    }

    fn completion() -> Completion {
        Completion::new(Queue::Send, Op::Write, Syndrome::Success, 0, 1)
    }

    #[test]
    fn an_event_queue_is_armed_from_the_start_and_then_by_its_doorbell() {
        let memory = memory();
        let mut eq = EventQueue::new(0x1000, 4, 1);
        assert_eq!(eq.post(&memory, [0; 16]), Ok(true));
        assert_eq!(
            eq.post(&memory, [0; 16]),
            Ok(false),
            "one interrupt until it is armed again"
        );
        assert_eq!(
            eq.doorbell(&memory, 1 << 31 | 1),
            Ok(true),
            "armed with an event unseen"
        );
        assert_eq!(eq.doorbell(&memory, 1 << 31 | 2), Ok(false));
        assert_eq!(eq.post(&memory, [0; 16]), Ok(true));
    }

    #[test]
    fn the_owner_bit_changes_with_each_turn() {
        let memory = memory();
        let mut eq = EventQueue::new(0x1000, 2, 1);
        for turn in 0..4 {
            for slot in 0..2 {
                eq.post(&memory, [0x55; 16]).unwrap();
                assert_eq!(owner_of_event(&memory, 0x1000 + slot * 16), turn % 2 == 0);
            }
            eq.doorbell(&memory, (1 << 31) | u64::from(eq.pi)).unwrap();
        }
        let mut cq = CompletionQueue::new(Buffer::plain(0x2000), 2, 1);
        for turn in 0..4 {
            for slot in 0..2u64 {
                cq.post(&memory, &completion(), false).unwrap();
                let mut byte = [0];
                memory.read(0x2000 + slot * 32, &mut byte).unwrap();
                assert_eq!(byte[0] >> 7 == 1, turn % 2 == 0);
            }
        }
    }

    #[test]
    fn a_full_event_queue_keeps_what_does_not_fit() {
        let memory = memory();
        let mut eq = EventQueue::new(0x1000, 2, 1);
        for number in 0..5u8 {
            let mut entry = [0; 16];
            entry[0] = number;
            eq.post(&memory, entry).unwrap();
        }
        assert_eq!(
            memory.read_u64(0x1010).unwrap() & 0xff,
            1,
            "the second is still there"
        );
        assert_eq!(eq.doorbell(&memory, 1 << 31 | 2), Ok(true));
        assert_eq!(memory.read_u64(0x1000).unwrap() & 0xff, 2);
        assert_eq!(memory.read_u64(0x1010).unwrap() & 0xff, 3);
        eq.doorbell(&memory, 1 << 31 | 4).unwrap();
        assert_eq!(memory.read_u64(0x1000).unwrap() & 0xff, 4);
        assert_eq!(eq.dropped, 0);
    }

    #[test]
    fn the_index_of_an_event_doorbell_has_16_bits() {
        let memory = memory();
        let mut eq = EventQueue::new(0x1000, 4, 1);
        eq.pi = 0x1_fffe;
        eq.ci = 0xfffe;
        for _ in 0..4 {
            eq.post(&memory, [0; 16]).unwrap();
        }
        assert_eq!(
            eq.doorbell(&memory, 1 << 31 | 2),
            Ok(false),
            "0x20002 and 2 are the same place"
        );
    }

    #[test]
    fn a_completion_queue_tells_only_when_it_is_armed() {
        let memory = memory();
        let mut cq = CompletionQueue::new(Buffer::plain(0x2000), 8, 1);
        assert_eq!(cq.post(&memory, &completion(), true), Ok(false));
        assert!(cq.doorbell(1 << 31), "armed with a completion unseen");
        assert!(!cq.doorbell(1 << 31 | 1));
        assert_eq!(cq.post(&memory, &completion(), false), Ok(true));
        assert_eq!(cq.post(&memory, &completion(), false), Ok(false));
    }

    #[test]
    fn a_solicited_arming_waits_for_a_solicited_completion_or_an_error() {
        let memory = memory();
        let solicited = 1 << 31 | 1 << 30;
        let mut cq = CompletionQueue::new(Buffer::plain(0x2000), 8, 1);
        assert!(!cq.doorbell(solicited));
        assert_eq!(cq.post(&memory, &completion(), false), Ok(false));
        assert_eq!(cq.post(&memory, &completion(), true), Ok(true));
        assert!(cq.doorbell(solicited), "the solicited one is unseen");
        assert!(!cq.doorbell(solicited | 2), "it has been seen");
        cq.post(&memory, &completion(), false).unwrap();
        assert!(
            !cq.doorbell(solicited | 2),
            "an unseen one that is not solicited"
        );
        let failed = Completion::new(Queue::Send, Op::Write, Syndrome::Flushed, 0, 1);
        assert_eq!(cq.post(&memory, &failed, false), Ok(true));
    }

    #[test]
    fn queues_may_lie_in_scattered_pages() {
        let memory = memory();
        // Pages at 0x5000 and 0x3000; the queue begins 0xfe0 into the first.
        for (at, page) in [(0x100, 0x5000u64), (0x108, 0x3000)] {
            memory.write(at, &page.to_le_bytes()).unwrap();
        }
        memory.write(0x5fe0, &[1; 32]).unwrap();
        memory.write(0x3000, &[2; 32]).unwrap();
        for buffer in [
            Buffer::table(12, 0xfe0, 0x100, 2),
            Buffer::inline(12, 0xfe0, [0x5000, 0x3000, 0, 0], 2),
        ] {
            let mut both = [0; 64];
            buffer.read(&memory, 0, &mut both).unwrap();
            assert_eq!(both[..32], [1; 32]);
            assert_eq!(both[32..], [2; 32]);
            assert!(
                buffer.read(&memory, 0x1010, &mut both).is_err(),
                "beyond the last page"
            );
            assert!(buffer.read(&memory, u64::MAX, &mut both[..1]).is_err());
        }
    }

    #[test]
    fn a_ring_that_is_not_in_memory_is_an_error() {
        let memory = memory();
        let mut eq = EventQueue::new(0xffff_0000, 4, 1);
        assert!(eq.post(&memory, [0; 16]).is_err());
        let mut cq = CompletionQueue::new(Buffer::plain(0xfff0), 4, 1);
        assert!(cq.post(&memory, &completion(), false).is_err());
    }
}
