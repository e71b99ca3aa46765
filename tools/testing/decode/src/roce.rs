// SPDX-License-Identifier: GPL-2.0

//! What goes by RDMA: InfiniBand transport headers (IBTA, volume 1, chapter 9), and in them LLC and CDC
//! messages as SENDs, data as RDMA WRITEs.

use super::clc::words;
use super::Finding;
use smc_proto::rx_tx::cdc::CdcMessage;
use smc_proto::smc_core::llc::message::{LlcBody, LlcMessage};
use std::collections::HashMap;
use std::net::Ipv6Addr;

/// RoCEv2.
pub(super) const UDP_PORT: u16 = 4791;
/// RoCEv1.
pub(super) const ETHER_TYPE: u16 = 0x8915;

const GRH_LEN: usize = 40;
const BTH_LEN: usize = 12;
const RETH_LEN: usize = 16;
/// The checksum behind everything.
const ICRC_LEN: usize = 4;
/// RFC 7609, appendix A.4: the type of CDC messages, which are not of the LLC.
const CDC: u8 = 0xfe;

/// Addresses and what follows them, of RoCEv1's global route header.
pub(super) fn after_grh(payload: &[u8]) -> Option<(Ipv6Addr, Ipv6Addr, &[u8])> {
    let (header, rest) = payload.split_first_chunk::<GRH_LEN>()?;
    let address = |at: usize| -> Option<Ipv6Addr> {
        let octets: [u8; 16] = header.get(at..at.checked_add(16)?)?.try_into().ok()?;
        Some(octets.into())
    };
    Some((address(8)?, address(24)?, rest))
}

/// Queue pairs, by their addresses and number.
#[derive(Default)]
pub(super) struct Pairs {
    /// SENDs in several packets, of which the last is still to come.
    begun: HashMap<(String, String, u32), Vec<u8>>,
}

impl Pairs {
    /// A packet from its transport header on.
    pub(super) fn take(&mut self, from: &str, to: &str, packet: &[u8]) -> Vec<Finding> {
        let Some((header, rest)) = packet.split_first_chunk::<BTH_LEN>() else {
            return Vec::new();
        };
        // The upper three bits are the service: reliable connection is 0.
        let [opcode, flags, _, _, _, qpn @ ..] = header;
        let qpn = u32::from_be_bytes([0, qpn[0], qpn[1], qpn[2]]);
        let padding = usize::from((flags >> 4) & 3);
        let end = rest.len().saturating_sub(ICRC_LEN + padding);
        let body = rest.get(..end).unwrap_or_default();
        let way = (from.to_owned(), to.to_owned(), qpn);
        match opcode {
            // SEND first, middle.
            0x00 => {
                self.begun.insert(way, body.to_vec());
                Vec::new()
            }
            0x01 => {
                self.begun.entry(way).or_default().extend_from_slice(body);
                Vec::new()
            }
            // SEND last.
            0x02 => {
                let mut message = self.begun.remove(&way).unwrap_or_default();
                message.extend_from_slice(body);
                vec![shown(qpn, message)]
            }
            // SEND only.
            0x04 => vec![shown(qpn, body.to_vec())],
            // RDMA WRITE first, only.
            0x06 | 0x0a => rest
                .first_chunk::<RETH_LEN>()
                .map(|reth| written(qpn, reth))
                .into_iter()
                .collect(),
            // Acknowledge: a syndrome that is none.
            0x11 if rest.first().is_some_and(|syndrome| syndrome >> 5 != 0) => {
                let (name, code) = rest
                    .first()
                    .map_or(("?", 0), |syndrome| match syndrome >> 5 {
                        1 => ("receiver not ready, timer", syndrome & 31),
                        _ => ("refused, code", syndrome & 31),
                    });
                vec![Finding {
                    kind: String::new(),
                    text: format!("QP {qpn}: {name} {code}"),
                    bytes: Vec::new(),
                    data: false,
                }]
            }
            _ => Vec::new(),
        }
    }
}

