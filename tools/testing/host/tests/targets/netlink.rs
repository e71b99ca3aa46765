// SPDX-License-Identifier: GPL-2.0

//! Requests over netlink, as far as they are read in pure code: attributes of the families `SMC_PNETID` and
//! `SMC_GEN_NETLINK`, and the head of a `sock_diag` request. The kernel has checked the lengths of attributes before.

use super::Script;
use smc_proto::{
    diag::{
        abi::Extensions,
        genl_abi,
        nla::Writer,
        pnet_abi, //
    },
    smc_core::{
        pnet::{
            Attachment,
            Name,
            PnetId, //
        },
        ueid::Table, //
    },
};

pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut table = Table::new();
    for _ in 0..32 {
        if script.is_empty() {
            break;
        }
        match script.u8() % 5 {
            0 => pnet(&mut script),
            1 => {
                // Any change of the table of enterprise IDs.
                let value = script.piece();
                let remove = script.flag();
                let Some(padded) = genl_abi::requested_ueid(Some(value)) else {
                    assert_ne!(value.len(), 33);
                    continue;
                };
                let before = table.iter().count();
                let changed = if remove {
                    table.remove(padded)
                } else {
                    table.add(padded)
                };
                let there = table.iter().any(|ueid| *ueid.as_bytes() == padded);
                match changed {
                    Ok(()) => assert_eq!(there, !remove),
                    Err(_) => assert_eq!(table.iter().count(), before),
                }
                let (list, count) = table.list();
                assert_eq!(count, table.iter().count());
                assert!(list.iter().zip(table.iter()).all(|(a, b)| a == b));
                for (n, ueid) in list[..count].iter().enumerate() {
                    assert!(!list[..n].contains(ueid), "an ID stands there twice");
                    let mut room = [0; 256];
                    assert!(genl_abi::ueid(&mut room, ueid).is_some());
                }
            }
            2 => table.flush(),
            3 => {
                let wanted = Extensions::of(script.piece());
                let kind = script.u16();
                // There are eight bits, the first one for attribute 1.
                assert!(!wanted.want(kind) || (1..=8).contains(&kind));
            }
            _ => {
                // What does not fit is void, and nothing is written beyond the buffer.
                let mut room = [0; 64];
                let len = script.below(room.len() + 1);
                let mut writer = Writer::new(&mut room[..len]);
                let (kind, value) = (script.u16(), script.piece());
                writer.header(script.piece());
                writer.text(kind, value);
                writer.uint(kind, script.u64());
                writer.bytes(kind, value);
                let written = writer.finish().map(<[u8]>::len);
                assert!(written.is_none_or(|n| n <= len && n % 4 == 0));
            }
        }
    }
}

fn pnet(script: &mut Script<'_>) {
    let which = script.u8();
    let (id, eth, ib, port) = (
        script.piece(),
        script.piece(),
        script.piece(),
        script.piece(),
    );
    let has = |bit: u8, value| (which & bit != 0).then_some(value);
    let Some(id) = PnetId::parse(pnet_abi::text(id)) else {
        return;
    };
    assert_eq!(PnetId::parse(id.as_bytes()), Some(id));
    assert_eq!(PnetId::parse(pnet_abi::text(&id.padded())), Some(id));
    let Ok(attachments) = pnet_abi::attachments(has(1, eth), has(2, ib), has(4, port)) else {
        return;
    };
    assert_eq!(attachments[0].is_some(), which & 1 != 0);
    assert_eq!(attachments[1].is_some(), which & 2 != 0);
    for attachment in attachments.into_iter().flatten() {
        let again = match attachment {
            Attachment::Ethernet(name) => Name::new(name.as_bytes()).map(Attachment::Ethernet),
            Attachment::Rdma(name, port) => {
                Name::new(name.as_bytes()).map(|name| Attachment::Rdma(name, port))
            }
        };
        assert_eq!(again, Some(attachment));
        let mut room = [0; pnet_abi::LARGEST];
        assert!(pnet_abi::entry(&mut room, &id, &attachment).is_some());
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (which, port) in [(1, 1), (2, 1), (3, 2), (6, 2), (6, 3)] {
        let mut seed = vec![0, which, 4];
        seed.extend(b"net1\x05eth0\0\x05rxeA\0");
        seed.extend([1, port]);
        all.push(seed);
    }
    let mut ueids = Vec::new();
    for (name, remove) in [
        ("A", 0),
        ("A", 0),
        ("SMC-RS.DEFAULT", 0),
        ("B", 0),
        ("C", 0),
        ("D", 0),
        ("B", 1),
        ("X", 1),
    ] {
        let mut value = [b' '; 33];
        value[..name.len()].copy_from_slice(name.as_bytes());
        value[32] = 0;
        ueids.extend([1, 33]);
        ueids.extend(value);
        ueids.push(remove);
    }
    ueids.push(2);
    all.push(ueids);
    all.push(vec![
        3, 4, 10, 0, 0, 0x0f, 0, 1, 4, 64, 0, 1, 3, b'a', b'b', 0,
    ]);
    all
}
