//! Urgent data between the two.

use super::{Script, Side, Stack};
use smc_selftest::sys::{cvt, Sock};
use smc_selftest::{check, check_eq, Context, Outcome};
use std::os::fd::AsRawFd;

pub const SCRIPTS: &[Script] = &[
    Script::new("urgent.from_client", |side| {
        out_of_line(side, side.is_client)
    }),
    Script::new("urgent.from_server", |side| {
        out_of_line(side, !side.is_client)
    }),
    Script::new("urgent.inline_from_client", |side| {
        inline(side, side.is_client)
    }),
    Script::new("urgent.inline_from_server", |side| {
        inline(side, !side.is_client)
    }),
];

const SIOCATMARK: libc::c_ulong = 0x8905;

fn at_mark(sock: &Sock) -> Outcome<bool> {
    let mut mark = 0i32;
    // SAFETY: SIOCATMARK writes an int.
    cvt(unsafe { libc::ioctl(sock.as_raw_fd(), SIOCATMARK as _, &raw mut mark) })
        .during("ioctl(SIOCATMARK)")?;
    Ok(mark != 0)
}

fn read_to_mark(sock: &Sock) -> Outcome<Vec<u8>> {
    let mut all = Vec::new();
    let mut part = [0; 100];
    while !at_mark(sock)? {
        let got = sock.recv(&mut part, 0)?;
        check!(got > 0, "end of stream before the mark");
        all.extend_from_slice(&part[..got]);
    }
    Ok(all)
}

fn talk(sock: &Sock, word: u8) -> Outcome {
    sock.send_all(b"abc")?;
    check_eq!(sock.send(&[b'x', word], libc::MSG_OOB)?, 2, "send(MSG_OOB)");
    // Waits at the sender until the urgent byte was read or passed.
    sock.send_all(b"def")?;
    Ok(())
}

fn out_of_line(side: &Side, speaks: bool) -> Outcome {
    let sock = side.connection()?;
    for word in *b"!?" {
        if speaks {
            talk(&sock, word)?;
        } else {
            sock.await_events(libc::POLLPRI)?;
            // C passes the urgent byte with the one before it, and so is never at the mark.
            if side.own == Stack::Rust {
                check_eq!(read_to_mark(&sock)?, b"abcx", "what is before the mark");
            } else {
                let mut before = [0; 4];
                sock.recv_all(&mut before)?;
                check_eq!(&before, b"abcx", "what is before the mark");
            }
            let mut byte = [0; 2];
            check_eq!(sock.recv(&mut byte, libc::MSG_OOB)?, 1, "recv(MSG_OOB)");
            check_eq!(byte[0], word, "the urgent byte");
            let mut rest = [0; 3];
            sock.recv_all(&mut rest)?;
            check_eq!(&rest, b"def", "what is behind the mark");
        }
        side.meet("next")?;
    }
    Ok(())
}

fn inline(side: &Side, speaks: bool) -> Outcome {
    let sock = side.connection()?;
    if speaks {
        side.meet("inline")?;
        talk(&sock, b'!')?;
    } else {
        sock.set(libc::SOL_SOCKET, libc::SO_OOBINLINE, 1i32)?;
        side.meet("inline")?;
        sock.await_events(libc::POLLPRI)?;
        check_eq!(read_to_mark(&sock)?, b"abcx", "what is before the mark");
        let mut rest = [0; 4];
        sock.recv_all(&mut rest)?;
        check_eq!(&rest, b"!def", "the urgent byte and what is behind it");
    }
    side.meet("all there")?;
    Ok(())
}
