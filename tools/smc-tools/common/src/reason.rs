// SPDX-License-Identifier: GPL-2.0

//! Why connections fall back to TCP, in words.

/// What a code means; the codes are those of a Decline (`clc/decline.rs`). `None` if it is not known.
pub fn text(code: u32) -> Option<&'static str> {
    Some(match code {
        0x0101_0000 => "insufficient memory",
        0x0201_0000 => "timeout of confirm link",
        0x0202_0000 => "timeout of add link",
        0x0300_0000 => "configuration error",
        0x0301_0000 => "peer did not indicate SMC",
        0x0301_0001 => "peer indicated SMC but does not speak it",
        0x0301_0002 => "peer is known not to speak SMC",
        0x0302_0000 => "IPsec is in use",
        0x0303_0000 => "no SMC device found",
        0x0303_0001 => "no SMC-D device found",
        0x0303_0002 => "no SMC-R device found",
        0x0303_0003 => "no ISMv2 support",
        0x0303_0004 => "proposal without version 2 extension",
        0x0303_0005 => "proposal without SMC-Dv2 extension",
        0x0303_0006 => "no common SEID",
        0x0303_0007 => "no SMC-Dv2 device found",
        0x0303_0008 => "no common UEID",
        0x0303_0009 => "release negotiation failed",
        0x0303_000a => "negotiation of maximum connections failed",
        0x0303_000b => "negotiation of maximum links failed",
        0x0304_0000 => "mode not supported",
        0x0305_0000 => "peer requires RMBE eye catchers",
        0x0306_0000 => "socket option not supported by SMC",
        0x0307_0000 => "different subnet or prefix",
        0x0308_0000 => "VLAN lookup failed",
        0x0309_0000 => "VLAN registration with ISM failed",
        0x030a_0000 => "no active link in link group",
        0x030b_0000 => "link of the server not found",
        0x030c_0000 => "version mismatch",
        0x030d_0000 => "DMB limit reached",
        0x030e_0000 => "no route to peer",
        0x030f_0000 => "no indirect route to peer",
        0x0400_0000 => "link group out of sync",
        0x0500_0000 => "peer declined",
        0x0999_0000 => "internal error",
        0x0999_0001 => "remote token handling failed",
        0x0999_0002 => "link could not be made ready",
        0x0999_0003 => "buffer registration failed",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The module's own list is the measure: each line `... 0x03010000 ... text` of the table in
    /// Documentation/uapi.rst.
    #[test]
    fn texts_are_those_of_the_documentation() {
        let page = include_str!("../../../../Documentation/uapi.rst");
        let mut seen = 0;
        for line in page.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, code, rest @ ..] = words.as_slice() else {
                continue;
            };
            let Some(code) = code
                .strip_prefix("0x")
                .filter(|code| code.len() == 8)
                .and_then(|code| u32::from_str_radix(code, 16).ok())
            else {
                continue;
            };
            if name.chars().any(|c| c.is_ascii_lowercase()) {
                continue;
            }
            let rest = rest.strip_prefix(&["x"]).unwrap_or(rest);
            assert_eq!(text(code), Some(rest.join(" ").as_str()), "{name}");
            seen += 1;
        }
        assert_eq!(seen, 38);
        assert_eq!(text(0), None);
    }
}
