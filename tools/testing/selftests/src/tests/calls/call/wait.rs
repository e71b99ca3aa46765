//! Waiting for several descriptors.

use super::*;

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

pub(super) fn poll(hand: &mut Hand) -> Made {
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

pub(super) fn ppoll(hand: &mut Hand) -> Made {
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

pub(super) fn select(hand: &mut Hand) -> Made {
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

pub(super) fn epoll_create(hand: &mut Hand) -> Made {
    let flags = hand.one(&[0, libc::EPOLL_CLOEXEC, -1]);
    let result = raw(libc::SYS_epoll_create1, &[arg(flags)]);
    hand.table.add(result, What::Epoll);
    any(result)
}

pub(super) fn epoll_ctl(hand: &mut Hand) -> Made {
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

pub(super) fn epoll_wait(hand: &mut Hand) -> Made {
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
