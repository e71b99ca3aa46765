// SPDX-License-Identifier: GPL-2.0

//! The TCP option that says "I speak SMC-R" in a SYN or SYN-ACK (RFC 7609, section A.1).
//!
//! All functions work on the option bytes of a TCP header: what follows its first 20 bytes, up to
//! the data offset. The bytes are the peer's, or those of other parts of the stack; nothing is
//! assumed about them. They never exceed [`MAX_OPTIONS_LEN`] bytes, and where a longer slice is
//! passed nothing worse happens than a wrong answer.

#![forbid(unsafe_code)]

/// Experimental option with a 16 or 32 bit identifier (RFC 7609, section A.1; RFC 6994).
const KIND: u8 = 254;

/// Kind, length and identifier (RFC 7609, section A.1).
const OPTION_LEN: u8 = 6;

/// The identifier: `SMCR` in EBCDIC (RFC 7609, section A.1).
const MAGIC: [u8; 4] = [0xe2, 0xd4, 0xc3, 0xd9];

/// End of the option list (RFC 9293, section 3.1).
const KIND_END: u8 = 0;
/// Padding between options (RFC 9293, section 3.1).
const KIND_NOP: u8 = 1;
/// Timestamps (RFC 7323, section 3.2).
const KIND_TIMESTAMPS: u8 = 8;
/// MD5 signature (RFC 2385, section 3.0).
const KIND_MD5: u8 = 19;
/// Authentication option (RFC 5925, section 2.2).
const KIND_AO: u8 = 29;

/// Bytes of options that a TCP header can hold.
pub const MAX_OPTIONS_LEN: usize = 40;

/// What is put into a SYN: two NOPs, so that the length of the header stays a multiple of four, and
/// the option.
pub const PADDED_OPTION: [u8; 8] = [KIND_NOP, KIND_NOP, KIND, OPTION_LEN, 0xe2, 0xd4, 0xc3, 0xd9];

/// One option with a length field, and where it is.
#[derive(Clone, Copy)]
struct Entry<'a> {
    kind: u8,
    /// Offset of the kind byte.
    at: usize,
    /// What follows kind and length.
    value: &'a [u8],
}

/// Walks over the options with a value. Ends at the end of the list or at the first malformed
/// option; NOPs are stepped over.
#[derive(Clone)]
struct Entries<'a> {
    options: &'a [u8],
    at: usize,
    well_formed: bool,
}

impl<'a> Entries<'a> {
    const fn new(options: &'a [u8]) -> Self {
        Self {
            options,
            at: 0,
            well_formed: true,
        }
    }

    /// Walks to the end; returns where the list ends, `None` if it is malformed.
    fn end(mut self) -> Option<usize> {
        while self.next().is_some() {}
        self.well_formed.then_some(self.at)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.options.get(self.at..)?;
            match rest {
                [] | [KIND_END, ..] => return None,
                [KIND_NOP, ..] => self.at = self.at.saturating_add(1),
                [kind, len, ..] => {
                    // RFC 9293, section 3.1: the length counts kind and length, too.
                    let Some(value) = rest.get(2..usize::from(*len)) else {
                        self.well_formed = false;
                        return None;
                    };
                    let at = self.at;
                    self.at = at.saturating_add(usize::from(*len));
                    return Some(Entry {
                        kind: *kind,
                        at,
                        value,
                    });
                }
                [_] => {
                    self.well_formed = false;
                    return None;
                }
            }
        }
    }
}

/// Where the identifier is in the first option of ours that carries `id`.
fn find(options: &[u8], id: [u8; 4]) -> Option<usize> {
    // RFC 7609, section A.1: 6 bytes. Linux accepts any even length from 6 on, and so do we: a
    // later version could have more to say behind the identifier.
    Entries::new(options)
        .find(|entry| {
            entry.kind == KIND && entry.value.starts_with(&id) && entry.value.len() % 2 == 0
        })
        .and_then(|entry| entry.at.checked_add(2))
}

/// Whether the options say that their sender speaks SMC-R.
pub fn contains_smc(options: &[u8]) -> bool {
    find(options, MAGIC).is_some()
}

/// Whether the header can take the padded option; `data_offset` is its length in units of four
/// bytes, as in the header itself.
pub const fn has_room(data_offset: u8) -> bool {
    // RFC 9293, section 3.1: 5 to 15 units; the padded option takes 2.
    data_offset >= 5 && data_offset <= 13
}

/// Whether the segment is signed over its options (MD5 or TCP-AO), so that it must not be changed.
pub fn carries_signature(options: &[u8]) -> bool {
    Entries::new(options).any(|entry| entry.kind == KIND_MD5 || entry.kind == KIND_AO)
}

/// How the option is added to a header.
///
/// The option area grows by 8 bytes at its end; if the list ended before the area did, what follows
/// it becomes padding between options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsertionPlan {
    /// From this offset on to the old end of the area, NOPs are written.
    nops_from: usize,
    /// Length of the area before, in bytes.
    old_len: usize,
}

