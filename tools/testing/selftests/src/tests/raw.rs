//! A peer that is no kernel: a small TCP over a packet socket, to say what no SMC stack says.
//!
//! It lives on host A with an address (10.9.0.50) that A does not own, so that A's own TCP stays
//! out of it; host B is told A's MAC for that address.

use crate::kind::Host;
use crate::rig;
use crate::sys::{self, cvt, cvt_size};
use crate::{check, Fail, Outcome};
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 50);
const MAC_A: [u8; 6] = [2, 0, 0, 9, 0, 1];
const MAC_B: [u8; 6] = [2, 0, 0, 9, 0, 2];
/// RFC 7609, section A.1: kind 254, length 6, "SMCR" in EBCDIC; two NOPs make it even.
pub(super) const SMC_OPTION: [u8; 8] = [1, 1, 254, 6, 0xe2, 0xd4, 0xc3, 0xd9];
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

pub struct RawPeer {
    fd: OwnedFd,
    port: u16,
    peer: SocketAddr,
    sequence: u32,
    acknowledged: u32,
    /// What was sent, as long as [`Self::flush`] may have to send it again.
    sent: Vec<u8>,
    /// Data that came while something else was waited for.
    early: Vec<u8>,
    /// Whether the other side's SYN or SYN-ACK carried the SMC option.
    pub peer_offers_smc: bool,
    pub finished: bool,
    pub reset: bool,
}

struct Segment {
    from: SocketAddr,
    to_port: u16,
    sequence: u32,
    /// What the other side has got, if the segment says so.
    acknowledges: Option<u32>,
    flags: u8,
    smc: bool,
    data: Vec<u8>,
}

/// Tells host B where the address lives. To be called once per test.
pub fn prepare() -> Outcome {
    rig::run("ip -n B neigh replace 10.9.0.50 lladdr 02:00:00:09:00:01 dev vB nud permanent")?;
    Ok(())
}

/// Sees and sends the frames of a host's network device; `protocol` is `ETH_P_*`. Leaves the calling
/// thread on the host. It has room for what comes while the machine is busy otherwise.
pub(super) fn packet_socket(host: Host, protocol: i32) -> io::Result<OwnedFd> {
    sys::enter(host)?;
    let protocol = (protocol as u16).to_be();
    // SAFETY: no pointers.
    let fd = cvt(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, protocol.into()) })?;
    // SAFETY: a fresh descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let netdev = std::ffi::CString::new(host.netdev())?;
    // SAFETY: a C string.
    let index = unsafe { libc::if_nametoindex(netdev.as_ptr()) };
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
    sys::set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 16i32 << 20)?;
    Ok(fd)
}

/// The checksum of IP and TCP over all parts; only the last one may be of odd length.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

impl RawPeer {
    fn new(port: u16, peer: SocketAddr) -> Outcome<RawPeer> {
        Ok(RawPeer {
            fd: packet_socket(Host::A, libc::ETH_P_IP)?,
            port,
            peer,
            sequence: 0x1000_0000 ^ (u32::from(port) << 8),
            acknowledged: 0,
            sent: Vec::new(),
            early: Vec::new(),
            peer_offers_smc: false,
            finished: false,
            reset: false,
        })
    }

