//! Much data: nothing lost, nothing doubled, nothing out of place.

use super::network::Rules;
use super::{any, join, once, Pattern};
use crate::kind::{Expect, Host};
use crate::rig::SoftRoce;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::Sock;
use crate::{check, check_eq, Context, Outcome};
use rand::Rng;
use sha2::{Digest, Sha256};
use std::thread::JoinHandle;

pub const TESTS: [Test; 8] = [
    any("stream.random_sizes_both_ways", 400, random_sizes_both_ways),
    any("stream.small_messages", 200, small_messages),
    once("stream.nodelay", 60, nodelay),
    any("stream.cork_and_poll", 60, cork_and_poll),
    any("stream.ping_pong_growing", 200, ping_pong_growing),
    any("stream.slow_reader", 200, slow_reader),
    any("stream.send_buffer_grows", 200, send_buffer_grows),
    any("stream.bulk_sha256", 900, bulk_sha256),
];

/// Reads so many bytes, all of which are compared.
fn read_and_compare(sock: Sock, pattern: Pattern, total: usize) -> JoinHandle<Outcome> {
    std::thread::spawn(move || {
        let mut got = 0;
        let mut room = vec![0; 50_000];
        while got < total {
            let n = sock.recv(&mut room, 0).during("recv()")?;
            check!(n > 0, "end of stream after {got} bytes");
            pattern.verify(got, &room[..n])?;
            got += n;
        }
        Ok(())
    })
}

/// A corked writer that writes whenever poll() says that it can does not stand still: with a pause for each buffer it would be
/// stopped by the limit of time, at full size.
fn cork_and_poll(ctx: &Ctx) -> Outcome {
    let total = 8 * 1024 * 1024 / ctx.divisor;
    let (listener, address) = ctx.listener(8)?;
    let client = ctx.socket(Host::A)?;
    // One of a chosen size does not grow.
    client.set(libc::SOL_SOCKET, libc::SO_SNDBUF, 20_000)?;
    client.connect(address)?;
    let server = listener.accept()?;
    ctx.prove(Host::A, &client)?;
    client.set(libc::IPPROTO_TCP, libc::TCP_CORK, 1)?;
    client.set_nonblocking(true)?;
    let reader = read_and_compare(server, Pattern::new(ctx, 46), total);
    let pattern = Pattern::new(ctx, 46);
    let mut sent = 0;
    while sent < total {
        client.await_events(libc::POLLOUT)?;
        sent += client
            .send(pattern.at(sent, (total - sent).min(4096)), 0)
            .during("send() when poll() says that there is room")?;
    }
    client.set(libc::IPPROTO_TCP, libc::TCP_CORK, 0)?;
    join(reader)
}

/// A send buffer grows under a writer that it holds up, but not one of a size that was chosen. Every byte is compared.
fn send_buffer_grows(ctx: &Ctx) -> Outcome {
    let total = 16 * 1024 * 1024 / ctx.divisor;
    let (listener, address) = ctx.listener(8)?;
    for chosen in [None, Some(20_000)] {
        let client = ctx.socket(Host::A)?;
        if let Some(size) = chosen {
            client.set(libc::SOL_SOCKET, libc::SO_SNDBUF, size)?;
        }
        client.connect(address)?;
        let server = listener.accept()?;
        ctx.prove(Host::A, &client)?;
        let size = || client.get(libc::SOL_SOCKET, libc::SO_SNDBUF);
        let reader = read_and_compare(server, Pattern::new(ctx, 45), total);
        let pattern = Pattern::new(ctx, 45);
        let before = size()?;
        // The first writes are small: they are under way while the ring is exchanged.
        let mut sent = 0;
        for length in (1..).map(|round: usize| (round * 1000).min(64 * 1024)) {
            let part = pattern.at(sent, (total - sent).min(length));
            client.send_all(part).during("send()")?;
            sent += part.len();
            if sent == total {
                break;
            }
        }
        join(reader)?;
        let after = size()?;
        match chosen {
            // TCP's need not: it may have been large enough when the connection was made.
            None if ctx.kind.expect() == Expect::Rdma => {
                check!(after > before, "SO_SNDBUF is {after} and was {before}")
            }
            None => check!(after >= before, "SO_SNDBUF is {after} and was {before}"),
            Some(_) => check_eq!(after, before, "SO_SNDBUF that was chosen"),
        }
    }
    Ok(())
}

