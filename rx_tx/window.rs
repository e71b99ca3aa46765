// SPDX-License-Identifier: GPL-2.0

//! When a consumer cursor update is worth a message of its own.
//!
//! Every CDC message carries the consumer cursor (RFC 7609, section 4.5.1, second bullet), so a
//! message of its own is only for a peer that would otherwise run dry. The rule has two halves.
//!
//! *The peer has window left.* As in RFC 7609, section 4.5.1: tell it when the window as the peer
//! sees it is below half of the ring, and the update would open it by a tenth at least. That is
//! at most two messages per ring of data for a reader that keeps up.
//!
//! *The peer is blocked* (B bit). The RFC asks for a message at every consumption, which for a
//! reader of small pieces is one message per `recv()`, each answered by an equally small write.
//! C Linux withholds anything up to a tenth of the ring, and so lets the peer wait although the
//! reader has emptied the ring (the "window cliff" at messages of nine tenths of the ring). Here
//! the peer is told when
//!
//! - a tenth of the ring has been consumed, or [`BLOCKED_STEP_MAX`] if that is less, or
//! - the ring is empty, or
//! - the reader wants more than there is and goes to sleep (`MSG_WAITALL`, `SO_RCVLOWAT`).
//!
//! So small pieces are gathered as long as the reader has something to read, and a peer is never
//! left blocked by a reader that has run out of data: whoever reads what is readable makes the
//! writer go on. This holds for a peer that says B only when its window is used up, as
//! [`super::sender`] and Linux do, and for one that says it when the window is too small for
//! what it wants to write.

#![forbid(unsafe_code)]

/// The most that is kept from a blocked peer while the reader still has data, in bytes.
pub const BLOCKED_STEP_MAX: u32 = 64 * 1024;

/// What the rule looks at.
#[derive(Clone, Copy, Debug)]
pub struct WindowView {
    /// Length of the ring.
    pub len: u32,
    /// Bytes that have arrived and are not consumed.
    pub unread: u32,
    /// Bytes that are consumed and the peer does not know it.
    pub untold: u32,
    /// The peer has said that it is blocked.
    pub peer_blocked: bool,
    /// The reader sleeps until more than `unread` bytes are there.
    pub reader_starved: bool,
}

impl WindowView {
    /// Whether a peer that is not blocked need not know of so much, of a ring of that length.
    pub const fn is_little(len: u32, untold: u32) -> bool {
        untold < len / 10
    }

    /// Whether to send a consumer cursor update now.
    pub const fn update_worthwhile(&self) -> bool {
        if self.untold == 0 {
            return false;
        }
        let tenth = self.len / 10;
        if self.peer_blocked {
            let step = if tenth < BLOCKED_STEP_MAX {
                tenth
            } else {
                BLOCKED_STEP_MAX
            };
            return self.untold >= step || self.unread == 0 || self.reader_starved;
        }
        // The window as the peer sees it.
        let window = self
            .len
            .saturating_sub(self.unread)
            .saturating_sub(self.untold);
        window < self.len / 2 && !Self::is_little(self.len, self.untold)
    }
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_window))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    const OPEN: WindowView = WindowView {
        len: 65536,
        unread: 0,
        untold: 0,
        peer_blocked: false,
        reader_starved: false,
    };

    #[test]
    fn the_examples_of_section_4_5_1() {
        let window = |peer_sees: u32, we_see: u32| WindowView {
            unread: 65536 - we_see,
            untold: we_see - peer_sees,
            ..OPEN
        };
        assert!(!window(50 << 10, 60 << 10).update_worthwhile());
        assert!(!window(30 << 10, 31 << 10).update_worthwhile());
        assert!(window(30 << 10, 64 << 10).update_worthwhile());
    }

    #[test]
    fn a_blocked_peer_is_told_in_steps_and_when_nothing_is_left() {
        let blocked = |unread, untold, reader_starved| {
            WindowView {
                unread,
                untold,
                peer_blocked: true,
                reader_starved,
                ..OPEN
            }
            .update_worthwhile()
        };
        assert!(!blocked(65535, 1, false));
        assert!(blocked(65535, 1, true));
        assert!(blocked(0, 1, false));
        assert!(blocked(65536 - 6553, 6553, false));
        assert!(!blocked(65536, 0, true));
    }
}
