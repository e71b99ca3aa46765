//! What work requests do, and how they fail.

use super::driver::*;
use crate::mr::{right, LOCAL_DMA_KEY};
use crate::qp::State;
use crate::wire::{command, reg, Event, Op, Queue, Syndrome};
use crate::world::{Protocol, World};

fn bytes(seed: u8, count: usize) -> Vec<u8> {
    (0..count)
        .map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed))
        .collect()
}

fn state(w: &World, d: &Driver, qp: &Qp) -> State {
    w.devices[d.device].qps[&qp.qpn].state
}

#[test]
fn a_send_fills_a_receive_and_both_hear_of_it() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let (from, to) = (p.a.take(100), p.b.take(4096));
    p.a.put(w, from, &bytes(1, 100));
    let key = p.b.region(w, to, 4096, LOCAL);
    p.b.post_recv(w, &mut p.qb, to + 8, 200, key);
    p.a.send(w, &mut p.qa, Op::Send, SIGNALLED, [0; 4], (from, 100));
    let sent = p.a.poll(w, &mut p.ca).unwrap();
    assert!(
        sent.is(Queue::Send, Op::Send, Syndrome::Success),
        "{sent:?}"
    );
    assert_eq!((sent.index, sent.qpn), (0, p.qa.qpn));
    let got = p.b.poll(w, &mut p.cb).unwrap();
    assert!(
        got.is(Queue::Recv, Op::Receive, Syndrome::Success),
        "{got:?}"
    );
    assert_eq!((got.index, got.qpn, got.size), (0, p.qb.qpn, 100));
    assert_eq!(p.b.get::<100>(w, to + 8).to_vec(), bytes(1, 100));
    assert_eq!(p.b.get::<9>(w, to + 108), [0; 9], "and no more");
    assert_eq!(
        (p.a.poll(w, &mut p.ca), p.b.poll(w, &mut p.cb)),
        (None, None)
    );
}

#[test]
fn immediate_data_is_turned_round_and_a_solicited_send_wakes() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let (from, to) = (p.a.take(8), p.b.take(64));
    for _ in 0..2 {
        p.b.post_recv(w, &mut p.qb, to, 64, LOCAL_DMA_KEY);
    }
    p.b.arm(w, &p.cb, true);
    w.devices[1].interrupts.take(1);
    p.a.send(w, &mut p.qa, Op::SendImm, 0, [1, 2, 3, 4], (from, 8));
    assert!(!w.devices[1].interrupts.take(1), "not solicited");
    p.a.send(
        w,
        &mut p.qa,
        Op::SendImm,
        SOLICITED,
        [1, 2, 3, 4],
        (from, 8),
    );
    assert!(w.devices[1].interrupts.take(1));
    let got = p.b.poll(w, &mut p.cb).unwrap();
    assert!(got.is(Queue::Recv, Op::ReceiveSendImm, Syndrome::Success));
    assert_eq!(got.data, [4, 3, 2, 1]);
    assert_eq!(p.a.poll(w, &mut p.ca), None, "neither was signalled");
}

#[test]
fn a_write_reaches_memory_and_nobody_else() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let (from, to) = (p.a.take(0x3000), p.b.take(0x4000));
    p.a.put(w, from, &bytes(2, 0x2345));
    let key = p.b.region(w, to + 0x10, 0x3000, right::REMOTE_WRITE);
    p.a.write(w, &mut p.qa, Op::Write, (from, 0x2345), (to + 0x800, key));
    assert!(p
        .a
        .poll(w, &mut p.ca)
        .unwrap()
        .is(Queue::Send, Op::Write, Syndrome::Success));
    assert_eq!(p.b.get::<0x2345>(w, to + 0x800).to_vec(), bytes(2, 0x2345));
    assert_eq!(p.b.get::<0x800>(w, to), [0; 0x800]);
    assert_eq!(p.b.poll(w, &mut p.cb), None);
    assert_eq!(w.devices[1].interrupts.raised(), 0);
    // With immediate data it takes a receive, whose place is not used.
    p.b.post_recv(w, &mut p.qb, to, 0, 0);
    p.a.write(w, &mut p.qa, Op::WriteImm, (from, 16), (to + 0x10, key));
    let got = p.b.poll(w, &mut p.cb).unwrap();
    assert!(got.is(Queue::Recv, Op::ReceiveWriteImm, Syndrome::Success));
    assert_eq!((got.data, got.size), ([0xa4, 0xa3, 0xa2, 0xa1], 16));
    assert_eq!(p.b.get::<16>(w, to + 0x10).to_vec(), bytes(2, 16));
}

