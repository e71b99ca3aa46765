//! Did a connection really go by RDMA?
//!
//! Two witnesses. sock_diag of AF_SMC names the mode of every socket, and the reason of every
//! fallback; the device's own counters show that packets left it. A fallback that nobody asked for
//! fails the test.

use crate::diag::{self, Fallback};
use crate::kind::Host;
use crate::rig::SoftRoce;
use crate::sys::{self, cvt, cvt_size, Sock};
use std::io;
use std::os::fd::AsRawFd;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Rdma,
    Fallback(Fallback),
}

impl Mode {
    fn of(entry: &diag::Entry) -> Option<Mode> {
        match (entry.state, entry.mode) {
            (diag::SMC_INIT | diag::SMC_LISTEN, _) => None,
            (_, diag::SMC_DIAG_MODE_SMCR) => Some(Mode::Rdma),
            (_, diag::SMC_DIAG_MODE_FALLBACK_TCP) => Some(Mode::Fallback(entry.fallback)),
            _ => None,
        }
    }
}

/// The mode of a connection, as sock_diag tells it. An error if it is no SMC connection, or none yet.
pub fn of(sock: &Sock) -> io::Result<Mode> {
    let entry =
        diag::of(sock)?.ok_or_else(|| io::Error::other("sock_diag does not list the socket"))?;
    Mode::of(&entry).ok_or_else(|| {
        io::Error::other(format!(
            "sock_diag says that the socket is not connected (state {}, mode {})",
            entry.state, entry.mode
        ))
    })
}

/// Why a connection fell back: the code, as Documentation/uapi.rst lists them. An error if it did not.
pub fn fallback_reason(sock: &Sock) -> io::Result<u32> {
    Ok(fallback(sock)?.reason)
}

/// Why a connection fell back, and what the peer gave as its reason if it declined.
pub fn fallback(sock: &Sock) -> io::Result<Fallback> {
    match of(sock)? {
        Mode::Fallback(fallback) => Ok(fallback),
        Mode::Rdma => Err(io::Error::other("the connection goes by RDMA")),
    }
}

/// Every SMC connection of the calling thread's namespace, and its mode.
pub fn connections() -> io::Result<Vec<(diag::Entry, Mode)>> {
    Ok(diag::dump(0)?
        .into_iter()
        .filter_map(|entry| Mode::of(&entry).map(|mode| (entry, mode)))
        .collect())
}

/// A counter of a host's RDMA device.
pub fn counter(host: Host, name: &str) -> io::Result<u64> {
    device_counter(host.rdma_device(), name)
}

/// A counter of an RDMA device.
pub fn device_counter(device: &str, name: &str) -> io::Result<u64> {
    let counters = format!("/sys/class/infiniband/{device}/ports/1/hw_counters");
    // The RDMA core shows what it has read in the last so many milliseconds again.
    sys::write_file(&format!("{counters}/lifespan"), "0")?;
    let path = format!("{counters}/{name}");
    sys::read_file(&path)?
        .trim()
        .parse()
        .map_err(|error| io::Error::other(format!("{path}: {error}")))
}

/// Packets that both RDMA devices have sent.
pub fn rdma_packets() -> io::Result<u64> {
    let name = SoftRoce::here().packet_counter();
    Ok(counter(Host::A, name)? + counter(Host::B, name)?)
}

/// Bytes that TCP itself has carried for this socket, both ways (TCP_INFO).
///
/// To be asked of a socket that fell back: an SMC-R connection counts its own bytes there.
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
