//! Tests of smc_rs that run inside the test machine.
//!
//! Every test is a function over a kind of socket, so that the same bodies prove plain TCP (the
//! reference: a test that fails there is a wrong test) and SMC.

pub mod bulk;
pub mod conform;
pub mod diag;
pub mod exclusive;
pub mod fault;
pub mod genl;
pub mod kind;
pub mod ktap;
pub mod link_groups;
pub mod locking;
pub mod message;
pub mod mode;
pub mod pattern;
pub mod proc_net;
pub mod programs;
pub mod rig;
pub mod runner;
pub mod selinux;
pub mod spans;
pub mod sys;
pub mod tests;
pub mod transport;
pub mod verbs;

use std::fmt;

/// Why a test failed, in words for the person who reads the report.
#[derive(Debug)]
pub struct Fail(pub String);

pub type Outcome<T = ()> = Result<T, Fail>;

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<std::io::Error> for Fail {
    fn from(error: std::io::Error) -> Self {
        Fail(error.to_string())
    }
}

/// For what is asked until it holds (`sys::eventually`).
impl From<Fail> for std::io::Error {
    fn from(fail: Fail) -> Self {
        std::io::Error::other(fail.0)
    }
}

impl From<String> for Fail {
    fn from(text: String) -> Self {
        Fail(text)
    }
}

/// Adds what was being done to an error.
pub trait Context<T> {
    fn during(self, what: &str) -> Outcome<T>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn during(self, what: &str) -> Outcome<T> {
        self.map_err(|error| Fail(format!("{what}: {error}")))
    }
}

/// Fails the test unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::Fail(format!("{} ({}:{})", format!($($text)+), file!(), line!())));
        }
    };
}

/// Fails the test unless both sides are equal.
#[macro_export]
macro_rules! check_eq {
    ($left:expr, $right:expr, $($text:tt)+) => {{
        let (left, right) = (&$left, &$right);
        if left != right {
            return Err($crate::Fail(format!(
                "{}: got {:?}, expected {:?} ({}:{})", format!($($text)+), left, right, file!(), line!()
            )));
        }
    }};
}

/// Fails the test unless the call failed with this errno.
#[macro_export]
macro_rules! check_errno {
    ($result:expr, $errno:expr, $($text:tt)+) => {{
        match $result {
            Err(error) if error.raw_os_error() == Some($errno) => {}
            Err(error) => return Err($crate::Fail(format!(
                "{}: got '{}', expected '{}' ({}:{})", format!($($text)+), error,
                std::io::Error::from_raw_os_error($errno), file!(), line!()
            ))),
            Ok(value) => return Err($crate::Fail(format!(
                "{}: succeeded with {:?}, expected '{}' ({}:{})", format!($($text)+), value,
                std::io::Error::from_raw_os_error($errno), file!(), line!()
            ))),
        }
    }};
}
