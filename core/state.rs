// SPDX-License-Identifier: GPL-2.0

//! The life of a connection, as one transition table (RFC 7609, section 4.8).
//!
//! A [`Life`] is a plain value; [`Life::handle`] takes an event and says what is to be done. What
//! the RFC calls "pending close" (section 4.8.1, 3A) is explicit: `close()` and `shutdown()`
//! return at once, the connection keeps its state while the send buffer drains in the
//! background, and [`Event::Drained`] sends the message that closes. So closing loses no data.
//!
//! # The peer reference
//!
//! As long as the peer may write into our RMBE or send us messages, the connection and its
//! buffers must live on, application or not. The owner keeps a guard for that, from the day
//! it tells the peer its alert token; [`Actions::release_peer_ref`] says when to drop it:
//! exactly once in every life. [`Actions::free`] comes when in addition the application has
//! let go and nothing is left to do.

#![forbid(unsafe_code)]

/// State of a connection, with the numbers that users see (`sk_state`, `smcss`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Established: both sides write.
    Active = 1,
    /// Not connected yet.
    Init = 2,
    /// Ended.
    Closed = 7,
    /// Waits for connections.
    Listen = 10,
    /// We are done writing or have closed, first; the peer has said nothing.
    PeerCloseWait1 = 20,
    /// As before, and the peer is done writing.
    PeerCloseWait2 = 21,
    /// The peer is done writing or has closed, first; we have said nothing.
    AppCloseWait1 = 22,
    /// As before, and we are done writing.
    AppCloseWait2 = 23,
    /// We were done writing first, and the peer has closed: our application has not.
    AppFinCloseWait = 24,
    /// The peer was done writing first, and we have closed: the peer has not.
    PeerFinCloseWait = 25,
    /// We have aborted, and wait for the peer to confirm.
    PeerAbortWait = 26,
    /// The peer has aborted, or could not take our data; our application has not closed yet.
    ProcessAbort = 27,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 12] = [
        Self::Active,
        Self::Init,
        Self::Closed,
        Self::Listen,
        Self::PeerCloseWait1,
        Self::PeerCloseWait2,
        Self::AppCloseWait1,
        Self::AppCloseWait2,
        Self::AppFinCloseWait,
        Self::PeerFinCloseWait,
        Self::PeerAbortWait,
        Self::ProcessAbort,
    ];

    /// The number that users see.
    pub const fn abi(self) -> u8 {
        self as u8
    }
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The socket begins to listen.
    Listen,
    /// The handshake is complete.
    Established,
    /// The application has closed, or shut down both directions of, the socket.
    AppClose {
        /// Received data is left unread.
        unread: bool,
    },
    /// The application has shut down writing.
    AppShutdownWrite,
    /// Everything written has reached the peer's memory (`Sender::is_drained`). Report it, after
    /// [`Actions::wait_drained`], as soon as it is so, even if it is at once.
    Drained,
    /// The peer is done writing (D flag).
    PeerDoneWriting,
    /// The peer has closed (C flag).
    PeerClosed {
        /// Data for the peer is left that it will never take.
        unsent: bool,
    },
    /// The peer has aborted (A flag).
    PeerAbort,
    /// Abort for a local reason: illegal message, `SO_LINGER` with 0, TCP reset.
    LocalAbort,
    /// The last link is gone: nothing can be sent or received any more.
    LinkGroupDown,
    /// The timer of [`Actions::arm_timer`] has expired.
    Timeout,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 13] = [
        Self::Listen,
        Self::Established,
        Self::AppClose { unread: false },
        Self::AppClose { unread: true },
        Self::AppShutdownWrite,
        Self::Drained,
        Self::PeerDoneWriting,
        Self::PeerClosed { unsent: false },
        Self::PeerClosed { unsent: true },
        Self::PeerAbort,
        Self::LocalAbort,
        Self::LinkGroupDown,
        Self::Timeout,
    ];
}

