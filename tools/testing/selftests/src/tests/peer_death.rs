//! A peer that is gone and could not say so over RDMA: its TCP connection tells.

use super::clc::{relay, Relayed};
use super::link::{await_queue_pairs, echo, fresh, prove_by_queue_pairs, queue_pairs, works_again};
use super::network::Rules;
use super::once;
use super::raw;
use super::settings::Changed;
use crate::kind::Host;
use crate::rig;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, Sock};
use crate::{check, check_eq, Context, Fail, Outcome};
use std::time::Duration;

pub const TESTS: [Test; 7] = [
    once("peer_death.goodbye_lost", 200, goodbye_lost),
    once("peer_death.tcp_reset", 120, tcp_reset),
    once("peer_death.tcp_finished", 120, tcp_finished),
    once(
        "peer_death.tcp_finished_then_reset",
        120,
        tcp_finished_then_reset,
    ),
    once("peer_death.tcp_half_closed", 120, tcp_half_closed),
    once("peer_death.keepalive", 200, keepalive),
    once("peer_death.idle_is_left_alone", 120, idle_is_left_alone),
];

/// What `recv` says of a connection that has ended badly; it must not take for ever.
fn error_of(sock: &Sock) -> Outcome<i32> {
    sock.await_events(libc::POLLIN)
        .during("news of the end of the connection")?;
    match sock.recv(&mut [0; 16], 0) {
        Ok(count) => Err(Fail(format!("recv() gave {count} instead of an error"))),
        Err(error) => Ok(error.raw_os_error().unwrap_or(0)),
    }
}

/// A device goes while nothing gets through: neither data nor the message that says so (DELETE LINK),
/// and nobody sends TEST LINK.
fn goodbye_lost(ctx: &Ctx) -> Outcome {
    for host in Host::BOTH {
        fresh(ctx)?;
        let changed = Changed::new(&Host::BOTH, "smcr_testlink_time", 0)?;
        let idle = ctx.pair()?;
        let busy = ctx.pair()?;
        let closed = ctx.pair()?;
        drop(changed);
        let rules = [
            Rules::new(Host::A, "input", &["udp dport 4791 drop"])?,
            Rules::new(Host::B, "input", &["udp dport 4791 drop"])?,
        ];
        for end in [&busy.client, &busy.server] {
            end.send_all(b"on its way")?;
        }
        // Its end waits for a peer that will never hear of it.
        drop(closed);
        rig::run(&format!("rdma link del {}", host.rdma_device()))?;
        let errors = [&idle, &busy]
            .into_iter()
            .flat_map(|pair| [&pair.client, &pair.server])
            .map(error_of)
            .collect::<Outcome<Vec<i32>>>()
            .during(&format!("{} has gone", host.rdma_device()));
        // The side that still has its device finds out that the link is dead as well, and connections
        // that come next do not use it.
        let gone = await_queue_pairs(0);
        drop(rules);
        rig::rdma_device_add(host)?;
        gone?;
        for error in errors? {
            check!(
                [libc::ECONNRESET, libc::ECONNABORTED].contains(&error),
                "recv() failed with error {error}"
            );
        }
        works_again(ctx)?;
    }
    Ok(())
}

/// A connection over RDMA whose TCP connection goes through the raw peer.
fn relayed(ctx: &Ctx) -> Outcome<(Pair, Relayed)> {
    raw::prepare()?;
    let (listener, address) = ctx.listener(8)?;
    let mut relayed =
        relay(ctx, address, 9000, |_, message| Some(message))?.ok_or(Fail("no outcome".into()))?;
    let client = std::mem::replace(&mut relayed.outcome, Err(std::io::Error::other("taken")))
        .during("connect() through the relay")?;
    client.set_timeout(libc::SO_RCVTIMEO, Duration::from_secs(30))?;
    let server = listener.accept()?;
    ctx.prove(Host::B, &client)?;
    ctx.prove(Host::B, &server)?;
    let pair = Pair { client, server };
    echo(&pair, b"by RDMA")?;
    Ok((pair, relayed))
}

fn tcp_reset(ctx: &Ctx) -> Outcome {
    let (pair, relayed) = relayed(ctx)?;
    // Resets it.
    drop(relayed.to_server);
    check_eq!(
        error_of(&pair.server).during("the side whose TCP was reset")?,
        libc::ECONNRESET,
        "error of recv()"
    );
    // The client has heard of it over RDMA.
    check_eq!(
        error_of(&pair.client).during("its peer")?,
        libc::ECONNRESET,
        "error of recv()"
    );
    check_eq!(pair.client.error()?, 0, "SO_ERROR once it was told");
    Ok(())
}

