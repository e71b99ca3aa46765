//! sock_diag of AF_SMC: every socket in every state, and dumps that others disturb.

use super::once;
use crate::diag::{self, Dump};
use crate::kind::{Host, Kind};
use crate::runner::{Ctx, Test};
use crate::sys::{self, Sock};
use crate::{check, check_eq, Context, Outcome};

pub const TESTS: [Test; 1] = [once("diag.unconnected", 60, unconnected)];

const SMC_KINDS: [Kind; 4] = [Kind::Smc4, Kind::Smc6, Kind::IpSmc4, Kind::IpSmc6];

/// What the kernel says about a socket, which it must know.
fn entry(sock: &Sock) -> Outcome<diag::Entry> {
    let entry = diag::of(sock).during("sock_diag")?;
    entry.ok_or_else(|| crate::Fail("sock_diag does not list the socket".into()))
}

/// Sockets that are new, bound, listening and closed.
fn unconnected(_ctx: &Ctx) -> Outcome {
    for kind in SMC_KINDS {
        let sock = Sock::new(Host::A, kind, 0)?;
        let new = entry(&sock)?;
        check_eq!(
            (new.family, new.state, new.mode, new.shutdown),
            (
                kind.arguments().0 as u8,
                diag::SMC_INIT,
                diag::SMC_DIAG_MODE_SMCR,
                0
            ),
            "family, state, mode and shutdown of a new {} socket",
            kind.name()
        );
        check_eq!(
            (new.local.port(), new.peer.port(), new.ifindex),
            (0, 0, 0),
            "ports and device"
        );
        check_eq!(
            (new.uid, new.fallback),
            (0, diag::Fallback::default()),
            "owner and fallback"
        );
        check!(
            new.conn.is_none() && new.link.is_none(),
            "a new socket has a connection"
        );
        check!(new.cookie != 0, "no cookie");
        let address = Host::A.address(kind, 0);
        sock.bind(address)?;
        sock.listen(3)?;
        let listening = entry(&sock)?;
        check_eq!(listening.state, diag::SMC_LISTEN, "state of a listener");
        check_eq!(listening.cookie, new.cookie, "cookie");
        check_eq!(listening.local, sock.local()?, "address of a listener");
        check_eq!(listening.peer.port(), 0, "a listener's peer");
        drop(sock);
        sys::enter(Host::A)?;
        check!(
            !diag::dump(0)?
                .iter()
                .any(|other| other.cookie == new.cookie),
            "a closed socket is listed"
        );
    }
    // A request without a dump flag has no answer; one that is too short, an error.
    let mut short = diag::request((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16, 0);
    short[0] = 18;
    crate::check_errno!(
        Dump::ask(&short[..18])?.part(),
        libc::EINVAL,
        "a short request"
    );
    Ok(())
}