#[test]
fn inline_data_comes_from_the_ring_over_its_end() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let to = p.b.take(4096);
    let key = p.b.region(w, to, 4096, right::REMOTE_WRITE);
    for turn in 0..40u8 {
        let data = bytes(turn, 90);
        let mut body = vec![0; 4];
        body.extend(90u32.to_le_bytes());
        body.extend(key.to_le_bytes());
        body.extend((to + u64::from(turn) * 100).to_le_bytes());
        body.extend([0; 4]);
        body.extend(&data);
        p.a.post(w, &mut p.qa, Op::Write, SIGNALLED | INLINE, 90, &body);
        assert!(p
            .a
            .poll(w, &mut p.ca)
            .unwrap()
            .is(Queue::Send, Op::Write, Syndrome::Success));
        assert_eq!(
            p.b.get::<90>(w, to + u64::from(turn) * 100).to_vec(),
            data,
            "turn {turn}"
        );
    }
}

#[test]
fn a_read_and_an_atomic_bring_back_what_is_there() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let (to, from) = (p.a.take(4096), p.b.take(4096));
    p.b.put(w, from, &bytes(3, 300));
    let source =
        p.b.region(w, from, 4096, right::REMOTE_READ | right::REMOTE_ATOMIC);
    let sink = p.a.region(w, to, 4096, LOCAL);
    p.a.read(w, &mut p.qa, (to, 300, sink), (from, source));
    let wc = p.a.poll(w, &mut p.ca).unwrap();
    assert!(wc.is(Queue::Send, Op::Read, Syndrome::Success) && wc.size == 300);
    assert_eq!(p.a.get::<300>(w, to).to_vec(), bytes(3, 300));

    p.b.put(w, from, &40u64.to_le_bytes());
    let atomic = |w: &mut World, p: &mut Pair, op, first: u64, second: u64, at: u64| {
        let mut body = vec![0; 8];
        body.extend(first.to_le_bytes());
        body.extend(second.to_le_bytes());
        body.extend(sge(at, 0, source));
        body.extend(sge(to, 8, sink));
        p.a.post(w, &mut p.qa, op, SIGNALLED, 0, &body);
        let wc = p.a.poll(w, &mut p.ca).unwrap();
        (
            wc.syndrome,
            u64::from_le_bytes(p.a.get(w, to)),
            u64::from_le_bytes(p.b.get(w, from)),
        )
    };
    assert_eq!(atomic(w, &mut p, Op::FetchAdd, 2, 0, from), (0, 40, 42));
    assert_eq!(
        atomic(w, &mut p, Op::CompareSwap, 7, 41, from),
        (0, 42, 42),
        "it was not 41"
    );
    assert_eq!(atomic(w, &mut p, Op::CompareSwap, 7, 42, from), (0, 42, 7));
    assert_eq!(
        atomic(w, &mut p, Op::FetchAdd, 1, 0, from + 4).0,
        Syndrome::RecvAddress as u8,
        "not aligned"
    );
}

