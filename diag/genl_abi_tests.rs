// SPDX-License-Identifier: GPL-2.0

//! Every message byte by byte, against `linux/smc.h` and what C's net/smc puts into it.

use super::*;
use crate::smc_core::types::Gid;
use std::{
    string::String,
    vec::Vec, //
};

fn room() -> Vec<u8> {
    std::vec![0xee; LARGEST]
}

/// Bytes of a message as `le32(len|type<<16) value...`: a small language for golden bytes.
fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((value.len() as u16 + 4).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize((bytes.len() + 3) & !3, 0);
    bytes
}

fn nest(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attr(kind | 0x8000, &parts.concat())
}

fn text(value: &str) -> Vec<u8> {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn padded(name: &str) -> [u8; 32] {
    let mut padded = [b' '; 32];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    padded
}

fn blank_padded(name: &str) -> Vec<u8> {
    text(&(String::from(name) + &" ".repeat(32 - name.len())))
}

#[test]
fn sys_info_is_laid_out_as_smcr_reads_it() {
    let mut room = room();
    let got = sys_info(
        &mut room,
        &SysInfo {
            hostname: padded("here"),
        },
    );
    let expected = [
        std::vec![1, 1, 0, 0],
        nest(
            1,
            &[
                attr(1, &[2]),
                attr(2, &[1]),
                attr(3, &[0]),
                attr(4, &blank_padded("here")),
                attr(6, &[1]),
            ],
        ),
    ]
    .concat();
    assert_eq!(got, Some(&expected[..]));
    // Once without the helpers above: header, nest, and the first attribute in it.
    assert_eq!(expected[..8], [1, 1, 0, 0, 76, 0, 1, 0x80]);
    assert_eq!(expected[8..16], [5, 0, 1, 0, 2, 0, 0, 0]);
}

fn a_group() -> Group<'static> {
    Group {
        id: 0x0102_0304,
        server: true,
        kind: GroupType::Single,
        pnet_id: b"NET1",
        vlan: 0x1ff,
        conns: 5,
        v2: None,
        net_cookie: 0x1122_3344_5566_7788,
        buf_type: 2,
        sndbuf_alloc: 65536,
        rmb_alloc: 1 << 33,
    }
}

fn group_parts() -> Vec<Vec<u8>> {
    std::vec![
        attr(1, &0x0102_0304u32.to_ne_bytes()),
        attr(6, &5u32.to_ne_bytes()),
        attr(2, &[1]),
        attr(3, &[1]),
        attr(11, &[2]),
        attr(5, &[0xff]),
        attr(9, &0x1122_3344_5566_7788u64.to_ne_bytes()),
        attr(4, &text("NET1")),
        attr(12, &65536u32.to_ne_bytes()),
        attr(13, &(1u64 << 33).to_ne_bytes()),
    ]
}

#[test]
fn a_link_group_of_version_1() {
    let mut room = room();
    let expected = [std::vec![2, 1, 0, 0], nest(2, &group_parts())].concat();
    assert_eq!(group(&mut room, &a_group()), Some(&expected[..]));
}

#[test]
fn a_link_group_of_version_2() {
    let mut room = room();
    let v2 = V2Info {
        release: 1,
        os: 2,
        eid: padded("SMC-RS.DEFAULT"),
        peer_host: padded("there"),
        direct: true,
        max_conns: 255,
        max_links: 2,
    };
    let got = group(
        &mut room,
        &Group {
            v2: Some(v2),
            ..a_group()
        },
    );
    let mut parts = group_parts();
    parts.push(nest(
        7,
        &[
            attr(0, &[2]),
            attr(1, &[1]),
            attr(2, &[2]),
            attr(4, &blank_padded("there")),
            attr(3, &blank_padded("SMC-RS.DEFAULT")),
        ],
    ));
    parts.push(nest(8, &[attr(1, &[1]), attr(2, &[255]), attr(3, &[2])]));
    let expected = [std::vec![2, 1, 0, 0], nest(2, &parts)].concat();
    assert_eq!(got, Some(&expected[..]));
}