/// 256 MiB one way, with the SHA-256 of what was sent and of what arrived.
fn bulk_sha256(ctx: &Ctx) -> Outcome {
    let total = 256 * 1024 * 1024 / ctx.divisor;
    let pair = ctx.pair()?;
    let pattern = Pattern::new(ctx, 41);
    let client = pair.client;
    let sender = std::thread::spawn(move || -> Outcome<[u8; 32]> {
        let mut hash = Sha256::new();
        let mut sent = 0;
        while sent < total {
            let part = pattern.at(sent, (total - sent).min(64 * 1024));
            hash.update(part);
            client.send_all(part)?;
            sent += part.len();
        }
        Ok(hash.finalize().into())
    });
    let mut hash = Sha256::new();
    let mut part = vec![0; 256 * 1024];
    let mut got = 0;
    loop {
        let count = pair.server.recv(&mut part, 0)?;
        if count == 0 {
            break;
        }
        hash.update(&part[..count]);
        got += count;
    }
    let sent = join(sender).during("sender")?;
    check_eq!(got, total, "bytes that arrived");
    let received: [u8; 32] = hash.finalize().into();
    check_eq!(received, sent, "SHA-256 of what arrived");
    Ok(())
}

/// Sends a pattern in pieces of random sizes.
fn send_random(ctx: &Ctx, sock: &Sock, stream: u64, total: usize) -> impl FnOnce() -> Outcome {
    let pattern = Pattern::new(ctx, stream);
    let mut random = ctx.random(stream + 100);
    let sock = sock.dup();
    move || {
        let sock = sock?;
        let mut sent = 0;
        while sent < total {
            // Small, middle and large ones, each often enough.
            let most = [16, 1500, 65_000][random.gen_range(0..3)];
            let size = random.gen_range(1..=most).min(total - sent);
            let count = sock
                .send(pattern.at(sent, size), libc::MSG_NOSIGNAL)
                .during("send()")?;
            check!(count > 0, "send() of {size} bytes returned 0");
            sent += count;
        }
        sock.shutdown(libc::SHUT_WR)?;
        Ok(())
    }
}

fn receive_random(ctx: &Ctx, sock: &Sock, stream: u64, total: usize) -> impl FnOnce() -> Outcome {
    let pattern = Pattern::new(ctx, stream);
    let mut random = ctx.random(stream + 200);
    let sock = sock.dup();
    move || {
        let sock = sock?;
        let mut got = 0;
        let mut part = vec![0; 100_000];
        loop {
            let most = [16, 1500, 100_000][random.gen_range(0..3)];
            let size = random.gen_range(1..=most);
            let count = sock.recv(&mut part[..size], 0).during("recv()")?;
            if count == 0 {
                break;
            }
            pattern.verify(got, &part[..count])?;
            got += count;
        }
        check_eq!(got, total, "bytes that arrived");
        Ok(())
    }
}

fn random_sizes_both_ways(ctx: &Ctx) -> Outcome {
    let total = 16 * 1024 * 1024 / ctx.divisor;
    let pair = ctx.pair()?;
    let threads = [
        (
            "client sends",
            std::thread::spawn(send_random(ctx, &pair.client, 51, total)),
        ),
        (
            "server sends",
            std::thread::spawn(send_random(ctx, &pair.server, 52, total)),
        ),
        (
            "server receives",
            std::thread::spawn(receive_random(ctx, &pair.server, 51, total)),
        ),
        (
            "client receives",
            std::thread::spawn(receive_random(ctx, &pair.client, 52, total)),
        ),
    ];
    for (who, thread) in threads {
        join(thread).during(who)?;
    }
    Ok(())
}

