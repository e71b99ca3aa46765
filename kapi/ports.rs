// SPDX-License-Identifier: GPL-2.0

//! TCP port numbers taken out of use in a network namespace.

use core::ptr::{
    self,
    NonNull, //
};

use crate::kapi::prelude::*;
use kernel::{
    error::to_result,
    fmt, new_mutex,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    },
};

use super::{
    global::{
        Global,
        GlobalGuard, //
    },
    netns::{
        Net,
        Pernet,
        PernetData,
        PernetKey, //
    },
};
use crate::bindings;

/// How many consecutive ports a reservation takes.
pub(crate) const PORT_COUNT: u16 = 16;

/// Which namespaces need the ports.
pub(crate) trait Demand: Send + Unpin + Sized + 'static {
    /// Where the reservations of this demand are found: statics, made for this type.
    fn statics() -> &'static Statics<Self>;

    /// Whether the ports are needed in `net` at present. May sleep.
    fn wants(&self, net: &Net) -> bool;
}

/// See [`Demand::statics`].
pub(crate) struct Statics<D: Demand> {
    all: Global<Reservations<D>>,
    key: PernetKey<Member<D>>,
}

impl<D: Demand> Statics<D> {
    /// Nothing is reserved.
    pub(crate) const fn new() -> Self {
        Self {
            all: Global::new(),
            key: PernetKey::new(),
        }
    }
}

/// Ports could not be reserved. Shown as a sentence for the log.
#[derive(Clone, Copy)]
pub(crate) struct Clash {
    port: u16,
    inum: u32,
    error: Error,
}

impl Clash {
    /// Why: `EADDRINUSE` if somebody else has the port.
    pub(crate) fn error(&self) -> Error {
        self.error
    }
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { port, inum, error } = self;
        if *error == EADDRINUSE {
            write!(f, "TCP port {port} is in use in netns {inum}")
        } else {
            let errno = error.to_errno();
            write!(
                f,
                "TCP port {port} cannot be reserved in netns {inum} (error {errno})"
            )
        }
    }
}

/// The reservations of all namespaces: exactly those hold one that the demand wants to, as far as
/// the ports can be had.
///
/// One lock covers the demand and all namespaces, so that none is left out when devices and
/// namespaces come and go at the same time.
#[pin_data]
pub(crate) struct Reservations<D> {
    base: u16,
    #[pin]
    table: Mutex<Table<D>>,
}

/// # Invariants
///
/// The entries are of namespaces whose [`PernetData::exit`] has not run: that takes the lock to
/// remove its entry, so `net` is not freed as long as the lock is held.
struct Table<D> {
    demand: D,
    /// Whether reservations are reported in the log.
    announced: bool,
    entries: KVec<Entry>,
}

struct Entry {
    net: NonNull<bindings::net>,
    held: Option<PortReservation>,
}

// SAFETY: The namespace is used as the invariants of `Table` say, which do not depend on the thread.
unsafe impl Send for Entry {}

impl Entry {
    /// The namespace, unless it waits for its end.
    ///
    /// # Safety
    ///
    /// The lock of the table must be held, and the entry part of it.
    unsafe fn net(&self) -> Option<ARef<Net>> {
        // SAFETY: The caller holds the lock, so the namespace has not been freed, by the invariants
        // of `Table`.
        let held = NonNull::new(unsafe { bindings::maybe_get_net(self.net.as_ptr()) })?;
        // SAFETY: This reference was just taken. `Net` is a transparent wrapper.
        Some(unsafe { ARef::from_raw(held.cast()) })
    }
}

/// A namespace's membership in the table.
pub(crate) struct Member<D: Demand> {
    all: Arc<Reservations<D>>,
    net: NonNull<bindings::net>,
}

// SAFETY: `net` is only compared.
unsafe impl<D: Demand> Send for Member<D> {}
// SAFETY: As above.
unsafe impl<D: Demand> Sync for Member<D> {}

impl<D: Demand> PernetData for Member<D> {
    fn key() -> &'static PernetKey<Self> {
        &D::statics().key
    }

    fn new(net: &Net) -> Result<Arc<Self>> {
        let all = Keeper::<D>::find().ok_or(ENODEV)?;
        let raw = NonNull::new(net.as_ptr()).ok_or(EINVAL)?;
        let member = Arc::new(
            Self {
                all: all.clone(),
                net: raw,
            },
            GFP_KERNEL,
        )?;
        let mut table = all.table.lock();
        table.entries.reserve(1, GFP_KERNEL)?;
        let mut held = None;
        if table.demand.wants(net) {
            match PortReservation::take(net, all.base, table.announced) {
                Ok(reservation) => held = Some(reservation),
                // A namespace that nobody uses yet: only for want of memory. That it cannot use
                // the devices is no reason not to have it.
                Err(clash) => pr_warn!("{clash}: eRDMA cannot be used there\n"),
            }
        }
        // INVARIANT: `exit` will run for this namespace, since nothing fails from here on.
        table.entries.push(Entry { net: raw, held }, GFP_KERNEL)?;
        drop(table);
        Ok(member)
    }

    fn exit(&self) {
        let mut table = self.all.table.lock();
        let index = table.entries.iter().position(|entry| entry.net == self.net);
        // The reservation is dropped within the lock: the namespace is still there.
        if let Some(Ok(entry)) = index.map(|index| table.entries.remove(index)) {
            drop(entry);
        }
    }
}

