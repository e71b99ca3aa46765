//! Random scripts.

use super::op::{End, Op};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::Rng;

const SIOCATMARK: libc::c_ulong = 0x8905;
const SIOCOUTQNSD: libc::c_ulong = 0x894b;

/// Bytes that may wait in one direction: no buffer is ever full, as the sizes of those differ.
const MOST_UNREAD: usize = 8_000;

/// An option whose value is an `int`, and values to set it to; none: it is only read.
type IntOption = (i32, i32, &'static [i32]);

const SOCKET_OPTIONS: &[IntOption] = &[
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE, &[0, 1]),
    (libc::SOL_SOCKET, libc::SO_REUSEADDR, &[0, 1]),
    (libc::SOL_SOCKET, libc::SO_REUSEPORT, &[0, 1]),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE, &[0, 1]),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT, &[0, 1, 5, 300, 3000]),
    (libc::SOL_SOCKET, libc::SO_PEEK_OFF, &[-1, 0, 3, 300]),
    (libc::SOL_SOCKET, libc::SO_PRIORITY, &[0, 3, 6]),
    (libc::SOL_SOCKET, libc::SO_MARK, &[0, 7]),
    (libc::SOL_SOCKET, libc::SO_BROADCAST, &[0, 1]),
    (libc::SOL_SOCKET, libc::SO_DONTROUTE, &[0, 1]),
    (libc::SOL_SOCKET, libc::SO_TYPE, &[]),
    (libc::SOL_SOCKET, libc::SO_ACCEPTCONN, &[]),
    (libc::SOL_SOCKET, libc::SO_ERROR, &[]),
    (libc::SOL_SOCKET, 9999, &[1]),
    (libc::SOL_TCP, libc::TCP_NODELAY, &[0, 1]),
    (libc::SOL_TCP, libc::TCP_KEEPIDLE, &[0, 30, 100_000]),
    (libc::SOL_TCP, libc::TCP_KEEPINTVL, &[0, 30]),
    (libc::SOL_TCP, libc::TCP_KEEPCNT, &[0, 5]),
    (libc::SOL_TCP, libc::TCP_USER_TIMEOUT, &[0, 20_000, -1]),
    (libc::SOL_TCP, libc::TCP_SYNCNT, &[0, 4]),
    (libc::SOL_TCP, libc::TCP_LINGER2, &[0, 20]),
    (libc::SOL_TCP, libc::TCP_NOTSENT_LOWAT, &[0, 100_000]),
    (libc::SOL_TCP, 9999, &[1]),
    // Levels: the number of an IP option is a TCP option, too.
    (libc::SOL_IP, libc::IP_TOS, &[0, 16]),
    (libc::SOL_IP, libc::IP_TTL, &[1, 64, 0]),
    (libc::SOL_IP, libc::IP_RECVERR, &[0, 1]),
    (libc::SOL_IP, 9999, &[1]),
    (libc::SOL_IPV6, libc::IPV6_V6ONLY, &[]),
    (libc::SOL_IPV6, libc::IPV6_TCLASS, &[0, 16]),
    (177, 1, &[1]),
];

pub fn script(random: &mut SmallRng) -> Vec<Op> {
    let mut script = Vec::new();
    let connected = random.gen_bool(0.9);
    if random.gen_bool(0.3) {
        for _ in 0..random.gen_range(1..4) {
            let end = *[End::Client, End::Listener]
                .choose(random)
                .unwrap_or(&End::Client);
            script.push(early(random, end));
        }
    }
    if !connected {
        for _ in 0..random.gen_range(1..8) {
            let end = *[End::Client, End::Listener]
                .choose(random)
                .unwrap_or(&End::Client);
            script.push(match random.gen_range(0..8) {
                0 => Op::Bind(end),
                1 => Op::Listen(end, random.gen_range(-1..5)),
                2 => Op::AcceptNothing(end, accept_flags(random)),
                3 => Op::Close(end),
                _ => early(random, end),
            });
        }
        return script;
    }
    script.extend([
        Op::Bind(End::Listener),
        Op::Listen(End::Listener, 8),
        Op::Connect(End::Client),
        Op::Accept(
            libc::SOCK_CLOEXEC
                | if random.gen_bool(0.2) {
                    libc::SOCK_NONBLOCK
                } else {
                    0
                },
        ),
    ]);
    // Unread bytes that client and server may have sent.
    let mut unread = [0; 2];
    let mut ended = false;
    for _ in 0..random.gen_range(3..14) {
        let end = *[End::Client, End::Server]
            .choose(random)
            .unwrap_or(&End::Client);
        if !ended && random.gen_bool(0.04) {
            urgent(random, end, &mut script);
            unread[end as usize] = 0;
            continue;
        }
        let op = late(random, end);
        match &op {
            Op::Send { parts, .. } => {
                unread[end as usize] += parts.iter().sum::<usize>();
                if unread[end as usize] > MOST_UNREAD {
                    break;
                }
            }
            Op::SendFile(_, len) => {
                unread[end as usize] += len;
                if unread[end as usize] > MOST_UNREAD {
                    break;
                }
            }
            Op::Shutdown(..) | Op::Close(_) => ended = true,
            // TCP lets a socket whose connection has ended be bound anew, to no avail.
            Op::Bind(_) if ended => continue,
            _ => {}
        }
        script.push(op);
    }
    script
}

