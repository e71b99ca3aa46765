//! Faults that are ordered, resets, and what a device refuses.

use super::driver::*;
use crate::control::{obey, Order};
use crate::mr::LOCAL_DMA_KEY;
use crate::qp::State;
use crate::wire::{command, reg, Event, Op, Queue, Syndrome};
use crate::world::{Protocol, World};

fn order(w: &mut World, text: &str) -> serde_json::Value {
    let order: Order = serde_json::from_str(text).unwrap();
    let answer = obey(w, order).unwrap_or_else(|why| panic!("{text}: {why}"));
    assert_eq!(answer["ok"], true);
    answer
}

/// A write, and what its completion says.
fn write(w: &mut World, p: &mut Pair, to: u64, key: u32) -> Option<Wc> {
    p.a.write(w, &mut p.qa, Op::Write, (BASE, 8), (to, key));
    p.a.poll(w, &mut p.ca)
}

fn target(w: &mut World, p: &mut Pair) -> (u64, u32) {
    let to = p.b.take(4096);
    (to, p.b.region(w, to, 4096, ALL))
}

#[test]
fn commands_hang_and_go_on() {
    let w = &mut world(Protocol::Roce);
    let mut d = Driver::probe(w, 0);
    order(w, r#"{"do":"hang_commands","device":0,"on":true}"#);
    assert_eq!(d.command(w, command::QUERY_FW, &[]), None);
    order(w, r#"{"do":"hang_commands","device":0,"on":false}"#);
    assert_eq!(d.reply(w), Some((0, 0x1_0000)));
}

#[test]
fn a_receiver_is_not_ready_for_a_while() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let to = p.b.take(64);
    p.b.post_recv(w, &mut p.qb, to, 64, LOCAL_DMA_KEY);
    order(w, r#"{"do":"not_ready","device":1,"ms":50}"#);
    p.a.send(w, &mut p.qa, Op::Send, SIGNALLED, [0; 4], (BASE, 8));
    pass(w, 49 * MS);
    assert_eq!(p.a.poll(w, &mut p.ca), None);
    pass(w, 2 * MS);
    assert!(p
        .a
        .poll(w, &mut p.ca)
        .unwrap()
        .is(Queue::Send, Op::Send, Syndrome::Success));
    assert!(w.devices[0].counters.not_ready > 100);
}

#[test]
fn completions_get_lost_and_come_late_in_order() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let (to, key) = target(w, &mut p);
    order(w, r#"{"do":"drop_completions","device":0,"count":1}"#);
    assert_eq!(write(w, &mut p, to, key), None);
    assert_eq!(write(w, &mut p, to, key).unwrap().index, 2);
    order(w, r#"{"do":"delay_completions","device":0,"ms":20}"#);
    assert_eq!(write(w, &mut p, to, key), None);
    order(w, r#"{"do":"delay_completions","device":0,"ms":0}"#);
    assert_eq!(
        write(w, &mut p, to, key),
        None,
        "behind the one that is late"
    );
    pass(w, 19 * MS);
    assert_eq!(p.a.poll(w, &mut p.ca), None);
    pass(w, 2 * MS);
    assert_eq!(p.a.poll(w, &mut p.ca).unwrap().index, 4);
    assert_eq!(p.a.poll(w, &mut p.ca).unwrap().index, 6);
}

#[test]
fn only_completions_of_one_kind_get_lost() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let to = p.b.take(64);
    for _ in 0..2 {
        p.b.post_recv(w, &mut p.qb, to, 64, LOCAL_DMA_KEY);
    }
    let send = |w: &mut World, p: &mut Pair| {
        p.a.send(w, &mut p.qa, Op::Send, SIGNALLED, [0; 4], (BASE, 8));
        (
            p.a.poll(w, &mut p.ca).is_some(),
            p.b.poll(w, &mut p.cb).is_some(),
        )
    };
    for device in 0..2 {
        order(
            w,
            &format!(r#"{{"do":"drop_completions","device":{device},"count":1,"of":"receives"}}"#),
        );
    }
    assert_eq!(send(w, &mut p), (true, false));
    for device in 0..2 {
        order(
            w,
            &format!(r#"{{"do":"drop_completions","device":{device},"count":1,"of":"sends"}}"#),
        );
    }
    assert_eq!(send(w, &mut p), (false, true));
    assert_eq!(w.devices[0].faults.drop_completions, 0);
    assert_eq!(w.devices[1].faults.drop_completions, 1);
}

#[test]
fn an_interrupt_gets_lost() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let (to, key) = target(w, &mut p);
    p.a.arm(w, &p.ca, false);
    order(w, r#"{"do":"lose_interrupts","device":0,"count":1}"#);
    assert!(write(w, &mut p, to, key).is_some());
    assert!(!w.devices[0].interrupts.take(1));
    assert_eq!(w.devices[0].interrupts.lost, 1);
}

#[test]
fn a_pair_or_a_queue_dies_by_order() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let to = p.b.take(64);
    p.b.post_recv(w, &mut p.qb, to, 64, LOCAL_DMA_KEY);
    order(w, r#"{"do":"qp_fatal","device":1}"#);
    assert!(p
        .b
        .poll(w, &mut p.cb)
        .unwrap()
        .is(Queue::Recv, Op::Receive, Syndrome::Flushed));
    assert_eq!(p.b.event(w), Some((Event::QpFatal as u32, p.qb.qpn)));
    let cqn = p.ca.cqn;
    order(w, &format!(r#"{{"do":"cq_error","device":0,"cqn":{cqn}}}"#));
    assert_eq!(p.a.event(w), Some((Event::CqError as u32, cqn)));
    assert_eq!(p.a.event(w), Some((Event::QpFatal as u32, p.qa.qpn)));
    assert_eq!(p.a.poll(w, &mut p.ca), None, "nothing comes by it any more");
}

#[test]
fn a_key_is_revoked() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let (to, key) = target(w, &mut p);
    assert_eq!(write(w, &mut p, to, key).unwrap().syndrome, 0);
    order(
        w,
        &format!(r#"{{"do":"revoke_key","device":1,"key":{key}}}"#),
    );
    assert!(write(w, &mut p, to, key)
        .unwrap()
        .is(Queue::Send, Op::Write, Syndrome::RecvStag));
}

#[test]
fn a_port_goes_down_and_a_gid_goes() {
    for fault in [
        r#"{"do":"port","device":1,"up":false}"#,
        r#"{"do":"remove_gid","device":1,"index":1}"#,
    ] {
        let w = &mut world(Protocol::Roce);
        let mut p = pair(w);
        let (to, key) = target(w, &mut p);
        order(w, fault);
        assert_eq!(write(w, &mut p, to, key), None);
        pass(w, 3_000 * MS);
        let wc = p.a.poll(w, &mut p.ca).unwrap();
        assert!(
            wc.is(Queue::Send, Op::Write, Syndrome::RetryExceeded),
            "{fault}: {wc:?}"
        );
    }
    // Back in time, nobody notices.
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let (to, key) = target(w, &mut p);
    order(w, r#"{"do":"port","device":0,"up":false}"#);
    assert_eq!(write(w, &mut p, to, key), None);
    pass(w, 300 * MS);
    order(w, r#"{"do":"port","device":0,"up":true}"#);
    pass(w, 300 * MS);
    assert_eq!(p.a.poll(w, &mut p.ca).unwrap().syndrome, 0);
}

#[test]
fn registrations_and_objects_are_refused() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    order(w, r#"{"do":"refuse_registrations","device":0,"count":2}"#);
    let region = [(8, 4, 1 << 31 | 99), (28, 4, 12 << 27 | 1)];
    assert!(p.a.refused(w, command::REG_MR, &region));
    let (index, _) = {
        order(w, r#"{"do":"heal","device":0}"#);
        p.a.fast_region(w, 4)
    };
    order(w, r#"{"do":"refuse_registrations","device":0,"count":1}"#);
    p.a.register(w, &mut p.qa, index << 8, (0, 4096), &[BASE], true);
    assert!(p
        .a
        .poll(w, &mut p.ca)
        .unwrap()
        .is(Queue::Send, Op::Register, Syndrome::General));
    order(
        w,
        r#"{"do":"limit","device":0,"qps":1,"cqs":1,"regions":1}"#,
    );
    assert!(p.a.refused(w, command::REG_MR, &region));
    assert!(p.a.refused(
        w,
        command::CREATE_CQ,
        &[(8, 4, 13 << 20 | 77), (20, 4, 1 << 16 | 1)]
    ));
    let cq = u64::from(p.ca.cqn);
    assert!(p.a.refused(
        w,
        command::CREATE_QP,
        &[(8, 4, 77), (16, 4, cq), (20, 4, cq)]
    ));
    order(w, r#"{"do":"heal","device":0}"#);
    assert!(!p.a.refused(w, command::REG_MR, &region));
}

#[test]
fn what_the_driver_does_not_check_the_device_does() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let (a, cq) = (&mut p.a, u64::from(p.ca.cqn));
    for (what, code, fields) in [
        (
            "an EQ that does not exist",
            command::CREATE_CQ,
            vec![(8, 4, 77), (20, 4, 1 << 16 | 9)],
        ),
        (
            "the same CQ",
            command::CREATE_CQ,
            vec![(8, 4, cq), (20, 4, 1 << 16 | 1)],
        ),
        ("a CQ that is in use", command::DESTROY_CQ, vec![(8, 4, cq)]),
        (
            "a CQ that does not exist",
            command::CREATE_QP,
            vec![(8, 4, 77), (16, 4, 1000), (20, 4, cq)],
        ),
        (
            "a QP that does not exist",
            command::MODIFY_QP,
            vec![(8, 4, 1 << 24 | 1000)],
        ),
        (
            "an MR that does not exist",
            command::DEREG_MR,
            vec![(8, 4, 1000)],
        ),
        (
            "a GID that does not exist",
            command::SET_GID,
            vec![(8, 4, 16)],
        ),
        (
            "an EQ with too many entries",
            command::CREATE_EQ,
            vec![(16, 1, 2), (17, 1, 2), (18, 1, 60)],
        ),
        (
            "an EQ with vector 40",
            command::CREATE_EQ,
            vec![(16, 1, 40), (17, 1, 2), (18, 1, 4)],
        ),
        (
            "statistics outside of memory",
            command::GET_STATS,
            vec![(16, 8, 0), (24, 4, 256)],
        ),
        ("a command that does not exist", (2, 3), vec![]),
    ] {
        assert!(a.refused(w, code, &fields), "{what}");
    }
    assert_eq!(w.devices[0].counters.failed_commands, 11);
    assert_eq!(w.devices[0].counters.complaints, 11, "a line for each");
    a.write32(w, 0x400, 1);
    assert_eq!(a.read32(w, 0x7_0000), 0);
    a.write64(w, reg::CQ_DOORBELLS, 999 << 32);
    a.write64(w, reg::SEND_DOORBELLS, 999 << 32 | 1);
    assert_eq!(w.devices[0].counters.complaints, 15);
}

/// A driver records a doorbell before it rings, and the record of the next one may be there already.
#[test]
fn a_doorbell_that_was_not_recorded_is_told() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let (to, key) = target(w, &mut p);
    write(w, &mut p, to, key).unwrap();
    let cq = p.a.cq(w);
    p.a.arm(w, &cq, false);
    assert_eq!(w.devices[0].counters.complaints, 0);
    let queues = [
        (
            p.qa.sq_record,
            reg::SEND_DOORBELLS,
            p.qa.qpn,
            p.qa.sq_pi,
            16,
        ),
        (
            p.qa.rq_record,
            reg::RECV_DOORBELLS,
            p.qa.qpn,
            p.qa.rq_pi,
            16,
        ),
        (cq.record, reg::CQ_DOORBELLS, cq.cqn, 0, 24),
    ];
    for (number, (record, at, queue, index, bits)) in queues.into_iter().enumerate() {
        let doorbell = u64::from(queue) << 32 | u64::from(index);
        for (ahead, told) in [(0u64, 0), (1, 0), (u64::MAX, 1)] {
            let recorded = doorbell.wrapping_add(ahead) & ((1 << bits) - 1);
            p.a.put(w, record, &recorded.to_le_bytes());
            p.a.write64(w, at, doorbell);
            let all = w.devices[0].counters.complaints;
            assert_eq!(
                all,
                number as u64 + told,
                "queue {number}, {ahead:#x} ahead"
            );
        }
    }
}

#[test]
fn statistics_are_where_the_driver_looks() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    let (to, key) = target(w, &mut p);
    write(w, &mut p, to, key).unwrap();
    let at = p.a.take(256);
    p.a.must(w, command::GET_STATS, &[(16, 8, at), (24, 4, 256)]);
    assert_eq!(p.a.get::<2>(w, at), [0x66, 0x55]);
    assert_eq!(u64::from_le_bytes(p.a.get(w, at + 16)), 1, "requests");
    assert_eq!(u64::from_le_bytes(p.a.get(w, at + 32)), 8, "bytes");
}

#[test]
fn processes_get_doorbell_pages_of_their_own() {
    let w = &mut world(Protocol::Roce);
    let mut d = Driver::probe(w, 0);
    let offsets = |response: u64| [response & 0xffff, response >> 32 & 0xffff, response >> 48];
    let one = offsets(d.must(w, command::ALLOC_DB, &[(8, 4, 7)]));
    let two = offsets(d.must(w, command::ALLOC_DB, &[(8, 4, 7)]));
    for (n, (first, second)) in one.into_iter().zip(two).enumerate() {
        assert_ne!(first, second);
        let range = [
            reg::SEND_DOORBELLS..reg::RECV_DOORBELLS,
            reg::RECV_DOORBELLS..reg::CQ_DOORBELLS,
            reg::CQ_DOORBELLS..reg::SIZE,
        ];
        assert!(range[n].contains(&(first << 12)) && range[n].contains(&(second << 12)));
    }
    // As the driver gives them back: receive, send, completion, by its names.
    d.must(
        w,
        command::FREE_DB,
        &[(8, 4, 7), (12, 2, one[2]), (14, 2, one[0]), (18, 2, one[1])],
    );
    assert_eq!(offsets(d.must(w, command::ALLOC_DB, &[(8, 4, 7)])), one);
}

#[test]
fn a_reset_forgets_everything_and_a_dead_device_answers_with_ones() {
    let w = &mut world(Protocol::Roce);
    let mut p = pair(w);
    // A timer of a pair that will be gone.
    p.a.send(w, &mut p.qa, Op::Send, SIGNALLED, [0; 4], (BASE, 8));
    p.a.write32(w, reg::CONTROL, reg::CONTROL_RESET);
    assert_eq!(p.a.read32(w, reg::STATUS), reg::STATUS_RESET_DONE);
    assert!(w.devices[0].qps.is_empty() && w.devices[0].cqs.is_empty());
    pass(w, 1_000 * MS);
    p.a.ring(w, &p.qa);
    w.reset(1);
    let mut again = pair(w);
    assert_eq!(again.a.read32(w, reg::VERSION), 1);
    let (to, key) = target(w, &mut again);
    assert_eq!(
        write(w, &mut again, to, key).unwrap().syndrome,
        0,
        "it works again"
    );
    order(w, r#"{"do":"die","device":0}"#);
    assert_eq!(again.a.read32(w, reg::STATUS), u32::MAX);
    assert_eq!(write(w, &mut again, to, key), None);
    assert_eq!(again.a.command(w, command::QUERY_FW, &[]), None);
    assert_eq!(w.devices[1].qps[&again.qb.qpn].state, State::Rts);
}

#[test]
fn orders_that_make_no_sense_say_why() {
    let w = &mut world(Protocol::Roce);
    let ask = |w: &mut World, text: &str| {
        let order: Order = serde_json::from_str(text).map_err(|e| e.to_string())?;
        obey(w, order)
    };
    for (text, why) in [
        (r#"{"do":"die","device":2}"#, "there is no device 2"),
        (r#"{"do":"fly"}"#, "unknown variant"),
        (r#"{"do":"port","device":0}"#, "missing field `up`"),
        (r#"{"do":"cq_error","device":0,"cqn":4}"#, "has no CQ 4"),
        (
            r#"{"do":"remove_gid","device":0,"index":3}"#,
            "has no GID 3",
        ),
        (r#"{"do":"qp_fatal","device":0}"#, "no such QP"),
        (r#"{"do":"revoke_key","device":0}"#, "no such key"),
    ] {
        let answer = ask(w, text).unwrap_err();
        assert!(answer.contains(why), "{text}: {answer}");
    }
    let state = ask(w, r#"{"do":"state"}"#).unwrap();
    assert_eq!(state["devices"].as_array().unwrap().len(), 2);
    assert!(!ask(w, r#"{"do":"trace","last":5}"#).unwrap()["trace"].is_null());
}
