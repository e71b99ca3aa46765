// SPDX-License-Identifier: GPL-2.0

//! Differences between versions of the `kernel` crate. Kbuild sets `smc_rs_before_7_3`.

use crate::bindings;
use kernel::{
    error::Error,
    prelude::*, //
};

/// `THIS_MODULE` of this module.
#[cfg(not(smc_rs_before_7_3))]
pub(super) fn this_module() -> *mut bindings::module {
    // Both bindings describe one C type.
    kernel::module::this_module::<crate::LocalModule>()
        .as_ptr()
        .cast()
}

/// `THIS_MODULE` of this module.
#[cfg(smc_rs_before_7_3)]
pub(super) fn this_module() -> *mut bindings::module {
    // Both bindings describe one C type.
    crate::THIS_MODULE.as_ptr().cast()
}

/// Runs an initialiser on `slot`.
///
/// # Safety
///
/// `slot` must be valid for writing a `T`, uninitialised, and stay where it is if this succeeds.
#[cfg(not(smc_rs_before_7_3))]
pub(super) unsafe fn init_at<T>(init: impl PinInit<T, Error>, slot: *mut T) -> Result {
    // SAFETY: The caller guarantees what the initialiser asks for.
    unsafe { init.__init(slot) }
}

/// Runs an initialiser on `slot`.
///
/// # Safety
///
/// `slot` must be valid for writing a `T`, uninitialised, and stay where it is if this succeeds.
#[cfg(smc_rs_before_7_3)]
pub(super) unsafe fn init_at<T>(init: impl PinInit<T, Error>, slot: *mut T) -> Result {
    // SAFETY: The caller guarantees what the initialiser asks for.
    unsafe { init.__pinned_init(slot) }
}

/// The value of a module parameter.
macro_rules! parameter {
    ($name:ident) => {{
        #[cfg(not(smc_rs_before_7_3))]
        let value = *module_parameters::$name.value_ref();
        #[cfg(smc_rs_before_7_3)]
        let value = *module_parameters::$name.value();
        value
    }};
}
pub(crate) use parameter;

/// Error codes that the kernel crate does not name yet.
#[cfg(smc_rs_before_7_3)]
pub(super) mod errno {
    use core::num::NonZeroI32;
    use kernel::error::Error;

    macro_rules! errors {
        ($($name:ident)*) => {$(
            #[allow(missing_docs)]
            pub(crate) const $name: Error = {
                let errno = -(crate::bindings::$name as i32);
                let Some(errno) = NonZeroI32::new(errno) else {
                    panic!("an error code is not zero");
                };
                // SAFETY: `Error` is a struct with a `NonZeroI32` as its only field, which holds a
                // negative error code; the compiler checks that their sizes are the same.
                unsafe { core::mem::transmute::<NonZeroI32, Error>(errno) }
            };
        )*};
    }

    errors! {
        EADDRINUSE
        EALREADY
        ECONNABORTED
        ECONNRESET
        EINPROGRESS
        EISCONN
        ENETDOWN
        ENOBUFS
        ENOTCONN
        EOPNOTSUPP
        EPROTO
        EPROTONOSUPPORT
        ESOCKTNOSUPPORT
    }
}
