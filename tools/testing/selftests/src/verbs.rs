//! RDMA verbs for a test program that speaks SMC-R by itself: one queue pair and its memory, by libibverbs.
//!
//! The library is loaded when it is first used, so that building and everything else need none. The structures
//! are those of its stable ABI (`infiniband/verbs.h`, IBVERBS_1.1), as far as they are needed here.

use crate::kind::Host;
use crate::sys;
use crate::{check, Context, Fail, Outcome};
use std::collections::VecDeque;
use std::ffi::{c_char, c_int, c_void, CStr};
use std::mem::zeroed;
use std::ptr::{null_mut, NonNull};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const QPT_RC: c_int = 2;
const ACCESS_LOCAL_WRITE: c_int = 1;
const ACCESS_REMOTE_WRITE: c_int = 2;
const WR_RDMA_WRITE: c_int = 0;
const WR_RDMA_WRITE_WITH_IMM: c_int = 1;
const WR_SEND: c_int = 2;
const WR_RDMA_READ: c_int = 4;
const SEND_SIGNALED: u32 = 1 << 1;
/// Opcode of a completion: an immediate has come (`IBV_WC_RECV_RDMA_WITH_IMM`).
const WC_RECV_IMMEDIATE: c_int = (1 << 7) + 1;
/// Marks numbers of receive requests: a completion that failed has no opcode.
const RECV_ID: u64 = 1 << 63;
/// Bits of `enum ibv_qp_attr_mask`.
mod mask {
    pub const STATE: i32 = 1;
    pub const ACCESS_FLAGS: i32 = 1 << 3;
    pub const PKEY_INDEX: i32 = 1 << 4;
    pub const PORT: i32 = 1 << 5;
    pub const AV: i32 = 1 << 7;
    pub const PATH_MTU: i32 = 1 << 8;
    pub const TIMEOUT: i32 = 1 << 9;
    pub const RETRY_CNT: i32 = 1 << 10;
    pub const RNR_RETRY: i32 = 1 << 11;
    pub const RQ_PSN: i32 = 1 << 12;
    pub const MAX_QP_RD_ATOMIC: i32 = 1 << 13;
    pub const MIN_RNR_TIMER: i32 = 1 << 15;
    pub const SQ_PSN: i32 = 1 << 16;
    pub const MAX_DEST_RD_ATOMIC: i32 = 1 << 17;
    pub const DEST_QPN: i32 = 1 << 20;
}

#[repr(C)]
struct ContextHead {
    device: *mut c_void,
    /// `struct ibv_context_ops`: 32 entries, of which these are used.
    ops: [*const c_void; 32],
}

const OP_POLL_CQ: usize = 11;
const OP_POST_SEND: usize = 25;
const OP_POST_RECV: usize = 26;

/// The head of `struct ibv_pd` and `struct ibv_cq`.
#[repr(C)]
struct Owned {
    context: *mut ContextHead,
}

#[repr(C)]
struct Mr {
    context: *mut ContextHead,
    pd: *mut Owned,
    addr: *mut c_void,
    length: usize,
    handle: u32,
    lkey: u32,
    rkey: u32,
}

