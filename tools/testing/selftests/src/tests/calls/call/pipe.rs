//! Data from one descriptor to another.

use super::*;

pub(super) fn sendfile(hand: &mut Hand) -> Made {
    let (to, from) = match hand.random.gen_range(0..8) {
        0 => (hand.sock(), hand.sock()),
        1 => (hand.of(What::File), hand.sock()),
        2 => (hand.of(What::PipeIn), hand.of(What::File)),
        _ => (hand.sock(), hand.of(What::File)),
    };
    let (offset, length) = (hand.offset(), hand.length());
    bytes(raw(libc::SYS_sendfile, &[to, from, offset, length]), length)
}

pub(super) fn splice(hand: &mut Hand) -> Made {
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

pub(super) fn tee(hand: &mut Hand) -> Made {
    let (from, to) = (hand.of(What::PipeOut), hand.of(What::PipeIn));
    let (length, flags) = (hand.length(), splice_flags(hand));
    bytes(raw(libc::SYS_tee, &[from, to, length, flags]), length)
}

pub(super) fn vmsplice(hand: &mut Hand) -> Made {
    let fd = hand.of(What::PipeIn);
    let (vector, count, most) = hand.vector();
    let flags = splice_flags(hand);
    bytes(raw(libc::SYS_vmsplice, &[fd, vector, count, flags]), most)
}

pub(super) fn pipe2(hand: &mut Hand) -> Made {
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
