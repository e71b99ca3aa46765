//! RDMA WRITE WITH IMMEDIATE in place of RDMA WRITE and CDC message: between hosts that have both agreed to it, and no others.
//! That data comes through unharmed is for all other tests to say: it is on by default.

use super::link::{fresh, prove_by_queue_pairs};
use super::network::Sysctl;
use super::once;
use super::settings::{self, Changed};
use super::two_links::shown;
use crate::kind::Host;
use crate::mode;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::eventually;
use crate::{check, check_eq, Context, Outcome};

pub const TESTS: [Test; 3] = [
    once("immediate.both_have_to_agree", 200, both_have_to_agree),
    once("immediate.what_does_not_fit", 200, what_does_not_fit),
    once("immediate.late_farewells", 300, late_farewells),
];

const ROUNDS: usize = 200;

/// SENDs of both devices that have completed, and receive requests that were used: by SENDs and immediates.
fn counts() -> Outcome<[u64; 2]> {
    let sum = |name| -> std::io::Result<u64> {
        Ok(mode::counter(Host::A, name)? + mode::counter(Host::B, name)?)
    };
    Ok([sum("rdma_sends")?, sum("rdma_recvs")?])
}

fn round_trip(pair: &Pair, request: &[u8], response: &[u8]) -> Outcome {
    let mut got = vec![0; request.len()];
    pair.client.send_all(request)?;
    pair.server.recv_all(&mut got)?;
    check!(
        got == request,
        "a request of {} bytes has changed",
        request.len()
    );
    let mut got = vec![0; response.len()];
    pair.server.send_all(response)?;
    pair.client.recv_all(&mut got)?;
    check!(
        got == response,
        "a response of {} bytes has changed",
        response.len()
    );
    Ok(())
}

/// As many messages as `ROUNDS` requests and their responses take: SENDs, and receive requests.
fn count_rounds(pair: &Pair) -> Outcome<[u64; 2]> {
    // Before these each side has heard from the other.
    for _ in 0..3 {
        round_trip(pair, b"first", b"words")?;
    }
    let before = counts()?;
    for round in 0..ROUNDS {
        round_trip(pair, &round.to_be_bytes(), &[round as u8])?;
    }
    let after = counts()?;
    Ok([after[0] - before[0], after[1] - before[1]])
}

fn both_have_to_agree(ctx: &Ctx) -> Outcome {
    let messages = 2 * ROUNDS as u64;
    // Soft-RoCE counts what has been acknowledged: what goes last may come late.
    let most = messages - messages / 10;
    for (a, b) in [(1, 1), (1, 0), (0, 1), (0, 0)] {
        fresh(ctx)?;
        let _a = Changed::new(&[Host::A], "vendor_options", a)?;
        let _b = Changed::new(&[Host::B], "vendor_options", b)?;
        let (listener, address) = ctx.listener(8)?;
        let pair = ctx.pair_from(&listener, address)?;
        let during = format!("vendor_options {a} at the client, {b} at the server");
        let [sends, receives] = count_rounds(&pair).during(&during)?;
        check!(
            receives >= most,
            "{during}: {receives} receive requests used by {messages} messages"
        );
        if a == 1 && b == 1 {
            // Window updates, TEST LINK.
            check!(
                sends <= messages / 10,
                "{during}: {sends} SENDs for {messages} messages, which go as immediates"
            );
        } else {
            check!(
                sends >= most,
                "{during}: {sends} SENDs for {messages} messages"
            );
        }
        // A group keeps to what was agreed when it began.
        for host in Host::BOTH {
            settings::set(
                host,
                "vendor_options",
                1 - settings::get(host, "vendor_options")?,
            )?;
        }
        let later = ctx.pair_from(&listener, address)?;
        let [sends, _] = count_rounds(&later).during(&during)?;
        check_eq!(
            sends >= most,
            a + b < 2,
            "whether a later connection sends messages"
        );
    }
    Ok(())
}

/// Sizes beyond what an immediate can say of what was read, rings that wrap with two writes, and urgent data, in between.
fn what_does_not_fit(ctx: &Ctx) -> Outcome {
    fresh(ctx)?;
    let _on = Changed::new(&Host::BOTH, "vendor_options", 1)?;
    let pair = ctx.pair()?;
    let pattern: Vec<u8> = (0..300_000u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    for size in [
        1, 65_535, 65_536, 65_537, 100_000, 131_071, 131_072, 131_073, 300_000,
    ] {
        for rest in 0..8 {
            let request = &pattern[rest..size.max(rest + 1)];
            std::thread::scope(|scope| -> Outcome {
                let writer = scope.spawn(|| pair.client.send_all(request));
                let mut got = vec![0; request.len()];
                pair.server.recv_all(&mut got)?;
                check!(
                    got == request,
                    "a request of {} bytes has changed",
                    request.len()
                );
                writer
                    .join()
                    .map_err(|_| crate::Fail("the writer panicked".into()))??;
                Ok(())
            })?;
            round_trip(&pair, b"?", &pattern[..7])?;
            check_eq!(
                pair.server.send(b"!", libc::MSG_OOB)?,
                1,
                "urgent bytes sent"
            );
            let mut urgent = [0];
            eventually("the urgent byte", || {
                match pair.client.recv(&mut urgent, libc::MSG_OOB) {
                    Ok(n) => Ok(n == 1),
                    Err(error)
                        if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINVAL)) =>
                    {
                        Ok(false)
                    }
                    Err(error) => Err(error),
                }
            })?;
            check_eq!(urgent, *b"!", "the urgent byte");
        }
    }
    Ok(())
}

/// Until a host knows of one connection only.
fn await_alone(host: Host) -> Outcome {
    let what = format!("host {} has given up all but one", host.name());
    eventually(&what, || {
        let (_, links) = shown(host)?;
        Ok(links.iter().map(|link| link.conns).sum::<u64>() == 1)
    })?;
    Ok(())
}

/// Clients close, and their hosts give the connections up before their servers close. Once these have, the numbers of
/// the connections can be used again: else the clients' host would have none left, and new connections would be TCP's.
fn late_farewells(ctx: &Ctx) -> Outcome {
    // Together more than a group has numbers.
    const ROUNDS: usize = 4;
    const AT_ONCE: usize = 70;
    fresh(ctx)?;
    let _on = Changed::new(&Host::BOTH, "vendor_options", 1)?;
    let keeper = ctx.pair()?;
    round_trip(&keeper, b"keeps", b"it")?;
    let _soon = Sysctl::set(Host::A, "tcp_fin_timeout", "1")?;
    for round in 0..ROUNDS {
        let during = format!("round {round}");
        let (clients, servers): (Vec<_>, Vec<_>) = (0..AT_ONCE)
            .map(|_| {
                let pair = ctx.pair()?;
                round_trip(&pair, b"orphan", b"soon")?;
                Ok((pair.client, pair.server))
            })
            .collect::<Outcome<Vec<_>>>()
            .during(&during)?
            .into_iter()
            .unzip();
        drop(clients);
        await_alone(Host::A).during(&during)?;
        drop(servers);
        await_alone(Host::B).during(&during)?;
    }
    round_trip(&keeper, b"still", b"there")?;
    prove_by_queue_pairs(ctx)
}