#[test]
fn a_fast_region_by_work_requests() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let (from, to) = (p.a.take(0x6000), p.b.take(0x6000));
    p.a.put(w, from, &bytes(4, 0x5800));
    let (index, table) = p.b.fast_region(w, 8);
    let stag = index << 8 | 0x21;
    // The pages in reverse order: in the region's table, then two of them inline.
    let pages: Vec<u64> = (0..6).rev().map(|n| to + n * 0x1000).collect();
    for (n, page) in pages.iter().enumerate() {
        p.b.put(w, table + n as u64 * 8, &page.to_le_bytes());
    }
    p.b.register(w, &mut p.qb, stag, (0x77_0000, 0x6000), &pages, false);
    assert!(p
        .b
        .poll(w, &mut p.cb)
        .unwrap()
        .is(Queue::Send, Op::Register, Syndrome::Success));
    p.a.write(w, &mut p.qa, Op::Write, (from, 0x5800), (0x77_0000, stag));
    assert!(p
        .a
        .poll(w, &mut p.ca)
        .unwrap()
        .is(Queue::Send, Op::Write, Syndrome::Success));
    assert_eq!(p.b.get::<0x1000>(w, to + 0x5000).to_vec(), bytes(4, 0x1000));
    p.b.invalidate(w, &mut p.qb, stag);
    assert!(p.b.poll(w, &mut p.cb).unwrap().is(
        Queue::Send,
        Op::LocalInvalidate,
        Syndrome::Success
    ));
    p.b.register(
        w,
        &mut p.qb,
        stag + 1,
        (0x10_0800, 0x1800),
        &pages[..2],
        true,
    );
    assert!(p
        .b
        .poll(w, &mut p.cb)
        .unwrap()
        .is(Queue::Send, Op::Register, Syndrome::Success));
    p.a.write(w, &mut p.qa, Op::Write, (from, 8), (0x10_0800, stag + 1));
    assert!(p
        .a
        .poll(w, &mut p.ca)
        .unwrap()
        .is(Queue::Send, Op::Write, Syndrome::Success));
    assert_eq!(p.b.get::<8>(w, to + 0x5800).to_vec(), bytes(4, 8));
    // The other side takes it back with its message; then the key is worth nothing.
    p.b.post_recv(w, &mut p.qb, to, 64, LOCAL_DMA_KEY);
    p.a.send(
        w,
        &mut p.qa,
        Op::SendInvalidate,
        SIGNALLED,
        (stag + 1).to_le_bytes(),
        (from, 8),
    );
    let got = p.b.poll(w, &mut p.cb).unwrap();
    assert!(got.is(Queue::Recv, Op::ReceiveInvalidate, Syndrome::Success));
    assert_eq!(got.data, (stag + 1).to_be_bytes());
    assert!(p
        .a
        .poll(w, &mut p.ca)
        .unwrap()
        .is(Queue::Send, Op::SendInvalidate, Syndrome::Success));
    p.a.write(w, &mut p.qa, Op::Write, (from, 8), (0x10_0800, stag + 1));
    assert!(p
        .a
        .poll(w, &mut p.ca)
        .unwrap()
        .is(Queue::Send, Op::Write, Syndrome::RecvStag));
}

/// What the other side forbids, the requester hears; both pairs die, and the other side is told of it.
#[test]
fn remote_access_errors() {
    let cases: [(&str, Syndrome, u8, u32, u64, u32); 4] = [
        ("no such key", Syndrome::RecvStag, ALL, 1, 0, 8),
        ("beyond the end", Syndrome::RecvAddress, ALL, 0, 0xff9, 8),
        (
            "not for writing",
            Syndrome::RecvRight,
            right::REMOTE_READ,
            0,
            0,
            8,
        ),
        (
            "over the end of all addresses",
            Syndrome::RecvWrap,
            ALL,
            0,
            u64::MAX - 0x20_0000,
            0,
        ),
    ];
    for (what, syndrome, rights, key_off, offset, length) in cases {
        let w = &mut world(Protocol::Roce);
        let mut p = pair(w);
        let (from, to) = (p.a.take(4096), p.b.take(4096));
        p.a.put(w, from, &[0xee; 64]);
        let key = p.b.region(w, to, 0x1000, rights) + key_off;
        let at = if syndrome == Syndrome::RecvWrap {
            u64::MAX - 3
        } else {
            to + offset
        };
        let length = length.max(8);
        p.b.post_recv(w, &mut p.qb, to, 64, LOCAL_DMA_KEY);
        p.a.write(w, &mut p.qa, Op::Write, (from, length), (at, key));
        let wc = p.a.poll(w, &mut p.ca).unwrap();
        assert!(wc.is(Queue::Send, Op::Write, syndrome), "{what}: {wc:?}");
        assert_eq!(
            (state(w, &p.a, &p.qa), state(w, &p.b, &p.qb)),
            (State::Error, State::Error),
            "{what}"
        );
        let flushed = p.b.poll(w, &mut p.cb).unwrap();
        assert!(
            flushed.is(Queue::Recv, Op::Receive, Syndrome::Flushed),
            "{what}"
        );
        assert_eq!(
            p.b.event(w),
            Some((Event::Access as u32, p.qb.qpn)),
            "{what}"
        );
        assert_eq!(p.a.event(w), None, "{what}");
        assert_eq!(
            p.b.get::<4096>(w, to),
            [0; 4096],
            "{what}: nothing was written"
        );
    }
    // Another protection domain.
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let to = p.b.take(4096);
    let key = p.b.region(w, to, 64, ALL);
    w.devices[1].regions.by_index_mut(key >> 8).unwrap().pd = PD + 1;
    let from = p.a.take(64);
    p.a.write(w, &mut p.qa, Op::Write, (from, 8), (to, key));
    assert!(p
        .a
        .poll(w, &mut p.ca)
        .unwrap()
        .is(Queue::Send, Op::Write, Syndrome::RecvPd));
}

