// SPDX-License-Identifier: GPL-2.0

//! The settings of a network namespace: `/proc/sys/net/smc/`.

mod table;

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

use crate::kapi::{
    kprobe::{
        SocketKind,
        SocketPolicy, //
    },
    netns::{
        self,
        Net,
        Pernet,
        PernetData,
        PernetKey, //
    },
    sysctl::Table, //
};

pub(crate) use table::{
    Adaptive,
    BufferKind,
    Settings,
    Tcp2Smc, //
};

/// Keeps the settings of every namespace; dropping it takes the files away and ends the conversion
/// of sockets.
pub(crate) struct Sysctl {
    _pernet: Pernet<Namespace>,
}

impl Sysctl {
    /// Shows the settings in every namespace, now and in future. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also where something else owns `/proc/sys/net/smc`.
    pub(crate) fn register() -> Result<Self> {
        Ok(Self {
            _pernet: Pernet::register()?,
        })
    }
}

/// One namespace's settings and the files that show them.
#[pin_data]
struct Namespace {
    settings: Arc<Settings>,
    #[pin]
    table: Mutex<Option<Table<Settings>>>,
}

static KEY: PernetKey<Namespace> = PernetKey::new();

impl PernetData for Namespace {
    fn key() -> &'static PernetKey<Self> {
        &KEY
    }

    fn new(net: &Net) -> Result<Arc<Self>> {
        let settings = Settings::new(net)?;
        let table = Table::register(net, c"net/smc", table::ENTRIES, settings.clone())?;
        Arc::pin_init(
            pin_init!(Self {
                settings,
                table <- new_mutex!(Some(table), "sysctl::Namespace::table"),
            }),
            GFP_KERNEL,
        )
    }

    fn exit(&self) {
        let table = self.table.lock().take();
        drop(table);
        self.settings.stop_conversion();
    }
}

impl Settings {
    /// The settings of `net`. Any context.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the namespace has none because it exits, or the module goes.
    pub(crate) fn of(net: &Net) -> Result<Arc<Self>> {
        netns::with::<Namespace, _>(net, |namespace| namespace.settings.clone()).ok_or(ENODEV)
    }
}

impl Settings {
    /// What makes SMC worth it in `net`, if it is to be left out otherwise. Any context.
    pub(crate) fn adaptive(net: &Net) -> Option<Adaptive> {
        netns::with::<Namespace, _>(net, |namespace| namespace.settings.adaptive_policy())?
    }
}

/// Converts TCP sockets where `tcp2smc` is set.
struct Conversion;

/// `AF_INET`, `AF_INET6` and `AF_SMC` (`include/linux/socket.h`).
const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;
const AF_SMC: i32 = 43;
/// `SOCK_STREAM` (`include/linux/net.h`).
const SOCK_STREAM: i32 = 1;
/// `IPPROTO_IP`, `IPPROTO_TCP` and `IPPROTO_SMC` (`include/uapi/linux/in.h`).
const IPPROTO_IP: i32 = 0;
const IPPROTO_TCP: i32 = 6;
const IPPROTO_SMC: i32 = 256;
/// The protocol of an `AF_SMC` socket over IPv4 (`include/net/smc.h`).
const SMCPROTO_SMC: i32 = 0;

impl SocketPolicy for Conversion {
    fn replace(net: &Net, kind: SocketKind) -> Option<SocketKind> {
        if kind.type_ != SOCK_STREAM
            || !matches!(kind.protocol, IPPROTO_IP | IPPROTO_TCP)
            || !matches!(kind.family, AF_INET | AF_INET6)
        {
            return None;
        }
        match netns::with::<Namespace, _>(net, |namespace| namespace.settings.tcp2smc())? {
            Tcp2Smc::Off => None,
            Tcp2Smc::Family => (kind.family == AF_INET).then_some(SocketKind {
                family: AF_SMC,
                protocol: SMCPROTO_SMC,
                ..kind
            }),
            Tcp2Smc::Protocol => Some(SocketKind {
                protocol: IPPROTO_SMC,
                ..kind
            }),
        }
    }

    /// A policy that lets a program have TCP is to hold for the socket that it gets instead: SELinux
    /// takes every protocol number that it does not know for raw IP. (A socket of another family is of
    /// that family throughout: security modules ask the socket itself later.)
    fn appearance(kind: SocketKind) -> Option<SocketKind> {
        (kind.type_ == SOCK_STREAM
            && kind.protocol == IPPROTO_SMC
            && matches!(kind.family, AF_INET | AF_INET6))
        .then_some(SocketKind {
            protocol: IPPROTO_TCP,
            ..kind
        })
    }
}
