// SPDX-License-Identifier: GPL-2.0

//! What the program calls: `socket()`, and what runs when the library is loaded.

use crate::choice::{open, Call, Outcome};
use crate::settings::{self, Family};
use core::ffi::CStr;
use core::fmt::{self, Write};
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, Ordering};
use libc::{c_char, c_int, c_void};

/// The `socket()` behind ours: that of another preloaded library, or of the C library.
type Socket = unsafe extern "C" fn(c_int, c_int, c_int) -> c_int;

/// Null until the library was initialized; all the others are set before it.
static NEXT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static DEBUG: AtomicBool = AtomicBool::new(false);
static FAMILY: AtomicU8 = AtomicU8::new(0);
/// Bytes; 0: as the kernel has it.
static SNDBUF: AtomicI32 = AtomicI32::new(0);
static RCVBUF: AtomicI32 = AtomicI32::new(0);

/// Runs when the library is loaded, before the program's `main`: so that `socket()` itself need not
/// look anything up.
#[used]
#[link_section = ".init_array"]
static AT_LOAD: extern "C" fn() = at_load;

extern "C" fn at_load() {
    next();
}

/// The `socket()` behind ours. Initializes the library if a constructor of another one was faster;
/// twice does no harm.
fn next() -> *mut c_void {
    let known = NEXT.load(Ordering::Acquire);
    if !known.is_null() {
        return known;
    }
    DEBUG.store(settings::debug(variable(c"SMC_DEBUG")), Ordering::Relaxed);
    FAMILY.store(
        settings::family(variable(c"SMC_SOCK_FAMILY")) as u8,
        Ordering::Relaxed,
    );
    for (name, size) in [(c"SMC_SNDBUF", &SNDBUF), (c"SMC_RCVBUF", &RCVBUF)] {
        let value = variable(name);
        let bytes = settings::size(value);
        if bytes.is_none() && value.is_some() && DEBUG.load(Ordering::Relaxed) {
            say(format_args!("{} is no size", name.to_str().unwrap_or("?")));
        }
        size.store(bytes.unwrap_or(0), Ordering::Relaxed);
    }
    // SAFETY: the name is a C string. RTLD_NEXT means the objects behind this one.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"socket".as_ptr()) };
    NEXT.store(found, Ordering::Release);
    found
}

/// A variable of the environment. Valid while nobody changes it, which nobody does while libraries
/// are loaded.
fn variable(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: the name is a C string.
    let value: *const c_char = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: `getenv` gives a C string in the environment, which is not changed while libraries are
    // loaded; callers are done with it by then.
    Some(unsafe { CStr::from_ptr(value) }.to_bytes())
}

fn family() -> Family {
    match FAMILY.load(Ordering::Relaxed) {
        value if value == Family::Inet as u8 => Family::Inet,
        value if value == Family::Auto as u8 => Family::Auto,
        _ => Family::Smc,
    }
}

fn errno() -> c_int {
    // SAFETY: it is the calling thread's own, and alive as long as the thread.
    unsafe { *libc::__errno_location() }
}

fn set_errno(errno: c_int) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Calls the `socket()` behind ours.
fn make(next: *mut c_void, call: Call) -> Result<c_int, c_int> {
    let fd = if next.is_null() {
        // No C library that has one. The system call does the same.
        // SAFETY: no pointers.
        let fd = unsafe { libc::syscall(libc::SYS_socket, call.domain, call.kind, call.protocol) };
        c_int::try_from(fd).unwrap_or(-1)
    } else {
        // SAFETY: `dlsym` gave the address of the function `socket`, whose type this is.
        let socket = unsafe { mem::transmute::<*mut c_void, Socket>(next) };
        // SAFETY: no pointers.
        unsafe { socket(call.domain, call.kind, call.protocol) }
    };
    if fd < 0 {
        Err(errno())
    } else {
        Ok(fd)
    }
}

/// Gives a socket the sizes that the user wants. A kernel that refuses is not the program's business.
fn set_sizes(fd: c_int, debug: bool) {
    for (size, option, name) in [
        (&SNDBUF, libc::SO_SNDBUF, "SO_SNDBUF"),
        (&RCVBUF, libc::SO_RCVBUF, "SO_RCVBUF"),
    ] {
        let size = size.load(Ordering::Relaxed);
        if size == 0 {
            continue;
        }
        // SAFETY: `size` is alive and as long as is said.
        let result = unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                option,
                (&raw const size).cast(),
                size_of::<c_int>() as libc::socklen_t,
            )
        };
        if debug {
            say(format_args!("{name} set to {size}, rc={result}"));
        }
    }
}

/// Like the C library's, but for TCP sockets, which become SMC sockets if the kernel has any.
#[no_mangle]
pub(crate) extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    let before = errno();
    let next = next();
    let debug = DEBUG.load(Ordering::Relaxed);
    let call = Call {
        domain,
        kind,
        protocol,
    };
    let mut made = call;
    let outcome = open(call, family(), |call| {
        made = call;
        make(next, call)
    });
    let result = match outcome {
        Outcome::Other(result) => result,
        Outcome::Smc(result) => {
            if debug {
                let kind = if made.domain == domain {
                    "IPPROTO_SMC"
                } else {
                    "AF_SMC"
                };
                say(format_args!("map sock to {kind}"));
            }
            result
        }
        Outcome::Tcp(result, why) => {
            if debug {
                say(format_args!(
                    "this kernel has no SMC sockets (errno {why}): sock stays TCP"
                ));
            }
            result
        }
    };
    if let (Outcome::Smc(_) | Outcome::Tcp(..), Ok(fd)) = (outcome, result) {
        set_sizes(fd, debug);
    }
    // What went on in between is not for the program to see.
    match result {
        Ok(fd) => {
            set_errno(before);
            fd
        }
        Err(errno) => {
            set_errno(errno);
            -1
        }
    }
}

/// A line on standard error, in one write.
fn say(words: fmt::Arguments<'_>) {
    struct Line {
        bytes: [u8; 120],
        len: usize,
    }

    impl Write for Line {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            for (to, from) in self.bytes.iter_mut().skip(self.len).zip(part.bytes()) {
                *to = from;
                self.len = self.len.saturating_add(1);
            }
            Ok(())
        }
    }

    let mut line = Line {
        bytes: [0; 120],
        len: 0,
    };
    // Writing to memory does not fail; what is too long is cut off.
    let _ = writeln!(line, "libsmc-preload: {words}");
    // SAFETY: `bytes` is alive and at least `len` long.
    unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.len) };
}

/// Nothing here panics; Rust wants to know what would happen.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: `abort` may be called at any time.
    unsafe { libc::abort() }
}
