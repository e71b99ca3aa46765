//! sock_diag of AF_SMC, as `linux/smc_diag.h` defines it: what the kernel says about every SMC socket.
//!
//! Read by hand and not with the module's own types, since the layout is what is to be tested.

use crate::sys::{cvt, Sock};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd};

// linux/sock_diag.h, linux/sockios.h
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SIOCGSKNS: libc::c_ulong = 0x894c;

// linux/smc_diag.h
pub const SMC_DIAG_MODE_SMCR: u8 = 0;
pub const SMC_DIAG_MODE_FALLBACK_TCP: u8 = 1;
const SMC_DIAG_CONNINFO: u16 = 1;
const SMC_DIAG_LGRINFO: u16 = 2;
const SMC_DIAG_SHUTDOWN: u16 = 3;
const SMC_DIAG_FALLBACK: u16 = 5;

/// Extensions of a request: one bit for each optional attribute.
pub const WITH_CONNINFO: u8 = 1 << (SMC_DIAG_CONNINFO - 1);
pub const WITH_LGRINFO: u8 = 1 << (SMC_DIAG_LGRINFO - 1);

// enum smc_state
pub const SMC_ACTIVE: u8 = 1;
pub const SMC_INIT: u8 = 2;
pub const SMC_LISTEN: u8 = 10;

const HEADER: usize = 16;
/// struct smc_diag_req: family, two bytes, extensions, struct inet_diag_sockid (48 bytes).
const REQUEST: usize = 4 + 48;
/// struct smc_diag_msg.
const MESSAGE: usize = 64;

/// What the kernel says about one SMC socket.
#[derive(Clone, Debug)]
pub struct Entry {
    pub family: u8,
    pub state: u8,
    pub mode: u8,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub ifindex: u32,
    pub cookie: u64,
    pub uid: u32,
    pub inode: u64,
    /// Bits of `sk_shutdown`: 1 receiving, 2 sending.
    pub shutdown: u8,
    pub fallback: Fallback,
    pub conn: Option<Conn>,
    pub link: Option<Link>,
}

/// Why a connection fell back (codes of `clc/decline.rs`, Documentation/uapi.rst); 0: it did not, or
/// the peer did not decline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fallback {
    pub reason: u32,
    pub peer_diagnosis: u32,
}

/// struct smc_diag_cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub wrap: u16,
    pub count: u32,
}

/// struct smc_diag_conninfo.
#[derive(Clone, Debug)]
pub struct Conn {
    pub token: u32,
    pub sndbuf_size: u32,
    pub rmbe_size: u32,
    pub peer_rmbe_size: u32,
    pub rx_prod: Cursor,
    pub rx_cons: Cursor,
    pub tx_prod: Cursor,
    pub tx_cons: Cursor,
    pub rx_prod_flags: u8,
    pub rx_conn_state_flags: u8,
    pub tx_prod_flags: u8,
    pub tx_conn_state_flags: u8,
    pub tx_prep: Cursor,
    pub tx_sent: Cursor,
    pub tx_fin: Cursor,
}

/// struct smc_diag_lgrinfo.
#[derive(Clone, Debug)]
pub struct Link {
    pub link_id: u8,
    pub ibname: String,
    pub ibport: u8,
    pub gid: String,
    pub peer_gid: String,
    /// 0 client, 1 server.
    pub role: u8,
}

/// A dump that is being read. The kernel fills a part when the one before it is read.
pub struct Dump {
    netlink: Sock,
    buffer: Vec<u8>,
    over: bool,
    /// Parts that were read.
    pub parts: usize,
}

