// SPDX-License-Identifier: GPL-2.0

//! By which device the kernel sends to an address (`RTM_GETROUTE`, `linux/rtnetlink.h`).

use crate::netlink::{attribute, Fields, Socket};
use crate::wire::{bytes, u8_at};
use crate::Error;
use std::net::IpAddr;

/// `RTM_GETROUTE`, `RTM_NEWROUTE`.
const GET: u16 = 26;
const NEW: u16 = 24;
/// Bytes of a `struct rtmsg`.
const HEADER: usize = 12;
/// `RTA_DST` and so on.
const DESTINATION: u16 = 1;
const DEVICE: u16 = 4;
const GATEWAY: u16 = 5;
const SOURCE: u16 = 7;
/// `RTN_LOCAL`.
const LOCAL: u8 = 2;

/// A way to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Index of the network device.
    pub ifindex: u32,
    /// The gateway, if there is one.
    pub gateway: Option<IpAddr>,
    /// Our address on the way.
    pub source: Option<IpAddr>,
    /// Whether the address is this host's own.
    pub local: bool,
}

fn address(value: &[u8]) -> Result<IpAddr, Error> {
    if value.len() == 4 {
        bytes::<4>(value, 0).map(IpAddr::from)
    } else {
        bytes::<16>(value, 0).map(IpAddr::from)
    }
}

impl Route {
    fn parse(body: &[u8]) -> Result<Self, Error> {
        let fields = Fields::parse(body.get(HEADER..).unwrap_or_default())?;
        Ok(Self {
            ifindex: fields.u32(DEVICE)?,
            gateway: fields.get(GATEWAY).map(address).transpose()?,
            source: fields.get(SOURCE).map(address).transpose()?,
            local: u8_at(body, 7)? == LOCAL,
        })
    }
}

fn request(to: IpAddr) -> Vec<u8> {
    let (family, address) = match to {
        IpAddr::V4(to) => (libc::AF_INET, to.octets().to_vec()),
        IpAddr::V6(to) => (libc::AF_INET6, to.octets().to_vec()),
    };
    let bits = u8::try_from(address.len().saturating_mul(8)).unwrap_or(0);
    let mut request = vec![0; HEADER];
    if let [to_family, to_bits, ..] = request.as_mut_slice() {
        *to_family = u8::try_from(family).unwrap_or(0);
        *to_bits = bits;
    }
    request.extend(attribute(DESTINATION, &address));
    request
}

/// The way to an address; `None` if there is none.
pub fn to(address: IpAddr) -> Result<Option<Route>, Error> {
    let mut route = None;
    let outcome =
        Socket::open(libc::NETLINK_ROUTE)?.call(GET, &request(address), |kind, body| {
            if kind == NEW {
                route = Some(Route::parse(body)?);
            }
            Ok(())
        })?;
    match outcome {
        Ok(()) => Ok(route),
        Err(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL) => Ok(None),
        Err(errno) => Err(Error::from_errno("asking for the route", errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_request_is_laid_out_as_the_kernel_reads_it() {
        let got = request(Ipv4Addr::new(10, 9, 0, 2).into());
        let wanted = [
            [2, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].as_slice(),
            &[8, 0, 1, 0, 10, 9, 0, 2],
        ];
        assert_eq!(got, wanted.concat());
        let got = request("fe80::1".parse().unwrap());
        assert_eq!((got[..2].to_vec(), got.len()), (vec![10, 128], 12 + 20));
    }

    #[test]
    fn an_answer_has_device_gateway_and_source() {
        let mut body = vec![2, 32, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0];
        body.extend(attribute(DESTINATION, &[10, 9, 0, 2]));
        body.extend(attribute(DEVICE, &3u32.to_ne_bytes()));
        body.extend(attribute(GATEWAY, &[10, 0, 0, 1]));
        body.extend(attribute(SOURCE, &[10, 0, 0, 9]));
        assert_eq!(
            Route::parse(&body).unwrap(),
            Route {
                ifindex: 3,
                gateway: Some([10, 0, 0, 1].into()),
                source: Some([10, 0, 0, 9].into()),
                local: false,
            }
        );
        assert!(Route::parse(&body[..18]).is_err() && Route::parse(&[]).is_err());
    }

    #[test]
    fn the_kernel_knows_the_way_to_itself() {
        let route = to(Ipv4Addr::LOCALHOST.into()).unwrap().unwrap();
        assert!(route.local, "{route:?}");
        assert_eq!(crate::interface::name(route.ifindex).as_deref(), Some("lo"));
    }
}
