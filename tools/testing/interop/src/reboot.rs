//! A machine that goes and comes back.

use super::scripts::there_and_back;
use super::ways::{fresh, no_groups};
use super::{Script, Side, Stack, TESTLINK_TIME};
use smc_selftest::kind::Kind;
use smc_selftest::sys;
use smc_selftest::{check, check_eq, Context, Fail, Outcome};

pub const SCRIPTS: &[Script] = &[
    Script::new("peer.dies", |side| reboots(side, How::PowerCut)),
    Script::with_ours("peer.reboots", |side| reboots(side, How::Orderly)),
    Script::rest(REST, rest),
];

const REST: &str = "peer.returns";

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Without a word: TEST LINK finds out.
    PowerCut,
    /// By reboot(2): the peer is told, and does not need TEST LINK.
    Orderly,
}

/// B goes, with connections open that are read, written and idle: A is told by an error, and new connections work, in a
/// link group of their own.
fn reboots(side: &Side, how: How) -> Outcome {
    // One without TEST LINK if need be.
    let before = sys::read_file(TESTLINK_TIME)?;
    if how == How::Orderly {
        sys::write_file(TESTLINK_TIME, "0").during(TESTLINK_TIME)?;
    }
    fresh(side)?;
    let outcome = survive(side, how);
    sys::write_file(TESTLINK_TIME, before.trim()).during(TESTLINK_TIME)?;
    if !side.is_first() {
        return outcome;
    }
    // B has gone, whatever A has seen of that: the next script needs it back.
    let returned = side.peer_returns(REST).and_then(|()| rest(side));
    match (outcome, returned) {
        (Err(fail), Err(later)) => Err(Fail(format!("{fail}; then {later}"))),
        (outcome, returned) => outcome.and(returned),
    }
}

fn survive(side: &Side, how: How) -> Outcome {
    let door = side.door(Kind::Smc4)?;
    let socks = side.in_turn(&door, 3)?;
    for sock in &socks {
        there_and_back(side, sock, 0, 1000)?;
    }
    side.meet("open")?;
    side.part()?;
    // C's reboot waits until all link groups are freed, for ever if a socket is open: there the programs go first, as in
    // every orderly shutdown, and what is left to tell is the end of the group.
    let closed =
        how == How::Orderly && [side.own, side.peer][usize::from(side.is_first())] == Stack::C;
    if !side.is_first() {
        if closed {
            drop(socks);
        }
        match how {
            How::PowerCut => sys::write_file("/proc/sysrq-trigger", "b").during("sysrq-trigger")?,
            // SAFETY: no pointers.
            How::Orderly => drop(unsafe { libc::reboot(libc::RB_AUTOBOOT) }),
        }
        return Err(Fail("the machine is still there".into()));
    }
    std::thread::scope(|scope| -> Outcome {
        let reader = scope.spawn(|| socks[0].recv(&mut [0; 1], 0));
        let writer = scope.spawn(|| loop {
            if let Err(error) = socks[1].send(&[0; 1000], libc::MSG_NOSIGNAL) {
                return error;
            }
        });
        let (Ok(read), Ok(written)) = (reader.join(), writer.join()) else {
            return Err(Fail("a thread panicked".into()));
        };
        let read = match read {
            Ok(_) => Some(0),
            Err(error) => error.raw_os_error(),
        };
        let written = written.raw_os_error();
        // C tells readers of an end, and keeps the error.
        let soft = closed || side.own == Stack::C;
        check!(
            is_loss(read) || (soft && read == Some(0)),
            "the reader gets {read:?}"
        );
        check!(
            is_loss(written) || (soft && written == Some(libc::EPIPE)),
            "the writer gets {written:?}"
        );
        if !closed {
            socks[2].await_events(libc::POLLERR | libc::POLLHUP)?;
            let error = socks[2].error()?;
            check!(is_loss(Some(error)), "SO_ERROR of the idle one is {error}");
        }
        Ok(())
    })?;
    drop(socks);
    no_groups(side)
}

fn is_loss(error: Option<i32>) -> bool {
    matches!(
        error,
        Some(libc::ECONNRESET | libc::ETIMEDOUT | libc::ECONNABORTED)
    )
}

fn rest(side: &Side) -> Outcome {
    let sock = side.connection()?;
    there_and_back(side, &sock, 0, 100_000)?;
    check_eq!(side.await_connections(1)?.len(), 1, "link groups");
    side.meet("counted")?;
    Ok(())
}
