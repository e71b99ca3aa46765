// SPDX-License-Identifier: GPL-2.0

//! Registration of a socket protocol: an address family of its own, and a protocol number under
//! `AF_INET` and `AF_INET6`.

use super::{
    clcsock::SOCK_STREAM,
    global::{
        Global,
        GlobalGuard, //
    },
    proto_ops,
    sock::{
        Protocol,
        Sock, //
    },
    sock_table::SocketTable,
    version, //
};
use crate::bindings;
use crate::kapi::prelude::*;
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::MaybeUninit,
    ptr, //
};
use kernel::{
    error::to_result,
    ffi::c_int,
    sync::Arc, //
};

/// The kinds of sockets that a [`Tables`] registers.
#[derive(Clone, Copy)]
enum Kind {
    /// Own family, protocol 0: IPv4.
    V4 = 0,
    /// Own family, protocol 1: IPv6.
    V6 = 1,
    /// `AF_INET` with the protocol number.
    Inet = 2,
    /// `AF_INET6` with the protocol number.
    Inet6 = 3,
}

const KINDS: usize = 4;

/// The C tables of protocol `T`; they live in a `static`.
pub(crate) struct Tables<T: Protocol> {
    ops: UnsafeCell<MaybeUninit<[bindings::proto_ops; KINDS]>>,
    protos: UnsafeCell<MaybeUninit<[bindings::proto; KINDS]>>,
    switches: UnsafeCell<MaybeUninit<[bindings::inet_protosw; 2]>>,
    family: UnsafeCell<MaybeUninit<bindings::net_proto_family>>,
    sockets: Global<SocketTable<T>>,
    _protocol: PhantomData<fn(T)>,
}

// SAFETY: The tables are written by `register`, before the kernel knows them, and then belong to
// the kernel, which has its own locks.
unsafe impl<T: Protocol> Sync for Tables<T> {}

/// Names and numbers of a protocol.
pub(crate) struct Names {
    /// Own address family.
    pub(crate) family: c_int,
    /// Protocol number under `AF_INET` and `AF_INET6`.
    pub(crate) protocol: u16,
    /// Names in `/proc/net/protocols`, in the order of own family v4, v6, `AF_INET`, `AF_INET6`.
    pub(crate) protos: [&'static str; KINDS],
}

impl<T: Protocol> Tables<T> {
    /// Empty tables.
    pub(crate) const fn new() -> Self {
        Self {
            ops: UnsafeCell::new(MaybeUninit::zeroed()),
            protos: UnsafeCell::new(MaybeUninit::zeroed()),
            switches: UnsafeCell::new(MaybeUninit::zeroed()),
            family: UnsafeCell::new(MaybeUninit::zeroed()),
            sockets: Global::new(),
            _protocol: PhantomData,
        }
    }

    fn ops(&self, kind: Kind) -> *mut bindings::proto_ops {
        // The four kinds are the indices of the array.
        self.ops
            .get()
            .cast::<bindings::proto_ops>()
            .wrapping_add(kind as usize)
    }

    fn proto(&self, kind: Kind) -> *mut bindings::proto {
        self.protos
            .get()
            .cast::<bindings::proto>()
            .wrapping_add(kind as usize)
    }

    fn switch(&self, kind: Kind) -> *mut bindings::inet_protosw {
        self.switches
            .get()
            .cast::<bindings::inet_protosw>()
            .wrapping_add(match kind {
                Kind::Inet6 => 1,
                _ => 0,
            })
    }

    /// All sockets of the protocol; `None` if it is not registered.
    pub(super) fn sockets(&self) -> Option<Arc<SocketTable<T>>> {
        self.sockets.get()
    }

