//! Every way to write against every way to read. See [`crate::bulk`].

use crate::bulk;
use crate::runner::{Ctx, Needs, Test};
use crate::Outcome;

pub const TESTS: [Test; 1] = [Test {
    name: "bulk.plans",
    body: plans,
    limit: 600,
    needs: Needs::Any,
}];

/// Each way to write against each way to read; the ways to wait are by chance.
const PLANS: usize = 48;
const LARGEST_TOTAL: usize = 120_000;

fn plans(ctx: &Ctx) -> Outcome {
    // The volume of a plan is small: there are fewer of them instead, but some of each kind.
    let plans = (PLANS / ctx.divisor).max(PLANS / 3);
    bulk::play(ctx, plans as u64, LARGEST_TOTAL)
}
