// SPDX-License-Identifier: GPL-2.0

//! User-defined enterprise IDs: hosts that have one in common use SMC-Rv2 with each other.

use crate::netlink::{text_attribute, Fields};
use crate::smc::Smc;
use crate::Error;

/// `SMC_NETLINK_DUMP_UEID` and so on.
const DUMP: u8 = 9;
const ADD: u8 = 10;
const REMOVE: u8 = 11;
const FLUSH: u8 = 12;
/// `SMC_NLA_EID_TABLE_ENTRY`.
const ENTRY: u16 = 1;
/// Characters of an ID, padded with blanks.
const LENGTH: usize = 32;

/// An ID that may be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ueid(String);

impl Ueid {
    /// Checks what the kernel would refuse, to say what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name = text.trim_end();
        if name.len() > LENGTH {
            return Err(format!("is longer than {LENGTH} characters"));
        }
        if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            return Err("does not begin with a letter or digit".into());
        }
        if name.contains("..") {
            return Err("has two dots in a row".into());
        }
        let allowed =
            |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
        if let Some(wrong) = name.chars().find(|&c| !allowed(c)) {
            return Err(format!(
                "has '{}' in it: it may have A-Z, 0-9, '.' and '-'",
                wrong.escape_default()
            ));
        }
        Ok(Self(name.into()))
    }

    fn attribute(&self) -> Vec<u8> {
        text_attribute(ENTRY, &format!("{:LENGTH$}", self.0))
    }
}

impl Smc {
    /// The IDs of the network namespace.
    pub fn ueids(&mut self) -> Result<Vec<String>, Error> {
        let mut all = Vec::new();
        self.dump(DUMP, "asking for the enterprise IDs", |attributes| {
            all.extend(Fields::parse(attributes)?.text(ENTRY));
            Ok(())
        })?;
        Ok(all)
    }

    /// Adds one.
    pub fn add_ueid(&mut self, ueid: &Ueid) -> Result<(), Error> {
        let outcome = self.call(ADD, &ueid.attribute())?;
        outcome.map_err(|errno| refused("adding an enterprise ID", &ueid.0, errno))
    }

    /// Removes one.
    pub fn remove_ueid(&mut self, ueid: &Ueid) -> Result<(), Error> {
        let outcome = self.call(REMOVE, &ueid.attribute())?;
        outcome.map_err(|errno| refused("removing an enterprise ID", &ueid.0, errno))
    }

    /// Removes all.
    pub fn flush_ueids(&mut self) -> Result<(), Error> {
        let outcome = self.call(FLUSH, &[])?;
        outcome.map_err(|errno| refused("removing the enterprise IDs", "", errno))
    }
}

fn refused(what: &'static str, ueid: &str, errno: i32) -> Error {
    Error::Refused(match errno {
        libc::EPERM => format!("{what} needs root's rights (CAP_NET_ADMIN of the host)"),
        libc::EEXIST => format!("{ueid} is there already"),
        libc::ENOENT => format!("there is no {ueid}: 'smcr ueid show' lists those that are"),
        libc::ERANGE => {
            format!("no room for {ueid}: there are as many as there can be, remove one first")
        }
        libc::EINVAL => format!("the kernel does not take {ueid} for an enterprise ID"),
        errno => return Error::from_errno(what, errno),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_goes_to_the_kernel_padded_to_33_bytes() {
        let bytes = Ueid::parse("ABC.1-2").unwrap().attribute();
        let mut wanted = vec![37, 0, 1, 0];
        wanted.extend(*b"ABC.1-2                         \0\0\0\0");
        assert_eq!(bytes, wanted);
    }

    #[test]
    fn what_is_no_id_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "begin"),
            ("   ", "begin"),
            (".A", "begin"),
            ("A..B", "two dots"),
            ("abc", "'a'"),
            ("A B", "' '"),
            ("Ä", "begin"),
            ("A\n.", "'\\n'"),
            ("A23456789012345678901234567890123", "longer"),
        ] {
            let error = Ueid::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(Ueid::parse("A2345678901234567890123456789012").is_ok());
        assert_eq!(Ueid::parse("A   "), Ueid::parse("A"));
    }

    #[test]
    fn refusals_say_what_to_do() {
        for errno in [
            libc::EPERM,
            libc::EEXIST,
            libc::ENOENT,
            libc::ERANGE,
            libc::EINVAL,
            libc::ENOMEM,
        ] {
            let text = refused("adding", "X", errno).to_string();
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }
}
