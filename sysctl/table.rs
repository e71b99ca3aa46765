// SPDX-License-Identifier: GPL-2.0

//! The values themselves.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
};

use super::Conversion;
use crate::kapi::{
    kprobe::Hold,
    netns::Net,
    sysctl::{
        Entry,
        Range, //
    },
};

/// The least size of a send or receive buffer, in bytes (RFC 7609, section 3.1 leaves it open; the
/// smallest buffer size that the Accept and Confirm messages can name is 16 KiB).
const MIN_BUFFER: i32 = 16384;
const MAX_BUFFER: i32 = i32::MAX / 2;

/// Which TCP sockets become SMC sockets when they are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tcp2Smc {
    /// None.
    Off,
    /// `AF_INET` sockets become `AF_SMC` sockets.
    Family,
    /// `AF_INET` and `AF_INET6` sockets keep their family and get the protocol `IPPROTO_SMC`.
    Protocol,
}

/// What memory buffers are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BufferKind {
    /// Physically contiguous.
    Physical,
    /// Virtually contiguous.
    Virtual,
    /// Physically contiguous where there is such memory, else virtually.
    Mixed,
}

/// Which connections are worth being made by SMC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adaptive {
    /// Those that carry so many bytes.
    pub(crate) bytes: u32,
    /// Those that live so long, in milliseconds.
    pub(crate) lifetime_ms: u32,
    /// Until all is learnt again.
    pub(crate) forget_seconds: u32,
}

/// The settings of one namespace. An administrator may change each of them at any time.
#[pin_data]
pub(crate) struct Settings {
    tcp2smc: Atomic<i32>,
    wmem: Atomic<i32>,
    rmem: Atomic<i32>,
    autocorking_size: Atomic<i32>,
    smcr_buf_type: Atomic<i32>,
    smcr_testlink_time: Atomic<i32>,
    smcr_max_links_per_lgr: Atomic<i32>,
    smcr_max_conns_per_lgr: Atomic<i32>,
    smcr_max_send_wr: Atomic<i32>,
    smcr_max_recv_wr: Atomic<i32>,
    smcr_lgr_free_delay: Atomic<i32>,
    limit_smc_hs: Atomic<i32>,
    vendor_options: Atomic<i32>,
    adaptive: Atomic<i32>,
    adaptive_bytes: Atomic<i32>,
    adaptive_ms: Atomic<i32>,
    adaptive_forget: Atomic<i32>,
    /// Present while `tcp2smc` is not zero; the lock is held while `tcp2smc` changes.
    #[pin]
    probe: Mutex<Option<Hold<Conversion>>>,
    inum: u32,
}

impl Settings {
    /// The defaults for `net`.
    pub(super) fn new(net: &Net) -> Result<Arc<Self>> {
        let (wmem, rmem) = net.tcp_buffer_defaults();
        Arc::pin_init(
            pin_init!(Self {
                tcp2smc: Atomic::new(0),
                wmem: Atomic::new(wmem.clamp(MIN_BUFFER, MAX_BUFFER)),
                rmem: Atomic::new(rmem.clamp(MIN_BUFFER, MAX_BUFFER)),
                autocorking_size: Atomic::new(65536),
                smcr_buf_type: Atomic::new(0),
                smcr_testlink_time: Atomic::new(30),
                smcr_max_links_per_lgr: Atomic::new(2),
                smcr_max_conns_per_lgr: Atomic::new(255),
                smcr_max_send_wr: Atomic::new(16),
                smcr_max_recv_wr: Atomic::new(48),
                smcr_lgr_free_delay: Atomic::new(600),
                limit_smc_hs: Atomic::new(0),
                vendor_options: Atomic::new(1),
                adaptive: Atomic::new(0),
                adaptive_bytes: Atomic::new(131_072),
                adaptive_ms: Atomic::new(1000),
                adaptive_forget: Atomic::new(300),
                probe <- new_mutex!(None, "Settings::probe"),
                inum: net.inum(),
            }),
            GFP_KERNEL,
        )
    }

    /// Which TCP sockets become SMC sockets.
    pub(crate) fn tcp2smc(&self) -> Tcp2Smc {
        match self.tcp2smc.load(Relaxed) {
            1 => Tcp2Smc::Family,
            2 => Tcp2Smc::Protocol,
            _ => Tcp2Smc::Off,
        }
    }

    /// The default size of a new socket's send buffer, in bytes.
    pub(crate) fn wmem(&self) -> i32 {
        self.wmem.load(Relaxed)
    }

    /// The default size of a new socket's receive buffer, in bytes.
    pub(crate) fn rmem(&self) -> i32 {
        self.rmem.load(Relaxed)
    }

    /// How many bytes that were not sent yet make a small write wait for more; 0: none ever waits.
    pub(crate) fn autocorking_size(&self) -> u32 {
        self.autocorking_size.load(Relaxed) as u32
    }

    /// What memory buffers are made of.
    pub(crate) fn buffer_kind(&self) -> BufferKind {
        match self.smcr_buf_type.load(Relaxed) {
            1 => BufferKind::Virtual,
            2 => BufferKind::Mixed,
            _ => BufferKind::Physical,
        }
    }

