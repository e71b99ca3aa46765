// SPDX-License-Identifier: GPL-2.0

//! The generic netlink family `SMC_PNETID`, as `linux/smc.h` lays it out for user space.

#![forbid(unsafe_code)]

use super::nla::Writer;
use crate::smc_core::pnet::{
    Attachment,
    Name,
    PnetId,
    LAST_PORT, //
};

/// Version of the family.
pub const VERSION: u8 = 1;

/// `SMC_PNETID_GET`.
pub const GET: u8 = 1;
/// `SMC_PNETID_ADD`.
pub const ADD: u8 = 2;
/// `SMC_PNETID_DEL`.
pub const DEL: u8 = 3;
/// `SMC_PNETID_FLUSH`.
pub const FLUSH: u8 = 4;

/// `SMC_PNETID_NAME`.
pub const NAME: u16 = 1;
/// `SMC_PNETID_ETHNAME`.
pub const ETHNAME: u16 = 2;
/// `SMC_PNETID_IBNAME`.
pub const IBNAME: u16 = 3;
/// `SMC_PNETID_IBPORT`.
pub const IBPORT: u16 = 4;

/// What stands for a device that an entry does not have.
const NONE: &[u8] = b"n/a";
/// What stands for its port.
const NO_PORT: u8 = 255;

/// Most bytes of a message.
pub const LARGEST: usize = 256;

/// A message about an entry.
pub fn entry<'a>(buffer: &'a mut [u8], id: &PnetId, at: &Attachment) -> Option<&'a [u8]> {
    let (eth, ib, port) = match at {
        Attachment::Ethernet(name) => (name.as_bytes(), NONE, NO_PORT),
        Attachment::Rdma(name, port) => (NONE, name.as_bytes(), *port),
    };
    let mut writer = Writer::new(buffer);
    writer.header(&[GET, VERSION, 0, 0]);
    writer.text(NAME, id.as_bytes());
    writer.text(ETHNAME, eth);
    writer.text(IBNAME, ib);
    writer.u8(IBPORT, port);
    writer.finish()
}

/// The text of an attribute, without the zero that ends it.
pub fn text(value: &[u8]) -> &[u8] {
    let end = value.iter().position(|&byte| byte == 0);
    value.get(..end.unwrap_or(value.len())).unwrap_or(value)
}

/// A request names something that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Impossible;

/// What a request to add is about: at most a network device, and a port of an RDMA device (the first one
/// if it does not say).
///
/// # Errors
///
/// [`Impossible`].
pub fn attachments(
    eth: Option<&[u8]>,
    ib: Option<&[u8]>,
    port: Option<&[u8]>,
) -> Result<[Option<Attachment>; 2], Impossible> {
    let eth = match eth {
        Some(name) => Some(Attachment::Ethernet(
            Name::new(text(name)).ok_or(Impossible)?,
        )),
        None => None,
    };
    let ib = match ib {
        Some(name) => {
            let port = match port {
                Some([port @ 1..=LAST_PORT]) => *port,
                Some(_) => return Err(Impossible),
                None => 1,
            };
            Some(Attachment::Rdma(
                Name::new(text(name)).ok_or(Impossible)?,
                port,
            ))
        }
        None => None,
    };
    Ok([eth, ib])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_laid_out_as_smc_pnet_reads_them() {
        let mut room = [0xee; LARGEST];
        let id = PnetId::parse(b"net1").unwrap();
        let eth = Attachment::Ethernet(Name::new(b"eth0").unwrap());
        let expected = [
            &[1, 1, 0, 0][..],
            &[9, 0, 1, 0],
            b"NET1\0\0\0\0",
            &[9, 0, 2, 0],
            b"eth0\0\0\0\0",
            &[8, 0, 3, 0],
            b"n/a\0",
            &[5, 0, 4, 0, 255, 0, 0, 0],
        ]
        .concat();
        assert_eq!(entry(&mut room, &id, &eth), Some(&expected[..]));
        let ib = Attachment::Rdma(Name::new(b"rxeA").unwrap(), 2);
        let expected = [
            &[1, 1, 0, 0][..],
            &[9, 0, 1, 0],
            b"NET1\0\0\0\0",
            &[8, 0, 2, 0],
            b"n/a\0",
            &[9, 0, 3, 0],
            b"rxeA\0\0\0\0",
            &[5, 0, 4, 0, 2, 0, 0, 0],
        ]
        .concat();
        assert_eq!(entry(&mut room, &id, &ib), Some(&expected[..]));
        // The longest names fit.
        let id = PnetId::parse(&[b'x'; 16]).unwrap();
        let ib = Attachment::Rdma(Name::new(&[b'y'; 63]).unwrap(), 1);
        assert!(entry(&mut room, &id, &ib).is_some());
    }

    #[test]
    fn requests_name_what_they_are_about() {
        let eth = Attachment::Ethernet(Name::new(b"eth0").unwrap());
        let ib = |port| Attachment::Rdma(Name::new(b"rxeA").unwrap(), port);
        let (e, i) = (Some(&b"eth0\0"[..]), Some(&b"rxeA\0"[..]));
        assert_eq!(attachments(e, None, None), Ok([Some(eth), None]));
        assert_eq!(attachments(None, i, None), Ok([None, Some(ib(1))]));
        assert_eq!(attachments(e, i, Some(&[2])), Ok([Some(eth), Some(ib(2))]));
        assert_eq!(attachments(None, None, None), Ok([None, None]));
        for port in [&[0][..], &[3], &[255], &[], &[1, 1]] {
            assert_eq!(attachments(e, i, Some(port)), Err(Impossible), "{port:?}");
        }
        assert_eq!(attachments(Some(b"\0"), None, None), Err(Impossible));
        assert_eq!(attachments(Some(&[b'x'; 16]), None, None), Err(Impossible));
        assert_eq!(attachments(None, Some(&[b'x'; 64]), None), Err(Impossible));
    }
}
