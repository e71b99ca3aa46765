// SPDX-License-Identifier: GPL-2.0

//! Netlink attributes (`linux/netlink.h`), written into memory that the caller has: in the byte order
//! of the machine, each at a multiple of four bytes.

#![forbid(unsafe_code)]

/// `struct nlattr`.
const HEADER: usize = 4;
/// `NLA_F_NESTED`: the attribute consists of attributes.
const NESTED: u16 = 0x8000;

/// Attributes that are being written. What does not fit makes all of it void ([`Self::finish`]).
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    len: usize,
    void: bool,
}

impl<'a> Writer<'a> {
    /// Writes into `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self {
            buffer,
            len: 0,
            void: false,
        }
    }

    /// What was written; `None` if it did not fit.
    pub fn finish(self) -> Option<&'a [u8]> {
        if self.void {
            return None;
        }
        self.buffer.get(..self.len)
    }

    /// Adds bytes that are no attribute: a header in front of them.
    pub fn header(&mut self, bytes: &[u8]) {
        self.push(bytes);
        self.align();
    }

    /// Adds an attribute.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.text_like(kind, value, &[]);
    }

    /// Adds a byte.
    pub fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    /// Adds a number of two bytes.
    pub fn u16(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// Adds a number of four bytes.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// Adds a number of eight bytes, which need not be aligned.
    pub fn u64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// Adds a number of four bytes, or of eight if it needs them (`NLA_UINT`).
    pub fn uint(&mut self, kind: u16, value: u64) {
        match u32::try_from(value) {
            Ok(value) => self.u32(kind, value),
            Err(_) => self.u64(kind, value),
        }
    }

    /// Adds a text up to its first zero, if there is one, and a terminating zero.
    pub fn text(&mut self, kind: u16, value: &[u8]) {
        let end = value.iter().position(|&byte| byte == 0);
        let value = value.get(..end.unwrap_or(value.len())).unwrap_or(value);
        self.text_like(kind, value, &[0]);
    }

    /// Adds an attribute that consists of what `fill` adds.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.len;
        self.push(&[0; HEADER]);
        fill(self);
        let end = self.len;
        self.set_header(start, kind | NESTED, end.saturating_sub(start));
    }

    fn text_like(&mut self, kind: u16, value: &[u8], tail: &[u8]) {
        let start = self.len;
        self.push(&[0; HEADER]);
        self.push(value);
        self.push(tail);
        let end = self.len;
        self.set_header(start, kind, end.saturating_sub(start));
        self.align();
    }

    fn set_header(&mut self, at: usize, kind: u16, len: usize) {
        let Ok(len) = u16::try_from(len) else {
            self.void = true;
            return;
        };
        let [l0, l1] = len.to_ne_bytes();
        let [k0, k1] = kind.to_ne_bytes();
        let place = self.buffer.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
        match place {
            Some(place) => *place = [l0, l1, k0, k1],
            None => self.void = true,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        match self.buffer.get_mut(self.len..end) {
            Some(place) => {
                for (to, from) in place.iter_mut().zip(bytes) {
                    *to = *from;
                }
                self.len = end;
            }
            None => self.void = true,
        }
    }

    fn align(&mut self) {
        let padding = self.len.wrapping_neg() & 3;
        self.push([0; 3].get(..padding).unwrap_or(&[]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(room: usize, fill: impl FnOnce(&mut Writer<'_>)) -> Option<std::vec::Vec<u8>> {
        let mut buffer = [0xee; 64];
        let mut writer = Writer::new(&mut buffer[..room]);
        fill(&mut writer);
        writer.finish().map(<[u8]>::to_vec)
    }

    #[test]
    fn numbers_and_texts_are_padded_to_four_bytes() {
        let bytes = written(64, |w| {
            w.u8(1, 7);
            w.u16(2, 0x1234);
            w.text(3, b"ab\0cd");
            w.uint(4, 5);
            w.uint(5, 1 << 32);
        });
        let mut expected = std::vec![5, 0, 1, 0, 7, 0, 0, 0, 6, 0, 2, 0, 0x34, 0x12, 0, 0];
        expected.extend([7, 0, 3, 0, b'a', b'b', 0, 0, 8, 0, 4, 0, 5, 0, 0, 0]);
        expected.extend([12, 0, 5, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(bytes, Some(expected));
    }

    #[test]
    fn a_nest_has_the_length_of_all_that_is_in_it() {
        let bytes = written(64, |w| {
            w.nest(2, |w| {
                w.u8(1, 1);
                w.nest(3, |w| w.u32(4, 9));
                w.nest(5, |_| {});
            });
            w.u8(6, 6);
        });
        let expected = [
            28, 0, 2, 0x80, 5, 0, 1, 0, 1, 0, 0, 0, 12, 0, 3, 0x80, 8, 0, 4, 0, 9, 0, 0, 0, 4, 0,
            5, 0x80, 5, 0, 6, 0, 6, 0, 0, 0,
        ];
        assert_eq!(bytes.as_deref(), Some(&expected[..]));
    }

    #[test]
    fn what_does_not_fit_makes_all_of_it_void() {
        let two = |w: &mut Writer<'_>| {
            w.u32(1, 1);
            w.nest(2, |w| w.u8(3, 3));
        };
        assert!(written(20, two).is_some());
        for room in 0..20 {
            assert_eq!(written(room, two), None, "{room}");
        }
    }
}
