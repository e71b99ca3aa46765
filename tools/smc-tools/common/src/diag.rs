// SPDX-License-Identifier: GPL-2.0

//! What `sock_diag` says about SMC sockets (`linux/smc_diag.h`; the module's side is `diag/abi.rs`).

use crate::netlink::{self, attributes, Socket};
use crate::wire::{bytes, text, u16_at, u32_at, u64_at, u8_at};
use crate::{Error, AF_SMC};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `SMC_DIAG_CONNINFO` and so on.
const CONNINFO: u16 = 1;
const LGRINFO: u16 = 2;
const SHUTDOWN: u16 = 3;
const DMBINFO: u16 = 4;
const FALLBACK: u16 = 5;
/// Bytes of a `struct smc_diag_req`: family, two of padding, extensions, `struct inet_diag_sockid`.
const REQUEST: usize = 52;
/// Bytes of a `struct smc_diag_msg`.
const MESSAGE: usize = 64;

/// What is asked for beside what is always told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// [`Conn`].
    pub conn: bool,
    /// [`Link`].
    pub link: bool,
    /// [`Dmb`].
    pub dmb: bool,
}

impl Extensions {
    fn bits(self) -> u8 {
        let bit = |on: bool, kind: u16| u8::from(on) << (kind - 1);
        bit(self.conn, CONNINFO) | bit(self.link, LGRINFO) | bit(self.dmb, DMBINFO)
    }
}

/// State of a socket (`enum smc_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State(pub u8);

impl State {
    /// Connected, also after a fallback.
    pub const ACTIVE: State = State(1);
    /// Not connected yet.
    pub const INIT: State = State(2);
    /// Not connected any more.
    pub const CLOSED: State = State(7);
    /// Listening.
    pub const LISTEN: State = State(10);
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self.0 {
            1 => "ACTIVE",
            2 => "INIT",
            7 => "CLOSED",
            10 => "LISTEN",
            20 => "PEERCLOSEWAIT1",
            21 => "PEERCLOSEWAIT2",
            22 => "APPCLOSEWAIT1",
            23 => "APPCLOSEWAIT2",
            24 => "APPFINCLOSEWAIT",
            25 => "PEERFINCLOSEWAIT",
            26 => "PEERABORTWAIT",
            27 => "PROCESSABORT",
            other => return write!(f, "{other:#x}?"),
        })
    }
}

/// How a connection's data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By RDMA; also of a socket without a connection.
    SmcR,
    /// As TCP, after a fallback.
    Tcp,
    /// By memory that is shared in a machine.
    SmcD,
    /// What this tool does not know.
    Other(u8),
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::SmcR => f.pad("SMCR"),
            Mode::Tcp => f.pad("TCP"),
            Mode::SmcD => f.pad("SMCD"),
            Mode::Other(mode) => write!(f, "{mode:#x}?"),
        }
    }
}

/// Why a connection fell back; codes of [`crate::reason`], 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fallback {
    /// Our side's.
    pub reason: u32,
    /// The peer's, if it declined.
    pub peer: u32,
}

/// A place in a ring, and how often the ring was passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Times round, modulo 2^16.
    pub wrap: u16,
    /// Bytes from the ring's beginning.
    pub count: u32,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:08x}", self.wrap, self.count)
    }
}

impl Cursor {
    /// Bytes that a cursor moved from `self` to `later` in a ring of `size` bytes. It is not told how
    /// often the times round began anew: exact up to 65,536 times the size. `None` if the cursors do
    /// not lie in the ring.
    pub fn moved(self, later: Cursor, size: u32) -> Option<u64> {
        if size == 0 || self.count > size || later.count > size {
            return None;
        }
        let size = u64::from(size);
        let at = |cursor: Cursor| u64::from(cursor.wrap) * size + u64::from(cursor.count);
        let all = size << 16;
        Some((at(later) + all - at(self) % all) % all)
    }
}