/// Urgent data, and what the other side may do about it. It is read before the script goes on: data
/// behind it waits for that (RFC 7609, section 4.7.5), which TCP's does not.
fn urgent(random: &mut SmallRng, end: End, script: &mut Vec<Op>) {
    let other = match end {
        End::Client => End::Server,
        _ => End::Client,
    };
    script.push(Op::Send {
        end,
        parts: vec![random.gen_range(1..300)],
        flags: libc::MSG_OOB | libc::MSG_NOSIGNAL,
    });
    for _ in 0..random.gen_range(0..4) {
        script.push(match random.gen_range(0..5) {
            0 => Op::Ioctl(other, SIOCATMARK),
            4 => Op::Receive {
                end: other,
                parts: vec![length(random).max(1)],
                flags: libc::MSG_PEEK | some_of(random, &[(libc::MSG_WAITALL, 0.3)]),
            },
            1 => Op::Receive {
                end: other,
                parts: vec![length(random).max(1)],
                flags: 0,
            },
            _ => Op::Receive {
                end: other,
                parts: vec![random.gen_range(0..3)],
                flags: libc::MSG_OOB
                    | some_of(random, &[(libc::MSG_PEEK, 0.3), (libc::MSG_TRUNC, 0.1)]),
            },
        });
    }
    for _ in 0..3 {
        script.push(Op::Receive {
            end: other,
            parts: vec![2 * MOST_UNREAD],
            flags: 0,
        });
    }
}

/// A call that may come before the socket is connected.
fn early(random: &mut SmallRng, end: End) -> Op {
    match random.gen_range(0..10) {
        0 => send(random, end),
        1 => receive(random, end),
        2 => Op::Shutdown(end, random.gen_range(0..4)),
        3 => ioctl(random, end),
        4 => Op::Name {
            end,
            peer: random.gen(),
        },
        5 | 6 => get_option(random, end),
        _ => set_option(random, end),
    }
}

/// A call on a socket that is connected, or was.
fn late(random: &mut SmallRng, end: End) -> Op {
    match random.gen_range(0..100) {
        0..28 => send(random, end),
        28..50 => receive(random, end),
        50..53 => Op::ReceiveWaiting {
            end,
            len: length(random),
            flags: some_of(
                random,
                &[
                    (libc::MSG_PEEK, 0.2),
                    (libc::MSG_WAITALL, 0.3),
                    (libc::MSG_TRUNC, 0.1),
                ],
            ),
        },
        53..56 => Op::Poll(end, random.gen()),
        56..60 => Op::SendFile(end, length(random)),
        60..64 => Op::Splice(end, length(random)),
        64..71 => Op::Shutdown(end, random.gen_range(0..4)),
        71..78 => set_option(random, end),
        78..85 => get_option(random, end),
        85..89 => ioctl(random, end),
        89..92 => Op::Name {
            end,
            peer: random.gen(),
        },
        92 => Op::Connect(end),
        93 => Op::Bind(end),
        94 => Op::Listen(end, 3),
        95 => Op::AcceptNothing(
            *[end, End::Listener].choose(random).unwrap_or(&end),
            accept_flags(random),
        ),
        96 => linger(random, end),
        97 => Op::Dup(end),
        _ => Op::Close(end),
    }
}

fn length(random: &mut SmallRng) -> usize {
    match random.gen_range(0..6) {
        0 => 0,
        1 => 1,
        2 => random.gen_range(2..10),
        3 => random.gen_range(10..300),
        _ => random.gen_range(300..2_500),
    }
}

fn parts(random: &mut SmallRng) -> Vec<usize> {
    let count = if random.gen_bool(0.8) {
        1
    } else {
        random.gen_range(0..4)
    };
    (0..count).map(|_| length(random)).collect()
}

fn some_of(random: &mut SmallRng, flags: &[(i32, f64)]) -> i32 {
    flags
        .iter()
        .filter(|(_, often)| random.gen_bool(*often))
        .fold(0, |all, (flag, _)| all | flag)
}

