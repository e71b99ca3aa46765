// SPDX-License-Identifier: GPL-2.0

//! The command lines of smcr and smcd.

use clap::{ArgAction, Args, Parser, Subcommand};
use std::ffi::OsString;
use std::time::Duration;

/// Shows SMC-R devices, link groups, links and statistics, and sets enterprise IDs.
///
/// Names of objects and commands may be cut short, down to where they are still unique.
#[derive(Parser, Debug)]
#[command(name = "smcr", version = smc_tools_common::VERSION, disable_version_flag = true, infer_subcommands = true,
    infer_long_args = true, arg_required_else_help = true)]
pub struct Smcr {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) object: SmcrObject,
}

/// Tells what there is of SMC-D: this module has none. Statistics and enterprise IDs are there as with smcr.
#[derive(Parser, Debug)]
#[command(name = "smcd", version = smc_tools_common::VERSION, disable_version_flag = true, infer_subcommands = true,
    infer_long_args = true, arg_required_else_help = true)]
pub struct Smcd {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) object: SmcdObject,
}

/// Options before or behind the object.
#[derive(Args, Debug, Default)]
pub(crate) struct Options {
    /// Show more; given twice (-dd), still more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) details: u8,
    /// Statistics since the module was loaded, not since 'stats reset'
    #[arg(short, long, global = true)]
    pub(crate) absolute: bool,
    /// Print as JSON, one object in one line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Show the version
    #[arg(short, long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// What smcr is about.
#[derive(Subcommand, Debug)]
pub(crate) enum SmcrObject {
    /// RDMA devices that SMC-R may use, and their ports
    Device(Device),
    /// Link groups and links
    #[command(args_conflicts_with_subcommands = true, infer_subcommands = true)]
    Linkgroup {
        #[command(subcommand)]
        action: Option<LinkgroupAction>,
        #[command(flatten)]
        which: Which,
    },
    /// What the kernel and the devices are able to do
    Info {
        /// The only command, also if it is left out
        #[arg(value_parser = show)]
        show: Option<String>,
    },
    /// Counters of this network namespace
    #[command(infer_subcommands = true)]
    Stats {
        #[command(subcommand)]
        action: Option<StatsAction>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Enterprise IDs: hosts with one in common use SMC-Rv2 with each other
    #[command(infer_subcommands = true)]
    Ueid {
        #[command(subcommand)]
        action: Option<UeidAction>,
    },
}

/// What smcd is about.
#[derive(Subcommand, Debug)]
pub(crate) enum SmcdObject {
    /// ISM devices: none
    Device {
        /// The only command, also if it is left out
        #[arg(value_parser = show)]
        show: Option<String>,
        /// All of them, also if it is left out
        all: Option<String>,
    },
    /// Link groups of SMC-D: none
    Linkgroup {
        /// The only command, also if it is left out
        #[arg(value_parser = show)]
        show: Option<String>,
        /// All of them, or a number
        which: Option<String>,
    },
    /// What the kernel and the devices are able to do
    Info {
        /// The only command, also if it is left out
        #[arg(value_parser = show)]
        show: Option<String>,
    },
    /// The system enterprise ID, which comes with ISM devices
    #[command(infer_subcommands = true)]
    Seid {
        #[command(subcommand)]
        action: Option<SeidAction>,
    },
    /// Counters of this network namespace
    #[command(infer_subcommands = true)]
    Stats {
        #[command(subcommand)]
        action: Option<StatsAction>,
        #[command(flatten)]
        watch: Watch,
    },
    /// Enterprise IDs, as of smcr
    #[command(infer_subcommands = true)]
    Ueid {
        #[command(subcommand)]
        action: Option<UeidAction>,
    },
}

/// Which devices.
#[derive(Args, Debug)]
pub(crate) struct Device {
    /// [show] [all] [ibdev DEVICE] [netdev DEVICE]
    #[arg(value_name = "WORDS", num_args = 0..)]
    pub(crate) words: Vec<String>,
}

/// Which link groups or links.
#[derive(Args, Debug, Default)]
pub(crate) struct Which {
    /// [all | LG-ID] [ibdev DEVICE] [netdev DEVICE]
    #[arg(value_name = "WORDS", num_args = 0..)]
    pub(crate) words: Vec<String>,
}

/// What to do with link groups.
#[derive(Subcommand, Debug)]
pub(crate) enum LinkgroupAction {
    /// Show link groups: if no command is given
    Show(Which),
    /// Show the links of link groups
    LinkShow(Which),
}

/// What to do with statistics.
#[derive(Subcommand, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatsAction {
    /// Show them: if no command is given
    Show,
    /// Show them, and from now on only what is counted later; for this user and network namespace
    Reset,
    /// Show them as JSON, as --json
    Json,
}

/// Again and again.
#[derive(Args, Debug, Default)]
pub(crate) struct Watch {
    /// Show every SECONDS (1 if not given) what went on per second
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "1", value_parser = interval)]
    pub(crate) watch: Option<Duration>,
    /// End after so many lines of --watch
    #[arg(long, value_name = "N", requires = "watch", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}

/// What to do with enterprise IDs.
#[derive(Subcommand, Debug)]
pub(crate) enum UeidAction {
    /// List those of this network namespace: if no command is given
    Show,
    /// Add one, for connections made from now on
    Add {
        /// 1 to 32 characters: A-Z, 0-9, '.' and '-'
        eid: String,
    },
    /// Remove one
    Del {
        /// As 'show' lists it
        eid: String,
    },
    /// Remove all: without any there is no SMC-Rv2
    Flush,
}

