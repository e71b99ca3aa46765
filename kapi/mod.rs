// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions of the kernel interfaces that the `kernel` crate does not cover.

pub(crate) mod clcsock;
pub(crate) mod family;
pub(crate) mod genl;
pub(crate) mod global;
pub(crate) mod host;
pub(crate) mod kprobe;
pub(crate) mod lock;
pub(crate) mod log;
pub(crate) mod netaddr;
pub(crate) mod netlink;
pub(crate) mod netns;
pub(crate) mod once;
pub(crate) mod percpu;
pub(crate) mod ports;
pub(crate) mod prelude;
pub(crate) mod proto_ops;
pub(crate) mod reboot;
pub(crate) mod sock;
pub(crate) mod sock_diag;
pub(crate) mod sock_table;
pub(crate) mod sysctl;
pub(crate) mod tcp_info;
pub(crate) mod tcp_option;
pub(crate) mod ticker;
pub(crate) mod version;
pub(crate) mod watch;
pub(crate) mod workqueue;
pub(crate) mod zerocopy;
