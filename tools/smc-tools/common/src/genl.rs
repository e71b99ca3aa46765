// SPDX-License-Identifier: GPL-2.0

//! Generic netlink (`linux/genetlink.h`): families are found by name, and have commands.

use crate::netlink::{self, text_attribute, Fields, Socket};
use crate::Error;

/// `GENL_ID_CTRL`: the family that knows the others.
const CONTROLLER: u16 = 16;
/// `CTRL_CMD_GETFAMILY`.
const GET_FAMILY: u8 = 3;
/// `CTRL_ATTR_FAMILY_ID`, `CTRL_ATTR_FAMILY_NAME`.
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Bytes of a `struct genlmsghdr`: command, version, two of padding.
const HEADER: usize = 4;
/// Version of both of SMC's families.
const VERSION: u8 = 1;

/// A family of the kernel's.
pub struct Family {
    socket: Socket,
    id: u16,
}

impl Family {
    /// Looks it up; [`Error::NotLoaded`] if the kernel does not have it and no module brings it.
    pub fn open(name: &str) -> Result<Self, Error> {
        let mut socket = Socket::open(libc::NETLINK_GENERIC)?;
        let mut id = None;
        let request = request(GET_FAMILY, &text_attribute(FAMILY_NAME, name));
        let outcome = socket.call(CONTROLLER, &request, |_, body| {
            let body = body.get(HEADER..).unwrap_or_default();
            id = Some(Fields::parse(body)?.u16(FAMILY_ID)?);
            Ok(())
        })?;
        match (outcome, id) {
            (Ok(()), Some(id)) => Ok(Self { socket, id }),
            (Ok(()), None) => Err(Error::Malformed(format!("no number of family {name}"))),
            (Err(libc::ENOENT), _) => Err(Error::NotLoaded),
            (Err(errno), _) => Err(Error::from_errno("looking for the SMC module", errno)),
        }
    }

    /// Asks for a list: the attributes of each message go to `each`. `Err(errno)` inside if the
    /// kernel refuses.
    pub fn dump(
        &mut self,
        command: u8,
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<Result<(), i32>, Error> {
        let flags = netlink::REQUEST | netlink::DUMP;
        let request = request(command, &[]);
        self.socket.list(self.id, flags, &request, |_, body| {
            each(body.get(HEADER..).unwrap_or_default())
        })
    }

    /// Has something done or told, likewise.
    pub fn call(
        &mut self,
        command: u8,
        attributes: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<Result<(), i32>, Error> {
        let request = request(command, attributes);
        self.socket.call(self.id, &request, |_, body| {
            each(body.get(HEADER..).unwrap_or_default())
        })
    }
}

fn request(command: u8, attributes: &[u8]) -> Vec<u8> {
    let mut request = vec![command, VERSION, 0, 0];
    request.extend(attributes);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_laid_out_as_the_kernel_reads_it() {
        let got = request(3, &text_attribute(2, "nlctrl"));
        let mut wanted = vec![3, 1, 0, 0];
        wanted.extend(11u16.to_ne_bytes());
        wanted.extend(2u16.to_ne_bytes());
        wanted.extend(*b"nlctrl\0\0");
        assert_eq!(got, wanted);
    }

    #[test]
    fn the_kernel_knows_its_own_family_and_no_other() {
        let family = Family::open("nlctrl").unwrap();
        assert_eq!(family.id, CONTROLLER);
        assert!(matches!(
            Family::open("no_such_family"),
            Err(Error::NotLoaded)
        ));
    }

    #[test]
    fn families_are_listed_and_a_wrong_command_is_refused() {
        let mut family = Family::open("nlctrl").unwrap();
        let mut names = Vec::new();
        let outcome = family.dump(GET_FAMILY, |attributes| {
            names.extend(Fields::parse(attributes)?.text(FAMILY_NAME));
            Ok(())
        });
        outcome.unwrap().unwrap();
        assert!(names.iter().any(|name| name == "nlctrl"), "{names:?}");
        let refused = family.call(200, &[], |_| panic!("an answer"));
        assert_eq!(refused.unwrap(), Err(libc::EOPNOTSUPP));
    }
}
