// SPDX-License-Identifier: GPL-2.0

//! smc_run: starts a program whose TCP sockets become SMC sockets, by preloading
//! `libsmc-preload.so`.

#![forbid(unsafe_code)]

mod args;
mod library;

use args::{Args, Size};
use clap::Parser;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Exit codes: a wrong option, and those of the shell for programs that cannot be started.
const WRONG_OPTION: u8 = 1;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nothing more can be done if even that cannot be printed.
            let _ = error.print();
            return match error.exit_code() {
                0 => ExitCode::SUCCESS,
                _ => WRONG_OPTION.into(),
            };
        }
    };
    let (code, words) = start(&args);
    eprintln!("smc_run: error: {words}");
    code.into()
}

/// Becomes the program; the exit code and the reason if it cannot.
fn start(args: &Args) -> (u8, String) {
    let Some((program, parameters)) = args.program.split_first() else {
        return (WRONG_OPTION, "no program is named".into());
    };
    let library = match library::find() {
        Ok(library) => library,
        Err(words) => return (NOT_FOUND, words),
    };
    let mut command = Command::new(program);
    command.args(parameters).env(
        "LD_PRELOAD",
        preload(std::env::var_os("LD_PRELOAD"), library.as_os_str()),
    );
    if args.debug {
        command.env("SMC_DEBUG", "1");
    }
    if let Some(family) = args.family {
        command.env("SMC_SOCK_FAMILY", family.variable());
    }
    for (size, variable, limit) in [
        (args.receive, "SMC_RCVBUF", "rmem_max"),
        (args.transmit, "SMC_SNDBUF", "wmem_max"),
    ] {
        if let Some(size) = size {
            command.env(variable, size.bytes().to_string());
            raise(limit, size);
        }
    }
    let error = command.exec();
    let code = if error.kind() == io::ErrorKind::NotFound {
        NOT_FOUND
    } else {
        NOT_EXECUTABLE
    };
    (code, format!("{}: {error}", Path::new(program).display()))
}

/// Ours behind what is preloaded already, once.
fn preload(others: Option<OsString>, library: &OsStr) -> OsString {
    let others = others.unwrap_or_default();
    let separators = |&byte: &u8| byte == b':' || byte == b' ';
    if others
        .as_encoded_bytes()
        .split(separators)
        .any(|other| other == library.as_encoded_bytes())
    {
        return others;
    }
    let mut all = others;
    if !all.is_empty() {
        all.push(":");
    }
    all.push(library);
    all
}

/// Raises a limit of the kernel that is lower than the size; without the right to, the kernel will
/// cut the size down.
fn raise(limit: &str, size: Size) {
    let path = format!("/proc/sys/net/core/{limit}");
    // A network namespace that does not show the limit does not let it be raised either.
    let Ok(text) = fs::read_to_string(&path) else {
        return;
    };
    let now = text.trim().parse::<u64>().unwrap_or(0);
    if now >= u64::from(size.bytes()) {
        return;
    }
    if let Err(error) = fs::write(&path, size.bytes().to_string()) {
        eprintln!("smc_run: warning: net.core.{limit} stays as it is and limits the size: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_comes_behind_others_and_once() {
        let ours = OsStr::new("/usr/lib/libsmc-preload.so");
        let with = |others: Option<&str>| {
            preload(others.map(OsString::from), ours)
                .into_string()
                .unwrap()
        };
        assert_eq!(with(None), "/usr/lib/libsmc-preload.so");
        assert_eq!(with(Some("")), "/usr/lib/libsmc-preload.so");
        assert_eq!(
            with(Some("libjemalloc.so.2")),
            "libjemalloc.so.2:/usr/lib/libsmc-preload.so"
        );
        for already in [
            "/usr/lib/libsmc-preload.so",
            "a.so /usr/lib/libsmc-preload.so",
            "/usr/lib/libsmc-preload.so:b.so",
        ] {
            assert_eq!(with(Some(already)), already);
        }
    }
}
