// SPDX-License-Identifier: GPL-2.0

//! The command line.

use clap::Parser;

/// Says whether SMC can be used on this machine, or with a peer, and if not, why and what to do.
///
/// Without -C, -S or -i it looks at this machine. With -C it also looks at the way to the peer and makes an SMC
/// connection to a port there: that of any server, or of 'smc_chk -S'. It ends with 0 if every check passed.
#[derive(Parser, Debug, Default)]
#[command(name = "smc_chk", version = smc_tools_common::VERSION, disable_version_flag = true)]
pub(crate) struct Args {
    /// Check a peer: a name or an address
    #[arg(short = 'C', long, value_name = "HOST", conflicts_with_all = ["server", "pnetid"])]
    pub(crate) connect: Option<String>,
    /// Serve checks of other hosts until it is killed
    #[arg(short = 'S', long, conflicts_with = "pnetid")]
    pub(crate) server: bool,
    /// Print the PNETID of an interface and end
    #[arg(short = 'i', long, value_name = "INTERFACE")]
    pub(crate) pnetid: Option<String>,
    /// Port to connect to; with -S the first one that is free from there on
    #[arg(short, long, default_value_t = 37373, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// Use IPv6
    #[arg(short = '6', long)]
    pub(crate) ipv6: bool,
    /// Also show what was looked at for each check
    #[arg(short, long)]
    pub(crate) debug: bool,
    /// Print as JSON, one object in one line; with -S one for each connection
    #[arg(long)]
    pub(crate) json: bool,
    /// Look at these interfaces only
    #[arg(value_name = "INTERFACE", conflicts_with_all = ["connect", "server", "pnetid"])]
    pub(crate) interfaces: Vec<String>,
    /// Show the version
    #[arg(short, long, action = clap::ArgAction::Version)]
    pub(crate) version: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        let words = std::iter::once("smc_chk").chain(line.split_whitespace());
        Args::try_parse_from(words)
    }

    #[test]
    fn the_definition_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn options_are_those_of_ibms_tool() {
        let args = parse("-C 10.9.0.2 -p 6379 -d").unwrap();
        assert_eq!(args.connect.as_deref(), Some("10.9.0.2"));
        assert_eq!((args.port, args.debug, args.ipv6), (6379, true, false));
        let args = parse("--server --ipv6").unwrap();
        assert!(args.server && args.ipv6);
        assert_eq!(args.port, 37373);
        assert_eq!(parse("-i eth0").unwrap().pnetid.as_deref(), Some("eth0"));
        assert_eq!(parse("eth0 eth1").unwrap().interfaces.len(), 2);
        for line in [
            "-S -C x",
            "-C",
            "-C x eth0",
            "-p 0",
            "-p 70000",
            "-S -i eth0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