#[repr(C)]
struct QpHead {
    context: *mut ContextHead,
    qp_context: *mut c_void,
    pd: *mut Owned,
    send_cq: *mut Owned,
    recv_cq: *mut Owned,
    srq: *mut c_void,
    handle: u32,
    qp_num: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct QpCap {
    max_send_wr: u32,
    max_recv_wr: u32,
    max_send_sge: u32,
    max_recv_sge: u32,
    max_inline_data: u32,
}

#[repr(C)]
struct QpInitAttr {
    qp_context: *mut c_void,
    send_cq: *mut Owned,
    recv_cq: *mut Owned,
    srq: *mut c_void,
    cap: QpCap,
    qp_type: c_int,
    sq_sig_all: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct AhAttr {
    /// Aligned as a union with two `__be64`.
    dgid: [u64; 2],
    flow_label: u32,
    sgid_index: u8,
    hop_limit: u8,
    traffic_class: u8,
    dlid: u16,
    sl: u8,
    src_path_bits: u8,
    static_rate: u8,
    is_global: u8,
    port_num: u8,
}

#[repr(C)]
struct QpAttr {
    qp_state: c_int,
    cur_qp_state: c_int,
    path_mtu: c_int,
    path_mig_state: c_int,
    qkey: u32,
    rq_psn: u32,
    sq_psn: u32,
    dest_qp_num: u32,
    qp_access_flags: u32,
    cap: QpCap,
    ah_attr: AhAttr,
    alt_ah_attr: AhAttr,
    pkey_index: u16,
    alt_pkey_index: u16,
    en_sqd_async_notify: u8,
    sq_draining: u8,
    max_rd_atomic: u8,
    max_dest_rd_atomic: u8,
    min_rnr_timer: u8,
    port_num: u8,
    timeout: u8,
    retry_cnt: u8,
    rnr_retry: u8,
    alt_port_num: u8,
    alt_timeout: u8,
    rate_limit: u32,
}

#[repr(C)]
struct Sge {
    addr: u64,
    length: u32,
    lkey: u32,
}

#[repr(C)]
struct SendWr {
    wr_id: u64,
    next: *mut SendWr,
    sg_list: *mut Sge,
    num_sge: c_int,
    opcode: c_int,
    send_flags: u32,
    imm_data: u32,
    remote_addr: u64,
    rkey: u32,
    /// The rest of the unions, for what is not used here.
    rest: [u64; 9],
}

#[repr(C)]
struct RecvWr {
    wr_id: u64,
    next: *mut RecvWr,
    sg_list: *mut Sge,
    num_sge: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Wc {
    wr_id: u64,
    status: c_int,
    opcode: c_int,
    vendor_err: u32,
    byte_len: u32,
    imm_data: u32,
    qp_num: u32,
    src_qp: u32,
    wc_flags: u32,
    pkey_index: u16,
    slid: u16,
    sl: u8,
    dlid_path_bits: u8,
}

const _: () = {
    // Of a C program that includes infiniband/verbs.h.
    assert!(size_of::<AhAttr>() == 32);
    assert!(size_of::<QpAttr>() == 144);
    assert!(size_of::<QpInitAttr>() == 64);
    assert!(size_of::<SendWr>() == 128);
    assert!(size_of::<RecvWr>() == 32);
    assert!(size_of::<Wc>() == 48);
    assert!(size_of::<Mr>() == 48);
};

type PostSend = unsafe extern "C" fn(*mut QpHead, *mut SendWr, *mut *mut SendWr) -> c_int;
type PostRecv = unsafe extern "C" fn(*mut QpHead, *mut RecvWr, *mut *mut RecvWr) -> c_int;
type PollCq = unsafe extern "C" fn(*mut Owned, c_int, *mut Wc) -> c_int;

/// What is used of libibverbs.
struct Library {
    get_device_list: unsafe extern "C" fn(*mut c_int) -> *mut *mut c_void,
    free_device_list: unsafe extern "C" fn(*mut *mut c_void),
    get_device_name: unsafe extern "C" fn(*mut c_void) -> *const c_char,
    open_device: unsafe extern "C" fn(*mut c_void) -> *mut ContextHead,
    close_device: unsafe extern "C" fn(*mut ContextHead) -> c_int,
    alloc_pd: unsafe extern "C" fn(*mut ContextHead) -> *mut Owned,
    dealloc_pd: unsafe extern "C" fn(*mut Owned) -> c_int,
    reg_mr: unsafe extern "C" fn(*mut Owned, *mut c_void, usize, c_int) -> *mut Mr,
    dereg_mr: unsafe extern "C" fn(*mut Mr) -> c_int,
    create_cq: unsafe extern "C" fn(
        *mut ContextHead,
        c_int,
        *mut c_void,
        *mut c_void,
        c_int,
    ) -> *mut Owned,
    destroy_cq: unsafe extern "C" fn(*mut Owned) -> c_int,
    create_qp: unsafe extern "C" fn(*mut Owned, *mut QpInitAttr) -> *mut QpHead,
    modify_qp: unsafe extern "C" fn(*mut QpHead, *mut QpAttr, c_int) -> c_int,
    destroy_qp: unsafe extern "C" fn(*mut QpHead) -> c_int,
}

/// A function of the library.
///
/// # Safety
///
/// `F` is the type of the function that is there.
unsafe fn as_function<F: Copy>(symbol: NonNull<c_void>) -> F {
    // SAFETY: as the caller says; both are a pointer.
    unsafe { std::mem::transmute_copy(&symbol) }
}

/// Loads the library, once for the process.
fn library() -> Outcome<&'static Library> {
    static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
    let loaded = LIBRARY.get_or_init(|| {
        // SAFETY: a C string; the library stays loaded.
        let handle = unsafe { libc::dlopen(c"libibverbs.so.1".as_ptr(), libc::RTLD_NOW) };
        if handle.is_null() {
            return Err("libibverbs.so.1 cannot be loaded".to_owned());
        }
        let symbol = |name: &CStr| {
            // SAFETY: an open handle and a C string.
            let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
            NonNull::new(found).ok_or_else(|| format!("libibverbs.so.1 has no {name:?}"))
        };
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the function has the type of the field (infiniband/verbs.h).
                unsafe { as_function(symbol($name)?) }
            };
        }
        Ok(Library {
            get_device_list: function!(c"ibv_get_device_list"),
            free_device_list: function!(c"ibv_free_device_list"),
            get_device_name: function!(c"ibv_get_device_name"),
            open_device: function!(c"ibv_open_device"),
            close_device: function!(c"ibv_close_device"),
            alloc_pd: function!(c"ibv_alloc_pd"),
            dealloc_pd: function!(c"ibv_dealloc_pd"),
            reg_mr: function!(c"ibv_reg_mr"),
            dereg_mr: function!(c"ibv_dereg_mr"),
            create_cq: function!(c"ibv_create_cq"),
            destroy_cq: function!(c"ibv_destroy_cq"),
            create_qp: function!(c"ibv_create_qp"),
            modify_qp: function!(c"ibv_modify_qp"),
            destroy_qp: function!(c"ibv_destroy_qp"),
        })
    });
    loaded.as_ref().map_err(|error| Fail(error.clone()))
}