impl Dump {
    /// Asks for the SMC sockets of the calling thread's namespace.
    pub fn start(extensions: u8) -> io::Result<Dump> {
        Self::ask(&request(
            (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16,
            extensions,
        ))
    }

    /// Sends a request of any content.
    pub fn ask(request: &[u8]) -> io::Result<Dump> {
        let netlink = Sock::raw(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            NETLINK_SOCK_DIAG,
        )?;
        netlink.send(request, 0)?;
        Ok(Dump {
            netlink,
            // As smcss has it.
            buffer: vec![0; 32768],
            over: false,
            parts: 0,
        })
    }

    /// The sockets of the next part; `None` when there are no more.
    pub fn part(&mut self) -> io::Result<Option<Vec<Entry>>> {
        if self.over {
            return Ok(None);
        }
        let got = self.netlink.recv(&mut self.buffer, libc::MSG_TRUNC)?;
        if got > self.buffer.len() {
            return Err(malformed(format!(
                "a part of {got} bytes, which smcss cannot read"
            )));
        }
        self.parts += 1;
        let mut rest = &self.buffer[..got];
        let mut entries = Vec::new();
        while rest.len() >= HEADER {
            let length = u32_at(rest, 0) as usize;
            let kind = u16_at(rest, 4);
            if length < HEADER || length > rest.len() {
                return Err(malformed("a message with a wrong length".into()));
            }
            let body = &rest[HEADER..length];
            match i32::from(kind) {
                libc::NLMSG_DONE => self.over = true,
                libc::NLMSG_ERROR => {
                    let code = if body.len() < 4 {
                        0
                    } else {
                        u32_at(body, 0) as i32
                    };
                    return Err(io::Error::from_raw_os_error(-code));
                }
                _ if kind == SOCK_DIAG_BY_FAMILY => entries.push(Entry::parse(body)?),
                _ => return Err(malformed(format!("a message of type {kind}"))),
            }
            rest = &rest[((length + 3) & !3).min(rest.len())..];
        }
        Ok(Some(entries))
    }

    /// The sockets of all remaining parts.
    pub fn rest(&mut self) -> io::Result<Vec<Entry>> {
        let mut all = Vec::new();
        while let Some(mut part) = self.part()? {
            all.append(&mut part);
        }
        Ok(all)
    }
}

/// A request for AF_SMC.
pub fn request(flags: u16, extensions: u8) -> [u8; HEADER + REQUEST] {
    let mut request = [0u8; HEADER + REQUEST];
    request[0..4].copy_from_slice(&((HEADER + REQUEST) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request[HEADER] = crate::kind::AF_SMC as u8;
    request[HEADER + 3] = extensions;
    request
}

/// All SMC sockets of the calling thread's namespace.
pub fn dump(extensions: u8) -> io::Result<Vec<Entry>> {
    Dump::start(extensions)?.rest()
}

/// What the kernel says about this socket, with everything there is to say; `None` if it is no SMC
/// socket. Asked in the socket's own namespace, wherever the caller is.
pub fn of(sock: &Sock) -> io::Result<Option<Entry>> {
    let inode = sock.inode()?;
    let mut dump = in_namespace_of(sock, || Dump::start(WITH_CONNINFO | WITH_LGRINFO))?;
    Ok(dump.rest()?.into_iter().find(|entry| entry.inode == inode))
}

/// Calls `f` with the calling thread in the socket's namespace.
fn in_namespace_of<T>(sock: &Sock, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // SAFETY: SIOCGSKNS takes no argument and returns a descriptor.
    let fd = cvt(unsafe { libc::ioctl(sock.as_raw_fd(), SIOCGSKNS as _) })?;
    // SAFETY: a fresh descriptor that nobody else owns.
    let there = unsafe { File::from_raw_fd(fd) };
    let here = File::open("/proc/thread-self/ns/net")?;
    set_namespace(&there)?;
    let result = f();
    set_namespace(&here)?;
    result
}

fn set_namespace(namespace: &File) -> io::Result<()> {
    // SAFETY: setns takes a descriptor, which is open here.
    cvt(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })?;
    Ok(())
}

impl Entry {
    fn parse(body: &[u8]) -> io::Result<Entry> {
        if body.len() < MESSAGE {
            return Err(malformed(format!("a message of {} bytes", body.len())));
        }
        let (mut shutdown, mut fallback) = (None, None);
        let (mut conn, mut link) = (None, None);
        let mut rest = &body[MESSAGE..];
        while rest.len() >= 4 {
            let length = usize::from(u16_at(rest, 0));
            if length < 4 || length > rest.len() {
                return Err(malformed("an attribute with a wrong length".into()));
            }
            let value = &rest[4..length];
            let once = match (u16_at(rest, 2), value.len()) {
                (SMC_DIAG_SHUTDOWN, 1) => shutdown.replace(value[0]).is_none(),
                (SMC_DIAG_FALLBACK, 8) => fallback
                    .replace(Fallback {
                        reason: u32_at(value, 0),
                        peer_diagnosis: u32_at(value, 4),
                    })
                    .is_none(),
                (SMC_DIAG_CONNINFO, 76) => conn.replace(Conn::parse(value)).is_none(),
                (SMC_DIAG_LGRINFO, 147) => link.replace(Link::parse(value)?).is_none(),
                (kind, size) => {
                    return Err(malformed(format!("attribute {kind} with {size} bytes")));
                }
            };
            if !once {
                return Err(malformed("an attribute twice".into()));
            }
            rest = &rest[((length + 3) & !3).min(rest.len())..];
        }
        let (Some(shutdown), Some(fallback)) = (shutdown, fallback) else {
            return Err(malformed(
                "no SMC_DIAG_SHUTDOWN or SMC_DIAG_FALLBACK".into(),
            ));
        };
        if body[3] != 0 {
            return Err(malformed(format!("diag_shutdown is {}", body[3])));
        }
        // smcss tells them apart so, as the message does not say.
        let v4 = body[12..24]
            .iter()
            .chain(&body[28..40])
            .all(|&byte| byte == 0);
        let address = |ip: usize, port: usize| {
            let mut v6 = [0; 16];
            v6.copy_from_slice(&body[ip..ip + 16]);
            let ip: IpAddr = if v4 {
                Ipv4Addr::new(v6[0], v6[1], v6[2], v6[3]).into()
            } else {
                Ipv6Addr::from(v6).into()
            };
            SocketAddr::new(ip, u16::from_be_bytes([body[port], body[port + 1]]))
        };
        Ok(Entry {
            family: body[0],
            state: body[1],
            mode: body[2],
            local: address(8, 4),
            peer: address(24, 6),
            ifindex: u32_at(body, 40),
            cookie: u64_at(body, 44),
            uid: u32_at(body, 52),
            inode: u64_at(body, 56),
            shutdown,
            fallback,
            conn,
            link,
        })
    }
}

impl Conn {
    fn parse(value: &[u8]) -> Conn {
        let cursor = |at: usize| Cursor {
            wrap: u16_at(value, at + 2),
            count: u32_at(value, at + 4),
        };
        Conn {
            token: u32_at(value, 0),
            sndbuf_size: u32_at(value, 4),
            rmbe_size: u32_at(value, 8),
            peer_rmbe_size: u32_at(value, 12),
            rx_prod: cursor(16),
            rx_cons: cursor(24),
            tx_prod: cursor(32),
            tx_cons: cursor(40),
            rx_prod_flags: value[48],
            rx_conn_state_flags: value[49],
            tx_prod_flags: value[50],
            tx_conn_state_flags: value[51],
            tx_prep: cursor(52),
            tx_sent: cursor(60),
            tx_fin: cursor(68),
        }
    }
}

impl Link {
    fn parse(value: &[u8]) -> io::Result<Link> {
        let text = |at: usize, len: usize| {
            let bytes = &value[at..at + len];
            let end = bytes.iter().position(|&byte| byte == 0);
            let end = end.ok_or_else(|| malformed("a text without an end".into()))?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&bytes[..end]).into_owned())
        };
        Ok(Link {
            link_id: value[0],
            ibname: text(1, 64)?,
            ibport: value[65],
            gid: text(66, 40)?,
            peer_gid: text(106, 40)?,
            role: value[146],
        })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Also of the cookie: its low half comes first.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let low = u64::from(u32_at(bytes, at));
    low | (u64::from(u32_at(bytes, at + 4)) << 32)
}

fn malformed(what: String) -> io::Error {
    io::Error::other(format!("sock_diag: {what}"))
}
