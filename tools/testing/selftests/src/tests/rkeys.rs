//! What the hosts tell each other of their RMBs after the CLC messages: CONFIRM RKEY, DELETE RKEY.

use super::link::{echo, fresh, prove_by_queue_pairs, regions};
use super::network::{Rules, Sysctl};
use super::once;
use super::wiretap::{Llc, Wiretap, CONFIRM_RKEY, DELETE_RKEY};
use crate::kind::Host;
use crate::runner::{Ctx, Pair, Test};
use crate::sys;
use crate::{check, Context, Outcome};
use std::io;

pub const TESTS: [Test; 2] = [
    once("rkeys.new_rmbs_are_confirmed", 120, new_rmbs_are_confirmed),
    once(
        "rkeys.rmbs_of_orphans_come_back",
        200,
        rmbs_of_orphans_come_back,
    ),
];

/// Sees the LLC messages between the hosts from now on.
struct Tap {
    wire: Wiretap,
    seen: Vec<Llc>,
}

impl Tap {
    fn start() -> Outcome<Tap> {
        Ok(Tap {
            wire: Wiretap::new()?,
            seen: Vec::new(),
        })
    }

    /// All that was seen so far.
    fn seen(&mut self) -> io::Result<&[Llc]> {
        self.seen.extend(self.wire.llc()?);
        Ok(&self.seen)
    }

    /// Waits until there are so many messages of a kind, each counted once however often it is sent.
    fn expect(
        &mut self,
        what: &str,
        count: usize,
        wanted: impl Fn(&Llc) -> bool,
    ) -> io::Result<()> {
        sys::eventually(what, || {
            let mut different: Vec<&Llc> = Vec::new();
            for llc in self.seen()?.iter().filter(|llc| wanted(llc)) {
                if !different.contains(&llc) {
                    different.push(llc);
                }
            }
            Ok(different.len() >= count)
        })
    }
}

/// RFC 7609, section 3.5.5.2.1: the CLC messages of the first contact tell of the first RMB, LLC
/// messages of the others; an RMB that is used again is known already.
fn new_rmbs_are_confirmed(ctx: &Ctx) -> Outcome {
    fresh(ctx)?;
    let mut tap = Tap::start()?;
    let first = ctx.pair()?;
    echo(&first, b"first")?;
    check!(
        !tap.seen()?.iter().any(|llc| llc.kind == CONFIRM_RKEY),
        "CONFIRM RKEY at first contact: {:?}",
        tap.seen()?
    );
    let second = ctx.pair()?;
    echo(&second, b"second")?;
    for host in Host::BOTH {
        for response in [false, true] {
            let what = format!("CONFIRM RKEY from {host:?}, response {response}");
            tap.expect(&what, 1, |llc| {
                llc.kind == CONFIRM_RKEY && llc.from == host && llc.response == response
            })?;
        }
    }
    check!(
        !tap.seen()?.iter().any(|llc| llc.negative),
        "a negative answer: {:?}",
        tap.seen()?
    );
    // Both sides have closed, so that the RMBs are free for the next one at once.
    drop(second);
    let before = [regions(Host::A)?, regions(Host::B)?];
    for round in 0..5 {
        let again = ctx.pair()?;
        echo(&again, b"again").during(&format!("round {round}"))?;
    }
    for (host, before) in Host::BOTH.into_iter().zip(before) {
        check!(
            regions(host)? <= before + 1,
            "{host:?}: {} memory regions, {before} before five connections one after the other",
            regions(host)?
        );
    }
    prove_by_queue_pairs(ctx)
}

/// Clients close, their servers never do, and nothing that the servers' host says gets through: after
/// the time that TCP would wait the clients' host gives the connections up. Their RMBs can be used
/// again once the other host has confirmed that it does not use them any more.
fn rmbs_of_orphans_come_back(ctx: &Ctx) -> Outcome {
    const ORPHANS: usize = 6;
    fresh(ctx)?;
    let keeper = ctx.pair()?;
    echo(&keeper, b"keeps the link")?;
    // All of them at once: a registration of memory would wait as long as SENDs are lost.
    let mut clients = Vec::new();
    let mut servers = Vec::new();
    for _ in 0..ORPHANS {
        let pair = ctx.pair()?;
        echo(&pair, b"orphan")?;
        clients.push(pair.client);
        servers.push(pair.server);
    }
    let before = regions(Host::A)?;
    let patience = Sysctl::set(Host::A, "tcp_fin_timeout", "1")?;
    let mut tap = Tap::start()?;
    // SENDs of the servers' host do not arrive, its acknowledgements do.
    let silence = Rules::new(Host::A, "input", &["udp dport 4791 @th,64,8 4 drop"])?;
    drop(clients);
    tap.expect("DELETE RKEY", 1, |llc| {
        llc.kind == DELETE_RKEY && llc.from == Host::A
    })?;
    drop(silence);
    drop(patience);
    tap.expect("DELETE RKEY for each orphan, answered", ORPHANS, |llc| {
        llc.kind == DELETE_RKEY && llc.from == Host::B && llc.response && !llc.negative
    })?;
    // As with TCP: the end of the stream, and no error.
    for server in &servers {
        check!(server.recv_to_end()?.is_empty(), "data after the end");
    }
    // The last answer may have been on the wire and no further; those before it were read, as there is one request at a time.
    let again = (1..ORPHANS)
        .map(|_| ctx.pair())
        .collect::<Outcome<Vec<Pair>>>()?;
    for pair in &again {
        echo(pair, b"in old memory")?;
    }
    let after = regions(Host::A)?;
    check!(
        after <= before,
        "{after} memory regions on the clients' host, {before} before their connections were lost"
    );
    echo(&keeper, b"and works")?;
    prove_by_queue_pairs(ctx)
}