/// A pointer that the library gave, or why it gave none.
fn given<T>(pointer: *mut T, what: &str) -> Outcome<NonNull<T>> {
    NonNull::new(pointer)
        .ok_or_else(|| Fail(format!("{what}: {}", std::io::Error::last_os_error())))
}

fn done(result: c_int, what: &str) -> Outcome {
    check!(
        result == 0,
        "{what}: {}",
        std::io::Error::from_raw_os_error(result)
    );
    Ok(())
}

/// Messages that can be received before somebody looks.
const RECV_SLOTS: usize = 64;
/// Longer than any LLC message.
const RECV_LEN: usize = 8192;
/// Requests that can be under way.
const SEND_SLOTS: usize = 32;
/// The longest that is sent or written at once.
pub const SEND_LEN: usize = 16384;

/// Completions and receive requests of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Success,
    /// `enum ibv_wc_status`.
    Failed(i32),
}

/// `IBV_WC_REM_ACCESS_ERR`: the other side's device refuses.
pub const REMOTE_ACCESS_ERROR: Status = Status::Failed(10);

/// `IBV_WC_RETRY_EXC_ERR`: the other side's device does not answer.
pub const RETRIES_EXCEEDED: Status = Status::Failed(12);

/// What has come in by a receive request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    Message(Vec<u8>),
    /// An immediate, and how much was written with it.
    Immediate(u32, usize),
}

