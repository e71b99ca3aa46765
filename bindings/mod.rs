// SPDX-License-Identifier: GPL-2.0

//! Raw bindings of the C interfaces that smc_rs needs and the `kernel` crate does not cover.
//!
//! This module may not be used directly outside `kapi/` and `ib/verbs/`, which wrap it.
#![allow(
    clippy::all,
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    non_snake_case,
    improper_ctypes,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unknown_lints,
    unnecessary_transmutes,
    unused_imports
)]
#![allow(
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks
)]

mod raw {
    use pin_init::{
        MaybeZeroable,
        Zeroable, //
    };

    type __kernel_size_t = usize;
    type __kernel_ssize_t = isize;
    type __kernel_ptrdiff_t = isize;

    // SAFETY: `__BindgenBitfieldUnit<Storage>` is a newtype around `Storage`.
    unsafe impl<Storage> Zeroable for __BindgenBitfieldUnit<Storage> where Storage: Zeroable {}

    pub use super::helper::*;
    include!("generated.rs");
}

mod helper {
    use super::raw::*;
    include!("helpers_generated.rs");
}

pub(crate) use raw::*;