/// Keeps the reservations; dropping it gives all ports back.
pub(crate) struct Keeper<D: Demand> {
    // In this order: the namespaces look for the reservations as long as they are members.
    _members: Pernet<Member<D>>,
    all: Arc<Reservations<D>>,
    _global: GlobalGuard<Reservations<D>>,
}

impl<D: Demand> Keeper<D> {
    /// Starts, with ports from `base` on. Nothing is reported until [`Reservations::announce`]. May
    /// sleep.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are not [`PORT_COUNT`] ports from `base` on; `EBUSY` if there is another
    /// keeper; `ENOMEM`.
    pub(crate) fn start(base: u16, demand: D) -> Result<Self> {
        // Port 0 would mean any port.
        if base == 0 || base.checked_add(PORT_COUNT - 1).is_none() {
            return Err(EINVAL);
        }
        let all = Arc::pin_init(
            pin_init!(Reservations {
                base,
                table <- new_mutex!(
                    Table { demand, announced: false, entries: KVec::new() },
                    "Reservations::table"
                ),
            }),
            GFP_KERNEL,
        )?;
        let global = D::statics().all.publish(all.clone());
        Ok(Self {
            _members: Pernet::register()?,
            all,
            _global: global,
        })
    }

    /// The reservations of the keeper that there is, if any. Any context.
    pub(crate) fn find() -> Option<Arc<Reservations<D>>> {
        D::statics().all.get()
    }

    /// The reservations.
    pub(crate) fn reservations(&self) -> &Arc<Reservations<D>> {
        &self.all
    }
}

impl<D: Demand> Reservations<D> {
    /// Changes the demand, and reserves and releases what that means. May sleep.
    ///
    /// Returns the first clash, if there is one. The other namespaces have their ports then; the
    /// next change tries again.
    ///
    /// # Errors
    ///
    /// The error of `change`; then nothing else has happened.
    pub(crate) fn change(&self, change: impl FnOnce(&mut D) -> Result) -> Result<Option<Clash>> {
        let mut table = self.table.lock();
        let table = &mut *table;
        change(&mut table.demand)?;
        let mut first = None;
        for entry in table.entries.iter_mut() {
            // SAFETY: The lock is held, and the entry is one of the table's.
            let Some(net) = (unsafe { entry.net() }) else {
                continue;
            };
            if !table.demand.wants(&net) {
                entry.held = None;
            } else if entry.held.is_none() {
                match PortReservation::take(&net, self.base, table.announced) {
                    Ok(reservation) => entry.held = Some(reservation),
                    Err(clash) => first = first.or(Some(clash)),
                }
            }
        }
        Ok(first)
    }

    /// Reports the reservations in the log, those that there are now and those to come.
    pub(crate) fn announce(&self) {
        let mut table = self.table.lock();
        table.announced = true;
        for entry in table.entries.iter_mut() {
            if let Some(held) = &mut entry.held {
                held.announce();
            }
        }
    }

    /// Looks at the demand. May sleep.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut D) -> R) -> R {
        f(&mut self.table.lock().demand)
    }
}

/// A run of [`PORT_COUNT`] TCP ports (IPv4) that nobody else can bind; dropping it frees them.
///
/// The ports are held by kernel sockets that are bound and do not listen: a connection to one of
/// them is refused. They do not keep the namespace alive, so the reservation must be dropped when
/// the namespace exits.
struct PortReservation {
    sockets: KVec<BoundSocket>,
    inum: u32,
    announced: bool,
}

impl PortReservation {
    /// Takes the ports from `base` on, all of them or none. May sleep.
    fn take(net: &Net, base: u16, announce: bool) -> Result<Self, Clash> {
        let inum = net.inum();
        let clash = |port, error| Clash { port, inum, error };
        let mut sockets = KVec::with_capacity(usize::from(PORT_COUNT), GFP_KERNEL)
            .map_err(|_| clash(base, ENOMEM))?;
        for offset in 0..PORT_COUNT {
            let port = base.checked_add(offset).ok_or(clash(base, EINVAL))?;
            let socket = BoundSocket::new(net, port).map_err(|error| clash(port, error))?;
            sockets
                .push(socket, GFP_KERNEL)
                .map_err(|_| clash(port, ENOMEM))?;
        }
        let mut reservation = Self {
            sockets,
            inum,
            announced: false,
        };
        if announce {
            reservation.announce();
        }
        Ok(reservation)
    }

    /// Reports the reservation in the log, and its end.
    fn announce(&mut self) {
        pr_info!("netns {} reserved ports for eRDMA OOB\n", self.inum);
        self.announced = true;
    }
}

impl Drop for PortReservation {
    fn drop(&mut self) {
        self.sockets.clear();
        if self.announced {
            pr_info!("netns {} released ports used by eRDMA OOB\n", self.inum);
        }
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
