//! How connections end: closed, half closed, reset, killed.

use super::scripts::{expect_end, receive, send};
use super::{Script, Side, Stack};
use smc_selftest::sys::{Child, Ended, Sock};
use smc_selftest::{check, check_eq, check_errno, Context, Outcome};

pub const SCRIPTS: &[Script] = &[
    Script::new("close.half_by_client", |side| half(side, side.is_client)),
    Script::new("close.half_by_server", |side| half(side, !side.is_client)),
    Script::new("close.half_by_both", half_by_both),
    Script::new("close.whole_by_client", |side| whole(side, side.is_client)),
    Script::new("close.whole_by_server", |side| whole(side, !side.is_client)),
    Script::new("close.by_both_at_once", by_both_at_once),
    Script::new("close.unread_by_client", |side| {
        unread(side, side.is_client)
    }),
    Script::new("close.unread_by_server", |side| {
        unread(side, !side.is_client)
    }),
    Script::new("close.linger_0_by_client", |side| {
        linger_0(side, side.is_client)
    }),
    Script::new("close.linger_0_by_server", |side| {
        linger_0(side, !side.is_client)
    }),
    Script::new("close.reset_by_both_at_once", reset_by_both),
    Script::new("close.reset_of_a_writer_by_client", |side| {
        reset_of_a_writer(side, side.is_client)
    }),
    Script::new("close.reset_of_a_writer_by_server", |side| {
        reset_of_a_writer(side, !side.is_client)
    }),
    Script::new("close.reset_after_half_by_client", |side| {
        reset_after_half(side, side.is_client)
    }),
    Script::new("close.reset_after_half_by_server", |side| {
        reset_after_half(side, !side.is_client)
    }),
    Script::new("close.write_to_who_has_closed", write_to_who_has_closed),
    Script::new("kill.client", |side| kill(side, side.is_client)),
    Script::new("kill.server", |side| kill(side, !side.is_client)),
];

/// More than both rings hold.
const MUCH: usize = 300_000;

/// One side sends and says that it is done; the other one then sends all of its own.
fn half(side: &Side, first: bool) -> Outcome {
    let sock = side.connection()?;
    if first {
        send(side, &sock, 0, MUCH)?;
        sock.shutdown(libc::SHUT_WR).during("shutdown(SHUT_WR)")?;
        check_errno!(
            sock.send(b"!", libc::MSG_NOSIGNAL),
            libc::EPIPE,
            "send after SHUT_WR"
        );
        receive(side, &sock, 0, MUCH)?;
        expect_end(&sock)
    } else {
        receive(side, &sock, 0, MUCH)?;
        expect_end(&sock)?;
        send(side, &sock, 0, MUCH)
    }
}

/// Both say that they are done before either has read.
fn half_by_both(side: &Side) -> Outcome {
    let sock = side.connection()?;
    send(side, &sock, 0, 20_000)?;
    sock.shutdown(libc::SHUT_WR).during("shutdown(SHUT_WR)")?;
    side.meet("both are done")?;
    receive(side, &sock, 0, 20_000)?;
    expect_end(&sock)
}

/// One side sends and closes; the other one gets everything, and the end.
fn whole(side: &Side, first: bool) -> Outcome {
    let sock = side.connection()?;
    if first {
        send(side, &sock, 0, MUCH)?;
        drop(sock);
        side.meet("closed")?;
    } else {
        receive(side, &sock, 0, MUCH)?;
        expect_end(&sock)?;
        side.meet("all there")?;
        drop(sock);
    }
    side.await_connections(0).map(drop)
}

fn by_both_at_once(side: &Side) -> Outcome {
    for _ in 0..8 {
        let sock = side.connection()?;
        send(side, &sock, 0, 5000)?;
        receive(side, &sock, 0, 5000)?;
        side.meet("now")?;
        drop(sock);
    }
    side.await_connections(0)?;
    side.meet("closed")?;
    Ok(())
}

/// Who closes with unread data loses it for the other side, which is told so.
fn unread(side: &Side, first: bool) -> Outcome {
    let sock = side.connection()?;
    if first {
        sock.await_events(libc::POLLIN)?;
        drop(sock);
        side.meet("closed")?;
    } else {
        send(side, &sock, 0, 5000)?;
        side.meet("sent")?;
        expect_reset(side, &sock)?;
        drop(sock);
    }
    side.await_connections(0)?;
    side.meet("gone")?;
    Ok(())
}

fn linger_0(side: &Side, first: bool) -> Outcome {
    let sock = side.connection()?;
    // Not before it was accepted: C's accept() fails then.
    side.meet("accepted")?;
    if first {
        sock.set_linger(Some(0))?;
        drop(sock);
        side.meet("closed")?;
    } else {
        side.meet("closed")?;
        if side.peer == Stack::C {
            // C takes this for a close without waiting.
            expect_end(&sock)?;
        } else {
            expect_reset(side, &sock)?;
        }
        drop(sock);
    }
    side.await_connections(0)?;
    side.meet("gone")?;
    Ok(())
}

