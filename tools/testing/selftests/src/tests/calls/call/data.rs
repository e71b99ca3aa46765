//! Data from and to memory.

use super::*;

pub(super) fn sendto(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (place, length) = hand.data();
    let flags = hand.flags();
    let (name, name_length) = match hand.random.gen_range(0..4) {
        0 => {
            let (address, length) = hand.address();
            (hand.put(&address), length)
        }
        _ => (0, 0),
    };
    let result = raw(
        libc::SYS_sendto,
        &[fd, place, length, flags, name, arg(name_length)],
    );
    bytes(result, length)
}

pub(super) fn recvfrom(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (place, length) = hand.data();
    let flags = hand.flags();
    let (name, name_length) = name_and_length(hand);
    let result = raw(
        libc::SYS_recvfrom,
        &[fd, place, length, flags, name, name_length],
    );
    received(result, length, flags)
}

/// With `MSG_TRUNC` raw sockets and others of datagrams tell the length of the whole datagram.
fn received(result: i64, length: usize, flags: usize) -> Made {
    if flags & arg(libc::MSG_TRUNC) == 0 {
        bytes(result, length)
    } else {
        any(result)
    }
}

pub(super) fn sendmsg(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (message, most) = hand.message(true);
    let (place, flags) = (hand.put(&message), hand.flags());
    bytes(raw(libc::SYS_sendmsg, &[fd, place, flags]), most)
}

pub(super) fn recvmsg(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (message, most) = hand.message(false);
    let (place, flags) = (hand.put(&message), hand.flags());
    received(raw(libc::SYS_recvmsg, &[fd, place, flags]), most, flags)
}

/// Several messages, each followed by its count.
fn messages(hand: &mut Hand, to_send: bool) -> (usize, usize) {
    let mut all = Vec::new();
    let count = hand.random.gen_range(1..4);
    for _ in 0..count {
        all.extend(hand.message(to_send).0);
        all.extend([0; 8]);
    }
    let told = if hand.once_in(10) {
        hand.int() as usize & 3
    } else {
        count
    };
    (hand.put(&all), told)
}

pub(super) fn sendmmsg(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (place, count) = messages(hand, true);
    let flags = hand.flags();
    bytes(raw(libc::SYS_sendmmsg, &[fd, place, count, flags]), count)
}

pub(super) fn recvmmsg(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (place, count) = messages(hand, false);
    let mut flags = hand.flags();
    if count > 1 {
        // Interrupted behind the first message, the kernel makes its own 512 (ERESTARTSYS) the socket's error, also of TCP's
        // (`do_recvmmsg`).
        flags |= arg(libc::MSG_DONTWAIT);
    }
    let limit = match hand.random.gen_range(0..3) {
        0 => {
            let (seconds, nanoseconds) = (hand.one(&[0, 0, -1]), hand.int() as usize);
            hand.put(&words(&[seconds as usize, nanoseconds]))
        }
        _ => 0,
    };
    bytes(
        raw(libc::SYS_recvmmsg, &[fd, place, count, flags, limit]),
        count,
    )
}

pub(super) fn write(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (place, length) = hand.data();
    bytes(raw(libc::SYS_write, &[fd, place, length]), length)
}

pub(super) fn read(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (place, length) = hand.data();
    bytes(raw(libc::SYS_read, &[fd, place, length]), length)
}

pub(super) fn writev(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (vector, count, most) = hand.vector();
    bytes(raw(libc::SYS_writev, &[fd, vector, count]), most)
}

pub(super) fn readv(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (vector, count, most) = hand.vector();
    bytes(raw(libc::SYS_readv, &[fd, vector, count]), most)
}

/// At the place where the file is, which is the only one that a socket has, or at another.
fn at_place(hand: &mut Hand, number: libc::c_long) -> Made {
    let fd = hand.sock();
    let (vector, count, most) = hand.vector();
    let offset = hand.one(&[-1, -1, -1, 0, 7, i64::MAX, i64::MIN]) as usize;
    let flags = hand.one(&[0, 0, 8 /* RWF_NOWAIT */, 1, 0x20, -1]);
    bytes(
        raw(number, &[fd, vector, count, offset, 0, arg(flags)]),
        most,
    )
}

pub(super) fn pwritev2(hand: &mut Hand) -> Made {
    at_place(hand, libc::SYS_pwritev2)
}

pub(super) fn preadv2(hand: &mut Hand) -> Made {
    at_place(hand, libc::SYS_preadv2)
}