#[test]
fn a_link() {
    let mut room = room();
    let got = link(
        &mut room,
        &Link {
            number: 1,
            device: b"rxeA",
            port: 1,
            gid: &Gid::from_ipv4([10, 9, 0, 1]),
            peer_gid: &Gid::from_ipv4([10, 9, 0, 2]),
            conns: 3,
            ifindex: 7,
            uid: 0x101,
            peer_uid: 0x201,
            state: LinkState::Active,
        },
    );
    let expected = [
        std::vec![3, 1, 0, 0],
        nest(
            3,
            &[
                attr(1, &[1]),
                attr(10, &3u32.to_ne_bytes()),
                attr(6, &3u32.to_ne_bytes()),
                attr(3, &[1]),
                attr(7, &7u32.to_ne_bytes()),
                attr(2, &text("rxeA")),
                attr(8, &[0, 0, 1, 1]),
                attr(9, &[0, 0, 2, 1]),
                attr(4, &text("0000:0000:0000:0000:0000:ffff:0a09:0001")),
                attr(5, &text("0000:0000:0000:0000:0000:ffff:0a09:0002")),
            ],
        ),
    ]
    .concat();
    assert_eq!(got, Some(&expected[..]));
}

#[test]
fn a_device_with_and_without_pci() {
    let port = Port {
        pnet_id: b"",
        pnet_by_user: false,
        ifindex: 4,
        active: true,
        links: 2,
    };
    let port_parts = |pnet: &str, user: u8, active: u8| {
        [
            attr(1, &[user]),
            attr(2, &text(pnet)),
            attr(3, &4u32.to_ne_bytes()),
            attr(5, &[1]),
            attr(4, &[active]),
            attr(6, &2u32.to_ne_bytes()),
        ]
    };
    let mut bare = Device {
        name: b"rxeA",
        links: 2,
        critical: true,
        pci: None,
        ports: [Some(port), None],
    };
    let mut buffer = room();
    let expected = [
        std::vec![6, 1, 0, 0],
        nest(
            6,
            &[
                attr(2, &[1]),
                attr(10, &text("rxeA")),
                attr(1, &2u32.to_ne_bytes()),
                nest(8, &port_parts("", 0, 1)),
            ],
        ),
    ]
    .concat();
    assert_eq!(device(&mut buffer, &bare), Some(&expected[..]));

    bare.critical = false;
    bare.pci = Some(Pci {
        vendor: 0x15b3,
        device: 0x101e,
        id: *b"0000:00:02.0\0xxx",
    });
    bare.ports[1] = Some(Port {
        pnet_id: b"NET1",
        pnet_by_user: true,
        active: false,
        ..port
    });
    let expected = [
        std::vec![6, 1, 0, 0],
        nest(
            6,
            &[
                attr(2, &[0]),
                attr(3, &0u32.to_ne_bytes()),
                attr(4, &0u16.to_ne_bytes()),
                attr(5, &0x15b3u16.to_ne_bytes()),
                attr(6, &0x101eu16.to_ne_bytes()),
                attr(7, &text("0000:00:02.0")),
                attr(10, &text("rxeA")),
                attr(1, &2u32.to_ne_bytes()),
                nest(8, &port_parts("", 0, 1)),
                nest(9, &port_parts("NET1", 1, 0)),
            ],
        ),
    ]
    .concat();
    assert_eq!(device(&mut buffer, &bare), Some(&expected[..]));
}

#[test]
fn ids_and_the_limit_of_handshakes() {
    let mut buffer = room();
    let default = Ueid::from_name(b"SMC-RS.DEFAULT").unwrap();
    let expected = [
        std::vec![9, 1, 0, 0],
        attr(1, &blank_padded("SMC-RS.DEFAULT")),
    ]
    .concat();
    assert_eq!(ueid(&mut buffer, &default), Some(&expected[..]));
    assert_eq!(seid(&mut buffer), Some(&[13, 1, 0, 0][..]));
    assert_eq!(
        hs_limitation(&mut buffer, true),
        Some(&[16, 1, 0, 0, 5, 0, 1, 0, 1, 0, 0, 0][..])
    );
}

