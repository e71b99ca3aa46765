//! net.smc.adaptive: SMC is left out where connections are too short for it.

use super::genl::counted;
use super::settings::Changed;
use super::{join, once};
use crate::kind::{Host, Kind};
use crate::mode::{self, Mode};
use crate::runner::{Ctx, Test};
use crate::sys::Sock;
use crate::{check, check_eq, Context, Outcome};
use std::net::SocketAddr;
use std::time::Duration;

pub const TESTS: [Test; 3] = [
    once("learning.client", 120, client),
    once("learning.server", 120, server),
    once("learning.off", 60, off),
];

const PEERNOSMC: u32 = 0x0301_0000;
const NOTWORTH: u32 = 0x0301_0003;

/// Connections that are not worth it, in turn, until the next ones are TCP's (core/habits.rs).
const PATIENCE: usize = 8;
/// net.smc.adaptive_bytes
const MUCH: usize = 131_072;
/// No connection lives as long as this, in milliseconds, however slow the machine is.
const AGE: i64 = 600_000;

fn listener() -> Outcome<(Sock, SocketAddr)> {
    let listener = Sock::new(Host::B, Kind::Smc4, 0)?;
    listener.bind(Host::B.address(Kind::Smc4, 0))?;
    listener.listen(8)?;
    let address = listener.local()?;
    Ok((listener, address))
}

/// Why a connection is TCP's; 0 if it is not.
fn reason(sock: &Sock) -> Outcome<u32> {
    Ok(match mode::of(sock)? {
        Mode::Rdma => 0,
        Mode::Fallback(fallback) => fallback.reason,
    })
}

/// One connection that carries so many bytes and lives so long: why it is TCP's, to the client and to the
/// server. Both ends are closed.
fn one(listener: &Sock, bytes: usize, lasts: Duration) -> Outcome<(u32, u32)> {
    let client = Sock::new(Host::A, Kind::Smc4, 0)?;
    client.connect(listener.local()?)?;
    let server = listener.accept()?;
    let reasons = (reason(&client)?, reason(&server)?);
    let sender = std::thread::spawn(move || -> Outcome {
        client.send_all(&vec![7; bytes])?;
        client.shutdown(libc::SHUT_WR)?;
        std::thread::sleep(lasts);
        check_eq!(client.recv_to_end()?.len(), 0, "bytes for the client");
        Ok(())
    });
    check_eq!(server.recv_to_end()?.len(), bytes, "bytes for the server");
    std::thread::sleep(lasts);
    drop(server);
    join(sender)?;
    Ok(reasons)
}

fn short(listener: &Sock) -> Outcome<(u32, u32)> {
    one(listener, 100, Duration::ZERO)
}

/// Short connections until one is TCP's: how many were not, and what the last one's sides said.
fn until_tcp(listener: &Sock) -> Outcome<(usize, (u32, u32))> {
    let mut before = 0;
    loop {
        let reasons = short(listener)?;
        if reasons != (0, 0) {
            return Ok((before, reasons));
        }
        before += 1;
        check!(before <= 4 * PATIENCE, "{before} short ones, all by SMC");
    }
}

fn client(_: &Ctx) -> Outcome {
    let (listener, address) = listener()?;
    let _on = Changed::new(&[Host::A], "adaptive", 1)?;
    let _ms = Changed::new(&[Host::A], "adaptive_ms", AGE)?;
    let (before, reasons) = until_tcp(&listener)?;
    check_eq!(before, PATIENCE, "short ones by SMC");
    check_eq!(reasons, (NOTWORTH, PEERNOSMC), "the next one");
    let again = counted((Host::A, false, NOTWORTH), || {
        let sock = Sock::new(Host::A, Kind::Smc4, 0)?;
        sock.connect(address)?;
        Ok(sock)
    })?;
    drop((again, listener.accept()?));
    let (other, _) = self::listener()?;
    check_eq!(short(&other)?, (0, 0), "one to another port");
    // What TCP carries counts as well.
    check_eq!(
        one(&listener, MUCH, Duration::ZERO)?,
        (NOTWORTH, PEERNOSMC),
        "one that carries much"
    );
    let (before, _) = until_tcp(&listener).during("after one that carried much")?;
    check_eq!(before, PATIENCE, "short ones after one that carried much");
    {
        let _ms = Changed::new(&[Host::A], "adaptive_ms", 20)?;
        let long = one(&listener, 1, Duration::from_millis(40))?;
        check_eq!(long, (NOTWORTH, PEERNOSMC), "one that lives long");
    }
    let (before, _) = until_tcp(&listener).during("after one that lived long")?;
    check_eq!(before, PATIENCE, "short ones after one that lived long");
    // With time all is forgotten.
    let _forget = Changed::new(&[Host::A], "adaptive_forget", 1)?;
    std::thread::sleep(Duration::from_millis(1100));
    check_eq!(short(&listener)?, (0, 0), "one after the memory's time");
    Ok(())
}

fn server(_: &Ctx) -> Outcome {
    let (listener, _) = listener()?;
    let _on = Changed::new(&[Host::B], "adaptive", 1)?;
    let _ms = Changed::new(&[Host::B], "adaptive_ms", AGE)?;
    // Each SYN-ACK goes by what was known when the one before was accepted.
    let (before, reasons) = until_tcp(&listener)?;
    check_eq!(before, PATIENCE + 1, "short ones by SMC");
    check_eq!(reasons, (PEERNOSMC, NOTWORTH), "the next one");
    let (other, _) = self::listener()?;
    check_eq!(short(&other)?, (0, 0), "one at another port");
    one(&listener, MUCH, Duration::ZERO)?;
    check_eq!(short(&listener)?, (PEERNOSMC, NOTWORTH), "the next one");
    check_eq!(short(&listener)?, (0, 0), "one after one that carried much");
    until_tcp(&listener).during("again")?;
    drop(_on);
    short(&listener)?;
    check_eq!(short(&listener)?, (0, 0), "one after it was switched off");
    Ok(())
}

fn off(_: &Ctx) -> Outcome {
    let (listener, _) = listener()?;
    for number in 0..2 * PATIENCE {
        check_eq!(short(&listener)?, (0, 0), "short one {number}");
    }
    Ok(())
}