/// What to do with the system enterprise ID.
#[derive(Subcommand, Debug)]
pub(crate) enum SeidAction {
    /// Show it: if no command is given
    Show,
    /// Take it into use
    Enable,
    /// Take it out of use
    Disable,
}

/// A word that may be cut short.
pub(crate) fn is_short_for(word: &str, whole: &str) -> bool {
    !word.is_empty() && whole.starts_with(word)
}

fn show(word: &str) -> Result<String, String> {
    if is_short_for(word, "show") {
        Ok(word.into())
    } else {
        Err("the only command is 'show'".into())
    }
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

/// IBM's tools take long options with one hyphen, too, and cut short (`-det`, `-ddetails`): before the
/// object, as here.
pub(crate) fn in_our_spelling(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut before_object = true;
    let mut words = words.into_iter();
    let program = words.next();
    let rest = words.map(|word| {
        let Some(text) = word.to_str().filter(|_| before_object) else {
            return word;
        };
        let Some(name) = text.strip_prefix('-') else {
            before_object = false;
            return word;
        };
        let name = name.strip_prefix('-').unwrap_or(name);
        match name {
            _ if is_short_for(name, "ddetails") && name != "d" => "-dd".into(),
            _ if name.len() < 2 => word,
            _ => ["absolute", "details", "version", "help"]
                .into_iter()
                .find(|whole| is_short_for(name, whole))
                .map_or(word, |whole| format!("--{whole}").into()),
        }
    });
    program.into_iter().chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;
    use clap::CommandFactory;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn parse(line: &str) -> Result<Smcr, ErrorKind> {
        Smcr::try_parse_from(in_our_spelling(words(&format!("smcr {line}"))))
            .map_err(|error| error.kind())
    }

    #[test]
    fn the_definitions_are_sound() {
        Smcr::command().debug_assert();
        Smcd::command().debug_assert();
    }

    #[test]
    fn options_in_ibms_spelling() {
        for (line, wanted) in [
            ("smcr -d dev", "smcr -d dev"),
            ("smcr -dd dev", "smcr -dd dev"),
            ("smcr -ddetails dev", "smcr -dd dev"),
            ("smcr --ddet dev", "smcr -dd dev"),
            ("smcr -det dev", "smcr --details dev"),
            ("smcr -absolute -d stats", "smcr --absolute -d stats"),
            ("smcr -ad stats", "smcr -ad stats"),
            ("smcr -version", "smcr --version"),
            ("smcr --json dev -det", "smcr --json dev -det"),
        ] {
            assert_eq!(in_our_spelling(words(line)), words(wanted), "{line}");
        }
        let options = |line| parse(line).unwrap().options;
        assert_eq!(options("-ddetails link show").details, 2);
        assert!(options("-da stats").absolute && options("-da stats").details == 1);
        assert_eq!(options("linkgroup link-show -d").details, 1);
    }

    #[test]
    fn objects_and_commands_may_be_cut_short() {
        let which = |line| match parse(line).unwrap().object {
            SmcrObject::Linkgroup {
                action: Some(LinkgroupAction::Show(which)),
                ..
            } => (false, which.words),
            SmcrObject::Linkgroup {
                action: Some(LinkgroupAction::LinkShow(which)),
                ..
            } => (true, which.words),
            SmcrObject::Linkgroup { which, .. } => (false, which.words),
            other => panic!("{other:?}"),
        };
        assert_eq!(which("l"), (false, vec![]));
        assert_eq!(which("link show"), (false, vec![]));
        assert_eq!(which("linkgroup link-show"), (true, vec![]));
        assert_eq!(which("l l all"), (true, vec!["all".into()]));
        assert_eq!(
            which("linkgroup ibdev rxe0"),
            (false, vec!["ibdev".into(), "rxe0".into()])
        );
        assert_eq!(which("link 00000100"), (false, vec!["00000100".into()]));
        assert!(matches!(
            parse("s r").unwrap().object,
            SmcrObject::Stats {
                action: Some(StatsAction::Reset),
                ..
            }
        ));
        assert!(matches!(
            parse("u d ABC").unwrap().object,
            SmcrObject::Ueid {
                action: Some(UeidAction::Del { .. })
            }
        ));
        assert!(matches!(
            parse("i s").unwrap().object,
            SmcrObject::Info { .. }
        ));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "nonsense",
            "info hide",
            "ueid add",
            "stats --count 2",
            "stats --watch=0",
            "-x device",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert_eq!(parse("-v").unwrap_err(), ErrorKind::DisplayVersion);
        assert_eq!(parse("help").unwrap_err(), ErrorKind::DisplayHelp);
        assert_eq!(
            parse("").unwrap_err(),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        );
    }

    #[test]
    fn statistics_may_be_watched() {
        let watch = |line| match parse(line).unwrap().object {
            SmcrObject::Stats { watch, .. } => (watch.watch, watch.count),
            other => panic!("{other:?}"),
        };
        assert_eq!(watch("stats"), (None, None));
        assert_eq!(
            watch("stats --watch=0.5 --count 3"),
            (Some(Duration::from_millis(500)), Some(3))
        );
        assert_eq!(watch("stats --watch").0, Some(Duration::from_secs(1)));
    }
}