/// A connection over SMC (`struct smc_diag_conninfo`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conn {
    /// Our alert token.
    pub token: u32,
    /// Bytes of our send buffer.
    pub sndbuf_size: u32,
    /// Bytes of our receive buffer.
    pub rmbe_size: u32,
    /// Bytes of the peer's.
    pub peer_rmbe_size: u32,
    /// Where the peer writes next, in our receive buffer.
    pub rx_prod: Cursor,
    /// Where the peer reads next, in its own.
    pub rx_cons: Cursor,
    /// Where we write next, in the peer's receive buffer.
    pub tx_prod: Cursor,
    /// Where we read next, in our own.
    pub tx_cons: Cursor,
    /// What the peer last said about its data.
    pub rx_prod_flags: u8,
    /// What it said about the connection.
    pub rx_conn_state_flags: u8,
    /// What we last said about our data.
    pub tx_prod_flags: u8,
    /// What we said about the connection.
    pub tx_conn_state_flags: u8,
    /// In our send buffer: behind what the program has written.
    pub tx_prep: Cursor,
    /// Behind what was sent.
    pub tx_sent: Cursor,
    /// Behind what is certainly with the peer.
    pub tx_fin: Cursor,
}

impl Conn {
    fn parse(value: &[u8]) -> Result<Self, Error> {
        let cursor = |at: usize| {
            Ok::<_, Error>(Cursor {
                wrap: u16_at(value, at + 2)?,
                count: u32_at(value, at + 4)?,
            })
        };
        Ok(Self {
            token: u32_at(value, 0)?,
            sndbuf_size: u32_at(value, 4)?,
            rmbe_size: u32_at(value, 8)?,
            peer_rmbe_size: u32_at(value, 12)?,
            rx_prod: cursor(16)?,
            rx_cons: cursor(24)?,
            tx_prod: cursor(32)?,
            tx_cons: cursor(40)?,
            rx_prod_flags: u8_at(value, 48)?,
            rx_conn_state_flags: u8_at(value, 49)?,
            tx_prod_flags: u8_at(value, 50)?,
            tx_conn_state_flags: u8_at(value, 51)?,
            tx_prep: cursor(52)?,
            tx_sent: cursor(60)?,
            tx_fin: cursor(68)?,
        })
    }
}

/// The link that a connection uses (`struct smc_diag_lgrinfo`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in the link group.
    pub id: u8,
    /// Name of the RDMA device.
    pub device: String,
    /// Port of the device.
    pub port: u8,
    /// Our GID.
    pub gid: String,
    /// The peer's.
    pub peer_gid: String,
    /// Whether we are the server of the link group.
    pub server: bool,
}

impl Link {
    fn parse(value: &[u8]) -> Result<Self, Error> {
        Ok(Self {
            id: u8_at(value, 0)?,
            device: text::<64>(value, 1)?,
            port: u8_at(value, 65)?,
            gid: text::<40>(value, 66)?,
            peer_gid: text::<40>(value, 106)?,
            server: u8_at(value, 146)? != 0,
        })
    }
}

/// A connection's shared memory, of SMC-D (`struct smcd_diag_dmbinfo`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dmb {
    /// The link group's number.
    pub link_id: u32,
    /// The peer's GID.
    pub peer_gid: u64,
    /// Our GID.
    pub gid: u64,
    /// Token of our memory.
    pub token: u64,
    /// Token of the peer's.
    pub peer_token: u64,
}

impl Dmb {
    fn parse(value: &[u8]) -> Result<Self, Error> {
        Ok(Self {
            link_id: u32_at(value, 0)?,
            peer_gid: u64_at(value, 8)?,
            gid: u64_at(value, 16)?,
            token: u64_at(value, 24)?,
            peer_token: u64_at(value, 32)?,
        })
    }
}

/// What the kernel says about one socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `AF_SMC`, or `AF_INET` and `AF_INET6` of `IPPROTO_SMC`.
    pub family: u8,
    /// State.
    pub state: State,
    /// How its data goes.
    pub mode: Mode,
    /// Own address.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
    /// Index of the network device that the socket is bound to; 0 for none.
    pub ifindex: u32,
    /// Tells a socket from every other one, also later ones.
    pub cookie: u64,
    /// Owner.
    pub uid: u32,
    /// Inode number.
    pub inode: u64,
    /// Bit 0: receives no more. Bit 1: sends no more.
    pub shutdown: u8,
    /// Why it fell back.
    pub fallback: Fallback,
    /// Its connection, if asked for and there is one over SMC.
    pub conn: Option<Conn>,
    /// Its link, if asked for and there is one of SMC-R.
    pub link: Option<Link>,
    /// Its shared memory, if asked for and there is one of SMC-D.
    pub dmb: Option<Dmb>,
}

