// SPDX-License-Identifier: GPL-2.0

//! The command line.

use clap::Parser;
use std::time::Duration;

/// Shows the SMC sockets of this network namespace: without options those that are or were connected.
#[derive(Parser, Debug, Default)]
#[command(name = "smcss", version = smc_tools_common::VERSION, disable_version_flag = true)]
pub(crate) struct Args {
    /// Show all sockets, also listening and new ones
    #[arg(short, long, conflicts_with = "listening")]
    pub(crate) all: bool,
    /// Show listening sockets only
    #[arg(short, long, conflicts_with_all = ["debug", "smcr", "smcd"])]
    pub(crate) listening: bool,
    /// Show what is known of each connection: shutdown, sizes, cursors, flags
    #[arg(short, long)]
    pub(crate) debug: bool,
    /// Show SMC-R sockets only, with their links
    #[arg(short = 'R', long, conflicts_with = "smcd")]
    pub(crate) smcr: bool,
    /// Show SMC-D sockets only, with their shared memory
    #[arg(short = 'D', long)]
    pub(crate) smcd: bool,
    /// Do not cut addresses
    #[arg(short = 'W', long)]
    pub(crate) wide: bool,
    /// Print everything that is known as JSON: one object a listing, in one line
    #[arg(long)]
    pub(crate) json: bool,
    /// List again every SECONDS (1 if not given), with the bytes per second that each connection sends and receives
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "1", value_parser = interval)]
    pub(crate) watch: Option<Duration>,
    /// End after so many listings
    #[arg(long, value_name = "N", requires = "watch", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Show the version
    #[arg(short, long, action = clap::ArgAction::Version)]
    pub(crate) version: Option<bool>,
}

/// Seconds, also parts of one.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_string())?;
    if !(0.05..=86400.0).contains(&seconds) {
        return Err("not from 0.05 to 86400 seconds".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;

    fn parse(words: &str) -> Result<Args, ErrorKind> {
        let words = std::iter::once("smcss").chain(words.split_whitespace());
        Args::try_parse_from(words).map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn short_and_long_options_are_the_same() {
        for (short, long) in [
            ("-a", "--all"),
            ("-l", "--listening"),
            ("-d", "--debug"),
            ("-R", "--smcr"),
            ("-D", "--smcd"),
            ("-W", "--wide"),
        ] {
            assert_eq!(
                format!("{:?}", parse(short).unwrap()),
                format!("{:?}", parse(long).unwrap())
            );
        }
        let args = parse("-adRW").unwrap();
        assert!(args.all && args.debug && args.smcr && args.wide && !args.json);
        assert_eq!(parse("-v").unwrap_err(), ErrorKind::DisplayVersion);
        assert_eq!(parse("-h").unwrap_err(), ErrorKind::DisplayHelp);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for words in ["-l -a", "-l -d", "-l -R", "-l -D", "-R -D"] {
            assert_eq!(
                parse(words).unwrap_err(),
                ErrorKind::ArgumentConflict,
                "{words}"
            );
        }
        assert_eq!(
            parse("--count 3").unwrap_err(),
            ErrorKind::MissingRequiredArgument
        );
        assert!(parse("-x").is_err() && parse("word").is_err());
    }

    #[test]
    fn watch_has_an_interval() {
        assert_eq!(parse("").unwrap().watch, None);
        assert_eq!(
            parse("--watch").unwrap().watch,
            Some(Duration::from_secs(1))
        );
        assert_eq!(
            parse("--watch=0.5 --count 2").unwrap().watch,
            Some(Duration::from_millis(500))
        );
        for wrong in [
            "--watch=0",
            "--watch=x",
            "--watch=NaN",
            "--watch=1e9",
            "--watch --count 0",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
