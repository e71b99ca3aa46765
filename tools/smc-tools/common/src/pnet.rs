// SPDX-License-Identifier: GPL-2.0

//! The table of physical networks (family `SMC_PNETID`): which Ethernet device belongs with which
//! RDMA device.

use crate::genl::Family;
use crate::netlink::{attribute, attributes, text_attribute};
use crate::wire::{printable, u8_at};
use crate::Error;

/// Name of the family.
const FAMILY: &str = "SMC_PNETID";
/// `SMC_PNETID_GET` and so on.
const GET: u8 = 1;
const ADD: u8 = 2;
const DELETE: u8 = 3;
const FLUSH: u8 = 4;
/// Attributes.
const NAME: u16 = 1;
const ETHERNET: u16 = 2;
const RDMA: u16 = 3;
const PORT: u16 = 4;
/// What stands in place of a device or port that an entry does not have.
const NONE: &str = "n/a";
const NO_PORT: u8 = 255;

/// An entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The physical network.
    pub name: String,
    /// The Ethernet device.
    pub ethernet: Option<String>,
    /// The RDMA device.
    pub rdma: Option<String>,
    /// Port of the RDMA device.
    pub port: Option<u8>,
}

/// Reads the entries of a message: each begins with its name.
fn parse(bytes: &[u8], entries: &mut Vec<Entry>) -> Result<(), Error> {
    let mut entry: Option<Entry> = None;
    let named = |text: String| Some(text).filter(|text| text != NONE);
    for attribute in attributes(bytes) {
        let (kind, value) = attribute?;
        if kind == NAME {
            entries.extend(entry.take());
            entry = Some(Entry {
                name: printable(value),
                ..Entry::default()
            });
            continue;
        }
        let entry = entry
            .as_mut()
            .ok_or_else(|| Error::Malformed("an entry without its name".into()))?;
        match kind {
            ETHERNET => entry.ethernet = named(printable(value)),
            RDMA => entry.rdma = named(printable(value)),
            PORT => entry.port = Some(u8_at(value, 0)?).filter(|&port| port != NO_PORT),
            _ => {}
        }
    }
    entries.extend(entry);
    Ok(())
}

/// The table.
pub struct Table {
    family: Family,
}

impl Table {
    /// Finds the module.
    pub fn open() -> Result<Self, Error> {
        Family::open(FAMILY).map(|family| Self { family })
    }

    /// All entries, or those of a network.
    pub fn entries(&mut self, name: Option<&str>) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        let each = |bytes: &[u8]| parse(bytes, &mut entries);
        let outcome = match name {
            None => self.family.dump(GET, each)?,
            Some(name) => self.family.call(GET, &text_attribute(NAME, name), each)?,
        };
        outcome
            .map_err(|errno| refused("asking for the table", name.unwrap_or_default(), errno))?;
        Ok(entries)
    }

    /// Adds an entry.
    pub fn add(&mut self, entry: &Entry) -> Result<(), Error> {
        let outcome = self.family.call(ADD, &request(entry), |_| Ok(()))?;
        outcome.map_err(|errno| refused("adding an entry", &entry.name, errno))
    }

    /// Deletes the entries of a network.
    pub fn delete(&mut self, name: &str) -> Result<(), Error> {
        let request = text_attribute(NAME, name);
        let outcome = self.family.call(DELETE, &request, |_| Ok(()))?;
        outcome.map_err(|errno| refused("deleting an entry", name, errno))
    }

    /// Deletes all.
    pub fn flush(&mut self) -> Result<(), Error> {
        let outcome = self.family.call(FLUSH, &[], |_| Ok(()))?;
        outcome.map_err(|errno| refused("emptying the table", "", errno))
    }
}

fn request(entry: &Entry) -> Vec<u8> {
    let mut bytes = text_attribute(NAME, &entry.name);
    if let Some(ethernet) = &entry.ethernet {
        bytes.extend(text_attribute(ETHERNET, ethernet));
    }
    if let Some(rdma) = &entry.rdma {
        bytes.extend(text_attribute(RDMA, rdma));
        bytes.extend(attribute(PORT, &[entry.port.unwrap_or(1)]));
    }
    bytes
}

fn refused(what: &'static str, name: &str, errno: i32) -> Error {
    Error::Refused(match errno {
        libc::EPERM => format!("{what} needs root's rights (CAP_NET_ADMIN of the host)"),
        libc::EEXIST => {
            format!("the device has a physical network already, by 'smc_pnet' or by its hardware; or {name} names it twice")
        }
        libc::ENOENT => format!("there is no {name}: 'smc_pnet' lists the table"),
        libc::EINVAL | libc::ERANGE => {
            "the kernel does not take it: a PNETID has 1 to 16 letters and digits, the name of an interface at most \
             15 characters, that of an RDMA device at most 63"
                .into()
        }
        errno => return Error::from_errno(what, errno),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, ethernet: Option<&str>, rdma: Option<(&str, u8)>) -> Entry {
        Entry {
            name: name.into(),
            ethernet: ethernet.map(str::to_owned),
            rdma: rdma.map(|(rdma, _)| rdma.to_owned()),
            port: rdma.map(|(_, port)| port),
        }
    }

    #[test]
    fn a_request_that_cannot_be_is_explained() {
        let words = refused("adding an entry", "b@d", libc::EINVAL).to_string();
        assert!(words.contains("1 to 16 letters and digits"), "{words}");
        assert!(
            !words.contains("namespace"),
            "RDMA devices may be named in any: {words}"
        );
    }

    #[test]
    fn a_request_has_what_is_named() {
        let got = request(&entry("NET1", Some("eth0"), Some(("mlx5_0", 2))));
        let mut wanted = Vec::new();
        wanted.extend([9, 0, 1, 0, b'N', b'E', b'T', b'1', 0, 0, 0, 0]);
        wanted.extend([9, 0, 2, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0]);
        wanted.extend([11, 0, 3, 0, b'm', b'l', b'x', b'5', b'_', b'0', 0, 0]);
        wanted.extend([5, 0, 4, 0, 2, 0, 0, 0]);
        assert_eq!(got, wanted);
        let got = request(&entry("N", Some("e"), None));
        assert_eq!(got, [6, 0, 1, 0, b'N', 0, 0, 0, 6, 0, 2, 0, b'e', 0, 0, 0]);
    }

    #[test]
    fn entries_follow_each_other_in_one_message() {
        let message = [
            text_attribute(NAME, "NET1"),
            text_attribute(ETHERNET, "eth0"),
            text_attribute(RDMA, "n/a"),
            attribute(PORT, &[255]),
            text_attribute(NAME, "NET1"),
            text_attribute(ETHERNET, "n/a"),
            text_attribute(RDMA, "rxe0"),
            attribute(PORT, &[1]),
        ]
        .concat();
        let mut got = Vec::new();
        parse(&message, &mut got).unwrap();
        assert_eq!(
            got,
            [
                entry("NET1", Some("eth0"), None),
                entry("NET1", None, Some(("rxe0", 1)))
            ]
        );
        assert!(parse(&text_attribute(ETHERNET, "eth0"), &mut got).is_err());
        assert!(parse(&message[..7], &mut got).is_err());
    }

    #[test]
    fn refusals_are_one_line() {
        for errno in [
            libc::EPERM,
            libc::EEXIST,
            libc::ENOENT,
            libc::EINVAL,
            libc::EIO,
        ] {
            let text = refused("adding", "X", errno).to_string();
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }
}