/// A flag to say to the peer; later ones are stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Farewell {
    /// PeerDoneWriting.
    DoneWriting,
    /// PeerConnectionClosed.
    Closed,
    /// PeerConnAbort.
    Abort,
}

/// What is to be done after an event, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct Actions {
    /// Report [`Event::Drained`] as soon as the send buffer is empty.
    pub wait_drained: bool,
    /// Throw away what is not sent.
    pub discard_unsent: bool,
    /// Say this to the peer.
    pub send: Option<Farewell>,
    /// No more data will come: readers see the end of the stream after what is there.
    pub eof: bool,
    /// The connection has failed: readers and writers see an error.
    pub reset: bool,
    /// Nobody but the peer can go on from here: start the timer of [`Event::Timeout`] afresh.
    /// While the send buffer of an orphan drains, do so at every progress as well.
    pub arm_timer: bool,
    /// The peer cannot reach us any more: drop the guard. Exactly once in every life.
    pub release_peer_ref: bool,
    /// Everything is over and nobody holds the connection: free it.
    pub free: bool,
}

impl Actions {
    const NONE: Self = Self {
        wait_drained: false,
        discard_unsent: false,
        send: None,
        eof: false,
        reset: false,
        arm_timer: false,
        release_peer_ref: false,
        free: false,
    };
    const DRAIN: Self = Self {
        wait_drained: true,
        ..Self::NONE
    };
    const EOF: Self = Self {
        eof: true,
        ..Self::NONE
    };
    const RESET: Self = Self {
        reset: true,
        discard_unsent: true,
        ..Self::NONE
    };

    const fn say(farewell: Farewell) -> Self {
        Self {
            send: Some(farewell),
            ..Self::NONE
        }
    }

    const fn and_say(self, farewell: Farewell) -> Self {
        Self {
            send: Some(farewell),
            ..self
        }
    }
}

/// The life of one connection.
///
/// # Invariants
///
/// A farewell is only followed by a stronger one; the peer reference is never taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Life {
    state: State,
    /// What to say when the send buffer has drained.
    pending: Option<Farewell>,
    /// The strongest that was said.
    said: Option<Farewell>,
    app_closed: bool,
    peer_ref: bool,
}

impl Default for Life {
    fn default() -> Self {
        Self::new()
    }
}

impl Life {
    /// A connection that is not established yet.
    pub const fn new() -> Self {
        Self {
            state: State::Init,
            pending: None,
            said: None,
            app_closed: false,
            peer_ref: true,
        }
    }

    /// The present state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether the application may still write.
    pub const fn may_write(&self) -> bool {
        matches!(
            self.state,
            State::Active | State::AppCloseWait1 //
        ) && self.pending.is_none()
            && self.peer_ref
    }

    /// Whether the peer has closed while the application still may write: what is written reaches
    /// nobody.
    pub const fn writes_to_nobody(&self) -> bool {
        matches!(self.state, State::AppCloseWait1) && self.pending.is_none() && !self.peer_ref
    }

    /// Whether both directions have ended, which for TCP is the state CLOSE.
    pub const fn is_disconnected(&self) -> bool {
        matches!(
            self.state,
            State::Closed
                | State::PeerCloseWait2
                | State::AppCloseWait2
                | State::AppFinCloseWait
                | State::PeerAbortWait
                | State::ProcessAbort
        )
    }

