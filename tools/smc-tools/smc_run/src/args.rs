// SPDX-License-Identifier: GPL-2.0

//! The command line.

use clap::{Parser, ValueEnum};
use std::ffi::OsString;

/// Starts a program whose TCP sockets become SMC sockets; its children's, too.
#[derive(Parser, Debug)]
#[command(name = "smc_run", version = smc_tools_common::VERSION, disable_version_flag = true)]
pub(crate) struct Args {
    /// Tell on standard error what happens to each socket
    #[arg(short, long)]
    pub(crate) debug: bool,
    /// Receive buffer of each socket, in bytes, or with k and m: 8k to 512k
    #[arg(short, long, value_name = "SIZE", value_parser = size)]
    pub(crate) receive: Option<Size>,
    /// Transmit buffer of each socket, likewise
    #[arg(short, long, value_name = "SIZE", value_parser = size)]
    pub(crate) transmit: Option<Size>,
    /// Which sockets are made: AF_SMC, IPPROTO_SMC (a socket keeps its family), or what the kernel has
    #[arg(short, long)]
    pub(crate) family: Option<Family>,
    /// Show the version
    #[arg(short, long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// The program and its parameters
    #[arg(required = true, trailing_var_arg = true)]
    pub(crate) program: Vec<OsString>,
}

/// Which SMC sockets are made.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// AF_SMC
    Smc,
    /// IPPROTO_SMC
    Inet,
    /// IPPROTO_SMC if the kernel has it, else AF_SMC
    Auto,
}

impl Family {
    /// What SMC_SOCK_FAMILY is for it.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Family::Smc => "smc",
            Family::Inet => "inet",
            Family::Auto => "auto",
        }
    }
}

/// Bytes of a buffer, which the kernel takes as an `int`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(u32);

impl Size {
    pub(crate) fn bytes(self) -> u32 {
        self.0
    }
}

fn size(text: &str) -> Result<Size, String> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1 << 10),
        None => match text.strip_suffix(['m', 'M']) {
            Some(digits) => (digits, 1 << 20),
            None => (text, 1),
        },
    };
    let bytes = digits
        .parse::<u32>()
        .ok()
        .filter(|_| !digits.starts_with('+'))
        .and_then(|number| number.checked_mul(unit))
        .filter(|&bytes| bytes > 0 && i32::try_from(bytes).is_ok());
    bytes
        .map(Size)
        .ok_or_else(|| "not a number of bytes above 0, with or without k or m".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once(&"smc_run").chain(words))
    }

    #[test]
    fn the_definition_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn options_end_where_the_program_begins() {
        let args = parse(&["-d", "-r", "512k", "-t", "1m", "curl", "-v", "--", "-x"]).unwrap();
        assert!(args.debug);
        assert_eq!(args.receive, Some(Size(512 << 10)));
        assert_eq!(args.transmit, Some(Size(1 << 20)));
        assert_eq!(args.program, ["curl", "-v", "--", "-x"]);
        let args = parse(&["redis-cli", "-d", "x"]).unwrap();
        assert!(!args.debug && args.family.is_none());
        assert_eq!(args.program.len(), 3);
        assert_eq!(
            parse(&["-f", "auto", "x"]).unwrap().family,
            Some(Family::Auto)
        );
        assert!(parse(&[]).is_err());
        assert!(parse(&["-d"]).is_err());
        assert!(parse(&["-x", "curl"]).is_err());
    }

    #[test]
    fn sizes_are_numbers_with_units() {
        assert_eq!(size("16384"), Ok(Size(16384)));
        assert_eq!(size("8K"), Ok(Size(8192)));
        assert_eq!(size("1M"), Ok(Size(1 << 20)));
        for wrong in [
            "",
            "k",
            "0",
            "-1",
            "+1",
            "1g",
            "2048m",
            "99999999999",
            "1kk",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
