// SPDX-License-Identifier: GPL-2.0

//! What can be wrong with a message, split by whose fault it is.
//!
//! - [`WireError`]: the bytes are not a message. Whatever follows in the stream cannot be trusted.
//! - [`Violation`]: a well-formed message that is illegal now.
//! - `clc::decline::DeclineReason`: both sides are right but do not fit together (the incompatible
//!   case); the connection goes on over TCP.
//!
//! There is no errno in here: glue translates at the edge.

#![forbid(unsafe_code)]

use core::fmt;

/// The message in which an error was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// A CLC message whose type is not known yet.
    ClcHeader,
    /// CLC Proposal.
    Proposal,
    /// CLC Accept.
    Accept,
    /// CLC Confirm.
    Confirm,
    /// CLC Decline.
    Decline,
    /// An LLC message.
    Llc,
    /// A CDC message.
    Cdc,
}

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// No eye catcher at the start: this is not SMC at all.
    EyeCatcher,
    /// No eye catcher at the end.
    Trailer,
    /// The length is outside the bounds of the message, or its parts do not add up to it.
    Length,
    /// The buffer ends before the message does.
    Truncated,
    /// The version is reserved.
    Version,
    /// The type is unknown, or not the one that this parser is for.
    Type,
    /// The message is about SMC-D, which this implementation does not speak.
    Ism,
    /// A count is above its limit.
    Count,
    /// An offset leads to a place where the area cannot be.
    Offset,
    /// A field has a value that the protocol does not allow; the text names the field.
    Field(&'static str),
}

/// The bytes are not a valid message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError {
    /// The message being parsed.
    pub message: MessageKind,
    /// Where in the message the offending field is, in bytes from its start.
    pub offset: u16,
    /// What is wrong there.
    pub fault: Fault,
}

impl WireError {
    /// Makes an error; offsets are those of the layout tables and never large.
    pub const fn new(message: MessageKind, offset: u16, fault: Fault) -> Self {
        Self {
            message,
            offset,
            fault,
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "malformed {:?} at byte {}: {:?}",
            self.message, self.offset, self.fault
        )
    }
}

/// A well-formed message that must not come now, or must not say this now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Another message was due.
    UnexpectedMessage {
        /// The message that was due.
        expected: MessageKind,
        /// The message that came.
        received: MessageKind,
    },
    /// The peer changed its identity within one handshake.
    PeerIdChanged,
    /// A Confirm for an existing link group does not fit the Accept, when it is too late to
    /// decline.
    ConfirmMismatch,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnexpectedMessage { expected, received } => {
                write!(f, "expected {expected:?}, received {received:?}")
            }
            Self::ConfirmMismatch => f.write_str("Confirm does not fit Accept"),
            Self::PeerIdChanged => f.write_str("peer ID changed within a handshake"),
        }
    }
}

/// Why a message could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmitError {
    /// The buffer is too small; `needed` bytes would do.
    Space {
        /// Bytes that the message takes.
        needed: usize,
    },
    /// A list is longer than the format can carry.
    TooMany,
    /// The parts contradict each other, for example a version 1 message with version 2 parts.
    Inconsistent,
}

impl fmt::Display for EmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Space { needed } => write!(f, "buffer too small, {needed} bytes needed"),
            Self::TooMany => f.write_str("list too long"),
            Self::Inconsistent => f.write_str("inconsistent message"),
        }
    }
}