    /// Where this peer is.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(ADDRESS.into(), self.port)
    }

    /// Connects to a server on host B, offering SMC.
    pub fn connect(port: u16, server: SocketAddr) -> Outcome<RawPeer> {
        let mut peer = RawPeer::new(port, server)?;
        for _ in 0..10 {
            peer.transmit(SYN, &SMC_OPTION, &[])?;
            if let Some(segment) = peer.next(Duration::from_secs(2))? {
                if segment.flags & (SYN | ACK) == SYN | ACK {
                    peer.sequence = peer.sequence.wrapping_add(1);
                    peer.acknowledged = segment.sequence.wrapping_add(1);
                    peer.peer_offers_smc = segment.smc;
                    peer.transmit(ACK, &[], &[])?;
                    return Ok(peer);
                }
                check!(
                    segment.flags & RST == 0,
                    "the server refused the raw client"
                );
            }
        }
        Err(Fail("the server does not answer the raw client".into()))
    }

    /// Waits on a port for a client on host B, offering SMC.
    pub fn listen(port: u16) -> Outcome<Listening> {
        Ok(Listening(RawPeer::new(
            port,
            SocketAddr::new(ADDRESS.into(), 0),
        )?))
    }

    fn transmit(&self, flags: u8, options: &[u8], data: &[u8]) -> io::Result<()> {
        let SocketAddr::V4(to) = self.peer else {
            return Err(io::Error::other("the raw peer speaks IPv4 only"));
        };
        let mut tcp = Vec::with_capacity(28 + data.len());
        tcp.extend_from_slice(&self.port.to_be_bytes());
        tcp.extend_from_slice(&to.port().to_be_bytes());
        tcp.extend_from_slice(&self.sequence.to_be_bytes());
        tcp.extend_from_slice(&self.acknowledged.to_be_bytes());
        tcp.push(((20 + options.len()) as u8 / 4) << 4);
        tcp.push(flags);
        tcp.extend_from_slice(&60000u16.to_be_bytes());
        tcp.extend_from_slice(&[0; 4]);
        tcp.extend_from_slice(options);
        tcp.extend_from_slice(data);
        let mut pseudo = Vec::new();
        pseudo.extend_from_slice(&ADDRESS.octets());
        pseudo.extend_from_slice(&to.ip().octets());
        pseudo.extend_from_slice(&[0, 6]);
        pseudo.extend_from_slice(&(tcp.len() as u16).to_be_bytes());
        let sum = checksum(&[&pseudo, &tcp]);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());

        let mut ip = vec![0x45, 0];
        ip.extend_from_slice(&((20 + tcp.len()) as u16).to_be_bytes());
        ip.extend_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0]);
        ip.extend_from_slice(&ADDRESS.octets());
        ip.extend_from_slice(&to.ip().octets());
        let sum = checksum(&[&ip]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());

        let mut frame = Vec::new();
        frame.extend_from_slice(&MAC_B);
        frame.extend_from_slice(&MAC_A);
        frame.extend_from_slice(&(libc::ETH_P_IP as u16).to_be_bytes());
        frame.extend_from_slice(&ip);
        frame.extend_from_slice(&tcp);
        // SAFETY: `frame` is valid for its length.
        cvt_size(unsafe {
            libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0)
        })?;
        Ok(())
    }

    /// The next segment of this conversation; None after the time.
    fn next(&self, limit: Duration) -> io::Result<Option<Segment>> {
        let end = Instant::now() + limit;
        let mut frame = vec![0u8; 1 << 17];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut entry = libc::pollfd {
                fd: self.fd.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one live pollfd.
            if cvt(unsafe { libc::poll(&raw mut entry, 1, left.as_millis() as i32) })? == 0 {
                return Ok(None);
            }
            // SAFETY: `frame` is valid for its length.
            let got = cvt_size(unsafe {
                libc::recv(
                    self.fd.as_raw_fd(),
                    frame.as_mut_ptr().cast(),
                    frame.len(),
                    0,
                )
            })?;
            if let Some(segment) = parse(&frame[..got]) {
                let ours = segment.to_port == self.port
                    && (self.peer.port() == 0 || segment.from == self.peer);
                if ours {
                    return Ok(Some(segment));
                }
            }
        }
    }

    /// Sends once. What must arrive, though the other side's memory is full of small segments, is
    /// sent again by [`Self::flush`].
    pub fn send(&mut self, data: &[u8]) -> Outcome {
        for part in data.chunks(1400) {
            self.transmit(PSH | ACK, &[], part)?;
            self.sequence = self.sequence.wrapping_add(part.len() as u32);
            self.sent.extend_from_slice(part);
        }
        Ok(())
    }

    /// Sends what was sent, again and again, until the other side has got it, or is gone.
    pub fn flush(&mut self) -> Outcome {
        let end = Instant::now() + sys::PATIENCE;
        while !self.sent.is_empty() && !self.reset && !self.finished {
            check!(
                Instant::now() < end,
                "{} bytes were never acknowledged",
                self.sent.len()
            );
            if let Some(segment) = self.next(Duration::from_millis(400))? {
                let mut data = std::mem::take(&mut self.early);
                self.absorb(&segment, &mut data)?;
                self.early = data;
                continue;
            }
            let sequence = self.sequence;
            self.sequence = sequence.wrapping_sub(self.sent.len() as u32);
            let part = &self.sent[..self.sent.len().min(1400)];
            let outcome = self.transmit(PSH | ACK, &[], part);
            self.sequence = sequence;
            outcome?;
        }
        Ok(())
    }

    /// Takes note of a segment; what comes next in the stream goes to `data`.
    fn absorb(&mut self, segment: &Segment, data: &mut Vec<u8>) -> Outcome {
        if segment.flags & RST != 0 {
            self.reset = true;
            return Ok(());
        }
        if let Some(upto) = segment.acknowledges {
            let open = self.sequence.wrapping_sub(upto) as usize;
            if open < self.sent.len() {
                self.sent.drain(..self.sent.len() - open);
            }
        }
        if segment.sequence == self.acknowledged {
            self.acknowledged = self.acknowledged.wrapping_add(segment.data.len() as u32);
            data.extend_from_slice(&segment.data);
            if segment.flags & FIN != 0 {
                self.acknowledged = self.acknowledged.wrapping_add(1);
                self.finished = true;
            }
        }
        if !segment.data.is_empty() || segment.flags & FIN != 0 {
            self.transmit(ACK, &[], &[])?;
        }
        Ok(())
    }

    /// What comes within the time, at least one segment if any; ends early at the stream's end.
    pub fn receive(&mut self, limit: Duration) -> Outcome<Vec<u8>> {
        let mut all = std::mem::take(&mut self.early);
        let end = Instant::now() + limit;
        while !self.finished && !self.reset && Instant::now() < end {
            // After the first data only what is already under way is waited for.
            let patience = if all.is_empty() {
                end.saturating_duration_since(Instant::now())
            } else {
                Duration::from_millis(100)
            };
            let Some(segment) = self.next(patience)? else {
                break;
            };
            self.absorb(&segment, &mut all)?;
        }
        Ok(all)
    }

    pub fn finish(&mut self) -> Outcome {
        self.transmit(FIN | ACK, &[], &[])?;
        self.sequence = self.sequence.wrapping_add(1);
        Ok(())
    }
}

