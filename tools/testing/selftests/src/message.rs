//! `sendmsg` and `recvmsg` with control messages.

use crate::sys::{cvt_size, Sock};
use std::io;
use std::mem::zeroed;
use std::os::fd::AsRawFd;

/// A control message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    pub level: i32,
    pub kind: i32,
    pub data: Vec<u8>,
}

/// What `recvmsg` gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub count: usize,
    pub flags: i32,
    pub control: Vec<Control>,
}

impl Received {
    /// The data of a control message.
    pub fn find(&self, level: i32, kind: i32) -> Option<&[u8]> {
        self.control
            .iter()
            .find(|control| (control.level, control.kind) == (level, kind))
            .map(|control| control.data.as_slice())
    }
}

pub fn receive(sock: &Sock, data: &mut [u8], flags: i32) -> io::Result<Received> {
    let mut room = [0u64; 64];
    let mut part = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: data.len(),
    };
    // SAFETY: all zeroes is a valid msghdr.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = room.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&room);
    // SAFETY: the header describes memory that is valid for the call.
    let count = cvt_size(unsafe { libc::recvmsg(sock.as_raw_fd(), &raw mut header, flags) })?;
    let mut control = Vec::new();
    // SAFETY: the header is as the kernel has left it, and the room it points to is there.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(&raw const header);
        while !next.is_null() {
            let begin = libc::CMSG_DATA(next);
            let length = (*next).cmsg_len - (begin as usize - next as usize);
            control.push(Control {
                level: (*next).cmsg_level,
                kind: (*next).cmsg_type,
                data: std::slice::from_raw_parts(begin, length).to_vec(),
            });
            next = libc::CMSG_NXTHDR(&raw const header, next);
        }
    }
    Ok(Received {
        count,
        flags: header.msg_flags,
        control,
    })
}

/// Sends with one control message.
pub fn send(sock: &Sock, data: &[u8], flags: i32, control: &Control) -> io::Result<usize> {
    let mut room = [0u64; 32];
    let mut part = libc::iovec {
        iov_base: data.as_ptr().cast_mut().cast(),
        iov_len: data.len(),
    };
    // SAFETY: all zeroes is a valid msghdr.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = room.as_mut_ptr().cast();
    let length = control.data.len() as u32;
    // SAFETY: the room is larger than any control message here, and zeroed.
    unsafe {
        header.msg_controllen = libc::CMSG_SPACE(length) as usize;
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        (*first).cmsg_len = libc::CMSG_LEN(length) as usize;
        (*first).cmsg_level = control.level;
        (*first).cmsg_type = control.kind;
        std::ptr::copy_nonoverlapping(
            control.data.as_ptr(),
            libc::CMSG_DATA(first),
            control.data.len(),
        );
    }
    // SAFETY: the header describes memory that is valid for the call.
    cvt_size(unsafe { libc::sendmsg(sock.as_raw_fd(), &raw const header, flags) })
}