fn tcp_finished(ctx: &Ctx) -> Outcome {
    let (pair, mut relayed) = relayed(ctx)?;
    relayed.to_client.finish()?;
    // What still comes over RDMA is not lost.
    pair.server.send_all(b"last words")?;
    let mut got = [0; 10];
    pair.client.recv_all(&mut got)?;
    check_eq!(&got, b"last words", "what came after the FIN");
    check_eq!(
        error_of(&pair.client).during("the side whose TCP has ended")?,
        libc::ECONNRESET,
        "error of recv()"
    );
    check_eq!(
        error_of(&pair.server).during("its peer")?,
        libc::ECONNRESET,
        "error of recv()"
    );
    Ok(())
}

/// TCP calls a reset behind a FIN `EPIPE`, but of SMC's stream there was no end.
fn tcp_finished_then_reset(ctx: &Ctx) -> Outcome {
    let (pair, mut relayed) = relayed(ctx)?;
    relayed.to_client.finish()?;
    // Resets it.
    drop(relayed.to_client);
    for (end, whose) in [
        (&pair.client, "the side whose TCP has ended"),
        (&pair.server, "its peer"),
    ] {
        check_eq!(
            error_of(end).during(whose)?,
            libc::ECONNRESET,
            "error of recv()"
        );
    }
    Ok(())
}

/// A peer that writes no more may end its direction of TCP as well: C's `shutdown` does.
fn tcp_half_closed(ctx: &Ctx) -> Outcome {
    let (pair, mut relayed) = relayed(ctx)?;
    pair.client.shutdown(libc::SHUT_WR)?;
    check_eq!(pair.server.recv_to_end()?.len(), 0, "bytes before the end");
    relayed.to_server.finish()?;
    // Longer than the peer's last message is waited for.
    std::thread::sleep(Duration::from_secs(8));
    pair.server.send_all(b"the other direction")?;
    let mut got = [0; 19];
    pair.client.recv_all(&mut got)?;
    check_eq!(&got, b"the other direction", "after the FIN");
    // A reset is the end of that, too.
    drop(relayed.to_server);
    pair.server.await_events(libc::POLLERR)?;
    check_eq!(
        pair.server
            .send(b"x", libc::MSG_NOSIGNAL)
            .map_err(|error| error.raw_os_error()),
        Err(Some(libc::EPIPE)),
        "send() after the end of a half closed connection, as TCP's"
    );
    Ok(())
}

/// The whole network is gone, and nobody sends TEST LINK: TCP's keepalive notices.
fn keepalive(ctx: &Ctx) -> Outcome {
    fresh(ctx)?;
    let changed = Changed::new(&Host::BOTH, "smcr_testlink_time", 0)?;
    let pair = ctx.pair()?;
    drop(changed);
    echo(&pair, b"before")?;
    for (option, value) in [
        (libc::TCP_KEEPIDLE, 1),
        (libc::TCP_KEEPINTVL, 1),
        (libc::TCP_KEEPCNT, 3),
    ] {
        pair.server.set(libc::IPPROTO_TCP, option, value)?;
    }
    pair.server.set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    let rules = [
        Rules::new(Host::A, "input", &["drop"])?,
        Rules::new(Host::B, "input", &["drop"])?,
    ];
    let error = error_of(&pair.server).during("the side that keeps alive");
    drop(rules);
    check_eq!(error?, libc::ETIMEDOUT, "error of recv()");
    // The network is back, and the peer hears of it: over RDMA, but for a link that was given up before.
    let heard =
        || -> std::io::Result<bool> { Ok(pair.client.poll(libc::POLLIN, Duration::ZERO)? != 0) };
    sys::eventually("word for the peer, or the end of the link", || {
        Ok(heard()? || queue_pairs(Host::B)? == 0)
    })?;
    if !heard()? {
        pair.client.keep_alive()?;
    }
    check_eq!(
        error_of(&pair.client).during("its peer")?,
        libc::ECONNRESET,
        "error of recv()"
    );
    works_again(ctx)
}

/// Without keepalive a network that is gone for a while harms nobody, as with TCP.
fn idle_is_left_alone(ctx: &Ctx) -> Outcome {
    fresh(ctx)?;
    let changed = Changed::new(&Host::BOTH, "smcr_testlink_time", 0)?;
    let pair = ctx.pair()?;
    drop(changed);
    let rules = [
        Rules::new(Host::A, "input", &["drop"])?,
        Rules::new(Host::B, "input", &["drop"])?,
    ];
    std::thread::sleep(Duration::from_secs(8));
    drop(rules);
    echo(&pair, b"still there")?;
    prove_by_queue_pairs(ctx)
}
