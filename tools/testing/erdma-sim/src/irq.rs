//! MSI-X: one eventfd per vector, which QEMU sends. What is raised while there is none is not lost, but comes with it.

use std::fs::File;
use std::io::Write;

pub const VECTORS: usize = 32;

#[derive(Default)]
struct Vector {
    trigger: Option<File>,
    pending: bool,
    raised: u64,
}

#[derive(Default)]
pub struct Interrupts {
    vectors: [Vector; VECTORS],
    /// So many interrupts get lost (a fault).
    pub lose: u32,
    pub lost: u64,
    owed: bool,
}

impl Interrupts {
    pub fn raise(&mut self, vector: usize) {
        let Some(v) = self.vectors.get_mut(vector) else {
            return;
        };
        if self.lose > 0 {
            self.lose -= 1;
            self.lost += 1;
            self.owed = true;
            return;
        }
        v.raised += 1;
        v.pending = true;
        v.fire();
    }

    pub fn set(&mut self, vector: usize, trigger: Option<File>) {
        let Some(v) = self.vectors.get_mut(vector) else {
            return;
        };
        v.trigger = trigger;
        v.fire();
    }

    pub fn remove_all(&mut self) {
        for v in &mut self.vectors {
            v.trigger = None;
        }
    }

    /// What got lost comes after all. A driver takes an interrupt for nothing as none.
    pub fn make_good(&mut self) {
        self.lose = 0;
        if std::mem::take(&mut self.owed) {
            (0..VECTORS).for_each(|vector| self.raise(vector));
        }
    }

    /// What was raised belongs to a device that is no more.
    pub fn forget(&mut self) {
        for v in &mut self.vectors {
            v.pending = false;
        }
    }

    pub fn raised(&self) -> u64 {
        self.vectors.iter().map(|v| v.raised).sum()
    }

    /// Whether it was raised and nobody has heard of it yet.
    #[cfg(test)]
    pub fn take(&mut self, vector: usize) -> bool {
        std::mem::take(&mut self.vectors[vector].pending)
    }
}

impl Vector {
    fn fire(&mut self) {
        if let (true, Some(trigger)) = (self.pending, &mut self.trigger) {
            // An eventfd refuses only at its highest count, where the interrupt is there already.
            let _ = trigger.write(&1u64.to_ne_bytes());
            self.pending = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    /// Something to write to and to read from, in place of an eventfd.
    fn trigger() -> (File, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (File::from(OwnedFd::from(ours)), theirs)
    }

    fn count(reader: &mut UnixStream) -> usize {
        let mut bytes = [0; 64];
        reader.read(&mut bytes).map_or(0, |n| n / 8)
    }

    #[test]
    fn a_vector_without_a_trigger_is_latched() {
        let mut interrupts = Interrupts::default();
        let (file, mut reader) = trigger();
        interrupts.raise(3);
        interrupts.raise(3);
        interrupts.set(3, Some(file));
        assert_eq!(count(&mut reader), 1, "one interrupt, as an edge would be");
        interrupts.raise(3);
        assert_eq!(count(&mut reader), 1);
        interrupts.raise(99);
        interrupts.raise(4);
        interrupts.forget();
        assert!(!interrupts.take(4), "it was of a device that is no more");
    }

    #[test]
    fn lost_interrupts_are_counted() {
        let mut interrupts = Interrupts {
            lose: 1,
            ..Interrupts::default()
        };
        let (file, mut reader) = trigger();
        interrupts.set(0, Some(file));
        interrupts.raise(0);
        assert_eq!((count(&mut reader), interrupts.lost), (0, 1));
        interrupts.raise(0);
        assert_eq!(count(&mut reader), 1);
        interrupts.make_good();
        assert_eq!(count(&mut reader), 1);
        interrupts.make_good();
        assert_eq!(count(&mut reader), 0);
    }
}