#[test]
fn local_errors_leave_the_other_side_alone() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let to = p.b.take(4096);
    let key = p.b.region(w, to, 4096, ALL);
    // The source lies outside of memory.
    p.a.write(w, &mut p.qa, Op::Write, (BASE + SIZE, 8), (to, key));
    assert!(p
        .a
        .poll(w, &mut p.ca)
        .unwrap()
        .is(Queue::Send, Op::Write, Syndrome::SendAddress));
    assert_eq!(
        (state(w, &p.a, &p.qa), state(w, &p.b, &p.qb)),
        (State::Error, State::Rts)
    );
    assert_eq!((p.a.event(w), p.b.event(w)), (None, None));
    // A request that makes no sense.
    let mut p = {
        *w = world(Protocol::Roce);
        pair(w)
    };
    p.a.post(w, &mut p.qa, Op::Receive, SIGNALLED, 0, &[0; 24]);
    let wc = p.a.poll(w, &mut p.ca).unwrap();
    assert_eq!(wc.syndrome, Syndrome::SendFormat as u8);
    assert_eq!(w.devices[0].counters.complaints, 1);
}

#[test]
fn a_message_that_does_not_fit_kills_both() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let (from, to) = (p.a.take(4096), p.b.take(4096));
    p.b.post_recv(w, &mut p.qb, to, 8, LOCAL_DMA_KEY);
    p.a.send(w, &mut p.qa, Op::Send, SIGNALLED, [0; 4], (from, 9));
    assert!(p
        .a
        .poll(w, &mut p.ca)
        .unwrap()
        .is(Queue::Send, Op::Send, Syndrome::RecvAddress));
    assert!(p
        .b
        .poll(w, &mut p.cb)
        .unwrap()
        .is(Queue::Recv, Op::Receive, Syndrome::RecvAddress));
    assert_eq!(
        (state(w, &p.a, &p.qa), state(w, &p.b, &p.qb)),
        (State::Error, State::Error)
    );
}

#[test]
fn everything_posted_comes_back_in_order() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let (from, to) = (p.a.take(64), p.a.take(64));
    for n in 0..3 {
        p.a.post_recv(w, &mut p.qa, to + n, 8, LOCAL_DMA_KEY);
    }
    // They wait: the other side has no receive. Without a signal; a flush tells of them all the same.
    for _ in 0..3 {
        p.a.send(w, &mut p.qa, Op::Send, 0, [0; 4], (from, 8));
    }
    assert!(p.a.move_to(w, &p.qa, 6));
    for n in 0..3 {
        let wc = p.a.poll(w, &mut p.ca).unwrap();
        assert!(
            wc.is(Queue::Send, Op::Send, Syndrome::Flushed) && wc.index == n,
            "{wc:?}"
        );
    }
    for n in 0..3 {
        let wc = p.a.poll(w, &mut p.ca).unwrap();
        assert!(
            wc.is(Queue::Recv, Op::Receive, Syndrome::Flushed) && wc.index == n,
            "{wc:?}"
        );
    }
    // What is posted later comes back, too, once, whether by its doorbell or by the driver's order.
    p.a.send(w, &mut p.qa, Op::Send, 0, [0; 4], (from, 8));
    let order = [
        (8, 4, p.qa.qpn.into()),
        (12, 4, p.qa.sq_pi.into()),
        (16, 4, p.qa.rq_pi.into()),
    ];
    p.a.must(w, command::REFLUSH, &order);
    assert!(p
        .a
        .poll(w, &mut p.ca)
        .unwrap()
        .is(Queue::Send, Op::Send, Syndrome::Flushed));
    assert_eq!(p.a.poll(w, &mut p.ca), None);
    // From RESET on the pair is as new.
    assert!(p.a.move_to(w, &p.qa, 0));
    (p.qa.sq_pi, p.qa.rq_pi) = (0, 0);
    p.a.must(w, command::REFLUSH, &order);
    assert_eq!(p.a.poll(w, &mut p.ca), None);
    assert!(!p.a.move_to(w, &p.qa, 3), "RESET is not followed by RTS");
}

