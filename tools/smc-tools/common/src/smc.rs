// SPDX-License-Identifier: GPL-2.0

//! What `SMC_GEN_NETLINK` says about the host, link groups, links and devices (`linux/smc.h`; the
//! module's side is `diag/genl_abi.rs`).

use crate::genl::Family;
use crate::netlink::Fields;
use crate::Error;
use std::fmt;

/// Name of the family.
pub const FAMILY: &str = "SMC_GEN_NETLINK";

/// `SMC_NETLINK_GET_SYS_INFO` and so on.
const GET_SYS_INFO: u8 = 1;
const GET_LGR_SMCR: u8 = 2;
const GET_LINK_SMCR: u8 = 3;
const GET_LGR_SMCD: u8 = 4;
const GET_DEV_SMCD: u8 = 5;
const GET_DEV_SMCR: u8 = 6;
const DUMP_SEID: u8 = 13;
const ENABLE_SEID: u8 = 14;
const DISABLE_SEID: u8 = 15;
const DUMP_HS_LIMITATION: u8 = 16;

/// Outermost attributes.
const SYS_INFO: u16 = 1;
const LGR_SMCR: u16 = 2;
const LINK_SMCR: u16 = 3;
const DEV_SMCR: u16 = 6;

/// What the host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemInfo {
    /// Version and release of SMC.
    pub version: u8,
    /// Release of the version.
    pub release: u8,
    /// Whether there is an ISM device for SMC-Dv2.
    pub ism_v2: bool,
    /// Name of the host, as peers are told it.
    pub host: String,
    /// System enterprise ID, of SMC-Dv2.
    pub seid: Option<String>,
    /// Whether the kernel has SMC-Rv2.
    pub smcr_v2: bool,
}

impl SystemInfo {
    fn parse(attributes: &[u8]) -> Result<Option<Self>, Error> {
        let Some(info) = Fields::parse(attributes)?.nest(SYS_INFO)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            version: info.u8(1)?,
            release: info.u8(2)?,
            ism_v2: info.u8(3)? != 0,
            host: info.text(4).unwrap_or_default(),
            seid: info.text(5).filter(|seid| !seid.is_empty()),
            smcr_v2: info.u8(6)? != 0,
        }))
    }
}

/// How much the loss of a link costs (`enum smc_lgr_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redundancy(pub u8);

impl fmt::Display for Redundancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.pad("NONE"),
            1 => f.pad("SINGLE"),
            2 => f.pad("SYM"),
            // Asymmetric at the peer, and here.
            3 => f.pad("ASYMP"),
            4 => f.pad("ASYML"),
            other => f.pad(&format!("{other:#x}?")),
        }
    }
}

/// What the two sides of a link group of SMC-Rv2 agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupV2 {
    /// Release of version 2.
    pub release: u8,
    /// What the peer runs on, by number.
    pub os: u8,
    /// Their common enterprise ID.
    pub eid: String,
    /// Name of the peer's host.
    pub peer_host: String,
    /// Whether there is no gateway between.
    pub direct: bool,
    /// Most connections.
    pub max_conns: u8,
    /// Most links.
    pub max_links: u8,
}

/// A link group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number on this host.
    pub id: u32,
    /// Whether we are its server.
    pub server: bool,
    /// Its redundancy.
    pub kind: Redundancy,
    /// Physical network; can be empty.
    pub pnet_id: String,
    /// The lower 8 bits of the VLAN.
    pub vlan: u8,
    /// Connections.
    pub conns: u32,
    /// With SMC-Rv2.
    pub v2: Option<GroupV2>,
    /// Cookie of its network namespace.
    pub net_cookie: u64,
    /// What its rings are made of: 0 physically contiguous memory, 1 virtually, 2 whatever there is.
    pub buf_type: u8,
    /// Bytes of send buffers.
    pub sndbuf_alloc: u64,
    /// Bytes of receive buffers.
    pub rmb_alloc: u64,
}

