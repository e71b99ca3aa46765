//! iWARP devices carry no data yet: their connections fall back, and those of other devices do not.
//!
//! The iWARP devices are siw's, built for the rig.

use super::link::{echo, fresh, queue_pairs};
use super::ports::{siw, siw_gone, Log, Restore};
use super::{join, once, Pattern};
use crate::kind::{Host, Kind};
use crate::mode::{self, Mode};
use crate::rig;
use crate::runner::{Ctx, Test};
use crate::sys::Sock;
use crate::{check, check_eq, check_errno, Context, Outcome};
use std::net::SocketAddr;

pub const TESTS: [Test; 2] = [
    once("iwarp.falls_back", 60, iwarp_falls_back),
    once(
        "iwarp.beside_and_without_roce",
        120,
        beside_and_without_roce,
    ),
];

/// iWARP devices carry no data yet: TCP does, and the log says why.
fn iwarp_falls_back(ctx: &Ctx) -> Outcome {
    let _restore = Restore::new()?;
    rig::run("ip link add sA mtu 9000 netns A type veth peer name sB mtu 9000 netns B")?;
    for (host, number) in [(Host::A, 1), (Host::B, 2)] {
        let name = host.name();
        rig::run(&format!("ip -n {name} link set s{name} up"))?;
        rig::run(&format!(
            "ip -n {name} addr add 10.9.2.{number}/24 dev s{name}"
        ))?;
        rig::run_on(
            host,
            &format!("rdma link add siw{name} type siw netdev s{name}"),
        )?;
    }
    let log = Log::begin()?;
    let server: SocketAddr = ([10, 9, 2, 2], 0).into();
    for _ in 0..3 {
        let listener = Sock::new(Host::B, Kind::Smc4, 0)?;
        listener.bind(server)?;
        listener.listen(1)?;
        let client = Sock::new(Host::A, Kind::Smc4, 0)?;
        client.connect(listener.local()?)?;
        let accepted = listener.accept()?;
        for sock in [&client, &accepted] {
            check!(
                mode::of(sock)? != Mode::Rdma,
                "a connection over an iWARP device says that it goes by RDMA"
            );
        }
        let pattern = Pattern::new(ctx, 71);
        let total = 300_000;
        let thread = std::thread::spawn(move || -> Outcome<(Sock, Vec<u8>)> {
            let got = accepted.recv_to_end()?;
            Ok((accepted, got))
        });
        let mut sent = 0;
        while sent < total {
            let part = pattern.at(sent, total - sent);
            client.send_all(part)?;
            sent += part.len();
        }
        client.shutdown(libc::SHUT_WR)?;
        let (accepted, got) = join(thread)?;
        check_eq!(got.len(), total, "bytes that arrived");
        pattern.verify(0, &got)?;
        accepted.send_all(b"answer")?;
        drop(accepted);
        check_eq!(client.recv_to_end()?, b"answer", "the answer");
    }
    // Once for each device, not for each connection.
    log.find(&["ib device siwA", "carries no data yet"])?;
    Ok(())
}

/// On a network device with both, RoCE is taken; without RoCE it is TCP.
fn beside_and_without_roce(ctx: &Ctx) -> Outcome {
    const NOSMCRDEV: u32 = 0x0303_0002;
    let _restore = Restore::new()?;
    fresh(ctx)?;
    siw(Host::A)?;
    echo(&ctx.pair()?, b"beside").during("with both devices")?;
    check_eq!(queue_pairs(Host::A)?, 1, "queue pairs of rxeA beside siwA");
    rig::run("rdma link del rxeA")?;
    let outcome = ctx.unasked().pair().and_then(|pair| {
        check_eq!(
            mode::fallback_reason(&pair.client)?,
            NOSMCRDEV,
            "the client's reason"
        );
        echo(&pair, b"without")?;
        pair.client.set_nonblocking(true)?;
        check_errno!(
            pair.client.recv(&mut [0; 1], 0),
            libc::EAGAIN,
            "recv() of nothing"
        );
        Ok(())
    });
    let gone = siw_gone(Host::A);
    rig::rdma_device_add(Host::A)?;
    outcome.during("with the iWARP device only")?;
    gone?;
    echo(&ctx.pair()?, b"as before").during("over RoCE afterwards")
}
