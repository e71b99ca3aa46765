// SPDX-License-Identifier: GPL-2.0

//! Why a tool has no answer, in one line that says what to do.

use std::fmt;
use std::io;

/// Why there is no answer.
#[derive(Debug)]
pub enum Error {
    /// No SMC module in this kernel.
    NotLoaded,
    /// A system call failed.
    System {
        /// What was being done.
        what: &'static str,
        /// How it failed.
        error: io::Error,
    },
    /// The kernel, or the tool itself, refuses: what, why, and what to do.
    Refused(String),
    /// The kernel's answer is not laid out as it should be.
    Malformed(String),
    /// The answer could not be written to standard output.
    Output(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotLoaded => {
                f.write_str("the SMC module is not loaded: run 'modprobe smc_rs' as root")
            }
            Error::System { what, error } => write!(f, "{what}: {error}"),
            Error::Refused(why) => f.write_str(why),
            Error::Malformed(what) => write!(f, "the kernel's answer is malformed: {what}"),
            Error::Output(error) => write!(f, "cannot write: {error}"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// An errno that says nothing more than itself.
    pub fn from_errno(what: &'static str, errno: i32) -> Self {
        Error::System {
            what,
            error: io::Error::from_raw_os_error(errno),
        }
    }

    /// Whether the reader of standard output has gone, as `head` does: no reason to complain.
    pub fn is_closed_output(&self) -> bool {
        matches!(self, Error::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_one_line() {
        let errors = [
            Error::NotLoaded,
            Error::System {
                what: "asking sock_diag",
                error: io::Error::from_raw_os_error(libc::EPERM),
            },
            Error::Malformed("a message of 3 bytes".into()),
            Error::Refused("no: do something else".into()),
            Error::Output(io::ErrorKind::BrokenPipe.into()),
        ];
        for error in errors {
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
        assert!(Error::NotLoaded.to_string().contains("modprobe smc_rs"));
    }

    #[test]
    fn only_a_closed_output_is_no_failure() {
        assert!(Error::Output(io::ErrorKind::BrokenPipe.into()).is_closed_output());
        assert!(!Error::Output(io::ErrorKind::StorageFull.into()).is_closed_output());
        assert!(!Error::NotLoaded.is_closed_output());
    }
}
