// SPDX-License-Identifier: GPL-2.0

//! TCP options of a SYN and of the SYN-ACK to it, whole packets, and the memory of servers that are no SMC servers.

use super::{
    common::read_options,
    Script, //
};
use smc_proto::{
    clc::{
        plain_servers::*,
        tcp_header::*,
        tcp_option::*, //
    },
    smc_core::time::Millis,
};

pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    match script.u8() % 4 {
        0 => {
            let syn = script.piece();
            let syn_ack = script.take(usize::MAX);
            read_options(syn);
            read_options(syn_ack);
            assert_eq!(is_echo(syn, syn_ack), is_echo(syn_ack, syn));
            mark_and_restore(syn, script_random(syn_ack));
        }
        1 => packet(script.take(usize::MAX), Checksum::Complete),
        2 => packet(script.take(usize::MAX), Checksum::Partial),
        _ => servers(&mut script),
    }
}

fn script_random(bytes: &[u8]) -> u32 {
    // The identifier itself among them, for which a mark must be something else.
    bytes
        .first_chunk()
        .map_or(0xe2d4_c3d9, |b| u32::from_be_bytes(*b))
}

fn mark_and_restore(options: &[u8], random: u32) {
    let mark = SynMark::from_random(random);
    let mut saved = options.to_vec();
    // A SYN that is marked already is one of a client that guessed.
    if !mark.is_marked(options) && mark.mark(&mut saved) {
        assert!(mark.is_marked(&saved) && mark.restore(&mut saved));
    }
    assert!(mark.is_marked(options) || saved == options);
}

/// The sum of RFC 1071, as a number modulo 65535.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2);
    let word = |w: &[u8]| (u64::from(w[0]) << 8) | u64::from(w.get(1).copied().unwrap_or(0));
    words.map(word).sum::<u64>() % 0xffff
}

fn packet(bytes: &[u8], checksum: Checksum) {
    let Some(headers) = Headers::parse(bytes) else {
        return;
    };
    let (transport, len) = (headers.transport(), headers.length());
    let mut grown = vec![0xaa; GROWTH];
    grown.extend_from_slice(&bytes[..len]);
    assert!(headers.insert(&mut grown, checksum));
    // What comes out is a SYN with the option, and is not touched again.
    assert!(contains_smc(&grown[transport + 20..]));
    assert!(Headers::parse(&grown).is_none());
    // Checksums that were right still are, and those that were wrong still are wrong.
    let growth = GROWTH as u64;
    if bytes[0] >> 4 == 4 {
        assert_eq!(sum(&grown[..transport]), sum(&bytes[..transport]));
    }
    match checksum {
        Checksum::Complete => {
            let after = (sum(&grown[transport..]) + growth) % 0xffff;
            assert_eq!(after, sum(&bytes[transport..len]));
        }
        Checksum::Partial => {
            let check = transport + 16..transport + 18;
            let before = sum(&bytes[check.clone()]) + growth;
            assert_eq!(sum(&grown[check]), before % 0xffff);
        }
    }
}

fn servers(script: &mut Script<'_>) {
    let mut known = PlainServers::new();
    let mut now = Millis(0);
    let mut last = None;
    for _ in 0..100 {
        if script.is_empty() {
            return;
        }
        let what = script.u8();
        let address = [0, 2, 10, 11][usize::from(what >> 6)];
        let server = match script.flag() {
            true => last,
            false => Server::from_sockaddr(address, script.piece()),
        };
        let Some(server) = server else {
            continue;
        };
        last = Some(server);
        let _ = (server.port(), server.hash());
        match what & 3 {
            0 => {
                known.remember(server, Sign::Stranger, now, now);
                assert!(known.contains(&server, now));
            }
            1 => {
                let begun = Millis(now.0.saturating_sub(script.u16().into()));
                known.remember(server, Sign::Ended, begun, now);
            }
            2 => {
                known.clear(&server);
                assert!(!known.contains(&server, now));
            }
            _ => {
                now = now.after(script.u32() % (2 * REMEMBERED_MS));
            }
        }
    }
}

/// Options as Linux has them in a SYN.
const SYN: [u8; 20] = [
    2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
];
const SMC: [u8; 8] = [1, 1, 254, 6, 0xe2, 0xd4, 0xc3, 0xd9];

pub fn seeds() -> Vec<Vec<u8>> {
    let with_smc = [&SYN[..], &SMC].concat();
    let options = |syn: &[u8], syn_ack: &[u8]| [&[0, syn.len() as u8], syn, syn_ack].concat();
    let mut signed = [0; 20];
    (signed[0], signed[1]) = (19, 18);
    let mut all = vec![
        options(&SYN, &SYN),
        options(&with_smc, &with_smc),
        options(&with_smc, &[0xe2, 0xd4, 0xc3, 0xd9]),
        options(&signed, &[29, 4, 0, 0]),
        options(&[2, 4, 5, 0xb4, 0, 0, 0, 0], &[1, 1, 2]),
    ];
    for (v4, extension) in [(true, false), (true, true), (false, false), (false, true)] {
        for kind in [1, 2] {
            let mut packet = vec![kind];
            if v4 {
                packet.extend([if extension { 0x46 } else { 0x45 }, 0, 0, 60, 0, 0, 0x40]);
                packet.extend([0, 64, 6, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
                packet.extend_from_slice(&[1; 4][..if extension { 4 } else { 0 }]);
            } else {
                packet.extend([0x60, 0, 0, 0, 0, 40, if extension { 60 } else { 6 }, 64]);
                packet.extend([2; 32]);
                packet.extend_from_slice(&[6, 0, 1, 4, 0, 0, 0, 0][..8 * usize::from(extension)]);
            }
            packet.extend([0x30, 0x39, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0]);
            packet.extend([0xa0, 2, 0xff, 0xff, 0, 0, 0, 0]);
            packet.extend(SYN);
            all.push(packet);
        }
    }
    let mut servers = vec![3];
    for number in 0..40u8 {
        servers.extend([0x40, 0, 8, 0, 2, 0, 80, 10, 9, 0, number]);
    }
    servers.extend([1, 1, 0, 5, 3, 1, 0, 0, 1, 0, 1, 1, 0, 0, 2, 1]);
    servers.extend([0x81, 0, 28, 0, 10, 0, 80, 0, 0, 0, 0]);
    servers.extend([0xfd; 16]);
    servers.extend([0, 0, 0, 1, 0, 0]);
    all.push(servers);
    all
}
