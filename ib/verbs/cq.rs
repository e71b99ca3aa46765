// SPDX-License-Identifier: GPL-2.0

//! Completion queues, polled in bottom-half context.

use crate::kapi::prelude::*;
use core::{
    marker::PhantomPinned,
    ptr::NonNull, //
};
use kernel::{
    error::from_err_ptr,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full,
            Relaxed, //
        },
        new_mutex,
        Arc,
        Mutex,
        UniqueArc, //
    },
    types::Opaque, //
};

use super::{
    device::{
        Device,
        DeviceUse, //
    },
    wr::Completion,
    CALLER, //
};
use crate::{
    bindings,
    kapi::lock::{
        new_spinlock_bh,
        SpinLockBh, //
    },
};

/// What is done with completions.
pub(crate) trait CqHandler: Send + Sync + Unpin + 'static {
    /// Handles completions that were taken from the queue together. Runs with bottom halves off; for one queue never on
    /// two processors at a time.
    ///
    /// Must not drop the last reference of an object of [`super`].
    fn completions(&mut self, batch: &Batch<'_>);

    /// Called before completions are looked for, in the same context.
    fn begin(&self) {}

    /// Whether completions are to come, for [`Cq::want`]. Any context.
    fn is_busy(&self) -> bool;
}

/// Completions that were taken from a queue together: [`BATCH`] at most.
pub(crate) struct Batch<'a>(&'a [bindings::ib_wc]);

impl Batch<'_> {
    /// They in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Completion> + '_ {
        self.0.iter().map(Completion::from_raw)
    }
}

/// When the device interrupts for a queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Events {
    /// Whenever there are completions.
    Always,
    /// While somebody has asked for it ([`Cq::want`], [`Cq::need`]). At other times completions wait until somebody
    /// looks for them ([`Cq::reap`]).
    OnDemand,
}

/// Completions taken from the queue at once.
pub(crate) const BATCH: usize = 16;

/// Completions handled before other bottom halves get their turn.
const BUDGET: usize = 128;

/// How far the handler's life has got.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Unattached,
    Attached,
    Detached,
}

/// A completion queue with its handler.
///
/// The queue has to exist before its queue pair, and the handler usually needs the queue pair, so
/// the handler comes last ([`Self::attach`]). If it owns, even indirectly, the queue pair, then
/// this is a cycle: whoever tears down breaks it with [`Self::detach`].
#[pin_data(PinnedDrop)]
pub(crate) struct Cq<H: CqHandler> {
    raw: NonNull<bindings::ib_cq>,
    #[pin]
    tasklet: Opaque<bindings::tasklet_struct>,
    events: Events,
    /// The device's events come where all can be done at once.
    at_once: bool,
    /// Somebody has asked for an event, and it is armed or about to come.
    wanted: Atomic<u32>,
    /// So many [`Need`]s.
    needs: Atomic<u32>,
    /// Held while the queue is polled and completions are handled.
    #[pin]
    poller: SpinLockBh<Poller<H>>,
    #[pin]
    stage: Mutex<Stage>,
    // The C object and the tasklet point back here.
    #[pin]
    _pin: PhantomPinned,
    _device: DeviceUse,
}

struct Poller<H> {
    handler: Option<H>,
    batch: KVec<bindings::ib_wc>,
}

// SAFETY: The C objects have no ties to a task, and the handler is `Send`.
unsafe impl<H: CqHandler> Send for Cq<H> {}
// SAFETY: The C objects lock by themselves, all else is behind locks; the handler is `Sync`.
unsafe impl<H: CqHandler> Sync for Cq<H> {}

/// While it lives, the device interrupts for an [`Events::OnDemand`] queue.
pub(crate) struct Need<'a, H: CqHandler>(&'a Cq<H>);

impl<H: CqHandler> Drop for Need<'_, H> {
    fn drop(&mut self) {
        self.0.needs.fetch_sub(1, Full);
    }
}