impl Entry {
    /// Reads a message's body. Unknown attributes are passed over.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let family = u8_at(body, 0)?;
        let source: [u8; 16] = bytes(body, 8)?;
        let destination: [u8; 16] = bytes(body, 24)?;
        // AF_SMC does not say which IP it is over; of IPv4 the rest of both addresses is zero.
        let v6 = match i32::from(family) {
            libc::AF_INET => false,
            libc::AF_INET6 => true,
            _ => source
                .iter()
                .skip(4)
                .chain(destination.iter().skip(4))
                .any(|&byte| byte != 0),
        };
        let address = |ip: [u8; 16], port: usize| {
            let ip: IpAddr = match (v6, ip) {
                (true, _) => Ipv6Addr::from(ip).into(),
                (false, [a, b, c, d, ..]) => Ipv4Addr::new(a, b, c, d).into(),
            };
            Ok::<_, Error>(SocketAddr::new(ip, u16::from_be_bytes(bytes(body, port)?)))
        };
        let mut entry = Self {
            family,
            state: State(u8_at(body, 1)?),
            mode: match u8_at(body, 2)? {
                0 => Mode::SmcR,
                1 => Mode::Tcp,
                2 => Mode::SmcD,
                other => Mode::Other(other),
            },
            local: address(source, 4)?,
            peer: address(destination, 6)?,
            ifindex: u32_at(body, 40)?,
            // Two halves, the lower one first.
            cookie: u64::from(u32_at(body, 44)?) | (u64::from(u32_at(body, 48)?) << 32),
            uid: u32_at(body, 52)?,
            inode: u64_at(body, 56)?,
            shutdown: u8_at(body, 3)?,
            fallback: Fallback::default(),
            conn: None,
            link: None,
            dmb: None,
        };
        for attribute in attributes(body.get(MESSAGE..).unwrap_or_default()) {
            let (kind, value) = attribute?;
            match kind {
                SHUTDOWN => entry.shutdown = u8_at(value, 0)?,
                FALLBACK => {
                    entry.fallback = Fallback {
                        reason: u32_at(value, 0)?,
                        peer: u32_at(value, 4)?,
                    }
                }
                CONNINFO => entry.conn = Some(Conn::parse(value)?),
                LGRINFO => entry.link = Some(Link::parse(value)?),
                DMBINFO => entry.dmb = Some(Dmb::parse(value)?),
                _ => {}
            }
        }
        Ok(entry)
    }
}

/// A request for the SMC sockets of the asker's network namespace.
fn request(extensions: Extensions) -> [u8; REQUEST] {
    let mut request = [0; REQUEST];
    let [family, _, _, bits, ..] = &mut request;
    *family = AF_SMC;
    *bits = extensions.bits();
    request
}

