//! Many connections.

use super::any;
use crate::kind::Host;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{Epoll, Sock};
use crate::{check, check_eq, check_errno, Context, Outcome};
use rand::seq::SliceRandom;
use rand::Rng;
use std::time::{Duration, Instant};

pub const TESTS: [Test; 4] = [
    any("many.open_at_once", 600, open_at_once),
    any("many.connect_storm", 600, connect_storm),
    any("many.listener_closes", 300, listener_closes),
    any("many.open_close", 1200, open_close),
];

/// A listener is closed while clients connect, in whatever moment of their handshakes: each of them hears of it.
fn listener_closes(ctx: &Ctx) -> Outcome {
    const CLIENTS: usize = 8;
    let rounds = (200 / ctx.divisor).max(20);
    let mut random = ctx.random(73);
    let mut made = 0;
    for round in 0..rounds {
        let (listener, address) = ctx.listener(64)?;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let client = Sock::new(Host::A, ctx.kind, libc::SOCK_NONBLOCK)?;
            check_errno!(client.connect(address), libc::EINPROGRESS, "connect()");
            clients.push(client);
        }
        std::thread::sleep(Duration::from_micros(random.gen_range(0..20_000)));
        drop(listener);
        for client in clients {
            let during = format!("round {round}");
            client.await_events(libc::POLLOUT).during(&during)?;
            let error = client.error()?;
            if error == 0 {
                made += 1;
                // Nobody has accepted it.
                client.await_events(libc::POLLIN).during(&during)?;
                check_errno!(client.recv(&mut [0; 1], 0), libc::ECONNRESET, "{during}");
                continue;
            }
            check!(
                [libc::ECONNREFUSED, libc::ECONNRESET, libc::ECONNABORTED].contains(&error),
                "{during}: connect() ended with {error}"
            );
        }
    }
    println!("# {made} of {} clients were connected", rounds * CLIENTS);
    ctx.pair().map(drop)
}

/// 200 connections are open together; each works, in any order.
fn open_at_once(ctx: &Ctx) -> Outcome {
    let count = (200 / ctx.divisor).max(20);
    let (listener, address) = ctx.listener(64)?;
    let mut pairs = Vec::new();
    for number in 0..count {
        pairs.push(
            ctx.pair_from(&listener, address)
                .during(&format!("connection {number}"))?,
        );
    }
    let mut random = ctx.random(71);
    for round in 0..3u8 {
        let mut order: Vec<usize> = (0..count).collect();
        order.shuffle(&mut random);
        for &number in &order {
            pairs[number].client.send_all(&word(number, round))?;
        }
        order.shuffle(&mut random);
        for &number in &order {
            let mut got = [0; 5];
            let Pair { client, server } = &pairs[number];
            server
                .recv_all(&mut got)
                .during(&format!("server {number}"))?;
            check_eq!(got, word(number, round), "what server {number} received");
            server.send_all(&got)?;
            client
                .recv_all(&mut got)
                .during(&format!("client {number}"))?;
            check_eq!(got, word(number, round), "what client {number} received");
        }
    }
    pairs.shuffle(&mut random);
    Ok(())
}

fn word(number: usize, round: u8) -> [u8; 5] {
    let n = (number as u32).to_ne_bytes();
    [n[0], n[1], n[2], n[3], round]
}

/// All clients connect at the same time.
fn connect_storm(ctx: &Ctx) -> Outcome {
    let count = (200 / ctx.divisor).max(20);
    let (listener, address) = ctx.listener(256)?;
    let epoll = Epoll::new()?;
    let mut clients = Vec::new();
    for number in 0..count {
        let client = Sock::new(Host::A, ctx.kind, libc::SOCK_NONBLOCK)?;
        check_errno!(
            client.connect(address),
            libc::EINPROGRESS,
            "connect() {number}"
        );
        epoll.add(&client, libc::EPOLLOUT | libc::EPOLLONESHOT, number as u64)?;
        clients.push(client);
    }
    let mut servers = Vec::new();
    for number in 0..count {
        let server = listener.accept().during(&format!("accept() {number}"))?;
        ctx.prove(Host::B, &server)?;
        servers.push(server);
    }
    let mut ready = 0;
    let end = Instant::now() + Duration::from_secs(120);
    while ready < count {
        for (number, events) in epoll.wait(Duration::from_secs(5))? {
            let client = &clients[number as usize];
            check_eq!(events, libc::EPOLLOUT, "events of client {number}");
            check_eq!(client.error()?, 0, "SO_ERROR of client {number}");
            client.set_nonblocking(false)?;
            client.send_all(&number.to_ne_bytes())?;
            ready += 1;
        }
        check!(
            Instant::now() < end,
            "only {ready} of {count} clients are connected"
        );
    }
    let mut seen = vec![false; count];
    for server in &servers {
        let mut got = [0; 8];
        server.recv_all(&mut got)?;
        let number = u64::from_ne_bytes(got) as usize;
        check!(
            number < count && !seen[number],
            "client {number} came twice"
        );
        seen[number] = true;
    }
    Ok(())
}

/// 1,000 connections, one after the other.
fn open_close(ctx: &Ctx) -> Outcome {
    let count = (1000 / ctx.divisor).max(60);
    let (listener, address) = ctx.listener(64)?;
    for number in 0..count {
        let Pair { client, server } = ctx
            .pair_from(&listener, address)
            .during(&format!("connection {number}"))?;
        let mut got = [0; 4];
        client.send_all(&(number as u32).to_ne_bytes())?;
        server.recv_all(&mut got)?;
        check_eq!(
            u32::from_ne_bytes(got) as usize,
            number,
            "what the server received"
        );
        // Either side first, in turns.
        if number % 2 == 0 {
            drop(client);
            check_eq!(server.recv(&mut got, 0)?, 0, "end of stream at the server");
        } else {
            drop(server);
            check_eq!(client.recv(&mut got, 0)?, 0, "end of stream at the client");
        }
    }
    Ok(())
}