impl<H: CqHandler> Cq<H> {
    /// Creates a queue for `entries` completions, on a completion vector of
    /// [`Device::next_comp_vector`]. May sleep.
    ///
    /// `entries` is at least the number of requests that can be outstanding on its queue pairs.
    pub(crate) fn new(
        device: &Arc<Device>,
        entries: u32,
        vector: u32,
        events: Events,
    ) -> Result<Arc<Self>> {
        let device = DeviceUse::new(device)?;
        let batch = KVec::from_elem(bindings::ib_wc::default(), BATCH, GFP_KERNEL)?;
        let at_once = device.device().attributes().events_in_tasklet;
        // First, so that its address is known, and nothing can fail once the queue exists.
        let mut memory = UniqueArc::<Self>::new_uninit(GFP_KERNEL)?;
        let context = memory.as_mut_ptr();
        let attr = bindings::ib_cq_init_attr {
            cqe: entries,
            comp_vector: vector,
            flags: 0,
        };

        // SAFETY: The use keeps the device alive. The context is valid for `comp_handler` before
        // the queue is armed, which is done by `attach`.
        let raw = from_err_ptr(unsafe {
            bindings::__ib_create_cq(
                device.as_ptr(),
                Some(Self::comp_handler),
                None,
                context.cast(),
                &attr,
                CALLER.as_char_ptr(),
            )
        })?;
        // `raw` is not null: the function returns a valid or an error pointer.
        let raw = NonNull::new(raw).ok_or(ENOMEM)?;

        let cq = memory.pin_init_with(pin_init!(Self {
            raw,
            tasklet <- Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes; the tasklet stays where it is.
                unsafe { bindings::tasklet_setup(slot, Some(Self::tasklet_fn)) }
            }),
            events,
            at_once,
            wanted: Atomic::new(0),
            needs: Atomic::new(0),
            poller <- new_spinlock_bh!(Poller { handler: None, batch }, "ib::Cq::poller"),
            stage <- new_mutex!(Stage::Unattached, "ib::Cq::stage"),
            _pin: PhantomPinned,
            _device: device,
        }))?;
        Ok(cq.into())
    }

    /// Gives the queue its handler, and starts to report completions. May sleep.
    ///
    /// # Errors
    ///
    /// `EALREADY` if that was done before.
    pub(crate) fn attach(&self, handler: H) -> Result {
        let mut stage = self.stage.lock();

        if *stage != Stage::Unattached {
            return Err(EALREADY);
        }
        self.poller.lock().handler = Some(handler);
        *stage = Stage::Attached;
        // The tasklet polls and then arms the queue.
        self.schedule();
        Ok(())
    }

    /// Ends the reporting of completions, and gives back the handler. May sleep.
    ///
    /// When this returns the handler is not running and will not run again. Not to be called by it.
    pub(crate) fn detach(&self) -> Option<H> {
        let mut stage = self.stage.lock();

        if *stage != Stage::Attached {
            return None;
        }
        *stage = Stage::Detached;
        // It runs under the lock only.
        self.poller.lock().handler.take()
    }

    /// Handles what has completed by now, also if the device has told nobody of it. For process context, with no
    /// lock held; not to be called by the handler.
    pub(crate) fn catch_up(&self) {
        while self.run() {}
    }

    /// The same, unless somebody is at it just now; no more than a [`BUDGET`]. For process and BH context, with no
    /// lock held that the handler takes.
    pub(crate) fn reap(&self) {
        let more = match self.poller.try_lock() {
            Some(mut poller) => self.poll(&mut poller),
            None => false,
        };
        if more {
            self.schedule();
        }
    }

    /// Asks for an event at the next completion, and for more as long as the handler says that completions are to come.
    /// Any context; whatever is waited for was posted before.
    pub(crate) fn want(&self) {
        if self.wanted.xchg(1, Full) == 0 && self.arm() {
            self.schedule();
        }
    }

    /// Whether somebody waits for completions. Who begins to when this has been asked gets an event.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed) != 0 || self.needs.load(Relaxed) > 0
    }

    /// Asks for events as long as the answer lives.
    pub(crate) fn need(&self) -> Need<'_, H> {
        self.needs.fetch_add(1, Full);
        self.want();
        Need(self)
    }

    fn schedule(&self) {
        // SAFETY: The tasklet was initialised by `new`. Scheduling is allowed in any context.
        unsafe { bindings::tasklet_schedule(self.tasklet.get()) };
    }

    /// Called by the driver, in any context, when there are completions and the queue is armed.
    ///
    /// # Safety
    ///
    /// For the driver only, with the context that [`Self::new`] gave it.
    unsafe extern "C" fn comp_handler(_cq: *mut bindings::ib_cq, context: *mut c_void) {
        // SAFETY: The context is the `Cq` whose queue this is. It was initialised when the queue
        // was first armed, and destroys the queue before it goes.
        let this = unsafe { &*context.cast::<Self>() };

        if !this.at_once || this.run() {
            this.schedule();
        }
    }

    /// Polls the queue.
    ///
    /// # Safety
    ///
    /// For a tasklet only that [`Self::new`] initialised.
    unsafe extern "C" fn tasklet_fn(tasklet: *mut bindings::tasklet_struct) {
        // SAFETY: The tasklet is a field of a `Cq`, which waits for it before it goes.
        let this = unsafe { &*kernel::container_of!(Opaque::cast_from(tasklet), Self, tasklet) };

        if this.run() {
            this.schedule();
        }
    }

    /// Handles completions; whether there may be more.
    fn run(&self) -> bool {
        self.poll(&mut self.poller.lock())
    }

    fn poll(&self, poller: &mut Poller<H>) -> bool {
        let Poller {
            handler: Some(handler),
            batch,
        } = poller
        else {
            return false;
        };
        let mut handled = 0usize;

        handler.begin();
        while handled < BUDGET {
            // SAFETY: The queue exists, and `batch` has room for `BATCH` completions.
            let n = unsafe {
                bindings::ib_poll_cq(self.raw.as_ptr(), BATCH as c_int, batch.as_mut_ptr())
            };
            let n = usize::try_from(n).unwrap_or(0);

            if let Some(taken @ [_, ..]) = batch.get(..n) {
                handler.completions(&Batch(taken));
            }
            handled = handled.saturating_add(n);
            if n < BATCH && !(self.is_due(handler) && self.arm()) {
                return false;
            }
        }
        true
    }

    /// Whether the queue is to be armed.
    fn is_due(&self, handler: &H) -> bool {
        if self.events == Events::Always {
            return true;
        }
        // In this order: who asks after that arms it, and what was posted before is seen.
        let wanted = self.wanted.xchg(0, Full) != 0;
        let due = self.needs.load(Acquire) > 0 || wanted && handler.is_busy();

        due && self.wanted.xchg(1, Full) == 0
    }

    /// Asks for a call when the next completion arrives; whether there already is one.
    fn arm(&self) -> bool {
        const FLAGS: c_int = (bindings::ib_cq_notify_flags_IB_CQ_NEXT_COMP
            | bindings::ib_cq_notify_flags_IB_CQ_REPORT_MISSED_EVENTS)
            as c_int;

        // SAFETY: The queue exists.
        unsafe { bindings::ib_req_notify_cq(self.raw.as_ptr(), FLAGS) > 0 }
    }
}

#[pinned_drop]
impl<H: CqHandler> PinnedDrop for Cq<H> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The queue was created by `new` and is destroyed once. Its queue pairs hold a
        // reference of `self`, so there is none left.
        let ret = unsafe { bindings::ib_destroy_cq_user(self.raw.as_ptr(), core::ptr::null_mut()) };
        if ret != 0 {
            pr_warn!("freeing a completion queue failed: {}\n", ret);
        }
        // Last, as the driver schedules it until the queue is gone.
        // SAFETY: The tasklet was initialised by `new`. Process context, as destroying a queue sleeps.
        unsafe { bindings::tasklet_kill(self.tasklet.get()) };
    }
}

/// Any [`Cq`], whatever its handler: what a queue pair keeps.
pub(crate) trait AnyCq: Send + Sync {
    /// The C object, valid while `self` is.
    fn raw(&self) -> *mut bindings::ib_cq;
}

impl<H: CqHandler> AnyCq for Cq<H> {
    fn raw(&self) -> *mut bindings::ib_cq {
        self.raw.as_ptr()
    }
}