impl Group {
    fn parse(group: &Fields<'_>) -> Result<Self, Error> {
        let v2 = match (group.nest(7)?, group.nest(8)?) {
            (Some(common), Some(limits)) => Some(GroupV2 {
                release: common.u8(1)?,
                os: common.u8(2)?,
                eid: common.text(3).unwrap_or_default(),
                peer_host: common.text(4).unwrap_or_default(),
                direct: limits.u8(1)? != 0,
                max_conns: limits.u8(2)?,
                max_links: limits.u8(3)?,
            }),
            _ => None,
        };
        Ok(Self {
            id: group.u32(1)?,
            server: group.u8(2)? != 0,
            kind: Redundancy(group.u8(3)?),
            pnet_id: group.text(4).unwrap_or_default(),
            vlan: group.u8(5)?,
            conns: group.u32(6)?,
            v2,
            net_cookie: group.u64(9)?,
            buf_type: group.u8(11)?,
            sndbuf_alloc: group.u64(12)?,
            rmb_alloc: group.u64(13)?,
        })
    }
}

/// How far a link is (`enum smc_link_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState(pub u32);

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.pad("LINK_UNUSED"),
            1 => f.pad("LINK_INACTIVE"),
            2 => f.pad("LINK_ACTIVATING"),
            3 => f.pad("LINK_ACTIVE"),
            other => f.pad(&format!("{other:#x}?")),
        }
    }
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in the group.
    pub id: u8,
    /// The RDMA device.
    pub device: String,
    /// Port of the device.
    pub port: u8,
    /// Our GID.
    pub gid: String,
    /// The peer's.
    pub peer_gid: String,
    /// Connections.
    pub conns: u32,
    /// Index of the network device behind the port; 0 if that is in another namespace.
    pub ifindex: u32,
    /// Our name for it.
    pub uid: u32,
    /// The peer's name for it.
    pub peer_uid: u32,
    /// How far it is.
    pub state: LinkState,
}

impl Link {
    fn parse(link: &Fields<'_>) -> Result<Self, Error> {
        Ok(Self {
            id: link.u8(1)?,
            device: link.text(2).unwrap_or_default(),
            port: link.u8(3)?,
            gid: link.text(4).unwrap_or_default(),
            peer_gid: link.text(5).unwrap_or_default(),
            conns: link.u32(6)?,
            ifindex: link.u32(7)?,
            // In the byte order of the wire, where a reader is to see the same on both sides.
            uid: u32::from_be(link.u32(8)?),
            peer_uid: u32::from_be(link.u32(9)?),
            state: LinkState(link.u32(10)?),
        })
    }
}

/// The PCI function of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pci {
    /// Function number, of s390.
    pub fid: u32,
    /// Physical channel, of s390.
    pub pchid: u16,
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Its place.
    pub id: String,
}

/// A port of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its number, from 1.
    pub number: u8,
    /// Physical network; can be empty.
    pub pnet_id: String,
    /// Whether an administrator has given that.
    pub pnet_by_user: bool,
    /// Index of the network device behind it; 0 if that is in another namespace.
    pub ifindex: u32,
    /// Whether it is up.
    pub active: bool,
    /// Links.
    pub links: u32,
}

/// An RDMA device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Links on it.
    pub links: u32,
    /// Whether link groups would end with it.
    pub critical: bool,
    /// If it is one of PCI.
    pub pci: Option<Pci>,
    /// Its first two ports, if they are in use.
    pub ports: Vec<Port>,
}

impl Device {
    fn parse(device: &Fields<'_>) -> Result<Self, Error> {
        let mut ports = Vec::new();
        for (kind, number) in [(8, 1), (9, 2)] {
            let Some(port) = device.nest(kind)? else {
                continue;
            };
            if port.u8(5)? == 0 {
                continue;
            }
            ports.push(Port {
                number,
                pnet_by_user: port.u8(1)? != 0,
                pnet_id: port.text(2).unwrap_or_default(),
                ifindex: port.u32(3)?,
                active: port.u8(4)? == 1,
                links: port.u32(6)?,
            });
        }
        let pci = match device.text(7) {
            Some(id) => Some(Pci {
                fid: device.u32(3)?,
                pchid: device.u16(4)?,
                vendor: device.u16(5)?,
                device: device.u16(6)?,
                id,
            }),
            None => None,
        };
        Ok(Self {
            name: device.text(10).unwrap_or_default(),
            links: device.u32(1)?,
            critical: device.u8(2)? != 0,
            pci,
            ports,
        })
    }
}

