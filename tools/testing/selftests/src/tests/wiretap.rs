//! Listens to what passes host A's network device: CLC messages, and packets of RoCE, as both hosts
//! sent them. A witness of which version of the protocol a connection went by, and of which side
//! declined SMC, and why.

use crate::kind::Host;
use crate::sys::{self, cvt, cvt_size};
use crate::{Fail, Outcome};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const ETHERNET: usize = 14;
const MAC_A: [u8; 6] = [2, 0, 0, 9, 0, 1];
const ROCE_PORT: [u8; 2] = 4791u16.to_be_bytes();
/// Base transport header and the checksum behind the payload.
const BTH: usize = 12;
const ICRC: usize = 4;
/// RC SEND only: how each LLC and CDC message travels.
const SEND_ONLY: u8 = 4;
/// "SMCR" in EBCDIC, and the type of a Decline (RFC 7609, section A.2.5).
const EYE: [u8; 4] = [0xe2, 0xd4, 0xc3, 0xd9];
const DECLINE: u8 = 4;

/// Sees what passes from its making on.
pub struct Wiretap(OwnedFd);

/// A packet of RoCE.
pub struct Roce {
    pub from: Host,
    /// The addresses of its IP header, in the form of GIDs.
    pub source: [u8; 16],
    pub destination: [u8; 16],
    /// The payload of a SEND that is a whole message.
    pub message: Option<Vec<u8>>,
}

/// A CLC message: a TCP segment that begins like one.
pub struct Clc {
    pub from: Host,
    pub bytes: Vec<u8>,
}

/// Kinds of LLC messages, as SMC-Rv2 numbers them.
pub const REQUEST_ADD_LINK: u8 = 0x25;
pub const CONFIRM_RKEY: u8 = 0x26;
pub const DELETE_RKEY: u8 = 0x29;

/// The head of an LLC message (RFC 7609, appendix A.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Llc {
    pub from: Host,
    pub kind: u8,
    pub response: bool,
    /// It says no.
    pub negative: bool,
    /// The shortest message there is, all of it: a packet that is sent again has the same.
    pub bytes: [u8; 44],
}

#[derive(Default)]
pub struct Seen {
    pub roce: Vec<Roce>,
    pub clc: Vec<Clc>,
}

impl Wiretap {
    pub fn new() -> Outcome<Wiretap> {
        sys::enter(Host::A)?;
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: no pointers.
        let fd = cvt(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, protocol.into()) })?;
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let room = 64i32 << 20;
        // SAFETY: `room` is valid for its size.
        cvt(unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const room).cast(),
                size_of::<i32>() as libc::socklen_t,
            )
        })?;
        // SAFETY: all zeroes is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        // SAFETY: a constant C string.
        address.sll_ifindex = unsafe { libc::if_nametoindex(c"vA".as_ptr()) } as i32;
        // SAFETY: `address` is valid for its size.
        cvt(unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        })?;
        sys::leave()?;
        Ok(Wiretap(fd))
    }

    /// What has passed so far; it is not seen again.
    pub fn seen(&self) -> io::Result<Seen> {
        let mut seen = Seen::default();
        let mut frame = vec![0u8; 1 << 17];
        loop {
            // SAFETY: `frame` is valid for its length.
            let got = cvt_size(unsafe {
                libc::recv(
                    self.0.as_raw_fd(),
                    frame.as_mut_ptr().cast(),
                    frame.len(),
                    libc::MSG_DONTWAIT,
                )
            });
            match got {
                Ok(got) => {
                    seen.take(&frame[..got]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(seen),
                Err(error) => return Err(error),
            }
        }
    }

    /// The LLC messages that went by since the last call.
    pub fn llc(&self) -> io::Result<Vec<Llc>> {
        const CDC: u8 = 0xfe;

        let head = |packet: &Roce| match packet.message.as_deref() {
            Some(message @ &[kind, _, _, flags, ..]) if kind != CDC => Some(Llc {
                from: packet.from,
                kind,
                response: flags & 0x80 != 0,
                negative: flags & 0x20 != 0,
                bytes: message.get(..44)?.try_into().ok()?,
            }),
            _ => None,
        };
        Ok(self.seen()?.roce.iter().filter_map(head).collect())
    }

    /// The Declines that went by since the last call: who sent them, and the diagnosis.
    pub fn declines(&self) -> Outcome<Vec<(Host, u32)>> {
        let seen = self.seen()?;
        let decline = |clc: &Clc| Some((clc.from, diagnosis(&clc.bytes)?));
        Ok(seen.clc.iter().filter_map(decline).collect())
    }

    /// The only Decline since the last call, once it has gone by.
    pub fn only_decline(&self) -> Outcome<(Host, u32)> {
        let mut seen = Vec::new();
        sys::eventually("a Decline on the wire", || {
            seen.extend(self.declines()?);
            Ok(!seen.is_empty())
        })?;
        match seen.as_slice() {
            [only] => Ok(*only),
            _ => Err(Fail(format!("{} Declines: {seen:x?}", seen.len()))),
        }
    }
}

/// The diagnosis of a message, if it is a Decline.
pub fn diagnosis(message: &[u8]) -> Option<u32> {
    if message.get(..4)? != EYE || *message.get(4)? != DECLINE {
        return None;
    }
    let code: [u8; 4] = message.get(16..20)?.try_into().ok()?;
    Some(u32::from_be_bytes(code))
}

impl Seen {
    fn take(&mut self, frame: &[u8]) -> Option<()> {
        let from = if *frame.get(6..12)? == MAC_A {
            Host::A
        } else {
            Host::B
        };
        let ip = frame.get(ETHERNET..)?;
        let mapped = |v4: &[u8]| {
            let mut gid = [0; 16];
            gid[10..12].fill(0xff);
            gid[12..].copy_from_slice(v4);
            gid
        };
        // The whole packet without the padding of short frames, and its addresses.
        let (protocol, source, destination, payload) = match frame.get(12..14)? {
            [0x08, 0x00] => {
                let total = usize::from(u16::from_be_bytes(ip.get(2..4)?.try_into().ok()?));
                let payload = ip.get(usize::from(ip[0] & 15) * 4..total)?;
                (ip[9], mapped(&ip[12..16]), mapped(&ip[16..20]), payload)
            }
            [0x86, 0xdd] => {
                let length = usize::from(u16::from_be_bytes(ip.get(4..6)?.try_into().ok()?));
                let payload = ip.get(40..40 + length)?;
                let source = ip[8..24].try_into().ok()?;
                (ip[6], source, ip[24..40].try_into().ok()?, payload)
            }
            _ => return None,
        };
        match i32::from(protocol) {
            libc::IPPROTO_UDP if *payload.get(2..4)? == ROCE_PORT => {
                let bth = payload.get(8..)?;
                let message = bth.get(BTH..bth.len().checked_sub(ICRC)?)?;
                self.roce.push(Roce {
                    from,
                    source,
                    destination,
                    message: (bth[0] == SEND_ONLY).then(|| message.to_vec()),
                });
            }
            libc::IPPROTO_TCP => {
                let data = payload.get(usize::from(payload.get(12)? >> 4) * 4..)?;
                if data.starts_with(&EYE) {
                    let bytes = data.to_vec();
                    self.clc.push(Clc { from, bytes });
                }
            }
            _ => {}
        }
        Some(())
    }
}
