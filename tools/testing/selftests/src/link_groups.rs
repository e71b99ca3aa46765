//! The link groups of a network namespace, and their links, as `SMC_NETLINK_GET_LINK_SMCR` shows them.

use crate::genl::{self, Attrs, Client};
use crate::{Fail, Outcome};

/// The attribute that a message about a group has.
const LGR_SMCR: u16 = 2;
/// The same of a link.
const LINK_SMCR: u16 = 3;

/// Attributes of a group (`SMC_NLA_LGR_R_*` of `linux/smc.h`).
pub mod lgr {
    pub const ID: u16 = 1;
    /// 0 is the client, 1 the server.
    pub const ROLE: u16 = 2;
    /// `enum smc_lgr_type`.
    pub const TYPE: u16 = 3;
    pub const PNETID: u16 = 4;
    pub const VLAN_ID: u16 = 5;
    pub const CONNS_NUM: u16 = 6;
    /// A nest of what SMC-Rv2 alone has.
    pub const R_V2: u16 = 8;
    /// In that: 0 if there is a gateway in between.
    pub const R_V2_DIRECT: u16 = 1;
}

/// Attributes of a link (`SMC_NLA_LINK_*`).
mod link {
    pub const IB_DEV: u16 = 2;
    pub const CONN_CNT: u16 = 6;
    pub const STATE: u16 = 10;
    /// `SMC_LNK_ACTIVE`.
    pub const ACTIVE: u64 = 3;
}

/// A link group.
pub struct LinkGroup {
    pub attrs: Attrs,
    pub links: Vec<Link>,
}

/// A link.
#[derive(Debug, PartialEq, Eq)]
pub struct Link {
    pub device: String,
    pub conns: u64,
    pub active: bool,
}

/// Those of the namespace that the caller is in.
pub fn here() -> Outcome<Vec<LinkGroup>> {
    let mut groups: Vec<LinkGroup> = Vec::new();
    for message in Client::new(genl::SMC_GEN)?.dump(genl::GET_LINK_SMCR)? {
        if message.command == genl::GET_LGR_SMCR {
            groups.push(LinkGroup {
                attrs: message.attrs.nest(LGR_SMCR)?,
                links: Vec::new(),
            });
            continue;
        }
        let attrs = message.attrs.nest(LINK_SMCR)?;
        let group = groups
            .last_mut()
            .ok_or_else(|| Fail("a link without a group".into()))?;
        group.links.push(Link {
            device: attrs.text(link::IB_DEV)?,
            conns: attrs.number(link::CONN_CNT)?,
            active: attrs.number(link::STATE)? == link::ACTIVE,
        });
    }
    Ok(groups)
}

/// An attribute of each of them.
pub fn each<T>(read: impl Fn(&Attrs) -> std::io::Result<T>) -> Outcome<Vec<T>> {
    let all = here()?;
    Ok(all
        .iter()
        .map(|group| read(&group.attrs))
        .collect::<Result<_, _>>()?)
}
