//! The tests, by subject.

mod basic;

use crate::runner::{Ctx, Needs, Test};
use crate::Outcome;

/// A test that runs over every kind of socket.
const fn any(name: &'static str, limit: u64, body: fn(&Ctx) -> Outcome) -> Test {
    Test {
        name,
        body,
        limit,
        needs: Needs::Any,
    }
}

/// All tests, in the order in which they run: the simple ones first.
pub fn all() -> Vec<Test> {
    let mut tests = Vec::new();
    tests.extend(basic::TESTS);
    tests
}
