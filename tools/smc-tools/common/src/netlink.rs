// SPDX-License-Identifier: GPL-2.0

//! Netlink: a socket, messages and attributes (`linux/netlink.h`).

use crate::wire::{i32_at, printable, u16_at, u32_at, u64_at, u8_at};
use crate::Error;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 0x1;
/// `NLM_F_ACK`: an answer also if there is nothing to say.
pub const ACK: u16 = 0x4;
/// `NLM_F_ROOT`; any bit of `NLM_F_DUMP` asks for a list.
pub const ROOT: u16 = 0x100;
/// `NLM_F_DUMP`.
pub const DUMP: u16 = 0x300;

/// Bytes of a `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of a `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;
/// `NLMSG_ERROR`, `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The bits of an attribute's type that are its type (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;
/// No part of a list is longer (`NLMSG_GOODSIZE`, and what SMC's list asks for).
const PART: usize = 32768;

/// What a message is.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// One of the kind that was asked for.
    Content {
        /// Its type.
        kind: u16,
        /// What is behind the header.
        body: &'a [u8],
    },
    /// The end of a list.
    Done,
    /// What was asked for is done.
    Acknowledged,
    /// The kernel refuses; an errno.
    Refused(i32),
}

/// The messages of one datagram. Ends behind the first error.
pub struct Messages<'a> {
    rest: &'a [u8],
}

/// The messages of one datagram.
pub fn messages(datagram: &[u8]) -> Messages<'_> {
    Messages { rest: datagram }
}

impl<'a> Messages<'a> {
    fn parse(&mut self) -> Result<Message<'a>, Error> {
        let rest = self.rest;
        let length = u32_at(rest, 0)? as usize;
        let kind = u16_at(rest, 4)?;
        let Some(body) = rest.get(HEADER..length) else {
            return Err(Error::Malformed(format!(
                "a message says that it has {length} bytes, of {}",
                rest.len()
            )));
        };
        self.rest = rest.get(aligned(length)..).unwrap_or_default();
        // The end of a list, too, may carry an error.
        let code = match kind {
            ERROR => i32_at(body, 0)?,
            DONE if body.len() >= 4 => i32_at(body, 0)?,
            DONE => 0,
            _ => return Ok(Message::Content { kind, body }),
        };
        match (kind, code) {
            (DONE, 0..) => Ok(Message::Done),
            (_, 0..) => Ok(Message::Acknowledged),
            (_, code) => Ok(Message::Refused(code.saturating_neg())),
        }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = self.parse();
        if message.is_err() {
            self.rest = &[];
        }
        Some(message)
    }
}

/// The attributes behind a message's fixed part. Ends behind the first error.
pub struct Attributes<'a> {
    rest: &'a [u8],
}

/// The attributes of `bytes`: their types and contents.
pub fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes { rest: bytes }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        Some((|| {
            let length = usize::from(u16_at(rest, 0)?);
            let kind = u16_at(rest, 2)? & TYPE_MASK;
            let value = rest.get(ATTRIBUTE_HEADER..length).ok_or_else(|| {
                Error::Malformed(format!(
                    "an attribute says that it has {length} bytes, of {}",
                    rest.len()
                ))
            })?;
            self.rest = rest.get(aligned(length)..).unwrap_or_default();
            Ok((kind, value))
        })())
    }
}

/// An attribute for a request.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE_HEADER.saturating_add(value.len())).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(aligned(length.into()));
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(aligned(bytes.len()), 0);
    bytes
}

/// An attribute that is a text with its zero.
pub fn text_attribute(kind: u16, text: &str) -> Vec<u8> {
    let mut value = text.as_bytes().to_vec();
    value.push(0);
    attribute(kind, &value)
}

/// All attributes of one level, to be looked up by their types. A number that is missing is 0, as C's
/// tools have it.
pub struct Fields<'a> {
    all: Vec<(u16, &'a [u8])>,
}

impl<'a> Fields<'a> {
    /// Reads them.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let all = attributes(bytes).collect::<Result<_, _>>()?;
        Ok(Self { all })
    }

    /// The value of the last one of a type.
    pub fn get(&self, kind: u16) -> Option<&'a [u8]> {
        let last = self.all.iter().rev().find(|(other, _)| *other == kind);
        last.map(|(_, value)| *value)
    }

    /// What is in a nest, if it is there.
    pub fn nest(&self, kind: u16) -> Result<Option<Fields<'a>>, Error> {
        self.get(kind).map(Fields::parse).transpose()
    }

    /// One byte.
    pub fn u8(&self, kind: u16) -> Result<u8, Error> {
        self.get(kind).map_or(Ok(0), |value| u8_at(value, 0))
    }

    /// Two bytes.
    pub fn u16(&self, kind: u16) -> Result<u16, Error> {
        self.get(kind).map_or(Ok(0), |value| u16_at(value, 0))
    }

    /// Four bytes.
    pub fn u32(&self, kind: u16) -> Result<u32, Error> {
        self.get(kind).map_or(Ok(0), |value| u32_at(value, 0))
    }

    /// Eight bytes, or four: `NLA_UINT` is as long as it needs to be.
    pub fn u64(&self, kind: u16) -> Result<u64, Error> {
        match self.get(kind) {
            None => Ok(0),
            Some(value) if value.len() == 4 => Ok(u32_at(value, 0)?.into()),
            Some(value) => u64_at(value, 0),
        }
    }

    /// A text, without its zero and the blanks at its end.
    pub fn text(&self, kind: u16) -> Option<String> {
        self.get(kind).map(printable)
    }
}

