//! net.smc.limit_smc_hs and SMC_LIMIT_HS: a listener that is busy with handshakes takes new clients
//! as TCP connections.

use super::once;
use super::raw::{self, RawPeer};
use crate::kind::{Host, Kind};
use crate::mode::{self, Mode};
use crate::runner::{Ctx, Test};
use crate::sys::{self, Sock};
use crate::{check, check_eq, check_errno, Context, Outcome};
use std::time::Duration;

pub const TESTS: [Test; 3] = [
    once("limit.option", 60, option),
    once("limit.busy_listener", 120, busy),
    once("limit.off", 120, off),
];

const SOL_SMC: i32 = 286;
const SMC_LIMIT_HS: i32 = 1;
const BACKLOG: i32 = 8;

fn option(_: &Ctx) -> Outcome {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            if let Err(error) = set_default("0") {
                eprintln!("# cannot put net.smc.limit_smc_hs back: {error}");
            }
        }
    }
    fn set_default(value: &str) -> std::io::Result<()> {
        sys::enter(Host::B)?;
        sys::write_file("/proc/sys/net/smc/limit_smc_hs", value)
    }
    let _reset = Reset;
    for (value, default) in [("0", 0), ("1", 1)] {
        set_default(value)?;
        let sock = Sock::new(Host::B, Kind::Smc4, 0)?;
        check_eq!(
            sock.get(SOL_SMC, SMC_LIMIT_HS)?,
            default,
            "SMC_LIMIT_HS of a new socket"
        );
        for (set, expected) in [(1i32, 1), (0, 0), (7, 1)] {
            sock.set(SOL_SMC, SMC_LIMIT_HS, set)?;
            check_eq!(sock.get(SOL_SMC, SMC_LIMIT_HS)?, expected, "SMC_LIMIT_HS");
        }
        check_errno!(
            sock.set(SOL_SMC, 99, 1i32),
            libc::EOPNOTSUPP,
            "setsockopt() of an unknown option"
        );
        check_errno!(
            sock.set(SOL_SMC, SMC_LIMIT_HS, 1u8),
            libc::EINVAL,
            "setsockopt() with a short value"
        );
    }
    Ok(())
}

fn listener(limit: i32) -> Outcome<Sock> {
    raw::prepare()?;
    let listener = Sock::new(Host::B, Kind::Smc4, 0)?;
    listener.bind(Host::B.address(Kind::Smc4, 0))?;
    listener.set(SOL_SMC, SMC_LIMIT_HS, limit)?;
    listener.listen(BACKLOG)?;
    Ok(listener)
}

/// Connects clients that offer SMC and then say nothing, until one is taken as a TCP client.
fn fill(listener: &Sock, count: u16) -> Outcome<(Vec<RawPeer>, bool)> {
    let mut silent = Vec::new();
    for number in 0..count {
        let peer = RawPeer::connect(42000 + number, listener.local()?)?;
        let refused = !peer.peer_offers_smc;
        silent.push(peer);
        if refused {
            return Ok((silent, true));
        }
        // The server's side begins its handshake in the background.
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((silent, false))
}

fn busy(_: &Ctx) -> Outcome {
    let listener = listener(1)?;
    let (silent, refused) = fill(&listener, BACKLOG as u16)?;
    check!(
        refused,
        "{} handshakes of a backlog of {BACKLOG} are under way, and SMC is still negotiated",
        silent.len()
    );
    check!(
        silent.len() > BACKLOG as usize / 2,
        "SMC is refused with {} handshakes under way",
        silent.len() - 1
    );
    // A real client meanwhile: TCP, at once, and working.
    let client = Sock::new(Host::A, Kind::Smc4, 0)?;
    client.connect(listener.local()?)?;
    client.send_all(b"question")?;
    let mut server = listener.accept()?;
    // The raw client that was refused is in the queue, too.
    while server.peer()? != client.local()? {
        server = listener.accept()?;
    }
    let mut got = [0; 8];
    server.recv_all(&mut got)?;
    check_eq!(&got, b"question", "what the server received");
    for sock in [&client, &server] {
        check!(
            mode::of(sock)? != Mode::Rdma,
            "a connection beyond the limit goes by RDMA"
        );
    }
    // The silent clients go, and SMC is negotiated again.
    drop(silent);
    let mut number = 0;
    sys::eventually("SMC is negotiated again", || {
        number += 1;
        let peer = listener
            .local()
            .map_err(|error| crate::Fail(error.to_string()))
            .and_then(|address| RawPeer::connect(43000 + number, address))
            .during("a raw client")
            .map_err(|failure| std::io::Error::other(failure.0))?;
        Ok(peer.peer_offers_smc)
    })?;
    Ok(())
}

fn off(_: &Ctx) -> Outcome {
    let listener = listener(0)?;
    let (silent, refused) = fill(&listener, BACKLOG as u16)?;
    check!(
        !refused,
        "without the limit SMC is refused with {} handshakes under way",
        silent.len()
    );
    Ok(())
}
