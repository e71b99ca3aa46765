// SPDX-License-Identifier: GPL-2.0

//! When to hold small writes back, to send them together.
//!
//! RFC 7609, section 4.5.2, allows coalescing if a timer sends the data in the end and the
//! application can opt out. Here the "timer" is the completion of a message of this very
//! connection that is still under way: it comes soon and always, and pushes what was held.

#![forbid(unsafe_code)]

/// So many messages of a connection with `TCP_NODELAY` may be under way before it is held back as others are.
/// Who asks and waits for the answer never comes so far; who only sends would need a message, and what the
/// devices say of it, for each write. TCP gathers such writes as well, while the device is busy.
const NODELAY_MESSAGES: u32 = 2;

/// What the decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct CorkView {
    /// CDC messages of this connection that are posted and not completed.
    pub in_flight: u32,
    /// Bytes written by the application and not posted.
    pub unsent: u32,
    /// Whether the application is told that it can write ([`super::sender::Sender::is_writable`]).
    pub writable: bool,
    /// Length of the send buffer.
    pub sndbuf_len: u32,
    /// The sysctl `autocorking_size`; 0 turns automatic corking off.
    pub autocorking_size: u32,
    /// `MSG_MORE` on this write, or `TCP_CORK` on the socket.
    pub corked: bool,
    /// `TCP_NODELAY` on the socket: the application has opted out of delays, but see [`NODELAY_MESSAGES`].
    pub nodelay: bool,
    /// Urgent data is waiting.
    pub urgent: bool,
}

/// Whether to hold the unsent bytes back.
pub const fn hold(view: &CorkView) -> bool {
    if view.urgent {
        return false;
    }
    // The application says that more follows. It is sent nevertheless when one that waits for room would not be told
    // of any: it could not go on.
    if view.corked {
        return view.writable;
    }
    let half = view.sndbuf_len / 2;
    let limit = if view.autocorking_size < half {
        view.autocorking_size
    } else {
        half
    };
    let messages = if view.nodelay { NODELAY_MESSAGES } else { 1 };
    view.in_flight >= messages && view.unsent <= limit && limit > 0
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_cork))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    const IDLE: CorkView = CorkView {
        in_flight: 0,
        unsent: 10,
        writable: true,
        sndbuf_len: 65536,
        autocorking_size: 65536,
        corked: false,
        nodelay: false,
        urgent: false,
    };

    #[test]
    fn only_behind_a_message_under_way() {
        // Whatever is there: callers need not ask then.
        for (unsent, writable, nodelay) in
            [(10, true, false), (65536, false, true), (0, true, true)]
        {
            let idle = CorkView {
                unsent,
                writable,
                nodelay,
                ..IDLE
            };
            assert!(!hold(&idle));
        }
        let busy = CorkView {
            in_flight: 1,
            ..IDLE
        };
        assert!(hold(&busy));
        let nodelay = CorkView {
            nodelay: true,
            ..busy
        };
        assert!(!hold(&nodelay));
        let many = CorkView {
            in_flight: NODELAY_MESSAGES,
            ..nodelay
        };
        assert!(hold(&many));
        assert!(!hold(&CorkView {
            corked: false,
            autocorking_size: 0,
            ..many
        }));
        let off = CorkView {
            autocorking_size: 0,
            ..busy
        };
        assert!(!hold(&off));
        let large = CorkView {
            unsent: 32769,
            ..busy
        };
        assert!(!hold(&large));
    }

    #[test]
    fn corked_while_writable() {
        let corked = CorkView {
            corked: true,
            nodelay: true,
            ..IDLE
        };
        assert!(hold(&corked));
        assert!(!hold(&CorkView {
            writable: false,
            ..corked
        }));
        let urgent = CorkView {
            urgent: true,
            ..corked
        };
        assert!(!hold(&urgent));
    }
}