/// Where the other end of a queue pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FarEnd {
    pub gid: [u8; 16],
    pub qpn: u32,
    pub psn: u32,
    /// `enum ibv_mtu`.
    pub mtu: u8,
}

/// A reliably connected queue pair on a host's RDMA device with memory for messages, and a ring that
/// the other side may write to.
pub struct QueuePair {
    library: &'static Library,
    context: NonNull<ContextHead>,
    pd: NonNull<Owned>,
    cq: NonNull<Owned>,
    qp: NonNull<QpHead>,
    messages: Region,
    ring: Region,
    posted: u64,
    completed: u64,
    outcomes: VecDeque<Status>,
    came: VecDeque<Came>,
    gid: [u8; 16],
    gid_index: u8,
    pub psn: u32,
}

struct Region {
    memory: Box<[u8]>,
    mr: NonNull<Mr>,
}

impl QueuePair {
    /// A queue pair in INIT with all its receive requests posted, and a ring of `ring` bytes. Leaves
    /// the calling thread on the host.
    pub fn new(host: Host, ring: usize) -> Outcome<QueuePair> {
        sys::enter(host)?;
        let library = library()?;
        let (gid, gid_index) = ipv4_gid(host)?;
        let context = open(library, host.rdma_device())?;
        // SAFETY: the device is open.
        let pd = given(
            unsafe { (library.alloc_pd)(context.as_ptr()) },
            "ibv_alloc_pd",
        )?;
        let entries = (RECV_SLOTS + SEND_SLOTS) as c_int;
        // SAFETY: the device is open; no channel, no cookie.
        let cq =
            unsafe { (library.create_cq)(context.as_ptr(), entries, null_mut(), null_mut(), 0) };
        let cq = given(cq, "ibv_create_cq")?;
        let mut init = QpInitAttr {
            qp_context: null_mut(),
            send_cq: cq.as_ptr(),
            recv_cq: cq.as_ptr(),
            srq: null_mut(),
            cap: QpCap {
                max_send_wr: SEND_SLOTS as u32,
                max_recv_wr: RECV_SLOTS as u32,
                max_send_sge: 1,
                max_recv_sge: 1,
                max_inline_data: 0,
            },
            qp_type: QPT_RC,
            sq_sig_all: 0,
        };
        // SAFETY: both were just made, and `init` lives.
        let qp = unsafe { (library.create_qp)(pd.as_ptr(), &raw mut init) };
        let qp = given(qp, "ibv_create_qp")?;
        let register = |length: usize, access: c_int| -> Outcome<Region> {
            let mut memory = vec![0; length].into_boxed_slice();
            // SAFETY: the memory is there until the region is deregistered (see Drop).
            let mr = unsafe {
                (library.reg_mr)(pd.as_ptr(), memory.as_mut_ptr().cast(), length, access)
            };
            let mr = given(mr, "ibv_reg_mr")?;
            Ok(Region { memory, mr })
        };
        let messages = register(
            RECV_SLOTS * RECV_LEN + SEND_SLOTS * SEND_LEN,
            ACCESS_LOCAL_WRITE,
        )?;
        let ring = register(ring, ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE)?;
        let mut this = QueuePair {
            library,
            context,
            pd,
            cq,
            qp,
            messages,
            ring,
            posted: 0,
            completed: 0,
            outcomes: VecDeque::new(),
            came: VecDeque::new(),
            gid,
            gid_index,
            psn: 0x1234,
        };
        this.modify(
            mask::STATE | mask::PKEY_INDEX | mask::PORT | mask::ACCESS_FLAGS,
            |attr| {
                attr.qp_state = 1;
                attr.port_num = 1;
                attr.qp_access_flags = (ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE) as u32;
            },
        )
        .during("queue pair to INIT")?;
        for slot in 0..RECV_SLOTS {
            this.post_recv(slot)?;
        }
        Ok(this)
    }