/// All SMC sockets of the process's network namespace, the oldest first.
pub fn sockets(extensions: Extensions) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    let outcome = Socket::open(libc::NETLINK_SOCK_DIAG)?.list(
        BY_FAMILY,
        netlink::REQUEST | netlink::ROOT,
        &request(extensions),
        |kind, body| {
            if kind != BY_FAMILY {
                return Err(Error::Malformed(format!("a message of type {kind}")));
            }
            entries.push(Entry::parse(body)?);
            Ok(())
        },
    )?;
    match outcome {
        Ok(()) => Ok(entries),
        // The kernel knows the family only while the module is loaded.
        Err(libc::ENOENT) => Err(Error::NotLoaded),
        Err(errno) => Err(Error::System {
            what: "asking for the SMC sockets",
            error: std::io::Error::from_raw_os_error(errno),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message with the numbers 1, 2, ... in its fields.
    fn message(family: u8, source: [u8; 16], destination: [u8; 16]) -> Vec<u8> {
        let mut body = vec![family, 1, 0, 0, 0x12, 0x34, 0x56, 0x78];
        body.extend(source);
        body.extend(destination);
        body.extend(7u32.to_ne_bytes());
        body.extend(0x8000_0001u32.to_ne_bytes());
        body.extend(2u32.to_ne_bytes());
        body.extend(1000u32.to_ne_bytes());
        body.extend(0x1122_3344_5566_7788u64.to_ne_bytes());
        assert_eq!(body.len(), MESSAGE);
        body
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((4 + value.len() as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize((bytes.len() + 3) & !3, 0);
        bytes
    }

    fn v4(a: u8, d: u8) -> [u8; 16] {
        let mut ip = [0; 16];
        ip[0] = a;
        ip[3] = d;
        ip
    }

    fn conn_value() -> Vec<u8> {
        let mut value = Vec::new();
        for field in [1u32, 0x4000, 0x8000, 0x2_0000] {
            value.extend(field.to_ne_bytes());
        }
        let cursor = |value: &mut Vec<u8>, wrap: u16, count: u32| {
            value.extend([0xee; 2]);
            value.extend(wrap.to_ne_bytes());
            value.extend(count.to_ne_bytes());
        };
        for number in 1..=4 {
            cursor(&mut value, number, 10 + u32::from(number));
        }
        value.extend([0x81, 0x82, 0x83, 0x84]);
        for number in 5..=7 {
            cursor(&mut value, number, 10 + u32::from(number));
        }
        assert_eq!(value.len(), 76);
        value
    }

    fn link_value() -> Vec<u8> {
        let mut value = vec![1];
        value.extend(b"mlx5_0");
        value.resize(65, 0);
        value.push(2);
        value.extend(b"0000:0000:0000:0000:0000:ffff:0a09:0001\0");
        value.extend(b"0000:0000:0000:0000:0000:ffff:0a09:0002\0");
        value.push(1);
        assert_eq!(value.len(), 147);
        value
    }

    #[test]
    fn a_message_is_read_field_by_field() {
        let mut body = message(AF_SMC, v4(10, 1), v4(10, 2));
        body.extend(attribute(SHUTDOWN, &[3]));
        let mut codes = Vec::from(0x0500_0000u32.to_ne_bytes());
        codes.extend(0x0303_0002u32.to_ne_bytes());
        body.extend(attribute(FALLBACK, &codes));
        body.extend(attribute(99, &[1, 2, 3]));
        body[2] = 1;
        let entry = Entry::parse(&body).unwrap();
        assert_eq!(
            entry,
            Entry {
                family: 43,
                state: State::ACTIVE,
                mode: Mode::Tcp,
                local: "10.0.0.1:4660".parse().unwrap(),
                peer: "10.0.0.2:22136".parse().unwrap(),
                ifindex: 7,
                cookie: 0x2_8000_0001,
                uid: 1000,
                inode: 0x1122_3344_5566_7788,
                shutdown: 3,
                fallback: Fallback {
                    reason: 0x0500_0000,
                    peer: 0x0303_0002
                },
                conn: None,
                link: None,
                dmb: None,
            }
        );
    }

    #[test]
    fn the_attributes_of_a_connection_are_read() {
        let mut body = message(AF_SMC, v4(10, 1), v4(10, 2));
        body.extend(attribute(CONNINFO, &conn_value()));
        body.extend(attribute(LGRINFO, &link_value()));
        let mut dmb = Vec::from(9u64.to_ne_bytes());
        for field in [1u64, 2, 3, 4, 5, 6] {
            dmb.extend(field.to_ne_bytes());
        }
        dmb[..4].copy_from_slice(&9u32.to_ne_bytes());
        body.extend(attribute(DMBINFO, &dmb));
        let entry = Entry::parse(&body).unwrap();
        let conn = entry.conn.unwrap();
        let at = |wrap, count| Cursor { wrap, count };
        assert_eq!(
            (
                conn.token,
                conn.sndbuf_size,
                conn.rmbe_size,
                conn.peer_rmbe_size
            ),
            (1, 0x4000, 0x8000, 0x2_0000)
        );
        assert_eq!(
            [conn.rx_prod, conn.rx_cons, conn.tx_prod, conn.tx_cons],
            [at(1, 11), at(2, 12), at(3, 13), at(4, 14)]
        );
        assert_eq!(
            [conn.tx_prep, conn.tx_sent, conn.tx_fin],
            [at(5, 15), at(6, 16), at(7, 17)]
        );
        assert_eq!(
            [
                conn.rx_prod_flags,
                conn.rx_conn_state_flags,
                conn.tx_prod_flags,
                conn.tx_conn_state_flags
            ],
            [0x81, 0x82, 0x83, 0x84]
        );
        let link = entry.link.unwrap();
        assert_eq!(
            (link.id, link.device.as_str(), link.port, link.server),
            (1, "mlx5_0", 2, true)
        );
        assert!(link.gid.ends_with(":0001") && link.peer_gid.ends_with(":0002"));
        let dmb = entry.dmb.unwrap();
        assert_eq!(
            (
                dmb.link_id,
                dmb.peer_gid,
                dmb.gid,
                dmb.token,
                dmb.peer_token
            ),
            (9, 1, 2, 3, 4)
        );
    }

    #[test]
    fn ipv6_is_told_by_the_family_or_the_addresses() {
        let zero = [0; 16];
        let mut six = zero;
        six[15] = 1;
        let local = |family, source, destination| {
            Entry::parse(&message(family, source, destination))
                .unwrap()
                .local
                .to_string()
        };
        assert_eq!(local(AF_SMC, six, six), "[::1]:4660");
        assert_eq!(local(AF_SMC, zero, six), "[::]:4660");
        assert_eq!(local(AF_SMC, zero, zero), "0.0.0.0:4660");
        assert_eq!(local(10, zero, zero), "[::]:4660");
        assert_eq!(local(2, v4(127, 1), zero), "127.0.0.1:4660");
    }

    #[test]
    fn truncated_messages_are_errors_and_nothing_worse() {
        let mut body = message(AF_SMC, v4(10, 1), v4(10, 2));
        let fixed = body.len();
        body.extend(attribute(SHUTDOWN, &[3]));
        body.extend(attribute(FALLBACK, &[0; 8]));
        body.extend(attribute(CONNINFO, &conn_value()));
        body.extend(attribute(LGRINFO, &link_value()));
        let ends: Vec<usize> = (0..body.len())
            .filter(|&end| Entry::parse(&body[..end]).is_ok())
            .collect();
        // Whole attributes only, with and without the padding behind them.
        assert_eq!(
            ends,
            [
                fixed,
                fixed + 5,
                fixed + 6,
                fixed + 7,
                fixed + 8,
                fixed + 20,
                fixed + 100,
                fixed + 251
            ]
        );
        for (kind, least) in [(SHUTDOWN, 1), (FALLBACK, 8), (CONNINFO, 76), (LGRINFO, 147)] {
            for size in 0..least {
                let mut body = message(AF_SMC, v4(10, 1), v4(10, 2));
                body.extend(attribute(kind, &vec![0; size]));
                assert!(Entry::parse(&body).is_err(), "{kind} of {size} bytes");
            }
        }
    }

    #[test]
    fn random_messages_are_read_or_refused() {
        // xorshift64: the same bytes each time.
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut read = 0;
        for _ in 0..20_000 {
            let mut body = message(AF_SMC, v4(10, 1), v4(10, 2));
            body.extend(attribute(CONNINFO, &conn_value()));
            body.extend(attribute(LGRINFO, &link_value()));
            for _ in 0..=random() % 4 {
                let at = random() as usize % body.len();
                body[at] = random() as u8;
            }
            body.truncate(random() as usize % (body.len() + 1));
            read += usize::from(Entry::parse(&body).is_ok());
        }
        assert!(read > 0 && read < 20_000, "{read}");
    }

    #[test]
    fn a_request_has_its_bits() {
        let all = Extensions {
            conn: true,
            link: true,
            dmb: true,
        };
        let none = request(Extensions::default());
        assert_eq!((none.len(), none[0], none[3]), (52, 43, 0));
        assert_eq!(request(all)[3], 0b1011);
        assert!(none[4..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn states_and_modes_have_names() {
        assert_eq!(State(25).to_string(), "PEERFINCLOSEWAIT");
        assert_eq!(State(99).to_string(), "0x63?");
        assert_eq!(format!("{:7}|", State::LISTEN), "LISTEN |");
        assert_eq!(Mode::Other(9).to_string(), "0x9?");
        assert_eq!(Cursor { wrap: 1, count: 2 }.to_string(), "0001:00000002");
    }

    #[test]
    fn a_cursor_moves_through_its_wraps() {
        let at = |wrap, count| Cursor { wrap, count };
        assert_eq!(at(0, 10).moved(at(0, 10), 16), Some(0));
        assert_eq!(at(0, 10).moved(at(1, 2), 16), Some(8));
        assert_eq!(at(0xffff, 15).moved(at(0, 1), 16), Some(2));
        assert_eq!(at(1, 0).moved(at(0, 15), 16), Some((16 << 16) - 1));
        // The end of a ring is the beginning of the next time round.
        assert_eq!(at(0xffff, 16).moved(at(0, 0), 16), Some(0));
        assert_eq!(at(0, 17).moved(at(0, 0), 16), None);
        assert_eq!(at(0, 0).moved(at(0, 0), 0), None);
        assert_eq!(at(0, 0).moved(at(0xffff, u32::MAX), u32::MAX), Some(0));
    }
}