impl InsertionPlan {
    /// Bytes by which the option area grows.
    pub const GROWTH: usize = PADDED_OPTION.len();

    /// Plans for a header with these options; `None` if it must be left alone: no room, signed,
    /// malformed, not a multiple of four bytes, or the option is there already.
    pub fn new(options: &[u8]) -> Option<Self> {
        let nops_from = Entries::new(options).end()?;
        let units = u8::try_from(options.len() / 4).ok()?.checked_add(5)?;
        let fits = options.len() % 4 == 0 && has_room(units);
        if !fits || carries_signature(options) || contains_smc(options) {
            return None;
        }
        Some(Self {
            nops_from,
            old_len: options.len(),
        })
    }

    /// Writes into the grown option area, whose first part still is the old one.
    ///
    /// Returns whether the area has the right length; nothing is written if not.
    #[must_use]
    pub fn apply(&self, grown: &mut [u8]) -> bool {
        let Some((old, new)) = grown.split_at_mut_checked(self.old_len) else {
            return false;
        };
        if new.len() != PADDED_OPTION.len() {
            return false;
        }
        for byte in old.iter_mut().skip(self.nops_from) {
            *byte = KIND_NOP;
        }
        new.copy_from_slice(&PADDED_OPTION);
        true
    }
}

/// A mark that is put into the saved copy of a client's SYN to say that our SYN-ACK really carried
/// the option.
///
/// The mark takes the place of the identifier, so there is room for it exactly where it is needed.
/// It is a secret of this host: a client that knew it could mark its SYN itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynMark([u8; 4]);

impl SynMark {
    /// Makes a mark of a random number, drawn once when the module is loaded.
    pub const fn from_random(random: u32) -> Self {
        // The mark must differ from the identifier; the change keeps it secret.
        if random == u32::from_be_bytes(MAGIC) {
            Self((!random).to_be_bytes())
        } else {
            Self(random.to_be_bytes())
        }
    }

    /// Marks the saved options of a SYN; returns whether they carried the option (and no mark yet).
    pub fn mark(self, saved_options: &mut [u8]) -> bool {
        replace(saved_options, MAGIC, self.0)
    }

    /// Whether the options are marked.
    pub fn is_marked(self, saved_options: &[u8]) -> bool {
        find(saved_options, self.0).is_some()
    }

    /// Takes the mark away, so that a user who asks for the SYN sees it as it came; returns whether
    /// there was one.
    pub fn restore(self, saved_options: &mut [u8]) -> bool {
        replace(saved_options, self.0, MAGIC)
    }
}

fn replace(options: &mut [u8], from: [u8; 4], to: [u8; 4]) -> bool {
    let Some(at) = find(options, from) else {
        return false;
    };
    match options.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        Some(id) => {
            *id = to;
            true
        }
        None => false,
    }
}