    fn modify(&mut self, mask: i32, set: impl FnOnce(&mut QpAttr)) -> Outcome {
        // SAFETY: all zeroes is a valid value of these numbers.
        let mut attr: QpAttr = unsafe { zeroed() };
        set(&mut attr);
        // SAFETY: the queue pair lives, and so does `attr`.
        let result = unsafe { (self.library.modify_qp)(self.qp.as_ptr(), &raw mut attr, mask) };
        done(result, "ibv_modify_qp")
    }

    /// Connects it: to RTR and RTS.
    pub fn connect(&mut self, far: &FarEnd) -> Outcome {
        let (index, psn) = (self.gid_index, self.psn);
        let mut dgid = [0; 2];
        for (word, bytes) in dgid.iter_mut().zip(far.gid.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        }
        self.modify(
            mask::STATE
                | mask::AV
                | mask::PATH_MTU
                | mask::DEST_QPN
                | mask::RQ_PSN
                | mask::MAX_DEST_RD_ATOMIC
                | mask::MIN_RNR_TIMER,
            |attr| {
                attr.qp_state = 2;
                attr.path_mtu = far.mtu.into();
                attr.dest_qp_num = far.qpn;
                attr.rq_psn = far.psn;
                attr.max_dest_rd_atomic = 1;
                attr.min_rnr_timer = 12;
                attr.ah_attr.dgid = dgid;
                attr.ah_attr.sgid_index = index;
                attr.ah_attr.hop_limit = 64;
                attr.ah_attr.is_global = 1;
                attr.ah_attr.port_num = 1;
            },
        )
        .during("queue pair to RTR")?;
        self.modify(
            mask::STATE
                | mask::TIMEOUT
                | mask::RETRY_CNT
                | mask::RNR_RETRY
                | mask::SQ_PSN
                | mask::MAX_QP_RD_ATOMIC,
            |attr| {
                attr.qp_state = 3;
                // 67 ms, six times: 7 would be for ever on Soft-RoCE.
                attr.timeout = 14;
                attr.retry_cnt = 6;
                attr.rnr_retry = 7;
                attr.sq_psn = psn;
                attr.max_rd_atomic = 1;
            },
        )
        .during("queue pair to RTS")
    }

    pub fn gid(&self) -> [u8; 16] {
        self.gid
    }

    pub fn qpn(&self) -> u32 {
        // SAFETY: the queue pair lives.
        unsafe { self.qp.as_ref() }.qp_num
    }

    /// Key and address of the ring.
    pub fn ring_key(&self) -> (u32, u64) {
        // SAFETY: the region lives.
        let mr = unsafe { self.ring.mr.as_ref() };
        (mr.rkey, mr.addr as u64)
    }

    pub fn ring_len(&self) -> usize {
        self.ring.memory.len()
    }

    /// What is in the ring; the other side's device writes there meanwhile.
    pub fn ring_read(&self, offset: usize, length: usize) -> Vec<u8> {
        let memory = &self.ring.memory[offset..][..length];
        memory
            .iter()
            // SAFETY: a byte of a live slice; volatile, as a device writes.
            .map(|byte| unsafe { std::ptr::read_volatile(byte) })
            .collect()
    }

    fn operation<F: Copy>(&self, index: usize) -> F {
        // SAFETY: the context lives, and its table has 32 entries; callers name the type that the entry has in
        // infiniband/verbs.h, a function pointer.
        unsafe { std::mem::transmute_copy(&self.context.as_ref().ops[index]) }
    }

    fn post_recv(&mut self, slot: usize) -> Outcome {
        let (addr, lkey) = self.message_place(slot * RECV_LEN);
        let mut sge = Sge {
            addr,
            length: RECV_LEN as u32,
            lkey,
        };
        let mut wr = RecvWr {
            wr_id: RECV_ID | slot as u64,
            next: null_mut(),
            sg_list: &raw mut sge,
            num_sge: 1,
        };
        let mut bad = null_mut();
        let post: PostRecv = self.operation(OP_POST_RECV);
        // SAFETY: the queue pair, the request and its list live; the memory is registered.
        done(
            unsafe { post(self.qp.as_ptr(), &raw mut wr, &raw mut bad) },
            "ibv_post_recv",
        )
    }