#[test]
fn a_sender_waits_for_a_receive() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let (from, to) = (p.a.take(64), p.b.take(64));
    p.a.send(w, &mut p.qa, Op::Send, SIGNALLED, [0; 4], (from, 8));
    // A write after it waits, too.
    let key = p.b.region(w, to, 64, ALL);
    p.a.write(w, &mut p.qa, Op::Write, (from, 8), (to, key));
    pass(w, 5_000 * MS);
    assert_eq!(p.a.poll(w, &mut p.ca), None, "for ever");
    p.b.post_recv(w, &mut p.qb, to, 64, LOCAL_DMA_KEY);
    assert_eq!(p.a.poll(w, &mut p.ca), None, "until its time");
    pass(w, MS);
    assert!(p
        .a
        .poll(w, &mut p.ca)
        .unwrap()
        .is(Queue::Send, Op::Send, Syndrome::Success));
    assert!(p
        .a
        .poll(w, &mut p.ca)
        .unwrap()
        .is(Queue::Send, Op::Write, Syndrome::Success));
    assert!(p
        .b
        .poll(w, &mut p.cb)
        .unwrap()
        .is(Queue::Recv, Op::Receive, Syndrome::Success));
}

#[test]
fn a_peer_that_does_not_answer_is_given_up() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let from = p.a.take(64);
    assert!(p.b.move_to(w, &p.qb, 6));
    p.a.send(w, &mut p.qa, Op::Send, 0, [0; 4], (from, 8));
    let span = w.settings.ack_timeout;
    pass(w, span * 7);
    assert_eq!(p.a.poll(w, &mut p.ca), None, "seven times more");
    pass(w, span * 2);
    assert!(p
        .a
        .poll(w, &mut p.ca)
        .unwrap()
        .is(Queue::Send, Op::Send, Syndrome::RetryExceeded));
    assert_eq!(state(w, &p.a, &p.qa), State::Error);
}

#[test]
fn packet_numbers_must_agree() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let (from, to) = (p.a.take(0x3000), p.b.take(0x3000));
    let key = p.b.region(w, to, 0x3000, ALL);
    p.a.write(w, &mut p.qa, Op::Write, (from, 0x801), (to, key));
    assert!(p
        .a
        .poll(w, &mut p.ca)
        .unwrap()
        .is(Queue::Send, Op::Write, Syndrome::Success));
    let numbers = p.a.must(w, command::QUERY_QP, &[(8, 4, p.qa.qpn.into())]);
    assert_eq!(numbers & 0xff_ffff, 103, "three packets of 1,024 bytes");
    assert_eq!(numbers >> 48 & 0xff, 3, "RTS");
    let numbers = p.b.must(w, command::QUERY_QP, &[(8, 4, p.qb.qpn.into())]);
    assert_eq!(numbers >> 24 & 0xff_ffff, 103);
    w.devices[1].qps.get_mut(&p.qb.qpn).unwrap().recv_psn = 0;
    p.a.write(w, &mut p.qa, Op::Write, (from, 8), (to, key));
    pass(w, 10_000 * MS);
    assert!(p
        .a
        .poll(w, &mut p.ca)
        .unwrap()
        .is(Queue::Send, Op::Write, Syndrome::RetryExceeded));
}

#[test]
fn a_device_is_its_own_peer() {
    let w = &mut world(Protocol::Roce);
    let mut a = Driver::probe(w, 0);
    let mut cq = a.cq(w);
    let (mut one, two) = (a.qp(w, &cq, &cq), a.qp(w, &cq, &cq));
    let gid = a.gid;
    a.connect(w, &one, gid, two.qpn);
    a.connect(w, &two, gid, one.qpn);
    let at = a.take(0x2000);
    a.put(w, at, &bytes(9, 64));
    let key = a.region(w, at, 0x2000, ALL);
    a.write(w, &mut one, Op::Write, (at, 64), (at + 0x1000, key));
    assert!(a
        .poll(w, &mut cq)
        .unwrap()
        .is(Queue::Send, Op::Write, Syndrome::Success));
    assert_eq!(a.get::<64>(w, at + 0x1000).to_vec(), bytes(9, 64));
    // And a pair of its own other end: an error must not be told twice.
    let mut own = a.qp(w, &cq, &cq);
    a.connect(w, &own, gid, own.qpn);
    a.write(w, &mut own, Op::Write, (at, 64), (at, key + 1));
    let first = a.poll(w, &mut cq).unwrap();
    assert_eq!((first.qpn, first.queue), (own.qpn, Queue::Send as u8));
    assert_ne!(first.syndrome, 0);
    assert_eq!(a.poll(w, &mut cq), None);
}