/// Whether the options of a SYN-ACK are an echo of our SYN and so say nothing about the server.
///
/// Some servers and middleboxes send options back that they do not know. A server that answers for
/// itself has its own clock and repeats ours behind it (RFC 7323, section 3.2), so a SYN-ACK with
/// our own time as the sender's and none or an unchanged one repeated is an echo. Without
/// timestamps the options of two equal hosts are equal, too, and nothing can be told: then this is
/// `false`.
pub fn is_echo(syn_options: &[u8], syn_ack_options: &[u8]) -> bool {
    let timestamps = |options| {
        Entries::new(options)
            .find(|entry| entry.kind == KIND_TIMESTAMPS && entry.value.len() == 8)
            .map(|entry| entry.value)
    };
    match (timestamps(syn_options), timestamps(syn_ack_options)) {
        // Both the sender's time and the repeated one, which is zero in a SYN.
        (Some(ours), Some(theirs)) => ours == theirs,
        _ => false,
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_tcp_option))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    /// MSS, SACK permitted, timestamps (`tsval`, `tsecr`), NOP, window scale: 20 bytes.
    fn linux_options(tsval: u8, tsecr: u8) -> [u8; 20] {
        [
            2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, tsval, 0, 0, 0, tsecr, 1, 3, 3, 7,
        ]
    }

    const SMC: [u8; 6] = [254, 6, 0xe2, 0xd4, 0xc3, 0xd9];

    #[test]
    fn finds_the_option() {
        assert!(contains_smc(&SMC));
        assert!(contains_smc(&PADDED_OPTION));
        assert!(contains_smc(&[254, 8, 0xe2, 0xd4, 0xc3, 0xd9, 0, 0]));
        assert!(contains_smc(&[
            2, 4, 0, 0, 254, 6, 0xe2, 0xd4, 0xc3, 0xd9, 0, 0
        ]));
    }

    #[test]
    fn refuses_what_is_not_the_option() {
        for options in [
            &[][..],
            // Odd length, short length, other identifier, other kind.
            &[254, 7, 0xe2, 0xd4, 0xc3, 0xd9, 0],
            &[254, 4, 0xe2, 0xd4],
            &[254, 6, 0xe2, 0xd4, 0xc3, 0xd8],
            &[253, 6, 0xe2, 0xd4, 0xc3, 0xd9],
            // Behind the end of the list.
            &[0, 254, 6, 0xe2, 0xd4, 0xc3, 0xd9],
            // Behind malformed options: length 0, 1, too long; cut off.
            &[2, 0, 254, 6, 0xe2, 0xd4, 0xc3, 0xd9],
            &[2, 1, 254, 6, 0xe2, 0xd4, 0xc3, 0xd9],
            &[2, 40, 254, 6, 0xe2, 0xd4, 0xc3, 0xd9],
            &[254, 6, 0xe2, 0xd4, 0xc3],
            &[254],
            // Within the value of another option.
            &[2, 8, 254, 6, 0xe2, 0xd4, 0xc3, 0xd9],
        ] {
            assert!(!contains_smc(options), "{options:?}");
        }
    }

    fn inserted(options: &[u8]) -> Option<([u8; 48], usize)> {
        let plan = InsertionPlan::new(options)?;
        let len = options.len() + InsertionPlan::GROWTH;
        let mut area = [0xee; 48];
        area[..options.len()].copy_from_slice(options);
        plan.apply(&mut area[..len]).then_some((area, len))
    }

    #[test]
    fn inserts_at_the_end() {
        for options in [&[][..], &linux_options(1, 0), &[2, 4, 5, 0xb4]] {
            let (area, len) = inserted(options).unwrap();
            assert_eq!(area[..options.len()], *options);
            assert_eq!(area[options.len()..len], PADDED_OPTION);
            assert!(contains_smc(&area[..len]));
            assert!(InsertionPlan::new(&area[..len]).is_none());
        }
    }

    #[test]
    fn inserts_behind_an_ended_list() {
        // What follows the end is not part of the list, even if it looks like an option.
        let (area, len) = inserted(&[2, 4, 5, 0xb4, 3, 3, 7, 0]).unwrap();
        assert_eq!(area[..8], [2, 4, 5, 0xb4, 3, 3, 7, 1]);
        assert!(contains_smc(&area[..len]));
        let (area, len) = inserted(&[0, 254, 6, 0xe2, 0xd4, 0xc3, 0xd9, 0]).unwrap();
        assert_eq!(area[..8], [1; 8]);
        assert!(contains_smc(&area[..len]));
    }

    #[test]
    fn leaves_alone() {
        assert!(inserted(&[1; 32]).is_some());
        assert!(inserted(&[1; 36]).is_none(), "no room");
        assert!(inserted(&[1; 3]).is_none(), "length");
        assert!(inserted(&[2, 9, 0, 0]).is_none(), "malformed");
        assert!(inserted(&[1; 2000]).is_none(), "absurd");
        let mut signed = [1; 20];
        for kind in [KIND_MD5, KIND_AO] {
            (signed[0], signed[1]) = (kind, 18);
            assert!(inserted(&signed).is_none(), "signed");
        }
        let plan = InsertionPlan::new(&[1; 4]).unwrap();
        assert!(!plan.apply(&mut [0; 11]) && !plan.apply(&mut [0; 13]) && !plan.apply(&mut []));
    }

    #[test]
    fn room() {
        for (data_offset, room) in [(0, false), (4, false), (5, true), (13, true), (14, false)] {
            assert_eq!(has_room(data_offset), room);
        }
    }

    #[test]
    fn marks_and_restores() {
        let magic = u32::from_be_bytes(MAGIC);
        for random in [0, 1, 0x1234_5678, magic, !magic, u32::MAX] {
            let mark = SynMark::from_random(random);
            let mut saved = [0; 28];
            saved[..20].copy_from_slice(&linux_options(1, 0));
            assert!(!mark.mark(&mut saved));
            saved[20..].copy_from_slice(&PADDED_OPTION);
            let original = saved;

            assert!(!mark.is_marked(&saved));
            assert!(!mark.restore(&mut saved));
            assert!(mark.mark(&mut saved));
            assert!(mark.is_marked(&saved) && !contains_smc(&saved));
            assert!(!mark.mark(&mut saved));
            assert!(mark.restore(&mut saved));
            assert_eq!(saved, original);
        }
    }

    #[test]
    fn echoes() {
        let syn = linux_options(5, 0);
        assert!(is_echo(&syn, &syn));
        assert!(!is_echo(&syn, &linux_options(9, 5)));
        // The clocks of two hosts may agree.
        assert!(!is_echo(&syn, &linux_options(5, 5)));
        // Nothing can be told without timestamps.
        assert!(!is_echo(&syn[..4], &syn[..4]));
        assert!(!is_echo(&[], &[]));
    }
}
