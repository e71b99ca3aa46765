//! Generic netlink, and the families SMC_GEN_NETLINK and SMC_PNETID of `linux/smc.h`.
//!
//! Read by hand and not with the module's own types, since the layout is what is to be tested.

use crate::sys::Sock;
use std::io;

const NETLINK_GENERIC: i32 = 16;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NLA_TYPE_MASK: u16 = 0x3fff;

const HEADER: usize = 16;
const GENL_HEADER: usize = 4;

/// Commands of SMC_GEN_NETLINK.
pub const GET_SYS_INFO: u8 = 1;
pub const GET_LGR_SMCR: u8 = 2;
pub const GET_LINK_SMCR: u8 = 3;
pub const GET_LGR_SMCD: u8 = 4;
pub const GET_DEV_SMCD: u8 = 5;
pub const GET_DEV_SMCR: u8 = 6;
pub const GET_STATS: u8 = 7;
pub const GET_FBACK_STATS: u8 = 8;
pub const DUMP_UEID: u8 = 9;
pub const ADD_UEID: u8 = 10;
pub const REMOVE_UEID: u8 = 11;
pub const FLUSH_UEID: u8 = 12;
pub const DUMP_SEID: u8 = 13;
pub const ENABLE_SEID: u8 = 14;
pub const DISABLE_SEID: u8 = 15;
pub const DUMP_HS_LIMITATION: u8 = 16;
pub const ENABLE_HS_LIMITATION: u8 = 17;
pub const DISABLE_HS_LIMITATION: u8 = 18;

/// A family's name.
pub const SMC_GEN: &str = "SMC_GEN_NETLINK";

/// Attributes, one level of them.
#[derive(Clone, Debug, Default)]
pub struct Attrs(Vec<(u16, Vec<u8>)>);

impl Attrs {
    fn parse(mut rest: &[u8]) -> io::Result<Attrs> {
        let mut all = Vec::new();
        while rest.len() >= 4 {
            let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
            let kind = u16::from_ne_bytes([rest[2], rest[3]]) & NLA_TYPE_MASK;
            if length < 4 || length > rest.len() {
                return Err(io::Error::other("an attribute with a wrong length"));
            }
            if all.iter().any(|&(other, _)| other == kind) {
                return Err(io::Error::other(format!("attribute {kind} comes twice")));
            }
            all.push((kind, rest[4..length].to_vec()));
            rest = &rest[((length + 3) & !3).min(rest.len())..];
        }
        Ok(Attrs(all))
    }

    /// The numbers of all of them, in order.
    pub fn kinds(&self) -> Vec<u16> {
        self.0.iter().map(|&(kind, _)| kind).collect()
    }

    /// The value of one.
    pub fn get(&self, kind: u16) -> io::Result<&[u8]> {
        let found = self.0.iter().find(|&&(other, _)| other == kind);
        found
            .map(|(_, value)| &value[..])
            .ok_or_else(|| io::Error::other(format!("no attribute {kind}")))
    }

    /// The attributes in one.
    pub fn nest(&self, kind: u16) -> io::Result<Attrs> {
        Attrs::parse(self.get(kind)?)
    }

    /// A number of 1, 2, 4 or 8 bytes.
    pub fn number(&self, kind: u16) -> io::Result<u64> {
        let value = self.get(kind)?;
        if ![1, 2, 4, 8].contains(&value.len()) {
            let text = format!("attribute {kind} of {} bytes is no number", value.len());
            return Err(io::Error::other(text));
        }
        let mut bytes = [0; 8];
        bytes[..value.len()].copy_from_slice(value);
        Ok(u64::from_ne_bytes(bytes))
    }

    /// A text, which ends with a zero.
    pub fn text(&self, kind: u16) -> io::Result<String> {
        match self.get(kind)?.split_last() {
            Some((0, text)) if !text.contains(&0) => Ok(String::from_utf8_lossy(text).into_owned()),
            _ => Err(io::Error::other(format!("attribute {kind} is no text"))),
        }
    }
}

/// A message of a family.
#[derive(Clone, Debug)]
pub struct Message {
    pub command: u8,
    pub attrs: Attrs,
}

/// A socket for one family, in the namespace in which it was made.
pub struct Client {
    sock: Sock,
    family: u16,
    sequence: u32,
    buffer: Vec<u8>,
    /// Parts of the last dump.
    pub parts: usize,
}

