// SPDX-License-Identifier: GPL-2.0

//! Fields of what the kernel sends, in the byte order of the machine. Nothing is there until it was
//! found to be.

use crate::Error;

/// `N` bytes from `at` on.
pub(crate) fn bytes<const N: usize>(from: &[u8], at: usize) -> Result<[u8; N], Error> {
    at.checked_add(N)
        .and_then(|end| from.get(at..end)?.try_into().ok())
        .ok_or_else(|| {
            Error::Malformed(format!(
                "{} bytes, where {N} more are needed behind {at}",
                from.len()
            ))
        })
}

/// One byte.
pub(crate) fn u8_at(from: &[u8], at: usize) -> Result<u8, Error> {
    bytes::<1>(from, at).map(|[byte]| byte)
}

/// Two bytes.
pub(crate) fn u16_at(from: &[u8], at: usize) -> Result<u16, Error> {
    bytes(from, at).map(u16::from_ne_bytes)
}

/// Four bytes.
pub(crate) fn u32_at(from: &[u8], at: usize) -> Result<u32, Error> {
    bytes(from, at).map(u32::from_ne_bytes)
}

/// Four bytes, with a sign.
pub(crate) fn i32_at(from: &[u8], at: usize) -> Result<i32, Error> {
    bytes(from, at).map(i32::from_ne_bytes)
}

/// Eight bytes.
pub(crate) fn u64_at(from: &[u8], at: usize) -> Result<u64, Error> {
    bytes(from, at).map(u64::from_ne_bytes)
}

/// A text of at most `N` bytes, up to its zero. What is not printable becomes `?`: it may go to a
/// terminal.
pub(crate) fn text<const N: usize>(from: &[u8], at: usize) -> Result<String, Error> {
    bytes::<N>(from, at).map(|field| printable(&field))
}

/// The text up to its zero or end, without blanks at the end.
pub(crate) fn printable(field: &[u8]) -> String {
    let text = field.iter().take_while(|&&byte| byte != 0);
    let text = text.map(|&byte| match byte {
        b' '..=b'~' => char::from(byte),
        _ => '?',
    });
    let mut text: String = text.collect();
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_behind_the_end_is_an_error() {
        let field = [1, 2, 3, 4];
        assert_eq!(u8_at(&field, 3).unwrap(), 4);
        assert_eq!(u16_at(&field, 2).unwrap(), u16::from_ne_bytes([3, 4]));
        assert!(u8_at(&field, 4).is_err());
        assert!(u16_at(&field, 3).is_err());
        assert!(u32_at(&field, 1).is_err());
        assert!(u64_at(&field, 0).is_err());
        assert!(u32_at(&field, usize::MAX).is_err());
    }

    #[test]
    fn a_text_ends_at_its_zero_or_its_field_and_is_printable() {
        assert_eq!(text::<4>(b"ab\0c", 0).unwrap(), "ab");
        assert_eq!(text::<4>(b"abcd", 0).unwrap(), "abcd");
        assert_eq!(text::<4>(b"a\x1b[m", 0).unwrap(), "a?[m");
        assert!(text::<4>(b"abc", 0).is_err());
    }
}
