//! Somebody on the way between the hosts who sends back TCP options that he does not know.
//!
//! On host A SYN-ACKs that come from the network are dropped, unless they bear a mark (their DSCP). A
//! packet socket sees them before that; each is sent to A again with the mark, and with the SMC option
//! if the SYN had it. Timestamps and all other options are the server's own.

use super::network::Rules;
use super::raw::{checksum, packet_socket, SMC_OPTION};
use crate::kind::Host;
use crate::sys::{self, cvt, cvt_size};
use crate::{Fail, Outcome};
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

const ETHERNET: usize = 14;
/// DSCP 1.
const MARK: u8 = 1 << 2;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// Answers of servers, made to seem answers to the option. Over IPv4; gone when dropped.
pub struct Echoing {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Outcome>>,
    _rules: Rules,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    with_option: AtomicUsize,
    without: AtomicUsize,
}

impl Echoing {
    pub fn new() -> Outcome<Echoing> {
        let from_network = packet_socket(Host::A, libc::ETH_P_ALL)?;
        let to_a = packet_socket(Host::B, libc::ETH_P_ALL)?;
        sys::leave()?;
        let rules = Rules::new(
            Host::A,
            "prerouting",
            &["ip dscp != 1 tcp flags & (syn | ack) == (syn | ack) drop"],
        )?;
        let shared = Arc::new(Shared::default());
        let seen = shared.clone();
        let thread = std::thread::spawn(move || run(&seen, &from_network, &to_a));
        Ok(Echoing {
            shared,
            thread: Some(thread),
            _rules: rules,
        })
    }

    /// SYNs of host A since the last call: with the option, and without.
    pub fn syns(&self) -> (usize, usize) {
        let take = |count: &AtomicUsize| count.swap(0, Ordering::Relaxed);
        (take(&self.shared.with_option), take(&self.shared.without))
    }
}

impl Drop for Echoing {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let outcome = self.thread.take().map(JoinHandle::join);
        if !matches!(outcome, Some(Ok(Ok(())))) {
            eprintln!("# the middlebox has failed: {outcome:?}");
        }
    }
}

fn run(shared: &Shared, from_network: &OwnedFd, to_a: &OwnedFd) -> Outcome {
    // Connections whose SYN had the option: client's port, then server's.
    let mut asked = HashSet::new();
    let mut frame = vec![0u8; 1 << 17];
    while !shared.stop.load(Ordering::Relaxed) {
        let mut entry = libc::pollfd {
            fd: from_network.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one live pollfd.
        if cvt(unsafe { libc::poll(&raw mut entry, 1, 100) })? == 0 {
            continue;
        }
        // SAFETY: `frame` is valid for its length.
        let got = cvt_size(unsafe {
            libc::recv(
                from_network.as_raw_fd(),
                frame.as_mut_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
            )
        });
        let got = match got {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        };
        let Some(segment) = Segment::parse(&frame[..got]) else {
            continue;
        };
        match segment.flags() & (SYN | ACK) {
            SYN => {
                let count = if segment.has_option() {
                    asked.insert(segment.ports(false));
                    &shared.with_option
                } else {
                    asked.remove(&segment.ports(false));
                    &shared.without
                };
                count.fetch_add(1, Ordering::Relaxed);
            }
            flags if flags == SYN | ACK && !segment.is_marked() => {
                let echoed = segment
                    .marked(asked.contains(&segment.ports(true)))
                    .ok_or_else(|| Fail("no room for the option in a SYN-ACK".into()))?;
                // SAFETY: `echoed` is valid for its length.
                cvt_size(unsafe {
                    libc::send(to_a.as_raw_fd(), echoed.as_ptr().cast(), echoed.len(), 0)
                })?;
            }
            _ => {}
        }
    }
    match dropped(from_network)? {
        0 => Ok(()),
        lost => Err(Fail(format!("{lost} packets were not seen"))),
    }
}

/// Packets that a packet socket had no room for (packet(7)).
fn dropped(socket: &OwnedFd) -> Outcome<u32> {
    // `struct tpacket_stats`: packets, drops.
    let mut stats = [0u32; 2];
    let mut length = size_of_val(&stats) as libc::socklen_t;
    // SAFETY: `stats` is valid for `length` bytes.
    cvt(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            stats.as_mut_ptr().cast(),
            &raw mut length,
        )
    })?;
    Ok(stats[1])
}

/// A TCP segment over IPv4, in its frame.
struct Segment<'a> {
    frame: &'a [u8],
    /// Where the TCP header and the data begin.
    tcp: usize,
    data: usize,
    end: usize,
}

impl Segment<'_> {
    fn parse(frame: &[u8]) -> Option<Segment<'_>> {
        let ip = frame.get(ETHERNET..)?;
        if frame.get(12..14)? != [8, 0] || ip.first()? >> 4 != 4 || *ip.get(9)? != 6 {
            return None;
        }
        let tcp = ETHERNET + usize::from(ip[0] & 15) * 4;
        let data = tcp + usize::from(frame.get(tcp + 12)? >> 4) * 4;
        let end = ETHERNET + usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        (data <= end && end <= frame.len()).then_some(Segment {
            frame,
            tcp,
            data,
            end,
        })
    }

    fn flags(&self) -> u8 {
        self.frame[self.tcp + 13]
    }

    /// Source and destination port, or the other way round.
    fn ports(&self, swapped: bool) -> [u8; 4] {
        let ports = &self.frame[self.tcp..];
        if swapped {
            [ports[2], ports[3], ports[0], ports[1]]
        } else {
            [ports[0], ports[1], ports[2], ports[3]]
        }
    }

    fn has_option(&self) -> bool {
        self.frame[self.tcp + 20..self.data]
            .windows(6)
            .any(|window| window == &SMC_OPTION[2..])
    }

    fn is_marked(&self) -> bool {
        self.frame[ETHERNET + 1] & !3 == MARK
    }

    /// The frame of the same segment with the mark, and with the option if asked for.
    fn marked(&self, option: bool) -> Option<Vec<u8>> {
        let option: &[u8] = if option { &SMC_OPTION } else { &[] };
        if self.data - self.tcp + option.len() > 60 {
            return None;
        }
        let mut frame = self.frame[..self.data].to_vec();
        frame.extend_from_slice(option);
        frame.extend_from_slice(&self.frame[self.data..self.end]);
        let length = (frame.len() - ETHERNET) as u16;
        let ip = &mut frame[ETHERNET..];
        ip[1] = MARK | ip[1] & 3;
        ip[2..4].copy_from_slice(&length.to_be_bytes());
        ip[10..12].fill(0);
        let header = self.tcp - ETHERNET;
        let sum = checksum(&[&ip[..header]]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut pseudo = ip[12..20].to_vec();
        pseudo.extend_from_slice(&[0, 6]);
        pseudo.extend_from_slice(&(length - header as u16).to_be_bytes());
        let tcp = &mut ip[header..];
        tcp[12] += (option.len() as u8 / 4) << 4;
        tcp[16..18].fill(0);
        let sum = checksum(&[&pseudo, tcp]);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        Some(frame)
    }
}
