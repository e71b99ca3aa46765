//! Every call, with the arguments that it is made with.

use super::arena::Arena;
use super::netlink::Families;
use super::program::Spaces;
use super::table::{Table, What};
use crate::kind::{Host, AF_SMC, IPPROTO_SMC};
use rand::rngs::SmallRng;
use rand::Rng;
use std::cell::Cell;
use std::os::fd::RawFd;

/// What a thread makes its calls with.
pub struct Hand {
    pub random: SmallRng,
    pub arena: Arena,
    pub table: &'static Table,
    pub spaces: &'static Spaces,
    pub families: &'static Families,
}

/// What has come of a call: what it returned, or its error below 0; and what it may return at most.
pub struct Made {
    pub result: i64,
    pub most: u64,
}

pub struct Call {
    pub name: &'static str,
    weight: u32,
    pub make: fn(&mut Hand) -> Made,
}

const fn call(name: &'static str, weight: u32, make: fn(&mut Hand) -> Made) -> Call {
    Call { name, weight, make }
}

pub const CALLS: [Call; 46] = [
    call("socket", 8, socket),
    call("socketpair", 2, socketpair),
    call("bind", 6, bind),
    call("listen", 6, listen),
    call("connect", 10, connect),
    call("accept4", 10, accept),
    call("shutdown", 3, shutdown),
    call("close", 5, close),
    call("close_range", 1, close_range),
    call("dup", 3, dup),
    call("dup3", 2, dup3),
    call("fcntl", 6, fcntl),
    call("ioctl", 6, ioctl),
    call("getsockopt", 8, getsockopt),
    call("setsockopt", 12, setsockopt),
    call("getsockname", 3, getsockname),
    call("getpeername", 3, getpeername),
    call("sendto", 10, sendto),
    call("recvfrom", 10, recvfrom),
    call("sendmsg", 10, sendmsg),
    call("recvmsg", 10, recvmsg),
    call("sendmmsg", 3, sendmmsg),
    call("recvmmsg", 3, recvmmsg),
    call("write", 6, write),
    call("read", 6, read),
    call("writev", 4, writev),
    call("readv", 4, readv),
    call("pwritev2", 2, pwritev2),
    call("preadv2", 2, preadv2),
    call("sendfile", 6, sendfile),
    call("splice", 10, splice),
    call("tee", 3, tee),
    call("vmsplice", 3, vmsplice),
    call("pipe2", 3, pipe2),
    call("poll", 5, poll),
    call("ppoll", 2, ppoll),
    call("select", 3, select),
    call("epoll_create1", 2, epoll_create),
    call("epoll_ctl", 5, epoll_ctl),
    call("epoll_wait", 4, epoll_wait),
    call("pass", 4, pass),
    call("take", 4, take),
    call("fork", 2, fork),
    call("file", 3, file),
    call("setns", 2, setns),
    call("netlink", 6, netlink),
];

/// By weight.
pub fn choose(random: &mut SmallRng) -> (usize, &'static Call) {
    static ALL: [Call; CALLS.len()] = CALLS;
    let all: u32 = ALL.iter().map(|call| call.weight).sum();
    let mut left = random.gen_range(0..all);
    for (number, call) in ALL.iter().enumerate() {
        if left < call.weight {
            return (number, call);
        }
        left -= call.weight;
    }
    (0, &ALL[0])
}

thread_local! {
    /// Arguments of a thread's last call.
    static LAST: Cell<[usize; 6]> = const { Cell::new([0; 6]) };
}

/// What a thread has called last, in words; and what that descriptor is.
pub fn last() -> String {
    let arguments = LAST.get();
    let fd = arguments[0];
    let mut text = format!("its arguments are {arguments:x?}");
    if let Ok(to) = std::fs::read_link(format!("/proc/self/fd/{fd}")) {
        text += &format!("; {fd} is {}", to.display());
    }
    for (what, name) in [
        ("family", libc::SO_DOMAIN),
        ("type", libc::SO_TYPE),
        ("protocol", libc::SO_PROTOCOL),
    ] {
        let (mut value, mut length) = (0i32, 4 as libc::socklen_t);
        // SAFETY: room for what is asked for.
        let result = unsafe {
            libc::getsockopt(
                fd as RawFd,
                libc::SOL_SOCKET,
                name,
                (&raw mut value).cast(),
                &raw mut length,
            )
        };
        if result == 0 {
            text += &format!(", {what} {value}");
        }
    }
    text
}