/// An attribute of a request.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((value.len() as u16 + 4).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize((bytes.len() + 3) & !3, 0);
    bytes
}

/// A text and its zero, as an attribute of a request.
pub fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

impl Client {
    /// Finds a family, in the calling thread's namespace; the kernel loads its module if need be.
    pub fn new(family: &str) -> io::Result<Client> {
        let sock = Sock::raw(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            NETLINK_GENERIC,
        )?;
        let mut client = Client {
            sock,
            family: GENL_ID_CTRL,
            sequence: 0,
            // The kernel makes parts as large as this, but for a page at least.
            buffer: vec![0; 4096],
            parts: 0,
        };
        client.send(
            CTRL_CMD_GETFAMILY,
            libc::NLM_F_REQUEST,
            &text(CTRL_ATTR_FAMILY_NAME, family),
        )?;
        let (messages, _) = client.receive()?;
        let answer = messages
            .first()
            .ok_or_else(|| io::Error::other("no answer about a family"))?;
        let id = answer.attrs.number(CTRL_ATTR_FAMILY_ID)? as u16;
        client.family = id;
        // What follows the answer: an acknowledgement was not asked for.
        Ok(client)
    }

    fn send(&mut self, command: u8, flags: i32, attributes: &[u8]) -> io::Result<()> {
        let mut request = vec![0; HEADER];
        request.extend([command, 1, 0, 0]);
        request.extend(attributes);
        self.sequence += 1;
        let length = request.len() as u32;
        request[0..4].copy_from_slice(&length.to_ne_bytes());
        request[4..6].copy_from_slice(&self.family.to_ne_bytes());
        request[6..8].copy_from_slice(&(flags as u16).to_ne_bytes());
        request[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        self.sock.send(&request, 0).map(drop)
    }

    /// The family's number.
    pub fn family(&self) -> u16 {
        self.family
    }

    /// Sends any bytes.
    pub fn send_raw(&self, request: &[u8]) -> io::Result<()> {
        self.sock.send(request, 0).map(drop)
    }

    /// One datagram: its messages, and whether it ends the answer.
    pub fn receive(&mut self) -> io::Result<(Vec<Message>, bool)> {
        let got = self.sock.recv(&mut self.buffer, libc::MSG_TRUNC)?;
        if got > self.buffer.len() {
            return Err(io::Error::other(format!("a part of {got} bytes")));
        }
        self.parts += 1;
        let mut rest = &self.buffer[..got];
        let mut messages = Vec::new();
        let mut over = false;
        while rest.len() >= HEADER {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            let kind = u16::from_ne_bytes([rest[4], rest[5]]);
            if length < HEADER || length > rest.len() {
                return Err(io::Error::other("a message with a wrong length"));
            }
            let body = &rest[HEADER..length];
            let code = || i32::from_ne_bytes([body[0], body[1], body[2], body[3]]);
            match i32::from(kind) {
                libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                    over = true;
                    if body.len() >= 4 && code() != 0 {
                        return Err(io::Error::from_raw_os_error(-code()));
                    }
                }
                _ if kind == self.family && body.len() >= GENL_HEADER && body[1..4] != [0; 3] => {
                    messages.push(Message {
                        command: body[0],
                        attrs: Attrs::parse(&body[GENL_HEADER..])?,
                    });
                }
                _ => return Err(io::Error::other(format!("a message of type {kind}"))),
            }
            rest = &rest[((length + 3) & !3).min(rest.len())..];
        }
        Ok((messages, over))
    }

    /// Asks for a dump, without reading it.
    pub fn begin_dump(&mut self, command: u8, attributes: &[u8]) -> io::Result<()> {
        self.parts = 0;
        self.send(command, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, attributes)
    }

    /// What is left of a dump.
    pub fn rest(&mut self) -> io::Result<Vec<Message>> {
        let mut all = Vec::new();
        loop {
            let (mut messages, over) = self.receive()?;
            all.append(&mut messages);
            if over {
                return Ok(all);
            }
        }
    }

    /// A dump.
    pub fn dump(&mut self, command: u8) -> io::Result<Vec<Message>> {
        self.begin_dump(command, &[])?;
        self.rest()
    }

    /// Has a command executed, and waits for its acknowledgement; what else was answered.
    pub fn execute(&mut self, command: u8, attributes: &[u8]) -> io::Result<Vec<Message>> {
        self.send(command, libc::NLM_F_REQUEST | libc::NLM_F_ACK, attributes)?;
        self.rest()
    }
}
