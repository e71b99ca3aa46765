// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions of the kernel interfaces that the `kernel` crate does not cover.

pub(crate) mod kprobe;
pub(crate) mod lock;
pub(crate) mod netns;
pub(crate) mod ports;
pub(crate) mod sysctl;
