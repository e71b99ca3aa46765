//! Every call, with the arguments that it is made with.

mod data;
mod descriptor;
mod hand;
mod pipe;
mod socket;
mod wait;

pub use hand::Hand;

use super::arena::Arena;
use super::netlink::Families;
use super::program::Spaces;
use super::table::{Table, What};
use crate::kind::{Host, AF_SMC, IPPROTO_SMC};
use rand::rngs::SmallRng;
use rand::Rng;
use std::cell::Cell;
use std::os::fd::RawFd;

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
    call("socket", 8, socket::socket),
    call("socketpair", 2, socket::socketpair),
    call("bind", 6, socket::bind),
    call("listen", 6, socket::listen),
    call("connect", 10, socket::connect),
    call("accept4", 10, socket::accept),
    call("shutdown", 3, socket::shutdown),
    call("close", 5, descriptor::close),
    call("close_range", 1, descriptor::close_range),
    call("dup", 3, descriptor::dup),
    call("dup3", 2, descriptor::dup3),
    call("fcntl", 6, descriptor::fcntl),
    call("ioctl", 6, socket::ioctl),
    call("getsockopt", 8, socket::getsockopt),
    call("setsockopt", 12, socket::setsockopt),
    call("getsockname", 3, socket::getsockname),
    call("getpeername", 3, socket::getpeername),
    call("sendto", 10, data::sendto),
    call("recvfrom", 10, data::recvfrom),
    call("sendmsg", 10, data::sendmsg),
    call("recvmsg", 10, data::recvmsg),
    call("sendmmsg", 3, data::sendmmsg),
    call("recvmmsg", 3, data::recvmmsg),
    call("write", 6, data::write),
    call("read", 6, data::read),
    call("writev", 4, data::writev),
    call("readv", 4, data::readv),
    call("pwritev2", 2, data::pwritev2),
    call("preadv2", 2, data::preadv2),
    call("sendfile", 6, pipe::sendfile),
    call("splice", 10, pipe::splice),
    call("tee", 3, pipe::tee),
    call("vmsplice", 3, pipe::vmsplice),
    call("pipe2", 3, pipe::pipe2),
    call("poll", 5, wait::poll),
    call("ppoll", 2, wait::ppoll),
    call("select", 3, wait::select),
    call("epoll_create1", 2, wait::epoll_create),
    call("epoll_ctl", 5, wait::epoll_ctl),
    call("epoll_wait", 4, wait::epoll_wait),
    call("pass", 4, descriptor::pass),
    call("take", 4, descriptor::take),
    call("fork", 2, descriptor::fork),
    call("file", 3, descriptor::file),
    call("setns", 2, descriptor::setns),
    call("netlink", 6, descriptor::netlink),
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

fn add_two(hand: &mut Hand, place: usize, what: [What; 2]) {
    let bytes = hand.arena.get(place, 8);
    for (bytes, what) in bytes.chunks(4).zip(what) {
        let mut fd = [0; 4];
        fd.copy_from_slice(bytes);
        hand.table.add(RawFd::from_ne_bytes(fd).into(), what);
    }
}
