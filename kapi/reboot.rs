// SPDX-License-Identifier: GPL-2.0

//! The system goes down.

use core::marker::PhantomData;

use crate::kapi::prelude::*;
use kernel::{
    error::to_result,
    ffi::{
        c_int,
        c_ulong,
        c_void, //
    },
    types::Opaque, //
};

use crate::bindings;

/// What is to be done before the system halts, restarts or is switched off. Processes may still run.
pub(crate) trait GoingDown: 'static {
    /// Process context; devices still work.
    fn going_down();
}

/// While it lives, [`GoingDown::going_down`] is called.
pub(crate) struct Notice<G: GoingDown> {
    block: KBox<Opaque<bindings::notifier_block>>,
    _called: PhantomData<fn() -> G>,
}

// SAFETY: The block is used by C alone, under its own lock.
unsafe impl<G: GoingDown> Send for Notice<G> {}
// SAFETY: As above.
unsafe impl<G: GoingDown> Sync for Notice<G> {}

impl<G: GoingDown> Notice<G> {
    /// From here on it is called. May sleep.
    pub(crate) fn new() -> Result<Self> {
        let block = bindings::notifier_block {
            notifier_call: Some(called::<G>),
            ..Default::default()
        };
        let block = KBox::new(Opaque::new(block), GFP_KERNEL)?;
        // SAFETY: The block stays where it is until it is taken out again, in `drop`.
        to_result(unsafe { bindings::register_reboot_notifier(block.get()) })?;
        Ok(Self {
            block,
            _called: PhantomData,
        })
    }
}

impl<G: GoingDown> Drop for Notice<G> {
    fn drop(&mut self) {
        // SAFETY: It is registered. Nobody is in `called` when this returns.
        unsafe { bindings::unregister_reboot_notifier(self.block.get()) };
    }
}

unsafe extern "C" fn called<G: GoingDown>(
    _block: *mut bindings::notifier_block,
    _how: c_ulong,
    _command: *mut c_void,
) -> c_int {
    const NOTIFY_DONE: c_int = 0;

    G::going_down();
    NOTIFY_DONE
}