    fn message_place(&self, offset: usize) -> (u64, u32) {
        // SAFETY: the region lives.
        let mr = unsafe { self.messages.mr.as_ref() };
        (mr.addr as u64 + offset as u64, mr.lkey)
    }

    /// A message.
    pub fn send(&mut self, message: &[u8]) -> Outcome {
        self.post(WR_SEND, message, (0, 0), 0)
    }

    /// Writes into the other side's memory.
    pub fn write(&mut self, data: &[u8], address: u64, rkey: u32) -> Outcome {
        self.post(WR_RDMA_WRITE, data, (address, rkey), 0)
    }

    /// Writes into the other side's memory, with an immediate.
    pub fn write_with_immediate(
        &mut self,
        data: &[u8],
        address: u64,
        rkey: u32,
        immediate: u32,
    ) -> Outcome {
        self.post(WR_RDMA_WRITE_WITH_IMM, data, (address, rkey), immediate)
    }

    /// Asks for `length` bytes of the other side's memory; see [`Self::settle`] for whether it gave them.
    pub fn read(&mut self, length: usize, address: u64, rkey: u32) -> Outcome {
        self.post(WR_RDMA_READ, &vec![0; length], (address, rkey), 0)
    }

    fn post(
        &mut self,
        opcode: c_int,
        data: &[u8],
        (remote_addr, rkey): (u64, u32),
        imm: u32,
    ) -> Outcome {
        check!(data.len() <= SEND_LEN, "{} bytes at once", data.len());
        // A slot must be free: requests complete in order, well or badly.
        let end = Instant::now() + sys::PATIENCE;
        while self.posted - self.completed >= SEND_SLOTS as u64 {
            check!(Instant::now() < end, "requests never complete");
            self.poll()?;
        }
        let offset = RECV_SLOTS * RECV_LEN + (self.posted as usize % SEND_SLOTS) * SEND_LEN;
        self.messages.memory[offset..][..data.len()].copy_from_slice(data);
        let (addr, lkey) = self.message_place(offset);
        let mut sge = Sge {
            addr,
            length: data.len() as u32,
            lkey,
        };
        // SAFETY: all zeroes is a valid value of these numbers and pointers.
        let mut wr: SendWr = unsafe { zeroed() };
        wr.wr_id = self.posted;
        wr.sg_list = &raw mut sge;
        wr.num_sge = c_int::from(!data.is_empty());
        wr.opcode = opcode;
        wr.send_flags = SEND_SIGNALED;
        wr.imm_data = imm.to_be();
        wr.remote_addr = remote_addr;
        wr.rkey = rkey;
        let mut bad = null_mut();
        let post: PostSend = self.operation(OP_POST_SEND);
        // SAFETY: the queue pair, the request and its list live; the memory is registered.
        done(
            unsafe { post(self.qp.as_ptr(), &raw mut wr, &raw mut bad) },
            "ibv_post_send",
        )?;
        self.posted += 1;
        Ok(())
    }