#[test]
fn an_id_in_a_request_has_33_bytes() {
    let good = blank_padded("A");
    assert_eq!(requested_ueid(Some(&good)), Some(padded("A")));
    for bad in [0, 1, 32, 34] {
        assert_eq!(requested_ueid(Some(&std::vec![b'A'; bad])), None, "{bad}");
    }
    assert_eq!(requested_ueid(None), None);
}

#[test]
fn statistics_are_all_there_in_the_places_of_the_abi() {
    let mut buffer = room();
    // Each counter is its own number, and one.
    let value = |counter: Counter| counter.number() as u64 + 1;
    let got = stats(&mut buffer, &value).unwrap().to_vec();
    let number = |kind: u16, value: u64| attr(kind, &value.to_ne_bytes());
    let four = |kind: u16, value: u64| attr(kind, &(value as u32).to_ne_bytes());
    let sizes = |kind: u16, first: u64, step: u64| {
        let all: Vec<_> = (0..9u16)
            .map(|size| number(size + 1, first + u64::from(size) * step))
            .collect();
        nest(kind, &all)
    };
    // In the order of `SMC_NLA_STATS_RMB_*`; in counter.rs these are behind the sizes and the usage.
    let buffers = |kind: u16, first: u64, step: u64| {
        let all: Vec<_> = (1..8u16)
            .map(|place| number(place, first + u64::from(place - 1) * step))
            .collect();
        nest(kind, &all)
    };
    let zero = nest(
        1,
        &[
            sizes(1, 0, 0),
            sizes(2, 0, 0),
            sizes(3, 0, 0),
            sizes(4, 0, 0),
            buffers(5, 0, 0),
            buffers(6, 0, 0),
            (7..20).flat_map(|kind| number(kind, 0)).collect(),
            four(20, 0),
            four(21, 0),
        ],
    );
    let all = nest(
        2,
        &[
            sizes(1, 1, 1),
            sizes(2, 18, 1),
            sizes(3, 35, 1),
            sizes(4, 46, 1),
            buffers(5, 11, 1),
            buffers(6, 28, 1),
            number(7, 57),
            number(8, 58),
            number(9, 59),
            number(10, 60),
            number(11, 0),
            number(12, 61),
            number(13, 62),
            number(14, 63),
            number(15, 64),
            // Bytes received and sent, calls that receive and send.
            number(16, 56),
            number(17, 45),
            number(18, 55),
            number(19, 44),
            four(20, 27),
            four(21, 10),
        ],
    );
    let expected = [
        std::vec![7, 1, 0, 0],
        nest(7, &[zero, all, number(3, 65), number(4, 66)]),
    ]
    .concat();
    assert_eq!(got, expected);
    // It fits into the least part of a dump, of a page with all that the kernel needs in it.
    assert!(got.len() < 3500, "{}", got.len());
}

#[test]
fn reasons_of_fallbacks() {
    let mut buffer = room();
    let first = Fallbacks {
        server: true,
        totals: Some((70000, 3)),
        reason: 0x0301_0000,
        count: 70000,
    };
    let expected = [
        std::vec![8, 1, 0, 0],
        nest(
            8,
            &[
                attr(1, &[1]),
                attr(2, &70000u64.to_ne_bytes()),
                attr(3, &3u64.to_ne_bytes()),
                attr(4, &0x0301_0000u32.to_ne_bytes()),
                attr(5, &0xffffu16.to_ne_bytes()),
            ],
        ),
    ]
    .concat();
    assert_eq!(fallbacks(&mut buffer, &first), Some(&expected[..]));
    let next = Fallbacks {
        server: false,
        totals: None,
        count: 2,
        ..first
    };
    let expected = [
        std::vec![8, 1, 0, 0],
        nest(
            8,
            &[
                attr(1, &[0]),
                attr(4, &0x0301_0000u32.to_ne_bytes()),
                attr(5, &2u16.to_ne_bytes()),
            ],
        ),
    ]
    .concat();
    assert_eq!(fallbacks(&mut buffer, &next), Some(&expected[..]));
}