impl RawPeer {
    /// Is never heard of again.
    pub fn vanish(self) {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: closed once, as the peer is not dropped; its other memory is small and goes with the test.
        unsafe { libc::close(this.fd.as_raw_fd()) };
    }
}

impl Drop for RawPeer {
    fn drop(&mut self) {
        // The other side shall not wait for a peer that is no more; errors change nothing.
        let _ = self.transmit(RST | ACK, &[], &[]);
    }
}

/// A raw server that is gone: whoever comes to its port is refused, as by the host it lived on.
pub struct Refusing(RawPeer);

impl Refusing {
    pub fn new(port: u16) -> Outcome<Refusing> {
        Ok(Refusing(RawPeer::new(
            port,
            SocketAddr::new(ADDRESS.into(), 0),
        )?))
    }

    /// Refuses until `done` says so.
    pub fn until(&mut self, done: impl Fn() -> bool) -> Outcome {
        let end = Instant::now() + 2 * sys::PATIENCE;
        while !done() {
            check!(
                Instant::now() < end,
                "a client of a server that is gone hangs"
            );
            let Some(segment) = self.0.next(Duration::from_millis(20))? else {
                continue;
            };
            if segment.flags & (SYN | ACK) == SYN {
                self.0.peer = segment.from;
                self.0.acknowledged = segment.sequence.wrapping_add(1);
                self.0.transmit(RST | ACK, &[], &[])?;
                self.0.peer = SocketAddr::new(ADDRESS.into(), 0);
            }
        }
        Ok(())
    }
}

pub struct Listening(RawPeer);

impl Listening {
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(ADDRESS.into(), self.0.port)
    }

    pub fn accept(mut self) -> Outcome<RawPeer> {
        let end = Instant::now() + sys::PATIENCE;
        let mut answered = false;
        while Instant::now() < end {
            let Some(segment) = self.0.next(Duration::from_secs(2))? else {
                continue;
            };
            if segment.flags & SYN != 0 {
                self.0.peer = segment.from;
                self.0.acknowledged = segment.sequence.wrapping_add(1);
                self.0.peer_offers_smc = segment.smc;
                self.0.transmit(SYN | ACK, &SMC_OPTION, &[])?;
                answered = true;
            } else if answered && segment.flags & ACK != 0 {
                self.0.sequence = self.0.sequence.wrapping_add(1);
                // The pure ACK may be lost, and its news come with the first data.
                self.0.early.clone_from(&segment.data);
                self.0.acknowledged = self.0.acknowledged.wrapping_add(segment.data.len() as u32);
                return Ok(self.0);
            }
        }
        Err(Fail("no client came to the raw server".into()))
    }
}

fn parse(frame: &[u8]) -> Option<Segment> {
    let ip = frame.get(14..)?;
    if frame.get(12..14)? != [8, 0] || ip.first()? >> 4 != 4 || *ip.get(9)? != 6 {
        return None;
    }
    let header = usize::from(ip[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    // Zero: a segment larger than the field, which never left the machine.
    let ip = if total == 0 { ip } else { ip.get(..total)? };
    if ip.get(16..20)? != ADDRESS.octets() {
        return None;
    }
    let tcp = ip.get(header..)?;
    let offset = usize::from(tcp.get(12)? >> 4) * 4;
    let options = tcp.get(20..offset)?;
    let source = Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]);
    Some(Segment {
        from: SocketAddr::new(source.into(), u16::from_be_bytes([tcp[0], tcp[1]])),
        to_port: u16::from_be_bytes([tcp[2], tcp[3]]),
        sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        acknowledges: (tcp[13] & ACK != 0)
            .then(|| u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]])),
        flags: tcp[13],
        smc: options.windows(6).any(|window| window == &SMC_OPTION[2..]),
        data: tcp[offset..].to_vec(),
    })
}