fn send(random: &mut SmallRng, end: End) -> Op {
    Op::Send {
        end,
        parts: parts(random),
        flags: some_of(
            random,
            &[
                (libc::MSG_NOSIGNAL, 0.5),
                (libc::MSG_MORE, 0.03),
                (libc::MSG_EOR, 0.03),
                (libc::MSG_DONTROUTE, 0.03),
                (libc::MSG_CONFIRM, 0.03),
            ],
        ),
    }
}

fn receive(random: &mut SmallRng, end: End) -> Op {
    Op::Receive {
        end,
        parts: parts(random),
        flags: some_of(
            random,
            &[
                (libc::MSG_PEEK, 0.2),
                (libc::MSG_WAITALL, 0.1),
                (libc::MSG_TRUNC, 0.1),
                (libc::MSG_OOB, 0.05),
                (libc::MSG_ERRQUEUE, 0.03),
                (libc::MSG_NOSIGNAL, 0.1),
            ],
        ),
    }
}

fn ioctl(random: &mut SmallRng, end: End) -> Op {
    let all = [libc::FIONREAD, SIOCATMARK, SIOCOUTQNSD, 0x54ff];
    Op::Ioctl(end, *all.choose(random).unwrap_or(&libc::FIONREAD))
}

/// CLOEXEC, and now and then something that accept4(2) does not know.
fn accept_flags(random: &mut SmallRng) -> i32 {
    libc::SOCK_CLOEXEC | some_of(random, &[(libc::SOCK_NONBLOCK, 0.2), (1 << 5, 0.1)])
}

/// `SO_SNDTIMEO` and `SO_RCVTIMEO`: too long to end anything, or wrong.
fn timeout(random: &mut SmallRng, end: End) -> Op {
    let seconds = *[0, 0, 100, -1, i64::MAX].choose(random).unwrap_or(&0);
    let microseconds = *[0, 0, 999_999, 1_000_000, -1].choose(random).unwrap_or(&0);
    let mut value = i64::to_ne_bytes(seconds).to_vec();
    value.extend(i64::to_ne_bytes(microseconds));
    if random.gen_bool(0.1) {
        value.truncate(random.gen_range(0..16));
    }
    let name = if random.gen() {
        libc::SO_SNDTIMEO
    } else {
        libc::SO_RCVTIMEO
    };
    Op::SetOption {
        end,
        level: libc::SOL_SOCKET,
        name,
        value,
    }
}

/// Where nothing is left to be sent, `close()` does not wait: any time will do.
fn linger(random: &mut SmallRng, end: End) -> Op {
    let mut value = random.gen_range(0..2i32).to_ne_bytes().to_vec();
    let seconds = *[0, 0, 1, 2, 70_000, -1].choose(random).unwrap_or(&0);
    value.extend(i32::to_ne_bytes(seconds));
    Op::SetOption {
        end,
        level: libc::SOL_SOCKET,
        name: libc::SO_LINGER,
        value,
    }
}

fn set_option(random: &mut SmallRng, end: End) -> Op {
    match random.gen_range(0..20) {
        0 => return timeout(random, end),
        1 => return linger(random, end),
        _ => {}
    }
    let with_values: Vec<&IntOption> = SOCKET_OPTIONS
        .iter()
        .filter(|(_, _, values)| !values.is_empty())
        .collect();
    let Some((level, name, values)) = with_values.choose(random) else {
        return linger(random, end);
    };
    let mut value = values.choose(random).unwrap_or(&1).to_ne_bytes().to_vec();
    if random.gen_bool(0.1) {
        value.truncate(random.gen_range(0..4));
    }
    Op::SetOption {
        end,
        level: *level,
        name: *name,
        value,
    }
}

fn get_option(random: &mut SmallRng, end: End) -> Op {
    if random.gen_bool(0.1) {
        let all = [libc::SO_LINGER, libc::SO_SNDTIMEO, libc::SO_RCVTIMEO];
        return Op::GetOption {
            end,
            level: libc::SOL_SOCKET,
            name: *all.choose(random).unwrap_or(&libc::SO_LINGER),
            room: *[16, 16, 8, 3].choose(random).unwrap_or(&16),
        };
    }
    let (level, name, _) = SOCKET_OPTIONS.choose(random).unwrap_or(&SOCKET_OPTIONS[0]);
    Op::GetOption {
        end,
        level: *level,
        name: *name,
        room: if random.gen_bool(0.9) {
            4
        } else {
            random.gen_range(0..12)
        },
    }
}
