//! The tests, by subject.

mod aio;
mod api;
mod asleep;
mod basic;
mod black_hole;
mod bulk;
pub mod calls;
mod clc;
mod close;
mod conform;
mod cycles;
mod data_options;
mod decline;
mod diag;
mod echo;
mod epoll;
mod events;
mod fallback;
mod flags;
mod genl;
mod hostile;
mod hostile_peer;
mod immediate;
mod iwarp;
mod learning;
mod limit;
mod link;
mod malformed;
mod many;
mod memory;
mod middlebox;
mod netem;
mod network;
mod nonblock;
mod options;
mod peer_death;
mod pnet;
mod policy;
pub mod ports;
mod process;
mod raw;
mod redundancy;
mod rkeys;
mod routes;
mod settings;
mod sharing;
mod signals;
pub mod soak;
mod splice;
mod stream;
mod syn;
mod tcp2smc;
mod tools;
mod trace;
pub mod two_links;
mod urgent;
mod uring;
mod v1;
mod wiretap;

use crate::pattern::Pattern;
use crate::runner::{Ctx, Needs, Test};
use crate::{Fail, Outcome};
use std::thread::JoinHandle;

/// A test that runs over every kind of socket.
const fn any(name: &'static str, limit: u64, body: fn(&Ctx) -> Outcome) -> Test {
    Test {
        name,
        body,
        limit,
        needs: Needs::Any,
    }
}

/// A test of SMC whose connections have to fall back to TCP.
const fn fallback(name: &'static str, limit: u64, body: fn(&Ctx) -> Outcome) -> Test {
    Test {
        name,
        body,
        limit,
        needs: Needs::Fallback,
    }
}

/// A test of the module itself, which makes its sockets on its own.
const fn once(name: &'static str, limit: u64, body: fn(&Ctx) -> Outcome) -> Test {
    Test {
        name,
        body,
        limit,
        needs: Needs::Once,
    }
}

/// All tests, in the order in which they run: the simple ones first.
pub fn all() -> Vec<Test> {
    let mut tests = Vec::new();
    tests.extend(basic::TESTS);
    tests.extend(api::TESTS);
    tests.extend(options::TESTS);
    tests.extend(nonblock::TESTS);
    tests.extend(flags::TESTS);
    tests.extend(aio::TESTS);
    tests.extend(epoll::TESTS);
    tests.extend(splice::TESTS);
    tests.extend(signals::TESTS);
    tests.extend(close::TESTS);
    tests.extend(data_options::TESTS);
    tests.extend(fallback::TESTS);
    tests.extend(settings::TESTS);
    tests.extend(tcp2smc::TESTS);
    tests.extend(policy::TESTS);
    tests.extend(ports::TESTS);
    tests.extend(peer_death::TESTS);
    tests.extend(syn::TESTS);
    tests.extend(echo::TESTS);
    tests.extend(process::TESTS);
    tests.extend(sharing::TESTS);
    tests.extend(uring::TESTS);
    tests.extend(urgent::TESTS);
    tests.extend(stream::TESTS);
    tests.extend(bulk::TESTS);
    tests.extend(many::TESTS);
    tests.extend(learning::TESTS);
    tests.extend(limit::TESTS);
    tests.extend(hostile::TESTS);
    tests.extend(clc::TESTS);
    tests.extend(decline::TESTS);
    tests.extend(events::TESTS);
    tests.extend(diag::TESTS);
    tests.extend(genl::TESTS);
    tests.extend(pnet::TESTS);
    tests.extend(malformed::TESTS);
    tests.extend(trace::TESTS);
    tests.extend(tools::TESTS);
    tests.extend(conform::TESTS);
    tests.extend(iwarp::TESTS);
    tests.extend(immediate::TESTS);
    tests.extend(rkeys::TESTS);
    tests.extend(link::TESTS);
    tests.extend(cycles::TESTS);
    tests.extend(redundancy::TESTS);
    tests.extend(routes::TESTS);
    tests.extend(v1::TESTS);
    tests.extend(memory::TESTS);
    tests.extend(netem::TESTS);
    tests.extend(black_hole::TESTS);
    tests.extend(hostile_peer::TESTS);
    tests
}

/// The outcome of a thread of a test.
fn join<T>(thread: JoinHandle<Outcome<T>>) -> Outcome<T> {
    thread
        .join()
        .map_err(|_| Fail("a thread of the test panicked".into()))?
}