    /// After how many seconds of silence a link is tested; 0: never.
    pub(crate) fn testlink_seconds(&self) -> u32 {
        self.smcr_testlink_time.load(Relaxed) as u32
    }

    /// How many links a link group may have: 1 or 2.
    pub(crate) fn max_links(&self) -> u8 {
        self.smcr_max_links_per_lgr.load(Relaxed).clamp(1, 2) as u8
    }

    /// How many connections a link group may carry: 16 to 255.
    pub(crate) fn max_connections(&self) -> u8 {
        self.smcr_max_conns_per_lgr.load(Relaxed).clamp(16, 255) as u8
    }

    /// How many send work requests a queue pair may have under way: 2 to 2048.
    pub(crate) fn max_send_wr(&self) -> u32 {
        self.smcr_max_send_wr.load(Relaxed) as u32
    }

    /// How many receive work requests a queue pair keeps posted: 2 to 2048.
    pub(crate) fn max_recv_wr(&self) -> u32 {
        self.smcr_max_recv_wr.load(Relaxed) as u32
    }

    /// How many seconds a link group without connections stays.
    pub(crate) fn lgr_free_delay_seconds(&self) -> u32 {
        self.smcr_lgr_free_delay.load(Relaxed) as u32
    }

    /// Whether CDC messages go as immediates of RDMA WRITEs in new link groups with hosts that understand that.
    pub(crate) fn uses_immediates(&self) -> bool {
        self.vendor_options.load(Relaxed) & 1 != 0
    }

    /// Whether new SMC handshakes are refused while too many are under way.
    pub(crate) fn limits_handshakes(&self) -> bool {
        self.limit_smc_hs.load(Relaxed) != 0
    }

    /// Changes that, as the file does.
    pub(crate) fn limit_handshakes(&self, limit: bool) {
        self.limit_smc_hs.store(i32::from(limit), Relaxed);
    }

    /// What makes SMC worth it, if it is to be left out otherwise.
    pub(super) fn adaptive_policy(&self) -> Option<Adaptive> {
        let value = |cell: &Atomic<i32>| cell.load(Relaxed) as u32;
        (value(&self.adaptive) != 0).then(|| Adaptive {
            bytes: value(&self.adaptive_bytes),
            lifetime_ms: value(&self.adaptive_ms),
            forget_seconds: value(&self.adaptive_forget),
        })
    }

    /// Puts a new value of `tcp2smc` into effect.
    fn commit_tcp2smc(&self, value: i32) -> Result {
        let mut probe = self.probe.lock();
        if value == 0 {
            self.tcp2smc.store(0, Relaxed);
            *probe = None;
            return Ok(());
        }
        if probe.is_none() {
            *probe = Some(Hold::new().inspect_err(|error| {
                pr_err!(
                    "tcp2smc stays off in netns {}: this kernel lets no probes be placed on \
                     __sys_socket and the like (error {}); is kernel.ftrace_enabled 0, or kprobes off?\n",
                    self.inum,
                    error.to_errno(),
                );
            })?);
        }
        self.tcp2smc.store(value, Relaxed);
        Ok(())
    }

    /// Ends the conversion of sockets, with the namespace.
    pub(super) fn stop_conversion(&self) {
        let mut probe = self.probe.lock();
        self.tcp2smc.store(0, Relaxed);
        *probe = None;
    }
}

/// A plain value within bounds.
macro_rules! int {
    ($name:ident, $min:expr, $max:expr) => {
        Entry {
            name: match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!("a name holds no NUL"),
            },
            range: Range::Int {
                min: $min,
                max: $max,
            },
            cell: |settings: &Settings| &settings.$name,
            commit: None,
        }
    };
}

/// The files of `/proc/sys/net/smc/`.
pub(super) static ENTRIES: &[Entry<Settings>] = &[
    Entry {
        commit: Some(Settings::commit_tcp2smc),
        ..int!(tcp2smc, 0, 2)
    },
    int!(wmem, MIN_BUFFER, MAX_BUFFER),
    int!(rmem, MIN_BUFFER, MAX_BUFFER),
    Entry {
        range: Range::Unsigned,
        ..int!(autocorking_size, 0, 0)
    },
    int!(smcr_buf_type, 0, 2),
    int!(smcr_testlink_time, 0, i32::MAX / 1000),
    int!(smcr_max_links_per_lgr, 1, 2),
    int!(smcr_max_conns_per_lgr, 16, 255),
    int!(smcr_max_send_wr, 2, 2048),
    int!(smcr_max_recv_wr, 2, 2048),
    int!(smcr_lgr_free_delay, 0, 3600),
    int!(limit_smc_hs, 0, 1),
    int!(vendor_options, 0, 1),
    int!(adaptive, 0, 1),
    int!(adaptive_bytes, 1, i32::MAX),
    int!(adaptive_ms, 1, i32::MAX),
    int!(adaptive_forget, 1, i32::MAX / 1000),
];
