// SPDX-License-Identifier: GPL-2.0

//! What goes over TCP: the option of SYN and SYN-ACK, and the CLC messages at the beginning of the stream.

use super::Finding;
use etherparse::TcpSlice;
use smc_proto::clc::tcp_option::contains_smc;
use smc_proto::clc::wire::{Accept, Confirm, Decline, Header, Proposal, HEADER_LEN};
use smc_proto::smc_core::error::MessageKind;
use std::collections::HashMap;

/// One direction of a connection, as long as it carries CLC messages.
struct Stream {
    /// Sequence number behind what was read.
    next: u32,
    /// The beginning of a message.
    begun: Vec<u8>,
}

/// All connections that have offered SMC.
#[derive(Default)]
pub(super) struct Streams(HashMap<(String, String), Stream>);

impl Streams {
    /// A segment.
    pub(super) fn take(&mut self, from: &str, to: &str, tcp: &TcpSlice<'_>) -> Vec<Finding> {
        let way = (from.to_owned(), to.to_owned());
        if tcp.syn() {
            if !contains_smc(tcp.options()) {
                self.0.remove(&way);
                return Vec::new();
            }
            let stream = Stream {
                next: tcp.sequence_number().wrapping_add(1),
                begun: Vec::new(),
            };
            self.0.insert(way, stream);
            let name = if tcp.ack() { "SYN-ACK" } else { "SYN" };
            return vec![Finding {
                kind: String::new(),
                text: format!("TCP {name} with the SMC-R option"),
                bytes: Vec::new(),
                data: false,
            }];
        }
        let Some(stream) = self.0.get_mut(&way) else {
            return Vec::new();
        };
        // Sent again, or after something that the capture lost.
        if tcp.payload().is_empty() || tcp.sequence_number() != stream.next {
            return Vec::new();
        }
        let length = u32::try_from(tcp.payload().len()).unwrap_or(0);
        stream.next = stream.next.wrapping_add(length);
        stream.begun.extend_from_slice(tcp.payload());
        let mut findings = Vec::new();
        loop {
            let Some(header) = stream.begun.first_chunk::<HEADER_LEN>() else {
                return findings;
            };
            let Ok(header) = Header::peek(header) else {
                // The program's own words: the connection is one of TCP.
                self.0.remove(&way);
                return findings;
            };
            let length = usize::from(header.length);
            if stream.begun.len() < length {
                return findings;
            }
            let message: Vec<u8> = stream.begun.drain(..length).collect();
            findings.push(shown(&header, message));
        }
    }
}

fn shown(header: &Header, bytes: Vec<u8>) -> Finding {
    let (name, text) = match header.kind {
        MessageKind::Proposal => ("proposal", words(Proposal::parse(&bytes))),
        MessageKind::Accept => ("accept", words(Accept::parse(&bytes))),
        MessageKind::Confirm => ("confirm", words(Confirm::parse(&bytes))),
        _ => ("decline", words(Decline::parse(&bytes))),
    };
    Finding {
        kind: format!("clc-{name}-v{}", header.version.0),
        text: format!("CLC {text}"),
        bytes,
        data: false,
    }
}

/// A message, or what is wrong with it.
pub(super) fn words<T: std::fmt::Debug, E: std::fmt::Debug>(message: Result<T, E>) -> String {
    match message {
        Ok(message) => format!("{message:?}"),
        Err(error) => format!("wrong: {error:?}"),
    }
}