/// One byte after the other: what autocorking has to keep in order.
fn small_messages(ctx: &Ctx) -> Outcome {
    let total = 20_000 / ctx.divisor;
    let pair = ctx.pair()?;
    let pattern = Pattern::new(ctx, 61);
    let check_pattern = Pattern::new(ctx, 61);
    let client = pair.client;
    let thread = std::thread::spawn(move || -> Outcome {
        for at in 0..total {
            client.send_all(pattern.at(at, 1))?;
        }
        Ok(())
    });
    let got = pair.server.recv_to_end()?;
    join(thread)?;
    check_eq!(got.len(), total, "bytes that arrived");
    check_pattern.verify(0, &got)
}

/// With `TCP_NODELAY` a second small message does not wait until the device has told of the first one, which it cannot while
/// no acknowledgement comes.
fn nodelay(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    client.set(libc::SOL_TCP, libc::TCP_NODELAY, 1)?;
    client.send_all(b"0")?;
    server.recv_all(&mut [0])?;
    let roce = match SoftRoce::here() {
        SoftRoce::Stock => "udp dport 4791 counter drop",
        // Not of IP.
        SoftRoce::V1 | SoftRoce::Adapter => return Ok(()),
    };
    let deaf = Rules::new(Host::A, "input", &[roce])?;
    for message in [b"a", b"b"] {
        client.send_all(message)?;
    }
    let mut got = [0; 2];
    server.recv_all(&mut got)?;
    check_eq!(&got, b"ab", "what came");
    check!(deaf.seen()? > 0, "no acknowledgement was lost");
    drop(deaf);
    server.send_all(b"c")?;
    client.recv_all(&mut got[..1])?;
    check_eq!(got[0], b'c', "what came back");
    Ok(())
}

/// Messages of every size around the ring's and the pages' edges, each answered.
fn ping_pong_growing(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let pattern = Pattern::new(ctx, 62);
    let sizes: Vec<usize> = [
        1usize, 2, 3, 7, 8, 9, 43, 44, 45, 63, 64, 65, 1023, 1024, 1025,
    ]
    .into_iter()
    .chain((12..=18).flat_map(|power| {
        let size = 1usize << power;
        [size - 1, size, size + 1]
    }))
    .collect();
    let largest = sizes.iter().copied().max().unwrap_or(1);
    let all = sizes.clone();
    let server = pair.server;
    let thread = std::thread::spawn(move || -> Outcome {
        let mut buffer = vec![0; largest];
        for size in all {
            server
                .recv_all(&mut buffer[..size])
                .during(&format!("server, {size} bytes"))?;
            server.send_all(&buffer[..size])?;
        }
        Ok(())
    });
    let mut buffer = vec![0; largest];
    let mut offset = 0;
    for size in sizes {
        let mut sent = 0;
        while sent < size {
            let part = pattern.at(offset + sent, size - sent);
            pair.client.send_all(part)?;
            sent += part.len();
        }
        pair.client
            .recv_all(&mut buffer[..size])
            .during(&format!("client, {size} bytes"))?;
        pattern.verify(offset, &buffer[..size])?;
        offset += size;
    }
    join(thread)
}

/// The window closes and opens many times.
fn slow_reader(ctx: &Ctx) -> Outcome {
    let total = 4 * 1024 * 1024 / ctx.divisor;
    let pair = ctx.pair()?;
    let pattern = Pattern::new(ctx, 63);
    let check_pattern = Pattern::new(ctx, 63);
    let mut random = ctx.random(64);
    let client = pair.client;
    let thread = std::thread::spawn(move || -> Outcome {
        let mut sent = 0;
        while sent < total {
            let part = pattern.at(sent, total - sent);
            client.send_all(part)?;
            sent += part.len();
        }
        Ok(())
    });
    let mut got = 0;
    let mut part = vec![0; 200_000];
    loop {
        let size = random.gen_range(1..=part.len());
        let count = pair.server.recv(&mut part[..size], 0)?;
        if count == 0 {
            break;
        }
        check_pattern.verify(got, &part[..count])?;
        got += count;
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    join(thread)?;
    check_eq!(got, total, "bytes that arrived");
    Ok(())
}
