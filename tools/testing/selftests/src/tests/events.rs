//! What an administrator does while data is on its way.

use super::{join, once, Pattern};
use crate::kind::Host;
use crate::rig;
use crate::runner::{Ctx, Pair, Test};
use crate::sys;
use crate::{check, check_eq, Context, Fail, Outcome};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

pub const TESTS: [Test; 3] = [
    once("events.rmmod_in_use_is_refused", 60, rmmod_in_use),
    once("events.link_down", 300, link_down),
    once("events.rdma_link_del", 300, rdma_link_del),
];

fn rmmod_in_use(ctx: &Ctx) -> Outcome {
    let pair = ctx.pair()?;
    check!(
        rig::run(&format!("rmmod {}", rig::MODULE)).is_err(),
        "rmmod succeeded while a connection was open"
    );
    pair.client.send_all(b"x")?;
    pair.server
        .recv_all(&mut [0; 1])
        .during("the connection after a refused rmmod")?;
    drop(pair);
    // Sockets without a connection, one at a time.
    for what in ["new", "listening"] {
        sys::eventually("the module is not in use", || {
            Ok(rig::module_users().unwrap_or(usize::MAX) == 0)
        })?;
        let sock = ctx.socket(Host::B)?;
        if what == "listening" {
            sock.bind(Host::B.address(ctx.kind, 0))?;
            sock.listen(1)?;
        }
        check!(
            rig::run(&format!("rmmod {}", rig::MODULE)).is_err(),
            "rmmod succeeded while a {what} socket was open"
        );
        drop(sock);
    }
    Ok(())
}

/// A connection with data on its way until it breaks; says when the first mebibyte has arrived.
fn traffic(ctx: &Ctx) -> Outcome<(Receiver<()>, [JoinHandle<Outcome>; 2])> {
    let Pair { client, server } = ctx.pair()?;
    let pattern = Pattern::new(ctx, 95);
    let check_pattern = Pattern::new(ctx, 95);
    let (started, under_way): (Sender<()>, _) = channel();
    let sender = std::thread::spawn(move || -> Outcome {
        let mut sent = 0;
        loop {
            match client.send(pattern.at(sent, 30_000), libc::MSG_NOSIGNAL) {
                Ok(count) => sent += count,
                // That it breaks is the point; how is up to the connection.
                Err(_) => return Ok(()),
            }
        }
    });
    let receiver = std::thread::spawn(move || -> Outcome {
        let mut got = 0;
        let mut part = vec![0; 65536];
        loop {
            match server.recv(&mut part, 0) {
                // Nobody has closed: the sender's send() fails no sooner than the connection is lost.
                Ok(0) => return Err(Fail(format!("end of stream after {got} bytes"))),
                Err(_) => return Ok(()),
                Ok(count) => {
                    check_pattern.verify(got, &part[..count])?;
                    if got < 1 << 20 && got + count >= 1 << 20 {
                        // Nobody listens any more if the test has failed.
                        let _ = started.send(());
                    }
                    got += count;
                }
            }
        }
    });
    Ok((under_way, [sender, receiver]))
}

fn works_again(ctx: &Ctx) -> Outcome {
    rig::run("ip netns exec A ping -q -c 1 -W 10 10.9.0.2")?;
    for host in Host::BOTH {
        rig::await_gid(host)?;
    }
    let pair = ctx.pair().during("a new connection afterwards")?;
    pair.client.send_all(b"again")?;
    let mut got = [0; 5];
    pair.server.recv_all(&mut got)?;
    check_eq!(&got, b"again", "what the new connection carried");
    Ok(())
}

fn link_down(ctx: &Ctx) -> Outcome {
    let (under_way, threads) = traffic(ctx)?;
    under_way
        .recv_timeout(Duration::from_secs(60))
        .during("the first mebibyte")?;
    rig::run("ip -n B link set vB down")?;
    let outcome = threads
        .into_iter()
        .try_for_each(join)
        .during("traffic while the link went down");
    // The next test wants it as it was; IPv6 addresses go with the link.
    rig::run("ip -n B link set vB up")?;
    rig::run("ip -n B addr replace fd09::2/64 dev vB nodad")?;
    outcome?;
    works_again(ctx)
}

fn rdma_link_del(ctx: &Ctx) -> Outcome {
    let (under_way, threads) = traffic(ctx)?;
    under_way
        .recv_timeout(Duration::from_secs(60))
        .during("the first mebibyte")?;
    rig::run("rdma link del rxeB")?;
    let outcome = threads
        .into_iter()
        .try_for_each(join)
        .during("traffic while the RDMA device went");
    // Without the device a new connection is plain TCP, and works.
    let plain = ctx.unasked().pair().and_then(|pair| {
        pair.client.send_all(b"x")?;
        pair.server.recv_all(&mut [0; 1])?;
        Ok(())
    });
    rig::rdma_device_add(Host::B)?;
    outcome?;
    plain.during("a connection without RDMA device")?;
    works_again(ctx)
}