/// Both sides throw away what the other one has sent.
fn reset_by_both(side: &Side) -> Outcome {
    for _ in 0..8 {
        let sock = side.connection()?;
        send(side, &sock, 0, 5000)?;
        sock.await_events(libc::POLLIN)?;
        side.meet("now")?;
        drop(sock);
    }
    side.await_connections(0)?;
    side.meet("gone")?;
    Ok(())
}

/// One side closes with unread data while the other one waits for room to write more.
fn reset_of_a_writer(side: &Side, first: bool) -> Outcome {
    let sock = side.connection()?;
    if first {
        sock.await_events(libc::POLLIN)?;
        side.meet("full")?;
        drop(sock);
        side.meet("closed")?;
    } else {
        sock.set_nonblocking(true)?;
        // Until both buffers are full, and stay so.
        let mut quiet = 0;
        while quiet < 10 {
            match sock.send(&[0; 10_000], libc::MSG_NOSIGNAL) {
                Ok(_) => quiet = 0,
                Err(_) => quiet += 1,
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        sock.set_nonblocking(false)?;
        side.meet("full")?;
        let sent = sock.send_all(&[0; 1_000_000]);
        let error = sent.err().and_then(|error| error.raw_os_error());
        check!(
            matches!(error, Some(libc::ECONNRESET | libc::EPIPE)),
            "a blocked write to who resets gives {error:?}"
        );
        side.meet("closed")?;
        drop(sock);
    }
    side.await_connections(0)?;
    side.meet("gone")?;
    Ok(())
}

/// One side says that it is done, and then throws away what the other one has sent.
fn reset_after_half(side: &Side, first: bool) -> Outcome {
    let sock = side.connection()?;
    if first {
        send(side, &sock, 0, 1000)?;
        sock.shutdown(libc::SHUT_WR).during("shutdown(SHUT_WR)")?;
        sock.await_events(libc::POLLIN)?;
        drop(sock);
        side.meet("closed")?;
    } else {
        receive(side, &sock, 0, 1000)?;
        expect_end(&sock)?;
        send(side, &sock, 0, 1000)?;
        side.meet("closed")?;
        let mut failed = None;
        for _ in 0..100 {
            if let Err(error) = sock.send(b"!", libc::MSG_NOSIGNAL) {
                failed = error.raw_os_error();
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        check!(
            matches!(failed, Some(libc::EPIPE | libc::ECONNRESET)),
            "writing to a peer that has reset gives {failed:?}"
        );
        drop(sock);
    }
    side.await_connections(0)?;
    side.meet("gone")?;
    Ok(())
}

fn expect_reset(side: &Side, sock: &Sock) -> Outcome {
    sock.await_events(libc::POLLIN)?;
    let got = sock.recv(&mut [0; 1], 0);
    if side.own == Stack::C && matches!(got, Ok(0)) {
        // C tells readers of an end, and keeps the error.
        check_eq!(sock.error()?, libc::ECONNRESET, "SO_ERROR after a reset");
        return Ok(());
    }
    check_errno!(got, libc::ECONNRESET, "recv after a reset");
    Ok(())
}

/// Whoever writes to a peer that is gone finds out, at the second write at the latest.
fn write_to_who_has_closed(side: &Side) -> Outcome {
    let sock = side.connection()?;
    if side.is_client {
        side.meet("closed")?;
        sock.await_events(libc::POLLIN)?;
        let mut failed = None;
        for _ in 0..50 {
            match sock.send(b"!", libc::MSG_NOSIGNAL) {
                Ok(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
                Err(error) => {
                    failed = error.raw_os_error();
                    break;
                }
            }
        }
        check!(
            matches!(failed, Some(libc::EPIPE | libc::ECONNRESET)),
            "writing to a peer that has closed gives {failed:?}"
        );
    } else {
        drop(sock);
        side.meet("closed")?;
    }
    Ok(())
}

/// A process is killed with a connection open, with nothing unread: its peer gets what was sent, and the end.
fn kill(side: &Side, victim: bool) -> Outcome {
    let sock = side.connection()?;
    if victim {
        let mut child = Child::fork(|| {
            send(side, &sock, 0, 5000)?;
            loop {
                std::thread::park();
            }
        })?;
        drop(sock);
        side.meet("lives")?;
        child.kill(libc::SIGKILL)?;
        check_eq!(child.wait()?, Ended::Signal(libc::SIGKILL), "the process");
        side.meet("killed")?;
    } else {
        receive(side, &sock, 0, 5000)?;
        side.meet("all there")?;
        side.meet("killed")?;
        expect_end(&sock)?;
        drop(sock);
    }
    side.await_connections(0)?;
    side.meet("gone")?;
    Ok(())
}