/// Messages and attributes begin at multiples of four.
fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// A whole message.
fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER.saturating_add(body.len())).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(length as usize);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    // The kernel fills in who sends.
    message.extend([0; 4]);
    message.extend(body);
    message
}

/// A netlink socket.
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens a socket of a netlink protocol, for instance `NETLINK_SOCK_DIAG`.
    pub fn open(protocol: i32) -> Result<Self, Error> {
        // SAFETY: no pointers.
        let fd = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                protocol,
            )
        };
        if fd < 0 {
            return Err(failed("opening a netlink socket"));
        }
        // SAFETY: `socket` has just made it, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // Any but 0, with which the kernel sends what nobody asked for.
        Ok(Self { fd, sequence: 1 })
    }

    /// Asks for a list, and gives the content of each message to `each`. `Err(errno)` inside if the
    /// kernel refuses.
    pub fn list(
        &mut self,
        kind: u16,
        flags: u16,
        request: &[u8],
        each: impl FnMut(u16, &[u8]) -> Result<(), Error>,
    ) -> Result<Result<(), i32>, Error> {
        self.exchange(kind, flags, request, Message::Done, each)
    }

    /// Asks for something to be done or told, and gives the content of each message of the answer to
    /// `each`. `Err(errno)` inside if the kernel refuses.
    pub fn call(
        &mut self,
        kind: u16,
        request: &[u8],
        each: impl FnMut(u16, &[u8]) -> Result<(), Error>,
    ) -> Result<Result<(), i32>, Error> {
        self.exchange(kind, REQUEST | ACK, request, Message::Acknowledged, each)
    }

    fn exchange(
        &mut self,
        kind: u16,
        flags: u16,
        request: &[u8],
        end: Message<'_>,
        mut each: impl FnMut(u16, &[u8]) -> Result<(), Error>,
    ) -> Result<Result<(), i32>, Error> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.send(&message(kind, flags, self.sequence, request))?;
        let mut buffer = vec![0; PART];
        loop {
            let part = self.receive(&mut buffer)?;
            // Of another request: one that was given up.
            if u32_at(part, 8)? != self.sequence {
                continue;
            }
            for message in messages(part) {
                match message? {
                    Message::Content { kind, body } => each(kind, body)?,
                    Message::Refused(errno) => return Ok(Err(errno)),
                    last if last == end => return Ok(Ok(())),
                    // An answer in parts has its own end, and the acknowledgement behind it.
                    Message::Done => {}
                    other => {
                        return Err(Error::Malformed(format!("{other:?} in place of {end:?}")))
                    }
                }
            }
        }
    }

    fn send(&self, message: &[u8]) -> Result<(), Error> {
        // SAFETY: `message` is alive and has that length. Without an address it goes to the kernel.
        let sent = unsafe {
            libc::send(
                self.fd.as_raw_fd(),
                message.as_ptr().cast(),
                message.len(),
                0,
            )
        };
        if sent < 0 {
            return Err(failed("asking the kernel by netlink"));
        }
        Ok(())
    }

    /// The next datagram of the kernel's.
    fn receive<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], Error> {
        loop {
            // SAFETY: all zeroes is a valid sockaddr_nl.
            let mut from: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
            let mut from_len = size_of_val(&from) as libc::socklen_t;
            // SAFETY: `buffer` and `from` are alive, writable and as long as is said.
            let got = unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_TRUNC,
                    (&raw mut from).cast(),
                    &raw mut from_len,
                )
            };
            let Ok(got) = usize::try_from(got) else {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(Error::System {
                    what: "reading the kernel's answer",
                    error,
                });
            };
            // Any process can send to a netlink socket.
            if from.nl_pid != 0 {
                continue;
            }
            return buffer
                .get(..got)
                .ok_or_else(|| Error::Malformed(format!("a part of {got} bytes")));
        }
    }
}