/// The call itself; below 0 is the error.
fn raw(number: libc::c_long, arguments: &[usize]) -> i64 {
    let of = |at: usize| arguments.get(at).copied().unwrap_or(0);
    LAST.set(std::array::from_fn(of));
    // SAFETY: what the kernel may write to is the memory of an arena, which Rust has no references into, or nothing of
    // this program's.
    let result = unsafe { libc::syscall(number, of(0), of(1), of(2), of(3), of(4), of(5)) };
    if result == -1 {
        -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    } else {
        result
    }
}

/// A descriptor, a length or a flag as the kernel takes it.
fn arg(number: i32) -> usize {
    number as usize
}

fn any(result: i64) -> Made {
    Made {
        result,
        most: u64::MAX,
    }
}

/// It counts bytes, of which it may not say more.
fn bytes(result: i64, most: usize) -> Made {
    Made {
        result,
        most: most as u64,
    }
}

fn one_of<T: Copy>(random: &mut SmallRng, all: &[T]) -> T {
    all[random.gen_range(0..all.len())]
}

fn int(random: &mut SmallRng) -> i32 {
    match random.gen_range(0..4) {
        0 => random.gen(),
        1 => random.gen_range(-2..70_000),
        _ => one_of(
            random,
            &[0, 1, 1, 1, 2, -1, 16, 4096, 65_536, i32::MAX, i32::MIN],
        ),
    }
}