/// Asks the kernel about SMC.
pub struct Smc {
    family: Family,
}

impl Smc {
    /// Finds the module.
    pub fn open() -> Result<Self, Error> {
        Family::open(FAMILY).map(|family| Self { family })
    }

    pub(crate) fn dump(
        &mut self,
        command: u8,
        what: &'static str,
        each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.family
            .dump(command, each)?
            .map_err(|errno| Error::from_errno(what, errno))
    }

    pub(crate) fn call(
        &mut self,
        command: u8,
        attributes: &[u8],
    ) -> Result<Result<(), i32>, Error> {
        self.family.call(command, attributes, |_| Ok(()))
    }

    /// What the host is.
    pub fn system_info(&mut self) -> Result<SystemInfo, Error> {
        let mut info = None;
        self.dump(GET_SYS_INFO, "asking what the host is", |attributes| {
            info = SystemInfo::parse(attributes)?;
            Ok(())
        })?;
        info.ok_or_else(|| Error::Malformed("nothing about the host".into()))
    }

    /// Link groups.
    pub fn groups(&mut self) -> Result<Vec<Group>, Error> {
        let mut groups = Vec::new();
        self.dump(GET_LGR_SMCR, "asking for link groups", |attributes| {
            if let Some(group) = Fields::parse(attributes)?.nest(LGR_SMCR)? {
                groups.push(Group::parse(&group)?);
            }
            Ok(())
        })?;
        Ok(groups)
    }

    /// Link groups with their links.
    pub fn links(&mut self) -> Result<Vec<(Group, Vec<Link>)>, Error> {
        let mut groups: Vec<(Group, Vec<Link>)> = Vec::new();
        self.dump(GET_LINK_SMCR, "asking for links", |attributes| {
            place(attributes, &mut groups)
        })?;
        Ok(groups)
    }

    /// RDMA devices.
    pub fn devices(&mut self) -> Result<Vec<Device>, Error> {
        let mut devices = Vec::new();
        self.dump(GET_DEV_SMCR, "asking for RDMA devices", |attributes| {
            if let Some(device) = Fields::parse(attributes)?.nest(DEV_SMCR)? {
                devices.push(Device::parse(&device)?);
            }
            Ok(())
        })?;
        Ok(devices)
    }

    /// How many devices and link groups of SMC-D there are; smc_rs has none.
    pub fn smcd_counts(&mut self) -> Result<(usize, usize), Error> {
        let mut count = |command| {
            let mut count = 0;
            self.dump(command, "asking about SMC-D", |_| {
                count += 1;
                Ok(())
            })?;
            Ok::<_, Error>(count)
        };
        Ok((count(GET_DEV_SMCD)?, count(GET_LGR_SMCD)?))
    }

    /// The system enterprise ID and whether it is in use; `None` where there is none.
    pub fn seid(&mut self) -> Result<Option<(String, bool)>, Error> {
        let mut seid = None;
        self.dump(DUMP_SEID, "asking for the system EID", |attributes| {
            let fields = Fields::parse(attributes)?;
            if let Some(name) = fields.text(1).filter(|name| !name.is_empty()) {
                seid = Some((name, fields.u8(2)? != 0));
            }
            Ok(())
        })?;
        Ok(seid)
    }

    /// Takes the system enterprise ID in use, or out of it.
    pub fn set_seid(&mut self, on: bool) -> Result<(), Error> {
        let command = if on { ENABLE_SEID } else { DISABLE_SEID };
        self.call(command, &[])?.map_err(|errno| match errno {
            libc::EOPNOTSUPP => {
                Error::Refused("this kernel has no system EID: it is one of SMC-D".into())
            }
            libc::EPERM => Error::Refused("changing the system EID needs root's rights".into()),
            errno => Error::from_errno("changing the system EID", errno),
        })
    }

    /// Whether listeners answer as TCP where too many handshakes wait.
    pub fn handshakes_limited(&mut self) -> Result<bool, Error> {
        let mut limited = false;
        let what = "asking for the limit of handshakes";
        self.dump(DUMP_HS_LIMITATION, what, |attributes| {
            limited = Fields::parse(attributes)?.u8(1)? != 0;
            Ok(())
        })?;
        Ok(limited)
    }
}

