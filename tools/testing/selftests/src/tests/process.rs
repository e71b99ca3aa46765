//! Processes that share sockets, and processes that die with them.

use super::{any, Pattern};
use crate::kind::Host;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{Child, Sock};
use crate::{check, check_eq, Context, Outcome};
use std::collections::HashSet;

pub const TESTS: [Test; 6] = [
    any("process.fork_shares", 60, fork_shares),
    any("process.prefork_accept", 120, prefork_accept),
    any("process.kill_sender", 120, kill_sender),
    any("process.kill_receiver", 120, kill_receiver),
    any("process.kill_with_many_open", 120, kill_with_many_open),
    any("process.exit_does_not_linger", 60, exit_does_not_linger),
];

/// `SO_LINGER` makes `close` wait, but not the end of a process.
fn exit_does_not_linger(ctx: &Ctx) -> Outcome {
    let pattern = Pattern::new(ctx, 57);
    let Pair { client, server } = ctx.pair()?;
    client.set_linger(Some(3_000))?;
    let sent = pattern.fill(&client)?;
    let mut holder = Child::fork(|| {
        // Longer than the other process needs to let go.
        std::thread::sleep(std::time::Duration::from_secs(1));
        Ok(())
    })?;
    drop(client);
    holder.join("the last process that had the socket")?;
    let got = server.recv_to_end()?;
    check_eq!(got.len(), sent, "bytes that arrived");
    pattern.verify(0, &got)
}

fn fork_shares(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    let mut child = Child::fork(|| {
        pair.client.send_all(b"child")?;
        let mut got = [0; 3];
        pair.client.recv_all(&mut got)?;
        check_eq!(&got, b"you", "what the child received");
        Ok(())
    })?;
    let mut got = [0; 5];
    pair.server.recv_all(&mut got)?;
    check_eq!(&got, b"child", "what the child sent");
    pair.server.send_all(b"you")?;
    child.join("child")?;
    // The child's end is not the connection's.
    pair.client.send_all(b"still")?;
    pair.server.recv_all(&mut got)?;
    check_eq!(&got, b"still", "what the parent sent");
    Ok(())
}

/// Several processes accept from one listener, as nginx and Apache do.
fn prefork_accept(ctx: &Ctx) -> Outcome {
    const WORKERS: usize = 3;
    const CONNECTIONS: usize = 30;
    let (listener, address) = ctx.listener(64)?;
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(Child::fork(|| loop {
            let server = listener.accept()?;
            let mut got = [0; 1];
            server.recv_all(&mut got)?;
            if got[0] == b'q' {
                return Ok(());
            }
            server.send_all(&std::process::id().to_ne_bytes())?;
        })?);
    }
    let mut seen = HashSet::new();
    for _ in 0..CONNECTIONS {
        let client = ctx.connect(address)?;
        ctx.prove(Host::A, &client)?;
        client.send_all(b"w")?;
        let mut pid = [0; 4];
        client.recv_all(&mut pid)?;
        seen.insert(u32::from_ne_bytes(pid));
    }
    check!(
        seen.iter()
            .all(|&pid| workers.iter().any(|worker| worker.pid as u32 == pid)),
        "an answer came from an unknown process: {seen:?}"
    );
    for _ in 0..WORKERS {
        ctx.connect(address)?.send_all(b"q")?;
    }
    for mut worker in workers {
        worker.join("accepting")?;
    }
    Ok(())
}

/// kill -9 of the sender in the middle of a transfer, on either host.
fn kill_sender(ctx: &Ctx) -> Outcome {
    both_sides(ctx, |pattern, near, far| {
        let child = Child::fork(|| {
            let mut sent = 0;
            loop {
                let part = pattern.at(sent, 30_000);
                near.send_all(part)?;
                sent += part.len();
            }
        })?;
        // Only the child has it now: its death is the connection's end.
        drop(near);
        let mut got = 0;
        let mut part = vec![0; 65536];
        loop {
            match far.recv(&mut part, 0) {
                Ok(0) => break,
                Ok(count) => {
                    pattern.verify(got, &part[..count])?;
                    let before = got;
                    got += count;
                    if before < 1 << 20 && got >= 1 << 20 {
                        child.kill(libc::SIGKILL)?;
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => break,
                Err(error) => return Err(error.into()),
            }
        }
        check!(
            got >= 1 << 20,
            "the stream ended after {got} bytes, before the sender was killed"
        );
        Ok(())
    })
}

/// kill -9 of the receiver: the sender must learn it.
fn kill_receiver(ctx: &Ctx) -> Outcome {
    both_sides(ctx, |pattern, near, far| {
        let mut child = Child::fork(|| {
            let mut got = 0;
            let mut part = vec![0; 65536];
            while got < 1 << 20 {
                let count = far.recv(&mut part, 0)?;
                check!(count > 0, "end of stream after {got} bytes");
                pattern.verify(got, &part[..count])?;
                got += count;
            }
            // SAFETY: no pointers; the worst possible moment is as good as any other.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            Ok(())
        })?;
        drop(far);
        let mut sent = 0;
        let error = loop {
            match near.send(pattern.at(sent, 30_000), libc::MSG_NOSIGNAL) {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
        };
        check!(
            matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)),
            "send() to a killed process: {error}"
        );
        check_eq!(
            child.wait()?,
            crate::sys::Ended::Signal(libc::SIGKILL),
            "end of the receiver"
        );
        Ok(())
    })
}

fn both_sides(ctx: &Ctx, body: fn(&Pattern, Sock, Sock) -> Outcome) -> Outcome {
    let pattern = Pattern::new(ctx, 31);
    let pair = ctx.pair()?;
    body(&pattern, pair.client, pair.server).during("on the client's side")?;
    let pair = ctx.pair()?;
    body(&pattern, pair.server, pair.client).during("on the server's side")
}

/// A server process dies with 50 connections open.
fn kill_with_many_open(ctx: &Ctx) -> Outcome {
    const COUNT: usize = 50;
    let (listener, address) = ctx.listener(64)?;
    let child = Child::fork(|| {
        let mut open = Vec::new();
        loop {
            let server = listener.accept()?;
            server.send_all(b"!")?;
            open.push(server);
        }
    })?;
    drop(listener);
    let mut clients = Vec::new();
    for _ in 0..COUNT {
        let client = ctx.connect(address)?;
        ctx.prove(Host::A, &client)?;
        client.recv_all(&mut [0; 1])?;
        clients.push(client);
    }
    child.kill(libc::SIGKILL)?;
    for client in &clients {
        match client.recv(&mut [0; 1], 0) {
            Ok(0) => {}
            Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => {}
            other => check!(false, "recv() from a killed server: {other:?}"),
        }
    }
    Ok(())
}
