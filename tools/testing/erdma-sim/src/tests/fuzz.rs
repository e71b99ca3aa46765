//! A guest that means harm: whatever it writes into registers and rings, the device does not fall over and reaches
//! no memory but the guest's.

use super::driver::*;
use crate::wire::{reg, Op};
use crate::world::{Protocol, World};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Act {
    Register {
        at: u64,
        value: u64,
        wide: bool,
    },
    Read {
        at: u64,
        length: usize,
    },
    /// Bytes of a work request, from the header on.
    Request {
        op: u8,
        flags: u64,
        listed: u64,
        body: Vec<u8>,
    },
    Command {
        module: u8,
        opcode: u8,
        body: Vec<u8>,
    },
    Memory {
        at: u64,
        bytes: Vec<u8>,
    },
    Time(u64),
}

/// Numbers that mean something, near others that do not.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..16,
        any::<u64>(),
        (BASE..BASE + SIZE).boxed(),
        Just(u64::MAX),
        (0u64..64).prop_map(|n| 1 << n),
        (0u64..32).prop_map(|n| 2 << 32 | n),
        (0u64..16, 0u64..300).prop_map(|(q, n)| q << 32 | 1 << 31 | n),
    ]
}

fn body(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(number(), 0..most / 8)
        .prop_map(|words| words.iter().flat_map(|w| w.to_le_bytes()).collect())
}

fn act() -> impl Strategy<Value = Act> {
    let place = prop_oneof![
        0u64..0x80,
        (0u64..0x40).prop_map(|n| n * 4),
        Just(reg::CMDQ_SQ_DOORBELL),
        Just(reg::CMDQ_CQ_DOORBELL),
        Just(reg::SEND_DOORBELLS),
        Just(reg::RECV_DOORBELLS),
        Just(reg::CQ_DOORBELLS),
        (0u64..32).prop_map(|n| reg::EQ_DOORBELLS + n * 8),
        any::<u64>(),
    ];
    prop_oneof![
        3 => (place.clone(), number(), any::<bool>()).prop_map(|(at, value, wide)| Act::Register { at, value, wide }),
        1 => (place, 0usize..20).prop_map(|(at, length)| Act::Read { at, length }),
        4 => (0u8..32, 0u64..1 << 5, 0u64..9, body(120)).prop_map(|(op, flags, listed, body)| Act::Request {
            op, flags: flags << 21, listed, body
        }),
        4 => (0u8..3, 0u8..20, body(120)).prop_map(|(module, opcode, body)| Act::Command { module, opcode, body }),
        2 => (BASE..BASE + SIZE, body(64)).prop_map(|(at, bytes)| Act::Memory { at, bytes }),
        1 => (0u64..2_000).prop_map(Act::Time),
    ]
}

fn perform(w: &mut World, p: &mut Pair, act: Act) {
    match act {
        Act::Register {
            at,
            value,
            wide: true,
        } => w.bar_write(0, at, &value.to_le_bytes()),
        Act::Register {
            at,
            value,
            wide: false,
        } => w.bar_write(0, at, &(value as u32).to_le_bytes()),
        Act::Read { at, length } => w.bar_read(0, at, &mut vec![0; length]),
        Act::Request {
            op,
            flags,
            listed,
            mut body,
        } => {
            body.resize(body.len().clamp(24, 120), 0);
            p.a.post(
                w,
                &mut p.qa,
                Op::request(op).unwrap_or(Op::ReceiveInvalidate),
                flags,
                listed,
                &body,
            );
        }
        Act::Command {
            module,
            opcode,
            body,
        } => {
            let fields: Vec<(usize, usize, u64)> = body
                .iter()
                .enumerate()
                .map(|(n, byte)| (8 + n, 1, u64::from(*byte)))
                .collect();
            p.a.command(w, (module, opcode), &fields);
        }
        Act::Memory { at, bytes } => {
            let _ = w.devices[0].memory.write(at, &bytes);
        }
        Act::Time(ms) => pass(w, ms * MS),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// The other machine has given no key to this one: not a byte of it may change but where receives were posted.
    #[test]
    fn a_malicious_guest_stays_in_its_memory(acts in prop::collection::vec(act(), 1..60), iwarp in any::<bool>()) {
        let w = &mut world(if iwarp { Protocol::Iwarp } else { Protocol::Roce });
        let mut p = pair(w);
        let (inbox, secret) = (p.b.take(4096), p.b.take(0x2000));
        p.b.put(w, secret, &[0x5a; 0x2000]);
        // For itself alone.
        p.b.region(w, secret, 0x2000, LOCAL);
        for _ in 0..8 {
            let key = p.b.region(w, inbox, 4096, LOCAL);
            p.b.post_recv(w, &mut p.qb, inbox, 4096, key);
        }
        for act in acts {
            perform(w, &mut p, act);
        }
        pass(w, 5_000 * MS);
        prop_assert_eq!(p.b.get::<0x2000>(w, secret), [0x5a; 0x2000]);
        // And the other device works on, with others.
        let mut cq = p.b.cq(w);
        let (one, two) = (p.b.number(), p.b.number());
        let (mut one, cookie_one) = p.b.qp_of(w, &cq, &cq, one, 0);
        let (two, cookie_two) = p.b.qp_of(w, &cq, &cq, two, 0);
        let gid = p.b.gid;
        if iwarp {
            let (first, second) = ((0x0a09_0002, 41_000), (0x0a09_0002, 8));
            p.b.connect_iwarp(w, &one, cookie_two, first, second);
            p.b.connect_iwarp(w, &two, cookie_one, second, first);
        } else {
            p.b.connect(w, &one, gid, two.qpn);
            p.b.connect(w, &two, gid, one.qpn);
        }
        let key = p.b.region(w, inbox, 4096, ALL);
        p.b.write(w, &mut one, Op::Write, (secret, 8), (inbox, key));
        pass(w, 5_000 * MS);
        let wc = p.b.poll(w, &mut cq).expect("a completion");
        // The guest may have taken the other's GID, by which the other finds itself no more; that is the wire's.
        prop_assert!(wc.syndrome == 0 || !iwarp && w.device_of(&gid) != Some(1));
    }
}