    /// Registers everything; dropping the result unregisters it. To be called once, from module
    /// initialisation.
    pub(crate) fn register(&'static self, names: &Names) -> Result<Registration<T>> {
        let owner = version::this_module();
        let mut registration = Registration {
            tables: self,
            protos: 0,
            family: None,
            switches: 0,
            _sockets: self.sockets.publish(SocketTable::new()?),
        };
        let kinds = [Kind::V4, Kind::V6, Kind::Inet, Kind::Inet6];
        for (kind, name) in kinds.into_iter().zip(names.protos) {
            let family = match kind {
                Kind::V4 | Kind::V6 => names.family,
                Kind::Inet => bindings::AF_INET as c_int,
                Kind::Inet6 => bindings::AF_INET6 as c_int,
            };
            // SAFETY: The tables are not registered yet, so nobody else reads or writes them;
            // they are plain old data, for which all zeroes is valid.
            unsafe {
                *self.ops(kind) = proto_ops::table::<T>(family, owner);
                let proto = &mut *self.proto(kind);
                for (to, from) in proto.name.iter_mut().zip(name.bytes()) {
                    *to = from as _;
                }
                proto.owner = owner;
                proto.obj_size = Sock::<T>::SIZE as u32;
                proto.ipv6_pinfo_offset = Sock::<T>::PINFO_OFFSET as u32;
                proto.hash = Some(hash);
                proto.unhash = Some(unhash);
                proto.ioctl = Some(proto_ops::kernel_ioctl::<T>);
                if matches!(kind, Kind::Inet | Kind::Inet6) {
                    proto.init = Some(inet_init::<T>);
                }
                to_result(bindings::proto_register(proto, 1))?;
            }
            registration.protos += 1;
        }
        // SAFETY: As above.
        unsafe {
            let family = self.family.get().cast::<bindings::net_proto_family>();
            (*family).family = names.family;
            (*family).create = Some(create::<T>);
            (*family).owner = owner;
            to_result(bindings::sock_register(family))?;
        }
        registration.family = Some(names.family);
        for kind in [Kind::Inet, Kind::Inet6] {
            // SAFETY: As above; the tables that the switch points to live in the same `static`.
            unsafe {
                let switch = self.switch(kind);
                (*switch).type_ = SOCK_STREAM as u16;
                (*switch).protocol = names.protocol;
                (*switch).prot = self.proto(kind);
                (*switch).ops = self.ops(kind);
                match kind {
                    Kind::Inet6 => to_result(bindings::inet6_register_protosw(switch))?,
                    _ => bindings::inet_register_protosw(switch),
                }
            }
            registration.switches += 1;
        }
        Ok(registration)
    }
}

/// A registered protocol.
pub(crate) struct Registration<T: Protocol> {
    tables: &'static Tables<T>,
    protos: usize,
    family: Option<c_int>,
    switches: usize,
    /// Goes last, after [`Self::drop`].
    _sockets: GlobalGuard<SocketTable<T>>,
}

// SAFETY: Unregistering may happen on any thread.
unsafe impl<T: Protocol> Send for Registration<T> {}
// SAFETY: There is nothing to do through a shared reference.
unsafe impl<T: Protocol> Sync for Registration<T> {}

impl<T: Protocol> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: Only what `register` registered is unregistered, in reverse order. A module is
        // unloaded only when no socket of it exists any more.
        unsafe {
            if self.switches > 1 {
                bindings::inet6_unregister_protosw(self.tables.switch(Kind::Inet6));
            }
            if self.switches > 0 {
                bindings::inet_unregister_protosw(self.tables.switch(Kind::Inet));
            }
            if let Some(family) = self.family {
                bindings::sock_unregister(family);
            }
            let kinds = [Kind::V4, Kind::V6, Kind::Inet, Kind::Inet6];
            for kind in kinds.into_iter().take(self.protos).rev() {
                bindings::proto_unregister(self.tables.proto(kind));
            }
        }
    }
}

/// `net_proto_family::create`: a socket of the own family.
unsafe extern "C" fn create<T: Protocol>(
    net: *mut bindings::net,
    sock: *mut bindings::socket,
    protocol: c_int,
    kern: c_int,
) -> c_int {
    let tables = T::tables();
    // SAFETY: The kernel passes a new socket that is ours until we return.
    unsafe {
        if c_int::from((*sock).type_) != SOCK_STREAM {
            return ESOCKTNOSUPPORT.to_errno();
        }
        let (kind, clc_family) = match protocol {
            0 => (Kind::V4, bindings::AF_INET),
            1 => (Kind::V6, bindings::AF_INET6),
            _ => return EPROTONOSUPPORT.to_errno(),
        };
        (*sock).ops = tables.ops(kind);
        (*sock).state = bindings::socket_state_SS_UNCONNECTED;
        let sk = bindings::sk_alloc(
            net,
            (*tables.family.get().cast::<bindings::net_proto_family>()).family,
            bindings::GFP_KERNEL,
            tables.proto(kind),
            kern,
        );
        if sk.is_null() {
            return ENOMEM.to_errno();
        }
        bindings::sock_init_data(sock, sk);
        (*sk).sk_protocol = protocol as u16;
        let made = Sock::<T>::set_up(sk, clc_family as c_int)
            .and_then(|()| T::created(Sock::<T>::from_raw(sk)));
        if let Err(err) = made {
            bindings::sock_orphan(sk);
            (*sock).sk = ptr::null_mut();
            bindings::sock_put(sk);
            return err.to_errno();
        }
        0
    }
}

/// `proto::init`: the rest of a socket that `inet_create` or `inet6_create` made.
unsafe extern "C" fn inet_init<T: Protocol>(sk: *mut bindings::sock) -> c_int {
    // SAFETY: The kernel passes a new socket of one of our `proto`s; on failure it is released
    // through its reference count, and `destruct` copes with a socket that is not set up.
    unsafe {
        let family = c_int::from((*sk).__sk_common.skc_family);
        match Sock::<T>::set_up(sk, family).and_then(|()| T::created(Sock::<T>::from_raw(sk))) {
            Ok(()) => 0,
            Err(err) => err.to_errno(),
        }
    }
}

unsafe extern "C" fn hash(_sk: *mut bindings::sock) -> c_int {
    0
}

unsafe extern "C" fn unhash(_sk: *mut bindings::sock) {}
