//! Many peers at once, each with a link group of its own. A few in `make test`; `--rounds N` for more.

use super::{Meeting, Stage};
use crate::link_groups::lgr;
use crate::runner::Ctx;
use crate::tests::hostile_peer::speaker::{Offer, Role};
use crate::tests::routes::of_groups;
use crate::{check_eq, Context, Outcome};
use std::time::{Duration, Instant};

/// Peers where no number is asked for.
const FEW: usize = 40;

/// Each later connection of a peer goes to the group that it has, and to none of the others.
pub fn groups(ctx: &Ctx) -> Outcome {
    let stage = Stage::without_others(ctx)?;
    let groups = ctx.rounds.unwrap_or(FEW);
    let before = numbers()?.len();
    let mut meetings: Vec<Meeting<'_>> = Vec::new();
    let mut first = Pace::new("first contacts");
    for number in 0..groups {
        let role = [Role::Client, Role::Server][number % 2];
        let during = format!("peer {number}, a {role:?}");
        meetings.push(first.of(|| {
            let mut meeting = stage.meet(role, Offer::PLAIN).during(&during)?;
            meeting.echo(during.as_bytes()).during(&during)?;
            Ok(meeting)
        })?);
        are_alive(&mut meetings)?;
    }
    let mut many = numbers()?;
    many.dedup();
    check_eq!(many.len(), before + groups, "link groups of host B");
    let mut second = Pace::new("second connections");
    for number in (0..groups).rev() {
        let during = format!("peer {number}, once more");
        second.of(|| {
            meetings[number].renew().during(&during)?;
            meetings[number].echo(during.as_bytes()).during(&during)
        })?;
        are_alive(&mut meetings)?;
    }
    check_eq!(numbers()?.len(), many.len(), "groups afterwards");
    Ok(())
}

/// Of host B's link groups.
fn numbers() -> Outcome<Vec<u64>> {
    of_groups("B", |group| group.number(lgr::ID))
}

/// How long something takes that is done again and again; it is said from time to time.
struct Pace {
    what: &'static str,
    number: u32,
    took: Duration,
}

impl Pace {
    fn new(what: &'static str) -> Pace {
        Pace {
            what,
            number: 0,
            took: Duration::ZERO,
        }
    }

    fn of<T>(&mut self, once: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        const EVERY: u32 = 100;
        let begun = Instant::now();
        let done = once()?;
        self.took += begun.elapsed();
        self.number += 1;
        if self.number % EVERY == 0 {
            let each = self.took / EVERY;
            println!("# {} {}, {each:?} each of late", self.number, self.what);
            self.took = Duration::ZERO;
        }
        Ok(done)
    }
}

/// They answer what they are asked.
fn are_alive(meetings: &mut [Meeting<'_>]) -> Outcome {
    meetings
        .iter_mut()
        .try_for_each(|meeting| meeting.peer.idle())
}
