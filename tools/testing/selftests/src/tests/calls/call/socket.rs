//! Sockets: how they are made, connected, named and set.

use super::*;

pub(super) fn socket(hand: &mut Hand) -> Made {
    let (family, protocol) = match hand.random.gen_range(0..10) {
        0..3 => (AF_SMC, hand.one(&[0, 0, 1, 1, 2, -1])),
        3..5 => (libc::AF_INET, IPPROTO_SMC),
        5 => (libc::AF_INET6, IPPROTO_SMC),
        6..8 => (libc::AF_INET, hand.one(&[0, libc::IPPROTO_TCP])),
        8 => (libc::AF_INET6, hand.one(&[0, libc::IPPROTO_TCP, 262])),
        _ => (hand.one(&[AF_SMC, libc::AF_INET]), hand.int()),
    };
    let mut kind = libc::SOCK_STREAM;
    if hand.once_in(12) {
        kind = hand.random.gen_range(-1..12);
    }
    if !hand.once_in(4) {
        kind |= libc::SOCK_NONBLOCK;
    }
    if hand.once_in(2) {
        kind |= libc::SOCK_CLOEXEC;
    }
    let result = raw(libc::SYS_socket, &[arg(family), arg(kind), arg(protocol)]);
    hand.table.add(result, What::Socket);
    any(result)
}

/// Of SMC there are none; of AF_UNIX for what is passed.
pub(super) fn socketpair(hand: &mut Hand) -> Made {
    let (family, protocol) = hand.one(&[
        (libc::AF_UNIX, 0),
        (libc::AF_UNIX, 0),
        (AF_SMC, 0),
        (libc::AF_INET, IPPROTO_SMC),
    ]);
    let place = hand.arena.put(&[0; 8]);
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK;
    let ends = if hand.once_in(20) {
        hand.arena.nowhere(&mut hand.random)
    } else {
        place
    };
    let result = raw(
        libc::SYS_socketpair,
        &[arg(family), arg(kind), arg(protocol), ends],
    );
    if result >= 0 {
        add_two(hand, ends, [What::Unix, What::Unix]);
    }
    any(result)
}

pub(super) fn bind(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (address, length) = hand.address();
    let place = hand.put(&address);
    any(raw(libc::SYS_bind, &[fd, place, arg(length)]))
}

pub(super) fn listen(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let backlog = hand.int();
    let result = raw(libc::SYS_listen, &[fd, arg(backlog)]);
    if result >= 0 {
        hand.table.add(fd as i64, What::Listener);
        // Where others may connect to.
        let name = hand.arena.put(&[0; 32]);
        let length = hand.arena.put(&32u32.to_ne_bytes());
        if raw(libc::SYS_getsockname, &[fd, name, length]) >= 0 {
            let bytes = hand.arena.get(name, 4);
            hand.table
                .add_port(u16::from_be_bytes([bytes[2], bytes[3]]));
        }
    }
    any(result)
}

pub(super) fn connect(hand: &mut Hand) -> Made {
    // Most of those that are there are connected.
    let fd = match hand.once_in(3) {
        true => hand.sock(),
        false => socket(hand).result as usize,
    };
    let (address, length) = hand.address();
    let place = hand.put(&address);
    any(raw(libc::SYS_connect, &[fd, place, arg(length)]))
}

pub(super) fn accept(hand: &mut Hand) -> Made {
    let fd = match hand.once_in(10) {
        true => hand.sock(),
        false => hand.of(What::Listener),
    };
    let (name, length) = name_and_length(hand);
    let flags = hand.one(&[
        libc::SOCK_NONBLOCK,
        libc::SOCK_NONBLOCK,
        libc::SOCK_CLOEXEC,
        0,
        0x40,
        -1,
    ]);
    let result = raw(libc::SYS_accept4, &[fd, name, length, arg(flags)]);
    hand.table.add(result, What::Socket);
    any(result)
}

pub(super) fn shutdown(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let how = hand.one(&[0, 1, 1, 2, 3, -1]);
    any(raw(libc::SYS_shutdown, &[fd, arg(how)]))
}

