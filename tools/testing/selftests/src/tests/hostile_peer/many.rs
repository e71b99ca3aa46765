//! Many peers at once, each with a link group of its own.

use super::{Meeting, Stage};
use crate::runner::Ctx;
use crate::tests::hostile_peer::speaker::{Offer, Role};
use crate::tests::routes::of_groups;
use crate::{check_eq, Context, Outcome};

const GROUPS: usize = 40;
const ID: u16 = 1;

/// Each later connection of a peer goes to the group that it has, and to none of the others.
pub fn groups(ctx: &Ctx) -> Outcome {
    let stage = Stage::without_others(ctx)?;
    let before = of_groups("B", &[ID])?.len();
    let mut meetings: Vec<Meeting<'_>> = Vec::new();
    for number in 0..GROUPS {
        let role = [Role::Client, Role::Server][number % 2];
        let during = format!("peer {number}, a {role:?}");
        let mut meeting = stage.meet(role, Offer::PLAIN).during(&during)?;
        meeting.echo(during.as_bytes()).during(&during)?;
        meetings.push(meeting);
        are_alive(&mut meetings)?;
    }
    let mut numbers = of_groups("B", &[ID])?;
    numbers.dedup();
    check_eq!(numbers.len(), before + GROUPS, "link groups of host B");
    for number in (0..GROUPS).rev() {
        let during = format!("peer {number}, once more");
        meetings[number].renew().during(&during)?;
        meetings[number].echo(during.as_bytes()).during(&during)?;
        are_alive(&mut meetings)?;
    }
    check_eq!(
        of_groups("B", &[ID])?.len(),
        numbers.len(),
        "groups afterwards"
    );
    Ok(())
}

/// They answer what they are asked.
fn are_alive(meetings: &mut [Meeting<'_>]) -> Outcome {
    meetings
        .iter_mut()
        .try_for_each(|meeting| meeting.peer.idle())
}