fn shown(qpn: u32, bytes: Vec<u8>) -> Finding {
    if bytes.first() == Some(&CDC) {
        let message = CdcMessage::parse(&bytes);
        // One of each set of flags tells more than the first one alone.
        let kind = message
            .as_ref()
            .map_or(String::from("cdc-wrong"), |message| {
                format!(
                    "cdc-{:02x}-{:02x}",
                    message.prod_flags.0, message.conn_state.0
                )
            });
        return Finding {
            kind,
            text: format!("QP {qpn}: CDC {}", words(message)),
            bytes,
            data: true,
        };
    }
    let message = LlcMessage::parse(&bytes);
    let kind = match &message {
        Ok(message) => {
            let name = match message.body {
                LlcBody::ConfirmLink(_) => "confirm-link",
                LlcBody::AddLink(_) => "add-link",
                LlcBody::AddLinkContinuation(_) => "add-link-continuation",
                LlcBody::DeleteLink(_) => "delete-link",
                LlcBody::RequestAddLink { .. } => "request-add-link",
                LlcBody::ConfirmRkey(_) => "confirm-rkey",
                LlcBody::ConfirmRkeyContinuation(_) => "confirm-rkey-continuation",
                LlcBody::TestLink { .. } => "test-link",
                LlcBody::DeleteRkey(_) => "delete-rkey",
                LlcBody::Optional(_) => "optional",
            };
            let side = if message.response {
                "response"
            } else {
                "request"
            };
            format!("llc-{name}-{side}-{:?}", message.version).to_lowercase()
        }
        Err(_) => String::from("llc-wrong"),
    };
    Finding {
        kind,
        text: format!("QP {qpn}: LLC {}", words(message)),
        bytes,
        data: false,
    }
}

fn written(qpn: u32, reth: &[u8; RETH_LEN]) -> Finding {
    let (address, rest) = reth.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    let word = |bytes: &[u8]| {
        bytes
            .first_chunk()
            .map_or(0, |word| u32::from_be_bytes(*word))
    };
    let (key, length) = (word(rest), word(rest.get(4..).unwrap_or_default()));
    Finding {
        kind: String::new(),
        text: format!(
            "QP {qpn}: RDMA WRITE of {length} bytes to {:#x}, key {key:#x}",
            u64::from_be_bytes(*address)
        ),
        bytes: Vec::new(),
        data: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST_LINK: [u8; 44] = {
        let mut message = [0; 44];
        message[0] = 0x07;
        message[1] = 44;
        message
    };

    fn packet(opcode: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![opcode, 0, 0xff, 0xff, 0, 0, 0, 0x11, 0, 0, 0, 1];
        packet.extend_from_slice(body);
        packet.extend_from_slice(&[0xee; ICRC_LEN]);
        packet
    }

    #[test]
    fn a_send_in_three_packets_is_one_message() {
        let mut pairs = Pairs::default();
        let mut take = |opcode, body: &[u8]| pairs.take("a", "b", &packet(opcode, body));
        assert!(take(0x00, &TEST_LINK[..20]).is_empty());
        assert!(take(0x01, &TEST_LINK[20..40]).is_empty());
        let [finding] = &take(0x02, &TEST_LINK[40..])[..] else {
            panic!("one message");
        };
        assert_eq!(finding.bytes, TEST_LINK);
        assert_eq!(finding.kind, "llc-test-link-request-v1");
    }

    #[test]
    fn rocev1_has_its_addresses_before() {
        let mut packet = vec![0; GRH_LEN];
        packet[23] = 1;
        packet[39] = 2;
        packet.extend_from_slice(b"rest");
        let (from, to, rest) = after_grh(&packet).expect("long enough");
        assert_eq!(
            (from.to_string(), to.to_string()),
            ("::1".into(), "::2".into())
        );
        assert_eq!(rest, b"rest");
        assert!(after_grh(&packet[..39]).is_none());
    }

    #[test]
    fn nothing_is_too_short_to_be_looked_at() {
        let mut pairs = Pairs::default();
        for opcode in 0..=0x20 {
            let whole = packet(opcode, &TEST_LINK);
            for end in 0..whole.len() {
                pairs.take("a", "b", &whole[..end]);
            }
        }
    }
}
