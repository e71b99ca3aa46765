// SPDX-License-Identifier: GPL-2.0

//! Shows the SMC-R in a capture of packets, by the parsers of the module itself: the TCP option, CLC
//! messages (RFC 7609, appendix A.2), LLC messages (A.3), CDC messages (A.4), and RDMA writes.
//!
//! Captures are pcap files of Ethernet frames, as `make test-interop` and tcpdump write them. RoCE of both
//! versions is understood.

mod clc;
mod roce;

use anyhow::{Context, Result};
use clap::Parser;
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use pcap_file::pcap::PcapReader;
use pcap_file::TsResolution;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufReader, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The capture.
    file: PathBuf,
    /// Data and acknowledgements, too: RDMA writes and CDC messages.
    #[arg(long)]
    data: bool,
    /// Writes one message of each kind and direction to files NAME.hex in this directory, in the format of
    /// tools/testing/vectors.
    #[arg(long, value_name = "DIR")]
    vectors: Option<PathBuf>,
}

/// What a packet has to say.
struct Finding {
    /// Its name as a vector.
    kind: String,
    /// In words.
    text: String,
    /// The message; empty if it is none.
    bytes: Vec<u8>,
    /// It carries data, and there are many of its kind.
    data: bool,
}

struct Output {
    arguments: Arguments,
    begin: Option<Duration>,
    kept: HashSet<String>,
}

impl Output {
    fn tell(&mut self, time: Duration, from: &str, to: &str, finding: &Finding) -> Result<()> {
        let begin = *self.begin.get_or_insert(time);
        if !finding.data || self.arguments.data {
            let time = time.saturating_sub(begin).as_secs_f64();
            writeln!(
                std::io::stdout().lock(),
                "{time:.6} {from} > {to} {}",
                finding.text
            )?;
        }
        let Some(dir) = &self.arguments.vectors else {
            return Ok(());
        };
        if finding.bytes.is_empty() || !self.kept.insert(finding.kind.clone()) {
            return Ok(());
        }
        let file = dir.join(&finding.kind).with_extension("hex");
        std::fs::write(&file, hex(&finding.bytes))
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, chunk) in bytes.chunks(16).enumerate() {
        for byte in chunk {
            let _ = write!(text, "{byte:02x} ");
        }
        let _ = writeln!(text, "# {}", line * 16);
    }
    text
}

fn main() -> Result<()> {
    let mut output = Output {
        arguments: Arguments::parse(),
        begin: None,
        kept: HashSet::new(),
    };
    let path = output.arguments.file.clone();
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut reader = PcapReader::new(BufReader::new(file))
        .with_context(|| format!("{} is no pcap file", path.display()))?;
    let mut streams = clc::Streams::default();
    let mut pairs = roce::Pairs::default();
    let parts = match reader.header().ts_resolution {
        TsResolution::MicroSecond => 1_000,
        TsResolution::NanoSecond => 1,
    };
    // Raw, as `filter-dump` of QEMU cuts packets to less than the header of its file says.
    while let Some(packet) = reader.next_raw_packet() {
        let packet = packet.with_context(|| format!("{} ends in a packet", path.display()))?;
        let time = Duration::new(packet.ts_sec.into(), packet.ts_frac.saturating_mul(parts));
        let Ok(frame) = LaxSlicedPacket::from_ethernet(&packet.data) else {
            // Not even a whole header.
            continue;
        };
        let (from, to, findings) = findings(&frame, &mut streams, &mut pairs);
        for finding in findings {
            let told = output.tell(time, &from, &to, &finding);
            if let Err(error) = told {
                // Whoever reads has seen enough.
                let broken = error.downcast_ref::<std::io::Error>();
                if broken.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
                    return Ok(());
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

fn findings(
    frame: &LaxSlicedPacket<'_>,
    streams: &mut clc::Streams,
    pairs: &mut roce::Pairs,
) -> (String, String, Vec<Finding>) {
    let addresses: Option<(IpAddr, IpAddr)> = match &frame.net {
        Some(LaxNetSlice::Ipv4(ip)) => Some((
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        )),
        Some(LaxNetSlice::Ipv6(ip)) => Some((
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        )),
        _ => None,
    };
    match (addresses, &frame.transport) {
        (Some((from, to)), Some(TransportSlice::Tcp(tcp))) => {
            let from = format!("{from}:{}", tcp.source_port());
            let to = format!("{to}:{}", tcp.destination_port());
            let findings = streams.take(&from, &to, tcp);
            (from, to, findings)
        }
        (Some((from, to)), Some(TransportSlice::Udp(udp)))
            if udp.destination_port() == roce::UDP_PORT =>
        {
            let (from, to) = (from.to_string(), to.to_string());
            let findings = pairs.take(&from, &to, udp.payload());
            (from, to, findings)
        }
        _ => match frame.ether_payload() {
            Some(payload) if payload.ether_type.0 == roce::ETHER_TYPE => {
                let Some((from, to, transport)) = roce::after_grh(payload.payload) else {
                    return Default::default();
                };
                let (from, to) = (from.to_string(), to.to_string());
                let findings = pairs.take(&from, &to, transport);
                (from, to, findings)
            }
            _ => Default::default(),
        },
    }
}
