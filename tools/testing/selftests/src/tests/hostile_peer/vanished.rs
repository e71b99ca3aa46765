//! Peers that have vanished without a word: nothing acknowledges what is said to them, so that the end of each of their
//! link groups takes seconds. None of them is to wait for another.

use super::{Meeting, Stage};
use crate::kind::Host;
use crate::rig;
use crate::runner::Ctx;
use crate::sys;
use crate::tests::hostile_peer::speaker::{state, Offer, Role};
use crate::tests::link::{fresh, prove_by_queue_pairs, queue_pairs};
use crate::tests::settings::Changed;
use crate::tests::trace::{Tracing, TRACEFS};
use crate::{check_eq, Context, Outcome};

const GROUPS: usize = 5;
/// Told when a queue pair is destroyed.
const DESTROYED: &str = "smc_test_destroyed";

/// The device goes that all of them are on.
pub fn device_goes(ctx: &Ctx) -> Outcome {
    let roles = [Role::Client, Role::Server];
    all_at_once(ctx, &roles, |_| {
        rig::run(&format!("rdma link del {}", Host::B.rdma_device()))?;
        Ok(())
    })?;
    rig::rdma_device_add(Host::B)?;
    fresh(ctx)
}

/// They have been idle for long.
pub fn idle(ctx: &Ctx) -> Outcome {
    let _short = Changed::new(&[Host::B], "smcr_lgr_free_delay", 5)?;
    all_at_once(ctx, &[Role::Client], |_| {
        sys::eventually(
            "all queue pairs are gone",
            || Ok(queue_pairs(Host::B)? == 0),
        )?;
        Ok(())
    })
}

/// Each says goodbye before the first one gives up waiting for that to be acknowledged.
fn all_at_once(ctx: &Ctx, roles: &[Role], end: impl FnOnce(&Tracing) -> Outcome) -> Outcome {
    // Link groups of hosts that live end at once.
    fresh(ctx)?;
    let stage = Stage::without_others(ctx)?;
    let mut meetings = Vec::new();
    for role in roles.iter().cycle().take(GROUPS) {
        let mut meeting = stage.meet(*role, Offer::PLAIN)?;
        meeting.echo(b"a word before the end")?;
        meetings.push(meeting);
    }
    ctx.prove(Host::B, &meetings[0].sock)?;
    prove_by_queue_pairs(ctx)?;
    let mut peers = Vec::new();
    for Meeting { mut peer, sock, .. } in meetings {
        peer.close()?;
        check_eq!(sock.recv_to_end()?.len(), 0, "bytes before the end");
        drop(sock);
        peer.await_state(state::CLOSED)?;
        peers.push(peer);
    }
    // Nothing is under way that would fail.
    for peer in &mut peers {
        peer.test_link()?;
    }
    peers.into_iter().for_each(|peer| peer.vanish());
    check_eq!(queue_pairs(Host::A)?, 0, "queue pairs of the peers");
    let tracing = Tracing::start()?;
    let _probe = Probe::new()?;
    end(&tracing)?;
    let told = tracing.lines()?;
    let order: Vec<&str> = told
        .iter()
        .map(|(event, _)| event.as_str())
        .filter(|event| ["smc_rs_lgr_end", DESTROYED].contains(event))
        .collect();
    // Behind the groups' ends may be that of a queue pair of the device's own.
    let mut due = vec!["smc_rs_lgr_end"; GROUPS];
    due.resize(order.len().max(2 * GROUPS), DESTROYED);
    check_eq!(order, due, "goodbyes and ends: {told:?}");
    Ok(())
}

/// The trace tells of queue pairs that are destroyed while this is there.
struct Probe;

impl Probe {
    fn new() -> Outcome<Probe> {
        let events = format!("{TRACEFS}/kprobe_events");
        sys::write_file(
            &events,
            &format!("p:smc_test/{DESTROYED} ib_destroy_qp_user"),
        )
        .during("a probe of ib_destroy_qp_user")?;
        let probe = Probe;
        sys::write_file(&probe.enable(), "1")?;
        Ok(probe)
    }

    fn enable(&self) -> String {
        format!("{TRACEFS}/events/smc_test/enable")
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let gone = sys::write_file(&self.enable(), "0")
            .and_then(|()| sys::write_file(&format!("{TRACEFS}/kprobe_events"), ""));
        if let Err(error) = gone {
            eprintln!("# cannot take the probe away: {error}");
        }
    }
}