    /// Takes all completions that there are.
    fn poll(&mut self) -> Outcome {
        let poll: PollCq = self.operation(OP_POLL_CQ);
        loop {
            // SAFETY: all zeroes is a valid value of these numbers.
            let mut wc: Wc = unsafe { zeroed() };
            // SAFETY: the completion queue lives; there is room for one.
            let count = unsafe { poll(self.cq.as_ptr(), 1, &raw mut wc) };
            check!(count >= 0, "ibv_poll_cq: {count}");
            if count == 0 {
                return Ok(());
            }
            let status = match wc.status {
                0 => Status::Success,
                status => Status::Failed(status),
            };
            if wc.wr_id & RECV_ID == 0 {
                self.completed += 1;
                self.outcomes.push_back(status);
                continue;
            }
            if status != Status::Success {
                continue;
            }
            let slot = (wc.wr_id & !RECV_ID) as usize;
            let length = wc.byte_len as usize;
            self.came.push_back(if wc.opcode == WC_RECV_IMMEDIATE {
                Came::Immediate(u32::from_be(wc.imm_data), length)
            } else {
                Came::Message(self.messages.memory[slot * RECV_LEN..][..length].to_vec())
            });
            self.post_recv(slot)?;
        }
    }

    /// What has come in next; None after the time.
    pub fn receive(&mut self, limit: Duration) -> Outcome<Option<Came>> {
        let end = Instant::now() + limit;
        loop {
            self.poll()?;
            if let Some(came) = self.came.pop_front() {
                return Ok(Some(came));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until all that was posted has completed: how it did, in order, since the last time. None: not all within
    /// the time.
    pub fn settle(&mut self, limit: Duration) -> Outcome<Option<Vec<Status>>> {
        let end = Instant::now() + limit;
        loop {
            self.poll()?;
            if self.completed == self.posted {
                return Ok(Some(self.outcomes.drain(..).collect()));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        let library = self.library;
        // SAFETY: each was made by `new` and is not used any more; in the opposite order. An error leaves something
        // behind, which the oracles find.
        unsafe {
            (library.destroy_qp)(self.qp.as_ptr());
            (library.dereg_mr)(self.messages.mr.as_ptr());
            (library.dereg_mr)(self.ring.mr.as_ptr());
            (library.destroy_cq)(self.cq.as_ptr());
            (library.dealloc_pd)(self.pd.as_ptr());
            (library.close_device)(self.context.as_ptr());
        }
    }
}

/// Opens a device by its name.
fn open(library: &'static Library, name: &str) -> Outcome<NonNull<ContextHead>> {
    let mut count = 0;
    // SAFETY: `count` lives.
    let list = unsafe { (library.get_device_list)(&raw mut count) };
    let list = given(list, "ibv_get_device_list")?;
    let mut context = Err(Fail(format!("libibverbs knows no device {name}")));
    for index in 0..count as usize {
        // SAFETY: the list has `count` devices.
        let device = unsafe { *list.as_ptr().add(index) };
        // SAFETY: a device of the list, whose name is a C string.
        let this = unsafe { CStr::from_ptr((library.get_device_name)(device)) };
        if this.to_bytes() == name.as_bytes() {
            // SAFETY: a device of the list.
            context = given(unsafe { (library.open_device)(device) }, "ibv_open_device");
            break;
        }
    }
    // SAFETY: the list is not used any more; an open device stays.
    unsafe { (library.free_device_list)(list.as_ptr()) };
    context
}

/// The GID of a host's IPv4 address, and its place in the table.
fn ipv4_gid(host: Host) -> Outcome<([u8; 16], u8)> {
    let mut gid = [0; 16];
    gid[10..12].fill(0xff);
    gid[12..].copy_from_slice(&host.ipv4().octets());
    let words: Vec<String> = gid
        .chunks(2)
        .map(|pair| format!("{:02x}{:02x}", pair[0], pair[1]))
        .collect();
    let text = words.join(":");
    let dir = format!("/sys/class/infiniband/{}/ports/1", host.rdma_device());
    for index in 0..32u8 {
        let here = sys::read_file(&format!("{dir}/gids/{index}")).unwrap_or_default();
        let kind = sys::read_file(&format!("{dir}/gid_attrs/types/{index}")).unwrap_or_default();
        if here.trim() == text && kind.contains("v2") {
            return Ok((gid, index));
        }
    }
    Err(Fail(format!(
        "{} has no GID {text} of RoCEv2",
        host.rdma_device()
    )))
}