fn words(all: &[usize]) -> Vec<u8> {
    all.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

const MSG: [i32; 14] = [
    libc::MSG_DONTWAIT,
    libc::MSG_DONTWAIT,
    libc::MSG_PEEK,
    libc::MSG_WAITALL,
    libc::MSG_TRUNC,
    libc::MSG_CTRUNC,
    libc::MSG_OOB,
    libc::MSG_MORE,
    libc::MSG_EOR,
    libc::MSG_DONTROUTE,
    libc::MSG_ERRQUEUE,
    libc::MSG_ZEROCOPY,
    libc::MSG_FASTOPEN,
    libc::MSG_CMSG_CLOEXEC,
];

impl Hand {
    fn sock(&mut self) -> usize {
        arg(self.table.pick(&mut self.random, What::Socket))
    }

    fn of(&mut self, what: What) -> usize {
        arg(self.table.pick(&mut self.random, what))
    }

    fn int(&mut self) -> i32 {
        int(&mut self.random)
    }

    fn one<T: Copy>(&mut self, all: &[T]) -> T {
        one_of(&mut self.random, all)
    }

    /// Once in so many times.
    fn once_in(&mut self, times: u32) -> bool {
        self.random.gen_range(0..times) == 0
    }

    fn flags(&mut self) -> usize {
        if self.once_in(30) {
            return self.random.gen::<u32>() as usize;
        }
        let mut flags = libc::MSG_NOSIGNAL;
        while self.once_in(2) {
            flags |= self.one(&MSG);
        }
        arg(flags)
    }

    /// Bytes where the kernel can have them, or a place that is wrong.
    fn put(&mut self, bytes: &[u8]) -> usize {
        if self.once_in(40) {
            self.arena.nowhere(&mut self.random)
        } else {
            self.arena.put(bytes)
        }
    }

    fn data(&mut self) -> (usize, usize) {
        self.arena.buffer(&mut self.random)
    }

    /// An address, and its length.
    fn address(&mut self) -> (Vec<u8>, i32) {
        let host = self.one(&[Host::A, Host::B, Host::B, Host::B]);
        let port = self.table.port(&mut self.random);
        let mut bytes = Vec::new();
        match self.random.gen_range(0..12) {
            0..6 => {
                bytes.extend((libc::AF_INET as u16).to_ne_bytes());
                bytes.extend(port.to_be_bytes());
                bytes.extend(match self.random.gen_range(0..8) {
                    0 => [127, 0, 0, 1],
                    1 => [0; 4],
                    2 => [224, 0, 0, 1],
                    3 => [10, 9, 0, 77],
                    _ => host.ipv4().octets(),
                });
                bytes.extend([0; 8]);
            }
            6..9 => {
                bytes.extend((libc::AF_INET6 as u16).to_ne_bytes());
                bytes.extend(port.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(match self.random.gen_range(0..6) {
                    0 => host.ipv4().to_ipv6_mapped().octets(),
                    1 => [0; 16],
                    2 => self.random.gen(),
                    _ => host.ipv6().octets(),
                });
                bytes.extend([0; 4]);
            }
            // Ends a connection.
            9 => bytes.resize(16, 0),
            10 => {
                bytes.extend((AF_SMC as u16).to_ne_bytes());
                bytes.extend(port.to_be_bytes());
                bytes.extend(host.ipv4().octets());
                bytes.extend([0; 8]);
            }
            _ => bytes.resize_with(self.random.gen_range(0..130), || self.random.gen()),
        }
        let length = match self.random.gen_range(0..12) {
            0 => self.int(),
            1 => self.random.gen_range(0..=bytes.len() as i32),
            _ => bytes.len() as i32,
        };
        (bytes, length)
    }

    /// Pieces of memory, their number, and how much they hold together.
    fn vector(&mut self) -> (usize, usize, usize) {
        let count = match self.random.gen_range(0..20) {
            0 => 0,
            1 => 1025,
            2 => 1024,
            3 => return (self.arena.nowhere(&mut self.random), 3, usize::MAX),
            4 => {
                let one = self.arena.put(&words(&[0, 0]));
                return (one, self.int() as usize, usize::MAX);
            }
            _ => self.random.gen_range(1..6),
        };
        let mut all = Vec::new();
        let mut most = 0usize;
        for _ in 0..count {
            let (start, length) = match count {
                0..8 => self.data(),
                _ => (self.data().0, self.random.gen_range(0..50)),
            };
            all.extend([start, length]);
            most = most.saturating_add(length);
        }
        (self.arena.put(&words(&all)), count, most)
    }

    /// Ancillary data of a message to send.
    fn control(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        for _ in 0..self.random.gen_range(0..4) {
            let (level, kind, data): (i32, i32, Vec<u8>) = match self.random.gen_range(0..8) {
                0..2 => {
                    let count = self.one(&[1, 1, 2, 3, 253]);
                    let fds =
                        (0..count).flat_map(|_| self.table.any(&mut self.random).to_ne_bytes());
                    (libc::SOL_SOCKET, libc::SCM_RIGHTS, fds.collect())
                }
                2 => (libc::SOL_SOCKET, libc::SCM_CREDENTIALS, vec![0; 12]),
                3 => (
                    libc::SOL_SOCKET,
                    libc::SO_TIMESTAMPING,
                    27u32.to_ne_bytes().into(),
                ),
                4 => (libc::SOL_SOCKET, libc::SO_MARK, 3u32.to_ne_bytes().into()),
                5 => (
                    libc::IPPROTO_IP,
                    libc::IP_TOS,
                    self.int().to_ne_bytes().into(),
                ),
                6 => (libc::IPPROTO_TCP, self.random.gen_range(0..40), vec![1; 8]),
                _ => {
                    let length = self.random.gen_range(0..64);
                    (
                        self.random.gen_range(0..300),
                        self.random.gen_range(0..90),
                        vec![7; length],
                    )
                }
            };
            let length = match self.random.gen_range(0..10) {
                0 => self.int() as usize,
                _ => 16 + data.len(),
            };
            all.extend(length.to_ne_bytes());
            all.extend(level.to_ne_bytes());
            all.extend(kind.to_ne_bytes());
            all.extend(data);
            all.resize(all.len().next_multiple_of(8), 0);
        }
        all
    }

    /// struct msghdr, and how much its pieces hold.
    fn message(&mut self, to_send: bool) -> (Vec<u8>, usize) {
        let (name, name_length) = match self.random.gen_range(0..4) {
            0 => {
                let (address, length) = self.address();
                (self.put(&address), length)
            }
            _ => (0, 0),
        };
        let (vector, count, most) = self.vector();
        let (control, control_length) = match self.random.gen_range(0..4) {
            0 => {
                let control = match to_send {
                    true => self.control(),
                    false => vec![0; 600],
                };
                let length = match self.random.gen_range(0..10) {
                    0 => self.int() as usize,
                    _ => control.len(),
                };
                (self.put(&control), length)
            }
            _ => (0, 0),
        };
        let mut bytes = words(&[name, 0, vector, count, control, control_length, 0]);
        bytes[8..12].copy_from_slice(&name_length.to_ne_bytes());
        let flags = self.flags() as u32;
        bytes[48..52].copy_from_slice(&flags.to_ne_bytes());
        (bytes, most)
    }

    /// An offset that a call reads and writes, or none.
    fn offset(&mut self) -> usize {
        match self.random.gen_range(0..6) {
            0 => {
                let offset = self.int() as i64;
                self.put(&offset.to_ne_bytes())
            }
            1 => self.arena.put(&[0; 8]),
            _ => 0,
        }
    }

    /// A length, within reason mostly.
    fn length(&mut self) -> usize {
        match self.random.gen_range(0..10) {
            0 => self.int() as usize,
            1 => usize::MAX,
            _ => self.random.gen_range(0..150_000),
        }
    }

    /// A timeout in milliseconds; who waits for ever is sent a signal.
    fn milliseconds(&mut self) -> i32 {
        self.one(&[0, 0, 0, 1, 10, -1, i32::MIN, i32::MAX])
    }
}

fn socket(hand: &mut Hand) -> Made {
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
fn socketpair(hand: &mut Hand) -> Made {
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

fn add_two(hand: &mut Hand, place: usize, what: [What; 2]) {
    let bytes = hand.arena.get(place, 8);
    for (bytes, what) in bytes.chunks(4).zip(what) {
        let mut fd = [0; 4];
        fd.copy_from_slice(bytes);
        hand.table.add(RawFd::from_ne_bytes(fd).into(), what);
    }
}

fn bind(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (address, length) = hand.address();
    let place = hand.put(&address);
    any(raw(libc::SYS_bind, &[fd, place, arg(length)]))
}

fn listen(hand: &mut Hand) -> Made {
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

fn connect(hand: &mut Hand) -> Made {
    // Most of those that are there are connected.
    let fd = match hand.once_in(3) {
        true => hand.sock(),
        false => socket(hand).result as usize,
    };
    let (address, length) = hand.address();
    let place = hand.put(&address);
    any(raw(libc::SYS_connect, &[fd, place, arg(length)]))
}

fn accept(hand: &mut Hand) -> Made {
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

/// Where a name is to come, and its length, which is both told and asked for.
fn name_and_length(hand: &mut Hand) -> (usize, usize) {
    if hand.once_in(2) {
        return (0, 0);
    }
    let length = match hand.random.gen_range(0..4) {
        0 => hand.int(),
        _ => hand.random.gen_range(0..130),
    };
    (hand.put(&[0; 128]), hand.put(&length.to_ne_bytes()))
}

fn shutdown(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let how = hand.one(&[0, 1, 1, 2, 3, -1]);
    any(raw(libc::SYS_shutdown, &[fd, arg(how)]))
}

fn close(hand: &mut Hand) -> Made {
    let (fd, _) = hand.table.take(&mut hand.random);
    any(raw(libc::SYS_close, &[arg(fd)]))
}

fn close_range(hand: &mut Hand) -> Made {
    let (fd, _) = hand.table.take(&mut hand.random);
    let flags = hand.one(&[0, 2 /* UNSHARE */, 4 /* CLOEXEC */, -1]);
    any(raw(libc::SYS_close_range, &[arg(fd), arg(fd), arg(flags)]))
}

fn dup(hand: &mut Hand) -> Made {
    let fd = hand.table.any(&mut hand.random);
    let what = hand.table.what(fd);
    let result = raw(libc::SYS_dup, &[arg(fd)]);
    hand.table.add(result, what);
    any(result)
}

/// Onto a descriptor that others may be in a call on.
fn dup3(hand: &mut Hand) -> Made {
    let from = hand.table.any(&mut hand.random);
    let to = hand.table.any(&mut hand.random);
    let flags = hand.one(&[0, libc::O_CLOEXEC, -1]);
    let result = raw(libc::SYS_dup3, &[arg(from), arg(to), arg(flags)]);
    if result >= 0 {
        hand.table.add(result, hand.table.what(from));
    }
    any(result)
}

fn fcntl(hand: &mut Hand) -> Made {
    let fd = arg(hand.table.any(&mut hand.random));
    let own = std::process::id() as i32;
    let (command, argument) = match hand.random.gen_range(0..12) {
        0..4 => {
            let mut flags = 0;
            for flag in [
                libc::O_NONBLOCK,
                libc::O_ASYNC,
                libc::O_APPEND,
                libc::O_DIRECT,
            ] {
                let times = if flag == libc::O_NONBLOCK { 2 } else { 5 };
                if hand.once_in(times) {
                    flags |= flag;
                }
            }
            (libc::F_SETFL, arg(flags))
        }
        // Only to itself: nobody else has asked for signals.
        4 => (libc::F_SETOWN, arg(hand.one(&[own, 0, own, i32::MIN]))),
        5 => (
            10, /* F_SETSIG */
            arg(hand.one(&[0, libc::SIGUSR1, libc::SIGIO, 65, -1])),
        ),
        6 => {
            let (kind, who) = hand.one(&[(0i32, 0), (1, own), (9, own)]);
            let owner = [kind.to_ne_bytes(), who.to_ne_bytes()].concat();
            (15 /* F_SETOWN_EX */, hand.put(&owner))
        }
        7 => (
            hand.one(&[
                libc::F_GETFL,
                libc::F_GETOWN,
                11, /* F_GETSIG */
                libc::F_GETFD,
            ]),
            0,
        ),
        8 => (libc::F_SETPIPE_SZ, hand.int() as usize),
        9 => (libc::F_SETLK, hand.put(&[0; 32])),
        10 => (libc::F_SETFD, arg(libc::FD_CLOEXEC)),
        _ => (hand.random.gen_range(1000..1050), 0),
    };
    any(raw(libc::SYS_fcntl, &[fd, arg(command), argument]))
}

fn ioctl(hand: &mut Hand) -> Made {
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

fn getsockopt(hand: &mut Hand) -> Made {
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

fn setsockopt(hand: &mut Hand) -> Made {
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

fn getsockname(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (name, length) = name_and_length(hand);
    any(raw(libc::SYS_getsockname, &[fd, name, length]))
}

fn getpeername(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (name, length) = name_and_length(hand);
    any(raw(libc::SYS_getpeername, &[fd, name, length]))
}

fn sendto(hand: &mut Hand) -> Made {
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

fn recvfrom(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (place, length) = hand.data();
    let flags = hand.flags();
    let (name, name_length) = name_and_length(hand);
    let result = raw(
        libc::SYS_recvfrom,
        &[fd, place, length, flags, name, name_length],
    );
    bytes(result, length)
}

fn sendmsg(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (message, most) = hand.message(true);
    let (place, flags) = (hand.put(&message), hand.flags());
    bytes(raw(libc::SYS_sendmsg, &[fd, place, flags]), most)
}

fn recvmsg(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (message, most) = hand.message(false);
    let (place, flags) = (hand.put(&message), hand.flags());
    bytes(raw(libc::SYS_recvmsg, &[fd, place, flags]), most)
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

fn sendmmsg(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (place, count) = messages(hand, true);
    let flags = hand.flags();
    bytes(raw(libc::SYS_sendmmsg, &[fd, place, count, flags]), count)
}

fn recvmmsg(hand: &mut Hand) -> Made {
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

fn write(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (place, length) = hand.data();
    bytes(raw(libc::SYS_write, &[fd, place, length]), length)
}

fn read(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (place, length) = hand.data();
    bytes(raw(libc::SYS_read, &[fd, place, length]), length)
}

fn writev(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (vector, count, most) = hand.vector();
    bytes(raw(libc::SYS_writev, &[fd, vector, count]), most)
}

fn readv(hand: &mut Hand) -> Made {
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

fn pwritev2(hand: &mut Hand) -> Made {
    at_place(hand, libc::SYS_pwritev2)
}

fn preadv2(hand: &mut Hand) -> Made {
    at_place(hand, libc::SYS_preadv2)
}

fn sendfile(hand: &mut Hand) -> Made {
    let (to, from) = match hand.random.gen_range(0..8) {
        0 => (hand.sock(), hand.sock()),
        1 => (hand.of(What::File), hand.sock()),
        2 => (hand.of(What::PipeIn), hand.of(What::File)),
        _ => (hand.sock(), hand.of(What::File)),
    };
    let (offset, length) = (hand.offset(), hand.length());
    bytes(raw(libc::SYS_sendfile, &[to, from, offset, length]), length)
}

fn splice(hand: &mut Hand) -> Made {
    let (from, to) = match hand.random.gen_range(0..10) {
        0..5 => (hand.sock(), hand.of(What::PipeIn)),
        5..8 => (hand.of(What::PipeOut), hand.sock()),
        8 => (hand.of(What::File), hand.of(What::PipeIn)),
        _ => (hand.sock(), hand.sock()),
    };
    let (at, to_at) = (hand.offset(), hand.offset());
    let (length, flags) = (hand.length(), splice_flags(hand));
    bytes(
        raw(libc::SYS_splice, &[from, at, to, to_at, length, flags]),
        length,
    )
}

fn splice_flags(hand: &mut Hand) -> usize {
    match hand.random.gen_range(0..10) {
        0 => hand.int() as usize,
        // Without waiting, mostly.
        _ if !hand.once_in(3) => hand.random.gen_range(0..16) | libc::SPLICE_F_NONBLOCK as usize,
        _ => hand.random.gen_range(0..16),
    }
}

fn tee(hand: &mut Hand) -> Made {
    let (from, to) = (hand.of(What::PipeOut), hand.of(What::PipeIn));
    let (length, flags) = (hand.length(), splice_flags(hand));
    bytes(raw(libc::SYS_tee, &[from, to, length, flags]), length)
}

fn vmsplice(hand: &mut Hand) -> Made {
    let fd = hand.of(What::PipeIn);
    let (vector, count, most) = hand.vector();
    let flags = splice_flags(hand);
    bytes(raw(libc::SYS_vmsplice, &[fd, vector, count, flags]), most)
}

fn pipe2(hand: &mut Hand) -> Made {
    let ends = hand.arena.put(&[0; 8]);
    let flags = hand.one(&[
        libc::O_NONBLOCK,
        libc::O_NONBLOCK,
        libc::O_CLOEXEC,
        libc::O_DIRECT,
    ]);
    let result = raw(libc::SYS_pipe2, &[ends, arg(flags)]);
    if result >= 0 {
        add_two(hand, ends, [What::PipeOut, What::PipeIn]);
    }
    any(result)
}

/// struct pollfd of some, and how many are told of.
fn polled(hand: &mut Hand) -> (usize, usize) {
    let mut all = Vec::new();
    let count = hand.random.gen_range(0..8);
    for _ in 0..count {
        all.extend(hand.table.any(&mut hand.random).to_ne_bytes());
        all.extend(hand.random.gen::<u16>().to_ne_bytes());
        all.extend([0; 2]);
    }
    let told = if hand.once_in(20) {
        hand.int() as u32 as usize
    } else {
        count
    };
    (hand.put(&all), told)
}

fn poll(hand: &mut Hand) -> Made {
    let (place, count) = polled(hand);
    let time = hand.milliseconds();
    bytes(raw(libc::SYS_poll, &[place, count, arg(time)]), count)
}

/// A time, or none: for ever.
fn time(hand: &mut Hand) -> usize {
    match hand.random.gen_range(0..6) {
        0 => 0,
        1 => {
            let (seconds, nanoseconds) = (hand.int(), hand.int());
            hand.put(&words(&[seconds as usize, nanoseconds as usize]))
        }
        _ => hand.put(&words(&[0, 1_000_000])),
    }
}

fn ppoll(hand: &mut Hand) -> Made {
    let (place, count) = polled(hand);
    let (limit, mask) = (time(hand), hand.one(&[0, 1]));
    // A mask without any signal in it.
    let mask = if mask == 0 { 0 } else { hand.put(&[0; 8]) };
    let size = hand.one(&[8, 8, 8, 4]);
    bytes(
        raw(libc::SYS_ppoll, &[place, count, limit, mask, size]),
        count,
    )
}

fn select(hand: &mut Hand) -> Made {
    let mut sets = [0; 3];
    for set in &mut sets {
        let mut bits = [0u8; 128];
        for _ in 0..4 {
            let fd = hand.table.any(&mut hand.random) as usize;
            if fd < 1024 {
                bits[fd / 8] |= 1 << (fd % 8);
            }
        }
        *set = if hand.once_in(4) { 0 } else { hand.put(&bits) };
    }
    let count = match hand.random.gen_range(0..8) {
        0 => hand.int().min(1024),
        _ => 200,
    };
    let limit = time(hand);
    any(raw(
        libc::SYS_pselect6,
        &[arg(count), sets[0], sets[1], sets[2], limit, 0],
    ))
}

fn epoll_create(hand: &mut Hand) -> Made {
    let flags = hand.one(&[0, libc::EPOLL_CLOEXEC, -1]);
    let result = raw(libc::SYS_epoll_create1, &[arg(flags)]);
    hand.table.add(result, What::Epoll);
    any(result)
}

fn epoll_ctl(hand: &mut Hand) -> Made {
    let (epoll, fd) = (hand.of(What::Epoll), arg(hand.table.any(&mut hand.random)));
    let operation = hand.one(&[1, 1, 1, 2, 3, 3, 0]);
    let events = match hand.random.gen_range(0..3) {
        0 => hand.random.gen::<u32>(),
        _ => 0x1f | hand.one(&[0, 1 << 31, 1 << 30, 1 << 28]),
    };
    let event = [&events.to_ne_bytes()[..], &[0; 8]].concat();
    let place = hand.put(&event);
    any(raw(libc::SYS_epoll_ctl, &[epoll, operation, fd, place]))
}

fn epoll_wait(hand: &mut Hand) -> Made {
    let epoll = hand.of(What::Epoll);
    let place = hand.put(&[0; 12 * 16]);
    let most = match hand.random.gen_range(0..8) {
        0 => hand.int().min(16),
        _ => 16,
    };
    let time = hand.milliseconds();
    bytes(
        raw(libc::SYS_epoll_wait, &[epoll, place, arg(most), arg(time)]),
        16,
    )
}

/// Descriptors through a socket of AF_UNIX, to another thread or to nobody.
fn pass(hand: &mut Hand) -> Made {
    let fd = hand.of(What::Unix);
    let byte = hand.arena.put(b"x");
    let vector = hand.arena.put(&words(&[byte, 1]));
    let mut control = words(&[16 + 8]);
    control.extend(
        [
            libc::SOL_SOCKET.to_ne_bytes(),
            libc::SCM_RIGHTS.to_ne_bytes(),
        ]
        .concat(),
    );
    for _ in 0..2 {
        control.extend(hand.table.any(&mut hand.random).to_ne_bytes());
    }
    let length = control.len();
    let control = hand.put(&control);
    let message = hand.put(&words(&[0, 0, vector, 1, control, length, 0]));
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    bytes(raw(libc::SYS_sendmsg, &[fd, message, arg(flags)]), 1)
}

fn take(hand: &mut Hand) -> Made {
    let fd = hand.of(What::Unix);
    let byte = hand.arena.put(b" ");
    let vector = hand.arena.put(&words(&[byte, 1]));
    let control = hand.arena.put(&[0; 32]);
    let room = hand.one(&[32, 32, 24, 20, 0]);
    let message = hand.arena.put(&words(&[0, 0, vector, 1, control, room, 0]));
    let result = raw(libc::SYS_recvmsg, &[fd, message, arg(libc::MSG_DONTWAIT)]);
    if result >= 0 {
        let mut length = [0; 8];
        length.copy_from_slice(&hand.arena.get(control, 8));
        let length = usize::from_ne_bytes(length).min(32);
        if length > 16 {
            for fd in hand.arena.get(control + 16, length - 16).chunks_exact(4) {
                let fd = RawFd::from_ne_bytes([fd[0], fd[1], fd[2], fd[3]]);
                hand.table.add(fd.into(), What::Socket);
            }
        }
    }
    bytes(result, 1)
}

/// A process that has the same descriptors, does something with a few, and goes.
fn fork(hand: &mut Hand) -> Made {
    let fds: [usize; 3] = std::array::from_fn(|_| arg(hand.table.any(&mut hand.random)));
    let acts: [u32; 3] = hand.random.gen();
    let (place, length) = (hand.arena.put(b"from a child"), 12);
    let nanoseconds = hand.random.gen_range(0..30_000_000);
    let pause = hand.put(&words(&[0, nanoseconds]));
    let result = raw(libc::SYS_fork, &[]);
    if result != 0 {
        return any(result);
    }
    // Other threads' locks stay taken for ever here: system calls, and nothing else.
    for (fd, act) in fds.into_iter().zip(acts) {
        match act % 6 {
            0 => raw(libc::SYS_close, &[fd]),
            1 => raw(libc::SYS_shutdown, &[fd, (act as usize >> 8) & 3]),
            2 => raw(
                libc::SYS_sendto,
                &[
                    fd,
                    place,
                    length,
                    arg(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL),
                ],
            ),
            3 => raw(
                libc::SYS_recvfrom,
                &[fd, place, length, arg(libc::MSG_DONTWAIT)],
            ),
            4 => raw(libc::SYS_nanosleep, &[pause]),
            _ => raw(libc::SYS_dup, &[fd]),
        };
    }
    // SAFETY: no pointers; ends this process.
    unsafe { libc::syscall(libc::SYS_exit_group, 0) };
    unreachable!("exit_group() does not come back")
}

/// What is for files.
fn file(hand: &mut Hand) -> Made {
    let fd = hand.sock();
    let (place, length) = hand.data();
    let offset = hand.int() as usize;
    any(match hand.random.gen_range(0..12) {
        0 => {
            // The mapping is of no socket, so that there is none.
            let protection = arg(libc::PROT_READ | libc::PROT_WRITE);
            raw(
                libc::SYS_mmap,
                &[0, 4096, protection, arg(libc::MAP_SHARED), fd, 0],
            )
        }
        1 => raw(libc::SYS_lseek, &[fd, offset, 0]),
        2 => raw(libc::SYS_fsync, &[fd]),
        3 => raw(libc::SYS_ftruncate, &[fd, offset]),
        4 => raw(libc::SYS_fallocate, &[fd, 0, 0, 4096]),
        5 => raw(libc::SYS_readahead, &[fd, 0, 4096]),
        6 => raw(libc::SYS_flock, &[fd, arg(libc::LOCK_EX | libc::LOCK_NB)]),
        7 => raw(libc::SYS_getdents64, &[fd, place, length]),
        8 => {
            let other = hand.of(What::File);
            raw(libc::SYS_copy_file_range, &[fd, 0, other, 0, length, 0])
        }
        9 => raw(libc::SYS_fchmod, &[fd, 0o600]),
        10 => raw(libc::SYS_fchown, &[fd, 7, 7]),
        _ => {
            let stat = hand.put(&[0; 144]);
            raw(libc::SYS_fstat, &[fd, stat])
        }
    })
}

/// Sockets are of the host in whose namespace they are made.
fn setns(hand: &mut Hand) -> Made {
    let host = hand.one(&hand.spaces.hosts);
    any(raw(libc::SYS_setns, &[arg(host), arg(libc::CLONE_NEWNET)]))
}

/// A request, and a look at the answer.
fn netlink(hand: &mut Hand) -> Made {
    let request = hand.families.request(&mut hand.random);
    let back = hand.one(&hand.spaces.hosts);
    if request.changes {
        raw(
            libc::SYS_setns,
            &[arg(hand.spaces.apart), arg(libc::CLONE_NEWNET)],
        );
    }
    let kind = arg(libc::SOCK_RAW | libc::SOCK_CLOEXEC);
    let fd = raw(
        libc::SYS_socket,
        &[arg(libc::AF_NETLINK), kind, arg(request.protocol)],
    );
    raw(libc::SYS_setns, &[arg(back), arg(libc::CLONE_NEWNET)]);
    if fd < 0 {
        return any(fd);
    }
    let fd = fd as usize;
    let place = hand.put(&request.message);
    let length = request.message.len();
    let result = raw(
        libc::SYS_sendto,
        &[fd, place, length, arg(libc::MSG_DONTWAIT)],
    );
    // Some answers are left unread, and dumps unfinished.
    let reads = hand.random.gen_range(0..6);
    let (answer, room) = hand.data();
    for _ in 0..reads {
        raw(
            libc::SYS_recvfrom,
            &[fd, answer, room, arg(libc::MSG_DONTWAIT)],
        );
    }
    raw(libc::SYS_close, &[fd]);
    bytes(result, length)
}
