//! Did a connection really go by RDMA?
//!
//! Two witnesses. sock_diag of AF_SMC names the mode of every socket; the device's own counters
//! show that packets left it. A fallback that nobody asked for fails the test.

use crate::kind::Host;
use crate::sys::{self, cvt, cvt_size, Sock};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Rdma,
    Fallback,
}

// linux/sock_diag.h and linux/smc_diag.h
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SMC_DIAG_MODE_SMCR: u8 = 0;
const SMC_DIAG_MODE_FALLBACK_TCP: u8 = 1;
/// States without a connection (enum smc_state).
const SMC_INIT: u8 = 2;
const SMC_LISTEN: u8 = 10;
const HEADER: usize = 16;
/// struct smc_diag_req: family, two bytes, extensions, struct inet_diag_sockid (48 bytes).
const REQUEST: usize = 4 + 48;
/// struct smc_diag_msg: family, state, mode, shutdown, struct inet_diag_sockid, uid, inode.
const INODE_OFFSET: usize = 4 + 48 + 4;

/// The mode of a connected socket, as sock_diag tells it in the socket's own namespace.
///
/// `None`: this kernel has no sock_diag for AF_SMC, or no such socket (a fallback whose file went
/// over to TCP is not listed by it).
pub fn of(host: Host, sock: &Sock) -> io::Result<Option<Mode>> {
    // Asking for a family that nobody knows makes the kernel run modprobe, which takes longer than
    // a connection: ask once.
    if UNKNOWN.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let inode = sock.inode()?;
    sys::enter(host)?;
    let connections = connections().inspect_err(|_| UNKNOWN.store(true, Ordering::Relaxed))?;
    Ok(connections
        .into_iter()
        .find(|&(other, _)| other == inode)
        .map(|(_, mode)| mode))
}

/// sock_diag does not know AF_SMC here.
static UNKNOWN: AtomicBool = AtomicBool::new(false);

/// Whether the socket's file was handed over to TCP: then the socket calls itself one of TCP.
pub fn handed_over(sock: &Sock) -> io::Result<bool> {
    Ok(sock.get(libc::SOL_SOCKET, libc::SO_PROTOCOL)? == libc::IPPROTO_TCP)
}

/// (inode, mode) of every SMC connection of the calling thread's namespace.
pub fn connections() -> io::Result<Vec<(u64, Mode)>> {
    Ok(dump()?
        .into_iter()
        .filter(|entry| !matches!(entry.state, SMC_INIT | SMC_LISTEN))
        .filter_map(|entry| match entry.mode {
            SMC_DIAG_MODE_SMCR => Some((entry.inode, Mode::Rdma)),
            SMC_DIAG_MODE_FALLBACK_TCP => Some((entry.inode, Mode::Fallback)),
            _ => None,
        })
        .collect())
}

/// Whether sock_diag knows AF_SMC here.
pub fn known() -> bool {
    dump().is_ok()
}

/// One socket in a sock_diag dump.
struct Entry {
    inode: u64,
    state: u8,
    mode: u8,
}

/// Every SMC socket of the calling thread's namespace.
fn dump() -> io::Result<Vec<Entry>> {
    let netlink = Sock::raw(libc::AF_NETLINK, libc::SOCK_RAW, NETLINK_SOCK_DIAG)?;
    let mut request = [0u8; HEADER + REQUEST];
    request[0..4].copy_from_slice(&((HEADER + REQUEST) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    request[HEADER] = crate::kind::AF_SMC as u8;
    netlink.send(&request, 0)?;
    let mut all = Vec::new();
    let mut buffer = vec![0u8; 65536];
    loop {
        let got = netlink.recv(&mut buffer, 0)?;
        let mut rest = &buffer[..got];
        while rest.len() >= HEADER {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            let kind = u16::from_ne_bytes([rest[4], rest[5]]);
            if length < HEADER || length > rest.len() {
                return Err(io::Error::other("sock_diag: a message with a wrong length"));
            }
            let body = &rest[HEADER..length];
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(all),
                libc::NLMSG_ERROR => {
                    let code = body
                        .get(..4)
                        .map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
                    return Err(io::Error::from_raw_os_error(-code));
                }
                _ => {
                    let inode = body.get(INODE_OFFSET..INODE_OFFSET + 8).ok_or_else(|| {
                        io::Error::other(format!(
                            "sock_diag: a message of {} bytes is too short",
                            body.len()
                        ))
                    })?;
                    let mut bytes = [0; 8];
                    bytes.copy_from_slice(inode);
                    all.push(Entry {
                        inode: u64::from_ne_bytes(bytes),
                        state: body[1],
                        mode: body[2],
                    });
                }
            }
            rest = &rest[((length + 3) & !3).min(rest.len())..];
        }
    }
}

/// A counter of a host's RDMA device.
pub fn counter(host: Host, name: &str) -> io::Result<u64> {
    let path = format!(
        "/sys/class/infiniband/{}/ports/1/hw_counters/{name}",
        host.rdma_device()
    );
    sys::read_file(&path)?
        .trim()
        .parse()
        .map_err(|error| io::Error::other(format!("{path}: {error}")))
}

/// Packets that both RDMA devices have sent.
pub fn rdma_packets() -> io::Result<u64> {
    Ok(counter(Host::A, "sent_pkts")? + counter(Host::B, "sent_pkts")?)
}

/// Bytes that TCP itself has carried for this socket, both ways (TCP_INFO).
///
/// Over RDMA that is the CLC handshake only, whatever the program sent.
pub fn tcp_bytes(sock: &Sock) -> io::Result<u64> {
    // tcpi_bytes_acked and tcpi_bytes_received are at fixed places of struct tcp_info.
    const BYTES_ACKED: usize = 120;
    const BYTES_RECEIVED: usize = 128;
    let mut info = [0u8; 256];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: `info` is valid for `length` bytes.
    cvt(unsafe {
        libc::getsockopt(
            sock.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    })?;
    cvt_size(length as isize)?;
    let field = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&info[at..at + 8]);
        u64::from_ne_bytes(bytes)
    };
    Ok(field(BYTES_ACKED) + field(BYTES_RECEIVED))
}
