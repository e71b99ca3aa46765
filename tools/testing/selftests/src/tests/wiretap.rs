//! Listens to the TCP connections between the hosts: which side declined SMC, and why.

use crate::kind::Host;
use crate::sys::{self, cvt, cvt_size};
use crate::{Fail, Outcome};
use std::mem::{size_of, zeroed};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// "SMCR" in EBCDIC, and the type of a Decline (RFC 7609, section A.2.5).
const EYE: [u8; 4] = [0xe2, 0xd4, 0xc3, 0xd9];
const DECLINE: u8 = 4;

pub struct Wiretap(OwnedFd);

impl Wiretap {
    pub fn new() -> Outcome<Wiretap> {
        sys::enter(Host::A)?;
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: no pointers.
        let fd = cvt(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, protocol.into()) })?;
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: a constant C string.
        let index = unsafe { libc::if_nametoindex(c"vA".as_ptr()) };
        // SAFETY: all zeroes is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index as i32;
        // SAFETY: `address` is valid for its size.
        cvt(unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        })?;
        Ok(Wiretap(fd))
    }

    /// The Declines that went by since the last call: who sent them, and the diagnosis.
    pub fn declines(&self) -> Outcome<Vec<(Host, u32)>> {
        let mut frame = vec![0u8; 1 << 17];
        let mut all = Vec::new();
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
                Ok(length) => all.extend(decline(&frame[..length])),
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => return Ok(all),
                Err(error) => return Err(Fail(format!("wiretap: {error}"))),
            }
        }
    }

    /// The only Decline since the last call, once it has gone by.
    pub fn only_decline(&self) -> Outcome<(Host, u32)> {
        let mut seen = Vec::new();
        sys::eventually("a Decline on the wire", || {
            seen.extend(
                self.declines()
                    .map_err(|fail| std::io::Error::other(fail.0))?,
            );
            Ok(!seen.is_empty())
        })?;
        match seen.as_slice() {
            [only] => Ok(*only),
            _ => Err(Fail(format!("{} Declines: {seen:x?}", seen.len()))),
        }
    }
}

fn decline(frame: &[u8]) -> Option<(Host, u32)> {
    let ip = frame.get(14..)?;
    if frame.get(12..14)? != [8, 0] || *ip.get(9)? != libc::IPPROTO_TCP as u8 {
        return None;
    }
    let source = Ipv4Addr::new(*ip.get(12)?, *ip.get(13)?, *ip.get(14)?, *ip.get(15)?);
    let host = Host::BOTH.into_iter().find(|host| host.ipv4() == source)?;
    let tcp = ip.get(usize::from(ip[0] & 15) * 4..)?;
    let data = tcp.get(usize::from(*tcp.get(12)? >> 4) * 4..)?;
    Some((host, diagnosis(data)?))
}

/// The diagnosis of a message, if it is a Decline.
pub fn diagnosis(message: &[u8]) -> Option<u32> {
    if message.get(..4)? != EYE || *message.get(4)? != DECLINE {
        return None;
    }
    let code: [u8; 4] = message.get(16..20)?.try_into().ok()?;
    Some(u32::from_be_bytes(code))
}