#[test]
fn datagrams_carry_a_header_and_get_lost() {
    let w = &mut world(Protocol::Roce);
    let (mut a, mut b) = (Driver::probe(w, 0), Driver::probe(w, 1));
    let (mut ca, mut cb) = (a.cq(w), b.cq(w));
    let (mut qa, _) = a.qp_of(w, &ca, &ca, 1, 1);
    let (mut qb, _) = b.qp_of(w, &cb, &cb, 1, 1);
    for (d, qp) in [(&mut a, &qa), (&mut b, &qb)] {
        d.must(
            w,
            command::MODIFY_QP,
            &[
                (8, 4, 1 << 24 | u64::from(qp.qpn)),
                (16, 4, 1 | 2),
                (20, 4, 0x8001_0000),
            ],
        );
        assert!(d.move_to(w, qp, 2) && d.move_to(w, qp, 3));
    }
    let [low, high] = [0, 8].map(|at| u64::from_le_bytes(b.gid[at..at + 8].try_into().unwrap()));
    a.must(
        w,
        command::CREATE_AH,
        &[(8, 4, PD.into()), (12, 4, 5), (36, 8, low), (44, 8, high)],
    );
    let (from, to) = (a.take(64), b.take(4096));
    a.put(w, from, &bytes(7, 64));
    let send = |w: &mut World, a: &Driver, qa: &mut Qp, qkey: u32| {
        let mut body = vec![0; 4];
        body.extend(64u32.to_le_bytes());
        body.extend(qkey.to_le_bytes());
        body.extend(1u32.to_le_bytes());
        body.extend(5u32.to_le_bytes());
        body.extend([0; 4]);
        body.extend(sge(from, 64, LOCAL_DMA_KEY));
        a.post(w, qa, Op::Send, SIGNALLED, 1, &body);
    };
    b.post_recv(w, &mut qb, to, 256, LOCAL_DMA_KEY);
    send(w, &a, &mut qa, 1);
    assert!(a
        .poll(w, &mut ca)
        .unwrap()
        .is(Queue::Send, Op::Send, Syndrome::Success));
    assert_eq!(
        (b.poll(w, &mut cb), w.devices[0].counters.datagrams_lost),
        (None, 1),
        "another key"
    );
    send(w, &a, &mut qa, 0x8001_0000);
    let got = b.poll(w, &mut cb).unwrap();
    assert_eq!(
        (got.size, got.datagram & 0xf_ffff, got.datagram >> 31),
        (104, 1, 0),
        "from QP 1, by IPv4"
    );
    assert_eq!(b.get::<64>(w, to + 40).to_vec(), bytes(7, 64));
    assert_eq!(
        b.get::<8>(w, to + 32),
        [10, 9, 0, 1, 10, 9, 0, 2],
        "source and target"
    );
}

#[test]
fn iwarp_pairs_find_each_other_by_their_connection() {
    let w = &mut world(Protocol::Iwarp);
    let (mut a, mut b) = (Driver::probe(w, 0), Driver::probe(w, 1));
    assert_eq!(a.read32(w, reg::PROTOCOL), 0);
    let (mut ca, mut cb) = (a.cq(w), b.cq(w));
    let ((mut qa, cookie_a), (mut qb, cookie_b)) =
        (a.qp_of(w, &ca, &ca, 9, 0), b.qp_of(w, &cb, &cb, 9, 0));
    let (from, to) = (a.take(64), b.take(64));
    let (one, two) = ((0x0a09_0001, 40_000), (0x0a09_0002, 7));
    a.connect_iwarp(w, &qa, cookie_b, one, two);
    a.send(w, &mut qa, Op::Send, SIGNALLED, [0; 4], (from, 8));
    b.post_recv(w, &mut qb, to, 64, LOCAL_DMA_KEY);
    assert_eq!(a.poll(w, &mut ca), None, "the other side is not there yet");
    b.connect_iwarp(w, &qb, cookie_a, two, one);
    pass(w, 200 * MS);
    assert!(a
        .poll(w, &mut ca)
        .unwrap()
        .is(Queue::Send, Op::Send, Syndrome::Success));
    assert!(b
        .poll(w, &mut cb)
        .unwrap()
        .is(Queue::Recv, Op::Receive, Syndrome::Success));
    assert!(!a.move_to(w, &qa, 9), "no such state");
}
