// SPDX-License-Identifier: GPL-2.0

//! What the environment says; the variables are those of IBM's smc-tools.

/// Which SMC sockets are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// `AF_SMC`.
    Smc,
    /// `IPPROTO_SMC`, with which a socket keeps its family.
    Inet,
    /// `IPPROTO_SMC` if there is one, else `AF_SMC`.
    Auto,
}

/// `SMC_SOCK_FAMILY`; anything else is as if nothing was set.
pub(crate) fn family(value: Option<&[u8]>) -> Family {
    match value {
        Some(b"inet") => Family::Inet,
        Some(b"auto") => Family::Auto,
        _ => Family::Smc,
    }
}

/// `SMC_DEBUG`: on unless it is empty or `0`.
pub(crate) fn debug(value: Option<&[u8]>) -> bool {
    !matches!(value, None | Some(b"" | b"0"))
}

/// `SMC_SNDBUF`, `SMC_RCVBUF`: bytes, or with `k` and `m` (also as capitals) multiples of 1024 and
/// 1024². `None` if it is no number above 0 that fits an `int`.
pub(crate) fn size(value: Option<&[u8]>) -> Option<i32> {
    let value = value?;
    let (digits, unit) = match value {
        [digits @ .., b'k' | b'K'] => (digits, 1 << 10),
        [digits @ .., b'm' | b'M'] => (digits, 1 << 20),
        digits => (digits, 1),
    };
    if digits.is_empty() {
        return None;
    }
    let mut number = 0i32;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number
            .checked_mul(10)?
            .checked_add(i32::from(digit.wrapping_sub(b'0')))?;
    }
    number.checked_mul(unit).filter(|&size| size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_units() {
        let size = |text: &str| super::size(Some(text.as_bytes()));
        assert_eq!(size("16384"), Some(16384));
        assert_eq!((size("8k"), size("8K")), (Some(8192), Some(8192)));
        assert_eq!((size("1m"), size("1M")), (Some(1 << 20), Some(1 << 20)));
        assert_eq!(size("2147483647"), Some(i32::MAX));
        for wrong in [
            "",
            "k",
            "0",
            "0k",
            "-1",
            "+1",
            "1g",
            "1 k",
            "1kk",
            "x",
            "2147483648",
            "2048m",
        ] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
        assert_eq!(super::size(None), None);
    }

    #[test]
    fn debug_and_family_have_defaults() {
        assert!(debug(Some(b"1")) && debug(Some(b"yes")));
        assert!(!debug(None) && !debug(Some(b"")) && !debug(Some(b"0")));
        assert_eq!(family(None), Family::Smc);
        assert_eq!(family(Some(b"smc")), Family::Smc);
        assert_eq!(family(Some(b"inet")), Family::Inet);
        assert_eq!(family(Some(b"auto")), Family::Auto);
    }
}
