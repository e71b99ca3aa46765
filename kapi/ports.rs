// SPDX-License-Identifier: GPL-2.0

//! TCP port numbers taken out of use in a network namespace.

use core::ptr::{
    self,
    NonNull, //
};

use kernel::{
    error::to_result,
    prelude::*, //
};

use super::netns::Net;
use crate::bindings;

/// How many consecutive ports a [`PortReservation`] takes.
pub(crate) const PORT_COUNT: u16 = 16;

/// A run of [`PORT_COUNT`] TCP ports (IPv4) that nobody else can bind; dropping it frees them.
///
/// The ports are held by kernel sockets that are bound and do not listen: a connection to one of
/// them is refused. They do not keep the namespace alive, so the reservation must be dropped when
/// the namespace exits.
pub(crate) struct PortReservation {
    sockets: KVec<BoundSocket>,
    inum: u32,
}

impl PortReservation {
    /// Takes the ports from `base` on. May sleep. Logs success.
    ///
    /// # Errors
    ///
    /// The first port that could not be had and why: `EADDRINUSE` if it is in use, `EINVAL` if it is
    /// beyond 65535, `ENOMEM`. Nothing is held then.
    pub(crate) fn take(net: &Net, base: u16) -> Result<Self, (u16, Error)> {
        let mut sockets =
            KVec::with_capacity(usize::from(PORT_COUNT), GFP_KERNEL).map_err(|_| (base, ENOMEM))?;
        for offset in 0..PORT_COUNT {
            let port = base.checked_add(offset).ok_or((base, EINVAL))?;
            let socket = BoundSocket::new(net, port).map_err(|error| (port, error))?;
            sockets
                .push(socket, GFP_KERNEL)
                .map_err(|_| (port, ENOMEM))?;
        }
        pr_info!("netns {} reserved ports for eRDMA OOB\n", net.inum());
        Ok(Self {
            sockets,
            inum: net.inum(),
        })
    }
}

impl Drop for PortReservation {
    fn drop(&mut self) {
        self.sockets.clear();
        pr_info!("netns {} released ports used by eRDMA OOB\n", self.inum);
    }
}

/// A kernel TCP socket that is bound to a port.
///
/// # Invariants
///
/// We own the socket.
struct BoundSocket(NonNull<bindings::socket>);

// SAFETY: A socket may be released by any thread.
unsafe impl Send for BoundSocket {}
// SAFETY: A shared `BoundSocket` offers nothing.
unsafe impl Sync for BoundSocket {}

impl BoundSocket {
    fn new(net: &Net, port: u16) -> Result<Self> {
        let mut socket = ptr::null_mut();
        // SAFETY: The namespace is alive, and `socket` is a place for the result.
        to_result(unsafe {
            bindings::sock_create_kern(
                net.as_ptr(),
                bindings::AF_INET as c_int,
                bindings::sock_type_SOCK_STREAM as c_int,
                bindings::IPPROTO_TCP as c_int,
                &mut socket,
            )
        })?;
        // INVARIANT: `sock_create_kern` gave us the socket.
        let socket = Self(NonNull::new(socket).ok_or(ENOMEM)?);
        let mut address = bindings::sockaddr_in {
            sin_family: bindings::AF_INET as u16,
            sin_port: port.to_be(),
            ..pin_init::zeroed()
        };
        // SAFETY: The socket is ours, and the address is of the length that is named.
        to_result(unsafe {
            bindings::kernel_bind(
                socket.0.as_ptr(),
                (&raw mut address).cast(),
                size_of::<bindings::sockaddr_in>() as c_int,
            )
        })?;
        Ok(socket)
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        // SAFETY: We own the socket, and do not use it any more.
        unsafe { bindings::sock_release(self.0.as_ptr()) };
    }
}