/// A message of `GET_LINK_SMCR`: a group, or a link of the last one.
fn place(attributes: &[u8], groups: &mut Vec<(Group, Vec<Link>)>) -> Result<(), Error> {
    let fields = Fields::parse(attributes)?;
    if let Some(group) = fields.nest(LGR_SMCR)? {
        let group = Group::parse(&group)?;
        // A dump that went on in the next part may name its group again.
        if groups.last().is_none_or(|(last, _)| last.id != group.id) {
            groups.push((group, Vec::new()));
        }
    }
    if let Some(link) = fields.nest(LINK_SMCR)? {
        let (_, links) = groups
            .last_mut()
            .ok_or_else(|| Error::Malformed("a link without a group".into()))?;
        links.push(Link::parse(&link)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{attribute, text_attribute};

    fn nest(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
        attribute(kind | 0x8000, &parts.concat())
    }

    fn u32s(kind: u16, value: u32) -> Vec<u8> {
        attribute(kind, &value.to_ne_bytes())
    }

    fn padded(text: &str) -> String {
        format!("{text:32}")
    }

    fn group_parts() -> Vec<Vec<u8>> {
        vec![
            u32s(1, 0x0102_0300),
            attribute(2, &[1]),
            attribute(3, &[1]),
            text_attribute(4, "NET1"),
            attribute(5, &[7]),
            u32s(6, 5),
            attribute(9, &0x1122_3344_5566_7788u64.to_ne_bytes()),
            attribute(11, &[2]),
            u32s(12, 65536),
            attribute(13, &(1u64 << 33).to_ne_bytes()),
        ]
    }

    fn group() -> Group {
        Group {
            id: 0x0102_0300,
            server: true,
            kind: Redundancy(1),
            pnet_id: "NET1".into(),
            vlan: 7,
            conns: 5,
            v2: None,
            net_cookie: 0x1122_3344_5566_7788,
            buf_type: 2,
            sndbuf_alloc: 65536,
            rmb_alloc: 1 << 33,
        }
    }

    fn parsed_groups(messages: &[Vec<u8>]) -> Result<Vec<(Group, Vec<Link>)>, Error> {
        let mut groups = Vec::new();
        for message in messages {
            place(message, &mut groups)?;
        }
        Ok(groups)
    }

    #[test]
    fn the_host() {
        let host = padded("here");
        let message = nest(
            1,
            &[
                attribute(1, &[2]),
                attribute(2, &[1]),
                attribute(3, &[0]),
                text_attribute(4, &host),
                attribute(6, &[1]),
            ],
        );
        // Once without the helpers: lengths, types, padding.
        assert_eq!(message[..12], [76, 0, 1, 0x80, 5, 0, 1, 0, 2, 0, 0, 0]);
        assert_eq!(
            SystemInfo::parse(&message).unwrap().unwrap(),
            SystemInfo {
                version: 2,
                release: 1,
                ism_v2: false,
                host: "here".into(),
                seid: None,
                smcr_v2: true,
            }
        );
        assert!(SystemInfo::parse(&[]).unwrap().is_none());
    }

    #[test]
    fn link_groups_of_both_versions() {
        let v1 = nest(2, &group_parts());
        let mut parts = group_parts();
        parts[0] = u32s(1, 0x200);
        parts.push(nest(
            7,
            &[
                // The one attribute of type 0.
                attribute(0, &[2]),
                attribute(1, &[1]),
                attribute(2, &[2]),
                text_attribute(3, &padded("SMC-RS.DEFAULT")),
                text_attribute(4, &padded("there")),
            ],
        ));
        parts.push(nest(
            8,
            &[attribute(1, &[1]), attribute(2, &[255]), attribute(3, &[2])],
        ));
        let v2 = nest(2, &parts);
        let got = parsed_groups(&[v1, v2]).unwrap();
        let wanted = Group {
            id: 0x200,
            v2: Some(GroupV2 {
                release: 1,
                os: 2,
                eid: "SMC-RS.DEFAULT".into(),
                peer_host: "there".into(),
                direct: true,
                max_conns: 255,
                max_links: 2,
            }),
            ..group()
        };
        assert_eq!(got, [(group(), vec![]), (wanted, vec![])]);
    }

    #[test]
    fn links_belong_to_the_group_before_them() {
        let link = |number: u8| {
            nest(
                3,
                &[
                    attribute(1, &[number]),
                    text_attribute(2, "mlx5_0"),
                    attribute(3, &[1]),
                    text_attribute(4, "fe80::1"),
                    text_attribute(5, "fe80::2"),
                    u32s(6, 3),
                    u32s(7, 2),
                    attribute(8, &[1, 2, 3, 4]),
                    attribute(9, &[0, 0, 1, 1]),
                    u32s(10, 3),
                ],
            )
        };
        let group_message = nest(2, &group_parts());
        let got = parsed_groups(&[
            group_message.clone(),
            link(1),
            // The next part of the dump.
            group_message,
            link(2),
        ])
        .unwrap();
        let wanted = |id| Link {
            id,
            device: "mlx5_0".into(),
            port: 1,
            gid: "fe80::1".into(),
            peer_gid: "fe80::2".into(),
            conns: 3,
            ifindex: 2,
            uid: 0x0102_0304,
            peer_uid: 0x0101,
            state: LinkState(3),
        };
        assert_eq!(got, [(group(), vec![wanted(1), wanted(2)])]);
        assert!(parsed_groups(&[link(1)]).is_err());
    }

    #[test]
    fn a_device_with_its_ports() {
        let port = |pnet: &str, valid: u8| {
            vec![
                attribute(1, &[1]),
                text_attribute(2, pnet),
                u32s(3, 4),
                attribute(4, &[1]),
                attribute(5, &[valid]),
                u32s(6, 9),
            ]
        };
        let parts = [
            u32s(1, 9),
            attribute(2, &[1]),
            u32s(3, 0x10),
            attribute(4, &0x11u16.to_ne_bytes()),
            attribute(5, &0x15b3u16.to_ne_bytes()),
            attribute(6, &0x1016u16.to_ne_bytes()),
            text_attribute(7, "0000:01:00.0"),
            nest(8, &port("NET1", 0)),
            nest(9, &port("NET2", 1)),
            text_attribute(10, "mlx5_0"),
        ];
        let bytes = parts.concat();
        let got = Device::parse(&Fields::parse(&bytes).unwrap()).unwrap();
        assert_eq!(
            got,
            Device {
                name: "mlx5_0".into(),
                links: 9,
                critical: true,
                pci: Some(Pci {
                    fid: 0x10,
                    pchid: 0x11,
                    vendor: 0x15b3,
                    device: 0x1016,
                    id: "0000:01:00.0".into(),
                }),
                ports: vec![Port {
                    number: 2,
                    pnet_id: "NET2".into(),
                    pnet_by_user: true,
                    ifindex: 4,
                    active: true,
                    links: 9,
                }],
            }
        );
        // One that is on no PCI bus.
        let bytes = text_attribute(10, "rxe0");
        let got = Device::parse(&Fields::parse(&bytes).unwrap()).unwrap();
        assert_eq!((got.pci, got.ports.len()), (None, 0));
    }

    #[test]
    fn what_is_cut_off_is_an_error_and_no_panic() {
        let whole = nest(2, &group_parts());
        for end in 1..whole.len() {
            // A length that is more than there is.
            assert!(parsed_groups(&[whole[..end].to_vec()]).is_err(), "{end}");
        }
        let short = nest(2, &[attribute(1, &[1, 2])]);
        assert!(parsed_groups(&[short]).is_err());
    }

    #[test]
    fn numbers_have_names() {
        let states: Vec<String> = (0..5).map(|n| LinkState(n).to_string()).collect();
        assert_eq!(
            states,
            [
                "LINK_UNUSED",
                "LINK_INACTIVE",
                "LINK_ACTIVATING",
                "LINK_ACTIVE",
                "0x4?"
            ]
        );
        let kinds: Vec<String> = (0..6).map(|n| Redundancy(n).to_string()).collect();
        assert_eq!(kinds, ["NONE", "SINGLE", "SYM", "ASYMP", "ASYML", "0x5?"]);
    }
}
