// SPDX-License-Identifier: GPL-2.0

//! Why connections fall back to TCP, in words.

/// Codes, their short names and what they mean; those of a Decline (`clc/decline.rs`).
const REASONS: &[(u32, &str, &str)] = &[
    (0x0101_0000, "MEM", "insufficient memory"),
    (0x0201_0000, "TIMEOUT_CL", "timeout of confirm link"),
    (0x0202_0000, "TIMEOUT_AL", "timeout of add link"),
    (0x0300_0000, "CNFERR", "configuration error"),
    (0x0301_0000, "PEERNOSMC", "peer did not indicate SMC"),
    (
        0x0301_0001,
        "NOCLC",
        "peer indicated SMC but does not speak it",
    ),
    (0x0301_0002, "NOCLCKNOWN", "peer is known not to speak SMC"),
    (
        0x0301_0003,
        "NOTWORTH",
        "connections like this one are too short for SMC",
    ),
    (0x0302_0000, "IPSEC", "IPsec is in use"),
    (0x0303_0000, "NOSMCDEV", "no SMC device found"),
    (0x0303_0001, "NOSMCDDEV", "no SMC-D device found"),
    (0x0303_0002, "NOSMCRDEV", "no SMC-R device found"),
    (0x0303_0003, "NOISM2SUPP", "no ISMv2 support"),
    (
        0x0303_0004,
        "NOV2EXT",
        "proposal without version 2 extension",
    ),
    (
        0x0303_0005,
        "NOV2DEXT",
        "proposal without SMC-Dv2 extension",
    ),
    (0x0303_0006, "NOSEID", "no common SEID"),
    (0x0303_0007, "NOSMCD2DEV", "no SMC-Dv2 device found"),
    (0x0303_0008, "NOUEID", "no common UEID"),
    (0x0303_0009, "RELEASEERR", "release negotiation failed"),
    (
        0x0303_000a,
        "MAXCONNERR",
        "negotiation of maximum connections failed",
    ),
    (
        0x0303_000b,
        "MAXLINKERR",
        "negotiation of maximum links failed",
    ),
    (0x0304_0000, "MODEUNSUPP", "mode not supported"),
    (0x0305_0000, "RMBE_EC", "peer requires RMBE eye catchers"),
    (
        0x0306_0000,
        "OPTUNSUPP",
        "socket option not supported by SMC",
    ),
    (0x0307_0000, "DIFFPREFIX", "different subnet or prefix"),
    (0x0308_0000, "GETVLANERR", "VLAN lookup failed"),
    (
        0x0309_0000,
        "ISMVLANERR",
        "VLAN registration with ISM failed",
    ),
    (0x030a_0000, "NOACTLINK", "no active link in link group"),
    (0x030b_0000, "NOSRVLINK", "link of the server not found"),
    (0x030c_0000, "VERSMISMAT", "version mismatch"),
    (0x030d_0000, "MAX_DMB", "DMB limit reached"),
    (0x030e_0000, "NOROUTE", "no route to peer"),
    (0x030f_0000, "NOINDIRECT", "no indirect route to peer"),
    (0x0400_0000, "SYNCERR", "link group out of sync"),
    (0x0500_0000, "PEERDECL", "peer declined"),
    (0x0999_0000, "INTERR", "internal error"),
    (0x0999_0001, "ERR_RTOK", "remote token handling failed"),
    (0x0999_0002, "ERR_RDYLNK", "link could not be made ready"),
    (0x0999_0003, "ERR_REGBUF", "buffer registration failed"),
];

fn find(code: u32) -> Option<&'static (u32, &'static str, &'static str)> {
    REASONS.iter().find(|(known, ..)| *known == code)
}

/// What a code means. `None` if it is not known.
pub fn text(code: u32) -> Option<&'static str> {
    find(code).map(|(_, _, text)| *text)
}

/// Its short name.
pub fn name(code: u32) -> Option<&'static str> {
    find(code).map(|(_, name, _)| *name)
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
            let [short, code, rest @ ..] = words.as_slice() else {
                continue;
            };
            let Some(code) = code
                .strip_prefix("0x")
                .filter(|code| code.len() == 8)
                .and_then(|code| u32::from_str_radix(code, 16).ok())
            else {
                continue;
            };
            if short.chars().any(|c| c.is_ascii_lowercase()) {
                continue;
            }
            let rest = rest.strip_prefix(&["x"]).unwrap_or(rest);
            assert_eq!(text(code), Some(rest.join(" ").as_str()), "{short}");
            assert_eq!(name(code), Some(*short));
            seen += 1;
        }
        assert_eq!(seen, 39);
        assert_eq!((text(0), name(0)), (None, None));
    }
}
