// SPDX-License-Identifier: GPL-2.0

//! What belongs to one network namespace, beside its settings: its enterprise IDs, PNETIDs and
//! statistics.

use super::{
    learning,
    pnet_table,
    stats::Stats,
    types::Ueid,
    ueid::{
        self,
        Refusal, //
    }, //
};
use crate::kapi::netns::{
    self,
    Net,
    Pernet,
    PernetData,
    PernetKey, //
};
use kernel::{
    new_mutex,
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        Mutex,
        SpinLock, //
    }, //
};

/// One namespace's.
#[pin_data]
pub(crate) struct Namespace {
    /// Process context.
    #[pin]
    ueids: SpinLock<ueid::Table>,
    stats: Arc<Stats>,
    #[pin]
    pnet: Mutex<pnet_table::Table>,
    /// Process context.
    #[pin]
    habits: SpinLock<learning::Memory>,
}

impl Namespace {
    /// Its PNETIDs.
    pub(super) fn pnet(&self) -> &Mutex<pnet_table::Table> {
        &self.pnet
    }

    /// What it has learnt of connections' lengths.
    pub(super) fn habits(&self) -> &SpinLock<learning::Memory> {
        &self.habits
    }

    /// Its statistics.
    pub(super) fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }
}

static KEY: PernetKey<Namespace> = PernetKey::new();

impl PernetData for Namespace {
    fn key() -> &'static PernetKey<Self> {
        &KEY
    }

    fn new(_net: &Net) -> Result<Arc<Self>> {
        let stats = Stats::new()?;
        Arc::pin_init(
            pin_init!(Self {
                ueids <- new_spinlock!(ueid::Table::new(), "Namespace::ueids"),
                stats,
                pnet <- new_mutex!(pnet_table::Table::new(), "Namespace::pnet"),
                habits <- new_spinlock!(KVec::new(), "Namespace::habits"),
            }),
            GFP_KERNEL,
        )
    }
}

/// Keeps the data of all namespaces; dropping it takes it down.
pub(crate) struct Namespaces {
    _pernet: Pernet<Namespace>,
}

/// Makes the data of every namespace, now and in future. May sleep.
pub(crate) fn start() -> Result<Namespaces> {
    Ok(Namespaces {
        _pernet: Pernet::register()?,
    })
}

/// The enterprise IDs of a host: those of its namespace.
#[derive(Clone, Copy)]
pub(crate) struct Ueids {
    list: [Ueid; ueid::MAX],
    count: usize,
}

impl Ueids {
    /// In the order in which they were added.
    pub(crate) fn as_slice(&self) -> &[Ueid] {
        self.list.get(..self.count).unwrap_or(&[])
    }
}

/// The enterprise IDs of `net`, none while it begins or ends. Process context.
pub(crate) fn ueids(net: &Net) -> Ueids {
    let found = netns::with::<Namespace, _>(net, |namespace| namespace.ueids.lock().list());
    let (list, count) = found.unwrap_or(([Ueid::PLACEHOLDER; ueid::MAX], 0));
    Ueids { list, count }
}

/// Changes the enterprise IDs of `net`. Process context.
///
/// # Errors
///
/// What `change` says, as error codes of the ABI; `ENODEV` while the namespace ends.
pub(crate) fn change_ueids(
    net: &Net,
    change: impl FnOnce(&mut ueid::Table) -> Result<(), Refusal>,
) -> Result {
    let changed = netns::with::<Namespace, _>(net, |namespace| change(&mut namespace.ueids.lock()));
    changed.ok_or(ENODEV)?.map_err(|refusal| match refusal {
        Refusal::Invalid => EINVAL,
        Refusal::Full => ERANGE,
        Refusal::Exists => EEXIST,
        Refusal::Missing => ENOENT,
    })
}
