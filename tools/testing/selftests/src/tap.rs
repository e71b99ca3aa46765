//! LLC messages on the wire between the hosts: Soft-RoCE sends them in UDP packets, which a packet
//! socket on one of the network devices sees.

use crate::kind::Host;
use crate::sys::{self, Sock};
use std::io;

/// UDP port of RoCEv2.
const ROCE_PORT: u16 = 4791;
/// InfiniBand opcode: RC SEND Only.
const SEND_ONLY: u8 = 0x04;
/// Headers before the message: Ethernet, IPv4 without options, UDP, BTH.
const MESSAGE: usize = 14 + 20 + 8 + 12;
/// Every LLC message has so many bytes (RFC 7609, appendix A.3).
const LLC_LEN: usize = 44;

/// Kinds of LLC messages, as SMC-Rv2 numbers them.
pub const CONFIRM_RKEY: u8 = 0x26;
pub const DELETE_RKEY: u8 = 0x29;

/// An LLC message that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Llc {
    pub from: Host,
    pub kind: u8,
    pub response: bool,
    /// It says no.
    pub negative: bool,
}

/// Sees the LLC messages between the hosts from now on.
pub struct Tap {
    sock: Sock,
    seen: Vec<Llc>,
}

impl Tap {
    pub fn start() -> io::Result<Tap> {
        let host = Host::A;
        sys::enter(host)?;
        let every_kind = i32::from((libc::ETH_P_ALL as u16).to_be());
        let sock = Sock::raw(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_NONBLOCK,
            every_kind,
        );
        sys::leave()?;
        let sock = sock?;
        sock.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 16 << 20)?;
        Ok(Tap {
            sock,
            seen: Vec::new(),
        })
    }

    /// All that was seen so far.
    pub fn seen(&mut self) -> io::Result<&[Llc]> {
        let mut packet = [0; 256];
        loop {
            match self.sock.recv(&mut packet, 0) {
                Ok(length) => self.seen.extend(parse(&packet[..length])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(&self.seen),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until there are so many messages of a kind.
    pub fn expect(
        &mut self,
        what: &str,
        count: usize,
        wanted: impl Fn(&Llc) -> bool,
    ) -> io::Result<()> {
        sys::eventually(what, || {
            Ok(self.seen()?.iter().filter(|llc| wanted(llc)).count() >= count)
        })
    }
}

fn parse(packet: &[u8]) -> Option<Llc> {
    let message = packet.get(MESSAGE..MESSAGE + LLC_LEN)?;
    let (ip, udp, bth) = (&packet[14..34], &packet[34..42], &packet[42..54]);
    let is_roce = ip[0] == 0x45 && ip[9] == 17 && udp[2..4] == ROCE_PORT.to_be_bytes();
    // CDC messages have the same length, and kind 0xfe.
    if !is_roce || bth[0] != SEND_ONLY || message[0] == 0xfe {
        return None;
    }
    let from = Host::BOTH
        .into_iter()
        .find(|host| ip[12..16] == host.ipv4().octets())?;
    Some(Llc {
        from,
        kind: message[0],
        response: message[3] & 0x80 != 0,
        negative: message[3] & 0x20 != 0,
    })
}
