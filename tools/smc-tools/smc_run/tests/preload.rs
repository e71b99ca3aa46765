// SPDX-License-Identifier: GPL-2.0

//! The real library in a real program: this one, started again. Whether this machine's kernel has
//! SMC or not, the program must not notice.

#![allow(clippy::unwrap_used, reason = "it is a test")]

use std::env;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Says to the process started again that it is that.
const INSIDE: &str = "SMC_TEST_INSIDE";

/// The library, built for release as it is used, in a directory of its own with its final name.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("preload");
        let output = Command::new(env!("CARGO"))
            .args([
                "build",
                "--profile",
                "preload",
                "--locked",
                "-p",
                "smc-preload",
            ])
            .arg("--target-dir")
            .arg(&target)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let library = target.join("libsmc-preload.so");
        std::fs::copy(target.join("preload/libsmc_preload.so"), &library).unwrap();
        library
    })
}

fn smc_run(arguments: &[&OsStr]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smc_run"));
    command
        .args(arguments)
        .env_remove("LD_PRELOAD")
        .env_remove("SMC_DEBUG")
        .env("SMC_PRELOAD", library());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One test of this file in a process of its own, under smc_run.
fn inside(options: &[&str], test: &str) -> Output {
    let myself = env::current_exe().unwrap();
    let mut words: Vec<&OsStr> = options.iter().map(OsStr::new).collect();
    words.push(myself.as_os_str());
    words.extend(["--exact", test, "--nocapture", "--test-threads=1"].map(OsStr::new));
    let output = smc_run(&words).env(INSIDE, "1").output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

fn own_errno() -> &'static mut i32 {
    // SAFETY: the calling thread's own; no other reference to it is kept.
    unsafe { &mut *libc::__errno_location() }
}

#[test]
fn bytes_go_through_and_errno_is_kept() {
    if !is_inside() {
        let output = inside(&["-d", "-r", "64k"], "bytes_go_through_and_errno_is_kept");
        let said = text(&output.stderr);
        let mapped = said.contains("libsmc-preload: map sock to AF_SMC");
        let kept = said.contains("libsmc-preload: this kernel has no SMC sockets");
        assert!(mapped || kept, "{said}");
        assert!(said.contains("SO_RCVBUF set to 65536, rc=0"), "{said}");
        return;
    }
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address) else {
            // A machine without IPv6.
            assert!(address.starts_with('['));
            continue;
        };
        let to = listener.local_addr().unwrap();
        let client = std::thread::spawn(move || {
            let mut client = TcpStream::connect(to).unwrap();
            client.write_all(b"question").unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        });
        let (mut server, _) = listener.accept().unwrap();
        let mut question = String::new();
        server.read_to_string(&mut question).unwrap();
        server.write_all(b"answer").unwrap();
        drop(server);
        assert_eq!(
            (question.as_str(), client.join().unwrap().as_str()),
            ("question", "answer")
        );
    }
    *own_errno() = 4242;
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
    assert_eq!((fd >= 0, *own_errno()), (true, 4242));
    // The size that was asked for, as the kernel shows it: twice.
    let mut size = 0i32;
    let mut length = 4;
    // SAFETY: `size` and `length` are alive, and `length` says how long `size` is.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw mut size).cast(),
            &raw mut length,
        )
    };
    assert_eq!((result, size), (0, 2 << 16));
    // SAFETY: no pointers.
    unsafe { libc::close(fd) };
    // Errors are the kernel's own.
    *own_errno() = 0;
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 77) };
    assert_eq!((fd, *own_errno()), (-1, libc::EPROTONOSUPPORT));
    // Nobody else's sockets are touched.
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) };
    assert!(fd >= 0);
    // SAFETY: no pointers.
    unsafe { libc::close(fd) };
}

#[test]
fn a_program_hears_nothing_without_debug() {
    if !is_inside() {
        let output = inside(&[], "a_program_hears_nothing_without_debug");
        let said = text(&output.stderr);
        assert!(!said.contains("libsmc-preload"), "{said}");
        return;
    }
    assert!(TcpListener::bind("127.0.0.1:0").is_ok());
    let preloaded = env::var("LD_PRELOAD").unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(
        maps.contains(preloaded.as_str()),
        "{preloaded} is not loaded"
    );
}

#[test]
fn debug_of_the_environment_is_kept() {
    for (value, wanted) in [("1", "1\n"), ("0", "0\n")] {
        let words = ["sh", "-c", "echo $SMC_DEBUG"].map(OsStr::new);
        let output = smc_run(&words).env("SMC_DEBUG", value).output().unwrap();
        assert_eq!(text(&output.stdout), wanted);
    }
    let words = ["-d", "sh", "-c", "echo $SMC_DEBUG"].map(OsStr::new);
    let output = smc_run(&words).env("SMC_DEBUG", "0").output().unwrap();
    assert_eq!(text(&output.stdout), "1\n");
}

/// The library needs of the C library what is listed here, and nothing of Rust's run-time.
#[test]
fn the_library_needs_the_c_library_only() {
    let file = std::fs::read(library()).unwrap();
    let has = |name: &[u8]| {
        file.windows(name.len() + 2)
            .any(|at| at[0] == 0 && at[1..=name.len()] == *name && at[name.len() + 1] == 0)
    };
    assert!(has(b"libc.so.6") && has(b"socket") && has(b"dlsym") && has(b"__errno_location"));
    for foreign in [
        &b"libgcc_s.so.1"[..],
        b"libpthread.so.0",
        b"malloc",
        b"free",
        b"pthread_mutex_lock",
        b"rust_eh_personality",
        b"_Unwind_Resume",
    ] {
        assert!(!has(foreign), "{}", text(foreign));
    }
}

#[test]
fn exit_codes_and_errors_are_plain() {
    let run = |words: &[&str]| {
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        let output = smc_run(&words).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    assert_eq!(run(&["sh", "-c", "exit 42"]), (Some(42), String::new()));
    let (code, said) = run(&["/nonexistent/program"]);
    assert_eq!((code, said.lines().count()), (Some(127), 1), "{said}");
    let (code, said) = run(&["/dev/null"]);
    assert_eq!((code, said.lines().count()), (Some(126), 1), "{said}");
    assert_eq!(run(&["-z", "sh"]).0, Some(1));
    assert_eq!(run(&[]).0, Some(1));
    let output = Command::new(env!("CARGO_BIN_EXE_smc_run"))
        .args(["sh", "-c", "true"])
        .env("SMC_PRELOAD", "/nonexistent/library.so")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(text(&output.stderr).contains("no such file"));
}