fn failed(what: &'static str) -> Error {
    Error::System {
        what,
        error: io::Error::last_os_error(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_laid_out_as_the_kernel_reads_it() {
        let got = message(20, REQUEST | ROOT, 0x0102_0304, &[9, 8, 7]);
        let mut wanted = Vec::new();
        wanted.extend(19u32.to_ne_bytes());
        wanted.extend(20u16.to_ne_bytes());
        wanted.extend(0x101u16.to_ne_bytes());
        wanted.extend(0x0102_0304u32.to_ne_bytes());
        wanted.extend([0, 0, 0, 0, 9, 8, 7]);
        assert_eq!(got, wanted);
    }

    #[test]
    fn messages_follow_each_other_at_multiples_of_four() {
        let mut datagram = message(20, 0, 1, &[1, 2, 3]);
        datagram.push(0);
        datagram.extend(message(20, 0, 1, &[4]));
        datagram.extend([0; 3]);
        datagram.extend(message(DONE, 0, 1, &0i32.to_ne_bytes()));
        let got: Result<Vec<_>, _> = messages(&datagram).collect();
        let content = |body| Message::Content { kind: 20, body };
        assert_eq!(
            got.unwrap(),
            [content(&[1, 2, 3]), content(&[4]), Message::Done]
        );
    }

    #[test]
    fn a_refusal_gives_its_errno() {
        let refusal = |kind, code: i32| {
            let datagram = message(kind, 0, 1, &code.to_ne_bytes());
            let first = messages(&datagram).next().unwrap().ok();
            match first {
                Some(Message::Refused(errno)) => Some(errno),
                _ => None,
            }
        };
        assert_eq!(refusal(ERROR, -libc::ENOENT), Some(libc::ENOENT));
        assert_eq!(refusal(DONE, -libc::EPERM), Some(libc::EPERM));
        assert_eq!(refusal(ERROR, i32::MIN), Some(i32::MAX));
        assert_eq!(refusal(ERROR, 0), None);
        let done = message(ERROR, 0, 1, &[0; 4]);
        let done = messages(&done).next().unwrap().unwrap();
        assert_eq!(done, Message::Acknowledged);
    }

    #[test]
    fn hostile_lengths_end_the_reading() {
        for length in [0u32, 1, 15, 21, 4096, u32::MAX] {
            let mut datagram = message(20, 0, 1, &[0; 4]);
            datagram[..4].copy_from_slice(&length.to_ne_bytes());
            let got: Vec<_> = messages(&datagram).collect();
            assert_eq!(got.len(), 1, "length {length}");
            assert!(got[0].is_err(), "length {length}");
        }
        for end in 1..HEADER {
            assert!(messages(&message(20, 0, 1, &[])[..end])
                .next()
                .unwrap()
                .is_err());
        }
        // An error without its code.
        assert!(messages(&message(ERROR, 0, 1, &[1, 2]))
            .next()
            .unwrap()
            .is_err());
    }

    #[test]
    fn attributes_are_read_to_their_end() {
        let mut bytes = Vec::new();
        // Type 3 with the bit of a nest, one byte, padding; type 5, four bytes.
        bytes.extend(5u16.to_ne_bytes());
        bytes.extend(0x8003u16.to_ne_bytes());
        bytes.extend([7, 0, 0, 0]);
        bytes.extend(8u16.to_ne_bytes());
        bytes.extend(5u16.to_ne_bytes());
        bytes.extend([1, 2, 3, 4]);
        let got: Result<Vec<_>, _> = attributes(&bytes).collect();
        assert_eq!(got.unwrap(), [(3, &[7][..]), (5, &[1, 2, 3, 4][..])]);
        for length in [0u16, 3, 17, u16::MAX] {
            bytes[..2].copy_from_slice(&length.to_ne_bytes());
            let got: Vec<_> = attributes(&bytes).collect();
            assert!(got[0].is_err() && got.len() == 1, "length {length}");
        }
    }

    #[test]
    fn fields_are_found_by_type_and_have_their_length() {
        let bytes = [
            attribute(1, &[7]),
            attribute(2, &0x0102u16.to_ne_bytes()),
            attribute(3, &5u32.to_ne_bytes()),
            attribute(4, &(1u64 << 40).to_ne_bytes()),
            text_attribute(5, "NET 1   "),
            attribute(6 | 0x8000, &attribute(1, &[9])),
            attribute(7, b"a\x1bb"),
        ]
        .concat();
        let fields = Fields::parse(&bytes).unwrap();
        assert_eq!(fields.u8(1).unwrap(), 7);
        assert_eq!(fields.u16(2).unwrap(), 0x0102);
        assert_eq!((fields.u32(3).unwrap(), fields.u64(3).unwrap()), (5, 5));
        assert_eq!(fields.u64(4).unwrap(), 1 << 40);
        assert_eq!(fields.text(5).as_deref(), Some("NET 1"));
        assert_eq!(fields.nest(6).unwrap().unwrap().u8(1).unwrap(), 9);
        assert_eq!(fields.text(7).as_deref(), Some("a?b"));
        assert_eq!((fields.u8(99).unwrap(), fields.text(99)), (0, None));
        assert!(fields.nest(99).unwrap().is_none());
        // Too short for its type.
        assert!(fields.u32(2).is_err() && fields.u64(1).is_err() && fields.u16(1).is_err());
        assert!(fields.nest(3).is_err());
    }

    #[test]
    fn the_kernel_refuses_what_it_does_not_know() {
        // sock_diag of a family that no kernel has.
        let mut socket = Socket::open(libc::NETLINK_SOCK_DIAG).unwrap();
        let mut request = [0; 52];
        request[0] = 200;
        let refused = socket
            .list(20, REQUEST | ROOT, &request, |_, _| panic!("content"))
            .unwrap();
        assert!(
            matches!(refused, Err(libc::EINVAL | libc::ENOENT)),
            "{refused:?}"
        );
    }
}
