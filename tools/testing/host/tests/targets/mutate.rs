// SPDX-License-Identifier: GPL-2.0

//! Random changes of inputs that keep much of their structure, so that inner checks are reached, too.

/// SplitMix64: small, seeded, and good enough to choose mutations.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, 0 if there is none.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        // Values at the edges are more interesting than others.
        const EDGES: [u8; 12] = [0, 1, 2, 3, 5, 6, 8, 9, 16, 127, 128, 255];
        match self.below(2) {
            0 => EDGES[self.below(EDGES.len())],
            _ => self.next() as u8,
        }
    }

    /// One of `inputs`, changed in one to four places.
    pub fn mutation(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = inputs[self.below(inputs.len())].clone();
        for _ in 0..=self.below(4) {
            self.mutate(&mut bytes, inputs);
        }
        if bytes.starts_with(&EYECATCHER) && self.below(4) != 0 {
            repair(&mut bytes);
        }
        bytes
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
        let at = self.below(bytes.len());
        match self.below(8) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 | 2 if !bytes.is_empty() => bytes[at] = self.byte(),
            3 => bytes.truncate(at),
            4 => {
                let count = self.below(20);
                for _ in 0..count {
                    bytes.insert(at, self.byte());
                }
            }
            5 if !bytes.is_empty() => {
                let end = at + self.below(bytes.len() - at);
                bytes.drain(at..end);
            }
            6 if !others.is_empty() => {
                // The tail of another input.
                let other = &others[self.below(others.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[at.min(other.len())..]);
            }
            _ => {
                // A multi-byte field.
                for byte in bytes.iter_mut().skip(at).take(4) {
                    *byte = self.byte();
                }
            }
        }
    }
}

const EYECATCHER: [u8; 4] = [0xe2, 0xd4, 0xc3, 0xd9];

/// Makes length field and eye catchers of a CLC message right again.
fn repair(bytes: &mut [u8]) {
    let len = bytes.len();
    if len >= 12 {
        bytes[..4].copy_from_slice(&EYECATCHER);
        bytes[len - 4..].copy_from_slice(&EYECATCHER);
        bytes[5..7].copy_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
    }
}
