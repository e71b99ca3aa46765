// SPDX-License-Identifier: GPL-2.0

//! Statistics of a network namespace: counters for each processor, and the reasons of fallbacks.

use super::{
    counter::{
        self,
        Counter, //
    },
    llc::{
        flow::Role,
        wire::LlcVersion, //
    },
    namespace::Namespace, //
};
use crate::{
    clc::decline::DeclineReason,
    kapi::{
        netns::{
            self,
            Net, //
        },
        percpu::Counters, //
    }, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};

/// The statistics of a namespace. Sockets and connections hold them, so that there are some as long as
/// anything is to be counted.
#[pin_data]
pub(crate) struct Stats {
    counters: Counters<{ counter::COUNT }>,
    #[pin]
    fallbacks: Mutex<Fallbacks>,
}

/// Fallbacks with one reason, on one side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fallback {
    /// Which side we were.
    pub(crate) role: Role,
    /// Why.
    pub(crate) reason: DeclineReason,
    /// How often.
    pub(crate) count: u64,
}

impl Fallback {
    /// Its place in the order in which they are kept; greater than 0.
    pub(crate) fn key(&self) -> u64 {
        (u64::from(self.reason.0) << 1 | u64::from(self.role == Role::Server)) + 1
    }
}

/// Fallbacks of a namespace.
struct Fallbacks {
    /// In the order of their keys.
    list: KVec<Fallback>,
    client: u64,
    server: u64,
}

impl Stats {
    /// Nothing was counted yet. May sleep.
    pub(super) fn new() -> Result<Arc<Self>> {
        let counters = Counters::new()?;
        Arc::pin_init(
            pin_init!(Self {
                counters,
                fallbacks <- new_mutex!(
                    Fallbacks { list: KVec::new(), client: 0, server: 0 },
                    "Stats::fallbacks"
                ),
            }),
            GFP_KERNEL,
        )
    }

    /// Those of `net`; `None` while it begins or ends.
    pub(crate) fn of(net: &Net) -> Option<Arc<Self>> {
        netns::with::<Namespace, _>(net, |namespace| namespace.stats().clone())
    }

    /// Counts one more. Any context.
    pub(crate) fn count(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `more`. Any context.
    pub(crate) fn add(&self, counter: Counter, more: u64) {
        self.counters.add(counter.number(), more);
    }

    /// Takes some off. Any context.
    pub(crate) fn sub(&self, counter: Counter, less: u64) {
        self.counters.add(counter.number(), less.wrapping_neg());
    }

    /// What was counted.
    pub(crate) fn sum(&self, counter: Counter) -> u64 {
        self.counters.sum(counter.number())
    }

    /// A system call that was to move `asked` bytes. Any context.
    pub(crate) fn count_call(&self, calls: &counter::Calls, asked: usize, result: &Result<usize>) {
        match result {
            Ok(moved @ 1..) => self.counters.add_call(
                [calls.calls.number(), calls.sizes.of(asked).number()],
                calls.bytes.number(),
                *moved as u64,
            ),
            _ => self.count(calls.calls),
        }
    }

    /// A connection was made.
    pub(crate) fn count_made(&self, role: Role, version: LlcVersion) {
        self.count(match (role, version) {
            (Role::Client, LlcVersion::V1) => counter::CLIENT_V1,
            (Role::Client, LlcVersion::V2) => counter::CLIENT_V2,
            (Role::Server, LlcVersion::V1) => counter::SERVER_V1,
            (Role::Server, LlcVersion::V2) => counter::SERVER_V2,
        });
    }

    /// A connection has fallen back. Process context; may sleep.
    pub(crate) fn count_fallback(&self, role: Role, reason: DeclineReason) {
        let new = Fallback {
            role,
            reason,
            count: 1,
        };
        let mut fallbacks = self.fallbacks.lock();
        let side = match role {
            Role::Client => &mut fallbacks.client,
            Role::Server => &mut fallbacks.server,
        };
        *side = side.saturating_add(1);
        let list = &mut fallbacks.list;
        match list.binary_search_by_key(&new.key(), |known| known.key()) {
            Ok(index) => {
                if let Some(known) = list.get_mut(index) {
                    known.count = known.count.saturating_add(1);
                }
            }
            Err(index) => {
                // Without memory it is among the total only.
                if list.reserve(1, GFP_KERNEL).is_ok() {
                    let _ = list.insert_within_capacity(index, new);
                }
            }
        }
    }

    /// The first kind of fallback behind `after`, a key or 0.
    pub(crate) fn fallback_after(&self, after: u64) -> Option<Fallback> {
        let fallbacks = self.fallbacks.lock();
        let mut later = fallbacks.list.iter().filter(|known| known.key() > after);
        later.next().copied()
    }

    /// Fallbacks as a client, and as a server.
    pub(crate) fn fallback_totals(&self) -> (u64, u64) {
        let fallbacks = self.fallbacks.lock();
        (fallbacks.client, fallbacks.server)
    }
}
