// SPDX-License-Identifier: GPL-2.0

//! Network devices: their numbers and names in the process's network namespace.

use std::ffi::{CStr, CString};

/// The name of the device with an index; `None` if there is no such device here.
pub fn name(index: u32) -> Option<String> {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: `name` is alive, writable and as long as a name with its zero may be.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: where it succeeds it has written a C string into `name`, which is still alive.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    Some(name.to_string_lossy().into_owned())
}

/// The index of the device with a name; `None` if there is no such device here.
pub fn index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: `name` is a C string, alive during the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_there() {
        let lo = index("lo").unwrap();
        assert_eq!(name(lo).as_deref(), Some("lo"));
        assert_eq!(index("no such name, too long"), None);
        assert_eq!(index("l\0o"), None);
        assert_eq!(name(u32::MAX), None);
    }
}