    /// Whether the send buffer is draining for a farewell.
    pub const fn is_draining(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether the application has closed: only the peer keeps the connection alive.
    pub const fn is_orphan(&self) -> bool {
        self.app_closed && !matches!(self.state, State::Closed)
    }

    /// Takes an event. What cannot happen in a state changes nothing.
    pub fn handle(&mut self, event: Event) -> Actions {
        let before = *self;
        if matches!(event, Event::AppClose { .. }) {
            if self.app_closed {
                return Actions::NONE;
            }
            self.app_closed = true;
        }
        let (state, actions) = before.transition(event);
        self.state = state;
        self.bookkeep(&before, event, actions)
    }

    /// The table: where to, and what to do. Timer, reference and freeing follow from the
    /// states, in [`Self::bookkeep`].
    fn transition(&self, event: Event) -> (State, Actions) {
        use Event as E;
        use Farewell::{
            Abort,
            Closed,
            DoneWriting, //
        };
        use State::*;

        let stay = (self.state, Actions::NONE);
        let abort = Actions::RESET.and_say(Abort);
        // Where a failure leads: the application has to hear of it, if there is one.
        let failed = if self.app_closed {
            State::Closed
        } else {
            ProcessAbort
        };
        let peer_gone = !self.peer_ref;

        match (self.state, event) {
            (Init, E::Listen) => (Listen, Actions::NONE),
            (Init, E::Established) => (Active, Actions::NONE),
            (Init | Listen, E::AppClose { .. }) => (State::Closed, Actions::NONE),
            (Init, E::LocalAbort | E::Timeout) => (State::Closed, Actions::RESET),
            (Listen, _) => stay,
            // A connection that ended by itself is still a socket.
            (State::Closed, _) => stay,

            // RFC 7609, section 4.8.1, 3A: closing with unread data is an abort (4.8.2, 1A).
            // If the peer is gone already there is nobody to wait for. When both sides are done
            // writing there is nothing to abort any more, as for TCP once both have sent FIN.
            (Active | PeerCloseWait1, E::AppClose { unread: true }) => (PeerAbortWait, abort),
            (AppCloseWait1, E::AppClose { unread: true }) => {
                if peer_gone {
                    (State::Closed, abort)
                } else {
                    (PeerAbortWait, abort)
                }
            }
            // 3A: pending close. The state stays until the data is with the peer.
            (Active, E::AppClose { .. } | E::AppShutdownWrite) => (Active, Actions::DRAIN),
            (AppCloseWait1, E::AppShutdownWrite) => (AppCloseWait1, Actions::DRAIN),
            // 4C: the peer has closed: no data can wait, it was dealt with then.
            (AppCloseWait1 | AppCloseWait2, E::AppClose { .. }) if peer_gone => {
                (State::Closed, Actions::say(Closed))
            }
            (AppCloseWait1 | AppCloseWait2, E::AppClose { .. }) => (self.state, Actions::DRAIN),
            // 3A after a shutdown for writing: that one has drained the buffer.
            (PeerCloseWait1 | PeerCloseWait2, E::AppClose { .. })
                if self.said == Some(DoneWriting) =>
            {
                (self.state, Actions::say(Closed))
            }
            // 3D.
            (AppFinCloseWait, E::AppClose { .. }) => (State::Closed, Actions::say(Closed)),
            // The abort was answered when it came.
            (ProcessAbort, E::AppClose { .. }) => (State::Closed, Actions::NONE),

            // 3A, 4B, 4C: the data is with the peer; now say so.
            (Active, E::Drained) => match self.pending {
                Some(farewell) => (PeerCloseWait1, Actions::say(farewell)),
                None => stay,
            },
            (AppCloseWait1 | AppCloseWait2, E::Drained) => match self.pending {
                Some(Closed) => (PeerFinCloseWait, Actions::say(Closed)),
                Some(farewell) => (AppCloseWait2, Actions::say(farewell)),
                None => stay,
            },

            // 4A and 3B.
            (Init | Active, E::PeerDoneWriting) => (AppCloseWait1, Actions::EOF),
            (PeerCloseWait1, E::PeerDoneWriting) => (PeerCloseWait2, Actions::EOF),

            // 4A: "If there is any pending data to be written and PeerConnectionClosed is on,
            // then an SMC-R connection reset must be performed."
            (Active | AppCloseWait1 | AppCloseWait2, E::PeerClosed { unsent: true })
                if self.peer_ref =>
            {
                // What the peer has sent has come to its end.
                (failed, Actions { eof: true, ..abort })
            }
            // 4C: closed by the application as well, and nothing left to drain.
            (Active | AppCloseWait1 | AppCloseWait2, E::PeerClosed { .. })
                if self.pending == Some(Closed) =>
            {
                (State::Closed, Actions::say(Closed))
            }
            // 4A.
            (Init | Active, E::PeerClosed { .. }) => (AppCloseWait1, Actions::EOF),
            // 3C, 3D.
            (PeerCloseWait1 | PeerCloseWait2, E::PeerClosed { .. }) => match self.said {
                Some(DoneWriting) => (AppFinCloseWait, Actions::EOF),
                _ => (State::Closed, Actions::EOF),
            },
            // 4D.
            (PeerFinCloseWait, E::PeerClosed { .. }) => (State::Closed, Actions::NONE),
            // Section 4.8.2, 1A waits for an abort; but a peer that has closed says that it is
            // done with our RMBE (4.8.1, 3C), and will perhaps not hear of our abort.
            (PeerAbortWait, E::PeerClosed { .. }) => (State::Closed, Actions::NONE),

            // Section 4.8.2, 1B.
            (PeerAbortWait, E::PeerAbort) => (State::Closed, Actions::NONE),
            // 2A, 2B: purge, tell the application, and answer at once.
            (ProcessAbort, E::PeerAbort) => stay,
            (_, E::PeerAbort) => (failed, abort),

            // 1A.
            (ProcessAbort | PeerAbortWait, E::LocalAbort) => stay,
            (_, E::LocalAbort) if peer_gone => (failed, abort),
            (_, E::LocalAbort) => (PeerAbortWait, abort),

            // Section 4.8.3: no connectivity: reset, nothing can be said.
            (_, E::LinkGroupDown) => (State::Closed, Actions::RESET),

            // Section 4.8.1: "each SMC-R peer needs to provide some logic that will prevent
            // being stranded in a termination state".
            // As TCP in FIN-WAIT-2, without a word: who has heard that we have closed does not write
            // any more, and is not to lose what it has not read yet.
            (PeerCloseWait1 | PeerCloseWait2 | PeerFinCloseWait, E::Timeout) if self.app_closed => {
                (State::Closed, Actions::NONE)
            }
            (PeerAbortWait, E::Timeout) => (State::Closed, Actions::NONE),
            // The buffer of an orphan does not drain.
            (Active | AppCloseWait1 | AppCloseWait2, E::Timeout) if self.app_closed => {
                (PeerAbortWait, abort)
            }

            (_, E::Timeout | E::Drained | E::Listen | E::Established) => stay,
            (_, E::AppClose { .. } | E::AppShutdownWrite) => stay,
            (_, E::PeerDoneWriting | E::PeerClosed { .. }) => stay,
        }
    }

    /// What follows from a transition, whatever its row.
    fn bookkeep(&mut self, before: &Self, event: Event, mut actions: Actions) -> Actions {
        // What the drained buffer is for; a close is more than a shutdown.
        if actions.wait_drained {
            let wanted = match event {
                Event::AppClose { .. } => Farewell::Closed,
                _ => Farewell::DoneWriting,
            };
            self.pending = self.pending.max(Some(wanted));
        }
        if actions.send.is_some() {
            self.pending = None;
        }
        // Nothing is said twice, and nothing weaker after something stronger.
        if actions.send <= self.said {
            actions.send = None;
        }
        self.said = self.said.max(actions.send);

        let over = self.state == State::Closed;
        if over {
            self.pending = None;
        }
        let peer_left = match event {
            Event::PeerClosed { .. } | Event::PeerAbort => before.state != State::Listen,
            _ => false,
        };
        if self.peer_ref && (over || peer_left) {
            self.peer_ref = false;
            actions.release_peer_ref = true;
        }
        // Only the peer can end what follows; with an application, only an abort is timed.
        let timed = self.is_orphan() || self.state == State::PeerAbortWait;
        actions.arm_timer = timed && *self != *before;

        let was_over = before.state == State::Closed && before.app_closed;
        actions.free = over && self.app_closed && !was_over;
        actions
    }
}

#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests;