pub(super) fn getsockname(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (name, length) = name_and_length(hand);
    any(raw(libc::SYS_getsockname, &[fd, name, length]))
}

pub(super) fn getpeername(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (name, length) = name_and_length(hand);
    any(raw(libc::SYS_getpeername, &[fd, name, length]))
}

/// Level and name: all that there are, and some that there are not.
fn option(hand: &mut Hand) -> (i32, i32) {
    match hand.random.gen_range(0..12) {
        0..5 => (libc::SOL_SOCKET, hand.random.gen_range(1..90)),
        5..9 => (libc::IPPROTO_TCP, hand.random.gen_range(1..48)),
        9 => (libc::IPPROTO_IP, hand.random.gen_range(1..60)),
        10 => (libc::IPPROTO_IPV6, hand.random.gen_range(1..82)),
        _ => {
            let level = hand.one(&[
                286, /* SOL_SMC */
                282, /* SOL_TLS */
                284, /* SOL_MPTCP */
                AF_SMC, -1,
            ]);
            (level, hand.random.gen_range(-1..10))
        }
    }
}

pub(super) fn getsockopt(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (level, name) = option(hand);
    let told = match hand.random.gen_range(0..4) {
        0 => hand.int(),
        1 => 4,
        _ => hand.random.gen_range(0..600),
    };
    let (place, length) = (hand.put(&[0; 600]), hand.put(&told.to_ne_bytes()));
    any(raw(
        libc::SYS_getsockopt,
        &[fd, arg(level), arg(name), place, length],
    ))
}

pub(super) fn setsockopt(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (level, name) = option(hand);
    let value: Vec<u8> = match hand.random.gen_range(0..10) {
        0..5 => hand.int().to_ne_bytes().into(),
        // A time limit, a lingering: both are of two numbers.
        5..7 => {
            let (first, second) = (hand.int(), hand.int());
            match hand.once_in(2) {
                true => [first.to_ne_bytes(), second.to_ne_bytes()].concat(),
                false => [
                    i64::from(first).to_ne_bytes(),
                    i64::from(second).to_ne_bytes(),
                ]
                .concat(),
            }
        }
        7 => hand
            .one(&["smc", "tls", "cubic", "reno", "espintcp", "vA", ""])
            .into(),
        _ => {
            let length = hand.random.gen_range(0..300);
            vec![hand.random.gen(); length]
        }
    };
    let length = match hand.random.gen_range(0..10) {
        0 => hand.int(),
        _ => value.len() as i32,
    };
    let place = hand.put(&value);
    any(raw(
        libc::SYS_setsockopt,
        &[fd, arg(level), arg(name), place, arg(length)],
    ))
}

pub(super) fn ioctl(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let request = match hand.random.gen_range(0..10) {
        // No number of the network's: those change devices and routes.
        0 => 0x4000_0000 | u64::from(hand.random.gen::<u16>()),
        1..3 => hand.one(&[libc::FIONBIO, libc::FIOASYNC, libc::FIOCLEX, libc::FIONCLEX]),
        _ => hand.one(&[
            libc::FIONREAD,
            libc::TIOCOUTQ,
            0x894b, // SIOCOUTQNSD
            0x8905, // SIOCATMARK
            0x8906, // SIOCGSTAMP
            0x8907, // SIOCGSTAMPNS
            0x8903, // FIOGETOWN
            0x8904, // SIOCGPGRP
            0x894c, // SIOCGSKNS
            0x8912, // SIOCGIFCONF
            0x8913, // SIOCGIFFLAGS
            0x8927, // SIOCGIFHWADDR
            0x5401, // TCGETS
        ]),
    };
    let value = hand.int();
    let bytes = [&value.to_ne_bytes()[..], &[0; 60]].concat();
    let argument = hand.put(&bytes);
    let result = raw(libc::SYS_ioctl, &[fd, request as usize, argument]);
    if request == 0x894c {
        hand.table.add(result, What::File);
    }
    any(result)
}
